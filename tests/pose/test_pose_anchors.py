"""Anchor poses, and the boxes of people."""

from __future__ import annotations

import numpy as np
import pytest

from vidkd.errors import VidkdError
from vidkd.pose.anchors import (
    AnchorPoses,
    cluster,
    make_anchors,
    nearest_anchors,
    person_box,
    upper_box,
)

STANDING = np.array(
    [
        [45, 95], [55, 95], [45, 75], [55, 75], [46, 55], [54, 55], [35, 55],
        [65, 55], [38, 40], [62, 40], [42, 25], [58, 25], [50, 15],
    ],
    np.float32,
)  # fmt: skip
SEEN = np.ones(13, np.float32)


def test_clusters_of_separate_points() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 20, (6, 4))
    truth = rng.permutation(np.repeat(np.arange(6), 30))
    labels = cluster(centres[truth] + rng.normal(0, 0.1, (180, 4)), 6, rng)
    # The same partition, whatever the numbers are called.
    pairs = set(zip(truth.tolist(), labels.tolist(), strict=True))
    assert len(pairs) == 6


def test_every_cluster_has_members() -> None:
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.normal(0, 1e-3, (200, 2)), rng.normal(0, 100, (12, 2))])
    for seed in range(5):
        labels = cluster(points, 12, np.random.default_rng(seed))
        assert len(np.unique(labels)) == 12


def test_no_point_is_nearer_to_another_cluster() -> None:
    rng = np.random.default_rng(2)
    points = rng.normal(size=(300, 3))
    labels = cluster(points, 8, rng, rounds=500)
    means = np.stack([points[labels == k].mean(axis=0) for k in range(8)])
    apart = np.linalg.norm(points[:, None] - means, axis=-1)
    np.testing.assert_array_equal(apart.argmin(axis=1), labels)


def test_too_few_poses() -> None:
    with pytest.raises(VidkdError, match="too few"):
        cluster(np.zeros((50, 2)), 2, np.random.default_rng(0))


def test_anchors_are_means_of_their_members() -> None:
    rng = np.random.default_rng(0)
    bodies = rng.normal(size=(2, 13, 3))
    points = bodies[np.arange(40) % 2] + rng.normal(0, 0.01, (40, 13, 3))
    relative = rng.uniform(size=(40, 13, 2))
    relative[0, 5] = np.nan
    found = make_anchors((relative, points), (relative, points), (2, 2), 0)
    assert found.full == 2
    for k in range(4):
        which = int(np.linalg.norm(bodies - found.poses_3d[k], axis=(1, 2)).argmin())
        own = np.arange(which, 40, 2)
        np.testing.assert_allclose(found.poses_3d[k], points[own].mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(found.poses_2d[k], np.nanmean(relative[own], axis=0), atol=1e-6)


def test_upper_anchors_ignore_the_legs() -> None:
    rng = np.random.default_rng(0)
    points = np.repeat(rng.normal(size=(1, 13, 3)), 60, axis=0)
    points[:, 12, 0] += np.repeat([0.0, 1.0], 30)
    points[:, :4] += rng.normal(0, 5, (60, 4, 3))
    relative = np.zeros((60, 13, 2))
    found = make_anchors((relative, points), (relative, points), (1, 2), 0)
    heads = sorted(found.poses_3d[1:, 12, 0] - points[0, 12, 0])
    np.testing.assert_allclose(heads, [0, 1], atol=1e-6)


def test_nearest_against_loops() -> None:
    rng = np.random.default_rng(0)
    anchors = AnchorPoses(rng.uniform(size=(7, 13, 2)), rng.normal(size=(7, 13, 3)), 4)
    relative, points = rng.uniform(size=(9, 13, 2)), rng.normal(size=(9, 13, 3))
    full = np.arange(9) % 2 == 0
    points[6:] = np.nan
    classes, apart = nearest_anchors(relative, points, full, anchors)
    for person in range(9):
        costs = {}
        for k in range(7):
            if (k < 4) != full[person]:
                assert apart[person, k] == np.inf
                continue
            joints = range(13) if k < 4 else range(4, 13)
            solid = np.mean(
                [np.linalg.norm(points[person, j] - anchors.poses_3d[k, j]) for j in joints]
            )
            flat = np.mean(
                [np.linalg.norm(relative[person, j] - anchors.poses_2d[k, j]) for j in joints]
            )
            costs[k] = flat if person >= 6 else solid
            assert apart[person, k] == (np.inf if person >= 6 else pytest.approx(solid))
        assert classes[person] == min(costs, key=lambda k: costs[k])


def test_box_of_a_whole_person() -> None:
    box, full = person_box(STANDING, SEEN, (120, 100))  # type: ignore[misc]
    assert full
    # 30 by 80 pixels from (35, 15), and margins of max(3, 4) and 8.
    np.testing.assert_allclose(box, [31, 7, 69, 103])


def test_box_of_a_person_cut_off() -> None:
    box, full = person_box(STANDING, SEEN, (70, 100))  # type: ignore[misc]
    assert not full
    np.testing.assert_allclose(box, [32, 11, 68, 59])
    np.testing.assert_allclose(upper_box(STANDING, SEEN, (120, 100)), box)
    box, _ = person_box(STANDING, SEEN, (57, 100))  # type: ignore[misc]
    assert box[3] == 56.5


@pytest.mark.parametrize("hidden", [range(4, 10), (10, 11)])
def test_too_little_of_a_person(hidden: object) -> None:
    scores = SEEN.copy()
    scores[list(hidden)] = 0  # type: ignore[call-overload]
    assert person_box(STANDING, scores, (120, 100)) is None
    assert person_box(STANDING + 1000, SEEN, (120, 100)) is None
