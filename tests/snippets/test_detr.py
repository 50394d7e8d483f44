"""What the page on DETR claims, against references that share no code with it."""

import math
import re
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch.nn import functional as F
from torchmetrics.functional.detection import panoptic_quality as torchmetrics_panoptic_quality
from transformers import DetrConfig, DetrForObjectDetection
from transformers.image_transforms import center_to_corners_format, corners_to_center_format
from transformers.loss import loss_for_object_detection as reference
from transformers.models.detr import modeling_detr
from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil

from snippets.detr import (
    Detr,
    DetrBackbone,
    DetrDecoder,
    DetrDecoderLayer,
    DetrEncoderLayer,
    DetrLoss,
    HungarianMatcher,
    MaskHead,
    SinePositionEmbedding,
    average_precision,
    box_area,
    box_cxcywh_to_xyxy,
    box_iou,
    box_xyxy_to_cxcywh,
    generalized_box_iou,
    greedy_assignment,
    inflated_score,
    linear_assignment,
    mask_loss,
    merge_panoptic,
    non_maximum_suppression,
    panoptic_quality,
    post_process,
    set_loss,
    shifted_square_giou,
)

K, Q = 3, 5


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def centered(*shape, dtype=torch.float32, seed=0):
    """Boxes as center and size in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    center = 0.2 + 0.6 * torch.rand(*shape, 2, generator=generator, dtype=dtype)
    return torch.cat([center, 0.05 + 0.3 * torch.rand(*shape, 2, generator=generator, dtype=dtype)], dim=-1)


def corners(*shape, dtype=torch.float32, seed=0, scale=100):
    """Boxes as corners, of which some overlap."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(*shape, 2, generator=generator, dtype=dtype)
    size = 0.05 + 0.5 * torch.rand(*shape, 2, generator=generator, dtype=dtype)
    return torch.cat([low, low + size], dim=-1) * scale


def problem(counts=(2, 0, 3), seed=0, aux=0, queries=Q, dtype=torch.float32):
    """Outputs of a model and targets with `counts` objects."""
    generator = torch.Generator().manual_seed(seed)
    layers = [
        {
            "pred_logits": torch.randn(len(counts), queries, K + 1, generator=generator, dtype=dtype),
            "pred_boxes": centered(len(counts), queries, seed=seed + 7 * layer + 1, dtype=dtype),
        }
        for layer in range(aux + 1)
    ]
    targets = [
        {
            "labels": torch.randint(0, K, (n,), generator=generator),
            "boxes": centered(n, seed=seed + 50 + i, dtype=dtype),
        }
        for i, n in enumerate(counts)
    ]
    return layers[-1] | ({"aux_outputs": layers[:-1]} if aux else {}), targets


def as_transformers(outputs, targets):
    ours = {"logits": outputs["pred_logits"], "pred_boxes": outputs["pred_boxes"]}
    if "aux_outputs" in outputs:
        ours["auxiliary_outputs"] = [as_transformers(layer, [])[0] for layer in outputs["aux_outputs"]]
    return ours, [{"class_labels": t["labels"], "boxes": t["boxes"]} for t in targets]


# --- boxes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 3)])
def test_box_forms_are_those_of_transformers_and_inverse(agrees_with, dtype, shape):
    boxes = centered(*shape).to(dtype)
    there = box_cxcywh_to_xyxy(boxes)
    atol = {torch.float16: 2e-3, torch.bfloat16: 2e-2}.get(dtype, 2e-7)
    assert there.dtype == boxes.dtype
    assert there.shape == boxes.shape
    if shape:
        name = "transformers.image_transforms.center_to_corners_format"
        agrees_with(box_cxcywh_to_xyxy, name, there, center_to_corners_format(boxes))
        name = "transformers.image_transforms.corners_to_center_format"
        agrees_with(box_xyxy_to_cxcywh, name, box_xyxy_to_cxcywh(there), corners_to_center_format(there))
    assert torch.allclose(box_xyxy_to_cxcywh(there), boxes, atol=atol)
    assert box_xyxy_to_cxcywh(there).dtype == dtype


def test_known_boxes():
    assert box_cxcywh_to_xyxy(torch.tensor([5.0, 7, 4, 2])).tolist() == [3, 6, 7, 8]
    assert box_xyxy_to_cxcywh(torch.tensor([3.0, 6, 7, 8])).tolist() == [5, 7, 4, 2]
    assert box_area(torch.tensor([3.0, 6, 7, 8])) == 8


@pytest.mark.parametrize("function", [box_cxcywh_to_xyxy, box_xyxy_to_cxcywh, box_area])
@pytest.mark.parametrize("shape", [(), (3,), (4, 5)])
def test_boxes_of_other_than_four_numbers_are_refused(function, shape):
    with pytest.raises(
        ValueError, match=rf"^boxes need 4 numbers each, got shape \({', '.join(map(str, shape))}"
    ):
        function(torch.zeros(shape))


def test_areas_and_overlaps_are_counted_pixels(agrees_with):
    generator = torch.Generator().manual_seed(3)
    low = torch.randint(0, 20, (6, 2), generator=generator)
    boxes = torch.cat([low, low + torch.randint(1, 15, (6, 2), generator=generator)], dim=1)

    def cells(box):
        x1, y1, x2, y2 = box.tolist()
        return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}

    areas = [len(cells(box)) for box in boxes]
    agrees_with(box_area, "brute force: the pixels of the box counted", box_area(boxes), areas)
    iou, union = box_iou(boxes[:2], boxes[2:])
    counted = [[len(cells(a) | cells(b)) for b in boxes[2:]] for a in boxes[:2]]
    shared = [[len(cells(a) & cells(b)) for b in boxes[2:]] for a in boxes[:2]]
    name = "brute force: pixels in both boxes over pixels in either"
    agrees_with(box_iou, name, union, counted)
    agrees_with(box_iou, name, iou, np.array(shared) / np.array(counted), atol=1e-7)
    assert np.max(shared) > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_iou_and_giou_are_those_of_transformers(agrees_with, dtype):
    a, b = corners(6, dtype=torch.float64).to(dtype), corners(4, seed=1, dtype=torch.float64).to(dtype)
    iou, union = box_iou(a, b)
    up = (t if dtype == torch.float64 else t.float() for t in (a, b))
    a32, b32 = up
    theirs, their_union = reference.box_iou(a32, b32)
    atol = 1e-15 if dtype == torch.float64 else 1e-6
    name = "transformers.loss.loss_for_object_detection.box_iou"
    agrees_with(box_iou, name, iou, theirs, atol=atol)
    agrees_with(box_iou, name, union, their_union)
    name = "transformers.loss.loss_for_object_detection.generalized_box_iou"
    giou = generalized_box_iou(a, b)
    agrees_with(generalized_box_iou, name, giou, reference.generalized_box_iou(a32, b32), atol=atol)
    assert giou.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert (giou < 0).any()
    assert (giou > 0).any()
    assert (giou >= -1).all()
    assert (giou <= iou + 1e-6).all()


def test_half_precision_does_not_overflow():
    box = torch.tensor([[0.0, 0.0, 300.0, 300.0]], dtype=torch.float16)
    assert box_area(box).tolist() == [90000]
    assert box_iou(box, box)[0].tolist() == [[1]]
    assert generalized_box_iou(box, box).tolist() == [[1]]


def test_boxes_without_area_give_no_nan_and_no_nan_gradient():
    point = torch.tensor([[2.0, 2, 2, 2]], requires_grad=True)
    far = torch.tensor([[5.0, 6, 5, 6]])
    assert generalized_box_iou(point, point.detach()).tolist() == [[0]]
    assert box_iou(point, point.detach())[0].tolist() == [[0]]
    assert generalized_box_iou(point, far).tolist() == [[-1]]
    line = torch.tensor([[2.0, 2, 2, 9]])  # no hull either
    assert generalized_box_iou(line, line).tolist() == [[0]]
    generalized_box_iou(point, torch.cat([point.detach(), far])).sum().backward()
    assert point.grad.isfinite().all()
    assert reference.generalized_box_iou(far, far).isnan().all()  # the published one


