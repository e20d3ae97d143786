"""The timeline picture: what happens when, with the scores it rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from vidkd.annotations import Segment
from vidkd.evaluation import Detection
from vidkd.files import atomic_path
from vidkd.report.segments import PALETTE, choose_labels, clock, colour_of

INK = "#1f2937"
FAINT = "#9ca3af"
TRUTH = "#6b7280"
PAPER = "#ffffff"
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""Seconds between the marks of the time axis; step up until at most twelve fit."""


@dataclass(frozen=True)
class Timeline:
    """Everything a timeline shows; times are seconds since the first frame."""

    title: str
    duration: float
    classes: Sequence[str]
    segments: Sequence[Detection]
    scores: np.ndarray | None = None
    """(T, K) in [0, 1], or None when only segments are known."""
    pts: np.ndarray | None = None
    """(T, 2) seconds of every snippet."""
    truth: Sequence[Segment] | None = None
    threshold: float | None = None
    score_name: str = "score"
    frames: Sequence[np.ndarray] = ()
    """Pictures at the middles of equal parts of the video, drawn as a film strip."""


def draw_timeline(path: str | Path, timeline: Timeline, *, limit: int = 12) -> None:
    """Draw a timeline into a picture file (PNG, PDF or SVG by its ending), atomically.

    Every class has a row: its score as a filled curve with the threshold as a dotted line, its
    detected segments as bars below, and, where annotations are given, the annotated ones in grey
    under those.

    Args:
        path: the picture to write.
        timeline: what to show.
        limit: the largest number of classes; a note says how many are left out.

    Raises:
        VidkdError: the picture cannot be written.
    """
    truth = timeline.truth or ()
    labels = choose_labels(
        timeline.classes, timeline.scores, timeline.segments, truth, limit, minimum=3
    )
    save(_figure(timeline, labels), path)


def save(figure: Figure, path: str | Path) -> None:
    """Write a picture, of the kind that its ending says, atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, facecolor=PAPER)


def plain(axes: Axes, title: str | None = None) -> None:
    """Give axes a title on the left, faint lines behind, and no frame above and on the right."""
    if title is not None:
        axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.tick_params(labelsize=8, colors=INK)
    axes.grid(color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _figure(timeline: Timeline, labels: Sequence[str]) -> Figure:
    strip = 0.95 if timeline.frames else 0.0
    row = 0.2 + (0.24 if timeline.truth is not None else 0.0)
    row += 0.46 if timeline.scores is not None else 0.2
    top, bottom = 0.72, 0.78
    height = top + strip + row * max(len(labels), 1) + bottom
    width = 11.0
    longest = max((len(label) for label in labels), default=0)
    left = min(0.3, max(0.1, (0.35 + 0.085 * longest) / width))
    right = 0.975  # half of the last label of the axis stands out
    figure = Figure(figsize=(width, height))
    figure.text(
        left, 1 - 0.28 / height, timeline.title, fontsize=13, fontweight="bold", color=INK,
        va="center",
    )  # fmt: skip
    _legend(figure, timeline, right, 1 - 0.28 / height)
    if timeline.frames:
        box = (left, 1 - (top - 0.12 + strip - 0.1) / height, right - left, (strip - 0.1) / height)
        _film_strip(figure.add_axes(box), timeline.frames, (right - left) * width / (strip - 0.1))
    box = (left, bottom / height, right - left, row * max(len(labels), 1) / height)
    axes = figure.add_axes(box)
    _style(axes, timeline)
    colours = colour_of(labels)
    for number, label in enumerate(labels):
        _draw_row(axes, timeline, label, colours[label], float(len(labels) - 1 - number), row)
    axes.set_ylim(0, max(len(labels), 1))
    axes.set_yticks([len(labels) - 1 - n + 0.5 for n in range(len(labels))], labels)
    if not labels:
        axes.text(0.5, 0.5, "no action", transform=axes.transAxes, ha="center", color=FAINT)
    everything = {item.label for item in timeline.segments}
    everything |= {item.label for item in timeline.truth or ()}
    hidden = len(everything - set(labels))
    if hidden:
        noun = "class" if hidden == 1 else "classes"
        figure.text(
            right, 0.14 / height, f"{hidden} more {noun} with segments not shown", fontsize=8,
            color=FAINT, ha="right",
        )  # fmt: skip
    return figure


def _style(axes: Axes, timeline: Timeline) -> None:
    # Even a video of one frame has an axis.
    span = max(timeline.duration, 1e-3)
    axes.set_xlim(0, span)
    hours = 3600.0 * math.ceil(span / (12 * 3600))
    step = next((item for item in _STEPS if span <= 12 * item), hours)
    ticks = np.arange(0, span * (1 + 1e-9), step)
    axes.set_xticks(ticks, [_axis_clock(value, step) for value in ticks])
    axes.set_xlabel("time", color=INK, fontsize=9)
    axes.tick_params(axis="x", colors=INK, labelsize=9, length=3)
    axes.tick_params(axis="y", colors=INK, labelsize=10, length=0, pad=8)
    axes.grid(axis="x", color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(FAINT)


def _axis_clock(seconds: float, step: float) -> str:
    text = clock(seconds)
    return text if step < 1 else text[:-2]


def _draw_row(
    axes: Axes, timeline: Timeline, label: str, colour: str, base: float, height: float
) -> None:
    """Draw one class into base .. base + 1; ``height`` is that in inches."""
    bar, gap = 0.135 / height, 0.045 / height
    axes.axhspan(base + gap / 2, base + 1 - gap / 2, color="#f6f8fb", zorder=0)
    at = base + 1.6 * gap
    for truth in timeline.truth or ():
        if truth.label == label:
            _bar(axes, truth.start, truth.end, at, bar, TRUTH)
    if timeline.truth is not None:
        at += bar + gap
    for item in timeline.segments:
        if item.label == label:
            _bar(axes, item.start, item.end, at, bar, colour)
            if item.end - item.start > 0.035 * timeline.duration:
                axes.text(
                    (item.start + item.end) / 2, at + bar * 0.46, f"{item.score:.2f}",
                    fontsize=6.5, color="white", fontweight="bold", ha="center", va="center",
                    zorder=6, clip_on=True,
                )  # fmt: skip
    at += bar + 1.4 * gap
    if timeline.scores is not None and timeline.pts is not None and label in timeline.classes:
        scores = timeline.scores[:, list(timeline.classes).index(label)]
        _curve(axes, timeline, scores, colour, at, base + 1 - 1.6 * gap - at)


def _curve(
    axes: Axes, timeline: Timeline, scores: np.ndarray, colour: str, base: float, height: float
) -> None:
    """Draw one class's scores (T,), 0 at ``base`` and 1 at ``base + height``."""
    if timeline.pts is None or len(scores) == 0:
        return
    # Snippets reach to the ends of the video, while their centres do not.
    times = np.concatenate([timeline.pts[:1, 0], timeline.pts.mean(axis=1), timeline.pts[-1:, 1]])
    values = base + height * np.concatenate([scores[:1], scores, scores[-1:]])
    axes.fill_between(times, base, values, color=colour, alpha=0.18, linewidth=0, zorder=2)
    axes.plot(times, values, color=colour, linewidth=1.3, zorder=3, solid_joinstyle="round")
    axes.plot(axes.get_xlim(), (base, base), color="#d1d5db", linewidth=0.6, zorder=1)
    if timeline.threshold is not None:
        level = base + height * timeline.threshold
        axes.plot(
            axes.get_xlim(), (level, level), color=FAINT, linewidth=0.8,
            linestyle=(0, (1, 2.5)), zorder=1,
        )  # fmt: skip


