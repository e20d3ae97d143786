"""docs/extending.md: its package is installed as it stands there, and its commands are run."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import tomllib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from vidkd.cache import CacheFile
from vidkd.video import VideoWriter, read_frames

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")

# One process for all commands: a new one takes seconds to import torch.
DRIVER = """
import shlex, sys
from vidkd.cli import main

if __name__ == "__main__":
    for line in sys.stdin:
        sys.argv = shlex.split(line)
        try:
            main()
        except SystemExit as end:
            if end.code:
                sys.exit(f"{line}: exit code {end.code}")
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def install(site: Path) -> None:
    """Lay out what an installer makes of the page's package."""
    for block in blocks("python"):
        path = site / block.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block, encoding="utf-8")
    [text] = blocks("toml")
    project = tomllib.loads(text)["project"]
    metadata = site / "my_parts-1.0.dist-info"
    metadata.mkdir()
    metadata.joinpath("METADATA").write_text(f"Name: {project['name']}\nVersion: 1.0\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    metadata.joinpath("entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which every command of the page was run."""
    folder = tmp_path_factory.mktemp("extending")
    install(folder / "site")
    (folder / "videos").mkdir()
    lines = []
    for number in range(4):
        picture = np.full((48, 64, 3), 40 + 50 * number, np.uint8)
        picture[:24, :32] = (200, 30, 90)
        with VideoWriter(folder / "videos" / f"video{number}.mp4", 64, 48, Fraction(25)) as writer:
            for shade in range(40):
                writer.write(picture + np.uint8(shade))
        subset = "training" if number < 2 else "validation"
        lines.append(f"{subset} video{number} 0 {23 if number % 2 else 39} class{number % 2}")
    (folder / "labels.txt").write_text("\n".join(lines) + "\n")
    generator = torch.Generator().manual_seed(0)
    weights = {
        "linear.weight": torch.randn(8, 12, generator=generator),
        "linear.bias": torch.randn(8, generator=generator),
    }
    torch.save(weights, folder / "quarters.pt")
    (folder / "driver.py").write_text(DRIVER)
    paths = [str(folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "VIDKD_MODELS": str(folder / "models"),
    }
    [commands] = blocks("sh")
    done = subprocess.run(
        [sys.executable, "driver.py"],
        input=commands,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def snippets(folder: Path) -> np.ndarray:
    """Return the four snippets (N, 16, H, W, 3) of 16 frames, 8 apart, of the first video."""
    path = folder / "videos" / "video0.mp4"
    images = np.stack([frame.image for frame in read_frames(path, short_side=32)])
    return np.stack([images[first : first + 16] for first in (0, 8, 16, 24)])


@pytest.mark.slow
def test_the_encoder_gives_its_features(folder: Path) -> None:
    weights = torch.load(folder / "quarters.pt", weights_only=True)
    clips = snippets(folder)
    left = (clips.shape[3] - 32) // 2
    clips = clips[:, :, :, left : left + 32].reshape(4, 16, 2, 16, 2, 16, 3)
    means = (clips / 127.5 - 1).mean(axis=(1, 3, 5))  # (clip, row, column, colour)
    inputs = torch.from_numpy(means.transpose(0, 3, 1, 2).reshape(4, 12)).float()
    expected = inputs @ weights["linear.weight"].T + weights["linear.bias"]
    with CacheFile(folder / "cache/features/quarters/video0.h5") as file:
        np.testing.assert_allclose(file.rows(), expected, rtol=2e-3, atol=2e-3)  # float16
        assert file.provenance.encoder == "quarters"


@pytest.mark.slow
def test_the_stream_gives_its_features(folder: Path) -> None:
    levels = snippets(folder).mean(axis=(2, 3, 4))
    with CacheFile(folder / "cache/features/brightness/video0.h5") as file:
        found = file.rows()
    np.testing.assert_allclose(found[:, 0], levels.mean(1), atol=0.1)
    np.testing.assert_allclose(found[:, 1], levels.std(1, ddof=1), atol=0.1)


@pytest.mark.slow
def test_the_filter_is_trained_on_the_labels_of_the_reader(folder: Path) -> None:
    with safe_open(folder / "baseline/weights.safetensors", "pt") as file:
        assert file.get_tensor("project.weight").shape[1:] == (8, 1)
        header = str(file.metadata())
    assert "moving-average" in header
    assert "class0" in header
    assert "class1" in header
    result = json.loads((folder / "baseline/result.json").read_text())
    assert (result["training_videos"], result["validation_videos"]) == (2, 2)


@pytest.mark.slow
def test_the_loss_has_its_columns_and_its_weight(folder: Path) -> None:
    with (folder / "student/metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2
    for row in rows:
        value = float(row["cosine_brightness"])
        assert 0 < value < 2
        assert float(row["cosine_brightness_weighted"]) == pytest.approx(value / 2, rel=1e-4)


@pytest.mark.slow
def test_the_student_detects(folder: Path) -> None:
    found = json.loads((folder / "found.json").read_text())["results"]["video0"]
    assert all(item["label"] in {"class0", "class1"} for item in found)


def test_the_page_shows_one_of_each_table() -> None:
    [text] = blocks("toml")
    groups = tomllib.loads(text)["project"]["entry-points"]
    assert {name.removeprefix("vidkd.") for name in groups} == {
        "datasets",
        "encoders",
        "filters",
        "losses",
        "streams",
    }
    assert len(blocks("python")) == 5
