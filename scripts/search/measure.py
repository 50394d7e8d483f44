"""How well and how fast a search answers, typed into a real browser: ours, and two others for comparison."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import yaml

from scripts.pipeline.paths import LANGUAGES, TESTS

QUERIES = TESTS / "search" / "queries.yml"
NOTHING = "nothing"


Place = tuple[str, str]  # a page's name, and a section's id or `top`


class Query(NamedTuple):
    text: str
    language: str
    kind: str
    page: str
    places: frozenset[Place]  # where the first result may lead


def queries() -> list[Query]:
    """The query set, in the order of the file."""
    return [
        Query(
            str(entry[language]),
            language,
            entry.get("kind", NOTHING),
            page,
            frozenset(_place_in(page, where) for where in entry.get("in", ())),
        )
        for page, entries in yaml.safe_load(QUERIES.read_text(encoding="utf-8")).items()
        for entry in entries
        for language in LANGUAGES
        if language in entry
    ]


def _place_in(page: str, where: str) -> Place:
    """`section` on the page, or `page#section` on another."""
    other, mark, section = where.rpartition("#")
    return (other if mark else page), section


def place(url: str) -> Place:
    """Where a link leads, the same for both languages."""
    parts = urlsplit(url)
    path = re.split(r"/(?:zh|en)/", unquote(parts.path), maxsplit=1)[-1]
    return path.strip("/").removesuffix("index.html").strip("/") or "index", unquote(parts.fragment) or "top"


@dataclass(frozen=True)
class Answer:
    """What a query was answered: at each rank the places that this result offers at once."""

    query: Query
    ranks: list[list[Place]]
    milliseconds: float

    def rank(self, section: bool) -> int | None:
        """The first rank, from 1, that leads to the right page, or to the right section of it."""
        if self.query.page == NOTHING:
            return None if self.ranks else 1
        right = self.query.places if section else {page for page, _ in self.query.places}
        for number, places in enumerate(self.ranks, 1):
            if any((place if section else place[0]) in right for place in places):
                return number
        return None


@dataclass(frozen=True)
class Score:
    """Counts over a group of answers; the mean reciprocal rank is of the right section."""

    queries: int
    page_first: int
    section_first: int
    section_third: int
    reciprocal: float

    @classmethod
    def of(cls, answers: Iterable[Answer]) -> Score:
        group = list(answers)
        pages = [answer.rank(section=False) for answer in group]
        sections = [answer.rank(section=True) for answer in group]
        return cls(
            len(group),
            sum(rank == 1 for rank in pages),
            sum(rank == 1 for rank in sections),
            sum(rank is not None and rank <= 3 for rank in sections),
            sum(1 / rank for rank in sections if rank) / max(1, len(group)),
        )


def by_kind(answers: list[Answer]) -> dict[str, Score]:
    """Scores by kind of query in the order of their first appearance, `all` at the end."""
    kinds = dict.fromkeys(answer.query.kind for answer in answers)
    return {kind: Score.of(a for a in answers if a.query.kind == kind) for kind in kinds} | {
        "all": Score.of(answers)
    }


# --- Typing ------------------------------------------------------------------------------------

TIMES = """
window.lastKey = 0;
for (const kind of ["keydown", "compositionend", "input"]) {
  addEventListener(kind, (event) => { window.lastKey = performance.now(); }, true);
}
"""


# The links shown for a query, once they are drawn.
DRAWN = """async (text) => {
  const deadline = performance.now() + 10_000;
  while (!(window.drawn && window.drawn[0] === text)) {
    if (performance.now() > deadline) throw new Error(`no results shown for ${text}`);
    await new Promise(requestAnimationFrame);
  }
  const links = [...document.querySelectorAll("[role=option]:not([data-query])")].map((link) => link.href);
  const milliseconds = window.drawn[1];
  window.drawn = null;
  return [links, milliseconds];
}"""


def opened(context: Any, root: str, language: str) -> tuple[Any, Any]:
    """A language's home page that notes when keys are pressed, and the session for typing Chinese into it."""
    page = context.new_page()
    page.add_init_script(TIMES)
    page.goto(f"{root}{language}/")
    return page, context.new_cdp_session(page)


