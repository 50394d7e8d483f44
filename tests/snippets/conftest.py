"""`agrees_with`, the comparison that is kept as evidence; `java`, Java snippets compiled; and the second
run, which doubts the tests: with hollow snippets, and with bugs planted in those that mutmut cannot change."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from _pytest.runner import runtestprotocol
from hypothesis import Phase, settings

from scripts.pipeline.comparison import Comparison, compare
from scripts.pipeline.java import JavaSnippet, Machine, Program, instead, program
from scripts.pipeline.paths import ContentError
from scripts.pipeline.source import find_snippet, snippets_of

COMPARISONS = pytest.StashKey[list[Comparison]]()
OUTCOMES = pytest.StashKey[dict[str, str]]()
RUNS = pytest.StashKey[list[dict[str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", help="write what the tests of one topic showed to this file")
    parser.addoption(
        "--hollow", help="a plan {topic, snippets: {name: [tests]}, result}; see scripts/pipeline/gates.py"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COMPARISONS] = []
    config.stash[OUTCOMES] = {}
    config.stash[RUNS] = []
    # The same examples in each run, so that evidence can be repeated; nothing is learnt from
    # shrinking the failures that a hollow snippet provokes.
    settings.register_profile("evidence", derandomize=True, database=None, deadline=None)
    settings.register_profile("hollow", settings.get_profile("evidence"), phases=[Phase.generate])
    settings.load_profile("hollow" if config.getoption("--hollow") else "evidence")


@pytest.fixture(autouse=True)
def _the_same_weights_every_time() -> None:
    """Or the largest error seen, which a tolerance is held against, would be another in each run."""
    torch.manual_seed(20_262)  # with which no test draws its inputs: they would be these weights


@pytest.fixture
def agrees_with(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Assert `ours` equals `theirs` within the tolerance, and record the error that was seen.

    The first argument is the snippet the comparison speaks of; the second names the reference:
    the dotted name of a library's function, "brute force: …" or "closed form: …".
    """

    def check(
        snippet: Any, reference: str, ours: Any, theirs: Any, *, atol: float = 0.0, rtol: float = 0.0
    ) -> None:
        __tracebackhide__ = True
        seen = compare(request.node.nodeid, snippet, reference, ours, theirs, atol, rtol)
        request.config.stash[COMPARISONS].append(seen)
        assert seen.within, seen.complaint

    return check


@pytest.fixture
def java(request: pytest.FixtureRequest, jdk: Callable[[int], Machine]) -> Callable[[str], Program]:
    """Compile a Java snippet of the test's topic; that the test runs it is recorded."""
    topic = request.path.stem.removeprefix("test_")

    def compiled(name: str) -> Program:
        snippet = find_snippet(f"{topic}.{name}")
        assert isinstance(snippet, JavaSnippet), f"snippets/{topic}/{name}.java does not exist"
        run = {"test": request.node.nodeid, "snippet": name, "machine": str(jdk(snippet.release))}
        request.config.stash[RUNS].append(run)
        return program(snippet)

    return compiled


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "java" in getattr(item, "fixturenames", ()):
            item.add_marker("jdk")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    outcomes = item.config.stash[OUTCOMES]
    if report.when == "call" or report.outcome != "passed":
        outcomes[item.nodeid] = report.outcome
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """With --hollow: run each snippet's tests with that snippet hollow, and tell which still pass;
    then with each of the bugs that the test file plants under PLANTED, and tell which they notice."""
    option = session.config.getoption("--hollow")
    if not option:
        return None
    plan = json.loads(Path(option).read_text(encoding="utf-8"))
    snippets = {snippet.name: snippet for snippet in snippets_of(plan["topic"])}
    blind = {test for tests in plan["snippets"].values() for test in tests}

    def passing(tests: set[str]) -> Iterator[str]:
        for item in session.items:
            if item.nodeid in tests and all(r.passed for r in runtestprotocol(item, log=False)):
                yield item.nodeid

    def passing_when_hollow(name: str, tests: set[str]) -> list[str]:
        with snippets[name].hollow():
            return list(passing(tests))

    for name, tests in plan["snippets"].items():
        # A fork a snippet: whatever a hollow snippet leaves behind goes with its process.
        # Who has failed once has looked at a result, and need not run again.
        tried = blind & set(tests)
        blind -= tried - set(_in_a_fork(partial(passing_when_hollow, name, tried)))

    def outcome(name: str, old: str, new: str) -> str:
        snippet, tests = snippets[name], plan["snippets"][name]
        assert isinstance(snippet, JavaSnippet), f"{name} is for mutmut to change"
        try:
            changed = snippet.planted(old, new)
        except ContentError as error:
            return error.message
        with instead(snippet, changed.text):
            noticed = any(not list(passing({test})) for test in tests)
        return "caught" if noticed else "noticed by no test"

    bugs: dict[str, list[tuple[str, str]]] = getattr(session.items[0].module, "PLANTED", {})
    planted = {
        name: _summed_up(
            {f"- {old}\n+ {new}": _in_a_fork(partial(outcome, name, old, new)) for old, new in changes}
        )
        for name, changes in bugs.items()
        if plan["snippets"][name]
    }
    Path(plan["result"]).write_text(
        json.dumps({"vacuous": sorted(blind), "planted": planted}), encoding="utf-8"
    )
    return True


def _summed_up(outcomes: dict[str, str]) -> dict[str, Any]:
    """What became of planted bugs, in the form of an entry of `mutants.json`."""
    caught = [change for change, outcome in outcomes.items() if outcome == "caught"]
    return {
        "mutants": len(outcomes),
        "killed": len(caught),
        "timeout": 0,
        "caught": caught,
        "survivors": [
            {"change": change, "reason": "", "outcome": outcome}
            for change, outcome in outcomes.items()
            if outcome != "caught"
        ],
    }


def _in_a_fork(function: Callable[[], Any]) -> Any:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=lambda: theirs.send(function()))
    child.start()
    theirs.close()
    answer = ours.recv()
    child.join()
    return answer


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = session.config.getoption("--record")
    if target:
        record = {
            "outcomes": session.config.stash[OUTCOMES],
            "comparisons": [seen.as_dict() for seen in session.config.stash[COMPARISONS]],
            "runs": session.config.stash[RUNS],
        }
        Path(target).write_text(json.dumps(record), encoding="utf-8")
