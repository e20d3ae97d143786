"""Compare the TV-L1 backends on one core: speed and agreement, measured interleaved in one run.

    python benchmarks/tvl1.py [VIDEO] [--short-side 256] [--pairs 5] [--device cuda]

Without a video, frames are generated. Rates are pairs per second of the CPU time this thread
used, which other load on the machine disturbs less than wall time; the wall time is printed
beside it. With ``--device`` the backend torch computes all pairs as one batch there, second of two
runs, and its wall time is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from itertools import pairwise

import cv2
import numpy as np

from vidkd.flow import flow_function, to_gray

BACKENDS = ("opencv", "numba")


def generated(short_side: int, count: int) -> list[np.ndarray]:
    """Return textured gray frames: a background that pans and a disc that moves the other way."""
    height, width = short_side, round(short_side * 4 / 3)
    rng = np.random.default_rng(0)
    scenes = []
    for _ in range(2):
        noise = rng.normal(size=(height + 200, width + 200))
        scene = cv2.GaussianBlur(noise, (0, 0), 1.5) + 2 * cv2.GaussianBlur(noise, (0, 0), 6)
        scenes.append(np.uint8(255 * (scene - scene.min()) / (scene.max() - scene.min())))
    back, front = scenes
    ys, xs = np.mgrid[:height, :width]
    frames = []
    for i in range(count):
        frame = back[i : i + height, i : i + width].copy()
        x, y = width // 3 + 3 * i, height // 2
        disc = (xs - x) ** 2 + (ys - y) ** 2 < (height // 4) ** 2
        frame[disc] = np.roll(front, 3 * i, axis=1)[:height, :width][disc]
        frames.append(frame)
    return frames


def decoded(video: str, short_side: int, count: int) -> list[np.ndarray]:
    """Return consecutive gray frames from the middle of a video."""
    capture = cv2.VideoCapture(video)
    total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.set(cv2.CAP_PROP_POS_FRAMES, max(total // 2 - count, 0))
    frames: list[np.ndarray] = []
    while len(frames) < count:
        found, image = capture.read()
        if not found:
            raise SystemExit(f"{video}: cannot decode {count} frames")
        height, width = image.shape[:2]
        scale = short_side / min(height, width)
        size = (round(width * scale / 2) * 2, round(height * scale / 2) * 2)
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        frames.append(to_gray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))
    return frames


def measure(frames: list[np.ndarray]) -> Iterator[dict[str, float]]:
    """Yield, for every pair of frames, seconds of both backends and their difference."""
    estimators = {name: flow_function(name) for name in BACKENDS}
    for turn, pair in enumerate(pairwise(frames)):
        row: dict[str, float] = {}
        flows = {}
        for name in BACKENDS if turn % 2 == 0 else reversed(BACKENDS):
            wall, cpu = time.perf_counter(), time.thread_time()
            flows[name] = estimators[name](*pair)
            row[f"{name} cpu"] = time.thread_time() - cpu
            row[f"{name} wall"] = time.perf_counter() - wall
        difference = np.hypot(*np.moveaxis(flows["numba"] - flows["opencv"], -1, 0))
        row["error"] = float(difference.mean())
        row["largest error"] = float(difference.max())
        row["motion"] = float(np.hypot(*np.moveaxis(flows["opencv"], -1, 0)).mean())
        yield row


def batched(frames: list[np.ndarray], device: str) -> tuple[float, float]:
    """Return pairs per second of the backend torch, and its mean end-point error to OpenCV."""
    from vidkd.flow.torch_tvl1 import TorchTVL1

    estimator = TorchTVL1(device, batch_size=len(frames) - 1)
    images = np.stack(frames)
    estimator.sequence(images)
    start = time.perf_counter()
    flows = estimator.sequence(images)  # comes back to the host, so nothing is still under way
    seconds = time.perf_counter() - start
    opencv = flow_function("opencv")
    errors = [
        np.hypot(*np.moveaxis(flow - opencv(*pair), -1, 0)).mean()
        for flow, pair in zip(flows, pairwise(frames), strict=True)
    ]
    return len(flows) / seconds, float(np.mean(errors))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("video", nargs="?", help="a video file; default: generated frames")
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--device", help="cpu, cuda or cuda:N: measure the backend torch there")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)

    count = options.pairs + 1
    if options.video:
        frames = decoded(options.video, options.short_side, count)
    else:
        frames = generated(options.short_side, count)
    start = time.perf_counter()
    flow_function("numba")(*(np.zeros((2, 32, 32), np.uint8)))
    ready = time.perf_counter() - start

    rows = list(measure(frames))
    rates = {
        kind: {name: sorted(1 / row[f"{name} {kind}"] for row in rows) for name in BACKENDS}
        for kind in ("cpu", "wall")
    }
    ratios = sorted(row["opencv cpu"] / row["numba cpu"] for row in rows)
    result = {
        "frames": f"{frames[0].shape[1]}x{frames[0].shape[0]}",
        "pairs": len(rows),
        "opencv pairs/s": statistics.median(rates["cpu"]["opencv"]),
        "numba pairs/s": statistics.median(rates["cpu"]["numba"]),
        "ratio": statistics.median(ratios),
        "ratio range": [ratios[0], ratios[-1]],
        "mean end-point error": statistics.mean(row["error"] for row in rows),
        "largest error": max(row["largest error"] for row in rows),
        "mean motion": statistics.mean(row["motion"] for row in rows),
        "first call": ready,
    }
    if options.device:
        result["torch pairs/s"], result["torch error"] = batched(frames, options.device)
    if options.json:
        print(json.dumps(result))
        return
    print(
        f"{result['frames']}, {len(rows)} pairs, one core of {os.cpu_count()}, {platform.machine()}"
    )
    for name in BACKENDS:
        cpu, wall = rates["cpu"][name], rates["wall"][name]
        print(
            f"{name:7s} {statistics.median(cpu):7.2f} pairs/s of CPU time "
            f"({cpu[0]:.2f} to {cpu[-1]:.2f}), {statistics.median(wall):7.2f} of wall time"
        )
    print(f"ratio   {result['ratio']:7.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})")
    print(
        f"mean end-point error {result['mean end-point error']:.6f} px, largest "
        f"{result['largest error']:.6f}, mean motion {result['mean motion']:.2f} px"
    )
    if options.device:
        print(
            f"torch   {result['torch pairs/s']:7.2f} pairs/s of wall time on {options.device}, "
            f"mean end-point error {result['torch error']:.6f} px"
        )
    print(f"first call of numba (compiling, or loading what is compiled) {ready:.1f} s")


if __name__ == "__main__":
    main()
