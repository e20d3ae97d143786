"""From frames to features: centre crop, scaling to [-1, 1], batches of snippets, the encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from vidkd.errors import VidkdError
from vidkd.recipe import ModelCard, SnippetSettings
from vidkd.video import Frame, cut_snippets


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

    def features(self, x: torch.Tensor, /) -> torch.Tensor:
        """Turn (B, C, T, S, S) in [-1, 1] into (B, D)."""


def centre_crop(image: np.ndarray, crop: int) -> np.ndarray:
    """Cut the square of side ``crop`` out of the middle of an image (H, W, C).

    Raises:
        VidkdError: the image is smaller than the square.
    """
    height, width = image.shape[:2]
    if min(height, width) < crop:
        raise VidkdError(
            f"frames of {width} x {height} pixels are smaller than the crop of {crop}",
            remedy="choose a larger --short-side or a smaller --crop",
        )
    top, left = (height - crop) // 2, (width - crop) // 2
    return image[top : top + crop, left : left + crop]


def snippet_batches(
    frames: Iterable[Frame], snippet: SnippetSettings, crop: int, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cut frames into snippets and yield them in batches, at most ``batch_size`` at a time.

    Yields:
        Frames (B, length, crop, crop, C) uint8, and start and end seconds (B, 2) float64.
    """
    cropped = (replace(frame, image=centre_crop(frame.image, crop)) for frame in frames)
    images, pts = [], []
    for item in cut_snippets(cropped, snippet.length, snippet.stride):
        images.append(item.frames)
        pts.append((item.start, item.end))
        if len(images) == batch_size:
            yield np.stack(images), np.array(pts)
            images, pts = [], []
    if images:
        yield np.stack(images), np.array(pts)


def network_input(
    images: np.ndarray, device: torch.device, flow_bound: float | None = None
) -> torch.Tensor:
    """Turn stored frames into what an encoder takes.

    Args:
        images: (B, T, S, S, C) uint8: RGB, or quantised flow.
        device: where the result is wanted.
        flow_bound: None for RGB; for flow the pixels at which it was clipped.

    Returns:
        (B, C, T, S, S) float32 in [-1, 1]: RGB as x / 127.5 - 1; flow in units of the bound, zero
        motion exactly 0 (METHOD section 4).
    """
    if flow_bound is None:
        return torch.from_numpy(images).to(device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    # Imported here: an RGB-only detection never loads the flow code.
    from vidkd.flow import dequantise

    scaled = dequantise(images, flow_bound) / np.float32(flow_bound)
    return torch.from_numpy(scaled).to(device).permute(0, 4, 1, 2, 3)


def encode(
    frames: Iterable[Frame],
    encoder: Encoder,
    snippet: SnippetSettings,
    crop: int,
    batch_size: int,
    flow_bound: float | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Encode the snippets of one video, batch by batch.

    Yields:
        Features (B, D) float32 and start and end seconds (B, 2).

    Raises:
        VidkdError: frames are smaller than the crop, or memory ran out.
    """
    for images, pts in snippet_batches(frames, snippet, crop, batch_size):
        try:
            with torch.inference_mode():
                batch = network_input(images, encoder.device, flow_bound)
                features = encoder.features(batch).float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise VidkdError(
                f"memory ran out with batches of {batch_size}", remedy="use a smaller --batch-size"
            ) from error
        yield features, pts
