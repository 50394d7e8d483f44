"""Measurements for Stable Diffusion: a small one trained on captioned pictures, exact toys, costs and mistakes."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from scripts.pipeline.experiment import experiment
from snippets.stable_diffusion import (
    AutoencoderKL,
    TextEncoder,
    UNet,
    Upsample,
    add_noise,
    autoencoder_loss,
    cosine_betas,
    ddim_step,
    ddpm_step,
    diffusion_loss,
    ema_update,
    guided_noise,
    latent_scale,
    linear_betas,
    predict_x0,
    sample,
    sampling_timesteps,
    scaled_linear_betas,
)

_T = 1000
_SCHEDULES = {"scaled_linear": scaled_linear_betas, "linear": linear_betas, "cosine": cosine_betas}


def _say(words: str) -> None:
    print(f"stable_diffusion: {words}", file=sys.stderr, flush=True)


def _levels(betas: Tensor | None = None) -> Tensor:
    return (1 - (scaled_linear_betas(_T) if betas is None else betas).double()).cumprod(0)


def _spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


@experiment
def schedules() -> dict[str, Any]:
    """Three schedules of noise over 1,000 steps.

    rows: schedule, first and last (sqrt(alphas_cumprod) of the first and last step), last_snr, half (the
    first step at which noise is stronger than signal). <schedule>_<key>: as single values.
    step, snr_<schedule>, signal_<schedule> (arrays): SNR and sqrt(alphas_cumprod) of each step.
    start_50, start_50_signal: the step where 50 steps with "leading" spacing begin, and its sqrt(alphas_cumprod).
    chain_error: largest difference between the variance after adding noise step by step and after one jump.
    """
    result: dict[str, Any] = {"rows": [], "step": np.arange(_T)}
    for name, make in _SCHEDULES.items():
        levels = _levels(make(_T))
        snr = levels / (1 - levels)
        row: dict[str, Any] = {"first": float(levels[0].sqrt()), "last": float(levels[-1].sqrt())}
        row |= {"last_snr": float(snr[-1]), "half": int((snr < 1).nonzero()[0])}
        result["rows"].append({"schedule": name} | row)
        result |= {f"{name}_{key}": value for key, value in row.items()}
        result |= {f"snr_{name}": snr, f"signal_{name}": levels.sqrt()}
    levels, variance, errors = _levels(), 0.0, []
    for t, beta in enumerate(scaled_linear_betas(_T).tolist()):
        variance = (1 - beta) * variance + beta
        errors.append(abs(variance - float(1 - levels[t])))
    start = int(sampling_timesteps(50, _T)[0])
    return result | {
        "start_50": start,
        "start_50_signal": float(levels[start].sqrt()),
        "chain_error": max(errors),
    }


# Five round heaps in the plane, whose best possible noise prediction is known exactly.
_HEAPS, _HEAP_SPREAD = 5, 0.12


def _centers() -> Tensor:
    angle = 2 * torch.pi * torch.arange(_HEAPS, dtype=torch.float64) / _HEAPS + 0.3
    return 1.3 * torch.stack([angle.cos(), angle.sin()], dim=1)


def _heaps(count: int, generator: torch.Generator) -> Tensor:
    chosen = torch.randint(_HEAPS, (count,), generator=generator)
    return _centers()[chosen] + _HEAP_SPREAD * _normal((count, 2), generator)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _exact_noise(x: Tensor, t: int, levels: Tensor, centers: Tensor) -> Tensor:
    """E[noise | x] when the data are equal heaps around the centers (heaps, 2)."""
    a = levels[t]
    variance = a * _HEAP_SPREAD**2 + 1 - a
    away = a.sqrt() * centers - x[:, None]  # (B, heaps, 2)
    share = (-away.square().sum(-1) / (2 * variance)).softmax(1)
    return -(1 - a).sqrt() / variance * (share[..., None] * away).sum(1)


def _walk(
    x: Tensor,
    noise_of: Callable[[Tensor, int], Tensor],
    steps: int,
    eta: float,
    generator: torch.Generator,
) -> Tensor:
    """Places on the way from noise to data, (steps + 1, B, 2)."""
    levels, places = _levels(), [x]
    times = sampling_timesteps(steps, _T, "trailing").tolist()
    for t, t_prev in zip(times, [*times[1:], -1], strict=True):
        x = ddim_step(x, noise_of(x, t), t, t_prev, levels, eta, generator)
        places.append(x)
    return torch.stack(places)


def _distance(a: Tensor, b: Tensor, directions: int = 16) -> float:
    """Sliced Wasserstein-1: how far apart the sorted projections lie, averaged over directions."""
    angle = torch.pi * torch.arange(directions, dtype=a.dtype) / directions
    lines = torch.stack([angle.cos(), angle.sin()])  # (2, directions)
    return float(((a @ lines).sort(0).values - (b @ lines).sort(0).values).abs().mean())


@experiment
def trajectories(
    walkers: int = 4,
    samples: int = 4000,
    seeds: Sequence[int] = (0, 1, 2),
    counts: Sequence[int] = (2, 3, 5, 10, 20, 50, 100, 250),
) -> dict[str, Any]:
    """DDIM and DDPM on five heaps in the plane with the exact noise, so that only the sampler errs.

    start (walkers, 2), centers, heaps (arrays); ddim_way (51, walkers, 2), ddpm_way (1001, walkers, 2),
    ddpm_again (walkers, 2): 50 deterministic steps, 1,000 random ones, and the ends of a second random run.
    ddim_length, ddpm_length: median length of a way over that of the straight line.
    ddim_same, ddpm_same: share of samples which two runs with different random numbers, from one start,
    bring to the same heap.
    rows: steps, ddim, ddpm (sliced Wasserstein distance to the data, mean over the seeds), ddim_spread,
    ddpm_spread. floor: of one sample of the data to another. ddim_<steps>, ddpm_<steps>: as single values.
    samples, seeds, spread (of a heap).
    """
    levels, centers = _levels(), _centers()

    def exact(x: Tensor, t: int) -> Tensor:
        return _exact_noise(x, t, levels, centers)

    def walk(x: Tensor, steps: int, eta: float, seed: int) -> Tensor:
        return _walk(x, exact, steps, eta, torch.Generator().manual_seed(seed))

    generator = torch.Generator().manual_seed(21)
    start = _normal((walkers, 2), generator)
    ways = {"ddim": walk(start, 50, 0.0, 0), "ddpm": walk(start, _T, 1.0, 1)}
    result: dict[str, Any] = {"start": start, "centers": centers, "heaps": _heaps(500, generator)}
    result["ddpm_again"] = walk(start, _T, 1.0, 2)[-1]
    many = _normal((500, 2), generator)
    for name, (eta, way) in {"ddim": (0.0, ways["ddim"]), "ddpm": (1.0, ways["ddpm"])}.items():
        length = way.diff(dim=0).norm(dim=-1).sum(0) / (way[-1] - way[0]).norm(dim=-1)
        ends = [torch.cdist(walk(many, 100, eta, seed)[-1], centers).argmin(1) for seed in (3, 4)]
        same = float((ends[0] == ends[1]).double().mean())
        result |= {f"{name}_way": way, f"{name}_length": float(length.median()), f"{name}_same": same}
    rows, floors = [], []
    found: dict[tuple[str, int], list[float]] = {(n, c): [] for n in ("ddim", "ddpm") for c in counts}
    for seed in seeds:
        generator = torch.Generator().manual_seed(100 + seed)
        data, noise = _heaps(samples, generator), _normal((samples, 2), generator)
        floors.append(_distance(data, _heaps(samples, generator)))
        for (name, count), values in found.items():
            values.append(_distance(walk(noise, count, float(name == "ddpm"), seed)[-1], data))
    for count in counts:
        row: dict[str, Any] = {"steps": count}
        for name in ("ddim", "ddpm"):
            row |= {name: fmean(found[name, count]), f"{name}_spread": _spread(found[name, count])}
            result[f"{name}_{count}"] = row[name]
        rows.append(row)
    numbers = {"samples": samples, "seeds": len(seeds), "spread": _HEAP_SPREAD}
    return result | numbers | {"rows": rows, "floor": fmean(floors)}


@experiment
def guidance(
    samples: int = 1500, steps: int = 500, scales: Sequence[float] = (0, 1, 3, 7.5)
) -> dict[str, Any]:
    """Guidance on the heaps: the prompt stands for two neighboring heaps of the five; the noise is exact.

    rows: scale, obeyed (share of samples that end nearest to a heap of the prompt), spread (of those around
    their mean in each heap, over that of the data), away (distance of that mean from the true one, in the same unit).
    <key>_<scale>: as single values, 7.5 written 7_5. points_<scale> (arrays), centers, prompted.
    samples, steps, heap_spread.
    """
    levels, centers = _levels(), _centers()
    prompted = [0, 1]
    result: dict[str, Any] = {"rows": [], "centers": centers, "prompted": prompted}
    for scale in scales:
        generator = torch.Generator().manual_seed(31)

        def guided(x: Tensor, t: int, scale: float = scale) -> Tensor:
            cond = _exact_noise(x, t, levels, centers[prompted])
            return guided_noise(cond, _exact_noise(x, t, levels, centers), scale)

        points = _walk(_normal((samples, 2), generator), guided, steps, 0.0, generator)[-1]
        nearest = torch.cdist(points, centers).argmin(1)
        parts = [points[nearest == heap] for heap in prompted]
        row: dict[str, Any] = {"scale": scale, "obeyed": sum(map(len, parts)) / samples}
        around = fmean(float(part.var(0).mean()) for part in parts) ** 0.5
        moved = fmean(float((p.mean(0) - centers[h]).norm()) for p, h in zip(parts, prompted, strict=True))
        row |= {"spread": around / _HEAP_SPREAD, "away": moved / _HEAP_SPREAD}
        result["rows"].append(row)
        mark = f"{scale:g}".replace(".", "_")
        result |= {f"{key}_{mark}": value for key, value in row.items() if key != "scale"}
        result[f"points_{mark}"] = points
    return result | {"samples": samples, "steps": steps, "heap_spread": _HEAP_SPREAD}


@experiment
def brightness(
    sides: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512), samples: int = 20000
) -> dict[str, Any]:
    """How much of the spread of the mean brightness between pictures survives sampling from pure noise.

    The mean of n = side x side values: one Gaussian number whose best noise prediction is known, so that with
    D = a n + 1 - a at the last step the share of its standard deviation that is kept is 1 / sqrt(D) for DDIM
    and sqrt(a n / D^2 + (1 - a) / D) for DDPM.
    rows: side, snr (of the mean at the last step), ddim, ddpm (in closed form), ddim_run, ddpm_run (1,000
    steps of the samplers on many numbers). <key>_<side>: as single values. side, ddim, ddpm, ddim_run,
    ddpm_run (arrays). largest_error: relative, of the runs against the closed form. samples.
    """
    levels, betas = _levels(), scaled_linear_betas(_T)
    side = np.array(sides)
    n = torch.tensor(side, dtype=torch.float64)[:, None] ** 2
    a = levels[-1]
    spread = a * n + 1 - a
    kept = {"ddim": spread.rsqrt(), "ddpm": (a * n / spread**2 + (1 - a) / spread).sqrt()}
    generator = torch.Generator().manual_seed(41)
    ddim = ddpm = _normal((len(sides), samples), generator)
    for t in reversed(range(_T)):
        per_value = (1 - levels[t]).sqrt() / (levels[t] * n + 1 - levels[t])  # exact noise over x
        ddim = ddim_step(ddim, per_value * ddim, t, t - 1, levels)
        ddpm = ddpm_step(ddpm, per_value * ddpm, t, betas, generator)
    run = {"ddim": ddim.std(1) / n[:, 0].sqrt(), "ddpm": ddpm.std(1) / n[:, 0].sqrt()}
    result: dict[str, Any] = {"side": side, "samples": samples, "rows": []}
    for name in ("ddim", "ddpm"):
        result |= {name: kept[name][:, 0].numpy(), f"{name}_run": run[name].numpy()}
    for i, s in enumerate(sides):
        row = {key: float(result[key][i]) for key in ("ddim", "ddpm", "ddim_run", "ddpm_run")}
        row["snr"] = float(n[i, 0] * a / (1 - a))
        result["rows"].append({"side": s} | row)
        result |= {f"{key}_{s}": value for key, value in row.items()}
    errors = [np.abs(result[f"{name}_run"] / result[name] - 1).max() for name in ("ddim", "ddpm")]
    return result | {"largest_error": float(max(errors))}


# Captioned pictures: 4 colors x 3 shapes x 2 x 2 places; two pairs of color and shape are never trained on.
_SIZE = 32
_WORDS = (
    *("<start>", "<end>", "a", "red", "green", "blue", "yellow", "circle", "cross", "triangle"),
    *("top", "bottom", "left", "right"),
)
_KINDS = (4, 3, 2, 2)
_FIRST = torch.tensor([3, 7, 10, 12])  # where the words of each kind begin
_RGB = torch.tensor([[0.85, 0.2, 0.15], [0.2, 0.65, 0.25], [0.2, 0.35, 0.85], [0.95, 0.8, 0.2]])
_NULL = torch.tensor([[0] + [1] * 6])  # the empty prompt: start, then end to the full length


def _labels(held_out: bool | None = None) -> Tensor:
    """All 48 labels (color, shape, row, column), or those (not) held out: blue circles, yellow triangles."""
    labels = torch.cartesian_prod(*(torch.arange(n) for n in _KINDS))
    color, shape = labels[:, 0], labels[:, 1]
    out = ((color == 2) & (shape == 0)) | ((color == 3) & (shape == 2))
    return labels if held_out is None else labels[out == held_out]


def _tokens(labels: Tensor) -> Tensor:
    """<start> a red circle top left <end>: (B, 7)."""
    edge = torch.zeros(len(labels), 1, dtype=torch.long)
    return torch.cat([edge, edge + 2, labels + _FIRST, edge + 1], dim=1)


def _caption(label: Sequence[int]) -> str:
    return " ".join(["a", *(_WORDS[int(first) + n] for first, n in zip(_FIRST, label, strict=True))])


def _coverage(shape: Tensor, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Share of each pixel inside a shape: x, y (B, H, W) from its center; the three have about equal areas."""
    circle = (x**2 + y**2).sqrt() - radius
    far, near = torch.maximum(x.abs(), y.abs()), torch.minimum(x.abs(), y.abs())
    cross = torch.maximum(far - 1.145 * radius, near - 0.42 * radius)
    inner = 0.778 * radius
    low = y - inner / 2  # so that the triangle's box is centered
    triangle = torch.maximum(low, 0.866 * x.abs() - low / 2) - inner
    outside = torch.stack([circle, cross, triangle], dim=1)
    return (0.5 - outside[torch.arange(len(shape)), shape]).clamp(0, 1)


