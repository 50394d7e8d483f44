"""From up-to-date results to a complete `site/`: render both languages aside, finish, swap."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import click

from scripts.pipeline import check, evidence, figure, growth, notebook, tasks, translations
from scripts.pipeline.pages import pages
from scripts.pipeline.paths import (
    BUILD,
    CONFIGS,
    DOCS,
    LANGUAGES,
    ROOT,
    SITE,
    THEMES,
    ContentError,
    relative,
    topics,
    writing,
)
from scripts.pipeline.source import all_snippets, files_of
from scripts.pipeline.words import line_of
from scripts.publishing import card
from scripts.publishing.finish import finish, finish_language

ASIDE = BUILD / "site"
UNMADE = ["some results could not be made, see the lines above"]


class Refused(click.ClickException):
    """Faults that stop a build, one a line."""

    def __init__(self, lines: list[str]):
        super().__init__("\n".join(dict.fromkeys(lines)))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message.splitlines(),)

    def show(self, file: Any = None) -> None:
        for line in self.message.splitlines():
            click.echo(f"Error: {line}", err=True)


def generated_files(language: str) -> Iterator[tuple[str, Path]]:
    """Files that a language's site gets besides its pages: target below the site, and source."""
    assets = DOCS / "assets"
    for path in sorted(p for p in assets.rglob("*") if p.is_file()):
        yield f"assets/{path.relative_to(assets).as_posix()}", path
    for page in pages(language):
        if (path := card.card_path(page)).is_file():
            yield f"cards/{page.name}.png", path
    for topic in topics():
        yield from ((relative(path), path) for path in files_of(topic))
        yield f"snippets/test_{topic}.py", evidence.test_file(topic)
        drawn = [(topic, name) for name in figure.figures_of(topic)] + [(growth.SHELF, topic)]
        for shelf, name in drawn:
            for theme in THEMES:
                path = figure.svg_path(shelf, name, language, theme)
                if path.is_file():
                    yield f"figures/{shelf}/{path.name}", path
        path = notebook.output_path(topic, language)
        if path.is_file():
            yield f"notebooks/{path.name}", path


def prepare(publishing: bool) -> None:
    """Check the sources and bring every result up to date; refuse to publish what is not verified."""
    problems = [fault.message for fault in check.faults()]
    if problems:
        raise Refused(problems)
    if publishing:  # what is not verified is refused before anything is trained for its page
        tested = tasks.run("evidence", keep_going=True)
        if problems := unverified() or ([] if tested else UNMADE):
            raise Refused(problems)
    if not tasks.run(keep_going=publishing):
        raise Refused(unverified() or UNMADE)


