"""Upsampling: interpolation, sub-pixel and transposed convolution, unpooling."""

from collections.abc import Callable, Sequence
from fractions import Fraction

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


def _check_image(x: Tensor) -> None:
    if x.ndim < 2 or 0 in x.shape[-2:]:
        raise ValueError(f"expected x (..., H, W) with pixels, got {tuple(x.shape)}")


def _take(x: Tensor, axis: int, index: Tensor) -> Tensor:
    """x.index_select(axis, index); along the last axis, gather is faster on a CPU."""
    if axis != -1:
        return x.index_select(axis, index)
    return x.gather(-1, index.expand(*x.shape[:-1], -1))


def source_coordinates(
    in_size: int,
    out_size: int,
    align_corners: bool = False,
    *,
    scale: float | None = None,
    clamp: bool = True,
) -> Tensor:
    """Where each output sample lies among the input samples 0 to in_size - 1.

    False: pixels are squares, (i + 1/2) in / out - 1/2, clamped at 0.
    True: pixels are points, i (in - 1) / (out - 1); 0 for a single output.
    Gives (out_size,) float64. `scale` replaces out / in in the first rule, as PyTorch
    does for scale_factor unless recompute_scale_factor is set; the second knows none.
    clamp=False keeps coordinates left of sample 0, which cubic interpolation needs.
    Raises ValueError for a size below 1 or a scale that is not positive.

    Example:
        >>> source_coordinates(2, 4)
        tensor([0.0000, 0.2500, 0.7500, 1.2500], dtype=torch.float64)
        >>> source_coordinates(2, 4, align_corners=True)
        tensor([0.0000, 0.3333, 0.6667, 1.0000], dtype=torch.float64)
    """
    _at_least(1, in_size=in_size, out_size=out_size)
    if scale is not None and not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    i = torch.arange(out_size, dtype=torch.float64)
    if align_corners:
        return i * (in_size - 1) / max(out_size - 1, 1)
    step = in_size / out_size if scale is None else 1 / scale
    at = (i + 0.5) * step - 0.5
    return at.clamp(min=0) if clamp else at


