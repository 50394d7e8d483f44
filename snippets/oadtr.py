"""OadTR: online action detection with Transformers, its metrics, and a stream."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sliding_windows(features: Tensor, length: int) -> Tensor:
    """The last `length` frames at every moment: window t ends with frame t.

    features (..., T, D); gives (..., T, length, D), oldest frame first, a view of one
    padded copy. Frames before the start are zeros, on the left; no frame after t is in
    window t. Raises ValueError for fewer than two axes or length below 1.
    Source: Wang et al. 2021 (historical frames and the current one).

    Example:
        >>> import torch
        >>> sliding_windows(torch.tensor([[1.0], [2.0], [3.0]]), length=2)[..., 0]
        tensor([[0., 1.],
                [1., 2.],
                [2., 3.]])
    """
    if features.ndim < 2:
        raise ValueError(f"expected features (..., T, D), got {tuple(features.shape)}")
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    *batch, _, dim = features.shape
    zeros = features.new_zeros(*batch, length, dim)  # one more than needed: T may be 0
    padded = torch.cat([zeros, features], dim=-2)
    return padded.unfold(-2, length, 1)[..., 1:, :, :].mT


def future_targets(labels: Tensor, future: int, ignore_index: int = -100) -> Tensor:
    """The labels of the `future` frames after each frame: target (t, k) = label t+1+k.

    labels (..., T) integers; gives (..., T, future). Beyond the end there is no truth:
    `ignore_index`, which the loss leaves out. Raises ValueError for a negative number
    of frames.

    Example:
        >>> import torch
        >>> future_targets(torch.tensor([0, 0, 5]), future=2)
        tensor([[   0,    5],
                [   5, -100],
                [-100, -100]])
    """
    if future < 0:
        raise ValueError(f"future must not be negative, got {future}")
    padded = F.pad(labels, (0, future + 1), value=ignore_index)
    return padded.unfold(-1, future + 1, 1)[..., :-1, 1:]


class Attention(nn.Module):
    """Multi-head attention: every query takes a weighted mean of the values.

    forward(x (B, M, D), memory (B, N, D)) gives (B, M, D); causal=True lets query i see
    only the first i + 1 rows of the memory. Raises ValueError if the heads do not
    divide the width. Source: Vaswani et al. 2017, section 3.2.

    Example:
        >>> import torch
        >>> Attention(8, heads=2)(torch.zeros(1, 3, 8), torch.zeros(1, 5, 8)).shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads must divide dim, got {heads} and {dim}")
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, memory: Tensor, causal: bool = False) -> Tensor:
        keys, values = self.key_value(memory).chunk(2, dim=-1)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, N, D / H)
            for part in (self.query(x), keys, values)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


def _feed_forward(dim: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class EncoderLayer(nn.Module):
    """Pre-norm Transformer layer: self-attention, then a feed-forward network.

    forward(x (B, N, D)) gives (B, N, D). hidden: width of the feed-forward network,
    `dim` if not told, as in the official code; dropout acts on both branches.
    Source: Wang et al. 2021 (encoder).

    Example:
        >>> import torch
        >>> EncoderLayer(8, heads=2)(torch.zeros(1, 5, 8)).shape
        torch.Size([1, 5, 8])
    """

    def __init__(
        self, dim: int, heads: int, hidden: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.feed_forward = _feed_forward(dim, hidden or dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.dropout(self.attention(y, y))
        out: Tensor = x + self.dropout(self.feed_forward(self.norm2(x)))
        return out


class DecoderLayer(nn.Module):
    """Post-norm Transformer layer: causal self-attention, then cross-attention.

    forward(x (B, K, D), memory (B, N, D)) gives (B, K, D). hidden and dropout as in
    `EncoderLayer`. Source: Wang et al. 2021 (decoder) and its official code.

    Example:
        >>> import torch
        >>> DecoderLayer(8, heads=2)(torch.zeros(1, 3, 8), torch.zeros(1, 5, 8)).shape
        torch.Size([1, 3, 8])
    """

    def __init__(
        self, dim: int, heads: int, hidden: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.self_attention = Attention(dim, heads)
        self.cross_attention = Attention(dim, heads)
        self.feed_forward = _feed_forward(dim, hidden or dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attention(x, x, causal=True)))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory)))
        normed: Tensor = self.norm3(x + self.dropout(self.feed_forward(x)))
        return normed


