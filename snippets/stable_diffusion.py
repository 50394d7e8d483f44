"""Stable Diffusion: schedules, samplers, guidance, autoencoder, UNet, training."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _check_range(steps: int, start: float, end: float) -> None:
    if steps < 1 or not 0 < start <= end < 1:
        raise ValueError(
            "expected steps >= 1 and 0 < start <= end < 1, "
            f"got steps {steps}, start {start}, end {end}"
        )


def linear_betas(steps: int, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """Variances of the noise added at each step, on a straight line (DDPM).

    Gives (steps,) float32. The share of the variance that is still the picture's after
    step t is (1 - betas).cumprod(0)[t], the `alphas_cumprod` of the other functions.
    Raises ValueError unless steps >= 1 and 0 < start <= end < 1.
    Source: Ho et al. 2020, section 4.

    Example:
        >>> betas = linear_betas(1000)
        >>> (1 - betas).cumprod(0)[-1].sqrt()
        tensor(0.0064)
    """
    _check_range(steps, start, end)
    return torch.linspace(start, end, steps, dtype=torch.float64).float()


def scaled_linear_betas(
    steps: int, start: float = 0.00085, end: float = 0.012
) -> Tensor:
    """Betas whose *square roots* lie on a straight line: Stable Diffusion's schedule.

    Gives (steps,) float32; `start` and `end` are the first and last beta themselves.
    Raises ValueError unless steps >= 1 and 0 < start <= end < 1.
    Source: CompVis/latent-diffusion, make_beta_schedule("linear").

    Example:
        >>> scaled_linear_betas(3, start=0.01, end=0.09)  # roots 0.1, 0.2, 0.3
        tensor([0.0100, 0.0400, 0.0900])
    """
    _check_range(steps, start, end)
    root = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64)
    return root.square().float()


def cosine_betas(
    steps: int, offset: float = 0.008, max_beta: float = 0.999
) -> Tensor:
    """Betas for which alphas_cumprod follows a squared cosine from 1 to 0.

    With f(u) = cos^2((u + offset) / (1 + offset) * pi / 2), beta_t is
    1 - f((t + 1) / steps) / f(t / steps), at most `max_beta`. Gives (steps,) float32.
    Raises ValueError unless steps >= 1, offset >= 0 and 0 < max_beta < 1.
    Source: Nichol & Dhariwal 2021, equation 17.

    Example:
        >>> cosine_betas(4)
        tensor([0.1530, 0.4170, 0.7079, 0.9990])
    """
    if steps < 1 or offset < 0 or not 0 < max_beta < 1:
        raise ValueError(
            "expected steps >= 1, offset >= 0 and 0 < max_beta < 1, "
            f"got {steps}, {offset} and {max_beta}"
        )
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    level = ((u + offset) / (1 + offset) * math.pi / 2).cos().square()
    return (1 - level[1:] / level[:-1]).clamp(max=max_beta).float()


def _level(alphas_cumprod: Tensor, t: Tensor | int, x: Tensor) -> Tensor:
    """alphas_cumprod[t] in float64, shaped to multiply x; 1, clean data, at t = -1."""
    if alphas_cumprod.ndim != 1:
        raise ValueError(
            f"expected a schedule (T,), got {tuple(alphas_cumprod.shape)}"
        )
    t = torch.as_tensor(t)
    whole = not t.is_floating_point() and t.dtype != torch.bool
    if not whole or t.shape not in ((), x.shape[:1]):
        raise ValueError(
            f"expected an integer t, one or (B,) for x {tuple(x.shape)}, "
            f"got {tuple(t.shape)} of {t.dtype}"
        )
    last = len(alphas_cumprod) - 1
    if t.numel() and not -1 <= t.min() <= t.max() <= last:
        raise ValueError(f"t must lie in 0 to {last}, got {t.min()} to {t.max()}")
    # Clean data go last, where the index -1 finds them.
    level = F.pad(alphas_cumprod.double(), (0, 1), value=1.0)
    level = level[t.to(level.device)].to(x.device)
    return level.reshape(level.shape + (1,) * (x.ndim - level.ndim))


def _mix(a: Tensor, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """a x + b y, in the dtype of x. Factors are rounded last, not before 1 - level."""
    if x.shape != y.shape:
        raise ValueError(f"expected one shape, got {tuple(x.shape)}, {tuple(y.shape)}")
    return a.to(x.dtype) * x + b.to(x.dtype) * y


def _noise_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    device = x.device if generator is None else generator.device
    noise = torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype)
    return noise.to(x.device)


def add_noise(
    x0: Tensor, noise: Tensor, t: Tensor | int, alphas_cumprod: Tensor
) -> Tensor:
    """Jump to step t at once: sqrt(a_t) x0 + sqrt(1 - a_t) noise, a = alphas_cumprod.

    x0 and noise (B, ...), t an integer or (B,) of them from 0 to T - 1, alphas_cumprod
    (T,). At t = 0 the first step's noise is in already; t = -1 gives x0. Raises
    ValueError for different shapes, a t of another shape or dtype, or out of range.
    Source: Ho et al. 2020, equation 4.

    Example:
        >>> x0, noise = torch.ones(2, 1), torch.zeros(2, 1)
        >>> alphas_cumprod = torch.tensor([0.81, 0.25])
        >>> add_noise(x0, noise, torch.tensor([0, 1]), alphas_cumprod)
        tensor([[0.9000],
                [0.5000]])
    """
    a = _level(alphas_cumprod, t, x0)
    return _mix(a.sqrt(), x0, (1 - a).sqrt(), noise)


def predict_x0(
    x_t: Tensor, noise: Tensor, t: Tensor | int, alphas_cumprod: Tensor
) -> Tensor:
    """The clean data that x_t would come from if `noise` were the noise within.

    (x_t - sqrt(1 - a_t) noise) / sqrt(a_t), the inverse of `add_noise`; not finite
    where a_t is 0. Arguments and errors as there.
    Source: Ho et al. 2020, equation 15.

    Example:
        >>> alphas_cumprod = torch.tensor([0.25])
        >>> predict_x0(torch.tensor([[1.5]]), torch.tensor([[0.0]]), 0, alphas_cumprod)
        tensor([[3.]])
    """
    a = _level(alphas_cumprod, t, x_t)
    return _mix(a.rsqrt(), x_t, -((1 - a) / a).sqrt(), noise)


def velocity(
    x0: Tensor, noise: Tensor, t: Tensor | int, alphas_cumprod: Tensor
) -> Tensor:
    """What v-prediction predicts: sqrt(a_t) noise - sqrt(1 - a_t) x0.

    Arguments and errors as for `add_noise`. Noise at t of little noise, -x0 at t of
    little signal; `from_velocity` is the way back.
    Source: Salimans & Ho 2022, section 4 and appendix D.

    Example:
        >>> alphas_cumprod = torch.tensor([1.0, 0.36, 0.0])
        >>> x0, noise = torch.full((3, 1), 5.0), torch.full((3, 1), 10.0)
        >>> velocity(x0, noise, torch.arange(3), alphas_cumprod).flatten()
        tensor([10.,  2., -5.])
    """
    a = _level(alphas_cumprod, t, x0)
    return _mix(-(1 - a).sqrt(), x0, a.sqrt(), noise)


def from_velocity(
    x_t: Tensor, v: Tensor, t: Tensor | int, alphas_cumprod: Tensor
) -> tuple[Tensor, Tensor]:
    """Clean data and noise, read off x_t and the velocity v; finite even at a_t = 0.

    x0 = sqrt(a_t) x_t - sqrt(1 - a_t) v and noise = sqrt(1 - a_t) x_t + sqrt(a_t) v:
    a rotation back. Arguments and errors as for `add_noise`.
    Source: Salimans & Ho 2022, appendix D.

    Example:
        >>> alphas_cumprod = torch.tensor([0.36])
        >>> x_t, v = torch.tensor([[11.0]]), torch.tensor([[2.0]])
        >>> x0, noise = from_velocity(x_t, v, 0, alphas_cumprod)
        >>> round(x0.item(), 4), round(noise.item(), 4)
        (5.0, 10.0)
    """
    a = _level(alphas_cumprod, t, x_t)
    signal, spread = a.sqrt(), (1 - a).sqrt()
    return _mix(signal, x_t, -spread, v), _mix(spread, x_t, signal, v)


def ddpm_step(
    x_t: Tensor,
    noise_pred: Tensor,
    t: Tensor | int,
    betas: Tensor,
    generator: torch.Generator | None = None,
    variance: str = "posterior",
) -> Tensor:
    """Draw x_{t-1} from x_t and the noise predicted in it.

    x_t and noise_pred (B, ...), t an integer or (B,) of them, betas (T,). The mean is
    (x_t - beta_t / sqrt(1 - a_t) noise_pred) / sqrt(1 - beta_t); the variance is
    "posterior", beta_t (1 - a_{t-1}) / (1 - a_t), or "beta". At t = 0 no noise is
    added, whichever. Raises ValueError as `add_noise` does and for another variance.
    Source: Ho et al. 2020, algorithm 2 and section 3.2.

    Example:
        >>> x_t, noise = torch.tensor([[1.0]]), torch.tensor([[0.5]])
        >>> ddpm_step(x_t, noise, 0, torch.tensor([0.75, 0.75]))  # no noise is added
        tensor([[1.1340]])
    """
    if variance not in ("posterior", "beta"):
        raise ValueError(f'variance must be "posterior" or "beta", got {variance!r}')
    alphas_cumprod = (1 - betas.double()).cumprod(0)
    a, t = _level(alphas_cumprod, t, x_t), torch.as_tensor(t)
    before = _level(alphas_cumprod, t - 1, x_t)
    beta = 1 - a / before
    root = (1 - beta).rsqrt()
    mean = _mix(root, x_t, -root * beta * (1 - a).rsqrt(), noise_pred)
    if (t == 0).all():
        return mean
    spread = beta * (1 - before) / (1 - a) if variance == "posterior" else beta
    spread = torch.where(before == 1, 0.0, spread)
    return _mix(torch.ones_like(a), mean, spread.sqrt(), _noise_like(x_t, generator))


def ddim_step(
    x_t: Tensor,
    noise_pred: Tensor,
    t: Tensor | int,
    t_prev: Tensor | int,
    alphas_cumprod: Tensor,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Go from step t to t_prev, any distance at once.

    x_t and noise_pred (B, ...), t and t_prev integers or (B,) of them; t_prev = -1 is
    clean data. Estimates x0, then adds the same noise at the new level:
    sqrt(a') x0 + sqrt(1 - a' - s^2) noise_pred + s z, with a fresh z and
    s^2 = eta^2 (1 - a') / (1 - a) (1 - a / a'). eta 0 is deterministic, and t_prev > t
    runs it backwards; eta 1 for t_prev = t - 1 is `ddpm_step`. Raises ValueError as
    `add_noise` does and for an eta outside 0 to 1.
    Source: Song et al. 2021, equations 12 and 16.

    Example:
        >>> x_t, noise = torch.tensor([[1.0]]), torch.tensor([[0.5]])
        >>> ddim_step(x_t, noise, 1, -1, torch.tensor([0.5, 0.25]))  # x0 in one leap
        tensor([[1.1340]])
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in 0 to 1, got {eta}")
    a, to = _level(alphas_cumprod, t, x_t), _level(alphas_cumprod, t_prev, x_t)
    fresh = torch.zeros_like(a)  # s^2
    if eta > 0:
        fresh = eta**2 * (1 - to) / (1 - a) * (1 - a / to).clamp(min=0)
    ratio = (to / a).sqrt()
    kept = (1 - to - fresh).clamp(min=0).sqrt() - ratio * (1 - a).sqrt()
    mean = _mix(ratio, x_t, kept, noise_pred)
    if eta == 0:
        return mean
    return _mix(torch.ones_like(a), mean, fresh.sqrt(), _noise_like(x_t, generator))


def sampling_timesteps(
    steps: int, train_steps: int = 1000, spacing: str = "leading", offset: int = 1
) -> Tensor:
    """The steps a sampler visits, in its order, from noisy to clean.

    "leading": 0, r, 2r, ... with r = train_steps // steps, shifted by `offset`; the
    default is Stable Diffusion's 981, 961, ..., 1 for 50 steps, which never sees step
    999. "trailing" starts at the last step and disregards `offset`. Gives (steps,)
    int64. Raises ValueError for steps out of 1 to train_steps, an offset that leads out
    of the schedule, or another spacing.
    Source: Lin et al. 2024, table 2.

    Example:
        >>> sampling_timesteps(4)
        tensor([751, 501, 251,   1])
        >>> sampling_timesteps(4, spacing="trailing")
        tensor([999, 749, 499, 249])
    """
    if not 1 <= steps <= train_steps:
        raise ValueError(f"steps must lie in 1 to {train_steps}, got {steps}")
    if spacing == "trailing":
        parts = range(steps, 0, -1)
        return torch.tensor([round(part * train_steps / steps) - 1 for part in parts])
    if spacing != "leading":
        raise ValueError(f'spacing must be "leading" or "trailing", got {spacing!r}')
    t = torch.arange(steps - 1, -1, -1) * (train_steps // steps) + offset
    if t[-1] < 0 or t[0] >= train_steps:
        raise ValueError(
            f"offset {offset} leads out of 0 to {train_steps - 1}: {t[0]} to {t[-1]}"
        )
    return t


def guided_noise(cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: uncond + scale (cond - uncond).

    cond and uncond: the noise predicted with and without the prompt, one shape. scale 0
    is unconditional, 1 conditional, above 1 beyond: the w of Ho & Salimans is
    scale - 1. Raises ValueError for different shapes.
    Source: Ho & Salimans 2022, equation 6; the form in scale: Saharia et al. 2022,
    equation 2.

    Example:
        >>> guided_noise(torch.tensor([2.0]), torch.tensor([1.0]), scale=7.5)
        tensor([8.5000])
    """
    if cond.shape != uncond.shape:
        raise ValueError(
            f"expected one shape, got {tuple(cond.shape)} and {tuple(uncond.shape)}"
        )
    return torch.lerp(uncond, cond, scale)  # exact at 0 and 1, as the sum is not


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Cosines of t at dim / 2 frequencies from 1 down to nearly 1 / 10000, then sines.

    t (B,), integer or not; gives (B, dim) float32, with a zero at the end for an odd
    dim. Computed in float64, since angles go up to t. Raises ValueError for another
    shape or dim < 2.
    Source: openai/guided-diffusion, timestep_embedding: cosines first, frequency i is
    10000^(-2i / dim). Other code has sines first or the last frequency at 1 / 10000.

    Example:
        >>> timestep_embedding(torch.tensor([0, 1]), 4)
        tensor([[1.0000, 1.0000, 0.0000, 0.0000],
                [0.5403, 0.9999, 0.8415, 0.0100]])
    """
    if t.ndim != 1 or dim < 2:
        raise ValueError(f"expected t (B,), dim >= 2, got {tuple(t.shape)} and {dim}")
    half = dim // 2
    order = torch.arange(half, dtype=torch.float64, device=t.device)
    angle = t[:, None] * 10000.0 ** (-order / half)  # (B, dim // 2)
    code = torch.cat([angle.cos().float(), angle.sin().float()], 1)
    return F.pad(code, (0, dim % 2))


class DiagonalGaussian:
    """A normal distribution for each latent value, as the encoder gives it.

    moments (B, 2C, ...): the means, then the logarithms of the variances, which are
    clamped to -30 to 20. `sample(generator)` and `mode()` give (B, C, ...); `kl()`
    gives (B,), each picture's divergence from the standard normal in nats, summed over
    its values. Raises ValueError if the channels cannot be halved.
    Source: CompVis/latent-diffusion, DiagonalGaussianDistribution.

    Example:
        >>> moments = torch.zeros(1, 8, 4, 4)
        >>> gaussian = DiagonalGaussian(moments)
        >>> gaussian.mode().shape, gaussian.kl()
        (torch.Size([1, 4, 4, 4]), tensor([0.]))
    """

    def __init__(self, moments: Tensor) -> None:
        if moments.ndim < 2 or moments.shape[1] % 2:
            raise ValueError(f"expected (B, 2C, ...), got {tuple(moments.shape)}")
        self.mean, log_variance = moments.chunk(2, 1)
        self.log_variance = log_variance.clamp(-30.0, 20.0)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        spread = (0.5 * self.log_variance).exp()
        return self.mean + spread * _noise_like(self.mean, generator)

    def mode(self) -> Tensor:
        return self.mean

    def kl(self) -> Tensor:
        excess = self.log_variance.expm1() - self.log_variance
        return 0.5 * (self.mean.square() + excess).flatten(1).sum(1)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, channels), channels)


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    """A branch that ends in zeros starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _head(width: int, channels: int, zero: bool = False) -> nn.Sequential:
    last = nn.Conv2d(width, channels, 3, padding=1)
    return nn.Sequential(_norm(width), nn.SiLU(), _zero(last) if zero else last)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around which the input is added; the step goes in between.

    forward(x (B, in_channels, H, W), code (B, code_dim)) gives (B, out_channels, H, W).
    Without a code_dim there is no code: the autoencoder's block. The last convolution
    starts at zero. Raises ValueError for sizes below 1.
    Source: CompVis/latent-diffusion, ResBlock.

    Example:
        >>> import torch
        >>> block = ResidualBlock(32, 64, code_dim=128)
        >>> block(torch.randn(2, 32, 8, 8), torch.randn(2, 128)).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self, in_channels: int, out_channels: int, code_dim: int | None = None
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels, code_dim or 1) < 1:
            raise ValueError(
                "sizes must be at least 1, "
                f"got {in_channels}, {out_channels} and {code_dim}"
            )
        self.norm1, self.norm2 = _norm(in_channels), _norm(out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = _zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.code = nn.Linear(code_dim, out_channels) if code_dim else None
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        if (self.code is None) != (code is None):
            raise ValueError(f"a code goes with a code_dim, got code {code}")
        h = self.conv1(F.silu(self.norm1(x)))
        if self.code is not None and code is not None:
            h = h + self.code(F.silu(code))[..., None, None]
        h = F.silu(self.norm2(h))  # lets go of what it was made from
        out: Tensor = self.skip(x) + self.conv2(h)
        return out


class Upsample(nn.Module):
    """Doubles height and width: each pixel twice, then a 3 x 3 convolution.

    forward(x (B, in_channels, H, W)) gives (B, out_channels, 2H, 2W). A transposed
    convolution of stride 2 would cover pixels unequally.
    Source: CompVis/latent-diffusion, Upsample; Odena et al. 2016.

    Example:
        >>> import torch
        >>> Upsample(8, 4)(torch.randn(2, 8, 5, 7)).shape
        torch.Size([2, 4, 10, 14])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


def _fold(x: Tensor, factor: int) -> Tensor:
    """Pixels become channels, as in F.pixel_unshuffle, which fails for B = 0."""
    height, width = x.shape[2] // factor, x.shape[3] // factor
    x = x.unflatten(3, (width, factor)).unflatten(2, (height, factor))
    return x.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)  # (B, C f f, H / f, W / f)


class AutoencoderKL(nn.Module):
    """Pictures (B, C, H, W) to latents (B, latent_channels, H / factor, W / factor).

    `encode` gives a `DiagonalGaussian` over the latents, `decode` pictures. `factor` is
    a power of two; `width` the channels at the latents' size, halved at each doubling
    of the decoder; `blocks` the residual blocks at the latents' size. Small on purpose:
    pixels are folded into channels where the original has strided convolutions, and
    there is no attention. Raises ValueError for another factor, a width it cannot
    halve, or a picture that factor does not divide.
    Source: Rombach et al. 2022, section 3.1.

    Example:
        >>> autoencoder = AutoencoderKL(width=32, factor=8)
        >>> latents = autoencoder.encode(torch.randn(1, 3, 64, 64)).mode()
        >>> latents.shape, autoencoder.decode(latents).shape
        (torch.Size([1, 4, 8, 8]), torch.Size([1, 3, 64, 64]))
    """

    def __init__(
        self,
        channels: int = 3,
        latent_channels: int = 4,
        width: int = 96,
        factor: int = 4,
        blocks: int = 2,
    ) -> None:
        super().__init__()
        if factor < 1 or factor & (factor - 1) or width % factor:
            raise ValueError(
                "expected a factor that is a power of two and divides width, "
                f"got {factor} and {width}"
            )
        self.factor = factor
        self.encoder = nn.Sequential(
            nn.Conv2d(channels * factor**2, width, 3, padding=1),
            *(ResidualBlock(width, width) for _ in range(blocks)),
            _head(width, 2 * latent_channels),
        )
        layers: list[nn.Module] = [nn.Conv2d(latent_channels, width, 3, padding=1)]
        layers += [ResidualBlock(width, width) for _ in range(blocks)]
        while factor > 1:
            half = width // 2
            layers += [Upsample(width, half), ResidualBlock(half, half)]
            width, factor = half, factor // 2
        self.decoder = nn.Sequential(*layers, _head(width, channels))

    def encode(self, x: Tensor) -> DiagonalGaussian:
        if x.ndim != 4 or x.shape[2] % self.factor or x.shape[3] % self.factor:
            raise ValueError(
                f"expected (B, C, H, W) with H and W multiples of {self.factor}, "
                f"got {tuple(x.shape)}"
            )
        return DiagonalGaussian(self.encoder(_fold(x, self.factor)))

    def decode(self, z: Tensor) -> Tensor:
        out: Tensor = self.decoder(z)
        return out


def autoencoder_loss(
    autoencoder: AutoencoderKL,
    x: Tensor,
    kl_weight: float = 1e-6,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Absolute error of the reconstruction, plus a little of the divergence.

    x (B, C, H, W); gives a scalar, both terms summed over a picture and divided by its
    number of values. Stable Diffusion's has a perceptual and an adversarial term too,
    without which fine texture is blurred.
    Source: CompVis/latent-diffusion, LPIPSWithDiscriminator; Rombach et al. 2022,
    appendix G.

    Example:
        >>> autoencoder = AutoencoderKL(width=32)
        >>> autoencoder_loss(autoencoder, torch.zeros(2, 3, 16, 16)).ndim
        0
    """
    latents = autoencoder.encode(x)
    error = (autoencoder.decode(latents.sample(generator)) - x).abs().flatten(1).sum(1)
    return (error + kl_weight * latents.kl()).mean() / x[0].numel()


def latent_scale(latents: Tensor) -> Tensor:
    """The factor that gives latents unit variance: 1 / their standard deviation.

    latents: a first batch, any shape. Gives a scalar, Stable Diffusion's 0.18215.
    Multiply latents by it after encoding, divide by it before decoding: the schedule
    of noise presumes variance 1. Raises ValueError for fewer than two values.
    Source: Rombach et al. 2022, appendix G.

    Example:
        >>> import torch
        >>> latent_scale(torch.tensor([-4.0, 0.0, 4.0]))
        tensor(0.2500)
    """
    if latents.numel() < 2:
        raise ValueError(f"expected at least two values, got {tuple(latents.shape)}")
    return 1 / latents.std()


def _quick_gelu(x: Tensor) -> Tensor:
    return x * (1.702 * x).sigmoid()


class TextEncoder(nn.Module):
    """A causal Transformer that turns tokens into vectors, as CLIP's text half does.

    forward(tokens (B, L)) gives (B, L, dim), one vector per token: the UNet attends to
    all of them, not to a summary. L is at most `length`. Raises ValueError if heads
    does not divide dim, or for tokens of another shape or dtype.
    Source: Radford et al. 2021, section 2.4; in Stable Diffusion 1 length 77, dim 768,
    12 layers of 12 heads, taken from CLIP and never trained further.

    Example:
        >>> encoder = TextEncoder(vocab_size=20, dim=32, length=8, layers=2, heads=4)
        >>> encoder(torch.randint(0, 20, (3, 8))).shape
        torch.Size([3, 8, 32])
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        length: int = 77,
        layers: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads must divide dim, got dim {dim} and heads {heads}")
        self.tokens = nn.Embedding(vocab_size, dim)
        self.positions = nn.Parameter(0.02 * torch.randn(length, dim))
        layer = nn.TransformerEncoderLayer(
            dim, heads, 4 * dim, 0.0, _quick_gelu, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, layers, nn.LayerNorm(dim), enable_nested_tensor=False
        )

    def forward(self, tokens: Tensor) -> Tensor:
        longest = len(self.positions)
        if tokens.ndim != 2 or tokens.shape[1] > longest or tokens.is_floating_point():
            raise ValueError(
                f"expected integers (B, L), L at most {longest}, "
                f"got {tuple(tokens.shape)} of {tokens.dtype}"
            )
        length = tokens.shape[1]
        x = self.tokens(tokens) + self.positions[:length]
        # Here True means "may not attend": a token sees itself and those before it.
        mask = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        out: Tensor = self.layers(x, mask=mask)
        return out


class CrossAttention(nn.Module):
    """Each place of the picture takes what it needs from the words.

    forward(x (B, N, dim), context (B, L, context_dim)) gives (B, N, dim): queries from
    x, keys and values from the context. Without a context, x is its own:
    self-attention, for context_dim None or equal to dim. Raises ValueError if heads
    does not divide dim.
    Source: Rombach et al. 2022, section 3.3; no bias but the output's.

    Example:
        >>> import torch
        >>> attention = CrossAttention(dim=32, context_dim=16, heads=4)
        >>> attention(torch.randn(2, 64, 32), torch.randn(2, 5, 16)).shape
        torch.Size([2, 64, 32])
    """

    def __init__(self, dim: int, context_dim: int | None, heads: int) -> None:
        super().__init__()
        if dim < 1 or heads < 1 or dim % heads:
            raise ValueError(f"heads must divide dim, got dim {dim} and heads {heads}")
        context_dim = dim if context_dim is None else context_dim
        self.split = (heads, dim // heads)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(context_dim, dim, bias=False)
        self.value = nn.Linear(context_dim, dim, bias=False)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        # (B, N, dim) -> (B, heads, N, dim / heads)
        q = self.query(x).unflatten(-1, self.split).transpose(1, 2)
        k = self.key(context).unflatten(-1, self.split).transpose(1, 2)
        v = self.value(context).unflatten(-1, self.split).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return out


class SpatialTransformer(nn.Module):
    """Attention in a feature map: among its places, then to the words, then a GEGLU.

    forward(x (B, dim, H, W), context (B, L, context_dim)) gives (B, dim, H, W), the
    input added. self_attention=False leaves the first part out, the only one whose cost
    grows with (H W)^2. The output projection starts at zero. Raises ValueError if heads
    does not divide dim.
    Source: CompVis/latent-diffusion, SpatialTransformer; GEGLU: Shazeer 2020.

    Example:
        >>> import torch
        >>> layer = SpatialTransformer(dim=32, context_dim=16, heads=4)
        >>> layer(torch.randn(2, 32, 8, 8), torch.randn(2, 5, 16)).shape
        torch.Size([2, 32, 8, 8])
    """

    def __init__(
        self, dim: int, context_dim: int, heads: int, self_attention: bool = True
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(32, dim), dim, eps=1e-6)
        self.enter, self.leave = nn.Conv2d(dim, dim, 1), _zero(nn.Conv2d(dim, dim, 1))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.among = CrossAttention(dim, None, heads) if self_attention else None
        self.words = CrossAttention(dim, context_dim, heads)
        self.gate, self.down = nn.Linear(dim, 8 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.enter(self.norm(x)).flatten(2).transpose(1, 2)  # (B, H W, dim)
        if self.among is not None:
            h = h + self.among(self.norms[0](h))
        h = h + self.words(self.norms[1](h), context)
        value, gate = self.gate(self.norms[2](h)).chunk(2, -1)
        h = h + self.down(value * F.gelu(gate))
        out: Tensor = x + self.leave(h.transpose(1, 2).unflatten(2, x.shape[2:]))
        return out


class _Stage(nn.Module):
    """A residual block, then attention; what each level of the UNet repeats."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        code_dim: int,
        context_dim: int,
        heads: int,
        self_attention: bool,
    ) -> None:
        super().__init__()
        self.residual = ResidualBlock(in_channels, out_channels, code_dim)
        self.attention = SpatialTransformer(
            out_channels, context_dim, heads, self_attention
        )

    def forward(self, x: Tensor, code: Tensor, context: Tensor) -> Tensor:
        out: Tensor = self.attention(self.residual(x, code), context)
        return out


