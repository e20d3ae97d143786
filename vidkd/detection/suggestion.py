"""Which videos to label next, and which parts of them: where a model is unsure, and not all alike.

Uncertainty is the entropy of the scores that detection shows, whose 0.5 is where its decision
changes: in bits, the mean over classes and snippets. Diversity is that of k-centres (Sener and
Savarese 2018, "Active Learning for Convolutional Neural Networks: A Core-Set Approach") on the
mean features of videos: the distance to the nearest video that is labelled or already chosen. Each
choice is the video with the greatest product of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidkd.detection.detector import DetectionResult
from vidkd.detection.segments import cell_borders

LEAST_DEVIATION = 1e-6


@dataclass(frozen=True)
class Part:
    """A part of a video.

    Attributes:
        start: seconds.
        end: seconds.
        uncertainty: mean entropy in bits, 0 to 1.
    """

    start: float
    end: float
    uncertainty: float


@dataclass(frozen=True)
class Choice:
    """One video to label.

    Attributes:
        number: its place among the videos that were given.
        uncertainty: mean entropy in bits, 0 to 1.
        distance: to the nearest labelled or chosen video, in units of the mean distance between
            two videos; infinity for the first one if none is labelled.
    """

    number: int
    uncertainty: float
    distance: float


def entropy(scores: np.ndarray) -> np.ndarray:
    """Return (T,) bits: the mean over classes of the entropy of scores (T, K) in [0, 1]."""
    p = np.clip(np.asarray(scores, dtype=np.float64), 1e-12, 1 - 1e-12)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p)).mean(axis=1)


def uncertain_parts(result: DetectionResult, seconds: float, count: int) -> list[Part]:
    """Return the parts of a video that a model is least sure of, the worst first.

    Args:
        result: of the video.
        seconds: length of a part; the video is cut into parts of this length from its start, and
            a rest of less than half of it belongs to the part before.
        count: how many at most.
    """
    borders = cell_borders(result.pts)
    bits, length = entropy(result.scores), np.diff(borders)
    start, end = float(borders[0]), float(borders[-1])
    number = max(1, int((end - start) / seconds + 0.5))
    cuts = [*(start + seconds * np.arange(number)), end]
    place = np.minimum(((borders[:-1] + length / 2 - start) / seconds).astype(int), number - 1)
    weight = np.bincount(place, length, minlength=number)
    total = np.bincount(place, bits * length, minlength=number)
    # Where snippets are longer than parts some have none.
    mean = np.divide(total, weight, out=np.zeros(number), where=weight > 0)
    order = np.argsort(-mean, kind="stable")[:count]
    return [Part(float(cuts[n]), float(cuts[n + 1]), float(mean[n])) for n in order]


def uncertainty(result: DetectionResult) -> float:
    """Return the mean entropy of a video's snippets in bits, 0 to 1."""
    return float(np.average(entropy(result.scores), weights=np.diff(cell_borders(result.pts))))


def choose(
    uncertain: Sequence[float], means: np.ndarray, labelled: np.ndarray, count: int
) -> list[Choice]:
    """Choose videos one after the other; see the top of this file.

    Args:
        uncertain: (N,) the uncertainty of each video.
        means: (N, D) mean features.
        labelled: (M, D) mean features of the videos that have labels; M may be 0.
        count: how many to choose at most.
    """
    everything = np.concatenate([means, labelled]).astype(np.float64)
    deviation = everything.std(axis=0)
    scaled = (everything - everything.mean(axis=0)) / np.maximum(deviation, LEAST_DEVIATION)
    apart = np.linalg.norm(scaled[:, None] - scaled[None], axis=2)
    pairs = len(apart) * (len(apart) - 1)
    usual = apart.sum() / pairs if pairs and apart.any() else 1.0
    own, known = apart[: len(means), : len(means)], apart[: len(means), len(means) :]
    distance = known.min(axis=1, initial=np.inf) / usual
    unsure = np.asarray(uncertain, dtype=np.float64)
    left = np.ones(len(means), dtype=bool)
    chosen = []
    for _ in range(min(count, len(means))):
        # Without anything to be far from, all are as far.
        gain = unsure * np.where(np.isfinite(distance), distance, 1.0)
        best = int(np.where(left, gain, -1.0).argmax())
        chosen.append(Choice(best, float(unsure[best]), float(distance[best])))
        left[best] = False
        distance = np.minimum(distance, own[:, best] / usual)
    return chosen
