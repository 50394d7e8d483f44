"""Chinese typography by autocorrect, English spelling against a dictionary and the project's words."""

from __future__ import annotations

import re
from pathlib import Path

import autocorrect_py
import pytest
import yaml
from spellchecker import SpellChecker

from scripts.pipeline.pages import read_page
from scripts.pipeline.paths import DOCS, ROOT
from scripts.pipeline.words import GLOSSARY, INTERFACE

CHINESE = sorted(DOCS.glob("zh/**/*.md"))
ENGLISH = [*sorted(DOCS.glob("en/**/*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PROJECT_WORDS = Path(__file__).with_name("words.txt")


def complaints(text: str, name: str) -> list[str]:
    return [f"{line.old.strip()} → {line.new.strip()}" for line in autocorrect_py.lint_for(text, name).lines]


@pytest.mark.parametrize("path", CHINESE, ids=lambda p: p.stem)
def test_chinese_typography(path):
    page = read_page(path, "zh")
    head = f"{page.title}\n\n{page.meta.get('description', '')}\n\n"
    assert complaints(head + "\n".join(page.lines), "page.md") == []


@pytest.mark.parametrize("path", [GLOSSARY, INTERFACE], ids=lambda p: p.stem)
def test_chinese_typography_of_entries(path):
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    texts = [
        text
        for entry in entries.values()
        for text in (entry.get("zh"), (entry.get("definition") or {}).get("zh"))
    ]
    assert complaints("\n\n".join(text for text in texts if text), "page.md") == []


def test_the_typography_check_finds_faults():
    assert complaints("空洞率r=2时,感受野是7", "page.md")


def english_words(text: str) -> set[str]:
    """Words of running text: no code, links, formulas, front matter, names with capitals inside."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S)
    for part in (
        r"```.*?```",
        r"`[^`]*`",
        r"\$\$.*?\$\$",
        r"\$[^$\n]*\$",
        r"\{\{.*?\}\}",
        r"\{[^}\n]*\}",
        r"\]\([^)]*\)",
        r"https?://\S+",
    ):
        text = re.sub(part, " ", text, flags=re.S)
    text = re.sub(r"^\s*/{3,}.*$|^    (columns|labels|lines):.*$", " ", text, flags=re.M)
    text = re.sub(r"^## References.*", " ", text, flags=re.M | re.S)
    return {
        word.strip("'") for word in re.findall(r"(?<![\w-])[a-z][a-z']+(?![\w-])", text.replace("’", "'"))
    }


def unknown(words: set[str]) -> list[str]:
    known = set(PROJECT_WORDS.read_text(encoding="utf-8").split())
    checker = SpellChecker(language="en")
    plain = {re.sub(r"('s|s')$", "", word) for word in words}
    return sorted(
        word for word in checker.unknown(plain) if word not in known and word.removesuffix("s") not in known
    )


@pytest.mark.parametrize("path", ENGLISH, ids=lambda p: p.stem)
def test_english_spelling(path):
    assert unknown(english_words(path.read_text(encoding="utf-8"))) == []


def test_the_spelling_check_finds_faults():
    assert unknown({"recieve", "convolution"}) == ["recieve"]
