"""`make bench-build`: how long builds take beside a plain `mkdocs build` of the same pages, and what they redo.

Everything is measured in a copy of the project, so the results and the site of this one stay as they are.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import click

from scripts.pipeline import evidence, figure, notebook
from scripts.pipeline.benchmark import machine, slope
from scripts.pipeline.paths import (
    BUILD,
    CONFIGS,
    LANGUAGES,
    ROOT,
    TESTS,
    ContentError,
    read_json,
    relative,
    writing,
)
from scripts.publishing import card

RECORD = TESTS / "benchmarks" / "build.json"
COPY = BUILD / "bench-build"
PAGE = "computer-vision/dilated-convolution"
OTHERS = ("index", "catalogue", "glossary", "about")  # pages that a site of one article has besides
COPIES = (1, 10, 100)
EDITS = 5  # of prose, while it is served
GOALS = {"cold": 20 * 60.0, "trained": 4 * 60.0, "unchanged": 10.0, "served": 2.0}  # seconds

# As `make build` does once results are there, but that links to articles left out are no fault.
ASSEMBLE = "from scripts.pipeline import site; site.assemble(site.ASIDE, preview=True)"
PLAIN = "from scripts.search import bench; bench.with_material()"


def load() -> dict[str, Any] | None:
    found: dict[str, Any] | None = read_json(RECORD)
    return found


def run() -> None:
    """Measure everything, keep the record, print it."""
    _copy()
    record: dict[str, Any] = {"date": date.today().isoformat(), "machine": machine(), "builds": {}}

    def keep(name: str, seconds: float, redone: list[str]) -> None:
        record["builds"][name] = {"seconds": round(seconds, 1), "redone": _counted(redone)}
        click.echo(f"{name:<10} {seconds:8.1f} s   redone: {_shown(redone)}")

    keep("cold", *_build())
    keep("unchanged", *_build())
    plain = _python(PLAIN)
    record["plain"] = round(plain, 1)
    click.echo(f"{'plain':<10} {plain:8.1f} s   mkdocs build of the same pages with the theme's defaults")
    _forget_all_but_trained()
    keep("trained", *_build())
    _append(COPY / "docs" / "en" / f"{PAGE}.md", "\nEdited.\n")
    _append(COPY / "docs" / "zh" / f"{PAGE}.md", "\n改过。\n")
    keep("prose", *_build())
    _edit_snippet()
    keep("snippet", *_build())
    keep("served", _served(), [])
    record["growth"] = _growth()
    for count, seconds in record["growth"]["seconds"].items():
        click.echo(f"{count:>4} copies of an article: {seconds:.1f} s")
    click.echo(f"slope of time over pages, both logarithmic: {record['growth']['slope']:.2f}")
    writing(RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _copy() -> None:
    """The project's files, without anything that was generated."""
    shutil.rmtree(COPY, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (source := ROOT / name).is_file():
            target = COPY / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    # A commit of its own: the days that pages bear come from it.
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=bench", "-c", "user.email=", "commit", "-qm", "copy"]):
        subprocess.run(["git", *command], cwd=COPY, check=True, capture_output=True)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(COPY), "PYTHONDONTWRITEBYTECODE": "1"}


def _timed(*command: str) -> tuple[float, str]:
    started = time.monotonic()
    run = subprocess.run(
        [sys.executable, *command], cwd=COPY, env=_environment(), capture_output=True, text=True, check=False
    )
    if run.returncode:
        said = (run.stdout + run.stderr).strip().splitlines()
        raise ContentError("make bench-build", f"{' '.join(command)} failed: {said[-1]}", "run it by itself")
    return time.monotonic() - started, run.stdout


def _python(code: str) -> float:
    return _timed("-c", code)[0]


def _build() -> tuple[float, list[str]]:
    """Seconds of `make build`, and the tasks it did."""
    seconds, output = _timed("-m", "scripts.pipeline", "build")
    return seconds, redone(output)


