"""What the page on segmentation metrics claims, against references that share no code with it."""

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import product

import numpy as np
import pytest
import scipy.ndimage
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

from snippets.segmentation_metrics import (
    SegmentationMeter,
    boundary_iou,
    class_accuracy,
    confusion_matrix,
    dice_per_class,
    frequency_weighted_iou,
    iou_from_dice,
    iou_per_class,
    mean_iou,
    mean_pixel_accuracy,
    merge_classes,
    normalize_confusion,
    pixel_accuracy,
    precision_per_class,
    shifted_square_iou,
    soft_dice_loss,
)

PER_CLASS = [class_accuracy, precision_per_class, iou_per_class, dice_per_class]
MEANS = [pixel_accuracy, mean_pixel_accuracy, mean_iou, frequency_weighted_iou]
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


def labels(classes, shape=(3, 20, 17), seed=0, used=None, dtype=torch.int64):
    """A truth and a prediction that agree in about half of the pixels."""
    generator = torch.Generator().manual_seed(seed)
    used = classes if used is None else used
    truth = torch.randint(0, used, shape, generator=generator)
    guess = torch.randint(0, used, shape, generator=generator)
    right = torch.rand(shape, generator=generator) < 0.5
    return truth.to(dtype), torch.where(right, truth, guess).to(dtype)


def flat(*tensors):
    return [tensor.flatten().numpy() for tensor in tensors]


def pixel_sets(truth, guess, label):
    """Positions of a class in the truth and in the prediction, as Python sets."""
    one, other = flat(truth, guess)
    return set(np.flatnonzero(one == label)), set(np.flatnonzero(other == label))


def divide(part, whole):
    return part / whole if whole else math.nan


# --- counting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 2, 5, 21])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_counts_are_those_of_sklearn_for_every_integer_dtype(agrees_with, classes, dtype):
    truth, guess = labels(classes, dtype=dtype)
    ours = confusion_matrix(truth, guess, classes)
    theirs = sklearn.metrics.confusion_matrix(*flat(truth, guess), labels=range(classes))
    agrees_with(confusion_matrix, "sklearn.metrics.confusion_matrix", ours, theirs)
    assert ours.dtype == torch.int64


def test_rows_are_the_truth_and_columns_the_prediction(agrees_with):
    truth, guess = labels(4, seed=1)
    counted = [
        [len(pixel_sets(truth, guess, i)[0] & pixel_sets(truth, guess, j)[1]) for j in range(4)]
        for i in range(4)
    ]
    agrees_with(
        confusion_matrix,
        "brute force: size of the set of pixels truly i and predicted j",
        confusion_matrix(truth, guess, 4),
        counted,
    )
    assert counted != np.transpose(counted).tolist()


@pytest.mark.parametrize("ignore_index", [255, -100, -1, 0, 2])
def test_ignored_pixels_are_left_out_whatever_was_predicted_there(agrees_with, ignore_index):
    truth, guess = labels(4, seed=2, dtype=torch.int64)
    gone = torch.rand(truth.shape, generator=torch.Generator().manual_seed(3)) < 0.2
    truth[gone] = ignore_index
    guess[gone] = 99  # not looked at
    kept = truth != ignore_index
    guess[~kept] = 99
    theirs = sklearn.metrics.confusion_matrix(*flat(truth[kept], guess[kept]), labels=range(4))
    ours = confusion_matrix(truth, guess, 4, ignore_index=ignore_index)
    agrees_with(confusion_matrix, "sklearn.metrics.confusion_matrix", ours, theirs)
    meter = SegmentationMeter(4, ignore_index)
    meter.update(truth, guess)
    assert meter.cells[-1] == (~kept).sum()
    assert meter.cells[-2] == 0


def test_an_ignored_class_has_an_empty_row_and_scores_zero_where_it_is_predicted(agrees_with):
    truth, guess = labels(4, seed=13)
    cm = confusion_matrix(truth, guess, 4, ignore_index=0)
    theirs = multiclass_jaccard_index(guess, truth, 4, average="none", ignore_index=0)
    agrees_with(
        iou_per_class,
        "torchmetrics.functional.classification.multiclass_jaccard_index",
        iou_per_class(cm),
        theirs,
        atol=1e-7,
    )
    assert cm[0].sum() == 0 < cm[:, 0].sum()
    assert iou_per_class(cm)[0] == 0
    assert (iou_per_class(cm)[1:] > iou_per_class(confusion_matrix(truth, guess, 4))[1:]).all()
    # torchmetrics leaves the ignored class out of its mean; here it counts, as a class predicted only
    without = float(multiclass_jaccard_index(guess, truth, 4, average="macro", ignore_index=0))
    assert float(mean_iou(cm)) == pytest.approx(without * 3 / 4, abs=1e-7)


def test_255_in_uint8_is_ignored_and_minus_1_in_int8():
    truth = torch.tensor([0, 1, 255], dtype=torch.uint8)
    guess = torch.tensor([0, 1, 1], dtype=torch.uint8)
    assert confusion_matrix(truth, guess, 2, 255).tolist() == [[1, 0], [0, 1]]
    truth = torch.tensor([0, 1, -1], dtype=torch.int8)
    assert confusion_matrix(truth, guess, 2, -1).tolist() == [[1, 0], [0, 1]]


def test_boolean_masks_count_as_two_classes():
    truth, guess = torch.tensor([True, True, False]), torch.tensor([True, False, False])
    assert confusion_matrix(truth, guess, 2).tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize("shape", [(), (0,), (0, 4, 4), (7,), (2, 3, 4, 5)])
