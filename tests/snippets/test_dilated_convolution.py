"""What the page on dilated convolution claims, against references that share no code with it."""

from collections import Counter
from itertools import pairwise, permutations, product
from math import comb, prod

import numpy as np
import onnx
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from snippets.dilated_convolution import (
    ASPP,
    CausalConv1d,
    best_rates,
    causal_step,
    contribution_map,
    coverage,
    dilate_kernel,
    dilated_conv1d,
    dilated_conv2d,
    effective_kernel_size,
    has_gridding,
    hdc_max_distance,
    is_gap_free,
    live_taps,
    output_size,
    receptive_field,
    same_padding,
    satisfies_hdc,
    smallest_depth,
    space_to_batch_conv,
)

STACKS = [rates for depth in (2, 3, 4) for rates in product(range(1, 8), repeat=depth)]


def randn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def offsets_seen(kernel_size, dilations):
    """By definition: every sum of one tap's offset per layer."""
    taps = [[tap * rate for tap in range(kernel_size)] for rate in dilations]
    return {sum(path) for path in product(*taps)}


def gradient_support(layers):
    """First and last input that one output of a real 1-D stack with positive weights reacts to."""
    x = torch.zeros(1, 1, 400, dtype=torch.float64, requires_grad=True)
    y = x
    for kernel_size, stride, dilation in layers:
        y = F.conv1d(y, torch.ones(1, 1, kernel_size).double(), stride=stride, dilation=dilation)
    y[0, 0, y.shape[2] // 2].backward()
    return x.grad[0, 0].nonzero()[:, 0]


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2, 3, 7])
def test_effective_size_is_that_of_the_kernel_with_zeros_put_in(agrees_with, kernel_size, dilation):
    zeros_in = np.kron(np.ones(kernel_size), [1.0] + [0.0] * (dilation - 1))
    length = np.trim_zeros(zeros_in).size
    agrees_with(effective_kernel_size, "numpy.kron", effective_kernel_size(kernel_size, dilation), length)


def test_a_rate_3_kernel_spans_7_samples_not_8():
    assert effective_kernel_size(3, 3) == 7
    assert receptive_field([(3, 1, 3)]) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 2), r"^kernel_size must be at least 1, got 0$"),
        ((3, 0), r"^dilation must be at least 1, got 0$"),
        ((3, -2), r"^dilation must be at least 1, got -2$"),
    ],
)
def test_effective_size_refuses_what_is_no_kernel(arguments, message):
    with pytest.raises(ValueError, match=message):
        effective_kernel_size(*arguments)


def test_output_size_is_torchs_for_every_small_convolution(agrees_with):
    ours, theirs, refused = [], [], 0
    cases = product(range(1, 10), range(1, 4), range(1, 4), range(4), range(1, 4))
    for size, kernel_size, stride, padding, dilation in cases:
        x, weight = torch.zeros(1, 1, size), torch.zeros(1, 1, kernel_size)
        try:
            expected = F.conv1d(x, weight, None, stride, padding, dilation).shape[2]
        except RuntimeError:
            refused += 1
            with pytest.raises(ValueError, match="does not fit"):
                output_size(size, kernel_size, stride, padding, dilation)
            continue
        ours.append(output_size(size, kernel_size, stride, padding, dilation))
        theirs.append(expected)
    assert refused == 81
    agrees_with(output_size, "torch.nn.functional.conv1d", ours, theirs)


def test_output_size_defaults_are_those_of_a_plain_convolution():
    assert output_size(10, 3) == 8
    assert output_size(10, 3, 2) == 4
    assert output_size(10, 3, 2, 1) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_size": 0}, r"^input_size must be at least 1, got 0$"),
        ({"stride": 0}, r"^stride must be at least 1, got 0$"),
        ({"padding": -1}, r"^padding must be at least 0, got -1$"),
        ({"kernel_size": 0}, r"^kernel_size must be at least 1, got 0$"),
        ({"dilation": 0}, r"^dilation must be at least 1, got 0$"),
        ({"dilation": 4, "padding": 1}, r"^a kernel spanning 9 does not fit into a padded input of 8$"),
    ],
)
def test_output_size_refuses_impossible_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        output_size(**{"input_size": 6, "kernel_size": 3} | arguments)


def test_same_padding_is_what_torch_pads_for_padding_same(agrees_with):
    cases = [(k, d) for k, d in product(range(1, 6), range(1, 6)) if d * (k - 1) % 2 == 0]
    theirs = []
    for kernel_size, dilation in cases:
        layer = nn.Conv1d(1, 1, kernel_size, padding="same", dilation=dilation)
        left, right = layer._reversed_padding_repeated_twice
        assert left == right
        theirs.append(left)
    agrees_with(same_padding, "torch.nn.Conv1d", [same_padding(k, d) for k, d in cases], theirs)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_same_padding_keeps_the_size(size, kernel_size, dilation):
    if dilation * (kernel_size - 1) % 2 == 0:
        padding = same_padding(kernel_size, dilation)
        assert output_size(size, kernel_size, padding=padding, dilation=dilation) == size
    else:
        with pytest.raises(ValueError, match="an even span"):
            same_padding(kernel_size, dilation)


def test_same_padding_refuses_an_even_span():
    message = (
        r"^kernel_size 4 with dilation 3 spans 10 samples: "
        r"an even span cannot be padded equally on both sides$"
    )
    with pytest.raises(ValueError, match=message):
        same_padding(4, 3)


# --- receptive field -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layers",
    [
        [],
        [(3, 1, 1)],
        [(1, 3, 2)],
        [(3, 1, 1), (3, 1, 2), (3, 1, 4)],
        [(3, 2, 1), (3, 1, 2)],
        [(3, 2, 1), (3, 2, 1), (3, 1, 2), (3, 1, 4)],
        [(7, 2, 1), (2, 3, 1), (4, 1, 3), (1, 2, 5), (5, 1, 2)],
    ],
)
def test_receptive_field_is_the_span_of_the_gradients_support(agrees_with, layers):
    support = gradient_support(layers)
    span = int(support[-1] - support[0]) + 1
    agrees_with(receptive_field, "torch.autograd.backward", receptive_field(layers), span)


def test_receptive_field_takes_any_iterable():
    assert receptive_field((3, 1, rate) for rate in (1, 2)) == 7


def test_rates_1_2_4_see_15_not_16():
    assert [receptive_field([(3, 1, 2**i) for i in range(depth)]) for depth in (1, 2, 3)] == [3, 7, 15]
    assert contribution_map(3, [1, 2, 4]).shape == (15, 15)


def test_a_formula_that_forgets_strides_misses_a_third_of_the_field():
    layers = [(3, 2, 1), (3, 1, 2)]
    forgetful = 1 + sum(dilation * (kernel - 1) for kernel, _, dilation in layers)
    assert (forgetful, receptive_field(layers), len(set(gradient_support(layers).tolist()))) == (7, 11, 9)


def test_the_last_stride_does_not_widen_the_field():
    assert receptive_field([(3, 1, 1), (3, 5, 1)]) == receptive_field([(3, 1, 1), (3, 1, 1)]) == 5


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ((0, 1, 1), r"^kernel_size must be at least 1, got 0$"),
        ((3, 0, 1), r"^stride must be at least 1, got 0$"),
        ((3, 1, 0), r"^dilation must be at least 1, got 0$"),
    ],
)
def test_receptive_field_refuses_impossible_layers(layer, message):
    with pytest.raises(ValueError, match=message):
        receptive_field([(3, 1, 1), layer])


