"""Everything that a GPU computes, measured on one card in about ten minutes, without a network.

    python benchmarks/gpu.py [--device cuda] [--quick] [--output FILE.json]

Weights are random and videos are generated, since speed depends on neither: only torch,
torchvision, PyAV, OpenCV and vidkd must be installed. Parts, each of which may fail alone and is
then named:

- the limits of the card: matrix products in three precisions, and a copy;
- TV-L1: pairs/s in batches, as it is and compiled, against OpenCV on one core, with the end-point
  error of both to OpenCV;
- I3D and MViT-v2-S: frames/s in float32 and float16, launched op by op and as one captured CUDA
  graph, with the share of the matrix product of that precision and the error of the features;
- detect: frames/s from file to segments, against the 140 frames/s of Dai et al. 2021;
- training: steps/s of the default temporal filter with its segment head.

``--device cpu --quick`` tries the script itself; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tvl1 import generated

from vidkd.console import emit_json, log
from vidkd.detection.detector import Detector
from vidkd.files import write_json
from vidkd.flow import flow_function
from vidkd.flow import torch_tvl1 as eager_tvl1
from vidkd.networks import FilterHeader, build_temporal_filter, save_temporal_filter, save_weights
from vidkd.networks.i3d import I3D
from vidkd.networks.weights import state_sha256
from vidkd.pipeline.machine import copy_bandwidth, describe_machine, fastest, operations
from vidkd.recipe import FilterSettings, FrameSettings, SnippetSettings
from vidkd.video import VideoWriter

PAPER = 140
"""Frames/s of the paper's detector (Dai et al. 2021, section 4)."""
CLASSES = 20


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], object], device: torch.device, rounds: int) -> dict[str, float]:
    """Return the median and the range of some calls, after two that warm up."""
    taken = []
    for turn in range(rounds + 2):
        wait(device)
        started = time.perf_counter()
        call()
        wait(device)
        if turn > 1:
            taken.append(time.perf_counter() - started)
    return {"median": statistics.median(taken), "least": min(taken), "most": max(taken)}


def limits(device: torch.device, quick: bool) -> dict[str, float]:
    """Return TFLOP/s of matrix products and GB/s of a copy."""
    side = 512 if quick else 8192
    found = {}
    for name, dtype in (("float32", torch.float32), ("float16", torch.float16)):
        a, b = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))
        found[name] = fastest(partial(torch.mm, a, b), operations((side, side, side)), 5) / 1e3
    with tensor_cores():
        a, b = (torch.rand(side, side, device=device) for _ in range(2))
        found["tf32"] = fastest(partial(torch.mm, a, b), operations((side, side, side)), 5) / 1e3
    return found | {"copy_gb_per_second": copy_bandwidth(device)}


@contextmanager
def tensor_cores() -> Iterator[None]:
    """Let float32 products be rounded to 10 bits (TF32) while the block runs."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def flow(device: torch.device, quick: bool) -> dict[str, Any]:
    """Measure TV-L1 in batches against OpenCV on one core, on the same generated frames."""
    cv2.setNumThreads(1)
    found: dict[str, Any] = {}
    for side in (48,) if quick else (128, 256):
        frames = generated(side, 3 if quick else 65)
        images = np.stack(frames)
        opencv, taken, expected = flow_function("opencv"), [], []
        for pair in list(pairwise(frames))[:8]:
            started = time.thread_time()
            expected.append(opencv(*pair))
            taken.append(time.thread_time() - started)
        row: dict[str, Any] = {"opencv_pairs_per_second": 1 / statistics.median(taken)}
        for name in ("eager",) if quick else ("eager", "compiled"):
            estimator = eager_tvl1.TorchTVL1(device, batch_size=32)
            # The sweep takes nearly all of the time: 40 memory-bound kernels that can become a few.
            original = eager_tvl1._sweep
            if name == "compiled":
                eager_tvl1._sweep = torch.compile(original, dynamic=False)
            try:
                flows = estimator.sequence(images)
                spent = seconds(partial(estimator.sequence, images), device, 1 if quick else 3)
            except Exception as error:
                row[name] = {"failed": str(error).splitlines()[0]}
                continue
            finally:
                eager_tvl1._sweep = original
            away = [
                float(np.hypot(*np.moveaxis(a - b, -1, 0)).mean())
                for a, b in zip(flows, expected, strict=False)
            ]
            rate = len(flows) / spent["median"]
            row[name] = {
                "pairs_per_second": rate,
                "times_opencv_on_one_core": rate / row["opencv_pairs_per_second"],
                "end_point_error": statistics.fmean(away),
                "seconds": spent,
            }
        found[f"{images.shape[2]}x{images.shape[1]}"] = row
    return found


def captured(network: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """Return a call that replays the network on ``x`` as one CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            network(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result: Tensor = network(x)

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


class Features(nn.Module):
    """A network of which the features are wanted, not the classes."""

    def __init__(self, network: I3D) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network.features(x)


def networks(device: torch.device, quick: bool, peaks: dict[str, float]) -> dict[str, Any]:
    """Measure I3D and a transformer in float32 and float16, eager and as a graph."""
    from torchvision.models.video import mvit_v2_s

    crop, batches = (64, (1,)) if quick else (224, (1, 8, 32))
    torch.manual_seed(0)
    made = {"i3d": Features(I3D(3, 400)).eval()}
    if not quick:
        made["mvit_v2_s"] = mvit_v2_s().eval()
    found: dict[str, Any] = {}
    for name, network in made.items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.zeros(1, 3, 16, crop, crop))
        work, rows = counter.get_total_flops(), []
        network.to(device)
        for batch in batches:
            clip = torch.rand(batch, 3, 16, crop, crop, device=device) * 2 - 1
            with torch.inference_mode():
                reference = network(clip)
            for dtype in (torch.float32, torch.float16):
                own = network.to(dtype)
                x = clip.to(dtype).contiguous(memory_format=torch.channels_last_3d)
                calls: dict[str, Callable[[], Tensor]] = {"eager": partial(own, x)}
                with torch.inference_mode():
                    if device.type == "cuda":
                        calls["graph"] = captured(own, x)
                    for way, call in calls.items():
                        result = call().float()
                        spent = seconds(call, device, 2 if quick else 10)
                        kind = str(dtype).removeprefix("torch.")
                        rows.append(
                            {
                                "batch": batch,
                                "precision": kind,
                                "way": way,
                                "frames_per_second": 16 * batch / spent["median"],
                                "share_of_matrix_product": batch
                                * work
                                / spent["median"]
                                / 1e12
                                / peaks[kind],
                                "feature_error": float(
                                    (result - reference).norm() / reference.norm()
                                ),
                                "seconds": spent,
                            }
                        )
                network.float()
        found[name] = {"gflop_per_snippet": work / 1e9, "rows": rows}
    return found


