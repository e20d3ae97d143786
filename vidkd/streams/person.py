"""RGB cut around the main person, whom the shipped pose detector finds in the frames themselves.

A crop from the middle of a wide view loses who stands at its edge, and shows everybody else small.
Here the encoder sees the person as large as its input allows, and goes along with who walks.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vidkd.cache import Source
from vidkd.errors import WeightsError
from vidkd.recipe import SnippetSettings, pose_detector_cards
from vidkd.recipe.models import DEFAULT_DETECTOR
from vidkd.streams.base import Stream, VideoJob
from vidkd.video import Frame, Snippet, cut_snippets

if TYPE_CHECKING:
    from vidkd.pose.detector import PersonPose, PoseDetector

LOOK_EVERY = 4
"""Frames of a snippet for each one in which people are looked for."""
MARGIN = 1.3
"""Side of the square in extents of the person's joints."""
STEP = 1.5
"""How far somebody may get from one look to the next, in sides of their square."""
SHAKE = 0.1
"""How far the square is moved at most while an encoder is trained, in sides."""
_TOGETHER = 4
"""Snippets in which people are looked for at once: the detector takes up to a quarter longer for
few pictures at a time."""
_KEPT = 64 * _TOGETHER
"""Looks: those of so many of the longest snippets."""


@dataclass(frozen=True)
class RgbPerson(Stream):
    """A square that follows the main person of a snippet, resized to the encoder's input.

    People are looked for in the middle of every four frames. Whoever is found with the highest
    score times area is the main person, and is followed from there to both sides, to who is
    nearest in the next look. The square has the size of the largest look, and in between and
    beyond its middle moves on a straight line. Where nobody is found, it is the largest square in
    the middle of the frame. Nothing but the snippet's own frames counts, so that live video and
    files agree.

    Attributes:
        device: where people are looked for: ``cpu``, ``cuda`` or ``cuda:N``.
    """

    device: str = "cpu"

    name = "rgb-person"
    label = "RGB person"
    from_rgb = True
    enlarges = True

    @property
    def contents(self) -> str:
        """What it is made of, in a sentence."""
        return "RGB around the person"

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

    def snippets(
        self, rows: Iterable[Frame], snippet: SnippetSettings, crop: int | None
    ) -> Iterator[Snippet]:
        """Cut frames into snippets, and out of their pictures the person."""
        cut = cut_snippets(rows, snippet)
        while group := list(itertools.islice(cut, _TOGETHER)):
            if crop is not None:  # `crop` asks again and gets what is found here
                looks = [item.frames[look] for item in group for look in _looks(item.frames)]
                people_in(looks, self.device)
            yield from (replace(item, frames=self.seen(item.frames, crop)) for item in group)

    def crop(
        self,
        images: np.ndarray,
        size: int,
        place: tuple[float, float] | None = None,
    ) -> np.ndarray:
        """Cut frames (T, H, W, 3) uint8 around the person: (T, size, size, 3)."""
        looks = _looks(images)
        found = people_in([images[look] for look in looks], self.device)
        followed = squares(dict(zip(looks, found, strict=True)), len(images))
        corners, side = followed or _middle(images)
        if place is not None:
            corners = corners + SHAKE * side * (2 * np.array(place) - 1)
        return cut_squares(images, corners, side, size)


def _looks(images: np.ndarray) -> list[int]:
    """Return the numbers of the frames of a snippet in which people are looked for."""
    count = max(1, round(len(images) / LOOK_EVERY))
    looks: list[int] = ((np.arange(count) + 0.5) * len(images) / count).astype(int).tolist()
    return looks


def _middle(images: np.ndarray) -> tuple[np.ndarray, float]:
    height, width = images.shape[1:3]
    side = float(min(height, width))
    return np.tile([(width - side) / 2, (height - side) / 2], (len(images), 1)), side


def person_settings() -> dict[str, Any]:
    """Return what decides where a square lies, as JSON values."""
    return {
        "detector": DEFAULT_DETECTOR,
        "weights_sha256": pose_detector_cards()[DEFAULT_DETECTOR].weights_sha256,
        "look_every": LOOK_EVERY,
        "margin": MARGIN,
        "step": STEP,
    }


