"""How long every kind of input takes at run time, measured on one video of the benchmark."""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidkd.console import log
from vidkd.errors import VidkdError
from vidkd.machine import cores
from vidkd.pipeline.benchmark import Benchmark
from vidkd.pipeline.data import feature_settings
from vidkd.pipeline.results import ResultRow, Results, read_json
from vidkd.pipeline.stages import Stage, run_stages
from vidkd.pipeline.tables import TableRow
from vidkd.recipe import Modality
from vidkd.report.paper_figures import SpeedPoint
from vidkd.streams import STREAMS, Flow
from vidkd.streams.base import ignore

if TYPE_CHECKING:
    from vidkd.video import VideoFile

ROUNDS = 3


def speed_points(benchmark: Benchmark, results: Results) -> tuple[list[SpeedPoint], str]:
    """Return accuracy and time of the models of Table 3 (or 5), and how the time was measured.

    Raises:
        VidkdError: there is no such table, or no video to measure on.
    """
    pairs = _rows(benchmark, results)
    times = measured(benchmark, pairs[0][0])
    points = []
    for row, result in pairs:
        values = result.numbers(results.metrics[0])
        if values:
            total = sum(times["milliseconds"][run.modality] for run in row.runs)
            points.append(SpeedPoint(result.cells[-1], total, values))
    if not points:
        raise VidkdError("no row has finished", remedy="see what failed")
    caption = (
        f"Time measured on video {times['video']} ({times['seconds']:.0f} s) on "
        f"{times['machine']}: decoding, TV-L1 where the model sees flow, encoder and temporal "
        "filter, one stream after the other; "
        f"median of {ROUNDS} rounds after one to warm up. Accuracy on subset {results.subset}, "
        "mean and sample standard deviation over seeds."
    )
    return points, caption


def _timed(modality: Modality) -> bool:
    """Return whether the time of a stream can be measured from the video on; not that of poses."""
    stream = STREAMS[modality]
    return stream.artefact is None or isinstance(stream, Flow)


def _rows(benchmark: Benchmark, results: Results) -> list[tuple[TableRow, ResultRow]]:
    found = {table.key: number for number, table in enumerate(benchmark.tables)}
    for key in ("table-3", "table-5"):
        if key not in found:
            continue
        table = benchmark.tables[found[key]]
        rows = zip(table.rows, results.tables[found[key]].rows, strict=True)
        first = table.rows[0].cells[0]
        # Poses are measured by nobody yet, and other splits have the same times.
        chosen = [
            (row, result)
            for row, result in rows
            if row.cells[0] == first and all(_timed(run.modality) for run in row.runs)
        ]
        if chosen:
            return chosen
    raise VidkdError("the benchmark has neither table 3 nor 5", remedy="ask for table 3")


def measured(benchmark: Benchmark, row: TableRow) -> dict[str, Any]:
    """Return the milliseconds per second of video by modality, measured now or before.

    They are kept in ``speed.json`` and measured again when the recipe's frames, snippets or
    encoders change.

    Raises:
        VidkdError: there is no video to measure on.
    """
    recipe = benchmark.recipe
    modalities = [item for item, split in benchmark.features if not split and _timed(item)]
    path = benchmark.layout.root / "speed.json"
    fields = {"frames", "snippet", "flow", "encoders", "filter"}
    settings = {**recipe.model_dump(mode="json", include=fields), "modalities": modalities}
    action = functools.partial(_measure, benchmark, modalities, path)
    run_stages([Stage("speed", settings, [path], action)], benchmark.layout.root, overwrite=True)
    return read_json(path)


def _measure(benchmark: Benchmark, modalities: list[Modality], path: Path) -> None:
    from vidkd.cache import CacheFile
    from vidkd.files import write_json
    from vidkd.networks import select_device

    video = _shortest(benchmark)
    device = select_device(benchmark.device)
    milliseconds: dict[str, list[float]] = {modality: [] for modality in modalities}
    seconds = 0.0
    with tempfile.TemporaryDirectory(prefix="vidkd-speed-") as folder:
        encode = {modality: _encoder(benchmark, modality) for modality in modalities}
        for number in range(ROUNDS + 1):
            for modality in modalities:
                cache = Path(folder) / f"{modality}{number}"
                started = time.perf_counter()
                features = encode[modality](video, cache)
                _filter(benchmark, modality, features)
                passed = time.perf_counter() - started
                with CacheFile(features) as file:
                    seconds = float(file.pts[-1, 1])
                if number:
                    milliseconds[modality].append(1000 * passed / seconds)
            log(f"inference time: round {number} of {ROUNDS}" if number else "inference time: warm")
    import torch

    machine = f"{cores()} processor cores"
    if device.type == "cuda":
        machine = f"{torch.cuda.get_device_name(device)} (flow on {machine})"
    medians = {modality: statistics.median(values) for modality, values in milliseconds.items()}
    write_json(
        path,
        {
            "video": video.key,
            "seconds": seconds,
            "machine": machine,
            "milliseconds": medians,
            "rounds": milliseconds,
        },
    )


def _shortest(benchmark: Benchmark) -> VideoFile:
    data = benchmark.recipe.data
    if data is not None and data.videos is None:
        raise VidkdError("there are no videos to measure on", remedy="give --videos FOLDER")
    found = benchmark.splits[""].videos_of(benchmark.reported)
    return min(found, key=lambda video: (video.path.stat().st_size, video.key))


def _encoder(benchmark: Benchmark, modality: Modality) -> Any:
    """Return a function that makes the features of one video in a fresh cache."""
    import torch

    from vidkd.features import FlowTask, feature_task

    recipe, stream = benchmark.recipe, STREAMS[modality]
    settings = feature_settings(benchmark.splits[""], modality)
    stream.fetch_encoder(settings.encoder)
    encoder = stream.load_encoder(settings.encoder, benchmark.device, settings.precision)

    def encode(video: VideoFile, cache: Path) -> Path:
        if isinstance(stream, Flow):
            FlowTask(cache, recipe.frames, recipe.flow)(video, ignore, cores())
        task = feature_task(cache, settings, load=lambda name, device: encoder)
        return task(video, ignore, torch.get_num_threads()).path

    return encode


def _filter(benchmark: Benchmark, modality: Modality, features: Path) -> None:
    """Run a fresh temporal filter of the recipe over the features."""
    import torch

    from vidkd.cache import CacheFile
    from vidkd.networks import build_temporal_filter, select_device

    device = select_device(benchmark.device)
    with CacheFile(features) as file:
        rows = torch.from_numpy(file.rows()).float()
    classes = len(benchmark.splits[""].annotations.actions().classes)
    module = build_temporal_filter(benchmark.recipe.filter, rows.shape[1], classes)
    module.to(device).eval()
    with torch.inference_mode():
        mask = torch.ones(1, len(rows), dtype=torch.bool, device=device)
        module(rows[None].to(device), mask).logits.cpu()
