"""Races are fair and complete, and their records say what the pages show of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from scripts.markdown.races import duration
from scripts.pipeline import bench_build, benchmark
from scripts.pipeline.paths import LANGUAGES, topics
from scripts.pipeline.source import all_snippets, find_snippet, snippets_of

RACES = [(topic, name) for topic in topics() for name in benchmark.races_of(topic)]
RECORDS = [(topic, name) for topic in topics() for name in benchmark.load(topic)]
STEEPER = 0.5  # what leaving the caches may add to a slope; one more factor of the size adds at least twice as much


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
def test_all_who_start_compute_the_same(topic, name):
    """Whatever can be compared is compared; a reference that gives another form of it at least runs."""
    race = benchmark.races_of(topic)[name]
    start = race.prepare(*race.sizes[0])
    assert start.references
    if start.naive:
        start.naive()
    ours = tensors(start.ours())
    for reference in start.references.values():
        theirs = tensors(reference())
        if [x.shape for x in theirs] == [x.shape for x in ours] and name not in ON_OTHER_TERMS:
            for a, b in zip(ours, theirs, strict=True):
                torch.testing.assert_close(a.double(), b.double(), rtol=1e-3, atol=1e-3, equal_nan=True)


# That these agree is proven in their topics' tests, on equal terms: here weights or noise are drawn at random,
# or the reference scales its queries (efficient attention) or adds a constant to each feature (Performer).
ON_OTHER_TERMS = {
    *("CausalConv1d", "ASPP", "SPPBlock", "SPPF", "ResizeConv", "SubPixelConv"),
    *("DetrEncoderLayer", "MultiHeadAttention", "EncoderLayer", "DecoderLayer", "Transformer"),
    *("Attention", "OadDecoder", "SphereFace", "CosFace", "ArcFace"),
    *("ResidualBlock", "Upsample", "TextEncoder", "CrossAttention", "SpatialTransformer", "ddpm_step"),
    *("efficient_attention", "performer_attention"),
}


def tensors(value: Any) -> list[torch.Tensor]:
    """The arrays in a result, in order."""
    match value:
        case torch.Tensor():
            return [value.detach()] if not value.is_complex() else [torch.view_as_real(value.detach())]
        case np.ndarray() if value.dtype.kind in "fiub":
            return [torch.from_numpy(np.ascontiguousarray(value))]
        case tuple() | list():
            return [tensor for item in value for tensor in tensors(item)]
        case bool() | int() | float() | np.number():
            return [torch.tensor(value)]
    return []


@pytest.mark.parametrize(("topic", "name"), RACES)
def test_the_record_is_of_the_snippet_as_it_stands(topic, name):
    snippet = find_snippet(f"{topic}.{name}")
    assert benchmark.standing(snippet) is not None, f"run: make bench RACES={topic}.{name}"


@pytest.mark.parametrize(("topic", "name"), RECORDS)
def test_time_grows_no_faster_than_the_theory_says(topic, name):
    record = benchmark.load(topic)[name]
    assert benchmark.growth(record) <= record["exponent"] + STEEPER


@pytest.mark.parametrize(("topic", "name"), RECORDS)
def test_who_misses_the_goal_has_a_reason(topic, name):
    if not benchmark.meets_goal(benchmark.load(topic)[name]):
        reason = benchmark.reasons()[f"{topic}.{name}"]
        assert all(reason[language].strip() for language in LANGUAGES)


def test_reasons_are_of_snippets_that_are_raced_and_in_both_languages():
    assert set(benchmark.reasons()) <= {f"{topic}.{name}" for topic, name in RACES}
    assert all(set(reason) == set(LANGUAGES) for reason in benchmark.reasons().values())


def test_confusion_matrix_metrics_are_five_times_faster_than_loops_and_no_slower_than_libraries():
    for name in ("confusion_matrix", "SegmentationMeter"):
        record = benchmark.load("segmentation_metrics")[name]
        assert benchmark.time_ratio(record) <= 1
        assert all(size["naive"]["times"] >= 5 for size in record["sizes"])


def test_linear_attention_is_linear_and_its_recurrence_holds_the_same_at_any_length():
    records = benchmark.load("linear_attention")
    for name in ("linear_attention", "recurrent_linear_attention", "chunked_linear_attention"):
        assert records[name]["exponent"] == 1
        assert benchmark.growth(records[name]) <= 1.3
    held = [size["ours"]["bytes"] for size in records["recurrent_linear_attention"]["sizes"]]
    assert max(held) <= 1.05 * min(held)


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


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1867.9, "1,868 s"), (999.6, "1,000 s"), (0.9996, "1 s"), (493.7, "494 s"), (0.0205, "20.5 ms"), (2.5e-6, "2.5 µs")],
)
def test_a_duration_is_written_without_an_exponent(seconds, said):
    assert duration(seconds) == said


def test_the_record_of_builds_has_every_case_that_a_goal_speaks_of():
    record = bench_build.load()
    assert record is not None
    assert set(bench_build.GOALS) <= set(record["builds"])
    for case in ("unchanged", "prose"):
        assert record["builds"][case]["redone"] == {}
    assert {int(count) for count in record["growth"]["seconds"]} == set(bench_build.COPIES)
    assert record["growth"]["slope"] <= 1.1


def test_every_snippet_named_in_a_record_exists():
    assert {f"{topic}.{name}" for topic, name in RECORDS} <= set(all_snippets())