def test_any_number_of_axes_and_an_empty_batch(shape):
    truth = torch.ones(shape, dtype=torch.int64)
    cm = confusion_matrix(truth, truth, 3)
    assert cm.tolist() == [[0, 0, 0], [0, truth.numel(), 0], [0, 0, 0]]


def test_non_contiguous_input_counts_the_same_and_is_left_as_it_was():
    truth, guess = labels(3)
    turned, before = guess.transpose(1, 2).contiguous().transpose(1, 2), (truth.clone(), guess.clone())
    assert not turned.is_contiguous()
    assert torch.equal(confusion_matrix(truth, turned, 3), confusion_matrix(truth, guess, 3))
    assert torch.equal(confusion_matrix(truth[..., ::2], guess[..., ::2], 3).sum(), torch.tensor(3 * 20 * 9))
    assert torch.equal(truth, before[0])
    assert torch.equal(guess, before[1])


@pytest.mark.parametrize(("truth", "guess"), [([0, 1, 3], [0, 1, 1]), ([0, 1, 1], [0, 1, 3])])
def test_an_index_out_of_range_is_refused_and_named(truth, guess):
    message = r"^class indices must lie in 0 to 2, got targets from 0 to \d and predictions from 0 to \d$"
    with pytest.raises(ValueError, match=message) as caught:
        confusion_matrix(torch.tensor(truth), torch.tensor(guess), 3)
    assert f"targets from 0 to {max(truth)} and predictions from 0 to {max(guess)}" in str(caught.value)
    assert confusion_matrix(torch.tensor(truth), torch.tensor(guess), 4).sum() == 3


@pytest.mark.parametrize("bad", [-1, -4, 3, 255, 2**62, -(2**63)])
def test_no_number_out_of_range_reaches_a_cell(bad):
    truth, guess = torch.tensor([0, 1, 2, 255]), torch.tensor([0, 1, bad, bad])
    with pytest.raises(ValueError, match=f"targets from 0 to 2 and predictions from {min(bad, 0)} to"):
        confusion_matrix(truth, guess, 3, ignore_index=255)
    with pytest.raises(ValueError, match=f"targets from {min(bad, 0)} to"):
        confusion_matrix(guess[:3], truth[:3], 3)
    meter = SegmentationMeter(3, ignore_index=255)
    meter.update(truth, guess)
    assert meter.cells.tolist() == [1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("truth", "guess", "classes", "message"),
    [
        (
            torch.zeros(2, 3).long(),
            torch.zeros(3, 2).long(),
            2,
            r"^target and prediction must have one shape, got \(2, 3\) and \(3, 2\)$",
        ),
        (
            torch.zeros(2).long(),
            torch.zeros(2),
            2,
            r"^expected integer class indices \(argmax the scores first\), got torch\.int64 and torch\.float32$",
        ),
        (torch.zeros(2).half(), torch.zeros(2).long(), 2, r"got torch\.float16 and torch\.int64$"),
        (torch.zeros(2).long(), torch.zeros(2).long(), 0, r"^num_classes must be at least 1, got 0$"),
    ],
)
def test_shapes_dtypes_and_class_numbers_that_make_no_sense_are_refused(truth, guess, classes, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(truth, guess, classes)
    if classes:
        meter = SegmentationMeter(classes)
        with pytest.raises(ValueError, match=message):
            meter.update(truth, guess)
        assert meter.cells.tolist() == [0] * 6


# --- ratios --------------------------------------------------------------------------------------

REFERENCES = {
    class_accuracy: lambda t, p: divide(len(t & p), len(t)),
    precision_per_class: lambda t, p: divide(len(t & p), len(p)),
    iou_per_class: lambda t, p: divide(len(t & p), len(t | p)),
    dice_per_class: lambda t, p: divide(2 * len(t & p), len(t) + len(p)),
}


@pytest.mark.parametrize("metric", PER_CLASS)
@pytest.mark.parametrize(("classes", "used"), [(2, 2), (5, 5), (6, 4), (3, 1)])
def test_per_class_values_are_ratios_of_sets_of_pixels(agrees_with, metric, classes, used):
    truth, guess = labels(classes, used=used)
    truth[0], guess[0] = 0, used - 1
    theirs = [REFERENCES[metric](*pixel_sets(truth, guess, c)) for c in range(classes)]
    ours = metric(confusion_matrix(truth, guess, classes))
    agrees_with(metric, "brute force: sets of pixels", ours, theirs, atol=1e-15)
    assert ours.dtype == torch.float64
    assert ours[used:].isnan().all()


@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        (class_accuracy, "recall_score"),
        (precision_per_class, "precision_score"),
        (iou_per_class, "jaccard_score"),
        (dice_per_class, "f1_score"),
    ],
)
def test_per_class_values_are_those_of_sklearn(agrees_with, metric, reference):
    truth, guess = labels(7, seed=4)
    theirs = getattr(sklearn.metrics, reference)(*flat(truth, guess), average=None)
    agrees_with(
        metric, f"sklearn.metrics.{reference}", metric(confusion_matrix(truth, guess, 7)), theirs, atol=1e-15
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("classes", "used"), [(2, 2), (8, 8), (9, 5)])
def test_means_are_those_of_sklearn_also_with_absent_classes(agrees_with, classes, used, seed):
    truth, guess = labels(classes, used=used, seed=seed)
    pair, cm = flat(truth, guess), confusion_matrix(truth, guess, classes)
    for metric, reference, theirs in [
        (pixel_accuracy, "accuracy_score", sklearn.metrics.accuracy_score(*pair)),
        (mean_pixel_accuracy, "balanced_accuracy_score", sklearn.metrics.balanced_accuracy_score(*pair)),
        (mean_iou, "jaccard_score", sklearn.metrics.jaccard_score(*pair, average="macro")),
        (
            frequency_weighted_iou,
            "jaccard_score",
            sklearn.metrics.jaccard_score(*pair, average="weighted"),
        ),
    ]:
        agrees_with(metric, f"sklearn.metrics.{reference}", metric(cm), theirs, atol=1e-15)
        assert metric(cm).shape == ()
        assert metric(cm).dtype == torch.float64


