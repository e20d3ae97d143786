"""Whether a cache holds the features that a recipe asks for, found out without any video."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidkd.cache import CacheFile, cache_files
from vidkd.errors import UsageError
from vidkd.pipeline.layout import file_name
from vidkd.recipe import FrameSettings, Modality, Pipeline, SnippetSettings
from vidkd.streams import STREAMS


@dataclass(frozen=True)
class FeatureState:
    """What a cache has of one modality.

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


def feature_state(
    recipe: Pipeline,
    cache: Path,
    modality: Modality,
    encoder: str,
    videos: Sequence[str],
    made_of: str = "",
) -> FeatureState:
    """Say whether features of a modality can be taken from the cache as they are.

    Imported features are taken with whatever frame rate and stride they were declared to have.

    Args:
        recipe: which says how they should have been made.
        cache: the folder.
        modality: of the features.
        encoder: their name; see :func:`encoder_name`.
        videos: names of those that need them.
        made_of: hash of what an encoder that the recipe trains is trained with.

    Raises:
        CacheError: a file is damaged.
        UsageError: several files belong to one video.
    """
    files = cache_files(cache, "features", encoder)
    wanted = _wanted(recipe, modality, made_of)
    lacking = []
    for video in videos:
        path = files.find(video)
        if path is None:
            lacking.append(video)
            continue
        with CacheFile(path) as file:
            different = _difference(dict(file.provenance.settings), modality, wanted)
        if different:
            reason = f"that of {video} was made with other {different} than the recipe's"
            return FeatureState(len(videos), reason, stale=True)
    reason = ""
    if lacking:
        shown = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
        reason = f"{len(lacking)} of {len(videos)} videos have none ({shown})"
    return FeatureState(len(videos), reason)


def _wanted(recipe: Pipeline, modality: Modality, made_of: str) -> dict[str, Any]:
    """Return what features should have been made with, under the names that people are told."""
    stream = STREAMS[modality]
    wanted: dict[str, Any] = {"frames": recipe.frames, "snippet": recipe.snippet}
    wanted |= stream.asked(recipe)
    if stream.trained_by_recipe:
        # The labels among them: an encoder of another division has seen this one's test videos.
        wanted["labels or settings of the encoder"] = made_of
    return wanted


def _difference(settings: dict[str, Any], modality: Modality, wanted: dict[str, Any]) -> str:
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


def features_hash(cache: Path, encoder: str, videos: Sequence[str]) -> str:
    """Return a hash of an encoder's features of these videos, from the hashes that the files carry.

    Raises:
        CacheError: a file is damaged.
        UsageError: a file is missing, or several belong to one video.
    """
    files = cache_files(cache, "features", encoder)
    digest = hashlib.sha256()
    for video in videos:
        with CacheFile(files.require(video, "file of features", "extract them first")) as file:
            digest.update(f"{video}\0{file.sha256}\n".encode())
    return digest.hexdigest()


def made_by_recipe(recipe: Pipeline, modality: Modality) -> bool:
    """Return whether a recipe makes the encoder of a modality from its training videos."""
    return STREAMS[modality].trained_by_recipe or recipe.encoders[modality].precision == "int8"


def encoder_name(recipe: Pipeline, modality: Modality, division: str = "") -> str:
    """Return the name under which the features of a modality are cached.

    Of a fine-tuned encoder, which a recipe gives as a path, that is the name it was given; of one
    that the recipe quantises, the name of its quantised form. What the recipe makes itself it
    makes for each division of the videos, since the training videos of one are tested on in
    another; the name then ends with that of the division.

    Args:
        recipe: with the encoders.
        modality: of one of them.
        division: of the videos; empty for the recipe's own.

    Raises:
        UsageError: the recipe has no encoder of this modality.
        WeightsError: the fine-tuned encoder is damaged.
    """
    from vidkd.networks import find_card, trained_file
    from vidkd.networks.zoo import quantised_name

    if modality not in recipe.encoders:
        raise UsageError(
            f"recipe {recipe.name} has no encoder for {modality}",
            remedy=f"name one under `encoders: {{{modality}: ...}}`",
        )
    name = recipe.encoders[modality].name
    if made_by_recipe(recipe, modality):
        # Poses are encoded by what is trained here, under the name that the recipe gives.
        quantised = recipe.encoders[modality].precision == "int8"
        made = quantised_name(name) if quantised else name
        return f"{made}-{file_name(division)}" if division else made
    return name if trained_file(name) is None else find_card(name).name
