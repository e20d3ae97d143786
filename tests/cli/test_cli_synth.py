"""``vidkd synth`` as a process."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from in_process import vidkd

OPTIONS = ["--videos", "4", "--seconds", "5", "--size", "96x72", "--frame-rate", "10"]


def command(output: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "vidkd", "synth", "--output", str(output), *OPTIONS, *options]


@pytest.mark.slow
def test_killed_and_started_again_it_gives_the_same_files(tmp_path: Path) -> None:
    whole = vidkd(*command(tmp_path / "whole", "--json", "--workers", "1")[3:])
    facts = json.loads(whole.stdout)
    assert sum(facts["subsets"].values()) == 4
    killed = tmp_path / "killed"
    # On a busy machine all may be done before the signal comes: then it is tried once more.
    for _ in range(5):
        shutil.rmtree(killed, ignore_errors=True)
        process = subprocess.Popen(
            command(killed, "--workers", "1"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while not list(killed.glob("videos/*.mp4")) and process.poll() is None:
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not (killed / "annotations.json").exists():
            break
    assert not (killed / "annotations.json").exists()
    assert vidkd(*command(killed, "--workers", "1")[3:]).returncode == 0
    files = {path.relative_to(killed) for path in killed.rglob("*") if path.is_file()}
    expected = {
        path.relative_to(tmp_path / "whole")
        for path in (tmp_path / "whole").rglob("*")
        if path.is_file()
    }
    assert files == expected
    for path in expected:
        if path.suffix != ".h5":
            assert (killed / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()


@pytest.mark.parametrize(
    "options", [["--size", "big"], ["--videos", "0"], ["--frame-rate", "-1"], ["--seconds", "1"]]
)
def test_wrong_usage_is_one_line(options: list[str], tmp_path: Path) -> None:
    done = vidkd(*command(tmp_path / "out", *options)[3:])
    assert done.returncode == 2
    assert done.stderr
    assert not (tmp_path / "out").exists()
