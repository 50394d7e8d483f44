"""What the page on Stable Diffusion claims, against diffusers, transformers and closed forms."""

import copy
import math
import re
import warnings

import numpy as np
import pytest
import scipy.signal
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from diffusers.training_utils import compute_snr
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel

from snippets.stable_diffusion import (
    AutoencoderKL,
    CrossAttention,
    DiagonalGaussian,
    ResidualBlock,
    SpatialTransformer,
    TextEncoder,
    UNet,
    Upsample,
    add_noise,
    as_noise_model,
    autoencoder_loss,
    cosine_betas,
    ddim_step,
    ddpm_step,
    diffusion_loss,
    ema_update,
    from_velocity,
    guided_noise,
    latent_scale,
    linear_betas,
    min_snr_weight,
    predict_x0,
    rescaled_guidance,
    sample,
    sampling_timesteps,
    scaled_linear_betas,
    timestep_embedding,
    velocity,
    zero_terminal_snr,
)

# Stable Diffusion 1's own settings, the last one apart: its last step goes to alphas_cumprod[0].
SETTINGS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
BETAS = scaled_linear_betas(1000)
LEVELS = (1 - BETAS.double()).cumprod(0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def pair(*shape, dtype=torch.float32):
    return randn(*shape, seed=1, dtype=dtype), randn(*shape, seed=2, dtype=dtype)


def shuffled(module, seed=0):
    """All weights random, so that what starts at zero does not hide what comes before it."""
    generator = seeded(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return module


def ddim(steps=50, **settings):
    scheduler = DDIMScheduler(**{**SETTINGS, "set_alpha_to_one": True, **settings})
    scheduler.set_timesteps(steps)
    return scheduler


def refused(call, *arguments, message, **named):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(*arguments, **named)


# --- schedules -----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 50, 1000])
def test_schedules_are_those_of_diffusers(agrees_with, steps):
    for ours, name, ends in [
        (linear_betas, "linear", (0.0001, 0.02)),
        (linear_betas, "linear", (0.00085, 0.012)),
        (scaled_linear_betas, "scaled_linear", (0.00085, 0.012)),
        (scaled_linear_betas, "scaled_linear", (0.01, 0.3)),
    ]:
        theirs = DDPMScheduler(steps, beta_schedule=name, beta_start=ends[0], beta_end=ends[1]).betas
        betas = ours(steps, *ends)
        agrees_with(ours, "diffusers.DDPMScheduler", betas, theirs, rtol=5e-7)
        assert betas.dtype == torch.float32
    theirs = DDPMScheduler(steps, beta_schedule="squaredcos_cap_v2").betas
    agrees_with(cosine_betas, "diffusers.DDPMScheduler", cosine_betas(steps), theirs, rtol=1e-6)
    assert cosine_betas(steps).dtype == torch.float32
    assert torch.equal(linear_betas(steps), linear_betas(steps, 0.0001, 0.02))
    assert torch.equal(scaled_linear_betas(steps), scaled_linear_betas(steps, 0.00085, 0.012))


def test_scaled_linear_is_linear_in_the_square_root(agrees_with):
    steps = np.arange(1000) / 999
    line = (1 - steps) * math.sqrt(0.00085) + steps * math.sqrt(0.012)
    betas = scaled_linear_betas(1000)
    agrees_with(scaled_linear_betas, "closed form: a line, squared", betas, line**2, rtol=6e-8)
    plain = (1 - steps) * 0.0001 + steps * 0.02
    agrees_with(linear_betas, "closed form: a line", linear_betas(1000), plain, rtol=6e-8)
    wrong = np.linspace(0.00085, 0.012, 1000)
    assert (wrong[1:-1] > betas[1:-1].numpy()).all()


def test_cosine_schedule_follows_its_cosine_until_the_cap(agrees_with):
    t = np.arange(1, 1001) / 1000
    level = (np.cos((t + 0.008) / 1.008 * np.pi / 2) / np.cos(0.008 / 1.008 * np.pi / 2)) ** 2
    ours = (1 - cosine_betas(1000).double()).cumprod(0)
    agrees_with(cosine_betas, "closed form: a squared cosine", ours[:-1], level[:-1], rtol=1e-6)
    assert cosine_betas(1000)[-1] == np.float32(0.999)
    assert torch.equal(cosine_betas(5, 0.008, 0.999), cosine_betas(5))
    assert cosine_betas(10, max_beta=0.5).max() == 0.5
    assert cosine_betas(4, offset=0.0)[0] == pytest.approx(math.sin(math.pi / 8) ** 2, rel=1e-6)


def test_the_last_step_is_not_pure_noise():
    assert float(LEVELS[-1].sqrt()) == pytest.approx(0.0683, abs=5e-5)
    ddpm = (1 - linear_betas(1000).double()).cumprod(0)
    assert float(ddpm[-1].sqrt()) == pytest.approx(0.0064, abs=5e-5)


@pytest.mark.parametrize("schedule", [linear_betas, scaled_linear_betas])
def test_senseless_schedules_are_refused(schedule):
    for steps, start, end in [(0, 0.1, 0.2), (3, 0.0, 0.2), (3, 0.3, 0.2), (3, 0.1, 1.0), (-1, 0.1, 0.2)]:
        text = f"expected steps >= 1 and 0 < start <= end < 1, got steps {steps}, start {start}, end {end}"
        refused(schedule, steps, start, end, message=text)
    assert schedule(1, 0.2, 0.2).tolist() == pytest.approx([0.2])
    assert schedule(2, 0.5, 0.5).tolist() == pytest.approx([0.5, 0.5])


def test_senseless_cosines_are_refused():
    for steps, offset, cap in [(0, 0.1, 0.9), (3, -0.1, 0.9), (3, 0.1, 1.0), (3, 0.1, 0.0)]:
        text = (
            f"expected steps >= 1, offset >= 0 and 0 < max_beta < 1, got {steps}, {offset} and {cap}"
        )
        refused(cosine_betas, steps, offset, cap, message=text)
    assert len(cosine_betas(1)) == 1


# --- noise and back ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 4, 8, 8), (6, 3), (6,), (6, 2, 3), (6, 1, 5, 7, 2)])
def test_noise_is_added_as_diffusers_does(agrees_with, shape):
    (x0, noise), t = pair(*shape), torch.tensor([0, 1, 500, 998, 999, 500])
    scheduler = DDPMScheduler(**SETTINGS)
    ours = add_noise(x0, noise, t, scheduler.alphas_cumprod)
    theirs = scheduler.add_noise(x0, noise, t)
    agrees_with(add_noise, "diffusers.DDPMScheduler.add_noise", ours, theirs, atol=1e-6)
    for step, row in zip(t.tolist(), range(6), strict=True):
        alone = add_noise(x0[row : row + 1], noise[row : row + 1], step, scheduler.alphas_cumprod)
        assert torch.equal(alone[0], ours[row])


def test_steps_taken_one_by_one_lead_where_the_jump_leads(agrees_with):
    mean, variance, means, variances = 1.0, 0.0, [], []
    for beta in BETAS.double().tolist():
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        means.append(mean)
        variances.append(variance)
    one, t = torch.ones(1000, dtype=torch.float64), torch.arange(1000)
    signal, spread = add_noise(one, 0 * one, t, LEVELS), add_noise(0 * one, one, t, LEVELS)
    agrees_with(add_noise, "brute force: one step after the other", signal, means, rtol=1e-12)
    agrees_with(add_noise, "brute force: one step after the other", spread**2, variances, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_noise_of_the_first_steps(agrees_with, dtype):
    (x0, noise), t = pair(1000, 5, dtype=dtype), torch.arange(1000)
    ours = add_noise(x0, noise, t, LEVELS.float())
    exact = LEVELS.sqrt()[:, None] * x0.double() + (1 - LEVELS).sqrt()[:, None] * noise.double()
    unit = torch.finfo(dtype).eps
    assert ours.dtype == dtype
    agrees_with(add_noise, "closed form: in float64", ours.double(), exact, atol=8 * unit)
    # diffusers 0.42 rounds alphas_cumprod first: in bfloat16 that is 1, and there is no noise.
    theirs = DDPMScheduler(**SETTINGS).add_noise(0 * x0, noise, t)
    assert torch.equal(theirs[0], 0 * noise[0]) == (dtype == torch.bfloat16)
    alone = add_noise(0 * x0, noise, t, LEVELS.float())
    assert float((alone[0] / noise[0]).mean()) == pytest.approx(math.sqrt(0.00085), rel=2 * unit)


def test_step_minus_one_is_clean_data():
    x0, noise = pair(3, 4)
    assert torch.equal(add_noise(x0, noise, -1, LEVELS), x0)
    t = torch.tensor([-1, 0, 999])
    mixed = add_noise(x0, noise, t, LEVELS)
    assert torch.equal(mixed[0], x0[0])
    assert not torch.equal(mixed[1], x0[1])
    assert torch.equal(predict_x0(x0, noise, -1, LEVELS), x0)
    assert torch.equal(velocity(x0, noise, -1, LEVELS), noise)


def test_the_clean_data_are_found_again(agrees_with):
    (x0, noise), t = pair(5, 4, 3, dtype=torch.float64), torch.tensor([0, 1, 300, 998, 999])
    x_t = add_noise(x0, noise, t, LEVELS)
    agrees_with(predict_x0, "closed form: what was noised", predict_x0(x_t, noise, t, LEVELS), x0, atol=1e-13)


@pytest.mark.parametrize("t", [1, 21, 501, 981])
def test_the_estimate_of_clean_data_is_that_of_diffusers(agrees_with, t):
    x_t, noise = pair(2, 4, 8, 8)
    scheduler = ddim()
    theirs = scheduler.step(noise, t, x_t).pred_original_sample
    ours = predict_x0(x_t, noise, t, scheduler.alphas_cumprod)
    agrees_with(predict_x0, "diffusers.DDIMScheduler.step", ours, theirs, rtol=1e-6, atol=2e-5)
    v = ddim(prediction_type="v_prediction").step(noise, t, x_t).pred_original_sample
    ours = from_velocity(x_t, noise, t, scheduler.alphas_cumprod)[0]
    agrees_with(from_velocity, "diffusers.DDIMScheduler.step", ours, v, atol=1e-6)


def test_velocity_is_a_rotation_of_data_and_noise(agrees_with):
    (x0, noise), t = pair(1000, 3, dtype=torch.float64), torch.arange(1000)
    scheduler = DDPMScheduler(**SETTINGS)
    v = velocity(x0.float(), noise.float(), t, scheduler.alphas_cumprod)
    theirs = scheduler.get_velocity(x0.float(), noise.float(), t)
    agrees_with(velocity, "diffusers.DDPMScheduler.get_velocity", v, theirs, atol=1e-6)
    x_t, v = add_noise(x0, noise, t, LEVELS), velocity(x0, noise, t, LEVELS)
    angle = np.arccos(np.sqrt(LEVELS.numpy()))[:, None]
    turned = (x0.numpy() + 1j * noise.numpy()) * np.exp(-1j * angle)
    form = "closed form: a complex number, turned"
    agrees_with(velocity, form, torch.complex(x_t, v), turned, atol=1e-13)
    back = from_velocity(x_t, v, t, LEVELS)
    agrees_with(from_velocity, form, torch.complex(*back), x0.numpy() + 1j * noise.numpy(), atol=5e-14)


def test_velocity_finds_data_even_in_pure_noise():
    x0, noise = pair(4, 2)
    levels, t = torch.tensor([0.5, 0.0]), torch.tensor([0, 0, 1, 1])
    x_t, v = add_noise(x0, noise, t, levels), velocity(x0, noise, t, levels)
    assert torch.allclose(from_velocity(x_t, v, t, levels)[0], x0, atol=1e-6)
    assert torch.equal(x_t[2:], noise[2:])
    assert not predict_x0(x_t, noise, t, levels)[2:].isfinite().any()


ALL = [add_noise, predict_x0, velocity, from_velocity]


@pytest.mark.parametrize("mix", ALL)
def test_a_wrong_step_or_shape_is_refused(mix):
    x, noise = pair(3, 4)
    flat = torch.tensor([0.9, 0.5])
    head = "expected an integer t, one or (B,) for x (3, 4), got "
    refused(mix, x, noise, 0.5, flat, message=head + "() of torch.float32")
    refused(mix, x, noise, torch.tensor([0, 1]), flat, message=head + "(2,) of torch.int64")
    refused(mix, x, noise, torch.zeros(3, 1).long(), flat, message=head + "(3, 1) of torch.int64")
    refused(mix, x, noise, torch.zeros(3).bool(), flat, message=head + "(3,) of torch.bool")
    refused(mix, x, noise, 2, flat, message="t must lie in 0 to 1, got 2 to 2")
    refused(mix, x, noise, -2, flat, message="t must lie in 0 to 1, got -2 to -2")
    refused(mix, x, noise, torch.tensor([1, -3, 0]), flat, message="t must lie in 0 to 1, got -3 to 1")
    refused(mix, x, noise, 0, flat[None], message="expected a schedule (T,), got (1, 2)")
    refused(mix, x, noise[:2], 0, flat, message="expected one shape, got (3, 4), (2, 4)")


@pytest.mark.parametrize("mix", ALL)
def test_empty_and_strided_input_and_gradients(mix):
    empty = mix(torch.zeros(0, 4), torch.zeros(0, 4), torch.zeros(0).long(), LEVELS)
    assert (empty[0] if mix is from_velocity else empty).shape == (0, 4)
    (x, noise), t = pair(4, 4, dtype=torch.float64), torch.tensor([5, 0, 1, 700])
    before = x.clone(), noise.clone(), t.clone(), LEVELS.clone()

    def both(a, b):
        out = mix(a, b, t, LEVELS)
        return torch.cat(out) if mix is from_velocity else out

    assert torch.equal(both(x.T.contiguous().T, noise.T.contiguous().T), both(x, noise))
    assert torch.autograd.gradcheck(both, (x.requires_grad_(), noise.requires_grad_()))
    for now, then in zip((x, noise, t, LEVELS), before, strict=True):
        assert torch.equal(now.detach(), then)


# --- steps back ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("ours", "theirs"), [("posterior", "fixed_small"), ("beta", "fixed_large")])
def test_a_ddpm_step_is_that_of_diffusers_with_the_same_noise(agrees_with, ours, theirs):
    scheduler = DDPMScheduler(**SETTINGS, variance_type=theirs)
    x_t, noise = pair(2, 4, 5, 3)
    for t in (999, 998, 500, 2, 1, 0):
        step = ddpm_step(x_t, noise, t, scheduler.betas, seeded(t), variance=ours)
        reference = scheduler.step(noise, t, x_t, generator=seeded(t)).prev_sample
        agrees_with(ddpm_step, "diffusers.DDPMScheduler.step", step, reference, atol=1e-4)
    assert torch.equal(
        ddpm_step(x_t, noise, 9, BETAS, seeded()), ddpm_step(x_t, noise, 9, BETAS, seeded(), "posterior")
    )


def test_the_posterior_is_that_of_bayes(agrees_with):
    betas = linear_betas(40, 0.01, 0.3).double()
    levels, t = (1 - betas).cumprod(0), torch.arange(1, 40)
    x_t, noise = pair(39, 1, dtype=torch.float64)
    x0 = predict_x0(x_t, noise, t, levels)
    beta, before = betas[1:, None], levels[:-1, None]
    precision = (1 - beta) / beta + 1 / (1 - before)
    mean = ((1 - beta).sqrt() / beta * x_t + before.sqrt() / (1 - before) * x0) / precision
    z = torch.randn(39, 1, generator=seeded(3), dtype=torch.float64)
    agrees_with(
        ddpm_step,
        "closed form: the product of two normal densities",
        ddpm_step(x_t, noise, t, betas, seeded(3)),
        mean + z / precision.sqrt(),
        atol=2e-14,
    )


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_the_last_step_adds_no_noise_and_finds_the_data(variance):
    x0, noise = pair(3, 4, dtype=torch.float64)
    betas = BETAS.double()
    t = torch.tensor([0, 0, 7])
    x_t = add_noise(x0, noise, t, LEVELS)
    step = ddpm_step(x_t, noise, t, betas, seeded(), variance=variance)
    assert torch.allclose(step[:2], x0[:2], atol=1e-12)
    z = torch.randn(3, 4, generator=seeded(), dtype=torch.float64)[2]
    spread = betas[7] * ((1 - LEVELS[6]) / (1 - LEVELS[7]) if variance == "posterior" else 1)
    mean = (x_t[2] - betas[7] / (1 - LEVELS[7]).sqrt() * noise[2]) / (1 - betas[7]).sqrt()
    assert torch.allclose(step[2], mean + spread.sqrt() * z, atol=1e-12)
    generator = seeded()
    last = ddpm_step(x_t[:2], noise[:2], 0, betas, generator, variance=variance)
    assert torch.equal(last, step[:2])
    assert torch.equal(generator.get_state(), seeded().get_state())


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("to_one", [True, False])
def test_a_ddim_trajectory_is_that_of_diffusers_with_the_same_noise(agrees_with, eta, to_one):
    scheduler = ddim(50, set_alpha_to_one=to_one)
    ours = theirs = randn(2, 4, 4, 4)
    times = scheduler.timesteps.tolist()
    for t, t_prev in zip(times, [*times[1:], -1 if to_one else 0], strict=True):
        noise = randn(2, 4, 4, 4, seed=t) - 0.1 * theirs
        theirs = scheduler.step(noise, t, theirs, eta=eta, generator=seeded(t)).prev_sample
        ours = ddim_step(ours, noise, t, t_prev, scheduler.alphas_cumprod, eta, seeded(t))
        agrees_with(ddim_step, "diffusers.DDIMScheduler.step", ours, theirs, atol=4e-4)


def test_ddim_with_eta_one_and_neighboring_steps_is_ddpm(agrees_with):
    x_t, noise = pair(6, 3, dtype=torch.float64)
    scheduler = DDPMScheduler(**SETTINGS)
    for t in (0, 1, 2, 500, 998, 999):
        ours = ddim_step(x_t, noise, t, t - 1, LEVELS, 1.0, seeded())
        theirs = scheduler.step(noise, t, x_t, generator=seeded()).prev_sample
        agrees_with(ddim_step, "diffusers.DDPMScheduler.step", ours, theirs, atol=1e-4)
        assert torch.allclose(ours, ddpm_step(x_t, noise, t, BETAS.double(), seeded()), atol=1e-12)


def test_ddim_runs_backwards(agrees_with):
    x0, noise = pair(2, 5, dtype=torch.float64)
    x_t = ddim_step(x0, noise, -1, 700, LEVELS)
    level = LEVELS[700]
    jump = level.sqrt() * x0 + (1 - level).sqrt() * noise
    agrees_with(ddim_step, "closed form: noise added at once", x_t, jump, atol=1e-14)
    there = ddim_step(ddim_step(x_t, noise, 700, 300, LEVELS), noise, 300, -1, LEVELS)
    agrees_with(ddim_step, "closed form: back to the start", there, x0, atol=2e-14)
    # Upwards the formula for the fresh noise would be negative: there is none.
    up = ddim_step(x_t, noise, 300, 700, LEVELS, 1.0, seeded())
    assert torch.equal(up, ddim_step(x_t, noise, 300, 700, LEVELS))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_steps_in_half_precision_stay_near_float64(agrees_with, dtype):
    x_t, noise = pair(3, 8, dtype=dtype)
    unit = torch.finfo(dtype).eps
    for t in (1, 500, 980):
        z = torch.randn(3, 8, generator=seeded(), dtype=dtype)
        for eta in (0.0, 1.0):
            ours = ddim_step(x_t, noise, t, t - 1, LEVELS.float(), eta, seeded())
            a, to = LEVELS[t], LEVELS[t - 1]
            s2 = eta**2 * (1 - to) / (1 - a) * (1 - a / to)
            x0 = (x_t.double() - (1 - a).sqrt() * noise.double()) / a.sqrt()
            exact = to.sqrt() * x0 + (1 - to - s2).sqrt() * noise.double() + s2.sqrt() * z.double()
            assert ours.dtype == dtype
            agrees_with(ddim_step, "closed form: in float64", ours.double(), exact, atol=8 * unit)
        ours = ddpm_step(x_t, noise, t, BETAS, seeded())
        assert ours.dtype == dtype
        agrees_with(ddpm_step, "closed form: in float64", ours.double(), exact, atol=8 * unit)


def test_bad_steps_are_refused_and_nothing_is_changed():
    x, noise = pair(3, 4)
    before = x.clone(), noise.clone(), BETAS.clone(), LEVELS.clone()
    refused(
        ddpm_step, x, noise, 1, BETAS, None, "alpha", message='variance must be "posterior" or "beta", got \'alpha\''
    )
    refused(ddpm_step, x, noise, 1000, BETAS, message="t must lie in 0 to 999, got 1000 to 1000")
    refused(ddpm_step, x, noise, -1, BETAS, message="t must lie in 0 to 999, got -2 to -2")
    for eta in (-0.1, 1.1):
        refused(ddim_step, x, noise, 5, 1, LEVELS, eta, message=f"eta must lie in 0 to 1, got {eta}")
    refused(ddim_step, x, noise, 5, 1000, LEVELS, message="t must lie in 0 to 999, got 1000 to 1000")
    refused(ddim_step, x, noise[:, :2], 5, 1, LEVELS, message="expected one shape, got (3, 4), (3, 2)")
    ddpm_step(x, noise, 5, BETAS, seeded())
    ddim_step(x, noise, 5, 1, LEVELS, 0.5, seeded())
    for now, then in zip((x, noise, BETAS, LEVELS), before, strict=True):
        assert torch.equal(now, then)
    empty, t = torch.zeros(0, 4), torch.zeros(0).long()
    assert ddpm_step(empty, empty, t, BETAS, seeded()).shape == (0, 4)
    assert ddim_step(empty, empty, t, t - 1, LEVELS, 1.0, seeded()).shape == (0, 4)
    turned, other = x.T.contiguous().T, noise.T.contiguous().T
    for eta in (0.0, 1.0):
        ours = ddim_step(turned, other, 5, 1, LEVELS, eta, seeded())
        assert torch.equal(ours, ddim_step(x, noise, 5, 1, LEVELS, eta, seeded()))
    assert torch.equal(ddpm_step(turned, other, 5, BETAS, seeded()), ddpm_step(x, noise, 5, BETAS, seeded()))


def test_results_are_where_the_data_are():
    x, noise = (each.to("meta") for each in pair(3, 4))
    t = torch.tensor([5, 6, 7])
    words, null, places = torch.zeros(3, 1, 2, device="meta"), torch.zeros(1, 1, 2, device="meta"), []

    def model(x_t, t, context):
        places.append(t.device.type)
        return x_t

    for result in (
        add_noise(x, noise, t, LEVELS),
        ddpm_step(x, noise, t, BETAS, seeded()),
        ddim_step(x, noise, t, t - 1, LEVELS, 1.0, seeded()),
        sample(model, words, null, (4,), LEVELS, steps=2, generator=seeded()),
        timestep_embedding(x[:, 0], 6),
    ):
        assert result.device.type == "meta"
    assert places == ["meta"] * 2


def test_without_a_generator_torch_s_own_is_drawn_from():
    x, noise = pair(3, 4)
    torch.manual_seed(7)
    first = ddpm_step(x, noise, 5, BETAS), ddim_step(x, noise, 5, 1, LEVELS, 1.0)
    torch.manual_seed(7)
    second = ddpm_step(x, noise, 5, BETAS), ddim_step(x, noise, 5, 1, LEVELS, 1.0)
    assert torch.equal(torch.cat(first), torch.cat(second))
    assert not torch.equal(first[0], ddpm_step(x, noise, 5, BETAS))


@pytest.mark.parametrize("steps", [1, 7, 20, 25, 50, 999, 1000])
def test_the_steps_visited_are_those_of_diffusers(agrees_with, steps):
    for spacing, offset in [("leading", 1), ("leading", 0), ("trailing", 0)]:
        if spacing == "leading" and (steps - 1) * (1000 // steps) + offset > 999:
            continue
        scheduler = ddim(steps, timestep_spacing=spacing, steps_offset=offset)
        ours = sampling_timesteps(steps, spacing=spacing, offset=offset)
        agrees_with(sampling_timesteps, "diffusers.DDIMScheduler", ours, scheduler.timesteps)
        assert ours.dtype == torch.int64
    if steps == 50:
        assert sampling_timesteps(50, 1000)[[0, 1, -1]].tolist() == [981, 961, 1]


def test_steps_out_of_the_schedule_are_refused():
    assert sampling_timesteps(1, 2).tolist() == [1]
    assert sampling_timesteps(2, 2, "trailing").tolist() == [1, 0]
    assert sampling_timesteps(2, 2, offset=0).tolist() == [1, 0]
    for steps in (0, 11):
        refused(sampling_timesteps, steps, 10, message=f"steps must lie in 1 to 10, got {steps}")
    refused(
        sampling_timesteps, 5, 10, "even", message='spacing must be "leading" or "trailing", got \'even\''
    )
    refused(sampling_timesteps, 10, 10, message="offset 1 leads out of 0 to 9: 10 to 1")
    refused(sampling_timesteps, 5, 10, "leading", -1, message="offset -1 leads out of 0 to 9: 7 to -1")


# --- guidance ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 7.5, -1.0])
def test_guidance_goes_from_unconditional_through_conditional_and_on(agrees_with, scale):
    cond, uncond = pair(2, 4, 8, 8)
    ours = guided_noise(cond, uncond, scale)
    c, u, w = cond.double().numpy(), uncond.double().numpy(), scale - 1
    agrees_with(guided_noise, "closed form: (1 + w) c - w u", ours, (1 + w) * c - w * u, atol=2e-6)
    assert torch.equal(guided_noise(cond, uncond, 0.0), uncond)
    assert torch.equal(guided_noise(cond, uncond, 1.0), cond)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_guidance_in_other_precisions(agrees_with, dtype):
    cond, uncond = pair(50, dtype=dtype)
    ours = guided_noise(cond, uncond, 7.5)
    exact = uncond.double() + 7.5 * (cond.double() - uncond.double())
    assert ours.dtype == dtype
    atol = 16 * torch.finfo(dtype).eps
    agrees_with(guided_noise, "closed form: in float64", ours.double(), exact, atol=atol)
    assert guided_noise(cond[:0], uncond[:0], 7.5).shape == (0,)


def test_guidance_needs_two_predictions_of_one_shape():
    message = "expected one shape, got (2, 3) and (1, 3)"
    refused(guided_noise, torch.zeros(2, 3), torch.zeros(1, 3), 2.0, message=message)


# --- the step, the latents -----------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 3, 8, 9, 320])
def test_the_code_of_a_step_is_that_of_diffusers(agrees_with, dim):
    t = torch.tensor([0, 1, 17, 500, 981, 999])
    ours = timestep_embedding(t, dim)
    theirs = get_timestep_embedding(t, dim, flip_sin_to_cos=True, downscale_freq_shift=0)
    agrees_with(
        timestep_embedding, "diffusers.models.embeddings.get_timestep_embedding", ours, theirs, atol=2e-4
    )
    half = dim // 2
    for step in (t.double() / 3, t):
        exact = [
            [f(float(s) * 10000 ** (-i / half)) for f in (math.cos, math.sin) for i in range(half)]
            + [0.0] * (dim % 2)
            for s in step
        ]
        code = timestep_embedding(step, dim)
        agrees_with(timestep_embedding, "brute force: math.cos and math.sin", code, exact, atol=1e-7)
        assert code.dtype == torch.float32
    assert timestep_embedding(t[:0], dim).shape == (0, dim)
    assert timestep_embedding(t.float(), dim).equal(ours)


def test_codes_of_other_shapes_are_refused():
    refused(timestep_embedding, torch.tensor(3), 4, message="expected t (B,), dim >= 2, got () and 4")
    refused(timestep_embedding, torch.arange(3), 1, message="expected t (B,), dim >= 2, got (3,) and 1")


def test_the_divergence_is_that_of_torch(agrees_with):
    moments = randn(5, 8, 4, 3, dtype=torch.float64)
    mean, log_variance = moments[:, :4], moments[:, 4:]
    gaussian = DiagonalGaussian(moments)
    ours = gaussian.kl()
    theirs = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum((1, 2, 3))
    agrees_with(DiagonalGaussian, "torch.distributions.kl_divergence", ours, theirs, rtol=1e-13)
    other = DiagonalGaussianDistribution(moments)
    agrees_with(
        DiagonalGaussian,
        "diffusers.models.autoencoders.vae.DiagonalGaussianDistribution",
        torch.cat([gaussian.sample(seeded(4)), gaussian.mode()]),
        torch.cat([other.sample(seeded(4)), other.mode()]),
        atol=1e-14,
    )
    narrow = DiagonalGaussian(torch.full((1, 2, 3), 1e-4)).kl()
    exact = 3 * 0.5 * (1e-8 + math.expm1(1e-4) - 1e-4)
    agrees_with(DiagonalGaussian, "closed form: a divergence near zero", narrow, [exact], rtol=1e-3)


def test_extreme_variances_are_clamped():
    moments = torch.tensor([[0.0, 0.0, -100.0, 100.0]])
    gaussian = DiagonalGaussian(moments)
    assert gaussian.log_variance.tolist() == [[-30.0, 20.0]]
    assert gaussian.kl().item() == pytest.approx(0.5 * (math.exp(20) - 20 - 1 + 30 - 1), rel=1e-6)
    assert DiagonalGaussian(moments[:, ::2]).kl().item() == pytest.approx(0.5 * (30 - 1), rel=1e-6)
    assert DiagonalGaussian(torch.zeros(0, 8, 2, 2)).kl().shape == (0,)
    assert DiagonalGaussian(torch.zeros(2, 2)).kl().tolist() == [0.0, 0.0]
    for shape in [(2, 5, 4, 4), (8,)]:
        refused(DiagonalGaussian, torch.zeros(shape), message=f"expected (B, 2C, ...), got {shape}")
    half = DiagonalGaussian(torch.zeros(2, 4, dtype=torch.bfloat16))
    assert half.sample(seeded()).dtype == half.kl().dtype == torch.bfloat16


def test_samples_carry_gradients_to_mean_and_variance():
    moments = randn(2, 4, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: DiagonalGaussian(m).sample(seeded()), (moments,))
    assert torch.autograd.gradcheck(lambda m: DiagonalGaussian(m).kl(), (moments,))


def test_scaled_latents_have_variance_one(agrees_with):
    latents = 5.4 * randn(64, 4, 8, 8, dtype=torch.float64) + 2
    scale = latent_scale(latents)
    agrees_with(latent_scale, "numpy.std", scale, 1 / np.std(latents.numpy(), ddof=1), rtol=1e-12)
    assert float((scale * latents).var()) == pytest.approx(1)
    assert latent_scale(torch.tensor([0.0, 2.0])) == pytest.approx(1 / math.sqrt(2))
    refused(latent_scale, torch.zeros(1, 1), message="expected at least two values, got (1, 1)")


# --- blocks, against diffusers and transformers with the same weights ----------------------------


def load(theirs, weights):
    """Copy weights by name; every one of theirs has to be given."""
    theirs.load_state_dict(weights)
    return theirs.eval().to(next(iter(weights.values())).dtype)


def prefixed(prefix, weights):
    return {f"{prefix}.{name}": value for name, value in weights.items()}


def residual_weights(block):
    names = {"code": "time_emb_proj", "skip": "conv_shortcut"}
    weights = {}
    for name, value in block.state_dict().items():
        head, tail = name.split(".")
        weights[f"{names.get(head, head)}.{tail}"] = value
    return weights


def attention_weights(attention):
    names = {"query": "to_q", "key": "to_k", "value": "to_v", "output": "to_out.0"}
    weights = {}
    for name, value in attention.state_dict().items():
        head, tail = name.split(".")
        weights[f"{names[head]}.{tail}"] = value
    return weights


def transformer_weights(layer):
    weights = {}
    for ours, theirs in [("norm", "norm"), ("enter", "proj_in"), ("leave", "proj_out")]:
        weights |= prefixed(theirs, getattr(layer, ours).state_dict())
    inner = "transformer_blocks.0"
    for i in range(3):
        weights |= prefixed(f"{inner}.norm{i + 1}", layer.norms[i].state_dict())
    among = layer.among
    if among is None:  # what nobody attends to adds nothing
        among = CrossAttention(layer.words.query.in_features, None, 1).to(layer.enter.weight.dtype)
        nn.init.zeros_(among.output.weight)
        nn.init.zeros_(among.output.bias)
    weights |= prefixed(f"{inner}.attn1", attention_weights(among))
    weights |= prefixed(f"{inner}.attn2", attention_weights(layer.words))
    weights |= prefixed(f"{inner}.ff.net.0.proj", layer.gate.state_dict())
    return weights | prefixed(f"{inner}.ff.net.2", layer.down.state_dict())


def theirs_of_residual(block, code_dim=None):
    (out, inside), other = block.conv1.weight.shape[:2], math.gcd(32, block.conv2.weight.shape[0])
    theirs = ResnetBlock2D(
        in_channels=inside,
        out_channels=out,
        temb_channels=code_dim,
        groups=math.gcd(32, inside),
        groups_out=other,
        eps=1e-5,
    )
    return load(theirs, residual_weights(block))


@pytest.mark.parametrize(("inside", "outside", "code_dim"), [(32, 32, 16), (48, 64, 16), (6, 10, None)])
def test_a_residual_block_is_that_of_diffusers(agrees_with, inside, outside, code_dim):
    block = shuffled(ResidualBlock(inside, outside, code_dim))
    x, code = randn(2, inside, 5, 7), None if code_dim is None else randn(2, code_dim, seed=1)
    theirs = theirs_of_residual(block, code_dim)(x, code)
    agrees_with(ResidualBlock, "diffusers.models.resnet.ResnetBlock2D", block(x, code), theirs, atol=2e-5)
    assert (code_dim is None) == (block.code is None)


def test_a_residual_block_starts_as_the_identity_and_refuses_a_missing_code():
    block = ResidualBlock(8, 8, 4)
    x = randn(2, 8, 3, 3)
    assert torch.equal(block(x, randn(2, 4)), x)
    refused(block, x, message="a code goes with a code_dim, got code None")
    with pytest.raises(ValueError, match="a code goes with a code_dim, got code tensor"):
        ResidualBlock(8, 8)(x, randn(2, 4))
    for sizes in [(0, 8, 4), (8, 0, 4), (8, 8, -1)]:
        text = f"sizes must be at least 1, got {sizes[0]}, {sizes[1]} and {sizes[2]}"
        refused(ResidualBlock, *sizes, message=text)
    assert ResidualBlock(1, 1, 1)(randn(0, 1, 2, 2), randn(0, 1)).shape == (0, 1, 2, 2)


def theirs_of_upsample(layer):
    out, inside = layer.conv.weight.shape[:2]
    return load(Upsample2D(inside, use_conv=True, out_channels=out), layer.state_dict())


def test_upsampling_repeats_pixels_and_convolves(agrees_with):
    layer, x = shuffled(Upsample(3, 2)), randn(2, 3, 4, 5)
    ours = layer(x)
    agrees_with(
        Upsample, "diffusers.models.upsampling.Upsample2D", ours, theirs_of_upsample(layer)(x), atol=1e-6
    )
    wide = np.pad(x.numpy().repeat(2, 2).repeat(2, 3), ((0, 0), (0, 0), (1, 1), (1, 1)))
    theirs = [
        [
            sum(scipy.signal.correlate2d(wide[b, i], layer.conv.weight[o, i].detach(), "valid") for i in range(3))
            + layer.conv.bias[o].item()
            for o in range(2)
        ]
        for b in range(2)
    ]
    agrees_with(Upsample, "scipy.signal.correlate2d", ours, np.array(theirs), atol=1e-5)


def reference_parts(layers, x):
    """Run a half of the autoencoder with diffusers' blocks in place of ours."""
    for layer in layers:
        if isinstance(layer, ResidualBlock):
            x = theirs_of_residual(layer)(x, None)
        elif isinstance(layer, Upsample):
            x = theirs_of_upsample(layer)(x)
        elif isinstance(layer, nn.Sequential):
            norm, _, conv = layer
            groups = x.unflatten(1, (math.gcd(32, x.shape[1]), -1))
            mean, variance = groups.mean((2, 3, 4), keepdim=True), groups.var((2, 3, 4), False, keepdim=True)
            x = ((groups - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
            x = x * norm.weight[:, None, None] + norm.bias[:, None, None]
            x = F.conv2d(x * torch.sigmoid(x), conv.weight, conv.bias, padding=1)
        else:
            x = F.conv2d(x, layer.weight, layer.bias, padding=1)
    return x


@pytest.mark.parametrize(("factor", "blocks"), [(1, 1), (2, 2), (4, 1), (8, 0)])
def test_the_autoencoder_is_made_of_diffusers_blocks(agrees_with, factor, blocks):
    model = shuffled(AutoencoderKL(3, 4, 32, factor, blocks)).double()
    x = randn(2, 3, 2 * factor, 3 * factor, dtype=torch.float64)
    b, c, h, w = x.shape
    folded = x.numpy().reshape(b, c, h // factor, factor, w // factor, factor)
    folded = torch.from_numpy(folded.transpose(0, 1, 3, 5, 2, 4).reshape(b, -1, h // factor, w // factor))
    latents = model.encode(x)
    with torch.no_grad():
        theirs = reference_parts(model.encoder, folded)
        z = latents.mode().detach()
        decoded = reference_parts(model.decoder, z)
    ours = torch.cat([latents.mean, latents.log_variance], 1)
    name = "diffusers.models.resnet.ResnetBlock2D"
    agrees_with(AutoencoderKL, name, ours, theirs.clamp(-30, 1e9), atol=1e-14)
    agrees_with(AutoencoderKL, name, model.decode(z), decoded, atol=1e-14)
    assert z.shape == (2, 4, 2, 3)
    assert decoded.shape == x.shape
    assert sum(isinstance(layer, Upsample) for layer in model.decoder) == math.log2(factor)
    assert len(model.encoder) == 2 + blocks


def test_the_autoencoder_s_defaults_and_refusals():
    model = AutoencoderKL(width=8)
    assert model.encode(torch.zeros(0, 3, 8, 8)).mode().shape == (0, 4, 2, 2)
    assert model.decode(torch.zeros(1, 4, 3, 1)).shape == (1, 3, 12, 4)
    assert model.encode(randn(1, 3, 8, 8)).mode().std() > 0.01  # only the U-Net starts at zero
    default = AutoencoderKL()
    assert default.encoder[0].weight.shape == (96, 48, 3, 3)
    assert len(default.encoder) == 4
    assert sum(isinstance(layer, ResidualBlock) for layer in default.decoder) == 4
    for factor, width in [(3, 96), (0, 96), (-4, 96), (4, 30)]:
        text = f"expected a factor that is a power of two and divides width, got {factor} and {width}"
        refused(AutoencoderKL, width=width, factor=factor, message=text)
    for shape in [(1, 3, 10, 8), (1, 3, 8, 10), (3, 8, 8)]:
        text = f"expected (B, C, H, W) with H and W multiples of 4, got {shape}"
        refused(model.encode, torch.zeros(shape), message=text)


def test_the_loss_of_the_autoencoder_sums_over_a_picture(agrees_with):
    model, x = shuffled(AutoencoderKL(width=16)).double(), randn(3, 3, 8, 8, dtype=torch.float64)
    for weight in (0.0, 0.1):
        ours = autoencoder_loss(model, x, weight, seeded(5))
        latents = model.encode(x)
        normal = Normal(latents.mean, (latents.log_variance / 2).exp())
        z = normal.loc + normal.scale * torch.randn(3, 4, 2, 2, generator=seeded(5), dtype=torch.float64)
        divergence = kl_divergence(normal, Normal(0.0, 1.0)).sum()
        error = F.l1_loss(model.decode(z), x, reduction="sum")
        theirs = (error + weight * divergence) / x.numel()
        agrees_with(autoencoder_loss, "torch.distributions.kl_divergence", ours, theirs, rtol=1e-12)
    alone = autoencoder_loss(model, x[:1], 0.0, seeded(5))
    z = model.encode(x[:1]).sample(seeded(5))
    assert alone.item() == pytest.approx(F.l1_loss(model.decode(z), x[:1]).item(), rel=1e-12)
    small = autoencoder_loss(model, x, generator=seeded(5))
    assert torch.equal(small, autoencoder_loss(model, x, 1e-6, seeded(5)))
    small.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize("length", [1, 5, 8])
def test_the_text_encoder_is_clip_s(agrees_with, length):
    ours = shuffled(TextEncoder(vocab_size=20, dim=32, length=8, layers=3, heads=4))
    config = CLIPTextConfig(
        vocab_size=20,
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=8,
        hidden_act="quick_gelu",
        bos_token_id=0,
        eos_token_id=19,
        pad_token_id=0,
    )
    weights = {
        "embeddings.token_embedding.weight": ours.tokens.weight,
        "embeddings.position_embedding.weight": ours.positions,
        **prefixed("final_layer_norm", ours.layers.norm.state_dict()),
    }
    for i, layer in enumerate(ours.layers.layers):
        for kind in ("weight", "bias"):
            parts = getattr(layer.self_attn, f"in_proj_{kind}").chunk(3)
            for name, part in zip("qkv", parts, strict=True):
                weights[f"encoder.layers.{i}.self_attn.{name}_proj.{kind}"] = part
        for mine, other in [
            (layer.self_attn.out_proj, "self_attn.out_proj"),
            (layer.norm1, "layer_norm1"),
            (layer.norm2, "layer_norm2"),
            (layer.linear1, "mlp.fc1"),
            (layer.linear2, "mlp.fc2"),
        ]:
            weights |= prefixed(f"encoder.layers.{i}.{other}", mine.state_dict())
    clip = load(CLIPTextModel(config), weights)
    tokens = torch.randint(0, 20, (3, length), generator=seeded())
    with torch.no_grad():
        theirs = clip(tokens).last_hidden_state
        agrees_with(TextEncoder, "transformers.CLIPTextModel", ours(tokens), theirs, atol=1e-5)
        assert torch.equal(ours.eval()(tokens), ours.train()(tokens))


def test_words_see_only_those_before_them():
    encoder = shuffled(TextEncoder(vocab_size=9, dim=8, length=6, layers=2, heads=2))
    first, second = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 2, 3, 5]])
    one, other = encoder(first), encoder(second)
    assert torch.allclose(one[:, :3], other[:, :3], atol=1e-6)
    assert not torch.allclose(one[:, 3], other[:, 3], atol=1e-3)
    assert encoder(first[:0]).shape == (0, 4, 8)
    assert encoder(first.int()).equal(one)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = TextEncoder(9, 8)
    assert whole.positions.shape == (77, 8)
    assert 0.015 < whole.positions.std().item() < 0.025
    assert len(whole.layers.layers) == 2
    assert whole.layers.layers[0].self_attn.num_heads == 4
    refused(TextEncoder, 9, 8, heads=3, message="heads must divide dim, got dim 8 and heads 3")
    for tokens in (torch.zeros(1, 7).long(), torch.zeros(4).long(), torch.zeros(1, 4)):
        text = f"expected integers (B, L), L at most 6, got {tuple(tokens.shape)} of {tokens.dtype}"
        refused(encoder, tokens, message=text)
    assert encoder(torch.zeros(1, 6).long()).shape == (1, 6, 8)


@pytest.mark.parametrize(("context_dim", "heads"), [(6, 4), (None, 2), (6, 1)])
def test_cross_attention_is_that_of_diffusers(agrees_with, context_dim, heads):
    ours = shuffled(CrossAttention(8, context_dim, heads))
    theirs = Attention(8, context_dim, heads=heads, dim_head=8 // heads)
    load(theirs, attention_weights(ours))
    x, context = randn(2, 5, 8), None if context_dim is None else randn(2, 3, context_dim, seed=1)
    reference = theirs(x, encoder_hidden_states=context)
    agrees_with(
        CrossAttention, "diffusers.models.attention_processor.Attention", ours(x, context), reference, atol=1e-6
    )
    assert ours(x[:0], None if context is None else context[:0]).shape == (0, 5, 8)


def test_cross_attention_by_hand(agrees_with):
    layer = shuffled(CrossAttention(4, 3, 2)).double()
    x, context = randn(1, 5, 4, dtype=torch.float64), randn(1, 2, 3, seed=1, dtype=torch.float64)
    weight = {name: getattr(layer, name).weight.detach().numpy() for name in ("query", "key", "value", "output")}
    q, k, v = (a @ weight[n].T for a, n in ((x[0].numpy(), "query"), (context[0].numpy(), "key"), (context[0].numpy(), "value")))
    mixed = np.zeros((5, 4))
    for head in (slice(0, 2), slice(2, 4)):
        score = np.exp(q[:, head] @ k[:, head].T / math.sqrt(2))
        mixed[:, head] = score / score.sum(1, keepdims=True) @ v[:, head]
    out = mixed @ weight["output"].T + layer.output.bias.detach().numpy()
    agrees_with(CrossAttention, "brute force: head by head", layer(x, context)[0], out, atol=2e-15)
    for dim, heads in [(4, 3), (0, 1), (4, 0)]:
        text = f"heads must divide dim, got dim {dim} and heads {heads}"
        refused(CrossAttention, dim, 3, heads, message=text)
    assert CrossAttention(1, 1, 1)(torch.zeros(1, 1, 1)).shape == (1, 1, 1)


def theirs_of_transformer(layer, context_dim, heads):
    dim = layer.enter.in_channels
    theirs = Transformer2DModel(
        heads,
        dim // heads,
        in_channels=dim,
        num_layers=1,
        cross_attention_dim=context_dim,
        norm_num_groups=math.gcd(32, dim),
    )
    return load(theirs, transformer_weights(layer))


@pytest.mark.parametrize("self_attention", [True, False])
@pytest.mark.parametrize("dim", [32, 48])
def test_the_spatial_transformer_is_that_of_diffusers(agrees_with, self_attention, dim):
    layer = shuffled(SpatialTransformer(dim, 6, 4, self_attention)).double()
    x, context = randn(2, dim, 3, 5, dtype=torch.float64), randn(2, 7, 6, seed=1, dtype=torch.float64)
    theirs = theirs_of_transformer(layer, 6, 4)(x, encoder_hidden_states=context, return_dict=False)[0]
    name = "diffusers.models.transformers.transformer_2d.Transformer2DModel"
    agrees_with(SpatialTransformer, name, layer(x, context), theirs, atol=5e-14)
    assert (layer.among is None) != self_attention
    assert SpatialTransformer(dim, 6, 4).among is not None
    assert len(layer.norms) == 3
    fresh = SpatialTransformer(dim, 6, 4).double()
    assert torch.equal(fresh(x, context), x)


def stage_weights(stage, number, place):
    return {
        **prefixed(f"{place}.resnets.{number}", residual_weights(stage.residual)),
        **prefixed(f"{place}.attentions.{number}", transformer_weights(stage.attention)),
    }


def theirs_of_unet(unet, widths, context_dim, heads, blocks):
    theirs = UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",) * len(widths),
        up_block_types=("CrossAttnUpBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=blocks,
        cross_attention_dim=context_dim,
        attention_head_dim=heads,  # diffusers' name for the number of heads
        norm_num_groups=32,
    )
    weights = prefixed("conv_in", unet.first.state_dict())
    weights |= prefixed("time_embedding.linear_1", unet.code.up.state_dict())
    weights |= prefixed("time_embedding.linear_2", unet.code.out.state_dict())
    for ours, names in [(unet.down, ("down_blocks", "downsamplers")), (unet.up, ("up_blocks", "upsamplers"))]:
        level = number = 0
        for layer in ours:
            place = f"{names[0]}.{level}"
            if isinstance(layer, nn.Conv2d):
                weights |= prefixed(f"{place}.{names[1]}.0.conv", layer.state_dict())
            elif isinstance(layer, Upsample):
                weights |= prefixed(f"{place}.{names[1]}.0", layer.state_dict())
            else:
                weights |= stage_weights(layer, number, place)
                number += 1
                continue
            level, number = level + 1, 0
    weights |= stage_weights(unet.middle, 0, "mid_block")
    weights |= prefixed("mid_block.resnets.1", residual_weights(unet.after))
    weights |= prefixed("conv_norm_out", unet.head[0].state_dict())
    weights |= prefixed("conv_out", unet.head[2].state_dict())
    return load(theirs, weights)


@pytest.mark.parametrize(
    ("widths", "blocks", "attend"),
    [((32, 64), 1, (False, True)), ((32, 64), 2, (True, True)), ((32, 32, 64), 1, (True, False, False)), ((32,), 1, (True,))],
)
def test_the_unet_is_that_of_diffusers_with_the_same_weights(agrees_with, widths, blocks, attend):
    unet = shuffled(UNet(4, widths, 6, 4, blocks, attend))
    theirs = theirs_of_unet(unet, widths, 6, 4, blocks)
    x, t, context = randn(2, 4, 8, 4), torch.tensor([3, 940]), randn(2, 5, 6, seed=1)
    with torch.no_grad():
        reference = theirs(x, t, context).sample
        scale = float(reference.abs().max())
        ours = unet(x, t, context)
    agrees_with(UNet, "diffusers.UNet2DConditionModel", ours / scale, reference / scale, atol=2e-5)


def test_the_unet_starts_at_zero_in_any_precision_and_refuses_odd_sizes():
    unet = UNet(context_dim=6)
    x, t, context = randn(2, 4, 4, 6), torch.tensor([3, 940]), randn(2, 5, 6, seed=1)
    assert torch.equal(unet(x, t, context), 0 * x)
    default = UNet()
    assert default.first.weight.shape == (48, 4, 3, 3)
    assert default.middle.attention.words.key.weight.shape == (96, 64)
    assert default.middle.attention.words.split == (4, 24)
    assert [len(default.down), len(default.up)] == [3, 5]
    assert default.down[0].attention.among is None
    assert default.middle.attention.among is not None
    shuffled(unet)
    exact = copy.deepcopy(unet).double()(x.double(), t, context.double())
    scale = exact.abs().max()
    for dtype, close in [(torch.bfloat16, 0.1), (torch.float32, 1e-4)]:
        ours = copy.deepcopy(unet).to(dtype)(x.to(dtype), t, context.to(dtype))
        assert ours.dtype == dtype
        assert torch.allclose(ours.double() / scale, exact / scale, atol=close)
    assert unet(x[:0], t[:0], context[:0]).shape == (0, 4, 4, 6)
    for shape in [(2, 4, 5, 4), (2, 4, 4, 5)]:
        refused(unet, torch.zeros(shape), t, context, message=f"expected multiples of 2, got torch.Size({list(shape)})")
    with pytest.raises(ValueError, match="zip"):
        UNet(widths=(32, 64), self_attention=(True,))


# --- training and sampling -----------------------------------------------------------------------


class Spy:
    """A model that predicts what it is told to, and remembers what it was given."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x_t, t, context):
        self.seen = x_t, t, context
        return self.factor * x_t


@pytest.mark.parametrize("prediction", ["noise", "velocity"])
def test_the_loss_is_the_error_of_the_noise_at_random_steps(agrees_with, prediction):
    x0, context, null = randn(500, 2, 3), torch.ones(500, 4, 5), torch.zeros(1, 4, 5)
    model, scheduler = Spy(0.5), DDPMScheduler(**SETTINGS)
    levels = scheduler.alphas_cumprod
    loss = diffusion_loss(model, x0, context, levels, null, 0.25, prediction, seeded(6))
    x_t, t, words = model.seen
    generator = seeded(6)
    assert torch.equal(t, torch.randint(1000, (500,), generator=generator))
    noise = torch.randn(500, 2, 3, generator=generator)
    noised = scheduler.add_noise(x0, noise, t)
    target = noise if prediction == "noise" else scheduler.get_velocity(x0, noise, t)
    theirs = ((0.5 * noised - target) ** 2).double().mean()
    agrees_with(diffusion_loss, "diffusers.DDPMScheduler.add_noise", loss, theirs, rtol=1e-5)
    agrees_with(diffusion_loss, "diffusers.DDPMScheduler.add_noise", x_t, noised, atol=1e-6)
    dropped = torch.rand(500, generator=generator) < 0.25
    assert torch.equal(words[:, 0, 0] == 0, dropped)
    assert torch.equal((words == 0).all((1, 2)), dropped)
    assert 0.18 < dropped.double().mean() < 0.32


def test_prompts_are_dropped_one_time_in_ten_if_there_is_an_empty_one():
    x0, context, null = torch.zeros(4000, 1), torch.ones(4000, 1, 1), torch.zeros(1, 1, 1)
    model = Spy(0.0)
    assert torch.equal(
        diffusion_loss(model, x0, context, LEVELS, null, generator=seeded()),
        diffusion_loss(model, x0, context, LEVELS, null, 0.1, "noise", seeded()),
    )
    assert 0.08 < (model.seen[2] == 0).double().mean() < 0.12
    diffusion_loss(model, x0, context, LEVELS, generator=seeded())
    assert (model.seen[2] == 1).all()
    for drop, left in [(0.0, 4000), (1.0, 0)]:
        diffusion_loss(model, x0, context, LEVELS, null, drop, generator=seeded())
        assert model.seen[2].sum() == left
    short = diffusion_loss(model, x0, context, LEVELS[:3], generator=seeded())
    assert sorted(set(model.seen[1].tolist())) == [0, 1, 2]
    assert float(short) == pytest.approx(1, abs=0.1)


def test_losses_that_make_no_sense_are_refused():
    x0, context = torch.zeros(2, 1), torch.zeros(2, 3, 4)
    head = 'expected prediction "noise" or "velocity" and drop in 0 to 1, got '
    refused(diffusion_loss, Spy(1), x0, context, LEVELS, prediction="x0", message=head + "'x0' and 0.1")
    for drop in (-0.1, 1.1):
        text = head + f"'noise' and {drop}"
        refused(diffusion_loss, Spy(1), x0, context, LEVELS, drop=drop, message=text)
    for shapes in [((2, 3, 4), (1, 3, 5)), ((2, 3, 4), (3, 3, 4)), ((2, 3), (1, 3)), ((2, 3, 4), (2, 4, 4))]:
        words, null = torch.zeros(shapes[0]), torch.zeros(shapes[1])
        text = f"expected context (B, L, D) and null_context (1, L, D), got {shapes[0]} and {shapes[1]}"
        refused(diffusion_loss, Spy(1), x0, words, LEVELS, null, message=text)
        refused(sample, Spy(1), words, null, (1,), LEVELS, message=text)


def test_gradients_reach_the_words_and_the_empty_prompt():
    unet, encoder = shuffled(UNet(4, (8,), 6, 2, 1, (True,))), TextEncoder(5, 6, 3, 1, 2)
    context, null = encoder(torch.tensor([[1, 2, 3]] * 8)), encoder(torch.zeros(1, 3).long())
    null.retain_grad()
    diffusion_loss(unet, randn(8, 4, 2, 2), context, LEVELS, null, 0.5, generator=seeded()).backward()
    for module in (unet, encoder):
        assert all(weight.grad is not None for weight in module.parameters())
    assert null.grad.abs().sum() > 0


def best_noise(mean, deviation, levels):
    """The noise to expect in x_t if the data are normal: exact, so that sampling has to return them."""

    def model(x_t, t, context):
        a = levels[t].reshape(-1, *[1] * (x_t.ndim - 1))
        center = mean(context).reshape(a.shape)
        return (1 - a).sqrt() * (x_t - a.sqrt() * center) / (a * deviation**2 + 1 - a)

    return model


def first_word(context):
    return context[:, 0, 0]


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_sampling_normal_data_gives_their_mean_and_spread_and_guidance_moves_the_mean(agrees_with, guidance):
    """Each step is a line in x_t; two starts find its slope, the spread, and where it goes."""
    levels = (1 - linear_betas(1000).double()).cumprod(0)  # ends in 0.00004: nearly noise alone
    model = best_noise(first_word, 0.5, levels)
    context, null = torch.full((2, 1, 1), 2.0).double(), torch.full((1, 1, 1), -1.0).double()
    starts = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    errors = []
    for steps in (125, 250, 500):
        low, high = sample(model, context, null, (1,), levels, guidance, steps, x_t=starts).flatten()
        errors.append([abs(float(low) - (-1 + guidance * 3)), abs(float(high - low) - 0.5)])
    agrees_with(
        sample,
        "closed form: mean and deviation of normal data",
        [float(low), float(high - low)],
        [-1 + guidance * 3, 0.5],
        atol=0.08,
    )
    assert errors[2][1] < 0.6 * errors[1][1] < 0.36 * errors[0][1]  # first order: halved with the step


def test_ddpm_returns_the_mean_and_spread_of_normal_data(agrees_with):
    betas = linear_betas(200, 0.0005, 0.1)
    levels = (1 - betas.double()).cumprod(0)
    model = best_noise(first_word, 0.5, levels)
    x = torch.randn(5000, generator=seeded(), dtype=torch.float64)
    context, generator = torch.full((5000, 1, 1), 2.0).double(), seeded(1)
    for t in reversed(range(200)):
        x = ddpm_step(x, model(x, torch.full((5000,), t), context), t, betas, generator)
    agrees_with(
        ddpm_step, "closed form: mean and deviation of normal data", [x.mean(), x.std()], [2.0, 0.5], atol=0.03
    )
    y = torch.randn(5000, 1, generator=seeded(), dtype=torch.float64)
    y = sample(model, context, 0 * context, (1,), levels, 1.0, 100, 1.0, seeded(1), y)
    agrees_with(sample, "closed form: mean and deviation of normal data", [y.mean(), y.std()], [2.0, 0.5], atol=0.06)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_sampling_is_diffusers_loop(agrees_with, eta):
    unet = shuffled(UNet(4, (8,), 6, 2, self_attention=(True,)))
    with torch.no_grad():
        unet.head[2].weight.mul_(0.02)
    context, null = randn(3, 5, 6), randn(1, 5, 6, seed=1)
    scheduler = ddim(5)
    ours = sample(unet, context, null, (4, 4, 6), scheduler.alphas_cumprod, 3.0, 5, eta, seeded(8))
    generator = seeded(8)
    x = start = torch.randn(3, 4, 4, 6, generator=generator)
    with torch.no_grad():
        for t in scheduler.timesteps:
            cond = unet(x, t.expand(3), context)
            uncond = unet(x, t.expand(3), null.expand(3, 5, 6))
            x = scheduler.step(uncond + 3.0 * (cond - uncond), t, x, eta=eta, generator=generator).prev_sample
    agrees_with(sample, "diffusers.DDIMScheduler.step", ours, x, atol=2e-5)
    assert not ours.requires_grad
    if eta == 0:
        before = start.clone()
        again = sample(unet, context, null, (4, 4, 6), scheduler.alphas_cumprod, 3.0, 5, x_t=start)
        assert torch.equal(start, before)
        assert torch.equal(again, ours)


def test_sampling_s_defaults_and_negative_prompts():
    calls = []

    def model(x_t, t, context):
        calls.append((t.tolist()[:1], len(x_t)))
        return context[:, 0, :1]

    context, null, start = torch.ones(2, 1, 3), torch.zeros(1, 1, 3), torch.zeros(2, 1)
    ours = sample(model, context, null, (1,), LEVELS, x_t=start)
    assert [t for [t], _ in calls] == list(range(981, 0, -20))
    assert {size for _, size in calls} == {4}
    a = LEVELS[981]
    constant = -7.5 * (1 - a).sqrt() / a.sqrt()  # the same noise at each step leads straight to x0
    assert torch.allclose(ours.double(), constant.expand(2, 1), rtol=1e-4)
    negative = sample(model, context, torch.tensor([1.0, 0.0])[:, None, None].expand(2, 1, 3), (1,), LEVELS, x_t=start)
    assert torch.allclose(negative[:1].double(), constant[None, None] / 7.5, rtol=1e-4)
    assert torch.equal(negative[1:], ours[1:])
    assert sample(model, context[:0], null, (1,), LEVELS, steps=2).shape == (0, 1)
    drawn = sample(lambda x, t, c: 0 * x, context.double(), null.double(), (2, 3), LEVELS, steps=1, generator=seeded())
    first = torch.randn(2, 2, 3, generator=seeded(), dtype=torch.float64)
    assert torch.allclose(drawn, first / LEVELS[1].sqrt(), rtol=1e-12)


def test_the_average_is_torch_s(agrees_with):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = copy.deepcopy(model)
    theirs = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True
    )
    theirs.update_parameters(model)  # its first call copies
    for step in range(3):
        shuffled(model, seed=step)
        model(randn(5, 3, seed=step))
        kept = copy.deepcopy(model.state_dict())
        ema_update(average, model, 0.9)
        theirs.update_parameters(model)
        assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())
    for name, value in theirs.module.state_dict().items():
        ours = average.state_dict()[name]
        if value.is_floating_point():
            agrees_with(ema_update, "torch.optim.swa_utils.AveragedModel", ours, value, atol=1e-6)
        else:
            assert torch.equal(ours, torch.tensor(3))
    for decay in (-0.1, 1.1):
        refused(ema_update, average, model, decay, message=f"decay must lie in 0 to 1, got {decay}")
    ema_update(average, model, 1.0)
    assert not torch.equal(average[0].weight, model[0].weight)
    slow = copy.deepcopy(average)
    ema_update(slow, model)
    ema_update(average, model, 0.999)
    assert torch.equal(slow[0].weight, average[0].weight)
    ema_update(average, model, 0.0)
    assert torch.equal(average[0].weight, model[0].weight)
    assert average[0].weight.requires_grad


# --- the exercises' solutions --------------------------------------------------------------------


def test_the_rescaled_schedule_ends_in_pure_noise(agrees_with):
    for betas in (BETAS.double(), linear_betas(10).double(), torch.tensor([0.1, 0.2]).double()):
        ours = zero_terminal_snr(betas)
        name = "diffusers.schedulers.scheduling_ddim.rescale_zero_terminal_snr"
        agrees_with(zero_terminal_snr, name, ours, rescale_zero_terminal_snr(betas.clone()), atol=5e-14)
        levels = (1 - ours).cumprod(0)
        assert levels[-1] == 0
        assert float(levels[0]) == pytest.approx(1 - float(betas[0]), rel=1e-12)
        assert ours[-1] == 1
    assert zero_terminal_snr(BETAS).dtype == torch.float32
    head = "expected (T,) betas in 0 to 1, T >= 2, got "
    for bad in ([0.5], [0.0, 0.5], [0.5, 1.0], [[0.1, 0.2]]):
        refused(zero_terminal_snr, torch.tensor(bad), message=head + f"{torch.tensor(bad)}")


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_model_of_the_velocity_samples_as_diffusers_does(agrees_with, guidance):
    def predict(x_t, t, context):
        return (0.3 + 0.0002 * t.reshape(-1, 1)) * x_t + context.mean((1, 2))[:, None]

    context, null, start = randn(3, 2, 2), torch.zeros(1, 2, 2), randn(3, 5, seed=1)
    scheduler = ddim(20, prediction_type="v_prediction")
    model = as_noise_model(predict, scheduler.alphas_cumprod)
    ours = sample(model, context, null, (5,), scheduler.alphas_cumprod, guidance, 20, x_t=start)
    x = start
    for t in scheduler.timesteps:
        cond, uncond = predict(x, t, context), predict(x, t, null)
        x = scheduler.step(uncond + guidance * (cond - uncond), t, x).prev_sample
    agrees_with(as_noise_model, "diffusers.DDIMScheduler.step", ours, x, atol=3e-5)


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_rescaled_guidance_is_that_of_diffusers(agrees_with, share):
    cond, uncond = pair(3, 4, 5, 6)
    ours = rescaled_guidance(cond, uncond, 7.5, share)
    theirs = rescale_noise_cfg(uncond + 7.5 * (cond - uncond), cond, share)
    name = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion.rescale_noise_cfg"
    agrees_with(rescaled_guidance, name, ours, theirs, atol=1e-5)
    if share == 1:
        assert torch.allclose(ours.std((1, 2, 3)), cond.std((1, 2, 3)), rtol=1e-5)
    assert torch.equal(rescaled_guidance(cond, uncond, 7.5), rescaled_guidance(cond, uncond, 7.5, 0.7))
    for bad in (-0.1, 1.1):
        refused(rescaled_guidance, cond, uncond, 7.5, bad, message=f"rescale must lie in 0 to 1, got {bad}")


def test_weights_stop_at_the_snr_of_gamma(agrees_with):
    scheduler, t = DDPMScheduler(**SETTINGS), torch.arange(1000)
    snr = compute_snr(scheduler, t)
    levels = scheduler.alphas_cumprod
    for gamma in (1.0, 5.0):
        capped = torch.minimum(snr, torch.tensor(gamma))
        ours = min_snr_weight(t, levels, gamma), min_snr_weight(t, levels, gamma, "velocity")
        for got, expected in zip(ours, (capped / snr, capped / (snr + 1)), strict=True):
            agrees_with(min_snr_weight, "diffusers.training_utils.compute_snr", got, expected, rtol=3e-6)
            assert got.dtype == levels.dtype
    assert torch.equal(min_snr_weight(t, levels), min_snr_weight(t, levels, 5.0, "noise"))
    none = min_snr_weight(torch.tensor([0, 0]), torch.tensor([0.0]))
    assert none.tolist() == [1.0, 1.0]
    assert min_snr_weight(torch.tensor([0]), torch.tensor([0.0]), prediction="velocity").tolist() == [0.0]
    head = 'expected gamma > 0 and prediction "noise" or "velocity", got '
    refused(min_snr_weight, t, levels, 0.0, message=head + "0.0 and 'noise'")
    refused(min_snr_weight, t, levels, prediction="x0", message=head + "5.0 and 'x0'")
    refused(min_snr_weight, t + 1, levels, message="t must lie in 0 to 999, got 1 to 1000")
    assert min_snr_weight(t[:0], levels).shape == (0,)
