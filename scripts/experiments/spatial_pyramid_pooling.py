"""Measurements for spatial pyramid pooling: bins counted, blocks timed, classifiers trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from math import ceil, log2
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.pipeline.experiment import experiment
from snippets.spatial_pyramid_pooling import (
    SPPF,
    SpatialPyramidPooling,
    SPPBlock,
    bin_edges,
    chained_kernel,
    miscounted_sizes,
    paper_window,
    pool_comparisons,
    pyramid_length,
    roi_spp,
    separable_max_pool,
)

_LEVELS = (1, 2, 4)
_PAPER_LEVELS = (1, 2, 3, 6)
_KERNELS = (5, 9, 13)


@experiment
def pyramid(sizes: Sequence[tuple[int, int]] = ((13, 13), (9, 16)), channels: int = 256) -> dict[str, Any]:
    """The bins of two maps, and what the vector's length comes to.

    rows: height, width, level, bins, heights and widths (cells along each axis of each bin, as text),
    shared (cells of the map that lie in more than one bin).
    bins: bins of levels 1, 2, 4; length: that times the channels; paper_bins, paper_length: levels
    1, 2, 3, 6; small_bins: levels 1, 2, 3, 4; channels.
    fc_plain, fc_pyramid, fc_small: weights of the first dense layer with 4096 outputs behind a 6x6 map,
    behind the paper's 50 bins and behind 30 bins, in millions.
    """
    rows = []
    for (height, width), level in product(sizes, _LEVELS):
        counted = np.zeros((height, width), dtype=int)
        edges = bin_edges(height, level), bin_edges(width, level)
        for (top, bottom), (left, right) in product(*edges):
            counted[top:bottom, left:right] += 1
        texts = [", ".join(str(end - start) for start, end in axis) for axis in edges]
        rows.append(
            {
                "height": height,
                "width": width,
                "level": level,
                "bins": level**2,
                "heights": texts[0],
                "widths": texts[1],
                "shared": int((counted > 1).sum()),
            }
        )
    bins = {name: pyramid_length(1, levels) for name, levels in {
        "bins": _LEVELS, "paper_bins": _PAPER_LEVELS, "small_bins": (1, 2, 3, 4)
    }.items()}  # fmt: skip
    return bins | {
        "rows": rows,
        "length": pyramid_length(channels, _LEVELS),
        "paper_length": pyramid_length(channels, _PAPER_LEVELS),
        "channels": channels,
        "fc_plain": 36 * channels * 4096 / 1e6,
        "fc_pyramid": bins["paper_bins"] * channels * 4096 / 1e6,
        "fc_small": bins["small_bins"] * channels * 4096 / 1e6,
    }


def _slide(size: int, kernel: int, stride: int, ceil_mode: bool = False) -> int:
    """Windows that PyTorch's pooling makes, by asking it."""
    return int(F.max_pool1d(torch.zeros(1, 1, size), kernel, stride, ceil_mode=ceil_mode).shape[2])


