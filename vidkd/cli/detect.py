"""``vidkd detect``: from video files to segments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidkd.cli.options import BatchSize, Device, EncoderPrecision, Json, argument, flag, option
from vidkd.console import emit_json, emit_table, log, progress
from vidkd.errors import UsageError, VidkdError
from vidkd.workers import importing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vidkd.detection.detector import DetectionResult, Detector, FeatureDetector
    from vidkd.detection.scorers import Scorer
    from vidkd.evaluation import Detection
    from vidkd.video import VideoFile


def detect(
    inputs: Annotated[
        list[Path] | None, argument("Video files, folders or .txt lists.", "VIDEO...")
    ] = None,
    model: Annotated[
        list[Path] | None,
        option(
            "Run folder or weights of a student, hf:OWNER/NAME of the hub, or a file of `vidkd "
            "fuse`; repeat it to average the logits of several. Default: I3D with the classes of "
            "Kinetics.",
            "RUN_OR_FILE",
        ),
    ] = None,
    features: Annotated[
        Path | None,
        option(
            "Run the student on features in the cache instead of videos: a file, or a folder such "
            "as CACHE/features/ENCODER.",
            "FILE.h5",
        ),
    ] = None,
    output: Annotated[
        Path | None, option("Write the segments as ActivityNet-style JSON.", "FILE.json")
    ] = None,
    scores: Annotated[
        Path | None, option("Write the score of each snippet and class.", "FILE.h5")
    ] = None,
    threshold: Annotated[
        float | None, option("Lowest score of a segment. Default: 0.5.", "SCORE", min=0.0, max=1.0)
    ] = None,
    render: Annotated[
        Path | None, option("Write an annotated video; for several videos, a folder.", "OUT.mp4")
    ] = None,
    plot: Annotated[
        Path | None, option("Draw a timeline; for several videos, a folder.", "OUT.png")
    ] = None,
    page: Annotated[
        Path | None,
        option(
            "Write a page that plays the video above its segments and scores, without a server; "
            "for several videos, a folder.",
            "OUT.html",
        ),
    ] = None,
    device: Device = "auto",
    precision: EncoderPrecision = "auto",
    batch_size: BatchSize = None,
    all_proposals: Annotated[
        bool,
        flag(
            "--all-proposals",
            "Write all proposals, which overlap and have any score, as evaluation needs them.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Find the actions in videos from their RGB frames alone.

    Models of poses or of optical flow compute theirs from the same frames.

    Exit code 1 if some videos failed; the others are done and written.
    """
    from vidkd.video import find_videos

    if features is None:
        if not inputs:
            raise UsageError(
                "there is no video",
                remedy="name some, or give --features; see `vidkd detect --help`",
            )
        videos = find_videos(inputs)
    else:
        videos = _feature_files(features)
        if inputs or not model or len(model) > 1 or any((render, plot, page)):
            raise UsageError(
                "--features needs one --model and no video, and leaves nothing to draw",
                remedy="leave out the videos, --render, --plot and --page",
            )
    _check_names(videos)
    targets = {
        "--render": (render, ".mp4"),
        "--plot": (plot, ".png"),
        "--page": (page, ".html"),
    }
    for name, (path, ending) in targets.items():
        _check_target(name, path, ending, several=len(videos) > 1)

    with importing():
        from vidkd.detection.detector import Detector, FeatureDetector

    detector: Detector | FeatureDetector
    if features is not None and model:
        detector = FeatureDetector(model[0], device)
    else:
        detector = Detector(model, device, precision=precision)
    if not model:
        log(
            f"no --model: using the 400 Kinetics classes of {detector.scorer.name}; an action that"
            " is not among them gets the name of one that looks like it"
        )
    found: dict[str, list[Detection]] = {}
    dense: dict[str, DetectionResult] = {}
    failures = 0
    try:
        for video in videos:
            try:
                result = _detect_one(detector, video, threshold, batch_size)
                chosen = result.proposals() if all_proposals else result.segments
                found[result.video_id] = sorted(chosen, key=lambda item: (item.start, item.end))
                if scores is not None:
                    dense[result.video_id] = result
                if output is not None:
                    # After every video, so that an interruption costs one video and not all.
                    _write_output(output, detector.scorer, found, all_proposals)
                _draw(result, _target(render, video, ".mp4"), _target(plot, video, ".png"))
                _write_page(result, _target(page, video, ".html"))
            except VidkdError as error:
                failures += 1
                log(f"error: {error}")
                continue
            if not as_json:
                _print(result)
    finally:
        if scores is not None and dense:
            _write_scores(scores, detector.scorer, dense)
    if as_json:
        emit_json({"results": {k: [item.to_json() for item in v] for k, v in found.items()}})
    if failures:
        log(f"{failures} of {len(videos)} videos failed")
        raise typer.Exit(1)


