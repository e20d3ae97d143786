"""The articulated person: proportions, controls, and the joints that follow from them.

Frames: the world is metric with z up. A person's local frame has its origin on the floor between
the feet, x to the person's right, y forward, z up; heading ``a`` turns it by ``Rz(a)``, so that the
person looks along ``(-sin a, cos a)``. Sides are indexed 0 (right) and 1 (left) throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidkd.skeletons import JOINTS

Array = np.ndarray

RIGID = (
    (0, 2),
    (1, 3),
    (2, 4),
    (3, 5),
    (4, 5),
    (6, 8),
    (7, 9),
    (8, 10),
    (9, 11),
    (10, 11),
)
"""Pairs of joints whose distance never changes in a person."""

SIDES = np.array([1.0, -1.0])
"""Direction of each side along the local x axis."""


@dataclass(frozen=True)
class Build:
    """Proportions of one person in metres, after Drillis and Contini (1966), scaled by height."""

    height: float = 1.72
    girth: float = 1.0
    """Thickness of the body relative to the average."""
    shoulders: float = 1.0
    """Breadth of the shoulders relative to the average."""

    def _part(self, share: float) -> float:
        return share * self.height

    @property
    def ankle(self) -> float:
        """Height of the ankle above the sole."""
        return self._part(0.043)

    @property
    def shank(self) -> float:
        return self._part(0.246)

    @property
    def thigh(self) -> float:
        return self._part(0.245)

    @property
    def hip(self) -> float:
        """Height of the hips when standing upright with knees a little bent."""
        return self.ankle + 0.992 * (self.shank + self.thigh)

    @property
    def hip_half(self) -> float:
        return self._part(0.052)

    @property
    def stance(self) -> float:
        """Half the distance between the feet."""
        return self._part(0.058)

    @property
    def spine(self) -> float:
        """Hips to the middle between the shoulders."""
        return self._part(0.288)

    @property
    def shoulder_half(self) -> float:
        return self._part(0.105) * self.shoulders

    @property
    def upper_arm(self) -> float:
        return self._part(0.172)

    @property
    def forearm(self) -> float:
        return self._part(0.150)

    @property
    def arm(self) -> float:
        return self.upper_arm + self.forearm

    @property
    def neck(self) -> float:
        """Middle between the shoulders to the centre of the head."""
        return self._part(0.110)

    @property
    def foot(self) -> float:
        """Ankle to the ball of the foot."""
        return self._part(0.085)

    def rest(self, side: int) -> Array:
        """Wrist of a hanging arm, relative to the shoulder in the chest frame, in metres."""
        return np.array([SIDES[side] * 0.16, 0.06, -0.955]) * self.arm


def zeros(*shape: int) -> Array:
    """Return float64 zeros."""
    return np.zeros(shape)


@dataclass
class Controls:
    """What moves a person: one row per instant; everything else follows by :func:`solve`.

    Lengths in metres, angles in radians. ``place`` is x, y, heading in the world; ``pelvis`` is
    the offset of the hips from standing (local frame); ``trunk`` is forward pitch, roll to the
    right and twist to the left of the chest; ``head`` is pitch and yaw relative to the chest;
    ``hips`` is roll and yaw of the pelvis. ``feet`` are ankles in the world, ``hand_chest``
    wrists relative to the shoulder in the chest frame, ``hand_local`` wrists in the local frame;
    ``hand_blend`` 0 takes the former, 1 the latter.
    """

    place: Array
    pelvis: Array
    trunk: Array
    head: Array
    hips: Array
    feet: Array
    foot_yaw: Array
    foot_pitch: Array
    hand_chest: Array
    hand_local: Array
    hand_blend: Array

    @classmethod
    def standing(cls, build: Build, place: Array) -> Controls:
        """Return a person standing still at ``place`` (n, 3) with hanging arms."""
        n = len(place)
        rest = np.stack([build.rest(0), build.rest(1)])
        local = np.array([[side * build.stance, 0.0, build.ankle] for side in SIDES])
        return cls(
            place=place.astype(np.float64),
            pelvis=zeros(n, 3),
            trunk=zeros(n, 3),
            head=zeros(n, 2),
            hips=zeros(n, 2),
            feet=to_world(place[:, None, :], np.broadcast_to(local, (n, 2, 3))),
            foot_yaw=np.repeat(place[:, 2:3], 2, axis=1) - SIDES * 0.15,
            foot_pitch=zeros(n, 2),
            hand_chest=np.broadcast_to(rest, (n, 2, 3)).copy(),
            hand_local=zeros(n, 2, 3),
            hand_blend=zeros(n, 2),
        )

    def rows(self, step: int) -> Controls:
        """Return every ``step``-th row."""
        return Controls(**{name: value[::step] for name, value in vars(self).items()})


@dataclass
class Posture:
    """Joints and the frames of the body parts over ``n`` instants, in the world."""

    joints: Array
    """(n, 13, 3) in the order of :data:`JOINTS`."""
    pelvis: Array
    waist: Array
    neck: Array
    hips_frame: Array
    chest_frame: Array
    head_frame: Array
    toes: Array
    heels: Array
    hands: Array
    """(n, 2, 3) middle of the palm."""


def rotation(axis: int, angle: Array) -> Array:
    """Return right-handed rotations (..., 3, 3) about axis 0, 1 or 2 by ``angle`` (...)."""
    matrix = np.zeros((*np.shape(angle), 3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[..., axis, axis] = 1.0
    matrix[..., i, i] = matrix[..., j, j] = np.cos(angle)
    matrix[..., j, i] = np.sin(angle)
    matrix[..., i, j] = -matrix[..., j, i]
    return matrix


def to_world(place: Array, local: Array) -> Array:
    """Bring points (..., 3) from the local frames at ``place`` (..., 3) to the world."""
    sine, cosine = np.sin(place[..., 2]), np.cos(place[..., 2])
    x = place[..., 0] + cosine * local[..., 0] - sine * local[..., 1]
    y = place[..., 1] + sine * local[..., 0] + cosine * local[..., 1]
    return np.stack([x, y, np.broadcast_to(local[..., 2], x.shape)], axis=-1)


def two_bones(
    root: Array, target: Array, pole: Array, first: float, second: float
) -> tuple[Array, Array]:
    """Place a limb of two bones: its middle bends towards ``pole``; lengths always hold.

    Args:
        root: (..., 3) start of the limb.
        target: (..., 3) wanted end; a target out of reach is approached as far as possible.
        pole: (..., 3) direction in which the middle joint points.
        first: length of the first bone in metres.
        second: length of the second bone in metres.

    Returns:
        Middle and end of the limb, each (..., 3).
    """
    away = target - root
    distance = np.linalg.norm(away, axis=-1, keepdims=True)
    along = away / np.maximum(distance, 1e-9)
    reach = np.clip(distance, abs(first - second) + 0.15 * second, (first + second) * 0.9995)
    across = pole - np.sum(pole * along, axis=-1, keepdims=True) * along
    across /= np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-9)
    cosine = (first**2 + reach**2 - second**2) / (2 * first * reach)
    sine = np.sqrt(np.maximum(0.0, 1 - cosine**2))
    return root + first * (cosine * along + sine * across), root + reach * along


def _apply(frame: Array, vector: Array | list[float]) -> Array:
    return np.einsum("...ij,...j->...i", frame, np.broadcast_to(vector, (*frame.shape[:-2], 3)))


def solve(build: Build, controls: Controls) -> Posture:
    """Compute the joints of a person from the controls.

    The hips sink as far as needed for the ankles to stay where they are planted, so that feet
    do not slide and no bone stretches.
    """
    place = controls.place
    heading = rotation(2, place[:, 2])
    leg = (build.shank + build.thigh) * 0.9985
    hips_frame = (
        heading
        @ rotation(2, controls.hips[:, 1])
        @ rotation(1, controls.hips[:, 0])
        @ rotation(0, -0.35 * controls.trunk[:, 0])
    )
    pelvis = to_world(place, controls.pelvis + np.array([0.0, 0.0, build.hip]))
    sockets = [_apply(hips_frame, [side * build.hip_half, 0.0, 0.0]) for side in SIDES]
    for side in (0, 1):
        across = (pelvis + sockets[side] - controls.feet[:, side])[:, :2]
        flat = np.minimum(np.linalg.norm(across, axis=-1), 0.97 * leg)
        highest = controls.feet[:, side, 2] + np.sqrt(leg**2 - flat**2) - sockets[side][:, 2]
        pelvis[:, 2] = np.minimum(pelvis[:, 2], highest)

    pitch, roll, twist = controls.trunk.T
    lower = heading @ rotation(1, 0.5 * roll) @ rotation(0, -0.75 * pitch)
    chest_frame = heading @ rotation(1, roll) @ rotation(0, -1.15 * pitch) @ rotation(2, twist)
    waist = pelvis + _apply(lower, [0.0, 0.0, 0.4 * build.spine])
    neck = waist + _apply(chest_frame, [0.0, 0.0, 0.6 * build.spine])
    nod = controls.head[:, 0] - 0.55 * pitch
    head_frame = chest_frame @ rotation(2, controls.head[:, 1]) @ rotation(0, -nod)
    skull = neck + _apply(head_frame, [0.0, 0.014 * build.height, build.neck])

    joints = np.zeros((len(place), len(JOINTS), 3))
    joints[:, 12] = skull
    hands, toes, heels = (np.zeros((len(place), 2, 3)) for _ in range(3))
    for side, sign in enumerate(SIDES):
        hip = pelvis + sockets[side]
        yaw = rotation(2, controls.foot_yaw[:, side])
        pole = _apply(yaw, [0.0, 1.0, 0.05]) + 0.4 * _apply(hips_frame, [0.1 * sign, 1.0, 0.3])
        knee, ankle = two_bones(hip, controls.feet[:, side], pole, build.thigh, build.shank)
        sole = yaw @ rotation(0, -controls.foot_pitch[:, side])
        toes[:, side] = ankle + _apply(sole, [0.0, build.foot, -0.55 * build.ankle])
        heels[:, side] = ankle + _apply(sole, [0.0, -0.3 * build.foot, -0.45 * build.ankle])
        shoulder = neck + _apply(chest_frame, [sign * build.shoulder_half, 0.0, 0.0])
        near = shoulder + _apply(chest_frame, controls.hand_chest[:, side])
        blend = controls.hand_blend[:, side, None]
        target = (1 - blend) * near + blend * to_world(place, controls.hand_local[:, side])
        bend = _apply(chest_frame, [sign * 0.55, -0.4, -0.75])
        elbow, wrist = two_bones(shoulder, target, bend, build.upper_arm, build.forearm)
        hands[:, side] = wrist + (wrist - elbow) * (0.04 * build.height / build.forearm)
        for joint, point in zip(
            range(side, 12, 2), (ankle, knee, hip, wrist, elbow, shoulder), strict=True
        ):
            joints[:, joint] = point
    return Posture(
        joints=joints,
        pelvis=pelvis,
        waist=waist,
        neck=neck,
        hips_frame=hips_frame,
        chest_frame=chest_frame,
        head_frame=head_frame,
        toes=toes,
        heels=heels,
        hands=hands,
    )
