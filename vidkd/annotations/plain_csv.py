"""A table: columns video, start, end, label; optional subset, duration, fps; seconds."""

from __future__ import annotations

from vidkd.annotations.model import Annotations, Segment, VideoAnnotation
from vidkd.annotations.parse import Context, Reader, Source, short

_COLUMNS = ("video", "start", "end", "label")


def _read(source: Source, _: float | None) -> Annotations:
    """Read one segment a line; one without label, start and end declares an empty video."""
    root = Context(source.path)
    segments: dict[str, list[Segment]] = {}
    facts: dict[str, dict[str, str]] = {}
    for row in source.rows(_COLUMNS):
        here = root.at(f"video {short(row['video'])}")
        name = here.text(row["video"], "the name of a video")
        found = segments.setdefault(name, [])
        if row["label"].strip() or row["start"].strip() or row["end"].strip():
            label = here.text(row["label"], "a label").strip()
            found.append(here.segment(row["start"], row["end"], label))
        given = {key: row[key].strip() for key in ("subset", "duration", "fps") if row.get(key)}
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


PLAIN_CSV = Reader(
    "a table with the columns video, start, end, label: class names, seconds",
    _read,
    lambda source: source.columns.issuperset(_COLUMNS),
)
