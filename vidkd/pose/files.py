"""Poses that another program has computed, read from files and laid on a video's frames.

docs/pose.md has the formats of ``--poses``: documents whose frames have a ``time`` or a number,
lists of COCO results, and the exact poses of ``vidkd synth``; a file for each video, or a document
for all, whose frames name their videos by ``key``.

In a listed frame without people nobody was found, and neither in the frames between listed ones
that lie further apart than is usual: programs that list people list no frame without them.
"""

from __future__ import annotations

import bisect
import itertools
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidkd.errors import UsageError, VidkdError
from vidkd.pose.detector import PersonPose
from vidkd.pose.labels import FORMAT, LabelledPerson, broken, read_json, read_person, read_poses

Array = np.ndarray

_MARGIN = 0.1
"""Joints lie inside a person: boxes made from them are enlarged by this share of their size."""


@dataclass(frozen=True)
class Entry:
    """What a file says of one frame."""

    at: float
    """Second, or number of the frame."""
    people: tuple[LabelledPerson, ...]
    size: tuple[float, float] | None = None
    """Width and height that pixels refer to; None for the video's own."""


@dataclass(frozen=True)
class PoseTable:
    """The poses of one video."""

    path: Path
    by_number: bool
    """Whether entries are at numbers of frames instead of seconds."""
    entries: tuple[Entry, ...]
    """Sorted by ``at``."""


def find_poses(poses: Path, key: str) -> Path:
    """Return the file that holds the poses of the video ``key``.

    Raises:
        VidkdError: there is none.
    """
    if poses.is_file():
        return poses
    for ending in (".json", ".h5"):
        if (path := poses / f"{key}{ending}").is_file():
            return path
    raise VidkdError(
        f"there are no poses {key}.json or {key}.h5",
        path=poses,
        remedy="check --poses and --root: names are relative to them",
    )


def read_table(poses: Path, key: str) -> PoseTable:
    """Read the poses of the video ``key`` from a folder or a file, see the module.

    Raises:
        VidkdError: there are none, or they cannot be read.
    """
    path = find_poses(poses, key)
    if path.suffix == ".h5":
        frames = read_poses(path)
        found = [Entry(frame.time or 0.0, frame.people) for frame in frames]
        return PoseTable(path, False, tuple(sorted(found, key=lambda item: item.at)))
    data = read_json(path)
    try:
        if isinstance(data, list):
            entries, by_number = _coco_results(data), True
        elif isinstance(data, dict) and data.get("format") == FORMAT:
            entries, by_number = _document(data, key)
        else:
            raise ValueError(f"is neither {FORMAT} nor a list of COCO results")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        text = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise broken(path, text) from error
    if not entries:
        raise broken(path, f"holds no frame of the video {key!r}")
    return PoseTable(path, by_number, tuple(sorted(entries, key=lambda item: item.at)))


def _document(data: dict[str, Any], key: str) -> tuple[list[Entry], bool]:
    frames = [frame for frame in data["frames"] if frame.get("key", key) == key]
    by_number = bool(frames) and "frame" in frames[0]
    entries = []
    for number, frame in enumerate(frames):
        at = float(frame["frame" if by_number else "time"])
        if not 0 <= at < math.inf:
            raise ValueError(f"frames[{number}] is at {at}")
        size = frame.get("size", data.get("size"))
        people = tuple(
            read_person(person, data["joints"], f"frames[{number}].people[{index}]")
            for index, person in enumerate(frame["people"])
        )
        entries.append(Entry(at, people, None if size is None else _size(size)))
    return entries, by_number


def _size(size: Any) -> tuple[float, float]:
    width, height = (float(side) for side in size)
    if not (0 < width < math.inf and 0 < height < math.inf):
        raise ValueError(f"the size {size} makes no sense")
    return width, height


