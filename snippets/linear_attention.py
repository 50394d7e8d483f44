"""Linear attention: sums first, so that work grows with the length, not its square."""

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _checked(
    q: Tensor, k: Tensor, v: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v in the precision that sums are taken in: float32 for half precision."""
    fits = q.ndim == k.ndim == v.ndim == 4
    fits = fits and q.shape[:2] == k.shape[:2] and q.shape[3] == k.shape[3]
    fits = fits and k.shape[:3] == v.shape[:3]
    if not fits or (causal and q.shape[2] != k.shape[2]):
        raise ValueError(
            "expected q (B, H, N, D), k (B, H, M, D) and v (B, H, M, V), N = M if "
            f"causal, got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if not q.dtype == k.dtype == v.dtype or not v.is_floating_point():
        raise ValueError(
            "expected one floating-point dtype, "
            f"got {q.dtype}, {k.dtype} and {v.dtype}"
        )
    wide = torch.promote_types(v.dtype, torch.float32)
    return q.to(wide), k.to(wide), v.to(wide)


def _with_ones(v: Tensor) -> Tensor:
    """Values with a last column of ones, whose weighted sum is the normalizer."""
    return torch.cat((v, v.new_ones(*v.shape[:-1], 1)), -1)  # (..., V + 1)


def _normalized(sums: Tensor, eps: float) -> Tensor:
    return sums[..., :-1] / (sums[..., -1:] + eps)


def softmax_attention(
    q: Tensor, k: Tensor, v: Tensor, causal: bool = False
) -> Tensor:
    """Softmax attention by its definition: softmax(q k^T / sqrt(D)) v.

    q (B, H, N, D), k (B, H, M, D), v (B, H, M, V) of one floating dtype; gives
    (B, H, N, V) in that dtype. Makes N x M weights. With `causal`, position i sees
    positions 0 to i. Raises ValueError for other shapes or dtypes.
    Source: Vaswani et al. 2017, equation 1.

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(3, 1, 2, 5, 8).unbind()
        >>> softmax_attention(q, k, v, causal=True).shape
        torch.Size([1, 2, 5, 8])
    """
    dtype = v.dtype
    q, k, v = _checked(q, k, v, causal)
    scores = q @ k.mT / sqrt(q.shape[-1])  # (B, H, N, M)
    if causal:
        future = scores.new_ones(scores.shape[2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    return (scores.softmax(-1) @ v).to(dtype)


def elu_feature_map(x: Tensor) -> Tensor:
    """elu(x) + 1, elementwise: x + 1 where x > 0, exp(x) elsewhere. Any shape.

    Written without the sum: exp(x) - 1 + 1 rounds to 0 for x below -17 in float32 and
    below -6 in bfloat16, and a row of zeros has no normalizer.
    Source: Katharopoulos et al. 2020, equation 7.

    Example:
        >>> import torch
        >>> elu_feature_map(torch.tensor([-20.0, -1.0, 0.0, 2.0]))
        tensor([2.0612e-09, 3.6788e-01, 1.0000e+00, 3.0000e+00])
    """
    return x.relu() + x.clamp(max=0).exp()


def _causal_sums(q: Tensor, k: Tensor, v: Tensor, size: int = 64) -> Tensor:
    """For each i, q_i^T sum_{j <= i} k_j v_j^T: (B, H, N, V), all chunks at once."""
    length = q.shape[2]
    count = -(-length // size)
    padding = (0, 0, 0, count * size - length)
    q, k, v = (F.pad(x, padding).unflatten(2, (count, size)) for x in (q, k, v))
    totals = (k.mT @ v).cumsum(2)  # (B, H, count, F, V), up to the end of each chunk
    before = F.pad(totals[:, :, :-1], (0, 0, 0, 0, 1, 0))  # moved on by one chunk
    sums = (q @ k.mT).tril() @ v + q @ before  # (B, H, count, size, V)
    return sums.flatten(2, 3)[:, :, :length]


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    feature_map: Callable[[Tensor], Tensor] = elu_feature_map,
    causal: bool = False,
    eps: float = 1e-6,
) -> Tensor:
    """Attention with weights phi(q_i) . phi(k_j) in place of exp(q_i . k_j).

    out_i = phi(q_i)^T sum_j phi(k_j) v_j^T / (phi(q_i) . sum_j phi(k_j) + eps); with
    `causal`, j runs to i. q (B, H, N, D), k (B, H, M, D), v (B, H, M, V) of one
    floating dtype; gives (B, H, N, V) in that dtype, summed in float32 or wider.
    `feature_map` turns (..., D) into (..., F), positive for a positive normalizer.
    `eps` shrinks a row whose normalizer is about as small. Raises ValueError for other
    shapes or dtypes. Source: Katharopoulos et al. 2020, equations 5 and 9.

    Example:
        >>> import torch
        >>> q, k = torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4)
        >>> v = torch.tensor([3.0, 6.0, 9.0]).reshape(1, 1, 3, 1)
        >>> linear_attention(q, k, v, causal=True).flatten()  # equal weights: means
        tensor([3.0000, 4.5000, 6.0000])
    """
    dtype = v.dtype
    q, k, v = _checked(q, k, v, causal)
    if causal:
        sums = _causal_sums(feature_map(q), feature_map(k), _with_ones(v))
    else:
        sums = feature_map(q) @ (feature_map(k).mT @ _with_ones(v))
    return _normalized(sums, eps).to(dtype)


def recurrent_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    feature_map: Callable[[Tensor], Tensor] = elu_feature_map,
    state: tuple[Tensor, Tensor] | None = None,
    eps: float = 1e-6,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Causal linear attention, one position after another: an RNN.

    Gives (out, state): out as `linear_attention(..., causal=True)`, and the state
    S (B, H, F, V), z (B, H, F) after the last position, in float32 or wider. Hand it to
    the next call to go on where this one stopped; its size does not depend on N.
    Raises ValueError for other shapes, of the state too, or dtypes of q, k, v.
    Source: Katharopoulos et al. 2020, equations 16 to 20.

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(3, 1, 1, 6, 4).unbind()
        >>> whole, _ = recurrent_linear_attention(q, k, v)
        >>> parts, state = [], None
        >>> for t in range(6):  # token by token
        ...     x = (each[:, :, t : t + 1] for each in (q, k, v))
        ...     out, state = recurrent_linear_attention(*x, state=state)
        ...     parts.append(out)
        >>> torch.allclose(torch.cat(parts, 2), whole)
        True
    """
    dtype = v.dtype
    q, k, v = _checked(q, k, v, causal=True)
    q, k, v = feature_map(q), feature_map(k), _with_ones(v)
    memory = k[:, :, :0].mT @ v[:, :, :0]  # (B, H, F, V + 1) zeros: S, and z beside it
    if state is not None:
        shapes = tuple(state[0].shape), tuple(state[1].shape)
        expected = (*memory.shape[:3], memory.shape[3] - 1), tuple(memory.shape[:3])
        if shapes != expected:
            raise ValueError(f"expected a state of shapes {expected}, got {shapes}")
        memory = torch.cat((state[0], state[1][..., None]), -1).to(memory)
    sums = [q[:, :, :0] @ memory]  # so that no position at all is no special case
    for q_t, k_t, v_t in zip(q.unbind(2), k.unbind(2), v.unbind(2), strict=True):
        memory = memory + k_t[..., :, None] * v_t[..., None, :]
        sums.append(q_t[..., None, :] @ memory)  # (B, H, 1, V + 1)
    out = _normalized(torch.cat(sums, 2), eps)
    return out.to(dtype), (memory[..., :-1], memory[..., -1])


def chunked_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    chunk_size: int = 64,
    feature_map: Callable[[Tensor], Tensor] = elu_feature_map,
    eps: float = 1e-6,
) -> Tensor:
    """Causal linear attention, chunk after chunk, each by matrix products.

    The result of `linear_attention(..., causal=True)` for any chunk size C, N need not
    be a multiple of it. Within a chunk the weights are made and masked, what came
    before is in the state: N (C (F + V) + 2 F V) multiply-adds, and no memory that
    grows with N but input and output, which is held twice while its parts are joined.
    Raises ValueError for a chunk size below 1, other shapes or dtypes.
    Source: Hua et al. 2022; Yang et al. 2024.

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(3, 1, 2, 100, 8).unbind()
        >>> whole = chunked_linear_attention(q, k, v, chunk_size=100)
        >>> torch.allclose(chunked_linear_attention(q, k, v, 16), whole, atol=1e-5)
        True
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    dtype = v.dtype
    q, k, v = _checked(q, k, v, causal=True)
    memory = feature_map(k[:, :, :0]).mT @ _with_ones(v[:, :, :0])  # (B, H, F, V + 1)
    out = []
    for start in range(0, max(q.shape[2], 1), chunk_size):
        part = slice(start, start + chunk_size)
        q_c, k_c = feature_map(q[:, :, part]), feature_map(k[:, :, part])
        v_c = _with_ones(v[:, :, part])
        sums = (q_c @ k_c.mT).tril() @ v_c + q_c @ memory
        out.append(_normalized(sums, eps).to(dtype))
        memory = memory + k_c.mT @ v_c
    return torch.cat(out, 2)


def efficient_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax twice: over the features of each query, over the positions of the keys.

    softmax_D(q) (softmax_M(k)^T v). The weights of a row sum to 1 without a division.
    q (B, H, N, D), k (B, H, M, D), v (B, H, M, V) of one floating dtype; gives
    (B, H, N, V). Not causal: the softmax of the keys sees all positions.
    Raises ValueError for other shapes or dtypes. Source: Shen et al. 2021.

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(1, 1, 5, 4), torch.randn(1, 1, 7, 4), torch.eye(7)
        >>> weights = efficient_attention(q, k, v[None, None])  # v = I shows them
        >>> torch.allclose(weights.sum(-1), torch.ones(5))
        True
    """
    dtype = v.dtype
    q, k, v = _checked(q, k, v, causal=False)
    return (q.softmax(-1) @ (k.softmax(2).mT @ v)).to(dtype)


