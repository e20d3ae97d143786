"""2s-AGCN, trained from nothing on labelled, varied snippets of poses.

The poses of all videos are kept in memory, some 300 bytes for each frame and person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vidkd.annotations import snippet_targets
from vidkd.cache import CacheFile
from vidkd.finetuning.snippets import (
    Batches,
    Clip,
    EncoderInTraining,
    LabelledData,
    LabelledVideo,
    load_cached,
)
from vidkd.networks.agcn import TwoStreamAGCN, initialise
from vidkd.networks.agcn_weights import NETWORK
from vidkd.pose.normalise import lift, mirror, normalise, rotate
from vidkd.pose.poses import load_poses
from vidkd.recipe import ModelCard, SnippetSettings
from vidkd.recipe.jobs import PoseEncoderJob
from vidkd.recipe.pose import PoseAugmentation
from vidkd.skeletons import find_skeleton
from vidkd.streams import STREAMS
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


def load_snippets(job: PoseEncoderJob) -> LabelledData:
    """Find and read the poses of the annotated videos.

    Raises:
        AnnotationError: the annotations cannot be read, or lack a subset.
        UsageError: the poses of a video are missing, or have not the dimensions asked for.
        CacheError: poses are damaged, or were not computed alike for all videos.
    """

    def source(file: CacheFile) -> PoseSource:
        poses = load_poses(file.path)
        joints = lift(poses, job.inputs)
        return PoseSource(joints, poses.tracks[:, : joints.shape[1]], poses.pts)

    return load_cached(job, STREAMS[job.modality], pose_settings, source)


class PoseReader:
    """Reads batches of clips, normalised and, in training, varied.

    Args:
        videos: what :attr:`Clip.video` counts.
        data: for the classes.
        job: snippets, normalisation and augmentation.
    """

    def __init__(
        self, videos: Sequence[LabelledVideo], data: LabelledData, job: PoseEncoderJob
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


class PoseEncoder(EncoderInTraining):
    """2s-AGCN, trained from nothing.

    Its two streams are trained side by side: the loss is the sum of theirs, and neither sees the
    other, so that the result is that of two trainings.

    Raises:
        AnnotationError, CacheError, UsageError: see ``train_encoder``.
    """

    job: PoseEncoderJob

    def __init__(self, job: PoseEncoderJob) -> None:
        self.job = job
        self.data = load_snippets(job)
        self.recipe = job.recipe()
        self.about = {"made_of": job.made_of(self.data.identity["annotations_sha256"])}
        self._training = PoseReader(self.data.training, self.data, job)
        self._validation = PoseReader(self.data.validation, self.data, job)

    def start(self, device: torch.device) -> None:
        """Draw the weights from the seed."""
        job, self._device = self.job, device
        network = TwoStreamAGCN(job.network, len(self.data.classes), job.dropout)
        initialise(network, torch.Generator().manual_seed(job.seed))
        self.network = network.to(device)
        self.model = _Streams(network)
        self.groups = [{"params": list(network.parameters()), "lr": job.learning_rate}]
        self.card = pose_card(job, self.data, network.feature_dim)

    def batches(self, parts: list[list[Clip]], rng: np.random.Generator | None) -> Batches:
        """Read from memory, and vary what is trained on."""
        reader = self._validation if rng is None else self._training
        for clips in parts:
            inputs, targets = reader.batch(clips, rng)
            yield (
                torch.from_numpy(inputs).to(self._device),
                torch.from_numpy(targets).to(self._device),
            )


class _Streams(nn.Module):
    """2s-AGCN to the logits of its two streams."""

    def __init__(self, network: TwoStreamAGCN) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x).streams
        return logits


def pose_card(job: PoseEncoderJob, data: LabelledData, feature_dim: int) -> ModelCard:
    """Return the model card of the encoder that a run trains."""
    return ModelCard(
        name=job.card_name,
        network=NETWORK,
        modality=job.modality,
        description=f"2s-AGCN, trained by vidkd on {len(data.training)} videos of "
        f"{len(data.classes)} classes",
        feature_dim=feature_dim,
        in_channels=3,
        frames=data.frames,
        snippet=job.snippet,
        pose_network=job.network,
        pose_inputs=job.inputs,
        weights=(),
        licence="the terms of the training videos",
        source="vidkd train-encoder --modality pose",
    )
