"""What an evaluation yields: the numbers, and what they were computed on."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vidkd.annotations import Annotations
from vidkd.evaluation.online import Delay

PerClass = dict[str, float] | dict[str, dict[str, float]]


@dataclass(frozen=True)
class Measure:
    """AP of every class under one definition; NaN for a class that has no ground truth."""

    suffix: str
    """What the keys ``map`` and ``per_class`` end in; empty for the protocol's own."""
    description: str
    """Which AP this is."""
    per_class: PerClass
    """By class, or by class and tIoU for event protocols."""


@dataclass(frozen=True)
class EvaluationResult:
    """The outcome of one protocol."""

    protocol: str
    subset: str
    """The subset that was evaluated; empty for all videos."""
    measures: tuple[Measure, ...]
    """The protocol's own first."""
    evaluated_on: str
    """Which moments or events were compared."""
    videos: int
    """Number of videos in the ground truth."""
    classes: int
    segments: int
    """Number of segments in the ground truth."""
    ground_truth_sha256: str
    missing: tuple[str, ...]
    """Videos of the ground truth that have no predictions."""
    notes: tuple[str, ...]
    """What else the reader of the numbers should know."""
    delays: Mapping[str, Mapping[str, Delay]] = field(default_factory=dict)
    """For oad, when events were found: by how the thresholds were set, then by class, with "" for
    all classes together."""

    @property
    def map(self) -> float | dict[str, float]:
        """The protocol's mAP over the classes present in the ground truth, in [0, 1].

        A number for frame protocols; by tIoU for event protocols.
        """
        return mean_over_classes(self.measures[0].per_class, present_only=True)

    @property
    def map_all_classes(self) -> float | dict[str, float]:
        """The same over all classes, of which absent ones count 0."""
        return mean_over_classes(self.measures[0].per_class, present_only=False)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain types; NaN where a class has no ground truth."""
        data: dict[str, Any] = {"protocol": self.protocol, "subset": self.subset}
        named = [(f"_{item.suffix}" if item.suffix else "", item) for item in self.measures]
        for end, measure in named:
            present = mean_over_classes(measure.per_class, present_only=True)
            data[f"map{end}"] = data[f"map{end}_present_classes"] = present
            data[f"map{end}_all_classes"] = mean_over_classes(measure.per_class, present_only=False)
            if isinstance(present, dict):
                data[f"map{end}_average"] = _mean(list(present.values()))
        if self.delays:
            data["delays"] = {
                how: {"all": table[""].to_json(), "per_class": _classes_json(table)}
                for how, table in self.delays.items()
            }
        return {
            **data,
            **{f"per_class{end}": measure.per_class for end, measure in named},
            "definitions": {f"map{end}": measure.description for end, measure in named},
            "evaluated_on": self.evaluated_on,
            "videos": self.videos,
            "classes": self.classes,
            "classes_present": sum(not absent(ap) for ap in self.measures[0].per_class.values()),
            "segments": self.segments,
            "ground_truth_sha256": self.ground_truth_sha256,
            "missing": list(self.missing),
            "notes": list(self.notes),
        }

    def delay_rows(self, how: str) -> list[list[str]]:
        """Return a table of one of ``delays``, all classes last; see ``DELAY_COLUMNS``."""
        table = {name: item.to_json() for name, item in self.delays[how].items()}
        table["all classes"] = table.pop("")
        return [
            [
                name,
                _shown(item["threshold"], ".3f"),
                str(item["events"]),
                _shown(100 * item["never_found"], ".1f"),
                _shown(item["median_seconds"], ".2f"),
                _shown(item["false_alarms_per_hour"], ".1f"),
            ]
            for name, item in table.items()
        ]

    def columns(self) -> list[str]:
        """Return the heads of ``rows``: class, and AP, or AP at each tIoU and their average."""
        value = next(iter(self.measures[0].per_class.values()), 0.0)
        if isinstance(value, dict):
            return ["class", *(f"AP@{tiou}" for tiou in value), "average"]
        return ["class", "AP"]

    def rows(self) -> list[list[str]]:
        """Return the table in percent: the protocol's AP of every class, then all the means."""
        rows = [[label, *_cells(ap)] for label, ap in self.measures[0].per_class.items()]
        for measure in self.measures:
            name = " ".join(["mAP", *filter(None, [measure.suffix.replace("_", " ")])])
            for title, present in (("classes present", True), ("all classes", False)):
                mean = mean_over_classes(measure.per_class, present_only=present)
                rows.append([f"{name}, {title}", *_cells(mean)])
        return rows


DELAY_COLUMNS = (
    *("class", "threshold", "events", "never found, %", "median delay, s"),
    "false alarms per hour",
)


def _classes_json(table: Mapping[str, Delay]) -> dict[str, Any]:
    return {name: item.to_json() for name, item in table.items() if name}


def _shown(value: float, how: str) -> str:
    return format(value, how) if math.isfinite(value) else "-"


def _cells(value: float | dict[str, float]) -> list[str]:
    values = [*value.values(), _mean([*value.values()])] if isinstance(value, dict) else [value]
    return ["-" if math.isnan(item) else f"{100 * item:.2f}" for item in values]


def absent(ap: float | dict[str, float]) -> bool:
    """Return whether a class has no ground truth."""
    return any(map(math.isnan, ap.values())) if isinstance(ap, dict) else math.isnan(ap)


def mean_over_classes(per_class: PerClass, *, present_only: bool) -> float | dict[str, float]:
    """Return the mean AP, by tIoU if the APs are.

    Args:
        per_class: AP by class; NaN for classes without ground truth.
        present_only: leave those out, instead of counting them as 0.
    """
    by_tiou = [value for value in per_class.values() if isinstance(value, dict)]
    if by_tiou:
        return {
            tiou: _mean([value[tiou] for value in by_tiou], present_only) for tiou in by_tiou[0]
        }
    numbers = [value for value in per_class.values() if isinstance(value, float)]
    return _mean(numbers, present_only)


def _mean(values: list[float], present_only: bool = True) -> float:
    numbers = [item for item in values if not math.isnan(item)]
    count = len(numbers) if present_only else len(values)
    return math.fsum(numbers) / count if count else float("nan")


def ground_truth_hash(annotations: Annotations) -> str:
    """Return a SHA-256 of what was evaluated against: classes, videos, durations and segments.

    It depends on the content alone and not on the file's format or order, so that equal hashes mean
    that two numbers were computed on the same ground truth.
    """
    content = [
        sorted(annotations.classes),
        [
            [
                name,
                video.duration,
                video.frame_rate,
                sorted([item.start, item.end, item.label] for item in video.segments),
            ]
            for name, video in sorted(annotations.videos.items())
        ],
    ]
    return hashlib.sha256(json.dumps(content, ensure_ascii=True).encode()).hexdigest()
