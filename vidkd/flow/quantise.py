"""Flow in 8 bits: the scheme ``symmetric-128``, in which zero motion decodes to exactly zero.

Flow is clipped to ``[-bound, bound]`` pixels and mapped to the 255 values 1..255 around 128:
``q = round(v * 127 / bound) + 128``. The value 0 is never written. The common alternatives map
the interval to 0..255, where zero falls between two values and a still scene decodes to a drift.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

SCHEME: Final = "symmetric-128"
"""Name of the scheme, for the provenance of a cache file."""

_LEVELS = 127
_ZERO = 128


def quantise(flow: NDArray[np.floating], bound: float = 20.0) -> NDArray[np.uint8]:
    """Store flow in 8 bits.

    Args:
        flow: any shape, pixels per frame, finite.
        bound: pixels at which flow is clipped.

    Returns:
        Same shape, 1..255; 128 is zero motion. Inside the bound the error of a round trip is at
        most ``bound / 254`` pixels (0.079 at the default bound).
    """
    levels = np.rint(np.clip(flow, -bound, bound) * (_LEVELS / bound))
    # Adding after rounding keeps the scheme odd: quantise(-v) mirrors quantise(v) around 128.
    return (levels + _ZERO).astype(np.uint8)


def dequantise(stored: NDArray[np.uint8], bound: float = 20.0) -> NDArray[np.float32]:
    """Recover flow in pixels per frame from its 8-bit form; 128 becomes exactly zero.

    Args:
        stored: any shape, as :func:`quantise` returns it.
        bound: the bound it was stored with.
    """
    table = (np.arange(256) - _ZERO) * (bound / _LEVELS)
    return table.astype(np.float32)[stored]