@experiment
def windows(max_size: int = 64, max_bins: int = 6) -> dict[str, Any]:
    """SPP-net's ceil/floor window against the bins it stands for, for every size and number of bins.

    rows: bins; pairs (sizes from bins to max_size); exact (the windows are the bins of appendix A);
    missing (right number, but the last cells are never read); miscounted (wrong number); sizes (the
    miscounted ones, as text); ceil_miscounted (wrong number if the last window may hang over).
    failures: every miscounted pair: bins, size, kernel, stride, made (windows), extra.
    pairs, exact, missing, miscounted, ceil_miscounted: totals; largest: the largest miscounted size;
    remainder_rule: pairs for which exact and "remainder 0 or 1" agree.
    adaptive_agree: pairs whose bins give the same maxima as torch's adaptive pooling.
    worst_missing: largest share of a square map's cells unread though the count is right;
    worst_missing_size, worst_missing_bins: where.
    bins_7_4, bins_5_3, bins_11_4: windows made for these pairs.
    bins_180: windows along one axis for 6 bins on the paper's 10x10 map; vector_180, vector_224: bins of
    levels 1, 2, 3, 6 by the window rule on 10x10 and 13x13.
    state (max_bins, max_size): -1 size below bins, 0 exact, 1 missing, 2 miscounted; made: the windows.
    max_size, max_bins.
    """
    rows: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    state = np.full((max_bins, max_size), -1)
    made = np.zeros((max_bins, max_size), dtype=int)
    worst = (0.0, 0, 0)
    rule = agree = 0
    for bins in range(1, max_bins + 1):
        ceil_miscounted = 0
        for size in range(bins, max_size + 1):
            kernel, stride = paper_window(size, bins)
            count = _slide(size, kernel, stride)
            slid = [(i * stride, i * stride + kernel) for i in range(count)]
            edges = bin_edges(size, bins)
            kind = 2 if count != bins else int(slid != edges)
            state[bins - 1, size - 1], made[bins - 1, size - 1] = kind, count
            ceil_miscounted += _slide(size, kernel, stride, ceil_mode=True) != bins
            rule += (kind == 0) is (size % bins <= 1)
            x = torch.randn(1, 1, size, generator=torch.Generator().manual_seed(size))
            maxima = torch.stack([x[0, 0, a:b].max() for a, b in edges])
            agree += torch.equal(maxima, F.adaptive_max_pool1d(x, bins)[0, 0])
            if kind == 1:
                worst = max(worst, (1 - (slid[-1][1] / size) ** 2, size, bins))
            if kind == 2:
                shape = {"bins": bins, "size": size, "kernel": kernel, "stride": stride}
                failures.append(shape | {"made": count, "extra": count - bins})
        kinds = state[bins - 1][state[bins - 1] >= 0]
        rows.append(
            {
                "bins": str(bins),
                "pairs": len(kinds),
                "exact": int((kinds == 0).sum()),
                "missing": int((kinds == 1).sum()),
                "miscounted": int((kinds == 2).sum()),
                "sizes": ", ".join(map(str, miscounted_sizes(bins))) or "–",
                "ceil_miscounted": ceil_miscounted,
            }
        )
    totals = {
        key: sum(row[key] for row in rows)
        for key in ("pairs", "exact", "missing", "miscounted", "ceil_miscounted")
    }
    rows.append({"bins": "all", "sizes": "–"} | totals)
    vectors = {
        size: sum(_slide(size, *paper_window(size, level)) ** 2 for level in _PAPER_LEVELS)
        for size in (10, 13)
    }
    return totals | {
        "rows": rows,
        "failures": failures,
        "largest": max(row["size"] for row in failures),
        "remainder_rule": rule,
        "adaptive_agree": agree,
        "worst_missing": worst[0],
        "worst_missing_size": worst[1],
        "worst_missing_bins": worst[2],
        "bins_7_4": _slide(7, *paper_window(7, 4)),
        "bins_5_3": _slide(5, *paper_window(5, 3)),
        "bins_11_4": _slide(11, *paper_window(11, 4)),
        "bins_180": _slide(10, *paper_window(10, 6)),
        "vector_180": vectors[10],
        "vector_224": vectors[13],
        "state": state,
        "made": made,
        "max_size": max_size,
        "max_bins": max_bins,
    }