def test_mean_iou_and_accuracy_are_those_of_torchmetrics(agrees_with):
    truth, guess = labels(6, seed=5, used=5)
    cm = confusion_matrix(truth, guess, 6)
    theirs = multiclass_jaccard_index(guess, truth, 6, average="macro")
    agrees_with(
        mean_iou,
        "torchmetrics.functional.classification.multiclass_jaccard_index",
        mean_iou(cm),
        theirs,
        atol=1e-7,
    )
    micro = multiclass_accuracy(guess, truth, 6, average="micro")
    agrees_with(
        pixel_accuracy,
        "torchmetrics.functional.classification.multiclass_accuracy",
        pixel_accuracy(cm),
        micro,
        atol=1e-7,
    )


def test_pixel_accuracy_is_the_micro_average_of_recall_precision_and_f1(agrees_with):
    truth, guess = labels(5, seed=6)
    ours = pixel_accuracy(confusion_matrix(truth, guess, 5))
    for name in ("recall_score", "precision_score", "f1_score"):
        theirs = getattr(sklearn.metrics, name)(*flat(truth, guess), average="micro")
        agrees_with(pixel_accuracy, f"sklearn.metrics.{name}", ours, theirs, atol=1e-15)


def test_all_background_has_high_accuracy_and_half_the_mean_iou():
    cm = torch.tensor([[999, 0], [1, 0]])
    assert float(pixel_accuracy(cm)) == 0.999
    assert float(mean_pixel_accuracy(cm)) == 0.5
    assert float(mean_iou(cm)) == pytest.approx(0.4995, abs=1e-15)
    assert float(frequency_weighted_iou(cm)) == pytest.approx(0.999**2, abs=1e-15)


def test_a_class_only_predicted_counts_as_zero_and_a_class_nowhere_not_at_all():
    cm = torch.tensor([[3, 1, 0], [0, 0, 0], [0, 0, 0]])
    assert torch.equal(iou_per_class(cm)[:2], torch.tensor([0.75, 0.0]).double())
    assert iou_per_class(cm)[2].isnan()
    assert float(mean_iou(cm)) == 0.375
    assert float(mean_pixel_accuracy(cm)) == 0.75  # only class 0 has true pixels
    assert class_accuracy(cm).isnan().tolist() == [False, True, True]
    assert precision_per_class(cm).isnan().tolist() == [False, False, True]
    assert float(frequency_weighted_iou(cm)) == 0.75


@pytest.mark.parametrize("metric", PER_CLASS + MEANS)
def test_without_a_pixel_everything_is_nan_and_nothing_warns(metric):
    truth = torch.full((2, 4, 4), 255)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = metric(confusion_matrix(truth, truth, 3, ignore_index=255))
    assert value.isnan().all()
    assert value.shape == ((3,) if metric in PER_CLASS else ())


@pytest.mark.parametrize("metric", PER_CLASS + MEANS)
def test_counts_beyond_float32_are_exact(metric):
    big = 2**24
    cm = torch.tensor([[big + 1, 2], [3, big + 1]])
    exact = {
        pixel_accuracy: (2 * big + 2) / (2 * big + 7),
        class_accuracy: [(big + 1) / (big + 3), (big + 1) / (big + 4)],
        precision_per_class: [(big + 1) / (big + 4), (big + 1) / (big + 3)],
        iou_per_class: [(big + 1) / (big + 6)] * 2,
        dice_per_class: [2 * (big + 1) / (2 * big + 7)] * 2,
        mean_iou: (big + 1) / (big + 6),
        mean_pixel_accuracy: ((big + 1) / (big + 3) + (big + 1) / (big + 4)) / 2,
        frequency_weighted_iou: (big + 1) / (big + 6),
    }[metric]
    np.testing.assert_allclose(metric(cm).numpy(), exact, rtol=0, atol=3e-16)


def test_narrow_integers_do_not_overflow():
    cm = torch.full((3, 3), 200, dtype=torch.uint8)
    assert float(pixel_accuracy(cm)) == pytest.approx(1 / 3, abs=1e-15)
    assert float(iou_per_class(cm)[0]) == 0.2


@pytest.mark.parametrize("metric", PER_CLASS + MEANS + [normalize_confusion])
@pytest.mark.parametrize(
    ("cm", "message"),
    [
        (
            torch.zeros(2, 3).long(),
            r"^expected a square matrix of integer counts, got \(2, 3\) of torch\.int64$",
        ),
        (torch.zeros(4).long(), r"got \(4,\) of torch\.int64$"),
        (torch.eye(2), r"^expected a square matrix of integer counts, got \(2, 2\) of torch\.float32$"),
    ],
)
def test_what_is_no_matrix_of_counts_is_refused(metric, cm, message):
    with pytest.raises(ValueError, match=message):
        metric(cm)