def test_giou_has_a_slope_where_iou_has_none():
    a = torch.tensor([[0.0, 0, 1, 1]], requires_grad=True)
    b = torch.tensor([[3.0, 0, 4, 1]])
    iou, _ = box_iou(a, b)
    assert torch.autograd.grad(iou.sum(), a)[0].abs().sum() == 0
    assert torch.autograd.grad(generalized_box_iou(a, b).sum(), a)[0].abs().sum() > 0
    a64 = corners(3, dtype=torch.float64, scale=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a: generalized_box_iou(a, corners(2, seed=4, dtype=torch.float64, scale=1)), a64
    )


@pytest.mark.parametrize("bad", [[1.0, 0, 0, 1], [0.0, 1, 1, 0], [math.nan, 0, 1, 1]])
def test_corners_in_the_wrong_order_are_refused(bad):
    good = torch.tensor([[0.0, 0, 1, 1]])
    both = torch.cat([good, torch.tensor([bad])])
    message = f"expected corners x1 <= x2 and y1 <= y2, got {[float(x) for x in bad]}"
    for pair in ((good, both), (both, good)):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            generalized_box_iou(*pair)


def test_shapes_of_pairs_are_checked_and_may_be_empty():
    good = torch.zeros(2, 4)
    for a, b in ((torch.zeros(4), good), (good, torch.zeros(4)), (torch.zeros(1, 2, 4), good)):
        shapes = re.escape(f"{tuple(a.shape)} and {tuple(b.shape)}")
        for function in (box_iou, generalized_box_iou):
            with pytest.raises(ValueError, match=rf"^expected \(N, 4\) and \(M, 4\), got {shapes}$"):
                function(a, b)
    for wide in (torch.zeros(2, 5), torch.zeros(2, 6)):
        for pair in ((wide, good), (good, wide)):
            for function in (box_iou, generalized_box_iou):
                with pytest.raises(ValueError, match=r"^boxes need 4 numbers each, got shape \(2, [56]\)$"):
                    function(*pair)
    assert box_iou(good, torch.zeros(0, 4))[0].shape == (2, 0)
    assert generalized_box_iou(torch.zeros(0, 4), good).shape == (0, 2)


def test_non_contiguous_boxes_are_left_as_they_were():
    turned = corners(5).T.contiguous().T
    before = turned.clone()
    assert not turned.is_contiguous()
    assert torch.equal(generalized_box_iou(turned, turned), generalized_box_iou(before, before))
    assert torch.equal(box_xyxy_to_cxcywh(turned), box_xyxy_to_cxcywh(before))
    assert torch.equal(turned, before)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.1, 50), st.floats(0, 100))
def test_giou_of_a_shifted_square_is_its_closed_form(side, shift):
    a = torch.tensor([[0, 0, side, side]], dtype=torch.float64)
    b = a + torch.tensor([shift, 0, shift, 0], dtype=torch.float64)
    assert float(generalized_box_iou(a, b)) == pytest.approx(shifted_square_giou(side, shift), abs=1e-12)


def test_shifted_square(agrees_with):
    shifts = [0, 0.5, 1, 2, 9]
    a = torch.tensor([[0.0, 0, 2, 2]])
    boxes = torch.cat([a + torch.tensor([0.0, d, 0, d]) for d in shifts])
    agrees_with(
        shifted_square_giou,
        "transformers.loss.loss_for_object_detection.generalized_box_iou",
        [shifted_square_giou(2, d) for d in shifts],
        reference.generalized_box_iou(a, boxes)[0],
        atol=1e-6,
    )
    for side, shift in ((0, 1), (-1, 1), (1, -0.1)):
        with pytest.raises(ValueError, match=rf"^expected side > 0 and shift >= 0, got {side} and {shift}$"):
            shifted_square_giou(side, shift)


# --- position codes ------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("temperature", [10000, 20])
def test_position_codes_are_those_of_transformers(agrees_with, normalize, temperature):
    mask = torch.zeros(2, 5, 7, dtype=torch.bool)
    mask[1, 3:], mask[1, :, 4:] = True, True
    ours = SinePositionEmbedding(16, temperature, normalize)(mask)
    theirs = modeling_detr.DetrSinePositionEmbedding(8, temperature, normalize)
    theirs = theirs((2, 3, 5, 7), "cpu", torch.float32, mask=~mask)
    name = "transformers.models.detr.modeling_detr.DetrSinePositionEmbedding"
    agrees_with(SinePositionEmbedding, name, ours, theirs, atol=2e-6)
    assert ours.shape == (2, 16, 5, 7)


def test_codes_of_the_picture_do_not_depend_on_its_padding_when_normalized():
    code = SinePositionEmbedding(8)
    mask = torch.zeros(1, 9, 9, dtype=torch.bool)
    mask[:, 4:], mask[:, :, 6:] = True, True
    small = code(torch.zeros(1, 4, 6, dtype=torch.bool))
    assert torch.allclose(code(mask)[..., :4, :6], small)
    assert SinePositionEmbedding(8).normalize
    assert not torch.allclose(code(~mask)[..., :4, :6], small)


def test_position_codes_refuse_bad_input():
    for dim in (0, 2, 6, -4):
        with pytest.raises(ValueError, match=f"^dim must be a multiple of 4, got {dim}$"):
            SinePositionEmbedding(dim)
    for bad in (torch.zeros(2, 3, dtype=torch.bool), torch.zeros(1, 2, 3)):
        with pytest.raises(ValueError, match=r"^expected a boolean mask \(B, H, W\), got \("):
            SinePositionEmbedding(4)(bad)
    assert SinePositionEmbedding(4)(torch.zeros(0, 2, 3, dtype=torch.bool)).shape == (0, 4, 2, 3)
    elsewhere = torch.zeros(1, 2, 3, dtype=torch.bool, device="meta")
    assert SinePositionEmbedding(4)(elsewhere).device.type == "meta"


# --- assignment ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(0, 0), (0, 3), (3, 0), (1, 1), (1, 5), (5, 1), (4, 4), (6, 3), (3, 6), (20, 30), (30, 20)]
)
@pytest.mark.parametrize("kind", ["real", "integer", "negative"])
def test_assignment_costs_what_scipys_does(agrees_with, shape, kind):
    random = np.random.default_rng(len(kind) + 31 * shape[0] + shape[1])
    cost = random.normal(size=shape) if kind == "real" else random.integers(0, 4, shape)
    cost = cost - 100 if kind == "negative" else cost
    before = cost.copy()
    rows, columns = linear_assignment(cost)
    theirs = scipy.optimize.linear_sum_assignment(cost)
    name = "scipy.optimize.linear_sum_assignment"
    agrees_with(linear_assignment, name, cost[rows, columns].sum(), cost[theirs].sum())
    assert (cost == before).all()
    assert len(rows) == len(columns) == min(shape)
    assert (np.diff(rows) > 0).all()
    assert len(set(columns.tolist())) == len(columns)
    if kind == "real":  # no ties
        agrees_with(linear_assignment, name, columns, theirs[1])


def best_by_trying(cost):
    n, m = cost.shape
    if n > m:
        return best_by_trying(cost.T)
    return min(sum(cost[i, j] for i, j in enumerate(p)) for p in permutations(range(m), n))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 10**6))
def test_assignment_is_the_best_of_all(rows, columns, seed):
    cost = np.random.default_rng(seed).integers(-5, 6, (rows, columns)).astype(float)
    chosen = linear_assignment(cost)
    assert cost[chosen].sum() == best_by_trying(cost)


@pytest.mark.parametrize("assign", [linear_assignment, greedy_assignment])
def test_assignments_refuse_what_is_no_finite_matrix(assign):
    for bad in (np.zeros(3), np.zeros((1, 2, 3)), np.array([[math.nan]]), np.array([[1, math.inf]])):
        with pytest.raises(ValueError, match=r"^expected a matrix of finite costs, got shape \("):
            assign(bad)


