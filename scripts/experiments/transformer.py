"""Measurements for the Transformer: fading gradients, time and memory, forgetting, reversal, and what is published wrong."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.pipeline.experiment import experiment
from snippets.transformer import (
    EncoderLayer,
    KeyValueCache,
    MultiHeadAttention,
    Transformer,
    attention_weights,
    causal_mask,
    greedy_decode,
    gru_cell,
    label_smoothing_loss,
    lstm_cell,
    noam_rate,
    padding_mask,
    scaled_dot_product_attention,
    shift_matrix,
    sinusoidal_positions,
    transformer_parameters,
)

_RECURRENT: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


# --- gradients over distance -----------------------------------------------------------------------


def _recurrent_jacobian(layer: nn.RNNBase, x: Tensor) -> Tensor:
    """Norm of d h_T / d x_t for each t; x (T, D) -> (T,).

    The batch holds one copy of x for each unit of the state; copy b is differentiated from unit b.
    """
    copies = x.expand(layer.hidden_size, *x.shape).clone().requires_grad_()
    last = layer(copies)[0][:, -1]  # (H, H)
    (gradient,) = torch.autograd.grad(last.diagonal().sum(), copies)
    return gradient.square().sum((0, 2)).sqrt()


def _attention_jacobian(layers: Sequence[nn.Module], norm: nn.Module, x: Tensor) -> Tensor:
    length, dim = x.shape
    copies = x.expand(dim, length, dim).clone().requires_grad_()
    y, mask = copies + sinusoidal_positions(length, dim).double(), causal_mask(length)
    for layer in layers:
        y = layer(y, mask)
    (gradient,) = torch.autograd.grad(norm(y)[:, -1].diagonal().sum(), copies)
    return gradient.square().sum((0, 2)).sqrt()


@experiment
def gradients(dim: int = 64, length: int = 129, seeds: Sequence[int] = (0, 1, 2, 3, 4)) -> dict[str, Any]:
    """Norm of the derivative of the last output by each input, in networks as torch initializes them.

    Nets, all with dim inputs and dim units: rnn, lstm, gru; lstm_open (forget bias + 3), rnn_large
    (recurrent weights times 3), transformer (two layers, pre-norm, causal).
    rows: net, near (norm at distance 1), at_16, at_64, at_128 (relative to distance 1), factor (per
    step, geometric mean over distances 8 to 40), factor_low, factor_high (over the seeds).
    rnn_factor, lstm_at_64, ...: each number as a single value.
    rnn_curve, ... (arrays): geometric mean over the seeds of the norm at distance 0, 1, 2, ...
    rnn_crossing, ...: the first distance at which that net's norm is below the transformer's.
    circle_factor: 1 / sqrt(3), the spectral radius expected of torch's recurrent weights;
    open_factor: sigmoid(3); half_factor: sigmoid(0). dim, length, seeds (their number).
    """
    curves: dict[str, list[Tensor]] = {}
    for seed in seeds:
        torch.manual_seed(seed)
        x = torch.randn(length, dim, dtype=torch.float64)
        nets = {
            name: layer(dim, dim, batch_first=True, dtype=torch.float64) for name, layer in _RECURRENT.items()
        }
        nets["lstm_open"] = nn.LSTM(dim, dim, batch_first=True, dtype=torch.float64)
        nets["rnn_large"] = nn.RNN(dim, dim, batch_first=True, dtype=torch.float64)
        with torch.no_grad():
            nets["lstm_open"].get_parameter("bias_ih_l0")[dim : 2 * dim] += 3
            nets["rnn_large"].get_parameter("weight_hh_l0").mul_(3)
        for name, net in nets.items():
            curves.setdefault(name, []).append(_recurrent_jacobian(net, x).flip(0))
        layers = [EncoderLayer(dim, 4, 2 * dim, norm_first=True).double() for _ in range(2)]
        norm = nn.LayerNorm(dim, dtype=torch.float64)
        curves.setdefault("transformer", []).append(_attention_jacobian(layers, norm, x).flip(0))
    result: dict[str, Any] = {"rows": []}
    for name, runs in curves.items():
        logs = torch.stack(runs).log()  # (seeds, distances)
        mean = logs.mean(0).exp()
        factors = ((logs[:, 40] - logs[:, 8]) / 32).exp()
        row = {
            "net": name,
            "near": float(mean[1]),
            **{f"at_{far}": float(mean[far] / mean[1]) for far in (16, 64, 128)},
            "factor": float(factors.log().mean().exp()),
            "factor_low": float(factors.min()),
            "factor_high": float(factors.max()),
        }
        result["rows"].append(row)
        result[f"{name}_curve"] = mean.numpy()
        result |= {f"{name}_{key}": value for key, value in row.items() if key != "net"}
    for kind in _RECURRENT:
        below = result[f"{kind}_curve"] < result["transformer_curve"]
        result[f"{kind}_crossing"] = int(np.flatnonzero(below[1:])[0]) + 1
    return result | {
        "circle_factor": 1 / math.sqrt(3),
        "open_factor": 1 / (1 + math.exp(-3)),
        "half_factor": 0.5,
        "dim": dim,
        "length": length,
        "seeds": len(seeds),
    }


# --- time, memory and operations -------------------------------------------------------------------


def _saved_bytes(run: Callable[[], Tensor]) -> int:
    """Bytes that a forward pass keeps for the backward pass, each storage once, weights left out."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = run()  # alive until counted, so that no storage is counted under another's address
    assert out.requires_grad
    return sum(kept.values())


