"""One reader for every annotation format; units, label bases and frame rates are explicit."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vidkd.annotations.model import Annotations, Segment, VideoAnnotation
from vidkd.annotations.parse import (
    Context,
    csv_header,
    distinct,
    parse_csv,
    parse_json,
    read_text,
    short,
)
from vidkd.annotations.pku_mmd import read_pku_mmd
from vidkd.annotations.thumos14 import read_thumos14
from vidkd.errors import AnnotationError, UsageError

TSU_FRAME_RATE = 25.0
"""Frames per second of Toyota Smarthome Untrimmed, whose JSON counts in frames."""

_TSU_TRAINING_SUBJECTS = frozenset({3, 4, 6, 7, 9, 12, 13, 15, 17, 19, 25})
_TSU_TRAINING_CAMERAS = frozenset({1, 3, 4, 6, 7})


def load_annotations(
    path: str | Path, format: str = "auto", *, frame_rate: float | None = None
) -> Annotations:
    """Read an annotation file, or a folder of them.

    Args:
        path: the file; for ``pku-mmd`` and ``thumos14`` the folder.
        format: one of ``FORMATS``. ``auto`` tells ActivityNet-style JSON, the Charades CSV and
            the plain CSV apart; the JSON of Charades, MultiTHUMOS and TSU look the same but count
            differently, so those have to be named.
        frame_rate: frames per second, for formats that count in frames (``tsu``, by default 25;
            ``pku-mmd``, by default 30).

    Raises:
        AnnotationError: the file cannot be read or contradicts itself.
        UsageError: there is no such format.
    """
    path = Path(path)
    if format != "auto" and format not in _READERS:
        raise UsageError(
            f"there is no annotation format {format!r}",
            remedy=f"choose one of {', '.join(FORMATS)}",
        )
    if frame_rate is not None and not 0 < frame_rate < 10_000:
        raise UsageError(
            f"a frame rate of {frame_rate:g} makes no sense", remedy="give frames per second"
        )
    if frame_rate is not None and not format.startswith(("tsu", "pku-mmd")):
        raise UsageError(
            f"the format {format} counts in seconds", remedy="leave out the annotations' frame rate"
        )
    if format in _FOLDERS:
        return _FOLDERS[format](path, frame_rate)
    if path.is_dir():
        remedy = f"name its format: one of {', '.join(_FOLDERS)}"
        raise Context(path).error("is a folder and cannot be read as a file", remedy)
    text = read_text(path)
    if format in {"auto", "activitynet"} or format in _NUMBERED:
        content = None
        if format != "auto" or text.lstrip()[:1] in {"{", "["}:
            content = parse_json(text, path)
        if format == "auto":
            format = _detect(content, text, path)
        if format == "activitynet":
            return _read_activitynet(content, path)
        if format in _NUMBERED:
            return _NUMBERED[format](content, path, frame_rate)
    return _TABLES[format](parse_csv(text, path), path)


def _detect(content: Any, text: str, path: Path) -> str:
    if isinstance(content, dict):
        if "database" in content:
            return "activitynet"
        first = next(iter(content.values()), None)
        if isinstance(first, dict) and "actions" in first:
            raise AnnotationError(
                "may count its classes from 0 or 1, and its times in seconds or frames",
                path=path,
                remedy=f"name the format: one of {', '.join(_NUMBERED)}",
            )
    elif content is None:
        columns = set(csv_header(text))
        if {"id", "actions", "length"} <= columns:
            return "charades-csv"
        if {"video", "start", "end", "label"} <= columns:
            return "csv"
    raise AnnotationError(
        "is of no format that can be told from its content",
        path=path,
        remedy=f"name the format: one of {', '.join(FORMATS[1:])}",
    )


def _read_activitynet(content: Any, path: Path) -> Annotations:
    """ActivityNet-style JSON: ``database`` / id / subset, duration, annotations; seconds.

    Optional: ``classes`` at the top, ``fps`` per video, and further text attributes per video.
    Without ``classes``, the labels that occur are the classes, sorted.
    """
    root = Context(path)
    content = root.mapping(content, "the whole file")
    if "database" not in content:
        raise root.error('there is no "database"', "name the right --format")
    videos: dict[str, VideoAnnotation] = {}
    for name, entry in root.mapping(content["database"], '"database"').items():
        here = root.at(f"video {short(name)}")
        here.text(name, "the name of a video")
        entry = here.mapping(entry, "the entry")
        segments = []
        for item in here.sequence(entry.get("annotations", []), '"annotations"'):
            item = here.mapping(item, "an annotation")
            label = here.text(item.get("label"), "a label")
            times = here.sequence(item.get("segment"), "a segment")
            if len(times) != 2:
                raise here.error(f"a segment of {label!r} is not [start, end]", "correct it")
            segments.append(here.segment(times[0], times[1], label))
        videos[name] = VideoAnnotation(
            id=name,
            subset=_subset(entry, here),
            duration=_positive(entry.get("duration"), "the duration", here),
            frame_rate=_positive(entry.get("fps", entry.get("frame_rate")), "the rate", here),
            segments=tuple(segments),
            attributes={
                key: value
                for key, value in entry.items()
                if isinstance(value, str) and key != "subset"
            },
        )
    names = content.get("classes")
    if names is None:
        return Annotations(_labels(videos), videos)
    named = [root.text(name, "a class") for name in root.sequence(names, '"classes"')]
    classes = distinct(named, root)
    known = set(classes)
    for video in videos.values():
        for segment in video.segments:
            if segment.label not in known:
                raise root.at(f"video {short(video.id)}").error(
                    f"the class {short(segment.label)} is unknown",
                    'correct the label, or add it to "classes"',
                )
    return Annotations(classes, videos)


def _labels(videos: dict[str, VideoAnnotation]) -> tuple[str, ...]:
    return tuple(sorted({item.label for video in videos.values() for item in video.segments}))


def _subset(entry: dict[str, Any], here: Context) -> str:
    subset = entry.get("subset", "")
    if not isinstance(subset, str):
        raise here.error(f"the subset is not a name: {short(subset)}", "correct the file")
    return subset


def _positive(value: object, what: str, here: Context) -> float | None:
    if value is None or value == "":
        return None
    number = here.number(value, what)
    if number <= 0:
        raise here.error(f"{what} is {number:g}", "correct it, or leave it out")
    return number


def _numbered(
    content: Any,
    path: Path,
    *,
    classes: Sequence[str],
    first_label: int,
    per_second: float = 1.0,
    frame_rate: float | None = None,
) -> Annotations:
    """The JSON that super-events, PDAN and MS-TCT share: id / subset, duration, actions.

    Args:
        content: the parsed file.
        path: its path, for errors.
        classes: the names of the data set's classes.
        first_label: number of the first class in the file.
        per_second: units of the file's times in one second.
        frame_rate: of the ground truth, if the data set has one.
    """
    root = Context(path)
    videos: dict[str, VideoAnnotation] = {}
    notes: list[str] = []
    for name, entry in root.mapping(content, "the whole file").items():
        here = root.at(f"video {short(name)}")
        here.text(name, "the name of a video")
        entry = here.mapping(entry, "the entry")
        segments = []
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
            last = first_label + len(classes) - 1
            if not isinstance(label, int) or not first_label <= label <= last:
                raise here.error(
                    f"the class {short(label)} is not one of {first_label} to {last}",
                    "correct the label, or name the right --format",
                )
            segment = _lenient(
                start / per_second, end / per_second, classes[label - first_label], here, notes
            )
            segments.extend(segment)
        duration = _positive(entry.get("duration"), "the duration", here)
        videos[name] = VideoAnnotation(
            id=name,
            subset=_subset(entry, here),
            duration=None if duration is None else duration / per_second,
            frame_rate=frame_rate,
            segments=tuple(segments),
        )
    return Annotations(tuple(classes), videos, tuple(notes))


def _lenient(
    start: float, end: float, label: str, here: Context, notes: list[str]
) -> list[Segment]:
    """Return the segment, or nothing and a note when it ends before it starts.

    Charades has seven such segments. No moment lies in one, so that leaving it out is what every
    evaluation of Charades does.
    """
    if end < start:
        notes.append(
            f"{here.place}: {label!r} [{start:g}, {end:g}] ends before it starts; left out"
        )
        return []
    return [Segment(start, end, label)]


_CHARADES_CLASSES = tuple(f"c{number:03d}" for number in range(157))


def _read_charades(content: Any, path: Path, _: float | None) -> Annotations:
    return _numbered(content, path, classes=_CHARADES_CLASSES, first_label=0)


def _read_multithumos(content: Any, path: Path, _: float | None) -> Annotations:
    names = tuple(str(number) for number in range(1, 66))
    return _numbered(content, path, classes=names, first_label=1)


def _read_tsu(content: Any, path: Path, frame_rate: float | None) -> Annotations:
    rate = TSU_FRAME_RATE if frame_rate is None else frame_rate
    names = tuple(str(number) for number in range(51))
    found = _numbered(content, path, classes=names, first_label=0, per_second=rate, frame_rate=rate)
    return _with_tsu_names(found, path, None)


def _read_tsu_cross_subject(content: Any, path: Path, frame_rate: float | None) -> Annotations:
    return _with_tsu_names(_read_tsu(content, path, frame_rate), path, "subject")


def _read_tsu_cross_view(content: Any, path: Path, frame_rate: float | None) -> Annotations:
    return _with_tsu_names(_read_tsu(content, path, frame_rate), path, "view")


def _with_tsu_names(found: Annotations, path: Path, split: str | None) -> Annotations:
    """Add subject and view from names like P02T15C06, and the subset of a split if one is asked."""
    videos = {}
    for name, video in found.videos.items():
        match = re.fullmatch(r"P(\d+)T(\d+)C(\d+)", name)
        subset = video.subset
        attributes = {}
        if match:
            subject, take, camera = match.groups()
            attributes = {"subject": subject, "take": take, "view": camera}
            if split == "subject":
                training = int(subject) in _TSU_TRAINING_SUBJECTS
            else:
                training = int(camera) in _TSU_TRAINING_CAMERAS
            if split:
                subset = "training" if training else "testing"
        elif split:
            raise Context(path, f"video {short(name)}").error(
                "the name does not tell subject and camera (as P02T15C06)",
                "use --format tsu, which takes the subsets of the file",
            )
        videos[name] = VideoAnnotation(
            name, subset, video.duration, video.frame_rate, video.segments, attributes
        )
    return Annotations(found.classes, videos, found.notes)


def _read_charades_csv(rows: list[dict[str, str]], path: Path) -> Annotations:
    """The original CSV: ``actions`` holds ``c092 11.90 21.20;...``, ``length`` seconds."""
    root = Context(path)
    known = set(_CHARADES_CLASSES)
    videos: dict[str, VideoAnnotation] = {}
    notes: list[str] = []
    _require(rows, ("id", "actions", "length"), root)
    subset = next((name for name in ("train", "test") if f"_{name}" in path.name), "")
    for row in rows:
        here = root.at(f"video {short(row['id'])}")
        if here.text(row["id"], "the name of a video") in videos:
            raise here.error("the video is given twice", "keep one of the two lines")
        segments = []
        for action in filter(None, row["actions"].split(";")):
            parts = action.split()
            if len(parts) != 3:
                raise here.error(f"an action is not CLASS START END: {short(action)}", "correct it")
            if parts[0] not in known:
                raise here.error(f"the class {short(parts[0])} is unknown", "correct the label")
            start, end = here.number(parts[1], "a start"), here.number(parts[2], "an end")
            segments.extend(_lenient(start, end, parts[0], here, notes))
        videos[row["id"]] = VideoAnnotation(
            id=row["id"],
            subset=f"{subset}ing" if subset == "test" else "training" if subset else "",
            duration=_positive(row["length"], "the length", here),
            segments=tuple(segments),
            attributes={key: row[key] for key in ("subject", "scene", "script") if row.get(key)},
        )
    return Annotations(_CHARADES_CLASSES, videos, tuple(notes))


def _read_csv(rows: list[dict[str, str]], path: Path) -> Annotations:
    """Columns video, start, end, label; optional subset, duration, fps; seconds.

    A line without label, start and end declares a video that has no segment.
    """
    root = Context(path)
    _require(rows, ("video", "start", "end", "label"), root)
    segments: dict[str, list[Segment]] = {}
    facts: dict[str, dict[str, str]] = {}
    for row in rows:
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
            duration=_positive(fact.get("duration"), "the duration", here),
            frame_rate=_positive(fact.get("fps"), "the rate", here),
            segments=tuple(items),
        )
    return Annotations(_labels(videos), videos)


def _require(rows: list[dict[str, str]], columns: Sequence[str], root: Context) -> None:
    lacking = [name for name in columns if rows and name not in rows[0]]
    if lacking:
        raise root.error(f"the columns {', '.join(lacking)} are missing", "name the right --format")


_NUMBERED: dict[str, Callable[[Any, Path, float | None], Annotations]] = {
    "charades": _read_charades,
    "multithumos": _read_multithumos,
    "tsu": _read_tsu,
    "tsu-cross-subject": _read_tsu_cross_subject,
    "tsu-cross-view": _read_tsu_cross_view,
}
_TABLES: dict[str, Callable[[list[dict[str, str]], Path], Annotations]] = {
    "charades-csv": _read_charades_csv,
    "csv": _read_csv,
}
_FOLDERS: dict[str, Callable[[Path, float | None], Annotations]] = {
    "pku-mmd": read_pku_mmd,
    "pku-mmd-cross-subject": lambda path, rate: read_pku_mmd(path, rate, "cross-subject"),
    "pku-mmd-cross-view": lambda path, rate: read_pku_mmd(path, rate, "cross-view"),
    "thumos14": lambda path, _: read_thumos14(path),
}
_READERS = ("activitynet", *_NUMBERED, *_TABLES, *_FOLDERS)

FORMATS = ("auto", *_READERS)
"""The names that ``load_annotations`` knows."""
