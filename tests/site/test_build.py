"""The build as a whole: the same bytes each time, no file for nothing, and a generator one can replace."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from lxml import etree, html

from scripts.pipeline import site as publisher
from scripts.pipeline.paths import CONFIGS, LANGUAGES, ROOT
from scripts.publishing import assets, finish, policy
from scripts.publishing.tags import tags


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}


def test_building_again_gives_the_same_bytes(site, tmp_path):
    publisher.assemble(tmp_path / "again")
    assert not [name for name in os.environ if name.startswith("PROVEN_")], "that was for MkDocs, while it ran"
    first, again = files_of(site), files_of(tmp_path / "again")
    assert sorted(first) == sorted(again)
    assert [name for name in first if first[name].read_bytes() != again[name].read_bytes()] == []


# Files that no page leads to, and for whom they are.
ON_PURPOSE = {
    "LICENSE": "readers of the source",
    "404.html": "hosts",
    "*/404.html": "hosts, and the offline book",
    "index.html": "hosts",
    ".nojekyll": "GitHub Pages",
    "_headers": "Netlify and Cloudflare Pages",
    "nginx.conf": "nginx",
    "snippets.json": "other tools",
    "llms.txt": "language models",
    "*.md": "language models",
    "proven-dl.code-snippets": "editors",
    "snippets.zip": "readers who want all modules",
    "*/sitemap.xml": "search engines",
    "*/worker.js": "the offline book",
    "*/search/*.js": "search, loaded on intent",
    "*/assets/search/*.js": "search, loaded on intent",
    "*/assets/parallel.*": "both languages side by side, loaded on intent",
    "*/cards/*.png": "other sites",
    "*/assets/katex/LICENSE": "the licence of what is vendored",
    "*/assets/icon-*.png": "installing",
    "*/notebooks/*.ipynb": "the download button, and by hand",
}


def test_every_file_is_referenced_or_there_on_purpose(site):
    used = set()
    for name, path in files_of(site).items():
        if path.suffix == ".html":
            text = path.read_text(encoding="utf-8")
            found = [tag.attributes.get(key) for tag in tags(text) for key in ("href", "src")]
        elif path.suffix == ".css":
            found = re.findall(r"url\(['\"]?([^)'\"]+)", path.read_text(encoding="utf-8"))
        else:
            continue
        for address in found:
            if address and not urlsplit(address).scheme:
                target = unquote(urlsplit(urljoin(f"/{name}", address)).path).lstrip("/")
                used.add(f"{target}index.html" if target.endswith("/") or not target else target)
    loose = {name for name in files_of(site) if name not in used}
    assert {n for n in loose if not any(fnmatch(n, pattern) for pattern in ON_PURPOSE)} == set()
    idle = [pattern for pattern in ON_PURPOSE if not any(fnmatch(n, pattern) for n in files_of(site))]
    assert idle == [], "patterns for files that no longer exist"


@pytest.mark.parametrize("language", LANGUAGES)
def test_another_generator_makes_the_same_pages(site, tmp_path, language):
    """properdocs keeps MkDocs 1.x going; what a page says must not depend on which of them renders it."""
    target = tmp_path / language
    command = [sys.executable, "-m", "properdocs", "build", "--strict", "--quiet"]
    run = subprocess.run(
        [*command, "-f", str(CONFIGS[language]), "-d", str(target)],
        cwd=ROOT,
        env=os.environ | {"PROVEN_PIPELINE": "1", "PROVEN_PREVIEW": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    finish.finish_language(target)
    pages = sorted(path.relative_to(target) for path in target.rglob("index.html"))
    assert len(pages) >= 6
    for page in pages:
        ours, theirs = (main_content(folder / page) for folder in (site / language, target))
        assert ours == theirs, page


def main_content(path):
    (article,) = html.fromstring(path.read_text(encoding="utf-8")).xpath("//article")
    return etree.tostring(article, encoding="unicode")


def test_assets_are_named_by_their_content(site):
    for language in LANGUAGES:
        named = [path for pattern in assets.HASHED for path in (site / language).glob(pattern)]
        assert {path.suffix for path in named} == {".css", ".js", ".woff2"}
        for path in named:
            assert path.name.split(".")[1] == hashlib.sha256(path.read_bytes()).hexdigest()[:8], path
        for name in (assets.SHEET, assets.SCRIPT):
            assert not (site / language / name).exists()


def test_inline_styles_become_classes_that_outrank_the_style_sheet():
    rules = {}
    page = '<p style="color: red; top: -0.1249em;">a</p><p class="b" style="color: red">a<br style=""/></p>'
    text = policy.without_inline_styles(page, rules)
    assert text == '<p class="icred it-12">a</p><p class="icred b">a<br/></p>'
    assert policy.style_sheet(rules) == ".icred{color:red!important}\n.it-12{top:-0.12em!important}\n"


def test_two_styles_never_share_a_class():
    with pytest.raises(ValueError, match="ic1"):
        policy.without_inline_styles('<p style="cursor: 1"></p><p style="color: 1"></p>', {})


def test_a_policy_names_the_scripts_of_its_page_and_no_data():
    page = (
        '<meta charset="utf-8"><script>let a = "<b>";</script>'
        '<script type="application/json">{}</script><script src="x"></script>'
    )
    assert policy.inline_scripts(page) == ['let a = "<b>";']
    assert json.dumps(policy.policy(policy.inline_scripts(page))).count("sha256-") == 1
    with pytest.raises(ValueError, match="charset"):
        policy.with_policy("<html></html>")


def test_links_to_other_hosts_are_guarded():
    page = '<a href="https://a.b/">x</a><a rel="license" href="https://a.b/">x</a><a href="c/">x</a>'
    assert policy.with_guarded_links(page) == (
        '<a href="https://a.b/" rel="noopener">x</a>'
        '<a rel="noopener license" href="https://a.b/">x</a><a href="c/">x</a>'
    )
