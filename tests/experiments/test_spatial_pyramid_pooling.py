"""The measurements of the spatial pyramid pooling page: recounted another way, repeatable, and plausible."""

from itertools import product
from math import ceil
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch

from scripts.experiments import spatial_pyramid_pooling as experiments


def test_bins_of_both_maps_cover_them_and_the_lengths_are_the_papers() -> None:
    result = experiments.pyramid()
    assert (result["bins"], result["paper_bins"], result["small_bins"]) == (21, 50, 30)
    assert result["length"] == 21 * 256
    assert result["paper_length"] == 12800  # He et al. 2015, section 4.1
    assert result["fc_small"] < result["fc_plain"] < result["fc_pyramid"]
    for row in result["rows"]:
        areas = [int(h) * int(w) for h, w in product(row["heights"].split(", "), row["widths"].split(", "))]
        assert len(areas) == row["bins"]
        assert sum(areas) >= row["height"] * row["width"] + (row["shared"] > 0)


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    return experiments.windows()


def test_window_table_agrees_with_plain_counting(table: dict[str, Any]) -> None:
    failures = []
    for bins in range(1, 7):
        tally = dict.fromkeys(("exact", "missing", "miscounted", "ceil_miscounted"), 0)
        for size in range(bins, 65):
            kernel, stride = ceil(size / bins), size // bins
            starts = [start for start in range(0, size, stride) if start + kernel <= size]
            hanging = [start for start in range(0, size, stride) if start - stride + kernel < size]
            if len(starts) != bins:
                kind = "miscounted"
                failures.append((bins, size, kernel, stride, len(starts)))
            else:
                kind = "exact" if starts[-1] + kernel == size else "missing"
            tally[kind] += 1
            tally["ceil_miscounted"] += len(hanging) != bins
            assert table["made"][bins - 1, size - 1] == len(starts)
            assert table["state"][bins - 1, size - 1] == ("exact", "missing", "miscounted").index(kind)
        row = table["rows"][bins - 1]
        assert {key: row[key] for key in tally} == tally
        assert row["pairs"] == 65 - bins == tally["exact"] + tally["missing"] + tally["miscounted"]
    assert [
        tuple(row[key] for key in ("bins", "size", "kernel", "stride", "made")) for row in table["failures"]
    ] == failures
    assert (table["miscounted"], table["largest"]) == (20, 29)
    assert table["remainder_rule"] == table["adaptive_agree"] == table["pairs"] == table["rows"][-1]["pairs"]
    assert (table["state"] == -1).sum() == 15


