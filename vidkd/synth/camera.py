"""A pinhole camera: x right, y down, z forward, as OpenCV has it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Camera:
    """Position and lens of one video's camera.

    The camera's shake moves the image as a whole, which is exactly a shift of the principal point;
    so the projection stays a pinhole in every frame.
    """

    width: int
    height: int
    focal: float
    """Focal length in pixels."""
    rotation: Array
    """(3, 3) world to camera."""
    position: Array
    """(3,) in the world, metres."""

    @classmethod
    def looking(
        cls, width: int, height: int, focal: float, position: Array, target: Array, roll: float
    ) -> Camera:
        """Return a camera at ``position`` that has ``target`` in the middle of its image."""
        ahead = target - position
        ahead = ahead / np.linalg.norm(ahead)
        right = np.cross(ahead, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        down = np.cross(ahead, right)
        turned = np.cos(roll) * right + np.sin(roll) * down
        rotation = np.stack([turned, np.cross(ahead, turned), ahead])
        return cls(width, height, focal, rotation, np.asarray(position, dtype=np.float64))

    @property
    def centre(self) -> Array:
        """The principal point in pixels; the middle of pixel (0, 0) has coordinates (0, 0)."""
        return np.array([(self.width - 1) / 2, (self.height - 1) / 2])

    def to_camera(self, points: Array) -> Array:
        """Bring world points (..., 3) to camera coordinates in metres."""
        return np.asarray((points - self.position) @ self.rotation.T)

    def project(self, points: Array, shift: Array | float = 0.0) -> Array:
        """Project points in camera coordinates (..., 3) to pixels (..., 2)."""
        depth = np.maximum(points[..., 2:3], 1e-6)
        return np.asarray(self.focal * points[..., :2] / depth + self.centre + shift)

    def intrinsics(self, shift: Array) -> Array:
        """Return the matrices (..., 3, 3) of frames whose image is shifted by (..., 2) pixels."""
        matrix = np.zeros((*shift.shape[:-1], 3, 3))
        matrix[..., 0, 0] = matrix[..., 1, 1] = self.focal
        matrix[..., :2, 2] = self.centre + shift
        matrix[..., 2, 2] = 1.0
        return matrix

    def world_to_camera(self) -> Array:
        """Return the rigid motion (4, 4) from world to camera coordinates."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.rotation
        matrix[:3, 3] = -self.rotation @ self.position
        return matrix
