"""Reading comfort: the map of the topics, progress through an article, both languages side by side."""

from __future__ import annotations

import re

import pytest
from lxml import html

from scripts.pipeline.browser import Host, served
from scripts.pipeline.pages import article, page_pairs, pages, shelves
from scripts.pipeline.paths import LANGUAGES, topics
from tests.site import axe

ARTICLE = "computer-vision/dilated-convolution/"
ARTICLES = [zh.url for zh, _ in page_pairs() if zh.topic]
BUTTON = "button[data-parallel]"
PRESSED = BUTTON + '[aria-pressed="true"]'
other = {"zh": "en", "en": "zh"}.get


def home(site, language):
    return html.fromstring((site / language / "index.html").read_text(encoding="utf-8"))


# The map


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_map_holds_each_article_and_each_prerequisite(site, language):
    (drawn,) = home(site, language).find_class("map")
    boxes = {item.get("data-topic"): item for item in drawn.xpath(".//li")}
    lines = [tuple(path.get("data-line").split()) for path in drawn.xpath("./svg/path")]
    articles = {page.topic: page for page in pages(language) if page.topic}
    assert set(boxes) == set(articles) == set(topics())
    assert sorted(lines) == sorted(
        (need, topic) for topic, page in articles.items() for need in page.meta["prerequisites"]
    )
    for topic, box in boxes.items():
        (link,) = box.xpath(".//a")
        assert (link.get("href"), link.text_content()) == (articles[topic].url, articles[topic].title)
        needs = articles[topic].meta["prerequisites"]
        said = "".join(part.text_content() for part in box.find_class("map-needs"))
        assert all(articles[need].title in said for need in needs)
        assert bool(said) == bool(needs)
    assert drawn.xpath("./svg/@aria-hidden") == ["true"], "the list says the same in words"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_map_groups_by_category_under_the_names_of_the_navigation(site, language):
    (drawn,) = home(site, language).find_class("map")
    groups = {
        band.findtext("h3"): {item.get("data-topic") for item in band.xpath(".//li")}
        for band in drawn.find_class("map-band")
    }
    assert groups == {title: {page.topic for page in shelf} for title, shelf in shelves(language).items()}
    hues = [re.search(r"hue-\d", band.get("class"))[0] for band in drawn.find_class("map-band")]
    assert len(set(hues)) == min(6, len(hues))


def test_both_languages_have_the_same_map(site):
    one, two = (home(site, language).find_class("map")[0] for language in LANGUAGES)
    assert [path.attrib.items() for path in one.xpath("./svg/path")] == [
        path.attrib.items() for path in two.xpath("./svg/path")
    ]


@pytest.mark.browser
@pytest.mark.parametrize("language", LANGUAGES)
def test_one_screen_shows_what_this_is_what_is_proved_and_every_topic(page, site_url, language):
    page.goto(f"{site_url}{language}/")
    for part in ("h1", "article > p", ".totals li", ".map-band h3", ".map li"):
        for element in page.locator(part).all():
            box = element.bounding_box()
            assert box["y"] >= 0, part
            assert box["y"] + box["height"] <= 900, part


@pytest.mark.browser
@pytest.mark.parametrize("width", [960, 1280, 1600])
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_lines_of_the_map_meet_its_boxes_and_titles_fit_into_them(browser, site_url, language, width):
    context = browser.new_context(viewport={"width": width, "height": 900})
    view = context.new_page()
    view.goto(f"{site_url}{language}/")
    ends = view.evaluate(
        """() => [...document.querySelectorAll(".map path")].map((path) => {
            const at = (length) => {
                const point = path.getPointAtLength(length).matrixTransform(path.getScreenCTM());
                return [point.x, point.y];
            };
            const [from, to] = path.dataset.line.split(" ").map(
                (topic) => document.querySelector(`.map [data-topic="${topic}"]`).getBoundingClientRect());
            return [at(0), [from.right, (from.top + from.bottom) / 2],
                at(path.getTotalLength()), [to.left, (to.top + to.bottom) / 2]].flat();
        })"""
    )
    assert ends
    for numbers in ends:
        for i in (0, 1, 4, 5):
            assert numbers[i] == pytest.approx(numbers[i + 2], abs=1.5)
    assert view.evaluate(
        """[...document.querySelectorAll(".map :is(li, h3)")].filter(
            (box) => box.scrollHeight > box.clientHeight + 3 || box.scrollWidth > box.clientWidth + 1
        ).map((box) => box.textContent.slice(0, 40))"""
    ) == []
    context.close()