def _grid() -> tuple[Tensor, Tensor]:
    line = torch.arange(_SIZE) + 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    return x, y


def _draw(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, 32, 32) in -1 to 1: place, size and the gray behind vary, the words do not tell them."""
    random = torch.rand(4, len(labels), 1, 1, generator=generator)
    x, y = _grid()
    center = 10.5 + 11 * labels[:, 2:, None, None] + 3 * (random[:2].movedim(0, 1) - 0.5)
    radius = 5.8 + 1.4 * random[2]
    inside = _coverage(labels[:, 1], x - center[:, 1], y - center[:, 0], radius)[:, None]
    gray = 0.15 + 0.7 * random[3][:, None]
    picture = gray + inside * (_RGB[labels[:, 0]][..., None, None] - gray)
    return 2 * picture - 1


def _any(count: int, labels: Tensor, generator: torch.Generator) -> Tensor:
    return labels[torch.randint(len(labels), (count,), generator=generator)]


def _fit(
    parameters: Sequence[nn.Parameter],
    loss_of_step: Callable[[], Tensor],
    steps: int,
    rate: float,
    what: str,
    cycle: bool = True,
    after: Callable[[int], None] = lambda step: None,
) -> list[float]:
    """Adam; the rate rises and falls within the steps (cycle), or rises over 50 steps and stays."""
    optimizer = torch.optim.AdamW(parameters, lr=rate, fused=True)
    schedule: torch.optim.lr_scheduler.LRScheduler
    if cycle:
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.2)
    else:
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 50))
    losses: list[float] = []
    for step in range(1, steps + 1):
        loss = loss_of_step()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        after(step)
        losses.append(loss.item())
        if step % 100 == 0:
            _say(f"{what}: step {step} of {steps}, loss {fmean(losses[-100:]):.4f}")
    return losses


class _Judge(nn.Module):
    """Reads color, shape, row and column off a picture; knows nothing of the generator under test."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (into, out) in enumerate([(3, width), (width, 2 * width), (2 * width, 2 * width)]):
            layers += [nn.Conv2d(into, out, 3, stride=1 if i == 0 else 2, padding=1)]
            layers += [nn.BatchNorm2d(out), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(2 * width * (_SIZE // 4) ** 2, 64), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(64, sum(_KINDS)))

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = self.layers(pictures).split(_KINDS, dim=1)
        return parts

    @torch.no_grad()
    def read(self, pictures: Tensor) -> Tensor:
        return torch.stack([part.argmax(1) for part in self(pictures)], dim=1)


def _degrade(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Blur and noise of random strength, so that the judge does not live by sharp edges."""
    count = len(pictures)
    width = 0.01 + 1.2 * torch.rand(count, 1, generator=generator)
    taps = (-(torch.arange(-2.0, 3.0) ** 2) / (2 * width**2)).softmax(1)  # (B, 5)
    x = F.pad(pictures, (2, 2, 2, 2), mode="replicate").transpose(0, 1)  # (3, B, H, W)
    x = F.conv2d(x, taps[:, None, None, :], groups=count)
    x = F.conv2d(x, taps[:, None, :, None], groups=count).transpose(0, 1)
    strength = 0.25 * torch.rand(count, 1, 1, 1, generator=generator)
    return x + strength * torch.randn(x.shape, generator=generator)


def _train_judge(steps: int) -> _Judge:
    torch.manual_seed(1)
    judge, generator = _Judge(), torch.Generator().manual_seed(1)

    def loss() -> Tensor:
        labels = _any(48, _labels(), generator)
        parts = judge(_degrade(_draw(labels, generator), generator))
        each = [F.cross_entropy(part, labels[:, i]) for i, part in enumerate(parts)]
        return torch.stack(each).sum()

    _fit(list(judge.parameters()), loss, steps, 3e-3, "judge")
    return judge.eval()


def _train_autoencoder(steps: int, cycles: int = 2, width: int = 64) -> AutoencoderKL:
    """Knows no prompts, and sees all pictures: what is held out is held out from the prompted model alone.

    The learning rate rises and falls in each cycle, since the fine shapes are learned at the end of one.
    """
    torch.manual_seed(2)
    autoencoder = AutoencoderKL(width=width)
    for cycle in range(cycles):
        generator = torch.Generator().manual_seed(2 + cycle)

        def loss(generator: torch.Generator = generator) -> Tensor:
            pictures = _draw(_any(16, _labels(), generator), generator)
            return autoencoder_loss(autoencoder, pictures, 1e-4, generator)

        _fit(list(autoencoder.parameters()), loss, steps, 4e-3, "autoencoder")
    return autoencoder.eval()


class _Prompted(nn.Module):
    """Text encoder and UNet, trained together."""

    def __init__(self, dim: int = 48, widths: Sequence[int] = (32, 64)) -> None:
        super().__init__()
        self.text = TextEncoder(len(_WORDS), dim, length=7, layers=1)
        self.unet = UNet(4, widths, dim)


def _train_prompted(autoencoder: AutoencoderKL, scale: Tensor, steps: int) -> tuple[_Prompted, list[float]]:
    torch.manual_seed(3)
    model, generator = _Prompted(), torch.Generator().manual_seed(3)
    average = copy.deepcopy(model)
    labels = _any(4096, _labels(held_out=False), generator)
    with torch.no_grad():
        moments = torch.cat([autoencoder.encode(_draw(p, generator)).mode() for p in labels.split(256)])
    latents, tokens, levels = scale * moments, _tokens(labels), _levels()

    def loss() -> Tensor:
        batch = torch.randint(len(latents), (32,), generator=generator)
        words, nothing = model.text(tokens[batch]), model.text(_NULL)
        return diffusion_loss(model.unet, latents[batch], words, levels, nothing, generator=generator)

    def follow(step: int) -> None:
        ema_update(average, model, min(0.995, step / (step + 10)))

    losses = _fit(list(model.parameters()), loss, steps, 2e-3, "UNet", cycle=False, after=follow)
    return average.eval(), losses


@dataclass(frozen=True)
class _Generator:
    """A trained Stable Diffusion in small: prompts to pictures."""

    autoencoder: AutoencoderKL
    prompted: _Prompted
    scale: Tensor
    steps: int = 25

    @torch.no_grad()
    def words(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.prompted.text(_tokens(labels)), self.prompted.text(_NULL)

    @torch.no_grad()
    def latents(self, labels: Tensor, seed: int, guidance: float, **options: Any) -> Tensor:
        words, nothing = self.words(labels)
        settings: dict[str, Any] = {
            "model": self.prompted.unet,
            "null_context": nothing,
            "shape": (4, _SIZE // 4, _SIZE // 4),
            "alphas_cumprod": _levels(),
            "steps": self.steps,
            "generator": torch.Generator().manual_seed(1000 + seed),
        }
        return sample(context=words, guidance=guidance, **(settings | options))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decode(latents / self.scale)

    def pictures(self, labels: Tensor, seed: int, guidance: float, **options: Any) -> Tensor:
        return self.decode(self.latents(labels, seed, guidance, **options))


def _form(pictures: Tensor, shapes: Tensor) -> Tensor:
    """IoU of what is colored with the ideal shape of the same area and center of mass: (B,)."""
    color = pictures.amax(1) - pictures.amin(1)  # (B, H, W)
    mask = color > 0.5 * color.flatten(1).quantile(0.98, dim=1)[:, None, None]
    x, y = _grid()
    area = mask.sum((1, 2))[:, None, None].clamp(min=1)
    middle_x, middle_y = ((mask * line).sum((1, 2))[:, None, None] / area for line in (x, y))
    radius = (area / torch.pi).sqrt()
    low = torch.where(shapes == 2, 0.389, 0.0)[:, None, None] * radius  # a triangle's mass sits low
    ideal = _coverage(shapes, x - middle_x, y - middle_y + low, radius) > 0.5
    return (mask & ideal).sum((1, 2)) / (mask | ideal).sum((1, 2))


def _gray(pictures: Tensor) -> Tensor:
    """The gray behind the shape, the median along the picture's rim: (B,)."""
    rim = torch.cat([pictures[..., 0, :], pictures[..., -1, :], pictures[..., 0], pictures[..., -1]], dim=-1)
    return rim.mean(1).median(1).values


def _score(judge: _Judge, pictures: Tensor, labels: Tensor) -> dict[str, float]:
    read = judge.read(pictures)
    return {
        "accuracy": float((read == labels).all(1).float().mean()),
        "form": float(_form(pictures, read[:, 1]).mean()),
        "clipped": float((pictures.abs() > 1).float().mean()),
        "gray_spread": float(_gray(pictures).std()),
    }


def _summary(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    values = {key: [run[key] for run in runs] for key in runs[0]}
    spread = {f"{key}_spread": _spread(found) for key, found in values.items()}
    return {key: fmean(found) for key, found in values.items()} | spread


_USUAL = 4.0
_SCALES = (0.0, 1.0, 2.0, 4.0, 7.5)
_PROMPTS = ((0, 0, 0, 0), (1, 1, 0, 1), (2, 2, 1, 0), (3, 0, 1, 1), (2, 0, 0, 1), (3, 2, 1, 0))


def _by_scale(
    generator: _Generator,
    judge: _Judge,
    scales: Sequence[float],
    seeds: Sequence[int],
    repeats: int,
    real_spread: float,
) -> dict[str, Any]:
    """Prompts obeyed at each scale of guidance, for combinations that were trained on and new ones."""
    known, new = _labels(held_out=False), _labels(held_out=True).repeat(repeats, 1)
    labels, prompts = torch.cat([known, new]), torch.tensor(_PROMPTS)
    result: dict[str, Any] = {"scale_rows": []}
    grids, odd = [], []
    for scale in scales:
        runs, unseen = [], []
        for seed in seeds:
            pictures = generator.pictures(labels, seed, scale)
            parts = pictures.split([len(known), len(new)])
            runs.append(_score(judge, parts[0], known))
            unseen.append(_score(judge, parts[1], new))
            if seed == seeds[0]:
                odd.append(pictures[_form(pictures, judge.read(pictures)[:, 1]).argsort()[:6]])
        row: dict[str, Any] = {"scale": scale} | _summary(runs)
        row |= {f"new_{key}": value for key, value in _summary(unseen).items()}
        row["gray_kept"] = row["gray_spread"] / real_spread
        result["scale_rows"].append(row)
        mark = f"{scale:g}".replace(".", "_")
        result |= {f"{key}_{mark}": value for key, value in row.items() if key != "scale"}
        grids.append(generator.pictures(prompts, 7, scale))
        _say(f"scale {scale:g}: accuracy {row['accuracy']:.3f}, new {row['new_accuracy']:.3f}")
    best = max(result["scale_rows"], key=lambda row: row["accuracy"])
    result |= {f"best_{key}": value for key, value in best.items()}
    return result | {
        "grid": _shown(torch.stack(grids)),
        "odd": _shown(torch.stack(odd)),
        "prompts": [_caption(prompt) for prompt in _PROMPTS],
    }


def _shown(pictures: Tensor) -> np.ndarray:
    """(..., 3, H, W) in -1 to 1 as (..., H, W, 3) in 0 to 1."""
    return ((pictures.clamp(-1, 1) + 1) / 2).movedim(-3, -1).numpy()


def _by_steps(
    generator: _Generator, judge: _Judge, counts: Sequence[int], seeds: Sequence[int], scale: float
) -> dict[str, Any]:
    """Prompts obeyed and form kept after few and many steps, deterministic (ddim) and random (ddpm)."""
    labels = _labels(held_out=False)
    result: dict[str, Any] = {"step_rows": []}
    for count in counts:
        row: dict[str, Any] = {"steps": count}
        for name, eta in (("ddim", 0.0), ("ddpm", 1.0)):
            runs = [
                _score(judge, generator.pictures(labels, seed, scale, steps=count, eta=eta), labels)
                for seed in seeds
            ]
            row |= {f"{name}_{key}": value for key, value in _summary(runs).items()}
        result["step_rows"].append(row)
        result |= {f"steps_{count}_{key}": value for key, value in row.items() if key != "steps"}
        _say(f"{count} steps: DDIM {row['ddim_accuracy']:.3f}, DDPM {row['ddpm_accuracy']:.3f}")
    return result


@torch.no_grad()
def _wrong_samplers(generator: _Generator, judge: _Judge, scale: float, seed: int = 0) -> dict[str, Any]:
    """The trained model sampled with one published mistake at a time, from the same noise."""
    labels = _labels(held_out=False)
    nothing = generator.words(labels)[1]
    times = sampling_timesteps(generator.steps, _T).tolist()
    gap = times[0] - times[1]

    def latents(guidance: float = scale, **options: Any) -> Tensor:
        return generator.latents(labels, seed, guidance, **options)

    def told(step_of: Callable[[Tensor], Tensor]) -> Tensor:
        """Sampled from a model that is told another step than the one its input comes from."""
        unet = generator.prompted.unet
        return latents(model=lambda x, t, words: unet(x, step_of(t).clamp(0, _T - 1), words))

    right = latents()
    found = {
        "right": generator.decode(right),
        "scale_forgotten": generator.autoencoder.decode(right),
        "scale_inverted": generator.autoencoder.decode(right * generator.scale),
        "linear_betas": generator.decode(latents(alphas_cumprod=_levels(linear_betas(_T)))),
        "linear_same_ends": generator.decode(
            latents(alphas_cumprod=_levels(linear_betas(_T, 0.00085, 0.012)))
        ),
        "next_step_told": generator.decode(told(lambda t: t - gap)),
        "last_step_told": generator.decode(told(lambda t: t + gap)),
        "index_told": generator.decode(told(lambda t: t // gap)),
        "zeros_for_empty": generator.decode(latents(null_context=torch.zeros_like(nothing))),
        "roles_swapped": generator.decode(latents(1 - scale)),
    }
    result: dict[str, Any] = {"mistake_rows": []}
    for name, pictures in found.items():
        score = _score(judge, pictures, labels)
        score["changed"] = float((pictures - found["right"]).abs().mean())
        result |= {f"{name}_{key}": value for key, value in score.items()}
        if name != "right":
            result["mistake_rows"].append({"mistake": name} | score)
    picked = torch.tensor([0, 13, 22, 39])
    return result | {
        "mistake_pictures": _shown(torch.stack([p[picked] for p in found.values()])),
        "mistake_names": list(found),
    }


@torch.no_grad()
def _way(generator: _Generator, label: Sequence[int], scale: float, seed: int = 3) -> dict[str, Any]:
    """What the decoder makes of the latents on their way, and of the guess at their end."""
    words, nothing = generator.words(torch.tensor([label]))
    levels, both = _levels(), torch.cat([nothing, words])
    times = sampling_timesteps(generator.steps, _T).tolist()
    x = torch.randn(1, 4, _SIZE // 4, _SIZE // 4, generator=torch.Generator().manual_seed(seed))
    noisy, guesses, raw = [], [], []
    for t, t_prev in zip(times, [*times[1:], -1], strict=True):
        uncond, cond = generator.prompted.unet(x.expand(2, -1, -1, -1), torch.tensor([t, t]), both).split(1)
        noise = guided_noise(cond, uncond, scale)
        raw.append(x[0])
        noisy.append(generator.decode(x)[0])
        guesses.append(generator.decode(predict_x0(x, noise, t, levels))[0])
        x = ddim_step(x, noise, t, t_prev, levels)
    keep = np.linspace(0, len(times) - 1, 8).round().astype(int)
    return {
        "way_t": np.array([times[i] for i in keep]),
        "way_latent": torch.stack([raw[i][:3] for i in keep]).movedim(1, -1).numpy(),
        "way_noisy": _shown(torch.stack([noisy[i] for i in keep])),
        "way_guess": _shown(torch.stack([guesses[i] for i in keep])),
        "way_prompt": _caption(label),
    }


@torch.no_grad()
def _reconstructions(autoencoder: AutoencoderKL, judge: _Judge, count: int) -> dict[str, Any]:
    """How well the latents keep real pictures, and what noise makes of the latents of one."""
    generator = torch.Generator().manual_seed(6)
    labels = _any(count, _labels(), generator)
    pictures = _draw(labels, generator)
    gaussian = autoencoder.encode(pictures)
    latents, again = gaussian.mode(), autoencoder.decode(gaussian.mode())
    scale = latent_scale(latents)
    error = (again - pictures).square().mean((1, 2, 3))
    noise = torch.randn(latents[:1].shape, generator=generator)
    times = torch.tensor([0, 100, 250, 400, 600, 800, 999])
    noised = add_noise(
        scale * latents[:1].expand(7, -1, -1, -1), noise.expand(7, -1, -1, -1), times, _levels()
    )
    real, kept = _score(judge, pictures, labels), _score(judge, again, labels)
    return {
        "scale": float(scale),
        "latent_spread": float(latents.std()),
        "posterior_spread": float((0.5 * gaussian.log_variance).exp().mean()),
        "psnr": float((10 * (4 / error).log10()).mean()),
        "real_accuracy": real["accuracy"],
        "real_form": real["form"],
        "real_gray_spread": real["gray_spread"],
        "kept_accuracy": kept["accuracy"],
        "kept_form": kept["form"],
        "degraded_accuracy": _score(judge, _degrade(pictures, generator), labels)["accuracy"],
        "original": _shown(pictures[:6]),
        "reconstruction": _shown(again[:6]),
        "latent": latents[:6].numpy(),
        "noised_t": times.numpy(),
        "noised": noised.numpy(),
        "noised_picture": _shown(autoencoder.decode(noised / scale)),
    }


@experiment
def training(
    judge_steps: int = 300,
    autoencoder_steps: int = 1000,
    unet_steps: int = 1500,
    seeds: Sequence[int] = (0, 1, 2),
    scales: Sequence[float] = _SCALES,
    counts: Sequence[int] = (2, 5, 10, 25),
    pictures: int = 480,
    repeats: int = 2,
    sampling_steps: int = 25,
) -> dict[str, Any]:
    """A text-conditioned latent diffusion model in small, its samples judged by a separate classifier.

    Judge and autoencoder see all 48 captions' pictures; text encoder and UNet see none of blue circles and
    yellow triangles ("new"). Sampling: DDIM. accuracy: share of pictures whose color, shape and place
    are all read as asked; form: IoU of what is colored with the ideal shape of the same area and center;
    clipped: share of values beyond -1 to 1; gray_spread: standard deviation of the gray behind the shapes.
    scale, latent_spread (of the unscaled latents), posterior_spread, psnr (dB), real_accuracy, real_form,
    real_gray_spread, kept_accuracy, kept_form (of reconstructions), degraded_accuracy (under blur and noise).
    scale_rows: scale, accuracy, form, clipped, gray_spread and new_accuracy, ... (means over the seeds), each
    with *_spread (standard deviation), and gray_kept (gray_spread over real_gray_spread).
    <key>_<scale>: as single values, 7.5 written 7_5. best_<key>: of the
    scale with the best accuracy. grid (scales, prompts, H, W, 3), prompts (the last two are new). odd (scales,
    6, H, W, 3): the worst forms of the first seed.
    step_rows: steps, ddim_accuracy, ddim_form, ddpm_accuracy (eta 1), ... at scale `usual`;
    steps_<steps>_<key>: as single values.
    mistake_rows: mistake, accuracy, form, clipped, gray_spread, changed (mean absolute difference from the right
    picture); <mistake>_<key>: as single values, the right one among them. mistake_names, mistake_pictures.
    original, latent, reconstruction (arrays, 6 pictures); noised_t, noised, noised_picture: one picture's scaled latents
    under noise; way_t, way_latent, way_noisy, way_guess, way_prompt: one picture as it is sampled.
    loss (array, means of 10 steps), first_loss, last_loss (means of 50), judge_parameters, autoencoder_parameters,
    prompted_parameters, judge_steps, autoencoder_steps, unet_steps, sampling_steps, seeds, pictures, known,
    new (samples a seed), usual, chance, gap (between sampling steps).
    """
    torch.set_num_threads(1)
    judge = _train_judge(judge_steps)
    autoencoder = _train_autoencoder(autoencoder_steps)
    result = _reconstructions(autoencoder, judge, pictures)
    prompted, losses = _train_prompted(autoencoder, torch.tensor(result["scale"]), unet_steps)
    generator = _Generator(autoencoder, prompted, torch.tensor(result["scale"]), sampling_steps)
    result |= _by_scale(generator, judge, scales, seeds, repeats, result["real_gray_spread"])
    result |= _by_steps(generator, judge, counts, seeds[:2], _USUAL)
    result |= _wrong_samplers(generator, judge, _USUAL)
    result |= _way(generator, _PROMPTS[0], _USUAL)
    result |= {
        "loss": np.array(losses[: len(losses) // 10 * 10]).reshape(-1, 10).mean(1),
        "first_loss": fmean(losses[:50]),
        "last_loss": fmean(losses[-50:]),
        "judge_steps": judge_steps,
        "autoencoder_steps": autoencoder_steps,
        "unet_steps": unet_steps,
        "sampling_steps": sampling_steps,
        "seeds": len(seeds),
        "pictures": pictures,
        "known": len(_labels(held_out=False)),
        "new": repeats * len(_labels(held_out=True)),
        "usual": _USUAL,
        "chance": 1 / len(_labels()),
        "gap": _T // sampling_steps,
        "weights": {},
    }
    for name, part in {"judge": judge, "autoencoder": autoencoder, "prompted": prompted}.items():
        result[f"{name}_parameters"] = sum(p.numel() for p in part.parameters())
        result["weights"] |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
    return result


def _operations(model: nn.Module, *inputs: Tensor) -> dict[str, float]:
    """Multiply-adds of one forward pass on shapes alone; `attention`: the products with scores and weights."""
    shapes = copy.deepcopy(model).to("meta")  # where attention is counted, and nothing is computed
    with FlopCounterMode(display=False) as counter:
        shapes(*(x.to("meta") for x in inputs))
    counts = {str(op): count / 2 for op, count in counter.get_flop_counts()["Global"].items()}
    attention = sum(count for op, count in counts.items() if "bmm" in op or "attention" in op)
    return {"all": sum(counts.values()), "attention": attention}


@experiment
def cost(picture: int = 512, repeats: int = 15) -> dict[str, Any]:
    """What one call of the UNet costs on latents of a picture and on its pixels.

    The UNet with Stable Diffusion 1's widths, blocks and places of self-attention, counted without being run.
    rows: factor (f of the autoencoder; 1: pixels), side, values (numbers per picture), operations, attention
    (multiply-adds, the latter those of scores and weighted sums), share (attention over all), ratio (to f = 8),
    scores_gigabytes (the largest layer's attention scores in half precision). <key>_<factor>: as single values.
    parameters. decoder_operations: of one AutoencoderKL of width 512 at f = 8.
    toy_ratio: of the trained UNet's operations on 32 x 32 x 3 to those on 8 x 8 x 4; time_ratio, time_low,
    time_high: the same in time, median and quartiles over alternating runs. repeats, picture.
    """
    widths, heads = (320, 640, 1280, 1280), 8
    result: dict[str, Any] = {"rows": [], "picture": picture, "repeats": repeats}
    with torch.device("meta"):
        step, words = torch.zeros(1, dtype=torch.long), torch.zeros(1, 77, 768)
        for factor in (8, 4, 2, 1):
            side, channels = picture // factor, 4 if factor > 1 else 3
            unet = UNet(channels, widths, 768, heads, 2, (True, True, True, False))
            counted = _operations(unet, torch.zeros(1, channels, side, side), step, words)
            row: dict[str, Any] = {"factor": factor, "side": side, "values": channels * side**2}
            row |= {"operations": counted["all"], "attention": counted["attention"]}
            row["share"] = counted["attention"] / counted["all"]
            row["ratio"] = counted["all"] / (result["rows"] or [row])[0]["operations"]
            row["scores_gigabytes"] = 2 * heads * side**4 / 1e9
            result["rows"].append(row)
            result |= {f"{key}_{factor}": value for key, value in row.items() if key != "factor"}
            if factor == 8:
                result["parameters"] = sum(p.numel() for p in unet.parameters())
        decoder = AutoencoderKL(width=512, factor=8).decoder
        side = picture // 8
        result["decoder_operations"] = _operations(decoder, torch.zeros(1, 4, side, side))["all"]
    step, words = torch.zeros(8, dtype=torch.long), torch.zeros(8, 7, 48)
    small, large = (UNet(channels, (32, 64), 48).eval() for channels in (4, 3))
    inputs = {"latents": (small, torch.zeros(8, 4, 8, 8)), "pixels": (large, torch.zeros(8, 3, 32, 32))}
    operations = {name: _operations(net, x, step, words)["all"] for name, (net, x) in inputs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in inputs}
    with torch.no_grad():
        for repeat in range(repeats + 2):
            for name, (net, x) in inputs.items():
                start = time.perf_counter()
                net(x, step, words)
                if repeat >= 2:
                    seconds[name].append(time.perf_counter() - start)
    ratios = np.array(seconds["pixels"]) / np.array(seconds["latents"])
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return result | {
        "toy_ratio": operations["pixels"] / operations["latents"],
        "time_ratio": float(middle),
        "time_low": float(low),
        "time_high": float(high),
    }


def _ancestral(guarded: bool, steps: int, samples: int) -> float:
    """Standard deviation after sampling data that are all 0, with the exact noise and variance beta."""
    betas, generator = scaled_linear_betas(steps), torch.Generator().manual_seed(51)
    levels, x = _levels(betas), _normal((samples,), generator)
    for t in reversed(range(steps)):
        x = ddpm_step(x, x / (1 - levels[t]).sqrt(), t, betas, generator, "beta")
        if t == 0 and not guarded:
            x = x + betas[0].sqrt() * _normal((samples,), generator)
    return float(x.std())


def _ripple(layer: nn.Module) -> float:
    """Largest over smallest output of a layer with equal weights for a constant picture, far from its edges."""
    for parameter in layer.parameters():
        nn.init.constant_(parameter, float(parameter.ndim > 1))
    with torch.no_grad():
        out = layer(torch.ones(1, 1, 12, 12))[..., 6:-6, 6:-6]
    return float(out.max() / out.min())


@experiment
def published_mistakes(samples: int = 20000) -> dict[str, Any]:
    """Mistakes whose effect follows without a trained model, as code beside the right one.

    rows: mistake, measure, wrong, right. <mistake>_wrong, <mistake>_right: as single values.
    latent_side: H f for H / f. guidance_scale: what 7.5 means if taken for w. unscaled_snr: SNR at the last step for
    latents not multiplied by 0.18215. linear_half: the step from which noise is stronger, with linear for
    scaled-linear betas of the same ends. noise_at_zero: standard deviation left in data that are all equal.
    shifted_snr: SNR at the first step if a 1-based formula reads a 0-based table, t - 1 for t (here: data
    without any noise). half_precision: noise at the first step if 1 - a is computed in bfloat16.
    checkerboard: largest over smallest output for a constant picture, transposed 3 x 3 convolution of stride
    2 against nearest and 3 x 3; checkerboard_four_right: the transposed one with a 4 x 4 kernel. sums: of the weights of
    cond and uncond, if (1 + s) goes with (1 - s). samples.
    """
    levels, same_ends = _levels(), _levels(linear_betas(_T, 0.00085, 0.012))
    snr = levels / (1 - levels)
    one, zero = torch.ones(1), torch.zeros(1)
    s = 7.5
    rounded = levels[:1].to(torch.bfloat16)
    x0 = torch.zeros(samples, dtype=torch.bfloat16)
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(52)).to(torch.bfloat16)
    wrong_noise = rounded.sqrt() * x0 + (1 - rounded).sqrt() * noise
    transposed = nn.ConvTranspose2d(1, 1, 3, stride=2, padding=1, output_padding=1)
    found: dict[str, tuple[str, float, float]] = {
        "latent_side": ("side", 512 * 8, 512 / 8),
        "guidance_scale": ("scale", float((1 + s) * one - s * zero), float(guided_noise(one, zero, s))),
        "weights_sum": ("sum", float((1 + s) * one + (1 - s) * one), float(guided_noise(one, one, s))),
        "unscaled": ("last_snr", float(snr[-1]) / 0.18215**2, float(snr[-1])),
        "linear_betas": ("half", int((same_ends < 0.5).nonzero()[0]), int((levels < 0.5).nonzero()[0])),
        "noise_at_zero": ("spread_left", _ancestral(False, _T, samples), _ancestral(True, _T, samples)),
        "half_precision": (
            "noise_at_first",
            float(wrong_noise.float().std()),
            float(add_noise(x0, noise, 0, levels).float().std()),
        ),
        "checkerboard": ("ripple", _ripple(transposed), _ripple(Upsample(1, 1))),
    }
    result: dict[str, Any] = {"samples": samples}
    result["checkerboard_four_right"] = _ripple(nn.ConvTranspose2d(1, 1, 4, stride=2, padding=1))
    result["rows"] = [
        {"mistake": name, "measure": measure, "wrong": wrong, "right": right}
        for name, (measure, wrong, right) in found.items()
    ]
    for name, (_, wrong, right) in found.items():
        result |= {f"{name}_wrong": wrong, f"{name}_right": right}
    return result
