"""Measurements for DETR: a small one trained on overlapping shapes, shorter runs without its parts, and mistakes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.pipeline.experiment import experiment
from snippets.detr import (
    Detr,
    DetrDecoderLayer,
    DetrLoss,
    HungarianMatcher,
    MaskHead,
    SinePositionEmbedding,
    average_precision,
    box_cxcywh_to_xyxy,
    box_iou,
    box_xyxy_to_cxcywh,
    generalized_box_iou,
    greedy_assignment,
    linear_assignment,
    mask_loss,
    merge_panoptic,
    non_maximum_suppression,
    panoptic_quality,
    post_process,
    shifted_square_giou,
)

_SIZE = 64
_QUERIES = 10
_DIM = 64
_HEADS = 4
_THINGS, _STUFF = (0, 1, 2), (3, 4)  # disc, square, triangle; sky, ground
_CLASSES = len(_THINGS) + len(_STUFF)
_SURE = 0.5  # what counts as found, where pictures and counts are shown

Scene = dict[str, Tensor]


def _inside(kind: Tensor, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Whether the point at (x, y) from a shape's center lies in it."""
    disc = x**2 + y**2 <= radius**2
    square = torch.maximum(x.abs(), y.abs()) <= 0.9 * radius
    triangle = (y <= 0.8 * radius) & (1.8 * x.abs() <= y + radius)
    return torch.where(kind == 0, disc, torch.where(kind == 1, square, triangle))


def _scenes(count: int, generator: torch.Generator, most: int = 4) -> tuple[Tensor, list[Scene]]:
    """Pictures (count, 3, 64, 64) of 1 to `most` shapes before sky and ground, with their truth.

    Shapes overlap; one of which less than half is seen is left out. Boxes are those of what is seen.
    Colors are random, so that only the outline tells the class.
    """

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    line = torch.arange(_SIZE) + 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    horizon = 20 + 24 * random(count, 1, 1)
    ground = y >= horizon  # (B, H, W)
    shade = 0.25 + 0.5 * random(count, 2, 3, 1, 1)
    picture = torch.where(ground[:, None], shade[:, 0], shade[:, 1])
    number = (random(count) * most).long() + 1
    kind = (random(count, most, 1, 1) * 3).long()
    radius = 6 + 8 * random(count, most, 1, 1)
    center = radius + (_SIZE - 2 * radius) * random(count, most, 2, 1, 1).movedim(2, 0)
    shapes = _inside(kind, x - center[0], y - center[1], radius)  # (B, most, H, W)
    colors = random(count, most, 3, 1, 1)
    free, seen = torch.ones_like(ground), torch.zeros_like(shapes)
    for k in range(most):  # the first lies on top
        part = shapes[:, k] & free
        enough = part.sum((1, 2)) >= 0.5 * shapes[:, k].sum((1, 2))
        seen[:, k] = part & (enough & (k < number))[:, None, None]
        free &= ~seen[:, k]
        picture = torch.where(seen[:, k, None], colors[:, k], picture)
    picture = picture + 0.03 * torch.randn(picture.shape, generator=generator)
    masks = torch.cat([seen, (~ground & free)[:, None], (ground & free)[:, None]], dim=1)
    fixed = torch.tensor(_STUFF).expand(count, -1)
    kinds = torch.cat([kind[..., 0, 0], fixed], dim=1)
    rows, columns = masks.any(3).float(), masks.any(2).float()
    corners = [columns.argmax(2), rows.argmax(2)]
    corners += [_SIZE - columns.flip(2).argmax(2), _SIZE - rows.flip(2).argmax(2)]
    boxes = box_xyxy_to_cxcywh(torch.stack(corners, dim=-1) / _SIZE)
    there = masks.any(3).any(2)
    scenes = [
        {"labels": kinds[i, there[i]], "boxes": boxes[i, there[i]], "masks": masks[i, there[i]]}
        for i in range(count)
    ]
    return picture, scenes


def _say(words: str) -> None:
    print(f"detr: {words}", file=sys.stderr, flush=True)


def _new(decoder_layers: int = 3) -> Detr:
    return Detr(_CLASSES, _QUERIES, _DIM, _HEADS, encoder_layers=1, decoder_layers=decoder_layers, dropout=0)


def _train(
    steps: int,
    seed: int,
    assign: Callable[[np.ndarray], Any] = linear_assignment,
    auxiliary: bool = True,
    batch: int = 32,
) -> tuple[Detr, list[dict[str, float]]]:
    """A trained model, and its losses every ten steps."""
    torch.manual_seed(seed)
    model = _new()
    criterion = DetrLoss(_CLASSES, HungarianMatcher(assign=assign))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(1000 + seed)
    history = []
    for step in range(steps):
        pictures, scenes = _scenes(batch, generator)
        outputs = model(pictures)
        if not auxiliary:
            outputs["aux_outputs"] = []
        losses = criterion(outputs, scenes)
        optimizer.zero_grad()
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 10 == 9:
            history.append({"step": step + 1} | {k: float(v.detach()) for k, v in losses.items()})
        if step % 100 == 99:
            _say(f"seed {seed}, step {step + 1} of {steps}, loss {float(losses['loss']):.2f}")
    return model.eval(), history


