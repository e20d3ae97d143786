"""People's poses, from the cache or found on the way.

The rows of a pose cache are the frames that RGB snippets are cut from, so the same snippet settings
give the same number of snippets with the same times; the last one is filled by holding its last
frame, as an RGB snippet is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vidkd.cache import CacheFile, Provenance, Source, cache_path, differences
from vidkd.errors import CacheError, UsageError, WeightsError
from vidkd.recipe import (
    ModelCard,
    Pipeline,
    PoseExtraction,
    PoseInputSettings,
    PoseSettings,
    Precision,
)
from vidkd.skeletons import find_skeleton
from vidkd.streams.base import Stream, VideoJob
from vidkd.video import Frame, snippet_count, snippet_pts

if TYPE_CHECKING:
    import torch

    from vidkd.networks.cards import Described
    from vidkd.pose.detector import PersonPose, PoseDetector
    from vidkd.pose.poses import Poses
    from vidkd.streams.base import Batches
    from vidkd.streams.encode import Encoder

Array = np.ndarray

SKELETON = "lcrnet-13"
"""That of a pose cache."""
LEAST_SCORES = {"lcrnet": 0.5, "files": 0.0}
"""Below it people are ignored, unless the caller says otherwise; by backend."""
BATCH = 16
"""Frames handed to the detector at once; few enough for a slow one to be interrupted soon."""

Batch = tuple[Array, Array]
"""Snippets (B, M, T, V, 3), and their start and end seconds (B, 2)."""

Look = tuple[int, float, list["PersonPose"]]
"""A frame's index and start second, and who was found in it."""


def detect_every(
    frames: Iterable[Frame], detector: PoseDetector, every: int, batch_size: int
) -> Iterator[Look]:
    """Detect people in the first and then every ``every``-th frame, ``batch_size`` at once."""
    chosen = (frame for frame in frames if frame.index % every == 0)
    while batch := list(itertools.islice(chosen, batch_size)):
        found = detector([frame.image for frame in batch])
        for frame, people in zip(batch, found, strict=True):
            yield frame.index, frame.start, people


