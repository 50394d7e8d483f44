"""Dilated (atrous) convolution: sizes, receptive fields, gridding and layers."""

from collections.abc import Iterable, Sequence
from itertools import combinations_with_replacement
from math import gcd

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def _pair(name: str, value: int | Sequence[int], least: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < least:
        raise ValueError(
            f"{name} must be one or two integers of at least {least}, got {value}"
        )
    return pair[0], pair[1]


def effective_kernel_size(kernel_size: int, dilation: int) -> int:
    """Span, in input samples, of a kernel whose taps lie `dilation` samples apart.

    The `kernel_size - 1` steps between taps are `dilation` long: k_eff = d (k - 1) + 1.
    Raises ValueError if either argument is below 1.

    Example:
        >>> [effective_kernel_size(3, dilation) for dilation in (1, 2, 3)]
        [3, 5, 7]
    """
    _at_least(1, kernel_size=kernel_size, dilation=dilation)
    return dilation * (kernel_size - 1) + 1


def output_size(
    input_size: int,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> int:
    """Length of a convolution's output along one axis, with `padding` on both sides.

    floor((n + 2 p - d (k - 1) - 1) / s) + 1, as in torch.nn.Conv2d.
    Raises ValueError for an impossible argument, or if not even one window fits.

    Example:
        >>> output_size(65, kernel_size=3, stride=2, padding=2, dilation=2)
        33
    """
    _at_least(1, input_size=input_size, stride=stride)
    _at_least(0, padding=padding)
    span = effective_kernel_size(kernel_size, dilation)
    padded = input_size + 2 * padding
    if padded < span:
        raise ValueError(
            f"a kernel spanning {span} does not fit into a padded input of {padded}"
        )
    return (padded - span) // stride + 1


def same_padding(kernel_size: int, dilation: int) -> int:
    """Padding on each side that keeps the size of the input at stride 1.

    d (k - 1) / 2; for a 3-tap kernel this is the dilation itself.
    Raises ValueError if the kernel's span is even: it then has no middle sample.

    Example:
        >>> same_padding(3, dilation=12)
        12
    """
    span = effective_kernel_size(kernel_size, dilation)
    if span % 2 == 0:
        raise ValueError(
            f"kernel_size {kernel_size} with dilation {dilation} spans {span} samples: "
            "an even span cannot be padded equally on both sides"
        )
    return span // 2


def receptive_field(layers: Iterable[tuple[int, int, int]]) -> int:
    """Input samples, along one axis, from the first to the last that one output sees.

    `layers` are (kernel_size, stride, dilation), first layer first. A step between two
    neighbours of layer i is as long as the product of the strides before it:
    1 + sum_i d_i (k_i - 1) prod_{j<i} s_j. Dilation may leave some of them unseen.
    Raises ValueError if a number is below 1.

    Example:
        >>> receptive_field([(3, 1, 1), (3, 1, 2), (3, 1, 4)])
        15
        >>> receptive_field([(3, 2, 1), (3, 1, 2)])
        11
    """
    field, step = 1, 1
    for kernel_size, stride, dilation in layers:
        _at_least(1, stride=stride)
        field += (effective_kernel_size(kernel_size, dilation) - 1) * step
        step *= stride
    return field


def dilated_conv1d(x: Tensor, weight: Tensor, dilation: int = 1) -> Tensor:
    """Dilated convolution of a signal by its formula: y[i] = sum_k x[i + d k] w[k].

    x (..., N) with one kernel (K,) gives (..., N'); x (..., C, N) with a bank of
    kernels (O, C, K) sums over the channels too and gives (..., O, N').
    N' = N - d (K - 1). The kernel is not flipped: this is cross-correlation, like
    every "convolution" layer.
    Raises ValueError if the shapes do not fit.

    Example:
        >>> x = torch.tensor([0.0, 1.0, 4.0, 9.0, 16.0, 25.0])
        >>> second_difference = torch.tensor([1.0, -2.0, 1.0])
        >>> dilated_conv1d(x, second_difference, dilation=2)
        tensor([8., 8.])
    """
    if weight.ndim not in (1, 3) or x.ndim < (weight.ndim + 1) // 2:
        raise ValueError(
            "expected x (..., N) with weight (K,), "
            "or x (..., C, N) with weight (O, C, K), "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    output_size(x.shape[-1], weight.shape[-1], dilation=dilation)  # raises if none fits
    span = effective_kernel_size(weight.shape[-1], dilation)
    # A view, without a copy: windows[..., i, k] is x[..., i + d k].
    windows = x.unfold(-1, span, 1)[..., ::dilation]
    if weight.ndim == 1:
        return windows @ weight  # (..., N')
    if x.shape[-2] != weight.shape[1]:
        raise ValueError(
            f"x has {x.shape[-2]} channels, "
            f"weight {tuple(weight.shape)} expects {weight.shape[1]}"
        )
    return torch.einsum("...cik,ock->...oi", windows, weight)  # (..., O, N')


def dilated_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Dilated 2-D convolution as one matrix product, with the arguments of F.conv2d.

    x (B, C, H, W), weight (O, C / groups, KH, KW), bias (O,) give (B, O, H', W').
    stride, padding and dilation are one number or (vertical, horizontal).
    Memory: KH KW copies of the output's grid for each input channel, whatever the
    dilation.
    Raises ValueError if the shapes do not fit.

    Example:
        >>> import torch
        >>> x = torch.arange(25.0).reshape(1, 1, 5, 5)
        >>> dilated_conv2d(x, torch.ones(1, 1, 3, 3), dilation=2)  # every other pixel
        tensor([[[[108.]]]])
    """
    _at_least(1, groups=groups)
    if (
        (x.ndim, weight.ndim) != (4, 4)
        or x.shape[1] != groups * weight.shape[1]
        or weight.shape[0] % groups
        or (bias is not None and bias.shape != weight.shape[:1])
    ):
        raise ValueError(
            "expected x (B, C, H, W), weight (O, C / groups, KH, KW) and bias (O,), "
            f"got {tuple(x.shape)}, {tuple(weight.shape)} and "
            f"{None if bias is None else tuple(bias.shape)} with groups {groups}"
        )
    (sh, sw), (dh, dw) = _pair("stride", stride, 1), _pair("dilation", dilation, 1)
    ph, pw = _pair("padding", padding, 0)
    out_channels, group_channels, kh, kw = weight.shape
    oh = output_size(x.shape[2], kh, sh, ph, dh)
    ow = output_size(x.shape[3], kw, sw, pw, dw)

    x = F.pad(x, (pw, pw, ph, ph))
    windows = x.unfold(2, effective_kernel_size(kh, dh), sh)
    windows = windows.unfold(3, effective_kernel_size(kw, dw), sw)
    windows = windows[..., ::dh, ::dw]  # (B, C, H', W', KH, KW): a view, no copy yet
    columns = windows.permute(0, 1, 4, 5, 2, 3).reshape(
        x.shape[0], groups, group_channels * kh * kw, oh * ow
    )
    rows = weight.reshape(groups, out_channels // groups, group_channels * kh * kw)
    y = (rows @ columns).reshape(x.shape[0], out_channels, oh, ow)
    return y if bias is None else y + bias[:, None, None]


def dilate_kernel(weight: Tensor, dilation: int | Sequence[int]) -> Tensor:
    """Kernel with `dilation - 1` zeros between its taps.

    Ordinary convolution with it is dilated convolution with the kernel it is made from.
    weight (O, C, *kernel), or a bare kernel (K,) or (KH, KW); only the kernel's axes
    grow, each to d (k - 1) + 1. dilation is one number or one for each of these axes.
    Raises ValueError if dilation has another length or a number below 1.

    Example:
        >>> import torch
        >>> dilate_kernel(torch.tensor([[1, 2], [3, 4]]), dilation=(2, 3))
        tensor([[1, 0, 0, 2],
                [0, 0, 0, 0],
                [3, 0, 0, 4]])
    """
    axes = weight.ndim if weight.ndim <= 2 else weight.ndim - 2
    rates = (dilation,) * axes if isinstance(dilation, int) else tuple(dilation)
    if len(rates) != axes or min(rates, default=0) < 1:
        raise ValueError(
            "dilation must be an integer of at least 1, "
            f"or {axes} of them, got {dilation}"
        )
    steps = (1,) * (weight.ndim - axes) + rates
    dilated = weight.new_zeros(
        [step * (size - 1) + 1 for size, step in zip(weight.shape, steps, strict=True)]
    )
    dilated[tuple(slice(None, None, step) for step in steps)] = weight
    return dilated


def contribution_map(kernel_size: int, dilations: Sequence[int]) -> Tensor:
    """How many paths lead from each input pixel to one output pixel of a stack.

    Square kernels, stride 1. Returns int64 (RF, RF): 0 marks a pixel that this output
    does not see, and the sum is kernel_size ** (2 * layers). The map is also the
    gradient of the output pixel if all weights are 1.
    Raises ValueError if an argument is below 1 or a count exceeds int64.

    Example:
        >>> contribution_map(3, [1, 2])[0]  # the first of 7 rows
        tensor([1, 1, 2, 1, 2, 1, 1])
        >>> contribution_map(3, [2, 2])[0]
        tensor([1, 0, 2, 0, 3, 0, 2, 0, 1])
    """
    _at_least(1, kernel_size=kernel_size)
    row = torch.ones(1, dtype=torch.int64)
    for dilation in dilations:
        span = effective_kernel_size(kernel_size, dilation)
        wider = row.new_zeros(len(row) + span - 1)
        for offset in range(0, span, dilation):
            wider[offset : offset + len(row)] += row
        row = wider
        if int(row.max()) ** 2 > torch.iinfo(torch.int64).max:
            raise ValueError(
                f"the counts of {len(dilations)} layers do not fit into int64"
            )
    return torch.outer(row, row)  # a square kernel is a column times a row


def _seen(kernel_size: int, dilations: Iterable[int]) -> int:
    """The samples, along one axis, that one output sees: bit i stands for sample i."""
    _at_least(1, kernel_size=kernel_size)
    seen = 1
    for dilation in dilations:
        span = effective_kernel_size(kernel_size, dilation)
        before, seen = seen, 0
        for offset in range(0, span, dilation):
            seen |= before << offset
    return seen


def coverage(kernel_size: int, dilations: Iterable[int]) -> float:
    """Share of the pixels in a stack's receptive field that reach the output at all.

    Square kernels, stride 1. The order of the layers does not matter.
    Raises ValueError if an argument is below 1.

    Example:
        >>> coverage(3, [1, 2, 5])
        1.0
        >>> round(coverage(3, [2, 2, 2]), 4)  # 7 of 13 along each axis
        0.2899
    """
    seen = _seen(kernel_size, dilations)
    return (seen.bit_count() / seen.bit_length()) ** 2


def has_gridding(kernel_size: int, dilations: Iterable[int]) -> bool:
    """Whether some pixel in a stack's receptive field never reaches the output.

    Found by counting, so it is the truth that rules of thumb are measured against.
    Raises ValueError if an argument is below 1.

    Example:
        >>> has_gridding(3, [2, 2, 2]), has_gridding(3, [1, 3, 9])
        (True, False)
    """
    seen = _seen(kernel_size, dilations)
    return seen.bit_count() < seen.bit_length()


def hdc_max_distance(kernel_size: int, dilations: Sequence[int]) -> int:
    """M_2 of hybrid dilated convolution, its "maximum distance between nonzero values".

    M_n = r_n and M_i = max(M_{i+1} - 2 r_i, 2 r_i - M_{i+1}, r_i), down to i = 2
    (Wang et al., WACV 2018, section 3.2, equation 2). Neither r_1 nor the kernel size
    enters.
    Raises ValueError for fewer than two layers, or if an argument is below 1.

    Example:
        >>> hdc_max_distance(3, [1, 2, 5]), hdc_max_distance(3, [1, 2, 9])
        (2, 5)
    """
    _at_least(1, kernel_size=kernel_size, dilation=min(dilations, default=1))
    if len(dilations) < 2:
        raise ValueError(f"M_2 needs at least two layers, got {list(dilations)}")
    distance = dilations[-1]
    for rate in reversed(dilations[1:-1]):
        distance = max(distance - 2 * rate, 2 * rate - distance, rate)
    return distance


def satisfies_hdc(kernel_size: int, dilations: Sequence[int]) -> bool:
    """Whether a stack keeps the published rule: M_2 <= K and no common factor.

    Wang et al., WACV 2018, section 3.2. Neither sufficient nor necessary for a stack
    without gridding: `is_gap_free` is both.
    Raises ValueError for fewer than two layers, or if an argument is below 1.

    Example:
        >>> [satisfies_hdc(3, rates) for rates in ([1, 2, 5], [1, 2, 9], [2, 2, 2])]
        [True, False, False]
    """
    distance = hdc_max_distance(kernel_size, dilations)
    return distance <= kernel_size and gcd(*dilations) == 1


def is_gap_free(kernel_size: int, dilations: Sequence[int]) -> bool:
    """Whether a stack sees all of its receptive field: the exact rule, for any order.

    With the rates sorted upwards: each is at most 1 + (K - 1) times the sum of those
    before it. Those layers see samples 0 ... (K - 1) sum without a gap, and a further
    layer adds copies of that block `rate` samples apart, which must touch or overlap.
    A larger step leaves sample (K - 1) sum + 1 unseen for good: no later step is short
    enough to reach it. This is Brown's criterion for complete sequences (1961), with
    each rate taken K - 1 times. A single tap (K = 1) sees one sample, hence no gap.
    Raises ValueError if an argument is below 1.

    Example:
        >>> [is_gap_free(3, rates) for rates in ([1, 2, 5], [1, 3, 9], [2, 3], [1, 4])]
        [True, True, False, False]
    """
    _at_least(1, kernel_size=kernel_size, dilation=min(dilations, default=1))
    reach = 0  # samples 0 ... reach are all seen
    for rate in sorted(dilations):
        if rate > reach + 1 and kernel_size > 1:
            return False
        reach += (kernel_size - 1) * rate
    return True


def space_to_batch_conv(
    x: Tensor,
    weight: Tensor,
    dilation: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
) -> Tensor:
    """Dilated convolution by an ordinary one: split by phase, convolve, interleave.

    Pixels whose coordinates agree modulo the dilation never meet the others, so the
    dh dw phases go into the batch and an undilated kernel runs over each of them.
    x (B, C, H, W), weight (O, C, KH, KW) give (B, O, H', W'), stride 1.
    Raises ValueError if the shapes do not fit.

    Example:
        >>> import torch
        >>> x, weight = torch.rand(1, 2, 9, 9), torch.rand(3, 2, 3, 3)
        >>> same = F.conv2d(x, weight, padding=2, dilation=2)
        >>> y = space_to_batch_conv(x, weight, dilation=2, padding=2)
        >>> torch.allclose(y, same, atol=1e-5)
        True
    """
    if (x.ndim, weight.ndim) != (4, 4) or x.shape[1] != weight.shape[1]:
        raise ValueError(
            "expected x (B, C, H, W) and weight (O, C, KH, KW), "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    (dh, dw), (ph, pw) = _pair("dilation", dilation, 1), _pair("padding", padding, 0)
    batch, channels, height, width = x.shape
    out_channels, _, kh, kw = weight.shape
    oh = output_size(height, kh, padding=ph, dilation=dh)
    ow = output_size(width, kw, padding=pw, dilation=dw)

    more_h, more_w = -(height + 2 * ph) % dh, -(width + 2 * pw) % dw  # up to a multiple
    x = F.pad(x, (pw, pw + more_w, ph, ph + more_h))
    rows, columns = x.shape[2] // dh, x.shape[3] // dw
    x = x.reshape(batch, channels, rows, dh, columns, dw)
    x = x.permute(3, 5, 0, 1, 2, 4).reshape(dh * dw * batch, channels, rows, columns)
    y = F.conv2d(x, weight)  # (dh dw B, O, rows', columns')
    rows, columns = y.shape[2:]
    y = y.reshape(dh, dw, batch, out_channels, rows, columns).permute(2, 3, 4, 0, 5, 1)
    y = y.reshape(batch, out_channels, rows * dh, columns * dw)
    return y[:, :, :oh, :ow]


class CausalConv1d(nn.Conv1d):
    """Dilated convolution of the same length that at time t sees no input after t.

    x (B, C_in, N) gives (B, C_out, N): y[t] = bias + sum_k w[k] x[t - d (K - 1 - k)],
    with zeros before the start. `context` = d (K - 1) is how far it looks back.
    WaveNet (van den Oord et al., 2016, section 2.1), TCN (Bai et al., 2018).
    Raises ValueError if an argument is below 1 or the shape of x does not fit.

    Example:
        >>> import torch
        >>> layer = CausalConv1d(1, 1, kernel_size=2, dilation=4)
        >>> x = torch.zeros(1, 1, 8, requires_grad=True)
        >>> layer(x)[0, 0, 6].backward()
        >>> x.grad.nonzero()[:, 2].tolist()  # output 6 sees inputs 6 - 4 and 6
        [2, 6]
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1
    ) -> None:
        _at_least(1, in_channels=in_channels, out_channels=out_channels)
        context = effective_kernel_size(kernel_size, dilation) - 1
        super().__init__(in_channels, out_channels, kernel_size, dilation=dilation)
        self.context = context

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 3 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"expected x (B, {self.in_channels}, N), got {tuple(x.shape)}"
            )
        return super().forward(F.pad(x, (self.context, 0)))  # padded on the left only


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: a feature map seen at several rates side by side.

    A 1x1 convolution, a 3x3 one for each rate and the image's mean, each to
    out_channels, are concatenated and mixed by a 1x1 convolution.
    x (B, C_in, H, W) gives (B, C_out, H, W).
    Chen et al., DeepLabv3, 2017, section 3.3; rates 6, 12, 18 are for output stride 16.
    Raises ValueError if an argument is below 1 or the shape of x does not fit.

    Example:
        >>> ASPP(in_channels=8, out_channels=4)(torch.rand(2, 8, 33, 33)).shape
        torch.Size([2, 4, 33, 33])
    """

    def __init__(
        self, in_channels: int, out_channels: int, rates: Sequence[int] = (6, 12, 18)
    ) -> None:
        super().__init__()
        _at_least(1, in_channels=in_channels, out_channels=out_channels)
        self.in_channels = in_channels

        def branch(channels: int, kernel_size: int, rate: int) -> nn.Sequential:
            padding = same_padding(kernel_size, rate)
            conv = nn.Conv2d(
                channels,
                out_channels,
                kernel_size,
                padding=padding,
                dilation=rate,
                bias=False,
            )
            return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())

        self.branches = nn.ModuleList(
            [
                branch(in_channels, 1, 1),
                *(branch(in_channels, 3, rate) for rate in rates),
            ]
        )
        # No batch norm here: it would estimate a variance from B numbers; B may be 1.
        self.image = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.ReLU())
        self.project = branch(out_channels * (len(self.branches) + 1), 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"expected x (B, {self.in_channels}, H, W), got {tuple(x.shape)}"
            )
        maps = [branch(x) for branch in self.branches]  # each (B, C_out, H, W)
        image = self.image(x.mean(dim=(2, 3), keepdim=True))  # (B, C_out, 1, 1)
        maps.append(image.expand(-1, -1, *x.shape[2:]))
        y: Tensor = self.project(torch.cat(maps, dim=1))
        return y


def smallest_depth(target: int, kernel_size: int = 3) -> int:
    """Fewest layers with dilations 1, 2, 4, ... that see at least `target` samples.

    n layers see 1 + (k - 1)(2^n - 1) samples along one axis.
    Raises ValueError if target is below 1 or kernel_size below 2.

    Example:
        >>> smallest_depth(15), smallest_depth(16), smallest_depth(1024, kernel_size=2)
        (3, 4, 10)
    """
    _at_least(1, target=target)
    _at_least(2, kernel_size=kernel_size)
    steps = -(-(target - 1) // (kernel_size - 1))  # rounded up; 2^n - 1 must reach it
    return steps.bit_length()


def live_taps(size: int, kernel_size: int, dilation: int) -> float:
    """Mean number of a kernel's taps inside a size x size map, with same padding.

    The other taps multiply padding. At 1.0 a 3x3 kernel has become a 1x1 kernel.
    Raises ValueError if an argument is below 1 or the kernel's span is even.

    Example:
        >>> [round(live_taps(33, 3, dilation), 2) for dilation in (1, 12, 24, 33)]
        [8.64, 5.17, 2.39, 1.0]
    """
    _at_least(1, size=size)
    reach = same_padding(kernel_size, dilation)
    offsets = range(-reach, reach + 1, dilation)
    inside = sum(max(size - abs(offset), 0) for offset in offsets)  # along one axis
    return (inside / size) ** 2


def best_rates(layers: int, max_rate: int, kernel_size: int = 3) -> tuple[int, ...]:
    """Stack without gridding with the largest receptive field, by trying them all.

    Rates rise and are at most max_rate; among equals the one with the smallest first
    rates. Tries C(max_rate + layers - 1, layers) stacks: the order does not matter.
    Raises ValueError if layers or max_rate is below 1 or kernel_size below 2.

    Example:
        >>> best_rates(2, max_rate=9), best_rates(3, max_rate=9)
        ((1, 3), (1, 3, 9))
    """
    _at_least(1, layers=layers, max_rate=max_rate)
    _at_least(2, kernel_size=kernel_size)
    stacks = combinations_with_replacement(range(1, max_rate + 1), layers)
    gap_free = (rates for rates in stacks if is_gap_free(kernel_size, rates))
    return max(gap_free, key=sum)


def causal_step(layer: CausalConv1d, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
    """One time step of a causal layer, for generating: (output, next past).

    x (B, C_in) is the newest sample, past (B, C_in, layer.context) those before it,
    zeros at the start. The output (B, C_out) is what the layer gives at this time for
    the whole signal.
    Raises ValueError if the shapes do not fit.

    Example:
        >>> layer = CausalConv1d(2, 3, kernel_size=3, dilation=4)
        >>> x, past = torch.rand(1, 2, 20), torch.zeros(1, 2, layer.context)
        >>> outputs = []
        >>> for t in range(20):
        ...     y, past = causal_step(layer, x[:, :, t], past)
        ...     outputs.append(y)
        >>> torch.allclose(torch.stack(outputs, dim=2), layer(x), atol=1e-6)
        True
    """
    if x.ndim != 2 or x.shape[1] != layer.in_channels:
        raise ValueError(f"expected x (B, {layer.in_channels}), got {tuple(x.shape)}")
    if past.shape != (*x.shape, layer.context):
        raise ValueError(
            f"expected past {(*x.shape, layer.context)}, got {tuple(past.shape)}"
        )
    window = torch.cat([past, x[:, :, None]], dim=2)  # (B, C_in, context + 1)
    y = F.conv1d(window, layer.weight, layer.bias, dilation=layer.dilation)
    return y[:, :, 0], window[:, :, 1:]
