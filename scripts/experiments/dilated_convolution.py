"""Measurements for dilated convolution: receptive fields, gridding, live taps, cost and a toy segmentation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import product
from math import gcd
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.pipeline.experiment import experiment
from snippets.dilated_convolution import (
    contribution_map,
    coverage,
    dilated_conv2d,
    effective_kernel_size,
    has_gridding,
    hdc_max_distance,
    live_taps,
    receptive_field,
    same_padding,
    satisfies_hdc,
)

_KERNEL = 3


@experiment
def receptive_fields(depth: int = 8) -> dict[str, Any]:
    """Receptive fields of stacks of 3-tap layers, plain and with doubling rates.

    rows: depth, last_rate (2 ** (depth - 1)), plain and doubling (receptive fields), weights (taps
    of a 2-D single-channel stack, equal for both).
    two_layers_doubling, three_layers_doubling, two_layers_plain, three_layers_plain: the same as
    single values.
    plain_depth_for_15: how many undilated layers reach what doubling reaches with three.
    rate_three_kernel: effective size of one 3-tap kernel with rate 3.
    causal_four_layers: receptive field of causal 2-tap layers with rates 1, 2, 4, 8.
    strided_true, strided_forgetful: (kernel, stride, dilation) = (3,2,1), (3,2,1), (3,1,2), with
    strides and with the strides forgotten.
    """
    plain = [receptive_field([(_KERNEL, 1, 1)] * n) for n in range(1, depth + 1)]
    doubling = [receptive_field([(_KERNEL, 1, 2**i) for i in range(n)]) for n in range(1, depth + 1)]
    rows = [
        {
            "depth": n,
            "last_rate": 2 ** (n - 1),
            "plain": plain[n - 1],
            "doubling": doubling[n - 1],
            "weights": n * _KERNEL**2,
        }
        for n in range(1, depth + 1)
    ]
    strided = [(3, 2, 1), (3, 2, 1), (3, 1, 2)]
    plain_depth = 1
    while receptive_field([(_KERNEL, 1, 1)] * plain_depth) < doubling[2]:
        plain_depth += 1
    return {
        "rows": rows,
        "two_layers_doubling": doubling[1],
        "three_layers_doubling": doubling[2],
        "two_layers_plain": plain[1],
        "three_layers_plain": plain[2],
        "plain_depth_for_15": plain_depth,
        "rate_three_kernel": effective_kernel_size(_KERNEL, 3),
        "causal_four_layers": receptive_field([(2, 1, 2**i) for i in range(4)]),
        "strided_true": receptive_field(strided),
        "strided_forgetful": receptive_field([(k, 1, d) for k, _, d in strided]),
    }


def _short_distance(dilations: Sequence[int]) -> bool:
    return hdc_max_distance(_KERNEL, dilations) <= _KERNEL


def _within_field(dilations: Sequence[int]) -> bool:
    """In ascending order, no rate exceeds the receptive field of the layers before it."""
    field = 1
    for rate in sorted(dilations):
        if rate > field:
            return False
        field += rate * (_KERNEL - 1)
    return True


def _verdict(accepted: bool, gridding: bool) -> str:
    if accepted and gridding:
        return "missed"
    if not accepted and not gridding:
        return "false_alarm"
    return "right"


@experiment
def gridding() -> dict[str, Any]:
    """What one output of a stack of 3x3 layers sees of its receptive field.

    rows: rates, receptive_field (side), seen (pixels that reach the output), pixels (all of the
    field), coverage (seen / pixels), max_distance (M2), distance_rule (M2 <= 3), common_factor (gcd
    of the rates), gridding (the truth), verdict of M2 <= 3 and gcd = 1: right | missed (accepted,
    yet gridding) | false_alarm (rejected, yet without a gap).
    rates_2_2_2 ... rates_6_12_18: the coverage of that stack; field_2_2_2 ...: its receptive field;
    seen_2_2_2 ...: its number of seen pixels.
    map_2_2_2 ... (arrays): paths from each pixel to the output.
    paths_max_1_2_3, paths_min_1_3_9, paths_max_1_3_9: the most and the fewest paths from one pixel.
    """
    stacks = [[2, 2, 2], [1, 2, 3], [1, 2, 5], [1, 2, 9], [2, 4, 8], [1, 3, 9], [6, 12, 18]]
    result: dict[str, Any] = {"rows": []}
    for rates in stacks:
        paths = contribution_map(_KERNEL, rates)
        seen, share = int((paths > 0).sum()), coverage(_KERNEL, rates)
        gaps = has_gridding(_KERNEL, rates)
        result["rows"].append(
            {
                "rates": rates,
                "receptive_field": paths.shape[0],
                "seen": seen,
                "pixels": paths.numel(),
                "coverage": share,
                "max_distance": hdc_max_distance(_KERNEL, rates),
                "distance_rule": _short_distance(rates),
                "common_factor": gcd(*rates),
                "gridding": gaps,
                "verdict": _verdict(satisfies_hdc(_KERNEL, rates), gaps),
            }
        )
        name = "_".join(map(str, rates))
        result[f"rates_{name}"] = share
        result[f"field_{name}"] = paths.shape[0]
        result[f"seen_{name}"] = seen
        result[f"map_{name}"] = paths.numpy()
    result["paths_max_1_2_3"] = int(result["map_1_2_3"].max())
    result["paths_min_1_3_9"] = int(result["map_1_3_9"].min())
    result["paths_max_1_3_9"] = int(result["map_1_3_9"].max())
    return result


@experiment
def hdc_rule(layers: Sequence[int] = (2, 3, 4), max_rate: int = 7) -> dict[str, Any]:
    """Rules against gridding held against the truth, over every stack of 3-tap layers with rates 1 to max_rate.

    Four rules: distance (M2 <= 3 alone), gcd (M2 <= 3 and greatest common divisor 1), first (M2 <=
    3 and the first rate is 1), field (in ascending order, no rate exceeds the receptive field of
    those before it).
    rows (a line for each number of layers, last line "all"): layers (as text), stacks, gap_free,
    and for each rule *_accepted, *_missed (accepted though gridding), *_false_alarms (rejected
    though without a gap), *_right, as in distance_missed, gcd_right, field_false_alarms.
    The line "all" is repeated as single values under the same names, with shares: *_right_share (of
    all stacks), *_missed_share (of the accepted), *_false_alarm_share (of the stacks without a
    gap).
    orderings: sets of rates (order ignored); orderings_differ: those for which the rule gcd accepts
    one order and rejects another, though order never changes what is seen; rejected_in_every_order:
    sets without a gap which it rejects in every order.
    missed_examples, false_alarm_examples: tables (rates, max_distance, coverage) of the first such
    stacks by the rule gcd.
    """
    rules = ("distance", "gcd", "first", "field")
    kinds = {"missed": "missed", "false_alarm": "false_alarms", "right": "right"}
    rows: list[dict[str, Any]] = []
    orders: dict[tuple[int, ...], set[bool]] = {}
    gap_free_sets: set[tuple[int, ...]] = set()
    examples: dict[str, list[dict[str, Any]]] = {"missed": [], "false_alarm": [], "right": []}
    for count in layers:
        tally = {"stacks": 0, "gap_free": 0}
        tally |= {f"{rule}_{kind}": 0 for rule in rules for kind in ("accepted", *kinds.values())}
        for rates in product(range(1, max_rate + 1), repeat=count):
            short, gaps = _short_distance(rates), has_gridding(_KERNEL, rates)
            accepts = {
                "distance": short,
                "gcd": satisfies_hdc(_KERNEL, rates),
                "first": short and rates[0] == 1,
                "field": _within_field(rates),
            }
            tally["stacks"] += 1
            tally["gap_free"] += not gaps
            for rule, accepted in accepts.items():
                tally[f"{rule}_accepted"] += accepted
                tally[f"{rule}_{kinds[_verdict(accepted, gaps)]}"] += 1
            chosen = examples[_verdict(accepts["gcd"], gaps)]
            if len(chosen) < 4:
                chosen.append(_example(rates))
            unordered = tuple(sorted(rates))
            orders.setdefault(unordered, set()).add(accepts["gcd"])
            if not gaps:
                gap_free_sets.add(unordered)
        rows.append({"layers": str(count)} | tally)
    total = {name: sum(row[name] for row in rows) for name in rows[0] if name != "layers"}
    shares = {}
    for rule in rules:
        shares[f"{rule}_right_share"] = total[f"{rule}_right"] / total["stacks"]
        shares[f"{rule}_missed_share"] = total[f"{rule}_missed"] / total[f"{rule}_accepted"]
        shares[f"{rule}_false_alarm_share"] = total[f"{rule}_false_alarms"] / total["gap_free"]
    return {
        "rows": [*rows, {"layers": "all"} | total],
        **total,
        **shares,
        "orderings": len(orders),
        "orderings_differ": sum(len(verdicts) == 2 for verdicts in orders.values()),
        "rejected_in_every_order": sum(True not in orders[rates] for rates in gap_free_sets),
        "missed_examples": examples["missed"],
        "false_alarm_examples": examples["false_alarm"],
    }


def _example(rates: Sequence[int]) -> dict[str, Any]:
    return {
        "rates": list(rates),
        "max_distance": hdc_max_distance(_KERNEL, rates),
        "coverage": coverage(_KERNEL, rates),
    }


@experiment
def aspp_taps(sizes: Sequence[int] = (33, 65)) -> dict[str, Any]:
    """How many of a 3x3 kernel's nine taps fall inside the map, averaged over all output pixels.

    rows: rate, then for each size taps_33, share_33 (of 9), taps_65, share_65.
    rate_6_on_33, rate_12_on_33, rate_18_on_33, rate_24_on_33, rate_32_on_33 and ..._on_65: the mean
    number of live taps as single values.
    full_6_on_33, full_12_on_33, full_18_on_33, ..._on_65: the share of pixels at which all nine
    taps are live.
    rates, share_33, share_65 (arrays): the share for every rate up to the larger size, for the
    curve.
    live_6_on_33, ... (arrays): live taps at each pixel.
    """
    chosen = (1, 2, 6, 12, 18, 24, 32, 36, 48, 64)
    taps = {
        size: {rate: float(live_taps(size, _KERNEL, rate)) for rate in range(1, max(sizes) + 1)}
        for size in sizes
    }
    result: dict[str, Any] = {"rows": [], "rates": np.arange(1, max(sizes) + 1)}
    for rate in chosen:
        row: dict[str, Any] = {"rate": rate}
        for size in sizes:
            row[f"taps_{size}"] = taps[size][rate]
            row[f"share_{size}"] = taps[size][rate] / _KERNEL**2
            if rate in (6, 12, 18, 24, 32):
                result[f"rate_{rate}_on_{size}"] = taps[size][rate]
        result["rows"].append(row)
    for size in sizes:
        result[f"share_{size}"] = np.array(list(taps[size].values())) / _KERNEL**2
        ones = torch.ones(1, 1, size, size)
        for rate in (6, 12, 18):
            live = F.conv2d(
                ones,
                torch.ones(1, 1, _KERNEL, _KERNEL),
                padding=same_padding(_KERNEL, rate),
                dilation=rate,
            )
            result[f"live_{rate}_on_{size}"] = live[0, 0].numpy().astype(np.int64)
            result[f"full_{rate}_on_{size}"] = float((live == _KERNEL**2).double().mean())
    return result


@experiment
def cost(
    rates: Sequence[int] = (1, 2, 4, 8, 16), channels: int = 32, size: int = 64, repeats: int = 31
) -> dict[str, Any]:
    """Time of a 3x3 convolution against its dilation at equal output size, on the machine that built this page.

    rows: dilation; library (median time of torch's conv2d with same padding over that at dilation
    1), library_low and library_high (quartiles); unpadded (the same with the border already in the
    input, so that no tap is left out), unpadded_low, unpadded_high; ours (median time of
    dilated_conv2d over torch's at the same dilation, both with same padding); weights,
    multiply_adds (nominal, equal in every row); live_share (share of these multiply-adds that meet
    the map, not padding).
    slowest_ratio, fastest_ratio: the largest and smallest of library; slowest_dilation,
    fastest_dilation: where; unpadded_slowest, unpadded_fastest: the same for unpadded;
    ours_fastest, ours_slowest: the smallest and largest of ours; parameters, multiply_adds: single
    values; batch, channels, size, repeats: the setting; threads: 1.
    """
    torch.set_num_threads(1)
    batch = 4
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(channels, channels, _KERNEL, _KERNEL, generator=generator)
    x = torch.randn(batch, channels, size, size, generator=generator)  # (B, C, H, W)
    bordered = {rate: F.pad(x, [same_padding(_KERNEL, rate)] * 4, mode="circular") for rate in rates}
    contenders = {
        "library": lambda rate: F.conv2d(x, weight, padding=same_padding(_KERNEL, rate), dilation=rate),
        "unpadded": lambda rate: F.conv2d(bordered[rate], weight, dilation=rate),
        "ours": lambda rate: dilated_conv2d(x, weight, padding=same_padding(_KERNEL, rate), dilation=rate),
    }
    seconds: dict[tuple[str, int], list[float]] = {(n, rate): [] for n in contenders for rate in rates}
    warm_up = 2
    with torch.inference_mode():
        # All settings take turns within a repeat, so that a slow moment of the machine strikes each of them.
        for repeat in range(repeats + warm_up):
            for (name, rate), times in seconds.items():
                start = time.perf_counter()
                contenders[name](rate)
                if repeat >= warm_up:
                    times.append(time.perf_counter() - start)
    nominal = {"weights": weight.numel(), "multiply_adds": batch * weight.numel() * size * size}
    rows: list[dict[str, Any]] = []
    for rate in rates:
        row: dict[str, Any] = {"dilation": rate}
        for name in ("library", "unpadded"):
            base = median(seconds[name, rates[0]])
            for mark, part in (("", 0.5), ("_low", 0.25), ("_high", 0.75)):
                row[name + mark] = float(np.quantile(seconds[name, rate], part)) / base
        row["ours"] = median(seconds["ours", rate]) / median(seconds["library", rate])
        rows.append(row | nominal | {"live_share": live_taps(size, _KERNEL, rate) / _KERNEL**2})
    slowest, fastest = (pick(rows, key=lambda row: row["library"]) for pick in (max, min))
    return {
        "rows": rows,
        "slowest_ratio": slowest["library"],
        "slowest_dilation": slowest["dilation"],
        "fastest_ratio": fastest["library"],
        "fastest_dilation": fastest["dilation"],
        "unpadded_slowest": max(row["unpadded"] for row in rows),
        "unpadded_fastest": min(row["unpadded"] for row in rows),
        "ours_slowest": max(row["ours"] for row in rows),
        "ours_fastest": min(row["ours"] for row in rows),
        "parameters": weight.numel(),
        "multiply_adds": nominal["multiply_adds"],
        "batch": batch,
        "channels": channels,
        "size": size,
        "repeats": repeats,
        "threads": 1,
    }


_NETS = {"plain": (1, 1, 1), "gridded": (2, 2, 2), "hybrid": (1, 2, 3)}
_BACKGROUND, _THIN, _LARGE = 0, 1, 2
_IMAGES = 256
_SHOWN = 0


def _shapes(
    count: int, size: int, noise: float, generator: torch.Generator, line_width: int = 2
) -> tuple[Tensor, Tensor]:
    """Bright thin lines and bright discs under noise -> images (N, 1, H, W), classes (N, H, W)."""
    axis = torch.arange(size, dtype=torch.float32)
    y, x = axis[:, None], axis[None, :]
    truth = torch.full((count, size, size), _BACKGROUND)
    for i in range(count):
        angle, offset, radius, row, column = torch.rand(5, 2, generator=generator)
        for j in range(2):
            theta = angle[j] * torch.pi
            through = size * (0.2 + 0.6 * offset[j])
            distance = (x - through) * theta.cos() + (y - through) * theta.sin()
            # A pixel's width as seen across the line: every row or column holds line_width pixels of it.
            width = torch.maximum(theta.cos().abs(), theta.sin().abs())
            truth[i][distance.abs() < line_width / 2 * width] = _THIN
        for j in range(2):
            centre_y, centre_x = row[j] * size, column[j] * size
            inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 < (5 + 4 * radius[j]) ** 2
            truth[i][inside] = _LARGE
    images = (truth != _BACKGROUND).float() + noise * torch.randn(truth.shape, generator=generator)
    return images[:, None], truth


class _Segmenter(nn.Module):
    """Three dilated 3x3 layers and a 1x1 head; no ordinary layer before them that would mix neighbours."""

    def __init__(self, rates: Sequence[int], channels: int) -> None:
        super().__init__()
        widths = [1, *[channels] * len(rates)]
        self.layers = nn.ModuleList(
            nn.Conv2d(i, o, _KERNEL, padding=same_padding(_KERNEL, rate), dilation=rate)
            for i, o, rate in zip(widths, widths[1:], rates, strict=False)
        )
        self.head = nn.Conv2d(channels, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()  # (B, C, H, W)
        logits: Tensor = self.head(x)  # (B, 3, H, W)
        return logits


def _iou(prediction: Tensor, truth: Tensor, label: int) -> float:
    ours, theirs = prediction == label, truth == label
    return float((ours & theirs).sum() / (ours | theirs).sum())


def _disagreement(prediction: Tensor, truth: Tensor) -> float:
    """Share of the 2x2 blocks of one true class whose four predictions are not all the same."""
    wanted = truth.unfold(1, 2, 2).unfold(2, 2, 2).flatten(3)  # (N, H/2, W/2, 4)
    blocks = prediction.unfold(1, 2, 2).unfold(2, 2, 2).flatten(3)
    uniform = wanted.amin(3) == wanted.amax(3)
    return float((blocks.amin(3) != blocks.amax(3))[uniform].float().mean())


def _nyquist(logits: Tensor) -> float:
    """Share of the logits' spectral energy, mean removed, in the upper half of either frequency axis."""
    energy = torch.fft.fft2(logits - logits.mean((-2, -1), keepdim=True)).abs().square()
    high = torch.fft.fftfreq(logits.shape[-1]).abs() > 0.25
    return float(energy[..., high[:, None] | high[None, :]].sum() / energy.sum())


def _changed_by_one_pixel(net: nn.Module, size: int) -> int:
    """How many output pixels move when the middle input pixel does."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(1, 1, size, size, generator=generator).requires_grad_()
    middle = size // 2
    touched = torch.zeros(size, size, dtype=torch.bool)
    with torch.no_grad():
        before = net(x)
        for delta in (-3.0, 3.0):
            moved = x.clone()
            moved[0, 0, middle, middle] += delta
            touched |= (net(moved) != before).any(1)[0]
    return int(touched.sum())


def _examples(seed: int, size: int, noise: float, line_width: int = 2) -> tuple[Tensor, Tensor]:
    """Training images of a seed and their classes, shared by the three nets."""
    return _shapes(_IMAGES, size, noise, torch.Generator().manual_seed(1000 + seed), line_width)


def _train(
    rates: Sequence[int], seed: int, steps: int, channels: int, examples: tuple[Tensor, Tensor]
) -> _Segmenter:
    torch.manual_seed(seed)
    net = _Segmenter(rates, channels)
    # Channels last: with so few channels a step takes two thirds of the time.
    nn.utils.convert_conv2d_weight_memory_format(net, torch.channels_last)
    if not steps:
        return net
    images, truth = examples
    generator = torch.Generator().manual_seed(2000 + seed)
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    weight = torch.tensor([1.0, 2.0, 1.0])
    for _ in range(steps):
        batch = torch.randint(len(images), (8,), generator=generator)
        loss = F.cross_entropy(net(images[batch]), truth[batch], weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net


def _measure(net: nn.Module, images: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, float]]:
    with torch.no_grad():
        logits = net(images)
    prediction = logits.argmax(1)
    return logits, {
        "thin": _iou(prediction, truth, _THIN),
        "large": _iou(prediction, truth, _LARGE),
        "checkerboard": _disagreement(prediction, truth),
        "nyquist": _nyquist(logits),
    }


@experiment
def training(
    steps: int = 300,
    seeds: Sequence[int] = (0, 1, 2),
    size: int = 40,
    channels: int = 12,
    noise: float = 0.8,
) -> dict[str, Any]:
    """Three segmentation nets of equal parameters on noisy thin lines and large discs of the same brightness.

    Nets: plain (rates 1, 1, 1), gridded (2, 2, 2), hybrid (1, 2, 3); the last two have the same
    receptive field.
    rows: net, rates, receptive_field, seen (pixels of it that reach an output), changed (output
    pixels that move when one input pixel does, in the trained net), parameters, thin and large
    (mean IoU over the seeds on unseen images), checkerboard (share of the 2x2 blocks of one true
    class whose four predicted classes differ), nyquist (share of the logits' energy in the upper
    half of the frequencies), untrained_nyquist (before training); each of these five with *_spread,
    the standard deviation over the seeds.
    seed_rows: net, seed, thin, large, checkerboard, nyquist.
    plain_thin, gridded_large, hybrid_checkerboard_spread, ...: each number of rows as a single
    value, net_key.
    thin_gain, large_gain: IoU of hybrid minus gridded; thin_gain_plain, large_gain_plain: hybrid
    minus plain; thin_wins, large_wins: seeds in which hybrid beats gridded; thin_wins_plain,
    large_wins_plain: beats plain; checkerboard_ratio, nyquist_ratio: gridded over hybrid.
    parameters (equal for all nets), images (training images), noise, steps, seeds (their number),
    size.
    image, truth, prediction_plain, prediction_gridded, prediction_hybrid, score_plain,
    score_gridded, score_hybrid (arrays): one unseen image, its classes (0 background, 1 thin, 2
    large), the predicted classes and the predicted probability of foreground, by the nets of the
    first seed.
    """
    torch.set_num_threads(1)
    images, truth = _shapes(64, size, noise, torch.Generator().manual_seed(7))
    rows: list[dict[str, Any]] = []
    seed_rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {
        "image": images[_SHOWN, 0].numpy(),
        "truth": truth[_SHOWN].numpy(),
        "weights": {},
    }
    examples = {seed: _examples(seed, size, noise) for seed in seeds}
    for name, rates in _NETS.items():
        row: dict[str, Any] = {
            "net": name,
            "rates": list(rates),
            "receptive_field": receptive_field([(_KERNEL, 1, rate) for rate in rates]),
            "seen": int((contribution_map(_KERNEL, rates) > 0).sum()),
        }
        runs = []
        for seed in seeds:
            _, before = _measure(_train(rates, seed, 0, channels, examples[seed]), images, truth)
            net = _train(rates, seed, steps, channels, examples[seed])
            logits, found = _measure(net, images, truth)
            seed_rows.append({"net": name, "seed": seed, **found})
            runs.append(found | {"untrained_nyquist": before["nyquist"]})
            if seed == seeds[0]:
                result[f"prediction_{name}"] = logits[_SHOWN].argmax(0).numpy()
                result[f"score_{name}"] = 1 - logits[_SHOWN].softmax(0)[_BACKGROUND].numpy()
                result["weights"] |= {f"{name}.{k}": tensor for k, tensor in net.state_dict().items()}
                row["changed"] = _changed_by_one_pixel(net, size)
                row["parameters"] = sum(parameter.numel() for parameter in net.parameters())
        for key in runs[0]:
            values = [run[key] for run in runs]
            row[key], row[f"{key}_spread"] = fmean(values), stdev(values)
        rows.append(row)
        result |= {f"{name}_{key}": value for key, value in row.items() if key not in ("net", "rates")}
    of_net = {name: [row for row in seed_rows if row["net"] == name] for name in _NETS}
    for rival, suffix in (("gridded", ""), ("plain", "_plain")):
        for part in ("thin", "large"):
            result[f"{part}_gain{suffix}"] = result[f"hybrid_{part}"] - result[f"{rival}_{part}"]
            pairs = zip(of_net["hybrid"], of_net[rival], strict=True)
            result[f"{part}_wins{suffix}"] = sum(ours[part] > theirs[part] for ours, theirs in pairs)
    for key in ("checkerboard", "nyquist"):
        result[f"{key}_ratio"] = result[f"gridded_{key}"] / result[f"hybrid_{key}"]
    setting = {"images": _IMAGES, "noise": noise, "steps": steps, "seeds": len(seeds), "size": size}
    return result | setting | {"rows": rows, "seed_rows": seed_rows, "parameters": rows[0]["parameters"]}


@experiment
def training_noise(
    noises: Sequence[float] = (0.2, 0.5, 0.8, 1.1),
    steps: int = 180,
    seeds: Sequence[int] = (0, 1),
    size: int = 40,
    channels: int = 12,
) -> dict[str, Any]:
    """The same three nets at several strengths of noise: the less noise, the less context is needed.

    rows: noise (standard deviation; the shapes are 1 brighter than the background), and for each
    net plain_thin, plain_large, plain_checkerboard, gridded_..., hybrid_...: means over the seeds.
    low_*, high_*: the first and the last line as single values, such as low_plain_thin,
    high_gridded_large.
    large_gain_low, large_gain_high: hybrid minus plain, IoU of the large parts, at the least and
    the most noise; thin_gain_low, thin_gain_high: the same for the thin parts.
    steps, seeds (their number).
    """
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for noise in noises:
        images, truth = _shapes(64, size, noise, torch.Generator().manual_seed(7))
        examples = {seed: _examples(seed, size, noise) for seed in seeds}
        row: dict[str, Any] = {"noise": noise}
        for name, rates in _NETS.items():
            runs = [
                _measure(_train(rates, seed, steps, channels, examples[seed]), images, truth)[1] for seed in seeds
            ]
            for key in ("thin", "large", "checkerboard"):
                row[f"{name}_{key}"] = fmean(run[key] for run in runs)
        rows.append(row)
    result: dict[str, Any] = {"rows": rows, "steps": steps, "seeds": len(seeds)}
    for end, row in (("low", rows[0]), ("high", rows[-1])):
        result |= {f"{end}_{key}": value for key, value in row.items()}
        for part in ("thin", "large"):
            result[f"{part}_gain_{end}"] = row[f"hybrid_{part}"] - row[f"plain_{part}"]
    return result


@experiment
def training_width(
    steps: int = 200,
    seeds: Sequence[int] = (0, 1, 2),
    size: int = 40,
    channels: int = 12,
    noise: float = 0.5,
) -> dict[str, Any]:
    """The same three nets where the thin lines are one pixel wide instead of two: a wide view helps such lines less.

    rows: net, thin, large, checkerboard (means over the seeds), thin_spread, large_spread (standard deviations).
    plain_thin, gridded_large, hybrid_thin_spread, ...: the same as single values, net_key.
    thin_gain, large_gain: IoU of hybrid minus gridded; thin_gain_plain, large_gain_plain: hybrid minus plain.
    thin_wins_plain, large_wins_plain: seeds in which hybrid beats plain.
    noise, steps, seeds (their number).
    """
    torch.set_num_threads(1)
    images, truth = _shapes(64, size, noise, torch.Generator().manual_seed(7), line_width=1)
    result: dict[str, Any] = {"rows": [], "noise": noise, "steps": steps, "seeds": len(seeds)}
    found: dict[str, list[dict[str, float]]] = {}
    examples = {seed: _examples(seed, size, noise, line_width=1) for seed in seeds}
    for name, rates in _NETS.items():
        found[name] = [
            _measure(_train(rates, seed, steps, channels, examples[seed]), images, truth)[1] for seed in seeds
        ]
        row: dict[str, Any] = {"net": name}
        row |= {key: fmean(run[key] for run in found[name]) for key in ("thin", "large", "checkerboard")}
        row |= {f"{part}_spread": stdev(run[part] for run in found[name]) for part in ("thin", "large")}
        result["rows"].append(row)
        result |= {f"{name}_{key}": value for key, value in row.items() if key != "net"}
    for part in ("thin", "large"):
        result[f"{part}_gain"] = result[f"hybrid_{part}"] - result[f"gridded_{part}"]
        result[f"{part}_gain_plain"] = result[f"hybrid_{part}"] - result[f"plain_{part}"]
        pairs = zip(found["hybrid"], found["plain"], strict=True)
        result[f"{part}_wins_plain"] = sum(ours[part] > theirs[part] for ours, theirs in pairs)
    return result
