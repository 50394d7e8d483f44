"""Figures: one shared style, drawn in each language and theme, checked before they are kept."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from scripts.pipeline import experiment
from scripts.pipeline.paths import BUILD, LANGUAGES, SCRIPTS, THEMES, ContentError, writing
from scripts.pipeline.source import Symbol, decorated

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURES = BUILD / "figures"
F = TypeVar("F", bound=Callable[..., Any])


def figure(function: F) -> F:
    """Mark a function that draws `topic.function` on the canvas it is handed."""
    return function


@dataclass(frozen=True)
class Colors:
    """Colours of one theme; accents stay apart for colour-blind readers."""

    ink: str
    muted: str
    faint: str
    surface: str
    accents: tuple[str, ...]


PALETTES = {
    "light": Colors(
        "#1f2430",
        "#5b6272",
        "#d9dde6",
        "#ffffff",
        ("#0067a5", "#c8500a", "#00805e", "#8f3f8f", "#9a6a00", "#4d4fc4"),
    ),
    "dark": Colors(
        "#e6e8ee",
        "#a6acba",
        "#3b4150",
        "#1e2129",
        ("#5cb8f2", "#ff9a5c", "#3fd0a4", "#dd95dd", "#f0c24b", "#a3a6ff"),
    ),
}


@dataclass(frozen=True)
class Canvas:
    """What a figure function draws on: the language, the colours and the house style."""

    language: str
    theme: str
    colors: Colors = field(init=False)
    sequential: str = field(init=False)
    diverging: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "colors", PALETTES[self.theme])
        object.__setattr__(self, "sequential", "cividis" if self.theme == "dark" else "cividis_r")
        object.__setattr__(self, "diverging", "PuOr")

    def say(self, *, zh: str, en: str) -> str:
        """The wording in the language being drawn."""
        return {"zh": zh, "en": en}[self.language]

    def subplots(
        self, rows: int = 1, columns: int = 1, *, size: tuple[float, float], **options: Any
    ) -> tuple[Figure, Any]:
        """`plt.subplots` with the size in inches (a page is 7.2 wide) and a constrained layout."""
        import matplotlib.pyplot as plt

        return plt.subplots(rows, columns, figsize=size, layout="constrained", **options)

    def style(self) -> Any:
        from cycler import cycler

        c = self.colors
        return {
            "font.family": _font_family(),
            "font.size": 10,
            "axes.titlesize": 10.5,
            "axes.labelsize": 10,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.fontsize": 9,
            "mathtext.fontset": "dejavusans",
            "axes.unicode_minus": False,
            "figure.facecolor": c.surface,
            "axes.facecolor": c.surface,
            "savefig.facecolor": c.surface,
            "text.color": c.ink,
            "axes.labelcolor": c.ink,
            "axes.edgecolor": c.muted,
            "axes.titlecolor": c.ink,
            "xtick.color": c.muted,
            "ytick.color": c.muted,
            "xtick.labelcolor": c.ink,
            "ytick.labelcolor": c.ink,
            "grid.color": c.faint,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": False,
            "axes.prop_cycle": cycler(color=c.accents),
            "lines.linewidth": 1.8,
            "legend.frameon": False,
            "image.cmap": self.sequential,
            "image.interpolation": "nearest",
            "svg.fonttype": "path",
            "svg.hashsalt": "proven-dl",
            "figure.max_open_warning": 0,
        }


def bare(axes: Axes, frame: bool = False) -> None:
    """No ticks, no numbers: what is drawn is a picture, not a plot."""
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(frame)


def _font_family() -> list[str]:
    from matplotlib import font_manager

    path = str(font_file())
    if not any(entry.fname == path for entry in font_manager.fontManager.ttflist):
        font_manager.fontManager.addfont(path)
    return ["Noto Sans SC"]


def font_file() -> Path:
    """Noto Sans SC from the zhplot package (Open Font License), so that no system font matters."""
    spec = importlib.util.find_spec("zhplot")
    if spec is None or spec.origin is None:
        raise ContentError("requirements.txt", "the package zhplot is missing", "run make setup")
    return next(Path(spec.origin).parent.rglob("NotoSansSC*.ttf"))


def module_path(topic: str) -> Path:
    return SCRIPTS / "figures" / f"{topic}.py"


def figures_of(topic: str) -> dict[str, list[str]]:
    """Figure names of a topic, each with the experiments it asks for by parameter name."""
    return {
        node.name: [argument.arg for argument in node.args.args[1:]]
        for node in decorated(module_path(topic), "figure")
    }


def symbol(topic: str, name: str) -> Symbol:
    return module_path(topic), name


def svg_path(topic: str, name: str, language: str, theme: str) -> Path:
    return FIGURES / topic / f"{name}.{language}.{theme}.svg"


def svg_paths(topic: str, name: str) -> list[Path]:
    return [svg_path(topic, name, lang, theme) for lang in LANGUAGES for theme in THEMES]


def draw(topic: str, name: str) -> None:
    """Draw one figure in every language and theme and keep the SVGs."""
    function = getattr(importlib.import_module(f"scripts.figures.{topic}"), name)
    needs = list(inspect.signature(function).parameters)[1:]
    results = {need: experiment.load(topic, need) for need in needs}
    line = inspect.getsourcelines(function)[1]
    for language in LANGUAGES:
        for theme in THEMES:
            try:
                svg = render(function, Canvas(language, theme), results)
            except FigureError as fault:
                raise ContentError(
                    module_path(topic), f"figure {name} ({language}, {theme}): {fault}", fault.mend, line
                ) from None
            writing(svg_path(topic, name, language, theme), svg)


class FigureError(Exception):
    def __init__(self, what: str, mend: str):
        super().__init__(what)
        self.mend = mend


def render(function: Callable[..., Figure], canvas: Canvas, results: dict[str, Any]) -> bytes:
    """The SVG of one figure; the same bytes each time.

    Raises:
        FigureError: a glyph is missing, an axis is empty or a text leaves the canvas.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with matplotlib.rc_context(canvas.style()), warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*Glyph.*")
        fig = function(canvas, **results)
        try:
            _check(fig)
            buffer = io.BytesIO()
            fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        except UserWarning as warning:
            raise FigureError(str(warning), "use a character the font has") from None
        finally:
            plt.close(fig)
    return buffer.getvalue()


