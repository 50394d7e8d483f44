"""The record of `make bench-search`, and how it reads as tables."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from scripts.pipeline.paths import DOCS, SCRIPTS, TESTS, read_json, writing
from scripts.pipeline.words import say

RECORD = TESTS / "search" / "record.json"
ENGINES = ("ours", "material", "pagefind")
Table = tuple[list[str], list[list[str]]]


def fingerprint() -> str:
    """What the record speaks of: the queries, and the code that answers them."""
    paths = [TESTS / "search" / "queries.yml", *sorted((DOCS / "assets" / "search").glob("*.js"))]
    paths += [SCRIPTS / "search" / f"{name}.py" for name in ("index", "records", "words")]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def load() -> dict[str, Any] | None:
    found: dict[str, Any] | None = read_json(RECORD)
    return found


def save(record: dict[str, Any]) -> None:
    writing(RECORD, json.dumps(record | {"hash": fingerprint()}, indent=1, ensure_ascii=False) + "\n")


def is_current(record: dict[str, Any] | None) -> bool:
    return record is not None and record["hash"] == fingerprint()


def note(record: dict[str, Any], language: str) -> str:
    """When and with what the record was measured, and whether the search has changed since."""
    names = {name: f"{name} {version}" for name, version in record["versions"].items()}
    text = say(
        "search_measured_on",
        language,
        date=record["date"],
        material=names["mkdocs-material"],
        pagefind=names["pagefind"],
    )
    return text if is_current(record) else f"{text} {say('search_outdated', language)}"


def table(record: dict[str, Any], what: str, language: str) -> Table:
    """Heads and rows of the table of `kinds`, `languages` or `cost`."""
    return TABLES[what](record, what, language)


def _groups(record: dict[str, Any], what: str, language: str) -> Table:
    """Each group of queries: right page first, right section first and among three, mean reciprocal rank."""
    heads = [say(f"search_by_{what}", language), say("search_queries", language)]
    for engine in ENGINES:
        name = say(f"search_engine_{engine}", language)
        heads += [
            f"{name}: {say(f'search_{key}', language)}" for key in ("page_first", "section_first", "mrr")
        ]
    rows = []
    for group, scores in record[what].items():
        count = scores["ours"]["queries"]
        cells = [say(f"search_{what}_{group}", language), str(count)]
        for engine in ENGINES:
            score = scores[engine]
            cells += [f"{score[key] / count:.1%}" for key in ("page_first", "section_first")]
            cells.append(f"{score['reciprocal']:.2f}")
        rows.append(cells)
    return heads, rows


def _cost(record: dict[str, Any], what: str, language: str) -> Table:
    """Time and bytes. Pagefind is timed without its box, the others from the last key to the results."""
    heads = [say("search_measure", language)] + [
        say(f"search_engine_{engine}", language) for engine in ENGINES
    ]
    rows = []
    for key, shown in (
        ("median", "{:.0f} ms"),
        ("percentile_95", "{:.0f} ms"),
        ("before", "{:.1f} KB"),
        ("bytes", "{:.1f} KB"),
    ):
        rows.append(
            [say(f"search_{key}", language), *(shown.format(record["cost"][e][key]) for e in ENGINES)]
        )
    return heads, rows


TABLES = {"kinds": _groups, "languages": _groups, "cost": _cost}


def text_table(table: Table) -> str:
    """For a terminal."""
    heads, rows = table
    widths = [max(len(line[i]) for line in [heads, *rows]) for i in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in [heads, *rows]
    )


def markdown_table(table: Table) -> str:
    heads, rows = table
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, ["---"] * len(heads), *rows]) + "\n"
