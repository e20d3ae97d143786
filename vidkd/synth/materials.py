"""Surfaces: colours and procedural patterns, evaluated where a ray meets a solid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np

Array = np.ndarray

(
    PLAIN,
    RINGS,
    STRIPES,
    CHECKS,
    DOTS,
    MOTTLED,
    PLANKS,
    TILES,
    BRICKS,
    FOLIAGE,
    HEAD,
    WOOD,
    PICTURE,
    BOOKS,
    WINDOWS,
    GLOW,
    PRINT,
) = range(17)

COLUMNS = 12


@dataclass(frozen=True)
class Material:
    """A pattern of two colours (RGB in 0..1)."""

    pattern: int
    colour: tuple[float, float, float]
    other: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 0.1
    """Size of the pattern in metres."""
    seed: float = 0.0
    gloss: float = 0.0
    parts: float = 0.0
    """For HEAD the style of the hair: 0 short, 1 bald, 2 cap, 3 long."""

    def row(self) -> list[float]:
        return [
            float(self.pattern),
            *self.colour,
            *self.other,
            self.scale,
            self.seed,
            self.gloss,
            self.parts,
            0.0,
        ]


class Palette:
    """A growing table of materials."""

    def __init__(self) -> None:
        self._rows: list[list[float]] = []

    def add(self, material: Material) -> int:
        """Return the number of the material in the table."""
        self._rows.append(material.row())
        return len(self._rows) - 1

    def table(self) -> Array:
        """Return the table (m, COLUMNS) float64."""
        return np.array(self._rows, dtype=np.float64).reshape(-1, COLUMNS)


@numba.njit(cache=True, inline="never")
def _hash(x: int, y: int, z: int) -> float:  # pragma: no cover - compiled
    h = (x * 374761393 + y * 668265263 + z * 2147483647) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    h = (h ^ (h >> 16)) & 0xFFFFFFFF
    return h / 4294967295.0


@numba.njit(cache=True)
def _noise(x: float, y: float, z: float, seed: int) -> float:  # pragma: no cover - compiled
    i, j, k = math.floor(x), math.floor(y), math.floor(z)
    u, v, w = x - i, y - j, z - k
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    a, b, c = int(i), int(j), int(k) + 57 * seed
    low = (
        _hash(a, b, c) * (1 - u) * (1 - v)
        + _hash(a + 1, b, c) * u * (1 - v)
        + _hash(a, b + 1, c) * (1 - u) * v
        + _hash(a + 1, b + 1, c) * u * v
    )
    high = (
        _hash(a, b, c + 1) * (1 - u) * (1 - v)
        + _hash(a + 1, b, c + 1) * u * (1 - v)
        + _hash(a, b + 1, c + 1) * (1 - u) * v
        + _hash(a + 1, b + 1, c + 1) * u * v
    )
    return low * (1 - w) + high * w


@numba.njit(cache=True)
def _fractal(x: float, y: float, z: float, seed: int) -> float:  # pragma: no cover - compiled
    return (
        0.55 * _noise(x, y, z, seed)
        + 0.3 * _noise(2.1 * x, 2.1 * y, 2.1 * z, seed + 1)
        + 0.15 * _noise(4.3 * x, 4.3 * y, 4.3 * z, seed + 2)
    )


@numba.njit(cache=True)
def _head(
    x: float, y: float, z: float, row: Array
) -> tuple[float, float]:  # pragma: no cover - compiled
    # x right, y forward, z up, on a head of about unit radius. Returns the share of hair and the
    # darkness of a feature of the face.
    style = row[10]
    hair = 0.0
    if style == 0 or style == 3:
        line = 0.42 - 0.10 * abs(x)
        if y < 0.45:
            line = 0.25 - 1.1 * (0.45 - y)
        if style == 3 and y < 0.25:
            line = -2.0
        hair = 1.0 if z > line else 0.0
    elif style == 2:
        hair = 1.0 if z > 0.30 + 0.05 * y else 0.0
    dark = 0.0
    if y > 0:
        ax = abs(x)
        if (ax - 0.33) ** 2 + ((z - 0.10) * 1.3) ** 2 < 0.0110:
            dark = 0.85
        elif (ax - 0.33) ** 2 * 0.4 + ((z - 0.29) * 2.4) ** 2 < 0.0100:
            dark = 0.5
        elif x * x * 0.35 + ((z + 0.45) * 1.6) ** 2 < 0.0100:
            dark = 0.45
        elif ax < 0.10 and -0.22 < z < 0.08:
            dark = 0.14
    return hair, dark


@numba.njit(cache=True)
def colour_at(
    row: Array,
    box: bool,
    x: float,
    y: float,
    z: float,
    nx: float,
    ny: float,
    nz: float,
    size: Array,
) -> tuple[float, float, float, float]:  # pragma: no cover - compiled
    """Return red, green, blue and the share of light that is the surface's own.

    Args:
        row: the material's row.
        box: whether the solid is a box, whose faces are patterned in their plane.
        x: position in the solid's own coordinates, in metres, as y and z.
        y: see x.
        z: see x.
        nx: normal in the same coordinates, as ny and nz.
        ny: see nx.
        nz: see nx.
        size: (3,) of the solid.
    """
    pattern = int(row[0])
    scale = row[7]
    seed = int(row[8])
    mix = 0.0
    shade = 1.0
    own = 0.0
    if box:
        ax, ay, az = abs(nx), abs(ny), abs(nz)
        if az >= ax and az >= ay:
            u, v = x, y
        elif ax >= ay:
            u, v = y, z
        else:
            u, v = x, z
    else:
        u, v = math.atan2(ny, nx) * 0.12, z
    if pattern == 0:
        shade = 0.93 + 0.14 * _fractal(x / scale, y / scale, z / scale, seed)
    elif pattern == 1:
        mix = 1.0 if math.floor(v / scale) % 2 == 0 else 0.0
    elif pattern == 2:
        mix = 1.0 if math.floor(u / scale) % 2 == 0 else 0.0
    elif pattern == 3:
        a = math.floor(u / scale) % 2
        b = math.floor(v / scale) % 2
        mix = 0.5 * a + 0.5 * b
    elif pattern == 4:
        a = u / scale - math.floor(u / scale) - 0.5
        b = v / scale - math.floor(v / scale) - 0.5
        mix = 1.0 if a * a + b * b < 0.07 else 0.0
    elif pattern == 5:
        mix = min(1.0, max(0.0, 5.0 * (_fractal(x / scale, y / scale, z / scale, seed) - 0.42)))
    elif pattern == 6:
        plank = math.floor(u / scale)
        shift = _hash(int(plank), 3, seed) * 7.0
        board = math.floor((v + shift) / (8 * scale))
        mix = 0.55 * _hash(int(plank), int(board), seed)
        mix += 0.45 * _noise(u / scale * 6.0, v / scale * 0.7, 0.0, seed)
        gap = u / scale - plank
        end = (v + shift) / (8 * scale) - board
        if gap < 0.035 or end < 0.006:
            shade = 0.62
    elif pattern == 7:
        i, j = math.floor(u / scale), math.floor(v / scale)
        a, b = u / scale - i, v / scale - j
        mix = 1.0 if (int(i) + int(j)) % 2 == 0 else 0.0
        shade = 0.92 + 0.14 * _hash(int(i), int(j), seed)
        shade *= 0.94 + 0.12 * _fractal(u / scale * 3, v / scale * 3, 0.0, seed)
        if a < 0.03 or b < 0.03:
            shade *= 0.75
    elif pattern == 8:
        j = math.floor(v / scale)
        w = u / (2.4 * scale) + 0.5 * (int(j) % 2)
        i = math.floor(w)
        shade = 0.8 + 0.3 * _hash(int(i), int(j), seed)
        shade *= 0.9 + 0.2 * _noise(u / scale * 4, v / scale * 4, 0.0, seed)
        if v / scale - j < 0.12 or w - i < 0.05:
            mix = 1.0
    elif pattern == 9:
        big = _fractal(x / scale, y / scale, z / scale, seed)
        fine = _noise(9.0 * x / scale, 9.0 * y / scale, 9.0 * z / scale, seed + 5)
        mix = min(1.0, max(0.0, 0.7 * big + 0.6 * fine - 0.15))
    elif pattern == 10:
        hair, dark = _head(x / size[1], y / size[1], z / size[1], row)
        mix = hair
        shade = 1.0 - dark * (1.0 - hair)
        if hair > 0:
            shade = 0.8 + 0.4 * _noise(x / 0.006, y / 0.006, z / 0.03, seed)
    elif pattern == 11:
        mix = _noise(u / scale * 5.0, v / scale * 0.6, 0.0, seed)
        mix = 0.7 * mix + 0.3 * _noise(u / scale * 17.0, v / scale * 1.5, 0.0, seed + 1)
    elif pattern == 12:
        a = _fractal(u / scale, v / scale, 0.0, seed)
        b = _fractal(u / scale, v / scale, 9.0, seed + 7)
        mix = 1.0 if a > 0.5 else 0.0
        shade = 0.6 + 0.8 * b
        half = size[0]
        if abs(u) > half - 0.03 or abs(v) > size[2] - 0.03:
            mix, shade = 0.0, 0.25
    elif pattern == 13:
        shelf = math.floor(v / 0.32)
        up = v - shelf * 0.32
        book = math.floor(u / scale)
        tall = 0.17 + 0.11 * _hash(int(book), int(shelf), seed)
        if up < 0.03:
            mix, shade = 1.0, 1.0
        elif up - 0.03 > tall:
            mix, shade = 1.0, 0.3
        else:
            r = 0.25 + 0.7 * _hash(int(book), int(shelf), seed + 1)
            g = 0.2 + 0.65 * _hash(int(book), int(shelf), seed + 2)
            b = 0.2 + 0.6 * _hash(int(book), int(shelf), seed + 3)
            edge = 0.55 if u / scale - book < 0.12 else 0.85
            return r * edge, g * edge, b * edge, 0.0
    elif pattern == 14:
        i, j = math.floor(u / scale), math.floor(v / scale)
        a, b = u / scale - i, v / scale - j
        if 0.25 < a < 0.75 and 0.2 < b < 0.8:
            mix = 1.0
            shade = 0.7 + 0.5 * _hash(int(i), int(j), seed)
        else:
            shade = 0.9 + 0.2 * _fractal(u * 2, v * 2, 0.0, seed)
    elif pattern == 15:
        own = 0.9
        pane = size[0]
        if abs(u) > pane - 0.05 or abs(u) < 0.025 or abs(v) > size[2] - 0.05 or abs(v) < 0.02:
            own, mix = 0.0, 1.0
        else:
            shade = 0.85 + 0.3 * _fractal(u * 3, v * 3, 0.0, seed)
    else:
        # A print on the front of a shirt.
        if ny > 0.35 and abs(x) < 0.075 and 0.08 < z < 0.24:
            mix = 1.0 if _fractal(x / scale, z / scale, 0.0, seed) > 0.42 else 0.0
    red = (row[1] * (1 - mix) + row[4] * mix) * shade
    green = (row[2] * (1 - mix) + row[5] * mix) * shade
    blue = (row[3] * (1 - mix) + row[6] * mix) * shade
    return red, green, blue, own
