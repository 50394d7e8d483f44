"""What the page on the Transformer claims, against PyTorch's own modules and against plain arithmetic."""

import math
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snippets.transformer import (
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    KeyValueCache,
    MultiHeadAttention,
    Residual,
    Transformer,
    attention_in_blocks,
    attention_weights,
    causal_mask,
    greedy_decode,
    gru_cell,
    label_smoothing_loss,
    lstm_cell,
    noam_rate,
    padding_mask,
    rnn_cell,
    scaled_dot_product_attention,
    shift_matrix,
    sinusoidal_positions,
    transformer_parameters,
    window_mask,
)

CELLS = {"rnn": (rnn_cell, nn.RNNCell), "lstm": (lstm_cell, nn.LSTMCell), "gru": (gru_cell, nn.GRUCell)}
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
EXACT = 5e-15  # float64, for results of size one

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def randomize(module, seed=0):
    """Every weight random, biases and norms too: zeros and ones would hide a slip."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64) / 3)
    return module


def copy(ours, theirs):
    with torch.no_grad():
        ours.weight.copy_(theirs.weight)
        ours.bias.copy_(theirs.bias)


def copy_attention(ours, theirs):
    layers = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        weights = zip(layers, theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3), strict=True)
        for layer, weight, bias in weights:
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
    copy(ours.output, theirs.out_proj)


def copy_encoder(ours, theirs):
    copy_attention(ours.attention, theirs.self_attn)
    copy(ours.feed_forward.up, theirs.linear1)
    copy(ours.feed_forward.down, theirs.linear2)
    copy(ours.around_attention.norm, theirs.norm1)
    copy(ours.around_feed_forward.norm, theirs.norm2)


def copy_decoder(ours, theirs):
    copy_attention(ours.attention, theirs.self_attn)
    copy_attention(ours.cross_attention, theirs.multihead_attn)
    copy(ours.feed_forward.up, theirs.linear1)
    copy(ours.feed_forward.down, theirs.linear2)
    copy(ours.around_attention.norm, theirs.norm1)
    copy(ours.around_cross_attention.norm, theirs.norm2)
    copy(ours.around_feed_forward.norm, theirs.norm3)


# --- recurrent cells -------------------------------------------------------------------------------


def cell_and_arguments(name, inputs, hidden, shape=(3,), dtype=torch.float64, bias=True):
    """Input, state and the weights of torch's own cell."""
    theirs = CELLS[name][1](inputs, hidden, bias=bias, dtype=dtype)
    x, h, c = draw(*shape, inputs, seed=1), draw(*shape, hidden, seed=2), draw(*shape, hidden, seed=3)
    x, h, c = x.to(dtype), h.to(dtype), c.to(dtype)
    biases = (theirs.bias_ih, theirs.bias_hh) if bias else ()
    return theirs, x, (h, c) if name == "lstm" else h, (theirs.weight_ih, theirs.weight_hh, *biases)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(("inputs", "hidden"), [(1, 1), (5, 7), (8, 4)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cells_are_those_of_torch_under_the_same_weights(agrees_with, name, inputs, hidden, dtype):
    ours = CELLS[name][0]
    theirs, x, state, weights = cell_and_arguments(name, inputs, hidden, dtype=dtype)
    got, wanted = ours(x, state, *weights), theirs(x, state)
    atol = EXACT if dtype == torch.float64 else 1e-6
    for a, b in zip(got, wanted, strict=True) if name == "lstm" else [(got, wanted)]:
        agrees_with(ours, f"torch.nn.{CELLS[name][1].__name__}", a, b, atol=atol)


@pytest.mark.parametrize("name", CELLS)
def test_cells_work_without_bias_and_without_a_batch(agrees_with, name):
    ours = CELLS[name][0]
    for bias, shape in ((False, (3,)), (True, ())):
        theirs, x, state, weights = cell_and_arguments(name, 4, 5, shape=shape, bias=bias)
        got, wanted = ours(x, state, *weights), theirs(x, state)
        got, wanted = (got, wanted) if name != "lstm" else (got[1], wanted[1])
        agrees_with(ours, f"torch.nn.{CELLS[name][1].__name__}", got, wanted, atol=EXACT)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_cells_in_half_precision_stay_close_to_float64(name, dtype):
    ours = CELLS[name][0]
    _, x, state, weights = cell_and_arguments(name, 4, 5)
    state = state if name == "lstm" else (state,)
    small = [tensor.detach().to(dtype) for tensor in (x, *state, *weights)]
    low = ours(small[0], tuple(small[1:3]) if name == "lstm" else small[1], *small[1 + len(state) :])
    high = ours(x, state if name == "lstm" else state[0], *weights)
    low, high = (low[0], high[0]) if name == "lstm" else (low, high)
    assert low.dtype == dtype
    assert (low.double() - high).abs().max() < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", CELLS)
def test_cells_take_any_leading_axes_strides_and_an_empty_batch(name):
    ours = CELLS[name][0]
    _, x, state, weights = cell_and_arguments(name, 4, 5, shape=(2, 6))
    first = state[0] if name == "lstm" else state
    kept = [tensor.clone() for tensor in (x, first)]

    def run(x, h):
        got = ours(x, (h, h) if name == "lstm" else h, *weights)
        return got[0] if name == "lstm" else got

    whole = run(x, first)
    assert whole.shape == (2, 6, 5)
    turned = run(x.transpose(0, 1), first.transpose(0, 1))
    torch.testing.assert_close(turned.transpose(0, 1), whole, atol=1e-15, rtol=1e-13)
    assert run(x[:, :0], first[:, :0]).shape == (2, 0, 5)
    assert torch.equal(x, kept[0])
    assert torch.equal(first, kept[1])


@pytest.mark.parametrize("name", CELLS)
def test_gradients_of_the_cells_are_finite_differences(name):
    ours = CELLS[name][0]
    _, x, state, weights = cell_and_arguments(name, 3, 2, shape=(2,))
    state = state if name == "lstm" else (state,)
    inputs = [tensor.detach().requires_grad_() for tensor in (x, *state, *weights)]

    def run(x, *rest):
        if name == "lstm":
            return ours(x, rest[:2], *rest[2:])
        return ours(x, *rest)

    assert torch.autograd.gradcheck(run, inputs)


def test_many_steps_of_a_cell_are_torchs_layer(agrees_with):
    x = draw(2, 9, 3, seed=4)  # (B, L, D)
    for name, layer in (("rnn", nn.RNN), ("lstm", nn.LSTM), ("gru", nn.GRU)):
        theirs = layer(3, 5, batch_first=True, dtype=torch.float64)
        weights = list(theirs.parameters())
        h = torch.zeros(2, 5, dtype=torch.float64)
        state = (h, h) if name == "lstm" else h
        out = []
        for step in x.unbind(1):
            state = CELLS[name][0](step, state, *weights)
            out.append(state[0] if name == "lstm" else state)
        wanted = theirs(x)[0]
        agrees_with(CELLS[name][0], f"torch.nn.{layer.__name__}", torch.stack(out, 1), wanted, atol=EXACT)


def test_the_reset_gate_scales_the_product_and_not_the_state(agrees_with):
    _, x, h, (w_ih, w_hh, b_ih, b_hh) = cell_and_arguments("gru", 4, 5)

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    x_, h_, w, u, b, c = (t.detach().numpy() for t in (x, h, w_ih, w_hh, b_ih, b_hh))
    w_r, w_z, w_n = w.reshape(3, 5, 4)
    u_r, u_z, u_n = u.reshape(3, 5, 5)
    (b_r, b_z, b_n), (c_r, c_z, c_n) = b.reshape(3, 5), c.reshape(3, 5)
    r = sigmoid(x_ @ w_r.T + b_r + h_ @ u_r.T + c_r)
    z = sigmoid(x_ @ w_z.T + b_z + h_ @ u_z.T + c_z)
    after = np.tanh(x_ @ w_n.T + b_n + r * (h_ @ u_n.T + c_n))
    before = np.tanh(x_ @ w_n.T + b_n + (r * h_) @ u_n.T + c_n)
    ours = gru_cell(x, h, w_ih, w_hh, b_ih, b_hh)
    agrees_with(gru_cell, "closed form: reset after the product", ours, (1 - z) * after + z * h_, atol=EXACT)
    assert np.abs(ours.detach().numpy() - ((1 - z) * before + z * h_)).max() > 0.01


def test_an_open_forget_gate_keeps_the_cell_for_ever():
    h = c = draw(2, 3, seed=5)
    weights, bias = torch.zeros(12, 4, dtype=torch.float64), torch.full((12,), -1e3, dtype=torch.float64)
    bias[3:6] = 1e3  # forget gate open, input gate shut
    first = c
    for _ in range(50):
        h, c = lstm_cell(torch.ones(2, 4, dtype=torch.float64), (h, c), weights, weights[:, :3], bias)
    assert torch.equal(c, first)


@pytest.mark.parametrize("name", CELLS)
def test_cells_refuse_shapes_that_do_not_fit(name):
    ours, gates = CELLS[name][0], GATES[name]
    x, h = torch.zeros(2, 3), torch.zeros(2, 4)
    w_ih, w_hh = torch.zeros(4 * gates, 3), torch.zeros(4 * gates, 4)
    b, one = torch.zeros(4 * gates), torch.zeros(1)  # torch would stretch the second over all units
    wrong = [
        (torch.zeros(2, 4), h, w_ih, w_hh),
        (x, torch.zeros(3, 4), w_ih, w_hh),
        (x, torch.zeros(2, 3), w_ih, w_hh),
        (x, h, torch.zeros(4 * gates + 1, 3), w_hh),
        (x, h, w_ih, torch.zeros(4 * gates, 3)),
        (x, torch.zeros(()), w_ih, w_hh),
        (x, h, w_ih.T, w_hh),
        (x, h, w_ih, w_hh, one),
        (x, h, w_ih, w_hh, None, one),
        (x, h, w_ih, w_hh, b, one),
        (x, h, w_ih, w_hh, b[None]),
    ]
    for x_, h_, *weights in wrong:
        shapes = ", ".join(str(tuple(t.shape)) for t in (x_, h_, *weights) if t is not None)
        sizes = f"w_ih ({gates}H, D), w_hh ({gates}H, H) and biases ({gates}H,)"
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared below
            ours(x_, (h_, h_) if name == "lstm" else h_, *weights)
        assert str(caught.value) == f"expected x (..., D), h (..., H), {sizes}, got {shapes}"
    assert ours(x, (h, h) if name == "lstm" else h, w_ih, w_hh, None, b) is not None


def test_the_two_states_of_an_lstm_must_match():
    x, h = torch.zeros(2, 3), torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"^h and c must match, got \(2, 4\), \(1, 4\)$"):
        lstm_cell(x, (h, h[:1]), torch.zeros(16, 3), torch.zeros(16, 4))


# --- attention -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 4), (1, 7, 2, 3)])
@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_attention_is_torchs(agrees_with, shape, leading):
    d, queries, keys, e = shape
    query, key, value = (
        draw(*leading, queries, d),
        draw(*leading, keys, d, seed=1),
        draw(*leading, keys, e, seed=2),
    )
    reference = "torch.nn.functional.scaled_dot_product_attention"
    wanted = F.scaled_dot_product_attention(query, key, value)
    ours = scaled_dot_product_attention(query, key, value)
    agrees_with(scaled_dot_product_attention, reference, ours, wanted, atol=EXACT)
    mask = draw(*leading, queries, keys, seed=3) > 0
    wanted = F.scaled_dot_product_attention(query, key, value, mask)
    ours = scaled_dot_product_attention(query, key, value, mask)
    agrees_with(scaled_dot_product_attention, reference, ours, wanted, atol=EXACT)


def by_hand(query, key, mask):
    """Weights of one sequence, entry by entry."""
    weights = np.zeros((len(query), len(key)))
    for i, j in product(range(len(query)), range(len(key))):
        if mask[i][j]:
            weights[i, j] = math.exp(
                sum(a * b for a, b in zip(query[i], key[j], strict=True)) / math.sqrt(len(key[j]))
            )
    total = weights.sum(1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)


def test_weights_are_exponentials_over_their_sum_and_a_row_without_keys_is_zero(agrees_with):
    query, key = draw(6, 3), draw(4, 3, seed=1)
    mask = draw(6, 4, seed=2) > 0
    mask[2] = False
    wanted = by_hand(query.tolist(), key.tolist(), mask.tolist())
    ours = attention_weights(query, key, mask)
    agrees_with(attention_weights, "brute force: exponentials entry by entry", ours, wanted, atol=EXACT)
    whole = by_hand(query.tolist(), key.tolist(), torch.ones_like(mask).tolist())
    agrees_with(
        attention_weights,
        "brute force: exponentials entry by entry",
        attention_weights(query, key),
        whole,
        atol=EXACT,
    )
    assert ours[2].tolist() == [0.0] * 4
    assert wanted[3].sum() == pytest.approx(1)
    assert F.scaled_dot_product_attention(query, key, key, mask)[2].tolist() == [0.0] * 3


def test_a_fully_masked_row_gives_zeros_and_zero_gradients_without_any_nan():
    query, key, value = (draw(3, 4, seed=s).requires_grad_() for s in range(3))
    mask = torch.tensor([[True, False, True], [False] * 3, [True] * 3])
    with torch.autograd.set_detect_anomaly(True):
        out = scaled_dot_product_attention(query, key, value, mask)
        out.sum().backward()
    assert out[1].tolist() == [0.0] * 4
    assert query.grad[1].tolist() == [0.0] * 4
    assert query.grad[0].abs().min() > 0
    for tensor in (query, key, value):
        assert tensor.grad.isfinite().all()


def test_true_means_may_attend_and_a_mask_broadcasts():
    query, key, value = (
        draw(2, 3, 4),
        draw(2, 3, 4, seed=1),
        torch.eye(3, dtype=torch.float64).expand(2, 3, 3),
    )
    only_last = torch.tensor([False, False, True])
    for mask in (only_last, only_last[None], only_last.expand(3, 3), only_last.expand(2, 1, 3)):
        out = scaled_dot_product_attention(query, key, value, mask)
        assert out.tolist() == [[[0.0, 0.0, 1.0]] * 3] * 2
    more = scaled_dot_product_attention(query, key, value, only_last.expand(5, 2, 3, 3))
    assert more.shape == (5, 2, 3, 3)


def test_gradients_of_attention_are_finite_differences():
    query, key, value = (draw(2, 3, 4, seed=s).requires_grad_() for s in range(3))
    mask = torch.tensor([[True, True, False], [False] * 3, [True] * 3])
    assert torch.autograd.gradcheck(lambda *t: scaled_dot_product_attention(*t, mask), (query, key, value))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_survives_products_that_overflow(dtype):
    query = torch.full((1, 64), 60.0, dtype=dtype)  # 64 * 60 * 60 is beyond float16; a 1 / 8 of it is not
    key = torch.stack([query[0], query[0] / 2])
    weights = attention_weights(query, key, torch.tensor([[True, True]]))
    assert weights.dtype == dtype
    assert weights.tolist() == [[1.0, 0.0]]
    small = [draw(5, 8, seed=s).to(dtype) for s in range(3)]
    ours = scaled_dot_product_attention(*small, causal_mask(5))
    wanted = F.scaled_dot_product_attention(*[t.double() for t in small], causal_mask(5))
    assert (ours.double() - wanted).abs().max() < 4 * torch.finfo(dtype).eps


def test_attention_without_keys_queries_or_batch_gives_zeros_or_nothing():
    query, key, value = draw(3, 4), draw(0, 4), draw(0, 2)
    assert scaled_dot_product_attention(query, key, value).tolist() == [[0.0, 0.0]] * 3
    assert scaled_dot_product_attention(query[:0], query, query).shape == (0, 4)
    assert scaled_dot_product_attention(*[draw(0, 5, 4)] * 3, causal_mask(5)).shape == (0, 5, 4)


def test_attention_of_a_set_follows_the_order_of_its_input():
    x, order = draw(6, 4), torch.tensor([3, 0, 5, 1, 4, 2])
    out = scaled_dot_product_attention(x, x, x)
    shuffled = scaled_dot_product_attention(x[order], x[order], x[order])
    torch.testing.assert_close(shuffled, out[order], atol=1e-15, rtol=1e-13)
    turned = x.T.contiguous().T
    assert not turned.is_contiguous()
    torch.testing.assert_close(
        scaled_dot_product_attention(turned, turned, turned), out, atol=1e-15, rtol=1e-13
    )


def test_attention_refuses_shapes_and_masks_that_do_not_fit():
    x = torch.zeros(3, 4)
    for query, key in ((x, torch.zeros(3, 5)), (torch.zeros(4), x), (x, torch.zeros(4))):
        with pytest.raises(
            ValueError, match=r"^expected query \(\.\.\., Lq, d\) and key \(\.\.\., Lk, d\), got "
        ) as caught:
            attention_weights(query, key)
        assert str(caught.value).endswith(f"got {tuple(query.shape)} and {tuple(key.shape)}")
    for mask in (torch.ones(3, 3), torch.ones(3, 2) > 0, torch.ones(2, 3) > 0, torch.ones(4, 1, 5) > 0):
        with pytest.raises(
            ValueError, match=r"^expected a boolean mask broadcastable to \(3, 3\), got "
        ) as caught:
            attention_weights(x, x, mask)
        assert str(caught.value).endswith(f"got {tuple(mask.shape)} of {mask.dtype}")
    for value in (torch.zeros(2, 4), torch.zeros(3)):
        with pytest.raises(ValueError, match=r"^expected a value for each key, got ") as caught:
            scaled_dot_product_attention(x, x, value)
        assert str(caught.value).endswith(f"got {tuple(value.shape)} for keys (3, 4)")


# --- masks and positions ---------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "past"), [(0, 0), (1, 0), (4, 0), (1, 3), (3, 2), (0, 2)])
def test_a_causal_mask_is_a_triangle_at_the_lower_right(agrees_with, length, past):
    ours = causal_mask(length, past)
    agrees_with(causal_mask, "numpy.tri", ours, np.tri(length, past + length, past, dtype=bool))
    assert ours.dtype == torch.bool
    assert ours.device == causal_mask(length, past, "cpu").device


def test_a_causal_mask_can_lie_on_another_device():
    assert causal_mask(2, device="meta").device.type == "meta"


@pytest.mark.parametrize(("length", "past"), [(-1, 0), (2, -1)])
def test_a_causal_mask_refuses_negative_sizes(length, past):
    with pytest.raises(ValueError, match=f"^length and past must be at least 0, got {length}, {past}$"):
        causal_mask(length, past)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_a_padding_mask_marks_the_first_positions(agrees_with, dtype):
    lengths = torch.tensor([0, 1, 3, 5], dtype=dtype)
    wanted = [[position < n for position in range(5)] for n in lengths.tolist()]
    agrees_with(padding_mask, "brute force: position below length", padding_mask(lengths, 5), wanted)
    agrees_with(padding_mask, "brute force: position below length", padding_mask([0, 1, 3, 5], 5), wanted)


def test_a_padding_mask_of_nothing_and_bad_lengths():
    assert padding_mask([], 3).shape == (0, 3)
    assert padding_mask([0], 0).shape == (1, 0)
    for lengths in ([4], [-1, 2], [1, 9]):
        with pytest.raises(ValueError, match=r"^lengths must be 0 to 3, got ") as caught:
            padding_mask(lengths, 3)
        assert str(caught.value).endswith(f"got {lengths}")
    for lengths in (torch.tensor(2), torch.ones(2, 2).long(), torch.ones(2), torch.ones(2) > 0):
        with pytest.raises(ValueError, match=r"^expected integer lengths \(B,\), got ") as caught:
            padding_mask(lengths, 3)
        assert str(caught.value).endswith(f"got {tuple(lengths.shape)} of {lengths.dtype}")


@pytest.mark.parametrize(("length", "dim", "start"), [(1, 2, 0), (50, 16, 0), (7, 6, 1000), (0, 4, 3)])
def test_positions_are_the_papers_formula(agrees_with, length, dim, start):
    wanted = np.empty((length, dim))
    for row, column in product(range(length), range(dim)):
        angle = (start + row) / 10000 ** (column // 2 * 2 / dim)
        wanted[row, column] = math.cos(angle) if column % 2 else math.sin(angle)
    ours = sinusoidal_positions(length, dim, start)
    agrees_with(sinusoidal_positions, "closed form: sine and cosine entry by entry", ours, wanted, atol=6e-8)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, sinusoidal_positions(start + length, dim)[start:])


def test_a_shift_of_the_position_is_one_rotation_wherever_it_starts(agrees_with):
    code = sinusoidal_positions(40, 12).double().numpy()
    for offset in (0, 1, 7, -3):
        matrix = shift_matrix(offset, 12)
        first = max(0, -offset)
        rows = range(first, first + 30)
        moved = np.stack([matrix.numpy() @ code[p] for p in rows])
        agrees_with(
            shift_matrix,
            "closed form: the code of the shifted position",
            moved,
            code[[p + offset for p in rows]],
            atol=3e-7,
        )
        agrees_with(
            shift_matrix, "closed form: a rotation keeps lengths", matrix @ matrix.T, np.eye(12), atol=EXACT
        )
    assert matrix.dtype == torch.float64
    turn = [[math.cos(5), math.sin(5)], [-math.sin(5), math.cos(5)]]
    agrees_with(shift_matrix, "closed form: one rotation", shift_matrix(5, 2), turn, atol=EXACT)


def test_halves_side_by_side_are_the_same_columns_in_another_order():
    interleaved = sinusoidal_positions(20, 8)
    angle = np.arange(20)[:, None] / 10000 ** (np.arange(0, 8, 2) / 8)
    halves = np.concatenate([np.sin(angle), np.cos(angle)], 1)
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    assert np.abs(halves[:, order] - interleaved.numpy()).max() < 1e-7
    assert np.abs(halves - interleaved.numpy()).max() > 0.5


@pytest.mark.parametrize("dim", [0, 1, 3, -2])
def test_positions_refuse_an_odd_or_tiny_dim(dim):
    for function in (lambda: sinusoidal_positions(4, dim), lambda: shift_matrix(1, dim)):
        with pytest.raises(ValueError, match=f"^dim must be even and at least 2, got {dim}$"):
            function()


@pytest.mark.parametrize(("length", "start"), [(-1, 0), (3, -1)])
def test_positions_refuse_negative_lengths(length, start):
    with pytest.raises(ValueError, match=f"^length and start must be at least 0, got {length}, {start}$"):
        sinusoidal_positions(length, 4, start)


# --- heads and layers ------------------------------------------------------------------------------


def torch_attention(dim, heads):
    return randomize(nn.MultiheadAttention(dim, heads, batch_first=True, dtype=torch.float64))


@pytest.mark.parametrize(("dim", "heads"), [(6, 1), (6, 2), (6, 6), (8, 4)])
def test_multi_head_attention_is_torchs_under_the_same_weights(agrees_with, dim, heads):
    theirs, ours = torch_attention(dim, heads), MultiHeadAttention(dim, heads).double()
    copy_attention(ours, theirs)
    query, key, value = draw(2, 3, dim), draw(2, 5, dim, seed=1), draw(2, 5, dim, seed=2)
    masks = [
        None,
        torch.ones(3, 5, dtype=torch.bool).tril(),
        (draw(2, 3, 5, seed=3) > -0.5) | torch.tensor([True, False, False, False, False]),
        padding_mask([2, 5], 5)[:, None],
    ]
    for mask in masks:
        forbidden = None if mask is None else ~mask.expand(2, 3, 5).repeat_interleave(heads, 0)
        wanted = theirs(query, key, value, attn_mask=forbidden, need_weights=False)[0]
        agrees_with(
            MultiHeadAttention,
            "torch.nn.MultiheadAttention",
            ours(query, key, value, mask),
            wanted,
            atol=1e-14,
        )


def test_one_sequence_needs_no_batch_axis(agrees_with):
    theirs, ours = torch_attention(6, 2), MultiHeadAttention(6, 2).double()
    copy_attention(ours, theirs)
    query, key, mask = draw(3, 6), draw(5, 6, seed=1), draw(3, 5, seed=2) > -0.5
    wanted = theirs(query, key, key, attn_mask=~mask, need_weights=False)[0]
    got = ours(query, key, key, mask)
    agrees_with(MultiHeadAttention, "torch.nn.MultiheadAttention", got, wanted, atol=1e-14)
    for same in (mask[None], mask[None, None]):
        torch.testing.assert_close(ours(query[None], key[None], key[None], same[0]), got[None])


def test_heads_look_at_separate_columns(agrees_with):
    ours = randomize(MultiHeadAttention(6, 3).double())
    x = draw(2, 4, 6)
    q, k, v = ((x @ layer.weight.T + layer.bias).detach() for layer in (ours.query, ours.key, ours.value))
    parts = []
    for columns in (slice(0, 2), slice(2, 4), slice(4, 6)):
        scores = torch.einsum("bid,bjd->bij", q[..., columns], k[..., columns]) / math.sqrt(2)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        parts.append(torch.einsum("bij,bjd->bid", weights, v[..., columns]))
    wanted = torch.cat(parts, -1) @ ours.output.weight.T + ours.output.bias
    agrees_with(MultiHeadAttention, "closed form: one head after another", ours(x, x, x), wanted, atol=1e-14)


def test_attention_over_a_fully_padded_row_is_the_output_bias_where_torch_says_nan():
    theirs, ours = torch_attention(6, 2), MultiHeadAttention(6, 2).double()
    copy_attention(ours, theirs)
    x, mask = draw(2, 3, 6), padding_mask([3, 0], 3)
    out = ours(x, x, x, mask[:, None])
    torch.testing.assert_close(out[1], ours.output.bias.expand(3, 6))
    with_weights = theirs(x, x, x, key_padding_mask=~mask, need_weights=True)[0]
    without = theirs(x, x, x, key_padding_mask=~mask, need_weights=False)[0]
    assert with_weights[1].isnan().all()
    torch.testing.assert_close(without, out)
    assert out.isfinite().all()


@pytest.mark.parametrize(("dim", "heads"), [(6, 4), (0, 1), (4, 0), (4, -2), (-4, 2)])
def test_heads_must_divide_dim(dim, heads):
    with pytest.raises(ValueError, match=f"^heads must divide dim, got dim {dim} and heads {heads}$"):
        MultiHeadAttention(dim, heads)


def test_the_smallest_attention_has_one_column_and_one_head():
    assert MultiHeadAttention(1, 1)(*[torch.ones(1, 1, 1)] * 3).shape == (1, 1, 1)


def test_attention_takes_an_empty_batch_and_an_empty_sequence():
    attention = MultiHeadAttention(6, 2)
    for shape in ((0, 3, 6), (2, 0, 6)):
        x = torch.zeros(shape)
        assert attention(x, x, x, causal_mask(shape[1])).shape == shape


def test_attention_through_a_cache_is_the_causal_attention_of_the_whole(agrees_with):
    ours, cache, x = randomize(MultiHeadAttention(6, 2).double()), KeyValueCache(), draw(2, 7, 6)
    steps = []
    for start, stop in ((0, 1), (1, 2), (2, 5), (5, 7)):
        new = x[:, start:stop]
        steps.append(ours(new, new, new, causal_mask(stop - start, start), cache))
        assert len(cache) == stop
    theirs = nn.MultiheadAttention(6, 2, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
    copy(theirs.out_proj, ours.output)
    wanted = theirs(x, x, x, attn_mask=~causal_mask(7), need_weights=False)[0]
    agrees_with(KeyValueCache, "torch.nn.MultiheadAttention", torch.cat(steps, 1), wanted, atol=1e-14)
    agrees_with(MultiHeadAttention, "torch.nn.MultiheadAttention", torch.cat(steps, 1), wanted, atol=1e-14)


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_a_cache_appends_and_gives_everything_back(agrees_with, leading):
    cache, keys, values = KeyValueCache(), draw(*leading, 5, 4), draw(*leading, 5, 1, seed=1)
    assert len(cache) == 0
    for start, stop in ((0, 2), (2, 3), (3, 5)):
        before = keys.clone()
        got = cache.extend(keys[..., start:stop, :], values[..., start:stop, :])
        agrees_with(KeyValueCache, "closed form: the first rows of the whole", got[0], keys[..., :stop, :])
        agrees_with(KeyValueCache, "closed form: the first rows of the whole", got[1], values[..., :stop, :])
        assert len(cache) == stop
        assert torch.equal(keys, before)
    assert all(torch.equal(held, whole) for held, whole in zip(cache.held, (keys, values), strict=True))


def test_feed_forward_is_two_products_with_a_relu_between(agrees_with):
    ours, x = randomize(FeedForward(4, 9).double()), draw(2, 3, 4)
    up, down = ours.up, ours.down
    hidden = np.maximum(x.numpy() @ up.weight.detach().numpy().T + up.bias.detach().numpy(), 0)
    wanted = hidden @ down.weight.detach().numpy().T + down.bias.detach().numpy()
    agrees_with(FeedForward, "closed form: max(0, x W1 + b1) W2 + b2", ours(x), wanted, atol=EXACT)
    assert FeedForward(1, 1)(torch.zeros(0, 1)).shape == (0, 1)
    for dim, hidden_dim in ((0, 4), (4, 0)):
        with pytest.raises(ValueError, match=f"^sizes must be at least 1, got {dim} and {hidden_dim}$"):
            FeedForward(dim, hidden_dim)


def layer_norm(x, weight, bias):
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_residual_normalizes_the_sum_or_the_input(agrees_with, norm_first):
    ours, x, other = randomize(Residual(5, norm_first).double()), draw(2, 3, 5), draw(5, 5, seed=1)
    norm = [parameter.detach().numpy() for parameter in (ours.norm.weight, ours.norm.bias)]
    x_, w = x.numpy(), other.numpy()
    wanted = x_ + layer_norm(x_, *norm) @ w if norm_first else layer_norm(x_ + x_ @ w, *norm)
    agrees_with(Residual, "closed form: sum and layer norm", ours(x, lambda y: y @ other), wanted, atol=EXACT)


def test_by_default_the_norm_comes_last_and_nothing_is_dropped():
    residual = Residual(4)
    out = residual(draw(3, 4, dtype=torch.float32), torch.zeros_like)
    assert out.mean(-1).abs().max() < 1e-6
    assert residual.dropout.p == 0
    for layer in (EncoderLayer(4, 2, 8), DecoderLayer(4, 2, 8)):
        around = [child for child in layer.children() if isinstance(child, Residual)]
        assert [(each.norm_first, each.dropout.p) for each in around] == [(False, 0.0)] * len(around)


@pytest.mark.parametrize("layer", [EncoderLayer, DecoderLayer])
def test_dropout_reaches_every_residual_of_a_layer(layer):
    made = layer(4, 2, 8, True, 0.25)
    around = [child for child in made.children() if isinstance(child, Residual)]
    assert len(around) == (2 if layer is EncoderLayer else 3)
    assert [(each.norm_first, each.dropout.p) for each in around] == [(True, 0.25)] * len(around)


def test_dropout_acts_on_the_sublayer_and_never_on_the_way_past_it():
    residual, x = Residual(64, norm_first=True, dropout=0.5), torch.full((8, 64), 3.0)
    out = residual(x, lambda y: torch.ones_like(x))
    assert set(out.unique().tolist()) == {3.0, 5.0}
    residual.eval()
    assert set(residual(x, lambda y: torch.ones_like(x)).unique().tolist()) == {4.0}
    with pytest.raises(ValueError, match="between 0 and 1"):
        Residual(4, dropout=1.5)


def torch_layer(kind, norm_first):
    return randomize(
        kind(8, 2, 16, dropout=0.0, batch_first=True, norm_first=norm_first, dtype=torch.float64)
    )


@pytest.mark.parametrize("norm_first", [False, True])
def test_an_encoder_layer_is_torchs_under_the_same_weights(agrees_with, norm_first):
    theirs, ours = (
        torch_layer(nn.TransformerEncoderLayer, norm_first),
        EncoderLayer(8, 2, 16, norm_first).double(),
    )
    copy_encoder(ours, theirs)
    x, padding = draw(3, 5, 8), padding_mask([5, 2, 4], 5)
    reference = "torch.nn.TransformerEncoderLayer"
    agrees_with(EncoderLayer, reference, ours(x), theirs(x), atol=5e-14)
    wanted = theirs(x, src_mask=~causal_mask(5), src_key_padding_mask=~padding)
    agrees_with(EncoderLayer, reference, ours(x, causal_mask(5) & padding[:, None]), wanted, atol=5e-14)


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_decoder_layer_is_torchs_under_the_same_weights(agrees_with, norm_first):
    theirs, ours = (
        torch_layer(nn.TransformerDecoderLayer, norm_first),
        DecoderLayer(8, 2, 16, norm_first).double(),
    )
    copy_decoder(ours, theirs)
    x, memory, padding = draw(3, 4, 8), draw(3, 6, 8, seed=1), padding_mask([6, 2, 4], 6)
    reference = "torch.nn.TransformerDecoderLayer"
    agrees_with(DecoderLayer, reference, ours(x, memory), theirs(x, memory), atol=5e-14)
    wanted = theirs(x, memory, tgt_mask=~causal_mask(4), memory_key_padding_mask=~padding)
    ours_masked = ours(x, memory, causal_mask(4), padding[:, None])
    agrees_with(DecoderLayer, reference, ours_masked, wanted, atol=5e-14)


def test_a_decoder_layer_with_a_cache_gives_the_same_token_by_token(agrees_with):
    theirs, ours = torch_layer(nn.TransformerDecoderLayer, False), DecoderLayer(8, 2, 16).double()
    copy_decoder(ours, theirs)
    x, memory, cache = draw(2, 5, 8), draw(2, 3, 8, seed=1), KeyValueCache()
    steps = [ours(x[:, t : t + 1], memory, None, None, cache) for t in range(5)]
    wanted = theirs(x, memory, tgt_mask=~causal_mask(5))
    agrees_with(DecoderLayer, "torch.nn.TransformerDecoderLayer", torch.cat(steps, 1), wanted, atol=5e-14)


def test_gradients_of_the_layers_are_finite_differences():
    x, memory = draw(1, 3, 4).requires_grad_(), draw(1, 2, 4, seed=1).requires_grad_()
    encoder, decoder = (
        randomize(EncoderLayer(4, 2, 6).double()),
        randomize(DecoderLayer(4, 2, 6, True).double()),
    )
    assert torch.autograd.gradcheck(lambda y: encoder(y, causal_mask(3)), (x,))
    assert torch.autograd.gradcheck(lambda y, m: decoder(y, m, causal_mask(3)), (x, memory))


# --- the whole -------------------------------------------------------------------------------------

VOCABULARY, DIM = 13, 8


def whole_models(norm_first, layers=2):
    """Our model and nn.Transformer with its weights; the final norms of torch only where ours has them."""
    theirs = nn.Transformer(
        DIM, 2, layers, layers, 16, dropout=0.0, batch_first=True, norm_first=norm_first, dtype=torch.float64
    )
    randomize(theirs)
    ours = Transformer(VOCABULARY, DIM, 2, layers, 16, norm_first).double()
    randomize(ours, seed=1)
    for pair in zip(ours.encoder, theirs.encoder.layers, strict=True):
        copy_encoder(*pair)
    for pair in zip(ours.decoder, theirs.decoder.layers, strict=True):
        copy_decoder(*pair)
    if norm_first:
        copy(ours.encoder_norm, theirs.encoder.norm)
        copy(ours.decoder_norm, theirs.decoder.norm)
    else:
        theirs.encoder.norm = theirs.decoder.norm = None
    return ours, theirs


def tokens(*shape, seed=0):
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def embedded(table, indices):
    places = torch.tensor(
        [
            [
                (math.cos if column % 2 else math.sin)(p / 10000 ** (column // 2 * 2 / DIM))
                for column in range(DIM)
            ]
            for p in range(indices.shape[1])
        ],
        dtype=torch.float64,
    )
    return table[indices] * math.sqrt(DIM) + places.float()  # our codes are rounded to float32


def torch_logits(theirs, table, source, target, mask):
    out = theirs(
        embedded(table, source),
        embedded(table, target),
        tgt_mask=~causal_mask(target.shape[1]),
        src_key_padding_mask=None if mask is None else ~mask,
        memory_key_padding_mask=None if mask is None else ~mask,
    )
    return out @ table.T


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_the_whole_model_is_nn_transformer_under_the_same_weights(agrees_with, norm_first, padded):
    ours, theirs = whole_models(norm_first)
    source, target = tokens(3, 6), tokens(3, 5, seed=1)
    mask = padding_mask([6, 3, 1], 6) if padded else None
    wanted = torch_logits(theirs, ours.embedding.weight, source, target, mask)
    agrees_with(Transformer, "torch.nn.Transformer", ours(source, target, mask), wanted, atol=2e-14)
    memory = ours.encode(source, mask)
    again = ours.decode(target, memory, mask)
    assert torch.equal(again, ours(source, target, mask))


def test_gradients_of_the_whole_model_are_those_of_nn_transformer(agrees_with):
    ours, theirs = whole_models(False, layers=1)
    source, target, answer = tokens(2, 4), tokens(2, 3, seed=1), tokens(2, 3, seed=2)
    table = ours.embedding.weight.detach().clone().requires_grad_()
    F.cross_entropy(ours(source, target).flatten(0, 1), answer.flatten()).backward()
    F.cross_entropy(
        torch_logits(theirs, table, source, target, None).flatten(0, 1), answer.flatten()
    ).backward()
    agrees_with(Transformer, "torch.nn.Transformer", ours.embedding.weight.grad, table.grad, atol=EXACT)
    up, linear1 = ours.encoder[0].feed_forward.up, theirs.encoder.layers[0].linear1
    agrees_with(Transformer, "torch.nn.Transformer", up.weight.grad, linear1.weight.grad, atol=EXACT)


@pytest.mark.parametrize("norm_first", [False, True])
def test_no_logit_depends_on_a_later_target_token(norm_first):
    ours, _ = whole_models(norm_first)
    source, target = tokens(2, 6), tokens(2, 7, seed=1)
    before = ours(source, target)
    for place in range(7):
        changed = target.clone()
        changed[:, place] = (changed[:, place] + 1) % VOCABULARY
        moved = (ours(source, changed) - before).abs().amax((0, 2)) > 0
        assert moved.tolist() == [False] * place + [True] * (7 - place)


def test_every_logit_depends_on_every_source_token_but_not_on_padding():
    ours, _ = whole_models(False)
    source, target, mask = tokens(2, 6), tokens(2, 3, seed=1), padding_mask([4, 6], 6)
    before = ours(source, target, mask)
    for place in range(6):
        changed = source.clone()
        changed[:, place] = (changed[:, place] + 1) % VOCABULARY
        moved = (ours(changed, target, mask) - before).abs().amax(2) > 0
        assert moved[0].tolist() == [place < 4] * 3
        assert moved[1].tolist() == [True] * 3


def test_without_positions_the_encoder_cannot_tell_the_order(agrees_with):
    layer, x, order = (
        randomize(EncoderLayer(8, 2, 16).double()),
        draw(1, 6, 8),
        torch.tensor([3, 0, 5, 1, 4, 2]),
    )
    agrees_with(
        EncoderLayer,
        "closed form: the output in the new order",
        layer(x[:, order]),
        layer(x)[:, order],
        atol=EXACT,
    )
    ours, _ = whole_models(False)
    source = tokens(1, 6)
    assert (ours.encode(source[:, order]) - ours.encode(source)[:, order]).abs().max() > 0.1


def test_a_padded_batch_gives_each_row_what_it_gives_alone():
    ours, _ = whole_models(True)
    source, target, lengths = tokens(3, 6), tokens(3, 4, seed=1), [6, 2, 5]
    together = ours(source, target, padding_mask(lengths, 6))
    for row, length in enumerate(lengths):
        alone = ours(source[row : row + 1, :length], target[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("norm_first", [False, True])
def test_decoding_through_caches_gives_the_logits_of_the_full_pass(agrees_with, norm_first):
    ours, theirs = whole_models(norm_first)
    source, target, mask = tokens(2, 6), tokens(2, 7, seed=1), padding_mask([6, 4], 6)
    memory = ours.encode(source, mask)
    caches = [KeyValueCache() for _ in ours.decoder]
    pieces = [
        ours.decode(target[:, start:stop], memory, mask, caches)
        for start, stop in ((0, 1), (1, 2), (2, 3), (3, 6), (6, 7))
    ]
    wanted = torch_logits(theirs, ours.embedding.weight, source, target, mask)
    agrees_with(KeyValueCache, "torch.nn.Transformer", torch.cat(pieces, 1), wanted, atol=2e-14)
    torch.testing.assert_close(torch.cat(pieces, 1), ours(source, target, mask), atol=1e-12, rtol=1e-12)


def test_there_must_be_a_cache_for_each_layer():
    ours, _ = whole_models(True)
    memory = ours.encode(tokens(2, 6))
    for count in (1, 3):
        with pytest.raises(ValueError, match="zip"):
            ours.decode(tokens(2, 3), memory, caches=[KeyValueCache() for _ in range(count)])


def test_masks_and_codes_go_where_the_model_is():
    ours, indices = Transformer(5, 4, 2, 1, 8).to("meta"), torch.zeros(2, 3, dtype=torch.long, device="meta")
    caches = [KeyValueCache()]
    assert ours(indices, indices, torch.ones_like(indices) > 0).device.type == "meta"
    assert ours.decode(indices, ours.encode(indices), None, caches).device.type == "meta"


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_single_pair_of_sequences_needs_no_batch_axis(norm_first):
    ours, _ = whole_models(norm_first)
    source, target, mask = tokens(1, 6), tokens(1, 4, seed=1), padding_mask([4], 6)
    torch.testing.assert_close(
        ours(source[0], target[0], mask[0]), ours(source, target, mask)[0], atol=1e-12, rtol=1e-12
    )


def test_the_embedding_is_scaled_and_its_rows_start_near_length_one():
    torch.manual_seed(0)
    ours = Transformer(vocab_size=4000, dim=64, heads=2, layers=1, hidden_dim=8)
    assert ours.embedding.weight.std().item() == pytest.approx(1 / 8, rel=0.02)
    shown = ours.embed(torch.tensor([[7, 7]])) - ours.embedding.weight[7] * 8
    torch.testing.assert_close(shown[0], sinusoidal_positions(2, 64))
    assert (Transformer(5, 4, 2, 1, 8, dropout=0.3).dropout.p, ours.dropout.p) == (0.3, 0.0)
    assert (type(ours.encoder_norm), type(ours.decoder_norm)) == (nn.Identity, nn.Identity)
    layer = Transformer(5, 4, 2, 1, 8, dropout=0.3).encoder[0]
    assert layer.around_attention.dropout.p == 0.3
    assert not ours.encoder[0].around_attention.norm_first


def test_embedding_dropout_acts_while_training_only():
    model = Transformer(5, 64, 2, 1, 8, dropout=0.5)
    assert (model.embed(torch.zeros(1, 8).long()) == 0).double().mean() == pytest.approx(0.5, abs=0.1)
    model.eval()
    assert (model.embed(torch.zeros(1, 8).long()) == 0).double().mean() < 0.05


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_model_runs_in_half_precision(dtype):
    ours, _ = whole_models(True)
    source, target, mask = tokens(2, 4), tokens(2, 3, seed=1), padding_mask([4, 2], 4)
    wanted = ours(source, target, mask)
    got = ours.to(dtype)(source, target, mask)
    assert got.dtype == dtype
    assert (got.double() - wanted).norm() / wanted.norm() < 20 * torch.finfo(dtype).eps


def test_the_model_takes_an_empty_batch_and_single_tokens():
    ours = Transformer(5, 4, 1, 1, 4)
    assert ours(torch.zeros(0, 3).long(), torch.zeros(0, 2).long()).shape == (0, 2, 5)
    assert ours(torch.zeros(1, 1).long(), torch.zeros(1, 1).long()).shape == (1, 1, 5)
    for dim in (3, 0, -2, 1):
        with pytest.raises(ValueError, match=f"^dim must be even and at least 2, got {dim}$"):
            Transformer(5, dim, 1, 1, 4)
    assert Transformer(5, 2, 1, 1, 4)(torch.zeros(1, 1).long(), torch.zeros(1, 1).long()).shape == (1, 1, 5)


# --- decoding --------------------------------------------------------------------------------------


def wavering_model():
    """Its large weights make the next token hang on the source, on its mask and on the tokens before."""
    torch.manual_seed(1)
    model = Transformer(VOCABULARY, 16, 2, 2, 16, norm_first=True).double()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embedding" not in name:
                weight.mul_(3)
    return model


def decode_by_hand(model, source, start, end, max_length, mask):
    """Row by row, whole sequence again at each step, no batch and no cache."""
    rows = []
    for row in range(len(source)):
        chosen = [start]
        while len(chosen) < max_length and chosen[-1] != end:
            own_mask = None if mask is None else mask[row : row + 1]
            logits = model(source[row : row + 1], torch.tensor([chosen]), own_mask)[0, -1]
            chosen.append(int(logits.argmax()))
        rows.append(chosen)
    longest = max(map(len, rows))
    return [row + [end] * (longest - len(row)) for row in rows]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("padded", [False, True])
def test_greedy_decoding_is_argmax_row_by_row(agrees_with, use_cache, padded):
    ours, source, padding = wavering_model(), tokens(6, 5, seed=3), padding_mask([5, 1, 3, 2, 4, 5], 5)
    lengths = set()
    for start, end in ((1, 99), (1, 8), (0, 6), (3, 11)):
        wanted = decode_by_hand(ours, source, start, end, 9, padding if padded else None)
        got = greedy_decode(ours, source, start, end, 9, padding if padded else None, use_cache)
        agrees_with(greedy_decode, "brute force: argmax of the full pass, row by row", got, wanted)
        lengths |= {row.index(end) if end in row else 9 for row in wanted}
        assert not got.requires_grad
    assert len(lengths) > 2


def test_the_decoded_tokens_hang_on_mask_and_past():
    """Without this the test above would not notice a mask or a past that is left out."""
    ours, source, mask = wavering_model(), tokens(6, 5, seed=3), padding_mask([5, 1, 3, 2, 4, 5], 5)
    wanted = greedy_decode(ours, source, 1, 99, 9, mask)
    assert (wanted != greedy_decode(ours, source, 1, 99, 9)).any()
    newest = [ours(source, wanted[:, n : n + 1], mask)[:, -1].argmax(-1) for n in range(8)]
    assert (wanted[:, 1:] != torch.stack(newest, 1)).any()


def test_greedy_decoding_uses_the_cache_unless_told_otherwise(monkeypatch):
    ours, _ = whole_models(False)
    seen = []
    whole = ours.decode
    monkeypatch.setattr(ours, "decode", lambda *a: (seen.append(a[0].shape[1]), whole(*a))[1])
    greedy_decode(ours, tokens(2, 5, seed=3), 1, 99, 5)
    assert seen == [1, 1, 1, 1]
    seen.clear()
    greedy_decode(ours, tokens(2, 5, seed=3), 1, 99, 5, use_cache=False)
    assert seen == [1, 2, 3, 4]


class _Scripted:
    """A model whose next token is a fixed function of the row and the number of tokens so far."""

    decoder = ()

    def __init__(self, script):
        self.script, self.calls = script, 0

    def encode(self, source, mask):
        return source

    def decode(self, target, memory, mask, caches):
        self.calls += 1
        length = target.shape[1]
        wanted = torch.tensor([[row[n] for n in range(length)] for row in self.script])
        return F.one_hot(wanted, 10).double()


def test_decoding_stops_when_all_rows_have_ended_and_fills_with_the_end():
    model = _Scripted([[5, 9, 6, 7], [4, 3, 9, 7]])
    got = greedy_decode(model, torch.zeros(2, 1), start=1, end=9, max_length=10, use_cache=False)
    assert got.tolist() == [[1, 5, 9, 9], [1, 4, 3, 9]]
    assert model.calls == 3
    cut = greedy_decode(_Scripted([[5, 9, 6, 7], [4, 3, 9, 7]]), torch.zeros(2, 1), 1, 9, 3, use_cache=False)
    assert cut.tolist() == [[1, 5, 9], [1, 4, 3]]


def test_decoding_of_nothing_and_of_length_one():
    ours = Transformer(5, 4, 1, 1, 4)
    assert greedy_decode(ours, torch.zeros(0, 3).long(), 1, 2, 4).shape == (0, 1)
    assert greedy_decode(ours, torch.zeros(2, 3).long(), 1, 2, 1).tolist() == [[1], [1]]
    assert greedy_decode(ours, torch.zeros(2, 3).long(), 2, 2, 6).tolist() == [[2], [2]]
    for max_length in (0, -1):
        with pytest.raises(ValueError, match=f"^max_length must be at least 1, got {max_length}$"):
            greedy_decode(ours, torch.zeros(2, 3).long(), 1, 2, max_length)


# --- training --------------------------------------------------------------------------------------


def test_the_learning_rate_rises_in_a_line_and_falls_as_a_root(agrees_with):
    for dim, warmup in ((512, 4000), (64, 10), (1, 1)):
        steps = np.arange(1, 3 * warmup + 1)
        wanted = np.minimum(steps**-0.5, steps / warmup**1.5) / np.sqrt(dim)
        ours = [noam_rate(int(step), dim, warmup) for step in steps[:: max(1, warmup // 50)]]
        agrees_with(
            noam_rate, "closed form: equation 3 in NumPy", ours, wanted[:: max(1, warmup // 50)], rtol=1e-14
        )
        peak = noam_rate(warmup, dim, warmup)
        agrees_with(
            noam_rate,
            "closed form: the peak 1 / sqrt(dim * warmup)",
            peak,
            1 / math.sqrt(dim * warmup),
            rtol=1e-14,
        )
        assert peak >= max(ours)
    assert noam_rate(7, 512) == noam_rate(7, 512, 4000)


@pytest.mark.parametrize("bad", [(0, 512, 4000), (1, 0, 4000), (1, 512, 0), (-3, 2, 2)])
def test_steps_count_from_one(bad):
    with pytest.raises(
        ValueError, match=f"^step, dim and warmup must be at least 1, got {bad[0]}, {bad[1]} and {bad[2]}$"
    ):
        noam_rate(*bad)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("ignore_index", [-100, 0, 3])
def test_label_smoothing_is_torchs(agrees_with, smoothing, ignore_index):
    logits, target = 3 * draw(4, 5, 7), torch.randint(7, (4, 5), generator=torch.Generator().manual_seed(1))
    target[0, :2] = ignore_index
    logits.requires_grad_()
    ours = label_smoothing_loss(logits, target, smoothing, ignore_index)
    wanted = F.cross_entropy(
        logits.flatten(0, 1), target.flatten(), label_smoothing=smoothing, ignore_index=ignore_index
    )
    reference = "torch.nn.functional.cross_entropy"
    agrees_with(label_smoothing_loss, reference, ours, wanted, atol=EXACT)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (ours, wanted)]
    agrees_with(label_smoothing_loss, reference, *gradients, atol=EXACT)


def test_label_smoothing_defaults_to_the_papers_tenth_and_to_torchs_ignored_index(agrees_with):
    logits, target = draw(6, 4), torch.tensor([0, 1, 2, 3, -100, 1])
    wanted = F.cross_entropy(logits, target, label_smoothing=0.1)
    agrees_with(
        label_smoothing_loss,
        "torch.nn.functional.cross_entropy",
        label_smoothing_loss(logits, target),
        wanted,
        atol=EXACT,
    )
    assert label_smoothing_loss(logits, torch.full((6,), -100)).isnan()


def test_no_smoothing_allows_impossible_classes():
    logits = torch.tensor([[0.0, 0.0, -math.inf]])
    assert label_smoothing_loss(logits, torch.tensor([1]), 0.0).item() == pytest.approx(math.log(2))
    assert label_smoothing_loss(logits, torch.tensor([1]), 0.1) == math.inf


def test_one_class_and_no_target_at_all():
    logits, target = draw(3, 1), torch.tensor([0, -100, 0])
    assert label_smoothing_loss(logits, target) == 0
    assert label_smoothing_loss(draw(0, 4), torch.zeros(0).long()).isnan()


def test_ignored_targets_may_hold_anything_and_get_no_gradient():
    logits = draw(3, 4).requires_grad_()
    label_smoothing_loss(logits, torch.tensor([2, 255, 0]), 0.1, 255).backward()
    assert logits.grad[1].tolist() == [0.0] * 4
    assert logits.grad[0].abs().min() > 0
    target = torch.tensor([2, 255, 0], dtype=torch.uint8)
    assert label_smoothing_loss(logits, target, 0.1, 255) == label_smoothing_loss(
        logits, target.long(), 0.1, 255
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_losses_are_computed_in_float32(dtype):
    logits, target = (20 * draw(5, 6)).to(dtype), torch.tensor([0, 1, 2, 3, 4])
    ours = label_smoothing_loss(logits, target)
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(
        F.cross_entropy(logits.double(), target, label_smoothing=0.1).item(), rel=1e-5
    )
    assert label_smoothing_loss(logits[0], target[0]).shape == ()


def test_label_smoothing_refuses_what_does_not_fit():
    logits, target = torch.zeros(2, 3), torch.zeros(2).long()
    for bad_logits, bad_target in (
        (logits, target[:1]),
        (torch.zeros(()), target[0]),
        (logits, target.float()),
    ):
        with pytest.raises(
            ValueError, match=r"^expected logits \(\.\.\., V\) and integer target \(\.\.\.\), got "
        ) as caught:
            label_smoothing_loss(bad_logits, bad_target)
        assert str(caught.value).endswith(
            f"got {tuple(bad_logits.shape)} and {tuple(bad_target.shape)} of {bad_target.dtype}"
        )
    for smoothing in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"^smoothing must be 0 to 1, got {smoothing}$"):
            label_smoothing_loss(logits, target, smoothing)


# --- exercises -------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize(
    ("vocabulary", "dim", "layers", "hidden"), [(11, 8, 2, 12), (3, 2, 1, 5), (4, 6, 0, 9)]
)
def test_parameters_are_counted_as_they_are(agrees_with, norm_first, vocabulary, dim, layers, hidden):
    model = Transformer(vocabulary, dim, 2, layers, hidden, norm_first)
    counted = sum(weight.numel() for weight in model.parameters())
    ours = transformer_parameters(vocabulary, dim, layers, hidden, norm_first)
    agrees_with(transformer_parameters, "brute force: weights of the model, one by one", ours, counted)
    assert transformer_parameters(vocabulary, dim, layers, hidden) == ours - 4 * dim * norm_first
    if layers and norm_first:
        theirs = nn.Transformer(dim, 2, layers, layers, hidden, norm_first=True)
        wanted = sum(weight.numel() for weight in theirs.parameters()) + vocabulary * dim
        agrees_with(transformer_parameters, "torch.nn.Transformer", ours, wanted)


def test_a_parameter_count_refuses_negative_sizes():
    assert transformer_parameters(0, 0, 0, 0) == 0
    for place in range(4):
        sizes = [2, 2, 2, 2]
        sizes[place] = -1
        with pytest.raises(ValueError, match=r"^sizes must be at least 0, got ") as caught:
            transformer_parameters(*sizes)
        assert str(caught.value).endswith(f"got {tuple(sizes)}")


@pytest.mark.parametrize(("length", "window"), [(0, 1), (1, 1), (6, 1), (6, 3), (4, 9)])
def test_a_window_reaches_back_so_far(agrees_with, length, window):
    wanted = [[0 <= i - j < window for j in range(length)] for i in range(length)]
    ours = window_mask(length, window)
    agrees_with(
        window_mask,
        "brute force: distance of each pair",
        ours,
        np.array(wanted, dtype=bool).reshape(length, length),
    )


@pytest.mark.parametrize(("length", "window"), [(-1, 1), (3, 0)])
def test_a_window_refuses_sizes_without_meaning(length, window):
    with pytest.raises(ValueError, match=f"^need length >= 0 and window >= 1, got {length} and {window}$"):
        window_mask(length, window)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_attention_in_blocks_is_the_whole(agrees_with, size):
    query, key, value = draw(2, 5, 4), 4 * draw(2, 7, 4, seed=1), draw(2, 7, 3, seed=2)
    wanted = F.scaled_dot_product_attention(query, key, value)
    reference = "torch.nn.functional.scaled_dot_product_attention"
    ours = attention_in_blocks(query, key, value, size)
    agrees_with(attention_in_blocks, reference, ours, wanted, atol=EXACT)
    shifted = attention_in_blocks(query * 1e4, key, value, size)
    assert shifted.isfinite().all()


def test_attention_in_blocks_has_the_gradient_of_the_whole(agrees_with):
    inputs = [draw(3, 4, seed=s).requires_grad_() for s in range(3)]
    ours = torch.autograd.grad(attention_in_blocks(*inputs, 2).square().sum(), inputs)
    wanted = torch.autograd.grad(F.scaled_dot_product_attention(*inputs).square().sum(), inputs)
    for a, b in zip(ours, wanted, strict=True):
        agrees_with(attention_in_blocks, "torch.nn.functional.scaled_dot_product_attention", a, b, atol=EXACT)


def test_attention_in_blocks_takes_a_single_key_and_half_precision():
    query, key, value = draw(3, 4), draw(1, 4, seed=1), draw(1, 2, seed=2)
    torch.testing.assert_close(attention_in_blocks(query, key, value, 2), value.expand(3, 2))
    small = [draw(5, 8, seed=s).bfloat16() for s in range(3)]
    wanted = F.scaled_dot_product_attention(*[t.double() for t in small])
    ours = attention_in_blocks(*small, 2)
    assert ours.dtype == torch.bfloat16
    assert (ours.double() - wanted).abs().max() < 4 * torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize(("size", "keys", "values"), [(0, 3, 3), (2, 0, 0), (-1, 3, 3), (2, 3, 2), (2, 3, 4)])
def test_attention_in_blocks_needs_a_size_and_keys_and_values(size, keys, values):
    wanted = rf"^expected size >= 1 and at least one key, with a value each, got {size}, \({keys}, 2\) and \({values}, 5\)$"
    with pytest.raises(ValueError, match=wanted):
        attention_in_blocks(torch.zeros(3, 2), torch.zeros(keys, 2), torch.zeros(values, 5), size)
