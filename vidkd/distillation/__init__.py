"""Teacher and student training: the losses of the paper and what it compares with."""

from vidkd.distillation.job import TrainResult
from vidkd.distillation.training import train

__all__ = ["TrainResult", "train"]
