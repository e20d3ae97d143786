"""The model zoo: from a model card to an encoder that is ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor, nn

from vidkd.errors import UsageError
from vidkd.extensions import Table
from vidkd.files import write_text
from vidkd.networks.cards import (
    DEFAULT_ENCODER,
    Described,
    class_names,
    described,
    described_in,
)
from vidkd.networks.device import select_device
from vidkd.networks.encoders import (
    EncoderFamily,
    EncoderNetwork,
    inception_i3d,
    pytorchvideo,
    torchvision,
    transformers_hub,
)
from vidkd.networks.i3d_inference import keep_freed_memory
from vidkd.networks.weights import load_weights, save_weights, state_sha256, without_counts
from vidkd.recipe import ModelCard, Precision

ENCODERS: Table[EncoderFamily] = Table(
    "vidkd.encoders",
    "encoder network",
    {
        "i3d": inception_i3d.FAMILY,
        "pytorchvideo": pytorchvideo.FAMILY,
        "torchvision": torchvision.FAMILY,
        "transformers": transformers_hub.FAMILY,
    },
)
"""Who builds the networks of cards, by their field ``network``."""


class Encoder(nn.Module):
    """A frozen encoder in evaluation mode, ready to run on its device.

    Args:
        card: the model card.
        network: trained, or quantised.
        device: where it is to run; a quantised network runs on the CPU only.
        classes: labels of the logits; by default those of the card.
        precision: ``float32``, or ``float16`` for a trained network.
        weights_sha256: hash of the weights when it is known.
        replaces: see below.

    Attributes:
        card: the model card.
        weights_sha256: hash of the weights' names, shapes and values; it identifies what computed
            a feature whatever file the weights came from.
        classes: labels of the logits in order, or None when the network has no such head.
        device: where it runs.
        precision: ``float32``, ``float16`` or ``int8``.
        replaces: hashes of other weights in whose place the user asked for these: those of the
            float32 network that was quantised, or of the quantised network.
        batch_size: snippets per call that run well on the device. On a CPU more than two only
            spill the caches.
    """

    def __init__(
        self,
        card: ModelCard,
        network: EncoderNetwork,
        device: torch.device,
        classes: tuple[str, ...] | None = None,
        *,
        precision: Literal["float32", "float16"] = "float32",
        weights_sha256: str | None = None,
        replaces: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.card = card
        self.weights_sha256 = weights_sha256 or state_sha256(without_counts(network.state_dict()))
        self.classes = (class_names(card) if classes is None else classes) or None
        self.device = device
        self.replaces = replaces
        self.batch_size = 2 if device.type == "cpu" else 32
        if device.type == "cpu":
            keep_freed_memory()
        self._type = torch.float16 if precision == "float16" else torch.float32
        self.precision = network.precision if network.precision == "int8" else precision
        self.network = network.inference().to(device, self._type)
        self.eval()

    @torch.no_grad()
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute features and logits in one pass.

        Args:
            x: (B, C, T, S, S) float on any device, normalised as the card says (for I3D in
                [-1, 1]); C = 3 for RGB, 2 for flow; T and S such as the card allows.

        Returns:
            features (B, D), and logits (B, K) or None without classes, both float32.
        """
        if x.ndim != 5 or x.shape[1] != self.card.in_channels:
            raise ValueError(
                f"{self.card.name} expects (B, {self.card.in_channels}, T, S, S), "
                f"got {tuple(x.shape)}"
            )
        x = x.to(self.device, self._type)
        if self.device.type == "cpu":
            features, logits = self.network(x)
        else:
            # cuDNN would round to TF32, which is off by 1e-3: features are to be the same
            # everywhere.
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                features, logits = self.network(x)
        return features.float(), None if logits is None else logits.float()

    def features(self, x: Tensor) -> Tensor:
        """Map clips (B, C, T, S, S) to features (B, D)."""
        return self(x)[0]

    def logits(self, x: Tensor) -> Tensor:
        """Map clips (B, C, T, S, S) to logits (B, K).

        Raises:
            UsageError: the network has no classes.
        """
        logits = self(x)[1]
        if logits is None:
            raise UsageError(
                f"{self.card.name} has no classes of its own",
                remedy="give a trained student with --model",
            )
        return logits


def load_network(name: str) -> tuple[EncoderNetwork, ModelCard]:
    """Load the trainable network of a card, on the CPU and in evaluation mode.

    Args:
        name: of a model card, or the path of a fine-tuned encoder.

    Raises:
        UsageError: there is no such model, or it is quantised.
        WeightsError: its weights were not fetched yet, or the file is damaged.
    """
    stored = described(name)
    if stored.card.quantisation is not None:
        raise UsageError(
            f"{name} is quantised: it can be run, but not trained or quantised again",
            remedy=f"give {stored.card.quantisation.of}, of which it was made",
        )
    return _network(stored), stored.card


def _network(stored: Described) -> EncoderNetwork:
    state = load_weights(stored.path)[0]
    return ENCODERS[stored.card.network].build(stored.card, state, stored.path)


def save_encoder(
    path: Path,
    state: Mapping[str, Tensor],
    card: ModelCard,
    card_file: Path | None = None,
    **about: Any,
) -> str:
    """Write the weights of an encoder with what `load_encoder` needs to know.

    Args:
        path: the file.
        state: what the family of the card builds its network of.
        card: its card.
        card_file: where a card that does not travel with vidkd is written for people to read;
            it is then in the header too.
        about: more for the header.

    Returns:
        the hash of the weights, as the provenance of features will have it.
    """
    digest = state_sha256(state)
    fields = card.model_dump(mode="json")
    header = {
        "format": 1,
        "network": card.network,
        "card": card.name,
        "modality": card.modality,
        "in_channels": card.in_channels,
        **({} if card_file is None else {"model_card": fields}),
        **about,
        "weights_sha256": digest,
    }
    save_weights(path, state, header)
    if card_file is not None:
        text = yaml.safe_dump({**fields, "weights_sha256": digest}, sort_keys=False)
        write_text(card_file, text)
    return digest


def load_encoder(
    name: str = DEFAULT_ENCODER,
    device: str | torch.device = "auto",
    precision: Precision = "auto",
) -> Encoder:
    """Load an encoder of the zoo for inference.

    Args:
        name: of a model card (``vidkd models list``), the path of a fine-tuned or quantised
            encoder, or the name of one in the models folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto`` takes the encoder as it is. ``int8`` takes its quantised form,
            ``NAME-int8`` in the models folder, which runs on the CPU; ``float32`` takes the
            encoder that a quantised one was made of; ``float16`` needs a GPU.

    Raises:
        UsageError: there is no such model or device, or the device has no such precision.
        WeightsError: its weights were not fetched yet, the file is damaged, or the encoder has no
            such form on this machine.
        VidkdError: it is quantised, and OpenVINO is not installed.
    """
    target = device if isinstance(device, torch.device) else select_device(device)
    stored, replaces = described_in(name, precision)
    if stored.card.quantisation is not None:
        if device != "auto" and target.type != "cpu":
            raise UsageError(
                f"int8 runs on the CPU, not on {target}",
                remedy="give --device cpu, or another --precision",
            )
        target = torch.device("cpu")
    elif precision == "float16" and target.type == "cpu":
        raise UsageError(
            "float16 is for GPUs: on a CPU it would be slower than float32",
            remedy="give --precision float32 or int8",
        )
    return Encoder(
        stored.card,
        _network(stored),
        target,
        stored.classes,
        precision="float16" if precision == "float16" else "float32",
        weights_sha256=stored.weights_sha256,
        replaces=replaces,
    )
