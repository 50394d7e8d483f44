"""Races of Stable Diffusion: schedules and steps on its latents, blocks at widths that a CPU still runs."""

from __future__ import annotations

import copy
from typing import Any

import diffusers
import torch
import transformers
from diffusers.models import attention_processor, embeddings, resnet, upsampling
from diffusers.models.autoencoders import vae
from diffusers.training_utils import compute_snr
from torch import Tensor, nn

from scripts.pipeline.benchmark import Start, race
from snippets import stable_diffusion as ours

STEPS = 1000
LATENTS = {"zh": "批量，每个潜变量 4 × 64 × 64", "en": "batch of latents, 4 × 64 × 64 each"}
SCHEDULE = {"zh": "扩散步数", "en": "diffusion steps"}
MAP = {"zh": "特征图 高 × 宽，通道 128，批量 2", "en": "feature map, H × W, 128 channels, batch of 2"}
SIZES = ((8, 8), (16, 16), (32, 32))

_FORM = "one line of arithmetic, which libraries have only inside a scheduler's step"
_WHOLE = "a whole network or loop, whose parts are raced"
UNRACED = {
    "linear_betas": "one call of torch.linspace",
    "scaled_linear_betas": "one call of torch.linspace, squared",
    "predict_x0": _FORM,
    "from_velocity": _FORM,
    "sampling_timesteps": "a few dozen integers",
    "guided_noise": "one line of arithmetic",
    "AutoencoderKL": _WHOLE,
    "autoencoder_loss": _WHOLE,
    "latent_scale": "one standard deviation",
    "UNet": _WHOLE,
    "diffusion_loss": _WHOLE,
    "sample": _WHOLE,
    "zero_terminal_snr": "a few operations on a thousand numbers",
    "as_noise_model": "wraps the reader's model",
    "rescaled_guidance": "no library offers it by itself",
}


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _alphas() -> Tensor:
    return torch.cumprod(1 - ours.scaled_linear_betas(STEPS), 0).float()


def _scheduler(kind: Any) -> Any:
    return kind(
        num_train_timesteps=STEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
    )


@race("stable_diffusion.cosine_betas", sizes=(1000, 4000, 16_000), exponent=1, shape=SCHEDULE)
def cosine_betas(steps: int) -> Start:
    return Start(
        lambda: ours.cosine_betas(steps),
        {
            "diffusers.DDPMScheduler": lambda: diffusers.DDPMScheduler(
                num_train_timesteps=steps, beta_schedule="squaredcos_cap_v2"
            ).betas
        },
    )


@race("stable_diffusion.add_noise", sizes=(1, 8, 64), exponent=1, shape=LATENTS)
def add_noise(batch: int) -> Start:
    x, noise = _normal(batch, 4, 64, 64), _normal(batch, 4, 64, 64, seed=1)
    t, alphas = torch.arange(batch) * 10, _alphas()
    scheduler = _scheduler(diffusers.DDPMScheduler)
    return Start(
        lambda: ours.add_noise(x, noise, t, alphas),
        {"diffusers.DDPMScheduler.add_noise": lambda: scheduler.add_noise(x, noise, t)},
    )


@race("stable_diffusion.velocity", sizes=(1, 8, 64), exponent=1, shape=LATENTS)
def velocity(batch: int) -> Start:
    x, noise = _normal(batch, 4, 64, 64), _normal(batch, 4, 64, 64, seed=1)
    t, alphas = torch.arange(batch) * 10, _alphas()
    scheduler = _scheduler(diffusers.DDPMScheduler)
    return Start(
        lambda: ours.velocity(x, noise, t, alphas),
        {"diffusers.DDPMScheduler.get_velocity": lambda: scheduler.get_velocity(x, noise, t)},
    )


@race("stable_diffusion.ddpm_step", sizes=(1, 8, 64), exponent=1, shape=LATENTS)
def ddpm_step(batch: int) -> Start:
    x, noise = _normal(batch, 4, 64, 64), _normal(batch, 4, 64, 64, seed=1)
    betas, scheduler = ours.scaled_linear_betas(STEPS), _scheduler(diffusers.DDPMScheduler)
    return Start(
        lambda: ours.ddpm_step(x, noise, 500, betas),
        {"diffusers.DDPMScheduler.step": lambda: scheduler.step(noise, 500, x).prev_sample},
    )


@race("stable_diffusion.ddim_step", sizes=(1, 8, 64), exponent=1, shape=LATENTS)
def ddim_step(batch: int) -> Start:
    x, noise = _normal(batch, 4, 64, 64), _normal(batch, 4, 64, 64, seed=1)
    alphas, scheduler = _alphas(), _scheduler(diffusers.DDIMScheduler)
    scheduler.set_timesteps(50)
    return Start(
        lambda: ours.ddim_step(x, noise, 500, 480, alphas),
        {"diffusers.DDIMScheduler.step": lambda: scheduler.step(noise, 500, x).prev_sample},
    )


@race(
    "stable_diffusion.timestep_embedding",
    sizes=(16, 256, 4096),
    exponent=1,
    shape={"zh": "时间步的个数，320 维", "en": "steps at once, 320 wide"},
)
def timestep_embedding(count: int) -> Start:
    t = torch.arange(count)
    return Start(
        lambda: ours.timestep_embedding(t, 320),
        {
            "diffusers.models.embeddings.get_timestep_embedding": lambda: embeddings.get_timestep_embedding(
                t, 320, flip_sin_to_cos=True, downscale_freq_shift=0
            )
        },
    )