def test_greedy_takes_the_cheapest_first_and_may_pay_more(agrees_with):
    for seed in range(20):
        shape = (5, 4) if seed % 2 else (3, 6)
        cost = np.random.default_rng(seed).normal(size=shape)
        free_rows, free_columns, pairs = set(range(shape[0])), set(range(shape[1])), []
        while free_rows and free_columns:
            pair = min(((i, j) for i in free_rows for j in free_columns), key=lambda ij: cost[ij])
            pairs.append(pair)
            free_rows.remove(pair[0])
            free_columns.remove(pair[1])
        before = cost.copy()
        rows, columns = greedy_assignment(cost)
        agrees_with(
            greedy_assignment,
            "brute force: a search of all free pairs",
            np.stack([rows, columns], 1),
            sorted(pairs),
        )
        assert (cost == before).all()
        assert cost[rows, columns].sum() >= cost[linear_assignment(cost)].sum() - 1e-12
    for shape in ((0, 3), (3, 0)):
        for assign in (greedy_assignment, linear_assignment):
            parts = assign(np.zeros(shape))
            assert [part.tolist() for part in parts] == [[], []]
            assert {part.dtype for part in parts} == {np.dtype(np.int64)}
    whole = np.array([[1, 2], [2, 9]])
    assert [part.tolist() for part in greedy_assignment(whole)] == [[0, 1], [0, 1]]
    assert [part.tolist() for part in linear_assignment(whole)] == [[0, 1], [1, 0]]
    assert whole.tolist() == [[1, 2], [2, 9]]


# --- matcher -------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(1, 5, 2), (2, 0.1, 0), (0, 1, 0), (0, 0, 3)])
def test_matcher_pairs_as_transformers_does(agrees_with, weights):
    for seed in range(5):
        outputs, targets = problem((2, 0, 3, 5, 1), seed=seed)
        theirs = reference.HungarianMatcher(*weights)(*as_transformers(outputs, targets))
        ours = HungarianMatcher(*weights)(outputs, targets)
        for (query, target), (their_query, their_target) in zip(ours, theirs, strict=True):
            name = "transformers.loss.loss_for_object_detection.HungarianMatcher"
            agrees_with(HungarianMatcher, name, query, their_query)
            agrees_with(HungarianMatcher, name, target, their_target)
            assert query.dtype == target.dtype == torch.int64
    assert vars(HungarianMatcher()) == vars(HungarianMatcher(1, 5, 2, linear_assignment))


def test_matching_is_optimal_among_all_injections(agrees_with):
    outputs, targets = problem((2, 3, 4), seed=3, dtype=torch.float64)
    matcher = HungarianMatcher()
    for i, (query, target) in enumerate(matcher(outputs, targets)):
        probability = outputs["pred_logits"][i].softmax(-1)
        cost = np.zeros((Q, len(targets[i]["labels"])))
        for q in range(Q):
            for t, label in enumerate(targets[i]["labels"]):
                a, b = outputs["pred_boxes"][i, q], targets[i]["boxes"][t]
                giou = reference.generalized_box_iou(*(center_to_corners_format(x)[None] for x in (a, b)))
                cost[q, t] = -probability[q, label] + 5 * (a - b).abs().sum() - 2 * giou
        name = "brute force: the cost of every pair, and of every injection"
        agrees_with(HungarianMatcher, name, matcher.costs(outputs, targets)[i], cost, atol=5e-14)
        agrees_with(HungarianMatcher, name, cost[query, target].sum(), best_by_trying(cost), atol=5e-14)


def test_images_without_objects_and_with_too_many():
    outputs, targets = problem((0, Q + 2))
    (none, _), (query, target) = HungarianMatcher()(outputs, targets)
    assert none.tolist() == []
    assert none.dtype == torch.int64
    assert query.tolist() == list(range(Q))
    assert len(set(target.tolist())) == Q
    outputs, targets = problem((0, 0))
    assert [pair[0].shape for pair in HungarianMatcher()(outputs, targets)] == [(0,), (0,)]
    outputs, targets = problem(())
    assert HungarianMatcher()(outputs, targets) == []


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.float32])
def test_labels_of_any_type_and_of_no_object(kind):
    outputs, targets = problem((2, 0, 3))
    typed = [{**target, "labels": target["labels"].to(kind)} for target in targets]
    for ours, theirs in zip(
        HungarianMatcher()(outputs, typed), HungarianMatcher()(outputs, targets), strict=True
    ):
        assert all(map(torch.equal, ours, theirs))
    loss = DetrLoss(K, HungarianMatcher())
    assert torch.equal(loss(outputs, typed)["loss"], loss(outputs, targets)["loss"])


def test_permuted_queries_and_targets_keep_the_pairs():
    outputs, targets = problem((3,), seed=2)
    ((query, target),) = HungarianMatcher()(outputs, targets)
    order = torch.tensor([3, 1, 4, 0, 2])
    moved = {key: value[:, order] for key, value in outputs.items()}
    ((moved_query, moved_target),) = HungarianMatcher()(moved, targets)
    assert dict(zip(order[moved_query].tolist(), moved_target.tolist(), strict=True)) == dict(
        zip(query.tolist(), target.tolist(), strict=True)
    )


