"""``vidkd cut``: detections, or labels, as video clips."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidkd.cli.export import AnnotationRate, Format
from vidkd.cli.options import Json, argument, flag, option
from vidkd.console import emit_json, emit_table, log, progress
from vidkd.errors import UsageError

if TYPE_CHECKING:
    from vidkd.annotations import Segment
    from vidkd.video import VideoFolder


def cut(
    videos: Annotated[Path, option("Folder of the videos.", "DIR")],
    output: Annotated[Path, option("Folder for the clips and their list, clips.json.", "DIR")],
    result: Annotated[
        Path | None, argument("Detections of `vidkd detect --output`.", "RESULT")
    ] = None,
    annotations: Annotated[
        Path | None, option("Cut labelled segments instead of detections.", "FILE")
    ] = None,
    annotation_format: Format = "auto",
    annotation_rate: AnnotationRate = None,
    margin: Annotated[float, option("Add this before and after.", "SECONDS", min=0.0)] = 0.0,
    classes: Annotated[
        list[str] | None,
        option("Only this class; several may be given.", "NAME", names=("--class",)),
    ] = None,
    min_score: Annotated[
        float | None, option("Only detections of this score or more.", "SCORE")
    ] = None,
    top: Annotated[int | None, option("Only the N of the highest scores.", "N", min=1)] = None,
    copy: Annotated[
        bool,
        flag(
            "--copy",
            "Copy without encoding: quick and lossless, but clips begin at the key frame before. "
            "Default: H.264 and AAC, exact to the frame.",
        ),
    ] = False,
    reel: Annotated[
        Path | None, option("Also write all clips one after the other.", "FILE.mp4")
    ] = None,
    titles: Annotated[bool, flag("--titles", "Write class, video and time over the reel.")] = False,
    overwrite: Annotated[
        bool, flag("--overwrite", "Replace files that are not of this command.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Cut a video file for each detection, with its sound, and a reel of all of them.

    Clips that are finished are not made again. Exit code 1 if some failed; the others are done.
    """
    if (result is None) == (annotations is None):
        raise UsageError(
            "detections or annotations are needed, and not both",
            remedy="give RESULT, or --annotations FILE",
        )
    if reel is not None and reel.suffix.lower() != ".mp4":
        raise UsageError("has an unknown ending", path=reel, remedy="end the reel in .mp4")
    from vidkd.report.clips import choose, cut_clips, plan, write_reel
    from vidkd.video import VideoFolder

    folder = VideoFolder(videos)
    if result is not None:
        found = _detections(result)
    else:
        assert annotations is not None
        found = _labels(annotations, annotation_format, annotation_rate, folder)
    chosen = choose(found, classes or (), min_score, top)
    if not chosen:
        labels = sorted({segment.label for _, segment in found})
        raise UsageError(
            "there is no segment to cut",
            path=result or annotations,
            remedy=f"check --class and --min-score; there are {', '.join(labels) or 'none'}",
        )
    sources = {name: folder.path(name) for name, _ in chosen}
    missing = sorted(name for name, path in sources.items() if path is None)
    there = {name: path for name, path in sources.items() if path is not None}
    for name in missing:
        log(f"error: there is no video for {name!r} in {videos}")
    clips = plan((item for item in chosen if item[0] in there), there, margin)
    with progress("cut", len(clips), "clips") as advance:
        results = cut_clips(clips, output, copy=copy, overwrite=overwrite, report=advance)
    problems = [item.problem for item in results if item.status == "failed"]
    if reel is not None and clips:
        with progress("reel", len(clips), "clips") as advance:
            problems += write_reel(clips, reel, titles=titles, report=advance)
    for problem in dict.fromkeys(problems):
        log(f"error: {problem}")
    if as_json:
        clips_made = [
            {
                "file": str(output / item.clip.file),
                "label": item.clip.segment.label,
                "start": item.clip.start,
                "end": item.clip.end,
                "begins": item.begins,
                "status": item.status,
            }
            for item in results
        ]
        emit_json({"clips": clips_made, "reel": str(reel) if reel else None, "missing": missing})
    else:
        rows = [
            (
                item.clip.file,
                f"{item.clip.start:.2f} s",
                f"{item.clip.end:.2f} s",
                _begins(item.clip.start, item.begins),
                item.status,
            )
            for item in results
        ]
        emit_table("", ("clip", "wanted from", "to", "begins", "status"), rows)
    early = [item.clip.start - item.begins for item in results if item.begins is not None]
    if copy and early:
        log(
            f"copies begin at key frames, up to {max(early):.2f} s too early; without --copy they"
            " are exact to the frame"
        )
    log(f"{len(early)} clips in {output}" + (f", reel {reel}" if reel else ""))
    if missing or problems:
        raise typer.Exit(1)


def _begins(start: float, begins: float | None) -> str:
    if begins is None:
        return "-"
    return f"{begins:.2f} s" + (f" ({begins - start:+.2f})" if abs(begins - start) >= 0.005 else "")


def _detections(path: Path) -> list[tuple[str, Segment]]:
    from vidkd.annotations import Segment
    from vidkd.evaluation import read_detections

    return [
        (video, Segment(item.start, item.end, item.label, item.score))
        for video, items in read_detections(path).items()
        for item in items
    ]


def _labels(
    path: Path, form: str, rate: float | None, folder: VideoFolder
) -> list[tuple[str, Segment]]:
    from vidkd.annotations import load_annotations

    truth = load_annotations(path, form, frame_rate=rate, rate_of=folder.rate)
    return [(video.id, item) for video in truth.videos.values() for item in video.segments]
