"""Teacher and student training: the losses of the paper and what it compares with."""

from vidkd.distillation.training import TrainResult, train

__all__ = ["TrainResult", "train"]
