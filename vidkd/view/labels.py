"""Annotations as a person corrects them, saved at every change to a file of their own."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidkd.annotations import Annotations, Segment, VideoAnnotation, load_annotations
from vidkd.annotations.activitynet import write_annotations
from vidkd.errors import UsageError, VidkdError

REVIEWED = "reviewed"
"""Attribute of a video in the saved file: JSON of what became of its detections."""
_DECISIONS = {"accepted", "rejected"}


class StaleError(VidkdError):
    """A change was made on labels that have changed since."""


class Labels:
    """The labels of all videos. What was given stays as it is; changes go to ``target``.

    Args:
        given: what an annotation file says; empty without one.
        target: the file that is written. If it exists, its labels are taken up.
        inputs: files and folders that must not be written over.

    Raises:
        UsageError: ``target`` is one of the inputs.
        AnnotationError: ``target`` exists and holds no annotations.
    """

    def __init__(self, given: Annotations, target: Path, inputs: Sequence[Path] = ()) -> None:
        for path in inputs:
            if path.resolve() == target.resolve() or (
                path.exists() and target.exists() and path.samefile(target)
            ):
                raise UsageError(
                    "is what was given and is never written over",
                    path=target,
                    remedy="give --save another file",
                )
        self._given = given
        self.target = target
        self.annotations = given
        if target.exists():
            saved = load_annotations(target, "activitynet")
            classes = tuple(dict.fromkeys((*given.classes, *saved.classes)))
            self.annotations = Annotations(classes, {**given.videos, **saved.videos})
        self._lock = threading.Lock()
        self._revisions: dict[str, int] = {}

    def original(self, video: str) -> tuple[Segment, ...]:
        """Return the segments of a video as they were given."""
        entry = self._given.videos.get(video)
        return entry.segments if entry else ()

    def state(self, video: str) -> dict[str, Any]:
        """Return labels, decisions on detections, and the revision of a video, for the page."""
        entry = self.annotations.videos.get(video)
        return {
            "labels": [[s.start, s.end, s.label, s.score] for s in entry.segments] if entry else [],
            "reviewed": _reviewed(entry),
            "revision": self._revisions.get(video, 0),
        }

    def change(self, video: str, duration: float | None, change: Any) -> int:
        """Replace the labels of a video, write the file, and return the new revision.

        Args:
            video: its id.
            duration: of the video in seconds, for a video that had no labels.
            change: ``labels`` ([start, end, label, score or None]), ``reviewed`` ([model, start,
                end, label, decision]) and ``revision``, the one they are based on.

        Raises:
            StaleError: the labels have changed since.
            VidkdError: the change makes no sense, or the file cannot be written.
        """
        segments, reviewed, revision = _checked(change)
        with self._lock:
            current = self._revisions.get(video, 0)
            if revision != current:
                raise StaleError(
                    "the labels of this video were changed in another window",
                    remedy="load the page again",
                )
            entry = self.annotations.videos.get(video) or VideoAnnotation(video, duration=duration)
            attributes = {k: v for k, v in entry.attributes.items() if k != REVIEWED}
            if reviewed:
                attributes[REVIEWED] = json.dumps(reviewed, ensure_ascii=False)
            entry = replace(entry, segments=segments, attributes=attributes)
            labels = dict.fromkeys(item.label for item in segments)
            changed = Annotations(
                tuple(dict.fromkeys((*self.annotations.classes, *labels))),
                {**self.annotations.videos, video: entry},
            )
            write_annotations(self.target, changed)
            self.annotations = changed
            self._revisions[video] = current + 1
            return current + 1


def _reviewed(entry: VideoAnnotation | None) -> list[Any]:
    try:
        return _decisions(json.loads((entry.attributes if entry else {}).get(REVIEWED, "[]")))
    except (ValueError, VidkdError):
        return []  # Another tool's attribute of this name says nothing about detections.


def _checked(change: Any) -> tuple[tuple[Segment, ...], list[Any], int]:
    if not isinstance(change, dict) or not isinstance(change.get("labels"), list):
        raise VidkdError("a change needs its labels")
    segments = []
    for item in change["labels"]:
        if not isinstance(item, list) or len(item) != 4:
            raise VidkdError("a label is not [start, end, label, score]")
        start, end, label, score = item
        if not (_number(start) and _number(end) and 0 <= start <= end):
            raise VidkdError("a label needs a start and an end after it")
        if not isinstance(label, str) or not label.strip():
            raise VidkdError("a label needs a name")
        if score is not None and not _number(score):
            raise VidkdError("a score is not a number")
        segments.append(Segment(float(start), float(end), label, score))
    revision = change.get("revision")
    if not isinstance(revision, int):
        raise VidkdError("a change needs the revision it is based on")
    segments.sort(key=lambda item: (item.start, item.end, item.label))
    return tuple(segments), _decisions(change.get("reviewed", [])), revision


def _decisions(items: Any) -> list[Any]:
    if not isinstance(items, list):
        raise VidkdError("decisions are no list")
    for item in items:
        if not (
            isinstance(item, list)
            and len(item) == 5
            and isinstance(item[0], str)
            and _number(item[1])
            and _number(item[2])
            and isinstance(item[3], str)
            and item[4] in _DECISIONS
        ):
            raise VidkdError("a decision is not [model, start, end, label, decision]")
    return items


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