def test_matcher_refuses_bad_targets_and_takes_no_gradient():
    outputs, targets = problem((1, 1))
    with pytest.raises(ValueError, match=r"^2 images, but 1 targets$"):
        HungarianMatcher()(outputs, targets[:1])
    for bad in (-1, K):
        wrong = [targets[0], {**targets[1], "labels": torch.tensor([bad])}]
        with pytest.raises(
            ValueError,
            match=rf"^labels must lie in 0 to {K - 1}, got \[{int(targets[0]['labels'])}, {bad}\]$",
        ):
            HungarianMatcher()(outputs, wrong)
    broken = {**outputs, "pred_logits": outputs["pred_logits"] * math.nan}
    with pytest.raises(ValueError, match=r"^expected a matrix of finite costs"):
        HungarianMatcher()(broken, targets)
    outputs["pred_boxes"].requires_grad_()
    assert not HungarianMatcher().costs(outputs, targets)[0].requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs_are_matched_and_scored_in_float32(dtype):
    outputs, targets = problem((2, 3))
    half = {key: value.to(dtype) for key, value in outputs.items()}
    whole = {key: value.float() for key, value in half.items()}
    for ours, theirs in zip(
        HungarianMatcher()(half, targets), HungarianMatcher()(whole, targets), strict=True
    ):
        assert all(map(torch.equal, ours, theirs))
    costs = zip(HungarianMatcher().costs(half, targets), HungarianMatcher().costs(whole, targets), strict=True)
    assert all(torch.equal(*pair) for pair in costs)
    loss = DetrLoss(K, HungarianMatcher())
    assert torch.equal(loss(half, targets)["loss"], loss(whole, targets)["loss"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_targets_of_another_precision_do_not_change_that_of_the_loss(dtype):
    outputs, targets = problem((2, 3))
    other = [{**target, "boxes": target["boxes"].to(dtype)} for target in targets]
    same = [{**target, "boxes": target["boxes"].float()} for target in other]
    ours, theirs = (DetrLoss(K, HungarianMatcher())(outputs, each) for each in (other, same))
    assert all(value.dtype == torch.float32 for value in ours.values())
    assert ours == theirs


def test_probability_not_its_logarithm():
    """The published matcher with log p gives another pairing; the one of the paper is ours."""
    logits = torch.tensor([[[math.log(0.3), math.log(0.7)], [math.log(0.02), math.log(0.98)]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.4, 0.4], [0.55, 0.5, 0.4, 0.4]]])
    target = {"labels": torch.tensor([0]), "boxes": torch.tensor([[0.56, 0.5, 0.4, 0.4]])}
    (cost,) = HungarianMatcher().costs({"pred_logits": logits, "pred_boxes": boxes}, [target])
    as_log = cost + logits.exp()[0, :, :1] - logits[0, :, :1]
    assert cost.argmin() == 1
    assert as_log.argmin() == 0


# --- loss ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weight", [0.1, 1.0, 0.0])
@pytest.mark.parametrize("counts", [(2, 0, 3), (0, 0), (5,), (7, 1), (1, 0)])
def test_losses_are_those_of_transformers(agrees_with, dtype, weight, counts):
    outputs, targets = problem(counts, aux=2, dtype=dtype)
    ours = DetrLoss(K, HungarianMatcher(), weight)(outputs, targets)
    criterion = reference.ImageLoss(reference.HungarianMatcher(1, 5, 2), K, weight, ["labels", "boxes"])
    criterion.empty_weight = torch.tensor([1, 1, 1, weight], dtype=dtype)
    theirs = criterion(*as_transformers(outputs, targets))
    assert set(ours) == set(theirs) | {"loss"}
    scale = {"ce": 1, "bbox": 5, "giou": 2}
    name = "transformers.loss.loss_for_object_detection.ImageLoss"
    atol = {torch.float32: 2e-6, torch.float64: 4e-15}[dtype]
    for key, value in theirs.items():
        if weight == 0 and not any(counts) and "ce" in key:
            assert value.isnan()
            value = torch.zeros(())
        agrees_with(DetrLoss, name, ours[key], value, atol=atol)
        assert ours[key].dtype == dtype
    total = sum(scale[key.split("_")[1]] * ours[key] for key in theirs)
    assert float(ours["loss"]) == pytest.approx(float(total), rel=1e-6)
    of_layer = set_loss(outputs, targets, HungarianMatcher()(outputs, targets), weight)
    for key, value in of_layer.items():
        if not (weight == 0 and not any(counts)):
            agrees_with(set_loss, name, value, theirs[key], atol=atol)
    assert list(of_layer) == ["loss_ce", "loss_bbox", "loss_giou"]


def test_losses_by_hand(agrees_with):
    outputs, targets = problem((2, 1), seed=4)
    pairs = HungarianMatcher()(outputs, targets)
    pairs[0] = (pairs[0][0].flip(0), pairs[0][1])  # not the best pairs: the loss takes what it is given
    entropy = weights = distance = giou = 0.0
    for i, (query, target) in enumerate(pairs):
        label = dict(zip(query.tolist(), targets[i]["labels"][target].tolist(), strict=True))
        for q in range(Q):
            weight = 1.0 if q in label else 0.1
            entropy -= weight * outputs["pred_logits"][i, q].log_softmax(-1)[label.get(q, K)].item()
            weights += weight
        ours, theirs = outputs["pred_boxes"][i, query], targets[i]["boxes"][target]
        distance += (ours - theirs).abs().sum().item()
        for a, b in zip(ours, theirs, strict=True):
            pair = (center_to_corners_format(x)[None] for x in (a, b))
            giou += float(reference.generalized_box_iou(*pair))
    ours = set_loss(outputs, targets, pairs)
    name = "brute force: a loop over the queries"
    agrees_with(set_loss, name, ours["loss_ce"], entropy / weights, atol=1e-6)
    agrees_with(set_loss, name, ours["loss_bbox"], distance / 3, atol=1e-6)
    agrees_with(set_loss, name, ours["loss_giou"], 1 - giou / 3, atol=1e-6)
    best = DetrLoss(K, HungarianMatcher())(outputs, targets)
    doubled = DetrLoss(K, HungarianMatcher(), weights=(2, 0, 0))(outputs, targets)
    assert float(doubled["loss"]) == pytest.approx(2 * float(best["loss_ce"]))


def test_loss_ignores_the_order_of_objects_and_queries():
    outputs, targets = problem((4, 2), aux=1)
    loss = DetrLoss(K, HungarianMatcher())
    turned = [{key: value.flip(0) for key, value in target.items()} for target in targets]
    assert torch.allclose(loss(outputs, targets)["loss"], loss(outputs, turned)["loss"])
    flipped = {key: outputs[key].flip(1) for key in ("pred_logits", "pred_boxes")}
    assert torch.allclose(loss(flipped, targets)["loss_ce"], loss(outputs, targets)["loss_ce"])


def test_loss_has_gradients_even_without_objects_and_with_empty_batches():
    loss = DetrLoss(K, HungarianMatcher())
    for counts, queries in (((0, 0), Q), ((2, 1), Q), ((), Q), ((2,), 0)):
        outputs, targets = problem(counts, queries=queries)
        outputs = {key: value.requires_grad_() for key, value in outputs.items()}
        losses = loss(outputs, targets)
        losses["loss"].backward()
        assert losses["loss"].isfinite()
        assert all(value.grad is not None and value.grad.isfinite().all() for value in outputs.values())
    outputs, targets = problem((2, 1), seed=1, dtype=torch.float64)
    parts = [outputs[key].requires_grad_() for key in ("pred_logits", "pred_boxes")]
    assert torch.autograd.gradcheck(
        lambda x, b: loss({"pred_logits": x, "pred_boxes": b}, targets)["loss"], parts
    )


def test_loss_refuses_logits_of_other_classes_and_has_no_parameters():
    outputs, targets = problem((1,))
    for classes in (K - 1, K + 1):
        with pytest.raises(ValueError, match=rf"^expected {classes + 1} logits a query, got {K + 1}$"):
            DetrLoss(classes, HungarianMatcher())(outputs, targets)
    with pytest.raises(ValueError, match=r"^zip\(\)"):
        DetrLoss(K, HungarianMatcher(), weights=(1, 5))(outputs, targets)
    loss = DetrLoss(K, HungarianMatcher())
    assert list(loss.parameters()) == []
    assert list(loss.state_dict()) == []


# --- network -------------------------------------------------------------------------------------


def config(dim=16, heads=4, hidden=32, **options):
    return DetrConfig(
        d_model=dim,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=hidden,
        decoder_ffn_dim=hidden,
        use_timm_backbone=False,
        backbone_config={"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8] * 4, "depths": [1] * 4},
        attn_implementation="eager",
        **options,
    )


def trained(module):
    """Norms with scales and shifts, as after a training: a fresh one hides that it is missing or double."""
    for norm in module.modules():
        if isinstance(norm, torch.nn.LayerNorm | torch.nn.GroupNorm):
            torch.nn.init.normal_(norm.weight, 1, 0.3)
            torch.nn.init.normal_(norm.bias)
    return module.eval()


def copy_attention(ours, theirs):
    weights = zip(
        ("q_proj", "k_proj", "v_proj"), ours.in_proj_weight.chunk(3), ours.in_proj_bias.chunk(3), strict=True
    )
    for name, weight, bias in weights:
        getattr(theirs, name).load_state_dict({"weight": weight, "bias": bias})
    theirs.o_proj.load_state_dict(ours.out_proj.state_dict())


def copy_layer(ours, theirs, attentions, norms):
    for name, other in attentions.items():
        copy_attention(getattr(ours, name), getattr(theirs, other))
    for norm, name in zip(ours.norms, norms, strict=True):
        getattr(theirs, name).load_state_dict(norm.state_dict())
    theirs.mlp.fc1.load_state_dict(ours.up.state_dict())
    theirs.mlp.fc2.load_state_dict(ours.down.state_dict())


def additive(padding):
    return padding[:, None, None].float() * -1e9


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
def test_encoder_layer_is_that_of_transformers(agrees_with, padded):
    ours = trained(DetrEncoderLayer(16, 4, 32))
    theirs = modeling_detr.DetrEncoderLayer(config()).eval()
    copy_layer(ours, theirs, {"attention": "self_attn"}, ["self_attn_layer_norm", "final_layer_norm"])
    x, position = torch.randn(2, 2, 7, 16)
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[1, 5:] = padded
    expected = theirs(x, additive(padding), position)
    name = "transformers.models.detr.modeling_detr.DetrEncoderLayer"
    agrees_with(DetrEncoderLayer, name, ours(x, position, padding if padded else None), expected, atol=5e-6)


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
def test_decoder_layer_is_that_of_transformers(agrees_with, padded):
    ours = trained(DetrDecoderLayer(16, 4, 32))
    theirs = modeling_detr.DetrDecoderLayer(config()).eval()
    norms = ["self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"]
    copy_layer(ours, theirs, {"mutual": "self_attn", "cross": "encoder_attn"}, norms)
    x, query_position = torch.randn(2, 2, 3, 16)
    memory, position = torch.randn(2, 2, 7, 16)
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[1, 5:] = padded
    expected = theirs(x, None, position, query_position, memory, additive(padding))
    found, attention = ours(x, query_position, memory, position, padding if padded else None)
    name = "transformers.models.detr.modeling_detr.DetrDecoderLayer"
    agrees_with(DetrDecoderLayer, name, found, expected, atol=5e-6)
    assert torch.allclose(attention.sum(-1), torch.ones(2, 3))
    assert (attention[1, :, 5:].sum() == 0) == padded


@pytest.mark.parametrize("layer", [DetrEncoderLayer, DetrDecoderLayer])
def test_layers_drop_out_a_tenth_by_default(layer):
    made = layer(8, 2, 16)
    rates = {m.p for m in made.modules() if isinstance(m, torch.nn.Dropout)}
    attentions = {m.dropout for m in made.modules() if isinstance(m, torch.nn.MultiheadAttention)}
    assert rates == attentions == {0.1}
    assert layer(8, 1, 16) is not None
    for heads in (0, 3):
        with pytest.raises(ValueError, match=rf"^dim 8 is not a multiple of {heads} heads$"):
            layer(8, heads, 16)


def copied(model, **options):
    """transformers' DETR with our weights, and our convolutions for its backbone."""
    theirs = DetrForObjectDetection(
        config(
            hidden=64, heads=2, num_queries=Q, num_labels=K, encoder_layers=1, decoder_layers=3, **options
        )
    ).eval()
    inner = theirs.model

    class Backbone(torch.nn.Module):
        def forward(self, images, pixel_mask):
            feature = model.backbone(images)[-1]
            mask = F.interpolate(pixel_mask[None].float(), size=feature.shape[2:]).to(torch.bool)[0]
            return [(feature, mask)]

    inner.backbone, inner.input_projection = Backbone(), model.embed
    for ours, other in zip(model.encoder, inner.encoder.layers, strict=True):
        copy_layer(ours, other, {"attention": "self_attn"}, ["self_attn_layer_norm", "final_layer_norm"])
    norms = ["self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"]
    for ours, other in zip(model.decoder.layers, inner.decoder.layers, strict=True):
        copy_layer(ours, other, {"mutual": "self_attn", "cross": "encoder_attn"}, norms)
    inner.decoder.layernorm.load_state_dict(model.decoder.norm.state_dict())
    inner.query_position_embeddings.weight.data = model.decoder.query_position.data
    theirs.class_labels_classifier.load_state_dict(model.decoder.classify.state_dict())
    for ours, other in zip(model.decoder.locate[::2], theirs.bbox_predictor.layers, strict=True):
        other.load_state_dict(ours.state_dict())
    return theirs


def small(**options):
    return Detr(
        **(
            {
                "num_classes": K,
                "num_queries": Q,
                "dim": 16,
                "heads": 2,
                "encoder_layers": 1,
                "decoder_layers": 3,
            }
            | options
        )
    ).eval()


def test_sizes_of_the_paper_are_the_defaults():
    model = Detr(91)
    assert len(model.encoder) == len(model.decoder.layers) == 6
    assert model.decoder.query_position.shape == (100, 256)
    assert model.encoder[0].attention.num_heads == model.decoder.layers[0].cross.num_heads == 8
    assert model.encoder[0].dropout.p == model.decoder.layers[0].dropout.p == 0.1
    assert DetrDecoder(3, 5, 8, 2, layers=1).layers[0].dropout.p == 0.1
    assert model.encoder[0].up.out_features == model.decoder.layers[0].up.out_features == 1024
    dry = Detr(3, dim=16, heads=2, dropout=0.3)
    assert dry.encoder[0].dropout.p == dry.decoder.layers[0].dropout.p == 0.3


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backbone_is_convolutions_norms_and_rectifiers(agrees_with, dtype):
    backbone, x = trained(DetrBackbone(32)).to(dtype), torch.randn(2, 3, 21, 16, dtype=dtype)
    for stage, ours in zip(backbone.stages, backbone(x), strict=True):
        patches = F.unfold(x, 3, padding=1, stride=2)  # (B, 9 C, h w)
        x = torch.einsum("oi,bip->bop", stage[0].weight.flatten(1), patches) + stage[0].bias[:, None]
        groups = x.unflatten(1, (4, -1))
        mean, spread = groups.mean((2, 3), keepdim=True), groups.var((2, 3), keepdim=True, correction=0)
        x = ((groups - mean) / (spread + 1e-5).sqrt()).flatten(1, 2)
        x = (x * stage[1].weight[:, None] + stage[1].bias[:, None]).clamp(min=0).view_as(ours)
        atol = 5e-6 if dtype == torch.float32 else 1e-14
        agrees_with(DetrBackbone, "brute force: patches times weights, groups normalized", ours, x, atol=atol)
    assert [f.shape[1:] for f in backbone(torch.zeros(0, 3, 9, 1, dtype=dtype))] == [
        (8, 5, 1),
        (16, 3, 1),
        (32, 2, 1),
    ]


def test_backbone_refuses_bad_input():
    for dim in (0, 8, 24, -16):
        with pytest.raises(ValueError, match=rf"^dim must be a multiple of 16, got {dim}$"):
            DetrBackbone(dim)
    assert len(DetrBackbone(16).stages) == 3
    for shape in ((3, 8, 8), (1, 1, 8, 8), (1, 4, 8, 8)):
        got = re.escape(str(shape))
        for network in (DetrBackbone(16), small()):
            with pytest.raises(ValueError, match=rf"^expected images \(B, 3, H, W\), got {got}$"):
                network(torch.zeros(shape))


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 48), (33, 41), (8, 8), (1, 1)])
def test_outputs_have_their_shapes(size):
    outputs = small()(torch.randn(2, 3, *size))
    height, width = (math.ceil(s / 8) for s in size)
    assert outputs["pred_logits"].shape == (2, Q, K + 1)
    assert outputs["pred_boxes"].shape == (2, Q, 4)
    assert outputs["memory"].shape == (2, 16, height, width)
    assert outputs["attention"].shape == (2, Q, height, width)
    assert outputs["queries"].shape == (2, Q, 16)
    assert [f.shape[:2] for f in outputs["features"]] == [(2, 4), (2, 8)]
    assert outputs["features"][0].shape[2:] == tuple(math.ceil(s / 2) for s in size)
    assert len(outputs["aux_outputs"]) == 2
    assert 0 < outputs["pred_boxes"].min() < outputs["pred_boxes"].max() < 1
    assert small()(torch.zeros(0, 3, *size))["pred_boxes"].shape == (0, Q, 4)