@given(st.lists(st.integers(0, 50), min_size=16, max_size=16), st.permutations(range(4)))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_new_numbers_for_the_classes_move_values_but_change_no_mean(cells, order):
    cm = torch.tensor(cells).reshape(4, 4)
    moved = cm[list(order)][:, list(order)]
    for metric in PER_CLASS:
        torch.testing.assert_close(metric(moved), metric(cm)[list(order)], rtol=0, atol=0, equal_nan=True)
    for metric in MEANS:
        torch.testing.assert_close(metric(moved), metric(cm), rtol=0, atol=1e-14, equal_nan=True)


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_the_order_of_the_pixels_does_not_matter(seed):
    truth, guess = labels(4, shape=(60,), seed=seed)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(confusion_matrix(truth[order], guess[order], 4), confusion_matrix(truth, guess, 4))


@given(st.lists(st.integers(0, 30), min_size=9, max_size=9))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_dice_is_two_iou_over_one_plus_iou_and_never_below_it(cells):
    cm = torch.tensor(cells).reshape(3, 3)
    iou, dice = iou_per_class(cm), dice_per_class(cm)
    torch.testing.assert_close(dice, 2 * iou / (1 + iou), rtol=0, atol=1e-15, equal_nan=True)
    assert (dice >= iou)[~iou.isnan()].all()
    assert torch.equal(iou.isnan(), cm.sum(0) + cm.sum(1) == 0)


# --- the meter -----------------------------------------------------------------------------------

KEYS = {
    "pixel_accuracy": pixel_accuracy,
    "mean_pixel_accuracy": mean_pixel_accuracy,
    "mean_iou": mean_iou,
    "frequency_weighted_iou": frequency_weighted_iou,
    "class_accuracy": class_accuracy,
    "precision": precision_per_class,
    "iou": iou_per_class,
    "dice": dice_per_class,
}


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_a_meter_over_batches_gives_the_scores_of_the_whole_data_set(agrees_with, batch):
    truth, guess = labels(5, shape=(7, 9, 8), seed=7)
    meter = SegmentationMeter(5)
    for t, g in zip(truth.split(batch), guess.split(batch), strict=True):
        meter.update(t, g)
    scores, pair = meter.compute(), flat(truth, guess)
    agrees_with(
        SegmentationMeter,
        "sklearn.metrics.confusion_matrix",
        scores["confusion_matrix"],
        sklearn.metrics.confusion_matrix(*pair),
    )
    agrees_with(
        SegmentationMeter,
        "sklearn.metrics.jaccard_score",
        scores["iou"],
        sklearn.metrics.jaccard_score(*pair, average=None),
        atol=1e-15,
    )
    assert scores.keys() == {"confusion_matrix", *KEYS}
    for name, metric in KEYS.items():
        assert torch.equal(scores[name], metric(scores["confusion_matrix"]))


def test_the_mean_over_batches_is_another_number_than_the_meters():
    truth, guess = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0]]), torch.tensor([[0, 0, 0, 1], [1, 0, 0, 0]])
    meter = SegmentationMeter(2)
    meter.update(truth, guess)
    each = [float(mean_iou(confusion_matrix(t, g, 2))) for t, g in zip(truth, guess, strict=True)]
    assert each == [0.375, 1.0]
    assert float(meter.compute()["mean_iou"]) == pytest.approx((6 / 7 + 1 / 2) / 2, abs=1e-15)


@given(st.integers(0, 12), st.integers(0, 10**6))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_merging_is_the_same_as_updating_with_everything(cut, seed):
    truth, guess = labels(4, shape=(12,), seed=seed)
    truth[::5] = 255
    guess[3] = 4  # out of range, and counted as such
    one, other, both = (SegmentationMeter(4, ignore_index=255) for _ in range(3))
    one.update(truth[:cut], guess[:cut])
    other.update(truth[cut:], guess[cut:])
    both.update(truth, guess)
    before = other.cells.clone()
    one.merge(other)
    assert torch.equal(one.cells, both.cells)
    assert torch.equal(other.cells, before)
    assert one.cells.sum() == 12


def test_a_merged_meter_may_go_on_without_touching_the_other():
    one, other = SegmentationMeter(2), SegmentationMeter(2)
    other.update(torch.tensor([1]), torch.tensor([1]))
    one.merge(other)
    one.update(torch.tensor([0]), torch.tensor([1]))
    assert one.compute()["confusion_matrix"].tolist() == [[0, 1], [0, 1]]
    assert other.compute()["confusion_matrix"].tolist() == [[0, 0], [0, 1]]


def test_meters_of_other_classes_or_another_ignored_index_do_not_merge():
    with pytest.raises(
        ValueError,
        match=r"^meters must agree in \(num_classes, ignore_index\), got \(2, None\) and \(3, None\)$",
    ):
        SegmentationMeter(2).merge(SegmentationMeter(3))
    with pytest.raises(ValueError, match=r"got \(2, 255\) and \(2, None\)$"):
        SegmentationMeter(2, 255).merge(SegmentationMeter(2))


def test_reset_forgets_everything_and_results_taken_before_stay():
    meter = SegmentationMeter(2)
    meter.update(torch.tensor([0, 9]), torch.tensor([0, 0]))
    kept = meter.cells
    meter.reset()
    assert meter.cells.tolist() == [0] * 6
    assert meter.cells.dtype == torch.int64
    meter.update(torch.tensor([1]), torch.tensor([0]))
    assert meter.compute()["confusion_matrix"].tolist() == [[0, 0], [1, 0]]
    assert kept.tolist() == [1, 0, 0, 0, 1, 0]


