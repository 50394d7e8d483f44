"""Stand-alone forms that repeat nothing: what a page shows, or another form holds, is named instead."""

from __future__ import annotations

import re
from collections import Counter
from html import escape, unescape

GAP = "\n\n\n"  # between the parts of a module
FORM = re.compile(r"(?<=<template data-standalone>).*?(?=</template>)", re.DOTALL)
SHOWN = re.compile(r'<div class="snippet" [^>]*id="([^"]+)">.*?<pre[^>]*><code[^>]*>(.*?)</code></pre>', re.DOTALL)


def packed(html: str) -> str:
    """The page with an empty `<i>` for each part of a stand-alone form that stands elsewhere in it.

    `data-shown` is the id of a block, `data-part` a place in the template `data-parts`; site.js puts
    the form together again.
    """
    shown = {_text(code).rstrip("\n"): f'shown="{name}"' for name, code in SHOWN.findall(html)}
    forms = [unescape(form).rstrip("\n").split(GAP) for form in FORM.findall(html)]
    counts = Counter(part for parts in forms for part in dict.fromkeys(parts))  # in the page's order
    often = [part for part, count in counts.items() if count > 1 and part not in shown]
    shared = {part: f'part="{place}"' for place, part in enumerate(often)}
    named = shown | shared

    def pack(form: re.Match[str]) -> str:
        parts = unescape(form[0]).rstrip("\n").split(GAP)
        return GAP.join(
            f"<i data-{named[part]}></i>" if part in named else escape(part, quote=False) for part in parts
        ) + "\n"

    html = FORM.sub(pack, html)
    if not shared:
        return html
    store = "".join(f"<i>{escape(part, quote=False)}</i>" for part in shared)
    return html.replace("</article>", f"<template data-parts>{store}</template></article>", 1)


def _text(markup: str) -> str:
    return unescape(re.sub("<[^>]+>", "", markup))
