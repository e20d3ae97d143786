"""Inception-I3D with 8-bit arithmetic, run by OpenVINO on the CPU.

A quantised network is a set of tensors, whatever runs it. Its convolutions come in *groups*: those
that read the same tensor, and hence share the range in which it is quantised. For every
convolution ``U`` of a group ``G``

- ``U.bias`` (O,) float32, batch normalisation folded in;
- ``U.weight`` (O, I, k, k, k): float32, or int8 with ``U.scale`` (O,), by which it is multiplied;
- ``G.range`` () float32, in int8 groups only: the input at which 8 bits end. Inputs are outputs
  of ReLU and have 256 levels from 0 to the range. The video itself has 255 from minus the range.

Processors without VNNI add two products of 8 bits in 16 bits, and what exceeds those is cut off
without notice (the instruction VPMADDUBSW). So two neighbouring input channels of a kernel never
add up to more than `PAIR`: 255 * 128 fits into 16 bits. Every processor then computes the same.

The head stays float32. The network is built here from these tensors rather than converted, so
that what is quantised, and where, is decided by :mod:`vidkd.networks.quantise` alone.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vidkd.errors import VidkdError, WeightsError
from vidkd.networks.encoders import EncoderNetwork
from vidkd.networks.i3d import (
    CONVOLUTIONS,
    END_POINTS,
    FEATURE_DIM,
    INCEPTIONS,
    LAST,
    POOLS,
    Size3,
    feature_width,
    same_padding,
)

if TYPE_CHECKING:
    import openvino

READERS = ("b0", "b1a", "b2a", "b3b")
"""The convolutions of an Inception module that read its input, the last after a max pool."""

GROUPS: dict[str, tuple[str, ...]] = {}
"""Names of the convolutions that read one tensor, by the name of the group, in order."""
for _name in END_POINTS:
    if _name in CONVOLUTIONS:
        GROUPS[_name] = (_name,)
    elif _name in INCEPTIONS:
        GROUPS[_name] = tuple(f"{_name}.{branch}" for branch in READERS)
        GROUPS[f"{_name}.b1b"] = (f"{_name}.b1b",)
        GROUPS[f"{_name}.b2b"] = (f"{_name}.b2b",)

FIRST = END_POINTS[0]
PAIR = 128
"""Two values that are added first must not exceed this together, nor its negative."""
QUANTISE_AGAIN = "make it again with `vidkd models quantise`"
LARGEST_NUMBER_OF_SHAPES = 4
"""Compiled networks that are kept, one for each size of the input."""


def load_openvino() -> Any:
    """Import OpenVINO.

    Raises:
        VidkdError: it is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise VidkdError(
            "int8 needs OpenVINO, which is not installed",
            remedy="run `pip install 'vidkd[openvino]'`",
        ) from error
    return openvino


def geometry(unit: str) -> tuple[int, int]:
    """Return kernel size and stride of a convolution, the same in all three dimensions."""
    if unit in CONVOLUTIONS:
        return CONVOLUTIONS[unit][2:]
    return (3 if unit.endswith(("b1b", "b2b")) else 1), 1


