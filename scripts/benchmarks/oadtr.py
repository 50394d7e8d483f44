"""Races of OadTR: layers at the width of the paper, metrics over the frames of a data set."""

from __future__ import annotations

import numpy as np
import sklearn.metrics
import sklearn.metrics.pairwise
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scripts.pipeline.benchmark import Start, race
from snippets import oadtr as ours

DIM, HEADS = 256, 8
TOKENS = {"zh": "窗口里的帧数，256 维，8 个头，批量 4", "en": "frames in a window, 256 wide, 8 heads, batch of 4"}
FRAMES = {"zh": "帧数", "en": "frames"}
CLASSES = {"zh": "帧数，21 类", "en": "frames, 21 classes"}
LOOP = {"zh": "逐帧循环", "en": "a loop over frames"}
BATCH = 4

_WHOLE = "the whole model, whose layers are raced"
UNRACED = {
    "future_targets": "no library has it",
    "OadTR": _WHOLE,
    "oadtr_loss": "two calls of the library's cross-entropy",
    "calibrated_average_precision": "no library has it; raced as average_precision, which it repeats with a weight",
    "StreamingDetector": "no library has it: bench and exercise on its page count its work per frame",
    "GruDetector": "the library's GRU with two linear heads",
    "interpolated_average_precision": "no library here interpolates like that",
    "mean_per_video_ap": "the mean of what mean_average_precision gives",
    "frame_cost": "a formula of a few numbers",
    "CachedTokenAttention": "no library has it",
}


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _scored(frames: int) -> tuple[Tensor, Tensor]:
    """Scores rounded so that some are equal, and one frame in ten positive."""
    scores = (_normal(frames) * 1000).round() / 1000
    return scores, torch.rand(frames, generator=torch.Generator().manual_seed(1)) < 0.1


@race("oadtr.sliding_windows", sizes=(512, 2048, 8192), exponent=1, shape=FRAMES, naive=LOOP)
def sliding_windows(frames: int) -> Start:
    features = _normal(frames, 64)
    array = features.numpy()

    def joined() -> NDArray[np.float32]:
        return np.concatenate([np.zeros((31, 64), dtype=np.float32), array])

    def theirs() -> NDArray[np.float32]:
        return np.lib.stride_tricks.sliding_window_view(joined(), 32, axis=0).transpose(0, 2, 1)

    def naive() -> Tensor:
        padded = torch.from_numpy(joined())
        return torch.stack([padded[t : t + 32] for t in range(frames)])

    return Start(
        lambda: ours.sliding_windows(features, 32), {"numpy.lib.stride_tricks.sliding_window_view": theirs}, naive
    )


@race("oadtr.Attention", sizes=(64, 256, 1024), exponent=2, shape=TOKENS)
def attention(frames: int) -> Start:
    x = _normal(BATCH, frames, DIM)
    module = ours.Attention(DIM, HEADS).eval().requires_grad_(False)
    reference = nn.MultiheadAttention(DIM, HEADS, batch_first=True).eval().requires_grad_(False)
    return Start(
        lambda: module(x, x),
        {"torch.nn.MultiheadAttention": lambda: reference(x, x, x, need_weights=False)[0]},
    )


@race("oadtr.EncoderLayer", sizes=(64, 256, 1024), exponent=1.5, shape=TOKENS)
def encoder_layer(frames: int) -> Start:
    x = _normal(BATCH, frames, DIM)
    module = ours.EncoderLayer(DIM, HEADS, 4 * DIM).eval().requires_grad_(False)
    reference = nn.TransformerEncoderLayer(DIM, HEADS, 4 * DIM, activation="gelu", batch_first=True, norm_first=True)
    reference.eval().requires_grad_(False)
    return Start(lambda: module(x), {"torch.nn.TransformerEncoderLayer": lambda: reference(x)})


