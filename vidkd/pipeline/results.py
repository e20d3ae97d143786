"""The table at the end of an experiment: one row per model, mean and spread over seeds."""

from __future__ import annotations

import csv
import io
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidkd.console import emit_table, log
from vidkd.files import write_json, write_text


@dataclass(frozen=True)
class Row:
    """One model: its numbers by metric name, one value per seed, in per cent."""

    name: str
    inputs: str
    values: dict[str, list[float]]

    def cell(self, metric: str) -> str:
        """Return ``mean`` or, with several seeds, ``mean ± sample standard deviation``."""
        values = self.values[metric]
        mean = statistics.fmean(values)
        if len(values) < 2:
            return f"{mean:.1f}"
        return f"{mean:.1f} ± {statistics.stdev(values):.1f}"


@dataclass
class Results:
    """All rows of an experiment, and what they were computed on."""

    name: str
    metrics: tuple[str, ...]
    protocol: dict[str, Any]
    rows: list[Row]
    pictures: list[Path] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "name": self.name,
            "protocol": self.protocol,
            "rows": [
                {"model": row.name, "inputs": row.inputs, "values": row.values} for row in self.rows
            ],
            "pictures": [str(path) for path in self.pictures],
        }

    def markdown(self) -> str:
        """Return the table as Markdown, with a line on the protocol below it."""
        head = ["model", "at run time", *self.metrics]
        lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for row in self.rows:
            cells = [row.name, row.inputs, *(row.cell(metric) for metric in self.metrics)]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join([*lines, "", self.caption(), ""])

    def caption(self) -> str:
        """Say in one sentence what the numbers were computed on."""
        facts = self.protocol
        return (
            f"In per cent, on the {facts['videos']} videos of subset {facts['subset']}, "
            f"{facts['classes']} classes; frame mAP by protocol {facts['frame_protocol']} over the "
            f"classes present, event mAP by protocol {facts['event_protocol']}; "
            f"{facts['seeds']} seed(s); "
            f"ground truth {facts['ground_truth_sha256'][:12]}."
        )

    def save(self, folder: Path) -> None:
        """Write ``results.json``, ``results.csv`` (one line per seed) and ``results.md``."""
        write_json(folder / "results.json", self.to_json())
        write_text(folder / "results.md", self.markdown())
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["model", "inputs", "metric", "seed", "value"])
        for row in self.rows:
            for metric, values in row.values.items():
                for seed, value in enumerate(values):
                    writer.writerow([row.name, row.inputs, metric, seed, f"{value:.4f}"])
        write_text(folder / "results.csv", text.getvalue())

    def print(self) -> None:
        """Print the table to standard output, and where the pictures are to standard error."""
        emit_table(
            self.name,
            ("model", "at run time", *self.metrics),
            [
                (row.name, row.inputs, *(row.cell(metric) for metric in self.metrics))
                for row in self.rows
            ],
        )
        log(self.caption())
        for path in self.pictures:
            log(f"picture: {path}")
