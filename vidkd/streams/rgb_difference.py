"""RGB difference: what changes from one frame to the next, the cheap motion of TSN.

Wang et al., "Temporal Segment Networks" (2016), section 3.2, put stacked differences of RGB frames
into a network for RGB. Here too: a difference is scaled as the intensities are, without their mean,
so that the encoder sees the change of what it sees of RGB, and a still scene is exactly zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vidkd.recipe import ModelCard
from vidkd.streams.base import Stream
from vidkd.video import Frame

if TYPE_CHECKING:
    import torch


class RgbDifference(Stream):
    """The next frame minus the frame, one row for each frame; needs nothing but RGB at run time."""

    name = "rgb-difference"
    label = "RGB diff."
    from_rgb = True

    def rows(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield differences (H, W, 3) int8, clipped to 127 of 255 levels.

        Row i is frame i + 1 minus frame i. The last one repeats the row before it, as that of
        flow does; a single frame gives zeros.
        """
        last: Frame | None = None
        row: np.ndarray | None = None
        for frame in frames:
            if last is not None:
                change = frame.image.astype(np.int16) - last.image
                row = np.clip(change, -127, 127).astype(np.int8)
                yield replace(last, image=row)
            last = frame
        if last is not None:
            row = np.zeros(last.image.shape, np.int8) if row is None else row.copy()
            yield replace(last, image=row)

    def prepare(
        self, card: ModelCard, device: torch.device, made: Mapping[str, Any]
    ) -> Callable[[np.ndarray | torch.Tensor], torch.Tensor]:
        """Return the function from differences to (B, 3, T, S, S); for I3D in [-1, 1]."""
        import torch

        deviation = torch.tensor(card.deviation, dtype=torch.float32, device=device)
        scale = 255 * deviation.view(-1, 1, 1, 1)

        def scaled(images: np.ndarray | torch.Tensor) -> torch.Tensor:
            x = torch.as_tensor(images).to(device).permute(0, 4, 1, 2, 3).float()
            return (x.flip(1) if card.channel_order == "bgr" else x) / scale

        return scaled