def test_compute_and_not_update_raises_for_pixels_out_of_range():
    meter = SegmentationMeter(3)
    meter.update(torch.tensor([0, 1, 3, -1]), torch.tensor([0, 3, 3, 0]))
    assert meter.cells.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0]
    with pytest.raises(ValueError, match=r"^3 pixels had a target or a prediction out of 0 to 2$"):
        meter.compute()


def test_update_asks_for_no_value_so_that_a_gpu_need_not_wait():
    """Tensors on the meta device have no values: whoever asks for one raises."""
    truth = torch.zeros(2, 8, 8, dtype=torch.int64, device="meta")
    with pytest.raises(RuntimeError):
        bool((truth > 0).any())
    with pytest.raises(RuntimeError):
        confusion_matrix(truth, truth, 3)  # the plain function does ask
    meter = SegmentationMeter(3, ignore_index=255)
    meter.update(truth, truth)
    assert meter.cells.device.type == "meta"
    loss = soft_dice_loss(torch.zeros(2, 3, 8, 8, device="meta"), truth, ignore_index=255)
    assert loss.device.type == "meta"


class Traffic(TorchDispatchMode):
    """Collects what makes the CPU wait for a device: values asked for, copies between devices."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        sources = {arg.device.type for arg in args if isinstance(arg, torch.Tensor)}
        wanted = kwargs.get("device")
        if sources and wanted is not None and {torch.device(wanted).type} != sources:
            self.waits.append("copy between devices")
        if operation in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            self.waits.append("value")
        return operation(*args, **kwargs)


def test_only_the_first_update_copies_between_devices_also_after_a_reset():
    """Fake tensors claim to be on a GPU, which nothing here needs: every operation still shows."""
    with FakeTensorMode():
        truth = torch.zeros(2, 8, 8, dtype=torch.int64, device="cuda")
        logits, meter = torch.zeros(2, 3, 8, 8, device="cuda"), SegmentationMeter(3, ignore_index=255)
        with Traffic() as first:
            meter.update(truth, truth)
        assert first.waits == ["copy between devices"]
        with Traffic() as later:
            meter.update(truth, truth)
            meter.reset()
            meter.update(truth, truth)
            soft_dice_loss(logits, truth, ignore_index=255)
        assert later.waits == []
        assert meter.cells.device.type == "cuda"


def test_workers_that_sum_their_cells_all_hold_the_counts_of_everything(agrees_with):
    truth, guess = labels(3, shape=(2, 50), seed=14)
    store, minute = torch.distributed.HashStore(), timedelta(minutes=1)

    def work(rank):
        group = torch.distributed.ProcessGroupGloo(store, rank, 2, minute)
        meter = SegmentationMeter(3)
        meter.update(truth[rank], guess[rank])
        group.allreduce([meter.cells]).wait()
        return meter.compute()["confusion_matrix"]

    with ThreadPoolExecutor(2) as workers:
        summed = list(workers.map(work, range(2)))
    whole = sklearn.metrics.confusion_matrix(*flat(truth, guess))
    for counts in summed:
        agrees_with(SegmentationMeter, "sklearn.metrics.confusion_matrix", counts, whole)


def test_a_meter_without_pixels_computes_nan_without_a_warning():
    meter = SegmentationMeter(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = meter.compute()
    assert all(scores[name].isnan().all() for name in KEYS)
    assert scores["confusion_matrix"].tolist() == [[0, 0], [0, 0]]


def test_a_meter_needs_a_class():
    with pytest.raises(ValueError, match=r"^num_classes must be at least 1, got 0$"):
        SegmentationMeter(0)
    assert SegmentationMeter(1).cells.shape == (3,)


@pytest.mark.parametrize("counted", [2**24, 2**53, 2**63 - 2])
def test_a_meter_counts_exactly_up_to_the_largest_int64(counted):
    meter = SegmentationMeter(1)
    meter.cells[0] = counted
    meter.update(torch.tensor([0]), torch.tensor([0]))
    assert meter.compute()["confusion_matrix"].item() == counted + 1


# --- soft Dice -----------------------------------------------------------------------------------


def scores(batch=2, classes=3, size=(4, 5), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, *size, generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.randint(0, classes, (batch, *size), generator=generator)


@pytest.mark.parametrize("smooth", [0.0, 1.0, 7.5])
@pytest.mark.parametrize("ignore_index", [None, 255, 0])
@pytest.mark.parametrize("size", [(), (6,), (4, 5), (2, 3, 2)])
def test_soft_dice_is_its_sum_pixel_by_pixel(agrees_with, size, ignore_index, smooth):
    logits, target = scores(batch=5, size=size)
    if ignore_index == 255:
        target[::2] = 255
    overlap, total = [0.0] * 3, [0.0] * 3
    for place in product(*map(range, target.shape)):
        label = int(target[place])
        if label == ignore_index:
            continue
        weights = [math.exp(float(logits[(place[0], c, *place[1:])])) for c in range(3)]
        for c in range(3):
            p = weights[c] / sum(weights)
            overlap[c] += p * (label == c)
            total[c] += p + (label == c)
    expected = 1 - sum((2 * o + smooth) / (t + smooth) for o, t in zip(overlap, total, strict=True)) / 3
    ours = soft_dice_loss(logits, target, ignore_index, smooth)
    agrees_with(soft_dice_loss, "brute force: sums pixel by pixel", ours, expected, atol=1e-14)
    assert ours.dtype == torch.float64


def test_soft_dice_of_certain_predictions_is_one_minus_macro_f1(agrees_with):
    truth, guess = labels(4, seed=8)
    logits = 1e4 * torch.nn.functional.one_hot(guess, 4).movedim(-1, 1).double()
    theirs = 1 - sklearn.metrics.f1_score(*flat(truth, guess), average="macro")
    ours = soft_dice_loss(logits, truth, smooth=0.0)
    agrees_with(soft_dice_loss, "sklearn.metrics.f1_score", ours, theirs, atol=2e-15)
    assert float(soft_dice_loss(logits, guess)) == 0.0


def test_soft_dice_is_smoothed_by_one_unless_told():
    logits, target = scores()
    assert soft_dice_loss(logits, target) == soft_dice_loss(logits, target, smooth=1.0)
    assert soft_dice_loss(logits, target) != soft_dice_loss(logits, target, smooth=0.0)


@pytest.mark.parametrize("ignore_index", [None, 1])
def test_soft_dice_has_the_gradient_of_finite_differences(ignore_index):
    logits, target = scores(batch=1)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: soft_dice_loss(x, target, ignore_index), logits)


def test_an_ignored_pixel_has_no_gradient():
    logits, target = scores()
    target[0, 0, 0] = 255
    logits.requires_grad_()
    soft_dice_loss(logits, target, ignore_index=255).backward()
    assert logits.grad[0, :, 0, 0].tolist() == [0.0, 0.0, 0.0]
    assert (logits.grad[0, :, 0, 1] != 0).all()


@pytest.mark.parametrize(("bad", "ignore_index"), [(3, None), (-1, None), (255, None), (3, 255), (-1, 255)])
def test_a_target_out_of_range_makes_the_loss_nan(bad, ignore_index):
    logits, target = scores()
    assert soft_dice_loss(logits, target, ignore_index).isfinite()
    target[1, 2, 3] = bad
    assert soft_dice_loss(logits, target, ignore_index).isnan()
    assert soft_dice_loss(logits, target, bad).isfinite()
    logits.requires_grad_()
    soft_dice_loss(logits, target, ignore_index).backward()
    assert (logits.grad == 0).all()


def test_with_every_pixel_ignored_soft_dice_is_zero_and_without_smoothing_nan():
    logits, target = scores()
    nothing = torch.full_like(target, 255)
    assert float(soft_dice_loss(logits, nothing, ignore_index=255)) == 0.0
    assert soft_dice_loss(logits, nothing, ignore_index=255, smooth=0.0).isnan()


def test_soft_dice_refuses_a_negative_smooth():
    with pytest.raises(ValueError, match=r"^smooth must not be negative, got -0\.5$"):
        soft_dice_loss(*scores(), smooth=-0.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sums_in_float32_where_its_own_range_ends(dtype):
    logits, target = torch.zeros(1, 2, 300, 500, dtype=dtype), torch.zeros(1, 300, 500, dtype=torch.int64)
    logits.requires_grad_()
    loss = soft_dice_loss(logits, target, smooth=0.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1 - (2 * 0.5 / 1.5 + 0) / 2, abs=1e-6)
    loss.backward()
    assert logits.grad.dtype == dtype


def test_soft_dice_takes_an_empty_batch_narrow_labels_and_strided_logits():
    logits, target = scores()
    assert float(soft_dice_loss(logits[:0], target[:0])) == 0.0
    expected = soft_dice_loss(logits, target)
    assert soft_dice_loss(logits, target.to(torch.uint8)) == expected
    turned = logits.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0)
    assert not turned.is_contiguous()
    torch.testing.assert_close(soft_dice_loss(turned, target), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("logits", "target", "message"),
    [
        (
            torch.zeros(2, 3, 4),
            torch.zeros(2, 5).long(),
            r"^expected logits \(B, C, \*\) and target \(B, \*\), got \(2, 3, 4\) and \(2, 5\)$",
        ),
        (torch.zeros(2, 3, 4), torch.zeros(2, 3, 4).long(), r"got \(2, 3, 4\) and \(2, 3, 4\)$"),
        (torch.zeros(3), torch.zeros(3).long(), r"got \(3,\) and \(3,\)$"),
        (torch.zeros(2, 3, 4), torch.zeros(2, 4), r"^expected integer class indices, got torch\.float32$"),
    ],
)
def test_soft_dice_refuses_shapes_and_dtypes_that_do_not_fit(logits, target, message):
    with pytest.raises(ValueError, match=message):
        soft_dice_loss(logits, target)


# --- boundaries ----------------------------------------------------------------------------------


def masks(count=3, size=(24, 31), seed=0):
    """Blobs, some of which touch the image's border."""
    noise = np.random.default_rng(seed).normal(size=(count, *size))
    return torch.from_numpy(scipy.ndimage.gaussian_filter(noise, (0, 2, 2)) > 0.05)


