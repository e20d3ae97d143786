"""The stage times of ``vidkd speed``: what follows from them, and the command itself."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from in_process import vidkd

from vidkd.pipeline.speed import Speed, Times
from vidkd.video import VideoWriter


def speed(**stages: tuple[float, float]) -> Speed:
    times = {name: Times([wall], [processor]) for name, (wall, processor) in stages.items()}
    return Speed(Path("a.mp4"), "rgb", 100, times, Times([4.0], [6.0]), 2)


def test_the_limit_is_the_slowest_stage_while_processors_are_idle() -> None:
    found = speed(decode=(1.0, 1.0), encode=(3.0, 3.0))
    assert found.slowest == "encode"
    assert found.limit == 3.0
    assert found.to_json()["whole_to_limit"] == pytest.approx(4 / 3)
    assert found.to_json()["frames_per_second"] == 25.0


def test_the_limit_is_all_processor_time_when_one_stage_uses_every_processor() -> None:
    found = speed(decode=(1.0, 1.0), encode=(3.0, 6.0))
    assert found.limit == 3.5
    assert found.to_json()["whole_to_slowest_stage"] == pytest.approx(4 / 3)


def test_a_stage_is_held_against_what_the_machine_can_do_at_best() -> None:
    times = {name: Times([2.0], [2.0]) for name in ("decode", "transform", "encode")}
    found = Speed(Path("a.mp4"), "rgb", 100, times, Times([4.0], [6.0]), 2, 90.0, 60.0, 4.0, 8.0)
    assert found.shares() == {"whole": 0.75, "encode": 0.75, "transform": 0.25}
    assert found.to_json()["network_gflops"] == 45.0


def test_the_median_ignores_one_disturbed_round() -> None:
    assert Times([1.0, 9.0, 1.2], [1, 1, 1]).seconds == 1.2


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "noise.mp4"
    generator = np.random.default_rng(0)
    with VideoWriter(path, 96, 80, Fraction(25)) as writer:
        for _ in range(30):
            writer.write(generator.integers(0, 255, (80, 96, 3), dtype=np.uint8))
    return path


@pytest.mark.slow
def test_the_command_times_flow(video: Path) -> None:
    options = ("--modality", "flow", "--short-side", 32, "--rounds", 2)
    command = [sys.executable, "-m", "vidkd", "speed", video, *options, "--seconds", 0.6, "--json"]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["frames"] == 15
    assert list(found["stages"]) == ["decode", "flow", "write"]
    assert all(len(stage["wall"]) == 2 for stage in found["stages"].values())
    slowest = max(found["stages"].values(), key=lambda stage: sum(stage["wall"]))
    assert sum(found["whole"]["wall"]) / sum(slowest["wall"]) == pytest.approx(
        found["whole_to_slowest_stage"]
    )


def test_what_is_no_video_is_one_line(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    result = vidkd("bench", text, "--modality", "flow")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert str(text) in result.stderr


def test_rgb_stages_and_the_share_of_a_matrix_product(video: Path) -> None:
    import torch

    from vidkd.pipeline.speed import feature_speed
    from vidkd.recipe import FrameSettings, SnippetSettings, model_cards
    from vidkd.streams import RGB

    class Mean:
        card = model_cards()["i3d-rgb-kinetics400"]
        weights_sha256 = "0"
        device = torch.device("cpu")

        def features(self, x: torch.Tensor, /) -> torch.Tensor:
            return x.mean(dim=(2, 3, 4)).repeat(1, 2)

    found = feature_speed(
        video,
        RGB,
        Mean(),
        FrameSettings(short_side=64),
        SnippetSettings(length=16, stride=8),
        56,
        2,
        seconds=10,
        rounds=1,
    )
    assert list(found.stages) == ["decode", "transform", "encode", "write"]
    assert found.frames == 30
    # 1 + ceil((30 - 16) / 8) snippets, each of a quarter of the 13.9 GFLOP of a 112-pixel crop.
    assert found.gflop == pytest.approx(3 * 13.9 / 4, rel=0.1)


def test_every_library_computes_the_same_matrix_product() -> None:
    import torch

    from vidkd.pipeline.machine import fastest, float32_products, operations

    size = (128, 48, 32)
    products = float32_products(size, torch.device("cpu"))
    expected = products.pop("torch.mm")()
    assert expected.shape == (128, 32)
    for call in products.values():
        torch.testing.assert_close(call().reshape(32, 128).T, expected)
    calls: list[int] = []
    assert fastest(lambda: calls.append(1), operations(size), 3) > 0
    assert len(calls) == 4
