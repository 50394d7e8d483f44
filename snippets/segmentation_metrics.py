"""Segmentation metrics: a confusion matrix, and what is read from it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def _check_labels(target: Tensor, prediction: Tensor, num_classes: int) -> None:
    """Refuse what the shapes and dtypes show already, without looking at a value."""
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if target.shape != prediction.shape:
        raise ValueError(
            "target and prediction must have one shape, "
            f"got {tuple(target.shape)} and {tuple(prediction.shape)}"
        )
    if target.is_floating_point() or prediction.is_floating_point():
        raise ValueError(
            "expected integer class indices (argmax the scores first), "
            f"got {target.dtype} and {prediction.dtype}"
        )


def _count_cells(
    target: Tensor, prediction: Tensor, num_classes: int, ignore_index: int | None
) -> Tensor:
    """Pixels in each cell, row by row, then the two extra cells: (C * C + 2,) int64.

    The first extra cell counts the pixels out of range, the second the ignored ones.
    No value decides what runs, so that the CPU need not wait for a GPU: scatter_add in
    place of bincount, which asks for the largest index, and no boolean mask, whose
    number of pixels is a value.
    """
    _check_labels(target, prediction, num_classes)
    truth, guess = target.reshape(-1).long(), prediction.reshape(-1).long()
    inside = (truth >= 0) & (truth < num_classes)
    inside &= (guess >= 0) & (guess < num_classes)
    cell = torch.where(inside, truth * num_classes + guess, num_classes**2)
    if ignore_index is not None:
        cell = torch.where(truth == ignore_index, num_classes**2 + 1, cell)
    cells = torch.zeros(num_classes**2 + 2, dtype=torch.int64, device=cell.device)
    return cells.scatter_add_(0, cell, cell.new_ones(1).expand_as(cell))


def confusion_matrix(
    target: Tensor,
    prediction: Tensor,
    num_classes: int,
    ignore_index: int | None = None,
) -> Tensor:
    """Count the pixels of true class i (row) that were given class j (column).

    target and prediction: class indices 0 to C - 1, integers of one shape, any number
    of axes. Gives (C, C) int64 counts: exact up to 2^63, where float32 stops counting
    at 2^24. Pixels whose *target* is `ignore_index` are left out, whatever was
    predicted there; if that index is a class, its row is empty but its column is not.
    Raises ValueError for different shapes, floating-point input, or an index out of
    range, which would otherwise be counted in another class's cell. The range check
    waits for a GPU: within a training loop use SegmentationMeter.
    Source: Long et al. 2015, section 5 (n_ij: pixels of class i predicted as j).

    Example:
        >>> import torch
        >>> target = torch.tensor([[0, 0, 1], [0, 1, 255]])
        >>> prediction = torch.tensor([[0, 1, 1], [0, 1, 0]])
        >>> confusion_matrix(target, prediction, num_classes=2, ignore_index=255)
        tensor([[2, 1],
                [0, 2]])
    """
    cells = _count_cells(target, prediction, num_classes, ignore_index)
    if cells[-2] > 0:
        counted = torch.ones_like(target, dtype=torch.bool)
        if ignore_index is not None:
            counted = target.long() != ignore_index
        truth, guess = target[counted].long(), prediction[counted].long()
        raise ValueError(
            f"class indices must lie in 0 to {num_classes - 1}, got targets "
            f"from {truth.min()} to {truth.max()} and predictions "
            f"from {guess.min()} to {guess.max()}"
        )
    return cells[:-2].reshape(num_classes, num_classes)


def _totals(cm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Right pixels, true pixels and predicted pixels of each class, (C,) float64."""
    if cm.ndim != 2 or cm.shape[0] != cm.shape[1] or cm.is_floating_point():
        raise ValueError(
            "expected a square matrix of integer counts, "
            f"got {tuple(cm.shape)} of {cm.dtype}"
        )
    # Sums are taken in int64; float64 then holds every count below 2^53 exactly.
    return cm.diagonal().double(), cm.sum(1).double(), cm.sum(0).double()


