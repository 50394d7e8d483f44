"""Measurements for OadTR: what its parts bring, when a GRU wins, what a stream costs, and what mistakes do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean, median, stdev
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.pipeline.experiment import experiment
from snippets.oadtr import (
    GruDetector,
    OadTR,
    StreamingDetector,
    average_precision,
    frame_cost,
    future_targets,
    interpolated_average_precision,
    mean_average_precision,
    mean_per_video_ap,
    oadtr_loss,
    sliding_windows,
    token_similarity,
)

_CLASSES, _FEATURES = 8, 16
_LENGTH, _FUTURE, _WIDTH = 16, 4, 32
_TRAIN, _TRAIN_FRAMES = 64, 120
_TEST, _TEST_FRAMES = 24, 200
_NOISE, _OWN = 0.8, 0.7
_STEPS, _BATCH = 400, 32
_BACKGROUND, _CUE, _FALSE_START = 0, 1, 2


def _dictionary() -> Tensor:
    """Orthogonal directions (16, 16): rows 0-3 looks of the pairs, 4-5 cues, 8-15 one for each class."""
    start = torch.randn(_FEATURES, _FEATURES, generator=torch.Generator().manual_seed(1234))
    directions: Tensor = torch.linalg.qr(start)[0]
    return directions


def _streams(
    count: int, frames: int, generator: torch.Generator, own: float = _OWN, noise: float = _NOISE
) -> tuple[Tensor, Tensor, Tensor]:
    """Features (N, L, 16), labels (N, L) and what happens besides (N, L): 1 a cue, 2 a false start.

    An action: two frames of a cue that says "first or second of its pair", a wait of 2 to 6 frames, in
    half the cases with one frame that looks like an action of any pair, then 6 to 12 frames that show the
    pair's look and, with strength `own`, the class itself.
    """
    directions = _dictionary()
    look, cue, mark = 2 * directions[:4], 2 * directions[4:6], own * directions[8:16]
    features = noise * torch.randn(count, frames, _FEATURES, generator=generator)
    labels = torch.full((count, frames), _BACKGROUND)
    events = torch.zeros_like(labels)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    for n in range(count):
        t = draw(0, 6)
        while t < frames:
            label, wait, false_start = draw(0, _CLASSES - 1), draw(2, 6), draw(0, 1)
            features[n, t : t + 2] += cue[label % 2]
            events[n, t : t + 2] = _CUE
            start = t + 2 + wait
            if false_start and (at := t + 2 + draw(0, wait - 1)) < frames:
                features[n, at] += look[draw(0, 3)]
                events[n, at] = _FALSE_START
            end = start + draw(6, 12)
            features[n, start:end] += look[label // 2] + mark[label]
            labels[n, start:end] = label + 1
            t = end + draw(3, 8)
    return features, labels, events


def _oadtr(length: int = _LENGTH, future: int = _FUTURE, task_token: bool = True) -> OadTR:
    return OadTR(_FEATURES, _CLASSES, _WIDTH, 4, 2, 1, length, future, task_token)


def _parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _fit(
    model: torch.nn.Module, loss_of_batch: Callable[[], Tensor], steps: int, rate: float
) -> torch.nn.Module:
    if not steps:
        return model.eval()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(steps):
        loss = loss_of_batch()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def _train_oadtr(
    seed: int,
    steps: int,
    length: int = _LENGTH,
    future: int = _FUTURE,
    task_token: bool = True,
    weight: float = 0.5,
    own: float = _OWN,
) -> OadTR:
    generator = torch.Generator().manual_seed(seed)
    features, labels, _ = _streams(_TRAIN, _TRAIN_FRAMES, generator, own)
    windows = sliding_windows(features, length).flatten(0, 1)
    ahead, now = future_targets(labels, future).flatten(0, 1), labels.flatten()
    torch.manual_seed(seed)
    model = _oadtr(length, future, task_token)

    def loss() -> Tensor:
        batch = torch.randint(len(now), (_BATCH,), generator=generator)
        now_logits, ahead_logits = model(windows[batch])
        return oadtr_loss(now_logits, ahead_logits, now[batch], ahead[batch], weight)

    _fit(model, loss, steps, 5e-3)
    return model


_CROP, _CROPS = 40, 8


def _gru() -> GruDetector:
    return GruDetector(_FEATURES, _CLASSES, 80, _FUTURE)


def _train_gru(seed: int, steps: int, own: float = _OWN) -> GruDetector:
    """A GRU learns from crops of the streams, every frame of which counts."""
    generator = torch.Generator().manual_seed(seed)
    features, labels, _ = _streams(_TRAIN, _TRAIN_FRAMES, generator, own)
    ahead = future_targets(labels, _FUTURE)
    torch.manual_seed(seed)
    model = _gru()

    def loss() -> Tensor:
        video = torch.randint(_TRAIN, (_CROPS,), generator=generator)
        start = int(torch.randint(_TRAIN_FRAMES - _CROP + 1, (1,), generator=generator))
        crop = slice(start, start + _CROP)
        now_logits, ahead_logits, _ = model(features[video, crop])
        return oadtr_loss(now_logits, ahead_logits, labels[video, crop], ahead[video, crop])

    _fit(model, loss, steps, 5e-3)
    return model


@torch.no_grad()
def _predict(model: torch.nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities of every frame, (N, L, 9), and of the frames ahead, (N, L, K, 9)."""
    if isinstance(model, GruDetector):
        now, ahead, _ = model(features)
    else:
        assert isinstance(model, OadTR)
        parts = [
            model(part) for part in sliding_windows(features, model.encoder.length).flatten(0, 1).split(1200)
        ]
        now, ahead = (torch.cat([part[i] for part in parts]).unflatten(0, features.shape[:2]) for i in (0, 1))
    return now.softmax(-1), ahead.softmax(-1)


