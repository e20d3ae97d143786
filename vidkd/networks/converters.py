"""Foreign I3D checkpoints to the state of :class:`vidkd.networks.i3d.I3D`.

Nothing is ever unpickled as it stands: a pickle of NumPy arrays goes through an unpickler that
knows three names and builds inert objects for them, a PyTorch file through ``weights_only=True``.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidkd.errors import WeightsError
from vidkd.networks.i3d import CONVOLUTIONS, I3D, INCEPTIONS
from vidkd.networks.weights import check_state, without_counts

BRANCHES = {
    "b0": "Branch_0/Conv3d_0a_1x1",
    "b1a": "Branch_1/Conv3d_0a_1x1",
    "b1b": "Branch_1/Conv3d_0b_3x3",
    "b2a": "Branch_2/Conv3d_0a_1x1",
    "b2b": "Branch_2/Conv3d_0b_3x3",
    "b3b": "Branch_3/Conv3d_0b_1x1",
}
KERNEL_AXES = (4, 3, 0, 1, 2)
"""From TensorFlow's (t, h, w, in, out) to PyTorch's (out, in, t, h, w)."""


class _Dtype:
    """Stands for ``numpy.dtype`` while a pickle is read."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code
        self.order: object = "|"

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.order = state[1]

    def resolve(self) -> np.dtype[Any]:
        if self.code not in {"f4", "f8", "f2"} or self.order not in {"<", "|", "="}:
            raise pickle.UnpicklingError(f"array type {self.order!r}{self.code!r} is not allowed")
        return np.dtype(f"<{self.code}")


class _Array:
    """Stands for an array while a pickle is read; only floats, only as many as there are bytes."""

    def __init__(self, *_: object) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array holds something else than numbers")
        kind = dtype.resolve()
        if math.prod(shape) * kind.itemsize != len(data) or min(shape, default=0) < 0:
            raise pickle.UnpicklingError(f"an array of shape {shape} has {len(data)} bytes")
        self.value = np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")


class _ArraysOnly(pickle.Unpickler):
    """Unpickler of nested dictionaries of arrays: no name of the pickle is ever imported."""

    ALLOWED: dict[tuple[str, str], Any] = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed") from None

    def persistent_load(self, pid: object) -> Any:
        raise pickle.UnpicklingError(f"a persistent identifier ({pid!r}) is not allowed")


def read_array_pickle(data: bytes, path: str | Path) -> dict[str, np.ndarray]:
    """Read a pickle of nested dictionaries of float arrays; keys are joined by ``/``.

    Args:
        data: the content of the file.
        path: what to call it in error messages.

    Raises:
        WeightsError: it is damaged, or asks for anything but NumPy arrays of floats.
    """
    try:
        tree = _ArraysOnly(io.BytesIO(data)).load()
        arrays: dict[str, np.ndarray] = {}
        _flatten(tree, "", arrays)
    # A damaged pickle can raise nearly anything from inside the unpickler.
    except Exception as error:
        raise WeightsError(
            f"is not a pickle of NumPy arrays only ({error})",
            path=path,
            remedy="fetch it again; other pickles are refused because they can run code",
        ) from error
    return arrays


def _flatten(tree: object, prefix: str, arrays: dict[str, np.ndarray]) -> None:
    pending: list[tuple[str, object]] = [(prefix, tree)]
    while pending:
        name, value = pending.pop()
        if isinstance(value, dict):
            pending.extend((f"{name}/{key}" if name else str(key), v) for key, v in value.items())
        elif isinstance(value, _Array) and value.value is not None:
            arrays[name] = value.value
        else:
            raise pickle.UnpicklingError(f"{name or 'the file'} is not an array")


def _units() -> dict[str, tuple[str, str]]:
    """Map our unit names to those of the Flax tree and of the PyTorch port."""
    names = {f"layers.{name}": (name, name) for name in CONVOLUTIONS}
    for module in INCEPTIONS:
        for branch, flax in BRANCHES.items():
            names[f"layers.{module}.{branch}"] = (f"{module}/{flax}", f"{module}.{branch}")
    return names


