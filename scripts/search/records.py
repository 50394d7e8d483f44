"""What can be found: every page, section, snippet, term and reference, read from the built pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from lxml import html

from scripts.pipeline import notebook
from scripts.pipeline.pages import Page, pages, summaries
from scripts.pipeline.paths import LANGUAGES, topics
from scripts.pipeline.words import glossary
from scripts.search.words import STOP, normal, squeezed, stem

# Not words of the author: controls, listings made of other pages' words, code (found by its names).
LEFT_OUT = {
    "snippet", "proof", "evidence", "headerlink", "formula-display", "drawn-images", "topic-cards", "totals",
    "catalogue", "glossary", "caption-number", "notebook", "search", "races", "builds",
}  # fmt: skip
# Sections that speak of something else than they are called.
ASIDE = re.compile("mistake|exercise")
# Pygments' short names of plain names, functions, classes and attributes.
NAMES = {"n", "nf", "nc", "na"}
BLOCKS = {
    "p",
    "li",
    "h1",
    "h2",
    "h3",
    "h4",
    "figcaption",
    "tr",
    "summary",
    "dt",
    "dd",
    "table",
    "details",
    "pre",
}


@dataclass
class Record:
    """One thing to find, and where it is.

    kind: `1` a page, `2` to `4` a section by its heading's level, `c` code, `t` term, `r` reference.
    """

    kind: str
    id: str
    title: str
    names: list[str] = field(default_factory=list)  # what else it is called
    loose: list[str] = field(default_factory=list)  # names of what is in it, of no part in particular
    text: str = ""  # what is shown of it, a sentence at a time
    hidden: str = ""  # found, not shown: the heading in the other language, names used in code


@dataclass
class Found:
    """A page with all that can be found on it; the page itself is the first of its records."""

    name: str
    url: str
    title: str
    records: list[Record]
    article: bool = False
    topic: str | None = None
    notebook: bool = False


def read(site: Path, language: str) -> list[Found]:
    """All pages of one built language, articles first."""
    found = [_page(site, page) for page in pages(language)]
    found += [book for topic in topics() if (book := _notebook(site, topic, language))]
    return sorted(found, key=lambda page: (not page.article, page.notebook))


def _page(site: Path, page: Page) -> Found:
    other = next(p for la in LANGUAGES if la != page.language for p in pages(la) if p.name == page.name)
    titles = {section.id: plain(section.title) for section in other.sections if section.id}
    aliases = page.meta.get("aliases") or {}
    names = [alias for language in LANGUAGES for alias in aliases.get(language) or []]
    first = Record("1", "", page.title, [*names, other.title], text=str(page.meta.get("description", "")))
    records = [first]
    article = html.parse(str(site / page.url / "index.html")).find(".//article")
    for record in _sections(article, page.language):
        if record.kind == "1":
            first.text = "\n".join(filter(None, (first.text, record.text)))
        else:
            record.hidden = record.hidden or plain(titles.get(record.id, ""))
            records.append(record)
    if page.name == "glossary":
        records += [
            Record("t", term.id, term.names[page.language], term.words, text=term.definitions[page.language])
            for term in glossary().values()
        ]
    if page.topic:
        first.hidden = str(page.meta.get("paper", ""))
        hand_down(records, page.topic, introduced(article))
    return Found(page.name, page.url, page.title, records, page.topic is not None, page.topic)


def introduced(article: html.HtmlElement) -> dict[str, str]:
    """The section of each term's link: by our rule its first use, which is where it is explained."""
    found: dict[str, str] = {}
    here = ""
    for element in article.iter("h2", "h3", "h4", "a"):
        if element.tag != "a":
            here = element.get("id") or here
        elif term := re.search("glossary/#(.+)", element.get("href") or ""):
            found.setdefault(term[1], here)
    return found


