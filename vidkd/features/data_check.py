"""Aligning annotations with videos and caches, and explaining every mismatch before training."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidkd.annotations import Annotations, VideoAnnotation, load_annotations
from vidkd.cache import CacheFile, cache_files, cache_path, encoder_folders, present, verify
from vidkd.differences import differences, listed
from vidkd.errors import AnnotationError, CacheError, UsageError, VideoError
from vidkd.features.data_report import DataReport, Severity, similar
from vidkd.files import sha256
from vidkd.keys import KeyIndex
from vidkd.recipe import SnippetSettings
from vidkd.video import (
    VideoFile,
    VideoFolder,
    VideoInfo,
    find_videos,
    probe,
    read_frames,
    snippet_count,
)

SUBSETS = ("training", "validation", "testing")
"""What recipes train on, choose epochs by, and report, unless they name others."""
_DIVIDE = "`vidkd init VIDEOS --labels FILE` divides the videos"
_SAME_TIME = 1e-6
"""Seconds; two streams cut from the same frames carry the same times up to rounding."""
_TOLERANCE = 0.5
"""Seconds by which the durations of annotation and container may differ without a word: containers
round, and annotators measured with other players."""


def check_data(
    annotations: Path,
    format: str = "auto",
    *,
    annotation_rate: float | None = None,
    videos: Path | None = None,
    cache: Path | None = None,
    encoders: Sequence[str] = (),
    subsets: Sequence[str] = SUBSETS,
    deep: bool = False,
    advance: Callable[[float], None] | None = None,
) -> DataReport:
    """Compare annotations with the videos and the cached features that belong to them.

    Args:
        annotations: the annotation file or folder.
        format: its format, see ``vidkd.annotations.load_annotations``.
        annotation_rate: frames per second, for formats that count in frames.
        videos: folder of the videos; None leaves them out.
        cache: the cache folder; None leaves it out.
        encoders: the encoders whose features are to be there; none takes all in the cache.
        subsets: names of the subsets for training, for validation, and of what is reported.
        deep: also read every row, and decode and hash every video.
        advance: called with 1 after every annotated video.

    Raises:
        UsageError: there is no such format, or ``videos`` is not a folder.
        CacheError: ``cache`` is not a folder.
    """
    report = DataReport()
    try:
        rate_of = None if videos is None else VideoFolder(videos).rate
        truth = load_annotations(annotations, format, frame_rate=annotation_rate, rate_of=rate_of)
    except AnnotationError as error:
        report.add("error", "annotations", "", str(error))
        return report
    _check_classes(truth, subsets[0], report)
    _check_subsets(truth, subsets, report)
    files = _find_videos(videos, report)
    folders = _find_features(cache, encoders, report)
    stored: dict[str, dict[str, _Features]] = {name: {} for name in folders}
    for video in truth.videos.values():
        duration = _check_segments(video, report)
        info: VideoInfo | None = None
        found: dict[str, _Features] = {}
        missing: list[str] = []
        for encoder, index in folders.items():
            item = _read_features(index, encoder, video.id, deep, report)
            if item is None:
                missing.append(encoder)
            else:
                found[encoder] = stored[encoder][item.key] = item
        if files is not None:
            complete = bool(folders) and not missing
            path = _find_one(files, video.id, complete, report)
            info = None if path is None else _probe(path, video, complete, deep, report)
        if info is not None:
            _check_duration(video, info, report)
            duration = info.duration or duration
        for item in found.values():
            _check_features(cache or Path(), item, video, info, duration, deep, report)
        _check_alignment(found, video.id, report)
        if advance is not None:
            advance(1)
    _check_mixing(stored, report)
    if files is not None:
        _check_names(truth, files, report)
    _check_unannotated(truth, files, folders, report)
    report.findings.sort(key=lambda item: item.severity)
    return report


@dataclass(frozen=True)
class _Features:
    """The header of one feature file."""

    key: str
    path: Path
    pts: np.ndarray
    width: int
    settings: Mapping[str, Any]
    source: Any
    weights: str

    @property
    def imported(self) -> bool:
        return bool(self.settings.get("imported"))

    @property
    def snippet(self) -> SnippetSettings:
        return SnippetSettings.model_validate(self.settings.get("snippet", {}))

    @property
    def identity(self) -> str:
        alike = {name: value for name, value in self.settings.items() if name != "inputs"}
        own = {"weights": self.weights, "width": self.width, **alike}
        return json.dumps(own, sort_keys=True)


def _check_classes(truth: Annotations, training: str, report: DataReport) -> None:
    items = list(truth.videos.values())
    report.counts.update(
        videos=len(items),
        segments=sum(len(video.segments) for video in items),
        classes=len(truth.classes),
        **{f"subset {name or '(none)'}": len(truth.subset(name).videos) for name in truth.subsets},
    )
    for note in truth.notes:
        report.add("warning", "left-out", "", note)
    alike: dict[str, list[str]] = {}
    for name in truth.classes:
        alike.setdefault(" ".join(name.casefold().replace("_", " ").split()), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            detail = f"{', '.join(map(repr, names))} differ only in spelling: make them one class"
            report.add("warning", "class-spelling", "", detail)
    used = {item.label for video in items for item in video.segments}
    for name in [name for name in truth.classes if name not in used]:
        report.add("warning", "unused-class", "", f"class {name!r} has no segment")
    if training in truth.subsets:
        for name in sorted(used - _labels(truth, training)):
            detail = (
                f"class {name!r} has no segment in the subset {training!r} and cannot be learnt:"
                f" {_DIVIDE}"
            )
            report.add("warning", "untrained-class", "", detail)


def _labels(truth: Annotations, subset: str) -> set[str]:
    """Return the classes that occur in a subset, which the file has."""
    videos = truth.subset(subset).actions().videos.values()
    return {item.label for video in videos for item in video.segments}


def _check_subsets(truth: Annotations, wanted: Sequence[str], report: DataReport) -> None:
    """Every stage of a recipe has a subset of its own, and none may be empty."""
    there = [name for name in truth.subsets if name]
    if not there:
        detail = f"no video belongs to a subset, and {', '.join(wanted)} are needed: {_DIVIDE}"
        report.add("error", "missing-subset", "", detail)
        return
    for name in dict.fromkeys(wanted):
        if name not in there:
            detail = f"no video is in the subset {name!r} (there are {', '.join(there)}): {_DIVIDE}"
            report.add("error", "missing-subset", "", detail)
            continue
        labels = _labels(truth, name)
        if not labels:
            detail = f"no video of the subset {name!r} has a segment: {_DIVIDE}"
            report.add("error", "empty-subset", "", detail)
        elif name != wanted[0] and (lacking := _labels_of_all(truth) - labels):
            detail = f"the subset {name!r} has no segment of {listed(sorted(lacking))}"
            report.add("warning", "unmeasured-class", "", detail)
    for video in truth.videos.values():
        if not video.subset:
            detail = f"belongs to no subset, so that nothing uses it: {_DIVIDE}"
            report.add("warning", "no-subset", video.id, detail)


def _labels_of_all(truth: Annotations) -> set[str]:
    return {item.label for video in truth.actions().videos.values() for item in video.segments}


def _check_names(truth: Annotations, files: KeyIndex[VideoFile], report: DataReport) -> None:
    """A video under two names would be in two subsets."""
    names: dict[str, str] = {}
    for video in truth.videos:
        for key in files.candidates(video)[:1]:
            if (other := names.setdefault(key, video)) != video:
                detail = f"is the same video as {other!r}: keep one of the two"
                report.add("error", "video-twice", video, detail)


def _check_segments(video: VideoAnnotation, report: DataReport) -> float | None:
    """Check what the annotations alone tell; return the duration they give."""
    if not video.segments:
        report.add("warning", "no-segments", video.id, "has no segment: all of it is background")
    for item, count in Counter(video.segments).items():
        what = f"{item.label!r} [{item.start:g}, {item.end:g}]"
        if count > 1:
            report.add("warning", "duplicate-segment", video.id, f"{what} is given {count} times")
        if item.start < 0:
            report.add("warning", "segment-before-start", video.id, f"{what} starts before 0 s")
        if item.start == item.end:
            report.add("warning", "empty-segment", video.id, f"{what} has no length")
    if video.duration is not None:
        _check_ends(video, video.duration, "the annotated duration", 1e-6, report)
    return video.duration


def _check_ends(
    video: VideoAnnotation, end: float, name: str, tolerance: float, report: DataReport
) -> None:
    for item in dict.fromkeys(video.segments):
        what = f"{item.label!r} [{item.start:g}, {item.end:g}]"
        if item.start >= end:
            detail = f"{what} lies past {name}, {end:g} s, and is lost: check unit and frame rate"
            report.add("warning", "segment-outside", video.id, detail)
        elif item.end > end + tolerance:
            detail = f"{what} ends past {name}, {end:g} s"
            report.add("warning", "segment-past-end", video.id, detail)


def _find_videos(folder: Path | None, report: DataReport) -> KeyIndex[VideoFile] | None:
    """Return the video files by key; None, with a finding, when two of them have one key."""
    if folder is None:
        return None
    if not folder.is_dir():
        raise UsageError("is not a folder", path=folder, remedy="give the folder of the videos")
    try:
        found = {item.key: item for item in find_videos([folder])}
    except UsageError as error:
        report.add("error", "duplicate-key", "", str(error))
        return None
    report.counts["video files"] = len(found)
    return KeyIndex(found, folder)


def _find_features(
    cache: Path | None, encoders: Sequence[str], report: DataReport
) -> dict[str, KeyIndex[Path]]:
    if cache is None:
        return {}
    if not cache.is_dir():
        raise CacheError("is not a folder", path=cache, remedy="check the path of the cache")
    folders = {}
    for name in encoders or encoder_folders(cache):
        folders[name] = cache_files(cache, "features", name)
        report.counts[f"features {name}"] = len(folders[name].items)
    if not folders:
        detail = (
            f"{cache} holds no features: run `vidkd extract-features` or `data import-features`"
        )
        report.add("error", "no-features", "", detail)
    return folders


def _find_one(
    files: KeyIndex[VideoFile], video: str, complete: bool, report: DataReport
) -> Path | None:
    keys = files.candidates(video)
    if len(keys) == 1:
        return files.items[keys[0]].path
    # With all its features in the cache, training does not need the video any more.
    severity: Severity = "warning" if complete else "error"
    if keys:
        detail = f"several files have this name: {', '.join(keys)}; annotate them by their folder"
        report.add(severity, "ambiguous-video", video, detail)
    else:
        detail = f"there is no video file{similar(files, video)}"
        report.add(severity, "missing-video", video, detail)
    return None


def _probe(
    path: Path, video: VideoAnnotation, complete: bool, deep: bool, report: DataReport
) -> VideoInfo | None:
    try:
        info = probe(path)
        if deep:
            for _ in read_frames(path, short_side=min(32, info.width, info.height)):
                pass
        return info
    except VideoError as error:
        report.add("warning" if complete else "error", "broken-video", video.id, str(error))
        return None


def _check_duration(video: VideoAnnotation, info: VideoInfo, report: DataReport) -> None:
    if info.duration is None:
        return
    if video.duration is None or info.duration < video.duration - _SAME_TIME:
        _check_ends(
            video, info.duration, "the end of the video", float(1 / info.frame_rate), report
        )
    if video.duration is not None and abs(video.duration - info.duration) > _TOLERANCE:
        detail = (
            f"the annotations say {video.duration:g} s, the video lasts {info.duration:.2f} s:"
            " check that it is the same cut, and the unit of the annotations"
        )
        report.add("warning", "duration", video.id, detail)
    rate = float(info.frame_rate)
    if video.frame_rate is not None and abs(video.frame_rate - rate) > 0.01 * rate:
        detail = f"the annotations count {video.frame_rate:g} frames/s, the video has {rate:g}"
        report.add("warning", "frame-rate", video.id, detail)


def _read_features(
    files: KeyIndex[Path], encoder: str, video: str, deep: bool, report: DataReport
) -> _Features | None:
    """Return the header of a video's feature file; None, with a finding, without a sound one."""
    keys = files.candidates(video)
    if len(keys) != 1:
        detail = f"there are no features of {encoder}{similar(files, video)}"
        if keys:
            detail = f"several files of {encoder} have this name: {', '.join(keys)}"
        report.add("error", "ambiguous-features" if keys else "missing-features", video, detail)
        return None
    path = files.items[keys[0]]
    if problems := verify(path, deep=deep):
        detail = f"{path}: {', '.join(problems)}; make it again with --overwrite"
        report.add("error", "broken-cache", video, detail)
        return None
    with CacheFile(path) as file:
        found = file.provenance
        if found.artefact != "features" or file.data.ndim != 2:
            report.add("error", "broken-cache", video, f"{path}: does not hold features")
            return None
        weights, width = found.weights_sha256 or "", int(file.data.shape[1])
        return _Features(keys[0], path, file.pts, width, found.settings, found.source, weights)


