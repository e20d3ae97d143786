"""Labels from another program: what it says arrives, and whatever it does wrong is told."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vidkd.errors import VidkdError
from vidkd.pose.labelling import Labeller, label_videos
from vidkd.pose.labels import read_labels
from vidkd.video import VideoFile, VideoWriter

# Its people stand where the picture's white square is, and nobody stands in a black picture.
LABELLER = """
import json, sys
import numpy as np
from PIL import Image
print(json.dumps({"format": "vidkd-labeller", "version": 1, "name": "square",
                  "joints": "coco-17", "settings": {"mark": sys.argv[1:]}}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    rows, columns = np.nonzero(np.array(Image.open(asked["image"]).convert("L")) > 128)
    at = [float(columns.mean()), float(rows.mean()), 0.9] if len(rows) else None
    people = [{"joints_2d": [at] * 17}] if at else []
    print(json.dumps({"people": people}), flush=True)
print("the end of the pictures", file=sys.stderr)
"""


def make_labeller(folder: Path, program: str = LABELLER) -> list[str]:
    path = folder / "labeller.py"
    path.write_text(program)
    return [sys.executable, str(path)]


@pytest.fixture
def videos(tmp_path: Path) -> list[VideoFile]:
    """Two videos of 3 s in which a square moves; nobody is in the first second of the second."""
    made = []
    for name in ("one", "two"):
        path = tmp_path / "videos" / f"{name}.mp4"
        path.parent.mkdir(exist_ok=True)
        with VideoWriter(path, 96, 64, Fraction(10)) as writer:
            for number in range(30):
                image = np.zeros((64, 96, 3), np.uint8)
                if name == "one" or number >= 10:
                    image[20:30, 2 * number : 2 * number + 10] = 255
                writer.write(image)
        made.append(VideoFile(path, f"set/{name}"))
    return made


def test_frames_are_labelled_by_time_and_can_be_trained_on(
    videos: list[VideoFile], tmp_path: Path
) -> None:
    output = tmp_path / "labels"
    results = label_videos(videos, output, make_labeller(tmp_path), frames_per_second=2)
    assert [(item.key, item.status, item.frames, item.people) for item in results] == [
        ("set/one", "done", 6, 6),
        ("set/two", "done", 6, 4),
    ]
    frames = read_labels(output)
    assert len(frames) == 10  # those without people are left out
    for number, frame in enumerate(frames[:6]):
        with Image.open(frame.source) as picture:
            assert picture.size == (96, 64)
        # At 2 labels/s of 10 frames/s, label k shows frame 5 k; the square's middle is exact.
        expected = [2 * 5 * number + 4.5, 24.5]
        np.testing.assert_allclose(frame.people[0].joints_2d[0], expected, atol=0.3)
    every = label_videos(videos, output, make_labeller(tmp_path), keep_empty=True)
    assert [item.status for item in every] == ["skipped", "skipped"]
    assert len(read_labels(output)) == 12


def test_what_is_labelled_is_kept_and_other_settings_are_refused(
    videos: list[VideoFile], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output, command = tmp_path / "labels", make_labeller(tmp_path)
    label_videos(videos[:1], output, command)
    first = (output / "videos" / "set" / "one.json").read_bytes()
    results = label_videos(videos, output, command)
    assert [item.status for item in results] == ["skipped", "done"]
    assert (output / "videos" / "set" / "one.json").read_bytes() == first
    for change in ({"command": [*command, "new"]}, {"short_side": 64}, {"frames_per_second": 4}):
        arguments: dict[str, Any] = {"command": command, **change}
        results = label_videos(videos[:1], output, **arguments)
        assert results[0].status == "failed"
        assert "--overwrite" in results[0].reason
    assert "set/one.json: was labelled with other settings" in capfd.readouterr().err
    results = label_videos(videos[:1], output, command, frames_per_second=4, overwrite=True)
    assert (results[0].status, results[0].frames) == ("done", 12)


def test_a_broken_video_fails_alone(videos: list[VideoFile], tmp_path: Path) -> None:
    broken = tmp_path / "videos" / "broken.mp4"
    broken.write_bytes(videos[0].path.read_bytes()[:2000])
    inputs = [VideoFile(broken, "broken"), VideoFile(tmp_path / "none.mp4", "none"), videos[1]]
    results = label_videos(inputs, tmp_path / "labels", make_labeller(tmp_path))
    assert [item.status for item in results] == ["failed", "failed", "done"]
    assert not (tmp_path / "labels" / "videos" / "broken.json").exists()
    assert len(read_labels(tmp_path / "labels")) == 4


# The first line alone, without the libraries that take time to load.
HELLO = "import json\nimport sys\n" + LABELLER[LABELLER.index("print") : LABELLER.index("for line")]


@pytest.mark.parametrize(
    ("program", "complaint"),
    [
        ("import a_module_nobody_has", "No module named 'a_module_nobody_has'"),
        ("print('hello')", "not a JSON object"),
        ("print('{}')", "did not begin with the first line"),
        (HELLO.replace("coco-17", "coco-18"), "has joints 'coco-18'"),
        (HELLO.replace('"version": 1', '"version": 2'), "did not begin"),
        (HELLO, "ended before its work was done"),
        (HELLO + "input(); raise SystemExit('out of film')", r"ended before.*out of film"),
        (HELLO + "input(); print(json.dumps([]))", "not a JSON object"),
        (HELLO + "input(); print(json.dumps({'humans': []}))", "without a list of people"),
        (
            HELLO + "input(); print(json.dumps({'people': [{'joints_2d': [[1, 2, 3]]}]}))",
            "not 17 rows",
        ),
        (HELLO + "input(); print(json.dumps({'people': [7]}))", "bad person"),
        (
            HELLO + "input(); print(json.dumps({'people': [{'joints_2d': [[0, 0, NaN]] * 17}]}))",
            "bad person|ended before",
        ),
    ],
)
def test_a_labeller_that_does_not_work_is_told_with_its_last_words(
    videos: list[VideoFile], tmp_path: Path, program: str, complaint: str
) -> None:
    with pytest.raises(VidkdError, match=complaint):
        label_videos(videos, tmp_path / "labels", make_labeller(tmp_path, program))
    assert not (tmp_path / "labels" / "labels.json").exists()


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "python"
    with pytest.raises(VidkdError, match="cannot be started"), Labeller([str(missing)]):
        pass


def test_the_program_ends_with_the_block(tmp_path: Path) -> None:
    with Labeller(make_labeller(tmp_path)) as labeller:
        process = labeller._process
        assert process.poll() is None
    assert process.returncode == 0
