"""The Transformer, from attention to the whole model, and the cells it replaced."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _check_cell(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, *biases: Tensor | None, gates: int
) -> None:
    size = h.shape[-1:].numel()
    rows, given = gates * size, [bias for bias in biases if bias is not None]
    if (
        h.shape != (*x.shape[:-1], size)
        or w_ih.shape != (rows, *x.shape[-1:])
        or w_hh.shape != (rows, size)
        or any(bias.shape != (rows,) for bias in given)
    ):
        shapes = ", ".join(str(tuple(t.shape)) for t in (x, h, w_ih, w_hh, *given))
        raise ValueError(
            f"expected x (..., D), h (..., H), w_ih ({gates}H, D), w_hh ({gates}H, H) "
            f"and biases ({gates}H,), got {shapes}"
        )


def rnn_cell(
    x: Tensor,
    h: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """One step of a simple recurrent network: tanh(W x + b + U h + b').

    x (..., D) input, h (..., H) previous state, w_ih (H, D), w_hh (H, H), biases (H,)
    or None. Gives the next state (..., H). Raises ValueError for other shapes.
    Source: Elman 1990; weights laid out as in torch.nn.RNNCell.

    Example:
        >>> import torch
        >>> x, h = torch.tensor([[1.0]]), torch.tensor([[0.5]])
        >>> rnn_cell(x, h, torch.tensor([[2.0]]), torch.tensor([[-1.0]]))  # tanh(1.5)
        tensor([[0.9051]])
    """
    _check_cell(x, h, w_ih, w_hh, b_ih, b_hh, gates=1)
    return torch.tanh(F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh))


def lstm_cell(
    x: Tensor,
    state: tuple[Tensor, Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of a long short-term memory, with forget gate, without peepholes.

    c' = f * c + i * g and h' = o * tanh(c'). x (..., D) input, state (h, c) of (..., H)
    each, w_ih (4H, D), w_hh (4H, H), biases (4H,) or None; the rows belong to the gates
    i, f, g, o in torch's order. Gives (h', c'). Raises ValueError for other shapes.
    Source: Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000.

    Example:
        >>> import torch
        >>> x, state = torch.zeros(1, 1), (torch.zeros(1, 1), torch.ones(1, 1))
        >>> h, c = lstm_cell(x, state, torch.zeros(4, 1), torch.zeros(4, 1))
        >>> c  # a gate of sigmoid(0) keeps one half
        tensor([[0.5000]])
    """
    h, c = state
    _check_cell(x, h, w_ih, w_hh, b_ih, b_hh, gates=4)
    if c.shape != h.shape:
        raise ValueError(f"h and c must match, got {tuple(h.shape)}, {tuple(c.shape)}")
    gates = F.linear(x, w_ih, b_ih)
    gates += F.linear(h, w_hh, b_hh)  # in place: a third tensor of this size is waste
    i, f, g, o = gates.chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_cell(
    x: Tensor,
    h: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """One step of a gated recurrent unit in the form of cuDNN and torch.nn.GRUCell.

    n = tanh(W x + b + r * (U h + b')) and h' = (1 - z) * n + z * h: the reset gate r
    scales the *product* U h; the last version of Cho et al. 2014 scales h itself.
    x (..., D) input, h (..., H) state, w_ih (3H, D), w_hh (3H, H), biases (3H,) or
    None; rows in the order r, z, n. Gives the next state (..., H). Raises ValueError
    for other shapes.

    Example:
        >>> import torch
        >>> x, h = torch.zeros(1, 1), torch.ones(1, 1)
        >>> gru_cell(x, h, torch.zeros(3, 1), torch.zeros(3, 1))
        tensor([[0.5000]])
    """
    _check_cell(x, h, w_ih, w_hh, b_ih, b_hh, gates=3)
    r_x, z_x, n_x = F.linear(x, w_ih, b_ih).chunk(3, -1)
    r_h, z_h, n_h = F.linear(h, w_hh, b_hh).chunk(3, -1)
    r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()
    n = (n_x + r * n_h).tanh()
    return n + z * (h - n)


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
    """How much each query takes from each key: softmax(Q K^T / sqrt(d)), masked.

    query (..., Lq, d), key (..., Lk, d); gives (..., Lq, Lk), rows of sum 1. mask,
    boolean and broadcastable to that: True = may attend. A row without any True is all
    zeros, and so are its gradients. Raises ValueError if query and key differ in d or
    have fewer than two axes, and for a mask of another shape or dtype.
    Source: Vaswani et al. 2017, equation 1.

    Example:
        >>> import torch
        >>> query, key = torch.zeros(2, 4), torch.randn(3, 4)
        >>> attention_weights(query, key, torch.tensor([[True, True, False]]))
        tensor([[0.5000, 0.5000, 0.0000],
                [0.5000, 0.5000, 0.0000]])
    """
    if min(query.ndim, key.ndim) < 2 or query.shape[-1] != key.shape[-1]:
        raise ValueError(
            "expected query (..., Lq, d) and key (..., Lk, d), "
            f"got {tuple(query.shape)} and {tuple(key.shape)}"
        )
    # The query is scaled rather than the product, which may overflow in float16.
    scores = query / math.sqrt(query.shape[-1]) @ key.transpose(-2, -1)  # (..., Lq, Lk)
    if mask is None:
        return scores.softmax(-1)
    sizes = zip(mask.shape[::-1], scores.shape[::-1], strict=False)
    if mask.dtype != torch.bool or any(m not in (1, s) for m, s in sizes):
        raise ValueError(
            f"expected a boolean mask broadcastable to {tuple(scores.shape)}, "
            f"got {tuple(mask.shape)} of {mask.dtype}"
        )
    # A finite floor in place of -inf: a row with no key never becomes NaN on the way.
    floor = torch.finfo(scores.dtype).min
    return scores.masked_fill(~mask, floor).softmax(-1) * mask


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Average of the values, weighted by how well each key fits the query.

    query (..., Lq, d), key (..., Lk, d), value (..., Lk, e); gives (..., Lq, e). mask,
    boolean and broadcastable to (..., Lq, Lk): True = may attend. A query that may
    attend to nothing gets zeros. Raises ValueError where attention_weights does, and if
    keys and values differ in number.
    Source: Vaswani et al. 2017, equation 1.

    Example:
        >>> import torch
        >>> query = torch.tensor([[20.0, 0.0]])
        >>> key, value = torch.eye(2), torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
        >>> scaled_dot_product_attention(query, key, value)
        tensor([[1.0000, 2.0000, 3.0000]])
    """
    weights = attention_weights(query, key, mask)  # (..., Lq, Lk)
    if value.ndim < 2 or value.shape[-2] != key.shape[-2]:
        raise ValueError(
            "expected a value for each key, "
            f"got {tuple(value.shape)} for keys {tuple(key.shape)}"
        )
    return weights @ value


def causal_mask(
    length: int, past: int = 0, device: torch.device | str | None = None
) -> Tensor:
    """Which keys each query may attend to if none may lie in its future.

    The queries are the last `length` of past + length positions. Gives (length,
    past + length) booleans, True = may attend. Raises ValueError for negative sizes.

    Example:
        >>> causal_mask(3)
        tensor([[ True, False, False],
                [ True,  True, False],
                [ True,  True,  True]])
        >>> causal_mask(1, past=3)
        tensor([[True, True, True, True]])
    """
    if length < 0 or past < 0:
        raise ValueError(f"length and past must be at least 0, got {length}, {past}")
    positions = torch.arange(past + length, device=device)
    return positions <= positions[past:, None]


def padding_mask(lengths: Tensor | Sequence[int], max_length: int) -> Tensor:
    """Which positions of a padded batch hold a token.

    lengths (B,) integers from 0 to max_length; gives (B, max_length) booleans, True for
    the first lengths[b] positions. As a mask for keys it needs an axis for the queries:
    padding_mask(...)[:, None], which `&` joins with a causal mask. Raises ValueError
    for lengths of another shape or dtype, or out of range.

    Example:
        >>> padding_mask([1, 3], max_length=3)
        tensor([[ True, False, False],
                [ True,  True,  True]])
    """
    lengths = torch.as_tensor(lengths)
    if lengths.numel() == 0:
        lengths = lengths.long()
    if lengths.ndim != 1 or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(
            "expected integer lengths (B,), "
            f"got {tuple(lengths.shape)} of {lengths.dtype}"
        )
    if ((lengths < 0) | (lengths > max_length)).any():
        raise ValueError(f"lengths must be 0 to {max_length}, got {lengths.tolist()}")
    return torch.arange(max_length, device=lengths.device) < lengths[:, None]


def sinusoidal_positions(length: int, dim: int, start: int = 0) -> Tensor:
    """Position codes: column 2i is sin(p / 10000^(2i/dim)), column 2i + 1 the cosine.

    Gives (length, dim) float32 for the positions start to start + length - 1, computed
    in float64, since the sine of a large float32 angle is inexact. Raises ValueError
    for an odd dim, a dim below 2, or a negative length or start.
    Source: Vaswani et al. 2017, section 3.5.

    Example:
        >>> sinusoidal_positions(2, 4)
        tensor([[0.0000, 1.0000, 0.0000, 1.0000],
                [0.8415, 0.5403, 0.0100, 0.9999]])
    """
    if dim < 2 or dim % 2:
        raise ValueError(f"dim must be even and at least 2, got {dim}")
    if length < 0 or start < 0:
        raise ValueError(f"length and start must be at least 0, got {length}, {start}")
    position = torch.arange(start, start + length)
    rate = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angle = position[:, None] * rate  # (L, dim / 2)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1).float()


class KeyValueCache:
    """The keys and values that one attention layer has projected so far.

    `extend` appends those of new tokens, (..., L, d), along their axis and gives all of
    them back; `len` is the number of positions held. While decoding, each token is thus
    projected once, whatever follows it.

    Example:
        >>> import torch
        >>> cache = KeyValueCache()
        >>> for step in range(3):
        ...     keys, values = cache.extend(torch.ones(1, 4), torch.ones(1, 4))
        >>> len(cache), keys.shape
        (3, torch.Size([3, 4]))
    """

    def __init__(self) -> None:
        self.held: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return 0 if self.held is None else self.held[0].shape[-2]

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.held is not None:
            keys = torch.cat([self.held[0], keys], -2)
            values = torch.cat([self.held[1], values], -2)
        self.held = keys, values
        return self.held


class MultiHeadAttention(nn.Module):
    """Attention in several subspaces of size dim / heads at once.

    forward(query (B, Lq, dim), key (B, Lk, dim), value (B, Lk, dim), mask, cache) gives
    (B, Lq, dim). mask, boolean, (Lq, Lk) or (B, Lq, Lk) with 1 for any axis that does
    not matter: True = may attend; it holds for all heads. With a cache, the new keys
    are joined to those it holds, and Lk counts both.
    Raises ValueError if heads does not divide dim.
    Source: Vaswani et al. 2017, section 3.2.2.

    Example:
        >>> import torch
        >>> attention = MultiHeadAttention(dim=8, heads=2)
        >>> x = torch.randn(3, 5, 8)
        >>> attention(x, x, x, torch.ones(5, 5).tril().bool()).shape
        torch.Size([3, 5, 8])
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim < 1 or heads < 1 or dim % heads:
            raise ValueError(f"heads must divide dim, got dim {dim} and heads {heads}")
        self.split = (heads, dim // heads)
        self.query, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.value, self.output = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        # (B, L, dim) -> (B, L, heads, d) -> (B, heads, L, d): heads join the batch.
        q = self.query(query).unflatten(-1, self.split).transpose(-3, -2)
        k = self.key(key).unflatten(-1, self.split).transpose(-3, -2)
        v = self.value(value).unflatten(-1, self.split).transpose(-3, -2)
        if cache is not None:
            k, v = cache.extend(k, v)
        if mask is not None and mask.ndim > 2:
            mask = mask.unsqueeze(-3)  # (B, 1, Lq, Lk)
        mixed = scaled_dot_product_attention(q, k, v, mask)  # (B, heads, Lq, d)
        joined: Tensor = self.output(mixed.transpose(-3, -2).flatten(-2))
        return joined


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between them, the same at each position.

    forward(x (..., dim)) gives (..., dim). Raises ValueError for a size below 1.
    Source: Vaswani et al. 2017, equation 2.

    Example:
        >>> import torch
        >>> FeedForward(dim=8, hidden_dim=32)(torch.randn(3, 5, 8)).shape
        torch.Size([3, 5, 8])
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        if dim < 1 or hidden_dim < 1:
            raise ValueError(f"sizes must be at least 1, got {dim} and {hidden_dim}")
        self.up, self.down = nn.Linear(dim, hidden_dim), nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.up(x).relu())
        return out


class Residual(nn.Module):
    """Adds a sublayer's output to its input, with a layer norm after or before.

    forward(x (..., dim), sublayer) gives norm(x + sublayer(x)), as in the paper, or
    with norm_first x + sublayer(norm(x)), which leaves the way along x untouched.
    Dropout acts on the sublayer's output. Raises ValueError if it is not in 0 to 1.
    Source: Vaswani et al. 2017, sections 3.1 and 5.4; Xiong et al. 2020, figure 1.

    Example:
        >>> import torch
        >>> x = torch.tensor([[3.0, 1.0]])
        >>> Residual(2, norm_first=True)(x, torch.zeros_like)
        tensor([[3., 1.]])
        >>> Residual(2)(x, torch.zeros_like).detach()
        tensor([[ 1.0000, -1.0000]])
    """

    def __init__(
        self, dim: int, norm_first: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(dim), nn.Dropout(dropout)
        self.norm_first = norm_first

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        inner = sublayer(self.norm(x) if self.norm_first else x)
        added: Tensor = x + self.dropout(inner)
        return added if self.norm_first else self.norm(added)


class EncoderLayer(nn.Module):
    """Self-attention, then a feed-forward network, each within a residual connection.

    forward(x (B, L, dim), mask) gives (B, L, dim). mask, boolean, (L, L), (B, L, L) or
    (B, 1, L): True = may attend.
    Source: Vaswani et al. 2017, section 3.1 (norm_first=False; dropout 0.1 in 5.4).

    Example:
        >>> import torch
        >>> layer = EncoderLayer(dim=8, heads=2, hidden_dim=32)
        >>> is_token = torch.arange(5) < torch.tensor([[5], [3]])  # (B, L)
        >>> layer(torch.randn(2, 5, 8), is_token[:, None]).shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden_dim: int,
        norm_first: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, heads)
        self.feed_forward = FeedForward(dim, hidden_dim)
        self.around_attention = Residual(dim, norm_first, dropout)
        self.around_feed_forward = Residual(dim, norm_first, dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.around_attention(x, lambda y: self.attention(y, y, y, mask))
        out: Tensor = self.around_feed_forward(x, self.feed_forward)
        return out


class DecoderLayer(nn.Module):
    """Self-attention, attention to the encoder's output, then a feed-forward network.

    forward(x (B, T, dim), memory (B, S, dim), mask, memory_mask, cache) gives
    (B, T, dim). The boolean masks (True = may attend) are for (T, T) and (T, S), with a
    batch axis in front if need be; pass causal_mask(T) as mask. A cache keeps the keys
    and values of the self-attention from call to call.
    Source: Vaswani et al. 2017, section 3.1.

    Example:
        >>> import torch
        >>> layer = DecoderLayer(dim=8, heads=2, hidden_dim=32)
        >>> mask = torch.ones(4, 4).tril().bool()
        >>> layer(torch.randn(2, 4, 8), torch.randn(2, 6, 8), mask).shape
        torch.Size([2, 4, 8])
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden_dim: int,
        norm_first: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, heads)
        self.cross_attention = MultiHeadAttention(dim, heads)
        self.feed_forward = FeedForward(dim, hidden_dim)
        self.around_attention = Residual(dim, norm_first, dropout)
        self.around_cross_attention = Residual(dim, norm_first, dropout)
        self.around_feed_forward = Residual(dim, norm_first, dropout)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        x = self.around_attention(x, lambda y: self.attention(y, y, y, mask, cache))
        x = self.around_cross_attention(
            x, lambda y: self.cross_attention(y, memory, memory, memory_mask)
        )
        out: Tensor = self.around_feed_forward(x, self.feed_forward)
        return out


class Transformer(nn.Module):
    """Encoder and decoder around one embedding, which is also the output layer.

    forward(source (B, S), target (B, T), source_mask (B, S), True for tokens, or None)
    gives logits (B, T, vocab_size), those at t from target tokens 0 to t. With
    norm_first, each stack ends in one more layer norm. Raises ValueError for a dim that
    is odd, below 2 or not divided by heads. Source: Vaswani et al. 2017, section 3.

    Example:
        >>> import torch
        >>> model = Transformer(vocab_size=11, dim=8, heads=2, layers=2, hidden_dim=32)
        >>> source, target = torch.randint(11, (3, 6)), torch.randint(11, (3, 4))
        >>> model(source, target).shape
        torch.Size([3, 4, 11])
    """

    def __init__(
        self, vocab_size: int, dim: int, heads: int, layers: int, hidden_dim: int,
        norm_first: bool = False, dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sinusoidal_positions(0, dim)  # refuses an odd dim, now rather than in use
        self.embedding = nn.Embedding(vocab_size, dim)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        sizes = (dim, heads, hidden_dim, norm_first, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(layers))
        self.encoder_norm = nn.LayerNorm(dim) if norm_first else nn.Identity()
        self.decoder_norm = nn.LayerNorm(dim) if norm_first else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def embed(self, tokens: Tensor, start: int = 0) -> Tensor:
        x = self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim)
        codes = sinusoidal_positions(tokens.shape[-1], x.shape[-1], start).to(x)
        embedded: Tensor = self.dropout(x + codes)
        return embedded

    def encode(self, source: Tensor, source_mask: Tensor | None = None) -> Tensor:
        mask = None if source_mask is None else source_mask.unsqueeze(-2)  # (B, 1, S)
        x = self.embed(source)
        for layer in self.encoder:
            x = layer(x, mask)
        memory: Tensor = self.encoder_norm(x)
        return memory

    def decode(
        self, target: Tensor, memory: Tensor, source_mask: Tensor | None = None,
        caches: Sequence[KeyValueCache] | None = None,
    ) -> Tensor:
        past = len(caches[0]) if caches else 0
        mask = causal_mask(target.shape[-1], past, target.device)
        memory_mask = None if source_mask is None else source_mask.unsqueeze(-2)
        x = self.embed(target, start=past)
        held: Sequence[KeyValueCache | None] = caches or [None] * len(self.decoder)
        for layer, cache in zip(self.decoder, held, strict=True):
            x = layer(x, memory, mask, memory_mask, cache)
        return F.linear(self.decoder_norm(x), self.embedding.weight)  # (B, T, vocab)

    def forward(
        self, source: Tensor, target: Tensor, source_mask: Tensor | None = None
    ) -> Tensor:
        return self.decode(target, self.encode(source, source_mask), source_mask)


def greedy_decode(
    model: Transformer,
    source: Tensor,
    start: int,
    end: int,
    max_length: int,
    source_mask: Tensor | None = None,
    use_cache: bool = True,
) -> Tensor:
    """Generate token by token, always the most probable one.

    source (B, S) integers, source_mask (B, S) True for tokens. Gives (B, L) integers,
    L at most max_length: `start`, the tokens chosen, and `end` from where a row has
    ended. Stops once all rows have. With use_cache only the newest token runs through
    the decoder at each step, otherwise all of them do; the result is the same.
    Call model.eval() first if it has dropout. Raises ValueError for max_length below 1.

    Example:
        >>> import torch
        >>> model = Transformer(vocab_size=11, dim=8, heads=2, layers=1, hidden_dim=16)
        >>> tokens = greedy_decode(model, torch.tensor([[5, 6, 7]]), 1, 2, max_length=4)
        >>> tokens[:, 0], tokens.shape[1] <= 4
        (tensor([1]), True)
    """
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1, got {max_length}")
    with torch.no_grad():
        memory = model.encode(source, source_mask)
        caches = [KeyValueCache() for _ in model.decoder] if use_cache else None
        tokens = torch.full((len(source), 1), start, device=source.device)
        ended = tokens == end  # (B, 1)
        while tokens.shape[1] < max_length and not ended.all():
            new = tokens[:, -1:] if use_cache else tokens
            logits = model.decode(new, memory, source_mask, caches)[:, -1:]  # (B, 1, V)
            chosen = logits.argmax(-1).masked_fill(ended, end)
            tokens = torch.cat([tokens, chosen], 1)
            ended = chosen == end
    return tokens


def noam_rate(step: int, dim: int, warmup: int = 4000) -> float:
    """Learning rate: rises linearly for `warmup` steps, then falls as 1 / sqrt(step).

    Steps count from 1; the peak, at step = warmup, is 1 / sqrt(dim * warmup). Raises
    ValueError for anything below 1.
    Source: Vaswani et al. 2017, equation 3.

    Example:
        >>> [round(1e4 * noam_rate(step, 512), 2) for step in (1, 2000, 4000, 16000)]
        [0.0, 3.49, 6.99, 3.49]
    """
    if min(step, dim, warmup) < 1:
        raise ValueError(
            f"step, dim and warmup must be at least 1, got {step}, {dim} and {warmup}"
        )
    return float(dim**-0.5 * min(step**-0.5, step * warmup**-1.5))


def label_smoothing_loss(
    logits: Tensor, target: Tensor, smoothing: float = 0.1, ignore_index: int = -100
) -> Tensor:
    """Cross-entropy against (1 - smoothing) * one-hot + smoothing * uniform.

    logits (..., V), target (...) integers; a scalar, the mean over the targets other
    than `ignore_index`, NaN if there is none. The uniform part covers all V classes,
    the true one included. Half precision is computed and given in float32.
    Raises ValueError for other shapes, a floating-point target, or a smoothing outside
    0 to 1.
    Source: Szegedy et al. 2016, section 7; Vaswani et al. 2017, section 5.4 (0.1).

    Example:
        >>> import torch
        >>> logits, target = torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([0])
        >>> [label_smoothing_loss(logits, target, epsilon) for epsilon in (0.0, 0.1)]
        [tensor(0.0949), tensor(0.2949)]
    """
    shapes_fit = logits.ndim > 0 and logits.shape[:-1] == target.shape
    if not shapes_fit or target.is_floating_point():
        raise ValueError(
            "expected logits (..., V) and integer target (...), got "
            f"{tuple(logits.shape)} and {tuple(target.shape)} of {target.dtype}"
        )
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing must be 0 to 1, got {smoothing}")
    dtype = torch.promote_types(logits.dtype, torch.float32)
    log_p = logits.log_softmax(-1, dtype=dtype)  # (..., V)
    counted = target != ignore_index
    index = target.masked_fill(~counted, 0).long().unsqueeze(-1)  # (..., 1)
    loss: Tensor = -log_p.gather(-1, index).squeeze(-1)  # (...)
    if smoothing > 0:  # 0 times an impossible class, log 0, would be NaN
        loss = (1 - smoothing) * loss - smoothing * log_p.mean(-1)
    return loss.masked_fill(~counted, 0).sum() / counted.sum()


def shift_matrix(offset: int, dim: int) -> Tensor:
    """The matrix R with R PE(p) = PE(p + offset) at each position p.

    One rotation for each pair of columns of `sinusoidal_positions`. Gives (dim, dim)
    float64; negative offsets shift back. Raises ValueError for an odd dim or one
    below 2.

    Example:
        >>> once = shift_matrix(1, 4)
        >>> torch.allclose(shift_matrix(5, 4), torch.linalg.matrix_power(once, 5))
        True
    """
    if dim < 2 or dim % 2:
        raise ValueError(f"dim must be even and at least 2, got {dim}")
    rate = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    cos, sin = (offset * rate).cos(), (offset * rate).sin()
    blocks = torch.stack([cos, sin, -sin, cos], -1).reshape(-1, 2, 2)
    matrix: Tensor = torch.block_diag(*blocks)
    return matrix


def transformer_parameters(
    vocab_size: int, dim: int, layers: int, hidden_dim: int, norm_first: bool = False
) -> int:
    """How many weights a `Transformer` has; the number of heads does not matter.

    Raises ValueError for a negative size.

    Example:
        >>> transformer_parameters(37000, dim=512, layers=6, hidden_dim=2048)
        63082496
    """
    if min(vocab_size, dim, layers, hidden_dim) < 0:
        raise ValueError(
            f"sizes must be at least 0, got {(vocab_size, dim, layers, hidden_dim)}"
        )
    attention = 4 * (dim * dim + dim)
    feed_forward = 2 * dim * hidden_dim + hidden_dim + dim
    norm = 2 * dim
    encoder = attention + feed_forward + 2 * norm
    decoder = 2 * attention + feed_forward + 3 * norm
    return vocab_size * dim + layers * (encoder + decoder) + 2 * norm * norm_first


def window_mask(length: int, window: int) -> Tensor:
    """Causal mask that reaches back no further than the last `window` positions.

    Gives (length, length) booleans, True = may attend; a window of 1 is the query's own
    position. Raises ValueError for a negative length or a window below 1.

    Example:
        >>> window_mask(4, window=2).int()
        tensor([[1, 0, 0, 0],
                [1, 1, 0, 0],
                [0, 1, 1, 0],
                [0, 0, 1, 1]], dtype=torch.int32)
    """
    if length < 0 or window < 1:
        raise ValueError(f"need length >= 0 and window >= 1, got {length} and {window}")
    position = torch.arange(length)
    distance = position[:, None] - position
    return (distance >= 0) & (distance < window)


def attention_in_blocks(query: Tensor, key: Tensor, value: Tensor, size: int) -> Tensor:
    """Attention without ever holding more than `size` columns of the score matrix.

    query (..., Lq, d), key (..., Lk, d), value (..., Lk, e); gives (..., Lq, e), the
    same as the whole at once. A block may bring a larger maximum; what was summed so
    far is then rescaled to it. Raises ValueError for a size below 1, without any key,
    or if keys and values differ in number.
    Source: Milakov & Gimelshein 2018, algorithm 3; used by Dao et al. 2022.

    Example:
        >>> import torch
        >>> query, key, value = torch.randn(3, 7, 4).unbind()
        >>> sdpa = torch.nn.functional.scaled_dot_product_attention
        >>> whole = sdpa(query, key, value)
        >>> blocks = attention_in_blocks(query, key, value, size=2)
        >>> torch.allclose(blocks, whole, atol=1e-6)
        True
    """
    if size < 1 or key.shape[-2] < 1 or key.shape[-2] != value.shape[-2]:
        raise ValueError(
            "expected size >= 1 and at least one key, with a value each, "
            f"got {size}, {tuple(key.shape)} and {tuple(value.shape)}"
        )
    query = query / math.sqrt(query.shape[-1])
    highest = query.new_full((*query.shape[:-1], 1), -math.inf)  # (..., Lq, 1)
    total, out = torch.zeros_like(highest), torch.zeros_like(highest)
    for k, v in zip(key.split(size, -2), value.split(size, -2), strict=True):
        scores = query @ k.transpose(-2, -1)  # (..., Lq, size)
        above = torch.maximum(highest, scores.amax(-1, keepdim=True))
        weights, kept = (scores - above).exp(), (highest - above).exp()
        total = kept * total + weights.sum(-1, keepdim=True)
        out = kept * out + weights @ v  # (..., Lq, e)
        highest = above
    return out / total
