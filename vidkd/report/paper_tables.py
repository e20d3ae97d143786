"""The tables of a benchmark, in the layout of Dai et al. 2021, with the paper's own numbers."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidkd.console import emit_table, log
from vidkd.files import write_json, write_text

SOURCE = "Dai, Das and Bremond, ICCV 2021"


@dataclass(frozen=True)
class SeedResult:
    """One row with one seed.

    Attributes:
        seed: of the training.
        values: the reported subset, by metric, in per cent.
        validation: the same on the validation subset.
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


@dataclass(frozen=True)
class ResultTable:
    """One table with its numbers; see ``vidkd.pipeline.matrix.Table``."""

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[ResultRow, ...]
    left_out: tuple[str, ...] = ()


@dataclass
class BenchmarkResults:
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
    tables: list[ResultTable]
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

    def heads(self, table: ResultTable) -> list[str]:
        """Return the heads of the columns of a table."""
        # On validation alone, its own column would say the same twice.
        extra = [] if self.subset == self.validation else [f"{self.validation} {self.metrics[0]}"]
        paper = ["paper"] if any(row.paper for row in table.rows) else []
        return [*table.columns, "at run time", *self.metrics, *extra, "seeds", *paper]

    def cells(self, table: ResultTable, row: ResultRow) -> list[str]:
        """Return a row as text: mean, and sample standard deviation with several seeds."""
        cells = [*row.cells, row.inputs, *(mean_spread(row.numbers(m)) for m in self.metrics)]
        if self.subset != self.validation:
            cells.append(mean_spread(row.numbers(self.metrics[0], validation=True)))
        cells.append(str(len(row.seeds)))
        if any(item.paper for item in table.rows):
            cells.append("" if row.paper is None else f"{row.paper[1]:.1f} ({row.paper[0]})")
        return cells

    def caption(self, table: ResultTable) -> str:
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
        parts = [f"# Benchmark {self.name}", ""]
        for table in self.tables:
            heads = self.heads(table)
            parts += [f"## {table.title}", "", _line(heads), "|---" * len(heads) + "|"]
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
        }

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
        self, writer: Any, table: ResultTable, row: ResultRow, item: SeedResult
    ) -> None:
        label = row_label(table.columns, row.cells)
        subsets = {self.subset: (item.values, item.facts)}
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
