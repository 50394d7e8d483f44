"""The results that the page on face_recognition speaks of."""

from __future__ import annotations

from scripts.experiments.face_recognition import squares


def test_the_largest_square_is_sixteen():
    assert squares()["largest"] == 16.0