def layers_of(outputs):
    return [*outputs["aux_outputs"], outputs]


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
def test_the_model_is_that_of_transformers(agrees_with, padded):
    model = trained(small())
    theirs, images = copied(model), torch.randn(2, 3, 33, 41)
    mask = torch.zeros(2, 33, 41, dtype=torch.bool)
    mask[1, 20:], mask[1, :, 30:] = padded, padded
    outputs = model(images, mask if padded else None)
    decoder = theirs.model.decoder
    flat = outputs["memory"].flatten(2).mT
    position = SinePositionEmbedding(16)(outputs["padding"]).flatten(2).mT
    alone = model.decoder(flat, position, outputs["padding"].flatten(1) if padded else None)
    all_layers = decoder.layers
    for number, (ours, ours_alone) in enumerate(zip(layers_of(outputs), layers_of(alone), strict=True), 1):
        decoder.layers = all_layers[:number]  # the shared norm and heads read every layer alike
        found = theirs(images, pixel_mask=(~mask).long())
        for key, other in (("pred_logits", found.logits), ("pred_boxes", found.pred_boxes)):
            name = "transformers.DetrForObjectDetection, cut off after each layer"
            agrees_with(Detr, name, ours[key], other, atol=1e-5)
            agrees_with(DetrDecoder, name, ours_alone[key], other, atol=1e-5)
    agrees_with(Detr, name, outputs["queries"], found.last_hidden_state, atol=1e-5)
    agrees_with(DetrDecoder, name, alone["queries"], found.last_hidden_state, atol=1e-5)
    seen = ~outputs["padding"].flatten(1)
    agrees_with(Detr, name, flat[seen], found.encoder_last_hidden_state[seen], atol=1e-5)
    assert torch.allclose(outputs["attention"].flatten(2), alone["attention"], atol=1e-6)


@torch.no_grad()
def test_with_auxiliary_losses_transformers_lets_the_norm_into_the_next_layer():
    """The published mistake of the page: same weights, another model."""
    model = trained(small())
    images = torch.randn(1, 3, 32, 32)
    without, with_losses = (copied(model, auxiliary_loss=on)(images).pred_boxes for on in (False, True))
    assert torch.allclose(without, model(images)["pred_boxes"], atol=1e-5)
    assert (without - with_losses).abs().max() > 0.01


