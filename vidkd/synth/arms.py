"""Arm actions, laid over whatever the rest of the body does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vidkd.synth.actions import Style
from vidkd.synth.curves import ease, envelope, through
from vidkd.synth.skeleton import SIDES, Build, Controls

Array = np.ndarray
Keys = Sequence[tuple[float, Sequence[float]]]

RELEASE = 0.56
"""Share of a throw at which the ball leaves the hand."""


def _lay(
    controls: Controls, rows: Array, build: Build, side: int, target: Array, weight: Array
) -> None:
    """Blend the wrist of one side to ``target`` (n, 3), in arm lengths from the shoulder."""
    w = weight[:, None]
    mirrored = target * np.array([SIDES[side], 1.0, 1.0]) * build.arm
    controls.hand_chest[rows, side] = (1 - w) * controls.hand_chest[rows, side] + w * mirrored
    controls.hand_blend[rows, side] *= 1 - weight


def wave(
    controls: Controls, rows: Array, times: Array, duration: float, build: Build, style: Style
) -> None:
    """Write waving with one raised hand; variant 1 raises it overhead, 2 waves both hands."""
    weight = envelope(times, 0.0, duration, 0.45, 0.5)
    swing = np.sin(2 * np.pi * style.beat * (times - 0.3)) * ease((times - 0.2) / 0.3)
    swing *= ease((duration - 0.35 - times) / 0.3) * style.size
    for side in (0, 1) if style.variant == 2 else (style.side,):
        if style.variant == 1:
            middle = np.array([0.30, 0.20, 0.86])
            target = middle + swing[:, None] * np.array([0.27, 0.0, -0.03])
        else:
            middle = np.array([0.44, 0.34, 0.42])
            target = middle + swing[:, None] * np.array([0.21, 0.0, -0.02])
        _lay(controls, rows, build, side, target, weight)
    controls.trunk[rows, 1] += 0.015 * swing * weight
    controls.head[rows, 0] += -0.06 * weight


def clap(
    controls: Controls, rows: Array, times: Array, duration: float, build: Build, style: Style
) -> None:
    """Write clapping before the chest; variant 1 claps overhead."""
    weight = envelope(times, 0.0, duration, 0.4, 0.5)
    apart = 0.5 - 0.5 * np.cos(2 * np.pi * style.beat * times)
    # Palms meet when the wrists are a hand's thickness apart.
    half = (0.035 + 0.17 * style.size * apart) / build.arm
    for side in (0, 1):
        inward = half - build.shoulder_half / build.arm
        high = 0.72 if style.variant == 1 else -0.16 + 0.35 * style.lean
        ahead = 0.35 if style.variant == 1 else 0.56
        target = np.column_stack(
            [inward, ahead - 0.1 * apart, np.full(len(times), high) - 0.05 * apart]
        )
        _lay(controls, rows, build, side, target, weight)
    controls.trunk[rows, 0] += 0.012 * weight * (1 - apart)


def point(
    controls: Controls, rows: Array, times: Array, duration: float, build: Build, style: Style
) -> None:
    """Write pointing with a straight arm; ``style.lean`` is its direction outward from ahead."""
    weight = envelope(times, 0.0, duration, 0.55, 0.6)
    azimuth = style.lean
    rise = (0.02, 0.35, -0.25)[style.variant % 3]
    direction = np.array(
        [np.sin(azimuth) * np.cos(rise), np.cos(azimuth) * np.cos(rise), np.sin(rise)]
    )
    tremor = 0.012 * np.sin(2 * np.pi * 0.9 * times)
    target = 0.97 * direction + tremor[:, None] * np.array([1.0, 0.0, 1.0])
    _lay(controls, rows, build, style.side, target, weight)
    controls.head[rows, 1] += -SIDES[style.side] * 0.7 * azimuth * weight
    controls.trunk[rows, 2] += -SIDES[style.side] * 0.12 * weight


def drink(
    controls: Controls, rows: Array, times: Array, duration: float, build: Build, style: Style
) -> tuple[Array, Array]:
    """Write drinking: the hand takes the bottle from the belt, lifts it, and puts it back.

    Returns:
        How far the bottle is at the mouth, and how far the hand holds it, each (n,) in [0, 1].
    """
    take = min(0.6, 0.2 * duration)
    up = min(0.65, 0.22 * duration)
    hip = [0.11, 0.06, -0.80]
    mouth = [
        (-build.shoulder_half + 0.05) / build.arm,
        (0.215 * build.height / 1.72) / build.arm,
        (0.085 * build.height / 1.72) / build.arm,
    ]
    tilted = [mouth[0], mouth[1] - 0.01, mouth[2] + 0.09]
    keys: Keys = [
        (0.0, hip),
        (take, hip),
        (take + 0.55 * up, [0.08, 0.42, -0.30]),
        (take + up, mouth),
        (0.5 * duration, tilted),
        (duration - take - up, mouth),
        (duration - take - 0.45 * up, [0.08, 0.42, -0.30]),
        (duration - take, hip),
        (duration, hip),
    ]
    target = through(times, keys)
    weight = envelope(times, 0.0, duration, take, take)
    _lay(controls, rows, build, style.side, target, weight)
    raised = envelope(times, take + 0.5 * up, duration - take - 0.5 * up, 0.5 * up, 0.5 * up)
    tilt = through(times, [(take + up, 0.0), (0.5 * duration, 1.0), (duration - take - up, 0.0)])
    controls.head[rows, 0] += -0.32 * tilt * style.size
    controls.trunk[rows, 0] += -0.05 * tilt
    return raised, envelope(times, take, duration - take, 0.08, 0.08)


def throw(
    controls: Controls,
    rows: Array,
    times: Array,
    duration: float,
    build: Build,
    style: Style,
    *,
    backwards: bool,
) -> None:
    """Write a throw, or played backwards a catch; the ball is free after (before) RELEASE.

    Variant 0 is overarm, 1 a two-handed pass from the chest, 2 underarm.
    """
    u = 1 - times / duration if backwards else times / duration
    side = style.side
    sign = SIDES[side]
    size = 0.8 + 0.2 * style.size
    weight = through(u, [(0.0, 0.0), (0.22, 1.0), (0.78, 1.0), (1.0, 0.0)])
    if style.variant == 1:
        inward = 0.13 / build.arm - build.shoulder_half / build.arm
        for arm in (0, 1):
            keys: Keys = [
                (0.0, [inward, 0.4, -0.5]),
                (0.25, [inward, 0.42, -0.2]),
                (0.42, [inward, 0.32, -0.12]),
                (RELEASE, [inward, 0.86 * size, 0.02]),
                (0.70, [inward + 0.05, 0.86, -0.05]),
                (1.0, [inward + 0.1, 0.45, -0.5]),
            ]
            _lay(controls, rows, build, arm, through(u, keys), weight)
        push = through(u, [(0.0, 0.0), (0.42, -0.6), (RELEASE, 1.0), (0.7, 0.8), (1.0, 0.0)])
        controls.trunk[rows, 0] += 0.16 * push * size
        controls.pelvis[rows, 1] += 0.07 * push
        controls.pelvis[rows, 2] += -0.03 * np.abs(push)
        return
    if style.variant == 0:
        keys = [
            (0.0, [0.25, 0.2, -0.6]),
            (0.24, [0.48, 0.0, 0.05]),
            (0.42, [0.42, -0.34, 0.42]),
            (RELEASE, [0.12, 0.66 * size, 0.58]),
            (0.70, [-0.30, 0.66, -0.30]),
            (1.0, [0.0, 0.3, -0.8]),
        ]
    else:
        keys = [
            (0.0, [0.15, 0.0, -0.9]),
            (0.24, [0.14, -0.35, -0.8]),
            (0.42, [0.14, -0.58, -0.62]),
            (RELEASE, [0.06, 0.72 * size, -0.42]),
            (0.70, [0.02, 0.78, 0.15]),
            (1.0, [0.1, 0.3, -0.8]),
        ]
    _lay(controls, rows, build, side, through(u, keys), weight)
    wind = through(u, [(0.0, 0.0), (0.42, -1.0), (RELEASE, 0.7), (0.70, 1.0), (1.0, 0.0)])
    controls.trunk[rows, 2] += sign * 0.5 * wind * size
    controls.trunk[rows, 0] += 0.17 * wind * size
    controls.pelvis[rows, 1] += 0.08 * wind
    controls.pelvis[rows, 2] += -0.03 * np.abs(wind)
    controls.head[rows, 1] += -sign * 0.35 * wind * size
    if style.variant == 0:
        balance = np.repeat(np.array([[0.32, 0.45, -0.35]]), len(u), 0)
        _lay(controls, rows, build, 1 - side, balance, 0.6 * weight)


def fidget(
    controls: Controls, rows: Array, times: Array, duration: float, build: Build, style: Style
) -> None:
    """Write what people do between actions: hands on hips, touching the head, folded hands."""
    weight = envelope(times, 0.0, duration, 0.5, 0.5)
    if style.variant == 0:
        for side in (0, 1):
            target = np.repeat(np.array([[0.13, 0.07, -0.68]]), len(times), 0)
            _lay(controls, rows, build, side, target, weight)
    elif style.variant == 1:
        scratch = 0.03 * np.sin(2 * np.pi * 2.5 * times)
        reach = -build.shoulder_half / build.arm
        target = np.column_stack(
            [np.full(len(times), reach + 0.24), 0.14 + scratch, 0.47 + 0.5 * scratch]
        )
        _lay(controls, rows, build, style.side, target, weight)
        controls.head[rows, 0] += 0.12 * weight
    elif style.variant == 2:
        for side in (0, 1):
            inward = (0.04 - build.shoulder_half) / build.arm
            target = np.repeat(np.array([[inward, 0.40, -0.62]]), len(times), 0)
            _lay(controls, rows, build, side, target, weight)
    else:
        controls.head[rows, 1] += 0.8 * style.lean * weight
        controls.trunk[rows, 2] += 0.25 * style.lean * weight