def _check_features(
    cache: Path,
    item: _Features,
    video: VideoAnnotation,
    info: VideoInfo | None,
    duration: float | None,
    deep: bool,
    report: DataReport,
) -> None:
    """Compare one feature file with the frames, the flow and the video it comes from."""
    snippet, frames, count = item.snippet, item.source.frame_count, len(item.pts)
    expected = snippet_count(frames, snippet)
    if count != expected:
        detail = (
            f"{item.path}: {count} rows, but {frames} frames make {expected} snippets of"
            f" {snippet.length} frames every {snippet.stride}; make it again with --overwrite"
        )
        report.add("error", "feature-count", video.id, detail)
    end = float(item.pts[-1, 1])
    seconds_per_frame = end / frames if frames else 0.0
    slack = max(snippet.length, snippet.stride) * seconds_per_frame + _TOLERANCE
    if duration is not None and abs(end - duration) > slack:
        detail = (
            f"{item.path}: {count} rows end at {end:.2f} s, the video at {duration:.2f} s:"
            f" check stride and frame rate (a factor of {end / duration:.3g})"
        )
        report.add("warning", "feature-times", video.id, detail)
    if item.imported:
        return
    if info is not None and _is_stale(item, info, deep):
        detail = f"{item.path}: {info.path} has changed since; make it again with --overwrite"
        report.add("error", "stale-cache", video.id, detail)
    flow = cache_path(cache, "flow", item.key)
    if present(flow) and (problem := _flow_problem(flow, item)):
        report.add("error", "flow-count", video.id, f"{flow}: {problem}")


