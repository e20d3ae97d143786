"""Fine-tuning of an encoder on labelled snippets of RGB or flow."""

from __future__ import annotations

from vidkd.finetuning.job import FinetuneJob, FinetuneResult
from vidkd.finetuning.training import train_encoder

__all__ = ["FinetuneJob", "FinetuneResult", "train_encoder"]
