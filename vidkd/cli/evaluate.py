"""``vidkd evaluate``: mAP under a named protocol, from prediction files or from runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vidkd.cli.export import AnnotationRate, Format
from vidkd.cli.options import Device, Json, flag, numbers, option
from vidkd.console import emit_json, emit_table, log
from vidkd.differences import listed
from vidkd.errors import UsageError

if TYPE_CHECKING:
    from vidkd.annotations import Annotations
    from vidkd.evaluation import DenseScores, Detection, EvaluationResult


GroundTruth = Annotated[Path, option("The ground truth.", "FILE")]
Subset = Annotated[
    str | None, option("Default: testing, or all videos of a file without subsets.", "NAME")
]


def evaluate(
    annotations: GroundTruth,
    predictions: Annotated[
        Path | None,
        option(
            "ActivityNet-style results (JSON) for event protocols, dense scores (HDF5) for frame "
            "protocols.",
            "FILE",
        ),
    ] = None,
    run: Annotated[
        list[Path] | None,
        option(
            "A run folder, weights file or file of `vidkd fuse` instead of predictions; repeat it "
            "to fuse several (the average of their logits).",
            "RUN",
            names=("--run", "--model"),
        ),
    ] = None,
    cache: Annotated[Path | None, option("The cache with the features of the runs.", "DIR")] = None,
    subset: Subset = None,
    protocol: Annotated[
        str | None,
        option(
            "frame, charades-25, charades-all, multithumos, tsu-frame; online: oad; events: anet, "
            "pku-mmd, thumos14, tsu-event. Default for runs: frame.",
            "NAME",
        ),
    ] = None,
    tiou: Annotated[
        str | None, option("tIoU thresholds. Default: the protocol's.", "0.1,0.3,...")
    ] = None,
    frame_rate: Annotated[
        float | None,
        option(
            "Frames per second to compare on. Default: those of the annotations; if they do not "
            "say, the rows of the predictions.",
            "FPS",
            min=0.001,
        ),
    ] = None,
    format: Format = "auto",
    annotation_rate: AnnotationRate = None,
    scores_out: Annotated[
        Path | None, option("Write the dense scores of the runs.", "FILE.h5")
    ] = None,
    detections_out: Annotated[
        Path | None, option("Write the segments of the runs.", "FILE.json")
    ] = None,
    skip_missing: Annotated[
        bool,
        flag("--skip-missing", "Count videos that have no features as videos without predictions."),
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compute the frame mAP or event mAP of predictions or runs.

    docs/protocols.md says what each protocol measures.
    """
    from vidkd.evaluation import PROTOCOLS, read_dense_scores, read_detections
    from vidkd.evaluation import evaluate as compute

    if (predictions is None) == (not run):
        raise UsageError(
            "there is nothing, or too much, to evaluate",
            remedy="give either --predictions or --run",
        )
    if protocol is None and not run:
        raise UsageError("the protocol is missing", remedy="name one with --protocol (see --help)")
    protocol = protocol or "frame"
    kind = PROTOCOLS[protocol].kind
    overlaps = numbers(tiou, "--tiou", "0.1,0.3,0.5")
    if run and cache is None:
        raise UsageError("the features of the runs are missing", remedy="name their --cache")
    if predictions is not None and (cache or scores_out or detections_out):
        raise UsageError(
            "--cache, --scores-out and --detections-out belong to runs", remedy="leave them out"
        )
    chosen, subset = ground_truth(annotations, format, annotation_rate, subset)
    found: DenseScores | Mapping[str, Sequence[Detection]]
    if predictions is not None:
        found = read_dense_scores(predictions) if kind == "frame" else read_detections(predictions)
    else:
        found = _from_runs(
            run or [],
            cache or Path(),
            chosen,
            kind == "event",
            device,
            skip_missing,
            scores_out,
            detections_out,
        )
    result = compute(
        found,
        chosen,
        protocol,
        overlaps,
        frame_rate=frame_rate,
        subset=subset,
        thresholds=_own_thresholds(run or []) if PROTOCOLS[protocol].online else None,
    )
    if as_json:
        emit_json(result.to_json())
    else:
        _print(result)


def ground_truth(
    path: Path, form: str, rate: float | None, subset: str | None
) -> tuple[Annotations, str | None]:
    """Return the videos to compare with, and of which subset they are."""
    from vidkd.annotations import load_annotations

    truth = load_annotations(path, form, frame_rate=rate)
    if subset is None and truth.subsets != ("",):
        subset = "testing"
    return (truth if subset is None else truth.subset(subset)), subset


def _own_thresholds(runs: Sequence[Path]) -> dict[str, float] | None:
    """Return the score of each class by which `detect` goes; None without any."""
    from vidkd.detection.fusion import load_models

    if not runs:
        return None
    fusion = load_models(runs)
    if fusion.thresholds is None:
        return None
    return dict(zip(fusion.classes, map(float, fusion.thresholds), strict=True))


def _from_runs(
    runs: Sequence[Path],
    cache: Path,
    annotations: Annotations,
    events: bool,
    device: str,
    skip_missing: bool,
    scores_out: Path | None,
    detections_out: Path | None,
) -> DenseScores | Mapping[str, Sequence[Detection]]:
    from vidkd.detection.predict import predict_runs, ranked_segments, run_segment_settings
    from vidkd.evaluation import write_dense_scores, write_detections

    scores = predict_runs(runs, cache, annotations.videos, device=device, skip_missing=skip_missing)
    if scores_out is not None:
        write_dense_scores(scores_out, scores)
    if not events and detections_out is None:
        return scores
    detections = ranked_segments(scores, run_segment_settings(runs[0]))
    if detections_out is not None:
        write_detections(detections_out, detections, {"runs": [path.name for path in runs]})
    return detections if events else scores


def _print(result: EvaluationResult) -> None:
    from vidkd.evaluation.result import DELAY_COLUMNS

    subset = f", subset {result.subset}" if result.subset else ""
    emit_table(f"{result.protocol}{subset}, in %", result.columns(), result.rows())
    for how in result.delays:
        emit_table(
            f"delay of detection, {how.replace('_', ' ')}", DELAY_COLUMNS, result.delay_rows(how)
        )
    for measure in result.measures:
        log(" ".join(["mAP", *measure.suffix.split("_")]).strip() + f": {measure.description}")
    log(
        f"on {result.videos} videos, {result.segments} segments, {result.classes} classes;"
        f" ground truth {result.ground_truth_sha256[:12]}; compared on {result.evaluated_on}"
    )
    if result.missing:
        shown = listed(result.missing, 5)
        log(f"warning: no predictions for {len(result.missing)} videos: {shown}")
    for note in result.notes:
        log(f"note: {note}")
