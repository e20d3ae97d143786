"""What every stage of an experiment is given: a recipe, its videos, a place and a machine."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidkd.errors import VidkdError
from vidkd.features import JobResult
from vidkd.pipeline.division import Division
from vidkd.pipeline.feature_cache import encoder_name
from vidkd.pipeline.layout import Layout
from vidkd.recipe import Modality, Pipeline


@dataclass(frozen=True)
class Workplace:
    """A recipe on one division of its videos, with a place and a machine to work on.

    Attributes:
        division: the videos, and which of them may be learnt from.
        workers: videos rendered or read at once.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.
        overwrite: make again what the cache holds and was made with other settings.
        retrain: train again what was trained with other settings, in the run's own folder.
    """

    division: Division
    workers: int
    device: str
    overwrite: bool
    retrain: bool

    @property
    def recipe(self) -> Pipeline:
        """What to do."""
        return self.division.recipe

    @property
    def layout(self) -> Layout:
        """Where."""
        return self.division.layout

    @functools.cached_property
    def on_gpu(self) -> bool:
        """Whether networks run on a GPU."""
        from vidkd.networks import select_device

        return select_device(self.device).type == "cuda"

    @property
    def encoding_workers(self) -> int:
        """Videos encoded at once: a GPU is kept busy by one, and several would each hold the
        network.
        """
        return 1 if self.on_gpu else self.workers

    def encoder_name(self, modality: Modality) -> str:
        """Return the name of the encoder whose features are trained on."""
        return encoder_name(self.recipe, modality, self.division.name)

    def features_folder(self, modality: Modality) -> Path:
        """Return the folder of the features of a modality."""
        return self.layout.cache / "features" / self.encoder_name(modality)

    def quantised_file(self, modality: Modality) -> Path:
        """Return the file of an encoder that the recipe quantises."""
        return self.layout.encoders / f"{self.encoder_name(modality)}.safetensors"

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
            found["annotations_sha256"] = self.division.sha256
        return found


def succeed(results: Sequence[JobResult]) -> None:
    """Go on only when every video was done: a table on some of the videos would mislead.

    Raises:
        VidkdError: a video failed.
    """
    failed = [result for result in results if result.status == "failed"]
    if failed:
        raise VidkdError(
            f"{len(failed)} of {len(results)} videos failed (named above)",
            remedy="mend or replace them, or take them out of the annotations, and run again",
        )
