"""Compiled kernels: rays against solids with a depth buffer, shading, shadows, sensor noise."""

from __future__ import annotations

import math

import numba
import numpy as np

from vidkd.synth.materials import colour_at

Array = np.ndarray

FAR = 1e6


@numba.njit(cache=True)
def _capsule(
    ox: float, oy: float, oz: float, dx: float, dy: float, dz: float, h: float, ra: float, rb: float
) -> float:  # pragma: no cover - compiled
    # Ray (o + t d, |d| = 1) against the hull of spheres (0, ra) and ((0, 0, h), rb): the cone that
    # touches both, then the spheres themselves.
    b = dx * ox + dy * oy + dz * oz
    oo = ox * ox + oy * oy + oz * oz
    best = FAR
    rr = ra - rb
    if h > abs(rr):
        g = h * h - rr * rr
        m = h * dz
        o = h * oz
        k2 = g - m * m
        k1 = g * b - o * m + m * rr * ra
        k0 = g * oo - o * o + 2 * o * rr * ra - h * h * ra * ra
        disc = k1 * k1 - k0 * k2
        if disc >= 0 and abs(k2) > 1e-12:
            t = (-math.sqrt(disc) - k1) / k2
            along = o - ra * rr + t * m
            if t > 0 and 0 < along < g:
                return t
    disc = b * b - oo + ra * ra
    if disc >= 0:
        t = -b - math.sqrt(disc)
        if t > 0:
            best = t
    if h > 0:
        zo = oz - h
        b = dx * ox + dy * oy + dz * zo
        disc = b * b - (ox * ox + oy * oy + zo * zo) + rb * rb
        if disc >= 0:
            t = -b - math.sqrt(disc)
            if 0 < t < best:
                best = t
    return best


@numba.njit(cache=True)
def _box(
    ox: float,
    oy: float,
    oz: float,
    dx: float,
    dy: float,
    dz: float,
    sx: float,
    sy: float,
    sz: float,
) -> float:  # pragma: no cover - compiled
    near, far = 1e-3, FAR
    for o, d, s in ((ox, dx, sx), (oy, dy, sy), (oz, dz, sz)):
        if abs(d) < 1e-12:
            if abs(o) > s:
                return FAR
        else:
            a, b = (-s - o) / d, (s - o) / d
            if a > b:
                a, b = b, a
            near, far = max(near, a), min(far, b)
            if near > far:
                return FAR
    return near


@numba.njit(cache=True)
def cast(
    kind: Array,
    turn: Array,
    eye: Array,
    size: Array,
    bounds: Array,
    focal: float,
    cx: float,
    cy: float,
    scale: int,
    depth: Array,
    number: Array,
    first: int,
) -> None:  # pragma: no cover - compiled
    """Find the nearest solid of every sample.

    Args:
        kind: (p,).
        turn: (p, 3, 3).
        eye: (p, 3).
        size: (p, 3).
        bounds: (p, 4) of samples.
        focal: focal length in pixels.
        cx: principal point in pixels of the picture, as ``cy``.
        cy: see ``cx``.
        scale: samples per pixel along each axis.
        depth: (rows, columns) float32 depth of what is there already; lowered.
        number: (rows, columns) int32; receives ``first`` plus the solid's number.
        first: added to the number.
    """
    for p in range(len(kind)):
        t00, t01, t02 = turn[p, 0, 0], turn[p, 0, 1], turn[p, 0, 2]
        t10, t11, t12 = turn[p, 1, 0], turn[p, 1, 1], turn[p, 1, 2]
        t20, t21, t22 = turn[p, 2, 0], turn[p, 2, 1], turn[p, 2, 2]
        ox, oy, oz = eye[p, 0], eye[p, 1], eye[p, 2]
        a, b, c = size[p, 0], size[p, 1], size[p, 2]
        for row in range(bounds[p, 2], bounds[p, 3]):
            v = ((row + 0.5) / scale - 0.5 - cy) / focal
            for column in range(bounds[p, 0], bounds[p, 1]):
                u = ((column + 0.5) / scale - 0.5 - cx) / focal
                dx = t00 * u + t01 * v + t02
                dy = t10 * u + t11 * v + t12
                dz = t20 * u + t21 * v + t22
                length = math.sqrt(dx * dx + dy * dy + dz * dz)
                dx, dy, dz = dx / length, dy / length, dz / length
                if kind[p] == 0:
                    t = _capsule(ox, oy, oz, dx, dy, dz, a, b, c)
                else:
                    t = _box(ox, oy, oz, dx, dy, dz, a, b, c)
                t /= length
                if 0.05 < t < depth[row, column]:
                    depth[row, column] = t
                    number[row, column] = first + p


@numba.njit(cache=True)
def _lit(
    p: int,
    u: float,
    v: float,
    t: float,
    kind: Array,
    turn: Array,
    eye: Array,
    size: Array,
    material: Array,
    table: Array,
    light: Array,
) -> tuple[float, float, float]:  # pragma: no cover - compiled
    dx = turn[p, 0, 0] * u + turn[p, 0, 1] * v + turn[p, 0, 2]
    dy = turn[p, 1, 0] * u + turn[p, 1, 1] * v + turn[p, 1, 2]
    dz = turn[p, 2, 0] * u + turn[p, 2, 1] * v + turn[p, 2, 2]
    x, y, z = eye[p, 0] + t * dx, eye[p, 1] + t * dy, eye[p, 2] + t * dz
    nx, ny, nz = 0.0, 0.0, 0.0
    box = kind[p] == 1
    if box:
        ex = abs(x) / size[p, 0]
        ey = abs(y) / size[p, 1]
        ez = abs(z) / size[p, 2]
        if ex >= ey and ex >= ez:
            nx = 1.0 if x > 0 else -1.0
        elif ey >= ez:
            ny = 1.0 if y > 0 else -1.0
        else:
            nz = 1.0 if z > 0 else -1.0
    else:
        h, ra, rb = size[p, 0], size[p, 1], size[p, 2]
        # The surface point belongs to the sphere of the axis point whose normal passes it.
        flat = math.sqrt(x * x + y * y)
        along = z
        if h > abs(ra - rb):
            along = z + flat * (rb - ra) / math.sqrt(h * h - (ra - rb) * (ra - rb))
        along = min(max(along, 0.0), h)
        nx, ny, nz = x, y, z - along
    red, green, blue, own = colour_at(table[material[p]], box, x, y, z, nx, ny, nz, size[p])
    # The gradient of a function of the solid's coordinates in camera coordinates.
    mx = turn[p, 0, 0] * nx + turn[p, 1, 0] * ny + turn[p, 2, 0] * nz
    my = turn[p, 0, 1] * nx + turn[p, 1, 1] * ny + turn[p, 2, 1] * nz
    mz = turn[p, 0, 2] * nx + turn[p, 1, 2] * ny + turn[p, 2, 2] * nz
    size_n = math.sqrt(mx * mx + my * my + mz * mz) + 1e-12
    mx, my, mz = mx / size_n, my / size_n, mz / size_n
    up = mx * light[0, 0] + my * light[0, 1] + mz * light[0, 2]
    key = mx * light[1, 0] + my * light[1, 1] + mz * light[1, 2]
    fill = mx * light[2, 0] + my * light[2, 1] + mz * light[2, 2]
    sky = 0.68 + 0.32 * up
    key = max(0.0, (key + 0.25) / 1.25)
    fill = max(0.0, fill)
    gloss = table[material[p], 9]
    shine = 0.0
    if gloss > 0:
        # Half way between the light and the viewer.
        length = math.sqrt(u * u + v * v + 1)
        hx = light[1, 0] - u / length
        hy = light[1, 1] - v / length
        hz = light[1, 2] - 1 / length
        size_h = math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-12
        shine = gloss * max(0.0, (mx * hx + my * hy + mz * hz) / size_h) ** 24
    result_r = red * (light[3, 0] * sky + light[4, 0] * key + light[5, 0] * fill)
    result_g = green * (light[3, 1] * sky + light[4, 1] * key + light[5, 1] * fill)
    result_b = blue * (light[3, 2] * sky + light[4, 2] * key + light[5, 2] * fill)
    result_r = own * red + (1 - own) * result_r + shine
    result_g = own * green + (1 - own) * result_g + shine
    result_b = own * blue + (1 - own) * result_b + shine
    return result_r, result_g, result_b


@numba.njit(cache=True)
def paint(
    kind: Array,
    turn: Array,
    eye: Array,
    size: Array,
    material: Array,
    table: Array,
    light: Array,
    focal: float,
    cx: float,
    cy: float,
    scale: int,
    depth: Array,
    number: Array,
    image: Array,
) -> None:  # pragma: no cover - compiled
    """Colour every pixel of which some sample is covered by a solid; antialiased.

    Args:
        kind: (p,) as :func:`cast` took it, like the others.
        turn: (p, 3, 3).
        eye: (p, 3).
        size: (p, 3).
        material: (p,) rows of ``table``.
        table: the materials.
        light: (6, 3): directions of up, key and fill light in camera coordinates, their colours.
        focal: focal length in pixels.
        cx: principal point in pixels, as ``cy``.
        cy: see ``cx``.
        scale: samples per pixel along each axis.
        depth: from :func:`cast`.
        number: from :func:`cast`; negative where nothing is.
        image: (rows, columns, 3) float32 RGB in 0..1 of what is behind; changed in place.
    """
    rows, columns = image.shape[0], image.shape[1]
    for row in range(rows):
        for column in range(columns):
            covered = 0
            same = True
            p0 = number[row * scale, column * scale]
            for i in range(scale):
                for j in range(scale):
                    p = number[row * scale + i, column * scale + j]
                    if p >= 0:
                        covered += 1
                    if p != p0:
                        same = False
            if covered == 0:
                continue
            if same:
                t = 0.0
                for i in range(scale):
                    for j in range(scale):
                        t += depth[row * scale + i, column * scale + j]
                u, v = (column - cx) / focal, (row - cy) / focal
                r, g, b = _lit(
                    p0, u, v, t / (scale * scale), kind, turn, eye, size, material, table, light
                )
            else:
                behind = scale * scale - covered
                r = behind * image[row, column, 0]
                g = behind * image[row, column, 1]
                b = behind * image[row, column, 2]
                for i in range(scale):
                    for j in range(scale):
                        p = number[row * scale + i, column * scale + j]
                        if p < 0:
                            continue
                        u = (column + (j + 0.5) / scale - 0.5 - cx) / focal
                        v = (row + (i + 0.5) / scale - 0.5 - cy) / focal
                        x, y, z = _lit(
                            p,
                            u,
                            v,
                            depth[row * scale + i, column * scale + j],
                            kind,
                            turn,
                            eye,
                            size,
                            material,
                            table,
                            light,
                        )
                        r, g, b = r + x, g + y, b + z
                r, g, b = r / (scale * scale), g / (scale * scale), b / (scale * scale)
            image[row, column, 0] = r
            image[row, column, 1] = g
            image[row, column, 2] = b


@numba.njit(cache=True)
def shadow(
    image: Array,
    ground: Array,
    dx: float,
    dy: float,
    segments: Array,
    strength: float,
) -> None:  # pragma: no cover - compiled
    """Darken the floor under and beside bodies.

    Args:
        image: (rows, columns, 3) float32, changed in place.
        ground: (rows + 2 m, columns + 2 m, 2) float32 floor point seen at each pixel of the larger
            picture, NaN where the floor is hidden.
        dx: column of the larger picture at column 0 of the image, rounded by the kernel; as ``dy``.
        dy: see ``dx``.
        segments: (k, 7): two ends on the floor (x, y each), radius, blur and darkness.
        strength: darkness in all, 0..1.
    """
    rows, columns = image.shape[0], image.shape[1]
    left, top = int(np.rint(dx)), int(np.rint(dy))
    low_x, high_x, low_y, high_y = FAR, -FAR, FAR, -FAR
    for k in range(len(segments)):
        reach = segments[k, 4] + segments[k, 5]
        low_x = min(low_x, segments[k, 0] - reach, segments[k, 2] - reach)
        high_x = max(high_x, segments[k, 0] + reach, segments[k, 2] + reach)
        low_y = min(low_y, segments[k, 1] - reach, segments[k, 3] - reach)
        high_y = max(high_y, segments[k, 1] + reach, segments[k, 3] + reach)
    for row in range(rows):
        for column in range(columns):
            x = ground[row + top, column + left, 0]
            y = ground[row + top, column + left, 1]
            if not (low_x < x < high_x and low_y < y < high_y):
                continue
            light = 1.0
            for k in range(len(segments)):
                ax, ay = segments[k, 0], segments[k, 1]
                bx, by = segments[k, 2] - ax, segments[k, 3] - ay
                px, py = x - ax, y - ay
                u = (px * bx + py * by) / (bx * bx + by * by + 1e-9)
                u = min(max(u, 0.0), 1.0)
                away = math.sqrt((px - u * bx) ** 2 + (py - u * by) ** 2)
                soft = (segments[k, 4] + segments[k, 5] - away) / (2 * segments[k, 5])
                if soft > 0:
                    soft = min(soft, 1.0)
                    light = min(light, 1 - segments[k, 6] * soft * soft * (3 - 2 * soft))
            light = 1 - strength * (1 - light)
            image[row, column, 0] *= light
            image[row, column, 1] *= light
            image[row, column, 2] *= light


@numba.njit(cache=True)
def expose(
    image: Array, gain: Array, vignette: Array, noise: Array, top: int, left: int, size: float
) -> Array:  # pragma: no cover - compiled
    """Turn an image (float32, 0..1) into 8 bits as a sensor would.

    Args:
        image: (rows, columns, 3).
        gain: (3,) exposure and white balance.
        vignette: (rows, columns) share of the light that arrives.
        noise: (r, c, 3) float32 of unit variance, at least as large as the image plus offsets.
        top: first row of the noise to use, as ``left``.
        left: see ``top``.
        size: standard deviation of the noise in grey levels at middle grey.
    """
    rows, columns = image.shape[0], image.shape[1]
    result = np.empty((rows, columns, 3), np.uint8)
    for row in range(rows):
        for column in range(columns):
            for c in range(3):
                value = image[row, column, c] * gain[c] * vignette[row, column]
                # A soft shoulder instead of hard clipping.
                if value > 0.8:
                    value = 0.8 + 0.2 * (1 - math.exp(-(value - 0.8) / 0.2))
                grain = size * (0.6 + 0.8 * value)
                value = 255 * value + grain * noise[top + row, left + column, c]
                result[row, column, c] = np.uint8(min(max(value + 0.5, 0.0), 255.0))
    return result
