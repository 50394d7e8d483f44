"""Where everything lives, and the two small types that the whole pipeline shares."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[2]
SNIPPETS = ROOT / "snippets"
SCRIPTS = ROOT / "scripts"
TESTS = ROOT / "tests"
DOCS = ROOT / "docs"
SITE = ROOT / "site"
ARCHIVE = ROOT / "proven-dl.zip"
BUILD = ROOT / ".build"

LANGUAGES = ("zh", "en")
THEMES = ("light", "dark")
CONFIGS = {"zh": ROOT / "mkdocs.yml", "en": ROOT / "mkdocs.en.yml"}


class ContentError(click.ClickException):
    """A fault in the sources, told in one line: place, what is wrong, how to mend it.

    It is a ClickException so that plain `mkdocs build` prints the same line and no traceback.
    """

    def __init__(self, place: Path | str, what: str, mend: str = "", line: int | None = None):
        if isinstance(place, Path):
            place = relative(place)
        where = f"{place}:{line}" if line else str(place)
        super().__init__(f"{where}: {what}" + (f" — {mend}" if mend else ""))

    def __reduce__(self) -> tuple[object, ...]:
        return click.ClickException, (self.message,)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def topics() -> list[str]:
    """Names of all topics, from the modules readers copy."""
    return sorted(p.stem for p in SNIPPETS.glob("[!_]*.py"))


def read_json(path: Path) -> Any:
    """What a JSON file holds, read again only when it has changed; None if there is no file. Not to be altered."""
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else None


@lru_cache(maxsize=64)
def _read(path: Path, changed: int) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def writing(path: Path, content: str | bytes) -> bool:
    """Write `content` whole or not at all; leave an equal file alone. True if it changed."""
    data = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(data)
    aside.replace(path)
    return True
