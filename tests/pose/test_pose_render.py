"""Skeletons over pictures: the right side, the left side and the 3D views where they belong."""

from __future__ import annotations

import numpy as np
import pytest

from vidkd.pose.render import BACKGROUND, LEFT, METRES, RIGHT, SkeletonOverlay
from vidkd.skeletons import BONES

WIDTH, HEIGHT, SCALE = 641, 480, 2.0


def standing() -> np.ndarray:
    """Return a person's (13, 6), spread out so that no two bones touch at their middles."""
    spread = [(90, 200), (190, 200), (100, 160), (180, 160), (110, 120), (170, 120), (60, 130)]
    spread += [(220, 130), (75, 95), (205, 95), (105, 60), (175, 60), (140, 30)]
    joints = np.zeros((13, 6), np.float32)
    joints[:, :2] = spread
    joints[:, 2:4] = (joints[:, :2] - [140, 120]) / 100
    joints[:, 4] = 0.5
    joints[:, 5] = 0.9
    return joints


def close(picture: np.ndarray, at: np.ndarray, colour: tuple[int, ...]) -> bool:
    column, row = (round(float(value)) for value in at)
    return bool(np.abs(picture[row, column].astype(int) - colour).max() < 40)


def test_bones_and_joints_lie_where_the_joints_are() -> None:
    overlay = SkeletonOverlay(WIDTH, HEIGHT, SCALE)
    people = np.full((2, 13, 6), np.nan, np.float32)
    people[0] = standing()
    image = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    drawn = overlay.draw(image, people, np.array([3, -1]))
    assert drawn.shape == (overlay.size[1], overlay.size[0], 3)
    assert overlay.size[0] % 2 == overlay.size[1] % 2 == 0
    assert (image == 60).all()
    points = (people[0, :, :2] + 0.5) * SCALE - 0.5
    for one, other in BONES:
        colour = LEFT if one % 2 else RIGHT
        assert close(drawn, (points[one] + points[other]) / 2, colour), (one, other)
    for point in points:
        assert close(drawn, point, (255, 255, 255))
    # The front view shows X and Y, the side view below it Z, which is the same for all joints.
    view = HEIGHT // 2
    unit = view / (2 * METRES)
    for joint in range(13):
        at = people[0, joint, [2, 3]] * unit + view / 2
        assert close(drawn, at + np.array([WIDTH, 0]), (255, 255, 255)), joint
    rows, columns = np.nonzero((drawn[view : 2 * view, WIDTH:] > 240).all(axis=2))
    assert len(rows)
    assert np.abs(columns - (0.5 * unit + view / 2)).max() < 5


def test_nobody_is_drawn_where_nobody_is() -> None:
    overlay = SkeletonOverlay(WIDTH, HEIGHT, SCALE)
    people = np.stack([standing(), standing()])
    image = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    drawn = overlay.draw(image, people, np.array([-1, -1]))
    assert (drawn[:, :WIDTH] == 60).all()
    assert (drawn[:, WIDTH:] == np.array(BACKGROUND)).all(axis=2).mean() > 0.5


@pytest.mark.parametrize("known", [slice(0, 0), slice(0, 1), slice(4, 9)])
def test_joints_that_are_not_known_are_left_out(known: slice) -> None:
    overlay = SkeletonOverlay(WIDTH, HEIGHT, SCALE)
    joints = np.full((1, 13, 6), np.nan, np.float32)
    joints[0, known] = standing()[known]
    drawn = overlay.draw(np.zeros((HEIGHT, WIDTH, 3), np.uint8), joints, np.array([0]))
    points = (standing()[:, :2] + 0.5) * SCALE - 0.5
    for number, point in enumerate(points):
        assert close(drawn, point, (255, 255, 255)) == (number in range(13)[known])


def test_joints_far_outside_the_picture_do_no_harm() -> None:
    overlay = SkeletonOverlay(WIDTH, HEIGHT, SCALE)
    joints = standing()[None] * np.array([1e3, -1e3, 1, 1, 1, 1], np.float32)
    image = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    assert overlay.draw(image, joints, np.array([0])).shape[0] == HEIGHT
