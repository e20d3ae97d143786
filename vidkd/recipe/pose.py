"""The encoder of poses: what it sees, its size, and how it is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from vidkd.recipe.settings import Settings


class PoseInputSettings(Settings):
    """What of a pose the network sees (``vidkd.pose.normalise``)."""

    people: Annotated[int, Field(ge=1, le=8)] = 2
    """The main person and others, up to so many."""
    dimensions: Literal["3d", "2d"] = "3d"
    scale: Literal["bones", "torso", "none"] = "bones"
    """What becomes 1: the mean length of the bones, or that of the trunk."""
    view: bool = True
    """Turn everybody about the vertical axis until they face the camera."""
    trajectory: bool = True
    """Add the movement of the hips in the image plane to the joints relative to them."""


class PoseNetworkSettings(Settings):
    """2s-AGCN (METHOD section 4): two streams of adaptive graph convolutions."""

    skeleton: Literal["lcrnet-13", "ntu-25", "coco-17"] = "lcrnet-13"
    channels: tuple[PositiveInt, PositiveInt, PositiveInt] = (64, 128, 256)
    """Width of the three stages; the last is the width of a stream's feature."""
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt] = (4, 3, 3)
    """Blocks of the three stages; the first of the second and of the third halves time."""

    @model_validator(mode="after")
    def _embeddable(self) -> PoseNetworkSettings:
        if any(width % 4 for width in self.channels):
            raise ValueError("channels must be multiples of 4")
        return self


class PoseAugmentation(Settings):
    """How training poses are varied."""

    rotation: Annotated[float, Field(ge=0, le=180)] = 30.0
    """Degrees about the vertical axis, at most, to either side."""
    flip: bool = True
    """Mirror half of the snippets."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Sizes from 1 minus this to 1 plus this."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Standard deviation of what is added to every joint, in units of the mean bone."""
    tempo: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    """Temporal crop: windows of 1 minus this to 1 plus this times the length of a snippet,
    beginning anywhere near it, resampled to its length."""


class PoseEncoderSettings(Settings):
    """How 2s-AGCN is trained (``vidkd train-encoder --modality pose``)."""

    network: PoseNetworkSettings = PoseNetworkSettings()
    inputs: PoseInputSettings = PoseInputSettings()
    augmentation: PoseAugmentation = PoseAugmentation()
    epochs: Annotated[int, Field(ge=1)] = 30
    batch_size: Annotated[int, Field(ge=2)] = 32
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Of AdamW at the start; it falls to zero along a half cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    snippets_per_epoch: Annotated[int, Field(ge=1)] = 2048
    seed: int = 0

    @model_validator(mode="after")
    def _one_batch(self) -> PoseEncoderSettings:
        if self.snippets_per_epoch < self.batch_size:
            raise ValueError("an epoch must hold at least one batch")
        return self
