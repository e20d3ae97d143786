"""The names that settings choose among."""

from __future__ import annotations

from typing import Literal

Modality = str
"""A key of :data:`vidkd.streams.STREAMS`, which installed packages add to."""


Precision = Literal["auto", "float32", "float16", "int8"]
"""Arithmetic of an encoder. ``auto`` is what the encoder was made for: float32, or int8 if it is a
quantised one; it never changes what is computed. ``float16`` needs a GPU, ``int8`` a quantised
form (``vidkd models quantise``)."""


FilterKind = str
"""A key of :data:`vidkd.networks.temporal.FILTERS`, which installed packages add to."""
