"""What the page on upsampling claims, against references that share no code with it."""

import math
from itertools import product

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import skimage.transform
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from PIL import Image
from torch import nn
from torch.nn import functional as F

from snippets.upsampling import (
    ResizeConv,
    SubPixelConv,
    bilinear_kernel,
    checkerboard_peak,
    conv_matrix,
    depth_to_space_order,
    icnr_,
    max_unpool2d,
    output_padding_for,
    overlap_map,
    pixel_shuffle,
    pixel_unshuffle,
    resize_conv_weight,
    source_coordinates,
    sub_pixel_weight,
    transposed_conv2d,
    transposed_conv2d_by_zeros,
    transposed_conv_output_size,
    upsample_bicubic,
    upsample_bilinear,
    upsample_nearest,
)

HALVES = [torch.float16, torch.bfloat16]


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def onnx_runs(operator, inputs, **attributes):
    """One ONNX operator in its reference implementation, which is NumPy only."""
    names = [f"i{number}" if value is not None else "" for number, value in enumerate(inputs)]
    node = helper.make_node(operator, names, ["y"], **attributes)
    kinds = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "int64": TensorProto.INT64}
    given_inputs = [
        helper.make_tensor_value_info(name, kinds[str(value.dtype)], None)
        for name, value in zip(names, inputs, strict=True)
        if name
    ]
    output = helper.make_tensor_value_info("y", kinds[str(inputs[0].dtype)], None)
    graph = helper.make_graph([node], "g", given_inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    feed = {name: value for name, value in zip(names, inputs, strict=True) if name}
    return ReferenceEvaluator(model).run(None, feed)[0]


def onnx_resize(x, size, **attributes):
    sizes = np.array([*x.shape[:2], *size], dtype=np.int64)
    return onnx_runs("Resize", [x.numpy(), None, None, sizes], **attributes)


# --- coordinates ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(2, 4), (3, 7), (5, 3), (7, 8), (1, 4), (4, 1), (16, 64), (9, 9)])
@pytest.mark.parametrize("align_corners", [False, True])
def test_coordinates_are_where_torch_reads_a_ramp(agrees_with, n, m, align_corners):
    ramp = torch.arange(n, dtype=torch.float64)[None, None]
    theirs = F.interpolate(ramp, m, mode="linear", align_corners=align_corners)[0, 0]
    ours = source_coordinates(n, m, align_corners).clamp(max=n - 1)  # a ramp ends at n - 1
    agrees_with(source_coordinates, "torch.nn.functional.interpolate", ours, theirs, atol=1e-14)
    assert ours.dtype == torch.float64


@pytest.mark.parametrize(("n", "m"), [(2, 4), (3, 7), (5, 3), (12, 30)])
def test_centers_meet_when_pixels_are_squares_and_ends_when_they_are_points(agrees_with, n, m):
    centers = [(i + 0.5) / m * n - 0.5 for i in range(m)]
    ours = source_coordinates(n, m, clamp=False)
    agrees_with(source_coordinates, "closed form: (i + 1/2) n / m - 1/2", ours, centers, atol=2e-15)
    ends = source_coordinates(n, m, align_corners=True)
    expected = np.linspace(0, n - 1, m)
    agrees_with(source_coordinates, "numpy.linspace", ends, expected, atol=2e-15)
    assert (ends[0], ends[-1]) == (0, n - 1)


def test_only_the_first_rule_goes_left_of_sample_0_and_is_clamped_there():
    assert source_coordinates(2, 4).tolist() == [0, 0.25, 0.75, 1.25]
    assert source_coordinates(2, 4, clamp=False).tolist() == [-0.25, 0.25, 0.75, 1.25]
    assert source_coordinates(2, 3, True, clamp=False).tolist() == [0, 0.5, 1]
    assert source_coordinates(7, 1, True).tolist() == [0]
    assert source_coordinates(7, 1).tolist() == [3]
    assert source_coordinates(5, 2, True).tolist() == [0, 4]


@pytest.mark.parametrize(("n", "scale"), [(5, 1.5), (7, 2.3), (10, 1.25), (9, 0.7)])
def test_a_given_scale_is_used_as_torch_uses_scale_factor(agrees_with, n, scale):
    ramp = torch.arange(n, dtype=torch.float64)[None, None]
    theirs = F.interpolate(ramp, scale_factor=scale, mode="linear")[0, 0]
    ours = source_coordinates(n, len(theirs), scale=scale).clamp(max=n - 1)
    agrees_with(source_coordinates, "torch.nn.functional.interpolate", ours, theirs, atol=1e-14)
    again = F.interpolate(ramp, scale_factor=scale, mode="linear", recompute_scale_factor=True)[0, 0]
    recomputed = source_coordinates(n, len(again)).clamp(max=n - 1)
    agrees_with(source_coordinates, "torch.nn.functional.interpolate", recomputed, again, atol=1e-14)


def test_scale_changes_coordinates_only_where_the_size_was_rounded():
    assert not torch.equal(source_coordinates(5, 7, scale=1.5), source_coordinates(5, 7))
    assert torch.equal(source_coordinates(4, 6, scale=1.5), source_coordinates(4, 6))
    assert torch.equal(source_coordinates(5, 7, True, scale=1.5), source_coordinates(5, 7, True))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 4), {}, "^in_size must be at least 1, got 0$"),
        ((4, 0), {}, "^out_size must be at least 1, got 0$"),
        ((4, 4), {"scale": 0}, "^scale must be positive, got 0$"),
        ((4, 4), {"scale": -2.0}, r"^scale must be positive, got -2\.0$"),
        ((4, 4), {"scale": math.nan}, "^scale must be positive, got nan$"),
    ],
)
def test_impossible_coordinates_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        source_coordinates(*arguments, **options)


# --- nearest -------------------------------------------------------------------------------------

SIZES = [((5, 7), (10, 14)), ((5, 7), (3, 3)), ((3, 4), (7, 9)), ((1, 1), (3, 5)), ((6, 5), (6, 5))]


@pytest.mark.parametrize("shape", [(2, 3), (0, 2), ()])
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_nearest_with_a_size_is_that_of_torch(agrees_with, shape, n, m):
    x = noise(*shape, *n)
    ours = upsample_nearest(x, size=m)
    four = x.reshape(-1, 1, *n) if shape != (0, 2) else x
    theirs = F.interpolate(four, m, mode="nearest").reshape(*shape, *m)
    agrees_with(upsample_nearest, "torch.nn.functional.interpolate", ours, theirs)
    theirs = F.interpolate(four, m, mode="nearest-exact").reshape(*shape, *m)
    ours = upsample_nearest(x, size=m, exact=True)
    agrees_with(upsample_nearest, "torch.nn.functional.interpolate", ours, theirs)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 1.5, 2.3, 0.6, 2.0])
def test_nearest_with_a_scale_is_that_of_the_layers(agrees_with, scale):
    x = noise(2, 3, 5, 8)
    theirs = nn.Upsample(scale_factor=scale)(x)
    agrees_with(upsample_nearest, "torch.nn.Upsample", upsample_nearest(x, scale), theirs)
    theirs = nn.UpsamplingNearest2d(scale_factor=scale)(x)
    agrees_with(upsample_nearest, "torch.nn.UpsamplingNearest2d", upsample_nearest(x, scale), theirs)
    theirs = nn.Upsample(scale_factor=scale, mode="nearest-exact")(x)
    agrees_with(upsample_nearest, "torch.nn.Upsample", upsample_nearest(x, scale, exact=True), theirs)


@pytest.mark.parametrize("scale", [2, 3])
def test_a_whole_scale_repeats_rows_and_columns(agrees_with, scale):
    x = noise(2, 4, 5)
    theirs = np.repeat(np.repeat(x.numpy(), scale, axis=1), scale, axis=2)
    agrees_with(upsample_nearest, "numpy.repeat", upsample_nearest(x, scale), theirs)
    agrees_with(upsample_nearest, "numpy.repeat", upsample_nearest(x, scale, exact=True), theirs)


@pytest.mark.parametrize(("n", "m"), [((5, 7), (3, 3)), ((7, 9), (8, 13)), ((9, 5), (5, 20))])  # odd: no ties
def test_the_exact_rule_is_that_of_pillow_scikit_image_and_onnx(agrees_with, n, m):
    x = noise(*n, dtype=torch.float32)
    ours = upsample_nearest(x, size=m, exact=True)
    theirs = np.asarray(Image.fromarray(x.numpy()).resize(m[::-1], Image.Resampling.NEAREST))
    agrees_with(upsample_nearest, "PIL.Image.Image.resize", ours, theirs)
    theirs = skimage.transform.resize(x.numpy(), m, order=0, anti_aliasing=False)
    agrees_with(upsample_nearest, "skimage.transform.resize", ours, theirs)
    theirs = onnx_resize(x[None, None], m, mode="nearest")[0, 0]
    agrees_with(upsample_nearest, "onnx.reference.ReferenceEvaluator", ours, theirs)


