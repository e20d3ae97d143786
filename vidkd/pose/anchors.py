"""Anchor poses: clusters of training poses, of the full body and of the upper body.

Also what a region of the network is meant to cover: the box of a person, and which of the two
kinds of anchor stands for a person of whom only a part is in the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidkd.errors import VidkdError
from vidkd.skeletons import JOINTS, LOWER

Array = np.ndarray

UPPER = tuple(range(len(LOWER), len(JOINTS)))
"""Hips, arms and head."""
MARGIN = 0.1
"""Share of the joints' extent that a box has beyond them on each side: hands, feet, the skull."""
_LEAST_UPPER = 5
"""Joints of the upper body that must be in the picture for a person to be looked for."""


@dataclass(frozen=True)
class AnchorPoses:
    """Anchor poses of the full body, then those of the upper body."""

    poses_2d: Array
    """(K, 13, 2) as fractions of the person's box."""
    poses_3d: Array
    """(K, 13, 3) metres relative to the middle of the hips."""
    full: int
    """How many of the K are of the full body."""


def cluster(points: Array, count: int, rng: np.random.Generator, rounds: int = 50) -> Array:
    """Divide points (N, D) into clusters by Lloyd's algorithm after k-means++ seeding.

    Returns:
        (N,) the cluster of each point; none is empty.

    Raises:
        VidkdError: there are too few different points.
    """
    if len(np.unique(points, axis=0)) < count:
        raise VidkdError(
            f"{len(points)} training poses are too few for {count} anchor poses",
            remedy="give more labels, or ask for fewer anchor poses",
        )
    centres = points[rng.integers(len(points))][None]
    nearest = ((points - centres[0]) ** 2).sum(axis=1)
    while len(centres) < count:
        pick = rng.choice(len(points), p=nearest / nearest.sum())
        centres = np.concatenate([centres, points[pick][None]])
        nearest = np.minimum(nearest, ((points - points[pick]) ** 2).sum(axis=1))
    labels = np.full(len(points), -1)
    for _ in range(rounds):
        squares = (centres**2).sum(axis=1) - 2 * points @ centres.T
        found = squares.argmin(axis=1)
        for empty in set(range(count)) - set(found.tolist()):
            # A cluster that lost its points starts again at the point served worst.
            distance = ((points - centres[found]) ** 2).sum(axis=1)
            distance[np.bincount(found, minlength=count)[found] < 2] = -1
            found[distance.argmax()] = empty
        if (found == labels).all():
            break
        labels = found
        centres = np.stack([points[labels == k].mean(axis=0) for k in range(count)])
    return labels


def make_anchors(
    full: tuple[Array, Array], upper: tuple[Array, Array], counts: tuple[int, int], seed: int
) -> AnchorPoses:
    """Cluster training poses in 3D, those of the full and those of the upper body apart.

    The clusters of the upper body come from its joints alone; their legs are the average.

    Args:
        full: joints (N, 13, 2) as fractions of the box of the full body, NaN when unknown, and
            (N, 13, 3) metres relative to the middle of the hips.
        upper: the same, as fractions of the box of the upper body.
        counts: how many anchor poses of the full and of the upper body.
        seed: of the clustering.

    Raises:
        VidkdError: there are too few poses.
    """
    rng = np.random.default_rng([seed, 13])
    poses_2d, poses_3d = [], []
    for (relative, points), joints, count in zip(
        (full, upper), (range(len(JOINTS)), UPPER), counts, strict=True
    ):
        if count == 0:
            continue
        labels = cluster(points[:, list(joints)].reshape(len(points), -1), count, rng)
        # The most frequent first, so that the order says something to a reader.
        for k in np.argsort(-np.bincount(labels, minlength=count), kind="stable"):
            poses_3d.append(points[labels == k].mean(axis=0))
            own = relative[labels == k]
            known = ~np.isnan(own)
            total = np.where(known, own, 0).sum(axis=0)
            poses_2d.append(np.where(known.any(axis=0), total / np.maximum(known.sum(0), 1), 0.5))
    return AnchorPoses(
        np.stack(poses_2d).astype(np.float32), np.stack(poses_3d).astype(np.float32), counts[0]
    )


