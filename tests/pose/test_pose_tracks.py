"""Tracks: interpolation against closed forms, people who cross."""

from __future__ import annotations

import numpy as np
import pytest

from vidkd.pose.detector import PersonPose
from vidkd.pose.tracks import Arrangement, Tracker, box_iou, fill, smooth
from vidkd.recipe import TrackSettings

RATE = 25.0
POSTURE = np.random.default_rng(0).normal(0, 0.4, (13, 3))


def person(x: float, y: float = 100.0, score: float = 0.9, size: float = 40.0, lean: float = 0.0):
    """Return a person whose middle is at (x, y), leaning by so many metres."""
    points = POSTURE + lean * np.arange(13)[:, None] / 13 * np.array([1.0, 0.0, 0.0])
    return PersonPose(
        box=np.array([x - size / 2, y - size, x + size / 2, y + size]),
        joints_2d=np.stack([np.full(13, x), y + 2.0 * np.arange(13)], axis=1),
        joints_3d=points,
        scores=np.full(13, score),
        score=score,
    )


def times(count: int, rate: float = RATE) -> np.ndarray:
    starts = np.arange(count) / rate
    return np.stack([starts, starts + 1 / rate], axis=1)


def linked(looks: dict[int, list], count: int, **settings: float) -> tuple[np.ndarray, np.ndarray]:
    chosen = TrackSettings(**settings)
    tracker = Tracker(chosen)
    for frame, people in looks.items():
        tracker.look(frame, frame / RATE, people)
    return Arrangement(tracker, times(count), chosen).rows(0, count)


def test_the_overlap_of_boxes() -> None:
    box = np.array([0.0, 0.0, 4.0, 2.0])
    assert box_iou(box, box) == 1
    assert box_iou(box, box + 10) == 0
    assert box_iou(box, np.array([2.0, 0.0, 6.0, 2.0])) == pytest.approx(4 / 12)
    assert box_iou(np.zeros(4), np.zeros(4)) == 0


def test_people_who_cross_keep_their_slots_and_gaps_are_filled() -> None:
    # They walk through each other at 100 pixels/s each; one of them leans.
    count = 75
    looks = {}
    for frame in range(count):
        right = person(100 + 4 * frame, y=100, score=0.9, lean=0.0)
        left = person(400 - 4 * frame, y=104, score=0.8, lean=1.5)
        # Found in any order; the heavier one is missed for 0.28 s.
        both = [left, right] if frame % 3 else [right, left]
        looks[frame] = [left] if 20 <= frame < 27 else both
    data, numbers = linked(looks, count)
    np.testing.assert_array_equal(numbers[:, 0], 0)
    np.testing.assert_array_equal(numbers[:, 1], 1)
    np.testing.assert_array_equal(numbers[:, 2:], -1)
    assert np.isnan(data[:, 2:]).all()
    frames = np.arange(count)
    # Uniform motion is interpolated exactly, also where nobody was found.
    np.testing.assert_allclose(data[:, 0, 5, 0], 100 + 4 * frames, atol=1e-3)
    np.testing.assert_allclose(data[:, 1, 5, 0], 400 - 4 * frames, atol=1e-3)
    np.testing.assert_allclose(data[:, 0, :, 5], 0.9, atol=1e-6)


def test_every_nth_frame_is_enough_for_uniform_motion() -> None:
    count = 60
    looks = {frame: [person(50 + 6 * frame)] for frame in range(0, count, 8)}
    data, numbers = linked(looks, count, max_gap=0.1)
    assert (numbers[:, 0] == 0).all()
    expected = 50 + 6 * np.arange(count).clip(max=56)  # after the last look, as it was there
    np.testing.assert_allclose(data[:, 0, 0, 0], expected, atol=1e-3)


def test_a_long_absence_ends_a_track() -> None:
    looks = {frame: [person(100)] if not 30 <= frame < 60 else [] for frame in range(90)}
    data, numbers = linked(looks, 90, max_gap=0.5)
    assert (numbers[:30, 0] == numbers[0, 0]).all()
    assert (numbers[30:60] == -1).all()
    assert np.isnan(data[30:60]).all()
    # The same slot, which was free again, but another track.
    assert (numbers[60:, 0] == 1 - numbers[0, 0]).all()
    # With more patience it is one track.
    assert (linked(looks, 90, max_gap=1.3)[1][:, 0] == 0).all()


