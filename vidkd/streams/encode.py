"""From frames to features: centre crop, normalisation, batches of clips, the encoder."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from vidkd.console import log
from vidkd.errors import VidkdError
from vidkd.networks.device import in_turn
from vidkd.recipe import ModelCard
from vidkd.video import Snippet
from vidkd.workers import read_ahead


class Encoder(Protocol):
    """What is needed of a network (see ``vidkd.networks.load_encoder``)."""

    @property
    def card(self) -> ModelCard:
        """The network's model card."""

    @property
    def weights_sha256(self) -> str:
        """Hash of the weights."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    def precision(self) -> str:
        """Arithmetic: float32, float16 or int8."""

    def features(self, x: torch.Tensor, /) -> torch.Tensor:
        """Turn normalised clips (B, C, T, S, S) into (B, D)."""


def square_crop(
    images: np.ndarray, crop: int, place: tuple[float, float] | None = None
) -> np.ndarray:
    """Cut a square of side ``crop`` out of images (..., H, W, C).

    Args:
        images: of one size.
        crop: the side.
        place: between left (0) and right (1), and between top and bottom; by default the middle.

    Raises:
        VidkdError: the images are smaller than the square.
    """
    height, width = images.shape[-3:-1]
    if min(height, width) < crop:
        raise VidkdError(
            f"frames of {width} x {height} pixels are smaller than the crop of {crop}",
            remedy="choose a larger --short-side or a smaller --crop",
        )
    top, left = (height - crop) // 2, (width - crop) // 2
    if place is not None:
        left = min(int(place[0] * (width - crop + 1)), width - crop)
        top = min(int(place[1] * (height - crop + 1)), height - crop)
    return images[..., top : top + crop, left : left + crop, :]


def batched(
    snippets: Iterable[Snippet], batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield snippets in batches, at most ``batch_size`` at a time.

    Yields:
        What each is made of, stacked (B, T, ...), and start and end seconds (B, 2) float64.
    """
    left = iter(snippets)
    while batch := list(itertools.islice(left, batch_size)):
        images = np.stack([item.frames for item in batch])
        yield images, np.array([(item.start, item.end) for item in batch])


Prepare = Callable[["np.ndarray | torch.Tensor"], torch.Tensor]
"""Turns stored snippets (B, T, ...) into what an encoder takes; see ``Stream.prepare``."""


def network_input(
    images: np.ndarray | torch.Tensor, card: ModelCard, device: torch.device
) -> torch.Tensor:
    """Turn RGB frames into what an encoder takes.

    Args:
        images: (B, T, S, S, 3) uint8.
        card: says how intensities are normalised; for I3D to [-1, 1].
        device: where the result is wanted.

    Returns:
        (B, 3, T, S, S) float32.
    """
    x = torch.as_tensor(images).to(device).permute(0, 4, 1, 2, 3).float()
    if card.channel_order == "bgr":
        x = x.flip(1)
    mean, deviation = (
        torch.tensor(values, dtype=torch.float64, device=device).view(-1, 1, 1, 1)
        for values in (card.mean, card.deviation)
    )
    # In this order, I3D's (1/2 for both) is x / 127.5 - 1 to the last bit.
    return x / (255 * deviation).float() - (mean / deviation).float()


@dataclass(frozen=True)
class Batch:
    """Stored frames (B, T, S, S, C) uint8 on their way to a device.

    Attributes:
        images: on the device when ``arrived`` is given, else in memory.
        arrived: marks the end of the copy to a GPU.
    """

    images: torch.Tensor
    arrived: torch.cuda.Event | None = None

    def ready(self) -> torch.Tensor:
        """Return the frames, for use by the GPU's current stream."""
        if self.arrived is not None:
            stream = torch.cuda.current_stream(self.images.device)
            stream.wait_event(self.arrived)
            # Or the memory could be given to another copy while the network still reads it.
            self.images.record_stream(stream)
        return self.images


class BatchEncoder:
    """Runs an encoder on batches, and goes on with smaller ones when a GPU's memory runs out.

    A batch that repeats the one before it, as in a still or frozen picture, is not computed again.

    Args:
        run: maps clips (B, C, T, S, S) to (B, D): ``Encoder.features`` or ``.logits``.
        device: where it runs.
        prepare: turns stored snippets into the network's input; see ``Stream.prepare``.
    """

    def __init__(
        self,
        run: Callable[[torch.Tensor], torch.Tensor],
        device: torch.device,
        prepare: Prepare,
    ) -> None:
        self._run = run
        self._device = device
        self._prepare = prepare
        self._largest: int | None = None
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._last: tuple[torch.Tensor, np.ndarray] | None = None

    def send(self, images: np.ndarray) -> Batch:
        """Begin to copy a batch to the device; may be called in another thread.

        On a GPU it is copied as it is stored, from page-locked memory and in a CUDA stream of its
        own, so that the network can compute meanwhile.
        """
        stored = torch.from_numpy(images)
        if self._copies is None:
            return Batch(stored)
        with torch.cuda.stream(self._copies):
            # PyTorch keeps page-locked memory until the copies out of it are done.
            there = stored.pin_memory().to(self._device, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record(self._copies)
        return Batch(there, arrived)

    def __call__(self, batch: Batch) -> np.ndarray:
        """Return (B, D) float32.

        Raises:
            VidkdError: not even one snippet fits into the GPU's memory.
        """
        images = batch.ready()
        # The whole batch: in one of another size the network may round otherwise.
        if self._last is not None and torch.equal(images, self._last[0]):
            return self._last[1].copy()
        rows: list[np.ndarray] = []
        done = 0
        while done < len(images):
            size = min(self._largest or len(images), len(images) - done)
            try:
                with in_turn(self._device), torch.inference_mode():
                    x = self._prepare(images[done : done + size])
                    # Kept as they are, the few bytes lie where the network's large buffers were,
                    # and the next ones have to be put elsewhere: memory grows with the video.
                    rows.append(self._run(x).float().cpu().numpy().copy())
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise VidkdError(
                        "the GPU's memory does not hold a single snippet",
                        remedy="free some of it, choose a smaller --crop, or give --device cpu",
                    ) from error
            else:
                done += size
                continue
            # Only here, where the error holds on to none of the network's tensors any more.
            x = torch.empty(0)
            self._largest = size // 2
            log(f"note: the GPU's memory ran out; going on with {size // 2} snippets at a time")
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        result = np.concatenate(rows)
        self._last = images, result
        return result.copy()


_one_batch = threading.Lock()
"""One batch at a time is computed, however many videos are under way: memory is that of one."""


def encode(
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    encoder: Encoder,
    prepare: Prepare,
    ahead: int = 2,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Encode the snippets of one video, batch by batch, while a thread reads the next frames.

    Args:
        batches: stored snippets (B, T, ...), and their start and end seconds (B, 2).
        encoder: the network.
        prepare: turns stored snippets into its input; see ``Stream.prepare``.
        ahead: batches that may wait, besides one in the making.

    Yields:
        Features (B, D) float32 and start and end seconds (B, 2).

    Raises:
        VidkdError: frames are smaller than the crop, or memory ran out.
    """
    run = BatchEncoder(encoder.features, encoder.device, prepare)
    for batch, pts in read_ahead(((run.send(images), pts) for images, pts in batches), ahead):
        with _one_batch:
            features = run(batch)
        yield features, pts
