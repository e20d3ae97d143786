"""First steps: what videos and labels hold, and their division into subsets."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vidkd.annotations import Annotations, VideoAnnotation, load_annotations
from vidkd.annotations.division import SUBSETS, divide
from vidkd.differences import listed
from vidkd.errors import AnnotationError, UsageError, VideoError
from vidkd.keys import KeyIndex
from vidkd.video import VideoFile, VideoFolder, VideoInfo, find_videos, probe

SHARES = (60.0, 20.0, 20.0)
"""Per cent of the videos for training, validation and testing."""
_OTHER_NAMES = {
    "train": "training",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "testing",
}
"""What tools call the subsets."""


@dataclass
class Survey:
    """What videos and labels hold, and what does not fit together.

    Attributes:
        annotations: the videos that have a readable file, named by their keys, with durations and
            rates of the files, and segments cut to the end of the video.
        infos: what the containers say, by key.
        notes: what was left out or changed, and why.
    """

    annotations: Annotations
    infos: dict[str, VideoInfo]
    notes: list[str] = field(default_factory=list)

    @property
    def lengths(self) -> list[float]:
        """Seconds of every segment, ascending."""
        return sorted(
            item.end - item.start
            for video in self.annotations.videos.values()
            for item in video.segments
        )

    def to_json(self) -> dict[str, Any]:
        """Return what was found as JSON values; times in seconds."""
        videos = self.annotations.videos.values()
        seconds = sum(video.duration or 0.0 for video in videos)
        covered, doubled = map(sum, zip(*map(_coverage, videos), strict=True))
        return {
            "videos": len(videos),
            "hours": seconds / 3600,
            "segments": len(self.lengths),
            "median_seconds": statistics.median(self.lengths),
            "labelled_share": covered / seconds if seconds else 0.0,
            "overlapping_share": doubled / seconds if seconds else 0.0,
            "classes": {
                name: {
                    "segments": len(lengths),
                    "median_seconds": statistics.median(lengths) if lengths else None,
                    "videos": sum(any(i.label == name for i in v.segments) for v in videos),
                }
                for name in self.annotations.classes
                for lengths in [
                    [i.end - i.start for v in videos for i in v.segments if i.label == name]
                ]
            },
            "notes": self.notes,
        }


def _coverage(video: VideoAnnotation) -> tuple[float, float]:
    """Return the seconds of a video with at least one, and with at least two segments."""
    borders = sorted(
        [(item.start, 1) for item in video.segments] + [(item.end, -1) for item in video.segments]
    )
    once = twice = before = 0.0
    depth = 0
    for time, step in borders:
        once += (time - before) * (depth >= 1)
        twice += (time - before) * (depth >= 2)
        depth, before = depth + step, time
    return once, twice


def survey(
    videos: Path, labels: Path, format: str = "auto", annotation_rate: float | None = None
) -> Survey:
    """Look at a folder of videos and at their labels.

    Args:
        videos: the folder, searched recursively.
        labels: a file or folder of any format that is read.
        format: of the labels, see ``vidkd.annotations.load_annotations``.
        annotation_rate: frames per second, for formats that count in frames.

    Raises:
        UsageError: ``videos`` is not a folder, or labels name a video so that several could be
            meant, or one video twice.
        AnnotationError: the labels cannot be read, or fit none of the videos.
    """
    if not videos.is_dir():
        raise UsageError("is not a folder", path=videos, remedy="give the folder of the videos")
    found = {item.key: item for item in find_videos([videos])}
    index = KeyIndex(found, videos)
    truth = load_annotations(
        labels, format, frame_rate=annotation_rate, rate_of=VideoFolder(videos).rate
    )
    result = Survey(truth, {}, list(truth.notes))
    kept: dict[str, VideoAnnotation] = {}
    names: dict[str, str] = {}
    missing, broken = [], []
    for name, video in truth.videos.items():
        key = index.key(name)
        if key is None:
            missing.append(name)
            continue
        if (other := names.setdefault(key, name)) != name:
            raise UsageError(
                f"names the video {key} twice, as {other!r} and {name!r}",
                path=labels,
                remedy="keep one of the two",
            )
        try:
            info = probe(found[key].path)
        except VideoError as error:
            broken.append(key)
            result.notes.append(f"left out: {error}")
            continue
        result.infos[key] = info
        kept[key] = _fitted(key, video, info, result.notes)
    _note_names(result.notes, missing, found, names, index)
    if not kept:
        raise AnnotationError(
            f"no label belongs to a readable video; labels name {listed(list(truth.videos))},"
            f" videos are called {listed(list(found))}",
            path=labels,
            remedy="make the names the same (endings do not count, folders only where needed)",
        )
    classes = {item.label for video in kept.values() for item in video.segments}
    if not classes:
        raise AnnotationError(
            "there is not one segment", path=labels, remedy="label some actions first"
        )
    lost = [name for name in truth.classes if name not in classes]
    if lost:
        result.notes.append(f"left out: classes without a segment: {listed(lost)}")
    names_left = tuple(name for name in truth.classes if name in classes)
    result.annotations = Annotations(names_left, kept)
    return result


def _fitted(key: str, video: VideoAnnotation, info: VideoInfo, notes: list[str]) -> VideoAnnotation:
    """Return what is known of a video, with its own duration and rate, cut to its end."""
    duration = info.duration or video.duration
    limit = float("inf") if duration is None else duration
    segments = []
    for item in dict.fromkeys(video.segments):
        what = f"{key}: {item.label!r} [{item.start:g}, {item.end:g}]"
        if item.start >= limit:
            notes.append(f"left out: {what} lies past the end at {limit:g} s")
            continue
        if item.end > limit + float(1 / info.frame_rate) or item.start < 0:
            notes.append(f"cut: {what} to the video, which lasts {limit:g} s")
        segments.append(replace(item, start=max(item.start, 0.0), end=min(item.end, limit)))
    if len(set(video.segments)) < len(video.segments):
        notes.append(f"left out: {key}: segments that are given twice")
    return replace(
        video,
        id=key,
        duration=duration,
        frame_rate=float(info.frame_rate),
        segments=tuple(segments),
        file=None,
    )


def _note_names(
    notes: list[str],
    missing: list[str],
    found: Mapping[str, VideoFile],
    names: Mapping[str, str],
    index: KeyIndex[VideoFile],
) -> None:
    from vidkd.features.data_report import similar

    unlabelled = [key for key in found if key not in names]
    if missing:
        hints = "".join(similar(index, name) for name in missing[:1])
        notes.append(
            f"left out: labels of {len(missing)} without a video: {listed(missing)}{hints}"
        )
    if unlabelled:
        notes.append(
            f"left out: {len(unlabelled)} videos without labels: {listed(unlabelled)} (a line with"
            " the name alone says that nothing happens in one)"
        )


@dataclass(frozen=True)
class Division:
    """How videos are divided.

    Attributes:
        pattern: regular expression whose first group, or else whose match, in the name of a video
            is its subject, or whatever else must not lie in two subsets.
        by: ``subject``, ``folder``, ``random``, or ``auto``.
        shares: per cent for training, validation and testing.
        seed: of what is random.
    """

    pattern: str | None = None
    by: str = "auto"
    shares: tuple[float, float, float] = SHARES
    seed: int = 0


def divided(found: Survey, how: Division) -> tuple[Annotations, str]:
    """Return the annotations of a survey in subsets, and how these came about, for a person.

    Subsets that the labels have are kept; of those that are missing each gets a part of what is
    for training, or belongs to no subset.

    Raises:
        UsageError: the pattern makes no sense or does not fit, or there are too few videos.
        AnnotationError: the labels have subsets of other names.
    """
    annotations = _renamed(found.annotations)
    shares = dict(zip(SUBSETS, how.shares, strict=True))
    if all(name in annotations.subsets for name in SUBSETS) and "" not in annotations.subsets:
        return annotations, "as the labels say"
    sources, by = _sources(annotations, how)
    kept = {k: v for k, v in annotations.videos.items() if v.subset in SUBSETS[1:]}
    rest = {k: v for k, v in annotations.videos.items() if k not in kept}
    lacking = {k: s for k, s in shares.items() if k == SUBSETS[0] or k not in annotations.subsets}
    if not kept and not any(video.subset for video in rest.values()):
        return divide(annotations, sources, shares, how.seed), by
    known = f"{', '.join(name for name in annotations.subsets if name)} as the labels say"
    apart = {sources[key] for key in kept}
    if how.pattern and (both := sorted({sources[key] for key in rest} & apart)):
        raise UsageError(
            f"the labels have {listed(both)} in two subsets",
            remedy="leave out the subsets of the labels, or --subject-pattern",
        )
    if len(lacking) == 1:
        again = replace(
            annotations, videos={k: replace(v, subset=SUBSETS[0]) for k, v in rest.items()}
        )
    else:
        again = divide(replace(annotations, videos=rest), sources, lacking, how.seed)
    both_videos = {key: again.videos.get(key) or kept[key] for key in annotations.videos}
    return replace(annotations, videos=both_videos), f"{known}; {', '.join(lacking)} {by}"


def _renamed(annotations: Annotations) -> Annotations:
    """Return the annotations with the subsets under our names."""
    videos = {}
    for key, video in annotations.videos.items():
        name = video.subset.strip().lower()
        videos[key] = replace(video, subset=_OTHER_NAMES.get(name, name))
    found = replace(annotations, videos=videos)
    if others := [name for name in found.subsets if name and name not in SUBSETS]:
        raise AnnotationError(
            f"there are subsets called {listed(others)}",
            remedy="rename them to training, validation and testing with `vidkd data convert"
            " --rename OLD=NEW`, or leave them out",
        )
    return found


def _sources(annotations: Annotations, how: Division) -> tuple[dict[str, str], str]:
    """Return what each video is from, and a phrase for it."""
    videos = annotations.videos
    by = "subject" if how.pattern else how.by
    subjects = {key: video.attributes.get("subject", "") for key, video in videos.items()}
    folders = {key: key.rpartition("/")[0] for key in videos}
    if how.pattern:
        return _matched(
            how.pattern, list(videos)
        ), f"divided by what {how.pattern!r} finds in their names"
    if by == "auto":
        by = "random"
        if all(subjects.values()) and _may_divide(subjects):
            by = "subject"
        elif _may_divide(folders):
            by = "folder"
    if by == "subject":
        if not all(subjects.values()):
            raise UsageError(
                "the labels do not name the subject of every video",
                remedy="give --subject-pattern, which finds it in the videos' names",
            )
        return subjects, "divided by the subjects that the labels name"
    if by == "folder":
        return folders, "divided by folder"
    return {key: key for key in videos}, f"divided at random, seed {how.seed}"


def _may_divide(sources: Mapping[str, str]) -> bool:
    """Say whether sources are enough for the subsets, and none has most of the videos."""
    sizes = Counter(sources.values())
    return len(sizes) >= len(SUBSETS) and max(sizes.values()) <= len(sources) / 2


def _matched(pattern: str, keys: Sequence[str]) -> dict[str, str]:
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"--subject-pattern {pattern!r} is not a regular expression ({error})",
            remedy="give one such as '^(S[0-9]+)_'",
        ) from error
    found: dict[str, str] = {}
    without = []
    for key in keys:
        match = regex.search(key)
        text = None if match is None else (match[1] if regex.groups else match[0])
        if text:
            found[key] = text
        else:
            without.append(key)
    if without:
        raise UsageError(
            f"--subject-pattern {pattern!r} finds nothing in {listed(without)}",
            remedy="give one that fits all names; it is searched for in FOLDER/NAME without ending",
        )
    return found


def missing_classes(annotations: Annotations) -> list[str]:
    """Return a phrase for every class that a subset lacks."""
    phrases = []
    for subset, consequence in zip(
        SUBSETS,
        ("cannot be learnt", "does not count when the epoch is chosen", "cannot be measured"),
        strict=True,
    ):
        videos = annotations.subset(subset).videos.values()
        there = {item.label for video in videos for item in video.segments}
        for name in annotations.classes:
            if name not in there:
                phrases.append(f"{subset} has no {name!r}, which {consequence}")
    return phrases
