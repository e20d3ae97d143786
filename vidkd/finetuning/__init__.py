"""Training of encoders on labelled snippets of RGB, flow or poses."""

from vidkd.finetuning.training import FinetuneResult, train_encoder

__all__ = ["FinetuneResult", "train_encoder"]
