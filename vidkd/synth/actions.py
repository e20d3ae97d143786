"""What the body does in each action, as curves written into the controls.

Base actions move the whole body; arm actions are laid over whatever the body does meanwhile, so
that two actions can overlap. An action and its counterpart (sit down and stand up, pick up and put
down, throw and catch) are one movement played forwards or backwards: a single frame cannot tell
them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidkd.synth.curves import ease, through
from vidkd.synth.skeleton import SIDES, Build, Controls, to_world

Array = np.ndarray

SEAT = 0.45
"""Height of every seat in metres."""
SEAT_BEHIND = 0.40
"""Distance from the feet of a person about to sit down to the middle of the seat."""
REACH = 0.44
"""Distance from the feet to the middle of an object on the floor in front of them."""


@dataclass(frozen=True)
class Style:
    """How one performance differs from others of its class."""

    size: float = 1.0
    """Amplitude of the movement, 1 being usual."""
    side: int = 0
    """The leading side: 0 right, 1 left."""
    variant: int = 0
    beat: float = 2.0
    """Repetitions per second of a repeated movement."""
    lean: float = 0.0
    """Forward lean or direction, in radians."""


def sit(controls: Controls, rows: Array, u: Array, build: Build, style: Style) -> None:
    """Write sitting down (``u`` 0 to 1) or standing up (1 to 0); constant 1 sits still."""
    drop = SEAT + 0.10 * build.girth - build.hip
    back = -SEAT_BEHIND * 0.98
    lean = 0.62 * style.size + style.lean
    pelvis = through(
        u,
        [
            (0.0, (0, 0, 0)),
            (0.35, (0, 0.42 * back, 0.22 * drop)),
            (0.8, (0, 0.95 * back, 0.9 * drop)),
            (1.0, (0, back, drop)),
        ],
    )
    controls.pelvis[rows] += pelvis
    controls.trunk[rows, 0] += through(
        u, [(0.0, 0.0), (0.5, lean), (0.78, 0.75 * lean), (1.0, -0.04 + 0.2 * style.lean)]
    )
    controls.head[rows, 0] += through(u, [(0.0, 0.0), (0.35, 0.2), (1.0, 0.05)])
    weight = ease((u - 0.15) / 0.75)
    for side in (0, 1):
        local = np.array(
            [
                SIDES[side] * (build.hip_half + 0.06),
                back + 0.66 * build.thigh,
                SEAT + 0.10 * build.girth + 0.085 * build.girth,
            ]
        )
        controls.hand_local[rows, side] = local
        controls.hand_blend[rows, side] = np.maximum(controls.hand_blend[rows, side], weight)


def lift(
    controls: Controls,
    rows: Array,
    u: Array,
    build: Build,
    style: Style,
    grasp: tuple[float, float],
    both: bool,
) -> None:
    """Write picking up (``u`` from 0 to 1) or putting down (from 1 to 0).

    Args:
        controls: changed in place.
        rows: (n,) indices.
        u: (n,) progress; the object is grasped at 0.5.
        build: the person.
        style: variant 0 bends the back, 1 the knees.
        grasp: half the distance between the hands and their height on the floor, in metres.
        both: two hands carry the object before the body, otherwise one carries it at the side.
    """
    half, high = grasp
    deep = style.variant == 1
    down = -(0.34 if deep else 0.17) * build.height / 1.72
    # The lower the object and the larger the person, the deeper the bend has to be.
    bend = (0.95 if deep else 1.18) + 0.35 * (0.25 - high)
    controls.pelvis[rows] += through(
        u,
        [
            (0.0, (0, 0, 0)),
            (0.25, (0, -0.12, 0.45 * down)),
            (0.47, (0, -0.20, down)),
            (0.53, (0, -0.20, down)),
            (0.75, (0, -0.12, 0.5 * down)),
            (1.0, (0, -0.02 * both, 0)),
        ],
    )
    controls.trunk[rows, 0] += through(
        u,
        [
            (0.0, 0.0),
            (0.25, 0.55 * bend),
            (0.47, bend),
            (0.53, bend),
            (0.78, 0.4 * bend),
            (1.0, -0.05 * both),
        ],
    )
    controls.head[rows, 0] += through(u, [(0.0, 0.0), (0.3, 0.35), (0.6, 0.2), (1.0, 0.0)])
    for side in (0, 1):
        if not both and side != style.side:
            # The free hand rests on the thigh or hangs.
            weight = through(u, [(0.0, 0.0), (0.4, 0.9), (0.6, 0.9), (1.0, 0.0)])
            local = np.array([SIDES[side] * 0.14, 0.10, 0.52 * build.height / 1.72])
            controls.hand_local[rows, side] = local
            controls.hand_blend[rows, side] = weight
            continue
        x = SIDES[side] * half
        carried = carry(build, side, half)
        keys: list[tuple[float, tuple[float, ...]]] = [
            (0.0, (SIDES[side] * 0.2, 0.15, 0.45 * build.height)),
            (0.3, (x + SIDES[side] * 0.06, REACH - 0.06, high + 0.25)),
            (0.48, (x, REACH, high)),
            (0.52, (x, REACH, high)),
            (0.75, (x, 0.36, 0.5 * (high + 0.55 * build.height))),
            (1.0, tuple(carried)),
        ]
        controls.hand_local[rows, side] = through(u, keys)
        blend = [(0.0, 0.0), (0.3, 1.0), (1.0, 1.0)]
        if not both:
            blend = [(0.0, 0.0), (0.3, 1.0), (0.62, 1.0), (1.0, 0.0)]
        controls.hand_blend[rows, side] = through(u, blend)


def carry(build: Build, side: int, half: float) -> Array:
    """Return where a hand holds an object carried before the body (local frame, metres)."""
    return np.array([SIDES[side] * half, 0.34 + 0.04 * build.girth, 0.615 * build.height])


def jump(
    controls: Controls, rows: Array, times: Array, duration: float, build: Build, style: Style
) -> None:
    """Write ``style.variant + 1`` jumps on the spot over ``duration`` seconds."""
    count = style.variant + 1
    period = duration / count
    rise = 0.16 + 0.14 * style.size
    flight = 2 * np.sqrt(2 * rise / 9.81)
    crouch = 0.20 * style.size * build.height / 1.72
    local = np.mod(times, period)
    local = np.where(times >= duration, period, local)
    before = 0.62 * (period - flight)
    after = before + flight
    shape = through(
        local,
        [
            (0.0, (0.0, 0.0, 0.0)),
            (0.62 * before, (-crouch, 0.62, -0.9)),
            (before, (0.03, 0.05, 0.9)),
            (after, (-0.02, 0.08, 0.35)),
            (after + 0.3 * (period - after), (-0.8 * crouch, 0.38, -0.1)),
            (period, (0.0, 0.0, 0.0)),
        ],
    )
    air = np.clip(local - before, 0, flight)
    height = np.maximum(0.0, 0.5 * 9.81 * air * (flight - air))
    controls.pelvis[rows, 2] += shape[:, 0] + height
    controls.pelvis[rows, 1] += -0.12 * shape[:, 1]
    controls.trunk[rows, 0] += shape[:, 1]
    controls.head[rows, 0] += -0.3 * shape[:, 1]
    controls.feet[rows, :, 2] += height[:, None]
    tip = np.sin(np.pi * np.clip((local - before + 0.08) / (flight + 0.1), 0, 1))
    controls.foot_pitch[rows] += 0.7 * tip[:, None]
    controls.feet[rows, :, 2] += (0.05 * tip)[:, None]
    arms = shape[:, 2]
    for side in (0, 1):
        up = np.clip(arms, 0, 1)
        back = np.clip(-arms, 0, 1)
        hand = build.rest(side) + build.arm * (
            up[:, None] * np.array([SIDES[side] * 0.12, 0.45, 1.0])
            + back[:, None] * np.array([SIDES[side] * 0.02, -0.55, 0.22])
        )
        controls.hand_chest[rows, side] = hand


def kick(controls: Controls, rows: Array, u: Array, build: Build, style: Style) -> None:
    """Write a kick forward with the leg of ``style.side``."""
    side = style.side
    sign = SIDES[side]
    scale = build.height / 1.72
    high = (0.30 + 0.42 * style.size) * scale
    foot = through(
        u,
        [
            (0.0, (0.0, 0.0, 0.0)),
            (0.28, (0.0, -0.38 * scale, 0.22 * scale)),
            (0.42, (-0.02 * sign, 0.10, 0.16 * scale)),
            (0.54, (-0.04 * sign, 0.74 * scale, high)),
            (0.70, (-0.02 * sign, 0.34 * scale, 0.25 * scale)),
            (0.90, (0.0, 0.02, 0.02)),
            (1.0, (0.0, 0.0, 0.0)),
        ],
    )
    place = controls.place[rows]
    start = np.array([sign * build.stance, 0.0, build.ankle])
    controls.feet[rows, side] = to_world(place, start + foot)
    controls.foot_pitch[rows, side] += through(
        u, [(0.0, 0.0), (0.28, 0.8), (0.54, -0.25), (0.75, 0.2), (1.0, 0.0)]
    )
    over = through(u, [(0.0, 0.0), (0.2, 1.0), (0.75, 1.0), (1.0, 0.0)])
    controls.pelvis[rows, 0] += -sign * 0.07 * over
    controls.pelvis[rows, 2] += -0.03 * over
    controls.trunk[rows, 0] += through(u, [(0.0, 0.0), (0.28, 0.16), (0.54, -0.24), (1.0, 0.0)])
    swing = through(u, [(0.0, 0.0), (0.28, -1.0), (0.54, 1.0), (1.0, 0.0)]) * style.size
    controls.hips[rows, 1] += sign * 0.25 * swing
    controls.trunk[rows, 2] += -sign * 0.25 * swing
    for arm in (0, 1):
        way = -swing if arm == side else swing
        offset = np.column_stack(
            [SIDES[arm] * 0.30 * over, 0.42 * way, 0.12 * over + 0.12 * np.abs(way)]
        )
        controls.hand_chest[rows, arm] = build.rest(arm) + build.arm * offset


def bow(controls: Controls, rows: Array, u: Array, build: Build, style: Style) -> None:
    """Write a bow; variant 1 brings the hands to the thighs."""
    deep = through(u, [(0.0, 0.0), (0.36, 1.0), (0.58, 1.0), (1.0, 0.0)])
    angle = (0.55 + 0.5 * style.size) * deep
    controls.trunk[rows, 0] += angle
    controls.pelvis[rows, 1] += -0.13 * deep
    controls.pelvis[rows, 2] += -0.01 * deep
    controls.head[rows, 0] += 0.55 * angle
    for side in (0, 1):
        if style.variant == 1:
            controls.hand_local[rows, side] = np.array(
                [SIDES[side] * 0.13, 0.13, 0.42 * build.height]
            )
            controls.hand_blend[rows, side] = deep
        else:
            # The arms hang: they turn back most of what the chest turns forward.
            way = 0.72 * 1.15 * angle
            rest = build.rest(side)
            sine, less = np.sin(way), 1 - np.cos(way)
            controls.hand_chest[rows, side, 1] -= sine * rest[2] + less * rest[1]
            controls.hand_chest[rows, side, 2] -= less * rest[2]
