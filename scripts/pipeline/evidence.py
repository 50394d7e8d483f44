"""Evidence: what one run of a topic's tests showed about each of its snippets.

`collect` runs the tests under coverage contexts and writes `.build/evidence/<topic>.json`;
`state` says what that record is worth for the snippet as it stands now.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from scripts.pipeline import gates
from scripts.pipeline.paths import BUILD, ROOT, TESTS, ContentError, read_json, relative, writing
from scripts.pipeline.snippet import Snippet
from scripts.pipeline.source import snippets_of

EVIDENCE = BUILD / "evidence"
WIDEST = 100  # a tolerance may be this many times the largest error seen, or what rounding explains

VERIFIED, UNVERIFIED, FAILING = "verified", "unverified", "failing"


def test_file(topic: str) -> Path:
    return TESTS / "snippets" / f"test_{topic}.py"


def path(topic: str) -> Path:
    return EVIDENCE / f"{topic}.json"


def log_path(topic: str) -> Path:
    return BUILD / "logs" / f"evidence-{topic}.log"


def first_failure(topic: str) -> str:
    """Place and message of the first failure in the log of the last run."""
    place = relative(test_file(topic))
    lines = log_path(topic).read_text(encoding="utf-8").splitlines()
    for line in lines:
        if found := re.match(r"((?:snippets|tests)/\S+\.py:\d+): ", line):
            place = found[1]
        if line.startswith("E  "):
            return f"{place}: {line[1:].strip()}"
    return f"{place}: {lines[-1] if lines else 'pytest said nothing'}"


def collect(topic: str) -> int:
    """Run the topic's tests, write its evidence, return pytest's exit status."""
    BUILD.mkdir(exist_ok=True)
    tested = snippets_of(topic)  # as they stand now: an edit during the run must not inherit its proof
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        record, report = Path(folder, "record.json"), Path(folder, "coverage.json")
        rc = Path(folder, "coveragerc")
        rc.write_text(
            f"[run]\nbranch = true\ndata_file = {folder}/data\ndynamic_context = none\n"
            "[json]\nshow_contexts = true\n",
            encoding="utf-8",
        )
        coverage_options = [
            f"--cov=snippets.{topic}",
            "--cov-branch",
            "--cov-context=test",
            f"--cov-config={rc}",
            f"--cov-report=json:{report}",
        ]
        run = _pytest(topic, f"--record={record}", *coverage_options)
        log = run.stdout + run.stderr
        nothing: dict[str, Any] = {"outcomes": {}, "comparisons": [], "runs": []}
        seen = json.loads(record.read_text()) if record.is_file() else nothing
        coverage = json.loads(report.read_text()) if report.is_file() else {"files": {}}
        evidence = _evidence(topic, tested, seen, coverage)
        if run.returncode == 0:
            log += _doubt(topic, evidence, Path(folder))
        writing(log_path(topic), log)
        writing(path(topic), json.dumps(evidence, indent=1, ensure_ascii=False) + "\n")
    return run.returncode


def _pytest(topic: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", relative(test_file(topic)), "-q", "--tb=short", "--no-header"]
    command += ["-p", "no:cacheprovider", *options]
    # Under CI pytest writes whole diffs of long lists, which takes minutes for a failing test.
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "BUILD_NUMBER")}
    environment |= {"OMP_NUM_THREADS": "1", "NOTHING_SKIPPED": os.environ.get("CI", "")}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def _doubt(topic: str, evidence: dict[str, Any], folder: Path) -> str:
    """Note the tests that pass whichever of the snippets they execute is hollow, and what became of
    bugs planted by hand; return pytest's output."""
    plan, result = folder / "plan.json", folder / "hollow.json"
    tests = {name: entry["tests"] for name, entry in evidence["snippets"].items()}
    plan.write_text(
        json.dumps({"topic": topic, "snippets": tests, "result": str(result)}),
        encoding="utf-8",
    )
    run = _pytest(topic, f"--hollow={plan}", "--tb=no", "--assert=plain")  # failures are expected
    if not result.is_file():
        said = [line for line in (run.stdout + run.stderr).splitlines() if line.strip()]
        raise ContentError(test_file(topic), f"the run with hollow snippets broke off: {said[-1]}", "mend it")
    found = json.loads(result.read_text(encoding="utf-8"))
    vacuous = set(found["vacuous"])
    for name, entry in evidence["snippets"].items():
        entry["vacuous"] = [test for test in entry["tests"] if test in vacuous]
        if name in found["planted"]:
            entry["mutants"] = found["planted"][name]
    return run.stdout + run.stderr


def _evidence(
    topic: str, tested: list[Snippet], seen: dict[str, Any], coverage: dict[str, Any]
) -> dict[str, Any]:
    libraries = {"torch", "numpy"} | {
        c["reference"].split(".")[0] for c in seen["comparisons"] if ":" not in c["reference"]
    }
    libraries -= {"java", *sys.stdlib_module_names}  # they come with what runs the tests
    return {
        "topic": topic,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in sorted(libraries)},
        "commit": _git("rev-parse", "--short", "HEAD"),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "snippets": {s.name: _about(s, seen, coverage["files"].get(relative(s.path), {})) for s in tested},
    }


DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "pytorch_metric_learning": "pytorch-metric-learning",
}


@lru_cache
def version(library: str) -> str:
    return metadata.version(DISTRIBUTIONS.get(library, library))


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return run.stdout.strip()


def _about(snippet: Snippet, seen: dict[str, Any], lines: dict[str, Any]) -> dict[str, Any]:
    first, last = snippet.lines

    def inside(numbers: Iterable[int]) -> list[int]:
        return [n for n in numbers if first <= n <= last]

    contexts = lines.get("contexts", {})
    executing = {
        context.split("|")[0]
        for number in inside(map(int, contexts))
        for context in contexts[str(number)]
        if context
    }
    runs = [run for run in seen["runs"] if run["snippet"] == snippet.name]
    executing |= {run["test"] for run in runs}
    tests = sorted(t for t in seen["outcomes"] if t in executing)
    executed = inside(lines.get("executed_lines", []))
    missing = inside(lines.get("missing_lines", []))
    taken = [b for b in lines.get("executed_branches", []) if first <= b[0] <= last]
    untaken = [b for b in lines.get("missing_branches", []) if first <= b[0] <= last]
    return {
        "hash": snippet.hash,
        "tests": tests,
        "failed": [t for t in tests if seen["outcomes"][t] != "passed"],
        "lines": {"executed": len(executed), "missing": missing},
        "branches": {"executed": len(taken), "missing": untaken},
        "references": _references([c for c in seen["comparisons"] if c["snippet"] == snippet.name]),
        "machines": sorted({run["machine"] for run in runs}),
    }


def _references(comparisons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The comparisons of one snippet, summed up by reference and dtype."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for seen in comparisons:
        grouped.setdefault((seen["reference"], seen["dtype"]), []).append(seen)
    return [
        {
            "reference": reference,
            "dtype": dtype,
            "cases": len(group),
            "values": sum(c["count"] for c in group),
            "max_abs": max(c["max_abs"] for c in group),
            "max_rel": max(c["max_rel"] for c in group),
            "atol": max(c["atol"] for c in group),
            "rtol": max(c["rtol"] for c in group),
            "floor": max(c["floor"] for c in group),
            "agreed": all(c["within"] for c in group),
        }
        for (reference, dtype), group in sorted(grouped.items())
    ]


@dataclass(frozen=True)
class Standing:
    """What the evidence is worth for a snippet as its source stands now."""

    state: str
    reason: str
    record: dict[str, Any]


def load(topic: str) -> dict[str, Any]:
    return read_json(path(topic)) or {}


def standing(snippet: Snippet) -> Standing:
    """Verified, unverified or failing, with the reason where it is not verified."""
    record = load(snippet.topic).get("snippets", {}).get(snippet.owner)
    if record is None:
        return Standing(UNVERIFIED, "no evidence yet", {})
    if record["hash"] != snippet.hash:
        return Standing(UNVERIFIED, "its source has changed since the tests ran", {})
    if record["failed"]:
        return Standing(
            FAILING, f"{len(record['failed'])} failing tests, first {record['failed'][0]}", record
        )
    if reason := _gap(snippet, record):
        return Standing(UNVERIFIED, reason, record)
    return Standing(VERIFIED, "", record)


def _gap(snippet: Snippet, record: dict[str, Any]) -> str:
    """What is still missing before a snippet may be called verified."""
    if not snippet.toolchain:
        return f"this machine has nothing that runs {snippet.language}"
    if not record["tests"]:
        return "no test executes it"
    if record.get("vacuous"):
        return f"{record['vacuous'][0]} passes even when the snippet returns nothing"
    if record["lines"]["missing"]:
        return f"{relative(snippet.path)}:{record['lines']['missing'][0]} is executed by no test"
    if record["branches"]["missing"]:
        return f"the branch {record['branches']['missing'][0]} is taken by no test"
    if snippet.planted_by_hand:
        planted = record.get("mutants")
        if not planted:
            return f"no bug has been planted in it: name one under PLANTED in {relative(test_file(snippet.topic))}"
        for survivor in planted["survivors"]:
            return f"the planted bug {survivor['change']!r}: {survivor['outcome']}"
    if not any(gates.independent(seen["reference"], snippet) for seen in record["references"]):
        return "no independent reference"
    for seen in record["references"]:
        allowed = max(WIDEST * seen["max_abs"], seen["floor"])
        if seen["atol"] > allowed:
            return (
                f"tolerance {seen['atol']:g} against {seen['reference']} is more than {WIDEST} times "
                f"the largest error seen, {seen['max_abs']:.2g}"
            )
    return ""
