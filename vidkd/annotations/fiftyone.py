"""FiftyOne: temporal detections, as FiftyOneTemporalDetectionDataset or FiftyOneDataset.

The first is a folder with ``labels.json``, the second one with ``samples.json``. Detections have
``timestamps`` in seconds, or a ``support`` of frames, counted from 1, to which the last belongs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidkd.annotations.media import counted, video_ids
from vidkd.annotations.model import Annotations, Segment, VideoAnnotation
from vidkd.annotations.parse import Context, Reader, Source, short
from vidkd.files import write_json

_NAMES = ("labels.json", "samples.json")


def _file(source: Source) -> Source | None:
    if not source.path.is_dir():
        return source
    found = [source.path / name for name in _NAMES if (source.path / name).is_file()]
    return Source(found[0], source.rate_of) if found else None


def _recognises(source: Source) -> bool:
    file = _file(source)
    if file is None:
        return False
    labels = file.object.get("labels")
    samples = file.object.get("samples")
    if isinstance(labels, dict):
        return all(items is None or isinstance(items, list) for items in labels.values())
    return isinstance(samples, list) and any(
        isinstance(item, dict) and "filepath" in item for item in samples
    )


def _read(source: Source, rate: float | None) -> Annotations:
    file = _file(source)
    if file is None:
        raise Context(source.path).error("has no labels.json", "check the folder")
    root = Context(file.path)
    content = root.mapping(file.json, "the whole file")
    if "samples" in content:
        return _samples(root, root.sequence(content["samples"], '"samples"'), source, rate)
    classes = content.get("classes")
    listed = [] if classes is None else root.sequence(classes, '"classes"')
    names = [root.text(item, "a class") for item in listed]
    videos = {}
    for name, items in root.mapping(content.get("labels"), '"labels"').items():
        here = root.at(f"video {short(name)}")
        # A video without labels has null.
        detections = here.sequence(items if items is not None else [], "its labels")
        segments = _segments(here, detections, names, rate, name, source)
        videos[name] = VideoAnnotation(name, segments=segments)
    return Annotations.of_labels(videos, names)


def _samples(root: Context, samples: list[Any], source: Source, rate: float | None) -> Annotations:
    """Read the samples of a whole data set; tags that name a subset are the subset."""
    entries = [root.mapping(item, "a sample") for item in samples]
    files = [root.text(item.get("filepath"), "a file path") for item in entries]
    ids = video_ids(files)
    videos, others = {}, 0
    for file, entry in zip(files, entries, strict=True):
        name = ids[file]
        here = root.at(f"video {short(name)}")
        facts = entry.get("metadata")
        facts = facts if isinstance(facts, dict) else {}
        own = here.positive(facts.get("frame_rate"), "the rate")
        segments: tuple[Segment, ...] = ()
        for value in entry.values():
            if not isinstance(value, dict) or "_cls" not in value:
                continue
            if value["_cls"] == "TemporalDetections":
                items = here.sequence(value.get("detections") or [], '"detections"')
            elif value["_cls"] == "TemporalDetection":
                items = [value]
            else:
                others += value["_cls"] != "VideoMetadata"
                continue
            segments += _segments(here, items, (), own or rate, name, source)
        subsets = {"train": "training", "validation": "validation", "test": "testing"}
        tags = entry.get("tags")
        tags = tags if isinstance(tags, list) else []
        known = subsets | {name: name for name in subsets.values()}
        chosen = [known[tag] for tag in tags if isinstance(tag, str) and tag in known]
        videos[name] = VideoAnnotation(
            id=name,
            subset=chosen[0] if chosen else "",
            duration=here.positive(facts.get("duration"), "the duration"),
            frame_rate=own,
            segments=tuple(sorted(segments, key=lambda item: (item.start, item.end))),
            file=file,
        )
    notes = [f"{counted(others, 'label')} of other kinds left out"] if others else []
    return Annotations.of_labels(videos, notes=notes)


def _segments(
    here: Context,
    items: list[Any],
    names: Sequence[str],
    rate: float | None,
    video: str,
    source: Source,
) -> tuple[Segment, ...]:
    segments = []
    for item in items:
        item = here.mapping(item, "a detection")
        label = item.get("label", item.get("target"))
        if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(names):
            label = names[label]
        label = here.text(label, "a label")
        times, support = item.get("timestamps"), item.get("support")
        pair = here.sequence(times if times is not None else support, "a support")
        if len(pair) != 2:
            raise here.error(f"a segment of {label!r} is not [first, last]", "correct it")
        if times is None:
            rate = rate or source.rate_of(video)
            if rate is None:
                raise here.error(
                    "counts in frames, and nothing says how many there are per second",
                    "give --annotation-rate, or convert it with `vidkd data convert --videos DIR`",
                )
            first, last = (here.number(value, "a frame") for value in pair)
            pair = [(first - 1) / rate, last / rate]
        segment = here.segment(pair[0], pair[1], label)
        score = item.get("confidence")
        score = None if score is None else here.number(score, "a confidence")
        segments.append(Segment(segment.start, segment.end, label, score))
    return tuple(segments)


def write(path: Path, annotations: Annotations) -> None:
    """Write ``labels.json`` with timestamps; videos are called by their ids."""
    labels = {}
    for video in annotations.videos.values():
        items = []
        for item in video.segments:
            entry: dict[str, Any] = {
                "label": item.label,
                "timestamps": [item.start, item.end],
            }
            if item.score is not None:
                entry["confidence"] = item.score
            items.append(entry)
        labels[video.id] = items
    write_json(path, {"classes": list(annotations.classes), "labels": labels})


FIFTYONE = Reader(
    "FiftyOne temporal detections: labels.json or samples.json, or their folder",
    _read,
    _recognises,
    frames=True,
)
