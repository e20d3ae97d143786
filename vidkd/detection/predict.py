"""From trained runs and cached features to dense scores, one stream or several fused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from vidkd.cache import CacheFile
from vidkd.detection.segments import scores_to_segments
from vidkd.detection.student import pooled, run_student
from vidkd.differences import differences
from vidkd.errors import CacheError, UsageError
from vidkd.evaluation import DenseScores, Detection
from vidkd.evaluation.predictions import Candidates
from vidkd.networks import select_device
from vidkd.networks.filter_weights import FilterHeader, load_temporal_filter
from vidkd.networks.temporal import TemporalFilter
from vidkd.recipe import FrameSettings, SegmentSettings, SnippetSettings
from vidkd.streams import STREAMS

# Two streams cut from the same frames carry the same times, to the rounding of a float.
_SAME_TIME = 1e-6


def predict_runs(
    runs: Sequence[Path],
    cache: Path,
    videos: Iterable[str],
    *,
    device: str = "auto",
    skip_missing: bool = False,
) -> DenseScores:
    """Score the snippets of cached videos with one run, or with several fused late.

    Several runs are the two-stream baseline: the average of their logits, then the sigmoid.

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
        UsageError: there is no run, or the runs do not have the same classes.
        CacheError: features are missing or damaged, were not made as a run needs them, or the
            streams of a video do not have the same snippets.
    """
    if not runs:
        raise UsageError("there is no run to predict with", remedy="name at least one")
    place = select_device(device)
    loaded = [load_temporal_filter(run, place) for run in runs]
    classes = loaded[0][1].classes
    for run, (_, header) in zip(runs, loaded, strict=True):
        if header.classes != classes:
            raise UsageError(
                f"was trained on other classes than {runs[0]}",
                path=run,
                remedy="fuse runs of one annotation file",
            )
    files = [STREAMS[header.modality].files(cache, header.encoder) for _, header in loaded]
    result = DenseScores(classes, {})
    missing = []
    for video in videos:
        paths = [index.find(video) for index in files]
        lacking = sorted(
            {h.encoder for path, (_, h) in zip(paths, loaded, strict=True) if path is None}
        )
        if lacking:
            missing.append(f"{video} ({' and '.join(lacking)})")
            continue
        streams = list(zip([path for path in paths if path], loaded, strict=True))
        scores, pts, segments = _fused(streams, place)
        result.videos[video] = scores, pts
        if segments is not None:
            result.candidates[video] = segments
    if missing and not (skip_missing and result.videos):
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise CacheError(
            f"there are no features of {', '.join(missing[:3])}{more}",
            path=cache,
            remedy="run `vidkd extract-features` on these videos first",
        )
    return result


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
    return load_temporal_filter(run)[1].segments


def _fused(
    streams: Sequence[tuple[Path, tuple[TemporalFilter, FilterHeader]]], device: torch.device
) -> tuple[np.ndarray, np.ndarray, Candidates | None]:
    """Return the probabilities (T, K) of one video, their times (T, 2), and candidates."""
    total: torch.Tensor | None = None
    segments = []
    first: np.ndarray | None = None
    for path, (module, header) in streams:
        rows, pts = read_features(path, header)
        if first is None:
            first = pts
        elif pts.shape != first.shape or np.abs(pts - first).max() > _SAME_TIME:
            raise CacheError(
                f"has {len(pts)} snippets at other times than the {len(first)} of {streams[0][0]}",
                path=path,
                remedy="extract all streams with the same frame and snippet settings",
            )
        features = torch.from_numpy(rows).to(device)[None]
        mask = torch.ones(features.shape[:2], dtype=torch.bool, device=device)
        (output,) = run_student(module, features, mask)
        logits, found = output.calibrated(header, pts)
        segments.append(found)
        total = logits if total is None else total + logits
    if total is None or first is None:
        raise ValueError("at least one stream is needed")
    return torch.sigmoid(total / len(streams)).numpy(), first, pooled(segments)


def read_features(path: Path, header: FilterHeader) -> tuple[np.ndarray, np.ndarray]:
    """Return the features (T, D) float32 in a cache file, and their times (T, 2).

    Raises:
        CacheError: they are damaged, or not made as those that the run was trained on.
    """
    with CacheFile(path) as file:
        _check(file, header)
        rows, pts = file.rows().astype(np.float32), file.pts
    if not np.isfinite(rows).all():
        raise CacheError(
            "holds numbers that are not finite",
            path=path,
            remedy="compute the features again, as float32 if they overflow float16",
        )
    return rows, pts


def _check(file: CacheFile, header: FilterHeader) -> None:
    """Refuse features that were not made as those the run was trained on.

    Raises:
        CacheError: encoder, its weights, or the frame, snippet or crop settings differ.
    """
    found = file.provenance
    settings = found.settings
    if found.artefact != "features" or file.data.ndim != 2:
        raise CacheError("does not hold features", path=file.path, remedy="recompute it")
    have = {
        "encoder": found.encoder,
        "weights of the encoder": found.weights_sha256,
        "modality": settings.get("modality"),
        "width": int(file.data.shape[1]),
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
