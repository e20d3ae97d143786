"""Praat TextGrid: intervals and points on tiers, for one recording a file; seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidkd.annotations.media import Mark, OneVideo, is_kind, lanes, one_line, read_each
from vidkd.annotations.model import Annotations
from vidkd.annotations.parse import Context, Reader, Source
from vidkd.files import atomic_path

_ENDINGS = (".textgrid",)


def _parse(source: Source) -> list[OneVideo]:
    from praatio import textgrid

    here = Context(source.path)
    if "ooTextFile" not in source.text[:200] and "IntervalTier" not in source.text[:2000]:
        raise here.error("is not a TextGrid", "name the right --format")
    try:
        grid = textgrid.openTextgrid(
            str(source.path), False, reportingMode="silence", duplicateNamesMode="rename"
        )
        tiers: list[Any] = list(grid.tiers)
    except Exception as error:  # its parser answers damage with whatever it stumbles over
        problem = one_line(str(error))[:120] or type(error).__name__
        raise here.error(
            f"is not a usable TextGrid ({problem})", "save it again with Praat"
        ) from error
    marks = [
        Mark(
            tier.name,
            # Praat doubles quotation marks, and praatio leaves them so.
            entry.label.replace('""', '"'),
            here.number(getattr(entry, "start", getattr(entry, "time", None)), "a start"),
            here.number(getattr(entry, "end", getattr(entry, "time", None)), "an end"),
        )
        for tier in tiers
        for entry in tier.entries
    ]
    return [OneVideo(marks, duration=here.positive(grid.maxTimestamp, "the duration"))]


def write(path: Path, annotations: Annotations) -> None:
    """Write one video: a tier for each class, and one of points for its instants.

    Where segments of one class overlap, the later ones stand on a further tier. The grid is as
    long as the video, or, where that is not known, as its last segment reaches.
    """
    from praatio import textgrid

    (video,) = annotations.videos.values()
    end = max([video.duration or 0.0, *(item.end for item in video.segments)]) or 1.0
    grid = textgrid.Textgrid(0.0, end)
    for name in annotations.classes:
        same = [item for item in video.segments if item.label == name]
        longer = [item for item in same if item.end > item.start]
        for number, lane in enumerate(lanes(longer) or [[]], start=1):
            entries = [(item.start, item.end, one_line(name)) for item in lane]
            title = one_line(name) if number == 1 else f"{one_line(name)} ({number})"
            grid.addTier(textgrid.IntervalTier(title, entries, 0.0, end))
        points = [(item.start, one_line(name)) for item in same if item.end == item.start]
        if points:
            grid.addTier(textgrid.PointTier(f"{one_line(name)} (points)", points, 0.0, end))
    with atomic_path(path) as temporary:
        grid.save(str(temporary), "long_textgrid", includeBlankSpaces=True, reportingMode="silence")


def _reader(labels: str, help: str) -> Reader:
    return Reader(
        help,
        lambda source, _: read_each(source, _ENDINGS, _parse, labels),
        lambda source: labels == "values" and is_kind(source, _ENDINGS),
    )


TEXTGRID = _reader("values", "Praat TextGrid, or a folder of them: labels are the classes")
TEXTGRID_TIERS = _reader("tiers", "Praat TextGrid, whose tiers are the classes")
