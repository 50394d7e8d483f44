"""The index that the browser reads: names and headings as they are, and on which pages a word stands.

The words of a page tell which pages to look at; the best sections of these come from the pages' texts,
one small file a page, which are needed in any case to show the matching sentence. So the index stays
small however long the articles are.
"""

from __future__ import annotations

import json
import os
import re
from bisect import bisect
from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import jieba
import opencc
import pypinyin

from scripts.pipeline.paths import writing
from scripts.pipeline.words import glossary
from scripts.search.records import Found, Record, read
from scripts.search.words import HAN, STOP, counted, segmenter, squeezed, words

MOST_SHARED = 25  # a word shares at most so many characters with the one before it: one capital letter


def write(site: Path, language: str) -> None:
    """Write `search/` of one built language: the index, each page's texts; the Chinese one has the characters too."""
    found = read(site, language)
    folder = site / "search"
    for old in folder.glob("text-*.js"):
        old.unlink()
    index = build(found, language)
    writing(folder / "index.js", script(index))
    if language == "zh":
        writing(folder / "characters.js", script(characters(index["words"])))
    for number, page in enumerate(found):
        writing(folder / f"text-{number}.js", script(texts(page, number, language)))


def script(data: dict[str, Any]) -> str:
    """As a script and not as JSON: it loads under the strict policy, and from a folder without a server."""
    return f"ProvenSearch.add({json.dumps(data, ensure_ascii=False, separators=(',', ':'))});\n"


def texts(page: Found, number: int, language: str) -> dict[str, Any]:
    """What is shown of each record of a page, and what else it is found by."""
    return {
        "language": language,
        "page": number,
        "texts": [record.text for record in page.records],
        "hidden": [record.hidden for record in page.records],
    }


def build(found: list[Found], language: str, cut: jieba.Tokenizer | None = None) -> dict[str, Any]:
    """The index of one language; `cut` segments Chinese."""
    counts = page_words(found, cut or segmenter(frozenset(site_names(found))))
    vocabulary = sorted(set().union(*counts))
    articles = {page.topic: number for number, page in enumerate(found) if page.article}
    homes = {term.id: articles[term.topic] for term in glossary().values() if term.topic in articles}
    return {
        "language": language,
        "pages": [
            {
                "url": page.url,
                "kind": "a" if page.article else "n" if page.notebook else "",
                "records": [_entry(record, homes) for record in page.records],
            }
            for page in found
        ],
        "stop": " ".join(sorted(STOP)),
        "words": front_coded(vocabulary),
        "places": "".join(
            places([(page, level(count[word])) for page, count in enumerate(counts) if word in count])
            for word in vocabulary
        ),
    }


def _entry(record: Record, homes: dict[str, int]) -> list[Any]:
    """Kind, id, title, other names, loose names, a term's article; what is empty at the end is left out.

    `#id` among the names stands for all names of that term.
    """
    known = {squeezed(record.title)}
    entry: list[Any] = [record.kind, record.id, record.title]
    for given in (record.names, record.loose):
        names = []
        if record.kind != "t":
            keys = {squeezed(name) for name in given}
            whole = [t for t in glossary().values() if keys and {squeezed(word) for word in t.words} <= keys]
            names = [f"#{term.id}" for term in whole]
            known |= {squeezed(simplified(word)) for term in whole for word in term.words}
        for name in given:
            if (key := squeezed(simplified(name))) not in known:
                known.add(key)
                names.append(name)
        entry.append(names)
    entry.append(homes.get(record.id, "") if record.kind == "t" else "")
    while entry[-1] in ("", []):
        entry.pop()
    return entry


def site_names(found: list[Found]) -> Iterable[str]:
    """Words that must not be cut: titles, aliases, terms, headings of one word."""
    for page in found:
        if page.article:
            yield from (page.title, *page.records[0].names, *page.records[0].loose)
            yield from (
                r.title for r in page.records if r.kind in "234" and re.fullmatch(f"[{HAN}]{{2,3}}", r.title)
            )
    for term in glossary().values():
        yield from term.words


def page_words(found: list[Found], cut: jieba.Tokenizer) -> list[dict[str, int]]:
    """The words of each page with their counts; an article also has the names of its terms."""
    terms = {
        page.topic: "\n".join(w for t in glossary().values() if t.topic == page.topic for w in t.words)
        for page in found
        if page.article
    }
    return [
        counted(
            word
            for text in [
                *(
                    t
                    for record in page.records
                    for t in (record.title, record.text, record.hidden, *record.names, *record.loose)
                ),
                terms.get(page.topic, "") if page.article else "",
            ]
            for word in words(simplified(text), cut)
        )
        for page in found
    ]


def level(count: int) -> int:
    """How often a word stands on a page: once, less than eight times, more often."""
    return bisect([2, 8], count)


def places(on: list[tuple[int, int]]) -> str:
    """A character for each page of a word: pages passed over, level, and whether it is the word's first."""
    before = [-1, *(page for page, _ in on)]
    return "".join(
        chr(ord("#") + 6 * (page - last - 1) + 2 * level + (last < 0))
        for last, (page, level) in zip(before, on, strict=False)
    )


def front_coded(vocabulary: list[str]) -> str:
    """Sorted words, each as the length it shares with the one before (A is 0), and what follows."""
    coded, last = "", ""
    for word in vocabulary:
        shared = len(os.path.commonprefix([word, last])[:MOST_SHARED])
        coded += chr(ord("A") + shared) + word[shared:]
        last = word
    return coded


@lru_cache
def _converter() -> opencc.OpenCC:
    return opencc.OpenCC("t2s")


@lru_cache(maxsize=4096)
def simplified(text: str) -> str:
    return str(_converter().convert(text)) if re.search(f"[{HAN}]", text) else text


def characters(site_words: str) -> dict[str, str]:
    """What is needed when a query has an unknown word: how characters sound, and their simplified forms.

    GB 2312 lists the common characters by their sound, and a browser can read it. So it is enough to
    say where in that list each `sound` begins, and how the `other` characters of the site are read.
    """
    known = set(re.findall(f"[{HAN}]", site_words))
    return {
        "sounds": " ".join(sound + next(group) for sound, group in groupby(common(), key=reading)),
        "others": " ".join(
            sound + "".join(group) for sound, group in groupby(sorted(known - set(common()), key=reading), key=reading)
        ),
        "simplified": simplified_table(known),
    }


def simplified_table(known: set[str]) -> str:
    """Pairs of a traditional character and the simplified one that occurs on the site."""
    traditional = [chr(code) for code in range(0x4E00, 0xA000)]
    converted = simplified("\n".join(traditional)).split("\n")
    return "".join(
        old + new for old, new in zip(traditional, converted, strict=True) if old != new and new in known
    )


@lru_cache
def common() -> str:
    """The 3755 characters of GB 2312's first level."""
    coded = bytes(b for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF) for b in (high, low))
    return coded.decode("gb2312", errors="ignore")


def reading(character: str) -> str:
    """Pinyin without tones."""
    return pypinyin.lazy_pinyin(character)[0]
