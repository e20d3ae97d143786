"""Fine-tuning of an encoder on labelled snippets of RGB or flow."""

from __future__ import annotations

from vidkd.finetuning.job import FinetuneResult
from vidkd.finetuning.training import train_encoder

__all__ = ["FinetuneResult", "train_encoder"]
