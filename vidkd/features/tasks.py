"""One kind of extraction with all its settings, picklable, so that worker processes can do it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vidkd.cache import Provenance, cache_path
from vidkd.errors import UsageError
from vidkd.features.described import (
    FeatureType,
    feature_provenance,
    flow_provenance,
    missing_flow,
)
from vidkd.features.extract import (
    Extraction,
    check_encoder,
    extract_features,
    extract_flow,
)
from vidkd.recipe import (
    FlowSettings,
    FrameSettings,
    Modality,
    ModelCard,
    Precision,
    SnippetSettings,
)
from vidkd.video import VideoFile
from vidkd.workers import Report

if TYPE_CHECKING:
    from vidkd.streams.encode import Encoder

LoadEncoder = Callable[[str, str], "Encoder"]
"""Takes a name and a device, like ``vidkd.networks.load_encoder``."""


@dataclass(frozen=True)
class ZooLoader:
    """Loads encoders in one precision; equal loaders of one process share what they loaded."""

    precision: Precision = "auto"

    def __call__(self, name: str, device: str) -> Encoder:
        """Load the encoder called ``name``."""
        from vidkd.networks import load_encoder

        return load_encoder(name, device, self.precision)


class Task(Protocol):
    """One kind of extraction with all its settings; picklable."""

    @property
    def name(self) -> str:
        """Name of the command."""

    @property
    def frames(self) -> FrameSettings:
        """The sampling, for the estimate of the work."""

    def path(self, video: VideoFile) -> Path:
        """Return the cache file of a video."""

    def check_inputs(self, video: VideoFile) -> None:
        """Raise CacheError when what the video needs beside itself is missing."""

    def provenance(self, video: VideoFile) -> Provenance:
        """Return what the cache file of a video is expected to say."""

    def __call__(self, video: VideoFile, report: Report, threads: int, /) -> Extraction:
        """Extract one video."""


@dataclass(frozen=True)
class FlowTask:
    """``extract-flow`` with its settings."""

    cache: Path
    frames: FrameSettings
    flow: FlowSettings
    overwrite: bool = False
    name: str = "extract-flow"
    device: str = "cpu"
    """Where the backend torch computes: ``cpu``, ``cuda`` or ``cuda:N``."""

    def path(self, video: VideoFile) -> Path:
        """Return the cache file of a video."""
        return cache_path(self.cache, "flow", video.key)

    def check_inputs(self, video: VideoFile) -> None:
        """Do nothing: flow needs only the video."""

    def provenance(self, video: VideoFile) -> Provenance:
        """Return what the cache file of a video is expected to say."""
        return flow_provenance(video, self.frames, self.flow, self.device)

    def __call__(self, video: VideoFile, report: Report, threads: int, /) -> Extraction:
        """Extract one video."""
        return extract_flow(
            video,
            self.cache,
            self.frames,
            self.flow,
            threads=threads,
            device=self.device,
            overwrite=self.overwrite,
            report=report,
        )


@dataclass(frozen=True)
class FeatureTask:
    """``extract-features`` with its settings; each process loads the encoder once."""

    cache: Path
    modality: Modality
    card: ModelCard
    weights_sha256: str
    load: LoadEncoder
    frames: FrameSettings
    snippet: SnippetSettings
    crop: int
    batch_size: int | None = None
    dtype: FeatureType = "float16"
    device: str = "auto"
    flow: FlowSettings | None = None
    overwrite: bool = False
    name: str = "extract-features"
    encoder: str = ""
    """What to load, when it is not the card's name but the path of a fine-tuned encoder."""
    half: bool = False
    """The features are computed in float16, on a GPU."""
    flow_cache: bool = True
    """Off: flow is computed in the same pass as the features, with a backend that is named."""

    def path(self, video: VideoFile) -> Path:
        """Return the cache file of a video."""
        return cache_path(self.cache, "features", video.key, self.card.name)

    def check_inputs(self, video: VideoFile) -> None:
        """Raise CacheError when features of flow are asked for, and there is no flow."""
        needed = self.modality == "flow" and self.flow_cache
        if needed and not cache_path(self.cache, "flow", video.key).exists():
            raise missing_flow(video, self.cache)

    def provenance(self, video: VideoFile) -> Provenance:
        """Return what the cache file of a video is expected to say."""
        return feature_provenance(
            video,
            self.cache,
            self.card,
            self.weights_sha256,
            self.frames,
            self.snippet,
            self.crop,
            self.dtype,
            self.flow,
            half=self.half,
            flow_cache=self.flow_cache,
        )

    def __call__(self, video: VideoFile, report: Report, threads: int, /) -> Extraction:
        """Extract one video."""
        import torch

        torch.set_num_threads(threads)
        encoder = _loaded(self.load, self.encoder or self.card.name, self.device)
        # Larger batches were not faster on a processor; a GPU needs more of them to be busy.
        default = 32 if encoder.device.type == "cuda" else 4
        return extract_features(
            video,
            self.cache,
            self.modality,
            encoder,
            self.frames,
            self.snippet,
            self.crop,
            self.batch_size or default,
            self.dtype,
            flow=self.flow,
            flow_cache=self.flow_cache,
            threads=threads,
            overwrite=self.overwrite,
            report=report,
        )


@functools.cache
def _loaded(load: LoadEncoder, name: str, device: str) -> Encoder:
    return load(name, device)


def feature_task(
    cache: Path,
    modality: Modality,
    encoder: str,
    frames: FrameSettings,
    snippet: SnippetSettings,
    crop: int,
    batch_size: int | None = None,
    dtype: FeatureType = "float16",
    *,
    device: str = "auto",
    precision: Precision = "auto",
    flow: FlowSettings | None = None,
    flow_cache: bool = True,
    overwrite: bool = False,
    load: LoadEncoder | None = None,
) -> FeatureTask:
    """Check the encoder and return the task; see ``extract_features`` for the settings.

    Raises:
        UsageError: the encoder is unknown, or does not fit the modality or the crop; or
            ``flow_cache`` is off and the modality is not flow.
        WeightsError: the encoder's weights are missing or damaged.
    """
    half = precision == "float16"
    flow_device = "cpu"
    if load is None:
        from vidkd.networks import select_device

        load = ZooLoader(precision)
        # What cannot work is told once, not for every video.
        place = select_device(device)
        flow_device = str(place)
        if half and place.type == "cpu":
            load(encoder, device)
        # On the processor: the workers use the device, this process only needs the weights' hash.
        found = ZooLoader("float32" if half else precision)(encoder, "cpu")
        if found.precision == "int8" and device != "auto":
            load(encoder, device)
    else:
        found = load(encoder, "cpu")
    check_encoder(found.card, modality, frames, crop, snippet)
    if not flow_cache:
        flow = _flow_of_features(modality, flow or FlowSettings(), flow_device)
    return FeatureTask(
        cache,
        modality,
        found.card,
        found.weights_sha256,
        load,
        frames,
        snippet,
        crop,
        batch_size,
        dtype,
        device,
        flow,
        overwrite,
        encoder=encoder,
        half=half,
        flow_cache=flow_cache,
    )


def _flow_of_features(modality: Modality, flow: FlowSettings, device: str) -> FlowSettings:
    """Return the settings of flow that is not kept, with the backend that ``auto`` stands for."""
    from vidkd.flow import resolve

    if modality != "flow":
        raise UsageError(f"features of {modality} need no flow", remedy="leave out --no-flow-cache")
    return flow.model_copy(update={"backend": resolve(flow.backend, device)})
