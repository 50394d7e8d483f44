"""Results of experiments on a page: `/// figure`, `/// table` and `{{ value | format }}`."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as etree
from html import escape
from typing import Any

from markdown import Markdown
from markdown.inlinepatterns import InlineProcessor
from pymdownx.blocks.block import Block, type_string

from scripts.markdown.context import page
from scripts.pipeline import experiment, figure
from scripts.pipeline.names import complaint
from scripts.pipeline.pages import VALUE
from scripts.pipeline.paths import THEMES


class ValueProcessor(InlineProcessor):
    """A number in prose, bound to what an experiment returned."""

    def __init__(self, md: Markdown):
        super().__init__(VALUE.pattern, md)

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[etree.Element, int, int]:  # noqa: N802
        element = etree.Element("span", {"class": "value"})
        name = m.group(1)
        value = find_value(name)
        if value is PENDING:
            element.set("class", "value pending")
            element.text = page().say("pending_value")
        else:
            element.set("title", page().say("value_origin", name=name))
            element.text = format_value(value, m.group(2) or "", name)
        return element, m.start(0), m.end(0)


PENDING = object()


def find_value(name: str) -> Any:
    """The value behind a name; PENDING while a preview still waits for its experiment."""
    if fault := complaint("value", name):
        raise page().error(*fault, name)
    topic, function = name.split(".")[:2]
    try:
        return experiment.look_up(name)
    except (KeyError, IndexError, ValueError, TypeError):
        keys = ", ".join(key for key in experiment.load(topic, function) if not key.startswith("_"))
        raise page().error(f"unknown value {name!r}", f"{function} returns {keys}", name) from None
    except FileNotFoundError:
        if page().preview:
            return PENDING
        raise page().error(f"the value {name!r} has not been computed", "run make build", name) from None


def format_value(value: Any, spec: str, name: str) -> str:
    """A value as the reader's language writes it; `spec` is a Python format specification."""
    here = page()
    if value is None:  # what this machine could not measure
        return "–"
    if isinstance(value, bool):
        return here.say("affirmed" if value else "denied")
    if isinstance(value, list):
        return here.say("list_separator").join(format_value(item, spec, name) for item in value)
    if isinstance(value, float) and math.isinf(value):
        return "−∞" if value < 0 else "∞"
    try:
        text = format(
            value, spec or (".3g" if isinstance(value, float) else ",d" if isinstance(value, int) else "")
        )
    except (ValueError, TypeError):
        raise page().error(
            f"{name!r} is {value!r}, which {spec!r} cannot format", "correct the format", name
        ) from None
    return text.replace("-", "−") if isinstance(value, int | float) and "e" not in text else text


class FigureBlock(Block):
    """A drawn figure with its caption and alternative text."""

    NAME = "figure"
    ARGUMENT = True
    OPTIONS = {"alt": ("", type_string)}

    def on_create(self, parent: etree.Element) -> etree.Element:
        here, name = page(), self.argument
        topic, _, function = name.partition(".")
        if fault := complaint("figure", name):
            raise here.error(*fault, name)
        if not self.options["alt"].strip():
            raise here.error(f"figure {name!r} has no alternative text", "add `    alt: …` under it", name)
        alt = VALUE.sub(lambda m: _plain_value(m), self.options["alt"].strip())
        holder = etree.SubElement(
            parent,
            "figure",
            {"class": "drawn", "data-figure": name, "id": "figure-" + function.replace("_", "-")},
        )
        images = etree.SubElement(holder, "div", {"class": "drawn-images"})
        images.text = self.md.htmlStash.store(self._images(topic, function, alt))
        self.caption = etree.SubElement(holder, "figcaption")
        label = etree.SubElement(self.caption, "span", {"class": "caption-number"})
        label.text = here.say("figure", number=here.number("figure"))
        return holder

    def _images(self, topic: str, function: str, alt: str) -> str:
        here = page()
        if not all(path.is_file() for path in figure.svg_paths(topic, function)):
            if here.preview:
                return f'<p class="pending">{here.say("pending_figure")}</p>'
            raise here.error(
                f"the figure '{topic}.{function}' has not been drawn", "run make build", f"{topic}.{function}"
            )
        return drawn_images(topic, function, alt)

    def on_add(self, block: etree.Element) -> etree.Element:
        return self.caption


def drawn_images(shelf: str, name: str, alt: str) -> str:
    """A figure of a shelf in the page's language: the picture of each theme, which enlarges at a click."""
    here, parts = page(), []
    for theme in THEMES:
        path = figure.svg_path(shelf, name, here.language, theme)
        width, height = svg_size(path.read_text(encoding="utf-8"))
        source = f"{here.to_root}figures/{shelf}/{path.name}"
        parts.append(
            f'<a class="only-{theme}" href="{source}" data-enlarge title="{here.say("enlarge")}">'
            f'<img src="{source}" alt="{escape(alt)}" width="{width}" height="{height}" loading="lazy"></a>'
        )
    return "".join(parts)


