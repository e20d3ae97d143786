"""The tables of an experiment with their numbers, in the layout of Dai et al. 2021."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidkd.console import emit_table, log
from vidkd.files import write_json, write_text
from vidkd.pipeline.benchmark import Benchmark
from vidkd.pipeline.stages import Outcome
from vidkd.pipeline.tables import Table, TableRow
from vidkd.recipe.paper import paper_number

_FACTS = ("videos", "classes", "ground_truth_sha256")
SOURCE = "Dai, Das and Bremond, ICCV 2021"


@dataclass(frozen=True)
class SeedResult:
    """One row with one seed.

    Attributes:
        seed: of the training.
        values: the reported subset, by metric, in per cent.
        validation: the same on the validation subset; empty where that was not evaluated.
        facts: protocol, videos, classes, hash of the ground truth, run folders.
    """

    seed: int
    values: dict[str, float | None]
    validation: dict[str, float | None]
    facts: dict[str, Any]


@dataclass(frozen=True)
class ResultRow:
    """One row of a table.

    Attributes:
        cells: what stands in its leading columns.
        inputs: what it sees at run time.
        seeds: one result for each seed that did not fail.
        paper: metric and number of the paper, if known.
        failed: why a seed has no result, by seed.
    """

    cells: tuple[str, ...]
    inputs: str
    seeds: tuple[SeedResult, ...]
    paper: tuple[str, float] | None = None
    failed: dict[int, str] = field(default_factory=dict)

    def numbers(self, metric: str, *, validation: bool = False) -> list[float]:
        """Return one number for each seed."""
        sources = [item.validation if validation else item.values for item in self.seeds]
        found = [source.get(metric) for source in sources]
        return [value for value in found if value is not None]


@dataclass
class Results:
    """All tables, and what they were computed on.

    Attributes:
        name: of the recipe.
        subset: the reported one.
        validation: name of the validation subset.
        metrics: the columns of numbers.
        protocol: names of the protocols.
        tables: in order.
        pictures: what was drawn.
        notes: what else a reader should know, such as figures left out.
    """

    name: str
    subset: str
    validation: str
    metrics: tuple[str, ...]
    protocol: dict[str, Any]
    tables: list[Table[ResultRow]]
    pictures: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def failed(self) -> dict[str, str]:
        """Every row that lacks a seed, with the reason."""
        return {
            f"{table.key}: {row_label(table.columns, row.cells)}, seed {seed}": text
            for table in self.tables
            for row in table.rows
            for seed, text in row.failed.items()
        }

    @property
    def shows_validation(self) -> bool:
        """Whether there is a column for validation: not where the others are that already."""
        seeds = (item for table in self.tables for row in table.rows for item in row.seeds)
        return self.subset != self.validation and any(item.validation for item in seeds)

    def heads(self, table: Table[ResultRow]) -> list[str]:
        """Return the heads of the columns of a table."""
        extra = [f"{self.validation} {self.metrics[0]}"] if self.shows_validation else []
        paper = ["paper"] if any(row.paper for row in table.rows) else []
        return [*table.columns, "at run time", *self.metrics, *extra, "seeds", *paper]

    def cells(self, table: Table[ResultRow], row: ResultRow) -> list[str]:
        """Return a row as text: mean, and sample standard deviation with several seeds."""
        cells = [*row.cells, row.inputs, *(mean_spread(row.numbers(m)) for m in self.metrics)]
        if self.shows_validation:
            cells.append(mean_spread(row.numbers(self.metrics[0], validation=True)))
        cells.append(str(len(row.seeds)))
        if any(item.paper for item in table.rows):
            cells.append("" if row.paper is None else f"{row.paper[1]:.1f} ({row.paper[0]})")
        return cells

    def caption(self, table: Table[ResultRow]) -> str:
        """Say what the numbers of a table were computed on."""
        facts = [item.facts for row in table.rows for item in row.seeds]
        grounds = {
            (item["videos"], item["classes"], item["ground_truth_sha256"][:12]) for item in facts
        }
        shown = "; ".join(
            f"{videos} videos, {classes} classes, ground truth {digest}"
            for videos, classes, digest in sorted(grounds)
        )
        text = (
            f"In per cent, mean ± sample standard deviation over seeds, on subset {self.subset} "
            f"({shown or 'nothing finished'}); frame mAP by protocol "
            f"{self.protocol['frame_protocol']} over the classes present, event mAP by protocol "
            f"{self.protocol['event_protocol']}. Epochs were chosen on subset {self.validation}."
        )
        if any(row.paper for row in table.rows):
            text += f" Paper: {SOURCE}, trained and tested on the whole data set."
        return text

    def markdown(self) -> str:
        """Return all tables as Markdown."""
        parts = [f"# {self.name}", ""]
        for table in self.tables:
            heads = self.heads(table)
            parts += [f"## {table.title}", ""] if table.title != self.name else []
            parts += [_line(heads), "|---" * len(heads) + "|"]
            parts += [_line(self.cells(table, row)) for row in table.rows]
            parts += ["", self.caption(table), ""]
            if table.left_out:
                parts += [f"Left out: {'; '.join(table.left_out)}.", ""]
        if self.failed:
            parts += ["## Failed", "", *(f"- {name}: {why}" for name, why in self.failed.items())]
            parts.append("")
        if self.notes:
            parts += ["## Notes", "", *(f"- {note}" for note in self.notes), ""]
        for path in self.pictures:
            parts += [f"![{path.stem}](pictures/{path.name})", ""]
        return "\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return every row and seed as JSON values."""
        return {
            "name": self.name,
            "subset": self.subset,
            "validation": self.validation,
            "protocol": self.protocol,
            "tables": [
                {
                    "table": table.key,
                    "title": table.title,
                    "columns": list(table.columns),
                    "left_out": list(table.left_out),
                    "rows": [self._row_json(row) for row in table.rows],
                }
                for table in self.tables
            ],
            "failed": self.failed,
            "notes": self.notes,
            "pictures": [str(path) for path in self.pictures],
            **self._models_json(),
        }

    def _models_json(self) -> dict[str, Any]:
        """Return the table of ``vidkd run`` once more as a plain list; nothing without it."""
        rows = [row for table in self.tables if table.key == "models" for row in table.rows]
        models = [
            {
                "model": row.cells[0],
                "inputs": row.inputs,
                "values": {metric: row.numbers(metric) for metric in self.metrics},
            }
            for row in rows
        ]
        return {"rows": models} if models else {}

    def _row_json(self, row: ResultRow) -> dict[str, Any]:
        return {
            "cells": list(row.cells),
            "inputs": row.inputs,
            "paper": None
            if row.paper is None
            else {"metric": row.paper[0], "value": row.paper[1], "source": SOURCE},
            "mean": {metric: _mean(row.numbers(metric)) for metric in self.metrics},
            "standard_deviation": {m: _deviation(row.numbers(m)) for m in self.metrics},
            "validation_mean": {
                metric: _mean(row.numbers(metric, validation=True)) for metric in self.metrics
            },
            "seeds": [vars(item) for item in row.seeds],
            "failed": {str(seed): why for seed, why in row.failed.items()},
        }

    def save(self, folder: Path) -> None:
        """Write ``results.json``, ``results.csv`` (one line per number) and ``results.md``."""
        write_json(folder / "results.json", self.to_json())
        write_text(folder / "results.md", self.markdown())
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            ["table", "row", "inputs", "seed", "subset", "metric", "value", "videos", "classes",
             "ground_truth_sha256", "runs"]
        )  # fmt: skip
        for table in self.tables:
            for row in table.rows:
                for item in row.seeds:
                    self._write_seed(writer, table, row, item)
        write_text(folder / "results.csv", text.getvalue())

    def _write_seed(
        self, writer: Any, table: Table[ResultRow], row: ResultRow, item: SeedResult
    ) -> None:
        label = row_label(table.columns, row.cells)
        subsets = {self.subset: (item.values, item.facts)}
        if item.validation:
            subsets.setdefault(self.validation, (item.validation, item.facts["validation"]))
        for subset, (values, facts) in subsets.items():
            for metric, value in values.items():
                writer.writerow(
                    [table.key, label, row.inputs, item.seed, subset, metric,
                     "" if value is None else f"{value:.4f}", facts["videos"], facts["classes"],
                     facts["ground_truth_sha256"], " ".join(item.facts["runs"])]
                )  # fmt: skip

    def print(self) -> None:
        """Print the tables to standard output, and what else there is to standard error."""
        for table in self.tables:
            rows = [self.cells(table, row) for row in table.rows]
            emit_table(table.title, self.heads(table), rows)
            log(self.caption(table))
            for text in table.left_out:
                log(f"left out: {text}")
        for name, why in self.failed.items():
            log(f"failed: {name}: {why}")
        for note in self.notes:
            log(f"note: {note}")
        for path in self.pictures:
            log(f"picture: {path}")