# --- one dimension -------------------------------------------------------------------------------


def test_one_dimension_is_the_formula_term_by_term(agrees_with):
    x, weight = randn(11), randn(3, seed=1)
    for dilation in (1, 2, 5):
        length = len(x) - dilation * 2
        terms = [sum(x[i + dilation * k] * weight[k] for k in range(3)) for i in range(length)]
        agrees_with(
            dilated_conv1d,
            "brute force: the sum over taps",
            dilated_conv1d(x, weight, dilation),
            torch.stack(terms),
            atol=1e-15,
        )


@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (0,)])
@pytest.mark.parametrize("dilation", [1, 3])
def test_one_kernel_runs_over_every_signal_of_a_batch(agrees_with, lead, dilation):
    x, weight = randn(*lead, 16), randn(4, seed=1)
    zeros_in = np.kron(weight.numpy(), [1.0] + [0.0] * (dilation - 1))[: 3 * dilation + 1]
    signals = [scipy.signal.correlate(row, zeros_in, "valid") for row in x.reshape(-1, 16).numpy()]
    theirs = np.array(signals).reshape(*lead, 16 - 3 * dilation)
    agrees_with(
        dilated_conv1d, "scipy.signal.correlate", dilated_conv1d(x, weight, dilation), theirs, atol=2e-15
    )


@pytest.mark.parametrize("shape", [(2, 3, 20), (3, 20), (0, 3, 20), (1, 3, 13)])
@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("kernel_size", [1, 4])
def test_a_bank_of_kernels_is_torchs_conv1d(agrees_with, shape, dilation, kernel_size):
    x, weight = randn(*shape), randn(5, 3, kernel_size, seed=1)
    ours = dilated_conv1d(x, weight, dilation)
    theirs = F.conv1d(x, weight, dilation=dilation)
    agrees_with(dilated_conv1d, "torch.nn.functional.conv1d", ours, theirs, atol=1e-14)


def test_conv1d_defaults_to_no_dilation():
    x, weight = randn(9), randn(3, seed=1)
    assert torch.equal(dilated_conv1d(x, weight), dilated_conv1d(x, weight, 1))


@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 5e-6), (torch.float16, 1e-2), (torch.bfloat16, 1e-1)]
)
def test_conv1d_works_in_other_precisions(agrees_with, dtype, atol):
    x, weight = randn(2, 3, 20, dtype=dtype), randn(5, 3, 4, dtype=dtype, seed=1)
    ours, theirs = dilated_conv1d(x, weight, 2), F.conv1d(x, weight, dilation=2)
    assert ours.dtype == dtype
    agrees_with(dilated_conv1d, "torch.nn.functional.conv1d", ours, theirs, atol=atol)


def test_conv1d_is_exact_for_integers():
    x = torch.arange(6) ** 2
    assert dilated_conv1d(x, torch.tensor([1, -2, 1]), 2).tolist() == [8, 8]


def test_conv1d_keeps_gradients_and_takes_strided_views():
    x = randn(20, 3, 2).permute(2, 1, 0).requires_grad_()
    weight = randn(3, 2, 3, seed=1).permute(2, 0, 1)[:, :, ::2].requires_grad_()
    assert not x.is_contiguous()
    assert not weight.is_contiguous()
    assert torch.autograd.gradcheck(lambda x, w: dilated_conv1d(x, w, 3), (x, weight))
    assert torch.autograd.gradcheck(lambda x, w: dilated_conv1d(x, w, 3), (x, weight[0, 0]))


@pytest.mark.parametrize(
    ("x", "weight", "dilation", "message"),
    [
        ((5,), (2, 3), 1, r"^expected x \(\.\.\., N\) with weight \(K,\), or x \(\.\.\., C, N\) with "
                          r"weight \(O, C, K\), got \(5,\) and \(2, 3\)$"),
        ((), (3,), 1, r"got \(\) and \(3,\)$"),
        ((5,), (2, 1, 3), 1, r"got \(5,\) and \(2, 1, 3\)$"),
        ((5,), (), 1, r"got \(5,\) and \(\)$"),
        ((5,), (3,), 3, r"^a kernel spanning 7 does not fit into a padded input of 5$"),
        ((5,), (3,), 0, r"^dilation must be at least 1, got 0$"),
        ((5,), (0,), 1, r"^kernel_size must be at least 1, got 0$"),
        ((2, 4, 9), (5, 3, 2), 1, r"^x has 4 channels, weight \(5, 3, 2\) expects 3$"),
    ],
)  # fmt: skip
def test_conv1d_refuses_shapes_that_do_not_fit(x, weight, dilation, message):
    with pytest.raises(ValueError, match=message):
        dilated_conv1d(torch.zeros(x), torch.zeros(weight), dilation)


# --- two dimensions ------------------------------------------------------------------------------

CONVOLUTIONS = [
    {},
    {"stride": 2, "padding": 3, "dilation": 2},
    {"stride": (3, 2), "padding": (1, 4), "dilation": (2, 3)},
    {"stride": (1, 2), "padding": (0, 2), "dilation": (4, 1), "groups": 2},
    {"padding": [2, 1], "dilation": [1, 2], "groups": 4},
    {"stride": 3, "padding": 9, "dilation": 5},
]


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("options", CONVOLUTIONS)
def test_conv2d_is_torchs_for_strides_paddings_dilations_groups(agrees_with, options, batch):
    x, weight = randn(batch, 4, 13, 10), randn(8, 4 // options.get("groups", 1), 3, 4, seed=1)
    bias = randn(8, seed=2)
    for b in (None, bias):
        ours = dilated_conv2d(x, weight, b, **options)
        theirs = F.conv2d(x, weight, b, **options)
        agrees_with(dilated_conv2d, "torch.nn.functional.conv2d", ours, theirs, atol=5e-14)


def test_conv2d_takes_its_arguments_in_torchs_order(agrees_with):
    x, weight, bias = randn(2, 4, 13, 10), randn(6, 2, 3, 3, seed=1), randn(6, seed=2)
    ours = dilated_conv2d(x, weight, bias, (1, 2), (3, 2), (2, 1), 2)
    theirs = F.conv2d(x, weight, bias, (1, 2), (3, 2), (2, 1), 2)
    agrees_with(dilated_conv2d, "torch.nn.functional.conv2d", ours, theirs, atol=5e-14)


@pytest.mark.parametrize("options", CONVOLUTIONS)
def test_conv2d_is_what_the_onnx_reference_computes(agrees_with, options):
    x, weight, bias = randn(2, 4, 12, 11), randn(8, 4 // options.get("groups", 1), 3, 2), randn(8)
    pair = {
        name: [value, value] if isinstance(value, int) else list(value)
        for name, value in options.items()
        if name != "groups"
    }
    node = onnx.helper.make_node(
        "Conv", ["x", "w", "b"], ["y"],
        kernel_shape=[3, 2],
        strides=pair.get("stride", [1, 1]),
        pads=pair.get("padding", [0, 0]) * 2,
        dilations=pair.get("dilation", [1, 1]),
        group=options.get("groups", 1),
    )  # fmt: skip
    double = onnx.TensorProto.DOUBLE
    graph = onnx.helper.make_graph(
        [node],
        "conv",
        [onnx.helper.make_tensor_value_info(name, double, None) for name in "xwb"],
        [onnx.helper.make_tensor_value_info("y", double, None)],
    )
    feeds = {"x": x.numpy(), "w": weight.numpy(), "b": bias.numpy()}
    (theirs,) = ReferenceEvaluator(onnx.helper.make_model(graph)).run(None, feeds)
    ours = dilated_conv2d(x, weight, bias, **options)
    agrees_with(dilated_conv2d, "onnx.reference.ReferenceEvaluator", ours, theirs, atol=5e-14)


@pytest.mark.parametrize("dilation", [(1, 1), (2, 2), (2, 3), (5, 1)])
def test_conv2d_is_correlation_with_a_kernel_full_of_zeros(agrees_with, dilation):
    x, kernel = randn(17, 14), randn(3, 4, seed=1)
    zeros_in = np.zeros((2 * dilation[0] + 1, 3 * dilation[1] + 1))
    for i, j in product(range(3), range(4)):
        zeros_in[i * dilation[0], j * dilation[1]] = kernel[i, j]
    theirs = scipy.signal.correlate2d(x.numpy(), zeros_in, mode="valid")
    ours = dilated_conv2d(x[None, None], kernel[None, None], dilation=dilation)[0, 0]
    agrees_with(dilated_conv2d, "scipy.signal.correlate2d", ours, theirs, atol=1e-14)
    agrees_with(dilate_kernel, "brute force: tap by tap", dilate_kernel(kernel, dilation), zeros_in)


def test_conv2d_does_what_a_conv2d_module_does(agrees_with):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Conv2d(6, 9, (3, 5), stride=(2, 1), padding=(2, 4), dilation=(2, 3), groups=3)
    x = randn(2, 6, 15, 15, dtype=torch.float32)
    ours = dilated_conv2d(x, layer.weight, layer.bias, (2, 1), (2, 4), (2, 3), 3)
    agrees_with(dilated_conv2d, "torch.nn.Conv2d", ours, layer(x), atol=2e-6)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float16, 2e-2), (torch.bfloat16, 1.5e-1)])