def hand_down(records: list[Record], topic: str, introduced: dict[str, str]) -> None:
    """Give a page's other names, and all names of its terms, to the part of the page they belong to.

    That is the section or snippet that bears one of them, else the section that introduces the term. What is
    left stays with the page: as its names if they are like its title, or terms of its summary, else as names of
    what is in it.
    """
    page = records[0]
    mine = [term for term in glossary().values() if term.topic == topic]
    terms = [term.words for term in mine]
    own = {squeezed(name) for name in (page.title, page.names[-1])}
    own |= {squeezed(word) for words in terms if own & set(map(squeezed, words)) for word in words}
    at = {record.id: record for record in records if record.kind in "234" and record.id != "tldr"}
    groups = [(term.words, at.get(introduced.get(term.id, ""))) for term in mine]
    for names, home in [*groups, *(([name], None) for name in page.names)]:
        keys = {squeezed(name) for name in names}
        if keys & own:
            continue
        if place := _bearing(names, records) or home:
            place.names += [name for name in names if name not in place.names]
            page.names = [name for name in page.names if name not in names]
        elif names in terms:
            own |= keys
    page.loose = [name for name in page.names if squeezed(name) not in own and not alike(name, page.title)]
    page.names = [name for name in page.names if name not in page.loose]


def _bearing(names: list[str], records: list[Record]) -> Record | None:
    """The section or snippet that is called by one of the names, or nearly so."""
    sections = [record for record in records if record.kind in "234" and not ASIDE.match(record.id)]
    bags, keys = {_bag(name) for name in names}, {squeezed(name) for name in names}
    for record in sections:
        if bags & {_bag(heading) for heading in _headings(record)}:
            return record
    for record in records:
        if record.kind == "c" and squeezed(record.title) in keys:
            return record
    others = {squeezed(word) for term in glossary().values() for word in term.words} - keys
    for fits in (_frames, lambda key, heading: _frames(heading, key)):
        for record in sections:
            headings = {squeezed(heading) for heading in _headings(record)}
            # 虚拟线程 ends with 线程, but is a term of its own.
            if not headings & others and any(fits(key, heading) for key in keys for heading in headings):
                return record
    return None


def _headings(record: Record) -> tuple[str, str, str]:
    """A heading in both languages, and its id."""
    return record.title, record.hidden, record.id


@cache  # names are few, and each is compared with all others
def _bag(text: str) -> frozenset[str]:
    """The words of an English name in any order: "mean IoU" and "IoU and its mean"."""
    found = frozenset(stem(word) for word in re.findall("[a-z0-9]+", normal(text))) - STOP
    return found if len(found) > 1 and text.isascii() else frozenset({squeezed(text)})


def _frames(part: str, whole: str) -> bool:
    """Whether one name begins or ends with another and holds little more: 棋盘格 in 棋盘格效应."""
    long_enough = len(part) > (3 if part.isascii() else 1)
    return long_enough and len(whole) <= 2.5 * len(part) and whole.startswith(part) | whole.endswith(part)


def alike(name: str, title: str) -> bool:
    """Whether most of a name's characters stand in the title too, or it spells the title out.

    So are 分割评价指标 and 语义分割指标, detection transformer and DETR.
    """
    letters = squeezed(name)
    if re.fullmatch("(?=.*[A-Z]{2})[A-Za-z]+", title) and name.isascii():
        remaining = iter(letters)
        return letters[0] == title[0].lower() and all(letter in remaining for letter in title.lower())
    return sum(letter in squeezed(title) for letter in letters) > 0.6 * len(letters)


def _notebook(site: Path, topic: str, language: str) -> Found | None:
    """A notebook repeats its article; it is found by its title and headings."""
    name = f"notebooks/{topic.replace('_', '-')}"
    path = site / name / "index.html"
    if not path.is_file() or not notebook.output_path(topic, language).is_file():
        return None
    article = html.parse(str(path)).find(".//article")
    heads = [
        " ".join(head.text_content().replace("¶", "").split()) for head in article.iter("h1", "h2", "h3")
    ]
    record = Record("1", "", heads[0], text=" · ".join(heads[1:]), hidden="notebook jupyter ipynb 笔记本")
    return Found(name, f"{name}/", heads[0], [record], topic=topic, notebook=True)