def student(folder: Path) -> Path:
    """Write I3D with random weights, and a student of it, and return the student."""
    state = {
        key: value
        for key, value in I3D(3, 400).state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    digest, name = state_sha256(state), "i3d-rgb-kinetics400"
    header = {"network": "i3d", "card": name, "weights_sha256": digest}
    save_weights(folder / f"{name}.safetensors", state, header)
    settings = FilterSettings(channels=256, levels=4)
    module = build_temporal_filter(settings, 1024, CLASSES)
    path = folder / "student" / "weights.safetensors"
    fields = FilterHeader(
        filter=settings,
        in_features=1024,
        classes=tuple(f"class {number}" for number in range(CLASSES)),
        modality="rgb",
        encoder=name,
        encoder_sha256=digest,
        frames=FrameSettings(short_side=256),
        snippet=SnippetSettings(length=16, stride=16),
        crop=224,
    )
    save_temporal_filter(path, module, fields)
    return path


def detection(device: torch.device, quick: bool) -> dict[str, Any]:
    """Measure detect, file to segments, on a generated video, in float32 and float16."""
    import os

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["VIDKD_MODELS"] = str(folder)
        model, video = student(folder), folder / "video.mp4"
        count = 32 if quick else 3000
        frames = generated(256, 32)
        with VideoWriter(video, frames[0].shape[1], frames[0].shape[0], 25) as writer:
            for number in range(count):
                writer.write(np.repeat(frames[number % 32][..., None], 3, axis=2))
        for precision in ("float32", "float16") if device.type == "cuda" else ("float32",):
            detector = Detector(model, str(device), precision=precision)
            spent = seconds(partial(detector, video), device, 1 if quick else 3)
            rate = count / spent["median"]
            found[precision] = {
                "frames_per_second": rate,
                "times_the_paper": rate / PAPER,
                "seconds": spent,
            }
    return found


def training(device: torch.device, quick: bool) -> dict[str, Any]:
    """Measure steps/s of the default filter with a segment head: 16 videos of 200 snippets."""
    from vidkd.distillation.losses import classification_loss
    from vidkd.distillation.segment_loss import segment_losses

    videos, length = (2, 40) if quick else (16, 200)
    module = build_temporal_filter(FilterSettings(channels=256, levels=4), 1024, CLASSES)
    module.to(device).train()
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3)
    x = torch.randn(videos, length, 1024, device=device)
    mask = torch.ones(videos, length, dtype=torch.bool, device=device)
    labels = (torch.rand(videos, length, CLASSES, device=device) > 0.9).float()
    events = torch.tensor(
        [[v, v % CLASSES, 5.0 + v, 15.0 + v] for v in range(videos)], device=device
    )

    def step() -> None:
        output = module(x, mask)
        loss = classification_loss(output.logits, labels, mask)
        loss = loss + sum(segment_losses(module.segments(output, mask), events, mask.any(1)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    spent = seconds(step, device, 2 if quick else 20)
    return {"steps_per_second": 1 / spent["median"], "seconds": spent}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="Tiny sizes, to try the script.")
    parser.add_argument("--output", type=Path, metavar="FILE")
    options = parser.parse_args()
    device = torch.device(options.device)
    result: dict[str, Any] = {"machine": describe_machine(device), "torch": torch.__version__}
    result["limits_tflops"] = limits(device, options.quick)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "tvl1": partial(flow, device, options.quick),
        "networks": partial(networks, device, options.quick, result["limits_tflops"]),
        "detect": partial(detection, device, options.quick),
        "training": partial(training, device, options.quick),
    }
    for name, part in parts.items():
        log(f"{name} ...")
        try:
            result[name] = part()
        except Exception as error:  # the rest is worth having
            result[name] = {"failed": f"{type(error).__name__}: {error}"}
        if options.output:
            write_json(options.output, result)
    emit_json(result)


if __name__ == "__main__":
    main()
