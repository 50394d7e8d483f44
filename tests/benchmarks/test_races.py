"""Races are complete and run, and what is measured of them adds up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from scripts.pipeline import bench_build, benchmark
from scripts.pipeline.paths import LANGUAGES, topics
from scripts.pipeline.source import find_snippet, snippets_of

RACES = [(topic, name) for topic in topics() for name in benchmark.races_of(topic)]


@pytest.mark.parametrize("topic", topics())
def test_each_snippet_is_raced_or_said_to_have_no_counterpart(topic):
    raced, others = set(benchmark.races_of(topic)), benchmark.unraced(topic)
    assert raced | set(others) == {snippet.name for snippet in snippets_of(topic)}
    assert not raced & set(others)
    assert all(reason.strip() for reason in others.values())


@pytest.mark.parametrize(("topic", "name"), RACES)
def test_a_race_has_three_growing_sizes_and_words_in_both_languages(topic, name):
    race = benchmark.races_of(topic)[name]
    products = [int(np.prod(size)) for size in race.sizes]
    assert len(products) == 3
    assert products == sorted(set(products))
    for words in filter(None, (race.shape, race.naive)):
        assert set(words) == set(LANGUAGES)



@pytest.mark.parametrize(("topic", "name"), RACES)
def test_all_who_start_run_and_leave_a_result(topic, name):
    race = benchmark.races_of(topic)[name]
    start = race.prepare(*race.sizes[0])
    assert start.references
    for call in (start.ours, *start.references.values(), *([start.naive] if start.naive else [])):
        call()


def test_reasons_are_of_snippets_that_are_raced_and_in_both_languages():
    assert set(benchmark.reasons()) <= {f"{topic}.{name}" for topic, name in RACES}
    assert all(set(reason) == set(LANGUAGES) for reason in benchmark.reasons().values())


def record_of(ratios: dict[str, float], ours: int = 4 * 2**20, theirs: int = 2**22) -> dict[str, Any]:
    """The smallest record there may be."""
    size = {
        "size": [8, 16],
        "ours": {"seconds": 1.0, "bytes": ours},
        "references": {name: {"ratio": ratio, "bytes": theirs} for name, ratio in ratios.items()},
        "naive": None,
    }
    smaller = {**size, "size": [4, 8], "ours": {"seconds": 0.5, "bytes": ours}}
    return {"exponent": 1, "sizes": [smaller, size]}


def test_the_fastest_reference_is_the_one_compared_with():
    record = record_of({"slow.one": 0.5, "fast.one": 1.5})
    assert benchmark.fastest(record["sizes"][-1]) == "fast.one"
    assert benchmark.time_ratio(record) == 1.5
    assert not benchmark.meets_goal(record)


def test_memory_counts_from_a_megabyte_on():
    assert benchmark.memory_ratio(record_of({"a.b": 1.0}, ours=2**23)["sizes"][-1]) == 2
    assert not benchmark.meets_goal(record_of({"a.b": 1.0}, ours=2**23))
    assert benchmark.memory_ratio(record_of({"a.b": 1.0}, ours=2**19, theirs=1)["sizes"][-1]) is None
    assert benchmark.meets_goal(record_of({"a.b": 1.0}, ours=2**19, theirs=1))


def test_growth_is_the_exponent():
    assert benchmark.growth(record_of({"a.b": 1.0})) == pytest.approx(0.5)
    assert benchmark.slope([1, 10, 100], [3.0, 300.0, 30_000.0]) == pytest.approx(2)


def test_peak_memory_is_what_is_held_at_a_time():
    def call() -> torch.Tensor:
        for _ in range(3):
            held = torch.zeros(2**21)  # 8 MB, and again only once the last is gone
            del held
        return torch.zeros(2**20)

    assert 2**23 <= benchmark.peak(call) < 2**23 + 2**20


def test_a_measurement_has_every_ratio_and_spread():
    start = benchmark.Start(lambda: torch.ones(999), {"torch.ones": lambda: torch.ones(999)}, lambda: [1.0] * 99_999)
    found = benchmark.measure(start, (999,))
    theirs = found["references"]["torch.ones"]
    assert 0 < theirs["low"] <= theirs["ratio"] <= theirs["high"]
    assert found["naive"]["times"] > 0
    assert found["ours"]["seconds"] > 0


def test_a_record_is_void_once_the_snippet_changes(monkeypatch):
    snippet = find_snippet("segmentation_metrics.confusion_matrix")
    before = benchmark.fingerprint(snippet)
    monkeypatch.setattr(type(snippet), "hash", property(lambda self: "another"))
    assert benchmark.fingerprint(snippet) != before


def test_names_nobody_bears_are_refused():
    with pytest.raises(Exception, match="no race is called"):
        benchmark.run("no_such_topic")


def test_what_a_build_redid_is_read_from_its_output():
    output = "           start  figure:a.b\n[  3/240]    1.2 s  figure:a.b\n[  4/240]    0.1 s  FAILED card:zh.x\n"
    assert bench_build.redone(output) == ["figure:a.b"]

