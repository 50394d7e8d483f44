"""Every page as published: complete, self-contained, readable on a phone."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from lxml import html

from scripts.pipeline.pages import pages
from scripts.pipeline.paths import LANGUAGES, topics
from scripts.pipeline.source import all_snippets, snippets_of
from scripts.pipeline.words import glossary

URLS = [f"{language}/{page.url}" for language in LANGUAGES for page in pages(language)] + [
    f"{language}/notebooks/{topic.replace('_', '-')}/" for language in LANGUAGES for topic in topics()
]

# What Playwright says of the fixture `browser` keeping the whole book from being fetched.
OFFLINE_BLOCKED = "Service Worker registration blocked by Playwright"


def tree_of(site: Path, url: str) -> html.HtmlElement:
    return html.fromstring((site / url / "index.html").read_text(encoding="utf-8"))


@functools.cache
def ids_of(file: Path) -> frozenset[str]:
    return frozenset(html.fromstring(file.read_text(encoding="utf-8")).xpath("//@id"))


@pytest.mark.parametrize("url", URLS)
def test_every_link_and_file_a_page_names_exists(site, url):
    tree = tree_of(site, url)
    for link in tree.xpath(
        "//a/@href | //link[@rel='stylesheet' or @rel='icon' or @rel='next' or @rel='prev']/@href | //@src"
    ):
        if urlsplit(link).scheme in ("http", "https", "mailto", "data") or link.startswith("javascript:"):
            continue
        target = urljoin(f"https://host/{url}", link)
        path = urlsplit(target).path.lstrip("/")
        file = site / path
        file = file / "index.html" if file.is_dir() else file
        assert file.is_file(), link
        if (fragment := urlsplit(target).fragment) and file.suffix == ".html":
            assert fragment in ids_of(file), link


@pytest.mark.parametrize("url", URLS)
def test_a_page_loads_nothing_from_another_host(site, url):
    tree = tree_of(site, url)
    loaded = tree.xpath(
        "//script/@src | //img/@src | //iframe/@src | //source/@src | //link[@rel='stylesheet' or "
        "@rel='preconnect' or @rel='icon' or @rel='preload']/@href"
    )
    assert not [link for link in loaded if urlsplit(link).netloc]


@pytest.mark.parametrize("url", URLS)
def test_no_id_is_used_twice(site, url):
    ids = tree_of(site, url).xpath("//@id")
    assert len(ids) == len(set(ids)), sorted(i for i in set(ids) if ids.count(i) > 1)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_every_page_loads_quietly_and_fits_the_screen(browser, site_url, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    view = context.new_page()
    faults: list[str] = []
    view.on(
        "request",
        lambda request: None if request.url.startswith((site_url, "data:")) else faults.append(request.url),
    )
    view.on(
        "response",
        lambda response: (
            faults.append(f"{response.status} {response.url}") if response.status >= 400 else None
        ),
    )
    view.on(
        "console",
        lambda message: (
            faults.append(message.text)
            if message.type in ("error", "warning") and message.text != OFFLINE_BLOCKED
            else None
        ),
    )
    view.on("pageerror", lambda error: faults.append(str(error)))
    for url in URLS:
        view.goto(f"{site_url}{url}")
        view.wait_for_timeout(150)
        if view.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            faults.append(f"{url} scrolls sideways at {width}")
        scheme_shown = view.evaluate("document.body.dataset.mdColorScheme")
        if scheme_shown != {"light": "default", "dark": "slate"}[scheme]:
            faults.append(f"{url} shows {scheme_shown}")
    context.close()
    assert not faults, faults


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_figure_is_shown_once_in_the_right_theme_and_enlarges(browser, site_url, scheme):
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    view = context.new_page()
    view.goto(f"{site_url}zh/computer-vision/dilated-convolution/")
    figures = view.locator("figure.drawn")
    assert figures.count() >= 4
    for figure in figures.all():
        shown = [image for image in figure.locator("img").all() if image.is_visible()]
        assert len(shown) == 1
        assert f".zh.{scheme}.svg" in shown[0].get_attribute("src")
        assert len(shown[0].get_attribute("alt")) > 15
    figures.first.locator("a:visible").click()
    dialog = view.locator("#site-viewer")
    assert dialog.is_visible()
    assert dialog.locator("img").is_visible()
    view.keyboard.press("Escape")
    assert not dialog.is_visible()
    context.close()


@pytest.mark.browser
def test_the_catalogue_filters_and_tells_how_many(page, site_url):
    page.goto(f"{site_url}en/catalogue/")
    rows = page.locator("tr[data-entry]")
    assert rows.count() == len(all_snippets())
    page.locator("#catalogue-filter").fill("receptive_field")
    visible = [row for row in rows.all() if row.is_visible()]
    assert 0 < len(visible) < rows.count()
    assert str(len(visible)) in page.locator(".catalogue-filter [role=status]").inner_text()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_catalogue_links_each_snippet_to_its_place(site, language):
    tree = tree_of(site, f"{language}/catalogue/")
    named = {code.text_content() for code in tree.xpath("//tr[@data-entry]//a/code")}
    assert named == {snippet.name for snippet in all_snippets().values()}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_glossary_holds_every_term(site, language):
    tree = tree_of(site, f"{language}/glossary/")
    assert set(tree.xpath("//dl/dt/@id")) == set(glossary())


@pytest.mark.parametrize("language", LANGUAGES)
def test_terms_show_their_definition_on_hover(site, language):
    tree = tree_of(site, f"{language}/computer-vision/dilated-convolution/")
    links = tree.xpath("//a[contains(@class, 'term')]")
    assert len(links) >= 10
    for link in links:
        key = link.get("href").split("#")[1]
        assert link.get("title") == glossary()[key].definitions[language]


def test_the_record_for_other_tools_is_complete(site):
    record = json.loads((site / "snippets.json").read_text(encoding="utf-8"))
    entries = {entry["name"]: entry for entry in record["snippets"]}
    assert set(entries) == set(all_snippets())
    for name, entry in entries.items():
        snippet = all_snippets()[name]
        assert entry["source"] == snippet.source
        assert entry["stand_alone"] == snippet.stand_alone
        assert entry["hash"] == snippet.hash
        assert entry["evidence"]["state"] == "verified"
        for language in LANGUAGES:
            assert entry["summary"][language]
            path, _, fragment = entry["pages"][language].partition("#")
            assert tree_of(site, path).get_element_by_id(fragment, None) is not None


def test_modules_can_be_downloaded_whole(site):
    for topic in topics():
        module = snippets_of(topic)[0].module
        for language in LANGUAGES:
            assert (site / language / "snippets" / f"{topic}.py").read_text(encoding="utf-8") == module.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_pending_or_unverified_is_published(site, language):
    for path in (site / language).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert 'class="pending"' not in text
        assert "value pending" not in text
        assert not re.search(r"state-(unverified|failing)", text)


def test_the_site_holds_no_path_of_the_machine_that_built_it(site):
    here = str(Path(__file__).resolve().parents[2])
    for path in site.rglob("*"):
        if path.is_file():
            assert here.encode() not in path.read_bytes(), path
