"""RGB cut around the main person, whom the shipped pose detector finds in the frames themselves.

A crop from the middle of a wide view loses who stands at its edge, and shows everybody else small.
Here the encoder sees the person as large as its input allows, whatever the camera sees besides.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vidkd.cache import Source
from vidkd.errors import WeightsError
from vidkd.recipe import FrameSettings, ModelCard, SnippetSettings, pose_detector_cards
from vidkd.streams.base import Stream, VideoJob

if TYPE_CHECKING:
    from vidkd.pose.detector import PersonPose, PoseDetector

DETECTOR = "lcrnet-small"
LOOK_EVERY = 8
"""Frames of a snippet for each one in which people are looked for."""
MARGIN = 1.3
"""Side of the square in extents of the person's joints."""
SHAKE = 0.1
"""How far the square is moved at most while an encoder is trained, in sides."""
_KEPT = 64


@dataclass(frozen=True)
class RgbPerson(Stream):
    """A square around the person who is largest in the snippet, resized to the encoder's input.

    It is the same for all frames of a snippet, so that what moves in it is the person. People are
    looked for in the middle frame of every eighth of them, and whoever is found with the highest
    score times area is the one; in the other looks it is the person whose box overlaps that one's
    most. Where nobody is found, the largest square in the middle of the frame is taken. Nothing
    but the snippet's own frames counts, so that live video and files agree.

    Attributes:
        device: where people are looked for: ``cpu``, ``cuda`` or ``cuda:N``.
    """

    device: str = "cpu"

    name = "rgb-person"
    label = "RGB person"
    from_rgb = True

    @property
    def contents(self) -> str:
        """What it is made of, in a sentence."""
        return "RGB around the person"

    def check(
        self, card: ModelCard, frames: FrameSettings, crop: int, snippet: SnippetSettings
    ) -> None:
        """Refuse encoders of another stream or other clips; frames may be smaller than the crop."""
        super().check(card, frames.model_copy(update={"short_side": crop}), crop, snippet)

    def provenance(self, job: VideoJob, source: Source) -> dict[str, Any]:
        """Return who looks for people, and how the square is laid."""
        return {"person": person_settings()}

    def asked(self, recipe: Any) -> dict[str, Any]:
        """Return what a recipe wants its features to be made with."""
        return {**super().asked(recipe), "person": person_settings()}

    def found(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """Return what features were made with."""
        return {**super().found(made), "person": made.get("person")}

    def uncached(self, made: Mapping[str, Any], device: str) -> Stream:
        """Return the stream as it was in training.

        Raises:
            WeightsError: this version looks for people otherwise.
        """
        if made.get("person") not in (None, person_settings()):
            raise WeightsError(
                "was trained on people whom another version of vidkd found otherwise",
                remedy="install the vidkd that extracted the features, or extract and train again",
            )
        return self.on(device)

    def on(self, device: str) -> Stream:
        """Return the stream that looks for people on a device."""
        return RgbPerson(device)

    def crop(
        self,
        images: np.ndarray,
        size: int,
        place: tuple[float, float] | None = None,
    ) -> np.ndarray:
        """Cut frames (T, H, W, 3) uint8 around the person: (T, size, size, 3)."""
        count = max(1, round(len(images) / LOOK_EVERY))
        looks = ((np.arange(count) + 0.5) * len(images) / count).astype(int)
        around = square([people_in(images[look], self.device) for look in looks])
        height, width = images.shape[1:3]
        if around is None:
            side = float(min(height, width))
            around = (width - side) / 2, (height - side) / 2, side
        left, top, side = around
        if place is not None:
            left += SHAKE * side * (2 * place[0] - 1)
            top += SHAKE * side * (2 * place[1] - 1)
        return cut_square(images, left, top, side, size)


def person_settings() -> dict[str, Any]:
    """Return what decides where a square lies, as JSON values."""
    return {
        "detector": DETECTOR,
        "weights_sha256": pose_detector_cards()[DETECTOR].weights_sha256,
        "look_every": LOOK_EVERY,
        "margin": MARGIN,
    }


def square(looks: Sequence[Sequence[PersonPose]]) -> tuple[float, float, float] | None:
    """Return left, top and side in pixels of the square around the main person of some looks.

    It has the middle of all that the person's joints cover, and ``MARGIN`` times its longer side.
    None where nobody was found.
    """
    from vidkd.pose.tracks import box_iou

    def weight(person: PersonPose) -> float:
        return float(person.score * np.prod(np.maximum(person.box[2:] - person.box[:2], 0)))

    people = [person for look in looks for person in look]
    if not people:
        return None
    main = max(people, key=weight)
    own = [main.joints_2d]
    for look in looks:
        if any(person is main for person in look):
            continue
        nearest = max(look, key=lambda person: box_iou(person.box, main.box), default=None)
        if nearest is not None and box_iou(nearest.box, main.box) > 0:
            own.append(nearest.joints_2d)
    joints = np.concatenate(own)
    low, high = joints.min(axis=0), joints.max(axis=0)
    side = max(MARGIN * float((high - low).max()), 1.0)
    # Middles of pixels are whole numbers, their edges half a pixel off.
    left, top = (low + high + 1 - side) / 2
    return float(left), float(top), side


def cut_square(images: np.ndarray, left: float, top: float, side: float, size: int) -> np.ndarray:
    """Cut a square out of frames (T, H, W, C) and resize it to (T, size, size, C).

    It is rounded to whole pixels; beyond the frame its edge is repeated.
    """
    import cv2

    height, width = images.shape[1:3]
    x, y, whole = round(left), round(top), max(1, round(side))
    columns = np.clip(np.arange(x, x + whole), 0, width - 1)
    rows = np.clip(np.arange(y, y + whole), 0, height - 1)
    if min(x, y) >= 0 and x + whole <= width and y + whole <= height:
        cuts = images[:, y : y + whole, x : x + whole]
    else:
        cuts = images[:, rows[:, None], columns]
    how = cv2.INTER_AREA if whole > size else cv2.INTER_LINEAR
    return np.stack([cv2.resize(cut, (size, size), interpolation=how) for cut in cuts])


_lock = threading.Lock()
_seen: OrderedDict[tuple[bytes, str], list[PersonPose]] = OrderedDict()


def people_in(image: np.ndarray, device: str) -> list[PersonPose]:
    """Return the people in a frame; those of the last few frames are known already.

    Snippets overlap, and which frame is which only its pixels say.
    """
    key = hashlib.blake2b(image.data, digest_size=16).digest() + repr(image.shape).encode(), device
    with _lock:
        if key in _seen:
            return _seen[key]
    [found] = _detector(device)([image])
    with _lock:
        _seen[key] = found
        while len(_seen) > _KEPT:
            _seen.popitem(last=False)
    return found


@functools.cache
def _detector(device: str) -> PoseDetector:
    from vidkd.pose.detector import load_pose_detector

    return load_pose_detector(DETECTOR, device)
