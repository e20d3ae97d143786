"""Poses of single frames linked over time: one track per person, gaps filled, a slot each.

A *look* is a frame in which somebody was searched for. Between looks, and where a person was missed
for less than ``max_gap`` seconds, joints are interpolated linearly in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from vidkd.pose.detector import PersonPose
from vidkd.pose.poses import CHANNELS
from vidkd.recipe import TrackSettings
from vidkd.skeletons import JOINTS

Array = np.ndarray

SAME_POSTURE = 0.5
"""Metres of mean 3D joint distance that cost as much as boxes that do not overlap."""
LEAST_OVERLAP = 0.1
"""Intersection over union below which two boxes are never one person's."""
SPEED = 3.0
"""How far people may get, in their own heights per second: about 5 m/s."""
_FORBIDDEN = 1e3


@dataclass
class Track:
    """One person over time."""

    frames: list[int] = field(default_factory=list)
    """Numbers of the frames in which the person was found, rising."""
    times: list[float] = field(default_factory=list)
    """Their start seconds."""
    joints: list[Array] = field(default_factory=list)
    """(13, 6) float32 for each, see :data:`vidkd.pose.poses.CHANNELS`."""
    boxes: list[Array] = field(default_factory=list)
    """(4,) for each."""
    weight: float = 0.0
    """Sum of score times area in pixels."""

    def add(self, frame: int, time: float, person: PersonPose) -> None:
        """Append what was found of the person in a later frame."""
        joints = [person.joints_2d, person.joints_3d, np.asarray(person.scores)[:, None]]
        self.frames.append(frame)
        self.times.append(time)
        self.joints.append(np.concatenate(joints, axis=1).astype(np.float32))
        self.boxes.append(np.asarray(person.box, dtype=np.float32))
        left, top, right, bottom = person.box
        self.weight += float(person.score * max(right - left, 0) * max(bottom - top, 0))

    def cost(self, time: float, person: PersonPose) -> float:
        """Return how little a person found at ``time`` looks like this track's, from 0 to 2.

        One minus the overlap of the boxes, plus the mean distance of the 3D joints in units of
        ``SAME_POSTURE``, at most 1; where there is no 3D, the first counts twice. Infinite when
        the boxes do not overlap. The box is compared where it was, and where it would be if it
        had gone on as between the last two looks: the better one counts. Boxes are enlarged by
        how far a runner gets in the time between.
        """
        boxes = [self.boxes[-1]]
        passed = time - self.times[-1]
        if len(self.times) > 1:
            ahead = passed / (self.times[-1] - self.times[-2])
            boxes.append(self.boxes[-1] + ahead * _shift(self.boxes[-2], self.boxes[-1]))
        overlap = max(
            box_iou(*(_enlarged(item, SPEED / 2 * passed) for item in (box, person.box)))
            for box in boxes
        )
        if overlap < LEAST_OVERLAP:
            return float("inf")
        distances = np.linalg.norm(self.joints[-1][:, 2:5] - person.joints_3d, axis=1)
        known = distances[np.isfinite(distances)]
        unlike = float(known.mean()) / SAME_POSTURE if len(known) else 1 - overlap
        return 1 - overlap + min(unlike, 1.0)


