"""Drawings for upsampling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.pipeline.figure import Canvas, bare, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _method_names(canvas: Canvas) -> dict[str, str]:
    return {
        "nearest": canvas.say(zh="最近邻", en="nearest"),
        "bilinear": canvas.say(zh="双线性", en="bilinear"),
        "corners": canvas.say(zh="双线性，对齐角点", en="bilinear, corners"),
        "bicubic": canvas.say(zh="双三次", en="bicubic"),
        "fcn": canvas.say(zh="转置卷积（FCN）", en="transposed (FCN)"),
    }


def _decoder_names(canvas: Canvas) -> dict[str, str]:
    return {
        "transposed_3": canvas.say(zh="转置卷积 k=3", en="transposed k=3"),
        "transposed_4": canvas.say(zh="转置卷积 k=4", en="transposed k=4"),
        "sub_pixel": canvas.say(zh="亚像素", en="sub-pixel"),
        "sub_pixel_icnr": canvas.say(zh="亚像素 + ICNR", en="sub-pixel + ICNR"),
        "resize_nearest": canvas.say(zh="最近邻 + 卷积", en="nearest + conv"),
        "resize_bilinear": canvas.say(zh="双线性 + 卷积", en="bilinear + conv"),
    }


@figure
def sampling_grids(canvas: Canvas, coordinates: dict[str, Any]) -> Figure:
    from matplotlib.patches import Rectangle

    colors = canvas.colors
    fig, panels = canvas.subplots(2, 1, size=(7.2, 4.2))
    n, m = coordinates["in_size"], coordinates["out_size"]
    titles = {
        "squares": canvas.say(
            zh="align_corners=False：像素是方块，两排方块首尾对齐",
            en="align_corners=False: pixels are squares, the rows of squares coincide",
        ),
        "points": canvas.say(
            zh="align_corners=True：像素是点，首尾两点对齐",
            en="align_corners=True: pixels are points, first and last coincide",
        ),
    }
    for axes, (rule, title) in zip(panels, titles.items(), strict=True):
        at = coordinates[rule]
        for i in range(n):
            if rule == "squares":
                axes.add_patch(
                    Rectangle((i - 0.5, 1), 1, 0.5, fill=False, edgecolor=colors.accents[0], linewidth=1.4)
                )
        for x in at:
            if rule == "squares":
                width = n / m
                axes.add_patch(
                    Rectangle(
                        (x - width / 2, 0), width, 0.5, fill=False, edgecolor=colors.accents[1], linewidth=1.4
                    )
                )
            axes.plot([x, x], [0.25, 1.25], color=colors.faint, linewidth=1, zorder=0)
        axes.plot(range(n), [1.25] * n, "o", color=colors.accents[0], markersize=9)
        axes.plot(at, [0.25] * m, "s", color=colors.accents[1], markersize=6)
        for i in range(n):
            axes.text(i, 1.62, f"{i}", ha="center", color=colors.accents[0])
        for x in at:
            axes.text(x, -0.12, f"{x:.2f}", ha="center", va="top", fontsize=9, color=colors.accents[1])
        axes.text(
            -0.85, 1.25, canvas.say(zh="输入", en="input"), ha="right", va="center", color=colors.accents[0]
        )
        axes.text(
            -0.85, 0.25, canvas.say(zh="输出", en="output"), ha="right", va="center", color=colors.accents[1]
        )
        axes.set(xlim=(-1.4, n - 0.3), ylim=(-0.5, 1.95), title=title)
        bare(axes)
    return fig


@figure
def ramp_methods(canvas: Canvas, methods: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, (left, right) = canvas.subplots(1, 2, size=(7.2, 4.0))
    at, names = np.arange(len(methods["ramp_exact"])), _method_names(canvas)
    marks = {"nearest": "s", "bilinear": "o", "corners": "^", "bicubic": "D", "fcn": "v"}
    left.plot(
        at, methods["ramp_exact"], color=colors.ink, linewidth=1, label=canvas.say(zh="精确值", en="exact")
    )
    right.axhline(0, color=colors.ink, linewidth=1)
    for number, (name, label) in enumerate(names.items()):
        style: dict[str, Any] = {
            "marker": marks[name],
            "markersize": 4,
            "linewidth": 1,
            "color": colors.accents[number],
        }
        left.plot(at, methods[f"ramp_{name}"], label=label, **style)
        right.plot(at, methods[f"ramp_{name}"] - methods["ramp_exact"], **style)
    left.set_title(canvas.say(zh="斜坡 0…5 放大 4 倍", en="the ramp 0…5, four times as long"))
    right.set_title(canvas.say(zh="与精确值之差", en="difference to the exact value"))
    right.set_ylim(-0.6, 0.6)
    for axes in (left, right):
        axes.set_xlabel(canvas.say(zh="输出像素", en="output pixel"))
    fig.legend(loc="outside lower center", ncols=3)
    return fig


@figure
def image_methods(canvas: Canvas, methods: dict[str, Any]) -> Figure:
    fig, panels = canvas.subplots(4, 3, size=(7.2, 8.6))
    names = _method_names(canvas)
    exact = methods["image_exact"]
    pictures: list[tuple[str, Any, Any]] = [
        (canvas.say(zh="精确值", en="exact"), exact, methods["image_small"])
    ]
    for name, label in names.items():
        image = methods[f"image_{name}"]
        pictures.append((f"{label}\n{methods[f'{name}_psnr']:.1f} dB", image, image - exact))
    for number, (label, image, below) in enumerate(pictures):
        column, row = number % 3, 2 * (number // 3)
        axes = panels[row, column]
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        axes.set_title(label)
        bare(axes)
        axes = panels[row + 1, column]
        if number == 0:
            axes.imshow(below, cmap="gray", vmin=0, vmax=1)
            side = below.shape[0]
            axes.set_xlabel(canvas.say(zh=f"输入，{side}×{side}", en=f"input, {side}×{side}"))
        else:
            axes.imshow(below, cmap=canvas.diverging, vmin=-0.4, vmax=0.4)
            axes.set_xlabel(canvas.say(zh="差", en="difference"))
        bare(axes)
    return fig


def _number_grid(
    canvas: Canvas, axes: Axes, values: Any, shades: Any = None, *, zeros: bool = True, size: int = 10
) -> None:
    """Cells with numbers in them; `shades` (0 to 1) is how strongly each cell is tinted."""
    from matplotlib.patches import Rectangle

    colors = canvas.colors
    height, width = values.shape
    for row, column in np.ndindex(height, width):
        value = values[row, column]
        shade = 0.0 if shades is None else float(shades[row, column])
        axes.add_patch(
            Rectangle(
                (column - 0.5, row - 0.5), 1, 1, facecolor=colors.accents[0], alpha=0.45 * shade, linewidth=0
            )
        )
        axes.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=colors.faint, linewidth=0.8)
        )
        if zeros or value:
            axes.text(column, row, f"{value:g}", ha="center", va="center", fontsize=size)
    axes.set(xlim=(-0.6, width - 0.4), ylim=(height - 0.4, -0.6), aspect="equal")
    bare(axes)


@figure
def scatter_steps(canvas: Canvas, scatter: dict[str, Any]) -> Figure:
    from matplotlib.patches import Rectangle

    colors = canvas.colors
    fig = canvas.subplots(size=(7.2, 5.6))[0]
    fig.clear()
    panels = fig.subplot_mosaic(
        [["image", "p0", "p1"], ["kernel", "p2", "p3"], ["note", "total", "total2"]],
        height_ratios=[1, 1, 1.05],
    )
    image, kernel, parts, total = (scatter[key] for key in ("image", "kernel", "parts", "total"))
    _number_grid(canvas, panels["image"], image, np.ones_like(image))
    panels["image"].set_title(canvas.say(zh="输入", en="input"))
    panels["image"].set(xlim=(-2.1, 3.1), ylim=(3.1, -2.1))
    _number_grid(canvas, panels["kernel"], kernel)
    panels["kernel"].set_title(canvas.say(zh="核", en="kernel"))
    panels["kernel"].set(xlim=(-1.6, 3.6), ylim=(3.6, -1.6))
    for number in range(4):
        axes = panels[f"p{number}"]
        _number_grid(canvas, axes, parts[number], parts[number] / total.max(), zeros=False, size=9)
        value = image.flatten()[number]
        axes.set_title(
            canvas.say(zh=f"第 {number + 1} 步：{value:g} × 核", en=f"step {number + 1}: {value:g} × kernel")
        )
    _number_grid(canvas, panels["total"], total, total / total.max(), size=9)
    panels["total"].set_title(canvas.say(zh="四步之和", en="sum of the four"))
    axes = panels["total2"]
    _number_grid(canvas, axes, total, total / total.max(), size=9)
    axes.add_patch(
        Rectangle((0.54, 0.54), 2.92, 2.92, fill=False, edgecolor=colors.accents[1], linewidth=2.4)
    )
    axes.add_patch(
        Rectangle(
            (0.46, 0.46), 4.08, 4.08, fill=False, edgecolor=colors.accents[2], linewidth=2.4, linestyle="--"
        )
    )
    axes.set_title(canvas.say(zh="裁剪之后", en="cropped"))
    note = panels["note"]
    note.set(xlim=(0, 1), ylim=(0, 1))
    lines = [
        (colors.accents[1], "-", canvas.say(zh="padding=1：\n四周裁掉 1", en="padding=1:\ncrop 1 all round")),
        (
            colors.accents[2],
            "--",
            canvas.say(
                zh="再加 output_padding=1：\n下、右少裁 1",
                en="and output_padding=1:\ncrop 1 less below, right",
            ),
        ),
    ]
    for height, (color, style, text) in zip((0.75, 0.25), lines, strict=True):
        note.plot([0, 0.12], [height, height], color=color, linestyle=style, linewidth=2.4)
        note.text(0.17, height, text, va="center", fontsize=9)
    bare(note)
    return fig


@figure
def overlap_maps(canvas: Canvas, checkerboard: dict[str, Any]) -> Figure:
    fig, panels = canvas.subplots(2, 3, size=(7.2, 5.4))
    for column, (k, s) in enumerate(((3, 2), (4, 2), (5, 3))):
        counts, gradient = checkerboard[f"map_{k}_{s}"], checkerboard[f"gradient_map_{k}_{s}"]
        axes = panels[0, column]
        axes.imshow(counts, cmap=canvas.sequential, vmin=0)
        few, most = checkerboard[f"fewest_{k}_{s}"], checkerboard[f"most_{k}_{s}"]
        inside = f"{few}" if few == most else f"{few}–{most}"
        axes.set_title(
            canvas.say(zh=f"k={k}，s={s}\n内部重叠 {inside} 次", en=f"k={k}, s={s}\noverlap inside: {inside}")
        )
        bare(axes)
        axes = panels[1, column]
        axes.imshow(gradient, cmap=canvas.sequential, vmin=0)
        spread = checkerboard[f"gradient_{k}_{s}"]
        axes.set_title(canvas.say(zh=f"梯度，起伏 {spread:.0%}", en=f"gradient, uneven by {spread:.0%}"))
        bare(axes)
    return fig


@figure
def shuffle_orders(canvas: Canvas, shuffle: dict[str, Any]) -> Figure:
    from matplotlib.patches import Rectangle

    colors = canvas.colors
    fig = canvas.subplots(size=(7.2, 5.2))[0]
    fig.clear()
    panels = fig.subplot_mosaic([["strip", "strip"], ["c0", "c1"], ["d0", "d1"]], height_ratios=[0.55, 1, 1])

    def cell(axes: Axes, row: float, column: float, channel: int) -> None:
        color = colors.accents[channel % 4]
        axes.add_patch(
            Rectangle(
                (column - 0.5, row - 0.5),
                1,
                1,
                facecolor=color,
                alpha=0.75 if channel < 4 else 0.3,
                linewidth=0,
            )
        )
        axes.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=colors.surface, linewidth=1.5)
        )
        axes.text(
            column,
            row,
            f"{channel}",
            ha="center",
            va="center",
            color=colors.surface if channel < 4 else colors.ink,
        )

    for channel in range(8):
        cell(panels["strip"], 0, channel, channel)
    panels["strip"].set(xlim=(-0.6, 7.6), ylim=(0.6, -0.6), aspect="equal")
    panels["strip"].set_title(
        canvas.say(zh="八个输入通道，每个 2×2 像素", en="eight input channels of 2×2 pixels")
    )
    bare(panels["strip"])
    names = {
        "c": canvas.say(zh="PixelShuffle（CRD）", en="PixelShuffle (CRD)"),
        "d": canvas.say(zh="depth_to_space（DCR）", en="depth_to_space (DCR)"),
    }
    for key, order in (("c", "crd"), ("d", "dcr")):
        for number in range(2):
            axes, plane = panels[f"{key}{number}"], shuffle[order][number]
            for row, column in np.ndindex(*plane.shape):
                cell(axes, row, column, int(plane[row, column]))
            axes.set(xlim=(-0.6, 3.6), ylim=(3.6, -0.6), aspect="equal")
            axes.set_title(
                canvas.say(zh=f"{names[key]}，输出通道 {number}", en=f"{names[key]}, output channel {number}")
            )
            bare(axes)
    return fig


@figure
def unpooling_steps(canvas: Canvas, unpooling: dict[str, Any]) -> Figure:
    fig, panels = canvas.subplots(2, 3, size=(7.2, 4.9))
    top = (
        ("image", canvas.say(zh="输入", en="input")),
        ("pooled", canvas.say(zh="最大池化\n（下标为小字）", en="max pooling\n(indices in small print)")),
        ("unpooled", canvas.say(zh="反池化", en="unpooling")),
    )
    bottom = (
        ("odd_image", canvas.say(zh="奇数边长", en="odd side")),
        ("odd_right", canvas.say(zh="给出 output_size", en="with output_size")),
        ("odd_wrong", canvas.say(zh="没给：放错了地方", en="without: misplaced")),
    )
    for axes, (key, title) in zip(panels.flat, top + bottom, strict=True):
        values = unpooling[key]
        kept = values if key != "image" else np.where(values == unpooling["unpooled"], values, 0)
        _number_grid(canvas, axes, values, (kept > 0).astype(float), zeros=not key.startswith("odd"))
        axes.set_title(title)
        if key == "pooled":
            for row, column in np.ndindex(2, 2):
                axes.text(
                    column + 0.42,
                    row + 0.4,
                    f"{unpooling['indices'][row, column]}",
                    ha="right",
                    va="bottom",
                    fontsize=8,
                    color=canvas.colors.muted,
                )
            axes.set(xlim=(-1.6, 2.6), ylim=(2.6, -1.6))
    return fig


@figure
def quality_time(canvas: Canvas, training: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, (left, right) = canvas.subplots(1, 2, size=(7.2, 4.4))
    marks = ("o", "s", "^", "v", "D", "P")
    for number, (name, label) in enumerate(_decoder_names(canvas).items()):
        color, marker = colors.accents[number], marks[number]
        middle = training[f"{name}_time"]
        left.errorbar(
            middle,
            training[f"{name}_psnr"],
            yerr=training[f"{name}_psnr_spread"],
            xerr=[[middle - training[f"{name}_time_low"]], [training[f"{name}_time_high"] - middle]],
            marker=marker,
            color=color,
            linestyle="none",
            capsize=2,
            label=label,
        )
        curve = training[f"curve_{name}"].mean(0)
        right.plot(training["marks"], curve, marker=marker, markersize=5, color=color)
    left.axhline(
        training["bicubic_psnr"],
        color=colors.muted,
        linestyle=":",
        linewidth=1.4,
        label=canvas.say(zh="双三次插值", en="bicubic"),
    )
    left.set_title(canvas.say(zh="质量与耗时", en="quality against time"))
    left.set_xlabel(
        canvas.say(zh="一步训练的耗时（转置卷积 k=4 为 1）", en="time of a step (transposed k=4: 1)")
    )
    left.set_ylabel("PSNR (dB)")
    right.set_yscale("symlog", linthresh=0.1)
    right.set_ylim(-0.02, None)
    right.set_yticks([0, 0.1, 1, 10], ["0", "0.1", "1", "10"])
    right.set_title(canvas.say(zh="平坦灰图上的网格（灰度级）", en="grid on a flat gray image (gray levels)"))
    right.set_xlabel(canvas.say(zh="训练步数", en="training steps"))
    fig.legend(loc="outside lower center", ncols=4)
    return fig


@figure
def super_resolved(canvas: Canvas, training: dict[str, Any]) -> Figure:
    fig, panels = canvas.subplots(3, 3, size=(7.2, 7.6))
    names = _decoder_names(canvas)
    pictures = [
        (canvas.say(zh="输入", en="input"), training["image_low"]),
        (canvas.say(zh="双三次插值", en="bicubic interpolation"), training["image_bicubic"]),
        *((label, training[f"image_{name}"]) for name, label in names.items()),
        (canvas.say(zh="真值", en="truth"), training["image_truth"]),
    ]
    for axes, (label, image) in zip(panels.flat, pictures, strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        axes.set_title(label)
        bare(axes)
    return fig


@figure
def gray_answers(canvas: Canvas, training: dict[str, Any]) -> Figure:
    fig, panels = canvas.subplots(4, 3, size=(7.2, 8.4))
    limits = {"fresh": 20, "gray": 3}
    for number, (name, label) in enumerate(_decoder_names(canvas).items()):
        for place, (state, limit) in enumerate(limits.items()):
            axes = panels[2 * (number // 3) + place, number % 3]
            answer = training[f"{state}_{name}"]
            deviation = 255 * (answer - answer.mean())
            axes.imshow(deviation, cmap=canvas.diverging, vmin=-limit, vmax=limit)
            when = {
                "fresh": canvas.say(zh="训练前", en="before"),
                "gray": canvas.say(zh="训练后", en="after"),
            }[state]
            axes.set_xlabel(f"{when}: ±{limit}" if canvas.language == "en" else f"{when}：±{limit}")
            if place == 0:
                axes.set_title(label)
            bare(axes)
    return fig