class OadEncoder(nn.Module):
    """Transformer encoder over a window of frames, with a task token as its last row.

    forward(x (B, length, dim)) gives token (B, dim) and frames (B, length, dim), both
    after a final LayerNorm. Positions are learned, the token has one too. Without
    `task_token`, "token" is the last frame's row. Raises ValueError for another length
    or width, or if there is no frame or no layer.
    Source: Wang et al. 2021 (encoder with a task token).

    Example:
        >>> import torch
        >>> token, frames = OadEncoder(8, 2, layers=1, length=5)(torch.zeros(3, 5, 8))
        >>> token.shape, frames.shape
        (torch.Size([3, 8]), torch.Size([3, 5, 8]))
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        layers: int,
        length: int,
        task_token: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if layers < 1 or length < 1:
            raise ValueError(
                f"layers and length must be at least 1, got {layers} and {length}"
            )
        self.length = length
        self.token = nn.Parameter(torch.zeros(1, dim)) if task_token else None
        self.position = nn.Parameter(0.02 * torch.randn(length + task_token, dim))
        self.layers = nn.ModuleList(
            EncoderLayer(dim, heads, dropout=dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        length, dim = self.length, self.position.shape[1]
        if x.ndim != 3 or x.shape[1:] != (length, dim):
            raise ValueError(f"expected (B, {length}, {dim}), got {tuple(x.shape)}")
        if self.token is not None:
            x = torch.cat([x, self.token.expand(len(x), 1, -1)], dim=1)
        x = x + self.position
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        return x[:, -1], x[:, : self.length]


class OadDecoder(nn.Module):
    """Predicts features of the next `future` frames, all at once, from learned queries.

    forward(memory (B, N, dim)) gives (B, future, dim). Query k attends to the queries
    before it and to the whole memory; it is fed no truth, so training and use do not
    differ. Raises ValueError if there is no frame or no layer.
    Source: Wang et al. 2021 (decoder).

    Example:
        >>> import torch
        >>> OadDecoder(8, heads=2, layers=1, future=4)(torch.zeros(3, 5, 8)).shape
        torch.Size([3, 4, 8])
    """

    def __init__(
        self, dim: int, heads: int, layers: int, future: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if layers < 1 or future < 1:
            raise ValueError(
                f"layers and future must be at least 1, got {layers} and {future}"
            )
        self.queries = nn.Parameter(0.02 * torch.randn(future, dim))
        self.layers = nn.ModuleList(
            DecoderLayer(dim, heads, dropout=dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, memory: Tensor) -> Tensor:
        x = self.queries.expand(len(memory), -1, -1)
        for layer in self.layers:
            x = layer(x, memory)
        normed: Tensor = self.norm(x)
        return normed


class OadTR(nn.Module):
    """Classifies the last frame of a window, and the `future` frames that follow it.

    forward(x (B, length, feature_dim)) gives current logits (B, num_classes + 1) and
    future logits (B, future, num_classes + 1); class 0 is background. The current frame
    is judged from the task token joined with the mean of the predicted future. With
    future=0 there is no decoder, and the token alone decides. `detect` starts from
    projected frames (B, length, dim), as a stream needs it.
    Source: Wang et al. 2021; order of rows and pooling: its official code.

    Example:
        >>> import torch
        >>> model = OadTR(6, 4, dim=8, heads=2, encoder_layers=1, decoder_layers=1,
        ...               length=5, future=3)
        >>> current, future = model(torch.zeros(2, 5, 6))
        >>> current.shape, future.shape
        (torch.Size([2, 5]), torch.Size([2, 3, 5]))
    """

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        dim: int,
        heads: int,
        encoder_layers: int,
        decoder_layers: int,
        length: int,
        future: int,
        task_token: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        rows = num_classes + 1
        self.project = nn.Linear(feature_dim, dim)
        self.encoder = OadEncoder(
            dim, heads, encoder_layers, length, task_token, dropout
        )
        self.decoder = (
            OadDecoder(dim, heads, decoder_layers, future, dropout) if future else None
        )
        self.head = nn.Linear(2 * dim if future else dim, rows)
        self.future_head = nn.Linear(dim, rows)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.detect(self.project(x))

    def detect(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        token, frames = self.encoder(projected)
        if self.decoder is None:
            return self.head(token), self.future_head(frames[:, :0])
        if self.encoder.token is not None:
            frames = torch.cat([frames, token[:, None]], dim=1)
        predicted = self.decoder(frames)  # (B, future, dim)
        joined = torch.cat([token, predicted.mean(dim=1)], dim=1)
        return self.head(joined), self.future_head(predicted)


def oadtr_loss(
    current_logits: Tensor,
    future_logits: Tensor,
    current: Tensor,
    future: Tensor,
    future_weight: float = 0.5,
    ignore_index: int = -100,
) -> Tensor:
    """Cross-entropy of the current frame plus `future_weight` times that of the future.

    current_logits (..., C + 1), future_logits (..., K, C + 1); current (...) and future
    (..., K) integer labels. Each mean is taken over the labels that are not
    `ignore_index`; where none is left, it is 0. Raises ValueError for other shapes.
    Source: Wang et al. 2021 (lambda = 0.5 in its official code).

    Example:
        >>> import torch
        >>> current, future = torch.tensor([1]), torch.tensor([[1, -100]])
        >>> oadtr_loss(torch.zeros(1, 2), torch.zeros(1, 2, 2), current, future)
        tensor(1.0397)
    """
    shapes = current_logits.shape[:-1], future_logits.shape[:-1]
    if shapes != (current.shape, future.shape):
        raise ValueError(
            "labels must have the logits' shapes without the last axis, "
            f"got {tuple(current.shape)} and {tuple(future.shape)} for "
            f"{tuple(current_logits.shape)} and {tuple(future_logits.shape)}"
        )

    def mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
        total = F.cross_entropy(
            logits.flatten(0, -2),
            labels.flatten(),
            ignore_index=ignore_index,
            reduction="sum",
        )
        return total / (labels != ignore_index).sum().clamp(min=1)

    loss = mean_loss(current_logits, current)
    return loss + future_weight * mean_loss(future_logits, future)


def token_similarity(token: Tensor, frames: Tensor) -> Tensor:
    """Cosine of the angle between the classifier's input and each frame's feature.

    token (..., D), frames (..., T, D); gives (..., T) in -1 to 1, and 0 where either is
    zero. Raises ValueError if the widths or the leading axes differ.
    Source: Wang et al. 2021 (what the task token gathers).

    Example:
        >>> import torch
        >>> token_similarity(torch.tensor([2.0, 0.0]), torch.eye(2))
        tensor([1., 0.])
    """
    if frames.ndim < 2 or token.shape != frames.shape[:-2] + frames.shape[-1:]:
        raise ValueError(
            "expected token (..., D) and frames (..., T, D), "
            f"got {tuple(token.shape)} and {tuple(frames.shape)}"
        )
    tiny = torch.finfo(frames.dtype).tiny  # 0 / 0 must not be NaN, in float16 either
    token, frames = (F.normalize(x, dim=-1, eps=tiny) for x in (token, frames))
    return (frames @ token[..., None]).squeeze(-1)


def _precision_and_gain(scores: Tensor, positive: Tensor) -> tuple[Tensor, ...]:
    """True and false positives at each distinct threshold, and the new true ones.

    Frames of one score enter together: their order in memory must not matter.
    """
    if scores.ndim != 1 or scores.shape != positive.shape:
        raise ValueError(
            "expected scores (N) and positive (N), "
            f"got {tuple(scores.shape)} and {tuple(positive.shape)}"
        )
    if scores.isnan().any():
        raise ValueError("scores must not contain NaN")
    ranked, order = scores.sort(descending=True)
    hits = positive.bool()[order]
    last = torch.ones_like(hits)
    last[:-1] = ranked[1:] != ranked[:-1]
    tp = hits.cumsum(0)[last].double()
    fp = (~hits).cumsum(0)[last].double()
    return tp, fp, tp.diff(prepend=tp.new_zeros(1))


def average_precision(scores: Tensor, positive: Tensor) -> Tensor:
    """Area under the precision-recall staircase: sum of precision times recall gained.

    scores (N) and positive (N) boolean; gives a float64 scalar, NaN without a positive.
    Equal scores share one threshold. Nothing is interpolated. Raises ValueError for
    other shapes or a NaN among the scores.

    Example:
        >>> import torch
        >>> positive = torch.tensor([True, False, True])
        >>> average_precision(torch.tensor([0.9, 0.8, 0.1]), positive)
        tensor(0.8333, dtype=torch.float64)
    """
    tp, fp, gained = _precision_and_gain(scores, positive)
    return (gained * tp / (tp + fp)).sum() / gained.sum()


def calibrated_average_precision(scores: Tensor, positive: Tensor) -> Tensor:
    """Average precision as if positives and negatives were equally many.

    Precision becomes w TP / (w TP + FP) with w = negatives / positives, so that a rare
    class is not penalized for being rare: chance is one half. scores and positive (N)
    as in `average_precision`; float64 scalar, NaN without a positive or a negative.
    Source: De Geest et al. 2016 (cPrec and cAP).

    Example:
        >>> import torch
        >>> positive = torch.tensor([True, False, False, True])
        >>> calibrated_average_precision(torch.tensor([4.0, 3.0, 2.0, 1.0]), positive)
        tensor(0.7500, dtype=torch.float64)
    """
    tp, fp, gained = _precision_and_gain(scores, positive)
    weight = fp[-1:].sum() / tp[-1:].sum()
    precision = weight * tp / (weight * tp + fp)
    return (gained * precision).sum() / gained.sum()


def mean_average_precision(
    scores: Tensor,
    labels: Tensor,
    background: int | None = 0,
    calibrated: bool = False,
    ignore_index: int = -100,
) -> Tensor:
    """Per-frame mAP: the AP of each class over all frames, averaged over the classes.

    scores (N, C + 1), one column per class; labels (N) integers, all videos joined.
    The background class is left out of the mean (None: it is not), as are classes
    without a frame; its frames stay as negatives. Frames labeled `ignore_index` are
    taken out: they are nobody's negatives. calibrated=True averages the calibrated AP:
    mcAP. Gives a float64 scalar. Raises ValueError for other shapes, or if there is no
    class beside the background. Source: De Geest et al. 2016.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]])
        >>> mean_average_precision(scores, torch.tensor([1, 0, 0]))
        tensor(1., dtype=torch.float64)
    """
    if scores.ndim != 2 or scores.shape[:1] != labels.shape:
        raise ValueError(
            "expected scores (N, C + 1) and labels (N), "
            f"got {tuple(scores.shape)} and {tuple(labels.shape)}"
        )
    kept = labels != ignore_index
    scores, labels = scores[kept], labels[kept]
    measure = calibrated_average_precision if calibrated else average_precision
    values = [
        measure(scores[:, c], labels == c)
        for c in range(scores.shape[1])
        if c != background
    ]
    if not values:
        raise ValueError("there is no class beside the background")
    return torch.stack(values).nanmean()


class StreamingDetector:
    """Runs an OadTR frame by frame; memory and work per frame stay constant.

    step(feature (S, feature_dim)) takes the newest frame of S parallel streams and
    gives the logits that model(sliding_windows(...)) has for it. Kept between steps:
    the projected frames of the window, (S, length, dim). A learned position belongs to
    the slot, and each frame moves one slot on, so what lies above the projection is
    computed anew. `reset` starts new videos. Raises ValueError for another shape or a
    model in training mode.

    Example:
        >>> import torch
        >>> model = OadTR(6, 4, 8, 2, 1, 1, length=5, future=3).eval()
        >>> current, future = StreamingDetector(model).step(torch.zeros(1, 6))
        >>> current.shape, future.shape
        (torch.Size([1, 5]), torch.Size([1, 3, 5]))
    """

    def __init__(self, model: OadTR, streams: int = 1) -> None:
        if model.training:
            raise ValueError("the model must be in evaluation mode: call eval() first")
        self.model, self.streams = model, streams
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        weight = self.model.project.weight
        # An empty slot is a frame of zeros; its projection is the bias, not zero.
        empty = self.model.project(weight.new_zeros(weight.shape[1]))
        shape = self.streams, self.model.encoder.length, -1
        self.window = empty.expand(shape).clone()

    @torch.no_grad()
    def step(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        expected = self.streams, self.model.project.in_features
        if feature.shape != expected:
            raise ValueError(f"expected {expected}, got {tuple(feature.shape)}")
        newest = self.model.project(feature)[:, None]  # (S, 1, dim)
        self.window = torch.cat([self.window[:, 1:], newest], dim=1)
        return self.model.detect(self.window)


class GruDetector(nn.Module):
    """The recurrent rival: a GRU, a head for now, and one for each future frame.

    forward(x (B, T, feature_dim), state=None) gives current logits (B, T, C + 1),
    future logits (B, T, future, C + 1) and the state (1, B, dim) from which the next
    call goes on; every frame is judged from itself and those before it.

    Example:
        >>> import torch
        >>> model = GruDetector(6, 4, dim=8, future=3)
        >>> current, future, state = model(torch.zeros(2, 5, 6))
        >>> current.shape, future.shape, state.shape
        (torch.Size([2, 5, 5]), torch.Size([2, 5, 3, 5]), torch.Size([1, 2, 8]))
    """

    def __init__(
        self, feature_dim: int, num_classes: int, dim: int, future: int
    ) -> None:
        super().__init__()
        self.future = future
        self.gru = nn.GRU(feature_dim, dim, batch_first=True)
        self.head = nn.Linear(dim, num_classes + 1)
        self.future_head = nn.Linear(dim, future * (num_classes + 1))

    def forward(
        self, x: Tensor, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        hidden, state = self.gru(x, state)  # (B, T, dim), (1, B, dim)
        ahead = self.future_head(hidden).unflatten(-1, (self.future, -1))
        return self.head(hidden), ahead, state


def interpolated_average_precision(scores: Tensor, positive: Tensor) -> Tensor:
    """AP with precision replaced by the best at any recall at least as high.

    scores and positive (N) as in `average_precision`, and never below it. Float64
    scalar, NaN without a positive. Source: Everingham et al. 2015 (VOC since 2010).

    Example:
        >>> import torch
        >>> positive = torch.tensor([False, True, True])
        >>> interpolated_average_precision(torch.tensor([0.9, 0.8, 0.7]), positive)
        tensor(0.6667, dtype=torch.float64)
    """
    tp, fp, gained = _precision_and_gain(scores, positive)
    best = (tp / (tp + fp)).flip(0).cummax(0).values.flip(0)
    return (gained * best).sum() / gained.sum()


def mean_per_video_ap(scores: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
    """The mean over videos of each video's own mAP: not the per-frame mAP.

    scores: one (T, C + 1) per video, labels: one (T). A class that a video lacks is
    left out of that video's mean, and with it every false alarm of that class. Videos
    without any action are left out. Float64 scalar. Raises ValueError without a video.

    Example:
        >>> import torch
        >>> scores = [torch.tensor([[0.1, 0.9]]), torch.tensor([[0.0, 1.0]])]
        >>> mean_per_video_ap(scores, [torch.tensor([1]), torch.tensor([0])])
        tensor(1., dtype=torch.float64)
    """
    values = [mean_average_precision(s, t) for s, t in zip(scores, labels, strict=True)]
    if not values:
        raise ValueError("expected at least one video, got none")
    return torch.stack(values).nanmean()


def frame_cost(
    feature_dim: int,
    dim: int,
    encoder_layers: int,
    decoder_layers: int,
    length: int,
    future: int,
    cached: bool = True,
) -> int:
    """Multiply-adds per frame of a stream, heads of the classifier left out.

    `cached`: the projections of earlier frames are kept; otherwise all `length` are
    computed again. A task token is counted, a feed-forward network is `dim` wide.

    Example:
        >>> frame_cost(4, 2, encoder_layers=1, decoder_layers=0, length=3, future=0)
        168
    """
    rows = length + 1
    project = feature_dim * dim * (1 if cached else length)
    encoder = rows * 6 * dim**2 + 2 * rows**2 * dim
    own = future * 4 * dim**2 + 2 * future**2 * dim
    cross = (2 * future + 2 * rows) * dim**2 + 2 * future * rows * dim
    decoder = own + cross + future * 2 * dim**2
    return project + encoder_layers * encoder + decoder_layers * decoder


class CachedTokenAttention:
    """A task token's attention over a sliding window, one new key and value per frame.

    A single layer whose only query is the token, and whose frames carry a position
    that they keep (or none), never has to compute a key or value twice.
    step(frame (dim)) gives the attended (dim) over the last `length` frames, or over
    fewer at the start. Source: Hedegaard et al. 2023 (single-output attention).

    Example:
        >>> import torch
        >>> cache = CachedTokenAttention(Attention(8, 2), torch.ones(8), length=5)
        >>> cache.step(torch.zeros(8)).shape
        torch.Size([8])
    """

    def __init__(self, attention: Attention, token: Tensor, length: int) -> None:
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        self.attention, self.length = attention, length
        with torch.no_grad():
            self.query = attention.query(token).unflatten(0, (attention.heads, -1))
        self.pairs = self.query.new_zeros(0, 2 * token.numel())

    @torch.no_grad()
    def step(self, frame: Tensor) -> Tensor:
        newest = self.attention.key_value(frame)[None]  # (1, 2 dim)
        self.pairs = torch.cat([self.pairs, newest])[-self.length :]
        keys, values = (
            part.unflatten(1, (self.attention.heads, -1))  # (N, H, D / H)
            for part in self.pairs.chunk(2, dim=1)
        )
        logits = (keys * self.query).sum(-1) / self.query.shape[1] ** 0.5  # (N, H)
        mixed = (logits.softmax(0)[..., None] * values).sum(0)  # (H, D / H)
        out: Tensor = self.attention.out(mixed.flatten())
        return out