@pytest.mark.browser
@pytest.mark.parametrize("options", [{}, {"java_script_enabled": False}], ids=["script", "no script"])
@pytest.mark.parametrize("width", [320, 390, 700])
def test_on_a_narrow_screen_the_map_is_a_list(browser, site_url, width, options):
    for language in LANGUAGES:
        context = browser.new_context(viewport={"width": width, "height": 844}, **options)
        view = context.new_page()
        view.goto(f"{site_url}{language}/")
        assert not view.locator(".map svg").is_visible()
        for part in (".map a", ".map-needs", ".map-about"):
            for element in view.locator(part).all():
                box = element.bounding_box()
                assert box["x"] >= 0, part
                assert box["x"] + box["width"] <= width, part
        if not options:
            assert view.evaluate("document.documentElement.scrollWidth") <= width
        context.close()


@pytest.mark.browser
def test_the_map_can_be_followed_by_keyboard(page, site_url):
    page.goto(f"{site_url}en/")
    links = page.locator(".map a")
    links.first.focus()
    for link in links.all():
        assert link.evaluate("(a) => a === document.activeElement")
        assert link.evaluate("(a) => getComputedStyle(a, '::after').outlineStyle") == "solid"
        page.keyboard.press("Tab")
    links.last.focus()
    target = links.last.get_attribute("href")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/en/{target}")


@pytest.mark.browser
def test_the_whole_box_is_the_link(page, site_url):
    page.goto(f"{site_url}en/")
    box = page.locator('.map [data-topic="transformer"]').bounding_box()
    page.mouse.click(box["x"] + box["width"] - 8, box["y"] + box["height"] - 8)
    page.wait_for_url(f"**/{article('transformer', 'en').url}")


# Progress


def drawn_progress(view):
    return view.locator(".progress").evaluate("(bar) => bar.getBoundingClientRect().width / innerWidth")


@pytest.mark.browser
@pytest.mark.parametrize("how", ["style sheet", "script"])
def test_the_bar_tells_how_far_one_has_read(browser, site_url, how):
    context = browser.new_context(viewport={"width": 390, "height": 844})
    view = context.new_page()
    if how == "script":  # as in a browser without scroll-driven animations
        view.add_init_script("CSS.supports = () => false;")
    view.goto(f"{site_url}en/{ARTICLE}")
    if how == "script":
        view.evaluate("document.querySelector('.progress').style.animation = 'none'")
    seen = []
    for part in (0, 0.25, 0.5, 1):
        view.evaluate(f"scrollTo(0, {part} * (document.documentElement.scrollHeight - innerHeight))")
        view.wait_for_timeout(200)
        seen.append(drawn_progress(view))
    assert seen == [pytest.approx(part, abs=0.03) for part in (0, 0.25, 0.5, 1)]
    bar = view.locator(".progress")
    assert bar.evaluate("(bar) => getComputedStyle(bar).position") == "fixed", "it takes no room"
    assert bar.get_attribute("aria-hidden") == "true"
    context.close()


@pytest.mark.browser
def test_no_bar_where_motion_is_unwanted_on_paper_and_beside_articles(browser, site_url):
    context = browser.new_context(reduced_motion="reduce")
    view = context.new_page()
    view.goto(f"{site_url}en/{ARTICLE}")
    assert not view.locator(".progress").is_visible()
    context.close()
    context = browser.new_context()
    view = context.new_page()
    view.goto(f"{site_url}en/catalogue/")
    assert view.locator(".progress").count() == 0
    view.goto(f"{site_url}en/{ARTICLE}")
    view.emulate_media(media="print")
    assert not view.locator(".progress").is_visible()
    context.close()


# Both languages side by side


def open_parallel(view, address):
    view.goto(address)
    view.locator(BUTTON).click()
    view.locator(PRESSED).wait_for()


