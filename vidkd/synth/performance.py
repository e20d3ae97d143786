"""From a part to motion: the controls over time, the joints, and where the things in use are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidkd.synth import actions, arms, gait
from vidkd.synth.curves import ease, envelope, smooth, sway
from vidkd.synth.part import Clip, Part
from vidkd.synth.skeleton import SIDES, Controls, Posture, solve

Array = np.ndarray

_FINE = 60.0
"""Instants per second, at least, at which motion is computed before it is smoothed."""
_BALL_RADIUS = 0.115


@dataclass
class Performance:
    """One person's motion at the video's frame times, n in all."""

    part: Part
    posture: Posture
    place: Array
    item: Array | None
    """(n, 4): middle of the item's base x, y, z in the world, and its heading."""
    ball: Array | None
    """(n, 3) middle of the ball, or NaN while there is none."""
    bottle: Array | None
    """(n, 2, 3): bottom and top of the bottle."""


def perform(part: Part, times: Array, rng: np.random.Generator) -> Performance:
    """Compute the motion of a part at the frame times (n,), which are evenly spaced."""
    interval = float(times[1] - times[0]) if len(times) > 1 else 1.0
    finer = max(1, int(np.ceil(_FINE * interval)))
    fine = times[0] + np.arange((len(times) - 1) * finer + 1) * (interval / finer)
    controls = Controls.standing(part.build, _places(part, fine))
    _body(part, controls, fine)
    held = _held_items(part)
    _carry(part, controls, fine, held)
    drinking = _arms(part, controls, fine)
    _idle(controls, fine, rng)
    rate = finer / interval
    for name, seconds in (("pelvis", 0.05), ("trunk", 0.07), ("head", 0.09), ("hips", 0.05)):
        setattr(controls, name, smooth(getattr(controls, name), seconds * rate))
    for name in ("hand_chest", "hand_local", "hand_blend"):
        setattr(controls, name, smooth(getattr(controls, name), 0.035 * rate))
    controls.feet = smooth(controls.feet, 0.02 * rate)
    posture = solve(part.build, controls)
    item = _item(part, posture, controls, fine, held)
    ball = _ball(part, posture, controls, fine)
    bottle = _bottle(part, posture, drinking)

    def at_frames(values: Array | None) -> Array | None:
        return None if values is None else values[::finer]

    frames = Posture(**{name: value[::finer] for name, value in vars(posture).items()})
    return Performance(
        part,
        frames,
        controls.place[::finer],
        at_frames(item),
        at_frames(ball),
        at_frames(bottle),
    )


def _places(part: Part, times: Array) -> Array:
    places = np.repeat(np.array([part.start], dtype=np.float64), len(times), 0)
    for clip in part.body:
        if clip.path is not None:
            places[times >= clip.end] = clip.path.end
        elif clip.kind == "turn":
            places[times >= clip.end] = (clip.place[0], clip.place[1], clip.turn_to)
    return places


def _rows(clip: Clip, times: Array) -> tuple[Array, Array]:
    rows = np.flatnonzero((times >= clip.start) & (times < clip.end))
    return rows, times[rows] - clip.start


def _body(part: Part, controls: Controls, times: Array) -> None:
    build = part.build
    seated_since = 0.0 if part.seated else None
    for clip in part.body:
        rows, local = _rows(clip, times)
        u = local / (clip.end - clip.start)
        style = clip.style
        if clip.kind == "stand up":
            _sit_still(part, controls, times, seated_since or 0.0, clip.start)
            seated_since = None
            actions.sit(controls, rows, 1 - u, build, style)
        elif clip.kind == "sit down":
            actions.sit(controls, rows, u, build, style)
            seated_since = clip.end
        elif clip.kind in {"pick up", "put down"} and part.item is not None:
            forward = u if clip.kind == "pick up" else 1 - u
            item = part.item
            actions.lift(controls, rows, forward, build, style, item.grasp, item.both)
        elif clip.kind == "jump":
            actions.jump(controls, rows, local, clip.end - clip.start, build, style)
        elif clip.kind == "kick":
            actions.kick(controls, rows, u, build, style)
        elif clip.kind == "bow":
            actions.bow(controls, rows, u, build, style)
        elif clip.kind == "turn":
            gait.turn(controls, rows, u, build, clip.place, clip.turn_to)
        elif clip.path is not None and clip.gait is not None and len(rows):
            gait.locomote(controls, rows, local, build, clip.path, clip.gait, style.side)
    if seated_since is not None:
        _sit_still(part, controls, times, seated_since, np.inf)


def _sit_still(part: Part, controls: Controls, times: Array, start: float, end: float) -> None:
    rows = np.flatnonzero((times >= start) & (times < end))
    actions.sit(controls, rows, np.ones(len(rows)), part.build, actions.Style())


