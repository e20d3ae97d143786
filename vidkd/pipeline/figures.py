"""The figures of a benchmark: what they show, taken from its runs and its metrics."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.cluster.hierarchy import leaves_list, linkage

from vidkd.annotations import VideoAnnotation
from vidkd.cache import CacheFile
from vidkd.console import log
from vidkd.distillation.losses import channel_covariance
from vidkd.errors import VidkdError
from vidkd.evaluation import read_dense_scores
from vidkd.networks import load_temporal_filter
from vidkd.pipeline.benchmark import Benchmark
from vidkd.pipeline.inference_time import speed_points
from vidkd.pipeline.results import Results, read_json
from vidkd.pipeline.tables import Run, TableRow
from vidkd.report.paper_figures import (
    Covariance,
    Variation,
    draw_boundaries,
    draw_class_gains,
    draw_covariances,
    draw_speed,
)
from vidkd.streams import STREAMS


@dataclass(frozen=True)
class FeatureMaps:
    """What one run makes of the videos of a subset.

    Attributes:
        title: of the run.
        maps: (T, C) float32 by video, in units of the standard deviation over all of them.
    """

    title: str
    maps: dict[str, np.ndarray]


@dataclass
class Figures:
    """Draws the figures of a finished benchmark, each into ``pictures/``."""

    benchmark: Benchmark
    results: Results

    def draw(self) -> None:
        """Draw what the recipe asks for, each figure on its own.

        Whatever stops one of them is noted in the results, and the others are drawn.
        """
        makers: dict[int, Callable[[], Path]] = {
            3: self.speed,
            4: self.covariances,
            5: self.boundaries,
            6: self.class_gains,
            7: self.actionness,
        }
        for number in self.benchmark.recipe.benchmark.figures:
            try:
                self.results.pictures.append(makers[number]())
                continue
            except VidkdError as error:
                reason = str(error)
            except Exception as error:  # the tables of hours of training are worth more
                text = " ".join(str(error).split())
                reason = f"unexpected {type(error).__name__}: {text}; report it"
            note = f"figure {number} left out: {reason}"
            self.results.notes.append(note)
            log(note)

    def path(self, name: str) -> Path:
        """Return the path of a picture."""
        return self.benchmark.layout.pictures / f"{name}.png"

    @property
    def seed(self) -> int:
        """The seed whose runs are drawn: the recipe's first."""
        return self.benchmark.recipe.seeds[0]

    def trio(self) -> tuple[Run, Run, Run]:
        """Return vanilla RGB, the teacher and its student, of the recipe's own videos.

        Raises:
            VidkdError: the tables do not have all three.
        """
        runs = [run for run in self.benchmark.runs() if not run.split]
        recipe = self.benchmark.recipe
        modality = recipe.teachers[0]
        own = [run for run in runs if run.filter == recipe.filter and run.trained]
        vanilla = [run for run in own if run.modality == recipe.student and not run.teachers]
        student = [
            run
            for run in own
            if [item.modality for item in run.teachers] == [modality]
            and run.distillation == recipe.distillation
            and run.teachers[0].trained
            and run.teachers[0].filter == recipe.filter
        ]
        if not vanilla or not student:
            raise VidkdError(
                "the tables have no augmented RGB to compare", remedy="ask for table 1, 3, 4 or 5"
            )
        return vanilla[0], student[0].teachers[0], student[0]

    def row(self, run: Run) -> TableRow:
        """Return the row that is this run alone.

        Raises:
            VidkdError: there is none.
        """
        for row in self.benchmark.rows():
            if row.runs == (run,):
                return row
        raise VidkdError(f"no table has {run.slug} as a row", remedy="ask for table 3")

    def video(self) -> VideoAnnotation:
        """Return the video that is drawn: the one with most segments."""
        truth = self.benchmark.splits[""].annotations.actions()
        videos = truth.subset(self.benchmark.reported).videos
        return max(videos.values(), key=lambda video: len(video.segments))

    def times(self, video: str) -> np.ndarray:
        """Return (T, 2) start and end seconds of the snippets of a video."""
        with CacheFile(
            self.benchmark.features[self.benchmark.recipe.student, ""].file(video)
        ) as file:
            return np.asarray(file.pts)

    def maps(self, run: Run) -> FeatureMaps:
        """Compute the feature maps of a run on the reported subset."""
        benchmark = self.benchmark
        module, _ = load_temporal_filter(benchmark.layout.run(run.slug, self.seed))
        truth = benchmark.splits[run.split].annotations.subset(benchmark.reported)
        features = benchmark.features[run.modality, run.split]
        found = {}
        for video in truth.videos:
            with CacheFile(features.file(video)) as file:
                rows = torch.from_numpy(file.rows().astype(np.float32))
            with torch.inference_mode():
                mask = torch.ones(1, len(rows), dtype=torch.bool)
                found[video] = module(rows[None], mask).features[0].numpy()
        stacked = np.concatenate(list(found.values()))
        scale = float(np.sqrt(stacked.var(axis=0).mean())) or 1.0
        maps = {video: values / scale for video, values in found.items()}
        return FeatureMaps(self._title(run), maps)

    def _title(self, run: Run) -> str:
        if run.teachers:
            return "augmented RGB"
        if run.modality == self.benchmark.recipe.student:
            return "vanilla RGB"
        return f"{STREAMS[run.modality].label} teacher"

    def covariances(self) -> Path:
        """Figure 4."""
        streams = [self.maps(run) for run in self.trio()]
        teacher = streams[1]
        video = self.video().id
        matrices = {item.title: _covariance(item.maps[video]) for item in streams}
        order = hierarchical_order(matrices[teacher.title])
        panels = []
        for item in streams:
            matrix = matrices[item.title]
            note = "gives the order of the channels"
            if item is not teacher:
                alike = [
                    triangle_correlation(_covariance(rows), _covariance(teacher.maps[name]))
                    for name, rows in item.maps.items()
                    if len(rows) > 1
                ]
                own = triangle_correlation(matrix, matrices[teacher.title])
                mean = statistics.fmean(alike)
                note = f"correlation with the teacher's: {own:.2f} (all videos: {mean:.2f})"
            panels.append(Covariance(item.title, matrix[np.ix_(order, order)], note))
        path = self.path("figure-4-covariances")
        caption = (
            f"Video {video} of subset {self.benchmark.reported}, seed {self.seed}; each feature "
            "map in units of its standard deviation over the subset. Channels in the order of an "
            "average-linkage clustering of the teacher's correlations, the same in all panels."
        )
        draw_covariances(path, panels, caption)
        return path

    def boundaries(self) -> Path:
        """Figure 5."""
        video = self.video()
        pts = self.times(video.id)
        curves = []
        for run in self.trio():
            item = self.maps(run)
            ratios = [
                ratio
                for name, rows in item.maps.items()
                if (ratio := self._contrast(name, rows)) is not None
            ]
            mean = f"{statistics.fmean(ratios):.2f}" if ratios else "unknown"
            note = f"at annotated boundaries {mean} times its variation elsewhere (all videos)"
            curves.append(Variation(item.title, step_variation(item.maps[video.id]), note))
        path = self.path("figure-5-boundaries")
        middle = pts.mean(axis=1)
        caption = (
            "Mean over channels of the absolute change of the feature map from one snippet to the "
            f"next, divided by its mean over the video. Video {video.id} of subset "
            f"{self.benchmark.reported}, seed {self.seed}; dashed: annotated starts and ends."
        )
        times = (middle[1:] + middle[:-1]) / 2
        draw_boundaries(path, curves, times, video.segments, caption)
        return path

    def _contrast(self, video: str, rows: np.ndarray) -> float | None:
        """Return the variation at the annotated boundaries relative to that elsewhere."""
        truth = self.benchmark.splits[""].annotations.actions().videos[video]
        middle = self.times(video).mean(axis=1)
        edges = np.array([edge for item in truth.segments for edge in (item.start, item.end)])
        return boundary_contrast(step_variation(rows), middle, edges)

    def class_gains(self) -> Path:
        """Figure 6."""
        vanilla, _, student = self.trio()
        gains: dict[str, list[float]] = {}
        seeds = 0
        for seed in self.benchmark.recipe.seeds:
            before, after = self._per_class(vanilla, seed), self._per_class(student, seed)
            if before is None or after is None:
                continue
            seeds += 1
            for label, value in after.items():
                if value is not None and before[label] is not None:
                    gains.setdefault(label, []).append(100 * (value - before[label]))
        if not gains:
            raise VidkdError("no seed has finished both models", remedy="see what failed")
        path = self.path("figure-6-classes")
        protocol = self.benchmark.recipe.evaluation.frame_protocol
        caption = (
            f"AP by protocol {protocol} on subset {self.benchmark.reported}; bars: mean over "
            f"{seeds} seed(s), dots: each seed, whiskers: sample standard deviation."
        )
        draw_class_gains(path, gains, "augmented RGB minus vanilla RGB", caption)
        return path

    def _per_class(self, run: Run, seed: int) -> dict[str, Any] | None:
        folder = self.benchmark.evaluation_folder(self.row(run), seed, self.benchmark.reported)
        if not (folder / "metrics.json").exists():
            return None
        metrics = read_json(folder / "metrics.json")
        return dict(metrics["frame"]["per_class"])

    def actionness(self) -> Path:
        """Figure 7: the scores of the student along one video, its segments and the truth.

        As in ``vidkd detect``, 0.5 is where a class separates best (F1) on validation.
        """
        from vidkd.detection.scorers import STUDENT_THRESHOLD
        from vidkd.detection.segments import shown_segments
        from vidkd.report.timeline import Timeline, draw_timeline

        _, _, student = self.trio()
        benchmark, video = self.benchmark, self.video()
        folder = benchmark.evaluation_folder(self.row(student), self.seed, benchmark.reported)
        table = read_dense_scores(folder / "scores.h5")
        scores, pts = table.videos[video.id]
        _, header = load_temporal_filter(benchmark.layout.run(student.slug, self.seed))
        if header.thresholds is not None:
            scores = calibrated(scores, np.array(header.thresholds))
        found = table.candidates.get(video.id)
        if found is not None and header.segment_thresholds is not None:
            found = found.shifted(header.segment_thresholds)
        segments = shown_segments(
            scores, pts, table.classes, STUDENT_THRESHOLD, benchmark.recipe.segments, found
        )
        path = self.path("figure-7-detection")
        draw_timeline(
            path,
            Timeline(
                title=f"{video.id}, augmented RGB",
                duration=video.duration or float(pts[-1, 1]),
                classes=table.classes,
                segments=segments,
                scores=scores,
                pts=pts,
                truth=video.segments,
                threshold=STUDENT_THRESHOLD,
            ),
        )
        return path

    def speed(self) -> Path:
        """Figure 3."""
        points, caption = speed_points(self.benchmark, self.results)
        path = self.path("figure-3-speed")
        draw_speed(path, points, self.results.metrics[0], caption)
        return path


