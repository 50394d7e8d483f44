"""What the page on spatial pyramid pooling claims, against references that share no code with it."""

import re
from fractions import Fraction
from itertools import pairwise, product
from math import ceil, floor

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from snippets.spatial_pyramid_pooling import (
    SPPF,
    SpatialPyramidPooling,
    SPPBlock,
    adaptive_max_pool,
    bin_edges,
    chained_kernel,
    miscounted_sizes,
    paper_window,
    pool_comparisons,
    pyramid_length,
    roi_spp,
    separable_max_pool,
    window_to_cells,
)

SIZES = [(1, 1), (2, 5), (5, 5), (7, 4), (11, 13), (13, 13), (16, 9)]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def turned(x):
    """The same values in another order of memory."""
    other = x.transpose(-1, -2).contiguous().transpose(-1, -2)
    assert x.shape[-1] == 1 or not other.is_contiguous()
    return other


def exact_edges(size, bins):
    return [
        (floor(Fraction(i * size, bins)), ceil(Fraction((i + 1) * size, bins)))
        for i in range(bins)
    ]  # fmt: skip


def pooled_by_hand(x, levels, reduce):
    """The pyramid of an array (B, C, H, W), cell by cell, as appendix A defines the bins."""
    batch, channels, height, width = x.shape
    vectors = []
    for b in range(batch):
        vector = []
        for level, c in product(levels, range(channels)):
            for (top, bottom), (left, right) in product(
                exact_edges(height, level), exact_edges(width, level)
            ):
                vector.append(reduce(x[b, c, top:bottom, left:right]))
        vectors.append(vector)
    return np.array(vectors).reshape(batch, channels * sum(level**2 for level in levels))


def windows(size, kernel, stride):
    return (size - kernel) // stride + 1


# --- bins ----------------------------------------------------------------------------------------


def test_edges_are_those_of_exact_fractions(agrees_with):
    for size, bins in product(range(1, 65), range(1, 13)):
        agrees_with(
            bin_edges,
            "brute force: floor and ceil of exact fractions",
            bin_edges(size, bins),
            exact_edges(size, bins),
        )


def test_edges_are_the_cells_that_torch_adaptive_pooling_reads(agrees_with):
    for size, bins in product(range(1, 41), range(1, 9)):
        # The gradient of each output marks the cells of its bin.
        x = torch.zeros(1, 1, size, requires_grad=True)
        y = F.adaptive_avg_pool1d(x, bins)
        seen = []
        for i in range(bins):
            (grad,) = torch.autograd.grad(y[0, 0, i], x, retain_graph=True)
            cells = grad[0, 0].nonzero().flatten().tolist()
            assert cells == list(range(cells[0], cells[-1] + 1))
            seen.append((cells[0], cells[-1] + 1))
        agrees_with(bin_edges, "torch.nn.functional.adaptive_avg_pool1d", bin_edges(size, bins), seen)


@given(st.integers(1, 10**6), st.integers(1, 200))
@settings(max_examples=60)
def test_bins_are_never_empty_and_leave_nothing_out(size, bins):
    edges = bin_edges(size, bins)
    assert len(edges) == bins
    assert edges[0][0] == 0
    assert edges[-1][1] == size
    assert all(start < end for start, end in edges)
    assert all(start <= end_before for (_, end_before), (start, _) in pairwise(edges))
    if bins <= size:
        overlaps = [end - start for (_, end), (start, _) in pairwise(edges)]
        assert set(overlaps) <= {0, 1}
        assert {end - start for start, end in edges} <= {size // bins + extra for extra in (0, 1, 2)}


def test_bins_stay_exact_where_floats_would_not():
    size = 2**60 + 1
    assert bin_edges(size, 3)[0] == (0, ceil(Fraction(size, 3)))
    assert bin_edges(size, 3)[2] == (floor(Fraction(2 * size, 3)), size)


@pytest.mark.parametrize(("size", "bins", "name"), [(0, 1, "size"), (3, 0, "bins"), (-1, 2, "size")])
def test_bins_of_nothing_are_refused(size, bins, name):
    bad = size if name == "size" else bins
    with pytest.raises(ValueError, match=rf"^{name} must be at least 1, got {bad}$"):
        bin_edges(size, bins)


# --- adaptive max-pool ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bins", [1, 2, 3, 4, 6, (2, 5), (7, 1)])
def test_adaptive_max_pool_is_that_of_torch(agrees_with, size, bins):
    x = normal(2, 3, *size, seed=1)
    ours, theirs = adaptive_max_pool(x, bins), F.adaptive_max_pool2d(x, bins)
    agrees_with(adaptive_max_pool, "torch.nn.functional.adaptive_max_pool2d", ours, theirs)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64])
def test_adaptive_max_pool_keeps_the_dtype_and_takes_any_axes(agrees_with, dtype):
    x = (8 * normal(2, 1, 3, 7, 5, seed=2)).to(dtype)
    before = x.clone()
    ours = adaptive_max_pool(turned(x), 3)
    flat = x.reshape(2, 3, 7, 5).double().numpy()
    theirs = pooled_by_hand(flat, (3,), np.max).reshape(2, 1, 3, 3, 3)
    agrees_with(adaptive_max_pool, "brute force: NumPy's max of each bin", ours, theirs)
    assert ours.dtype == dtype
    assert torch.equal(x, before)
    assert torch.equal(adaptive_max_pool(x[0, 0, 0], 2), adaptive_max_pool(x, 2)[0, 0, 0])


def test_adaptive_max_pool_of_no_image_and_with_nan():
    assert adaptive_max_pool(torch.zeros(0, 3, 7, 5), (2, 3)).shape == (0, 3, 2, 3)
    assert adaptive_max_pool(torch.zeros(2, 0, 7, 5), 2).shape == (2, 0, 2, 2)
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 0, 0] = torch.nan
    assert adaptive_max_pool(x, 2).isnan().flatten().tolist() == [True, False, False, False]


def test_gradient_goes_to_the_first_of_equal_maxima_as_in_torch(agrees_with):
    x = normal(2, 3, 11, 7, seed=3).relu().requires_grad_()  # half of the cells are equal zeros
    weight = normal(2, 3, 4, 4, seed=4)
    (ours,) = torch.autograd.grad((adaptive_max_pool(x, 4) * weight).sum(), x)
    (theirs,) = torch.autograd.grad((F.adaptive_max_pool2d(x, 4) * weight).sum(), x)
    agrees_with(adaptive_max_pool, "torch.nn.functional.adaptive_max_pool2d", ours, theirs, atol=1e-6)
    tied = torch.zeros(1, 1, 3, 3, requires_grad=True)
    adaptive_max_pool(tied, 1).sum().backward()
    assert tied.grad.flatten().tolist() == [1.0] + 8 * [0.0]


def test_adaptive_max_pool_has_the_numerical_gradient():
    x = normal(1, 2, 5, 7, seed=5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: adaptive_max_pool(x, (2, 3)), x)


@pytest.mark.parametrize("shape", [(5,), (0, 5), (2, 3, 4, 0), ()])
def test_adaptive_max_pool_without_a_map_is_refused(shape):
    with pytest.raises(ValueError, match=rf"^expected a map \(\.\.\., H, W\), got {re.escape(str(shape))}$"):
        adaptive_max_pool(torch.zeros(shape), 2)


def test_adaptive_max_pool_into_no_bins_is_refused():
    for bins in (0, (2, 0), (0, 2)):
        with pytest.raises(ValueError, match=r"^bins must be at least 1, got 0$"):
            adaptive_max_pool(torch.zeros(4, 4), bins)


# --- the paper's window --------------------------------------------------------------------------


def test_paper_window_is_the_rounded_quotient(agrees_with):
    for bins in range(1, 13):
        for size in range(bins, 65):
            exact = Fraction(size, bins)
            agrees_with(
                paper_window,
                "closed form: ceil and floor of the exact quotient",
                paper_window(size, bins),
                (ceil(exact), floor(exact)),
            )


def test_paper_window_makes_the_bins_of_appendix_a_only_for_remainder_0_or_1():
    for bins in range(1, 13):
        for size in range(bins, 200):
            kernel, stride = paper_window(size, bins)
            starts = range(0, size - kernel + 1, stride)
            slid = [(start, start + kernel) for start in starts]
            assert (slid == bin_edges(size, bins)) is (size % bins <= 1)
            # Otherwise either the count is wrong, or the last samples are never seen.
            if size % bins > 1:
                assert len(slid) != bins or slid[-1][1] == size - (size % bins - 1)


def test_windows_of_published_counterexamples():
    counts = {(7, 4): 6, (5, 3): 4, (10, 6): 9, (11, 4): 5, (13, 6): 6, (11, 3): 3}
    assert {pair: windows(pair[0], *paper_window(*pair)) for pair in counts} == counts


@pytest.mark.parametrize("bins", range(1, 10))
def test_miscounted_sizes_are_all_there_are(agrees_with, bins):
    counted = [n for n in range(bins, 300) if windows(n, *paper_window(n, bins)) != bins]
    agrees_with(
        miscounted_sizes,
        "brute force: counting the windows of every size below 300",
        miscounted_sizes(bins),
        counted,
    )
    assert len(counted) == (bins - 1) * (bins - 2) // 2
    assert max(counted, default=0) in (0, bins**2 - bins - 1)


def test_sizes_up_to_64_and_bins_up_to_6_hold_20_miscounted_pairs():
    pairs = [(size, bins) for bins in range(1, 7) for size in miscounted_sizes(bins)]
    assert len(pairs) == 20
    assert max(size for size, _ in pairs) == 29
    assert pairs[:4] == [(5, 3), (6, 4), (7, 4), (11, 4)]


def test_windows_without_a_stride_and_without_bins_are_refused():
    with pytest.raises(ValueError, match=r"^size must be at least bins, got 3 and 4$"):
        paper_window(3, 4)
    with pytest.raises(ValueError, match=r"^bins must be at least 1, got 0$"):
        paper_window(3, 0)
    with pytest.raises(ValueError, match=r"^bins must be at least 1, got 0$"):
        miscounted_sizes(0)
    assert paper_window(4, 4) == (1, 1)


# --- the fixed-length layer ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("levels", [(1, 2, 4), (1, 2, 3, 6), [3], (4, 1)])
def test_pyramid_is_the_pool_of_each_bin_level_by_level(agrees_with, mode, size, levels):
    x = normal(2, 3, *size, seed=6)
    reduce = {"max": np.max, "avg": np.mean}[mode]
    ours = SpatialPyramidPooling(levels, mode)(x)
    theirs = pooled_by_hand(x.double().numpy(), levels, reduce)
    atol = 0.0 if mode == "max" else 1e-6
    agrees_with(
        SpatialPyramidPooling, "brute force: NumPy's max or mean of each bin", ours, theirs, atol=atol
    )
    assert ours.shape == (2, 3 * sum(level**2 for level in levels))


def test_default_pyramid_has_21_bins_of_maxima():
    pool = SpatialPyramidPooling()
    assert (pool.levels, pool.mode, pool.bins) == ((1, 2, 4), "max", 21)
    x = normal(2, 5, 9, 14)
    assert torch.equal(pool(x)[:, :5], x.amax((2, 3)))
    assert list(pool.parameters()) == []


@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_pyramid_in_every_precision_and_memory_order(agrees_with, mode, dtype):
    x = normal(2, 3, 7, 5, seed=7, dtype=dtype)
    before = x.clone()
    ours = SpatialPyramidPooling((1, 3), mode)(turned(x))
    theirs = pooled_by_hand(x.double().numpy(), (1, 3), {"max": np.max, "avg": np.mean}[mode])
    atol = 0.0 if mode == "max" else {torch.float64: 1e-15, torch.float32: 1e-6}.get(dtype, 1e-2)
    agrees_with(
        SpatialPyramidPooling, "brute force: NumPy's max or mean of each bin", ours, theirs, atol=atol
    )
    assert ours.dtype == dtype
    assert torch.equal(x, before)


def test_pyramid_of_no_image_and_of_one():
    assert SpatialPyramidPooling()(torch.zeros(0, 3, 9, 9)).shape == (0, 63)
    assert SpatialPyramidPooling((2,))(torch.ones(1, 1, 1, 1)).tolist() == [[1.0] * 4]


def test_pyramid_gradient_reaches_every_cell_and_is_the_numerical_one():
    x = normal(1, 2, 7, 5, seed=8, dtype=torch.float64).requires_grad_()
    for mode in ("max", "avg"):
        assert torch.autograd.gradcheck(SpatialPyramidPooling((1, 2, 3), mode), x)
    (grad,) = torch.autograd.grad(SpatialPyramidPooling((1, 2), "avg")(x).sum(), x)
    assert (grad > 0).all()