def svg_size(svg: str) -> tuple[int, int]:
    """Width and height in CSS pixels of an SVG that Matplotlib wrote in points."""
    head = svg[svg.index("<svg") : svg.index(">", svg.index("<svg"))]
    width, height = (float(re.findall(rf'\b{side}="([\d.]+)pt"', head)[0]) for side in ("width", "height"))
    return round(width * 4 / 3), round(height * 4 / 3)


def _plain_value(match: re.Match[str]) -> str:
    value = find_value(match[1])
    return page().say("pending_value") if value is PENDING else format_value(value, match[2] or "", match[1])


def type_mapping(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not a mapping")
    return {str(key): str(item) for key, item in value.items()}


class TableBlock(Block):
    """A generated table: the page gives the headings, the experiment gives the rows."""

    NAME = "table"
    ARGUMENT = True
    OPTIONS: dict[str, Any] = {"columns": ({}, type_mapping), "labels": ({}, type_mapping)}

    def on_create(self, parent: etree.Element) -> etree.Element:
        here, name = page(), self.argument
        rows = find_value(name)
        holder = etree.SubElement(
            parent,
            "figure",
            {
                "class": "measured",
                "data-table": name,
                "id": "table-" + "-".join(name.split(".")[1:]).replace("_", "-"),
            },
        )
        self.caption = etree.SubElement(holder, "figcaption")
        label = etree.SubElement(self.caption, "span", {"class": "caption-number"})
        label.text = here.say("table", number=here.number("table"))
        body = etree.SubElement(holder, "div", {"class": "measured-table", "tabindex": "0"})
        if rows is PENDING:
            body.text = self.md.htmlStash.store(f'<p class="pending">{here.say("pending_table")}</p>')
        else:
            body.text = self.md.htmlStash.store(self._table(rows))
        return holder

    def on_add(self, block: etree.Element) -> etree.Element:
        return self.caption

    def _table(self, rows: Any) -> str:
        here, name, columns = page(), self.argument, self.options["columns"]
        if not (isinstance(rows, list) and rows and isinstance(rows[0], dict)):
            raise here.error(f"{name!r} is not a table", "name a list of rows", name)
        if missing := [key for key in columns if key not in rows[0]]:
            raise here.error(
                f"the table {name!r} has no column {missing[0]!r}", f"its columns: {', '.join(rows[0])}", name
            )
        if not columns:
            raise here.error(f"the table {name!r} names no columns", "add `    columns:`", name)
        heads, formats = [], {}
        for key, text in columns.items():
            heading, _, spec = text.partition(" | ")
            formats[key] = spec.strip()
            heads.append(f'<th scope="col">{escape(heading)}</th>')
        body = "".join(
            "<tr>" + "".join(self._cell(row[key], formats[key]) for key in columns) + "</tr>" for row in rows
        )
        return f'<table class="data"><thead><tr>{"".join(heads)}</tr></thead><tbody>{body}</tbody></table>'

    def _cell(self, value: Any, spec: str) -> str:
        if isinstance(value, str):
            return f"<td>{escape(self.options['labels'].get(value, value))}</td>"
        if value is None:
            return "<td>–</td>"
        kind = (
            ""
            if isinstance(value, bool)
            else ' class="list"'
            if isinstance(value, list)
            else ' class="number"'
        )
        return f"<td{kind}>{escape(format_value(value, spec, self.argument))}</td>"


VARIES = ("never", "machine", "run")


def output_heading(shown: dict[str, str] | None, varies: str) -> str:
    """What printed a text, on which machine, and whether the reader's will look the same."""
    here = page()
    if shown is None:
        return here.say("output_missing")
    return " · ".join(
        [
            here.say("output_of", command=shown["command"]),
            here.say("output_where", machine=shown["machine"]),
            here.say(f"output_varies_{varies}"),
        ]
    )


class OutputBlock(Block):
    """What a program printed when an experiment ran it: `/// output | topic.experiment.key`.

    The value holds `text`, `command` and `machine`, or is None where it could not be run.
    `varies: never`, `machine` or `run` tells the reader what to expect elsewhere.
    """

    NAME = "output"
    ARGUMENT = True
    OPTIONS: dict[str, Any] = {"varies": ("never", type_string)}

    def on_create(self, parent: etree.Element) -> etree.Element:
        here, name, varies = page(), self.argument, self.options["varies"]
        if varies not in VARIES:
            raise here.error(
                f"the output {name!r} varies: {varies!r}", f"write one of {', '.join(VARIES)}", name
            )
        shown = find_value(name)
        holder = etree.SubElement(parent, "figure", {"class": "output", "data-output": name})
        if shown is PENDING:
            holder.text = self.md.htmlStash.store(f'<p class="pending">{here.say("pending_output")}</p>')
            return holder
        heading = escape(output_heading(shown, varies))
        text = (
            f'<pre tabindex="0" role="group" aria-label="{heading}"><samp>{escape(shown["text"])}</samp></pre>'
            if shown
            else ""
        )
        holder.text = self.md.htmlStash.store(f"<figcaption>{heading}</figcaption>{text}")
        return holder
