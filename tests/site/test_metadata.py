"""What search engines, other sites, feed readers and those who cite are told of each page."""

from __future__ import annotations

import json
import re
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest
import yaml
from lxml import html
from PIL import Image

from scripts.pipeline.pages import page_pairs, pages
from scripts.pipeline.paths import LANGUAGES, ROOT
from scripts.publishing import card, metadata

ATOM = "{http://www.w3.org/2005/Atom}"
ARTICLES = [(language, page) for language in LANGUAGES for page in pages(language) if page.topic]
named = pytest.mark.parametrize(("language", "page"), ARTICLES, ids=lambda v: getattr(v, "name", v))


def tree_of(site, language, page):
    return html.fromstring((site / language / page.url / "index.html").read_text(encoding="utf-8"))


def meta(tree, name):
    found = tree.xpath(f"//head/meta[@property='{name}' or @name='{name}']/@content")
    assert len(found) == 1, name
    return found[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_has_a_title_a_description_and_a_picture_of_its_own(site, language):
    titles = {}
    for page in pages(language):
        tree = tree_of(site, language, page)
        title = tree.findtext(".//title")
        assert titles.setdefault(title, page.name) == page.name, "two pages with one title"
        assert meta(tree, "description") == meta(tree, "og:description") == page.meta["description"]
        assert meta(tree, "og:title") == page.title
        assert meta(tree, "og:locale") == {"zh": "zh_CN", "en": "en_US"}[language]
        address = meta(tree, "og:url")
        assert [address] == tree.xpath("//head/link[@rel='canonical']/@href")
        image = meta(tree, "og:image")
        root = address.removesuffix(f"{language}/{page.url}")
        with Image.open(site / image.removeprefix(root)) as picture:
            assert picture.size == (1200, 630)


@named
def test_articles_describe_themselves_in_json_ld(site, language, page):
    (block,) = tree_of(site, language, page).xpath("//script[@type='application/ld+json']/text()")
    data = json.loads(block)
    assert data["@type"] == "TechArticle"
    assert data["inLanguage"] == language
    assert data["headline"] == page.title
    git = ["git", "log", "-1", "--format=%cs", "--", str(page.path)]
    day = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert data["dateModified"] == day
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", day)
    assert re.fullmatch(r"PT\d+M", data["timeRequired"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_feed_lists_every_article_newest_first(site, language):
    feed = ElementTree.parse(site / language / "feed.xml").getroot()
    titles = {entry.findtext(f"{ATOM}title") for entry in feed.iter(f"{ATOM}entry")}
    assert titles == {page.title for page in pages(language) if page.topic}
    days = [entry.findtext(f"{ATOM}updated") for entry in feed.iter(f"{ATOM}entry")]
    assert days == sorted(days, reverse=True)
    assert feed.findtext(f"{ATOM}updated") == days[0]
    for entry in feed.iter(f"{ATOM}entry"):
        address = entry.find(f"{ATOM}link").get("href")
        assert address == entry.findtext(f"{ATOM}id")
        assert (site / language / address.split(f"/{language}/")[1] / "index.html").is_file()


@named
def test_an_article_can_be_cited(site, language, page):
    (cite,) = tree_of(site, language, page).xpath("//details[@class='cite']")
    bibtex = cite.xpath(".//pre")[0].text_content()
    address = re.search(r"url = \{(.*)\}", bibtex)[1]
    assert bibtex.startswith(f"@online{{proven-dl-{page.path.stem}-{language},")
    assert f"title = {{{{{page.title}}}}}" in bibtex
    assert bibtex.count("{") == bibtex.count("}")
    assert address.endswith(f"/{language}/{page.url}")
    reference = cite.xpath(".//p[@class='cite-text']")[0].text_content()
    assert reference.startswith(f"Proven DL. {page.title}[EB/OL]. (20")
    assert reference.endswith(f". {address}.")


@pytest.mark.browser
def test_the_day_of_access_is_the_readers(page, site_url):
    page.clock.set_fixed_time("2031-02-03T12:00:00Z")
    page.goto(f"{site_url}zh/computer-vision/dilated-convolution/")
    page.locator("details.cite > summary").click()
    assert ")[2031-02-03]. https://" in page.locator(".cite-text").inner_text()


@named
def test_what_to_read_first_is_said_and_leads_back(site, language, page):
    tree = tree_of(site, language, page)
    lines = [p.text_content() for p in tree.xpath("//p[@class='reading']")]
    assert str(metadata.minutes(page)) in lines[0]
    first, then = metadata.neighbours(page)
    assert [other.topic for other in first] == page.meta["prerequisites"]
    for other in (*first, *then):
        assert any(other.title in line for line in lines)
    for other in first:
        assert page in metadata.neighbours(other)[1]
    assert then, "a reader is never left at a dead end"
    assert page not in then


def test_both_languages_take_about_as_long_to_read():
    for zh, en in page_pairs():
        if zh.topic:
            assert 0.6 < metadata.minutes(zh) / metadata.minutes(en) < 1.6, zh.name


def test_lines_of_a_picture_break_where_the_language_allows():
    font = card._font(34)
    text = "从公式到实践讲透空洞卷积：感受野、网格效应（gridding）。Dilated convolution, from formula to practice."
    lines = card.wrap(text, font, 400)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert len(lines) > 3
    for line in lines:
        assert font.getlength(line) <= 400 + font.getlength("。")
        assert line[0] not in "，。：、）,.)"


def test_the_project_says_how_to_cite_it():
    data = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "url", "license"} <= set(data)


@pytest.mark.browser
def test_copying_a_formula_gives_its_tex(page, site_url):
    page.goto(f"{site_url}en/computer-vision/dilated-convolution/")
    formula = page.locator("p .formula").first
    tex = formula.get_attribute("data-tex")
    page.evaluate(
        """() => {
            const inner = document.querySelector("p .formula .katex-html").lastElementChild;
            getSelection().selectAllChildren(inner);
        }"""
    )
    page.keyboard.press("Control+C")
    assert page.evaluate("navigator.clipboard.readText()").strip() == f"${tex}$"
    page.evaluate(
        """() => {
            const display = document.querySelector(".formula-display");
            const range = document.createRange();
            range.setStartBefore(display.previousElementSibling);
            range.setEndAfter(display);
            getSelection().removeAllRanges();
            getSelection().addRange(range);
        }"""
    )
    page.keyboard.press("Control+C")
    copied = page.evaluate("navigator.clipboard.readText()")
    display = page.locator(".formula-display").first.get_attribute("data-tex")
    assert f"$${display}$$" in copied
    assert len(copied) > len(display) + 20


@pytest.mark.browser
@pytest.mark.parametrize("language", LANGUAGES)
def test_an_article_prints_well(browser, site_url, language, tmp_path):
    """Paper shows the article: no bars, no buttons, dark theme as light, nothing scrolled out of sight."""
    context = browser.new_context(color_scheme="dark")
    view = context.new_page()
    view.goto(f"{site_url}{language}/computer-vision/dilated-convolution/")
    view.emulate_media(media="print")
    for hidden in (".md-header", ".md-tabs", ".md-sidebar", ".snippet-copies", ".md-footer", "details.cite"):
        assert not any(e.is_visible() for e in view.locator(hidden).all()), hidden
    assert view.evaluate("getComputedStyle(document.body).backgroundColor") in (
        "rgb(255, 255, 255)",
        "rgba(0, 0, 0, 0)",
    )
    images = view.locator("figure.drawn img").all()
    assert sum(image.is_visible() for image in images) == len(images) // 2
    assert all("light" in image.get_attribute("src") for image in images if image.is_visible())
    cut = view.evaluate(
        """() => [...document.querySelectorAll("article pre, article .measured-table")].filter((e) =>
            e.offsetParent && (e.scrollHeight > e.clientHeight + 2 || e.scrollWidth > e.clientWidth + 2)
        ).map((e) => e.outerHTML.slice(0, 80))"""
    )
    assert cut == []
    assert len(view.pdf(format="A4")) > 100_000
    context.close()
