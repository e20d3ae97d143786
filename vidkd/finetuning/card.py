"""A fine-tuned encoder on disk: weights with their model card, usable like one of the zoo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from vidkd.finetuning.data import SnippetData
from vidkd.finetuning.pose_data import PoseData
from vidkd.networks import zoo
from vidkd.networks.agcn_weights import NETWORK
from vidkd.recipe import ModelCard
from vidkd.recipe.jobs import FinetuneJob, PoseEncoderJob


def trained_card(job: FinetuneJob, start: ModelCard, data: SnippetData) -> ModelCard:
    """Return the model card of the encoder that a run trains."""
    return start.model_copy(
        update={
            "name": job.card_name,
            "description": f"{start.name}, fine-tuned by vidkd on {len(data.training)} videos of "
            f"{len(data.classes)} classes",
            "classes": None,
            "frames": data.frames,
            "snippet": job.snippet,
            "crop": job.crop,
            "weights": (),
            "licence": f"as {start.name}, and the terms of the training videos",
            "source": "vidkd train-encoder",
            "reference": None,
        }
    )


def pose_card(job: PoseEncoderJob, data: PoseData, feature_dim: int) -> ModelCard:
    """Return the model card of the encoder that a run trains."""
    return ModelCard(
        name=job.card_name,
        network=NETWORK,
        modality="pose",
        description=f"2s-AGCN, trained by vidkd on {len(data.training)} videos of "
        f"{len(data.classes)} classes",
        feature_dim=feature_dim,
        in_channels=3,
        frames=data.frames,
        snippet=job.snippet,
        pose_network=job.network,
        pose_inputs=job.inputs,
        weights=(),
        licence="the terms of the training videos",
        source="vidkd train-encoder --modality pose",
    )


def save_encoder(
    path: Path,
    network: nn.Module,
    card: ModelCard,
    classes: tuple[str, ...],
    training_data: dict[str, Any],
) -> str:
    """Write weights and card into one file, and the card beside it for people to read.

    Returns:
        the hash of the weights, as the provenance of features will have it.
    """
    state = {
        name: value.detach().cpu().float()
        for name, value in network.state_dict().items()
        if not name.endswith("batches_tracked")
    }
    beside = path.with_name("card.yaml")
    return zoo.save_encoder(
        path, state, card, beside, classes=list(classes), training_data=training_data
    )
