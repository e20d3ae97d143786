"""Label Studio: JSON and JSON-MIN exports, and tasks with annotations or predictions.

Regions of ``TimelineLabels`` count frames from 1, and the last one belongs to them; regions of
``Labels`` on the sound of a video count seconds. The export does not say at which rate the frames
were counted: it is ``frameRate`` of the labelling interface, 24 unless one was set.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from vidkd.annotations.media import counted, video_ids
from vidkd.annotations.model import Annotations, Segment, VideoAnnotation
from vidkd.annotations.parse import Context, Reader, Source, short
from vidkd.files import write_json, write_text

FRAME_RATE = 24.0
"""Frames per second of Label Studio's timeline where none was set."""
_MEDIA = ("video", "video_url", "videos", "url", "audio", "media", "file_upload")
_OWN = ("id", "subset", "fps", "duration")


def _tasks(source: Source) -> list[Any]:
    content = source.json
    return content if isinstance(content, list) else [content]


def _recognises(source: Source) -> bool:
    if source.path.is_dir() or not (source.object or source.text.lstrip().startswith("[")):
        return False
    first = next(iter(_tasks(source)), None)
    if not isinstance(first, dict):
        return False
    if isinstance(first.get("data"), dict):
        return bool({"annotations", "predictions", "completions"} & first.keys())
    return "annotation_id" in first or any(True for _ in _minimal(first))