def _coco_results(data: list[Any]) -> list[Entry]:
    people: dict[int, list[LabelledPerson]] = {}
    for number, item in enumerate(data):
        keypoints = np.asarray(item["keypoints"], dtype=np.float64).reshape(17, 3)
        if not np.isfinite(keypoints).all():
            raise ValueError(f"[{number}].keypoints has values that are not finite")
        # Some programs write heat map peaks, which may exceed 1.
        keypoints[:, 2] = keypoints[:, 2].clip(0, 1)
        person = read_person({"joints_2d": keypoints.tolist()}, "coco-17", f"[{number}]")
        people.setdefault(_frame_number(item["image_id"]), []).append(person)
    return [Entry(number, tuple(found)) for number, found in people.items()]


def _frame_number(image_id: Any) -> int:
    if isinstance(image_id, int):
        return image_id
    digits = re.search(r"(\d+)(?:\.\w+)?$", str(image_id))
    if digits is None:
        raise ValueError(f"image_id {image_id!r} does not end in the number of a frame")
    return int(digits[1])


def look_up(
    table: PoseTable,
    frames: Iterable[tuple[int, float, float]],
    video_size: tuple[int, int],
    size: tuple[int, int],
) -> Iterator[tuple[int, float, list[PersonPose]]]:
    """Lay the entries of a table on the frames of its video.

    A frame has the entry of its number, or the first whose time lies between its start and its end.
    ``frames`` are index, start and end second of all frames, in order; sizes are width and height.

    Yields:
        Index, start, and people in pixels of the resized frame, for the frames that were searched.

    Raises:
        UsageError: poses go on after the video's end: they are another video's.
    """
    entries = _with_empty(table)
    positions = [entry.at for entry in entries]
    last_end, last_index = 0.0, -1
    for index, start, end in frames:
        # Times are rounded in files: a millisecond of patience on either side.
        low, high = (index, index + 1) if table.by_number else (start - 1e-3, end - 1e-3)
        place = bisect.bisect_left(positions, low)
        last_end, last_index = end, index
        if place < len(entries) and positions[place] < high:
            entry = entries[place]
            width, height = entry.size or video_size
            scale = np.array([size[0] / width, size[1] / height])
            yield index, start, [_person(person, scale) for person in entry.people]
    after = positions[-1] > last_index if table.by_number else positions[-1] > last_end + 0.5
    if after:
        length = f"{last_index + 1} frames" if table.by_number else f"{last_end:.2f} s"
        raise UsageError(
            f"has poses at {positions[-1]:g}, but the video has {length}",
            path=table.path,
            remedy="give the poses of this video",
        )


def _with_empty(table: PoseTable) -> list[Entry]:
    """Add entries without people where listed ones lie further apart than is usual."""
    entries = list(table.entries)
    if len(entries) < 3:
        return entries
    step = float(np.median(np.diff([entry.at for entry in entries])))
    if step <= 0:
        return entries
    filled = [entries[0]]
    for before, entry in itertools.pairwise(entries):
        missing = round((entry.at - before.at) / step) - 1
        filled += [Entry(before.at + (number + 1) * step, ()) for number in range(missing)]
        filled.append(entry)
    return filled


def _person(person: LabelledPerson, scale: Array) -> PersonPose:
    """Convert a person to pixels of the resized frame, with a box if there was none."""
    # The middle of the first pixel is (0, 0), its corner (-0.5, -0.5), whatever the size.
    joints = (person.joints_2d + 0.5) * scale - 0.5
    known = joints[np.isfinite(joints).all(axis=1)]
    if person.box is not None:
        box = (np.asarray(person.box) + 0.5) * np.tile(scale, 2) - 0.5
    elif len(known):
        low, high = known.min(axis=0), known.max(axis=0)
        margin = _MARGIN * float((high - low).max()) + 1.0
        box = np.concatenate([low - margin, high + margin])
    else:
        box = np.zeros(4)
    score = float(person.scores.mean())
    return PersonPose(box, joints, np.asarray(person.joints_3d), np.asarray(person.scores), score)
