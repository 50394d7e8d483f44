"""`make serve`: the site at once, results as they come, every edit shown.

The server renders whatever is there, with what is still being computed shown as such. Beside it a
worker process brings results up to date; when one arrives, or a source changes, only the languages
concerned are rendered again and open pages reload.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from mkdocs.livereload import LiveReloadServer

from scripts.pipeline import check, evidence, experiment, figure, mutants, notebook, site, translations
from scripts.pipeline.pages import Page, pages, read_page
from scripts.pipeline.paths import (
    BUILD,
    CONFIGS,
    DOCS,
    LANGUAGES,
    ROOT,
    SCRIPTS,
    SNIPPETS,
    TESTS,
    ContentError,
    topics,
)
from scripts.publishing.finish import share

SERVED = BUILD / "serve"
SOURCES = (SNIPPETS, SCRIPTS, TESTS / "snippets")  # what results are made from
RESULTS = (experiment.RESULTS, figure.FIGURES, notebook.NOTEBOOKS, evidence.EVIDENCE)


def fingerprint(*roots: Path) -> dict[Path, int]:
    """Times of change of the files below `roots`."""
    files = (p for root in roots for p in ([root] if root.is_file() else root.rglob("*")))
    return {
        p: p.stat().st_mtime_ns
        for p in files
        if p.is_file() and "__pycache__" not in p.parts and not p.name.startswith(".")
    }


def _topic_of(path: Path) -> str | None:
    """The topic that a source or a result is of, by its name or its folder's."""
    if not any(path.is_relative_to(folder) for folder in (*SOURCES, *RESULTS)):
        return None
    names = {part.removeprefix("test_").replace("-", "_") for part in (path.stem, path.parent.name)}
    return next((topic for topic in topics() if topic in names), None)


class Worker:
    """Brings results up to date in a process of its own; starts over when a source changes."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def restart(self) -> None:
        self.stop()
        # A session of its own, so that stopping it stops the training it started too.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scripts.pipeline", "update", "--keep-going"],
            cwd=ROOT,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},  # it would look like an edit
            start_new_session=True,
        )

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


class Indexer:
    """Brings a language's search index up to date in a process of its own; a newer order replaces an older one."""

    def __init__(self) -> None:
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def restart(self, language: str) -> None:
        self.stop(language)
        write = "import pathlib, sys; from scripts.search import index; index.write(pathlib.Path(sys.argv[1]), sys.argv[2])"
        command = [sys.executable, "-c", write, str(SERVED / language), language]
        self.running[language] = subprocess.Popen(command, cwd=ROOT)

    def stop(self, language: str) -> None:
        if process := self.running.pop(language, None):
            process.kill()
            process.wait()


