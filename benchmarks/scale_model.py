"""How long an extraction takes on how many machines, what it costs, and what is the limit.

    python benchmarks/scale_model.py [--encode 1000] [--flow 27] [--price 2.5] ...

Rates are frames/s of one processor core, or of one GPU for --encode; take yours from
`vidkd speed VIDEO`. The parts work side by side and the slowest decides; the start of the workers
comes before. See docs/scale.md.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in vars(Rates()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=value)
    rates = Rates(**vars(parser.parse_args()))
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