def test_five_to_three_tells_the_two_rules_apart():
    x = torch.arange(5)[None]
    assert upsample_nearest(x, size=(1, 3)).tolist() == [[0, 1, 3]]
    assert upsample_nearest(x, size=(1, 3), exact=True).tolist() == [[0, 2, 4]]


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(1, 200), st.booleans())
def test_nearest_is_the_rule_in_rational_numbers(n, m, exact):
    got = upsample_nearest(torch.arange(n)[None], size=(1, m), exact=exact)[0].tolist()
    assert got == [((2 * i + exact) * n) // (2 * m) for i in range(m)]


def test_where_torch_rounds_wrongly_ours_does_not(agrees_with):
    x = torch.arange(2.0)[None]
    ours = upsample_nearest(x, size=(1, 82))
    agrees_with(upsample_nearest, "closed form: floor(i n / m)", ours[0], [i * 2 // 82 for i in range(82)])
    theirs = F.interpolate(x[None, None], (1, 82))[0, 0]
    assert (ours != theirs).nonzero().tolist() == [[0, 41]]


@pytest.mark.parametrize("scale", [1.1, 1.3, 2.7, 3.9])
def test_a_fractional_scale_never_reads_beyond_the_border(scale):
    x = torch.arange(10)[None]
    for exact in (False, True):
        got = upsample_nearest(x.expand(10, 10), scale, exact=exact)
        assert got.shape == (int(10 * scale),) * 2
        steps = got[0].diff()
        assert (got[0, 0], got[0, -1]) == (0, 9)
        assert set(steps.tolist()) == {0, 1}


def test_nearest_keeps_dtypes_strides_gradients_and_arguments(agrees_with):
    labels = torch.tensor([[1, 2], [3, 255]], dtype=torch.uint8)
    assert upsample_nearest(labels, 2).dtype == torch.uint8
    assert upsample_nearest(labels > 1, 2).sum() == 12
    assert upsample_nearest(labels[None][:0], 2).shape == (0, 4, 4)
    x = noise(2, 3, 5, 4)
    turned = x.transpose(-1, -2)
    assert torch.equal(upsample_nearest(turned, 2), upsample_nearest(turned.contiguous(), 2))
    leaf = x.clone().requires_grad_()
    upsample_nearest(leaf, 3).sum().backward()
    agrees_with(
        upsample_nearest, "closed form: each pixel is copied 9 times", leaf.grad, torch.full_like(x, 9)
    )
    assert torch.equal(leaf, x)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((4,), {"scale": 2}, r"^expected x \(\.\.\., H, W\) with pixels, got \(4,\)$"),
        ((2, 0, 4), {"scale": 2}, r"with pixels, got \(2, 0, 4\)$"),
        ((2, 4, 0), {"scale": 2}, r"with pixels, got \(2, 4, 0\)$"),
        ((4, 4), {}, "^give either scale or size, got None and None$"),
        ((4, 4), {"scale": 2, "size": 8}, "^give either scale or size, got 2 and 8$"),
        ((4, 4), {"scale": 0}, "^scale must be positive and finite, got 0$"),
        ((4, 4), {"scale": math.inf}, "^scale must be positive and finite, got inf$"),
        ((4, 5), {"scale": 0.2}, r"^scale 0\.2 leaves no pixel of \(4, 5\)$"),
        ((4, 4), {"size": 0}, "^size must be one or two integers of at least 1, got 0$"),
        ((4, 4), {"size": (4, 4, 4)}, r"^size must be one or two integers of at least 1, got \(4, 4, 4\)$"),
        ((4, 4), {"size": (4, 0)}, r"at least 1, got \(4, 0\)$"),
    ],
)
def test_nearest_refuses_what_makes_no_image(shape, options, message):
    with pytest.raises(ValueError, match=message):
        upsample_nearest(torch.zeros(shape), **options)


# --- bilinear and bicubic ------------------------------------------------------------------------


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_bilinear_and_bicubic_are_those_of_torch(agrees_with, n, m, align_corners):
    x = noise(2, 3, *n)
    for ours, mode in ((upsample_bilinear, "bilinear"), (upsample_bicubic, "bicubic")):
        theirs = F.interpolate(x, m, mode=mode, align_corners=align_corners)
        got = ours(x, m, align_corners)
        agrees_with(ours, "torch.nn.functional.interpolate", got, theirs, atol=2e-14)
    ours = upsample_bilinear(x.float(), m, align_corners)
    theirs = F.interpolate(x.float(), m, mode="bilinear", align_corners=align_corners)
    agrees_with(upsample_bilinear, "torch.nn.functional.interpolate", ours, theirs, atol=3e-6)


def test_bilinear_is_half_pixel_by_default_and_the_old_layer_aligns_corners(agrees_with):
    x = noise(2, 3, 4, 5)
    theirs = nn.Upsample(scale_factor=2, mode="bilinear")(x)
    agrees_with(upsample_bilinear, "torch.nn.Upsample", upsample_bilinear(x, (8, 10)), theirs, atol=1e-14)
    theirs = nn.UpsamplingBilinear2d(scale_factor=2)(x)
    ours = upsample_bilinear(x, (8, 10), align_corners=True)
    agrees_with(upsample_bilinear, "torch.nn.UpsamplingBilinear2d", ours, theirs, atol=1e-14)
    assert (upsample_bilinear(x, (8, 10)) - theirs).abs().max() > 0.1


@pytest.mark.parametrize(("n", "m"), [((5, 7), (10, 14)), ((4, 6), (9, 11)), ((6, 6), (5, 4))])
def test_both_conventions_are_those_of_onnx(agrees_with, n, m):
    x = noise(1, 2, *n, dtype=torch.float32)
    for align, name in ((False, "half_pixel"), (True, "align_corners")):
        theirs = onnx_resize(x, m, mode="linear", coordinate_transformation_mode=name)
        ours = upsample_bilinear(x, m, align)
        agrees_with(upsample_bilinear, "onnx.reference.ReferenceEvaluator", ours, theirs, atol=3e-6)
        theirs = onnx_resize(x, m, mode="cubic", coordinate_transformation_mode=name, cubic_coeff_a=-0.75)
        ours = upsample_bicubic(x, m, align)
        agrees_with(upsample_bicubic, "onnx.reference.ReferenceEvaluator", ours, theirs, atol=6e-6)


@pytest.mark.parametrize(("n", "m"), [((5, 7), (10, 14)), ((4, 6), (8, 18))])
def test_scikit_image_and_scipy_grid_mode_take_pixels_as_squares_scipy_as_points(agrees_with, n, m):
    x = noise(*n)
    theirs = skimage.transform.resize(x.numpy(), m, order=1, mode="edge", anti_aliasing=False)
    agrees_with(upsample_bilinear, "skimage.transform.resize", upsample_bilinear(x, m), theirs, atol=2e-15)
    factors = [b / a for a, b in zip(n, m, strict=True)]
    theirs = scipy.ndimage.zoom(x.numpy(), factors, order=1, mode="nearest", grid_mode=True)
    agrees_with(upsample_bilinear, "scipy.ndimage.zoom", upsample_bilinear(x, m), theirs, atol=2e-15)
    theirs = scipy.ndimage.zoom(x.numpy(), factors, order=1)
    agrees_with(upsample_bilinear, "scipy.ndimage.zoom", upsample_bilinear(x, m, True), theirs, atol=4e-15)


@pytest.mark.parametrize(("n", "m"), [((5, 7), (10, 14)), ((4, 6), (9, 13))])
def test_pillows_cubic_is_ours_with_a_half_inside(agrees_with, n, m):
    x = noise(*n, dtype=torch.float32)
    theirs = np.asarray(Image.fromarray(x.numpy()).resize(m[::-1], Image.Resampling.BICUBIC))
    ours = upsample_bicubic(x, m, a=-0.5)
    inside = (slice(4, -4), slice(4, -4))  # Pillow leaves out what lies beyond the border
    agrees_with(upsample_bicubic, "PIL.Image.Image.resize", ours[inside], theirs[inside], atol=1e-5)
    assert np.abs(upsample_bicubic(x, m).numpy() - theirs)[inside].max() > 1e-3


@pytest.mark.parametrize("align_corners", [False, True])
def test_bilinear_reproduces_planes_and_cubic_with_a_half_parabolas(agrees_with, align_corners):
    n, m = 9, 23
    i = torch.arange(n, dtype=torch.float64)
    at = source_coordinates(n, m, align_corners)
    middle = slice(6, -6)  # away from the border, where pixels are repeated
    plane = 2 * i[:, None] - 3 * i
    exact = 2 * at[:, None] - 3 * at
    ours = upsample_bilinear(plane, m, align_corners)[middle, middle]
    agrees_with(upsample_bilinear, "closed form: a plane", ours, exact[middle, middle], atol=2e-14)
    square, exact = i[:, None] ** 2 + i**2, at[:, None] ** 2 + at**2
    ours = upsample_bicubic(square, m, align_corners, a=-0.5)[middle, middle]
    agrees_with(upsample_bicubic, "closed form: a parabola", ours, exact[middle, middle], atol=4e-13)
    off = upsample_bicubic(square, m, align_corners)[middle, middle] - exact[middle, middle]
    assert off.abs().max() > 0.01


def test_the_cubic_kernel_passes_through_the_samples_and_overshoots_bilinear_does_not():
    x = (noise(6, 6) > 0).double()
    for size in (11, 16):  # with aligned corners every other, or third, output is a sample
        step = (size - 1) // 5
        assert torch.allclose(upsample_bicubic(x, size, True)[::step, ::step], x, rtol=0, atol=1e-14)
    wide = upsample_bicubic(x, 24)
    assert wide.min() < -0.01
    assert wide.max() > 1.01
    assert 0 <= upsample_bilinear(x, 24).min() <= upsample_bilinear(x, 24).max() <= 1


@pytest.mark.parametrize("upsample", [upsample_bilinear, upsample_bicubic])
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_rounded_once_at_the_end(agrees_with, upsample, dtype):
    x = noise(2, 3, 5, 7, dtype=dtype)
    mode = "bilinear" if upsample is upsample_bilinear else "bicubic"
    theirs = F.interpolate(x.float(), (12, 13), mode=mode).to(dtype)
    ours = upsample(x, (12, 13))
    agrees_with(upsample, "torch.nn.functional.interpolate", ours, theirs, atol=0.02)
    assert ours.dtype == dtype
    assert torch.equal(ours, upsample(x.float(), (12, 13)).to(dtype))


@pytest.mark.parametrize("upsample", [upsample_bilinear, upsample_bicubic])
def test_interpolation_has_gradients_keeps_its_argument_and_takes_any_leading_axes(upsample):
    x = noise(3, 2, 3, 4)
    before = x.clone()
    assert torch.autograd.gradcheck(lambda x: upsample(x, (5, 3)), x.clone().requires_grad_())
    turned = x.transpose(-1, -2)
    assert torch.equal(upsample(turned, (5, 7)), upsample(turned.contiguous(), (5, 7)))
    assert torch.equal(upsample(x[0, 0], 6), upsample(x, 6)[0, 0])
    assert upsample(x[:0], 6).shape == (0, 2, 6, 6)
    assert torch.equal(x, before)


@pytest.mark.parametrize(("upsample", "reach"), [(upsample_bilinear, 1), (upsample_bicubic, 2)])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_value_that_is_no_number_spoils_its_neighborhood_only_as_in_torch(
    agrees_with, upsample, reach, value
):
    x = noise(9, 9)
    x[4, 4] = value
    ours = upsample(x, 18)
    mode = "bilinear" if reach == 1 else "bicubic"
    theirs = F.interpolate(x[None, None], 18, mode=mode)[0, 0]
    assert torch.equal(ours.isfinite(), theirs.isfinite())
    assert (~ours.isfinite()).sum() == (4 * reach) ** 2
    agrees_with(
        upsample, "torch.nn.functional.interpolate", ours[ours.isfinite()], theirs[ours.isfinite()], atol=1e-14
    )


@pytest.mark.parametrize("upsample", [upsample_bilinear, upsample_bicubic])
def test_interpolation_refuses_labels_and_empty_images(upsample):
    with pytest.raises(ValueError, match=r"^expected floating point, got torch\.int64$"):
        upsample(torch.zeros(3, 3).long(), 6)
    with pytest.raises(ValueError, match=r"^expected x \(\.\.\., H, W\) with pixels, got \(3, 0\)$"):
        upsample(torch.zeros(3, 0), 6)
    with pytest.raises(ValueError, match=r"^size must be one or two integers of at least 1, got 0$"):
        upsample(torch.zeros(3, 3), 0)


# --- pixel shuffle -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 18, 4, 5), (18, 4, 5), (0, 18, 4, 5), (2, 2, 9, 1, 1)])
def test_pixel_shuffle_is_that_of_torch_and_unshuffle_undoes_it(agrees_with, shape):
    x = noise(*shape)
    ours = pixel_shuffle(x, 3)
    agrees_with(pixel_shuffle, "torch.nn.PixelShuffle", ours, nn.PixelShuffle(3)(x))
    if x.numel():  # torch leaves an empty batch as it is
        agrees_with(
            pixel_unshuffle, "torch.nn.PixelUnshuffle", pixel_unshuffle(ours, 3), nn.PixelUnshuffle(3)(ours)
        )
    assert torch.equal(pixel_unshuffle(ours, 3), x)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_channel_c_r_r_plus_i_r_plus_j_goes_to_row_i_column_j(agrees_with, factor):
    x = noise(2 * factor**2, 3, 4)
    expected = np.zeros((2, 3 * factor, 4 * factor))
    for c, i, j in product(range(2), range(factor), range(factor)):
        expected[c, i::factor, j::factor] = x[c * factor**2 + i * factor + j]
    agrees_with(pixel_shuffle, "brute force: channel by channel", pixel_shuffle(x, factor), expected)
    back = pixel_unshuffle(torch.from_numpy(expected), factor)
    agrees_with(pixel_unshuffle, "brute force: channel by channel", back, x)


def test_the_order_is_crd_of_onnx_and_dcr_after_reordering_the_channels(agrees_with):
    x = noise(2, 12, 3, 4, dtype=torch.float32)
    theirs = onnx_runs("DepthToSpace", [x.numpy()], blocksize=2, mode="CRD")
    agrees_with(pixel_shuffle, "onnx.reference.ReferenceEvaluator", pixel_shuffle(x, 2), theirs)
    wide = noise(1, 18, 2, 3, dtype=torch.float32)
    theirs = onnx_runs("DepthToSpace", [wide[:, depth_to_space_order(2, 3)].numpy()], blocksize=3, mode="DCR")
    agrees_with(depth_to_space_order, "onnx.reference.ReferenceEvaluator", pixel_shuffle(wide, 3), theirs)
    order = depth_to_space_order(3, 2)
    theirs = onnx_runs("DepthToSpace", [x[:, order].numpy()], blocksize=2, mode="DCR")
    agrees_with(depth_to_space_order, "onnx.reference.ReferenceEvaluator", pixel_shuffle(x, 2), theirs)
    wrong = onnx_runs("DepthToSpace", [x.numpy()], blocksize=2, mode="DCR")
    assert (pixel_shuffle(x, 2).numpy() != wrong).mean() > 0.5
    assert order.sort().values.tolist() == list(range(12))


def test_with_one_channel_the_two_orders_are_the_same():
    x = noise(2, 4, 3, 4, dtype=torch.float32)
    assert depth_to_space_order(1, 2).tolist() == [0, 1, 2, 3]
    assert (onnx_runs("DepthToSpace", [x.numpy()], blocksize=2) == pixel_shuffle(x, 2).numpy()).all()


def test_shuffling_keeps_dtypes_strides_and_gradients():
    x = torch.arange(16, dtype=torch.uint8).reshape(4, 2, 2)
    assert pixel_shuffle(x, 2).dtype == torch.uint8
    turned = noise(2, 3, 4, 4).movedim(1, -1)
    assert torch.equal(pixel_shuffle(turned, 2), pixel_shuffle(turned.contiguous(), 2))
    assert torch.equal(pixel_unshuffle(turned[..., :2], 2), pixel_unshuffle(turned[..., :2].contiguous(), 2))
    assert torch.autograd.gradcheck(lambda x: pixel_shuffle(x, 2), noise(4, 2, 2).requires_grad_())
    assert torch.autograd.gradcheck(lambda x: pixel_unshuffle(x, 2), noise(1, 4, 2).requires_grad_())


@pytest.mark.parametrize(
    ("function", "shape", "factor", "message"),
    [
        (pixel_shuffle, (6, 2, 2), 3, r"^expected x \(\.\.\., C \* 9, H, W\), got \(6, 2, 2\)$"),
        (pixel_shuffle, (4, 4), 2, r"C \* 4, H, W\), got \(4, 4\)$"),
        (pixel_shuffle, (4, 4, 4), 0, "^factor must be at least 1, got 0$"),
        (
            pixel_unshuffle,
            (1, 3, 4),
            2,
            r"^expected x \(\.\.\., C, H, W\) with H and W multiples of 2, got \(1, 3, 4\)$",
        ),
        (pixel_unshuffle, (1, 4, 3), 2, r"multiples of 2, got \(1, 4, 3\)$"),
        (pixel_unshuffle, (4, 4), 2, r"multiples of 2, got \(4, 4\)$"),
        (pixel_unshuffle, (4, 4, 4), 0, "^factor must be at least 1, got 0$"),
    ],
)
def test_shuffling_refuses_shapes_that_do_not_divide(function, shape, factor, message):
    with pytest.raises(ValueError, match=message):
        function(torch.zeros(shape), factor)


@pytest.mark.parametrize(
    ("channels", "factor", "message"),
    [(0, 2, "^channels must be at least 1, got 0$"), (2, 0, "^factor must be at least 1, got 0$")],
)
def test_no_channels_have_no_order(channels, factor, message):
    with pytest.raises(ValueError, match=message):
        depth_to_space_order(channels, factor)


# --- transposed convolution ----------------------------------------------------------------------


@settings(max_examples=80)
@given(
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 4),
    st.integers(0, 4),
    st.integers(1, 4),
)
def test_the_size_is_that_of_the_layer_which_refuses_the_same(n, k, s, p, extra, d):
    x, weight = torch.zeros(1, 1, n), torch.zeros(1, 1, k)
    try:
        theirs = F.conv_transpose1d(x, weight, None, s, p, extra, 1, d).shape[2]
    except (RuntimeError, ValueError):
        theirs = 0
    if theirs < 1:
        with pytest.raises(ValueError, match=r"output_padding must be below|crops all of"):
            transposed_conv_output_size(n, k, s, p, extra, d)
    else:
        assert transposed_conv_output_size(n, k, s, p, extra, d) == theirs