@torch.no_grad()
def test_the_model_is_its_parts_put_together(agrees_with):
    """Rebuilt from torch functions: positions where they belong, queries that begin as zeros."""
    model = trained(small())
    decoder = model.decoder
    images = torch.randn(2, 3, 24, 16)
    outputs = model(images)
    features = model.backbone(images)
    x = F.conv2d(features[-1], model.embed.weight, model.embed.bias, padding=1)
    theirs = modeling_detr.DetrSinePositionEmbedding(8, 10000, True)((2, 16, 3, 2), "cpu", torch.float32)
    position = theirs.flatten(2).transpose(1, 2)
    memory = model.encoder[0](x.flatten(2).transpose(1, 2), position)
    query = torch.zeros(2, Q, 16)
    for layer, found in zip(decoder.layers, layers_of(outputs), strict=True):
        query, attention = layer(query, decoder.query_position.expand(2, -1, -1), memory, position)
        normed = F.layer_norm(query, (16,), decoder.norm.weight, decoder.norm.bias)
        logits = F.linear(normed, decoder.classify.weight, decoder.classify.bias)
        name = "brute force: the layers called one by one"
        agrees_with(Detr, name, found["pred_logits"], logits, atol=2e-6)
        boxes = normed
        for number in (0, 2):
            boxes = F.relu(F.linear(boxes, decoder.locate[number].weight, decoder.locate[number].bias))
        boxes = F.linear(boxes, decoder.locate[4].weight, decoder.locate[4].bias).sigmoid()
        agrees_with(Detr, name, found["pred_boxes"], boxes, atol=1e-6)
    assert torch.allclose(outputs["memory"].flatten(2).transpose(1, 2), memory, atol=1e-5)
    assert torch.allclose(outputs["queries"], normed, atol=1e-5)
    assert torch.allclose(outputs["attention"].flatten(2), attention, atol=1e-6)
    assert outputs["attention"].shape == (2, Q, 3, 2)
    assert [torch.equal(*pair) for pair in zip(outputs["features"], features, strict=False)] == [True, True]
    assert len(outputs["features"]) == 2


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_model_computes_in_the_precision_of_its_weights(dtype):
    model, images = small(), torch.randn(2, 3, 16, 24)
    expected = model(images)
    mask = torch.zeros(2, 16, 24, dtype=torch.bool)
    for outputs in (model.to(dtype)(images.to(dtype)), model(images.to(dtype), mask)):
        for key in ("pred_logits", "pred_boxes", "attention", "memory"):
            assert outputs[key].dtype == dtype
        tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
        assert torch.allclose(outputs["pred_boxes"].float(), expected["pred_boxes"], atol=tolerance)


@torch.no_grad()
def test_permuted_query_positions_permute_the_output():
    model = small()
    images = torch.randn(1, 3, 16, 24)
    before = model(images)
    order = torch.tensor([2, 0, 4, 1, 3])
    model.decoder.query_position.data = model.decoder.query_position[order]
    after = model(images)
    assert torch.allclose(after["pred_boxes"], before["pred_boxes"][:, order], atol=1e-6)
    assert not torch.allclose(after["pred_boxes"], before["pred_boxes"])


@torch.no_grad()
def test_what_lies_under_the_padding_does_not_matter():
    model = small()
    images = torch.randn(2, 3, 32, 32)
    mask = torch.zeros(2, 32, 32, dtype=torch.bool)
    mask[:, :, 16:] = True
    outputs = model(images, mask)
    assert outputs["padding"].tolist() == mask[:, ::8, ::8].tolist()
    assert (outputs["attention"][..., 2:] == 0).all()
    changed = images.clone()
    changed[..., 24:] = 5  # a pixel near the edge still reaches the picture by convolution
    assert not torch.allclose(model(changed)["pred_boxes"], model(images)["pred_boxes"])
    mask_free = model(images, torch.zeros_like(mask))
    assert torch.equal(mask_free["pred_boxes"], model(images)["pred_boxes"])


def test_the_model_refuses_bad_masks():
    for mask in (torch.zeros(1, 8, 9, dtype=torch.bool), torch.zeros(1, 8, 8, dtype=torch.int64)):
        message = f"expected a boolean mask (1, 8, 8), got {tuple(mask.shape)} of {mask.dtype}"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            small()(torch.zeros(1, 3, 8, 8), mask)


def test_every_parameter_learns():
    model = small()
    outputs = model(torch.randn(2, 3, 32, 32))
    targets = problem((2, 3))[1]
    DetrLoss(K, HungarianMatcher())(outputs, targets)["loss"].backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # The first layer's queries are all zero: whatever its weights, they take nothing from each other.
    assert still == [
        "decoder.layers.0.mutual.in_proj_weight",
        "decoder.layers.0.mutual.out_proj.weight",
        "decoder.layers.0.norms.0.weight",
    ]


# --- after the network ---------------------------------------------------------------------------


