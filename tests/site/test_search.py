"""Search as it comes, with Chinese cut into words: the segmenter's absence must not go unnoticed."""

from __future__ import annotations

import json

import pytest


@pytest.mark.parametrize(
    ("language", "query"),
    [
        ("zh", "空洞卷积"),
        ("zh", "感受野"),
        ("zh", "dilated convolution"),
        ("zh", "ASPP"),
        ("en", "dilated convolution"),
        ("en", "receptive field"),
        ("en", "空洞卷积"),
        ("en", "atrous"),
    ],
)
@pytest.mark.browser
def test_a_query_finds_the_article(page, site_url, language, query):
    page.goto(f"{site_url}{language}/about/")
    page.locator("label[for=__search]").first.click() if page.viewport_size["width"] < 1000 else None
    box = page.locator("input[name=query]")
    box.click()
    box.press_sequentially(query)
    first = page.locator(".md-search-result__item a").first
    first.wait_for(timeout=15_000)
    links = page.locator(".md-search-result__item > a").evaluate_all("(links) => links.map((a) => a.href)")
    assert any("dilated-convolution" in link for link in links[:3]), links


def test_chinese_is_segmented_with_the_glossarys_words(site):
    index = json.loads((site / "zh" / "search" / "search_index.json").read_text(encoding="utf-8"))
    text = " ".join(entry["title"] + entry["text"] for entry in index["docs"])
    assert "\u200b" in text, "jieba is missing: Chinese would be one long word"
    assert "感受\u200b野" not in text, "the glossary's words must reach the segmenter"
    assert "感受野" in text