@pytest.mark.parametrize("distance", [1, 2, 3, 7])
def test_boundary_iou_is_that_of_the_mask_less_its_erosion(agrees_with, distance):
    truth, guess = masks(seed=1), masks(seed=1).roll(1, dims=2) | masks(seed=2)[:, :1]

    def band(mask):
        square = np.ones((3, 3))
        return mask & ~scipy.ndimage.binary_erosion(mask, square, iterations=distance, border_value=0)

    theirs = []
    for one, other in zip(truth.numpy(), guess.numpy(), strict=True):
        theirs.append((band(one) & band(other)).sum() / (band(one) | band(other)).sum())
    ours = boundary_iou(truth, guess, distance)
    agrees_with(boundary_iou, "scipy.ndimage.binary_erosion", ours, theirs, atol=1e-15)
    assert ours.dtype == torch.float64


@pytest.mark.parametrize("distance", [1, 2, 4])
def test_the_band_holds_the_pixels_within_the_distance_of_a_pixel_outside(agrees_with, distance):
    truth = masks(1, seed=3)[0]
    guess = truth & masks(1, seed=4)[0]

    def band(mask):
        away = scipy.ndimage.distance_transform_cdt(np.pad(mask, 1), "chessboard")[1:-1, 1:-1]
        return (away > 0) & (away <= distance)

    one, other = band(truth.numpy()), band(guess.numpy())
    expected = (one & other).sum() / (one | other).sum()
    agrees_with(
        boundary_iou,
        "scipy.ndimage.distance_transform_cdt",
        boundary_iou(truth, guess, distance),
        expected,
        atol=1e-15,
    )