@race("oadtr.DecoderLayer", sizes=(64, 256, 1024), exponent=1.5, shape=TOKENS)
def decoder_layer(frames: int) -> Start:
    x, memory = _normal(BATCH, frames, DIM), _normal(BATCH, frames, DIM, seed=1)
    module = ours.DecoderLayer(DIM, HEADS, 4 * DIM).eval().requires_grad_(False)
    reference = nn.TransformerDecoderLayer(DIM, HEADS, 4 * DIM, activation="gelu", batch_first=True)
    reference.eval().requires_grad_(False)
    mask = nn.Transformer.generate_square_subsequent_mask(frames)
    return Start(
        lambda: module(x, memory),
        {"torch.nn.TransformerDecoderLayer": lambda: reference(x, memory, tgt_mask=mask, tgt_is_causal=True)},
    )


@race("oadtr.OadEncoder", sizes=(64, 256, 512), exponent=1.5, shape=TOKENS)
def encoder(frames: int) -> Start:
    x = _normal(BATCH, frames, DIM)
    module = ours.OadEncoder(DIM, HEADS, 3, frames).eval().requires_grad_(False)
    layer = nn.TransformerEncoderLayer(DIM, HEADS, DIM, activation="gelu", batch_first=True, norm_first=True)
    reference = nn.TransformerEncoder(layer, 3, nn.LayerNorm(DIM), enable_nested_tensor=False)
    reference.eval().requires_grad_(False)
    longer = _normal(BATCH, frames + 1, DIM)  # with the task token
    return Start(lambda: module(x), {"torch.nn.TransformerEncoder": lambda: reference(longer)})


@race(
    "oadtr.OadDecoder",
    sizes=(64, 256, 512),
    exponent=1,
    shape={"zh": "编码器给出的帧数，预测 8 帧，批量 4", "en": "frames from the encoder, 8 to predict, batch of 4"},
)
def decoder(frames: int) -> Start:
    memory = _normal(BATCH, frames, DIM)
    module = ours.OadDecoder(DIM, HEADS, 5, 8).eval().requires_grad_(False)
    layer = nn.TransformerDecoderLayer(DIM, HEADS, DIM, activation="gelu", batch_first=True)
    reference = nn.TransformerDecoder(layer, 5).eval().requires_grad_(False)
    queries, mask = _normal(BATCH, 8, DIM), nn.Transformer.generate_square_subsequent_mask(8)
    return Start(
        lambda: module(memory),
        {"torch.nn.TransformerDecoder": lambda: reference(queries, memory, tgt_mask=mask, tgt_is_causal=True)},
    )


@race("oadtr.token_similarity", sizes=(1024, 4096, 16_384), exponent=1, shape=FRAMES)
def token_similarity(frames: int) -> Start:
    token, features = _normal(DIM), _normal(frames, DIM, seed=1)
    x, y = token.numpy()[None], features.numpy()
    return Start(
        lambda: ours.token_similarity(token, features),
        {"sklearn.metrics.pairwise.cosine_similarity": lambda: sklearn.metrics.pairwise.cosine_similarity(x, y)[0]},
    )


@race("oadtr.average_precision", sizes=(10_000, 100_000, 1_000_000), exponent=1, shape=FRAMES)
def average_precision(frames: int) -> Start:
    scores, positive = _scored(frames)
    truth, values = positive.numpy(), scores.numpy()
    return Start(
        lambda: ours.average_precision(scores, positive),
        {"sklearn.metrics.average_precision_score": lambda: sklearn.metrics.average_precision_score(truth, values)},
    )


@race("oadtr.mean_average_precision", sizes=(2000, 10_000, 50_000), exponent=1, shape=CLASSES)
def mean_average_precision(frames: int) -> Start:
    scores = _normal(frames, 22)
    labels = torch.randint(22, (frames,), generator=torch.Generator().manual_seed(1))
    truth = nn.functional.one_hot(labels)[:, 1:].numpy()
    values = scores[:, 1:].numpy()
    return Start(
        lambda: ours.mean_average_precision(scores, labels),
        {"sklearn.metrics.average_precision_score": lambda: sklearn.metrics.average_precision_score(truth, values)},
    )