def taylor_feature_map(x: Tensor) -> Tensor:
    """(1, x / |x|): gives the weights 1 + cos(q, k), which are never negative.

    x (..., D), gives (..., D + 1). exp(s) is 1 + s to first order; with vectors of
    length 1, s stays in -1 to 1. A vector of zeros stays one, with weight 1 for all.
    Source: as feature map of Katharopoulos et al. 2020, equation 5.

    Example:
        >>> import torch
        >>> a, b = taylor_feature_map(torch.tensor([[5.0, 0.0], [0.0, -2.0]]))
        >>> a @ a, a @ b  # 1 + cos 0 and 1 + cos 90°
        (tensor(2.), tensor(1.))
    """
    eps = max(1e-12, torch.finfo(x.dtype).tiny)  # 1e-12 alone is 0 in float16
    return torch.cat((torch.ones_like(x[..., :1]), F.normalize(x, dim=-1, eps=eps)), -1)


def random_features(dim: int, count: int, generator: torch.Generator) -> Tensor:
    """Random directions for `performer_attention`: (count, dim) float32.

    Each row is distributed as a Gaussian vector; within each block of `dim` rows they
    are orthogonal, which lowers the variance of the estimate. The signs of R's diagonal
    make Q uniform; without them LAPACK's QR prefers some directions, a bias that more
    features do not cure. Raises ValueError for a dim or count below 1.
    Source: Choromanski et al. 2021, section 2; Mezzadri 2007.

    Example:
        >>> import torch
        >>> w = random_features(8, 20, torch.Generator().manual_seed(0))
        >>> w.shape, bool((w[:8] @ w[:8].T).triu(1).abs().max() < 1e-5)
        (torch.Size([20, 8]), True)
    """
    if dim < 1 or count < 1:
        raise ValueError(f"dim and count must be at least 1, got {dim} and {count}")
    device = generator.device
    blocks = -(-count // dim)
    gaussian = torch.randn(blocks, dim, dim, generator=generator, device=device)
    q, r = torch.linalg.qr(gaussian)
    q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None, :]
    directions: Tensor = q.mT.reshape(-1, dim)[:count]
    gaussian = torch.randn(count, dim, generator=generator, device=device)
    return directions * gaussian.square().sum(1, keepdim=True).sqrt()


