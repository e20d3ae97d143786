"""How long each stage of an extraction takes on one video, alone and together.

The stages are timed on the same frames, one after the other, then the whole extraction, and all
of that several times over, so that a disturbance meets every stage alike.
"""

from __future__ import annotations

import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vidkd.cache import CacheWriter, Provenance, describe_source
from vidkd.console import log
from vidkd.errors import VideoError
from vidkd.files import cores
from vidkd.recipe import FlowSettings, FrameSettings, SnippetSettings
from vidkd.video import Frame, probe, read_frames

if TYPE_CHECKING:
    from vidkd.streams.encode import Encoder

Rows = Iterable[tuple[np.ndarray, np.ndarray]]
"""Rows (n, ...) with their start and end seconds (n, 2)."""


@dataclass(frozen=True)
class Times:
    """What one stage took in every round.

    Attributes:
        wall: seconds that passed.
        processor: seconds that all threads of this process computed.
    """

    wall: list[float]
    processor: list[float]

    @property
    def seconds(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.wall)


@dataclass(frozen=True)
class Speed:
    """The stages of one extraction and the whole of it.

    Attributes:
        video: the file.
        modality: what was extracted: features of ``rgb``, or ``flow``.
        frames: how many frames every stage worked through.
        stages: by name, in order.
        whole: all stages together, as the extract command runs them.
        processors: how many this process may use.
        gflop: operations of the network for these frames / 1e9, or None without a network.
        product: GFLOP/s of a matrix product on the same device, or None without a network.
    """

    video: Path
    modality: str
    frames: int
    stages: dict[str, Times]
    whole: Times
    processors: int
    gflop: float | None = None
    product: float | None = None

    @property
    def slowest(self) -> str:
        """The name of the stage that takes longest alone."""
        return max(self.stages, key=lambda name: self.stages[name].seconds)

    @property
    def limit(self) -> float:
        """Seconds below which no overlap of these stages can get.

        Either the slowest stage, or the processor time of all stages shared by the processors:
        where one stage keeps them all busy, the others cannot hide behind it.
        """
        computed = sum(statistics.median(times.processor) for times in self.stages.values())
        return max(self.stages[self.slowest].seconds, computed / self.processors)

    def to_json(self) -> dict[str, Any]:
        """Return everything that was measured, and what follows from it."""
        encode = self.stages.get("encode")
        rate = None if encode is None or self.gflop is None else self.gflop / encode.seconds
        return {
            "video": str(self.video),
            "modality": self.modality,
            "frames": self.frames,
            "processors": self.processors,
            "stages": {name: vars(times) for name, times in self.stages.items()},
            "whole": vars(self.whole),
            "frames_per_second": self.frames / self.whole.seconds,
            "slowest_stage": self.slowest,
            "limit_seconds": self.limit,
            "whole_to_slowest_stage": self.whole.seconds / self.stages[self.slowest].seconds,
            "whole_to_limit": self.whole.seconds / self.limit,
            "network_gflops": rate,
            "matrix_product_gflops": self.product,
            "share_of_matrix_product": rate / self.product if rate and self.product else None,
        }


def rgb_speed(
    video: Path,
    encoder: Encoder,
    frames: FrameSettings,
    snippet: SnippetSettings,
    crop: int,
    batch_size: int,
    *,
    seconds: float,
    rounds: int,
) -> Speed:
    """Time ``extract-features --modality rgb`` on the first ``seconds`` of a video.

    Raises:
        VideoError: the video cannot be decoded.
        VidkdError: frames are smaller than the crop, or memory ran out.
    """
    from vidkd.streams import RGB
    from vidkd.streams.encode import encode, snippet_batches

    def decode() -> Iterator[Frame]:
        return read_frames(
            video, short_side=frames.short_side, frame_rate=frames.frame_rate, end=seconds
        )

    images = _frames(video, decode())
    batches = list(snippet_batches(images, snippet, crop, batch_size))
    prepare = RGB.prepare(encoder.card, encoder.device, {})
    snippets = sum(len(batch) for batch, _ in batches)

    def transform() -> None:
        for batch, _ in snippet_batches(images, snippet, crop, batch_size):
            prepare(batch)

    def compute() -> None:
        for rows, _ in _encoded(inputs, encoder):
            rows.cpu()

    inputs = [(prepare(batch), pts) for batch, pts in batches]
    features = [(rows.float().cpu().numpy(), pts) for rows, pts in _encoded(inputs, encoder)]
    with tempfile.TemporaryDirectory(prefix="vidkd-bench-") as folder:
        target = Path(folder) / "rows.h5"
        provenance = _provenance(video)

        def whole() -> None:
            cut = snippet_batches(decode(), snippet, crop, batch_size)
            _write(target, provenance, encode(cut, encoder, prepare), "float16")

        stages = {
            "decode": lambda: _exhaust(decode()),
            "transform": transform,
            "encode": compute,
            "write": lambda: _write(target, provenance, features, "float16"),
        }
        # In the same rounds, since the machine may be busier at one time than at another.
        products: list[float] = []
        product = {"product": lambda: products.append(_matrix_product(encoder.device))}
        times = _rounds({**stages, "whole": whole, **product}, rounds)
    size = inputs[0][0].shape
    return Speed(
        video,
        "rgb",
        len(images),
        {name: times[name] for name in stages},
        times["whole"],
        cores(),
        snippets * _gflop(encoder, size[2], size[3]),
        max(products),
    )


