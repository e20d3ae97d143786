"""Pose proposal integration: from many proposals to one pose for each person.

Rogez, Weinzaepfel and Schmid, "LCR-Net++", TPAMI 2019, with its constants.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidkd.skeletons import LOWER

Array = np.ndarray

LEAST_SCORE = 0.1
"""Proposals are kept whose probability is at least this divided by the number of anchor poses."""
GROUP_OVERLAP = 0.2
"""Proposals belong to one person when their boxes overlap by more than this."""
MODE_RADIUS = 0.3
"""Metres of mean joint distance within which proposals are one pose."""
LOWER_WEIGHT = 0.1
"""What an upper-body anchor's say on knees and ankles is multiplied by."""
LEAST_PERSON = 0.002
"""A person's summed score must exceed this."""


@dataclass(frozen=True)
class Person:
    """One integrated pose."""

    joints_2d: Array
    """(13, 2) pixels."""
    joints_3d: Array
    """(13, 3) metres."""
    score: float
    """Sum of the probabilities of the proposals behind it; may exceed 1."""
    members: Array
    """Rows of the proposals that were averaged."""


def pose_boxes(poses_2d: Array, size: tuple[int, int]) -> Array:
    """Return the extents (N, 4) of poses (N, 13, 2), cut at the picture's edge (height, width)."""
    edge = np.array([size[1] - 1, size[0] - 1])
    low = np.clip(poses_2d.min(axis=1), 0, edge)
    high = np.clip(poses_2d.max(axis=1), 0, edge)
    return np.concatenate([low, high], axis=1)


def overlaps(box: Array, boxes: Array) -> Array:
    """Return intersection over union (N,) of a box (4,) and others (N, 4), in whole pixels.

    The last pixel belongs to a box, so that a box without extent still has one pixel.
    """
    first = np.maximum(box[:2], boxes[:, :2])
    last = np.minimum(box[2:], boxes[:, 2:])
    common = np.maximum(last - first + 1, 0).prod(axis=1)
    area = (box[2:] - box[:2] + 1).prod()
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
    return common / (area + areas - common)


def integrate(
    poses_2d: Array,
    poses_3d: Array,
    scores: Array,
    upper: Array,
    size: tuple[int, int],
    least_person: float = LEAST_PERSON,
) -> list[Person]:
    """Integrate the pose proposals of one picture.

    Proposals are grouped greedily by the overlap of their extents with the best one's. In each
    group modes are seeded by score, and average all members of the group near the seed, weighted
    by score; the mode with the largest summed score is the person.

    Args:
        poses_2d: (N, 13, 2) pixels of the picture.
        poses_3d: (N, 13, 3) metres.
        scores: (N,) probabilities, above the threshold.
        upper: (N,) bool, proposals of upper-body anchor poses.
        size: height and width of the picture.
        least_person: people of at most this summed score are dropped.

    Returns:
        people, best first.
    """
    boxes = pose_boxes(poses_2d, size) if len(scores) else np.zeros((0, 4))
    left = np.argsort(-scores, kind="stable")
    people = []
    while len(left):
        group = left[overlaps(boxes[left[0]], boxes[left]) > GROUP_OVERLAP]
        # Every box overlaps itself, so that this always gets on.
        left = left[~np.isin(left, group)]
        person = _best_mode(poses_2d, poses_3d, scores, upper, group)
        if person.score > least_person:
            people.append(person)
    return sorted(people, key=lambda person: -person.score)


def _best_mode(
    poses_2d: Array, poses_3d: Array, scores: Array, upper: Array, group: Array
) -> Person:
    """Return the mode of the largest summed score; ``group`` is sorted by score."""
    waiting = np.ones(len(group), dtype=bool)
    best = group[:0]
    while waiting.any():
        seed = group[waiting.argmax()]
        apart = np.linalg.norm(poses_3d[group] - poses_3d[seed], axis=-1).mean(axis=-1)
        near = apart < MODE_RADIUS
        members = group[near]
        if scores[members].sum() > scores[best].sum():
            best = members
        waiting &= ~near
        waiting[group == seed] = False
    weights = np.repeat(scores[best][:, None], poses_2d.shape[1], axis=1)
    weights[np.ix_(upper[best], LOWER)] *= LOWER_WEIGHT
    weights = (weights / weights.sum(axis=0))[..., None]
    return Person(
        (weights * poses_2d[best]).sum(axis=0),
        (weights * poses_3d[best]).sum(axis=0),
        float(scores[best].sum()),
        best,
    )
