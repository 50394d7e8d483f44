"""Reading and rewriting the start tags of an HTML page, and leaving all else as it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from html.parser import HTMLParser
from typing import NamedTuple


class Tag(NamedTuple):
    """A start tag: its name, its attributes, and where its text begins and ends."""

    name: str
    attributes: dict[str, str | None]
    start: int
    end: int


class _Tags(HTMLParser):
    def __init__(self, html: str):
        super().__init__(convert_charrefs=False)
        self.lines = [0, *(found.end() for found in re.finditer("\n", html))]
        self.found: list[Tag] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        line, column = self.getpos()
        start = self.lines[line - 1] + column
        self.found.append(Tag(tag, dict(attrs), start, start + len(self.get_starttag_text() or "")))


@lru_cache(maxsize=256)  # a page as it stands between two changes is looked at by several
def tags(html: str) -> tuple[Tag, ...]:
    """Every start tag of a page, in order."""
    return tuple(_Tags(html).found)


def retag(html: str, change: Callable[[Tag, str], str]) -> str:
    """The page with each start tag's text replaced by what `change(tag, text)` returns."""
    parts, at = [], 0
    for tag in tags(html):
        text = html[tag.start : tag.end]
        parts += [html[at : tag.start], change(tag, text)]
        at = tag.end
    return "".join([*parts, html[at:]])
