"""How people move: anatomy, planted feet, and actions that only time's direction tells apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidkd.recipe import SynthSettings
from vidkd.synth import actions, arms
from vidkd.synth.actions import Style
from vidkd.synth.camera import Camera
from vidkd.synth.curves import through
from vidkd.synth.gait import Gait, Path
from vidkd.synth.part import Clip, Part
from vidkd.synth.performance import perform
from vidkd.synth.render import plan
from vidkd.synth.skeleton import Build, Controls, solve, two_bones

SETTINGS = SynthSettings(videos=12, seconds=20, seed=3)


def performances():  # type: ignore[no-untyped-def]
    for number in range(SETTINGS.videos):
        shot = plan(SETTINGS, number)
        for part in shot.parts:
            yield perform(part, shot.times, np.random.default_rng(0)), shot


def test_a_limb_reaches_its_target_with_the_middle_towards_the_pole() -> None:
    rng = np.random.default_rng(1)
    root, pole = rng.normal(size=(50, 3)), rng.normal(size=(50, 3))
    way = rng.normal(size=(50, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    target = root + way * rng.uniform(0.2, 0.75, (50, 1))
    middle, end = two_bones(root, target, pole, 0.42, 0.36)
    np.testing.assert_allclose(end, target, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(middle - root, axis=1), 0.42)
    np.testing.assert_allclose(np.linalg.norm(end - middle, axis=1), 0.36)
    assert (np.sum((middle - (root + end) / 2) * pole, axis=1) > -0.25).all()
    across = pole - np.sum(pole * way, axis=1, keepdims=True) * way
    assert (np.sum((middle - root) * across, axis=1) > 0).all()


def test_a_limb_out_of_reach_is_stretched_but_not_torn() -> None:
    far = np.array([[9.0, 0.0, 0.0]])
    middle, end = two_bones(np.zeros((1, 3)), far, np.array([[0.0, 1.0, 0.0]]), 0.3, 0.2)
    assert np.linalg.norm(middle) == pytest.approx(0.3)
    assert np.linalg.norm(end) == pytest.approx(0.5, rel=1e-3)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6))
def test_key_frames_are_met_and_never_overshot(values: list[float]) -> None:
    keys = [(float(number), value) for number, value in enumerate(values)]
    times = np.linspace(-1, len(values), 200)
    curve = through(times, keys)
    assert curve.min() >= min(values) - 1e-9
    assert curve.max() <= max(values) + 1e-9
    np.testing.assert_allclose(through(np.arange(len(values)) * 1.0, keys), values, atol=1e-9)


@pytest.mark.parametrize("curvature", [0.0, 0.7, -1.2])
def test_a_path_is_an_arc_of_its_length(curvature: float) -> None:
    path = Path(1.0, -2.0, 0.3, curvature, 2.5)
    points = path.at(np.linspace(0, 2.5, 2001))
    steps = np.linalg.norm(np.diff(points[:, :2], axis=0), axis=1)
    assert steps.sum() == pytest.approx(2.5, rel=1e-5)
    ahead = np.stack([-np.sin(points[:-1, 2]), np.cos(points[:-1, 2])], axis=1)
    np.testing.assert_allclose(np.diff(points[:, :2], axis=0), steps[:, None] * ahead, atol=2e-6)


@pytest.mark.parametrize("running", [False, True])
def test_speed_is_reached_and_lost_smoothly(running: bool) -> None:
    gait = Gait(running, 2.0 if running else 1.1, 0.7, 1.0)
    times = np.linspace(0, gait.duration(3.0), 2000)
    s = gait.travelled(times, 3.0)
    assert s[0] == 0
    assert s[-1] == pytest.approx(3.0, abs=1e-6)
    speed = np.diff(s) / np.diff(times)
    assert speed.min() > -1e-9
    assert speed.max() == pytest.approx(gait.speed, rel=1e-3)
    assert max(speed[0], speed[-1]) < 0.02


@pytest.mark.parametrize("running", [False, True])
def test_feet_stay_where_they_are_planted(running: bool) -> None:
    build = Build()
    gait = Gait(running, 2.3 if running else 1.2, 0.9 if running else 0.65, 1.0)
    path = Path(0.0, 0.0, 0.4, 0.25, 5.0)
    end = 0.5 + gait.duration(5.0)
    clip = Clip("walk", 0.5, end, (0.0, 0.0, 0.4), path=path, gait=gait)
    part = Part(build, (0.0, 0.0, 0.4), False, None, None, body=[clip])
    times = np.arange(0, end + 0.5, 0.02)
    posture = perform(part, times, np.random.default_rng(0)).posture
    speed = np.linalg.norm(np.diff(posture.toes, axis=0), axis=-1) / 0.02
    low = posture.toes[:-1, :, 2] < 0.04
    # Somebody who slid would move at the body's speed while the toes touch the floor.
    assert np.quantile(speed[low], 0.8) < 0.3
    if not running:
        assert low.any(axis=1).mean() > 0.9
    assert posture.toes[..., 2].min() > -0.02
    travelled = posture.pelvis[-1, :2] - posture.pelvis[0, :2]
    np.testing.assert_allclose(travelled, path.at(5.0)[:2], atol=0.06)


def test_knees_and_elbows_bend_the_way_they_do() -> None:
    for performance, _ in performances():
        joints = performance.posture.joints
        for side in (0, 1):
            ankle, knee, hip = joints[:, side], joints[:, 2 + side], joints[:, 4 + side]
            toes = performance.posture.toes[:, side]
            # The knee lies before the line from hip to ankle, seen along the foot or the hips.
            ahead = performance.posture.hips_frame[:, :, 1] + (toes - ankle)
            bend = np.sum((knee - (hip + ankle) / 2) * ahead, axis=1)
            assert bend.min() > -0.02
            wrist, elbow, shoulder = joints[:, 6 + side], joints[:, 8 + side], joints[:, 10 + side]
            chest = performance.posture.chest_frame
            middle = elbow - (wrist + shoulder) / 2
            outward = (1 - 2 * side) * np.sum(middle * chest[:, :, 0], axis=1)
            # An elbow never points inward and upward, that is into the body or the face.
            inward = (outward < -0.05) & (np.sum(middle * chest[:, :, 2], axis=1) > 0.05)
            assert not inward.any()


def test_hands_stay_out_of_the_trunk() -> None:
    inside, total = 0, 0
    for performance, _ in performances():
        posture, build = performance.posture, performance.part.build
        for side in (0, 1):
            local = np.einsum(
                "nji,nj->ni", posture.chest_frame, posture.hands[:, side] - posture.waist
            )
            high = (local[:, 2] > 0) & (local[:, 2] < 0.5 * build.spine)
            wide, deep = 0.085 * build.height, 0.055 * build.height
            inside += int(np.sum(high & (np.hypot(local[:, 0] / wide, local[:, 1] / deep) < 1)))
            total += len(local)
    assert inside / total < 0.005


def test_a_person_moves_without_jerks() -> None:
    for performance, shot in performances():
        step = np.diff(shot.times)[0]
        moved = np.linalg.norm(np.diff(performance.posture.joints, axis=0), axis=-1) / step
        # The fastest is the hand in a throw.
        assert moved[:, 12].max() < 4.0
        assert moved.max() < 11.0
        if performance.ball is not None:
            flown = np.linalg.norm(np.diff(performance.ball, axis=0), axis=-1) / step
            assert np.nanmax(flown, initial=0) < 14.0
        if performance.item is not None:
            dragged = np.linalg.norm(np.diff(performance.item[:, :3], axis=0), axis=-1) / step
            assert dragged.max() < 5.0


def _written(write) -> Controls:  # type: ignore[no-untyped-def]
    controls = Controls.standing(Build(), np.zeros((41, 3)))
    write(controls, np.arange(41), np.linspace(0, 1, 41))
    return controls


def _assert_reversed(first: Controls, second: Controls) -> None:
    forward, backward = solve(Build(), first), solve(Build(), second)
    np.testing.assert_allclose(forward.joints, backward.joints[::-1], atol=1e-9)
    assert np.ptp(forward.joints, axis=0).max() > 0.3


def test_standing_up_is_sitting_down_backwards() -> None:
    style = Style(size=1.1)
    _assert_reversed(
        _written(lambda c, rows, u: actions.sit(c, rows, u, Build(), style)),
        _written(lambda c, rows, u: actions.sit(c, rows, 1 - u, Build(), style)),
    )


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("variant", [0, 1])
def test_putting_down_is_picking_up_backwards(variant: int, both: bool) -> None:
    rest = (Build(), Style(variant=variant), (0.15, 0.2), both)
    _assert_reversed(
        _written(lambda c, rows, u: actions.lift(c, rows, u, *rest)),
        _written(lambda c, rows, u: actions.lift(c, rows, 1 - u, *rest)),
    )


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_catching_is_throwing_backwards(variant: int) -> None:
    style = Style(variant=variant)
    _assert_reversed(
        _written(lambda c, rows, u: arms.throw(c, rows, u, 1.0, Build(), style, backwards=False)),
        _written(lambda c, rows, u: arms.throw(c, rows, u, 1.0, Build(), style, backwards=True)),
    )


def test_a_seated_person_sits_on_the_seat_and_not_in_it() -> None:
    for height in (1.5, 1.72, 1.93):
        build = Build(height=height, girth=1.1)
        part = Part(build, (0.0, 0.0, 0.0), True, (0.0, -actions.SEAT_BEHIND, 0.0), None)
        joints = perform(part, np.arange(30) / 10, np.random.default_rng(0)).posture.joints
        hips = joints[:, 4:6]
        assert np.abs(hips[..., 2] - actions.SEAT - 0.11).max() < 0.05
        assert np.abs(hips[..., 1] + actions.SEAT_BEHIND).max() < 0.12
        assert (joints[:, :2, 2] < 0.13).all()


def test_the_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    same = [plan(SETTINGS, 4).segments() for _ in range(2)]
    assert same[0] == same[1]
    other = plan(SETTINGS.model_copy(update={"seed": 4}), 4).segments()
    assert other != same[0]
    # A longer data set begins with the same videos.
    longer = SETTINGS.model_copy(update={"videos": 90})
    assert plan(longer, 4).segments() == same[0]


def test_actions_overlap_and_two_people_appear() -> None:
    overlaps = people = 0
    for number in range(30):
        shot = plan(SETTINGS, number)
        people += len(shot.parts) == 2
        for part in shot.parts:
            found = part.segments()
            overlaps += any(a[1] > b[0] for a, b in itertools.pairwise(found))
            # One body does one thing at a time.
            clips = sorted(part.body, key=lambda clip: clip.start)
            assert all(a.end <= b.start + 1e-9 for a, b in itertools.pairwise(clips))
            for clip in clips:
                assert 0 <= clip.start < clip.end <= SETTINGS.seconds
    assert overlaps >= 4
    assert 4 <= people <= 20


def test_the_camera_is_a_pinhole() -> None:
    camera = Camera.looking(
        320, 240, 250.0, np.array([1.0, -5.0, 1.5]), np.array([0.0, 0.0, 1.0]), 0.0
    )
    middle = camera.project(camera.to_camera(np.array([0.0, 0.0, 1.0])))
    np.testing.assert_allclose(middle, [159.5, 119.5], atol=1e-9)
    # Higher in the world is higher in the picture; a metre spans focal / distance pixels.
    top = camera.project(camera.to_camera(np.array([0.0, 0.0, 1.5])))
    assert top[1] < middle[1]
    right = camera.rotation[0]
    beside = camera.project(camera.to_camera(np.array([0.0, 0.0, 1.0]) + right))
    distance = np.linalg.norm(camera.position - [0.0, 0.0, 1.0])
    np.testing.assert_allclose(beside - middle, [250.0 / distance, 0.0], atol=1e-9)
    np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(camera.rotation) == pytest.approx(1.0)
    shift = np.array([3.0, -2.0])
    np.testing.assert_allclose(camera.intrinsics(shift)[:2, 2], camera.centre + shift, atol=1e-12)
