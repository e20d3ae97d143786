"""Labelled snippets, whatever they are made of: the videos they lie in, and which an epoch takes.

Which snippets an epoch takes, and how they are cropped and flipped, is drawn beforehand from the
seed and the number of the epoch, so that neither the number of processes nor that of reading
workers changes what is trained on.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vidkd.annotations import VideoAnnotation, load_annotations, snippet_targets
from vidkd.cache import CacheFile, Provenance, cache_files
from vidkd.errors import AnnotationError, CacheError
from vidkd.files import sha256
from vidkd.recipe import FrameSettings, ModelCard, SnippetSettings
from vidkd.recipe.choices import TrainingPrecision
from vidkd.recipe.jobs import FinetuneJob, PoseEncoderJob
from vidkd.streams import Stream
from vidkd.video import snippet_pts


class Clip(NamedTuple):
    """One snippet to read.

    Attributes:
        video: number of the video.
        frame: number of the first frame of its row.
        across: place of the crop between the left (0) and the right (1); None for the centre.
        down: the same between top and bottom.
        flip: mirror it.
    """

    video: int
    frame: int
    across: float | None = None
    down: float | None = None
    flip: bool = False


class Source(Protocol):
    """Frames of one video by number."""

    @property
    def pts(self) -> np.ndarray:
        """(N, 2) start and end second of every frame, as far as known without decoding."""

    def read(self, frame: int, snippet: SnippetSettings) -> tuple[np.ndarray, tuple[float, float]]:
        """Return the clip of the row that begins at a frame, and the row's start and end second."""


@dataclass(frozen=True)
class LabelledVideo:
    """A video with its annotation."""

    source: Source
    annotation: VideoAnnotation


@dataclass(frozen=True)
class LabelledData:
    """The videos of both subsets.

    Attributes:
        classes: names of the K classes.
        training: videos to train on.
        validation: videos to validate on.
        frames: how the frames were made; of what is cached, as the cache says.
        made: settings of the provenance of what is cached; empty for videos.
        identity: hashes of what is trained on, as JSON values.
    """

    classes: tuple[str, ...]
    training: list[LabelledVideo]
    validation: list[LabelledVideo]
    frames: FrameSettings
    made: dict[str, Any]
    identity: dict[str, Any]


Job = FinetuneJob | PoseEncoderJob


def labelled_videos(
    job: Job, find: Callable[[VideoAnnotation], Source]
) -> tuple[tuple[str, ...], list[LabelledVideo], list[LabelledVideo]]:
    """Return the classes, and the videos to train and to validate on.

    Raises:
        AnnotationError: the annotations cannot be read, or lack a subset.
    """
    annotations = load_annotations(job.annotations, job.annotation_format).actions()
    names = (job.subsets.training, job.subsets.validation)
    training, validation = (
        [LabelledVideo(find(video), video) for video in subset.videos.values()]
        for subset in [annotations.subset(name) for name in names]
    )
    return annotations.classes, training, validation


def load_cached(
    job: Job,
    stream: Stream,
    settings_of: Callable[[Provenance], dict[str, Any]],
    source: Callable[[CacheFile], Source],
) -> LabelledData:
    """Find what is cached of the annotated videos.

    Args:
        job: names annotations and cache.
        stream: whose artefact is read.
        settings_of: those that must be alike in all files.
        source: reads one file.

    Raises:
        AnnotationError: the annotations cannot be read, or lack a subset.
        UsageError: a video has no file.
        CacheError: a file is damaged, or was not made like the others.
    """
    assert job.cache is not None
    assert stream.artefact is not None
    files = cache_files(job.cache, stream.artefact)
    command = f"vidkd {stream.command}"
    made: dict[str, Any] = {}
    hashes: dict[str, str] = {}
    paths: list[Path] = []

    def find(video: VideoAnnotation) -> Source:
        path = files.require(
            video.id, str(stream.artefact), f"compute it with `{command} ... --cache {job.cache}`"
        )
        with CacheFile(path) as file:
            settings, hashes[video.id] = settings_of(file.provenance), file.sha256
            paths.append(path)
            made.update(made or settings)
            if settings != made:
                raise CacheError(
                    f"this {stream.artefact} was computed with other settings than {paths[0]}",
                    path=path,
                    remedy=f"run `{command}` with --overwrite on all videos",
                )
            return source(file)

    classes, training, validation = labelled_videos(job, find)
    frames = FrameSettings.model_validate(made["frames"])
    identity = {
        f"{stream.artefact}_settings": made,
        f"{stream.artefact}_sha256": hashes,
        "annotations_sha256": sha256(job.annotations),
    }
    return LabelledData(classes, training, validation, frames, made, identity)