def test_conv2d_works_in_half_precision(agrees_with, dtype, atol):
    x, weight = randn(2, 3, 9, 9, dtype=dtype), randn(4, 3, 3, 3, dtype=dtype, seed=1)
    ours = dilated_conv2d(x, weight, randn(4, dtype=dtype, seed=2), padding=2, dilation=2)
    theirs = F.conv2d(x, weight, randn(4, dtype=dtype, seed=2), padding=2, dilation=2)
    assert ours.dtype == dtype
    agrees_with(dilated_conv2d, "torch.nn.functional.conv2d", ours, theirs, atol=atol)


def test_conv2d_keeps_gradients_and_takes_strided_views():
    x = randn(2, 7, 6, 4).permute(0, 3, 1, 2).requires_grad_()  # channels last
    weight = randn(4, 2, 3, 6, seed=1)[..., ::2].requires_grad_()
    bias = randn(8, seed=2)[::2].requires_grad_()
    assert not any(tensor.is_contiguous() for tensor in (x, weight, bias))

    def convolve(x, weight, bias):
        return dilated_conv2d(x, weight, bias, (2, 1), (1, 2), (2, 1), 2)

    assert torch.autograd.gradcheck(convolve, (x, weight, bias))


@pytest.mark.parametrize("function", [dilated_conv2d, space_to_batch_conv])
def test_arguments_stay_as_they_were_and_the_device_is_theirs(function):
    x, weight = randn(1, 2, 9, 9), randn(3, 2, 3, 3, seed=1)
    before = x.clone(), weight.clone()
    shape = function(x, weight, padding=2, dilation=2).shape
    assert torch.equal(x, before[0])
    assert torch.equal(weight, before[1])
    elsewhere = function(x.to("meta"), weight.to("meta"), padding=2, dilation=2)
    assert elsewhere.device.type == "meta"
    assert elsewhere.shape == shape == (1, 3, 9, 9)


SHAPES = r"^expected x \(B, C, H, W\), weight \(O, C / groups, KH, KW\) and bias \(O,\), got "


@pytest.mark.parametrize(
    ("x", "weight", "bias", "options", "message"),
    [
        ((4, 9, 9), (6, 4, 3, 3), None, {},
         SHAPES + r"\(4, 9, 9\), \(6, 4, 3, 3\) and None with groups 1$"),
        ((1, 4, 9), (6, 4, 3, 3), None, {},
         SHAPES + r"\(1, 4, 9\), \(6, 4, 3, 3\) and None with groups 1$"),
        ((1, 4, 9, 9), (6, 4, 3), None, {},
         SHAPES + r"\(1, 4, 9, 9\), \(6, 4, 3\) and None with groups 1$"),
        ((1, 4, 9, 9), (6, 3, 3, 3), None, {},
         SHAPES + r"\(1, 4, 9, 9\), \(6, 3, 3, 3\) and None with groups 1$"),
        ((1, 4, 9, 9), (6, 4, 3, 3), None, {"groups": 2}, SHAPES + r".* None with groups 2$"),
        ((1, 4, 9, 9), (5, 2, 3, 3), None, {"groups": 2},
         SHAPES + r"\(1, 4, 9, 9\), \(5, 2, 3, 3\) and None with groups 2$"),
        ((1, 4, 9, 9), (6, 4, 3, 3), (5,), {}, SHAPES + r".* and \(5,\) with groups 1$"),
        ((1, 4, 9, 9), (6, 4, 3, 3), (6, 1), {}, SHAPES + r".* and \(6, 1\) with groups 1$"),
        ((1, 4, 9, 9), (6, 4, 3, 3), None, {"groups": 0}, r"^groups must be at least 1, got 0$"),
        ((1, 4, 9, 9), (6, 4, 3, 3), None, {"stride": 0},
         r"^stride must be one or two integers of at least 1, got 0$"),
        ((1, 4, 9, 9), (6, 4, 3, 3), None, {"dilation": (2, 0)},
         r"^dilation must be one or two integers of at least 1, got \(2, 0\)$"),
        ((1, 4, 9, 9), (6, 4, 3, 3), None, {"padding": (0, -1)},
         r"^padding must be one or two integers of at least 0, got \(0, -1\)$"),
        ((1, 4, 9, 9), (6, 4, 3, 3), None, {"stride": (1, 1, 1)},
         r"^stride must be one or two integers of at least 1, got \(1, 1, 1\)$"),
        ((1, 4, 9, 9), (6, 4, 3, 3), None, {"stride": (2,)},
         r"^stride must be one or two integers of at least 1, got \(2,\)$"),
        ((1, 4, 8, 9), (6, 4, 3, 3), None, {"dilation": 4},
         r"^a kernel spanning 9 does not fit into a padded input of 8$"),
        ((1, 4, 9, 6), (6, 4, 3, 3), None, {"dilation": 4, "padding": (0, 1)},
         r"^a kernel spanning 9 does not fit into a padded input of 8$"),
    ],
)  # fmt: skip
def test_conv2d_refuses_shapes_that_do_not_fit(x, weight, bias, options, message):
    b = None if bias is None else torch.zeros(bias)
    with pytest.raises(ValueError, match=message):
        dilated_conv2d(torch.zeros(x), torch.zeros(weight), b, **options)


@pytest.mark.parametrize("dilation", [1, 2, 6])
def test_dilation_adds_neither_weights_nor_multiply_adds(dilation):
    layer = nn.Conv2d(4, 8, 3, padding=dilation, dilation=dilation, device="meta")
    with FlopCounterMode(display=False) as counter:
        layer(torch.empty(1, 4, 20, 20, device="meta"))
    assert counter.get_total_flops() == 2 * 20 * 20 * 8 * 4 * 9
    assert layer.weight.numel() == 8 * 4 * 9


