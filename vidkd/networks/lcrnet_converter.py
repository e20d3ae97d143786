"""Official LCR-Net++ checkpoints (release v2) to :class:`vidkd.networks.lcrnet.LCRNet`.

That release is a network of Detectron.pytorch: ResNet-50 with a feature pyramid, two linear layers
and ``Pose_Outs``, with anchor poses as rows of x, y, X, Y, Z of all joints. Two forms are read: one
pickle with ``model``, ``anchor_poses`` and ``cfg``, or a file of ``torch.save`` with the anchor
poses beside it. Nothing of them is run: tensors go through ``weights_only=True``, everything else
through the restricted unpickler of :mod:`vidkd.networks.converters`.

The originals could not be obtained by this project. What is written here follows their published
layout; it was tested on checkpoints of that layout, not on the originals.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from vidkd.errors import WeightsError
from vidkd.networks.converters import _Array, _ArraysOnly
from vidkd.networks.lcrnet import JOINTS, LCRNet, PoseNetSettings, with_weights

Content = TypeVar("Content")

CAFFE_MEAN = (122.7717, 115.9465, 102.9801)
"""Red, green and blue that Detectron subtracts; it wants the channels in the other order."""
_NORM_EPSILON = 1e-5
_VALUES = 5 * JOINTS
_STAGES = (3, 4, 6, 3)
_ZIP = b"PK"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How files of ``torch.save`` begin, today and before PyTorch 1.6."""


class _Settings(dict[Any, Any]):
    """Stands for Detectron's dictionary of settings, whose attributes are its entries."""

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.update(state)