class Tracker:
    """Links people from look to look; every look is an assignment problem, solved exactly.

    Args:
        settings: how long a person may be missed.

    Attributes:
        tracks: all tracks so far, in the order of their beginning.
        longest_step: the longest time from one look to the next, in seconds.
        last_look: number of the last frame looked at, -1 before the first.
    """

    def __init__(self, settings: TrackSettings) -> None:
        self._settings = settings
        self.tracks: list[Track] = []
        self.longest_step = 0.0
        self.last_look = -1
        self._last_time = 0.0
        self._alive: list[Track] = []

    def look(self, frame: int, time: float, people: Sequence[PersonPose]) -> None:
        """Take the people of a frame that starts at second ``time``; frames must rise."""
        step = time - self._last_time if self.last_look >= 0 else 0.0
        self.longest_step = max(self.longest_step, step)
        self.last_look, self._last_time = frame, time
        # Times are rounded: a gap of exactly max_gap must count as within it.
        longest = max(self._settings.max_gap, step) + 1e-6
        self._alive = [track for track in self._alive if time - track.times[-1] <= longest]
        costs = np.array([[track.cost(time, item) for item in people] for track in self._alive])
        costs = np.minimum(costs.reshape(len(self._alive), len(people)), _FORBIDDEN)
        taken = set()
        for row, column in zip(*linear_sum_assignment(costs), strict=True):
            if costs[row, column] < _FORBIDDEN:
                self._alive[row].add(frame, time, people[column])
                taken.add(column)
        for number, person in enumerate(people):
            if number not in taken:
                track = Track()
                track.add(frame, time, person)
                self.tracks.append(track)
                self._alive.append(track)


@dataclass(frozen=True)
class _Placed:
    """A track in its slot, from frame ``first`` to ``last`` (inclusive)."""

    number: int
    slot: int
    first: int
    last: int
    times: Array
    joints: Array


class Arrangement:
    """All tracks of a video in their slots; made when the last frame has been looked at.

    Tracks shorter than ``min_length`` (or than half the video, if that is less) are dropped. The
    rest are numbered by weight: 0 is the main person, whose score times area, summed over the
    looks, is largest. In that order each takes the first slot that is free for all its time;
    those for which there is none are dropped.

    Args:
        tracker: after the last look.
        pts: (T, 2) start and end second of all frames.
        settings: see :class:`vidkd.recipe.TrackSettings`.
    """

    def __init__(self, tracker: Tracker, pts: Array, settings: TrackSettings) -> None:
        self._pts = pts
        self._settings = settings
        self._longest_gap = max(settings.max_gap, tracker.longest_step) + 1e-6
        self._placed: list[_Placed] = []
        shortest = min(settings.min_length, (pts[-1, 1] - pts[0, 0]) / 2) if len(pts) else 0.0
        for track in sorted(tracker.tracks, key=lambda item: -item.weight):
            first, last = track.frames[0], track.frames[-1]
            if last == tracker.last_look:
                # After the last look nobody was searched for: who was there then is there still.
                end = track.times[-1] + self._longest_gap
                last = int(np.searchsorted(pts[:, 0], end, side="right")) - 1
            if pts[last, 1] - pts[first, 0] < shortest:
                continue
            taken = {
                item.slot for item in self._placed if item.first <= last and first <= item.last
            }
            free = [slot for slot in range(settings.max_people) if slot not in taken]
            if free:
                times, joints = np.array(track.times), np.stack(track.joints)
                self._placed.append(_Placed(len(self._placed), free[0], first, last, times, joints))

    def __len__(self) -> int:
        return len(self._placed)

    def rows(self, start: int, stop: int) -> tuple[Array, Array]:
        """Return the joints and track numbers of frames ``start`` to ``stop`` (exclusive).

        Returns:
            (n, M, 13, 6) float32, NaN where nobody is, and (n, M) int32, -1 where nobody is; M is
            ``max_people``.
        """
        count, slots = stop - start, self._settings.max_people
        data = np.full((count, slots, len(JOINTS), len(CHANNELS)), np.nan, np.float32)
        numbers = np.full((count, slots), -1, np.int32)
        margin = 3 * self._settings.smoothing
        for item in self._placed:
            first, last = max(item.first, start), min(item.last, stop - 1)
            if first > last:
                continue
            # Smoothing reaches over the ends of the block, so that blocks do not show.
            starts = self._pts[:, 0]
            low = int(np.searchsorted(starts, starts[first] - margin - 1e-6))
            high = int(np.searchsorted(starts, starts[last] + margin + 1e-6))
            low, high = max(low, item.first), min(high, item.last + 1)
            joints = fill(item.times, item.joints, starts[low:high], self._longest_gap)
            joints = smooth(joints, starts[low:high], self._settings.smoothing)
            data[first - start : last + 1 - start, item.slot] = joints[first - low : last + 1 - low]
            numbers[first - start : last + 1 - start, item.slot] = item.number
        return data, numbers


