"""``vidkd extract-flow`` and ``vidkd extract-features`` as their users call them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from in_process import vidkd

from vidkd.cache import CacheFile, list_cache, verify, verify_cache
from vidkd.video import VideoWriter

SMALL = ("--short-side", 48, "--backend", "opencv")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "vidkd", *map(str, arguments)]


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False)


def render(path: Path, frames: int, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    texture = np.random.default_rng(seed).integers(0, 255, (64, 200, 3), dtype=np.uint8)
    texture = texture.repeat(2, axis=1)
    with VideoWriter(path, 80, 64, Fraction(25)) as writer:
        for number in range(frames):
            writer.write(np.ascontiguousarray(texture[:, number % 100 : number % 100 + 80]))
    return path


def contents(cache: Path) -> dict[str, bytes]:
    return {
        path.relative_to(cache).as_posix(): path.read_bytes()
        for path in sorted(cache.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(("S1/walk.front", "S1/walk.left", "S2/sit")):
        render(folder / f"{name}.mp4", 24, number)
    return folder


@pytest.fixture(scope="module")
def undisturbed(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("undisturbed")
    result = process("extract-flow", videos, "--cache", cache, *SMALL, "--json")
    assert result.returncode == 0, result.stderr
    assert [(item["key"], item["state"], item["rows"]) for item in json.loads(result.stdout)] == [
        ("S1/walk.front", "done", 24),
        ("S1/walk.left", "done", 24),
        ("S2/sit", "done", 24),
    ]
    return cache


def stop_at_work(cache: Path, process: subprocess.Popen[str]) -> None:
    """Stop a whole group of processes, as SIGSTOP does, in the middle of the work on a video.

    Nothing is looked at unless all stand still, so the work cannot end before the signal comes
    that is under test. The temporary file's size says nothing: HDF5 may keep a small file in
    memory to its end.
    """
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(0.02)
        if any(cache.rglob(".*.partial.h5")):
            return
        os.killpg(process.pid, signal.SIGCONT)
        time.sleep(0.03)
    raise AssertionError("no work was seen")


@pytest.mark.slow
def test_bad_inputs_among_good_ones(videos: Path, undisturbed: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    good = (videos / "S2" / "sit.mp4").read_bytes()
    (inputs / "sit.mp4").write_bytes(good)
    (inputs / "text.mp4").write_text("this is text")
    (inputs / "empty.mp4").touch()
    (inputs / "cut.mp4").write_bytes(good[: len(good) // 3])
    cache = tmp_path / "cache"
    result = vidkd("extract-flow", inputs, "--cache", cache, *SMALL, "--json")
    assert result.returncode == 1
    states = {item["key"]: item["state"] for item in json.loads(result.stdout)}
    assert states == {"cut": "failed", "empty": "failed", "sit": "done", "text": "failed"}
    failures = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert {line.split(": ")[1] for line in failures} == {
        str(inputs / f"{name}.mp4") for name in ("cut", "empty", "text")
    }
    assert "Traceback" not in result.stderr
    assert [entry.key for entry in list_cache(cache)] == ["sit"]
    with (
        CacheFile(cache / "flow/sit.h5") as ours,
        CacheFile(undisturbed / "flow/S2/sit.h5") as file,
    ):
        np.testing.assert_array_equal(ours.rows(), file.rows())


def test_a_second_run_skips_and_other_settings_are_refused(videos: Path, undisturbed: Path) -> None:
    before = contents(undisturbed)
    call = ("extract-flow", videos, "--cache", undisturbed)
    again = vidkd(*call, *SMALL, "--json")
    assert again.returncode == 0
    assert {item["state"] for item in json.loads(again.stdout)} == {"skipped"}
    assert again.stderr.strip() == "extract-flow: done before: 3"

    other = ("--backend", "opencv", "--short-side", 64)
    refused = vidkd(*call, *other)
    assert refused.returncode == 1
    assert refused.stderr.count("frames.short_side is 48 (asked for: 64)") == 3
    assert refused.stderr.count("--overwrite") == 3

    plan = vidkd(*call, *other, "--dry-run", "--json")
    assert plan.returncode == 0
    assert {item["state"] for item in json.loads(plan.stdout)} == {"stale"}
    assert contents(undisturbed) == before


@pytest.mark.slow
def test_killed_at_any_moment_the_next_run_gives_the_same_bytes(
    videos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    call = ("extract-flow", videos, "--cache", cache, *SMALL, "--workers", 2)
    process = subprocess.Popen(command(*call), start_new_session=True, stderr=subprocess.DEVNULL)
    stop_at_work(cache, process)
    # The whole group at once, so that no worker can tidy up.
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # The workers, which nobody waits for, hold their locks until they are gone.
    left: list[Path] = []
    deadline = time.monotonic() + 100
    while not left and time.monotonic() < deadline:
        left = [path for path, problems in verify_cache(cache) if problems]
    assert left
    assert all(path.name.startswith(".") for path in left)
    result = vidkd(*call)
    assert result.returncode == 0, result.stderr
    assert contents(cache) == contents(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_stops_and_leaves_no_temporary_file(
    videos: Path, tmp_path: Path, number: signal.Signals
) -> None:
    cache = tmp_path / "cache"
    process = subprocess.Popen(
        command("extract-flow", videos, "--cache", cache, *SMALL, "--workers", 2),
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    stop_at_work(cache, process)
    # A terminal sends Ctrl-C to every process; a job scheduler ends the first one.
    if number is signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    os.killpg(process.pid, signal.SIGCONT)
    _, errors = process.communicate(timeout=200)
    if number is signal.SIGINT:
        assert process.returncode == 130
        assert "run the same command again" in errors
    assert "Traceback" not in errors
    # After SIGTERM the workers find out for themselves that nobody listens.
    deadline = time.monotonic() + 100
    while list(cache.rglob(".*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(cache.rglob(".*")) == []
    assert all(verify(path) == [] for path in cache.rglob("*.h5"))


@pytest.mark.slow
def test_two_processes_share_one_cache(videos: Path, undisturbed: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    call = command("extract-flow", videos / "S2", "--root", videos, "--cache", cache, *SMALL)
    processes = [subprocess.Popen(call, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert contents(cache) == {"flow/S2/sit.h5": contents(undisturbed)["flow/S2/sit.h5"]}


def test_a_cache_that_cannot_be_written_is_one_line(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = vidkd("extract-flow", videos / "S2", "--cache", tmp_path / "file", *SMALL)
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith(f"failed: {videos / 'S2' / 'sit.mp4'}: ")
    assert "cannot be written (Not a directory)" in line


def test_wrong_usage_exits_with_2(tmp_path: Path, videos: Path) -> None:
    assert vidkd("extract-flow", videos).returncode == 2  # --cache has no default
    wrong = vidkd("extract-flow", videos, "--cache", tmp_path, "--short-side", 3)
    assert wrong.returncode == 2
    assert "--short-side 3" in wrong.stderr
    assert len(wrong.stderr.splitlines()) == 1
    wrong = vidkd("extract-features", videos, "--cache", tmp_path, "--modality", "sound")
    assert wrong.returncode == 2
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with random weights in place of the pretrained ones."""
    import torch

    from vidkd.networks import save_weights
    from vidkd.networks.i3d import I3D
    from vidkd.networks.weights import state_sha256

    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name, channels in (("i3d-rgb-kinetics400", 3), ("i3d-flow-inflated", 2)):
        network = I3D(channels, 400)
        state = {
            key: value
            for key, value in network.state_dict().items()
            if not key.endswith("num_batches_tracked")
        }
        header = {"network": "i3d", "card": name, "weights_sha256": state_sha256(state)}
        save_weights(folder / f"{name}.safetensors", state, header)
    return folder


