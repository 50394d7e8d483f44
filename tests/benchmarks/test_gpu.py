"""What a race holds is moved to a device whole, and the record of a GPU names snippets as they stand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scripts.pipeline import benchmark, benchmark_gpu
from scripts.pipeline.benchmark_gpu import moved
from scripts.pipeline.paths import ContentError, topics
from scripts.pipeline.source import find_snippet

RECORD = benchmark_gpu.load()


def on_meta(value):
    return moved(value, "meta", torch.bfloat16)


def test_what_a_call_holds_is_moved_and_the_call_left_as_it_was():
    layer, x, index = nn.Linear(3, 2), torch.ones(4, 3), torch.tensor([1])

    def inner():
        return layer(x)

    def call():
        return {"out": [inner()], "taken": x[index]}

    found = benchmark_gpu.tensors(on_meta(call)())
    assert [(t.device.type, t.dtype, tuple(t.shape)) for t in found] == [
        ("meta", torch.bfloat16, (4, 2)),
        ("meta", torch.bfloat16, (1, 3)),
    ]
    assert [(t.device.type, t.dtype) for t in benchmark_gpu.tensors(call())] == [("cpu", torch.float32)] * 2


def test_whole_numbers_keep_their_type_and_gradients_their_wish():
    assert on_meta(torch.tensor([1])).dtype == torch.int64
    assert on_meta({"w": (torch.ones(1, requires_grad=True),)})["w"][0].requires_grad
    assert on_meta("text") == "text"


def test_a_generator_starts_from_the_same_seed():
    again = moved(torch.Generator().manual_seed(7), "cpu", torch.float32)
    assert torch.equal(torch.rand(3, generator=again), torch.rand(3, generator=torch.Generator().manual_seed(7)))


def test_results_made_elsewhere_or_refused_are_left_out(capsys):
    assert not benchmark_gpu.runs_there(lambda: torch.ones(1))
    assert not benchmark_gpu.runs_there(lambda: 3)
    assert not benchmark_gpu.runs_there(lambda: torch.ones(2) @ torch.ones(3))
    assert "left out: RuntimeError" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_nothing_is_measured():
    with pytest.raises(ContentError, match="has no CUDA device"):
        benchmark_gpu.run()


def test_the_record_names_its_device_and_snippets_that_are_raced():
    assert RECORD
    assert RECORD["device"]
    assert set(RECORD["races"]) <= {f"{topic}.{name}" for topic in topics() for name in benchmark.races_of(topic)}


@pytest.mark.parametrize("name", RECORD["races"] if RECORD else [])
def test_what_is_shown_has_both_precisions_and_says_whether_the_host_waits(name):
    found = RECORD["races"][name]
    assert isinstance(found["waits"], bool)
    for kind in benchmark_gpu.PRECISIONS:
        assert found[kind]["ours"]["seconds"] > 0
        assert all(times["seconds"] > 0 for times in found[kind]["references"].values())


def test_a_record_is_void_once_the_snippet_changes(monkeypatch):
    snippet = find_snippet("transformer.scaled_dot_product_attention")
    assert benchmark_gpu.standing(RECORD, snippet)
    monkeypatch.setattr(type(snippet), "hash", property(lambda self: "another"))
    assert benchmark_gpu.standing(RECORD, snippet) is None
