"""Running mutmut on some definitions of one topic, in a copy of the project."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from scripts.pipeline import evidence
from scripts.pipeline.paths import BUILD, ROOT, SCRIPTS, ContentError, relative, writing

KILLED, TIMEOUT, SURVIVED = "killed", "timeout", "survived"
# What a mutant's tests exit with. Anything else, a run that broke off for instance, is no catch.
OUTCOMES = {1: KILLED, 3: KILLED, -11: KILLED, -24: TIMEOUT, 24: TIMEOUT, 36: TIMEOUT, 152: TIMEOUT, 255: TIMEOUT}
EVERY = 10.0  # seconds between two lines of progress


@dataclass(frozen=True)
class Mutant:
    """One change to one definition, and what the tests made of it."""

    definition: str
    change: str  # of a survivor
    outcome: str


@dataclass(frozen=True)
class Workplace:
    """A folder in which mutmut makes and tests the mutants of one topic."""

    folder: Path
    topic: str
    definitions: frozenset[str]

    def furnish(self) -> None:
        """Copy what the topic's tests need; torch does not bear forks of a process that has used it."""
        tests = f"tests/snippets/test_{self.topic}.py"
        shutil.copytree(SCRIPTS, self.folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        for path in (
            "snippets/__init__.py",
            f"snippets/{self.topic}.py",
            "tests/snippets/conftest.py",
            tests,
        ):
            writing(self.folder / path, (ROOT / path).read_bytes())
        options = {
            "source_paths": ["snippets"],
            "also_copy": ["scripts"],
            "pytest_add_cli_args_test_selection": [tests],
            "pytest_add_cli_args": ["-p", "no:cacheprovider", "-m", "not jdk"],
            "process_isolation": "forkserver",
            "use_git_change_detection": False,
        }
        settings = "".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items())
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        writing(self.folder / "pyproject.toml", f"{project}\n[tool.mutmut]\n{settings}")

    @property
    def ready(self) -> bool:
        return self._record.is_file()

    @property
    def _record(self) -> Path:
        return self.folder / "mutants" / "snippets" / f"{self.topic}.py.meta"

    def exit_codes(self) -> dict[str, int | None]:
        """Of the chosen mutants by mutmut's names for them; None for those still to come."""
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):  # not there yet, half written
            codes = json.loads(self._record.read_text(encoding="utf-8"))["exit_code_by_key"]
            return {key: code for key, code in codes.items() if _definition(key) in self.definitions}
        return {}

    def run(self, log: Path) -> int:
        """Run mutmut, telling how far it has come; its exit status."""
        names = [f"*.{prefix}{name}{end}" for name in sorted(self.definitions) for prefix, end in _NAMES]
        command = [sys.executable, "-c", "from mutmut.__main__ import cli; cli()", "run", *names]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        started = told = time.monotonic()
        with (
            log.open("w", encoding="utf-8") as out,
            subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=out, stderr=subprocess.STDOUT
            ) as process,
        ):
            while process.returncode is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=1)
                if process.returncode is not None or time.monotonic() - told >= EVERY:
                    told = time.monotonic()
                    codes = self.exit_codes().values()
                    done = [OUTCOMES.get(code, SURVIVED) for code in codes if code is not None]
                    click.echo(
                        f"[{len(done):>4}/{len(codes)}] {told - started:6.1f} s  {done.count(SURVIVED)} survive"
                    )
        return process.returncode

    def change(self, key: str) -> str:
        """The lines that a mutant takes away and those it puts there."""
        from mutmut.mutation.diff_apply import get_diff_for_mutant

        with contextlib.chdir(self.folder):
            diff = get_diff_for_mutant(key, path=f"snippets/{self.topic}.py")
        lines = diff.split("\n")[2:]  # after the names of the files
        return tidy("\n".join(line for line in lines if line[:1] in {"-", "+"}))


def mutate(topic: str, definitions: Iterable[str]) -> list[Mutant]:
    """All of mutmut's changes to these definitions of a topic's module, and what became of them."""
    (BUILD / "logs").mkdir(parents=True, exist_ok=True)
    log = BUILD / "logs" / f"mutants-{topic}.log"
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        place = Workplace(Path(folder), topic, frozenset(definitions))
        place.furnish()
        status = place.run(log)
        codes = place.exit_codes()
        nothing_to_change = place.ready and not codes  # mutmut takes this for a mistake
        if not nothing_to_change and (status or None in codes.values()):
            said = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
            raise ContentError(
                evidence.test_file(topic),
                f"mutmut stopped: {said[-1] if said else 'without a word'}",
                f"see that its tests pass; all it said is in {relative(log)}",
            )
        outcomes = {key: OUTCOMES.get(code, SURVIVED) for key, code in codes.items() if code is not None}
        return [
            Mutant(_definition(key), place.change(key) if outcome == SURVIVED else "", outcome)
            for key, outcome in outcomes.items()
        ]


def tidy(change: str) -> str:
    """`- old` and `+ new`, whatever the indentation."""
    return "\n".join(f"{line[0]} {line[1:].strip()}" for line in change.strip().split("\n"))


_NAMES = (("x_", "__mutmut_*"), ("xǁ", "ǁ*"))  # what mutmut puts around a function's name, and a class's


def _definition(key: str) -> str:
    """The definition a mutant is of: `m.x_f__mutmut_3` is of f, `m.xǁCǁg__mutmut_1` of C."""
    mangled = key.rpartition(".")[2].rpartition("__mutmut_")[0]
    return mangled.split("ǁ")[1] if "ǁ" in mangled else mangled.removeprefix("x_")
