"""Normalised poses: what must not change them, and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from vidkd.errors import UsageError
from vidkd.pose.normalise import fill, lift, mirror, normalise, rotate
from vidkd.pose.poses import Poses
from vidkd.recipe import PoseInputSettings
from vidkd.skeletons import find_skeleton

SKELETON = find_skeleton("lcrnet-13")
HIPS, SHOULDERS = list(SKELETON.hips), list(SKELETON.shoulders)


def moving(frames: int = 6, people: int = 2) -> np.ndarray:
    """Return people (M, T, 13, 3) in metres whose hips and shoulders have a front."""
    rng = np.random.default_rng(0)
    body = rng.normal(0, 0.3, (people, 1, 13, 3))
    body[..., [4, 10], 0] -= 0.5
    body[..., [5, 11], 0] += 0.5
    body[..., 10:, 1] -= 1.0
    return body + rng.normal(0, 0.05, (people, frames, 13, 3))


@pytest.mark.parametrize("scale", ["bones", "torso"])
def test_place_size_and_view_do_not_matter(scale: str) -> None:
    joints = moving()
    settings = PoseInputSettings.model_validate({"scale": scale})
    expected = normalise(joints, SKELETON, settings)
    rng = np.random.default_rng(1)
    for _ in range(5):
        angle = rng.uniform(-np.pi, np.pi, (2,))
        changed = rotate(joints, angle) * rng.uniform(0.2, 5) + rng.normal(size=3)
        np.testing.assert_allclose(normalise(changed, SKELETON, settings), expected, atol=1e-9)


def test_without_view_a_turn_stays_a_turn() -> None:
    joints = moving()
    settings = PoseInputSettings(view=False)
    turned = normalise(rotate(joints, np.array(0.7)), SKELETON, settings)
    expected = rotate(normalise(joints, SKELETON, settings), np.array(0.7))
    np.testing.assert_allclose(turned, expected, atol=1e-9)
    assert not np.allclose(turned, normalise(joints, SKELETON, settings))


def test_people_are_centred_of_unit_bones_and_face_the_camera() -> None:
    found = normalise(rotate(moving(), np.array(2.0)), SKELETON, PoseInputSettings())
    np.testing.assert_allclose(found[..., HIPS, :].mean(axis=(1, 2)), 0, atol=1e-9)
    child, parent = (list(side) for side in zip(*SKELETON.bones, strict=True))
    lengths = np.linalg.norm(found[..., child, :] - found[..., parent, :], axis=-1)
    np.testing.assert_allclose(lengths.mean(axis=(1, 2)), 1)
    pairs = np.array([HIPS, SHOULDERS])
    side = (found[..., pairs[:, 1], :] - found[..., pairs[:, 0], :]).mean(axis=(1, 2))
    assert (side[:, 0] > 0.1).all()
    np.testing.assert_allclose(side[:, 2], 0, atol=1e-9)
    torso = normalise(moving(), SKELETON, PoseInputSettings(scale="torso"))
    trunk = torso[..., SHOULDERS, :].mean(-2) - torso[..., HIPS, :].mean(-2)
    np.testing.assert_allclose(np.linalg.norm(trunk, axis=-1).mean(axis=1), 1)


def test_movement_within_the_snippet_survives() -> None:
    joints = moving(people=1)
    steps = np.arange(6)[:, None, None] * np.array([0.2, 0, 0])
    settings = PoseInputSettings(view=False, scale="none")
    found = normalise(joints + steps, SKELETON, settings)
    still = normalise(joints, SKELETON, settings)
    expected = np.broadcast_to(steps - steps.mean(axis=0), found.shape)
    np.testing.assert_allclose(found - still, expected, atol=1e-9)


def test_mirroring_twice_is_nothing_and_once_commutes_with_the_view() -> None:
    joints = moving()
    np.testing.assert_allclose(mirror(mirror(joints, SKELETON), SKELETON), joints)
    settings = PoseInputSettings()
    one = normalise(mirror(joints, SKELETON), SKELETON, settings)
    np.testing.assert_allclose(
        one, mirror(normalise(joints, SKELETON, settings), SKELETON), atol=1e-9
    )


def test_gaps_are_filled_linearly_and_ends_held() -> None:
    line = np.arange(6, dtype=float)
    joints = np.stack([line, 2 * line, -line], axis=-1)[:, None]
    gaps = joints.copy()
    gaps[[2, 3]] = np.nan
    np.testing.assert_allclose(fill(gaps), joints)
    gaps[[0, 5]] = np.nan
    expected = joints.copy()
    expected[0], expected[5] = joints[1], joints[4]
    np.testing.assert_allclose(fill(gaps), expected)
    gaps[:] = np.nan
    assert np.isnan(fill(gaps)).all()


def test_a_frame_without_anybody_at_the_end_is_the_last_one_repeated() -> None:
    joints = moving()
    held, missing = joints.copy(), joints.copy()
    held[:, 4:] = joints[:, 3:4]
    missing[:, 4:] = np.nan
    settings = PoseInputSettings()
    np.testing.assert_allclose(
        normalise(missing, SKELETON, settings), normalise(held, SKELETON, settings)
    )


def test_what_is_missing_throughout_stays_missing_and_the_rest_finite() -> None:
    joints = moving()
    joints[:, :, 6] = np.nan
    joints[1] = np.nan
    found = normalise(joints, SKELETON, PoseInputSettings())
    assert np.isnan(found[1]).all()
    assert np.isnan(found[0, :, 6]).all()
    assert np.isfinite(np.delete(found[0], 6, axis=1)).all()
    joints[0][:, HIPS + SHOULDERS] = np.nan
    found = normalise(joints, SKELETON, PoseInputSettings())
    assert np.isfinite(found[0, :, 0]).all()
    with pytest.raises(UsageError, match="12 joints are not those of lcrnet-13"):
        normalise(joints[..., :12, :], SKELETON, PoseInputSettings())


def video(flat: np.ndarray, joints: np.ndarray) -> Poses:
    """Return poses (T, M, 13, ...) as a cache holds them."""
    data = np.concatenate([flat, joints, np.ones_like(flat[..., :1])], axis=-1)
    frames, people = data.shape[:2]
    tracks = np.broadcast_to(np.arange(people, dtype=np.int32), (frames, people))
    times = np.arange(frames + 1) / 10
    pts = np.stack([times[:-1], times[1:]], axis=1)
    return Poses(data.astype(np.float32), tracks, pts, 320, 240)


def test_lifting_brings_back_the_walk_that_the_cache_hides() -> None:
    joints = moving(8, 1).transpose(1, 0, 2, 3)
    hips = joints[..., HIPS, :].mean(axis=-2, keepdims=True)
    relative = joints - hips
    path = np.arange(8)[:, None, None, None] * np.array([0.15, 0.02, 0])
    pixels = 100 * (relative + path)[..., :2] + np.array([160, 120])
    found = lift(video(pixels, relative), PoseInputSettings())
    moved = found - found[:1]
    np.testing.assert_allclose(
        moved[..., 4, :] - relative[..., 4, :] + relative[:1, :, 4],
        np.broadcast_to(path[..., 0, :], moved[..., 4, :].shape),
        atol=1e-4,
    )
    still = lift(video(pixels, relative), PoseInputSettings(trajectory=False))
    np.testing.assert_allclose(still, relative, atol=1e-6)
    flat = lift(video(pixels, relative), PoseInputSettings(dimensions="2d"))
    np.testing.assert_allclose(flat[..., :2], pixels, rtol=1e-6)
    assert not flat[..., 2].any()


def test_poses_without_depth_are_refused_or_taken_as_they_are() -> None:
    flat = moving(4, 1).transpose(1, 0, 2, 3)[..., :2]
    poses = video(flat, np.full((4, 1, 13, 3), np.nan))
    with pytest.raises(UsageError, match="no third dimension"):
        lift(poses, PoseInputSettings())
    assert np.isfinite(lift(poses, PoseInputSettings(dimensions="2d"))).all()
