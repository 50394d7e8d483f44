"""Measurements for DETR: a small one trained on overlapping shapes, shorter runs without its parts, and mistakes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise, permutations
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
    inflated_score,
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
_COLORS = ((0.9, 0.25, 0.2), (0.95, 0.8, 0.2), (0.9, 0.9, 0.9))  # of the things
_BACKGROUND = ((0.3, 0.45, 0.75), (0.25, 0.45, 0.25))  # sky, ground
_SURE = inflated_score(0.5)  # even odds
_THRESHOLDS = (0.5, 0.7, 0.85, _SURE, 0.95)
_BINS = (0.3, 0.5, 0.65, 0.8, 0.87, 0.92, 0.96, 0.98, 1.0)  # of scores, finer where they crowd

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
    Each class has its color, somewhat varied, so that overlapping shapes of a class merge to the eye.
    """

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    line = torch.arange(_SIZE) + 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    horizon = 20 + 24 * random(count, 1, 1)
    ground = y >= horizon  # (B, H, W)
    shade = torch.tensor(_BACKGROUND)[:, :, None, None] * (0.6 + 0.4 * random(count, 2, 1, 1, 1))
    picture = torch.where(ground[:, None], shade[:, 1], shade[:, 0])
    number = (random(count) * most).long() + 1
    kind = (random(count, most, 1, 1) * 3).long()
    radius = 6 + 8 * random(count, most, 1, 1)
    center = radius + (_SIZE - 2 * radius) * random(count, most, 2, 1, 1).movedim(2, 0)
    shapes = _inside(kind, x - center[0], y - center[1], radius)  # (B, most, H, W)
    colors = torch.tensor(_COLORS)[kind[..., 0, 0]][..., None, None]  # (B, most, 3, 1, 1)
    colors = colors + 0.15 * (random(count, most, 3, 1, 1) - 0.5)
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


def _normal(pictures: Tensor) -> Tensor:
    return 4 * (pictures - 0.45)


def _say(words: str) -> None:
    """Progress of minutes of training, past the pipeline, which keeps what a task prints to itself."""
    print(f"detr: {words}", file=sys.__stderr__, flush=True)


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
        outputs = model(_normal(pictures))
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
            _say(f"seed {seed}, step {step + 1} of {steps}, loss {losses['loss'].item():.2f}")
    return model.eval(), history


@torch.no_grad()
def _detect(model: Detr, pictures: Tensor) -> list[dict[str, Any]]:
    """Outputs of the model for a hundred pictures at a time."""
    return [model(_normal(part)) for part in pictures.split(100)]


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


def _score(
    found: Sequence[dict[str, Tensor]], scenes: Sequence[Scene], threshold: float = _SURE
) -> dict[str, float]:
    """How well the shapes (not sky and ground) were found."""
    found, truth = [_things(one) for one in found], [_things(one) for one in _truth(scenes)]
    levels = [0.5 + 0.05 * i for i in range(10)]
    values = [float(average_precision(found, truth, len(_THINGS), level).mean()) for level in levels]
    wrong, twice, off = [], 0, []
    for ours, theirs in zip(found, truth, strict=True):
        sure = ours["scores"] > threshold
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


def _overlapping(scene: Scene) -> bool:
    """Whether the boxes of two shapes meet."""
    boxes = box_cxcywh_to_xyxy(_things(scene)["boxes"])
    return bool((box_iou(boxes, boxes)[0].fill_diagonal_(0) > 0).any())


def _calibration(found: Sequence[dict[str, Tensor]], pairs: Sequence[Any], scenes: Sequence[Scene]) -> Tensor:
    """Of every query that says shape: its score, and 1 if it was paired with a true object of that class."""
    rows = []
    for one, (query, target), scene in zip(found, pairs, scenes, strict=True):
        right = torch.zeros(len(one["scores"]))
        right[query] = (one["labels"][query] == scene["labels"][target]).float()
        rows.append(torch.stack([one["scores"], right], dim=1)[one["labels"] < len(_THINGS)])
    return torch.cat(rows)


def _share_right(score: Tensor) -> Tensor:
    """How often a query of this score is right, if the loss had its way: inflated_score, inverted."""
    weight = 0.1
    return weight * score / (1 - score + weight * score)


