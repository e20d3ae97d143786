"""``vidkd suggest``: which videos to label next, with the labels that a model would give them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidkd.cli.export import Format, as_annotations
from vidkd.cli.options import Device, Json, flag, option
from vidkd.console import emit, log, progress
from vidkd.errors import UsageError, VidkdError

if TYPE_CHECKING:
    import numpy as np

    from vidkd.detection.detector import DetectionResult
    from vidkd.detection.suggestion import Choice, Part

_PARTS = 3


def suggest(
    model: Annotated[Path, option("Run folder or weights of a student.", "RUN_OR_FILE")],
    output: Annotated[Path, option("Where to write the labels; with --to, as in export.", "PATH")],
    videos: Annotated[Path | None, option("The videos to choose from.", "DIR")] = None,
    cache: Annotated[
        Path | None, option("Take them and their features from this cache instead.", "DIR")
    ] = None,
    annotations: Annotated[
        Path | None,
        option(
            "What is labelled: its videos with segments are not suggested, and with --cache "
            "videos unlike them are preferred.",
            "FILE",
        ),
    ] = None,
    format: Format = "auto",
    number: Annotated[int, option("How many to suggest.", "VIDEOS", min=1)] = 10,
    part: Annotated[float, option("Length of the parts that are ranked.", "SECONDS", min=1)] = 60.0,
    to: Annotated[
        str | None,
        option(
            "Write for an annotation tool; `vidkd data formats` lists them. Default: results as "
            "`detect` writes them.",
            "FORMAT",
        ),
    ] = None,
    overwrite: Annotated[bool, flag("--overwrite", "Replace what is at --output.")] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Suggest which videos to label next, and write what the model finds in them to correct.

    It chooses videos of which the model is unsure, and that are unlike each other and what is
    labelled. For each it names the parts of which it is least sure. Exit code 1 if some videos
    failed.
    """
    from vidkd.detection.suggestion import choose, uncertain_parts, uncertainty
    from vidkd.evaluation import write_detections

    if (videos is None) == (cache is None):
        raise UsageError(
            "there is nothing, or too much, to choose from", remedy="give --videos or --cache"
        )
    if to is None and output.exists() and not overwrite:
        raise UsageError("exists", path=output, remedy="name another, or --overwrite")
    known = _labelled(annotations, format)
    found: dict[str, DetectionResult] = {}
    labelled: list[np.ndarray] = []
    parts: dict[str, list[Part]] = {}
    failures = 0
    for name, result in _results(model, cache, videos, known, device):
        if isinstance(result, VidkdError):
            failures += 1
            log(f"error: {result}")
        elif name is None:
            labelled.append(result.feature_mean)
        else:
            found[name] = result
            parts[name] = uncertain_parts(result, part, _PARTS)
    if not found:
        raise UsageError(
            f"there is no video without labels among {len(labelled) + failures}",
            path=cache or videos,
            remedy="add videos, or leave out --annotations",
        )
    import numpy as np

    names = list(found)
    means = np.stack([found[name].feature_mean for name in names])
    others = np.stack(labelled) if labelled else means[:0]
    unsure = [uncertainty(found[name]) for name in names]
    chosen = choose(unsure, means, others, number)
    made = {names[item.number]: found[names[item.number]].segments for item in chosen}
    rows = [
        _row(place, names[item.number], item, parts[names[item.number]])
        for place, item in enumerate(chosen, start=1)
    ]
    if to is None:
        write_detections(output, made, {"model": str(model), "suggestions": rows})
    else:
        from vidkd.annotations.writers import write_as

        truth = as_annotations(made, None)
        if videos is not None:
            from vidkd.cli.export import completed
            from vidkd.video import VideoFolder

            truth = completed(truth, VideoFolder(videos))
        _, notes = write_as(output, to, truth, overwrite=overwrite)
        for note in notes:
            log(f"note: {note}")
    emit(
        rows,
        as_json,
        ("video", "uncertainty", "distance", "segments", "least sure"),
        [
            (
                row["video"],
                f"{row['uncertainty']:.3f}",
                _shown(row["distance"]),
                len(made[str(row["video"])]),
                _spans(parts[str(row["video"])]),
            )
            for row in rows
        ],
        f"to label next, of {len(names)}",
    )
    log(f"wrote {output}")
    if failures:
        log(f"{failures} videos failed")
        raise typer.Exit(1)


Found = Iterator[tuple[str | None, "DetectionResult | VidkdError"]]
"""Name and result of videos; no name for one that has labels."""


def _labelled(path: Path | None, form: str) -> list[str]:
    from vidkd.annotations import load_annotations

    if path is None:
        return []
    return [v.id for v in load_annotations(path, form).videos.values() if v.segments]


def _results(
    model: Path, cache: Path | None, folder: Path | None, labelled: list[str], device: str
) -> Found:
    """Yield what the model finds; in a cache it also sees what has labels, to compare with."""
    from vidkd.detection.detector import Detector, FeatureDetector
    from vidkd.keys import KeyIndex
    from vidkd.streams import STREAMS
    from vidkd.video import find_videos

    detector: Detector | FeatureDetector
    if cache is not None:
        detector = FeatureDetector(model, device)
        header = detector.scorer.students[0].header
        index = STREAMS[header.modality].files(cache, header.encoder)
    else:
        folder = folder or Path()
        index = KeyIndex({item.key: item.path for item in find_videos([folder])}, folder)
        detector = Detector(model, device)
    known = {index.key(name) for name in labelled}
    todo = {k: path for k, path in index.items.items() if cache is not None or k not in known}
    with progress("suggest", len(todo), "videos") as advance:
        for key, path in todo.items():
            try:
                yield (None if key in known else key), detector(path)
            except VidkdError as error:
                yield key, error
            advance(1)


def _row(place: int, video: str, item: Choice, parts: list[Part]) -> dict[str, object]:
    from dataclasses import asdict
    from math import isfinite

    return {
        "rank": place,
        "video": video,
        "uncertainty": item.uncertainty,
        "distance": item.distance if isfinite(item.distance) else None,
        "parts": [asdict(one) for one in parts],
    }


def _shown(value: object) -> str:
    return "" if value is None else f"{value:.2f}"


def _spans(parts: list[Part]) -> str:
    from vidkd.report.segments import clock

    return ", ".join(f"{clock(item.start)}-{clock(item.end)}" for item in parts)
