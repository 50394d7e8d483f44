"""Figures for stable_diffusion."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from scripts.pipeline.figure import Canvas, figure


@figure
def squares_curve(canvas: Canvas, squares: dict[str, Any]) -> Figure:
    fig, ax = canvas.subplots(size=(5.0, 2.8))
    ax.plot([row["x"] for row in squares["rows"]], [row["square"] for row in squares["rows"]], marker="o")
    ax.set_xlabel(canvas.say(zh="输入", en="input"))
    ax.set_ylabel(canvas.say(zh="平方", en="square"))
    return fig
