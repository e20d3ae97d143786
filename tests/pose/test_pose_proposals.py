"""Pose proposal integration against a slow one written from its description."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vidkd.pose.proposals import integrate, overlaps, pose_boxes

SIZE = (120, 160)


def slow_overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union of boxes whose last pixel belongs to them."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    common = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return common / (sum(areas) - common)


def slow_integration(poses_2d, poses_3d, scores, upper, size):  # type: ignore[no-untyped-def]
    """Return (score, joints_2d, joints_3d) of people, in loops over single numbers."""
    height, width = size
    boxes = []
    for pose in poses_2d:
        xs = [min(max(x, 0), width - 1) for x, _ in pose]
        ys = [min(max(y, 0), height - 1) for _, y in pose]
        boxes.append([min(xs), min(ys), max(xs), max(ys)])
    left = sorted(range(len(scores)), key=lambda i: -scores[i])
    people = []
    while left:
        first = left[0]
        group = [i for i in left if slow_overlap(boxes[first], boxes[i]) > 0.2]
        left = [i for i in left if i not in group]
        modes = []
        waiting = list(group)
        while waiting:
            seed = waiting[0]
            near = []
            for i in group:
                total = 0.0
                for p, q in zip(poses_3d[i], poses_3d[seed], strict=True):
                    total += math.dist(p, q)
                if total / 13 < 0.3:
                    near.append(i)
            waiting = [i for i in waiting if i not in near]
            modes.append(near)
        best = max(modes, key=lambda mode: sum(scores[i] for i in mode))
        total = sum(scores[i] for i in best)
        if total <= 0.002:
            continue
        flat, solid = [], []
        for joint in range(13):
            weights = [scores[i] * (0.1 if joint < 4 and upper[i] else 1.0) for i in best]
            for source, target in ((poses_2d, flat), (poses_3d, solid)):
                target.append(
                    [
                        sum(w * source[i][joint][axis] for w, i in zip(weights, best, strict=True))
                        / sum(weights)
                        for axis in range(len(source[0][joint]))
                    ]
                )
        people.append((total, flat, solid))
    return sorted(people, key=lambda person: -person[0])


def proposals(seed: int, count: int = 40):  # type: ignore[no-untyped-def]
    """Draw proposals around three people, some of whom overlap or leave the picture."""
    rng = np.random.default_rng(seed)
    people = rng.integers(0, 3, count)
    places = rng.uniform(0, 150, (3, 2))
    shapes = rng.normal(0, 25, (3, 2, 13, 2))
    bodies = rng.normal(0, 0.3, (3, 2, 13, 3))
    modes = rng.integers(0, 2, count)
    poses_2d = places[people][:, None] + shapes[people, modes] + rng.normal(0, 2, (count, 13, 2))
    poses_3d = bodies[people, modes] + rng.normal(0, 0.1, (count, 13, 3))
    scores = rng.uniform(0.001, 0.3, count)
    return poses_2d, poses_3d, scores, rng.random(count) < 0.4


@pytest.mark.parametrize("seed", range(12))
def test_against_the_slow_one(seed: int) -> None:
    poses_2d, poses_3d, scores, upper = proposals(seed)
    found = integrate(poses_2d, poses_3d, scores, upper, SIZE)
    wanted = slow_integration(poses_2d, poses_3d, scores, upper, SIZE)
    assert len(found) == len(wanted) >= 1
    for person, (score, flat, solid) in zip(found, wanted, strict=True):
        assert person.score == pytest.approx(score)
        np.testing.assert_allclose(person.joints_2d, flat, rtol=1e-9)
        np.testing.assert_allclose(person.joints_3d, solid, rtol=1e-9)


def test_order_of_the_proposals_does_not_matter() -> None:
    poses_2d, poses_3d, scores, upper = proposals(3)
    order = np.random.default_rng(1).permutation(len(scores))
    one = integrate(poses_2d, poses_3d, scores, upper, SIZE)
    other = integrate(poses_2d[order], poses_3d[order], scores[order], upper[order], SIZE)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a.joints_2d, b.joints_2d)
        assert set(a.members) == set(order[b.members])


def test_legs_come_from_full_body_anchors() -> None:
    poses_2d = np.zeros((2, 13, 2))
    poses_2d[1, :, 0] = 11.0
    found = integrate(
        poses_2d, np.zeros((2, 13, 3)), np.array([0.5, 0.5]), np.array([False, True]), SIZE
    )
    # Boxes of one pixel do not overlap 11 pixels apart: two people.
    assert len(found) == 2
    poses_2d[:, 12, 0] = 40.0
    (person,) = integrate(
        poses_2d, np.zeros((2, 13, 3)), np.array([0.5, 0.5]), np.array([False, True]), SIZE
    )
    np.testing.assert_allclose(person.joints_2d[:4, 0], 11 * 0.1 / 1.1)
    np.testing.assert_allclose(person.joints_2d[4:12, 0], 5.5)


def test_nothing_and_nearly_nothing() -> None:
    nothing = np.zeros((0, 13, 2)), np.zeros((0, 13, 3)), np.zeros(0), np.zeros(0, bool)
    assert integrate(*nothing, SIZE) == []
    faint = np.zeros((1, 13, 2)), np.zeros((1, 13, 3)), np.array([0.002]), np.zeros(1, bool)
    assert integrate(*faint, SIZE) == []


def test_boxes_stop_at_the_edge() -> None:
    poses = np.array([[[-50.0, -7.0]] * 12 + [[500.0, 30.0]]])
    np.testing.assert_array_equal(pose_boxes(poses, SIZE), [[0, 0, 159, 30]])
    boxes = np.array([[0.0, 0, 9, 9], [5, 0, 14, 9], [10, 0, 19, 9], [0, 0, 9, 9]])
    np.testing.assert_allclose(overlaps(boxes[0], boxes), [1, 50 / 150, 0, 1])