def _is_stale(item: _Features, info: VideoInfo, deep: bool) -> bool:
    changed = item.source.size != info.size
    return bool(changed or (deep and item.source.sha256 != sha256(info.path)))


def _flow_problem(flow: Path, item: _Features) -> str | None:
    try:
        with CacheFile(flow) as file:
            rows, settings = len(file), file.provenance.settings
    except CacheError as error:
        return error.problem
    if settings.get("frames") == item.settings.get("frames") and rows != item.source.frame_count:
        return f"{rows} rows of flow, but the features saw {item.source.frame_count} frames"
    return None


def _check_alignment(found: Mapping[str, _Features], video: str, report: DataReport) -> None:
    """Two streams of a video must have the same snippets, or nothing can be distilled."""
    if not found:
        return
    (first_name, first), *others = found.items()
    for name, item in others:
        if len(item.pts) != len(first.pts):
            detail = (
                f"{first_name} has {len(first.pts)} snippets, {name} {len(item.pts)}:"
                " extract or import both with the same frame and snippet settings"
            )
            report.add("error", "snippet-count", video, detail)
        elif np.abs(item.pts - first.pts).max() > _SAME_TIME:
            detail = f"{first_name} and {name} have their snippets at other times"
            report.add("error", "snippet-times", video, detail)


def _check_mixing(stored: Mapping[str, Mapping[str, _Features]], report: DataReport) -> None:
    for encoder, files in stored.items():
        kinds = Counter(item.identity for item in files.values())
        if len(kinds) < 2:
            continue
        usual = kinds.most_common(1)[0][0]
        for key, item in files.items():
            if item.identity != usual:
                detail = (
                    f"{item.path}: made with other settings or weights than most of {encoder}"
                    f" ({', '.join(differences(*map(json.loads, (item.identity, usual))))});"
                    " make it again"
                )
                report.add("error", "mixed-settings", key, detail)


def _check_unannotated(
    truth: Annotations,
    files: KeyIndex[VideoFile] | None,
    folders: Mapping[str, KeyIndex[Path]],
    report: DataReport,
) -> None:
    def others(index: KeyIndex[Any]) -> list[str]:
        named = {key for video in truth.videos for key in index.candidates(video)}
        return [key for key in index.items if key not in named]

    groups = {
        "unannotated-video": [] if files is None else others(files),
        "unannotated-features": sorted({key for i in folders.values() for key in others(i)}),
    }
    for kind, keys in groups.items():
        for key in keys:
            detail = "is not annotated: only `distill --unlabelled` uses it"
            report.add("warning", kind, key, detail)