def from_flax_pickle(data: bytes, path: str | Path, in_channels: int) -> dict[str, Tensor]:
    """Convert the Flax port of DeepMind's weights (layout ``i3d-flax-pickle``).

    These have no scale in the batch normalisation, as the TensorFlow originals: it is 1.

    Raises:
        WeightsError: the pickle is refused, or is not of this network.
    """
    arrays = read_array_pickle(data, path)
    state: dict[str, Tensor] = {}
    try:
        for ours, (theirs, _) in _units().items():
            kernel = arrays.pop(f"params/{theirs}/Conv_0/kernel")
            state[f"{ours}.conv.weight"] = _tensor(kernel.transpose(KERNEL_AXES))
            bias = arrays.pop(f"params/{theirs}/BatchNorm_0/bias")
            state[f"{ours}.norm.weight"] = torch.ones(bias.size)
            state[f"{ours}.norm.bias"] = _tensor(bias)
            for ours_name, name in (("running_mean", "mean"), ("running_var", "var")):
                value = arrays.pop(f"batch_stats/{theirs}/BatchNorm_0/{name}")
                state[f"{ours}.norm.{ours_name}"] = _tensor(value.reshape(-1))
        logits = "params/Logits/Conv3d_0c_1x1/Conv_0"
        kernel = arrays.pop(f"{logits}/kernel").transpose(KERNEL_AXES)
        state["classifier.weight"] = _tensor(kernel.reshape(kernel.shape[:2]))
        state["classifier.bias"] = _tensor(arrays.pop(f"{logits}/bias"))
    except (KeyError, ValueError) as error:
        raise _not_this_network(path, error) from error
    return _checked(state, arrays, path, in_channels)


def read_pytorch(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a PyTorch file, or of the ``model_state`` of a checkpoint.

    Raises:
        WeightsError: the file is damaged, or holds anything but tensors.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load has no error class of its own: a damaged file can raise nearly anything.
    except Exception as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise WeightsError(
            f"is not a PyTorch file of tensors only ({reason})",
            path=path,
            remedy="download it again; files that could run code are refused",
        ) from error
    if isinstance(loaded, dict):
        loaded = loaded.get("model_state", loaded)
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise WeightsError(
            "holds something else than a dictionary of tensors",
            path=path,
            remedy="give the state dictionary of the network",
        )
    return loaded


def from_pytorch(
    tensors: Mapping[str, Tensor], path: str | Path, in_channels: int
) -> dict[str, Tensor]:
    """Convert the tensors of ``rgb_imagenet.pt`` or ``flow_imagenet.pt`` of the PyTorch port.

    Raises:
        WeightsError: they are not of this network.
    """
    tensors = without_counts(tensors)
    state: dict[str, Tensor] = {}
    try:
        for ours, (_, theirs) in _units().items():
            state[f"{ours}.conv.weight"] = tensors.pop(f"{theirs}.conv3d.weight").float()
            for name in ("weight", "bias", "running_mean", "running_var"):
                state[f"{ours}.norm.{name}"] = tensors.pop(f"{theirs}.bn.{name}").float()
        weight = tensors.pop("logits.conv3d.weight").float()
        state["classifier.weight"] = weight.reshape(weight.shape[:2])
        state["classifier.bias"] = tensors.pop("logits.conv3d.bias").float()
    except (KeyError, RuntimeError) as error:
        raise _not_this_network(path, error) from error
    return _checked(state, tensors, path, in_channels)


def inflate_input(state: dict[str, Tensor], in_channels: int) -> dict[str, Tensor]:
    """Cross-modality initialisation (Wang et al. 2016, "Temporal Segment Networks", 3.2).

    The kernel of the first convolution is averaged over its input channels and the mean is
    replicated ``in_channels`` times; everything else stays. Its response is scaled by
    ``in_channels / 3`` for equal channels, which the method leaves to fine-tuning.
    """
    name = "layers.Conv3d_1a_7x7.conv.weight"
    mean = state[name].mean(dim=1, keepdim=True)
    return {**state, name: mean.repeat(1, in_channels, 1, 1, 1)}


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32).copy())


def _checked(
    state: dict[str, Tensor], left: dict[str, Any], path: str | Path, in_channels: int
) -> dict[str, Tensor]:
    if left:
        raise _not_this_network(path, f"it has {next(iter(left))} besides")
    check_state(I3D(in_channels, len(state["classifier.bias"])), state, path)
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise WeightsError(
                f"tensor {name} has values that are not finite", path=path, remedy="fetch it again"
            )
    return state


def _not_this_network(path: str | Path, reason: object) -> WeightsError:
    return WeightsError(
        f"is not Inception-I3D in the expected layout ({reason})",
        path=path,
        remedy="give the checkpoint that the model card names (`vidkd models list`)",
    )
