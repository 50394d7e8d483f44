"""Measurements for linear attention: time, memory, rank, random features, precision and what a memory holds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import sqrt
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from performer_pytorch.performer_pytorch import gaussian_orthogonal_random_matrix, softmax_kernel
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from scripts.pipeline.experiment import experiment
from snippets.linear_attention import (
    chunked_linear_attention,
    crossover_length,
    delta_rule_attention,
    efficient_attention,
    elu_feature_map,
    linear_attention,
    performer_attention,
    positive_feature_map,
    random_features,
    recurrent_linear_attention,
    second_order_feature_map,
    softmax_attention,
    taylor_feature_map,
)

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
OfValues = Callable[[Tensor], Tensor]


def _fused_causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _parallel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return linear_attention(q, k, v, causal=True)


def _recurrent(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return recurrent_linear_attention(q, k, v)[0]


_CONTENDERS: dict[str, Attention] = {
    "plain": softmax_attention,
    "fused": F.scaled_dot_product_attention,
    "fused_causal": _fused_causal,
    "linear": linear_attention,
    "parallel": _parallel,
    "chunked": chunked_linear_attention,
    "recurrent": _recurrent,
}


def _heads(length: int, dim: int, heads: int = 1, seed: int = 0, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, batch, heads, length, dim, generator=generator).unbind()
    return q, k, v


def _slope(lengths: Sequence[int], values: Sequence[float]) -> float:
    """Exponent of a power law through the points: slope of a line on log-log paper."""
    return float(np.polyfit(np.log(lengths), np.log(values), 1)[0])


@experiment
def cost(
    lengths: Sequence[int] = (256, 512, 1024, 2048, 4096, 8192),
    heads: int = 2,
    dim: int = 64,
    repeats: int = 7,
    plain_up_to: int = 4096,
    fit_from: int = 1024,
) -> dict[str, Any]:
    """Milliseconds of a forward pass on one core, float32, the contenders taking turns.

    Time is that of the thread on the processor: what other programs do meanwhile does not count.

    Contenders: plain (softmax by its definition), fused (F.scaled_dot_product_attention), fused_causal,
    linear (not causal), parallel, chunked, recurrent (the three causal forms). plain stops at
    `plain_up_to`, where its weights fill hundreds of megabytes.
    rows: length, and for each contender the median in ms (None where it was not run).
    lengths (array), <contender>_ms (arrays over its own lengths), <contender>_low, <contender>_high
    (arrays, quartiles).
    slope_<contender>: fitted exponent over the lengths from `fit_from` on.
    fused_over_linear, fused_causal_over_chunked, recurrent_over_chunked: ratios of the medians at the
    greatest length; fused_over_linear_shortest, fused_causal_over_chunked_shortest,
    recurrent_over_fused_causal_shortest: at the smallest.
    crossover_linear, crossover_chunked, crossover_recurrent: the smallest measured length from which on
    the linear form is the faster one each time, against fused (linear) or fused_causal; None if never.
    longest, shortest, heads, dim, repeats, fit_from.
    """
    torch.set_num_threads(1)
    milliseconds: dict[tuple[str, int], list[float]] = {}
    with torch.no_grad():
        for length in lengths:
            x = _heads(length, dim, heads)
            names = [name for name in _CONTENDERS if name != "plain" or length <= plain_up_to]
            for repeat in range(repeats + 1):  # in turn, so that a slow moment strikes all; the first warms up
                for name in names:
                    start = time.thread_time()
                    _CONTENDERS[name](*x)
                    if repeat:
                        spent = 1000 * (time.thread_time() - start)
                        milliseconds.setdefault((name, length), []).append(spent)
    middle = {key: median(values) for key, values in milliseconds.items()}
    result: dict[str, Any] = {
        "rows": [
            {"length": length} | {name: middle.get((name, length)) for name in _CONTENDERS} for length in lengths
        ],
        "lengths": np.array(lengths),
    }
    for name in _CONTENDERS:
        own = [length for length in lengths if (name, length) in middle]
        result[f"{name}_ms"] = np.array([middle[name, length] for length in own])
        for mark, part in (("low", 0.25), ("high", 0.75)):
            result[f"{name}_{mark}"] = np.array([np.quantile(milliseconds[name, n], part) for n in own])
        late = [length for length in own if length >= fit_from]
        result[f"slope_{name}"] = _slope(late, [middle[name, length] for length in late])

    def ratio(one: str, other: str, length: int) -> float:
        return middle[one, length] / middle[other, length]

    def crossover(ours: str, rival: str) -> int | None:
        wins = [ratio(rival, ours, length) > 1 for length in lengths]
        return next((n for place, n in enumerate(lengths) if all(wins[place:])), None)

    shortest, longest = min(lengths), max(lengths)
    return result | {
        "fused_over_linear": ratio("fused", "linear", longest),
        "fused_causal_over_chunked": ratio("fused_causal", "chunked", longest),
        "recurrent_over_chunked": ratio("recurrent", "chunked", longest),
        "fused_over_linear_shortest": ratio("fused", "linear", shortest),
        "fused_causal_over_chunked_shortest": ratio("fused_causal", "chunked", shortest),
        "recurrent_over_fused_causal_shortest": ratio("recurrent", "fused_causal", shortest),
        "crossover_linear": crossover("linear", "fused"),
        "crossover_chunked": crossover("chunked", "fused_causal"),
        "crossover_recurrent": crossover("recurrent", "fused_causal"),
        "shortest": shortest,
        "longest": longest,
        "heads": heads,
        "dim": dim,
        "repeats": repeats,
        "fit_from": fit_from,
    }


@contextmanager
def _without_notices() -> Iterator[None]:
    """The profiler tells the terminal of each start and stop; nobody reads that here."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _peak_bytes(function: Callable[[], Any]) -> int:
    """The most bytes alive at once that were allocated during the call, by torch's own account."""
    with _without_notices(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        kept = function()
    assert seen.profiler is not None
    assert seen.profiler.kineto_results is not None
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    del kept
    return peak


def _prefix_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The causal form as it is often published: one outer product for every position, then cumsum."""
    phi_q, phi_k = elu_feature_map(q), elu_feature_map(k)
    sums = (phi_k[..., :, None] * v[..., None, :]).cumsum(2)  # (B, H, N, D, V)
    normalizer = (phi_q * phi_k.cumsum(2)).sum(-1, keepdim=True) + 1e-6
    return torch.einsum("bhnf,bhnfv->bhnv", phi_q, sums) / normalizer


@experiment
def memory(
    lengths: Sequence[int] = (256, 512, 1024, 2048, 4096),
    dim: int = 64,
    prefix_up_to: int = 2048,
    fit_from: int = 1024,
) -> dict[str, Any]:
    """Peak memory of a forward pass of one head, float32, counted by torch's profiler: not timed, so exact.

    Bytes alive at once of what the call itself allocates, its output included, input not. Contenders as
    in `cost` (fused_causal needs what fused needs, and is left out), and prefix, the causal form that
    stores D x D for every position.
    rows: length, <contender> in MiB (None where it was not run).
    lengths (array), <contender>_mib (arrays over its own lengths).
    slope_<contender>: fitted exponent over the lengths from `fit_from` on.
    <contender>_inputs: peak at the longest common length over the bytes of q alone.
    prefix_over_chunked, plain_over_chunked: ratios at the longest common length, common (that length).
    state_bytes: of S and z; cache_tokens: positions of keys and values that fill as many bytes.
    dim, fit_from.
    """
    contenders = {name: attend for name, attend in _CONTENDERS.items() if name != "fused_causal"}
    contenders["prefix"] = _prefix_attention
    peak: dict[tuple[str, int], int] = {}
    with torch.no_grad():
        for length in lengths:
            x = _heads(length, dim)
            for name, attend in contenders.items():
                if name != "prefix" or length <= prefix_up_to:
                    peak[name, length] = _peak_bytes(lambda a=attend, y=x: a(*y))  # type: ignore[misc]
    mebibytes = {key: value / 2**20 for key, value in peak.items()}
    common = max(length for length in lengths if length <= prefix_up_to)
    result: dict[str, Any] = {
        "rows": [
            {"length": length} | {name: mebibytes.get((name, length)) for name in contenders} for length in lengths
        ],
        "lengths": np.array(lengths),
        "common": common,
        "prefix_over_chunked": peak["prefix", common] / peak["chunked", common],
        "plain_over_chunked": peak["plain", common] / peak["chunked", common],
        "state_bytes": 4 * dim * (dim + 1),
        "cache_tokens": (dim + 1) / 2,
        "dim": dim,
        "fit_from": fit_from,
    }
    for name in contenders:
        own = [length for length in lengths if (name, length) in peak]
        late = [length for length in own if length >= fit_from]
        result[f"{name}_mib"] = np.array([mebibytes[name, length] for length in own])
        result[f"slope_{name}"] = _slope(late, [peak[name, length] for length in late])
        result[f"{name}_inputs"] = peak[name, common] / (4 * dim * common)
    return result


@experiment
def operations(lengths: Sequence[int] = (16, 32, 64, 128, 256, 1024, 4096), dim: int = 64) -> dict[str, Any]:
    """Multiply-adds in the matrix products of one head, counted while they run.

    rows: length, plain, linear, chunked (millions of multiply-adds), plain_over_linear, plain_over_chunked.
    crossover: crossover_length(dim, dim). plain_over_linear_64 ... : that ratio at each length.
    wide_dim, wide_length, wide_ratio: a wide head on a short sequence, linear over plain multiply-adds.
    dim.
    """

    def multiply_adds(attend: Attention, length: int, width: int) -> float:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            attend(*_heads(length, width))
        return int(counter.get_total_flops()) / 2

    rows: list[dict[str, Any]] = []
    for length in lengths:
        row: dict[str, Any] = {"length": length}
        for name in ("plain", "linear", "chunked"):
            row[name] = multiply_adds(_CONTENDERS[name], length, dim) / 1e6
        row["plain_over_linear"] = row["plain"] / row["linear"]
        row["plain_over_chunked"] = row["plain"] / row["chunked"]
        rows.append(row)
    wide_dim, wide_length = 256, 128
    wide = [multiply_adds(_CONTENDERS[name], wide_length, wide_dim) for name in ("linear", "plain")]
    return {
        "rows": rows,
        "crossover": crossover_length(dim, dim),
        "wide_dim": wide_dim,
        "wide_length": wide_length,
        "wide_ratio": wide[0] / wide[1],
        "dim": dim,
    } | {f"plain_over_linear_{row['length']}": row["plain_over_linear"] for row in rows}


def _weights(attend: Attention, q: Tensor, k: Tensor) -> Tensor:
    """The matrix of weights, read off by the identity for values: (N, M)."""
    identity = torch.eye(k.shape[2], dtype=k.dtype)[None, None]
    return attend(q, k, identity)[0, 0]


def _effective_number(weights: Tensor) -> float:
    """exp of the mean entropy of the rows: over how many positions a query spreads its weight."""
    return float(torch.special.entr(weights.clamp(min=0)).sum(-1).mean().exp())


@experiment
def matrices(length: int = 48, dim: int = 16, few: int = 16, many: int = 1024, rank_length: int = 512) -> dict[str, Any]:
    """The weights of each form for the same queries and keys, and the singular values behind them.

    Keys are a slowly varying random walk, queries noisy copies of them: softmax attention shows a diagonal.
    <form>_weights (arrays, length x length), for softmax, elu, second, taylor, efficient, performer_few and
    performer_many; <form>_spread: exp of the mean entropy of a row; <form>_top: mean largest weight.
    rows: form, spread, top, features, rank (of rank_length x rank_length weights from Gaussian q and k of
    width 2 * dim, counted as singular values above 1e-10 of the largest, float64), energy (how many
    singular values hold 99 % of the squared sum).
    <form>_singular (arrays): singular values over the largest; <form>_rank: the rank.
    length, dim, few, many, rank_length, rank_dim.
    """
    generator = torch.Generator().manual_seed(2)
    steps = torch.randn(1, 1, length, dim, generator=generator, dtype=torch.float64)
    walk = [steps[:, :, 0]]
    for place in range(1, length):
        walk.append(0.75 * walk[-1] + 0.66 * steps[:, :, place])
    k = F.normalize(torch.stack(walk, 2), dim=-1) * 1.4 * dim**0.5
    q = k + 0.3 * torch.randn(k.shape, generator=generator, dtype=torch.float64)

    def forms(width: int) -> dict[str, tuple[int | None, Attention]]:
        draws = torch.Generator().manual_seed(3)
        narrow, wide = (random_features(width, count, draws) for count in (few, many))
        return {
            "softmax": (None, softmax_attention),
            "elu": (width, lambda q, k, v: linear_attention(q, k, v, eps=0.0)),
            "taylor": (width + 1, lambda q, k, v: linear_attention(q, k, v, taylor_feature_map, eps=0.0)),
            "second": (
                1 + width + width * (width + 1) // 2,
                lambda q, k, v: linear_attention(q, k, v, second_order_feature_map, eps=0.0),
            ),
            "efficient": (width, efficient_attention),
            "performer_few": (few, lambda q, k, v: performer_attention(q, k, v, narrow)),
            "performer_many": (many, lambda q, k, v: performer_attention(q, k, v, wide)),
        }

    rank_dim = 2 * dim
    gaussian = torch.randn(2, 1, 1, rank_length, rank_dim, generator=generator, dtype=torch.float64)
    result: dict[str, Any] = {"rows": [], "length": length, "dim": dim, "few": few, "many": many}
    wide_forms = forms(rank_dim)
    for name, (_, attend) in forms(dim).items():
        weights = _weights(attend, q, k)
        singular = torch.linalg.svdvals(_weights(wide_forms[name][1], gaussian[0], gaussian[1]))
        energy = singular.square().cumsum(0) / singular.square().sum()
        row = {
            "form": name,
            "spread": _effective_number(weights),
            "top": float(weights.amax(-1).mean()),
            "features": wide_forms[name][0],
            "rank": int((singular > 1e-10 * singular[0]).sum()),
            "energy": int((energy < 0.99).sum()) + 1,
        }
        result["rows"].append(row)
        result |= {f"{name}_{key}": row[key] for key in ("spread", "top", "rank")}
        result[f"{name}_weights"] = weights.numpy()
        result[f"{name}_singular"] = (singular / singular[0]).numpy()
    return result | {"rank_length": rank_length, "rank_dim": rank_dim}


def _trigonometric(q: Tensor, k: Tensor, projection: Tensor) -> Tensor:
    """The older estimate of exp(q . k / sqrt(D)), by cosines, which may turn negative: (N, M)."""
    q, k = q * q.shape[-1] ** -0.25, k * k.shape[-1] ** -0.25
    angles_q, angles_k = q @ projection.mT, k @ projection.mT
    cosines = angles_q.cos() @ angles_k.cos().mT + angles_q.sin() @ angles_k.sin().mT
    scale = (q.square().sum(-1)[:, None] + k.square().sum(-1)[None, :]) / 2
    return scale.exp() * cosines / projection.shape[0]


@experiment
def random_feature_error(
    counts: Sequence[int] = (16, 32, 64, 128, 256, 512, 1024, 2048),
    dim: int = 16,
    length: int = 64,
    draws: int = 40,
    scales: Sequence[float] = (0.5, 1.0, 1.5),
) -> dict[str, Any]:
    """How far random features are from softmax, against their number.

    q, k Gaussian with standard deviation `scale`. Kernel error: root mean square, over pairs and draws, of
    estimate / exact - 1 at the smallest scale; kinds orthogonal (positive features, orthogonal blocks),
    independent (positive, not orthogonal), trigonometric. Output error: |out - softmax| / |softmax|
    (Frobenius norms) of performer_attention, mean over the draws, at each scale.
    rows: features, orthogonal, independent, trigonometric, output_0, output_1, output_2 (one per scale).
    counts, orthogonal, independent, trigonometric, output_0 ... , spread_0 ... (arrays; spread: standard
    deviation over draws); slope_orthogonal, slope_independent (fitted exponents).
    mean_0 ... : error of the mean of the values, no attention at all; elu_0 ... : of linear_attention.
    output_0_most ... , output_0_least ...: the output error with the most and the fewest features.
    negative_0 ...: share of negative estimates by cosines with 64 features. scale_0 ...;
    dim, length, draws, most, least.
    """
    result: dict[str, Any] = {"counts": np.array(counts), "dim": dim, "length": length, "draws": draws}
    table: dict[str, list[float]] = {}
    for number, scale in enumerate(scales):
        q, k, v = (x.double() for x in _heads(length, dim, seed=5))
        q, k = q * scale, k * scale
        exact_kernel = (q[0, 0] @ k[0, 0].mT * dim**-0.5).exp()
        exact = softmax_attention(q, k, v)

        def off(out: Tensor, exact: Tensor = exact) -> float:
            return float((out - exact).norm() / exact.norm())

        result[f"scale_{number}"] = scale
        result[f"mean_{number}"] = off(v.mean(2, keepdim=True).expand_as(v))
        result[f"elu_{number}"] = off(linear_attention(q, k, v))
        generator = torch.Generator().manual_seed(6)
        for count in counts:
            squares: dict[str, list[float]] = {}
            outputs, negative = [], []
            for _ in range(draws):
                orthogonal = random_features(dim, count, generator).double()
                independent = torch.randn(count, dim, generator=generator, dtype=torch.float64)
                estimates = {
                    "orthogonal": positive_feature_map(q[0, 0], orthogonal)
                    @ positive_feature_map(k[0, 0], orthogonal).mT,
                    "independent": positive_feature_map(q[0, 0], independent)
                    @ positive_feature_map(k[0, 0], independent).mT,
                    "trigonometric": _trigonometric(q[0, 0], k[0, 0], independent),
                }
                for name, estimate in estimates.items():
                    squares.setdefault(name, []).append(float((estimate / exact_kernel - 1).square().mean()))
                outputs.append(off(performer_attention(q, k, v, orthogonal)))
                negative.append(float((estimates["trigonometric"] < 0).double().mean()))
            if count == 64:
                result[f"negative_{number}"] = fmean(negative)
            if number == 0:
                for name, values in squares.items():
                    table.setdefault(name, []).append(fmean(values) ** 0.5)
            table.setdefault(f"output_{number}", []).append(fmean(outputs))
            table.setdefault(f"spread_{number}", []).append(stdev(outputs))
        result[f"output_{number}_least"] = table[f"output_{number}"][0]
        result[f"output_{number}_most"] = table[f"output_{number}"][-1]
    result["rows"] = [
        {"features": count} | {name: values[place] for name, values in table.items()}
        for place, count in enumerate(counts)
    ]
    for name in ("orthogonal", "independent"):
        result[f"slope_{name}"] = _slope(counts, table[name])
    return result | {name: np.array(values) for name, values in table.items()} | {
        "least": min(counts),
        "most": max(counts),
    }


@experiment
def orthogonal_signs(dims: Sequence[int] = (8, 16, 64), draws: int = 3000) -> dict[str, Any]:
    """Are the features unbiased? Estimates of 1 = E exp(w . x - |x|^2 / 2), |x| = 1, with and without signs.

    x = (1, ..., 1) / sqrt(D). published: the features of performer-pytorch, whose QR keeps LAPACK's signs;
    signed: random_features. One estimate is the mean over a block of D features; the table has the mean
    over `draws` blocks and its standard error.
    rows: dim, published, published_error, signed, signed_error, opposite (published, for -x), diagonal
    (mean of the diagonal of the published Q; 0 if uniform).
    published_8, signed_8, opposite_8, ...: single values; draws.
    """
    rows: list[dict[str, Any]] = []
    for dim in dims:
        x = torch.full((dim,), dim**-0.5)
        generator = torch.Generator().manual_seed(7)
        torch.manual_seed(7)  # the published function draws from the global generator
        blocks = {
            "published": torch.stack([gaussian_orthogonal_random_matrix(dim, dim) for _ in range(draws)]),
            "signed": torch.stack([random_features(dim, dim, generator) for _ in range(draws)]),
        }
        row: dict[str, Any] = {"dim": dim}
        for name, w in blocks.items():
            estimates = (w @ x - 0.5).exp().mean(1)  # (draws,)
            row[name] = float(estimates.mean())
            row[f"{name}_error"] = float(estimates.std() / draws**0.5)
        row["opposite"] = float((blocks["published"] @ -x - 0.5).exp().mean())
        row["diagonal"] = float(F.normalize(blocks["published"], dim=-1).diagonal(dim1=1, dim2=2).mean())
        rows.append(row)
    return {"rows": rows, "draws": draws} | {
        f"{name}_{row['dim']}": row[name] for row in rows for name in ("published", "signed", "opposite")
    }


@experiment
def half_sums(
    lengths: Sequence[int] = (64, 256, 1024, 4096, 16384), dim: int = 32
) -> dict[str, Any]:
    """A running state kept in low precision: how wrong normalizer and output are after N positions.

    The terms are exact; only S and z are rounded to the dtype after each addition. Errors: relative, in
    the norm, of z, and of the output of one query against float64.
    rows: length, and for bfloat16, float16, float32: <dtype>_normalizer, <dtype>_output.
    lengths (array), <dtype>_normalizer, <dtype>_output (arrays).
    bfloat16_normalizer_1024 ...: single values for each length; dim.
    """
    generator = torch.Generator().manual_seed(8)
    longest = max(lengths)
    k, v = torch.randn(2, longest, dim, generator=generator, dtype=torch.float64).unbind()
    terms = elu_feature_map(k)
    v = v + 1
    query = elu_feature_map(torch.randn(dim, generator=generator, dtype=torch.float64))
    rows: dict[int, dict[str, Any]] = {length: {"length": length} for length in lengths}
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        state, normalizer = torch.zeros(dim, dim, dtype=dtype), torch.zeros(dim, dtype=dtype)
        for place in range(longest):
            state = state + torch.outer(terms[place], v[place]).to(dtype)
            normalizer = normalizer + terms[place].to(dtype)
            if place + 1 in rows:
                exact_z = terms[: place + 1].sum(0)
                exact = query @ (terms[: place + 1].mT @ v[: place + 1]) / (query @ exact_z)
                out = query @ state.double() / (query @ normalizer.double())
                row = rows[place + 1]
                row[f"{name}_normalizer"] = float((normalizer.double() - exact_z).norm() / exact_z.norm())
                row[f"{name}_output"] = float((out - exact).norm() / exact.norm())
    result: dict[str, Any] = {"rows": list(rows.values()), "lengths": np.array(lengths), "dim": dim}
    for key in next(iter(rows.values())):
        if key != "length":
            result[key] = np.array([row[key] for row in rows.values()])
            result |= {f"{key}_{length}": row[key] for length, row in rows.items()}
    return result


def _second_order(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention with weights 1 + s + s^2 / 2, made one by one: cheaper while N is below the state's width."""
    s = q @ k.mT / sqrt(q.shape[-1])
    weights = (1 + s + s.square() / 2).tril()
    return weights @ v / (weights.sum(-1, keepdim=True) + 1e-6)


def _causal_forms(dim: int, features: int) -> dict[str, Attention]:
    projection = random_features(dim, features, torch.Generator().manual_seed(9))
    return {
        "softmax": _fused_causal,
        "elu": _parallel,
        "taylor": lambda q, k, v: linear_attention(q, k, v, taylor_feature_map, causal=True),
        "performer": lambda q, k, v: performer_attention(q, k, v, projection, causal=True),
        "second": _second_order,
    }


@experiment
def storage(
    pairs: Sequence[int] = (2, 4, 8, 16, 32, 64, 128, 256),
    dim: int = 24,
    values: int = 16,
    trials: int = 100,
    features: int = 64,
) -> dict[str, Any]:
    """What a memory holds before any training: P random keys, each with one of 16 values, asked for again.

    Keys are Gaussian (D,), values one-hot; each stored key is asked for once, and the answer is the largest
    component of the output. Forms as in `training`, the sum of outer products of keys without feature map
    or normalizer (outer), and the delta rule with beta 1 (delta).
    rows: pairs, and the accuracy of each form. <form> (arrays over pairs). pairs (array).
    half_<form>: the largest number of pairs with at least half of the answers right (0 if none).
    <form>_most: accuracy with the most pairs.
    dim, values, trials, features, chance.
    """
    forms: dict[str, Attention] = _causal_forms(dim, features) | {
        "outer": lambda q, k, v: (q @ k.mT).tril() @ v,
        "delta": lambda q, k, v: delta_rule_attention(q, k, v, torch.ones(k.shape[:3])),
    }
    rows: list[dict[str, Any]] = []
    for count in pairs:
        generator = torch.Generator().manual_seed(10)
        keys = torch.randn(trials, 1, count, dim, generator=generator)
        labels = torch.randint(values, (trials, 1, count), generator=generator)
        stored = F.one_hot(labels, values).float()
        row: dict[str, Any] = {"pairs": count}
        for name, attend in forms.items():
            # The questions follow the pairs, with keys and values of zeros: they change no largest component.
            nothing = torch.zeros_like(keys), torch.zeros_like(stored)
            found = attend(
                torch.cat((keys, keys), 2), torch.cat((keys, nothing[0]), 2), torch.cat((stored, nothing[1]), 2)
            )[:, :, count:]
            row[name] = float((found.argmax(-1) == labels).float().mean())
        rows.append(row)
    result: dict[str, Any] = {"rows": rows, "pairs": np.array(pairs)}
    for name in forms:
        result[name] = np.array([row[name] for row in rows])
        result[f"half_{name}"] = max((row["pairs"] for row in rows if row[name] >= 0.5), default=0)
        result[f"{name}_most"] = rows[-1][name]
    setting = {"dim": dim, "values": values, "trials": trials, "features": features, "chance": 1 / values}
    return result | setting


_KEYS, _VALUES = 128, 16


class _Recall(nn.Module):
    """Embeddings, one attention head, a classifier: no part but the attention moves anything between positions."""

    def __init__(self, attend: Attention, dim: int) -> None:
        super().__init__()
        self.key, self.value = nn.Embedding(_KEYS, dim), nn.Embedding(_VALUES + 1, dim)
        self.to_qkv, self.to_out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, _VALUES)
        self.attend = attend

    def forward(self, keys: Tensor, values: Tensor) -> Tensor:
        x = self.key(keys) + self.value(values)  # (B, N, dim)
        q, k, v = self.to_qkv(x)[:, None].chunk(3, -1)
        logits: Tensor = self.head(self.norm(self.to_out(self.attend(q, k, v)[:, 0])))
        return logits


