"""What the page on linear attention claims, against references that share no code with it."""

import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics.pairwise
import torch
import torch.nn.functional as F
from linear_attention_transformer import linear_attention_transformer as published
from performer_pytorch import performer_pytorch as performer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from snippets.linear_attention import (
    LinearAttention,
    chunked_linear_attention,
    crossover_length,
    delta_rule_attention,
    efficient_attention,
    elu_feature_map,
    linear_attention,
    padded_linear_attention,
    performer_attention,
    positive_feature_map,
    prefill_state,
    random_features,
    recurrent_linear_attention,
    second_order_feature_map,
    softmax_attention,
    taylor_feature_map,
)

DEFINITION = "brute force: every weight in float64, masked, then normalized"


def sample(length=13, keys=None, dim=5, value_dim=3, batch=2, heads=3, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    keys = length if keys is None else keys
    shapes = (length, dim), (keys, dim), (keys, value_dim)
    return [
        torch.randn(batch, heads, *shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes
    ]


def projection(dim, count, seed=0):
    return random_features(dim, count, torch.Generator().manual_seed(seed)).double()


def elu_plus_one(x):
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def weighted(weights, v, causal, eps=0.0):
    """Means of the values under weights (B, H, N, M) of every pair."""
    if causal:
        weights = weights * (np.arange(weights.shape[3])[None, :] <= np.arange(weights.shape[2])[:, None])
    return np.einsum("bhij,bhjv->bhiv", weights, v.double().numpy()) / (weights.sum(-1, keepdims=True) + eps)


def definition(q, k, v, causal=False, eps=0.0, phi=elu_plus_one):
    features = [phi(x.double().numpy()) for x in (q, k)]
    return weighted(np.einsum("bhif,bhjf->bhij", *features), v, causal, eps)


def published_causal(q, k, v):
    """performer-pytorch's causal sums, whose `chunk_size` is the number of chunks."""
    phi = [F.elu(x) + 1 for x in (q, k)]
    return performer.causal_linear_attention_noncuda(*phi, v, chunk_size=1, eps=0)


CAUSAL = {
    linear_attention: lambda q, k, v, **more: linear_attention(q, k, v, causal=True, **more),
    recurrent_linear_attention: lambda q, k, v, **more: recurrent_linear_attention(q, k, v, **more)[0],
    chunked_linear_attention: lambda q, k, v, **more: chunked_linear_attention(q, k, v, **more),
}
ANY = {
    softmax_attention: softmax_attention,
    linear_attention: linear_attention,
    efficient_attention: efficient_attention,
    performer_attention: lambda q, k, v: performer_attention(q, k, v, projection(q.shape[-1], 7)),
}
ALL_CAUSAL = CAUSAL | {
    softmax_attention: lambda q, k, v: softmax_attention(q, k, v, causal=True),
    performer_attention: lambda q, k, v: performer_attention(q, k, v, projection(q.shape[-1], 7), causal=True),
}


# --- the quadratic rival -------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_softmax_attention_is_that_of_torch(agrees_with, causal, dtype):
    q, k, v = sample(dtype=dtype)
    theirs = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    atol = 1e-14 if dtype == torch.float64 else 1e-6
    ours = softmax_attention(q, k, v, causal)
    agrees_with(softmax_attention, "torch.nn.functional.scaled_dot_product_attention", ours, theirs, atol=atol)
    assert ours.dtype == dtype


def test_softmax_attention_over_another_sequence(agrees_with):
    q, k, v = sample(length=4, keys=9)
    agrees_with(
        softmax_attention,
        "torch.nn.functional.scaled_dot_product_attention",
        softmax_attention(q, k, v),
        F.scaled_dot_product_attention(q, k, v),
        atol=1e-14,
    )


# --- feature maps --------------------------------------------------------------------------------


def test_elu_feature_map_is_torchs_elu_plus_one_with_its_gradient(agrees_with):
    x = torch.tensor([-30.0, -3.0, -1e-3, 0.0, 1e-3, 0.5, 7.0], dtype=torch.float64, requires_grad=True)
    agrees_with(elu_feature_map, "torch.nn.functional.elu", elu_feature_map(x), F.elu(x) + 1, atol=1e-15)
    (ours,) = torch.autograd.grad(elu_feature_map(x).sum(), x)
    (theirs,) = torch.autograd.grad(F.elu(x).sum(), x)
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_elu_feature_map_stays_positive_where_elu_plus_one_is_zero(agrees_with, dtype):
    x = torch.tensor([-9.0, -10.0, -16.0, -17.0, -80.0], dtype=torch.float64)
    x = x[: 2 if dtype == torch.float16 else 5].to(dtype)
    ours = elu_feature_map(x)
    exact = [math.exp(float(each)) for each in x]
    rtol = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 1e-2}[dtype]
    agrees_with(elu_feature_map, "closed form: exp(x) below 0", ours.double(), exact, rtol=rtol)
    assert ours.dtype == dtype
    assert (ours > 0).all()
    assert (F.elu(x) + 1)[-1] == 0 or dtype == torch.float16
    if dtype != torch.float32:
        assert (F.elu(x) + 1)[0] == 0 or dtype == torch.float16


def test_taylor_features_weigh_by_one_plus_the_cosine(agrees_with):
    a, b = (x[0, 0] for x in sample(length=9, keys=6)[:2])
    theirs = 1 + sklearn.metrics.pairwise.cosine_similarity(a, b)
    ours = taylor_feature_map(a) @ taylor_feature_map(b).mT
    agrees_with(taylor_feature_map, "sklearn.metrics.pairwise.cosine_similarity", ours, theirs, atol=1e-15)
    assert taylor_feature_map(a).shape == (9, 6)


def test_opposite_vectors_and_zeros_keep_taylor_weights_in_range():
    x = torch.tensor([[0.0, -4.0]])
    assert (taylor_feature_map(x) @ taylor_feature_map(-x).mT).tolist() == [[0.0]]
    assert taylor_feature_map(torch.zeros(2)).tolist() == [1.0, 0.0, 0.0]
    zeros = torch.zeros(1, 1, 3, 2)
    assert torch.equal(linear_attention(zeros, zeros, zeros + 2, taylor_feature_map, eps=0.0), zeros + 2)
    q = x[None, None]
    assert linear_attention(q, -q, q, taylor_feature_map).tolist() == [[[[0.0, 0.0]]]]  # eps saves it from 0 / 0


@pytest.mark.parametrize("dim", [1, 2, 6])
def test_second_order_features_weigh_by_the_polynomial(agrees_with, dim):
    q, k = (x[0, 0] for x in sample(length=9, keys=6, dim=dim)[:2])
    s = q.numpy() @ k.numpy().T / math.sqrt(dim)
    ours = second_order_feature_map(q) @ second_order_feature_map(k).mT
    agrees_with(second_order_feature_map, "closed form: 1 + s + s^2 / 2", ours, 1 + s + s**2 / 2, atol=1e-14)
    assert second_order_feature_map(q).shape == (9, 1 + dim + dim * (dim + 1) // 2)
    assert ours.min() >= 0.5 - 1e-12
    heads = second_order_feature_map(q[None, None].expand(3, 2, 9, dim))  # any dims before the last
    assert torch.equal(heads[1, 1], second_order_feature_map(q))
    assert heads.shape == (3, 2, 9, 1 + dim + dim * (dim + 1) // 2)


# --- linear attention ----------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [0.0, 1e-6, 0.5])
@pytest.mark.parametrize(("length", "keys"), [(13, 13), (1, 1), (4, 9), (7, 1)])
def test_sums_first_give_what_every_weight_gives(agrees_with, length, keys, eps):
    q, k, v = sample(length, keys)
    ours = linear_attention(q, k, v, eps=eps)
    agrees_with(linear_attention, DEFINITION, ours, definition(q, k, v, eps=eps), atol=1e-14)


def test_linear_attention_is_that_of_performer_pytorch_on_the_same_features(agrees_with):
    q, k, v = sample(dim=8, value_dim=8)
    theirs = performer.linear_attention(F.elu(q) + 1, F.elu(k) + 1, v)
    agrees_with(
        linear_attention,
        "performer_pytorch.performer_pytorch.linear_attention",
        linear_attention(q, k, v, eps=0.0),
        theirs,
        atol=1e-14,
    )


@pytest.mark.parametrize("form", CAUSAL, ids=lambda f: f.__name__)
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 130])
def test_every_causal_form_is_masked_then_normalized(agrees_with, form, length):
    q, k, v = sample(length, batch=1, heads=2)
    ours = CAUSAL[form](q, k, v, eps=0.0)
    agrees_with(form, DEFINITION, ours, definition(q, k, v, causal=True), atol=1e-14)
    ours = CAUSAL[form](q, k, v, eps=0.5)
    agrees_with(form, DEFINITION, ours, definition(q, k, v, causal=True, eps=0.5), atol=1e-14)


@pytest.mark.parametrize("form", CAUSAL, ids=lambda f: f.__name__)
def test_every_causal_form_is_that_of_performer_pytorch(agrees_with, form):
    q, k, v = sample(length=70, dim=4)
    agrees_with(
        form,
        "performer_pytorch.performer_pytorch.causal_linear_attention_noncuda",
        CAUSAL[form](q, k, v, eps=0.0),
        published_causal(q, k, v),
        atol=1e-14,
    )


@pytest.mark.parametrize("chunk_size", [1, 2, 7, 13, 64])
@pytest.mark.parametrize("length", [1, 7, 13, 14])
def test_any_chunk_size_gives_the_same(agrees_with, chunk_size, length):
    q, k, v = sample(length, batch=1)
    ours = chunked_linear_attention(q, k, v, chunk_size, eps=0.0)
    agrees_with(chunked_linear_attention, DEFINITION, ours, definition(q, k, v, causal=True), atol=1e-14)


def squares(x):
    """A map that doubles the width: nothing of the forms may depend on F = D."""
    return torch.cat((x.square(), x.abs()), -1)


@pytest.mark.parametrize("form", CAUSAL, ids=lambda f: f.__name__)
def test_another_feature_map_of_another_width(agrees_with, form):
    q, k, v = sample(length=20)
    theirs = definition(q, k, v, True, 0.1, lambda x: np.concatenate((x**2, np.abs(x)), -1))
    agrees_with(form, DEFINITION, CAUSAL[form](q, k, v, feature_map=squares, eps=0.1), theirs, atol=1e-13)


@pytest.mark.parametrize("form", CAUSAL, ids=lambda f: f.__name__)
def test_eps_is_a_millionth_unless_told(form):
    q, k, v = sample(length=6)
    q = q - 8  # a normalizer near eps
    assert torch.equal(CAUSAL[form](q, k, v), CAUSAL[form](q, k, v, eps=1e-6))
    assert not torch.equal(CAUSAL[form](q, k, v), CAUSAL[form](q, k, v, eps=2e-6))
    if form is linear_attention:
        assert torch.equal(linear_attention(q, k, v), linear_attention(q, k, v, eps=1e-6))
        assert not torch.equal(linear_attention(q, k, v), linear_attention(q, k, v, causal=True))


@pytest.mark.parametrize("form", ALL_CAUSAL, ids=lambda f: f.__name__)
def test_no_future_position_changes_the_past(form):
    q, k, v = sample(length=80, batch=1, heads=1)
    before = ALL_CAUSAL[form](q, k, v)
    for x in (q, k, v):
        x[:, :, 41:] = torch.randn(x[:, :, 41:].shape, generator=torch.Generator().manual_seed(9)).double() + 1
    after = ALL_CAUSAL[form](q, k, v)
    torch.testing.assert_close(after[:, :, :41], before[:, :, :41], rtol=0, atol=1e-14)
    assert ((after - before)[:, :, 41:].abs().amax(-1) > 1e-6).all()


def test_a_row_of_weights_is_read_off_by_the_identity_for_values():
    q, k, _ = sample(length=6)
    weights = linear_attention(q, k, torch.eye(6).double().expand(2, 3, 6, 6), eps=0.0)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 6).double(), rtol=0, atol=1e-14)


