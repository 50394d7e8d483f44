"""The measurements of the segmentation metrics page: recounted another way, repeatable, and plausible."""

import numpy as np
import pytest
import sklearn.metrics

from scripts.experiments import segmentation_metrics as experiments


def test_the_worked_example_is_that_of_sklearn() -> None:
    result = experiments.worked_example()
    truth, guess = result["truth"].flatten(), result["prediction"].flatten()
    matrix = sklearn.metrics.confusion_matrix(truth, guess)
    assert (result["matrix"] == matrix).all()
    assert (result["pixels"], result["right"]) == (48, int((truth == guess).sum()))
    assert result["pixel_accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(truth, guess))
    assert result["mean_pixel_accuracy"] == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(truth, guess)
    )
    for key, average in (("mean_iou", "macro"), ("frequency_weighted_iou", "weighted")):
        assert result[key] == pytest.approx(sklearn.metrics.jaccard_score(truth, guess, average=average))
    iou = sklearn.metrics.jaccard_score(truth, guess, average=None)
    for row in result["rows"]:
        c = row["class_index"]
        assert row["iou"] == result[f"iou_{c}"] == pytest.approx(iou[c])
        assert row["true_pixels"] == result[f"truth_{c}"] == (truth == c).sum()
        assert row["predicted_pixels"] == result[f"predicted_{c}"] == (guess == c).sum()
        assert row["right"] == result[f"n_{c}{c}"]


def test_an_empty_prediction_scores_as_its_closed_form_says() -> None:
    result = experiments.predictors(images=1, size=128)
    for row in result["background_rows"]:
        share = round(row["share"] * 128**2) / 128**2
        assert row["pixel_accuracy"] == pytest.approx(1 - share)
        assert row["mean_pixel_accuracy"] == 0.5
        assert row["mean_iou"] == pytest.approx((1 - share) / 2)
        assert row["frequency_weighted_iou"] == pytest.approx((1 - share) ** 2)
        assert row["foreground_iou"] == 0.0
    assert len(result["rows"]) == 4 * len(result["shares"])
    assert {row["share"] for row in result["smallest_rows"]} == {0.001}
    assert result["noisy_smallest_mean_iou"] < 0.7 < 0.95 < result["noisy_largest_mean_iou"]
    assert result["noisy_mean_iou"].shape == result["shares"].shape


def test_a_wider_mask_misses_nothing_and_a_narrower_one_invents_nothing() -> None:
    result = experiments.predictors(images=2, size=128)
    for row in result["rows"]:
        if row["predictor"] == "dilated":  # all of the foreground is found: MPA is above PA
            assert row["mean_pixel_accuracy"] >= row["pixel_accuracy"]
        if row["predictor"] == "eroded":
            assert row["mean_pixel_accuracy"] <= row["pixel_accuracy"]
        assert row["foreground_dice"] == pytest.approx(
            2 * row["foreground_iou"] / (1 + row["foreground_iou"])
        )


def test_three_numbers_called_miou_differ_and_libraries_give_each() -> None:
    result = experiments.three_means()
    value = {row["library"]: (row["meaning"], row["value"]) for row in result["rows"]}
    for meaning, reported in value.values():
        assert reported == pytest.approx(result[meaning], abs=1e-6)
    assert {meaning for meaning, _ in value.values()} == {
        "nan_mean",
        "zero_filled",
        "one_filled",
        "per_image",
    }
    assert result["zero_filled"] == pytest.approx(result["nan_mean"] * 4 / 5)
    assert result["one_filled"] == pytest.approx(result["zero_filled"] + 1 / 5)
    assert len({round(result[key], 3) for key in ("nan_mean", "zero_filled", "per_image")}) == 3
    assert result["spread"] > 0.05
    assert result["torchmetrics_absent"] == -1


def test_a_shift_costs_small_objects_more_and_the_count_is_the_closed_form() -> None:
    result = experiments.shift()
    assert result["largest_error"] < 1e-12
    assert result["distance"] == 7
    for step in range(1, 6):
        by_side = [result[f"iou_{side}_{step}"] for side in (8, 16, 32, 128)]
        assert by_side == sorted(by_side)
        assert result[f"boundary_128_{step}"] < result[f"iou_128_{step}"]
        assert result[f"boundary_8_{step}"] == result[f"iou_8_{step}"]  # the band is all of the object
    assert result["side_for_half"] == 15


def test_means_over_batches_approach_the_data_set_and_the_last_is_it() -> None:
    result = experiments.averaging(images=16, size=64, shuffles=3)
    rows = result["rows"]
    assert [row["batch_size"] for row in rows] == [1, 2, 4, 8, 16]
    assert rows[-1]["in_order"] == pytest.approx(result["dataset"], abs=1e-15)
    assert rows[0]["lowest"] == pytest.approx(rows[0]["highest"])
    assert rows[0]["in_order"] == result["per_image"] == pytest.approx(result["image_mean_iou"].mean())
    assert result["largest_gap"] == pytest.approx(abs(result["per_image"] - result["dataset"]))
    assert result["images_without_small"] == 6
    assert result["small_per_image"] == pytest.approx(np.nanmean(result["image_small_iou"]))


def test_every_published_mistake_changes_the_number() -> None:
    result = experiments.published_mistakes()
    assert result["mistakes"] == len(result["rows"]) == 9
    for row in result["rows"]:
        assert abs(row["gap"]) > 0.01
        assert row["gap"] == pytest.approx(row["wrong"] - row["right"])
        assert result[f"{row['mistake']}_gap"] == row["gap"]
    assert result["clamped_union_wrong"] == pytest.approx(result["clamped_union_right"] * 3 / 4)
    assert result["float32_counted"] == 2**24
    assert result["moved_pixels"] > 0


def test_the_same_call_gives_the_same_numbers() -> None:
    first, second = (experiments.averaging(images=4, size=48, shuffles=2) for _ in range(2))
    assert first["rows"] == second["rows"]
    once, again = (experiments.predictors(images=1, size=64) for _ in range(2))
    assert once["rows"] == again["rows"]
