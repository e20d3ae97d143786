"""Late fusion: the logits of several students on one time axis, averaged with weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from vidkd.detection.student import pooled, run_student
from vidkd.errors import UsageError
from vidkd.evaluation import upsample_scores
from vidkd.evaluation.predictions import Candidates
from vidkd.networks.filter_weights import load_temporal_filter
from vidkd.networks.fusion_weights import FusedStudent, is_fusion, load_fusion
from vidkd.recipe import SegmentSettings

# Streams cut from the same frames carry the same times, to the rounding of a float.
SAME_TIME = 1e-6


class StudentScores(NamedTuple):
    """What one student says of a video of T snippets."""

    logits: np.ndarray
    """(T, K) float32 of its classes."""
    pts: np.ndarray
    """(T, 2) start and end seconds."""
    candidates: Candidates | None
    """Of its segment head."""


@dataclass(frozen=True)
class Fusion:
    """Students and how their logits become one score for each class.

    Attributes:
        name: of the file, or of the runs.
        students: one or more.
        classes: those of all students, in the order of the first and then of the others.
        weights: (students, classes) float64; the sum for each class is 1, and a student that does
            not know a class has 0 there.
        thresholds: (classes,) probabilities where each class separates best (F1) on validation;
            None where they are not known.
        segments: how scores become segments.
    """

    name: str
    students: list[FusedStudent]
    classes: tuple[str, ...]
    weights: np.ndarray
    thresholds: np.ndarray | None
    segments: SegmentSettings

    @property
    def calibrated(self) -> bool:
        """Whether scores are probabilities, by the calibration of the students."""
        return all(student.header.calibration is not None for student in self.students)

    @property
    def single(self) -> bool:
        """Whether there is one student alone."""
        return len(self.students) == 1

    def run(
        self, number: int, rows: np.ndarray, pts: np.ndarray, device: torch.device
    ) -> StudentScores:
        """Return what a student says of features (T, D) at times (T, 2)."""
        student = self.students[number]
        features = torch.from_numpy(rows).to(device)[None]
        mask = torch.ones(features.shape[:2], dtype=torch.bool, device=device)
        (output,) = run_student(student.module, features, mask)
        logits, candidates = output.calibrated(student.header, pts)
        return StudentScores(logits.numpy(), pts, candidates)

    def candidates(
        self, scores: Sequence[StudentScores], *, shifted: bool = False
    ) -> Candidates | None:
        """Return what the segment heads of all students propose; None if one has none.

        Args:
            scores: of each student.
            shifted: let the best threshold of every class on validation become 0.5, unless the
                scores are probabilities.
        """
        parts = []
        for student, own, weights in zip(self.students, scores, self.weights, strict=True):
            header, part = student.header, own.candidates
            if part is not None and shifted and header.segment_thresholds:
                part = part if header.calibration else part.shifted(header.segment_thresholds)
            if part is not None and not self.single:
                columns = np.array([self.classes.index(name) for name in header.classes])
                label = columns[part.label]
                keep = weights[label] > 0
                part = Candidates(label[keep], part.score[keep], part.start[keep], part.end[keep])
            parts.append(part)
        return pooled(parts)

    def aligned(self, scores: Sequence[StudentScores]) -> tuple[np.ndarray, np.ndarray]:
        """Put logits on one time axis: that of the student with most snippets.

        The logits of the others are interpolated linearly between the midpoints of their snippets,
        and held at the ends.

        Args:
            scores: of each student.

        Returns:
            (students, T, classes) float64, 0 for classes that a student does not know, and the
            axis (T, 2).
        """
        axis = max((item.pts for item in scores), key=len)
        result = np.zeros((len(scores), len(axis), len(self.classes)))
        for row, student, item in zip(result, self.students, scores, strict=True):
            found, own = item.logits, item.pts
            if own.shape != axis.shape or np.abs(own - axis).max() > SAME_TIME:
                found = upsample_scores(found, own, axis.mean(axis=1))
            row[:, [self.classes.index(name) for name in student.header.classes]] = found
        return result, axis

    def fuse(self, scores: Sequence[StudentScores]) -> tuple[np.ndarray, np.ndarray]:
        """Average the logits of the students, see :meth:`aligned`.

        Returns:
            (T, classes) float32 and the axis (T, 2).
        """
        if self.single:
            return scores[0].logits, scores[0].pts
        rows, axis = self.aligned(scores)
        return mean_logits(rows, self.weights), axis


def mean_logits(logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the means (T, K) float32 of logits (students, T, K) with weights (students, K)."""
    return np.asarray(np.einsum("stk,sk->tk", logits, weights), dtype=np.float32)


def probabilities(logits: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
    """Return the sigmoid of logits (T, K), shifted so that thresholds (K,) become 0.5."""
    values = torch.from_numpy(logits)
    if thresholds is not None:
        values = values - torch.logit(torch.tensor(thresholds, dtype=torch.float32))
    return np.asarray(torch.sigmoid(values).numpy())


def load_models(models: Sequence[str | Path], device: str | torch.device = "cpu") -> Fusion:
    """Load one student, several to be averaged, or one file of `vidkd fuse`.

    Several students that were not fused count alike: a class is the mean of the logits of those
    that know it.

    Raises:
        UsageError: there is none, or a fused file beside others.
        WeightsError: one cannot be read.
    """
    if not models:
        raise UsageError("there is no model", remedy="name at least one")
    fused = [path for path in models if is_fusion(path)]
    if fused:
        if len(models) > 1:
            raise UsageError(
                "holds several students already, and is to be the only model",
                path=fused[0],
                remedy="name the runs themselves, or fuse them all with `vidkd fuse`",
            )
        students, header = load_fusion(fused[0], device)
        weights = np.array(header.weights)
        # A student without weight in any class would be run for nothing, and its encoder with it.
        counts = [n for n in range(len(students)) if weights[n].any()]
        if len(counts) > 1 or students[counts[0]].header.classes == header.classes:
            students, weights = [students[n] for n in counts], weights[counts]
        thresholds = np.array(header.thresholds)
        return Fusion(str(fused[0]), students, header.classes, weights, thresholds, header.segments)
    students = [FusedStudent(str(path), *load_temporal_filter(path, device)) for path in models]
    headers = [student.header for student in students]
    classes = tuple(dict.fromkeys(name for header in headers for name in header.classes))
    known = np.array([[name in header.classes for name in classes] for header in headers])
    weights = known / known.sum(axis=0)
    name = " + ".join(student.name for student in students)
    return Fusion(
        name, students, classes, weights, _mean_thresholds(students, classes, weights),
        headers[0].segments,
    )  # fmt: skip


def _mean_thresholds(
    students: Sequence[FusedStudent], classes: Sequence[str], weights: np.ndarray
) -> np.ndarray | None:
    """Return the thresholds whose logits are the weighted mean of those of the students."""
    # Calibrated scores are probabilities, whose threshold is 0.5.
    given = [s.header.thresholds if s.header.calibration is None else None for s in students]
    if given.count(None) == len(given):
        return None
    if len(given) == 1:
        return np.array(given[0])
    total = np.zeros(len(classes))
    for student, own, known in zip(students, weights, given, strict=True):
        header = student.header
        for name, value in zip(header.classes, known or (0.5,) * len(header.classes), strict=True):
            column = classes.index(name)
            total[column] += own[column] * np.log(value / (1 - value))
    return 1 / (1 + np.exp(-total))
