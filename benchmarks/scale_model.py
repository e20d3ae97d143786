"""How long an extraction takes on how many machines, what it costs, and what is the limit.

    python benchmarks/scale_model.py [--encode 1000] [--flow 27] [--price 2.5] ...

    python benchmarks/scale_model.py --check VIDEO... [--nodes 1,2,4] [--rounds 3]

Rates are frames/s of one processor core, or of one GPU for --encode; take yours from
`vidkd speed VIDEO`. The parts work side by side and the slowest decides; the start of the workers
comes before. See docs/scale.md.

With --check it predicts what an extraction of these videos takes on Ray clusters of so many nodes,
each with one CPU and no GPU, and runs it (RGB features of I3D at short side 128). The model is fed
with what the first four videos took on one node: frames/s of a core while it works on a video, and
the seconds of the command in which none is worked on, which are the start. Nodes beyond the cores
of this machine share them, and the model counts cores.
"""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HOURS = (70, 1_000, 100_000, 1_000_000)
GPUS = (1, 10, 100, 1_000)


@dataclass(frozen=True)
class Rates:
    """What the model is fed with; the defaults are explained in docs/scale.md."""

    rate: float = 25.0
    """Frames/s of the videos."""
    seconds: float = 30.0
    """Length of a video."""
    decode: float = 1000.0
    """Frames/s of a core."""
    flow: float = 27.0
    """Frames/s of a core; 0 for none."""
    encode: float = 1000.0
    """Frames/s of a GPU."""
    cores: float = 8.0
    """Cores for each GPU."""
    video_bytes: float = 20e3
    """Bytes of a video's frame."""
    row_bytes: float = 2048.0
    """Bytes of a row of features."""
    stride: float = 16.0
    """Frames for each row."""
    network: float = 1.25e9
    """Bytes/s of the storage, for all machines together."""
    files: float = 1000.0
    """Files/s that the storage makes, each with a lock and a rename."""
    jobs: float = 200.0
    """Videos/s that one command looks at and gives out to a Ray cluster."""
    start: float = 30.0
    """Seconds until workers have loaded what they need."""
    price: float = 2.5
    """Of a GPU and its cores for an hour."""


def parts(rates: Rates, hours: float, gpus: float) -> dict[str, float]:
    """Return the hours that each part would take if it were alone."""
    frames = hours * 3600 * rates.rate
    videos = hours * 3600 / rates.seconds
    core = 1 / rates.decode + (1 / rates.flow if rates.flow else 0)
    written = frames / rates.stride * rates.row_bytes
    seconds = {
        "decode and flow": frames * core / (rates.cores * gpus),
        "encode": frames / rates.encode / gpus if rates.encode else 0.0,
        # A video is read twice: for its hash, and for its frames.
        "read and write": (2 * frames * rates.video_bytes + written) / rates.network,
        "make files": videos / rates.files,
        "give out": videos / rates.jobs,
    }
    return {name: value / 3600 for name, value in seconds.items()}


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def measured(videos: Sequence[str], nodes: int) -> tuple[float, float]:
    """Return the seconds of a command on so many nodes, and those of its workers on videos."""
    from ray_kill import cluster, extract

    # Nodes and command only speak to who knows this.
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    settings = ["--modality", "rgb", "--short-side", "128", "--crop", "112", "--stride", "16"]
    command = ["extract-features", *videos, *settings]
    with tempfile.TemporaryDirectory() as cache, cluster(nodes, 1) as (address, _):
        seconds, results, _ = extract(command, Path(cache), "--cluster", address)
    return seconds, sum(item["seconds"] for item in results)


def check(videos: Sequence[str], nodes: Sequence[int], rounds: int) -> None:
    """Compare what the model predicts with what is measured."""
    from vidkd.machine import cores
    from vidkd.video import probe

    frames = [float(probe(path).frame_count or 0) for path in videos]
    measured(videos[:2], 1)  # so that all later ones find the same files in memory
    times: dict[int, list[float]] = {count: [] for count in nodes}
    fed: list[tuple[float, float]] = []
    for _ in range(rounds):
        whole, working = measured(videos[:4], 1)
        fed.append((sum(frames[:4]) / working, whole - working))
        for count in nodes:
            times[count].append(measured(videos, count)[0])
    rate, start = (statistics.median(values) for values in zip(*fed, strict=True))
    print(f"{len(videos)} videos, {sum(frames):.0f} frames; {cores()} cores, {rounds} rounds;")
    print(f"fed with {rate:.0f} frames/s of a core, {start:.1f} s of start\n")
    print("| nodes | predicted, s | measured, s: median (range) | predicted / measured |")
    print("|---|---|---|---|")
    for count in nodes:
        # No GPU: a core decodes and encodes in turn, which is one rate.
        rates = Rates(decode=rate, flow=0, encode=0, cores=1, start=start)
        hours = sum(frames) / rates.rate / 3600
        predicted = max(parts(rates, hours, min(count, cores())).values()) * 3600 + start
        low, middle, high = (function(times[count]) for function in (min, statistics.median, max))
        print(
            f"| {count} | {predicted:.1f} | {middle:.1f} ({low:.1f} to {high:.1f})"
            f" | {predicted / middle:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", nargs="+", metavar="VIDEO")
    parser.add_argument("--nodes", default="1,2,4")
    parser.add_argument("--rounds", type=int, default=3)
    for name, value in vars(Rates()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=value)
    chosen = vars(parser.parse_args())
    videos, nodes, rounds = (chosen.pop(name) for name in ("check", "nodes", "rounds"))
    if videos:
        check(videos, [int(count) for count in nodes.split(",")], rounds)
        return
    rates = Rates(**chosen)
    names = list(parts(rates, 1, 1))
    print(f"| hours | GPUs | {', h | '.join(names)}, h | in all, h | cost | the limit |")
    print("|" + "---|" * (len(names) + 5))
    for hours in HOURS:
        for gpus in GPUS:
            found = parts(rates, hours, gpus)
            limit = max(found, key=lambda name: found[name])
            total = found[limit] + rates.start / 3600
            cells = [f"{hours:,}", f"{gpus:,}", *map(figure, found.values()), figure(total)]
            print(f"| {' | '.join(cells)} | {figure(total * gpus * rates.price)} | {limit} |")


if __name__ == "__main__":
    main()
