"""The measurements of the upsampling page: recounted another way, repeatable, and plausible."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scripts.experiments import upsampling as experiments


def test_libraries_follow_the_rules_they_are_said_to() -> None:
    result = experiments.coordinates()
    rule = {row["function"]: row["rule"] for row in result["rows"]}
    assert rule == {
        "torch_bilinear": "squares",
        "torch_corners": "points",
        "torch_layer": "points",
        "skimage": "squares",
        "pillow": "squares",
        "scipy": "points",
        "scipy_grid": "squares",
        "onnx": "squares",
        "onnx_asymmetric": "before",
    }
    exact = {"squares": 5.5 / 2 - 0.5, "points": 5 * 7 / 15, "before": 2.5}
    for row in result["rows"]:
        assert row["position"] == pytest.approx(exact[row["rule"]], abs=1e-5)
    assert result["corner_gap_out"] == pytest.approx((2 - 1) / 2)
    assert result["squares"].tolist() == [(i + 0.5) / 2 - 0.5 for i in range(8)]
    assert result["points"] == pytest.approx(np.linspace(0, 3, 8))


def test_a_ramp_shows_what_each_method_reproduces() -> None:
    result = experiments.methods()
    assert result["bilinear_ramp_error"] < 1e-12
    assert result["fcn_ramp_error"] < 1e-6
    assert result["fcn_border_error"] > 1
    assert result["nearest_ramp_error"] == pytest.approx(3 / 8)  # the outermost of four pixels in a square
    assert result["bicubic_ramp_error"] > 0.01
    assert result["cubic_half_error"] < 1e-12
    for row in result["rows"]:
        assert row["psnr"] == result[f"{row['method']}_psnr"]
        overshoots = row["lowest"] < -0.01 and row["highest"] > 1.01
        assert overshoots is (row["method"] == "bicubic")
    mse = np.square(np.clip(result["image_corners"], 0, 1) - result["image_exact"]).mean()
    assert result["corners_psnr"] == pytest.approx(-10 * np.log10(mse))
    assert result["nearest_psnr"] < result["corners_psnr"] < result["bilinear_psnr"] < result["bicubic_psnr"]


def test_the_scattered_parts_add_up_to_the_layer_of_torch() -> None:
    result = experiments.scatter()
    x, kernel = (torch.from_numpy(result[key])[None, None] for key in ("image", "kernel"))
    for options, key in (
        ({}, "total"),
        ({"padding": 1}, "padded"),
        ({"padding": 1, "output_padding": 1}, "extended"),
    ):
        theirs = F.conv_transpose2d(x, kernel, stride=2, **options)[0, 0]
        assert np.array_equal(result[key], theirs.numpy())
    assert np.array_equal(result["parts"].sum(0), result["total"])
    assert (result["parts"] > 0).reshape(4, -1).sum(1).tolist() == [9] * 4
    assert (result["side"], result["padded_side"], result["extended_side"]) == (5, 3, 4)


def test_overlap_is_even_where_the_stride_divides_the_kernel_and_random_weights_never_are() -> None:
    result = experiments.checkerboard(kernels=16, layers=512)
    for row in result["rows"]:
        divides = row["kernel"] % row["stride"] == 0
        assert row["even"] is divides
        assert (row["ones"] < 1e-12) is divides
        assert (row["gradient"] < 0.1) is divides
        assert row["random"] > 0.5
        fewest, most = row["kernel"] // row["stride"], -(-row["kernel"] // row["stride"])
        assert (row["fewest"], row["most"]) == (fewest**2, most**2)


def test_two_orders_agree_in_a_quarter_of_the_cells() -> None:
    result = experiments.shuffle()
    numbers = torch.arange(8)[None, :, None, None].expand(1, 8, 2, 2)
    assert np.array_equal(result["crd"], nn.PixelShuffle(2)(numbers)[0].numpy())
    blocks = result["dcr"][:, :2, :2].reshape(2, 4).tolist()
    assert blocks == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert result["moved"] == (result["crd"] != result["dcr"]).mean() == 0.75


def test_unpooling_loses_all_but_the_maxima_and_misplaces_them_silently() -> None:
    result = experiments.unpooling()
    image, back = result["image"], result["unpooled"]
    assert set(back[back > 0]) == {4, 5, 7, 6}
    assert (back[back > 0] == image[back > 0]).all()
    assert result["kept"] == pytest.approx(back.sum() / image.sum())
    assert result["zeros"] == 0.75
    assert np.array_equal(result["odd_right"], result["odd_image"])
    assert sorted(result["odd_wrong"][result["odd_wrong"] > 0]) == [1, 2, 3, 4]
    assert result["odd_moved"] == 0.75


def test_rounding_is_found_where_single_precision_falls_short() -> None:
    result = experiments.rounding(largest=90)
    n, m, at = (result[f"first_{key}"] for key in ("in", "out", "at"))
    assert (n, m, at) == (2, 82, 41)
    assert np.floor(np.float32(at) * (np.float32(n) / np.float32(m))) == result["first_read"] == 0
    assert at * n // m == result["first_exact"] == 1
    assert result["pairs"] == 90 * 89 / 2
    assert result["share"] == result["wrong"] / result["pairs"]
    assert 0 < result["whole_wrong"] <= result["wrong"]


def test_every_published_mistake_but_the_blind_test_changes_the_result() -> None:
    result = experiments.published_mistakes()
    assert result["mistakes"] == len(result["rows"]) == 11
    for row in result["rows"]:
        assert row["error"] == result[f"{row['mistake']}_error"]
        assert (row["error"] > 0.05) is (row["mistake"] != "one_channel")
    assert (result["one_channel_error"], result["one_channel_share"]) == (0, 0)
    assert result["order_share"] == 0.75
    assert (result["op_size"], result["op_size_ring"]) == (16, 17)
    assert (result["size_short"], result["size_right"]) == (15, 18)
    layer = nn.ConvTranspose1d(1, 1, 3, 2, 1, 1, dilation=2)
    assert layer(torch.zeros(1, 1, 8)).shape[2] == result["size_right"]
    assert result["last_row"] > 1
    assert result["rank"] == 36 < result["unknowns"] == 144


SHORT: dict[str, Any] = {"steps": 25, "seeds": (0, 1), "size": 48, "channels": 6, "repeats": 3, "draws": 3}
TIMED = ("time", "time_low", "time_high")


@pytest.fixture(scope="module")
def short_training() -> dict[str, Any]:
    return experiments.training(**SHORT)


def test_training_summaries_follow_from_its_seeds(short_training: dict[str, Any]) -> None:
    for row in short_training["rows"]:
        runs = [run for run in short_training["seed_rows"] if run["decoder"] == row["decoder"]]
        assert [run["seed"] for run in runs] == [0, 1]
        for key in ("psnr", "gray_before", "gray_after", "peak_before", "peak_after"):
            values = [run[key] for run in runs]
            assert row[key] == short_training[f"{row['decoder']}_{key}"] == pytest.approx(np.mean(values))
            assert row[f"{key}_spread"] == pytest.approx(np.std(values, ddof=1))
        assert 0 < row["time_low"] <= row["time"] <= row["time_high"]
        curve = short_training[f"curve_{row['decoder']}"]
        assert curve.shape == (2, len(short_training["marks"]))
        assert curve[:, -1].mean() == pytest.approx(row["gray_after"])
    means = {row["decoder"]: row["psnr"] for row in short_training["rows"]}
    assert short_training["psnr_range"] == pytest.approx(max(means.values()) - min(means.values()))
    assert short_training["best"] == max(means, key=lambda name: means[name])
    assert short_training["worst"] == min(means, key=lambda name: means[name])


def test_only_resize_convolution_answers_flat_to_a_flat_image(short_training: dict[str, Any]) -> None:
    for row in short_training["rows"]:
        flat = row["decoder"].startswith("resize")
        assert (row["gray_after"] < 1e-3) is flat
        assert (row["gray_before"] < 1e-3) is (flat or row["decoder"] == "sub_pixel_icnr")
        assert (row["peak_before"] > 10) is (row["decoder"] in ("transposed_3", "transposed_4", "sub_pixel"))


def test_weights_and_multiply_adds_are_those_of_the_layers(short_training: dict[str, Any]) -> None:
    rows = {row["layer"]: row for row in short_training["choice_rows"]}
    channels = short_training["layer_channels"]
    for name, taps in (("transposed_2", 4), ("transposed_3", 9), ("transposed_4", 16), ("resize_nearest", 9)):
        assert rows[name]["weights"] == taps * channels**2 + channels
    for name in ("sub_pixel", "sub_pixel_icnr"):
        assert rows[name]["weights"] == 36 * channels**2 + 4 * channels
    for name in ("transposed_2", "transposed_3", "transposed_4"):
        kernel = int(name[-1])
        assert rows[name]["multiply_adds"] == kernel**2 * channels / 4  # four output pixels an input pixel
    for name in ("nearest", "bilinear", "bicubic", "unpool"):
        assert rows[name]["weights"] == 0
    even = {name for name, row in rows.items() if row["grid"] < 1e-5}
    assert even == {"nearest", "bilinear", "bicubic", "sub_pixel_icnr", "resize_nearest", "resize_bilinear"}
    assert rows["unpool"]["grid"] == pytest.approx(3**0.5 / 2)  # one pixel in four
    assert rows["unpool"]["psnr"] is None
    assert rows["bicubic"]["psnr"] == short_training["bicubic_psnr"]
    assert rows["sub_pixel"]["psnr"] == short_training["sub_pixel_psnr"]
    assert len({row["use"] for row in rows.values()}) == len(rows) == 11


def test_textures_have_the_stated_brightness_and_detail() -> None:
    images = experiments._textures(16, 48, torch.Generator().manual_seed(3))
    assert images.shape == (16, 1, 48, 48)
    assert images.mean((1, 2, 3)) == pytest.approx(np.full(16, 0.5), abs=1e-5)
    assert images.std((1, 2, 3)) == pytest.approx(np.full(16, 0.2), abs=1e-5)
    low = F.avg_pool2d(images, 4)
    bicubic = experiments._fixed(low, 48)["bicubic"]
    assert 20 < experiments._psnr(bicubic, images) < 40


def test_the_grid_measure_is_0_on_flat_1_on_alternating_and_known_in_between() -> None:
    flat = torch.ones(1, 2, 24, 24)
    assert experiments._grid(flat, 2) == 0
    signs = 1 - 2.0 * ((torch.arange(24)[:, None] + torch.arange(24)) % 2)
    assert experiments._grid(signs.expand(1, 1, 24, 24), 2) == pytest.approx(1)
    assert experiments._grid(1 + 0.5 * signs.expand(1, 1, 24, 24), 2) == pytest.approx(0.5 / 1.25**0.5)


def test_training_is_the_same_on_two_runs_but_for_time(short_training: dict[str, Any]) -> None:
    again = experiments.training(**SHORT)
    for key in ("rows", "seed_rows", "choice_rows", "baselines"):
        for ours, theirs in zip(short_training[key], again[key], strict=True):
            assert {k: v for k, v in ours.items() if k not in TIMED} == {
                k: v for k, v in theirs.items() if k not in TIMED
            }
    assert np.array_equal(short_training["image_sub_pixel"], again["image_sub_pixel"])


@pytest.mark.parametrize("name", ["coordinates", "methods", "published_mistakes"])
def test_exact_experiments_are_the_same_on_two_runs(name: str) -> None:
    run = getattr(experiments, name)
    assert run()["rows"] == run()["rows"]
