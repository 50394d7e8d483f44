"""What the page on detr claims, proved."""

from __future__ import annotations

import pytest
import torch

from snippets.detr import detr_example


def test_agrees_with_numpy(agrees_with):
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    agrees_with(detr_example, "numpy.square", detr_example(x), x.numpy() ** 2)


def test_integers_are_refused():
    with pytest.raises(ValueError, match=r"torch\.int64"):
        detr_example(torch.tensor([1]))
