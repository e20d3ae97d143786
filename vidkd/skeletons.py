"""The 13 joints of LCR-Net++, how other skeletons map to them, and skeletons as trees.

All conversions take arrays whose last two axes are (joints, D) for any D: pixels, metres, or either
with a score behind them. Missing joints are NaN, and stay NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidkd.errors import UsageError

Array = np.ndarray

JOINTS = (
    *("right ankle", "left ankle", "right knee", "left knee", "right hip", "left hip"),
    *("right wrist", "left wrist", "right elbow", "left elbow", "right shoulder", "left shoulder"),
    "head",
)
"""Names in the order of LCR-Net++; sides are the person's own, ``head`` is the head's centre."""

BONES = ((0, 2), (1, 3), (2, 4), (3, 5), (4, 10), (5, 11),
         (6, 8), (7, 9), (8, 10), (9, 11), (10, 12), (11, 12))  # fmt: skip
"""Pairs of joints: limbs, hip to shoulder on each side, shoulders to head; a tree."""

FLIP = (1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 12)
"""The joint that takes each one's place in a mirror."""

RIGHT_HIP, LEFT_HIP = 4, 5
LOWER = (0, 1, 2, 3)
"""Ankles and knees, which an upper-body pose does not show."""

COCO17 = (16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5)
"""Where COCO's 17 keypoints have the first twelve; the ears are 3 and 4, eyes 1 and 2, nose 0."""

BLAZEPOSE33 = (28, 27, 26, 25, 24, 23, 16, 15, 14, 13, 12, 11)
"""Where BlazePose's 33 landmarks have the first twelve; the ears are 7 and 8, the nose 0."""


def from_coco17(joints: Array) -> Array:
    """Map COCO keypoints (..., 17, D) to (..., 13, D).

    The head's centre is the middle of the ears; of one ear, eyes or nose when those are NaN.
    """
    _check(joints, 17, "COCO-17")
    return _with_head(joints, COCO17, ((3, 4), (1, 2), (0,)))


def from_blazepose33(joints: Array) -> Array:
    """Map BlazePose landmarks (..., 33, D) to (..., 13, D); the head as in :func:`from_coco17`."""
    _check(joints, 33, "BlazePose")
    return _with_head(joints, BLAZEPOSE33, ((7, 8), (2, 5), (0,)))


def root(joints: Array) -> Array:
    """Return the middle of the hips (..., 1, D) of joints (..., 13, D)."""
    return np.asarray((joints[..., RIGHT_HIP, :] + joints[..., LEFT_HIP, :])[..., None, :] / 2)


def _with_head(joints: Array, order: tuple[int, ...], heads: tuple[tuple[int, ...], ...]) -> Array:
    joints = np.asarray(joints, dtype=np.result_type(joints, np.float32))
    head = np.full_like(joints[..., 0, :], np.nan)
    for group in heads:
        parts = joints[..., list(group), :]
        known = ~np.isnan(parts)
        count = known.sum(axis=-2)
        mean = np.where(known, parts, 0).sum(axis=-2) / np.maximum(count, 1)
        head = np.where(np.isnan(head) & (count > 0), mean, head)
    return np.concatenate([joints[..., list(order), :], head[..., None, :]], axis=-2)


def _check(joints: Array, count: int, name: str) -> None:
    shape = np.shape(joints)
    if len(shape) < 2 or shape[-2] != count:
        raise UsageError(
            f"joints of shape {shape} are not {name}",
            remedy=f"give an array of shape (..., {count}, D)",
        )


@dataclass(frozen=True)
class Skeleton:
    """A tree of joints."""

    name: str
    """As in settings."""
    parents: tuple[int, ...]
    """(V,) the neighbour towards the root; the root is its own."""
    flip: tuple[int, ...]
    """(V,) the joint that takes each one's place in a mirror."""
    hips: tuple[int, int]
    """Right and left."""
    shoulders: tuple[int, int]
    """Right and left."""

    @property
    def joints(self) -> int:
        """V."""
        return len(self.parents)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """The V - 1 pairs (joint, parent)."""
        return tuple((child, up) for child, up in enumerate(self.parents) if child != up)


def _mirror(count: int, *pairs: tuple[int, int]) -> tuple[int, ...]:
    swap = {**dict(pairs), **{right: left for left, right in pairs}}
    return tuple(swap.get(joint, joint) for joint in range(count))


SKELETONS = {
    # The bones run towards the head, which is the root.
    "lcrnet-13": Skeleton(
        "lcrnet-13",
        tuple(dict(BONES).get(joint, 12) for joint in range(13)),
        FLIP,
        (4, 5),
        (10, 11),
    ),
    # Kinect v2, joints counted from 0; the root is the spine between the shoulders (20).
    "ntu-25": Skeleton(
        "ntu-25",
        (1, 20, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 20, 22, 7, 24, 11),
        _mirror(
            25,
            (4, 8),
            (5, 9),
            (6, 10),
            (7, 11),
            (21, 23),
            (22, 24),
            (12, 16),
            (13, 17),
            (14, 18),
            (15, 19),
        ),
        (16, 12),
        (8, 4),
    ),
    # COCO's keypoints; the root is the nose.
    "coco-17": Skeleton(
        "coco-17",
        (0, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14),
        _mirror(17, *((left, left + 1) for left in range(1, 17, 2))),
        (12, 11),
        (6, 5),
    ),
}
"""By the names that settings give them."""


def find_skeleton(name: str) -> Skeleton:
    """Return the skeleton called ``lcrnet-13``, ``ntu-25`` or ``coco-17``.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in SKELETONS:
        raise UsageError(
            f"there is no skeleton {name!r}", remedy=f"give one of {', '.join(SKELETONS)}"
        )
    return SKELETONS[name]
