"""The steps after the features: train a run, keep one untrained, evaluate a row, show a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vidkd.annotations import load_annotations
from vidkd.console import without_nan
from vidkd.files import write_json
from vidkd.pipeline.split import Split
from vidkd.recipe import SegmentSettings
from vidkd.recipe.evaluation import EvaluationSettings

if TYPE_CHECKING:
    from vidkd.recipe.jobs import TrainingJob

# Added to the seed of an untrained teacher: with its own seed it would be the student itself as
# it is before the first step.
_OTHER = 7919


def train_run(job: TrainingJob) -> None:
    """Train one run (``vidkd train-teacher``, ``train-baseline`` or ``distill``)."""
    from vidkd.distillation import train

    train(job)


def keep_untrained(job: TrainingJob) -> None:
    """Write the first, random weights of a run as those of a teacher: a control.

    Its inputs are standardised as those of a trained teacher are, so that nothing but what was
    learnt is missing.
    """
    import torch

    from vidkd.distillation.data import find_stream, load_sequences, read_rows
    from vidkd.networks import FilterHeader, build_temporal_filter, save_temporal_filter

    annotations = load_annotations(job.annotations, job.annotation_format).actions()
    stream = find_stream(job.cache, job.modality, job.encoder)
    classes = tuple(annotations.classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.optimiser.seed + _OTHER)
        module = build_temporal_filter(job.filter, stream.width, len(classes))
    if job.filter.standardise:
        videos = load_sequences([stream], annotations.subset(job.subsets.training))
        module.standardise(read_rows(video, 0) for video in videos)
    header = FilterHeader(
        filter=job.filter,
        in_features=stream.width,
        classes=classes,
        modality=stream.modality,
        encoder=stream.encoder,
        encoder_sha256=stream.weights_sha256,
        frames=stream.frames,
        snippet=stream.snippet,
        crop=stream.crop,
        training_data={"stage": "untrained"},
    )
    save_temporal_filter(job.output / "weights.safetensors", module, header)


def fuse_row(
    runs: Sequence[Path],
    cache: Path,
    annotations: tuple[Path, str, str],
    device: str,
    folder: Path,
    kind: Literal["equal"] | None = None,
) -> None:
    """Fuse runs into one file, with weights chosen on a subset (``vidkd fuse``).

    Args:
        runs: run folders.
        cache: with the features of all of them.
        annotations: their file, its format, and the validation subset.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.
        folder: receives ``weights.safetensors``, as a run folder has it.
        kind: of the weights; None takes what is best.
    """
    from vidkd.detection.fuse import fuse_runs

    path, form, subset = annotations
    truth, target = load_annotations(path, form), folder / "weights.safetensors"
    fuse_runs(runs, cache, truth, target, subset=subset, kind=kind, device=device)


def evaluate_runs(
    runs: Sequence[Path],
    cache: Path,
    annotations: tuple[Path, str, str],
    evaluation: EvaluationSettings,
    segments: SegmentSettings,
    device: str,
    folder: Path,
) -> dict[str, Any]:
    """Score videos with one run or several fused late, and leave everything in a folder.

    Args:
        runs: run folders; the average of their logits counts.
        cache: with the features of all of them.
        annotations: their file, its format, and the subset whose videos are scored.
        evaluation: the protocols.
        segments: from scores to segments.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.
        folder: receives ``scores.h5``, ``segments.json`` and ``metrics.json``.

    Returns:
        What ``metrics.json`` holds: the results of the protocols, ``frame`` and ``event``.
    """
    from vidkd.detection.predict import predict_runs, ranked_segments
    from vidkd.evaluation import evaluate, write_dense_scores, write_detections

    path, form, subset = annotations
    truth = load_annotations(path, form).subset(subset)
    scores = predict_runs(runs, cache, truth.videos, device=device)
    found = ranked_segments(scores, segments)
    write_dense_scores(folder / "scores.h5", scores)
    write_detections(folder / "segments.json", found, {"runs": [run.name for run in runs]})
    frames = evaluate(scores, truth, evaluation.frame_protocol)
    events = evaluate(found, truth, evaluation.event_protocol, evaluation.tiou)
    metrics: dict[str, Any] = without_nan({"frame": frames.to_json(), "event": events.to_json()})
    write_json(folder / "metrics.json", metrics)
    return metrics


def show_detection(split: Split, model: Path, subset: str, device: str) -> None:
    """Run a student on one video of a subset, from RGB alone, and draw what it finds.

    Of the videos with segments, or of all where none has any, it is the one whose frame mAP is the
    median: neither the best nor the worst.
    """
    from vidkd.detection.detector import detect
    from vidkd.detection.predict import predict_runs
    from vidkd.evaluation import evaluate
    from vidkd.report.detection import draw_detection, render_detection

    annotations = split.annotations.subset(subset)
    truth = annotations.videos
    labelled = {name: video for name, video in truth.items() if video.segments}
    scores = predict_runs([model], split.layout.cache, truth, device=device)
    maps = {
        name: evaluate(
            replace(scores, videos={name: scores.videos[name]}),
            replace(annotations, videos={name: video}),
            "frame",
        ).map
        for name, video in (labelled or truth).items()
    }
    name = sorted(maps, key=lambda video: (maps[video], video))[len(maps) // 2]
    pictures = split.layout.pictures
    result = detect(split.video(name).path, model, device)
    draw_detection(pictures / "detection.png", result, truth=truth[name].segments)
    render_detection(pictures / "detection.mp4", result)
