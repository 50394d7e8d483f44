"""axe-core on every page, in both languages, themes and widths; keyboard, zoom and motion."""

from __future__ import annotations

import pytest

from scripts.pipeline.paths import LANGUAGES
from tests.site import axe

pytestmark = pytest.mark.browser
ARTICLE = "computer-vision/dilated-convolution/"


def addresses(site, language):
    """Every page that a reader of a language may come to."""
    return sorted(
        path.relative_to(site).as_posix().removesuffix("index.html")
        for path in (*site.glob("404.html"), *(site / language).rglob("*.html"))
    )


# A theme changes colours only. A narrow screen rearranges what is around the articles, whose markup stays the same;
# what scrolls on it is looked at below.
VIEWS = {
    "desktop": (1280, "light", (axe.other_faults, axe.contrast_faults)),
    "desktop, dark": (1280, "dark", (axe.contrast_faults,)),
    "phone": (390, "light", (axe.faults_around_the_article,)),
}


@pytest.mark.parametrize("shown", VIEWS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_axe_finds_nothing_on_any_page(browser, site, site_url, language, shown):
    width, theme, judges = VIEWS[shown]
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=theme,
        reduced_motion="reduce",
        bypass_csp=True,  # axe is injected
    )
    view = context.new_page()
    found = {}
    for address in addresses(site, language):
        view.goto(site_url + address)
        view.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        if problems := [problem for judge in judges for problem in judge(view)]:
            found[address] = problems
        wide = view.evaluate("document.documentElement.scrollWidth - innerWidth")
        if wide > 0:
            found.setdefault(address, []).append(f"scrolls sideways by {wide} px")
    context.close()
    assert not found


def test_axe_finds_a_planted_fault(browser, site_url):
    context = browser.new_context(bypass_csp=True)
    view = context.new_page()
    view.goto(f"{site_url}en/about/")
    view.evaluate(
        """document.querySelector('article').insertAdjacentHTML('beforeend',
            '<img src=x><button></button><p style="color: #ccc; background: #fff">pale</p>')"""
    )
    others, pale = ({problem.split(":")[0] for problem in judge(view)} for judge in (axe.other_faults, axe.contrast_faults))
    context.close()
    assert others == {"image-alt", "button-name"}
    assert pale == {axe.CONTRAST}


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_scrolls_can_be_scrolled_by_keyboard(browser, site, site_url, language):
    context = browser.new_context(viewport={"width": 390, "height": 800})
    view = context.new_page()
    stuck = {}
    for address in addresses(site, language):
        view.goto(site_url + address)
        stuck[address] = view.evaluate(
            """() => [...document.querySelectorAll("article *")].filter((e) => {
                const style = getComputedStyle(e);
                const scrolls = /auto|scroll/.test(style.overflowX) && e.scrollWidth > e.clientWidth + 1
                    || /auto|scroll/.test(style.overflowY) && e.scrollHeight > e.clientHeight + 1;
                return scrolls && e.clientWidth && e.tabIndex < 0 && !e.querySelector("a, button, [tabindex='0']");
            }).map((e) => e.outerHTML.slice(0, 120))"""
        )
    context.close()
    assert {address: found for address, found in stuck.items() if found} == {}


def test_each_stop_of_the_tab_key_is_seen(browser, site_url):
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    view = context.new_page()
    view.goto(f"{site_url}en/{ARTICLE}")
    stops = 0
    for _ in range(60):
        view.keyboard.press("Tab")
        seen = view.evaluate(
            """() => {
                let e = document.activeElement;
                if (e === document.body) return null;
                // Radio buttons of no size, whose label is what one sees.
                if (e.matches(".md-option")) e = e.nextElementSibling;
                const style = getComputedStyle(e), box = e.getBoundingClientRect();
                const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
                const boxed = e.matches("input") || style.boxShadow !== "none";
                return [e.outerHTML.slice(0, 100), outlined || boxed, box.width > 0 && box.height > 0];
            }"""
        )
        if seen:
            stops += 1
            assert seen[1], f"no visible focus: {seen[0]}"
            assert seen[2], f"focus on something without a size: {seen[0]}"
    context.close()
    assert stops > 40


@pytest.mark.parametrize("language", LANGUAGES)
def test_at_400_per_cent_nothing_is_lost(browser, site_url, language):
    """1280 px at 400 % is 320 px (WCAG 2.2, 1.4.10): text flows in one column, nothing is cut off."""
    context = browser.new_context(viewport={"width": 320, "height": 256})
    view = context.new_page()
    for address in ("", ARTICLE, "catalogue/", "notebooks/dilated-convolution/"):
        view.goto(f"{site_url}{language}/{address}")
        assert view.evaluate("document.documentElement.scrollWidth") <= 320, address
        cut = view.evaluate(
            """() => [...document.querySelectorAll("article :is(p, li, h1, h2, h3, figcaption)")].filter((e) =>
                e.offsetParent && e.getBoundingClientRect().right > innerWidth + 1
                && !e.closest("[tabindex='0'], .measured-table, .proof-scroll")
            ).map((e) => e.textContent.slice(0, 60))"""
        )
        assert cut == [], address
    context.close()


def test_reduced_motion_is_honoured(browser, site_url):
    context = browser.new_context(reduced_motion="reduce")
    view = context.new_page()
    view.goto(f"{site_url}en/{ARTICLE}")
    moving = view.evaluate(
        """() => [...document.querySelectorAll("body *")].filter((e) => {
            const style = getComputedStyle(e);
            return parseFloat(style.transitionDuration) > 0.01 || parseFloat(style.animationDuration) > 0.01;
        }).length"""
    )
    context.close()
    assert moving == 0
