"""Names a page may use, and what to say of one that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from scripts.pipeline import experiment, figure
from scripts.pipeline.paths import topics
from scripts.pipeline.source import all_snippets, find_snippet
from scripts.pipeline.words import glossary

Complaint = tuple[str, str]  # what is wrong, how to mend it


def complaint(kind: str, name: str) -> Complaint | None:
    """What is wrong with a `snippet`, `figure`, `value` or `term` named on a page; None if nothing is.

    Of a value only topic and experiment are looked at: its key is known once the experiment has run.
    """
    topic, _, rest = name.partition(".")
    if kind == "snippet":
        return None if find_snippet(name) else _unknown(kind, name, all_snippets())
    if kind == "figure":
        known = [f"{topic}.{figure_name}" for figure_name in figure.figures_of(topic)]
        return None if name in known else _unknown(kind, name, known)
    if kind == "value":
        experiments = [f"{topic}.{found}" for found in experiment.experiments_of(topic)]
        return None if f"{topic}.{rest.split('.')[0]}" in experiments else _unknown(kind, name, experiments)
    return None if name in glossary() else _unknown("glossary term", name, glossary())


def _unknown(kind: str, name: str, known: Iterable[str]) -> Complaint:
    near = get_close_matches(name, list(known), n=1)
    if near:
        return f"unknown {kind} {name!r}", f"did you mean {near[0]!r}?"
    hint = ", ".join(list(known)[:8]) or f"nothing yet; topics: {', '.join(topics())}"
    return f"unknown {kind} {name!r}", f"known: {hint}"
