"""LosslessCut projects (.llc): the name of a segment is its class; seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidkd.annotations.media import Mark, OneVideo, counted, is_kind, read_each
from vidkd.annotations.model import Annotations
from vidkd.annotations.parse import Context, Reader, Source, short
from vidkd.files import write_json


def _parse(source: Source) -> list[OneVideo]:
    import json5

    here = Context(source.path)
    try:
        content = json5.loads(source.text)
    except (ValueError, RecursionError) as error:
        raise here.error(
            f"is not a project of LosslessCut ({short(str(error))})", "save it again there"
        ) from error
    content = here.mapping(content, "the whole file")
    marks, notes, instants = [], [], 0
    for item in here.sequence(content.get("cutSegments"), '"cutSegments"'):
        item = here.mapping(item, "a segment")
        start = here.number(item.get("start") or 0, "a start")
        if item.get("end") is None:
            instants += 1
        end = here.number(item["end"], "an end") if item.get("end") is not None else start
        tags = item.get("tags")
        score = tags.get("score") if isinstance(tags, dict) else None
        score = None if score is None else here.number(score, "a score")
        marks.append(Mark("", str(item.get("name") or ""), start, end, score))
    if instants:
        notes.append(
            f"{here.path.name}: {counted(instants, 'segment')} without an end read as instants"
        )
    file = content.get("mediaFileName")
    return [OneVideo(marks, file if isinstance(file, str) and file else None, notes=notes)]


def write(path: Path, annotations: Annotations) -> None:
    """Write one video; a score is a tag of its segment."""
    (video,) = annotations.videos.values()
    segments: list[dict[str, Any]] = []
    for item in video.segments:
        entry: dict[str, Any] = {"start": item.start, "end": item.end, "name": item.label}
        if item.score is not None:
            entry["tags"] = {"score": repr(float(item.score))}
        segments.append(entry)
    name = Path(video.file).name if video.file else f"{path.stem}.mp4"
    content = {"version": 1, "mediaFileName": name, "cutSegments": segments}
    # JSON is JSON5, and LosslessCut reads it.
    write_json(path, content)


LOSSLESSCUT = Reader(
    "LosslessCut .llc, or a folder of them: names of segments",
    lambda source, _: read_each(source, (".llc",), _parse),
    lambda source: is_kind(source, (".llc",)),
)
