"""The measurements of the Transformer page: recounted another way, repeatable, and run on small settings."""

import inspect
import math
from statistics import fmean

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from scripts.experiments import transformer as experiments
from snippets.transformer import (
    EncoderLayer,
    MultiHeadAttention,
    Transformer,
    causal_mask,
    lstm_cell,
    rnn_cell,
    window_mask,
)

# --- gradients -------------------------------------------------------------------------------------


def test_the_norms_are_those_of_the_whole_jacobian():
    torch.manual_seed(0)
    layer, x = nn.RNN(3, 4, batch_first=True, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)

    def last(inputs):
        h = torch.zeros(4, dtype=torch.float64)
        for step in inputs:
            h = rnn_cell(step, h, *layer.parameters())
        return h

    jacobian = torch.autograd.functional.jacobian(last, x)  # (H, T, D)
    wanted = jacobian.square().sum((0, 2)).sqrt()
    torch.testing.assert_close(experiments._recurrent_jacobian(layer, x), wanted)


def test_the_norms_of_attention_are_those_of_the_whole_jacobian():
    torch.manual_seed(0)
    layers = [EncoderLayer(4, 2, 8, norm_first=True).double() for _ in range(2)]
    norm, x = nn.LayerNorm(4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    code = experiments.sinusoidal_positions(5, 4).double()

    def last(inputs):
        y = inputs + code
        for layer in layers:
            y = layer(y, causal_mask(5))
        return norm(y)[-1]

    wanted = torch.autograd.functional.jacobian(last, x).square().sum((0, 2)).sqrt()
    torch.testing.assert_close(experiments._attention_jacobian(layers, norm, x), wanted)


def test_cells_forget_as_initialized_and_an_open_gate_or_attention_does_not():
    result = experiments.gradients(dim=16, seeds=(0, 1))
    assert [row["net"] for row in result["rows"]] == [
        *("rnn", "lstm", "gru", "lstm_open", "rnn_large", "transformer")
    ]
    for row in result["rows"]:
        curve = result[f"{row['net']}_curve"]
        assert row["near"] == result[f"{row['net']}_near"] == curve[1]
        assert row["factor"] == pytest.approx((curve[40] / curve[8]) ** (1 / 32))
        assert row["factor_low"] <= row["factor"] <= row["factor_high"]
        assert row["at_64"] == pytest.approx(curve[64] / curve[1])
    for net in ("rnn", "lstm", "gru"):
        assert result[f"{net}_factor"] < 0.8
        crossing = result[f"{net}_crossing"]
        below = result[f"{net}_curve"] < result["transformer_curve"]
        assert below[crossing]
        assert not below[1:crossing].any()
    assert result["rnn_factor"] < result["circle_factor"]
    assert result["lstm_open_factor"] > result["open_factor"] == pytest.approx(torch.tensor(3.0).sigmoid())
    assert abs(math.log(result["transformer_factor"])) < 0.05


def test_a_large_recurrent_matrix_has_the_radius_of_the_circular_law():
    torch.manual_seed(0)
    weights = nn.RNN(1, 1000).weight_hh_l0.detach()
    radius = torch.linalg.eigvals(weights).abs().max()
    assert radius.item() == pytest.approx(1 / math.sqrt(3), rel=0.05)


def test_an_open_gate_alone_keeps_what_its_sigmoid_says():
    """What the measured factor exceeds it by is the way through h, as the page says."""
    torch.manual_seed(0)
    layer = nn.LSTM(16, 16, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        layer.weight_hh_l0.zero_()
        layer.weight_ih_l0[16:32] = 0
        layer.bias_ih_l0[16:32], layer.bias_hh_l0[16:32] = 3, 0
    x = torch.randn(1, 16, dtype=torch.float64).expand(60, 16)  # the same input: the same gates at each step
    curve = experiments._recurrent_jacobian(layer, x).flip(0)
    factor = float((curve[30] / curve[20]) ** 0.1)
    assert factor == pytest.approx(1 / (1 + math.exp(-3)), rel=1e-6)


# --- counts and times ------------------------------------------------------------------------------


def test_multiply_adds_are_those_that_torch_counts():
    result = experiments.operations(dim=8, lengths=(4, 16, 32))
    attention, cell = MultiHeadAttention(8, 2), nn.LSTMCell(8, 8)
    for row in result["rows"]:
        n = row["length"]
        x = torch.randn(1, n, 8)
        with FlopCounterMode(display=False) as counter:
            attention(x, x, x)
        assert counter.get_total_flops() == pytest.approx(2e6 * row["attention"])
        with FlopCounterMode(display=False) as counter:
            state = (torch.zeros(1, 8), torch.zeros(1, 8))
            for step in x.unbind(1):
                state = lstm_cell(step, state, *cell.parameters())
        assert counter.get_total_flops() == pytest.approx(2e6 * row["lstm"])
        assert row["scores"] + row["projections"] == pytest.approx(row["attention"])
        assert row["ratio"] == pytest.approx(row["attention"] / row["lstm"])
        assert (row["chain_lstm"], row["chain_attention"]) == (n, 4)
    assert [row["ratio"] == 1 for row in result["rows"]] == [False, True, False]
    assert result["lstm_parameters"] == result["lstm_formula"]
    with torch.device("meta"):
        base = Transformer(37000, 512, 8, 6, 2048)
    assert result["base_parameters"] == sum(weight.numel() for weight in base.parameters())
    assert result["embedding_parameters"] == base.embedding.weight.numel()


def test_a_chain_counts_products_and_nothing_else():
    a, b = torch.eye(2, requires_grad=True), torch.eye(2, requires_grad=True)
    assert experiments._chain((a + b).exp()) == 0
    assert experiments._chain(a @ b + b @ a) == 1
    assert experiments._chain((a @ b).tanh() @ b) == 2


def test_kept_bytes_are_those_of_what_the_backward_pass_needs():
    x = torch.zeros(100, requires_grad=True)
    assert experiments._saved_bytes(x.exp) == 400  # its result
    assert experiments._saved_bytes(lambda: x.exp() * x.exp()) == 800
    assert experiments._saved_bytes(lambda: x + x) == 0


def test_step_by_step_gives_the_same_and_memory_grows_with_the_square():
    result = experiments.timing(lengths=(8, 64, 128), dim=16, batch=2, repeats=1)
    assert result["largest_error"] < 1e-5
    assert result["attention_parameters"] == pytest.approx(result["lstm_parameters"], rel=0.05)
    short, long = result["rows"][1:]
    assert long["lstm_mib"] == pytest.approx(2 * short["lstm_mib"], rel=0.1)
    assert long["attention_mib"] > 2.3 * short["attention_mib"]
    assert result["lowest"] == min(row["speedup"] for row in result["rows"])
    assert result[f"speedup_{result['highest_length']}"] == result["highest"]
    dim = inspect.signature(experiments.timing).parameters["dim"].default
    layers = EncoderLayer(dim, 4, 2 * dim), nn.LSTM(dim, dim)
    ours, theirs = (sum(weight.numel() for weight in layer.parameters()) for layer in layers)
    assert ours == pytest.approx(theirs, rel=0.01)


# --- scale and positions ---------------------------------------------------------------------------


def test_the_variance_of_a_product_is_its_width_and_dividing_brings_it_back_to_one():
    result = experiments.scaling(sizes=(1, 16, 256), keys=8, draws=400)
    for row in result["rows"]:
        assert row["raw_variance"] == pytest.approx(row["size"], rel=0.15)
        assert row["scaled_variance"] == pytest.approx(1, rel=0.15)
        assert row["raw_variance"] == pytest.approx(row["size"] * row["scaled_variance"], rel=1e-4)
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(400, 1, 1, generator=generator), torch.randn(400, 8, 1, generator=generator)
    scores = (query @ key.mT)[:, 0]
    weights = scores.softmax(-1)
    jacobians = torch.stack(
        [torch.autograd.functional.jacobian(lambda s: s.softmax(-1), each) for each in scores]
    )
    first = result["rows"][0]
    assert first["raw_largest"] == pytest.approx(weights.amax(-1).mean().item(), rel=1e-4)
    assert first["raw_gradient"] == pytest.approx(jacobians.flatten(1).norm(dim=1).mean().item(), rel=1e-4)
    assert result["raw_gradient_256"] < first["raw_gradient"]


def test_products_of_codes_depend_on_the_offset_only():
    result = experiments.positions(length=40, dim=8)
    angle = np.arange(40) / 10000 ** (np.arange(0, 8, 2)[:, None] / 8)
    wanted = np.cos(angle).sum(0)  # sum over the pairs of cos(offset * rate)
    assert np.abs(result["profile"] - wanted).max() < 1e-6
    assert max(result["shift_error"], result["product_spread"]) < 1e-6
    assert result["squared_length"] == pytest.approx(4)
    assert result["product_8"] == pytest.approx(wanted[8] / 4, abs=1e-6)


# --- forgetting ------------------------------------------------------------------------------------


def test_the_answer_is_the_symbol_so_many_steps_before():
    task, x = experiments._Task("rnn"), torch.arange(8)[None]
    logits, wanted = experiments._delay_logits(task, x, 3)
    assert wanted.tolist() == [[0, 1, 2, 3, 4]]
    whole = task.net(task.symbol(x))
    torch.testing.assert_close(logits, whole[:, 3:])  # at step 3 the symbol of step 0 is due


def test_a_short_delay_is_learned_and_trainings_repeat_themselves():
    small = {"distances": (1,), "seeds": (0, 1), "steps": 70, "narrow": (1,)}
    result = experiments.delay(**small)
    for net in ("rnn", "lstm", "gru", "transformer", "rnn_narrow"):
        assert result["chance"] < 0.6 < result[f"{net}_1"] <= 1
    for net in ("rnn", "lstm", "gru", "transformer"):
        found = [row["accuracy"] for row in result["seed_rows"] if row["net"] == net]
        assert (fmean(found), min(found), max(found)) == tuple(
            result[f"{net}{end}_1"] for end in ("", "_low", "_high")
        )
    setting = {key: result[key] for key in ("steps", "batch", "answers")}
    again = experiments._delay_accuracy("gru", 1, 1, **setting)
    assert again in [row["accuracy"] for row in result["seed_rows"] if row["net"] == "gru"]
    weights = [result[f"{net}_parameters"] for net in ("rnn", "lstm", "gru", "transformer")]
    assert max(weights) < 1.06 * min(weights)


@pytest.mark.parametrize("net", ["rnn", "lstm", "gru", "transformer"])
def test_an_answer_depends_on_the_pairs_and_its_own_key_and_on_no_other_question(net):
    torch.manual_seed(0)
    task = experiments._Task(net)
    keys, values = experiments._pairs(3, 4, torch.Generator().manual_seed(0))
    assert all(len(set(row)) == 4 for row in keys.tolist())
    pairs, queries = task.key(keys) + task.symbol(values), task.key(keys)
    together = task.net.recall(pairs, queries)
    changed = queries.clone()
    changed[:, 1:, 0] += 1  # one column: layer norm would not see the same in all
    torch.testing.assert_close(task.net.recall(pairs, changed)[:, 0], together[:, 0])
    assert (task.net.recall(pairs, changed)[:, 1:] - together[:, 1:]).abs().min() > 0
    moved = pairs.clone()
    moved[:, 0, 0] += 1
    assert (task.net.recall(moved, queries) - together).abs().amax((0, 2)).min() > 0


def test_recall_runs_and_the_guess_is_the_most_frequent_symbol():
    result = experiments.recall(counts=(2, 3), seeds=(0,), steps=30)
    _, values = experiments._pairs(1000, 3, torch.Generator().manual_seed(10**6))
    best = [max(row.count(symbol) for symbol in row) / 3 for row in values.tolist()]
    assert result["guess_3"] == pytest.approx(fmean(best))
    for net in ("rnn", "lstm", "gru", "transformer"):
        assert 0 < result[f"{net}_3"] <= 1
        assert result[f"{net}_by_distance"].mean() == pytest.approx(result[f"{net}_3"])


# --- reversal --------------------------------------------------------------------------------------


def test_the_target_is_the_source_backwards_between_start_and_end():
    source, mask, target = experiments._reversals(2, 5, 50, torch.Generator().manual_seed(0))
    lengths = mask.sum(1).tolist()
    assert set(lengths) == {2, 3, 4, 5}
    for row, length in enumerate(lengths):
        digits = source[row].tolist()
        assert digits[length:] == [0] * (5 - length)
        assert min(digits[:length]) > 2
        assert target[row].tolist() == [1, *digits[:length][::-1], 2, *digits[length:]]


def test_the_weights_drawn_are_those_of_the_cross_attention():
    torch.manual_seed(0)
    model = Transformer(13, 8, 2, 1, 16).double()
    source, target = torch.tensor([[5, 6, 7]]), torch.tensor([[1, 7, 6, 5]])
    weights = experiments._cross_weights(model, source, target)
    layer = model.decoder[-1]
    memory = model.encode(source)
    x = layer.around_attention(model.embed(target), lambda y: layer.attention(y, y, y, causal_mask(4)))
    theirs = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    inner = layer.cross_attention
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([inner.query.weight, inner.key.weight, inner.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([inner.query.bias, inner.key.bias, inner.value.bias]))
    wanted = theirs(x, memory, memory, need_weights=True, average_attn_weights=False)[1][0]
    torch.testing.assert_close(weights, wanted.detach(), atol=1e-12, rtol=1e-12)


def test_the_loss_falls_towards_the_least_that_smoothing_leaves():
    result = experiments.reversal(steps=60, seeds=(0,), longest=5, batch=16)
    smooth = F.one_hot(torch.tensor(4), 13) * 0.9 + 0.1 / 13
    floor = F.cross_entropy(smooth.log()[None], torch.tensor([4]), label_smoothing=0.1)
    assert result["loss_floor"] == pytest.approx(floor.item(), rel=1e-5)
    assert result["loss_floor"] < result["loss_last"] < result["loss_first"]
    assert (np.diff(result["rates"]) > 0).all()  # 60 steps are still within the warm-up
    assert result["cache_same"] == 1
    assert result["weights_map"].shape == (4, 6, 5)
    assert np.abs(result["weights_map"].sum(-1) - 1).max() < 1e-5
    best = max(fmean(head[step, 4 - step] for step in range(5)) for head in result["weights_map"])
    assert result["peak"] == pytest.approx(best)
    assert [row["trained"] for row in result["rows"]] == [True, True, True, False, False]


# --- published mistakes ----------------------------------------------------------------------------


def test_the_right_versions_are_right_and_the_wrong_ones_wrong():
    result = experiments.published_mistakes()
    assert {row["mistake"]: (row["wrong"], row["right"]) for row in result["rows"]} == {
        row["mistake"]: (result[f"{row['mistake']}_wrong"], result[f"{row['mistake']}_right"])
        for row in result["rows"]
    }
    assert len(result["rows"]) == result["mistakes"] == 10
    assert result["polarity_wrong"] == pytest.approx(1)
    assert (result["polarity_right"], result["broadcast_right"], result["naive_mask_right"]) == (0, 0, 0)
    assert result["naive_mask_wrong"] == 1 / 8  # one query of eight
    assert (result["top_left_wrong"], result["top_left_right"]) == (1, 8)
    assert (result["wrong_axis_wrong"], result["wrong_axis_right"]) == (1, 0)
    # 4 heads of 8 positions in 8 rows of 4 columns: the last head holds positions 6 and 7 only.
    assert (result["bare_view_wrong"], result["bare_view_right"]) == (2, 8)
    assert result["reset_gate_right"] < 1e-5 < 0.1 < result["reset_gate_wrong"]
    assert result["mixed_columns_right"] < 1e-5 < 1 < result["mixed_columns_wrong"]
    assert result["model_size_wrong"] < 0.6 * result["model_size_right"]
    assert result["late_mask_wrong"] < 0.7 < result["late_mask_right"] == pytest.approx(1)


def test_the_padding_seen_without_the_axis_is_recounted():
    """Row b of the mask goes to query b of every sequence: key j of sequence s is seen if j < length of b."""
    lengths = [4, 1, 2, 3]
    padded = [(s, q, k) for s in range(4) for q in range(4) for k in range(4) if k >= lengths[s]]
    seen = [k < lengths[q] for _, q, k in padded]
    assert experiments.published_mistakes()["broadcast_wrong"] == pytest.approx(fmean(seen))


def test_torch_itself_is_of_three_minds_about_a_fully_padded_row():
    torch.manual_seed(0)
    layer, x = nn.MultiheadAttention(4, 2, batch_first=True), torch.randn(1, 3, 4)
    padding = torch.ones(1, 3, dtype=torch.bool)
    assert layer(x, x, x, key_padding_mask=padding, need_weights=True)[0].isnan().all()
    assert layer(x, x, x, key_padding_mask=padding, need_weights=False)[0].isfinite().all()
    assert (F.scaled_dot_product_attention(x, x, x, ~padding) == 0).all()


def test_the_last_norm_is_where_the_page_says():
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, norm_first=True)
    assert nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).norm is None
    whole = nn.Transformer(4, 2, 1, 1, 8, batch_first=True)  # post-norm
    assert isinstance(whole.encoder.norm, nn.LayerNorm)
    assert isinstance(whole.decoder.norm, nn.LayerNorm)


@pytest.mark.parametrize(("length", "window"), [(2, 2), (9, 2), (9, 3), (10, 3), (12, 5), (5, 9)])
def test_windows_in_a_row_reach_as_far_as_the_exercise_says(length, window):
    layers = math.ceil((length - 1) / (window - 1))
    mask = window_mask(length, window).double()
    assert torch.linalg.matrix_power(mask, layers)[-1, 0] > 0
    assert torch.linalg.matrix_power(mask, layers - 1)[-1, 0] == 0