@torch.no_grad()
def _leaking(model: Detr, outputs: dict[str, Any]) -> dict[str, Any]:
    """The answer if the norm before the heads fed the next layer too, and came twice at the end."""
    memory = outputs["memory"].flatten(2).mT
    position = model.position(outputs["padding"]).flatten(2).mT
    decoder = model.decoder
    place = decoder.query_position.expand(len(memory), -1, -1)
    x = torch.zeros_like(place)
    for layer in decoder.layers:
        x = decoder.norm(layer(x, place, memory, position)[0])
    x = decoder.norm(x)
    return {"pred_logits": decoder.classify(x), "pred_boxes": decoder.locate(x).sigmoid()}


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
            outputs = model(_normal(pictures))
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
            _say(f"masks, step {step + 1} of {steps}, loss {loss.item():.3f}")
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
def training(steps: int = 1500, mask_steps: int = 250, pictures: int = 500, shown: int = 4) -> dict[str, Any]:
    """A small DETR on overlapping shapes, then a mask head on it, both judged on unseen pictures.

    ap, ap50, ap75: of the shapes, mean over the three classes (ap: over IoU 0.5 to 0.95 as well).
    count_error (mean absolute), count_bias (mean), count_wrong (share of pictures), duplicates (per
    true shape): of detections with a score above `sure`.
    threshold_rows: threshold, count_error, count_bias, duplicates, for other scores than `sure`;
    half_count_error, half_count_bias, half_duplicates: of the first row, 0.5.
    suppressed_*: the same after non-maximum suppression at IoU 0.7 within a class.
    leak_*: the same from the same weights, if the norm before the heads leaks into the layers.
    overlap_*: the same in the overlap_pictures pictures in which the boxes of two shapes meet.
    bin_score, bin_right, bin_expected, bin_count (arrays): of the queries that say shape, by score: mean
    score, share that is right, the share at which the loss is least, number. even_score, even_right,
    even_expected, even_count: of the bin around even odds.
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
    result["threshold_rows"] = [{"threshold": t} | _score(found, scenes, t) for t in _THRESHOLDS]
    half = result["threshold_rows"][0]
    result |= {f"half_{key}": half[key] for key in ("count_error", "count_bias", "duplicates")}
    kept = []
    for one in found:
        offset = one["boxes"] + 2 * _SIZE * one["labels"][:, None]  # classes do not meet
        chosen = non_maximum_suppression(offset, one["scores"], 0.7)
        kept.append({key: value[chosen] for key, value in one.items()})
    result |= {f"suppressed_{key}": value for key, value in _score(kept, scenes).items()}
    leaking = _processed([_leaking(model, part) for part in outputs])
    result |= {f"leak_{key}": value for key, value in _score(leaking, scenes).items()}
    met = [i for i, scene in enumerate(scenes) if _overlapping(scene)]
    result |= {
        f"overlap_{key}": value
        for key, value in _score([found[i] for i in met], [scenes[i] for i in met]).items()
    }
    result["overlap_pictures"] = len(met)
    pairs = [
        pair
        for number, part in enumerate(outputs)
        for pair in HungarianMatcher()(part, scenes[100 * number : 100 * (number + 1)])
    ]
    scores, right = _calibration(found, pairs, scenes).unbind(1)
    bins = [(scores > low) & (scores <= high) for low, high in pairwise(_BINS)]
    result |= {
        "bin_score": np.array([float(scores[b].mean()) for b in bins]),
        "bin_right": np.array([float(right[b].mean()) for b in bins]),
        "bin_expected": np.array([float(_share_right(scores[b]).mean()) for b in bins]),
        "bin_count": np.array([int(b.sum()) for b in bins]),
    }
    even = next(i for i, (low, high) in enumerate(pairwise(_BINS)) if low < _SURE <= high)
    result |= {f"even_{key}": float(result[f"bin_{key}"][even]) for key in ("score", "right", "expected")}
    result["even_count"] = int(result["bin_count"][even])
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
            {"picture": i, "label": int(label)}
            | dict(zip(("x1", "y1", "x2", "y2"), box.tolist(), strict=True))
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


@experiment
def ablations(steps: int = 300, seeds: Sequence[int] = (0, 1), pictures: int = 300) -> dict[str, Any]:
    """Shorter runs with one part replaced: greedy for optimal matching, no auxiliary losses.

    rows: variant (full, greedy, no_auxiliary), ap50, ap50_lowest, ap50_highest, count_error, duplicates,
    last_loss (of the last layer, weighted, mean of the last 50 steps): means over the seeds.
    full_ap50, greedy_ap50_lowest, ...: as single values. greedy_gain, auxiliary_gain: AP50 of full minus
    the variant; greedy_wins, auxiliary_wins: seeds in which full is better. steps, seeds, pictures.
    history_step, full_history, greedy_history, no_auxiliary_history (arrays): loss of the last layer,
    (seeds, records).
    """
    torch.set_num_threads(1)
    images, scenes = _scenes(pictures, torch.Generator().manual_seed(5))
    variants: dict[str, dict[str, Any]] = {
        "full": {},
        "greedy": {"assign": greedy_assignment},
        "no_auxiliary": {"auxiliary": False},
    }
    result: dict[str, Any] = {"rows": [], "steps": steps, "seeds": len(seeds), "pictures": pictures}
    ap50: dict[str, list[float]] = {}
    for name, options in variants.items():
        runs, curves = [], []
        for seed in seeds:
            _say(f"without parts: {name}")
            model, history = _train(steps, seed, **options)
            runs.append(_score(_processed(_detect(model, images)), scenes))
            curves.append([h["loss_ce"] + 5 * h["loss_bbox"] + 2 * h["loss_giou"] for h in history])
            result["history_step"] = np.array([h["step"] for h in history])
        result[f"{name}_history"] = np.array(curves)
        ap50[name] = [run["ap50"] for run in runs]
        row: dict[str, Any] = {key: fmean(run[key] for run in runs) for key in ("count_error", "duplicates")}
        row |= {
            "ap50": fmean(ap50[name]),
            "ap50_lowest": min(ap50[name]),
            "ap50_highest": max(ap50[name]),
            "last_loss": float(np.array(curves)[:, -5:].mean()),
        }
        result["rows"].append({"variant": name} | row)
        result |= {f"{name}_{key}": value for key, value in row.items()}
    for name, short in (("greedy", "greedy"), ("no_auxiliary", "auxiliary")):
        result[f"{short}_gain"] = result["full_ap50"] - result[f"{name}_ap50"]
        pairs = zip(ap50["full"], ap50[name], strict=True)
        result[f"{short}_wins"] = sum(ours > theirs for ours, theirs in pairs)
    return result


@experiment
def matching_example() -> dict[str, Any]:
    """Five queries and three true boxes, where taking the cheapest pair first is not optimal.

    cost (array): (5, 3). class_term, bbox_term, giou_term (arrays): its weighted parts. boxes, truth
    (arrays): corners. query_0, query_1, query_2: the query of each true box; greedy_query_0, ...
    total, greedy_total: sums of costs; excess: their difference. orders: how many one-to-one pairings
    there are; best_by_trying: the least of their sums.
    """
    truth = torch.tensor([[0.35, 0.4, 0.3, 0.3], [0.5, 0.45, 0.3, 0.3], [0.75, 0.75, 0.2, 0.3]])
    boxes = torch.tensor(
        [
            [0.42, 0.42, 0.3, 0.3],
            [0.2, 0.45, 0.26, 0.34],
            [0.72, 0.72, 0.22, 0.3],
            [0.8, 0.8, 0.2, 0.2],
            [0.5, 0.15, 0.2, 0.1],
        ]
    )
    logits = torch.tensor([[2.0, 0, 0], [1.2, 0, 0], [0.2, 2, 0], [0, 0.5, 1], [0, 0, 2.5]])
    labels = torch.tensor([0, 0, 1])
    outputs = {"pred_logits": logits[None], "pred_boxes": boxes[None]}
    target = {"labels": labels, "boxes": truth}
    parts = {"class": (1, 0, 0), "bbox": (0, 5, 0), "giou": (0, 0, 2)}
    result: dict[str, Any] = {
        f"{name}_term": HungarianMatcher(*weights).costs(outputs, [target])[0]
        for name, weights in parts.items()
    }
    cost = HungarianMatcher().costs(outputs, [target])[0]
    for prefix, assign in (("", linear_assignment), ("greedy_", greedy_assignment)):
        query, column = assign(cost.numpy())
        result[f"{prefix}total"] = float(cost[query, column].sum())
        result |= {f"{prefix}query_{j}": int(i) for i, j in zip(query, column, strict=True)}
    sums = [float(cost[list(order), range(3)].sum()) for order in permutations(range(5), 3)]
    return result | {
        "cost": cost,
        "boxes": box_cxcywh_to_xyxy(boxes),
        "truth": box_cxcywh_to_xyxy(truth),
        "excess": result["greedy_total"] - result["total"],
        "orders": len(sums),
        "best_by_trying": min(sums),
    }


def _problems(count: int, objects: int, noise: float, seed: int) -> tuple[dict[str, Tensor], list[Scene]]:
    """Outputs that resemble those of a half-trained model: queries scattered around true boxes."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    truth = torch.cat([0.3 + 0.4 * random(count, objects, 2), 0.15 + 0.25 * random(count, objects, 2)], -1)
    labels = (random(count, objects) * 3).long()
    source = (random(count, _QUERIES) * objects).long()
    picked = truth.gather(1, source[..., None].expand(-1, -1, 4))
    boxes = (picked + noise * torch.randn(picked.shape, generator=generator)).clamp(0.02, 0.98)
    logits = 2 * torch.randn(count, _QUERIES, 4, generator=generator)
    logits[..., :3] += 2 * F.one_hot(labels.gather(1, source), 3)
    targets = [{"labels": labels[i], "boxes": truth[i]} for i in range(count)]
    return {"pred_logits": logits, "pred_boxes": boxes}, targets