def test_the_main_person_is_the_one_with_the_most_score_times_area() -> None:
    def looks(scores: tuple[float, float], sizes: tuple[float, float]) -> dict[int, list]:
        return {
            frame: [person(100, score=scores[0], size=sizes[0]), person(400, score=scores[1])]
            if frame < 40
            else [person(400, score=scores[1], size=sizes[1])]
            for frame in range(80)
        }

    data, _ = linked(looks((0.9, 0.9), (40, 40)), 80)
    assert data[0, 0, 0, 0] == 400  # there for longer
    data, _ = linked(looks((0.9, 0.1), (40, 40)), 80)
    assert data[0, 0, 0, 0] == 100  # found more surely
    data, _ = linked(looks((0.9, 0.9), (80, 40)), 80)
    assert data[0, 0, 0, 0] == 100  # larger


def test_short_tracks_and_those_without_a_slot_are_dropped() -> None:
    looks = {
        frame: [person(100 * k + 50, score=0.9 - 0.1 * k) for k in range(4)] for frame in range(50)
    }
    for frame in (10, 11, 12):
        looks[frame].append(person(900, score=1.0, size=400))
    data, numbers = linked(looks, 50, max_people=3, min_length=0.5)
    assert numbers.shape == (50, 3)
    np.testing.assert_array_equal(numbers, np.broadcast_to([0, 1, 2], (50, 3)))
    np.testing.assert_allclose(data[:, :, 0, 0], np.broadcast_to([50, 150, 250], (50, 3)))
    # In a video that is hardly longer than a moment, a moment is enough.
    assert (linked({0: [person(9)], 1: [person(9)]}, 2, min_length=5)[1][:, 0] == 0).all()


def test_joints_unknown_for_a_while_are_interpolated_one_by_one() -> None:
    at = np.arange(5) * 1.0
    joints = np.random.default_rng(1).normal(size=(5, 2, 6)).astype(np.float32)
    joints[1:3, 0] = np.nan
    wanted = np.linspace(0, 4, 9)
    near = fill(at, joints, wanted, longest_gap=3.5)
    for channel in range(6):
        np.testing.assert_allclose(
            near[:, 1, channel], np.interp(wanted, at, joints[:, 1, channel]), rtol=1e-5, atol=1e-6
        )
        known = np.interp(wanted, at[[0, 3, 4]], joints[[0, 3, 4], 0, channel])
        np.testing.assert_allclose(near[:, 0, channel], known, rtol=1e-5, atol=1e-6)
    far = fill(at, joints, wanted, longest_gap=2.0)
    assert np.isnan(far[1:6, 0]).all()
    np.testing.assert_array_equal(far[[0, 6, 7, 8], 0], near[[0, 6, 7, 8], 0])


def test_smoothing_keeps_lines_straight_and_scores_as_they_are() -> None:
    at = np.arange(50) / RATE
    joints = np.zeros((50, 1, 6), np.float32)
    joints[:, 0, 0] = 3 * at + 1
    joints[:, 0, 1] = np.where(np.arange(50) % 2, 1.0, -1.0)
    joints[:, 0, 5] = np.random.default_rng(0).random(50)
    joints[20, 0, 2] = np.nan
    result = smooth(joints, at, 0.1)
    inner = slice(10, 40)
    np.testing.assert_allclose(result[inner, 0, 0], joints[inner, 0, 0], atol=1e-5)
    # A Gaussian of 2.5 frames damps the fastest shaking by exp(-(2.5 pi)^2 / 2).
    assert abs(result[inner, 0, 1]).max() < 0.01
    np.testing.assert_array_equal(result[:, 0, 5], joints[:, 0, 5])
    assert np.isnan(result[20, 0, 2])
    assert np.isfinite(np.delete(result[:, 0, 2], 20)).all()
    assert smooth(joints, at, 0.0) is joints


def test_blocks_do_not_show() -> None:
    generator = np.random.default_rng(2)
    chosen = TrackSettings(smoothing=0.15)
    tracker = Tracker(chosen)
    for frame in range(0, 120, 3):
        tracker.look(frame, frame / RATE, [person(100 + float(generator.normal(0, 3)))])
    arranged = Arrangement(tracker, times(120), chosen)
    whole = arranged.rows(0, 120)
    parts = [arranged.rows(start, min(start + 7, 120)) for start in range(0, 120, 7)]
    for number in range(2):
        np.testing.assert_array_equal(
            np.concatenate([part[number] for part in parts]), whole[number]
        )


def test_a_video_without_people() -> None:
    data, numbers = linked({frame: [] for frame in range(10)}, 10)
    assert np.isnan(data).all()
    assert (numbers == -1).all()