def pixel_accuracy(cm: Tensor) -> Tensor:
    """Share of pixels given their true class: sum_i n_ii / sum_ij n_ij.

    cm (C, C) integer counts, rows the truth. Gives a float64 scalar, NaN if there is no
    pixel. Equal to the micro average of recall, of precision and of F1.

    Example:
        >>> import torch
        >>> pixel_accuracy(torch.tensor([[90, 0], [10, 0]]))  # all "background"
        tensor(0.9000, dtype=torch.float64)
    """
    right, truth, _ = _totals(cm)
    return right.sum() / truth.sum()


def class_accuracy(cm: Tensor) -> Tensor:
    """Share of each class's true pixels that were found (recall): n_ii / sum_j n_ij.

    cm (C, C) integer counts, rows the truth. Gives (C,) float64; NaN for a class
    without a true pixel.

    Example:
        >>> import torch
        >>> class_accuracy(torch.tensor([[90, 0], [10, 0]]))
        tensor([1., 0.], dtype=torch.float64)
    """
    right, truth, _ = _totals(cm)
    return right / truth


def mean_pixel_accuracy(cm: Tensor) -> Tensor:
    """Mean of `class_accuracy` over the classes that have true pixels (MPA).

    Also known as balanced accuracy and macro recall. A float64 scalar, NaN if there is
    no pixel.

    Example:
        >>> import torch
        >>> mean_pixel_accuracy(torch.tensor([[90, 0], [10, 0]]))
        tensor(0.5000, dtype=torch.float64)
    """
    return class_accuracy(cm).nanmean()


def precision_per_class(cm: Tensor) -> Tensor:
    """Share of the pixels given a class that are truly of it: n_ii / sum_j n_ji.

    cm (C, C) integer counts, rows the truth: here the columns are summed. Gives (C,)
    float64; NaN for a class that was never predicted.

    Example:
        >>> import torch
        >>> precision_per_class(torch.tensor([[80, 10], [2, 8]]))
        tensor([0.9756, 0.4444], dtype=torch.float64)
    """
    right, _, predicted = _totals(cm)
    return right / predicted


def iou_per_class(cm: Tensor) -> Tensor:
    """Intersection over union: n_ii / (sum_j n_ij + sum_j n_ji - n_ii).

    cm (C, C) integer counts, rows the truth. Gives (C,) float64. A class that is
    neither in the truth nor predicted is 0 / 0: NaN. One that was only predicted is 0.
    Source: Everingham et al. 2010 (PASCAL VOC).

    Example:
        >>> import torch
        >>> iou_per_class(torch.tensor([[5, 1, 1], [0, 0, 0], [1, 0, 2]]))
        tensor([0.6250, 0.0000, 0.5000], dtype=torch.float64)
    """
    right, truth, predicted = _totals(cm)
    return right / (truth + predicted - right)


def mean_iou(cm: Tensor) -> Tensor:
    """Mean of `iou_per_class` over the classes that occur in truth or prediction.

    A float64 scalar; NaN without pixels. Add up one matrix over the whole data set
    first: the mean of the values of single images is another quantity.

    Example:
        >>> import torch
        >>> mean_iou(torch.tensor([[90, 0], [10, 0]]))
        tensor(0.4500, dtype=torch.float64)
    """
    return iou_per_class(cm).nanmean()


def frequency_weighted_iou(cm: Tensor) -> Tensor:
    """Mean of the IoUs, each weighted by its class's share of the true pixels (FWIoU).

    sum_i (sum_j n_ij / sum n) IoU_i. cm (C, C) integer counts, rows the truth. Gives a
    float64 scalar; NaN without pixels. A class without true pixels weighs nothing.
    Source: Long et al. 2015, section 5.

    Example:
        >>> import torch
        >>> frequency_weighted_iou(torch.tensor([[90, 0], [10, 0]]))
        tensor(0.8100, dtype=torch.float64)
    """
    _, truth, _ = _totals(cm)
    weighted = truth * iou_per_class(cm)
    return weighted.nansum() / truth.sum()  # a class with a NaN has no true pixel