def row_label(columns: Sequence[str], cells: Sequence[str]) -> str:
    """Return the leading cells of a row as one text; a marked cell is named by its column."""
    if set(cells) <= {"x", ""}:
        marked = [name for name, cell in zip(columns, cells, strict=True) if cell]
        return " + ".join(marked) or "vanilla RGB"
    return ", ".join(cell for cell in cells if cell)


def mean_spread(values: Sequence[float]) -> str:
    """Return ``mean`` or, with several values, ``mean ± sample standard deviation``."""
    if not values:
        return "-"
    mean = statistics.fmean(values)
    return f"{mean:.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def gather(benchmark: Benchmark, outcome: Outcome) -> Results:
    """Return the tables of an experiment with all numbers that there are."""
    recipe = benchmark.recipe
    tables = [
        Table(
            table.key,
            table.title,
            table.columns,
            tuple(_result_row(benchmark, row, outcome) for row in table.rows),
            table.left_out,
        )
        for table in benchmark.tables
    ]
    protocol: dict[str, Any] = {
        "frame_protocol": recipe.evaluation.frame_protocol,
        "event_protocol": recipe.evaluation.event_protocol,
        "tiou": list(recipe.evaluation.tiou),
        "epochs": recipe.optimiser.epochs,
        "seeds": list(recipe.seeds),
        "dataset": recipe.dataset,
    }
    if benchmark.strict:
        # One subset of one split: what it consists of belongs to the whole.
        facts = next(item.facts for row in tables[0].rows for item in row.seeds)
        protocol |= {"subset": benchmark.reported, "seeds": len(recipe.seeds)}
        protocol |= {key: facts[key] for key in _FACTS}
    return Results(
        name=recipe.name,
        subset=benchmark.reported,
        validation=recipe.subsets.validation,
        metrics=("frame mAP", *(f"mAP@{value:g}" for value in recipe.evaluation.tiou)),
        protocol=protocol,
        tables=tables,
    )


