"""Closures read from the syntax tree: what a stand-alone form holds, and what a hash notices."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from scripts.pipeline import source
from scripts.pipeline.paths import ContentError

MODULE = '''
"""A module."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

LIMIT = 3


def _check(x: int) -> None:
    """Check."""
    if x > LIMIT:
        raise ValueError(f"{x}")


def shown(x: int) -> int:
    """Say x.

    Example:
        >>> shown(1)
        1
    """
    _check(x)  # a comment
    return x


def lonely(x: Sequence[int]) -> Tensor:
    return torch.tensor(x)


class Layer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return lonely([math.floor(2.5)]) + x
'''


@pytest.fixture
def module(tmp_path: Path) -> source.Module:
    path = tmp_path / "sample.py"
    path.write_text(textwrap.dedent(MODULE).lstrip(), encoding="utf-8")
    return source.read_module(path)


def test_public_names_leave_out_helpers(module):
    assert module.public == ["LIMIT", "shown", "lonely", "Layer"]


def test_stand_alone_holds_helpers_constants_and_no_more(module):
    text = source.stand_alone(module, "shown")
    assert "LIMIT = 3" in text
    assert "def _check" in text
    assert "lonely" not in text
    assert "torch" not in text
    assert text.startswith("from __future__ import annotations")


def test_stand_alone_cuts_imports_to_the_names_in_use(module):
    text = source.stand_alone(module, "lonely")
    assert "from torch import Tensor\n" in text
    assert "from torch import Tensor, nn" not in text
    assert "import math" not in text


def test_stand_alone_of_a_class_follows_its_methods(module):
    text = source.stand_alone(module, "Layer")
    for needed in ("import math", "from torch import Tensor, nn", "def lonely", "class Layer"):
        assert needed in text


def test_stand_alone_compiles_and_runs(module):
    scope: dict[str, object] = {}
    exec(compile(source.stand_alone(module, "shown"), "sample", "exec"), scope)
    assert scope["shown"](2) == 2


def test_a_method_is_found_by_its_class(module):
    assert module.find("Layer.forward") is not None
    assert module.find("Layer.backward") is None


def hash_of(tmp_path: Path, text: str) -> str:
    path = tmp_path / "again.py"
    path.write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")
    module = source.read_module(path)
    return "".join(
        source._without_docstrings(module.definitions[name])
        for _, name in sorted(source.closure([(path, "shown")]), key=str)
    )


def test_comments_and_docstrings_do_not_count_as_behaviour(tmp_path):
    changed = MODULE.replace("# a comment", "# another").replace('"""Check."""', '"""Check it."""')
    assert hash_of(tmp_path, MODULE) == hash_of(tmp_path, changed)


@pytest.mark.parametrize(("old", "new"), [("LIMIT = 3", "LIMIT = 4"), ("x > LIMIT", "x >= LIMIT")])
def test_a_change_in_a_helper_or_constant_counts(tmp_path, old, new):
    assert hash_of(tmp_path, MODULE) != hash_of(tmp_path, MODULE.replace(old, new))


def test_a_change_elsewhere_does_not_count(tmp_path):
    assert hash_of(tmp_path, MODULE) == hash_of(tmp_path, MODULE.replace("math.floor", "math.ceil"))


def test_a_syntax_error_names_its_line(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("x = 1\ndef f(:\n", encoding="utf-8")
    with pytest.raises(ContentError, match=r":2: syntax error"):
        source.read_module(path)


@pytest.mark.parametrize("name", sorted(source.all_snippets()))
def test_every_snippet_keeps_the_house_style(name):
    snippet = source.all_snippets()[name]
    first, last = snippet.lines
    assert last - first < 62, "a snippet is at most about 60 lines"
    assert snippet.docstring, "a public name has a docstring"
    # A Java file is a program, which its tests run: its example is how to call it.
    example = {"python": ">>> ", "java": f"Usage: java {snippet.name}"}[snippet.language]
    assert example in snippet.docstring, "a docstring has an example that is run"
    assert max(map(len, snippet.source.splitlines())) <= 88, "a line fits the page"
