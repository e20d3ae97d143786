"""The picture of the place in which people act, with its depth, rendered once per video."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vidkd.synth.camera import Camera
from vidkd.synth.furniture import Workshop
from vidkd.synth.materials import Palette
from vidkd.synth.part import Part
from vidkd.synth.places import Setting, furnish
from vidkd.synth.raster import FAR, cast, paint, shadow
from vidkd.synth.shapes import Builder, prepare

Array = np.ndarray


@dataclass
class Background:
    """The picture behind the people, larger than the video's by ``margin`` on every side."""

    image: Array
    """(h, w, 3) float32 RGB in 0..1."""
    depth: Array
    """(h, w) float32 metres along the camera's axis."""
    ground: Array
    """(h, w, 2) float32 floor point, NaN where the floor is hidden."""
    margin: int


def draw_background(
    rng: np.random.Generator, setting: Setting, camera: Camera, parts: list[Part], margin: int
) -> Background:
    """Furnish the place and render it without people.

    Args:
        rng: decides on everything that is not given.
        setting: the kind of place.
        camera: where from.
        parts: whose chairs stand in the scene.
        margin: pixels by which the picture is larger on every side.
    """
    palette, builder = Palette(), Builder(1)
    shop = Workshop(builder, palette, rng)
    floors = furnish(shop, setting)
    for part in parts:
        if part.chair is not None:
            shop.stand(*part.chair)
            shop.chair(int(rng.choice(3, p=[0.5, 0.25, 0.25])))
    finer = 2
    large = Camera(
        finer * (camera.width + 2 * margin),
        finer * (camera.height + 2 * margin),
        finer * camera.focal,
        camera.rotation,
        camera.position,
    )
    seen = prepare(builder.solids(), large, np.zeros((1, 2)))
    depth = np.full((large.height, large.width), FAR, dtype=np.float32)
    number = np.full((large.height, large.width), -1, dtype=np.int32)
    cx, cy = large.centre
    solids = (seen.kind, seen.turn[0], seen.eye[0], seen.size[0])
    cast(*solids, seen.bounds[0], large.focal, cx, cy, 1, depth, number, 0)
    image = _sky(rng, setting, large)
    table = palette.table()
    light = setting.light.table(camera)
    paint(*solids, seen.material, table, light, large.focal, cx, cy, 1, depth, number, image)
    image = cv2.resize(image, None, fx=1 / finer, fy=1 / finer, interpolation=cv2.INTER_AREA)
    number, depth = number[::finer, ::finer], np.ascontiguousarray(depth[::finer, ::finer])
    ground = _ground(camera, depth, np.isin(number, floors), margin)
    marks = np.array(
        [(x, y, x, y, 0.8 * r, 0.25 + 0.3 * r, 0.5) for x, y, r in shop.footprints]
    ).reshape(-1, 7)
    if not setting.outdoor:
        left, right, back = -setting.left, setting.right, setting.back
        edges = [
            (left, back, right, back, 0.1, 0.5, 0.4),
            (left, -4.0, left, back, 0.1, 0.5, 0.35),
            (right, -4.0, right, back, 0.1, 0.5, 0.35),
        ]
        marks = np.concatenate([marks, np.array(edges)])
    if len(marks):
        shadow(image, ground, 0.0, 0.0, marks, 0.9)
    return Background(image, depth, ground, margin)


def _ground(camera: Camera, depth: Array, floor: Array, margin: int) -> Array:
    rows, columns = np.indices(depth.shape, dtype=np.float64)
    cx, cy = camera.centre + margin
    rays = np.stack(
        [(columns - cx) / camera.focal, (rows - cy) / camera.focal, np.ones_like(rows)], axis=-1
    )
    world = camera.position + (rays * np.minimum(depth, 1e3)[..., None]) @ camera.rotation
    return np.where(floor[..., None], world[..., :2], np.nan).astype(np.float32)


def _sky(rng: np.random.Generator, setting: Setting, camera: Camera) -> Array:
    image = np.zeros((camera.height, camera.width, 3), dtype=np.float32)
    if not setting.outdoor:
        return image
    slope = (np.arange(camera.height) - camera.centre[1]) / camera.focal
    rays = np.stack([np.zeros_like(slope), slope, np.ones_like(slope)], axis=-1)
    world = rays @ camera.rotation
    high = np.clip(world[:, 2] / np.linalg.norm(world, axis=-1), 0.0, 1.0)[:, None]
    grey = float(rng.uniform(0.0, 0.8))
    zenith = np.array([0.35, 0.55, 0.9]) * (1 - grey) + np.array([0.72, 0.75, 0.8]) * grey
    horizon = np.array([0.85, 0.9, 0.95])
    image[:] = (horizon + (zenith - horizon) * np.sqrt(high))[:, None, :]
    clouds: Array = rng.random((6, 8)).astype(np.float32)
    clouds = cv2.resize(clouds, (camera.width, camera.height), interpolation=cv2.INTER_CUBIC)
    return image + 0.12 * np.clip(clouds - 0.5, 0, 1)[..., None]
