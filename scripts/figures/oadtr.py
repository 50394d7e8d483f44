"""Drawings for OadTR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.pipeline.figure import Canvas, bare, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _box(
    axes: Axes, left: float, bottom: float, width: float, height: float, color: str, **style: Any
) -> None:
    from matplotlib.patches import FancyBboxPatch

    shape = "round,pad=0,rounding_size=0.12"
    options = {"facecolor": color, "edgecolor": "none", **style}
    axes.add_patch(FancyBboxPatch((left, bottom), width, height, boxstyle=shape, **options))


@figure
def architecture(canvas: Canvas) -> Figure:
    colors = canvas.colors
    fig, axes = canvas.subplots(size=(7.2, 4.9))
    blue, orange, green, purple = colors.accents[:4]
    axes.set(xlim=(-0.3, 14.3), ylim=(-1.35, 9.3))
    bare(axes)

    def arrow(start: tuple[float, float], end: tuple[float, float], color: str = colors.muted) -> None:
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 1.4})

    def words(x: float, y: float, text: str, **style: Any) -> None:
        axes.text(x, y, text, **{"ha": "center", "va": "center", **style})

    for slot in range(6):
        _box(axes, 1.1 * slot, 0, 0.9, 0.9, blue, alpha=0.3 if slot < 5 else 0.85)
        last = slot == 5
        words(
            1.1 * slot + 0.45,
            0.45,
            "$x_t$" if last else f"$x_{{t-{5 - slot}}}$",
            fontsize=9.5,
            color=colors.surface if last else colors.ink,
        )
        arrow((1.1 * slot + 0.45, 0.95), (1.1 * slot + 0.45, 2.0))
    _box(axes, 6.6, 0, 0.9, 0.9, orange, alpha=0.85)
    words(7.05, 0.45, canvas.say(zh="令牌", en="token"), fontsize=9, color=colors.surface)
    arrow((7.05, 0.95), (7.05, 2.0))
    words(2.75, -0.7, canvas.say(zh="过去的帧，只到现在", en="past frames, up to now"), color=colors.muted)
    for step in range(3):
        _box(axes, 8.9 + 1.1 * step, 0, 0.9, 0.9, colors.surface, edgecolor=colors.muted, linestyle="--")
        words(9.35 + 1.1 * step, 0.45, f"$x_{{t+{step + 1}}}$", fontsize=9.5, color=colors.muted)
    words(10.5, -0.7, canvas.say(zh="未来：谁也没见过", en="the future: seen by nobody"), color=colors.muted)

    _box(axes, -0.1, 2.1, 7.7, 1.2, colors.faint)
    words(3.75, 2.7, canvas.say(zh="编码器：每一行看所有行", en="encoder: every row sees all rows"))
    _box(axes, 9.4, 3.6, 3.3, 1.2, colors.faint)
    words(11.05, 4.2, canvas.say(zh="解码器", en="decoder"))
    arrow((7.7, 2.7), (9.35, 4.1))
    words(7.75, 2.05, canvas.say(zh="键和值", en="keys, values"), fontsize=9, color=colors.muted, ha="left")
    for step in range(3):
        _box(axes, 9.5 + 1.1 * step, 1.75, 0.9, 0.65, purple, alpha=0.3)
        words(9.95 + 1.1 * step, 2.07, f"$q_{step + 1}$", fontsize=9.5)
        arrow((9.95 + 1.1 * step, 2.45), (9.95 + 1.1 * step, 3.55))
    words(12.85, 2.07, canvas.say(zh="查询", en="queries"), fontsize=9, color=colors.muted, ha="left")
    for step in range(3):
        _box(axes, 9.5 + 1.1 * step, 5.5, 0.9, 0.75, purple, alpha=0.85)
        words(9.95 + 1.1 * step, 5.87, f"$t+{step + 1}$", fontsize=9, color=colors.surface)
        arrow((9.95 + 1.1 * step, 4.85), (9.95 + 1.1 * step, 5.45))
    beside = canvas.say(zh="预测的\n未来", en="predicted\nfuture")
    words(12.85, 5.87, beside, fontsize=9, color=colors.muted, ha="left")

    _box(axes, 6.6, 5.4, 0.9, 0.9, orange, alpha=0.85)
    words(7.05, 5.85, canvas.say(zh="令牌", en="token"), fontsize=9, color=colors.surface)
    arrow((7.05, 3.35), (7.05, 5.35), orange)
    _box(axes, 5.2, 7.9, 4.5, 0.95, green, alpha=0.85)
    words(7.45, 8.37, canvas.say(zh="现在是什么动作？", en="which action is it now?"), color=colors.surface)
    arrow((7.05, 6.35), (7.05, 7.85), orange)
    arrow((9.5, 6.3), (8.5, 7.85), purple)
    words(9.25, 7.25, canvas.say(zh="取平均", en="mean"), fontsize=9, color=colors.muted, ha="left")
    _box(axes, 10.6, 7.9, 3.6, 0.95, green, alpha=0.3)
    words(12.4, 8.37, canvas.say(zh="接下来呢？", en="and what comes next?"), fontsize=9.5)
    arrow((11.6, 6.3), (12.2, 7.85), purple)
    return fig


@figure
def stream_and_scores(canvas: Canvas, ablation: dict[str, Any]) -> Figure:
    from matplotlib.colors import LinearSegmentedColormap

    colors = canvas.colors
    labels, events = ablation["shown_labels"], ablation["shown_events"]
    frames = slice(20, 140)
    labels, events = labels[frames], events[frames]
    fig, panels = canvas.subplots(3, 1, size=(7.2, 5.8), sharex=True, height_ratios=[0.85, 1.5, 1.5])
    top = panels[0]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], labels, [0]])))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        label = int(labels[start])
        accent = colors.accents[(label - 1) // 2]
        top.axvspan(start - 0.5, end - 0.5, 0.25, 0.8, color=accent, alpha=0.85, linewidth=0)
        top.text(
            (start + end - 1) / 2,
            0.525,
            f"{label}",
            ha="center",
            va="center",
            color=colors.surface,
            fontsize=11,
        )
    marks = {
        1: ("v", 0.93, colors.ink, canvas.say(zh="线索", en="cue")),
        2: ("x", 0.1, colors.accents[1], canvas.say(zh="假开头", en="false start")),
    }
    for kind, (marker, height, color, name) in marks.items():
        at = np.flatnonzero(events == kind)
        top.plot(at, np.full(len(at), height), marker, color=color, markersize=5, label=name)
    top.set_ylim(0, 1.05)
    bare(top)
    top.set_title(
        canvas.say(
            zh="真值：动作的编号，同色的一对长得一样",
            en="truth: number of the action; pairs of one color look alike",
        ),
        loc="left",
    )
    top.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.1)
    shades = LinearSegmentedColormap.from_list("scores", [colors.surface, colors.accents[0]])
    names = {"full": "OadTR", "gru": "GRU"}
    for axes, (key, name) in zip(panels[1:], names.items(), strict=True):
        scores = ablation[f"shown_{key}"][frames, 1:].T  # (8, L)
        image = axes.imshow(
            scores, aspect="auto", cmap=shades, vmin=0, vmax=1, origin="lower", extent=(-0.5, 119.5, 0.5, 8.5)
        )
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            label = int(labels[start])
            axes.plot(
                [start - 0.5, end - 0.5, end - 0.5, start - 0.5, start - 0.5],
                [label - 0.5, label - 0.5, label + 0.5, label + 0.5, label - 0.5],
                color=colors.accents[1],
                linewidth=1.4,
            )
        axes.set_yticks(range(1, 9))
        axes.set_ylabel(canvas.say(zh=f"{name}：动作", en=f"{name}: action"))
    panels[-1].set_xlabel(canvas.say(zh="帧（框出的是真值）", en="frame (the truth is framed)"))
    fig.colorbar(image, ax=panels[1:], label=canvas.say(zh="概率", en="probability"), aspect=28, pad=0.01)
    return fig


@figure
def classifier_similarity(canvas: Canvas, ablation: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, axes = canvas.subplots(size=(7.2, 3.4))
    slots = np.arange(1 - len(ablation["similarity_token"]), 1)
    curves = {
        "last": (
            colors.accents[1],
            "s--",
            canvas.say(zh="没有任务令牌：末帧", en="no task token: last frame"),
        ),
        "token": (colors.accents[0], "o-", canvas.say(zh="有任务令牌", en="with task token")),
    }
    for key, (color, style, label) in curves.items():
        axes.plot(slots, ablation[f"similarity_{key}"], style, color=color, markersize=5, label=label)
    axes.set(
        ylim=(0, 1.06), xlabel=canvas.say(zh="窗口里的帧（0 是现在）", en="frame of the window (0 is now)")
    )
    axes.set_ylabel(canvas.say(zh="与分类器输入的余弦", en="cosine with the classifier's input"))
    axes.legend(loc="lower left")
    return fig


_NAMES = {
    "linear": ("线性最小二乘", "linear"),
    "last": ("末帧", "last frame"),
    "token": ("令牌", "token"),
    "last_decoder": ("末帧 + 解码器", "last + decoder"),
    "unsupervised": ("OadTR，λ = 0", "OadTR, λ = 0"),
    "full": ("OadTR", "OadTR"),
    "gru": ("GRU", "GRU"),
}


@figure
def parts(canvas: Canvas, ablation: dict[str, Any], early: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, axes = canvas.subplots(size=(7.2, 4.4))
    runs = (
        (early, -0.2, colors.accents[1], "s"),
        (ablation, 0.2, colors.accents[0], "o"),
    )
    for result, shift, color, marker in runs:
        name = canvas.say(zh=f"{result['steps']} 步", en=f"{result['steps']} steps")
        for place, model in enumerate(_NAMES):
            values = [row["map"] for row in result["seed_rows"] if row["model"] == model]
            if not values:
                continue
            style = {"s": 26, "alpha": 0.7, "linewidths": 0, "zorder": 3, "marker": marker}
            height = place + shift
            if model == "linear":  # solved, not trained: no number of steps
                height, style["color"], style["marker"] = place, colors.muted, "D"
            else:
                style |= {"color": color, "label": name}
                name = ""
            axes.scatter(values, [height] * len(values), **style)
            mean = result[f"{model}_map"]
            ends = [height - 0.17, height + 0.17]
            axes.plot([mean, mean], ends, color=colors.ink, linewidth=2.2, zorder=4)
    for place in range(1, len(_NAMES)):
        axes.axhline(place - 0.5, color=colors.faint, linewidth=0.8, zorder=0)
    labels = [canvas.say(zh=zh, en=en) for zh, en in _NAMES.values()]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(
        canvas.say(
            zh="逐帧 mAP（每点一个种子，竖线是均值）",
            en="per-frame mAP (a dot per seed, the bar is the mean)",
        )
    )
    fig.legend(loc="outside upper right", ncols=2)
    return fig


@figure
def horizons(canvas: Canvas, ablation: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, axes = canvas.subplots(size=(7.2, 3.3))
    rows = ablation["horizon_rows"]
    steps = np.array([row["horizon"] for row in rows])
    styles = {
        "copy": (
            colors.accents[2],
            "^:",
            canvas.say(zh="把现在当作未来", en="take now for the future"),
            -0.05,
        ),
        "gru": (colors.accents[1], "s--", "GRU", 0.05),
        "full": (colors.accents[0], "o-", canvas.say(zh="OadTR 的解码器", en="OadTR's decoder"), 0.0),
    }
    for key, (color, style, label, shift) in styles.items():
        means = [row[key] for row in rows]
        axes.plot(steps + shift, means, style, color=color, label=label)
        if key != "copy":
            spread = [row[f"{key}_spread"] for row in rows]
            axes.errorbar(steps + shift, means, spread, fmt="none", ecolor=color, elinewidth=1.4, capsize=3)
    axes.set_xticks(steps)
    axes.set_ylim(0, None)
    axes.set_xlabel(canvas.say(zh="往后几帧", en="frames ahead"))
    axes.set_ylabel(canvas.say(zh="未来帧的 mAP", en="mAP of the frame ahead"))
    axes.legend(loc="lower left")
    return fig


@figure
def turning_point(canvas: Canvas, turning: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, axes = canvas.subplots(size=(7.2, 3.5))
    rows = turning["rows"]
    own = [row["own"] for row in rows]
    for key, color, style, label in (
        ("full", colors.accents[0], "o-", "OadTR"),
        ("gru", colors.accents[1], "s--", "GRU"),
    ):
        axes.plot(own, [row[key] for row in rows], style, color=color, label=label)
        low, high = ([row[f"{key}_{end}"] for row in rows] for end in ("low", "high"))
        axes.fill_between(own, low, high, color=color, alpha=0.22, linewidth=0)
    axes.set_xticks(own)
    axes.set_xlabel(
        canvas.say(
            zh="每一帧自带的类别信号（左端只能靠记住线索）",
            en="what each frame shows of its class (far left: only the cue tells)",
        )
    )
    axes.set_ylabel(canvas.say(zh="逐帧 mAP", en="per-frame mAP"))
    axes.legend(loc="lower right")
    return fig


@figure
def window_length(canvas: Canvas, history: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, (left, right) = canvas.subplots(1, 2, size=(7.2, 3.2))
    rows = history["rows"]
    lengths = [row["length"] for row in rows]
    left.plot(lengths, [row["map"] for row in rows], "o-", color=colors.accents[0])
    left.fill_between(
        lengths,
        [row["low"] for row in rows],
        [row["high"] for row in rows],
        color=colors.accents[0],
        alpha=0.22,
        linewidth=0,
    )
    left.set_title(canvas.say(zh="逐帧 mAP（色带：两个种子）", en="per-frame mAP (band: two seeds)"))
    right.bar(range(len(rows)), [row["cost"] / 1e6 for row in rows], width=0.6, color=colors.accents[2])
    right.set_title(canvas.say(zh="每帧的乘加（百万次）", en="million multiply-adds per frame"))
    right.set_xticks(range(len(rows)), [f"{length}" for length in lengths])
    left.set_xticks(lengths)
    for axes in (left, right):
        axes.set_xlabel(canvas.say(zh="窗口长度（帧）", en="window length (frames)"))
    return fig


@figure
def stream_cost(canvas: Canvas, streaming: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, (left, right) = canvas.subplots(1, 2, size=(7.2, 3.7))
    rows = streaming["rows"]
    lengths = [row["length"] for row in rows]
    curves = {
        "anew": (colors.accents[1], "s--", canvas.say(zh="整窗重算", en="whole window anew"), "window_time"),
        "cached": (
            colors.accents[0],
            "o-",
            canvas.say(zh="流式（缓存投影）", en="stream (cached projections)"),
            "stream_time",
        ),
    }
    for key, (color, style, label, timed) in curves.items():
        left.plot(lengths, [row[key] / 1e6 for row in rows], style, color=color, label=label)
        right.plot(lengths, [row[timed] for row in rows], style, color=color)
    gru = colors.accents[2]
    left.axhline(
        streaming["gru_cost"] / 1e6,
        color=gru,
        linestyle=":",
        label=canvas.say(zh="GRU 的一步", en="one step of a GRU"),
    )
    right.axhline(1, color=gru, linestyle=":")
    left.set_title(canvas.say(zh="数出来的：百万次乘加", en="counted: million multiply-adds"))
    right.set_title(canvas.say(zh="量出来的：GRU 一步的倍数", en="timed: in steps of the GRU"))
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, [f"{length}" for length in lengths])
        axes.minorticks_off()
        axes.set_ylim(0, None)
        axes.set_xlabel(canvas.say(zh="窗口长度（帧）", en="window length (frames)"))
    fig.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig
