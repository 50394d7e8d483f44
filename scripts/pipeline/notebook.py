"""Notebooks: one bilingual source a topic, executed once, downloadable without this project."""

from __future__ import annotations

import ast
import copy
import re
import tempfile
from pathlib import Path
from typing import Any

from lxml import etree, html

from scripts.pipeline.paths import BUILD, LANGUAGES, SCRIPTS, ContentError, read_json, writing
from scripts.pipeline.source import read_module, stand_alone

NOTEBOOKS = BUILD / "pages"


def source_path(topic: str) -> Path:
    return SCRIPTS / "notebooks" / f"{topic}.py"


def output_path(topic: str, language: str) -> Path:
    return NOTEBOOKS / language / "notebooks" / f"{topic.replace('_', '-')}.ipynb"


def title(topic: str, language: str) -> str:
    """The first heading of a built notebook; empty while there is none."""
    made = read_json(output_path(topic, language)) or {"cells": []}
    lines = (line for cell in made["cells"] for line in "".join(cell["source"]).splitlines())
    return next((line.removeprefix("# ") for line in lines if line.startswith("# ")), "")


def build(topic: str) -> None:
    """Execute a topic's notebook and write it in each language.

    Raises:
        ContentError: a cell raised, or a text cell exists in one language only.
    """
    import jupytext
    import nbformat

    path = source_path(topic)
    notebook = jupytext.read(path)
    _check_pairs(path, notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = self_contained(path, cell.source)
    _execute(path, notebook)
    for language in LANGUAGES:
        own = copy.deepcopy(notebook)
        own.cells = [c for c in own.cells if c.cell_type == "code" or c.metadata.get("lang") == language]
        for number, cell in enumerate(own.cells):
            cell.id = f"cell-{number}"
            cell.metadata = {}
        own.metadata = {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
        writing(output_path(topic, language), nbformat.writes(own) + "\n")


def _check_pairs(path: Path, notebook: Any) -> None:
    """Text cells come in pairs, so that both languages say the same."""
    texts = [c for c in notebook.cells if c.cell_type == "markdown"]
    languages = [c.metadata.get("lang") for c in texts]
    if languages != list(LANGUAGES) * (len(texts) // 2):
        first = next(
            (
                c
                for c, pair in zip(texts, list(LANGUAGES) * len(texts), strict=False)
                if c.metadata.get("lang") != pair
            ),
            texts[-1],
        )
        line = path.read_text(encoding="utf-8").split(first.source[:40])[0].count("\n")
        raise ContentError(
            path,
            "a text cell has no partner in the other language",
            'write pairs of `# %% [markdown] lang="zh"` and `lang="en"`',
            line or None,
        )


def self_contained(path: Path, source: str) -> str:
    """Code of a cell with imports from `snippets` replaced by the tested source itself."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ContentError(path, f"syntax error in a cell: {error.msg}", "mend it") from None
    lines = source.splitlines()
    for node in reversed(tree.body):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("snippets."):
            module = read_module(SCRIPTS.parent.joinpath(*str(node.module).split(".")).with_suffix(".py"))
            names = [alias.name for alias in node.names]
            if unknown := [name for name in names if name not in module.definitions]:
                raise ContentError(path, f"unknown snippet {node.module}.{unknown[0]}", "correct the import")
            lines[node.lineno - 1 : node.end_lineno] = stand_alone(module, *names).rstrip().splitlines()
    return "\n".join(lines)


def _execute(path: Path, notebook: Any) -> None:
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    with tempfile.TemporaryDirectory() as elsewhere:
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
            timeout=300,
            resources={"metadata": {"path": elsewhere}},
        )
        try:
            client.execute()
        except CellExecutionError as error:
            failed = next(
                c
                for c in notebook.cells
                if c.cell_type == "code" and any(o.output_type == "error" for o in c.get("outputs", []))
            )
            first = failed.source.splitlines()[-1]
            text = path.read_text(encoding="utf-8")
            line = text.split(first)[0].count("\n") + 1 if first in text else None
            raise ContentError(
                path,
                f"a cell raises {error.ename}: {error.evalue}".splitlines()[0],
                "mend the cell or the snippet it calls",
                line,
            ) from None
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)
            for output in cell.outputs:
                _without_addresses(output)


def _without_addresses(output: Any) -> None:
    """Drop memory addresses, so that two runs give the same bytes."""
    if "text" in output:
        output.text = re.sub(r" at 0x[0-9a-f]+", "", output.text)


def lighten(text: str) -> str:
    """A notebook page without what nbconvert inlines in each: styles, scripts, copy widgets.

    The site's own style sheet draws notebooks; the scripts would be fetched from other hosts.
    Headings get ids that do not depend on the language.
    """
    page = html.fragment_fromstring(text, create_parent="div")
    # What copied a cell is gone, and so is the text it copied, a second copy of the cell.
    gone = "style, script, .zeroclipboard-container, .clipboard-copy-txt, .jp-Collapser, .anchor-link"
    for element in [*page.cssselect(gone), *page.iter(etree.Comment)]:
        element.drop_tree()
    for number, heading in enumerate(page.cssselect("h1, h2, h3")):
        heading.set("id", heading_id(number))
    for number, code in enumerate(page.cssselect(".highlight-ipynb pre"), 1):
        code.attrib.update({"tabindex": "0", "role": "group", "aria-label": f"In [{number}]"})
    for output in page.cssselect(".jp-OutputArea-output pre"):
        output.set("tabindex", "0")
    for image in page.cssselect("img"):
        image.set("loading", "lazy")
    return "".join(html.tostring(element, encoding="unicode") for element in page)


def heading_id(number: int) -> str:
    """The id of a notebook's heading, counted from the title, which is 0."""
    return f"part-{number}"
