"""The one internal model that every annotation format is read into."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vidkd.errors import AnnotationError

AMBIGUOUS = "Ambiguous"
"""Label of segments that are neither an action nor background (THUMOS14)."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One action: ``start`` and ``end`` in seconds since the first frame, ``end >= start``."""

    start: float
    end: float
    label: str
    score: float | None = None
    """Of a detection, higher is surer; None for what a person has labelled."""


@dataclass(frozen=True)
class VideoAnnotation:
    """What is known of one video."""

    id: str
    """Name of the video, which is also the key of its results."""
    subset: str = ""
    """Such as ``training``, ``validation`` or ``testing``; empty when the file has none."""
    duration: float | None = None
    """Seconds, or None when the file does not say."""
    frame_rate: float | None = None
    """Frames per second of the ground truth, or None when the file does not say."""
    segments: tuple[Segment, ...] = ()
    """In the order of the file; they may overlap and may end past the duration."""
    attributes: dict[str, str] = field(default_factory=dict)
    """Further text of the file, such as ``subject`` and ``view``."""
    file: str | None = None
    """Path or address of the video file, where it is known."""


@dataclass(frozen=True)
class Annotations:
    """All videos of an annotation file."""

    classes: tuple[str, ...]
    """Names of the classes; a class has the same number everywhere."""
    videos: dict[str, VideoAnnotation]
    """By id, in the order of the file."""
    notes: tuple[str, ...] = ()
    """What the reader had to leave out, and why."""

    @classmethod
    def of_labels(
        cls,
        videos: dict[str, VideoAnnotation],
        listed: Iterable[str] = (),
        notes: Iterable[str] = (),
    ) -> Annotations:
        """Return annotations whose classes are the listed ones, and the labels that occur.

        Args:
            videos: by id.
            listed: classes that the file lists, in its order; the other labels follow, sorted.
            notes: what the reader had to leave out.
        """
        classes = dict.fromkeys(listed)
        labels = {item.label for video in videos.values() for item in video.segments}
        return cls((*classes, *sorted(labels - classes.keys())), videos, tuple(notes))

    @property
    def subsets(self) -> tuple[str, ...]:
        """The names of the subsets, sorted; the empty name stands for videos without one."""
        return tuple(sorted({video.subset for video in self.videos.values()}))

    def subset(self, name: str) -> Annotations:
        """Return the videos of one subset, with all the classes.

        Raises:
            AnnotationError: no video belongs to it.
        """
        videos = {key: video for key, video in self.videos.items() if video.subset == name}
        if not videos:
            known = ", ".join(item for item in self.subsets if item) or "none"
            raise AnnotationError(
                f"the annotations have no video in the subset {name!r}",
                remedy=f"name one of their subsets ({known})",
            )
        return replace(self, videos=videos)

    def actions(self) -> Annotations:
        """Return the annotations without ambiguous segments, and without a class for them."""
        if AMBIGUOUS not in self.classes:
            return self
        videos = {
            key: replace(
                video, segments=tuple(item for item in video.segments if item.label != AMBIGUOUS)
            )
            for key, video in self.videos.items()
        }
        classes = tuple(name for name in self.classes if name != AMBIGUOUS)
        return replace(self, classes=classes, videos=videos)


def snippet_targets(video: VideoAnnotation, classes: Sequence[str], pts: np.ndarray) -> np.ndarray:
    """Return the labels of the snippets of one video.

    A snippet carries a class when it and one segment of the class share at least half of the
    shorter of the two, so that an action shorter than a snippet is not lost. Segments are clipped
    to the duration of the video first.

    Args:
        video: the segments.
        classes: K names.
        pts: (T, 2) start and end second of every snippet.

    Returns:
        (T, K) float32 in {0, 1}.

    Raises:
        AnnotationError: a segment is of an unknown class.
    """
    pts = np.asarray(pts, dtype=np.float64).reshape(-1, 2)
    number = {name: index for index, name in enumerate(classes)}
    targets = np.zeros((len(pts), len(classes)), dtype=np.float32)
    for segment in clipped(video):
        column = number.get(segment.label)
        if column is None:
            raise AnnotationError(
                f"video {video.id!r} has a segment of the unknown class {segment.label!r}",
                remedy="correct the label or add it to the classes",
            )
        shared = np.minimum(pts[:, 1], segment.end) - np.maximum(pts[:, 0], segment.start)
        shorter = np.minimum(pts[:, 1] - pts[:, 0], segment.end - segment.start)
        # Timestamps are multiples of 1/rate in floating point: exactly half must stay half.
        enough = shared >= 0.5 * shorter - 1e-6
        if segment.end > segment.start:
            enough &= shared > 0
        else:  # An instant belongs to the one snippet that contains it.
            enough = (pts[:, 0] <= segment.start) & (segment.start < pts[:, 1])
        targets[enough, column] = 1.0
    return targets


def snippet_events(
    video: VideoAnnotation, classes: Sequence[str], borders: np.ndarray
) -> np.ndarray:
    """Return the segments of one video in units of its snippets.

    Args:
        video: the segments; what lies beyond the snippets is cut off, and what is left of no
            length is left out.
        classes: K names, those of the segments among them.
        borders: (T + 1,) seconds, ascending: snippet t owns the time from t to t + 1 of them.

    Returns:
        (N, 3) float32: number of the class, start and end.
    """
    number = {name: index for index, name in enumerate(classes)}
    cells = np.arange(len(borders))
    rows = [
        (number[item.label], *np.interp((item.start, item.end), borders, cells))
        for item in clipped(video)
    ]
    events = np.array(rows, dtype=np.float32).reshape(-1, 3)
    return events[events[:, 2] > events[:, 1]]


def clipped(video: VideoAnnotation) -> Iterable[Segment]:
    """Yield the segments cut to the video; one that lies wholly outside is left out."""
    limit = float("inf") if video.duration is None else video.duration
    for segment in video.segments:
        start, end = max(segment.start, 0.0), min(segment.end, limit)
        if end > start or (end == start and segment.start == segment.end):
            yield replace(segment, start=start, end=end)


def check(annotations: Annotations) -> list[str]:
    """Return what is odd about annotations without making them unusable, one line each.

    Segments that start before 0, end past the end of their video (they are clipped for training
    targets), have no length, or are given twice; videos without a segment or a duration; classes
    without a segment; and whatever the reader had to leave out.
    """
    problems = list(annotations.notes)
    used: set[str] = set()
    for video in annotations.videos.values():
        where = f"video {video.id!r}"
        seen: set[Segment] = set()
        if not video.segments:
            problems.append(f"{where} has no segment")
        if video.duration is None:
            problems.append(f"{where} has no duration")
        for segment in video.segments:
            what = f"{segment.label!r} [{segment.start:g}, {segment.end:g}] of {where}"
            used.add(segment.label)
            if segment in seen:
                problems.append(f"{what} is given twice")
            seen.add(segment)
            if segment.start < 0:
                problems.append(f"{what} starts before the video")
            if segment.end == segment.start:
                problems.append(f"{what} has no length")
            if video.duration is None:
                continue
            if segment.start >= video.duration:
                problems.append(f"{what} lies past the end at {video.duration:g} s")
            elif segment.end > video.duration + 1e-6:
                problems.append(f"{what} ends past the end at {video.duration:g} s")
    problems.extend(
        f"class {name!r} has no segment" for name in annotations.classes if name not in used
    )
    return problems
