"""Lighthouse's judgement of home, an article, a notebook and the catalogue; performance is measured by bytes instead."""

from __future__ import annotations

import pytest

from scripts.pipeline.browser import CHROMIUM, served
from scripts.publishing import lighthouse
from tests.conftest import missing

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def url(site):
    if CHROMIUM is None:
        missing("Chromium")
    if not lighthouse.PROGRAM.is_file():
        missing("Lighthouse (make setup)")
    with served(site, lighthouse.Compressing) as address:
        yield address


@pytest.mark.parametrize("page", lighthouse.PAGES)
def test_lighthouse_finds_nothing_to_mend(url, page):
    report = lighthouse.audit(url + page, *lighthouse.JUDGED)
    scores = {name: category["score"] for name, category in report["categories"].items()}
    assert scores == dict.fromkeys(lighthouse.JUDGED, 1), lighthouse.faults(report)


def test_lighthouse_is_not_blind(site, tmp_path):
    page = (site / "en" / "index.html").read_text(encoding="utf-8")
    (tmp_path / "index.html").write_text(page.replace('<html lang="en"', "<html"), encoding="utf-8")
    with served(tmp_path, lighthouse.Compressing) as url:
        report = lighthouse.audit(url, "accessibility")
    assert report["categories"]["accessibility"]["score"] < 1
    assert "html-has-lang" in lighthouse.faults(report)
