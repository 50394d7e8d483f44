"""OadTR against torch's own Transformer, scikit-learn's average precision, and counting by hand."""

import itertools
import math

import numpy as np
import pytest
import sklearn.metrics
import torch
from sklearn.metrics.pairwise import cosine_similarity
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from snippets.oadtr import (
    Attention,
    CachedTokenAttention,
    DecoderLayer,
    EncoderLayer,
    GruDetector,
    OadDecoder,
    OadEncoder,
    OadTR,
    StreamingDetector,
    average_precision,
    calibrated_average_precision,
    frame_cost,
    future_targets,
    interpolated_average_precision,
    mean_average_precision,
    mean_per_video_ap,
    oadtr_loss,
    sliding_windows,
    token_similarity,
)


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def scrambled(module, seed=0):
    """The module in float64 with every parameter random: no bias or gain is 0 or 1."""
    module = module.double()
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.copy_(0.5 * noise(*parameter.shape, seed=seed + number))
    return module.eval()


# --- the same weights in torch's own modules -----------------------------------------------------


def torch_attention(ours):
    dim = ours.query.in_features
    theirs = nn.MultiheadAttention(dim, ours.heads, batch_first=True, dtype=torch.float64)
    fill_attention(theirs, ours)
    return theirs.eval()


def fill_attention(theirs, ours):
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
    theirs.out_proj.load_state_dict(ours.out.state_dict())


def fill_layer(theirs, ours, *attentions):
    for name, attention in attentions:
        fill_attention(getattr(theirs, name), attention)
    theirs.linear1.load_state_dict(ours.feed_forward[0].state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward[2].state_dict())
    for norm in ("norm1", "norm2", "norm3"):
        if hasattr(ours, norm):
            getattr(theirs, norm).load_state_dict(getattr(ours, norm).state_dict())


OPTIONS = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "dtype": torch.float64}


def torch_encoder_layer(ours):
    dim, hidden = ours.attention.query.in_features, ours.feed_forward[0].out_features
    theirs = nn.TransformerEncoderLayer(dim, ours.attention.heads, hidden, norm_first=True, **OPTIONS)
    fill_layer(theirs, ours, ("self_attn", ours.attention))
    return theirs.eval()


def torch_decoder_layer(ours):
    dim, hidden = ours.self_attention.query.in_features, ours.feed_forward[0].out_features
    theirs = nn.TransformerDecoderLayer(dim, ours.self_attention.heads, hidden, **OPTIONS)
    fill_layer(theirs, ours, ("self_attn", ours.self_attention), ("multihead_attn", ours.cross_attention))
    return theirs.eval()


def torch_encoder(ours):
    """All rows that nn.TransformerEncoder gives for a window, the task token's last."""
    theirs = nn.TransformerEncoder(
        torch_encoder_layer(ours.layers[0]), len(ours.layers), norm=ours.norm, enable_nested_tensor=False
    ).eval()
    for layer, own in zip(theirs.layers, ours.layers, strict=True):
        layer.load_state_dict(torch_encoder_layer(own).state_dict())

    def rows(x):
        if ours.token is not None:
            x = torch.cat([x, ours.token.repeat(len(x), 1, 1)], 1)
        return theirs(x + ours.position[None])

    return rows


def torch_decoder(ours):
    theirs = nn.TransformerDecoder(
        torch_decoder_layer(ours.layers[0]), len(ours.layers), norm=ours.norm
    ).eval()
    for layer, own in zip(theirs.layers, ours.layers, strict=True):
        layer.load_state_dict(torch_decoder_layer(own).state_dict())
    later = torch.ones(len(ours.queries), len(ours.queries)).triu(1).bool()

    def predicted(memory):
        return theirs(ours.queries.repeat(len(memory), 1, 1), memory, tgt_mask=later)

    return predicted


def torch_oadtr(ours):
    encode = torch_encoder(ours.encoder)
    decode = torch_decoder(ours.decoder) if ours.decoder is not None else None

    def logits(x):
        rows = encode(x @ ours.project.weight.T + ours.project.bias)
        if decode is None:
            return rows[:, -1] @ ours.head.weight.T + ours.head.bias, None
        predicted = decode(rows)
        joined = torch.cat([rows[:, -1], predicted.mean(1)], 1)
        return (
            joined @ ours.head.weight.T + ours.head.bias,
            predicted @ ours.future_head.weight.T + ours.future_head.bias,
        )

    return logits


def small(task_token=True, future=3, length=5, seed=0, **options):
    return scrambled(OadTR(6, 4, 8, 2, 2, 2, length, future, task_token, **options), seed)


# --- windows and targets -------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 5, 9])
@pytest.mark.parametrize("shape", [(7, 3), (1, 4), (2, 6, 3), (0, 3), (2, 0, 3), (4, 0)])
def test_window_t_holds_the_frames_up_to_t_and_zeros_before_the_first(agrees_with, shape, length):
    features = noise(*shape)
    before = features.clone()
    expected = np.zeros((*shape[:-1], length, shape[-1]))
    for t, slot in itertools.product(range(shape[-2]), range(length)):
        if (frame := t - length + 1 + slot) >= 0:
            expected[..., t, slot, :] = features[..., frame, :].numpy()
    ours = sliding_windows(features, length)
    assert ours.shape == expected.shape
    agrees_with(sliding_windows, "brute force: frame by frame", ours, expected, atol=0)
    assert torch.equal(features, before)


def test_full_windows_are_those_of_numpy(agrees_with):
    features = noise(20, 3)
    theirs = np.lib.stride_tricks.sliding_window_view(features.numpy(), 6, axis=0).swapaxes(1, 2)
    agrees_with(
        sliding_windows,
        "numpy.lib.stride_tricks.sliding_window_view",
        sliding_windows(features, 6)[5:],
        theirs,
        atol=0,
    )


