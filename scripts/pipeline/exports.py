"""The same book for other readers: Markdown twins, llms.txt, editor snippets, a zip of all modules."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from scripts.markdown.context import PageContext, rendering
from scripts.markdown.proof import error_text, reference_name
from scripts.markdown.results import find_value, format_value, output_heading
from scripts.pipeline import evidence, figure
from scripts.pipeline.pages import BLOCK, TERM, VALUE, Page, pages, summaries
from scripts.pipeline.paths import LANGUAGES, ROOT, SNIPPETS, relative, topics
from scripts.pipeline.snippet import Snippet
from scripts.pipeline.source import all_snippets, files_of, find_snippet, snippets_of
from scripts.pipeline.words import glossary, say
from scripts.search import report


def markdown_twin(page: Page) -> str:
    """A page as plain Markdown: snippets resolved, figures told by their alternative text.

    Args:
        page: any page of `docs/`; everything it names must have been computed.
    """
    with rendering(PageContext(page.path, page.language)):
        body = "\n".join(_resolved(page))
    body = re.sub(r"\n{3,}", "\n\n", body).strip().removeprefix(f"# {page.title}").strip()
    description = page.meta.get("description")
    return (
        "\n\n".join(part for part in (f"# {page.title}", description and f"> {description}", body) if part)
        + "\n"
    )


def _resolved(page: Page) -> Iterator[str]:
    lines = iter(page.lines)
    for line in lines:
        if re.fullmatch(r"\s*/{3,}\s*", line):
            continue
        if not (block := BLOCK.match(line)):
            yield _inline(line, page.language)
            continue
        kind, argument = block[1], block[2] or ""
        options: dict[str, str] = {}
        if kind in ("snippet", "figure", "table", "output"):
            options, columns, body = _read_block(lines)
            yield from _block(page, kind, argument, options, columns)
            yield from (_inline(text, page.language) for text in body)
        elif kind in ("evidence", "catalogue", "topics"):
            yield from _listing(argument or None, page.language)
        elif kind == "glossary":
            for term in glossary().values():
                yield f"- **{term.names[page.language]}**{say('colon', page.language)}{term.definitions[page.language]}"
        elif kind == "search" and (record := report.load()):
            yield report.markdown_table(report.table(record, argument, page.language))
        elif kind == "details":
            yield f"**{argument}**"


def _read_block(lines: Iterator[str]) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Options, column headings and content of a block up to its end."""
    options: dict[str, str] = {}
    columns: dict[str, str] = {}
    body: list[str] = []
    for line in lines:
        if re.fullmatch(r"\s*/{3,}\s*", line):
            break
        if option := re.match(r"    (\w+):\s*(.*)", line):
            options[option[1]] = option[2].strip().strip("\"'")
        elif column := re.match(r"      (\w+):\s*(.*)", line):
            columns[column[1]] = column[2].strip().strip("\"'")
        else:
            body.append(line)
    return options, columns, body


def _block(
    page: Page, kind: str, argument: str, options: dict[str, str], columns: dict[str, str]
) -> Iterator[str]:
    if kind == "snippet":
        snippet = find_snippet(argument)
        assert snippet is not None, argument  # the build has refused unknown names by now
        yield f"```{snippet.language}\n{snippet.source}```\n"
        yield _proof(snippet, page.language)
    elif kind == "figure":
        topic, _, name = argument.partition(".")
        drawing = figure.svg_path(topic, name, page.language, "light").name
        folder = "../" * page.name.count("/")
        yield f"![{_inline(options.get('alt', ''), page.language)}]({folder}figures/{topic}/{drawing})\n"
    elif kind == "output":
        shown = find_value(argument)
        yield f"{output_heading(shown, options.get('varies', 'never'))}\n\n```text\n{shown['text'] if shown else ''}```\n"
    else:
        yield from _table(argument, columns)


def _proof(snippet: Snippet, language: str) -> str:
    found = evidence.standing(snippet)
    parts = [say(f"state_{found.state}", language)]
    if found.record:
        parts.append(say("tests_count", language, count=len(found.record["tests"])))
        for seen in found.record["references"][:3]:
            name = re.sub(r"</?\w+[^>]*>", "", reference_name(seen["reference"]))
            parts.append(f"{name}: {error_text(seen['max_abs'])}")
    return f"_{snippet.qualified}: {'; '.join(parts)}_"


def _table(name: str, columns: dict[str, str]) -> Iterator[str]:
    rows: list[dict[str, Any]] = find_value(name)
    headings = {key: text.partition(" | ")[0] for key, text in columns.items() if key in rows[0]}
    formats = {key: text.partition(" | ")[2].strip() for key, text in columns.items()}
    yield f"| {' | '.join(headings.values())} |"
    yield f"|{'---|' * len(headings)}"
    for row in rows:
        cells = [
            row[key]
            if isinstance(row[key], str)
            else "–"
            if row[key] is None
            else format_value(row[key], formats[key], name)
            for key in headings
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _inline(line: str, language: str) -> str:
    """Values and terms resolved, attribute lists dropped."""
    line = VALUE.sub(lambda m: format_value(find_value(m[1]), m[2] or "", m[1]), line)
    line = TERM.sub(lambda m: m[1], line)
    return re.sub(r"\s*\{:?\s*#[\w-]+\s*\}\s*$", "", line)


def _listing(topic: str | None, language: str) -> Iterator[str]:
    words = summaries(language)
    for snippet in snippets_of(topic) if topic else all_snippets().values():
        yield f"- `{snippet.qualified}`: {words.get(snippet.qualified, '')} {_proof(snippet, language)}"


def llms_txt() -> str:
    """An index of both languages for language models, by the llms.txt convention."""
    lines = [
        "# Proven DL · 可验证的深度学习",
        "",
        "> A bilingual deep-learning knowledge base. Each snippet is tested, compared with an independent",
        "> implementation, and published with its evidence; snippets.json holds them all.",
    ]
    for language in LANGUAGES:
        lines += ["", f"## {say('site_name', language)} ({language})", ""]
        lines += [
            f"- [{page.title}]({language}/{page.name}.md): {page.meta.get('description', '')}"
            for page in pages(language)
        ]
    lines += ["", "## Code", "", "- [snippets.json](snippets.json): every snippet with source and evidence"]
    files = [path for topic in topics() for path in files_of(topic)]
    lines += [f"- [{path.relative_to(SNIPPETS).as_posix()}](en/{relative(path)})" for path in files]
    return "\n".join(lines) + "\n"


def editor_snippets() -> str:
    """All stand-alone forms as VS Code snippets, by qualified name."""
    english = summaries("en")
    entries = {
        snippet.qualified: {
            "scope": snippet.language,
            "prefix": snippet.name,
            "description": english.get(snippet.qualified, ""),
            "body": [re.sub(r"([\\$}])", r"\\\1", line) for line in snippet.stand_alone.splitlines()],
        }
        for snippet in all_snippets().values()
    }
    return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"


def modules_zip() -> bytes:
    """Every module with the licence; the same bytes for the same sources."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in [ROOT / "LICENSE", *(path for topic in topics() for path in files_of(topic))]:
            name = path.relative_to(SNIPPETS).as_posix() if path.is_relative_to(SNIPPETS) else path.name
            entry = zipfile.ZipInfo(f"proven-dl/{name}")  # its date is fixed: 1980
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
