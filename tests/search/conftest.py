"""The engine without a browser: the same script, run by QuickJS over an index made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import quickjs

from scripts.pipeline.paths import DOCS, LANGUAGES
from scripts.search import index
from scripts.search.measure import Answer, Query

ASK = """
function ask(language, query) {
  const found = ProvenSearch.search(language, query);
  return JSON.stringify(found.need ? found : {
    words: found.words,
    instead: found.instead,
    results: found.results.map(({ record }) => ({
      page: (record.page.url.replace(/[/]$/, "") || "index"), id: record.id || "top", kind: record.kind,
      title: record.title, excerpt: ProvenSearch.excerpt(record, found.words, 90),
    })),
  });
}
"""


# What every browser has and QuickJS lacks.
DECODER = """
class TextDecoder {
  constructor(encoding) { if (encoding !== "gb2312") throw new RangeError(encoding); }
  decode(bytes) { return decodeHex(Array.from(bytes, (byte) => byte.toString(16)).join("")); }
}
"""


class Engine:
    """Loads what the engine asks for, as the box does."""

    def __init__(self, files: dict[str, str]):
        self.files = files
        self.loaded: list[str] = []
        self.context = quickjs.Context()
        self.context.add_callable("decodeHex", lambda coded: bytes.fromhex(coded).decode("gb18030"))
        self.context.eval(DECODER)
        self.context.eval((DOCS / "assets" / "search" / "engine.js").read_text(encoding="utf-8"))
        self.context.eval(ASK)

    def call(self, expression: str) -> Any:
        return json.loads(self.context.eval(f"JSON.stringify({expression})"))

    def ask(self, language: str, query: str) -> dict[str, Any]:
        while True:
            found = json.loads(self.context.eval(f"ask({json.dumps(language)}, {json.dumps(query)})"))
            if "need" not in found:
                return found
            for need in found["need"]:
                name = (
                    "characters"
                    if need.get("characters")
                    else f"text-{need['page']}"
                    if "page" in need
                    else "index"
                )
                self.load(f"{need['language']}/{name}")

    def load(self, name: str) -> None:
        self.loaded.append(name)
        self.context.eval(self.files[name])

    def answer(self, query: Query) -> Answer:
        """As the box shows it: this language first, then the other."""
        other = next(la for la in LANGUAGES if la != query.language)
        results = self.ask(query.language, query.text)["results"] or self.ask(other, query.text)["results"]
        return Answer(query, [[(result["page"], result["id"])] for result in results], 0.0)


def read_files(site: Path) -> dict[str, str]:
    return {
        f"{language}/{path.stem}": path.read_text(encoding="utf-8")
        for language in LANGUAGES
        for path in (site / language / "search").glob("*.js")
    }


@pytest.fixture(scope="session")
def engine(site: Path) -> Engine:
    return Engine(read_files(site))


@pytest.fixture(scope="session")
def found(site: Path) -> dict[str, list[index.Found]]:
    """All there is to find, by language."""
    return {language: index.read(site / language, language) for language in LANGUAGES}
