"""Encoders of frames, trained further on snippets that are read in the background."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader

from vidkd.annotations import VideoAnnotation, snippet_targets
from vidkd.cache import CacheFile
from vidkd.errors import UsageError, VideoError
from vidkd.files import sha256
from vidkd.finetuning.network import Tuned, recalibrate, replace_head, stages_until
from vidkd.finetuning.snippets import (
    Batches,
    Clip,
    EncoderInTraining,
    LabelledData,
    LabelledVideo,
    Source,
    divided,
    labelled_videos,
    load_cached,
)
from vidkd.keys import KeyIndex
from vidkd.networks import find_card, load_network
from vidkd.networks.weights import state_sha256, without_counts
from vidkd.recipe import FrameSettings, ModelCard, SnippetSettings
from vidkd.recipe.jobs import FinetuneJob
from vidkd.streams import RGB, STREAMS, Stream
from vidkd.video import clip_frames, find_videos, probe, read_frames

_TOLERANCE = 1e-4
_CALIBRATION_SNIPPETS = 128
_CALIBRATION_BATCH = 16


@dataclass(frozen=True)
class FlowSource:
    """Flow in a cache file; it is opened for every read, as workers cannot share open files."""

    path: Path
    pts: np.ndarray

    def read(self, frame: int, snippet: SnippetSettings) -> tuple[np.ndarray, tuple[float, float]]:
        """Return the clip (length, H, W, 2) uint8, and the start and end second of its row.

        Raises:
            CacheError: the file is damaged.
        """
        numbers = clip_frames(frame, snippet).clip(0, len(self.pts) - 1)
        with CacheFile(self.path) as file:
            rows = file.rows(int(numbers[0]), int(numbers[-1]) + 1)
        last = min(frame + snippet.row_length, len(self.pts)) - 1
        times = float(self.pts[frame, 0]), float(self.pts[last, 1])
        return rows[numbers - numbers[0]], times


@dataclass(frozen=True)
class VideoSource:
    """Rows of a stream of RGB frames, decoded from any second.

    ``pts`` follow from the frame rate, and only choose where to read; the times that labels are
    looked up with are those of the frames that were decoded.
    """

    path: Path
    frames: FrameSettings
    pts: np.ndarray
    stream: Stream = RGB

    @staticmethod
    def open(
        path: Path, frames: FrameSettings, duration: float | None, stream: Stream = RGB
    ) -> VideoSource:
        """Describe a video.

        Args:
            path: the video.
            frames: resize and sampling.
            duration: seconds according to the annotations, for containers that do not say.
            stream: what is made of its frames.

        Raises:
            VideoError: it cannot be opened, or nobody knows how long it is.
        """
        info = probe(path)
        rate = frames.frame_rate or float(info.frame_rate)
        seconds = info.duration or duration
        if seconds is None and info.frame_count:
            seconds = info.frame_count / float(info.frame_rate)
        if not seconds:
            raise VideoError(
                "does not say how long it is",
                path=path,
                remedy="give durations in the annotations, or remux the file",
            )
        starts = np.arange(max(1, int(seconds * rate))) / rate
        return VideoSource(path, frames, np.stack([starts, starts + 1 / rate], axis=1), stream)

    def read(self, frame: int, snippet: SnippetSettings) -> tuple[np.ndarray, tuple[float, float]]:
        """Return the clip (length, H, W, 3), and the start and end second of its row.

        Raises:
            VideoError: it cannot be decoded there.
        """
        numbers = clip_frames(frame, snippet)
        first = max(0, min(frame, int(numbers[0])))
        count = max(frame + snippet.row_length, int(numbers[-1]) + 1) - first
        if self.frames.frame_rate is None:
            # The middle of the frame, so that rounding never takes in the frame before.
            begin = float(self.pts[first].mean())
        else:
            begin = max(0.0, float(self.pts[first, 0]) - _TOLERANCE)
        images: list[np.ndarray] = []
        times: list[tuple[float, float]] = []
        reader = read_frames(
            self.path,
            short_side=self.frames.short_side,
            frame_rate=self.frames.frame_rate,
            start=begin,
        )
        for item in self.stream.rows(reader):
            images.append(item.image)
            times.append((item.start, item.end))
            if len(images) == count:
                break
        if len(images) <= frame - first:
            if frame == 0:
                raise VideoError("has no frames", path=self.path, remedy="check the file")
            # The container promised more than there is: the row before is nearest.
            return self.read(max(0, frame - snippet.row_length), snippet)
        clip = np.stack([images[i] for i in (numbers - first).clip(0, len(images) - 1)])
        last = min(frame - first + snippet.row_length, len(images)) - 1
        return clip, (times[frame - first][0], times[last][1])


def load_frames(job: FinetuneJob) -> LabelledData:
    """Find the videos of the annotations, or what is cached of them.

    Raises:
        AnnotationError: the annotations cannot be read, or lack a subset.
        UsageError: a video is missing.
        CacheError: flow is damaged, or was not computed alike for all videos.
        VideoError: a video cannot be opened.
    """
    stream = STREAMS[job.modality]
    option, given = ("--videos", job.videos) if stream.artefact is None else ("--cache", job.cache)
    if given is None:
        raise UsageError(f"{stream.name} needs {option}", remedy="see --help")
    if stream.artefact is not None:
        data = load_cached(
            job,
            stream,
            lambda provenance: dict(provenance.settings),
            lambda file: FlowSource(file.path, file.pts),
        )
    else:
        assert job.videos is not None
        files = KeyIndex({item.key: item.path for item in find_videos([job.videos])}, job.videos)
        frames = FrameSettings(short_side=job.short_side, frame_rate=job.frame_rate)
        sizes: dict[str, int] = {}

        def find(video: VideoAnnotation) -> Source:
            path = files.require(video.id, "file", "check --videos and the annotations")
            sizes[video.id] = path.stat().st_size
            return VideoSource.open(path, frames, video.duration, stream)

        videos = labelled_videos(job, find)
        identity = {"video_bytes": sizes, "annotations_sha256": sha256(job.annotations)}
        data = LabelledData(*videos, frames, {}, identity)
    return data


class SnippetReader:
    """Reads clips of videos; picklable, so that worker processes can do it.

    Args:
        videos: what :attr:`Clip.video` counts.
        classes: names of the K classes.
        snippet: rows and their clips.
        crop: side of the square in pixels.
        stream: what the frames are.
    """

    def __init__(
        self,
        videos: Sequence[LabelledVideo],
        classes: Sequence[str],
        snippet: SnippetSettings,
        crop: int,
        stream: Stream,
    ) -> None:
        self._videos = tuple(videos)
        self._classes = tuple(classes)
        self._snippet = snippet
        self._crop = crop
        self._stream = stream

    def __getitem__(self, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        """Return (length, crop, crop, C) as stored, and the labels (K,) float32."""
        video = self._videos[clip.video]
        images, times = video.source.read(clip.frame, self._snippet)
        targets = snippet_targets(video.annotation, self._classes, np.array([times]))[0]
        return augment(images, clip, self._crop, self._stream), targets


def augment(images: np.ndarray, clip: Clip, crop: int, stream: Stream) -> np.ndarray:
    """Crop and flip (T, H, W, C) as the clip says; (T, crop, crop, C).

    Raises:
        VidkdError: the images are smaller than the crop.
    """
    place = None if clip.across is None or clip.down is None else (clip.across, clip.down)
    images = stream.crop(images, crop, place)
    if clip.flip:
        images = stream.mirrored(images)
    return np.ascontiguousarray(images)


class Loader:
    """Reads lists of clips, in the background when there are workers.

    Args:
        reader: reads one clip.
        workers: processes; 0 reads in this one.
    """

    def __init__(self, reader: SnippetReader, workers: int) -> None:
        self._batches = _Batches()
        # Clips are the indices of the reader, which is all that a data set needs to be.
        self._loader: DataLoader[Any] = DataLoader(
            cast("Any", reader),
            batch_sampler=cast("Any", self._batches),
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            # Video libraries start threads, which a fork would not take along.
            multiprocessing_context="spawn" if workers else None,
        )

    def __call__(self, lists: list[list[Clip]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (B, T, S, S, C) uint8 and (B, K) for each list."""
        self._batches.lists = lists
        return iter(self._loader)


