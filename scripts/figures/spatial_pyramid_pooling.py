"""Drawings for spatial pyramid pooling."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.pipeline.figure import Canvas, bare, figure
from snippets.spatial_pyramid_pooling import bin_edges, chained_kernel, paper_window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _box(axes: Axes, left: float, top: float, width: float, height: float, **style: Any) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((left, top), width, height, **style))


def _cells(canvas: Canvas, axes: Axes, height: int, width: int, left: float = 0, top: float = 0) -> None:
    color = canvas.colors.faint
    _box(axes, left, top, width, height, facecolor="none", edgecolor=canvas.colors.muted, linewidth=1)
    axes.hlines(top + np.arange(1, height), left, left + width, color=color, linewidth=0.6)
    axes.vlines(left + np.arange(1, width), top, top + height, color=color, linewidth=0.6)


_MAPS = ((13, 13), (9, 16))


@figure
def two_meanings(canvas: Canvas) -> Figure:
    colors = canvas.colors
    fig, panels = canvas.subplots(2, 3, size=(7.2, 4.6), width_ratios=[1, 1.15, 1.15])
    titles = [
        canvas.say(zh="特征图", en="feature map"),
        canvas.say(zh="SPP-net：定长向量", en="SPP-net: one length"),
        canvas.say(zh="YOLO：尺寸不变", en="YOLO: size kept"),
    ]
    for (height, width), row in zip(_MAPS, panels, strict=True):
        plain, vector, stack = row
        plain.axhline(0, color="none")
        _box(plain, 0, 0, width, height, facecolor=colors.accents[0], alpha=0.18, linewidth=0)
        _cells(canvas, plain, height, width)
        size = canvas.say(zh=f"{height}×{width}，C 个通道", en=f"{height}×{width}, C channels")
        plain.text(width / 2, height + 0.6, size, ha="center", va="top")
        plain.set(xlim=(-1, 17), ylim=(16, -1.5), aspect="equal")

        vector.axhline(0, color="none")
        for number, (level, color) in enumerate(zip((1, 2, 4), colors.accents, strict=False)):
            side, left = 4.4, number * 5.6
            for i, j in product(range(level), range(level)):
                step = side / level
                _box(
                    vector,
                    left + j * step,
                    i * step,
                    step,
                    step,
                    facecolor=color,
                    alpha=0.3,
                    edgecolor=colors.surface,
                    linewidth=1.5,
                )
            vector.text(left + side / 2, -0.4, f"{level}×{level}", ha="center", va="bottom", color=color)
        slot, left = 15.6 / 21, 0.0
        for color, count in zip(colors.accents, (1, 4, 16), strict=False):
            for _ in range(count):
                _box(vector, left, 6.8, slot, 1.5, facecolor=color, edgecolor=colors.surface, linewidth=0.8)
                left += slot
        vector.annotate(
            "",
            (7.8, 6.5),
            (7.8, 4.8),
            arrowprops={"arrowstyle": "->", "color": colors.muted, "shrinkA": 0, "shrinkB": 0},
        )
        vector.text(7.8, 8.9, canvas.say(zh="21·C 个数", en="21·C numbers"), ha="center", va="top")
        vector.set(xlim=(-0.6, 16.6), ylim=(12.5, -2.6), aspect="equal")

        stack.axhline(0, color="none")
        for number, kernel in enumerate((13, 9, 5, 1)):
            left, top = 4.8 - 1.6 * number, 1.2 * number
            color = colors.accents[(3, 2, 1, 0)[number]]
            _box(stack, left, top, width, height, facecolor=colors.surface, edgecolor=color, linewidth=1.6)
            _box(stack, left, top, width, height, facecolor=color, alpha=0.18, linewidth=0)
            stack.text(
                left + width - 0.25, top + 0.12, f"{kernel}", ha="right", va="top", color=color, fontsize=8
            )
        label = canvas.say(zh=f"{height}×{width}，4·C 个通道", en=f"{height}×{width}, 4·C channels")
        stack.text((width + 4.8) / 2, height + 4.4, label, ha="center", va="top")
        stack.set(xlim=(-1, 22), ylim=(20.5, -1), aspect="equal")
    for axes, title in zip(panels[0], titles, strict=True):
        axes.set_title(title)
    for axes in panels.flat:
        axes.set_anchor("N")
        bare(axes)
    return fig


@figure
def pyramid_bins(canvas: Canvas, pyramid: dict[str, Any]) -> Figure:
    from matplotlib.patches import Patch

    colors = canvas.colors
    fig, panels = canvas.subplots(2, 3, size=(7.2, 5.0))
    for axes, row in zip(panels.flat, pyramid["rows"], strict=True):
        height, width, level = row["height"], row["width"], row["level"]
        axes.axhline(0, color="none")
        counted = np.zeros((height, width), dtype=int)
        for (top, bottom), (left, right) in product(bin_edges(height, level), bin_edges(width, level)):
            counted[top:bottom, left:right] += 1
        for i, j in np.argwhere(counted > 1):
            _box(axes, j, i, 1, 1, facecolor=colors.accents[1], alpha=0.45, linewidth=0)
        assert (counted > 1).sum() == row["shared"]
        _cells(canvas, axes, height, width)
        for (top, bottom), (left, right) in product(bin_edges(height, level), bin_edges(width, level)):
            inset = 0.18
            _box(
                axes,
                left + inset,
                top + inset,
                right - left - 2 * inset,
                bottom - top - 2 * inset,
                fill=False,
                edgecolor=colors.accents[0],
                linewidth=1.4,
            )
        rows, columns = row["heights"].split(", ")[0], row["widths"].split(", ")[0]
        axes.set_title(
            canvas.say(
                zh=f"{level}×{level} 块，各 {rows}×{columns}",
                en=f"{level}×{level} bins, each {rows}×{columns}",
            )
        )
        axes.set(xlim=(-0.3, width + 0.3), ylim=(height + 0.3, -0.3), aspect="equal")
        bare(axes)
    for axes, (height, width) in zip(panels[:, 0], _MAPS, strict=True):
        axes.set_ylabel(canvas.say(zh=f"{height}×{width} 特征图", en=f"{height}×{width} map"))
    shared = canvas.say(zh="几块共用的格", en="shared by several bins")
    outline = canvas.say(zh="一块", en="one bin")
    fig.legend(
        handles=[
            Patch(facecolor="none", edgecolor=colors.accents[0], linewidth=1.4, label=outline),
            Patch(facecolor=colors.accents[1], alpha=0.45, label=shared),
        ],
        loc="outside lower center",
        ncols=2,
    )
    return fig


def _row_of_windows(
    canvas: Canvas, axes: Axes, size: int, spans: Sequence[tuple[int, int]], y: float, bins: int
) -> None:
    """One row of cells with the windows laid over it, staggered, so that overlaps can be seen."""
    colors = canvas.colors
    seen = {cell for start, end in spans for cell in range(start, end)}
    for cell in range(size):
        missed = cell not in seen
        _box(
            axes,
            cell,
            y,
            1,
            0.6,
            facecolor=colors.accents[3] if missed else colors.faint,
            edgecolor=colors.surface,
            linewidth=1,
        )
    for number, (start, end) in enumerate(spans):
        inside = start < size and end > 0
        color = colors.accents[1] if number >= bins or not inside else colors.accents[0]
        height = y - 0.25 - 0.3 * (number % 3)
        axes.plot([start + 0.1, end - 0.1], [height, height], color=color, linewidth=3, solid_capstyle="butt")


@figure
def three_rules(canvas: Canvas) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    colors = canvas.colors
    cases = ((7, 4), (15, 4), (5, 4))
    fig, panels = canvas.subplots(3, 3, size=(7.2, 4.6), sharex="col")
    names = [
        canvas.say(zh="附录 A", en="appendix A"),
        canvas.say(zh="2.3 节的窗口", en="window of\nsection 2.3"),
        canvas.say(zh="填充修补", en="padded\nrepair"),
    ]
    for column, (size, bins) in enumerate(cases):
        kernel, stride = paper_window(size, bins)
        slid = [(start, start + kernel) for start in range(0, size - kernel + 1, stride)]
        padding = (kernel * bins - size + 1) // 2
        padded = [(i * kernel - padding, (i + 1) * kernel - padding) for i in range(bins)]
        edges = bin_edges(size, bins)
        missed = size - slid[-1][1]
        empty = sum(end <= 0 or start >= size for start, end in padded)
        verdicts = [
            canvas.say(zh=f"{len(edges)} 块", en=f"{len(edges)} bins"),
            canvas.say(zh=f"{len(slid)} 个窗口", en=f"{len(slid)} windows")
            + (canvas.say(zh=f"，漏 {missed} 格", en=f", {missed} cells unread") if missed else ""),
            canvas.say(zh=f"填充 {padding}", en=f"padding {padding}")
            + (canvas.say(zh=f"，{empty} 块全空", en=f", {empty} bin empty") if empty else ""),
        ]
        for axes, spans, verdict in zip(panels[:, column], (edges, slid, padded), verdicts, strict=True):
            axes.axhline(0, color="none")
            _row_of_windows(canvas, axes, size, spans, 0, bins)
            axes.text(size / 2, 0.8, verdict, ha="center", va="top")
            reach = 2.3 if size < 10 else 0.6
            axes.set(xlim=(-reach, size + reach), ylim=(1.6, -1.1))
            bare(axes)
        panels[0, column].set_title(
            canvas.say(zh=f"{size} 格分成 {bins} 块", en=f"{size} cells into {bins} bins")
        )
    for axes, name in zip(panels[:, 0], names, strict=True):
        axes.set_ylabel(name, rotation=0, ha="right", va="center", linespacing=1.3)
    fig.legend(
        handles=[
            Line2D([], [], color=colors.accents[0], linewidth=3, label=canvas.say(zh="窗口", en="window")),
            Line2D(
                [],
                [],
                color=colors.accents[1],
                linewidth=3,
                label=canvas.say(zh="多余或全在填充里", en="one too many, or in the padding"),
            ),
            Patch(color=colors.accents[3], label=canvas.say(zh="没读到的格", en="cell never read")),
        ],
        loc="outside lower center",
        ncols=3,
    )
    return fig


@figure
def window_verdicts(canvas: Canvas, windows: dict[str, Any]) -> Figure:
    from matplotlib.patches import Patch

    colors = canvas.colors
    state, made = windows["state"], windows["made"]
    fig, panels = canvas.subplots(2, 1, size=(7.2, 4.4))
    shades = {0: (colors.accents[0], 0.3), 1: (colors.accents[4], 0.55), 2: (colors.accents[1], 1.0)}
    half = windows["max_size"] // 2
    for axes, first in zip(panels, (1, half + 1), strict=True):
        axes.axhline(0, color="none")
        for size, bins in product(range(first, first + half), range(1, windows["max_bins"] + 1)):
            kind = int(state[bins - 1, size - 1])
            if kind < 0:
                continue
            color, alpha = shades[kind]
            _box(
                axes,
                size - 0.5,
                bins - 0.5,
                1,
                1,
                facecolor=color,
                alpha=alpha,
                edgecolor=colors.surface,
                linewidth=1,
            )
            if kind == 2:
                axes.text(
                    size,
                    bins,
                    f"{made[bins - 1, size - 1]}",
                    ha="center",
                    va="center",
                    color=colors.surface,
                    fontsize=9,
                )
        axes.set(xlim=(first - 0.5, first + half - 0.5), ylim=(windows["max_bins"] + 0.5, 0.5))
        axes.set_xticks([size for size in range(first, first + half) if size == first or size % 4 == 0])
        axes.set_yticks(range(1, windows["max_bins"] + 1))
        axes.set_ylabel(canvas.say(zh="块数", en="bins"))
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(False)
    panels[1].set_xlabel(canvas.say(zh="特征图的边长", en="side of the map"))
    labels = [
        canvas.say(zh="与附录 A 相同", en="as in appendix A"),
        canvas.say(zh="块数对，但漏掉末尾", en="count right, last cells unread"),
        canvas.say(zh="块数错（数字为所得窗口数）", en="wrong count (windows made)"),
    ]
    fig.legend(
        handles=[
            Patch(facecolor=shades[kind][0], alpha=shades[kind][1], label=label)
            for kind, label in enumerate(labels)
        ],
        loc="outside lower center",
        ncols=3,
    )
    return fig


@figure
def chain_of_pools(canvas: Canvas) -> Figure:
    colors = canvas.colors
    fig, axes = canvas.subplots(1, 1, size=(7.2, 3.7))
    for step in range(3, 0, -1):
        reach = 2 * step
        axes.fill([0, -reach, reach], [step, 0, 0], color=colors.accents[step], alpha=0.12, linewidth=0)
        axes.plot([-reach, 0, reach], [0, step, 0], color=colors.accents[step], linewidth=1.4)
    for level in range(4):
        for x in range(-7, 8):
            inside = abs(x) <= 2 * (3 - level)
            axes.plot(
                [x], [level], "o", color=colors.accents[0] if inside else colors.faint, markersize=6, zorder=3
            )
    for step in range(1, 4):
        kernel = chained_kernel([5] * step)
        half, y = (kernel - 1) / 2, -0.15 - 0.42 * step
        axes.annotate(
            "",
            (-half - 0.3, y),
            (half + 0.3, y),
            arrowprops={"arrowstyle": "<->", "color": colors.accents[step], "shrinkA": 0, "shrinkB": 0},
        )
        times = canvas.say(zh=f"池化 {step} 次 = 一个 {kernel}", en=f"{step}× pooled = one {kernel}")
        axes.text(7.6, y, times, ha="left", va="center", color=colors.accents[step])
    names = [
        canvas.say(zh="输入", en="input"),
        *(canvas.say(zh=f"第 {step} 次池化", en=f"pool {step}") for step in (1, 2, 3)),
    ]
    axes.set_yticks(range(4), names)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.set(xlim=(-7.6, 12.4), ylim=(-1.75, 3.3))
    for side in axes.spines.values():
        side.set_visible(False)
    return fig


@figure
def branch_view(canvas: Canvas, branches: dict[str, Any]) -> Figure:
    from matplotlib.patches import Patch

    colors, size = canvas.colors, 20
    fig, panels = canvas.subplots(1, 2, size=(7.2, 4.3))
    spots = {
        canvas.say(zh="输出在正中", en="output in the middle"): (10, 10),
        canvas.say(zh="输出靠近一角", en="output near a corner"): (1, 18),
    }
    kernels = (13, 9, 5, 1)
    for axes, (title, (row, column)) in zip(panels, spots.items(), strict=True):
        axes.axhline(0, color="none")
        for kernel, number in zip(kernels, (3, 2, 1, 0), strict=True):
            reach = kernel // 2
            top, bottom = max(row - reach, 0), min(row + reach + 1, size)
            left, right = max(column - reach, 0), min(column + reach + 1, size)
            color = colors.accents[number]
            box = (left, top, right - left, bottom - top)
            _box(axes, *box, facecolor=colors.surface, linewidth=0)
            _box(axes, *box, facecolor=color, alpha=0.35 if kernel > 1 else 1, linewidth=0)
            _box(axes, *box, fill=False, edgecolor=color, linewidth=1.6)
        _cells(canvas, axes, size, size)
        axes.set_title(title)
        axes.set(xlim=(-0.3, size + 0.3), ylim=(size + 0.3, -0.3), aspect="equal")
        bare(axes)
    handles = []
    for kernel, number in zip(reversed(kernels), range(4), strict=True):
        share = branches[f"share_{kernel}_{size}"]
        label = f"{kernel}×{kernel}: {share:.1%}"
        handles.append(
            Patch(
                facecolor=colors.accents[number],
                alpha=0.35 if kernel > 1 else 1,
                edgecolor=colors.accents[number],
                label=label,
            )
        )
    fig.legend(
        handles=handles,
        loc="outside lower center",
        ncols=4,
        title=canvas.say(
            zh="窗口，以及所有输出平均看到的比例", en="window, and mean share of the map it sees"
        ),
    )
    return fig


@figure
def cost_of_blocks(canvas: Canvas, cost: dict[str, Any]) -> Figure:
    colors, rows = canvas.colors, cost["rows"]
    fig, (left, right) = canvas.subplots(1, 2, size=(7.2, 3.9), width_ratios=[1, 1.35])
    ways = {
        "parallel": (canvas.say(zh="并联\n5, 9, 13", en="parallel\n5, 9, 13"), colors.accents[1]),
        "chained": (canvas.say(zh="串联\n5, 5, 5", en="chain\n5, 5, 5"), colors.accents[0]),
        "separable": (canvas.say(zh="串联且\n行列分开", en="chain, rows\n+ columns"), colors.accents[2]),
    }
    for place, (way, (_, color)) in enumerate(ways.items()):
        value = cost[f"a_cell_{way}"]
        left.bar(place, value, width=0.65, color=color)
        left.text(place, value + 4, f"{value}", ha="center", va="bottom", color=color)
    left.set_xticks(range(3), [label for label, _ in ways.values()], linespacing=1.3)
    left.tick_params(axis="x", length=0)
    left.set(xlim=(-0.6, 2.6), ylim=(0, 310), yticks=[0, 100, 200, 300])
    left.set_title(canvas.say(zh="每格的比较次数", en="comparisons a cell"))

    places = np.arange(len(rows))
    right.plot(
        places,
        [row["counted"] for row in rows],
        linestyle="--",
        marker="D",
        color=colors.muted,
        label=canvas.say(zh="数出的比较次数之比", en="comparisons counted"),
    )
    for key, label, color, marker, shift in (
        ("pools", canvas.say(zh="只算池化的耗时之比", en="time, pools alone"), colors.accents[0], "o", -0.07),
        ("blocks", canvas.say(zh="整个模块的耗时之比", en="time, whole block"), colors.accents[1], "s", 0.07),
    ):
        middle = np.array([row[key] for row in rows])
        low = np.minimum([row[f"{key}_low"] for row in rows], middle)
        high = np.maximum([row[f"{key}_high"] for row in rows], middle)
        right.errorbar(
            places + shift,
            middle,
            (middle - low, high - middle),
            color=color,
            marker=marker,
            linestyle="none",
            capsize=4,
            label=label,
        )
    right.axhline(1, color=colors.muted, linewidth=1, linestyle=":")
    right.set_xticks(places, [f"{row['size']}×{row['size']}" for row in rows])
    right.set_xlim(-0.4, len(rows) - 0.6)
    top = max(max(row["counted"], row["pools"], row["blocks"]) for row in rows)
    right.set_ylim(0, 1.55 * top)
    right.set_xlabel(canvas.say(zh="特征图", en="map"))
    right.set_title(canvas.say(zh="SPP / SPPF", en="SPP over SPPF"))
    right.legend(loc="upper left")
    return fig


_STYLES = {
    "spp_max": (0, "o", "-"),
    "spp_multi": (2, "D", "-"),
    "spp_avg": (5, "v", "--"),
    "global_max": (1, "s", "--"),
    "global_avg": (4, "^", ":"),
    "flatten": (3, "X", "-."),
}


def _net_name(canvas: Canvas, net: str) -> str:
    return {
        "flatten": canvas.say(zh="缩放到 32 再展平", en="resize to 32, flatten"),
        "global_max": canvas.say(zh="全局最大", en="global max"),
        "global_avg": canvas.say(zh="全局平均", en="global average"),
        "spp_avg": canvas.say(zh="SPP 平均", en="SPP average"),
        "spp_max": canvas.say(zh="SPP 最大", en="SPP max"),
        "spp_multi": canvas.say(zh="SPP 最大，多尺寸训练", en="SPP max, trained at 3 sizes"),
    }[net]


def _size_axis(canvas: Canvas, axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size}" for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(0, 1.03)
    axes.axvline(32, color=canvas.colors.faint, linewidth=5, zorder=0)


@figure
def accuracy_by_size(canvas: Canvas, training: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, panels = canvas.subplots(1, 2, size=(7.2, 4.7), sharey=True, width_ratios=[1.5, 1])
    for axes, prefix, sizes in (
        (panels[0], "", training["sizes"]),
        (panels[1], "canvas_", training["canvas_sizes"]),
    ):
        for net, (number, marker, line) in _STYLES.items():
            row = training["net_names"].index(net)
            axes.errorbar(
                sizes,
                training[f"{prefix}curves"][row],
                training[f"{prefix}spreads"][row],
                color=colors.accents[number],
                marker=marker,
                linestyle=line,
                markersize=5,
                linewidth=1.5,
                capsize=2,
                label=_net_name(canvas, net),
            )
        _size_axis(canvas, axes, sizes)
        axes.axhline(training["chance"], color=colors.muted, linewidth=1, linestyle=":")
    panels[0].set_title(canvas.say(zh="整幅画面换分辨率", en="whole picture at another resolution"))
    panels[1].set_title(canvas.say(zh="形状不变，画布变大", en="same shapes, larger canvas"))
    panels[0].set_ylabel(canvas.say(zh="准确率（16 类）", en="accuracy (16 classes)"))
    for axes in panels:
        axes.set_xlabel(canvas.say(zh="图像边长（训练时 32）", en="side of the image (trained at 32)"))
    handles, labels = panels[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=2)
    return fig


@figure
def what_and_where(canvas: Canvas, training: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, panels = canvas.subplots(1, 2, size=(7.2, 4.3), sharey=True)
    titles = {
        "kind": canvas.say(zh="是什么：四种形状", en="what: four shapes"),
        "place": canvas.say(zh="在哪里：四个象限", en="where: four quadrants"),
    }
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        for net in ("spp_max", "global_max", "global_avg", "flatten"):
            number, marker, line = _STYLES[net]
            axes.plot(
                training["sizes"],
                training[f"{key}_curves"][training["net_names"].index(net)],
                color=colors.accents[number],
                marker=marker,
                linestyle=line,
                markersize=5,
                label=_net_name(canvas, net),
            )
        _size_axis(canvas, axes, training["sizes"])
        axes.axhline(0.25, color=colors.muted, linewidth=1, linestyle=":")
        axes.set_title(title)
        axes.set_xlabel(canvas.say(zh="图像边长（训练时 32）", en="side of the image (trained at 32)"))
    panels[0].set_ylabel(canvas.say(zh="答对的比例", en="share right"))
    handles, labels = panels[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=2)
    return fig


@figure
def pictures(canvas: Canvas, training: dict[str, Any]) -> Figure:
    from matplotlib.colors import ListedColormap

    colors = canvas.colors
    inks = ListedColormap([colors.faint, colors.accents[0]])
    fig, panels = canvas.subplots(1, 4, size=(7.2, 2.15))
    names = {
        "16": canvas.say(zh="16×16", en="16×16"),
        "32": canvas.say(zh="32×32（训练）", en="32×32 (trained)"),
        "64": canvas.say(zh="64×64", en="64×64"),
        "canvas": canvas.say(zh="画布 64×64", en="canvas 64×64"),
    }
    for axes, (key, title) in zip(panels, names.items(), strict=True):
        samples = training[f"samples_{key}"]
        side = samples.shape[1]
        sheet = np.zeros((2 * side, 2 * side))
        for number, (i, j) in enumerate(product(range(2), range(2))):
            sheet[i * side : (i + 1) * side, j * side : (j + 1) * side] = samples[number]
        axes.imshow(sheet, cmap=inks)
        axes.axhline(side - 0.5, color=colors.surface, linewidth=3)
        axes.axvline(side - 0.5, color=colors.surface, linewidth=3)
        axes.set_title(title)
        bare(axes)
    return fig