def test_one_level_of_one_bin_is_global_pooling_and_mirrored_maps_mirror_the_bins():
    x = normal(2, 3, 11, 7, seed=9)
    assert torch.equal(SpatialPyramidPooling((1,))(x), x.amax((2, 3)))
    bins = SpatialPyramidPooling((4,))(x).reshape(2, 3, 4, 4)
    mirrored = SpatialPyramidPooling((4,))(x.flip(3)).reshape(2, 3, 4, 4)
    assert torch.equal(mirrored, bins.flip(3))


@pytest.mark.parametrize("levels", [(), (1, 0), (-2,)])
def test_pyramids_without_bins_are_refused(levels):
    message = rf"^levels must be integers of at least 1, got {re.escape(str(levels))}$"
    with pytest.raises(ValueError, match=message):
        SpatialPyramidPooling(levels)


def test_other_modes_and_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"^mode must be 'max' or 'avg', got 'sum'$"):
        SpatialPyramidPooling(mode="sum")
    for shape in [(3, 9, 9), (1, 3, 0, 9), (1, 0, 9, 9), (2, 3, 4, 5, 6)]:
        message = rf"^expected x \(B, C, H, W\), got {re.escape(str(shape))}$"
        with pytest.raises(ValueError, match=message):
            SpatialPyramidPooling()(torch.zeros(shape))


def test_pyramid_length_is_the_length_there_is(agrees_with):
    for channels, levels in product((1, 5), [(1,), (1, 2, 4), (1, 2, 3, 6), (1, 2, 3, 4)]):
        agrees_with(
            pyramid_length,
            "brute force: length of a pooled vector",
            pyramid_length(channels, levels),
            SpatialPyramidPooling(levels)(torch.zeros(1, channels, 8, 8)).shape[1],
        )
    assert pyramid_length(256, (1, 2, 3, 6)) == 12800  # He et al. 2015, section 4.1
    assert pyramid_length(256, (1, 2, 3, 4)) == 30 * 256  # section 3.1.2
    assert pyramid_length(1, ()) == 0
    for bad in ((0, (1,), "channels"), (1, (1, 0), "level")):
        with pytest.raises(ValueError, match=rf"^{bad[2]} must be at least 1, got 0$"):
            pyramid_length(*bad[:2])


# --- windows of a map ----------------------------------------------------------------------------

BOXES = [[0, 0, 9, 7], [2, 1, 5, 6], [8, 6, 9, 7], [0, 3, 4, 5]]


@pytest.mark.parametrize("mode", ["max", "avg"])
def test_each_window_is_pooled_as_if_cut_out(agrees_with, mode):
    x = normal(3, 7, 9, seed=10)
    theirs = np.concatenate(
        [
            pooled_by_hand(
                x[None, :, top:bottom, left:right].double().numpy(),
                (1, 2, 3),
                {"max": np.max, "avg": np.mean}[mode],
            )
            for left, top, right, bottom in BOXES
        ]
    )
    atol = 0.0 if mode == "max" else 1e-6
    for boxes in (BOXES, torch.tensor(BOXES), np.array(BOXES), torch.tensor(BOXES, dtype=torch.int32)):
        ours = roi_spp(x, boxes, (1, 2, 3), mode)
        agrees_with(roi_spp, "brute force: NumPy on each window cut out", ours, theirs, atol=atol)
    assert torch.equal(roi_spp(x[None], BOXES), roi_spp(x, BOXES, (1, 2, 4), "max"))


def test_one_level_of_bins_is_roi_pooling():
    x = normal(3, 7, 9, seed=11)
    ours = roi_spp(turned(x), BOXES, levels=(2,))
    for vector, (left, top, right, bottom) in zip(ours, BOXES, strict=True):
        cut = adaptive_max_pool(x[:, top:bottom, left:right], 2)
        assert torch.equal(vector, cut.flatten())


@pytest.mark.parametrize("dtype", FLOATS)
def test_no_window_gives_no_vector_and_the_dtype_stays(dtype):
    x = torch.ones(3, 7, 9, dtype=dtype)
    for none in ([], torch.zeros(0, 4, dtype=torch.int64), torch.zeros(0, 4)):
        empty = roi_spp(x, none)
        assert empty.shape == (0, 63)
        assert empty.dtype == dtype
    assert roi_spp(x, BOXES).dtype == dtype


