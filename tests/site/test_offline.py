"""The book without a network: the service worker over one visit and over an update, and the archive."""

from __future__ import annotations

import json
import shutil
import zipfile
from urllib.parse import unquote

import pytest
from PIL import Image

from scripts.pipeline.browser import Host, served
from scripts.pipeline.paths import LANGUAGES
from scripts.publishing import offline

pytestmark = pytest.mark.browser
ARTICLE = "computer-vision/dilated-convolution/"
READY = "navigator.serviceWorker.ready.then((r) => Boolean(r.active))"


class Copy:
    """A copy of the site on a server that can be told to fail, and can be given another version."""

    def __init__(self, site, folder):
        self.folder = folder
        shutil.copytree(site, folder, ignore=shutil.ignore_patterns("*.ipynb", "*.zip", "*.map"))
        self.failing, self.asked = set(), []
        self.url = ""

    def host(self):
        copy = self

        class Failing(Host):
            def do_GET(self):  # noqa: N802  (the library's name)
                path = unquote(self.path.split("?")[0])
                copy.asked.append(path)
                if any(part in path for part in copy.failing):
                    self.connection.close()
                else:
                    super().do_GET()

        return Failing


@pytest.fixture
def host(site, tmp_path):
    copy = Copy(site, tmp_path / "site")
    with served(copy.folder, copy.host()) as copy.url:
        yield copy


@pytest.fixture
def reader(browser):
    context = browser.new_context(service_workers="allow", viewport={"width": 1280, "height": 900})
    yield context
    context.close()


def publish(folder, language, old, new):
    """Another version: other words on an article, and a worker that knows them."""
    path = folder / language / ARTICLE / "index.html"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    (folder / language / "worker.js").unlink()
    offline.write_worker(folder / language, language)


