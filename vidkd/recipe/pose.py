"""The encoder of poses: what it sees, its size, and how it is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, PositiveInt, model_validator

from vidkd.recipe.settings import Option, Settings


class PoseInputSettings(Settings):
    """What of a pose the network sees (``vidkd.pose.normalise``)."""

    model_config = ConfigDict(title="Poses: input")

    people: Annotated[int, Field(ge=1, le=8), Option(unit="PEOPLE", common=True)] = 2
    """Most people to see, the main person and others."""
    dimensions: Annotated[Literal["3d", "2d"], Option(common=True)] = "3d"
    """Dimensions of the joints that the network sees."""
    scale: Literal["bones", "torso", "none"] = "bones"
    """Length that is scaled to 1: the mean of the bones, or that of the torso."""
    view: bool = True
    """Turn everybody about the vertical axis until they face the camera."""
    trajectory: bool = True
    """Add the movement of the hips in the image plane to the joints relative to them."""


class PoseNetworkSettings(Settings):
    """2s-AGCN: two streams of adaptive graph convolutions (Shi et al. 2019)."""

    model_config = ConfigDict(title="Poses: network")

    skeleton: Literal["lcrnet-13", "ntu-25", "coco-17"] = "lcrnet-13"
    """Joints and bones of a person; caches of poses hold lcrnet-13."""
    channels: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], Option(unit="N,N,N")] = (
        64,
        128,
        256,
    )
    """Widths of the three stages, multiples of 4.

    The last is the width of a stream's feature.
    """
    blocks: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], Option(unit="N,N,N")] = (
        4,
        3,
        3,
    )
    """Numbers of blocks in the three stages; the second and the third halve the number of
    frames."""

    @model_validator(mode="after")
    def _embeddable(self) -> PoseNetworkSettings:
        if any(width % 4 for width in self.channels):
            raise ValueError("channels must be multiples of 4")
        return self


class PoseAugmentation(Settings):
    """How training poses are varied."""

    model_config = ConfigDict(title="Poses: augmentation")

    rotation: Annotated[float, Field(ge=0, le=180), Option(unit="DEGREES")] = 30.0
    """Largest rotation about the vertical axis, to either side."""
    flip: bool = True
    """Mirror half of the snippets."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Poses are scaled by a factor from 1 minus this to 1 plus this."""
    noise: Annotated[float, Field(ge=0, le=1), Option(unit="BONES")] = 0.02
    """Standard deviation of the noise added to every joint, in mean lengths of a bone."""
    tempo: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    """Length of the window that is resampled to a snippet: 1 minus this to 1 plus this times a
    snippet."""


class PoseEncoderSettings(Settings):
    """How 2s-AGCN is trained (``vidkd train-encoder --modality pose``)."""

    network: PoseNetworkSettings = PoseNetworkSettings()
    inputs: PoseInputSettings = PoseInputSettings()
    augmentation: Annotated[PoseAugmentation, Option("augment")] = PoseAugmentation()
    epochs: Annotated[int, Field(ge=1), Option(common=True)] = 30
    """Epochs to train, of --snippets-per-epoch snippets each."""
    batch_size: Annotated[int, Field(ge=2), Option(unit="SNIPPETS", common=True)] = 32
    """Snippets per step of the optimiser."""
    learning_rate: Annotated[float, Field(gt=0), Option(common=True)] = 2e-3
    """Learning rate of AdamW at the start; it falls to zero along a half cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Weight decay of AdamW."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the features that are set to zero before the classifier in training."""
    snippets_per_epoch: Annotated[int, Field(ge=1), Option(unit="SNIPPETS")] = 2048
    """Snippets drawn for an epoch."""
    seed: int = 0
    """Seed of everything random."""

    @model_validator(mode="after")
    def _one_batch(self) -> PoseEncoderSettings:
        if self.snippets_per_epoch < self.batch_size:
            raise ValueError("an epoch must hold at least one batch")
        return self
