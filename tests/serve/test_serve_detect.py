"""The real worker: what it finds is what ``vidkd detect`` finds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "detection"))

from brightness import BrightnessEncoder, write_student, write_video
from running import Running, eventually

from vidkd.detection.detector import Detector


def test_results_are_those_of_detect(tmp_path: Path) -> None:
    write_student(tmp_path / "student" / "weights.safetensors")
    write_video(tmp_path / "clip.mp4", [("bright", 6)])
    write_video(tmp_path / "long.mp4", [("bright", 9)])
    detector = Detector(tmp_path / "student", "cpu", encoder=BrightnessEncoder())
    expected = detector(tmp_path / "clip.mp4", threshold=0.2)
    limits = ("--model", tmp_path / "student", "--max-duration", 0.12)
    with Running(tmp_path / "data", *limits, kind="small") as running:
        content = (tmp_path / "clip.mp4").read_bytes()
        answer = running.ask("POST", "/jobs?name=my%20clip.mp4&threshold=0.2", content)
        job = answer.json["id"]
        state = running.until(job)
        assert state["state"] == "done", state
        assert state["duration"] == pytest.approx(expected.duration)
        found = running.ask("GET", f"/jobs/{job}/result").json["results"]["my clip"]
        assert expected.segments
        assert found == [
            {"label": item.label, "score": item.score, "segment": [item.start, item.end]}
            for item in sorted(expected.segments, key=lambda item: (item.start, item.end))
        ]
        eventually(lambda: running.state(job)["page"])
        text = running.ask("GET", f"/jobs/{job}/page").body.decode()
        assert "my clip" in text
        part = running.ask("GET", f"/jobs/{job}/video.mp4", headers={"Range": "bytes=0-9"})
        assert (part.status, part.body) == (206, content[:10])
        health = running.ask("GET", "/healthz").json
        assert health["model"] == "student"
        bad = running.until(running.send(b"this is no video"))
        long = running.until(running.send((tmp_path / "long.mp4").read_bytes()))
        assert bad["problem"].startswith("the video is not a video that can be opened")
        assert long["problem"] == "the video is longer than 0.12 minutes"
        for shown in (text, str(bad), str(long), str(health), str(running.state(job))):
            assert str(tmp_path) not in shown
    with Running(tmp_path / "data", "--model", tmp_path / "none", kind="small") as running:
        assert running.process.wait(30) == 1
        assert "there is no such weights file" in "".join(running.said)
