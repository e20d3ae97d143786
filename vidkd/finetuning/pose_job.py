"""What to train a pose encoder on, and how."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from pydantic import model_validator

from vidkd.recipe import PoseEncoderSettings, SnippetSettings, SubsetSettings


class PoseEncoderJob(PoseEncoderSettings):
    """Everything that ``vidkd train-encoder --modality pose`` is told."""

    annotations: Path
    output: Path
    cache: Path
    """The cache that holds the poses of the videos."""
    name: str = ""
    """What the trained encoder is called; by default as the run folder."""
    annotation_format: str = "auto"
    subsets: SubsetSettings = SubsetSettings()
    snippet: SnippetSettings = SnippetSettings()
    """The length of a snippet; the stride is that of validation."""
    device: str = "auto"
    overwrite: bool = False

    @model_validator(mode="after")
    def _named(self) -> PoseEncoderJob:
        if not re.fullmatch(r"\w[\w.+-]*", self.card_name):
            raise ValueError("--name must consist of letters, digits and . _ + -")
        if self.network.skeleton != "lcrnet-13":
            raise ValueError("a pose cache holds the skeleton lcrnet-13")
        return self

    @property
    def card_name(self) -> str:
        """The name of the trained encoder and of its folder in a cache."""
        return self.name or self.output.resolve().name

    def recipe(self) -> dict[str, Any]:
        """Return the settings that decide the result, as JSON values, with paths set apart."""
        fields = self.model_dump(mode="json")
        for name in ("device", "overwrite"):
            del fields[name]
        paths = {name: fields.pop(name) for name in ("annotations", "cache", "output")}
        stage = {"stage": "train-encoder", "modality": "pose"}
        return {**stage, **fields, "name": self.card_name, "paths": paths}

    def made_of(self, annotations_sha256: str) -> str:
        """Return a hash of the settings and the labels, as the encoder and its features carry it.

        Whoever has the features alone can tell by it whether they are what a recipe asks for.
        """
        fields = self.recipe()
        for name in ("name", "paths", "annotation_format"):
            del fields[name]
        text = json.dumps({**fields, "annotations": annotations_sha256}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
