"""Planted bugs: found if the tests are weak, believed only while nothing has changed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from scripts.pipeline import evidence, mutants
from scripts.pipeline.paths import ROOT
from scripts.pipeline.source import all_snippets

from .conftest import Project

TINY = '''"""A topic for this test."""


def _checked(x: int) -> int:
    """A helper of two."""
    if x < 1:
        raise ValueError("x is too small")
    return x


def widened(x: int, by: int = 2) -> int:
    """Its mutants are those of the helper too."""
    return _checked(x) + by


def double(x: int) -> int:
    """Tested badly."""
    return 2 * _checked(x)


def last(x: list[int]) -> int:
    """With a change that makes no difference: x[+0] is x[-0]."""
    return x[-0]


def halvings(n: int) -> int:
    """With changes that never end."""
    count = 0
    while n > 1:
        n //= 2
        count += 1
    return count


class Counter:
    """A class."""

    def __init__(self) -> None:
        self.n = 1


LIMIT = 3
'''

TESTS = """import pytest
from snippets.tiny import Counter, double, halvings, last, widened


def test_widened():
    assert (widened(1), widened(4, 4)) == (3, 8)
    with pytest.raises(ValueError, match="^x is too small$"):
        widened(0)


def test_double_in_a_way_that_notices_little():
    assert double(2) in (4, 6)


def test_last():
    assert last([7, 8]) == 7


def test_halvings():
    assert [halvings(n) for n in (1, 2, 3, 4, 9)] == [0, 1, 1, 2, 3]


def test_counter():
    assert Counter().n == 1