@pytest.mark.browser
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("url", ARTICLES)
def test_each_section_stands_beside_its_translation(page, site, site_url, language, url):
    open_parallel(page, f"{site_url}{language}/{url}")
    titles = {
        la: [
            re.sub(r"\s+", " ", head.text_content()).strip().removesuffix("¶")
            for head in html.fromstring((site / la / url / "index.html").read_text(encoding="utf-8")).xpath(
                "//article//*[self::h1 or self::h2 or self::h3]"
            )
        ]
        for la in LANGUAGES
    }
    found = page.evaluate(
        """() => [...document.querySelectorAll(".parallel-row")].map((row) => {
            const [own, theirs] = row.children;
            const text = (node) => node.textContent.replace(/\\s+/g, " ").trim().replace(/¶$/, "");
            return {
                own: own.className, theirs: theirs.className, lang: theirs.lang,
                head: own.querySelector(":scope > :is(h1, h2, h3)") ? [text(own), text(theirs)] : null,
                kinds: [own, theirs].map((node) => node.firstElementChild.localName),
                level: Math.abs(own.getBoundingClientRect().top - theirs.getBoundingClientRect().top),
                apart: theirs.getBoundingClientRect().left - own.getBoundingClientRect().right,
                drawn: Boolean(own.getClientRects().length),
            };
        })"""
    )
    heads = [row["head"] for row in found if row["head"]]
    assert heads == [list(pair) for pair in zip(titles[language], titles[other(language)], strict=True)]
    for row in found:
        assert (row["own"], row["theirs"]) == ("parallel-own", "parallel-other")
        assert row["lang"] == other(language)
        assert row["kinds"][0] == row["kinds"][1] or row["kinds"] == ["h1", "p"]
        if row["drawn"]:
            assert row["level"] < 1
            assert row["apart"] > 0
    assert len(found) > 80
    count = page.evaluate(
        "[document.querySelectorAll('[id]').length, new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size]"
    )
    assert count[0] == count[1], "an id is used twice"
    assert page.locator(".parallel-other :is(script, style, template, button, .snippet, [id])").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


@pytest.mark.browser
@pytest.mark.parametrize("language", LANGUAGES)
def test_classes_of_the_other_language_are_styled_here_too(site, language):
    """Inline styles become classes in each language's own style sheet; a formula needs them in both."""
    (sheet,) = (site / language / "assets").glob("site.*.css")
    known = set(re.findall(r"\.(i[0-9a-f]{6})\{", sheet.read_text(encoding="utf-8")))
    for url in ARTICLES:
        text = (site / other(language) / url / "index.html").read_text(encoding="utf-8")
        body = html.fromstring(text).xpath("//article")[0]
        used = {name for value in body.xpath(".//@class") for name in value.split()}
        assert {name for name in used if re.fullmatch("i[0-9a-f]{6}", name)} <= known, url


@pytest.mark.browser
@pytest.mark.parametrize("language", LANGUAGES)
def test_switching_off_gives_back_the_page_as_it_was(page, site_url, language):
    page.goto(f"{site_url}{language}/{ARTICLE}")
    before = page.locator("article").evaluate("(article) => article.innerHTML")
    page.locator(BUTTON).click()
    page.locator(PRESSED).wait_for()
    page.locator(BUTTON).click()
    page.locator(BUTTON + '[aria-pressed="false"]').wait_for()
    assert page.locator("article").evaluate("(article) => article.innerHTML") == before
    page.locator(BUTTON).click()
    page.locator(PRESSED).wait_for()
    assert page.locator(".parallel-row").count() > 80


@pytest.mark.browser
def test_what_is_being_read_stays_in_place(page, site_url):
    page.goto(f"{site_url}en/{ARTICLE}")
    where = "document.getElementById('hdc').getBoundingClientRect().top"
    page.evaluate("document.getElementById('hdc').scrollIntoView()")
    page.wait_for_timeout(300)
    before = page.evaluate(where)
    for state in ("true", "false", "true"):
        page.locator(BUTTON).click()
        page.locator(f'{BUTTON}[aria-pressed="{state}"]').wait_for()
        page.wait_for_timeout(300)
        assert page.evaluate(where) == pytest.approx(before, abs=3)


@pytest.mark.browser
def test_code_is_shown_once_and_copied_as_before(page, site_url):
    open_parallel(page, f"{site_url}zh/{ARTICLE}")
    snippets = page.locator("article .snippet")
    names = snippets.evaluate_all("(all) => all.map((one) => one.dataset.snippet)")
    assert len(names) == len(set(names)) > 15
    block = snippets.first
    assert block.bounding_box()["width"] > 1000, "across both columns"
    block.locator('button[data-copy="snippet"]').click()
    page.locator("#site-status:not(:empty)").wait_for(state="attached")
    assert page.evaluate("navigator.clipboard.readText()") == block.locator("pre code").evaluate(
        "(code) => code.textContent"
    )


