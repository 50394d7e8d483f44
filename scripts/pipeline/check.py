"""The laws of the house, checked over all pages at once; each fault is one line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

from scripts.pipeline import benchmark, evidence, experiment, figure, gates, java, notebook, translations
from scripts.pipeline.names import complaint
from scripts.pipeline.pages import Page, article, page_pairs, pages, summaries
from scripts.pipeline.paths import DOCS, LANGUAGES, SNIPPETS, ContentError, relative, topics
from scripts.pipeline.source import snippets_of
from scripts.pipeline.words import GLOSSARY, glossary, line_of

ANATOMY = [
    "tldr",
    "problem",
    "idea",
    "math",
    "code",
    "evidence",
    "experiment",
    "mistakes",
    "practice",
    "exercises",
    "references",
]
PLAIN_FENCES = {"text"}  # a fence that cannot be taken for code
REQUIRED_META = ("title", "description", "aliases", "prerequisites", "paper")

Faults = Iterator[ContentError]


def faults() -> list[ContentError]:
    """Every fault in pages, snippets' places and translations, in reading order."""
    found: list[ContentError] = []
    for rule in RULES:
        found += rule()
    return found


def _every_page() -> Iterator[Page]:
    for language in LANGUAGES:
        yield from pages(language)


def no_code_in_pages() -> Faults:
    for page in _every_page():
        for fence in page.fences():
            if fence.name not in PLAIN_FENCES:
                yield ContentError(
                    page.path,
                    f"code typed into a page (a {fence.name or 'bare'} fence)",
                    "move it to snippets/ and name it with /// snippet",
                    fence.line,
                )
        for number, line in page.prose:
            if re.search(r"<(pre|script|code)\b", re.sub(r"`[^`]*`", "", line)):
                yield ContentError(
                    page.path,
                    "code typed into a page as HTML",
                    "move it to snippets/ and name it with /// snippet",
                    number,
                )


def names_exist() -> Faults:
    for page in _every_page():
        named = {
            "snippet": page.blocks("snippet"),
            "figure": page.blocks("figure"),
            "value": page.values + page.blocks("table") + page.blocks("output"),
            "term": page.terms,
        }
        for kind, names in named.items():
            for name, line in names:
                if fault := complaint(kind, name):
                    yield ContentError(page.path, *fault, line)


def figures_ask_for_experiments() -> Faults:
    """A figure's parameters name experiments of its topic."""
    for topic in topics():
        for name, needs in figure.figures_of(topic).items():
            for need in needs:
                if fault := complaint("value", f"{topic}.{need}"):
                    place = figure.module_path(topic)
                    yield ContentError(
                        place, f"figure {name}: {fault[0]}", fault[1], line_of(place, f"def {name}(")
                    )


def no_orphans() -> Faults:
    """Each public snippet and figure is shown in both languages; each topic has its article."""
    for topic in topics():
        homes = {language: article(topic, language) for language in LANGUAGES}
        for language, home in homes.items():
            if home is None:
                yield ContentError(
                    SNIPPETS / f"{topic}.py",
                    f"the topic has no {language} article",
                    f"write docs/{language}/…/{topic.replace('_', '-')}.md",
                )
        for snippet in snippets_of(topic):
            yield from _shown(snippet.qualified, "snippet", relative(snippet.path), snippet.lines[0])
        for name in figure.figures_of(topic):
            yield from _shown(f"{topic}.{name}", "figure", f"scripts/figures/{topic}.py", None)
        if benchmark.load(topic):
            yield from _shown(topic, "races", relative(benchmark.path(topic)), None)


def _shown(qualified: str, kind: str, place: str, line: int | None) -> Faults:
    for language in LANGUAGES:
        names = (n.name for p in pages(language) for n in p.blocks(kind))
        if not any(n == qualified or n.startswith(f"{qualified}.") for n in names):
            yield ContentError(
                place,
                f"{kind} {qualified!r} is shown on no {language} page",
                f"name it with /// {kind} | {qualified}, or delete it",
                line,
            )


def summaries_given() -> Faults:
    """Each snippet says in both languages what it does, for the catalogue and other tools."""
    for language in LANGUAGES:
        known = summaries(language)
        for page in pages(language):
            for block in page.blocks("snippet"):
                if block.name.count(".") == 1 and block.name not in known:
                    yield ContentError(
                        page.path,
                        f"the snippet {block.name!r} has no summary",
                        "add `    summary: …` under it",
                        block.line,
                    )


def anatomy() -> Faults:
    """Each article has the same sections in the same order, and its front matter."""
    for page in _every_page():
        if page.topic is None:
            continue
        for key in REQUIRED_META:
            if key not in page.meta:
                yield ContentError(page.path, f"front matter lacks {key!r}", "add it", 1)
        found = [s.id for s in page.sections if s.level == 2]
        if found != ANATOMY:
            odd = next(
                (a for a, b in zip(ANATOMY, [*found, *[""] * len(ANATOMY)], strict=False) if a != b),
                found[-1],
            )
            yield ContentError(
                page.path,
                f"the section {odd!r} is missing or out of order",
                f"sections are: {', '.join(ANATOMY)}",
            )


def prerequisites_are_topics() -> Faults:
    """What an article needs first is an article, and needs nothing that needs it."""
    for language in LANGUAGES:
        articles = {page.topic: page for page in pages(language) if page.topic}
        needs = {topic: page.meta.get("prerequisites") or [] for topic, page in articles.items()}
        for topic, page in articles.items():
            line = line_of(page.path, "prerequisites:")
            for need in needs[topic]:
                if need not in articles:
                    mend = f"topics: {', '.join(articles)}"
                    yield ContentError(page.path, f"needs the unknown topic {need!r}", mend, line)
            before = set(needs[topic])
            while more := {n for need in before for n in needs.get(need, ())} - before:
                before |= more
            if topic in before:
                yield ContentError(page.path, "needs itself, by way of its prerequisites", "drop one", line)