def _covariance(rows: np.ndarray) -> np.ndarray:
    """Return the channel covariance (C, C) of a feature map (T, C) (Eq. 2)."""
    features = torch.from_numpy(rows)[None]
    mask = torch.ones(features.shape[:2], dtype=torch.bool)
    return channel_covariance(features, mask)[0].numpy()


def hierarchical_order(covariance: np.ndarray) -> np.ndarray:
    """Return the channels of a (C, C) covariance so that similar ones are neighbours.

    The leaves of an average-linkage clustering with the distance 1 - correlation; channels that
    do not vary come last.
    """
    deviation = np.sqrt(np.clip(np.diag(covariance), 0, None))
    varying = np.flatnonzero(deviation > 1e-6 * max(float(deviation.max(initial=0.0)), 1e-12))
    rest = np.setdiff1d(np.arange(len(covariance)), varying)
    if len(varying) < 3:
        return np.concatenate([varying, rest])
    part = covariance[np.ix_(varying, varying)]
    correlation = part / np.outer(deviation[varying], deviation[varying])
    above = np.triu_indices(len(varying), 1)
    tree = linkage(np.clip(1 - correlation[above], 0, 2), method="average")
    return np.concatenate([varying[leaves_list(tree)], rest])


def triangle_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of two symmetric matrices above their diagonals; 0 if one is flat."""
    above = np.triu_indices(len(one), 1)
    a, b = one[above] - one[above].mean(), other[above] - other[above].mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 0 else 0.0


def step_variation(rows: np.ndarray) -> np.ndarray:
    """Return (T-1,): the mean absolute change over channels at every step, relative to its mean."""
    values = np.abs(np.diff(rows, axis=0)).mean(axis=1)
    mean = float(values.mean()) if len(values) else 0.0
    return values / mean if mean > 0 else values


def boundary_contrast(variation: np.ndarray, middle: np.ndarray, edges: np.ndarray) -> float | None:
    """Return the mean variation of the steps with a boundary, relative to that of the others.

    Args:
        variation: (T-1,).
        middle: (T,) seconds of the snippets' middles; step t lies between t and t + 1.
        edges: seconds of the annotated starts and ends.

    Returns:
        None when all steps or none have a boundary.
    """
    steps = np.searchsorted(middle, edges) - 1
    hit = np.zeros(len(variation), dtype=bool)
    hit[steps[(steps >= 0) & (steps < len(variation))]] = True
    if hit.all() or not hit.any() or not variation[~hit].mean() > 0:
        return None
    return float(variation[hit].mean() / variation[~hit].mean())


def calibrated(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Shift the logits of every class so that its threshold becomes 0.5.

    Args:
        probabilities: (T, K) in [0, 1].
        thresholds: (K,) in (0, 1).
    """
    clipped = np.clip(probabilities.astype(np.float64), 1e-12, 1 - 1e-12)
    odds = clipped / (1 - clipped) * (1 - thresholds) / thresholds
    return np.asarray(odds / (1 + odds))