def _held_items(part: Part) -> list[tuple[float, float]]:
    """Return when the item is in the hands, as pairs of seconds."""
    held: list[tuple[float, float]] = []
    for clip in part.body:
        middle = (clip.start + clip.end) / 2
        if clip.kind == "pick up":
            held.append((middle, np.inf))
        elif clip.kind == "put down":
            held[-1] = (held[-1][0], middle)
    return held


def _carry(part: Part, controls: Controls, times: Array, held: list[tuple[float, float]]) -> None:
    """Hold a box before the body between its picking up and its putting down."""
    if part.item is None:
        return
    busy = np.zeros(len(times), dtype=bool)
    for clip in part.body:
        if clip.kind in {"pick up", "put down"}:
            busy |= (times >= clip.start) & (times < clip.end)
    for start, end in held:
        rows = np.flatnonzero((times >= start) & (times < end) & ~busy)
        if part.item.both:
            for side in (0, 1):
                spot = actions.carry(part.build, side, part.item.grasp[0])
                controls.hand_local[rows, side] = spot
                controls.hand_local[rows, side, 2] += controls.pelvis[rows, 2]
            controls.hand_blend[rows] = 1.0
            controls.trunk[rows, 0] -= 0.05
        else:
            # A loaded arm swings little, and the body leans away from the load.
            rest = part.build.rest(part.side)
            swung = controls.hand_chest[rows, part.side]
            controls.hand_chest[rows, part.side] = rest + 0.35 * (swung - rest)
            controls.trunk[rows, 1] -= 0.05 * SIDES[part.side]


def _arms(part: Part, controls: Controls, times: Array) -> tuple[Array, Array]:
    raised, gripped = np.zeros(len(times)), np.zeros(len(times))
    for clip in sorted(part.arms, key=lambda item: item.start):
        rows, local = _rows(clip, times)
        given = (controls, rows, local, clip.end - clip.start, part.build, clip.style)
        if clip.kind == "wave":
            arms.wave(*given)
        elif clip.kind == "clap":
            arms.clap(*given)
        elif clip.kind == "point":
            arms.point(*given)
        elif clip.kind == "drink":
            raised[rows], gripped[rows] = arms.drink(*given)
        elif clip.kind == "fidget":
            arms.fidget(*given)
        else:
            arms.throw(*given, backwards=clip.kind == "catch")
    return raised, gripped


def _idle(controls: Controls, times: Array, rng: np.random.Generator) -> None:
    """Add breathing and the small sway of a living body."""
    controls.pelvis[:, 0] += 0.012 * sway(times, rng, 7.0, 1.8)
    controls.pelvis[:, 1] += 0.008 * sway(times, rng, 6.0, 1.5)
    controls.trunk[:, 0] += 0.018 * sway(times, rng, 8.0, 1.6)
    controls.trunk[:, 0] += 0.008 * np.sin(2 * np.pi * times / rng.uniform(3.0, 4.5))
    controls.trunk[:, 1] += 0.014 * sway(times, rng, 7.0, 1.8)
    controls.trunk[:, 2] += 0.03 * sway(times, rng, 7.0, 2.0)
    controls.head[:, 0] += 0.05 * sway(times, rng, 6.0, 1.2)
    controls.head[:, 1] += 0.16 * sway(times, rng, 8.0, 1.6)
    for side in (0, 1):
        for axis in range(3):
            controls.hand_chest[:, side, axis] += 0.008 * sway(times, rng, 4.0, 0.9)


def _item(
    part: Part,
    posture: Posture,
    controls: Controls,
    times: Array,
    held: list[tuple[float, float]],
) -> Array | None:
    item = part.item
    if item is None:
        return None
    result = np.zeros((len(times), 4))
    if item.both:
        hands = posture.hands.mean(axis=1)
        hanging = np.array([0.0, 0.0, -0.5 * item.size[2]])
    else:
        hands = posture.hands[:, part.side]
        hanging = np.array([0.0, 0.0, -item.size[2] - 0.05])
    for number, lies in enumerate(part.item_places):
        start = held[number - 1][1] if number else -np.inf
        end = held[number][0] if number < len(held) else np.inf
        lying = (times >= start) & (times < end)
        result[lying] = (lies[0], lies[1], 0.0, lies[2])
    for number, (start, end) in enumerate(held):
        rows = np.flatnonzero((times >= start) & (times < end))
        if not len(rows):
            continue
        place = hands[rows] + hanging
        heading = controls.place[rows, 2]
        # What the hands miss when they grasp is made up for gradually, so that nothing jumps.
        fade = 1 - ease((times[rows] - start) / 0.5)
        lies = part.item_places[number]
        place += fade[:, None] * (np.array([lies[0], lies[1], 0.0]) - place[0])
        turned = np.mod(lies[2] - heading[0] + np.pi, 2 * np.pi) - np.pi
        heading = heading + fade * turned
        if number + 1 < len(part.item_places):
            fade = 1 - ease((end - times[rows]) / 0.5)
            lies = part.item_places[number + 1]
            place += fade[:, None] * (np.array([lies[0], lies[1], 0.0]) - place[-1])
        place[:, 2] = np.maximum(place[:, 2], 0.0)
        result[rows, :3] = place
        result[rows, 3] = heading
    return result