def _alternate(contenders: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Processor seconds of each contender; all take turns, so that a slow moment of the machine strikes each."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, run in contenders.items():
            start = time.process_time()
            run()
            if repeat:  # the first round warms up
                seconds[name].append(time.process_time() - start)
    return seconds


def _timing_row(lstm: nn.LSTM, layer: EncoderLayer, x: Tensor, repeats: int) -> dict[str, Any]:
    """One line of `timing`, for the input x (B, L, dim)."""
    length = x.shape[1]
    mask = causal_mask(length)

    def by_lstm() -> Tensor:
        out: Tensor = lstm(x)[0]
        return out

    def by_attention() -> Tensor:
        out: Tensor = layer(x, mask)
        return out

    def at_once() -> Tensor:
        out: Tensor = layer.attention(x, x, x, mask)
        return out

    def one_by_one() -> Tensor:
        cache = KeyValueCache()
        return torch.cat([layer.attention(new, new, new, None, cache) for new in x.split(1, 1)], 1)

    seconds = _alternate(
        {"lstm": lambda: by_lstm().sum().backward(), "attention": lambda: by_attention().sum().backward()},
        repeats,
    )
    ratios = [a / b for a, b in zip(seconds["lstm"], seconds["attention"], strict=True)]
    with torch.inference_mode():
        walks = _alternate({"parallel": at_once, "stepwise": one_by_one}, 3)
        error = float((at_once() - one_by_one()).abs().max())
    parallel, stepwise = median(walks["parallel"]), median(walks["stepwise"])
    return {
        "length": length,
        "lstm_ms": 1e3 * median(seconds["lstm"]),
        "attention_ms": 1e3 * median(seconds["attention"]),
        "speedup": median(ratios),
        "speedup_low": float(np.quantile(ratios, 0.25)),
        "speedup_high": float(np.quantile(ratios, 0.75)),
        "lstm_mib": _saved_bytes(by_lstm) / 2**20,
        "attention_mib": _saved_bytes(by_attention) / 2**20,
        "parallel_ms": 1e3 * parallel,
        "stepwise_ms": 1e3 * stepwise,
        "stepwise_ratio": stepwise / parallel,
        "stepwise_error": error,
    }


@experiment
def timing(
    lengths: Sequence[int] = (16, 32, 64, 128, 256, 512), dim: int = 256, batch: int = 4, repeats: int = 7
) -> dict[str, Any]:
    """One LSTM layer and one causal encoder layer of nearly equal parameters, forward and backward, on one CPU thread.

    Processor time of the one thread, which waiting for other programs does not lengthen.
    rows: length; lstm_ms, attention_ms (median milliseconds of a training step); speedup (lstm over
    attention), speedup_low, speedup_high (quartiles of the ratio of neighbouring measurements);
    lstm_mib, attention_mib (kept for the backward pass, counted);
    parallel_ms, stepwise_ms (the same attention's forward pass at once and position by position
    through a cache), stepwise_ratio; stepwise_error (largest difference of the two results).
    speedup_16, lstm_mib_512, ...: each number of rows as a single value.
    highest, highest_length, lowest, lowest_length: the largest and smallest speedup and where;
    stepwise_highest, stepwise_lowest; largest_error.
    lstm_parameters, attention_parameters, dim, batch, repeats, threads.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lstm = nn.LSTM(dim, dim, batch_first=True)
    layer = EncoderLayer(dim, 4, 2 * dim, norm_first=True)
    counts = {
        "lstm_parameters": sum(weight.numel() for weight in lstm.parameters()),
        "attention_parameters": sum(weight.numel() for weight in layer.parameters()),
    }
    rows = [_timing_row(lstm, layer, torch.randn(batch, length, dim), repeats) for length in lengths]
    singles = {f"{key}_{row['length']}": row[key] for row in rows for key in row if key != "length"}
    best, worst = (pick(rows, key=lambda row: row["speedup"]) for pick in (max, min))
    return singles | {
        "rows": rows,
        "highest": best["speedup"],
        "highest_length": best["length"],
        "lowest": worst["speedup"],
        "lowest_length": worst["length"],
        "stepwise_highest": max(row["stepwise_ratio"] for row in rows),
        "stepwise_lowest": min(row["stepwise_ratio"] for row in rows),
        "largest_error": max(row["stepwise_error"] for row in rows),
        **counts,
        "dim": dim,
        "batch": batch,
        "repeats": repeats,
        "threads": 1,
    }


def _chain(out: Tensor) -> int:
    """Matrix products on the longest way through the graph that autograd recorded for `out`."""
    longest: dict[Any, int] = {None: 0}
    waiting = [out.grad_fn]
    while waiting:
        node = waiting[-1]
        assert node is not None
        before = [other for other, _ in node.next_functions]
        if unseen := [other for other in before if other not in longest]:
            waiting += unseen
        else:
            is_product = "mm" in node.name().lower()  # addmm, mm, bmm
            longest[node] = max((longest[other] for other in before), default=0) + is_product
            waiting.pop()
    return longest[out.grad_fn]


def _chains(length: int, dim: int = 2) -> tuple[int, int]:
    """The longest chain of dependent matrix products in an LSTM layer and in an attention layer."""
    x = torch.randn(1, length, dim)
    cell, attention = nn.LSTMCell(dim, dim), MultiHeadAttention(dim, 1)
    state = (torch.zeros(1, dim), torch.zeros(1, dim))
    for step in x.unbind(1):
        state = lstm_cell(step, state, *cell.parameters())
    return _chain(state[0]), _chain(attention(x, x, x))


@experiment
def operations(dim: int = 512, lengths: Sequence[int] = (64, 512, 1024, 4096)) -> dict[str, Any]:
    """Multiply-adds of one layer, counted: self-attention with and without its projections, and an LSTM.

    rows, in millions: length, scores (2 n^2 d: Q K^T and weights times V), projections (4 n d^2), attention
    (their sum), lstm (8 n d^2); ratio (attention over lstm); chain_lstm, chain_attention (matrix
    products that have to wait for one another, counted in autograd's graph).
    chain_attention: that chain in attention, the same at each length.
    equal_length: where attention and LSTM cost the same (2 d); scores_equal: where scores alone
    reach an LSTM (4 d).
    base_parameters: weights of the base model with a vocabulary of 37 000, embedding once;
    embedding_parameters: its embedding; lstm_parameters, lstm_formula: torch's LSTM(dim, dim) and 4 h (d + h + 2).
    tokens_plain, tokens_cached: decoder positions computed to generate 100 tokens.
    """
    rows = [
        {
            "length": n,
            "scores": 2 * n * n * dim / 1e6,
            "projections": 4 * n * dim * dim / 1e6,
            "attention": (2 * n * n * dim + 4 * n * dim * dim) / 1e6,
            "lstm": 8 * n * dim * dim / 1e6,
            "ratio": (n + 2 * dim) / (4 * dim),
            "chain_lstm": chain_lstm,
            "chain_attention": chain_attention,
        }
        for n, (chain_lstm, chain_attention) in zip(lengths, map(_chains, lengths), strict=True)
    ]
    return {
        "rows": rows,
        "dim": dim,
        "chain_attention": rows[0]["chain_attention"],
        "equal_length": 2 * dim,
        "scores_equal": 4 * dim,
        "base_parameters": transformer_parameters(37000, 512, 6, 2048),
        "embedding_parameters": 37000 * 512,
        "lstm_parameters": sum(weight.numel() for weight in nn.LSTM(dim, dim).parameters()),
        "lstm_formula": 4 * dim * (dim + dim + 2),
        "tokens_plain": sum(range(1, 101)),
        "tokens_cached": 100,
    }


# --- scale and positions ---------------------------------------------------------------------------


@experiment
def scaling(
    sizes: Sequence[int] = (1, 4, 16, 64, 256, 1024), keys: int = 64, draws: int = 512
) -> dict[str, Any]:
    """Scores of standard normal queries and keys, with and without 1 / sqrt(d_k), and what softmax makes of them.

    rows: size (d_k), raw_variance, scaled_variance; raw_largest, scaled_largest (mean largest of
    the weights over the keys); raw_gradient, scaled_gradient (mean norm of the softmax's Jacobian).
    raw_variance_64, scaled_largest_1024, ...: each as a single value. keys, draws.
    """
    generator = torch.Generator().manual_seed(0)
    rows = []
    for size in sizes:
        query = torch.randn(draws, 1, size, generator=generator)
        key = torch.randn(draws, keys, size, generator=generator)
        row: dict[str, Any] = {"size": size}
        for name, factor in (("raw", math.sqrt(size)), ("scaled", 1.0)):
            # attention_weights divides by sqrt(d_k) itself, so the raw variant undoes it first.
            weights = attention_weights(query * factor, key)[:, 0]  # (draws, keys)
            scores = factor / math.sqrt(size) * (key @ query.mT)[..., 0]
            jacobian = torch.diag_embed(weights) - weights[:, :, None] * weights[:, None, :]
            row[f"{name}_variance"] = float(scores.double().var())
            row[f"{name}_largest"] = float(weights.amax(-1).double().mean())
            row[f"{name}_gradient"] = float(jacobian.flatten(1).norm(dim=1).double().mean())
        rows.append(row)
    singles = {f"{key}_{row['size']}": row[key] for row in rows for key in row if key != "size"}
    return singles | {"rows": rows, "keys": keys, "draws": draws}


@experiment
def positions(length: int = 64, dim: int = 64) -> dict[str, Any]:
    """The position code, its inner products and its shift property.

    code (array, length x dim), products (array, length x length), profile (array: inner product by
    offset, for offsets up to length - 1).
    shift_error: largest |R_k PE(p) - PE(p + k)| over all p and k; product_spread: largest
    difference of two inner products of the same offset; squared_length: of each code, dim / 2.
    product_1, product_8, product_32: inner product at that offset over the squared length.
    longest_period: of the slowest pair, in positions; shortest_period. length, dim.
    """
    code = sinusoidal_positions(length, dim).double()
    products = code @ code.T
    errors = [
        float((code[: length - k] @ shift_matrix(k, dim).T - code[k:]).abs().max()) for k in range(length)
    ]
    diagonals = [products.diagonal(k) for k in range(length)]
    profile = torch.stack([d.mean() for d in diagonals])
    return {
        "code": code.numpy(),
        "products": products.numpy(),
        "profile": profile.numpy(),
        "shift_error": max(errors),
        "product_spread": max(float(d.max() - d.min()) for d in diagonals),
        "squared_length": float(products[0, 0]),
        **{f"product_{k}": float(profile[k] / profile[0]) for k in (1, 8, 32)},
        "shortest_period": 2 * math.pi,
        "longest_period": 2 * math.pi * 10000 ** (1 - 2 / dim),
        "length": length,
        "dim": dim,
    }


# --- forgetting ------------------------------------------------------------------------------------

_WIDTH, _SYMBOLS, _KEYS, _ATTENTION_LAYERS = 32, 8, 16, 2
_LAYERS: dict[str, tuple[Callable[..., nn.RNNBase], int]] = {
    "rnn": (nn.RNN, 118),  # units for about as many weights as two attention layers of width 32
    "lstm": (nn.LSTM, 51),
    "gru": (nn.GRU, 61),
    "rnn_narrow": (nn.RNN, 51),  # a control: no more units than the LSTM
}
_NETS = ("rnn", "lstm", "gru", "transformer")


class _Recurrent(nn.Module):
    """Symbols in, symbols out, through one recurrent layer."""

    def __init__(self, name: str) -> None:
        super().__init__()
        layer, units = _LAYERS[name]
        self.core = layer(_WIDTH, units, batch_first=True)
        self.out = nn.Linear(units, _SYMBOLS)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(self.core(x)[0])
        return logits

    def recall(self, pairs: Tensor, queries: Tensor) -> Tensor:
        """Each query (B, N, width) is read from the state after all pairs (B, N, width)."""
        state = self.core(pairs)[1]
        count = queries.shape[1]
        if isinstance(state, tuple):
            state = tuple(s.repeat_interleave(count, 1) for s in state)
        else:
            state = state.repeat_interleave(count, 1)
        out = self.core(queries.reshape(-1, 1, _WIDTH), state)[0]
        logits: Tensor = self.out(out[:, 0])
        answers: Tensor = logits.unflatten(0, (-1, count))
        return answers


class _Attentive(nn.Module):
    """The same through causal encoder layers and the position code."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.ModuleList(
            EncoderLayer(_WIDTH, 2, 2 * _WIDTH, norm_first=True) for _ in range(_ATTENTION_LAYERS)
        )
        self.norm, self.out = nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, _SYMBOLS)

    def forward(self, x: Tensor, places: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        length = x.shape[1]
        code = sinusoidal_positions(length, _WIDTH)
        x = x + (code if places is None else code[places])
        for layer in self.core:
            x = layer(x, causal_mask(length) if mask is None else mask)
        logits: Tensor = self.out(self.norm(x))
        return logits

    def recall(self, pairs: Tensor, queries: Tensor) -> Tensor:
        """The queries all stand in the place after the pairs and do not see one another."""
        count = pairs.shape[1]
        places = torch.cat([torch.arange(count), torch.full((count,), count)])
        mask = causal_mask(2 * count)
        mask[count:, count:] = torch.eye(count, dtype=torch.bool)
        logits: Tensor = self(torch.cat([pairs, queries], 1), places, mask)
        return logits[:, count:]


class _Task(nn.Module):
    """A net with its embeddings."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.net = _Attentive() if name == "transformer" else _Recurrent(name)
        self.symbol = nn.Embedding(_SYMBOLS + 1, _WIDTH)  # the last one stands for "which?"
        self.key = nn.Embedding(_KEYS, _WIDTH)


def _fit(task: _Task, steps: int, loss_of: Callable[[], Tensor]) -> None:
    optimizer = torch.optim.Adam(task.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(steps):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def _delay_logits(task: _Task, x: Tensor, distance: int) -> tuple[Tensor, Tensor]:
    """Predictions of the symbol `distance` steps back, and that symbol."""
    logits = task.net(task.symbol(x))[:, distance:]
    return logits, x[:, : x.shape[1] - distance]


def _accuracy(logits: Tensor, wanted: Tensor) -> float:
    return float((logits.argmax(-1) == wanted).double().mean())


def _summary(rows: list[dict[str, Any]], over: str, seeds: int) -> dict[str, Any]:
    """Means and spreads over the seeds, by net and length, as a table and as single values."""
    result: dict[str, Any] = {"seed_rows": rows, "seeds": seeds}
    table = []
    for value in sorted({row[over] for row in rows}):
        line: dict[str, Any] = {over: value}
        for net in _NETS:
            found = [row["accuracy"] for row in rows if (row["net"], row[over]) == (net, value)]
            line[net], line[f"{net}_low"], line[f"{net}_high"] = fmean(found), min(found), max(found)
        table.append(line)
        result |= {f"{key}_{value}": number for key, number in line.items() if key != over}
    return result | {"rows": table, **_net_parameters()}


def _net_parameters() -> dict[str, int]:
    return {f"{net}_parameters": sum(w.numel() for w in _Task(net).net.core.parameters()) for net in _NETS}


def _delay_accuracy(net: str, distance: int, seed: int, steps: int, batch: int, answers: int) -> float:
    """Train one net on one distance; its accuracy on sequences that it has not seen."""
    length = distance + answers
    torch.manual_seed(seed)
    task, generator = _Task(net), torch.Generator().manual_seed(1000 + seed)

    def loss_of() -> Tensor:
        x = torch.randint(_SYMBOLS, (batch, length), generator=generator)
        logits, wanted = _delay_logits(task, x, distance)
        return F.cross_entropy(logits.flatten(0, 1), wanted.flatten())

    _fit(task, steps, loss_of)
    unseen = torch.randint(_SYMBOLS, (256, length), generator=torch.Generator().manual_seed(10**6))
    with torch.no_grad():
        return _accuracy(*_delay_logits(task, unseen, distance))


@experiment
def delay(
    distances: Sequence[int] = (2, 4, 8, 16, 32),
    seeds: Sequence[int] = (0, 1, 2),
    steps: int = 160,
    batch: int = 16,
    narrow: Sequence[int] = (4, 8),
) -> dict[str, Any]:
    """Say at each step which of eight random symbols came a fixed number of steps before; one training for each distance.

    rows: distance, and for each net (rnn, lstm, gru, transformer) its accuracy on unseen sequences:
    mean over the seeds, *_low and *_high. rnn_8, lstm_low_32, ...: single values.
    rnn_narrow_4, rnn_narrow_low_4, ...: the same for an RNN of as many units as the LSTM.
    rnn_units, lstm_units, gru_units: the sizes of their states.
    seed_rows: net, distance, seed, accuracy.
    *_parameters: weights of each net without embeddings and output layer. chance: 1 / 8.
    steps, batch, seeds (their number), answers (supervised positions of a sequence).
    """
    torch.set_num_threads(1)
    setting = {"steps": steps, "batch": batch, "answers": 16}
    rows = [
        {
            "net": net,
            "distance": distance,
            "seed": seed,
            "accuracy": _delay_accuracy(net, distance, seed, **setting),
        }
        for distance in distances
        for seed in seeds
        for net in _NETS
    ]
    result: dict[str, Any] = {"chance": 1 / _SYMBOLS, **setting}
    for distance in narrow:
        found = [_delay_accuracy("rnn_narrow", distance, seed, **setting) for seed in seeds]
        values = {"rnn_narrow": fmean(found), "rnn_narrow_low": min(found), "rnn_narrow_high": max(found)}
        result |= {f"{key}_{distance}": value for key, value in values.items()}
    units = {f"{net}_units": size for net, (_, size) in _LAYERS.items()}
    return _summary(rows, "distance", len(seeds)) | units | result


def _pairs(batch: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Different keys and random symbols, (B, N) each."""
    keys = torch.rand(batch, _KEYS, generator=generator).argsort(1)[:, :count]
    return keys, torch.randint(_SYMBOLS, (batch, count), generator=generator)


def _recall_logits(task: _Task, keys: Tensor, values: Tensor) -> Tensor:
    asked = task.symbol(torch.full_like(values, _SYMBOLS))
    logits: Tensor = task.net.recall(task.key(keys) + task.symbol(values), task.key(keys) + asked)
    return logits


@experiment
def recall(
    counts: Sequence[int] = (2, 4, 8),
    seeds: Sequence[int] = (0, 1, 2),
    steps: int = 200,
    batch: int = 32,
) -> dict[str, Any]:
    """Associative recall: after a list of key-symbol pairs, name the symbol of each key.

    rows: pairs, and for each net its accuracy on unseen lists: mean over the seeds, *_low, *_high.
    rnn_4, transformer_8, ...: single values; *_by_distance (arrays): accuracy in the longest lists
    by how many pairs back the one asked for lies (1 = the last), mean over the seeds.
    guess_2, guess_4, ...: accuracy of naming the most frequent symbol of the list, the best that can be done without
    the keys. seed_rows: net, pairs, seed, accuracy. chance, steps, batch, seeds (their number).
    """
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {"chance": 1 / _SYMBOLS, "steps": steps, "batch": batch}
    curves: dict[str, list[Tensor]] = {net: [] for net in _NETS}
    for count in counts:
        keys, values = _pairs(1000, count, torch.Generator().manual_seed(10**6))
        result[f"guess_{count}"] = float(F.one_hot(values, _SYMBOLS).sum(1).amax(-1).double().mean() / count)
        for seed in seeds:
            for net in _NETS:
                torch.manual_seed(seed)
                task, generator = _Task(net), torch.Generator().manual_seed(1000 + seed)

                def loss_of(
                    task: _Task = task, generator: torch.Generator = generator, count: int = count
                ) -> Tensor:
                    own_keys, own_values = _pairs(batch, count, generator)
                    logits = _recall_logits(task, own_keys, own_values)
                    return F.cross_entropy(logits.flatten(0, 1), own_values.flatten())

                _fit(task, steps, loss_of)
                with torch.no_grad():
                    right = _recall_logits(task, keys, values).argmax(-1) == values  # (1000, N)
                rows.append(
                    {"net": net, "pairs": count, "seed": seed, "accuracy": float(right.double().mean())}
                )
                if count == counts[-1]:
                    curves[net].append(right.double().mean(0).flip(0))
    for net, runs in curves.items():
        result[f"{net}_by_distance"] = torch.stack(runs).mean(0).numpy()
    return _summary(rows, "pairs", len(seeds)) | result


# --- the whole model at work -----------------------------------------------------------------------

_PAD, _START, _END, _VOCABULARY = 0, 1, 2, 13


def _reversals(
    shortest: int, longest: int, batch: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Sources (B, longest), their mask, and targets (B, longest + 2): start, the source backwards, end."""
    lengths = torch.randint(shortest, longest + 1, (batch,), generator=generator)
    mask = padding_mask(lengths, longest)
    source = torch.randint(_END + 1, _VOCABULARY, (batch, longest), generator=generator) * mask
    backwards = (lengths[:, None] - 1 - torch.arange(longest)).clamp(min=0)
    target = F.pad(source.gather(1, backwards) * mask, (1, 1))
    target[:, 0] = _START
    target[torch.arange(batch), lengths + 1] = _END
    return source, mask, target


def _cross_weights(model: Transformer, source: Tensor, target: Tensor) -> Tensor:
    """Weights of the last decoder layer's attention to the source, (heads, T, S)."""
    layer = model.decoder[-1].get_submodule("cross_attention")
    assert isinstance(layer, MultiHeadAttention)
    seen: list[tuple[Tensor, ...]] = []
    hook = layer.register_forward_hook(lambda _, inputs, out: seen.append(inputs))
    with torch.no_grad():
        model(source, target)
    hook.remove()
    query, key = (
        side.unflatten(-1, layer.split).transpose(-3, -2)
        for side in (layer.query(seen[0][0]), layer.key(seen[0][1]))
    )
    return attention_weights(query, key)[0].detach()


@experiment
def reversal(
    steps: int = 500, seeds: Sequence[int] = (0, 1, 2), longest: int = 8, batch: int = 32
) -> dict[str, Any]:
    """A one-layer Transformer learns to write digits backwards, by Noam's rate and label smoothing.

    rows: length of the source, exact (share of unseen sources written backwards without any error:
    mean over the seeds), exact_low, exact_high, trained (whether such lengths were trained on).
    exact_4, exact_low_8, ...: single values.
    losses (array: seeds x steps); loss_first, loss_last (mean of the last 20): means over the seeds.
    loss_floor: the least loss that label smoothing leaves.
    weights_map (array, heads x T x S): attention to the source in the trained model of the first
    seed, for one source; source, written (arrays): its digits and what the model wrote.
    peak: share of the attention of the best head that lies on the digit to be written next.
    rates (array), peak_rate: the learning rates used, and the largest.
    cache_same: share of 100 sources decoded identically with and without cache.
    parameters, vocabulary, dim, heads, steps, batch, shortest, longest, seeds (their number).
    """
    torch.set_num_threads(1)
    dim, heads, smoothing, warmup = 32, 4, 0.1, 100
    shortest = 3
    lengths = [longest - 4, longest - 2, longest, longest + 2, longest + 6]
    rates = [0.5 * noam_rate(step, dim, warmup) for step in range(1, steps + 1)]
    exact: dict[int, list[float]] = {length: [] for length in lengths}
    losses: list[list[float]] = []
    result: dict[str, Any] = {}
    for seed in seeds:
        torch.manual_seed(seed)
        model = Transformer(_VOCABULARY, dim, heads, 1, 2 * dim)
        generator = torch.Generator().manual_seed(1000 + seed)
        optimizer = torch.optim.Adam(model.parameters(), 1.0, betas=(0.9, 0.98), eps=1e-9)
        losses.append([])
        for rate in rates:
            source, mask, target = _reversals(shortest, longest, batch, generator)
            loss = label_smoothing_loss(model(source, target[:, :-1], mask), target[:, 1:], smoothing, _PAD)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(float(loss.detach()))
        for length in lengths:
            source, mask, target = _reversals(length, length, 100, torch.Generator().manual_seed(10**6))
            written = greedy_decode(model, source, _START, _END, length + 2, mask)
            written = F.pad(written, (0, length + 2 - written.shape[1]), value=_END)
            exact[length].append(float((written == target).all(1).double().mean()))
            if seed == seeds[0] and length == longest:
                plain = greedy_decode(model, source, _START, _END, length + 2, mask, use_cache=False)
                plain = F.pad(plain, (0, length + 2 - plain.shape[1]), value=_END)
                weights = _cross_weights(model, source[:1], target[:1, :-1])
                wanted = weights[:, torch.arange(length), torch.arange(length - 1, -1, -1)]
                result = {
                    "weights_map": weights.numpy(),
                    "source": source[0].numpy(),
                    "written": written[0].numpy(),
                    "peak": float(wanted.mean(1).max()),
                    "cache_same": float((plain == written).all(1).double().mean()),
                    "parameters": sum(weight.numel() for weight in model.parameters()),
                    "weights": model.state_dict(),
                }
    rows = [
        {
            "length": length,
            "exact": fmean(found),
            "exact_low": min(found),
            "exact_high": max(found),
            "trained": length <= longest,
        }
        for length, found in exact.items()
    ]
    result |= {
        f"{key}_{row['length']}": row[key] for row in rows for key in ("exact", "exact_low", "exact_high")
    }
    share = 1 - smoothing + smoothing / _VOCABULARY
    rest = smoothing / _VOCABULARY
    return result | {
        "rows": rows,
        "losses": np.array(losses),
        "loss_first": fmean(run[0] for run in losses),
        "loss_last": fmean(fmean(run[-20:]) for run in losses),
        "loss_floor": -share * math.log(share) - (_VOCABULARY - 1) * rest * math.log(rest),
        "rates": np.array(rates),
        "peak_rate": max(rates),
        "vocabulary": _VOCABULARY,
        "dim": dim,
        "heads": heads,
        "steps": steps,
        "batch": batch,
        "shortest": shortest,
        "longest": longest,
        "warmup": warmup,
        "seeds": len(seeds),
    }


# --- published mistakes ----------------------------------------------------------------------------


def _gru_before(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor) -> Tensor:
    """The reset gate on the state itself, before the product."""
    (w_r, w_z, w_n), (u_r, u_z, u_n) = w_ih.chunk(3), w_hh.chunk(3)
    r, z = (x @ w_r.T + h @ u_r.T).sigmoid(), (x @ w_z.T + h @ u_z.T).sigmoid()
    n = (x @ w_n.T + (r * h) @ u_n.T).tanh()
    return (1 - z) * n + z * h


def _bare_view(attention: MultiHeadAttention, x: Tensor, mask: Tensor) -> Tensor:
    """Heads split by view(B, heads, L, d) without the transpose: positions run into one another."""
    batch, length, dim = x.shape
    heads, size = attention.split
    q, k, v = (
        layer(x).view(batch, heads, length, size)
        for layer in (attention.query, attention.key, attention.value)
    )
    mixed = scaled_dot_product_attention(q, k, v, mask)
    out: Tensor = attention.output(mixed.reshape(batch, length, dim))
    return out


def _reached(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Which outputs i move when input j does, (L, L) booleans, by changing one input after another."""
    before = run(x)
    columns = []
    for place in range(x.shape[1]):
        changed = x.clone()
        changed[:, place] += 1
        columns.append((run(changed) - before).abs().amax((0, 2)) > 1e-6)
    return torch.stack(columns, 1)


def _mixed_columns(length: int, dim: int) -> Tensor:
    """Positions whose rate follows the column, so that sine and cosine of a pair differ in it."""
    column = torch.arange(dim, dtype=torch.float64)
    angle = torch.arange(length, dtype=torch.float64)[:, None] / 10000 ** (2 * column / dim)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos())


@experiment
def published_mistakes(seed: int = 0) -> dict[str, Any]:
    """Each published error beside the right way, on the same numbers.

    rows: mistake, quantity (what is measured), wrong, right. polarity_wrong, polarity_right, ...: single values.
    polarity: share of the attention that falls on padding; broadcast: share of the padded keys that still get
    some; naive_mask: share of NaN among the outputs; late_mask: mean sum of a row of weights; top_left: keys that the
    newest query uses, of 8; bare_view: inputs that reach the last of 8 outputs; wrong_axis: share of
    the pairs (output, later input) that are connected; model_size: mean largest of 64 weights;
    reset_gate: largest distance from torch's GRUCell; mixed_columns: range of the codes' squared lengths.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    batch, heads, length, size = 4, 4, 8, 16
    dim = heads * size
    query, key, value = (draw(batch, heads, length, size) for _ in range(3))
    padding = padding_mask([8, 5, 3, 6], length)
    mask = padding[:, None, None, :]
    found: dict[str, tuple[str, float, float]] = {}

    def on_padding(weights: Tensor) -> float:
        return float((weights * ~mask).sum() / weights[1:].sum())  # the first row has no padding

    # True marks padding in key_padding_mask, tokens in SDPA: one mask given to the other.
    by_identity = torch.eye(length).expand(batch, heads, length, length)
    swapped = F.scaled_dot_product_attention(query, key, by_identity, ~mask)
    found["polarity"] = (
        "on_padding",
        on_padding(swapped.nan_to_num()),
        on_padding(attention_weights(query, key, mask)),
    )

    empty = torch.zeros(length, length, dtype=torch.bool)
    empty[1:] = True
    scores = (query @ key.mT / math.sqrt(size)).masked_fill(~empty, -math.inf)
    naive = scores.softmax(-1) @ value
    ours = scaled_dot_product_attention(query, key, value, empty)
    found["naive_mask"] = (
        "nan_share",
        float(naive.isnan().double().mean()),
        float(ours.isnan().double().mean()),
    )

    late = attention_weights(query, key) * causal_mask(length)
    early = attention_weights(query, key, causal_mask(length))
    found["late_mask"] = ("row_sum", float(late.sum(-1).mean()), float(early.sum(-1).mean()))

    newest = query[..., -1:, :]
    top_left = F.scaled_dot_product_attention(newest, key, by_identity, is_causal=True)
    lower_right = attention_weights(newest, key, causal_mask(1, length - 1))
    used = [float((w > 0).sum(-1).double().mean()) for w in (top_left, lower_right)]
    found["top_left"] = ("keys_used", used[0], used[1])

    torch.manual_seed(seed)
    attention, x = MultiHeadAttention(dim, heads), draw(batch, length, dim)
    triangle = causal_mask(length)

    def over_queries(y: Tensor) -> Tensor:
        scores = (y @ y.mT / math.sqrt(dim)).masked_fill(~triangle, -math.inf)
        return scores.softmax(-2) @ y

    with torch.no_grad():
        viewed = _reached(lambda y: _bare_view(attention, y, triangle), x)
        split = _reached(lambda y: attention(y, y, y, triangle), x)
        columns = _reached(over_queries, x)
    found["bare_view"] = ("reach_of_last", float(viewed[-1].sum()), float(split[-1].sum()))
    future = ~triangle
    found["wrong_axis"] = (
        "future_seen",
        float(columns[future].double().mean()),
        float(split[future].double().mean()),
    )

    many = draw(256, 1, size), draw(256, 64, size)
    too_flat = attention_weights(many[0] * math.sqrt(size / dim), many[1])
    found["model_size"] = (
        "largest",
        float(too_flat.amax(-1).mean()),
        float(attention_weights(*many).amax(-1).mean()),
    )

    cell = nn.GRUCell(size, size, bias=False)
    inputs = draw(32, size), draw(32, size)
    with torch.no_grad():
        truth = cell(*inputs)
        found["reset_gate"] = (
            "distance",
            float((_gru_before(*inputs, cell.weight_ih, cell.weight_hh) - truth).abs().max()),
            float((gru_cell(*inputs, cell.weight_ih, cell.weight_hh) - truth).abs().max()),
        )

    codes = _mixed_columns(64, dim), sinusoidal_positions(64, dim).double()
    spreads = [code.square().sum(1) for code in codes]
    mixed, paired = (float(s.max() - s.min()) for s in spreads)
    found["mixed_columns"] = ("length_spread", mixed, paired)

    # As many sequences as positions, and a (B, L) mask is taken for an (Lq, Lk) one.
    square, short = draw(4, 4, size), padding_mask([4, 1, 2, 3], 4)
    weights = [attention_weights(square, square, m) for m in (short, short[:, None])]
    padded = ~short[:, None].expand(4, 4, 4)
    straight, with_axis = (float((w > 0)[padded].double().mean()) for w in weights)
    found["broadcast"] = ("padding_seen", straight, with_axis)

    result: dict[str, Any] = {
        "rows": [
            {"mistake": mistake, "quantity": quantity, "wrong": wrong, "right": right}
            for mistake, (quantity, wrong, right) in found.items()
        ],
        "mistakes": len(found),
    }
    for mistake, (_, wrong, right) in found.items():
        result |= {f"{mistake}_wrong": wrong, f"{mistake}_right": right}
    return result
