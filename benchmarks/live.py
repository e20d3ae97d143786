"""Live video: how many cameras a machine serves, and whether memory stays flat over a day.

    python benchmarks/live.py cameras VIDEO... --model STUDENT [--rate 25] [--seconds 30] [--json]
    python benchmarks/live.py day [--hours 24] [--json]

``cameras`` plays the videos as cameras of so many frames/s through the engine of `vidkd watch`:
one, then twice as many while none had to skip, and then those between. Every camera has a video of
its own. The student is causal.

``day`` sends a clip over and over, with time stamps that go on, through a pipe as fast as it is
taken, to a random student on a cheap encoder, and reads the resident memory every simulated hour.
The clip changes between two grounds every few seconds, so that events begin and end all the time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from vidkd.console import emit_json, emit_table, log
from vidkd.detection.detector import detect
from vidkd.live.engine import Engine
from vidkd.live.events import Event, LiveFrame
from vidkd.live.sources import Source, find_sources
from vidkd.live.statistics import Delays
from vidkd.live.student import LiveStudent
from vidkd.machine import cores, processor
from vidkd.networks import FilterHeader, build_temporal_filter, save_temporal_filter
from vidkd.recipe import (
    FilterSettings,
    FrameSettings,
    LiveSettings,
    ModelCard,
    SegmentSettings,
    SnippetSettings,
    WeightsSource,
)
from vidkd.video import VideoWriter, probe

MOST_SKIPPED = 0.001
"""Share of the snippets that may be skipped by a machine that serves all its cameras."""
CLIP_SECONDS = 12
RATE = 10


def machine() -> str:
    """Return processor and instruction sets in words."""
    name, sets = processor()
    return f"{cores()} cores of {name} ({', '.join(sets)})"


def watch(
    student: LiveStudent, videos: Sequence[Path], count: int, rate: float, seconds: float
) -> dict[str, Any]:
    """Return counts and delays of some cameras that are watched for some seconds."""
    sources = [Source(f"camera {n}", "paced", str(videos[n])) for n in range(count)]
    settings = LiveSettings(realtime=True, speed=rate / float(probe(videos[0]).frame_rate))
    engine = Engine(student, sources, settings)
    timer = threading.Timer(seconds, engine.stop)
    timer.start()
    engine.run()
    timer.cancel()
    if engine.errors:
        raise engine.errors[0]
    counts = engine.statistics.sources.values()
    delays = Delays.together(own.delays for own in counts)
    total = sum(own.snippets for own in counts)
    return {
        "cameras": count,
        "snippets": total,
        "skipped": sum(own.skipped_snippets for own in counts),
        "skipped_frames": sum(own.skipped_frames for own in counts),
        "delay_p50": delays.quantile(0.5),
        "delay_p99": delays.quantile(0.99),
    }


def cameras(arguments: argparse.Namespace) -> None:
    """Search for the largest number of cameras of which none skips."""
    student = LiveStudent(arguments.model, arguments.device, precision=arguments.precision)
    rows: list[dict[str, Any]] = []

    def serves(count: int) -> bool:
        if count > len(arguments.videos):  # two cameras of one video would be computed once
            raise SystemExit(f"{count} cameras need {count} videos: {len(arguments.videos)} given")
        row = watch(student, arguments.videos, count, arguments.rate, arguments.seconds)
        rows.append(row)
        log(f"{row}")
        lost = row["skipped"] + row["skipped_frames"]
        return bool(row["snippets"] and lost <= MOST_SKIPPED * row["snippets"])

    watch(student, arguments.videos, 1, arguments.rate, 3)  # what is only slow once
    low, high = 0, 1
    while serves(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if serves(middle) else (low, middle)
    rows.sort(key=lambda row: int(row["cameras"]))
    if arguments.json:
        emit_json({"machine": machine(), "cameras": low, "runs": rows})
        return
    emit_table(
        f"{low} cameras of {arguments.rate:g} frames/s on {machine()}",
        list(rows[0]),
        [[f"{v:.3f}" if isinstance(v, float) else v for v in row.values()] for row in rows],
    )


class CheapEncoder:
    """The means of a grid of cells of each clip."""

    device = torch.device("cpu")
    precision = "float32"
    weights_sha256 = "ab" * 32
    card = ModelCard(
        name="grid",
        network="i3d",
        modality="rgb",
        description="means of cells",
        feature_dim=48,
        in_channels=3,
        frames=FrameSettings(short_side=32),
        crop=32,
        weights=(WeightsSource(kind="url", layout="vidkd"),),
        licence="none",
        source="none",
    )

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Map clips (B, 3, T, S, S) to (B, 48)."""
        return torch.nn.functional.adaptive_avg_pool3d(x, (1, 4, 4)).flatten(1)


