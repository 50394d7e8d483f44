"""How the cost of a topic's snippets grows, drawn from the records of `make bench`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from scripts.pipeline import benchmark
from scripts.pipeline.figure import Canvas, render, svg_path
from scripts.pipeline.paths import LANGUAGES, THEMES, writing

SHELF = "speed"  # figures/speed/TOPIC.LANGUAGE.THEME.svg
STYLES = ("-", "--", ":", "-.")


def paths(topic: str) -> list[Path]:
    return [svg_path(SHELF, topic, language, theme) for language in LANGUAGES for theme in THEMES]


def draw(topic: str) -> None:
    """Draw a topic's growth in every language and theme."""
    for language in LANGUAGES:
        for theme in THEMES:
            svg = render(_growth, Canvas(language, theme), {"records": benchmark.load(topic)})
            writing(svg_path(SHELF, topic, language, theme), svg)


def _growth(canvas: Canvas, records: dict[str, Any]) -> Any:
    """Time over size on two logarithmic axes, each size as a multiple of the smallest."""
    fig, ax = canvas.subplots(size=(7.2, max(2.8, 0.6 + 0.21 * len(records))))
    accents = canvas.colors.accents
    for number, (name, record) in enumerate(records.items()):
        sizes = [math.prod(size["size"]) for size in record["sizes"]]
        ax.plot(
            [size / sizes[0] for size in sizes],
            [size["ours"]["seconds"] * 1e3 for size in record["sizes"]],
            STYLES[number // len(accents) % len(STYLES)],
            color=accents[number % len(accents)],
            marker="o",
            markersize=3.5,
            label=f"{name}  {benchmark.growth(record):.2f} ({record['exponent']:g})",
        )
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g} ×")
    ax.set_xlabel(canvas.say(zh="规模，以最小者为 1", en="size, the smallest being 1"))
    ax.set_ylabel(canvas.say(zh="时间（毫秒）", en="time (ms)"))
    ax.grid(True, which="major")
    title = canvas.say(zh="斜率（理论指数）", en="slope (theoretical exponent)")
    fig.legend(loc="outside right upper", title=title, alignment="left", labelcolor=canvas.colors.ink)
    return fig
