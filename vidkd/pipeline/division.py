"""A division of the videos into subsets: the annotation file, what it says, and its videos."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from vidkd.annotations import Annotations, check, load_annotations
from vidkd.console import log
from vidkd.errors import UsageError, VidkdError
from vidkd.files import sha256
from vidkd.keys import KeyIndex
from vidkd.pipeline.layout import Layout
from vidkd.recipe import Pipeline
from vidkd.video import VideoFile, find_videos


@dataclass(frozen=True)
class Division:
    """A division of a recipe's videos; nothing is read before it is asked for.

    Attributes:
        recipe: whose videos.
        layout: where rendered ones are.
        name: of one of the recipe's ``benchmark.splits``; empty for its own division.
        reported: the subset to be evaluated; None takes the recipe's.
    """

    recipe: Pipeline
    layout: Layout
    name: str = ""
    reported: str | None = None

    @functools.cached_property
    def path(self) -> Path:
        """The annotation file.

        Raises:
            UsageError: the recipe names none.
        """
        for split in self.recipe.benchmark.splits:
            if split.name == self.name:
                return split.annotations
        if self.recipe.data is None:
            return self.layout.data / "annotations.json"
        if self.recipe.data.annotations is None:
            raise UsageError("the recipe names no annotations", remedy="give --annotations FILE")
        return self.recipe.data.annotations

    @functools.cached_property
    def format(self) -> str:
        """Name of the format of the annotation file."""
        for split in self.recipe.benchmark.splits:
            if split.name == self.name:
                return split.format
        return "activitynet" if self.recipe.data is None else self.recipe.data.format

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of the annotation file.

        Raises:
            AnnotationError: it cannot be read, or lacks a subset.
        """
        _ = self.annotations
        return sha256(self.path)

    @functools.cached_property
    def annotations(self) -> Annotations:
        """What the file says, read once.

        Raises:
            AnnotationError: it cannot be read, or lacks a subset.
        """
        found = load_annotations(self.path, self.format)
        subsets = self.recipe.subsets
        reported = self.reported or self.recipe.evaluation.subset
        for subset in (subsets.training, subsets.validation, reported):
            found.subset(subset)
        return found

    @functools.cached_property
    def videos(self) -> list[VideoFile]:
        """The annotated videos.

        Raises:
            UsageError: the recipe names no folder of videos, or its annotations name a video so
                that several could be meant, or one video twice.
            VidkdError: an annotated video is missing.
        """
        return list(self._found.values())

    @functools.cached_property
    def _found(self) -> dict[str, VideoFile]:
        """The annotated videos by their names in the annotation file."""
        folder = self.layout.data / "videos"
        if self.recipe.data is not None:
            if self.recipe.data.videos is None:
                raise UsageError("the recipe names no videos", remedy="give --videos FOLDER")
            folder = self.recipe.data.videos
            if not folder.is_dir():
                raise UsageError("is not a folder", path=folder, remedy="give --videos FOLDER")
        files = KeyIndex({video.key: video for video in find_videos([folder])}, folder)
        found: dict[str, VideoFile] = {}
        missing: list[str] = []
        names: dict[str, str] = {}
        for name in self.annotations.videos:
            video = files.find(name)
            if video is None:
                missing.append(name)
                continue
            if (other := names.setdefault(video.key, name)) != name:
                raise UsageError(
                    f"names the video {video.key} twice, as {other!r} and {name!r}",
                    path=self.path,
                    remedy="keep one of them: a video belongs to one subset",
                )
            found[name] = video
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise VidkdError(
                f"has no video for {', '.join(missing[:3])}{more}",
                path=folder,
                remedy="add the videos, or take them out of the annotations",
            )
        for problem in check(self.annotations)[:10]:
            log(f"note: {self.path.name}: {problem}")
        return found

    def training_videos(self) -> list[VideoFile]:
        """Return the videos that may be learnt from."""
        return self.videos_of(self.recipe.subsets.training)

    def videos_of(self, subset: str) -> list[VideoFile]:
        """Return the videos of a subset, in the order of the annotation file."""
        return [self.video(name) for name in self.annotations.subset(subset).videos]

    def video(self, name: str) -> VideoFile:
        """Return the video that the annotation file calls ``name``."""
        return self._found[name]
