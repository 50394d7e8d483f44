"""What the extensions know about the page being rendered; set by whoever renders it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from scripts.pipeline.paths import ContentError
from scripts.pipeline.words import line_of, say


@dataclass
class PageContext:
    """The page, its language, and the way from its URL to the root of its language's site."""

    source: Path
    language: str
    to_root: str = ""
    preview: bool = False  # results still being computed are shown as such instead of refused
    counts: dict[str, int] = field(default_factory=dict)

    def say(self, key: str, **values: object) -> str:
        return say(key, self.language, **values)

    def number(self, kind: str) -> int:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return self.counts[kind]

    def error(self, what: str, mend: str, needle: str) -> ContentError:
        """An error at the first line of the page that holds `needle`."""
        return ContentError(self.source, what, mend, line_of(self.source, needle))


_current: ContextVar[PageContext] = ContextVar("page")


def page() -> PageContext:
    return _current.get()


def enter(context: PageContext) -> None:
    """Make `context` the page being rendered until the next one."""
    _current.set(context)


@contextmanager
def rendering(context: PageContext) -> Iterator[PageContext]:
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
