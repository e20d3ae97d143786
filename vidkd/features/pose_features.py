"""Features of poses: the snippets of a pose cache, encoded by 2s-AGCN.

The rows of a pose cache are the frames that RGB snippets are cut from, so the same snippet settings
give the same number of snippets with the same times; the last one is filled by holding its last
frame, as an RGB snippet is.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

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
)
from vidkd.errors import CacheError, UsageError
from vidkd.features.described import extraction_command
from vidkd.features.extract import Extraction, FeatureType, Report, finished_rows, stored
from vidkd.features.pose import with_least_score
from vidkd.pose.detector import DEFAULT_DETECTOR, load_pose_detector
from vidkd.pose.normalise import lift, normalise
from vidkd.pose.poses import load_poses
from vidkd.recipe import FrameSettings, ModelCard, PoseExtraction, SnippetSettings
from vidkd.skeletons import find_skeleton
from vidkd.video import VideoFile, probe, snippet_count, snippet_pts

if TYPE_CHECKING:
    from vidkd.networks.agcn_weights import PoseEncoder

Array = np.ndarray


@dataclass(frozen=True)
class PoseFeatureTask:
    """``extract-features --modality pose`` with its settings; picklable.

    Attributes:
        cache: the cache folder, which holds the poses.
        encoder: name or path of the encoder.
        card: its card.
        weights_sha256: hash of its weights.
        made_of: hash of the labels and settings that it was trained with; empty if unknown.
        frames: of the RGB snippets to be aligned with: their sampling must be that of the poses.
        snippet: length and stride in frames.
        batch_size: snippets encoded at once.
        dtype: type of the features on disk.
        device: where the encoder runs.
        overwrite: compute again what is stale or damaged.
    """

    cache: Path
    encoder: str
    card: ModelCard
    weights_sha256: str
    made_of: str
    frames: FrameSettings
    snippet: SnippetSettings
    batch_size: int | None = None
    dtype: FeatureType = "float16"
    device: str = "auto"
    overwrite: bool = False
    name: str = "extract-features"

    def path(self, video: VideoFile) -> Path:
        """Return the cache file of a video."""
        return cache_path(self.cache, "features", video.key, self.card.name)

    def check_inputs(self, video: VideoFile) -> None:
        """Raise CacheError when there are no poses of the video."""
        if not cache_path(self.cache, "pose", video.key).exists():
            raise missing_poses(video, self.cache)

    def provenance(self, video: VideoFile) -> Provenance:
        """Return what the cache file of a video is expected to say; reads the whole video.

        Raises:
            VideoError: the video cannot be opened.
            CacheError: its poses are missing, damaged, or those of another video or sampling.
        """
        source = describe_source(video.path, probe(video.path))
        settings: dict[str, Any] = {
            "modality": "pose",
            "snippet": self.snippet.model_dump(),
            "dtype": self.dtype,
            "encoder_made_of": self.made_of,
            **self._of_poses(video, source),
        }
        return Provenance(
            artefact="features",
            source=source,
            settings=settings,
            encoder=self.card.name,
            weights_sha256=self.weights_sha256,
            versions=library_versions("h5py", "numpy", "torch"),
        )

    def _of_poses(self, video: VideoFile, source: Source) -> dict[str, Any]:
        """Return the settings that are the poses': alike for all videos, but for ``inputs``."""
        self.check_inputs(video)
        path = cache_path(self.cache, "pose", video.key)
        with CacheFile(path) as file:
            found, digest = file.provenance, file.sha256
        settings = pose_settings(found)
        expected = Provenance("pose", source, found.settings, found.encoder, found.weights_sha256)
        different = differences(found, expected)
        if settings["frames"].get("frame_rate") != self.frames.frame_rate:
            rate = settings["frames"].get("frame_rate")
            different.append(f"frames.frame_rate is {rate} (asked for: {self.frames.frame_rate})")
        if different:
            raise CacheError(
                f"these poses are stale: {', '.join(different)}",
                path=path,
                remedy=f"run `{extraction_command('extract-pose', video, self.cache)} "
                "--overwrite` with the --frame-rate of the RGB features",
            )
        return {**settings, "inputs": {"pose_sha256": digest}}

    def __call__(self, video: VideoFile, report: Report, threads: int, /) -> Extraction:
        """Encode the snippets of one video.

        Raises:
            VideoError: the video cannot be opened.
            CacheError: its poses cannot be used, or there is a stale or damaged file.
            UsageError: the encoder does not fit the poses.
        """
        path, provenance = self.path(video), self.provenance(video)
        rows = finished_rows(path, provenance, overwrite=self.overwrite)
        if rows is not None:
            return Extraction(path, rows, True)
        torch.set_num_threads(threads)
        encoder = _loaded(self.encoder, self.device)
        poses = load_poses(cache_path(self.cache, "pose", video.key))
        joints = lift(poses, encoder.inputs)
        pts = snippet_pts(poses.pts, self.snippet)
        remove_leftovers(path)
        with CacheWriter(path, provenance, (self.card.feature_dim,), self.dtype) as writer:
            for first, rows_ in self._encode(encoder, joints, poses.tracks):
                writer.append(stored(rows_, self.dtype), pts[first : first + len(rows_)])
            writer.frame_count = len(joints)
        report(len(joints))
        return Extraction(path, writer.rows, False)

    def _encode(
        self, encoder: PoseEncoder, joints: Array, tracks: Array
    ) -> Iterator[tuple[int, Array]]:
        length, stride = self.snippet.length, self.snippet.stride
        starts = np.arange(snippet_count(len(joints), self.snippet)) * stride
        size = self.batch_size or 64
        for first in range(0, len(starts), size):
            windows = [
                cut(joints, tracks, int(start), length) for start in starts[first : first + size]
            ]
            inputs = network_input(np.stack(windows), encoder)
            yield first, encoder.features(inputs).float().cpu().numpy()