@pytest.mark.browser
def test_the_other_languages_figures_terms_and_links_work(page, site_url):
    open_parallel(page, f"{site_url}zh/{ARTICLE}")
    there = page.locator(".parallel-other")
    images = there.locator("figure.drawn img")
    assert images.count() > 8
    sources = images.evaluate_all("(all) => all.map((image) => image.src)")
    assert all(source.startswith(f"{site_url}en/figures/") for source in sources)
    figure = there.locator("figure.drawn a:visible").first
    figure.scroll_into_view_if_needed()
    figure.click()
    assert ".en.light.svg" in page.locator("#site-viewer img").get_attribute("src")
    page.keyboard.press("Escape")
    terms = there.locator("a.term").evaluate_all("(all) => all.map((link) => link.href)")
    assert terms
    assert all(link.startswith(f"{site_url}en/glossary/#") for link in terms)
    inner = there.locator('a[href^="#"]').first
    target = inner.get_attribute("href")
    inner.click()
    page.wait_for_url(f"**/zh/{ARTICLE}{target}")
    assert page.locator(target).evaluate("(e) => e.closest('.parallel-other')") is None


@pytest.mark.browser
def test_a_folded_solution_opens_in_both_languages_at_once(page, site_url):
    open_parallel(page, f"{site_url}en/{ARTICLE}")
    solution = page.locator("article > details:not(.cite)").first
    summary = solution.locator("> summary")
    assert summary.locator("[lang=zh]").inner_text().strip() == "解答"
    summary.click()
    assert solution.locator(".parallel-row .parallel-other").first.is_visible()


@pytest.mark.browser
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_choice_is_made_by_keyboard_and_kept(page, site_url, language):
    words = {"zh": "中英对照", "en": "Chinese alongside"}
    page.goto(f"{site_url}{language}/{ARTICLE}")
    button = page.get_by_role("button", name=words[language], pressed=False)
    button.focus()
    page.keyboard.press("Enter")
    page.locator(PRESSED).wait_for()
    page.goto(f"{site_url}{language}/{article('transformer', language).url}")
    page.locator(PRESSED).wait_for()
    assert page.locator(".parallel-other").first.is_visible()
    page.locator(BUTTON).focus()
    page.keyboard.press("Space")
    page.locator(BUTTON + '[aria-pressed="false"]').wait_for()
    page.reload(wait_until="networkidle")
    assert page.locator(BUTTON).get_attribute("aria-pressed") == "false"


@pytest.mark.browser
def test_nothing_of_it_is_fetched_before_it_is_wanted(page, site_url):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{site_url}en/{ARTICLE}", wait_until="networkidle")
    assert not [url for url in asked if "parallel" in url or "/zh/" in url]
    page.locator(BUTTON).click()
    page.locator(PRESSED).wait_for()
    assert [url for url in asked if url.endswith(f"/zh/{ARTICLE}")]


@pytest.mark.browser
def test_it_works_without_storage(browser, site_url):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_init_script(
        """Object.defineProperty(window, "localStorage", {
            get() { throw new DOMException("denied", "SecurityError"); }
        });"""
    )
    view = context.new_page()
    open_parallel(view, f"{site_url}en/{ARTICLE}")
    assert view.locator(".parallel-other").first.is_visible()
    context.close()


@pytest.mark.browser
@pytest.mark.parametrize("lost", [f"/zh/{ARTICLE}", "parallel.js", "parallel.css"])
def test_when_something_is_missing_it_says_so_and_the_page_stays(browser, site, lost):
    failing = {lost}

    class Failing(Host):
        def do_GET(self):  # noqa: N802  (the library's name)
            if any(part in self.path for part in failing):
                self.close_connection = True
                self.connection.close()
            else:
                super().do_GET()

    with served(site, Failing) as url:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        view = context.new_page()
        view.goto(f"{url}en/{ARTICLE}")
        view.locator(BUTTON).click()
        status = view.locator("#site-status.seen:not(:empty)")
        status.wait_for()
        assert status.inner_text().startswith("The Chinese version could not be loaded")
        assert status.bounding_box()["x"] >= 0
        assert view.locator(".parallel-row").count() == 0
        assert view.locator(PRESSED).count() == 0
        failing.clear()
        view.locator(BUTTON).click()
        view.locator(PRESSED).wait_for()
        assert not view.locator("#site-status.seen").count()
        context.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1199])
