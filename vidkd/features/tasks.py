"""One video to one cache file: the order of work that all kinds of extraction share.

Everything streams: a batch of rows is in memory at a time, whatever the video's length.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidkd.cache import (
    Artefact,
    CacheFile,
    CacheWriter,
    Provenance,
    cache_path,
    claim,
    describe_source,
    library_versions,
    remove_leftovers,
    state,
    verify,
)
from vidkd.errors import CacheError, VideoError, VidkdError
from vidkd.files import sha256
from vidkd.recipe import FlowSettings, FrameSettings, ModelCard, Precision
from vidkd.recipe.choices import FeatureType
from vidkd.streams.base import FeatureSettings, Stream, VideoJob, decode, ignore
from vidkd.streams.flow import FLOW_PACKAGES
from vidkd.video import VideoFile, probe
from vidkd.video.watched import Stamp, stamp, unreadable
from vidkd.workers import Feed, Report, Work, here

if TYPE_CHECKING:
    from vidkd.streams.encode import Encoder

Block = tuple[np.ndarray, np.ndarray, Mapping[str, np.ndarray]]
"""Rows (n, ...), their start and end seconds (n, 2), and rows of further datasets by name."""


@dataclass(frozen=True)
class Extraction:
    """What is in the cache after a call.

    Attributes:
        path: the file.
        rows: their number.
        skipped: it had been done before.
        elsewhere: another process is at work on it, and nothing was done.
    """

    path: Path
    rows: int
    skipped: bool
    elsewhere: bool = False


class Task:
    """One kind of extraction with all its settings, picklable, so that other processes can do it.

    Attributes:
        name: of the command.
        artefact: folder of the cache that it writes to.
        dtype: of the rows on disk.
        cache: the cache folder.
        frames: how frames are resized and sampled.
        overwrite: compute again what is stale or damaged, instead of refusing.
    """

    name: str
    artefact: Artefact
    dtype: str
    cache: Path
    frames: FrameSettings
    overwrite: bool

    def path(self, video: VideoFile) -> Path:
        """Return the cache file of a video."""
        return cache_path(self.cache, self.artefact, video.key)

    def check_inputs(self, video: VideoFile) -> None:
        """Raise VidkdError when what the video needs beside itself is missing."""

    def provenance(self, video: VideoFile) -> Provenance:
        """Return what the cache file of a video is expected to say; reads the whole video."""
        raise NotImplementedError

    def fed(self, feed: Feed) -> Work | None:
        """Return the task with everything but its network computed by ``feed``.

        Such a task may be called in several threads of a process. None for one that cannot be
        divided, or has no network.
        """
        return None

    def blocks(
        self, video: VideoFile, made: Mapping[str, Any], report: Report, threads: int
    ) -> Iterator[Block]:
        """Compute the rows of a video; see ``__call__``.

        Args:
            video: the video and its key.
            made: settings of its provenance.
            report: called for every frame; the sum is the number of frames.
            threads: to use.
        """
        raise NotImplementedError

    def __call__(
        self, video: VideoFile, report: Report = ignore, threads: int = 1, /
    ) -> Extraction:
        """Extract one video, unless that is done or somebody is at it.

        Args:
            video: the video and its key.
            report: called with the number of frames done since the last call.
            threads: processor threads to use.

        Raises:
            VideoError: the video cannot be decoded, or changed meanwhile.
            CacheError: the cache holds a stale or damaged file and ``overwrite`` is off, or what
                the rows are computed from is missing or was made with other settings.
            VidkdError: the cache cannot be written.
        """
        path, before = self.path(video), stamp(video.path)
        provenance = self.provenance(video)
        with claim(path) as own:
            if not own:
                return Extraction(path, 0, False, elsewhere=True)
            return self._extract(video, before, provenance, report, threads)

    def _extract(
        self,
        video: VideoFile,
        before: Stamp,
        provenance: Provenance,
        report: Report,
        threads: int,
    ) -> Extraction:
        path = self.path(video)
        done = finished_rows(path, provenance, overwrite=self.overwrite)
        if done is not None:
            return Extraction(path, done, True)
        frames = 0.0

        def count(amount: float) -> None:
            nonlocal frames
            frames += amount
            report(amount)

        remove_leftovers(path)
        blocks = self.blocks(video, provenance.settings, count, threads)
        first = next(blocks, None)
        if first is None:
            raise VideoError("has no frames", path=video.path.name, remedy="check the file")
        more = {name: (rows.shape[1:], rows.dtype) for name, rows in first[2].items()}
        with CacheWriter(path, provenance, first[0].shape[1:], self.dtype, more) as writer:
            writer.append(*first)
            for block in blocks:
                writer.append(*block)
            if stamp(video.path) != before:
                _check_unchanged(video, provenance)
            writer.frame_count = round(frames)
        return Extraction(path, writer.rows, False)


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


def _check_unchanged(video: VideoFile, provenance: Provenance) -> None:
    """Raise VideoError if a video that was written to meanwhile is not the one described."""
    # Somebody may only have touched it, or copied the same content over it.
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


@dataclass(frozen=True)
class FlowTask(Task):
    """``extract-flow``: TV-L1 flow into ``CACHE/flow/KEY.h5``, one row for each frame.

    Row i is the flow from frame i to frame i + 1, (H, W, 2) uint8, quantised; the last row
    repeats the one before, so that flow and RGB have the same number of snippets.

    Attributes:
        frames: the resize, which happens before flow is computed, and the sampling.
        flow: the algorithm's settings.
        device: where the backend torch computes, and what the backend ``auto`` depends on.
    """

    cache: Path
    frames: FrameSettings
    flow: FlowSettings
    device: str = "cpu"
    overwrite: bool = False

    name = "extract-flow"
    artefact = "flow"
    dtype = "uint8"

    def provenance(self, video: VideoFile) -> Provenance:
        """Return what the cache file of a video is expected to say."""
        from vidkd.flow import flow_settings

        return Provenance(
            artefact=self.artefact,
            source=describe_source(video.path, probe(video.path)),
            settings={
                "frames": self.frames.model_dump(),
                "flow": flow_settings(self.flow, self.device),
            },
            versions=library_versions("av", "h5py", "numpy", *FLOW_PACKAGES),
        )

    def blocks(
        self, video: VideoFile, made: Mapping[str, Any], report: Report, threads: int
    ) -> Iterator[Block]:
        """Compute the flow of a video."""
        from vidkd.flow import flow_rows

        frames = decode(video.path, self.frames, report)
        for row in flow_rows(frames, self.flow, threads, self.device):
            yield row.image[None], np.array([[row.start, row.end]]), {}


LoadEncoder = Callable[[str, str], "Encoder"]
"""Takes a name and a device, like ``vidkd.networks.load_encoder``."""


@dataclass(frozen=True)
class StreamLoader:
    """Loads encoders of a stream in one precision."""

    stream: Stream
    precision: Precision = "auto"

    def __call__(self, name: str, device: str) -> Encoder:
        """Load the encoder called ``name``."""
        return self.stream.load_encoder(name, device, self.precision)


@dataclass(frozen=True)
class FeatureTask(Task):
    """``extract-features``: the snippets of a stream, encoded, one row for each; (T, D).

    Attributes:
        settings: how features are made.
        card: of the encoder.
        weights_sha256: hash of its weights.
        load: loads it; each process does so once.
        more: what else the provenance says of the encoder.
        feed: computes the snippets; the network is computed here.
    """

    cache: Path
    settings: FeatureSettings
    card: ModelCard
    weights_sha256: str
    load: LoadEncoder
    more: Mapping[str, Any] = field(default_factory=dict)
    overwrite: bool = False
    feed: Feed = here

    name = "extract-features"
    artefact = "features"

    @property
    def dtype(self) -> FeatureType:  # type: ignore[override]
        """Type of the features on disk."""
        return self.settings.dtype

    @property
    def frames(self) -> FrameSettings:  # type: ignore[override]
        """How frames are resized and sampled."""
        return self.settings.frames

    def _job(self, video: VideoFile) -> VideoJob:
        return VideoJob(video, self.cache, self.settings, self.card)

    def path(self, video: VideoFile) -> Path:
        """Return the cache file of a video."""
        return self._job(video).path

    def check_inputs(self, video: VideoFile) -> None:
        """Raise CacheError when flow or poses are needed, and the cache has none."""
        self.settings.stream.check_inputs(video, self.cache)

    def provenance(self, video: VideoFile) -> Provenance:
        """Return what the cache file of a video is expected to say."""
        settings, stream = self.settings, self.settings.stream
        source = describe_source(video.path, probe(video.path))
        made: dict[str, Any] = {
            "modality": stream.name,
            "frames": settings.frames.model_dump(),
            "snippet": settings.snippet.model_dump(),
            "dtype": settings.dtype,
            **({"crop": settings.crop} if stream.crops else {}),
            **({"input": changed} if (changed := self.card.preprocessing()) else {}),
            **self.more,
            **stream.provenance(self._job(video), source),
        }
        return Provenance(
            artefact=self.artefact,
            source=source,
            settings=made,
            encoder=self.card.name,
            weights_sha256=self.weights_sha256,
            versions=library_versions(*stream.packages()),
        )

    def fed(self, feed: Feed) -> Work | None:
        """See :meth:`Task.fed`; flow that is computed on a GPU stays beside the encoder."""
        return replace(self, feed=feed) if self.settings.stream.on_processor else None

    def blocks(
        self, video: VideoFile, made: Mapping[str, Any], report: Report, threads: int
    ) -> Iterator[Block]:
        """Encode the snippets of a video."""
        import torch

        from vidkd.streams.encode import encode

        torch.set_num_threads(threads)
        settings, stream = self.settings, self.settings.stream
        encoder = _loaded(self.load, settings.encoder, settings.device)
        device = encoder.device
        job = replace(self._job(video), made=made, device=str(device), threads=threads)
        size = settings.batch_size or stream.batch_sizes[device.type == "cuda"]
        prepare = stream.prepare(self.card, device, made)
        batches = self.feed(functools.partial(_batches, job, size), report)
        # What feeds is ahead by itself, and many videos may be under way.
        ahead = 2 if self.feed is here else 0
        for features, pts in encode(batches, encoder, prepare, ahead):
            yield _stored(features, settings.dtype), pts, {}


def _batches(job: VideoJob, size: int, report: Report) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return job.settings.stream.batches(replace(job, report=report), size)


_loading = threading.Lock()


def _loaded(load: LoadEncoder, name: str, device: str) -> Encoder:
    # The cache alone would let two threads load at once.
    with _loading:
        return _load_once(load, name, device)


@functools.cache
def _load_once(load: LoadEncoder, name: str, device: str) -> Encoder:
    return load(name, device)


def _stored(features: np.ndarray, dtype: FeatureType) -> np.ndarray:
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


def feature_task(
    cache: Path,
    settings: FeatureSettings,
    *,
    overwrite: bool = False,
    load: LoadEncoder | None = None,
) -> FeatureTask:
    """Check the encoder and return the task.

    Args:
        cache: the cache folder.
        settings: how features are made.
        overwrite: compute again what is stale or damaged.
        load: replaces the loading of the stream's encoders; picklable for worker processes.

    Raises:
        UsageError: the encoder is unknown, or does not fit the stream or the crop.
        WeightsError: the encoder's weights are missing or damaged.
    """
    stream, name, precision = settings.stream, settings.encoder, settings.precision
    half = precision == "float16"
    if load is None:
        from vidkd.networks import device_name

        load = StreamLoader(stream, precision)
        # What cannot work is told once, not for every video.
        place = device_name(settings.device)
        settings = replace(settings, stream=stream.on(place))
        if half and place == "cpu":
            load(name, settings.device)
        # The workers load the network.
        found = stream.describe_encoder(name, "float32" if half else precision)
        if found.precision == "int8" and settings.device != "auto":
            load(name, settings.device)
    else:
        settings = replace(settings, stream=stream.on("cpu"))
        found = load(name, "cpu")
    settings = settings.completed(found.card)
    assert settings.crop is not None
    stream.check(found.card, settings.frames, settings.crop, settings.snippet)
    more = {"precision": "float16"} if half else {}
    more |= stream.encoder_settings(found)
    return FeatureTask(cache, settings, found.card, found.weights_sha256, load, more, overwrite)