def test_a_later_frame_changes_no_earlier_window():
    features = noise(12, 3).requires_grad_()
    windows = sliding_windows(features, 5)
    windows[7].sum().backward()
    assert (features.grad[3:8] == 1).all()
    assert (features.grad[8:] == 0).all()
    assert (features.grad[:3] == 0).all()


def test_windows_take_strided_and_half_precision_frames_and_copy_once():
    features = noise(3, 9, dtype=torch.float16).T
    assert not features.is_contiguous()
    windows = sliding_windows(features, 4)
    assert windows.dtype == torch.float16
    assert torch.equal(windows[8], features[5:])
    assert windows.untyped_storage().nbytes() <= 2 * (9 + 4) * 3


@pytest.mark.parametrize(
    ("features", "length", "message"),
    [
        (torch.zeros(4), 2, r"^expected features \(\.\.\., T, D\), got \(4,\)$"),
        (torch.zeros(4, 2), 0, r"^length must be at least 1, got 0$"),
    ],
)
def test_windows_of_one_axis_or_no_length_are_refused(features, length, message):
    with pytest.raises(ValueError, match=message):
        sliding_windows(features, length)


@pytest.mark.parametrize("future", [0, 1, 3, 12])
@pytest.mark.parametrize("shape", [(7,), (1,), (2, 5), (0,), (2, 0)])
def test_targets_are_the_next_labels_and_nothing_beyond_the_end(agrees_with, shape, future):
    labels = torch.randint(0, 9, shape, generator=torch.Generator().manual_seed(1))
    expected = np.full((*shape, future), -7)
    for t, k in itertools.product(range(shape[-1]), range(future)):
        if t + 1 + k < shape[-1]:
            expected[..., t, k] = labels[..., t + 1 + k].numpy()
    ours = future_targets(labels, future, ignore_index=-7)
    assert ours.shape == expected.shape
    agrees_with(future_targets, "brute force: label by label", ours, expected, atol=0)


def test_what_lies_beyond_the_end_is_ignored_by_cross_entropy_unless_told():
    assert future_targets(torch.tensor([1, 2]), 1).tolist() == [[2], [-100]]
    with pytest.raises(ValueError, match=r"^future must not be negative, got -1$"):
        future_targets(torch.tensor([1]), -1)


# --- attention and layers ------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize(("queries", "keys"), [(3, 5), (1, 1), (6, 2)])
def test_attention_is_torchs(agrees_with, heads, queries, keys):
    ours = scrambled(Attention(8, heads))
    x, memory = noise(2, queries, 8, seed=1), noise(2, keys, 8, seed=2)
    theirs, _ = torch_attention(ours)(x, memory, memory)
    agrees_with(Attention, "torch.nn.MultiheadAttention", ours(x, memory), theirs, atol=1e-14)


def test_causal_attention_is_torchs_with_a_mask(agrees_with):
    ours, x = scrambled(Attention(8, 2)), noise(2, 5, 8, seed=1)
    later = torch.ones(5, 5).triu(1).bool()
    theirs, _ = torch_attention(ours)(x, x, x, attn_mask=later)
    agrees_with(Attention, "torch.nn.MultiheadAttention", ours(x, x, causal=True), theirs, atol=1e-14)
    assert not torch.allclose(ours(x, x), ours(x, x, causal=True))


@pytest.mark.parametrize(("dim", "heads"), [(8, 3), (8, 0), (6, 4)])
def test_heads_that_do_not_divide_the_width_are_refused(dim, heads):
    with pytest.raises(ValueError, match=f"^heads must divide dim, got {heads} and {dim}$"):
        Attention(dim, heads)


@pytest.mark.parametrize("hidden", [None, 8, 20])
def test_an_encoder_layer_is_torchs_with_the_norm_first(agrees_with, hidden):
    ours, x = scrambled(EncoderLayer(8, 2, hidden)), noise(3, 5, 8, seed=1)
    before = x.clone()
    agrees_with(
        EncoderLayer, "torch.nn.TransformerEncoderLayer", ours(x), torch_encoder_layer(ours)(x), atol=1e-14
    )
    assert torch.equal(x, before)
    assert ours.feed_forward[0].out_features == (hidden or 8)


@pytest.mark.parametrize("hidden", [None, 20])
def test_a_decoder_layer_is_torchs_with_a_causal_mask(agrees_with, hidden):
    ours, x, memory = scrambled(DecoderLayer(8, 2, hidden)), noise(3, 4, 8, seed=1), noise(3, 6, 8, seed=2)
    later = torch.ones(4, 4).triu(1).bool()
    theirs = torch_decoder_layer(ours)(x, memory, tgt_mask=later)
    agrees_with(DecoderLayer, "torch.nn.TransformerDecoderLayer", ours(x, memory), theirs, atol=1e-14)
    assert ours.feed_forward[0].out_features == (hidden or 8)


def test_dropout_acts_in_training_on_every_branch_and_not_in_use():
    x, memory = noise(1, 4, 8, seed=1), noise(1, 3, 8, seed=2)
    encoder = scrambled(EncoderLayer(8, 2, dropout=1.0))
    assert not torch.equal(encoder(x), x)
    assert torch.equal(encoder.train()(x), x)  # both branches are dropped whole
    decoder = scrambled(DecoderLayer(8, 2, dropout=1.0))
    assert not torch.equal(decoder(x, memory), decoder(x, 2 * memory))
    dropped = decoder.train()(x, memory)
    normed = x
    for norm in (decoder.norm1, decoder.norm2, decoder.norm3):
        normed = norm(normed)
    assert torch.equal(dropped, normed)


