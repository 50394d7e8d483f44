"""Notebooks: light as a page, whole as a download."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys

import pytest
from lxml import html

from scripts.pipeline.paths import LANGUAGES, topics

SLUGS = [topic.replace("_", "-") for topic in topics()]


@pytest.mark.parametrize("slug", SLUGS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_notebook_page_is_light(site, language, slug):
    page = (site / language / "notebooks" / slug / "index.html").read_bytes()
    assert len(gzip.compress(page)) < 150_000
    text = re.sub(r"data:image/[^\"]+", "", page.decode())  # letters of an image spell anything
    assert text.count("<style") <= 1, "shared styles belong in the site's style sheet"
    assert "mathjax" not in text.lower()
    assert "cdn" not in text.lower()


@pytest.mark.parametrize("slug", SLUGS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_tested_code_is_shown_once(site, language, slug):
    folder = site / language / "notebooks" / slug
    cells = json.loads((folder / f"{slug}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = max(("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"), key=len)
    page = html.fromstring((folder / "index.html").read_text(encoding="utf-8"))
    assert page.text_content().count(code) == 1


@pytest.mark.parametrize("slug", SLUGS)
def test_both_languages_run_the_same_code_and_show_the_same_output(site, slug):
    books = [json.loads((site / la / "notebooks" / slug / f"{slug}.ipynb").read_text()) for la in LANGUAGES]
    code = [
        [(c["source"], c["outputs"]) for c in book["cells"] if c["cell_type"] == "code"] for book in books
    ]
    assert code[0] == code[1]
    texts = [[c["source"] for c in book["cells"] if c["cell_type"] == "markdown"] for book in books]
    assert len(texts[0]) == len(texts[1]) > 0
    assert texts[0] != texts[1]


@pytest.mark.parametrize("slug", SLUGS)
def test_the_download_runs_top_to_bottom_without_this_project(site, slug, tmp_path):
    book = json.loads((site / "en" / "notebooks" / slug / f"{slug}.ipynb").read_text(encoding="utf-8"))
    code = "\n\n".join("".join(c["source"]) for c in book["cells"] if c["cell_type"] == "code")
    assert "import snippets" not in code
    assert "from snippets" not in code
    script = tmp_path / "notebook.py"
    script.write_text(code, encoding="utf-8")
    block = "import sys\nsys.modules['snippets'] = sys.modules['scripts'] = None\nimport matplotlib\nmatplotlib.use('Agg')\n"
    run = subprocess.run(
        [
            sys.executable,
            "-I",
            "-W",
            "ignore",
            "-c",
            f"{block}exec(compile(open({str(script)!r}).read(), 'notebook', 'exec'))",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
