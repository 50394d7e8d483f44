"""How much a reader has to fetch, whether the page jumps, and whether it survives a bad network."""

from __future__ import annotations

import gzip
import re
import threading
from urllib.parse import unquote, urlsplit

import pytest
from fontTools.ttLib import TTFont

from scripts.pipeline.browser import Host, served
from scripts.pipeline.pages import pages
from scripts.pipeline.paths import DOCS, LANGUAGES

pytestmark = pytest.mark.browser
KB = 1000
ARTICLES = [f"{la}/{page.url}" for la in LANGUAGES for page in pages(la) if page.topic]
NOTEBOOKS = [f"{la}/notebooks/{page.path.stem}/" for la in LANGUAGES for page in pages(la) if page.topic]
SHIFT = """() => {
    window.shift = 0;
    new PerformanceObserver((list) => list.getEntries().forEach((e) => {
        if (!e.hadRecentInput) window.shift += e.value;
    })).observe({type: "layout-shift", buffered: true});
}"""


def fetched(browser, site, site_url, address, width=390):
    """Compressed bytes by path of what a first view asks for, and the page for more questions."""
    context = browser.new_context(viewport={"width": width, "height": 844}, device_scale_factor=2)
    view = context.new_page()
    asked = []
    view.on("request", lambda request: asked.append(request.url))
    view.goto(site_url + address, wait_until="networkidle")
    sizes = {}
    for url in asked:
        path = unquote(urlsplit(url).path).lstrip("/")
        if urlsplit(url).scheme != "data":
            file = site / (path + "index.html" if path.endswith("/") else path)
            packed = file.suffix in (".woff2", ".png")
            data = file.read_bytes()
            sizes[path] = len(data) if packed else len(gzip.compress(data, 6))
    return context, view, sizes


@pytest.mark.parametrize("address", ARTICLES)
def test_the_first_view_of_an_article_is_light(browser, site, site_url, address):
    context, view, sizes = fetched(browser, site, site_url, address)
    figures = {path for path in sizes if "/figures/" in path}
    rest = sum(size for path, size in sizes.items() if path not in figures)
    hidden = view.evaluate(
        """[...document.images].filter((i) => i.closest('figure')
        && (i.loading !== 'lazy' || !i.getAttribute('width') || !i.getAttribute('height'))).length"""
    )
    context.close()
    assert rest <= 110 * KB, sizes
    assert sum(sizes.values()) <= 250 * KB, sizes
    assert len(sizes) <= 20
    assert not [path for path in sizes if "search" in path], "search is fetched before it is wanted"
    assert hidden == 0, "figures without a size or not lazy"


