"""The search box in a browser: what comes first, and how it is to use."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from scripts.pipeline.browser import Host, served
from scripts.pipeline.paths import LANGUAGES, topics
from scripts.search import measure, report

pytestmark = pytest.mark.browser

SHOWN = "[data-search][data-shown={}]"
OPTION = "[role=option]"
ARTICLE = "computer-vision/dilated-convolution/"
KILOBYTES = 120  # compressed, for both languages


def search(page: Any, query: str) -> None:
    """Type (or, for Chinese, insert) a query into the open box and wait for its results."""
    page.keyboard.type(query) if query.isascii() else page.keyboard.insert_text(query)
    page.wait_for_selector(SHOWN.format(repr(query)), state="attached", timeout=30_000)


def wait_for_book(page: Any) -> None:
    """Until the index of Chinese is there; the page's policy forbids Playwright's own waiting for an expression."""
    for _ in range(200):
        if page.evaluate("Boolean(window.ProvenSearch && ProvenSearch.books.zh)"):
            return
        page.wait_for_timeout(50)
    pytest.fail("the index has not come")


def first(page: Any) -> Any:
    return page.locator(OPTION).first


@pytest.fixture(scope="module")
def answers(browser: Any, site_url: str) -> list[measure.Answer]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found = list(measure.ask_ours(context, site_url, measure.queries(), measure.paste_text))
    context.close()
    return found


def missed(answers: list[measure.Answer], section: bool) -> list[str]:
    return [
        f"{a.query.language} {a.query.kind} {a.query.text!r}: {a.ranks[:1]}"
        for a in answers
        if a.rank(section) != 1
    ]


def test_the_query_set_covers_every_kind_and_names_what_exists(found):
    wanted = measure.queries()
    assert len(wanted) >= 240
    known = {(page.name, record.id or "top") for page in found["zh"] for record in page.records}
    for query in wanted:
        assert query.kind in report.load()["kinds"], query
        assert query.page == measure.NOTHING or query.places, query
        assert query.places <= known, query
    assert len({(q.language, q.text, q.kind) for q in wanted}) == len(wanted)


def test_the_right_page_is_first(answers):
    scores = measure.by_kind(answers)
    assert scores["all"].page_first >= 0.97 * scores["all"].queries, missed(answers, False)
    for kind, score in scores.items():
        assert score.page_first >= 0.9 * score.queries, (kind, missed(answers, False))


def test_the_right_section_is_first(answers):
    score = measure.by_kind(answers)["all"]
    assert score.section_first >= 0.9 * score.queries, missed(answers, True)


def test_both_languages_are_served_alike(answers):
    for language in LANGUAGES:
        score = measure.Score.of(a for a in answers if a.query.language == language)
        assert score.page_first >= 0.95 * score.queries
        assert score.section_first >= 0.88 * score.queries


def test_the_record_is_of_this_search_and_no_other_search_beats_it_in_any_kind():
    record = report.load()
    assert record is not None
    assert report.is_current(record), "the search or its queries have changed: make bench-search"
    for kind, scores in record["kinds"].items():
        for engine in ("material", "pagefind"):
            for measured in ("page_first", "section_first"):
                assert scores["ours"][measured] >= scores[engine][measured], (kind, engine, measured)


# --- What is fetched, and when -------------------------------------------------------------------


def test_nothing_is_fetched_before_the_reader_turns_to_it(page, site_url):
    fetched: list[str] = []
    page.on(
        "request",
        lambda request: fetched.append(urlsplit(request.url).path) if "/search/" in request.url else None,
    )
    page.goto(f"{site_url}zh/{ARTICLE}")
    page.mouse.move(600, 400)
    page.mouse.wheel(0, 2000)
    page.wait_for_timeout(800)
    assert fetched == []
    page.keyboard.press("/")
    wait_for_book(page)
    assert [path.rsplit("/", 1)[1] for path in fetched] == ["engine.js", "box.js", "index.js"]
    search(page, "空洞卷积")
    assert not [path for path in fetched if path.startswith("/en/") or "characters" in path]


def test_script_and_both_indexes_stay_small(site):
    files = measure.search_files(site)
    size = sum(
        len(gzip.compress(path.read_bytes(), 9)) for kind in ("script", "index") for path in files[kind]
    )
    assert size <= 1000 * KILOBYTES
    for path in files["texts"]:
        assert len(gzip.compress(path.read_bytes(), 9)) < 20_000, path


def test_a_failed_download_is_told_and_tried_again(page, site_url, browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    view = context.new_page()
    view.route("**/search/index.js", lambda route: route.abort())
    view.goto(f"{site_url}zh/about/")
    view.keyboard.press("/")
    view.keyboard.insert_text("感受野")
    view.locator(".search-status", has_text="载入失败").wait_for(timeout=30_000)
    view.unroute("**/search/index.js")
    view.keyboard.insert_text("？")
    view.wait_for_selector(OPTION)
    context.close()


# --- Keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["/", "s"])
def test_a_key_opens_the_box_but_not_while_typing_elsewhere(page, site_url, key):
    page.goto(f"{site_url}en/catalogue/")
    page.locator("#catalogue-filter").focus()
    page.keyboard.press(key)
    assert page.locator("#catalogue-filter").input_value() == key
    page.locator("#catalogue-filter").blur()
    page.keyboard.press(key)
    box = page.get_by_role("combobox", name="Search")
    assert box.evaluate("(box) => box === document.activeElement")
    assert box.input_value() == "", "the key itself is not typed"


def test_arrows_choose_and_enter_opens(page, site_url):
    page.goto(f"{site_url}en/about/")
    page.keyboard.press("/")
    search(page, "gridding")
    box = page.get_by_role("combobox", name="Search")

    def chosen() -> int:
        assert page.locator("[role=option][aria-selected=true]").count() == 1
        name = box.get_attribute("aria-activedescendant")
        assert page.locator("[role=option][aria-selected=true]").get_attribute("id") == name
        return [o.get_attribute("id") for o in page.locator(OPTION).all()].index(name)

    last = page.locator(OPTION).count() - 1
    assert chosen() == 0
    page.keyboard.press("ArrowDown")
    assert chosen() == 1
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert chosen() == last
    page.keyboard.press("ArrowDown")
    assert chosen() == 0
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site_url}en/{ARTICLE}#gridding")


def test_enter_before_the_results_are_there_opens_the_first_when_it_is(page, site_url):
    page.goto(f"{site_url}en/about/")
    page.keyboard.press("/")
    page.keyboard.type("output stride")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site_url}en/{ARTICLE}#output-stride")


def test_escape_leaves_and_takes_the_query_out_of_the_address(page, site_url):
    page.goto(f"{site_url}en/about/")
    page.keyboard.press("/")
    search(page, "iou")
    page.wait_for_url("**/about/?q=iou")
    page.keyboard.press("Escape")
    page.wait_for_url(re.compile(r"/about/$"))
    assert not page.locator(".md-search__output").is_visible() or not page.evaluate(
        "document.getElementById('__search').checked"
    )
    assert page.evaluate("document.activeElement === document.body")


def test_a_result_on_the_page_itself_is_gone_to_without_loading(page, site_url):
    page.goto(f"{site_url}en/{ARTICLE}")
    page.evaluate("window.stayed = true")
    page.keyboard.press("/")
    search(page, "gridding")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site_url}en/{ARTICLE}#gridding")
    assert page.evaluate("window.stayed")
    assert page.locator("#gridding").is_visible()


# --- An input method -----------------------------------------------------------------------------


def test_composing_does_not_search_or_open_and_the_committed_word_does(page, site_url):
    page.goto(f"{site_url}zh/about/")
    page.keyboard.press("/")
    wait_for_book(page)
    session = page.context.new_cdp_session(page)
    for composed in ("g", "gan", "gan'shou'ye"):
        session.send(
            "Input.imeSetComposition",
            {"text": composed, "selectionStart": len(composed), "selectionEnd": len(composed)},
        )
    page.wait_for_timeout(150)
    assert page.locator(OPTION).count() == 0, "half a composition is no query"
    page.evaluate(
        """document.activeElement.dispatchEvent(new KeyboardEvent("keydown",
           { key: "Enter", isComposing: true, bubbles: true, cancelable: true }))"""
    )
    session.send("Input.insertText", {"text": "感受野"})
    page.wait_for_selector(SHOWN.format("'感受野'"), state="attached")
    assert page.url.startswith(f"{site_url}zh/about/"), "Enter belonged to the input method"
    assert page.locator(OPTION).count() > 3


def test_pasted_text_is_searched_at_once(page, site_url):
    page.goto(f"{site_url}en/about/")
    page.evaluate("navigator.clipboard.writeText('  receptive field ')")
    page.keyboard.press("/")
    page.keyboard.press("Control+V")
    page.wait_for_selector(SHOWN.format("'receptive field'"), state="attached")
    assert page.locator(OPTION).count() > 3


# --- What is shown -------------------------------------------------------------------------------


def test_a_result_names_topic_and_section_and_marks_the_hit_in_its_sentence(page, site_url):
    page.goto(f"{site_url}zh/about/")
    page.keyboard.press("/")
    search(page, "完备序列")
    assert first(page).locator(".search-path").inner_text() == "空洞卷积 › 数学"
    assert first(page).locator(".search-title").inner_text() == "用计数看网格效应"
    assert "完备序列的 Brown 判据" in first(page).locator(".search-text").inner_text()
    assert first(page).locator(".search-text mark").all_inner_texts() == ["完备序列"]


def test_snippets_terms_and_references_are_results_of_their_own_kind(page, site_url):
    page.goto(f"{site_url}zh/about/")
    page.keyboard.press("/")
    for query, kind, target in (
        ("effective_kernel_size", "代码", f"zh/{ARTICLE}#code-effective_kernel_size"),
        ("互相关", "术语", "zh/glossary/#cross-correlation"),
        ("1511.07122", "文献", f"zh/{ARTICLE}#ref-yu2016"),
    ):
        page.keyboard.press("Control+A")
        search(page, query)
        assert first(page).locator(".search-kind").inner_text() == kind
        assert first(page).get_attribute("href") == site_url + target


def test_the_readers_language_comes_first_and_the_other_is_marked(page, site_url):
    page.goto(f"{site_url}en/about/")
    page.keyboard.press("/")
    search(page, "空洞卷积")
    page.locator(".search-elsewhere").wait_for()
    assert page.locator(".search-elsewhere").inner_text() == "Chinese pages"
    languages = [option.get_attribute("hreflang") or "en" for option in page.locator(OPTION).all()]
    assert languages == sorted(languages), "first en, then zh"
    assert {"en", "zh"} == set(languages)
    told = page.locator("[data-search] [role=status]").inner_text()
    assert told == f"{len(languages)} results", "both languages are counted"
    group = page.get_by_role("group", name="Chinese pages")
    assert group.locator(OPTION).first.get_attribute("lang") == "zh"
    assert "/zh/" in group.locator(OPTION).first.get_attribute("href")


def test_what_only_the_other_language_says_is_found_there(page, site_url):
    page.goto(f"{site_url}zh/about/")
    page.keyboard.press("/")
    search(page, "fence post")
    page.wait_for_selector(f'{OPTION}[hreflang="en"]')
    assert first(page).get_attribute("href") == f"{site_url}en/{ARTICLE}#problem"


@pytest.mark.parametrize(
    ("language", "query", "told"),
    [("zh", "量子纠缠", "没有找到「量子纠缠」"), ("en", "zxcvbnm", "Nothing found for “zxcvbnm”")],
)
def test_nothing_found_is_said_with_something_to_try(page, site_url, language, query, told):
    page.goto(f"{site_url}{language}/about/")
    page.keyboard.press("/")
    search(page, query)
    page.wait_for_timeout(300)
    assert told in page.locator(".search-status").inner_text()
    suggestions = page.locator(f"{OPTION}[data-query]")
    assert suggestions.count() >= min(8, len(topics()))
    assert page.locator(f"{OPTION}:not([data-query])").count() == 0
    title = suggestions.first.inner_text()
    suggestions.first.click()
    page.wait_for_selector(f"{OPTION}:not([data-query])")
    assert first(page).locator(".search-title").inner_text() == title


def test_a_correction_is_said(page, site_url):
    page.goto(f"{site_url}zh/about/")
    page.keyboard.press("/")
    search(page, "kongdongjuanji")
    assert "空洞卷积" in page.locator(".search-status").inner_text()
    page.keyboard.press("Control+A")
    search(page, "空洞卷积")
    assert "按" not in page.locator(".search-status").inner_text()


def test_the_query_is_in_the_address_and_can_be_sent_and_gone_back_to(page, site_url):
    page.goto(f"{site_url}zh/about/")
    page.keyboard.press("/")
    search(page, "网格效应")
    page.wait_for_url("**/about/?q=*")
    assert parse_qs(urlsplit(page.url).query) == {"q": ["网格效应"]}
    shared = page.url
    page.keyboard.press("Enter")
    page.wait_for_url(f"{site_url}zh/{ARTICLE}#gridding")
    page.go_back()
    page.wait_for_selector(OPTION)
    page.goto(f"{site_url}zh/")
    page.goto(shared)
    page.wait_for_selector(OPTION)
    assert first(page).get_attribute("href") == f"{site_url}zh/{ARTICLE}#gridding"
    assert page.get_by_role("combobox").input_value() == "网格效应"


def test_screen_readers_hear_the_count_and_know_the_parts(page, site_url):
    page.goto(f"{site_url}en/about/")
    box = page.get_by_role("combobox", name="Search")
    assert box.get_attribute("aria-expanded") == "false"
    page.keyboard.press("/")
    search(page, "boundary iou")
    count = page.locator(OPTION).count()
    status = page.locator("[data-search] [role=status]")
    assert status.get_attribute("aria-live") == "polite"
    assert status.inner_text() == f"{count} results"
    assert box.get_attribute("aria-expanded") == "true"
    listbox = page.get_by_role("listbox", name="Search results")
    assert listbox.get_attribute("id") == box.get_attribute("aria-controls")
    assert listbox.get_by_role("option").count() == count
    page.keyboard.press("Control+A")
    page.keyboard.press("Backspace")
    page.wait_for_selector(SHOWN.format("''"), state="attached")
    assert box.get_attribute("aria-expanded") == "false"


# --- Where it works ------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_works_below_a_path(browser, site_under_a_path, language):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    view = context.new_page()
    view.goto(f"{site_under_a_path}{language}/{ARTICLE}")
    view.keyboard.press("s")
    search(view, "混淆矩阵")
    assert (
        first(view)
        .get_attribute("href")
        .startswith(f"{site_under_a_path}{language}/computer-vision/segmentation-metrics/")
    )
    view.keyboard.press("Enter")
    view.wait_for_url(f"{site_under_a_path}{language}/computer-vision/segmentation-metrics/**")
    context.close()


def test_it_works_from_a_folder_without_a_server(browser, site):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    view = context.new_page()
    view.goto((site / "zh" / "about" / "index.html").as_uri())
    view.keyboard.press("/")
    search(view, "kdjj")
    view.keyboard.press("Enter")
    view.wait_for_url((site / "zh" / ARTICLE / "index.html").as_uri())
    context.close()


def test_it_works_on_a_phone(browser, site_url):
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True)
    view = context.new_page()
    view.goto(f"{site_url}zh/{ARTICLE}")
    view.locator("label.md-header__button[for=__search]").tap()
    search(view, "交并比")
    assert first(view).is_visible()
    assert view.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    first(view).tap()
    view.wait_for_url(f"{site_url}zh/computer-vision/segmentation-metrics/**")
    context.close()


def test_without_javascript_there_is_no_box(browser, site_url):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 900})
    view = context.new_page()
    view.goto(f"{site_url}zh/")
    assert not view.get_by_role("combobox").is_visible()
    for label in view.locator("label[for=__search]").all():
        assert not label.is_visible()
    context.close()


@pytest.fixture
def strict_url(site: Path) -> Iterator[str]:
    """The site under a policy that allows nothing but its own files and the inline scripts it has."""
    inline = {
        script
        for path in (site / "zh" / "about" / "index.html", site / "zh" / ARTICLE / "index.html")
        for script in re.findall(r"<script>(.*?)</script>", path.read_text(encoding="utf-8"), re.S)
    }
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in inline
    )
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' {hashes}",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "font-src 'self'",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
        )
    )

    class Strict(Host):
        def end_headers(self) -> None:
            self.send_header("Content-Security-Policy", policy)
            super().end_headers()

    with served(site, Strict) as url:
        yield url


def test_it_works_under_a_strict_policy(page, strict_url):
    page.goto(f"{strict_url}zh/about/")
    page.keyboard.press("/")
    search(page, "ganshouye")  # index, texts and characters
    assert page.locator(OPTION).count() > 3
    page.keyboard.press("Enter")
    page.wait_for_url(f"{strict_url}zh/{ARTICLE}**")
