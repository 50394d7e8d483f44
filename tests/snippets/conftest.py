"""`agrees_with`, the comparison that is kept as evidence, and the second run with hollow snippets."""

from __future__ import annotations

import importlib
import json
import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import Phase, settings

from scripts.pipeline.comparison import Comparison, compare
from scripts.pipeline.gates import hollow

COMPARISONS = pytest.StashKey[list[Comparison]]()
OUTCOMES = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", help="write what the tests of one topic showed to this file")
    parser.addoption(
        "--hollow", help="a plan {module, snippets: {name: [tests]}, result}; see scripts/pipeline/gates.py"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COMPARISONS] = []
    config.stash[OUTCOMES] = {}
    # The same examples in each run, so that evidence can be repeated; nothing is learnt from
    # shrinking the failures that a hollow snippet provokes.
    settings.register_profile("evidence", derandomize=True, database=None, deadline=None)
    settings.register_profile("hollow", settings.get_profile("evidence"), phases=[Phase.generate])
    settings.load_profile("hollow" if config.getoption("--hollow") else "evidence")


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    outcomes = item.config.stash[OUTCOMES]
    if report.when == "call" or report.outcome != "passed":
        outcomes[item.nodeid] = report.outcome
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """With --hollow: run each snippet's tests with that snippet hollow, and tell which still pass."""
    option = session.config.getoption("--hollow")
    if not option:
        return None
    plan = json.loads(Path(option).read_text(encoding="utf-8"))
    module = importlib.import_module(plan["module"])
    blind = {test for tests in plan["snippets"].values() for test in tests}

    def still_passing(name: str, tests: set[str]) -> list[str]:
        with hollow(module, name):
            chosen = [item for item in session.items if item.nodeid in tests]
            return [item.nodeid for item in chosen if all(r.passed for r in runtestprotocol(item, log=False))]

    for name, tests in plan["snippets"].items():
        # A fork a snippet: whatever a hollow snippet leaves behind goes with its process.
        # Who has failed once has looked at a result, and need not run again.
        tried = blind & set(tests)
        blind -= tried - set(_in_a_fork(partial(still_passing, name, tried)))
    Path(plan["result"]).write_text(json.dumps(sorted(blind)), encoding="utf-8")
    return True


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
        }
        Path(target).write_text(json.dumps(record), encoding="utf-8")