def dice_per_class(cm: Tensor) -> Tensor:
    """Dice coefficient, the F1 of each class: 2 n_ii / (sum_j n_ij + sum_j n_ji).

    cm (C, C) integer counts, rows the truth. Gives (C,) float64, 2 IoU / (1 + IoU);
    NaN for a class neither in the truth nor predicted.

    Example:
        >>> import torch
        >>> dice_per_class(torch.tensor([[6, 2], [2, 6]]))
        tensor([0.7500, 0.7500], dtype=torch.float64)
    """
    right, truth, predicted = _totals(cm)
    return 2 * right / (truth + predicted)


class SegmentationMeter:
    """Adds up one confusion matrix over many batches and reads every metric from it.

    `update` does not wait for a GPU, but for the very first, which moves the counts
    there: pixels out of range are counted in a cell of their own, and only `compute`,
    which copies the counts to the CPU, raises ValueError if there were any; shapes and
    dtypes are checked at once. `cells` (C * C + 2,) int64, on the device of the latest
    batch, holds the matrix row by row, the pixels out of range and the ignored. Workers
    `merge`, or sum `cells` by all_reduce; `reset` before counting on.

    Example:
        >>> import torch
        >>> meter = SegmentationMeter(num_classes=2, ignore_index=255)
        >>> meter.update(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
        >>> meter.update(torch.tensor([1, 255]), torch.tensor([1, 0]))
        >>> meter.compute()["iou"]
        tensor([0.5000, 0.6667], dtype=torch.float64)
    """

    def __init__(self, num_classes: int, ignore_index: int | None = None) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.cells = torch.zeros(num_classes**2 + 2, dtype=torch.int64)

    def reset(self) -> None:
        self.cells = torch.zeros_like(self.cells)  # stays on its device

    def update(self, target: Tensor, prediction: Tensor) -> None:
        cells = _count_cells(target, prediction, self.num_classes, self.ignore_index)
        self.cells = self.cells.to(cells.device) + cells

    def merge(self, other: "SegmentationMeter") -> None:
        ours, theirs = ((m.num_classes, m.ignore_index) for m in (self, other))
        if ours != theirs:
            raise ValueError(
                "meters must agree in (num_classes, ignore_index), "
                f"got {ours} and {theirs}"
            )
        self.cells = self.cells + other.cells.to(self.cells.device)

    def compute(self) -> dict[str, Tensor]:
        cells = self.cells.cpu()
        if cells[-2] > 0:
            raise ValueError(
                f"{int(cells[-2])} pixels had a target or a prediction out of "
                f"0 to {self.num_classes - 1}"
            )
        cm = cells[:-2].reshape(self.num_classes, self.num_classes)
        return {
            "confusion_matrix": cm,
            "pixel_accuracy": pixel_accuracy(cm),
            "mean_pixel_accuracy": mean_pixel_accuracy(cm),
            "mean_iou": mean_iou(cm),
            "frequency_weighted_iou": frequency_weighted_iou(cm),
            "class_accuracy": class_accuracy(cm),
            "precision": precision_per_class(cm),
            "iou": iou_per_class(cm),
            "dice": dice_per_class(cm),
        }