def shapes(in_channels: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of the kernel of every convolution, (O, I, k, k, k)."""
    found: dict[str, tuple[int, ...]] = {}
    for name in END_POINTS:
        if name in CONVOLUTIONS:
            inputs, outputs, kernel, _ = CONVOLUTIONS[name]
            found[name] = (outputs, inputs or in_channels, *[kernel] * 3)
        elif name in INCEPTIONS:
            inputs, b0, b1a, b1b, b2a, b2b, b3b = INCEPTIONS[name]
            pairs = {"b0": (b0, inputs), "b1a": (b1a, inputs), "b1b": (b1b, b1a)}
            pairs |= {"b2a": (b2a, inputs), "b2b": (b2b, b2a), "b3b": (b3b, inputs)}
            for branch, (outputs, reads) in pairs.items():
                kernel = geometry(f"{name}.{branch}")[0]
                found[f"{name}.{branch}"] = (outputs, reads, *[kernel] * 3)
    return found


def excess(kernel: Tensor) -> Tensor:
    """Return by how much pairs of neighbouring input channels exceed `PAIR`, signed, or 0.

    Args:
        kernel: (O, I, k, k, k) of whole numbers; I is even.

    Returns:
        (O, I / 2, 1, k, k, k) float32.
    """
    pairs = kernel.float().unflatten(1, (-1, 2))
    above = (pairs.clamp(min=0).sum(2, keepdim=True) - PAIR).clamp(min=0)
    below = (pairs.clamp(max=0).sum(2, keepdim=True) + PAIR).clamp(max=0)
    return above + below


def needs_vnni(state: Mapping[str, Tensor]) -> bool:
    """Say whether sums of a network could exceed 16 bits, as encoders made by vidkd 0.1 can."""
    kernels = {key: value for key, value in state.items() if value.dtype == torch.int8}
    first = kernels.pop(f"{FIRST}.weight", None)
    # Of three colours, any two may be added.
    if first is not None and first.short().abs().max() > PAIR // 2:
        return True
    return any(bool(excess(kernel).any()) for kernel in kernels.values())


@functools.cache
def sums_are_exact() -> bool:
    """Say whether this processor adds two products of 8 bits without loss, by trying it.

    Raises:
        VidkdError: OpenVINO is not installed.
    """
    ov = load_openvino()
    from openvino import opset13 as ops

    def constant(value: float, shape: tuple[int, ...] = (1, 1, 1, 1, 1)) -> Any:
        return ops.constant(np.full(shape, value, np.float32))

    channels = 32
    x = ops.parameter([1, channels, 2, 4, 4], np.float32)
    levels = ops.fake_quantize(x, *[constant(0), constant(255)] * 2, 256)
    kernel = ops.constant(np.full((channels, channels, 1, 1, 1), 127, np.int8))
    scaled = ops.multiply(ops.convert(kernel, "f32"), constant(1, (channels, 1, 1, 1, 1)))
    y = ops.convolution(levels, scaled, [1] * 3, [0] * 3, [0] * 3, [1] * 3)
    model = ov.Model([ops.relu(ops.add(y, constant(0)))], [x], "pairs")
    network = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = network([np.full((1, channels, 2, 4, 4), 255, np.float32)])[0]
    return bool(np.allclose(found, channels * 255 * 127, rtol=1e-3))


def check_tensors(state: Mapping[str, Tensor], in_channels: int, path: str | Path) -> None:
    """Raise WeightsError unless these are the tensors of a quantised network, and no others.

    Also where they are those of a network that this processor cannot compute.
    """
    expected: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
    kernels = shapes(in_channels)
    floats = torch.float32
    for group, names in GROUPS.items():
        quantised = f"{group}.range" in state
        if quantised:
            expected[f"{group}.range"] = (), floats
        for name in names:
            expected[f"{name}.weight"] = kernels[name], torch.int8 if quantised else floats
            expected[f"{name}.bias"] = kernels[name][:1], floats
            if quantised:
                expected[f"{name}.scale"] = kernels[name][:1], floats
    classes = len(state["classifier.bias"]) if "classifier.bias" in state else 0
    expected["classifier.bias"] = (classes,), floats
    expected["classifier.weight"] = (classes, FEATURE_DIM), floats
    for name in sorted(expected.keys() | state.keys()):
        if name not in state or name not in expected:
            what = "has no" if name in expected else "has an unknown"
            raise WeightsError(f"{what} tensor {name}", path=path, remedy=QUANTISE_AGAIN)
        shape, kind = expected[name]
        tensor = state[name]
        if tuple(tensor.shape) != shape or tensor.dtype != kind:
            raise WeightsError(
                f"tensor {name} is {tensor.dtype} {tuple(tensor.shape)}, not {kind} {shape}",
                path=path,
                remedy=QUANTISE_AGAIN,
            )
    if needs_vnni(state) and not sums_are_exact():
        raise WeightsError(
            "was quantised by an older vidkd for processors with VNNI instructions, and this one"
            " has none: its features would be wrong",
            path=path,
            remedy=QUANTISE_AGAIN,
        )


class Graph:
    """Builds the network of a set of tensors for one size of the input.

    Args:
        state: the tensors; see the module.
        feature_layers: Mixed end points whose means are the features.
    """

    def __init__(self, state: Mapping[str, Tensor], feature_layers: Sequence[str]) -> None:
        load_openvino()
        from openvino import opset13

        self._state = state
        self._feature_layers = feature_layers
        self._ops: Any = opset13

    def model(self, in_channels: int, length: int, side: int) -> openvino.Model:
        """Return the network from (1, C, T, S, S) to end points averaged over space, (1, D, t).

        They are those of the features and, at the end, Mixed_5c.
        """
        import openvino

        video = self._ops.parameter([1, in_channels, length, side, side], np.float32)
        rows = self._means(video.output(0), [3, 4], {*self._feature_layers, *LAST})
        return openvino.Model(rows, [video], "i3d")

    def frames_model(self, length: int, crop: int) -> openvino.Model:
        """Return the network from frames (1, length, H, W, 3) uint8 to features (1, D).

        The square of side ``crop`` in the middle of the frames is brought to [-1, 1] first.
        """
        import openvino

        ops = self._ops
        x = video = ops.parameter([1, length, -1, -1, 3], np.uint8, name="frames")
        for axis in (2, 3):
            size = ops.gather(ops.shape_of(video), ops.constant(axis), ops.constant(0))
            first = ops.divide(ops.subtract(size, ops.constant(crop)), ops.constant(2))
            places = ops.add(ops.constant(np.arange(crop)), first)
            x = ops.gather(x, places, ops.constant(axis))
        x = ops.transpose(x, ops.constant([0, 4, 1, 2, 3]))
        # From a table, which OpenVINO does not merge with the rounding to 8 bits: that would change
        # single levels of the input.
        levels = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1)
        x = ops.gather(self._constant(levels), ops.convert(x, "i32"), ops.constant(0))
        x = ops.reshape(x, ops.constant([1, 3, length, crop, crop]), False)
        means = self._means(x.output(0), [2, 3, 4], self._feature_layers)
        features = means[0] if len(means) == 1 else ops.concat(means, 1)
        features.output(0).set_names({"features"})
        video.output(0).set_names({"frames"})
        return openvino.Model([features], [video], "i3d")

    def _means(self, x: Any, axes: list[int], wanted: Collection[str]) -> list[Any]:
        """Send (B, C, T, S, S) in [-1, 1] through, and average some end points over some axes."""
        x = self._quantised(x, FIRST)
        means = []
        for number, name in enumerate(END_POINTS):
            reader = next((n for n in END_POINTS[number + 1 :] if n not in POOLS), None)
            if name in POOLS:
                x = self._max_pool(x, *POOLS[name])
            elif name in CONVOLUTIONS:
                x = self._quantised(self._convolution(x, name), reader)
            else:
                x = self._inception(x, name, reader)
            if name in wanted:
                over = self._ops.constant(np.array(axes, dtype=np.int64))
                means.append(self._ops.reduce_mean(x, over, False))
        return means

    def _inception(self, x: Any, name: str, reader: str | None) -> Any:
        """Join four branches; each is quantised for the reader before that, so in 8 bits."""
        branches = [self._convolution(x, f"{name}.b0")]
        for branch in ("b1", "b2"):
            inner = self._convolution(x, f"{name}.{branch}a")
            last = f"{name}.{branch}b"
            branches.append(self._convolution(self._quantised(inner, last), last))
        pooled = self._max_pool(x, (3, 3, 3), (1, 1, 1))
        branches.append(self._convolution(pooled, f"{name}.b3b"))
        outputs = [self._quantised(branch, reader) for branch in branches]
        return self._ops.concat(outputs, 1).output(0)

    def _quantised(self, x: Any, group: str | None) -> Any:
        """Round to what the readers of the tensor take, if they are int8."""
        if group is None or f"{group}.range" not in self._state:
            return x
        high = float(self._state[f"{group}.range"])
        # Zero, with which convolutions pad, has to be one of the levels.
        low = -high * 128 / 127 if group == FIRST else 0.0
        ends = [self._constant(np.full((1, 1, 1, 1, 1), end)) for end in (low, high)]
        return self._ops.fake_quantize(x, *ends, *ends, 256).output(0)

    def _convolution(self, x: Any, unit: str) -> Any:
        ops, state = self._ops, self._state
        weight = state[f"{unit}.weight"].numpy()
        if weight.dtype == np.int8:
            scale = state[f"{unit}.scale"].numpy().reshape(-1, 1, 1, 1, 1)
            kernel = ops.multiply(ops.convert(ops.constant(weight), "f32"), self._constant(scale))
        else:
            kernel = self._constant(weight)
        size, stride = geometry(unit)
        before, after = _padding(x, (size,) * 3, (stride,) * 3)
        y = ops.convolution(x, kernel, [stride] * 3, before, after, [1, 1, 1])
        bias = self._constant(state[f"{unit}.bias"].numpy().reshape(1, -1, 1, 1, 1))
        return ops.relu(ops.add(y, bias)).output(0)

    def _max_pool(self, x: Any, kernel: Size3, stride: Size3) -> Any:
        before, after = _padding(x, kernel, stride)
        pooled = self._ops.max_pool(x, list(stride), [1, 1, 1], before, after, list(kernel))
        return pooled.output(0)

    def _constant(self, values: np.ndarray) -> Any:
        return self._ops.constant(np.ascontiguousarray(values, dtype=np.float32))


def _padding(x: Any, kernel: Size3, stride: Size3) -> tuple[list[int], list[int]]:
    """Return the "SAME" padding before and after each dimension of (1, C, T, H, W)."""
    sizes = [size.get_length() for size in list(x.get_partial_shape())[2:]]
    pairs = [same_padding(n, k, s) for n, k, s in zip(sizes, kernel, stride, strict=True)]
    return [before for before, _ in pairs], [after for _, after in pairs]


class Int8I3D(EncoderNetwork):
    """Inference with a quantised network; see the module for its tensors.

    The networks for different sizes of the input are compiled when they are first needed, which
    takes about a second, and the last few are kept.

    Args:
        state: the tensors; see the module.
        feature_layers: Mixed end points whose means are the features.

    Raises:
        VidkdError: OpenVINO is not installed.
    """

    classifier: nn.Linear
    precision = "int8"

    def __init__(self, state: Mapping[str, Tensor], feature_layers: Sequence[str] = LAST) -> None:
        super().__init__()
        self._feature_layers = tuple(feature_layers)
        self.width = feature_width(feature_layers)
        self._state = dict(state)
        self._in_channels = int(state[f"{FIRST}.weight"].shape[1])
        self._compiled: dict[tuple[int, ...], Any] = {}
        self._core: Any = load_openvino().Core()
        classes, width = state["classifier.weight"].shape
        self.classifier = nn.Linear(width, classes)
        head = {key: state[f"classifier.{key}"] for key in ("weight", "bias")}
        self.classifier.load_state_dict(head)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, T, S, S) float32 in [-1, 1] to features (B, D) and logits (B, classes)."""
        infer = self._network(tuple(x.shape[1:]))
        found = [infer(snippet) for snippet in x]
        # Mixed_5c, the last of the network, may be one of the features, or come after them.
        levels = [torch.stack(level) for level in zip(*found, strict=True)]
        rows = levels[-1]
        windows = functional.avg_pool1d(rows, min(2, rows.shape[2]), 1).mean(dim=2)
        own = levels[: len(self._feature_layers)]
        features = torch.cat([level.mean(dim=2) for level in own], dim=1)
        return features, self.classifier(windows)

    def frames_model(self, length: int, crop: int) -> openvino.Model:
        """Return a network that takes frames, for other programs; see `Graph.frames_model`."""
        return Graph(self._state, self._feature_layers).frames_model(length, crop)

    def _network(self, shape: tuple[int, ...]) -> Any:
        found = self._compiled.pop(shape, None)
        if found is None:
            graph = Graph(self._state, self._feature_layers)
            model = graph.model(self._in_channels, shape[1], shape[2])
            settings = {
                # On some processors the default would be bfloat16 for what is not int8.
                "INFERENCE_PRECISION_HINT": "f32",
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                # Several processes would otherwise be bound to the same cores.
                "ENABLE_CPU_PINNING": False,
            }
            request = self._core.compile_model(model, "CPU", settings).create_infer_request()

            def found(snippet: Tensor) -> list[Tensor]:
                outputs = request.infer([snippet[None].contiguous().numpy()], share_inputs=True)
                return [torch.from_numpy(outputs[n][0].copy()) for n in range(len(outputs))]

            if len(self._compiled) == LARGEST_NUMBER_OF_SHAPES:
                self._compiled.pop(next(iter(self._compiled)))
        self._compiled[shape] = found
        return found
