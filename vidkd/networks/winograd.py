"""3x3x3 convolution by fewer multiplications: Winograd's F(4, 3) along time.

Four outputs of a filter with three taps need six multiplications instead of twelve (Winograd 1980;
for convolutional networks: Lavin and Gray, CVPR 2016, F(4 x 4, 3 x 3), of which this is the
one-dimensional form). Along time the transforms cost little, for one plane of pixels is one entry:
six two-dimensional convolutions of oneDNN replace twelve, at its full speed. Over space the same
trick would need a kernel of its own, and loses digits; here the error of a layer in float32 grows
by a quarter (``benchmarks/i3d.py`` and the tests measure it).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

OUTPUTS = 4
"""Frames of output per tile."""
PRODUCTS = 6
FEWEST = 1 << 21
"""Multiplications of one tap on one frame below which calling six times costs more than it saves:
between 0.8 and 2.4 million on two cores (AVX-512)."""

# The transforms of kernel, input and output for the points 0, 1, -1, 2, -2 and infinity.
KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
BIASED = 1
"""The product that adds the bias: its column of ``OUTPUT`` is all ones."""
GEOMETRY: tuple[list[int], list[int], list[int], int] = ([1, 1], [1, 1], [1, 1], 1)
"""Padding, stride, dilation and groups of the convolutions."""


def suits(weight_shape: torch.Size, input_shape: torch.Size) -> bool:
    """Tell whether the trick pays: a large 3x3x3 convolution over a multiple of four frames."""
    outputs, inputs, *kernel = weight_shape
    _, _, frames, height, width = input_shape
    enough = outputs * inputs * height * width >= FEWEST
    return kernel == [3, 3, 3] and frames % OUTPUTS == 0 and enough


class TemporalWinograd:
    """One convolution with padding 1, stride 1, bias and ReLU, for inputs of one size on a CPU.

    Args:
        weight: kernel (C', C, 3, 3, 3), float32.
        bias: (C',), float32.
        input_shape: (B, C, T, H, W), T a multiple of 4; the batch may be another later.
    """

    def __init__(self, weight: Tensor, bias: Tensor, input_shape: torch.Size) -> None:
        _, channels, frames, height, width = input_shape
        self.bias, self.tiles = bias, frames // OUTPUTS
        image = [self.tiles, channels, height, width]
        kernel = torch.tensor(KERNEL, dtype=torch.float64)
        reorder = torch.ops.mkldnn._reorder_convolution_weight
        # (C', C, 3, 3, 3) to six kernels (C', C, 3, 3), rounded once.
        self.weights = [
            reorder(part.float().contiguous(memory_format=torch.channels_last), *GEOMETRY, image)
            for part in torch.einsum("pt,octhw->pochw", kernel, weight.double())
        ]
        self.input, self.output = transforms(frames)

    def __call__(self, x: Tensor) -> Tensor:
        """Map (B, C, T, H, W), channels innermost in memory, to (B, C', T, H, W)."""
        batch, _, frames, height, width = x.shape
        result = x.new_empty(batch, frames, height, width, len(self.bias))
        products = x.new_empty(PRODUCTS, self.tiles, height, width, len(self.bias))
        for clip, out in zip(x.permute(0, 2, 3, 4, 1), result, strict=True):
            images = (self.input @ clip.reshape(frames, -1)).view(
                PRODUCTS, self.tiles, *clip.shape[1:]
            )
            for number, (image, weight) in enumerate(zip(images, self.weights, strict=True)):
                bias = self.bias if number == BIASED else None
                products[number] = _convolve(image, weight, bias)
            torch.mm(
                self.output, products.view(PRODUCTS * self.tiles, -1), out=out.view(frames, -1)
            )
        return result.relu_().permute(0, 4, 1, 2, 3)


def transforms(frames: int) -> tuple[Tensor, Tensor]:
    """Return the transforms of a whole clip, tiles, padding and all, as two matrices.

    The first (6 * tiles, T) makes the six inputs of every tile, ordered by product, then tile,
    from the frames; frames before the first and after the last are zeros. The second
    (T, 6 * tiles) makes the frames of output from the products.
    """
    tiles = frames // OUTPUTS
    given = torch.zeros(PRODUCTS, tiles, frames)
    made = torch.zeros(frames, PRODUCTS, tiles)
    for tile in range(tiles):
        first = OUTPUTS * tile - 1
        inside = range(max(first, 0), min(first + PRODUCTS, frames))
        columns = [frame - first for frame in inside]
        given[:, tile, inside.start : inside.stop] = torch.tensor(INPUT)[:, columns].float()
        made[OUTPUTS * tile : OUTPUTS * (tile + 1), :, tile] = torch.tensor(OUTPUT).float()
    return given.flatten(0, 1), made.flatten(1, 2)


def _convolve(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve (tiles, H, W, C) in two dimensions."""
    nothing: list[Any] = []
    y: Tensor = torch.ops.mkldnn._convolution_pointwise(
        images.permute(0, 3, 1, 2), weight, bias, *GEOMETRY, "none", nothing, ""
    )
    return y.permute(0, 2, 3, 1)
