"""``vidkd diagnose``: what kinds of errors a result has, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vidkd.cli.evaluate import GroundTruth, Subset, ground_truth
from vidkd.cli.export import AnnotationRate, Format
from vidkd.cli.options import Device, Json, argument, numbers, option
from vidkd.console import emit, log
from vidkd.errors import UsageError
from vidkd.hub import is_hub_name

if TYPE_CHECKING:
    from vidkd.annotations import Annotations
    from vidkd.evaluation import DenseScores, Detection
    from vidkd.evaluation.diagnosis import Diagnosis

VIEW_PORT = 8765


def diagnose(
    result: Annotated[
        Path,
        argument(
            "Detections (.json), dense scores (.h5), or a run folder with its --cache.",
            "RESULT|RUN",
        ),
    ],
    annotations: GroundTruth,
    output: Annotated[
        Path | None, option("Write a page with every error, pictures and JSON.", "DIR")
    ] = None,
    scores: Annotated[
        Path | None, option("Dense scores that belong to the detections.", "FILE.h5")
    ] = None,
    cache: Annotated[Path | None, option("The cache with the features of the run.", "DIR")] = None,
    subset: Subset = None,
    tiou: Annotated[
        float, option("tIoU from which a detection is right: above 0.1, up to 1.", "NUMBER")
    ] = 0.5,
    threshold: Annotated[
        float | None,
        option("Score from which a detection counts. Default: that of the best F1.", "SCORE"),
    ] = None,
    lengths: Annotated[
        str | None,
        option(
            "Seconds that divide short from long events. Default: 30,60,120,180, or fifths of the "
            "events if nearly all of them are shorter or longer.",
            "2,4,...",
        ),
    ] = None,
    frame_rate: Annotated[
        float | None,
        option("Moments per second to compare. Default: as in `evaluate`.", "FPS", min=0.001),
    ] = None,
    view_port: Annotated[
        int, option("Port of `vidkd view`, which the page links to.", "NUMBER", min=1, max=65535)
    ] = VIEW_PORT,
    format: Format = "auto",
    annotation_rate: AnnotationRate = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Say what kinds of errors a result has, which events it misses, and where.

    Every detection is right, double, of a wrong border, a wrong class, both, or in the background,
    as in DETAD (Alwassel et al. 2018). With --output, each error has a link to its second in
    `vidkd view`. All proposals (`detect --all-proposals`) say more than the segments alone.
    """
    from vidkd.evaluation.diagnosis import diagnose as compute
    from vidkd.files import write_json

    truth, _ = ground_truth(annotations, format, annotation_rate, subset)
    borders = numbers(lengths, "--lengths", "2,4,8")
    if borders is not None and (borders[0] <= 0 or any(a >= b for a, b in pairwise(borders))):
        raise UsageError(f"{lengths!r} are no lengths", remedy="give such as --lengths 2,4,8")
    detections, dense, limits = _predictions(result, scores, cache, truth, device)
    found = compute(
        detections,
        truth,
        tiou=tiou,
        threshold=threshold,
        lengths=borders,
        scores=dense,
        score_thresholds=limits,
        frame_rate=frame_rate,
    )
    data = found.to_json()
    if output is not None:
        from vidkd.console import without_nan
        from vidkd.report.diagnosis import write_diagnosis

        write_diagnosis(output, found, title=result.name, address=f"http://127.0.0.1:{view_port}/")
        write_json(output / "diagnosis.json", without_nan({**data, **_lists(found)}))
    emit(data, as_json, ("kind", "all", "at threshold", "mAP gained"), _rows(found), _title(found))
    if not as_json:
        _say(found)
    if output is not None:
        log(f"wrote {output / 'index.html'}")


def _predictions(
    result: Path, scores: Path | None, cache: Path | None, truth: Annotations, device: str
) -> tuple[Mapping[str, Sequence[Detection]], DenseScores | None, Sequence[float] | None]:
    """Return detections, and if known the dense scores and the threshold of each class."""
    from vidkd.detection.predict import predict_runs, ranked_segments, run_segment_settings
    from vidkd.evaluation import read_dense_scores, read_detections
    from vidkd.networks import load_temporal_filter
    from vidkd.recipe import SegmentSettings

    if result.is_dir() or is_hub_name(result) or result.suffix.lower() == ".safetensors":
        if cache is None or scores is not None:
            raise UsageError(
                "is a run, which needs the cache with its features and no --scores",
                path=result,
                remedy="name the --cache",
            )
        dense = predict_runs([result], cache, truth.videos, device=device)
        header = load_temporal_filter(result)[1]
        limits = None if header.calibration else header.thresholds
        return ranked_segments(dense, run_segment_settings(result)), dense, limits
    if cache is not None:
        raise UsageError("--cache belongs to runs", remedy="leave it out, or give a run folder")
    if result.suffix.lower() == ".json":
        dense_scores = None if scores is None else read_dense_scores(scores)
        return read_detections(result), dense_scores, None
    if scores is not None:
        raise UsageError("holds scores itself", path=result, remedy="leave out --scores")
    dense = read_dense_scores(result)
    return ranked_segments(dense, SegmentSettings()), dense, None


def _lists(found: Diagnosis) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "detections": [asdict(item) for item in found.detections],
        "missed": [asdict(item) for item in found.missed()],
    }


def _title(found: Diagnosis) -> str:
    return f"detections at tIoU {found.tiou:g}, mAP {100 * found.map:.1f}"


def _rows(found: Diagnosis) -> list[tuple[object, ...]]:
    every, seen = found.counts(), found.counts(seen=True)
    return [
        (
            kind,
            every[kind],
            seen[kind],
            f"{100 * found.impact[kind]:+.1f}" if kind in found.impact else "",
        )
        for kind in every
    ]


def _say(found: Diagnosis) -> None:
    log(f"threshold {found.threshold:.3g}: {len(found.missed())} of {len(found.events)} missed")
    for name, bins in found.characteristics.items():
        shares = ", ".join(
            f"{item.name} {100 * item.missed_at_threshold / item.events:.0f} % of {item.events}"
            for item in bins
            if item.events
        )
        log(f"missed by {name}: {shares}")
    for name, scores in (
        ("detections", found.segment_reliability),
        ("dense scores", found.frame_reliability),
    ):
        if scores is not None:
            count = len(scores.count)
            log(f"expected calibration error of {name}: {scores.error:.3f} ({count} equal bins)")
    for note in found.notes:
        log(f"note: {note}")