def test_sizes_are_those_of_torch_over_a_grid_of_arguments(agrees_with):
    ours, theirs = [], []
    for n, k, s, d in product((1, 4, 7), (1, 3, 4), (1, 2, 3), (1, 2)):
        for p, extra in product((0, 1), range(max(s, d))):
            if (n - 1) * s - 2 * p + d * (k - 1) + extra + 1 < 1:
                continue
            layer = nn.ConvTranspose1d(1, 1, k, s, p, extra, dilation=d)
            with torch.no_grad():
                theirs.append(layer(torch.zeros(1, 1, n)).shape[2])
            ours.append(transposed_conv_output_size(n, k, s, p, extra, d))
    agrees_with(transposed_conv_output_size, "torch.nn.ConvTranspose1d", ours, theirs)
    assert transposed_conv_output_size(5, 3) == nn.ConvTranspose1d(1, 1, 3)(torch.zeros(1, 1, 5)).shape[2]


@pytest.mark.parametrize(("s", "d", "extra"), [(2, 1, 2), (2, 2, 2), (1, 1, 1), (3, 2, 3)])
def test_output_padding_must_be_below_stride_or_dilation(s, d, extra):
    message = f"^output_padding must be below stride {s} or dilation {d}, got {extra}$"
    with pytest.raises(ValueError, match=message):
        transposed_conv_output_size(5, 3, s, 0, extra, d)
    assert (
        transposed_conv_output_size(5, 3, s, 0, extra, extra + 1)
        == (
            F.conv_transpose1d(
                torch.zeros(1, 1, 5), torch.zeros(1, 1, 3), None, s, 0, extra, 1, extra + 1
            ).shape[2]
        )
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "^size must be at least 1, got 0$"),
        ({"kernel_size": 0}, "^kernel_size must be at least 1, got 0$"),
        ({"stride": 0}, "^stride must be at least 1, got 0$"),
        ({"dilation": 0}, "^dilation must be at least 1, got 0$"),
        ({"padding": -1}, "^padding must be at least 0, got -1$"),
        ({"output_padding": -1}, "^output_padding must be at least 0, got -1$"),
        ({"size": 1, "kernel_size": 2, "padding": 1}, "^padding 1 crops all of 2 samples$"),
    ],
)
def test_impossible_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        transposed_conv_output_size(**({"size": 4, "kernel_size": 3} | arguments))