def test_a_narrow_screen_shows_one_language(browser, site_url, width):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    view = context.new_page()
    open_parallel(view, f"{site_url}en/{ARTICLE}")
    view.set_viewport_size({"width": width, "height": 844})
    assert not view.locator(BUTTON).is_visible()
    assert not view.locator(".parallel-other").first.is_visible()
    view.reload(wait_until="networkidle")
    assert view.locator(".parallel-row").count() == 0
    context.close()


@pytest.mark.browser
def test_paper_shows_one_language(page, site_url):
    open_parallel(page, f"{site_url}en/{ARTICLE}")
    page.emulate_media(media="print")
    assert not page.locator(".parallel-other").first.is_visible()
    assert not page.locator(BUTTON).is_visible()
    row, whole = (page.locator(part).first.bounding_box() for part in (".parallel-own", "article"))
    assert row["width"] == pytest.approx(whole["width"], abs=80)


@pytest.mark.browser
@pytest.mark.parametrize("host", ["site_url", "site_under_a_path"])
def test_it_works_wherever_the_site_is_hosted(browser, request, host):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    view = context.new_page()
    open_parallel(view, f"{request.getfixturevalue(host)}zh/{ARTICLE}")
    assert view.locator(".parallel-other h2").first.inner_text().strip() == "In short"
    context.close()


@pytest.mark.browser
def test_there_is_no_button_where_files_cannot_be_fetched_or_scripts_do_not_run(browser, site, site_url):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    view = context.new_page()
    view.goto((site / "en" / ARTICLE / "index.html").as_uri())
    assert view.locator(BUTTON).count() == 1
    assert not view.locator(BUTTON).is_visible()
    assert view.locator("a[data-language]").count() == 2, "the link to the other language is left"
    context.close()
    context = browser.new_context(viewport={"width": 1280, "height": 900}, java_script_enabled=False)
    view = context.new_page()
    view.goto(f"{site_url}en/{ARTICLE}")
    assert not view.locator(BUTTON).is_visible()
    context.close()


@pytest.mark.browser
def test_without_a_network_it_takes_the_other_language_from_where_the_book_is_kept(browser, site_url):
    context = browser.new_context(service_workers="allow", viewport={"width": 1280, "height": 900})
    view = context.new_page()
    for language in LANGUAGES:
        view.goto(f"{site_url}{language}/{ARTICLE}")
        view.evaluate("navigator.serviceWorker.ready.then((r) => Boolean(r.active))")
    view.reload()
    context.set_offline(True)
    view.locator(BUTTON).click()
    view.locator(PRESSED).wait_for()
    assert view.locator(".parallel-other h2").first.inner_text().strip() == "一句话"
    context.close()


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_axe_finds_nothing_in_both_languages_at_once(browser, site_url, language, theme):
    context = browser.new_context(
        viewport={"width": 1280, "height": 900},
        color_scheme=theme,
        reduced_motion="reduce",
        bypass_csp=True,  # axe is injected
    )
    view = context.new_page()
    for url in (ARTICLE, "programming/processes-and-threads/"):
        open_parallel(view, f"{site_url}{language}/{url}")
        view.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        others = axe.other_faults(view) if theme == "light" else []  # a theme changes colours only
        assert others + axe.contrast_faults(view) == [], url
        view.evaluate("localStorage.clear()")
    context.close()


@pytest.mark.browser
@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_refused_by_the_policy(browser, site_url, language):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    refused = []
    context.expose_binding("refuse", lambda source, text: refused.append(text))
    context.add_init_script(
        "document.addEventListener('securitypolicyviolation', (e) => refuse(`${e.violatedDirective} ${e.sample}`));"
    )
    view = context.new_page()
    view.goto(f"{site_url}{language}/")
    for url in ARTICLES:
        view.goto(f"{site_url}{language}/{url}")
        if not view.locator(PRESSED).count():
            view.locator(BUTTON).click()
        view.locator(PRESSED).wait_for()
        view.evaluate("localStorage.clear(); scrollTo(0, document.body.scrollHeight)")
    context.close()
    assert refused == []