def plain(markdown: str) -> str:
    """A heading without its markup."""
    return re.sub(r"\[([^\]]+)\]\([^)]*\)|[`*$]", lambda m: m[1] or "", markdown)


def _sections(article: html.HtmlElement, language: str) -> Iterator[Record]:
    """The records of a page in reading order, each with the text under it."""
    current = Record("1", "", "")
    texts: list[str] = []
    pending: list[Record] = []
    cited = {
        link.get("href", "")[1:]: " ".join(link.text_content().split())
        for link in reversed(article.xpath(".//a[starts-with(@href, '#ref-')]"))
    }

    def done() -> Iterator[Record]:
        current.text = tidy("".join(texts))
        texts.clear()
        yield current
        yield from pending
        pending.clear()

    for element, text in _flow(article):
        if element is None:
            texts.append(text)
        elif element.get("data-snippet"):
            pending.append(_snippet(element, language))
        elif element.tag == "li":
            text = tidy(_text(element))
            pending.append(Record("r", element.get("id"), cited.get(element.get("id"), text[:40]), text=text))
        else:
            yield from done()
            current = Record(element.tag[1], element.get("id"), bare(_text(element)))
    yield from done()


def _flow(element: html.HtmlElement) -> Iterator[tuple[html.HtmlElement | None, str]]:
    """Headings, snippets and references as elements, everything else as text, in order."""
    for child in element:
        if isinstance(child.tag, str):
            classes = set((child.get("class") or "").split())
            heading = child.tag in ("h1", "h2", "h3", "h4") and child.get("id")
            reference = child.tag == "li" and (child.get("id") or "").startswith("ref-")
            if child.get("data-snippet") or reference or heading:
                yield child, ""
            elif "formula" in classes:
                yield None, _formula(child)
            elif not classes & LEFT_OUT and child.tag not in ("script", "style", "template", "h1"):
                if child.text:
                    yield None, child.text
                yield from _flow(child)
            if child.tag in BLOCKS:
                yield None, "\n"
            elif child.tag in ("td", "th", "br"):
                yield None, " "
        if child.tail:
            yield None, child.tail


def _text(element: html.HtmlElement) -> str:
    return (element.text or "") + "".join(text for _, text in _flow(element))


def _formula(element: html.HtmlElement) -> str:
    """Short formulas read as text; a longer one is left to the page."""
    shown = "".join(element.xpath(".//*[@class='katex-html']//text()"))
    return shown if len(shown) < 24 and "frac" not in (element.get("data-tex") or "") else "…"


def bare(text: str) -> str:
    """One space between words, and nothing that cannot be seen."""
    return " ".join(re.sub("[\u200b\u2060¶]", "", text).split())


def tidy(text: str) -> str:
    """One line a block; lines without a word (rows of numbers) go."""
    lines = map(bare, text.split("\n"))
    return "\n".join(line for line in lines if re.search(r"[^\W\d_]{2}", line))


def _snippet(element: html.HtmlElement, language: str) -> Record:
    name = element.get("data-snippet")
    other = next(la for la in LANGUAGES if la != language)
    mine, theirs = summaries(language).get(name, ""), summaries(other).get(name, "")
    title = name.partition(".")[2]
    return Record("c", element.get("id"), title, text=mine, hidden=f"{theirs} {names_used(element)}")


def names_used(element: html.HtmlElement) -> str:
    """Names in a snippet's code in whatever language, as its highlighting tells them apart; builtins are no find."""
    found = dict.fromkeys(
        span.text for span in element.xpath(".//pre//span[@class]") if span.get("class") in NAMES
    )
    return " ".join(name for name in found if len(name) > 2 and name[0] != "_" and name != "Tensor")