def _anticipation(ahead: Tensor, labels: Tensor) -> list[float]:
    """mAP of the predicted future at each horizon 1 to K, over the frames that have one."""
    truth = future_targets(labels, _FUTURE)
    values = []
    for k in range(ahead.shape[2]):
        known = truth[..., k] >= 0
        values.append(float(mean_average_precision(ahead[:, :, k][known], truth[..., k][known])))
    return values


def _test_streams(own: float = _OWN) -> tuple[Tensor, Tensor, Tensor]:
    return _streams(_TEST, _TEST_FRAMES, torch.Generator().manual_seed(99), own)


def _score(model: torch.nn.Module, features: Tensor, labels: Tensor) -> dict[str, Any]:
    now, ahead = _predict(model, features)
    flat, truth = now.flatten(0, 1), labels.flatten()
    return {
        "map": float(mean_average_precision(flat, truth)),
        "mcap": float(mean_average_precision(flat, truth, calibrated=True)),
        "horizons": _anticipation(ahead, labels),
        "now": now,
    }


def _spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _linear(seed: int, length: int = _LENGTH, shift: int = 0) -> Callable[[Tensor], Tensor]:
    """A linear detector of whole windows by least squares, in closed form: (N, L, 16) to scores (N L, 9).

    Its windows end `shift` frames after the frame they judge: above 0, they leak the future.
    """
    features, labels, _ = _streams(_TRAIN, _TRAIN_FRAMES, torch.Generator().manual_seed(seed))

    def rows(streams: Tensor) -> Tensor:
        moved = F.pad(streams, (0, 0, 0, shift))[:, shift:]
        flat = sliding_windows(moved, length).flatten(2).flatten(0, 1).double()
        return F.pad(flat, (0, 1), value=1.0)

    x, y = rows(features), F.one_hot(labels.flatten(), _CLASSES + 1).double()
    weight = torch.linalg.solve(x.T @ x + 10 * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
    return lambda streams: rows(streams) @ weight


_MODELS: dict[str, dict[str, Any]] = {
    "last": {"task_token": False, "future": 0},
    "token": {"future": 0},
    "last_decoder": {"task_token": False},
    "full": {},
    "unsupervised": {"weight": 0.0},
}
_COMPARISONS = {
    "token_gain_alone": ("token", "last"),
    "token_gain": ("full", "last_decoder"),
    "decoder_gain_last": ("last_decoder", "last"),
    "decoder_gain": ("full", "token"),
    "supervision_gain": ("full", "unsupervised"),
    "gru_gain": ("gru", "full"),
}


def _train(name: str, seed: int, steps: int) -> torch.nn.Module:
    return _train_gru(seed, steps) if name == "gru" else _train_oadtr(seed, steps, **_MODELS[name])


def _gains(found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """For each comparison whose models were run: the paired differences of map, seed by seed."""
    rows = []
    for name, (one, other) in _COMPARISONS.items():
        if one in found and other in found:
            gains = [a["map"] - b["map"] for a, b in zip(found[one], found[other], strict=True)]
            wins = sum(gain > 0 for gain in gains)
            spread = _spread(gains)
            rows.append(
                {
                    "comparison": name,
                    "gain": fmean(gains),
                    "spread": spread,
                    "wins": wins,
                    "seeds": len(gains),
                }
            )
    return rows


def _single(gain_rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The same as single values: <comparison>, <comparison>_spread, <comparison>_wins."""
    values: dict[str, Any] = {}
    for row in gain_rows:
        name = row["comparison"]
        values |= {name: row["gain"], f"{name}_spread": row["spread"], f"{name}_wins": row["wins"]}
    return values


@experiment
def early(steps: int = _STEPS // 2, seeds: Sequence[int] = (0, 1, 2, 3, 4)) -> dict[str, Any]:
    """The ablation with half the steps, the learning rate's schedule included: what is learned faster.

    Models: last, token, last_decoder, full, gru, as in `ablation`. seed_rows: model, seed, map.
    <model>_map, <model>_map_spread. gain_rows and single values of the gains as in `ablation`.
    steps, seeds.
    """
    torch.set_num_threads(1)
    features, labels, _ = _test_streams()
    names = ("last", "token", "last_decoder", "full", "gru")
    found = {name: [_score(_train(name, seed, steps), features, labels) for seed in seeds] for name in names}
    result: dict[str, Any] = {"steps": steps, "seeds": len(seeds), "gain_rows": _gains(found)}
    for name, runs in found.items():
        values = [run["map"] for run in runs]
        result |= {f"{name}_map": fmean(values), f"{name}_map_spread": _spread(values)}
    seed_rows = [
        {"model": name, "seed": seed, "map": run["map"]}
        for name, runs in found.items()
        for seed, run in zip(seeds, runs, strict=True)
    ]
    return result | _single(result["gain_rows"]) | {"seed_rows": seed_rows}


@experiment
def ablation(steps: int = _STEPS, seeds: Sequence[int] = (0, 1, 2, 3, 4)) -> dict[str, Any]:
    """OadTR with and without its parts, and a GRU, on generated streams; several seeds, which change
    training data, initial weights and batches; one set of test streams.

    Models: last (no token, no decoder), token (no decoder), last_decoder (no token), full, unsupervised
    (full, but the future is given no loss: weight 0), gru, linear (least squares on the whole window).
    rows: model, parameters, map, mcap (means over the seeds), map_spread, mcap_spread (standard deviations).
    <model>_<key>: the same as single values. seed_rows: model, seed, map, mcap.
    token_gain: full - last_decoder; token_gain_alone: token - last; decoder_gain: full - token;
    decoder_gain_last: last_decoder - last; supervision_gain: full - unsupervised; gru_gain: gru - full;
    each the mean difference of map over the seeds, with *_spread (its standard deviation) and *_wins
    (seeds in which it is positive). gain_rows: comparison, gain, spread, wins, seeds.
    horizon_rows: horizon, full, full_spread, gru, gru_spread, copy (the probability of now taken for the
    future, by the full model). full_first, full_last, gru_first, gru_last, copy_first, copy_last.
    similarity_token, similarity_last (arrays (T,), over the slots, oldest first): mean cosine between the
    classifier's input and each frame's feature, models full and last_decoder, first seed;
    similarity_token_newest, similarity_last_newest; similarity_token_spread, similarity_last_spread
    (largest less smallest mean over the older frames).
    shown_labels, shown_events (arrays): a test stream; shown_full, shown_gru (arrays (L, 9)): its scores.
    steps, seeds, batch, length, future, width, classes, noise, own, train_streams, train_frames,
    test_streams, test_frames (total), action_share (share of test frames inside an action),
    gru_labels (labels in one step of the GRU).
    """
    torch.set_num_threads(1)
    features, labels, events = _test_streams()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in (*_MODELS, "gru", "linear")}
    result: dict[str, Any] = {}
    parameters: dict[str, int] = {}
    copies: list[list[float]] = []
    for seed in seeds:
        scores = _linear(seed)(features)
        found["linear"].append(
            {
                "map": float(mean_average_precision(scores, labels.flatten())),
                "mcap": float(mean_average_precision(scores, labels.flatten(), calibrated=True)),
            }
        )
        parameters["linear"] = (_LENGTH * _FEATURES + 1) * (_CLASSES + 1)
        for name in (*_MODELS, "gru"):
            model = _train(name, seed, steps)
            found[name].append(_score(model, features, labels))
            parameters[name] = _parameters(model)
            if name == "full":
                now = found[name][-1]["now"]
                copies.append(_anticipation(now[:, :, None].expand(-1, -1, _FUTURE, -1), labels))
            if seed == seeds[0] and name in ("full", "gru"):
                result[f"shown_{name}"] = found[name][-1]["now"][_SHOWN].numpy()
            if seed == seeds[0] and name in ("full", "last_decoder"):
                assert isinstance(model, OadTR)
                slots = _similarity(model, features)
                key = "token" if name == "full" else "last"
                result[f"similarity_{key}"] = slots.numpy()
                result[f"similarity_{key}_newest"] = float(slots[-1])
                older = slots[:-1]
                result[f"similarity_{key}_spread"] = float(older.max() - older.min())
                result[f"similarity_{key}_older"] = float(older.mean())
    rows, seed_rows = [], []
    for name, runs in found.items():
        row: dict[str, Any] = {"model": name, "parameters": parameters[name]}
        for key in ("map", "mcap"):
            values = [run[key] for run in runs]
            row[key], row[f"{key}_spread"] = fmean(values), _spread(values)
        rows.append(row)
        result |= {f"{name}_{key}": value for key, value in row.items() if key != "model"}
        seed_rows += [
            {"model": name, "seed": seed, "map": run["map"], "mcap": run["mcap"]}
            for seed, run in zip(seeds, runs, strict=True)
        ]
    gain_rows = _gains(found)
    result |= _single(gain_rows)
    horizon_rows = []
    for k in range(_FUTURE):
        horizon: dict[str, Any] = {"horizon": k + 1}
        for name in ("full", "gru"):
            values = [run["horizons"][k] for run in found[name]]
            horizon |= {name: fmean(values), f"{name}_spread": _spread(values)}
        horizon_rows.append(horizon | {"copy": fmean(copy[k] for copy in copies)})
    for end, row in (("first", horizon_rows[0]), ("last", horizon_rows[-1])):
        result |= {f"{name}_{end}": row[name] for name in ("full", "gru", "copy")}
    setting = {
        "steps": steps,
        "seeds": len(seeds),
        "batch": _BATCH,
        "length": _LENGTH,
        "future": _FUTURE,
        "width": _WIDTH,
        "classes": _CLASSES,
        "noise": _NOISE,
        "own": _OWN,
        "train_streams": _TRAIN,
        "train_frames": _TRAIN_FRAMES,
        "test_streams": _TEST,
        "test_frames": labels.numel(),
        "action_share": float((labels > 0).double().mean()),
        "gru_labels": _CROP * _CROPS,
    }
    shown = {"shown_labels": labels[_SHOWN].numpy(), "shown_events": events[_SHOWN].numpy()}
    tables = {"rows": rows, "seed_rows": seed_rows, "gain_rows": gain_rows, "horizon_rows": horizon_rows}
    return result | setting | shown | tables


_SHOWN = 3


@torch.no_grad()
def _similarity(model: OadTR, features: Tensor) -> Tensor:
    """Mean cosine between the classifier's input and the feature in each slot of full windows: (T,)."""
    windows = sliding_windows(features, model.encoder.length)[:, model.encoder.length :: 8].flatten(0, 1)
    token, frames = model.encoder(model.project(windows))
    return token_similarity(token, frames).mean(0)


@experiment
def turning(
    strengths: Sequence[float] = (0.0, 0.5, 1.0, 1.5),
    steps: int = _STEPS,
    seeds: Sequence[int] = (0, 1),
    patience: int = 2,
) -> dict[str, Any]:
    """OadTR and the GRU as each frame shows more and more of its class, with and without the cue's help.

    rows: own (strength of the class's own mark in each frame of its action), full, gru (mean map over the
    seeds), full_low, full_high, gru_low, gru_high (range over the seeds), gap (gru - full).
    full_<i>, gru_<i>, gap_<i>: single values, i the number of the strength; own_<i>.
    first_full, first_gru, last_full, last_gru: at the smallest and the largest strength.
    turns_at: the smallest strength at which the GRU is ahead in the mean; -1 if it never is.
    patient_full, patient_gru: map of both trained `patience` times as long, smallest strength, first seed.
    strengths, seeds (numbers), patience, steps.
    """
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {}
    for number, own in enumerate(strengths):
        features, labels, _ = _test_streams(own)
        row: dict[str, Any] = {"own": own}
        for name in ("full", "gru"):
            values = []
            for seed in seeds:
                model: torch.nn.Module = (
                    _train_gru(seed, steps, own) if name == "gru" else _train_oadtr(seed, steps, own=own)
                )
                values.append(_score(model, features, labels)["map"])
            row |= {name: fmean(values), f"{name}_low": min(values), f"{name}_high": max(values)}
        row["gap"] = row["gru"] - row["full"]
        rows.append(row)
        result |= {f"{key}_{number}": row[key] for key in ("full", "gru", "gap", "own")}
    features, labels, _ = _test_streams(strengths[0])
    patient = {
        "patient_full": _train_oadtr(seeds[0], patience * steps, own=strengths[0]),
        "patient_gru": _train_gru(seeds[0], patience * steps, strengths[0]),
    }
    ahead = [row["own"] for row in rows if row["gap"] > 0]
    return result | {
        "rows": rows,
        "first_full": rows[0]["full"],
        "first_gru": rows[0]["gru"],
        "last_full": rows[-1]["full"],
        "last_gru": rows[-1]["gru"],
        "turns_at": min(ahead, default=-1.0),
        **{name: _score(model, features, labels)["map"] for name, model in patient.items()},
        "strengths": len(rows),
        "seeds": len(seeds),
        "patience": patience,
        "steps": steps,
    }


@experiment
def history(
    lengths: Sequence[int] = (4, 8, 16, 24), steps: int = _STEPS, seeds: Sequence[int] = (0, 1)
) -> dict[str, Any]:
    """The full model with windows of different lengths.

    rows: length, map (mean over the seeds), low, high (range), cost (multiply-adds per frame of the stream).
    map_<length>, cost_<length>: single values. best_length, best_map; first_map (shortest window),
    last_map (longest). seeds, steps.
    """
    torch.set_num_threads(1)
    features, labels, _ = _test_streams()
    rows: list[dict[str, Any]] = []
    for length in lengths:
        values = [_score(_train_oadtr(seed, steps, length), features, labels)["map"] for seed in seeds]
        rows.append(
            {
                "length": length,
                "map": fmean(values),
                "low": min(values),
                "high": max(values),
                "cost": frame_cost(_FEATURES, _WIDTH, 2, 1, length, _FUTURE),
            }
        )
    best = max(rows, key=lambda row: row["map"])
    single = {f"{key}_{row['length']}": row[key] for row in rows for key in ("map", "cost")}
    return single | {
        "rows": rows,
        "best_length": best["length"],
        "best_map": best["map"],
        "first_map": rows[0]["map"],
        "last_map": rows[-1]["map"],
        "seeds": len(seeds),
        "steps": steps,
    }


@experiment
def streaming(
    lengths: Sequence[int] = (8, 16, 32, 64), repeats: int = 41, frames: int = 40
) -> dict[str, Any]:
    """What one new frame costs: the stream, every window anew, and a GRU; counted and timed side by side.

    A model of width 64 on 2,048 features, 2 encoder layers, 1 decoder layer, 4 future frames.
    rows: length; cached, anew (multiply-adds per frame), saved (share); stream_time, window_time (median
    time over that of one GRU step of width 64), ratio (window over stream).
    cached_<length>, anew_<length>, ratio_<length>: single values. gru_cost: multiply-adds of the GRU's step.
    official_cached, official_anew, official_saved: the official configuration (3,072 features, width 1,024,
    3 encoder and 5 decoder layers, 64 frames, 8 future), projection_share (of official_anew).
    one_layer_cached, one_layer_anew: multiply-adds of a single layer whose only query is the token, width
    1,024, 64 frames, with keys and values cached or anew; its query is computed once for all.
    largest_error: largest difference between stream and batch, over `frames` frames from the first, float32.
    blank_error: the same if empty slots are zeros instead of projected zeros, first frames included;
    blank_frames: number of frames whose logits then differ by more than 1e-5.
    repeats, frames, width, features.
    """
    torch.set_num_threads(1)
    width, size, future = 64, 2048, 4
    generator = torch.Generator().manual_seed(0)
    rival = GruDetector(size, _CLASSES, width, future).eval()
    frame = torch.randn(1, size, generator=generator)
    contenders: dict[tuple[str, int], Callable[[], Any]] = {}
    torch.manual_seed(0)
    for length in lengths:
        model = OadTR(size, _CLASSES, width, 4, 2, 1, length, future).eval()
        contenders["stream", length] = partial(StreamingDetector(model).step, frame)
        contenders["window", length] = partial(_Anew(model, size).step, frame)
    state = torch.zeros(1, 1, width)
    contenders["gru", 0] = partial(rival, frame[:, None], state)
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in contenders}
    warm_up = 3
    with torch.inference_mode():
        for repeat in range(repeats + warm_up):  # all take turns, so that a slow moment strikes each of them
            for key, run in contenders.items():
                start = time.perf_counter()
                run()
                if repeat >= warm_up:
                    seconds[key].append(time.perf_counter() - start)
    base = median(seconds["gru", 0])
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {}
    for length in lengths:
        cached, anew = (frame_cost(size, width, 2, 1, length, future, kept) for kept in (True, False))
        stream_time, window_time = (median(seconds[name, length]) / base for name in ("stream", "window"))
        row = {
            "length": length,
            "cached": cached,
            "anew": anew,
            "saved": 1 - cached / anew,
            "stream_time": stream_time,
            "window_time": window_time,
            "ratio": window_time / stream_time,
        }
        rows.append(row)
        result |= {f"{key}_{length}": row[key] for key in ("cached", "anew", "ratio")}
    official = (3072, 1024, 3, 5, 64, 8)
    official_cached, official_anew = (frame_cost(*official, kept) for kept in (True, False))
    return (
        result
        | _stream_error(frames)
        | {
            "rows": rows,
            "gru_cost": 3 * width * (size + width),
            "official_cached": official_cached,
            "official_anew": official_anew,
            "official_saved": 1 - official_cached / official_anew,
            "projection_share": 3072 * 1024 * 64 / official_anew,
            "one_layer_cached": 3 * 1024**2 + 2 * 64 * 1024,
            "one_layer_anew": (1 + 64 * 2) * 1024**2 + 2 * 64 * 1024,
            "repeats": repeats,
            "frames": frames,
            "width": width,
            "features": size,
        }
    )


class _Anew:
    """A stream that keeps the raw frames and runs the whole model on each window."""

    def __init__(self, model: OadTR, features: int) -> None:
        self.model, self.frames = model, torch.zeros(1, model.encoder.length, features)

    def step(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        self.frames = torch.cat([self.frames[:, 1:], frame[:, None]], 1)
        now, ahead = self.model(self.frames)
        return now, ahead


def _stream_error(frames: int) -> dict[str, Any]:
    """Stream against batch, and against a stream that begins with zeros in the window."""
    torch.manual_seed(0)
    model = _oadtr().eval()
    features = torch.randn(frames, _FEATURES, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        batch, _ = model(sliding_windows(features, _LENGTH))
    right, blank = StreamingDetector(model), StreamingDetector(model)
    blank.window = torch.zeros_like(blank.window)
    errors = {
        name: torch.stack(
            [(stream.step(x[None])[0][0] - y).abs().max() for x, y in zip(features, batch, strict=True)]
        )
        for name, stream in (("right", right), ("blank", blank))
    }
    return {
        "largest_error": float(errors["right"].max()),
        "blank_error": float(errors["blank"].max()),
        "blank_frames": int((errors["blank"] > 1e-5).sum()),
    }


def _by_position(scores: Tensor, positive: Tensor) -> float:
    """AP as in code that sorts and never looks for ties."""
    hits = positive[scores.argsort(descending=True, stable=True)].double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / hits.sum())


@experiment
def published_mistakes(steps: int = _STEPS) -> dict[str, Any]:
    """Mistakes found in code and papers, each against the right number, on one trained OadTR and its test streams.

    rows: mistake, wrong, right, gap. <mistake>_wrong, <mistake>_right, <mistake>_gap: single values.
    Mistakes: leaking_window (the window reaches 4 frames ahead; a linear detector, in closed form),
    background_counted (background is one of the classes of the mean), interpolated (each AP interpolated),
    per_video (mean over videos of their own mAP), background_frames (frames of background thrown out),
    hard_labels (the winning class scores 1, others 0, ties in order of the array), calibrated (mcAP
    reported where mAP is meant), first_row (the token looked for in row 0), last_frame (the newest
    frame's row read as if it were the token).
    ties_first, ties_last: AP of a constant score by code that ignores ties, positives stored first or last;
    ties_right: by the snippet. mistakes: their number. videos, skipped_frames, skipped_share: test frames
    that an evaluation loses which starts with the first full window of 64 frames and ends 8 early.
    """
    torch.set_num_threads(1)
    features, labels, _ = _test_streams()
    model = _train_oadtr(0, steps)
    now, _ = _predict(model, features)
    flat, truth = now.flatten(0, 1), labels.flatten()
    right = float(mean_average_precision(flat, truth))

    def linear(shift: int) -> float:
        return float(mean_average_precision(_linear(0, 8, shift)(features), truth))

    actions = range(1, _CLASSES + 1)
    hard = F.one_hot(flat.argmax(-1), _CLASSES + 1).double()
    rows = [
        ("leaking_window", linear(4), linear(0)),
        ("background_counted", float(mean_average_precision(flat, truth, background=None)), right),
        (
            "interpolated",
            fmean(float(interpolated_average_precision(flat[:, c], truth == c)) for c in actions),
            right,
        ),
        ("per_video", float(mean_per_video_ap(list(now), list(labels))), right),
        ("background_frames", float(mean_average_precision(flat[truth > 0], truth[truth > 0])), right),
        ("hard_labels", fmean(_by_position(hard[:, c], truth == c) for c in actions), right),
        ("calibrated", float(mean_average_precision(flat, truth, calibrated=True)), right),
        ("first_row", _from_row(model, features, truth, 0), right),
        ("last_frame", _from_row(model, features, truth, _LENGTH - 1), right),
    ]
    table = [
        {"mistake": name, "wrong": wrong, "right": value, "gap": wrong - value} for name, wrong, value in rows
    ]
    first = torch.arange(100) < 20
    skipped = _TEST * (63 + 9)
    return {
        "rows": table,
        **{f"{row['mistake']}_{key}": row[key] for row in table for key in ("wrong", "right", "gap")},
        "ties_first": _by_position(torch.zeros(100), first),
        "ties_last": _by_position(torch.zeros(100), first.flip(0)),
        "ties_right": float(average_precision(torch.zeros(100), first)),
        "mistakes": len(table),
        "videos": _TEST,
        "skipped_frames": skipped,
        "skipped_share": skipped / labels.numel(),
    }


@torch.no_grad()
def _from_row(model: OadTR, features: Tensor, truth: Tensor, row: int) -> float:
    """mAP if the trained head is fed another row of the encoder in the token's place."""
    scores = []
    for part in sliding_windows(features, _LENGTH).flatten(0, 1).split(1200):
        token, frames = model.encoder(model.project(part))
        assert model.decoder is not None
        predicted = model.decoder(torch.cat([frames, token[:, None]], 1))
        joined = torch.cat([frames[:, row], predicted.mean(1)], -1)
        scores.append(model.head(joined).softmax(-1))
    return float(mean_average_precision(torch.cat(scores), truth))