LAYERS = [
    {},
    {"stride": 2},
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"stride": 3, "padding": 1, "output_padding": 2},
    {"stride": (2, 3), "padding": (1, 0), "output_padding": (0, 2), "dilation": (1, 2)},
    {"stride": 2, "dilation": 3, "output_padding": 2},
    {"stride": 1, "dilation": 2, "output_padding": 1, "padding": 0},
    {"groups": 2, "stride": 2},
    {"groups": 4, "stride": 2, "padding": 1, "dilation": 2},
]


@pytest.mark.parametrize("options", LAYERS)
@pytest.mark.parametrize(("kernel", "bias"), [((3, 3), True), ((2, 4), False), ((1, 1), True)])
def test_transposed_convolution_is_that_of_torch(agrees_with, options, kernel, bias):
    groups = options.get("groups", 1)
    x, weight = noise(2, 4, 5, 4), noise(4, 6 // groups if groups < 4 else 2, *kernel, seed=1)
    b = noise(weight.shape[1] * groups, seed=2) if bias else None
    try:
        theirs = F.conv_transpose2d(x, weight, b, **options)
    except RuntimeError:
        pytest.fail(f"torch refuses {options}")
    ours = transposed_conv2d(x, weight, b, **options)
    agrees_with(transposed_conv2d, "torch.nn.functional.conv_transpose2d", ours, theirs, atol=3e-14)
    one = x[:, :, :1, :1]
    if kernel == (3, 3):
        theirs = F.conv_transpose2d(one, weight, b, **options)
        ours = transposed_conv2d(one, weight, b, **options)
        agrees_with(transposed_conv2d, "torch.nn.functional.conv_transpose2d", ours, theirs, atol=3e-14)


def test_arguments_stand_in_torchs_order():
    x, weight, bias = noise(1, 2, 4, 4), noise(2, 2, 3, 3), noise(4)
    arguments = (x, weight, bias, 3, 1, 2, 2, 2)
    assert torch.allclose(transposed_conv2d(*arguments), F.conv_transpose2d(*arguments), rtol=0, atol=1e-14)


def test_it_is_the_layer_of_torch_and_the_operator_of_onnx(agrees_with):
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2).double()
    x = noise(2, 4, 5, 6)
    with torch.no_grad():
        theirs = layer(x)
        ours = transposed_conv2d(x, layer.weight, layer.bias, 2, 1, 1, 2)
    agrees_with(transposed_conv2d, "torch.nn.ConvTranspose2d", ours, theirs, atol=1e-14)
    x, weight = noise(1, 2, 4, 5, dtype=torch.float32), noise(2, 3, 3, 3, seed=1, dtype=torch.float32)
    for extra, pad in ((0, 0), (1, 1), (1, 0)):
        theirs = onnx_runs(
            "ConvTranspose",
            [x.numpy(), weight.numpy()],
            strides=[2, 2],
            pads=[pad] * 4,
            output_padding=[extra] * 2,
        )
        ours = transposed_conv2d(x, weight, None, 2, pad, extra)
        agrees_with(transposed_conv2d, "onnx.reference.ReferenceEvaluator", ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"), [(1, 0, 1, 1), (2, 1, 1, 1), (3, 1, 2, 2), (2, 0, 1, 2)]
)
def test_it_is_the_gradient_of_the_convolution_with_the_same_weight(
    agrees_with, stride, padding, dilation, groups
):
    image = noise(2, 4, 9, 8).requires_grad_()
    weight = noise(6, 4 // groups, 3, 3, seed=1)
    y = F.conv2d(image, weight, None, stride, padding, dilation, groups)
    upstream = noise(*y.shape, seed=2)
    (theirs,) = torch.autograd.grad(y, image, upstream)
    extra = [
        output_padding_for(n, m, 3, stride, padding, dilation)
        for n, m in zip(image.shape[2:], y.shape[2:], strict=True)
    ]
    ours = transposed_conv2d(upstream, weight, None, stride, padding, extra, groups, dilation)
    agrees_with(transposed_conv2d, "torch.autograd.grad", ours, theirs, atol=3e-14)


def test_it_adds_up_weighed_kernels(agrees_with):
    x, weight = noise(2, 3, 4, 5), noise(3, 2, 3, 2, seed=1)
    expected = np.zeros((2, 2, 3 * 2 + 3, 4 * 2 + 2))
    for b, c, i, j in product(range(2), range(3), range(4), range(5)):
        expected[b, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 2] += float(x[b, c, i, j]) * weight[c].numpy()
    ours = transposed_conv2d(x, weight, stride=2)
    agrees_with(transposed_conv2d, "brute force: one kernel per pixel", ours, expected, atol=1e-14)


def test_without_stride_it_is_a_true_convolution(agrees_with):
    x, weight = noise(1, 1, 5, 6), noise(1, 1, 3, 4, seed=1)
    theirs = scipy.signal.convolve2d(x[0, 0].numpy(), weight[0, 0].numpy(), mode="full")
    agrees_with(
        transposed_conv2d, "scipy.signal.convolve2d", transposed_conv2d(x, weight)[0, 0], theirs, atol=1e-14
    )


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_other_precisions_agree_to_their_rounding(agrees_with, dtype):
    x, weight = noise(2, 4, 5, 5, dtype=dtype), noise(4, 3, 3, 3, seed=1, dtype=dtype)
    theirs = F.conv_transpose2d(x.double(), weight.double(), stride=2)
    ours = transposed_conv2d(x, weight, stride=2)
    atol = {torch.float32: 1e-5, torch.float16: 0.05, torch.bfloat16: 0.3}[dtype]
    agrees_with(transposed_conv2d, "torch.nn.functional.conv_transpose2d", ours, theirs, atol=atol)
    assert ours.dtype == dtype


def test_transposed_convolution_takes_an_empty_batch_strides_and_has_gradients():
    x, weight, bias = noise(2, 2, 3, 3), noise(2, 2, 3, 2, seed=1), noise(2, seed=2)
    assert transposed_conv2d(x[:0], weight).shape == (0, 2, 5, 4)
    turned = x.transpose(2, 3)
    same = transposed_conv2d(turned.contiguous(), weight)
    assert torch.equal(transposed_conv2d(turned, weight), same)
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    assert torch.autograd.gradcheck(lambda *t: transposed_conv2d(*t, 2, 1, 1), leaves)


@pytest.mark.parametrize(
    ("x", "weight", "options", "message"),
    [
        (
            (1, 2, 4, 4),
            (3, 2, 3, 3),
            {},
            r"^expected x \(B, C, H, W\), weight \(C, O / groups, KH, KW\) and bias \(O,\), "
            r"got \(1, 2, 4, 4\), \(3, 2, 3, 3\) and None with groups 1$",
        ),
        ((2, 4, 4), (2, 2, 3, 3), {}, r"got \(2, 4, 4\), \(2, 2, 3, 3\) and None with groups 1$"),
        ((1, 2, 4, 4), (2, 2, 3), {}, r"got \(1, 2, 4, 4\), \(2, 2, 3\) and None"),
        ((1, 3, 4, 4), (3, 2, 3, 3), {"groups": 2}, r"with groups 2$"),
        ((1, 2, 4, 4), (2, 3, 3, 3), {"bias": torch.zeros(2)}, r"and \(2,\) with groups 1$"),
        ((1, 2, 4, 4), (2, 3, 3, 3), {"bias": torch.zeros(3), "groups": 2}, r"and \(3,\) with groups 2$"),
        ((1, 2, 4, 4), (2, 3, 3, 3), {"groups": 0}, "^groups must be at least 1, got 0$"),
        (
            (1, 2, 4, 4),
            (2, 3, 3, 3),
            {"stride": 0},
            "^stride must be one or two integers of at least 1, got 0$",
        ),
        (
            (1, 2, 4, 4),
            (2, 3, 3, 3),
            {"padding": -1},
            "^padding must be one or two integers of at least 0, got -1$",
        ),
        (
            (1, 2, 4, 4),
            (2, 3, 3, 3),
            {"dilation": 0},
            "^dilation must be one or two integers of at least 1, got 0$",
        ),
        (
            (1, 2, 4, 4),
            (2, 3, 3, 3),
            {"output_padding": -1},
            "^output_padding must be one or two integers of at least 0, got -1$",
        ),
        (
            (1, 2, 4, 4),
            (2, 3, 3, 3),
            {"stride": 2, "output_padding": 2},
            "^output_padding must be below stride 2",
        ),
        ((1, 2, 1, 4), (2, 3, 3, 3), {"padding": (2, 0)}, "^padding 2 crops all of 3 samples$"),
        ((1, 2, 4, 1), (2, 3, 3, 3), {"padding": (0, 2)}, "^padding 2 crops all of 3 samples$"),
    ],
)
def test_transposed_convolution_refuses_what_does_not_fit(x, weight, options, message):
    with pytest.raises(ValueError, match=message):
        transposed_conv2d(torch.zeros(x), torch.zeros(weight), **options)


@pytest.mark.parametrize(("s", "p"), [(1, 0), (2, 1), (3, 0), (2, 2), (1, 2)])
def test_a_matrix_does_what_the_convolution_does_and_its_transpose_the_transposed(agrees_with, s, p):
    weight, x = noise(3, 2, 3, 4), noise(2, 2, 6, 7, seed=1)
    matrix = conv_matrix(weight, (6, 7), s, p)
    theirs = F.conv2d(x, weight, stride=s, padding=p)
    ours = (x.flatten(1) @ matrix.T).reshape(theirs.shape)
    agrees_with(conv_matrix, "torch.nn.functional.conv2d", ours, theirs, atol=1e-14)
    y = noise(*theirs.shape, seed=2)
    extra = [
        output_padding_for(n, m, k, s, p) for n, m, k in zip((6, 7), theirs.shape[2:], (3, 4), strict=True)
    ]
    theirs = F.conv_transpose2d(y, weight, None, s, p, extra)
    ours = (y.flatten(1) @ matrix).reshape(x.shape)
    agrees_with(conv_matrix, "torch.nn.functional.conv_transpose2d", ours, theirs, atol=2e-14)


def test_a_kernel_without_channels_is_one_channel_and_a_number_a_square(agrees_with):
    kernel, x = noise(3, 3), noise(5, 5, seed=1)
    theirs = scipy.signal.correlate2d(x.numpy(), kernel.numpy(), mode="valid").flatten()
    ours = conv_matrix(kernel, 5) @ x.flatten()
    agrees_with(conv_matrix, "scipy.signal.correlate2d", ours, theirs, atol=1e-14)
    assert conv_matrix(kernel.float(), 5).dtype == torch.float32
    assert torch.autograd.gradcheck(lambda w: conv_matrix(w, (3, 4), 2, 1), kernel.requires_grad_())


def test_the_transpose_of_the_matrix_is_not_its_inverse():
    kernel, x = noise(3, 3), noise(6, 6, seed=1)
    matrix = conv_matrix(kernel, 6, stride=2, padding=1)
    again = matrix.T @ (matrix @ x.flatten())
    assert (again - x.flatten()).norm() > 0.5 * x.norm()
    assert torch.linalg.matrix_rank(matrix) == 9  # 36 unknowns: no inverse exists


@pytest.mark.parametrize(
    ("shape", "size", "options", "message"),
    [
        (
            (3,),
            5,
            {},
            r"^expected weight \(O, C, KH, KW\) that fits into the padded input, got \(3,\) and \(5, 5\)$",
        ),
        ((6, 3), 5, {}, r"got \(1, 1, 6, 3\) and \(5, 5\)$"),
        ((3, 8), 5, {"padding": 1}, r"got \(1, 1, 3, 8\) and \(7, 7\)$"),
        ((3, 3), 0, {}, "^input_size must be one or two integers of at least 1, got 0$"),
        ((3, 3), 5, {"stride": 0}, "^stride must be at least 1, got 0$"),
        ((3, 3), 5, {"padding": -1}, "^padding must be at least 0, got -1$"),
    ],
)
def test_a_matrix_needs_a_kernel_that_fits(shape, size, options, message):
    with pytest.raises(ValueError, match=message):
        conv_matrix(torch.zeros(shape), size, **options)
    fitting = conv_matrix(torch.ones(7, 5), 5, padding=1)  # 7 rows of padded 7: just fits
    assert fitting.shape == (3, 25)
    assert conv_matrix(torch.ones(5, 2), (5, 3)).shape == (2, 15)
    assert conv_matrix(torch.ones(2, 5), (3, 5)).shape == (2, 15)


# --- the bilinear kernel -------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_fcns_weights_interpolate_inside(agrees_with, factor, groups):
    x = noise(2, 4, 6, 7, dtype=torch.float32)
    weight = bilinear_kernel(4, factor, groups)
    ours = F.conv_transpose2d(x, weight, None, factor, factor // 2, groups=groups)
    theirs = F.interpolate(x, scale_factor=factor, mode="bilinear")
    assert ours.shape == theirs.shape
    inside = (..., slice(factor, -factor), slice(factor, -factor))
    agrees_with(bilinear_kernel, "torch.nn.functional.interpolate", ours[inside], theirs[inside], atol=2e-6)
    if factor > 1:  # outside are zeros where interpolation repeats the border
        ones = F.conv_transpose2d(
            torch.ones(1, 1, 6, 6), bilinear_kernel(1, factor), None, factor, factor // 2
        )
        assert ones[0, 0, 0, 0] < 0.8
        assert ones[0, 0, factor:-factor, factor:-factor].sub(1).abs().max() < 1e-6


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
def test_fcns_weights_are_those_of_the_released_code(agrees_with, factor):
    size = (factor * 2) - factor % 2
    center = factor - 1 if size % 2 == 1 else factor - 0.5
    og = np.ogrid[:size, :size]
    filt = (1 - abs(og[0] - center) / factor) * (1 - abs(og[1] - center) / factor)
    theirs = np.zeros((3, 3, size, size))
    theirs[range(3), range(3)] = filt
    agrees_with(
        bilinear_kernel,
        "closed form: tent centered on the kernel",
        bilinear_kernel(3, factor),
        theirs,
        atol=1e-7,
    )


def test_every_channel_maps_to_itself_and_the_channels_must_divide():
    weight = bilinear_kernel(6, 2, groups=3)
    assert weight.shape == (6, 2, 4, 4)
    assert (weight.sum((2, 3)) != 0).tolist() == [[True, False], [False, True]] * 3
    with pytest.raises(ValueError, match=r"^groups must divide 6 channels, got 4$"):
        bilinear_kernel(6, 2, groups=4)
    for arguments, name in (((0, 2), "channels"), ((2, 0), "factor"), ((2, 2, 0), "groups")):
        with pytest.raises(ValueError, match=f"^{name} must be at least 1, got 0$"):
            bilinear_kernel(*arguments)


# --- the checkerboard ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "s", "p"), [(3, 2, 0), (3, 2, 1), (4, 2, 1), (5, 3, 0), (2, 3, 0), (1, 1, 0), (6, 3, 2)]
)
def test_overlaps_are_what_a_kernel_of_ones_gives(agrees_with, k, s, p):
    ones = torch.ones(1, 1, 5, 5)
    theirs = F.conv_transpose2d(ones, torch.ones(1, 1, k, k), stride=s, padding=p)[0, 0].long()
    agrees_with(overlap_map, "torch.nn.functional.conv_transpose2d", overlap_map(k, s, 5, p), theirs)
    counted = torch.zeros(4 * s + k, dtype=torch.long)
    for i, tap in product(range(5), range(k)):
        counted[i * s + tap] += 1
    counted = counted[p : len(counted) - p]
    agrees_with(
        overlap_map, "brute force: pairs counted", overlap_map(k, s, 5, p), torch.outer(counted, counted)
    )


def test_the_gradient_of_a_strided_convolution_has_the_same_map(agrees_with):
    image = torch.zeros(1, 1, 11, 11, requires_grad=True)
    F.conv2d(image, torch.ones(1, 1, 3, 3), stride=2).sum().backward()
    agrees_with(overlap_map, "torch.autograd.grad", overlap_map(3, 2, 5), image.grad[0, 0].long())


def test_overlaps_are_even_inside_if_and_only_if_the_stride_divides_the_kernel():
    for k, s in product(range(1, 9), range(1, 5)):
        inside = overlap_map(k, s, 20)[k:-k, k:-k]
        assert (inside.min() == inside.max()).item() is (k % s == 0)


def test_overlaps_of_nothing_are_refused():
    for arguments, message in (
        ((0, 1, 4), "^kernel_size must be at least 1, got 0$"),
        ((3, 0, 4), "^stride must be at least 1, got 0$"),
        ((3, 2, 0), "^size must be at least 1, got 0$"),
        ((3, 2, 1, 2), "^padding 2 crops all of 3 samples$"),
    ):
        with pytest.raises(ValueError, match=message):
            overlap_map(*arguments)


@pytest.mark.parametrize(("height", "width", "period"), [(12, 12, 2), (12, 18, 3), (16, 24, 4), (6, 8, 2)])
def test_the_peak_is_read_from_the_full_spectrum(agrees_with, height, width, period):
    x = noise(3, 2, height, width).numpy()
    power = np.mean([np.abs(np.fft.fft2(image)) ** 2 for image in x.reshape(-1, height, width)], axis=0)
    grid, beside = [], []
    for u, v in product(range(period), repeat=2):
        if (u, v) == (0, 0):
            continue
        row, column = u * height // period, v * width // period
        grid.append(power[row, column])
        around = [(i, j) for i, j in product((-1, 0, 1), repeat=2) if (i, j) != (0, 0)]
        beside.append(np.mean([power[(row + i) % height, (column + j) % width] for i, j in around]))
    ours = checkerboard_peak(torch.from_numpy(x), period)
    agrees_with(checkerboard_peak, "numpy.fft.fft2", ours, np.mean(grid) / np.mean(beside), atol=1e-14)
    assert ours.dtype == torch.float64


def test_the_peak_holds_the_differences_between_the_phases_means(agrees_with):
    """Power at the grid's frequencies is that of the image of phase means: Parseval over one period."""
    x, period = noise(24, 24), 3
    means = x.reshape(8, 3, 8, 3).mean((0, 2))
    on_grid = (means - means.mean()).square().sum() * 9 * 64**2 / 8
    power = np.abs(np.fft.fft2(x.numpy())) ** 2
    beside = np.mean(
        [
            power[(8 * u + i) % 24, (8 * v + j) % 24]
            for u, v, i, j in product(range(3), range(3), (-1, 0, 1), (-1, 0, 1))
            if (u, v) != (0, 0) and (i, j) != (0, 0)
        ]
    )
    ours = checkerboard_peak(x, period)
    agrees_with(
        checkerboard_peak,
        "closed form: variance of the phase means",
        ours,
        float(on_grid) / beside,
        atol=3e-14,
    )


def test_noise_has_no_peak_a_grid_has_one_only_at_its_period_and_brightness_none():
    x = noise(200, 24, 24)
    assert 0.8 < checkerboard_peak(x, 2) < 1.25
    assert 0.8 < checkerboard_peak(x + 100, 2) < 1.25
    marked = x.clone()
    marked[:, ::3, ::3] += 0.5
    assert checkerboard_peak(marked, 3) > 2
    assert 0.7 < checkerboard_peak(marked, 2) < 1.4
    assert checkerboard_peak(x.half(), 2) == pytest.approx(float(checkerboard_peak(x, 2)), rel=0.01)


@pytest.mark.parametrize(
    ("shape", "period", "message"),
    [
        ((12, 12), 1, "^period must be at least 2, got 1$"),
        ((12, 13), 2, r"^H and W must be multiples of 2, 3 or more times, got \(12, 13\)$"),
        ((13, 12), 2, r"got \(13, 12\)$"),
        ((4, 12), 2, r"got \(4, 12\)$"),
        ((12, 6), 3, r"^H and W must be multiples of 3, 3 or more times, got \(12, 6\)$"),
        ((12,), 2, r"^expected x \(\.\.\., H, W\) with pixels, got \(12,\)$"),
    ],
)
def test_a_spectrum_without_room_for_neighbors_is_refused(shape, period, message):
    with pytest.raises(ValueError, match=message):
        checkerboard_peak(torch.zeros(shape), period)


# --- unpooling -----------------------------------------------------------------------------------

POOLS = [
    ((8, 6), 2, None, 0),
    ((9, 9), 3, 3, 0),
    ((7, 9), 3, 2, 1),
    ((8, 9), (2, 3), (2, 3), 0),
    ((5, 5), 3, 1, 0),
    ((4, 4), 4, None, 0),
]


@pytest.mark.parametrize(("size", "k", "s", "p"), POOLS)
@pytest.mark.parametrize("shape", [(2, 3), (3,), (1, 1)])
def test_unpooling_is_that_of_torch(agrees_with, shape, size, k, s, p):
    x = noise(*shape, *size)
    pooled, indices = F.max_pool2d(x, k, s, p, return_indices=True)
    theirs = nn.MaxUnpool2d(k, s, p)(pooled, indices, output_size=size)
    ours = max_unpool2d(pooled, indices, k, s, x.shape, padding=p)
    agrees_with(max_unpool2d, "torch.nn.MaxUnpool2d", ours, theirs)
    agrees_with(
        max_unpool2d, "torch.nn.MaxUnpool2d", max_unpool2d(pooled, indices, k, s, size, padding=p), theirs
    )
    kept = (theirs != 0).flatten()
    assert torch.equal(ours.flatten()[kept], x.flatten()[kept])


@pytest.mark.parametrize(
    ("size", "k", "s", "p"), [((8, 6), 2, None, 0), ((9, 9), 3, 3, 0), ((9, 7), 3, 2, 1)]
)
def test_the_default_size_is_that_of_torch(agrees_with, size, k, s, p):
    pooled, indices = F.max_pool2d(noise(2, 3, *size), k, s, p, return_indices=True)
    theirs = nn.MaxUnpool2d(k, s, p)(pooled, indices)
    agrees_with(max_unpool2d, "torch.nn.MaxUnpool2d", max_unpool2d(pooled, indices, k, s, padding=p), theirs)


def test_values_return_to_the_argmax_and_zeros_fill_the_rest(agrees_with):
    x = noise(2, 4, 6)
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    expected = np.zeros((2, 4, 6))
    for c, i, j in product(range(2), range(2), range(3)):
        window = x[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].numpy()
        row, column = np.unravel_index(window.argmax(), (2, 2))
        expected[c, 2 * i + row, 2 * j + column] = window.max()
    agrees_with(max_unpool2d, "brute force: window by window", max_unpool2d(pooled, indices, 2), expected)


def test_an_odd_image_needs_its_size_and_where_windows_overlap_nothing_is_added_up():
    x = noise(1, 1, 5, 5)
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    with pytest.raises(ValueError, match=r"^indices must lie in 0 to 15, got "):
        max_unpool2d(pooled, indices, 2)
    whole = max_unpool2d(pooled, indices, 2, output_size=(5, 5))
    assert whole.shape == (1, 1, 5, 5)
    assert set(whole[whole != 0].tolist()) <= set(x.flatten().tolist())
    peak = torch.zeros(1, 1, 3, 3)
    peak[..., 1, 1] = 7
    pooled, indices = F.max_pool2d(peak, 2, 1, return_indices=True)
    assert pooled.tolist() == [[[[7, 7], [7, 7]]]]
    assert torch.equal(max_unpool2d(pooled, indices, 2, 1), peak)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32])