def soft_dice_loss(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None = None,
    smooth: float = 1.0,
) -> Tensor:
    """One minus the mean over classes of a Dice coefficient that has a gradient.

    With p = softmax(logits) and g the one-hot truth, summed over batch and pixels:
    Dice_c = (2 sum p g + smooth) / (sum p + sum g + smooth). logits (B, C, *), target
    (B, *) integer; gives a scalar, float32 for half precision. Pixels whose target is
    `ignore_index` count in no sum. A target out of range makes the loss NaN and its
    gradient 0: noticed without waiting for a GPU, and no weight is harmed. With smooth
    0, a class without any mass, as when every pixel is ignored, is 0 / 0 and NaN too.
    Raises ValueError for other shapes, floating-point targets or a negative smooth.
    Source: Milletari et al. 2016, section 3, who square p and g in the denominator.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[20.0, -20.0, 0.0], [-20.0, 20.0, 0.0]]])
        >>> soft_dice_loss(logits, torch.tensor([[0, 1, 1]]), smooth=0.0)
        tensor(0.1714)
    """
    if logits.ndim < 2 or target.shape != logits.shape[:1] + logits.shape[2:]:
        raise ValueError(
            "expected logits (B, C, *) and target (B, *), "
            f"got {tuple(logits.shape)} and {tuple(target.shape)}"
        )
    if target.is_floating_point():
        raise ValueError(f"expected integer class indices, got {target.dtype}")
    if smooth < 0:
        raise ValueError(f"smooth must not be negative, got {smooth}")
    # Half precision overflows at 65504: fewer pixels than one image has.
    dtype = torch.promote_types(logits.dtype, torch.float32)
    p = logits.softmax(1, dtype=dtype).movedim(1, -1).flatten(0, -2)  # (N, C)
    truth = target.reshape(-1, 1).long()  # (N, 1)
    classes = torch.arange(p.shape[1], device=p.device)
    counted = torch.ones_like(truth, dtype=torch.bool)
    if ignore_index is not None:
        counted = truth != ignore_index
    g = ((truth == classes) & counted).to(dtype)  # (N, C)
    p = p * counted
    overlap = 2 * (p * g).sum(0) + smooth
    dice = overlap / (p.sum(0) + g.sum(0) + smooth)  # (C,)
    outside = (counted & ((truth < 0) | (truth >= p.shape[1]))).any()
    return torch.where(outside, torch.nan, 1 - dice.mean())


def _window_all(mask: Tensor, side: int) -> Tensor:
    """Whether all of `side` neighbours along the last axis are set.

    Windows grow to twice their width at a time: log2(side) steps, where a loop over the
    window takes `side`.
    """
    width = 1
    while width < side:
        step = min(width, side - width)
        mask = mask[..., step:] & mask[..., :-step]
        width += step
    return mask


def _inner_band(mask: Tensor, distance: int) -> Tensor:
    """The pixels of a mask that have a pixel outside it within `distance`."""
    distance = min(distance, *mask.shape[-2:])  # by then it is the whole mask
    inner = F.pad(mask, (distance,) * 4)  # beyond the image: outside
    for _ in range(2):  # rows, then columns
        inner = _window_all(inner, 2 * distance + 1).mT
    return mask & ~inner


def boundary_iou(target: Tensor, prediction: Tensor, distance: int) -> Tensor:
    """IoU of the bands, `distance` pixels wide, along the inner side of two contours.

    target and prediction (..., H, W) boolean masks of one class; gives (...,) float64,
    NaN where both masks are empty. A pixel belongs to the band if a pixel outside the
    mask, or outside the image, lies within `distance` rows and columns.
    Raises ValueError for other dtypes or shapes, or a distance below 1.
    Source: Cheng et al. 2021. Their code erodes `distance` times by a 3 x 3 square; on
    COCO `distance` is 2 % of the image's diagonal, rounded and at least 1.

    Example:
        >>> import torch
        >>> target = torch.zeros(12, 12, dtype=torch.bool)
        >>> target[2:10, 2:10] = True
        >>> boundary_iou(target, target.roll(1, dims=1), distance=1)  # plain IoU: 0.78
        tensor(0.3333, dtype=torch.float64)
    """
    if target.shape != prediction.shape or target.ndim < 2:
        raise ValueError(
            "expected two masks (..., H, W) of one shape, "
            f"got {tuple(target.shape)} and {tuple(prediction.shape)}"
        )
    if target.dtype != torch.bool or prediction.dtype != torch.bool:
        raise ValueError(
            f"expected boolean masks, got {target.dtype} and {prediction.dtype}"
        )
    if distance < 1:
        raise ValueError(f"distance must be at least 1, got {distance}")
    a, b = _inner_band(target, distance), _inner_band(prediction, distance)
    union = (a | b).sum((-2, -1)).double()
    return (a & b).sum((-2, -1)).double() / union


