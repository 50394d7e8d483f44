"""Drawings for segmentation metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.pipeline.figure import Canvas, bare, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure


def _classes(canvas: Canvas) -> ListedColormap:
    from matplotlib.colors import ListedColormap

    colors = canvas.colors
    return ListedColormap([colors.faint, colors.accents[0], colors.accents[1]])


def _grid(canvas: Canvas, axes: Axes, height: int, width: int) -> None:
    color = canvas.colors.surface
    axes.hlines(np.arange(height + 1) - 0.5, -0.5, width - 0.5, color=color, linewidth=1)
    axes.vlines(np.arange(width + 1) - 0.5, -0.5, height - 0.5, color=color, linewidth=1)


@figure
def confusion_heat_map(canvas: Canvas, worked_example: dict[str, Any]) -> Figure:
    colors = canvas.colors
    truth, guess, matrix = (worked_example[key] for key in ("truth", "prediction", "matrix"))
    fig = canvas.subplots(size=(7.2, 5.9))[0]
    fig.clear()
    panels = fig.subplot_mosaic([["truth", "guess"], ["matrix", "matrix"]], height_ratios=[1, 1.15])
    height, width = truth.shape
    titles = {
        "truth": canvas.say(zh="真值", en="truth"),
        "guess": canvas.say(zh="预测（× 为错误像素）", en="prediction (× marks a wrong pixel)"),
    }
    for key, picture in (("truth", truth), ("guess", guess)):
        axes = panels[key]
        axes.imshow(picture, cmap=_classes(canvas), vmin=0, vmax=2)
        _grid(canvas, axes, height, width)
        for row, column in np.ndindex(height, width):
            label = int(picture[row, column])
            wrong = key == "guess" and label != truth[row, column]
            axes.text(
                column,
                row,
                f"{label}×" if wrong else f"{label}",
                ha="center",
                va="center",
                color=colors.surface if label else colors.ink,
            )
        axes.set_title(titles[key])
        bare(axes)

    axes = panels["matrix"]
    for row, column in np.ndindex(*matrix.shape):
        count, on = int(matrix[row, column]), row == column
        shade = 0.12 + 0.88 * (count / matrix.max()) ** 0.5 if count else 0.0
        axes.add_patch(
            _square(row, column, facecolor=colors.accents[2 if on else 1], alpha=shade, linewidth=0)
        )
        axes.text(
            column,
            row,
            f"{count}",
            ha="center",
            va="center",
            fontsize=13,
            color=colors.surface if shade > 0.8 else colors.ink,
        )
        axes.add_patch(_square(row, column, fill=False, edgecolor=colors.muted, linewidth=0.8))
    total = canvas.say(zh="合计", en="sum")
    for c in range(3):
        axes.text(2.95, c, f"{matrix[c].sum()}", ha="center", va="center", color=colors.muted, fontsize=12)
        axes.text(c, 2.95, f"{matrix[:, c].sum()}", ha="center", va="center", color=colors.muted, fontsize=12)
    axes.text(2.95, 2.95, f"{matrix.sum()}", ha="center", va="center", color=colors.muted, fontsize=12)
    axes.set(xlim=(-0.55, 3.4), ylim=(3.4, -0.55), aspect=0.6)
    names = [
        canvas.say(zh="0 背景", en="0 background"),
        canvas.say(zh="1 蓝", en="1 blue"),
        canvas.say(zh="2 橙", en="2 orange"),
        total,
    ]
    ticks = [0, 1, 2, 2.95]
    axes.set_yticks(ticks, names)
    axes.set_xticks(ticks, [name.split(" ", 1)[0] if c < 3 else name for c, name in enumerate(names)])
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(canvas.say(zh="预测为", en="predicted as"))
    axes.set_ylabel(canvas.say(zh="真值为", en="truly"))
    for side in axes.spines.values():
        side.set_visible(False)
    return fig


def _square(row: int, column: int, **style: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, **style)


@figure
def accuracy_against_iou(canvas: Canvas, predictors: dict[str, Any]) -> Figure:
    colors, shares = canvas.colors, 100 * predictors["shares"]
    fig, panels = canvas.subplots(1, 2, size=(7.2, 3.7), sharey=True)
    metrics = {
        "pixel_accuracy": (
            colors.accents[1],
            "o",
            "-",
            canvas.say(zh="像素准确率 PA", en="pixel accuracy PA"),
        ),
        "frequency_weighted_iou": (colors.accents[4], "s", "--", "FWIoU"),
        "mean_pixel_accuracy": (colors.accents[2], "^", "--", "MPA"),
        "mean_iou": (colors.accents[0], "D", "-", "mIoU"),
    }
    titles = {
        "background": canvas.say(zh="全部预测为背景", en="everything called background"),
        "noisy": canvas.say(zh="1% 的像素随机出错", en="1% of the pixels wrong at random"),
    }
    for axes, (predictor, title) in zip(panels, titles.items(), strict=True):
        for metric, (color, marker, line, label) in metrics.items():
            axes.plot(
                shares,
                predictors[f"{predictor}_{metric}"],
                marker=marker,
                linestyle=line,
                color=color,
                markersize=9 if metric == "pixel_accuracy" else 5,
                label=label,
            )
        axes.axhline(0.5, color=colors.faint, linewidth=1, zorder=0)
        axes.set_xscale("log")
        axes.set_xticks([0.1, 1, 10, 50], ["0.1%", "1%", "10%", "50%"])
        axes.minorticks_off()
        axes.invert_xaxis()  # the object shrinks to the right
        axes.set_title(title)
        axes.set_xlabel(canvas.say(zh="前景占比（向右变小）", en="share of foreground (shrinking)"))
    panels[0].set_ylim(0, 1.04)
    panels[0].set_ylabel(canvas.say(zh="得分", en="score"))
    handles, labels = panels[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=4)
    return fig


@figure
def shifted_mask(canvas: Canvas, shift: dict[str, Any]) -> Figure:
    from matplotlib.patches import Rectangle

    colors = canvas.colors
    fig = canvas.subplots(size=(7.2, 5.6))[0]
    fig.clear()
    panels = fig.subplot_mosaic([["small", "large"], ["iou", "boundary"]], height_ratios=[1, 1.35])
    for key, side in (("small", 8), ("large", 32)):
        axes = panels[key]
        for left, color in ((0, colors.accents[0]), (2, colors.accents[1])):
            axes.add_patch(Rectangle((left, 0), side, side, facecolor=color, alpha=0.35, linewidth=0))
            axes.add_patch(Rectangle((left, 0), side, side, fill=False, edgecolor=color, linewidth=1.6))
        value = shift[f"iou_{side}_2"]
        axes.set_title(
            canvas.say(
                zh=f"边长 {side}，右移 2 像素\nIoU {value:.2f}",
                en=f"side {side}, 2 pixels to the right\nIoU {value:.2f}",
            ),
            linespacing=1.4,
        )
        axes.text(
            side / 2 + 1,
            -1.5,
            canvas.say(zh="蓝：真值　橙：预测", en="blue: truth, orange: prediction"),
            ha="center",
            va="top",
            fontsize=9,
            color=colors.muted,
        )
        middle = side / 2  # both panels are equally large: one pixel has one size
        axes.set(xlim=(middle - 22, middle + 24), ylim=(middle - 22, middle + 18), aspect="equal")
        bare(axes)
    styles = {8: ("o", 2), 16: ("s", 3), 32: ("^", 4), 128: ("D", 5)}
    titles = {
        "iou": "IoU",
        "boundary": canvas.say(
            zh=f"边界 IoU（带宽 {shift['distance']} 像素）",
            en=f"boundary IoU (band of {shift['distance']} pixels)",
        ),
    }
    for key, title in titles.items():
        axes = panels[key]
        for side, (marker, number) in styles.items():
            axes.plot(
                range(1, 6),
                shift[f"{key}_side_{side}"],
                marker=marker,
                color=colors.accents[number],
                linestyle="--" if key == "boundary" and side == 128 else "-",
                label=canvas.say(zh=f"边长 {side}", en=f"side {side}"),
            )
        axes.set(ylim=(0, 1.04), xticks=range(1, 6), title=title)
        axes.set_xlabel(canvas.say(zh="平移（像素）", en="shift (pixels)"))
    panels["iou"].legend(loc="lower left", ncols=2)
    return fig


@figure
def image_against_dataset(canvas: Canvas, averaging: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, (left, right) = canvas.subplots(1, 2, size=(7.2, 3.8))
    share, iou = averaging["image_small_share"], averaging["image_small_iou"]
    there = share > 0
    left.scatter(100 * share[there], iou[there], s=22, color=colors.accents[0], linewidths=0, zorder=3)
    absent = int((~there & ~np.isnan(iou)).sum())
    assert (iou[~there & ~np.isnan(iou)] == 0).all()
    left.scatter(
        0.03,
        0,
        s=70,
        marker="X",
        color=colors.accents[3],
        linewidths=0,
        clip_on=False,
        zorder=3,
        label=canvas.say(
            zh=f"{absent} 张图没有该类，却有误报", en=f"{absent} images without it, false alarms"
        ),
    )
    lines = {
        "small_iou": (
            colors.accents[2],
            "-",
            canvas.say(zh="整个数据集", en="data set"),
        ),
        "small_per_image": (
            colors.accents[1],
            "--",
            canvas.say(zh="逐图均值", en="mean of the images"),
        ),
    }
    for key, (color, style, label) in lines.items():
        value = averaging[key]
        left.axhline(value, color=color, linestyle=style, label=f"{label} {value:.2f}")
    left.set_xscale("log")
    left.set_xticks([0.03, 0.1, 1, 5], ["0", "0.1%", "1%", "5%"])
    left.minorticks_off()
    left.set_ylim(-0.03, 1.04)
    left.set_title(canvas.say(zh="小目标类的 IoU，一点一图", en="IoU of the small class, a dot per image"))
    left.set_xlabel(canvas.say(zh="该类占图像的比例", en="share of the image it covers"))
    left.legend(loc="upper left")

    rows = averaging["rows"]
    sizes = [row["batch_size"] for row in rows]
    right.fill_between(
        sizes,
        [row["lowest"] for row in rows],
        [row["highest"] for row in rows],
        color=colors.accents[1],
        alpha=0.25,
        linewidth=0,
        label=canvas.say(
            zh=f"{averaging['shuffles']} 次打乱的范围", en=f"range of {averaging['shuffles']} shuffles"
        ),
    )
    right.plot(
        sizes,
        [row["in_order"] for row in rows],
        marker="o",
        linestyle="--",
        color=colors.accents[1],
        label=canvas.say(zh="各批 mIoU 的均值", en="mean over batches"),
    )
    right.axhline(
        averaging["dataset"],
        color=colors.accents[2],
        label=canvas.say(
            zh=f"整个数据集 {averaging['dataset']:.3f}", en=f"data set {averaging['dataset']:.3f}"
        ),
    )
    right.set_xscale("log", base=2)
    right.set_xticks(sizes, [f"{size}" for size in sizes])
    right.minorticks_off()
    right.set_title(canvas.say(zh="mIoU 随批大小而变", en="mIoU depends on the batch size"))
    right.set_xlabel(canvas.say(zh="每批图像数", en="images per batch"))
    right.legend(loc="lower right")
    return fig