@torch.no_grad()
def _detect(model: Detr, pictures: Tensor) -> list[dict[str, Any]]:
    """Outputs of the model for a hundred pictures at a time."""
    return [model(part) for part in pictures.split(100)]


def _things(found: dict[str, Tensor]) -> dict[str, Tensor]:
    keep = found["labels"] < len(_THINGS)
    return {key: found[key][keep] for key in ("scores", "labels", "boxes") if key in found}


def _processed(outputs: Sequence[dict[str, Any]]) -> list[dict[str, Tensor]]:
    return [
        found
        for part in outputs
        for found in post_process(part, torch.full((len(part["pred_logits"]), 2), _SIZE))
    ]


def _truth(scenes: Sequence[Scene]) -> list[dict[str, Tensor]]:
    return [
        {"labels": scene["labels"], "boxes": box_cxcywh_to_xyxy(scene["boxes"]) * _SIZE} for scene in scenes
    ]


def _score(found: Sequence[dict[str, Tensor]], scenes: Sequence[Scene]) -> dict[str, float]:
    """How well the shapes (not sky and ground) were found."""
    found, truth = [_things(one) for one in found], [_things(one) for one in _truth(scenes)]
    levels = [0.5 + 0.05 * i for i in range(10)]
    values = [float(average_precision(found, truth, len(_THINGS), level).mean()) for level in levels]
    wrong, twice, off = [], 0, []
    for ours, theirs in zip(found, truth, strict=True):
        sure = ours["scores"] > _SURE
        off.append(int(sure.sum()) - len(theirs["labels"]))
        wrong.append(off[-1] != 0)
        hits = box_iou(ours["boxes"][sure], theirs["boxes"])[0] > 0.5
        twice += int((hits.sum(0) - 1).clamp(min=0).sum())
    return {
        "ap": fmean(values),
        "ap50": values[0],
        "ap75": values[5],
        "count_error": fmean(abs(o) for o in off),
        "count_bias": fmean(off),
        "count_wrong": fmean(wrong),
        "duplicates": twice / sum(len(one["labels"]) for one in truth),
    }


def _truth_map(scene: Scene) -> tuple[Tensor, Tensor]:
    return scene["masks"].long().argmax(0), scene["labels"]