@race("stable_diffusion.DiagonalGaussian", sizes=(1, 8, 64), exponent=1, shape=LATENTS)
def diagonal_gaussian(batch: int) -> Start:
    moments = _normal(batch, 8, 64, 64)

    def mine() -> tuple[Tensor, Tensor]:
        q = ours.DiagonalGaussian(moments)
        return q.sample(torch.Generator().manual_seed(0)), q.kl()

    def theirs() -> tuple[Tensor, Tensor]:
        q = vae.DiagonalGaussianDistribution(moments)
        return q.sample(torch.Generator().manual_seed(0)), q.kl()

    return Start(mine, {"diffusers.models.autoencoders.vae.DiagonalGaussianDistribution": theirs})


@race("stable_diffusion.ResidualBlock", sizes=SIZES, exponent=1, shape=MAP)
def residual_block(height: int, width: int) -> Start:
    x, code = _normal(2, 128, height, width), _normal(2, 512)
    block = ours.ResidualBlock(128, 128, 512).eval().requires_grad_(False)
    reference = resnet.ResnetBlock2D(in_channels=128, out_channels=128, temb_channels=512).eval().requires_grad_(False)
    return Start(
        lambda: block(x, code), {"diffusers.models.resnet.ResnetBlock2D": lambda: reference(x, code)}
    )


@race("stable_diffusion.Upsample", sizes=SIZES, exponent=1, shape=MAP)
def upsample(height: int, width: int) -> Start:
    x = _normal(2, 128, height, width)
    module = ours.Upsample(128, 128).eval().requires_grad_(False)
    reference = upsampling.Upsample2D(128, use_conv=True).eval().requires_grad_(False)
    return Start(lambda: module(x), {"diffusers.models.upsampling.Upsample2D": lambda: reference(x)})


@race(
    "stable_diffusion.TextEncoder",
    sizes=(1, 4, 16),
    exponent=1,
    shape={"zh": "提示词条数，77 个词元，256 维，2 层", "en": "prompts of 77 tokens, 256 wide, 2 layers"},
)
def text_encoder(batch: int) -> Start:
    tokens = torch.randint(1000, (batch, 77), generator=torch.Generator().manual_seed(0))
    module = ours.TextEncoder(1000, 256).eval().requires_grad_(False)
    config = transformers.CLIPTextConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=1024, num_hidden_layers=2, num_attention_heads=4
    )
    reference = transformers.CLIPTextModel(config).eval().requires_grad_(False)
    return Start(
        lambda: module(tokens),
        {"transformers.CLIPTextModel": lambda: reference(input_ids=tokens).last_hidden_state},
    )


@race(
    "stable_diffusion.CrossAttention",
    sizes=(64, 256, 1024),
    exponent=1,
    shape={"zh": "图上的位置数，对 77 个词元，256 维，批量 2", "en": "places, to 77 tokens, 256 wide, batch of 2"},
)
def cross_attention(places: int) -> Start:
    x, context = _normal(2, places, 256), _normal(2, 77, 256, seed=1)
    module = ours.CrossAttention(256, 256, 8).eval().requires_grad_(False)
    reference = attention_processor.Attention(256, cross_attention_dim=256, heads=8, dim_head=32)
    reference.eval().requires_grad_(False)
    return Start(
        lambda: module(x, context),
        {"diffusers.models.attention_processor.Attention": lambda: reference(x, context)},
    )


@race("stable_diffusion.SpatialTransformer", sizes=SIZES, exponent=1.5, shape=MAP)
def spatial_transformer(height: int, width: int) -> Start:
    x, context = _normal(2, 128, height, width), _normal(2, 77, 256, seed=1)
    module = ours.SpatialTransformer(128, 256, 8).eval().requires_grad_(False)
    reference = diffusers.Transformer2DModel(8, 16, in_channels=128, cross_attention_dim=256)
    reference.eval().requires_grad_(False)
    return Start(
        lambda: module(x, context),
        {"diffusers.Transformer2DModel": lambda: reference(x, encoder_hidden_states=context).sample},
    )


@race(
    "stable_diffusion.ema_update",
    sizes=((64, 64), (256, 256), (1024, 1024)),
    exponent=1,
    shape={"zh": "8 层线性层的宽度", "en": "width of 8 linear layers, squared"},
)
def ema_update(width: int, _: int) -> Start:
    model = nn.Sequential(*(nn.Linear(width, width) for _ in range(8))).requires_grad_(False)
    average = copy.deepcopy(model)
    reference = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999)
    )
    reference.update_parameters(model)  # the first call only copies
    return Start(
        lambda: ours.ema_update(average, model),
        {"torch.optim.swa_utils.AveragedModel": lambda: reference.update_parameters(model)},
    )


@race(
    "stable_diffusion.min_snr_weight",
    sizes=(64, 512, 4096),
    exponent=1,
    shape={"zh": "时间步的个数", "en": "steps at once"},
)
def min_snr_weight(count: int) -> Start:
    t = torch.randint(STEPS, (count,), generator=torch.Generator().manual_seed(0))
    alphas, scheduler = _alphas(), _scheduler(diffusers.DDPMScheduler)

    def theirs() -> Tensor:
        snr: Tensor = compute_snr(scheduler, t)
        return snr.clamp(max=5.0) / snr

    return Start(lambda: ours.min_snr_weight(t, alphas), {"diffusers.training_utils.compute_snr": theirs})
