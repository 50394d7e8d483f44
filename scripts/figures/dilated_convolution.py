"""Drawings for dilated convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.pipeline.figure import Canvas, bare, figure
from snippets.dilated_convolution import (
    effective_kernel_size,
    has_gridding,
    receptive_field,
    satisfies_hdc,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure


def _blues(canvas: Canvas) -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    ends = {"light": ["#d3e6f3", "#0067a5", "#002b47"], "dark": ["#17405c", "#5cb8f2", "#e2f3ff"]}
    return LinearSegmentedColormap.from_list("paths", ends[canvas.theme])


def _cell(axes: Axes, column: float, row: float, **style: Any) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **style))


@figure
def kernel_taps(canvas: Canvas) -> Figure:
    colors, side = canvas.colors, 7
    fig, panels = canvas.subplots(1, 3, size=(7.2, 2.95))
    for axes, rate in zip(panels, (1, 2, 3), strict=True):
        span = effective_kernel_size(3, rate)
        first = (side - span) // 2
        taps = {first + rate * k for k in range(3)}
        field = range(first, first + span)
        for row in range(side):
            for column in range(side):
                style: dict[str, Any] = {"facecolor": "none", "edgecolor": colors.faint}
                if row in field and column in field:
                    style["facecolor"] = colors.faint
                    style["edgecolor"] = colors.muted
                if row in taps and column in taps:
                    style["facecolor"] = colors.accents[0]
                _cell(axes, column, row, linewidth=0.8, **style)
                if row in taps and column in taps:
                    number = 3 * ((row - first) // rate) + (column - first) // rate + 1
                    axes.text(column, row, f"{number}", ha="center", va="center", color=colors.surface)
        low, high, below = first - 0.5, first + span - 0.5, side + 0.1
        axes.annotate(
            "",
            (low, below),
            (high, below),
            arrowprops={"arrowstyle": "<->", "color": colors.ink, "shrinkA": 0, "shrinkB": 0},
        )
        axes.text(
            (side - 1) / 2,
            side + 0.35,
            canvas.say(zh=f"跨度 {span}", en=f"span {span}"),
            ha="center",
            va="top",
        )
        axes.set_title(canvas.say(zh=f"空洞率 {rate}", en=f"rate {rate}"))
        axes.set(xlim=(-0.6, side - 0.4), ylim=(side + 1.2, -0.6), aspect="equal")
        bare(axes)
    return fig


def _tree(
    canvas: Canvas, axes: Axes, rates: Sequence[int], taps: Sequence[int], columns: Sequence[int]
) -> int:
    """Layers of dots, the input at the bottom; what reaches the output at column 0 is in colour."""
    colors = canvas.colors
    live = [{0}]
    for rate in reversed(rates):
        live.append({column + rate * tap for column in live[-1] for tap in taps})
    live.reverse()  # live[level], the input first
    inside = set(columns)
    for level, rate in enumerate(rates):
        for column in columns:
            for tap in taps:
                below = column + rate * tap
                if below in inside:
                    used = column in live[level + 1]
                    axes.plot(
                        [below, column],
                        [level, level + 1],
                        color=colors.accents[0] if used else colors.faint,
                        linewidth=1.5 if used else 0.7,
                        zorder=2 if used else 1,
                    )
    for level in range(len(rates) + 1):
        for used in (False, True):
            dots = [column for column in columns if (column in live[level]) is used]
            axes.scatter(
                dots,
                [level] * len(dots),
                s=34 if used else 16,
                color=(colors.accents[1] if level == len(rates) else colors.accents[0])
                if used
                else colors.faint,
                zorder=3,
            )
    axes.set_ylim(-0.4, len(rates) + 0.35)
    bare(axes)
    return len(live[0])


@figure
def receptive_field_growth(canvas: Canvas, receptive_fields: dict[str, Any]) -> Figure:
    colors, rows = canvas.colors, receptive_fields["rows"][:6]
    fig, panels = canvas.subplots(3, 1, size=(7.2, 7.0), height_ratios=[1, 1, 1.5])
    names = {
        "plain": canvas.say(zh="空洞率 1, 1, 1", en="rates 1, 1, 1"),
        "doubling": canvas.say(zh="空洞率 1, 2, 4", en="rates 1, 2, 4"),
    }
    for axes, name, rates in zip(panels, names, [(1, 1, 1), (1, 2, 4)], strict=False):
        _tree(canvas, axes, rates, (-1, 0, 1), range(-9, 10))
        field = receptive_field([(3, 1, rate) for rate in rates])
        axes.set_title(
            canvas.say(
                zh=f"{names[name]}：输出（橙）看到 {field} 个输入",
                en=f"{names[name]}: the output (orange) sees {field} inputs",
            )
        )
        levels = [
            canvas.say(zh="输入", en="input"),
            *(canvas.say(zh=f"第 {n} 层", en=f"layer {n}") for n in (1, 2, 3)),
        ]
        axes.set_yticks(range(4), levels)
        axes.tick_params(length=0)
    axes = panels[2]
    depth = [row["depth"] for row in rows]
    colon = canvas.say(zh="：", en=": ")
    formula = {"plain": "$1 + 2n$", "doubling": "$2^{n+1} - 1$"}
    labels = {
        "plain": canvas.say(zh="空洞率恒为 1", en="rate 1 throughout"),
        "doubling": canvas.say(zh="空洞率逐层加倍", en="rate doubles"),
    }
    for name, color, marker, above in (
        ("doubling", colors.accents[0], "o", 7),
        ("plain", colors.accents[1], "s", -15),
    ):
        values = [row[name] for row in rows]
        axes.plot(depth, values, marker=marker, color=color, label=f"{labels[name]}{colon}{formula[name]}")
        for n, value in zip(depth, values, strict=True):
            if n > 1 or name == "doubling":
                axes.annotate(
                    f"{value}",
                    (n, value),
                    (0, above),
                    textcoords="offset points",
                    ha="center",
                    color=color,
                )
    axes.set_yscale("log", base=2)
    axes.set_yticks([4, 16, 64], ["4", "16", "64"])
    axes.set_ylim(1.6, 260)
    axes.set_xlim(0.7, 6.4)
    axes.set_xticks(depth)
    axes.set_xlabel(canvas.say(zh="层数 n", en="layers n"))
    axes.set_ylabel(canvas.say(zh="感受野（边长）", en="receptive field (side)"))
    axes.legend(loc="upper left")
    return fig


@figure
def wavenet_tree(canvas: Canvas, receptive_fields: dict[str, Any]) -> Figure:
    rates, colors = (1, 2, 4, 8), canvas.colors
    fig, axes = canvas.subplots(1, 1, size=(7.2, 3.3))
    seen = _tree(canvas, axes, rates, (-1, 0), range(-18, 1))
    levels = [
        canvas.say(zh="输入", en="input"),
        *(canvas.say(zh=f"空洞率 {rate}", en=f"rate {rate}") for rate in rates),
    ]
    axes.set_yticks(range(5), levels)
    axes.tick_params(length=0)
    axes.annotate(
        "",
        (-15.4, -0.62),
        (0.4, -0.62),
        arrowprops={"arrowstyle": "<->", "color": colors.ink, "shrinkA": 0, "shrinkB": 0},
    )
    assert seen == receptive_fields["causal_four_layers"]
    axes.text(
        -7.5,
        -0.75,
        canvas.say(
            zh=f"一个输出看到 {seen} 个输入，每个恰好一条路径",
            en=f"one output sees {seen} inputs, each by exactly one path",
        ),
        ha="center",
        va="top",
    )
    axes.set_ylim(-1.35, 4.3)
    axes.set_xlim(-18.6, 0.6)
    return fig


@figure
def contribution_maps(canvas: Canvas, gridding: dict[str, Any]) -> Figure:
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Patch, Rectangle

    colors, window = canvas.colors, 25
    fig, panels = canvas.subplots(2, 2, size=(7.2, 7.7))
    for axes, name in zip(panels.flat, ("2_2_2", "1_2_3", "1_2_5", "1_2_9"), strict=True):
        paths = gridding[f"map_{name}"]
        side = len(paths)
        reach = side / 2
        extent = (-reach, reach, reach, -reach)
        axes.add_patch(Rectangle((-reach, -reach), side, side, facecolor=colors.accents[1], zorder=1))
        picture = axes.imshow(
            np.ma.masked_equal(paths, 0),
            cmap=_blues(canvas),
            norm=LogNorm(1, 50),
            extent=extent,
            zorder=2,
        )
        for line in range(side + 1):
            for draw in (axes.hlines, axes.vlines):
                draw(line - reach, -reach, reach, color=colors.surface, linewidth=0.5, zorder=3)
        axes.set(xlim=(-window / 2, window / 2), ylim=(window / 2, -window / 2))
        outline = Rectangle(
            (-reach, -reach), side, side, fill=False, edgecolor=colors.ink, linewidth=1.2, zorder=4
        )
        axes.add_patch(outline)
        seen, share = gridding[f"seen_{name}"], gridding[f"rates_{name}"]
        rates = name.replace("_", ", ")
        axes.set_title(
            canvas.say(
                zh=f"空洞率 {rates}\n看到 {seen} / {side**2} 个像素（{share:.0%}）",
                en=f"rates {rates}\nsees {seen} of {side**2} pixels ({share:.0%})",
            ),
            linespacing=1.4,
        )
        bare(axes)
    bar = fig.colorbar(picture, ax=panels, location="bottom", shrink=0.5, aspect=28, pad=0.02)
    bar.set_ticks([1, 3, 10, 30], labels=["1", "3", "10", "30"])
    bar.ax.minorticks_off()
    bar.set_label(canvas.say(zh="从该像素到输出的路径数", en="paths from the pixel to the output"))
    fig.legend(
        handles=[
            Patch(
                color=colors.accents[1],
                label=canvas.say(
                    zh="在感受野内，这个输出却看不到", en="in the field, not seen by this output"
                ),
            ),
            Patch(
                facecolor=colors.surface,
                edgecolor=colors.ink,
                label=canvas.say(zh="感受野的边界", en="bounds of the receptive field"),
            ),
        ],
        loc="outside upper center",
        ncols=2,
        fontsize=10.5,
    )
    return fig


@figure
def hdc_verdicts(canvas: Canvas) -> Figure:
    from matplotlib.lines import Line2D

    colors = canvas.colors
    kinds = {
        (True, False): (
            colors.accents[0],
            "o",
            canvas.say(zh="放行，确无空隙", en="accepted, no gap"),
        ),
        (False, True): (
            colors.muted,
            "s",
            canvas.say(zh="拒绝，确有空隙", en="rejected, has gaps"),
        ),
        (True, True): (
            colors.accents[1],
            "X",
            canvas.say(zh="错误放行：有空隙", en="wrongly accepted: has gaps"),
        ),
        (False, False): (
            colors.accents[3],
            "D",
            canvas.say(zh="错误拒绝：无空隙", en="wrongly rejected: no gap"),
        ),
    }
    fig, panels = canvas.subplots(1, 2, size=(7.2, 4.4))
    axis = range(1, 8)
    stacks = {
        canvas.say(zh="两层：$r_1$, $r_2$", en="two layers: $r_1$, $r_2$"): (),
        canvas.say(zh="三层：1, $r_2$, $r_3$", en="three layers: 1, $r_2$, $r_3$"): (1,),
    }
    for axes, (title, start) in zip(panels, stacks.items(), strict=True):
        for first in axis:
            for second in axis:
                rates = [*start, first, second]
                color, marker, _ = kinds[satisfies_hdc(3, rates), has_gridding(3, rates)]
                size = 22 if marker == "s" else 110
                axes.scatter(first, second, s=size, color=color, marker=marker, linewidths=0)
        axes.set_title(title)
        axes.set(xlim=(0.4, 7.6), ylim=(0.4, 7.6), aspect="equal", xticks=axis, yticks=axis)
        axes.set_xlabel(f"$r_{len(start) + 1}$")
        axes.set_ylabel(f"$r_{len(start) + 2}$")
    fig.legend(
        handles=[
            Line2D(
                [],
                [],
                linestyle="",
                marker=marker,
                color=color,
                markersize=5 if marker == "s" else 10,
                label=label,
            )
            for color, marker, label in kinds.values()
        ],
        loc="outside lower center",
        ncols=2,
    )
    return fig


@figure
def aspp_valid_taps(canvas: Canvas, aspp_taps: dict[str, Any]) -> Figure:
    from matplotlib.colors import BoundaryNorm, ListedColormap

    colors = canvas.colors
    fig = canvas.subplots(1, 1, size=(7.2, 6.4))[0]
    fig.clear()
    grid = fig.add_gridspec(2, 3, height_ratios=[1, 1.25])
    shades = ListedColormap([_blues(canvas)(x) for x in (0.0, 0.12, 0.24, 0.4, 0.62, 0.95)])
    norm = BoundaryNorm([0.5, 1.5, 2.5, 3.5, 5, 7.5, 9.5], 6)
    tops = []
    for column, rate in enumerate((6, 12, 18)):
        axes = fig.add_subplot(grid[0, column])
        tops.append(axes)
        live = aspp_taps[f"live_{rate}_on_33"]
        axes.imshow(live, cmap=shades, norm=norm)
        # Three zones along each axis: the border where a tap falls off, the middle, the other border.
        side = len(live)
        border = min(rate, side - rate)
        corner, middle = (border - 1) / 2, (side - 1) / 2
        for x, y in ((corner, corner), (middle, corner), (middle, middle)):
            value = int(live[round(y), round(x)])
            brightness = np.dot(shades(norm(value))[:3], (0.299, 0.587, 0.114))
            axes.text(
                x,
                y,
                f"{value}",
                ha="center",
                va="center",
                color="#ffffff" if brightness < 0.5 else "#101418",
            )
        axes.set_title(canvas.say(zh=f"空洞率 {rate}", en=f"rate {rate}"))
        bare(axes)
    tops[0].set_ylabel(
        canvas.say(zh="33×33 特征图\n各处的有效抽头数", en="live taps at each\npixel, 33×33 map"),
        linespacing=1.4,
    )
    axes = fig.add_subplot(grid[1, :])
    for size, color, style in ((65, colors.accents[0], "-"), (33, colors.accents[1], "--")):
        share = 9 * aspp_taps[f"share_{size}"]
        axes.plot(aspp_taps["rates"], share, color=color, linestyle=style, label=f"{size}×{size}")
        for rate in (6, 12, 18, 24):
            value = share[rate - 1]
            axes.plot([rate], [value], "o" if size == 65 else "s", color=color)
            axes.annotate(
                f"{value:.1f}",
                (rate, value),
                (4, 5) if size == 65 else (-4, -5),
                textcoords="offset points",
                ha="left" if size == 65 else "right",
                va="bottom" if size == 65 else "top",
                color=color,
            )
    axes.axhline(1, color=colors.muted, linewidth=1, linestyle=":")
    note = canvas.say(zh="只剩 1 个：等于 1×1 卷积", en="one left: a 1×1 convolution")
    axes.text(64, 0.85, note, ha="right", va="top")
    axes.set(xlim=(0, 65), ylim=(0, 9.4), xticks=[1, 6, 12, 18, 24, 32, 48, 64], yticks=[1, 3, 5, 7, 9])
    axes.set_xlabel(canvas.say(zh="空洞率", en="rate"))
    axes.set_ylabel(canvas.say(zh="9 个抽头中平均有效的个数", en="mean live taps of 9"))
    axes.legend(title=canvas.say(zh="特征图", en="map"), loc="upper right")
    return fig


@figure
def dilation_cost(canvas: Canvas, cost: dict[str, Any]) -> Figure:
    colors, rows = canvas.colors, cost["rows"]
    fig, axes = canvas.subplots(1, 1, size=(7.2, 3.6))
    places = np.arange(len(rows))
    series = {
        "library": (
            canvas.say(zh="同尺寸填充（padding = 空洞率）", en="same padding (padding = rate)"),
            colors.accents[0],
            "o",
            -0.08,
        ),
        "unpadded": (
            canvas.say(zh="边界已在输入中，不填充", en="border already in the input, no padding"),
            colors.accents[1],
            "s",
            0.08,
        ),
    }
    for name, (label, color, marker, shift) in series.items():
        middle = np.array([row[name] for row in rows])
        low, high = (np.array([row[f"{name}_{end}"] for row in rows]) for end in ("low", "high"))
        axes.errorbar(
            places + shift,
            middle,
            (middle - low, high - middle),
            color=color,
            marker=marker,
            linestyle="none",
            capsize=4,
            label=label,
        )
        for place, value in zip(places, middle, strict=True):
            axes.annotate(
                f"{value:.2f}",
                (place + shift, value),
                (-8 if shift < 0 else 8, 0),
                textcoords="offset points",
                ha="right" if shift < 0 else "left",
                va="center",
                color=color,
            )
    axes.axhline(1, color=colors.muted, linewidth=1, linestyle=":")
    axes.set_xticks(places, [str(row["dilation"]) for row in rows])
    axes.set_xlim(-0.5, len(rows) - 0.5)
    top = 1.3 * max(row[f"{name}_high"] for row in rows for name in series)
    axes.set_yticks(np.arange(0, top, 0.5))
    axes.set_ylim(0, top)
    axes.set_xlabel(
        canvas.say(
            zh="空洞率（乘加次数与参数量都相同）",
            en="dilation (equal multiply-adds and parameters)",
        )
    )
    axes.set_ylabel(canvas.say(zh="耗时 / 空洞率 1 的耗时", en="time / time at dilation 1"))
    axes.legend(loc="upper left")
    return fig


_NETS = {"plain": "1, 1, 1", "gridded": "2, 2, 2", "hybrid": "1, 2, 3"}


def _net_label(canvas: Canvas, name: str) -> str:
    return canvas.say(zh=f"空洞率 {_NETS[name]}", en=f"rates {_NETS[name]}")


@figure
def training_predictions(canvas: Canvas, training: dict[str, Any]) -> Figure:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    colors = canvas.colors
    classes = ListedColormap([colors.faint, colors.accents[1], colors.accents[0]])
    fig, panels = canvas.subplots(2, 3, size=(7.2, 5.6))
    panels[0, 0].imshow(training["image"], cmap="gray")
    panels[0, 0].set_title(canvas.say(zh="输入（含噪声）", en="input (noisy)"))
    panels[0, 1].imshow(training["truth"], cmap=classes, vmin=0, vmax=2)
    panels[0, 1].set_title(canvas.say(zh="真值", en="truth"))
    names = [
        canvas.say(zh="背景", en="background"),
        canvas.say(zh="细线", en="thin"),
        canvas.say(zh="大块", en="large"),
    ]
    panels[0, 2].axis("off")
    panels[0, 2].legend(
        handles=[Patch(color=classes(i), label=name) for i, name in enumerate(names)],
        loc="center left",
        fontsize=10.5,
    )
    for axes, name in zip(panels[1], _NETS, strict=True):
        axes.imshow(training[f"prediction_{name}"], cmap=classes, vmin=0, vmax=2)
        thin, large = training[f"{name}_thin"], training[f"{name}_large"]
        axes.set_title(
            canvas.say(
                zh=f"{_net_label(canvas, name)}\nIoU 细线 {thin:.2f}，大块 {large:.2f}",
                en=f"{_net_label(canvas, name)}\nIoU thin {thin:.2f}, large {large:.2f}",
            ),
            linespacing=1.4,
        )
    for axes in panels.flat:
        bare(axes)
    return fig


@figure
def checkerboard(canvas: Canvas, training: dict[str, Any]) -> Figure:
    fig, panels = canvas.subplots(1, 3, size=(7.2, 3.75))
    rows, columns = slice(8, 32), slice(8, 32)
    for axes, name in zip(panels, _NETS, strict=True):
        picture = axes.imshow(training[f"score_{name}"][rows, columns], cmap=_blues(canvas), vmin=0, vmax=1)
        share = training[f"{name}_checkerboard"]
        axes.set_title(
            canvas.say(
                zh=f"{_net_label(canvas, name)}\n不一致的块 {share:.1%}",
                en=f"{_net_label(canvas, name)}\nmixed blocks {share:.1%}",
            ),
            linespacing=1.4,
        )
        bare(axes)
    bar = fig.colorbar(picture, ax=panels, location="bottom", shrink=0.5, aspect=28)
    bar.set_label(canvas.say(zh="前景的预测概率", en="predicted probability of foreground"))
    return fig


@figure
def noise_sweep(canvas: Canvas, training_noise: dict[str, Any]) -> Figure:
    colors, rows = canvas.colors, training_noise["rows"]
    fig, panels = canvas.subplots(1, 2, size=(7.2, 3.7), sharey=True)
    styles = {
        "hybrid": (colors.accents[0], "o", "-"),
        "plain": (colors.accents[2], "^", ":"),
        "gridded": (colors.accents[1], "s", "--"),
    }
    noises = [row["noise"] for row in rows]
    titles = {
        "thin": canvas.say(zh="细线", en="thin parts"),
        "large": canvas.say(zh="大块", en="large parts"),
    }
    for axes, (part, title) in zip(panels, titles.items(), strict=True):
        for name, (color, marker, line) in styles.items():
            values = [row[f"{name}_{part}"] for row in rows]
            axes.plot(
                noises,
                values,
                color=color,
                marker=marker,
                linestyle=line,
                label=_net_label(canvas, name),
            )
        axes.set_title(title)
        axes.set_xticks(noises)
        axes.set_xlabel(canvas.say(zh="噪声标准差", en="standard deviation of the noise"))
        axes.set_ylim(0, 1)
    panels[0].set_ylabel("IoU")
    panels[0].legend(loc="lower left")
    return fig
