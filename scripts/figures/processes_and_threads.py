"""Drawings for processes and threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.pipeline.figure import Canvas, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _blank(axes: Axes, width: float, height: float) -> None:
    """A plane to draw on, in units of its own."""
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.set_axis_off()


def _box(
    axes: Axes, place: tuple[float, float, float, float], words: str, color: str, ink: str, size: float = 9
) -> None:
    """A rectangle (x, y, width, height) with words in its middle."""
    from matplotlib.patches import FancyBboxPatch

    x, y, width, height = place
    style = "round,pad=0,rounding_size=0.08"
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=color, edgecolor=color, alpha=0.22)
    )
    axes.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle=style, facecolor="none", edgecolor=color, linewidth=1.2
        )
    )
    axes.text(x + width / 2, y + height / 2, words, ha="center", va="center", fontsize=size, color=ink)


@figure
def process_memory(canvas: Canvas, programs: dict[str, Any]) -> Figure:
    colors = canvas.colors
    threads = (programs["threads"] or ["main", "worker 1", "worker 2"])[:6]
    fig, axes = canvas.subplots(size=(7.2, 4.3))
    _blank(axes, 12, 7)
    _box(axes, (0.1, 0.1, 8.9, 6.8), "", colors.muted, colors.ink)
    axes.text(0.35, 6.5, canvas.say(zh="一个进程（一个 JVM）", en="one process (one JVM)"), va="center")
    heap = canvas.say(zh="堆：对象、数组（共享）", en="heap: objects, arrays (shared)")
    area = canvas.say(
        zh="元空间：类、方法、静态字段的定义（共享）", en="Metaspace: classes and methods (shared)"
    )
    _box(axes, (0.4, 5.0, 8.3, 1.1), heap, colors.accents[0], colors.ink)
    _box(axes, (0.4, 3.75, 8.3, 1.0), area, colors.accents[2], colors.ink)
    width = 8.3 / len(threads)
    parts = canvas.say(
        zh="程序\n计数器|Java 栈|本地栈", en="program\ncounter|Java\nstack|native\nstack"
    ).split("|")
    for i, name in enumerate(threads):
        x = 0.4 + i * width
        for k, part in enumerate(parts):
            place = (x + 0.06, 2.55 - k * 0.82, width - 0.12, 0.72)
            _box(axes, place, part, colors.accents[1], colors.ink, 7.5)
        axes.text(x + width / 2, 0.5, name.replace(" ", "\n"), ha="center", va="center", fontsize=7)
    axes.text(0.4, 3.5, canvas.say(zh="每个线程自己的：", en="each thread's own:"), va="center", fontsize=8.5)
    _box(axes, (9.5, 0.1, 2.4, 6.8), "", colors.muted, colors.ink)
    axes.text(
        10.7, 6.5, canvas.say(zh="另一个进程", en="another process"), ha="center", va="center", fontsize=9
    )
    words = canvas.say(zh="自己的\n地址空间", en="address space\nof its own")
    _box(axes, (9.75, 3.75, 1.9, 2.35), words, colors.accents[3], colors.ink)
    words = canvas.say(zh="自己的\n线程", en="threads\nof its own")
    _box(axes, (9.75, 0.91, 1.9, 2.36), words, colors.accents[3], colors.ink)
    return fig


@figure
def thread_states(canvas: Canvas) -> Figure:
    colors = canvas.colors
    fig, axes = canvas.subplots(size=(7.2, 4.0))
    _blank(axes, 12, 6.6)
    places = {
        "NEW": (0.1, 2.9),
        "RUNNABLE": (4.2, 2.9),
        "TERMINATED": (9.2, 2.9),
        "BLOCKED": (0.9, 0.2),
        "WAITING": (4.5, 5.6),
        "TIMED_WAITING": (7.5, 0.2),
    }
    for number, (name, (x, y)) in enumerate(places.items()):
        tint = colors.accents[2] if name == "RUNNABLE" else colors.accents[0 if number < 3 else 1]
        _box(axes, (x, y, 2.7, 0.8), name, tint, colors.ink)

    def arrow(start: tuple[float, float], end: tuple[float, float], bend: float = 0.0) -> None:
        style = {"arrowstyle": "-|>", "color": colors.muted, "connectionstyle": f"arc3,rad={bend}"}
        axes.annotate("", end, start, arrowprops=style)

    def note(x: float, y: float, words: str, align: str = "center") -> None:
        axes.text(x, y, words, ha=align, va="center", fontsize=8, color=colors.ink)

    arrow((2.85, 3.3), (4.15, 3.3))
    note(3.5, 3.55, "start()")
    arrow((6.95, 3.3), (9.15, 3.3))
    note(8.05, 3.55, canvas.say(zh="run() 返回", en="run() returns"))
    arrow((5.4, 3.75), (5.4, 5.55), 0.25)
    arrow((6.3, 5.55), (6.3, 3.75), 0.25)
    note(4.75, 4.65, "wait(), join(), park()", "right")
    note(6.75, 4.65, canvas.say(zh="notify()、对方结束、unpark()", en="notify(), its end, unpark()"), "left")
    arrow((4.5, 2.85), (2.2, 1.05), 0.2)
    arrow((3.3, 1.05), (5.2, 2.85), 0.2)
    note(2.45, 2.2, canvas.say(zh="监视器被占用", en="monitor taken"), "right")
    note(4.75, 1.6, canvas.say(zh="拿到", en="got it"), "left")
    arrow((5.9, 2.85), (8.0, 1.05), 0.2)
    arrow((9.3, 1.05), (6.7, 2.85), 0.2)
    note(6.5, 1.6, canvas.say(zh="sleep(t)、\nwait(t)", en="sleep(t),\nwait(t)"), "right")
    note(9.0, 2.2, canvas.say(zh="到时，或被唤醒", en="time is up, or woken"), "left")
    return fig


@figure
def lost_update(canvas: Canvas) -> Figure:
    colors = canvas.colors
    fig, axes = canvas.subplots(size=(7.2, 3.2))
    _blank(axes, 12, 5)
    steps = [("A", 0, "read", 0), ("B", 1, "read", 0), ("A", 2, "write", 1), ("B", 3, "write", 1)]
    words = {
        "read": canvas.say(zh="读到 {}", en="reads {}"),
        "write": canvas.say(zh="写入 {}", en="writes {}"),
    }
    memory = [0, 0, 0, 1, 1]
    axes.text(0.2, 4.2, canvas.say(zh="线程 A", en="thread A"), va="center")
    axes.text(0.2, 2.5, canvas.say(zh="count 的值", en="value of count"), va="center")
    axes.text(0.2, 0.8, canvas.say(zh="线程 B", en="thread B"), va="center")
    for at in range(5):
        axes.text(2.6 + at * 2.2, 2.5, str(memory[at]), ha="center", va="center", fontsize=14)
    for who, at, what, value in steps:
        x, y = 2.7 + at * 2.2, 3.8 if who == "A" else 0.4
        tint = colors.accents[0] if who == "A" else colors.accents[1]
        _box(axes, (x, y, 1.9, 0.8), words[what].format(value), tint, colors.ink)
        near, far = (2.85, 3.75) if who == "A" else (2.15, 1.25)
        ends = (far, near) if what == "write" else (near, far)
        style = {"arrowstyle": "-|>", "color": tint}
        axes.annotate("", (x + 0.95, ends[1]), (x + 0.95, ends[0]), arrowprops=style)
    return fig


@figure
def lost_updates(canvas: Canvas, losses: dict[str, Any]) -> Figure:
    fig, axes = canvas.subplots(size=(7.2, 3.4))
    kinds = ["plain int", "volatile int", "synchronized", "AtomicInteger", "LongAdder"]
    safe = canvas.say(
        zh="synchronized、AtomicInteger、LongAdder", en="synchronized, AtomicInteger, LongAdder"
    )
    counts = sorted({row["threads"] for row in losses["rows"]})
    groups = [("int", kinds[:1]), ("volatile int", kinds[1:2]), (safe, kinds[2:])]
    for number, (label, members) in enumerate(groups):
        rows = [row for row in losses["rows"] if row["kind"] in members]
        places = [counts.index(row["threads"]) + (number - 1) * 0.22 for row in rows for _ in row["shares"]]
        shares = [100 * share for row in rows for share in row["shares"]]
        color = canvas.colors.accents[(1, 0, 2)[number]]
        axes.plot(places, shares, "os^"[number], color=color, alpha=0.6, markersize=5, label=label)
    axes.set_xticks(range(len(counts)), [str(count) for count in counts])
    axes.set_xlabel(canvas.say(zh="线程数", en="threads"))
    axes.set_ylabel(canvas.say(zh="丢失的更新 (%)", en="updates lost (%)"))
    axes.set_ylim(-4, 104)
    axes.legend(loc="upper left", bbox_to_anchor=(0, 1.22), ncols=3, columnspacing=1, handletextpad=0.2)
    if losses["worst"] is None:
        words = canvas.say(zh="构建时没有 JDK，未测量", en="not measured: no JDK at build")
        axes.text(1.5, 50, words, ha="center")
    return fig


@figure
def creation_time(canvas: Canvas, creation: dict[str, Any]) -> Figure:
    rows = creation["rows"][::-1]
    names = {
        "java_program": canvas.say(zh="Java：启动程序", en="Java: a program"),
        "python_program": canvas.say(zh="Python：启动程序", en="Python: a program"),
        "python_fork": canvas.say(zh="Python：fork 进程", en="Python: a forked process"),
        "java_thread": canvas.say(zh="Java：平台线程", en="Java: a platform thread"),
        "python_thread": canvas.say(zh="Python：线程", en="Python: a thread"),
        "java_virtual_thread": canvas.say(zh="Java：虚拟线程", en="Java: a virtual thread"),
        "java_method_call": canvas.say(zh="Java：方法调用", en="Java: a method call"),
    }
    fig, axes = canvas.subplots(size=(7.2, 3.3))
    for y, row in enumerate(rows):
        color = canvas.colors.accents[0 if row["what"].startswith("java") else 1]
        axes.hlines(y, row["low"], row["high"], color=color, linewidth=5, alpha=0.35)
        axes.plot(row["median"], y, "o", color=color)
        amount = f"{row['median']:.3g} µs" if row["median"] < 1000 else f"{row['median'] / 1000:.3g} ms"
        axes.annotate(amount, (row["high"], y), (8, 0), textcoords="offset points", va="center", fontsize=8.5)
    axes.set_xscale("log")
    lowest, highest = min(row["low"] for row in rows), max(row["high"] for row in rows)
    axes.set_xlim(lowest / 2, highest * 12)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_yticks(range(len(rows)), [names[row["what"]] for row in rows])
    axes.set_xlabel(
        canvas.say(zh="开始并等它结束的时间 (µs，对数轴)", en="to start it and see its end (µs, log axis)")
    )
    return fig


@figure
def stack_memory(canvas: Canvas, stacks: dict[str, Any]) -> Figure:
    fig, axes = canvas.subplots(size=(7.2, 2.9))
    rows = [row for row in stacks["rows"] if row["reserved"] is not None]
    x = np.arange(len(stacks["rows"]))
    series = {
        "reserved": canvas.say(zh="预留的地址空间", en="address space reserved"),
        "used": canvas.say(zh="实际占用的内存", en="memory in use"),
    }
    for number, (key, label) in enumerate(series.items()):
        heights = [max(row[key], 0.1) for row in rows]
        bars = axes.bar(
            x[: len(rows)] + (number - 0.5) * 0.36,
            heights,
            0.34,
            label=label,
            color=canvas.colors.accents[number],
        )
        axes.bar_label(bars, [f"{row[key]:,.0f}" for row in rows], padding=2, fontsize=8.5)
    axes.set_yscale("log")
    axes.set_ylim(1, 60_000)
    axes.set_xticks(x, [f"{row['stack']} MiB" for row in stacks["rows"]])
    axes.set_xlabel(canvas.say(zh="每个线程要求的栈", en="stack asked for by each thread"))
    axes.set_ylabel(canvas.say(zh="MiB（对数轴）", en="MiB (log axis)"))
    if rows:
        axes.legend(loc="upper left", ncols=2)
    else:
        axes.text(
            1, 10, canvas.say(zh="构建时没有 JDK，未测量", en="not measured: no JDK at build"), ha="center"
        )
    return fig


@figure
def gil_speedup(canvas: Canvas, gil: dict[str, Any]) -> Figure:
    titles = {
        "python": canvas.say(zh="Python 循环", en="a loop in Python"),
        "torch": canvas.say(zh="PyTorch 矩阵乘法", en="matrix products in PyTorch"),
        "wait": canvas.say(zh="等待", en="waiting"),
    }
    kinds = {
        "thread": canvas.say(zh="线程", en="threads"),
        "process": canvas.say(zh="进程", en="processes"),
    }
    fig, panels = canvas.subplots(1, 3, size=(7.2, 3.0), sharey=True)
    top = max(row["highest"] for row in gil["rows"])
    for axes, (task, title) in zip(panels, titles.items(), strict=True):
        for number, (kind, label) in enumerate(kinds.items()):
            rows = [row for row in gil["rows"] if (row["task"], row["kind"]) == (task, kind)]
            x = np.array([row["workers"] for row in rows]) + (number - 0.5) * 0.12  # side by side
            middle = np.array([row["speedup"] for row in rows])
            low, high = (np.array([row[key] for row in rows]) for key in ("lowest", "highest"))
            axes.errorbar(
                x,
                middle,
                [middle - low, high - middle],
                fmt="os"[number] + "-",
                capsize=2,
                color=canvas.colors.accents[number],
                label=label,
            )
            axes.set_xticks([row["workers"] for row in rows])
        axes.axhline(1, color=canvas.colors.muted, linewidth=1, linestyle=":")
        axes.set_title(title)
        axes.set_ylim(0, 1.1 * top)
    panels[0].set_ylabel(canvas.say(zh="相对普通循环的加速比", en="speed-up over a plain loop"))
    panels[1].set_xlabel(canvas.say(zh="工作者数", en="workers"))
    panels[2].legend(loc="upper left")
    return fig


@figure
def amdahl_bound(canvas: Canvas, amdahl: dict[str, Any]) -> Figure:
    fig, axes = canvas.subplots(size=(7.2, 3.2))
    for number, (share, curve) in enumerate(zip(amdahl["shares"], amdahl["curves"], strict=True)):
        color = canvas.colors.accents[number]
        axes.plot(amdahl["workers"], curve, "o-", color=color)
        label = canvas.say(zh=f"串行 {share:.0%}", en=f"{share:.0%} serial")
        axes.annotate(
            label,
            (amdahl["workers"][-1], curve[-1]),
            (8, 0),
            textcoords="offset points",
            va="center",
            color=color,
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(amdahl["workers"], [str(n) for n in amdahl["workers"]])
    axes.set_yticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    axes.set_xlim(0.9, 170)
    axes.set_xlabel(canvas.say(zh="工作者数", en="workers"))
    axes.set_ylabel(canvas.say(zh="加速比上限", en="bound on the speed-up"))
    return fig
