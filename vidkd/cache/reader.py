"""Reading one cache file, and judging whether it holds what is asked for."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal, NamedTuple, Self

import h5py
import hdf5plugin  # noqa: F401 - importing it makes HDF5 able to read zstd
import numpy as np

from vidkd.cache.layout import DTYPES, SCHEMA_VERSION, as_text, first_line, from_attributes
from vidkd.cache.packs import open_stored, present
from vidkd.cache.provenance import Provenance, differences
from vidkd.errors import CacheError, VidkdError
from vidkd.storage import as_path

RECOMPUTE = "recompute it with --overwrite"

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Far above any row written here (a 2160-pixel flow field is 17 MB), far below what hurts.
_LARGEST_CHUNK = 1 << 28


class CacheFile:
    """One cache file opened for reading; a context manager.

    Attributes:
        path: the file.
        provenance: what the rows come from.
        data: h5py dataset (T, ...); read through ``rows`` for errors that name the file.
        pts: (T, 2) float64, start and end second of every row.
        sha256: hash of the content, as recorded.
        size: bytes of the file.

    Raises:
        CacheError: the file is missing, cut short, damaged, or not a cache file of this schema.
    """

    def __init__(self, path: Path) -> None:
        self.path = as_path(path)
        stream, self.size = _opened(self.path)
        with _read_errors(self.path):
            if isinstance(getattr(stream, "raw", None), io.FileIO):
                stream.close()
                self._file = h5py.File(self.path, "r", locking=False)
            else:
                self._file = h5py.File(stream, "r")
        try:
            with _read_errors(self.path):
                version = self._file.attrs.get("schema_version")
                if version is None:
                    raise _damaged(self.path, "is not a vidkd cache file")
                if int(version) != SCHEMA_VERSION:
                    raise CacheError(
                        f"has schema version {int(version)}, this vidkd reads {SCHEMA_VERSION}",
                        path=self.path,
                        remedy=RECOMPUTE,
                    )
                self.provenance = from_attributes(self._file.attrs)
                self.sha256 = as_text(self._file.attrs["sha256"])
                if "jpeg" in self._file:
                    raise CacheError(
                        "holds flow as JPEG, which vidkd reads no more",
                        path=self.path,
                        remedy="compute it again with `vidkd extract-flow --overwrite`",
                    )
                self.data = _checked(self.path, self._file, "data")
                points = _checked(self.path, self._file, "pts")
                if points.shape != (len(self.data), 2) or points.dtype != np.float64:
                    raise _damaged(self.path, "has another number of rows in data and pts")
                self.pts: np.ndarray = points[:]
        except BaseException:
            self._file.close()
            raise

    @property
    def width(self) -> int:
        """D, where the rows are features (T, D).

        Raises:
            CacheError: they are something else.
        """
        if self.provenance.artefact != "features" or self.data.ndim != 2:
            raise CacheError("does not hold features", path=self.path, remedy=RECOMPUTE)
        return int(self.data.shape[1])

    def features(self) -> np.ndarray:
        """Return all rows of features.

        Raises:
            CacheError: the file is damaged, or a number is not finite.
        """
        rows = self.rows()
        if not np.isfinite(rows).all():
            raise CacheError(
                "holds numbers that are not finite",
                path=self.path,
                remedy="compute the features again, as float32 if they overflow float16",
            )
        return rows

    def __len__(self) -> int:
        return len(self.pts)

    def rows(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Read rows ``start`` to ``stop`` (exclusive) as (n, ...).

        Raises:
            CacheError: the stored bytes do not match their check sum.
        """
        with _read_errors(self.path):
            return np.asarray(self.data[start:stop])

    @property
    def more_names(self) -> list[str]:
        """Names of the further datasets, sorted."""
        with _read_errors(self.path):
            return sorted(set(self._file) - {"data", "pts"})

    def more(self, name: str) -> np.ndarray:
        """Read a further dataset, (T, ...), such as ``tracks`` of poses.

        Raises:
            CacheError: there is none of that name, it is damaged, or has another number of rows.
        """
        with _read_errors(self.path):
            if name not in self._file:
                raise _damaged(self.path, f"lacks the dataset {name!r}")
            dataset = _checked(self.path, self._file, name)
            if len(dataset) != len(self):
                raise _damaged(self.path, f"has another number of rows in data and {name}")
            return np.asarray(dataset[:])

    def blocks(self) -> Iterator[np.ndarray]:
        """Read all rows, a chunk of the file at a time, so that memory stays flat."""
        step = self.data.chunks[0]
        for start in range(0, len(self), step):
            yield self.rows(start, start + step)

    def close(self) -> None:
        """Close the file; ``pts`` and ``provenance`` stay usable."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class State(NamedTuple):
    """What is known about one cache file before work starts."""

    kind: Literal["missing", "fresh", "stale", "broken"]
    reason: str


def state(path: Path, expected: Provenance) -> State:
    """Compare a cache file with what is asked for.

    ``missing``: there is none. ``fresh``: it holds what is asked for. ``stale``: it is sound but
    comes from another video, other settings or other weights; the reason names them. ``broken``:
    it cannot be opened. Rows are not read: that is what ``verify`` does.
    """
    if not present(path):
        return State("missing", "")
    try:
        with CacheFile(path) as found:
            different = differences(found.provenance, expected)
    except CacheError as error:
        return State("broken", error.problem)
    return State("stale", ", ".join(different)) if different else State("fresh", "")


def _opened(path: Path) -> tuple[IO[bytes], int]:
    try:
        stream, size = open_stored(path)
        start = stream.read(len(_SIGNATURE))
    except FileNotFoundError as error:
        raise CacheError(
            "does not exist", path=path, remedy="compute it with the extract commands first"
        ) from error
    except OSError as error:
        raise CacheError(
            f"cannot be read ({error.strerror or error})",
            path=path,
            remedy="check the permissions of the file and its folder",
        ) from error
    if start != _SIGNATURE:
        stream.close()
        raise _damaged(path, "is not an HDF5 file" if start else "is empty")
    return stream, size


def _checked(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset whose declared shape is backed by chunks that are really in the file.

    A shape is only a claim in the header: believing it would let a damaged file allocate any
    amount of memory.
    """
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or not dataset.shape or dataset.chunks is None:
        raise _damaged(path, f"lacks the dataset {name!r}")
    if dataset.dtype.name not in DTYPES or dataset.is_virtual or dataset.external:
        raise _damaged(path, f"holds {name!r} in a form that is not allowed")
    rows, chunk = dataset.shape[0], dataset.chunks
    chunk_bytes = math.prod(chunk) * dataset.dtype.itemsize
    if chunk[1:] != dataset.shape[1:] or chunk_bytes > _LARGEST_CHUNK:
        raise _damaged(path, f"declares impossible sizes for {name!r}")
    if rows < 1 or dataset.id.get_num_chunks() != -(-rows // chunk[0]):
        raise _damaged(path, f"lacks rows of {name!r}")
    return dataset


@contextlib.contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes HDF5 or the parsing of its attributes raise."""
    try:
        yield
    except VidkdError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, ArithmeticError) as error:
        raise _damaged(path, f"is damaged or cut short ({first_line(error)})") from error


def _damaged(path: Path, problem: str) -> CacheError:
    return CacheError(problem, path=path, remedy=RECOMPUTE)
