"""Pages as data: what each one names, on which line, in each language."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from scripts.pipeline.paths import CONFIGS, DOCS, LANGUAGES, ContentError, topics

HEADING = re.compile(r"^(#{1,6})\s+(.*?)(?:\s+\{[^}]*#([\w-]+)[^}]*\})?\s*$")
BLOCK = re.compile(r"^\s*/{3,}\s*([a-z]+)(?:\s*\|\s*(.*?))?\s*$")
FENCE = re.compile(r"^\s*(`{3,}|~{3,})\s*\{?\s*\.?([\w+-]*)")
VALUE = re.compile(r"\{\{\s*([A-Za-z0-9_.]+)\s*(?:\|\s*([^}|]+?)\s*)?\}\}")
TERM = re.compile(r"\[([^\]]+)\]\(term:([^)]*)\)")
CITATION = re.compile(r"\]\(#(ref-[\w-]+)\)")
REFERENCE = re.compile(r"\{[^}]*#(ref-[\w-]+)[^}]*\}")
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$(?!\s)([^$]+?)(?<!\s)\$(?![\w$])", re.S)


class Named(NamedTuple):
    """Something a page names, and where."""

    name: str
    line: int


class Section(NamedTuple):
    id: str
    level: int
    title: str
    line: int
    text: str


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path
    language: str
    meta: dict[str, Any] = field(compare=False)
    lines: list[str] = field(compare=False, repr=False)
    offset: int  # lines of front matter before the body

    @property
    def name(self) -> str:
        """The path without language and ending, equal in both languages: `computer-vision/detr`."""
        return self.path.relative_to(DOCS / self.language).with_suffix("").as_posix()

    @property
    def topic(self) -> str | None:
        """The topic this page is the article of."""
        stem = self.path.stem.replace("-", "_")
        return stem if stem in topics() and len(self.path.relative_to(DOCS).parts) == 3 else None

    @property
    def url(self) -> str:
        """Relative to the root of the language's site."""
        return "" if self.name == "index" else self.name.removesuffix("/index") + "/"

    @property
    def outline(self) -> tuple[object, ...]:
        """What other pages show of this one: front matter, headings, summaries of snippets."""
        return self.meta, [(s.id, s.title) for s in self.sections], self.summaries

    @property
    def title(self) -> str:
        return str(self.meta.get("title", self.name))

    @cached_property
    def prose(self) -> tuple[tuple[int, str], ...]:
        """Numbered lines outside fences."""
        return tuple(self._outside_fences())

    def _outside_fences(self) -> Iterator[tuple[int, str]]:
        fence = ""
        for number, line in enumerate(self.lines, self.offset + 1):
            found = FENCE.match(line)
            if found and not fence:
                fence = found[1]
            elif fence and line.strip().startswith(fence):
                fence = ""
            elif not fence:
                yield number, line

    def fences(self) -> list[Named]:
        """Languages of the fences typed into the page."""
        found, fence = [], ""
        for number, line in enumerate(self.lines, self.offset + 1):
            match = FENCE.match(line)
            if match and not fence:
                fence = match[1]
                found.append(Named(match[2], number))
            elif fence and line.strip().startswith(fence):
                fence = ""
        return found

    def blocks(self, kind: str) -> list[Named]:
        return [name for found, name in self._all_blocks if found == kind]

    @cached_property
    def _all_blocks(self) -> list[tuple[str, Named]]:
        return [(m[1], Named(m[2] or "", n)) for n, line in self.prose if (m := BLOCK.match(line))]

    @cached_property
    def summaries(self) -> dict[str, str]:
        """What each snippet shown here does: the option `summary` of its block."""
        found: dict[str, str] = {}
        for block in self.blocks("snippet"):
            for line in self.lines[block.line - self.offset :]:
                if not line.startswith("    "):
                    break
                if option := re.match(r"\s{4}summary:\s*(.+)", line):
                    found[block.name] = option[1].strip().strip("\"'")
        return found

    def _named(self, pattern: re.Pattern[str], group: int = 1) -> list[Named]:
        return [Named(m[group], n) for n, line in self.prose for m in pattern.finditer(line)]

    @property
    def values(self) -> list[Named]:
        return self._named(VALUE)

    @property
    def terms(self) -> list[Named]:
        return self._named(TERM, 2)

    @property
    def terms_with_words(self) -> list[Named]:
        """The words that carry a term's link."""
        return self._named(TERM, 1)

    def running_text(self) -> Iterator[tuple[int, str]]:
        """Prose without headings, blocks' options and captions' markers."""
        for number, line in self.prose:
            if not (HEADING.match(line) or BLOCK.match(line) or line.startswith("    ")):
                yield number, line

    @property
    def citations(self) -> list[Named]:
        return self._named(CITATION)

    @property
    def references(self) -> list[Named]:
        return self._named(REFERENCE)

    @property
    def formulas(self) -> list[str]:
        body = "\n".join(re.sub(r"`[^`]*`", "", line) for _, line in self.prose)
        return [re.sub(r"\s+", " ", (m[1] or m[2]).strip()) for m in FORMULA.finditer(body)]

    @property
    def sections(self) -> list[Section]:
        """Headings with the text under each, up to the next heading."""
        heads = [(n, m) for n, line in self.prose if (m := HEADING.match(line))]
        ends = [n for n, _ in heads[1:]] + [self.offset + len(self.lines) + 1]
        return [
            Section(
                m[3] or "",
                len(m[1]),
                m[2],
                n,
                "\n".join(self.lines[n - self.offset - 1 : end - self.offset - 1]),
            )
            for (n, m), end in zip(heads, ends, strict=True)
        ]


