"""`make serve` shows what is there at once, what is missing as such, and every edit."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.pipeline import pages, serving
from scripts.pipeline.paths import LANGUAGES

from .conftest import Project

PAGE = "en/computer-vision/dilated-convolution/"


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def served(project: Project, port: int) -> Iterator[tuple[Project, Callable[[str], str]]]:
    """The preview of a copy whose quickest experiment has yet to run."""
    (project.root / ".build/experiments/dilated_convolution/aspp_taps.json").unlink()
    for path in (project.root / ".build/figures/dilated_convolution").glob("kernel_taps.*"):
        path.unlink()
    server = project.start("serve", "--port", str(port))

    def get(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=300) as answer:
            return str(answer.read().decode())

    yield project, get
    server.send_signal(signal.SIGINT)
    output, _ = server.communicate(timeout=120)
    assert "Traceback" not in output, output


def eventually(
    get: Callable[[str], str], path: str, wanted: Callable[[str], bool], seconds: float = 600
) -> str:
    """The first answer that is as wanted; the time is a limit, not a measure."""
    deadline = time.monotonic() + seconds
    text = ""
    while time.monotonic() < deadline:
        try:
            text = get(path)
        except (urllib.error.URLError, ConnectionError):
            text = ""
        if text and wanted(text):
            return text
        time.sleep(0.2)
    raise AssertionError(f"{path} never came to be as wanted; last:\n{text[:2000]}")


def test_pending_results_come_in_an_edit_is_shown_and_a_fault_keeps_the_last_good_page(served):
    project, get = served
    root = eventually(get, "", lambda text: True)
    assert 'href="zh/"' in root
    assert 'href="en/"' in root
    first = eventually(get, PAGE, lambda text: True)
    assert 'class="pending"' in first
    assert "value pending" in first
    done = eventually(get, PAGE, lambda text: "pending" not in text)
    assert re.search(r'title="Computed at build time: dilated_convolution\.aspp_taps\.\w+"', done)
    assert "figures/dilated_convolution/kernel_taps.en.dark.svg" in done
    project.edit(
        "docs/en/about.md", "there is no data set to download", "there is nothing at all to download"
    )
    eventually(get, "en/about/", lambda text: "there is nothing at all to download" in text)
    project.append("docs/en/about.md", "\n/// snippet | no.such\n///\n")
    time.sleep(3)
    assert "there is nothing at all to download" in get("en/about/")
    project.edit(
        "snippets/dilated_convolution.py", "def smallest_depth(", "# edited\n\n\ndef smallest_depth("
    )
    project.edit("docs/en/about.md", "\n/// snippet | no.such\n///\n", "\nMended.\n")
    eventually(get, "en/about/", lambda text: "Mended." in text)


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str]]:
    """A preview of one small page a language, that notes what it renders instead of doing so."""
    calls: list[tuple[str, str]] = []

    def render(language: str, target: Path, preview: bool, edited_only: bool = False) -> None:
        calls.append((language, "edited" if edited_only else "whole"))
        (target / language).mkdir(parents=True, exist_ok=True)

    for module in (serving, pages):
        monkeypatch.setattr(module, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(serving, "SERVED", tmp_path / "served")
    monkeypatch.setattr(serving, "SOURCES", ())
    monkeypatch.setattr(serving, "RESULTS", (tmp_path / "results",))
    monkeypatch.setattr(serving.site, "render", render)
    monkeypatch.setattr(serving, "share", lambda target: calls.append(("both", "share")))
    for language in LANGUAGES:
        page = tmp_path / "docs" / language / "shelf" / "page.md"
        page.parent.mkdir(parents=True)
        page.write_text("---\ntitle: Page\n---\n\n# Page\n\n## Idea {#idea}\n\nFirst.\n", encoding="utf-8")
    return calls


@pytest.fixture
def preview() -> serving.Preview:
    class Idle:
        def restart(self, *what: str) -> None: ...
        def stop(self, *what: str) -> None: ...

    return serving.Preview(Idle(), Idle())


def edited(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    later = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))


def test_prose_alone_is_rendered_in_place(rendered, preview, tmp_path):
    preview.refresh()
    assert rendered == [("zh", "whole"), ("en", "whole"), ("both", "share")]
    rendered.clear()
    preview.refresh()
    assert rendered == []
    edited(tmp_path / "docs/en/shelf/page.md", "First.", "Second.")
    preview.refresh()
    assert rendered == [("en", "edited")]


@pytest.mark.parametrize(("old", "new"), [("title: Page", "title: Other"), ("## Idea", "## Thought"), ("#idea", "#thought")])
def test_what_other_pages_show_of_a_page_renders_them_too(rendered, preview, tmp_path, old, new):
    preview.refresh()
    rendered.clear()
    edited(tmp_path / "docs/en/shelf/page.md", old, new)
    preview.refresh()
    assert rendered == [("en", "whole"), ("both", "share")]


def test_a_new_page_and_what_belongs_to_no_topic_render_everything(rendered, preview, tmp_path):
    preview.refresh()
    rendered.clear()
    (tmp_path / "docs/en/shelf/other.md").write_text("# Other\n", encoding="utf-8")
    preview.refresh()
    assert rendered == [("en", "whole"), ("both", "share")]
    rendered.clear()
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "one.json").write_text("{}", encoding="utf-8")
    preview.refresh()
    assert rendered == [("zh", "whole"), ("en", "whole"), ("both", "share")]


@pytest.mark.parametrize("path", ["results/detr/training.json", "results/detr.json", "results/test_detr.py"])
def test_what_is_of_a_topic_renders_the_pages_that_name_it_and_those_of_no_topic(rendered, preview, tmp_path, path):
    """Whatever was rendered is written with the time 0, and so read as older than its source."""
    names = {"shelf/detr": "/// snippet | detr.box_iou", "shelf/oadtr": "oadtr", "shelf/upsampling": "As in detr."}
    for name, text in (names | {"about": "All topics."}).items():
        (tmp_path / f"docs/en/{name}.md").write_text(f"---\ntitle: {name}\n---\n\n# Page\n\n{text}\n", encoding="utf-8")
    preview.refresh()
    pages_there = {name: tmp_path / f"served/en/{name}/index.html" for name in (*names, "about")}
    for page in pages_there.values():
        page.parent.mkdir(parents=True)
        page.write_text("", encoding="utf-8")
    rendered.clear()
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text("{}", encoding="utf-8")
    preview.refresh()
    assert rendered == [("zh", "edited"), ("en", "edited"), ("both", "share")]
    again = {name for name, page in pages_there.items() if page.stat().st_mtime == 0}
    assert again == {"shelf/detr", "shelf/upsampling", "about"}


def test_after_a_fault_the_language_is_rendered_whole(rendered, preview, tmp_path, monkeypatch):
    preview.refresh()
    rendered.clear()
    page, good = tmp_path / "docs/en/shelf/page.md", serving.site.render

    def refuses(*arguments: object, **options: object) -> None:
        raise serving.site.Refused(["a fault"])

    monkeypatch.setattr(serving.site, "render", refuses)
    edited(page, "## Idea", "## Thought")
    preview.refresh()
    monkeypatch.setattr(serving.site, "render", good)
    edited(page, "First.", "Second.")
    preview.refresh()
    assert rendered[-2:] == [("en", "whole"), ("both", "share")]
