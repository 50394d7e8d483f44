"""The results that the page on processes_and_threads speaks of."""

from __future__ import annotations

from scripts.experiments.processes_and_threads import squares


def test_the_largest_square_is_sixteen():
    assert squares()["largest"] == 16.0
