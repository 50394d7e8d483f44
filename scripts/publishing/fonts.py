"""The fonts of formulas, each with only the signs that the book's formulas draw in it."""

from __future__ import annotations

import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont
from lxml import html as markup

from scripts.pipeline.paths import writing

FACE = re.compile(r"@font-face\s*\{([^}]*?)src:\s*url\(([^)]+\.woff2)\)[^}]*\}")
RULE = re.compile(r"^(\.katex[^{}]*)\{([^{}]*)\}", re.MULTILINE)
PLAIN = {"font-family": "", "font-weight": "400", "font-style": "normal"}
Style = dict[str, str]


def lighten(folder: Path, sheet: str, pages: Iterable[str]) -> str:
    """The style sheet of `folder` with each font cut to what the pages draw in it, named by its content.

    A font in which nothing is drawn goes, with its rule.
    """
    rules = list(_rules(sheet))
    signs: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for page in pages:
        for style, text in _drawn(page, rules):
            signs[tuple(style.values())].update(text)

    def lighter(face: re.Match[str]) -> str:
        style = PLAIN | _style(face[1])
        drawn = signs.get(tuple(style.values()))
        if not drawn:
            return ""
        font = folder / face[2]
        data = subset(font, drawn)
        name = f"fonts/{font.stem}.{hashlib.sha256(data).hexdigest()[:8]}.woff2"
        writing(folder / name, data)
        said = ";".join(f"{key}:{value}" for key, value in style.items())
        return f'@font-face{{{said};font-display:block;src:url({name}) format("woff2")}}'

    return FACE.sub(lighter, sheet)


def subset(font: Path, signs: Iterable[str]) -> bytes:
    """The font as WOFF2 with these characters only; the same input gives the same bytes."""
    face = TTFont(font, recalcTimestamp=False)
    subsetter = Subsetter(Options(hinting=False, notdef_outline=True, name_IDs=[]))
    subsetter.populate(text="".join(sorted(signs)))
    subsetter.subset(face)
    face.flavor = "woff2"
    target = io.BytesIO()
    face.save(target)
    return target.getvalue()


def _rules(sheet: str) -> Iterator[tuple[str, Style]]:
    """KaTeX's rules about fonts, in the order in which a later one outranks an earlier."""
    for selectors, declarations in RULE.findall(sheet):
        if style := _style(declarations):
            yield selectors, style


def _style(declarations: str) -> Style:
    found = dict(re.findall(r"(font(?:-family|-weight|-style)?):\s*([^;]+)", declarations))
    if "font" in found:  # KaTeX has one shorthand: style, size, families
        found = PLAIN | {"font-family": found["font"].split()[2]}
    return {key: value.split(",")[0].strip(" \"'") for key, value in found.items()}


def _drawn(page: str, rules: Iterable[tuple[str, Style]]) -> Iterator[tuple[Style, str]]:
    """Each text in a formula's drawing, with the font that the rules and inheritance give it."""
    if "katex-html" not in page:
        return
    tree = markup.fromstring(page)
    own: dict[markup.HtmlElement, Style] = defaultdict(dict)
    for selectors, style in rules:
        for element in tree.cssselect(selectors):
            own[element].update(style)

    def walk(element: markup.HtmlElement, inherited: Style) -> Iterator[tuple[Style, str]]:
        style = inherited | own.get(element, {})
        yield style, element.text or ""
        for child in element:
            yield from walk(child, style)
            yield style, child.tail or ""

    for formula in tree.cssselect(".katex"):
        for drawing in formula.cssselect(".katex-html"):
            yield from walk(drawing, PLAIN | own[formula])
