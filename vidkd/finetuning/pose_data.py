"""From annotations and a pose cache to labelled, varied snippets of poses.

The poses of all videos are kept in memory, some 300 bytes for each frame and person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidkd.annotations import load_annotations, snippet_targets
from vidkd.cache import CacheFile, cache_files
from vidkd.errors import CacheError, UsageError
from vidkd.files import sha256
from vidkd.finetuning.snippets import Clip, LabelledVideo
from vidkd.pose.normalise import lift, mirror, normalise, rotate
from vidkd.pose.poses import load_poses
from vidkd.recipe import FrameSettings, PoseAugmentation, SnippetSettings
from vidkd.recipe.jobs import PoseEncoderJob
from vidkd.skeletons import find_skeleton
from vidkd.streams.pose import cut, pose_settings

Array = np.ndarray


@dataclass(frozen=True)
class PoseSource:
    """The people of one video.

    Attributes:
        joints: (N, M, V, 3), see :func:`vidkd.pose.normalise.lift`.
        tracks: (N, M) number of who is in the slot, -1 for nobody.
        pts: (N, 2) start and end second of every frame.
    """

    joints: Array
    tracks: Array
    pts: Array

    def read(self, frame: int, snippet: SnippetSettings) -> tuple[Array, tuple[float, float]]:
        """Return (M, length, V, 3), and the start and end second of the frames in the video."""
        length = snippet.length
        first = min(max(frame, 0), len(self.pts) - 1)
        last = min(max(frame + length, first + 1), len(self.pts))
        times = (float(self.pts[first, 0]), float(self.pts[last - 1, 1]))
        return cut(self.joints, self.tracks, frame, length), times


@dataclass(frozen=True)
class PoseData:
    """The videos of both subsets.

    Attributes:
        classes: names of the K classes.
        training: videos to train on.
        validation: videos to validate on.
        frames: how the frames were made that the poses were found in.
        identity: hashes of what is trained on, as JSON values.
    """

    classes: tuple[str, ...]
    training: list[LabelledVideo]
    validation: list[LabelledVideo]
    frames: FrameSettings
    identity: dict[str, Any]

    @staticmethod
    def load(job: PoseEncoderJob) -> PoseData:
        """Find and read the poses of the annotated videos.

        Raises:
            AnnotationError: the annotations cannot be read, or lack a subset.
            UsageError: the poses of a video are missing, or have not the dimensions asked for.
            CacheError: poses are damaged, or were not computed alike for all videos.
        """
        annotations = load_annotations(job.annotations, job.annotation_format).actions()
        files = cache_files(job.cache, "pose")
        if not files.items:
            raise UsageError(
                "holds no poses",
                path=job.cache,
                remedy=f"run `vidkd extract-pose VIDEOS --cache {job.cache}` first",
            )
        remedy = f"compute them with `vidkd extract-pose VIDEOS --cache {job.cache}`"
        settings: dict[str, Any] | None = None
        first: Path | None = None
        hashes: dict[str, str] = {}
        parts: list[list[LabelledVideo]] = []
        for subset in (job.subsets.training, job.subsets.validation):
            parts.append([])
            for name, video in annotations.subset(subset).videos.items():
                path = files.require(name, "pose file", remedy)
                with CacheFile(path) as file:
                    found, hashes[name] = pose_settings(file.provenance), file.sha256
                if settings is None:
                    settings, first = found, path
                elif found != settings:
                    raise CacheError(
                        f"these poses were computed with other settings than {first}",
                        path=path,
                        remedy="run `vidkd extract-pose` with --overwrite on all videos",
                    )
                poses = load_poses(path)
                joints = lift(poses, job.inputs)
                source = PoseSource(joints, poses.tracks[:, : joints.shape[1]], poses.pts)
                parts[-1].append(LabelledVideo(source, video))
        assert settings is not None
        return PoseData(
            annotations.classes,
            parts[0],
            parts[1],
            FrameSettings.model_validate(settings["frames"]),
            {
                "pose_settings": settings,
                "pose_sha256": hashes,
                "annotations_sha256": sha256(job.annotations),
            },
        )


class PoseReader:
    """Reads batches of clips, normalised and, in training, varied.

    Args:
        videos: what :attr:`Clip.video` counts.
        data: for the classes.
        job: snippets, normalisation and augmentation.
    """

    def __init__(
        self, videos: Sequence[LabelledVideo], data: PoseData, job: PoseEncoderJob
    ) -> None:
        self._videos = videos
        self._classes = data.classes
        self._job = job
        self._skeleton = find_skeleton(job.network.skeleton)

    def batch(
        self, clips: Sequence[Clip], rng: np.random.Generator | None = None
    ) -> tuple[Array, Array]:
        """Return poses (B, 3, T, V, M) float32, NaN where missing, and labels (B, K).

        Args:
            clips: which snippets.
            rng: varies them; None reads them as they are.
        """
        windows, targets = [], []
        length, settings = self._job.snippet.length, self._job.augmentation
        for clip in clips:
            video = self._videos[clip.video]
            frame, count = clip.frame, length
            if rng is not None:
                frame, count = _window(clip.frame, length, settings.tempo, rng)
            window, times = video.source.read(
                frame, self._job.snippet.model_copy(update={"length": count})
            )
            windows.append(resample(window, length))
            found = snippet_targets(video.annotation, self._classes, np.array([times]))
            targets.append(found[0])
        joints = normalise(np.stack(windows), self._skeleton, self._job.inputs)
        if rng is not None:
            joints = self._varied(joints, clips, settings, rng)
        inputs = np.ascontiguousarray(joints.transpose(0, 4, 2, 3, 1), dtype=np.float32)
        return inputs, np.stack(targets)

    def _varied(
        self,
        joints: Array,
        clips: Sequence[Clip],
        settings: PoseAugmentation,
        rng: np.random.Generator,
    ) -> Array:
        size = len(joints)
        limit = np.radians(settings.rotation)
        joints = rotate(joints, rng.uniform(-limit, limit, (size, 1)))
        if settings.flip:
            flips = np.array([clip.flip for clip in clips])
            joints[flips] = mirror(joints[flips], self._skeleton)
        sizes = rng.uniform(1 - settings.scale, 1 + settings.scale, (size, 1, 1, 1, 1))
        noise = settings.noise * rng.standard_normal(joints.shape, dtype=np.float32)
        return np.asarray(joints * sizes.astype(np.float32) + noise)


def _window(frame: int, length: int, tempo: float, rng: np.random.Generator) -> tuple[int, int]:
    """Draw first frame and number of frames of a window about a snippet."""
    speed, shift = rng.uniform(-tempo, tempo, 2)
    count = max(2, round(length * (1 + speed)))
    return round(frame + (length - count) / 2 + shift * length / 2), count


def resample(window: Array, length: int) -> Array:
    """Interpolate (M, T', V, 3) linearly over time to (M, ``length``, V, 3)."""
    count = window.shape[1]
    if count == length:
        return window
    place = np.linspace(0, count - 1, length)
    before = np.floor(place).astype(int)
    after = np.minimum(before + 1, count - 1)
    share = (place - before).astype(window.dtype)[:, None, None]
    # Not by weights of 0 and 1: 0 times NaN is NaN.
    mixed = window[:, before] * (1 - share) + window[:, after] * share
    return np.where(share == 0, window[:, before], mixed)
