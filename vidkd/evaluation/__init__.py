"""Evaluation: frame mAP and event mAP, under protocols with names."""

from vidkd.evaluation.frames import frame_ap, upsample_scores
from vidkd.evaluation.predictions import (
    DenseScores,
    Detection,
    read_dense_scores,
    read_detections,
    write_dense_scores,
    write_detections,
)
from vidkd.evaluation.protocols import PROTOCOLS, evaluate
from vidkd.evaluation.result import EvaluationResult

__all__ = [
    "PROTOCOLS",
    "DenseScores",
    "Detection",
    "EvaluationResult",
    "evaluate",
    "frame_ap",
    "read_dense_scores",
    "read_detections",
    "upsample_scores",
    "write_dense_scores",
    "write_detections",
]
