"""Measurements for stable_diffusion."""

from __future__ import annotations

from typing import Any

import torch

from scripts.pipeline.experiment import experiment
from snippets.stable_diffusion import stable_diffusion_example


@experiment
def squares() -> dict[str, Any]:
    """The squares of 0 to 4, as a table."""
    x = torch.arange(5.0)
    rows = [{"x": a, "square": b} for a, b in zip(x.tolist(), stable_diffusion_example(x).tolist(), strict=True)]
    return {"largest": rows[-1]["square"], "rows": rows}
