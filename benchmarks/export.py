"""Speed of an exported encoder in ONNX Runtime and OpenVINO beside ours, interleaved in one run.

    python benchmarks/export.py --ours STUDENT --exported DIR [DIR ...] [--rounds 7] [--json]

``DIR`` is a folder of ``vidkd export``. Each round encodes the same two snippets of noise with
every encoder in turn, ours together and the others one by one, as `vidkd detect` and ``run.py`` do;
with as many threads as there are cores, or one under ``taskset -c 0``. Printed are the median time
for a snippet with its interquartile range, the median over the rounds of its ratio to ours in the
same round (above 1: faster than ours), and the same of the fastest times.
"""

from __future__ import annotations

import argparse
import json
import runpy
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vidkd.console import emit_json, emit_table
from vidkd.deployment.folder import DESCRIPTION, SCRIPT
from vidkd.detection.detector import Detector
from vidkd.machine import processor
from vidkd.streams.encode import BatchEncoder, square_crop


def ours(student: Path, precision: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return what encodes frames (2, T, H, W, 3), a batch of `vidkd detect`, as it does."""
    detector = Detector(student, "cpu", precision=precision)  # type: ignore[arg-type]
    [source], [sampling] = detector.scorer.sources, detector.scorer.sampling(25)
    prepare = source.stream.prepare(source.encoder.card, source.encoder.device, source.made)
    encode = BatchEncoder(source.output, source.encoder.device, prepare)

    def run(frames: np.ndarray) -> np.ndarray:
        return encode(encode.send(np.ascontiguousarray(square_crop(frames, sampling.crop))))

    return run


def exported(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return what encodes a snippet as the folder's script does."""
    spec = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    graph = runpy.run_path(str(folder / SCRIPT))["load"](folder / spec["graphs"]["encoder"]["file"])
    return lambda frames: np.concatenate([graph(clip[None])[0] for clip in frames])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--ours", type=Path, required=True, help="the student")
    parser.add_argument("--precision", default="float32", help="of ours")
    parser.add_argument("--exported", type=Path, nargs="+", required=True, help="folders")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs = {"ours": ours(options.ours, options.precision)}
    runs |= {folder.name: exported(folder) for folder in options.exported}
    spec = json.loads((options.exported[0] / DESCRIPTION).read_text(encoding="utf-8"))
    length, side = len(spec["snippets"]["clip"]), spec["short_side"]
    generator = np.random.default_rng(0)
    shape = (options.rounds + 1, 2, length, side, side * 4 // 3, 3)
    frames, *others = generator.integers(0, 256, shape, dtype=np.uint8)
    expected = runs["ours"](frames)
    errors = {name: float(np.abs(run(frames) - expected).max()) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number, own in enumerate(others):  # `vidkd detect` computes equal snippets once
        # Each is first in some round.
        for name in np.roll(list(runs), number):
            begin = time.perf_counter()
            runs[name](own)
            seconds[name].append((time.perf_counter() - begin) / len(own))
    rows = []
    for name, taken in seconds.items():
        low, middle, high = statistics.quantiles(taken, n=4)
        ratios = [a / b for a, b in zip(seconds["ours"], taken, strict=True)]
        ratio, best = statistics.median(ratios), min(seconds["ours"]) / min(taken)
        rows.append((name, middle, high - low, ratio, best, errors[name]))
    columns = ("encoder", "median s", "spread s", "ratio", "ratio of fastest", "difference")
    if options.json:
        emit_json({"rows": [dict(zip(columns, row, strict=True)) for row in rows]})
        return
    name, sets = processor()
    print(f"{name}: {', '.join(sets)}; {torch.get_num_threads()} threads")
    shown = [(row[0], *(f"{value:.3g}" for value in row[1:])) for row in rows]
    emit_table(f"{length} frames, crop {spec['crop']}", columns, shown)


if __name__ == "__main__":
    main()