def fill(times: Array, joints: Array, wanted: Array, longest_gap: float) -> Array:
    """Interpolate joints linearly in time, each joint between the looks that know it.

    Args:
        times: (n,) rising seconds at which joints are given.
        joints: (n, J, 6); a joint that is not known has NaN for x.
        wanted: (m,) seconds at which joints are wanted; after the last of ``times``, its joints
            are repeated.
        longest_gap: seconds over which a joint is interpolated; it is NaN in longer gaps.

    Returns:
        (m, J, 6) float32.
    """
    result = np.full((len(wanted), *joints.shape[1:]), np.nan, np.float32)
    for number in range(joints.shape[1]):
        known = np.flatnonzero(np.isfinite(joints[:, number, 0]))
        if not len(known):
            continue
        at, values = times[known], joints[known, number]
        before = np.clip(np.searchsorted(at, wanted + 1e-9, side="right") - 1, 0, None)
        after = np.minimum(before + 1, len(at) - 1)
        width = at[after] - at[before]
        share = np.where(width > 0, (wanted - at[before]) / np.where(width > 0, width, 1), 0.0)
        share = np.clip(share, 0, 1)[:, None]
        mixed = np.where(
            share > 0, (1 - share) * values[before] + share * values[after], values[before]
        )
        # Between looks that lie too far apart only the looks themselves are known.
        near = (width <= longest_gap) | (share[:, 0] < 1e-6)
        near &= (wanted >= at[0] - 1e-9) & (wanted - at[-1] <= longest_gap)
        result[near, number] = mixed[near]
    return result


def smooth(joints: Array, times: Array, deviation: float) -> Array:
    """Smooth coordinates over time with a Gaussian; scores stay, and so does what is NaN.

    Args:
        joints: (n, J, 6) float32.
        times: (n,) rising seconds.
        deviation: standard deviation in seconds; 0 returns ``joints`` as they are. The Gaussian
            ends at three deviations.
    """
    if deviation <= 0:
        return joints
    coordinates = joints[..., :-1].astype(np.float64)
    known = np.isfinite(coordinates)
    coordinates[~known] = 0
    result = joints.copy()
    for row, time in enumerate(times):
        near = slice(
            int(np.searchsorted(times, time - 3 * deviation)),
            int(np.searchsorted(times, time + 3 * deviation, side="right")),
        )
        weights = np.exp(-0.5 * ((times[near] - time) / deviation) ** 2)
        total = np.tensordot(weights, coordinates[near], 1)
        weight = np.tensordot(weights, known[near].astype(np.float64), 1)
        result[row, :, :-1] = np.where(known[row], total / np.maximum(weight, 1e-12), np.nan)
    return result


def box_iou(one: Array, other: Array) -> float:
    """Return the intersection over union of two boxes x0, y0, x1, y1."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    areas = [float(np.prod(np.maximum(box[2:] - box[:2], 0))) for box in (one, other)]
    union = sum(areas) - shared
    return shared / union if union > 0 else 0.0


def _enlarged(box: Array, heights: float) -> Array:
    """Return a box with so many of its heights added on every side."""
    margin = heights * float(box[3] - box[1])
    return np.asarray(box) + margin * np.array([-1.0, -1.0, 1.0, 1.0])


def _shift(before: Array, after: Array) -> Array:
    """Return how far a box's middle went, as what is to be added to its corners."""
    way = (after[:2] + after[2:] - before[:2] - before[2:]) / 2
    return np.concatenate([way, way])
