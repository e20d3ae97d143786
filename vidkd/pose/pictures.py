"""Labelled pictures in memory, compressed, and the batches that are drawn from them."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from vidkd.console import progress
from vidkd.errors import AnnotationError, VidkdError
from vidkd.pose.anchors import AnchorPoses, make_anchors, person_box, upper_box
from vidkd.pose.augment import augment, moved
from vidkd.pose.labels import LabelledFrame, LabelledPerson, load_pictures, read_labels
from vidkd.pose.losses import Targets, make_targets

Array = np.ndarray

_QUALITY = 95
_SHORT_SIDE = 1.5
"""Pictures are kept at this multiple of the network's short side, since some get enlarged."""
_SAMPLE = 20_000
"""Most poses that are clustered."""
_PAIRS = 0.5
"""Share of the training pictures that are two half pictures side by side."""
_AHEAD = 3
"""Batches prepared before they are asked for."""


@dataclass(frozen=True)
class LabelledPicture:
    """One picture as JPEG, with its people in its own pixels."""

    data: bytes
    people: tuple[LabelledPerson, ...]
    size: tuple[int, int]
    """Height and width."""

    def decode(self) -> Array:
        """Return the picture (H, W, 3) uint8 RGB."""
        bgr = np.asarray(cv2.imdecode(np.frombuffer(self.data, np.uint8), cv2.IMREAD_COLOR))
        return np.ascontiguousarray(bgr[:, :, ::-1])


@dataclass(frozen=True)
class PoseData:
    """What to train and to validate on."""

    sources: tuple[tuple[LabelledPicture, ...], ...]
    """The training pictures of each source."""
    validation: tuple[LabelledPicture, ...]
    """Pictures to validate on."""
    identity: str
    """Hash of all labels, which tells runs on other data apart."""

    @classmethod
    def load(
        cls, data: Sequence[Path], validation: Sequence[Path], short_side: int, most: int
    ) -> PoseData:
        """Read labels and pictures of sources into memory.

        Without ``validation``, every tenth video or picture of ``data`` is held out; at most
        ``most`` pictures, spread evenly, are validated on. ``short_side`` is the network's.

        Raises:
            AnnotationError: a source has no labels, broken ones, or none of people.
            VideoError: a video or picture cannot be read.
        """
        training = [read_labels(path) for path in data]
        held = [frame for path in validation for frame in read_labels(path)]
        if not validation:
            parts = [_divide(frames) for frames in training]
            training = [part for part, _ in parts]
            held = [frame for _, part in parts for frame in part]
        for path, frames in zip(data, training, strict=True):
            if not any(frame.people for frame in frames):
                raise AnnotationError("labels nobody", path=path, remedy="give other --data")
        if not any(frame.people for frame in held):
            raise AnnotationError(
                "leaves nobody to validate on", path=data[0], remedy="give --validation"
            )
        rows = np.unique(np.linspace(0, len(held) - 1, min(most, len(held))).round().astype(int))
        held = [held[row] for row in rows]
        digest = hashlib.sha256()
        for frame in [frame for part in (*training, held) for frame in part]:
            digest.update(f"{frame.source.name} {frame.time}\n".encode())
            for person in frame.people:
                digest.update(np.round(person.joints_2d, 1).tobytes())
                digest.update(np.round(person.joints_3d, 3).tobytes())
        total = len(held) + sum(map(len, training))
        with progress("read pictures", total, "pictures") as advance:
            side = round(short_side * _SHORT_SIDE)
            kept = []
            for part in (*training, held):
                pictures = []
                for frame, image in load_pictures(part):
                    pictures.append(_compressed(frame, image, side))
                    advance(1)
                kept.append(tuple(pictures))
        return cls(tuple(kept[:-1]), kept[-1], digest.hexdigest())

    def anchors(self, counts: tuple[int, int], seed: int) -> AnchorPoses:
        """Cluster the poses of the training pictures, and their mirror images.

        Raises:
            VidkdError: there are too few of them.
        """
        parts: tuple[list[tuple[Array, Array]], ...] = ([], [])
        people = [
            (person, picture)
            for source in self.sources
            for picture in source
            for person in picture.people
            if not np.isnan(person.joints_3d).any()
        ]
        order = np.random.default_rng([seed, 7]).permutation(len(people))[:_SAMPLE]
        for row in order:
            person, picture = people[row]
            own = picture.size
            mirror = np.array([[-1.0, 0, own[1] - 1], [0, 1, 0]])
            for item in (person, moved(person, mirror, 0.0, True, own)):
                found = person_box(item.joints_2d, item.scores, own)
                boxes = (
                    found[0] if found is not None and found[1] else None,
                    upper_box(item.joints_2d, item.scores, own),
                )
                for part, box in zip(parts, boxes, strict=True):
                    if box is not None:
                        relative = (item.joints_2d - box[:2]) / (box[2:] - box[:2])
                        part.append((relative, item.joints_3d))
        full, upper = map(_stack, parts)
        return make_anchors(full, upper, counts, seed)


