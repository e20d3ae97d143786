"""Speed of I3D on the CPU: ours against the plain eager model, interleaved in one run.

    python benchmarks/i3d.py [--crops 224 112] [--batches 1 2] [--rounds 7] [--threads N] [--json]

Each variant lives in a process of its own, since memory allocation is set per process, and only
one computes at a time: plain, ours, plain, ours, ... Medians over the rounds are reported with
their spread (the interquartile range), after one round of warming up, and the fastest round,
which is what counts on a machine that others use too. Weights are random: speed does not depend
on them.

Plain is the network as the public PyTorch port of I3D computes it: contiguous memory, batch
normalisation by itself, and "SAME" padding by a padded copy before every convolution and pool.
The int8 variants need OpenVINO and are left out without it: all layers in 8 bits, and those that
an error of 1 % in the features allowed on real video.

The limit is matrix products measured in the same run: in float32 by both libraries that PyTorch
has for it, in 8 bits by OpenVINO. Of a mixture, each part is held against its own.
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

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from vidkd.console import emit_json, emit_table, log
from vidkd.errors import VidkdError
from vidkd.networks.i3d import (
    END_POINTS,
    I3D,
    POOLS,
    Inception,
    Size3,
    Unit,
    pooled_windows,
    same_padding,
)
from vidkd.networks.i3d_inference import (
    InferenceI3D,
    keep_freed_memory,
)
from vidkd.networks.i3d_int8 import GROUPS, Int8I3D, load_openvino
from vidkd.networks.quantise import calibrate, quantised_state
from vidkd.pipeline.machine import fastest, float32_products, operations

FRAMES = 16
NARROW = 32
"""Columns of what goes into the measurement of 8-bit products, and comes out of it."""
VARIANTS = ("plain", "plain, memory kept", "ours", "int8 to 1 %", "int8 throughout")
FLOAT32_AT_1_PERCENT = (
    *("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Mixed_3b", "Mixed_3c", "Mixed_4b", "Mixed_4b.b2b"),
    *("Mixed_4c", "Mixed_4c.b2b", "Mixed_4d", "Mixed_4d.b2b", "Mixed_4e", "Mixed_4e.b1b"),
    *("Mixed_4e.b2b", "Mixed_4f", "Mixed_4f.b1b", "Mixed_4f.b2b", "Mixed_5b", "Mixed_5b.b1b"),
    *("Mixed_5b.b2b", "Mixed_5c", "Mixed_5c.b1b", "Mixed_5c.b2b"),
)
"""What `vidkd models quantise` left in float32 with the weights of i3d-rgb-kinetics400."""


def int8_groups(variant: str) -> list[str]:
    """Return the groups of layers that are in 8 bits."""
    if not variant.startswith("int8"):
        return []
    left = () if variant == "int8 throughout" else FLOAT32_AT_1_PERCENT
    return [group for group in GROUPS if group not in left]


class Ported(nn.Module):
    """I3D computed as in the public PyTorch port: pad a copy, convolve, normalise, ReLU."""

    def __init__(self, network: I3D) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        for name in END_POINTS:
            if name in POOLS:
                x = self._pool(x, *POOLS[name])
                continue
            layer = self.network.layers[name]
            x = self._inception(x, layer) if isinstance(layer, Inception) else self._unit(x, layer)
        return self.network.classifier(pooled_windows(x))

    def _inception(self, x: Tensor, layer: Inception) -> Tensor:
        pooled = self._pool(x, (3, 3, 3), (1, 1, 1))
        b1, b2 = self._unit(x, layer.b1a), self._unit(x, layer.b2a)
        branches = self._unit(x, layer.b0), self._unit(b1, layer.b1b), self._unit(b2, layer.b2b)
        return torch.cat([*branches, self._unit(pooled, layer.b3b)], dim=1)

    def _unit(self, x: Tensor, unit: nn.Module) -> Tensor:
        assert isinstance(unit, Unit)
        x = functional.pad(x, self._padding(x, unit.kernel, unit.stride))
        return functional.relu(unit.norm(unit.conv(x)))

    def _pool(self, x: Tensor, kernel: Size3, stride: Size3) -> Tensor:
        x = functional.pad(x, self._padding(x, kernel, stride))
        return functional.max_pool3d(x, kernel, stride)

    def _padding(self, x: Tensor, kernel: Size3, stride: Size3) -> list[int]:
        sizes = list(zip(x.shape[2:], kernel, stride, strict=True))
        return [side for n, k, s in reversed(sizes) for side in same_padding(n, k, s)]


def check_ported(network: I3D) -> None:
    """Fail unless both compute the same (no negative value ever meets a padded maximum)."""
    x = torch.rand(1, 3, FRAMES, 64, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(Ported(network)(x), network(x)[1], rtol=1e-3, atol=1e-4)


def serve(variant: str, threads: int, pipe: Connection) -> None:
    """Time one variant on request, until the request is None."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    trained = I3D().eval()
    if variant != "plain":
        keep_freed_memory()
    network: nn.Module = Ported(trained) if variant.startswith("plain") else InferenceI3D(trained)
    if groups := int8_groups(variant):
        assert isinstance(network, InferenceI3D)
        seen = calibrate(network, [torch.rand(1, 3, FRAMES, 32, 32) * 2 - 1])
        network = Int8I3D(quantised_state(network, seen, groups))
    with torch.no_grad():
        while (request := pipe.recv()) is not None:
            batch, crop = request
            x = torch.rand(batch, 3, FRAMES, crop, crop) * 2 - 1
            started = time.perf_counter()
            network(x)
            pipe.send(time.perf_counter() - started)


