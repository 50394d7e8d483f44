"""The results that the page on linear_attention speaks of."""

from __future__ import annotations

from scripts.experiments.linear_attention import squares


def test_the_largest_square_is_sixteen():
    assert squares()["largest"] == 16.0
