"""``vidkd cut``: a file for each detection, made once, and a reel of all."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from in_process import vidkd

sys.path.insert(0, str(Path(__file__).parents[1] / "video"))

from test_video_sound import flash_and_beep

from vidkd.annotations import Segment
from vidkd.report.clips import choose, plan, safe_name
from vidkd.video import VideoWriter

RESULT = {
    "A b": [
        {"label": "wave / hand", "score": 0.9, "segment": [0.4, 1.0]},
        {"label": "wave / hand", "score": 0.3, "segment": [0.4, 1.4]},
        {"label": "../../Tür", "score": 0.6, "segment": [1.2, 1.8]},
    ],
    "silent": [{"label": "wave / hand", "score": 0.8, "segment": [0.2, 0.8]}],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cut")
    (folder / "videos" / "P 1").mkdir(parents=True)
    flash_and_beep(folder / "videos" / "P 1" / "A b.mp4")
    # Upright, at another rate and without sound.
    with VideoWriter(folder / "videos" / "silent.mp4", 40, 90, 10) as writer:
        for _ in range(20):
            writer.write(np.full((90, 40, 3), 128, np.uint8))
    (folder / "found.json").write_text(json.dumps({"version": "1", "results": RESULT}))
    return folder


def length(path: Path) -> float:
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        return float(sum(1 for _ in file.decode(stream)) / stream.average_rate)


def test_a_file_for_each_detection_and_a_reel(data: Path, tmp_path: Path) -> None:
    clips, reel = tmp_path / "clips", tmp_path / "reel.mp4"
    arguments = ["cut", data / "found.json", "--videos", data / "videos", "--output", clips]
    ran = vidkd(*arguments, "--margin", 0.2, "--reel", reel, "--titles", "--json")
    assert ran.returncode == 0, ran.stderr
    names = [
        "A-b_00000.40_wave-hand.mp4",
        "A-b_00000.40_wave-hand_2.mp4",
        "A-b_00001.20_Tür.mp4",
        "silent_00000.20_wave-hand.mp4",
    ]
    assert sorted(path.name for path in clips.iterdir()) == sorted([*names, "clips.json"])
    lengths = [1.0, 1.4, 1.0, 1.0]
    assert [length(clips / name) for name in names] == pytest.approx(lengths, abs=0.05)

    with av.open(str(reel)) as file:
        pictures = [frame.to_ndarray(format="gray") for frame in file.decode(video=0)]
        assert len(pictures) == pytest.approx(sum(lengths) * 25, abs=3)
        assert pictures[0].shape == (48, 64)
    # The upright clip stands between dark bars below its title.
    assert abs(float(pictures[-1][20:, 26:38].mean()) - 128) < 12
    assert pictures[-1][20:, :18].mean() < 50
    with av.open(str(reel)) as file:
        frames = [frame.to_ndarray() for frame in file.decode(audio=0)]
    samples = np.abs(np.concatenate(frames, axis=1)[0])
    loud = np.flatnonzero(samples > 0.2) / 48000
    # The beep at 1.4 s is in the second and third clips, which begin at 0.2 and 1.0 s.
    starts = loud[np.flatnonzero(np.diff(loud, prepend=-1.0) > 0.1)]
    assert starts == pytest.approx([1.0 + 1.2, 1.0 + 1.4 + 0.4], abs=0.06)

    before = {path.name: path.stat().st_mtime_ns for path in clips.glob("*.mp4")}
    (clips / names[0]).unlink()
    made = json.loads(vidkd(*arguments, "--margin", 0.2, "--json").stdout)["clips"]
    assert [item["status"] for item in made] == ["done", "skipped", "skipped", "skipped"]
    after = {path.name: path.stat().st_mtime_ns for path in clips.glob("*.mp4")}
    assert [name for name in names if before[name] != after[name]] == [names[0]]


def test_what_is_refused_and_what_fails_alone(data: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    arguments = ["cut", data / "found.json", "--videos", data / "videos", "--output", clips]
    ran = vidkd(*arguments, "--class", "jump")
    assert (ran.returncode, "there are ../../Tür, wave / hand" in ran.stderr) == (2, True)
    assert vidkd("cut", "--videos", data, "--output", clips).returncode == 2
    clips.mkdir()
    (clips / "A-b_00000.40_wave-hand.mp4").write_text("mine")
    ran = vidkd(*arguments, "--top", 1)
    assert ran.returncode == 2
    assert (clips / "A-b_00000.40_wave-hand.mp4").read_text() == "mine"
    labels = tmp_path / "labels.csv"
    labels.write_text("A b,0.4,0.9,x\nabsent,0,1,x\nsilent,50,60,x\n")
    other = tmp_path / "other"
    ran = vidkd(
        *("cut", "--annotations", labels, "--videos", data / "videos", "--output", other, "--copy")
    )
    assert ran.returncode == 1
    assert "no video for 'absent'" in ran.stderr
    assert (other / "A-b_00000.40_x.mp4").exists()
    assert "copies begin at key frames" in ran.stderr


def test_choosing_and_naming() -> None:
    found = [
        ("v", Segment(0, 1, "a", 0.2)),
        ("v", Segment(1, 2, "b", 0.9)),
        ("w", Segment(0, 1, "a", 0.5)),
    ]
    assert [s.score for _, s in choose(found, top=2)] == [0.9, 0.5]
    assert [s.score for _, s in choose(found, ["a"], 0.3)] == [0.5]
    assert safe_name("<script>/..") == "script"
    assert safe_name("...") == "unnamed"
    assert len(safe_name("é" * 500).encode()) <= 80
    files = [
        c.file
        for c in plan(
            [("a/b", found[0][1]), ("a-b", found[0][1])], {"a/b": Path("x"), "a-b": Path("y")}
        )
    ]
    assert len(set(files)) == 2
