"""vidkd: find actions in long, untrimmed video from RGB alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.3.0"

if TYPE_CHECKING:
    from vidkd.detection.detector import detect
    from vidkd.networks import load_encoder

__all__ = ["__version__", "detect", "load_encoder"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, which `vidkd --help` should not pay for.
    if name == "detect":
        from vidkd.detection.detector import detect

        return detect
    if name == "load_encoder":
        from vidkd.networks import load_encoder

        return load_encoder
    raise AttributeError(f"module 'vidkd' has no attribute {name!r}")
