"""A table: columns video, start, end, label; optional subset, duration, fps, score; seconds.

Columns are separated by commas, semicolons or tabs, as spreadsheets of different languages do, and
numbers between semicolons may have a decimal comma. A table without a header line has the four
columns in this order. Times may be written 1:02:03.5.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidkd.annotations.media import without_ending
from vidkd.annotations.model import Annotations, Segment, VideoAnnotation
from vidkd.annotations.parse import Context, Reader, Source, short
from vidkd.files import write_text

_COLUMNS = ("video", "start", "end", "label")
_FACTS = ("subset", "duration", "fps")
_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d+)?)")


def _separator(text: str) -> str:
    """Return the separator that makes the most columns of the first line."""
    first = text.partition("\n")[0]
    return max(",;\t", key=first.count)


def _has_header(source: Source) -> bool:
    first = source.text.partition("\n")[0].lower().split(_separator(source.text))
    return {name.strip().strip('"') for name in first}.issuperset(_COLUMNS)


def _recognises(source: Source) -> bool:
    if source.path.is_dir():
        return False
    if _has_header(source):
        return True
    first = source.text.partition("\n")[0].split(_separator(source.text))
    return len(first) == 4 and all(_TIME.fullmatch(field.strip()) for field in first[1:3])


def _rows(source: Source) -> list[dict[str, str]]:
    separator, header = _separator(source.text), None if _has_header(source) else _COLUMNS
    rows = source.rows(_COLUMNS, separator, header)
    return [{key: value.strip() for key, value in row.items()} for row in rows]


def _seconds(here: Context, text: str) -> object:
    """Return what is to be read as a number of seconds."""
    match = _TIME.fullmatch(text)
    if match is None:
        return text
    hours, minutes, seconds = match.groups()
    if minutes is not None and float(seconds.replace(",", ".")) >= 60:
        raise here.error(f"a time has more than 59 seconds: {short(text)}", "correct it")
    whole = 3600 * int(hours or 0) + 60 * int(minutes or 0)
    # A plain number stays text, so that its last digit is kept.
    return whole + float(seconds.replace(",", ".")) if whole else seconds.replace(",", ".")


def _read(source: Source, _: float | None) -> Annotations:
    """Read one segment a line; one without label, start and end declares an empty video."""
    root = Context(source.path)
    segments: dict[str, list[Segment]] = {}
    facts: dict[str, dict[str, str]] = {}
    for row in _rows(source):
        here = root.at(f"video {short(row['video'])}")
        name = without_ending(here.text(row["video"], "the name of a video"))
        found = segments.setdefault(name, [])
        if row["label"] or row["start"] or row["end"]:
            label = here.text(row["label"], "a label")
            segment = here.segment(_seconds(here, row["start"]), _seconds(here, row["end"]), label)
            if row.get("score"):
                segment = replace(segment, score=here.number(row["score"], "a score"))
            found.append(segment)
        given = {key: row[key] for key in _FACTS if row.get(key)}
        for key, value in given.items():
            earlier = facts.setdefault(name, {}).setdefault(key, value)
            if earlier != value:
                raise here.error(
                    f"{key} is {earlier} in one line and {value} in another", "correct it"
                )
    videos = {}
    for name, items in segments.items():
        here, fact = root.at(f"video {short(name)}"), facts.get(name, {})
        videos[name] = VideoAnnotation(
            id=name,
            subset=fact.get("subset", ""),
            duration=here.positive(fact.get("duration"), "the duration"),
            frame_rate=here.positive(fact.get("fps"), "the rate"),
            segments=tuple(items),
        )
    return Annotations.of_labels(videos)


def write(path: Path, annotations: Annotations) -> None:
    """Write a line for each segment, and one without times for a video that has none."""
    scored = any(
        item.score is not None for video in annotations.videos.values() for item in video.segments
    )
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow((*_COLUMNS, *_FACTS, *(["score"] if scored else [])))
    for video in annotations.videos.values():
        facts = [_number(item) for item in (video.duration, video.frame_rate)]
        for item in video.segments or (None,):
            cells: list[Any] = ["", "", ""]
            score: Any = ""
            if item is not None:
                cells = [_number(item.start), _number(item.end), item.label]
                score = _number(item.score)
            table.writerow((video.id, *cells, video.subset, *facts, *([score] if scored else [])))
    write_text(path, text.getvalue())


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))


PLAIN_CSV = Reader(
    "a table with the columns video, start, end, label: class names, seconds", _read, _recognises
)