def test_unpooling_keeps_dtypes_and_arguments_takes_strides_and_an_empty_batch(dtype):
    x, indices = noise(3, 2, 4, 3).mul(9).to(dtype).transpose(2, 3), torch.arange(12).expand(3, 2, 12)
    indices = (indices * 4 + 1).reshape(3, 2, 3, 4)
    before = x.clone()
    ours = max_unpool2d(x, indices, 2)
    assert (ours.dtype, ours.shape) == (dtype, (3, 2, 6, 8))
    assert torch.equal(ours.flatten(2)[..., 1::4], x.flatten(2))
    assert torch.equal(x, before)
    assert max_unpool2d(x[:0], indices[:0], 2).shape == (0, 2, 6, 8)
    same = torch.arange(12).reshape(3, 4).expand(x.shape)
    assert torch.equal(max_unpool2d(x, same, 1), x)


def test_the_gradient_of_unpooling_picks_the_same_pixels():
    pooled, indices = F.max_pool2d(noise(2, 4, 6), 2, return_indices=True)
    assert torch.autograd.gradcheck(lambda x: max_unpool2d(x, indices, 2), pooled.requires_grad_())


@pytest.mark.parametrize(
    ("x", "indices", "options", "message"),
    [
        (
            torch.zeros(2, 2),
            torch.zeros(2, 3).long(),
            {},
            r"^expected x and indices \(\.\.\., H, W\) of one shape, got \(2, 2\) and \(2, 3\)$",
        ),
        (torch.zeros(2), torch.zeros(2).long(), {}, r"of one shape, got \(2,\) and \(2,\)$"),
        (torch.zeros(2, 2), torch.full((2, 2), 16), {}, "^indices must lie in 0 to 15, got 16 to 16$"),
        (
            torch.zeros(2, 2),
            torch.tensor([[0, 1], [2, -1]]),
            {},
            "^indices must lie in 0 to 15, got -1 to 2$",
        ),
        (
            torch.zeros(2, 2),
            torch.zeros(2, 2).long(),
            {"output_size": (6, 4)},
            r"^output_size must be less than a stride \(2, 2\) off \[4, 4\], got \[6, 4\]$",
        ),
        (torch.zeros(2, 2), torch.zeros(2, 2).long(), {"output_size": (4, 2)}, r"got \[4, 2\]$"),
        (torch.zeros(2, 2), torch.zeros(2, 2).long(), {"output_size": (4,)}, r"got \[4\]$"),
        (
            torch.zeros(2, 2),
            torch.zeros(2, 2).long(),
            {"kernel_size": 0},
            "^kernel_size must be one or two .* got 0$",
        ),
        (
            torch.zeros(2, 2),
            torch.zeros(2, 2).long(),
            {"stride": 0},
            "^stride must be one or two .* 1, got 0$",
        ),
        (
            torch.zeros(2, 2),
            torch.zeros(2, 2).long(),
            {"padding": -1},
            "^padding must be one or two .* 0, got -1$",
        ),
    ],
)
def test_unpooling_refuses_indices_and_sizes_that_do_not_fit(x, indices, options, message):
    with pytest.raises(ValueError, match=message):
        max_unpool2d(x, indices, **({"kernel_size": 2} | options))
    last = max_unpool2d(torch.ones(2, 2), torch.tensor([[0, 3], [14, 15]]), 2)
    assert last.flatten().nonzero().flatten().tolist() == [0, 3, 14, 15]