class _StepCode(nn.Module):
    """The step t as a vector that a small network has worked on."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.up, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, 4 * width)

    def forward(self, t: Tensor) -> Tensor:
        code = timestep_embedding(t, self.width).to(self.up.weight.dtype)
        out: Tensor = self.out(F.silu(self.up(code)))
        return out


def _run(layer: nn.Module, x: Tensor, code: Tensor, context: Tensor) -> Tensor:
    out: Tensor = layer(x, code, context) if isinstance(layer, _Stage) else layer(x)
    return out


class UNet(nn.Module):
    """Predicts the noise in latents x_t, told the step t and the words.

    forward(x (B, channels, H, W), t (B,), context (B, L, context_dim)) gives the shape
    of x. `widths`: channels of the levels, each half the size of the one before;
    `blocks`: stages of a level on the way down, one fewer than on the way up, where
    each map is joined in again; `self_attention`: levels whose places see each other.
    Raises ValueError if H or W cannot be halved that often.
    Source: CompVis/latent-diffusion, UNetModel.

    Example:
        >>> unet = UNet(channels=4, widths=(32, 64), context_dim=16)
        >>> unet(torch.zeros(1, 4, 8, 8), torch.tensor([9]), torch.ones(1, 5, 16)).shape
        torch.Size([1, 4, 8, 8])
    """

    def __init__(
        self,
        channels: int = 4,
        widths: Sequence[int] = (48, 96),
        context_dim: int = 64,
        heads: int = 4,
        blocks: int = 1,
        self_attention: Sequence[bool] = (False, True),
    ) -> None:
        super().__init__()
        width, self.multiple = widths[0], 2 ** (len(widths) - 1)
        rest = (4 * width, context_dim, heads)
        self.code = _StepCode(width)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.down, self.up, skips = nn.ModuleList(), nn.ModuleList(), [width]
        levels = list(enumerate(zip(widths, self_attention, strict=True)))
        for level, (out, attend) in levels:
            if level > 0:
                self.down.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skips.append(width)
            for _ in range(blocks):
                self.down.append(_Stage(width, out, *rest, attend))
                skips.append(width := out)
        self.middle = _Stage(width, width, *rest, attend)
        self.after = ResidualBlock(width, width, rest[0])
        for level, (out, attend) in reversed(levels):
            for _ in range(blocks + 1):
                self.up.append(_Stage(width + skips.pop(), out, *rest, attend))
                width = out
            if level > 0:
                self.up.append(Upsample(width, width))
        self.head = _head(width, channels, zero=True)

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        if x.shape[2] % self.multiple or x.shape[3] % self.multiple:
            raise ValueError(f"expected multiples of {self.multiple}, got {x.shape}")
        code, skips = self.code(t), [self.first(x)]
        for layer in self.down:
            skips.append(_run(layer, skips[-1], code, context))
        x = self.after(self.middle(skips[-1], code, context), code)
        for layer in self.up:
            if isinstance(layer, _Stage):
                x = torch.cat([x, skips.pop()], 1)
            x = _run(layer, x, code, context)
        out: Tensor = self.head(x)
        return out


def _check_context(context: Tensor, null_context: Tensor) -> None:
    fits = null_context.shape[1:] == context.shape[1:]
    if context.ndim != 3 or not fits or len(null_context) not in (1, len(context)):
        raise ValueError(
            "expected context (B, L, D) and null_context (1, L, D), "
            f"got {tuple(context.shape)} and {tuple(null_context.shape)}"
        )


def diffusion_loss(
    model: Callable[[Tensor, Tensor, Tensor], Tensor],
    x0: Tensor,
    context: Tensor,
    alphas_cumprod: Tensor,
    null_context: Tensor | None = None,
    drop: float = 0.1,
    prediction: str = "noise",
    generator: torch.Generator | None = None,
) -> Tensor:
    """One training step's loss: noise at random steps, predicted, squared error.

    model(x_t, t, context) predicts; x0 (B, ...) are the scaled latents, context
    (B, L, D) the encoded prompts. Each is replaced by null_context, the encoded empty
    prompt (1, L, D), with probability `drop`; without a null_context none is.
    prediction is "noise" or "velocity". Gives a scalar, the mean over all values.
    Raises ValueError for a drop outside 0 to 1, another prediction, or a null_context
    that does not fit.
    Source: Ho et al. 2020, equation 14; drop: Ho & Salimans 2022, algorithm 1.

    Example:
        >>> x0, context = torch.zeros(8, 4, 8, 8), torch.zeros(8, 5, 16)
        >>> alphas_cumprod = torch.linspace(0.99, 0.01, 100)
        >>> untrained = lambda x_t, t, words: torch.zeros_like(x_t)
        >>> loss = diffusion_loss(untrained, x0, context, alphas_cumprod)
        >>> 0.8 < loss.item() < 1.2  # the noise's variance
        True
    """
    if prediction not in ("noise", "velocity") or not 0 <= drop <= 1:
        raise ValueError(
            'expected prediction "noise" or "velocity" and drop in 0 to 1, '
            f"got {prediction!r} and {drop}"
        )
    device = x0.device if generator is None else generator.device
    batch, last = len(x0), len(alphas_cumprod)
    t = torch.randint(last, (batch,), generator=generator, device=device).to(x0.device)
    noise = _noise_like(x0, generator)
    if null_context is not None:
        _check_context(context, null_context)
        gone = torch.rand(batch, generator=generator, device=device) < drop
        gone = gone.to(context.device)
        context = torch.where(gone[:, None, None], null_context, context)
    target = noise
    if prediction == "velocity":
        target = velocity(x0, noise, t, alphas_cumprod)
    predicted = model(add_noise(x0, noise, t, alphas_cumprod), t, context)
    return F.mse_loss(predicted, target)


def sample(
    model: Callable[[Tensor, Tensor, Tensor], Tensor],
    context: Tensor,
    null_context: Tensor,
    shape: Sequence[int],
    alphas_cumprod: Tensor,
    guidance: float = 7.5,
    steps: int = 50,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    x_t: Tensor | None = None,
) -> Tensor:
    """Draw latents that fit the prompts: DDIM with classifier-free guidance.

    model(x_t, t, context) predicts the noise; context (B, L, D) are the encoded
    prompts, null_context (1, L, D) the empty one (or B of them, negative prompts);
    shape is that of one picture's latents, say (4, 64, 64). Starts from x_t (B, *shape)
    or, without one, from noise. Gives scaled latents: divide by the scale, then decode.
    Raises ValueError as `sampling_timesteps` and `ddim_step` do, and for a null_context
    that does not fit.
    Source: Rombach et al. 2022, section 3.3; Ho & Salimans 2022, algorithm 2.

    Example:
        >>> words, nothing = torch.randn(2, 5, 16), torch.zeros(1, 5, 16)
        >>> untrained, levels = lambda x, t, words: x, torch.linspace(0.99, 0.01, 100)
        >>> sample(untrained, words, nothing, (4, 8, 8), levels, steps=2).shape
        torch.Size([2, 4, 8, 8])
    """
    _check_context(context, null_context)
    batch = len(context)
    if x_t is None:
        x_t = _noise_like(context.new_empty(batch, *shape), generator)
    both = torch.cat([null_context.expand_as(context), context])
    times = sampling_timesteps(steps, len(alphas_cumprod)).tolist()
    with torch.no_grad():
        for t, t_prev in pairwise([*times, -1]):
            step = torch.full((2 * batch,), t, device=x_t.device)
            # One call for both: without the prompt and with it.
            uncond, cond = model(torch.cat([x_t, x_t]), step, both).chunk(2)
            noise = guided_noise(cond, uncond, guidance)
            x_t = ddim_step(x_t, noise, t, t_prev, alphas_cumprod, eta, generator)
    return x_t


def ema_update(average: nn.Module, model: nn.Module, decay: float = 0.999) -> None:
    """Move the averaged weights a little towards the model's; sample from the average.

    average: a deep copy of the model, changed in place: decay * average + (1 - decay) *
    model for parameters and floating-point buffers, a copy of other buffers. Raises
    ValueError for a decay outside 0 to 1.
    Source: Ho et al. 2020, appendix B (decay 0.9999).

    Example:
        >>> average, model = nn.Linear(1, 1), nn.Linear(1, 1)
        >>> for layer, value in ((average, 0.0), (model, 1.0)):
        ...     _ = nn.init.constant_(layer.weight, value)
        >>> ema_update(average, model, decay=0.75)
        >>> average.weight.item()
        0.25
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must lie in 0 to 1, got {decay}")
    state = model.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(state[name], 1 - decay)
        else:
            value.copy_(state[name])


