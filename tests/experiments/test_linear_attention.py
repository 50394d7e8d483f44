"""The measurements of the linear attention page: recounted another way, repeatable, and plausible."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from linear_attention_transformer.linear_attention_transformer import causal_linear_attn, linear_attn
from performer_pytorch.performer_pytorch import FastAttention

from scripts.experiments import linear_attention as experiments
from snippets.linear_attention import (
    linear_attention,
    performer_attention,
    second_order_feature_map,
)


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, np.ndarray | torch.Tensor):
        return bool((ours == theirs).all())
    return bool(ours == theirs)


def test_cost_has_every_contender_at_every_length_and_plain_up_to_its_limit() -> None:
    result = experiments.cost(lengths=(32, 64, 128), heads=1, dim=8, repeats=2, plain_up_to=64, fit_from=32)
    assert [row["length"] for row in result["rows"]] == [32, 64, 128]
    assert result["rows"][-1]["plain"] is None
    assert len(result["plain_ms"]) == 2
    for name in experiments._CONTENDERS:
        assert all(row[name] > 0 for row in result["rows"][: len(result[f"{name}_ms"])])
        assert (result[f"{name}_low"] <= result[f"{name}_ms"]).all()
        assert (result[f"{name}_ms"] <= result[f"{name}_high"]).all()
    last = result["rows"][-1]
    assert result["fused_over_linear"] == last["fused"] / last["linear"]
    assert result["recurrent_over_chunked"] == last["recurrent"] / last["chunked"]
    assert (result["shortest"], result["longest"]) == (32, 128)


def test_a_slope_is_the_exponent_of_a_power() -> None:
    assert experiments._slope([1, 2, 4, 8], [3 * n**1.5 for n in (1, 2, 4, 8)]) == pytest.approx(1.5)


def test_peak_memory_is_that_of_the_tensors_alive_at_once() -> None:
    def twice() -> torch.Tensor:
        x = torch.zeros(1000)
        y = torch.zeros(3000)
        del x
        return torch.zeros(2000) + y.sum()

    peak = experiments._peak_bytes(twice)
    assert 4 * 7000 <= peak <= 4 * 7000 + 1000


@pytest.fixture(scope="module")
def memory() -> dict[str, Any]:
    return experiments.memory(lengths=(256, 512, 1024), dim=16, prefix_up_to=512, fit_from=256)


def test_memory_grows_as_the_forms_say_and_comes_out_the_same_twice(memory: dict[str, Any]) -> None:
    assert memory["slope_plain"] > 1.9
    for name in ("linear", "parallel", "recurrent", "prefix"):
        assert 0.9 < memory[f"slope_{name}"] < 1.1
    assert memory["slope_chunked"] < 1.1
    again = experiments.memory(lengths=(256, 512, 1024), dim=16, prefix_up_to=512, fit_from=256)
    assert same(memory, again)


def test_memory_of_the_prefix_form_holds_a_matrix_a_position(memory: dict[str, Any]) -> None:
    row = memory["rows"][1]
    assert row["prefix"] * 2**20 >= 4 * 512 * 16 * 16
    assert row["chunked"] * 2**20 < 4 * 512 * 16 * 16
    assert memory["rows"][2]["prefix"] is None
    assert memory["state_bytes"] == 4 * 16 * 17
    assert memory["cache_tokens"] * 2 * 16 * 4 == memory["state_bytes"]


def test_the_prefix_form_is_right_and_only_wasteful() -> None:
    q, k, v = (x.double() for x in experiments._heads(20, 5))
    ours = linear_attention(q, k, v, causal=True)
    torch.testing.assert_close(experiments._prefix_attention(q, k, v), ours, rtol=0, atol=1e-12)


def test_counted_operations_are_those_of_the_formulas() -> None:
    result = experiments.operations(lengths=(64, 256), dim=16)
    for row in result["rows"]:
        n = row["length"]
        assert row["plain"] * 1e6 == 2 * n * n * 16
        assert row["linear"] * 1e6 == 2 * n * 16 * 17
        assert row["chunked"] * 1e6 == n * 64 * (16 + 17) + 2 * n * 16 * 17
    assert result["crossover"] == 16
    assert result["wide_ratio"] == pytest.approx(256 / 128, rel=0.01)


@pytest.fixture(scope="module")
def matrices() -> dict[str, Any]:
    return experiments.matrices(length=24, dim=8, few=4, many=64, rank_length=60)


def test_every_matrix_is_a_weighted_mean_and_its_rank_that_of_its_features(matrices: dict[str, Any]) -> None:
    for row in matrices["rows"]:
        weights = matrices[f"{row['form']}_weights"]
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-12)
        assert weights.min() >= -1e-12
        limit = 60 if row["features"] is None else min(60, row["features"])
        assert row["rank"] == matrices[f"{row['form']}_rank"] == limit
        assert 1 <= row["spread"] <= 24
    assert matrices["softmax_spread"] < matrices["second_spread"] < matrices["elu_spread"]


def test_the_effective_number_of_keys_is_exact_where_it_is_known() -> None:
    assert experiments._effective_number(torch.eye(5)) == pytest.approx(1)
    assert experiments._effective_number(torch.full((3, 8), 1 / 8)) == pytest.approx(8)


def test_random_feature_error_falls_with_the_root_of_their_number() -> None:
    result = experiments.random_feature_error(counts=(64, 256, 1024), dim=8, length=16, draws=20, scales=(0.3, 2.0))
    assert -0.6 < result["slope_independent"] < -0.4
    assert -0.6 < result["slope_orthogonal"] < -0.4
    assert (np.diff(result["output_0"]) < 0).all()
    assert result["output_0_most"] < result["mean_0"]
    assert result["negative_1"] > result["negative_0"]


def test_the_estimate_by_cosines_is_unbiased_too() -> None:
    q, k = 0.4 * torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    w = torch.randn(100_000, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    np.testing.assert_allclose(experiments._trigonometric(q, k, w), torch.exp(q @ k.mT / 2), rtol=0.02)


def test_features_without_signs_are_biased_and_with_signs_not() -> None:
    result = experiments.orthogonal_signs(dims=(8,), draws=2000)
    (row,) = result["rows"]
    assert abs(row["signed"] - 1) < 4 * row["signed_error"]
    assert 1 - row["published"] > 10 * row["published_error"]
    assert row["opposite"] - 1 > 10 * row["published_error"]
    assert row["diagonal"] < -0.1


def test_low_precision_sums_stall() -> None:
    result = experiments.half_sums(lengths=(64, 2048), dim=8)
    assert result["bfloat16_normalizer_2048"] > 0.3
    assert result["float16_normalizer_2048"] < result["bfloat16_normalizer_2048"]
    assert result["float32_normalizer_2048"] < 1e-5
    assert result["float32_output_2048"] < 1e-5


def test_the_quadratic_second_order_form_is_that_of_the_features() -> None:
    q, k, v = (x.double() for x in experiments._heads(20, 5))
    ours = linear_attention(q, k, v, second_order_feature_map, causal=True)
    torch.testing.assert_close(experiments._second_order(q, k, v), ours, rtol=0, atol=1e-12)


def test_storage_falls_with_the_pairs_and_counts_right_answers() -> None:
    result = experiments.storage(pairs=(2, 64), dim=16, trials=30, features=32)
    for name in ("elu", "taylor", "performer", "outer", "delta"):
        assert result[name][0] > result[name][1]
    assert result["softmax"][1] > result["second"][1] > result["elu"][1]
    assert result["half_elu"] == 2
    keys = torch.eye(16)[None, None]
    assert torch.equal(experiments._causal_forms(16, 8)["elu"](20 * keys, 20 * keys, keys).argmax(-1)[0, 0], torch.arange(16))


SHORT: dict[str, Any] = {"steps": 30, "seeds": (0, 1), "dim": 8, "features": 8, "train_pairs": (2, 4), "test_pairs": (2, 4, 8)}


@pytest.fixture(scope="module")
def short_training() -> dict[str, Any]:
    return experiments.training(**SHORT)


def test_training_is_the_same_on_two_runs(short_training: dict[str, Any]) -> None:
    assert same(short_training, experiments.training(**SHORT))


def test_training_summaries_follow_from_its_rows(short_training: dict[str, Any]) -> None:
    for name in ("softmax", "elu", "taylor", "performer", "second"):
        for row in short_training["rows"]:
            key = f"accuracy_{row['pairs']}"
            runs = [run[key] for run in short_training["seed_rows"] if run["form"] == name]
            assert len(runs) == 2
            assert row[name] == short_training[f"{name}_{row['pairs']}"] == pytest.approx(np.mean(runs))
            assert row[f"{name}_spread"] == pytest.approx(np.std(runs, ddof=1))
    assert short_training["state_second"] == (1 + 8 + 36) * 9
    assert short_training["chance"] == 1 / 16


def test_questions_ask_for_stored_pairs_only() -> None:
    keys, values, answers = experiments._questions(5, 6, 4, torch.Generator().manual_seed(0))
    assert keys.shape == values.shape == (5, 10)
    assert (values[:, 6:] == 16).all()
    for row in range(5):
        stored = dict(zip(keys[row, :6].tolist(), values[row, :6].tolist(), strict=True))
        assert len(stored) == 6
        assert [stored[key] for key in keys[row, 6:].tolist()] == answers[row].tolist()


@pytest.fixture(scope="module")
def mistakes() -> dict[str, Any]:
    return experiments.published_mistakes()


def test_every_mistake_is_one(mistakes: dict[str, Any]) -> None:
    assert len(mistakes["rows"]) == 8
    assert all(row["error"] > 0.01 for row in mistakes["rows"])
    assert mistakes["width_scale_row_sum"] == pytest.approx(1 / 4)
    assert mistakes["blind_spot_row_sum"] == pytest.approx(48 / 64, abs=1e-3)
    assert mistakes["elu_rounding_row_sum"] == 0
    assert mistakes["first_row_sum"] < 0.1
    assert mistakes["future_leak"] > 0.01
    assert mistakes["ours_leak"] < 1e-12
    assert (mistakes["elu_zero"], mistakes["elu_zero_half"]) == pytest.approx((-16.7, -6.3))


def test_mistakes_ascribed_to_a_library_are_those_of_the_library() -> None:
    q, k, v = (x.double() for x in experiments._heads(64, 16, seed=12))
    identity = torch.eye(64, dtype=torch.float64)[None, None]
    wide = F.pad(q, (0, 48)), F.pad(k, (0, 48))  # its outputs have the width of its queries
    assert linear_attn(*wide, identity).sum(-1).mean() == pytest.approx(1 / math.sqrt(64))
    out = causal_linear_attn(q, k, v, bucket_size=16)
    assert (out[:, :, :16] == 0).all()  # the first bucket sees nothing, not even itself
    changed = causal_linear_attn(q, k, torch.cat((v[:, :, :40], 9 + v[:, :, 40:]), 2), bucket_size=16)
    assert torch.equal(changed[:, :, :48], out[:, :, :48])


def test_the_leak_is_that_of_performer_pytorch_itself(capsys: pytest.CaptureFixture[str]) -> None:
    q, k, v = (x.double() for x in experiments._heads(64, 16, seed=12))
    layer = FastAttention(16, nb_features=64, causal=True).double()
    capsys.readouterr()
    changed = k.clone()
    changed[:, :, -1] *= 6
    theirs = (layer(q, changed, v) - layer(q, k, v))[:, :, :32].abs().max()
    ours = [performer_attention(q, x, v, layer.projection_matrix, causal=True)[:, :, :32] for x in (changed, k)]
    assert theirs > 0.01
    assert (ours[0] - ours[1]).abs().max() < 1e-12


@pytest.mark.parametrize("name", ["operations", "published_mistakes"])
def test_exact_experiments_are_the_same_on_two_runs(name: str) -> None:
    run = getattr(experiments, name)
    assert same(run(), run())
