"""Blocks that list: the evidence of a page, the catalogue, the glossary, the topics, the totals."""

from __future__ import annotations

import xml.etree.ElementTree as etree
from collections.abc import Iterable
from html import escape

from pymdownx.blocks.block import Block

from scripts.markdown import topic_map
from scripts.markdown.context import page
from scripts.markdown.proof import badge, count_tests, error_text, least_flattering, reference_name
from scripts.markdown.snippets import anchor
from scripts.pipeline import evidence, mutants
from scripts.pipeline.pages import Page, article, summaries
from scripts.pipeline.pages import shelves as categories
from scripts.pipeline.paths import LANGUAGES, topics
from scripts.pipeline.snippet import Snippet
from scripts.pipeline.source import snippets_of
from scripts.pipeline.words import glossary
from scripts.publishing import metadata
from scripts.search import report


class Listing(Block):
    """A block without content of its own that becomes one piece of generated HTML."""

    def html(self) -> str:
        raise NotImplementedError

    def on_create(self, parent: etree.Element) -> etree.Element:
        holder = etree.SubElement(parent, "div", {"class": self.NAME})
        holder.text = self.md.htmlStash.store(self.html())
        return holder


def measured_table(heads: Iterable[str], rows: Iterable[str]) -> str:
    """A table in the site's style, from the HTML of its column heads and of its rows."""
    columns = "".join(f'<th scope="col">{head}</th>' for head in heads)
    return (
        f'<div class="measured-table" tabindex="0"><table class="data"><thead><tr>{columns}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def summary_of(snippet: Snippet) -> str:
    """What the snippet's block says of it in the page's language, else the docstring's first line."""
    words = summaries(page().language).get(snippet.qualified)
    if words:
        return escape(words)
    return f'<span lang="en">{escape(snippet.docstring.split(chr(10))[0])}</span>'


def link_to(snippet: Snippet) -> str:
    """Where the snippet is shown, relative to the page being rendered."""
    here = page()
    home = article(snippet.topic, here.language)
    target = f"{here.to_root}{home.url}#{anchor(snippet)}" if home else ""
    return f'<a href="{target}"><code>{escape(snippet.name)}</code></a>'


class EvidenceBlock(Listing):
    """`/// evidence | topic`: what was proved on this page, against what, how closely."""

    NAME = "evidence"
    ARGUMENT = True

    def html(self) -> str:
        here, topic = page(), self.argument
        if topic not in topics():
            raise here.error(f"unknown topic {topic!r}", f"topics: {', '.join(topics())}", topic)
        heads = [here.say(key) for key in ("snippet", "state", "reference", "values_compared", "max_abs")]
        rows = []
        for snippet in snippets_of(topic):
            found = evidence.standing(snippet)
            seen = found.record.get("references", [])
            names = list(dict.fromkeys(reference_name(r["reference"]) for r in seen))
            tests = count_tests(len(found.record.get("tests", [])))
            error = error_text(least_flattering(seen)["max_abs"]) if seen else "–"
            values = sum(r["values"] for r in seen)
            rows.append(
                f"<tr><td>{link_to(snippet)}</td><td>{badge(found.state)}<br><small>{tests}</small></td>"
                f'<td>{"<br>".join(names) or "–"}</td><td class="number">{values:,}</td>'
                f'<td class="number">{error}</td></tr>'
            )
        totals = counted([topic])
        words = here.say("evidence_total", **totals | {"values": f"{totals['values']:,}"})
        return f"<p>{words}</p>{measured_table(heads, rows)}"


def counted(names: list[str]) -> dict[str, int]:
    """What was proved of topics, in numbers."""
    snippets = [snippet for topic in names for snippet in snippets_of(topic)]
    standings = [evidence.standing(snippet) for snippet in snippets]
    seen = [r for found in standings for r in found.record.get("references", [])]
    # Snippets of one function or class share its planted bugs.
    owners = {(snippet.topic, snippet.owner): mutants.standing(snippet) for snippet in snippets}
    planted = [entry for entry in owners.values() if entry]
    return {
        "count": len(standings),
        "tests": len({test for found in standings for test in found.record.get("tests", [])}),
        "verified": sum(found.state == evidence.VERIFIED for found in standings),
        "references": len({r["reference"] for r in seen}),
        "values": sum(r["values"] for r in seen),
        "planted": sum(map(mutants.planted, planted)),
        "caught": sum(map(mutants.caught, planted)),
    }


class TotalsBlock(Listing):
    """`/// totals`: what the whole site can prove, for the home page."""

    NAME = "totals"
    SHOWN = (
        ("{verified:,}/{count:,}", "total_snippets"),
        ("{tests:,}", "total_tests"),
        ("{values:,}", "total_values"),
        ("{caught:,}/{planted:,}", "total_bugs"),
    )

    def html(self) -> str:
        totals = counted(topics())
        items = (
            f"<li><strong>{number.format(**totals)}</strong> {page().say(key, **totals)}</li>"
            for number, key in self.SHOWN
        )
        return f"<ul>{''.join(items)}</ul>"


class TopicsBlock(Listing):
    """`/// topics`: the map of the articles, what each one needs first, and its evidence."""

    NAME = "topics"
    HUES, COLUMNS = 6, 5  # as many as site.css has

    def html(self) -> str:
        here, shelves = page(), categories(page().language)
        home = {article.topic or "": article for shelf in shelves.values() for article in shelf}
        needs = {topic: [n for n in one.meta["prerequisites"] if n in home] for topic, one in home.items()}
        names = {category: [one.topic or "" for one in shelf] for category, shelf in shelves.items()}
        layout = topic_map.arrange(names, needs)
        if layout.columns > self.COLUMNS:
            mend = "drop one that another implies, or give site.css more columns"
            raise here.error(f"prerequisites {layout.columns} deep", mend, self.NAME)
        hue = {category: f"hue-{number % self.HUES + 1}" for number, category in enumerate(names)}
        hue |= {topic: hue[category] for category, shelf in names.items() for topic in shelf}
        lines = "".join(
            f'<path class="{hue[first]}" data-line="{first} {then}" d="{path}"/>'
            for (first, then), path in topic_map.paths(layout)
        )
        box = f"0 0 {topic_map.WIDTH} {layout.height * topic_map.ROW:g}"
        bands = "".join(
            f'<section class="map-band {hue[category]}"><h3>{escape(category)}</h3><ul>'
            + "".join(self._box(home[t], layout.column[t], [home[n] for n in needs[t]]) for t in band)
            + "</ul></section>"
            for category, band in layout.bands.items()
        )
        return (
            f'<div class="topic-cards map" data-columns="{layout.columns}">'
            f'<svg aria-hidden="true" viewBox="{box}" preserveAspectRatio="none">{lines}</svg>{bands}</div>'
        )

    def _box(self, article: Page, column: int, needs: list[Page]) -> str:
        here, totals = page(), counted([article.topic or ""])
        proof = f"{totals['verified']}/{totals['count']} {here.say('state_verified')}"
        titles = here.say("list_separator").join(escape(need.title) for need in needs)
        first = f'<small class="map-needs">{here.say("needed_first")} {titles}</small>' if needs else ""
        return (
            f'<li class="map-column-{column + 1}{" map-needy" if needs else ""}" data-topic="{article.topic}">'
            f'<a href="{here.to_root}{article.url}">{escape(article.title)}</a>'
            f"<small>{here.say('minutes_short', count=metadata.minutes(article))} · "
            f'<span class="topic-proof">{proof}</span></small>{first}'
            f'<p class="map-about">{escape(str(article.meta.get("description", "")))}</p></li>'
        )


class CatalogueBlock(Listing):
    """`/// catalogue`: every snippet by topic, filterable."""

    NAME = "catalogue"

    def html(self) -> str:
        here = page()
        parts = [
            f'<p class="catalogue-filter"><label for="catalogue-filter">{here.say("filter")}</label> '
            f'<input id="catalogue-filter" type="search" placeholder="{here.say("filter_hint")}" autocomplete="off"> '
            f'<span role="status" data-template="{here.say("filter_count", count="#")}"></span></p>'
        ]
        heads = [here.say(key) for key in ("snippet", "summary", "state")]
        for topic in topics():
            home = article(topic, here.language)
            title = escape(home.title if home else topic)
            rows = [
                f'<tr data-entry="{_searched(s)}"><td>{link_to(s)}</td>'
                f"<td>{summary_of(s)}</td><td>{badge(evidence.standing(s).state)}</td></tr>"
                for s in snippets_of(topic)
            ]
            parts.append(
                f'<section><h2 id="{topic.replace("_", "-")}">{title}</h2>'
                f'<p><a href="{here.to_root}snippets/{topic}.py" download>{here.say("download_module")} '
                f"(<code>{topic}.py</code>)</a></p>"
                f"{measured_table(heads, rows)}</section>"
            )
        return "".join(parts)


def _searched(snippet: Snippet) -> str:
    """What the catalogue's filter looks through."""
    words = summaries(page().language).get(snippet.qualified, "")
    return escape(f"{snippet.qualified} {words} {snippet.docstring}".lower())


class GlossaryBlock(Listing):
    """`/// glossary`: every term with its names in both languages."""

    NAME = "glossary"

    def html(self) -> str:
        here = page()
        other = next(language for language in LANGUAGES if language != here.language)
        entries = []
        for term in sorted(glossary().values(), key=lambda t: t.names["en"].lower()):
            home = article(term.topic, here.language) if term.topic else None
            also = here.say("list_separator").join(
                f'<span lang="{language}">{escape(alias)}</span>'
                for language in (here.language, other)
                for alias in term.aliases[language]
            )
            entries.append(
                f'<dt id="{term.id}">{escape(term.names[here.language])} '
                f'<span class="other-name" lang="{other}">{escape(term.names[other])}</span></dt>'
                f"<dd>{escape(term.definitions[here.language])}"
                + (
                    f' <span class="also">{here.say("also_called")}{here.say("colon")}{also}</span>'
                    if also
                    else ""
                )
                + (f' <a href="{here.to_root}{home.url}">{escape(home.title)}</a>' if home else "")
                + "</dd>"
            )
        return f"<dl>{''.join(entries)}</dl>"


class SearchBlock(Listing):
    """`/// search | kinds`: how well the site's search answers, from the record of `make bench-search`."""

    NAME = "search"
    ARGUMENT = True

    def html(self) -> str:
        here, record = page(), report.load()
        if self.argument not in report.TABLES:
            raise here.error(
                f"no table {self.argument!r}", f"one of {', '.join(report.TABLES)}", self.argument
            )
        if record is None:
            return f"<p>{here.say('search_not_measured')}</p>"
        heads, rows = report.table(record, self.argument, here.language)
        body = [
            f'<tr><th scope="row">{escape(row[0])}</th>'
            + "".join(f'<td class="number">{escape(cell)}</td>' for cell in row[1:])
            + "</tr>"
            for row in rows
        ]
        note = report.note(record, here.language)
        return f"{measured_table(map(escape, heads), body)}<p><small>{escape(note)}</small></p>"


class NotebookBlock(Listing):
    """`/// notebook | topic`: where to read it and where to get it."""

    NAME = "notebook"
    ARGUMENT = True

    def html(self) -> str:
        here, slug = page(), self.argument.replace("_", "-")
        if self.argument not in topics():
            raise here.error(
                f"unknown topic {self.argument!r}", f"topics: {', '.join(topics())}", self.argument
            )
        base = f"{here.to_root}notebooks/{slug}"
        return (
            f'<p><a class="md-button" href="{base}/">{here.say("open_notebook")}</a> '
            f'<a class="md-button" href="{base}/{slug}.ipynb" download>{here.say("download_notebook")}</a></p>'
        )