def redone(output: str) -> list[str]:
    """The tasks that a build's output says were done."""
    return re.findall(r"^\[ *\d+/\d+\] +[\d.]+ s  (?!FAILED)(\S+)$", output, re.MULTILINE)


def _counted(tasks: list[str]) -> dict[str, int]:
    """How many tasks of each kind."""
    kinds = [name.partition(":")[0] for name in tasks]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def _shown(tasks: list[str]) -> str:
    if len(tasks) <= 12:
        return ", ".join(tasks) or "nothing"
    return ", ".join(f"{count} {kind}" for kind, count in _counted(tasks).items())


def _forget_all_but_trained() -> None:
    for made in (evidence.EVIDENCE, figure.FIGURES, notebook.NOTEBOOKS, card.CARDS):
        shutil.rmtree(COPY / relative(made))
    shutil.rmtree(COPY / "site")


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def _edit_snippet() -> None:
    """One snippet does something more, to no effect."""
    path = COPY / "snippets" / "dilated_convolution.py"
    text = path.read_text(encoding="utf-8")
    place = re.search(r"^def effective_kernel_size.*?\"\"\".*?\"\"\"\n", text, re.DOTALL | re.MULTILINE)
    if place is None:
        raise ContentError("scripts/pipeline/bench_build.py", "the snippet it edits is gone", "name another")
    path.write_text(f"{text[: place.end()]}    pass\n{text[place.end() :]}", encoding="utf-8")


def _served() -> float:
    """Median seconds from saving a page's prose until `make serve` shows it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "scripts.pipeline", "serve", "--port", str(port)]
    server = subprocess.Popen(command, cwd=COPY, env=_environment(), stdout=subprocess.DEVNULL)
    page = COPY / "docs" / "en" / f"{PAGE}.md"
    address = f"http://127.0.0.1:{port}/en/{PAGE}/"
    try:
        _wait_for(address, "</html>", 300)
        time.sleep(30)  # what serve does behind at its start is no part of an edit
        return median(_times_of_edits(page, address))
    finally:
        server.terminate()
        server.wait()


def _times_of_edits(page: Path, address: str) -> Iterator[float]:
    for number in range(EDITS):
        started = time.monotonic()
        _append(page, f"\nEdit number {number}.\n")
        _wait_for(address, f"Edit number {number}.", 60)
        yield time.monotonic() - started
        time.sleep(8)  # the reader looks at it; the search index is made behind


def _wait_for(address: str, text: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                if text in answer.read().decode():
                    return
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.05)
    raise ContentError("make bench-build", f"serve does not show {text!r}", "run make serve and look")


def _growth() -> dict[str, Any]:
    """Seconds to render and finish a site of one article, and of 10 and 100 copies of it."""
    _leave_one_article()
    seconds: dict[int, float] = {}
    for count in COPIES:
        for language in LANGUAGES:
            page = COPY / "docs" / language / f"{PAGE}.md"
            for number in range(1, count):
                shutil.copy2(page, page.with_name(f"copy-{number}.md"))
        seconds[count] = round(_python(ASSEMBLE), 1)
    return {"seconds": seconds, "slope": slope(list(seconds)[-2:], list(seconds.values())[-2:])}


def _leave_one_article() -> None:
    kept = {f"{name}.md" for name in (PAGE, *OTHERS)}
    others = "".join(f"  - {name.capitalize()}: {name}.md\n" for name in OTHERS)
    nav = f"nav:\n  - Shelf: [{PAGE}.md]\n{others}"
    for language, config in CONFIGS.items():
        folder = COPY / "docs" / language
        for path in folder.rglob("*.md"):
            if path.relative_to(folder).as_posix() not in kept:
                path.unlink()
        path = COPY / relative(config)
        text, count = re.subn(r"^nav:\n(?:  .*\n)+", nav, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert count == 1
        path.write_text(text, encoding="utf-8")
    shutil.rmtree(COPY / relative(notebook.NOTEBOOKS), ignore_errors=True)