def test_windows_send_their_gradient_to_the_one_map():
    x = normal(2, 5, 6, seed=12, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: roi_spp(x, [[0, 0, 6, 5], [1, 2, 4, 5]], (1, 2)), x)
    (grad,) = torch.autograd.grad(roi_spp(x, [[1, 2, 4, 5]], (1,), "avg").sum(), x)
    assert (grad > 0).nonzero()[:, 1:].unique(dim=0).tolist() == [
        [r, c] for r in (2, 3, 4) for c in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    "box",
    [[-1, 0, 2, 2], [0, -1, 2, 2], [0, 0, 10, 2], [0, 0, 2, 8], [3, 0, 3, 2], [0, 2, 2, 2], [4, 0, 2, 2]],
)
def test_windows_that_leave_the_map_are_refused(box):
    message = rf"^box {re.escape(str(box))} is empty or leaves the map of 7 rows and 9 columns$"
    with pytest.raises(ValueError, match=message):
        roi_spp(torch.zeros(3, 7, 9), [[0, 0, 9, 7], box])


def test_windows_of_another_shape_or_type_are_refused():
    for boxes, told in [
        ([0, 0, 2, 2], r"\(4,\) torch\.int64"),
        ([[0, 0, 2]], r"\(1, 3\) torch\.int64"),
        ([[0.0, 0.0, 2.0, 2.5]], r"\(1, 4\) torch\.float32"),
        ([[[0, 0, 2, 2]]], r"\(1, 1, 4\) torch\.int64"),
    ]:
        with pytest.raises(ValueError, match=rf"^expected boxes \(R, 4\) of integers, got {told}$"):
            roi_spp(torch.zeros(3, 7, 9), boxes)
    for shape in [(2, 3, 7, 9), (7, 9)]:
        message = rf"^expected one map \(C, H, W\), got {re.escape(str(shape))}$"
        with pytest.raises(ValueError, match=message):
            roi_spp(torch.zeros(shape), BOXES)
    with pytest.raises(ValueError, match=r"^mode must be 'max' or 'avg', got 'sum'$"):
        roi_spp(torch.zeros(3, 7, 9), BOXES, (1,), "sum")


@given(
    st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(1, 90), st.integers(1, 90)),
    st.integers(1, 32),
)
@settings(max_examples=80)
def test_a_window_takes_the_cells_whose_centers_it_holds(box, stride):
    left, top, width, height = box
    ours = window_to_cells((left, top, left + width, top + height), stride)
    for low, high, first, end in [
        (left, left + width, ours[0], ours[2]),
        (top, top + height, ours[1], ours[3]),
    ]:
        inside = [i for i in range(400) if low < i * stride < high]
        if inside:
            assert list(range(first, end)) == inside
        else:
            assert end == first + 1
            assert abs(first * stride - (low + high) / 2) <= stride / 2


def test_window_to_cells_is_the_papers_projection(agrees_with):
    for low, high in [(0, 224), (15, 33), (16, 48), (17, 47), (3.5, 100.25)]:
        ours = window_to_cells((low, 0, high, 224), 16)
        theirs = (floor(low / 16) + 1, 1, ceil(high / 16) - 1 + 1, 14)
        agrees_with(window_to_cells, "closed form: He et al. 2015, appendix A", ours, theirs)
    assert window_to_cells((17, 1, 31, 40), 16) == (2, 1, 3, 3)  # 24 lies between two centers: up
    assert window_to_cells((17, 1, 30, 40), 16) == (1, 1, 2, 3)


def test_windows_without_an_area_are_refused():
    for box in [(5, 0, 5, 9), (0, 9, 5, 9), (6, 0, 5, 9), (0, 9, 5, 8)]:
        with pytest.raises(ValueError, match=rf"^box must not be empty, got {re.escape(str(box))}$"):
            window_to_cells(box, 16)
    with pytest.raises(ValueError, match=r"^stride must be at least 1, got 0$"):
        window_to_cells((0, 0, 5, 5), 0)


# --- the blocks of YOLO --------------------------------------------------------------------------


