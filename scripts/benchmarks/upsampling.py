"""Races of upsampling, on feature maps as decoders and generators have them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.pipeline.benchmark import Start, race
from snippets import upsampling as ours

MAP = {"zh": "特征图 高 × 宽，64 通道", "en": "feature map, H × W, 64 channels"}
MAPS = ((32, 32), (64, 64), (128, 128))
LOOP = {"zh": "逐像素循环", "en": "a loop over pixels"}

_FEW = "a formula of a few numbers"
_SHOWS = "shows or initializes a kernel, once and small"
UNRACED = {
    "source_coordinates": "a few operations on one axis of coordinates",
    "transposed_conv_output_size": _FEW,
    "conv_matrix": "writes a convolution out as a matrix, to be looked at",
    "bilinear_kernel": _SHOWS,
    "overlap_map": _SHOWS,
    "checkerboard_peak": "reads one spectrum",
    "icnr_": _SHOWS,
    "output_padding_for": _FEW,
    "depth_to_space_order": "a permutation of channels",
    "sub_pixel_weight": _SHOWS,
    "resize_conv_weight": _SHOWS,
}


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _nearest_loop(x: Tensor) -> Tensor:
    """One channel's worth of the usual double loop, values of all channels copied at a time."""
    out = x.new_empty(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    for row in range(out.shape[2]):
        for column in range(out.shape[3]):
            out[:, :, row, column] = x[:, :, row // 2, column // 2]
    return out


@race("upsampling.upsample_nearest", sizes=MAPS, exponent=1, shape=MAP, naive=LOOP)
def upsample_nearest(height: int, width: int) -> Start:
    x = _normal(1, 64, height, width)
    return Start(
        lambda: ours.upsample_nearest(x, 2),
        {"torch.nn.functional.interpolate": lambda: F.interpolate(x, scale_factor=2)},
        lambda: _nearest_loop(x),
    )


@race("upsampling.upsample_bilinear", sizes=MAPS, exponent=1, shape=MAP)
def upsample_bilinear(height: int, width: int) -> Start:
    x, size = _normal(1, 64, height, width), (2 * height, 2 * width)
    return Start(
        lambda: ours.upsample_bilinear(x, size),
        {"torch.nn.functional.interpolate": lambda: F.interpolate(x, size, mode="bilinear")},
    )


@race("upsampling.upsample_bicubic", sizes=MAPS, exponent=1, shape=MAP)
def upsample_bicubic(height: int, width: int) -> Start:
    x, size = _normal(1, 64, height, width), (2 * height, 2 * width)
    return Start(
        lambda: ours.upsample_bicubic(x, size),
        {"torch.nn.functional.interpolate": lambda: F.interpolate(x, size, mode="bicubic")},
    )


@race("upsampling.pixel_shuffle", sizes=MAPS, exponent=1, shape=MAP)
def pixel_shuffle(height: int, width: int) -> Start:
    x = _normal(1, 64, height, width)
    return Start(
        lambda: ours.pixel_shuffle(x, 2).contiguous(),
        {"torch.nn.functional.pixel_shuffle": lambda: F.pixel_shuffle(x, 2)},
    )


@race("upsampling.pixel_unshuffle", sizes=MAPS, exponent=1, shape=MAP)
def pixel_unshuffle(height: int, width: int) -> Start:
    x = _normal(1, 64, height, width)
    return Start(
        lambda: ours.pixel_unshuffle(x, 2).contiguous(),
        {"torch.nn.functional.pixel_unshuffle": lambda: F.pixel_unshuffle(x, 2)},
    )


def _scatter_loop(x: Tensor, weight: Tensor) -> Tensor:
    """Each place of the input adds its kernel to the output, stride 2."""
    side = weight.shape[-1]
    out = x.new_zeros(1, weight.shape[1], 2 * x.shape[2] + side - 2, 2 * x.shape[3] + side - 2)
    for row in range(x.shape[2]):
        for column in range(x.shape[3]):
            patch = torch.einsum("bc,cokl->bokl", x[:, :, row, column], weight)
            out[:, :, 2 * row : 2 * row + side, 2 * column : 2 * column + side] += patch
    return out


@race("upsampling.transposed_conv2d", sizes=MAPS, exponent=1, shape=MAP, naive=LOOP)
def transposed_conv2d(height: int, width: int) -> Start:
    x, weight = _normal(1, 64, height, width), _normal(64, 32, 4, 4, seed=1)
    return Start(
        lambda: ours.transposed_conv2d(x, weight, stride=2),
        {"torch.nn.functional.conv_transpose2d": lambda: F.conv_transpose2d(x, weight, stride=2)},
        lambda: _scatter_loop(x, weight),
    )


@race("upsampling.transposed_conv2d_by_zeros", sizes=MAPS, exponent=1, shape=MAP)
def transposed_conv2d_by_zeros(height: int, width: int) -> Start:
    x, weight = _normal(1, 64, height, width), _normal(64, 32, 4, 4, seed=1)
    return Start(
        lambda: ours.transposed_conv2d_by_zeros(x, weight, stride=2),
        {"torch.nn.functional.conv_transpose2d": lambda: F.conv_transpose2d(x, weight, stride=2)},
    )


@race("upsampling.max_unpool2d", sizes=MAPS, exponent=1, shape=MAP)
def max_unpool2d(height: int, width: int) -> Start:
    x, indices = F.max_pool2d(_normal(1, 64, 2 * height, 2 * width), 2, return_indices=True)
    return Start(
        lambda: ours.max_unpool2d(x, indices, 2),
        {"torch.nn.functional.max_unpool2d": lambda: F.max_unpool2d(x, indices, [2, 2])},
    )


@race("upsampling.ResizeConv", sizes=MAPS, exponent=1, shape=MAP)
def resize_conv(height: int, width: int) -> Start:
    x = _normal(1, 64, height, width)
    module = ours.ResizeConv(64, 32, 2).requires_grad_(False)
    reference = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(64, 32, 3, padding=1)).requires_grad_(False)
    return Start(lambda: module(x), {"torch.nn.Upsample": lambda: reference(x)})


@race("upsampling.SubPixelConv", sizes=MAPS, exponent=1, shape=MAP)
def sub_pixel_conv(height: int, width: int) -> Start:
    x = _normal(1, 64, height, width)
    module = ours.SubPixelConv(64, 32, 2).requires_grad_(False)
    reference = nn.Sequential(nn.Conv2d(64, 128, 3, padding=1), nn.PixelShuffle(2)).requires_grad_(False)
    return Start(lambda: module(x), {"torch.nn.PixelShuffle": lambda: reference(x)})
