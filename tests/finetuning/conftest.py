"""Artificial flow of two classes, left and right, and a small I3D to start from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from vidkd.cache import CacheWriter, Provenance, Source
from vidkd.flow import quantise
from vidkd.networks import save_weights
from vidkd.networks.i3d import I3D, Unit
from vidkd.networks.weights import state_sha256
from vidkd.recipe.jobs import FinetuneJob

FRAMES, SIDE, RATE = 96, 40, 16


def flow_video(number: int) -> tuple[np.ndarray, list[dict[str, object]]]:
    """Return quantised flow (N, H, W, 2) with motion up, down and none in turn."""
    rng = np.random.default_rng(number)
    flow = rng.normal(0, 0.3, (FRAMES, SIDE, SIDE + 8, 2))
    segments = []
    for part, label in enumerate(("up", "", "down")):
        first = part * FRAMES // 3
        if label:
            flow[first : first + FRAMES // 3, ..., 1] += {"up": -6, "down": 6}[label]
            times = [first / RATE, (first + FRAMES // 3) / RATE]
            segments.append({"label": label, "segment": times})
    return quantise(flow.astype(np.float32)), segments


def write_flow(path: Path, rows: np.ndarray, bound: float = 20.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    provenance = Provenance(
        artefact="flow",
        source=Source(path.stem, 1, "00" * 32, Fraction(RATE), len(rows)),
        settings={
            "frames": {"short_side": SIDE, "frame_rate": None, "resize": "swscale-bilinear"},
            "flow": {"backend": "opencv", "bound": bound},
        },
        versions={},
    )
    times = np.arange(len(rows) + 1) / RATE
    with CacheWriter(path, provenance, rows.shape[1:], "uint8") as writer:
        writer.append(rows, np.stack([times[:-1], times[1:]], axis=1))
        writer.frame_count = len(rows)


@pytest.fixture(scope="session")
def small_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a random flow network under the name of a card."""
    folder = tmp_path_factory.mktemp("models")
    generator = torch.Generator().manual_seed(0)
    network = I3D(2, 3)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Unit):
                fan_in = module.conv.weight[0].numel()
                module.conv.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
    state = {k: v for k, v in network.state_dict().items() if not k.endswith("batches_tracked")}
    name = "i3d-flow-inflated"
    header = {"network": "i3d", "card": name, "weights_sha256": state_sha256(state)}
    save_weights(folder / f"{name}.safetensors", state, header)
    return folder


@pytest.fixture(scope="session")
def flow_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flow")
    database = {}
    for number in range(4):
        name = f"v{number}"
        rows, segments = flow_video(number)
        write_flow(folder / "cache" / "flow" / f"{name}.h5", rows)
        subset = "validation" if number == 3 else "training"
        database[name] = {"subset": subset, "duration": FRAMES / RATE, "annotations": segments}
    content = {"classes": ["up", "down"], "database": database}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def own_flow_data(flow_data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(flow_data, tmp_path / "own"))


MakeJob = Callable[..., FinetuneJob]


@pytest.fixture
def make_job(
    flow_data: Path, small_start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> MakeJob:
    monkeypatch.setenv("VIDKD_MODELS", str(small_start))

    def make(output: str = "tiny-flow", folder: Path = flow_data, **fields: object) -> FinetuneJob:
        values: dict[str, object] = {
            "modality": "flow",
            "annotations": folder / "annotations.json",
            "cache": folder / "cache",
            "output": tmp_path / output,
            "encoder": "i3d-flow-inflated",
            "crop": 32,
            "epochs": 2,
            "batch_size": 4,
            "snippets_per_epoch": 8,
            "device": "cpu",
            "workers": 0,
            "freeze_until": "Mixed_4f",
            "batch_norm": "frozen",
            **fields,
        }
        return FinetuneJob.model_validate(values)

    return make


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
