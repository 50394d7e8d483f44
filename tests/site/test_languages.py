"""Two sibling sites: the switcher keeps page and section, the head tells search engines."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest
from lxml import html

from scripts.pipeline.pages import page_pairs
from scripts.pipeline.paths import LANGUAGES

ARTICLE = "computer-vision/dilated-convolution/"


def parsed(site, path):
    return html.fromstring((site / path / "index.html").read_text(encoding="utf-8"))


@pytest.mark.browser
@pytest.mark.parametrize("host", ["site_url", "site_under_a_path"])
@pytest.mark.parametrize(("start", "end"), [("zh", "en"), ("en", "zh")])
def test_switching_language_keeps_page_and_section(browser, request, host, start, end):
    root = request.getfixturevalue(host)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    view = context.new_page()
    view.goto(f"{root}{start}/{ARTICLE}#hdc")
    view.locator(".md-select button").hover()
    view.locator(f'a[data-language][hreflang="{end}"]').click()
    view.wait_for_url(f"{root}{end}/{ARTICLE}#hdc")
    assert view.locator("h3#hdc").is_visible()
    context.close()


@pytest.mark.browser
def test_switching_after_scrolling_keeps_the_section_being_read(browser, site_url):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    view = context.new_page()
    view.goto(f"{site_url}zh/{ARTICLE}")
    view.evaluate("document.getElementById('mistakes').scrollIntoView()")
    view.wait_for_timeout(300)
    view.evaluate("scrollBy(0, 5)")
    view.locator(".md-select button").hover()
    view.wait_for_timeout(800)  # a click on a menu that is still opening makes Playwright scroll
    view.locator('a[data-language][hreflang="en"]').click()
    view.wait_for_url(re.compile(r"/en/computer-vision/dilated-convolution/#mistakes$"))
    context.close()


@pytest.mark.browser
@pytest.mark.parametrize(("locale", "language"), [("zh-CN", "zh"), ("en-GB", "en")])
def test_the_root_page_takes_the_browsers_language(browser, site_under_a_path, locale, language):
    context = browser.new_context(locale=locale)
    view = context.new_page()
    view.goto(site_under_a_path)
    view.wait_for_url(f"{site_under_a_path}{language}/")
    context.close()


@pytest.mark.browser
def test_the_root_page_offers_both_to_anyone_else_and_without_javascript(browser, site_url):
    for options in ({"locale": "fr-FR"}, {"java_script_enabled": False}):
        context = browser.new_context(**options)
        view = context.new_page()
        view.goto(site_url)
        view.wait_for_timeout(300)
        assert view.url == site_url
        assert view.locator("nav a").evaluate_all("(links) => links.map((a) => a.getAttribute('href'))") == [
            "zh/",
            "en/",
        ]
        context.close()


@pytest.mark.browser
def test_the_last_choice_is_remembered(browser, site_url):
    context = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 900})
    view = context.new_page()
    view.goto(f"{site_url}en/")
    view.locator(".md-select button").hover()
    view.locator('a[data-language][hreflang="zh"]').click()
    view.wait_for_url(f"{site_url}zh/")
    view.goto(site_url)
    view.wait_for_url(f"{site_url}zh/")
    context.close()


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_page_tells_its_language_canonical_and_alternates(site, language):
    for pair in page_pairs():
        url = pair[0].url
        tree = parsed(site, f"{language}/{url}")
        assert tree.get("lang") == language
        canonical = tree.xpath("//link[@rel='canonical']/@href")
        assert len(canonical) == 1
        assert canonical[0].endswith(f"/{language}/{url}")
        alternates = {
            link.get("hreflang"): link.get("href")
            for link in tree.xpath("//link[@hreflang]")
            if link.get("rel").split() == ["alternate"]
        }
        assert set(alternates) == {"zh", "en", "x-default"}
        for other in LANGUAGES:
            assert alternates[other] == canonical[0].replace(f"/{language}/{url}", f"/{other}/{url}")
        assert tree.xpath("//meta[@name='description']/@content")[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_sitemap_lists_every_page_with_its_alternates(site, language):
    spaces = {"s": "http://www.sitemaps.org/schemas/sitemap/0.9", "x": "http://www.w3.org/1999/xhtml"}
    tree = ElementTree.parse(site / language / "sitemap.xml")
    urls = tree.findall("s:url", spaces)
    listed = {entry.findtext("s:loc", "", spaces).split(f"/{language}/", 1)[1] for entry in urls}
    assert {pair[0].url for pair in page_pairs()} <= listed
    for entry in urls:
        links = {link.get("hreflang") for link in entry.findall("x:link", spaces)}
        assert links == set(LANGUAGES)


def test_there_is_a_404_page_in_both_languages_and_at_the_root(site):
    assert "没有这个页面" in (site / "zh" / "404.html").read_text(encoding="utf-8")
    assert "There is no such page" in (site / "en" / "404.html").read_text(encoding="utf-8")
    root = (site / "404.html").read_text(encoding="utf-8")
    assert "没有这个页面" in root
    assert "There is no such page" in root
    assert "__" not in root, "no placeholder is left"
