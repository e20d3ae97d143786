"""What the training of an encoder of any kind leaves: its best weights, and the result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from vidkd.distillation.epochs import Epochs
from vidkd.finetuning.card import save_encoder
from vidkd.finetuning.data import SnippetData
from vidkd.finetuning.job import FinetuneResult
from vidkd.finetuning.pose_data import PoseData
from vidkd.recipe import ModelCard

BEFORE_THE_FIRST = {"epoch": 0, "map": -1.0, "sha256": ""}
"""What stands for the best epoch before there is one."""


def keep_if_best(
    epochs: Epochs,
    score: float,
    network: nn.Module,
    card: ModelCard,
    data: SnippetData | PoseData,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write the weights of the epoch that has ended if none before it was better.

    Args:
        epochs: of the run; its best epoch is replaced.
        score: snippet mAP on validation videos, in [0, 1].
        network: with the weights.
        card: of the encoder.
        data: what it is trained on.
        about: what else the file is to say of its training.
    """
    if score <= epochs.best["map"]:
        return
    training = {
        "annotations_sha256": data.identity["annotations_sha256"],
        **(about or {}),
        "videos": len(data.training),
        "epoch": epochs.number,
        "validation_map": score,
    }
    digest = save_encoder(epochs.folder.weights, network, card, data.classes, training)
    epochs.best = {"epoch": epochs.number, "map": score, "sha256": digest}


def encoder_result(
    output: Path, card: ModelCard, data: SnippetData | PoseData, epochs: Epochs
) -> FinetuneResult:
    """Return what a run that has done all its epochs found."""
    return FinetuneResult(
        output=output,
        encoder=card.name,
        weights_sha256=epochs.best["sha256"],
        best_epoch=epochs.best["epoch"],
        epochs=epochs.number,
        validation_map=epochs.best["map"],
        training_videos=len(data.training),
        validation_videos=len(data.validation),
        seconds=round(epochs.seconds, 2),
    )