@experiment
def assignments(count: int = 500) -> dict[str, Any]:
    """How much greedy matching pays too much, by the number of true boxes in a crowded picture.

    rows: objects, different (share of pictures where greedy pairs otherwise), excess (mean of its total
    cost minus the optimal one), worst (the largest). few_*, many_*: the first and the last row as single
    values. objects, different (arrays). count, queries.
    """
    rows = []
    for objects in (1, 2, 3, 4, 6, 8):
        outputs, targets = _problems(count, objects, noise=0.08, seed=objects)
        excess = []
        for cost in HungarianMatcher().costs(outputs, targets):
            best, greedy = (
                cost[assign(cost.numpy())].sum() for assign in (linear_assignment, greedy_assignment)
            )
            excess.append(float(greedy - best))
        different = fmean(e > 1e-6 for e in excess)
        rows.append(
            {"objects": objects, "different": different, "excess": fmean(excess), "worst": max(excess)}
        )
    result: dict[str, Any] = {"rows": rows, "count": count, "queries": _QUERIES}
    for end, row in (("few", rows[0]), ("many", rows[-1])):
        result |= {f"{end}_{key}": value for key, value in row.items()}
    return result | {key: np.array([row[key] for row in rows]) for key in ("objects", "different", "excess")}


@experiment
def giou_curve(side: float = 1.0, points: int = 121) -> dict[str, Any]:
    """IoU and GIoU of a square and its copy, moved aside by up to three sides.

    shift, iou, giou, l1 (arrays); closed_form (array): the formula; largest_error: between the two.
    giou_touching, giou_3: at a shift of one and of three sides.
    """
    shift = torch.linspace(0, 3 * side, points, dtype=torch.float64)
    square = torch.tensor([[0.0, 0.0, side, side]], dtype=torch.float64)
    moved = square + torch.stack([shift, 0 * shift, shift, 0 * shift], dim=1)
    giou = generalized_box_iou(square, moved)[0]
    closed = torch.tensor([shifted_square_giou(side, float(d)) for d in shift], dtype=torch.float64)
    return {
        "shift": shift / side,
        "iou": box_iou(square, moved)[0][0],
        "giou": giou,
        "l1": shift,
        "closed_form": closed,
        "largest_error": float((giou - closed).abs().max()),
        "giou_touching": shifted_square_giou(side, side),
        "giou_3": shifted_square_giou(side, 3 * side),
    }