# --- the kernel with zeros -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("convolve", "shape", "dilation"),
    [
        (F.conv1d, (5,), 3),
        (F.conv1d, (1,), 4),
        (F.conv2d, (3, 2), 2),
        (F.conv2d, (3, 2), (4, 3)),
        (F.conv3d, (2, 3, 2), (3, 2, 1)),
    ],
)
def test_ordinary_convolution_with_the_dilated_kernel_is_dilated(agrees_with, convolve, shape, dilation):
    x, weight = randn(2, 3, *(14 for _ in shape)), randn(4, 3, *shape, seed=1)
    ours = convolve(x, dilate_kernel(weight, dilation))
    theirs = convolve(x, weight, dilation=dilation)
    agrees_with(dilate_kernel, f"torch.nn.functional.{convolve.__name__}", ours, theirs, atol=5e-14)


def test_the_gaps_hold_rate_minus_one_zeros():
    assert dilate_kernel(torch.tensor([1, 2, 3]), 3).tolist() == [1, 0, 0, 2, 0, 0, 3]
    assert dilate_kernel(torch.tensor([[1, 2]]), [4, 2]).tolist() == [[1, 0, 2]]


def test_a_dilated_kernel_keeps_dtype_gradient_and_argument():
    weight = randn(2, 3, 2, 2).requires_grad_()
    before = weight.detach().clone()
    assert torch.autograd.gradcheck(lambda w: dilate_kernel(w, (2, 3)), weight)
    assert torch.equal(weight, before)
    assert dilate_kernel(weight.half(), 1).dtype == torch.float16
    assert dilate_kernel(weight, 1).data_ptr() != weight.data_ptr()


@pytest.mark.parametrize(
    ("shape", "dilation", "message"),
    [
        ((2, 2, 3, 3), 0, r"^dilation must be an integer of at least 1, or 2 of them, got 0$"),
        ((2, 2, 3, 3), (1, 2, 3), r", or 2 of them, got \(1, 2, 3\)$"),
        ((2, 2, 3), (2, 2), r", or 1 of them, got \(2, 2\)$"),
        ((3,), (2, 2), r", or 1 of them, got \(2, 2\)$"),
        ((3, 3), (2, 0), r", or 2 of them, got \(2, 0\)$"),
        ((3, 3), (2,), r", or 2 of them, got \(2,\)$"),
        ((), 2, r", or 0 of them, got 2$"),
    ],
)
def test_dilate_kernel_refuses_impossible_rates(shape, dilation, message):
    with pytest.raises(ValueError, match=message):
        dilate_kernel(torch.zeros(shape), dilation)


# --- what a stack sees ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel_size", "dilations"),
    [(3, [1, 2]), (3, [2, 2, 2]), (3, [1, 2, 5]), (2, [1, 3, 2]), (4, [3, 1]), (1, [5]), (3, [])],
)
def test_contribution_map_counts_paths(agrees_with, kernel_size, dilations):
    layers = [[(i * rate, j * rate) for i, j in product(range(kernel_size), repeat=2)] for rate in dilations]
    paths = Counter((sum(i for i, _ in path), sum(j for _, j in path)) for path in product(*layers))
    size = 1 + sum(rate * (kernel_size - 1) for rate in dilations)
    counted = np.array([[paths[i, j] for j in range(size)] for i in range(size)])
    ours = contribution_map(kernel_size, dilations)
    assert ours.dtype == torch.int64
    agrees_with(contribution_map, "brute force: every path", ours, counted)


@pytest.mark.parametrize("dilations", [(1, 2, 5), (1, 2, 9), (2, 2, 2), (1, 3, 9), (3, 1, 1, 2)])
def test_contribution_map_is_the_gradient_of_a_stack_of_ones(agrees_with, dilations):
    size = receptive_field((3, 1, rate) for rate in dilations)
    x = torch.zeros(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    y = x
    for rate in dilations:
        y = F.conv2d(y, torch.ones(1, 1, 3, 3).double(), dilation=rate)
    y.backward()  # one output pixel is left
    gradient = x.grad[0, 0]
    ours = contribution_map(3, dilations)
    agrees_with(contribution_map, "torch.autograd.backward", ours, gradient.long())
    share = int(gradient.count_nonzero()) / gradient.numel()
    agrees_with(coverage, "torch.autograd.backward", coverage(3, dilations), share, atol=1e-15)
    agrees_with(
        has_gridding, "torch.autograd.backward", has_gridding(3, dilations), bool((gradient == 0).any())
    )


def test_contribution_map_is_exact_far_beyond_float_and_refuses_to_overflow():
    def ways(n):  # central trinomial coefficient
        return sum(comb(n, k) * comb(n - k, k) for k in range(n // 2 + 1))

    counts = contribution_map(3, [1] * 21)
    assert int(counts[21, 21]) == ways(21) ** 2 > 2**53
    assert ways(21) ** 2 < 2**63 < ways(22) ** 2
    for layers in (22, 80):
        with pytest.raises(ValueError, match=rf"^the counts of {layers} layers do not fit into int64$"):
            contribution_map(3, [1] * layers)
    assert not has_gridding(3, [1] * 80)
    assert int(contribution_map(2, [1] * 34)[17, 17]) == comb(34, 17) ** 2 < 2**63 < comb(35, 17) ** 2
    with pytest.raises(ValueError, match=r"^the counts of 35 layers do not fit"):
        contribution_map(2, [1] * 35)
    assert int(contribution_map(3, [3**i for i in range(6)]).max()) == 1


def test_1_3_9_sees_each_pixel_exactly_once():
    assert torch.equal(contribution_map(3, [1, 3, 9]), torch.ones(27, 27, dtype=torch.int64))


def test_gridding_is_a_gap_among_the_sums_of_offsets_for_all_small_stacks(agrees_with):
    seen = [offsets_seen(3, rates) for rates in STACKS]
    gaps = [max(offsets) + 1 > len(offsets) for offsets in seen]
    shares = [(len(offsets) / (max(offsets) + 1)) ** 2 for offsets in seen]
    agrees_with(has_gridding, "brute force: sums of offsets", [has_gridding(3, r) for r in STACKS], gaps)
    agrees_with(
        coverage, "brute force: sums of offsets", [coverage(3, r) for r in STACKS], shares, atol=1e-15
    )


@pytest.mark.parametrize("kernel_size", [1, 2, 4, 5])
def test_gridding_is_right_for_other_kernels(agrees_with, kernel_size):
    stacks = [rates for rates in STACKS if len(rates) < 4][::3]
    gaps = [max(seen) + 1 > len(seen) for seen in (offsets_seen(kernel_size, r) for r in stacks)]
    ours = [has_gridding(kernel_size, rates) for rates in stacks]
    agrees_with(has_gridding, "brute force: sums of offsets", ours, gaps)


@given(st.integers(2, 5), st.integers(1, 6), st.integers(1, 5))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_equal_rates_keep_one_sample_in_rate_along_each_axis(kernel_size, rate, layers):
    steps = layers * (kernel_size - 1)
    exact = ((steps + 1) / (rate * steps + 1)) ** 2
    assert coverage(kernel_size, [rate] * layers) == pytest.approx(exact, abs=1e-15)
    assert has_gridding(kernel_size, [rate] * layers) == (rate > 1)


@given(st.integers(1, 4), st.lists(st.integers(1, 9), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_map_is_as_large_as_the_field_and_holds_every_path(kernel_size, dilations):
    counts = contribution_map(kernel_size, dilations)
    assert counts.shape == (receptive_field((kernel_size, 1, rate) for rate in dilations),) * 2
    assert int(counts.sum()) == kernel_size ** (2 * len(dilations))
    assert has_gridding(kernel_size, dilations) == bool((counts == 0).any())


def test_the_order_of_the_layers_does_not_change_what_is_seen():
    for rates in permutations([1, 2, 5]):
        assert torch.equal(contribution_map(3, rates), contribution_map(3, [1, 2, 5]))
        assert coverage(3, iter(rates)) == 1.0
        assert not has_gridding(3, iter(rates))


@pytest.mark.parametrize("function", [contribution_map, coverage, has_gridding])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, [1]), r"^kernel_size must be at least 1, got 0$"),
        ((0, []), r"^kernel_size must be at least 1, got 0$"),
        ((3, [1, 0]), r"^dilation must be at least 1, got 0$"),
    ],
)
def test_what_is_seen_refuses_impossible_stacks(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def test_dilation_does_lose_information_a_change_at_an_unseen_pixel_is_never_noticed():
    def stack(x):
        for rate in (2, 2, 2):
            x = F.conv2d(x, torch.ones(1, 1, 3, 3).double(), dilation=rate).relu()
        return x

    x = randn(1, 1, 13, 13).abs()
    unseen = contribution_map(3, [2, 2, 2]) == 0
    assert int(unseen.sum()) == 13 * 13 - 7 * 7
    changed = x + 100.0 * unseen
    assert torch.equal(stack(x), stack(changed))
    assert not torch.equal(stack(x), stack(x + 0.1 * ~unseen))


def test_rates_2_2_2_are_four_networks_that_never_meet(agrees_with):
    x, weights = randn(1, 1, 16, 16), [randn(1, 1, 3, 3, seed=seed) for seed in range(3)]
    dilated, parts = x, x.clone()
    for weight in weights:
        dilated = dilated_conv2d(dilated, weight, padding=2, dilation=2).relu()
    for i, j in product(range(2), repeat=2):
        part = x[..., i::2, j::2]
        for weight in weights:
            part = F.conv2d(part, weight, padding=1).relu()
        parts[..., i::2, j::2] = part
    agrees_with(dilated_conv2d, "torch.nn.functional.conv2d", dilated, parts, atol=5e-13)


# --- the published rule --------------------------------------------------------------------------


def published_m2(rates):
    """The recursion as printed: M_i = max[M_{i+1} - 2 r_i, M_{i+1} - 2 (M_{i+1} - r_i), r_i]."""

    def m(i):  # layers are numbered from 1
        if i == len(rates):
            return rates[-1]
        after, rate = m(i + 1), rates[i - 1]
        return max(after - 2 * rate, after - 2 * (after - rate), rate)

    return m(2)


@pytest.mark.parametrize("kernel_size", [2, 3, 5])
def test_the_rule_is_the_papers_for_all_small_stacks(agrees_with, kernel_size):
    m2 = [published_m2(rates) for rates in STACKS]
    agrees_with(
        hdc_max_distance,
        "brute force: the recursion as printed",
        [hdc_max_distance(kernel_size, rates) for rates in STACKS],
        m2,
    )
    coprime = [not any(all(r % p == 0 for r in rates) for p in (2, 3, 5, 7)) for rates in STACKS]
    agrees_with(
        satisfies_hdc,
        "brute force: the rule as printed",
        [satisfies_hdc(kernel_size, rates) for rates in STACKS],
        [distance <= kernel_size and alone for distance, alone in zip(m2, coprime, strict=True)],
    )


def test_the_published_rule_is_exact_for_rates_that_start_at_1_and_never_fall():
    rising = [rates for rates in STACKS if rates[0] == 1 and list(rates) == sorted(rates)]
    assert len(rising) > 50
    assert [satisfies_hdc(3, rates) for rates in rising] == [not has_gridding(3, rates) for rates in rising]


def test_a_rate_of_0_is_refused_as_torch_refuses_it():
    with pytest.raises(RuntimeError, match="dilation should be greater than zero"):
        F.conv2d(torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 3, 3), dilation=0)
    with pytest.raises(ValueError, match="got 0"):
        dilated_conv2d(torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 3, 3), dilation=0)


