"""The solids everything is made of: tapered capsules and boxes, squeezed and turned at will."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from vidkd.synth.camera import Camera

Array = np.ndarray

CAPSULE, BOX = 0, 1


@dataclass
class Solids:
    """``p`` solids in each of ``n`` instants.

    In its own coordinates a capsule runs along z from a sphere of radius ``size[1]`` at the origin
    to one of ``size[2]`` at z = ``size[0]``; a box spans plus and minus ``size``. ``frame`` columns
    are the solid's axes in the world, ``squeeze`` scales x and y, ``origin`` is its origin.
    """

    kind: Array
    """(p,) CAPSULE or BOX."""
    frame: Array
    """(n, p, 3, 3)."""
    origin: Array
    """(n, p, 3)."""
    squeeze: Array
    """(p, 2)."""
    size: Array
    """(n, p, 3)."""
    material: Array
    """(p,) row of the table of materials."""
    shown: Array
    """(n, p) bool."""

    @classmethod
    def join(cls, parts: list[Solids]) -> Solids:
        """Put the solids of several lists into one."""
        across = {"frame", "origin", "size", "shown"}
        return cls(
            **{
                name: np.concatenate(
                    [getattr(part, name) for part in parts], axis=1 if name in across else 0
                )
                for name in cls.__dataclass_fields__
            }
        )


class Builder:
    """Collects solids; every point may be (3,) for all instants or (n, 3)."""

    def __init__(self, instants: int) -> None:
        self.n = instants
        self._rows: list[tuple[int, Array, Array, tuple[float, float], Array, int, Array]] = []

    def capsule(
        self,
        start: Array,
        end: Array,
        radii: tuple[float, float],
        material: int,
        *,
        squeeze: tuple[float, float] = (1.0, 1.0),
        right: Array | None = None,
        shown: Array | None = None,
    ) -> None:
        """Add a tapered capsule from ``start`` to ``end``.

        Args:
            start: middle of the first sphere.
            end: middle of the second.
            radii: of both, in metres.
            material: row of the table of materials.
            squeeze: scale of the cross-section along ``right`` and across it.
            right: direction, (3,) or (n, 3); the component across the axis counts.
            shown: (n,) bool, when the solid is there.
        """
        start = np.broadcast_to(np.asarray(start, dtype=np.float64), (self.n, 3))
        end = np.broadcast_to(np.asarray(end, dtype=np.float64), (self.n, 3))
        axis = end - start
        length = np.linalg.norm(axis, axis=-1, keepdims=True)
        z = np.where(length > 1e-9, axis / np.maximum(length, 1e-9), [0.0, 0.0, 1.0])
        hint = np.array([1.0, 0.0, 0.0]) if right is None else right
        x = np.broadcast_to(hint, (self.n, 3))
        x = x - np.sum(x * z, axis=-1, keepdims=True) * z
        size = np.linalg.norm(x, axis=-1, keepdims=True)
        x = np.where(size > 1e-6, x / np.maximum(size, 1e-6), np.cross(z, [0.0, 0.6, 0.8]))
        frame = np.stack([x, np.cross(z, x), z], axis=-1)
        dims = np.concatenate([length, np.broadcast_to(np.array(radii), (self.n, 2))], axis=-1)
        self._add(CAPSULE, frame, start, squeeze, dims, material, shown)

    def ellipsoid(
        self, centre: Array, frame: Array, radii: tuple[float, float, float], material: int
    ) -> None:
        """Add an ellipsoid with radii along the columns of ``frame`` (3, 3) or (n, 3, 3)."""
        frame = np.broadcast_to(frame, (self.n, 3, 3))
        origin = np.broadcast_to(centre, (self.n, 3))
        dims = np.broadcast_to(np.array([0.0, radii[2], radii[2]]), (self.n, 3))
        squeeze = (radii[0] / radii[2], radii[1] / radii[2])
        self._add(CAPSULE, frame, origin, squeeze, dims, material, None)

    def box(
        self,
        centre: Array,
        half: tuple[float, float, float],
        material: int,
        *,
        frame: Array | None = None,
        shown: Array | None = None,
    ) -> None:
        """Add a box with half sizes along the columns of ``frame`` (3, 3) or (n, 3, 3)."""
        turned = np.broadcast_to(np.eye(3) if frame is None else frame, (self.n, 3, 3))
        origin = np.broadcast_to(np.asarray(centre, dtype=np.float64), (self.n, 3))
        dims = np.broadcast_to(np.array(half), (self.n, 3))
        self._add(BOX, turned, origin, (1.0, 1.0), dims, material, shown)

    def _add(
        self,
        kind: int,
        frame: Array,
        origin: Array,
        squeeze: tuple[float, float],
        size: Array,
        material: int,
        shown: Array | None,
    ) -> None:
        there = np.ones(self.n, dtype=bool) if shown is None else shown
        self._rows.append((kind, frame, origin, squeeze, size, material, there))

    def solids(self) -> Solids:
        """Return what was collected."""
        kind, frame, origin, squeeze, size, material, shown = zip(*self._rows, strict=True)
        return Solids(
            kind=np.array(kind, dtype=np.int64),
            frame=np.stack(frame, axis=1),
            origin=np.stack(origin, axis=1),
            squeeze=np.array(squeeze),
            size=np.stack(size, axis=1),
            material=np.array(material, dtype=np.int64),
            shown=np.stack(shown, axis=1),
        )


@dataclass
class Visible:
    """Solids as the ray caster needs them: maps from camera rays, and rectangles of pixels."""

    kind: Array
    turn: Array
    """(n, p, 3, 3) float64: camera directions to the solid's own coordinates."""
    eye: Array
    """(n, p, 3): the camera in the solid's own coordinates."""
    size: Array
    material: Array
    bounds: Array
    """(n, p, 4) int64: first and last column, first and last row (exclusive); may be empty."""