def flow_speed(
    video: Path,
    frames: FrameSettings,
    flow: FlowSettings,
    *,
    seconds: float,
    rounds: int,
) -> Speed:
    """Time ``extract-flow`` on the first ``seconds`` of a video, all processors on one video.

    Raises:
        VideoError: the video cannot be decoded.
    """
    from vidkd.flow import flow_rows

    def decode() -> Iterator[Frame]:
        return read_frames(
            video, short_side=frames.short_side, frame_rate=frames.frame_rate, end=seconds
        )

    def fields(images: Iterable[Frame]) -> Rows:
        for row in flow_rows(images, flow, threads=cores()):
            yield row.image[None], np.array([[row.start, row.end]])

    images = _frames(video, decode())
    stored = list(fields(images))
    with tempfile.TemporaryDirectory(prefix="vidkd-bench-") as folder:
        target = Path(folder) / "rows.h5"
        provenance = _provenance(video)
        stages = {
            "decode": lambda: _exhaust(decode()),
            "flow": lambda: _exhaust(fields(images)),
            "write": lambda: _write(target, provenance, stored, "uint8"),
        }
        whole = {"whole": lambda: _write(target, provenance, fields(decode()), "uint8")}
        times = _rounds({**stages, **whole}, rounds)
    return Speed(
        video,
        "flow",
        len(images),
        {name: times[name] for name in stages},
        times["whole"],
        cores(),
    )


def _frames(video: Path, decoded: Iterator[Frame]) -> list[Frame]:
    images = list(decoded)
    if not images:
        raise VideoError("has no frames", path=video, remedy="check the file")
    return images


def _encoded(
    inputs: Iterable[tuple[torch.Tensor, np.ndarray]], encoder: Encoder
) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    with torch.inference_mode():
        for batch, pts in inputs:
            yield encoder.features(batch), pts


def _exhaust(items: Iterable[object]) -> None:
    for _ in items:
        pass


def _provenance(video: Path) -> Provenance:
    return Provenance("features", describe_source(video, probe(video)), {}, versions={})


def _write(path: Path, provenance: Provenance, rows: Rows, dtype: str) -> None:
    blocks = iter(rows)
    first = next(blocks)
    with CacheWriter(path, provenance, first[0].shape[1:], dtype) as writer:
        writer.append(*first)
        for block in blocks:
            writer.append(*block)


def _rounds(work: dict[str, Callable[[], None]], rounds: int) -> dict[str, Times]:
    """Run everything once to warm up, then ``rounds`` times in turn."""
    times = {name: Times([], []) for name in work}
    for number in range(rounds + 1):
        for name, call in work.items():
            before = os.times()
            started = time.perf_counter()
            call()
            passed = time.perf_counter() - started
            after = os.times()
            if number:
                times[name].wall.append(passed)
                times[name].processor.append(
                    after.user + after.system - before.user - before.system
                )
        log(f"round {number} of {rounds}" if number else "warmed up")
    return times


def _gflop(encoder: Encoder, length: int, crop: int) -> float:
    """Count the operations of one snippet; a multiplication and an addition are two."""
    from torch.utils.flop_counter import FlopCounterMode

    from vidkd.networks.encoders import EncoderNetwork
    from vidkd.networks.i3d import I3D

    channels = encoder.card.in_channels
    network: torch.nn.Module = I3D(in_channels=channels)
    own = getattr(encoder, "network", None)
    # The fast forms of I3D are made of operators that the counter does not know.
    if isinstance(own, EncoderNetwork) and own.precision == "float32":
        network = copy.deepcopy(own)
    x = torch.zeros(1, channels, length, crop, crop, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.to("meta").eval()(x)
    return counter.get_total_flops() / 1e9


def _matrix_product(device: torch.device) -> float:
    """Measure the GFLOP/s of a float32 matrix product: the best seen, by any library."""
    from vidkd.pipeline.matrix_product import fastest, float32_products, operations

    size = (8192, 512, 512)
    products = float32_products(size, device)
    return max(fastest(call, operations(size), 8) for call in products.values())
