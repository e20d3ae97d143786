"""Annotations: one internal model, and one reader for every data set's own format."""

from vidkd.annotations.model import (
    AMBIGUOUS,
    Annotations,
    Segment,
    VideoAnnotation,
    check,
    snippet_events,
    snippet_targets,
)
from vidkd.annotations.parse import Reader, Source
from vidkd.annotations.readers import READERS, load_annotations, recognise

__all__ = [
    "AMBIGUOUS",
    "READERS",
    "Annotations",
    "Reader",
    "Segment",
    "Source",
    "VideoAnnotation",
    "check",
    "load_annotations",
    "recognise",
    "snippet_events",
    "snippet_targets",
]
