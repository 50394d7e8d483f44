"""Measurements for upsampling: conventions, artefacts, published mistakes and a toy super-resolution."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.pipeline.experiment import experiment
from snippets.upsampling import (
    ResizeConv,
    SubPixelConv,
    bilinear_kernel,
    checkerboard_peak,
    conv_matrix,
    depth_to_space_order,
    icnr_,
    max_unpool2d,
    overlap_map,
    pixel_shuffle,
    source_coordinates,
    transposed_conv2d,
    transposed_conv_output_size,
    upsample_bicubic,
    upsample_bilinear,
    upsample_nearest,
)


@experiment
def coordinates(in_size: int = 4, out_size: int = 8) -> dict[str, Any]:
    """Where the output samples of an enlargement lie among the input samples, by either rule.

    squares, points (arrays): coordinates with align_corners False (not clamped) and True.
    in_size, out_size; first_squares, first_points: the first two differ by corner_gap (input
    pixels), which is corner_gap_out output pixels.
    rows: what libraries read at output 5 when a ramp of 8 samples grows to 16: function, rule
    (squares | points | before), position.
    position_squares, position_points: the two rules there.
    """
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator
    from PIL import Image
    from scipy.ndimage import zoom
    from skimage.transform import resize

    squares = source_coordinates(in_size, out_size, clamp=False)
    points = source_coordinates(in_size, out_size, align_corners=True)
    ramp = np.tile(np.arange(8, dtype=np.float32), (8, 1))
    image, at = torch.from_numpy(ramp)[None, None], 5

    def onnx(mode: str) -> float:
        names = ["x", "", "", "sizes"]
        node = helper.make_node("Resize", names, ["y"], mode="linear", coordinate_transformation_mode=mode)
        kinds = {"x": TensorProto.FLOAT, "sizes": TensorProto.INT64, "y": TensorProto.FLOAT}
        x, sizes, y = (helper.make_tensor_value_info(n, kind, None) for n, kind in kinds.items())
        graph = helper.make_graph([node], "g", [x, sizes], [y])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        feed: dict[str, Any] = {"x": image.numpy(), "sizes": np.array([1, 1, 16, 16])}
        answers: Any = ReferenceEvaluator(model).run(None, feed)
        return float(answers[0][0, 0, at, at])

    def torch_mode(**options: Any) -> float:
        return float(F.interpolate(image, 16, **options)[0, 0, at, at])

    readings: list[tuple[str, float]] = [
        ("torch_bilinear", torch_mode(mode="bilinear")),
        ("torch_corners", torch_mode(mode="bilinear", align_corners=True)),
        ("torch_layer", float(nn.UpsamplingBilinear2d(16)(image)[0, 0, at, at])),
        ("skimage", float(resize(ramp, (16, 16), order=1)[at, at])),
        (
            "pillow",
            float(np.asarray(Image.fromarray(ramp).resize((16, 16), Image.Resampling.BILINEAR))[at, at]),
        ),
        ("scipy", float(zoom(ramp, 2, order=1)[at, at])),
        ("scipy_grid", float(zoom(ramp, 2, order=1, mode="nearest", grid_mode=True)[at, at])),
        ("onnx", onnx("half_pixel")),
        ("onnx_asymmetric", onnx("asymmetric")),
    ]
    rules = {
        "squares": float(source_coordinates(8, 16)[at]),
        "points": float(source_coordinates(8, 16, True)[at]),
        "before": at / 2,
    }
    rows = []
    for function, position in readings:
        rule = min(rules, key=lambda name: abs(rules[name] - position))
        rows.append({"function": function, "rule": rule, "position": position})
    gap = float(points[0] - squares[0])
    return {
        "squares": squares.numpy(),
        "points": points.numpy(),
        "in_size": in_size,
        "out_size": out_size,
        "corner_gap": gap,
        "corner_gap_out": gap * out_size / in_size,
        "rows": rows,
        "position_squares": rules["squares"],
        "position_points": rules["points"],
    }


_FACTOR = 4


def _fixed(x: Tensor, size: int) -> dict[str, Tensor]:
    """The upsamplings without learning, of an image (1, 1, N, N)."""
    channels = x.shape[1]
    return {
        "nearest": upsample_nearest(x, size=size),
        "bilinear": upsample_bilinear(x, size),
        "corners": upsample_bilinear(x, size, align_corners=True),
        "bicubic": upsample_bicubic(x, size),
        "fcn": transposed_conv2d(
            x, bilinear_kernel(channels, _FACTOR).to(x), stride=_FACTOR, padding=_FACTOR // 2
        ),
    }


def _scene(size: int) -> Tensor:
    """Rings that grow finer outward and a slanted stripe, read at the centers of size x size pixels."""
    at = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    y, x = at[:, None], at[None, :]
    rings = 0.5 + 0.35 * torch.cos(2 * torch.pi * 2.5 * ((x - 0.1) ** 2 + (y - 0.1) ** 2))
    stripe = torch.sigmoid(60 * (0.07 - (x + 0.5 * y - 0.9).abs()))
    return (rings * (1 - stripe) + stripe).clamp(0, 1)[None, None]


def _psnr(x: Tensor, truth: Tensor) -> float:
    """In decibels for values in 0 to 1, averaged over the images."""
    error = (x.clamp(0, 1) - truth).square().mean((1, 2, 3))
    return float(-10 * error.log10().mean())


@experiment
def methods(small: int = 16) -> dict[str, Any]:
    """A ramp and an image enlarged four times without learning, held against the exact values.

    Both are read at pixel centers, so the exact enlargement is the same function, read more finely.
    methods: nearest, bilinear (align_corners False), corners (True), bicubic, fcn (transposed
    convolution with bilinear_kernel).
    rows: method, ramp_error (largest, inside, in input pixels), border_error (largest in all),
    psnr (of the image), lowest, highest (values that a step from 0 to 1 is turned into).
    <method>_ramp_error, ...: single values. ramp_<method>, image_<method> (arrays); ramp_exact,
    ramp_small, image_exact, image_small (arrays). small, factor.
    cubic_half_error: largest error of the cubic kernel with a = -0.5 on the ramp, inside.
    """
    size = small * _FACTOR
    exact, low = _scene(size), _scene(small)
    ramp = torch.arange(6, dtype=torch.float64).expand(1, 1, 6, 6)
    fine = source_coordinates(6, 24, clamp=False)
    step = (torch.arange(8) > 3).double().expand(1, 1, 8, 8)
    images, ramps, steps = _fixed(low, size), _fixed(ramp, 24), _fixed(step, 32)
    inside = slice(8, -8)
    result: dict[str, Any] = {"rows": []}
    for name, image in images.items():
        line = ramps[name][0, 0, 12]
        middle = steps[name][0, 0, 16, 8:-8]
        row = {
            "ramp_error": float((line - fine)[inside].abs().max()),
            "border_error": float((line - fine).abs().max()),
            "psnr": _psnr(image, exact),
            "lowest": float(middle.min()),
            "highest": float(middle.max()),
        }
        result["rows"].append({"method": name} | row)
        result |= {f"{name}_{key}": value for key, value in row.items()}
        result[f"ramp_{name}"] = line.numpy()
        result[f"image_{name}"] = image[0, 0].numpy()
    half = upsample_bicubic(ramp, 24, a=-0.5)[0, 0, 12]
    return result | {
        "ramp_exact": fine.numpy(),
        "ramp_small": ramp[0, 0, 0].numpy(),
        "image_exact": exact[0, 0].numpy(),
        "image_small": low[0, 0].numpy(),
        "small": small,
        "factor": _FACTOR,
        "cubic_half_error": float((half - fine)[inside].abs().max()),
    }


@experiment
def scatter() -> dict[str, Any]:
    """A transposed convolution with a 3x3 kernel and stride 2, one input pixel at a time.

    image (2, 2), kernel (3, 3), parts (4, 5, 5): what each input pixel adds; total (5, 5) (arrays).
    padded (3, 3): with padding 1; extended (4, 4): with padding 1 and output_padding 1.
    side, padded_side, extended_side.
    """
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    kernel = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]])[None, None]
    one_each = x.flatten()[:, None, None] * F.one_hot(torch.arange(4), 4).reshape(4, 2, 2)
    parts = transposed_conv2d(one_each[:, None], kernel, stride=2)[:, 0]
    padded = transposed_conv2d(x, kernel, stride=2, padding=1)[0, 0]
    extended = transposed_conv2d(x, kernel, stride=2, padding=1, output_padding=1)[0, 0]
    return {
        "image": x[0, 0].numpy(),
        "kernel": kernel[0, 0].numpy(),
        "parts": parts.numpy(),
        "total": parts.sum(0).numpy(),
        "padded": padded.numpy(),
        "extended": extended.numpy(),
        "side": parts.shape[-1],
        "padded_side": padded.shape[-1],
        "extended_side": extended.shape[-1],
    }


def _grid(y: Tensor, factor: int) -> float:
    """How unlike the factor x factor phases of a response to a flat input are, against its size.

    y (B, C, H, W), its inside only: the RMS deviation from each channel's mean over the RMS of y.
    """
    inside = y[..., 3 * factor : -3 * factor, 3 * factor : -3 * factor]
    deviation = inside - inside.mean((-2, -1), keepdim=True)
    return float(deviation.square().mean().sqrt() / inside.square().mean().sqrt())


@experiment
def checkerboard(kernels: int = 64, layers: int = 4096) -> dict[str, Any]:
    """Overlap of transposed convolutions, and how uneven they leave a flat image.

    rows: kernel, stride, fewest, most (pairs that add to an output pixel, inside), even (equal),
    ones (relative spread of the output over a flat image, all weights 1), random (the same with
    weights drawn from a normal distribution, RMS over `kernels` kernels of one channel),
    gradient (relative spread of the RMS gradient that convolutions with such kernels send to the pixels).
    fewest_3_2, most_3_2, random_3_2, ... : single values.
    map_3_2, ... (arrays): overlap_map of 6 pixels; gradient_map_3_2, ... (arrays): RMS gradient at each
    pixel, over `layers` strided convolutions with random kernels and random gradients from above.
    kernels, layers.
    """
    generator = torch.Generator().manual_seed(0)
    result: dict[str, Any] = {"rows": [], "kernels": kernels, "layers": layers}
    for k, s in ((2, 2), (3, 2), (4, 2), (5, 2), (6, 2), (3, 3), (5, 3), (6, 3)):
        inside = overlap_map(k, s, 14)[2 * k : -2 * k, 2 * k : -2 * k]
        weights = torch.randn(1, kernels, k, k, generator=generator, dtype=torch.float64)
        flat = torch.ones(1, 1, 14, 14, dtype=torch.float64)
        ones = transposed_conv2d(flat, torch.ones(1, 1, k, k, dtype=torch.float64), stride=s)
        side = 5 * s + k
        # An image, a kernel and signs from above for each of many layers with one channel.
        upstream = torch.randn(1, layers, 6, 6, generator=generator, dtype=torch.float64)
        drawn = torch.randn(layers, 1, k, k, generator=generator, dtype=torch.float64)
        image = torch.zeros(1, layers, side, side, dtype=torch.float64, requires_grad=True)
        F.conv2d(image, drawn, stride=s, groups=layers).backward(upstream)
        assert image.grad is not None
        gradient = image.grad[0].square().mean(0).sqrt()
        period = gradient[k:-k, k:-k][:s, :s]
        row = {
            "fewest": int(inside.min()),
            "most": int(inside.max()),
            "even": bool(inside.min() == inside.max()),
            "ones": _grid(ones, s),
            "random": _grid(transposed_conv2d(flat, weights, stride=s), s),
            "gradient": float(period.std(correction=0) / period.mean()),
        }
        result["rows"].append({"kernel": k, "stride": s} | row)
        result |= {f"{key}_{k}_{s}": value for key, value in row.items()}
        result[f"map_{k}_{s}"] = overlap_map(k, s, 6).numpy()
        result[f"gradient_map_{k}_{s}"] = gradient.numpy()
    return result


@experiment
def shuffle() -> dict[str, Any]:
    """Where eight channels go when two output channels are made of them, in either order.

    crd, dcr (arrays (2, 4, 4)): the input channel at each output pixel, by pixel_shuffle and by
    depth_to_space with TensorFlow's order. order (list): depth_to_space_order(2, 2).
    moved: share of the output pixels that the two orders fill from different channels.
    """
    numbers = torch.arange(8)[:, None, None].expand(8, 2, 2)
    order = depth_to_space_order(2, 2)
    crd, dcr = pixel_shuffle(numbers, 2), pixel_shuffle(numbers[order.argsort()], 2)
    return {
        "crd": crd.numpy(),
        "dcr": dcr.numpy(),
        "order": order.tolist(),
        "moved": float((crd != dcr).double().mean()),
    }


@experiment
def unpooling() -> dict[str, Any]:
    """A 4x4 image, its maxima, and where unpooling puts them.

    image (4, 4), pooled (2, 2), indices (2, 2), unpooled (4, 4) (arrays).
    kept: share of the sum that comes back; zeros: share of the pixels that are left empty.
    odd_moved: of a 5x5 image's maxima, the share put into a wrong pixel, silently, when unpooled to 4x4
    (all indices of this image are small enough to exist there). odd_image, odd_right, odd_wrong (arrays).
    """
    image = torch.tensor(
        [[1.0, 3.0, 2.0, 1.0], [4.0, 2.0, 1.0, 5.0], [7.0, 0.0, 3.0, 2.0], [1.0, 2.0, 6.0, 1.0]]
    )[None, None]
    pooled, indices = F.max_pool2d(image, 2, return_indices=True)
    unpooled = max_unpool2d(pooled, indices, 2)
    odd = torch.zeros(1, 1, 5, 5)
    odd[0, 0, 0, 1], odd[0, 0, 1, 3], odd[0, 0, 2, 0], odd[0, 0, 2, 3] = 1, 2, 3, 4
    small, places = F.max_pool2d(odd, 2, return_indices=True)
    wrong = nn.MaxUnpool2d(2)(small, places)
    right = max_unpool2d(small, places, 2, output_size=(5, 5))
    moved = (wrong != right[..., :4, :4]) & (wrong > 0)
    return {
        "image": image[0, 0].numpy(),
        "pooled": pooled[0, 0].numpy(),
        "indices": indices[0, 0].numpy(),
        "unpooled": unpooled[0, 0].numpy(),
        "kept": float(unpooled.sum() / image.sum()),
        "zeros": float((unpooled == 0).double().mean()),
        "odd_moved": float(moved.sum() / (wrong > 0).sum()),
        "odd_image": odd[0, 0].numpy(),
        "odd_right": right[0, 0].numpy(),
        "odd_wrong": wrong[0, 0].numpy(),
    }


@experiment
def rounding(largest: int = 200) -> dict[str, Any]:
    """Sizes for which torch's nearest reads another pixel than floor(i n / m), for rounding in float32.

    Every enlargement of n pixels to m, n < m <= largest. pairs: how many; wrong: pairs with a
    pixel off; share. first_in, first_out, first_at, first_read, first_exact: the first such pair, the
    output, the pixel that torch reads there and the right one. whole_wrong: wrong pairs whose m is a
    multiple of n. largest.
    """
    pairs = whole = 0
    wrong: list[tuple[int, ...]] = []
    for n in range(1, largest):
        samples = torch.arange(n, dtype=torch.float32)[None, None]
        for m in range(n + 1, largest + 1):
            pairs += 1
            read = F.interpolate(samples, m)[0, 0].long()
            exact = torch.arange(m) * n // m
            if not torch.equal(read, exact):
                at = int((read != exact).nonzero()[0])
                wrong.append((n, m, at, int(read[at]), int(exact[at])))
                whole += m % n == 0
    names = ("first_in", "first_out", "first_at", "first_read", "first_exact")
    return dict(zip(names, wrong[0], strict=True)) | {
        "pairs": pairs,
        "wrong": len(wrong),
        "share": len(wrong) / pairs,
        "whole_wrong": whole,
        "largest": largest,
    }


def _relative(wrong: Tensor, right: Tensor) -> float:
    return float((wrong - right).norm() / right.norm())


@experiment
def published_mistakes() -> dict[str, Any]:
    """Widely copied mistakes, each against the right result: the error as a share of the right norm.

    rows: mistake, error, share (of the values that are off). <mistake>_error, <mistake>_share: single
    values. mistakes: how many.
    padded_all_round (output_padding as a ring of zeros), inverse (convolution, then the transposed one with
    the same weight, taken for the input), corners (UpsamplingBilinear2d for Upsample's bilinear),
    order (TensorFlow's channel order for PixelShuffle, two channels), one_channel (the same, one channel: no
    error), tiled (ICNR's kernels tiled instead of repeated: spread over a flat image, where the right one is 0),
    free_bias (ICNR with a random bias left in: the same), even_kernel (k = 4, s = 2, random weights: the same),
    recomputed (scale_factor 1.5 taken for the rounded size, 15 pixels), before_center (nearest for
    nearest-exact, halving labels: share of pixels), rows_added, zeros_between (s zeros inserted instead of s - 1).
    size_short: transposed size without dilation and output_padding; size_right: with them.
    op_size_ring, op_size: sizes with the ring and without. last_row: largest value in the row that
    output_padding adds (no zeros). rank, unknowns: of the convolution's matrix behind `inverse`.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, weight = draw(2, 3, 8, 8), draw(3, 2, 3, 3)
    plain = transposed_conv2d(x, weight, stride=2, padding=1)
    right = transposed_conv2d(x, weight, stride=2, padding=1, output_padding=1)
    ring = F.pad(plain, (1, 1, 1, 1))

    image, kernel = draw(12, 12), draw(3, 3)
    matrix = conv_matrix(kernel, 12, stride=2, padding=1)
    back = (matrix.T @ (matrix @ image.flatten())).reshape(12, 12)
    best = back * (back * image).sum() / back.square().sum()  # even rescaled as well as possible

    two, one = draw(1, 8, 6, 6), draw(1, 4, 6, 6)
    orders = [depth_to_space_order(c, 2).argsort() for c in (2, 1)]

    flat = torch.ones(1, 8, 12, 12, dtype=torch.float64)
    fresh = icnr_(draw(4 * 8, 8, 3, 3), 2, lambda w: w.copy_(draw(*w.shape)))
    tiled = fresh[::4].repeat(4, 1, 1, 1)
    bias = draw(32)
    spread = {
        "tiled": _grid(pixel_shuffle(F.conv2d(flat, tiled, padding=1), 2), 2),
        "free_bias": _grid(pixel_shuffle(F.conv2d(flat, fresh, bias, padding=1), 2), 2),
        "even_kernel": _grid(transposed_conv2d(flat, draw(8, 8, 4, 4), stride=2), 2),
    }
    assert _grid(pixel_shuffle(F.conv2d(flat, fresh, padding=1), 2), 2) < 1e-12

    signal = _scene(15)[0, 0]
    sizes = [int(15 * 1.5)] * 2
    scaled = F.interpolate(signal[None, None], scale_factor=1.5, mode="bilinear")[0, 0]
    resized = upsample_bilinear(signal, sizes)

    labels = (4 * _scene(64)[0, 0]).long()
    halves = [upsample_nearest(labels, size=24, exact=exact) for exact in (False, True)]

    gaps = x.new_zeros(2, 3, 8 * 3 - 2, 8 * 3 - 2)
    gaps[..., ::3, ::3] = x
    zeros = F.conv2d(gaps, weight.flip(2, 3).transpose(0, 1), padding=1)
    height = min(zeros.shape[-1], plain.shape[-1])

    found: list[tuple[str, float, float]] = []

    def compare(name: str, wrong: Tensor, truth: Tensor) -> None:
        found.append((name, _relative(wrong, truth), float((wrong != truth).double().mean())))

    compare("padded_all_round", ring[..., :16, :16], right)
    compare("inverse", best, image)
    compare("corners", upsample_bilinear(x, 32, align_corners=True), upsample_bilinear(x, 32))
    compare("order", pixel_shuffle(two[:, orders[0]], 2), pixel_shuffle(two, 2))
    compare("one_channel", pixel_shuffle(one[:, orders[1]], 2), pixel_shuffle(one, 2))
    found += [(name, value, 1.0) for name, value in spread.items()]
    compare("recomputed", scaled, resized)
    compare("before_center", halves[0].double(), halves[1].double())
    compare("zeros_between", zeros[..., :height, :height], plain[..., :height, :height])
    result: dict[str, Any] = {"rows": [], "mistakes": len(found)}
    for name, error, share in found:
        result["rows"].append({"mistake": name, "error": error, "share": share})
        result |= {f"{name}_error": error, f"{name}_share": share}
    return result | {
        "size_short": (8 - 1) * 2 - 2 * 1 + 3,
        "size_right": transposed_conv_output_size(8, 3, 2, 1, 1, dilation=2),
        "op_size_ring": ring.shape[-1],
        "op_size": right.shape[-1],
        "last_row": float(right[..., -1, :].abs().max()),
        "rank": int(torch.linalg.matrix_rank(matrix)),
        "unknowns": image.numel(),
    }


class _Transposed(nn.Module):
    """A transposed convolution that doubles the size."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        odd = kernel_size % 2
        self.layer = nn.ConvTranspose2d(
            in_channels, out_channels, kernel_size, 2, (kernel_size - 1) // 2, output_padding=odd
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y


class _Fixed(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _unpool_first(x: Tensor) -> Tensor:
    """Unpooling with every maximum in its window's first pixel; where it lies changes neither cost nor zeros."""
    height, width = x.shape[-2:]
    row, column = torch.arange(height)[:, None], torch.arange(width)
    indices = (2 * row * 2 * width + 2 * column).expand(x.shape)
    return max_unpool2d(x, indices, 2)


_DECODERS: dict[str, Callable[[int, int], nn.Module]] = {
    "transposed_3": lambda i, o: _Transposed(i, o, 3),
    "transposed_4": lambda i, o: _Transposed(i, o, 4),
    "sub_pixel": lambda i, o: SubPixelConv(i, o, 2, icnr=False),
    "sub_pixel_icnr": lambda i, o: SubPixelConv(i, o, 2),
    "resize_nearest": lambda i, o: ResizeConv(i, o, 2),
    "resize_bilinear": lambda i, o: ResizeConv(i, o, 2, mode="bilinear"),
}
_FIXED: dict[str, Callable[[Tensor], Tensor]] = {
    "nearest": lambda x: upsample_nearest(x, 2),
    "bilinear": lambda x: upsample_bilinear(x, [2 * side for side in x.shape[-2:]]),
    "bicubic": lambda x: upsample_bicubic(x, [2 * side for side in x.shape[-2:]]),
    "unpool": _unpool_first,
}


def _multiply_adds(channels: int) -> dict[str, float]:
    """For each channel of an output pixel of a layer that doubles the size and keeps the channels."""
    return {
        "nearest": 0,
        "unpool": 0,
        "bilinear": 4,
        "bicubic": 16,
        "transposed_2": channels,  # each output pixel is met by one tap of each channel
        "transposed_3": 9 / 4 * channels,  # nine taps over the four phases
        "transposed_4": 4 * channels,
        "sub_pixel": 9 * channels,
        "sub_pixel_icnr": 9 * channels,
        "resize_nearest": 9 * channels,
        "resize_bilinear": 9 * channels + 4,
    }


def _layer_rows(channels: int, size: int, repeats: int, draws: int) -> list[dict[str, Any]]:
    """Weights, multiply-adds, time and evenness of one layer of each kind that doubles the size."""
    layers: dict[str, Callable[[], nn.Module]] = {n: partial(_Fixed, f) for n, f in _FIXED.items()}
    layers["transposed_2"] = partial(_Transposed, channels, channels, 2)
    layers |= {n: partial(make, channels, channels) for n, make in _DECODERS.items()}
    multiply_adds = _multiply_adds(channels)
    torch.manual_seed(0)
    built = {name: make() for name, make in layers.items()}
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, size, size, generator=generator)
    seconds: dict[str, list[float]] = {name: [] for name in built}
    for repeat in range(repeats + 2):
        # All take turns within a repeat, so that a slow moment of the machine strikes each of them.
        for name, layer in built.items():
            leaf = x.clone().requires_grad_()
            start = time.perf_counter()
            layer(leaf).sum().backward()
            if repeat >= 2:
                seconds[name].append(time.perf_counter() - start)
    base = median(seconds["transposed_4"])
    rows = []
    for name, fresh in layers.items():
        spreads = []
        for _ in range(draws):
            flat = torch.rand(1, channels, 1, 1, generator=generator).expand(-1, -1, 12, 12)
            with torch.no_grad():
                spreads.append(_grid(fresh()(flat), 2))
        rows.append(
            {
                "layer": name,
                "weights": sum(p.numel() for p in built[name].parameters()),
                "multiply_adds": multiply_adds[name],
                "time": median(seconds[name]) / base,
                "time_low": float(np.quantile(seconds[name], 0.25)) / base,
                "time_high": float(np.quantile(seconds[name], 0.75)) / base,
                "grid": fmean(spreads),
            }
        )
    return rows


def _textures(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Waves and sharp edges, (N, 1, S, S), mean 1/2 and standard deviation 1/5."""
    at = (torch.arange(size) + 0.5) / size
    y, x = at[:, None], at[None, :]

    def draw() -> Tensor:
        return torch.rand(count, 1, 1, generator=generator)

    image = torch.zeros(count, size, size)
    for _ in range(3):
        angle, cycles = draw() * torch.pi, 1 + 5 * draw()
        wave = cycles * (x * angle.cos() + y * angle.sin()) + draw()
        image += (0.1 + 0.23 * draw()) * torch.sin(2 * torch.pi * wave)
    for _ in range(2):
        angle, offset = draw() * 2 * torch.pi, (draw() - 0.5) * 0.6
        distance = (x - 0.5) * angle.cos() + (y - 0.5) * angle.sin() - offset
        image += (draw() - 0.3) * torch.tanh(distance * size / 1.5)
    image -= image.mean((1, 2), keepdim=True)
    return (0.5 + 0.2 * image / image.std((1, 2), keepdim=True))[:, None]


class _SuperResolution(nn.Module):
    """Two convolutions at low resolution, then two layers that each double the size."""

    def __init__(self, decoder: str, channels: int) -> None:
        super().__init__()
        make = _DECODERS[decoder]
        self.body = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
        )
        self.decoder = nn.Sequential(make(channels, channels), nn.ReLU(), make(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.decoder(self.body(x - 0.5))
        return y + 0.5


def _on_gray(net: nn.Module, size: int) -> Tensor:
    """The net's answer to a flat gray image, far from its border."""
    with torch.no_grad():
        y: Tensor = net(torch.full((1, 1, size // _FACTOR, size // _FACTOR), 0.7))
    return y[0, 0, 16:-16, 16:-16]


def _gray_levels(net: nn.Module, size: int) -> float:
    """Standard deviation of that answer in 8-bit gray levels: a grid, for it should be flat."""
    return 255 * float(_on_gray(net, size).std(correction=0))


def _pairs(seed: int, size: int) -> tuple[Tensor, Tensor]:
    """Training images of a seed, shared by all decoders, and their low resolution."""
    truth = _textures(256, size, torch.Generator().manual_seed(1000 + seed))
    return truth, F.avg_pool2d(truth, _FACTOR)


def _train(
    decoder: str, seed: int, steps: int, channels: int, marks: Sequence[int], pairs: tuple[Tensor, Tensor]
) -> tuple[_SuperResolution, list[float]]:
    torch.manual_seed(seed)
    net = _SuperResolution(decoder, channels)
    # Channels last: with so few channels the decoders are faster in sum, resize_nearest twice as fast.
    nn.utils.convert_conv2d_weight_memory_format(net, torch.channels_last)
    truth, low = pairs
    size = truth.shape[-1]
    generator = torch.Generator().manual_seed(2000 + seed)
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.5e-2, total_steps=steps)
    curve = []
    for step in range(steps):
        if step in marks:
            curve.append(_gray_levels(net, size))
        batch = torch.randint(len(truth), (4,), generator=generator)
        loss = F.mse_loss(net(low[batch]), truth[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net, [*curve, _gray_levels(net, size)]


def _step_times(size: int, channels: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of one training step with each decoder, taking turns."""
    low = torch.rand(8, 1, size // _FACTOR, size // _FACTOR, generator=torch.Generator().manual_seed(0))
    nets = {name: _SuperResolution(name, channels) for name in _DECODERS}
    seconds: dict[str, list[float]] = {name: [] for name in nets}
    for repeat in range(repeats + 2):
        for name, net in nets.items():
            start = time.perf_counter()
            net(low).square().mean().backward()
            if repeat >= 2:
                seconds[name].append(time.perf_counter() - start)
    return seconds


@experiment
def training(
    steps: int = 200,
    seeds: Sequence[int] = (0, 1, 2, 3),
    size: int = 48,
    channels: int = 16,
    repeats: int = 31,
    draws: int = 16,
) -> dict[str, Any]:
    """Four-fold super-resolution of generated textures: one small net with each of six decoders.

    Decoders: transposed_3, transposed_4 (kernels), sub_pixel, sub_pixel_icnr, resize_nearest,
    resize_bilinear. Low resolution is the mean of 4 x 4 pixels; 64 unseen images.
    rows: decoder, parameters, psnr (dB, mean over seeds), psnr_spread (standard deviation), time (median
    of a training step over that of transposed_4), time_low, time_high (quartiles), gray_before,
    gray_after (standard deviation, in gray levels of 255, of the answer to a flat gray image, before and
    after training), gray_after_spread, peak_before, peak_after (checkerboard_peak of the outputs at period 2);
    peak_truth: that of the textures themselves.
    <decoder>_psnr, ...: single values. seed_rows: decoder, seed, psnr, gray_before, gray_after.
    baselines: method, psnr (nearest, bilinear, bicubic on the same images); nearest_psnr, ...
    marks (array): steps at which curve_<decoder> (arrays (seeds, marks)) was measured.
    choice_rows: layer, use, weights, multiply_adds (for each channel of an output pixel),
    time (of one layer, forward and backward, over that of transposed_4), time_low, time_high, grid (uneven
    share of the answer to a flat input, fresh weights), psnr, psnr_spread (of the nets above, or of fixed
    enlargement; None where there is none). layer_channels. layer_<layer>_grid, _time, ...: single values.
    best, worst: decoders of highest and lowest mean PSNR; psnr_range: their gap; largest_spread: over seeds.
    steps, seeds, size, low_size, channels, images, parameters_least, parameters_most.
    image_truth, image_low, image_bicubic, image_<decoder> (arrays): one unseen image, first seed;
    gray_<decoder>, fresh_<decoder> (arrays): answers to the flat image after and before training.
    """
    torch.set_num_threads(1)
    truth = _textures(64, size, torch.Generator().manual_seed(7))
    low, shown = F.avg_pool2d(truth, _FACTOR), 1
    fixed = _fixed(low, size)
    baselines = [
        {"method": name, "psnr": _psnr(fixed[name], truth)} for name in ("nearest", "bilinear", "bicubic")
    ]
    marks = [step for step in (0, 10, 20, 40, 80, 160) if step < steps]
    times = _step_times(size, channels, repeats)
    base = median(times["transposed_4"])
    rows: list[dict[str, Any]] = []
    seed_rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {
        "image_truth": truth[shown, 0].numpy(),
        "image_low": low[shown, 0].numpy(),
        "image_bicubic": fixed["bicubic"][shown, 0].numpy(),
        "marks": np.array([*marks, steps]),
        "peak_truth": float(checkerboard_peak(truth, 2)),
        "weights": {},
    }
    pairs = {seed: _pairs(seed, size) for seed in seeds}
    for name in _DECODERS:
        runs, curves = [], []
        for seed in seeds:
            torch.manual_seed(seed)
            fresh = _SuperResolution(name, channels)
            with torch.no_grad():
                before = float(checkerboard_peak(fresh(low), 2))
            net, curve = _train(name, seed, steps, channels, marks, pairs[seed])
            with torch.no_grad():
                y = net(low)
            found = {
                "psnr": _psnr(y, truth),
                "gray_before": curve[0],
                "gray_after": curve[-1],
                "peak_before": before,
                "peak_after": float(checkerboard_peak(y, 2)),
            }
            runs.append(found)
            curves.append(curve)
            seed_rows.append({"decoder": name, "seed": seed} | found)
            if seed == seeds[0]:
                result[f"image_{name}"] = y[shown, 0].numpy()
                result[f"gray_{name}"] = _on_gray(net, size).numpy()
                result[f"fresh_{name}"] = _on_gray(fresh, size).numpy()
                result["weights"] |= {f"{name}.{k}": tensor for k, tensor in net.state_dict().items()}
        row: dict[str, Any] = {
            "decoder": name,
            "parameters": sum(p.numel() for p in net.parameters()),
            "time": median(times[name]) / base,
            "time_low": float(np.quantile(times[name], 0.25)) / base,
            "time_high": float(np.quantile(times[name], 0.75)) / base,
        }
        for key in runs[0]:
            values = [run[key] for run in runs]
            row[key], row[f"{key}_spread"] = fmean(values), stdev(values)
        rows.append(row)
        result |= {f"{name}_{key}": value for key, value in row.items() if key != "decoder"}
        result[f"curve_{name}"] = np.array(curves)
    for entry in baselines:
        result[f"{entry['method']}_psnr"] = entry["psnr"]
    layer_channels = 32
    choice = []
    for layer in _layer_rows(layer_channels, 16, repeats, draws):
        name = layer["layer"]
        own = {"psnr": result.get(f"{name}_psnr"), "psnr_spread": result.get(f"{name}_psnr_spread")}
        choice.append(layer | own | {"use": f"use_{name}"})
        result |= {f"layer_{name}_{key}": layer[key] for key in ("grid", "time", "weights", "multiply_adds")}
    ranked = sorted(rows, key=lambda row: row["psnr"])
    return result | {
        "rows": rows,
        "seed_rows": seed_rows,
        "baselines": baselines,
        "choice_rows": choice,
        "layer_channels": layer_channels,
        "best": ranked[-1]["decoder"],
        "worst": ranked[0]["decoder"],
        "psnr_range": ranked[-1]["psnr"] - ranked[0]["psnr"],
        "largest_spread": max(row["psnr_spread"] for row in rows),
        "steps": steps,
        "seeds": len(seeds),
        "size": size,
        "low_size": size // _FACTOR,
        "channels": channels,
        "images": len(truth),
        "parameters_least": min(row["parameters"] for row in rows),
        "parameters_most": max(row["parameters"] for row in rows),
    }
