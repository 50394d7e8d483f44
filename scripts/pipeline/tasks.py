"""The task graph, for doit: what is made from what, and when it has to be made again.

Each task's action is a plain function call with plain arguments, so doit's worker processes can
run it; each carries a hash of the code it reaches, so an edit redoes only what depends on it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from importlib import import_module, metadata
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread
from typing import Any

from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain
from doit.exceptions import BaseFail, TaskFailed, UnmetDependency
from doit.reporter import ConsoleReporter
from doit.tools import config_changed

from scripts.pipeline import benchmark, evidence, experiment, figure, growth, notebook
from scripts.pipeline.pages import pages
from scripts.pipeline.paths import (
    BUILD,
    LANGUAGES,
    ROOT,
    SCRIPTS,
    SNIPPETS,
    TESTS,
    ContentError,
    relative,
    topics,
)
from scripts.pipeline.source import behaviour_hash, files_of, snippets_of
from scripts.publishing import card

Task = dict[str, Any]


@lru_cache
def versions() -> str:
    return " ".join(
        [sys.version.split()[0], *(f"{n}={metadata.version(n)}" for n in ("torch", "numpy", "matplotlib"))]
    )


@cache  # one watch a process
def end_with_the_build() -> None:
    """Have this worker process end when the build it works for was killed.

    Left behind, it would hold the build's lock and write into the next one's folders.
    """

    def watch() -> None:
        if build := parent_process():
            build.join()
            os._exit(1)

    Thread(target=watch, daemon=True).start()


def guarded(module: str, function: str, *arguments: str) -> TaskFailed | None:
    """Call `module.function(*arguments)`; a failure becomes one line that says where and what."""
    end_with_the_build()
    try:
        getattr(import_module(f"scripts.pipeline.{module}"), function)(*arguments)
    except Exception as error:
        return TaskFailed(one_line(error))
    return None


def one_line(error: BaseException) -> str:
    """Where in this project an error arose, and what it says."""
    if isinstance(error, ContentError):
        return error.message
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if Path(f.filename).is_relative_to(ROOT)
        and "/scripts/pipeline/" not in f.filename
        and "/.venv/" not in f.filename
    ]
    place = f"{relative(Path(frames[-1].filename))}:{frames[-1].lineno}: " if frames else ""
    text = (str(error).splitlines() or [""])[0]
    return f"{place}{type(error).__name__}: {text}"


def _action(module: str, function: str, *arguments: str) -> list[Any]:
    return [(guarded, [module, function, *arguments])]


def _text_hash(*paths: Path) -> str:
    return hashlib.sha256(b"\0".join(p.read_bytes() for p in paths if p.is_file())).hexdigest()


def programs(topic: str) -> str:
    """What a topic's programs in other languages are, and what runs them: no import leads to them."""
    foreign = [snippet for snippet in snippets_of(topic) if snippet.planted_by_hand]
    return " ".join(f"{snippet.hash} {snippet.toolchain}" for snippet in foreign)


def task_experiment() -> Iterator[Task]:
    """Measure and train: results that pages and figures read."""
    for topic in topics():
        for name in experiment.experiments_of(topic):
            yield {
                "name": f"{topic}.{name}",
                "actions": _action("experiment", "run", topic, name),
                "targets": [relative(experiment.result_path(topic, name))],
                "uptodate": [
                    config_changed(
                        behaviour_hash([experiment.symbol(topic, name)], versions()) + programs(topic)
                    )
                ],
            }


def task_figure() -> Iterator[Task]:
    """Draw each figure in every language and theme."""
    style = (SCRIPTS / "pipeline" / "figure.py", "render")
    for topic in topics():
        for name, needs in figure.figures_of(topic).items():
            yield {
                "name": f"{topic}.{name}",
                "actions": _action("figure", "draw", topic, name),
                "file_dep": [relative(experiment.result_path(topic, need)) for need in needs],
                "targets": [relative(path) for path in figure.svg_paths(topic, name)],
                "uptodate": [config_changed(behaviour_hash([figure.symbol(topic, name), style], versions()))],
            }


def task_plot() -> Iterator[Task]:
    """Draw how the cost of each topic's snippets grows, from the records of `make bench`."""
    style = [(SCRIPTS / "pipeline" / "growth.py", "draw"), (SCRIPTS / "pipeline" / "figure.py", "render")]
    for topic in topics():
        if benchmark.load(topic):
            yield {
                "name": topic,
                "actions": _action("growth", "draw", topic),
                "file_dep": [relative(benchmark.path(topic))],
                "targets": [relative(path) for path in growth.paths(topic)],
                "uptodate": [config_changed(behaviour_hash(style, versions()))],
            }


