"""A copy of the project in which a test may break things."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.pipeline.paths import BUILD, ROOT, SITE


@dataclass(frozen=True)
class Project:
    """A project folder with its own pipeline, whose results are those of the real one."""

    root: Path

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{path} does not hold {old!r}"
        file.write_text(text.replace(old, new, 1), encoding="utf-8")

    def append(self, path: str, text: str) -> None:
        with (self.root / path).open("a", encoding="utf-8") as file:
            file.write(text)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.root)}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m scripts.pipeline …` in this copy."""
        return subprocess.run(
            [sys.executable, "-m", "scripts.pipeline", *arguments],
            cwd=self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=900,  # only so that what hangs is told; a busy machine takes minutes for a build
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "scripts.pipeline", *arguments],
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def errors(self, *arguments: str) -> list[str]:
        """The error lines of a run that has to fail."""
        run = self.run(*arguments)
        output = run.stdout + run.stderr
        assert run.returncode != 0, output
        assert "Traceback" not in output, output
        return [line for line in output.splitlines() if line.startswith("Error: ")]

    def published(self) -> dict[str, bytes]:
        site = self.root / "site"
        return {str(p.relative_to(site)): p.read_bytes() for p in site.rglob("*") if p.is_file()}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh copy of sources and results; its `site/` is a small stand-in for the last good one."""
    assert (SITE / "snippets.json").is_file(), "run make build first (make test does)"
    root = tmp_path / "project"
    ignored = shutil.ignore_patterns(
        "__pycache__", "site", "serve", "lock", "*.tmp", "tmp*", "pins", "bench", "bench-build"
    )
    for name in ("snippets", "scripts", "docs", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    for name in ("mkdocs.yml", "mkdocs.en.yml", "pyproject.toml", "LICENSE"):
        shutil.copy2(ROOT / name, root / name)
    shutil.copytree(BUILD, root / ".build", ignore=ignored)
    (root / "site").mkdir()
    (root / "site" / "index.html").write_text("the last good site", encoding="utf-8")
    return Project(root)