def test_the_papers_examples_pass_and_fail_as_printed():
    assert hdc_max_distance(3, [1, 2, 5]) == 2
    assert satisfies_hdc(3, [1, 2, 5])
    assert hdc_max_distance(3, [1, 2, 9]) == 5
    assert not satisfies_hdc(3, [1, 2, 9])
    assert not satisfies_hdc(3, [2, 4, 8])


def test_m2_rule_alone_accepts_2_2_2_though_it_grids():
    assert hdc_max_distance(3, [2, 2, 2]) == 2 <= 3
    assert has_gridding(3, [2, 2, 2])
    assert not satisfies_hdc(3, [2, 2, 2])


def test_rule_with_coprime_rates_accepts_2_3_though_it_grids():
    assert satisfies_hdc(3, [2, 3])
    assert has_gridding(3, [2, 3])
    assert sorted(offsets_seen(3, [2, 3])) == [0, 2, 3, 4, 5, 6, 7, 8, 10]


def test_rule_wrongly_rejects_good_stacks_and_depends_on_their_order():
    assert satisfies_hdc(3, [1, 2, 5])
    assert not satisfies_hdc(3, [1, 5, 2])
    assert not has_gridding(3, [1, 5, 2])


def test_rule_errs_on_a_third_of_all_small_stacks_both_ways():
    accepted_but_grids = [r for r in STACKS if satisfies_hdc(3, r) and has_gridding(3, r)]
    rejected_but_good = [r for r in STACKS if not satisfies_hdc(3, r) and not has_gridding(3, r)]
    assert (len(STACKS), len(accepted_but_grids), len(rejected_but_good)) == (2793, 401, 511)
    assert sum(satisfies_hdc(3, rates) for rates in STACKS) == 793


def test_rule_never_accepts_a_stack_that_grids_if_its_first_rate_is_1_and_kernel_is_3():
    assert not any(satisfies_hdc(3, r) and has_gridding(3, r) for r in STACKS if r[0] == 1)
    assert satisfies_hdc(2, [1, 2, 5])  # but the recursion was made for three taps
    assert has_gridding(2, [1, 2, 5])