def _log_features(x: Tensor, projection: Tensor) -> Tensor:
    if projection.ndim != 2 or projection.shape[1] != x.shape[-1]:
        raise ValueError(
            f"expected a projection (count, {x.shape[-1]}), "
            f"got {tuple(projection.shape)}"
        )
    x = x * x.shape[-1] ** -0.25  # so that the products are q . k / sqrt(D)
    half_square = x.square().sum(-1, keepdim=True) / 2
    return x @ projection.to(x).mT - half_square  # (..., count)


def positive_feature_map(x: Tensor, projection: Tensor) -> Tensor:
    """Positive random features: phi(q) . phi(k) estimates exp(q . k / sqrt(D)).

    phi(x) = exp(w . x' - |x'|^2 / 2) / sqrt(count) for each row w of `projection`
    (count, D), x' = x / D^(1/4). x (..., D), gives (..., count). Unbiased over the draw
    of w; the relative variance grows as exp(|q' + k'|^2) / count.
    Raises ValueError for a projection of another width.
    Source: Choromanski et al. 2021, lemmas 1 and 2.

    Example:
        >>> import torch
        >>> q, k = torch.full((4,), 0.5), torch.full((4,), 0.3)
        >>> w = torch.randn(20000, 4, generator=torch.Generator().manual_seed(0))
        >>> estimate = positive_feature_map(q, w) @ positive_feature_map(k, w)
        >>> bool((estimate / torch.exp(q @ k / 2) - 1).abs() < 0.03)
        True
    """
    return _log_features(x, projection).exp() / sqrt(projection.shape[0])


def performer_attention(
    q: Tensor, k: Tensor, v: Tensor, projection: Tensor, causal: bool = False
) -> Tensor:
    """Softmax attention estimated with positive random features (FAVOR+).

    `linear_attention` with `positive_feature_map`, eps = 0 and features that cannot
    overflow: the largest value of each feature over the keys moves to the queries, and
    the largest of each query is divided out. Without `causal`, the normalizer is then
    at least 1; with it, rows whose keys are e^80 times weaker than later ones become
    NaN.
    q (B, H, N, D), k (B, H, M, D), v (B, H, M, V), projection (count, D); gives
    (B, H, N, V). Raises ValueError for other shapes or dtypes, or no key.
    Source: Choromanski et al. 2021, section 2.

    Example:
        >>> import torch
        >>> q, k, v = torch.rand(3, 1, 1, 50, 8).unbind()
        >>> w = torch.randn(4096, 8, generator=torch.Generator().manual_seed(0))
        >>> exact = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        >>> bool((performer_attention(q, k, v, w) - exact).abs().max() < 0.02)
        True
    """
    dtype = v.dtype
    q, k, v = _checked(q, k, v, causal)
    if k.shape[2] == 0:
        raise ValueError(f"expected at least one key, got k {tuple(k.shape)}")
    # Names are used again, so that what is done with, N x count wide, is let go.
    k = _log_features(k, projection)
    highest = k.detach().amax(2, keepdim=True)  # (B, H, 1, count)
    k = (k - highest).exp()
    q = _log_features(q, projection) + highest
    q, v = (q - q.detach().amax(-1, keepdim=True)).exp(), _with_ones(v)
    sums = _causal_sums(q, k, v) if causal else q @ (k.mT @ v)
    return _normalized(sums, eps=0.0).to(dtype)


