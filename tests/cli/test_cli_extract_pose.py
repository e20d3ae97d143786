"""``vidkd extract-pose`` and ``vidkd label-poses`` as their users call them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from in_process import vidkd

from vidkd.cache import list_cache, verify_cache
from vidkd.pose.poses import Poses, load_poses
from vidkd.recipe import SynthSettings
from vidkd.synth import render_dataset
from vidkd.video import probe, read_frames

WIDTH, HEIGHT = 160, 120
Run = Callable[..., subprocess.CompletedProcess[str]]


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vidkd", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    settings = SynthSettings(videos=2, seconds=4, width=WIDTH, height=HEIGHT, frame_rate=10, seed=3)
    render_dataset(folder, settings)
    return folder


def extract(
    rendered: Path, cache: Path, *options: object, run: Run = vidkd
) -> subprocess.CompletedProcess[str]:
    common = ("--cache", cache, "--backend", "files", "--poses", rendered / "poses", "--json")
    size = ("--short-side", 60, "--workers", 1, "--min-score", 0)
    return run("extract-pose", rendered / "videos", *common, *size, *options)


def test_exact_poses_arrive_exactly_and_are_kept(rendered: Path, tmp_path: Path) -> None:
    cache, drawn = tmp_path / "cache", tmp_path / "drawn"
    done = extract(rendered, cache, "--render", drawn, run=process)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [item["state"] for item in results] == ["done", "done"]
    assert not [problems for _, problems in verify_cache(cache, rendered / "videos") if problems]
    assert {entry.artefact for entry in list_cache(cache)} == {"pose"}
    for item in results:
        poses = load_poses(item["path"])
        frames = list(read_frames(item["video"], short_side=60))
        assert (poses.width, poses.height) == frames[0].image.shape[1::-1]
        np.testing.assert_allclose(poses.pts, [(frame.start, frame.end) for frame in frames])
        assert_exact(poses, rendered / "poses" / f"{item['key']}.h5")
        assert probe(drawn / f"{item['key']}.mp4").frame_count == len(frames)

    before = {path: path.read_bytes() for path in cache.rglob("*.h5")}
    again = extract(rendered, cache)
    assert [item["state"] for item in json.loads(again.stdout)] == ["skipped", "skipped"]
    other = extract(rendered, cache, "--max-people", 2)
    assert other.returncode == 1
    reasons = [item["reason"] for item in json.loads(other.stdout)]
    assert all("tracks.max_people is 4 (asked for: 2)" in reason for reason in reasons)
    assert {path: path.read_bytes() for path in cache.rglob("*.h5")} == before


def assert_exact(poses: Poses, path: Path) -> None:
    """Compare the cache with the exact poses; which slot a person has is the tracker's choice."""
    with h5py.File(path) as file:
        points, pixels = file["joints_3d"][:], file["joints_2d"][:]
        present = file["present"][:].any(axis=2)
    points -= points[:, :, 4:6].mean(axis=2, keepdims=True)
    scaled = (pixels + 0.5) / 2 - 0.5
    slots = set()
    for person in range(points.shape[1]):
        seen = np.flatnonzero(present[:, person])
        for slot in range(4):
            found = poses.joints_2d[seen, slot]
            if (
                poses.present[seen, slot].all()
                and np.abs(found - scaled[seen, person]).max() < 0.01
            ):
                exact = points[seen, person]
                np.testing.assert_allclose(poses.joints_3d[seen, slot], exact, atol=1e-4)
                slots.add(slot)
    assert len(slots) == points.shape[1]
    assert 0 in slots


def test_wrong_usage_is_told_in_one_line(rendered: Path, tmp_path: Path) -> None:
    done = extract(rendered, tmp_path, "--max-gap", -1)
    assert done.returncode == 2
    assert "--max-gap -1" in done.stderr
    assert "Traceback" not in done.stderr


LABELLER = """
import json, sys
hello = {"format": "vidkd-labeller", "version": 1, "name": "fixed", "joints": "vidkd-13"}
print(json.dumps(hello), flush=True)
for number, line in enumerate(sys.stdin):
    person = {"joints_2d": [[20.0 + number, 5.0 * joint, 0.8] for joint in range(13)]}
    print(json.dumps({"people": [person]}), flush=True)
"""


def test_labels_can_be_used_as_poses(rendered: Path, tmp_path: Path) -> None:
    program = tmp_path / "my labeller.py"
    program.write_text(LABELLER)
    labels = tmp_path / "labels"
    done = process(
        "label-poses", rendered / "videos" / "synth_0000.mp4", "--output", labels, "--json",
        "--labeller", f"'{program}'", "--python", sys.executable, "--frames-per-second", 2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["people"] == 8
    done = vidkd(
        "extract-pose", rendered / "videos" / "synth_0000.mp4", "--cache", tmp_path,
        "--backend", "files", "--poses", labels / "videos", "--short-side", HEIGHT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = load_poses(tmp_path / "pose" / "synth_0000.h5")
    # One label each 5 frames, 1 pixel further right; uniform between, still at the end.
    expected = 20 + (np.arange(40) / 5).clip(max=7)
    np.testing.assert_allclose(found.joints_2d[:, 0, 7, 0], expected, atol=1e-3)
    np.testing.assert_allclose(found.joints_2d[:, 0, 7, 1], 35, atol=1e-3)
    assert np.isnan(found.joints_3d).all()
