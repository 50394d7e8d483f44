"""Plain `mkdocs build` works as every MkDocs user expects, through the same pipeline."""

from __future__ import annotations

import subprocess
import sys

from .conftest import Project


def mkdocs(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", *arguments],
        cwd=project.root,
        env=project.environment(),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_plain_mkdocs_brings_figures_and_evidence_up_to_date(project: Project):
    svg = project.root / ".build/figures/dilated_convolution/kernel_taps.en.light.svg"
    svg.unlink()
    run = mkdocs(project, "-f", "mkdocs.en.yml")  # inherits everything from the Chinese one
    assert run.returncode == 0, run.stdout + run.stderr
    assert svg.is_file()
    page = project.root / "site/en/computer-vision/dilated-convolution/index.html"
    assert "proof-verified" in page.read_text(encoding="utf-8")


def test_plain_mkdocs_tells_a_fault_in_one_line_too(project: Project):
    project.append("docs/zh/about.md", "\n\n```python\nprint(1)\n```\n")
    run = mkdocs(project)
    assert run.returncode != 0
    assert "Traceback" not in run.stdout + run.stderr
    assert "Error: docs/zh/about.md:" in run.stderr
    assert "code typed into a page" in run.stderr
