"""What an encoder is: a network that turns clips into features, and the family that builds it.

A family (Inception-I3D, the networks of a library) is one object with the cards it brings and
`build`; ``vidkd.networks.zoo.ENCODERS`` lists them by the ``network`` of their cards. Everything
else asks the card and the network, never for a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vidkd.errors import WeightsError
from vidkd.networks.weights import load_state
from vidkd.recipe import ModelCard


class EncoderNetwork(nn.Module):
    """A network that turns clips into features, in the form it is trained in.

    Attributes:
        width: D, of the features.
        classifier: maps what the network ends with, for most its features, to logits; None without
            classes.
        precision: its arithmetic; ``int8`` networks run on the CPU only.
    """

    width: int
    classifier: nn.Linear | None
    precision: Literal["float32", "int8"] = "float32"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map clips to features and logits in one pass.

        Args:
            x: (B, C, T, S, S) float, normalised as the card says.

        Returns:
            features (B, D), and logits (B, K) or None.
        """
        raise NotImplementedError

    def features(self, x: Tensor) -> Tensor:
        """Map clips (B, C, T, S, S) to features (B, D)."""
        features: Tensor = self(x)[0]
        return features

    def logits(self, x: Tensor) -> Tensor:
        """Map clips (B, C, T, S, S) to logits (B, K); the network must have a classifier."""
        logits = self(x)[1]
        assert logits is not None
        return logits

    def inference(self) -> nn.Module:
        """Return what computes the same faster without gradients; it may be the network itself."""
        return self

    def stages(self) -> dict[str, nn.Module]:
        """Return the layers before the classifier by name, first to last, for freezing."""
        return {name: m for name, m in self.named_children() if m is not self.classifier}

    def replace_classifier(self, classifier: nn.Linear, dropout: float) -> None:
        """Put another classifier in place, behind dropout of that probability in training."""
        self.classifier = classifier


class EncoderFamily:
    """Encoders that are built alike.

    Attributes:
        names: of the cards that `card` can give.
    """

    names: tuple[str, ...] = ()

    def card(self, name: str) -> ModelCard:
        """Return the card called ``name``, one of `names`."""
        raise NotImplementedError

    def build(
        self, card: ModelCard, state: Mapping[str, Tensor], path: str | Path
    ) -> EncoderNetwork:
        """Return the network of a card with its weights, in evaluation mode on the CPU.

        Args:
            card: which network.
            state: the tensors of a stored weights file.
            path: that file, for messages.

        Raises:
            WeightsError: these are not the weights of this network.
        """
        raise NotImplementedError

    def convert(
        self, card: ModelCard, tensors: Mapping[str, Tensor], path: str | Path
    ) -> dict[str, Tensor]:
        """Return the state that `build` takes, made of the tensors of the library's own file.

        Raises:
            WeightsError: they are of another network; the message names ``path``.
        """
        return dict(tensors)

    def adopt(self, source: str, name: str) -> tuple[ModelCard, dict[str, Tensor]] | None:
        """Make a card called ``name``, and the state, of a network that has no card yet.

        Args:
            source: a folder, or a name that the library knows.
            name: what to call it.

        Returns:
            None when the library knows nothing of that kind.

        Raises:
            WeightsError: it cannot be read.
        """
        return None


def fill(
    network: EncoderNetwork, card: ModelCard, state: Mapping[str, Tensor], path: str | Path
) -> EncoderNetwork:
    """Put stored weights into a network, which may live on the meta device.

    Raises:
        WeightsError: they do not fit, or the network's width is not that of the card.
    """
    load_state(network, state, path, assign=True)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            # Not stored, since nothing reads it; on the meta device it could not be moved.
            module.num_batches_tracked = torch.zeros((), dtype=torch.long)
    if network.width != card.feature_dim:
        raise WeightsError(
            f"gives features of width {network.width}, but its card says {card.feature_dim}",
            path=path,
            remedy="fetch or train it again",
        )
    return network.eval()
