"""Which features the runs of an experiment need, and whether a cache holds them.

Both are found out without any video.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidkd.cache import CacheFile, cache_files
from vidkd.errors import UsageError, WeightsError
from vidkd.networks import find_card
from vidkd.pipeline.data import Execution, feature_settings, pose_encoder_job
from vidkd.pipeline.layout import file_name
from vidkd.pipeline.split import Split
from vidkd.pipeline.tables import Run
from vidkd.recipe import FrameSettings, Modality, SnippetSettings
from vidkd.streams import STREAMS

_REMEDY = "run `vidkd extract-features` first"


@dataclass(frozen=True)
class FeatureState:
    """What a cache has of the features of one encoder.

    Attributes:
        videos: how many were asked for.
        reason: what is lacking; empty when every video has features made as the recipe says.
        stale: there are features that were made with other settings.
    """

    videos: int
    reason: str = ""
    stale: bool = False

    @property
    def complete(self) -> bool:
        """Whether nothing is lacking."""
        return not self.reason


@dataclass(frozen=True)
class Features:
    """The features of one encoder that some runs need.

    Attributes:
        modality: of the encoder.
        split: the one that the encoder was made for; the recipe's own for an encoder that all
            splits share.
        folder: name of the features' folder in a cache.
        videos: names of those that need them.
    """

    modality: Modality
    split: Split
    folder: str
    videos: tuple[str, ...]

    @property
    def title(self) -> str:
        """What they are, for people."""
        return f"{self.modality} for {self.split.name}" if self.split.name else self.modality

    @property
    def stage(self) -> str:
        """Name of the stage that makes them."""
        end = f"-{file_name(self.split.name)}" if self.split.name else ""
        return f"features-{self.modality}{end}"

    @property
    def encoder(self) -> str:
        """Name of the encoder."""
        return STREAMS[self.modality].encoder(self.folder)

    def state(self) -> FeatureState:
        """Say whether they can be taken from the cache as they are.

        Imported features are taken with whatever frame rate and stride they were declared to have.

        Raises:
            CacheError: a file is damaged.
            UsageError: several files belong to one video.
        """
        files = cache_files(self.split.layout.cache, "features", self.folder)
        wanted = self._wanted()
        lacking = []
        for video in self.videos:
            path = files.find(video)
            if path is None:
                lacking.append(video)
                continue
            with CacheFile(path) as file:
                different = _different(self.modality, dict(file.provenance.settings), wanted)
            if different:
                reason = f"that of {video} was made with other {different} than the recipe's"
                return FeatureState(len(self.videos), reason, stale=True)
        reason = ""
        if lacking:
            shown = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
            reason = f"{len(lacking)} of {len(self.videos)} videos have none ({shown})"
        return FeatureState(len(self.videos), reason)

    def _wanted(self) -> dict[str, Any]:
        """Return what they should have been made with, under the names that people are told."""
        recipe, stream = self.split.recipe, STREAMS[self.modality]
        settings = feature_settings(self.split, self.modality)
        # Imported features may be of an encoder that vidkd does not know.
        with contextlib.suppress(UsageError, WeightsError):
            settings = settings.completed(find_card(settings.encoder))
        wanted: dict[str, Any] = {"frames": recipe.frames, "snippet": settings.snippet}
        wanted |= stream.asked(recipe)
        if "crop" in wanted and settings.crop is not None:
            wanted["crop"] = settings.crop
        if stream.trained_by_recipe:
            # The labels among them: an encoder of another split has seen this one's test videos.
            job = pose_encoder_job(self.split, Execution())
            wanted["labels or settings of the encoder"] = job.made_of(self.split.sha256)
        return wanted

    def sha256(self) -> str:
        """Return a hash of them all, from the hashes that the files carry.

        Raises:
            CacheError: a file is damaged.
            UsageError: a file is missing, or several belong to one video.
        """
        files = cache_files(self.split.layout.cache, "features", self.folder)
        digest = hashlib.sha256()
        for video in self.videos:
            with CacheFile(files.require(video, "file of features", _REMEDY)) as file:
                digest.update(f"{video}\0{file.sha256}\n".encode())
        return digest.hexdigest()

    def file(self, video: str) -> Path:
        """Return the file of one video.

        Raises:
            UsageError: it is missing, or several belong to the video.
        """
        files = cache_files(self.split.layout.cache, "features", self.folder)
        return files.require(video, "file of features", _REMEDY)


def _different(modality: Modality, settings: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Name what features were made with that is not as wanted; empty when nothing."""
    if settings.get("imported"):
        return ""
    # Files of before a setting existed were made with its default.
    found: dict[str, Any] = {
        "frames": FrameSettings.model_validate(settings.get("frames", {})),
        "snippet": SnippetSettings.model_validate(settings.get("snippet", {})),
        "labels or settings of the encoder": settings.get("encoder_made_of"),
        **STREAMS[modality].found(settings),
    }
    return " and ".join(name for name in wanted if found[name] != wanted[name])


Needed = dict[tuple[Modality, str], Features]
"""By modality and by the name of the split that a run is trained and tested on."""


def needed_features(runs: Sequence[Run], splits: Mapping[str, Split]) -> Needed:
    """Return the features that runs need, those of students first.

    An encoder that comes trained is one for all splits. One that the recipe makes has learnt from
    a split's training videos, some of which another split tests on: each has its own.

    Args:
        runs: all of them.
        splits: by name, the recipe's own among them.
    """
    modalities = dict.fromkeys(
        (splits[""].recipe.student, *(m for run in runs for m in run.modalities))
    )
    pairs: list[tuple[Modality, str]] = [(modality, "") for modality in modalities]
    pairs += [(modality, run.split) for run in runs for modality in run.modalities]
    everything = [name for split in splits.values() for name in split.annotations.videos]
    found: Needed = {}
    for modality, name in dict.fromkeys(pairs):
        split = splits[name]
        own = split.makes_encoder(modality)
        if name and not own:
            found[modality, name] = found[modality, ""]
            continue
        videos = split.annotations.videos if own else everything
        folder = split.features_folder(modality)
        found[modality, name] = Features(modality, split, folder, tuple(dict.fromkeys(videos)))
    return found
