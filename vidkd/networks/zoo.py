"""The model zoo: from a model card to an encoder that is ready to run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from vidkd.errors import UsageError, WeightsError
from vidkd.files import resources
from vidkd.networks.device import select_device
from vidkd.networks.i3d import I3D
from vidkd.networks.i3d_inference import InferenceI3D, keep_freed_memory
from vidkd.networks.weights import load_state, load_weights, state_sha256
from vidkd.recipe import ModelCard, model_cards

DEFAULT_ENCODER = "i3d-rgb-kinetics400"
TRAINED_ENCODER = "encoder.safetensors"
"""The file of a fine-tuned encoder in its run folder."""


def models_folder() -> Path:
    """Return where converted weights are kept: ``$VIDKD_MODELS``, or the user's cache folder."""
    chosen = os.environ.get("VIDKD_MODELS")
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "vidkd" / "models"


def weights_path(card: ModelCard) -> Path:
    """Return where the converted weights of a card are kept, whether they are there or not."""
    return models_folder() / f"{card.name}.safetensors"


def trained_file(name: str) -> Path | None:
    """Return the weights file of a fine-tuned encoder, or None when ``name`` is not one.

    ``name`` is a run folder of ``vidkd train-encoder``, its ``encoder.safetensors``, or the name
    under which such a file was copied into the models folder. The cards of the zoo come first.
    """
    if name in model_cards():
        return None
    path = Path(name)
    candidates = [path / TRAINED_ENCODER, path]
    if path.name == name:
        candidates.append(models_folder() / f"{name}.safetensors")
    return next((f for f in candidates if f.suffix == ".safetensors" and f.is_file()), None)


def find_card(name: str) -> ModelCard:
    """Return the model card called ``name``, or that of a fine-tuned encoder (a path).

    Raises:
        UsageError: there is none.
        WeightsError: the fine-tuned encoder is damaged, or another kind of weights.
    """
    if (path := trained_file(name)) is not None:
        return trained_card(path, load_weights(path)[1])
    cards = model_cards()
    if name not in cards:
        raise UsageError(
            f"there is no model {name!r}",
            remedy=f"give one of {', '.join(cards)}, or a run folder of `vidkd train-encoder`",
        )
    return cards[name]


def trained_card(path: Path, header: dict[str, Any]) -> ModelCard:
    """Return the card in the header of a fine-tuned encoder.

    Raises:
        WeightsError: it has none.
    """
    try:
        return ModelCard.model_validate(header["model_card"])
    except (KeyError, ValidationError) as error:
        raise WeightsError(
            "is not an encoder with a model card",
            path=path,
            remedy="give a run folder of `vidkd train-encoder`",
        ) from error


def class_names(card: ModelCard) -> tuple[str, ...] | None:
    """Return the labels of a card's logits in their order, or None when it has no label list."""
    if card.classes is None:
        return None
    text = (resources("models") / card.classes).read_text(encoding="utf-8")
    return tuple(text.splitlines())


class Encoder(nn.Module):
    """A frozen encoder in evaluation mode, ready to run on its device.

    Attributes:
        card: the model card.
        weights_sha256: hash of the weights' names, shapes and values; it identifies what computed
            a feature whatever file the weights came from.
        classes: labels of the logits in order, or None when the network has no such head.
        device: where it runs.
        batch_size: snippets per call that run well on the device. On a CPU more than two only
            spill the caches.
    """

    def __init__(
        self,
        card: ModelCard,
        network: I3D,
        device: torch.device,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        self.card = card
        self.weights_sha256 = state_sha256(
            {n: v for n, v in network.state_dict().items() if not n.endswith("batches_tracked")}
        )
        self.classes = class_names(card) if classes is None else classes
        self.device = device
        self.batch_size = 2 if device.type == "cpu" else 32
        if device.type == "cpu":
            keep_freed_memory()
        self.network = InferenceI3D(network).to(device)
        self.eval()

    @torch.no_grad()
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features and logits in one pass.

        Args:
            x: (B, C, T, S, S) float in [-1, 1] on any device; C = 3 for RGB, 2 for flow; T at
                least 8 frames; S at least 32 pixels.

        Returns:
            features (B, 1024), the mean over time and space of Mixed_5c, and logits (B, K).
        """
        if x.ndim != 5 or x.shape[1] != self.card.in_channels:
            raise ValueError(
                f"{self.card.name} expects (B, {self.card.in_channels}, T, S, S), "
                f"got {tuple(x.shape)}"
            )
        if self.device.type == "cpu":
            features, logits = self.network(x.to(self.device, torch.float32))
            return features, logits
        # cuDNN would round to TF32, which is off by 1e-3: features are to be the same everywhere.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            features, logits = self.network(x.to(self.device, torch.float32))
        return features, logits

    def features(self, x: Tensor) -> Tensor:
        """Map snippets (B, C, T, S, S) in [-1, 1] to features (B, 1024)."""
        return self(x)[0]

    def logits(self, x: Tensor) -> Tensor:
        """Map snippets (B, C, T, S, S) in [-1, 1] to logits (B, K)."""
        return self(x)[1]


def load_network(name: str) -> tuple[I3D, ModelCard]:
    """Load the trainable network of a card, on the CPU and in evaluation mode.

    Args:
        name: of a model card, or the path of a fine-tuned encoder.

    Raises:
        UsageError: there is no such model.
        WeightsError: its weights were not fetched yet, or the file is damaged.
    """
    network, card, _ = _load(name)
    return network, card


def _load(name: str) -> tuple[I3D, ModelCard, tuple[str, ...] | None]:
    """Load the network, its card and, of a fine-tuned encoder, the labels of its logits."""
    trained = trained_file(name)
    card = find_card(name)
    path = trained or weights_path(card)
    remedy = "train or copy it again" if trained else f"run `vidkd models fetch {name}`"
    if not path.is_file():
        raise WeightsError(
            f"the weights of {name} are not on this machine", path=path, remedy=remedy
        )
    state, header = load_weights(path)
    if header["network"] != card.network or header.get("card") != card.name:
        raise WeightsError(
            f"holds {header.get('card') or header['network']}, not {name}",
            path=path,
            remedy=remedy,
        )
    if header.get("weights_sha256") != state_sha256(state):
        raise WeightsError(
            "was damaged since it was written (its content has another hash)",
            path=path,
            remedy=remedy,
        )
    with torch.device("meta"):
        network = I3D(card.in_channels, len(state.get("classifier.bias", ())))
    load_state(network, state, path, assign=True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            # Not stored, since nothing reads it; on the meta device it could not be moved.
            module.num_batches_tracked = torch.zeros((), dtype=torch.long)
    classes = tuple(map(str, header.get("classes") or ())) if trained else None
    return network.eval(), card, classes


def load_encoder(name: str = DEFAULT_ENCODER, device: str | torch.device = "auto") -> Encoder:
    """Load an encoder of the zoo for inference.

    Args:
        name: of a model card (``vidkd models list``), or the path of a fine-tuned encoder.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError: there is no such model or device.
        WeightsError: its weights were not fetched yet, or the file is damaged.
    """
    target = device if isinstance(device, torch.device) else select_device(device)
    network, card, classes = _load(name)
    return Encoder(card, network, target, classes)