class LinearAttention(nn.Module):
    """Multi-head self-attention with `linear_attention` in it.

    x (B, N, dim), gives (B, N, dim). `step` takes the next positions of a causal layer
    and the state of the positions before them, and gives (out, state): what `forward`
    gives at these positions. Raises ValueError if heads do not divide dim, for an x of
    another width, and for a step of a layer that is not causal.

    Example:
        >>> import torch
        >>> layer = LinearAttention(dim=16, heads=4, causal=True)
        >>> x = torch.randn(2, 10, 16)
        >>> out, state = layer.step(x[:, :9])
        >>> last, state = layer.step(x[:, 9:], state)
        >>> torch.allclose(torch.cat((out, last), 1), layer(x), atol=1e-5)
        True
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        causal: bool = False,
        feature_map: Callable[[Tensor], Tensor] = elu_feature_map,
    ) -> None:
        super().__init__()
        if dim < 1 or heads < 1 or dim % heads:
            raise ValueError(f"heads must divide dim, got dim {dim} and heads {heads}")
        self.heads, self.causal, self.feature_map = heads, causal, feature_map
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.to_out = nn.Linear(dim, dim)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if x.ndim != 3 or x.shape[2] != self.to_out.in_features:
            width = self.to_out.in_features
            raise ValueError(f"expected x (B, N, {width}), got {tuple(x.shape)}")
        qkv = self.to_qkv(x).unflatten(2, (3, self.heads, -1))  # (B, N, 3, H, D)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, N, D) each
        return q, k, v

    def _merge(self, out: Tensor) -> Tensor:
        merged: Tensor = self.to_out(out.transpose(1, 2).flatten(2))
        return merged

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._heads(x)
        return self._merge(linear_attention(q, k, v, self.feature_map, self.causal))

    def step(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if not self.causal:
            raise ValueError(
                "only a causal layer can go step by step, got causal=False"
            )
        q, k, v = self._heads(x)
        out, state = recurrent_linear_attention(q, k, v, self.feature_map, state)
        return self._merge(out), state


def crossover_length(dim: int, value_dim: int) -> float:
    """The length at which both orders of multiplication cost the same.

    (q k^T) v takes N^2 (D + V) multiply-adds, q (k^T v) takes 2 N D V: equal at the
    harmonic mean of D and V. Beyond it, linear attention does less work.
    Raises ValueError for a dim below 1.

    Example:
        >>> crossover_length(64, 64), crossover_length(64, 32)
        (64.0, 42.666666666666664)
    """
    if dim < 1 or value_dim < 1:
        raise ValueError(f"dims must be at least 1, got {dim} and {value_dim}")
    return 2 * dim * value_dim / (dim + value_dim)


def padded_linear_attention(
    q: Tensor, k: Tensor, v: Tensor, is_token: Tensor, eps: float = 1e-6
) -> Tensor:
    """Linear attention over the keys where `is_token` (B, M) bool holds.

    q (B, H, N, D), k (B, H, M, D), v (B, H, M, V). The mask multiplies the *features*:
    phi(0) is 1, so a key of zeros would still be counted. Values under the mask are
    not looked at. Raises ValueError for other shapes or dtypes.

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(3, 2, 1, 5, 4).unbind()
        >>> is_token = torch.arange(5) < torch.tensor([[5], [3]])
        >>> first = (q[1:], k[1:, :, :3], v[1:, :, :3], is_token[1:, :3])
        >>> short = padded_linear_attention(*first)
        >>> torch.allclose(padded_linear_attention(q, k, v, is_token)[1:], short)
        True
    """
    dtype = v.dtype
    q, k, v = _checked(q, k, v, causal=False)
    if is_token.dtype != torch.bool or is_token.shape != k[:, 0, :, 0].shape:
        raise ValueError(
            f"expected a mask {tuple(k[:, 0, :, 0].shape)} of torch.bool, "
            f"got {tuple(is_token.shape)} of {is_token.dtype}"
        )
    hidden = ~is_token[:, None, :, None]  # (B, 1, M, 1)
    phi_k = elu_feature_map(k).masked_fill(hidden, 0)
    sums = elu_feature_map(q) @ (phi_k.mT @ _with_ones(v.masked_fill(hidden, 0)))
    return _normalized(sums, eps).to(dtype)


def prefill_state(
    k: Tensor,
    v: Tensor,
    feature_map: Callable[[Tensor], Tensor] = elu_feature_map,
) -> tuple[Tensor, Tensor]:
    """The state of `recurrent_linear_attention` after a whole prompt, in one product.

    k (B, H, N, D), v (B, H, N, V); gives S (B, H, F, V), z (B, H, F) in float32 or
    wider. States of two stretches of text add up to the state of both.
    Raises ValueError for other shapes or dtypes.

    Example:
        >>> import torch
        >>> q, k, v = torch.randn(3, 1, 2, 30, 4).unbind()
        >>> s, z = prefill_state(k, v)
        >>> s_1, z_1 = prefill_state(k[:, :, :9], v[:, :, :9])
        >>> s_2, z_2 = prefill_state(k[:, :, 9:], v[:, :, 9:])
        >>> torch.allclose(s, s_1 + s_2, atol=1e-5), torch.allclose(z, z_1 + z_2)
        (True, True)
    """
    _, k, v = _checked(k, k, v, causal=True)
    phi_k = feature_map(k)
    return phi_k.mT @ v, phi_k.sum(2)


def second_order_feature_map(x: Tensor) -> Tensor:
    """Gives the weights 1 + s + s^2 / 2, with s = q . k / sqrt(D): exp(s) to 2nd order.

    x (..., D), gives (..., 1 + D + D (D + 1) / 2): 1, x', the products x'_a x'_b for
    a < b, the squares over sqrt(2), x' = x / D^(1/4). The polynomial is at least one
    half: positive without normalizing q and k, at the price of a far larger state.
    Source: Arora et al. 2024.

    Example:
        >>> import torch
        >>> q = torch.tensor([1.0, 2.0, 0.0, 1.0])
        >>> k = torch.tensor([0.5, 1.0, 3.0, 0.5])
        >>> second_order_feature_map(q) @ second_order_feature_map(k)  # s = 1.5
        tensor(3.6250)
    """
    dim = x.shape[-1]
    x = x * dim**-0.25
    rows, columns = torch.triu_indices(dim, dim, device=x.device)
    pairs = x[..., rows] * x[..., columns]
    pairs = torch.where(rows == columns, pairs * 0.5**0.5, pairs)
    return torch.cat((torch.ones_like(x[..., :1]), x, pairs), -1)


def delta_rule_attention(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """A linear memory that corrects instead of adding: the delta rule.

    S_t = S_{t-1} + beta_t k_t (v_t - S_{t-1}^T k_t)^T, out_t = S_t^T q_t, with q and k
    scaled to length 1. q, k (B, H, N, D), v (B, H, N, V), beta (B, H, N) in 0 to 1;
    gives (B, H, N, V). With beta 1 a key's old value is overwritten. Raises ValueError
    for other shapes or dtypes.
    Source: Schlag et al. 2021, section 4.2; length 1 as in Yang et al. 2024b.

    Example:
        >>> import torch
        >>> k = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])[None, None]
        >>> v = torch.tensor([[5.0], [7.0], [9.0]])[None, None]
        >>> delta_rule_attention(k, k, v, torch.ones(1, 1, 3)).flatten()
        tensor([5., 7., 9.])
    """
    dtype = v.dtype
    q, k, v = _checked(q, k, v, causal=True)
    if beta.shape != k.shape[:3]:
        raise ValueError(
            f"expected beta {tuple(k.shape[:3])}, got {tuple(beta.shape)}"
        )
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    memory = k[:, :, :0].mT @ v[:, :, :0]  # (B, H, D, V) zeros
    out = [v[:, :, :0]]
    steps = zip(*(x.unbind(2) for x in (q, k, v, beta.to(v))), strict=True)
    for q_t, k_t, v_t, beta_t in steps:
        wrong = v_t - (k_t[..., None, :] @ memory).squeeze(-2)  # (B, H, V)
        change = (beta_t[..., None] * k_t)[..., :, None] * wrong[..., None, :]
        memory = memory + change
        out.append(q_t[..., None, :] @ memory)
    return torch.cat(out, 2).to(dtype)