def upsample_nearest(
    x: Tensor,
    scale: float | None = None,
    *,
    size: int | Sequence[int] | None = None,
    exact: bool = False,
) -> Tensor:
    """Copy the nearest input pixel; nn.UpsamplingNearest2d and nn.Upsample's default.

    x (..., H, W) of any dtype gives (..., floor(H scale), floor(W scale)), or `size`.
    Output i copies floor(i / scale), or floor(i in / out) where a size is given: the
    pixel at or before it. exact=True copies the one whose center is nearest,
    floor((i + 1/2) in / out), like mode "nearest-exact", Pillow and scikit-image.
    Raises ValueError unless just one of scale and size is given, and makes pixels.

    Example:
        >>> import torch
        >>> upsample_nearest(torch.tensor([[1, 2], [3, 4]]), 2)
        tensor([[1, 1, 2, 2],
                [1, 1, 2, 2],
                [3, 3, 4, 4],
                [3, 3, 4, 4]])
    """
    _check_image(x)
    if scale is not None and size is None:
        if not 0 < scale < float("inf"):
            raise ValueError(f"scale must be positive and finite, got {scale}")
        sizes = int(x.shape[-2] * scale), int(x.shape[-1] * scale)
    elif size is not None and scale is None:
        sizes = _pair("size", size, 1)
    else:
        raise ValueError(f"give either scale or size, got {scale} and {size}")
    if min(sizes) < 1:
        raise ValueError(f"scale {scale} leaves no pixel of {tuple(x.shape)}")
    for axis in (-1, -2):  # rows last: they are copied whole, and they are the most
        side, out = x.shape[axis], sizes[axis]
        step = Fraction(side, out) if scale is None else 1 / Fraction(scale)
        # In whole numbers: a rounded i * step may fall just short of the next pixel.
        above, below = step.numerator, 2 * step.denominator
        index = [(2 * i + exact) * above // below for i in range(out)]
        x = _take(x, axis, torch.tensor(index, device=x.device))
    return x


def _interpolate(
    x: Tensor,
    size: int | Sequence[int],
    align_corners: bool,
    kernel: Callable[[Tensor], Tensor],
    reach: int,
) -> Tensor:
    """Weigh the 2 * reach pixels around each source coordinate, one axis at a time.

    Beyond the border the border's pixel is repeated; half precision through float32.
    """
    _check_image(x)
    if not x.is_floating_point():
        raise ValueError(f"expected floating point, got {x.dtype}")
    y = x.to(torch.promote_types(x.dtype, torch.float32))
    sizes = _pair("size", size, 1)
    for axis in (-1, -2):  # rows last: they are read whole, and they are the most
        side, out = y.shape[axis], sizes[axis]
        at = source_coordinates(side, out, align_corners, clamp=False)[:, None]
        taps = at.floor() + torch.arange(1 - reach, reach + 1)  # (out, 2 reach)
        index = taps.long().clamp(0, side - 1).to(y.device)
        weights = kernel((at - taps).abs()).to(y)
        if axis == -2:
            weights = weights[..., None]  # one for all of a row
        shape = list(y.shape)
        shape[axis] = out
        total = y.new_zeros(shape)
        for tap in range(2 * reach):  # in place: two images at a time, not all taps'
            total += _take(y, axis, index[:, tap]).mul_(weights[:, tap])
        y = total
    return y.to(x.dtype)


def upsample_bilinear(
    x: Tensor, size: int | Sequence[int], align_corners: bool = False
) -> Tensor:
    """Weigh the four pixels around each source coordinate: (1 - |dy|)(1 - |dx|).

    x (..., H, W) floating point gives (..., *size); size is one number or two.
    False is nn.Upsample's mode "bilinear", True is nn.UpsamplingBilinear2d.
    A smaller size works too, but skips pixels: no low-pass filter comes first.
    Raises ValueError for integers (labels are not to be mixed) or an empty size.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 4.0]])
        >>> upsample_bilinear(x, (1, 4))
        tensor([[0., 1., 3., 4.]])
        >>> upsample_bilinear(x, (1, 5), align_corners=True)
        tensor([[0., 1., 2., 3., 4.]])
    """
    return _interpolate(x, size, align_corners, lambda d: 1 - d, reach=1)


def upsample_bicubic(
    x: Tensor,
    size: int | Sequence[int],
    align_corners: bool = False,
    a: float = -0.75,
) -> Tensor:
    """Weigh the sixteen pixels around each source coordinate by Keys' cubic kernel.

    x (..., H, W) floating point gives (..., *size). `a` is the kernel's slope at
    distance 1: PyTorch and OpenCV take -0.75; Pillow and TensorFlow 2 take -0.5, the
    only one exact for parabolas. Overshoots at edges: clamp what must stay in a range.
    Raises ValueError as upsample_bilinear does. Source: Keys 1981.

    Example:
        >>> import torch
        >>> step = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        >>> upsample_bicubic(step, (1, 8)).min() < 0  # overshoot
        tensor(True)
    """

    def kernel(d: Tensor) -> Tensor:
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * (d**3 - 5 * d**2 + 8 * d - 4)
        return torch.where(d <= 1, near, far)

    return _interpolate(x, size, align_corners, kernel, reach=2)


def pixel_shuffle(x: Tensor, factor: int) -> Tensor:
    """Move groups of r^2 channels into r x r blocks of pixels: sub-pixels.

    x (..., C r^2, H, W) gives (..., C, H r, W r): channel c r^2 + i r + j goes to row
    i, column j of every block of channel c. Nothing is computed.
    Raises ValueError if the channels are no multiple of r^2.
    Source: Shi et al. 2016, section 3.2. The order is nn.PixelShuffle's; the paper's
    equation 4 counts the output channel fastest instead: see depth_to_space_order.

    Example:
        >>> import torch
        >>> pixel_shuffle(torch.tensor([[[1]], [[2]], [[3]], [[4]]]), 2)
        tensor([[[1, 2],
                 [3, 4]]])
    """
    _at_least(1, factor=factor)
    if x.ndim < 3 or x.shape[-3] % factor**2:
        raise ValueError(
            f"expected x (..., C * {factor**2}, H, W), got {tuple(x.shape)}"
        )
    *batch, channels, height, width = x.shape
    x = x.reshape(*batch, channels // factor**2, factor, factor, height, width)
    x = x.movedim((-4, -3), (-3, -1))  # (..., C, H, r, W, r)
    return x.reshape(*x.shape[:-4], height * factor, width * factor)


def pixel_unshuffle(x: Tensor, factor: int) -> Tensor:
    """Undo pixel_shuffle: each r x r block of pixels becomes r^2 channels.

    x (..., C, H, W) gives (..., C r^2, H / r, W / r), without loss: unlike pooling.
    Raises ValueError if H or W is no multiple of r.

    Example:
        >>> import torch
        >>> pixel_unshuffle(torch.tensor([[[1, 2], [3, 4]]]), 2).flatten()
        tensor([1, 2, 3, 4])
    """
    _at_least(1, factor=factor)
    if x.ndim < 3 or x.shape[-2] % factor or x.shape[-1] % factor:
        raise ValueError(
            f"expected x (..., C, H, W) with H and W multiples of {factor}, "
            f"got {tuple(x.shape)}"
        )
    *batch, channels, height, width = x.shape
    height, width = height // factor, width // factor
    x = x.reshape(*batch, channels, height, factor, width, factor)
    x = x.movedim((-3, -1), (-4, -3))  # (..., C, r, r, H, W)
    return x.reshape(*batch, channels * factor**2, height, width)


def transposed_conv_output_size(
    size: int,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    dilation: int = 1,
) -> int:
    """Length of a transposed convolution's output along one axis.

    (n - 1) s - 2 p + d (k - 1) + output_padding + 1, as in nn.ConvTranspose2d.
    Raises ValueError for an impossible argument, an output_padding below neither stride
    nor dilation, or if the padding crops everything.

    Example:
        >>> [transposed_conv_output_size(8, k, 2, padding=1) for k in (3, 4)]
        [15, 16]
        >>> transposed_conv_output_size(8, 3, 2, padding=1, output_padding=1)
        16
    """
    _at_least(1, size=size, kernel_size=kernel_size, stride=stride, dilation=dilation)
    _at_least(0, padding=padding, output_padding=output_padding)
    if output_padding >= max(stride, dilation):
        raise ValueError(
            f"output_padding must be below stride {stride} or dilation {dilation}, "
            f"got {output_padding}"
        )
    full = (size - 1) * stride + dilation * (kernel_size - 1) + 1
    out = full - 2 * padding + output_padding
    if out < 1:
        raise ValueError(f"padding {padding} crops all of {full} samples")
    return out


def transposed_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """Every input pixel adds a copy of the kernel, times its value, to the output.

    x (B, C, H, W), weight (C, O / groups, KH, KW), bias (O,) give (B, O, H', W'), with
    the arguments of F.conv_transpose2d, in its order. Copies lie `stride` apart;
    `padding` crops the sum on all sides, `output_padding` adds rows and columns back
    at the bottom and on the right.
    Raises ValueError if the shapes do not fit, and as transposed_conv_output_size.
    Source: Dumoulin & Visin 2016, chapter 4.

    Example:
        >>> import torch
        >>> x = torch.tensor([[[[1.0, 10.0]]]])
        >>> transposed_conv2d(x, torch.ones(1, 1, 1, 3), stride=2)
        tensor([[[[ 1.,  1., 11., 10., 10.]]]])
    """
    _at_least(1, groups=groups)
    if (
        (x.ndim, weight.ndim) != (4, 4)
        or x.shape[1] != weight.shape[0]
        or weight.shape[0] % groups
        or (bias is not None and bias.shape != (weight.shape[1] * groups,))
    ):
        raise ValueError(
            "expected x (B, C, H, W), weight (C, O / groups, KH, KW) and bias (O,), "
            f"got {tuple(x.shape)}, {tuple(weight.shape)} and "
            f"{None if bias is None else tuple(bias.shape)} with groups {groups}"
        )
    steps, rates = _pair("stride", stride, 1), _pair("dilation", dilation, 1)
    pads = _pair("padding", padding, 0)
    extra = _pair("output_padding", output_padding, 0)
    full: list[int] = []
    for a in (-2, -1):
        n, k, s, d = x.shape[a], weight.shape[a], steps[a], rates[a]
        transposed_conv_output_size(n, k, s, pads[a], extra[a], d)  # raises if bad
        full.append(transposed_conv_output_size(n, k, s, dilation=d))
    # All copies of the kernel at once, a column for each input pixel.
    pixels = x.flatten(2).unflatten(1, (groups, -1))  # (B, G, C/G, HW)
    taps = weight.flatten(1).unflatten(0, (groups, -1))  # (G, C/G, O/G KH KW)
    copies = (taps.mT @ pixels).flatten(1, 2)  # (B, O KH KW, HW)
    y = F.fold(
        copies, (full[0], full[1]), weight.shape[2:], dilation=rates, stride=steps
    )  # adds up the copies where they meet
    (top, left), (down, right) = pads, extra
    y = F.pad(y, (-left, right - left, -top, down - top))  # below 0: crops
    return y if bias is None else y + bias[:, None, None]


def conv_matrix(
    weight: Tensor, input_size: int | Sequence[int], stride: int = 1, padding: int = 0
) -> Tensor:
    """The matrix A of a convolution: conv2d(x).flatten() = A @ x.flatten().

    weight (O, C, KH, KW), or (KH, KW) for one channel, and input_size (H, W) give
    (O H' W', C H W). A.T is the transposed convolution with the same weight, onto an
    image of this input_size; hence its name. It is no inverse. Dense: for study only.
    Raises ValueError for other shapes, or if the kernel does not fit.
    Source: Dumoulin & Visin 2016, section 4.1.

    Example:
        >>> import torch
        >>> conv_matrix(torch.tensor([[1.0, 2.0, 3.0]]), (1, 5), stride=2)
        tensor([[1., 2., 3., 0., 0.],
                [0., 0., 1., 2., 3.]])
    """
    if weight.ndim == 2:
        weight = weight[None, None]
    height, width = _pair("input_size", input_size, 1)
    _at_least(1, stride=stride)
    _at_least(0, padding=padding)
    padded = (height + 2 * padding, width + 2 * padding)
    if weight.ndim != 4 or weight.shape[2] > padded[0] or weight.shape[3] > padded[1]:
        raise ValueError(
            "expected weight (O, C, KH, KW) that fits into the padded input, "
            f"got {tuple(weight.shape)} and {padded}"
        )
    out, channels = weight.shape[:2]
    pixels = channels * height * width
    numbers = torch.arange(1, pixels + 1, dtype=torch.float64, device=weight.device)
    image = numbers.reshape(1, channels, height, width)
    # Which pixel each tap of each output reads; 0 stands for the padding.
    read = F.unfold(image, weight.shape[2:], padding=padding, stride=stride)[0].T.long()
    matrix = weight.new_zeros(out, len(read), pixels + 1)
    taps = weight.reshape(out, 1, -1).expand(-1, len(read), -1)
    matrix = matrix.scatter_add(2, read.expand(out, -1, -1), taps)
    return matrix[:, :, 1:].reshape(-1, pixels)


def bilinear_kernel(channels: int, factor: int, groups: int = 1) -> Tensor:
    """Weights with which a transposed convolution interpolates: FCN's initial values.

    Gives (channels, channels / groups, k, k) with k = 2 f - f mod 2: channel c maps to
    channel c alone. Use it with stride f and padding f // 2: inside, the result is
    upsample_bilinear's; at the border zeros take part, and it darkens.
    Raises ValueError unless groups divides channels.
    Source: Long et al. 2015, section 4.3, and their released code.

    Example:
        >>> bilinear_kernel(1, factor=2)[0, 0, 0]  # times itself: a tent
        tensor([0.0625, 0.1875, 0.1875, 0.0625])
        >>> bilinear_kernel(21, factor=8, groups=21).shape
        torch.Size([21, 1, 16, 16])
    """
    _at_least(1, channels=channels, factor=factor, groups=groups)
    if channels % groups:
        raise ValueError(f"groups must divide {channels} channels, got {groups}")
    size = 2 * factor - factor % 2
    at = torch.arange(size) - (size - 1) / 2
    tent = 1 - at.abs() / factor
    inside = channels // groups
    weight = torch.zeros(channels, inside, size, size)
    number = torch.arange(channels)
    weight[number, number % inside] = tent[:, None] * tent
    return weight


def overlap_map(kernel_size: int, stride: int, size: int, padding: int = 0) -> Tensor:
    """How many (input pixel, tap) pairs add to each output of a transposed convolution.

    size: input pixels along each axis. Gives a square of int64 counts, (size - 1) s +
    k - 2 p on a side. Equal counts inside if and only if the stride divides the kernel.
    Raises ValueError for impossible arguments.
    Source: Odena et al. 2016.

    Example:
        >>> overlap_map(3, 2, size=3)[2]
        tensor([2, 2, 4, 2, 4, 2, 2])
        >>> overlap_map(4, 2, size=3)[2]
        tensor([2, 2, 4, 4, 4, 4, 2, 2])
    """
    out = transposed_conv_output_size(size, kernel_size, stride, padding)
    at = torch.arange(size)[:, None] * stride + torch.arange(kernel_size)
    line = torch.bincount(at.flatten())[padding : padding + out]
    return line[:, None] * line


def checkerboard_peak(x: Tensor, period: int) -> Tensor:
    """How far the spectrum rises at the frequencies of a grid with this period.

    Mean power at the multiples of 1 / period along both axes, the mean color left out,
    over the mean power of their eight neighbors: about 1 without a grid.
    x (..., H, W) floating point; power is averaged over all images.
    Gives a float64 scalar. Raises ValueError unless H and W are multiples of the
    period, 3 or more times, and the period is 2 or more.

    Example:
        >>> import torch
        >>> x = torch.rand(64, 24, 24, generator=torch.Generator().manual_seed(0))
        >>> x[..., ::2, ::2] += 0.1
        >>> bool(checkerboard_peak(x, 2) > 5)
        True
    """
    _at_least(2, period=period)
    _check_image(x)
    height, width = x.shape[-2:]
    if height % period or width % period or min(height, width) < 3 * period:
        raise ValueError(
            f"H and W must be multiples of {period}, 3 or more times, "
            f"got {(height, width)}"
        )
    power = torch.fft.fft2(x.double()).abs().square().reshape(-1, height, width).mean(0)
    ring = torch.full((1, 1, 3, 3), 1 / 8, dtype=torch.float64, device=x.device)
    ring[0, 0, 1, 1] = 0
    wrapped = F.pad(power[None, None], (1, 1, 1, 1), mode="circular")
    around = F.conv2d(wrapped, ring)[0, 0]
    up, left = height // period, width // period
    grid, beside = power[::up, ::left].flatten(), around[::up, ::left].flatten()
    peak: Tensor = grid[1:].mean() / beside[1:].mean()
    return peak


def max_unpool2d(
    x: Tensor,
    indices: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    output_size: Sequence[int] | None = None,
    *,
    padding: int | Sequence[int] = 0,
) -> Tensor:
    """Put each maximum back where max pooling found it, and zeros everywhere else.

    x and indices (..., H, W) as F.max_pool2d gives them with return_indices=True; an
    index counts the pixels of its own channel. Gives (..., *output_size), by default
    (n - 1) s - 2 p + k on a side; give it where pooling dropped rows.
    Where windows overlap, a maximum may come twice: it is written once, not added up.
    Raises ValueError for different shapes, an index outside the output, or an
    output_size a whole stride or more off the default.
    Source: Zeiler & Fergus 2014, section 2.1.

    Example:
        >>> import torch
        >>> x, indices = torch.tensor([[[5.0, 7.0]]]), torch.tensor([[[4, 3]]])
        >>> max_unpool2d(x, indices, kernel_size=2)
        tensor([[[0., 0., 0., 7.],
                 [5., 0., 0., 0.]]])
    """
    if x.ndim < 2 or x.shape != indices.shape:
        raise ValueError(
            "expected x and indices (..., H, W) of one shape, "
            f"got {tuple(x.shape)} and {tuple(indices.shape)}"
        )
    kernel = _pair("kernel_size", kernel_size, 1)
    steps = kernel if stride is None else _pair("stride", stride, 1)
    pads = _pair("padding", padding, 0)
    default = [
        (x.shape[axis] - 1) * steps[axis] - 2 * pads[axis] + kernel[axis]
        for axis in (-2, -1)
    ]
    sides = list(default if output_size is None else output_size)[-2:]
    if len(sides) != 2 or any(
        abs(sides[axis] - default[axis]) >= steps[axis] for axis in (0, 1)
    ):
        raise ValueError(
            f"output_size must be less than a stride {steps} off {default}, got {sides}"
        )
    pixels = sides[0] * sides[1]
    if indices.numel():
        lowest, highest = (int(end) for end in indices.aminmax())
        if lowest < 0 or highest >= pixels:
            raise ValueError(
                f"indices must lie in 0 to {pixels - 1}, got {lowest} to {highest}"
            )
    filled = x.new_zeros(*x.shape[:-2], pixels)
    filled.scatter_(-1, indices.flatten(-2), x.flatten(-2))
    return filled.reshape(*x.shape[:-2], *sides)


def icnr_(
    weight: Tensor,
    factor: int,
    init: Callable[[Tensor], object] = nn.init.kaiming_normal_,
) -> Tensor:
    """Initialize, in place, a convolution that pixel_shuffle follows: ICNR.

    weight (C r^2, I, KH, KW): the r^2 kernels that fill one block start equal, drawn
    once by `init`, which fills the tensor it is given. The layer then starts as
    nearest-neighbor upsampling after a convolution, without a checkerboard; so should
    its bias. Gives weight. Raises ValueError for other shapes.
    Source: Aitken et al. 2017.

    Example:
        >>> import torch
        >>> weight = icnr_(torch.empty(8, 3, 5, 5), factor=2)
        >>> torch.equal(weight[0], weight[3]), torch.equal(weight[3], weight[4])
        (True, False)
    """
    _at_least(1, factor=factor)
    if weight.ndim != 4 or weight.shape[0] % factor**2:
        raise ValueError(
            f"expected weight (C * {factor**2}, I, KH, KW), got {tuple(weight.shape)}"
        )
    with torch.no_grad():
        one = weight.new_empty(weight.shape[0] // factor**2, *weight.shape[1:])
        init(one)
        weight.copy_(one.repeat_interleave(factor**2, dim=0))
    return weight


class ResizeConv(nn.Module):
    """Enlarge by interpolation, then convolve: no checkerboard, r^2 times the work.

    x (B, in_channels, H, W) gives (B, out_channels, H r, W r). mode "nearest" or
    "bilinear"; the convolution, with an odd kernel, keeps the size.
    Raises ValueError for another mode or an even kernel. Source: Odena et al. 2016.

    Example:
        >>> import torch
        >>> ResizeConv(8, 3, factor=2)(torch.rand(1, 8, 5, 6)).shape
        torch.Size([1, 3, 10, 12])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        factor: int,
        kernel_size: int = 3,
        mode: str = "nearest",
    ) -> None:
        super().__init__()
        _at_least(1, factor=factor)
        if mode not in ("nearest", "bilinear"):
            raise ValueError(f"mode must be nearest or bilinear, got {mode!r}")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        self.factor, self.mode = factor, mode
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "nearest":
            x = upsample_nearest(x, self.factor)
        else:
            x = upsample_bilinear(x, [side * self.factor for side in x.shape[-2:]])
        y: Tensor = self.conv(x)  # (B, O, H r, W r)
        return y


class SubPixelConv(nn.Module):
    """Convolve at low resolution for r^2 times the channels, then pixel_shuffle.

    x (B, in_channels, H, W) gives (B, out_channels, H r, W r). icnr=True starts it
    without a checkerboard, kernels and bias alike. The kernel, odd, keeps the size.
    Raises ValueError for an even kernel. Source: Shi et al. 2016, section 3.2.

    Example:
        >>> import torch
        >>> SubPixelConv(8, 3, factor=2)(torch.rand(1, 8, 5, 6)).shape
        torch.Size([1, 3, 10, 12])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        factor: int,
        kernel_size: int = 3,
        icnr: bool = True,
    ) -> None:
        super().__init__()
        _at_least(1, factor=factor)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        self.factor = factor
        self.conv = nn.Conv2d(
            in_channels, out_channels * factor**2, kernel_size, padding=kernel_size // 2
        )
        if icnr:
            icnr_(self.conv.weight, factor)
            nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return pixel_shuffle(self.conv(x), self.factor)


def output_padding_for(
    target: int,
    size: int,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> int:
    """The output_padding with which a transposed convolution makes `target` of `size`.

    target - ((n - 1) s - 2 p + d (k - 1) + 1). If `size` is what a convolution with
    these numbers makes of `target`, it lies in 0 to s - 1.
    Raises ValueError if no allowed output_padding gives the target.

    Example:
        >>> [output_padding_for(t, 4, 3, stride=2, padding=1) for t in (7, 8)]
        [0, 1]
    """
    smallest = transposed_conv_output_size(
        size, kernel_size, stride, padding, dilation=dilation
    )
    extra = target - smallest
    if not 0 <= extra < max(stride, dilation):
        raise ValueError(
            f"outputs go from {smallest} to {smallest + max(stride, dilation) - 1}, "
            f"got target {target}"
        )
    return extra


def transposed_conv2d_by_zeros(
    x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0
) -> Tensor:
    """Transposed convolution as a convolution: spread the pixels out, flip the kernel.

    x (B, C, H, W) and weight (C, O, KH, KW) give (B, O, H', W'). Between neighbors go
    s - 1 zeros, around the whole k - 1, of which padding takes p away again. Equal to
    transposed_conv2d; of the multiplications s^2 - 1 in s^2 meet an inserted zero.
    Raises ValueError if a kernel's side is at or below the padding, or for bad sizes.
    Source: Dumoulin & Visin 2016, section 4.

    Example:
        >>> import torch
        >>> x = torch.tensor([[[[1.0, 10.0]]]])
        >>> transposed_conv2d_by_zeros(x, torch.ones(1, 1, 1, 3), stride=2)
        tensor([[[[ 1.,  1., 11., 10., 10.]]]])
    """
    _at_least(1, stride=stride)
    _at_least(0, padding=padding)
    if min(weight.shape[2:]) <= padding:
        raise ValueError(
            f"padding must be below the kernel {tuple(weight.shape[2:])}, got {padding}"
        )
    batch, channels, height, width = x.shape
    spread = x.new_zeros(
        batch, channels, (height - 1) * stride + 1, (width - 1) * stride + 1
    )
    spread[..., ::stride, ::stride] = x
    around = [side - 1 - padding for side in weight.shape[2:]]
    return F.conv2d(spread, weight.flip(2, 3).transpose(0, 1), padding=around)


def depth_to_space_order(channels: int, factor: int) -> Tensor:
    """Where pixel_shuffle's channels lie for TensorFlow's depth_to_space (DCR order).

    Gives (C r^2,) indices: depth_to_space(y[:, order]) = pixel_shuffle(y), for C output
    channels. pixel_shuffle (ONNX: mode "CRD") counts c r^2 + i r + j, DCR counts
    (i r + j) C + c. The same for one channel: a test with one proves nothing.
    Index the kernels and the bias of the convolution before it to convert a model.

    Example:
        >>> depth_to_space_order(2, factor=2)
        tensor([0, 4, 1, 5, 2, 6, 3, 7])
        >>> depth_to_space_order(1, factor=2)
        tensor([0, 1, 2, 3])
    """
    _at_least(1, channels=channels, factor=factor)
    order = torch.arange(channels * factor**2)
    return order.reshape(channels, factor**2).T.flatten()


def sub_pixel_weight(weight: Tensor, factor: int) -> Tensor:
    """Weights with which sub-pixel convolution equals a transposed convolution.

    weight (I, O, r m, r m) of a transposed convolution with stride r gives
    (O r^2, I, m, m): conv2d with padding m - 1, then pixel_shuffle, is the same map.
    Raises ValueError if a side is no multiple of r.
    Source: Shi et al. 2016, "Is the deconvolution layer the same as a convolutional
    layer?".

    Example:
        >>> import torch
        >>> sub_pixel_weight(torch.arange(4.0).reshape(1, 1, 2, 2), 2).flatten()
        tensor([0., 1., 2., 3.])
    """
    _at_least(1, factor=factor)
    if weight.ndim != 4 or any(side % factor for side in weight.shape[2:]):
        raise ValueError(
            "expected weight (I, O, KH, KW) with sides that are multiples of "
            f"{factor}, got {tuple(weight.shape)}"
        )
    # Sub-pixel i of a block is reached by the taps i, i + r, i + 2 r, ..., last first.
    return pixel_unshuffle(weight, factor).flip(2, 3).transpose(0, 1)


def resize_conv_weight(weight: Tensor, factor: int) -> Tensor:
    """Weights with which a transposed convolution equals nearest upsampling + conv2d.

    weight (O, I, k, k), k odd, padding (k - 1) / 2, gives (I, O, k + r - 1, k + r - 1),
    to be used with stride r and padding (k - 1) / 2: resize-convolution is a transposed
    convolution whose kernel was blurred by an r x r box.
    Raises ValueError for another shape.

    Example:
        >>> import torch
        >>> resize_conv_weight(torch.ones(1, 1, 1, 3), 2)[0, 0]
        tensor([[1., 2., 2., 1.],
                [1., 2., 2., 1.]])
    """
    _at_least(1, factor=factor)
    if weight.ndim != 4:
        raise ValueError(f"expected weight (O, I, KH, KW), got {tuple(weight.shape)}")
    flipped = weight.flip(2, 3).transpose(0, 1)  # (I, O, KH, KW)
    sides = [side + factor - 1 for side in weight.shape[2:]]
    blurred = flipped.new_zeros(*flipped.shape[:2], *sides)
    for i in range(factor):
        for j in range(factor):
            rows, columns = slice(i, i + weight.shape[2]), slice(j, j + weight.shape[3])
            blurred[..., rows, columns] += flipped
    return blurred