def read_page(path: Path, language: str) -> Page:
    return _read(path, language, path.stat().st_mtime_ns)


@lru_cache(maxsize=512)
def _read(path: Path, language: str, changed: int) -> Page:
    lines = path.read_text(encoding="utf-8").splitlines()
    meta: dict[str, Any] = {}
    offset = 0
    if lines and lines[0] == "---":
        try:
            offset = lines.index("---", 1) + 1
            meta = yaml.safe_load("\n".join(lines[1 : offset - 1])) or {}
        except (ValueError, yaml.YAMLError) as error:
            raise ContentError(path, f"front matter: {error}".splitlines()[0], "mend the YAML", 1) from None
    return Page(path, language, meta, lines[offset:], offset)


def pages(language: str) -> list[Page]:
    root = DOCS / language
    return [read_page(path, language) for path in sorted(root.rglob("*.md"))]


def page_pairs() -> list[tuple[Page, Page]]:
    """Pages that exist in both languages, zh first."""
    by_name = {language: {p.name: p for p in pages(language)} for language in LANGUAGES}
    return [(p, by_name["en"][name]) for name, p in by_name["zh"].items() if name in by_name["en"]]


def article(topic: str, language: str) -> Page | None:
    return next((p for p in pages(language) if p.topic == topic), None)


class _Config(yaml.SafeLoader):
    """Reads a generator's configuration without minding its own tags."""


_Config.add_multi_constructor("!", lambda loader, suffix, node: None)


@lru_cache(maxsize=8)
def _nav(config: Path, changed: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.load(config.read_text(encoding="utf-8"), _Config)["nav"]
    return found


def shelves(language: str) -> dict[str, list[Page]]:
    """The articles by category, under its name and in its order in the navigation."""
    by_name = {f"{page.name}.md": page for page in pages(language) if page.topic}
    found: dict[str, list[Page]] = {}
    for entry in _nav(CONFIGS[language], CONFIGS[language].stat().st_mtime_ns):
        for title, names in entry.items():
            if articles := [by_name[name] for name in names if name in by_name]:
                found[title] = articles
    return found


def summaries(language: str) -> dict[str, str]:
    """What each snippet does, in the words of the block that shows it."""
    return {name: words for page in pages(language) for name, words in page.summaries.items()}