@pytest.mark.parametrize("function", [hdc_max_distance, satisfies_hdc])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, [2]), r"^M_2 needs at least two layers, got \[2\]$"),
        ((3, ()), r"^M_2 needs at least two layers, got \[\]$"),
        ((3, [0, 1]), r"^dilation must be at least 1, got 0$"),
        ((0, [1, 1]), r"^kernel_size must be at least 1, got 0$"),
    ],
)
def test_the_rule_refuses_impossible_stacks(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


# --- the exact rule ------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4])
def test_exact_rule_is_right_for_every_stack_of_up_to_4_layers(agrees_with, kernel_size):
    stacks = [rates for depth in range(1, 5) for rates in product(range(1, 7), repeat=depth)]
    ours = [is_gap_free(kernel_size, rates) for rates in stacks]
    by_paths = [max(seen) + 1 == len(seen) for seen in (offsets_seen(kernel_size, r) for r in stacks)]
    agrees_with(is_gap_free, "brute force: sums of offsets", ours, by_paths)
    assert ours == [not has_gridding(kernel_size, rates) for rates in stacks]


@pytest.mark.parametrize("dilations", [(1, 2, 5), (5, 1, 2), (1, 2, 9), (2, 3), (1, 3, 9), (1, 3, 10)])
def test_exact_rule_says_whether_a_gradient_has_holes(agrees_with, dilations):
    x = torch.zeros(1, 1, receptive_field((3, 1, rate) for rate in dilations), requires_grad=True)
    y = x
    for rate in dilations:
        y = F.conv1d(y, torch.ones(1, 1, 3), dilation=rate)
    y.backward()  # one output sample is left
    whole = bool((x.grad > 0).all())
    agrees_with(is_gap_free, "torch.autograd.backward", is_gap_free(3, dilations), whole)


@given(st.integers(1, 7), st.lists(st.integers(1, 40), max_size=7))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_exact_rule_agrees_with_counting(kernel_size, dilations):
    assert is_gap_free(kernel_size, dilations) != has_gridding(kernel_size, dilations)


@given(st.integers(2, 6), st.lists(st.integers(0, 3), min_size=1, max_size=6), st.randoms())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_exact_rule_turns_at_the_largest_rate_it_allows_in_any_order(kernel_size, slack, random):
    rates, reach = [], 0
    for less in slack:  # a stack as long as the rule allows, or a little shorter
        rates.append(max(1, reach + 1 - less))
        reach += (kernel_size - 1) * rates[-1]
    for last, gap_free in [(reach + 1, True), (reach + 2, False)]:
        stack = [*rates, last]
        random.shuffle(stack)
        assert is_gap_free(kernel_size, stack) == gap_free != has_gridding(kernel_size, stack)


def test_powers_of_the_kernel_size_are_the_edge_of_the_exact_rule():
    for kernel_size in (2, 3, 5):
        powers = [kernel_size**i for i in range(4)]
        assert is_gap_free(kernel_size, powers)
        assert not is_gap_free(kernel_size, [*powers[:-1], powers[-1] + 1])


def test_exact_rule_judges_rightly_where_the_published_one_errs():
    for rates in ((1, 3, 1), (1, 3, 2), (1, 5, 2)):
        assert not satisfies_hdc(3, rates)
        assert is_gap_free(3, rates)
    for rates in ((2, 3), (2, 2, 3)):
        assert satisfies_hdc(3, rates)
        assert not is_gap_free(3, rates)


def test_exact_rule_leaves_its_argument_in_order_and_takes_no_layer_at_all():
    rates = [5, 1, 2]
    assert is_gap_free(3, rates)
    assert rates == [5, 1, 2]
    assert is_gap_free(3, [])
    assert receptive_field([]) == 1
    assert is_gap_free(1, [7])  # one tap sees one sample: there is no gap


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, [1]), r"^kernel_size must be at least 1, got 0$"),
        ((0, []), r"^kernel_size must be at least 1, got 0$"),
        ((3, [2, 0]), r"^dilation must be at least 1, got 0$"),
        ((3, [4, 9, -1]), r"^dilation must be at least 1, got -1$"),
    ],
)
def test_exact_rule_refuses_impossible_stacks(arguments, message):
    with pytest.raises(ValueError, match=message):
        is_gap_free(*arguments)


# --- by rearranging ------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize(
    ("dilation", "padding"), [(1, 0), (2, 2), (3, 0), ((2, 3), (1, 4)), ([4, 1], [4, 0]), (5, 7)]
)
def test_space_to_batch_is_dilated_convolution(agrees_with, batch, dilation, padding):
    x, weight = randn(batch, 3, 13, 12), randn(5, 3, 3, 2, seed=1)
    ours = space_to_batch_conv(x, weight, dilation, padding)
    theirs = F.conv2d(x, weight, padding=padding, dilation=dilation)
    agrees_with(space_to_batch_conv, "torch.nn.functional.conv2d", ours, theirs, atol=5e-14)


def test_space_to_batch_is_scipys_correlation_with_a_zero_filled_kernel(agrees_with):
    x, weight = randn(1, 2, 13, 12), randn(1, 2, 3, 2, seed=1)
    kernels = np.zeros((2, 7, 6))
    kernels[:, ::3, ::5] = weight[0].numpy()
    theirs = sum(
        scipy.signal.correlate2d(channel, kernel, mode="valid")
        for channel, kernel in zip(x[0].numpy(), kernels, strict=True)
    )
    ours = space_to_batch_conv(x, weight, (3, 5))
    agrees_with(space_to_batch_conv, "scipy.signal.correlate2d", ours[0, 0], theirs, atol=5e-14)


def test_space_to_batch_of_one_window_and_with_its_defaults(agrees_with):
    x, weight = randn(2, 3, 9, 7), randn(5, 3, 3, 3, seed=1)
    for options in ({}, {"dilation": (4, 3)}):
        ours, theirs = space_to_batch_conv(x, weight, **options), F.conv2d(x, weight, **options)
        agrees_with(space_to_batch_conv, "torch.nn.functional.conv2d", ours, theirs, atol=5e-14)


def test_space_to_batch_keeps_gradients_and_takes_strided_views():
    x, weight = randn(5, 4, 2, 1).permute(3, 2, 0, 1), randn(2, 2, 2, 2, seed=1).transpose(0, 1)
    arguments = x.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: space_to_batch_conv(x, w, (2, 3), 1), arguments)


@pytest.mark.parametrize(
    ("x", "weight", "options", "message"),
    [
        ((3, 9, 9), (5, 3, 3, 3), {},
         r"^expected x \(B, C, H, W\) and weight \(O, C, KH, KW\), "
         r"got \(3, 9, 9\) and \(5, 3, 3, 3\)$"),
        ((1, 3, 9), (5, 3, 3, 3), {}, r"got \(1, 3, 9\) and \(5, 3, 3, 3\)$"),
        ((1, 3, 9, 9), (5, 3, 3), {}, r"got \(1, 3, 9, 9\) and \(5, 3, 3\)$"),
        ((1, 3, 9, 9), (5, 4, 3, 3), {}, r"got \(1, 3, 9, 9\) and \(5, 4, 3, 3\)$"),
        ((1, 3, 9, 9), (5, 3, 3, 3), {"dilation": 0},
         r"^dilation must be one or two integers of at least 1, got 0$"),
        ((1, 3, 9, 9), (5, 3, 3, 3), {"padding": -1},
         r"^padding must be one or two integers of at least 0, got -1$"),
        ((1, 3, 6, 9), (5, 3, 3, 3), {"dilation": 4, "padding": (1, 0)},
         r"^a kernel spanning 9 does not fit into a padded input of 8$"),
        ((1, 3, 9, 5), (5, 3, 3, 3), {"dilation": 4, "padding": (0, 1)},
         r"^a kernel spanning 9 does not fit into a padded input of 7$"),
    ],
)  # fmt: skip
def test_space_to_batch_refuses_shapes_that_do_not_fit(x, weight, options, message):
    with pytest.raises(ValueError, match=message):
        space_to_batch_conv(torch.zeros(x), torch.zeros(weight), **options)


# --- causal --------------------------------------------------------------------------------------


def seeded(build):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().double()


@pytest.mark.parametrize(("kernel_size", "dilation"), [(2, 1), (2, 4), (3, 3), (1, 5), (3, 9)])
@pytest.mark.parametrize("batch", [0, 2])
def test_causal_convolution_is_its_formula(agrees_with, kernel_size, dilation, batch):
    layer = seeded(lambda: CausalConv1d(3, 2, kernel_size, dilation))
    x = randn(batch, 3, 12)
    by_definition = layer.bias.detach()[:, None].repeat(batch, 1, 12)
    for b, o, t, k in product(range(batch), range(2), range(12), range(kernel_size)):
        source = t - dilation * (kernel_size - 1 - k)
        if source >= 0:
            by_definition[b, o, t] += layer.weight[o, :, k].detach() @ x[b, :, source]
    assert layer.context == dilation * (kernel_size - 1)
    agrees_with(CausalConv1d, "brute force: the sum over taps", layer(x), by_definition, atol=2e-15)
    if batch:
        padded = F.conv1d(x, layer.weight, layer.bias, padding=layer.context, dilation=dilation)
        agrees_with(CausalConv1d, "torch.nn.functional.conv1d", layer(x), padded[:, :, :12], atol=1e-14)


