"""Names of videos in the files of annotation tools, and files that hold one video each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from vidkd.annotations.model import Annotations, Segment, VideoAnnotation
from vidkd.annotations.parse import Context, Source, short
from vidkd.keys import VIDEO_SUFFIXES

_FURTHER = re.compile(r" \((?:\d+|points(?: \d+)?)\)$")
"""End of the names of tiers on which a class goes on."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One annotation of a tool that keeps them on named tiers; seconds."""

    tier: str
    value: str
    start: float
    end: float
    score: float | None = None


@dataclass
class OneVideo:
    """What a file that holds one video says."""

    marks: list[Mark]
    file: str | None = None
    """The video file that it names, if any."""
    duration: float | None = None
    frame_rate: float | None = None
    classes: Sequence[str] = ()
    """All classes, where the file lists them."""
    notes: list[str] = field(default_factory=list)


def media_path(name: str) -> PurePosixPath:
    """Return a path or address of a video as a path with ``/``, without host and escapes.

    Label Studio keeps the path of a local file in a query, and puts eight digits before the name
    of an uploaded one.
    """
    name = name.strip().replace("\\", "/")
    if "://" in name or name.startswith(("/data/", "file:")):
        parts = urlsplit(name)
        local = parse_qs(parts.query).get("d", [""])[0]
        name = local or unquote(parts.path)
        if "/data/upload/" in parts.path:
            name = re.sub(r"/[0-9a-f]{8}-([^/]+)$", r"/\1", name)
    return PurePosixPath(re.sub(r"^/?[A-Za-z]:/", "/", name))


