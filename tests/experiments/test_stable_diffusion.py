"""The measurements of the Stable Diffusion page: recounted another way, and plausible after a short training."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from scripts.experiments import stable_diffusion as experiments
from snippets.stable_diffusion import AutoencoderKL, UNet


def test_captions_name_what_is_drawn_and_the_pairs_held_out() -> None:
    labels = experiments._labels()
    captions = [experiments._caption(label) for label in labels.tolist()]
    assert len(set(captions)) == 48
    assert captions[0] == "a red circle top left"
    new = {experiments._caption(label) for label in experiments._labels(held_out=True).tolist()}
    assert new == {c for c in captions if "blue circle" in c or "yellow triangle" in c}
    assert len(new) + len(experiments._labels(held_out=False)) == 48
    tokens = experiments._tokens(labels)
    words = [" ".join(experiments._WORDS[i] for i in row) for row in tokens.tolist()]
    assert words == [f"<start> {caption} <end>" for caption in captions]
    assert tokens.shape[1] == experiments._NULL.shape[1]

    pictures = experiments._draw(labels, torch.Generator().manual_seed(1))
    again = experiments._draw(labels, torch.Generator().manual_seed(1))
    assert torch.equal(pictures, again)
    assert pictures.abs().max() <= 1
    colored = pictures.amax(1) - pictures.amin(1) > 0.5
    row, column = (colored.float().mean(axis) for axis in (2, 1))
    place = torch.arange(32.0)
    middle = [(mass * place).sum(1) / mass.sum(1) > 15.5 for mass in (row, column)]
    assert torch.equal(torch.stack(middle, 1).long(), labels[:, 2:])


def test_form_is_high_for_real_shapes_and_low_for_others() -> None:
    labels = experiments._labels().repeat(5, 1)
    pictures = experiments._draw(labels, torch.Generator().manual_seed(2))
    right = experiments._form(pictures, labels[:, 1])
    wrong = experiments._form(pictures, (labels[:, 1] + 1) % 3)
    assert right.min() > 0.85
    assert right.mean() > 0.93
    assert (right > wrong).all()
    gray = experiments._gray(pictures)
    assert torch.allclose(gray, pictures[:, 0, 0, 0], atol=1e-3)


def test_schedules_leave_what_the_papers_say() -> None:
    result = experiments.schedules()
    assert result["scaled_linear_last"] == pytest.approx(0.0683, abs=5e-5)
    assert result["linear_last"] == pytest.approx(0.0064, abs=5e-5)
    assert result["chain_error"] < 1e-12
    assert (result["start_50"], result["scaled_linear_half"]) == (981, 354)
    for name in ("scaled_linear", "linear", "cosine"):
        assert (result[f"snr_{name}"].diff() < 0).all()
        half = result[f"{name}_half"]
        assert result[f"signal_{name}"][half] < 0.5**0.5 <= result[f"signal_{name}"][half - 1]


def test_exact_noise_is_the_gradient_of_the_density() -> None:
    levels, centers = experiments._levels(), experiments._centers()
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    t = 300
    variance = levels[t] * 0.12**2 + 1 - levels[t]
    normal = torch.distributions.MultivariateNormal(
        levels[t].sqrt() * centers, variance * torch.eye(2, dtype=torch.float64)
    )
    normal.log_prob(x[:, None]).logsumexp(1).sum().backward()
    noise = experiments._exact_noise(x.detach(), t, levels, centers)
    assert x.grad is not None
    assert torch.allclose(noise, -(1 - levels[t]).sqrt() * x.grad, atol=1e-12)


def test_samplers_find_the_heaps_and_only_ddim_repeats_itself() -> None:
    result = experiments.trajectories(samples=400, seeds=(0, 1), counts=(2, 10, 30))
    for name in ("ddim", "ddpm"):
        errors = [row[name] for row in result["rows"]]
        assert all(a > b for a, b in pairwise(errors))
        assert errors[-1] < 0.12
        assert (torch.cdist(result[f"{name}_way"][-1], result["centers"]).amin(1) < 0.6).all()
    assert result["ddim_same"] == 1
    assert result["ddpm_same"] == pytest.approx(0.2, abs=0.08)
    assert 1 <= result["ddim_length"] < 1.5 < result["ddpm_length"]
    assert 0 < result["floor"] < 0.12


def test_guidance_obeys_then_narrows_and_overshoots() -> None:
    result = experiments.guidance(samples=400, steps=100)
    assert result["obeyed_0"] == pytest.approx(0.4, abs=0.07)
    assert result["obeyed_1"] == 1
    assert 0.6 < result["spread_1"] < 1.05  # a hundred steps narrow the heaps a little
    assert result["spread_7_5"] < result["spread_3"] < result["spread_1"]
    assert result["away_7_5"] > result["away_3"] > result["away_1"]


def test_the_mean_brightness_is_lost_as_the_closed_form_says() -> None:
    result = experiments.brightness(sides=(1, 8, 64), samples=2000)
    assert result["largest_error"] < 0.08
    assert result["ddim_1"] == pytest.approx(1)
    assert result["ddpm_1"] == pytest.approx(1)
    a = experiments._levels()[-1].item()
    assert result["ddim_64"] == pytest.approx((4096 * a + 1 - a) ** -0.5)
    assert result["snr_64"] == pytest.approx(4096 * a / (1 - a))
    assert result["ddim_64"] < result["ddpm_64"] < 0.35


def test_operations_are_those_counted_by_hand() -> None:
    counted = experiments._operations(torch.nn.Conv2d(3, 5, 3, padding=1), torch.zeros(1, 3, 8, 8))
    assert counted == {"all": 3 * 5 * 9 * 64, "attention": 0}
    attention = UNet(4, (16,), 8, 2, 1, (True,)).middle.attention.among
    assert attention is not None
    counted = experiments._operations(attention, torch.zeros(1, 10, 16))
    assert counted["attention"] == 2 * 10 * 10 * 16
    assert counted["all"] == 2 * 10 * 10 * 16 + 4 * 10 * 16 * 16


def test_pixels_cost_more_the_larger_the_factor() -> None:
    result = experiments.cost(picture=64, repeats=3)
    assert [row["side"] for row in result["rows"]] == [8, 16, 32, 64]
    assert all(a["ratio"] < b["ratio"] for a, b in pairwise(result["rows"]))
    assert all(a["share"] < b["share"] for a, b in pairwise(result["rows"]))
    assert 12 < result["toy_ratio"] < 20
    assert result["time_ratio"] > 1
    assert 8e8 < result["parameters"] < 1.1e9


def test_every_formula_mistake_is_wrong_by_what_the_page_says() -> None:
    result = experiments.published_mistakes(samples=4000)
    assert len(result["rows"]) == 8
    assert (result["latent_side_wrong"], result["latent_side_right"]) == (4096, 64)
    assert (result["guidance_scale_wrong"], result["guidance_scale_right"]) == (8.5, 7.5)
    assert (result["weights_sum_wrong"], result["weights_sum_right"]) == (2, 1)
    assert result["unscaled_wrong"] == pytest.approx(result["unscaled_right"] * 30.14, rel=1e-3)
    assert result["linear_betas_wrong"] < result["linear_betas_right"] == 354
    assert result["noise_at_zero_wrong"] == pytest.approx(0.00085**0.5, rel=0.05)
    assert result["noise_at_zero_right"] < 1e-9
    assert result["half_precision_wrong"] == 0
    assert result["half_precision_right"] == pytest.approx(0.00085**0.5, rel=0.05)
    assert (result["checkerboard_wrong"], result["checkerboard_right"]) == (4, 1)
    assert result["checkerboard_four_right"] == 1


def test_a_short_training_learns_and_gives_every_result() -> None:
    result = experiments.training(
        judge_steps=60,
        autoencoder_steps=30,
        unet_steps=40,
        seeds=(0, 1),
        scales=(0.0, 2.0),
        counts=(2, 3),
        pictures=48,
        repeats=1,
        sampling_steps=3,
    )
    assert result["real_accuracy"] > 0.1
    assert result["real_form"] > 0.8
    assert result["scale"] == pytest.approx(1 / result["latent_spread"], rel=1e-5)
    assert result["loss"][-1] < 0.9 * result["loss"][0]
    assert [row["scale"] for row in result["scale_rows"]] == [0, 2]
    assert result["best_accuracy"] == max(row["accuracy"] for row in result["scale_rows"])
    assert result["grid"].shape == (2, 6, 32, 32, 3)
    assert result["odd"].shape == (2, 6, 32, 32, 3)
    assert [row["steps"] for row in result["step_rows"]] == [2, 3]
    assert result["right_changed"] == 0
    assert all(row["changed"] > 0 for row in result["mistake_rows"])
    assert result["mistake_pictures"].shape == (len(result["mistake_names"]), 4, 32, 32, 3)
    assert {"judge", "autoencoder", "prompted"} == {name.split(".")[0] for name in result["weights"]}
    autoencoder = AutoencoderKL(width=64)
    prefix = "autoencoder."
    weights = {k.removeprefix(prefix): v for k, v in result["weights"].items() if k.startswith(prefix)}
    autoencoder.load_state_dict(weights)
    assert np.isfinite(result["loss"]).all()


def test_scale_zero_disregards_the_prompt_and_one_seed_gives_one_picture() -> None:
    torch.manual_seed(0)
    prompted = experiments._Prompted()
    for parameter in prompted.unet.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    generator = experiments._Generator(AutoencoderKL(width=16), prompted, torch.tensor(0.5), steps=2)
    labels = experiments._labels()[[0, 30]]
    for scale in (0.0, 3.0):
        here, there = (generator.latents(part, 5, scale) for part in (labels, labels.flip(0)))
        assert torch.allclose(here, there, atol=1e-5) == (scale == 0)
    assert torch.equal(generator.latents(labels, 5, 3.0), generator.latents(labels, 5, 3.0))
    assert torch.equal(
        generator.pictures(labels, 5, 1.0), generator.decode(generator.latents(labels, 5, 1.0))
    )
