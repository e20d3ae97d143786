"""Evaluation: frame mAP and event mAP, under protocols with names."""

from vidkd.evaluation.predictions import (
    DenseScores,
    Detection,
    read_dense_scores,
    read_detections,
    write_dense_scores,
    write_detections,
)

__all__ = [
    "DenseScores",
    "Detection",
    "read_dense_scores",
    "read_detections",
    "write_dense_scores",
    "write_detections",
]