def _bar(axes: Axes, start: float, end: float, base: float, height: float, colour: str) -> None:
    low, high = axes.get_xlim()
    start, end = max(start, low), min(end, high)
    if end <= start:
        return
    # A sliver of the page's width keeps adjoining segments apart and short ones visible.
    gap = 0.0008 * (high - low)
    axes.barh(
        base, max(end - start - gap, gap), height, left=start + gap / 2, align="edge",
        color=colour, linewidth=0, zorder=5,
    )  # fmt: skip


def _legend(figure: Figure, timeline: Timeline, right: float, y: float) -> None:
    parts: list[tuple[str, str | None]] = []
    if timeline.scores is not None:
        dotted = (
            "" if timeline.threshold is None else f" (dotted: threshold {timeline.threshold:g})"
        )
        parts.append((f"curve: {timeline.score_name}{dotted}", None))
    parts.append(("detected", PALETTE[0]))
    if timeline.truth is not None:
        parts.append(("annotated", TRUTH))
    x = right
    for name, colour in reversed(parts):
        figure.text(x, y, name, fontsize=8.5, color=INK, ha="right", va="center")
        x -= (0.068 * len(name) + 0.12) / figure.get_figwidth()
        if colour is not None:
            width, height = 0.16 / figure.get_figwidth(), 0.11 / figure.get_figheight()
            figure.add_artist(
                FancyBboxPatch(
                    (x - width, y - height / 2), width, height, boxstyle="square,pad=0",
                    transform=figure.transFigure, color=colour, linewidth=0,
                )
            )  # fmt: skip
            x -= width + 0.2 / figure.get_figwidth()


def _film_strip(axes: Axes, frames: Sequence[np.ndarray], aspect: float) -> None:
    """Fill the axes, ``aspect`` times as wide as high, with pictures side by side."""
    axes.set_xlim(0, aspect)
    axes.set_ylim(0, 1)
    axes.axis("off")
    share = aspect / len(frames)
    for number, frame in enumerate(frames):
        height, width = frame.shape[:2]
        # Cut to the cell's shape, from the middle.
        wanted = share * 0.97
        if width / height > wanted:
            keep = max(1, round(height * wanted))
            frame = frame[:, (width - keep) // 2 : (width - keep) // 2 + keep]
        else:
            keep = max(1, round(width / wanted))
            frame = frame[(height - keep) // 2 : (height - keep) // 2 + keep]
        left = number * share + share * 0.015
        axes.imshow(frame, extent=(left, left + wanted, 0, 1), aspect="auto", zorder=2)
