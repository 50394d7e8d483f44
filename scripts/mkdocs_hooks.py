"""A thin bridge from MkDocs to the pipeline; everything it calls works without MkDocs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from mkdocs.structure.toc import AnchorLink
from mkdocs.utils import get_relative_url

from scripts.markdown import context
from scripts.pipeline import notebook, site
from scripts.pipeline.pages import pages
from scripts.pipeline.paths import BUILD, topics
from scripts.pipeline.words import say
from scripts.publishing import metadata
from scripts.search import index

_preview = False
_edited_only = False  # MkDocs calls it dirty: it reads and writes only pages newer than what was made of them


def on_startup(command: str, dirty: bool) -> None:
    """Plain `mkdocs build` and `mkdocs serve` bring everything up to date first."""
    global _preview, _edited_only
    _edited_only = dirty
    _preview = os.environ.get("PROVEN_PREVIEW") == "1" or command == "serve"
    if "PROVEN_PIPELINE" not in os.environ:
        site.prepare(publishing=command != "serve")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    root = str(config.extra["root_url"]).rstrip("/")
    language = config.theme["language"]
    config.extra.update(language=language, root=root, preview=_preview)
    config.plugins["mkdocs-jupyter"].config.update(_rendered_notebooks(language))
    if not str(config.site_url or "").startswith("http://127.0.0.1"):
        config.site_url = f"{root}/{language}/"
    return config


def _rendered_notebooks(language: str) -> dict[str, Any]:
    """Options of mkdocs-jupyter: where it keeps rendered notebooks, which take a third of a build's rendering.

    It knows them by what they hold, not by the programs that rendered them; and it forgets those that a build does
    not read, so one that reads edited pages only must not touch them.
    """
    programs = "-".join(version(name) for name in ("mkdocs-jupyter", "nbconvert"))
    folder = BUILD / "rendered" / f"{language}-{programs}"
    for path in folder.glob("*.json"):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # a build was killed while it wrote this
            path.unlink()
    return {"cache": not _edited_only, "cache_dir": str(folder)}


@event_priority(100)  # before mkdocs-jupyter looks for notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    for target, source in site.generated_files(config.extra["language"]):
        if target.endswith(".ipynb"):  # mkdocs-jupyter knows only files with a source folder
            folder = str(source).removesuffix(target)
            files.append(File(target, folder, config.site_dir, config.use_directory_urls))
        elif files.get_file_from_path(target) is None:
            files.append(File.generated(config, target, abs_src_path=str(source)))
    return files


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Pages that are not read again have no title of their own to stand in the navigation."""
    if _edited_only:
        language = config.extra["language"]
        titles = {f"{page.name}.md": page.title for page in pages(language)}
        titles |= {f"notebooks/{topic.replace('_', '-')}.ipynb": notebook.title(topic, language) for topic in topics()}
        for page in nav.pages:
            page.title = titles.get(page.file.src_uri)
    return nav


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    source = Path(str(page.file.abs_src_path))
    context.enter(context.PageContext(source, config.extra["language"], _to_root(page), _preview))
    return markdown


def _to_root(page: Page) -> str:
    up = get_relative_url(".", page.url)
    return "" if up == "." else up.rstrip("/") + "/"


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    if not page.file.src_uri.endswith(".ipynb"):
        return html
    for number, entry in enumerate(_entries(page.toc)):
        entry.id = notebook.heading_id(number)
    return notebook.lighten(html)


def _entries(toc: Iterable[AnchorLink]) -> Iterator[AnchorLink]:
    for entry in toc:
        yield entry
        yield from _entries(entry.children)


def on_env(env: Any, config: MkDocsConfig, files: Files) -> Any:
    """Templates say interface labels by the same table as pages."""
    env.filters["about"] = lambda page: metadata.about(page, config.extra["language"], config.extra["root"])
    env.filters["label"] = lambda key, **parts: say(key, config.extra["language"], **parts)
    return env


def on_post_build(config: MkDocsConfig) -> None:
    if not _edited_only:  # whoever renders single pages brings the index up to date when there is time
        index.write(Path(config.site_dir), config.extra["language"])