def person_box(joints_2d: Array, scores: Array, size: tuple[int, int]) -> tuple[Array, bool] | None:
    """Return the box of a person within the picture, and whether it shows the full body.

    The box holds the known joints inside the picture and a margin, cut at the picture's edge. The
    body is full when both knees and an ankle are in the picture.

    Args:
        joints_2d: (13, 2) pixels.
        scores: (13,); 0 marks unknown joints.
        size: height and width of the picture.

    Returns:
        (4,) x0, y0, x1, y1 and a flag; None when too little of the person is in the picture.
    """
    height, width = size
    known = (scores > 0) & ~np.isnan(joints_2d).any(axis=1)
    x, y = np.where(known, joints_2d.T, -1e9)
    inside = known & (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    if inside[list(UPPER)].sum() < _LEAST_UPPER or not inside[[10, 11]].any():
        return None
    full = bool(inside[2] and inside[3] and inside[[0, 1]].any())
    shown = inside if full else inside & np.isin(np.arange(len(JOINTS)), UPPER)
    # Joints a little outside still say where the body ends.
    low, high = joints_2d[shown].min(axis=0), joints_2d[shown].max(axis=0)
    margin = np.maximum(MARGIN * (high - low), 0.05 * (high - low).max())
    edge = np.array([width, height]) - 0.5
    box = np.concatenate([np.maximum(low - margin, -0.5), np.minimum(high + margin, edge)])
    return box.astype(np.float32), full


def upper_box(joints_2d: Array, scores: Array, size: tuple[int, int]) -> Array | None:
    """Return the box (4,) of a person's upper body as if the picture ended below it, or None."""
    shown = np.where(np.isin(np.arange(len(JOINTS)), UPPER), scores, 0.0)
    found = person_box(joints_2d, shown, size)
    return None if found is None else found[0]


def nearest_anchors(
    relative_2d: Array, points_3d: Array, full: Array, anchors: AnchorPoses
) -> tuple[Array, Array]:
    """Say which anchor pose stands for each person, and which others are close to it.

    Args:
        relative_2d: (P, 13, 2) joints as fractions of the person's box; NaN when unknown.
        points_3d: (P, 13, 3) metres relative to the middle of the hips; NaN when unknown.
        full: (P,) bool, whether the box shows the full body.
        anchors: the anchor poses.

    Returns:
        (P,) the anchor pose of the right kind at the least distance: the mean over the joints in
        3D where the person has 3D joints, in 2D elsewhere; and (P, K) the 3D distance in metres,
        infinite for anchors of the other kind and for people without 3D joints.
    """
    count = len(anchors.poses_3d)
    apart = np.full((len(full), count), np.inf)
    flat = np.full((len(full), count), np.inf)
    for wanted, columns, joints in (
        (True, slice(0, anchors.full), list(range(len(JOINTS)))),
        (False, slice(anchors.full, count), list(UPPER)),
    ):
        rows = np.flatnonzero(full == wanted)
        for poses, own, table in (
            (points_3d, anchors.poses_3d, apart),
            (relative_2d, anchors.poses_2d, flat),
        ):
            lengths = np.linalg.norm(
                poses[rows][:, None, joints] - own[columns][None, :, joints], axis=-1
            )
            known = ~np.isnan(lengths)
            mean = np.where(known, lengths, 0).sum(-1) / np.maximum(known.sum(-1), 1)
            # A distance over few joints says nothing about the pose.
            enough = known.sum(axis=-1) >= len(joints) / 2
            table[rows, columns] = np.where(enough, mean, np.inf)
    has_3d = np.isfinite(apart).any(axis=1)
    return np.where(has_3d[:, None], apart, flat).argmin(axis=1), apart