@pytest.mark.parametrize("address", NOTEBOOKS)
def test_a_notebook_page_is_light(browser, site, site_url, address):
    context, _, sizes = fetched(browser, site, site_url, address)
    context.close()
    assert sum(sizes.values()) <= 150 * KB, sizes


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("address", [*ARTICLES, "zh/", "en/", "zh/catalogue/", "en/catalogue/"])
def test_nothing_jumps_while_a_page_loads_and_is_read(browser, site_url, address, width):
    context = browser.new_context(viewport={"width": width, "height": 844})
    view = context.new_page()
    view.add_init_script(f"({SHIFT})()")
    view.goto(site_url + address, wait_until="networkidle")
    height = view.evaluate("document.body.scrollHeight")
    for y in range(0, height, max(600, height // 12)):
        view.evaluate(f"scrollTo(0, {y})")
        view.wait_for_timeout(30)
    shift = view.evaluate("window.shift")
    context.close()
    assert shift <= 0.01


def bad(folder, lost=(), held=(), release=None):
    """A server that loses files whose path contains one of these parts; others wait until `release` is set."""

    class Bad(Host):
        def do_GET(self):  # noqa: N802  (the library's name)
            if any(part in self.path for part in held):
                release.wait()
            if any(part in self.path for part in lost):
                self.send_response(404)
                self.end_headers()
            else:
                super().do_GET()

    return served(folder, Bad)


def readable(view):
    """Prose, code, formulas (as MathML at least) and captions can be read."""
    article = view.locator("article")
    assert len(article.inner_text()) > 10_000
    for part in ("h1", "p", ".snippet pre", ".formula", "figure figcaption", ".measured-table"):
        assert article.locator(part).first.is_visible(), part


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "lost", ["/javascripts/", "/assets/site.", "/katex/", "/figures/", "/stylesheets/", ".css"]
)
def test_a_page_can_be_read_when_files_are_missing(browser, site, language, lost):
    with bad(site, lost=[lost]) as url:
        context = browser.new_context()
        view = context.new_page()
        view.goto(f"{url}{language}/computer-vision/dilated-convolution/", wait_until="load")
        readable(view)
        context.close()


def test_a_page_can_be_read_before_slow_files_arrive(browser, site):
    wanted, release = [], threading.Event()
    with bad(site, held=[".js", "/figures/"], release=release) as url:
        context = browser.new_context()
        view = context.new_page()
        view.on("request", lambda request: wanted.append(request.url))
        try:
            view.goto(f"{url}en/computer-vision/dilated-convolution/", wait_until="commit")
            view.locator("footer").last.wait_for(state="attached")  # the page itself is there to its end
            readable(view)
            assert any(".js" in address for address in wanted), "no script was waited for"
        finally:
            release.set()
        context.close()


def test_a_page_works_without_storage(browser, site_url):
    context = browser.new_context()
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site_url.rstrip("/"))
    context.add_init_script(
        """for (const name of ["localStorage", "sessionStorage"]) {
            Object.defineProperty(window, name, {get() { throw new DOMException("denied", "SecurityError"); }});
        }"""
    )
    view = context.new_page()
    view.goto(f"{site_url}en/computer-vision/dilated-convolution/")
    readable(view)
    view.locator('button[data-copy="snippet"]').first.click()
    view.locator("#site-status:not(:empty)").wait_for(state="attached")
    view.keyboard.press("/")
    view.keyboard.type("hdc")
    view.locator(".search-hit").first.wait_for()
    view.keyboard.press("Escape")
    view.locator(".md-select button").hover()
    view.locator('a[data-language][hreflang="zh"]').click()
    view.wait_for_url("**/zh/computer-vision/dilated-convolution/**")
    context.close()


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_missing_page_offers_search_in_its_language(browser, site_url, language):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    view = context.new_page()
    view.goto(f"{site_url}{language}/404.html")
    view.keyboard.press("/")
    view.keyboard.type("hdc")
    view.locator(".search-hit").first.wait_for()
    view.keyboard.press("Enter")
    view.wait_for_url(f"**/{language}/**")
    context.close()


DRAWN = """() => {
    const drawn = {};
    for (const formula of document.querySelectorAll(".katex-html")) {
        const texts = document.createTreeWalker(formula, NodeFilter.SHOW_TEXT);
        while (texts.nextNode()) {
            const style = getComputedStyle(texts.currentNode.parentElement);
            const face = [style.fontFamily.split(",")[0], style.fontWeight, style.fontStyle].join(" ");
            drawn[face] = (drawn[face] || "") + texts.currentNode.data;
        }
    }
    return drawn;
}"""


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sign_of_a_formula_is_in_the_font_the_browser_draws_it_with(browser, site, site_url, language):
    sheet = next((site / language / "assets").glob("site.*.css"))
    held = {}
    for face in re.findall(r"@font-face\{[^}]*\}", sheet.read_text(encoding="utf-8")):
        said = dict(re.findall(r"([\w-]+):([^;}]+)", face))
        font = sheet.parent / re.search(r"url\(([^)]+)\)", said["src"])[1]
        key = " ".join(said[name] for name in ("font-family", "font-weight", "font-style"))
        held[key] = (set(TTFont(font).getBestCmap()), originals(font.name.split(".")[0]))
    context = browser.new_context()
    view = context.new_page()
    for address in [a for a in ARTICLES if a.startswith(language)]:
        view.goto(site_url + address)
        for face, text in view.evaluate(DRAWN).items():
            cut, whole = held[face]
            assert {ord(sign) for sign in text} & whole <= cut, (address, face)
    context.close()


def originals(name):
    """The signs of the font as KaTeX ships it."""
    return set(TTFont(DOCS / "assets" / "katex" / "fonts" / f"{name}.woff2").getBestCmap())
