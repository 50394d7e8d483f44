"""`make serve` shows what is there at once, what is missing as such, and every edit."""

from __future__ import annotations

import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

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
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=90) as answer:
            return str(answer.read().decode())

    yield project, get
    server.send_signal(signal.SIGINT)
    output, _ = server.communicate(timeout=30)
    assert "Traceback" not in output, output


def eventually(
    get: Callable[[str], str], path: str, wanted: Callable[[str], bool], seconds: float = 120
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


def test_pending_results_are_shown_as_such_and_come_in(served):
    _, get = served
    first = eventually(get, PAGE, lambda text: True)
    assert 'class="pending"' in first
    assert "value pending" in first
    done = eventually(get, PAGE, lambda text: "pending" not in text)
    assert re.search(r'title="Computed at build time: dilated_convolution\.aspp_taps\.\w+"', done)
    assert "figures/dilated_convolution/kernel_taps.en.dark.svg" in done


def test_an_edit_is_shown_and_a_fault_keeps_the_last_good_page(served):
    project, get = served
    eventually(get, PAGE, lambda text: "pending" not in text)
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


def test_the_root_page_offers_both_languages(served):
    _, get = served
    text = eventually(get, "", lambda text: True)
    assert 'href="zh/"' in text
    assert 'href="en/"' in text
