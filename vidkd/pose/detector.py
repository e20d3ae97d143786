"""What a pose detector gives: people with 13 joints in 2D and 3D."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class PersonPose:
    """One person in one image; joints in the order of :data:`vidkd.pose.joints.JOINTS`.

    Attributes:
        box: (4,) x0, y0, x1, y1 in pixels of the given image; the middle of the first pixel is
            (0, 0).
        joints_2d: (13, 2) pixels of the given image.
        joints_3d: (13, 3) metres relative to the middle of the hips; x right, y down, z away from
            the camera.
        scores: (13,) confidence of each joint, in [0, 1].
        score: confidence of the person, in [0, 1].
    """

    box: Array
    joints_2d: Array
    joints_3d: Array
    scores: Array
    score: float


class PoseDetector(Protocol):
    """Anything that finds people and their poses in images."""

    name: str
    weights_sha256: str
    """Identifies what computed a pose, for the provenance of caches."""

    def __call__(self, images: Sequence[Array]) -> list[list[PersonPose]]:
        """Return the people of each image (H, W, 3) uint8 RGB, best first."""
        ...
