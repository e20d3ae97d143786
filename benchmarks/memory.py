"""Memory of the commands over a long video: flat, or growing with its length?

    python benchmarks/memory.py [--hours 2] [--size 1920x1080] [--rate 25] [--folder DIR] [--json]

Encodes a moving picture of 20 seconds, joins it to itself without encoding again until it is as
long as asked, and runs `vidkd extract-features`, `vidkd extract-flow` and `vidkd detect` on it,
each in processes of its own, whose resident memory (all of them together) is read twice a second.
Small frames and sparse snippets keep the computing short; every frame is decoded at full size.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from vidkd.console import emit_json, emit_table, log
from vidkd.networks import (
    DEFAULT_ENCODER,
    build_temporal_filter,
    load_encoder,
    save_temporal_filter,
)
from vidkd.networks.filter_weights import FilterHeader
from vidkd.recipe import FilterSettings, FrameSettings, SegmentSettings, SnippetSettings
from vidkd.video import VideoWriter

CLIP_SECONDS = 20


def make_video(path: Path, hours: float, width: int, height: int, rate: int) -> None:
    """Write the long video."""
    clip = path.with_name("clip.mp4")
    texture = np.random.default_rng(0).integers(
        0, 255, (height // 8, width // 8, 3), dtype=np.uint8
    )
    texture = np.ascontiguousarray(texture.repeat(8, axis=0).repeat(8, axis=1))
    with VideoWriter(clip, texture.shape[1], texture.shape[0], Fraction(rate)) as writer:
        for number in range(CLIP_SECONDS * rate):
            writer.write(np.roll(texture, 4 * number, axis=1))
    repeats = max(1, round(hours * 3600 / CLIP_SECONDS))
    with av.open(str(path), "w") as target:
        stream = None
        for number in range(repeats):
            with av.open(str(clip)) as source:
                video = source.streams.video[0]
                if stream is None:
                    stream = target.add_stream_from_template(video)
                shift = int(number * CLIP_SECONDS / video.time_base)
                for packet in source.demux(video):
                    if packet.dts is None:
                        continue
                    packet.pts += shift
                    packet.dts += shift
                    packet.stream = stream
                    target.mux(packet)


def make_student(path: Path) -> None:
    """Write a student with random weights that looks at few and small snippets."""
    encoder = load_encoder(DEFAULT_ENCODER, "cpu")
    settings = FilterSettings(channels=32)
    header = FilterHeader(
        filter=settings,
        in_features=encoder.card.feature_dim,
        classes=("one", "two"),
        modality="rgb",
        encoder=DEFAULT_ENCODER,
        encoder_sha256=encoder.weights_sha256,
        frames=FrameSettings(short_side=64),
        snippet=SnippetSettings(stride=128),
        crop=64,
        training_data={},
        teachers=(),
        segments=SegmentSettings(),
    )
    filter_ = build_temporal_filter(settings, header.in_features, len(header.classes))
    save_temporal_filter(path, filter_, header)


def resident(pid: int) -> float:
    """Return the megabytes of a process and all its children."""
    total = 0.0
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            status = Path(f"/proc/{one}/status").read_text()
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue  # it ended meanwhile
        for line in status.splitlines():
            # Without pages of files, which are shared and can be dropped.
            if line.startswith("RssAnon:"):
                total += int(line.split()[1]) / 1024
    return total


def watch(command: list[str]) -> dict[str, Any]:
    """Run a command and describe its memory over time."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "vidkd", *command], stdout=subprocess.DEVNULL)
    samples: list[float] = []
    while process.poll() is None:
        samples.append(resident(process.pid))
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"vidkd {command[0]} failed")
    quarter = max(1, len(samples) // 4)
    return {
        "command": command[0],
        "seconds": time.monotonic() - started,
        "peak_mb": max(samples),
        # The first quarter holds the start; growth shows between the second and the last.
        "second_quarter_mb": statistics.median(samples[quarter : 2 * quarter] or samples),
        "last_quarter_mb": statistics.median(samples[-quarter:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--rate", type=int, default=25)
    parser.add_argument("--folder", type=Path, help="where the video goes; it is removed")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        video = Path(folder) / "long.mp4"
        make_video(video, options.hours, width, height, options.rate)
        log(f"{video.stat().st_size / 1e6:.0f} MB of video")
        student = Path(folder) / "student.safetensors"
        make_student(student)
        small = ["--cache", folder, "--short-side", "64"]
        crop = ["--modality", "rgb", "--crop", "64", "--stride", "128"]
        rows = [
            watch(["extract-features", str(video), *small, *crop]),
            watch(["extract-flow", str(video), *small, "--frame-rate", "5"]),
            watch(["detect", str(video), "--model", str(student)]),
        ]
    if options.json:
        emit_json(rows)
        return
    emit_table(
        f"{options.hours:g} h of {options.size} at {options.rate} frames/s",
        ("command", "seconds", "peak MB", "2nd quarter MB", "last quarter MB"),
        [
            (row["command"], *(f"{row[key]:.0f}" for key in list(row) if key != "command"))
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
