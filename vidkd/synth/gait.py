"""Walking, running and turning: where the feet are planted, and what the body does over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidkd.synth.curves import ease
from vidkd.synth.skeleton import SIDES, Build, Controls, to_world

Array = np.ndarray


@dataclass(frozen=True)
class Path:
    """An arc on the floor: start, curvature (1/m, positive to the left) and length in metres."""

    x: float
    y: float
    heading: float
    curvature: float
    length: float

    def at(self, s: Array | float) -> Array:
        """Return places (..., 3) after ``s`` metres."""
        s = np.asarray(s, dtype=np.float64)
        turn = self.curvature * s
        # The chord of an arc of turn a is s * sinc(a / 2), at half the turn.
        chord = s * np.sinc(turn / (2 * np.pi))
        middle = self.heading + turn / 2
        return np.stack(
            [
                self.x - chord * np.sin(middle),
                self.y + chord * np.cos(middle),
                self.heading + turn,
            ],
            axis=-1,
        )

    @property
    def end(self) -> tuple[float, float, float]:
        x, y, heading = self.at(self.length)
        return float(x), float(y), float(heading)


@dataclass(frozen=True)
class Gait:
    """How a person walks or runs."""

    running: bool
    speed: float
    """Metres per second between the ends."""
    step: float
    """Metres between successive footfalls."""
    swing: float
    """Size of the arm swing, 1 being usual."""

    @property
    def ramp(self) -> float:
        """Seconds to reach the speed, and to stop."""
        return 0.45 if self.running else 0.35

    def duration(self, length: float) -> float:
        """Return the seconds a path takes."""
        return length / self.speed + self.ramp

    def travelled(self, times: Array, length: float) -> Array:
        """Return the metres covered after ``times`` seconds, with smooth start and stop."""
        total = self.duration(length)
        t = np.clip(times, 0, total)
        ramp = self.ramp

        def ramped(u: Array) -> Array:
            # The integral of a smoothstep velocity from 0 to 1 over the ramp.
            v = np.clip(u / ramp, 0, 1)
            return ramp * (v**3 - v**4 / 2) + np.maximum(u - ramp, 0)

        return np.minimum(
            self.speed * np.where(t < total / 2, ramped(t), total - ramp - ramped(total - t)),
            length,
        )


def _plants(length: float, step: float, first: int) -> list[tuple[list[float], int]]:
    """Return for both sides the distances at which the foot is planted."""
    count = max(2, round(length / step))
    step = length / count
    result = []
    for side in (0, 1):
        start = 1 if side == first else 2
        plants = [0.0, *(step * i for i in range(start, count + 1, 2))]
        if plants[-1] < length - 1e-6:
            plants.append(length)
        result.append((plants, side))
    return result


def locomote(
    controls: Controls, rows: Array, times: Array, build: Build, path: Path, gait: Gait, first: int
) -> None:
    """Write walking or running along ``path`` into ``rows`` of the controls.

    Args:
        controls: changed in place.
        rows: (n,) indices.
        times: (n,) seconds since the start.
        build: the person.
        path: where to.
        gait: how.
        first: the side that steps first.
    """
    s = gait.travelled(times, path.length)
    place = path.at(s)
    controls.place[rows] = place
    step = path.length / max(2, round(path.length / gait.step))
    reach = (0.33 if gait.running else 0.6) * step
    lift = (0.30 if gait.running else 0.11) * build.height / 1.72
    going = np.clip(np.gradient(s, times) / gait.speed, 0, 1) if len(times) > 1 else np.ones(1)

    for plants, side in _plants(path.length, gait.step, first):
        local = np.array([SIDES[side] * build.stance * (0.6 if gait.running else 0.8), 0, 0])
        spots = to_world(path.at(np.array(plants)), np.broadcast_to(local, (len(plants), 3)))
        ends = np.array([SIDES[side] * build.stance, 0, 0])
        spots[[0, -1]] = to_world(path.at(np.array(plants))[[0, -1]], np.stack([ends, ends]))
        yaws = path.at(np.array(plants))[:, 2] - SIDES[side] * 0.12
        position = np.repeat(spots[:1], len(s), 0)
        yaw = np.full(len(s), yaws[0])
        height = np.full(len(s), build.ankle)
        pitch = np.zeros(len(s))
        for number in range(len(plants) - 1):
            here, there = plants[number], plants[number + 1]
            leave = 0.0 if number == 0 and side == first else here + reach
            land = max(there - reach, leave + 0.2 * step)
            if number == len(plants) - 2:
                land = min(max(land, leave + 0.4 * step), path.length)
            u = np.clip((s - leave) / (land - leave), 0, 1)
            moving = s > leave
            glide = ease(u) * 0.6 + u * 0.4
            position[moving] = (
                spots[number] + (spots[number + 1] - spots[number]) * glide[moving, None]
            )
            yaw[moving] = yaws[number] + (yaws[number + 1] - yaws[number]) * u[moving]
            arch = np.sin(np.pi * u**0.85) * min(1.0, (there - here) / (1.2 * step))
            height[moving] = (build.ankle + lift * arch)[moving]
            toe_down = (0.9 if gait.running else 0.55) * np.cos(np.pi * np.minimum(1, u * 1.35))
            pitch[moving] = (toe_down * np.where(u < 1, 1, 0) * arch.clip(0.25, 1))[moving]
            if gait.running:
                # Towards the end of the swing the foot comes down nearly flat.
                pitch[moving] *= 1 - 0.7 * u[moving]
            # The heel leaves the floor before the toe does: the ankle turns about the toe.
            if leave > here:
                late = ease((s - here - 0.15 * step) / (leave - here - 0.15 * step))
                planted = (s <= leave) & (s > here)
                angle = 0.62 * late * planted
                pitch += angle
                height += planted * 1.15 * build.foot * np.sin(angle)
                forward = planted * build.foot * (1 - np.cos(angle))
                position[:, 0] -= np.sin(yaw) * forward
                position[:, 1] += np.cos(yaw) * forward
                # The swing starts from where the heel has risen to.
                fade = moving * np.exp(-6.0 * u) * (u < 1)
                height += fade * 1.15 * build.foot * np.sin(0.62)
                pitch += fade * 0.4
        controls.feet[rows, side] = np.column_stack([position[:, :2], height])
        controls.foot_yaw[rows, side] = yaw
        controls.foot_pitch[rows, side] = pitch

    _body(controls, rows, s, going, build, path, gait, step, first)


def _body(
    controls: Controls,
    rows: Array,
    s: Array,
    going: Array,
    build: Build,
    path: Path,
    gait: Gait,
    step: float,
    first: int,
) -> None:
    # The foot that steps first is farthest ahead at half a step and under the body at one step.
    phase = np.pi * s / step
    size = gait.step / (0.62 if not gait.running else 1.0)
    sign = 1.0 if first == 0 else -1.0
    # How far the right foot is ahead of the left, from -1 to 1.
    ahead = np.sin(phase) * sign * going
    bounce = np.cos(2 * phase) * going
    if gait.running:
        controls.pelvis[rows, 2] = (-0.05 - 0.035 * bounce) * size * going
    else:
        controls.pelvis[rows, 2] = -0.028 * size * going + 0.016 * size * bounce
    controls.pelvis[rows, 0] = -0.02 * np.cos(phase) * sign * going * (0 if gait.running else 1)
    lean = (0.16 if gait.running else 0.04) * going
    bank = -np.clip(gait.speed**2 * path.curvature / 9.81, -0.3, 0.3) * going
    controls.trunk[rows, 0] = lean
    controls.trunk[rows, 1] = bank
    controls.trunk[rows, 2] = -0.12 * ahead * gait.swing
    controls.hips[rows, 1] = 0.10 * ahead * min(1.0, size)
    for side in (0, 1):
        forward = -ahead * SIDES[side]
        if gait.running:
            hand = np.column_stack(
                [
                    SIDES[side] * (0.10 - 0.10 * np.maximum(forward, 0)),
                    0.30 + 0.42 * forward * gait.swing,
                    -0.52 + 0.16 * forward + 0.05 * np.abs(forward),
                ]
            )
        else:
            angle = 0.48 * forward * gait.swing * min(1.2, size)
            bend = 0.05 + 0.06 * np.maximum(forward, 0) * gait.swing
            hand = np.column_stack(
                [
                    np.full(len(s), SIDES[side] * 0.15),
                    np.sin(angle) * 0.95 + 0.06,
                    -np.cos(angle) * (0.965 - bend * 0.4),
                ]
            )
        rest = build.rest(side)
        weight = going[:, None] if gait.running else 1.0
        controls.hand_chest[rows, side] = rest + weight * (hand * build.arm - rest)


def turn(
    controls: Controls,
    rows: Array,
    u: Array,
    build: Build,
    start: tuple[float, float, float],
    end: float,
) -> None:
    """Write a turn on the spot from ``start`` (place) to heading ``end`` with small steps.

    Args:
        controls: changed in place.
        rows: (n,) indices.
        u: (n,) progress from 0 to 1.
        build: the person.
        start: x, y, heading.
        end: the heading reached, in radians.
    """
    change = end - start[2]
    body = ease(u)
    place = np.repeat(np.array([start]), len(u), 0)
    place[:, 2] += change * body
    controls.place[rows] = place
    pairs = max(1, int(np.ceil(abs(change) / 1.1)))
    lead = 0 if change < 0 else 1
    for side in (0, 1):
        offset = 0.0 if side == lead else 0.5
        clock = np.clip(u * (pairs + 0.5) - offset, 0, pairs)
        inside = np.minimum(np.floor(clock), pairs - 1)
        local = np.clip((clock - inside) * 1.8, 0, 1)
        yaw = start[2] + change * (inside + ease(local)) / pairs
        spot = np.column_stack([place[:, :2], yaw])
        foot = np.array([SIDES[side] * build.stance, 0.0, build.ankle])
        controls.feet[rows, side] = to_world(spot, np.broadcast_to(foot, (len(u), 3)))
        controls.feet[rows, side, 2] += 0.05 * np.sin(np.pi * local)
        controls.foot_yaw[rows, side] = yaw - SIDES[side] * 0.15
    controls.head[rows, 1] += 0.35 * np.sign(change) * np.sin(np.pi * u) * min(1, abs(change))
    controls.pelvis[rows, 2] -= 0.01 * np.sin(np.pi * u)
