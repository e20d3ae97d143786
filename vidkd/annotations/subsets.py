"""Other subsets: renamed, and videos held out for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from vidkd.annotations.media import counted
from vidkd.annotations.model import Annotations, VideoAnnotation
from vidkd.errors import AnnotationError, UsageError
from vidkd.keys import KeyIndex


def rename_subsets(annotations: Annotations, names: Mapping[str, str]) -> Annotations:
    """Return the annotations with other names of subsets.

    Raises:
        AnnotationError: a subset to be renamed does not exist.
    """
    for name in names:
        annotations.subset(name)
    videos = {
        key: replace(video, subset=names.get(video.subset, video.subset))
        for key, video in annotations.videos.items()
    }
    return replace(annotations, videos=videos)


def like(annotations: Annotations, other: Annotations, where: Path) -> Annotations:
    """Return annotations with what another file says of the same videos.

    A video that has no subset, duration, frame rate or attributes gets those of the other file, and
    is called as there. Classes have the order of the other file; new ones follow.

    Args:
        annotations: such as labels that were corrected in a tool which has no subsets.
        other: the labels before that.
        where: the other file, for messages.

    Raises:
        AnnotationError: the files have no video in common.
        UsageError: several videos of the other file could be meant by one.
    """
    index = KeyIndex(other.videos, where)
    videos: dict[str, VideoAnnotation] = {}
    notes = list(annotations.notes)
    for name, video in annotations.videos.items():
        before = index.find(name)
        if before is None:
            videos[name] = video
            continue
        videos[before.id] = replace(
            video,
            id=before.id,
            subset=video.subset or before.subset,
            duration=video.duration or before.duration,
            frame_rate=video.frame_rate or before.frame_rate,
            attributes=before.attributes | video.attributes,
            file=video.file or before.file,
        )
    new = [name for name in annotations.videos if name in videos and name not in other.videos]
    if len(new) == len(videos):
        raise AnnotationError(
            "has no video of these annotations", path=where, remedy="give their former file"
        )
    if new:
        notes.append(f"{counted(len(new), 'video')} not in {where.name}, such as {new[0]}")
    classes = dict.fromkeys((*other.classes, *annotations.classes))
    return Annotations(tuple(classes), videos, tuple(notes))


def hold_out(annotations: Annotations, fraction: float) -> Annotations:
    """Move a part of the training videos into a subset for validation.

    Data sets with two subsets leave nothing to choose epochs and thresholds on but the test
    videos, which makes the reported number too good. Whole subjects are held out where every
    training video names its ``subject``. The choice depends on nothing but the names.

    Args:
        annotations: with a subset ``training`` and none called ``validation``.
        fraction: of the training videos, in (0, 1); at least one video moves and one stays.

    Raises:
        UsageError: the fraction is not in (0, 1), or there is such a subset already.
        AnnotationError: fewer than two videos or subjects train.
    """
    if not 0 < fraction < 1:
        raise UsageError(
            f"{fraction:g} of the videos cannot be held out", remedy="give a number such as 0.15"
        )
    if "validation" in annotations.subsets:
        raise UsageError(
            "there is a subset 'validation' already",
            remedy="leave out --hold-out, or rename that subset with --rename",
        )
    chosen = annotations.subset("training").videos
    by_subject = all(video.attributes.get("subject") for video in chosen.values())
    groups: dict[str, list[str]] = {}
    for key, video in chosen.items():
        groups.setdefault(video.attributes["subject"] if by_subject else key, []).append(key)
    if len(groups) < 2:
        raise AnnotationError(
            "the subset 'training' has too few videos to hold one out",
            remedy="leave out --hold-out",
        )
    order = sorted(groups, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    moved: set[str] = set()
    for name in order[:-1]:
        if moved and len(moved) + len(groups[name]) / 2 > fraction * len(chosen):
            break
        moved.update(groups[name])
    videos = {
        key: replace(video, subset="validation") if key in moved else video
        for key, video in annotations.videos.items()
    }
    return replace(annotations, videos=videos)