def test_a_band_as_wide_as_the_mask_gives_the_iou_of_the_mask():
    truth, guess = masks(seed=5), masks(seed=6)
    iou = [float(iou_per_class(confusion_matrix(t, g, 2))[1]) for t, g in zip(truth, guess, strict=True)]
    assert boundary_iou(truth, guess, 40).tolist() == pytest.approx(iou, abs=1e-15)
    assert boundary_iou(truth, guess, 1).tolist() != pytest.approx(iou, abs=1e-3)
    assert torch.equal(boundary_iou(truth, guess, 10**12), boundary_iou(truth, guess, 40))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 7), (5, 5), (6, 2)])
def test_a_band_in_an_image_of_any_size_is_that_of_repeated_erosion(agrees_with, size):
    generator = torch.Generator().manual_seed(15)
    truth, guess = (torch.rand(40, *size, generator=generator) < 0.9 for _ in range(2))
    for distance in (1, 2, 3, 9):
        theirs = []
        for pair in zip(truth.numpy(), guess.numpy(), strict=True):
            kept = [scipy.ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=distance) for mask in pair]
            one, other = (mask & ~inner for mask, inner in zip(pair, kept, strict=True))
            theirs.append(divide((one & other).sum(), (one | other).sum()))
        ours = boundary_iou(truth, guess, distance)
        agrees_with(boundary_iou, "scipy.ndimage.binary_erosion", ours, theirs, atol=1e-15)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (3, 0, 0), (3, 2, 0, 4)])
def test_boundary_iou_of_images_without_pixels_is_nan(shape):
    nothing = torch.zeros(shape, dtype=torch.bool)
    assert boundary_iou(nothing, nothing, 2).isnan().all()
    assert boundary_iou(nothing, nothing, 2).shape == shape[:-2]


def test_boundary_iou_of_empty_masks_is_nan_and_of_one_empty_mask_zero():
    empty, full = torch.zeros(5, 5, dtype=torch.bool), torch.ones(5, 5, dtype=torch.bool)
    assert boundary_iou(empty, empty, 1).isnan()
    assert float(boundary_iou(empty, full, 1)) == 0.0
    assert float(boundary_iou(full, full, 1)) == 1.0
    assert boundary_iou(full, full, 1).shape == ()


def test_boundary_iou_keeps_leading_axes_and_takes_strided_masks():
    truth, guess = masks(6, seed=7), masks(6, seed=8)
    apart = torch.stack([boundary_iou(t, g, 2) for t, g in zip(truth, guess, strict=True)])
    assert torch.equal(
        boundary_iou(truth.reshape(2, 3, 24, 31), guess.reshape(2, 3, 24, 31), 2).flatten(), apart
    )
    assert boundary_iou(truth[:0], guess[:0], 2).shape == (0,)
    assert torch.equal(boundary_iou(truth.mT, guess.mT, 2), apart)


@pytest.mark.parametrize(
    ("truth", "guess", "distance", "message"),
    [
        (
            torch.ones(4, 4).bool(),
            torch.ones(4, 5).bool(),
            1,
            r"^expected two masks \(\.\.\., H, W\) of one shape, got \(4, 4\) and \(4, 5\)$",
        ),
        (torch.ones(4).bool(), torch.ones(4).bool(), 1, r"one shape, got \(4,\) and \(4,\)$"),
        (
            torch.ones(4, 4),
            torch.ones(4, 4).bool(),
            1,
            r"^expected boolean masks, got torch\.float32 and torch\.bool$",
        ),
        (torch.ones(4, 4).bool(), torch.ones(4, 4).int(), 1, r"got torch\.bool and torch\.int32$"),
        (torch.ones(4, 4).bool(), torch.ones(4, 4).bool(), 0, r"^distance must be at least 1, got 0$"),
    ],
)
def test_boundary_iou_refuses_other_shapes_dtypes_and_distances(truth, guess, distance, message):
    with pytest.raises(ValueError, match=message):
        boundary_iou(truth, guess, distance)


# --- solutions of the exercises ------------------------------------------------------------------


def test_iou_from_dice_is_that_of_sklearns_two_scores(agrees_with):
    truth, guess = labels(6, seed=9)
    dice = sklearn.metrics.f1_score(*flat(truth, guess), average=None)
    iou = sklearn.metrics.jaccard_score(*flat(truth, guess), average=None)
    agrees_with(
        iou_from_dice,
        "sklearn.metrics.jaccard_score",
        [iou_from_dice(float(d)) for d in dice],
        iou,
        atol=1e-15,
    )
    assert (iou_from_dice(0), iou_from_dice(1)) == (0, 1)


def test_the_mean_of_dice_does_not_give_the_mean_of_iou():
    assert (iou_from_dice(0.2) + iou_from_dice(1.0)) / 2 != pytest.approx(iou_from_dice(0.6), abs=0.05)


