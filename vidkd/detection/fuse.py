"""Choosing the weights of a fusion on validation videos (``vidkd fuse``)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vidkd.annotations import Annotations, snippet_targets
from vidkd.detection.fusion import Fusion, load_models, mean_logits, probabilities
from vidkd.detection.predict import student_scores
from vidkd.detection.scorers import encoder_file
from vidkd.errors import UsageError
from vidkd.evaluation import DenseScores
from vidkd.evaluation.frames import frame_aps, frame_grid
from vidkd.evaluation.result import ground_truth_hash
from vidkd.evaluation.thresholds import best_thresholds
from vidkd.networks import select_device
from vidkd.networks.fusion_weights import FusionHeader, is_fusion, save_fusion

Kind = Literal["equal", "per model", "per class"]
KINDS: tuple[Kind, ...] = ("equal", "per model", "per class")
FOLDS = 5
_GAIN = 0.03
"""A kind with more to choose is taken when its held-out frame mAP is higher by this much: on real
people 1.4 points more on the videos of two people cost 4 on those of two others."""


@dataclass(frozen=True)
class FuseResult:
    """What was chosen.

    Attributes:
        output: the file.
        students: the runs.
        classes: of the columns of the weights.
        kind: whether all students count alike, or have one weight each, or one for each class.
        weights: (students, classes).
        held_out: frame mAP on held-out validation videos, by kind; NaN with a single video.
        alone: frame mAP of every student alone on all validation videos.
        frame_map: of the fusion on all validation videos, those its weights were chosen on.
    """

    output: Path
    students: tuple[str, ...]
    classes: tuple[str, ...]
    kind: Kind
    weights: np.ndarray
    held_out: dict[Kind, float]
    alone: list[float]
    frame_map: float

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**vars(self), "output": str(self.output), "weights": self.weights.tolist()}


def fuse_runs(
    runs: Sequence[Path],
    cache: Path,
    annotations: Annotations,
    output: Path,
    *,
    subset: str = "validation",
    step: float = 0.1,
    kind: Kind | None = None,
    device: str = "auto",
    skip_missing: bool = False,
) -> FuseResult:
    """Choose the weights of several students and write all of them into one file.

    Weights are those of the highest frame mAP among all multiples of ``step`` that sum to 1. Each
    kind of weights is judged on validation videos that it was not chosen on; the simplest one
    stays unless another is better by three points.

    Args:
        runs: run folders or weights files, at least two.
        cache: with the features of all of them.
        annotations: the ground truth, all subsets.
        output: the file to write.
        subset: the videos to choose on; never those of the test.
        step: of the grid.
        kind: of the weights; None takes the best.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.
        skip_missing: leave out videos that lack features instead of raising.

    Raises:
        UsageError: fewer than two runs, or one that is fused already.
        WeightsError: a run cannot be read.
        CacheError: features are missing or damaged.
    """
    if len(runs) < 2:
        raise UsageError("there is nothing to fuse", remedy="name at least two runs")
    if output.suffix != ".safetensors":
        raise UsageError(
            "--output needs a file that ends in .safetensors",
            path=output,
            remedy="change the ending",
        )
    if fused := next((run for run in runs if is_fusion(run)), None):
        raise UsageError(
            "holds several students already", path=fused, remedy="name the runs that it was made of"
        )
    truth = annotations.subset(subset).actions()
    place = select_device(device)
    fusion = load_models(runs, place)
    logits: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for video, own in student_scores(fusion, cache, truth.videos, place, skip_missing):
        logits[video] = fusion.aligned(own)
    truth = replace(truth, videos={video: truth.videos[video] for video in logits})
    search = _Search(logits, truth, fusion, _simplex(len(runs), step))
    names = sorted(logits)
    folds = _folds(truth)
    held_out = {name: search.held_out(name, folds) for name in KINDS}
    chosen = kind or "equal"
    for other in KINDS[1:] if kind is None else ():
        if held_out[other] >= held_out[chosen] + _GAIN:
            chosen = other
    weights = search.best(chosen, names)
    result = FuseResult(
        output,
        tuple(str(run) for run in runs),
        fusion.classes,
        chosen,
        weights,
        held_out,
        [search.frame_map(_alone(number, fusion.weights)) for number in range(len(runs))],
        search.frame_map(weights),
    )
    thresholds = best_thresholds(
        np.concatenate([probabilities(mean_logits(logits[name][0], weights)) for name in names]),
        np.concatenate([search.targets(name) for name in names]),
    )
    header = FusionHeader(
        classes=fusion.classes,
        students=result.students,
        weights=tuple(map(tuple, weights.tolist())),
        thresholds=tuple(thresholds),
        segments=fusion.segments,
        chosen_on={
            "subset": subset,
            "videos": names,
            "ground_truth_sha256": ground_truth_hash(truth),
            "step": step,
            "kind": chosen,
            "held_out_frame_map": {k: None if np.isnan(v) else v for k, v in held_out.items()},
            "frame_map_alone": result.alone,
            "frame_map": result.frame_map,
        },
    )
    held = ((number, encoder_file(student)) for number, student in enumerate(fusion.students))
    save_fusion(output, header, list(runs), {number: path for number, path in held if path})
    return result


@dataclass(frozen=True)
class _Search:
    """Frame mAP of all weights of a grid.

    Attributes:
        logits: (students, T, K) and times (T, 2), by video.
        truth: of these videos.
        fusion: the students, with the weights of all alike.
        grid: (N, students).
    """

    logits: dict[str, tuple[np.ndarray, np.ndarray]]
    truth: Annotations
    fusion: Fusion
    grid: np.ndarray

    def best(self, kind: Kind, videos: Sequence[str]) -> np.ndarray:
        """Return the weights (students, K) of a kind that are best on some videos."""
        if kind == "equal":
            return self.fusion.weights
        choices = [_shared(row, self.fusion.weights) for row in self.grid]
        # Ties go to the weights that are closest to equal ones, which come first.
        found = np.array([list(self._per_class(row, videos).values()) for row in choices])
        present = ~np.isnan(found[0])
        overall = int(np.argmax(found[:, present].mean(axis=1))) if present.any() else 0
        if kind == "per model":
            return choices[overall]
        # A class that these videos do not have takes the weights that are best for all.
        own = np.where(present, np.argmax(np.nan_to_num(found), axis=0), overall)
        columns = [choices[number][:, k] for k, number in enumerate(own)]
        return np.stack(columns, axis=1)

    def held_out(self, kind: Kind, folds: Sequence[Sequence[str]]) -> float:
        """Return the frame mAP of weights on the videos of every fold, chosen on the others."""
        if len(folds) < 2:
            return float("nan")
        by_video: dict[str, np.ndarray] = {}
        for fold in folds:
            others = [name for name in self.logits if name not in fold]
            by_video |= dict.fromkeys(fold, self.best(kind, others))
        return self._map(self._per_class_of(by_video))

    def frame_map(self, weights: np.ndarray) -> float:
        """Return the frame mAP on all videos; NaN where no class is present."""
        return self._map(self._per_class(weights, list(self.logits)))

    def targets(self, video: str) -> np.ndarray:
        """Return the labels (T, K) of a video's snippets."""
        known = self.fusion.classes
        item = self.truth.videos[video]
        own = replace(item, segments=tuple(s for s in item.segments if s.label in known))
        return snippet_targets(own, known, self.logits[video][1]) > 0

    def _per_class(self, weights: np.ndarray, videos: Sequence[str]) -> dict[str, float]:
        return self._per_class_of(dict.fromkeys(videos, weights))

    def _per_class_of(self, weights: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return the frame AP of every class that the students know, with weights by video."""
        rows = {
            name: (mean_logits(self.logits[name][0], own), self.logits[name][1])
            for name, own in weights.items()
        }
        truth = replace(self.truth, videos={name: self.truth.videos[name] for name in rows})
        scores = DenseScores(self.fusion.classes, rows)
        return frame_aps(truth, scores, frame_grid(truth, scores, None), self.fusion.classes)

    @staticmethod
    def _map(per_class: Mapping[str, float]) -> float:
        values = [value for value in per_class.values() if not np.isnan(value)]
        return float(np.mean(values)) if values else float("nan")


def _folds(truth: Annotations) -> list[list[str]]:
    """Share the videos out to folds, those of one subject to the same one where it is known."""
    subjects: dict[str, list[str]] = {}
    for name, video in sorted(truth.videos.items()):
        subjects.setdefault(video.attributes.get("subject", name), []).append(name)
    groups = list(subjects.values())
    if len(groups) < 2:  # one subject alone: its videos
        groups = [[name] for name in sorted(truth.videos)]
    parts = [groups[start::FOLDS] for start in range(min(FOLDS, len(groups)))]
    return [[name for group in part for name in group] for part in parts]


def _simplex(students: int, step: float) -> np.ndarray:
    """Return all weights (N, students) that are multiples of a step and sum to 1.

    The most equal ones come first.
    """
    parts = round(1 / step)
    cuts = itertools.combinations(range(parts + students - 1), students - 1)
    rows = [np.diff([-1, *cut, parts + students - 1]) - 1 for cut in cuts]
    grid = np.array(rows) / parts
    return grid[np.argsort((grid**2).sum(axis=1), kind="stable")]


def _shared(weights: np.ndarray, equal: np.ndarray) -> np.ndarray:
    """Spread weights (students,) over the classes (students, K) that each student knows."""
    known = equal > 0
    spread = weights[:, None] * known
    total = spread.sum(axis=0)
    # All that know a class may have the weight 0.
    return np.where(total > 0, spread / np.where(total > 0, total, 1), equal)


def _alone(number: int, equal: np.ndarray) -> np.ndarray:
    return _shared(np.eye(len(equal))[number], equal)
