"""Drawings for the Transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.pipeline.figure import Canvas, bare, figure
from snippets.transformer import causal_mask, padding_mask

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure


def _blues(canvas: Canvas) -> LinearSegmentedColormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("blues", [canvas.colors.surface, canvas.colors.accents[0]])


_MARKS = {"rnn": ("o", 1), "lstm": ("s", 2), "gru": ("^", 4), "transformer": ("D", 0)}
_NAMES = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU", "transformer": "Transformer"}


def _node(axes: Axes, x: float, y: float, text: str, face: str, ink: str) -> None:
    axes.scatter(x, y, s=330, color=face, linewidths=0, zorder=3)
    axes.text(x, y - 0.01, text, ha="center", va="center", fontsize=10, color=ink, zorder=4)


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    color: str,
    width: float,
    gap: float = 9,
    head: float = 11,
    zorder: float = 2,
) -> None:
    axes.annotate(
        "",
        end,
        start,
        arrowprops={
            "arrowstyle": "-|>",
            "color": color,
            "linewidth": width,
            "shrinkA": gap,
            "shrinkB": gap,
            "mutation_scale": head,
        },
        zorder=zorder,
    )


@figure
def paths(canvas: Canvas) -> Figure:
    colors, count = canvas.colors, 6
    fig, panels = canvas.subplots(2, 1, size=(7.2, 4.8))
    hot, cold = colors.accents[1], colors.faint
    titles = (
        canvas.say(
            zh=f"循环网络：$x_1$ 到 $h_{count}$ 要走 {count} 步，一步等一步",
            en=f"recurrent: {count} steps from $x_1$ to $h_{count}$, each waits for the last",
        ),
        canvas.say(
            zh=f"自注意力：$x_1$ 到 $y_{count}$ 只有一步，各个输出同时算",
            en=f"self-attention: one step from $x_1$ to $y_{count}$, all outputs at once",
        ),
    )
    for axes, title, name in zip(panels, titles, ("h", "y"), strict=True):
        for i in range(count):
            _node(axes, i, 0, f"$x_{i + 1}$", colors.faint, colors.ink)
            last = i == count - 1
            _node(
                axes,
                i,
                1,
                f"${name}_{i + 1}$",
                hot if last else colors.accents[0],
                colors.surface,
            )
        axes.set_title(title)
        axes.set(xlim=(-0.4, count - 0.6), ylim=(-0.35, 1.35))
        bare(axes)
    for i in range(count):
        on = i == 0
        _arrow(panels[0], (i, 0), (i, 1), hot if on else colors.muted, 2 if on else 1)
        if i:
            _arrow(panels[0], (i - 1, 1), (i, 1), hot, 2)
        for j in range(i):
            on = i == count - 1 and j == 0
            _arrow(panels[1], (j, 0), (i, 1), hot if on else cold, 2 if on else 1)
        _arrow(panels[1], (i, 0), (i, 1), cold, 1)
    return fig


@figure
def architecture(canvas: Canvas) -> Figure:
    from matplotlib.patches import FancyBboxPatch

    colors = canvas.colors
    fig, axes = canvas.subplots(1, 1, size=(7.2, 6.2))
    blue, orange, green, gray = colors.accents[0], colors.accents[1], colors.accents[2], colors.muted
    add = canvas.say(zh="相加，归一化", en="add, norm")
    self_attention = canvas.say(zh="自注意力", en="self-attention")
    feed = canvas.say(zh="前馈网络", en="feed-forward")
    embed = canvas.say(zh="嵌入 × $\\sqrt{d}$ + 位置", en="embed × $\\sqrt{d}$ + position")
    columns: dict[float, list[tuple[float, str, str]]] = {
        0.0: [
            (0, canvas.say(zh="源序列", en="source tokens"), gray),
            (1, embed, gray),
            (2.2, self_attention, blue),
            (3.0, add, gray),
            (4.0, feed, green),
            (4.8, add, gray),
        ],
        3.4: [
            (0, canvas.say(zh="已生成的序列", en="target so far"), gray),
            (1, embed, gray),
            (2.2, canvas.say(zh="因果自注意力", en="causal self-attention"), blue),
            (3.0, add, gray),
            (4.0, canvas.say(zh="交叉注意力", en="cross-attention"), orange),
            (4.8, add, gray),
            (5.8, feed, green),
            (6.6, add, gray),
            (7.8, canvas.say(zh="乘嵌入的转置：词的得分", en="embedding transposed: logits"), gray),
        ],
    }
    half = 1.1
    for x, blocks in columns.items():
        for (y, text, color), following in zip(blocks, [*blocks[1:], None], strict=True):
            axes.add_patch(
                FancyBboxPatch(
                    (x - half, y - 0.27),
                    2 * half,
                    0.54,
                    boxstyle="round,pad=0.02,rounding_size=0.12",
                    facecolor=color,
                    alpha=0.22,
                    edgecolor="none",
                )
            )
            axes.text(x, y, text, ha="center", va="center")
            if following:
                _link(axes, (x, y + 0.29), (x, following[0] - 0.29), colors.ink)
        # The way past each sublayer.
        for y, _, color in blocks:
            if color in (blue, orange, green):
                side = x - half - 0.32
                axes.plot(
                    [x, side, side],
                    [y - 0.45, y - 0.45, y + 0.8],
                    color=gray,
                    linewidth=1.1,
                )
                _link(axes, (side, y + 0.8), (x - half - 0.02, y + 0.8), gray)
        repeated = [y for y, _, color in blocks if color in (blue, orange, green)]
        axes.add_patch(
            FancyBboxPatch(
                (x - half - 0.5, repeated[0] - 0.58),
                2 * half + 0.72,
                repeated[-1] + 1.2 - repeated[0] + 0.58,
                boxstyle="round,pad=0.02,rounding_size=0.15",
                fill=False,
                edgecolor=gray,
                linestyle="--",
                linewidth=1,
            )
        )
        axes.text(
            x + half + 0.14,
            repeated[-1] + 1.28,
            "× N",
            ha="right",
            va="bottom",
            color=gray,
        )
    axes.plot([0, 0, 1.56, 1.56], [5.09, 6.0, 6.0, 4.0], color=orange, linewidth=1.6)
    _link(axes, (1.56, 4.0), (3.4 - half - 0.02, 4.0), orange, 1.6)
    axes.text(
        -0.1,
        6.1,
        canvas.say(zh="memory：键和值", en="memory: keys and values"),
        color=orange,
        ha="left",
        va="bottom",
    )
    for x, words in (
        (-1.75, canvas.say(zh="编码器", en="encoder")),
        (4.98, canvas.say(zh="解码器", en="decoder")),
    ):
        axes.text(x, 1.7, words, fontsize=12, rotation=90, ha="center", va="bottom")
    axes.text(
        -1.9,
        7.8,
        canvas.say(zh="灰色折线：残差连接", en="gray side lines: residuals"),
        color=gray,
        va="center",
    )
    axes.set(xlim=(-1.95, 5.2), ylim=(-0.4, 8.2))
    bare(axes)
    return fig


def _link(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, width: float = 1.1
) -> None:
    _arrow(axes, start, end, color, width, gap=0, head=9, zorder=3)


@figure
def masks(canvas: Canvas) -> Figure:
    colors, length = canvas.colors, 6
    fig, panels = canvas.subplots(1, 3, size=(7.2, 3.0))
    causal = causal_mask(length)
    padding = padding_mask([4], length).expand(length, length)
    pictures = {
        canvas.say(zh="因果", en="causal"): causal,
        canvas.say(zh="填充（长度 4）", en="padding (length 4)"): padding,
        canvas.say(zh="两者求与", en="both, joined by and"): causal & padding,
    }
    from matplotlib.colors import ListedColormap

    shades = ListedColormap([colors.faint, colors.accents[0]])
    for axes, (title, mask) in zip(panels, pictures.items(), strict=True):
        axes.imshow(mask.numpy(), cmap=shades, vmin=0, vmax=1)
        for line in range(length + 1):
            for draw in (axes.hlines, axes.vlines):
                draw(line - 0.5, -0.5, length - 0.5, color=colors.surface, linewidth=1.5)
        axes.set_title(title)
        axes.set_xlabel(canvas.say(zh="键", en="key"))
        axes.set_xticks(range(length), range(1, length + 1))
        axes.set_yticks(range(length), range(1, length + 1))
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(False)
    panels[0].set_ylabel(canvas.say(zh="查询", en="query"))
    return fig


@figure
def gradient_distance(canvas: Canvas, gradients: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, axes = canvas.subplots(1, 1, size=(7.2, 4.3))
    names = {
        "rnn": ("RNN", colors.accents[1], "-"),
        "lstm": ("LSTM", colors.accents[2], "-"),
        "gru": ("GRU", colors.accents[4], "-"),
        "lstm_open": (
            canvas.say(zh="LSTM，遗忘门偏置 +3", en="LSTM, forget bias + 3"),
            colors.accents[2],
            "--",
        ),
        "rnn_large": (
            canvas.say(zh="RNN，循环权重 ×3", en="RNN, recurrent weights × 3"),
            colors.accents[1],
            "--",
        ),
        "transformer": ("Transformer", colors.accents[0], "-"),
    }
    floor = 1e-9
    for name, (label, color, line) in names.items():
        curve = gradients[f"{name}_curve"]
        shown = np.where(curve > 1e-3 * floor, curve, np.nan)  # on to the edge, and no further
        axes.plot(
            np.arange(len(curve)),
            shown,
            color=color,
            linestyle=line,
            linewidth=2.6 if name == "transformer" else 1.8,
            label=label,
        )
    axes.set_yscale("log")
    axes.set_ylim(floor, 3e3)
    axes.set_xlim(0, 130)
    axes.set_xticks([0, 16, 32, 64, 96, 128])
    axes.set_xlabel(canvas.say(zh="与最后一个输出的距离（步）", en="distance to the last output (steps)"))
    axes.set_ylabel(canvas.say(zh="对该输入的导数的范数", en="norm of the derivative by that input"))
    axes.legend(loc="center right", bbox_to_anchor=(1, 0.36))
    return fig


@figure
def time_and_memory(canvas: Canvas, timing: dict[str, Any]) -> Figure:
    colors, rows = canvas.colors, timing["rows"]
    fig, panels = canvas.subplots(1, 3, size=(7.2, 3.6))
    lengths = [row["length"] for row in rows]
    lstm = ("LSTM", colors.accents[2], "s", "--")
    attention = (canvas.say(zh="注意力层", en="attention layer"), colors.accents[0], "o", "-")
    stepwise = (canvas.say(zh="同一层，逐位置算", en="the same, stepwise"), colors.accents[1], "^", ":")
    contents = {
        canvas.say(zh="一步训练（毫秒）", en="training step (ms)"): {
            "lstm_ms": lstm,
            "attention_ms": attention,
        },
        canvas.say(zh="为反向传播保留（MiB）", en="kept for backward (MiB)"): {
            "lstm_mib": lstm,
            "attention_mib": attention,
        },
        canvas.say(zh="一次前向（毫秒）", en="forward pass (ms)"): {
            "parallel_ms": attention,
            "stepwise_ms": stepwise,
        },
    }
    for axes, (title, series) in zip(panels, contents.items(), strict=True):
        for key, (label, color, marker, line) in series.items():
            axes.plot(
                lengths, [row[key] for row in rows], color=color, marker=marker, linestyle=line, label=label
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(lengths[::2] if len(lengths) > 4 else lengths)
        axes.set_xticklabels([str(n) for n in (lengths[::2] if len(lengths) > 4 else lengths)])
        axes.minorticks_off()
        axes.set_title(title)
        axes.set_xlabel(canvas.say(zh="序列长度", en="sequence length"))
    handles, labels = panels[0].get_legend_handles_labels()
    more, other = panels[2].get_legend_handles_labels()
    fig.legend([*handles, more[1]], [*labels, other[1]], loc="outside upper center", ncols=3)
    return fig


@figure
def forgetting(canvas: Canvas, delay: dict[str, Any], recall: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, panels = canvas.subplots(1, 2, size=(7.2, 4.0), sharey=True)
    tasks = (
        (
            delay,
            "distance",
            canvas.say(zh="延迟复制", en="delayed copy"),
            canvas.say(zh="往回多少步", en="how many steps back"),
        ),
        (
            recall,
            "pairs",
            canvas.say(zh="联想回忆", en="associative recall"),
            canvas.say(zh="键值对的个数", en="key-symbol pairs"),
        ),
    )
    for axes, (result, over, title, label) in zip(panels, tasks, strict=True):
        rows = result["rows"]
        x = np.arange(len(rows))
        for number, (net, (marker, accent)) in enumerate(_MARKS.items()):
            mean = np.array([row[net] for row in rows])
            low, high = (np.array([row[f"{net}_{end}"] for row in rows]) for end in ("low", "high"))
            axes.errorbar(
                x + 0.07 * (number - 1.5),
                mean,
                (mean - low, high - mean),
                color=colors.accents[accent],
                marker=marker,
                capsize=3,
                label=_NAMES[net],
            )
        axes.axhline(result["chance"], color=colors.muted, linewidth=1, linestyle=":")
        axes.text(
            0.02,
            result["chance"] - 0.02,
            canvas.say(zh="乱猜", en="chance"),
            va="top",
            color=colors.muted,
            transform=axes.get_yaxis_transform(),
        )
        axes.set_xticks(x, [str(row[over]) for row in rows])
        axes.set_title(title)
        axes.set_xlabel(label)
        axes.set_ylim(0, 1.05)
    panels[0].set_ylabel(canvas.say(zh="准确率", en="accuracy"))
    handles, labels = panels[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=4)
    return fig


@figure
def attention_maps(canvas: Canvas, reversal: dict[str, Any]) -> Figure:
    weights = reversal["weights_map"]  # (heads, T, S)
    source, written = reversal["source"], reversal["written"]
    fig, panels = canvas.subplots(2, 2, size=(7.2, 7.4))
    names = [str(token - 3) for token in source]
    steps = [str(token - 3) if token > 2 else "■" for token in written[1 : weights.shape[1] + 1]]
    for number, axes in enumerate(panels.flat):
        picture = axes.imshow(weights[number], cmap=_blues(canvas), vmin=0, vmax=1)
        axes.set_title(canvas.say(zh=f"第 {number + 1} 头", en=f"head {number + 1}"))
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(steps)), steps)
        axes.tick_params(length=0)
        axes.set_xlabel(canvas.say(zh="源序列", en="source"))
        axes.set_ylabel(canvas.say(zh="写出的", en="written"))
        for side in axes.spines.values():
            side.set_color(canvas.colors.faint)
    bar = fig.colorbar(picture, ax=panels, location="bottom", shrink=0.5, aspect=28)
    bar.set_label(canvas.say(zh="注意力权重", en="attention weight"))
    return fig


@figure
def position_code(canvas: Canvas, positions: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, (left, right) = canvas.subplots(1, 2, size=(7.2, 3.9))
    picture = left.imshow(positions["code"], cmap=canvas.diverging, vmin=-1, vmax=1, aspect="auto")
    left.set_xlabel(canvas.say(zh="列", en="column"))
    left.set_ylabel(canvas.say(zh="位置", en="position"))
    left.set_title(canvas.say(zh="位置编码的值", en="the code"))
    bar = fig.colorbar(picture, ax=left, location="bottom", shrink=0.8, aspect=28)
    bar.set_ticks([-1, 0, 1])
    products = positions["products"] / positions["squared_length"]
    styles = {0: ("-", colors.accents[0]), 20: ("--", colors.accents[1]), 45: (":", colors.accents[2])}
    for place, (line, color) in styles.items():
        offsets = np.arange(-place, len(products) - place)
        right.plot(
            offsets,
            products[place],
            color=color,
            linestyle=line,
            linewidth=3.4 if line == ":" else 2,
            label=canvas.say(zh=f"从位置 {place} 看", en=f"from position {place}"),
        )
    right.set_title(canvas.say(zh="内积只取决于相隔多远", en="products depend on the offset only"))
    right.set_xlabel(canvas.say(zh="相隔的位置数", en="offset"))
    right.set_ylim(0.4, 1.02)
    right.legend(loc="upper right")
    return fig


@figure
def score_scale(canvas: Canvas, scaling: dict[str, Any]) -> Figure:
    colors, rows = canvas.colors, scaling["rows"]
    fig, panels = canvas.subplots(1, 3, size=(7.2, 3.6))
    sizes = [row["size"] for row in rows]
    titles = {
        "variance": canvas.say(zh="得分的方差", en="variance of the scores"),
        "largest": canvas.say(
            zh=f"{scaling['keys']} 个权重中最大的", en=f"largest of {scaling['keys']} weights"
        ),
        "gradient": canvas.say(zh="softmax 导数的范数", en="norm of softmax's derivative"),
    }
    styles = {
        "raw": (canvas.say(zh="不缩放", en="unscaled"), colors.accents[1], "s", "--"),
        "scaled": (
            canvas.say(zh="除以 $\\sqrt{d_k}$", en="divided by $\\sqrt{d_k}$"),
            colors.accents[0],
            "o",
            "-",
        ),
    }
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        for name, (label, color, marker, line) in styles.items():
            axes.plot(
                sizes,
                [row[f"{name}_{key}"] for row in rows],
                color=color,
                marker=marker,
                linestyle=line,
                label=label,
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks([1, 16, 256], ["1", "16", "256"])
        axes.set_title(title)
        axes.set_xlabel("$d_k$")
        if key == "variance":
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.minorticks_off()
    handles, labels = panels[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=2)
    return fig


@figure
def learning(canvas: Canvas, reversal: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, (left, right) = canvas.subplots(1, 2, size=(7.2, 3.4))
    left.plot(np.arange(1, len(reversal["rates"]) + 1), 1e3 * reversal["rates"], color=colors.accents[0])
    left.axvline(reversal["warmup"], color=colors.muted, linewidth=1, linestyle=":")
    left.text(
        reversal["warmup"] + 10,
        1e3 * reversal["peak_rate"],
        canvas.say(zh=f"预热 {reversal['warmup']} 步", en=f"warm-up, {reversal['warmup']} steps"),
        va="bottom",
        color=colors.muted,
    )
    left.set_ylim(0, 1.15e3 * reversal["peak_rate"])
    left.set_title(canvas.say(zh="学习率的一千倍", en="learning rate × 1000"))
    for number, losses in enumerate(reversal["losses"]):
        smooth = np.convolve(losses, np.ones(10) / 10, mode="valid")
        right.plot(
            np.arange(10, len(losses) + 1),
            smooth,
            color=colors.accents[1 + number],
            linestyle=("-", "--", ":")[number % 3],
            label=canvas.say(zh=f"种子 {number}", en=f"seed {number}"),
        )
    right.axhline(reversal["loss_floor"], color=colors.muted, linewidth=1, linestyle=":")
    right.text(
        0,
        reversal["loss_floor"] - 0.03,
        canvas.say(zh="标签平滑留下的下限", en="least loss under label smoothing"),
        va="top",
        color=colors.muted,
    )
    right.set_ylim(bottom=0.25)
    right.set_title(canvas.say(zh="损失（10 步平均）", en="loss (mean of 10 steps)"))
    right.legend(loc="upper right")
    for axes in (left, right):
        axes.set_xlabel(canvas.say(zh="训练步", en="training step"))
    return fig
