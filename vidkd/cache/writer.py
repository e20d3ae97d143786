"""Writing one cache file: row by row, atomically, with check sums."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from vidkd.cache.layout import DTYPES, SCHEMA_VERSION, canonical, to_attributes
from vidkd.cache.provenance import Provenance
from vidkd.errors import CacheError
from vidkd.files import atomic_path
from vidkd.storage import as_path

_CHUNK_BYTES = 1 << 18
_ZSTD_LEVEL = 3
"""On flow, level 1 takes 0 to 1 % more room and saves 0.1 ms a frame, of 50 for computing it."""


class CacheWriter:
    """Writes one cache file row by row; the file appears whole, or not at all.

    Use it as a context manager. Rows go to a temporary file beside ``path``, which is flushed to
    disk and renamed when the block ends, and removed when the block raises.

    Args:
        path: the file to write; its folder is made.
        provenance: what the rows come from. Its ``source.frame_count`` is replaced by
            ``frame_count``, which the caller may set before the block ends, and which otherwise
            is the number of rows.
        row_shape: shape of one row, without T.
        dtype: type of ``data`` on disk.
        more: further datasets with one row for each row of ``data``: the shape of a row and the
            type, by name. They are kept in memory until the end, as ``pts`` is.

    Raises:
        VidkdError: the folder cannot be written, or the disk is full.
        CacheError: the block ended without a row.
    """

    def __init__(
        self,
        path: Path,
        provenance: Provenance,
        row_shape: tuple[int, ...],
        dtype: DTypeLike,
        more: Mapping[str, tuple[tuple[int, ...], DTypeLike]] | None = None,
    ) -> None:
        self.path = as_path(path)
        self.provenance = provenance
        self.row_shape = tuple(row_shape)
        self.dtype = np.dtype(dtype)
        self._more = {
            name: (tuple(shape), np.dtype(kind)) for name, (shape, kind) in (more or {}).items()
        }
        for stored in (self.dtype, *(kind for _, kind in self._more.values())):
            if stored.name not in DTYPES:
                raise ValueError(f"{stored} cannot be stored; use one of {sorted(DTYPES)}")
        self.frame_count: int | None = None
        self.rows = 0
        self._hash = hashlib.sha256()
        self._pts: list[np.ndarray] = []
        self._more_rows: dict[str, list[np.ndarray]] = {name: [] for name in self._more}
        self._pending: list[np.ndarray] = []
        row_bytes = max(1, math.prod(self.row_shape) * self.dtype.itemsize)
        self._chunk_rows = max(1, _CHUNK_BYTES // row_bytes)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            # The lock outlives the rename: who finds a temporary file without a lock knows that
            # its writer is dead (see vidkd.cache.check).
            lock = stack.enter_context(contextlib.ExitStack())
            new = not self.path.exists()
            temporary = stack.enter_context(atomic_path(self.path, first_wins=new))
            descriptor = os.open(temporary, os.O_RDWR)
            lock.callback(os.close, descriptor)
            self._disk = _Disk(descriptor)
            with contextlib.suppress(OSError):  # a file system without locks loses only clean-up
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # v110: object headers and chunk indices carry check sums.
            self._file = h5py.File(self._disk, "w", libver=("v110", "v110"))
            stack.push(self._close)
            self._data = self._file.create_dataset(
                "data",
                shape=(0, *self.row_shape),
                maxshape=(None, *self.row_shape),
                chunks=(self._chunk_rows, *self.row_shape),
                dtype=self.dtype,
                shuffle=self.dtype.itemsize > 1,
                fletcher32=True,
                **hdf5plugin.Zstd(clevel=_ZSTD_LEVEL),
            )
            self._disk.check()
            self._stack = stack.pop_all()
        return self

    def append(
        self, rows: ArrayLike, pts: ArrayLike, more: Mapping[str, ArrayLike] | None = None
    ) -> None:
        """Add rows.

        Args:
            rows: (n, \\*row_shape), converted to the file's type.
            pts: (n, 2) start and end second of every row.
            more: n rows of every further dataset, by name.
        """
        array = np.ascontiguousarray(rows, dtype=self.dtype)
        times = np.ascontiguousarray(pts, dtype=np.float64)
        if array.shape[1:] != self.row_shape or times.shape != (len(array), 2):
            raise ValueError(
                f"rows {array.shape} and pts {times.shape} do not fit {self.row_shape}"
            )
        if not np.isfinite(times).all() or (times[:, 1] < times[:, 0]).any():
            raise ValueError("pts must be finite, and no row may end before it starts")
        further = {
            name: np.ascontiguousarray(values, dtype=self._more[name][1])
            for name, values in (more or {}).items()
        }
        expected = {name: (len(array), *shape) for name, (shape, _) in self._more.items()}
        if (found := {name: values.shape for name, values in further.items()}) != expected:
            raise ValueError(f"further rows {found} do not fit {expected}")
        for name, values in further.items():
            self._more_rows[name].append(values.copy())
        self._pts.append(times.copy())
        self.rows += len(array)
        self._hash.update(array.tobytes())
        # Only whole chunks are written, so that none is decompressed and compressed again. A
        # copy, because the caller may use its buffer again.
        pending = np.concatenate([*self._pending, array]) if self._pending else array.copy()
        whole = len(pending) - len(pending) % self._chunk_rows
        self._write(pending[:whole])
        self._pending = [pending[whole:]] if whole < len(pending) else []

    def _write(self, array: np.ndarray) -> None:
        if len(array):
            start = len(self._data)
            self._data.resize(start + len(array), axis=0)
            self._data[start:] = array
            self._disk.check()

    def _finish(self) -> None:
        if not self.rows:
            raise CacheError(
                "there is not a single row to store", path=self.path, remedy="check the video"
            )
        for pending in self._pending:
            self._write(pending)
        pts = np.concatenate(self._pts)
        further = {name: np.concatenate(rows) for name, rows in self._more_rows.items()}
        for name, values in {"pts": pts, **further}.items():
            self._file.create_dataset(
                name,
                data=values,
                chunks=(min(len(values), 4096), *values.shape[1:]),
                fletcher32=True,
                shuffle=True,
            )
        count = self.rows if self.frame_count is None else self.frame_count
        source = replace(self.provenance.source, frame_count=count)
        provenance = replace(self.provenance, source=source)
        self._hash.update(pts.tobytes())
        for name in sorted(further):
            self._hash.update(name.encode() + further[name].tobytes())
        self._hash.update(canonical(provenance))
        attributes = self._file.attrs
        for name, value in to_attributes(provenance).items():
            attributes[name] = value
        attributes["sha256"] = self._hash.hexdigest()
        attributes["schema_version"] = SCHEMA_VERSION
        attributes["codec"] = "zstd"

    def _close(self, kind: type[BaseException] | None, *rest: object) -> bool:
        try:
            if kind is None:
                self._finish()
        finally:
            self._file.close()
        if kind is None:
            self._disk.check()
        return False

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


class _Disk:
    """The file under HDF5, which never sees an error.

    HDF5 cannot recover from a failed write: closing the file fails as well, and the process
    crashes at its end. So the first error (a full disk, an interrupt) is kept, what is written
    after it is dropped, and ``check`` raises it once HDF5 has returned.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0
        self._end = 0
        self._error: BaseException | None = None

    def check(self) -> None:
        """Raise the first error, if there was one."""
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position; from the start or, with offset 0, at the end."""
        self._position = self._end if whence == os.SEEK_END else offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def write(self, data: memoryview) -> int:
        """Write all of ``data`` at the position."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while self._error is None and done < len(view):
                done += os.pwrite(self._descriptor, view[done:], self._position + done)
        except BaseException as error:
            self._error = error
        self._position += len(view)
        self._end = max(self._end, self._position)
        return len(view)

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes from the position; zeros where nothing was written."""
        data = os.pread(self._descriptor, size, self._position)
        self._position += size
        return data.ljust(size, b"\0")

    def truncate(self, size: int) -> int:
        """Set the length of the file."""
        try:
            if self._error is None:
                os.ftruncate(self._descriptor, size)
        except BaseException as error:
            self._error = error
        self._end = size
        return size

    def flush(self) -> None:
        """Do nothing: writes are not buffered here, and the rename is preceded by an fsync."""
