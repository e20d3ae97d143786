"""ActivityNet-style JSON, read and written, which is also vidkd's own format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidkd.annotations.model import Annotations, VideoAnnotation
from vidkd.annotations.parse import Context, Reader, Source, short
from vidkd.files import write_json


def _read(source: Source, _: float | None) -> Annotations:
    """Read ``database`` / id / subset, duration, annotations; seconds.

    Optional: ``classes`` at the top, ``fps`` per video, and further text attributes per video.
    Without ``classes``, the labels that occur are the classes, sorted.
    """
    root = Context(source.path)
    content = root.mapping(source.json, "the whole file")
    if "database" not in content:
        raise root.error('there is no "database"', "name the right --format")
    videos: dict[str, VideoAnnotation] = {}
    for name, entry in root.mapping(content["database"], '"database"').items():
        here = root.at(f"video {short(name)}")
        here.text(name, "the name of a video")
        entry = here.mapping(entry, "the entry")
        videos[name] = VideoAnnotation(
            id=name,
            subset=here.subset(entry),
            duration=here.positive(entry.get("duration"), "the duration"),
            frame_rate=here.positive(entry.get("fps", entry.get("frame_rate")), "the rate"),
            segments=tuple(
                here.labelled_segment(here.mapping(item, "an annotation"))
                for item in here.sequence(entry.get("annotations", []), '"annotations"')
            ),
            attributes={
                key: value
                for key, value in entry.items()
                if isinstance(value, str) and key not in ("subset", "file")
            },
            file=entry["file"] if isinstance(entry.get("file"), str) else None,
        )
    if content.get("classes") is None:
        return Annotations.of_labels(videos)
    classes: list[str] = []
    for item in root.sequence(content["classes"], '"classes"'):
        name = root.text(item, "a class")
        if name in classes:
            raise root.error(f"the class {name!r} is given twice", "keep one of the two")
        classes.append(name)
    known = set(classes)
    for video in videos.values():
        for segment in video.segments:
            if segment.label not in known:
                raise root.at(f"video {short(video.id)}").error(
                    f"the class {short(segment.label)} is unknown",
                    'correct the label, or add it to "classes"',
                )
    return Annotations(tuple(classes), videos)


def write_annotations(path: str | Path, annotations: Annotations) -> None:
    """Write what ``load_annotations`` reads as the format ``activitynet``; times in seconds.

    Raises:
        VidkdError: the file cannot be written.
    """
    database: dict[str, Any] = {}
    for video in annotations.videos.values():
        entry: dict[str, Any] = {**video.attributes, "subset": video.subset}
        if video.duration is not None:
            entry["duration"] = video.duration
        if video.frame_rate is not None:
            entry["fps"] = video.frame_rate
        if video.file is not None:
            entry["file"] = video.file
        entry["annotations"] = [
            {"segment": [item.start, item.end], "label": item.label}
            | ({} if item.score is None else {"score": item.score})
            for item in video.segments
        ]
        database[video.id] = entry
    write_json(
        path, {"version": "vidkd 1", "classes": list(annotations.classes), "database": database}
    )


ACTIVITYNET = Reader(
    "ActivityNet-style JSON, and what vidkd itself writes: class names, seconds",
    _read,
    lambda source: "database" in source.object,
)
