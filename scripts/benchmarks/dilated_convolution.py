"""Races of dilated convolution, on maps and sequences as segmentation and audio have them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.pipeline.benchmark import Start, race
from snippets import dilated_convolution as ours

MAP = {"zh": "特征图 高 × 宽，32 通道", "en": "feature map, H × W, 32 channels"}
MAPS = ((32, 32), (64, 64), (128, 128))
STEPS = {"zh": "序列长度，32 通道", "en": "time steps, 32 channels"}
LOOP = {"zh": "逐像素循环", "en": "a loop over pixels"}

_FEW = "a formula of a few numbers"
_STUDY = "studies kernels and rates, no data pass through it"
UNRACED = {
    "effective_kernel_size": _FEW,
    "output_size": _FEW,
    "same_padding": _FEW,
    "receptive_field": _FEW,
    "dilate_kernel": _STUDY,
    "contribution_map": _STUDY,
    "coverage": _STUDY,
    "has_gridding": _STUDY,
    "hdc_max_distance": _STUDY,
    "satisfies_hdc": _STUDY,
    "is_gap_free": _STUDY,
    "smallest_depth": _STUDY,
    "live_taps": _STUDY,
    "best_rates": _STUDY,
    "causal_step": "no library has it",
}


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@race(
    "dilated_convolution.dilated_conv1d",
    sizes=(4096, 16_384, 65_536),
    exponent=1,
    shape={"zh": "序列长度，1 通道", "en": "time steps, 1 channel"},
)
def dilated_conv1d(length: int) -> Start:
    x, weight = _normal(length), _normal(3, seed=1)
    return Start(
        lambda: ours.dilated_conv1d(x, weight, 4),
        {"torch.nn.functional.conv1d": lambda: F.conv1d(x[None, None], weight[None, None], dilation=4)},
    )


def _loop(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Of the output's pixels, all channels at a time."""
    reach = dilation * (weight.shape[-1] - 1)
    out = x.new_empty(x.shape[0], weight.shape[0], x.shape[2] - reach, x.shape[3] - reach)
    for row in range(out.shape[2]):
        for column in range(out.shape[3]):
            patch = x[:, :, row : row + reach + 1 : dilation, column : column + reach + 1 : dilation]
            out[:, :, row, column] = torch.einsum("bckl,ockl->bo", patch, weight)
    return out


@race("dilated_convolution.dilated_conv2d", sizes=MAPS, exponent=1, shape=MAP, naive=LOOP)
def dilated_conv2d(height: int, width: int) -> Start:
    x, weight = _normal(1, 32, height, width), _normal(32, 32, 3, 3, seed=1)
    return Start(
        lambda: ours.dilated_conv2d(x, weight, dilation=2),
        {"torch.nn.functional.conv2d": lambda: F.conv2d(x, weight, dilation=2)},
        lambda: _loop(x, weight, 2),
    )


@race("dilated_convolution.space_to_batch_conv", sizes=MAPS, exponent=1, shape=MAP)
def space_to_batch_conv(height: int, width: int) -> Start:
    x, weight = _normal(1, 32, height, width), _normal(32, 32, 3, 3, seed=1)
    return Start(
        lambda: ours.space_to_batch_conv(x, weight, 2, 2),
        {"torch.nn.functional.conv2d": lambda: F.conv2d(x, weight, dilation=2, padding=2)},
    )


@race("dilated_convolution.CausalConv1d", sizes=(1024, 4096, 16_384), exponent=1, shape=STEPS)
def causal_conv1d(length: int) -> Start:
    x = _normal(1, 32, length)
    module = ours.CausalConv1d(32, 32, 3, 4).requires_grad_(False)
    reference = nn.Sequential(nn.ConstantPad1d((8, 0), 0), nn.Conv1d(32, 32, 3, dilation=4)).requires_grad_(False)
    return Start(lambda: module(x), {"torch.nn.Conv1d": lambda: reference(x)})


class _Reference(nn.Module):
    """DeepLab's head from the library's layers, as it is usually written."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()

        def layer(kernel: int, rate: int = 1) -> nn.Sequential:
            padding = rate if kernel > 1 else 0
            conv = nn.Conv2d(channels, out, kernel, padding=padding, dilation=rate, bias=False)
            return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())

        self.branches = nn.ModuleList([layer(1), *(layer(3, rate) for rate in (6, 12, 18))])
        self.pooled = layer(1)
        self.project = nn.Sequential(nn.Conv2d(5 * out, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.interpolate(self.pooled(x.mean((2, 3), keepdim=True)), x.shape[2:])
        joined: Tensor = self.project(torch.cat([*(branch(x) for branch in self.branches), pooled], 1))
        return joined


@race("dilated_convolution.ASPP", sizes=((16, 16), (32, 32), (64, 64)), exponent=1, shape=MAP)
def aspp(height: int, width: int) -> Start:
    x = _normal(1, 32, height, width)
    module = ours.ASPP(32, 32).eval().requires_grad_(False)
    reference = _Reference(32, 32).eval().requires_grad_(False)
    return Start(lambda: module(x), {"torch.nn.Conv2d": lambda: reference(x)})