def _questions(
    batch: int, pairs: int, questions: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of a key and a value, then keys without one: keys, values (B, P + Q), answers (B, Q)."""
    keys = torch.rand(batch, _KEYS, generator=generator).argsort(1)[:, :pairs]
    values = torch.randint(_VALUES, (batch, pairs), generator=generator)
    asked = torch.randint(pairs, (batch, questions), generator=generator)
    unknown = torch.full((batch, questions), _VALUES)
    return torch.cat((keys, keys.gather(1, asked)), 1), torch.cat((values, unknown), 1), values.gather(1, asked)


@experiment
def training(
    steps: int = 400,
    seeds: Sequence[int] = (0, 1, 2),
    dim: int = 24,
    features: int = 64,
    train_pairs: Sequence[int] = (4, 8, 16, 32, 64),
    test_pairs: Sequence[int] = (2, 4, 8, 16, 32, 64, 96),
    questions: int = 16,
) -> dict[str, Any]:
    """Causal associative recall: P pairs of a key and a value, then questions; trained on all P together.

    One head of width `dim`; the nets differ in nothing but the attention, which has no parameters.
    Forms: softmax, elu, taylor (1 + cos), performer (`features` random features, drawn once), second
    (1 + s + s^2 / 2).
    rows: pairs, and for each form its accuracy (mean over seeds) and <form>_spread (standard deviation).
    seed_rows: form, seed, and accuracy_<pairs> for each number of pairs.
    pairs (array), <form>, <form>_spread (arrays over pairs); <form>_2 ...: single values.
    <form>_wins: seeds in which softmax is better at the most trained pairs.
    state_<form>: numbers in the state of one head (None for softmax: its cache grows).
    parameters (equal for all), steps, seeds (their number), dim, features, keys, values, chance, trained
    (the most pairs seen in training), most (the most asked).
    """
    torch.set_num_threads(1)
    forms = _causal_forms(dim, features)
    accuracy: dict[tuple[str, int], dict[int, float]] = {}
    parameters = set()
    for name, attend in forms.items():
        for seed in seeds:
            torch.manual_seed(seed)
            net = _Recall(attend, dim)
            parameters.add(sum(p.numel() for p in net.parameters()))
            generator = torch.Generator().manual_seed(100 + seed)
            optimizer = torch.optim.Adam(net.parameters())
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
            for step in range(steps):
                pairs = train_pairs[step % len(train_pairs)]
                keys, values, answers = _questions(32, pairs, questions, generator)
                loss = F.cross_entropy(net(keys, values)[:, pairs:].flatten(0, 1), answers.flatten())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            accuracy[name, seed] = {}
            with torch.no_grad():
                for pairs in test_pairs:
                    unseen = torch.Generator().manual_seed(11)
                    keys, values, answers = _questions(64, pairs, questions, unseen)
                    right = net(keys, values)[:, pairs:].argmax(-1) == answers
                    accuracy[name, seed][pairs] = float(right.float().mean())
    (count,) = parameters
    rows: list[dict[str, Any]] = []
    for pairs in test_pairs:
        row: dict[str, Any] = {"pairs": pairs}
        for name in forms:
            found = [accuracy[name, seed][pairs] for seed in seeds]
            row |= {name: fmean(found), f"{name}_spread": stdev(found)}
        rows.append(row)
    trained = max(train_pairs)
    result: dict[str, Any] = {
        "rows": rows,
        "seed_rows": [
            {"form": name, "seed": seed} | {f"accuracy_{pairs}": value for pairs, value in found.items()}
            for (name, seed), found in accuracy.items()
        ],
        "pairs": np.array(test_pairs),
    }
    for name in forms:
        for key in (name, f"{name}_spread"):
            result[key] = np.array([row[key] for row in rows])
            result |= {f"{key}_{row['pairs']}": row[key] for row in rows}
        result[f"{name}_wins"] = sum(
            accuracy["softmax", seed][trained] > accuracy[name, seed][trained] for seed in seeds
        )
    widths = {"elu": dim, "taylor": dim + 1, "performer": features, "second": 1 + dim + dim * (dim + 1) // 2}
    result |= {f"state_{name}": width * (dim + 1) for name, width in widths.items()}
    return result | {
        "parameters": count,
        "steps": steps,
        "seeds": len(seeds),
        "dim": dim,
        "features": features,
        "keys": _KEYS,
        "values": _VALUES,
        "chance": 1 / _VALUES,
        "trained": trained,
        "most": max(test_pairs),
    }


@experiment
def published_mistakes(length: int = 64, dim: int = 16) -> dict[str, Any]:
    """What goes wrong, each against the right form on the same queries, keys and values.

    error: |wrong - right| / |right|, Frobenius norms of the outputs; row_sum: mean sum of a row of the
    wrong form's weights, 1 for a weighted mean. Mistakes:
    noncausal_normalizer (causal sums over the sum of all keys), two_softmaxes (efficient_attention under
    Katharopoulos's name), eps_in_numerator (eps added above and below the line, weak queries), zero_keys
    (padding by keys of zeros), width_scale (linear-attention-transformer divides by sqrt(D) besides),
    blind_spot (its buckets of 16 see only the buckets before), inner_eps (performer-pytorch adds 1e-4
    within the features), elu_rounding (elu(x) + 1 in bfloat16, weak queries).
    rows: mistake, error, row_sum. <mistake>_error, <mistake>_row_sum: single values.
    first_row_sum: of the first row under noncausal_normalizer. future_leak: largest change of the outputs
    before the middle when the last key is changed, performer-pytorch's causal features; ours_leak: the same
    for performer_attention, in float64. elu_zero: largest x of the grid -20, -19.9, ... with elu(x) + 1 = 0
    in float32; elu_zero_half: in bfloat16. length, dim.
    """
    q, k, v = (x.double() for x in _heads(length, dim, seed=12))
    identity = torch.eye(length, dtype=torch.float64)[None, None]

    def causal(x: Tensor, eps: float = 0.0) -> Tensor:
        return linear_attention(q, k, x, causal=True, eps=eps)

    def plain(x: Tensor) -> Tensor:
        return linear_attention(q, k, x, eps=0.0)

    phi_q, phi_k = elu_feature_map(q), elu_feature_map(k)
    weights = phi_q @ phi_k.mT

    def noncausal_normalizer(x: Tensor) -> Tensor:
        return weights.tril() @ x / weights.sum(-1, keepdim=True)

    def two_softmaxes(x: Tensor) -> Tensor:
        return efficient_attention(q, k, x)

    weak = q - 12

    def weak_right(x: Tensor) -> Tensor:
        return linear_attention(weak, k, x, eps=0.0)

    def eps_in_numerator(x: Tensor, eps: float = 1e-3) -> Tensor:
        w = elu_feature_map(weak) @ phi_k.mT
        return (w @ x + eps) / (w.sum(-1, keepdim=True) + eps)

    kept = length // 2

    def padded_right(x: Tensor) -> Tensor:
        return linear_attention(q, k[:, :, :kept], x[:, :, :kept], eps=0.0)

    def zero_keys(x: Tensor) -> Tensor:
        short = torch.arange(length)[:, None] < kept
        return linear_attention(q, k * short, x * short, eps=0.0)

    def width_scale(x: Tensor) -> Tensor:
        return efficient_attention(q, k, x) / sqrt(dim)

    def blind_spot(x: Tensor, bucket: int = 16) -> Tensor:
        place = torch.arange(length) // bucket
        seen = weights * (place[None, :] < place[:, None])
        return seen @ x / (seen.sum(-1, keepdim=True) + 1e-3)

    projection = random_features(dim, 4 * dim, torch.Generator().manual_seed(13)).double()

    def performer(x: Tensor) -> Tensor:
        return performer_attention(q, k, x, projection)

    def published_features(keys: Tensor, eps: float) -> list[Tensor]:
        return [
            softmax_kernel(x, projection_matrix=projection, is_query=is_query, eps=eps)
            for x, is_query in ((q, True), (keys, False))
        ]

    def inner_eps(x: Tensor) -> Tensor:
        mine = published_features(k, 1e-4)
        w = mine[0] @ mine[1].mT
        return w @ x / w.sum(-1, keepdim=True)

    def elu_rounding(x: Tensor) -> Tensor:
        w = (F.elu(weak.bfloat16()) + 1).double() @ phi_k.mT
        return w @ x / (w.sum(-1, keepdim=True) + 1e-6)

    cases: dict[str, tuple[OfValues, OfValues]] = {
        "noncausal_normalizer": (noncausal_normalizer, causal),
        "two_softmaxes": (two_softmaxes, plain),
        "eps_in_numerator": (eps_in_numerator, weak_right),
        "zero_keys": (zero_keys, padded_right),
        "width_scale": (width_scale, two_softmaxes),
        "blind_spot": (blind_spot, causal),
        "inner_eps": (inner_eps, performer),
        "elu_rounding": (elu_rounding, weak_right),
    }
    rows = []
    for name, (wrong, right) in cases.items():
        error = float((wrong(v) - right(v)).norm() / right(v).norm())
        rows.append({"mistake": name, "error": error, "row_sum": float(wrong(identity).sum(-1).mean())})

    def leak(attend: Callable[[Tensor], Tensor]) -> float:
        changed = k.clone()
        changed[:, :, -1] = 6 * k[:, :, -1]
        return float((attend(changed) - attend(k))[:, :, : length // 2].abs().max())

    def published_causal(keys: Tensor) -> Tensor:
        mine = published_features(keys, 1e-4)
        w = (mine[0] @ mine[1].mT).tril()
        return w @ v / w.sum(-1, keepdim=True)

    grid = torch.arange(-200, 1) / 10
    zero = {dtype: float(grid[F.elu(grid.to(dtype)) + 1 == 0].max()) for dtype in (torch.float32, torch.bfloat16)}
    return {
        "rows": rows,
        "first_row_sum": float(noncausal_normalizer(identity)[0, 0, 0].sum()),
        "future_leak": leak(published_causal),
        "ours_leak": leak(lambda keys: performer_attention(q, keys, v, projection, causal=True)),
        "elu_zero": zero[torch.float32],
        "elu_zero_half": zero[torch.bfloat16],
        "length": length,
        "dim": dim,
    } | {f"{row['mistake']}_{key}": row[key] for row in rows for key in ("error", "row_sum")}