def iou_from_dice(dice: float) -> float:
    """IoU of a class whose Dice coefficient is known: D / (2 - D).

    Holds for the numbers of one class; not for means over classes or images.
    Raises ValueError unless dice is in 0 to 1.

    Example:
        >>> [round(iou_from_dice(dice), 3) for dice in (0.5, 0.8, 0.9)]
        [0.333, 0.667, 0.818]
    """
    if not 0 <= dice <= 1:
        raise ValueError(f"dice must lie in 0 to 1, got {dice}")
    return dice / (2 - dice)


def shifted_square_iou(side: int, down: int, right: int = 0) -> float:
    """IoU of a square with a copy of itself moved by (down, right) pixels.

    The overlap is (s - |down|)(s - |right|), the union 2 s^2 less the overlap; one
    shift d alone gives (s - d) / (s + d). 0 once they no longer touch.
    Raises ValueError if side is below 1.

    Example:
        >>> [shifted_square_iou(side, 1) for side in (3, 9, 99)]
        [0.5, 0.8, 0.98]
    """
    if side < 1:
        raise ValueError(f"side must be at least 1, got {side}")
    overlap = max(side - abs(down), 0) * max(side - abs(right), 0)
    return overlap / (2 * side**2 - overlap)


def normalize_confusion(cm: Tensor, by: str = "truth") -> Tensor:
    """Confusion matrix as shares: of each row, of each column, or of all pixels.

    cm (C, C) integer counts, rows the truth; gives (C, C) float64. by "truth": rows sum
    to 1 and the diagonal is recall; "prediction": columns sum to 1 and the diagonal is
    precision; "all": everything sums to 1. A row or column without pixels is NaN.
    Raises ValueError for another word. Only draw this: no IoU can be read from it.

    Example:
        >>> import torch
        >>> normalize_confusion(torch.tensor([[3, 1], [2, 2]]))
        tensor([[0.7500, 0.2500],
                [0.5000, 0.5000]], dtype=torch.float64)
    """
    _, truth, predicted = _totals(cm)
    totals = {"truth": truth[:, None], "prediction": predicted, "all": truth.sum()}
    if by not in totals:
        raise ValueError(f"by must be one of {', '.join(totals)}, got {by!r}")
    return cm / totals[by]


def merge_classes(cm: Tensor, groups: Sequence[int]) -> Tensor:
    """Confusion matrix after classes are joined: class i becomes class groups[i].

    cm (C, C) integer counts, groups C numbers that use each of 0 to G - 1; gives
    (G, G). Equal to relabelling both images first; take means anew from the result.
    Raises ValueError if groups has another length or leaves a number out.

    Example:
        >>> import torch
        >>> cm = torch.tensor([[5, 1, 0], [0, 3, 2], [0, 4, 1]])
        >>> merge_classes(cm, [0, 1, 1])  # car and truck become vehicle
        tensor([[ 5,  1],
                [ 0, 10]])
    """
    _totals(cm)  # raises if it is no confusion matrix
    size = max(groups, default=0) + 1
    if len(groups) != cm.shape[0] or set(groups) != set(range(size)):
        raise ValueError(
            f"groups must be {cm.shape[0]} numbers that use each of 0 to G - 1, "
            f"got {list(groups)}"
        )
    index = torch.tensor(list(groups), device=cm.device)
    rows = cm.new_zeros(size, cm.shape[1]).index_add_(0, index, cm)
    return rows.new_zeros(size, size).index_add_(1, index, rows)