@pytest.mark.parametrize("dice", [-0.1, 1.1, math.nan])
def test_iou_from_dice_refuses_what_is_no_dice(dice):
    with pytest.raises(ValueError, match=f"^dice must lie in 0 to 1, got {dice}$"):
        iou_from_dice(dice)


def test_a_shifted_squares_iou_is_that_of_two_sets_of_pixels(agrees_with):
    ours, theirs = [], []
    for side, down, right in product((1, 2, 5, 8), (-2, 0, 1, 9), (0, 1, 3, -5)):
        square = set(product(range(side), repeat=2))
        moved = {(row + down, column + right) for row, column in square}
        theirs.append(len(square & moved) / len(square | moved))
        ours.append(shifted_square_iou(side, down, right))
    agrees_with(shifted_square_iou, "brute force: sets of pixels", ours, theirs, atol=1e-15)


@pytest.mark.parametrize("side", [4, 10, 64])
def test_one_shift_alone_costs_two_d_over_s_plus_d(agrees_with, side):
    shifts = range(side + 1)
    agrees_with(
        shifted_square_iou,
        "closed form: (s - d) / (s + d)",
        [shifted_square_iou(side, shift) for shift in shifts],
        [(side - shift) / (side + shift) for shift in shifts],
        atol=1e-15,
    )


@pytest.mark.parametrize("side", [0, -3])
def test_a_square_has_a_side(side):
    with pytest.raises(ValueError, match=f"^side must be at least 1, got {side}$"):
        shifted_square_iou(side, 1)


@pytest.mark.parametrize(("by", "theirs"), [("truth", "true"), ("prediction", "pred"), ("all", "all")])
def test_shares_are_those_of_sklearn(agrees_with, by, theirs):
    truth, guess = labels(5, seed=10)
    reference = sklearn.metrics.confusion_matrix(*flat(truth, guess), normalize=theirs)
    ours = normalize_confusion(confusion_matrix(truth, guess, 5), by)
    agrees_with(normalize_confusion, "sklearn.metrics.confusion_matrix", ours, reference, atol=1e-15)
    assert ours.dtype == torch.float64


def test_the_diagonal_of_shares_is_recall_or_precision_and_nan_where_there_is_nothing():
    cm = torch.tensor([[3, 1, 0], [0, 0, 0], [2, 2, 0]])
    for by, metric in [("truth", class_accuracy), ("prediction", precision_per_class)]:
        diagonal = normalize_confusion(cm, by).diagonal()
        torch.testing.assert_close(diagonal, metric(cm), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(normalize_confusion(cm)[0], torch.tensor([0.75, 0.25, 0.0]).double())
    assert normalize_confusion(cm, "all").sum() == 1


def test_shares_by_another_word_are_refused():
    with pytest.raises(ValueError, match=r"^by must be one of truth, prediction, all, got 'rows'$"):
        normalize_confusion(torch.eye(2).long(), "rows")


@pytest.mark.parametrize("groups", [(0, 1, 2, 3, 4), (0, 0, 1, 1, 2), (1, 0, 1, 0, 1), (0, 0, 0, 0, 0)])
def test_joining_classes_is_relabelling_both_images(agrees_with, groups):
    truth, guess = labels(5, seed=11)
    cm = confusion_matrix(truth, guess, 5)
    before, table = cm.clone(), np.array(groups)
    one, other = flat(truth, guess)
    theirs = sklearn.metrics.confusion_matrix(table[one], table[other], labels=range(max(groups) + 1))
    agrees_with(merge_classes, "sklearn.metrics.confusion_matrix", merge_classes(cm, groups), theirs)
    assert torch.equal(cm, before)


def test_joining_classes_cannot_lower_the_pixel_accuracy():
    cm = confusion_matrix(*labels(5, seed=12), 5)
    assert pixel_accuracy(merge_classes(cm, [0, 0, 1, 1, 2])) > pixel_accuracy(cm)
    assert pixel_accuracy(merge_classes(cm, [4, 3, 2, 1, 0])) == pixel_accuracy(cm)


@pytest.mark.parametrize("groups", [[0, 1], [0, 1, 2, 2], [0, 2, 2], [-1, 0, 1], [1, 1, 1], []])
def test_groups_that_miss_a_class_or_leave_a_number_out_are_refused(groups):
    with pytest.raises(
        ValueError, match=r"^groups must be 3 numbers that use each of 0 to G - 1, got \["
    ) as caught:
        merge_classes(torch.eye(3).long(), groups)
    assert str(caught.value).endswith(str(groups))


def test_only_counts_can_be_joined():
    with pytest.raises(
        ValueError, match=r"^expected a square matrix of integer counts, got \(2, 3\) of torch\.int64$"
    ):
        merge_classes(torch.zeros(2, 3).long(), [0, 1])


def test_a_matrix_without_classes_has_nothing_to_join():
    with pytest.raises(ValueError, match=r"^groups must be 0 numbers that use each of 0 to G - 1, got \[\]$"):
        merge_classes(torch.zeros(0, 0).long(), [])


def test_one_pixel_out_of_range_is_enough_for_compute_to_raise():
    meter = SegmentationMeter(2)
    meter.update(torch.tensor([2]), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"^1 pixels had a target or a prediction out of 0 to 1$"):
        meter.compute()


def test_merging_keeps_the_device_of_the_meter_that_takes_in():
    one, other = SegmentationMeter(2), SegmentationMeter(2)
    one.update(
        torch.zeros(3, dtype=torch.int64, device="meta"), torch.zeros(3, dtype=torch.int64, device="meta")
    )
    one.merge(other)
    assert one.cells.device.type == "meta"
