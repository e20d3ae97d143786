"""The JSON that the code of super-events, PDAN and MS-TCT shares: classes are numbers.

Each video has ``subset``, ``duration`` and ``actions``, a list of [class, start, end]. The data
sets differ in the number of the first class and in the unit of time, which no file says.
"""

from __future__ import annotations

from collections.abc import Sequence

from vidkd.annotations.model import Annotations, Segment, VideoAnnotation
from vidkd.annotations.parse import Context, Source, short


def is_numbered(source: Source) -> bool:
    """Return whether a file looks like this JSON."""
    first = next(iter(source.object.values()), None)
    return "database" not in source.object and isinstance(first, dict) and "actions" in first


def read_numbered(
    source: Source, classes: Sequence[str], first: int = 0, frame_rate: float | None = None
) -> Annotations:
    """Read a file.

    Args:
        source: the file.
        classes: the names of the data set's classes.
        first: number of the first class in the file.
        frame_rate: frames per second, where times are frames; None: they are seconds.
    """
    root = Context(source.path)
    per_second = 1.0 if frame_rate is None else frame_rate
    last = first + len(classes) - 1
    videos: dict[str, VideoAnnotation] = {}
    notes: list[str] = []
    for name, entry in root.mapping(source.json, "the whole file").items():
        here = root.at(f"video {short(name)}")
        here.text(name, "the name of a video")
        entry = here.mapping(entry, "the entry")
        segments: list[Segment] = []
        for item in here.sequence(entry.get("actions"), '"actions"'):
            item = here.sequence(item, "an action")
            if len(item) != 3:
                raise here.error(
                    f"an action is not [class, start, end]: {short(item)}", "correct it"
                )
            label, start, end = (
                item[0],
                here.number(item[1], "a start"),
                here.number(item[2], "an end"),
            )
            if not isinstance(label, int) or not first <= label <= last:
                raise here.error(
                    f"the class {short(label)} is not one of {first} to {last}",
                    "correct the label, or name the right --format",
                )
            segment = Segment(start / per_second, end / per_second, classes[label - first])
            add_lenient(segments, segment, here, notes)
        duration = here.positive(entry.get("duration"), "the duration")
        videos[name] = VideoAnnotation(
            id=name,
            subset=here.subset(entry),
            duration=None if duration is None else duration / per_second,
            frame_rate=frame_rate,
            segments=tuple(segments),
        )
    return Annotations(tuple(classes), videos, tuple(notes))


def add_lenient(segments: list[Segment], new: Segment, here: Context, notes: list[str]) -> None:
    """Append a segment, or a note when it ends before it starts.

    Charades has seven such segments. No moment lies in one, so that leaving it out is what every
    evaluation of Charades does.
    """
    if new.end >= new.start:
        segments.append(new)
    else:
        notes.append(
            f"{here.place}: {new.label!r} [{new.start:g}, {new.end:g}] ends before it starts;"
            " left out"
        )
