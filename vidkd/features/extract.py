"""One video to one cache file: optical flow, or the features an encoder makes of snippets.

Everything streams: a batch of snippets is in memory at a time, whatever the video's length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidkd.cache import (
    CacheFile,
    CacheWriter,
    Provenance,
    cache_path,
    remove_leftovers,
    state,
    verify,
)
from vidkd.errors import CacheError, UsageError, VideoError, VidkdError
from vidkd.features.described import FeatureType, feature_provenance, flow_provenance
from vidkd.files import sha256
from vidkd.recipe import FlowSettings, FrameSettings, Modality, ModelCard, SnippetSettings
from vidkd.video import Frame, VideoFile, read_frames
from vidkd.video.watched import Stamp, stamp, unreadable

if TYPE_CHECKING:
    from vidkd.streams.encode import Encoder

Report = Callable[[float], None]
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
    device: str = "cpu",
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
        device: where the backend torch computes, and what the backend ``auto`` depends on.
        overwrite: compute again what is stale or damaged, instead of refusing.
        report: called with the number of frames done since the last call.

    Raises:
        VideoError: the video cannot be decoded, or changed meanwhile.
        CacheError: the cache holds a stale or damaged file and ``overwrite`` is off.
        VidkdError: the cache cannot be written.
    """
    from vidkd.flow import flow_rows

    path = cache_path(cache, "flow", video.key)
    before = stamp(video.path)
    provenance = flow_provenance(video, frames, flow, device)
    rows = finished_rows(path, provenance, overwrite=overwrite)
    if rows is not None:
        return Extraction(path, rows, True)
    decoded = _Counted(_decode(video, frames), report)
    fields = flow_rows(decoded, flow, threads, device)
    blocks = ((row.image[None], np.array([[row.start, row.end]])) for row in fields)
    checked = of_one_video(blocks, video, before, provenance)
    rows = _write(path, provenance, checked, "uint8", decoded)
    return Extraction(path, rows, False)


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
    flow_cache: bool = True,
    threads: int = 1,
    overwrite: bool = False,
    report: Report | None = None,
) -> Extraction:
    """Encode the snippets of one video into ``CACHE/features/ENCODER/KEY.h5``, (T, D).

    Args:
        video: the video and its key.
        cache: the cache folder; for the modality flow it must hold the video's flow, unless
            ``flow_cache`` is off.
        modality: ``rgb`` or ``flow``.
        encoder: the network.
        frames: resize and sampling; for flow, those the flow was computed with.
        snippet: length and stride in frames.
        crop: side in pixels of the square cut from the middle of every frame.
        batch_size: snippets encoded at once.
        dtype: type of the features on disk.
        flow: settings the cached flow must have; None accepts the cached flow as it is.
        flow_cache: off computes the flow from the video, with the settings ``flow`` or the
            defaults, and keeps none of it. Features and provenance are those that the same flow
            in the cache gives.
        threads: processor threads that compute flow.
        overwrite: compute again what is stale or damaged, instead of refusing.
        report: called with the number of frames done since the last call.

    Raises:
        UsageError: modality, crop and encoder do not fit each other.
        VideoError: the video cannot be decoded, or changed meanwhile.
        CacheError: the cache holds a stale or damaged file and ``overwrite`` is off, or the
            flow is missing or was computed with other settings.
        VidkdError: the cache cannot be written.
    """
    from vidkd.streams.encode import encode

    check_encoder(encoder.card, modality, frames, crop, snippet)
    path = cache_path(cache, "features", video.key, encoder.card.name)
    before = stamp(video.path)
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
        flow_cache=flow_cache,
        device=str(encoder.device),
    )
    rows = finished_rows(path, provenance, overwrite=overwrite)
    if rows is not None:
        return Extraction(path, rows, True)
    bound = None
    if modality == "flow" and flow_cache:
        source = _Counted(cached_flow(cache_path(cache, "flow", video.key)), report)
    else:
        source = _Counted(_decode(video, frames), report)
    images: Iterable[Frame] = source
    if modality == "flow":
        bound = float(provenance.settings["flow"]["bound"])
        if not flow_cache:
            from vidkd.flow import flow_rows

            images = flow_rows(source, flow or FlowSettings(), threads, str(encoder.device))
    blocks = (
        (stored(features, dtype), pts)
        for features, pts in encode(images, encoder, snippet, crop, batch_size, bound)
    )
    checked = of_one_video(blocks, video, before, provenance)
    return Extraction(path, _write(path, provenance, checked, dtype, source), False)


def check_encoder(
    card: ModelCard, modality: Modality, frames: FrameSettings, crop: int, snippet: SnippetSettings
) -> None:
    """Refuse what cannot work for any video.

    Raises:
        UsageError: the encoder is for another modality or other clips, or frames are smaller than
            the crop.
    """
    if card.modality != modality:
        raise UsageError(
            f"the encoder {card.name} is for {card.modality}, not for {modality}",
            remedy="choose another --encoder or --modality",
        )
    for what, value, (low, high) in (
        ("frames", snippet.length, card.lengths),
        ("pixels", crop, card.crops),
    ):
        if not low <= value <= high:
            allowed = str(low) if low == high else f"{low} to {high}"
            raise UsageError(
                f"{card.name} takes clips of {allowed} {what}, not {value}",
                remedy="leave the length and --crop to the model's card",
            )
    if frames.short_side < crop:
        raise UsageError(
            f"frames of short side {frames.short_side} are smaller than the crop of {crop}",
            remedy="choose a larger --short-side or a smaller --crop",
        )


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


def of_one_video(
    blocks: Iterable[Block], video: VideoFile, before: Stamp, provenance: Provenance
) -> Iterator[Block]:
    """Pass blocks on, and refuse at their end if the video is no longer the one described.

    Args:
        blocks: made from the video.
        video: the video.
        before: its stamp from before ``provenance`` was made.
        provenance: what the blocks will be kept with.

    Raises:
        VideoError: the file was replaced or written to meanwhile, or is gone.
    """
    yield from blocks
    check_unchanged(video, before, provenance)


def check_unchanged(video: VideoFile, before: Stamp, provenance: Provenance) -> None:
    """Raise VideoError if a video is not the one described any more; see ``of_one_video``."""
    if stamp(video.path) == before:
        return
    # Somebody may have touched it, or copied the same content over it.
    try:
        same = sha256(video.path) == provenance.source.sha256
    except OSError as error:
        raise unreadable(video.path, error) from error
    if not same:
        raise VideoError(
            "changed while it was read",
            path=video.path,
            remedy="run the same command again when nobody writes to it",
        )


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
    path: Path,
    provenance: Provenance,
    blocks: Iterable[Block],
    dtype: str,
    frames: _Counted,
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