@experiment
def position_codes(dim: int = 64, height: int = 12, width: int = 16) -> dict[str, Any]:
    """Likeness of the position codes of a picture padded on the right and below.

    likeness (array): cosine of the code at (row, column) with all others, (height, width); padding
    (array). row, column, picture_height, picture_width, dim. codes_of_row (array): the column codes
    along one row, (dim / 2, width).
    """
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    picture = (9, 12)
    mask[:, picture[0] :], mask[:, :, picture[1] :] = True, True
    codes = SinePositionEmbedding(dim)(mask)[0]
    row, column = 3, 4
    likeness = F.cosine_similarity(codes, codes[:, row, column, None, None], dim=0)
    return {
        "likeness": likeness,
        "padding": mask[0],
        "row": row,
        "column": column,
        "picture_height": picture[0],
        "picture_width": picture[1],
        "dim": dim,
        "codes_of_row": codes[dim // 2 :, row],
    }


@experiment
def published_mistakes(count: int = 400) -> dict[str, Any]:
    """Each mistake as code beside the right one, on the same input.

    rows: mistake, measure, wrong, right. <mistake>_wrong, <mistake>_right: as single values. count.
    """
    outputs, targets = _problems(count, 4, noise=0.08, seed=3)
    matcher = HungarianMatcher()
    costs = matcher.costs(outputs, targets)
    right = [linear_assignment(cost.numpy()) for cost in costs]
    terms = HungarianMatcher(1, 0, 0).costs(outputs, targets)  # -p
    gious = HungarianMatcher(0, 0, 1).costs(outputs, targets)  # -GIoU

    def matched(pairs: Sequence[Any]) -> float:
        return fmean(-float(g[pair].mean()) for g, pair in zip(gious, pairs, strict=True))

    logs = [c - p - (-p).log() for c, p in zip(costs, terms, strict=True)]
    with_log = [linear_assignment(cost.numpy()) for cost in logs]
    flipped = [linear_assignment((c - 4 * g).numpy()) for c, g in zip(costs, gious, strict=True)]
    found: dict[str, tuple[str, list[float]]] = {
        "log_probability": ("matched_giou", [matched(with_log), matched(right)]),
        "giou_sign": ("matched_giou", [matched(flipped), matched(right)]),
    }

    few, many = (_problems(8, n, noise=0.08, seed=4) for n in (1, 8))
    losses = [DetrLoss(3, matcher)(*problem)["loss_bbox"] for problem in (few, many)]
    by_batch = [float(loss) * n for loss, n in zip(losses, (1, 8), strict=True)]
    found["batch_size"] = (
        "crowded_over_sparse",
        [by_batch[1] / by_batch[0], float(losses[1] / losses[0])],
    )

    sure = F.one_hot(torch.arange(3), 4) * 9.0  # classes 0, 1, 2; the last is "no object"
    shifted = sure.roll(1, dims=1)  # the same with "no object" first
    labels = [
        post_process({"pred_logits": x[None], "pred_boxes": torch.full((1, 3, 4), 0.5)}, torch.ones(1, 2))[0]
        for x in (shifted, sure)
    ]
    hits = [float((one["labels"] == torch.arange(3)).float().mean()) for one in labels]
    found["no_object_first"] = ("labels_right", hits)

    torch.manual_seed(0)
    layer = DetrDecoderLayer(_DIM, _HEADS, 4 * _DIM, dropout=0.0).eval()
    codes = SinePositionEmbedding(_DIM)(torch.zeros(1, 6, 6, dtype=torch.bool)).flatten(2).mT
    blank, query = torch.zeros_like(codes), torch.randn(1, 5, _DIM)
    with torch.no_grad():
        values = [layer.cross(query, blank + codes, v, need_weights=False)[0] for v in (blank + codes, blank)]
        found["positions_in_values"] = ("blank_spread", [float(v.std(dim=1).mean()) for v in values])
        padding = torch.zeros(1, 36, dtype=torch.bool)
        padding[:, 18:] = True
        weights = [layer.cross(query, codes, codes, mask)[1] for mask in (~padding, padding)]
    found["mask_inverted"] = ("weight_on_padding", [float(w[..., 18:].sum(-1).mean()) for w in weights])

    box = torch.tensor([[0.5, 0.5, 0.4, 0.2]])
    scaled = box_cxcywh_to_xyxy(box) * torch.tensor([200.0, 100, 200, 100])
    swapped = box_cxcywh_to_xyxy(box) * torch.tensor([100.0, 200, 100, 200])
    found["height_first"] = ("iou_with_truth", [float(box_iou(b, scaled)[0]) for b in (swapped, scaled)])
    pair = torch.tensor([[0.2, 0.2, 0.3, 0.3], [0.7, 0.7, 0.8, 0.8]])
    apart = box_cxcywh_to_xyxy(pair)
    found["centers_as_corners"] = (
        "giou",
        [float(generalized_box_iou(boxes[:1], boxes[1:])) for boxes in (pair, apart)],
    )
    result: dict[str, Any] = {
        "rows": [
            {"mistake": name, "measure": measure, "wrong": wrong, "right": good}
            for name, (measure, (wrong, good)) in found.items()
        ],
        "count": count,
        "log_changed": fmean(
            tuple(map(list, a)) != tuple(map(list, b)) for a, b in zip(with_log, right, strict=True)
        ),
    }
    for name, (_, (wrong, good)) in found.items():
        result |= {f"{name}_wrong": wrong, f"{name}_right": good}
    return result
