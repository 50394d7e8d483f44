"""Tests that prove nothing are found."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest
import torch
from lxml import html
from torch import nn

from scripts.pipeline import gates
from scripts.pipeline.source import all_snippets

from .conftest import Project

MODULE = "snippets/dilated_convolution.py"
TESTS = "tests/snippets/test_dilated_convolution.py"


def faults(tmp_path, body: str) -> list[str]:
    path = tmp_path / "test_sample.py"
    path.write_text(body, encoding="utf-8")
    return [fault.message for fault in gates.tests_without_assertion(path)]


@pytest.mark.parametrize(
    "body",
    [
        "def test_a(x):\n    assert x.sum() == 3\n",
        "def test_a(agrees_with):\n    agrees_with(f, 'numpy.f', f(1), 2)\n",
        "def test_a():\n    with pytest.raises(ValueError):\n        f(0)\n",
        "def test_a():\n    torch.testing.assert_close(f(1), 2)\n",
        "def check(x):\n    assert f(x)\n\ndef test_a():\n    check(1)\n",
    ],
)
def test_a_test_that_asserts_is_left_alone(tmp_path, body):
    assert faults(tmp_path, body) == []


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("def test_a():\n    f(1)\n", "test_a asserts nothing"),
        ("def check(x):\n    f(x)\n\ndef test_a():\n    check(1)\n", "test_a asserts nothing"),
        ("def test_a():\n    f(1)\n    assert True\n", "test_a asserts a constant"),
        ("def test_a():\n    f(1)\n    assert 1 + 1 == 2\n", "test_a asserts a constant"),
        ("def test_a():\n    y = f(1)\n    assert y == y\n", "test_a asserts a constant"),
    ],
)
def test_a_test_that_cannot_fail_is_named_with_its_line(tmp_path, body, told):
    found = faults(tmp_path, body)
    assert len(found) == 1
    assert told in found[0]
    assert "test_sample.py:" in found[0]


def double(x):
    return 2 * x


class Layer(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(size)

    def forward(self, x):
        return x + 1


def test_hollowing_reaches_a_function_that_was_imported_already():
    imported = double
    with gates.hollow(sys.modules[__name__], "double"):
        assert imported(3) is None
    assert imported(3) == 6


def test_hollowing_a_class_empties_its_methods_and_restores_them():
    module = types.SimpleNamespace(Layer=Layer)
    with gates.hollow(module, "Layer"):
        assert Layer(0)(torch.ones(1)) is None
    with pytest.raises(ValueError, match="0"):
        Layer(0)
    assert Layer(1)(torch.ones(1)) == 2


@pytest.mark.parametrize(
    ("reference", "independent"),
    [
        ("brute force: every path", True),
        ("closed form: 2^n - 1", True),
        ("scipy.signal.correlate2d", True),
        ("torch.nn.functional.conv3d", True),
        ("torch.nn.functional.conv2d", False),
        ("snippets.dilated_convolution.coverage", False),
    ],
)
def test_a_reference_that_the_snippet_itself_calls_is_not_independent(reference, independent):
    snippet = all_snippets()["dilated_convolution.space_to_batch_conv"]
    assert "conv2d" in snippet.source
    assert gates.independent(reference, snippet) is independent


def test_each_kind_of_proof_that_proves_nothing_leaves_its_snippet_unverified(project: Project):
    """A test that never looks at the result, a tolerance that is too wide, a line that no test executes."""
    project.append(
        TESTS,
        "\n\ndef test_planted_without_looking():\n"
        "    steps = [effective_kernel_size(3, 2)]\n"
        "    assert len(steps) == 1\n"
        "\n\ndef test_planted_tolerance(agrees_with):\n"
        "    x, w = randn(1, 1, 9, 9), randn(1, 1, 3, 3)\n"
        "    agrees_with(dilated_conv2d, 'torch.nn.functional.conv2d', dilated_conv2d(x, w), F.conv2d(x, w), atol=0.1)\n",
    )
    project.edit(
        MODULE, "    distance = dilations[-1]", "    if dilations == [12345]:\n        return 0\n    distance = dilations[-1]"
    )
    errors = project.errors("build")
    for snippet, told in (
        ("effective_kernel_size", "test_planted_without_looking passes even when the snippet returns nothing"),
        ("dilated_conv2d", "tolerance 0.1 against"),
        ("hdc_max_distance", "executed by no test"),
    ):
        assert any(f"{snippet} is unverified" in line and told in line for line in errors), (snippet, errors)


def test_a_test_without_assertion_stops_the_build(project: Project):
    project.append(TESTS, "\n\ndef test_planted():\n    effective_kernel_size(3, 2)\n")
    errors = project.errors("build")
    assert any(
        line.startswith(f"Error: {TESTS}:") and "test_planted asserts nothing" in line for line in errors
    )


PLANTED = {  # one character each; none of them calls another, so one build shows that each is found
    "receptive_field": ("field, step = 1, 1", "field, step = 2, 1"),
    "hdc_max_distance": ("distance = dilations[-1]", "distance = dilations[-2]"),
    "is_gap_free": ("if rate > reach + 1", "if rate > reach + 2"),
    "live_taps": ("return (inside / size) ** 2", "return (inside / size) ** 3"),
}


def test_one_wrong_character_turns_the_page_to_failing_and_stops_the_build(project: Project):
    for planted in PLANTED.values():
        project.edit(MODULE, *planted)
    before = project.published()
    errors = project.errors("build")
    assert project.published() == before, "a failed build must leave the last good site as it was"
    preview = (
        "from pathlib import Path; from scripts.pipeline import site; "
        "site.render('en', Path('.build/look'), preview=True)"
    )
    subprocess.run([sys.executable, "-c", preview], cwd=project.root, env=project.environment(), check=True)
    page = project.root / ".build/look/en/computer-vision/dilated-convolution/index.html"
    tree = html.fromstring(page.read_text(encoding="utf-8"))
    for name in PLANTED:
        assert any(line.startswith(f"Error: {MODULE}") and f"{name} is failing" in line for line in errors), errors
        block = tree.xpath(f"//div[@data-snippet='dilated_convolution.{name}']")[0]
        assert block.xpath(".//details[contains(@class, 'proof-failing')]")
        assert block.text_content().count("failing")
