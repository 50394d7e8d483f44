"""The checks that a figure passes before it is kept."""

from __future__ import annotations

import pytest

from scripts.pipeline.figure import Canvas, FigureError, render

LIGHT = Canvas("en", "light")


def plain(canvas):
    fig, ax = canvas.subplots(size=(3, 2))
    ax.plot([0, 1], [0, 1])
    ax.set_title(canvas.say(zh="标题", en="title"))
    return fig


def test_a_figure_is_drawn_to_the_same_bytes():
    assert render(plain, LIGHT, {}) == render(plain, LIGHT, {})


def test_languages_and_themes_differ():
    drawings = {render(plain, Canvas(la, th), {}) for la in ("zh", "en") for th in ("light", "dark")}
    assert len(drawings) == 4


def test_a_missing_glyph_is_refused():
    def drawing(canvas):
        fig = plain(canvas)
        fig.axes[0].set_xlabel("\U0001fae0")
        return fig

    with pytest.raises(FigureError, match="Glyph"):
        render(drawing, LIGHT, {})


def test_an_empty_axis_is_refused():
    def drawing(canvas):
        return canvas.subplots(size=(3, 2))[0]

    with pytest.raises(FigureError, match="axis 0 is empty"):
        render(drawing, LIGHT, {})


def test_a_text_outside_the_canvas_is_refused():
    def drawing(canvas):
        fig = plain(canvas)
        fig.text(0.95, 0.5, "far too long to fit in here")
        return fig

    with pytest.raises(FigureError, match="far too long to fit in here"):
        render(drawing, LIGHT, {})


def test_tick_labels_that_are_never_drawn_do_not_count():
    def drawing(canvas):
        fig = plain(canvas)
        fig.axes[0].set_xticks([-50, 0, 1, 50])
        fig.axes[0].set_xlim(0, 1)
        return fig

    assert render(drawing, LIGHT, {}).startswith(b"<?xml")
