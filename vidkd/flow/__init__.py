"""Optical flow: TV-L1 between consecutive frames, and its storage in 8 bits."""

from __future__ import annotations

from vidkd.flow.quantise import dequantise, quantise
from vidkd.flow.rows import flow_rows, flow_settings, to_gray
from vidkd.flow.tvl1 import DEFAULTS, Parameters, flow_function, resolve, tvl1

__all__ = [
    "DEFAULTS",
    "Parameters",
    "dequantise",
    "flow_function",
    "flow_rows",
    "flow_settings",
    "quantise",
    "resolve",
    "to_gray",
    "tvl1",
]
