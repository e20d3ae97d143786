"""The network in training: head, frozen layers and batch normalisation."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vidkd.errors import UsageError
from vidkd.networks.encoders import EncoderNetwork
from vidkd.recipe.choices import BatchNorm

HEAD_RATE = 10.0
"""The new classifier learns this much faster than the pretrained layers."""


def replace_head(network: EncoderNetwork, classes: int, dropout: float, seed: int) -> None:
    """Give the network a new classifier, drawn from the seed."""
    generator = torch.Generator().manual_seed(seed)
    before = network.classifier
    head = nn.Linear(network.width if before is None else before.in_features, classes)
    with torch.no_grad():
        head.weight.normal_(0, 0.01, generator=generator)
        head.bias.zero_()
    network.replace_classifier(head, dropout)


def stages_until(network: EncoderNetwork, last: str | None) -> list[nn.Module]:
    """Return the stages of a network up to the one called ``last``; none for None.

    Raises:
        UsageError: it has no such stage.
    """
    if last is None:
        return []
    stages = network.stages()
    if last not in stages:
        raise UsageError(
            f"there is no layer {last!r} to freeze up to",
            remedy=f"give --freeze-until one of {', '.join(stages)}",
        )
    return list(stages.values())[: list(stages).index(last) + 1]


class Tuned(nn.Module):
    """An encoder of which some layers, or the statistics of the batch normalisation, stand still.

    Args:
        network: the encoder with its new classifier.
        freeze_until: last of the frozen stages; None freezes none.
        batch_norm: with ``train`` the statistics of the layers that are not frozen are updated.
    """

    def __init__(
        self, network: EncoderNetwork, freeze_until: str | None, batch_norm: BatchNorm
    ) -> None:
        super().__init__()
        self.network = network
        self._frozen = stages_until(network, freeze_until)
        self._keeps_statistics = batch_norm != "train"
        for layer in self._frozen:
            layer.requires_grad_(False)

    def train(self, mode: bool = True) -> Tuned:
        """Enter training or evaluation mode; what stands still stays in evaluation mode."""
        super().train(mode)
        for layer in self._frozen:
            layer.eval()
        if self._keeps_statistics:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Map snippets (B, C, T, S, S) in [-1, 1] to logits (B, 1, K)."""
        return self.network.logits(x).unsqueeze(1)

    def groups(self, learning_rate: float) -> list[dict[str, object]]:
        """Return the parameters that learn, for the optimiser; the head at its own rate."""
        assert self.network.classifier is not None
        head = list(self.network.classifier.parameters())
        heads = {id(parameter) for parameter in head}
        body = [p for p in self.network.parameters() if p.requires_grad and id(p) not in heads]
        groups: list[dict[str, object]] = [{"params": head, "lr": HEAD_RATE * learning_rate}]
        if body:
            groups.append({"params": body, "lr": learning_rate})
        return groups


@torch.no_grad()
def recalibrate(network: EncoderNetwork, batches: Iterable[Tensor]) -> None:
    """Replace the statistics of every batch normalisation by those of these snippets.

    The plain average of the batches' statistics, each layer normalised by its batch ("precise
    batch normalisation", Wu and Johnson 2021, "Rethinking Batch in BatchNorm", section 3). No
    label is used. A network inflated from RGB carries statistics of RGB, which flow, mostly zero,
    is far from.

    Args:
        network: changed in place; left in evaluation mode.
        batches: snippets (B, C, T, S, S) in [-1, 1], some dozens in all.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    for batch in batches:
        network.features(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
