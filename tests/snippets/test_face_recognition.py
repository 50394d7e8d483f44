"""What the page on face_recognition claims, proved."""

from __future__ import annotations

import pytest
import torch

from snippets.face_recognition import face_recognition_example


def test_agrees_with_numpy(agrees_with):
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    agrees_with(face_recognition_example, "numpy.square", face_recognition_example(x), x.numpy() ** 2)


def test_integers_are_refused():
    with pytest.raises(ValueError, match=r"torch\.int64"):
        face_recognition_example(torch.tensor([1]))
