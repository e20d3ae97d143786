"""Predictions in the submission formats of the data sets (docs/data.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vidkd.annotations import Annotations
from vidkd.annotations.pku_mmd import PKU_MMD_CLASSES, PKU_MMD_FRAME_RATE
from vidkd.annotations.thumos14 import THUMOS14_CLASSES
from vidkd.errors import AnnotationError, UsageError
from vidkd.evaluation.frames import CHARADES_MOMENTS, upsample_scores
from vidkd.evaluation.predictions import DenseScores, Detection, write_detections
from vidkd.extensions import Table
from vidkd.files import write_text

Detections = Mapping[str, Sequence[Detection]]


@dataclass(frozen=True)
class Export:
    """One submission format."""

    write: Callable[[Path, Any, Any, bool], int]
    """Writes a path: predictions, annotations or None, whether to overwrite. Returns how many
    things were written. Raises AnnotationError for what the format cannot hold."""
    unit: str
    """What these things are."""
    dense: bool = False
    """It needs dense scores, and annotations; otherwise detections."""


def export_charades(
    path: str | Path, scores: DenseScores, annotations: Annotations, *_: object
) -> int:
    """Write the submission file of Charades localisation.

    Lines ``id frame score ... score``: frames 1 to 25 stand for the moments (frame - 1) / 25 of
    the duration (README of the Charades evaluation), then one score for each of the classes of
    the data set in their order. Scores are up-sampled as ``vidkd evaluate`` does it.
    """
    lacking = [name for name in annotations.classes if name not in scores.classes]
    if lacking:
        raise AnnotationError(
            f"the predictions lack {len(lacking)} of {len(annotations.classes)} classes,"
            f" such as {lacking[0]!r}",
            remedy="predict all classes of Charades, c000 to c156",
        )
    columns = [scores.classes.index(name) for name in annotations.classes]
    lines = []
    for video in annotations.videos.values():
        if video.id not in scores.videos:
            raise AnnotationError(
                f"there are no scores of video {video.id!r}",
                remedy="predict every video of the subset, or name the --subset that was predicted",
            )
        if video.duration is None:
            raise AnnotationError(
                f"video {video.id!r} has no duration", remedy="use annotations with durations"
            )
        _check_name(video.id)
        found = upsample_scores(*scores.videos[video.id], CHARADES_MOMENTS * video.duration)
        for number, row in enumerate(found[:, columns], start=1):
            values = " ".join(f"{value:.9g}" for value in row)
            lines.append(f"{video.id} {number} {values}\n")
    write_text(path, "".join(lines))
    return len(annotations.videos)


def export_pku_mmd(
    folder: str | Path,
    detections: Detections,
    annotations: Annotations | None = None,
    overwrite: bool = False,
) -> int:
    """Write a file per video, empty ones too, with ``label,start_frame,end_frame,confidence``.

    The script of PKU-MMD evaluates the files it finds, so that a video without detections needs
    one. A folder that is not empty is refused unless ``overwrite`` is set.
    """
    folder = Path(folder)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not overwrite):
        raise UsageError(
            "exists and is not an empty folder", path=folder, remedy="name another, or --overwrite"
        )
    rate, texts = PKU_MMD_FRAME_RATE, {}
    for video, items in detections.items():
        name = PurePosixPath(video).name
        if name in texts or name in {"", ".."}:
            raise AnnotationError(
                f"video {video!r} would share its file with another",
                remedy="give videos distinct names",
            )
        texts[name] = "".join(
            f"{item.label},{item.start * rate:.3f},{item.end * rate:.3f},{item.score:.9g}\n"
            for item in _ranked(items, video, PKU_MMD_CLASSES, "PKU-MMD (1 to 51)")
        )
    for name, text in texts.items():
        write_text(folder / f"{name}.txt", text)
    return len(texts)


def export_thumos14(path: str | Path, detections: Detections, *_: object) -> int:
    """Write lines ``video start end class confidence`` for the THUMOS14 evaluation kit.

    Times are seconds, classes have their numbers among the 101 of THUMOS14.
    """
    lines = []
    for video, items in detections.items():
        _check_name(video)
        for item in _ranked(items, video, THUMOS14_CLASSES, "THUMOS14 (such as BaseballPitch)"):
            number = THUMOS14_CLASSES[item.label]
            lines.append(f"{video} {item.start:.3f} {item.end:.3f} {number} {item.score:.9g}\n")
    write_text(path, "".join(lines))
    return len(lines)


def export_activitynet(path: str | Path, detections: Detections, *_: object) -> int:
    """Write the results file of ActivityNet; it says that external data were used.

    Every encoder of vidkd was trained on another data set (Kinetics), which is what the
    challenges call external data.
    """
    ranked = {video: _ranked(items) for video, items in detections.items()}
    write_detections(path, ranked, {"used": True, "details": "pretrained encoder"})
    return len(ranked)


EXPORTS = Table[Export](
    "vidkd.exports",
    "submission format",
    {
        "charades-localization": Export(export_charades, "videos", dense=True),
        "pku-mmd": Export(export_pku_mmd, "files"),
        "thumos14": Export(export_thumos14, "detections"),
        "activitynet": Export(export_activitynet, "videos"),
    },
)


def _ranked(
    items: Iterable[Detection],
    video: str = "",
    known: Iterable[str] | None = None,
    classes: str = "",
) -> list[Detection]:
    """Return detections best first; their labels must be ``known``, if that is given."""
    found = sorted(items, key=lambda item: (-item.score, item.start, item.end, item.label))
    for item in found:
        if known is not None and item.label not in known:
            raise AnnotationError(
                f"video {video!r} has a detection of {item.label!r}, which is no class of"
                f" {classes}",
                remedy="export predictions of a model trained on this data set's own annotations",
            )
    return found


def _check_name(video: str) -> None:
    if not video or len(video.split()) != 1:
        raise AnnotationError(
            f"the name of video {video!r} has spaces, which this format cannot hold",
            remedy="rename the video",
        )