def unverified() -> list[str]:
    """A line for each snippet that may not be published.

    One whose tests nothing here can run is published as unverified, and said to be.
    """
    lines = []
    for snippet in all_snippets().values():
        found = evidence.standing(snippet)
        if found.state != evidence.VERIFIED:
            line = ContentError(
                snippet.path,
                f"{snippet.name} is {found.state}: {found.reason}",
                f"see tests/snippets/test_{snippet.topic}.py",
                snippet.lines[0],
            ).message
            if snippet.toolchain:
                lines.append(line)
            else:
                click.echo(f"note: {line}")
    return lines


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What MkDocs and its plugins warn of while rendering."""
    seen: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    handler, logger = Handler(logging.WARNING), logging.getLogger("mkdocs")
    logger.addHandler(handler)
    try:
        yield seen
    finally:
        logger.removeHandler(handler)


@contextmanager
def within_pipeline(preview: bool = False) -> Iterator[None]:
    """While MkDocs runs in this process: its hooks take what is there and bring nothing up to date."""
    said = {"PROVEN_PIPELINE": "1", "PROVEN_PREVIEW": "1" if preview else "0"}
    before = {name: os.environ.get(name) for name in said}
    os.environ.update(said)
    try:
        yield
    finally:  # plain `mkdocs build`, started from here later, has to prepare again
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def render(language: str, target: Path, preview: bool = False, edited_only: bool = False) -> None:
    """Render one language into `target/<language>`, or in it, anew, only pages edited since they were rendered.

    Raises:
        Refused: MkDocs, a plugin or one of our blocks complains.
    """
    from mkdocs.commands.build import build as mkdocs_build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    with within_pipeline(preview), _warnings() as seen:
        try:
            # Not strict: all warnings are gathered and told at once, each in our own form.
            config = load_config(str(CONFIGS[language]), site_dir=str(target / language), strict=False)
            config.plugins.on_startup(command="build", dirty=edited_only)
            try:
                mkdocs_build(config, dirty=edited_only)
            finally:
                config.plugins.on_shutdown()
        except Abort as abort:
            raise Refused([_located(message, language) for message in seen] or [str(abort)]) from None
    if seen and not preview:
        raise Refused([_located(message, language) for message in seen])


def _located(message: str, language: str) -> str:
    """MkDocs' warning about a link, led by file and line as all our errors are."""
    if found := re.match(
        r"Doc file '([^']+)' contains an? (?:unrecognized relative |absolute )?link '([^']+)'(.*)",
        message,
        re.S,
    ):
        path = DOCS / language / found[1]
        line = line_of(path, found[2]) if path.is_file() else None
        return ContentError(
            path, f"broken link {found[2]!r}{found[3]}".replace("\n", " "), "correct it", line
        ).message
    return message.splitlines()[0]


def assemble(target: Path, preview: bool = False) -> None:
    """Render both languages and make them one site; the same bytes from the same sources and results."""
    shutil.rmtree(target, ignore_errors=True)
    click.echo(f"rendering {' and '.join(LANGUAGES)}")
    with ProcessPoolExecutor(len(LANGUAGES), initializer=tasks.end_with_the_build) as pool:
        list(pool.map(render, LANGUAGES, repeat(target), repeat(preview)))
        list(pool.map(finish_language, (target / language for language in LANGUAGES)))
    finish(target)


def swap(target: Path) -> None:
    """Put the finished site in place of the last one; the last one goes only when the new one is there."""
    previous = BUILD / "previous"
    shutil.rmtree(previous, ignore_errors=True)
    if SITE.exists():
        SITE.rename(previous)
    target.rename(SITE)
    shutil.rmtree(previous, ignore_errors=True)


SUM = BUILD / "site.sum"  # of what the site was made from, and of the site itself
MADE_FROM = ("docs", "scripts", "snippets", "tests", *(path.name for path in CONFIGS.values()), "requirements.txt")


def checksum() -> str:
    """Of every file that a build reads, the commit whose date pages bear, and the files of the site."""
    parts = [subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, check=False).stdout]
    for path in (path for name in MADE_FROM for path in _files(ROOT / name)):
        parts += [relative(path).encode(), hashlib.sha256(path.read_bytes()).digest()]
    for path in _files(SITE):
        parts.append(f"{relative(path)} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    tools = [tasks.versions(), *map(tasks.programs, topics())]
    return hashlib.sha256(b"\0".join([*map(str.encode, tools), *parts])).hexdigest()


def _files(root: Path) -> list[Path]:
    found = [root] if root.is_file() else sorted(root.rglob("*"))
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts]


def build() -> None:
    """Everything, refusing to publish anything that is not whole and verified; nothing, if nothing has changed."""
    if SUM.is_file() and SUM.read_text(encoding="utf-8") == checksum():
        click.echo("site/ is up to date: nothing has changed since it was made")
        return
    for section in translations.refresh():
        click.echo(f"recorded as in step in both languages: {section}")
    prepare(publishing=True)
    assemble(ASIDE)
    swap(ASIDE)
    count = sum(p.is_file() for p in SITE.rglob("*"))
    click.echo(f"site/ is complete: {count} files, {sum(len(pages(la)) for la in LANGUAGES)} pages")
    writing(SUM, checksum())
    sys.stdout.flush()
