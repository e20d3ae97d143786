"""Which backend of flow a run takes, and where."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

import vidkd.pipeline.data as stages
from vidkd.cache import CacheWriter, Provenance, Source
from vidkd.features import FlowTask
from vidkd.flow import flow_settings
from vidkd.pipeline.data import Execution
from vidkd.pipeline.split import Split
from vidkd.recipe import FlowSettings


def of(cache: Path, backend: str = "auto", **changes: Any) -> tuple[Split, Execution]:
    values = {
        "recipe": SimpleNamespace(flow=FlowSettings(backend=backend), frames=None),  # type: ignore[arg-type]
        "layout": SimpleNamespace(cache=cache),
        "videos": [],
    }
    return cast(Split, SimpleNamespace(**values)), Execution(workers=3, **changes)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidkd.networks.select_device", lambda name: torch.device("cuda:0"))


@pytest.mark.usefixtures("gpu")
def test_auto_takes_torch_on_a_gpu_and_one_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, device = stages.flow_of(*of(tmp_path))
    assert (flow.backend, device) == ("torch", "cuda:0")
    flow, device = stages.flow_of(*of(tmp_path, "opencv"))
    assert (flow.backend, device) == ("opencv", "cpu")
    calls = []

    def extract(videos: object, task: FlowTask, workers: int, **_: object) -> list[object]:
        calls.append((task.flow, task.device, workers))
        return []

    monkeypatch.setattr(stages, "run_jobs", extract)
    stages.extract_flow(*of(tmp_path))
    stages.extract_flow(*of(tmp_path, "numba"))
    assert calls == [
        (FlowSettings(backend="torch"), "cuda:0", 1),
        (FlowSettings(backend="numba"), "cpu", 3),
    ]


@pytest.mark.usefixtures("gpu")
def test_auto_stays_with_the_backend_of_the_flow_that_is_there(tmp_path: Path) -> None:
    settings = {"flow": flow_settings(FlowSettings(backend="numba"))}
    source = Source("a.mp4", 1, "ab", Fraction(25))
    path = tmp_path / "flow" / "S1" / "a.h5"
    with CacheWriter(path, Provenance("flow", source, settings), (2,), "uint8") as writer:
        writer.append(np.zeros((1, 2)), [[0, 1]])
    (tmp_path / "flow" / "A.h5").write_text("damaged")
    flow, device = stages.flow_of(*of(tmp_path))
    assert (flow.backend, device) == ("numba", "cpu")
    flow, device = stages.flow_of(*of(tmp_path, overwrite=True))
    assert (flow.backend, device) == ("torch", "cuda:0")


def test_auto_takes_numba_without_a_gpu(tmp_path: Path) -> None:
    flow, device = stages.flow_of(*of(tmp_path, device="cpu"))
    assert (flow.backend, device) == ("numba", "cpu")
