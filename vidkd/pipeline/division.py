"""A division of the videos into subsets: the annotation file, what it says, and its videos."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from vidkd.annotations import Annotations, check, load_annotations
from vidkd.console import log
from vidkd.errors import UsageError, VidkdError
from vidkd.files import sha256
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
            UsageError: the recipe names no folder of videos.
            VidkdError: an annotated video is missing.
        """
        folder = self.layout.data / "videos"
        if self.recipe.data is not None:
            if self.recipe.data.videos is None:
                raise UsageError("the recipe names no videos", remedy="give --videos FOLDER")
            folder = self.recipe.data.videos
            if not folder.is_dir():
                raise UsageError("is not a folder", path=folder, remedy="give --videos FOLDER")
        found = {Path(video.key).name: video for video in find_videos([folder])}
        missing = [name for name in self.annotations.videos if Path(name).name not in found]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise VidkdError(
                f"has no video for {', '.join(missing[:3])}{more}",
                path=folder,
                remedy="add the videos, or take them out of the annotations",
            )
        for problem in check(self.annotations)[:10]:
            log(f"note: {self.path.name}: {problem}")
        return [found[Path(name).name] for name in self.annotations.videos]

    def training_videos(self) -> list[VideoFile]:
        """Return the videos that may be learnt from."""
        training = self.annotations.subset(self.recipe.subsets.training).videos
        names = {Path(name).name for name in training}
        return [video for video in self.videos if Path(video.key).name in names]