def squares(
    looks: Mapping[int, Sequence[PersonPose]], length: int
) -> tuple[np.ndarray, float] | None:
    """Return where the square around the main person is in each frame.

    Args:
        looks: the people found, by the number of the frame, rising.
        length: number of frames T.

    Returns:
        Left and top edge in pixels (T, 2), and the side; None where nobody was found.
    """
    people = [(frame, person) for frame, found in looks.items() for person in found]
    if not people:
        return None
    first, main = max(people, key=lambda item: _weight(item[1]))
    own = {first: _square(main)}
    frames = list(looks)
    place = frames.index(first)
    for way in (frames[place + 1 :], frames[:place][::-1]):
        last = own[first]
        for frame in way:
            near = [item for item in map(_square, looks[frame]) if _apart(item, last) <= STEP]
            if near:
                own[frame] = last = min(near, key=lambda item: _apart(item, last))
    side = max(item[2] for item in own.values())
    at = sorted(own)
    middles = np.array([own[frame][:2] for frame in at])
    return _line(np.array(at), middles, length) - side / 2, side


def _weight(person: PersonPose) -> float:
    return float(person.score * np.prod(np.maximum(person.box[2:] - person.box[:2], 0)))


def _square(person: PersonPose) -> tuple[float, float, float]:
    """Return the middle of what a person's joints cover, and ``MARGIN`` times its longer side."""
    low, high = person.joints_2d.min(axis=0), person.joints_2d.max(axis=0)
    # Middles of pixels are whole numbers; edges begin at 0, half a pixel before the first.
    x, y = (low + high + 1) / 2
    return float(x), float(y), max(MARGIN * float((high - low).max()), 1.0)


def _apart(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """Return the distance of two squares' middles, in sides of the larger."""
    return float(np.hypot(one[0] - other[0], one[1] - other[1])) / max(one[2], other[2])


def _line(at: np.ndarray, middles: np.ndarray, length: int) -> np.ndarray:
    """Return the points (T, 2) of a path through given ones, straight between and beyond them."""
    wanted = np.arange(length)
    if len(at) == 1:
        return np.repeat(middles, length, axis=0)
    before = np.clip(np.searchsorted(at, wanted, side="right") - 1, 0, len(at) - 2)
    share = (wanted - at[before]) / (at[before + 1] - at[before])
    return middles[before] + share[:, None] * (middles[before + 1] - middles[before])


def cut_squares(images: np.ndarray, corners: np.ndarray, side: float, size: int) -> np.ndarray:
    """Cut a square out of each frame (T, H, W, C) and resize it: (T, size, size, C).

    Args:
        images: uint8.
        corners: left and top edges (T, 2) in pixels; beyond the frame its edge is repeated.
        side: in pixels.
        size: of the result.
    """
    import cv2

    # Bilinear interpolation looks at two pixels: larger squares are shrunk by areas first.
    shrink = max(1, int(side / size / 1.5))
    if shrink > 1:
        height, width = images.shape[1] // shrink, images.shape[2] // shrink
        kept = images[:, : height * shrink, : width * shrink]
        images = np.stack(
            [cv2.resize(item, (width, height), interpolation=cv2.INTER_AREA) for item in kept]
        )
        corners, side = corners / shrink, side / shrink
    scale = size / side
    return np.stack(
        [
            cv2.warpAffine(
                image,
                np.array(
                    [
                        [scale, 0, (0.5 - left) * scale - 0.5],
                        [0, scale, (0.5 - top) * scale - 0.5],
                    ]
                ),
                (size, size),
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            for image, (left, top) in zip(images, corners, strict=True)
        ]
    )


_lock = threading.Lock()
_seen: OrderedDict[tuple[bytes, str], list[PersonPose]] = OrderedDict()


def people_in(images: Sequence[np.ndarray], device: str) -> list[list[PersonPose]]:
    """Return the people in frames; those in the last few frames are known already.

    Snippets overlap, and which frame is which only its pixels say.
    """
    keys = [
        (hashlib.blake2b(image.data, digest_size=16).digest() + repr(image.shape).encode(), device)
        for image in images
    ]
    with _lock:
        found = {key: _seen[key] for key in keys if key in _seen}
    new = {key: image for key, image in zip(keys, images, strict=True) if key not in found}
    if new:
        found |= zip(new, _detector(device)(list(new.values())), strict=True)
    with _lock:
        _seen.update(found)
        while len(_seen) > _KEPT:
            _seen.popitem(last=False)
    return [found[key] for key in keys]


@functools.cache
def _detector(device: str) -> PoseDetector:
    from vidkd.pose.detector import load_pose_detector

    return load_pose_detector(DEFAULT_DETECTOR, device)
