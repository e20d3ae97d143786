"""What a pose detector gives: people with 13 joints in 2D and 3D."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from vidkd.errors import UsageError, WeightsError
from vidkd.files import resources
from vidkd.recipe import pose_detector_cards

Array = np.ndarray

DEFAULT_DETECTOR = "lcrnet-small"
DETECTOR_FILE = "detector.safetensors"
"""The weights in a run folder of ``vidkd train-pose``."""


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
    least_score: float
    """People with a lower score are not reported; may be set."""

    def __call__(self, images: Sequence[Array]) -> list[list[PersonPose]]:
        """Return the people of each image (H, W, 3) uint8 RGB, best first."""
        ...


def load_pose_detector(
    name_or_file: str | Path = DEFAULT_DETECTOR, device: str = "auto"
) -> PoseDetector:
    """Load a pose detector.

    Args:
        name_or_file: the name of one that travels with the package, a run folder of
            ``vidkd train-pose``, or the weights file in it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError: there is no such detector or device.
        WeightsError: its file is damaged, or of another network.
    """
    from vidkd.networks.device import select_device
    from vidkd.pose.lcrnet_detector import LCRNetDetector, load_network

    target = select_device(device)
    path = detector_file(name_or_file)
    network, header = load_network(path)
    digest = str(header["weights_sha256"])
    card = pose_detector_cards().get(str(name_or_file))
    if card is not None and digest != card.weights_sha256:
        raise WeightsError(
            "holds other weights than its card says", path=path, remedy="install vidkd again"
        )
    return LCRNetDetector(network, str(header["card"]), digest, target)


def detector_file(name_or_file: str | Path) -> Path:
    """Return the weights file of a detector, given as for :func:`load_pose_detector`.

    Raises:
        UsageError: there is no such detector.
    """
    cards = pose_detector_cards()
    card = cards.get(str(name_or_file))
    if card is not None:
        return resources("models") / card.file
    path = Path(name_or_file)
    path = path / DETECTOR_FILE if path.is_dir() else path
    if path.is_file():
        return path
    known = ", ".join(cards) or "none"
    raise UsageError(
        f"there is no pose detector {str(name_or_file)!r}",
        remedy=f"give a run folder of `vidkd train-pose`, its file, or one of: {known}",
    )
