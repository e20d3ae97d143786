"""Labelled snippets: where they lie, which ones an epoch takes, and how they are read.

Which snippets an epoch takes, and how they are cropped and flipped, is drawn beforehand from the
seed and the number of the epoch, so that neither the number of processes nor that of reading
workers changes what is trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from torch.utils.data import DataLoader

from vidkd.annotations import VideoAnnotation, snippet_targets
from vidkd.cache import CacheFile
from vidkd.errors import AnnotationError, VideoError
from vidkd.recipe import FrameSettings, SnippetSettings
from vidkd.streams.encode import centre_crop
from vidkd.video import clip_frames, probe, read_frames, snippet_pts

_TIME_HAIR = 1e-4


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
        """Return the clip (length, H, W, C) uint8 of the row that begins at a frame, and the
        true start and end second of the row."""


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
    """RGB frames of a video, decoded from any second.

    ``pts`` follow from the frame rate, and only choose where to read; the times that labels are
    looked up with are those of the frames that were decoded.
    """

    path: Path
    frames: FrameSettings
    pts: np.ndarray

    @staticmethod
    def open(path: Path, frames: FrameSettings, duration: float | None) -> VideoSource:
        """Describe a video.

        Args:
            path: the video.
            frames: resize and sampling.
            duration: seconds according to the annotations, for containers that do not say.

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
        return VideoSource(path, frames, np.stack([starts, starts + 1 / rate], axis=1))

    def read(self, frame: int, snippet: SnippetSettings) -> tuple[np.ndarray, tuple[float, float]]:
        """Return the clip (length, H, W, 3) uint8, and the start and end second of its row.

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
            begin = max(0.0, float(self.pts[first, 0]) - _TIME_HAIR)
        images: list[np.ndarray] = []
        times: list[tuple[float, float]] = []
        reader = read_frames(
            self.path,
            short_side=self.frames.short_side,
            frame_rate=self.frames.frame_rate,
            start=begin,
        )
        for item in reader:
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


@dataclass(frozen=True)
class LabelledVideo:
    """A video with its annotation."""

    source: Source
    annotation: VideoAnnotation


class SnippetReader:
    """Reads clips of videos; picklable, so that worker processes can do it.

    Args:
        videos: what :attr:`Clip.video` counts.
        classes: names of the K classes.
        snippet: rows and their clips.
        crop: side of the square in pixels.
        flow: whether the frames are quantised flow, whose horizontal part changes sign when
            mirrored.
    """

    def __init__(
        self,
        videos: Sequence[LabelledVideo],
        classes: Sequence[str],
        snippet: SnippetSettings,
        crop: int,
        flow: bool,
    ) -> None:
        self._videos = tuple(videos)
        self._classes = tuple(classes)
        self._snippet = snippet
        self._crop = crop
        self._flow = flow

    def __getitem__(self, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        """Return (length, crop, crop, C) uint8 and the labels (K,) float32."""
        video = self._videos[clip.video]
        images, times = video.source.read(clip.frame, self._snippet)
        targets = snippet_targets(video.annotation, self._classes, np.array([times]))[0]
        return augment(images, clip, self._crop, self._flow), targets


def augment(images: np.ndarray, clip: Clip, crop: int, flow: bool) -> np.ndarray:
    """Crop and flip (T, H, W, C) uint8 as the clip says; (T, crop, crop, C).

    Raises:
        VidkdError: the images are smaller than the crop.
    """
    if clip.across is None or clip.down is None:
        images = np.stack([centre_crop(image, crop) for image in images])
    else:
        height, width = images.shape[1:3]
        centre_crop(images[0], crop)  # refuses what is too small
        top = min(int(clip.down * (height - crop + 1)), height - crop)
        left = min(int(clip.across * (width - crop + 1)), width - crop)
        images = images[:, top : top + crop, left : left + crop]
    if clip.flip:
        images = images[:, :, ::-1].copy()
        if flow:
            # 128 is zero motion and 1..255 lie around it: 256 - q is the opposite motion.
            images[..., 0] = 256 - images[..., 0].astype(np.int16)
    return np.ascontiguousarray(images)


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
