"""The model zoo: from a model card to an encoder that is ready to run."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from vidkd.errors import UsageError, WeightsError
from vidkd.files import resources
from vidkd.networks.device import select_device
from vidkd.networks.i3d import I3D
from vidkd.networks.i3d_inference import InferenceI3D, keep_freed_memory
from vidkd.networks.weights import load_state, load_weights, state_sha256
from vidkd.recipe import ModelCard, model_cards

DEFAULT_ENCODER = "i3d-rgb-kinetics400"


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


def find_card(name: str) -> ModelCard:
    """Return the model card called ``name``.

    Raises:
        UsageError: there is none.
    """
    cards = model_cards()
    if name not in cards:
        raise UsageError(f"there is no model {name!r}", remedy=f"give one of {', '.join(cards)}")
    return cards[name]


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

    def __init__(self, card: ModelCard, network: I3D, device: torch.device) -> None:
        super().__init__()
        self.card = card
        self.weights_sha256 = state_sha256(
            {n: v for n, v in network.state_dict().items() if not n.endswith("batches_tracked")}
        )
        self.classes = class_names(card)
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

    Raises:
        UsageError: there is no such model.
        WeightsError: its weights were not fetched yet, or the file is damaged.
    """
    card = find_card(name)
    path = weights_path(card)
    if not path.is_file():
        raise WeightsError(
            f"the weights of {name} are not on this machine",
            path=path,
            remedy=f"run `vidkd models fetch {name}`",
        )
    state, header = load_weights(path)
    if header["network"] != card.network or header.get("card") != card.name:
        raise WeightsError(
            f"holds {header.get('card') or header['network']}, not {name}",
            path=path,
            remedy=f"run `vidkd models fetch {name}`",
        )
    if header.get("weights_sha256") != state_sha256(state):
        raise WeightsError(
            "was damaged since it was written (its content has another hash)",
            path=path,
            remedy=f"run `vidkd models fetch {name}`",
        )
    with torch.device("meta"):
        network = I3D(card.in_channels, len(state.get("classifier.bias", ())))
    load_state(network, state, path, assign=True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            # Not stored, since nothing reads it; on the meta device it could not be moved.
            module.num_batches_tracked = torch.zeros((), dtype=torch.long)
    return network.eval(), card


def load_encoder(name: str = DEFAULT_ENCODER, device: str | torch.device = "auto") -> Encoder:
    """Load an encoder of the zoo for inference.

    Args:
        name: of a model card (``vidkd models list``).
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError: there is no such model or device.
        WeightsError: its weights were not fetched yet, or the file is damaged.
    """
    target = device if isinstance(device, torch.device) else select_device(device)
    network, card = load_network(name)
    return Encoder(card, network, target)
