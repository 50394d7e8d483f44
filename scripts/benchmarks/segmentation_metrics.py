"""Races of the segmentation metrics, on label maps as they come from street scenes."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
import sklearn.metrics
import sklearn.preprocessing
import torch
import torchmetrics.functional.classification as torchmetrics
from numpy.typing import NDArray
from torch import Tensor

from scripts.pipeline.benchmark import Start, race
from snippets import segmentation_metrics as ours

CLASSES = 19
PIXELS = {"zh": "标签图 高 × 宽，19 类", "en": "label maps, H × W, 19 classes"}
TABLE = {"zh": "C × C 的混淆矩阵", "en": "confusion matrix, C × C"}
MAPS = ((128, 256), (256, 512), (512, 1024))
TABLES = ((19, 19), (171, 171), (1000, 1000))
LOOP = {"zh": "逐像素循环", "en": "a loop over pixels"}

_READ = "reads a finished matrix; raced as a part of SegmentationMeter"
UNRACED = {
    "pixel_accuracy": _READ,
    "class_accuracy": _READ,
    "mean_pixel_accuracy": _READ,
    "precision_per_class": _READ,
    "iou_per_class": _READ,
    "mean_iou": _READ,
    "frequency_weighted_iou": _READ,
    "dice_per_class": _READ,
    "soft_dice_loss": "no library here has it with an ignored class",
    "iou_from_dice": "one division of two numbers",
    "shifted_square_iou": "a few operations on three numbers",
}


def _maps(height: int, width: int) -> tuple[Tensor, Tensor]:
    """A truth of large regions, and a prediction that is wrong in a tenth of the pixels."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(CLASSES, (height // 32, width // 32), generator=generator)
    truth = coarse.repeat_interleave(32, 0).repeat_interleave(32, 1)
    wrong = torch.rand(height, width, generator=generator) < 0.1
    return truth, torch.where(wrong, torch.randint(CLASSES, truth.shape, generator=generator), truth)


def _counted(classes: int) -> Tensor:
    return torch.randint(1, 10_000, (classes, classes), generator=torch.Generator().manual_seed(0))


def _loop(truth: Tensor, guess: Tensor) -> NDArray[np.int64]:
    counts = np.zeros((CLASSES, CLASSES), dtype=np.int64)
    for row in range(truth.shape[0]):
        for column in range(truth.shape[1]):
            counts[int(truth[row, column]), int(guess[row, column])] += 1
    return counts


@race("segmentation_metrics.confusion_matrix", sizes=MAPS, exponent=1, shape=PIXELS, naive=LOOP)
def confusion_matrix(height: int, width: int) -> Start:
    truth, guess = _maps(height, width)
    flat = truth.flatten().numpy(), guess.flatten().numpy()
    return Start(
        ours=lambda: ours.confusion_matrix(truth, guess, CLASSES),
        references={
            "sklearn.metrics.confusion_matrix": lambda: sklearn.metrics.confusion_matrix(*flat),
            "torchmetrics.functional.classification.multiclass_confusion_matrix": lambda: (
                torchmetrics.multiclass_confusion_matrix(guess, truth, CLASSES)
            ),
        },
        naive=lambda: _loop(truth, guess),
    )


@race("segmentation_metrics.SegmentationMeter", sizes=MAPS, exponent=1, shape=PIXELS, naive=LOOP)
def meter(height: int, width: int) -> Start:
    truth, guess = _maps(height, width)
    flat = truth.flatten().numpy(), guess.flatten().numpy()

    def all_metrics() -> object:
        counter = ours.SegmentationMeter(CLASSES)
        counter.update(truth, guess)
        return counter.compute()

    return Start(
        ours=all_metrics,
        references={
            "sklearn.metrics.jaccard_score": lambda: sklearn.metrics.jaccard_score(*flat, average=None),
            "torchmetrics.functional.classification.multiclass_jaccard_index": lambda: (
                torchmetrics.multiclass_jaccard_index(guess, truth, CLASSES, average="none")
            ),
        },
        naive=lambda: _loop(truth, guess),
    )


@race("segmentation_metrics.boundary_iou", sizes=MAPS, exponent=1, shape=PIXELS)
def boundary_iou(height: int, width: int) -> Start:
    truth, guess = (labels < CLASSES // 2 for labels in _maps(height, width))
    distance = max(1, round(0.02 * (height**2 + width**2) ** 0.5))
    square = np.ones((3, 3), dtype=bool)

    def band(mask: Tensor) -> NDArray[np.bool_]:
        array: NDArray[np.bool_] = mask.numpy()
        inner: NDArray[np.bool_] = scipy.ndimage.binary_erosion(array, square, iterations=distance)
        return array & ~inner

    def theirs() -> float:
        a, b = band(truth), band(guess)
        return float((a & b).sum() / (a | b).sum())

    return Start(
        ours=lambda: ours.boundary_iou(truth, guess, distance),
        references={"scipy.ndimage.binary_erosion": theirs},
    )


@race("segmentation_metrics.merge_classes", sizes=TABLES, exponent=1, shape=TABLE)
def merge_classes(classes: int, _: int) -> Start:
    cm = _counted(classes)
    groups = [index % (classes // 2) for index in range(classes)]
    edges = torch.nn.functional.one_hot(torch.tensor(groups)).double().numpy()
    counts = cm.double().numpy()
    return Start(
        ours=lambda: ours.merge_classes(cm, groups),
        references={"numpy.matmul": lambda: edges.T @ counts @ edges},
    )


@race("segmentation_metrics.normalize_confusion", sizes=TABLES, exponent=1, shape=TABLE)
def normalize_confusion(classes: int, _: int) -> Start:
    cm = _counted(classes)
    return Start(
        ours=lambda: ours.normalize_confusion(cm),
        references={
            "sklearn.preprocessing.normalize": lambda: sklearn.preprocessing.normalize(
                cm.numpy().astype(np.float64), norm="l1"
            )
        },
    )
