"""Races of pyramid pooling, on the maps that a backbone leaves."""

from __future__ import annotations

import scipy.ndimage
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.pipeline.benchmark import Start, race
from snippets import spatial_pyramid_pooling as ours

MAP = {"zh": "特征图 高 × 宽，64 通道", "en": "feature map, H × W, 64 channels"}
MAPS = ((16, 16), (32, 32), (64, 64))
LOOP = {"zh": "逐窗口循环", "en": "a loop over windows"}

_FEW = "a formula of a few numbers"
UNRACED = {
    "bin_edges": _FEW,
    "paper_window": _FEW,
    "roi_spp": "no library here pools a pyramid in boxes",
    "chained_kernel": _FEW,
    "pool_comparisons": _FEW,
    "pyramid_length": _FEW,
    "miscounted_sizes": _FEW,
    "window_to_cells": _FEW,
}


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@race("spatial_pyramid_pooling.adaptive_max_pool", sizes=MAPS, exponent=1, shape=MAP)
def adaptive_max_pool(height: int, width: int) -> Start:
    x = _normal(1, 64, height, width)
    return Start(
        lambda: ours.adaptive_max_pool(x, 4),
        {"torch.nn.functional.adaptive_max_pool2d": lambda: F.adaptive_max_pool2d(x, 4)},
    )


@race("spatial_pyramid_pooling.SpatialPyramidPooling", sizes=MAPS, exponent=1, shape=MAP)
def pyramid(height: int, width: int) -> Start:
    x = _normal(1, 64, height, width)
    module = ours.SpatialPyramidPooling((1, 2, 4))

    def theirs() -> Tensor:
        return torch.cat([F.adaptive_max_pool2d(x, bins).flatten(1) for bins in (1, 2, 4)], 1)

    return Start(lambda: module(x), {"torch.nn.functional.adaptive_max_pool2d": theirs})


def _block(kernels: tuple[int, ...], chained: bool) -> nn.Module:
    """YOLO's block from the library's layers."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(64, 32, 1, bias=False), nn.BatchNorm2d(32), nn.SiLU())
            joined = 32 * (len(kernels) + 1)
            self.last = nn.Sequential(nn.Conv2d(joined, 64, 1, bias=False), nn.BatchNorm2d(64), nn.SiLU())

        def forward(self, x: Tensor) -> Tensor:
            maps = [self.first(x)]
            for kernel in kernels:
                maps.append(F.max_pool2d(maps[-1 if chained else 0], kernel, 1, kernel // 2))
            out: Tensor = self.last(torch.cat(maps, 1))
            return out

    return Block().eval().requires_grad_(False)


@race("spatial_pyramid_pooling.SPPBlock", sizes=MAPS, exponent=1, shape=MAP)
def spp_block(height: int, width: int) -> Start:
    x = _normal(1, 64, height, width)
    module, reference = ours.SPPBlock(64, 64).eval().requires_grad_(False), _block((5, 9, 13), False)
    return Start(lambda: module(x), {"torch.nn.MaxPool2d": lambda: reference(x)})


@race("spatial_pyramid_pooling.SPPF", sizes=MAPS, exponent=1, shape=MAP)
def sppf(height: int, width: int) -> Start:
    x = _normal(1, 64, height, width)
    module, reference = ours.SPPF(64, 64).eval().requires_grad_(False), _block((5, 5, 5), True)
    return Start(lambda: module(x), {"torch.nn.MaxPool2d": lambda: reference(x)})


@race("spatial_pyramid_pooling.separable_max_pool", sizes=MAPS, exponent=1, shape=MAP, naive=LOOP)
def separable_max_pool(height: int, width: int) -> Start:
    x = _normal(1, 64, height, width)
    array = x.numpy()

    def naive() -> Tensor:
        padded = F.pad(x, (6,) * 4, value=-torch.inf)
        out = torch.empty_like(x)
        for row in range(height):
            for column in range(width):
                out[:, :, row, column] = padded[:, :, row : row + 13, column : column + 13].amax((2, 3))
        return out

    return Start(
        lambda: ours.separable_max_pool(x, 13),
        {
            "torch.nn.functional.max_pool2d": lambda: F.max_pool2d(x, 13, 1, 6),
            "scipy.ndimage.maximum_filter": lambda: scipy.ndimage.maximum_filter(array, (1, 1, 13, 13)),
        },
        naive,
    )
