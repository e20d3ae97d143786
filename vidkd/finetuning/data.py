"""From annotations to the labelled videos of a fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vidkd.annotations import Annotations, load_annotations
from vidkd.cache import CacheFile, cache_files
from vidkd.errors import CacheError, UsageError
from vidkd.files import sha256
from vidkd.finetuning.snippets import (
    FlowSource,
    LabelledVideo,
    SnippetReader,
    VideoSource,
)
from vidkd.keys import KeyIndex
from vidkd.recipe import FrameSettings
from vidkd.recipe.jobs import FinetuneJob
from vidkd.video import find_videos


@dataclass(frozen=True)
class SnippetData:
    """The videos of both subsets.

    Attributes:
        classes: names of the K classes.
        training: videos to train on.
        validation: videos to validate on.
        frames: how the frames were made; for flow, as the cache says.
        made: settings of the flow's provenance; empty for rgb.
        identity: hashes of what is trained on, as JSON values.
    """

    classes: tuple[str, ...]
    training: list[LabelledVideo]
    validation: list[LabelledVideo]
    frames: FrameSettings
    made: dict[str, Any]
    identity: dict[str, Any]

    @staticmethod
    def load(job: FinetuneJob) -> SnippetData:
        """Find the videos of the annotations.

        Raises:
            AnnotationError: the annotations cannot be read, or lack a subset.
            UsageError: a video is missing, or frames are smaller than the crop.
            CacheError: flow is damaged, or was not computed alike for all videos.
            VideoError: a video cannot be opened.
        """
        annotations = load_annotations(job.annotations, job.annotation_format).actions()
        subsets = [
            annotations.subset(name) for name in (job.subsets.training, job.subsets.validation)
        ]
        if job.modality == "flow":
            parts, frames, made, identity = _flow(job, subsets)
        else:
            parts, frames, made, identity = _rgb(job, subsets)
        if frames.short_side < job.crop:
            raise UsageError(
                f"frames of short side {frames.short_side} are smaller than the crop of {job.crop}",
                remedy="choose a larger --short-side (of the flow, too) or a smaller --crop",
            )
        identity["annotations_sha256"] = sha256(job.annotations)
        return SnippetData(annotations.classes, parts[0], parts[1], frames, made, identity)

    def reader(self, videos: list[LabelledVideo], job: FinetuneJob) -> SnippetReader:
        """Return what reads the snippets of these videos."""
        flow = "flow" in self.made
        return SnippetReader(videos, self.classes, job.snippet, job.crop, flow)


_Parts = tuple[list[list[LabelledVideo]], FrameSettings, dict[str, Any], dict[str, Any]]


def _flow(job: FinetuneJob, subsets: list[Annotations]) -> _Parts:
    assert job.cache is not None
    files = cache_files(job.cache, "flow")
    settings: dict[str, Any] | None = None
    hashes: dict[str, str] = {}
    parts: list[list[LabelledVideo]] = []
    first = ""
    for subset in subsets:
        parts.append([])
        for name, video in subset.videos.items():
            path = files.require(
                name, "flow", f"compute it with `vidkd extract-flow ... --cache {job.cache}`"
            )
            with CacheFile(path) as file:
                found = dict(file.provenance.settings)
                hashes[name] = file.sha256
                parts[-1].append(LabelledVideo(FlowSource(path, file.pts), video))
            if settings is None:
                settings, first = found, str(path)
            elif found != settings:
                raise CacheError(
                    f"this flow was computed with other settings than {first}",
                    path=path,
                    remedy="run `vidkd extract-flow` with --overwrite on all videos",
                )
    assert settings is not None
    frames = FrameSettings.model_validate(settings["frames"])
    identity = {"flow_settings": settings, "flow_sha256": hashes}
    return parts, frames, settings, identity


def _rgb(job: FinetuneJob, subsets: list[Annotations]) -> _Parts:
    assert job.videos is not None
    files = KeyIndex({item.key: item.path for item in find_videos([job.videos])}, job.videos)
    frames = FrameSettings(short_side=job.short_side, frame_rate=job.frame_rate)
    sizes: dict[str, int] = {}
    parts: list[list[LabelledVideo]] = []
    for subset in subsets:
        parts.append([])
        for name, video in subset.videos.items():
            path = files.require(name, "file", "check --videos and the annotations")
            source = VideoSource.open(path, frames, video.duration)
            sizes[name] = path.stat().st_size
            parts[-1].append(LabelledVideo(source, video))
    return parts, frames, {}, {"video_bytes": sizes}
