"""The results that the page on spatial_pyramid_pooling speaks of."""

from __future__ import annotations

from scripts.experiments.spatial_pyramid_pooling import squares


def test_the_largest_square_is_sixteen():
    assert squares()["largest"] == 16.0
