"""Clips hold the seconds of their events, by the brightness of their pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made import HOSTILE, event, picture

from vidkd.live.outputs import beside, clips
from vidkd.live.outputs.clips import Clips
from vidkd.video import read_frames


def watched(output: Clips, begin: float, end: float, rate: int = 10, **more: Any) -> None:
    for n in range(round(begin * rate), round(end * rate)):
        output.frame("door", picture(n / rate, **more))


def seconds(path: Path) -> list[int]:
    """Return the seconds of the pictures of a clip, each once, by their brightness."""
    found = [round((frame.image.mean() - 20) / 20) for frame in read_frames(path)]
    assert found == sorted(found)
    return sorted(set(found))


def test_a_clip_has_the_seconds_around_its_event(tmp_path: Path) -> None:
    output = Clips(tmp_path / "new", margin=2.0)
    watched(output, 0, 6)
    output.event(event(1, "begin", 4.0))
    output.event(event(2, "begin", 5.0, label=HOSTILE, source="../x"))
    output.event(event(3, "begin", 5.0, label="sit"))
    watched(output, 6, 7)
    output.event(event(1, "certain", 4.0))
    output.event(event(3, "end", 5.0, 5.5))  # and was never certain
    watched(output, 7, 8)
    output.event(event(1, "end", 4.0, 6.9, score=0.6))
    watched(output, 8, 12)
    output.close()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "20260301T120004.000Z_door_walk_1.json",
        "20260301T120004.000Z_door_walk_1.mp4",
    ]
    path = tmp_path / "new" / "20260301T120004.000Z_door_walk_1.mp4"
    assert seconds(path) == [2, 3, 4, 5, 6, 7, 8]
    frames = list(read_frames(path))
    assert len(frames) == 70
    assert frames[-1].start == pytest.approx(6.9, abs=0.001)
    said = json.loads(path.with_suffix(".json").read_text())
    assert said["clip"] == [2.0, 8.9]
    assert said["filmed"] == "2026-03-01T12:00:02.000+00:00"
    assert (said["label"], said["score"], said["end"]) == ("walk", 0.6, 6.9)
    assert output.counts.done == 1


def test_what_lasts_is_split_and_what_is_open_at_the_end_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "LONGEST", 3.0)
    output = Clips(tmp_path, margin=0.0)
    watched(output, 0, 2)
    output.event(event(7, "begin", 1.0))
    output.event(event(7, "certain", 1.0))
    watched(output, 2, 5)
    watched(output, 5, 6, size=(90, 120))  # the camera was changed
    output.close()
    first, second, third = sorted(tmp_path.glob("*.mp4"), key=lambda path: len(path.name))[:3]
    second, third = sorted((second, third))
    assert [seconds(path) for path in (first, second, third)] == [[1, 2, 3], [4], [5]]
    assert next(read_frames(third)).image.shape == (90, 120, 3)
    assert json.loads(third.with_suffix(".json").read_text())["part"] == 3


def test_the_oldest_clips_go_and_other_files_stay(tmp_path: Path) -> None:
    other = tmp_path / "20260101T000000.000Z holiday.mp4"
    other.write_bytes(b"mine")
    output = Clips(tmp_path, margin=0.0, limit=4000)
    for number in range(1, 9):
        watched(output, number, number + 0.5)
        output.event(event(number, "begin", float(number)))
        output.event(event(number, "certain", float(number)))
        output.event(event(number, "end", float(number), number + 0.3))
    output.close()
    kept = sorted(path for path in tmp_path.glob("*.mp4") if path != other)
    assert output.counts.done == 8
    assert 1 <= len(kept) < 8
    assert sum(path.stat().st_size for path in kept) <= 4000
    assert kept[-1].name.endswith("_8.mp4")
    assert len(list(tmp_path.glob("*.json"))) == len(kept)
    assert other.read_bytes() == b"mine"


def test_a_folder_that_is_gone_is_said_once_and_nothing_else_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    output = Clips(tmp_path / "clips", margin=1.0)
    (tmp_path / "clips").rmdir()
    (tmp_path / "clips").write_text("")
    for number in (1, 2):
        watched(output, number, number + 1)
        output.event(event(number, "begin", float(number)))
        output.event(event(number, "certain", float(number)))
    output.close()
    assert output.counts.failed == 2
    assert capsys.readouterr().err.count("was not written") == 1


def test_a_disk_that_is_full_costs_clips_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Writing into it fails as on a full disk, and so does closing it.
    class Full:
        def __init__(self, file: Any) -> None:
            self._file = file

        def add_stream_from_template(self, stream: Any) -> Any:
            return self._file.add_stream_from_template(stream)

        def mux(self, packet: Any) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            raise OSError(28, "No space left on device")

    real = clips.av.open

    def opened(path: Any, *rest: Any, **more: Any) -> Any:
        file = real(path, *rest, **more)
        return Full(file) if "walk" in str(path) else file

    monkeypatch.setattr(clips.av, "open", opened)
    output = Clips(tmp_path, margin=0.0)
    watched(output, 0, 2)
    for number, label in enumerate(("walk", "walk", "sit")):
        output.event(event(number, "begin", 1.0, label=label))
        output.event(event(number, "certain", 1.0, label=label))
    watched(output, 2, 3)
    output.close()
    assert (output.counts.done, output.counts.failed) == (1, 2)
    assert capsys.readouterr().err.count("No space left") == 1
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".mp4"]
    assert seconds(next(tmp_path.glob("*.mp4"))) == [1, 2]


def test_pictures_that_come_too_quickly_are_dropped_and_events_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "_FRAME_BYTES", 20 * 48 * 64 * 3)
    output = Clips(tmp_path, margin=0.0)
    watched(output, 0, 60)
    output.event(event(1, "begin", 58.0))
    output.event(event(1, "certain", 58.0))
    output.close()
    assert output.counts.frames_dropped > 0
    assert output.counts.dropped == 0
