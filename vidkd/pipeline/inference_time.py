"""How long the models of an experiment take at run time, and which is best within a budget."""

from __future__ import annotations

import functools
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidkd.console import log
from vidkd.errors import UsageError, VidkdError
from vidkd.files import write_json
from vidkd.pipeline.benchmark import Benchmark
from vidkd.pipeline.results import ResultRow, Results, read_json
from vidkd.pipeline.runs import fuse_row
from vidkd.pipeline.stages import Stage, run_stages
from vidkd.pipeline.tables import TableRow
from vidkd.report.paper_figures import SpeedPoint, draw_speed

if TYPE_CHECKING:
    from vidkd.video import VideoFile

ROUNDS = 3
Pairs = Sequence[tuple[TableRow, ResultRow]]
"""Rows as they were planned, with their numbers."""


@dataclass(frozen=True)
class Candidate:
    """One model that may be chosen.

    Attributes:
        name: of its row.
        frames_per_second: of `detect`; None where it cannot run on video alone.
        validation: frame mAP on the validation subset in per cent, mean over seeds.
        fits: whether it reaches the budget.
    """

    name: str
    frames_per_second: float | None
    validation: float
    fits: bool


@dataclass(frozen=True)
class Choice:
    """The model that is best on validation among those that reach a rate.

    Attributes:
        budget: frames/s of the user.
        name: of its row.
        model: the folder that `detect --model` takes.
        seed: whose model it is: the best on validation.
        candidates: all that it was chosen from.
        picture: accuracy against cost.
    """

    budget: float
    name: str
    model: Path
    seed: int
    candidates: tuple[Candidate, ...]
    picture: Path

    def sentence(self) -> str:
        """Say in one line what was chosen."""
        return (
            f"chosen for {self.budget:g} frames/s: {self.name}, seed {self.seed},"
            f" in {self.model} (see choice.json there)"
        )

    def cells(self) -> list[tuple[str, str, str, str]]:
        """Return what it was chosen from as rows of a table."""
        return [
            (
                item.name,
                "" if item.frames_per_second is None else f"{item.frames_per_second:.1f}",
                f"{item.validation:.1f}",
                "yes" if item.fits else "no",
            )
            for item in self.candidates
        ]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {
            "budget_frames_per_second": self.budget,
            "row": self.name,
            "model": str(self.model),
            "seed": self.seed,
            "candidates": [vars(item) for item in self.candidates],
            "picture": str(self.picture),
        }


def speed_points(benchmark: Benchmark, results: Results) -> tuple[list[SpeedPoint], str]:
    """Return accuracy and time of the models of Table 3 (or 5), and how the time was measured.

    Raises:
        VidkdError: there is no such table, or no video to measure on.
    """
    found = {table.key: number for number, table in enumerate(benchmark.tables)}
    for key in ("table-3", "table-5"):
        if key in found:
            table = benchmark.tables[found[key]]
            rows = zip(table.rows, results.tables[found[key]].rows, strict=True)
            first = table.rows[0].cells[0]
            # Other splits have the same times.
            return _points(benchmark, results, [pair for pair in rows if pair[0].cells[0] == first])
    raise VidkdError("the benchmark has neither table 3 nor 5", remedy="ask for table 3")


def choose_model(benchmark: Benchmark, results: Results, budget: float) -> Choice:
    """Choose the best model on validation that `detect` runs at a rate, and put it in a folder.

    The test subset has no say. ``models/chosen`` holds the model, and what was chosen from.

    Args:
        benchmark: of ``vidkd run``, with validation evaluated.
        results: its numbers.
        budget: frames/s.

    Raises:
        UsageError: no model reaches the rate.
        VidkdError: there is no video to measure on.
    """
    pairs: Pairs = list(zip(benchmark.tables[0].rows, results.tables[0].rows, strict=True))
    metric = results.metrics[0]
    times = measured(benchmark, [row for row, _ in pairs])
    candidates = []
    for row, result in pairs:
        rate = times["frames_per_second"].get(row.slug)
        score = statistics.fmean(result.numbers(metric, validation=True))
        candidates.append(Candidate(row.cells[0], rate, score, (rate or 0.0) >= budget))
    fitting = [number for number, item in enumerate(candidates) if item.fits]
    if not fitting:
        known = [item for item in candidates if item.frames_per_second is not None]
        best = max(known, key=lambda item: item.frames_per_second or 0.0, default=None)
        said = "none can be run" if best is None else f"{best.name}: {best.frames_per_second:.0f}"
        raise UsageError(
            f"no model reaches {budget:g} frames/s on this machine (the fastest, {said})",
            remedy="lower --budget, or make the frames smaller or the stride longer in the recipe",
        )
    # Of two that are as good the faster one, which is the last column of the key.
    best_row = max(
        fitting,
        key=lambda n: (candidates[n].validation, candidates[n].frames_per_second or 0.0),
    )
    row, result = pairs[best_row]
    seed = max(result.seeds, key=lambda item: item.validation[metric] or 0.0).seed
    folder = benchmark.layout.root / "models" / "chosen"
    _copy(benchmark, row, seed, folder)
    points, caption = _points(benchmark, results, pairs)
    picture = benchmark.layout.pictures / "cost.png"
    draw_speed(picture, points, metric, caption)
    choice = Choice(budget, row.cells[0], folder, seed, tuple(candidates), picture)
    write_json(folder / "choice.json", choice.to_json())
    return choice


