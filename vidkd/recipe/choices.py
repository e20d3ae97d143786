"""The names that settings choose among."""

from __future__ import annotations

from typing import Literal

Modality = str
"""A key of :data:`vidkd.streams.STREAMS`, which installed packages add to."""

STUDENT_STREAM: Modality = "rgb"
"""The stream of students unless another is asked for; a video is sure to have it at run time."""

STUDENT_STREAMS: tuple[Modality, ...] = (STUDENT_STREAM, "rgb-person")
"""Streams of which a model without teachers is a vanilla student, not a teacher."""


FeatureType = Literal["float16", "float32"]
"""Type of features on disk."""


Precision = Literal["auto", "float32", "float16", "int8"]
"""Arithmetic of an encoder. ``auto`` is what the encoder was made for: float32, or int8 if it is a
quantised one; it never changes what is computed. ``float16`` needs a GPU, ``int8`` a quantised
form (``vidkd models quantise``)."""


TrainingPrecision = Literal["auto", "float32", "bf16", "fp16"]
"""Type that convolutions are computed in while an encoder is trained. ``auto`` is bf16 on a GPU
that has it, fp16 on one that has not, and float32 on a CPU."""


BatchNorm = Literal["train", "frozen", "recalibrate"]
"""What happens to the statistics of the batch normalisation while an encoder is trained."""


FilterKind = str
"""A key of :data:`vidkd.networks.temporal.FILTERS`, which installed packages add to."""
