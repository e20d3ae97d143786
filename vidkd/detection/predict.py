"""From trained runs and cached features to dense scores, one stream or several fused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from vidkd.cache import CacheFile
from vidkd.detection.fusion import SAME_TIME, Fusion, StudentScores, load_models, probabilities
from vidkd.detection.segments import scores_to_segments
from vidkd.differences import differences, listed
from vidkd.errors import CacheError
from vidkd.evaluation import DenseScores, Detection
from vidkd.networks import FilterHeader, select_device
from vidkd.recipe import FrameSettings, SegmentSettings, SnippetSettings
from vidkd.streams import STREAMS


def predict_runs(
    runs: Sequence[Path],
    cache: Path,
    videos: Iterable[str],
    *,
    device: str = "auto",
    skip_missing: bool = False,
) -> DenseScores:
    """Score the snippets of cached videos with one run, or with several fused late.

    Several runs are the two-stream baseline: the average of their logits, then the sigmoid. A file
    of ``vidkd fuse`` has weights for that average.

    Args:
        runs: run folders or weights files, each with features of its encoder in the cache.
        cache: the cache folder.
        videos: keys of the videos in the cache, or their names in whatever folder of it.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.
        skip_missing: leave out videos that lack features instead of raising.

    Returns:
        Probabilities, (T, K) float32 for each video, and the candidates of segment heads if every
        run has one.

    Raises:
        WeightsError: a run cannot be read.
        UsageError: there is no run, or a fused file is not the only one.
        CacheError: features are missing or damaged, or were not made as a run needs them.
    """
    place = select_device(device)
    fusion = load_models(runs, place)
    result = DenseScores(fusion.classes, {})
    for video, own in student_scores(fusion, cache, videos, place, skip_missing):
        fused, axis = fusion.fuse(own)
        result.videos[video] = probabilities(fused), axis
        if (segments := fusion.candidates(own)) is not None:
            result.candidates[video] = segments
    return result


def student_scores(
    fusion: Fusion, cache: Path, videos: Iterable[str], device: torch.device, skip_missing: bool
) -> Iterator[tuple[str, list[StudentScores]]]:
    """Yield what each student says of cached videos.

    Args:
        fusion: the students.
        cache: the cache folder.
        videos: keys of the videos.
        device: where the students are.
        skip_missing: leave out videos that lack features, unless all do, instead of raising.

    Raises:
        CacheError: features are missing or damaged, or were not made as a student needs them.
    """
    headers = [student.header for student in fusion.students]
    files = [STREAMS[header.modality].files(cache, header.encoder) for header in headers]
    found, missing = {}, []
    for video in videos:
        paths = [index.find(video) for index in files]
        lacking = {h.encoder for path, h in zip(paths, headers, strict=True) if path is None}
        if lacking:
            missing.append(f"{video} ({' and '.join(sorted(lacking))})")
        else:
            found[video] = [path for path in paths if path]
    if missing and not (skip_missing and found):
        raise CacheError(
            f"there are no features of {listed(missing)}",
            path=cache,
            remedy="run `vidkd extract-features` on these videos first",
        )
    for video, own in found.items():
        read = [read_features(path, header) for path, header in zip(own, headers, strict=True)]
        _check_times(own, headers, [pts for _, pts in read])
        yield video, [fusion.run(number, *item, device) for number, item in enumerate(read)]


def _check_times(
    paths: Sequence[Path], headers: Sequence[FilterHeader], times: Sequence[np.ndarray]
) -> None:
    """Refuse features that were cut alike and have other times: they are of another video."""
    for path, header, pts in zip(paths, headers, times, strict=True):
        alike = header.frames == headers[0].frames and header.snippet == headers[0].snippet
        if alike and (pts.shape != times[0].shape or np.abs(pts - times[0]).max() > SAME_TIME):
            raise CacheError(
                f"has {len(pts)} snippets at other times than the {len(times[0])} of {paths[0]}",
                path=path,
                remedy="extract both from the same video",
            )


def ranked_segments(scores: DenseScores, settings: SegmentSettings) -> dict[str, list[Detection]]:
    """Return the ranked segments of every video: of the segment heads, or grouped from the scores.

    Args:
        scores: as `predict_runs` returns them.
        settings: of the grouping and of the suppression.
    """
    return {
        video: scores_to_segments(rows, pts, scores.classes, settings, scores.candidates.get(video))
        for video, (rows, pts) in scores.videos.items()
    }


def run_segment_settings(run: Path) -> SegmentSettings:
    """Return how a run's scores are to become segments, as its weights file says.

    Raises:
        WeightsError: the run cannot be read.
    """
    return load_models([run]).segments


def read_features(path: Path, header: FilterHeader) -> tuple[np.ndarray, np.ndarray]:
    """Return the features (T, D) float32 in a cache file, and their times (T, 2).

    Raises:
        CacheError: they are damaged, or not made as those that the run was trained on.
    """
    with CacheFile(path) as file:
        _check(file, header)
        return file.features().astype(np.float32), file.pts


def _check(file: CacheFile, header: FilterHeader) -> None:
    """Refuse features that were not made as those the run was trained on.

    Raises:
        CacheError: encoder, its weights, or the frame, snippet or crop settings differ.
    """
    found = file.provenance
    settings = found.settings
    have = {
        "encoder": found.encoder,
        "weights of the encoder": found.weights_sha256,
        "modality": settings.get("modality"),
        "width": file.width,
        "crop": settings.get("crop", header.crop),
        "frames": _plain(settings.get("frames"), FrameSettings()),
        "snippets": _plain(settings.get("snippet"), SnippetSettings()),
    }
    want = {
        "encoder": header.encoder,
        "weights of the encoder": header.encoder_sha256,
        "modality": header.modality,
        "width": header.in_features,
        "crop": header.crop,
        "frames": header.frames.model_dump(mode="json"),
        "snippets": header.snippet.model_dump(mode="json"),
    }
    different = differences(have, want)
    if different:
        raise CacheError(
            f"was not made as the run needs it: {', '.join(different)}",
            path=file.path,
            remedy="extract the features with the settings of the run, into a cache of their own",
        )


def _plain(value: object, default: FrameSettings | SnippetSettings) -> dict[str, object]:
    given = value if isinstance(value, dict) else {}
    return {**default.model_dump(mode="json"), **given}
