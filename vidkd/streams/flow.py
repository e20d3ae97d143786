"""Optical flow, from the cache or computed on the way."""

from __future__ import annotations

from vidkd.streams.base import Stream


class Flow(Stream):
    """TV-L1 flow in 8 bits, one row for each frame."""

    name = "flow"
    label = "OF"
    artefact = "flow"
    command = "extract-flow"
    encoder_modality = "flow"
