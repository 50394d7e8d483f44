"""A strict Content-Security-Policy: in each page, and as header files for common static hosts."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from scripts.pipeline.paths import writing
from scripts.publishing.tags import Tag, retag, tags

DIRECTIVES = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",  # Material's style sheet holds its icons as data
    "font-src": "'self'",
    "connect-src": "'self'",
    "manifest-src": "'self'",
    "worker-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'self'",
}
EXECUTED = {"", "text/javascript", "module"}
STYLE = re.compile(r"""\sstyle=(?:"[^"]*"|'[^']*')""")


def without_inline_styles(html: str, rules: dict[str, str]) -> str:
    """The page with a class in place of each declaration of a `style` attribute; `rules` gathers them.

    The policy allows no inline style. The classes are `!important`, because a style attribute outranks
    every rule of a style sheet.
    """

    def change(tag: Tag, text: str) -> str:
        style = (tag.attributes.get("style") or "").strip().rstrip(";")
        if "style" not in tag.attributes:
            return text
        text = STYLE.sub("", text, count=1)
        if not style:
            return text
        classes = " ".join(_class_of(part, rules) for part in style.split(";"))
        if "class" in tag.attributes:
            return re.sub(r"""(\sclass=["'])""", rf"\g<1>{classes} ", text, count=1)
        return re.sub(r"(/?>)$", rf' class="{classes}"\1', text)

    return retag(html, change)


def _class_of(declaration: str, rules: dict[str, str]) -> str:
    """The class of one declaration, named by it: `ih77` for `height: 0.7719em`.

    KaTeX's lengths are kept to hundredths of an em, less than a tenth of a pixel off: hundreds of them
    are otherwise all different, and every reader has to fetch them.
    """
    key, value = (part.strip() for part in declaration.split(":", 1))
    if length := re.fullmatch(r"(-?[\d.]+)em", value):
        hundredths = round(100 * float(length[1]))
        value, said = f"{hundredths / 100:g}em", str(hundredths)
    else:
        said = re.sub(r"[^\w-]", "_", value)
    name = f"i{''.join(word[0] for word in key.split('-') if word)}{said}"
    rule = f"{key}:{value}!important"
    if rules.setdefault(name, rule) != rule:
        raise ValueError(f"one name, {name}, for two styles: {rules[name]} and {rule}")
    return name


def with_guarded_links(html: str) -> str:
    """The page with `rel="noopener"` on each link to another host."""

    def change(tag: Tag, text: str) -> str:
        outbound = tag.name == "a" and re.match(r"https?://", tag.attributes.get("href") or "")
        guarded = "noopener" in (tag.attributes.get("rel") or "")
        if not outbound or guarded:
            return text
        if "rel" in tag.attributes:
            return re.sub(r"""(\srel=["'])""", r"\g<1>noopener ", text, count=1)
        return text[:-1] + ' rel="noopener">'

    return retag(html, change)


def style_sheet(rules: dict[str, str]) -> str:
    return "".join(f".{name}{{{declarations}}}\n" for name, declarations in sorted(rules.items()))


def inline_scripts(html: str) -> list[str]:
    """The texts of the scripts that a page holds itself."""
    return [
        html[tag.end : html.index("</script", tag.end)]
        for tag in tags(html)
        if tag.name == "script"
        and "src" not in tag.attributes
        and (tag.attributes.get("type") or "") in EXECUTED
    ]


def hash_of(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def policy(scripts: Iterable[str], header: bool = False) -> str:
    """The policy under which these inline scripts run, and no others.

    Args:
        scripts: texts of inline scripts.
        header: also forbid framing, which only a header can.
    """
    directives = dict(DIRECTIVES)
    directives["script-src"] = " ".join(["'self'", *sorted({hash_of(script) for script in scripts})])
    if header:
        directives["frame-ancestors"] = "'none'"
    return "; ".join(f"{name} {value}" for name, value in directives.items())


def with_policy(html: str) -> str:
    """The page with its own policy, before anything the policy is about.

    Raises:
        ValueError: the page has no `<meta charset>` to put it after.
    """
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy(inline_scripts(html))}">'
    head, charset, rest = html.partition('<meta charset="utf-8">')
    if not charset:
        raise ValueError("the page declares no charset")
    return f"{head}{charset}\n{meta}{rest}"


def write_headers(target: Path, scripts: Iterable[str], hashed: list[str]) -> None:
    """`_headers` (Netlify, Cloudflare Pages) and `nginx.conf` with the policy of all pages together.

    Args:
        target: the finished site.
        scripts: the inline scripts of all pages.
        hashed: patterns of files whose name changes with their content.
    """
    headers = {
        "Content-Security-Policy": policy(scripts, header=True),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    forever = "public, max-age=31536000, immutable"
    lines = ["/*", *(f"  {name}: {value}" for name, value in headers.items())]
    for pattern in hashed:
        lines += [f"/{pattern}", f"  Cache-Control: {forever}"]
    writing(target / "_headers", "\n".join(lines) + "\n")
    names = "|".join(re.escape(pattern).replace(r"\*", "[^/]+") for pattern in hashed)
    nginx = [
        "# Include this in the server block that serves the site from the root of a host.",
        *(f'add_header {name} "{value}" always;' for name, value in headers.items()),
        "error_page 404 /404.html;",
        f"location ~ ^/({names})$ {{",
        *(f'  add_header {name} "{value}" always;' for name, value in headers.items()),
        f'  add_header Cache-Control "{forever}";',
        "}",
    ]
    writing(target / "nginx.conf", "\n".join(nginx) + "\n")
