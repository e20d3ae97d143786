"""Official checkpoints: the published layout, written and computed here a second time."""

from __future__ import annotations

import io
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

from vidkd.errors import WeightsError
from vidkd.networks.lcrnet_converter import CAFFE_MEAN, convert_lcrnet

ANCHORS = 6


class Affine(nn.Module):
    """Detectron's frozen batch normalisation: a factor and an offset for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(channels) * 0.4 + 0.3)
        self.bias = nn.Parameter(torch.randn(channels) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class Bottleneck(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 1, stride, bias=False)
        self.bn1 = Affine(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = Affine(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = Affine(4 * width)
        if before != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, 4 * width, 1, stride, bias=False), Affine(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return functional.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.res1 = nn.Sequential(
            OrderedDict(conv1=nn.Conv2d(3, 64, 7, 2, 3, bias=False), bn1=Affine(64))
        )
        before = 64
        for number, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 2):
            layers = []
            for block in range(blocks):
                stride = 2 if block == 0 and number > 2 else 1
                layers.append(Bottleneck(before, width, stride))
                before = 4 * width
            setattr(self, f"res{number}", nn.Sequential(*layers))


class Pyramid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_body = Body()
        self.conv_top = nn.Conv2d(2048, 256, 1)
        self.topdown_lateral_modules = nn.ModuleList()
        for width in (1024, 512, 256):
            lateral = nn.Module()
            lateral.conv_lateral = nn.Conv2d(width, 256, 1)
            self.topdown_lateral_modules.append(lateral)
        self.posthoc_modules = nn.ModuleList(nn.Conv2d(256, 256, 3, 1, 1) for _ in range(4))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the levels, finest first."""
        body = self.conv_body
        x = functional.max_pool2d(functional.relu(body.res1(x)), 3, 2, 1)
        maps = []
        for number in range(2, 6):
            x = getattr(body, f"res{number}")(x)
            maps.append(x)
        inner = [self.conv_top(maps[3])]
        for step, lateral in enumerate(self.topdown_lateral_modules):
            wide = functional.interpolate(inner[-1], scale_factor=2, mode="nearest")
            inner.append(lateral.conv_lateral(maps[2 - step]) + wide)
        levels = [conv(value) for conv, value in zip(self.posthoc_modules, inner, strict=True)]
        return levels[::-1]


