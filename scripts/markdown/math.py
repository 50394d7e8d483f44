"""Formulas set at build time by KaTeX, so that a page needs no JavaScript to show them."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as etree
from functools import lru_cache
from html import unescape
from pathlib import Path

import quickjs
from markdown.treeprocessors import Treeprocessor

from scripts.markdown.context import page

CLOSING = re.compile("[，。；：、！？）」』,.;:!?)]+")
UNBROKEN = 30  # characters of TeX that fit into one line of a phone
SOURCE = re.compile(r"<annotation.*?</annotation>|</?semantics>", re.DOTALL)  # data-tex holds it, too
KATEX = Path(__file__).with_name("katex.min.js")


class MathTreeprocessor(Treeprocessor):
    """Replaces what `pymdownx.arithmatex` found with KaTeX's HTML and MathML."""

    def run(self, root: etree.Element) -> None:
        for element in root.iter():
            if element.get("class") != "arithmatex":
                continue
            text = unescape(element.text or "").strip()  # arithmatex has escaped it
            tex = text[2:-2].strip()
            display = text.startswith(r"\[")
            closing = CLOSING.match(element.tail or "")
            if closing and not display and len(tex) <= UNBROKEN:
                element = _keeping(element, closing[0])
            element.set("class", "formula-display" if display else "formula")
            element.set("data-tex", tex)
            element.set("data-search-exclude", "")
            if display:
                element.set("tabindex", "0")
            element.text = self.md.htmlStash.store(render(tex, display))


def _keeping(element: etree.Element, closing: str) -> etree.Element:
    """Turn a formula's element into one that also holds the punctuation after it: no line may begin
    with that. Returns the element for the formula itself.
    """
    element.set("class", "formula-closed")
    element.text = ""
    inner = etree.SubElement(element, "span")
    inner.tail, element.tail = closing, (element.tail or "").removeprefix(closing)
    return inner


def render(tex: str, display: bool) -> str:
    """KaTeX's markup of a formula.

    Raises:
        ContentError: KaTeX does not understand the formula.
    """
    try:
        return _render(tex, display)
    except quickjs.JSException as error:
        reason = re.sub(r"^.*?ParseError: ", "", str(error).splitlines()[0])
        raise page().error(
            f"malformed formula ${tex}$: {reason}", "correct the TeX", tex.splitlines()[0]
        ) from None


@lru_cache(maxsize=4096)
def _render(tex: str, display: bool) -> str:
    options = {"displayMode": display, "throwOnError": True, "strict": "error", "output": "htmlAndMathml"}
    html: str = _katex().eval(f"katex.renderToString({json.dumps(tex)}, {json.dumps(options)})")
    return SOURCE.sub("", html)


@lru_cache(maxsize=1)
def _katex() -> quickjs.Context:
    context = quickjs.Context()
    context.eval("var console = {warn: function(m) { throw new Error(m); }};")
    context.eval(KATEX.read_text(encoding="utf-8"))
    return context
