"""Races of linear attention: its forms beside softmax attention and beside the libraries that have them."""

from __future__ import annotations

import linear_attention_transformer.linear_attention_transformer as lucid
import performer_pytorch
import torch
from performer_pytorch import performer_pytorch as performer
from torch import Tensor
from torch.nn import functional as F

from scripts.pipeline.benchmark import Start, race
from snippets import linear_attention as ours

TOKENS = {"zh": "词元数，4 个头，每头 32 维", "en": "tokens, 4 heads of 32"}
LENGTHS = (1024, 4096, 16_384)
LOOP = {"zh": "逐词元循环", "en": "a loop over tokens"}
HEADS, DIM = 4, 32

_FEW = "a formula of a few numbers"
UNRACED = {
    "taylor_feature_map": "a few operations on each vector, which no library has",
    "random_features": "draws a projection once",
    "positive_feature_map": "raced as a part of performer_attention",
    "LinearAttention": "linear layers around linear_attention, which is raced",
    "crossover_length": _FEW,
    "padded_linear_attention": "linear_attention with padded keys left out",
    "prefill_state": "one sum of products, raced as a part of linear_attention",
    "second_order_feature_map": "no library has it",
    "delta_rule_attention": "no library here has it",
}


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _qkv(tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = _normal(3, 1, HEADS, tokens, DIM).unbind()
    return q, k, v


@race("linear_attention.softmax_attention", sizes=(256, 1024, 4096), exponent=2, shape=TOKENS)
def softmax_attention(tokens: int) -> Start:
    q, k, v = _qkv(tokens)
    return Start(
        lambda: ours.softmax_attention(q, k, v),
        {"torch.nn.functional.scaled_dot_product_attention": lambda: F.scaled_dot_product_attention(q, k, v)},
    )


@race("linear_attention.elu_feature_map", sizes=LENGTHS, exponent=1, shape=TOKENS)
def elu_feature_map(tokens: int) -> Start:
    q, _, _ = _qkv(tokens)
    return Start(lambda: ours.elu_feature_map(q), {"torch.nn.functional.elu": lambda: F.elu(q) + 1})


@race("linear_attention.linear_attention", sizes=LENGTHS, exponent=1, shape=TOKENS, naive=LOOP)
def linear_attention(tokens: int) -> Start:
    q, k, v = _qkv(tokens)

    def naive() -> Tensor:
        """The sums of keys and values, one token after another."""
        fq, fk = ours.elu_feature_map(q), ours.elu_feature_map(k)
        state, norm = q.new_zeros(1, HEADS, DIM, DIM), q.new_zeros(1, HEADS, DIM)
        for t in range(tokens):
            state = state + fk[:, :, t, :, None] * v[:, :, t, None, :]
            norm = norm + fk[:, :, t]
        return fq @ state / (fq @ norm[..., None])

    return Start(
        lambda: ours.linear_attention(q, k, v),
        {
            "performer_pytorch.performer_pytorch.linear_attention": lambda: performer.linear_attention(
                F.elu(q) + 1, F.elu(k) + 1, v
            )
        },
        naive,
    )


@race(
    "linear_attention.recurrent_linear_attention",
    sizes=LENGTHS,
    exponent=1,
    shape={
        "zh": "词元数，4 个头，每头 32 维；每次读入 64 个，只留下状态",
        "en": "tokens, 4 heads of 32; 64 read at a time, only the state kept",
    },
    naive=LOOP,
)
def recurrent_linear_attention(tokens: int) -> Start:
    q, k, v = _qkv(tokens)
    out = torch.empty_like(v)  # made beforehand: what is measured is what reading needs, whatever the length

    def stream() -> Tensor:
        state = None
        for part in (slice(start, start + 64) for start in range(0, tokens, 64)):
            parts = q[:, :, part], k[:, :, part], v[:, :, part]
            out[:, :, part], state = ours.recurrent_linear_attention(*parts, state=state)
        return out

    def naive() -> Tensor:
        """The recurrence as published: two sums a step."""
        fq, fk = F.elu(q) + 1, F.elu(k) + 1
        state, norm = q.new_zeros(1, HEADS, DIM, DIM), q.new_zeros(1, HEADS, DIM)
        for t in range(tokens):
            state = state + torch.einsum("bhd,bhe->bhde", fk[:, :, t], v[:, :, t])
            norm = norm + fk[:, :, t]
            scale = torch.einsum("bhd,bhd->bh", fq[:, :, t], norm) + 1e-6
            out[:, :, t] = torch.einsum("bhd,bhde->bhe", fq[:, :, t], state) / scale[..., None]
        return out

    return Start(
        stream,
        {
            "performer_pytorch.performer_pytorch.causal_linear_attention_noncuda": lambda: (
                performer.causal_linear_attention_noncuda(F.elu(q) + 1, F.elu(k) + 1, v)
            )
        },
        naive,
    )


@race("linear_attention.chunked_linear_attention", sizes=LENGTHS, exponent=1, shape=TOKENS)
def chunked_linear_attention(tokens: int) -> Start:
    q, k, v = _qkv(tokens)
    return Start(
        lambda: ours.chunked_linear_attention(q, k, v),
        {
            "performer_pytorch.performer_pytorch.causal_linear_attention_noncuda": lambda: (
                performer.causal_linear_attention_noncuda(F.elu(q) + 1, F.elu(k) + 1, v, chunk_size=64)
            )
        },
    )


@race("linear_attention.efficient_attention", sizes=LENGTHS, exponent=1, shape=TOKENS)
def efficient_attention(tokens: int) -> Start:
    q, k, v = _qkv(tokens)
    return Start(
        lambda: ours.efficient_attention(q, k, v),
        {
            "linear_attention_transformer.linear_attention_transformer.linear_attn": lambda: (
                lucid.linear_attn(q, k, v)
            )
        },
    )


@race("linear_attention.performer_attention", sizes=LENGTHS, exponent=1, shape=TOKENS)
def performer_attention(tokens: int) -> Start:
    q, k, v = _qkv(tokens)
    reference = performer_pytorch.FastAttention(DIM, 128, causal=False)
    projection = reference.projection_matrix
    return Start(
        lambda: ours.performer_attention(q, k, v, projection),
        {"performer_pytorch.FastAttention": lambda: reference(q, k, v)},
    )