def test_no_output_of_a_causal_stack_sees_the_future():
    stack = seeded(lambda: nn.Sequential(*(CausalConv1d(2, 2, 2, 2**i) for i in range(4))))
    x = randn(1, 2, 40)
    for t in (0, 7, 25):
        later = x.clone()
        later[:, :, t + 1 :] += 1.0
        assert torch.equal(stack(x)[:, :, : t + 1], stack(later)[:, :, : t + 1])
        assert not torch.equal(stack(x)[:, :, t + 1], stack(later)[:, :, t + 1])


def test_doubling_causal_layers_look_back_as_far_as_their_receptive_field():
    stack = seeded(lambda: nn.Sequential(*(CausalConv1d(1, 1, 2, 2**i) for i in range(4))))
    x = randn(1, 1, 40).requires_grad_()
    stack(x)[0, 0, 30].backward()
    seen = x.grad[0, 0].nonzero()[:, 0].tolist()
    assert seen == list(range(30 - 15, 31))
    assert receptive_field([(2, 1, 2**i) for i in range(4)]) == 16


def test_a_causal_layer_has_the_parameters_of_conv1d_and_is_not_dilated_by_default():
    layer = CausalConv1d(3, 5, 4)
    assert layer.context == 3
    assert layer.dilation == (1,)
    shapes = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
    assert shapes == {"weight": (5, 3, 4), "bias": (5,)}
    assert isinstance(layer, nn.Conv1d)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 2, 3), r"^in_channels must be at least 1, got 0$"),
        ((2, 0, 3), r"^out_channels must be at least 1, got 0$"),
        ((2, 2, 0), r"^kernel_size must be at least 1, got 0$"),
        ((2, 2, 3, 0), r"^dilation must be at least 1, got 0$"),
    ],
)
def test_a_causal_layer_refuses_impossible_arguments(arguments, message):
    assert CausalConv1d(1, 1, 1, 1)(torch.zeros(1, 1, 1)).shape == (1, 1, 1)
    with pytest.raises(ValueError, match=message):
        CausalConv1d(*arguments)


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (1, 2, 8), (1, 3, 3, 8)])
def test_a_causal_layer_refuses_other_shapes(shape):
    numbers = ", ".join(map(str, shape))
    with pytest.raises(ValueError, match=rf"^expected x \(B, 3, N\), got \({numbers}\)$"):
        CausalConv1d(3, 2, 2)(torch.zeros(shape))


@pytest.mark.parametrize(("kernel_size", "dilation"), [(2, 1), (3, 4), (1, 3)])
@pytest.mark.parametrize("batch", [0, 2])
def test_sample_by_sample_gives_what_the_whole_signal_gives(agrees_with, kernel_size, dilation, batch):
    layer = seeded(lambda: CausalConv1d(2, 3, kernel_size, dilation))
    x = randn(batch, 2, 15)
    past, outputs = torch.zeros(batch, 2, layer.context, dtype=torch.float64), []
    for t in range(15):
        y, past = causal_step(layer, x[:, :, t], past)
        assert past.shape == (batch, 2, layer.context)
        outputs.append(y)
    padded = F.pad(x, (layer.context, 0))
    whole = F.conv1d(padded, layer.weight, layer.bias, dilation=dilation)
    agrees_with(causal_step, "torch.nn.functional.conv1d", torch.stack(outputs, dim=2), whole, atol=1e-14)


def test_the_current_sample_meets_the_last_tap_of_the_kernel(agrees_with):
    layer = seeded(lambda: CausalConv1d(2, 3, 3, 2))
    x, past = randn(4, 2), randn(4, 2, layer.context, seed=1)
    seen = np.concatenate([past.numpy(), x.numpy()[:, :, None]], axis=2)  # oldest first
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    theirs = [
        [
            bias[o] + sum(weight[o, c, k] * seen[b, c, 2 * k] for c in range(2) for k in range(3))
            for o in range(3)
        ]
        for b in range(4)
    ]
    y, following = causal_step(layer, x, past)
    agrees_with(causal_step, "brute force: the formula, tap by tap", y, theirs, atol=5e-15)
    agrees_with(causal_step, "brute force: the last inputs, oldest first", following, seen[:, :, 1:])


def test_a_step_is_differentiable_and_leaves_the_past_alone():
    layer = seeded(lambda: CausalConv1d(2, 3, 3, 2))
    x, past = randn(1, 2).requires_grad_(), randn(1, 2, 4, seed=1).requires_grad_()
    before = past.detach().clone()
    assert torch.autograd.gradcheck(lambda x, past: causal_step(layer, x, past), (x, past))
    assert torch.equal(past, before)


@pytest.mark.parametrize(
    ("x", "past", "message"),
    [
        ((2,), (2, 4), r"^expected x \(B, 2\), got \(2,\)$"),
        ((1, 3), (1, 3, 4), r"^expected x \(B, 2\), got \(1, 3\)$"),
        ((1, 2, 1), (1, 2, 4), r"^expected x \(B, 2\), got \(1, 2, 1\)$"),
        ((1, 2), (1, 2, 3), r"^expected past \(1, 2, 4\), got \(1, 2, 3\)$"),
        ((1, 2), (2, 2, 4), r"^expected past \(1, 2, 4\), got \(2, 2, 4\)$"),
    ],
)
def test_a_step_refuses_shapes_that_do_not_fit(x, past, message):
    with pytest.raises(ValueError, match=message):
        causal_step(CausalConv1d(2, 3, 3, 2), torch.zeros(x), torch.zeros(past))


# --- side by side --------------------------------------------------------------------------------


def shaken(in_channels, out_channels, rates):
    """A pyramid whose batch norms are not the identity, and whose biases have either sign."""
    model = seeded(lambda: ASPP(in_channels, out_channels, rates))
    for seed, (name, value) in enumerate(model.state_dict().items()):
        if value.is_floating_point():
            drawn = randn(*value.shape, seed=seed)
            value.copy_(drawn.abs() + 0.1 if name.endswith("running_var") else drawn)
    return model


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("batch", "rates"), [(1, (1, 3)), (2, (6, 12, 18)), (2, ())])
def test_the_pyramid_is_its_branches_written_out(agrees_with, training, batch, rates):
    model = shaken(3, 4, rates).train(training)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    x = randn(batch, 3, 15, 11)

    def normed(y, prefix):
        statistics = state[f"{prefix}.1.running_mean"], state[f"{prefix}.1.running_var"]
        scale = state[f"{prefix}.1.weight"], state[f"{prefix}.1.bias"]
        return F.batch_norm(y, *statistics, *scale, training=training, eps=1e-5).relu()

    maps = [normed(F.conv2d(x, state["branches.0.0.weight"]), "branches.0")]
    for i, rate in enumerate(rates, start=1):
        zeros_in = torch.zeros(4, 3, 2 * rate + 1, 2 * rate + 1, dtype=torch.float64)
        zeros_in[:, :, ::rate, ::rate] = state[f"branches.{i}.0.weight"]
        maps.append(normed(F.conv2d(x, zeros_in, padding=rate), f"branches.{i}"))
    pooled = F.conv2d(F.adaptive_avg_pool2d(x, 1), state["image.0.weight"], state["image.0.bias"]).relu()
    maps.append(F.interpolate(pooled, size=(15, 11), mode="bilinear", align_corners=False))
    theirs = normed(F.conv2d(torch.cat(maps, 1), state["project.0.weight"]), "project")
    agrees_with(ASPP, "torch.nn.functional.batch_norm", model(x), theirs, atol=2e-13)


