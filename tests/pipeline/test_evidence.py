"""The comparison behind `agrees_with`, and what a record is worth."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from scripts.pipeline import evidence
from scripts.pipeline.comparison import Comparison, compare
from scripts.pipeline.source import all_snippets


def compared(ours: Any, theirs: Any, atol: float = 0.0, rtol: float = 0.0) -> Comparison:
    return compare("t", SimpleNamespace(__qualname__="f"), "numpy.f", ours, theirs, atol, rtol)


def test_equal_values_agree():
    seen = compared(torch.ones(3), np.ones(3))
    assert seen.within
    assert (seen.max_abs, seen.count, seen.dtype) == (0.0, 3, "float32")


def test_the_largest_errors_are_recorded():
    seen = compared(np.array([1.0, 2.5]), np.array([1.0, 2.0]), atol=1.0)
    assert seen.within
    assert seen.max_abs == 0.5
    assert seen.max_rel == 0.25


@pytest.mark.parametrize(
    ("atol", "rtol", "within"), [(0.1, 0, False), (0.5, 0, True), (0, 0.25, True), (0, 0.2, False)]
)
def test_the_tolerance_decides(atol, rtol, within):
    assert compared(np.array([2.5]), np.array([2.0]), atol, rtol).within is within


def test_shapes_must_be_equal():
    seen = compared(np.ones((1, 3)), np.ones(3))
    assert not seen.within
    assert "shape (1, 3)" in seen.complaint


def test_nan_agrees_with_nan_only():
    assert compared(np.array([np.nan]), np.array([np.nan])).within
    assert not compared(np.array([np.nan]), np.array([1.0]), atol=1e9).within
    assert not compared(np.array([1.0]), np.array([np.nan]), atol=1e9).within


def test_infinities_must_have_the_same_sign():
    assert compared(np.array([np.inf]), np.array([np.inf])).within
    assert not compared(np.array([np.inf]), np.array([-np.inf]), atol=1.0).within


def test_integers_and_booleans_compare_exactly():
    assert compared([1, 2], [1, 2]).within
    assert not compared([1, 2], [1, 3], atol=5).within
    assert not compared(True, False).within


def test_empty_arrays_agree():
    assert compared(torch.empty(0, 2), np.empty((0, 2))).within


@pytest.fixture
def snippet():
    return all_snippets()["dilated_convolution.effective_kernel_size"]


@pytest.fixture
def record(snippet, monkeypatch):
    """A record that is good enough; tests spoil it."""
    entry = {
        "hash": snippet.hash,
        "tests": ["t"],
        "failed": [],
        "lines": {"executed": 3, "missing": []},
        "branches": {"executed": 0, "missing": []},
        "references": [{"reference": "numpy.f", "max_abs": 1e-7, "atol": 1e-6, "floor": 0.0}],
    }
    monkeypatch.setattr(evidence, "load", lambda topic: {"snippets": {snippet.owner: entry}})
    return entry


def test_a_complete_record_verifies(snippet, record):
    assert evidence.standing(snippet).state == evidence.VERIFIED


def test_a_changed_source_is_unverified(snippet, record):
    record["hash"] = "0"
    assert evidence.standing(snippet).state == evidence.UNVERIFIED


def test_a_failed_test_is_failing(snippet, record):
    record["failed"] = ["t"]
    assert evidence.standing(snippet).state == evidence.FAILING


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("tests", [], "no test executes it"),
        ("lines", {"executed": 2, "missing": [30]}, "30 is executed by no test"),
        ("branches", {"executed": 1, "missing": [[30, 31]]}, "is taken by no test"),
        ("references", [], "no independent reference"),
        (
            "references",
            [{"reference": "numpy.f", "max_abs": 1e-9, "atol": 1e-6, "floor": 0.0}],
            "more than 100 times the largest error seen",
        ),
    ],
)
def test_a_gap_leaves_it_unverified(snippet, record, key, value, reason):
    record[key] = value
    found = evidence.standing(snippet)
    assert found.state == evidence.UNVERIFIED
    assert reason in found.reason


def test_rounding_alone_justifies_a_small_tolerance(snippet, record):
    record["references"] = [{"reference": "numpy.f", "max_abs": 0.0, "atol": 1e-15, "floor": 1e-14}]
    assert evidence.standing(snippet).state == evidence.VERIFIED


def test_a_helper_that_changes_changes_the_hash(snippet):
    text = snippet.module.text.replace("raise ValueError", "raise  ValueError", 1)
    module = replace(snippet.module, text=text)
    assert replace(snippet, module=module).hash != snippet.hash
