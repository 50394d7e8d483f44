"""`make bench-search`: our search, Material's defaults and Pagefind on the same pages and queries."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from scripts.pipeline import site
from scripts.pipeline.browser import CHROMIUM, FLAGS, served
from scripts.pipeline.paths import BUILD, CONFIGS, LANGUAGES, SCRIPTS, SITE, ContentError
from scripts.search import measure, report

BENCH = BUILD / "bench"


def run() -> None:
    """Measure all three, keep the record, print it.

    Raises:
        ContentError: the site has not been built, or there is no browser.
    """
    if not (SITE / "zh" / "search" / "index.js").is_file():
        raise ContentError("site/", "there is nothing to search", "run make build")
    if CHROMIUM is None:
        raise ContentError("make bench-search", "Chromium is missing", "install it")
    from playwright.sync_api import sync_playwright

    wanted = measure.queries()
    answers: dict[str, list[measure.Answer]] = {}
    cost: dict[str, dict[str, float]] = {}
    asking: dict[str, tuple[Callable[..., Iterator[measure.Answer]], Callable[[], Path]]] = {
        "ours": (measure.ask_ours, lambda: SITE),
        "material": (measure.ask_material, with_material),
        "pagefind": (measure.ask_pagefind, with_pagefind),
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for engine, (ask, prepare) in asking.items():
            click.echo(f"asking {engine} {len(wanted)} questions")
            with served(prepare()) as root:
                context = browser.new_context(service_workers="block", viewport={"width": 1280, "height": 900})
                answers[engine] = list(ask(context, root, wanted))
                context.close()
                cost[engine] = fetched(browser, root, ask) | times(answers[engine])
        browser.close()
    record = {
        "date": date.today().isoformat(),
        "versions": {name: metadata.version(name) for name in ("mkdocs-material", "pagefind")},
        "kinds": turned({engine: measure.by_kind(found) for engine, found in answers.items()}),
        "languages": turned(
            {
                engine: {la: measure.Score.of(a for a in found if a.query.language == la) for la in LANGUAGES}
                for engine, found in answers.items()
            }
        ),
        "cost": cost,
    }
    report.save(record)
    for what in ("kinds", "languages", "cost"):
        click.echo("\n" + report.text_table(report.table(record, what, "en")))


def turned(scores: dict[str, dict[str, measure.Score]]) -> dict[str, dict[str, Any]]:
    """By group, then by engine."""
    groups = next(iter(scores.values()))
    return {group: {engine: asdict(found[group]) for engine, found in scores.items()} for group in groups}


def times(answers: list[measure.Answer]) -> dict[str, float]:
    found = [answer.milliseconds for answer in answers]
    return {"median": measure.percentile(found, 0.5), "percentile_95": measure.percentile(found, 0.95)}


def fetched(browser: Any, root: str, ask: Callable[..., Iterator[measure.Answer]]) -> dict[str, float]:
    """Kilobytes fetched for search, compressed: before the reader turns to it, and for one Chinese query."""
    sizes: list[int] = []
    context = browser.new_context(service_workers="block", viewport={"width": 1280, "height": 900})

    def note(response: Any) -> None:
        if "search" in response.url or "pagefind" in response.url:
            sizes.append(len(gzip.compress(response.body(), 9)))

    context.on("response", note)
    page = context.new_page()
    page.goto(f"{root}zh/")
    page.wait_for_timeout(1500)
    before = sum(sizes)
    page.close()
    sizes.clear()
    query = next(query for query in measure.queries() if query.language == "zh")
    list(ask(context, root, [query]))
    total = sum(sizes)
    context.close()
    return {"before": before / 1000, "bytes": total / 1000}


def with_material() -> Path:
    """The same pages with the theme's own search, as it comes."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    target = BENCH / "material"
    theme = BENCH / "theme"
    shutil.rmtree(target, ignore_errors=True)
    shutil.rmtree(theme, ignore_errors=True)
    # Not ours: what replaces the theme's search, or leaves out the script that drives it.
    replaced = shutil.ignore_patterns("main.html", "header.html", "search.html", "palette.html", "javascripts")
    shutil.copytree(SCRIPTS / "theme", theme, ignore=replaced)
    for language, path in CONFIGS.items():
        ours = load_config(str(path))
        jupyter = {"mkdocs-jupyter": {"execute": False, "include": ["*.ipynb"]}}
        config = load_config(
            str(path),
            site_dir=str(target / language),
            strict=False,
            plugins=["search", jupyter],
            theme={
                "name": "material",
                "custom_dir": str(theme),
                "language": language,
                "font": False,
                "palette": ours.theme["palette"],
                "features": [],
            },
        )
        with site.within_pipeline():
            config.plugins.on_startup(command="build", dirty=False)
            build(config)
    return target


def with_pagefind() -> Path:
    """The same pages with Pagefind's index, as it comes."""
    target = BENCH / "pagefind"
    shutil.rmtree(target, ignore_errors=True)
    for language in LANGUAGES:
        shutil.copytree(SITE / language, target / language, ignore=shutil.ignore_patterns("search"))
        subprocess.run(
            [sys.executable, "-m", "pagefind", "--site", str(target / language)],
            check=True,
            capture_output=True,
        )
    return target
