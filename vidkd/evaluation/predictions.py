"""The two kinds of prediction files: dense scores (HDF5) and detections (ActivityNet JSON)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vidkd.annotations import Source
from vidkd.annotations.parse import Context, short
from vidkd.evaluation.calibration import apply
from vidkd.files import atomic_path, write_json
from vidkd.storage import as_path

_LARGEST_SCORES = 1 << 30
"""Numbers per video; a day of video at 25 frames/s with 400 classes has fewer."""


@dataclass(frozen=True)
class Candidates:
    """Segments of one video as a segment head proposes them, many for each action.

    Attributes:
        label: (N,) number of the class.
        score: (N,) in (0, 1).
        start: (N,) seconds.
        end: (N,) seconds, after the start.
    """

    label: np.ndarray
    score: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def shifted(self, thresholds: Sequence[float]) -> Candidates:
        """Return them with scores shifted so that the threshold of each class becomes 0.5."""
        odds = np.array(thresholds)[self.label]
        odds = odds / (1 - odds)
        score = self.score / (self.score + (1 - self.score) * odds)
        return Candidates(self.label, score, self.start, self.end)

    def calibrated(self, pairs: Sequence[tuple[float, float]]) -> Candidates:
        """Return them with the scale and bias of each class applied to the logits of the scores."""
        scale, bias = np.array(pairs)[self.label].reshape(-1, 2).T
        return Candidates(self.label, apply(self.score, scale, bias), self.start, self.end)


@dataclass
class DenseScores:
    """Scores of every class at every row of every video."""

    classes: tuple[str, ...]
    """K names."""
    videos: dict[str, tuple[np.ndarray, np.ndarray]]
    """By id, scores (T, K) and start and end second of the rows (T, 2)."""
    candidates: dict[str, Candidates] = field(default_factory=dict)
    """By id, what segment heads propose; without it segments are grouped from the scores."""


@dataclass(frozen=True, slots=True)
class Detection:
    """One detected segment, in seconds since the first frame."""

    label: str
    score: float
    start: float
    end: float

    def to_json(self) -> dict[str, Any]:
        """Return it as ActivityNet-style results have it."""
        times = [float(self.start), float(self.end)]
        return {"label": self.label, "score": float(self.score), "segment": times}


def write_dense_scores(path: str | Path, scores: DenseScores) -> None:
    """Write HDF5 atomically: ``/VIDEO_ID/scores``, ``/VIDEO_ID/pts``, root attribute ``classes``.

    What a segment head proposes is in ``/VIDEO_ID/candidates``, (N, 4) float64: number of the
    class, score, start and end second.

    Raises:
        VidkdError: the file cannot be written.
    """
    # v110 and names of one length: all headers then carry check sums. In older layouts, and with
    # names of varying length, HDF5 may read a damaged file for ever.
    with (
        atomic_path(path) as temporary,
        h5py.File(temporary, "w", libver=("v110", "v110")) as file,
    ):
        file.attrs["classes"] = np.array([name.encode() for name in scores.classes], dtype="S")
        for video, (rows, pts) in scores.videos.items():
            group = file.create_group(video)
            # gzip, unlike the cache's zstd, is in every build of HDF5: these files are exchanged.
            options = (
                {"compression": "gzip", "shuffle": True, "fletcher32": True} if rows.size else {}
            )
            group.create_dataset("scores", data=rows, **options)
            group.create_dataset("pts", data=np.asarray(pts, dtype=np.float64))
            found = scores.candidates.get(video)
            if found is not None:
                rows = np.stack([found.label, found.score, found.start, found.end], axis=1)
                options = options if rows.size else {}
                group.create_dataset("candidates", data=rows.astype(np.float64), **options)


def read_dense_scores(path: str | Path) -> DenseScores:
    """Read what ``write_dense_scores`` writes.

    Raises:
        AnnotationError: the file is not that, or holds numbers that are not finite.
    """
    path = as_path(path)
    root = Context(path)
    if not path.is_file():
        raise root.error("there is no such file", "check the path")
    if not _is_hdf5(path):
        raise root.error(
            "is not an HDF5 file of dense scores",
            "frame protocols need dense scores; give event protocols the detections (JSON)",
        )
    try:
        with path.open("rb") as stream, h5py.File(stream, "r") as file:
            return _read_scores(file, root)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise root.error(f"is damaged ({short(str(error))})", "write it again") from error


def _read_scores(file: Any, root: Context) -> DenseScores:
    if "classes" not in file.attrs:
        raise root.error(
            "the root attribute `classes` is missing", "write the names of the K columns into it"
        )
    names = np.atleast_1d(file.attrs["classes"]).tolist()
    classes = tuple(item.decode() if isinstance(item, bytes) else str(item) for item in names)
    if len(set(classes)) < len(classes):
        raise root.error("`classes` names a class twice", "write it again with distinct names")
    groups: list[str] = []

    def collect(name: str, item: Any) -> None:
        # A video id with slashes is a path of groups.
        if isinstance(item, h5py.Dataset) and name.rpartition("/")[2] == "scores":
            groups.append(name.rpartition("/")[0])

    file.visititems(collect)
    videos, candidates = {}, {}
    for video in groups:
        here = root.at(f"video {short(video)}")
        group = file[video] if video else file
        if "pts" not in group:
            raise here.error("there are scores but no pts", "write start and end of every row")
        if group["scores"].ndim != 2 or group["scores"].shape[1] != len(classes):
            raise here.error(
                f"scores have the shape {group['scores'].shape}, but there are"
                f" {len(classes)} classes",
                "write (T, K) scores",
            )
        count = len(group["scores"])
        if group["pts"].shape != (count, 2):
            raise here.error(
                f"pts have the shape {group['pts'].shape}, but there are {count} rows of scores",
                "write (T, 2) start and end seconds",
            )
        # A shape is only a claim of the header: a small file may claim terabytes.
        if group["scores"].size > _LARGEST_SCORES:
            raise here.error(f"claims to have {count} rows", "check that it is the right file")
        scores, pts = group["scores"][()], np.asarray(group["pts"][()], dtype=np.float64)
        if not np.issubdtype(scores.dtype, np.floating):
            scores = scores.astype(np.float64)
        if not np.isfinite(scores).all():
            raise here.error("scores are not all finite", "find out why the model diverged")
        if not np.isfinite(pts).all() or (pts[:, 1] < pts[:, 0]).any():
            raise here.error("pts are not start and end seconds", "write end >= start")
        if (np.diff(pts.mean(axis=1)) < 0).any():
            raise here.error("pts are not in temporal order", "sort the rows by time")
        videos[video] = (scores, pts)
        if "candidates" in group:
            candidates[video] = _read_candidates(group["candidates"], len(classes), here)
    return DenseScores(classes, videos, candidates)


def _read_candidates(table: Any, classes: int, here: Context) -> Candidates:
    if table.ndim != 2 or table.shape[1] != 4 or table.size > _LARGEST_SCORES:
        raise here.error(
            f"candidates have the shape {table.shape}", "write (N, 4): class, score, start, end"
        )
    label, score, start, end = np.asarray(table[()], dtype=np.float64).T
    known = (label >= 0) & (label < classes) & (label == np.floor(label))
    if not (known & (score >= 0) & (score <= 1) & (end > start) & np.isfinite(start + end)).all():
        raise here.error("candidates make no sense", "write class, score, start and a later end")
    return Candidates(label.astype(np.int64), score, start, end)


def write_detections(
    path: str | Path,
    detections: Mapping[str, Iterable[Detection]],
    external_data: Mapping[str, Any] | None = None,
) -> None:
    """Write ActivityNet-style results atomically; segments in seconds.

    Raises:
        VidkdError: the file cannot be written.
    """
    write_json(
        path,
        {
            "version": "vidkd 1",
            "results": {
                video: [item.to_json() for item in items] for video, items in detections.items()
            },
            "external_data": dict(external_data or {}),
        },
    )


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(8) == b"\x89HDF\r\n\x1a\n"


def read_detections(path: str | Path) -> dict[str, list[Detection]]:
    """Read ActivityNet-style results.

    Raises:
        AnnotationError: the file is not that, or a segment makes no sense.
    """
    path = as_path(path)
    root = Context(path)
    if path.is_file() and _is_hdf5(path):
        raise root.error(
            "holds dense scores", "event protocols need detections (JSON), frame protocols these"
        )
    content = root.mapping(Source(path).json, "the whole file")
    if "results" not in content:
        raise root.error('there are no "results"', "give ActivityNet-style results")
    found: dict[str, list[Detection]] = {}
    for video, items in root.mapping(content["results"], '"results"').items():
        here = root.at(f"video {short(video)}")
        found[video] = []
        for item in here.sequence(items, "its result"):
            item = here.mapping(item, "a detection")
            segment = here.labelled_segment(item)
            score = here.number(item.get("score"), "a score")
            found[video].append(Detection(segment.label, score, segment.start, segment.end))
    return found
