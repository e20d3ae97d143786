"""Rows of 8-bit planes as JPEG: smaller than any lossless form, at a small error.

Every channel of a row is a gray JPEG of its own: the colour transform of JPEG would mix the two
components of a flow field. What is hashed and summed up in a file are the coded bytes, so that
another version of the decoder finds no damage where there is none.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from vidkd.errors import CacheError

QUALITY: Final = 95
JPEG: Final = f"jpeg-{QUALITY}"
"""Name of the codec, for the provenance of a cache file and of what is computed from it."""

_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""JPEG's markers before the size of a baseline, extended or progressive picture."""
_LARGEST_ROW = 1 << 28


def encode_row(row: np.ndarray) -> list[np.ndarray]:
    """Code a row (H, W, C) uint8 as C JPEG pictures, each an array of bytes."""
    import cv2  # here, since whoever only reads a cache of features has no use for it

    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    return [
        cv2.imencode(".jpg", np.ascontiguousarray(row[..., channel]), options)[1]
        for channel in range(row.shape[-1])
    ]


class JpegRows:
    """What the datasets ``jpeg`` and ``ends`` hold, read like an HDF5 dataset (T, H, W, C).

    Args:
        path: the file, for errors.
        coded: (n,) uint8, the pictures one after the other.
        ends: (T, C) int64, where in ``coded`` each picture ends.
        row_shape: (H, W, C).

    Raises:
        ValueError: the three do not fit each other.
    """

    def __init__(
        self, path: Path, coded: h5py.Dataset, ends: np.ndarray, row_shape: tuple[int, ...]
    ) -> None:
        if len(row_shape) != 3 or min(row_shape) < 1 or math.prod(row_shape) > _LARGEST_ROW:
            raise ValueError(f"rows of shape {row_shape}")
        if ends.ndim != 2 or ends.shape[1] != row_shape[2] or coded.ndim != 1:
            raise ValueError("pictures that do not fit the rows")
        self._path = path
        self._coded = coded
        self._bounds = np.concatenate([[0], ends.ravel()])
        if (np.diff(self._bounds) <= 0).any() or self._bounds[-1] != len(coded):
            raise ValueError("the pictures' places contradict each other")
        self.shape = (len(ends), *row_shape)
        self.ndim = len(self.shape)
        self.dtype = np.dtype(np.uint8)
        self.chunks = (1, *row_shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Decode the rows of a slice, (n, H, W, C).

        Raises:
            CacheError: a picture is damaged.
        """
        numbers = range(*rows.indices(len(self)))
        result = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        channels = self.shape[3]
        for place, number in enumerate(numbers):
            for channel in range(channels):
                picture = number * channels + channel
                start, stop = (int(bound) for bound in self._bounds[picture : picture + 2])
                result[place, ..., channel] = self._decoded(self._coded[start:stop], number)
        return result

    def coded_blocks(self) -> Iterator[np.ndarray]:
        """Read the coded bytes, a chunk of the file at a time."""
        step = self._coded.chunks[0]
        for start in range(0, len(self._coded), step):
            yield self._coded[start : start + step]

    def _decoded(self, coded: np.ndarray, number: int) -> np.ndarray:
        import cv2

        # The size is read first: a picture may claim any, and would get the memory for it.
        image: Any = None
        if _size(coded.tobytes()) == self.shape[1:3]:
            with contextlib.suppress(cv2.error):
                image = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)
        if image is None or image.shape != self.shape[1:3]:
            raise CacheError(
                f"row {number} is damaged", path=self._path, remedy="recompute it with --overwrite"
            )
        # Rounding in JPEG can reach the value 0, which no flow is stored as.
        return np.asarray(np.maximum(image, 1))


def _size(coded: bytes) -> tuple[int, int] | None:
    """Return height and width that a JPEG claims, or None if it is none."""
    place = 2
    while coded[:2] == b"\xff\xd8" and place + 9 <= len(coded) and coded[place] == 0xFF:
        marker, length = coded[place + 1], int.from_bytes(coded[place + 2 : place + 4], "big")
        if marker in _FRAMES:
            size = coded[place + 5 : place + 9]
            return int.from_bytes(size[:2], "big"), int.from_bytes(size[2:], "big")
        place += 2 + max(length, 2)
    return None
