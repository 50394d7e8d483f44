"""Nothing from other hosts, and nothing against the Content-Security-Policy, whatever a reader does."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from scripts.pipeline.paths import LANGUAGES
from scripts.publishing import policy
from scripts.publishing.tags import tags

ARTICLE = "computer-vision/dilated-convolution/"


class Watched:
    """A browser page that notes requests to other hosts, refusals of the policy, and errors."""

    def __init__(self, browser, url):
        self.host = urlsplit(url).netloc
        self.strangers, self.refused, self.requests = set(), [], []
        self.context = browser.new_context(viewport={"width": 1280, "height": 900})
        self.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url.rstrip("/"))
        self.context.on("request", self._asked)
        self.context.expose_binding("refuse", lambda source, text: self.refused.append(text))
        self.context.add_init_script(
            "document.addEventListener('securitypolicyviolation', (e) =>"
            " refuse(`${e.violatedDirective} ${e.blockedURI} ${e.sample}`));"
        )
        self.view = self.context.new_page()
        self.view.on("console", lambda m: self.refused.append(m.text) if m.type == "error" else None)
        self.view.on("pageerror", lambda error: self.refused.append(str(error)))

    def _asked(self, request):
        self.requests.append(request.url)
        if urlsplit(request.url).scheme not in ("data", "blob") and urlsplit(request.url).netloc != self.host:
            self.strangers.add(request.url)

    def close(self):
        self.context.close()
        assert not self.strangers
        assert not self.refused


@pytest.fixture
def watched(browser, site_url):
    watched = Watched(browser, site_url)
    yield watched
    watched.close()


@pytest.mark.browser
def test_every_page_loads_from_its_own_host_within_its_policy(site, site_url, watched):
    for path in sorted(site.rglob("*.html")):
        if path.parent == site and path.name == "index.html":
            continue  # leads on to a language at once
        watched.view.goto(site_url + path.relative_to(site).as_posix().removesuffix("index.html"))
        watched.view.evaluate("scrollTo(0, document.body.scrollHeight)")
    assert len(watched.requests) > 100


@pytest.mark.browser
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_interaction_stays_within_the_policy(site_url, watched, language):
    view = watched.view
    view.goto(f"{site_url}{language}/{ARTICLE}")
    view.locator('button[data-copy="standalone"]').first.click()
    view.locator("a[data-enlarge]:visible").first.click()
    view.keyboard.press("Escape")
    view.locator("button[data-scheme]:visible").first.click()
    view.keyboard.press("/")
    view.keyboard.type("softmax conv")
    view.locator(".search-hit").first.wait_for()
    view.keyboard.press("Escape")
    view.locator("details.proof > summary").first.click()
    view.locator("a.term").first.click()
    view.go_back()
    view.locator(".md-select button").hover()
    view.locator(f"a[data-language]:not([hreflang={language}])").click()
    view.goto(f"{site_url}{language}/catalogue/")
    view.locator("#catalogue-filter").fill("conv")
    view.goto(f"{site_url}{language}/notebooks/dilated-convolution/")
    view.evaluate("scrollTo(0, document.body.scrollHeight)")


@pytest.mark.browser
def test_the_watch_notices_an_inline_script_and_another_host(browser, site_url):
    watched = Watched(browser, site_url)
    watched.view.goto(f"{site_url}en/about/")
    watched.view.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.head.append(script);
            document.body.append(Object.assign(new Image(), {src: "http://127.0.0.2:9/x.png"}));
        }"""
    )
    watched.view.wait_for_timeout(300)
    assert watched.view.evaluate("window.ran") is None
    refusals = " ".join(watched.refused)
    watched.context.close()
    assert "script-src-elem inline" in refusals
    assert "img-src" in refusals


def test_each_page_has_a_strict_policy_before_anything_else(site):
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        found = [tag for tag in tags(text) if tag.attributes.get("http-equiv") == "Content-Security-Policy"]
        assert len(found) == 1, path
        assert not re.search(r"<(script|link|style|img)\b", text[: found[0].start]), path
        content = found[0].attributes["content"]
        assert "unsafe" not in content
        assert content == policy.policy(policy.inline_scripts(text))
        assert not [tag for tag in tags(text) if "style" in tag.attributes or tag.name == "style"], path
        assert not [tag for tag in tags(text) if any(name.startswith("on") for name in tag.attributes)], path


def test_no_page_names_anything_to_load_from_elsewhere(site):
    for path in site.rglob("*.html"):
        for tag in tags(path.read_text(encoding="utf-8")):
            loads = {"script": "src", "img": "src", "source": "srcset", "iframe": "src"}.get(tag.name)
            address = tag.attributes.get(loads, "") if loads else ""
            if tag.name == "link" and "alternate" not in tag.attributes["rel"] != "canonical":
                address = tag.attributes["href"]
            assert not re.match(r"(https?:)?//", address or ""), (path, address)
            if tag.name == "a" and re.match(r"https?://", tag.attributes.get("href") or ""):
                assert "noopener" in (tag.attributes.get("rel") or ""), (path, tag)
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_hosts_get_the_same_policy_and_may_keep_what_is_named_by_its_content(site):
    scripts = {s for p in site.rglob("*.html") for s in policy.inline_scripts(p.read_text(encoding="utf-8"))}
    expected = policy.policy(scripts, header=True)
    for name in ("_headers", "nginx.conf"):
        text = (site / name).read_text(encoding="utf-8")
        assert expected in text
        for header in ("nosniff", "Referrer-Policy", "Permissions-Policy", "immutable"):
            assert header in text
    patterns = re.findall(r"^/(\S+)\n  Cache-Control", (site / "_headers").read_text(encoding="utf-8"), re.M)
    assert patterns
    for pattern in patterns:
        files = list(site.glob(pattern))
        assert files, pattern
        assert all(re.search(r"\.[0-9a-f]{8}\.", file.name) for file in files), files
