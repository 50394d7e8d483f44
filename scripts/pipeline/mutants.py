"""Planted bugs: which small changes to a snippet its tests notice.

mutmut makes the changes, one at a time, and runs for each the tests that reach the changed
function. That takes minutes, so what it found is the one generated record that is committed; an
entry counts only while the snippet and its tests are those it was made with.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import yaml

from scripts.pipeline import evidence
from scripts.pipeline.paths import (
    BUILD,
    ROOT,
    SCRIPTS,
    SNIPPETS,
    TESTS,
    ContentError,
    relative,
    topics,
    writing,
)
from scripts.pipeline.source import Snippet, all_snippets, closure, snippets_of
from scripts.pipeline.words import line_of

RECORD = TESTS / "mutants.json"
REASONS = TESTS / "equivalent_mutants.yml"
TARGET = 0.95

# Exit codes of a mutant's test run; whatever else may happen to it (no tests, a broken run) is no catch.
KILLED, TIMEOUT = {1, 3, -11}, {-24, 24, 36, 152}
EVERY = 10.0  # seconds between two lines of progress

Entry = dict[str, Any]


def load() -> dict[str, Entry]:
    return json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}


def standing(snippet: Snippet) -> Entry | None:
    """What is known of the snippet as it and its tests stand now; None if that is nothing."""
    entry = load().get(f"{snippet.topic}.{snippet.owner}")
    fits = entry and (entry["hash"], entry["tests"]) == (snippet.hash, tests_hash(snippet.topic))
    return entry if fits else None


def tests_hash(topic: str) -> str:
    """Of what the topic's tests do: comments and layout do not count."""
    tree = ast.parse(evidence.test_file(topic).read_text(encoding="utf-8"))
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def caught(entry: Entry) -> int:
    """Bugs that a test fails on or, where they make an endless loop, does not come back from."""
    return int(entry["killed"] + entry["timeout"])


def planted(entry: Entry) -> int:
    """Changes that are bugs: all but those with a reason why they make no difference."""
    return int(entry["mutants"] - sum(bool(survivor["reason"]) for survivor in entry["survivors"]))


def share_caught(entry: Entry) -> float:
    """The share held against TARGET; a change that makes no difference counts as caught."""
    missed = planted(entry) - caught(entry)
    return 1 - missed / entry["mutants"] if entry["mutants"] else 1.0


def run() -> list[ContentError]:
    """Mutate what has changed since it was last mutated; a fault for each bug that no test notices."""
    record = load()
    for topic in topics():
        if due := [snippet for snippet in snippets_of(topic) if standing(snippet) is None]:
            record |= _mutate(topic, due)
            _write(record)  # after each topic: what took minutes is not lost
    record = {name: record[name] for name in all_snippets()}
    faults = _explain(record)
    _write(record)
    return faults


def _write(record: dict[str, Entry]) -> None:
    writing(RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _explain(record: dict[str, Entry]) -> list[ContentError]:
    """Give survivors their reasons; tell of those without one, and of reasons without a survivor."""
    written = (yaml.safe_load(REASONS.read_text(encoding="utf-8")) if REASONS.is_file() else None) or {}
    waiting = [(name, _tidy(entry["change"]), entry["reason"]) for name in written for entry in written[name]]
    faults = []
    for name, snippet in all_snippets().items():
        for survivor in record[name]["survivors"]:
            found = next((w for w in waiting if w[:2] == (name, survivor["change"])), None)
            survivor["reason"] = found[2] if found else ""
            if found:
                waiting.remove(found)  # each explains one change; the same change elsewhere needs its own
            else:
                faults.append(_unnoticed(snippet, survivor["change"]))
    for name, change, _ in waiting:
        line = line_of(REASONS, change.split("\n")[0])
        what = f"no change that survives in {name} reads {change!r}"
        faults.append(ContentError(REASONS, what, "remove the reason", line))
    return faults


def _unnoticed(snippet: Snippet, change: str) -> ContentError:
    old = change.split("\n")[0].removeprefix("- ")
    numbers = [n for n, line in enumerate(snippet.module.text.splitlines(), 1) if line.strip() == old]
    first, last = snippet.lines
    inside = [n for n in numbers if first <= n <= last]
    return ContentError(
        snippet.module.path,
        f"no test of {snippet.name} notices the change {change!r}",
        f"test it, or say in {relative(REASONS)} why it makes no difference",
        (inside or numbers or [first])[0],
    )


def _homes(snippets: list[Snippet]) -> dict[str, str]:
    """Which snippet answers for each definition: for a helper, the first that uses it."""
    homes = {snippet.name: snippet.qualified for snippet in snippets}
    for snippet in snippets:
        for _, name in closure([(snippet.module.path, snippet.name)], follow_imports=False):
            homes.setdefault(name, snippet.qualified)
    return homes


def _mutate(topic: str, due: list[Snippet]) -> dict[str, Entry]:
    """Let mutmut change the snippets that are due, in a copy of the project."""
    source, tests = due[0].module, tests_hash(topic)
    homes = _homes(snippets_of(topic))
    wanted = {snippet.qualified for snippet in due}
    names = [
        f"snippets.{topic}.xǁ{name}ǁ*"
        if isinstance(source.definitions[name], ast.ClassDef)
        else f"snippets.{topic}.x_{name}__mutmut_*"
        for name, home in homes.items()
        if home in wanted
    ]
    BUILD.mkdir(exist_ok=True)
    log = BUILD / f"mutants-{topic}.log"
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        copy = Path(folder)
        _copy_project(copy, topic, source.text)
        meta = copy / "mutants" / "snippets" / f"{topic}.py.meta"

        def results() -> dict[str, int | None]:
            """Exit codes of the chosen mutants, None for those still to come."""
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):  # not there yet, half written
                codes = json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
                return {key: code for key, code in codes.items() if homes.get(_definition(key)) in wanted}
            return {}

        click.echo(f"{topic}: planting bugs in {len(due)} of {len(snippets_of(topic))} snippets")
        if status := _mutmut(copy, log, names, results):
            if results() or not meta.is_file():
                last = log.read_text(encoding="utf-8").split()[-12:]
                raise ContentError(
                    evidence.test_file(topic),
                    f"mutmut stopped with status {status}: … {' '.join(last)}",
                    f"see {relative(log)}",
                )
        entries: dict[str, Entry] = {
            s.qualified: {
                "hash": s.hash, "tests": tests, "mutants": 0, "killed": 0, "timeout": 0, "survivors": [],
            }
            for s in due
        }  # fmt: skip
        for key, code in results().items():
            entry = entries[homes[_definition(key)]]
            entry["mutants"] += 1
            if code in KILLED:
                entry["killed"] += 1
            elif code in TIMEOUT:
                entry["timeout"] += 1
            else:
                entry["survivors"].append({"change": _change(copy, topic, key), "reason": ""})
    return entries