@dataclass(frozen=True)
class Pose(Stream):
    """3D joints of the people in every frame, encoded by 2s-AGCN.

    Attributes:
        detector: finds the people in the video itself, instead of the cache that knows them.
        settings: how it looks, and how people are linked.
    """

    detector: PoseDetector | None = None
    settings: PoseSettings = field(default_factory=PoseSettings)

    name = "pose"
    label = "Pose"
    artefact = "pose"
    command = "extract-pose"
    trained_by_recipe = True
    crops = False
    encoder_modality = "pose"
    batch_sizes = (64, 64)

    def default_encoder(self) -> str:
        """Raise UsageError: encoders of poses are trained on the user's labels."""
        raise UsageError(
            "there is no pose encoder to begin with",
            remedy="train one with `vidkd train-encoder --modality pose` and name it by --encoder",
        )

    def first_encoder(self) -> str:
        """Return the name of the encoder that a recipe trains."""
        return "2s-agcn"

    def first_sections(self, gpu: bool) -> list[tuple[str, ...]]:
        """Return how often people are looked for, and an encoder that a processor can train."""
        sections: list[tuple[str, ...]] = [
            ("People are looked for in every second frame.", "pose: {every: 2}")
        ]
        small = (
            "A small 2s-AGCN, which a processor trains in some minutes. Leave out the section for"
            " the published size.",
            "pose_encoder:",
            "  network: {channels: [32, 64, 256], blocks: [2, 1, 1]}",
            "  epochs: 20",
            "  snippets_per_epoch: 1024",
        )
        return sections if gpu else [*sections, small]

    @property
    def contents(self) -> str:
        """What it is made of, in a sentence."""
        return "poses"

    def load_encoder(self, name: str, device: str, precision: Precision) -> Encoder:
        """Load a 2s-AGCN that ``train-encoder`` has trained.

        Raises:
            UsageError: there is none of this name, it is for another skeleton or another kind of
                encoder, or a precision is asked for.
            WeightsError: the file is damaged.
        """
        from vidkd.networks.agcn_weights import load_pose_encoder

        if precision != "auto":
            raise UsageError("features of pose have no --precision", remedy="leave it out")
        encoder = load_pose_encoder(name, device)
        if encoder.network.skeleton is not find_skeleton(SKELETON):
            raise UsageError(
                f"the encoder {encoder.card.name} is for {encoder.network.skeleton.name}, a pose "
                f"cache holds {SKELETON}",
                remedy="choose an encoder that was trained on a pose cache",
            )
        return encoder

    def fetch_encoder(self, name: str) -> None:
        """Do nothing: there is none to fetch."""

    def encoder_settings(self, encoder: Encoder | Described) -> dict[str, Any]:
        """Return the hash of the labels and settings that the encoder was trained with."""
        return {"encoder_made_of": getattr(encoder, "made_of", "")}

    def provenance(self, job: VideoJob, source: Source) -> dict[str, Any]:
        """Return the settings of the poses: alike for all videos, but for ``inputs``.

        Raises:
            CacheError: poses are missing, damaged, or those of another video or sampling.
        """
        self.check_inputs(job.video, job.cache)
        path = cache_path(job.cache, "pose", job.video.key)
        with CacheFile(path) as file:
            found, digest = file.provenance, file.sha256
        settings = pose_settings(found)
        expected = Provenance("pose", source, found.settings, found.encoder, found.weights_sha256)
        different = differences(found, expected)
        rate, wanted = settings["frames"].get("frame_rate"), job.settings.frames.frame_rate
        if rate != wanted:
            different.append(f"frames.frame_rate is {rate} (asked for: {wanted})")
        if different:
            raise CacheError(
                f"these poses are stale: {', '.join(different)}",
                path=path,
                remedy=f"run `{self.extraction(job.video, job.cache)} --overwrite` "
                "with the --frame-rate of the RGB features",
            )
        return {**settings, "inputs": {"pose_sha256": digest}}

    def packages(self) -> tuple[str, ...]:
        """Return the packages whose versions are recorded with features of poses."""
        return ("h5py", "numpy", "torch")

    def asked(self, recipe: Pipeline) -> dict[str, Any]:
        """Return what a recipe wants poses to be made with."""
        return {"poses": expected_pose_settings(recipe.pose)}

    def found(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the poses of features were made with."""
        return {"poses": made.get("pose")}

    def batches(self, job: VideoJob, size: int) -> Batches:
        """Yield snippets of poses (B, M, T, V, 3), and their start and end seconds (B, 2)."""
        from vidkd.pose.normalise import lift
        from vidkd.pose.poses import load_poses

        if self.detector is None:
            poses = load_poses(cache_path(job.cache, "pose", job.video.key))
            job.report(len(poses.pts))
        else:
            # Who is who is known when the last frame has been seen.
            poses = yield from self._found(job, self.detector)
        joints = lift(poses, job.card.pose_inputs or PoseInputSettings())
        snippet = job.settings.snippet
        pts = snippet_pts(poses.pts, snippet)
        starts = np.arange(snippet_count(len(joints), snippet)) * snippet.stride
        for first in range(0, len(starts), size):
            part = slice(first, first + size)
            windows = [
                cut(joints, poses.tracks, int(start), snippet.length) for start in starts[part]
            ]
            yield np.stack(windows), pts[part]

    def _found(self, job: VideoJob, detector: PoseDetector) -> Generator[Batch, None, Poses]:
        """Find and link the people of a video, with an empty batch after every few frames."""
        from vidkd.pose.poses import Poses
        from vidkd.pose.tracks import Arrangement, Tracker

        tracks = Tracker(self.settings.tracks)
        times: list[tuple[float, float]] = []
        shape: tuple[int, ...] = (0, 0)
        nothing = np.zeros((0, 1)), np.zeros((0, 2))

        def timed() -> Iterator[Frame]:
            nonlocal shape
            for frame in job.decoded():
                times.append((frame.start, frame.end))
                shape = frame.image.shape[:2]
                yield frame

        looks = detect_every(timed(), detector, self.settings.every, BATCH)
        for number, look in enumerate(looks, 1):
            tracks.look(*look)
            if number % BATCH == 0:
                yield nothing
        pts = np.array(times, dtype=np.float64).reshape(-1, 2)
        data, numbers = Arrangement(tracks, pts, self.settings.tracks).rows(0, len(pts))
        return Poses(data, numbers, pts, shape[1], shape[0])

    def uncached(self, made: Mapping[str, Any], device: str) -> Stream:
        """Return the stream that finds people in the frames, as it was done for training.

        Raises:
            UsageError: the poses of training came from files.
            WeightsError: the detector is not here, or has other weights.
        """
        from vidkd.pose.detector import load_pose_detector
        from vidkd.recipe.models import DEFAULT_DETECTOR

        own = dict(made.get("pose") or {})
        name, digest = own.pop("detector", DEFAULT_DETECTOR), own.pop("weights_sha256", None)
        if own.get("backend") == "files":
            raise UsageError(
                "was trained on poses from files, and a new video has none",
                remedy="train on poses of `vidkd extract-pose` without --backend files, or run it "
                "on features with --features",
            )
        detector = load_pose_detector(str(name), device)
        if digest not in {None, detector.weights_sha256}:
            raise WeightsError(
                f"was trained on poses of {name} with other weights ({str(digest)[:12]}) than "
                f"those on this machine ({detector.weights_sha256[:12]})",
                remedy="install the vidkd that extracted the poses, or extract and train again",
            )
        settings = with_least_score(PoseSettings.model_validate(own))
        if settings.min_score is not None:
            detector.least_score = settings.min_score
        return Pose(detector, settings)

    def prepare(
        self, card: ModelCard, device: torch.device, made: Mapping[str, Any]
    ) -> Callable[[np.ndarray | torch.Tensor], torch.Tensor]:
        """Return the function from snippets of poses to what 2s-AGCN takes: (B, 3, T, V, M)."""
        import torch

        from vidkd.pose.normalise import normalise

        skeleton, inputs = find_skeleton(SKELETON), card.pose_inputs or PoseInputSettings()
        return lambda windows: torch.from_numpy(
            normalise(torch.as_tensor(windows).cpu().numpy(), skeleton, inputs)
        ).permute(0, 4, 2, 3, 1)


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
    from vidkd.pose.detector import load_pose_detector
    from vidkd.recipe.models import DEFAULT_DETECTOR

    own = with_least_score(pose.settings).model_dump()
    if pose.backend == "files":
        return {**own, "detector": "files", "weights_sha256": None}
    detector = load_pose_detector(pose.detector or DEFAULT_DETECTOR, "cpu")
    return {**own, "detector": detector.name, "weights_sha256": detector.weights_sha256}


def with_least_score(pose: PoseSettings) -> PoseSettings:
    """Return the settings with the least score that the backend stands for."""
    if pose.min_score is not None:
        return pose
    return pose.model_copy(update={"min_score": LEAST_SCORES[pose.backend]})
