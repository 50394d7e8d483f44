"""Planted bugs: which small changes to a snippet its tests notice.

mutmut makes the changes, one at a time, and runs for each the tests that reach the changed
function. That takes minutes, so what it found is the one generated record that is committed; an
entry counts only while the snippet and its tests are those it was made with.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from functools import lru_cache
from typing import Any

import click
import yaml

from scripts.pipeline import evidence, mutation
from scripts.pipeline.paths import TESTS, ContentError, read_json, relative, topics, writing
from scripts.pipeline.snippet import Snippet
from scripts.pipeline.source import all_snippets, behaviour, closure, snippets_of
from scripts.pipeline.words import line_of

RECORD = TESTS / "mutants.json"
REASONS = TESTS / "equivalent_mutants.yml"
TARGET = 0.95

Entry = dict[str, Any]


def load() -> dict[str, Entry]:
    return read_json(RECORD) or {}


def reasons() -> dict[str, list[dict[str, str]]]:
    """The changes that make no difference, by snippet, each with the reason why."""
    return (yaml.safe_load(REASONS.read_text(encoding="utf-8")) if REASONS.is_file() else None) or {}


def standing(snippet: Snippet) -> Entry | None:
    """What is known of the snippet as it and its tests stand now; None if that is nothing.

    Of bugs planted by hand the evidence knows: each run of the tests plants them afresh.
    """
    if snippet.planted_by_hand:
        return evidence.standing(snippet).record.get("mutants")
    entry = load().get(f"{snippet.topic}.{snippet.owner}")
    fits = entry and (entry["hash"], entry["tests"]) == (code_hash(snippet), tests_hash(snippet.topic))
    return entry if fits else None


def code_hash(snippet: Snippet) -> str:
    """Of what the snippet and its helpers do: bugs are planted neither in comments nor in docstrings."""
    return _behaviour_hash(snippet.stand_alone)


def tests_hash(topic: str) -> str:
    """Of what the topic's tests do: comments, docstrings and layout do not count."""
    return _behaviour_hash(evidence.test_file(topic).read_text(encoding="utf-8"))


@lru_cache(maxsize=1024)  # every page that lists snippets asks for theirs and their tests'
def _behaviour_hash(text: str) -> str:
    return hashlib.sha256(behaviour(text).encode()).hexdigest()[:16]


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
    record = dict(load())
    for topic in topics():
        if due := [snippet for snippet in mutable(topic) if standing(snippet) is None]:
            record |= _mutate(topic, due)
            _write(record)  # after each topic: what took minutes is not lost
    record = {
        snippet.qualified: record[snippet.qualified] for topic in topics() for snippet in mutable(topic)
    }
    faults = _explain(record)
    _write(record)
    return faults


def mutable(topic: str) -> list[Snippet]:
    """The snippets that mutmut can change."""
    return [snippet for snippet in snippets_of(topic) if not snippet.planted_by_hand]


def _write(record: dict[str, Entry]) -> None:
    writing(RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _explain(record: dict[str, Entry]) -> list[ContentError]:
    """Give survivors their reasons; tell of those without one, and of reasons without a survivor."""
    waiting = [
        (name, mutation.tidy(each["change"]), each["reason"])
        for name, listed in reasons().items()
        for each in listed
    ]
    faults = []
    for name, entry in record.items():
        snippet = all_snippets()[name]
        for survivor in entry["survivors"]:
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
    text = snippet.path.read_text(encoding="utf-8")
    numbers = [n for n, line in enumerate(text.splitlines(), 1) if line.strip() == old]
    first, last = snippet.lines
    inside = [n for n in numbers if first <= n <= last]
    return ContentError(
        snippet.path,
        f"no test of {snippet.name} notices the change {change!r}",
        f"test it, or say in {relative(REASONS)} why it makes no difference",
        (inside or numbers or [first])[0],
    )


def _homes(snippets: list[Snippet]) -> dict[str, str]:
    """Which snippet answers for each definition: for a helper, the first that uses it."""
    homes = {snippet.name: snippet.qualified for snippet in snippets}
    for snippet in snippets:
        for _, name in closure([(snippet.path, snippet.name)], follow_imports=False):
            homes.setdefault(name, snippet.qualified)
    return homes


def _mutate(topic: str, due: list[Snippet]) -> dict[str, Entry]:
    everything = mutable(topic)
    homes, chosen = _homes(everything), {snippet.qualified for snippet in due}
    tests = tests_hash(topic)  # now: an edit during the run must not inherit what it shows
    click.echo(f"{topic}: planting bugs in {len(due)} of {len(everything)} snippets")
    found = mutation.mutate(topic, [name for name, home in homes.items() if home in chosen])
    entries = {}
    for snippet in due:
        mine = [mutant for mutant in found if homes[mutant.definition] == snippet.qualified]
        outcomes = Counter(mutant.outcome for mutant in mine)
        entries[snippet.qualified] = {
            "hash": code_hash(snippet),
            "tests": tests,
            "mutants": len(mine),
            "killed": outcomes[mutation.KILLED],
            "timeout": outcomes[mutation.TIMEOUT],
            "survivors": [
                {"change": mutant.change, "reason": ""}
                for mutant in mine
                if mutant.outcome == mutation.SURVIVED
            ],
        }
    return entries
