"""Drawings for DETR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.pipeline.figure import Canvas, bare, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _names(canvas: Canvas) -> list[str]:
    return [
        canvas.say(zh="圆", en="disc"),
        canvas.say(zh="方块", en="square"),
        canvas.say(zh="三角", en="triangle"),
        canvas.say(zh="天空", en="sky"),
        canvas.say(zh="地面", en="ground"),
    ]


def _box(axes: Axes, corners: Any, **style: Any) -> None:
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = corners
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, **style))


def _corners(row: dict[str, Any]) -> tuple[float, ...]:
    return tuple(row[key] for key in ("x1", "y1", "x2", "y2"))


@figure
def matching_cost(canvas: Canvas, matching_example: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, (picture, table) = canvas.subplots(1, 2, size=(7.2, 3.9), width_ratios=[1, 1.05])
    for q, corners in enumerate(matching_example["boxes"]):
        color = colors.accents[q]
        _box(picture, corners, edgecolor=color, linewidth=2)
        x1, y1, x2, y2 = corners
        if q == 3:  # inside q2: its name goes to the right
            picture.text(x2 + 0.015, (y1 + y2) / 2, f"q{q}", color=color, va="center")
        else:
            side = {"ha": "right"} if q in (0, 2) else {"ha": "left"}
            picture.text(x2 if q in (0, 2) else x1, y1 - 0.015, f"q{q}", color=color, va="bottom", **side)
    for j, (x1, y1, x2, y2) in enumerate(matching_example["truth"]):
        _box(picture, matching_example["truth"][j], edgecolor=colors.ink, linewidth=1.2, linestyle="--")
        if j == 2:
            picture.text(x1, y2 + 0.015, "C", color=colors.ink, va="top")
        else:  # above, at the corner that no other box covers
            place = {"x": x1, "ha": "left"} if j == 0 else {"x": x2, "ha": "right"}
            picture.text(y=y1 - 0.015, s="AB"[j], color=colors.ink, va="bottom", **place)
    picture.set(xlim=(0, 1), ylim=(1, 0), aspect="equal")
    bare(picture, frame=True)
    picture.set_title(canvas.say(zh="真实框（虚线）与查询的框", en="true boxes (dashed), queries' boxes"))
    cost = matching_example["cost"]
    table.imshow(cost, cmap=canvas.sequential, aspect="auto", alpha=0.35)
    chosen = {(matching_example[f"query_{j}"], j) for j in range(3)}
    greedy = {(matching_example[f"greedy_query_{j}"], j) for j in range(3)}
    for q, j in np.ndindex(*cost.shape):
        table.text(j, q, f"{cost[q, j]:.2f}", ha="center", va="center", color=colors.ink, fontsize=11)
        if (q, j) in chosen:
            _box(table, (j - 0.46, q - 0.44, j + 0.46, q + 0.44), edgecolor=colors.accents[2], linewidth=2.6)
        if (q, j) in greedy:
            edge = {"edgecolor": colors.accents[1], "linewidth": 1.8, "linestyle": ":"}
            _box(table, (j - 0.38, q - 0.34, j + 0.38, q + 0.34), **edge)
    table.set_xticks(range(3), list("ABC"))
    table.set_yticks(range(5), [f"q{q}" for q in range(5)])
    table.tick_params(length=0)
    table.set_title(canvas.say(zh="代价：实线最优，点线贪心", en="cost: solid optimal, dotted greedy"))
    for side in table.spines.values():
        side.set_visible(False)
    return fig


@figure
def giou_and_iou(canvas: Canvas, giou_curve: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, axes = canvas.subplots(size=(6.4, 3.4))
    axes.plot(giou_curve["shift"], giou_curve["giou"], color=colors.accents[0])
    axes.plot(giou_curve["shift"], giou_curve["iou"], color=colors.accents[1], linestyle="--")
    axes.axhline(0, color=colors.faint, linewidth=1, zorder=0)
    axes.axvline(1, color=colors.faint, linewidth=1, zorder=0)
    axes.text(2.2, -0.45, "GIoU", color=colors.accents[0], ha="right", va="top")
    axes.text(
        2.2, 0.05, canvas.say(zh="IoU：没有坡度", en="IoU: no slope"), color=colors.accents[1], ha="center"
    )
    axes.text(
        1.04, 0.85, canvas.say(zh="从这里起不再相交", en="apart from here on"), color=colors.muted, ha="left"
    )
    axes.set_xlabel(canvas.say(zh="移动的距离（边长的倍数）", en="shift, in side lengths"))
    axes.set_ylabel(canvas.say(zh="两个正方形的得分", en="score of two squares"))
    return fig


@figure
def position_likeness(canvas: Canvas, position_codes: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, (left, right) = canvas.subplots(1, 2, size=(7.2, 3.2))
    picture = left.imshow(
        np.where(position_codes["padding"], np.nan, position_codes["likeness"]), cmap=canvas.sequential
    )
    left.plot(position_codes["column"], position_codes["row"], marker="+", color=colors.surface, markersize=11)
    height, width = position_codes["padding"].shape
    left.text(
        (position_codes["picture_width"] + width) / 2 - 0.5,
        height / 2 - 1,
        canvas.say(zh="填充", en="padding"),
        rotation=90,
        ha="center",
        va="center",
        color=colors.muted,
    )
    left.set_title(canvas.say(zh="与 + 处编码的余弦", en="cosine with the code at +"))
    left.set_ylabel(canvas.say(zh="行", en="row"))
    fig.colorbar(picture, ax=left, shrink=0.85)
    for number, channel in enumerate((0, 1, 4, 8)):
        right.plot(position_codes["codes_of_row"][channel], marker="o", markersize=3, label=f"{channel}")
        right.lines[-1].set_color(colors.accents[number])
    right.axvspan(
        position_codes["picture_width"] - 0.5, width - 0.5, color=colors.faint, alpha=0.6, linewidth=0
    )
    for axes in (left, right):
        axes.set_xticks(range(0, width, 5))
        axes.set_xlabel(canvas.say(zh="列", en="column"))
    left.set_yticks(range(0, height, 5))
    right.set_ylim(-1.1, 1.75)
    right.set_title(canvas.say(zh="列编码的几个通道", en="some channels of the column code"))
    right.legend(ncols=4, loc="upper left", columnspacing=1, handlelength=1.2)
    return fig


@figure
def greedy_excess(canvas: Canvas, assignments: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, (left, right) = canvas.subplots(1, 2, size=(7.2, 3.1))
    left.plot(assignments["objects"], 100 * assignments["different"], marker="o", color=colors.accents[1])
    left.set_ylabel(canvas.say(zh="配对不同的图（%）", en="pictures paired otherwise (%)"))
    right.plot(assignments["objects"], assignments["excess"], marker="o", color=colors.accents[1])
    right.set_ylabel(canvas.say(zh="多付的代价（平均）", en="mean excess cost"))
    for axes in (left, right):
        axes.set_xlabel(canvas.say(zh="图中的真实框", en="true boxes in the picture"))
        axes.set_ylim(bottom=0)
    return fig


@figure
def predictions(canvas: Canvas, training: dict[str, Any]) -> Figure:
    colors, names = canvas.colors, _names(canvas)
    fig, panels = canvas.subplots(2, 2, size=(5.4, 6.0))
    for i, axes in enumerate(panels.flat):
        axes.imshow(training["image"][i], extent=(0, 64, 64, 0), interpolation="bilinear")
        for row in training["truth_rows"]:
            if row["picture"] == i and row["label"] < 3:
                _box(axes, _corners(row), edgecolor="black", linewidth=1.2, linestyle="--")
        below: list[str] = []
        taken: list[tuple[float, float]] = []
        for row in training["shown_rows"]:
            if row["picture"] == i and row["label"] < 3:
                _box(axes, _corners(row), edgecolor="white", linewidth=2.2)
                x, y = min(max(row["x1"] + 1, 1), 54), max(row["y1"], 0) + 1
                while any(abs(x - u) < 6 and abs(y - v) < 5 for u, v in taken):
                    y += 5  # one on another's place goes below it
                taken.append((x, y))
                axes.text(
                    x,
                    y,
                    f"q{row['query']}",
                    ha="left",
                    va="top",
                    color="white",
                    fontsize=9,
                    bbox={"facecolor": "#1f2430", "edgecolor": "none", "pad": 1.5},
                )
                below.append(f"q{row['query']} {names[row['label']]} {row['score']:.2f}")
        axes.set_xlim(0, 64)
        axes.set_ylim(64, 0)
        bare(axes)
        lines = [" · ".join(below[k : k + 2]) for k in range(0, len(below), 2)]
        axes.set_xlabel("\n".join(lines) or "-", color=colors.ink)
    return fig


@figure
def attention(canvas: Canvas, training: dict[str, Any]) -> Figure:
    names, rows = _names(canvas), training["attention_rows"]
    columns = 3
    lines = -(-(len(rows) + 1) // columns)
    fig, panels = canvas.subplots(lines, columns, size=(7.2, 2.6 * lines))
    flat = list(np.ravel(panels))
    for axes in flat:
        bare(axes)
        axes.axis("off")
    flat[0].axis("on")
    flat[0].imshow(training["image"][0], extent=(0, 64, 64, 0))
    flat[0].set_title(canvas.say(zh="输入", en="input"))
    for axes, row, weights in zip(flat[1:], rows, training["attention"], strict=False):
        axes.axis("on")
        gray = training["image"][0].mean(-1)
        axes.imshow(gray, extent=(0, 64, 64, 0), cmap="gray", vmin=0, vmax=1)
        axes.imshow(
            weights, extent=(0, 64, 64, 0), cmap="inferno", alpha=0.65, interpolation="bilinear", vmin=0
        )
        _box(axes, _corners(row), edgecolor="white", linewidth=1.8)
        axes.set_xlim(0, 64)
        axes.set_ylim(64, 0)
        axes.set_title(f"q{row['query']} {names[row['label']]}")
    return fig


@figure
def score_meaning(canvas: Canvas, training: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, axes = canvas.subplots(size=(6.4, 3.8))
    score = np.linspace(0, 1, 201)
    axes.plot(score, 0.1 * score / (1 - 0.9 * score), color=colors.accents[0])
    axes.plot([0, 1], [0, 1], color=colors.muted, linestyle="--", linewidth=1.2)
    axes.scatter(training["bin_score"], training["bin_right"], color=colors.accents[1], zorder=3)
    for x, y, count in zip(training["bin_score"], training["bin_right"], training["bin_count"], strict=True):
        axes.annotate(
            f"{count}", (x, y), (-6, 4), textcoords="offset points", ha="right", color=colors.accents[1]
        )
    axes.axvline(training["sure"], color=colors.faint, linewidth=1, zorder=0)
    axes.text(0.13, 0.04, canvas.say(zh="公式", en="formula"), color=colors.accents[0], ha="center")
    axes.text(training["sure"] - 0.01, 0.04, canvas.say(zh="一半对一半", en="even odds"), ha="right")
    axes.text(
        0.55,
        0.58,
        canvas.say(zh="得分 = 比例", en="score = share"),
        color=colors.muted,
        ha="right",
        va="bottom",
    )
    axes.set(xlim=(0, 1.01), ylim=(0, 1.05))
    axes.set_xlabel(canvas.say(zh="得分", en="score"))
    axes.set_ylabel(canvas.say(zh="说对的比例", en="share that is right"))
    return fig


@figure
def query_centers(canvas: Canvas, training: dict[str, Any]) -> Figure:
    colors = canvas.colors
    centers, queries = training["centers"], training["queries"]
    fig, panels = canvas.subplots(2, queries // 2, size=(7.2, 3.4), sharex=True, sharey=True)
    for query, axes in enumerate(panels.flat):
        mine = centers[centers[:, 0] == query]
        things, stuff = mine[mine[:, 5] < 3], mine[mine[:, 5] >= 3]
        for part, color in ((things, colors.accents[0]), (stuff, colors.accents[1])):
            axes.scatter(part[:, 1], part[:, 2], s=3, color=color, linewidths=0, alpha=0.6)
        axes.set(xlim=(0, 1), ylim=(1, 0), aspect="equal")
        bare(axes, frame=True)
        axes.set_title(f"q{query} ({len(mine)})")
    return fig


@figure
def loss_curves(canvas: Canvas, ablations: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, axes = canvas.subplots(size=(6.6, 3.6))
    labels = {
        "full": (colors.accents[0], "-", canvas.say(zh="完整", en="full")),
        "greedy": (colors.accents[1], "--", canvas.say(zh="贪心匹配", en="greedy matching")),
        "no_auxiliary": (colors.accents[2], ":", canvas.say(zh="无辅助损失", en="no auxiliary losses")),
    }
    kernel = np.ones(5) / 5  # mean of five records: fifty steps
    for name, (color, style, label) in labels.items():
        for seed, curve in enumerate(ablations[f"{name}_history"]):
            smooth = np.convolve(curve, kernel, mode="valid") if len(curve) >= 5 else curve
            steps = ablations["history_step"][len(curve) - len(smooth) :]
            axes.plot(steps, smooth, color=color, linestyle=style, label=None if seed else label)
    axes.set_xlabel(canvas.say(zh="训练步数", en="training step"))
    axes.set_ylabel(canvas.say(zh="最后一层的损失", en="loss of the last layer"))
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper right")
    return fig


@figure
def panoptic(canvas: Canvas, training: dict[str, Any]) -> Figure:
    from matplotlib.colors import to_rgb

    colors, names = canvas.colors, _names(canvas)
    shown = min(3, len(training["image"]))
    fig, panels = canvas.subplots(2, shown, size=(7.2, 5.1))
    for i in range(shown):
        above, below = panels[0, i], panels[1, i]
        above.imshow(training["image"][i])
        number, labels = training["segment_map"][i], training["segment_labels"][i]
        painted = np.ones((*number.shape, 3))
        for s, label in enumerate(labels):
            inside = number == s
            rank = labels[:s].count(label)
            color = np.array(to_rgb(colors.accents[label]))
            painted[inside] = color + (1 - color) * 0.3 * (rank % 3)
        edge = np.zeros(number.shape, dtype=bool)
        edge[:, 1:] |= number[:, 1:] != number[:, :-1]
        edge[1:] |= number[1:] != number[:-1]
        painted[edge] = to_rgb(colors.surface)
        below.imshow(painted)
        for axes in (above, below):
            bare(axes)
    panels[0, 0].set_ylabel(canvas.say(zh="输入", en="input"))
    panels[1, 0].set_ylabel(canvas.say(zh="全景分割", en="panoptic"))
    from matplotlib.patches import Patch

    handles = [Patch(color=colors.accents[c], label=name) for c, name in enumerate(names)]
    fig.legend(handles=handles, ncols=5, loc="outside lower center")
    return fig
