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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vidkd.cache import CacheWriter, Provenance, describe_source
from vidkd.console import log
from vidkd.errors import VideoError
from vidkd.machine import cores
from vidkd.pipeline.machine import copy_bandwidth, describe_machine, matrix_product
from vidkd.recipe import FlowSettings, FrameSettings, SnippetSettings
from vidkd.video import Frame, probe, read_frames

if TYPE_CHECKING:
    from vidkd.streams import Stream
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
        modality: what was extracted: features of this stream, or ``flow`` itself.
        frames: how many frames every stage worked through.
        stages: by name, in order.
        whole: all stages together, as the extract command runs them.
        processors: how many this process may use.
        gflop: operations of the network for these frames / 1e9, or None without a network.
        product: GFLOP/s of a matrix product on the same device, or None without a network.
        transformed: GB that the transform reads and writes, or None without one.
        bandwidth: GB/s of a copy on the same device, or None without a transform.
        machine: what ``describe_machine`` says.
    """

    video: Path
    modality: str
    frames: int
    stages: dict[str, Times]
    whole: Times
    processors: int
    gflop: float | None = None
    product: float | None = None
    transformed: float | None = None
    bandwidth: float | None = None
    machine: dict[str, Any] = field(default_factory=dict)

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

    def shares(self) -> dict[str, float]:
        """Return the share of the machine's limit by stage, for the stages that have a plain one.

        The network is held against a matrix product, the transform against a copy. The whole is
        held against :attr:`limit`.
        """
        found = {"whole": self.limit / self.whole.seconds}
        for stage, work, most in (
            ("encode", self.gflop, self.product),
            ("transform", self.transformed, self.bandwidth),
        ):
            if stage in self.stages and work and most:
                found[stage] = work / self.stages[stage].seconds / most
        return found

    def to_json(self) -> dict[str, Any]:
        """Return everything that was measured, and what follows from it."""
        shares = self.shares()
        rate = shares["encode"] * self.product if self.product and "encode" in shares else None
        return {
            "video": str(self.video),
            "machine": self.machine,
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
            "share_of_matrix_product": shares.get("encode"),
            "copy_gb_per_second": self.bandwidth,
            "share_of_limit": shares,
        }


def feature_speed(
    video: Path,
    stream: Stream,
    encoder: Encoder,
    frames: FrameSettings,
    snippet: SnippetSettings,
    crop: int,
    batch_size: int,
    *,
    seconds: float,
    rounds: int,
) -> Speed:
    """Time ``extract-features`` of a stream of RGB frames on the first ``seconds`` of a video.

    Raises:
        VideoError: the video cannot be decoded.
        VidkdError: frames are smaller than the crop, or memory ran out.
    """
    from vidkd.streams.encode import batched, encode

    def decode() -> Iterator[Frame]:
        return read_frames(
            video, short_side=frames.short_side, frame_rate=frames.frame_rate, end=seconds
        )

    images = _frames(video, decode())

    def cut(images: Iterable[Frame]) -> Rows:
        return batched(stream.snippets(stream.rows(images), snippet, crop), batch_size)

    batches = list(cut(images))
    prepare = stream.prepare(encoder.card, encoder.device, {})
    snippets = sum(len(batch) for batch, _ in batches)

    def transform() -> None:
        for batch, _ in cut(images):
            prepare(batch)

    def compute() -> None:
        for rows, _ in _encoded(inputs, encoder):
            rows.cpu()

    inputs = [(prepare(batch), pts) for batch, pts in batches]
    features = [(rows.float().cpu().numpy(), pts) for rows, pts in _encoded(inputs, encoder)]
    products: list[float] = []
    copies: list[float] = []
    work = {
        "transform": transform,
        "encode": compute,
        "product": lambda: products.append(matrix_product(encoder.device)),
        "copy": lambda: copies.append(copy_bandwidth(encoder.device)),
    }

    def whole() -> Rows:
        return encode(cut(decode()), encoder, prepare)

    times = _timed(video, decode, work, features, whole, "float16", rounds)
    size = inputs[0][0].shape
    del times["product"], times["copy"]
    gflop = snippets * _gflop(encoder, size[2], size[3])
    moved = sum(
        rows.nbytes + batch.nbytes for (batch, _), (rows, _) in zip(batches, inputs, strict=True)
    )
    whole_time = times.pop("whole")
    return Speed(
        video,
        stream.name,
        len(images),
        times,
        whole_time,
        cores(),
        gflop,
        max(products),
        moved / 1e9,
        max(copies),
        describe_machine(encoder.device),
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
    work = {"flow": lambda: _exhaust(fields(images))}
    times = _timed(video, decode, work, stored, lambda: fields(decode()), "uint8", rounds)
    whole_time = times.pop("whole")
    machine = describe_machine()
    return Speed(video, "flow", len(images), times, whole_time, cores(), machine=machine)


def _timed(
    video: Path,
    decode: Callable[[], Iterator[Frame]],
    work: dict[str, Callable[[], None]],
    stored: Rows,
    whole: Callable[[], Rows],
    dtype: str,
    rounds: int,
) -> dict[str, Times]:
    """Time the stages, and all of them together as ``whole``, in the same rounds.

    The machine may be busier at one time than at another.

    Args:
        video: the file.
        decode: yields its frames.
        work: the stages between decoding and writing.
        stored: what is written.
        whole: yields the same from the video on.
        dtype: of the file.
        rounds: how often everything is timed.
    """
    with tempfile.TemporaryDirectory(prefix="vidkd-speed-") as folder:
        target, provenance = Path(folder) / "rows.h5", _provenance(video)
        calls = {
            "decode": lambda: _exhaust(decode()),
            **work,
            "write": lambda: _write(target, provenance, stored, dtype),
            "whole": lambda: _write(target, provenance, whole(), dtype),
        }
        return _rounds(calls, rounds)


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
