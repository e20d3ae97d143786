"""How long an extraction takes on how many machines, and which part is the limit; docs/scale.md.

    python benchmarks/scale_model.py [--encode 1000] [--flow 27] [--decode 1000] ...

Rates are frames/s of one processor core, or of one GPU for --encode; take yours from
`vidkd speed VIDEO`. Every stage is taken to be limited by itself alone, and the slowest decides.
"""

from __future__ import annotations

import argparse

HOURS = (70, 1000)
GPUS = (1, 8, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=25, help="frames/s of the videos")
    parser.add_argument("--decode", type=float, default=1000, help="frames/s of a core")
    parser.add_argument("--flow", type=float, default=27, help="frames/s of a core; 0 for none")
    parser.add_argument("--encode", type=float, default=1000, help="frames/s of a GPU")
    parser.add_argument("--cores", type=float, default=8, help="cores for each GPU")
    parser.add_argument("--video-bytes", type=float, default=20e3, help="bytes of a video's frame")
    parser.add_argument("--network", type=float, default=1.25e9, help="bytes/s of the storage")
    chosen = parser.parse_args()
    cpu = 1 / chosen.decode + (1 / chosen.flow if chosen.flow else 0)
    print("| hours | GPUs | decode and flow, h | encode, h | read, h | the limit |")
    print("|---|---|---|---|---|---|")
    for hours in HOURS:
        frames = hours * 3600 * chosen.rate
        for gpus in GPUS:
            parts = {
                "decode and flow": frames * cpu / (chosen.cores * gpus) / 3600,
                "encode": frames / chosen.encode / gpus / 3600,
                "read": frames * chosen.video_bytes / chosen.network / 3600,
            }
            times = " | ".join(
                f"{value:.0f}" if value >= 10 else f"{value:.2g}" for value in parts.values()
            )
            print(f"| {hours} | {gpus} | {times} | {max(parts, key=lambda name: parts[name])} |")


if __name__ == "__main__":
    main()
