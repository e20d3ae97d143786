"""Compare ways to decode a video at a smaller size, interleaved in one run.

    python benchmarks/decode.py VIDEO... [--short-side 256] [--rounds 5]

``read_frames`` against OpenCV's ``VideoCapture`` with ``cv2.resize``, and against PyAV's
``to_ndarray`` with ``cv2.resize``; all give RGB pictures of one size. Then the last second of the
video by seeking, against reading up to it. Then the pictures of a low rate, against decoding all,
both without resize and conversion, which only the pictures taken get. Every ratio is the median
over rounds of two times taken one after the other: of wall time, and of the CPU time of all
threads, which other load on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from vidkd.video import open_video, probe, read_frames
from vidkd.video.pictures import Picture, read_pictures
from vidkd.video.sparse import sample_pictures


def ours(video: Path, size: tuple[int, int]) -> Iterator[np.ndarray]:
    for frame in read_frames(video, short_side=min(size)):
        yield frame.image


def opencv(video: Path, size: tuple[int, int]) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(str(video))
    while True:
        found, image = capture.read()
        if not found:
            return
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def pyav(video: Path, size: tuple[int, int]) -> Iterator[np.ndarray]:
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            image = frame.to_ndarray(format="rgb24")
            yield cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


WAYS: dict[str, Callable[[Path, tuple[int, int]], Iterator[np.ndarray]]] = {
    "read_frames": ours,
    "OpenCV": opencv,
    "PyAV": pyav,
}


def timed(frames: Iterator[np.ndarray]) -> tuple[float, float, int, np.ndarray]:
    """Return seconds of wall and CPU time, the number of pictures, and the last one."""
    wall, cpu, count, last = time.perf_counter(), time.process_time(), 0, np.zeros(0)
    for image in frames:
        count, last = count + 1, image
    return time.perf_counter() - wall, time.process_time() - cpu, count, last


def times(one: list[float], other: list[float]) -> str:
    """Describe how many times as long ``one`` took as ``other``, round by round."""
    ratios = sorted(a / b for a, b in zip(one, other, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def compare(video: Path, short_side: int, rounds: int) -> None:
    first = next(read_frames(video, short_side=short_side)).image
    size = first.shape[1], first.shape[0]
    for way in WAYS.values():
        next(way(video, size))
    walls: dict[str, list[float]] = {name: [] for name in WAYS}
    cpus: dict[str, list[float]] = {name: [] for name in WAYS}
    counts: dict[str, int] = {}
    lasts: dict[str, np.ndarray] = {}
    for turn in range(rounds):
        order = list(WAYS) if turn % 2 == 0 else list(reversed(WAYS))
        for name in order:
            wall, cpu, counts[name], lasts[name] = timed(WAYS[name](video, size))
            walls[name].append(wall)
            cpus[name].append(cpu)
    info = probe(video)
    print(f"{video.name}: {info.width}x{info.height} {info.codec} to {size[0]}x{size[1]}")
    for name in WAYS:
        away = np.abs(lasts[name].astype(float) - lasts["read_frames"]).mean()
        print(
            f"  {name:12s} {counts[name] / statistics.median(walls[name]):6.0f} frames/s; times "
            f"the wall time of read_frames {times(walls[name], walls['read_frames'])}, CPU time "
            f"{times(cpus[name], cpus['read_frames'])}; last picture {away:.2f} grey levels away"
        )
    if info.duration is not None and info.duration > 2:
        tail = info.duration - 1
        jumps, walks = [], []
        for _ in range(rounds):
            part = (frame.image for frame in read_frames(video, short_side=short_side, start=tail))
            jumps.append(timed(part)[1])
            whole = read_frames(video, short_side=short_side)
            walks.append(timed(frame.image for frame in whole if frame.end > tail)[1])
        print(
            f"  the last second by seeking: {statistics.median(jumps) * 1e3:.0f} ms of CPU time; "
            f"reading up to it takes {times(walks, jumps)} times that"
        )


def compare_sampling(video: Path, rates: list[float], rounds: int) -> None:
    def cpu(pictures: Iterator[Picture]) -> float:
        return timed(np.empty(0) for _ in pictures)[1]

    for rate in rates:
        sparse, whole = [], []
        for turn in range(rounds + 1):
            order = (0, 1) if turn % 2 else (1, 0)
            for one in order:
                with open_video(video) as opened:
                    if one:
                        sparse.append(cpu(sample_pictures(opened, rate)))
                    else:
                        whole.append(cpu(read_pictures(opened)))
        print(
            f"  {rate:g} pictures a second: {statistics.median(sparse[1:]) * 1e3:.0f} ms of CPU "
            f"time; decoding all takes {times(whole[1:], sparse[1:])} times that"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO")
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rates", type=float, nargs="*", default=[1.0, 0.2])
    parser.add_argument("--only-rates", action="store_true", help="Leave out the rest.")
    options = parser.parse_args()
    for video in options.videos:
        if options.only_rates:
            print(video.name)
        else:
            compare(video, options.short_side, options.rounds)
        compare_sampling(video, options.rates, options.rounds)


if __name__ == "__main__":
    main()
