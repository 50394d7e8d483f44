"""Spatial pyramid pooling: fixed-length pyramids, and the same-size blocks of YOLO."""

from collections.abc import Iterable, Sequence
from math import ceil, floor

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def bin_edges(size: int, bins: int) -> list[tuple[int, int]]:
    """Samples in each of `bins` bins laid over `size` samples, as half-open ranges.

    Bin i is [floor(i size / bins), ceil((i + 1) size / bins)). Neighbors may share a
    sample, none is left out, and no bin is empty, even if there are more bins than
    samples. Raises ValueError if an argument is below 1.
    Source: He et al. 2015, appendix A; the rule of torch's adaptive pooling.

    Example:
        >>> bin_edges(7, bins=4)
        [(0, 2), (1, 4), (3, 6), (5, 7)]
        >>> bin_edges(8, bins=4)
        [(0, 2), (2, 4), (4, 6), (6, 8)]
    """
    _at_least(1, size=size, bins=bins)
    # -(-a // b) is a / b rounded up, in integers: exact at any size.
    return [(i * size // bins, -(-(i + 1) * size // bins)) for i in range(bins)]


def adaptive_max_pool(x: Tensor, bins: int | tuple[int, int]) -> Tensor:
    """Maximum of each bin of a grid that covers the map whatever its size.

    x (..., H, W) gives (..., bins, bins), or (..., rows, columns) for a pair. Two
    passes, since the bins are rectangles: columns, then rows.
    Raises ValueError if x has fewer than two axes or an empty map, or bins is below 1.
    Source: He et al. 2015, section 2.2 and appendix A.

    Example:
        >>> import torch
        >>> adaptive_max_pool(torch.arange(25.0).reshape(5, 5), bins=2)
        tensor([[12., 14.],
                [22., 24.]])
    """
    if x.ndim < 2 or 0 in x.shape[-2:]:
        raise ValueError(f"expected a map (..., H, W), got {tuple(x.shape)}")
    rows, columns = (bins, bins) if isinstance(bins, int) else bins
    height, width = x.shape[-2:]
    # Columns first: of equal maxima the first in reading order gets the gradient.
    strips = [x[..., a:b].max(dim=-1).values for a, b in bin_edges(width, columns)]
    x = torch.stack(strips, dim=-1)  # (..., H, columns)
    strips = [x[..., a:b, :].max(dim=-2).values for a, b in bin_edges(height, rows)]
    return torch.stack(strips, dim=-2)  # (..., rows, columns)


def paper_window(size: int, bins: int) -> tuple[int, int]:
    """Kernel and stride of SPP-net's sliding window: (ceil(size / bins), floor(...)).

    It forms the bins of `bin_edges` only if size % bins is 0 or 1. Otherwise the
    windows number more than `bins`, or stop before the last sample.
    Raises ValueError if bins is below 1 or above size: the stride would be 0.
    Source: He et al. 2015, section 2.3.

    Example:
        >>> paper_window(13, bins=6)  # the paper's 224 x 224 image: right
        (3, 2)
        >>> paper_window(10, bins=6)  # its 180 x 180 image: 9 windows, not 6
        (2, 1)
    """
    _at_least(1, bins=bins)
    if size < bins:
        raise ValueError(f"size must be at least bins, got {size} and {bins}")
    return -(-size // bins), size // bins


class SpatialPyramidPooling(nn.Module):
    """A vector of one length for feature maps of any size: SPP-net's layer.

    For each level m the map is divided into m x m bins, and each bin is pooled.
    x (B, C, H, W) gives (B, C * bins), where `bins` is the sum of m^2: level after
    level, in each the channels, in each channel the bins in reading order. A map
    smaller than the finest level is served too; its bins share cells.
    Raises ValueError for a level below 1, no level, another mode than "max" or "avg",
    or an x that is not a batch of maps.
    Source: He et al. 2015, section 2.2.

    Example:
        >>> pool = SpatialPyramidPooling(levels=(1, 2, 4))
        >>> pool(torch.rand(2, 8, 13, 13)).shape, pool(torch.rand(2, 8, 20, 9)).shape
        (torch.Size([2, 168]), torch.Size([2, 168]))
    """

    def __init__(self, levels: Sequence[int] = (1, 2, 4), mode: str = "max") -> None:
        super().__init__()
        if min(levels, default=0) < 1:
            raise ValueError(f"levels must be integers of at least 1, got {levels}")
        if mode not in ("max", "avg"):
            raise ValueError(f"mode must be 'max' or 'avg', got {mode!r}")
        self.levels, self.mode = tuple(levels), mode
        self.bins = sum(level**2 for level in self.levels)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or 0 in x.shape[1:]:
            raise ValueError(f"expected x (B, C, H, W), got {tuple(x.shape)}")
        pool = F.adaptive_max_pool2d if self.mode == "max" else F.adaptive_avg_pool2d
        return torch.cat([pool(x, level).flatten(1) for level in self.levels], dim=1)


def roi_spp(
    feature_map: Tensor,
    boxes: Tensor | Sequence[Sequence[int]],
    levels: Sequence[int] = (1, 2, 4),
    mode: str = "max",
) -> Tensor:
    """A vector of one length for each of many windows of one feature map.

    feature_map (C, H, W), or (1, C, H, W); boxes (R, 4) integers: left, top, right,
    bottom in cells of the map, right and bottom exclusive (`window_to_cells` projects
    pixels). Gives (R, C * bins). The convolutions have run once, for all windows.
    Raises ValueError for other shapes, fractions, or a box that is empty or leaves
    the map. Source: He et al. 2015, section 4.1; one level alone is the RoI pooling of
    Girshick 2015.

    Example:
        >>> feature_map = torch.arange(20.0).reshape(1, 4, 5)
        >>> roi_spp(feature_map, [[0, 0, 5, 4], [1, 1, 3, 3]], levels=(1, 2))
        tensor([[19.,  7.,  9., 17., 19.],
                [12.,  6.,  7., 11., 12.]])
    """
    pool = SpatialPyramidPooling(levels, mode)
    if feature_map.ndim == 4 and feature_map.shape[0] == 1:
        feature_map = feature_map[0]
    if feature_map.ndim != 3:
        raise ValueError(f"expected one map (C, H, W), got {tuple(feature_map.shape)}")
    boxes = torch.as_tensor(boxes)
    fits = boxes.ndim == 2 and boxes.shape[1] == 4 and not boxes.is_floating_point()
    if len(boxes) and not fits:
        raise ValueError(
            f"expected boxes (R, 4) of integers, got {tuple(boxes.shape)} {boxes.dtype}"
        )
    channels, height, width = feature_map.shape
    vectors = [feature_map.new_empty(0, channels * pool.bins)]  # no box: an empty batch
    for left, top, right, bottom in boxes.tolist():
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise ValueError(
                f"box {[left, top, right, bottom]} is empty or leaves the map of "
                f"{height} rows and {width} columns"
            )
        vectors.append(pool(feature_map[None, :, top:bottom, left:right]))
    return torch.cat(vectors)


def _conv_1x1(in_channels: int, out_channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.SiLU())


def _same_max_pool(x: Tensor, kernel_size: int) -> Tensor:
    # PyTorch pads a max-pool with minus infinity: the border never wins.
    return F.max_pool2d(x, kernel_size, stride=1, padding=kernel_size // 2)


def _check_same_size(
    in_channels: int, out_channels: int, kernel_sizes: Iterable[object]
) -> None:
    _at_least(2, in_channels=in_channels)  # half of them are kept
    _at_least(1, out_channels=out_channels)
    for size in kernel_sizes:
        if not isinstance(size, int) or size < 1 or size % 2 == 0:
            raise ValueError(f"a kernel size must be one odd integer, got {size}")


class SPPBlock(nn.Module):
    """The SPP of YOLOv3-SPP and YOLOv4: max-pools side by side, *of the map's size*.

    A 1x1 convolution halves the channels to in_channels // 2; they and their max-pools
    of each kernel size, stride 1, are concatenated and mixed by a 1x1 convolution.
    x (B, C_in, H, W) gives (B, C_out, H, W): not a vector, not of fixed length.
    Raises ValueError for an even kernel size, fewer than 2 input channels, or an x that
    does not fit. Source: Bochkovskiy et al. 2020, section 2.3; the halving is YOLOv5's.

    Example:
        >>> block = SPPBlock(in_channels=8, out_channels=6)
        >>> block(torch.rand(2, 8, 13, 13)).shape, block(torch.rand(2, 8, 20, 9)).shape
        (torch.Size([2, 6, 13, 13]), torch.Size([2, 6, 20, 9]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_sizes: Sequence[int] = (5, 9, 13),
    ) -> None:
        super().__init__()
        _check_same_size(in_channels, out_channels, kernel_sizes)
        self.in_channels, self.kernel_sizes = in_channels, tuple(kernel_sizes)
        hidden = in_channels // 2
        self.reduce = _conv_1x1(in_channels, hidden)
        self.fuse = _conv_1x1(hidden * (1 + len(self.kernel_sizes)), out_channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"expected x (B, {self.in_channels}, H, W), got {tuple(x.shape)}"
            )
        x = self.reduce(x)  # (B, hidden, H, W)
        maps = [x, *(_same_max_pool(x, size) for size in self.kernel_sizes)]
        y: Tensor = self.fuse(torch.cat(maps, dim=1))
        return y


class SPPF(nn.Module):
    """YOLOv5's SPPF: the same result as `SPPBlock`, by one small max-pool three times.

    Pooling a pool adds its reach: kernel size k once, twice, three times sees k, 2k - 1
    and 3k - 2 cells, so 5 stands for (5, 9, 13). Weights have the names and shapes of
    `SPPBlock`'s: a state_dict fits either. x (B, C_in, H, W) gives (B, C_out, H, W).
    Raises ValueError for a kernel size that is even or a list (SPPBlock takes a list),
    fewer than 2 input channels, or an x that does not fit.
    Source: G. Jocher, YOLOv5, pull request 4420, 2021.

    Example:
        >>> block = SPPF(in_channels=8, out_channels=6)  # kernels 5, 9, 13
        >>> block(torch.rand(2, 8, 13, 13)).shape, block(torch.rand(2, 8, 20, 9)).shape
        (torch.Size([2, 6, 13, 13]), torch.Size([2, 6, 20, 9]))
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 5
    ) -> None:
        super().__init__()
        _check_same_size(in_channels, out_channels, [kernel_size])
        self.in_channels, self.kernel_size = in_channels, kernel_size
        hidden = in_channels // 2
        self.reduce = _conv_1x1(in_channels, hidden)
        self.fuse = _conv_1x1(4 * hidden, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"expected x (B, {self.in_channels}, H, W), got {tuple(x.shape)}"
            )
        maps = [self.reduce(x)]  # (B, hidden, H, W)
        for _ in range(3):
            maps.append(_same_max_pool(maps[-1], self.kernel_size))
        y: Tensor = self.fuse(torch.cat(maps, dim=1))
        return y


def chained_kernel(kernel_sizes: Sequence[int]) -> int:
    """Size of the one max-pool that equals these, stride 1, one after the other.

    1 + sum of (k - 1): each pool adds its reach to those before it. For odd sizes and
    the same-size padding of PyTorch this holds up to the border.
    Raises ValueError if a size is below 1.

    Example:
        >>> [chained_kernel([5] * times) for times in (1, 2, 3)]
        [5, 9, 13]
        >>> chained_kernel([3, 3, 7])
        11
    """
    for kernel_size in kernel_sizes:
        _at_least(1, kernel_size=kernel_size)
    return 1 + sum(kernel_size - 1 for kernel_size in kernel_sizes)


def pool_comparisons(height: int, width: int, kernel_size: int) -> int:
    """Comparisons of one same-size max-pool over one channel, by its definition.

    An output that sees n cells of the map takes n - 1 comparisons; windows are cut off
    at the border. For an odd size k and a large map nearly (k^2 - 1) a cell.
    Raises ValueError if a size is below 1 or the kernel size is even.

    Example:
        >>> [pool_comparisons(13, 13, kernel_size) for kernel_size in (1, 5, 9, 13)]
        [0, 3312, 9240, 15960]
    """
    _at_least(1, height=height, width=width, kernel_size=kernel_size)
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd, got {kernel_size}")

    def seen(size: int) -> int:  # cells along one axis, summed over the outputs
        offsets = range(-(kernel_size // 2), kernel_size // 2 + 1)
        return sum(max(size - abs(offset), 0) for offset in offsets)

    return seen(height) * seen(width) - height * width


def separable_max_pool(x: Tensor, kernel_size: int) -> Tensor:
    """Same-size max-pool, stride 1, as a row of k cells followed by a column of k.

    x (B, C, H, W) or (C, H, W) of floats keeps its shape. A row and a column take
    2 (k - 1) comparisons a cell instead of k^2 - 1; here windows grow to twice their
    length at a time, which takes 2 ceil(log2 k). The result is the square's to the bit.
    Raises ValueError if the kernel size is even or below 1.

    Example:
        >>> import torch
        >>> x = torch.randn(1, 2, 13, 13)
        >>> torch.equal(separable_max_pool(x, 9), F.max_pool2d(x, 9, 1, padding=4))
        True
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}")
    x = F.pad(x, (kernel_size // 2,) * 4, value=-torch.inf)  # never wins
    for axis in (-1, -2):
        length = 1  # of the windows whose maximum x holds
        while length < kernel_size:
            step = min(length, kernel_size - length)  # further, they would leave a gap
            starts = x.shape[axis] - step
            x = torch.maximum(x.narrow(axis, 0, starts), x.narrow(axis, step, starts))
            length += step
    return x


def pyramid_length(channels: int, levels: Sequence[int]) -> int:
    """Length of a pyramid's vector: channels times the sum of the squared levels.

    Raises ValueError if channels or a level is below 1.

    Example:
        >>> pyramid_length(256, (1, 2, 3, 6))  # SPP-net's detector: 50 bins
        12800
    """
    _at_least(1, channels=channels)
    for level in levels:
        _at_least(1, level=level)
    return channels * sum(level**2 for level in levels)


def miscounted_sizes(bins: int) -> list[int]:
    """All map sizes for which `paper_window` makes more windows than `bins`.

    With size = s bins + r and 0 <= r < bins, kernel s + 1 and stride s make
    bins + floor((r - 1) / s) windows where r > 0: too many if and only if s < r. So
    there are (bins - 1)(bins - 2) / 2 such sizes, the last bins^2 - bins - 1.
    Raises ValueError if bins is below 1.

    Example:
        >>> [miscounted_sizes(bins) for bins in (2, 3, 4)]
        [[], [5], [6, 7, 11]]
    """
    _at_least(1, bins=bins)
    return [s * bins + r for s in range(1, bins) for r in range(s + 1, bins)]


def window_to_cells(box: Sequence[float], stride: int) -> tuple[int, int, int, int]:
    """Cells of the feature map whose centers lie strictly inside a window of the image.

    box: left, top, right, bottom in pixels; cell i is centered at pixel i * stride.
    Gives left, top, right, bottom in cells, right and bottom exclusive: from
    floor(x / S) + 1 to ceil(x / S). A window without a center gets the cell nearest to
    its middle.
    Raises ValueError if the box is empty or stride is below 1.
    Source: He et al. 2015, appendix A, for a network padded by floor(p / 2).

    Example:
        >>> window_to_cells((8, 8, 72, 40), stride=16)
        (1, 1, 5, 3)
        >>> window_to_cells((17, 17, 31, 31), stride=16)
        (2, 2, 3, 3)
    """
    _at_least(1, stride=stride)
    left, top, right, bottom = box
    if not (left < right and top < bottom):
        raise ValueError(f"box must not be empty, got {tuple(box)}")

    def cells(low: float, high: float) -> tuple[int, int]:
        first, last = floor(low / stride) + 1, ceil(high / stride) - 1
        if first > last:
            first = last = floor((low + high) / (2 * stride) + 0.5)
        return first, last + 1

    (x1, x2), (y1, y2) = cells(left, right), cells(top, bottom)
    return x1, y1, x2, y2