# --- the state -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [(5,), (0, 1, 12), (4, 4, 8)])
def test_a_sequence_can_be_interrupted_anywhere(agrees_with, cuts):
    q, k, v = sample()
    state, parts = None, []
    for first, last in zip((0, *cuts), (*cuts, 13), strict=True):
        part = slice(first, last)
        out, state = recurrent_linear_attention(q[:, :, part], k[:, :, part], v[:, :, part], state=state, eps=0.0)
        parts.append(out)
    theirs = definition(q, k, v, causal=True)
    agrees_with(recurrent_linear_attention, DEFINITION, torch.cat(parts, 2), theirs, atol=1e-14)
    phi = elu_plus_one(k.numpy())
    agrees_with(
        recurrent_linear_attention,
        "brute force: sum of the outer products",
        state[0],
        np.einsum("bhnf,bhnv->bhfv", phi, v.numpy()),
        atol=1e-13,
    )
    agrees_with(
        recurrent_linear_attention, "brute force: sum of the features", state[1], phi.sum(2), atol=1e-14
    )


def test_the_state_is_float32_for_half_precision_and_is_left_as_it_was():
    q, k, v = sample(dtype=torch.bfloat16)
    _, state = recurrent_linear_attention(q, k, v)
    assert (state[0].dtype, state[1].dtype) == (torch.float32, torch.float32)
    kept = state[0].clone(), state[1].clone()
    recurrent_linear_attention(q, k, v, state=state)
    assert torch.equal(state[0], kept[0])
    assert torch.equal(state[1], kept[1])


