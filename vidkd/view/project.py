"""What the page shows: results of models, annotations and videos, under one id for each video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vidkd.detection.segments import cell_borders
from vidkd.errors import UsageError, VidkdError
from vidkd.evaluation import DenseScores, Detection, read_dense_scores, read_detections
from vidkd.files import refuse_address
from vidkd.keys import KeyIndex
from vidkd.video import find_videos, probe
from vidkd.view.labels import Labels

_LISTED = 40
"""Segments of a video in the list of all videos; its own page has all."""


@dataclass(frozen=True)
class Model:
    """What one model says: segments by video, and where there are any the scores they are from."""

    name: str
    segments: dict[str, list[Detection]] = field(default_factory=dict)
    scores: DenseScores | None = None

    def dense(self, video: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return scores (T, K) and borders (T + 1,) of a video, or None."""
        if self.scores is None or video not in self.scores.videos:
            return None
        scores, pts = self.scores.videos[video]
        return (scores, cell_borders(pts)) if len(scores) else None


def load_models(paths: Sequence[Path]) -> list[Model]:
    """Read results: each of ``FILE.json`` (segments), ``FILE.h5`` (scores), or a folder of both.

    Scores that lie beside segments are found by themselves: under the same name, or as
    ``scores.h5`` beside ``segments.json``, which is how ``evaluate`` writes them.

    Raises:
        UsageError: a folder holds no results.
        AnnotationError: a file is not that.
    """
    found: dict[Path, tuple[Path | None, Path | None]] = {}
    for path in paths:
        refuse_address(path)
        segments: Path | None = path / "segments.json" if path.is_dir() else path
        scores: Path | None = None
        if segments is not None and (segments.suffix.lower() in {".h5", ".hdf5"}):
            segments, scores = None, path
        elif segments is not None:
            if path.is_dir() and not segments.is_file():
                raise UsageError(
                    "holds no segments.json", path=path, remedy="name the result's own file"
                )
            for name in (segments.with_suffix(".h5").name, "scores.h5"):
                beside = segments.with_name(name)
                own = name != "scores.h5" or segments.name == "segments.json"
                if own and beside.is_file() and h5py.is_hdf5(beside):
                    scores = beside
                    break
        key = (segments or scores or path).with_suffix("")
        before = found.get(key, (None, None))
        found[key] = (segments or before[0], scores or before[1])
    models: list[Model] = []
    for key, (segments, scores) in found.items():
        name = key.name if key.name not in {"segments", "scores"} else key.absolute().parent.name
        names = {model.name for model in models}
        if name in names:
            name = f"{key.absolute().parent.name}/{name}"
        models.append(
            Model(
                name if name not in names else f"{name} {len(models) + 1}",
                read_detections(segments) if segments else {},
                read_dense_scores(scores) if scores else None,
            )
        )
    return models


@dataclass
class Project:
    """All that one page shows.

    Attributes:
        models: results, side by side.
        labels: annotations and their corrections.
        folder: of the videos; None shows the tracks alone.
    """

    models: list[Model]
    labels: Labels
    folder: Path | None = None

    def __post_init__(self) -> None:
        files: dict[str, Path] = {}
        if self.folder is not None:
            files = {item.key: item.path for item in find_videos([self.folder])}
        self._files = KeyIndex(files, self.folder or Path())
        named = [*self.labels.annotations.videos]
        for model in self.models:
            named += [*model.segments, *(model.scores.videos if model.scores else ())]
        self.ids = list(dict.fromkeys(named))
        shown = {self._files.key(video) for video in self.ids}
        self.ids += [key for key in files if key not in shown]
        self._number = {video: number for number, video in enumerate(self.ids)}
        listed = [*self.labels.annotations.classes]
        for model in self.models:
            listed += model.scores.classes if model.scores else ()
            listed += sorted({item.label for items in model.segments.values() for item in items})
        self.classes = list(dict.fromkeys(listed))

    def path(self, number: int) -> Path | None:
        """Return the file of a video by its number, or None when there is none.

        Raises:
            VidkdError: the file is a link that leads out of the folder.
        """
        path = self._files.find(self.ids[number])
        if path is None or self.folder is None:
            return None
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise VidkdError(
                "is a link that leads out of the folder of videos",
                path=path,
                remedy="give --videos the folder where the files are",
            )
        return path

    def index(self) -> dict[str, Any]:
        """Return what the list of all videos shows."""
        return {
            "classes": self.classes,
            "models": [model.name for model in self.models],
            "save": self.labels.target.name,
            "videos": [self._listed(number) for number in range(len(self.ids))],
        }

    def _listed(self, number: int) -> dict[str, Any]:
        video = self.ids[number]
        entry = self.labels.annotations.videos.get(video)
        own = list(entry.segments) if entry else []
        segments = [
            (item.start, item.end, item.label, item.score)
            for model in self.models
            for item in model.segments.get(video, ())
        ]
        best = sorted(segments, key=lambda item: -item[3])[:_LISTED]
        if not best:
            best = [(item.start, item.end, item.label, 1.0) for item in own[:_LISTED]]
        return {
            "id": video,
            "number": number,
            "file": self._files.find(video) is not None,
            "subset": entry.subset if entry else "",
            "labels": len(own),
            "detections": len(segments),
            "best": sorted(best),
        }

    def video(self, number: int) -> dict[str, Any]:
        """Return all of one video but its dense scores; times are seconds since its first frame."""
        video = self.ids[number]
        path = self.path(number)
        ends: list[float] = []
        rate, problem = None, None
        entry = self.labels.annotations.videos.get(video)
        if entry is not None:
            ends += [item.end for item in entry.segments]
            rate = entry.frame_rate
        if path is not None:
            try:
                info = probe(path)
                rate = float(info.frame_rate)
                ends = [info.duration] if info.duration else ends
            except VidkdError as error:
                problem = str(error)
        models = []
        for model in self.models:
            dense = model.dense(video)
            segments = model.segments.get(video)
            ends += [item.end for item in segments or ()]
            if dense is not None:
                ends.append(float(dense[1][-1]))
            models.append(
                {
                    "name": model.name,
                    "classes": list(model.scores.classes) if model.scores else [],
                    "dense": dense is not None,
                    "segments": None
                    if segments is None
                    else [[item.start, item.end, item.label, item.score] for item in segments],
                }
            )
        return {
            "id": video,
            "number": number,
            "duration": max([*ends, (entry.duration or 0.0) if entry else 0.0], default=0.0),
            "rate": rate or 25.0,
            "file": path.name if path is not None else None,
            "problem": problem,
            "models": models,
            "truth": [[item.start, item.end, item.label] for item in self.labels.original(video)],
            **self.labels.state(video),
        }

    def scores(self, number: int, model: int) -> bytes | None:
        """Return the dense scores of a video as ``pack_scores`` does, or None without any."""
        dense = self.models[model].dense(self.ids[number])
        return None if dense is None else pack_scores(*dense)


def pack_scores(scores: np.ndarray, borders: np.ndarray) -> bytes:
    """Return T and K (uint32), T + 1 borders (float64) and K x T scores (float32), little-endian.

    Args:
        scores: (T, K).
        borders: (T + 1,) seconds.
    """
    return b"".join(
        (
            np.array(scores.shape, dtype="<u4").tobytes(),
            borders.astype("<f8").tobytes(),
            np.ascontiguousarray(scores.T, dtype="<f4").tobytes(),
        )
    )