def test_post_process_is_that_of_transformers(agrees_with):
    outputs, _ = problem((1, 1, 1))
    sizes = torch.tensor([[100, 200], [37, 41], [1, 1]])
    ours = post_process(outputs, sizes)
    plain = SimpleNamespace(logits=outputs["pred_logits"], pred_boxes=outputs["pred_boxes"])
    theirs = DetrImageProcessorPil.post_process_object_detection(
        None, plain, threshold=0.0, target_sizes=sizes
    )
    name = "transformers.DetrImageProcessorPil.post_process_object_detection"
    for mine, other in zip(ours, theirs, strict=True):
        for key in ("scores", "labels", "boxes"):
            agrees_with(post_process, name, mine[key], other[key])
        assert mine["labels"].max() < K
    exact = post_process(outputs, sizes.double())
    assert all(torch.equal(mine["boxes"], other["boxes"]) for mine, other in zip(ours, exact, strict=True))
    assert post_process(problem(())[0], torch.zeros(0, 2)) == []
    for bad in (torch.zeros(3), torch.zeros(2, 2), torch.zeros(3, 3)):
        got = re.escape(str(tuple(bad.shape)))
        with pytest.raises(ValueError, match=rf"^expected \(3, 2\) sizes, got {got}$"):
            post_process(outputs, bad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pixels_of_half_precision_boxes_are_computed_in_float32(dtype):
    outputs = {key: value.to(dtype) for key, value in problem((1,))[0].items()}
    (ours,) = post_process(outputs, torch.tensor([[1333, 800]]))
    (theirs,) = post_process({key: value.float() for key, value in outputs.items()}, torch.tensor([[1333, 800]]))
    assert all(torch.equal(ours[key], theirs[key]) for key in ("scores", "labels", "boxes"))


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
def test_attention_maps_of_the_mask_head_are_those_of_transformers(agrees_with, padded):
    outputs = small()(torch.randn(2, 3, 32, 24))
    outputs["padding"][1, 3:] = padded
    head = MaskHead(16, 2, (4, 8))
    theirs = modeling_detr.DetrMHAttentionMap(16, 2)
    theirs.q_proj.load_state_dict(head.query.state_dict())
    theirs.k_proj.load_state_dict({"weight": head.key.weight.flatten(1), "bias": head.key.bias})
    expected = theirs(outputs["queries"], outputs["memory"], outputs["padding"][:, None, None].float() * -1e9)
    name = "transformers.models.detr.modeling_detr.DetrMHAttentionMap"
    maps = head.attention(outputs)
    agrees_with(MaskHead, name, maps, expected, atol=2e-7)
    assert torch.allclose(maps.sum((2, 3, 4)), torch.ones(2, Q))
    assert (maps[1, :, :, 3:].sum() == 0) == padded


@torch.no_grad()
def test_masks_are_made_query_by_query(agrees_with):
    """One query alone, rebuilt from torch functions, gives its own mask of the joint result."""
    outputs, head = small()(torch.randn(2, 3, 32, 24)), MaskHead(16, 2, (4, 8), width=8)
    masks = head(outputs)
    assert masks.shape == (2, Q, 16, 12)
    maps = head.attention(outputs)
    for b, q in ((0, 0), (1, 3)):
        x = head.mix(maps[b, q][None] * 2 * 4 * 3) + head.reduce(outputs["memory"][b, None])
        for number, feature in enumerate([None, outputs["features"][1], outputs["features"][0]]):
            if feature is not None:
                x = F.interpolate(x, feature.shape[2:]) + head.adapt[number - 1](feature[b, None])
            conv, norm = head.refine[number]
            x = F.relu(F.group_norm(conv(x), 4, norm.weight, norm.bias))
        agrees_with(MaskHead, "brute force: one query at a time", masks[b, q], head.last(x)[0, 0], atol=1e-5)


def test_mask_head_learns_and_refuses_bad_input():
    outputs, head = small()(torch.randn(1, 3, 16, 16)), MaskHead(16, 2, (4, 8))
    head(outputs).square().sum().backward()
    assert [n for n, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] in (
        [],
        ["key.bias"],
    )
    assert head.mix.out_channels == 16
    for images, queries in ((0, Q), (2, 0)):
        assert head(small(num_queries=queries)(torch.zeros(images, 3, 9, 16))).shape == (images, queries, 5, 8)
    with pytest.raises(ValueError, match=r"^expected 3 feature maps, got 2$"):
        MaskHead(16, 2, (4, 8, 16))(outputs)
    with pytest.raises(ValueError, match=r"^dim 16 is not a multiple of 3 heads$"):
        MaskHead(16, 3, (4, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mask_loss_is_that_of_transformers(agrees_with, dtype):
    logits = (3 * torch.randn(4, 6, 5)).to(dtype)
    masks = (torch.rand(4, 6, 5) < 0.3).to(dtype)
    focal = reference.sigmoid_focal_loss(logits.flatten(1), masks.flatten(1), 4)
    dice = reference.dice_loss(logits.flatten(1), masks.flatten(1), 4)
    name = "transformers.loss.loss_for_object_detection.sigmoid_focal_loss + dice_loss"
    agrees_with(
        mask_loss,
        name,
        mask_loss(logits, masks),
        focal + dice,
        atol=1e-6 if dtype == torch.float32 else 1e-14,
    )
    agrees_with(
        mask_loss,
        name,
        mask_loss(logits, masks.bool()),
        focal + dice,
        atol=1e-6 if dtype == torch.float32 else 1e-14,
    )
    focal = reference.sigmoid_focal_loss(logits.flatten(1), masks.flatten(1), 4, 0.6, 3)
    agrees_with(
        mask_loss,
        name,
        mask_loss(logits, masks, 0.6, 3),
        focal + dice,
        atol=1e-6 if dtype == torch.float32 else 1e-14,
    )
    one = reference.sigmoid_focal_loss(logits[:1].flatten(1), masks[:1].flatten(1), 1)
    one = one + reference.dice_loss(logits[:1].flatten(1), masks[:1].flatten(1), 1)
    assert float(mask_loss(logits[:1], masks[:1])) == pytest.approx(float(one), rel=1e-6)
    assert mask_loss(logits[:0], masks[:0]) == 0
    half = logits.half().repeat(1, 60, 60)  # sums beyond 65,504
    many = masks.repeat(1, 60, 60)
    assert torch.equal(mask_loss(half, many), mask_loss(half.float(), many))
    assert torch.autograd.gradcheck(lambda x: mask_loss(x, masks.double()), logits.double().requires_grad_())
    for bad in (masks[:3], masks[0]):
        got = re.escape(f"(4, 6, 5) and {tuple(bad.shape)}")
        with pytest.raises(ValueError, match=rf"^expected two \(N, H, W\), got {got}$"):
            mask_loss(logits, bad)
    with pytest.raises(ValueError, match=r"^expected two \(N, H, W\), got \(6, 5\) and \(6, 5\)$"):
        mask_loss(logits[0], masks[0])


def merged_by_hand(masks, scores, labels, stuff, min_score, min_area):
    """Pixel by pixel, with sets and dictionaries."""
    alive = [q for q in range(len(masks)) if scores[q] > min_score]
    while alive:
        owner = {}
        for y in range(masks.shape[1]):
            for x in range(masks.shape[2]):
                best = max(alive, key=lambda q: (masks[q, y, x].item(), -q))
                if int(labels[best]) in stuff:
                    best = next(q for q in alive if labels[q] == labels[best])
                owner[y, x] = best
        size = dict.fromkeys(alive, 0)
        for best in owner.values():
            size[best] += 1
        first = {
            q: next(p for p in alive if labels[p] == labels[q]) if int(labels[q]) in stuff else q
            for q in alive
        }
        kept = [q for q in alive if size[first[q]] > min_area]
        if kept == alive:
            used = sorted(set(owner.values()))
            return [
                [used.index(owner[y, x]) for x in range(masks.shape[2])] for y in range(masks.shape[1])
            ], [int(labels[q]) for q in used]
        alive = kept
    return [[-1] * masks.shape[2]] * masks.shape[1], []


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("stuff", [(), (1,), (1, 2)])
def test_merging_is_the_same_pixel_by_pixel(agrees_with, seed, stuff):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randn(6, 5, 4, generator=generator) + torch.randn(6, 1, 1, generator=generator)
    scores, labels = torch.rand(6, generator=generator), torch.randint(0, 4, (6,), generator=generator)
    before = masks.clone()
    for min_score, min_area in ((0.2, 0), (0.2, 4), (0.0, 3), (0.99, 0), (0.0, 20)):
        ours = merge_panoptic(masks, scores, labels, stuff, min_score, min_area)
        theirs = merged_by_hand(masks, scores, labels, stuff, min_score, min_area)
        name = "brute force: pixel by pixel, with dictionaries"
        agrees_with(merge_panoptic, name, ours[0], theirs[0])
        agrees_with(merge_panoptic, name, ours[1], theirs[1])
    assert torch.equal(masks, before)


def test_merging_defaults_and_bad_input():
    masks = torch.zeros(2, 2, 4)
    masks[0, :, :2], masks[1, :, 2:] = 1, 1
    scores, labels = torch.tensor([0.85, 0.9]), torch.tensor([0, 0])
    assert merge_panoptic(masks, scores, labels)[0].tolist() == [[0] * 4] * 2  # 0.85 is not above 0.85
    few, none = merge_panoptic(masks, scores + 0.1, labels)  # 4 pixels are too few
    assert few.tolist() == [[-1] * 4] * 2
    assert few.dtype == torch.int64
    assert none.tolist() == []
    masks[1, 0, 1] = 2  # 5 are enough
    assert merge_panoptic(masks, scores + 0.1, labels)[0].tolist() == [[0] * 4] * 2
    masks[1, 0, 1] = 0
    wide = masks.repeat_interleave(2, 2)
    assert merge_panoptic(wide, scores + 0.1, labels)[0].tolist() == [[0] * 4 + [1] * 4] * 2
    assert merge_panoptic(wide, scores + 0.1, labels, stuff=[0])[1].tolist() == [0]
    for bad in ((masks[0], scores, labels), (masks, scores[:1], labels), (masks, scores, labels[:1])):
        with pytest.raises(
            ValueError,
            match=r"^masks \(.*\), scores \(.*\) and labels \(.*\) must speak of the same queries$",
        ):
            merge_panoptic(*bad)


# --- scores --------------------------------------------------------------------------------------


def detections(images, seed, most=6):
    """Noisy detections of random boxes, with misses, false alarms and wrong classes."""
    generator = torch.Generator().manual_seed(seed)
    found, truth = [], []
    for i in range(images):
        n = int(torch.randint(0, most, (), generator=generator))
        boxes, labels = corners(n, seed=100 * seed + i), torch.randint(0, K, (n,), generator=generator)
        guesses = boxes.repeat(2, 1) + 6 * torch.randn(2 * n, 4, generator=generator)
        guesses = torch.cat(
            [torch.minimum(guesses[:, :2], guesses[:, 2:]), torch.maximum(guesses[:, :2], guesses[:, 2:])], 1
        )
        extra = corners(3, seed=100 * seed + i + 50)
        kind = torch.cat([labels, labels, torch.randint(0, K, (3,), generator=generator)])
        keep = torch.rand(2 * n + 3, generator=generator) < 0.8
        found.append(
            {
                "scores": torch.rand(2 * n + 3, generator=generator)[keep],
                "labels": kind[keep],
                "boxes": torch.cat([guesses, extra])[keep],
            }
        )
        truth.append({"labels": labels, "boxes": boxes})
    return found, truth


def coco_average_precision(found, truth, classes, threshold, capsys):
    truth_rows, found_rows = [], []

    def xywh(box):
        x1, y1, x2, y2 = box.tolist()
        return [x1, y1, x2 - x1, y2 - y1]

    for i, (mine, theirs) in enumerate(zip(found, truth, strict=True)):
        for box, label in zip(theirs["boxes"], theirs["labels"], strict=True):
            x, y, w, h = xywh(box)
            truth_rows.append(
                {
                    "id": len(truth_rows) + 1,
                    "image_id": i,
                    "category_id": int(label),
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
        for box, label, score in zip(mine["boxes"], mine["labels"], mine["scores"], strict=True):
            found_rows.append(
                {"image_id": i, "category_id": int(label), "bbox": xywh(box), "score": float(score)}
            )
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in range(len(found))],
        "categories": [{"id": c} for c in range(classes)],
        "annotations": truth_rows,
        "info": {},
    }
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(found_rows), "bbox")
    evaluation.params.iouThrs = np.array([threshold])
    evaluation.evaluate()
    evaluation.accumulate()
    capsys.readouterr()
    precision = evaluation.eval["precision"][0, :, :, 0, -1].mean(0)  # (K,): all areas, 100 detections
    return np.where(precision < 0, np.nan, precision)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.75, 0.95])
