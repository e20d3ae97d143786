"""Praat TextGrid: intervals and points on tiers, for one recording a file; seconds."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

from vidkd.annotations.media import Mark, OneVideo, is_kind, lanes, one_line, read_each
from vidkd.annotations.model import Annotations, Segment
from vidkd.annotations.parse import Context, Reader, Source
from vidkd.files import write_text

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
    marks = []
    for tier in tiers:
        for entry in tier.entries:
            if isinstance(tier, textgrid.PointTier):
                # praatio leaves quotation marks doubled in points, other than in intervals.
                text, times = entry.label.replace('""', '"'), (entry.time, entry.time)
            else:
                text, times = entry.label, (entry.start, entry.end)
            start, end = (here.number(time, "a time") for time in times)
            marks.append(Mark(tier.name, text, start, end))
    return [OneVideo(marks, duration=here.positive(grid.maxTimestamp, "the duration"))]


def write(path: Path, annotations: Annotations) -> None:
    """Write one video: a tier for each class, and one of points for its instants.

    Where segments of one class overlap, the later ones stand on a further tier. The grid is as
    long as the video, or, where that is not known, as its last segment reaches. Numbers are written
    with all their digits, which praatio does not do.
    """
    (video,) = annotations.videos.values()
    length = max([video.duration or 0.0, *(item.end for item in video.segments)]) or 1.0
    tiers: list[list[str]] = []
    for name in map(one_line, annotations.classes):
        same = [item for item in video.segments if one_line(item.label) == name]
        longer = [item for item in same if item.end > item.start]
        for number, lane in enumerate(lanes(longer) or [[]], start=1):
            title = name if number == 1 else f"{name} ({number})"
            tiers.append(_intervals(title, name, lane, length))
        points = Counter(item.start for item in same if item.end == item.start)
        # A tier has one point at a time.
        for number in range(1, max(points.values(), default=0) + 1):
            times = sorted(time for time, count in points.items() if count >= number)
            title = f"{name} (points{'' if number == 1 else f' {number}'})"
            tiers.append(_points(title, name, times, length))
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += ["xmin = 0", f"xmax = {_number(length)}", "tiers? <exists>", f"size = {len(tiers)}"]
    lines.append("item []:")
    for number, tier in enumerate(tiers, start=1):
        lines += [f"    item [{number}]:", *(f"        {line}" for line in tier)]
    write_text(path, "\n".join(lines) + "\n")


def _intervals(title: str, name: str, lane: list[Segment], length: float) -> list[str]:
    """Return the lines of a tier whose intervals fill it, those between segments without text."""
    entries: list[tuple[float, float, str]] = []
    place = 0.0
    for item in lane:
        if item.start > place:
            entries.append((place, item.start, ""))
        entries.append((item.start, item.end, name))
        place = item.end
    if place < length:
        entries.append((place, length, ""))
    lines = _head("IntervalTier", title, "intervals", len(entries), length)
    for number, (start, end, text) in enumerate(entries, start=1):
        lines += [f"intervals [{number}]:", f"    xmin = {_number(start)}"]
        lines += [f"    xmax = {_number(end)}", f"    text = {_quoted(text)}"]
    return lines


def _points(title: str, name: str, points: list[float], length: float) -> list[str]:
    lines = _head("TextTier", title, "points", len(points), length)
    for number, time in enumerate(points, start=1):
        lines += [f"points [{number}]:", f"    number = {_number(time)}"]
        lines.append(f"    mark = {_quoted(name)}")
    return lines


def _head(kind: str, title: str, entries: str, count: int, length: float) -> list[str]:
    return [
        *(f'class = "{kind}"', f"name = {_quoted(title)}"),
        *("xmin = 0", f"xmax = {_number(length)}", f"{entries}: size = {count}"),
    ]


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _number(value: float) -> str:
    """Return a number without an exponent, which Praat's own files do not have."""
    return format(Decimal(repr(float(value))), "f")


def _reader(labels: str, help: str) -> Reader:
    return Reader(
        help,
        lambda source, _: read_each(source, _ENDINGS, _parse, labels),
        lambda source: labels == "values" and is_kind(source, _ENDINGS),
    )


TEXTGRID = _reader("values", "Praat TextGrid, or a folder of them: labels are the classes")
TEXTGRID_TIERS = _reader("tiers", "Praat TextGrid, whose tiers are the classes")
