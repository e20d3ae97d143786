"""Networks as plain torch modules, and the loading of their weights."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidkd.networks.cards import (
        DEFAULT_ENCODER,
        ensure_weights,
        find_card,
        models_folder,
        trained_file,
    )
    from vidkd.networks.device import device_name, select_device
    from vidkd.networks.fetching import fetch
    from vidkd.networks.filter_weights import (
        FilterHeader,
        load_temporal_filter,
        save_temporal_filter,
    )
    from vidkd.networks.temporal import TemporalFilter, TemporalOutput, build_temporal_filter
    from vidkd.networks.weights import load_weights, save_weights
    from vidkd.networks.zoo import Encoder, load_encoder, load_network

_MODULES = {
    "cards": "DEFAULT_ENCODER ensure_weights find_card models_folder trained_file",
    "device": "device_name select_device",
    "fetching": "fetch",
    "filter_weights": "FilterHeader load_temporal_filter save_temporal_filter",
    "temporal": "TemporalFilter TemporalOutput build_temporal_filter",
    "weights": "load_weights save_weights",
    "zoo": "Encoder load_encoder load_network",
}

__all__ = [
    "DEFAULT_ENCODER",
    "Encoder",
    "FilterHeader",
    "TemporalFilter",
    "TemporalOutput",
    "build_temporal_filter",
    "device_name",
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


def __getattr__(name: str) -> Any:
    # Not all of them need torch, whose import takes a second.
    for module, names in _MODULES.items():
        if name in names.split():
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