@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_that_of_pycocotools(agrees_with, threshold, seed, capsys):
    found, truth = detections(12, seed)
    ours = average_precision(found, truth, K + 1, threshold)
    theirs = coco_average_precision(found, truth, K + 1, threshold, capsys)
    agrees_with(average_precision, "pycocotools.cocoeval.COCOeval", ours, theirs, atol=1e-14)
    assert ours[K].isnan()
    if threshold == 0.5:
        assert torch.equal(average_precision(found, truth, K), ours[:K])
        assert 0.1 < ours[:K].mean() < 0.9


def test_average_precision_of_simple_cases():
    box, other = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[50.0, 50, 60, 60]])
    truth = {"labels": torch.tensor([0]), "boxes": box}

    def found(*boxes, scores, labels=None):
        labels = torch.zeros(len(boxes), dtype=torch.long) if labels is None else torch.tensor(labels)
        return {
            "scores": torch.tensor(scores),
            "labels": labels,
            "boxes": torch.cat([*boxes, torch.zeros(0, 4)]),
        }

    def ap(one, threshold=0.5):
        return float(average_precision([one], [truth], 1, threshold))

    assert ap(found(scores=[])) == 0
    assert ap(found(box, scores=[0.5])) == ap(found(box, box, scores=[0.9, 0.8])) == 1
    assert ap(found(other, box, scores=[0.9, 0.8])) == 0.5
    assert ap(found(box, scores=[0.9], labels=[1])) == 0
    assert (
        ap(found(box[:, [0, 1, 2, 3]] * torch.tensor([1, 1, 1, 0.5]), scores=[0.9])) == 1
    )  # IoU 1/2 is enough
    with pytest.raises(ValueError, match=r"^1 predictions for 0 targets$"):
        average_precision([found(box, scores=[0.9])], [], 1)
    assert average_precision([], [], 2).isnan().all()


def segmentation(seed, segments=5):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, segments, (1, 1, 3, 3), generator=generator).float()
    number = F.interpolate(coarse, (12, 10))[0, 0].long()
    used, number = number.unique(return_inverse=True)
    labels = torch.randint(0, K, (len(used),), generator=generator)
    return number, labels


def disturbed(seed):
    number, labels = segmentation(seed)
    number = number.roll(1, 0)
    labels = labels.clone()
    labels[0] = (labels[0] + seed % 2) % K
    return number, labels


def test_panoptic_quality_is_that_of_torchmetrics(agrees_with):
    truth, found = [segmentation(s) for s in range(6)], [disturbed(s) for s in range(6)]

    def stacked(pairs):
        return torch.stack([torch.stack([labels[number], number], -1) for number, labels in pairs])

    theirs = torchmetrics_panoptic_quality(
        stacked(found),
        stacked(truth),
        things=set(range(K)),
        stuffs=set(),
        return_sq_and_rq=True,
        return_per_class=True,
    )
    ours = torch.stack(panoptic_quality(found, truth, K), 1)
    agrees_with(
        panoptic_quality,
        "torchmetrics.functional.detection.panoptic_quality",
        ours,
        theirs.squeeze(),
        atol=1e-7,
    )
    assert 0.1 < ours[:, 0].mean() < 0.9
    assert all(torch.equal(q, torch.ones(K, dtype=q.dtype)) for q in panoptic_quality(truth, truth, K))


def test_panoptic_quality_of_empty_maps():
    number, labels = torch.full((2, 2), -1), torch.zeros(0, dtype=torch.long)
    whole = (torch.zeros(2, 2, dtype=torch.long), torch.tensor([1]))
    for q in panoptic_quality([(number, labels)], [whole], 2):
        assert q.dtype == torch.float64
        assert q[0].isnan()
        assert q[1] == 0
    assert panoptic_quality([whole], [(number, labels)], 2)[0][1] == 0
    half = (torch.tensor([[0, 0], [-1, -1]]), torch.tensor([1]))
    assert panoptic_quality([half], [whole], 2)[0][1] == 0  # IoU 1/2 is no match
    more = (torch.tensor([[0, 0], [0, -1]]), torch.tensor([1]))
    assert [float(q[1]) for q in panoptic_quality([more], [whole], 2)] == [0.75, 0.75, 1]
    assert panoptic_quality([], [], 2)[0].isnan().all()
    with pytest.raises(ValueError, match=r"^1 predictions for 0 targets$"):
        panoptic_quality([whole], [], 2)
    with pytest.raises(ValueError, match=r"^map \(2, 1\) for a truth \(2, 2\)$"):
        panoptic_quality([(number[:, :1], labels)], [whole], 2)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 1.0])
def test_suppression_is_a_loop_over_sorted_boxes(agrees_with, threshold):
    boxes, scores = corners(25, seed=2), torch.rand(25, generator=torch.Generator().manual_seed(1))
    kept = []
    for i in sorted(range(25), key=lambda i: -scores[i].item()):
        if all(reference.box_iou(boxes[i, None], boxes[j, None])[0] <= threshold for j in kept):
            kept.append(i)
    ours = non_maximum_suppression(boxes, scores, threshold)
    agrees_with(non_maximum_suppression, "brute force: a loop with transformers' IoU", ours, kept)
    if threshold == 1.0:
        assert len(ours) == 25


def test_suppression_of_few_boxes_and_bad_input():
    boxes = torch.tensor([[0.0, 0, 2, 2]]).repeat(3, 1)
    assert non_maximum_suppression(boxes, torch.tensor([0.5, 0.5, 0.9]), 0.9).tolist() == [2]
    assert non_maximum_suppression(boxes, torch.tensor([0.5, 0.5, 0.5]), 1.0).tolist() == [0, 1, 2]
    assert non_maximum_suppression(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []
    with pytest.raises(ValueError, match=r"^3 boxes for 2 scores$"):
        non_maximum_suppression(boxes, torch.zeros(2), 0.5)


# --- what a score means --------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.1, 0.02, 1.0, 3.0])
def test_inflated_score_is_where_the_loss_is_least(agrees_with, weight):
    def slope(logit, share):
        logit = torch.tensor(logit, dtype=torch.float64, requires_grad=True)
        logits = torch.stack([logit, torch.zeros_like(logit)])[None]
        weights = torch.tensor([1, weight], dtype=torch.float64)
        parts = [F.cross_entropy(logits, torch.tensor([k]), weights, reduction="sum") for k in (0, 1)]
        (share * parts[0] + (1 - share) * parts[1]).backward()
        return logit.grad.item()

    shares = [0.01, 0.3, 0.5, 0.9]
    roots = [scipy.optimize.brentq(slope, -20, 20, args=(share,), xtol=1e-13) for share in shares]
    agrees_with(
        inflated_score,
        "scipy.optimize.brentq on the slope of torch.nn.functional.cross_entropy",
        [inflated_score(share, weight) for share in shares],
        [1 / (1 + math.exp(-root)) for root in roots],
        atol=1e-13,
    )


def test_inflated_score_at_its_ends():
    assert inflated_score(0) == 0
    assert inflated_score(1) == 1
    assert inflated_score(0.5) == pytest.approx(1 / 1.1, rel=1e-15)
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=rf"^expected a probability in \[0, 1\], got {bad}$"):
            inflated_score(bad)
    for bad in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match=rf"^expected a positive weight, got {bad}$"):
            inflated_score(0.5, bad)