# --- layers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_icnr_starts_as_nearest_upsampling_after_a_convolution(agrees_with, factor):
    weight = torch.empty(2 * factor**2, 3, 3, 3)
    assert icnr_(weight, factor, lambda w: w.copy_(noise(*w.shape))) is weight
    x = noise(2, 3, 5, 6, dtype=torch.float32)
    ours = pixel_shuffle(F.conv2d(x, weight, padding=1), factor)
    low = F.conv2d(x, noise(2, 3, 3, 3, dtype=torch.float32), padding=1)
    theirs = F.interpolate(low, scale_factor=factor, mode="nearest")
    agrees_with(icnr_, "torch.nn.functional.interpolate", ours, theirs, atol=3e-5)


def test_icnr_draws_one_kernel_a_channel_and_passes_on_leaves():
    layer = nn.Conv2d(5, 12, 3)
    torch.manual_seed(0)
    icnr_(layer.weight, 2)
    assert layer.weight.requires_grad
    kernels = layer.weight.detach()
    assert torch.equal(kernels, kernels[::4].repeat_interleave(4, 0))
    assert len(kernels[:, 0, 0, 0].unique()) == 3
    torch.manual_seed(0)
    assert torch.equal(kernels[::4], nn.init.kaiming_normal_(torch.empty(3, 5, 3, 3)))
    half = icnr_(torch.empty(4, 1, 1, 1, dtype=torch.float16), 2, nn.init.ones_)
    assert half.tolist() == [[[[1]]]] * 4