def _ball(part: Part, posture: Posture, controls: Controls, times: Array) -> Array | None:
    plays = sorted(
        (clip for clip in part.arms if clip.kind in {"throw", "catch"}), key=lambda c: c.start
    )
    if not plays and not part.ball:
        return None
    palm = posture.hands[:, part.side] - posture.joints[:, 6 + part.side]
    palm /= np.linalg.norm(palm, axis=-1, keepdims=True)
    inward = posture.chest_frame[:, :, 0] * -SIDES[part.side]
    one = posture.hands[:, part.side] + (0.6 * _BALL_RADIUS) * palm
    # The ball sits on the palm, which faces forward and inward.
    one = one + 0.75 * _BALL_RADIUS * posture.chest_frame[:, :, 1] + 0.4 * _BALL_RADIUS * inward
    two = posture.hands.mean(axis=1) + 0.3 * _BALL_RADIUS * posture.chest_frame[:, :, 1]
    both = np.zeros(len(times))
    for clip in plays:
        if clip.style.variant == 1:
            span = clip.end - clip.start
            both = np.maximum(both, envelope(times, clip.start, clip.end, 0.3 * span, 0.3 * span))
    hold = one + both[:, None] * (two - one)
    result = np.full((len(times), 3), np.nan)
    holding, since = part.ball, -np.inf
    for clip in plays:
        span = clip.end - clip.start
        share = arms.RELEASE if clip.kind == "throw" else 1 - arms.RELEASE
        moment = clip.start + share * span
        row = int(np.clip(np.searchsorted(times, moment), 0, len(times) - 1))
        away = times - times[row]
        heading = clip.place[2]
        forward = np.array([-np.sin(heading), np.cos(heading), 0.0])
        speed = 5.5 * (0.8 + 0.25 * clip.style.size)
        rise = (1.2, 1.6, 2.4)[clip.style.variant]
        if clip.kind == "throw":
            if holding:
                rows = (times >= since) & (times <= times[row])
                result[rows] = hold[rows]
            flight = (away > 0) & (away < 1.5)
        else:
            away = -away
            flight = (away > 0) & (away < 0.8)
            # It is another ball than one thrown shortly before, which is out of sight by now.
            result[(away >= 0.8) & (away < 1.0)] = np.nan
        path = hold[row] + forward * (speed * away[:, None])
        path[:, 2] += rise * away - 4.905 * away**2
        path[:, 2] = _bounced(path[:, 2])
        result[flight] = path[flight]
        holding, since = clip.kind == "catch", times[row]
    if holding:
        rows = times >= since
        result[rows] = hold[rows]
    return result


def _bounced(height: Array) -> Array:
    """Reflect a fall below the floor, so that a thrown ball bounces."""
    over = height - _BALL_RADIUS
    return np.where(over < 0, np.minimum(-0.55 * over, 0.9), over) + _BALL_RADIUS


def _bottle(part: Part, posture: Posture, drinking: tuple[Array, Array]) -> Array | None:
    if part.bottle is None:
        return None
    side = part.bottle
    raised, gripped = drinking
    build = part.build
    offset = np.array([SIDES[side] * (build.hip_half + 0.085 * build.girth), 0.02, -0.10])
    base = posture.pelvis + np.einsum("nij,j->ni", posture.hips_frame, offset)
    upward = posture.hips_frame[:, :, 2]
    mouth = posture.joints[:, 12] + np.einsum(
        "nij,j->ni", posture.head_frame, np.array([0.0, 0.085, -0.055]) * build.height / 1.72
    )
    hand = posture.hands[:, side]
    to_mouth = mouth - hand
    to_mouth /= np.maximum(np.linalg.norm(to_mouth, axis=-1, keepdims=True), 1e-6)
    axis = (1 - raised)[:, None] * np.array([0.0, 0.0, 1.0]) + raised[:, None] * to_mouth
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    held = np.stack([hand - 0.07 * axis, hand + 0.13 * axis], axis=1)
    worn = np.stack([base, base + 0.20 * upward], axis=1)
    grip = gripped[:, None, None]
    return np.asarray(worn + grip * (held - worn))
