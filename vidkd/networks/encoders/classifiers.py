"""Classifiers of a library as encoders: what their last projection sees is the feature.

The projection is taken out of the library's network, which then ends with the pooled vector, and
becomes the classifier. Where the library projects every place of a map and averages the results,
the mean is projected instead, which is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vidkd.networks.encoders import EncoderFamily, EncoderNetwork, fill
from vidkd.recipe import ModelCard

KINETICS_400 = "kinetics400.txt"


class Classifier(EncoderNetwork):
    """A network of a library without its last projection, and that projection.

    Args:
        network: the library's; changed.
        projection: the name of its last projection in it, a linear layer or a 1x1x1 convolution.
        slow_every: SlowFast's alpha; 1 for networks with one pathway.
    """

    def __init__(self, network: nn.Module, projection: str, slow_every: int = 1) -> None:
        super().__init__()
        classes, self.width, *_ = network.get_parameter(f"{projection}.weight").shape
        network.set_submodule(projection, nn.Identity())
        self.network = network
        self.classifier = nn.Linear(self.width, classes)
        self.slow_every = slow_every

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map clips (B, C, T, S, S) to features (B, D) and logits (B, K)."""
        features: Tensor = self.network(x if self.slow_every == 1 else self._pathways(x))
        assert self.classifier is not None
        return features, self.classifier(features)

    def _pathways(self, x: Tensor) -> list[Tensor]:
        """Return the clip for the slow pathway, evenly spread to both ends, and the fast one."""
        length = x.shape[2]
        places = torch.linspace(0, length - 1, length // self.slow_every).long()
        return [x[:, :, places.to(x.device)], x]

    def stages(self) -> dict[str, nn.Module]:
        """Return the parts of the library's network, its list of blocks one by one."""
        found: dict[str, nn.Module] = {}
        for name, module in self.network.named_children():
            if isinstance(module, nn.ModuleList | nn.Sequential):
                found |= {f"{name}.{inner}": block for inner, block in module.named_children()}
            else:
                found[name] = module
        return found


class ClassifierFamily(EncoderFamily):
    """Classifiers of one library; the state has the names of `Classifier`."""

    def network(self, card: ModelCard, classes: int) -> tuple[nn.Module, str]:
        """Return the library's network and the name of its projection.

        The weights will be overwritten, so that it may be on the meta device.
        """
        raise NotImplementedError

    def build(
        self, card: ModelCard, state: Mapping[str, Tensor], path: str | Path
    ) -> EncoderNetwork:
        classes = len(state.get("classifier.bias", (0,)))
        network = Classifier(*self.network(card, classes), card.slow_every)
        return fill(network, card, state, path)

    def convert(
        self, card: ModelCard, tensors: Mapping[str, Tensor], path: str | Path
    ) -> dict[str, Tensor]:
        """Rename the tensors of the library's own network."""
        _, projection = self.network(card, 1)
        state = {}
        for name, value in tensors.items():
            if name.startswith(f"{projection}."):
                # A 1x1x1 convolution is a linear layer.
                shape = value.shape[:2]
                state[f"classifier{name.removeprefix(projection)}"] = value.reshape(shape)
            else:
                state[f"network.{name}"] = value
        return state
