"""Networks as plain torch modules, and the loading of their weights."""

from __future__ import annotations

from vidkd.networks.device import select_device
from vidkd.networks.fetching import ensure_weights, fetch
from vidkd.networks.filter_weights import (
    FilterHeader,
    load_temporal_filter,
    save_temporal_filter,
)
from vidkd.networks.temporal import TemporalFilter, TemporalOutput, build_temporal_filter
from vidkd.networks.weights import load_weights, save_weights
from vidkd.networks.zoo import (
    DEFAULT_ENCODER,
    Encoder,
    find_card,
    load_encoder,
    load_network,
    models_folder,
    trained_file,
)

__all__ = [
    "DEFAULT_ENCODER",
    "Encoder",
    "FilterHeader",
    "TemporalFilter",
    "TemporalOutput",
    "build_temporal_filter",
    "ensure_weights",
    "fetch",
    "find_card",
    "load_encoder",
    "load_network",
    "load_temporal_filter",
    "load_weights",
    "models_folder",
    "save_temporal_filter",
    "save_weights",
    "select_device",
    "trained_file",
]
