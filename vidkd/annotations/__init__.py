"""Annotations: one internal model, and one reader for every data set's own format."""

from vidkd.annotations.model import (
    AMBIGUOUS,
    Annotations,
    Segment,
    VideoAnnotation,
    check,
    clipped,
    snippet_targets,
)
from vidkd.annotations.readers import FORMATS, load_annotations

__all__ = [
    "AMBIGUOUS",
    "FORMATS",
    "Annotations",
    "Segment",
    "VideoAnnotation",
    "check",
    "clipped",
    "load_annotations",
    "snippet_targets",
]
