"""Drawings for Stable Diffusion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.pipeline.figure import Canvas, bare, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ZH = {"a": "", "red": "红", "green": "绿", "blue": "蓝", "yellow": "黄"}
_ZH |= {
    "circle": "圆",
    "cross": "十字",
    "triangle": "三角",
    "top": "上",
    "bottom": "下",
    "left": "左",
    "right": "右",
}


def _prompt(canvas: Canvas, words: str) -> str:
    """The caption as the model gets it, and its meaning in Chinese below."""
    _, color, shape, row, column = words.split()
    english = f"a {color} {shape}\n{row} {column}"
    return canvas.say(zh=f"{english}\n（{_ZH[column]}{_ZH[row]}{_ZH[color]}{_ZH[shape]}）", en=english)


def _picture(axes: Axes, pixels: np.ndarray) -> None:
    axes.imshow(pixels, vmin=0, vmax=1)
    bare(axes)


def _latent(pixels: np.ndarray, spread: float) -> np.ndarray:
    """Three latent channels as red, green and blue: 0 is gray, two and a half deviations are full."""
    return np.clip(0.5 + pixels / (5 * spread), 0, 1)


@figure
def sampling_way(canvas: Canvas, training: dict[str, Any]) -> Figure:
    times = training["way_t"]
    fig, panels = canvas.subplots(3, len(times), size=(7.2, 3.5))
    latents = _latent(training["way_latent"], 1.0)
    rows = {
        canvas.say(zh="潜变量", en="latents"): latents,
        canvas.say(zh="解码后", en="decoded"): training["way_noisy"],
        canvas.say(zh="当前猜测", en="best guess"): training["way_guess"],
    }
    for line, (name, pictures) in zip(panels, rows.items(), strict=True):
        for axes, pixels in zip(line, pictures, strict=True):
            _picture(axes, pixels)
        line[0].set_ylabel(name, fontsize=9)
    for axes, t in zip(panels[0], times, strict=True):
        axes.set_title(f"t = {t}", fontsize=9)
    return fig


@figure
def noised_latent(canvas: Canvas, training: dict[str, Any], schedules: dict[str, Any]) -> Figure:
    colors, times = canvas.colors, training["noised_t"]
    fig = canvas.subplots(size=(7.2, 5.2))[0]
    fig.clear()
    grid = fig.add_gridspec(3, len(times), height_ratios=[1, 1, 2.3])
    rows = (_latent(training["noised"][:, :3].transpose(0, 2, 3, 1), 1.0), training["noised_picture"])
    sides = (canvas.say(zh="潜变量", en="latents"), canvas.say(zh="解码后", en="decoded"))
    for i, (pictures, name) in enumerate(zip(rows, sides, strict=True)):
        for j, t in enumerate(times):
            axes = fig.add_subplot(grid[i, j])
            _picture(axes, pictures[j])
            if i == 0:
                axes.set_title(f"t = {t}", fontsize=9)
            if j == 0:
                axes.set_ylabel(name, fontsize=9)
    axes = fig.add_subplot(grid[2, :])
    names = {
        "scaled_linear": canvas.say(zh="缩放线性（SD）", en="scaled linear (SD)"),
        "linear": canvas.say(zh="线性（DDPM）", en="linear (DDPM)"),
        "cosine": canvas.say(zh="余弦", en="cosine"),
    }
    for (key, name), style, color in zip(names.items(), ("-", "--", "-."), colors.accents, strict=False):
        axes.semilogy(schedules["step"], schedules[f"snr_{key}"], style, color=color, label=name)
    axes.axhline(1, color=colors.muted, linewidth=1, linestyle=":")
    snr = schedules["snr_scaled_linear"][times]
    axes.plot(times, snr, "o", color=colors.accents[0], markersize=5)
    axes.set_ylim(1e-5, 1e4)
    axes.set_xlabel(canvas.say(zh="步 t", en="step t"))
    axes.set_ylabel(canvas.say(zh="信噪比", en="signal-to-noise ratio"))
    axes.text(
        995,
        1.6,
        canvas.say(zh="信号与噪声相等", en="as much signal as noise"),
        ha="right",
        fontsize=8.5,
        color=colors.muted,
    )
    axes.legend(loc="lower left")
    return fig


@figure
def reconstructions(canvas: Canvas, training: dict[str, Any]) -> Figure:
    fig, panels = canvas.subplots(3, 6, size=(7.2, 3.9))
    latents = _latent(training["latent"][:, :3].transpose(0, 2, 3, 1), training["latent_spread"])
    rows = {
        canvas.say(zh="原图\n32×32×3", en="picture\n32×32×3"): training["original"],
        canvas.say(zh="潜变量\n8×8×4", en="latents\n8×8×4"): latents,
        canvas.say(zh="重建\n32×32×3", en="decoded\n32×32×3"): training["reconstruction"],
    }
    for line, (name, pictures) in zip(panels, rows.items(), strict=True):
        for axes, pixels in zip(line, pictures, strict=True):
            _picture(axes, pixels)
        line[0].set_ylabel(name, fontsize=9)
    return fig


@figure
def prompt_grid(canvas: Canvas, training: dict[str, Any]) -> Figure:
    pictures, rows = training["grid"], training["scale_rows"]  # (scales, prompts, H, W, 3)
    fig, panels = canvas.subplots(len(rows), len(training["prompts"]), size=(7.2, 6.6))
    for line, row, samples in zip(panels, rows, pictures, strict=True):
        for axes, pixels in zip(line, samples, strict=True):
            _picture(axes, pixels)
        line[0].set_ylabel(f"s = {row['scale']:g}", fontsize=10)
    new = canvas.say(zh="未见过的组合", en="unseen pair")
    for i, (axes, words) in enumerate(zip(panels[0], training["prompts"], strict=True)):
        unseen = i >= len(training["prompts"]) - 2
        axes.set_title(
            _prompt(canvas, words),
            fontsize=8.5,
            color=canvas.colors.accents[1] if unseen else canvas.colors.ink,
        )
    for axes in panels[-1][-2:]:
        axes.set_xlabel(new, fontsize=8.5, color=canvas.colors.accents[1])
    return fig


@figure
def guidance_curve(canvas: Canvas, training: dict[str, Any]) -> Figure:
    colors, rows = canvas.colors, training["scale_rows"]
    scales = [row["scale"] for row in rows]
    fig, (left, right) = canvas.subplots(1, 2, size=(7.2, 3.1))
    curves = (
        ("", "o-", canvas.say(zh="训练过的组合", en="trained pairs"), colors.accents[0]),
        ("new_", "s--", canvas.say(zh="未见过的组合", en="unseen pairs"), colors.accents[1]),
    )
    for axes, key in ((left, "accuracy"), (right, "form")):
        for prefix, style, name, color in curves:
            middle = np.array([row[f"{prefix}{key}"] for row in rows])
            spread = np.array([row[f"{prefix}{key}_spread"] for row in rows])
            axes.errorbar(scales, middle, spread, fmt=style, color=color, label=name, capsize=3, markersize=5)
        axes.set_xlabel(canvas.say(zh="引导强度 s", en="guidance scale s"))
        axes.set_xticks(scales)
    left.set_ylim(0, 1.05)
    left.set_ylabel(canvas.say(zh="符合提示的比例", en="share that fit the prompt"))
    right.axhline(training["kept_form"], color=colors.muted, linewidth=1, linestyle=":")
    right.text(
        scales[-1],
        training["kept_form"],
        canvas.say(zh="重建的真图", en="real ones, decoded"),
        ha="right",
        va="bottom",
        fontsize=8.5,
        color=colors.muted,
    )
    right.set_ylabel(canvas.say(zh="与理想形状的 IoU", en="IoU with the ideal shape"))
    left.legend(loc="lower right")
    return fig


@figure
def worst_forms(canvas: Canvas, training: dict[str, Any]) -> Figure:
    chosen = [i for i, row in enumerate(training["scale_rows"]) if row["scale"] >= 1]
    fig, panels = canvas.subplots(len(chosen), 6, size=(6.4, 4.4))
    for line, i in zip(panels, chosen, strict=True):
        for axes, pixels in zip(line, training["odd"][i], strict=True):
            _picture(axes, pixels)
        line[0].set_ylabel(f"s = {training['scale_rows'][i]['scale']:g}", fontsize=10)
    return fig


@figure
def guidance_toy(canvas: Canvas, guidance: dict[str, Any]) -> Figure:
    colors, rows = canvas.colors, guidance["rows"]
    fig, panels = canvas.subplots(1, len(rows), size=(7.2, 2.4), sharex=True, sharey=True)
    centers, prompted = guidance["centers"], guidance["prompted"]
    for axes, row in zip(panels, rows, strict=True):
        points = guidance[f"points_{row['scale']:g}".replace(".", "_")][:400]
        axes.plot(*points.T, ".", color=colors.accents[0], markersize=2.5, alpha=0.6)
        for i, center in enumerate(centers):
            color = colors.accents[1] if i in prompted else colors.muted
            circle = _circle(center, 2 * guidance["heap_spread"], color)
            axes.add_patch(circle)
        axes.set(xlim=(-1.9, 1.9), ylim=(-1.7, 2.1), aspect="equal", title=f"s = {row['scale']:g}")
        bare(axes)
    return fig


def _circle(center: np.ndarray, radius: float, color: str) -> Any:
    from matplotlib.patches import Circle

    return Circle(tuple(center), radius, fill=False, edgecolor=color, linewidth=1.4)


@figure
def walks(canvas: Canvas, trajectories: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, panels = canvas.subplots(1, 2, size=(7.2, 3.7), sharex=True, sharey=True)
    names = {
        "ddim": canvas.say(zh="DDIM，η = 0，50 步", en="DDIM, η = 0, 50 steps"),
        "ddpm": canvas.say(zh="DDPM，1000 步", en="DDPM, 1,000 steps"),
    }
    for axes, (key, name) in zip(panels, names.items(), strict=True):
        axes.plot(*trajectories["heaps"].T, ".", color=colors.faint, markersize=3, zorder=0)
        way = trajectories[f"{key}_way"]
        for i in range(way.shape[1]):
            color = colors.accents[i % len(colors.accents)]
            axes.plot(*way[:, i].T, color=color, linewidth=1.8 if key == "ddim" else 0.5)
            axes.plot(*way[0, i], "o", color=color, markersize=5, markerfacecolor=colors.surface)
            axes.plot(*way[-1, i], "o", color=color, markersize=6)
        axes.set_title(name)
        axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
        bare(axes)
    return fig


@figure
def steps_and_quality(canvas: Canvas, trajectories: dict[str, Any], training: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, (left, right) = canvas.subplots(1, 2, size=(7.2, 3.1))
    for (key, name), style, color in zip(
        {"ddim": "DDIM (η = 0)", "ddpm": canvas.say(zh="随机（η = 1）", en="random (η = 1)")}.items(),
        ("o-", "s--"),
        colors.accents,
        strict=False,
    ):
        rows = trajectories["rows"]
        left.errorbar(
            [row["steps"] for row in rows],
            [row[key] for row in rows],
            [row[f"{key}_spread"] for row in rows],
            fmt=style,
            color=color,
            label=name,
            markersize=4,
        )
        rows = training["step_rows"]
        right.errorbar(
            [row["steps"] for row in rows],
            [row[f"{key}_accuracy"] for row in rows],
            [row[f"{key}_accuracy_spread"] for row in rows],
            fmt=style,
            color=color,
            label=name,
            markersize=4,
        )
    left.axhline(trajectories["floor"], color=colors.muted, linewidth=1, linestyle=":")
    left.text(
        2,
        trajectories["floor"] * 1.06,
        canvas.say(zh="两份数据之间", en="data against data"),
        fontsize=8.5,
        color=colors.muted,
    )
    left.set(xscale="log", yscale="log")
    left.set_title(canvas.say(zh="平面上的五簇点，噪声精确", en="five clusters, exact noise"))
    left.set_ylabel(canvas.say(zh="到数据的距离", en="distance to the data"))
    right.set_xscale("log")
    right.set_ylim(0, 1.05)
    right.set_title(canvas.say(zh="训练出的模型", en="the trained model"))
    right.set_ylabel(canvas.say(zh="符合提示的比例", en="share that fit the prompt"))
    ticks = [row["steps"] for row in training["step_rows"]]
    right.set_xticks(ticks, [str(tick) for tick in ticks])
    right.minorticks_off()
    for axes in (left, right):
        axes.set_xlabel(canvas.say(zh="采样步数", en="sampling steps"))
    right.legend(loc="lower right")
    return fig


@figure
def cost_by_factor(canvas: Canvas, cost: dict[str, Any]) -> Figure:
    colors, rows = canvas.colors, cost["rows"]
    fig, axes = canvas.subplots(size=(7.2, 3.0))
    places = np.arange(len(rows))
    kinds = {
        "attention": canvas.say(zh="注意力的分数与加权和", en="attention: scores and weighted sums"),
        "rest": canvas.say(zh="卷积与线性层", en="convolutions and linear layers"),
    }
    for shift, (key, name), color in zip((-0.2, 0.2), kinds.items(), colors.accents, strict=False):
        values = [
            row["attention"] if key == "attention" else row["operations"] - row["attention"] for row in rows
        ]
        axes.bar(places + shift, values, 0.38, color=color, label=name)
    for place, row in zip(places, rows, strict=True):
        top = max(row["attention"], row["operations"] - row["attention"])
        axes.text(place, top * 1.4, f"×{row['ratio']:,.1f}", ha="center", fontsize=9.5)
    axes.set_yscale("log")
    axes.set_ylim(2e10, 2e15)
    axes.set_xticks(
        places,
        [
            canvas.say(zh="像素", en="pixels") + f"\n{row['side']}²"
            if row["factor"] == 1
            else f"f = {row['factor']}\n{row['side']}²"
            for row in rows
        ],
    )
    axes.set_ylabel(canvas.say(zh="一次调用的乘加", en="multiply-adds per call"))
    axes.legend(loc="upper left")
    return fig


@figure
def brightness_kept(canvas: Canvas, brightness: dict[str, Any]) -> Figure:
    colors, side = canvas.colors, brightness["side"]
    fig, axes = canvas.subplots(size=(6.4, 3.0))
    for key, name, style, color in (
        ("ddim", "DDIM", "-", colors.accents[0]),
        ("ddpm", "DDPM", "--", colors.accents[1]),
    ):
        axes.plot(side, brightness[key], style, color=color)
        axes.plot(side, brightness[f"{key}_run"], "o", color=color, markersize=5)
        axes.text(
            side[5] * (0.82 if key == "ddim" else 1.2),
            brightness[key][5],
            name,
            color=color,
            ha="right" if key == "ddim" else "left",
            va="top" if key == "ddim" else "bottom",
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(side, [str(s) for s in side])
    axes.minorticks_off()
    axes.set_ylim(0, 1.08)
    axes.set_xlabel(canvas.say(zh="潜变量的边长", en="side of the latents"))
    axes.set_ylabel(
        canvas.say(zh="平均亮度的标准差保留比例", en="share of the spread of\nmean brightness kept")
    )
    return fig


@figure
def mistake_pictures(canvas: Canvas, training: dict[str, Any]) -> Figure:
    names = {
        "right": canvas.say(zh="正确", en="right"),
        "scale_forgotten": canvas.say(zh="解码前\n没除缩放", en="scale not\ndivided out"),
        "scale_inverted": canvas.say(zh="缩放\n乘了两次", en="scale applied\ntwice"),
        "linear_betas": canvas.say(zh="DDPM 的\n线性 β", en="DDPM's\nlinear β"),
        "linear_same_ends": canvas.say(zh="两端相同\n的线性 β", en="linear β,\nsame ends"),
        "index_told": canvas.say(zh="序号\n当步数", en="index told\nfor the step"),
        "roles_swapped": canvas.say(zh="条件与\n无条件颠倒", en="cond, uncond\nswapped"),
    }
    pictures = training["mistake_pictures"]
    count = pictures.shape[1]
    fig, panels = canvas.subplots(count, len(names), size=(7.2, 4.6))
    for column, (key, name) in zip(panels.T, names.items(), strict=True):
        for axes, pixels in zip(column, pictures[training["mistake_names"].index(key)], strict=True):
            _picture(axes, pixels)
        column[0].set_title(name, fontsize=8.5)
    return fig
