"""From two rendered languages to one site: policy, names by content, what both share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts.pipeline import evidence, exports, mutants
from scripts.pipeline.pages import article, pages, summaries
from scripts.pipeline.paths import CONFIGS, DOCS, LANGUAGES, ROOT, topics, writing
from scripts.pipeline.source import snippets_of
from scripts.publishing import assets, copies, offline, policy


def root_url() -> str:
    """Where the site will be published, with a slash at the end."""
    from mkdocs.config import load_config

    return str(load_config(str(CONFIGS["zh"])).extra["root_url"]).rstrip("/") + "/"


def finish(target: Path) -> None:
    """Make the finished languages below `target` into the site as it is published."""
    share(target)
    protect(target)
    for language in LANGUAGES:
        offline.write_worker(target / language, language)


def share(target: Path) -> None:
    """What belongs to both languages: the root page, its 404 page, the records for other tools."""
    for path in sorted((DOCS / "root").iterdir()):
        # A host shows its 404 page at any depth, so its links start at the root of the host.
        writing(
            target / path.name,
            path.read_text(encoding="utf-8").replace("__ROOT__", urlsplit(root_url()).path),
        )
    writing(target / "snippets.json", json.dumps(catalogue(), indent=1, ensure_ascii=False) + "\n")
    writing(target / "llms.txt", exports.llms_txt())
    writing(target / "proven-dl.code-snippets", exports.editor_snippets())
    writing(target / "snippets.zip", exports.modules_zip())
    writing(target / ".nojekyll", "")
    writing(target / "LICENSE", (ROOT / "LICENSE").read_bytes())


def finish_language(folder: Path) -> None:
    """Leave out what is not used; inline styles become classes, our assets get names by their content.

    Args:
        folder: a rendered language, which bears its name.
    """
    (folder / "sitemap.xml.gz").unlink()  # holds the time of its making; hosts compress by themselves
    rules: dict[str, str] = {}
    texts = {}
    for path in sorted(folder.rglob("*.html")):
        text = policy.with_guarded_links(copies.packed(path.read_text(encoding="utf-8")))
        texts[path] = policy.without_inline_styles(text, rules)
    home = folder / "index.html"
    others = [text for path, text in texts.items() if path != home]
    assets.one_sheet(folder, [texts[home], *others], policy.style_sheet(rules))
    assets.remove_unused(folder)
    renamed = assets.fingerprint(folder)
    offline.write_manifest(folder, folder.name)
    for path, text in texts.items():
        writing(path, assets.relinked(text, renamed))
    for page in pages(folder.name):
        writing(folder / f"{page.name}.md", exports.markdown_twin(page))


def protect(target: Path) -> None:
    """Give every page its policy, and hosts the same as headers."""
    scripts: set[str] = set()
    for path in sorted(target.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        scripts.update(policy.inline_scripts(text))
        writing(path, policy.with_policy(text))
    policy.write_headers(
        target, scripts, [f"{language}/{name}" for language in LANGUAGES for name in assets.HASHED]
    )


def catalogue() -> dict[str, Any]:
    """Every snippet with its source, its stand-alone form, its pages and its evidence."""
    entries = []
    for topic in topics():
        homes = {language: article(topic, language) for language in LANGUAGES}
        record = evidence.load(topic)
        for snippet in snippets_of(topic):
            found = evidence.standing(snippet)
            entries.append(
                {
                    "name": snippet.qualified,
                    "signature": snippet.signature,
                    "summary": {
                        language: summaries(language).get(snippet.qualified, "") for language in LANGUAGES
                    },
                    "source": snippet.source,
                    "stand_alone": snippet.stand_alone,
                    "hash": snippet.hash,
                    "pages": {
                        language: f"{language}/{home.url}#code-{snippet.name}"
                        for language, home in homes.items()
                        if home
                    },
                    "evidence": {
                        "state": found.state,
                        "reason": found.reason,
                        **found.record,
                        "mutants": mutants.standing(snippet),
                        **{
                            key: record[key]
                            for key in ("versions", "python", "commit", "date")
                            if found.record
                        },
                    },
                }
            )
    return {"snippets": entries}