def _feature_files(path: Path) -> list[VideoFile]:
    """Return the cache files at a path, by their keys."""
    from vidkd.video import VideoFile

    if not path.is_dir():
        return [VideoFile(path, path.stem)]
    files = [file for file in sorted(path.rglob("*.h5")) if not file.name.startswith(".")]
    if not files:
        raise UsageError("holds no features", path=path, remedy="name a folder of .h5 files")
    return [VideoFile(f, f.relative_to(path).with_suffix("").as_posix()) for f in files]


def _check_names(videos: Sequence[VideoFile]) -> None:
    """Results are kept under the name of the file, so two of one name would be one."""
    seen: dict[str, VideoFile] = {}
    for video in videos:
        other = seen.setdefault(video.path.stem, video)
        if other is not video:
            raise UsageError(
                f"{other.path} and {video.path} share the name {video.path.stem!r}",
                remedy="rename one of them, or run vidkd detect on each",
            )


def _check_target(option: str, path: Path | None, ending: str, several: bool) -> None:
    if path is None:
        return
    if several and (path.is_file() or path.suffix.lower() == ending):
        raise UsageError(
            f"{option} needs a folder when there are several videos",
            path=path,
            remedy="name a folder",
        )
    kinds = {".png", ".pdf", ".svg"} if ending == ".png" else {ending}
    if not several and not path.is_dir() and path.suffix.lower() not in kinds:
        raise UsageError(
            f"{option} needs a file that ends in {' or '.join(sorted(kinds))}",
            path=path,
            remedy="change the ending, or name a folder that exists",
        )


def _target(path: Path | None, video: VideoFile, ending: str) -> Path | None:
    """Return the file for one video, where ``path`` is that file or a folder."""
    if path is None or path.suffix.lower() in {".mp4", ".png", ".pdf", ".svg", ".html"}:
        return path
    return path / f"{video.path.stem}{ending}"


def _detect_one(
    detector: Detector | FeatureDetector,
    video: VideoFile,
    threshold: float | None,
    batch_size: int | None,
) -> DetectionResult:
    from vidkd.detection.detector import FeatureDetector
    from vidkd.video import open_video

    if isinstance(detector, FeatureDetector):
        return detector(video.path, threshold=threshold)
    with (
        open_video(video.path) as opened,
        progress(video.path.name, detector.frame_total(opened), "frames") as advance,
    ):
        return detector(opened, threshold=threshold, batch_size=batch_size, report=advance)


def _draw(result: DetectionResult, video: Path | None, picture: Path | None) -> None:
    if video is None and picture is None:
        return
    from vidkd.report.detection import draw_detection, render_detection

    if picture is not None:
        draw_detection(picture, result)
    if video is not None:
        total = result.duration * float(result.info.frame_rate)
        with progress(f"{video.name}", total, "frames") as advance:
            render_detection(video, result, report=advance)


def _write_page(result: DetectionResult, path: Path | None) -> None:
    if path is None:
        return
    from vidkd.view import write_page

    copy = write_page(path, result)
    log(f"wrote {path}" + (f", and {copy}, which browsers play" if copy else ""))


def _print(result: DetectionResult) -> None:
    from vidkd.report.segments import clock, segment_rows

    if result.segments:
        emit_table(
            result.info.path.name,
            ("action", "start", "end", "score"),
            segment_rows(result.segments),
        )
        return
    label, score, second = result.best()
    log(
        f"{result.info.path.name}: no action reaches {result.threshold:g} for long enough; the"
        f" highest score is {score:.2f}, {label} at {clock(second)}"
    )


def _write_output(
    path: Path,
    scorer: Scorer,
    found: dict[str, list[Detection]],
    all_proposals: bool,
) -> None:
    from vidkd.evaluation import write_detections

    details = {
        "model": scorer.name,
        "scores": scorer.score_name,
        "list": "all proposals" if all_proposals else "segments above the threshold",
    }
    write_detections(path, found, details)


def _write_scores(
    path: Path,
    scorer: Scorer,
    found: dict[str, DetectionResult],
) -> None:
    from vidkd.evaluation import DenseScores, write_dense_scores

    scores = {video: (result.scores, result.pts) for video, result in found.items()}
    candidates = {
        video: result.candidates for video, result in found.items() if result.candidates is not None
    }
    write_dense_scores(path, DenseScores(scorer.classes, scores, candidates))