@pytest.mark.parametrize(
    ("shape", "factor", "message"),
    [
        ((6, 1, 3, 3), 3, r"^expected weight \(C \* 9, I, KH, KW\), got \(6, 1, 3, 3\)$"),
        ((4, 3, 3), 2, r"got \(4, 3, 3\)$"),
        ((4, 1, 3, 3), 0, "^factor must be at least 1, got 0$"),
    ],
)
def test_icnr_refuses_other_shapes(shape, factor, message):
    with pytest.raises(ValueError, match=message):
        icnr_(torch.zeros(shape), factor)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize(("factor", "kernel"), [(2, 3), (3, 1), (1, 5)])
def test_resize_convolution_is_upsample_then_conv(agrees_with, mode, factor, kernel):
    layer = ResizeConv(4, 3, factor, kernel, mode)
    theirs = nn.Sequential(
        nn.Upsample(scale_factor=factor, mode=mode), nn.Conv2d(4, 3, kernel, padding=kernel // 2)
    )
    theirs[1].load_state_dict(layer.conv.state_dict())
    x = noise(2, 4, 5, 6, dtype=torch.float32)
    with torch.no_grad():
        agrees_with(ResizeConv, "torch.nn.Upsample", layer(x), theirs(x), atol=2e-6)
        assert torch.allclose(layer(x[0]), layer(x)[0], rtol=0, atol=1e-6)  # without a batch axis
    assert (layer.conv.weight.shape, layer.conv.bias.shape) == ((3, 4, kernel, kernel), (3,))


def test_resize_convolution_is_nearest_with_a_kernel_of_3_unless_told():
    layer = ResizeConv(2, 3, 2)
    assert (layer.mode, layer.conv.kernel_size) == ("nearest", (3, 3))
    x = noise(1, 2, 3, 3, dtype=torch.float32).requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    for options, message in (
        ({"mode": "cubic"}, "^mode must be nearest or bilinear, got 'cubic'$"),
        ({"kernel_size": 4}, "^kernel_size must be odd, got 4$"),
        ({"factor": 0}, "^factor must be at least 1, got 0$"),
    ):
        with pytest.raises(ValueError, match=message):
            ResizeConv(**({"in_channels": 2, "out_channels": 3, "factor": 2} | options))


@pytest.mark.parametrize(("factor", "kernel"), [(2, 3), (3, 1), (1, 5)])
def test_sub_pixel_convolution_is_conv_then_pixel_shuffle(agrees_with, factor, kernel):
    layer = SubPixelConv(4, 3, factor, kernel, icnr=False)
    theirs = nn.Sequential(nn.Conv2d(4, 3 * factor**2, kernel, padding=kernel // 2), nn.PixelShuffle(factor))
    theirs[0].load_state_dict(layer.conv.state_dict())
    x = noise(2, 4, 5, 6, dtype=torch.float32)
    with torch.no_grad():
        agrees_with(SubPixelConv, "torch.nn.PixelShuffle", layer(x), theirs(x), atol=2e-6)
    assert torch.equal(layer.conv.bias[0], theirs[0].bias[0])
    assert layer.conv.bias.abs().min() > 0


def test_sub_pixel_convolution_starts_without_a_checkerboard_unless_told():
    flat = torch.ones(1, 4, 6, 6)
    torch.manual_seed(0)
    with torch.no_grad():
        inside = SubPixelConv(4, 3, 2)(flat)[..., 2:-2, 2:-2]
        plain = SubPixelConv(4, 3, 2, icnr=False)(flat)[..., 2:-2, 2:-2]
    assert (inside - inside[..., :1, :1]).abs().max() == 0
    assert (plain - plain[..., :1, :1]).abs().max() > 0.1
    layer = SubPixelConv(4, 3, 2)
    assert layer.conv.kernel_size == (3, 3)
    assert layer.conv.bias.tolist() == [0] * 12
    for options, message in (
        ({"kernel_size": 2}, "^kernel_size must be odd, got 2$"),
        ({"factor": 0}, "^factor must be at least 1, got 0$"),
        ({"factor": 0, "icnr": False}, "^factor must be at least 1, got 0$"),
    ):
        with pytest.raises(ValueError, match=message):
            SubPixelConv(**({"in_channels": 2, "out_channels": 3, "factor": 2} | options))


# --- solutions of the exercises ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "s", "p", "d"), [(3, 2, 1, 1), (3, 3, 0, 1), (5, 2, 1, 2), (4, 4, 1, 1), (1, 1, 0, 1)]
)
def test_output_padding_recovers_the_size_before_the_convolution(agrees_with, k, s, p, d):
    ours, theirs = [], []
    for target in range(d * (k - 1) + 1, 20):
        small = F.conv1d(torch.zeros(1, 1, target), torch.zeros(1, 1, k), None, s, p, d)
        extra = output_padding_for(target, small.shape[2], k, s, p, d)
        assert 0 <= extra < s
        layer = nn.ConvTranspose1d(1, 1, k, s, p, dilation=d)
        ours.append(extra)
        theirs.append(layer._output_padding(small, [target], [s], [p], [k], 1, [d])[0])
    agrees_with(output_padding_for, "torch.nn.ConvTranspose1d", ours, theirs)


def test_a_target_out_of_reach_is_refused():
    assert output_padding_for(7, 5, 3) == 0
    for target in (6, 9):
        with pytest.raises(ValueError, match=f"^outputs go from 7 to 8, got target {target}$"):
            output_padding_for(target, 4, 3, stride=2, padding=1)
    assert output_padding_for(7, 1, 3, stride=1, dilation=3) == 0
    assert output_padding_for(9, 1, 3, stride=2, dilation=3) == 2
    with pytest.raises(ValueError, match=r"^outputs go from 7 to 9, got target 10$"):
        output_padding_for(10, 1, 3, stride=2, dilation=3)


@pytest.mark.parametrize(("s", "p"), [(1, 0), (2, 0), (2, 1), (3, 2), (1, 1)])
def test_spreading_and_flipping_is_transposed_convolution(agrees_with, s, p):
    x, weight = noise(2, 3, 4, 5), noise(3, 2, 3, 4, seed=1)
    theirs = F.conv_transpose2d(x, weight, stride=s, padding=p)
    ours = transposed_conv2d_by_zeros(x, weight, s, p)
    agrees_with(transposed_conv2d_by_zeros, "torch.nn.functional.conv_transpose2d", ours, theirs, atol=1e-14)
    if (s, p) == (1, 0):
        assert torch.equal(transposed_conv2d_by_zeros(x, weight), ours)
    assert torch.autograd.gradcheck(
        lambda x: transposed_conv2d_by_zeros(x, weight, s, p), x[:1, :, :3, :2].clone().requires_grad_()
    )
    assert torch.equal(x, noise(2, 3, 4, 5))


@pytest.mark.parametrize(
    ("kernel", "s", "p", "message"),
    [
        ((3, 2), 2, 2, r"^padding must be below the kernel \(3, 2\), got 2$"),
        ((2, 3), 2, 2, r"^padding must be below the kernel \(2, 3\), got 2$"),
        ((3, 3), 0, 0, "^stride must be at least 1, got 0$"),
        ((3, 3), 1, -1, "^padding must be at least 0, got -1$"),
    ],
)
def test_spreading_refuses_bad_sizes(kernel, s, p, message):
    with pytest.raises(ValueError, match=message):
        transposed_conv2d_by_zeros(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, *kernel), s, p)


@pytest.mark.parametrize(("factor", "m"), [(2, 1), (2, 2), (3, 1), (3, 2), (1, 3)])
def test_sub_pixel_convolution_can_be_any_transposed_one(agrees_with, factor, m):
    x, weight = noise(2, 3, 4, 5), noise(3, 2, factor * m, factor * m, seed=1)
    theirs = F.conv_transpose2d(x, weight, stride=factor)
    small = sub_pixel_weight(weight, factor)
    assert small.shape == (2 * factor**2, 3, m, m)
    ours = nn.PixelShuffle(factor)(F.conv2d(x, small, padding=m - 1))
    agrees_with(sub_pixel_weight, "torch.nn.functional.conv_transpose2d", ours, theirs, atol=1e-14)


@pytest.mark.parametrize(
    ("shape", "factor", "message"),
    [
        (
            (1, 1, 3, 4),
            2,
            r"^expected weight \(I, O, KH, KW\) with sides that are multiples of 2, got \(1, 1, 3, 4\)$",
        ),
        ((1, 1, 4, 3), 2, r"got \(1, 1, 4, 3\)$"),
        ((1, 4, 4), 2, r"got \(1, 4, 4\)$"),
        ((1, 1, 4, 4), 0, "^factor must be at least 1, got 0$"),
    ],
)
def test_only_whole_multiples_become_sub_pixels(shape, factor, message):
    with pytest.raises(ValueError, match=message):
        sub_pixel_weight(torch.zeros(shape), factor)


@pytest.mark.parametrize(("factor", "k"), [(2, 3), (3, 3), (2, 1), (4, 5), (1, 3)])
def test_resize_convolution_is_a_transposed_one_with_a_blurred_kernel(agrees_with, factor, k):
    x, weight = noise(2, 3, 4, 5), noise(2, 3, k, k, seed=1)
    theirs = F.conv2d(nn.Upsample(scale_factor=factor)(x), weight, padding=k // 2)
    blurred = resize_conv_weight(weight, factor)
    assert blurred.shape == (3, 2, k + factor - 1, k + factor - 1)
    ours = F.conv_transpose2d(x, blurred, stride=factor, padding=k // 2)
    agrees_with(resize_conv_weight, "torch.nn.functional.conv2d", ours, theirs, atol=2e-14)
    assert torch.autograd.gradcheck(
        lambda w: resize_conv_weight(w, factor), weight[:1, :1].clone().requires_grad_()
    )
    assert torch.equal(weight, noise(2, 3, k, k, seed=1))
    tall = noise(2, 3, k + 2, k, seed=1)
    theirs = F.conv2d(nn.Upsample(scale_factor=factor)(x), tall, padding=(k // 2 + 1, k // 2))
    ours = F.conv_transpose2d(x, resize_conv_weight(tall, factor), stride=factor, padding=(k // 2 + 1, k // 2))
    agrees_with(resize_conv_weight, "torch.nn.functional.conv2d", ours, theirs, atol=5e-14)


def test_a_blurred_kernel_needs_four_axes_and_a_factor():
    with pytest.raises(ValueError, match=r"^expected weight \(O, I, KH, KW\), got \(3, 3\)$"):
        resize_conv_weight(torch.zeros(3, 3), 2)
    with pytest.raises(ValueError, match=r"^factor must be at least 1, got 0$"):
        resize_conv_weight(torch.zeros(1, 1, 3, 3), 0)
