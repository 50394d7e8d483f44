"""The same book for other readers."""

from __future__ import annotations

import io
import json
import re
import zipfile

import pytest

from scripts.pipeline import exports
from scripts.pipeline.pages import pages
from scripts.pipeline.paths import LANGUAGES, SNIPPETS, topics
from scripts.pipeline.source import all_snippets, files_of, find_snippet

PAGES = [page for language in LANGUAGES for page in pages(language)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: f"{p.language}/{p.name}")
def test_a_markdown_twin_resolves_everything(page):
    text = exports.markdown_twin(page)
    outside_code = re.sub(r"```.*?```", "", text, flags=re.S)
    assert text.startswith("# ")
    assert "{{" not in outside_code
    assert "term:" not in outside_code
    assert not re.search(r"^/{3,}", text, re.M)
    for block in page.blocks("snippet"):
        assert find_snippet(block.name).source in text
    assert outside_code.count("![") == len(page.blocks("figure"))


def test_the_twin_of_an_article_tells_its_figures_and_tables_in_words(site):
    text = (site / "en/computer-vision/dilated-convolution.md").read_text(encoding="utf-8")
    images = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", text)
    assert all(len(alt) > 20 for alt, _ in images)
    for _, path in images:
        assert (site / "en/computer-vision" / path).is_file()
    assert re.search(r"^\|---", text, re.M)


def test_llms_txt_lists_every_page_in_both_languages(site):
    text = (site / "llms.txt").read_text(encoding="utf-8")
    for path in re.findall(r"\]\(([^)]+)\)", text):
        assert (site / path).is_file(), path
    for page in PAGES:
        assert f"({page.language}/{page.name}.md)" in text


def test_editor_snippets_give_the_stand_alone_source(site):
    entries = json.loads((site / "proven-dl.code-snippets").read_text(encoding="utf-8"))
    assert set(entries) == set(all_snippets())
    for name, entry in entries.items():
        pasted = "\n".join(re.sub(r"\\([\\$}])", r"\1", line) for line in entry["body"])
        assert pasted == all_snippets()[name].stand_alone.rstrip("\n")
        assert entry["description"]


def test_the_zip_holds_every_module_and_the_licence(site):
    data = (site / "snippets.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {path.relative_to(SNIPPETS).as_posix() for topic in topics() for path in files_of(topic)}
        assert {f"{topic}.py" for topic in topics()} < files
        assert set(archive.namelist()) == {"proven-dl/LICENSE", *(f"proven-dl/{name}" for name in files)}
        assert archive.testzip() is None
    assert exports.modules_zip() == data
