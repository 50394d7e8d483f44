"""What the page on stable_diffusion claims, proved."""

from __future__ import annotations

import pytest
import torch

from snippets.stable_diffusion import stable_diffusion_example


def test_agrees_with_numpy(agrees_with):
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    agrees_with(stable_diffusion_example, "numpy.square", stable_diffusion_example(x), x.numpy() ** 2)


def test_integers_are_refused():
    with pytest.raises(ValueError, match=r"torch\.int64"):
        stable_diffusion_example(torch.tensor([1]))
