"""One video to one cache file: optical flow, or the features an encoder makes of snippets.

Everything streams: a batch of snippets is in memory at a time, whatever the video's length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vidkd.cache import (
    CacheFile,
    CacheWriter,
    Provenance,
    Source,
    cache_path,
    describe_source,
    differences,
    library_versions,
    remove_leftovers,
    state,
    verify,
)
from vidkd.errors import CacheError, UsageError, VideoError, VidkdError
from vidkd.recipe import FlowSettings, FrameSettings, Modality, ModelCard, SnippetSettings
from vidkd.video import Frame, VideoFile, probe, read_frames

if TYPE_CHECKING:
    from vidkd.features.encode import Encoder

Report = Callable[[float], None]
FeatureType = Literal["float16", "float32"]
Block = tuple[np.ndarray, np.ndarray]
"""Rows (n, ...) and their start and end seconds (n, 2)."""


@dataclass(frozen=True)
class Extraction:
    """What is in the cache after a call: the file, its number of rows, and whether it was new."""

    path: Path
    rows: int
    skipped: bool


def extract_flow(
    video: VideoFile,
    cache: Path,
    frames: FrameSettings,
    flow: FlowSettings,
    *,
    threads: int = 1,
    overwrite: bool = False,
    report: Report | None = None,
) -> Extraction:
    """Compute the TV-L1 flow of one video into ``CACHE/flow/KEY.h5``, one row for each frame.

    Row i is the flow from frame i to frame i + 1, (H, W, 2) uint8, quantised; the last row
    repeats the one before, so that flow and RGB have the same number of snippets.

    Args:
        video: the video and its key.
        cache: the cache folder.
        frames: the resize, which happens before flow is computed, and the sampling.
        flow: the algorithm's settings.
        threads: processor threads to use.
        overwrite: compute again what is stale or damaged, instead of refusing.
        report: called with the number of frames done since the last call.

    Raises:
        VideoError: the video cannot be decoded.
        CacheError: the cache holds a stale or damaged file and ``overwrite`` is off.
        VidkdError: the cache cannot be written.
    """
    from vidkd.flow import flow_rows

    path = cache_path(cache, "flow", video.key)
    provenance = flow_provenance(video, frames, flow)
    rows = finished_rows(path, provenance, overwrite=overwrite)
    if rows is not None:
        return Extraction(path, rows, True)
    decoded = _Counted(_decode(video, frames), report)
    fields = flow_rows(decoded, flow, threads=threads)
    blocks = ((row.image[None], np.array([[row.start, row.end]])) for row in fields)
    return Extraction(path, _write(path, provenance, blocks, "uint8", decoded), False)


def extract_features(
    video: VideoFile,
    cache: Path,
    modality: Modality,
    encoder: Encoder,
    frames: FrameSettings,
    snippet: SnippetSettings,
    crop: int,
    batch_size: int,
    dtype: FeatureType = "float16",
    *,
    flow: FlowSettings | None = None,
    overwrite: bool = False,
    report: Report | None = None,
) -> Extraction:
    """Encode the snippets of one video into ``CACHE/features/ENCODER/KEY.h5``, (T, D).

    Args:
        video: the video and its key.
        cache: the cache folder; for the modality flow it must hold the video's flow.
        modality: ``rgb`` or ``flow``.
        encoder: the network.
        frames: resize and sampling; for flow, those the flow was computed with.
        snippet: length and stride in frames.
        crop: side in pixels of the square cut from the middle of every frame.
        batch_size: snippets encoded at once.
        dtype: type of the features on disk.
        flow: settings the cached flow must have; None accepts the cached flow as it is.
        overwrite: compute again what is stale or damaged, instead of refusing.
        report: called with the number of frames done since the last call.

    Raises:
        UsageError: modality, crop and encoder do not fit each other.
        VideoError: the video cannot be decoded.
        CacheError: the cache holds a stale or damaged file and ``overwrite`` is off, or the
            flow is missing or was computed with other settings.
        VidkdError: the cache cannot be written.
    """
    from vidkd.features.encode import encode

    check_encoder(encoder.card, modality, frames, crop)
    path = cache_path(cache, "features", video.key, encoder.card.name)
    provenance = feature_provenance(
        video,
        cache,
        encoder.card,
        encoder.weights_sha256,
        frames,
        snippet,
        crop,
        dtype,
        flow,
        half=encoder.precision == "float16",
    )
    rows = finished_rows(path, provenance, overwrite=overwrite)
    if rows is not None:
        return Extraction(path, rows, True)
    if modality == "flow":
        bound = float(provenance.settings["flow"]["bound"])
        images = _Counted(cached_flow(cache_path(cache, "flow", video.key)), report)
    else:
        bound = None
        images = _Counted(_decode(video, frames), report)
    blocks = (
        (stored(features, dtype), pts)
        for features, pts in encode(images, encoder, snippet, crop, batch_size, bound)
    )
    return Extraction(path, _write(path, provenance, blocks, dtype, images), False)


def check_encoder(card: ModelCard, modality: Modality, frames: FrameSettings, crop: int) -> None:
    """Refuse what cannot work for any video.

    Raises:
        UsageError: the encoder is for another modality, or frames are smaller than the crop.
    """
    if card.modality != modality:
        raise UsageError(
            f"the encoder {card.name} is for {card.modality}, not for {modality}",
            remedy="choose another --encoder or --modality",
        )
    if frames.short_side < crop:
        raise UsageError(
            f"frames of short side {frames.short_side} are smaller than the crop of {crop}",
            remedy="choose a larger --short-side or a smaller --crop",
        )


def flow_provenance(video: VideoFile, frames: FrameSettings, flow: FlowSettings) -> Provenance:
    """Describe the flow of one video; reads the whole file for its hash.

    Raises:
        VideoError: the video cannot be opened.
    """
    from vidkd.flow import flow_settings

    return Provenance(
        artefact="flow",
        source=describe_source(video.path, probe(video.path)),
        settings={"frames": frames.model_dump(), "flow": flow_settings(flow)},
        versions=library_versions("av", "h5py", "numba", "numpy", "opencv-contrib-python-headless"),
    )


def feature_provenance(
    video: VideoFile,
    cache: Path,
    card: ModelCard,
    weights_sha256: str,
    frames: FrameSettings,
    snippet: SnippetSettings,
    crop: int,
    dtype: FeatureType,
    flow: FlowSettings | None,
    *,
    half: bool = False,
) -> Provenance:
    """Describe the features of one video; for flow, the cached flow must be what is asked for.

    ``half`` says that they are computed in float16. Those of int8 have weights of their own.

    Raises:
        VideoError: the video cannot be opened.
        CacheError: the flow is missing, damaged, or was computed with other settings.
    """
    source = describe_source(video.path, probe(video.path))
    settings: dict[str, Any] = {
        "modality": card.modality,
        "frames": frames.model_dump(),
        "snippet": snippet.model_dump(),
        "crop": crop,
        "dtype": dtype,
    }
    if half:
        settings["precision"] = "float16"
    if card.modality == "flow":
        path = cache_path(cache, "features", video.key, card.name)
        settings["flow"] = _flow_settings(video, cache, path, source, frames, flow)
    return Provenance(
        artefact="features",
        source=source,
        settings=settings,
        encoder=card.name,
        weights_sha256=weights_sha256,
        versions=library_versions("av", "h5py", "numpy", "torch"),
    )


def _flow_settings(
    video: VideoFile,
    cache: Path,
    features: Path,
    source: Source,
    frames: FrameSettings,
    flow: FlowSettings | None,
) -> dict[str, Any]:
    """Return the settings of the flow that features are, or are to be, computed from."""
    from vidkd.flow import flow_settings

    asked = None if flow is None else flow_settings(flow)
    path = cache_path(cache, "flow", video.key)
    if not path.exists():
        # The flow may be deleted once features are made of it; they remember its settings.
        recorded = _recorded_flow(features)
        if recorded is None:
            raise missing_flow(video, cache)
        return asked or recorded
    with CacheFile(path) as file:
        found = file.provenance
    settings = asked or found.settings.get("flow")
    if not isinstance(settings, dict) or "bound" not in settings:
        raise CacheError("does not say how its flow was computed", path=path, remedy="delete it")
    expected = Provenance("flow", source, {"frames": frames.model_dump(), "flow": settings})
    if different := differences(found, expected):
        raise CacheError(
            f"this flow is stale: {', '.join(different)}",
            path=path,
            remedy=f"run `{_flow_command(video, cache)} --overwrite` with the same frame settings",
        )
    return dict(found.settings["flow"])


def missing_flow(video: VideoFile, cache: Path) -> CacheError:
    """Return the error that says how to compute the flow of a video."""
    return CacheError(
        "this flow is needed and missing",
        path=cache_path(cache, "flow", video.key),
        remedy=f"run `{_flow_command(video, cache)}` first",
    )


def _flow_command(video: VideoFile, cache: Path) -> str:
    root = str(video.path.with_suffix("")).removesuffix(video.key) or "."
    return f"vidkd extract-flow {video.path} --root {root} --cache {cache}"


def _recorded_flow(features: Path) -> dict[str, Any] | None:
    if not features.exists():
        return None
    try:
        with CacheFile(features) as file:
            recorded = file.provenance.settings.get("flow")
    except CacheError:
        return None
    return dict(recorded) if isinstance(recorded, dict) else None


def finished_rows(path: Path, provenance: Provenance, *, overwrite: bool) -> int | None:
    """Return the number of rows if the work is done, None if it is to be done.

    With ``overwrite`` the rows of a fresh file are read as well, so that damage which the header
    does not show is repaired too.

    Raises:
        CacheError: there is a stale or broken file, and ``overwrite`` is off.
    """
    kind, reason = state(path, provenance)
    if kind == "fresh" and not (overwrite and verify(path)):
        with CacheFile(path) as file:
            return len(file)
    if kind in {"stale", "broken"} and not overwrite:
        raise refusal(path, kind, reason)
    return None


def refusal(path: Path, kind: str, reason: str) -> CacheError:
    """Return the error that names what is wrong with a finished file."""
    if kind == "stale":
        return CacheError(
            f"is stale: {reason}",
            path=path,
            remedy="compute it again with --overwrite, or choose another --cache",
        )
    return CacheError(reason, path=path, remedy="compute it again with --overwrite")


def cached_flow(path: Path) -> Iterator[Frame]:
    """Read cached flow as frames whose image is the quantised field (H, W, 2) uint8.

    Raises:
        CacheError: the file is missing or damaged.
    """
    with CacheFile(path) as file:
        index = 0
        for block in file.blocks():
            for image in block:
                start, end = file.pts[index]
                yield Frame(image=image, start=float(start), end=float(end), index=index)
                index += 1


class _Counted:
    """Passes frames on, counts them, and reports each."""

    def __init__(self, frames: Iterable[Frame], report: Report | None) -> None:
        self._frames = frames
        self._report = report
        self.count = 0

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._frames:
            self.count += 1
            if self._report is not None:
                self._report(1)
            yield frame


def _decode(video: VideoFile, frames: FrameSettings) -> Iterator[Frame]:
    return read_frames(video.path, short_side=frames.short_side, frame_rate=frames.frame_rate)


def stored(features: np.ndarray, dtype: FeatureType) -> np.ndarray:
    """Return features in the type they are stored in.

    Raises:
        VidkdError: one of them does not fit the type, or is not finite.
    """
    with np.errstate(over="ignore"):  # reported below, with a remedy
        stored = features.astype(dtype)
    if not np.isfinite(stored).all():
        raise VidkdError(
            f"a feature does not fit {dtype}",
            remedy="use --dtype float32, and check the encoder's weights if that fails too",
        )
    return stored


def _write(
    path: Path, provenance: Provenance, blocks: Iterable[Block], dtype: str, frames: _Counted
) -> int:
    remove_leftovers(path)
    blocks = iter(blocks)
    first = next(blocks, None)
    if first is None:
        raise VideoError("has no frames", path=provenance.source.name, remedy="check the file")
    with CacheWriter(path, provenance, first[0].shape[1:], dtype) as writer:
        writer.append(*first)
        for rows, pts in blocks:
            writer.append(rows, pts)
        writer.frame_count = frames.count
    return writer.rows
