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
    result = experiments.predictors(images=1, size=128, seeds=2)
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


def test_scores_are_means_over_seeds_and_their_range_is_the_largest() -> None:
    both = experiments.predictors(images=1, size=64, seeds=2)
    apart = [experiments._predictor_scores(0.001, images=1, size=64, seed=seed) for seed in range(2)]
    for row in both["smallest_rows"]:
        one, other = (scores[row["predictor"]] for scores in apart)
        assert {metric: row[metric] for metric in one} == {
            metric: pytest.approx((one[metric] + other[metric]) / 2) for metric in one
        }
        assert both["largest_range"] >= max(abs(one[metric] - other[metric]) for metric in one)
    assert both["largest_range"] > 0
    assert experiments.predictors(images=1, size=64, seeds=1)["largest_range"] == 0


def test_a_wider_mask_misses_nothing_and_a_narrower_one_invents_nothing() -> None:
    result = experiments.predictors(images=2, size=128, seeds=1)
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
    result = experiments.averaging(images=16, size=64, shuffles=3, seeds=2)
    rows = result["rows"]
    assert [row["batch_size"] for row in rows] == [1, 2, 4, 8, 16]
    assert rows[-1]["in_order"] == pytest.approx(result["dataset"], abs=1e-15)
    assert rows[0]["lowest"] == pytest.approx(rows[0]["highest"])
    assert rows[0]["in_order"] == result["per_image"] == pytest.approx(result["image_mean_iou"].mean())
    assert result["largest_gap"] == pytest.approx(abs(result["per_image"] - result["dataset"]))
    assert result["images_without_small"] == 6
    assert 0 < result["lowest_excess"] < result["highest_excess"]
    assert result["small_per_image"] == pytest.approx(np.nanmean(result["image_small_iou"]))


def _corner(pixels: int) -> np.ndarray:
    """The pixels of the eight images of 64 x 64 that are ignored."""
    corner = np.zeros((8, 64, 64), dtype=bool)
    corner[:, :16, :16] = True
    assert corner.size == pixels
    return corner.flatten()


def test_every_published_mistake_changes_the_number() -> None:
    result = experiments.published_mistakes()
    assert result["mistakes"] == len(result["rows"]) == 9
    for row in result["rows"]:
        assert abs(row["gap"]) > 0.01
        assert row["gap"] == pytest.approx(row["wrong"] - row["right"])
        assert result[f"{row['mistake']}_gap"] == row["gap"]
    truth, guess = (labels.flatten().numpy() for labels in experiments._sample())
    recomputed = {
        "columns_for_rows_wrong": sklearn.metrics.precision_score(truth, guess, average="macro"),
        "columns_for_rows_right": sklearn.metrics.recall_score(truth, guess, average="macro"),
        "unweighted_wrong": sklearn.metrics.jaccard_score(truth, guess, average="macro"),
        "unweighted_right": sklearn.metrics.jaccard_score(truth, guess, average="weighted"),
        "background_left_out_wrong": sklearn.metrics.jaccard_score(
            truth, guess, average="macro", labels=[1, 2]
        ),
        "true_negative_twice_right": sklearn.metrics.accuracy_score(truth == 1, guess == 1),
        "batch_mean_wrong": np.mean(
            [
                sklearn.metrics.jaccard_score(one, other, average="macro")
                for one, other in zip(truth.reshape(4, -1), guess.reshape(4, -1), strict=True)
            ]
        ),
        "ignored_as_background_right": sklearn.metrics.jaccard_score(
            truth[kept := ~_corner(truth.size)], guess[kept], average="macro"
        ),
        "ignored_as_background_wrong": sklearn.metrics.jaccard_score(
            np.where(kept, truth, 0), guess, average="macro"
        ),
    }
    for key, value in recomputed.items():
        assert result[key] == pytest.approx(value), key
    (tn, fp), (_, tp) = sklearn.metrics.confusion_matrix(truth == 1, guess == 1)
    assert result["true_negative_twice_wrong"] == pytest.approx((tp + tn) / (tp + tn + fp + tn))
    assert result["clamped_union_wrong"] == pytest.approx(result["clamped_union_right"] * 3 / 4)
    assert result["float32_counted"] == 2**24
    assert result["moved_pixels"] > 0


def test_the_same_call_gives_the_same_numbers() -> None:
    first, second = (experiments.averaging(images=4, size=48, shuffles=2, seeds=1) for _ in range(2))
    assert first["rows"] == second["rows"]
    once, again = (experiments.predictors(images=1, size=64, seeds=1) for _ in range(2))
    assert once["rows"] == again["rows"]