def test_dropout_is_none_unless_told_and_reaches_every_layer():
    assert EncoderLayer(8, 2).dropout.p == DecoderLayer(8, 2).dropout.p == 0.0
    rates = {m.p for m in OadTR(6, 4, 8, 2, 1, 1, 5, 3).modules() if isinstance(m, nn.Dropout)}
    assert rates == {0.0}
    told = OadTR(6, 4, 8, 2, 2, 3, 5, 3, dropout=0.25)
    assert [m.p for m in told.modules() if isinstance(m, nn.Dropout)] == [0.25] * 5
    assert OadEncoder(8, 2, 1, 5).layers[0].dropout.p == OadDecoder(8, 2, 1, 5).layers[0].dropout.p == 0.0
    assert OadEncoder(8, 2, 1, 5, True, 0.5).layers[0].dropout.p == 0.5


# --- encoder, decoder, model ---------------------------------------------------------------------


@pytest.mark.parametrize("task_token", [True, False])
@pytest.mark.parametrize(("layers", "length"), [(1, 1), (1, 5), (3, 4)])
def test_the_encoder_is_torchs_with_the_token_in_the_last_row(agrees_with, layers, length, task_token):
    ours, x = scrambled(OadEncoder(8, 2, layers, length, task_token)), noise(3, length, 8, seed=1)
    before = x.clone()
    rows = torch_encoder(ours)(x)
    token, frames = ours(x)
    assert rows.shape[1] == length + task_token
    agrees_with(OadEncoder, "torch.nn.TransformerEncoder", token, rows[:, -1], atol=1e-14)
    agrees_with(OadEncoder, "torch.nn.TransformerEncoder", frames, rows[:, :length], atol=1e-14)
    assert frames.shape == x.shape
    assert torch.equal(x, before)
    assert torch.equal(token, frames[:, -1]) is not task_token


def test_the_encoder_has_a_token_unless_told_and_takes_an_empty_batch():
    encoder = OadEncoder(8, 2, 1, 5)
    assert encoder.token.shape == (1, 8)
    assert encoder.position.shape == (6, 8)
    assert OadEncoder(8, 2, 1, 5, task_token=False).position.shape == (5, 8)
    token, frames = encoder(torch.zeros(0, 5, 8))
    assert token.shape == (0, 8)
    assert frames.shape == (0, 5, 8)


def test_parameters_start_small_and_the_token_at_zero():
    torch.manual_seed(0)
    encoder, decoder = OadEncoder(64, 2, 1, 63), OadDecoder(64, 2, 1, 64)
    assert torch.equal(encoder.token, torch.zeros(1, 64))
    for start in (encoder.position, decoder.queries):
        assert start.std().item() == pytest.approx(0.02, rel=0.1)
        assert start.requires_grad
    assert encoder.token.requires_grad


def test_positions_tell_the_order_of_the_frames():
    encoder, x = scrambled(OadEncoder(8, 2, 1, 4)), noise(1, 4, 8, seed=1)
    assert not torch.allclose(encoder(x)[0], encoder(x.flip(1))[0])
    with torch.no_grad():
        encoder.position.zero_()
    torch.testing.assert_close(encoder(x)[0], encoder(x.flip(1))[0])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 4, 8), r"^expected \(B, 5, 8\), got \(2, 4, 8\)$"),
        ((2, 5, 7), r"got \(2, 5, 7\)$"),
        ((5, 8), r"got \(5, 8\)$"),
    ],
)
def test_the_encoder_refuses_another_length_or_width(shape, message):
    with pytest.raises(ValueError, match=message):
        OadEncoder(8, 2, 1, 5)(torch.zeros(shape))


@pytest.mark.parametrize(("layers", "count"), [(0, 1), (1, 0), (-1, 3)])
def test_a_network_without_layers_or_frames_is_refused(layers, count):
    with pytest.raises(ValueError, match=rf"^layers and length must be at least 1, got {layers} and {count}"):
        OadEncoder(8, 2, layers, count)
    with pytest.raises(ValueError, match=rf"^layers and future must be at least 1, got {layers} and {count}"):
        OadDecoder(8, 2, layers, count)


@pytest.mark.parametrize(("layers", "future"), [(1, 1), (1, 4), (3, 3)])
def test_the_decoder_is_torchs(agrees_with, layers, future):
    ours, memory = scrambled(OadDecoder(8, 2, layers, future)), noise(3, 6, 8, seed=1)
    before = memory.clone()
    agrees_with(
        OadDecoder, "torch.nn.TransformerDecoder", ours(memory), torch_decoder(ours)(memory), atol=1e-14
    )
    assert torch.equal(memory, before)
    assert ours(memory[:0]).shape == (0, future, 8)


def test_a_query_sees_no_later_query():
    decoder, memory = scrambled(OadDecoder(8, 2, 2, 4)), noise(1, 6, 8, seed=1)
    decoder(memory)[0, 1].sum().backward()
    assert (decoder.queries.grad[:2] != 0).all()
    assert (decoder.queries.grad[2:] == 0).all()


@pytest.mark.parametrize("task_token", [True, False])
@pytest.mark.parametrize("future", [0, 1, 3])
def test_the_model_is_torchs_transformer_put_together(agrees_with, task_token, future):
    ours, x = small(task_token, future), noise(4, 5, 6, seed=9)
    before = x.clone()
    current, ahead = ours(x)
    expected, expected_ahead = torch_oadtr(ours)(x)
    agrees_with(OadTR, "torch.nn.TransformerEncoder", current, expected, atol=1e-14)
    if future:
        agrees_with(OadTR, "torch.nn.TransformerDecoder", ahead, expected_ahead, atol=1e-14)
    assert current.shape == (4, 5)
    assert ahead.shape == (4, future, 5)
    assert torch.equal(x, before)
    assert (ours.decoder is None) == (future == 0)


