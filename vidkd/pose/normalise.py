"""Poses of a snippet in a frame of reference of their own: centred, scaled, and turned to face us.

Everything works on arrays (..., T, V, 3), whose leading axes may be snippets and people; missing
joints are NaN. Axes are those of a camera: x right, y down, z away.
"""

from __future__ import annotations

import numpy as np

from vidkd.errors import UsageError
from vidkd.pose.poses import Poses
from vidkd.recipe import PoseInputSettings
from vidkd.skeletons import Skeleton

Array = np.ndarray

_LEAST_SIDE = 1e-3
"""Length of right-to-left, relative to the bones, under which a person has no front to turn."""


def lift(poses: Poses, settings: PoseInputSettings) -> Array:
    """Return the joints of a video's people as (T, M, 13, 3), people first to last.

    With ``dimensions: 3d`` these are metres. A cache keeps them relative to the hips, which hides
    whether somebody walks or stands; with ``trajectory`` the hips' movement is added back in the
    image plane, where it is seen. Pixels become metres by the ratio of the sizes that the same
    joints have in both (weak perspective); movement in depth is not recovered. With
    ``dimensions: 2d`` they are pixels, and z is 0.

    Raises:
        UsageError: the poses have no 3D, and it is asked for.
    """
    present = poses.present[:, : settings.people]
    flat = poses.joints_2d[:, : settings.people].astype(np.float32)
    if settings.dimensions == "2d":
        joints = np.concatenate([flat, np.zeros_like(flat[..., :1])], axis=-1)
        return np.where(np.isfinite(flat).all(-1, keepdims=True), joints, np.nan)
    joints = poses.joints_3d[:, : settings.people].astype(np.float32)
    if present.any() and not np.isfinite(joints[present]).any():
        raise UsageError(
            "these poses have no third dimension",
            remedy="train with --dimensions 2d, or extract poses with 3D",
        )
    if settings.trajectory:
        joints = joints + _trajectory(joints, flat, poses.tracks[:, : settings.people])
    return joints