class Release(nn.Module):
    """The network of the release, with its names."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv_Body = Pyramid()
        self.RPN = nn.Module()
        self.RPN.FPN_RPN_conv = nn.Conv2d(256, 256, 3, 1, 1)
        self.RPN.FPN_RPN_cls_score = nn.Conv2d(256, 3, 1)
        self.RPN.FPN_RPN_bbox_pred = nn.Conv2d(256, 12, 1)
        self.Box_Head = nn.Module()
        self.Box_Head.fc1 = nn.Linear(256 * 49, 1024)
        self.Box_Head.fc2 = nn.Linear(1024, 1024)
        self.Pose_Outs = nn.Module()
        self.Pose_Outs.cls_score = nn.Linear(1024, ANCHORS + 1)
        self.Pose_Outs.pose_pred = nn.Linear(1024, 65 * (ANCHORS + 1))


@pytest.fixture(scope="module")
def release() -> Release:
    torch.manual_seed(0)
    return Release().eval()


@pytest.fixture(scope="module")
def poses() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ANCHORS, 65)).astype(np.float32)


@pytest.fixture(scope="module")
def files(
    release: Release, poses: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("release")
    # Detectron keeps its settings in a class of its own module.
    module = types.ModuleType("utils.collections")
    kind = type("AttrDict", (dict,), {"__module__": "utils.collections"})
    module.AttrDict = kind  # type: ignore[attr-defined]
    sys.modules |= {"utils": types.ModuleType("utils"), "utils.collections": module}
    cfg = kind(TEST=kind(SCALE=600, MAX_SIZE=1000), RESNETS=kind(STRIDE_1X1=True), NAME="x")
    whole = {"model": release.state_dict(), "anchor_poses": poses, "cfg": cfg, "ppi_params": {}}
    paths = {name: folder / name for name in ("whole.pkl", "weights.pth", "anchors.pkl")}
    try:
        paths["whole.pkl"].write_bytes(pickle.dumps(whole))
    finally:
        del sys.modules["utils.collections"], sys.modules["utils"]
    torch.save({"model": release.state_dict()}, paths["weights.pth"])
    paths["anchors.pkl"].write_bytes(pickle.dumps(poses))
    return paths


def test_same_numbers_as_the_release(release: Release, poses: np.ndarray, files) -> None:  # type: ignore[no-untyped-def]
    network = convert_lcrnet(files["whole.pkl"], upper=2)
    assert (network.settings.full, network.settings.upper) == (4, 2)
    assert (network.settings.short_side, network.settings.long_side) == (600, 1000)
    image = torch.rand(1, 3, 64, 128) * 255
    box = torch.tensor([[8.0, 4, 40, 60]])
    with torch.no_grad():
        bgr = (image - torch.tensor(CAFFE_MEAN).view(3, 1, 1)).flip(1)
        levels = release.Conv_Body(bgr)
        maps = network.features(image)
        for number, level in enumerate(levels):
            torch.testing.assert_close(maps[str(number)], level, rtol=1e-3, atol=1e-3)
        top = functional.relu(release.RPN.FPN_RPN_conv(levels[1]))
        objectness, deltas = network.rpn.head([maps["1"]])
        torch.testing.assert_close(
            objectness[0], release.RPN.FPN_RPN_cls_score(top), rtol=1e-3, atol=1e-3
        )
        torch.testing.assert_close(
            deltas[0], release.RPN.FPN_RPN_bbox_pred(top), rtol=1e-3, atol=1e-3
        )
        logits, raw = network.regions(maps, [box], [(64, 128)])
        rois = roi_align(levels[0], [box], 7, 0.25, 2)
        features = functional.relu(release.Box_Head.fc1(rois.flatten(1)))
        features = functional.relu(release.Box_Head.fc2(features))
        torch.testing.assert_close(
            logits, release.Pose_Outs.cls_score(features), rtol=1e-3, atol=1e-3
        )
        wanted = release.Pose_Outs.pose_pred(features)
        for k in range(ANCHORS):
            for axis in range(5):
                rows = wanted[0, 65 * (k + 1) + 13 * axis :][:13]
                torch.testing.assert_close(raw[0, k, :, axis], rows, rtol=1e-3, atol=1e-3)
    for axis in range(5):
        table = network.anchors_2d if axis < 2 else network.anchors_3d
        column = table[..., axis if axis < 2 else axis - 2]
        np.testing.assert_array_equal(column.numpy(), poses[:, 13 * axis : 13 * axis + 13])


def test_weights_and_anchors_in_two_files(release, files) -> None:  # type: ignore[no-untyped-def]
    one = convert_lcrnet(files["whole.pkl"])
    two = convert_lcrnet(files["weights.pth"], files["anchors.pkl"])
    for name, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], value, rtol=0, atol=0)
    assert two.settings.short_side == 800
    with pytest.raises(WeightsError, match="no anchor poses"):
        convert_lcrnet(files["weights.pth"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("Box_Head.fc1.weight"), "Box_Head.fc1.weight"),
        (lambda state: state.update(extra=torch.zeros(1)), "extra besides"),
        (lambda state: state.update({"Box_Head.fc1.bias": torch.zeros(3)}), "head.fc1.bias"),
    ],
)
def test_another_network(release, files, tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    state = dict(release.state_dict())
    change(state)
    path = tmp_path / "other.pth"
    torch.save(state, path)
    with pytest.raises(WeightsError, match=message):
        convert_lcrnet(path, files["anchors.pkl"])


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("exploded"),))


def test_nothing_is_run(files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    inner = io.BytesIO()
    torch.save(Bomb(), inner)

    class Storage:
        def __reduce__(self) -> tuple[object, ...]:
            return torch.storage._load_from_bytes, (inner.getvalue(),)

    for number, content in enumerate(({"model": Bomb()}, {"model": {"a": Storage()}})):
        path = tmp_path / f"{number}.pkl"
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(WeightsError, match="tensors and arrays only"):
            convert_lcrnet(path)
        with pytest.raises(WeightsError, match="pickle of one array"):
            convert_lcrnet(files["weights.pth"], path)
    (tmp_path / "cut.pkl").write_bytes(files["whole.pkl"].read_bytes()[:100_000])
    with pytest.raises(WeightsError):
        convert_lcrnet(tmp_path / "cut.pkl")
    assert not (tmp_path / "exploded").exists()