def test_a_state_of_another_size_is_refused():
    q, k, v = sample(batch=1, heads=1)
    message = r"^expected a state of shapes \(\(1, 1, 5, 3\), \(1, 1, 5\)\), got \(\(1, 1, 5, {}\), \(1, 1, {}\)\)$"
    for value_dim, features in ((4, 5), (3, 6)):
        state = torch.zeros(1, 1, 5, value_dim), torch.zeros(1, 1, features)
        with pytest.raises(ValueError, match=message.format(value_dim, features)):
            recurrent_linear_attention(q, k, v, state=state)


@pytest.mark.parametrize("length", [1, 13])
def test_a_prompt_in_one_product_leaves_the_state_of_the_recurrence(agrees_with, length):
    q, k, v = sample(length)
    ours = prefill_state(k, v)
    phi = elu_plus_one(k.numpy())
    theirs = np.einsum("bhnf,bhnv->bhfv", phi, v.numpy())
    agrees_with(prefill_state, "brute force: sum of the outer products", ours[0], theirs, atol=1e-13)
    agrees_with(prefill_state, "brute force: sum of the features", ours[1], phi.sum(2), atol=1e-13)
    more = recurrent_linear_attention(q, k, v, state=ours, eps=0.0)[0]
    twice = definition(torch.cat((q, q), 2), torch.cat((k, k), 2), torch.cat((v, v), 2), causal=True)
    agrees_with(prefill_state, DEFINITION, more, twice[:, :, length:], atol=1e-14)


def test_states_of_two_stretches_add_up_for_any_feature_map_and_half_precision():
    _, k, v = sample()
    whole = prefill_state(k, v, squares)
    one, other = prefill_state(k[:, :, :4], v[:, :, :4], squares), prefill_state(k[:, :, 4:], v[:, :, 4:], squares)
    for part in (0, 1):
        torch.testing.assert_close(one[part] + other[part], whole[part], rtol=0, atol=1e-13)
    assert [x.dtype for x in prefill_state(k.half(), v.half())] == [torch.float32] * 2
    assert [float(x.abs().sum()) for x in prefill_state(k[:, :, :0], v[:, :, :0])] == [0, 0]
    with pytest.raises(ValueError, match=r"got \(2, 3, 13, 5\), \(2, 3, 13, 5\) and \(2, 3, 12, 3\)$"):
        prefill_state(k, v[:, :, 1:])