def _trajectory(joints: Array, flat: Array, tracks: Array) -> Array:
    """Return where the hips are (T, M, 1, 3), in metres from an origin fixed for each track."""
    known = np.isfinite(joints).all(-1) & np.isfinite(flat).all(-1)
    count = np.maximum(known.sum(-1), 1)[..., None, None]

    def middle(points: Array) -> Array:
        return np.where(known[..., None], points, 0).sum(-2, keepdims=True) / count

    spreads = []
    for points in (joints[..., :2], flat):
        offset = np.where(known[..., None], points - middle(points), 0)
        spreads.append(np.linalg.norm(offset, axis=-1).sum(-1))
    where = np.zeros((*tracks.shape, 1, 3), dtype=np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = spreads[0] / spreads[1]  # metres per pixel
    for number in np.unique(tracks[tracks >= 0]):
        own = (tracks == number) & np.isfinite(ratio) & (known.sum(-1) > 2)
        if not own.any():
            continue
        # One ratio for the whole track: a single frame's would turn its errors into movement.
        scale = np.median(ratio[own])
        shift = scale * middle(flat) - middle(joints[..., :2])
        where[..., :2] = np.where(own[..., None, None], shift, where[..., :2])
    return where


def fill(joints: Array) -> Array:
    """Fill missing joints over time: linearly between known ones, held before and after them.

    A joint that is missing in all T frames stays NaN. A frame without anybody at the end is thus
    a repeated one, as in the last snippet of a video.
    """
    known = np.isfinite(joints).all(-1)  # (..., T, V)
    if known.all():
        return joints
    length = joints.shape[-3]
    time = np.arange(length)[:, None]
    before = np.maximum.accumulate(np.where(known, time, -1), axis=-2)
    after = np.flip(
        np.minimum.accumulate(np.flip(np.where(known, time, length), axis=-2), axis=-2), axis=-2
    )
    # Where nothing is known on one side, the other side is held.
    first = np.clip(np.where(before < 0, after, before), 0, length - 1)
    last = np.clip(np.where(after >= length, before, after), 0, length - 1)
    left = np.take_along_axis(joints, first[..., None], axis=-3)
    right = np.take_along_axis(joints, last[..., None], axis=-3)
    share = (time - first) / np.maximum(last - first, 1)
    filled = left + share[..., None].astype(joints.dtype) * (right - left)
    seen = known.any(axis=-2, keepdims=True)
    return np.where(seen[..., None], np.where(known[..., None], joints, filled), np.nan)


def normalise(joints: Array, skeleton: Skeleton, settings: PoseInputSettings) -> Array:
    """Fill, centre, scale and turn people; each is treated alone, with one map for all frames.

    - Filled over time by :func:`fill`.
    - Centred: the mean position of the middle of the hips over the snippet becomes 0 (of all
      joints, where no hip is known).
    - Scaled: the mean length of the bones becomes 1 (``bones``), or the mean distance from the
      middle of the hips to that of the shoulders (``torso``).
    - Turned about the vertical axis (``view``) until the mean direction from right to left of hips
      and shoulders is that of a person who faces the camera, +x. The axis is the camera's: a
      camera that looks down keeps its tilt.

    Args:
        joints: (..., T, V, 3), NaN where missing.
        skeleton: of V joints.
        settings: scale and view.

    Returns:
        (..., T, V, 3) of the same type; NaN for joints that are missing throughout.
    """
    if joints.shape[-2] != skeleton.joints:
        raise UsageError(
            f"{joints.shape[-2]} joints are not those of {skeleton.name}",
            remedy="choose the skeleton that the poses have",
        )
    filled = fill(joints)
    hips = _mean(filled[..., list(skeleton.hips), :], (-2,))
    middle = _mean(hips, (-3,))
    middle = np.where(np.isfinite(middle), middle, _mean(filled, (-3, -2)))
    centred = filled - middle
    length = _length(centred, skeleton, settings.scale)
    scaled = centred / np.where(length > 0, length, 1)
    if settings.view:
        scaled = _turn(scaled, skeleton)
    return np.asarray(scaled, dtype=joints.dtype)


def _length(joints: Array, skeleton: Skeleton, scale: str) -> Array:
    """Return what is to become 1, (..., 1, 1, 1); NaN where it is unknown."""
    if scale == "none":
        return np.ones((1, 1, 1), dtype=joints.dtype)
    if scale == "torso":
        ends = [joints[..., list(pair), :] for pair in (skeleton.hips, skeleton.shoulders)]
        offset = _mean(ends[0], (-2,)) - _mean(ends[1], (-2,))
    else:
        children, parents = (list(side) for side in zip(*skeleton.bones, strict=True))
        offset = joints[..., children, :] - joints[..., parents, :]
    return _mean(np.linalg.norm(offset, axis=-1, keepdims=True), (-3, -2))


def _turn(joints: Array, skeleton: Skeleton) -> Array:
    pairs = np.array([skeleton.hips, skeleton.shoulders])
    side = joints[..., pairs[:, 1], :] - joints[..., pairs[:, 0], :]
    mean = _mean(side, (-3, -2))
    x, z = mean[..., 0], mean[..., 2]
    size = np.hypot(x, z)
    fronted = size > _LEAST_SIDE  # false for NaN
    safe = np.where(fronted, size, 1)
    return _rotated(joints, np.where(fronted, x / safe, 1), np.where(fronted, z / safe, 0))


def _rotated(joints: Array, cosine: Array, sine: Array) -> Array:
    """Turn about the vertical axis so that (cosine, sine) in (x, z) comes to lie on +x."""
    x, y, z = (joints[..., axis] for axis in range(3))
    return np.stack([cosine * x + sine * z, y, cosine * z - sine * x], axis=-1)


def rotate(joints: Array, angles: Array) -> Array:
    """Turn about the vertical axis.

    Args:
        joints: (..., T, V, 3).
        angles: radians, broadcastable to the leading axes.
    """
    wide = np.asarray(angles, dtype=joints.dtype)[..., None, None]
    return _rotated(joints, np.cos(wide), np.sin(wide))


def mirror(joints: Array, skeleton: Skeleton) -> Array:
    """Swap left and right, in space and among the joints."""
    swapped = joints[..., list(skeleton.flip), :]
    return np.asarray(swapped * np.array([-1, 1, 1], dtype=joints.dtype))


def _mean(values: Array, axes: tuple[int, ...]) -> Array:
    """Return the mean of what is not NaN, with the axes kept; NaN where all is."""
    known = np.isfinite(values).all(-1, keepdims=True)
    count = known.sum(axes, keepdims=True)
    total = np.where(known, values, 0).sum(axes, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total / count, dtype=values.dtype)
