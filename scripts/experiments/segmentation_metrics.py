"""Measurements for segmentation metrics: what each number says of the same masks, and what common mistakes do."""

from __future__ import annotations

from math import log
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.pipeline.experiment import experiment
from snippets.segmentation_metrics import (
    boundary_iou,
    class_accuracy,
    confusion_matrix,
    dice_per_class,
    frequency_weighted_iou,
    iou_per_class,
    mean_iou,
    mean_pixel_accuracy,
    pixel_accuracy,
    precision_per_class,
    shifted_square_iou,
)


def _scores(cm: Tensor) -> dict[str, float]:
    return {
        "pixel_accuracy": float(pixel_accuracy(cm)),
        "mean_pixel_accuracy": float(mean_pixel_accuracy(cm)),
        "mean_iou": float(mean_iou(cm)),
        "frequency_weighted_iou": float(frequency_weighted_iou(cm)),
    }


def _blobs(share: float, size: int, generator: torch.Generator) -> Tensor:
    """A mask (size, size) of smooth blobs that holds just this share of the pixels."""
    field = torch.randn(1, 1, size, size, generator=generator, dtype=torch.float64)
    for _ in range(3):  # three box filters are nearly a Gaussian
        for window in ((1, 21), (21, 1)):
            around = (window[1] // 2,) * 2 + (window[0] // 2,) * 2
            field = F.avg_pool2d(F.pad(field, around, mode="circular"), window, stride=1)
    mask = torch.zeros(size * size, dtype=torch.bool)
    mask[field.flatten().topk(round(share * size * size)).indices] = True
    return mask.reshape(size, size)


def _dilate(mask: Tensor) -> Tensor:
    return F.max_pool2d(mask[None].float(), 3, stride=1, padding=1)[0] > 0


def _predictions(mask: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    return {
        "background": torch.zeros_like(mask),
        "dilated": _dilate(mask),
        "eroded": ~_dilate(~mask),
        "noisy": mask ^ (torch.rand(mask.shape, generator=generator) < 0.01),
    }


@experiment
def worked_example() -> dict[str, Any]:
    """One small image of three classes, counted by hand on the page.

    truth, prediction, matrix (arrays): class indices (6, 8), twice, and the counts (3, 3).
    pixels, right: how many pixels there are, and how many are right.
    n_00 ... n_22: the counts (row = truth). truth_0 ...: row sums; predicted_0 ...: column sums.
    pixel_accuracy, mean_pixel_accuracy, mean_iou, frequency_weighted_iou.
    accuracy_0 ..., precision_0 ..., iou_0 ..., dice_0 ...: of each class.
    rows: class_index, true_pixels, predicted_pixels, right, accuracy, precision, iou, dice.
    """
    truth, prediction = torch.zeros(6, 8, dtype=torch.int64), torch.zeros(6, 8, dtype=torch.int64)
    truth[1:5, 1:4], truth[4:6, 5:7] = 1, 2
    prediction[1:5, 2:6], prediction[3:5, 5:7] = 1, 2
    cm = confusion_matrix(truth, prediction, 3)
    columns = {
        "true_pixels": cm.sum(1),
        "predicted_pixels": cm.sum(0),
        "right": cm.diagonal(),
        "accuracy": class_accuracy(cm),
        "precision": precision_per_class(cm),
        "iou": iou_per_class(cm),
        "dice": dice_per_class(cm),
    }
    result: dict[str, Any] = {
        "truth": truth.numpy(),
        "prediction": prediction.numpy(),
        "matrix": cm.numpy(),
        "pixels": int(cm.sum()),
        "right": int(cm.diagonal().sum()),
        **_scores(cm),
        "rows": [
            {"class_index": c, **{name: values[c].item() for name, values in columns.items()}}
            for c in range(3)
        ],
    }
    for i in range(3):
        for j in range(3):
            result[f"n_{i}{j}"] = int(cm[i, j])
        result[f"truth_{i}"] = int(cm[i].sum())
        result[f"predicted_{i}"] = int(cm[:, i].sum())
        for name in ("accuracy", "precision", "iou", "dice"):
            result[f"{name}_{i}"] = float(columns[name][i])
    return result


def _predictor_scores(share: float, images: int, size: int, seed: int) -> dict[str, dict[str, float]]:
    """Scores of each predictor, of one matrix over `images` scenes drawn with this seed."""
    generator = torch.Generator().manual_seed(seed)
    counts: dict[str, Tensor] = {}
    for _ in range(images):
        mask = _blobs(share, size, generator)
        for name, guess in _predictions(mask, generator).items():
            cm = confusion_matrix(mask, guess, 2)
            counts[name] = counts[name] + cm if name in counts else cm
    return {
        name: {
            **_scores(cm),
            "foreground_iou": float(iou_per_class(cm)[1]),
            "foreground_dice": float(dice_per_class(cm)[1]),
        }
        for name, cm in counts.items()
    }


@experiment
def predictors(images: int = 8, size: int = 256, seeds: int = 5) -> dict[str, Any]:
    """Four masks that are wrong in known ways, scored where 0.1 % to 50 % of the pixels are foreground.

    Predictors: background (nothing is foreground), dilated and eroded (the truth, one pixel wider or
    narrower on all sides), noisy (every pixel wrong with probability 1 %). One matrix over `images`
    scenes of size x size for each share of foreground and each seed; scores are means over the seeds.
    rows: share, predictor, pixel_accuracy, mean_pixel_accuracy, mean_iou, frequency_weighted_iou,
    foreground_iou, foreground_dice. background_rows, smallest_rows, largest_rows: those of the
    background predictor; of the smallest and of the largest share.
    <predictor>_smallest_<metric>, <predictor>_largest_<metric>: single values.
    shares (array), <predictor>_<metric> (arrays over the shares).
    largest_range: largest range over the seeds (highest less lowest) of any score of smallest_rows.
    images, size, seeds, noise; smallest_pixels: foreground pixels in one image at the smallest share.
    """
    shares = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.5]
    rows: list[dict[str, Any]] = []
    largest_range = 0.0
    for share in shares:
        found: dict[str, list[dict[str, float]]] = {}
        for seed in range(seeds):
            for name, scores in _predictor_scores(share, images, size, seed).items():
                found.setdefault(name, []).append(scores)
        for name, runs in found.items():
            over_seeds = {metric: [run[metric] for run in runs] for metric in runs[0]}
            means = {metric: fmean(values) for metric, values in over_seeds.items()}
            rows.append({"share": share, "predictor": name, **means})
            if share == shares[0]:
                ranges = [max(values) - min(values) for values in over_seeds.values()]
                largest_range = max(largest_range, *ranges)
    result: dict[str, Any] = {
        "rows": rows,
        "background_rows": [row for row in rows if row["predictor"] == "background"],
        "smallest_rows": [row for row in rows if row["share"] == shares[0]],
        "largest_rows": [row for row in rows if row["share"] == shares[-1]],
        "shares": np.array(shares),
        "largest_range": largest_range,
        "images": images,
        "size": size,
        "seeds": seeds,
        "noise": 0.01,
        "smallest_pixels": round(shares[0] * size * size),
    }
    for name in ("background", "dilated", "eroded", "noisy"):
        own_rows = [row for row in rows if row["predictor"] == name]
        for metric in list(own_rows[0])[2:]:
            result[f"{name}_{metric}"] = np.array([row[metric] for row in own_rows])
            result[f"{name}_smallest_{metric}"] = own_rows[0][metric]
            result[f"{name}_largest_{metric}"] = own_rows[-1][metric]
    return result


def _absent_class_sample() -> tuple[Tensor, Tensor]:
    """Four images (4, 24, 24) of five classes, of which class 4 occurs nowhere."""
    generator = torch.Generator().manual_seed(1)
    truth = torch.zeros(4, 24, 24, dtype=torch.int64)
    for image in range(4):
        for label in (1, 2, 3):
            top, left = torch.randint(0, 14, (2,), generator=generator).tolist()
            truth[image, top : top + 10, left : left + 4 + 2 * label] = label
    wrong = torch.rand(truth.shape, generator=generator) < 0.3
    guess = torch.randint(0, 4, truth.shape, generator=generator)
    return truth, torch.where(wrong, guess, truth.roll((1, 1), dims=(1, 2)))


@experiment
def three_means() -> dict[str, Any]:
    """One sample, one prediction, a class that occurs in neither: three numbers all called mIoU.

    nan_mean: absent class left out. zero_filled: counted as 0. one_filled: counted as 1.
    per_image: a NaN-mean for each image, then their mean. images, classes.
    spread: largest less smallest of the three first named (nan_mean, zero_filled, per_image).
    rows: meaning (nan_mean | zero_filled | one_filled | per_image), library, value. What each
    library returned, called as it says: sklearn_default, sklearn_all_labels (zero_division=0),
    sklearn_zero_division_1, torchmetrics_jaccard, torchmetrics_segmentation (single values too); snippet: mean_iou of this page.
    torchmetrics_absent: what torchmetrics' segmentation mean_iou prints for the absent class.
    """
    from sklearn.metrics import jaccard_score
    from torchmetrics.functional.classification import multiclass_jaccard_index
    from torchmetrics.functional.segmentation import mean_iou as segmentation_mean_iou

    truth, guess = _absent_class_sample()
    iou = iou_per_class(confusion_matrix(truth, guess, 5))
    per_image = [float(mean_iou(confusion_matrix(t, g, 5))) for t, g in zip(truth, guess, strict=True)]
    flat = truth.flatten().numpy(), guess.flatten().numpy()
    options: dict[str, Any] = {"num_classes": 5, "input_format": "index"}
    rows = [
        ("nan_mean", "snippet", float(iou.nanmean())),
        ("nan_mean", "sklearn_default", float(jaccard_score(*flat, average="macro"))),
        (
            "nan_mean",
            "torchmetrics_jaccard",
            float(multiclass_jaccard_index(guess, truth, 5, average="macro")),
        ),
        (
            "zero_filled",
            "sklearn_all_labels",
            float(jaccard_score(*flat, average="macro", labels=range(5), zero_division=0)),
        ),
        (
            "one_filled",
            "sklearn_zero_division_1",
            float(jaccard_score(*flat, average="macro", labels=range(5), zero_division=1)),
        ),
        (
            "per_image",
            "torchmetrics_segmentation",
            float(segmentation_mean_iou(guess, truth, **options).mean()),
        ),
    ]
    by_class = segmentation_mean_iou(guess, truth, per_class=True, **options)
    three = [float(iou.nanmean()), float(iou.nan_to_num(0).mean()), fmean(per_image)]
    return {
        "nan_mean": three[0],
        "zero_filled": three[1],
        "one_filled": float(iou.nan_to_num(1).mean()),
        "per_image": three[2],
        "spread": max(three) - min(three),
        "images": 4,
        "classes": 5,
        "rows": [{"meaning": m, "library": library, "value": value} for m, library, value in rows],
        **{library: value for _, library, value in rows if library != "snippet"},
        "torchmetrics_absent": float(by_class[0, 4]),
    }


@experiment
def shift(size: int = 256) -> dict[str, Any]:
    """IoU and boundary IoU of squares predicted 1 to 5 pixels too far to the right.

    rows: side, shift, iou, closed_form ((s - d) / (s + d)), boundary_iou, dice, pixel_accuracy.
    distance: width of the boundary's band, 2 % of the diagonal. size.
    iou_<side>_<shift>, boundary_<side>_<shift>: single values, sides 8, 16, 32, 128.
    iou_side_<side>, boundary_side_<side> (arrays over the shifts 1 to 5).
    largest_error: largest difference between counted and closed form.
    side_for_half: side of the square whose IoU a shift of 5 pixels halves.
    """
    distance = round(0.02 * size * 2**0.5)
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {"rows": rows, "distance": distance, "size": size}
    for side in (8, 16, 32, 128):
        top = (size - side) // 2
        for step in range(1, 6):
            truth = torch.zeros(size, size, dtype=torch.bool)
            truth[top : top + side, top : top + side] = True
            guess = truth.roll(step, dims=1)
            cm = confusion_matrix(truth, guess, 2)
            row = {
                "side": side,
                "shift": step,
                "iou": float(iou_per_class(cm)[1]),
                "closed_form": shifted_square_iou(side, 0, step),
                "boundary_iou": float(boundary_iou(truth, guess, distance)),
                "dice": float(dice_per_class(cm)[1]),
                "pixel_accuracy": float(pixel_accuracy(cm)),
            }
            rows.append(row)
            result[f"iou_{side}_{step}"] = row["iou"]
            result[f"boundary_{side}_{step}"] = row["boundary_iou"]
        own = [row for row in rows if row["side"] == side]
        result[f"iou_side_{side}"] = np.array([row["iou"] for row in own])
        result[f"boundary_side_{side}"] = np.array([row["boundary_iou"] for row in own])
    result["largest_error"] = max(abs(row["iou"] - row["closed_form"]) for row in rows)
    result["side_for_half"] = next(side for side in range(1, 99) if shifted_square_iou(side, 5) >= 0.5)
    return result


def _data_set(images: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Scenes of background, a large class 1 and a small class 2 that a third of them lack."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.zeros(images, size, size, dtype=torch.int64)
    for image in range(images):
        large, small = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        truth[image][_blobs(0.05 + 0.35 * large, size, generator)] = 1
        if image % 3:
            share = float(np.exp(log(0.0005) + small * log(0.05 / 0.0005)))
            truth[image][_blobs(share, size, generator)] = 2
    guess = truth.roll((2, 2), dims=(1, 2))
    guess[torch.rand(guess.shape, generator=generator) < 0.0005] = 2  # a few false alarms
    return truth, guess


def _matrices(images: int, size: int, seed: int) -> Tensor:
    """One matrix for each image of a data set: (images, 3, 3)."""
    pairs = zip(*_data_set(images, size, seed), strict=True)
    return torch.stack([confusion_matrix(truth, guess, 3) for truth, guess in pairs])


@experiment
def averaging(images: int = 64, size: int = 96, shuffles: int = 20, seeds: int = 5) -> dict[str, Any]:
    """The mIoU of a data set, and means of the mIoUs of its images or batches, of the same predictions.

    dataset: one matrix over all images. per_image: mean of the images' mIoUs.
    rows: batch_size, batches, in_order (mean over batches, images in order), lowest, highest (over
    `shuffles` shuffled orders), gap (in_order less dataset).
    batch_<n>, lowest_<n>, highest_<n>: the same as single values, n = 1, 2, 4, ... images.
    largest_gap: the largest |gap|. images, size, shuffles.
    lowest_excess, highest_excess: of data set over per-image mean, over `seeds` data sets drawn anew.
    images_without_small: images that lack class 2; images_with_false_alarm: those of them where it was
    predicted (IoU 0). small_iou: IoU of class 2 over the data set;
    small_per_image: mean over images of its IoU (absent and not predicted left out).
    image_mean_iou, image_small_iou, image_small_share (arrays over the images): mIoU, IoU of class 2
    (NaN where 0 / 0), share of the pixels that are truly of class 2.
    """
    cms = _matrices(images, size, seed=2)

    def mean_over_batches(order: Tensor, batch: int) -> float:
        return fmean(float(mean_iou(part.sum(0))) for part in cms[order].split(batch))

    dataset = float(mean_iou(cms.sum(0)))
    generator = torch.Generator().manual_seed(3)
    orders = [torch.randperm(images, generator=generator) for _ in range(shuffles)]
    rows: list[dict[str, Any]] = []
    sizes = [2**n for n in range(images.bit_length()) if 2**n <= images]
    result: dict[str, Any] = {"dataset": dataset, "rows": rows}
    for batch in sizes:
        in_order = mean_over_batches(torch.arange(images), batch)
        shuffled = [mean_over_batches(order, batch) for order in orders]
        row = {
            "batch_size": batch,
            "batches": -(-images // batch),
            "in_order": in_order,
            "lowest": min(shuffled),
            "highest": max(shuffled),
            "gap": in_order - dataset,
        }
        rows.append(row)
        result[f"batch_{batch}"] = in_order
        result[f"lowest_{batch}"], result[f"highest_{batch}"] = row["lowest"], row["highest"]
    others = [_matrices(images, size, seed=10 + n) for n in range(seeds)]
    excess = [float(mean_iou(other.sum(0))) - fmean(float(mean_iou(cm)) for cm in other) for other in others]
    small = torch.stack([iou_per_class(cm)[2] for cm in cms])
    shares = cms[:, 2].sum(1) / cms.sum((1, 2))
    return result | {
        "per_image": rows[0]["in_order"],
        "largest_gap": max(abs(row["gap"]) for row in rows),
        "images": images,
        "size": size,
        "shuffles": shuffles,
        "seeds": seeds,
        "lowest_excess": min(excess),
        "highest_excess": max(excess),
        "images_without_small": int((shares == 0).sum()),
        "images_with_false_alarm": int(((shares == 0) & ~small.isnan()).sum()),
        "small_iou": float(iou_per_class(cms.sum(0))[2]),
        "small_per_image": float(small.nanmean()),
        "image_mean_iou": np.array([float(mean_iou(cm)) for cm in cms]),
        "image_small_iou": small.numpy(),
        "image_small_share": shares.numpy(),
    }


def _sample() -> tuple[Tensor, Tensor]:
    """Eight scenes (8, 64, 64) of four classes, class 3 absent, and an imperfect prediction."""
    generator = torch.Generator().manual_seed(4)
    truth = torch.zeros(8, 64, 64, dtype=torch.int64)
    for image in range(8):
        truth[image][_blobs(0.2, 64, generator)] = 1
        truth[image][_blobs((0.002, 0.02, 0.08)[image % 3], 64, generator)] = 2
    guess = truth.roll((2, 1), dims=(1, 2))
    noise = torch.rand(truth.shape, generator=generator) < 0.05
    return truth, torch.where(noise, torch.randint(0, 3, truth.shape, generator=generator), guess)


def _unchecked(truth: Tensor, guess: Tensor, classes: int) -> Tensor:
    """Counting without a check of the prediction's range: index C falls into the next row's first cell."""
    cell = (truth * classes + guess).flatten()
    return torch.bincount(cell, minlength=classes**2)[: classes**2].reshape(classes, classes)


@experiment
def published_mistakes() -> dict[str, Any]:
    """Widely copied mistakes, each against the right value on one sample.

    Eight scenes of four classes, of which class 3 occurs neither in truth nor in prediction.
    rows: mistake, metric, wrong, right, gap (wrong less right). mistakes: how many.
    <mistake>_wrong, <mistake>_right, <mistake>_gap: single values. The mistakes:
    columns_for_rows (MPA divided by what was predicted: macro precision), clamped_union (the union
    of an absent class clamped to 1, so that it counts as 0), unweighted (FWIoU without its
    weights: mIoU), background_left_out (mIoU summed from class 1), true_negative_twice (accuracy
    of class 1 with TN where FN belongs), batch_mean (mIoU as a mean of per-batch values, two images
    each), unchecked_range (mIoU; the model has one class more than the matrix, and its index lands
    in another cell; right: those pixels are simply wrong), float32_counts (pixels counted one by
    one in float32: pixels in millions), ignored_as_background (mIoU; ignored pixels
    relabelled 0).
    moved_pixels: pixels that unchecked_range put into another class's row.
    float32_true, float32_counted: the counts behind float32_counts, in pixels.
    """
    truth, guess = _sample()
    cm = confusion_matrix(truth, guess, 4)
    iou = iou_per_class(cm)
    clamped = cm.diagonal() / (cm.sum(0) + cm.sum(1) - cm.diagonal()).clamp(min=1)
    tp = int(cm[1, 1])
    fp, fn = int(cm[:, 1].sum()) - tp, int(cm[1].sum()) - tp
    tn = int(cm.sum()) - tp - fp - fn
    batches = [
        float(mean_iou(confusion_matrix(t, g, 4)))
        for t, g in zip(truth.split(2), guess.split(2), strict=True)
    ]

    corner = torch.zeros_like(truth, dtype=torch.bool)
    corner[:, :16, :16] = True  # the model's fourth class, index 3, where three are counted
    extra = torch.where(corner & (truth < 2), 3, guess)
    checked = confusion_matrix(truth, extra, 4)[:3]  # its column is kept: wrong pixels of their row
    union = checked.sum(1) + checked[:, :3].sum(0) - checked.diagonal()
    unchecked = _unchecked(truth, extra, 3)

    ignored = torch.where(corner, 255, truth)
    relabelled = torch.where(corner, 0, truth)

    start, added = 2**24, 2_000_000
    counter = np.cumsum(np.ones(start + added, dtype=np.float32))[-1]  # one pixel after the other
    found: list[tuple[str, str, Any, Any]] = [
        (
            "columns_for_rows",
            "mean_pixel_accuracy",
            precision_per_class(cm).nanmean(),
            mean_pixel_accuracy(cm),
        ),
        ("clamped_union", "mean_iou", clamped.mean(), iou.nanmean()),
        ("unweighted", "frequency_weighted_iou", iou.nanmean(), frequency_weighted_iou(cm)),
        ("background_left_out", "mean_iou", iou[1:].nanmean(), iou.nanmean()),
        ("true_negative_twice", "pixel_accuracy", (tp + tn) / (tp + tn + fp + tn), (tp + tn) / int(cm.sum())),
        ("batch_mean", "mean_iou", fmean(batches), iou.nanmean()),
        ("unchecked_range", "mean_iou", mean_iou(unchecked), (checked.diagonal() / union).mean()),
        ("float32_counts", "pixels_in_millions", float(counter) / 1e6, (start + added) / 1e6),
        (
            "ignored_as_background",
            "mean_iou",
            mean_iou(confusion_matrix(relabelled, guess, 4)),
            mean_iou(confusion_matrix(ignored, guess, 4, ignore_index=255)),
        ),
    ]
    result: dict[str, Any] = {"rows": [], "mistakes": len(found)}
    for mistake, metric, wrong, right in found:
        values = {"wrong": float(wrong), "right": float(right), "gap": float(wrong) - float(right)}
        result["rows"].append({"mistake": mistake, "metric": metric, **values})
        result |= {f"{mistake}_{key}": value for key, value in values.items()}
    return result | {
        "moved_pixels": int((extra == 3).sum()),
        "float32_true": start + added,
        "float32_counted": int(counter),
    }