@pytest.mark.slow
def test_features_of_rgb_and_flow_have_the_same_rows(
    videos: Path, undisturbed: Path, models: Path, tmp_path: Path
) -> None:
    video = videos / "S2" / "sit.mp4"
    flow = tmp_path / "flow" / "S2" / "sit.h5"
    flow.parent.mkdir(parents=True)
    flow.write_bytes((undisturbed / "flow/S2/sit.h5").read_bytes())
    call = (video, "--root", videos, "--cache", tmp_path, "--short-side", 48, "--crop", 48)
    processes = [
        subprocess.Popen(
            command("extract-features", *call, "--modality", modality, "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "VIDKD_MODELS": str(models)},
        )
        for modality in ("rgb", "flow")
    ]
    (rgb, _), (of, notice) = (process.communicate() for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert "using i3d-flow-inflated" in notice
    paths = []
    for text in (rgb, of):
        [result] = json.loads(text)
        assert (result["key"], result["state"], result["rows"]) == ("S2/sit", "done", 2)
        paths.append(Path(result["path"]))
    assert paths[0] == tmp_path / "features/i3d-rgb-kinetics400/S2/sit.h5"
    assert paths[1] == tmp_path / "features/i3d-flow-inflated/S2/sit.h5"
    with CacheFile(paths[0]) as first, CacheFile(paths[1]) as second:
        assert first.data.shape == second.data.shape == (2, 1024)
        assert first.data.dtype == np.float16
        np.testing.assert_array_equal(first.pts, second.pts)
        assert second.provenance.settings["flow"]["backend"] == "opencv"
    assert all(problems == [] for _, problems in verify_cache(tmp_path, videos))