def task_notebook() -> Iterator[Task]:
    """Execute each topic's notebook."""
    for topic in topics():
        source = notebook.source_path(topic)
        if source.is_file():
            yield {
                "name": topic,
                "actions": _action("notebook", "build", topic),
                "targets": [relative(notebook.output_path(topic, language)) for language in LANGUAGES],
                "uptodate": [
                    config_changed(
                        versions()
                        + _text_hash(source, SNIPPETS / f"{topic}.py", SCRIPTS / "pipeline" / "notebook.py")
                    )
                ],
            }


def task_card() -> Iterator[Task]:
    """Draw the picture that goes with links to each page."""
    for language in LANGUAGES:
        for page in pages(language):
            shown = f"{page.title} {page.meta.get('description')} {_text_hash(SCRIPTS / 'publishing' / 'card.py')}"
            yield {
                "name": f"{language}.{page.name}",
                "actions": [(_draw_card, [language, page.name])],
                "targets": [relative(card.card_path(page))],
                "uptodate": [config_changed(shown)],
            }


def _draw_card(language: str, name: str) -> None:
    card.draw(next(page for page in pages(language) if page.name == name))


def task_evidence() -> Iterator[Task]:
    """Run each topic's tests and keep what they showed."""
    shared = [TESTS / "snippets" / "conftest.py"]
    shared += [SCRIPTS / "pipeline" / f"{name}.py" for name in ("evidence", "comparison", "gates", "java")]
    # Programs that are compiled and run take longest: begun last, they would leave one worker idle.
    for topic in sorted(topics(), key=lambda topic: not programs(topic)):
        yield {
            "name": topic,
            "actions": [(_collect, [topic])],
            "targets": [relative(evidence.path(topic))],
            "uptodate": [
                config_changed(
                    versions()
                    + programs(topic)
                    + _text_hash(*files_of(topic), evidence.test_file(topic), *shared)
                )
            ],
        }


def _collect(topic: str) -> TaskFailed | None:
    """The tests themselves may fail: that is a finding, kept and shown, and stops a publishing build."""
    end_with_the_build()
    status = evidence.collect(topic)
    if status == 0:
        return None
    return TaskFailed(f"{evidence.first_failure(topic)} — see {relative(evidence.log_path(topic))}")


class Progress(ConsoleReporter):
    """What, how many of how many, and how long; one line a failure."""

    desc = "progress with counts and times"

    def initialize(self, tasks: dict[str, Any], selected_tasks: list[str]) -> None:
        wanted = set(selected_tasks) | {d for name in selected_tasks for d in tasks[name].task_dep}
        self.total = sum(bool(task.actions) for name, task in tasks.items() if name in wanted)
        self.done = 0
        self.started: dict[str, float] = {}
        self.failed: list[str] = []

    def execute_task(self, task: Any) -> None:
        if task.actions:
            self.started[task.name] = time.monotonic()
            self.write(f"           start  {task.name}\n")
            self.outstream.flush()

    def _count(self, task: Any, word: str) -> None:
        if task.actions:
            self.done += 1
            seconds = time.monotonic() - self.started.get(task.name, time.monotonic())
            self.write(f"[{self.done:>3}/{self.total}] {seconds:6.1f} s  {word}{task.name}\n")
            self.outstream.flush()

    def add_success(self, task: Any) -> None:
        self._count(task, "")

    def skip_uptodate(self, task: Any) -> None:
        self.done += bool(task.actions)

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        if isinstance(fail, UnmetDependency):  # the fault itself has been told
            return
        self._count(task, "FAILED ")
        self.failed.append(str(fail.message).strip() or fail.get_msg().strip().splitlines()[-1])

    def complete_run(self) -> None:
        for message in [*self.failed, *self.runtime_errors]:
            self.write(f"Error: {message}\n")
        self.outstream.flush()


def run(*selected: str, keep_going: bool = False, always: bool = False) -> bool:
    """Bring the selected tasks (all, if none) up to date with two workers; True if all succeeded."""
    BUILD.mkdir(exist_ok=True)
    os.chdir(ROOT)  # doit knows files by relative paths: its record survives a move of the folder
    options: dict[str, Any] = {
        "dep_file": str(BUILD / "doit.json"),
        "backend": "json",
        "reporter": Progress,
        "verbosity": 0,
        "num_process": 2,
        "par_type": "process",
        "continue": keep_going,
        "always": always,
        "default_tasks": ["evidence", "figure", "plot", "notebook", "experiment", "card"],
    }
    loader = ModuleTaskLoader(sys.modules[__name__])
    status: Callable[..., int] = DoitMain(loader, extra_config={"GLOBAL": options}).run
    return status(["run", *selected]) == 0
