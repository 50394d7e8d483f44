"""The drift record: what each section said, in both languages, when they were last in step."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator

from scripts.pipeline.pages import Page, page_pairs
from scripts.pipeline.paths import DOCS, LANGUAGES, ContentError, writing

RECORD = DOCS / "translations.json"
Hashes = dict[str, str]  # language → hash of the section's text


def _hash(text: str) -> str:
    return hashlib.sha256(re.sub(r"\s+", " ", text).strip().encode()).hexdigest()[:12]


def current() -> dict[str, Hashes]:
    """Hashes of every section of every page: `computer-vision/detr#math` → {zh, en}."""
    found: dict[str, Hashes] = {}
    for pair in page_pairs():
        for page in pair:
            for section, text in _sections(page):
                found.setdefault(f"{page.name}#{section}", {})[page.language] = _hash(text)
    return found


def _sections(page: Page) -> Iterator[tuple[str, str]]:
    """Text by section of level two, its sub-sections included; `top` is what precedes them."""
    section, text = "top", [json.dumps(page.meta, ensure_ascii=False, sort_keys=True, default=str)]
    for part in page.sections:
        if part.level <= 2 and part.id:
            yield section, "\n".join(text)
            section, text = part.id, []
        text.append(part.text)
    yield section, "\n".join(text)


def recorded() -> dict[str, Hashes]:
    return json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}


def drifted() -> Iterator[ContentError]:
    """Sections of which one language changed since both were last in step."""
    known = recorded()
    for section, now in current().items():
        then = known.get(section, {})
        changed = [language for language in LANGUAGES if now.get(language) != then.get(language)]
        if len(changed) == 1 and then:
            other = next(language for language in LANGUAGES if language not in changed)
            page, _, name = section.partition("#")
            yield ContentError(
                DOCS / changed[0] / f"{page}.md",
                f"section {name!r} changed, but docs/{other}/ did not",
                f"change it there too, or: make confirm SECTION={section}",
            )


def refresh(confirmed: str | None = None) -> list[str]:
    """Record sections that changed in both languages, and the one named; return what was recorded."""
    known, now = recorded(), current()
    if confirmed and confirmed not in now:
        raise ContentError(
            RECORD, f"unknown section {confirmed!r}", "write page#section, as the message shows it"
        )
    kept: dict[str, Hashes] = {}
    for section, hashes in now.items():
        then = known.get(section, {})
        one_sided = then and sum(hashes.get(la) != then.get(la) for la in LANGUAGES) == 1
        kept[section] = then if one_sided and section != confirmed else hashes
    writing(RECORD, json.dumps(kept, indent=1, sort_keys=True) + "\n")
    return [section for section in kept if kept[section] != known.get(section)]