class MatrixProduct:
    """GFLOP/s of a matrix product by each library: the best seen so far."""

    SIZES = ((2048, 2048, 2048), (8192, 512, 512), (12544, 256, 256))

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self.best: dict[str, float] = {}
        self._int8 = int8_products(self.SIZES) if "int8 throughout" in available() else {}

    def limit(self, int8_share: float) -> float:
        """Return the GFLOP/s of a mixture in which so many of the operations are int8."""
        float32 = max(rate for name, rate in self.best.items() if name != "OpenVINO int8")
        if int8_share == 0:
            return float32
        return 1 / (int8_share / self.best["OpenVINO int8"] + (1 - int8_share) / float32)

    def measure(self) -> None:
        """Multiply matrices of every size once more."""
        for size in self.SIZES:
            for name, call in float32_products(size, torch.device("cpu")).items():
                self._time(name, operations(size), call)
            if self._int8:
                small = 2.0 * size[0] * NARROW * (size[1] + size[2])
                self._time("OpenVINO int8", operations(size) + small, self._int8[size])

    def _time(self, name: str, count: float, call: Callable[[], object]) -> None:
        self.best[name] = max(self.best.get(name, 0.0), fastest(call, count, 3))


def available() -> list[str]:
    """Return the variants that can run here."""
    try:
        load_openvino()
    except VidkdError:
        return [variant for variant in VARIANTS if not variant.startswith("int8")]
    return list(VARIANTS)


def int8_products(
    sizes: tuple[tuple[int, int, int], ...],
) -> dict[tuple[int, int, int], Callable[[], object]]:
    """Return one product of 8-bit matrices for each size: a 1x1 convolution with 8-bit result."""
    import openvino
    from openvino import opset13 as ops

    def rounded(x: Any) -> Any:
        ends = [ops.constant(np.full((1, 1, 1, 1), end, np.float32)) for end in (0.0, 1.0)]
        return ops.fake_quantize(x, *ends, *ends, 256).output(0)

    products: dict[tuple[int, int, int], Callable[[], object]] = {}
    for rows, inner, columns in sizes:
        # Few columns come in and go out, so that converting them weighs little.
        image = ops.parameter([1, NARROW, rows // 64, 64], np.float32)
        x = rounded(image.output(0))
        for outputs, inputs in ((inner, NARROW), (columns, inner), (NARROW, columns)):
            kernel = np.random.default_rng(0).integers(-127, 128, (outputs, inputs, 1, 1), np.int8)
            scale = ops.constant(np.full((outputs, 1, 1, 1), 1e-3, np.float32))
            weight = ops.multiply(ops.convert(ops.constant(kernel), "f32"), scale)
            y = ops.convolution(x, weight, [1, 1], [0, 0], [0, 0], [1, 1])
            x = rounded(ops.relu(y).output(0))
        model = openvino.Model([x], [image], "product")
        settings = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
        data = np.random.default_rng(0).random((1, NARROW, rows // 64, 64), np.float32)
        products[rows, inner, columns] = partial(request.infer, [data], share_inputs=True)
    return products


def operations_per_snippet(crop: int) -> float:
    """Count the GFLOP of one snippet; a multiplication and an addition are two operations."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        I3D().eval()(torch.zeros(1, 3, FRAMES, crop, crop))
    return counter.get_total_flops() / 1e9


def int8_share(variant: str, crop: int) -> float:
    """Return the share of the operations that a variant does in 8 bits."""
    groups = int8_groups(variant)
    if not groups:
        return 0.0
    network = InferenceI3D(I3D().eval())
    found = calibrate(network, [torch.zeros(1, 3, FRAMES, crop, crop)]).operations
    return sum(found[group] for group in groups) / sum(found.values())


def measure(crops: list[int], batches: list[int], rounds: int, threads: int) -> dict[str, Any]:
    """Measure every variant at every crop and batch size."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    check_ported(I3D().eval())
    for variant in available():
        pipes[variant], theirs = context.Pipe()
        process = context.Process(target=serve, args=(variant, threads, theirs), daemon=True)
        process.start()
        processes.append(process)
    product = MatrixProduct(threads)
    rows: list[dict[str, Any]] = []
    for crop in crops:
        gflop = operations_per_snippet(crop)
        for batch in batches:
            times: dict[str, list[float]] = {variant: [] for variant in pipes}
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
                        "gflops_of_fastest": gflop / min(values),
                    }
                )
    for pipe in pipes.values():
        pipe.send(None)
    for process in processes:
        process.join()
    return {
        "torch": torch.__version__,
        "threads": threads,
        "rounds": rounds,
        "matrix_product_gflops": product.best,
        "gflop_per_snippet": {str(crop): operations_per_snippet(crop) for crop in crops},
        "results": [
            {
                **row,
                "share_of_limit": row["gflops_of_fastest"]
                / product.limit(int8_share(row["variant"], row["crop"])),
            }
            for row in rows
        ],
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
        "I3D",
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
