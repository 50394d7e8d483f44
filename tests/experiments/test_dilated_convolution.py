"""The measurements of the dilated convolution page: recounted another way, repeatable, and plausible."""

from itertools import product
from math import gcd
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scripts.experiments import dilated_convolution as experiments


def reached(rates: tuple[int, ...]) -> set[int]:
    """Offsets, along one axis, from the output to the inputs it sees: sums of one tap a layer."""
    return {
        sum(rate * tap for rate, tap in zip(rates, taps, strict=True))
        for taps in product((-1, 0, 1), repeat=len(rates))
    }


def has_gap(rates: tuple[int, ...]) -> bool:
    return len(reached(rates)) < 2 * sum(rates) + 1


def second_distance(rates: tuple[int, ...]) -> int:
    """M2 by its definition, one layer at a time."""
    if len(rates) == 2:
        return rates[1]
    after = second_distance(rates[1:])
    return max(after - 2 * rates[1], 2 * rates[1] - after, rates[1])


def scalars(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if isinstance(value, int | float | bool | str)}


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, np.ndarray | torch.Tensor):
        return bool((ours == theirs).all())
    return bool(ours == theirs)


def test_doubling_reaches_15_with_three_layers_and_plain_only_7() -> None:
    result = experiments.receptive_fields()
    assert (result["two_layers_doubling"], result["three_layers_doubling"]) == (7, 15)
    assert (result["two_layers_plain"], result["three_layers_plain"]) == (5, 7)
    assert result["plain_depth_for_15"] == 7
    assert result["rate_three_kernel"] == 7
    assert result["causal_four_layers"] == 16
    for row in result["rows"]:
        rates = tuple(2**layer for layer in range(row["depth"]))
        assert row["plain"] == 2 * row["depth"] + 1
        assert row["doubling"] == 2 ** (row["depth"] + 1) - 1
        assert row["last_rate"] == rates[-1]


