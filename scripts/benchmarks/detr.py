"""Races of DETR: matching 100 queries to 20 boxes, layers over a feature map, metrics over a set of images."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import scipy.optimize
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchmetrics.functional.detection import panoptic_quality as torchmetrics_panoptic_quality
from transformers import DetrConfig
from transformers.image_transforms import center_to_corners_format, corners_to_center_format
from transformers.loss import loss_for_object_detection as reference
from transformers.models.detr import modeling_detr

from scripts.pipeline.benchmark import Start, race
from snippets import detr as ours

CLASSES, DIM, HEADS = 91, 256, 8
BOXES = {"zh": "框数", "en": "boxes"}
PAIRS = {"zh": "查询数 × 真值框数", "en": "queries × true boxes"}
SOME_PAIRS = ((100, 20), (400, 80), (1600, 320))  # of 1, 4 and 16 images at once, as the matcher compares them
IMAGES = {"zh": "图像数，每张 100 个查询、20 个框", "en": "images, 100 queries and 20 boxes each"}
PLACES = {"zh": "特征图的位置数，256 维，批量 2", "en": "places of the map, 256 wide, batch of 2"}
LOOP = {"zh": "逐框两重循环", "en": "two loops over boxes"}

_SOURCE = "transformers.loss.loss_for_object_detection"
_MODEL = "transformers.models.detr.modeling_detr"
_WHOLE = "a whole network, whose layers are raced"
_FEW = "a formula of a few numbers"
UNRACED = {
    "box_area": "one product",
    "set_loss": "raced as a part of DetrLoss",
    "DetrBackbone": "shallow convolutions for the page's toy pictures",
    "DetrDecoder": _WHOLE,
    "Detr": _WHOLE,
    "post_process": "a softmax and a maximum",
    "MaskHead": "libraries have it only within a whole model",
    "merge_panoptic": "libraries have it only with files and palettes",
    "greedy_assignment": "shows what an optimal assignment avoids",
    "non_maximum_suppression": "no library here has it; DETR does without",
    "shifted_square_giou": _FEW,
    "inflated_score": _FEW,
}


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _boxes(count: int, seed: int = 0) -> Tensor:
    """Corners within the unit square."""
    generator = torch.Generator().manual_seed(seed)
    low = 0.7 * torch.rand(count, 2, generator=generator)
    return torch.cat([low, low + 0.05 + 0.25 * torch.rand(count, 2, generator=generator)], 1)


def _problem(images: int, queries: int, objects: int) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    outputs = {
        "pred_logits": _normal(images, queries, CLASSES + 1),
        "pred_boxes": torch.stack([corners_to_center_format(_boxes(queries, seed)) for seed in range(images)]),
    }
    generator = torch.Generator().manual_seed(9)
    targets = [
        {
            "labels": torch.randint(CLASSES, (objects,), generator=generator),
            "boxes": corners_to_center_format(_boxes(objects, 100 + seed)),
        }
        for seed in range(images)
    ]
    return outputs, targets


def _as_transformers(
    outputs: dict[str, Tensor], targets: list[dict[str, Tensor]]
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    named = {"logits": outputs["pred_logits"], "pred_boxes": outputs["pred_boxes"]}
    return named, [{"class_labels": t["labels"], "boxes": t["boxes"]} for t in targets]


@race("detr.box_cxcywh_to_xyxy", sizes=(1000, 5000, 20_000), exponent=1, shape=BOXES)
def box_cxcywh_to_xyxy(count: int) -> Start:
    boxes = _boxes(count)
    return Start(
        lambda: ours.box_cxcywh_to_xyxy(boxes),
        {"transformers.image_transforms.center_to_corners_format": lambda: center_to_corners_format(boxes)},
    )


@race("detr.box_xyxy_to_cxcywh", sizes=(1000, 5000, 20_000), exponent=1, shape=BOXES)
def box_xyxy_to_cxcywh(count: int) -> Start:
    boxes = _boxes(count)
    return Start(
        lambda: ours.box_xyxy_to_cxcywh(boxes),
        {"transformers.image_transforms.corners_to_center_format": lambda: corners_to_center_format(boxes)},
    )


def _iou_loop(a: Tensor, b: Tensor) -> Tensor:
    out = torch.zeros(len(a), len(b))
    for i, (ax, ay, aw, ah) in enumerate(a.tolist()):
        for j, (bx, by, bw, bh) in enumerate(b.tolist()):
            width = max(0.0, min(aw, bw) - max(ax, bx))
            height = max(0.0, min(ah, bh) - max(ay, by))
            both = width * height
            out[i, j] = both / ((aw - ax) * (ah - ay) + (bw - bx) * (bh - by) - both)
    return out


@race("detr.box_iou", sizes=SOME_PAIRS, exponent=1, shape=PAIRS, naive=LOOP)
def box_iou(queries: int, objects: int) -> Start:
    a, b = _boxes(queries), _boxes(objects, 1)
    return Start(
        lambda: ours.box_iou(a, b), {f"{_SOURCE}.box_iou": lambda: reference.box_iou(a, b)}, lambda: _iou_loop(a, b)
    )


@race("detr.generalized_box_iou", sizes=SOME_PAIRS, exponent=1, shape=PAIRS, naive=LOOP)
def generalized_box_iou(queries: int, objects: int) -> Start:
    a, b = _boxes(queries), _boxes(objects, 1)
    return Start(
        lambda: ours.generalized_box_iou(a, b),
        {f"{_SOURCE}.generalized_box_iou": lambda: reference.generalized_box_iou(a, b)},
        lambda: _iou_loop(a, b),
    )


@race(
    "detr.SinePositionEmbedding",
    sizes=((16, 16), (32, 32), (64, 64)),
    exponent=1,
    shape={"zh": "特征图 高 × 宽，256 维，批量 2", "en": "feature map, H × W, 256 wide, batch of 2"},
)
def sine_position_embedding(height: int, width: int) -> Start:
    mask = torch.ones(2, height, width, dtype=torch.bool)
    module, theirs = ours.SinePositionEmbedding(DIM), modeling_detr.DetrSinePositionEmbedding(DIM // 2, normalize=True)

    def computed() -> Tensor:
        another = mask.clone()  # asked the same question again it would answer from memory
        made: Tensor = theirs(torch.Size((2, DIM, height, width)), mask.device, torch.float32, another)
        return made

    return Start(lambda: module(~mask), {f"{_MODEL}.DetrSinePositionEmbedding": computed})


@race("detr.linear_assignment", sizes=((25, 5), (100, 20), (400, 80)), exponent=1.5, shape=PAIRS)
def linear_assignment(queries: int, objects: int) -> Start:
    cost: NDArray[np.float64] = np.random.default_rng(0).random((queries, objects))
    return Start(
        lambda: ours.linear_assignment(cost),
        {"scipy.optimize.linear_sum_assignment": lambda: scipy.optimize.linear_sum_assignment(cost)},
    )


@race("detr.HungarianMatcher", sizes=(1, 4, 16), exponent=1, shape=IMAGES)
def hungarian_matcher(images: int) -> Start:
    outputs, targets = _problem(images, 100, 20)
    named = _as_transformers(outputs, targets)
    # In training code the snippet is told to use the library's assignment, as its page says.
    mine = ours.HungarianMatcher(assign=scipy.optimize.linear_sum_assignment)
    theirs = reference.HungarianMatcher(1, 5, 2)
    return Start(lambda: mine(outputs, targets), {f"{_SOURCE}.HungarianMatcher": lambda: theirs(*named)})


@race("detr.DetrLoss", sizes=(1, 4, 16), exponent=1, shape=IMAGES)
def detr_loss(images: int) -> Start:
    outputs, targets = _problem(images, 100, 20)
    named = _as_transformers(outputs, targets)
    mine = ours.DetrLoss(CLASSES, ours.HungarianMatcher(assign=scipy.optimize.linear_sum_assignment))
    theirs = reference.ImageLoss(
        reference.HungarianMatcher(1, 5, 2), CLASSES, 0.1, ["labels", "boxes", "cardinality"]
    )
    return Start(lambda: mine(outputs, targets)["loss"], {f"{_SOURCE}.ImageLoss": lambda: theirs(*named)})


def _config(attention: str) -> DetrConfig:
    return DetrConfig(
        d_model=DIM,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=1024,
        decoder_ffn_dim=1024,
        use_timm_backbone=False,
        backbone_config={"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8] * 4, "depths": [1] * 4},
        attn_implementation=attention,
    )


@race("detr.DetrEncoderLayer", sizes=(64, 256, 1024), exponent=1.5, shape=PLACES)
def encoder_layer(places: int) -> Start:
    x, position = _normal(2, places, DIM), _normal(2, places, DIM, seed=1)
    module = ours.DetrEncoderLayer(DIM, HEADS, 1024).eval().requires_grad_(False)
    theirs = modeling_detr.DetrEncoderLayer(_config("sdpa")).eval().requires_grad_(False)
    return Start(lambda: module(x, position), {f"{_MODEL}.DetrEncoderLayer": lambda: theirs(x, None, position)})


@race("detr.DetrDecoderLayer", sizes=(64, 256, 1024), exponent=1, shape=PLACES)
def decoder_layer(places: int) -> Start:
    x, queries = _normal(2, 100, DIM), _normal(2, 100, DIM, seed=1)
    memory, position = _normal(2, places, DIM, seed=2), _normal(2, places, DIM, seed=3)
    module = ours.DetrDecoderLayer(DIM, HEADS, 1024).eval().requires_grad_(False)
    # "eager" makes the weights, which the snippet gives as well.
    theirs = modeling_detr.DetrDecoderLayer(_config("eager")).eval().requires_grad_(False)
    return Start(
        lambda: module(x, queries, memory, position),
        {f"{_MODEL}.DetrDecoderLayer": lambda: theirs(x, None, position, queries, memory)},
    )


@race(
    "detr.mask_loss",
    sizes=((10, 64, 64), (20, 128, 128), (40, 256, 256)),
    exponent=1,
    shape={"zh": "掩码数 × 高 × 宽", "en": "masks × H × W"},
)
def mask_loss(count: int, height: int, width: int) -> Start:
    logits, masks = _normal(count, height, width), _normal(count, height, width, seed=1) > 0
    flat, truth = logits.flatten(1), masks.flatten(1).float()

    def theirs() -> Tensor:
        focal = reference.sigmoid_focal_loss(flat, truth, count)
        loss: Tensor = focal + reference.dice_loss(flat, truth, count)
        return loss

    return Start(lambda: ours.mask_loss(logits, masks), {f"{_SOURCE}.sigmoid_focal_loss": theirs})


def _detections(images: int) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    truth, found = [], []
    for seed in range(images):
        boxes, labels = 100 * _boxes(20, seed), torch.randint(5, (20,), generator=generator)
        moved = boxes.repeat(3, 1) + 2 * torch.randn(60, 4, generator=generator)
        low, high = torch.minimum(moved[:, :2], moved[:, 2:]), torch.maximum(moved[:, :2], moved[:, 2:])
        truth.append({"boxes": boxes, "labels": labels})
        found.append(
            {
                "boxes": torch.cat([low, high], 1),
                "labels": labels.repeat(3),
                "scores": torch.rand(60, generator=generator),
            }
        )
    return found, truth


def _coco(images: int, truth: list[dict[str, Tensor]]) -> COCO:
    rows: list[dict[str, Any]] = []
    for image, each in enumerate(truth):
        for (x1, y1, x2, y2), label in zip(each["boxes"].tolist(), each["labels"].tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            rows.append(
                {"id": len(rows) + 1, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            )
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in range(images)],
        "categories": [{"id": c} for c in range(5)],
        "annotations": rows,
        "info": {},
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


@race(
    "detr.average_precision",
    sizes=(10, 40, 160),
    exponent=1,
    shape={"zh": "图像数，每张 60 个检测、20 个框", "en": "images, 60 detections and 20 boxes each"},
)
def average_precision(images: int) -> Start:
    found, truth = _detections(images)
    coco = _coco(images, truth)
    rows = [
        {"image_id": i, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for i, each in enumerate(found)
        for (x1, y1, x2, y2), label, score in zip(
            each["boxes"].tolist(), each["labels"].tolist(), each["scores"].tolist(), strict=True
        )
    ]

    def theirs() -> NDArray[np.float64]:
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(coco, coco.loadRes(rows), "bbox")
            evaluation.params.iouThrs = np.array([0.5])
            evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
            evaluation.evaluate()
            evaluation.accumulate()
        values: NDArray[np.float64] = evaluation.eval["precision"][0, :, :, 0, -1].mean(0)
        return values

    return Start(
        lambda: ours.average_precision(found, truth, 5), {"pycocotools.cocoeval.COCOeval": theirs}
    )


@race(
    "detr.panoptic_quality",
    sizes=((64, 64), (128, 128), (256, 256)),
    exponent=1,
    shape={"zh": "图像 高 × 宽，16 段", "en": "image, H × W, 16 segments"},
)
def panoptic_quality(side: int, _: int) -> Start:
    block = torch.arange(side) // (side // 4)
    numbers = 4 * block[:, None] + block[None, :] + 1
    labels = torch.arange(16) % 5
    moved = numbers.roll(side // 16, 1)
    classes = labels[numbers - 1]
    theirs_truth = torch.stack([classes, numbers], -1)[None]
    theirs_found = torch.stack([labels[moved - 1], moved], -1)[None]
    return Start(
        lambda: ours.panoptic_quality([(moved, labels)], [(numbers, labels)], 5),
        {
            "torchmetrics.functional.detection.panoptic_quality": lambda: torchmetrics_panoptic_quality(
                theirs_found, theirs_truth, things={0, 1, 2, 3, 4}, stuffs=set()
            )
        },
    )