def settled(block, seed=0):
    """A block with weights and batch statistics of its own, ready for inference."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5 + 0.1)
        for name, buffer in block.named_buffers():
            if buffer.is_floating_point():
                noise = torch.rand(buffer.shape, generator=generator)
                buffer.copy_(noise + 0.5 if name.endswith("var") else noise - 0.5)
    return block.eval()


def by_numpy(block, x, kernel_sizes):
    """The block's formula in float64: matrix products, SciPy's maximum filters, batch norm, SiLU."""

    def conv(stage, x):
        weight, norm = stage[0].weight.detach().double().numpy()[:, :, 0, 0], stage[1]
        y = np.einsum("oc,bchw->bohw", weight, x)
        mean, var, gain, shift = (
            t.detach().double().numpy()[:, None, None]
            for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        y = (y - mean) / np.sqrt(var + norm.eps) * gain + shift
        return y / (1 + np.exp(-y))

    x = conv(block.reduce, x.double().numpy())
    pooled = [
        scipy.ndimage.maximum_filter(x, size=(1, 1, size, size), mode="constant", cval=-np.inf)
        for size in kernel_sizes
    ]
    return conv(block.fuse, np.concatenate([x, *pooled], axis=1))


@pytest.mark.parametrize("size", [(1, 1), (3, 8), (13, 13), (20, 7)])
@pytest.mark.parametrize("kernel_sizes", [(5, 9, 13), (3, 5, 7), (1,), (7, 3)])
def test_sppblock_is_its_formula(agrees_with, size, kernel_sizes):
    block = settled(SPPBlock(6, 5, kernel_sizes))
    x = normal(2, 6, *size, seed=13)
    ours = block(x)
    agrees_with(
        SPPBlock,
        "brute force: matrix products and scipy.ndimage.maximum_filter",
        ours,
        by_numpy(block, x, kernel_sizes),
        atol=1e-5,
    )
    assert ours.shape == (2, 5, *size)


@pytest.mark.parametrize("size", [(1, 1), (3, 8), (13, 13), (20, 7)])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_sppf_is_the_formula_of_three_wider_pools(agrees_with, size, kernel_size):
    block = settled(SPPF(6, 5, kernel_size))
    x = normal(2, 6, *size, seed=14)
    widths = [times * (kernel_size - 1) + 1 for times in (1, 2, 3)]
    agrees_with(
        SPPF,
        "brute force: matrix products and scipy.ndimage.maximum_filter",
        block(x),
        by_numpy(block, x, widths),
        atol=1e-5,
    )


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (6, 6), (13, 13), (20, 20)])
@pytest.mark.parametrize(("kernel_size", "kernel_sizes"), [(5, (5, 9, 13)), (3, (3, 5, 7)), (7, (7, 13, 19))])
def test_sppf_equals_sppblock_to_the_last_bit_with_shared_weights(
    agrees_with, size, kernel_size, kernel_sizes
):
    block, fast = settled(SPPBlock(6, 5, kernel_sizes)), SPPF(6, 5, kernel_size).eval()
    fast.load_state_dict(block.state_dict())
    x = normal(2, 6, *size, seed=15)
    agrees_with(SPPF, "closed form: SPPBlock with the same weights", fast(x), block(x))
    if size != (1, 1):  # batch statistics, and running means after them
        block.train()
        fast.train()
        assert torch.equal(fast(x), block(x))
        assert torch.equal(fast.reduce[1].running_mean, block.reduce[1].running_mean)
        assert torch.equal(fast.fuse[1].running_var, block.fuse[1].running_var)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_blocks_agree_in_other_precisions(dtype):
    block = settled(SPPBlock(6, 5)).to(dtype)
    fast = SPPF(6, 5).eval().to(dtype)
    fast.load_state_dict(block.state_dict())
    x = normal(2, 6, 9, 7, seed=16, dtype=dtype)
    before = x.clone()
    ours = block(turned(x))
    assert ours.dtype == dtype
    assert torch.equal(ours, fast(turned(x)))
    exact = by_numpy(block, x, (5, 9, 13))
    assert np.abs(ours.double().detach().numpy() - exact).max() < (0.2 if dtype == torch.bfloat16 else 1e-12)
    assert torch.equal(x, before)


def test_gradients_of_the_two_blocks_agree_where_no_two_cells_are_equal():
    block, fast = settled(SPPBlock(4, 3)).double(), SPPF(4, 3).eval().double()
    fast.load_state_dict(block.state_dict())
    x = normal(1, 4, 9, 9, seed=17, dtype=torch.float64).requires_grad_()
    (ours,), (theirs,) = (torch.autograd.grad(net(x).square().sum(), x) for net in (fast, block))
    assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-13)
    assert torch.autograd.gradcheck(
        settled(SPPF(2, 1, 3)).double(), x[:, :2, :3, :3].detach().requires_grad_()
    )
    assert torch.autograd.gradcheck(
        settled(SPPBlock(2, 1, (3, 5))).double(), x[:, :2, :3, :3].detach().requires_grad_()
    )


def test_equal_cells_may_pass_their_gradient_another_way():
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 0, 6] = x[0, 0, 1, 0] = 1.0
    chain, wide = x.clone().requires_grad_(), x.clone().requires_grad_()
    twice = F.max_pool2d(F.max_pool2d(chain, 5, 1, 2), 5, 1, 2)
    once = F.max_pool2d(wide, chained_kernel([5, 5]), 1, 4)
    assert torch.equal(twice, once)
    once[0, 0, 4, 4].backward()
    twice[0, 0, 4, 4].backward()
    assert wide.grad.nonzero().tolist() == [[0, 0, 0, 6]]
    assert chain.grad.nonzero().tolist() == [[0, 0, 1, 0]]


def test_blocks_keep_half_the_channels_and_concatenate_four_maps():
    for block in (SPPBlock(7, 5), SPPF(7, 5)):
        assert [tuple(stage[0].weight.shape) for stage in (block.reduce, block.fuse)] == [
            (3, 7, 1, 1),
            (5, 12, 1, 1),
        ]
        assert block.reduce[0].bias is None
        assert block.fuse[0].bias is None
        assert [type(layer).__name__ for layer in block.reduce] == ["Conv2d", "BatchNorm2d", "SiLU"]
        assert [type(layer).__name__ for layer in block.fuse] == ["Conv2d", "BatchNorm2d", "SiLU"]
        assert sum(p.numel() for p in block.parameters()) == 7 * 3 + 12 * 5 + 2 * (3 + 5)
    assert SPPBlock(4, 3).kernel_sizes == (5, 9, 13)
    assert SPPF(4, 3).kernel_size == 5
    assert SPPBlock(4, 3, [3]).fuse[0].in_channels == 4


def test_yolo_blocks_are_not_of_fixed_length():
    for block in (SPPBlock(4, 3).eval(), SPPF(4, 3).eval()):
        assert {block(torch.zeros(1, 4, n, n)).flatten(1).shape[1] for n in (8, 16)} == {3 * 64, 3 * 256}
        assert block(torch.zeros(0, 4, 5, 6)).shape == (0, 3, 5, 6)


@pytest.mark.parametrize("size", [[5, 9, 13], (5,), 4, 0, -3, 5.0, None])
def test_kernel_sizes_that_are_no_odd_integer_are_refused(size):
    message = rf"^a kernel size must be one odd integer, got {re.escape(str(size))}$"
    with pytest.raises(ValueError, match=message):
        SPPF(4, 3, size)
    with pytest.raises(ValueError, match=message):
        SPPBlock(4, 3, (5, size))


def test_channels_that_do_not_fit_are_refused():
    for block in (SPPBlock, SPPF):
        with pytest.raises(ValueError, match=r"^in_channels must be at least 2, got 1$"):
            block(1, 3)
        with pytest.raises(ValueError, match=r"^out_channels must be at least 1, got 0$"):
            block(2, 0)
        assert block(2, 1).eval()(torch.zeros(1, 2, 3, 3)).shape == (1, 1, 3, 3)
        for shape in [(1, 3, 9, 9), (4, 9, 9)]:
            message = rf"^expected x \(B, 4, H, W\), got {re.escape(str(shape))}$"
            with pytest.raises(ValueError, match=message):
                block(4, 3)(torch.zeros(shape))


# --- chains, comparisons, separable --------------------------------------------------------------


@pytest.mark.parametrize("kernel_sizes", [(5, 5), (5, 5, 5), (3, 3, 3), (3, 7), (1, 5), (9,), ()])
def test_a_chain_of_pools_is_one_pool_up_to_the_border(agrees_with, kernel_sizes):
    x = normal(2, 3, 13, 11, seed=18)
    y = x
    for size in kernel_sizes:
        y = F.max_pool2d(y, size, stride=1, padding=size // 2)
    wide = chained_kernel(kernel_sizes)
    assert torch.equal(y, F.max_pool2d(x, wide, stride=1, padding=wide // 2))
    # The one output in the middle of an impulse response tells the size.
    impulse = torch.zeros(1, 1, 81, 81)
    impulse[0, 0, 40, 40] = 1
    for size in kernel_sizes:
        impulse = F.max_pool2d(impulse, size, stride=1, padding=size // 2)
    agrees_with(
        chained_kernel,
        "brute force: width of an impulse after the pools",
        wide,
        int(impulse[0, 0, 40].sum()),
    )


def test_the_identity_fails_for_averages():
    x = normal(1, 1, 15, 15, seed=19)
    twice = F.avg_pool2d(F.avg_pool2d(x, 5, 1), 5, 1)
    once = F.avg_pool2d(x, chained_kernel([5, 5]), 1)
    assert twice.shape == once.shape
    assert not torch.allclose(twice, once, atol=1e-2)


def test_chains_of_pools_below_1_are_refused():
    with pytest.raises(ValueError, match=r"^kernel_size must be at least 1, got 0$"):
        chained_kernel([5, 0])


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 9, 13])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (4, 4), (13, 13), (20, 7)])
def test_comparisons_are_counted_window_by_window(agrees_with, size, kernel_size):
    height, width = size
    reach, counted = kernel_size // 2, 0
    for row, column in product(range(height), range(width)):
        rows = min(row + reach, height - 1) - max(row - reach, 0) + 1
        columns = min(column + reach, width - 1) - max(column - reach, 0) + 1
        counted += rows * columns - 1
    agrees_with(
        pool_comparisons,
        "brute force: cells under each window, less one",
        pool_comparisons(height, width, kernel_size),
        counted,
    )


def test_comparisons_approach_the_square_of_the_kernel_and_sppf_saves_most_of_them():
    assert pool_comparisons(400, 400, 5) / 400**2 == pytest.approx(24, rel=0.02)
    assert sum(k * k - 1 for k in (5, 9, 13)) == 272
    parallel = sum(pool_comparisons(20, 20, k) for k in (5, 9, 13))
    assert parallel / (3 * pool_comparisons(20, 20, 5)) > 2.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 3, 3), r"^height must be at least 1, got 0$"),
        ((3, 0, 3), r"^width must be at least 1, got 0$"),
        ((3, 3, 0), r"^kernel_size must be at least 1, got 0$"),
        ((3, 3, 4), r"^kernel_size must be odd, got 4$"),
    ],
)
def test_comparisons_of_impossible_pools_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        pool_comparisons(*arguments)


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 13])
@pytest.mark.parametrize("dtype", FLOATS)
def test_row_then_column_is_the_square_window(agrees_with, kernel_size, dtype):
    x = normal(2, 3, 8, 11, seed=20, dtype=dtype) - 5  # below zero: a zero border would win
    before = x.clone()
    ours = separable_max_pool(turned(x), kernel_size)
    theirs = scipy.ndimage.maximum_filter(
        x.double().numpy(), size=(1, 1, kernel_size, kernel_size), mode="constant", cval=-np.inf
    )
    agrees_with(separable_max_pool, "scipy.ndimage.maximum_filter", ours, theirs)
    assert ours.dtype == dtype
    assert torch.equal(x, before)
    assert torch.equal(separable_max_pool(x[0], kernel_size), ours[0])
    assert separable_max_pool(x[:0], kernel_size).shape == (0, 3, 8, 11)


def test_separable_pool_is_that_of_onnx_whose_border_never_wins_either(agrees_with):
    x = normal(1, 2, 7, 9, seed=21) - 5
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[5, 5], auto_pad="SAME_UPPER")
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph([node], "pool", infos[:1], infos[1:])
    (theirs,) = ReferenceEvaluator(helper.make_model(graph)).run(None, {"x": x.numpy()})
    agrees_with(separable_max_pool, "onnx.reference.ReferenceEvaluator", separable_max_pool(x, 5), theirs)


def test_separable_pool_has_a_gradient_and_refuses_even_windows():
    x = normal(1, 1, 4, 5, seed=22, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: separable_max_pool(x, 3), x)
    for kernel_size in (4, 0, -1):
        with pytest.raises(ValueError, match=rf"^kernel_size must be odd and positive, got {kernel_size}$"):
            separable_max_pool(x, kernel_size)
