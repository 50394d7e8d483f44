"""Races of the Transformer: cells, attention and layers at lengths and widths of real use."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scripts.pipeline.benchmark import Start, race
from snippets import transformer as ours

DIM, HEADS = 256, 8
CELL = {"zh": "批量，256 维", "en": "batch, 256 wide"}
HEAD = {"zh": "词元数，4 个头，每头 32 维", "en": "tokens, 4 heads of 32"}
LAYER = {"zh": "词元数，256 维，8 个头，批量 1", "en": "tokens, 256 wide, 8 heads, batch of 1"}
LOOP = {"zh": "逐词元循环", "en": "a loop over tokens"}
LENGTHS = (256, 1024, 4096)

_FEW = "a formula of a few numbers"
UNRACED = {
    "attention_weights": "raced as scaled_dot_product_attention, which libraries offer whole",
    "padding_mask": "one comparison",
    "sinusoidal_positions": "no library here has it as a function",
    "KeyValueCache": "joins two tensors",
    "FeedForward": "two linear layers of the library",
    "Residual": "a layer norm of the library and a sum",
    "greedy_decode": "drives the reader's model",
    "noam_rate": _FEW,
    "shift_matrix": "a small matrix that proves a theorem",
    "transformer_parameters": _FEW,
    "window_mask": "one comparison",
}


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@race("transformer.rnn_cell", sizes=(64, 256, 1024), exponent=1, shape=CELL)
def rnn_cell(batch: int) -> Start:
    x, h = _normal(batch, DIM), _normal(batch, DIM, seed=1)
    cell = nn.RNNCell(DIM, DIM).requires_grad_(False)
    weights = (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
    return Start(lambda: ours.rnn_cell(x, h, *weights), {"torch.nn.RNNCell": lambda: cell(x, h)})


@race("transformer.lstm_cell", sizes=(64, 256, 1024), exponent=1, shape=CELL)
def lstm_cell(batch: int) -> Start:
    x, state = _normal(batch, DIM), (_normal(batch, DIM, seed=1), _normal(batch, DIM, seed=2))
    cell = nn.LSTMCell(DIM, DIM).requires_grad_(False)
    weights = (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
    return Start(lambda: ours.lstm_cell(x, state, *weights), {"torch.nn.LSTMCell": lambda: cell(x, state)})


@race("transformer.gru_cell", sizes=(64, 256, 1024), exponent=1, shape=CELL)
def gru_cell(batch: int) -> Start:
    x, h = _normal(batch, DIM), _normal(batch, DIM, seed=1)
    cell = nn.GRUCell(DIM, DIM).requires_grad_(False)
    weights = (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
    return Start(lambda: ours.gru_cell(x, h, *weights), {"torch.nn.GRUCell": lambda: cell(x, h)})


def _row_by_row(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One query after another, all heads at a time."""
    rows = [(q[..., i : i + 1, :] @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v for i in range(q.shape[-2])]
    return torch.cat(rows, -2)


@race("transformer.scaled_dot_product_attention", sizes=LENGTHS, exponent=2, shape=HEAD, naive=LOOP)
def scaled_dot_product_attention(tokens: int) -> Start:
    q, k, v = _normal(3, 1, 4, tokens, 32).unbind()
    return Start(
        lambda: ours.scaled_dot_product_attention(q, k, v),
        {"torch.nn.functional.scaled_dot_product_attention": lambda: F.scaled_dot_product_attention(q, k, v)},
        lambda: _row_by_row(q, k, v),
    )


@race("transformer.attention_in_blocks", sizes=LENGTHS, exponent=2, shape=HEAD)
def attention_in_blocks(tokens: int) -> Start:
    q, k, v = _normal(3, 1, 4, tokens, 32).unbind()
    return Start(
        lambda: ours.attention_in_blocks(q, k, v, 64),
        {"torch.nn.functional.scaled_dot_product_attention": lambda: F.scaled_dot_product_attention(q, k, v)},
    )


@race("transformer.causal_mask", sizes=LENGTHS, exponent=2, shape={"zh": "词元数", "en": "tokens"})
def causal_mask(tokens: int) -> Start:
    return Start(
        lambda: ours.causal_mask(tokens),
        {
            "numpy.tri": lambda: np.tri(tokens, dtype=bool),
            "torch.tril": lambda: torch.ones(tokens, tokens, dtype=torch.bool).tril(),
        },
    )


@race("transformer.MultiHeadAttention", sizes=(64, 256, 1024), exponent=2, shape=LAYER)
def multi_head_attention(tokens: int) -> Start:
    x = _normal(1, tokens, DIM)
    module = ours.MultiHeadAttention(DIM, HEADS).eval().requires_grad_(False)
    reference = nn.MultiheadAttention(DIM, HEADS, batch_first=True).eval().requires_grad_(False)
    return Start(
        lambda: module(x, x, x),
        {"torch.nn.MultiheadAttention": lambda: reference(x, x, x, need_weights=False)[0]},
    )


@race("transformer.EncoderLayer", sizes=(64, 256, 1024), exponent=1.5, shape=LAYER)
def encoder_layer(tokens: int) -> Start:
    x = _normal(1, tokens, DIM)
    module = ours.EncoderLayer(DIM, HEADS, 4 * DIM).eval().requires_grad_(False)
    reference = nn.TransformerEncoderLayer(DIM, HEADS, 4 * DIM, batch_first=True).eval().requires_grad_(False)
    return Start(lambda: module(x), {"torch.nn.TransformerEncoderLayer": lambda: reference(x)})


@race("transformer.DecoderLayer", sizes=(64, 256, 1024), exponent=1.5, shape=LAYER)
def decoder_layer(tokens: int) -> Start:
    x, memory = _normal(1, tokens, DIM), _normal(1, tokens, DIM, seed=1)
    module = ours.DecoderLayer(DIM, HEADS, 4 * DIM).eval().requires_grad_(False)
    reference = nn.TransformerDecoderLayer(DIM, HEADS, 4 * DIM, batch_first=True).eval().requires_grad_(False)
    mask, forbidden = ours.causal_mask(tokens), ~ours.causal_mask(tokens)
    return Start(
        lambda: module(x, memory, mask),
        {"torch.nn.TransformerDecoderLayer": lambda: reference(x, memory, tgt_mask=forbidden, tgt_is_causal=True)},
    )


@race(
    "transformer.Transformer",
    sizes=(32, 128, 512),
    exponent=1.5,
    shape={
        "zh": "源与目标的词元数，128 维，2 + 2 层，批量 1",
        "en": "tokens of source and target, 128 wide, 2 + 2 layers, batch of 1",
    },
)
def whole(tokens: int) -> Start:
    source = torch.randint(1000, (1, tokens), generator=torch.Generator().manual_seed(0))
    model = ours.Transformer(1000, 128, 4, 2, 512).eval().requires_grad_(False)
    reference = nn.Transformer(128, 4, 2, 2, 512, batch_first=True).eval().requires_grad_(False)
    embed, logits = nn.Embedding(1000, 128).requires_grad_(False), nn.Linear(128, 1000).requires_grad_(False)
    forbidden = ~ours.causal_mask(tokens)

    def theirs() -> Tensor:
        x = embed(source)
        out: Tensor = logits(reference(x, x, tgt_mask=forbidden, tgt_is_causal=True))
        return out

    return Start(lambda: model(source, source), {"torch.nn.Transformer": theirs})


@race(
    "transformer.label_smoothing_loss",
    sizes=((64, 1000), (256, 8000), (512, 32_000)),
    exponent=1,
    shape={"zh": "词元数 × 词表大小", "en": "tokens × vocabulary"},
)
def label_smoothing_loss(tokens: int, vocabulary: int) -> Start:
    logits = _normal(tokens, vocabulary)
    target = torch.randint(vocabulary, (tokens,), generator=torch.Generator().manual_seed(1))
    return Start(
        lambda: ours.label_smoothing_loss(logits, target),
        {"torch.nn.functional.cross_entropy": lambda: F.cross_entropy(logits, target, label_smoothing=0.1)},
    )