def _copy(benchmark: Benchmark, row: TableRow, seed: int, folder: Path) -> None:
    models = benchmark.models(row, seed)
    if len(models) > 1:
        split = benchmark.splits[row.split]
        subset = (split.path, split.format, benchmark.recipe.subsets.validation)
        fuse_row(models, benchmark.layout.cache, subset, benchmark.device, folder, kind="equal")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(models[0] / "weights.safetensors", folder / "weights.safetensors")


def _points(benchmark: Benchmark, results: Results, pairs: Pairs) -> tuple[list[SpeedPoint], str]:
    times = measured(benchmark, [row for row, _ in pairs])
    points, without = [], []
    for row, result in pairs:
        values = result.numbers(results.metrics[0])
        if row.slug not in times["milliseconds"]:
            without.append(result.cells[-1])
        elif values:
            points.append(SpeedPoint(result.cells[-1], times["milliseconds"][row.slug], values))
    if not points:
        raise VidkdError("no row has finished", remedy="see what failed")
    caption = (
        f"`vidkd detect`, from the file to the segments, on video {times['video']} "
        f"({times['seconds']:.0f} s) on {times['machine']}; median of {ROUNDS} rounds after one to "
        f"warm up, all models in turn. Accuracy on subset {results.subset}, mean and sample "
        "standard deviation over seeds."
    )
    if without:
        caption += f" Not on video alone: {', '.join(without)}."
    return points, caption


def measured(benchmark: Benchmark, rows: Sequence[TableRow]) -> dict[str, Any]:
    """Return the time of `detect` by row, measured now or before.

    It is kept in ``speed.json``, and measured again when the recipe's frames, snippets, encoders
    or models change.

    Raises:
        VidkdError: there is no video to measure on.
    """
    recipe, path = benchmark.recipe, benchmark.layout.root / "speed.json"
    fields = {"frames", "snippet", "flow", "pose", "encoders", "filter"}
    names = sorted(row.slug for row in rows)
    settings = {**recipe.model_dump(mode="json", include=fields), "models": names}
    action = functools.partial(_measure, benchmark, rows, path)
    run_stages([Stage("speed", settings, [path], action)], benchmark.layout.root, overwrite=True)
    return read_json(path)


def _measure(benchmark: Benchmark, rows: Sequence[TableRow], path: Path) -> None:
    from vidkd.detection.detector import Detector
    from vidkd.pipeline.machine import describe_machine

    video = _shortest(benchmark)
    detectors = {}
    for row in rows:
        models = benchmark.models(row, benchmark.recipe.seeds[0])
        if not all((model / "weights.safetensors").exists() for model in models):
            continue  # a row that failed
        try:
            detectors[row.slug] = Detector(models, benchmark.device)
        except UsageError as error:
            log(f"inference time of {row.cells[-1]}: {error}")
    if not detectors:
        raise VidkdError("no model can be run on video alone", remedy="see what failed")
    taken: dict[str, list[float]] = {slug: [] for slug in detectors}
    for number in range(ROUNDS + 1):
        for slug, detector in detectors.items():
            started = time.perf_counter()
            result = detector(video.path)
            if number:
                taken[slug].append(time.perf_counter() - started)
        log(f"inference time: round {number} of {ROUNDS}" if number else "inference time: warm")
    frames = result.info.frame_count or round(result.duration * result.info.frame_rate)
    device = next(iter(detectors.values())).scorer.sources[0].encoder.device
    machine = describe_machine(device)
    medians = {slug: statistics.median(values) for slug, values in taken.items()}
    write_json(
        path,
        {
            "video": video.key,
            "seconds": result.duration,
            "frames": frames,
            "machine": machine.get("gpu", f"{machine['cores']} cores of {machine['processor']}"),
            "milliseconds": {
                slug: 1000 * value / result.duration for slug, value in medians.items()
            },
            "frames_per_second": {slug: frames / value for slug, value in medians.items()},
            "rounds": taken,
            "facts": machine,
        },
    )


def _shortest(benchmark: Benchmark) -> VideoFile:
    data = benchmark.recipe.data
    if data is not None and data.videos is None:
        raise VidkdError("there are no videos to measure on", remedy="give --videos FOLDER")
    found = benchmark.splits[""].videos_of(benchmark.reported)
    return min(found, key=lambda video: (video.path.stat().st_size, video.key))
