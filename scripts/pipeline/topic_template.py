"""`make new-topic NAME=…`: every file of a topic, complete enough to build, ready to be rewritten."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.pipeline import translations
from scripts.pipeline.paths import CONFIGS, DOCS, LANGUAGES, ROOT, SCRIPTS, ContentError, relative

TEMPLATE = SCRIPTS / "template"


def places(topic: str, category: str) -> dict[str, Path]:
    """Where each template file goes: the one map of a topic's rooms."""
    slug = topic.replace("_", "-")
    return {
        "snippets.py.txt": ROOT / "snippets" / f"{topic}.py",
        "test_snippets.py.txt": ROOT / "tests" / "snippets" / f"test_{topic}.py",
        "experiments.py.txt": SCRIPTS / "experiments" / f"{topic}.py",
        "test_experiments.py.txt": ROOT / "tests" / "experiments" / f"test_{topic}.py",
        "figures.py.txt": SCRIPTS / "figures" / f"{topic}.py",
        "benchmarks.py.txt": SCRIPTS / "benchmarks" / f"{topic}.py",
        "notebook.py.txt": SCRIPTS / "notebooks" / f"{topic}.py",
        **{f"article.{language}.md.txt": DOCS / language / category / f"{slug}.md" for language in LANGUAGES},
    }


def scaffold(topic: str, category: str) -> list[str]:
    """Write every file of a new topic and add it to the navigation.

    Raises:
        ContentError: the name is not snake_case, or one of the files exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", topic):
        raise ContentError(
            "make new-topic", f"{topic!r} is no topic name", "use snake_case, such as linear_attention"
        )
    targets = places(topic, category)
    for path in targets.values():
        if path.exists():
            raise ContentError(path, "exists already", "choose another NAME")
    words = {
        "topic": topic,
        "slug": topic.replace("_", "-"),
        "category": category,
        "title": topic.replace("_", " ").capitalize(),
    }
    for name, path in targets.items():
        text = (TEMPLATE / name).read_text(encoding="utf-8")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(re.sub(rf"__({'|'.join(words)})__", lambda m: words[m[1]], text), encoding="utf-8")
    for language in LANGUAGES:
        _add_to_nav(
            CONFIGS[language], f"{category}/{words['slug']}.md", "notebooks/" + words["slug"] + ".ipynb"
        )
    translations.refresh()
    return [relative(path) for path in targets.values()]


def _add_to_nav(config: Path, page: str, notebook: str) -> None:
    """Put the page after the last of its category, and the notebook after the last notebook."""
    lines = config.read_text(encoding="utf-8").splitlines()
    for entry in (page, notebook):
        folder = entry.split("/")[0]
        last = max((n for n, line in enumerate(lines) if re.match(rf"\s+- {folder}/", line)), default=None)
        if last is None:  # a category of its own, before the notebooks
            last = next(n for n, line in enumerate(lines) if "notebooks/" in line) - 2
            lines.insert(last + 1, f"  - {folder.replace('-', ' ').title()}:")
            last += 1
        lines.insert(last + 1, f"      - {entry}")
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
