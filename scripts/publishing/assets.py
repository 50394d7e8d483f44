"""One style sheet and one script, under names that change with their content, so that they may be kept forever."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection
from pathlib import Path

from scripts.publishing import fonts, styles
from scripts.publishing.policy import inline_scripts
from scripts.publishing.tags import Tag, retag, tags

SHEET, SCRIPT = "assets/site.css", "assets/site.js"
HASHED = ("assets/site.*.css", "assets/site.*.js", "assets/fonts/*.woff2")

# What the theme and KaTeX bring and the site does not use, or has in files of its own; KaTeX's LICENSE stays.
UNUSED = ("assets/javascripts", "assets/stylesheets", "assets/katex/fonts", "assets/katex/*.css", "assets/images", "**/*.map")


def remove_unused(folder: Path) -> None:
    for pattern in UNUSED:
        for path in list(folder.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def one_sheet(folder: Path, pages: Collection[str], last_rules: str) -> None:
    """Make every style sheet that the pages name into the one at SHEET, without what no page can use."""
    names = [address for address in _sheets(next(iter(pages))) if address != SHEET]
    whole = "".join(
        styles.moved((folder / name).read_text(encoding="utf-8"), Path(name).parent.relative_to("assets"))
        for name in (*names, SHEET)
    )
    ours = [*folder.glob("assets/*.js"), *folder.glob("assets/search/*.js")]
    scripts = [path.read_text(encoding="utf-8") for path in ours]
    scripts += {script for page in pages for script in inline_scripts(page)}
    used = set().union(*map(styles.words_of, pages), *map(styles.words_in_script, scripts))
    # Material's script, which is not here, set that class for browsers without the pseudo-class.
    whole = whole.replace(".focus-visible", ":focus-visible")
    sheet = styles.purged(whole + last_rules, used)
    sheet = fonts.lighten(folder / "assets", sheet, pages)
    (folder / SHEET).write_text(sheet, encoding="utf-8")


def _sheets(page: str) -> list[str]:
    """The style sheets of a page, in order; the page stands at the root of its language."""
    return [tag.attributes["href"] or "" for tag in tags(page) if _is_sheet(tag)]


def _is_sheet(tag: Tag) -> bool:
    return tag.name == "link" and tag.attributes.get("rel") == "stylesheet"


def fingerprint(folder: Path) -> dict[str, str]:
    """Rename the sheet and the script below `folder` by a hash of their content: old name → new name."""
    renamed = {}
    for name in (SHEET, SCRIPT):
        path = folder / name
        new = path.with_name(f"{path.stem}.{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}{path.suffix}")
        path.rename(new)
        renamed[name] = new.relative_to(folder).as_posix()
    return renamed


def relinked(html: str, renamed: dict[str, str]) -> str:
    """The page asking for the new names, and for no other style sheet."""

    def change(tag: Tag, text: str) -> str:
        address = tag.attributes.get("href" if tag.name == "link" else "src") or ""
        for old, new in renamed.items():
            if address.endswith(old):
                return text.replace(f'{old}"', f'{new}"')
        return "" if _is_sheet(tag) else text

    return retag(html, change)
