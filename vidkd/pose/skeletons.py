"""Skeletons as trees: what hangs on what, what a mirror swaps, where hips and shoulders are.

A graph network needs these, and so does whoever centres, scales and turns poses.
"""

from __future__ import annotations

from dataclasses import dataclass

from vidkd.errors import UsageError
from vidkd.pose.joints import BONES, FLIP, JOINTS


@dataclass(frozen=True)
class Skeleton:
    """A tree of joints.

    Attributes:
        name: as in settings.
        parents: (V,) the neighbour towards the root; the root is its own.
        flip: (V,) the joint that takes each one's place in a mirror.
        hips: right and left.
        shoulders: right and left.
    """

    name: str
    parents: tuple[int, ...]
    flip: tuple[int, ...]
    hips: tuple[int, int]
    shoulders: tuple[int, int]

    @property
    def joints(self) -> int:
        """V."""
        return len(self.parents)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """The V - 1 pairs (joint, parent)."""
        return tuple((child, up) for child, up in enumerate(self.parents) if child != up)


def _parents(count: int, root: int, bones: dict[int, int]) -> tuple[int, ...]:
    if set(bones) | {root} != set(range(count)) or root in bones:
        raise ValueError("every joint but the root needs one parent")
    return tuple(bones.get(joint, root) for joint in range(count))


def _mirror(count: int, pairs: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    swap = {**dict(pairs), **{right: left for left, right in pairs}}
    return tuple(swap.get(joint, joint) for joint in range(count))


def _lcrnet13() -> Skeleton:
    head = JOINTS.index("head")
    # The tree's bones run towards the head; of the two at the head's end, both hang on it.
    parents = _parents(len(JOINTS), head, dict(BONES))
    return Skeleton("lcrnet-13", parents, FLIP, (4, 5), (10, 11))


def _ntu25() -> Skeleton:
    """Kinect v2, joints counted from 0; the root is the spine between the shoulders (20)."""
    limbs = {
        **{0: 1, 1: 20, 2: 20, 3: 2},
        **{4: 20, 5: 4, 6: 5, 7: 6, 21: 22, 22: 7},
        **{8: 20, 9: 8, 10: 9, 11: 10, 23: 24, 24: 11},
        **{12: 0, 13: 12, 14: 13, 15: 14},
        **{16: 0, 17: 16, 18: 17, 19: 18},
    }
    left_right = tuple(zip((4, 5, 6, 7, 21, 22), (8, 9, 10, 11, 23, 24), strict=True))
    legs = tuple(zip((12, 13, 14, 15), (16, 17, 18, 19), strict=True))
    mirror = _mirror(25, left_right + legs)
    return Skeleton("ntu-25", _parents(25, 20, limbs), mirror, (16, 12), (8, 4))


def _coco17() -> Skeleton:
    """COCO's keypoints; the root is the nose."""
    head = {1: 0, 2: 0, 3: 1, 4: 2}
    body = {5: 0, 6: 0, 7: 5, 8: 6, 9: 7, 10: 8, 11: 5, 12: 6, 13: 11, 14: 12, 15: 13, 16: 14}
    mirror = _mirror(17, tuple((left, left + 1) for left in range(1, 17, 2)))
    return Skeleton("coco-17", _parents(17, 0, {**head, **body}), mirror, (12, 11), (6, 5))


_SKELETONS = {item.name: item for item in (_lcrnet13(), _ntu25(), _coco17())}


def find_skeleton(name: str) -> Skeleton:
    """Return the skeleton called ``lcrnet-13``, ``ntu-25`` or ``coco-17``.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in _SKELETONS:
        raise UsageError(
            f"there is no skeleton {name!r}", remedy=f"give one of {', '.join(_SKELETONS)}"
        )
    return _SKELETONS[name]
