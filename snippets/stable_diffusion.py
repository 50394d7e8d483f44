"""Stable diffusion: what this module gives, in a line."""

from __future__ import annotations

import torch
from torch import Tensor


def stable_diffusion_example(x: Tensor) -> Tensor:
    """Square every element; replace this by the first thing a reader would copy.

    Args:
        x: any shape, floating point.

    Returns:
        A tensor of the same shape.

    Raises:
        ValueError: `x` is not floating point.

    Source: name the paper, its section and equation.

    Example:
        >>> stable_diffusion_example(torch.tensor([1.0, -2.0]))
        tensor([1., 4.])
    """
    if not x.is_floating_point():
        raise ValueError(f"expected floating point, got {x.dtype}")
    return x * x