class Preview:
    """Renders what has changed since the last time.

    Where that is the text of some pages, or what some topics are made of or result in, only the
    pages concerned are rendered, in place; else all pages of a language.
    """

    def __init__(self, worker: Worker, indexer: Indexer) -> None:
        self.worker = worker
        self.indexer = indexer
        self.seen: dict[str, dict[Path, int]] = {}
        self.outlines: dict[str, dict[Path, tuple[object, ...]]] = {}
        self.made_from = fingerprint(*SOURCES)

    def refresh(self) -> None:
        """Called by the server after any change; never raises, the last good page stays."""
        sources = fingerprint(*SOURCES)
        if sources != self.made_from:
            self.made_from = sources
            self.worker.restart()
        folders = (*SOURCES, *RESULTS, DOCS / "assets", DOCS / "root")
        shared = fingerprint(*folders, *DOCS.glob("*.yml"), *CONFIGS.values(), mutants.RECORD)
        shared_too = False
        for language in LANGUAGES:
            now, before = shared | fingerprint(DOCS / language), self.seen.get(language, {})
            if changed := {path for path in before.keys() | now.keys() if before.get(path) != now.get(path)}:
                self.seen[language] = now
                with shown_faults():
                    concerned = self._concerned(language, changed)
                    shared_too |= concerned is None or not changed.isdisjoint(shared)
                    if concerned is None:
                        self._whole(language)
                    else:
                        self._in_place(language, concerned)
        if shared_too:
            with shown_faults():
                share(SERVED)

    def _concerned(self, language: str, changed: set[Path]) -> list[Page] | None:
        """The pages to render anew; None if it has to be all of them."""
        outlines = self.outlines.get(language, {})
        if not outlines:
            return None
        touched: set[str] = set()
        for path in changed:
            if topic := _topic_of(path):
                touched.add(topic)
            elif path not in outlines or not path.exists() or outlines[path] != read_page(path, language).outline:
                return None
        return [
            page
            for page in pages(language)
            if page.path in changed
            or (touched and not page.topic)  # such as the catalogue, which counts what is verified
            or any(topic in line for line in page.lines for topic in touched)
        ]

    def _in_place(self, language: str, concerned: list[Page]) -> None:
        started = time.monotonic()
        self.indexer.stop(language)
        for page in concerned:
            rendered = SERVED / language / page.url / "index.html"
            if rendered.exists():
                os.utime(rendered, (0, 0))  # older than its source, which is what MkDocs goes by
        site.render(language, SERVED, preview=True, edited_only=True)
        self.indexer.restart(language)
        _tell(language, started, ", ".join(page.name for page in concerned))

    def _whole(self, language: str) -> None:
        started = time.monotonic()
        self.outlines.pop(language, None)  # until the language has been rendered whole again
        self.indexer.stop(language)
        aside, target = SERVED / "aside", SERVED / language
        site.render(language, aside, preview=True)
        shutil.rmtree(SERVED / "old", ignore_errors=True)
        if target.exists():
            target.rename(SERVED / "old")
        (aside / language).rename(target)
        self.outlines[language] = {page.path: page.outline for page in pages(language)}
        _tell(language, started, "all of it")


def _tell(language: str, started: float, what: str) -> None:
    seconds = time.monotonic() - started
    click.echo(f"{time.strftime('%H:%M:%S')}  rendered {language}, {what}, in {seconds:.1f} s")


@contextmanager
def shown_faults() -> Iterator[None]:
    """Faults are shown, and the last good page stays."""
    try:
        yield
    except click.ClickException as error:
        error.show()
    except Exception:  # a half-saved file must not end the server
        traceback.print_exc()


def report_faults() -> None:
    """What a publishing build would refuse, told while one writes."""
    translations.refresh()
    for fault in check.faults():
        click.echo(f"note: {fault.message}", err=True)


def serve(port: int) -> None:
    """Serve http://127.0.0.1:port/ until interrupted.

    Raises:
        ContentError: the port is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise ContentError(
                "make serve", f"port {port} is in use", f"stop what uses it, or: make serve PORT={port + 1}"
            )
    shutil.rmtree(SERVED, ignore_errors=True)
    SERVED.mkdir(parents=True)
    for folder in RESULTS:
        folder.mkdir(parents=True, exist_ok=True)
    report_faults()
    worker, indexer = Worker(), Indexer()
    preview = Preview(worker, indexer)
    preview.refresh()
    server = LiveReloadServer(
        builder=preview.refresh, host="127.0.0.1", port=port, root=str(SERVED), polling_interval=0.3
    )
    server.error_handler = _not_found
    for path in (DOCS, *SOURCES, *RESULTS, *CONFIGS.values(), mutants.RECORD):
        server.watch(str(path))
    worker.restart()
    click.echo(f"serving http://127.0.0.1:{port}/ (Ctrl-C ends it)")
    try:
        server.serve()
    except KeyboardInterrupt:
        click.echo("stopping")
    finally:
        worker.stop()
        for language in LANGUAGES:
            indexer.stop(language)
        threading.Thread(target=server.shutdown, daemon=True).start()


def _not_found(code: int) -> bytes | None:
    page = SERVED / f"{code}.html"
    return page.read_bytes() if page.is_file() else None
