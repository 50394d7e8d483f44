"""The results that the page on stable_diffusion speaks of."""

from __future__ import annotations

from scripts.experiments.stable_diffusion import squares


def test_the_largest_square_is_sixteen():
    assert squares()["largest"] == 16.0
