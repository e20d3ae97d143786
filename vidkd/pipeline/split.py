"""A split of a recipe's videos into subsets: its annotations, its videos, its encoders."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidkd.annotations import Annotations, check, load_annotations
from vidkd.console import log
from vidkd.differences import listed
from vidkd.errors import UsageError, VidkdError
from vidkd.files import sha256
from vidkd.keys import KeyIndex
from vidkd.pipeline.layout import Layout, file_name
from vidkd.recipe import Modality, Pipeline
from vidkd.recipe.benchmark import SplitSettings
from vidkd.streams import STREAMS
from vidkd.video import VideoFile, find_videos


@dataclass(frozen=True)
class Split:
    """A split of a recipe's videos; nothing is read before it is asked for.

    Attributes:
        recipe: whose videos.
        layout: where everything that is made lies.
        name: of one of the recipe's ``benchmark.splits``; empty for its own split.
        reported: the subset to be evaluated; None takes the recipe's.
    """

    recipe: Pipeline
    layout: Layout
    name: str = ""
    reported: str | None = None

    @property
    def given(self) -> SplitSettings | None:
        """What the recipe says of this split; None for its own."""
        splits = {split.name: split for split in self.recipe.benchmark.splits}
        return splits[self.name] if self.name else None

    @functools.cached_property
    def path(self) -> Path:
        """The annotation file.

        Raises:
            UsageError: the recipe names none.
        """
        if self.given is not None:
            return self.given.annotations
        if self.recipe.data is None:
            return self.layout.data / "annotations.json"
        if self.recipe.data.annotations is None:
            raise UsageError("the recipe names no annotations", remedy="give --annotations FILE")
        return self.recipe.data.annotations

    @property
    def format(self) -> str:
        """Name of the format of the annotation file."""
        if self.given is not None:
            return self.given.format
        return "activitynet" if self.recipe.data is None else self.recipe.data.format

    @property
    def dataset(self) -> str | None:
        """Which of the paper's data sets this is, if any."""
        return self.recipe.dataset if self.given is None else self.given.dataset

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

    @property
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
            raise VidkdError(
                f"has no video for {listed(missing)}",
                path=folder,
                remedy="add the videos, or take them out of the annotations",
            )
        for problem in check(self.annotations)[:10]:
            log(f"note: {self.path.name}: {problem}")
        return found

    def video(self, name: str) -> VideoFile:
        """Return the video that the annotation file calls ``name``."""
        return self._found[name]

    def videos_of(self, subset: str) -> list[VideoFile]:
        """Return the videos of a subset, in the order of the annotation file."""
        return [self.video(name) for name in self.annotations.subset(subset).videos]

    def training_videos(self) -> list[VideoFile]:
        """Return the videos that may be learnt from."""
        return self.videos_of(self.recipe.subsets.training)

    def makes_encoder(self, modality: Modality) -> bool:
        """Return whether the recipe makes the encoder of a modality from its training videos."""
        quantised = self.recipe.encoders[modality].precision == "int8"
        return quantised or STREAMS[modality].trained_by_recipe

    def encoder_name(self, modality: Modality) -> str:
        """Return the name of the encoder whose features are trained on.

        Of a fine-tuned encoder, which a recipe gives as a path, that is the name it was given; of
        one that the recipe quantises, the name of its quantised form. What the recipe makes itself
        it makes for each split of the videos, since the training videos of one are tested on in
        another; the name then ends with that of the split.

        Raises:
            UsageError: the recipe has no encoder of this modality.
            WeightsError: the fine-tuned encoder is damaged.
        """
        from vidkd.networks import find_card, trained_file
        from vidkd.networks.cards import quantised_name

        if modality not in self.recipe.encoders:
            raise UsageError(
                f"recipe {self.recipe.name} has no encoder for {modality}",
                remedy=f"name one under `encoders: {{{modality}: ...}}`",
            )
        encoder = self.recipe.encoders[modality]
        if self.makes_encoder(modality):
            # What is trained here has the name that the recipe gives it.
            int8 = encoder.precision == "int8"
            made = quantised_name(encoder.name) if int8 else encoder.name
            return f"{made}-{file_name(self.name)}" if self.name else made
        return encoder.name if trained_file(encoder.name) is None else find_card(encoder.name).name

    def features_folder(self, modality: Modality) -> str:
        """Return the name of the folder of a modality's features in a cache."""
        return STREAMS[modality].folder(self.encoder_name(modality))

    def quantised_file(self, modality: Modality) -> Path:
        """Return the file of an encoder that the recipe quantises."""
        return self.layout.encoders / f"{self.encoder_name(modality)}.safetensors"

    def encoder_run(self, modality: Modality) -> Path:
        """Return the run folder of an encoder that the recipe trains."""
        return self.layout.root / "models" / self.encoder_name(modality)

    def part(self, *names: str) -> dict[str, Any]:
        """Return some of the recipe's settings as JSON values, as stages record them.

        With its data goes the content of the annotations, which may change under the same name.
        """
        found = self.recipe.model_dump(mode="json", include=set(names))
        for encoder in found.get("encoders", {}).values():
            if encoder["precision"] == "auto":
                # So that what was made before there was a choice still counts as finished.
                del encoder["precision"]
        if found.get("data") is not None:
            found["annotations_sha256"] = self.sha256
        return found
