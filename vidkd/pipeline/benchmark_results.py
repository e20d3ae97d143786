"""From the metrics on disk to the tables of a benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vidkd.pipeline.benchmark import Benchmark
from vidkd.pipeline.matrix import TableRow
from vidkd.pipeline.waves import Outcome
from vidkd.recipe.paper import paper_number
from vidkd.report.paper_tables import (
    BenchmarkResults,
    ResultRow,
    ResultTable,
    SeedResult,
)

_FACTS = ("videos", "classes", "ground_truth_sha256")


def gather(benchmark: Benchmark, outcome: Outcome) -> BenchmarkResults:
    """Return the tables with all numbers that there are."""
    recipe = benchmark.recipe
    tiou = [f"{value:g}" for value in recipe.evaluation.tiou]
    tables = [
        ResultTable(
            table.key,
            table.title,
            table.columns,
            tuple(_row(benchmark, row, outcome) for row in table.rows),
            table.left_out,
        )
        for table in benchmark.tables
    ]
    return BenchmarkResults(
        name=recipe.name,
        subset=benchmark.reported,
        validation=recipe.subsets.validation,
        metrics=("frame mAP", *(f"mAP@{value}" for value in tiou)),
        protocol={
            "frame_protocol": recipe.evaluation.frame_protocol,
            "event_protocol": recipe.evaluation.event_protocol,
            "tiou": list(recipe.evaluation.tiou),
            "epochs": recipe.optimiser.epochs,
            "seeds": list(recipe.seeds),
            "dataset": recipe.dataset,
        },
        tables=tables,
    )


def _row(benchmark: Benchmark, row: TableRow, outcome: Outcome) -> ResultRow:
    seeds: list[SeedResult] = []
    failed: dict[int, str] = {}
    for seed in benchmark.recipe.seeds:
        why = _failure(benchmark, row, seed, outcome)
        if why is None:
            seeds.append(_seed(benchmark, row, seed))
        else:
            failed[seed] = why
    # The paper's rows are those of its own filter.
    known = row.paper if row.runs[0].filter.kind == "ss-tcn" else None
    paper = paper_number(_dataset(benchmark, row), known)
    return ResultRow(row.cells, row.inputs, tuple(seeds), paper, failed)


def _dataset(benchmark: Benchmark, row: TableRow) -> str | None:
    recipe = benchmark.recipe
    for split in recipe.benchmark.splits:
        if split.name == row.split:
            return split.dataset
    return recipe.dataset


def _failure(benchmark: Benchmark, row: TableRow, seed: int, outcome: Outcome) -> str | None:
    """Return the reason at the root of a row's failure, or None."""
    folders = {benchmark.layout.run(run.slug, seed).name: run for run in row.runs}
    for name, run in folders.items():
        if name in outcome.failed:
            origins = [
                *(item.stage for item in benchmark.features_of(run)),
                *(benchmark.layout.run(item.slug, seed).name for item in run.teachers),
            ]
            origin = next((item for item in origins if item in outcome.failed), name)
            return f"{origin}: {outcome.failed[origin]}"
    for subset in benchmark.subsets:
        folder = benchmark.evaluation_folder(row, seed, subset)
        name = f"evaluate-{folder.parent.name}-{subset}"
        if name in outcome.failed:
            return f"{name}: {outcome.failed[name]}"
    return None


def _seed(benchmark: Benchmark, row: TableRow, seed: int) -> SeedResult:
    found = {
        subset: read_json(benchmark.evaluation_folder(row, seed, subset) / "metrics.json")
        for subset in benchmark.subsets
    }
    reported = found[benchmark.reported]
    validation = found[benchmark.recipe.subsets.validation]
    root = benchmark.layout.root
    runs = [benchmark.layout.run(run.slug, seed) for run in row.runs]
    facts: dict[str, Any] = {
        "subset": benchmark.reported,
        "frame_protocol": reported["frame"]["protocol"],
        "event_protocol": reported["event"]["protocol"],
        **{key: reported["frame"][key] for key in _FACTS},
        "validation": {key: validation["frame"][key] for key in _FACTS},
        "runs": [path.relative_to(root).as_posix() for path in runs],
        "evaluation": benchmark.evaluation_folder(row, seed, benchmark.reported)
        .relative_to(root)
        .as_posix(),
        "best_epochs": [_best_epoch(path) for path in runs],
    }
    return SeedResult(seed, _values(reported), _values(validation), facts)


def _values(metrics: dict[str, Any]) -> dict[str, float | None]:
    found = {"frame mAP": metrics["frame"]["map"]}
    found |= {f"mAP@{tiou}": value for tiou, value in metrics["event"]["map"].items()}
    return {name: None if value is None else 100 * value for name, value in found.items()}


def _best_epoch(run: Path) -> int | None:
    result = run / "result.json"
    return int(read_json(result)["best_epoch"]) if result.exists() else None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that a stage has written."""
    return dict(json.loads(path.read_text(encoding="utf-8")))