def prepare(
    solids: Solids, camera: Camera, shift: Array, scale: int = 1, margin: int = 0
) -> Visible:
    """Bring solids into the coordinates of ``camera``.

    Args:
        solids: n instants.
        camera: where from.
        shift: (n, 2) shift of the image in pixels.
        scale: samples per pixel along each axis.
        margin: pixels by which the picture is larger than the camera's on every side.
    """
    to_solid = np.swapaxes(solids.frame, -1, -2)
    squeeze = np.concatenate([solids.squeeze, np.ones((len(solids.squeeze), 1))], axis=1)
    to_solid = to_solid / squeeze[None, :, :, None]
    turn = to_solid @ camera.rotation.T
    eye = np.einsum("npij,npj->npi", to_solid, camera.position - solids.origin)

    half = np.where(solids.kind[None, :, None] == BOX, solids.size, 0.0)
    corners = np.stack(
        [
            solids.origin + np.einsum("npij,npj->npi", solids.frame, half * np.array(sign))
            for sign in itertools.product((-1, 1), repeat=3)
        ],
        axis=2,
    )
    ends = np.stack(
        [solids.origin, solids.origin + solids.frame[..., 2] * solids.size[..., :1]], axis=2
    )
    capsule = (solids.kind == CAPSULE)[None, :, None, None]
    ends = np.concatenate([ends, ends[:, :, :1].repeat(6, axis=2)], axis=2)
    points = camera.to_camera(np.where(capsule, ends, corners))
    widest = solids.size[..., 1:].max(axis=-1) * np.maximum(solids.squeeze.max(axis=-1), 1.0)
    radius = np.where(solids.kind == CAPSULE, widest, 0.0)[..., None]
    depth = points[..., 2]
    near = np.maximum(depth - radius, 0.05)
    pixel = camera.project(points, shift[:, None, None, :])
    reach = camera.focal * radius / near + 1.0
    low = pixel - reach[..., None] + margin
    high = pixel + reach[..., None] + margin
    # A solid that reaches behind the camera may cover anything.
    behind = (depth - radius < 0.1).any(axis=2)
    width, height = camera.width + 2 * margin, camera.height + 2 * margin
    bounds = np.empty((*depth.shape[:2], 4), dtype=np.int64)
    for axis, size in ((0, width), (1, height)):
        first = np.where(behind, 0, np.floor(low[..., axis].min(axis=2)))
        last = np.where(behind, size, np.ceil(high[..., axis].max(axis=2)) + 1)
        bounds[..., 2 * axis] = scale * np.clip(first, 0, size).astype(np.int64)
        bounds[..., 2 * axis + 1] = scale * np.clip(last, 0, size).astype(np.int64)
    bounds[~solids.shown | (depth + radius < 0.1).all(axis=2)] = 0
    return Visible(
        solids.kind,
        np.ascontiguousarray(turn),
        np.ascontiguousarray(eye),
        np.ascontiguousarray(solids.size),
        solids.material,
        bounds,
    )