def test_the_pyramid_has_the_papers_rates_and_parts():
    model = ASPP(7, 5)
    dilations = [part[0].dilation for part in (*model.branches, model.project)]
    assert dilations == [(1, 1), (6, 6), (12, 12), (18, 18), (1, 1)]
    weights = 7 * 5 + 3 * 9 * 7 * 5 + (7 * 5 + 5) + 5 * 5 * 5
    norms = 5 * 2 * 5
    assert sum(value.numel() for value in model.parameters()) == weights + norms
    assert sum(isinstance(part, nn.BatchNorm2d) for part in model.modules()) == 5


def test_the_pyramid_trains_on_a_single_image_and_passes_an_empty_batch():
    model = seeded(lambda: ASPP(3, 2, (1, 2)))
    model(randn(1, 3, 5, 5)).sum().backward()
    assert all(value.grad is not None for value in model.parameters())
    assert model(randn(0, 3, 5, 5)).shape == (0, 2, 5, 5)
    assert all(value.isfinite().all() for value in model.buffers())


def test_the_pyramid_takes_strided_views_and_half_precision():
    model = seeded(lambda: ASPP(3, 2, (1, 2))).eval()
    x = randn(1, 5, 6, 3)
    view = x.permute(0, 3, 1, 2)
    assert torch.allclose(model(view), model(view.contiguous()), rtol=0, atol=1e-12)
    assert model.bfloat16()(view.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 2), r"^in_channels must be at least 1, got 0$"),
        ((2, 0), r"^out_channels must be at least 1, got 0$"),
        ((2, 2, (6, 0)), r"^dilation must be at least 1, got 0$"),
    ],
)
def test_the_pyramid_refuses_impossible_arguments(arguments, message):
    assert ASPP(1, 1, (1,))(torch.zeros(2, 1, 2, 2)).shape == (2, 1, 2, 2)
    with pytest.raises(ValueError, match=message):
        ASPP(*arguments)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 3, 8), (1, 2, 8, 8), (1, 3, 3, 8, 8)])
def test_the_pyramid_refuses_other_shapes(shape):
    numbers = ", ".join(map(str, shape))
    with pytest.raises(ValueError, match=rf"^expected x \(B, 3, H, W\), got \({numbers}\)$"):
        ASPP(3, 2)(torch.zeros(shape))


# --- exercises -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel_size", [2, 3, 4, 7])
def test_smallest_depth_is_found_by_adding_layers(agrees_with, kernel_size):
    def by_adding(target):
        depth, field = 0, 1
        while field < target:
            field += (kernel_size - 1) * 2**depth
            depth += 1
        return depth

    targets = list(range(1, 140))
    agrees_with(
        smallest_depth,
        "brute force: adding layers",
        [smallest_depth(target, kernel_size) for target in targets],
        [by_adding(target) for target in targets],
    )


def test_smallest_depth_speaks_of_three_taps_by_default():
    assert smallest_depth(15) == smallest_depth(15, 3) == 3
    assert smallest_depth(16) == 4
    for depth in range(1, 7):
        field = receptive_field([(3, 1, 2**i) for i in range(depth)])
        assert (smallest_depth(field), smallest_depth(field + 1)) == (depth, depth + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), r"^target must be at least 1, got 0$"),
        ((9, 1), r"^kernel_size must be at least 2, got 1$"),
    ],
)
def test_smallest_depth_refuses_the_impossible(arguments, message):
    with pytest.raises(ValueError, match=message):
        smallest_depth(*arguments)


@pytest.mark.parametrize("size", [1, 5, 33])
@pytest.mark.parametrize(
    ("kernel_size", "dilation"), [(3, 1), (3, 6), (3, 24), (3, 33), (5, 2), (4, 2), (1, 3), (3, 40)]
)
def test_live_taps_are_what_a_kernel_of_ones_sums_over_ones(agrees_with, size, kernel_size, dilation):
    padding = dilation * (kernel_size - 1) // 2
    ones = torch.ones(1, 1, kernel_size, kernel_size).double()
    summed = F.conv2d(torch.ones(1, 1, size, size).double(), ones, padding=padding, dilation=dilation)
    ours = live_taps(size, kernel_size, dilation)
    agrees_with(live_taps, "torch.nn.functional.conv2d", ours, summed.mean(), atol=1e-14)


def test_at_the_maps_size_a_3x3_branch_is_a_1x1_branch(agrees_with):
    assert live_taps(9, 3, 9) == 1.0 < live_taps(9, 3, 8)
    x, weight = randn(1, 4, 9, 9), randn(2, 4, 3, 3, seed=1)
    branch = dilated_conv2d(x, weight, padding=9, dilation=9)
    point = F.conv2d(x, weight[:, :, 1:2, 1:2])
    agrees_with(dilated_conv2d, "torch.nn.functional.conv2d", branch, point, atol=5e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 3, 1), r"^size must be at least 1, got 0$"),
        ((5, 2, 1), r"^kernel_size 2 with dilation 1 spans 2 samples: an even span cannot"),
        ((5, 3, 0), r"^dilation must be at least 1, got 0$"),
    ],
)
def test_live_taps_refuses_the_impossible(arguments, message):
    with pytest.raises(ValueError, match=message):
        live_taps(*arguments)


@pytest.mark.parametrize(
    ("layers", "max_rate", "kernel_size"),
    [(1, 4, 3), (2, 9, 3), (3, 5, 3), (3, 9, 3), (3, 10, 3), (2, 9, 5), (3, 6, 2), (2, 6, 4), (4, 4, 2)],
)
def test_best_rates_is_what_a_search_over_all_orders_finds(agrees_with, layers, max_rate, kernel_size):
    good = [
        rates
        for rates in product(range(1, max_rate + 1), repeat=layers)
        if all(b - a == 1 for a, b in pairwise(sorted(offsets_seen(kernel_size, rates))))
    ]
    theirs = min(good, key=lambda rates: (-sum(rates), rates))
    ours = best_rates(layers, max_rate, kernel_size)
    agrees_with(best_rates, "brute force: every stack in every order", ours, theirs)


def test_powers_of_the_kernel_size_are_the_best_rates(agrees_with):
    for layers, kernel_size in [(3, 3), (4, 2), (2, 5)]:
        powers = [kernel_size**i for i in range(layers)]
        ours = best_rates(layers, powers[-1] + 2, kernel_size)
        agrees_with(best_rates, "closed form: k^0, k^1, k^2, …", ours, powers)
        field = receptive_field((kernel_size, 1, rate) for rate in ours)
        assert field == prod([kernel_size] * layers)
    assert best_rates(3, 9) == (1, 3, 9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 3), r"^layers must be at least 1, got 0$"),
        ((2, 0), r"^max_rate must be at least 1, got 0$"),
        ((2, 3, 1), r"^kernel_size must be at least 2, got 1$"),
    ],
)
def test_best_rates_refuses_the_impossible(arguments, message):
    assert best_rates(1, 1) == (1,)
    with pytest.raises(ValueError, match=message):
        best_rates(*arguments)
