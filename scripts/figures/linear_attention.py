"""Drawings for linear attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.pipeline.figure import Canvas, bare, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMS = ("softmax", "elu", "taylor", "performer", "second")
MARKERS = {"softmax": "o", "elu": "s", "taylor": "^", "performer": "D", "second": "v", "outer": "P", "delta": "X"}


def _color(canvas: Canvas, form: str) -> str:
    return dict(zip((*FORMS, "outer"), canvas.colors.accents, strict=True)).get(form, canvas.colors.muted)


def _name(canvas: Canvas, form: str) -> str:
    return {
        "softmax": "softmax",
        "elu": "elu + 1",
        "taylor": canvas.say(zh="1 + 余弦", en="1 + cosine"),
        "performer": "Performer",
        "second": canvas.say(zh="二阶泰勒", en="second order"),
        "outer": canvas.say(zh="外积之和", en="outer products"),
        "delta": canvas.say(zh="delta 规则", en="delta rule"),
        "efficient": canvas.say(zh="两次 softmax", en="softmax twice"),
    }[form]


def _box(canvas: Canvas, axes: Axes, place: tuple[float, float], size: tuple[float, float], **style: Any) -> None:
    """A matrix as a rectangle whose middle is at `place`."""
    from matplotlib.patches import Rectangle

    corner = (place[0] - size[0] / 2, place[1] - size[1] / 2)
    axes.add_patch(Rectangle(corner, *size, linewidth=1.2, edgecolor=canvas.colors.ink, **style))


@figure
def order_of_products(canvas: Canvas) -> Figure:
    colors = canvas.colors
    fig, panels = canvas.subplots(2, 1, size=(7.2, 5.4))
    n, d = 60.0, 14.0
    titles = (
        canvas.say(
            zh="先乘 Q 与 $K^T$：中间是 N × N，共 $2N^2D$ 次乘加",
            en="Q with $K^T$ first: N × N in between, $2N^2D$ multiply-adds",
        ),
        canvas.say(
            zh="先乘 $K^T$ 与 V：中间是 D × D，共 $2ND^2$ 次乘加",
            en="$K^T$ with V first: D × D in between, $2ND^2$ multiply-adds",
        ),
    )
    sides = {"Q": (d, n), "$K^T$": (n, d), "V": (d, n)}
    for axes, title, linear in zip(panels, titles, (False, True), strict=True):
        x = 0.0
        for name, (width, height) in sides.items():
            x += width / 2
            _box(canvas, axes, (x, 0), (width, height), facecolor=colors.faint)
            axes.text(x, 0, name, ha="center", va="center", fontsize=12)
            x += width / 2 + 7
            if name != "V":
                axes.text(x - 3.5, 0, "·", ha="center", va="center", fontsize=16)
        axes.text(x - 0.5, 0, "→", ha="center", va="center", fontsize=16)
        x += 7
        steps = [(d, n), (d, d)] if linear else [(n, n), (d, n)]
        names = ["Q", "$K^T V$"] if linear else ["$Q K^T$", "V"]
        for (width, height), name in zip(steps, names, strict=True):
            between = name in ("$K^T V$", "$Q K^T$")
            x += width / 2
            fill = colors.accents[1] if between else colors.faint
            _box(canvas, axes, (x, 0), (width, height), facecolor=fill, alpha=None)
            ink = colors.surface if between else colors.ink
            axes.text(x, 0, name, ha="center", va="center", fontsize=9 if linear and between else 12, color=ink)
            x += width / 2 + 7
            if name == names[0]:
                axes.text(x - 3.5, 0, "·", ha="center", va="center", fontsize=16)
        axes.set_title(title)
        axes.set(xlim=(-3, 237), ylim=(-34, 34), aspect="equal")
        bare(axes)
    return fig


@figure
def three_forms(canvas: Canvas) -> Figure:
    from matplotlib.patches import Patch, Rectangle

    colors, n, chunk = canvas.colors, 12, 4
    fig, panels = canvas.subplots(1, 3, size=(7.2, 3.2))
    titles = (
        canvas.say(zh="矩阵：逐对算权重", en="matrix: every weight"),
        canvas.say(zh="递推：全靠状态", en="recurrent: state only"),
        canvas.say(zh=f"分块（每块 {chunk} 个）", en=f"chunked (chunks of {chunk})"),
    )
    for number, (axes, title) in enumerate(zip(panels, titles, strict=True)):
        for row in range(n):
            for column in range(n):
                explicit = number == 0 or (number == 2 and row // chunk == column // chunk)
                color = colors.accents[0] if explicit else colors.accents[1]
                axes.add_patch(
                    Rectangle(
                        (column, row),
                        1,
                        1,
                        facecolor=color if column <= row else "none",
                        edgecolor=colors.surface if column <= row else colors.faint,
                        linewidth=0.8,
                    )
                )
        if number == 2:
            for block in range(0, n, chunk):
                axes.add_patch(
                    Rectangle((block, block), chunk, chunk, fill=False, edgecolor=colors.ink, linewidth=1.6)
                )
        axes.set_title(title)
        axes.set(xlim=(-0.2, n + 0.2), ylim=(n + 0.2, -0.2), aspect="equal")
        axes.set_xlabel(canvas.say(zh="键 j", en="key j"))
        bare(axes)
    panels[0].set_ylabel(canvas.say(zh="查询 i", en="query i"))
    handles = [
        Patch(color=colors.accents[0], label=canvas.say(zh="显式算出的权重", en="weight made explicitly")),
        Patch(color=colors.accents[1], label=canvas.say(zh="经由状态 (S, z)", en="through the state (S, z)")),
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=2)
    return fig


@figure
def attention_matrices(canvas: Canvas, matrices: dict[str, Any]) -> Figure:
    from matplotlib.colors import PowerNorm

    fig, panels = canvas.subplots(2, 3, size=(7.2, 5.3))
    titles = {
        "softmax": "softmax",
        "elu": "elu + 1",
        "second": _name(canvas, "second"),
        "efficient": _name(canvas, "efficient"),
        "performer_few": f"Performer, {matrices['few']}",
        "performer_many": f"Performer, {matrices['many']}",
    }
    norm = PowerNorm(0.5, 0, float(matrices["softmax_weights"].max()))
    for axes, (name, title) in zip(panels.flat, titles.items(), strict=True):
        image = axes.imshow(matrices[f"{name}_weights"], norm=norm, rasterized=False)
        spread = matrices[f"{name}_spread"]
        axes.set_title(title)
        axes.set_xlabel(canvas.say(zh=f"有效键数 {spread:.1f}", en=f"effective keys {spread:.1f}"))
        bare(axes)
    bar = fig.colorbar(image, ax=panels, shrink=0.6, aspect=30)
    bar.set_label(canvas.say(zh="权重", en="weight"))
    return fig


@figure
def singular_values(canvas: Canvas, matrices: dict[str, Any]) -> Figure:
    fig, axes = canvas.subplots(size=(7.2, 3.8))
    dim = matrices["rank_dim"]
    lines = {
        "softmax": ("softmax", "softmax", "-"),
        "second": (_name(canvas, "second"), "second", "--"),
        "performer_many": (f"Performer, {matrices['many']}", "performer", ":"),
        "performer_few": (f"Performer, {matrices['few']}", "performer", "-"),
        "elu": ("elu + 1", "elu", "-"),
        "taylor": (_name(canvas, "taylor"), "taylor", "--"),
    }
    for key, (label, form, style) in lines.items():
        values, rank = matrices[f"{key}_singular"], matrices[f"{key}_rank"]
        axes.plot(
            np.arange(1, rank + 1),
            values[:rank],
            style,
            color=_color(canvas, form),
            label=canvas.say(zh=f"{label}：秩 {rank}", en=f"{label}: rank {rank}"),
        )
        if rank < len(values):
            axes.plot(rank, values[rank - 1], "o", color=_color(canvas, form), markersize=5)
    axes.set_yscale("log")
    axes.set_ylim(1e-5, 1.5)
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 4, 16, 32, 64, 256, 512], ["1", "4", "16", "32", "64", "256", "512"])
    axes.minorticks_off()
    axes.set_xlabel(canvas.say(zh=f"第几个奇异值（D = {dim}）", en=f"number of the singular value (D = {dim})"))
    axes.set_ylabel(canvas.say(zh="与最大者之比", en="share of the largest"))
    axes.legend(loc="lower left")
    return fig


def _contenders(canvas: Canvas) -> dict[str, tuple[str, str, str, str]]:
    """Label, colour, marker and line of each way to compute."""
    c = canvas.colors.accents
    return {
        "plain": (canvas.say(zh="softmax，照定义", en="softmax, plain"), c[3], "o", "-"),
        "fused": (canvas.say(zh="softmax，融合", en="softmax, fused"), c[1], "s", "-"),
        "fused_causal": (canvas.say(zh="softmax，融合，因果", en="softmax, fused, causal"), c[1], "s", "--"),
        "linear": (canvas.say(zh="线性", en="linear"), c[0], "^", "-"),
        "parallel": (canvas.say(zh="线性，因果，并行", en="linear, causal, parallel"), c[0], "D", "--"),
        "chunked": (canvas.say(zh="线性，因果，分块", en="linear, causal, chunked"), c[2], "v", "--"),
        "recurrent": (canvas.say(zh="线性，因果，递推", en="linear, causal, recurrent"), c[4], "X", "--"),
        "prefix": (canvas.say(zh="线性，每位置一个矩阵", en="linear, matrix a position"), c[5], "P", ":"),
    }


def _against_length(canvas: Canvas, axes: Axes, result: dict[str, Any], unit: str) -> None:
    for name, (label, color, marker, line) in _contenders(canvas).items():
        if f"{name}_{unit}" not in result:
            continue
        values = result[f"{name}_{unit}"]
        lengths = result["lengths"][: len(values)]
        if f"{name}_low" in result:
            axes.fill_between(
                lengths, result[f"{name}_low"], result[f"{name}_high"], color=color, alpha=0.18, linewidth=0
            )
        slope = f"{result[f'slope_{name}']:.2f}"
        axes.plot(lengths, values, line, marker=marker, color=color, markersize=5, label=f"{label}  {slope}")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(result["lengths"], [f"{n}" for n in result["lengths"]])
    axes.minorticks_off()
    axes.set_xlabel(canvas.say(zh="序列长度 N", en="length N"))


@figure
def time_against_length(canvas: Canvas, cost: dict[str, Any]) -> Figure:
    fig, axes = canvas.subplots(size=(7.2, 4.4))
    _against_length(canvas, axes, cost, "ms")
    axes.set_ylabel(canvas.say(zh="一次前向，毫秒", en="forward pass, ms"))
    axes.legend(title=canvas.say(zh="方法与拟合斜率", en="method and fitted slope"), loc="upper left")
    axes.set_ylim(top=axes.get_ylim()[1] * 12)
    return fig


@figure
def memory_against_length(canvas: Canvas, memory: dict[str, Any]) -> Figure:
    fig, axes = canvas.subplots(size=(7.2, 4.4))
    _against_length(canvas, axes, memory, "mib")
    axes.set_ylabel(canvas.say(zh="内存峰值，MiB", en="peak memory, MiB"))
    axes.legend(title=canvas.say(zh="方法与拟合斜率", en="method and fitted slope"), loc="upper left")
    axes.set_ylim(top=axes.get_ylim()[1] * 40)
    return fig


@figure
def random_features_error(canvas: Canvas, random_feature_error: dict[str, Any]) -> Figure:
    result, colors = random_feature_error, canvas.colors
    fig, (left, right) = canvas.subplots(1, 2, size=(7.2, 4.2))
    counts = result["counts"]
    kinds = {
        "independent": (canvas.say(zh="正，独立", en="positive, independent"), colors.accents[1], "s", "--"),
        "orthogonal": (canvas.say(zh="正，正交", en="positive, orthogonal"), colors.accents[0], "o", "-"),
        "trigonometric": (canvas.say(zh="余弦", en="cosines"), colors.accents[2], "^", ":"),
    }
    for name, (label, color, marker, line) in kinds.items():
        left.plot(counts, result[name], line, marker=marker, color=color, markersize=5, label=label)
    left.set_yscale("log")
    left.set_yticks([0.05, 0.1, 0.2, 0.5], ["5%", "10%", "20%", "50%"])
    left.set_title(
        canvas.say(zh=f"核的误差，标准差 {result['scale_0']}", en=f"error of the kernel, std {result['scale_0']}")
    )
    left.legend(loc="lower left")
    for number, (color, marker) in enumerate(zip(colors.accents[:3], "osD", strict=True)):
        scale = result[f"scale_{number}"]
        middle, spread = result[f"output_{number}"], result[f"spread_{number}"]
        right.fill_between(counts, middle - spread, middle + spread, color=color, alpha=0.18, linewidth=0)
        right.plot(
            counts, middle, marker=marker, color=color, markersize=5, label=canvas.say(zh=f"标准差 {scale}", en=f"std {scale}")
        )
        right.axhline(result[f"mean_{number}"], color=color, linestyle=":", linewidth=1.4)
    right.plot([], [], ":", color=colors.muted, label=canvas.say(zh="只取均值", en="mean of values"))
    right.set_ylim(0, 2.3)
    right.set_title(canvas.say(zh="输出的误差", en="error of the output"))
    right.legend(loc="upper right", ncols=2)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts[::2], [f"{n}" for n in counts[::2]])
        axes.minorticks_off()
        axes.set_xlabel(canvas.say(zh="随机特征数", en="random features"))
    return fig


@figure
def recall(canvas: Canvas, storage: dict[str, Any], training: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, (left, right) = canvas.subplots(1, 2, size=(7.2, 4.5), sharey=True)
    for name in (*FORMS, "outer", "delta"):
        style = {"marker": MARKERS[name], "color": _color(canvas, name), "markersize": 5}
        dashed = "--" if name in ("outer", "delta") else "-"
        left.plot(storage["pairs"], storage[name], dashed, label=_name(canvas, name), **style)
        if name in FORMS:
            right.errorbar(training["pairs"], training[name], training[f"{name}_spread"], capsize=3, **style)
    for axes, result in ((left, storage), (right, training)):
        axes.axhline(result["chance"], color=colors.faint, linewidth=1, zorder=0)
        axes.set_xscale("log", base=2)
        ticks = result["pairs"]
        axes.set_xticks(ticks, [f"{n}" for n in ticks])
        axes.minorticks_off()
        axes.set_xlabel(canvas.say(zh="存入的键值对", en="stored pairs"))
    left.set_ylim(0, 1.04)
    left.set_ylabel(canvas.say(zh="答对的比例", en="share of right answers"))
    left.set_title(canvas.say(zh="未训练：随机的键", en="untrained: random keys"))
    right.set_title(
        canvas.say(zh=f"训练后：{training['seeds']} 个种子", en=f"trained: {training['seeds']} seeds")
    )
    fig.legend(loc="outside upper center", ncols=4)
    return fig


@figure
def running_sums(canvas: Canvas, half_sums: dict[str, Any]) -> Figure:
    fig, axes = canvas.subplots(size=(7.2, 3.6))
    styles = {"bfloat16": ("o", 1), "float16": ("s", 3), "float32": ("^", 0)}
    for name, (marker, number) in styles.items():
        color = canvas.colors.accents[number]
        for key, line in (("normalizer", "-"), ("output", "--")):
            label = canvas.say(
                zh=f"{name}，{'归一化项' if key == 'normalizer' else '输出'}",
                en=f"{name}, {key}",
            )
            axes.plot(
                half_sums["lengths"], half_sums[f"{name}_{key}"], line, marker=marker, color=color, markersize=5, label=label
            )
    axes.set_xscale("log", base=4)
    axes.set_yscale("log")
    axes.set_ylim(1e-8, 10)
    axes.set_yticks([1e-8, 1e-6, 1e-4, 1e-2, 1], ["$10^{-8}$", "$10^{-6}$", "$10^{-4}$", "1%", "100%"])
    axes.set_xticks(half_sums["lengths"], [f"{n}" for n in half_sums["lengths"]])
    axes.minorticks_off()
    axes.set_xlabel(canvas.say(zh="已加的位置数", en="positions added"))
    axes.set_ylabel(canvas.say(zh="相对误差", en="relative error"))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig
