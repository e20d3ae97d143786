"""Varied training pictures: the same person larger, mirrored, cut off, blurred, in other light."""

from __future__ import annotations

import cv2
import numpy as np

from vidkd.pose.labels import LabelledPerson
from vidkd.skeletons import FLIP

Array = np.ndarray

EXTENTS = (0.35, 1.3)
"""Longer side of a person's extent relative to the height of the picture."""
_SCALES = (0.6, 1.6)
"""Size of a picture without people relative to one that just fits."""
_NOISE = np.random.default_rng(0).standard_normal((257, 1024, 3), np.float32)
"""Rows of noise; drawing new noise for every picture would take longer than all the rest."""
_OUTSIDE = 0.5
"""What the weight of a joint outside the picture is multiplied by."""


def augment(
    picture: Array,
    people: tuple[LabelledPerson, ...],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[Array, tuple[LabelledPerson, ...]]:
    """Return a varied picture of the given size, and the people in it.

    Geometry: scale, shift, stretch by a few percent, rotation by some degrees (of the 3D joints
    too) and mirroring. Colour: gain, gamma, saturation. Damage: occluding blocks, blur, lower
    resolution, noise, JPEG. Pictures are (H, W, 3) uint8, ``size`` is height and width.
    """
    matrix, angle, mirrored = _geometry(picture.shape[:2], people, size, rng)
    border = cv2.BORDER_REPLICATE if rng.random() < 0.3 else cv2.BORDER_CONSTANT
    fill = tuple(int(v) for v in rng.integers(0, 256, 3))
    small = np.linalg.norm(matrix[:, 0]) < 0.8
    image = cv2.warpAffine(
        picture,
        matrix,
        size[::-1],
        flags=cv2.INTER_AREA if small else cv2.INTER_LINEAR,
        borderMode=border,
        borderValue=fill,
    )
    image = _damage(_colours(_blocks(image, rng), rng), rng)
    return image, tuple(moved(person, matrix, angle, mirrored, size) for person in people)


def moved(
    person: LabelledPerson, matrix: Array, angle: float, mirrored: bool, size: tuple[int, int]
) -> LabelledPerson:
    """Return a person after the picture was moved by a matrix (2, 3) of its pixels.

    The matrix turns by ``angle`` radians about the line of sight, and mirrors if ``mirrored``.
    Joints outside the new picture, of height and width ``size``, count less.
    """
    pixels = person.joints_2d @ matrix[:, :2].T + matrix[:, 2]
    points = person.joints_3d
    scores = person.scores
    if mirrored:
        order = list(FLIP)
        pixels, scores = pixels[order], scores[order]
        points = points[order] * np.array([-1.0, 1.0, 1.0])
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    outside = (pixels < -0.5).any(axis=1) | (pixels > np.array(size[::-1]) - 0.5).any(axis=1)
    return LabelledPerson(
        pixels.astype(np.float32),
        np.where(outside, _OUTSIDE * scores, scores).astype(np.float32),
        (points @ turn.T).astype(np.float32),
    )


def _geometry(
    source: tuple[int, ...],
    people: tuple[LabelledPerson, ...],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[Array, float, bool]:
    """Draw a matrix (2, 3) from old to new pixels, its rotation, and whether it mirrors."""
    centre = np.array([source[1], source[0]]) / 2
    scale = min(size[0] / source[0], size[1] / source[1]) * _log_uniform(rng, _SCALES)
    if people:
        known = people[rng.integers(len(people))].joints_2d
        known = known[~np.isnan(known).any(axis=1)]
        if len(known) > 1:
            low, high = known.min(axis=0), known.max(axis=0)
            centre = (low + high) / 2
            scale = _log_uniform(rng, EXTENTS) * size[0] / max(1.0, float((high - low).max()))
    angle = float(rng.normal(0.0, 0.08))
    stretch = np.exp(rng.normal(0.0, 0.04, 2)) * scale
    mirrored = bool(rng.random() < 0.5)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.diag(stretch) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    target = np.array([size[1], size[0]]) * rng.uniform(0.2, 0.8, 2)
    return np.column_stack([linear, target - linear @ centre]), angle, mirrored


def _log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))


def _blocks(image: Array, rng: np.random.Generator) -> Array:
    """Hide parts of the picture behind blocks of one colour, or of another part of it."""
    if rng.random() > 0.3:
        return image
    height, width = image.shape[:2]
    for _ in range(rng.integers(1, 4)):
        h, w = rng.integers(8, height // 3), rng.integers(8, width // 3)
        y, x = rng.integers(0, height - h), rng.integers(0, width - w)
        if rng.random() < 0.5:
            image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
        else:
            v, u = rng.integers(0, height - h), rng.integers(0, width - w)
            image[y : y + h, x : x + w] = image[v : v + h, u : u + w].copy()
    return image


def _colours(image: Array, rng: np.random.Generator) -> Array:
    levels = np.arange(256) / 255.0
    gain = rng.uniform(0.7, 1.3) * rng.uniform(0.88, 1.12, 3)
    offset = rng.uniform(-0.08, 0.08)
    gamma = float(np.exp(rng.uniform(-0.35, 0.35)))
    table = np.clip(levels[:, None] ** gamma * gain + offset, 0, 1) * 255
    image = cv2.LUT(image, table.astype(np.uint8)[None])
    if rng.random() < 0.4:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        share = float(rng.uniform(0.0, 1.0))
        image = cv2.addWeighted(image, 1 - share, grey, share, 0)
    if rng.random() < 0.2:
        image = np.ascontiguousarray(image[:, :, rng.permutation(3)])
    return image


def _damage(image: Array, rng: np.random.Generator) -> Array:
    if rng.random() < 0.25:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.6)))
    if rng.random() < 0.2:
        height, width = image.shape[:2]
        share = rng.uniform(0.4, 0.8)
        less = cv2.resize(image, (round(width * share), round(height * share)))
        image = cv2.resize(less, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.4:
        rows = rng.integers(0, len(_NOISE), image.shape[0])
        noise = _NOISE[rows, : image.shape[1]] * np.float32(rng.uniform(1.0, 12.0))
        image = cv2.add(image, noise, dtype=cv2.CV_8U)
    if rng.random() < 0.2:
        quality = int(rng.integers(20, 70))
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return image
