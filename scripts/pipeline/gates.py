"""Tests that prove nothing are refused: no assertion, a constant one, or one that never looks at the result.

The last is found by doing: each snippet is hollowed out, its body replaced by `return None`, and
every test that executes it runs again. A test that passes whichever of its snippets is hollow
looks at none of them.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.pipeline.paths import ContentError
from scripts.pipeline.snippet import Snippet

ASSERTING_CALLS = {"agrees_with", "raises", "warns", "approx"}


def tests_without_assertion(path: Path) -> Iterator[ContentError]:
    """Faults in a test file that its syntax tree shows."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    helpers = {
        name for name, node in functions.items() if not name.startswith("test_") and _asserts(node, set())
    }
    for name, node in functions.items():
        if not name.startswith("test_"):
            continue
        if not _asserts(node, helpers):
            yield ContentError(path, f"{name} asserts nothing", "assert what it is named for", node.lineno)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Assert) and _is_constant(inner.test):
                yield ContentError(
                    path, f"{name} asserts a constant", "assert something that can fail", inner.lineno
                )


def _asserts(node: ast.AST, helpers: set[str]) -> bool:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Assert):
            return True
        if isinstance(inner, ast.Call):
            name = inner.func.attr if isinstance(inner.func, ast.Attribute) else getattr(inner.func, "id", "")
            # `assert_…` covers torch.testing and numpy.testing.
            if name in ASSERTING_CALLS or name in helpers or name.startswith("assert_"):
                return True
    return False


def _is_constant(test: ast.expr) -> bool:
    """True for what holds or fails whatever the code does: no name in it, or both sides the same."""
    if isinstance(test, ast.Compare):
        sides = {ast.dump(side) for side in (test.left, *test.comparators)}
        if len(sides) == 1:
            return True
    return not any(isinstance(n, ast.Name | ast.Call | ast.Attribute) for n in ast.walk(test))


def independent(reference: str, snippet: Snippet) -> bool:
    """Whether a reference is more than the snippet's own code or what that code itself calls."""
    if ":" in reference:
        return True
    *package, name = reference.split(".")
    if package[:1] and package[0] in ("snippets", "scripts", "tests"):
        return False
    return name not in snippet.calls or package[:1] not in (["torch"], ["java"])


@contextmanager
def hollow(owner: Any, name: str) -> Iterator[None]:
    """Make a function, or every method of a class, return None for as long as the context lasts."""
    definition = getattr(owner, name)
    if inspect.isclass(definition):
        methods = {n: f for n, f in vars(definition).items() if inspect.isfunction(f)}
        for method in methods:
            setattr(definition, method, _empty_init if method == "__init__" else _nothing)
        try:
            yield
        finally:
            for method, original in methods.items():
                setattr(definition, method, original)
    elif inspect.isfunction(definition):
        # The code object, not the name: tests have imported the function already.
        code, definition.__code__ = definition.__code__, _nothing.__code__
        try:
            yield
        finally:
            definition.__code__ = code
    else:
        yield


def _nothing(*args: Any, **options: Any) -> None:
    return None


def _empty_init(self: Any, *args: Any, **options: Any) -> None:
    super(type(self), self).__init__()