def write_clip(path: Path) -> None:
    """Write a small clip."""
    texture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    with VideoWriter(path, 64, 48, Fraction(RATE)) as writer:
        for number in range(CLIP_SECONDS * RATE):
            bright = np.uint8(255 * (number // (3 * RATE) % 2))
            writer.write(np.roll(texture, 2 * number, axis=1) ^ bright)


def send(clip: Path, pipe: Path, hours: float) -> None:
    """Write a transport stream that repeats a clip to a pipe."""
    with (
        av.open(str(clip)) as given,
        pipe.open("wb") as file,
        av.open(file, "w", format="mpegts") as target,
    ):
        stream = target.add_stream_from_template(given.streams.video[0])
        unit = given.streams.video[0].time_base
        packets = [packet for packet in given.demux(given.streams.video[0]) if packet.size]
        times = [(packet.pts, packet.dts) for packet in packets]
        for number in range(round(hours * 3600 / CLIP_SECONDS)):
            shift = int(number * CLIP_SECONDS / unit)
            for packet, (pts, dts) in zip(packets, times, strict=True):
                packet.stream, packet.time_base = stream, unit
                packet.pts, packet.dts = pts + shift, dts + shift
                target.mux(packet)


class Hours:
    """Reads the memory of this process every simulated hour."""

    wants_frames = False

    def __init__(self) -> None:
        self.rows: list[tuple[int, float, int, float]] = []
        self.events, self.start = 0, time.monotonic()

    def frame(self, source: str, frame: LiveFrame) -> None:
        """Look at the clock of the stream."""
        if frame.time >= 3600 * len(self.rows):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            memory = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
            self.rows.append((len(self.rows), memory, self.events, time.monotonic() - self.start))
            log(f"hour {self.rows[-1][0]}: {memory:.1f} MB, {self.events} events")

    def event(self, event: Event) -> None:
        """Count those that have ended."""
        self.events += event.state == "end"

    def close(self) -> None:
        """Do nothing."""


def day(arguments: argparse.Namespace) -> None:
    """Watch a stream of many hours, and show the memory after each."""
    chosen = FilterSettings(kind="causal-ss-tcn", channels=16, levels=0)
    header = FilterHeader(
        filter=chosen,
        in_features=48,
        classes=("one", "two"),
        modality="rgb",
        encoder="grid",
        encoder_sha256=CheapEncoder.weights_sha256,
        frames=FrameSettings(short_side=32),
        snippet=SnippetSettings(length=16, stride=8),
        crop=32,
        segments=SegmentSettings(release=1.0),
    )
    torch.manual_seed(0)
    module = build_temporal_filter(chosen, 48, 2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights, clip = folder / "weights.safetensors", folder / "clip.mp4"
        write_clip(clip)
        save_temporal_filter(weights, module, header)
        scores = detect(clip, folder, "cpu", encoder=CheapEncoder()).scores
        # Half of the snippets then reach the threshold.
        middle = tuple(np.median(scores, axis=0).tolist())
        save_temporal_filter(weights, module, header.model_copy(update={"thresholds": middle}))
        pipe = folder / "pipe"
        os.mkfifo(pipe)
        student = LiveStudent(folder, "cpu", encoder=CheapEncoder())
        hours = Hours()
        settings = LiveSettings()
        sources = find_sources([f"day={pipe}"], None, settings)
        engine = Engine(student, sources, settings, [hours], threshold=0.5)
        sender = threading.Thread(target=send, args=(clip, pipe, arguments.hours), daemon=True)
        sender.start()
        engine.run()
    counts = engine.statistics.sources["day"].to_json()
    if arguments.json:
        emit_json({"hours": hours.rows, "counts": counts})
        return
    columns = ("hour", "resident MB", "events", "seconds")
    emit_table("", columns, [(h, f"{m:.1f}", e, f"{s:.0f}") for h, m, e, s in hours.rows])
    log(f"{counts}")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    kinds = parser.add_subparsers(required=True)
    one = kinds.add_parser("cameras")
    one.add_argument("videos", nargs="+", type=Path, metavar="VIDEO")
    one.add_argument("--model", required=True)
    one.add_argument("--device", default="auto")
    one.add_argument("--precision", default="auto")
    one.add_argument("--rate", type=float, default=25.0)
    one.add_argument("--seconds", type=float, default=30.0)
    one.set_defaults(run=cameras)
    two = kinds.add_parser("day")
    two.add_argument("--hours", type=float, default=24.0)
    two.set_defaults(run=day)
    for part in (one, two):
        part.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