# --- all of them: dtypes, layouts, sizes, gradients, bad input ---------------------------------------

EVERY = [("any", name) for name in ANY] + [("causal", name) for name in ALL_CAUSAL]


def call(kind, name, *x):
    return (ANY if kind == "any" else ALL_CAUSAL)[name](*x)


each_form = pytest.mark.parametrize(("kind", "name"), EVERY, ids=[f"{k}-{f.__name__}" for k, f in EVERY])


@each_form
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32_and_rounded_once(kind, name, dtype):
    x = sample(length=70, dtype=dtype)
    ours = call(kind, name, *x)
    assert ours.dtype == dtype
    assert torch.equal(ours, call(kind, name, *(each.float() for each in x)).to(dtype))


@each_form
def test_layout_does_not_matter_and_input_is_left_as_it_was(kind, name):
    x = sample()
    strided = [each.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0) for each in x]
    assert not any(each.is_contiguous() for each in strided)
    ours = call(kind, name, *strided)
    assert ours.shape == (2, 3, 13, 3)
    torch.testing.assert_close(ours, call(kind, name, *x), rtol=0, atol=1e-14)
    assert all(torch.equal(a, b) for a, b in zip(strided, x, strict=True))


@each_form
def test_an_empty_batch_and_one_position(kind, name):
    assert call(kind, name, *sample(batch=0)).shape == (0, 3, 13, 3)
    q, k, v = sample(length=1)
    torch.testing.assert_close(call(kind, name, q, k, v), v, rtol=0, atol=1e-5)


@each_form
def test_no_position_gives_no_output(kind, name):
    if name is performer_attention:
        with pytest.raises(ValueError, match=r"^expected at least one key, got k \(2, 3, 0, 5\)$"):
            call(kind, name, *sample(length=0))
    else:
        assert call(kind, name, *sample(length=0)).shape == (2, 3, 0, 3)


def test_without_keys_there_is_nothing_to_gather():
    q, k, v = sample(length=4, keys=0)
    assert torch.equal(linear_attention(q, k, v), torch.zeros(2, 3, 4, 3).double())


@each_form
def test_gradients_are_those_of_finite_differences(kind, name):
    x = [each.requires_grad_() for each in sample(length=4, dim=2, value_dim=2, batch=1, heads=1)]
    assert torch.autograd.gradcheck(lambda *y: call(kind, name, *y), x)


BAD_SHAPES = [
    ((2, 3, 4, 5), (2, 3, 4, 6), (2, 3, 4, 3)),
    ((2, 3, 4, 5), (2, 3, 4, 5), (2, 3, 5, 3)),
    ((2, 3, 4, 5), (2, 1, 4, 5), (2, 1, 4, 3)),
    ((1, 3, 4, 5), (2, 3, 4, 5), (2, 3, 4, 3)),
    ((2, 3, 4, 5), (2, 3, 4, 5), (1, 3, 4, 3)),
    ((3, 4, 5), (3, 4, 5), (3, 4, 3)),
    ((2, 3, 4, 5), (2, 3, 4, 5), (2, 3, 4)),
    ((2, 3, 4, 5, 1), (2, 3, 4, 5), (2, 3, 4, 3)),
    ((2, 3, 4, 5), (2, 3, 4, 5, 1), (2, 3, 4, 3)),
]


@each_form
@pytest.mark.parametrize("shapes", BAD_SHAPES)
def test_shapes_that_do_not_fit_are_refused(kind, name, shapes):
    with pytest.raises(ValueError, match=r"^expected q \(B, H, N, D\), k \(B, H, M, D\) and v") as caught:
        call(kind, name, *map(torch.zeros, shapes))
    assert str(caught.value) == (
        "expected q (B, H, N, D), k (B, H, M, D) and v (B, H, M, V), N = M if causal, "
        f"got {shapes[0]}, {shapes[1]} and {shapes[2]}"
    )


@pytest.mark.parametrize("name", ALL_CAUSAL, ids=lambda f: f.__name__)
def test_causal_forms_need_a_key_for_each_query(name):
    with pytest.raises(ValueError, match=r"N = M if causal, got \(2, 3, 4, 5\), \(2, 3, 9, 5\) and"):
        ALL_CAUSAL[name](*sample(length=4, keys=9))


@each_form
def test_mixed_and_whole_number_dtypes_are_refused(kind, name):
    q, k, v = sample()
    dtypes = r"^expected one floating-point dtype, got torch\.{}, torch\.{} and torch\.{}$"
    with pytest.raises(ValueError, match=dtypes.format("float32", "float64", "float64")):
        call(kind, name, q.float(), k, v)
    with pytest.raises(ValueError, match=dtypes.format("float64", "float64", "float32")):
        call(kind, name, q, k, v.float())
    with pytest.raises(ValueError, match=dtypes.format("int64", "int64", "int64")):
        call(kind, name, q.long(), k.long(), v.long())


@pytest.mark.parametrize("chunk_size", [0, -3])
def test_a_chunk_holds_a_position(chunk_size):
    with pytest.raises(ValueError, match=f"^chunk_size must be at least 1, got {chunk_size}$"):
        chunked_linear_attention(*sample(), chunk_size=chunk_size)


