"""Speed of the pose detector, interleaved with I3D in one run.

    python benchmarks/pose.py VIDEO [--detector NAME|FILE] [--short-side 256] [--frames 64]
                              [--rounds 5] [--threads N] [--device cpu] [--json]

Frames are decoded once, before anything is timed. Then the detector and I3D (random weights, 224
pixels, one snippet of 16 frames after the other) take turns: detector, I3D, detector, I3D, ..., so
that whatever else the machine does slows both. Medians over the rounds are reported with their
spread (the interquartile range), after one round of warming up, and the fastest round. The time of
tracking is measured on what the detector has found. The ratio is that of the medians: frames/s of
the detector for each frame/s of I3D.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidkd.console import emit_json, emit_table, log
from vidkd.networks import select_device
from vidkd.networks.i3d import I3D
from vidkd.networks.i3d_inference import InferenceI3D, keep_freed_memory
from vidkd.pose.detector import load_pose_detector
from vidkd.pose.tracks import Arrangement, Tracker
from vidkd.recipe import TrackSettings
from vidkd.recipe.models import DEFAULT_DETECTOR
from vidkd.video import read_frames

SNIPPET = 16
CROP = 224
BATCH = 16


def wait(device: torch.device) -> float:
    """Return the time when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time detector, I3D and tracking on the same frames."""
    torch.set_num_threads(options.threads)
    device = select_device(options.device)
    frames = list(
        itertools.islice(read_frames(options.video, short_side=options.short_side), options.frames)
    )
    images = [frame.image for frame in frames]
    detector = load_pose_detector(options.detector, options.device)
    torch.manual_seed(0)
    network: torch.nn.Module = I3D().eval()
    if device.type == "cpu":
        keep_freed_memory()
        network = InferenceI3D(network)  # type: ignore[arg-type]
    network = network.to(device)
    snippets = max(1, len(frames) // SNIPPET)
    times: dict[str, list[float]] = {"detector": [], "i3d": [], "tracking": []}
    for number in range(options.rounds + 1):
        begun = wait(device)
        found = [
            people
            for start in range(0, len(images), BATCH)
            for people in detector(images[start : start + BATCH])
        ]
        detected = wait(device)
        tracker = Tracker(TrackSettings())
        for frame, people in zip(frames, found, strict=True):
            tracker.look(frame.index, frame.start, people)
        pts = np.array([(frame.start, frame.end) for frame in frames])
        Arrangement(tracker, pts, TrackSettings()).rows(0, len(frames))
        tracked = wait(device)
        with torch.no_grad():
            for _ in range(snippets):
                network(torch.zeros(1, 3, SNIPPET, CROP, CROP, device=device))
        ended = wait(device)
        log(f"round {number}: {len(images) / (detected - begun):.1f} frames/s")
        if number:
            times["detector"].append((detected - begun) / len(images))
            times["tracking"].append((tracked - detected) / len(images))
            times["i3d"].append((ended - tracked) / (snippets * SNIPPET))
    rows = {}
    for name, values in times.items():
        quarters = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
        median = statistics.median(values)
        rows[name] = {
            "ms_per_frame": 1e3 * median,
            "spread_ms": 1e3 * (quarters[2] - quarters[0]),
            "fastest_ms": 1e3 * min(values),
            "frames_per_second": 1 / median,
            "fastest_frames_per_second": 1 / min(values),
        }
    return {
        "torch": torch.__version__,
        "device": str(device),
        "threads": options.threads,
        "rounds": options.rounds,
        "detector": detector.name,
        "frame_size": list(images[0].shape[1::-1]),
        "frames": len(images),
        "people_per_frame": sum(map(len, found)) / len(found),
        "results": rows,
        "detector_to_i3d": statistics.median(times["i3d"]) / statistics.median(times["detector"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--detector", default=DEFAULT_DETECTOR)
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.frames < 1 or options.rounds < 1:
        parser.error("--frames and --rounds must be at least 1")
    result = measure(options)
    if options.json:
        emit_json(result)
        return
    log(
        f"torch {result['torch']}, {result['device']}, {result['threads']} threads; "
        f"{result['frames']} frames of {result['frame_size'][0]}x{result['frame_size'][1]}, "
        f"{result['people_per_frame']:.2f} people in each"
    )
    emit_table(
        f"{result['detector']}: {result['detector_to_i3d']:.2f} times the frames/s of I3D",
        ("", "ms/frame", "spread", "fastest", "frames/s", "of fastest"),
        [
            (
                name,
                f"{row['ms_per_frame']:.2f}",
                f"{row['spread_ms']:.2f}",
                f"{row['fastest_ms']:.2f}",
                f"{row['frames_per_second']:.0f}",
                f"{row['fastest_frames_per_second']:.0f}",
            )
            for name, row in result["results"].items()
        ],
    )


if __name__ == "__main__":
    main()