def test_a_strided_stack_sees_more_than_the_formula_without_strides_says() -> None:
    result = experiments.receptive_fields()
    x = torch.zeros(1, 1, 101, dtype=torch.float64, requires_grad=True)
    y, ones = x, torch.ones(1, 1, 3, dtype=torch.float64)
    for stride, dilation in ((2, 1), (2, 1), (1, 2)):
        y = F.conv1d(y, ones, stride=stride, dilation=dilation)
    y[0, 0, y.shape[2] // 2].backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    seen = x.grad[0, 0].nonzero()
    assert int(seen.max() - seen.min()) + 1 == result["strided_true"] == 23
    assert result["strided_forgetful"] == 9


def test_gridding_rows_agree_with_sums_of_offsets() -> None:
    result = experiments.gridding()
    assert [row["rates"] for row in result["rows"]] == [
        [2, 2, 2], [1, 2, 3], [1, 2, 5], [1, 2, 9], [2, 4, 8], [1, 3, 9], [6, 12, 18],
    ]  # fmt: skip
    for row in result["rows"]:
        rates = tuple(row["rates"])
        side = 2 * sum(rates) + 1
        seen = len(reached(rates)) ** 2
        name = "_".join(map(str, rates))
        assert row["receptive_field"] == result[f"field_{name}"] == side
        assert row["seen"] == result[f"seen_{name}"] == seen
        assert row["pixels"] == side**2
        assert row["coverage"] == result[f"rates_{name}"] == pytest.approx(seen / side**2, abs=1e-15)
        assert row["max_distance"] == second_distance(rates)
        assert row["distance_rule"] is (second_distance(rates) <= 3)
        assert row["common_factor"] == gcd(*rates)
        assert row["gridding"] is has_gap(rates)
        assert result[f"map_{name}"].shape == (side, side)
        assert result[f"map_{name}"].sum() == 9**3


def test_maps_count_the_paths_of_a_real_stack_of_ones() -> None:
    result = experiments.gridding()
    ones = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    for row in result["rows"]:
        side = row["receptive_field"]
        x = torch.zeros(1, 1, side, side, dtype=torch.float64, requires_grad=True)
        y = x
        for rate in row["rates"]:
            y = F.conv2d(y, ones, dilation=rate)
        y.sum().backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        assert same(result["map_" + "_".join(map(str, row["rates"]))], x.grad[0, 0].long().numpy())
    assert (result["paths_min_1_3_9"], result["paths_max_1_3_9"]) == (1, 1)
    assert result["paths_max_1_2_3"] == result["map_1_2_3"].max()


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    return experiments.hdc_rule()


def test_hdc_table_agrees_with_an_exhaustive_recount(table: dict[str, Any]) -> None:
    total = {"stacks": 0, "gap_free": 0}
    for count, row in zip((2, 3, 4), table["rows"], strict=False):
        tally = dict.fromkeys((key for key in row if key != "layers"), 0)
        for rates in product(range(1, 8), repeat=count):
            gap = has_gap(rates)
            short = second_distance(rates) <= 3
            in_order = sorted(rates)
            within = all(rate <= 2 * sum(in_order[:place]) + 1 for place, rate in enumerate(in_order))
            tally["stacks"] += 1
            tally["gap_free"] += not gap
            for rule, accepted in {
                "distance": short,
                "gcd": short and gcd(*rates) == 1,
                "first": short and rates[0] == 1,
                "field": within,
            }.items():
                tally[f"{rule}_accepted"] += accepted
                tally[f"{rule}_missed"] += accepted and gap
                tally[f"{rule}_false_alarms"] += not accepted and not gap
                tally[f"{rule}_right"] += accepted is not gap
        assert row == {"layers": str(count)} | tally
        total = {key: total.get(key, 0) + value for key, value in tally.items()}
    assert table["rows"][-1] == {"layers": "all"} | total
    assert len(table["rows"]) == 4
    assert total.items() <= table.items()
    assert total["stacks"] == 7**2 + 7**3 + 7**4


def test_hdc_rule_errs_both_ways_and_the_field_rule_never(table: dict[str, Any]) -> None:
    assert table["gcd_missed"] > 0
    assert table["gcd_false_alarms"] > 0
    assert table["first_missed"] == 0
    assert table["field_missed"] == table["field_false_alarms"] == 0
    assert table["field_right_share"] == 1
    assert table["gcd_missed_share"] == table["gcd_missed"] / table["gcd_accepted"]
    assert table["gcd_false_alarm_share"] == table["gcd_false_alarms"] / table["gap_free"]


def test_hdc_verdicts_depend_on_an_order_that_what_is_seen_does_not(table: dict[str, Any]) -> None:
    verdicts: dict[tuple[int, ...], set[bool]] = {}
    for count in (2, 3, 4):
        for rates in product(range(1, 8), repeat=count):
            accepted = second_distance(rates) <= 3 and gcd(*rates) == 1
            verdicts.setdefault(tuple(sorted(rates)), set()).add(accepted)
    assert table["orderings"] == len(verdicts)
    assert table["orderings_differ"] == sum(len(found) == 2 for found in verdicts.values())
    assert table["rejected_in_every_order"] == sum(
        found == {False} and not has_gap(r) for r, found in verdicts.items()
    )


def test_hdc_examples_are_what_they_are_called(table: dict[str, Any]) -> None:
    assert [2, 3] in [row["rates"] for row in table["missed_examples"]]
    for row in table["missed_examples"]:
        assert row["max_distance"] == second_distance(tuple(row["rates"])) <= 3
        assert gcd(*row["rates"]) == 1
        assert row["coverage"] < 1
    for row in table["false_alarm_examples"]:
        assert row["max_distance"] == second_distance(tuple(row["rates"])) > 3
        assert row["coverage"] == 1


def test_live_taps_agree_with_a_convolution_of_ones() -> None:
    result = experiments.aspp_taps()
    ones = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    for row in result["rows"]:
        for size in (33, 65):
            plane = torch.ones(1, 1, size, size, dtype=torch.float64)
            live = F.conv2d(plane, ones, padding=row["rate"], dilation=row["rate"])
            assert row[f"taps_{size}"] == pytest.approx(live.mean().item(), abs=1e-12)
            assert row[f"share_{size}"] == pytest.approx(live.mean().item() / 9, abs=1e-12)
            if row["rate"] in (6, 12, 18):
                assert same(result[f"live_{row['rate']}_on_{size}"], live[0, 0].long().numpy())
                full = (live == 9).double().mean().item()
                assert result[f"full_{row['rate']}_on_{size}"] == pytest.approx(full, abs=1e-12)
    assert result["full_18_on_33"] == 0
    assert round(result["rate_12_on_33"], 2) == 5.17
    assert len(result["rates"]) == len(result["share_33"]) == len(result["share_65"]) == 65


def test_cost_reports_a_ratio_for_each_dilation_and_equal_work() -> None:
    result = experiments.cost(rates=(1, 2, 16), channels=4, size=16, repeats=3)
    rows = result["rows"]
    assert [row["dilation"] for row in rows] == [1, 2, 16]
    assert rows[0]["library"] == rows[0]["unpadded"] == 1
    assert {row["weights"] for row in rows} == {result["parameters"]} == {4 * 4 * 9}
    assert {row["multiply_adds"] for row in rows} == {result["multiply_adds"]} == {4 * 16 * 16 * 4 * 4 * 9}
    assert [round(row["live_share"], 4) for row in rows] == [0.9184, 0.8403, 0.1111]
    for row in rows:
        assert 0 < row["library_low"] <= row["library"] <= row["library_high"]
        assert 0 < row["unpadded_low"] <= row["unpadded"] <= row["unpadded_high"]
        assert row["ours"] > 0
    assert result["fastest_ratio"] == min(row["library"] for row in rows)
    assert result["slowest_ratio"] == max(row["library"] for row in rows)


SHORT: dict[str, Any] = {"steps": 60, "seeds": (0, 1), "size": 32, "channels": 8, "noise": 0.5}


@pytest.fixture(scope="module")
def short_training() -> dict[str, Any]:
    return experiments.training(**SHORT)


def test_the_nets_have_equal_parameters_and_differ_in_what_they_see(short_training: dict[str, Any]) -> None:
    rows = {row["net"]: row for row in short_training["rows"]}
    assert len({row["parameters"] for row in rows.values()}) == 1
    assert [rows[net]["receptive_field"] for net in ("plain", "gridded", "hybrid")] == [7, 13, 13]
    assert [rows[net]["seen"] for net in ("plain", "gridded", "hybrid")] == [49, 49, 169]
    assert all(row["changed"] <= row["seen"] for row in rows.values())


def test_a_short_training_already_shows_the_checkerboard(short_training: dict[str, Any]) -> None:
    assert short_training["nyquist_ratio"] > 3
    assert short_training["checkerboard_ratio"] > 1.3
    assert short_training["gridded_nyquist"] > 0.08 > short_training["hybrid_nyquist"]


def test_training_summaries_follow_from_its_rows(short_training: dict[str, Any]) -> None:
    for row in short_training["rows"]:
        runs = [run for run in short_training["seed_rows"] if run["net"] == row["net"]]
        assert [run["seed"] for run in runs] == [0, 1]
        for key in ("thin", "large", "checkerboard", "nyquist"):
            values = [run[key] for run in runs]
            assert (
                row[key] == short_training[f"{row['net']}_{key}"] == pytest.approx(np.mean(values), abs=1e-12)
            )
            assert row[f"{key}_spread"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
            assert all(0 <= value <= 1 for value in values)
    gain = short_training["hybrid_large"] - short_training["gridded_large"]
    assert short_training["large_gain"] == pytest.approx(gain, abs=1e-12)
    assert {short_training[key].shape for key in ("image", "truth", "score_plain", "prediction_hybrid")} == {
        (32, 32)
    }


def test_every_image_holds_thin_and_large_parts_of_equal_brightness() -> None:
    images, truth = experiments._shapes(32, 48, 0.0, torch.Generator().manual_seed(3))
    _, narrow = experiments._shapes(32, 48, 0.0, torch.Generator().manual_seed(3), line_width=1)
    assert 1.7 < (truth == 1).sum() / (narrow == 1).sum() < 2.3
    assert same(truth == 2, narrow == 2)
    assert images.shape == (32, 1, 48, 48)
    assert same(images[:, 0], (truth > 0).float())
    for label in (0, 1, 2):
        assert bool((truth == label).flatten(1).any(1).all())


def test_checkerboard_measure_is_0_on_smooth_and_1_on_alternating_predictions() -> None:
    truth = torch.zeros(1, 8, 8, dtype=torch.long)
    alternating = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    assert experiments._disagreement(truth, truth) == 0
    assert experiments._disagreement(alternating[None], truth) == 1
    assert experiments._nyquist(alternating[None, None].float()) == pytest.approx(1, abs=1e-6)
    wave = torch.sin(torch.arange(8) * torch.pi / 4).expand(1, 1, 8, 8)
    assert experiments._nyquist(wave) == pytest.approx(0, abs=1e-6)


def test_training_is_the_same_on_two_runs(short_training: dict[str, Any]) -> None:
    again = experiments.training(**SHORT)
    assert scalars(again) == scalars(short_training)
    assert same(again, short_training)


def test_noise_sweep_is_the_same_on_two_runs_and_noise_hurts() -> None:
    short: dict[str, Any] = {"noises": (0.2, 1.1), "steps": 40, "seeds": (0,), "size": 32, "channels": 8}
    result = experiments.training_noise(**short)
    assert same(result, experiments.training_noise(**short))
    assert [row["noise"] for row in result["rows"]] == [0.2, 1.1]
    for net in ("plain", "gridded", "hybrid"):
        assert result[f"low_{net}_large"] > result[f"high_{net}_large"]
    gain = result["high_hybrid_large"] - result["high_plain_large"]
    assert result["large_gain_high"] == pytest.approx(gain, abs=1e-12)


def test_narrow_lines_are_measured_alike_and_the_same_on_two_runs() -> None:
    short: dict[str, Any] = {"steps": 20, "seeds": (0, 1), "size": 24, "channels": 6}
    result = experiments.training_width(**short)
    assert same(result, experiments.training_width(**short))
    assert [row["net"] for row in result["rows"]] == ["plain", "gridded", "hybrid"]
    gain = result["hybrid_large"] - result["plain_large"]
    assert result["large_gain_plain"] == pytest.approx(gain, abs=1e-12)


@pytest.mark.parametrize("name", ["receptive_fields", "gridding", "hdc_rule", "aspp_taps"])
def test_exact_experiments_are_the_same_on_two_runs(name: str) -> None:
    run = getattr(experiments, name)
    assert same(run(), run())