def test_the_model_has_a_token_unless_told():
    assert OadTR(6, 4, 8, 2, 1, 1, 5, 3).encoder.token is not None
    assert OadTR(6, 4, 8, 2, 1, 1, 5, 3, task_token=False).encoder.token is None


@pytest.mark.parametrize("future", [0, 3])
def test_the_model_takes_bfloat16_an_empty_batch_and_strided_windows(future):
    model, x = small(future=future), noise(3, 5, 6, seed=9)
    for part, expected in zip(model(x.mT.contiguous().mT), model(x), strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-14)
    current, ahead = model(x[:0])
    assert (current.shape, ahead.shape) == ((0, 5), (0, future, 5))
    assert model.bfloat16()(x.bfloat16())[0].dtype == torch.bfloat16


def test_every_parameter_that_counts_gets_a_gradient():
    model, x = small(), noise(4, 5, 6, seed=9)
    oadtr_loss(*model(x), torch.tensor([0, 1, 2, 3]), torch.ones(4, 3).long()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_the_task_token_reaches_the_logits_only_through_its_row():
    model, x = small(future=0), noise(2, 5, 6, seed=9)
    token, frames = model.encoder(model.project(x))
    assert torch.equal(model.head(token), model(x)[0])
    assert not torch.allclose(model.head(frames[:, -1]), model(x)[0])


# --- loss ----------------------------------------------------------------------------------------


def by_hand(logits, labels, ignore):
    losses = [
        math.log(sum(math.exp(v) for v in row)) - row[label]
        for row, label in zip(logits.flatten(0, -2).tolist(), labels.flatten().tolist(), strict=True)
        if label != ignore
    ]
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("ignore", [-100, 2])
def test_the_loss_is_two_cross_entropies_by_hand(agrees_with, ignore, weight):
    now, ahead = noise(6, 4), noise(6, 3, 4, seed=1)
    current = torch.tensor([0, 1, 2, 3, 0, 1])
    future = future_targets(current, 3, ignore)
    ours = oadtr_loss(now, ahead, current, future, weight, ignore)
    expected = by_hand(now, current, ignore) + weight * by_hand(ahead, future, ignore)
    agrees_with(oadtr_loss, "brute force: log of a sum of exponentials", ours, expected, atol=1e-14)


def test_the_future_weighs_half_unless_told_and_minus_100_is_ignored():
    now, ahead, current = noise(2, 4), noise(2, 3, 4, seed=1), torch.tensor([1, -100])
    future = torch.tensor([[0, 1, 2], [-100, -100, 3]])
    assert oadtr_loss(now, ahead, current, future) == oadtr_loss(now, ahead, current, future, 0.5, -100)
    assert oadtr_loss(now, ahead, current, future) != oadtr_loss(now, ahead, current, future, 1.0)


@pytest.mark.parametrize("shape", [(1,), (2, 3), (2, 1, 2)])
def test_the_loss_takes_one_frame_or_whole_streams(agrees_with, shape):
    now, ahead = noise(*shape, 4), noise(*shape, 2, 4, seed=1)
    generator = torch.Generator().manual_seed(0)
    current, future = (torch.randint(0, 4, s, generator=generator) for s in (shape, (*shape, 2)))
    ours = oadtr_loss(now, ahead, current, future)
    expected = by_hand(now, current, -100) + 0.5 * by_hand(ahead, future, -100)
    agrees_with(oadtr_loss, "brute force: log of a sum of exponentials", ours, expected, atol=1e-14)


def test_labels_that_are_all_ignored_cost_nothing_and_keep_the_graph():
    now, ahead = noise(2, 4).requires_grad_(), noise(2, 3, 4, seed=1).requires_grad_()
    current, future = torch.full((2,), -100), torch.full((2, 3), -100)
    loss = oadtr_loss(now, ahead, current, future)
    loss.backward()
    assert loss == 0
    assert (now.grad == 0).all()
    empty = oadtr_loss(now, noise(2, 0, 4), torch.tensor([0, 1]), torch.zeros(2, 0).long())
    assert empty.item() == pytest.approx(by_hand(now.detach(), torch.tensor([0, 1]), -100))
    assert oadtr_loss(now[:0], ahead[:0], current[:0], future[:0]) == 0


def test_the_loss_has_the_gradient_of_finite_differences():
    now, ahead = noise(3, 4).requires_grad_(), noise(3, 2, 4, seed=1).requires_grad_()
    current, future = torch.tensor([0, 1, 3]), torch.tensor([[1, 3], [3, -100], [-100, -100]])
    assert torch.autograd.gradcheck(lambda a, b: oadtr_loss(a, b, current, future), (now, ahead))


@pytest.mark.parametrize(
    ("current", "future"), [((3,), (2, 3)), ((2,), (2, 4)), ((2, 1), (2, 3)), ((2,), (2,)), ((2,), (3, 3))]
)
def test_labels_of_another_shape_are_refused(current, future):
    with pytest.raises(ValueError, match=r"^labels must have the logits' shapes without the last axis") as e:
        oadtr_loss(torch.zeros(2, 4), torch.zeros(2, 3, 4), torch.zeros(current), torch.zeros(future))
    assert str(e.value).endswith(f"got {current} and {future} for (2, 4) and (2, 3, 4)")


# --- similarity ----------------------------------------------------------------------------------


def test_similarity_is_sklearns_cosine(agrees_with):
    token, frames = noise(4, 8), noise(4, 5, 8, seed=1)
    theirs = [cosine_similarity(t[None], f)[0] for t, f in zip(token.numpy(), frames.numpy(), strict=True)]
    ours = token_similarity(token, frames)
    agrees_with(token_similarity, "sklearn.metrics.pairwise.cosine_similarity", ours, theirs, atol=1e-15)
    agrees_with(
        token_similarity,
        "sklearn.metrics.pairwise.cosine_similarity",
        token_similarity(token[0], frames[0]),
        theirs[0],
        atol=1e-15,
    )


def test_similarity_of_a_zero_is_zero_and_of_itself_one():
    token = noise(2, 8)
    frames = torch.stack([token, -token, torch.zeros_like(token)], 1)
    expected = torch.tensor([[1.0, -1.0, 0.0]] * 2).double()
    torch.testing.assert_close(token_similarity(token, frames), expected, rtol=0, atol=1e-15)
    assert token_similarity(token[:0], frames[:0]).shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_similarity_keeps_the_precision_and_is_never_nan(dtype):
    token, frames = torch.ones(4, dtype=dtype), torch.tensor([[1.0] * 4, [0.0] * 4, [-2.0] * 4]).to(dtype)
    ours = token_similarity(token, frames)
    assert ours.dtype == dtype
    assert ours.tolist() == [1, 0, -1]
    assert token_similarity(0 * token, frames).tolist() == [0, 0, 0]
    assert token_similarity(1e-3 * token, frames).tolist() == pytest.approx([1, 0, -1], abs=0.01)


@pytest.mark.parametrize(("token", "frames"), [((4, 8), (4, 5, 7)), ((3, 8), (4, 5, 8)), ((8,), (8,))])
def test_similarity_refuses_other_widths_or_batches(token, frames):
    with pytest.raises(ValueError, match=r"^expected token \(\.\.\., D\) and frames \(\.\.\., T, D\)") as e:
        token_similarity(torch.zeros(token), torch.zeros(frames))
    assert str(e.value).endswith(f"got {token} and {frames}")


# --- average precision ---------------------------------------------------------------------------


def ranked(count=200, seed=0, levels=None):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(count, generator=generator, dtype=torch.float64)
    if levels:
        scores = (scores * levels).floor() / levels
    return scores, torch.rand(count, generator=generator) < 0.3 + 0.3 * scores


@pytest.mark.parametrize("levels", [None, 40, 5, 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_average_precision_is_sklearns_ties_included(agrees_with, seed, levels):
    scores, positive = ranked(seed=seed, levels=levels)
    before = scores.clone()
    theirs = sklearn.metrics.average_precision_score(positive, scores)
    ours = average_precision(scores, positive)
    agrees_with(average_precision, "sklearn.metrics.average_precision_score", ours, theirs, atol=1e-14)
    assert ours.dtype == torch.float64
    assert torch.equal(scores, before)


@pytest.mark.parametrize("levels", [None, 40, 5, 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_calibrated_precision_is_sklearns_with_weighted_positives(agrees_with, seed, levels):
    scores, positive = ranked(seed=seed, levels=levels)
    weight = int((~positive).sum()) / int(positive.sum())
    theirs = sklearn.metrics.average_precision_score(
        positive, scores, sample_weight=np.where(positive, weight, 1.0)
    )
    ours = calibrated_average_precision(scores, positive)
    agrees_with(
        calibrated_average_precision, "sklearn.metrics.average_precision_score", ours, theirs, atol=1e-14
    )


def walk(scores, positive, calibrated):
    """The papers' definitions, rank by rank; scores are distinct."""
    hits = [bool(p) for _, p in sorted(zip(scores.tolist(), positive.tolist(), strict=True), reverse=True)]
    total = sum(hits)
    weight = (len(hits) - total) / total if calibrated else 1.0
    true = false = gained = 0.0
    for hit in hits:
        true, false = true + hit, false + (not hit)
        gained += hit * weight * true / (weight * true + false)
    return gained / total


@pytest.mark.parametrize("calibrated", [False, True])
def test_both_precisions_are_the_walk_down_the_ranking(agrees_with, calibrated):
    snippet = calibrated_average_precision if calibrated else average_precision
    for seed in range(5):
        scores, positive = ranked(50, seed)
        expected = walk(scores, positive, calibrated)
        agrees_with(snippet, "brute force: rank by rank", snippet(scores, positive), expected, atol=1e-14)


def test_equal_scores_give_the_share_of_positives_whatever_their_order():
    positive = torch.tensor([True, True, False, False, False])
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        assert average_precision(torch.zeros(5), positive[order]) == 0.4
        assert calibrated_average_precision(torch.zeros(5), positive[order]) == 0.5


def test_extremes_of_both_precisions():
    scores = torch.tensor([4.0, 3.0, 2.0, 1.0])
    best, worst = torch.tensor([1, 0, 0, 0]), torch.tensor([0, 0, 0, 1])
    assert average_precision(scores, best) == calibrated_average_precision(scores, best) == 1
    assert average_precision(scores, worst) == 0.25
    assert calibrated_average_precision(scores, worst) == 0.5  # w = 3: 3 / (3 + 3)
    all_true = torch.ones(4).bool()
    assert average_precision(scores, all_true) == 1
    for snippet in (average_precision, calibrated_average_precision):
        assert snippet(scores, ~all_true).isnan()
        assert snippet(scores[:0], all_true[:0]).isnan()
        assert snippet(scores[:0], all_true[:0]).shape == ()
    assert calibrated_average_precision(scores, all_true).isnan()
    assert average_precision(scores[:1], all_true[:1]) == 1


def test_calibration_undoes_a_hundredfold_background():
    scores, positive = ranked(300, seed=3)
    many_scores = torch.cat([scores, scores[~positive].repeat(99)])
    many = torch.cat([positive, positive.new_zeros(len(many_scores) - 300)])
    assert average_precision(many_scores, many) < 0.3 * average_precision(scores, positive)
    before, after = (
        calibrated_average_precision(*pair) for pair in ((scores, positive), (many_scores, many))
    )
    assert after.item() == pytest.approx(before.item(), abs=1e-12)


def test_precision_takes_strided_and_half_precision_scores():
    scores, positive = ranked(40)
    half = scores.half()
    agreed = sklearn.metrics.average_precision_score(positive, half.float())
    assert average_precision(half, positive).item() == pytest.approx(agreed, abs=1e-14)
    wide = torch.stack([scores, scores], 1)[:, 0]
    assert average_precision(wide, positive.int()) == average_precision(scores, positive)


@pytest.mark.parametrize(
    "snippet", [average_precision, calibrated_average_precision, interpolated_average_precision]
)
def test_precision_refuses_other_shapes_and_nan(snippet):
    with pytest.raises(
        ValueError, match=r"^expected scores \(N\) and positive \(N\), got \(3,\) and \(4,\)$"
    ):
        snippet(torch.zeros(3), torch.zeros(4).bool())
    with pytest.raises(ValueError, match=r"got \(3, 1\) and \(3, 1\)$"):
        snippet(torch.zeros(3, 1), torch.zeros(3, 1).bool())
    with pytest.raises(ValueError, match=r"^scores must not contain NaN$"):
        snippet(torch.tensor([0.1, math.nan]), torch.tensor([True, False]))


def judged(count=300, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    logits = torch.randn(count, classes, generator=generator) + 1.5 * nn.functional.one_hot(labels, classes)
    return logits.softmax(1), labels


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("background", [0, 2, None])
def test_per_frame_map_is_the_mean_of_sklearns_columns(agrees_with, background, calibrated):
    scores, labels = judged()
    values = []
    for c in range(5):
        if c != background:
            positive = (labels == c).numpy()
            weights = np.where(positive, (~positive).sum() / positive.sum(), 1.0) if calibrated else None
            values.append(
                sklearn.metrics.average_precision_score(positive, scores[:, c], sample_weight=weights)
            )
    ours = mean_average_precision(scores, labels, background, calibrated)
    agrees_with(
        mean_average_precision, "sklearn.metrics.average_precision_score", ours, np.mean(values), atol=1e-14
    )


def test_the_background_is_class_zero_unless_told_and_its_frames_stay():
    scores, labels = judged(seed=1)
    left_out = mean_average_precision(scores, labels)
    assert left_out == mean_average_precision(scores, labels, background=0, calibrated=False)
    assert left_out != mean_average_precision(scores, labels, background=None)
    without_frames = mean_average_precision(scores[labels > 0], labels[labels > 0])
    assert without_frames > left_out  # false alarms on background frames are gone


def test_a_class_without_a_frame_is_left_out_of_the_mean():
    scores, labels = judged()
    kept = labels != 4
    apart = [average_precision(scores[kept, c], labels[kept] == c) for c in (1, 2, 3)]
    assert mean_average_precision(scores[kept], labels[kept]) == torch.stack(apart).mean()
    assert mean_average_precision(scores, torch.zeros_like(labels)).isnan()


@pytest.mark.parametrize("calibrated", [False, True])
def test_ambiguous_frames_are_nobodys_negatives(agrees_with, calibrated):
    scores, labels = judged(seed=2)
    marked = labels.clone()
    marked[::7] = -100
    left = (marked >= 0).numpy()
    values = []
    for c in range(1, 5):
        positive = (labels == c).numpy()[left]
        weights = np.where(positive, (~positive).sum() / positive.sum(), 1.0) if calibrated else None
        values.append(
            sklearn.metrics.average_precision_score(positive, scores[left, c], sample_weight=weights)
        )
    ours = mean_average_precision(scores, marked, calibrated=calibrated)
    agrees_with(
        mean_average_precision, "sklearn.metrics.average_precision_score", ours, np.mean(values), atol=1e-14
    )
    assert ours == mean_average_precision(scores, marked + 200 * (marked < 0), 0, calibrated, 100)
    assert mean_average_precision(scores, torch.full_like(labels, -100)).isnan()


@pytest.mark.parametrize(("scores", "labels"), [((4,), (4,)), ((4, 3), (5,)), ((4, 3), (4, 3))])
def test_map_refuses_other_shapes(scores, labels):
    with pytest.raises(ValueError, match=r"^expected scores \(N, C \+ 1\) and labels \(N\)") as e:
        mean_average_precision(torch.zeros(scores), torch.zeros(labels))
    assert str(e.value).endswith(f"got {scores} and {labels}")


def test_map_of_the_background_alone_is_refused():
    with pytest.raises(ValueError, match=r"^there is no class beside the background$"):
        mean_average_precision(torch.zeros(4, 1), torch.zeros(4).long())
    assert mean_average_precision(torch.zeros(4, 1), torch.zeros(4).long(), background=None) == 1


# --- streaming -----------------------------------------------------------------------------------


@pytest.mark.parametrize("task_token", [True, False])
@pytest.mark.parametrize("future", [0, 3])
@pytest.mark.parametrize("length", [1, 5])
def test_a_stream_is_torchs_transformer_on_windows_cut_by_hand(agrees_with, length, future, task_token):
    model, features = small(task_token, future, length), noise(12, 6, seed=9)
    stream, reference = StreamingDetector(model), torch_oadtr(model)
    for t in range(12):
        window = torch.zeros(1, length, 6, dtype=torch.float64)
        for slot in range(length):
            if (frame := t - length + 1 + slot) >= 0:
                window[0, slot] = features[frame]
        now, ahead = stream.step(features[t : t + 1])
        expected, expected_ahead = reference(window)
        agrees_with(StreamingDetector, "torch.nn.TransformerEncoder", now, expected, atol=1e-14)
        if future:
            agrees_with(StreamingDetector, "torch.nn.TransformerDecoder", ahead, expected_ahead, atol=1e-14)


def test_a_stream_is_the_batch_of_its_windows_from_the_first_frame_on():
    model, features = small(), noise(2, 9, 6, seed=9)
    now, ahead = model(sliding_windows(features, 5).flatten(0, 1))
    stream = StreamingDetector(model, streams=2)
    steps = [stream.step(features[:, t]) for t in range(9)]
    torch.testing.assert_close(torch.stack([s[0] for s in steps], 1).flatten(0, 1), now, rtol=0, atol=1e-14)
    torch.testing.assert_close(torch.stack([s[1] for s in steps], 1).flatten(0, 1), ahead, rtol=0, atol=1e-14)


def test_frames_that_come_later_change_nothing_that_was_said():
    model, features = small(), noise(2, 10, 6, seed=9)
    features[1, :6] = features[0, :6]  # two streams, alike up to frame 5
    stream = StreamingDetector(model, streams=2)
    for t in range(10):
        for part in stream.step(features[:, t]):
            assert torch.allclose(part[0], part[1], rtol=0, atol=1e-13) is (t < 6)
    windows = sliding_windows(features, 5)
    torch.testing.assert_close(model(windows[0, :6])[0], model(windows[1, :6])[0], rtol=0, atol=0)


def test_a_frame_is_forgotten_when_it_leaves_the_window():
    model = small(length=3)
    stream = StreamingDetector(model, streams=2)
    first = torch.stack([noise(6, seed=1), noise(6, seed=2)])
    same = [stream.step(frame)[0] for frame in [first, *noise(3, 1, 6, seed=3).expand(3, 2, 6)]]
    assert [torch.allclose(now[0], now[1], rtol=0, atol=1e-13) for now in same] == [False, False, False, True]


def test_memory_does_not_grow_and_reset_starts_anew():
    model, features = small(), noise(8, 1, 6, seed=9)
    stream = StreamingDetector(model)
    first = [stream.step(frame)[0] for frame in features]
    assert stream.window.shape == (1, 5, 8)
    assert not stream.window.requires_grad
    stream.reset()
    assert torch.equal(stream.window, model.project(torch.zeros(1, 5, 6).double()).detach())
    again = [stream.step(frame)[0] for frame in features]
    assert torch.equal(torch.stack(first), torch.stack(again))
    assert not first[0].requires_grad


def test_a_stream_leaves_its_arguments_alone_and_keeps_half_precision():
    model = small().bfloat16()
    stream, frame = StreamingDetector(model, streams=3), noise(3, 6, seed=9).bfloat16()
    before = frame.clone()
    now, ahead = stream.step(frame)
    assert torch.equal(frame, before)
    assert (now.shape, ahead.shape) == ((3, 5), (3, 3, 5))
    assert now.dtype == stream.window.dtype == torch.bfloat16


def test_a_stream_refuses_a_model_in_training_and_frames_of_another_shape():
    model = small()
    with pytest.raises(ValueError, match=r"^the model must be in evaluation mode: call eval\(\) first$"):
        StreamingDetector(model.train())
    stream = StreamingDetector(model.eval(), streams=2)
    for shape in ((1, 6), (2, 5), (6,)):
        with pytest.raises(ValueError, match=r"^expected \(2, 6\), got ") as e:
            stream.step(torch.zeros(shape))
        assert str(e.value).endswith(str(shape))


# --- the recurrent rival -------------------------------------------------------------------------


def test_the_rival_is_a_gru_gate_by_gate(agrees_with):
    ours, x = scrambled(GruDetector(6, 4, 8, 3)), noise(2, 7, 6, seed=9)
    now, ahead, state = ours(x)
    assert (now.shape, ahead.shape, state.shape) == ((2, 7, 5), (2, 7, 3, 5), (1, 2, 8))
    weights = {name: value.detach().numpy() for name, value in ours.gru.named_parameters()}
    hidden, rows = np.zeros((2, 8)), []
    for t in range(7):
        a = x[:, t].numpy() @ weights["weight_ih_l0"].T + weights["bias_ih_l0"]
        b = hidden @ weights["weight_hh_l0"].T + weights["bias_hh_l0"]
        reset, update = 1 / (1 + np.exp(-(a + b)[:, :8])), 1 / (1 + np.exp(-(a + b)[:, 8:16]))
        new = np.tanh(a[:, 16:] + reset * b[:, 16:])
        hidden = (1 - update) * new + update * hidden
        rows.append(hidden)
    hidden = np.stack(rows, 1)
    head, future = ours.head, ours.future_head
    expected = hidden @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    expected_ahead = hidden @ future.weight.detach().numpy().T + future.bias.detach().numpy()
    agrees_with(GruDetector, "brute force: gate by gate", now, expected, atol=1e-14)
    agrees_with(
        GruDetector, "brute force: gate by gate", ahead, expected_ahead.reshape(2, 7, 3, 5), atol=1e-14
    )
    agrees_with(GruDetector, "brute force: gate by gate", state[0], hidden[:, -1], atol=1e-14)


def test_the_rival_goes_on_from_its_state_and_never_looks_ahead():
    model, x = scrambled(GruDetector(6, 4, 8, 3)), noise(2, 7, 6, seed=9)
    whole, ahead, end = model(x)
    first, _, state = model(x[:, :4])
    second, later, last = model(x[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=1e-14)
    torch.testing.assert_close(later, ahead[:, 4:], rtol=0, atol=1e-14)
    torch.testing.assert_close(last, end, rtol=0, atol=1e-14)


# --- solutions of the exercises ------------------------------------------------------------------


@pytest.mark.parametrize("levels", [None, 6])
def test_interpolation_takes_the_best_precision_at_any_higher_recall(agrees_with, levels):
    for seed in range(4):
        scores, positive = ranked(60, seed, levels)
        points = []
        for threshold in sorted(set(scores.tolist()), reverse=True):
            picked = scores >= threshold
            true = int((picked & positive).sum())
            points.append((true / int(positive.sum()), true / int(picked.sum())))
        area, recall = 0.0, 0.0
        for number, (reached, _) in enumerate(points):
            area += (reached - recall) * max(precision for _, precision in points[number:])
            recall = reached
        ours = interpolated_average_precision(scores, positive)
        agrees_with(interpolated_average_precision, "brute force: every threshold", ours, area, atol=1e-14)
        assert ours >= average_precision(scores, positive)


def test_interpolation_of_nothing_is_nan():
    assert interpolated_average_precision(torch.zeros(3), torch.zeros(3).bool()).isnan()
    assert interpolated_average_precision(torch.zeros(0), torch.zeros(0).bool()).isnan()


def test_the_mean_over_videos_is_sklearns_video_by_video(agrees_with):
    scores, labels = judged(400, seed=5)
    cuts = [30, 150, 20, 200]
    videos = list(zip(scores.split(cuts), labels.split(cuts), strict=True))
    values = []
    for score, label in videos:
        aps = [
            sklearn.metrics.average_precision_score((label == c).numpy(), score[:, c])
            for c in range(1, 5)
            if (label == c).any()
        ]
        values.append(np.mean(aps))
    ours = mean_per_video_ap(scores.split(cuts), labels.split(cuts))
    agrees_with(
        mean_per_video_ap, "sklearn.metrics.average_precision_score", ours, np.mean(values), atol=1e-14
    )


def test_videos_without_an_action_hide_their_false_alarms():
    scores = torch.tensor([[0.3, 0.7], [0.1, 0.9]])
    videos, labels = [scores[:1], scores[1:]], [torch.tensor([1]), torch.tensor([0])]
    assert mean_per_video_ap(videos, labels) == 1
    assert mean_average_precision(scores, torch.cat(labels)) == 0.5
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        mean_per_video_ap(videos, labels[:1])
    with pytest.raises(ValueError, match=r"^expected at least one video, got none$"):
        mean_per_video_ap([], [])


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(
    "sizes", [(6, 8, 2, 2, 5, 3), (24, 16, 1, 3, 9, 4), (6, 8, 1, 1, 1, 1), (6, 8, 3, 2, 7, 0)]
)
def test_the_cost_is_what_torch_counts(agrees_with, sizes, cached):
    feature_dim, dim, encoder_layers, decoder_layers, length, future = sizes
    model = OadTR(feature_dim, 4, dim, 2, encoder_layers, decoder_layers, length, future).eval()
    model.requires_grad_(False)  # the counter's hooks cannot take leaves without a graph
    heads = 5 * dim * ((2 if future else 1) + future)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        if cached:
            StreamingDetector(model).step(torch.zeros(1, feature_dim))
        else:
            model(torch.zeros(1, length, feature_dim))
    counted = counter.get_total_flops() / 2 - heads
    if cached:
        counted -= feature_dim * dim  # the stream's first step projects the empty slot too
    layers = decoder_layers if future else 0
    ours = frame_cost(feature_dim, dim, encoder_layers, layers, length, future, cached)
    agrees_with(frame_cost, "torch.utils.flop_counter.FlopCounterMode", ours, counted, atol=0)


def test_projections_are_cached_unless_told():
    assert frame_cost(10, 4, 1, 1, 6, 2) == frame_cost(10, 4, 1, 1, 6, 2, cached=True)
    assert frame_cost(10, 4, 1, 1, 6, 2, cached=False) - frame_cost(10, 4, 1, 1, 6, 2) == 5 * 10 * 4


@pytest.mark.parametrize("length", [1, 4, 20])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_cached_keys_and_values_are_attention_over_the_window(agrees_with, heads, length):
    attention, token, frames = scrambled(Attention(8, heads)), noise(8, seed=1), noise(9, 8, seed=2)
    theirs = torch_attention(attention)
    cache = CachedTokenAttention(attention, token, length)
    assert cache.pairs.shape == (0, 16)
    for t in range(9):
        window = frames[max(0, t - length + 1) : t + 1][None]
        expected, _ = theirs(token[None, None], window, window)
        agrees_with(
            CachedTokenAttention,
            "torch.nn.MultiheadAttention",
            cache.step(frames[t]),
            expected[0, 0],
            atol=1e-14,
        )
        assert len(cache.pairs) == min(t + 1, length)
    assert not cache.step(frames[0]).requires_grad


def test_a_cache_of_no_frame_is_refused():
    with pytest.raises(ValueError, match=r"^length must be at least 1, got 0$"):
        CachedTokenAttention(Attention(8, 2), torch.ones(8), 0)
