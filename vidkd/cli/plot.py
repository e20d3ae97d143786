"""``vidkd plot``: training curves of runs, or the timeline of predictions beside annotations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vidkd.cli.export import Format
from vidkd.cli.options import Json, argument, option
from vidkd.console import emit_json, log
from vidkd.errors import AnnotationError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from vidkd.annotations import VideoAnnotation
    from vidkd.evaluation import Detection


def plot(
    output: Annotated[
        Path, option("A .png, .pdf or .svg file.", "OUT.png", names=("--output", "-o"))
    ],
    runs: Annotated[
        list[Path] | None, argument("Run folders, for their training curves.", "[RUN]...")
    ] = None,
    predictions: Annotated[Path | None, option("Segments, for a timeline.", "FILE.json")] = None,
    scores: Annotated[Path | None, option("Dense scores, drawn as curves.", "FILE.h5")] = None,
    annotations: Annotated[Path | None, option("Annotations, drawn in grey.", "FILE")] = None,
    format: Format = "auto",
    video: Annotated[str | None, option("Which video. Default: the only one.", "ID")] = None,
    threshold: Annotated[
        float,
        option("Leave out segments of the predictions below this.", "SCORE", min=0.0, max=1.0),
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Draw training curves of runs, or a timeline of predictions beside annotations."""
    if output.suffix.lower() not in {".png", ".pdf", ".svg"}:
        raise UsageError(
            "has an unknown ending", path=output, remedy="end the picture in .png, .pdf or .svg"
        )
    timeline = predictions is not None or scores is not None
    if bool(runs) == timeline:
        raise UsageError(
            "there is nothing, or too much, to plot",
            remedy="give run folders, or --predictions and/or --scores",
        )
    if runs:
        from vidkd.report.curves import draw_curves

        draw_curves(output, runs)
    else:
        _draw_timeline(output, predictions, scores, annotations, format, video, threshold)
    log(f"wrote {output}")
    if as_json:
        emit_json({"path": str(output)})


def _draw_timeline(
    output: Path,
    predictions: Path | None,
    scores: Path | None,
    annotations: Path | None,
    format: str,
    video: str | None,
    threshold: float,
) -> None:
    from vidkd.annotations import load_annotations
    from vidkd.evaluation import read_dense_scores, read_detections
    from vidkd.report.timeline import Timeline, draw_timeline

    segments: list[Detection] = []
    dense: tuple[np.ndarray, np.ndarray] | None = None
    classes: tuple[str, ...] = ()
    if predictions is not None:
        found = read_detections(predictions)
        video = _chosen(video, list(found), predictions)
        segments = [item for item in found[video] if item.score >= threshold]
    if scores is not None:
        table = read_dense_scores(scores)
        video = _chosen(video, list(table.videos), scores)
        dense, classes = table.videos[video], table.classes
    truth: VideoAnnotation | None = None
    if annotations is not None and video is not None:
        known = load_annotations(annotations, format)
        truth = known.videos[_chosen(video, list(known.videos), annotations)]
        classes = classes or known.classes
    ends = [item.end for item in segments]
    if truth is not None:
        ends += [truth.duration or 0.0] + [item.end for item in truth.segments]
    if dense is not None and len(dense[1]):
        ends.append(float(dense[1][-1, 1]))
    draw_timeline(
        output,
        Timeline(
            title=str(video),
            duration=max(ends, default=0.0),
            classes=classes or tuple(sorted({item.label for item in segments})),
            segments=segments,
            scores=None if dense is None else dense[0],
            pts=None if dense is None else dense[1],
            truth=None if truth is None else truth.segments,
            threshold=threshold or None,
        ),
    )


def _chosen(video: str | None, known: list[str], path: Path) -> str:
    if video is None and len(known) == 1:
        return known[0]
    if video is None:
        raise UsageError(
            f"{path} has {len(known)} videos", remedy="name one with --video (its id in the file)"
        )
    if video in known:
        return video
    shown = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
    raise AnnotationError(
        f"there is no video {video!r}", path=path, remedy=f"name one of {shown or 'another file'}"
    )
