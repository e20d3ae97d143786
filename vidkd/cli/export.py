"""``vidkd data export`` and ``vidkd data convert``; registered by ``vidkd.cli.data``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidkd.console import log
from vidkd.errors import UsageError

if TYPE_CHECKING:
    from vidkd.annotations import Annotations
    from vidkd.evaluation import DenseScores, Detection


Format = Annotated[
    str,
    typer.Option("--format", help="Format of the annotations; `vidkd data formats` lists them."),
]
AnnotationRate = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        help="Frames per second of annotations that count in frames. Default: the data set's.",
    ),
]


def export(
    predictions: Annotated[
        Path, typer.Option(metavar="FILE", help="Dense scores (.h5) or detections (.json).")
    ],
    output: Annotated[Path, typer.Option(metavar="PATH", help="A file; a folder for pku-mmd.")],
    export_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="charades-localization, pku-mmd, thumos14, activitynet, or one of a package.",
        ),
    ],
    annotations: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Which videos to export, and durations for Charades."),
    ] = None,
    annotation_format: Annotated[
        str, typer.Option(help="Their format; `vidkd data formats` lists them.")
    ] = "auto",
    annotation_rate: AnnotationRate = None,
    subset: Annotated[
        str | None, typer.Option(help="Subset to export. Default: testing, if there is one.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into a folder that is not empty.")
    ] = False,
) -> None:
    """Write predictions in a data set's submission format.

    Dense scores become segments, where a format wants these, with the default settings of
    watershed grouping and NMS.
    """
    from vidkd.annotations import load_annotations
    from vidkd.evaluation.exports import EXPORTS

    chosen = EXPORTS[export_format]
    truth = None
    if annotations is not None:
        truth = load_annotations(annotations, annotation_format, frame_rate=annotation_rate)
        if subset is None and "testing" in truth.subsets:
            subset = "testing"
        truth = truth if subset is None else truth.subset(subset)
    found = _read(predictions)
    if chosen.dense:
        if truth is None:
            raise UsageError(
                f"{export_format} needs the videos' durations", remedy="give --annotations"
            )
        if isinstance(found, dict):
            raise UsageError(
                f"{export_format} needs dense scores", remedy="give the HDF5 file of scores"
            )
        count = chosen.write(output, found, truth, overwrite)
    else:
        detections = found if isinstance(found, dict) else _segments(found)
        if truth is not None:
            detections = {video: detections.get(video, []) for video in truth.videos}
        count = chosen.write(output, detections, truth, overwrite)
    log(f"{output}: {count} {chosen.unit}")


def _read(path: Path) -> DenseScores | dict[str, list[Detection]]:
    from vidkd.evaluation import read_dense_scores, read_detections

    return read_detections(path) if path.suffix.lower() == ".json" else read_dense_scores(path)


def _segments(scores: DenseScores) -> dict[str, list[Detection]]:
    from vidkd.detection.segments import scores_to_segments
    from vidkd.recipe import SegmentSettings

    settings = SegmentSettings()
    return {
        video: scores_to_segments(rows, pts, scores.classes, settings)
        for video, (rows, pts) in scores.videos.items()
    }


def convert(
    annotations: Annotated[Path, typer.Option(metavar="FILE", help="The annotations.")],
    output: Annotated[Path, typer.Option(metavar="FILE.json", help="The file to write.")],
    annotation_format: Format = "auto",
    annotation_rate: AnnotationRate = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="Another name for a subset; may be repeated."),
    ] = None,
    fraction: Annotated[
        float | None,
        typer.Option("--hold-out", help="Part of `training` to become `validation`, as 0.15."),
    ] = None,
    videos: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Videos, for durations and rates not in the file."),
    ] = None,
) -> None:
    """Write annotations of any format as ActivityNet-style JSON.

    With --hold-out, data sets that have only training and testing get a subset for validation:
    whole subjects where they are known, always the same videos.
    """
    from vidkd.annotations import load_annotations
    from vidkd.annotations.activitynet import write_annotations
    from vidkd.annotations.subsets import hold_out, rename_subsets

    found = load_annotations(annotations, annotation_format, frame_rate=annotation_rate)
    if rename:
        found = rename_subsets(found, dict(_pair(text) for text in rename))
    if fraction is not None:
        found = hold_out(found, fraction)
    if videos is not None:
        found = _with_durations(found, videos)
    write_annotations(output, found)
    counts = [f"{len(found.subset(name).videos)} {name or '(no subset)'}" for name in found.subsets]
    log(f"{output}: {len(found.videos)} videos ({', '.join(counts)})")
    for note in found.notes:
        log(f"note: {note}")


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r} renames nothing", remedy="give such as validation=training")
    return old, new


def _with_durations(annotations: Annotations, folder: Path) -> Annotations:
    from dataclasses import replace

    from vidkd.keys import KeyIndex
    from vidkd.video import find_videos, probe

    files = KeyIndex({item.key: item.path for item in find_videos([folder])}, folder)
    videos = dict(annotations.videos)
    missing = []
    for key, video in annotations.videos.items():
        if video.duration is not None and video.frame_rate is not None:
            continue
        path = files.find(key)
        if path is None:
            missing.append(key)
            continue
        info = probe(path)
        videos[key] = replace(
            video,
            duration=video.duration or info.duration,
            frame_rate=video.frame_rate or float(info.frame_rate),
        )
    if missing:
        log(f"warning: no video for {', '.join(missing[:3])} ({len(missing)} in all)")
    return replace(annotations, videos=videos)