def _result_row(benchmark: Benchmark, row: TableRow, outcome: Outcome) -> ResultRow:
    seeds: list[SeedResult] = []
    failed: dict[int, str] = {}
    for seed in benchmark.recipe.seeds:
        why = _failure(benchmark, row, seed, outcome)
        if why is None:
            seeds.append(_seed_result(benchmark, row, seed))
        else:
            failed[seed] = why
    # The paper's rows are those of its own filter.
    known = row.paper if row.runs[0].filter.kind == "ss-tcn" else None
    paper = paper_number(benchmark.splits[row.split].dataset, known)
    return ResultRow(row.cells, row.inputs, tuple(seeds), paper, failed)


def _failure(benchmark: Benchmark, row: TableRow, seed: int, outcome: Outcome) -> str | None:
    """Return the reason at the root of a row's failure, or None."""
    for run in row.runs:
        if (name := benchmark.run_stage_name(run, seed)) in outcome.failed:
            origins = [
                *(item.stage for item in benchmark.features_of(run)),
                *(benchmark.run_stage_name(item, seed) for item in run.teachers),
            ]
            origin = next((item for item in origins if item in outcome.failed), name)
            return f"{origin}: {outcome.failed[origin]}"
    if row.fused and (name := benchmark.fuse_stage_name(row, seed)) in outcome.failed:
        return f"{name}: {outcome.failed[name]}"
    for subset in benchmark.subsets:
        if (name := benchmark.evaluation_stage_name(row, seed, subset)) in outcome.failed:
            return f"{name}: {outcome.failed[name]}"
    return None


def _seed_result(benchmark: Benchmark, row: TableRow, seed: int) -> SeedResult:
    folders = {item: benchmark.evaluation_folder(row, seed, item) for item in benchmark.subsets}
    found = {item: read_json(folder / "metrics.json") for item, folder in folders.items()}
    reported = found[benchmark.reported]
    root = benchmark.layout.root
    runs = [benchmark.run_folder(run, seed) for run in row.runs]
    facts: dict[str, Any] = {
        "subset": benchmark.reported,
        "frame_protocol": reported["frame"]["protocol"],
        "event_protocol": reported["event"]["protocol"],
        **{key: reported["frame"][key] for key in _FACTS},
        "runs": [path.relative_to(root).as_posix() for path in runs],
        "evaluation": folders[benchmark.reported].relative_to(root).as_posix(),
        "best_epochs": [_best_epoch(path) for path in runs],
    }
    validation = found.get(benchmark.recipe.subsets.validation)
    if validation is None:
        return SeedResult(seed, _values(reported), {}, facts)
    facts["validation"] = {key: validation["frame"][key] for key in _FACTS}
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
