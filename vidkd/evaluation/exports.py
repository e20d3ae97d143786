"""Predictions in the submission formats of the data sets."""

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
    """One submission format.

    Attributes:
        write: writes predictions of the videos of the annotations: path, predictions, annotations,
            whether to overwrite. Returns the number of things written.
        unit: what these are.
        dense: it needs dense scores and annotations; otherwise detections.
    """

    write: Callable[[Path, Any, Any, bool], int]
    unit: str
    dense: bool = False


def export_charades(path: str | Path, scores: DenseScores, annotations: Annotations) -> int:
    """Write the submission file of Charades localisation.

    Lines ``id frame score ... score``: frames 1 to 25 stand for the moments (frame - 1) / 25 of
    the duration (README of the Charades evaluation), then one score for each of the classes of
    the data set in their order.

    Args:
        path: the text file.
        scores: up-sampled to the moments as ``vidkd evaluate`` does it.
        annotations: of Charades: durations and the order of the classes.

    Returns:
        the number of videos written.

    Raises:
        AnnotationError: a class or the scores of a video are missing, or a duration is unknown.
        VidkdError: the file cannot be written.
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
        rows, pts = scores.videos[video.id]
        moments = CHARADES_MOMENTS * video.duration
        for number, row in enumerate(upsample_scores(rows, pts, moments)[:, columns], start=1):
            values = " ".join(f"{value:.9g}" for value in row)
            lines.append(f"{video.id} {number} {values}\n")
    write_text(path, "".join(lines))
    return len(annotations.videos)


def export_pku_mmd(folder: str | Path, detections: Detections, *, overwrite: bool = False) -> int:
    """Write one file per video with lines ``label,start_frame,end_frame,confidence``.

    The script of PKU-MMD evaluates the files it finds, so that a video without detections needs
    an empty one.

    Args:
        folder: made if it does not exist.
        detections: by video; labels are the numbers 1 to 51.
        overwrite: write into a folder that is not empty.

    Returns:
        the number of files written.

    Raises:
        AnnotationError: a label is not of PKU-MMD, or two videos would share a file.
        UsageError: the folder is not empty and ``overwrite`` is off.
        VidkdError: a file cannot be written.
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
                f"video {video!r} has no file name of its own", remedy="give videos distinct names"
            )
        found = _ranked(items)
        for item in found:
            if item.label not in PKU_MMD_CLASSES:
                raise _unknown(video, item.label, "PKU-MMD (1 to 51)")
        texts[name] = "".join(
            f"{item.label},{item.start * rate:.3f},{item.end * rate:.3f},{item.score:.9g}\n"
            for item in found
        )
    for name, text in texts.items():
        write_text(folder / f"{name}.txt", text)
    return len(texts)


def export_thumos14(path: str | Path, detections: Detections) -> int:
    """Write lines ``video start end class confidence`` for the THUMOS14 evaluation kit.

    Times are seconds, classes have their numbers among the 101 of THUMOS14.

    Returns:
        the number of lines written.

    Raises:
        AnnotationError: a label is not of THUMOS14.
        VidkdError: the file cannot be written.
    """
    lines = []
    for video, items in detections.items():
        _check_name(video)
        for item in _ranked(items):
            if item.label not in THUMOS14_CLASSES:
                raise _unknown(video, item.label, "THUMOS14 (such as BaseballPitch)")
            number = THUMOS14_CLASSES[item.label]
            lines.append(f"{video} {item.start:.3f} {item.end:.3f} {number} {item.score:.9g}\n")
    write_text(path, "".join(lines))
    return len(lines)


def export_activitynet(path: str | Path, detections: Detections, details: str = "") -> int:
    """Write the results file of ActivityNet; it says that external data were used.

    Every encoder of vidkd was trained on another data set (Kinetics), which is what the
    challenges call external data.

    Returns:
        the number of videos written.

    Raises:
        VidkdError: the file cannot be written.
    """
    ranked = {video: _ranked(items) for video, items in detections.items()}
    write_detections(path, ranked, {"used": True, "details": details or "pretrained encoder"})
    return len(ranked)


def _ranked(items: Iterable[Detection]) -> list[Detection]:
    return sorted(items, key=lambda item: (-item.score, item.start, item.end, item.label))


def _check_name(video: str) -> None:
    if not video or len(video.split()) != 1:
        raise AnnotationError(
            f"the name of video {video!r} has spaces, which this format cannot hold",
            remedy="rename the video",
        )


def _unknown(video: str, label: str, classes: str) -> AnnotationError:
    return AnnotationError(
        f"video {video!r} has a detection of {label!r}, which is no class of {classes}",
        remedy="export the predictions of a model trained on this data set's own annotations",
    )


EXPORTS = Table[Export](
    "vidkd.exports",
    "submission format",
    {
        "charades-localization": Export(
            lambda path, scores, truth, _: export_charades(path, scores, truth),
            "videos",
            dense=True,
        ),
        "pku-mmd": Export(
            lambda path, found, _, overwrite: export_pku_mmd(path, found, overwrite=overwrite),
            "files",
        ),
        "thumos14": Export(lambda path, found, *_: export_thumos14(path, found), "detections"),
        "activitynet": Export(lambda path, found, *_: export_activitynet(path, found), "videos"),
    },
)
