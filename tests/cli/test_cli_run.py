"""``vidkd run`` as a process: the whole chain at the smallest size, killed and started again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from in_process import vidkd

from vidkd.cache import CacheFile
from vidkd.networks import save_weights
from vidkd.networks.i3d import I3D
from vidkd.networks.weights import state_sha256

RECIPE = """
name: tiny
description: the whole chain at the smallest size
synth: {videos: 6, seconds: 4, width: 96, height: 72, frame_rate: 10, seed: 3}
frames: {short_side: 48}
snippet: {length: 16, stride: 16}
encoders:
  rgb: {name: i3d-rgb-kinetics400, crop: 48}
  flow: {name: i3d-flow-inflated, crop: 48}
filter: {channels: 16, layers: 2}
optimiser: {epochs: 2, batch_size: 2}
teachers: [flow]
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose encoders have random weights, so that nothing is fetched."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name, channels in (("i3d-rgb-kinetics400", 3), ("i3d-flow-inflated", 2)):
        state = {
            key: value
            for key, value in I3D(channels, 400).state_dict().items()
            if not key.endswith("num_batches_tracked")
        }
        header = {"network": "i3d", "card": name, "weights_sha256": state_sha256(state)}
        save_weights(folder / f"{name}.safetensors", state, header)
    return {**os.environ, "VIDKD_MODELS": str(folder)}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(RECIPE)
    return path


def command(recipe: Path, output: Path, *options: str) -> list[str]:
    start = [sys.executable, "-m", "vidkd", "run", str(recipe), "--output", str(output)]
    return [*start, "--workers", "1", "--device", "cpu", *options]


def run(
    recipe: Path, output: Path, environment: dict[str, str], *options: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(recipe, output, *options),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def undisturbed(
    recipe: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("runs") / "undisturbed"
    done = run(recipe, output, environment)
    assert done.returncode == 0, done.stderr
    assert "augmented RGB" in done.stdout
    return output


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_chain_ends_with_all_rows_and_pictures(
    undisturbed: Path, recipe: Path, environment: dict[str, str]
) -> None:
    results = json.loads((undisturbed / "results.json").read_text())
    rows = {row["model"]: row["inputs"] for row in results["rows"]}
    assert rows == {
        "flow teacher": "flow",
        "vanilla RGB": "rgb",
        "two-stream": "rgb + flow",
        "augmented RGB": "rgb",
    }
    assert all(Path(path).stat().st_size > 0 for path in results["pictures"])
    again = run(recipe, undisturbed, environment, "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout)["rows"] == results["rows"]
    assert again.stderr.count("done before") >= 10


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_best_model_on_validation_within_a_budget_is_chosen(
    undisturbed: Path, recipe: Path, environment: dict[str, str]
) -> None:
    too_much = run(recipe, undisturbed, environment, "--budget", "1e9")
    assert too_much.returncode == 2
    assert "no model reaches 1e+09 frames/s on this machine (the fastest, " in too_much.stderr
    assert not (undisturbed / "models" / "chosen").exists()
    rates = json.loads((undisturbed / "speed.json").read_text())["frames_per_second"]
    assert rates.keys() == {"flow-teacher", "vanilla-rgb", "two-stream", "augmented-rgb"}
    # Both streams take longer than either: a budget between leaves three.
    budget = (rates["two-stream"] + rates["flow-teacher"]) / 2
    done = run(recipe, undisturbed, environment, "--budget", str(budget), "--json")
    assert done.returncode == 0, done.stderr
    choice = json.loads(done.stdout)["choice"]
    fits = {item["name"]: item["validation"] for item in choice["candidates"] if item["fits"]}
    assert set(fits) == {"flow teacher", "vanilla RGB", "augmented RGB"}
    assert fits[choice["row"]] == max(fits.values())
    own = {"flow teacher": "teacher-flow"}.get(choice["row"], choice["row"].lower())
    trained = undisturbed / "models" / f"{own.replace(' ', '-')}-seed0" / "weights.safetensors"
    chosen = undisturbed / "models" / "chosen" / "weights.safetensors"
    assert chosen.read_bytes() == trained.read_bytes()
    assert Path(choice["picture"]).stat().st_size > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_at_random_moments_it_ends_as_if_undisturbed(
    undisturbed: Path, recipe: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "disturbed"
    moments = random.Random(7)
    for stage in ("features-rgb", "vanilla-rgb"):
        process = subprocess.Popen(
            command(recipe, output),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stderr is not None
        assert any(stage in line for line in process.stderr)
        time.sleep(moments.uniform(0, 1))
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    done = run(recipe, output, environment)
    assert done.returncode == 0, done.stderr
    for name in ("teacher-flow", "vanilla-rgb", "augmented-rgb"):
        weights = Path("models") / f"{name}-seed0" / "weights.safetensors"
        assert (output / weights).read_bytes() == (undisturbed / weights).read_bytes()
    caches = sorted(path.relative_to(undisturbed) for path in undisturbed.glob("cache/**/*.h5"))
    assert len(caches) == 18
    for path in caches:
        with CacheFile(undisturbed / path) as expected, CacheFile(output / path) as found:
            assert (expected.data[:] == found.data[:]).all()
    rows = [json.loads((p / "results.json").read_text())["rows"] for p in (output, undisturbed)]
    assert rows[0] == rows[1]
    assert not list(output.rglob("*.partial*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "there is no such recipe"),
        (["folder"], "the recipe names no"),
        (["demo", "--videos", "x"], "renders its own videos"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = vidkd("run", *arguments, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_key_in_a_recipe_is_named(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(RECIPE + "colour: blue\n")
    done = vidkd("run", path)
    assert done.returncode == 2
    assert "colour" in done.stderr
