"""The pose detector: pictures in, people with 13 joints in 2D and 3D out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from vidkd.errors import UsageError, WeightsError
from vidkd.files import resources
from vidkd.hub import resolved
from vidkd.networks.device import in_turn, select_device
from vidkd.networks.lcrnet import DIVISOR, LCRNet, PoseNetSettings, Regions, with_weights
from vidkd.networks.stored import header_of
from vidkd.networks.weights import (
    checked_sha256,
    load_weights,
    save_weights,
    state_sha256,
    without_counts,
)
from vidkd.pose.anchors import person_box
from vidkd.pose.proposals import LEAST_SCORE, Person, integrate
from vidkd.recipe import pose_detector_cards
from vidkd.recipe.models import DEFAULT_DETECTOR
from vidkd.skeletons import root

Array = np.ndarray

DETECTOR_FILE = "detector.safetensors"
"""The weights in a run folder of ``vidkd pose train``."""
NETWORK = "lcrnet"
LEAST_PERSON_SCORE = 0.5
"""People are reported whose probability is at least this; see ``docs/pose.md`` for its choice."""
_SPREAD = 0.1
"""Disagreement of proposals about a joint, in box heights, that divides its confidence by e."""
_OUTSIDE = 0.25
"""What the confidence of a joint outside the picture is multiplied by."""


@dataclass(frozen=True)
class PersonPose:
    """One person in one image; joints in the order of :data:`vidkd.skeletons.JOINTS`."""

    box: Array
    """(4,) x0, y0, x1, y1 in pixels of the given image; the middle of the first pixel is (0, 0)."""
    joints_2d: Array
    """(13, 2) pixels of the given image."""
    joints_3d: Array
    """(13, 3) metres relative to the middle of the hips; x right, y down, z away from the
    camera."""
    scores: Array
    """(13,) confidence of each joint, in [0, 1]."""
    score: float
    """Confidence of the person, in [0, 1]."""


class PoseDetector:
    """LCR-Net++ as a detector: pictures in, people out.

    Name and hash of the weights are for provenance; people below ``least_score``, which may be set,
    are not reported. ``batch_size`` is the number of pictures of one size per call of the network.
    """

    def __init__(
        self,
        network: LCRNet,
        name: str,
        weights_sha256: str,
        device: torch.device,
    ) -> None:
        self.network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.name = name
        self.weights_sha256 = weights_sha256
        self.device = device
        self.least_score = LEAST_PERSON_SCORE
        # On a processor 2 to 8 at once gave the same to the last bit, 8 of them the fastest.
        self.batch_size = 8 if device.type == "cpu" else 32

    def __call__(self, images: Sequence[Array]) -> list[list[PersonPose]]:
        """Return the people of each image (H, W, 3) uint8 RGB, best first."""
        result: list[list[PersonPose]] = [[] for _ in images]
        shapes: dict[tuple[int, ...], list[int]] = {}
        for number, image in enumerate(images):
            shapes.setdefault(image.shape, []).append(number)
        for shape, numbers in shapes.items():
            for start in range(0, len(numbers), self.batch_size):
                batch = numbers[start : start + self.batch_size]
                inputs, size = prepare([images[i] for i in batch], self.network.settings)
                with in_turn(self.device):
                    found = self.network(inputs.to(self.device), [size] * len(batch))
                for number, regions in zip(batch, found, strict=True):
                    result[number] = self._people(regions, size, (shape[0], shape[1]))
        return result

    def _people(
        self, regions: Regions, size: tuple[int, int], original: tuple[int, int]
    ) -> list[PersonPose]:
        scale = np.array([original[1] / size[1], original[0] / size[0]], np.float32)
        probability = regions.scores.cpu().numpy()
        region, anchor = np.nonzero(probability >= LEAST_SCORE / probability.shape[1])
        # Corners of pictures are at -0.5: the middle of the first pixel is (0, 0) in both.
        poses_2d = (regions.poses_2d.cpu().numpy()[region, anchor] + 0.5) * scale - 0.5
        poses_3d = regions.poses_3d.cpu().numpy()[region, anchor]
        scores = probability[region, anchor]
        upper = anchor >= self.network.settings.full
        boxes = (regions.boxes.cpu().numpy()[region].reshape(-1, 2, 2) + 0.5) * scale - 0.5
        people = []
        for person in integrate(poses_2d, poses_3d, scores, upper, original):
            own = person.members
            # The summed score grows with the number of regions on a person; the probability that
            # the best region gives to this pose is comparable between pictures.
            score = float(np.bincount(region[own], scores[own]).max())
            if score < self.least_score:
                continue
            weights = scores[own] / scores[own].sum()
            box = (weights[:, None] * boxes[own].reshape(-1, 4)).sum(axis=0)
            # The joints are regressed once more than the regions, so that they say more.
            around = person_box(person.joints_2d, np.ones(len(person.joints_2d)), original)
            box = box if around is None else around[0]
            people.append(
                PersonPose(
                    box=box.astype(np.float32),
                    joints_2d=person.joints_2d.astype(np.float32),
                    joints_3d=(person.joints_3d - root(person.joints_3d)).astype(np.float32),
                    scores=joint_scores(person, poses_2d[own], weights, box, original, score),
                    score=min(1.0, score),
                )
            )
        return sorted(people, key=lambda item: -item.score)


def load_pose_detector(
    name_or_file: str | Path = DEFAULT_DETECTOR, device: str = "auto"
) -> PoseDetector:
    """Load a pose detector.

    Args:
        name_or_file: the name of one that travels with the package, a run folder of
            ``vidkd pose train``, the weights file in it, or a model of the hub.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError: there is no such detector or device.
        WeightsError: its file is damaged, or of another network.
    """
    target = select_device(device)
    path = detector_file(name_or_file)
    network, header = load_network(path)
    digest = str(header["weights_sha256"])
    card = pose_detector_cards().get(str(name_or_file))
    if card is not None and digest != card.weights_sha256:
        raise WeightsError(
            "holds other weights than its card says", path=path, remedy="install vidkd again"
        )
    return PoseDetector(network, str(header["card"]), digest, target)


def detector_file(name_or_file: str | Path) -> Path:
    """Return the weights file of a detector, given as for :func:`load_pose_detector`.

    Raises:
        UsageError: there is no such detector.
    """
    cards = pose_detector_cards()
    card = cards.get(str(name_or_file))
    if card is not None:
        return resources("models") / card.file
    path = resolved(name_or_file)
    path = path / DETECTOR_FILE if path.is_dir() else path
    if path.is_file():
        return path
    known = ", ".join(cards) or "none"
    raise UsageError(
        f"there is no pose detector {str(name_or_file)!r}",
        remedy=f"give a run folder of `vidkd pose train`, its file, or one of: {known}",
    )


def joint_scores(
    person: Person,
    poses_2d: Array,
    weights: Array,
    box: Array,
    size: tuple[int, int],
    score: float,
) -> Array:
    """Return the confidence (13,) of each joint: the person's, less where the proposals disagree.

    LCR-Net++ gives none. The weighted spread of the proposals is a substitute that orders joints
    by their errors, no probability; joints outside the picture count for less.
    """
    apart = ((poses_2d - person.joints_2d) ** 2).sum(axis=-1)
    spread = np.sqrt((weights[:, None] * apart).sum(axis=0)) / max(1.0, float(box[3] - box[1]))
    inside = ((person.joints_2d >= -0.5) & (person.joints_2d <= np.array(size[::-1]) - 0.5)).all(-1)
    values = min(1.0, score) * np.exp(-spread / _SPREAD) * np.where(inside, 1.0, _OUTSIDE)
    return values.astype(np.float32)


def prepare(images: Sequence[Array], settings: PoseNetSettings) -> tuple[Tensor, tuple[int, int]]:
    """Resize images of one shape to what the network sees, and pad them.

    Returns:
        (N, 3, H, W) float32 in [0, 255] with H and W multiples of the network's largest stride,
        and the height and width without the padding.
    """
    height, width = images[0].shape[:2]
    scale = settings.short_side / min(height, width)
    scale = min(scale, settings.long_side / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    divisor = DIVISOR if settings.backbone == "inception" else 2 * DIVISOR
    padded = tuple(-(-side // divisor) * divisor for side in size)
    batch = np.empty((len(images), *padded, 3), np.uint8)
    batch[:] = np.asarray(settings.mean).astype(np.uint8)
    for row, image in zip(batch, images, strict=True):
        how = cv2.INTER_AREA if scale < 0.6 else cv2.INTER_LINEAR
        row[: size[0], : size[1]] = (
            image if size == (height, width) else cv2.resize(image, size[::-1], interpolation=how)
        )
    return torch.from_numpy(batch).permute(0, 3, 1, 2).float(), size


def save_network(
    path: Path, network: LCRNet, name: str, about: dict[str, Any], *, half: bool = True
) -> str:
    """Write a network as safetensors with its settings; return the hash of the weights.

    ``about`` are further keys of the header: training data, validation. ``half``: in float16.

    Raises:
        VidkdError: the file cannot be written.
    """
    state: dict[str, Tensor] = {}
    for key, value in without_counts(network.state_dict()).items():
        # Statistics of the normalisation span more orders of magnitude than float16 has.
        keep = not half or key.endswith(("running_mean", "running_var"))
        state[key] = value.detach().cpu().float() if keep else value.detach().cpu().half()
    digest = state_sha256(state)
    header = {
        "format": 1,
        "network": NETWORK,
        "card": name,
        "settings": network.settings.model_dump(mode="json"),
        "weights_sha256": digest,
        **about,
    }
    save_weights(path, state, header)
    return digest


def load_network(path: Path) -> tuple[LCRNet, dict[str, Any]]:
    """Read what :func:`save_network` wrote, as float32 on the CPU, with its header.

    Raises:
        WeightsError: the file is missing, damaged, or of another network.
    """
    state, header = load_weights(path)
    remedy = "give a file that `vidkd pose train` wrote"
    if header["network"] != NETWORK:
        raise WeightsError(
            f"holds the network {header['network']!r}, no pose detector", path=path, remedy=remedy
        )
    settings = header_of(PoseNetSettings, header.get("settings"), path, remedy)
    checked_sha256(state, header, path, "copy or train it again")
    state = {name: value.float() for name, value in state.items()}
    return with_weights(settings, state, path), header
