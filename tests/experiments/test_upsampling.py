"""The results that the page on upsampling speaks of."""

from __future__ import annotations

from scripts.experiments.upsampling import squares


def test_the_largest_square_is_sixteen():
    assert squares()["largest"] == 16.0