def _check(fig: Figure) -> None:
    fig.draw_without_rendering()  # lays everything out
    for number, axes in enumerate(fig.axes):
        if axes.axison and not (axes.has_data() or axes.texts):
            raise FigureError(f"axis {number} is empty", "draw on it or remove it")
    slack = 2  # pixels: antialiased edges
    for words, box in _text_boxes(fig):
        if (
            box.x0 < fig.bbox.x0 - slack
            or box.y0 < fig.bbox.y0 - slack
            or box.x1 > fig.bbox.x1 + slack
            or box.y1 > fig.bbox.y1 + slack
        ):
            raise FigureError(
                f"the text {words!r} leaves the canvas", "make the figure larger or the text shorter"
            )


def _text_boxes(fig: Figure) -> Iterator[tuple[str, Any]]:
    """Every text with its box in pixels; an axis' tick labels and label count as one text.

    Matplotlib keeps tick labels beyond an axis' limits and never draws them; only the axis itself
    knows which it draws.
    """
    from matplotlib.text import Text

    of_ticks: set[int] = set()
    for axes in fig.axes:
        for axis in (axes.xaxis, axes.yaxis):
            of_ticks |= {id(text) for text in axis.findobj(Text)}
            box = axis.get_tightbbox() if axes.axison and axes.get_visible() else None
            if box is not None:
                drawn = [t for t in axis.get_ticklabels() if t.get_text()]
                yield axis.get_label_text() or " ".join(t.get_text() for t in drawn), box
    for text in fig.findobj(Text):
        shown = isinstance(text, Text) and text.get_visible() and id(text) not in of_ticks
        if shown and text.get_text().strip():
            yield text.get_text(), text.get_window_extent()