def _train_masks(model: Detr, steps: int, batch: int = 16) -> MaskHead:
    """A mask head on the frozen detector, as in the paper's second stage."""
    torch.manual_seed(0)
    head = MaskHead(_DIM, _HEADS, (_DIM // 4, _DIM // 2))
    optimizer = torch.optim.AdamW(head.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    matcher, generator = HungarianMatcher(), torch.Generator().manual_seed(77)
    for step in range(steps):
        pictures, scenes = _scenes(batch, generator)
        with torch.no_grad():
            outputs = model(pictures)
        logits, pairs = head(outputs), matcher(outputs, scenes)
        ours = torch.cat([logits[i, query] for i, (query, _) in enumerate(pairs)])
        theirs = torch.cat([scenes[i]["masks"][target] for i, (_, target) in enumerate(pairs)])
        smaller = F.avg_pool2d(theirs[:, None].float(), 2)[:, 0]
        loss = mask_loss(ours, (smaller >= 0.5).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            _say(f"masks, step {step + 1} of {steps}, loss {float(loss):.3f}")
    return head.eval()


@torch.no_grad()
def _segment(
    head: MaskHead, outputs: Sequence[dict[str, Any]], found: Sequence[dict[str, Tensor]]
) -> list[tuple[Tensor, Tensor]]:
    masks = torch.cat([F.interpolate(head(part), (_SIZE, _SIZE), mode="bilinear") for part in outputs])
    return [
        merge_panoptic(masks[i], one["scores"], one["labels"], _STUFF, min_score=_SURE)
        for i, one in enumerate(found)
    ]


@experiment
def training(
    steps: int = 1500, mask_steps: int = 250, pictures: int = 500, shown: int = 4
) -> dict[str, Any]:
    """A small DETR on overlapping shapes, then a mask head on it, both judged on unseen pictures.

    ap, ap50, ap75: of the shapes, mean over the three classes (ap: over IoU 0.5 to 0.95 as well).
    count_error (mean absolute), count_bias (mean), count_wrong (share of pictures), duplicates (per
    true shape): of detections with a score above `sure`.
    suppressed_*: the same after non-maximum suppression at IoU 0.7 within a class.
    layer_rows: layer, ap, ap50, count_error, duplicates, of every decoder layer's own prediction;
    layer_0_ap, ...: as single values.
    class_rows: class_name, ap50, of each shape.
    pq, sq, rq: mean over the five classes; pq_things, pq_stuff; panoptic_rows: class_name, pq, sq, rq.
    steps, mask_steps, pictures, shapes (in the test pictures), parameters, mask_parameters, queries, sure.
    history_step, history_loss, history_ce, history_bbox, history_giou (arrays), first_loss, last_loss.
    image, segment_map (arrays): the first test pictures and their predicted segments; segment_labels,
    shown_rows: picture, query, label, score, x1, y1, x2, y2, of their sure detections; truth_rows.
    attention (array): of the first picture's sure detections; attention_rows: query, label, x1, y1, x2, y2.
    centers (array): query, x, y, width, height, label of the sure detections in all test pictures.
    """
    torch.set_num_threads(1)
    model, history = _train(steps, seed=0)
    images, scenes = _scenes(pictures, torch.Generator().manual_seed(5))
    outputs = _detect(model, images)
    found = _processed(outputs)
    result: dict[str, Any] = dict(_score(found, scenes))
    kept = []
    for one in found:
        offset = one["boxes"] + 2 * _SIZE * one["labels"][:, None]  # classes do not meet
        chosen = non_maximum_suppression(offset, one["scores"], 0.7)
        kept.append({key: value[chosen] for key, value in one.items()})
    result |= {f"suppressed_{key}": value for key, value in _score(kept, scenes).items()}
    layers = len(outputs[0]["aux_outputs"])
    result["layer_rows"] = []
    for layer in range(layers):
        of_layer = _score(_processed([part["aux_outputs"][layer] for part in outputs]), scenes)
        result["layer_rows"].append({"layer": layer + 1} | of_layer)
    result["layer_rows"].append({"layer": layers + 1} | _score(found, scenes))
    result |= {f"layer_{r['layer']}_{k}": r[k] for r in result["layer_rows"] for k in ("ap", "duplicates")}
    of_class = average_precision(found, _truth(scenes), _CLASSES, 0.5)
    names = ("disc", "square", "triangle", "sky", "ground")
    result["class_rows"] = [{"class_name": names[c], "ap50": float(of_class[c])} for c in _THINGS]

    head = _train_masks(model, mask_steps)
    segments = _segment(head, outputs, found)
    quality = panoptic_quality(segments, [_truth_map(scene) for scene in scenes], _CLASSES)
    result |= {key: float(q.mean()) for key, q in zip(("pq", "sq", "rq"), quality, strict=True)}
    result |= {"pq_things": float(quality[0][:3].mean()), "pq_stuff": float(quality[0][3:].mean())}
    result["panoptic_rows"] = [
        {"class_name": names[c]} | {k: float(q[c]) for k, q in zip(("pq", "sq", "rq"), quality, strict=True)}
        for c in range(_CLASSES)
    ]

    sure = [(one["scores"] > _SURE).nonzero().flatten().tolist() for one in found]

    def row(i: int, query: int) -> dict[str, Any]:
        one = found[i]
        corners = dict(zip(("x1", "y1", "x2", "y2"), one["boxes"][query].tolist(), strict=True))
        label, score = int(one["labels"][query]), float(one["scores"][query])
        return {"picture": i, "query": query, "label": label, "score": score} | corners

    centers = [
        (query, *outputs[i // 100]["pred_boxes"][i % 100, query].tolist(), int(one["labels"][query]))
        for i, one in enumerate(found)
        for query in sure[i]
    ]
    result |= {
        "shown_rows": [row(i, query) for i in range(shown) for query in sure[i]],
        "truth_rows": [
            {"picture": i, "label": int(label)} | dict(zip(("x1", "y1", "x2", "y2"), box.tolist(), strict=True))
            for i in range(shown)
            for label, box in zip(*_truth(scenes)[i].values(), strict=True)
        ],
        "attention": outputs[0]["attention"][0, sure[0]],
        "attention_rows": [row(0, query) for query in sure[0]],
        "centers": np.array(centers),
        "image": images[:shown].movedim(1, -1).clamp(0, 1),
        "segment_map": torch.stack([segment for segment, _ in segments[:shown]]),
        "segment_labels": [labels.tolist() for _, labels in segments[:shown]],
        "weights": {f"model.{k}": v for k, v in model.state_dict().items()}
        | {f"head.{k}": v for k, v in head.state_dict().items()},
    }
    for key in ("step", "loss", "loss_ce", "loss_bbox", "loss_giou"):
        values = np.array([record[key] for record in history])
        result[f"history_{key.removeprefix('loss_')}"] = values
    return result | {
        "steps": steps,
        "mask_steps": mask_steps,
        "pictures": pictures,
        "shapes": sum(len(_things(one)["labels"]) for one in _truth(scenes)),
        "parameters": sum(p.numel() for p in model.parameters()),
        "mask_parameters": sum(p.numel() for p in head.parameters()),
        "queries": _QUERIES,
        "sure": _SURE,
        "first_loss": history[0]["loss"],
        "last_loss": fmean(record["loss"] for record in history[-10:]),
    }
