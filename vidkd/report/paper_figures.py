"""The figures of a benchmark, after Figures 3 to 6 of Dai et al. 2021."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vidkd.annotations import Segment
from vidkd.report.segments import PALETTE
from vidkd.report.timeline import FAINT, INK, TRUTH, plain, save

# What gained and what lost, distinguishable without colour by the side they lie on.
_GAIN, _LOSS = PALETTE[2], PALETTE[5]
_MOST_CLASSES = 40


@dataclass(frozen=True)
class Covariance:
    """One panel of Figure 4: what made it, its (C, C) matrix, and a line below the title."""

    title: str
    matrix: np.ndarray
    note: str = ""


def draw_covariances(path: str | Path, panels: Sequence[Covariance], caption: str) -> None:
    """Draw channel covariance matrices side by side on one colour scale (Figure 4).

    Args:
        path: the picture.
        panels: matrices of one size, their channels in one order.
        caption: what they were computed on, and the order of the channels.
    """
    entries = np.concatenate([np.abs(panel.matrix).ravel() for panel in panels])
    limit = float(np.quantile(entries, 0.98)) or 1.0
    figure = Figure(figsize=(4.0 * len(panels) + 0.9, 5.0), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(grid, panels, strict=True):
        image = axes.imshow(
            panel.matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
        )
        axes.set_title(f"{panel.title}\n{panel.note}", fontsize=10, color=INK)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel("channel", fontsize=9, color=INK)
    grid[0].set_ylabel("channel", fontsize=9, color=INK)
    bar = figure.colorbar(image, ax=list(grid), shrink=0.75, extend="both")
    bar.set_label("covariance over the snippets", fontsize=9, color=INK)
    _caption(figure, caption)
    save(figure, path)


@dataclass(frozen=True)
class Variation:
    """One panel of Figure 5: the variation (T-1,) of a feature map at every step, and a note."""

    title: str
    values: np.ndarray
    note: str = ""


def draw_boundaries(
    path: str | Path,
    curves: Sequence[Variation],
    times: np.ndarray,
    truth: Sequence[Segment],
    caption: str,
) -> None:
    """Draw the variation of feature maps along one video with its annotated boundaries (Figure 5).

    Args:
        path: the picture.
        curves: one for each model.
        times: (T-1,) seconds of the steps.
        truth: the segments of the video.
        caption: what the curves are.
    """
    figure = Figure(figsize=(11, 1.6 * len(curves) + 1.6), layout="constrained")
    grid = figure.subplots(len(curves) + 1, 1, sharex=True, squeeze=False, height_ratios=[
        *([1.0] * len(curves)), 0.12 + 0.11 * len({item.label for item in truth})
    ])[:, 0]  # fmt: skip
    low, high = (float(times[0]), float(times[-1])) if len(times) else (0.0, 1.0)
    borders = sorted({edge for item in truth for edge in (item.start, item.end)})
    top = 1.05 * max(float(curve.values.max(initial=0.0)) for curve in curves) or 1.0
    for number, (axes, curve) in enumerate(zip(grid, curves, strict=False)):
        for border in borders:
            if low <= border <= high:
                axes.axvline(border, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
        colour = PALETTE[number % len(PALETTE)]
        axes.fill_between(times, 0, curve.values, color=colour, alpha=0.18, linewidth=0)
        axes.plot(times, curve.values, color=colour, linewidth=1.5)
        axes.set_ylim(0, top)
        plain(axes, f"{curve.title}: {curve.note}")
    _truth(grid[-1], truth)
    grid[-1].set_xlim(low, high)
    grid[-1].set_xlabel("time in seconds", fontsize=9, color=INK)
    _caption(figure, caption)
    save(figure, path)


def _truth(axes: Axes, truth: Sequence[Segment]) -> None:
    labels = list(dict.fromkeys(item.label for item in sorted(truth, key=lambda s: s.start)))
    for item in truth:
        row = len(labels) - 1 - labels.index(item.label)
        axes.barh(row, item.end - item.start, 0.7, left=item.start, color=TRUTH, linewidth=0)
    axes.set_yticks(range(len(labels)), labels[::-1], fontsize=7)
    axes.set_ylim(-0.6, max(len(labels), 1) - 0.4)
    axes.tick_params(labelsize=8, colors=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)


def draw_class_gains(
    path: str | Path, gains: Mapping[str, Sequence[float]], title: str, caption: str
) -> None:
    """Draw by how much the AP of every class differs between two models (Figure 6).

    Args:
        path: the picture.
        gains: for each class one difference per seed, in points; those with most change are
            drawn when there are more than 40.
        title: which two models.
        caption: on what.
    """
    means = {label: statistics.fmean(values) for label, values in gains.items() if values}
    chosen = sorted(means, key=lambda label: -abs(means[label]))[:_MOST_CLASSES]
    chosen.sort(key=lambda label: means[label])
    figure = Figure(figsize=(9, 1.4 + 0.3 * max(len(chosen), 3)), layout="constrained")
    axes = figure.subplots()
    for number, label in enumerate(chosen):
        values = list(gains[label])
        axes.barh(
            number, means[label], 0.68, color=_GAIN if means[label] >= 0 else _LOSS, alpha=0.75,
            linewidth=0,
        )  # fmt: skip
        if len(values) > 1:
            spread = statistics.stdev(values)
            axes.errorbar(
                means[label], number, xerr=spread, color=INK, linewidth=1.0, capsize=2.5, zorder=4
            )
            axes.plot(values, [number] * len(values), ".", color=INK, markersize=4, zorder=5)
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_yticks(range(len(chosen)), chosen, fontsize=9)
    axes.set_ylim(-0.6, max(len(chosen), 1) - 0.4)
    axes.set_xlabel("difference in AP, points", fontsize=9, color=INK)
    plain(axes, title)
    left = len(means) - len(chosen)
    more = f" {left} classes with less change are not drawn." if left else ""
    _caption(figure, caption + more)
    save(figure, path)


@dataclass(frozen=True)
class SpeedPoint:
    """One model of Figure 3.

    Attributes:
        name: of the model.
        milliseconds: to compute its scores, for each second of video.
        values: accuracy in per cent, one for each seed.
    """

    name: str
    milliseconds: float
    values: Sequence[float]


def draw_speed(path: str | Path, points: Sequence[SpeedPoint], metric: str, caption: str) -> None:
    """Draw accuracy against measured inference time (Figure 3)."""
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.subplots()
    means = [statistics.fmean(point.values) for point in points]
    for number, (point, mean) in enumerate(zip(points, means, strict=True)):
        spread = statistics.stdev(point.values) if len(point.values) > 1 else 0.0
        axes.errorbar(
            point.milliseconds, mean, yerr=spread or None, fmt="o", color=_colour(number),
            markersize=8, capsize=3, linewidth=1.2,
        )  # fmt: skip
    largest = max((point.milliseconds for point in points), default=1.0)
    axes.set_xlim(0, 1.35 * largest)
    axes.margins(y=0.2)
    low, high = axes.get_ylim()
    lowered = _lowered(points, means, (high - low) / 20, largest / 2)
    for number, (point, mean) in enumerate(zip(points, means, strict=True)):
        axes.annotate(
            f"{point.name} ({point.milliseconds:.0f} ms)",
            (point.milliseconds, mean - lowered[number]),
            xytext=(9, 5), textcoords="offset points", fontsize=9, color=_colour(number),
        )  # fmt: skip
    axes.set_xlabel("inference time, ms for each second of video", fontsize=9, color=INK)
    axes.set_ylabel(f"{metric}, per cent", fontsize=9, color=INK)
    plain(axes)
    _caption(figure, caption)
    save(figure, path)


def _colour(number: int) -> str:
    return PALETTE[number % len(PALETTE)]


def _lowered(
    points: Sequence[SpeedPoint], means: Sequence[float], height: float, width: float
) -> list[float]:
    """Return by how much to lower each label so that none lies on another.

    Args:
        points: models; vanilla RGB and the student take the same time, and are often as good.
        means: their accuracy.
        height: of a label, in units of accuracy.
        width: of a label, in milliseconds.
    """
    places: dict[int, float] = {}
    for number in sorted(range(len(points)), key=lambda number: -means[number]):
        own = points[number].milliseconds
        near = (y for k, y in places.items() if abs(points[k].milliseconds - own) < width)
        places[number] = min(means[number], min(near, default=math.inf) - height)
    return [mean - places[number] for number, mean in enumerate(means)]


def _caption(figure: Figure, text: str) -> None:
    figure.supxlabel(textwrap.fill(text, int(figure.get_figwidth() * 15)), fontsize=8, color=TRUTH)