def without_ending(name: str) -> str:
    """Return a name without the ending of a video file, if it has one."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in VIDEO_SUFFIXES else name


def video_ids(files: Iterable[str]) -> dict[str, str]:
    """Return an id for each path or address of a video: its name, with folders where needed.

    The id is as short as it can be while all are distinct. Files of which only the endings differ
    keep these, and uploads of the same name the names under which they are stored.
    """
    paths = {file: media_path(file) for file in files}
    parts = {file: [*path.parts[:-1], path.stem] for file, path in paths.items()}
    found: dict[str, str] = {}
    length = 1
    while parts:
        ids = {file: "/".join(names[-length:]).lstrip("/") for file, names in parts.items()}
        taken = Counter(ids.values())
        longest = max(map(len, parts.values()))
        done = [file for file in parts if taken[ids[file]] == 1 or length >= longest]
        found.update((file, ids[file]) for file in done)
        parts = {file: names for file, names in parts.items() if file not in found}
        length += 1
    for longer in (lambda file: str(paths[file]).lstrip("/"), str):
        taken = Counter(found.values())
        found = {file: found[file] if taken[found[file]] == 1 else longer(file) for file in paths}
    return found


def files_of(source: Source, endings: Sequence[str]) -> list[Path]:
    """Return the file itself, or the files of a folder with one of the endings, in order."""
    if not source.path.is_dir():
        return [source.path]
    return [
        path
        for path in sorted(source.path.rglob("*"))
        if path.suffix.lower() in endings
        and not any(part.startswith(".") for part in path.relative_to(source.path).parts)
        and path.is_file()
    ]


def is_kind(
    source: Source, endings: Sequence[str], looks_right: Callable[[Source], bool] | None = None
) -> bool:
    """Return whether a file, or one of the first files of a folder, is of a kind."""
    if not source.path.is_dir():
        known = source.path.suffix.lower() in endings
        return known and (looks_right is None or looks_right(source))
    files = files_of(source, endings)[:20]
    return any(looks_right is None or looks_right(Source(file)) for file in files)


def read_each(
    source: Source,
    endings: Sequence[str],
    parse: Callable[[Source], Sequence[OneVideo]],
    labels: str = "values",
) -> Annotations:
    """Read a file that mostly holds one video, or a folder of such files.

    A video is called after the video file that its annotation file names, or after the annotation
    file itself; below a folder, with the folders in between.

    Args:
        source: the file or folder.
        endings: of such files in a folder, in lower case.
        parse: reads one of them; each of several videos must name its video file.
        labels: ``values`` or ``tiers``: what the classes are; ``auto`` takes the tiers where most
            values are empty, and else for a value that is empty on a tier called like a class.
    """
    root = Context(source.path)
    paths = files_of(source, endings)
    if not paths:
        raise root.error(f"has no file *{endings[0]}", "check the folder, or name the --format")
    content = [
        (path, item)
        for path in paths
        for item in parse(source if path == source.path else replace(source, path=path))
    ]
    marks = [mark for _, item in content for mark in item.marks]
    notes = [note for _, item in content for note in item.notes]
    tiers = {one_line(mark.tier) for mark in marks}
    listed = {name for _, item in content for name in item.classes}
    by_tier = labels == "auto"
    if labels == "auto":
        filled = sum(bool(mark.value.strip()) for mark in marks)
        labels = "values" if 2 * filled >= len(marks) else "tiers"
    classes = listed | {one_line(mark.value) for mark in marks}
    videos: dict[str, VideoAnnotation] = {}
    unnamed = ignored = 0
    for (path, item), name in zip(content, _ids(source.path, content), strict=True):
        segments = []
        for mark in item.marks:
            # A class whose segments overlap is on several tiers (``lanes``).
            tier = one_line(mark.tier)
            base = _FURTHER.sub("", tier)
            tier = base if base in tiers | listed else tier
            label = tier if labels == "tiers" else one_line(mark.value)
            # Somebody who adds a segment to the tier of a class may give it no value.
            if not label and by_tier and tier in classes:
                label = tier
            ignored += labels == "tiers" and one_line(mark.value) not in ("", label)
            if not label:
                unnamed += 1
                continue
            segment = Context(path).segment(mark.start, mark.end, label)
            segments.append(replace(segment, score=mark.score))
        videos[name] = VideoAnnotation(
            id=name,
            duration=item.duration,
            frame_rate=item.frame_rate,
            segments=tuple(sorted(segments, key=lambda one: (one.start, one.end))),
            file=item.file,
        )
    if unnamed:
        notes.append(f"{counted(unnamed, 'annotation')} without a value left out")
    if ignored:
        notes.append(f"{counted(ignored, 'value')} left out: the tiers are taken for the classes")
    found = Annotations.of_labels(videos, notes=notes)
    if labels == "tiers" and not listed.intersection(found.classes):
        return found
    order = (name for _, item in content for name in item.classes)
    return Annotations.of_labels(videos, order, notes)


def _ids(root: Path, content: Sequence[tuple[Path, OneVideo]]) -> list[str]:
    """Return the id of each video."""

    def under(path: Path, name: str) -> str:
        folder = path.parent.relative_to(root) if path != root else Path()
        return (folder / name).as_posix()

    own = [under(path, without_ending(path.stem)) for path, _ in content]
    found = [
        under(path, media_path(item.file).stem) if item.file else name
        for (path, item), name in zip(content, own, strict=True)
    ]
    # Files that were made from one template may all name the same video.
    taken = Counter(found)
    found = [name if taken[name] == 1 else other for name, other in zip(found, own, strict=True)]
    for name, count in Counter(found).items():
        if count > 1:
            files = sorted(
                {
                    path.name
                    for (path, _), other in zip(content, found, strict=True)
                    if other == name
                }
            )
            raise Context(root).error(
                f"{' and '.join(files[:2])} {'are both' if len(files) > 1 else 'is'} of video"
                f" {short(name)}{'' if len(files) > 1 else ' more than once'}",
                "keep one of them",
            )
    return found


def one_line(text: str) -> str:
    """Return text without line breaks and tabs, which separate lines and fields in many formats."""
    return " ".join(text.split())


def lanes(segments: Iterable[Segment]) -> list[list[Segment]]:
    """Share segments out, in order of time, so that those of one lane do not overlap."""
    found: list[list[Segment]] = []
    for segment in sorted(segments, key=lambda item: (item.start, item.end)):
        for lane in found:
            if lane[-1].end <= segment.start:
                lane.append(segment)
                break
        else:
            found.append([segment])
    return found


def counted(count: int, what: str) -> str:
    """Return a number with the noun that it counts, such as ``1 clip`` and ``2 clips``."""
    many = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{count} {what if count == 1 else many}"
