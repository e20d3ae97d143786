"""Inception-I3D for inference: the numbers of :class:`vidkd.networks.i3d.I3D`, computed faster.

What makes the difference on a CPU (``benchmarks/i3d.py`` measures it):

- batch normalisation is folded into the convolutions;
- activations keep their channels innermost, and are padded by the convolution itself wherever
  "SAME" padding is symmetric;
- convolution and ReLU are one call of oneDNN with weights in the library's own order. It is the
  operator that ``torch.compile`` emits for frozen graphs, without the minute of compilation. It
  also avoids a trap: at batch 1, ``conv3d`` takes PyTorch's slow fallback for small inputs;
- large 3x3x3 convolutions multiply less (:mod:`vidkd.networks.winograd`);
- 3x3x3 pools take one dimension after the other, as whole vectors;
- freed memory is kept rather than given back to the system and faulted in again.

Merging the parallel 1x1 branches into one convolution gained 0 to 3 %, less than the noise, and
is not done.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vidkd.networks.i3d import (
    I3D,
    Inception,
    Size3,
    Unit,
    pad_same,
    pooled_windows,
    through,
)
from vidkd.networks.winograd import TemporalWinograd, suits

NO_DILATION = [1, 1, 1]
KEPT_BYTES = 1 << 29
"""Freed memory that the process keeps for the next snippets: 512 MiB."""
LARGEST_HEAP_BLOCK = 1 << 28


def fused_convolution_available() -> bool:
    """Tell whether this build of PyTorch has oneDNN's convolution with ReLU."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name)
        for name in ("_convolution_pointwise", "_reorder_convolution_weight")
    )


def keep_freed_memory() -> None:
    """Let glibc's malloc keep large freed blocks; nothing happens elsewhere.

    Activations of tens of megabytes are otherwise mapped, faulted in and unmapped for every
    layer, which costs 1.2 to 1.3 times the run time. A user's own malloc settings win.
    """
    chosen = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
    if not sys.platform.startswith("linux") or any(name in os.environ for name in chosen):
        return
    # Another C library, such as musl, has no such function.
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        trim_threshold, mmap_threshold = -1, -3
        mallopt(mmap_threshold, LARGEST_HEAP_BLOCK)
        mallopt(trim_threshold, KEPT_BYTES)


def folded(unit: Unit) -> tuple[Tensor, Tensor]:
    """Return the kernel and bias of the one convolution that equals a unit before its ReLU."""
    norm = unit.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    weight = unit.conv.weight.double() * scale.reshape(-1, 1, 1, 1, 1)
    bias = norm.bias.double() - norm.running_mean.double() * scale
    return weight.float().detach(), bias.float().detach()


def largest_neighbours(x: Tensor) -> Tensor:
    """Max-pool (B, C, ...) with kernel 3 and stride 1, padded with nothing that ever wins.

    One pass of element-wise maxima for each dimension, without gradients. The same values as
    PyTorch's pool, which takes about three times as long on a CPU, since it also notes where
    each maximum was.
    """
    for dim in range(2, x.dim()):
        rest = x.shape[dim] - 1
        pooled = x.clone()
        for to, of in ((1, 0), (0, 1)):
            part = pooled.narrow(dim, to, rest)
            torch.maximum(part, x.narrow(dim, of, rest), out=part)
        x = pooled
    return x


class FoldedUnit(nn.Module):
    """Convolution with bias and ReLU."""

    weight: Tensor
    bias: Tensor

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        weight, bias = folded(unit)
        self.kernel: Size3 = unit.kernel
        self.stride: Size3 = unit.stride
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last_3d))
        self.register_buffer("bias", bias)
        self.fused = fused_convolution_available()
        self._packed: tuple[torch.Size, Tensor] | None = None
        self._winograd: tuple[torch.Size, TemporalWinograd] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Weights in oneDNN's order can be neither copied nor pickled; they are made again.
        return {**self.__dict__, "_packed": None, "_winograd": None}

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to (B, C', ceil(T / stride), ...)."""
        padding = [size // 2 for size in self.kernel]
        if self.stride != (1, 1, 1):
            x, padding = pad_same(x, self.kernel, self.stride), [0, 0, 0]
        if not (self.fused and x.device.type == "cpu" and x.dtype == torch.float32):
            y = functional.conv3d(x, self.weight, self.bias, self.stride, padding)
            return functional.relu_(y)
        geometry = padding, list(self.stride), NO_DILATION, 1
        if suits(self.weight.shape, x.shape):
            # It takes one clip at a time, whatever the size of the batch.
            if self._winograd is None or self._winograd[0] != x.shape[1:]:
                self._winograd = x.shape[1:], TemporalWinograd(self.weight, self.bias, x.shape)
            return self._winograd[1](x)
        # The order that suits oneDNN best depends on the size of the input.
        if self._packed is None or self._packed[0] != x.shape:
            reorder = torch.ops.mkldnn._reorder_convolution_weight
            self._packed = x.shape, reorder(self.weight, *geometry, list(x.shape))
        weight = self._packed[1]
        convolve = torch.ops.mkldnn._convolution_pointwise
        result: Tensor = convolve(x, weight, self.bias, *geometry, "relu", [], "")
        return result


class FoldedInception(Inception):
    """The same of folded units."""

    def __init__(self, inception: Inception) -> None:
        nn.Module.__init__(self)
        for name, unit in inception.named_children():
            assert isinstance(unit, Unit)
            self.add_module(name, FoldedUnit(unit))

    def pooled(self, x: Tensor) -> Tensor:
        """Return the largest of the neighbours of every place."""
        return largest_neighbours(x) if x.device.type == "cpu" else super().pooled(x)


class InferenceI3D(nn.Module):
    """The inference form of a trained :class:`I3D`; it shares no memory with it."""

    def __init__(self, network: I3D) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {
                name: FoldedUnit(layer) if isinstance(layer, Unit) else FoldedInception(layer)
                for name, layer in network.layers.items()
                if isinstance(layer, Unit | Inception)
            }
        )
        head = network.classifier
        self.classifier = nn.Linear(head.in_features, head.out_features)
        self.classifier.load_state_dict(head.state_dict())
        self.feature_layers = network.feature_layers
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, T, S, S) in [-1, 1] to features (B, D) and logits (B, classes)."""
        x = x.contiguous(memory_format=torch.channels_last_3d)
        features, mixed = through(self.layers, x, self.feature_layers)
        return features, self.classifier(pooled_windows(mixed))
