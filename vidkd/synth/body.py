"""A person's looks: volumes over the skeleton, skin, hair and clothes."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from vidkd.synth import materials
from vidkd.synth.materials import Material, Palette
from vidkd.synth.performance import Performance
from vidkd.synth.shapes import Builder
from vidkd.synth.skeleton import SIDES, Build

Array = np.ndarray
Colour = tuple[float, float, float]

_SKIN: tuple[Colour, ...] = (
    (0.95, 0.80, 0.70),
    (0.90, 0.72, 0.60),
    (0.82, 0.62, 0.48),
    (0.68, 0.48, 0.35),
    (0.52, 0.35, 0.25),
    (0.38, 0.25, 0.18),
)
_HAIR: tuple[Colour, ...] = (
    (0.08, 0.06, 0.05),
    (0.20, 0.12, 0.07),
    (0.38, 0.24, 0.12),
    (0.75, 0.60, 0.35),
    (0.55, 0.55, 0.55),
    (0.45, 0.18, 0.08),
)
_CLOTH = (
    materials.PLAIN,
    materials.RINGS,
    materials.STRIPES,
    materials.CHECKS,
    materials.DOTS,
    materials.MOTTLED,
    materials.PRINT,
)


def colour(
    rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> Colour:
    """Return a random colour in RGB with saturation and value in the given ranges."""
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))


@dataclass(frozen=True)
class Looks:
    """Rows of the palette for one person, and the cut of the clothes."""

    skin: int
    head: int
    hair: int
    shirt: int
    sleeve: int
    trousers: int
    leg: int
    shoes: int
    belt: int
    long_hair: bool
    cap: bool
    skirt: bool
    girth: float
    item: tuple[int, int]
    ball: int
    bottle: tuple[int, int]


def dress(rng: np.random.Generator, palette: Palette, build: Build) -> Looks:
    """Draw the looks of a person and add their materials to the palette."""
    skin = _SKIN[int(rng.integers(len(_SKIN)))]
    skin = tuple(float(np.clip(c + rng.uniform(-0.03, 0.03), 0, 1)) for c in skin)  # type: ignore[assignment]
    hair = _HAIR[int(rng.integers(len(_HAIR)))]
    style = int(rng.choice(4, p=[0.45, 0.1, 0.15, 0.3]))
    if style == 2:
        hair = colour(rng, (0.3, 0.9), (0.2, 0.9))
    base = colour(rng, (0.1, 0.9), (0.3, 0.95))
    other = colour(rng, (0.0, 0.8), (0.15, 0.98))
    pattern = int(rng.choice(_CLOTH, p=[0.3, 0.15, 0.1, 0.12, 0.08, 0.1, 0.15]))
    seed = float(rng.integers(1000))
    scale = {
        materials.PLAIN: 0.06,
        materials.RINGS: 0.055,
        materials.STRIPES: 0.045,
        materials.CHECKS: 0.05,
        materials.DOTS: 0.06,
        materials.MOTTLED: 0.07,
        materials.PRINT: 0.03,
    }[pattern] * float(rng.uniform(0.8, 1.3))
    shirt = palette.add(Material(pattern, base, other, scale, seed))
    plain = pattern if pattern != materials.PRINT else materials.PLAIN
    arm = palette.add(Material(plain, base, other, scale, seed))
    legs = colour(rng, (0.1, 0.6), (0.12, 0.6))
    bottom = palette.add(Material(materials.PLAIN, legs, scale=0.05, seed=seed + 1))
    bare = palette.add(Material(materials.PLAIN, skin, scale=0.2, gloss=0.04))
    shoes = palette.add(
        Material(materials.PLAIN, colour(rng, (0.0, 0.7), (0.08, 0.95)), scale=0.1, gloss=0.08)
    )
    shorts = rng.random() < 0.25
    accent = colour(rng, (0.5, 1.0), (0.5, 1.0))
    return Looks(
        skin=bare,
        head=palette.add(Material(materials.HEAD, skin, hair, 0.1, seed, 0.05, float(style))),
        hair=palette.add(
            Material(
                materials.WOOD, hair, (hair[0] * 0.6, hair[1] * 0.6, hair[2] * 0.6), 0.02, seed
            )
        ),
        shirt=shirt,
        sleeve=arm if rng.random() < 0.5 else bare,
        trousers=bottom,
        leg=bare if shorts else bottom,
        shoes=shoes,
        belt=arm,
        long_hair=style == 3,
        cap=style == 2,
        skirt=shorts and bool(rng.random() < 0.4),
        girth=build.girth,
        item=(
            palette.add(
                Material(
                    int(rng.choice([materials.WOOD, materials.PLAIN, materials.CHECKS])),
                    colour(rng, (0.2, 0.7), (0.45, 0.9)),
                    colour(rng, (0.2, 0.6), (0.3, 0.7)),
                    0.09,
                    seed,
                )
            ),
            palette.add(Material(materials.PLAIN, colour(rng, (0.0, 0.3), (0.1, 0.4)))),
        ),
        ball=palette.add(
            Material(materials.CHECKS, accent, (0.95, 0.95, 0.95), 0.11, seed, gloss=0.15)
        ),
        bottle=(
            palette.add(Material(materials.PLAIN, colour(rng, (0.4, 0.9), (0.6, 1.0)), gloss=0.3)),
            palette.add(Material(materials.PLAIN, (0.95, 0.95, 0.95))),
        ),
    )


def add_body(builder: Builder, performance: Performance, looks: Looks) -> None:
    """Add the solids of a person and of the things in use."""
    posture, build = performance.posture, performance.part.build
    h = build.height
    g = looks.girth
    joints = posture.joints
    chest_right = posture.chest_frame[:, :, 0]
    chest_up = posture.chest_frame[:, :, 2]
    chest_ahead = posture.chest_frame[:, :, 1]
    hips_right = posture.hips_frame[:, :, 0]
    hips_up = posture.hips_frame[:, :, 2]
    breadth = build.shoulders

    # Trunk: hips, belly and chest, each broader than deep.
    builder.capsule(
        posture.pelvis - 0.030 * h * hips_up,
        posture.pelvis + 0.045 * h * hips_up,
        (0.056 * h * g, 0.062 * h * g),
        looks.trousers,
        squeeze=(1.52, 1.05),
        right=hips_right,
    )
    builder.capsule(
        posture.waist - 0.055 * h * hips_up,
        posture.waist + 0.03 * h * chest_up,
        (0.060 * h * g, 0.061 * h * g),
        looks.shirt,
        squeeze=(1.45 + 0.05 * (g - 1), 1.02),
        right=chest_right,
    )
    builder.capsule(
        posture.waist + 0.02 * h * chest_up,
        posture.neck - 0.042 * h * chest_up - 0.004 * h * chest_ahead,
        (0.060 * h * g, 0.066 * h * (0.4 + 0.6 * g)),
        looks.shirt,
        squeeze=(1.55 * (0.3 + 0.7 * breadth), 1.06),
        right=chest_right,
    )
    for side, sign in enumerate(SIDES):
        # From the neck the shoulders slope down to the arms.
        shoulder = joints[:, 10 + side] - 0.008 * h * chest_up
        builder.capsule(
            posture.neck + 0.024 * h * chest_up,
            shoulder + 0.002 * h * chest_up,
            (0.030 * h, 0.026 * h * (0.4 + 0.6 * g)),
            looks.belt,
            squeeze=(1.0, 1.15),
            right=chest_up,
        )
        elbow, wrist, hand = joints[:, 8 + side], joints[:, 6 + side], posture.hands[:, side]
        middle = shoulder + 0.62 * (elbow - shoulder)
        upper, lower = 0.0295 * h * (0.4 + 0.6 * g), 0.0235 * h * (0.5 + 0.5 * g)
        builder.capsule(shoulder, elbow, (upper * 0.97, lower * 0.98), looks.sleeve)
        builder.capsule(shoulder, middle, (upper * 1.04, upper * 1.0), looks.belt)
        builder.capsule(elbow, wrist, (lower, 0.0165 * h), looks.sleeve)
        fingers = hand + 0.55 * (hand - wrist)
        builder.capsule(
            wrist,
            fingers,
            (0.0165 * h, 0.0150 * h),
            looks.skin,
            squeeze=(0.72, 1.3),
            right=chest_right + 0.01 * sign,
        )
        hip, knee, ankle = joints[:, 4 + side], joints[:, 2 + side], joints[:, side]
        thigh = 0.050 * h * (0.3 + 0.7 * g)
        calf = 0.031 * h * (0.5 + 0.5 * g)
        builder.capsule(hip, knee, (thigh, 0.033 * h * (0.5 + 0.5 * g)), looks.trousers)
        bulge = knee + 0.32 * (ankle - knee)
        builder.capsule(knee, bulge, (0.031 * h * (0.5 + 0.5 * g), calf * 1.02), looks.leg)
        builder.capsule(bulge, ankle, (calf * 1.02, 0.0215 * h), looks.leg)
        heel, toe = posture.heels[:, side], posture.toes[:, side]
        builder.capsule(
            heel,
            toe,
            (0.0225 * h, 0.0190 * h),
            looks.shoes,
            right=np.array([0.0, 0.0, 1.0]),
            squeeze=(0.95, 1.2),
        )
    if looks.skirt:
        knees = (joints[:, 2] + joints[:, 3]) / 2
        builder.capsule(
            posture.pelvis,
            posture.pelvis + 0.62 * (knees - posture.pelvis),
            (0.066 * h * g, 0.085 * h * g),
            looks.trousers,
            squeeze=(1.35, 1.1),
            right=hips_right,
        )
    _add_head(builder, performance, looks)
    _add_things(builder, performance, looks)


def _add_head(builder: Builder, performance: Performance, looks: Looks) -> None:
    posture, h = performance.posture, performance.part.build.height
    skull = posture.joints[:, 12]
    frame = posture.head_frame
    up, ahead = frame[:, :, 2], frame[:, :, 1]
    builder.capsule(
        posture.neck - 0.01 * h * posture.chest_frame[:, :, 2],
        skull - 0.035 * h * up,
        (0.034 * h, 0.030 * h),
        looks.skin,
    )
    builder.ellipsoid(skull, frame, (0.046 * h, 0.055 * h, 0.065 * h), looks.head)
    nose = skull + 0.054 * h * ahead - 0.006 * h * up
    builder.capsule(nose, nose - 0.008 * h * up, (0.006 * h, 0.009 * h), looks.skin)
    if looks.long_hair:
        back = skull - 0.022 * h * ahead
        builder.capsule(
            back + 0.01 * h * up,
            back - 0.085 * h * up - 0.022 * h * ahead,
            (0.050 * h, 0.036 * h),
            looks.hair,
            right=frame[:, :, 0],
            squeeze=(1.05, 0.8),
        )
    if looks.cap:
        brim = skull + 0.045 * h * ahead + 0.026 * h * up
        builder.ellipsoid(brim, frame, (0.042 * h, 0.048 * h, 0.007 * h), looks.hair)


def _add_things(builder: Builder, performance: Performance, looks: Looks) -> None:
    item = performance.part.item
    if item is not None and performance.item is not None:
        heading = performance.item[:, 3]
        frame = np.zeros((len(heading), 3, 3))
        frame[:, 0, 0] = frame[:, 1, 1] = np.cos(heading)
        frame[:, 1, 0] = np.sin(heading)
        frame[:, 0, 1] = -np.sin(heading)
        frame[:, 2, 2] = 1.0
        width, depth, height = item.size
        centre = performance.item[:, :3] + np.array([0.0, 0.0, height / 2])
        builder.box(centre, (width / 2, depth / 2, height / 2), looks.item[0], frame=frame)
        top = performance.item[:, :3] + np.array([0.0, 0.0, height])
        if item.kind == "bag":
            # A bag is carried lengthwise, its handle an arch of three bars.
            ahead = frame[:, :, 1]
            for end in (-1.0, 1.0):
                foot = top + end * 0.4 * depth * ahead
                builder.capsule(
                    foot,
                    top + end * 0.15 * depth * ahead + [0.0, 0.0, 0.085],
                    (0.012, 0.012),
                    looks.item[1],
                )
            builder.capsule(
                top - 0.15 * depth * ahead + [0.0, 0.0, 0.085],
                top + 0.15 * depth * ahead + [0.0, 0.0, 0.085],
                (0.012, 0.012),
                looks.item[1],
            )
        else:
            builder.box(
                top - [0.0, 0.0, 0.01],
                (width / 2 + 0.004, 0.03, 0.0125),
                looks.item[1],
                frame=frame,
            )
    if performance.ball is not None:
        there = ~np.isnan(performance.ball[:, 0])
        spot = np.nan_to_num(performance.ball, nan=0.0)
        builder.capsule(spot, spot, (0.115, 0.115), looks.ball, shown=there)
    if performance.bottle is not None:
        bottom, top = performance.bottle[:, 0], performance.bottle[:, 1]
        neck = bottom + 0.68 * (top - bottom)
        builder.capsule(bottom, neck, (0.034, 0.034), looks.bottle[0])
        builder.capsule(neck, top, (0.024, 0.013), looks.bottle[1])