def zero_terminal_snr(betas: Tensor) -> Tensor:
    """Change a schedule so that its last step is pure noise.

    betas (T,), T >= 2; gives (T,) of the same dtype. sqrt(alphas_cumprod) is shifted
    and stretched so that its last value is 0 and its first stays; the last beta is 1.
    Raises ValueError for another shape or betas outside 0 to 1.
    Source: Lin et al. 2024, algorithm 1.

    Example:
        >>> import torch
        >>> betas = zero_terminal_snr(torch.linspace(1e-4, 0.02, 1000))
        >>> (1 - betas).cumprod(0)[-1]
        tensor(0.)
    """
    if betas.ndim != 1 or len(betas) < 2 or not ((betas > 0) & (betas < 1)).all():
        raise ValueError(f"expected (T,) betas in 0 to 1, T >= 2, got {betas}")
    root = (1 - betas.double()).cumprod(0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    level = F.pad(root.square(), (1, 0), value=1.0)
    return (1 - level[1:] / level[:-1]).to(betas.dtype)


def as_noise_model(
    model: Callable[[Tensor, Tensor, Tensor], Tensor], alphas_cumprod: Tensor
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A model of the velocity, called as a model of the noise, so that `sample` fits.

    The change is linear in the velocity, hence guidance may come before or after it.
    At alphas_cumprod = 0 the noise is x_t itself and says nothing about x0.
    Source: Salimans & Ho 2022, appendix D.

    Example:
        >>> model = as_noise_model(lambda x, t, words: 0 * x, torch.tensor([0.36]))
        >>> model(torch.tensor([[1.0]]), torch.tensor([0]), torch.zeros(1, 1, 1))
        tensor([[0.8000]])
    """

    def noise(x_t: Tensor, t: Tensor, context: Tensor) -> Tensor:
        return from_velocity(x_t, model(x_t, t, context), t, alphas_cumprod)[1]

    return noise


def rescaled_guidance(
    cond: Tensor, uncond: Tensor, scale: float, rescale: float = 0.7
) -> Tensor:
    """Guidance whose result keeps the standard deviation of `cond`, by a share.

    cond, uncond (B, ...); scale as in `guided_noise`; rescale 0 is that function, 1
    gives each picture's prediction the standard deviation of its `cond`. Raises
    ValueError for different shapes or a rescale outside 0 to 1.
    Source: Lin et al. 2024, section 3.4 (rescale 0.7 with scale 7.5).

    Example:
        >>> cond, uncond = torch.tensor([[0.0, 4.0]]), torch.tensor([[1.0, 1.0]])
        >>> rescaled_guidance(cond, uncond, scale=2.0, rescale=1.0)
        tensor([[-0.5000,  3.5000]])
    """
    if not 0 <= rescale <= 1:
        raise ValueError(f"rescale must lie in 0 to 1, got {rescale}")
    guided = guided_noise(cond, uncond, scale)
    axes = tuple(range(1, cond.ndim))
    ratio = cond.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
    return guided * (1 + rescale * (ratio - 1))


def min_snr_weight(
    t: Tensor, alphas_cumprod: Tensor, gamma: float = 5.0, prediction: str = "noise"
) -> Tensor:
    """Weights of the steps in the loss that stop at an SNR of gamma.

    t (B,) integers; gives (B,) in the schedule's dtype. SNR = a_t / (1 - a_t); the
    weight is min(SNR, gamma) / SNR for "noise", min(SNR, gamma) / (SNR + 1) for
    "velocity", either way min(SNR, gamma) for the error in x0. Raises ValueError as
    `add_noise` does, for gamma <= 0 and for another prediction.
    Source: Hang et al. 2023, section 3.4.

    Example:
        >>> min_snr_weight(torch.tensor([0, 1]), torch.tensor([0.9, 0.5]), gamma=3.0)
        tensor([0.3333, 1.0000])
    """
    if gamma <= 0 or prediction not in ("noise", "velocity"):
        raise ValueError(
            'expected gamma > 0 and prediction "noise" or "velocity", '
            f"got {gamma} and {prediction!r}"
        )
    a = _level(alphas_cumprod, t, t)
    # min(SNR, gamma) / SNR = min(1, gamma / SNR): no division by a zero SNR.
    noise = (gamma * (1 - a) / a).clamp(max=1)
    weight = noise if prediction == "noise" else noise * a
    return weight.to(alphas_cumprod.dtype)
