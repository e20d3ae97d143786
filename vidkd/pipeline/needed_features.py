"""Which features the rows of a benchmark need, and of which division of the videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vidkd.pipeline.division import Division
from vidkd.pipeline.feature_cache import encoder_name, made_by_recipe
from vidkd.pipeline.layout import file_name
from vidkd.pipeline.matrix import Run
from vidkd.recipe import Modality, Pipeline


@dataclass(frozen=True)
class Features:
    """The features of one encoder that some rows need.

    Attributes:
        modality: of the encoder.
        division: name of the one that the encoder was made for; empty for the recipe's own, and
            for an encoder that all share.
        encoder: its name, and that of the features' folder.
        videos: names of those that need them.
    """

    modality: Modality
    division: str
    encoder: str
    videos: tuple[str, ...]

    @property
    def title(self) -> str:
        """What they are, for people."""
        return f"{self.modality} for {self.division}" if self.division else self.modality

    @property
    def stage(self) -> str:
        """What making them is called where it fails."""
        end = f"-{file_name(self.division)}" if self.division else ""
        return f"features-{self.modality}{end}"


Needed = dict[tuple[Modality, str], Features]
"""By modality and by the division that a row is trained and tested on."""


def needed_features(
    recipe: Pipeline,
    modalities: Sequence[Modality],
    runs: Sequence[Run],
    divisions: Mapping[str, Division],
) -> Needed:
    """Return the features that runs need.

    An encoder that comes trained is one for all divisions. One that the recipe makes has learnt
    from a division's training videos, some of which another division tests on: each has its own.

    Args:
        recipe: with the encoders.
        modalities: needed by the runs of the recipe's own division; they come first.
        runs: all of them.
        divisions: by name, the recipe's own among them.
    """
    pairs: list[tuple[Modality, str]] = [(modality, "") for modality in modalities]
    pairs += [(modality, run.split) for run in runs for modality in run.modalities]
    everything = [name for item in divisions.values() for name in item.annotations.videos]
    found: Needed = {}
    for modality, split in dict.fromkeys(pairs):
        own = made_by_recipe(recipe, modality)
        if split and not own:
            found[modality, split] = found[modality, ""]
            continue
        videos = divisions[split].annotations.videos if own else everything
        encoder = encoder_name(recipe, modality, split)
        found[modality, split] = Features(modality, split, encoder, tuple(dict.fromkeys(videos)))
    return found
