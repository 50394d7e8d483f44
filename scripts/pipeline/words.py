"""Words that are not on a page: interface labels and the glossary, both kept as YAML in `docs/`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from scripts.pipeline.paths import DOCS, LANGUAGES, ContentError

GLOSSARY = DOCS / "glossary.yml"
INTERFACE = DOCS / "interface.yml"


@dataclass(frozen=True)
class Term:
    """One entry of the glossary."""

    id: str
    names: dict[str, str]
    aliases: dict[str, list[str]]
    definitions: dict[str, str]
    topic: str | None = None

    @property
    def words(self) -> list[str]:
        """Every name and alias, in both languages."""
        return [*self.names.values(), *(a for lang in LANGUAGES for a in self.aliases[lang])]


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, read again only when it has changed.

    Raises:
        ContentError: it is not YAML.
    """
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _read(path: Path, changed: int) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ContentError(
            path,
            f"not valid YAML: {getattr(error, 'problem', error)}",
            "mend it",
            mark.line + 1 if mark else None,
        ) from None


def glossary() -> dict[str, Term]:
    """All terms by id.

    Raises:
        ContentError: an entry lacks a name or a definition in a language.
    """
    return _terms(GLOSSARY.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _terms(changed: int) -> dict[str, Term]:
    return {key: _term(key, entry) for key, entry in read_yaml(GLOSSARY).items()}


def _term(key: str, entry: dict[str, Any]) -> Term:
    definitions = entry.get("definition") or {}
    for language in LANGUAGES:
        for what, found in (("name", entry), ("definition", definitions)):
            if not isinstance(found.get(language), str):
                raise ContentError(
                    GLOSSARY,
                    f"the term {key!r} has no {language} {what}",
                    "add it",
                    line_of(GLOSSARY, f"{key}:"),
                )
    aliases = entry.get("aliases") or {}
    return Term(
        key,
        {language: entry[language] for language in LANGUAGES},
        {language: list(aliases.get(language) or []) for language in LANGUAGES},
        {language: definitions[language] for language in LANGUAGES},
        entry.get("topic"),
    )


def say(key: str, language: str, **values: object) -> str:
    """The interface label `key` in a language, its `{placeholders}` filled in."""
    entries = read_yaml(INTERFACE)
    try:
        return str(entries[key][language]).format(**values)
    except (KeyError, TypeError):
        raise ContentError(INTERFACE, f"no {language} label {key!r}", "add it in both languages") from None


def line_of(path: Path, needle: str) -> int | None:
    """The first line that holds `needle`, for messages."""
    pattern = re.compile(re.escape(needle))
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if pattern.search(line):
            return number
    return None