def cut(joints: Array, tracks: Array, start: int, length: int) -> Array:
    """Cut ``length`` frames out of (N, M, V, 3); missing (NaN) past the end of the video.

    A slot that passes from one person to another within the window keeps the one who is longer
    there.

    Args:
        joints: (N, M, V, 3), with people in the slots of ``tracks``.
        tracks: (N, >= M), -1 where nobody is.
        start: the first frame; may lie before the video.
        length: T.

    Returns:
        (M, T, V, 3), a copy.
    """
    window = np.full((joints.shape[1], length, *joints.shape[2:]), np.nan, dtype=joints.dtype)
    first, last = max(start, 0), min(start + length, len(joints))
    for slot in range(joints.shape[1]):
        numbers = tracks[first:last, slot]
        there = numbers[numbers >= 0]
        if not len(there):
            continue
        values, counts = np.unique(there, return_counts=True)
        own = numbers == values[counts.argmax()]
        target = window[slot, first - start : last - start]
        target[own] = joints[first:last, slot][own]
    return window


def network_input(windows: Array, encoder: PoseEncoder) -> torch.Tensor:
    """Normalise windows (B, M, T, V, 3) into what 2s-AGCN takes: (B, 3, T, V, M)."""
    skeleton = encoder.network.skeleton
    return torch.from_numpy(normalise(windows, skeleton, encoder.inputs)).permute(0, 4, 2, 3, 1)


def pose_settings(found: Provenance) -> dict[str, Any]:
    """Return how poses were made, as it must be the same for all videos that belong together.

    The size of the frames differs between videos, and so do the files that poses were read from.

    Raises:
        CacheError: the file holds something else.
    """
    if found.artefact != "pose" or not isinstance(found.settings.get("frames"), dict):
        raise CacheError(
            f"of {found.source.name} holds {found.artefact}, not poses",
            remedy="compute it with `vidkd extract-pose`",
        )
    own = found.settings.get("pose", {})
    weights = None if own.get("backend") == "files" else found.weights_sha256
    return {
        "frames": dict(found.settings["frames"]),
        "pose": {**own, "detector": found.encoder, "weights_sha256": weights},
    }


def expected_pose_settings(pose: PoseExtraction) -> dict[str, Any]:
    """Return what :func:`pose_settings` has of poses that were made as a recipe says.

    Raises:
        UsageError: there is no such detector.
        WeightsError: its file is damaged.
    """
    own = with_least_score(pose.settings).model_dump()
    if pose.backend == "files":
        return {**own, "detector": "files", "weights_sha256": None}
    detector = load_pose_detector(pose.detector or DEFAULT_DETECTOR, "cpu")
    return {**own, "detector": detector.name, "weights_sha256": detector.weights_sha256}


def missing_poses(video: VideoFile, cache: Path) -> CacheError:
    """Return the error that says how to compute the poses of a video."""
    return CacheError(
        "these poses are needed and missing",
        path=cache_path(cache, "pose", video.key),
        remedy=f"run `{extraction_command('extract-pose', video, cache)}` first",
    )


@functools.cache
def _loaded(name: str, device: str) -> PoseEncoder:
    from vidkd.networks.agcn_weights import load_pose_encoder

    return load_pose_encoder(name, device)


def pose_feature_task(
    cache: Path,
    encoder: str,
    frames: FrameSettings,
    snippet: SnippetSettings,
    batch_size: int | None = None,
    dtype: FeatureType = "float16",
    *,
    device: str = "auto",
    overwrite: bool = False,
) -> PoseFeatureTask:
    """Check the encoder and return the task.

    Raises:
        UsageError: the encoder is unknown, not one of poses, or of another skeleton.
        WeightsError: the encoder is damaged.
    """
    from vidkd.networks import select_device
    from vidkd.networks.agcn_weights import load_pose_encoder

    select_device(device)  # a wrong name is told once, not for every video
    found = load_pose_encoder(encoder, "cpu")
    expected = find_skeleton("lcrnet-13")
    if found.network.skeleton is not expected:
        raise UsageError(
            f"the encoder {found.card.name} is for {found.network.skeleton.name}, a pose cache "
            f"holds {expected.name}",
            remedy="choose an encoder that was trained on a pose cache",
        )
    return PoseFeatureTask(
        cache,
        encoder,
        found.card,
        found.weights_sha256,
        found.made_of,
        frames,
        snippet,
        batch_size,
        dtype,
        device,
        overwrite,
    )