class BalancedSampler:
    """Draws training snippets so that every class, and background, is as frequent as any other.

    Args:
        videos: the training videos.
        classes: names of the K classes.
        snippet: rows and their clips; the stride plays no part.

    Raises:
        AnnotationError: no snippet has a label.
    """

    def __init__(
        self, videos: Sequence[LabelledVideo], classes: Sequence[str], snippet: SnippetSettings
    ):
        # A quarter of a row apart: fine enough to begin anywhere in an action.
        step = max(1, snippet.row_length // 4)
        snippet = snippet.model_copy(update={"stride": step})
        found: list[list[np.ndarray]] = [[] for _ in range(len(classes) + 1)]
        for number, video in enumerate(videos):
            pts = snippet_pts(video.source.pts, snippet)
            targets = snippet_targets(video.annotation, classes, pts)
            background = targets.max(axis=1, initial=0.0) == 0
            for group, column in enumerate([*(targets.T > 0), background]):
                [windows] = np.nonzero(column)
                found[group].append(
                    np.stack([np.full(len(windows), number), windows * step], axis=1)
                )
        groups = [np.concatenate(item) for item in found]
        if not any(len(group) for group in groups[:-1]):
            raise AnnotationError(
                "no training snippet carries a label",
                remedy="check that the annotations belong to these videos, and their units",
            )
        self.groups = [group for group in groups if len(group)]

    def draw(self, count: int, rng: np.random.Generator) -> list[Clip]:
        """Draw ``count`` clips with random crops and flips."""
        # Every group equally often rather than on average, then in random order.
        order = rng.permutation(np.arange(count) % len(self.groups))
        clips = []
        for group in order:
            video, frame = self.groups[group][rng.integers(len(self.groups[group]))]
            across, down, flip = rng.random(3)
            clips.append(Clip(int(video), int(frame), float(across), float(down), bool(flip < 0.5)))
        return clips


def validation_clips(
    videos: Sequence[LabelledVideo], snippet: SnippetSettings, limit: int
) -> list[Clip]:
    """Return the snippets of the videos, centre-cropped; at most ``limit``, evenly spread."""
    clips = [
        Clip(number, int(frame) * snippet.stride)
        for number, video in enumerate(videos)
        for frame in range(len(snippet_pts(video.source.pts, snippet)))
    ]
    if len(clips) > limit:
        clips = [clips[i] for i in np.linspace(0, len(clips) - 1, limit).round().astype(int)]
    return clips


def divided(clips: list[Clip], size: int) -> list[list[Clip]]:
    """Cut a list into parts of ``size``; the last may be shorter."""
    return [clips[first : first + size] for first in range(0, len(clips), size)]


Batches = Iterator[tuple[Tensor, Tensor]]
"""Inputs, and labels (B, K) in {0, 1}, on the device."""


class EncoderInTraining(ABC):
    """An encoder, and the snippets it is trained on.

    Attributes:
        job: with all that it left open.
        data: the labelled videos.
        recipe: all that decides the result, as JSON values.
        about: what the header of the weights says of the training.
        card: of the trained encoder; this and what follows is there after `start`.
        network: what is saved.
        groups: the parameters that learn, each group with the rate it starts from.
        model: what is trained: maps inputs to logits (B, S, K) of S classifiers side by side.
    """

    job: Job
    data: LabelledData
    recipe: dict[str, Any]
    about: dict[str, Any]
    card: ModelCard
    network: nn.Module
    groups: list[dict[str, Any]]
    model: nn.Module
    accumulate: int = 1
    """Parts in which a process computes its share of a batch."""
    precision: TrainingPrecision = "float32"
    most_validated: int = sys.maxsize
    """Largest number of snippets to validate on."""
    seed_stride: ClassVar[int] = 1
    """Seeds from one epoch to the next; each process takes its own of them."""

    @abstractmethod
    def start(self, device: torch.device) -> None:
        """Make the network, as it is before the first step."""

    def prepare(self, draw: Callable[[int, np.random.Generator], list[Clip]]) -> None:  # noqa: B027
        """Look at training snippets, which ``draw`` draws, before the first step."""

    @abstractmethod
    def batches(self, parts: list[list[Clip]], rng: np.random.Generator | None) -> Batches:
        """Read a batch for each part: of training videos with ``rng``, else of validation videos.

        ``rng`` may vary what is read beyond what the clips say.
        """