def test_the_papers_own_smaller_map_gets_another_length(table: dict[str, Any]) -> None:
    assert (table["vector_224"], table["vector_180"]) == (50, 95)
    assert table["bins_180"] == 9
    assert (table["bins_7_4"], table["bins_5_3"], table["bins_11_4"]) == (6, 4, 5)
    size, bins = table["worst_missing_size"], table["worst_missing_bins"]
    read = (bins - 1) * (size // bins) + ceil(size / bins)
    assert table["worst_missing"] == pytest.approx(1 - (read / size) ** 2)


def test_padded_repair_is_refused_where_the_padding_exceeds_half_a_window() -> None:
    result = experiments.padded_repair()
    expected = []
    for bins in range(1, 7):
        for size in range(bins, 65):
            kernel = ceil(size / bins)
            padding = (kernel * bins - size + 1) // 2
            cells = [{c for c in range(i * kernel - padding, (i + 1) * kernel - padding) if 0 <= c < size}
                     for i in range(bins)]  # fmt: skip
            if 2 * padding > kernel:
                expected.append((bins, size, kernel, padding, sum(not own for own in cells)))
    assert [tuple(row.values()) for row in result["rows"]] == expected
    assert (result["refused"], result["empty"], result["largest"]) == (14, 7, 25)
    assert result["miscounted"] == 0
    assert 0 < result["uneven"] < result["pairs"] == 369
    assert "half of kernel size" in result["message"]
    assert result["empty_5_4"] == 7


def test_branch_shares_are_the_cells_that_windows_touch() -> None:
    result = experiments.branches()
    for row, size in product(result["rows"], (13, 19, 20)):
        ones = np.ones((size, size))
        touched = scipy.ndimage.convolve(ones, np.ones((row["kernel"],) * 2), mode="constant")
        assert row[f"share_{size}"] == pytest.approx(touched.mean() / size**2)
        assert row["span"] == 32 * row["kernel"]
    assert result["whole_13"] == 1


def test_cost_counts_what_the_blocks_do_and_both_give_the_same() -> None:
    result = experiments.cost(sizes=(6, 8, 10), channels=8, repeats=2)
    assert result["difference"] == 0
    assert result["parameters_block"] == result["parameters_fast"]
    assert (result["a_cell_parallel"], result["a_cell_chained"]) == (272, 72)
    assert (result["a_cell_separable"], result["a_cell_doubled"]) == (24, 18)
    for row in result["rows"]:
        assert row["chained"] < row["parallel"]
        assert row["counted"] == pytest.approx(row["parallel"] / row["chained"])
        for key in ("pools", "blocks", "rows_columns"):
            assert row[key] > 0
            assert result[f"{key}_{row['size']}"] == row[key]
        assert row["pools_low"] <= row["pools_high"]
    assert 0 < result["saved_share"] < 1 - result["conv_share"] < 1


def test_sharing_counts_convolutions_of_once_and_of_each() -> None:
    result = experiments.sharing(count=4, image_size=128, crop=32, repeats=1)
    assert result["counted"] == pytest.approx(4 * 32**2 / 128**2)
    assert result["multiply_adds_each"] / result["multiply_adds_once"] == pytest.approx(result["counted"])
    assert result["paper_ratio"] == pytest.approx(160, rel=0.03)  # "about 1/160", section 4.3
    assert result["time_ratio"] > 0


def test_pictures_hold_one_shape_in_its_quadrant() -> None:
    images, labels = experiments._shapes(200, 40, torch.Generator().manual_seed(0), canvas=60, noise=0.0)
    assert images.shape == (200, 1, 60, 60)
    assert set(labels.tolist()) == set(range(16))
    middles: list[bool] = []
    areas: dict[int, list[float]] = {kind: [] for kind in range(4)}
    for image, label in zip(images[:, 0].numpy(), labels.tolist(), strict=True):
        assert scipy.ndimage.label(image)[1] == 1
        row, column = scipy.ndimage.center_of_mass(image)
        middles.append((label % 4) == 2 * (row > 29.5) + (column > 29.5))
        areas[label // 4].append(image.sum())
    assert np.mean(middles) > 0.97  # a triangle's center of mass is not the center of its circle
    assert all(min(area) > 20 for area in areas.values())
    scaled, same = experiments._shapes(200, 80, torch.Generator().manual_seed(0), canvas=120, noise=0.0)
    assert torch.equal(labels, same)
    ratio = scaled.sum((1, 2, 3)) / images.sum((1, 2, 3))
    assert ratio.mean().item() == pytest.approx(4, rel=0.05)


def test_training_reports_what_its_arrays_hold() -> None:
    result = experiments.training(steps=6, seeds=(0, 1), channels=4, sizes=(16, 24, 32, 64), images=40)
    assert (
        result["net_names"] == [row["net"] for row in result["rows"]] == [p["net"] for p in result["parts"]]
    )
    assert result["curves"].shape == result["spreads"].shape == result["kind_curves"].shape == (6, 4)
    assert result["canvas_curves"].shape == (6, 2)
    for number, row in enumerate(result["rows"]):
        assert result["table"][number]["canvas_64"].startswith(f"{row['canvas_64']:.3f} ± ")
        for place, size in enumerate((16, 24, 32, 64)):
            assert row[f"scaled_{size}"] == result[f"{row['net']}_scaled_{size}"]
            assert row[f"scaled_{size}"] == result["curves"][number, place]
            assert row[f"scaled_{size}_spread"] == result["spreads"][number, place]
            # Right kind and right quadrant together cannot be more frequent than either.
            both = min(result["kind_curves"][number, place], result["place_curves"][number, place])
            assert 0 <= row[f"scaled_{size}"] <= both + 1e-9
    assert result["refused"] == 3
    assert "shapes cannot be multiplied" in result["refusal"]
    assert result["spp_max_parameters"] > result["global_max_parameters"] == result["global_avg_parameters"]
    for key in ("wins_trained", "wins_canvas", "resize_wins_16", "resize_wins_64", "multi_wins_24"):
        assert 0 <= result[key] <= 2
    assert result["samples_64"].shape == (4, 64, 64)


def test_the_same_seed_trains_the_same_net_whatever_the_global_state() -> None:
    first = experiments._fit("spp_max", 3, experiments._batches("spp_max", 3, 2), 4)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = experiments._fit("spp_max", 3, experiments._batches("spp_max", 3, 2), 4)
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_pyramid_learns_the_trained_size() -> None:
    model = experiments._fit("spp_max", 0, experiments._batches("spp_max", 0, 60), 8)
    pictures, labels = experiments._shapes(200, 32, torch.Generator().manual_seed(5))
    assert experiments._score(model, pictures, labels)["place"] > 0.8


def test_every_published_mistake_changes_the_number() -> None:
    result = experiments.published_mistakes()
    assert result["mistakes"] == len(result["rows"]) == 10
    for row in result["rows"]:
        assert abs(row["wrong"] - row["right"]) > 0.01
        assert result[f"{row['mistake']}_wrong"] == row["wrong"]
        assert result[f"{row['mistake']}_right"] == row["right"]
    assert (result["paper_180_wrong"], result["paper_180_right"]) == (95, 50)
    assert result["first_windows_wrong"] == pytest.approx((7 / 11) ** 2)
    assert result["average_chain_wrong"] == pytest.approx(1 / 25)
    assert result["average_chain_right"] == pytest.approx(1 / 81)
    assert result["zero_border_wrong"] == pytest.approx(-1 / 169)
    assert result["zero_border_share"] < 0.01 < result["zero_border_logits"]
    assert 0 < result["kernels_share"] < 1
    assert result["average_difference"] > 0.1
    assert result["list_message"] == "unsupported operand type(s) for //: 'list' and 'int'"
    assert result["tie_forward"] == 0 < result["tie_gradient"]
