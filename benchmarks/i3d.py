"""Speed of I3D on the CPU: ours against the plain eager model, interleaved in one run.

    python benchmarks/i3d.py [--crops 224 112] [--batches 1 2] [--rounds 7] [--threads N] [--json]

Each variant lives in a process of its own, since memory allocation is set per process, and only
one computes at a time: plain, ours, plain, ours, ... Medians over the rounds are reported with
their spread (the interquartile range), after one round of warming up, and the fastest round,
which is what counts on a machine that others use too. The limit is a matrix product measured in
the same run, by both libraries that PyTorch has for it. Weights are random: speed does not
depend on them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vidkd.console import emit_json, emit_table, log
from vidkd.networks.i3d import I3D
from vidkd.networks.i3d_inference import (
    InferenceI3D,
    fused_convolution_available,
    keep_freed_memory,
)

FRAMES = 16
VARIANTS = ("plain", "plain, memory kept", "ours")


def serve(variant: str, threads: int, pipe: Connection) -> None:
    """Time one variant on request, until the request is None."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network: nn.Module = I3D().eval()
    if variant != "plain":
        keep_freed_memory()
    if variant == "ours":
        assert isinstance(network, I3D)
        network = InferenceI3D(network)
    with torch.no_grad():
        while (request := pipe.recv()) is not None:
            batch, crop = request
            x = torch.rand(batch, 3, FRAMES, crop, crop) * 2 - 1
            started = time.perf_counter()
            network(x)
            pipe.send(time.perf_counter() - started)


class MatrixProduct:
    """GFLOP/s of a float32 matrix product by each library: the best seen so far."""

    SIZES = ((2048, 2048, 2048), (8192, 512, 512), (12544, 256, 256))

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self.best: dict[str, float] = {}

    def measure(self) -> None:
        """Multiply matrices of every size once more."""
        for rows, inner, columns in self.SIZES:
            a, b = torch.rand(rows, inner), torch.rand(inner, columns)
            operations = 2.0 * rows * inner * columns
            self._time("torch.mm", operations, partial(torch.mm, a, b))
            if fused_convolution_available():
                # oneDNN has no matrix product of its own in PyTorch: a 1x1 convolution is one.
                image = a.T.reshape(1, inner, 1, rows // 64, 64)
                image = image.contiguous(memory_format=torch.channels_last_3d)
                geometry = [0, 0, 0], [1, 1, 1], [1, 1, 1], 1
                kernel = b.T.reshape(columns, inner, 1, 1, 1).contiguous()
                reorder = torch.ops.mkldnn._reorder_convolution_weight
                weight = reorder(kernel, *geometry, list(image.shape))
                convolve = torch.ops.mkldnn._convolution_pointwise
                call = partial(convolve, image, weight, None, *geometry, "none", [], "")
                self._time("oneDNN", operations, call)

    def _time(self, name: str, operations: float, call: Callable[[], object]) -> None:
        call()
        for _ in range(3):
            started = time.perf_counter()
            call()
            rate = operations / (time.perf_counter() - started) / 1e9
            self.best[name] = max(self.best.get(name, 0.0), rate)


def operations_per_snippet(crop: int) -> float:
    """Count the GFLOP of one snippet; a multiplication and an addition are two operations."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        I3D().eval()(torch.zeros(1, 3, FRAMES, crop, crop))
    return counter.get_total_flops() / 1e9


def measure(crops: list[int], batches: list[int], rounds: int, threads: int) -> dict[str, Any]:
    """Measure every variant at every crop and batch size."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for variant in VARIANTS:
        pipes[variant], theirs = context.Pipe()
        process = context.Process(target=serve, args=(variant, threads, theirs), daemon=True)
        process.start()
        processes.append(process)
    product = MatrixProduct(threads)
    rows: list[dict[str, Any]] = []
    for crop in crops:
        gflop = operations_per_snippet(crop)
        for batch in batches:
            times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
            for number in range(rounds + 1):
                product.measure()
                for variant, pipe in pipes.items():
                    pipe.send((batch, crop))
                    seconds = pipe.recv() / batch
                    if number:
                        times[variant].append(seconds)
            log(f"crop {crop}, batch {batch}: done")
            plain = statistics.median(times["plain"])
            for variant, values in times.items():
                median = statistics.median(values)
                quarters = statistics.quantiles(values, n=4)
                rows.append(
                    {
                        "crop": crop,
                        "batch": batch,
                        "variant": variant,
                        "ms_per_snippet": 1e3 * median,
                        "fastest_ms": 1e3 * min(values),
                        "spread_ms": 1e3 * (quarters[2] - quarters[0]),
                        "frames_per_second": FRAMES / median,
                        "ratio": plain / median,
                        "ratio_of_fastest": min(times["plain"]) / min(values),
                        "gflops": gflop / median,
                    }
                )
    for pipe in pipes.values():
        pipe.send(None)
    for process in processes:
        process.join()
    limit = max(product.best.values())
    return {
        "torch": torch.__version__,
        "threads": threads,
        "rounds": rounds,
        "matrix_product_gflops": product.best,
        "gflop_per_snippet": {str(crop): operations_per_snippet(crop) for crop in crops},
        "results": [{**row, "share_of_limit": row["gflops"] / limit} for row in rows],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--crops", type=int, nargs="+", default=[224, 112])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.crops, options.batches, options.rounds, options.threads)
    if options.json:
        emit_json(result)
        return
    limits = ", ".join(f"{n} {v:.0f}" for n, v in result["matrix_product_gflops"].items())
    log(f"torch {result['torch']}, {options.threads} threads; matrix product, GFLOP/s: {limits}")
    log(f"GFLOP per snippet: {json.dumps(result['gflop_per_snippet'])}")
    columns = ("crop, batch", "variant", "ms/snippet", "spread", "fastest", "frames/s")
    emit_table(
        "I3D, float32",
        (*columns, "ratio", "of fastest", "GFLOP/s", "of the limit"),
        [
            (
                f"{row['crop']}, {row['batch']}",
                row["variant"],
                f"{row['ms_per_snippet']:.1f}",
                f"{row['spread_ms']:.1f}",
                f"{row['fastest_ms']:.1f}",
                f"{row['frames_per_second']:.0f}",
                f"{row['ratio']:.2f}",
                f"{row['ratio_of_fastest']:.2f}",
                f"{row['gflops']:.0f}",
                f"{row['share_of_limit']:.0%}",
            )
            for row in result["results"]
        ],
    )


if __name__ == "__main__":
    main()