def _padded(size: int, bins: int) -> tuple[int, int]:
    """Kernel (also the stride) and padding of the widely copied repair."""
    kernel = -(-size // bins)
    return kernel, (kernel * bins - size + 1) // 2


@experiment
def padded_repair(max_size: int = 64, max_bins: int = 6) -> dict[str, Any]:
    """The repair by padding: kernel = stride = ceil(a / n), padding = floor((kernel n - a + 1) / 2).

    rows: the pairs that PyTorch refuses: bins, size, kernel, padding, empty (bins of the n that lie
    wholly in the padding).
    pairs; refused: how many; empty: how many of them have an empty bin; miscounted: pairs with a wrong
    number of windows (padding allowed); uneven: pairs accepted in which some bin is not that of
    appendix A; largest: the largest refused size; message: what PyTorch says for 5 into 4.
    empty_5_4: bins of 16 that are wholly padding on a 5x5 map.
    """
    rows: list[dict[str, Any]] = []
    pairs = miscounted = uneven = 0
    message = ""
    for bins in range(1, max_bins + 1):
        for size in range(bins, max_size + 1):
            pairs += 1
            kernel, padding = _padded(size, bins)
            count = (size + 2 * padding - kernel) // kernel + 1
            miscounted += count != bins
            spans = [
                (max(i * kernel - padding, 0), min((i + 1) * kernel - padding, size)) for i in range(count)
            ]
            try:
                F.max_pool1d(torch.zeros(1, 1, size), kernel, kernel, padding)
            except RuntimeError as error:
                empty = sum(start >= end for start, end in spans)
                message = message or str(error).split(", but")[0]
                rows.append(
                    {"bins": bins, "size": size, "kernel": kernel, "padding": padding, "empty": empty}
                )
            else:
                uneven += spans != bin_edges(size, bins)
    full = next(row["bins"] - row["empty"] for row in rows if (row["size"], row["bins"]) == (5, 4))
    return {
        "rows": rows,
        "pairs": pairs,
        "refused": len(rows),
        "empty": sum(row["empty"] > 0 for row in rows),
        "miscounted": miscounted,
        "uneven": uneven,
        "largest": max(row["size"] for row in rows),
        "message": message,
        "empty_5_4": 16 - full**2,
    }


def _seen_share(size: int, kernel: int) -> float:
    """Mean share of a size x size map under a same-size window."""
    cells = pool_comparisons(size, size, kernel) + size**2
    return cells / size**4


@experiment
def branches(stride: int = 32, sizes: Sequence[int] = (13, 19, 20)) -> dict[str, Any]:
    """What one output of each branch of YOLO's block looks at.

    rows: kernel; span (pixels of the image between the centers of the first and last cell, plus one
    stride); share_13, share_19, share_20 (mean share of a map of that side under the window, borders
    cut off).
    share_<kernel>_<size>: the same as single values. stride. whole_13: outputs of a 13x13 map whose
    13x13 window sees all of it.
    """
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {"rows": rows, "stride": stride}
    for kernel in (1, *_KERNELS):
        row: dict[str, Any] = {"kernel": kernel, "span": kernel * stride}
        for size in sizes:
            row[f"share_{size}"] = result[f"share_{kernel}_{size}"] = _seen_share(size, kernel)
        rows.append(row)
    reach = _KERNELS[-1] // 2
    whole = [i for i in range(13) if i - reach <= 0 and i + reach >= 12]
    return result | {"whole_13": len(whole) ** 2}


def _timed(contenders: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Processor seconds of each, taken in turn, so that a slow moment of the machine strikes all of them.

    Processor time of this thread, not the clock's: what else the machine does then counts for little.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with torch.inference_mode():
        for repeat in range(repeats + 2):
            for name, run in contenders.items():
                start = time.thread_time()
                run()
                if repeat >= 2:  # the first rounds warm up
                    seconds[name].append(time.thread_time() - start)
    return seconds


def _pools(x: Tensor, kernels: Sequence[int]) -> list[Tensor]:
    return [F.max_pool2d(x, kernel, 1, kernel // 2) for kernel in kernels]


def _chain(x: Tensor, pool: Callable[[Tensor], Tensor]) -> list[Tensor]:
    maps = [pool(x)]
    for _ in range(2):
        maps.append(pool(maps[-1]))
    return maps


@experiment
def cost(sizes: Sequence[int] = (13, 20, 40), channels: int = 256, repeats: int = 15) -> dict[str, Any]:
    """SPP against SPPF: comparisons counted, and processor time on the machine that built this page.

    rows: size (side of the map); parallel, chained (comparisons a channel, in thousands: three pools of
    5, 9, 13; three of 5 in a chain); counted (parallel over chained); pools, pools_low, pools_high (median
    time of the three pools over that of the chain, with quartiles of the ratio over the rounds); blocks,
    blocks_low, blocks_high (the same for SPPBlock over SPPF); rows_columns (chain as rows and columns over
    the square chain, median).
    counted_<size>, pools_<size>, blocks_<size>, rows_columns_<size>: single values.
    a_cell_parallel, a_cell_chained, a_cell_separable, a_cell_doubled: comparisons a cell far from the
    border; the chain by rows and columns one cell at a time, and with windows that double.
    pools_least, blocks_least: the smallest of the medians over the sizes.
    conv_share: multiply-adds of the two convolutions over all operations of SPPBlock on the middle size;
    saved_share: share of SPPBlock's operations that SPPF saves there.
    parameters_block, parameters_fast: parameters of the two blocks. channels, repeats, threads.
    difference: largest difference of the two blocks' outputs, all sizes.
    """
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    block, fast = SPPBlock(channels, channels).eval(), SPPF(channels, channels).eval()
    fast.load_state_dict(block.state_dict())
    hidden = channels // 2
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {"rows": rows}
    difference = 0.0
    for size in sizes:
        x = torch.randn(1, channels, size, size, generator=generator)
        half = x[:, :hidden].contiguous()
        contenders: dict[str, Callable[[], object]] = {
            "parallel": partial(_pools, half, _KERNELS),
            "chained": partial(_chain, half, partial(F.max_pool2d, kernel_size=5, stride=1, padding=2)),
            "separable": partial(_chain, half, partial(separable_max_pool, kernel_size=5)),
            "block": partial(block, x),
            "fast": partial(fast, x),
        }
        seconds = _timed(contenders, repeats)
        with torch.inference_mode():
            difference = max(difference, float((block(x) - fast(x)).abs().max()))
        parallel = sum(pool_comparisons(size, size, kernel) for kernel in _KERNELS)
        chained = 3 * pool_comparisons(size, size, 5)
        row: dict[str, Any] = {
            "size": size,
            "parallel": parallel / 1e3,
            "chained": chained / 1e3,
            "counted": parallel / chained,
        }
        for key, slow, quick in (("pools", "parallel", "chained"), ("blocks", "block", "fast")):
            ratios = [a / b for a, b in zip(seconds[slow], seconds[quick], strict=True)]
            row[key] = median(seconds[slow]) / median(seconds[quick])
            row[f"{key}_low"], row[f"{key}_high"] = (float(q) for q in np.quantile(ratios, (0.25, 0.75)))
        row["rows_columns"] = median(seconds["separable"]) / median(seconds["chained"])
        rows.append(row)
        result |= {f"{key}_{size}": row[key] for key in ("counted", "pools", "blocks", "rows_columns")}
    middle = rows[len(rows) // 2]
    multiply_adds = (channels * hidden + 4 * hidden * channels) * middle["size"] ** 2
    comparisons = hidden * middle["parallel"] * 1e3
    saved = hidden * (middle["parallel"] - middle["chained"]) * 1e3
    a_cell = [kernel**2 - 1 for kernel in _KERNELS]
    return result | {
        "a_cell_parallel": sum(a_cell),
        "a_cell_chained": 3 * a_cell[0],
        "a_cell_separable": 3 * 2 * (_KERNELS[0] - 1),
        "a_cell_doubled": 3 * 2 * ceil(log2(_KERNELS[0])),
        "pools_least": min(row["pools"] for row in rows),
        "blocks_least": min(row["blocks"] for row in rows),
        "conv_share": multiply_adds / (multiply_adds + comparisons),
        "saved_share": saved / (multiply_adds + comparisons),
        "parameters_block": sum(parameter.numel() for parameter in block.parameters()),
        "parameters_fast": sum(parameter.numel() for parameter in fast.parameters()),
        "channels": channels,
        "repeats": repeats,
        "threads": 1,
        "difference": difference,
    }


@experiment
def sharing(count: int = 64, image_size: int = 256, crop: int = 64, repeats: int = 5) -> dict[str, Any]:
    """One pass and many windows against one pass a window.

    A backbone of four 3x3 convolutions, output stride 8, sees a square image once, then `count` windows
    are pooled (levels 1, 2, 4); or each window is cut out, resized to crop x crop and sent through it.
    multiply_adds_once, multiply_adds_each: of the convolutions, in millions; counted: their ratio;
    time_ratio: median time of the second way over the first; windows, image_size, crop.
    paper_ratio: the paper's estimate n 227^2 / (r s^2) with n = 2000, r = 4/3, s = 688.
    """
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    channels = (1, 8, 16, 32, 32)
    strides = (2, 2, 2, 1)
    layers: list[nn.Module] = []
    multiply_adds = {"once": 0, "each": 0}
    sides = {"once": image_size, "each": crop}
    for inside, outside, stride in zip(channels, channels[1:], strides, strict=False):
        layers += [nn.Conv2d(inside, outside, 3, stride, 1), nn.ReLU()]
        for way in sides:
            sides[way] //= stride
            multiply_adds[way] += 9 * inside * outside * sides[way] ** 2
    backbone = nn.Sequential(*layers).eval()
    image = torch.randn(1, 1, image_size, image_size, generator=generator)
    corners = torch.randint(0, image_size // 16, (count, 2), generator=generator) * 8  # left, top
    sizes = torch.randint(4, image_size // 16, (count, 2), generator=generator) * 8
    boxes = torch.cat([corners, corners + sizes], dim=1)

    def each() -> Tensor:
        crops = [
            F.interpolate(image[..., top:bottom, left:right], size=(crop, crop), mode="bilinear")
            for left, top, right, bottom in boxes.tolist()
        ]
        return torch.cat([SpatialPyramidPooling(_LEVELS)(backbone(one)) for one in crops])

    def once() -> Tensor:
        return roi_spp(backbone(image), boxes // 8, _LEVELS)

    seconds = _timed({"once": once, "each": each}, repeats)
    return {
        "multiply_adds_once": multiply_adds["once"] / 1e6,
        "multiply_adds_each": count * multiply_adds["each"] / 1e6,
        "counted": count * multiply_adds["each"] / multiply_adds["once"],
        "time_ratio": median(seconds["each"]) / median(seconds["once"]),
        "windows": count,
        "image_size": image_size,
        "crop": crop,
        "paper_ratio": 2000 * 227**2 / (4 / 3 * 688**2),
    }


_KINDS, _PLACES = 4, 4
_TRAINED = 32
_BATCH = 48


def _shapes(
    count: int, size: int, generator: torch.Generator, canvas: int | None = None, noise: float = 0.35
) -> tuple[Tensor, Tensor]:
    """Noisy images (count, 1, canvas, canvas) of one shape each, and its class 4 * kind + quadrant.

    Kinds: disc, square, triangle, cross. `size` sets the size of the shapes, `canvas` that of the image.
    """
    canvas = canvas or size
    kind = torch.randint(0, _KINDS, (count,), generator=generator)
    place = torch.randint(0, _PLACES, (count,), generator=generator)
    radius = (0.13 + 0.07 * torch.rand(count, 1, generator=generator)) * size
    near = radius + torch.rand(count, 2, generator=generator) * (canvas / 2 - 1 - radius)
    far = torch.stack([place // 2, place % 2], dim=1).bool()  # lower, right
    center = torch.where(far, canvas - near, near)
    ticks = torch.arange(canvas) + 0.5
    y = ((ticks - center[:, :1]) / radius)[:, :, None]  # (count, canvas, 1), in radii
    x = ((ticks - center[:, 1:]) / radius)[:, None, :]
    wide, high = x.abs(), y.abs()
    shapes = [
        x**2 + y**2 <= 1,
        (wide <= 0.886) & (high <= 0.886),  # the area of the disc
        (y <= 0.8) & (y >= -1.2) & (wide <= 0.66 * (y + 1.2)),
        ((wide <= 0.38) & (high <= 1.2)) | ((high <= 0.38) & (wide <= 1.2)),
    ]
    image = torch.stack(shapes, dim=1)[torch.arange(count), kind][:, None].float()
    return image + noise * torch.randn(image.shape, generator=generator), _PLACES * kind + place


class _Classifier(nn.Module):
    """Three 3x3 convolutions, output stride 4, then one of the ways to a vector, then one dense layer."""

    def __init__(self, net: str, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside, stride in (
            (1, channels, 2),
            (channels, 2 * channels, 2),
            (2 * channels, 2 * channels, 1),
        ):
            conv = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
            layers += [conv, nn.BatchNorm2d(outside), nn.ReLU()]
        levels, mode = _HEADS[net]
        pool = SpatialPyramidPooling(levels, mode) if levels else nn.Flatten()
        length = 2 * channels * (pyramid_length(1, levels) if levels else (_TRAINED // 4) ** 2)
        self.body = nn.Sequential(*layers, pool, nn.Linear(length, _KINDS * _PLACES))
        # Channels last: with so few channels a step takes half the time.
        nn.utils.convert_conv2d_weight_memory_format(self, torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


_HEADS: dict[str, tuple[tuple[int, ...], str]] = {
    "flatten": ((), ""),
    "global_max": ((1,), "max"),
    "global_avg": ((1,), "avg"),
    "spp_avg": (_LEVELS, "avg"),
    "spp_max": (_LEVELS, "max"),
    "spp_multi": (_LEVELS, "max"),
}
_MULTI = (24, 32, 40)


def _batches(net: str, seed: int, steps: int) -> list[tuple[Tensor, Tensor]]:
    """What a net sees in training: of one seed, the same for all nets but spp_multi."""
    generator = torch.Generator().manual_seed(seed)
    sizes = _MULTI if net == "spp_multi" else (_TRAINED,)
    return [_shapes(_BATCH, sizes[step % len(sizes)], generator) for step in range(steps)]


def _fit(net: str, seed: int, batches: Sequence[tuple[Tensor, Tensor]], channels: int) -> _Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _Classifier(net, channels)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=len(batches))
    for images, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.inference_mode()
def _score(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Share of right classes, of right kinds and of right quadrants."""
    guess = model(images).argmax(1)
    pairs = {
        "accuracy": guess == labels,
        "kind": guess // _PLACES == labels // _PLACES,
        "place": guess % _PLACES == labels % _PLACES,
    }
    return {key: float(right.float().mean()) for key, right in pairs.items()}


def _resized(images: Tensor) -> Tensor:
    side = (_TRAINED, _TRAINED)
    return F.interpolate(images, size=side, mode="bilinear", antialias=True)


@experiment
def training(
    steps: int = 200,
    seeds: Sequence[int] = (0, 1, 2, 3),
    channels: int = 12,
    sizes: Sequence[int] = (16, 20, 24, 32, 40, 48, 64),
    images: int = 500,
) -> dict[str, Any]:
    """One small classifier with six ways from map to vector, trained at 32x32, tested at other sizes.

    Classes: four shapes in four quadrants. Two ways to another size: `scaled`, the whole picture at
    another resolution, and `canvas`, shapes of the trained size in a larger image.
    Nets: flatten (other sizes are resized to 32x32 first, since it cannot take them), global_max,
    global_avg, spp_avg, spp_max (levels 1, 2, 4), spp_multi (spp_max, trained at 24, 32, 40 in turn).
    rows: net, parameters, and for each size scaled_<size>, scaled_<size>_spread (standard deviation over
    the seeds), canvas_<size>, ... (canvas from the trained size up).
    table: net, parameters, and "mean ± spread" as text under scaled_<size> and canvas_<size>.
    parts: net, and kind_<size>, place_<size>: share of right kinds and of right quadrants, scaled;
    canvas_kind, canvas_place: the same on the largest canvas.
    <net>_scaled_16, <net>_scaled_16_spread, <net>_canvas_64, <net>_kind_64, <net>_place_64,
    <net>_canvas_kind, <net>_parameters, ...: every number of both tables as a single value.
    wins_trained, wins_canvas: seeds in which spp_max beats the better of the two global nets at the
    trained size, and on the largest canvas; resize_wins_16, resize_wins_64: seeds in which resizing plus
    flatten beats spp_max at the smallest and largest scaled size; multi_wins_24, multi_wins_16: seeds in
    which spp_multi beats spp_max.
    refused: sizes, other than the trained, that flatten cannot take; refusal: what PyTorch says.
    curves (nets, sizes), spreads; canvas_curves, canvas_spreads; kind_curves, place_curves (arrays);
    net_names. samples_16, samples_32, samples_64, samples_canvas (arrays): four noiseless
    pictures, kind i in quadrant i.
    chance: 1/16.
    steps, seeds (their number), images, trained, train_images.
    """
    torch.set_num_threads(1)
    large = [size for size in sizes if size >= _TRAINED]
    tests = {
        ("scaled", size): _shapes(images, size, torch.Generator().manual_seed(1000 + size)) for size in sizes
    }
    tests |= {
        ("canvas", size): _shapes(images, _TRAINED, torch.Generator().manual_seed(2000 + size), size)
        for size in large
    }
    found: dict[str, dict[tuple[str, int], list[dict[str, float]]]] = {}
    parameters: dict[str, int] = {}
    refusals: list[str] = []
    seen = {seed: _batches("spp_max", seed, steps) for seed in seeds}
    resized = {key: pictures if key[1] == _TRAINED else _resized(pictures) for key, (pictures, _) in tests.items()}
    for net in _HEADS:
        found[net] = {key: [] for key in tests}
        for seed in seeds:
            batches = _batches(net, seed, steps) if net == "spp_multi" else seen[seed]
            model = _fit(net, seed, batches, channels)
            parameters[net] = sum(parameter.numel() for parameter in model.parameters())
            for (way, size), (pictures, labels) in tests.items():
                if net == "flatten" and size != _TRAINED:
                    if seed == seeds[0] and way == "scaled":
                        try:
                            model(pictures[:1])
                        except RuntimeError as error:
                            refusals.append(str(error))
                    pictures = resized[way, size]
                found[net][way, size].append(_score(model, pictures, labels))

    def mean(net: str, way: str, size: int, key: str = "accuracy") -> float:
        return fmean(run[key] for run in found[net][way, size])

    def spread(net: str, way: str, size: int) -> float:
        return stdev(run["accuracy"] for run in found[net][way, size])

    def wins(one: str, rivals: Sequence[str], way: str, size: int) -> int:
        runs = zip(*(found[net][way, size] for net in (one, *rivals)), strict=True)
        return sum(first["accuracy"] > max(other["accuracy"] for other in others) for first, *others in runs)

    rows: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    result: dict[str, Any] = {"rows": rows, "parts": parts, "table": texts}
    for net in _HEADS:
        row: dict[str, Any] = {"net": net, "parameters": parameters[net]}
        for way, size in tests:
            row[f"{way}_{size}"] = mean(net, way, size)
            row[f"{way}_{size}_spread"] = spread(net, way, size)
        part: dict[str, Any] = {"net": net}
        for size in sizes:
            part[f"kind_{size}"] = mean(net, "scaled", size, "kind")
            part[f"place_{size}"] = mean(net, "scaled", size, "place")
        part["canvas_kind"] = mean(net, "canvas", large[-1], "kind")
        part["canvas_place"] = mean(net, "canvas", large[-1], "place")
        rows.append(row)
        parts.append(part)
        keys = [f"{way}_{size}" for way, size in tests]
        text = {key: f"{row[key]:.3f} ± {row[f'{key}_spread']:.3f}" for key in keys}
        texts.append({"net": net, "parameters": parameters[net]} | text)
        result |= {f"{net}_{key}": value for key, value in (row | part).items() if key != "net"}
    globals_ = ("global_max", "global_avg")
    for name, size, canvas in (
        *((str(size), size, size) for size in (sizes[0], _TRAINED, sizes[-1])),
        ("canvas", _TRAINED, large[-1]),
    ):
        clean, labels = _shapes(200, size, torch.Generator().manual_seed(4), canvas, noise=0.0)
        one_each = [int((labels == (_PLACES + 1) * kind).nonzero()[0]) for kind in range(_KINDS)]
        result[f"samples_{name}"] = clean[one_each, 0].numpy()
    return result | {
        "wins_trained": wins("spp_max", globals_, "scaled", _TRAINED),
        "wins_canvas": wins("spp_max", globals_, "canvas", large[-1]),
        "resize_wins_16": wins("flatten", ["spp_max"], "scaled", sizes[0]),
        "resize_wins_64": wins("flatten", ["spp_max"], "scaled", sizes[-1]),
        "multi_wins_16": wins("spp_multi", ["spp_max"], "scaled", sizes[0]),
        "multi_wins_24": wins("spp_multi", ["spp_max"], "scaled", 24),
        "refused": len(refusals),
        "refusal": refusals[0],
        "curves": np.array([[mean(net, "scaled", size) for size in sizes] for net in _HEADS]),
        "spreads": np.array([[spread(net, "scaled", size) for size in sizes] for net in _HEADS]),
        "canvas_curves": np.array([[mean(net, "canvas", size) for size in large] for net in _HEADS]),
        "canvas_spreads": np.array([[spread(net, "canvas", size) for size in large] for net in _HEADS]),
        "kind_curves": np.array([[mean(net, "scaled", size, "kind") for size in sizes] for net in _HEADS]),
        "place_curves": np.array([[mean(net, "scaled", size, "place") for size in sizes] for net in _HEADS]),
        "net_names": list(_HEADS),
        "sizes": list(sizes),
        "canvas_sizes": large,
        "chance": 1 / (_KINDS * _PLACES),
        "steps": steps,
        "seeds": len(seeds),
        "images": images,
        "trained": _TRAINED,
        "train_images": _BATCH * steps,
    }


@experiment
def published_mistakes() -> dict[str, Any]:
    """Widely copied mistakes, each against the right value.

    rows: mistake, meant (what the number is), wrong, right. mistakes: how many.
    <mistake>_wrong, <mistake>_right: single values. The mistakes:
    window_count (7 cells into 4 bins: windows along an axis), paper_180 (bins of levels 1, 2, 3, 6 on
    10x10), unread_border (share of an 11x11 map that 3 windows along each axis read), first_windows (share
    of an 11x11 map that the first 6 of 10 windows along each axis read), padded_bins (bins of 4x4 on a 5x5
    map that hold a cell), fixed_length (length of SPPBlock's output on 26x26 over that on 13x13),
    zero_border (mean of a 13x13 max-pool over a map of -1 with zeros around it), kernels_5_7_13 (kernel
    of the middle branch that SPPF computes), average_chain (weight of the middle cell after two 5x5
    averages, against one of 9x9), hidden_width (parameters of SPPF, in thousands, 256 channels, if all
    channels are kept).
    zero_border_share: share of outputs changed by a zero border, SiLU of normal numbers, 20x20, window 5;
    zero_border_logits: the same for normal numbers about -3, as logits of something rare may be.
    kernels_share: share of the middle branch's values that differ between windows 7 and 9 (normal
    numbers, 20x20). average_difference: largest difference of two 5x5 averages and one 9x9, away from the
    border, normal numbers.
    list_message: what public SPPF code says to a list of kernel sizes.
    tie_forward: largest difference of two chained 5x5 maxima and one 9x9 on a map with ties;
    tie_gradient: share of the outputs of a map of many ties whose gradients go to different cells.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 16, 20, 20, generator=generator)

    def changed_by_zeros(x: Tensor) -> float:
        return float((F.max_pool2d(F.pad(x, [2] * 4), 5, 1) != F.max_pool2d(x, 5, 1, 2)).float().mean())

    negative = F.max_pool2d(F.pad(-torch.ones(1, 1, 13, 13), [6] * 4), 13, 1)
    sevens, nines = _pools(x, (7, chained_kernel([5, 5])))
    impulse = torch.zeros(1, 1, 21, 21)
    impulse[0, 0, 10, 10] = 1
    twice = F.avg_pool2d(F.avg_pool2d(impulse, 5, 1, 2), 5, 1, 2)
    once = F.avg_pool2d(impulse, 9, 1, 4)
    smooth = F.avg_pool2d(F.avg_pool2d(x, 5, 1), 5, 1) - F.avg_pool2d(x, 9, 1)
    block = SPPBlock(4, 2).eval()
    lengths = [block(torch.zeros(1, 4, side, side)).numel() for side in (13, 26)]
    counts = [_slide(size, *paper_window(size, bins)) for size, bins in ((11, 3), (11, 6))]
    (kernel_3, stride_3), (kernel_6, stride_6) = paper_window(11, 3), paper_window(11, 6)
    read_3 = (counts[0] - 1) * stride_3 + kernel_3
    read_6 = (6 - 1) * stride_6 + kernel_6
    kernel, padding = _padded(5, 4)
    held = sum(min((i + 1) * kernel - padding, 5) > max(i * kernel - padding, 0) for i in range(4))
    hidden = 256
    try:
        nn.MaxPool2d(kernel_size=[5, 9, 13], stride=1, padding=[5, 9, 13] // 2)  # type: ignore[operator, arg-type]
    except TypeError as error:
        list_message = str(error)
    found: list[tuple[str, str, float, float]] = [
        ("window_count", "windows", _slide(7, *paper_window(7, 4)), 4),
        (
            "paper_180",
            "bins",
            sum(_slide(10, *paper_window(10, level)) ** 2 for level in _PAPER_LEVELS),
            pyramid_length(1, _PAPER_LEVELS),
        ),
        ("unread_border", "share", (read_3 / 11) ** 2, 1),
        ("first_windows", "share", (read_6 / 11) ** 2, 1),
        ("padded_bins", "filled", held**2, 16),
        ("fixed_length", "ratio", lengths[1] / lengths[0], 1),
        ("zero_border", "value", float(negative.mean()), -1),
        ("kernels_5_7_13", "kernel", 7, chained_kernel([5, 5])),
        ("average_chain", "weight", float(twice[0, 0, 10, 10]), float(once[0, 0, 10, 10])),
        (
            "hidden_width",
            "thousands",
            (hidden * hidden + 4 * hidden * hidden + 2 * (hidden + hidden)) / 1e3,
            sum(parameter.numel() for parameter in SPPF(hidden, hidden).parameters()) / 1e3,
        ),
    ]
    result: dict[str, Any] = {"rows": [], "mistakes": len(found)}
    for mistake, meant, wrong, right in found:
        values = {"wrong": float(wrong), "right": float(right)}
        result["rows"].append({"mistake": mistake, "meant": meant, **values})
        result |= {f"{mistake}_{key}": value for key, value in values.items()}
    tied = x.relu().round()
    chains = tied.clone().requires_grad_()
    wides = tied.clone().requires_grad_()
    chained = F.max_pool2d(F.max_pool2d(chains, 5, 1, 2), 5, 1, 2)
    wide, places = F.max_pool2d(wides, 9, 1, 4, return_indices=True)
    first, first_places = F.max_pool2d(tied, 5, 1, 2, return_indices=True)
    _, second_places = F.max_pool2d(first, 5, 1, 2, return_indices=True)
    through = first_places.flatten(2).gather(2, second_places.flatten(2)).view_as(places)
    return result | {
        "zero_border_share": changed_by_zeros(F.silu(x)),
        "zero_border_logits": changed_by_zeros(x - 3),
        "kernels_share": float((sevens != nines).float().mean()),
        "average_difference": float(smooth.abs().max()),
        "list_message": list_message,
        "tie_forward": float((chained - wide).abs().max().detach()),
        "tie_gradient": float((through != places).float().mean()),
    }
