"""Charades: the JSON of the detection papers, and the CSV of the data set."""

from __future__ import annotations

from vidkd.annotations.model import Annotations, Segment, VideoAnnotation
from vidkd.annotations.numbered import add_lenient, is_numbered, read_numbered
from vidkd.annotations.parse import Context, Reader, Source, short

CHARADES_CLASSES = tuple(f"c{number:03d}" for number in range(157))
_COLUMNS = ("id", "actions", "length")


def _read_csv(source: Source, _: float | None) -> Annotations:
    """Read ``Charades_v1_train.csv``: ``actions`` holds ``c092 11.90 21.20;...``, seconds."""
    root = Context(source.path)
    videos: dict[str, VideoAnnotation] = {}
    notes: list[str] = []
    subsets = {"train": "training", "test": "testing"}
    subset = next((subsets[name] for name in subsets if f"_{name}" in source.path.name), "")
    for row in source.rows(_COLUMNS):
        here = root.at(f"video {short(row['id'])}")
        if here.text(row["id"], "the name of a video") in videos:
            raise here.error("the video is given twice", "keep one of the two lines")
        segments: list[Segment] = []
        for action in filter(None, row["actions"].split(";")):
            parts = action.split()
            if len(parts) != 3:
                raise here.error(f"an action is not CLASS START END: {short(action)}", "correct it")
            if parts[0] not in CHARADES_CLASSES:
                raise here.error(f"the class {short(parts[0])} is unknown", "correct the label")
            start, end = here.number(parts[1], "a start"), here.number(parts[2], "an end")
            add_lenient(segments, Segment(start, end, parts[0]), here, notes)
        videos[row["id"]] = VideoAnnotation(
            id=row["id"],
            subset=subset,
            duration=here.positive(row["length"], "the length"),
            segments=tuple(segments),
            attributes={key: row[key] for key in ("subject", "scene", "script") if row.get(key)},
        )
    return Annotations(CHARADES_CLASSES, videos, tuple(notes))


CHARADES = Reader(
    "Charades, JSON of the detection papers: classes from 0, seconds",
    lambda source, _: read_numbered(source, CHARADES_CLASSES),
    is_numbered,
)
CHARADES_CSV = Reader(
    "Charades, CSV of the data set: classes c000 to c156, seconds",
    _read_csv,
    lambda source: source.columns.issuperset(_COLUMNS),
)
