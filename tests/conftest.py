"""Fixtures shared by all tests: the built site, served; the system's Chromium."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from scripts.pipeline import java
from scripts.pipeline.browser import CHROMIUM, FLAGS, served
from scripts.pipeline.paths import SITE, TESTS


def missing(what: str) -> NoReturn:
    """A tool that CI has to have; elsewhere its tests are skipped, visibly."""
    if "true" in (os.environ.get("CI"), os.environ.get("NOTHING_SKIPPED")):
        pytest.fail(f"{what} is missing, and CI must not skip")
    pytest.skip(f"{what} is not installed")


# Each worker takes whole files, in this order. One that takes many minutes and came last would run alone.
LONGEST = (
    *("site/test_accessibility.py", "pipeline/test_faults.py", "pipeline/test_gates.py", "pipeline/test_serving.py"),
    *("site/test_copy.py", "search/test_box.py", "search/test_index.py", "pipeline/test_java.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    longest = {TESTS / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: longest.get(item.path, len(longest)))


@pytest.fixture(scope="session")
def jdk() -> Callable[[int], java.Machine]:
    """The virtual machine that runs a release of Java."""
    return lambda release: java.machine(release) or missing(f"a JDK that runs Java {release}")


@pytest.fixture(scope="session")
def site() -> Path:
    """The published site, as `make build` left it."""
    assert (SITE / "snippets.json").is_file(), "site/ is missing: run make build first (make test does)"
    return SITE


@pytest.fixture(scope="session")
def site_url(site: Path) -> Iterator[str]:
    with served(site) as url:
        yield url


@pytest.fixture(scope="session")
def site_under_a_path(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The site below a folder, as GitHub Pages serves a project."""
    root = tmp_path_factory.mktemp("host")
    (root / "some").mkdir()
    (root / "some" / "path").symlink_to(site)
    with served(root) as url:
        yield f"{url}some/path/"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        missing("Chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        # Else each test would fetch the whole book; those about reading offline ask for it.
        chromium.new_context = functools.partial(chromium.new_context, service_workers="block")
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, site_url: str) -> Iterator[Any]:
    """A desktop page with the clipboard allowed; any error in its console fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US")
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site_url.rstrip("/"))
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    assert not errors, errors