@dataclass(frozen=True)
class Batches:
    """Draws varied batches; the same for a seed and an epoch, whatever the number of threads."""

    data: PoseData
    anchors: AnchorPoses
    size: tuple[int, int]
    """Height and width of the pictures."""
    batch_size: int
    seed: int
    workers: int
    """Threads that prepare pictures."""
    rows: slice = field(default_factory=lambda: slice(None))
    """Those of each batch that are made, where several processes share it."""

    def epoch(self, number: int, steps: int) -> Iterator[tuple[Tensor, list[Targets]]]:
        """Yield pictures (B, 3, H, W) float32 in [0, 255] and their targets, ``steps`` times.

        B are the rows of the batch.
        """
        rng = np.random.default_rng([self.seed, number])
        count = steps * self.batch_size
        sources = rng.permutation(np.arange(count) % len(self.data.sources))

        def sample(place: int) -> tuple[Array, Targets]:
            own = np.random.default_rng([self.seed, number, place])
            if own.random() > _PAIRS:
                return self._varied(int(sources[place]), self.size, own)
            # Two half pictures: twice the people for the same computation.
            half = self.size[0], self.size[1] // 2
            image, targets = self._varied(int(sources[place]), half, own)
            second, others = self._varied(int(own.integers(len(self.data.sources))), half, own)
            return np.concatenate([image, second], axis=1), targets.beside(others, half[1])

        with ThreadPoolExecutor(self.workers) as pool:
            batches: deque[list[Future[tuple[Array, Targets]]]] = deque()
            for step in range(steps + _AHEAD):
                if step < steps:
                    places = range(step * self.batch_size, (step + 1) * self.batch_size)
                    batches.append([pool.submit(sample, place) for place in places[self.rows]])
                if step < _AHEAD:
                    continue
                ready = [item.result() for item in batches.popleft()]
                images = np.stack([image for image, _ in ready])
                tensor = torch.from_numpy(images).permute(0, 3, 1, 2).float()
                yield tensor, [target for _, target in ready]

    def _varied(
        self, source: int, size: tuple[int, int], rng: np.random.Generator
    ) -> tuple[Array, Targets]:
        pictures = self.data.sources[source]
        picture = pictures[rng.integers(len(pictures))]
        image, people = augment(picture.decode(), picture.people, size, rng)
        return image, make_targets(people, size, self.anchors)


def _divide(frames: list[LabelledFrame]) -> tuple[list[LabelledFrame], list[LabelledFrame]]:
    """Set a tenth aside: every tenth video whole, or every tenth picture when there are none."""
    units = list(dict.fromkeys(str(f.source) for f in frames))
    held = set(units[9::10]) or set(units[-1:] if len(units) > 1 else ())
    return (
        [f for f in frames if str(f.source) not in held],
        [f for f in frames if str(f.source) in held],
    )


def _compressed(frame: LabelledFrame, image: Array, side: int) -> LabelledPicture:
    people = frame.people
    scale = side / min(image.shape[:2])
    if scale < 1:
        size = round(image.shape[0] * scale), round(image.shape[1] * scale)
        sx, sy = size[1] / image.shape[1], size[0] / image.shape[0]
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
        matrix = np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2]])
        people = tuple(
            replace(
                person,
                joints_2d=(person.joints_2d @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32),
                box=None,
            )
            for person in people
        )
    _, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return LabelledPicture(data.tobytes(), people, (image.shape[0], image.shape[1]))


def _stack(pairs: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    if not pairs:
        raise VidkdError(
            "no training pose is whole enough to make anchor poses from",
            remedy="give labels with 3D joints",
        )
    return np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs])