class Largest(TorchDispatchMode):
    """Notes the most elements of any tensor that an operation gives."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor):
                self.elements = max(self.elements, each.untyped_storage().nbytes() // each.element_size())
        return result


def test_no_form_stores_a_matrix_for_every_position():
    q, k, v = sample(length=2048, dim=32, value_dim=32, batch=1, heads=1, dtype=torch.float32)
    with Largest() as seen:
        chunked_linear_attention(q, k, v)
    assert seen.elements == 2048 * 32  # the output: nothing else is larger
    thin = sample(length=2048, dim=1, value_dim=1, batch=1, heads=1, dtype=torch.float32)
    with Largest() as seen:
        chunked_linear_attention(*thin)
    assert seen.elements == 64 * 64  # the weights of one chunk
    with Largest() as seen:
        linear_attention(q, k, v, causal=True)
    assert seen.elements == 2048 * 64  # weights within chunks; per position it would be 2048 * 32 * 33
    with Largest() as seen:
        linear_attention(q, k, v)
    assert seen.elements == 2048 * 33
    with Largest() as seen:
        softmax_attention(q, k, v)
    assert seen.elements == 2048**2


# --- softmax twice -------------------------------------------------------------------------------


def test_efficient_attention_is_that_of_two_published_libraries(agrees_with):
    q, k, v = sample(dim=8, value_dim=8)
    ours = efficient_attention(q, k, v)
    layer = performer.FastAttention(8, no_projection=True)
    agrees_with(
        efficient_attention, "performer_pytorch.FastAttention", ours, layer(q, k, v), atol=1e-14
    )
    # linear-attention-transformer also divides by the square root of the width: its rows sum to that.
    agrees_with(
        efficient_attention,
        "linear_attention_transformer.linear_attention_transformer.linear_attn",
        ours,
        published.linear_attn(q, k, v) * math.sqrt(8),
        atol=1e-14,
    )


def test_efficient_attention_over_another_sequence_is_its_definition(agrees_with):
    q, k, v = sample(length=4, keys=9)
    a, b = np.exp(q.numpy()), np.exp(k.numpy())
    a, b = a / a.sum(-1, keepdims=True), b / b.sum(2, keepdims=True)
    theirs = np.einsum("bhif,bhjf,bhjv->bhiv", a, b, v.numpy())
    agrees_with(efficient_attention, DEFINITION, efficient_attention(q, k, v), theirs, atol=1e-14)


# --- random features -----------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "count"), [(1, 1), (1, 5), (6, 6), (6, 4), (6, 20), (64, 100)])
def test_rows_of_a_block_are_orthogonal(agrees_with, dim, count):
    w = random_features(dim, count, torch.Generator().manual_seed(1))
    assert w.shape == (count, dim)
    assert w.dtype == torch.float32
    unit = (w / w.norm(dim=1, keepdim=True)).double()
    for first in range(0, count, dim):
        block = unit[first : first + dim]
        agrees_with(
            random_features,
            "closed form: a block of orthonormal directions",
            block @ block.mT,
            np.eye(len(block)),
            atol=2e-6,
        )


def test_lengths_are_those_of_gaussian_vectors_and_directions_uniform(agrees_with):
    w = random_features(6, 12000, torch.Generator().manual_seed(3)).double()
    assert scipy.stats.kstest(w.norm(dim=1).numpy(), scipy.stats.chi(6).cdf).pvalue > 0.01
    for axis in range(6):
        assert scipy.stats.kstest(w[:, axis].numpy(), scipy.stats.norm.cdf).pvalue > 0.01
    blocks = w.reshape(-1, 6, 6) / w.reshape(-1, 6, 6).norm(dim=2, keepdim=True)
    agrees_with(
        random_features,
        "closed form: a uniform direction has mean 0",
        blocks.mean(0),
        np.zeros((6, 6)),
        atol=0.04,
    )
    # As drawn by QR without its signs, the diagonal alone would be far off.
    torch.manual_seed(0)
    unsigned = torch.stack([performer.orthogonal_matrix_chunk(6) for _ in range(2000)])
    assert (unsigned.diagonal(dim1=1, dim2=2).mean(0)[:5] < -0.1).all()


def test_features_come_from_the_generator_alone():
    one = random_features(4, 7, torch.Generator().manual_seed(3))
    torch.manual_seed(5)
    assert torch.equal(random_features(4, 7, torch.Generator().manual_seed(3)), one)
    assert not torch.equal(random_features(4, 7, torch.Generator().manual_seed(4)), one)


@pytest.mark.parametrize(("dim", "count"), [(0, 3), (3, 0), (-1, 2)])
def test_features_need_a_dim_and_a_count(dim, count):
    with pytest.raises(ValueError, match=f"^dim and count must be at least 1, got {dim} and {count}$"):
        random_features(dim, count, torch.Generator())


def test_positive_features_are_their_formula(agrees_with):
    x, w = sample(dim=5)[0], projection(5, 7)
    scaled = x.numpy() / 5**0.25
    exponent = scaled @ w.numpy().T - (scaled**2).sum(-1, keepdims=True) / 2
    ours = positive_feature_map(x, w)
    agrees_with(
        positive_feature_map,
        "closed form: exp(w . x' - |x'|^2 / 2) / sqrt(count)",
        ours,
        np.exp(exponent) / math.sqrt(7),
        atol=1e-13,
    )
    assert torch.autograd.gradcheck(lambda y: positive_feature_map(y, w), x[0, 0, :2].clone().requires_grad_())


def test_the_product_of_positive_features_has_the_softmax_kernel_for_mean(agrees_with):
    q, k = (x[0, 0] * 0.7 for x in sample(length=3, keys=3, dim=4)[:2])
    w = projection(4, 60000, seed=1)
    ours = positive_feature_map(q, w) @ positive_feature_map(k, w).mT
    theirs = np.exp(q.numpy() @ k.numpy().T / 2)
    agrees_with(positive_feature_map, "closed form: exp(q . k / sqrt(D))", ours, theirs, rtol=0.02)


def test_an_orthogonal_set_of_features_has_the_smaller_error():
    q, k = (x[0, 0] for x in sample(length=20, keys=20, dim=16)[:2])
    exact = (q @ k.mT / 4).exp()
    generator = torch.Generator().manual_seed(4)
    errors = {}
    for name in ("orthogonal", "independent"):
        seen = []
        for seed in range(200):
            w = projection(16, 16, seed)
            if name == "independent":
                w = torch.randn(16, 16, generator=generator).double()
            seen.append(positive_feature_map(q, w) @ positive_feature_map(k, w).mT / exact - 1)
        errors[name] = torch.stack(seen).square().mean((0, 1, 2))
    assert errors["orthogonal"] < errors["independent"]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dim", [1, 5])
def test_performer_attention_is_attention_by_its_features(agrees_with, causal, dim):
    q, k, v = sample(length=70, dim=dim)
    w = projection(dim, 9)

    def phi(x):
        x = x / dim**0.25
        return np.exp(x @ w.numpy().T - (x**2).sum(-1, keepdims=True) / 2)

    ours = performer_attention(q, k, v, w, causal)
    theirs = definition(q, k, v, causal, phi=phi)
    agrees_with(performer_attention, DEFINITION, ours, theirs, atol=2e-14)
    again = linear_attention(q, k, v, lambda x: positive_feature_map(x, w), causal, eps=0.0)
    torch.testing.assert_close(ours, again, rtol=0, atol=1e-12)


def test_performer_attention_is_that_of_performer_pytorch_without_its_epsilon(agrees_with):
    q, k, v = sample(dim=8, value_dim=8)
    w = projection(8, 40)
    phi = [
        performer.softmax_kernel(x, projection_matrix=w, is_query=is_query, eps=0.0)
        for x, is_query in ((q, True), (k, False))
    ]
    agrees_with(
        performer_attention,
        "performer_pytorch.performer_pytorch.softmax_kernel",
        performer_attention(q, k, v, w),
        performer.linear_attention(*phi, v),
        atol=1e-13,
    )


def test_with_many_features_performer_attention_comes_near_softmax_attention(agrees_with):
    q, k, v = sample(length=40, dim=8, batch=1, heads=2)
    q, k = q / 2, k / 2
    agrees_with(
        performer_attention,
        "torch.nn.functional.scaled_dot_product_attention",
        performer_attention(q, k, v, projection(8, 32768)),
        F.scaled_dot_product_attention(q, k, v),
        atol=0.02,
    )


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 300.0])
def test_performer_weights_stay_finite_and_sum_to_one_at_any_scale(scale):
    q, k, _ = sample(length=50, dim=8, batch=1, heads=1, dtype=torch.float32)
    weights = performer_attention(q * scale, k * scale, torch.eye(50)[None, None], projection(8, 32))
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 1, 50), rtol=0, atol=1e-5)
    assert (weights >= 0).all()


def test_projections_of_another_width_are_refused():
    q, k, v = sample()
    for bad in (torch.zeros(7, 6), torch.zeros(5), torch.zeros(1, 7, 5)):
        message = rf"^expected a projection \(count, 5\), got \({str(tuple(bad.shape))[1:-1]}\)$"
        with pytest.raises(ValueError, match=message):
            performer_attention(q, k, v, bad)
        with pytest.raises(ValueError, match=message):
            positive_feature_map(q, bad)


def test_performer_rows_whose_keys_are_far_weaker_than_later_ones_become_nan():
    q, w = torch.ones(1, 1, 3, 1), torch.full((1, 1), 20.0)
    k = torch.tensor([-5.0, 2.0, 5.0]).reshape(1, 1, 3, 1)
    out = performer_attention(q, k, q, w, causal=True)
    assert out.isfinite().flatten().tolist() == [False, True, True]
    assert performer_attention(q.double(), k.double(), q.double(), w, causal=True).isfinite().all()
    assert performer_attention(q, k, q, w).isfinite().all()


# --- the module ----------------------------------------------------------------------------------


def by_hand(layer, x, causal):
    """Each head on its own slice of the projections, in float64."""
    weight, bias = (p.detach().numpy() for p in (layer.to_qkv.weight, layer.to_qkv.bias))
    dim = x.shape[2]
    width = dim // layer.heads
    q, k, v = np.split(x.numpy() @ weight.T + bias, 3, axis=2)
    heads = []
    for head in range(layer.heads):
        part = slice(head * width, (head + 1) * width)
        mine = [torch.from_numpy(y[:, None, :, part].copy()) for y in (q, k, v)]
        heads.append(definition(*mine, causal, eps=1e-6)[:, 0])
    joined = np.concatenate(heads, -1)
    return joined @ layer.to_out.weight.detach().numpy().T + layer.to_out.bias.detach().numpy()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("dim", "heads"), [(12, 3), (4, 1), (6, 6)])
def test_the_module_is_its_heads_one_by_one(agrees_with, causal, dim, heads):
    torch.manual_seed(0)
    layer = LinearAttention(dim, heads, causal).double()
    x = torch.randn(2, 9, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    agrees_with(LinearAttention, "brute force: head by head", layer(x), by_hand(layer, x, causal), atol=1e-14)
    assert sum(p.numel() for p in layer.parameters()) == 4 * dim * dim + 4 * dim


def test_the_module_is_not_causal_unless_told_and_takes_a_feature_map():
    torch.manual_seed(0)
    layer = LinearAttention(8, 2)
    x = torch.randn(1, 5, 8)
    assert layer.causal is False
    changed = torch.cat((x[:, :4], x[:, 4:] + 1), 1)
    assert not torch.allclose(layer(changed)[:, 0], layer(x)[:, 0], atol=1e-5)
    other = LinearAttention(8, 2, feature_map=taylor_feature_map)
    other.load_state_dict(layer.state_dict())
    assert not torch.allclose(other(x), layer(x), atol=1e-5)


@pytest.mark.parametrize("feature_map", [elu_feature_map, taylor_feature_map])
def test_steps_give_what_the_whole_pass_gives(agrees_with, feature_map):
    torch.manual_seed(0)
    layer = LinearAttention(12, 3, causal=True, feature_map=feature_map).double()
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    state, parts = None, []
    for part in x.split([3, 1, 1, 2], 1):
        out, state = layer.step(part, state)
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts, 1), layer(x), rtol=0, atol=1e-14)
    if feature_map is elu_feature_map:
        theirs = by_hand(layer, x, causal=True)
        agrees_with(LinearAttention, "brute force: head by head", torch.cat(parts, 1), theirs, atol=1e-14)


def test_the_module_refuses_what_does_not_fit():
    for dim, heads in ((8, 3), (8, 0), (0, 1)):
        with pytest.raises(ValueError, match=f"^heads must divide dim, got dim {dim} and heads {heads}$"):
            LinearAttention(dim, heads)
    layer = LinearAttention(8, 2)
    for bad in (torch.zeros(2, 5, 7), torch.zeros(5, 8)):
        message = rf"^expected x \(B, N, 8\), got \({str(tuple(bad.shape))[1:-1]}\)$"
        with pytest.raises(ValueError, match=message):
            layer(bad)
    with pytest.raises(ValueError, match=r"^only a causal layer can go step by step, got causal=False$"):
        layer.step(torch.zeros(2, 5, 8))
    assert LinearAttention(1, 1)(torch.zeros(2, 5, 1)).shape == (2, 5, 1)


# --- solutions of the exercises ------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "value_dim"), [(64, 64), (64, 32), (1, 1), (3, 50)])
def test_work_is_equal_at_the_crossover_length(agrees_with, dim, value_dim):
    length = crossover_length(dim, value_dim)
    quadratic = length * length * dim + length * length * value_dim  # q k^T, then weights times v
    linear = dim * length * value_dim + length * dim * value_dim  # k^T v, then q times it
    agrees_with(crossover_length, "brute force: multiply-adds of the four products", quadratic / linear, 1.0, atol=1e-15)
    assert crossover_length(value_dim, dim) == length


@pytest.mark.parametrize(("dim", "value_dim"), [(0, 4), (4, 0)])
def test_a_crossover_needs_dims(dim, value_dim):
    with pytest.raises(ValueError, match=f"^dims must be at least 1, got {dim} and {value_dim}$"):
        crossover_length(dim, value_dim)


def test_padded_keys_count_as_if_they_were_not_there(agrees_with):
    q, k, v = sample(length=4, keys=9, batch=3)
    is_token = torch.rand(3, 9, generator=torch.Generator().manual_seed(0)) < 0.6
    ours = padded_linear_attention(q, k, v, is_token, eps=0.0)
    for row in range(3):
        kept = [x[row : row + 1, :, is_token[row]] for x in (k, v)]
        agrees_with(padded_linear_attention, DEFINITION, ours[row : row + 1], definition(q[row : row + 1], *kept), atol=1e-14)
    k[:, :, ~is_token[0]] = 0.0
    v = v.masked_fill(~is_token[:, None, :, None], torch.nan)
    assert padded_linear_attention(q, k, v, is_token).isfinite().all()


def test_padding_of_a_single_head_of_width_one(agrees_with):
    q, k, v = sample(length=4, keys=9, batch=2, heads=1, dim=1)
    is_token = torch.arange(9) < torch.tensor([[5], [9]])
    ours = padded_linear_attention(q, k, v, is_token, eps=0.0)
    expected = definition(q[:1], k[:1, :, :5], v[:1, :, :5])
    agrees_with(padded_linear_attention, DEFINITION, ours[:1], expected, atol=1e-14)
    with pytest.raises(ValueError, match=r"^expected a mask \(2, 9\) of torch\.bool, got \(2, 8\) of torch\.bool$"):
        padded_linear_attention(q, k, v, is_token[:, 1:])


def test_padding_of_whole_rows_half_precision_and_eps():
    q, k, v = sample()
    nothing = torch.zeros(2, 13, dtype=torch.bool)
    assert torch.equal(padded_linear_attention(q, k, v, nothing), torch.zeros(2, 3, 13, 3).double())
    everything = ~nothing
    assert torch.equal(padded_linear_attention(q - 8, k, v, everything), linear_attention(q - 8, k, v))
    half = [x.bfloat16() for x in (q, k, v)]
    ours = padded_linear_attention(*half, everything)
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, linear_attention(*half))
    assert torch.equal(padded_linear_attention(q, k, v, everything, 0.5), linear_attention(q, k, v, eps=0.5))


@pytest.mark.parametrize("bad", [torch.ones(2, 12).bool(), torch.ones(2, 13), torch.ones(13).bool()])
def test_a_mask_that_does_not_fit_is_refused(bad):
    message = rf"^expected a mask \(2, 13\) of torch\.bool, got \({str(tuple(bad.shape))[1:-1]}\) of {bad.dtype}$"
    with pytest.raises(ValueError, match=message):
        padded_linear_attention(*sample(), bad)
    q, k, v = sample()
    with pytest.raises(ValueError, match=r"and \(2, 3, 12, 3\)$"):
        padded_linear_attention(q, k, v[:, :, 1:], torch.ones(2, 13).bool())


def test_the_delta_rule_is_its_recurrence(agrees_with):
    q, k, v = sample(length=9)
    beta = torch.rand(2, 3, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    theirs = np.zeros((2, 3, 9, 3))
    for b, h in np.ndindex(2, 3):
        memory = np.zeros((5, 3))
        for t in range(9):
            key, query = (x[b, h, t].numpy() / np.linalg.norm(x[b, h, t].numpy()) for x in (k, q))
            memory = (np.eye(5) - float(beta[b, h, t]) * np.outer(key, key)) @ memory
            memory = memory + float(beta[b, h, t]) * np.outer(key, v[b, h, t].numpy())
            theirs[b, h, t] = query @ memory
    ours = delta_rule_attention(q, k, v, beta)
    agrees_with(delta_rule_attention, "brute force: one matrix after another", ours, theirs, atol=1e-14)


def test_the_delta_rule_recalls_what_was_written_last_exactly(agrees_with):
    _, k, v = sample(length=9)
    ours = delta_rule_attention(k * 3, k, v, torch.ones(2, 3, 9).double())
    agrees_with(delta_rule_attention, "closed form: with beta 1 the last pair is recalled", ours, v.numpy(), atol=1e-14)


def test_the_delta_rule_in_half_precision_with_gradients_and_bad_input():
    q, k, v = sample(length=4, dim=2, value_dim=2, batch=1, heads=1)
    beta = torch.full((1, 1, 4), 0.5, dtype=torch.float64)
    half = delta_rule_attention(q.half(), k.half(), v.half(), beta)
    assert half.dtype == torch.float16
    wide = delta_rule_attention(q.half().float(), k.half().float(), v.half().float(), beta)
    assert torch.equal(half, wide.half())
    x = [each.clone().requires_grad_() for each in (q, k, v, beta)]
    assert torch.autograd.gradcheck(delta_rule_attention, x)
    assert delta_rule_attention(q[:, :, :0], k[:, :, :0], v[:, :, :0], beta[:, :, :0]).shape == (1, 1, 0, 2)
    with pytest.raises(ValueError, match=r"^expected beta \(1, 1, 4\), got \(1, 4\)$"):
        delta_rule_attention(q, k, v, beta[0])
    with pytest.raises(ValueError, match=r"N = M if causal, got \(1, 1, 3, 2\), \(1, 1, 4, 2\) and"):
        delta_rule_attention(q[:, :, 1:], k, v, beta)


# --- long sequences ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", CAUSAL, ids=lambda f: f.__name__)
def test_half_precision_input_of_4096_positions_keeps_its_precision(agrees_with, form):
    q, k, v = sample(length=4096, dim=8, value_dim=4, batch=1, heads=1, dtype=torch.bfloat16)
    ours = CAUSAL[form](q, k, v)[:, :, -1:]
    agrees_with(form, DEFINITION, ours.double(), definition(q[:, :, -1:], k, v), atol=3e-4)


def test_three_forms_agree_at_100_000_positions(agrees_with):
    q, k, v = sample(length=100_000, dim=4, value_dim=2, batch=1, heads=1)
    phi_q, phi_k = elu_plus_one(q.numpy()), elu_plus_one(k.numpy())
    rows = np.array([0, 1, 63, 64, 999, 50_000, 99_998, 99_999])
    theirs = []
    for row in rows:
        weights = phi_k[0, 0, : row + 1] @ phi_q[0, 0, row]
        theirs.append(weights @ v[0, 0, : row + 1].numpy() / weights.sum())
    forms = {name: form(q, k, v, eps=0.0) for name, form in CAUSAL.items()}
    for name, out in forms.items():
        agrees_with(name, DEFINITION, out[0, 0, rows], np.array(theirs), atol=1e-13)
        torch.testing.assert_close(out, forms[chunked_linear_attention], rtol=0, atol=1e-10)
    exact = forms[chunked_linear_attention]
    for form in (chunked_linear_attention, linear_attention):
        single = CAUSAL[form](q.float(), k.float(), v.float(), eps=0.0)
        agrees_with(form, DEFINITION, single[0, 0, rows], np.array(theirs), atol=1e-6)
        assert (single - exact).abs().max() < 1e-5