def _minimal(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the regions of a task of a JSON-MIN export."""
    for value in task.values():
        for item in value if isinstance(value, list) else ():
            if isinstance(item, dict) and (
                "timelinelabels" in item or {"start", "end", "labels"} <= item.keys()
            ):
                yield item


def _read(source: Source, rate: float | None) -> Annotations:
    root = Context(source.path)
    regions: dict[str, list[Any]] = {}
    data: dict[str, dict[str, Any]] = {}
    attributes: dict[str, dict[str, str]] = {}
    notes: list[str] = []
    unlabelled = predictions = 0
    for number, task in enumerate(_tasks(source), start=1):
        here = root.at(f"task {task.get('id', number) if isinstance(task, dict) else number}")
        task = here.mapping(task, "the task")
        inner = task.get("data")
        facts = here.mapping(inner, '"data"') if inner is not None else task
        media = _media(here, facts, task)
        if inner is None:
            done = [list(_minimal(task))]
        else:
            given = task.get("annotations", task.get("completions")) or []
            entries = [
                here.mapping(item, "an annotation")
                for item in here.sequence(given, '"annotations"')
            ]
            done = [
                here.sequence(item.get("result") or [], '"result"')
                for item in entries
                if not item.get("was_cancelled")
            ]
            predictions += sum(
                len(item.get("result") or ())
                for item in task.get("predictions") or ()
                if isinstance(item, dict)
            )
        if not done:
            unlabelled += 1
            continue
        if len(done) > 1:
            notes.append(f"{here.place}: {len(done)} annotations of one video are joined")
        regions.setdefault(media, []).extend(item for items in done for item in items)
        data.setdefault(media, facts)
        # JSON-MIN mixes them with who annotated when.
        known = {} if inner is None else facts
        attributes.setdefault(media, {}).update(
            (key, value)
            for key, value in known.items()
            if isinstance(value, str) and key not in (*_OWN, *_MEDIA)
        )
    if unlabelled:
        notes.append(f"{counted(unlabelled, 'task')} left out: nobody has annotated them")
    if predictions:
        notes.append(f"{counted(predictions, 'prediction')} left out: they are no labels")
    ids = video_ids(regions)
    videos: dict[str, VideoAnnotation] = {}
    others: dict[str, int] = {}
    guessed = 0
    for media, items in regions.items():
        facts = data[media]
        here = root.at(f"video {short(media)}")
        name = facts.get("id") if isinstance(facts.get("id"), str) else None
        if name is not None and f"/{name}".endswith(f"/{ids[media]}"):
            ids[media] = name
        fps = here.positive(facts.get("fps"), "the rate") or rate or source.rate_of(ids[media])
        segments: list[Segment] = []
        for item in items:
            found = list(_segments(here, item, fps or FRAME_RATE))
            segments += (segment for segment, _ in found)
            guessed += any(in_frames for _, in_frames in found) and fps is None
            if not found:
                kind = item.get("type", "region") if isinstance(item, dict) else "region"
                others[str(kind)] = others.get(str(kind), 0) + 1
        videos[ids[media]] = VideoAnnotation(
            id=ids[media],
            subset=here.subset(facts),
            duration=here.positive(facts.get("duration"), "the duration"),
            frame_rate=here.positive(facts.get("fps"), "the rate"),
            segments=tuple(sorted(segments, key=lambda one: (one.start, one.end))),
            attributes=attributes[media],
            file=media,
        )
    notes += (f"{count} {kind} left out: no segments" for kind, count in others.items())
    if guessed:
        notes.append(
            f"{counted(guessed, 'region')} in frames, at a rate that the file does not say:"
            f" {FRAME_RATE:g} per second assumed, Label Studio's default"
        )
    return Annotations.of_labels(videos, notes=notes)


def _media(here: Context, facts: dict[str, Any], task: dict[str, Any]) -> str:
    """Return the path or address of a task's video."""
    named = [facts.get(key) for key in _MEDIA] + [
        value for value in facts.values() if isinstance(value, str) and "/" in value
    ]
    found = [value for value in (*named, task.get("file_upload")) if isinstance(value, str)]
    if not found or not found[0].strip():
        raise here.error('has no video in "data"', "export it with its data")
    return found[0]


def _segments(here: Context, item: Any, fps: float) -> Iterator[tuple[Segment, bool]]:
    """Yield the segments of one region, and whether it counts frames."""
    item = here.mapping(item, "a region")
    value = item.get("value", item)
    value = here.mapping(value, "a region's value")
    labels = value.get("timelinelabels", value.get("labels", value.get("timeserieslabels")))
    if not isinstance(labels, list):
        return
    ranges = value.get("ranges")
    if isinstance(ranges, list):
        pairs = [
            (here.number(part.get("start"), "a start") - 1, here.number(part.get("end"), "an end"))
            for part in (here.mapping(part, "a range") for part in ranges)
        ]
        times = [(max(start, 0.0) / fps, end / fps) for start, end in pairs]
    elif "start" in value and "end" in value and "sequence" not in value:
        times = [(value["start"], value["end"])]
    else:
        return
    for start, end in times:
        for label in labels:
            yield here.segment(start, end, here.text(label, "a label")), isinstance(ranges, list)


def write(path: Path, annotations: Annotations) -> None:
    """Write tasks to import, and beside them the labelling interface that fits.

    Videos are to be served as local files from the folder of the videos. Segments with scores
    become predictions, others annotations.
    """
    scored = any(
        item.score is not None for video in annotations.videos.values() for item in video.segments
    )
    tasks = []
    for video in annotations.videos.values():
        fps = video.frame_rate or FRAME_RATE
        ending = PurePosixPath(video.file or "").suffix or ".mp4"
        result = []
        for number, item in enumerate(video.segments, start=1):
            first = round(item.start * fps) + 1
            region: dict[str, Any] = {
                "id": f"s{number}",
                "from_name": "actions",
                "to_name": "video",
                "type": "timelinelabels",
                "value": {
                    "ranges": [{"start": first, "end": max(first, round(item.end * fps))}],
                    "timelinelabels": [item.label],
                },
            }
            result.append(region if item.score is None else {**region, "score": item.score})
        facts: dict[str, Any] = {
            "video": f"/data/local-files/?d={quote(video.id + ending)}",
            "id": video.id,
            "fps": fps,
        }
        if video.subset:
            facts["subset"] = video.subset
        if video.duration is not None:
            facts["duration"] = video.duration
        task: dict[str, Any] = {"data": {**video.attributes, **facts}}
        if scored:
            best = max((item.score or 0.0 for item in video.segments), default=0.0)
            task["predictions"] = [{"model_version": "vidkd", "score": best, "result": result}]
        else:
            task["annotations"] = [{"result": result}]
        tasks.append(task)
    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in annotations.classes)
    write_text(
        path.with_suffix(".config.xml"),
        '<View>\n  <Video name="video" value="$video" frameRate="$fps" timelineHeight="120"/>\n'
        f'  <TimelineLabels name="actions" toName="video">\n{labels}\n  </TimelineLabels>\n'
        "</View>\n",
    )
    write_json(path, tasks)


LABEL_STUDIO = Reader(
    "Label Studio, JSON or JSON-MIN: timeline labels (frames) and labels (seconds)",
    _read,
    _recognises,
    frames=True,
)
