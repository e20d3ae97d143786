"""``vidkd watch`` as a command."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "detection"))
sys.path.insert(0, str(Path(__file__).parents[1] / "hostile"))

from brightness import BrightnessEncoder, write_student, write_video
from unplugging import remux

from vidkd.cli import main
from vidkd.detection import scorers as module
from vidkd.recipe import FilterSettings
from vidkd.streams import Stream


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "door.mp4", [("red", 4), ("bright", 4)])


@pytest.fixture
def student(tmp_path):
    causal = FilterSettings(kind="causal-ss-tcn", channels=8, layers=2, levels=0)
    return write_student(tmp_path / "weights.safetensors", filter=causal)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command in this process, with the small encoder in the place of I3D."""
    monkeypatch.setattr(module, "zoo_card", lambda name: BrightnessEncoder().card)
    monkeypatch.setattr(Stream, "fetch_encoder", lambda self, name: None)
    monkeypatch.setattr(Stream, "load_encoder", lambda self, *_: BrightnessEncoder())

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["vidkd", "watch", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return call


def test_lines_of_json_and_a_report(run, video, student, tmp_path):
    report = tmp_path / "report.json"
    code, out, err = run(
        f"front={video}", "--model", student, "--threshold", "0.3", "--json", "--report", report
    )
    assert code == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert {event["state"] for event in events} == {"begin", "certain", "end"}
    assert set(events[0]) == {
        "source", "number", "state", "label", "start", "end", "score", "started", "delay",
    }  # fmt: skip
    (counts,) = json.loads(report.read_text())["sources"]
    assert counts["source"] == "front"
    assert counts["frames"] == 200
    assert counts["delay_p50"] <= counts["delay_p99"]
    assert "front: 200 frames, 24 snippets" in err


def test_lines_for_people(run, video, student, tmp_path):
    code, out, err = run(video, tmp_path / "gone.mp4", "--model", student, "--threshold", "0.3")
    assert code == 1
    assert "door.mp4  sit begins" in out
    assert "sit ends  (00:00.0 to 00:08.0" in out
    assert "gone.mp4: does not exist" in err


def test_signals_report_and_end_it(run, video, student, tmp_path):
    stream = remux(video, tmp_path / "door.ts")
    pipe, report = tmp_path / "pipe", tmp_path / "report.json"
    os.mkfifo(pipe)

    def write():
        with pipe.open("wb") as file:
            file.write(stream.read_bytes())
            file.flush()
            os.kill(os.getpid(), signal.SIGUSR1)
            while not report.exists():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)

    writer = threading.Thread(target=write)
    writer.start()
    code, out, err = run(pipe, "--model", student, "--threshold", "0", "--report", report)
    writer.join()
    assert code == 0
    assert out.count(" begins") == out.count(" ends")
    assert err.count("pipe: ") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no source"),
        (["x.mp4", "--gap", "0"], "--gap"),
        (["ftp://me:secret@host/x"], r"ftp://***@host/x is of no kind"),
    ],
)
def test_wrong_usage(run, student, arguments, message):
    code, out, err = run(*arguments, "--model", student)
    assert code == 2
    assert message in err
    assert "secret" not in out + err


def test_a_student_that_sees_the_future_is_refused(run, video, tmp_path):
    code, _, err = run(video, "--model", write_student(tmp_path / "weights.safetensors"))
    assert code == 2
    assert "later snippets" in err
    assert "--filter causal-ss-tcn" in err