def headings_have_ids() -> Faults:
    for page in _every_page():
        for section in page.sections:
            if section.level > 1 and not section.id:
                yield ContentError(
                    page.path,
                    f"the heading {section.title!r} has no id",
                    "add {#kebab-case-id}",
                    section.line,
                )
        for name, count in Counter(s.id for s in page.sections if s.id).items():
            if count > 1:
                yield ContentError(page.path, f"the id {name!r} is used {count} times", "make ids unique")


def references_cited() -> Faults:
    for page in _every_page():
        known, cited = {r.name for r in page.references}, {c.name for c in page.citations}
        for citation in page.citations:
            if citation.name not in known:
                yield ContentError(
                    page.path,
                    f"cites {citation.name!r}, which is not in its references",
                    "add it",
                    citation.line,
                )
        for reference in page.references:
            if reference.name not in cited:
                yield ContentError(
                    page.path,
                    f"the reference {reference.name!r} is cited nowhere",
                    "cite it or drop it",
                    reference.line,
                )


def terms_at_first_use() -> Faults:
    """A term is linked once, where its word first stands in prose."""
    for page in _every_page():
        for term in page.terms_with_words:
            for number, line in page.running_text():
                if number >= term.line:
                    break
                if term.name in line:
                    yield ContentError(
                        page.path,
                        f"{term.name!r} is linked as a term only in line {term.line}",
                        "link its first use",
                        number,
                    )
                    break
        linked: set[str] = set()
        for term in page.terms:
            if term.name in linked:
                yield ContentError(
                    page.path, f"the term {term.name!r} is linked again", "keep the first", term.line
                )
            linked.add(term.name)


def glossary_is_used() -> Faults:
    for term in glossary().values():
        if term.topic and term.topic not in topics():
            yield ContentError(
                GLOSSARY,
                f"the term {term.id!r} names the unknown topic {term.topic!r}",
                "correct it",
                line_of(GLOSSARY, f"{term.id}:"),
            )
        for language in LANGUAGES:
            if not any(t.name == term.id for p in pages(language) for t in p.terms):
                yield ContentError(
                    GLOSSARY,
                    f"the term {term.id!r} is used on no {language} page",
                    f"link it with [word](term:{term.id}), or delete it",
                    line_of(GLOSSARY, f"{term.id}:"),
                )


def topics_are_complete() -> Faults:
    """A topic bears one name in every room."""
    for path in java.strays(topics()):
        yield ContentError(
            path, "belongs to no topic", f"move it to snippets/TOPIC/, of {', '.join(topics())}"
        )
    for topic in topics():
        rooms = (experiment, figure, benchmark)
        for path in (*(room.module_path(topic) for room in rooms), notebook.source_path(topic)):
            if not path.is_file():
                yield ContentError(SNIPPETS / f"{topic}.py", f"the topic has no {relative(path)}", "write it")


Extract = Callable[[Page], list[str]]
PARITY: dict[str, Extract] = {
    "prerequisites": lambda p: p.meta.get("prerequisites") or [],
    "heading ids": lambda p: [f"{'#' * s.level} {s.id}" for s in p.sections if s.level > 1],
    "snippets": lambda p: [n.name for n in p.blocks("snippet")],
    "figures": lambda p: [n.name for n in p.blocks("figure")],
    "outputs": lambda p: [n.name for n in p.blocks("output")],
    "races": lambda p: [n.name for n in p.blocks("races")],
    "tables": lambda p: [n.name for n in p.blocks("table")],
    "values": lambda p: sorted(n.name for n in p.values),
    "formulas": lambda p: sorted(p.formulas),
    "terms": lambda p: sorted(n.name for n in p.terms),
    "references": lambda p: [n.name for n in p.references],
    "exercise solutions": lambda p: [str(len(p.blocks("details")))],
}


def same_book() -> Faults:
    """Both languages have the same pages, and each pair names the same things."""
    names = {language: {p.name for p in pages(language)} for language in LANGUAGES}
    for language, other in (LANGUAGES, LANGUAGES[::-1]):
        for name in sorted(names[language] - names[other]):
            yield ContentError(
                DOCS / language / f"{name}.md", f"has no translation in docs/{other}/", "write it"
            )
    for zh, en in page_pairs():
        for what, extract in PARITY.items():
            ours, theirs = extract(zh), extract(en)
            if ours != theirs:
                difference = list((Counter(ours) - Counter(theirs)) + (Counter(theirs) - Counter(ours)))
                shown = f"{difference[0]!r}" if difference else "their order"
                holder, lacking = (zh, en) if difference and difference[0] in ours else (en, zh)
                yield ContentError(
                    lacking.path,
                    f"{what} differ from {relative(holder.path)}: {shown}",
                    "make both languages name the same",
                )


def tests_assert() -> Faults:
    for topic in topics():
        if evidence.test_file(topic).is_file():
            yield from gates.tests_without_assertion(evidence.test_file(topic))


RULES: list[Callable[[], Faults]] = [
    no_code_in_pages,
    names_exist,
    figures_ask_for_experiments,
    topics_are_complete,
    no_orphans,
    summaries_given,
    anatomy,
    prerequisites_are_topics,
    headings_have_ids,
    references_cited,
    terms_at_first_use,
    glossary_is_used,
    same_book,
    tests_assert,
    translations.drifted,
]
