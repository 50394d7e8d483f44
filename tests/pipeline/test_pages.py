"""Pages as data."""

from __future__ import annotations

import pytest

from scripts.pipeline import check
from scripts.pipeline.pages import Page
from scripts.pipeline.paths import DOCS

TEXT = """# Title

## One {#one}

A value {{ topic.experiment.key | .2f }}, a term [field](term:receptive-field), a formula $x^2$.

/// snippet | topic.name
    summary: words
///

```text
## not a heading {#no}
$not math$
```

## Two {#two}

$$
y = 1
$$

Cited [here](#ref-one).

- One, 2026. {#ref-one}
"""


@pytest.fixture
def page():
    return Page(DOCS / "en" / "sample.md", "en", {}, TEXT.splitlines(), 0)


def test_headings_in_fences_are_no_headings(page):
    assert [s.id for s in page.sections] == ["", "one", "two"]


def test_named_things_carry_their_line(page):
    assert page.blocks("snippet") == [("topic.name", 7)]
    assert page.values == [("topic.experiment.key", 5)]
    assert page.terms == [("receptive-field", 5)]


def test_formulas_are_found_inline_and_displayed(page):
    assert page.formulas == ["x^2", "y = 1"]


def test_references_and_citations(page):
    assert [r.name for r in page.references] == ["ref-one"]
    assert [c.name for c in page.citations] == ["ref-one"]


def test_fences_are_listed_with_their_language(page):
    assert page.fences() == [("text", 11)]


def test_the_project_as_it_stands_has_no_fault():
    assert [fault.message for fault in check.faults()] == []
