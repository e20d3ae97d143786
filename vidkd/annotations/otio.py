"""OpenTimelineIO (.otio): clips or markers on a timeline; frames, or what rate the file has.

Its JSON is read and written directly: of the library, whose wheel is compiled for each system, only
the names of a few objects would be used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vidkd.annotations.media import Mark, OneVideo, counted, is_kind, lanes, media_path, read_each
from vidkd.annotations.model import Annotations, Segment
from vidkd.annotations.parse import Context, Reader, Source
from vidkd.files import write_json

MILLISECONDS = 1000.0
"""Rate of the times of a video whose frame rate is not known."""


def _parse(source: Source) -> list[OneVideo]:
    here = Context(source.path)
    root = here.mapping(source.json, "the whole file")
    clips, markers = [], []
    for track, clip in _clips(here, root, ""):
        media = _media(clip)
        url = media.get("target_url")
        file = url if isinstance(url, str) and url else None
        whole = media.get("available_range")
        begin = _range(here, whole)[0] if isinstance(whole, dict) else 0.0
        start, end = _range(here, clip.get("source_range") or whole)
        name = clip.get("name") or ""
        name = name if isinstance(name, str) else ""
        # A clip that is merely called like its video is named by its track.
        label = (
            track if file and name in ("", media_path(file).name, media_path(file).stem) else name
        )
        facts = clip.get("metadata")
        facts = facts.get("vidkd") if isinstance(facts, dict) else None
        score = facts.get("score") if isinstance(facts, dict) else None
        score = None if score is None else here.number(score, "a score")
        clips.append((file, Mark(track, label, start - begin, end - begin, score)))
        for marker in here.sequence(clip.get("markers") or [], '"markers"'):
            marker = here.mapping(marker, "a marker")
            low, high = _range(here, marker.get("marked_range"))
            title = marker.get("name")
            if isinstance(title, str) and title.strip():
                markers.append((file, Mark(track, title, low - begin, high - begin)))
    chosen, notes = markers or clips, []
    if markers:
        notes.append(f"{here.path.name}: {counted(len(clips), 'clip')} left out: there are markers")
    named = [(file, mark) for file, mark in chosen if file is not None]
    if named and len(named) < len(chosen):
        other = counted(len(chosen) - len(named), "clip")
        notes.append(f"{here.path.name}: {other} without a file left out")
    found: dict[str | None, OneVideo] = {}
    for file, mark in named or chosen:
        found.setdefault(file, OneVideo([], file)).marks.append(mark)
    videos = list(found.values()) or [OneVideo([])]
    videos[0].notes = notes
    return videos


def _schema(item: object) -> str:
    return str(item.get("OTIO_SCHEMA", "")).partition(".")[0] if isinstance(item, dict) else ""


def _clips(here: Context, item: Any, track: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every clip with the name of its track."""
    kind = _schema(item)
    if kind == "Timeline":
        yield from _clips(here, item.get("tracks"), track)
    elif kind in ("Stack", "Track", "SerializableCollection"):
        inner = str(item.get("name") or track) if kind == "Track" else track
        if kind == "Track" and item.get("kind") == "Audio":
            return
        for child in here.sequence(item.get("children") or [], '"children"'):
            yield from _clips(here, child, inner)
    elif kind == "Clip":
        yield track, item


def _media(clip: dict[str, Any]) -> dict[str, Any]:
    """Return the reference to the video of a clip, whose place differs in both versions."""
    references = clip.get("media_references")
    if isinstance(references, dict):
        chosen = references.get(clip.get("active_media_reference_key", "DEFAULT_MEDIA"))
        return chosen if isinstance(chosen, dict) else {}
    reference = clip.get("media_reference")
    return reference if isinstance(reference, dict) else {}


def _range(here: Context, item: object) -> tuple[float, float]:
    item = here.mapping(item, "a time range")
    start, length = (_time(here, item.get(key)) for key in ("start_time", "duration"))
    return start, start + length


def _time(here: Context, item: object) -> float:
    item = here.mapping(item, "a time")
    rate = here.positive(item.get("rate"), "a rate")
    return here.number(item.get("value"), "a time") / (rate or 1.0)


def write(path: Path, annotations: Annotations) -> None:
    """Write one video: tracks for each class with clips where the segments are.

    Clips are called after their class; scores are in their metadata. Times are frames where the
    rate is known, else milliseconds.
    """
    (video,) = annotations.videos.values()
    rate = video.frame_rate or MILLISECONDS

    def span(start: int, end: int) -> dict[str, Any]:
        times = {"start_time": start, "duration": end - start}
        return {
            "OTIO_SCHEMA": "TimeRange.1",
            **{
                key: {"OTIO_SCHEMA": "RationalTime.1", "rate": rate, "value": value}
                for key, value in times.items()
            },
        }

    def thing(schema: str, name: str, **facts: Any) -> dict[str, Any]:
        return {"OTIO_SCHEMA": schema, "name": name, "metadata": {}, **facts}

    file = video.file or f"{video.id}.mp4"
    url = Path(file).as_uri() if Path(file).is_absolute() else file
    longest = max([video.duration or 0.0, *(item.end for item in video.segments)])
    media = thing(
        "ExternalReference.1",
        Path(file).name,
        target_url=url,
        available_range=span(0, round(longest * rate)),
    )
    tracks = []
    for name in annotations.classes:
        whole = [
            Segment(start, max(start + 1, round(item.end * rate)), name, item.score)
            for item in video.segments
            if item.label == name
            for start in [round(item.start * rate)]
        ]
        for number, lane in enumerate(lanes(whole), start=1):
            children: list[dict[str, Any]] = []
            place = 0
            for item in lane:
                start, end = int(item.start), int(item.end)
                if start > place:
                    children.append(thing("Gap.1", "", source_range=span(0, start - place)))
                clip = thing("Clip.1", name, source_range=span(start, end), media_reference=media)
                if item.score is not None:
                    clip["metadata"] = {"vidkd": {"score": item.score}}
                children.append(clip)
                place = end
            title = name if number == 1 else f"{name} ({number})"
            tracks.append(thing("Track.1", title, kind="Video", children=children))
    stack = thing("Stack.1", "tracks", children=tracks)
    write_json(path, thing("Timeline.1", path.stem, tracks=stack))


OTIO = Reader(
    "OpenTimelineIO .otio, or a folder of them: markers, or else the names of clips",
    lambda source, _: read_each(source, (".otio",), _parse),
    lambda source: is_kind(source, (".otio",)),
)
