"""Checking stored weights: hash, shapes, and an output that the model card knows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vidkd.errors import WeightsError
from vidkd.networks.zoo import load_encoder
from vidkd.recipe import ModelCard


@dataclass(frozen=True)
class Verification:
    """What :func:`verify_weights` found."""

    name: str
    passed: bool
    message: str
    weights_sha256: str | None = None
    error: float | None = None
    """Largest difference to the card's features, relative to the largest of them."""


def generated_snippet(in_channels: int, crop: int, length: int = 16) -> Tensor:
    """Return the snippet (1, C, T, S, S) in [-1, 1] that reference outputs are computed from.

    A slanted ramp of 256 grey levels that moves over time, in integer arithmetic, so that every
    machine makes the same one: ``(7 y + 3 x + 11 t + 85 c) mod 256``.
    """
    c, t, y, x = torch.meshgrid(
        *(torch.arange(size) for size in (in_channels, length, crop, crop)), indexing="ij"
    )
    levels = (7 * y + 3 * x + 11 * t + 85 * c) % 256
    return (levels.float() / 127.5 - 1).unsqueeze(0)


def verify_weights(card: ModelCard) -> Verification:
    """Check the stored weights of a card.

    Returns:
        whether they can be trusted, and why (not); a missing file does not pass.
    """
    try:
        encoder = load_encoder(card.name, "cpu")
    except WeightsError as error:
        return Verification(card.name, False, str(error))
    digest = encoder.weights_sha256
    reference = card.reference
    if reference is None or reference.weights_sha256 != digest:
        why = "the card has no reference output" if reference is None else "from another source"
        return Verification(
            card.name, True, f"whole, hash agrees; values not compared ({why})", digest
        )
    snippet = generated_snippet(card.in_channels, reference.crop, card.snippet.length)
    features = encoder.features(snippet)[0]
    expected = torch.tensor(list(reference.features.values()))
    found = features[list(reference.features)]
    deviation = float((found - expected).abs().max() / expected.abs().max())
    passed = deviation <= reference.tolerance
    message = f"whole, hash agrees; features within {deviation:.1e} of the card's"
    if not passed:
        message += f", where {reference.tolerance:.0e} is allowed: this machine computes wrongly"
    return Verification(card.name, passed, message, digest, deviation)
