"""Each fault, put into a copy of the project, stops the build with one line that says where and what."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Project

ZH = "docs/zh/computer-vision/dilated-convolution.md"
EN = "docs/en/computer-vision/dilated-convolution.md"
MODULE = "snippets/dilated_convolution.py"
EXPERIMENTS = "scripts/experiments/dilated_convolution.py"
FIGURES = "scripts/figures/dilated_convolution.py"
NOTEBOOK = "scripts/notebooks/dilated_convolution.py"


def both(project: Project, old: str, new: str) -> None:
    for path in (ZH, EN):
        project.edit(path, old, new)


def append_to_both(project: Project, text: str) -> None:
    for path in (ZH, EN):
        project.append(path, text)


Fault = tuple[Callable[[Project], None], str, *tuple[str, ...]]  # what to do, and where and what the build tells

FAULTS: dict[str, Fault] = {
    "an unknown snippet": (
        lambda p: both(
            p, "/// snippet | dilated_convolution.output_size", "/// snippet | dilated_convolution.output_siz"
        ),
        ZH,
        "'dilated_convolution.output_siz'",
    ),
    "an unknown prerequisite": (
        lambda p: both(p, "prerequisites: []", "prerequisites: [calculus]"),
        ZH,
        "needs the unknown topic 'calculus'",
    ),
    "topics that need each other": (
        lambda p: both(p, "prerequisites: []", "prerequisites: [spatial_pyramid_pooling]"),
        ZH,
        "needs itself",
    ),
    "other prerequisites in the other language": (
        lambda p: p.edit(EN, "prerequisites: []", "prerequisites: [upsampling]"),
        ZH,
        "prerequisites differ",
    ),
    "code typed into a page": (
        lambda p: append_to_both(p, "\n```python\nprint(1)\n```\n"),
        ZH,
        "code typed into a page",
    ),
    "an orphan snippet": (
        lambda p: p.append(MODULE, '\n\ndef forgotten() -> int:\n    """Return one."""\n    return 1\n'),
        MODULE,
        "'dilated_convolution.forgotten' is shown on no zh page",
    ),
    "an orphan figure": (
        lambda p: p.append(
            FIGURES,
            "\n\n@figure\ndef forgotten(canvas: Canvas) -> Figure:\n    return canvas.subplots(size=(1, 1))[0]\n",
        ),
        FIGURES,
        "'dilated_convolution.forgotten' is shown on no zh page",
    ),
    "a snippet that raises at import": (
        lambda p: p.append(MODULE, "\n_BROKEN = 1 / 0\n"),
        MODULE,
        "ZeroDivisionError",
    ),
    "a syntax error in a snippet": (
        lambda p: p.append(MODULE, "\ndef broken(:\n"),
        MODULE,
        "syntax error",
    ),
    "a missing figure": (
        lambda p: both(
            p, "/// figure | dilated_convolution.kernel_taps", "/// figure | dilated_convolution.kernel_tap"
        ),
        ZH,
        "unknown figure 'dilated_convolution.kernel_tap'",
    ),
    "a figure without alternative text": (
        lambda p: both(p, "    alt: ", "    alt: '' #"),
        ZH,
        "has no alternative text",
    ),
    "a missing glyph": (
        lambda p: p.edit(FIGURES, 'zh="', 'zh="\U0001fae0'),
        FIGURES,
        "Glyph",
    ),
    "an unknown value": (
        lambda p: append_to_both(p, "\n{{ dilated_convolution.gridding.no_such_value }}\n"),
        ZH,
        "unknown value 'dilated_convolution.gridding.no_such_value'",
    ),
    "a value with a format that does not fit": (
        lambda p: append_to_both(p, "\n{{ dilated_convolution.gridding.coverage_2_2_2 | q }}\n"),
        ZH,
        "dilated_convolution.gridding.coverage_2_2_2",
    ),
    "an unknown column": (
        lambda p: append_to_both(
            p, "\n/// table | dilated_convolution.gridding.rows\n    columns:\n      nothing: N\n///\n"
        ),
        ZH,
        "has no column 'nothing'",
    ),
    "an option that does not exist": (
        lambda p: append_to_both(p, "\n/// evidence | dilated_convolution\n    colour: red\n///\n"),
        ZH,
        "block not understood",
    ),
    "a malformed formula": (
        lambda p: append_to_both(p, "\n$\\frac{1}{2$\n"),
        ZH,
        "malformed formula",
    ),
    "an unknown macro": (
        lambda p: append_to_both(p, "\n$\\nosuchmacro{1}$\n"),
        ZH,
        "malformed formula",
    ),
    "a broken link and a broken anchor": (
        lambda p: append_to_both(p, "\n[page](no-such-page.md), [term](../glossary.md#no-such-anchor)\n"),
        ZH,
        "broken link 'no-such-page.md'",
        "broken link '../glossary.md#no-such-anchor'",
    ),
    "a missing translation": (
        lambda p: (p.root / "docs/en/about.md").unlink(),
        "docs/zh/about.md",
        "has no translation in docs/en/",
    ),
    "different heading ids": (
        lambda p: p.edit(EN, "{#tldr}", "{#in-brief}"),
        EN,
        "heading ids differ",
    ),
    "a heading without an id": (
        lambda p: append_to_both(p, "\n### A heading\n"),
        ZH,
        "has no id",
    ),
    "one language changed": (
        lambda p: p.edit("docs/en/about.md", "The record carries", "That record carries"),
        "docs/en/about.md",
        "section 'evidence' changed, but docs/zh/ did not",
    ),
    "a notebook cell that raises": (
        lambda p: p.append(NOTEBOOK, '\n# %%\nraise RuntimeError("planted")\n'),
        NOTEBOOK,
        "RuntimeError: planted",
    ),
    "a notebook text in one language": (
        lambda p: p.append(NOTEBOOK, '\n# %% [markdown] lang="zh"\n# 只有中文\n'),
        NOTEBOOK,
        "no partner in the other language",
    ),
    "an experiment that raises": (
        lambda p: p.append(
            EXPERIMENTS,
            '\n\n@experiment\ndef broken() -> dict[str, Any]:\n    raise RuntimeError("planted")\n',
        ),
        EXPERIMENTS,
        "RuntimeError: planted",
    ),
    "a figure that asks for an unknown experiment": (
        lambda p: p.edit(
            FIGURES,
            "def dilation_cost(canvas: Canvas, ",
            "def dilation_cost(canvas: Canvas, nothing: dict[str, Any], ",
        ),
        FIGURES,
        "unknown value 'dilated_convolution.nothing'",
    ),
    "an unknown glossary term": (
        lambda p: append_to_both(p, "\n[word](term:no-such-term)\n"),
        ZH,
        "unknown glossary term 'no-such-term'",
    ),
    "a glossary entry in one language": (
        lambda p: p.append("docs/glossary.yml", "\nlonely: {zh: 孤独, definition: {zh: 一。, en: One.}}\n"),
        "docs/glossary.yml",
        "the term 'lonely' has no en name",
    ),
    "a reference cited nowhere": (
        lambda p: append_to_both(p, "\n- Nobody, 2026. {#ref-nobody}\n"),
        ZH,
        "'ref-nobody' is cited nowhere",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_stops_the_build_with_one_line(project: Project, name: str) -> None:
    inject, place, *faults = FAULTS[name]
    inject(project)
    before = project.published()
    errors = project.errors("build")
    for what in faults:
        told = [line for line in errors if line.startswith(f"Error: {place}") and what in line]
        assert told, f"no line names {place} and {what!r}:\n" + "\n".join(errors)
    assert project.published() == before, "a failed build must leave the last good site as it was"


def test_stale_evidence_is_refused(project: Project) -> None:
    path = project.root / ".build/evidence/dilated_convolution.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["snippets"]["coverage"]["hash"] = "0" * 16
    path.write_text(json.dumps(record), encoding="utf-8")
    errors = project.errors("build")
    assert any(
        "coverage is unverified: its source has changed since the tests ran" in line for line in errors
    ), errors


def test_a_build_killed_while_training_leaves_nobody_behind_who_holds_its_lock(project: Project) -> None:
    (project.root / ".build/experiments/dilated_convolution/training.json").unlink()
    build = project.start("update", "experiment:dilated_convolution.training")
    assert build.stdout
    assert any("start" in line for line in build.stdout), "the training never began"
    os.kill(build.pid, signal.SIGKILL)
    build.wait()
    assert project.run("update", "card").returncode == 0


def test_no_fault_is_told_where_there_is_none(project: Project) -> None:
    run = project.run("check")
    assert run.returncode == 0, run.stdout + run.stderr


def test_confirming_a_section_ends_its_drift(project: Project) -> None:
    project.edit("docs/en/about.md", "The record carries", "That record carries")
    assert project.run("check").returncode != 0
    assert project.run("confirm", "about#evidence").returncode == 0
    assert project.run("check").returncode == 0


def test_changing_both_languages_is_no_drift(project: Project) -> None:
    project.edit("docs/en/about.md", "The record carries", "That record carries")
    project.edit("docs/zh/about.md", "记录带着", "这份记录带着")
    assert project.run("check").returncode == 0


def test_a_new_topic_is_complete_from_the_start_and_a_build_killed_half_way_leaves_the_last_site(project: Project) -> None:
    run = project.run("new-topic", "sample_topic", "--category", "natural-language-processing")
    assert run.returncode == 0, run.stdout + run.stderr
    before = project.published()
    killed = project.start("build")
    aside = project.root / ".build/site/zh"
    deadline = time.monotonic() + 600
    while not aside.exists() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert aside.exists(), "the build never began to render"
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert project.published() == before
    build = project.run("build")
    assert build.returncode == 0, build.stdout + build.stderr
    assert set(project.published()) > {"zh/index.html", "en/index.html", "snippets.json"}
    for language in ("zh", "en"):
        page = project.root / "site" / language / "natural-language-processing/sample-topic/index.html"
        assert 'data-snippet="sample_topic.sample_topic_example"' in page.read_text(encoding="utf-8")
    assert "nothing has changed" in project.run("build").stdout
    again = project.errors("new-topic", "sample_topic")
    assert "exists already" in again[0]


def test_only_what_depends_on_a_change_is_redone(project: Project) -> None:
    assert project.run("update").returncode == 0
    project.edit(FIGURES, "def wavenet_tree(", "def wavenet_tree(  # a comment is no change\n    ")
    assert "start" not in project.run("update", "figure").stdout
    project.edit(MODULE, "def smallest_depth(", "_UNUSED = 1\n\n\ndef smallest_depth(")
    started = [line.split()[-1] for line in project.run("update").stdout.splitlines() if " start " in line]
    assert set(started) == {"evidence:dilated_convolution", "notebook:dilated_convolution"}


def test_two_builds_give_the_same_figures(project: Project) -> None:
    """The first of each topic, in every language and theme: all would take minutes."""
    shelves = [shelf for shelf in sorted((project.root / ".build/figures").iterdir()) if shelf.is_dir()]
    chosen = {shelf.name: sorted(shelf.glob("*.svg"))[0].name.partition(".")[0] for shelf in shelves}
    before = {p: p.read_bytes() for shelf in shelves for p in shelf.glob(f"{chosen[shelf.name]}.*")}
    assert len(before) >= 4 * len(chosen)
    for path in before:
        path.unlink()
    plot = f"plot:{chosen.pop('speed')}"
    run = project.run("update", plot, *(f"figure:{topic}.{name}" for topic, name in chosen.items()))
    assert run.returncode == 0, run.stdout + run.stderr
    assert {p: p.read_bytes() for p in before} == before


def test_paths_are_told_relative_to_the_project(project: Project) -> None:
    project.append(EN, "\n```python\n```\n")
    assert not any(str(Path(project.root)) in line for line in project.errors("check"))