def _tensors_only(data: object) -> Any:
    """Stand for ``torch.storage._load_from_bytes``, which would run any pickle."""
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError("a tensor holds something else than bytes")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _rebuild(storage: Any, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
    """Stand for ``torch._utils._rebuild_tensor_v2``; the view is checked against the storage."""
    if not isinstance(storage, torch.storage.TypedStorage):
        raise pickle.UnpicklingError("a tensor has no storage")
    with warnings.catch_warnings():
        # That such storages are deprecated is no news to the user of an old checkpoint.
        warnings.simplefilter("ignore")
        flat = torch.empty(0, dtype=storage.dtype).set_(storage.untyped())
    return flat.as_strided(tuple(size), tuple(stride), int(offset))


class _Checkpoint(_ArraysOnly):
    """Unpickler of nested dictionaries of tensors, arrays and plain values."""

    ALLOWED: dict[tuple[str, str], Any] = {  # noqa: RUF012
        **_ArraysOnly.ALLOWED,
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
        ("torch.storage", "_load_from_bytes"): _tensors_only,
        ("utils.collections", "AttrDict"): _Settings,
        ("core.config", "AttrDict"): _Settings,
    }


def convert_lcrnet(checkpoint: Path, anchors: Path | None = None, upper: int = 0) -> LCRNet:
    """Convert an official checkpoint.

    Args:
        checkpoint: the pickle with everything, or the file of weights alone.
        anchors: the pickle of the anchor poses (K, 65), when they are not in the checkpoint.
        upper: how many anchor poses, the last ones, are of the upper body: 100 for a model whose
            name says ``K100x2``.

    Raises:
        WeightsError: a file is missing, damaged, asks for more than tensors and arrays, or is of
            another network; the message names the first tensor that differs.
    """
    content = _read(checkpoint)
    poses = content.get("anchor_poses") if anchors is None else _read_anchors(anchors)
    if poses is None:
        raise WeightsError(
            "holds no anchor poses", path=checkpoint, remedy="give their file with --anchors"
        )
    table = np.asarray(poses.value if isinstance(poses, _Array) else poses, np.float32)
    if table.ndim != 2 or table.shape[1] != _VALUES or not np.isfinite(table).all():
        raise WeightsError(
            f"has anchor poses of shape {table.shape} where (K, {_VALUES}) is expected",
            path=anchors or checkpoint,
            remedy="give a model of 13 joints",
        )
    if not 0 <= upper < len(table):
        raise WeightsError(
            f"has {len(table)} anchor poses, of which {upper} cannot be of the upper body",
            path=checkpoint,
            remedy="correct --upper",
        )
    weights = content.get("model", content)
    if not isinstance(weights, Mapping) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise _not_this_network(checkpoint, "its weights are no dictionary of tensors")
    state = _state(dict(weights), checkpoint)
    flat, solid = np.split(table, [2 * JOINTS], axis=1)
    # Rows hold one coordinate of all joints after the other.
    for name, part in (("anchors_2d", flat), ("anchors_3d", solid)):
        poses = part.reshape(len(table), -1, JOINTS).transpose(0, 2, 1)
        state[name] = torch.from_numpy(np.ascontiguousarray(poses))
    return with_weights(_settings(content.get("cfg"), len(table), upper), state, checkpoint)


def _settings(cfg: object, count: int, upper: int) -> PoseNetSettings:
    def given(section: str, key: str, default: Any) -> Any:
        part = cfg.get(section) if isinstance(cfg, Mapping) else None
        value = part.get(key, default) if isinstance(part, Mapping) else default
        return value if isinstance(value, type(default)) else default

    in_1x1 = given("RESNETS", "STRIDE_1X1", True)
    return PoseNetSettings(
        backbone="resnet50-fpn-detectron" if in_1x1 else "resnet50-fpn",
        full=count - upper,
        upper=upper,
        short_side=given("TEST", "SCALE", 800),
        long_side=given("TEST", "MAX_SIZE", 1333),
        mean=CAFFE_MEAN,
        deviation=(1.0, 1.0, 1.0),
        bgr=True,
        proposals=given("TEST", "RPN_POST_NMS_TOP_N", 1000),
    )


def names() -> dict[str, str]:
    """Map the names of our convolutions and linear layers to those of the release."""
    table = {
        "backbone.stem.0": "Conv_Body.conv_body.res1.conv1",
        "rpn.head.conv.0.0": "RPN.FPN_RPN_conv",
        "rpn.head.cls_logits": "RPN.FPN_RPN_cls_score",
        "rpn.head.bbox_pred": "RPN.FPN_RPN_bbox_pred",
        "head.fc1": "Box_Head.fc1",
        "head.fc2": "Box_Head.fc2",
        "classifier": "Pose_Outs.cls_score",
        "regressor": "Pose_Outs.pose_pred",
    }
    for stage, blocks in enumerate(_STAGES):
        for block in range(blocks):
            ours = f"backbone.stages.{stage}.{block}"
            theirs = f"Conv_Body.conv_body.res{stage + 2}.{block}"
            table |= {f"{ours}.conv{i}": f"{theirs}.conv{i}" for i in (1, 2, 3)}
            if block == 0:
                table[f"{ours}.downsample.0"] = f"{theirs}.downsample.0"
    # Ours are counted from the finest level, theirs from the coarsest.
    for level in range(4):
        lateral = f"topdown_lateral_modules.{2 - level}.conv_lateral" if level < 3 else "conv_top"
        table[f"backbone.pyramid.inner_blocks.{level}.0"] = f"Conv_Body.{lateral}"
        table[f"backbone.pyramid.layer_blocks.{level}.0"] = f"Conv_Body.posthoc_modules.{3 - level}"
    return table


def _norms() -> dict[str, str]:
    """Map our batch normalisations to their channel-wise affine layers."""
    table = {"backbone.stem.1": "Conv_Body.conv_body.res1.bn1"}
    for ours, theirs in names().items():
        if ".stages." in ours and ".conv" in ours:
            table[ours.replace(".conv", ".bn")] = ".bn".join(theirs.rsplit(".conv", 1))
        elif ours.endswith("downsample.0"):
            table[f"{ours[:-1]}1"] = f"{theirs[:-1]}1"
    return table


def _state(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    weights = {name: value.float() for name, value in weights.items()}
    state: dict[str, Tensor] = {}
    try:
        for ours, theirs in names().items():
            state[f"{ours}.weight"] = weights.pop(f"{theirs}.weight")
            if ".conv_body." not in theirs:
                state[f"{ours}.bias"] = weights.pop(f"{theirs}.bias")
        for ours, theirs in _norms().items():
            scale = weights.pop(f"{theirs}.weight")
            state[f"{ours}.weight"], state[f"{ours}.bias"] = scale, weights.pop(f"{theirs}.bias")
            # Their layer only scales and shifts: these statistics make ours do the same.
            state[f"{ours}.running_mean"] = torch.zeros_like(scale)
            state[f"{ours}.running_var"] = torch.full_like(scale, 1 - _NORM_EPSILON)
    except KeyError as error:
        raise _not_this_network(path, f"it has no {error}") from error
    # Statistics of a batch normalisation that was frozen into an affine layer mean nothing.
    left = [name for name in weights if not name.endswith(("running_mean", "running_var"))]
    if left:
        raise _not_this_network(path, f"it has {left[0]} besides")
    for name in ("regressor.weight", "regressor.bias"):
        # The first rows are of the background, which has no pose.
        state[name] = state[name][_VALUES:].clone()
    return state


def _read(path: Path) -> dict[str, Any]:
    """Read a checkpoint of either form."""

    def load(data: bytes) -> dict[str, Any]:
        archive = data.startswith((_ZIP, _LEGACY))
        content = _tensors_only(data) if archive else _Checkpoint(io.BytesIO(data)).load()
        if not isinstance(content, dict):
            raise pickle.UnpicklingError("it is no dictionary")
        return content

    remedy = "unpack it if it is an archive; files that could run code are refused"
    return dict(_loaded(path, load, "a checkpoint of tensors and arrays only", remedy))


def _read_anchors(path: Path) -> object:
    def load(data: bytes) -> object:
        content = _ArraysOnly(io.BytesIO(data)).load()
        return content.get("anchor_poses") if isinstance(content, dict) else content

    remedy = "give the anchor poses of the release"
    return _loaded(path, load, "a pickle of one array", remedy)


def _loaded(path: Path, load: Callable[[bytes], Content], what: str, remedy: str) -> Content:
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise WeightsError(
            f"cannot be read ({error.strerror or error})", path=path, remedy="check the path"
        ) from error
    # Damaged files can raise nearly anything from inside the unpicklers.
    except Exception as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise WeightsError(f"is not {what} ({reason})", path=path, remedy=remedy) from error


def _not_this_network(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"is not LCR-Net++ with ResNet-50 and a feature pyramid in the layout of release v2 "
        f"({reason})",
        path=path,
        remedy="give a ResNet50-FPN model of 13 joints",
    )