"""

SURVIVOR = "- return 2 * _checked(x)\n+ return 3 * _checked(x)"
SAME = "- return x[-0]\n+ return x[+0]"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A project of one tiny topic."""
    root = tmp_path_factory.mktemp("tiny")
    shutil.copytree(ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in {
        "snippets/__init__.py": "",
        "snippets/tiny.py": TINY,
        "tests/snippets/test_tiny.py": TESTS,
        "tests/snippets/conftest.py": (ROOT / "tests/snippets/conftest.py").read_text(encoding="utf-8"),
        "pyproject.toml": (ROOT / "pyproject.toml").read_text(encoding="utf-8"),
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return Project(root)


@pytest.fixture(scope="module")
def first(tiny):
    """What its first mutation says, and the record it leaves."""
    return tiny.run("mutants"), recorded(tiny)


def recorded(project: Project) -> dict:
    return json.loads((project.root / "tests" / "mutants.json").read_text(encoding="utf-8"))


def test_a_weak_test_leaves_a_survivor_that_is_named_with_its_line(first):
    run, record = first
    assert [s["change"] for s in record["tiny.double"]["survivors"]] == [SURVIVOR]
    assert run.returncode == 1
    told = [line for line in run.stderr.splitlines() if "double" in line]
    assert len(told) == 1
    assert told[0].startswith("Error: snippets/tiny.py:18: no test of double notices the change ")
    assert "Traceback" not in run.stderr


def test_good_tests_catch_every_bug(first):
    _, record = first
    for name in ("tiny.widened", "tiny.Counter", "tiny.LIMIT"):
        assert record[name]["survivors"] == []
        assert mutants.share_caught(record[name]) == 1.0
    assert record["tiny.Counter"]["killed"] > 0
    assert record["tiny.LIMIT"]["mutants"] == 0  # a constant holds no code


def test_an_endless_loop_is_a_bug_that_is_caught(first):
    _, record = first
    assert record["tiny.halvings"]["timeout"] > 0
    assert record["tiny.halvings"]["survivors"] == []


def test_the_bugs_of_a_helper_count_once_for_the_first_snippet_that_uses_it(first):
    _, record = first
    alone = 4  # in `double`: 3 for 2, / for *, None for the call and for its argument
    assert record["tiny.double"]["mutants"] <= alone
    assert (
        record["tiny.widened"]["mutants"] >= 2 + 6
    )  # `x <= 1`, `x < 2`, None and three spellings of the message


def test_a_second_run_matches_reasons_and_mutates_only_what_changed(tiny, first):
    reasons = tiny.root / "tests" / "equivalent_mutants.yml"
    reasons.write_text(
        "tiny.last:\n"
        "- change: |-\n    -     return x[-0]\n    +     return x[+0]\n"
        "  reason: zero has one sign only\n"
        "tiny.double:\n"
        "- change: |-\n    - return 3\n    + return 4\n"
        "  reason: there is no such line\n",
        encoding="utf-8",
    )
    again = tiny.run("mutants")
    assert "planting" not in again.stdout
    assert again.returncode == 1
    assert len(again.stderr.splitlines()) == 2
    assert "no test of double notices" in again.stderr
    assert "tests/equivalent_mutants.yml:8: no change that survives in tiny.double reads" in again.stderr
    entry = recorded(tiny)["tiny.last"]
    assert entry["survivors"] == [{"change": SAME, "reason": "zero has one sign only"}]
    assert mutants.caught(entry) == mutants.planted(entry) == entry["mutants"] - 1

    reasons.write_text(reasons.read_text(encoding="utf-8").split("tiny.double")[0], encoding="utf-8")
    tiny.edit("snippets/tiny.py", "return 2 * _checked(x)", "return _checked(x) << 1")
    mended = tiny.run("mutants")
    assert "tiny: planting bugs in 1 of 6 snippets" in mended.stdout
    assert mended.returncode == 0, mended.stderr


def test_tests_that_fail_as_they_are_stop_the_run_in_one_line(tiny, first):
    tiny.edit("tests/snippets/test_tiny.py", "== 7", "== 8")
    (error,) = tiny.errors("mutants")
    assert error.startswith("Error: tests/snippets/test_tiny.py: mutmut stopped")
    tiny.edit("tests/snippets/test_tiny.py", "== 8", "== 7")


@pytest.fixture
def snippet():
    return all_snippets()["dilated_convolution.effective_kernel_size"]


@pytest.fixture
def entry(snippet, monkeypatch):
    """A record that fits; tests spoil it."""
    entry = {
        "hash": mutants.code_hash(snippet),
        "tests": mutants.tests_hash(snippet.topic),
        "mutants": 10,
        "killed": 7,
        "timeout": 1,
        "survivors": [{"change": "- a\n+ b", "reason": "same"}, {"change": "- c\n+ d", "reason": ""}],
    }
    monkeypatch.setattr(mutants, "load", lambda: {snippet.qualified: entry})
    return entry


def test_a_record_that_fits_counts(snippet, entry):
    assert mutants.standing(snippet) is entry
    assert (mutants.caught(entry), mutants.planted(entry)) == (8, 9)
    assert mutants.share_caught(entry) == 0.9


def test_a_snippet_without_an_entry_has_no_record(entry):
    assert mutants.standing(all_snippets()["dilated_convolution.output_size"]) is None


def test_a_changed_snippet_or_helper_voids_its_record(snippet, entry):
    text = snippet.module.text.replace("raise ValueError", "raise TypeError", 1)
    assert mutants.standing(replace(snippet, module=replace(snippet.module, text=text))) is None


def test_a_docstring_is_not_what_bugs_are_planted_in(snippet, entry):
    text = snippet.module.text.replace("Raises", "It raises")
    changed = replace(snippet, module=replace(snippet.module, text=text))
    assert changed.hash != snippet.hash
    assert mutants.standing(changed) is entry


def test_changed_tests_void_the_record_and_comments_do_not(snippet, entry, monkeypatch, tmp_path):
    tests = tmp_path / "test_copy.py"
    text = evidence.test_file(snippet.topic).read_text(encoding="utf-8")
    monkeypatch.setattr(evidence, "test_file", lambda topic: tests)
    tests.write_text(f"# a comment\n{text}", encoding="utf-8")
    assert mutants.standing(snippet) is entry
    tests.write_text(f"{text}\nassert True\n", encoding="utf-8")
    assert mutants.standing(snippet) is None


def test_every_snippet_has_a_record_that_fits_and_holds_to_the_target():
    for name, snippet in all_snippets().items():
        found = mutants.standing(snippet)
        assert found, f"{name} has changed since bugs were planted in it: run make mutants"
        assert mutants.share_caught(found) >= mutants.TARGET, name
        assert all(survivor["reason"] for survivor in found["survivors"]), name
        assert found["mutants"] == found["killed"] + found["timeout"] + len(found["survivors"])


def test_the_record_and_the_reasons_speak_of_nothing_else():
    planted_by_tool = {name for name, s in all_snippets().items() if not s.planted_by_hand}
    assert set(mutants.load()) == planted_by_tool
    assert mutants.reasons().keys() <= all_snippets().keys()