def _copy_project(copy: Path, topic: str, source: str) -> None:
    """What the topic's tests need, and a configuration for mutmut; torch does not bear a plain fork."""
    tests = f"tests/snippets/test_{topic}.py"
    shutil.copytree(SCRIPTS, copy / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    writing(copy / "snippets" / "__init__.py", (SNIPPETS / "__init__.py").read_bytes())
    writing(copy / "snippets" / f"{topic}.py", source)
    for path in (tests, "tests/snippets/conftest.py"):
        writing(copy / path, (ROOT / path).read_bytes())
    options: dict[str, Any] = {
        "source_paths": ["snippets"],
        "also_copy": ["scripts"],
        "pytest_add_cli_args_test_selection": [tests],
        "pytest_add_cli_args": ["-p", "no:cacheprovider"],
        "process_isolation": "forkserver",
        "use_git_change_detection": False,
    }
    settings = "".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items())
    writing(
        copy / "pyproject.toml",
        f"{(ROOT / 'pyproject.toml').read_text(encoding='utf-8')}\n[tool.mutmut]\n{settings}",
    )


def _mutmut(copy: Path, log: Path, names: list[str], results: Any) -> int:
    """Run mutmut on the named mutants, telling how far it has come; its exit status."""
    command = [sys.executable, "-P", "-c", "from mutmut.__main__ import cli; cli()", "run", *names]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(copy / "mutants")}
    started = told = time.monotonic()
    with (
        log.open("w", encoding="utf-8") as out,
        subprocess.Popen(
            command, cwd=copy, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        ) as process,
    ):
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=1)
            if process.returncode is not None or time.monotonic() - told >= EVERY:
                told = time.monotonic()
                codes = results().values()
                done = sum(code is not None for code in codes)
                missed = done - sum(code in KILLED | TIMEOUT for code in codes)
                click.echo(f"[{done:>4}/{len(codes)}] {told - started:6.1f} s  {missed} survive")
            if process.returncode is not None:
                return process.returncode


def _definition(key: str) -> str:
    """The definition a mutant is of: `m.x_f__mutmut_3` is of f, `m.xǁCǁg__mutmut_1` of C."""
    mangled = key.rpartition(".")[2].rpartition("__mutmut_")[0]
    return mangled.split("ǁ")[1] if "ǁ" in mangled else mangled.removeprefix("x_")


def _change(copy: Path, topic: str, key: str) -> str:
    """The lines that a mutant takes away and those it puts there."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    with contextlib.chdir(copy):
        diff = get_diff_for_mutant(key, path=f"snippets/{topic}.py")
    lines = diff.split("\n")[2:]  # after the names of the files
    return _tidy("\n".join(line for line in lines if line[:1] in {"-", "+"}))


def _tidy(change: str) -> str:
    """`- old` and `+ new`, whatever the indentation."""
    return "\n".join(f"{line[0]} {line[1:].strip()}" for line in change.strip().split("\n"))