def update(view):
    """Have the browser look for another version; True if one is waiting afterwards."""
    return view.evaluate(
        """async () => {
            const registration = await navigator.serviceWorker.ready;
            await registration.update().catch(() => null);
            const coming = registration.installing;
            if (coming) await new Promise((done) => coming.addEventListener("statechange", () => {
                if (coming.state === "installed" || coming.state === "redundant") done();
            }));
            return Boolean(registration.waiting);
        }"""
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_after_one_visit_the_whole_book_opens_without_a_network(site, host, reader, language):
    view = reader.new_page()
    view.goto(f"{host.url}{language}/")
    assert view.evaluate(READY)
    host.failing = {"/"}
    broken = []
    view.on("requestfailed", lambda request: broken.append(request.url))
    addresses = [
        path.relative_to(site).as_posix().removesuffix("index.html")
        for path in sorted((site / language).rglob("index.html"))
    ]
    assert len(addresses) >= 6
    for address in addresses:
        view.goto(host.url + address)
        assert view.locator("h1").first.is_visible(), address
    view.goto(f"{host.url}{language}/{ARTICLE}")
    view.evaluate("document.querySelectorAll('img').forEach((i) => { i.loading = 'eager'; })")
    view.evaluate("Promise.all([...document.images].map((i) => i.decode()))")
    view.keyboard.press("/")
    view.keyboard.type("hdc")
    view.locator(".search-hit").first.wait_for()
    view.goto(f"{host.url}{language}/no-such-page/")
    assert "404" in view.locator("h1").inner_text()
    # Chromium asks for a tab's sign past the worker.
    assert [url for url in broken if not url.endswith(("no-such-page/", "favicon.svg"))] == []


def test_an_update_waits_for_old_tabs_and_fetches_only_what_changed(host, reader):
    old_tab = reader.new_page()
    old_tab.goto(f"{host.url}en/{ARTICLE}")
    assert old_tab.evaluate(READY)
    old_tab.reload()  # from now on the worker answers it
    publish(host.folder, "en", "Dilated convolution", "Widened convolution")
    host.asked.clear()
    assert update(old_tab)
    fetched = {path for path in host.asked if not path.endswith("worker.js")}
    assert fetched == {f"/en/{ARTICLE}"}
    old_tab.reload()
    assert "Dilated" in old_tab.locator("h1").inner_text(), "an open tab keeps its version"
    old_tab.close()
    new_tab = reader.new_page()
    new_tab.wait_for_timeout(500)  # the browser ends the old worker
    new_tab.goto(f"{host.url}en/{ARTICLE}")
    new_tab.reload()
    assert "Widened" in new_tab.locator("h1").inner_text()


def test_a_failed_update_loses_nothing(host, reader):
    view = reader.new_page()
    view.goto(f"{host.url}en/")
    assert view.evaluate(READY)
    publish(host.folder, "en", "Dilated convolution", "Widened convolution")
    host.failing = {ARTICLE}
    assert not update(view)
    host.failing = {"/"}
    view.goto(f"{host.url}en/{ARTICLE}")
    assert "Dilated" in view.locator("h1").inner_text()
    assert view.evaluate("caches.keys().then((names) => names.length)") == 1, "half a version is not kept"


def test_who_saves_data_is_spared_the_download(host, reader):
    reader.add_init_script("Object.defineProperty(navigator, 'connection', {value: {saveData: true}});")
    view = reader.new_page()
    view.goto(f"{host.url}en/", wait_until="networkidle")
    assert view.evaluate("navigator.serviceWorker.getRegistrations().then((r) => r.length)") == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_site_can_be_installed(site, site_url, browser, language):
    manifest = json.loads((site / language / "site.webmanifest").read_text(encoding="utf-8"))
    assert {"name", "start_url", "display", "icons"} <= set(manifest)
    for entry in manifest["icons"]:
        with Image.open(site / language / entry["src"]) as image:
            assert f"{image.width}x{image.height}" == entry["sizes"]
    view = browser.new_page()
    view.goto(f"{site_url}{language}/")
    session = view.context.new_cdp_session(view)
    found = session.send("Page.getAppManifest")
    assert found["url"].endswith(f"{language}/site.webmanifest")
    assert not found["errors"]
    view.close()


@pytest.fixture(scope="module")
def unpacked(site, tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    offline.archive(folder / "book.zip")
    first = (folder / "book.zip").read_bytes()
    offline.archive(folder / "book.zip")
    assert (folder / "book.zip").read_bytes() == first, "the same site gives the same archive"
    with zipfile.ZipFile(folder / "book.zip") as packed:
        packed.extractall(folder)
    return folder / "proven-dl"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_archive_works_from_a_folder(browser, unpacked, language):
    """Every page opens by links alone; language, search and copying work; nothing is missing."""
    other = next(la for la in LANGUAGES if la != language)
    view = browser.new_page(viewport={"width": 1280, "height": 900})
    problems = []
    view.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    view.on("pageerror", lambda error: problems.append(str(error)))
    view.on("requestfailed", lambda r: problems.append(r.url) if r.failure != "net::ERR_ABORTED" else None)
    view.goto((unpacked / language / "index.html").as_uri())
    todo, seen = {view.url}, set()
    while todo:
        address = todo.pop()
        seen.add(address)
        view.goto(address)
        links = view.evaluate("[...document.querySelectorAll('a[href]')].map((a) => a.href.split(/[?#]/)[0])")
        for link in links:
            if link.startswith("file:") and f"/{language}/" in link and link.endswith(("/", ".html")):
                assert link.endswith(".html"), f"{link} in {address} leads to a folder"
                if link not in seen:
                    todo.add(link)
    assert {p.as_uri() for p in (unpacked / language).rglob("index.html")} <= seen
    view.goto((unpacked / language / ARTICLE / "index.html").as_uri() + "#math")
    view.locator(".md-select button").hover()
    view.locator(f'a[data-language][hreflang="{other}"]').click()
    view.wait_for_url(f"**/{other}/{ARTICLE}index.html#math")
    view.keyboard.press("/")
    view.keyboard.type("hdc")
    view.locator(".search-hit").first.wait_for()
    view.keyboard.press("Enter")
    view.wait_for_url("**/index.html#*")
    assert view.evaluate("getComputedStyle(document.querySelector('h1')).fontWeight") == "600", "styles apply"
    view.close()
    assert problems == []


def test_the_root_of_the_archive_leads_to_a_language(browser, unpacked):
    view = browser.new_page(locale="zh-CN")
    view.goto((unpacked / "index.html").as_uri())
    view.wait_for_url("**/zh/index.html")
    view.close()