def type_text(page: Any, session: Any, text: str) -> None:
    """Latin letters key by key; Chinese as an input method composes and commits it."""
    for run in re.findall(r"[ -~]+|[^ -~]+", text):
        if run.isascii():
            page.keyboard.type(run)
        else:
            for composed in ("p", "pin"):
                session.send(
                    "Input.imeSetComposition",
                    {"text": composed, "selectionStart": len(composed), "selectionEnd": len(composed)},
                )
            session.send("Input.insertText", {"text": run})


def paste_text(page: Any, session: Any, text: str) -> None:
    """All at once, so that the box searches once and not after each letter."""
    page.keyboard.insert_text(text)


def ask_ours(
    context: Any, root: str, wanted: list[Query], enter: Callable[[Any, Any, str], None] = type_text
) -> Iterator[Answer]:
    """Type each query into the site's own box, on one page of its language."""
    for language in dict.fromkeys(query.language for query in wanted):
        page, session = opened(context, root, language)
        page.evaluate(
            """() => {
              const root = document.querySelector("[data-search]");
              new MutationObserver(() => requestAnimationFrame(() => {
                window.drawn = [root.dataset.shown, performance.now() - window.lastKey];
              })).observe(root, { attributes: true, attributeFilter: ["data-shown"] });
            }"""
        )
        page.keyboard.press("/")
        for query in (q for q in wanted if q.language == language):
            page.keyboard.press("Control+A")
            enter(page, session, query.text)
            links, milliseconds = page.evaluate(DRAWN, query.text.strip())
            yield Answer(query, [[place(link)] for link in links], milliseconds)
        page.close()


def ask_material(context: Any, root: str, wanted: list[Query]) -> Iterator[Answer]:
    """Type each query into the theme's own box. A result offers its page and the first section under it."""
    for language in dict.fromkeys(query.language for query in wanted):
        page, session = opened(context, root, language)
        page.keyboard.press("/")
        page.wait_for_timeout(1500)
        page.evaluate(
            """() => {
              window.drawn = 0;
              new MutationObserver(() => { window.drawn = performance.now(); })
                .observe(document.querySelector(".md-search-result"), { childList: true, subtree: true, characterData: true });
            }"""
        )
        for query in (q for q in wanted if q.language == language):
            page.keyboard.press("Control+A")
            page.keyboard.press("Backspace")
            type_text(page, session, query.text)
            page.keyboard.press("End")  # the theme listens to keys only, and would miss what is composed
            page.wait_for_function("performance.now() - Math.max(window.drawn, window.lastKey) > 120")
            items, milliseconds = page.evaluate(
                """() => [
                  [...document.querySelectorAll('.md-search-result__item')].map((item) =>
                    [...item.querySelectorAll('a.md-search-result__link')].map((a) => a.href)),
                  Math.max(0, window.drawn - window.lastKey),
                ]"""
            )
            yield Answer(query, [[place(link) for link in links[:2]] for links in items], milliseconds)
        page.close()


def ask_pagefind(context: Any, root: str, wanted: list[Query]) -> Iterator[Answer]:
    """Ask Pagefind's own interface. A result offers its page and the section with the most hits."""
    for language in dict.fromkeys(query.language for query in wanted):
        page = context.new_page()
        page.goto(f"{root}{language}/")
        for query in (q for q in wanted if q.language == language):
            items, milliseconds = page.evaluate(
                """async ([path, text]) => {
                  window.pagefind ??= await import(path);
                  const begun = performance.now();
                  const found = await window.pagefind.search(text);
                  const pages = await Promise.all(found.results.slice(0, 8).map((result) => result.data()));
                  const items = pages.map((data) => [data.url, ...data.sub_results
                    .sort((a, b) => b.weighted_locations.length - a.weighted_locations.length)
                    .slice(0, 1).map((part) => part.url)]);
                  return [items, performance.now() - begun];
                }""",
                [f"/{language}/pagefind/pagefind.js", query.text],
            )
            yield Answer(query, [[place(link) for link in links] for links in items], milliseconds)
        page.close()


def percentile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def search_files(site: Path) -> dict[str, list[Path]]:
    """What search fetches: its script, its index, and the texts of which only the shown ones are fetched."""
    return {
        "script": sorted((site / "zh" / "assets" / "search").glob("*.js")),
        "index": sorted(p for p in site.glob("*/search/*.js") if not p.name.startswith("text-")),
        "texts": sorted(site.glob("*/search/text-*.js")),
    }
