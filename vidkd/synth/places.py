"""A cluttered room or a place outdoors: its size, its light, its walls and what stands there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vidkd.synth import materials
from vidkd.synth.camera import Camera
from vidkd.synth.furniture import Workshop
from vidkd.synth.materials import Material
from vidkd.synth.skeleton import rotation

Array = np.ndarray


@dataclass(frozen=True)
class Light:
    """Directions (unit vectors towards the light, world) and colours of the three lights."""

    key: Array
    fill: Array
    colours: Array
    """(3, 3): RGB of ambient, key and fill light."""
    hard: bool
    """Whether shadows are sharp, as from the sun."""

    def table(self, camera: Camera) -> Array:
        """Return the (6, 3) table of the kernels, directions in camera coordinates."""
        ways = np.stack([[0.0, 0.0, 1.0], self.key, self.fill]) @ camera.rotation.T
        return np.concatenate([ways, self.colours])


@dataclass(frozen=True)
class Setting:
    """The kind of place and its size; enough to know where people can walk."""

    outdoor: bool
    left: float
    right: float
    back: float
    light: Light

    @property
    def floor(self) -> tuple[float, float, float, float]:
        """Free floor: least and greatest x, least and greatest y."""
        if self.outdoor:
            return -3.5, 3.5, -3.5, 1.8
        return -self.left + 0.75, self.right - 0.75, -3.5, min(1.8, self.back - 1.0)


def draw_setting(rng: np.random.Generator, camera: Camera) -> Setting:
    """Draw a place that has room for the camera."""
    outdoor = bool(rng.random() < 0.35)
    beside = abs(float(camera.position[0])) + 0.6
    left = max(float(rng.uniform(2.4, 4.0)), beside if camera.position[0] < 0 else 0.0)
    right = max(float(rng.uniform(2.4, 4.0)), beside if camera.position[0] > 0 else 0.0)
    back = float(rng.uniform(2.2, 3.4))
    if outdoor:
        turn = float(rng.uniform(-1.2, 1.2))
        key = np.array([np.sin(turn) * 0.75, -np.cos(turn) * 0.75, rng.uniform(0.9, 1.8)])
        warm = float(rng.uniform(0.0, 0.12))
        colours = np.array(
            [[0.50, 0.54, 0.62], [0.72 + warm, 0.68, 0.60 - warm], [0.08, 0.09, 0.11]]
        )
    else:
        key = np.array([rng.uniform(-0.7, 0.7), rng.uniform(-0.8, 0.2), rng.uniform(1.0, 1.6)])
        warm = float(rng.uniform(-0.04, 0.10))
        colours = np.array(
            [
                [0.50 + warm, 0.49, 0.48 - warm],
                [0.44 + warm, 0.42, 0.40 - warm],
                [0.20, 0.20, 0.22],
            ]
        )
    fill = np.array([rng.uniform(-1, 1), -1.0, 0.3])
    colours = colours * float(rng.uniform(0.75, 1.12))
    light = Light(
        key / np.linalg.norm(key),
        fill / np.linalg.norm(fill),
        colours,
        outdoor and bool(rng.random() < 0.7),
    )
    return Setting(outdoor, left, right, back, light)


def furnish(shop: Workshop, setting: Setting) -> list[int]:
    """Build the place; return the numbers of the solids that are its floor."""
    return _outdoor(shop, setting) if setting.outdoor else _room(shop, setting)


def _room(shop: Workshop, setting: Setting) -> list[int]:
    rng, builder = shop.rng, shop.builder
    left, right, back = setting.left, setting.right, setting.back
    style = int(
        rng.choice([materials.PLANKS, materials.TILES, materials.FOLIAGE], p=[0.5, 0.25, 0.25])
    )
    if style == materials.PLANKS:
        tone = float(rng.uniform(0.5, 1.0))
        floor = Material(
            style,
            (0.72 * tone, 0.52 * tone, 0.34 * tone),
            (0.52 * tone, 0.35 * tone, 0.2 * tone),
            float(rng.uniform(0.09, 0.2)),
            float(rng.integers(1000)),
        )
    elif style == materials.TILES:
        tone = float(rng.uniform(0.55, 0.9))
        other = tone * float(rng.uniform(0.75, 1.0))
        floor = Material(
            style, (tone, tone, 0.95 * tone), (other,) * 3, float(rng.uniform(0.25, 0.5)), 1.0
        )
    else:
        red, green, blue = _soft(rng)
        floor = Material(
            style,
            (0.8 * red, 0.8 * green, 0.8 * blue),
            (red, green, blue),
            0.15,
            float(rng.integers(1000)),
        )
    builder.box(np.array([0, 0, -0.05]), (12, 12, 0.05), shop.palette.add(floor))
    floors = [0]
    if rng.random() < 0.55:
        rug = shop.paint(
            int(rng.choice([materials.RINGS, materials.CHECKS, materials.MOTTLED, materials.DOTS])),
            (0.2, 0.8),
            (0.25, 0.85),
            float(rng.uniform(0.12, 0.35)),
        )
        spot = rng.uniform(-0.8, 0.8, 2)
        half = (float(rng.uniform(0.8, 1.6)), float(rng.uniform(0.6, 1.2)), 0.004)
        builder.box(np.array([spot[0], spot[1], 0.0]), half, rug)
        floors.append(1)
    tall = float(rng.uniform(2.5, 3.1))
    wall = _wall(shop)
    side = wall if rng.random() < 0.6 else _wall(shop)
    thick, deep = 0.05, 7.0
    builder.box(np.array([0, back + thick, tall / 2]), (9, thick, tall / 2), wall)
    builder.box(np.array([-left - thick, 0, tall / 2]), (thick, deep, tall / 2), side)
    builder.box(np.array([right + thick, 0, tall / 2]), (thick, deep, tall / 2), side)
    white = shop.palette.add(Material(materials.PLAIN, (0.9, 0.9, 0.88), scale=0.6))
    builder.box(np.array([0, 0, tall + thick]), (12, 12, thick), white)
    trim = shop.wood()
    builder.box(np.array([0, back - 0.01, 0.05]), (9, 0.012, 0.05), trim)
    builder.box(np.array([-left + 0.01, 0, 0.05]), (0.012, deep, 0.05), trim)
    builder.box(np.array([right - 0.01, 0, 0.05]), (0.012, deep, 0.05), trim)
    _line(shop, -left + 0.1, right - 0.1, lambda x, d: (x, back - 0.02 - d, np.pi))
    _line(shop, -1.0, back - 1.0, lambda x, d: (-left + 0.02 + d, x, -np.pi / 2))
    _line(shop, -1.0, back - 1.0, lambda x, d: (right - 0.02 - d, x, np.pi / 2))
    return floors


def _soft(rng: np.random.Generator) -> tuple[float, float, float]:
    tone = float(rng.uniform(0.45, 0.85))
    tint = rng.uniform(0.82, 1.0, 3)
    return float(tone * tint[0]), float(tone * tint[1]), float(tone * tint[2])


def _wall(shop: Workshop) -> int:
    rng = shop.rng
    kind = float(rng.random())
    first = _soft(rng)
    second = tuple(float(np.clip(c * rng.uniform(0.8, 1.15), 0, 1)) for c in first)
    seed = float(rng.integers(1000))
    if kind < 0.45:
        material = Material(materials.PLAIN, first, scale=0.5, seed=seed)
    elif kind < 0.6:
        tone = float(rng.uniform(0.6, 1.0))
        brick = (0.62 * tone, 0.34 * tone, 0.27 * tone)
        material = Material(materials.BRICKS, brick, (0.65, 0.63, 0.6), 0.09, seed)
    elif kind < 0.8:
        material = Material(materials.STRIPES, first, second, float(rng.uniform(0.06, 0.25)), seed)  # type: ignore[arg-type]
    elif kind < 0.9:
        material = Material(materials.DOTS, first, second, float(rng.uniform(0.1, 0.2)), seed)  # type: ignore[arg-type]
    else:
        material = Material(materials.MOTTLED, first, second, 0.4, seed)  # type: ignore[arg-type]
    return shop.palette.add(material)


def _line(
    shop: Workshop,
    start: float,
    end: float,
    place: Callable[[float, float], tuple[float, float, float]],
) -> None:
    """Furnish along a wall; ``place(x, d)`` is the place ``x`` along it and ``d`` away from it."""
    rng = shop.rng
    x = start + float(rng.uniform(0.0, 0.5))
    while x < end - 0.4:
        kind = str(
            rng.choice(
                [
                    "shelf",
                    "cabinet",
                    "table",
                    "sofa",
                    "plant",
                    "lamp",
                    "picture",
                    "window",
                    "door",
                    "none",
                ],
                p=[0.13, 0.13, 0.10, 0.10, 0.13, 0.08, 0.12, 0.09, 0.05, 0.07],
            )
        )
        width = {"sofa": 1.7, "plant": 0.6, "lamp": 0.5, "door": 0.95, "none": 0.4}.get(
            kind, float(rng.uniform(0.7, 1.4))
        )
        if x + width > end:
            kind, width = "none", 0.5
        middle = x + width / 2
        if kind == "shelf":
            shop.stand(*place(middle, 0.17))
            shop.shelf(width)
        elif kind == "cabinet":
            shop.stand(*place(middle, 0.21))
            shop.cabinet(width)
            _hang(shop, *place(middle, 0.0))
        elif kind == "table":
            shop.stand(*place(middle, 0.38))
            shop.table(width)
            _hang(shop, *place(middle, 0.0))
        elif kind == "sofa":
            shop.stand(*place(middle, 0.42))
            shop.sofa(1.4)
            _hang(shop, *place(middle, 0.0))
        elif kind == "plant":
            shop.stand(*place(middle, 0.35))
            shop.plant()
        elif kind == "lamp":
            shop.stand(*place(middle, 0.25))
            shop.lamp()
        elif kind == "picture":
            _hang(shop, *place(middle, 0.0))
        elif kind == "window":
            shop.stand(*place(middle, 0.0))
            glass = shop.palette.add(
                Material(materials.GLOW, (0.80, 0.88, 1.0), (0.85, 0.85, 0.82), 0.5, x)
            )
            shop.block((0, 0.01, 1.5), (width / 2, 0.015, 0.55), glass)
            if rng.random() < 0.6:
                cloth = shop.paint(materials.STRIPES, (0.1, 0.6), (0.4, 0.9), 0.05)
                for side in (-1, 1):
                    shop.block((side * width / 2, 0.05, 1.25), (0.14, 0.03, 0.95), cloth)
        elif kind == "door":
            shop.stand(*place(middle, 0.0))
            wood = shop.wood()
            frame = shop.wood()
            shop.block((0, 0.0, 1.02), (0.46, 0.03, 1.04), frame)
            shop.block((0, 0.02, 1.0), (0.40, 0.03, 0.99), wood)
            shop.rod((0.32, 0.08, 1.0), (0.24, 0.08, 1.0), (0.015, 0.015), frame)
        x += width + float(rng.uniform(0.05, 0.5))


def _hang(shop: Workshop, x: float, y: float, heading: float) -> None:
    rng = shop.rng
    shop.stand(x, y, heading)
    half = (float(rng.uniform(0.15, 0.4)), 0.02, float(rng.uniform(0.15, 0.35)))
    art = shop.paint(materials.PICTURE, (0.2, 0.9), (0.3, 0.95), float(rng.uniform(0.08, 0.25)))
    shop.block((float(rng.uniform(-0.1, 0.1)), 0.02, float(rng.uniform(1.4, 1.75))), half, art)


def _outdoor(shop: Workshop, setting: Setting) -> list[int]:
    rng, builder = shop.rng, shop.builder
    seed = float(rng.integers(1000))
    kind = int(rng.integers(3))
    if kind == 0:
        tone = float(rng.uniform(0.8, 1.2))
        floor = Material(
            materials.FOLIAGE,
            (0.19 * tone, 0.25 * tone, 0.11),
            (0.35 * tone, 0.42 * tone, 0.21),
            0.35,
            seed,
        )
    elif kind == 1:
        tone = float(rng.uniform(0.35, 0.6))
        floor = Material(materials.FOLIAGE, (0.8 * tone,) * 3, (1.1 * tone,) * 3, 0.22, seed)
    else:
        tone = float(rng.uniform(0.55, 0.8))
        floor = Material(
            materials.TILES, (tone, 0.96 * tone, 0.9 * tone), (0.9 * tone,) * 3, 0.4, seed
        )
    builder.box(np.array([0, 0, -0.05]), (60, 60, 0.05), shop.palette.add(floor))
    far = float(rng.uniform(4.5, 9.0))
    backdrop = int(rng.integers(3))
    if backdrop == 0:
        wall = shop.palette.add(
            Material(
                materials.WINDOWS, _soft(rng), (0.2, 0.25, 0.32), float(rng.uniform(1.2, 1.9)), seed
            )
        )
        x = -14.0
        while x < 14:
            width = float(rng.uniform(4, 9))
            tall = float(rng.uniform(3.0, 7.0))
            builder.box(
                np.array([x + width / 2, far + 3, tall / 2]), (width / 2, 2.5, tall / 2), wall
            )
            wall = shop.palette.add(
                Material(
                    materials.WINDOWS,
                    _soft(rng),
                    (0.2, 0.25, 0.32),
                    float(rng.uniform(1.2, 1.9)),
                    seed + x,
                )
            )
            x += width
    elif backdrop == 1:
        wood = shop.palette.add(
            Material(materials.PLANKS, (0.5, 0.36, 0.24), (0.36, 0.25, 0.16), 0.16, seed)
        )
        builder.box(np.array([0, far, 0.8]), (14, 0.04, 0.8), wood)
        for x in np.arange(-9, 9, 1.7):
            shop.stand(float(x + rng.uniform(-0.5, 0.5)), far + float(rng.uniform(1.5, 4)), 0.0)
            shop.tree(float(rng.uniform(3.5, 6.0)))
    else:
        for x in np.arange(-10, 10, 1.3):
            shop.stand(float(x + rng.uniform(-0.5, 0.5)), far + float(rng.uniform(0.0, 3.0)), 0.0)
            shop.tree(float(rng.uniform(3.0, 6.5))) if rng.random() < 0.6 else shop.bush()
        hill = shop.palette.add(
            Material(materials.FOLIAGE, (0.2, 0.3, 0.2), (0.35, 0.45, 0.3), 3.0, seed)
        )
        frame = rotation(2, np.array(0.0))
        for x in (-18.0, 4.0, 22.0):
            builder.ellipsoid(
                np.array([x, 42.0, -2.0]), frame, (16.0, 6.0, float(rng.uniform(5, 9))), hill
            )
    for _ in range(int(rng.integers(2, 6))):
        x = float(rng.uniform(-5, 5))
        shop.stand(x, float(rng.uniform(3.6, far)), float(rng.uniform(-0.2, 0.2)))
        pick = float(rng.random())
        if pick < 0.45:
            shop.bush()
        elif pick < 0.7:
            shop.tree(float(rng.uniform(2.5, 4.5)))
        elif far > 5.5:
            shop.car()
    return [0]
