"""People's poses in a video: one cache file, one row for each frame (``vidkd extract-pose``)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidkd.cache import Provenance, describe_source, library_versions
from vidkd.errors import UsageError, VideoError
from vidkd.features.tasks import Block, Task
from vidkd.files import sha256
from vidkd.pose.files import find_poses, look_up, read_table
from vidkd.pose.tracks import Arrangement, Tracker
from vidkd.recipe import FrameSettings, PoseSettings
from vidkd.recipe.models import DEFAULT_DETECTOR
from vidkd.streams.base import decode
from vidkd.streams.pose import BATCH, Look, detect_every, with_least_score
from vidkd.video import Frame, VideoFile, probe
from vidkd.workers import Report

if TYPE_CHECKING:
    from vidkd.pose.detector import PoseDetector

LoadDetector = Callable[[str, str], "PoseDetector"]
"""Takes a name or file and a device, like ``vidkd.pose.detector.load_pose_detector``."""

_BLOCK = 4096


@dataclass(frozen=True)
class PoseTask(Task):
    """``extract-pose``: people into ``CACHE/pose/KEY.h5``, one row for each frame.

    Attributes:
        frames: resize and sampling; rows are the frames of ``extract-flow`` with the same sampling.
        pose: what is detected, and how it is linked.
        detector: what to load: a name or a file; empty for the backend ``files``.
        detector_name: what the detector calls itself.
        weights_sha256: hash of the detector's weights.
        load: loads the detector, once in each process; None for the backend ``files``.
        poses: folder or file of poses, for the backend ``files``.
        device: where the detector works.
    """

    cache: Path
    frames: FrameSettings
    pose: PoseSettings
    detector: str = ""
    detector_name: str = ""
    weights_sha256: str = ""
    load: LoadDetector | None = None
    poses: Path | None = None
    device: str = "auto"
    overwrite: bool = False

    name = "extract-pose"
    artefact = "pose"
    dtype = "float32"

    def check_inputs(self, video: VideoFile) -> None:
        """Raise VidkdError when poses are to be read from files, and the video has none."""
        if self.poses is not None:
            find_poses(self.poses, video.key)

    def provenance(self, video: VideoFile) -> Provenance:
        """Return what the cache file of a video is expected to say; reads the whole video.

        Raises:
            VidkdError: the video cannot be opened, or its poses are missing.
        """
        if self.poses is not None:
            encoder, weights = "files", sha256(find_poses(self.poses, video.key))
        else:
            encoder, weights = self.detector_name, self.weights_sha256
        return Provenance(
            artefact=self.artefact,
            source=describe_source(video.path, probe(video.path)),
            settings={
                "frames": self.frames.model_dump(),
                "pose": self.pose.model_dump(),
                "size": list(self._size(video)),
            },
            encoder=encoder,
            weights_sha256=weights,
            versions=library_versions("av", "h5py", "numpy", "torch"),
        )

    def _size(self, video: VideoFile) -> tuple[int, int]:
        """Return width and height of the resized frames, as the first of them has it."""
        every = FrameSettings(short_side=self.frames.short_side)
        first = next(decode(video.path, every), None)
        if first is None:
            raise VideoError("has no frames", path=video.path, remedy="check the file")
        height, width = first.image.shape[:2]
        return width, height

    def blocks(
        self, video: VideoFile, made: Mapping[str, Any], report: Report, threads: int
    ) -> Iterator[Block]:
        """Find and link the people of a video; all of it is looked at before the first row."""
        times: list[tuple[float, float]] = []

        def timed() -> Iterator[Frame]:
            for frame in decode(video.path, self.frames, report):
                times.append((frame.start, frame.end))
                yield frame

        width, height = made["size"]
        tracker = Tracker(self.pose.tracks)
        for index, start, people in self._looks(video, timed(), (width, height), threads):
            tracker.look(index, start, people)
        pts = np.array(times, dtype=np.float64).reshape(-1, 2)
        arranged = Arrangement(tracker, pts, self.pose.tracks)
        for begin in range(0, len(pts), _BLOCK):
            end = min(begin + _BLOCK, len(pts))
            joints, tracks = arranged.rows(begin, end)
            yield joints, pts[begin:end], {"tracks": tracks}

    def _looks(
        self, video: VideoFile, frames: Iterable[Frame], size: tuple[int, int], threads: int
    ) -> Iterator[Look]:
        if self.poses is not None:
            table = read_table(self.poses, video.key)
            if table.by_number and self.frames.frame_rate is not None:
                raise UsageError(
                    "names frames by number, which --frame-rate makes other frames",
                    path=table.path,
                    remedy="leave out --frame-rate",
                )
            info = probe(video.path)
            steps = ((frame.index, frame.start, frame.end) for frame in frames)
            looks = look_up(table, steps, (info.width, info.height), size)
            least = self.pose.min_score or 0.0
            return (
                (index, start, [person for person in people if person.score >= least])
                for index, start, people in looks
            )
        import torch

        assert self.load is not None
        torch.set_num_threads(threads)
        detector = _loaded(self.load, self.detector, self.device)
        if self.pose.min_score is not None:
            detector.least_score = self.pose.min_score
        return detect_every(frames, detector, self.pose.every, BATCH)


@functools.cache
def _loaded(load: LoadDetector, name: str, device: str) -> PoseDetector:
    return load(name, device)


def pose_task(
    cache: Path,
    frames: FrameSettings,
    pose: PoseSettings,
    *,
    detector: str | None = None,
    poses: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    load: LoadDetector | None = None,
) -> PoseTask:
    """Check what the backend needs and return the task.

    Args:
        cache: the cache folder.
        frames: resize and sampling.
        pose: backend, steps and tracks.
        detector: name or file of the detector; None takes the one that ships with vidkd.
        poses: folder or file of poses, for the backend ``files``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        overwrite: compute again what is stale or damaged.
        load: replaces ``vidkd.pose.detector.load_pose_detector``; picklable.

    Raises:
        UsageError: the backend and the rest do not fit each other.
        WeightsError: the detector's weights are missing or damaged.
    """
    pose = with_least_score(pose)
    if pose.backend == "files":
        if poses is None:
            raise UsageError("--backend files needs --poses", remedy="say where the poses are")
        if detector is not None:
            raise UsageError("--backend files uses no detector", remedy="leave out --detector")
        if not poses.exists():
            raise UsageError("does not exist", path=poses, remedy="check --poses")
        return PoseTask(cache, frames, pose, poses=poses, overwrite=overwrite)
    if poses is not None:
        raise UsageError("--poses needs --backend files", remedy="add it, or leave out --poses")
    if load is None:
        from vidkd.networks import device_name
        from vidkd.pose.detector import load_pose_detector

        load = load_pose_detector
        device_name(device)  # a wrong name is told once, not for every video
    name = detector or DEFAULT_DETECTOR
    # On the processor: the workers use the device, this process only needs the weights' hash.
    found = load(name, "cpu")
    return PoseTask(
        cache,
        frames,
        pose,
        name,
        found.name,
        found.weights_sha256,
        load,
        device=device,
        overwrite=overwrite,
    )
