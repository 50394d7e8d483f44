"""Drawings for face recognition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.pipeline.figure import Canvas, bare, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOSSES = {"softmax": "softmax", "sphereface": "SphereFace", "cosface": "CosFace", "arcface": "ArcFace"}
_STYLES = {"softmax": ":", "sphereface": "-.", "cosface": "--", "arcface": "-"}
_MARKERS = "osv^DP"


def _color(canvas: Canvas, loss: str) -> str:
    return canvas.colors.accents[("arcface", "cosface", "sphereface", "softmax").index(loss)]


def _picture(axes: Axes, image: np.ndarray, left: float, top: float, size: float) -> None:
    """Show (3, H, W) in a square of the axes, whose y runs downward."""
    axes.imshow(
        image.transpose(1, 2, 0), extent=(left, left + size, top + size, top), interpolation="nearest"
    )


@figure
def faces(canvas: Canvas, samples: dict[str, Any]) -> Figure:
    sheet = samples["sheet"][:, :4]  # (nuisances, people, 3, 48, 48)
    names = {
        "none": ("原样", "none"),
        "yaw": ("转头", "yaw"),
        "roll": ("歪头", "roll"),
        "light": ("光照", "light"),
        "expression": ("表情", "expression"),
        "occlusion": ("遮挡", "occlusion"),
        "everyday": ("日常", "everyday"),
    }
    fig, axes = canvas.subplots(size=(7.2, 4.5))
    for column, name in enumerate(samples["sheet_rows"]):
        for row, image in enumerate(sheet[column]):
            _picture(axes, image, 1.05 * column, 1.05 * row, 1)
        zh, en = names[name]
        axes.text(1.05 * column + 0.5, -0.12, canvas.say(zh=zh, en=en), ha="center", va="bottom")
    axes.set(xlim=(-0.02, 1.05 * len(names) - 0.03), ylim=(4.2, -0.45), aspect="equal")
    bare(axes)
    return fig


@figure
def alignment(canvas: Canvas, samples: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, axes = canvas.subplots(size=(7.2, 4.2))
    rows = (
        (canvas.say(zh="照片与\n五个关键点", en="photo and\nlandmarks"), "before", "before_points", 48),
        (canvas.say(zh="框：\n不对齐", en="box, not\naligned"), "box_crops", None, 64),
        (canvas.say(zh="对齐到\n模板", en="aligned to\ntemplate"), "after", "after_points", 64),
    )
    dot = {"markersize": 4, "linestyle": "none", "markeredgewidth": 1.3}
    for row, (label, images, points, side) in enumerate(rows):
        axes.text(-0.08, 1.05 * row + 0.5, label, ha="right", va="center")
        for column, image in enumerate(samples[images]):
            left, top = 1.05 * column, 1.05 * row
            _picture(axes, image, left, top, 1)
            if points:
                x, y = (samples[points][column].T + 0.5) / side
                axes.plot(left + x, top + y, "x", color="#ff3b30", **dot)
            if images == "after":
                x, y = (samples["template"].T + 0.5) / side
                axes.plot(
                    left + x,
                    top + y,
                    "o",
                    markerfacecolor="none",
                    color="#ffffff",
                    **{**dot, "markersize": 7},
                )
    axes.plot([], [], "x", color="#ff3b30", label=canvas.say(zh="关键点", en="landmarks"), **dot)
    axes.plot(
        [],
        [],
        "o",
        markerfacecolor="none",
        color=colors.muted,
        label=canvas.say(zh="模板", en="template"),
        **{**dot, "markersize": 7},
    )
    axes.set(xlim=(-1.0, 5.25), ylim=(3.15, -0.05), aspect="equal")
    bare(axes)
    fig.legend(loc="outside lower center", ncols=2)
    return fig


@figure
def target_logits(canvas: Canvas, target_logits: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, axes = canvas.subplots(size=(7.2, 4.0))
    degrees = target_logits["degrees"]
    for name, label in _LOSSES.items():
        axes.plot(degrees, target_logits[name], _STYLES[name], color=_color(canvas, name), label=label)
    past = degrees >= target_logits["turn"]
    axes.plot(
        degrees[past],
        target_logits["naive"][past],
        color=colors.ink,
        linewidth=1.2,
        label=canvas.say(zh="cos(θ + m) 不设分支", en="cos(θ + m), no branch"),
    )
    axes.axvline(target_logits["turn"], color=colors.faint, linewidth=1, zorder=0)
    axes.text(target_logits["turn"] - 2, 0.9, "π − m", ha="right", va="top", color=colors.muted)
    axes.set(ylim=(-2.6, 1.15), xlim=(0, 180), xticks=range(0, 181, 30))
    axes.set_xlabel(
        canvas.say(zh="与自己类别权重的夹角 θ（度）", en="angle θ to the own class's weight (degrees)")
    )
    axes.set_ylabel(canvas.say(zh="目标 logit ÷ 尺度", en="target logit ÷ scale"))
    axes.legend(loc="lower left")
    return fig


@figure
def circle(canvas: Canvas, circle: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, panels = canvas.subplots(1, 4, size=(7.2, 2.5))
    angle = np.linspace(0, 2 * np.pi, 200)
    labels = circle["labels"]
    for axes, (name, label) in zip(panels, _LOSSES.items(), strict=True):
        points = circle[f"{name}_points"]
        points = points / np.linalg.norm(points, axis=1, keepdims=True)
        axes.plot(np.cos(angle), np.sin(angle), color=colors.faint, linewidth=1, zorder=0)
        for person, accent in zip(range(circle["people"]), colors.accents, strict=False):
            own = points[labels == person]
            spread = 1 + 0.16 * (
                (np.arange(len(own)) * 0.618) % 1 - 0.5
            )  # so that equal directions can be seen
            axes.plot(
                *(own * spread[:, None]).T,
                _MARKERS[person],
                color=accent,
                markersize=2.6,
                alpha=0.7,
                markeredgewidth=0,
            )
            mean = own.mean(0) / np.linalg.norm(own.mean(0))
            axes.plot([0, 0.82 * mean[0]], [0, 0.82 * mean[1]], color=accent, linewidth=1.4)
        axes.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal", title=label)
        bare(axes)
        within, between = circle[f"{name}_within"], circle[f"{name}_between"]
        axes.set_xlabel(
            canvas.say(
                zh=f"人内 {within:.1f}°\n人间 {between:.0f}°",
                en=f"within {within:.1f}°\nbetween {between:.0f}°",
            )
        )
    return fig


@figure
def roc_curves(canvas: Canvas, losses: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, (left, right) = canvas.subplots(1, 2, size=(7.2, 3.7), width_ratios=[1.35, 1])
    far = losses["roc_far"]
    for name, label in _LOSSES.items():
        color = _color(canvas, name)
        left.plot(far, losses[f"roc_{name}"], _STYLES[name], color=color, label=label)
        left.fill_between(
            far, losses[f"roc_{name}_low"], losses[f"roc_{name}_high"], color=color, alpha=0.15, linewidth=0
        )
    left.set(xscale="log", xlim=(1e-4, 1), ylim=(0, 1.01))
    left.axvline(0.01, color=colors.faint, linewidth=1, zorder=0)
    left.set_xlabel(canvas.say(zh="误识率 FAR", en="false accept rate"))
    left.set_ylabel(canvas.say(zh="通过率 TAR", en="true accept rate"))
    left.legend(loc="lower right")
    for place, name in enumerate(_LOSSES):
        runs = [row for row in losses["seed_rows"] if row["loss"] == name]
        for key, shift, marker in (("constant_far", 0.12, "s"), ("held_far", -0.12, "o")):
            color = colors.accents[1] if key == "constant_far" else colors.accents[0]
            right.plot(
                [100 * run[key] for run in runs],
                [place + shift] * len(runs),
                marker,
                color=color,
                markersize=5,
                alpha=0.8,
                label={
                    "constant_far": canvas.say(zh="阈值 0.6", en="threshold 0.6"),
                    "held_far": canvas.say(zh="在别人身上选定", en="chosen on others"),
                }[key]
                if place == 0
                else None,
            )
    right.axvline(1, color=colors.faint, linewidth=1, zorder=0)
    right.set_xlim(0, None)
    right.set_yticks(range(len(_LOSSES)), list(_LOSSES.values()))
    right.set_ylim(len(_LOSSES) - 0.5, -0.5)
    right.tick_params(axis="y", length=0)
    right.set_xlabel(canvas.say(zh="实际的误识率（%）", en="false accept rate obtained (%)"))
    right.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=1)
    return fig


_VARIANTS = {
    "full": ("对齐 + 增强", "aligned, augmented", "o-", 0),
    "no_augmentation": ("不增强", "not augmented", "s--", 1),
    "no_alignment": ("不对齐", "not aligned", "^:", 2),
}


@figure
def pose_curves(canvas: Canvas, stages: dict[str, Any], samples: dict[str, Any]) -> Figure:
    colors = canvas.colors
    fig, panels = canvas.subplots(2, 2, size=(7.2, 5.6), height_ratios=[0.8, 1.3])
    strip = panels[0, 0].get_gridspec()
    for axes in panels[0]:
        axes.remove()
    top = fig.add_subplot(strip[0, :])
    for row, (key, label) in enumerate(
        (
            ("drawn", canvas.say(zh="真的转头", en="drawn so")),
            ("turned", canvas.say(zh="由正脸转出", en="from the frontal")),
        )
    ):
        top.text(-0.1, 1.05 * row + 0.5, label, ha="right", va="center")
        for column, image in enumerate(samples[key]):
            _picture(top, image, 1.05 * column, 1.05 * row, 1)
    for column, yaw in enumerate(samples["turned_yaws"]):
        top.text(1.05 * column + 0.5, -0.1, f"{yaw:+.0f}°" if yaw else "0°", ha="center", va="bottom")
    top.set(xlim=(-1.6, 5.3), ylim=(2.1, -0.45), aspect="equal")
    bare(top)
    yaws = [row["yaw"] for row in stages["pose_rows"]]
    for name, (zh, en, style, number) in _VARIANTS.items():
        color = colors.accents[number]
        panels[1, 0].plot(yaws, [row[f"{name}_cosine"] for row in stages["pose_rows"]], style, color=color)
        panels[1, 0].axhline(
            stages[f"pose_{name}_threshold"], color=color, linewidth=0.9, linestyle=style[1:], alpha=0.7
        )
        panels[1, 1].plot(
            yaws,
            [row[f"{name}_tar"] for row in stages["pose_rows"]],
            style,
            color=color,
            label=canvas.say(zh=zh, en=en),
        )
    panels[1, 0].set_title(
        canvas.say(zh="与正脸照的余弦（细线：阈值）", en="cosine with frontal (thin: threshold)")
    )
    panels[1, 1].set_title(canvas.say(zh="通过率，FAR 1%", en="TAR at FAR 1%"))
    for axes in panels[1]:
        axes.set(ylim=(0, 1.03), xticks=yaws)
        axes.set_xlabel(canvas.say(zh="转头角度（度）", en="yaw (degrees)"))
    fig.legend(loc="outside lower center", ncols=3)
    return fig


@figure
def stage_dots(canvas: Canvas, stages: dict[str, Any]) -> Figure:
    colors = canvas.colors
    names = {
        "true_landmarks": ("真关键点", "true landmarks"),
        "flip": ("加镜像", "mirror image added"),
        "full": ("完整流程", "full pipeline"),
        "no_augmentation": ("训练不增强", "no augmentation"),
        "no_alignment": ("全程不对齐", "never aligned"),
        "skipped_alignment": ("只在测试时不对齐", "aligned in training only"),
    }
    fig, axes = canvas.subplots(size=(7.2, 3.3))
    for place, name in enumerate(names):
        values = [row["tar"] for row in stages["seed_rows"] if row["variant"] == name]
        color = colors.accents[0] if name == "full" else colors.accents[1]
        axes.scatter(values, [place] * len(values), s=30, color=color, alpha=0.75, linewidths=0, zorder=3)
        mean = stages[f"{name}_tar"]
        axes.plot([mean, mean], [place - 0.28, place + 0.28], color=colors.ink, linewidth=2.2, zorder=4)
        if place:
            axes.axhline(place - 0.5, color=colors.faint, linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(names)), [canvas.say(zh=zh, en=en) for zh, en in names.values()])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(
        canvas.say(
            zh="FAR 1% 时的通过率（每点一个种子，竖线是均值）",
            en="TAR at FAR 1% (a dot per seed, the bar is the mean)",
        )
    )
    return fig


@figure
def end_to_end(canvas: Canvas, stages: dict[str, Any]) -> Figure:
    from matplotlib.patches import Rectangle

    fig, panels = canvas.subplots(1, 3, size=(7.2, 3.1))
    outcomes = {
        "right": ("#3ddc84", canvas.say(zh="认对", en="right name")),
        "stopped": ("#4cc9ff", canvas.say(zh="拦下生人", en="stranger, stopped")),
        "rejected": ("#ffd60a", canvas.say(zh="没认出", en="known, not accepted")),
        "confused": ("#ff3b30", canvas.say(zh="认错或误放", en="wrong name")),
    }
    same = {"accepted": "confused", "false": "confused"}
    for axes, picture, marks in zip(panels, stages["shown_scenes"], stages["shown_faces"], strict=True):
        side = picture.shape[-1]
        axes.imshow(picture.transpose(1, 2, 0), interpolation="nearest")
        for mark in marks:
            x0, y0, x1, y1 = mark["box"]
            color = outcomes[same.get(mark["outcome"], mark["outcome"])][0]
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color=color, linewidth=1.8))
            axes.plot(*np.array(mark["landmarks"]).T, ".", color=color, markersize=3)
            name = "?" if mark["name"] < 0 else f"#{mark['name']}"
            axes.text(
                min(max(x0, 1), side - 26),
                min(max(y0 - 1.5, 7), side - 4),
                f"{name} {mark['cosine']:.2f}",
                fontsize=7.5,
                color="#ffffff",
                va="bottom",
                bbox={"facecolor": "#000000", "alpha": 0.65, "pad": 1, "edgecolor": "none"},
            )
        axes.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
        bare(axes)
    handles = [
        Rectangle((0, 0), 1, 1, fill=False, color=color, linewidth=1.8) for color, _ in outcomes.values()
    ]
    fig.legend(handles, [label for _, label in outcomes.values()], loc="outside lower center", ncols=4)
    return fig