class _Batches:
    """Lists of clips that can be set before every pass, while the reading workers stay alive."""

    def __init__(self) -> None:
        self.lists: list[list[Clip]] = []

    def __iter__(self) -> Iterator[list[Clip]]:
        return iter(self.lists)

    def __len__(self) -> int:
        return len(self.lists)


def collate(items: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Stack snippets to (B, T, S, S, C) and labels to (B, K)."""
    images, targets = zip(*items, strict=True)
    return np.stack(images), np.stack(targets)


class FrameEncoder(EncoderInTraining):
    """An encoder of frames (RGB, their differences, flow), trained further from one that exists.

    Raises:
        UsageError: the encoder is for something else, or for other clips.
        AnnotationError, CacheError, VideoError, WeightsError: see ``train_encoder``.
    """

    job: FinetuneJob
    seed_stride = 4096

    def __init__(self, job: FinetuneJob) -> None:
        self._stream = stream = STREAMS[job.modality]
        start = job.encoder or stream.first_encoder()
        card = find_card(start)
        # What was not chosen is the card's.
        own = {name: getattr(card, name) for name in ("snippet", "crop")}
        own = {name: value for name, value in own.items() if name not in job.model_fields_set}
        self.job = job = job.model_copy(update={**own, "encoder": start})
        self.data = load_frames(job)
        stream.check(card, self.data.frames, job.crop, job.snippet)
        self._start, card = load_network(start)
        stages_until(self._start, job.freeze_until)
        digest = state_sha256(without_counts(self._start.state_dict()))
        self.recipe = {**job.recipe(), "start": {"card": card.name, "weights_sha256": digest}}
        self.about = {"start": start}
        self.card = trained_card(job, card, self.data)
        self.accumulate, self.precision = job.accumulate, job.precision
        self.most_validated = job.validation_snippets
        self._training, self._validation = (
            Loader(
                SnippetReader(videos, self.data.classes, job.snippet, job.crop, self._stream),
                job.workers,
            )
            for videos in (self.data.training, self.data.validation)
        )

    def start(self, device: torch.device) -> None:
        """Give the network a new head, and freeze what is to stay as it is."""
        job, self._device = self.job, device
        replace_head(self._start, len(self.data.classes), job.dropout, job.seed)
        self.network = self._start.to(device)
        self.model = tuned = Tuned(self._start, job.freeze_until, job.batch_norm)
        self.groups = tuned.groups(job.learning_rate)

    def prepare(self, draw: Callable[[int, np.random.Generator], list[Clip]]) -> None:
        """Recalibrate; every process does the same, so that all begin with the same numbers."""
        if self.job.batch_norm == "recalibrate":
            rng = np.random.default_rng([self.job.seed, 0])
            lists = divided(draw(_CALIBRATION_SNIPPETS, rng), _CALIBRATION_BATCH)
            recalibrate(self._start, (inputs for inputs, _ in self.batches(lists, rng)))

    def batches(self, parts: list[list[Clip]], rng: np.random.Generator | None) -> Batches:
        """Read in the background; all that is random is in the clips."""
        prepare = self._stream.prepare(self.card, self._device, self.data.made)
        for images, targets in (self._validation if rng is None else self._training)(parts):
            yield prepare(images), torch.from_numpy(targets).to(self._device)


def trained_card(job: FinetuneJob, start: ModelCard, data: LabelledData) -> ModelCard:
    """Return the model card of the encoder that a run trains."""
    return start.model_copy(
        update={
            "name": job.card_name,
            "description": f"{start.name}, fine-tuned by vidkd on {len(data.training)} videos of "
            f"{len(data.classes)} classes",
            "classes": None,
            "frames": data.frames,
            "snippet": job.snippet,
            "crop": job.crop,
            "weights": (),
            "licence": f"as {start.name}, and the terms of the training videos",
            "source": "vidkd train-encoder",
            "reference": None,
        }
    )
