"""Scores, segments and both kinds of mAP of one row of a table, on one subset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidkd.annotations import Annotations
from vidkd.console import without_nan
from vidkd.files import write_json
from vidkd.recipe import EvaluationSettings, SegmentSettings


def score_runs(
    runs: Sequence[Path],
    cache: Path,
    truth: Annotations,
    evaluation: EvaluationSettings,
    segments: SegmentSettings,
    device: str,
    folder: Path,
) -> dict[str, Any]:
    """Score the given videos with one run or several fused, and leave everything in a folder.

    Args:
        runs: run folders; the average of their logits counts.
        cache: with the features of all of them.
        truth: the videos to score; all of them.
        evaluation: the protocols.
        segments: from scores to segments.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.
        folder: receives ``scores.h5``, ``segments.json`` and ``metrics.json``.

    Returns:
        What ``metrics.json`` holds: the results of the protocols, ``frame`` and ``event``.
    """
    from vidkd.detection.predict import predict_runs
    from vidkd.detection.segments import scores_to_segments
    from vidkd.evaluation import evaluate, write_dense_scores, write_detections

    scores = predict_runs(runs, cache, truth.videos, device=device)
    found = {
        video: scores_to_segments(rows, pts, scores.classes, segments)
        for video, (rows, pts) in scores.videos.items()
    }
    write_dense_scores(folder / "scores.h5", scores)
    write_detections(folder / "segments.json", found, {"runs": [run.name for run in runs]})
    frames = evaluate(scores, truth, evaluation.frame_protocol)
    events = evaluate(found, truth, evaluation.event_protocol, evaluation.tiou)
    metrics: dict[str, Any] = without_nan({"frame": frames.to_json(), "event": events.to_json()})
    write_json(folder / "metrics.json", metrics)
    return metrics
