"""`/// snippet | topic.name`: a tested definition, its two copies and its evidence."""

from __future__ import annotations

import re
import xml.etree.ElementTree as etree
from html import escape
from typing import Any

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pymdownx.blocks.block import Block, type_string

from scripts.markdown.context import page
from scripts.markdown.proof import evidence_line
from scripts.pipeline.names import complaint
from scripts.pipeline.paths import relative
from scripts.pipeline.snippet import Snippet
from scripts.pipeline.source import find_snippet


def _line_numbers(value: Any) -> str:
    return str(value)  # YAML reads a single line number as an integer


class SnippetBlock(Block):
    """Shows a snippet by its qualified name.

    `summary: …` says in the page's language what it does, for the catalogue;
    `lines: 3-5 8` highlights lines of it.
    """

    NAME = "snippet"
    ARGUMENT = True
    OPTIONS = {"summary": ("", type_string), "lines": ("", _line_numbers)}

    def on_markdown(self) -> str:
        return "raw"

    def on_create(self, parent: etree.Element) -> etree.Element:
        name = self.argument
        if fault := complaint("snippet", name):
            raise page().error(*fault, name)
        snippet = find_snippet(name)
        assert snippet is not None
        holder = etree.SubElement(
            parent, "div", {"class": "snippet", "data-snippet": name, "id": anchor(snippet)}
        )
        holder.text = self.md.htmlStash.store(render(snippet, self._highlighted(snippet)))
        return holder

    def on_end(self, block: etree.Element) -> None:
        if len(block):
            raise page().error("text inside a snippet block", "write it before the block", self.argument)

    def _highlighted(self, snippet: Snippet) -> list[int]:
        last = snippet.source.count("\n")
        numbers: list[int] = []
        for part in re.findall(r"\d+(?:-\d+)?", self.options["lines"]):
            first, _, end = part.partition("-")
            numbers += range(int(first), int(end or first) + 1)
        if numbers and max(numbers) > last:
            raise page().error(
                f"{snippet.qualified} has {last} lines, line {max(numbers)} is asked for",
                "correct `lines`",
                snippet.qualified,
            )
        return numbers


def anchor(snippet: Snippet) -> str:
    return "code-" + snippet.name.replace(".", "-")


def render(snippet: Snippet, highlighted: list[int]) -> str:
    here = page()
    topic, name = snippet.topic, escape(snippet.name)
    return f"""<div class="snippet-head">
<a class="snippet-name" href="#{anchor(snippet)}"><code>{name}</code></a>
<span class="snippet-links"><a href="{here.to_root}{relative(snippet.path)}">{here.say(snippet.stands_in)}</a>
<a href="{here.to_root}snippets/test_{topic}.py">{here.say("test")}</a></span>
<span class="snippet-copies">{_copies(snippet)}</span>
</div>
{_highlight(snippet, highlighted)}<template data-standalone>{escape(snippet.stand_alone, quote=False)}</template>
{evidence_line(snippet)}"""


def _copies(snippet: Snippet) -> str:
    """A button for each form of the snippet."""
    here = page()
    buttons = {
        "snippet": f'<button type="button" data-copy="snippet">{here.say("copy_snippet")}</button>',
        "standalone": f"""<button type="button" data-copy="standalone"
 title="{here.say("copy_standalone_hint")}">{here.say("copy_standalone")}</button>""",
    }
    return "\n".join(buttons[form] for form in snippet.copies)


def _highlight(snippet: Snippet, lines: list[int]) -> str:
    """Coloured code whose text content is the source, byte for byte; site.js makes each line an anchor."""
    formatter = HtmlFormatter(cssclass="highlight", wrapcode=True, hl_lines=lines)
    lexer = get_lexer_by_name(snippet.language, stripnl=False, ensurenl=False)
    # Names, spaces and signs look like any text of a block: half of its weight for nothing.
    html = re.sub(r'<span class="[nopw]">([^<]*)</span>', r"\1", highlight(snippet.source, lexer, formatter))
    label = escape(page().say("code_of", name=snippet.name))
    return html.replace(
        "<pre><span></span><code>", f'<pre tabindex="0" role="group" aria-label="{label}"><code>', 1
    )
