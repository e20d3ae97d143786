"""Rows of many videos where every training step reaches them fast: in memory, or in one file.

A cache file takes about 2 ms of processor time to open, check and decompress, under a lock that
keeps threads from sharing the work: at 16 videos a step that is more than a GPU needs for the step
itself. So each file is read once, and its rows are kept as they are stored, in memory as long as
the budget lasts. What does not fit goes to a scratch file without a name beside the run, which
many threads can read at the speed of the disk, or of memory where the system still has it cached;
it is gone with the process, however that ends.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from vidkd.errors import VidkdError

# Several runs may train at the same time, and the network and its batches need room too.
_SHARE = 4
# What waits for the network may take so much, besides the batch it works on.
_AHEAD_BYTES = 256 << 20
_MOST_AHEAD = 8
# From memory one thread makes batches faster than any network takes them; a disk is fastest when
# it is asked for several things at a time.
_DISK_READERS = 4


class MemoryBudget:
    """Bytes that may still be kept in memory; whoever keeps something takes its size from it.

    Args:
        limit: bytes in all; None takes a quarter of the memory that is free now.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.left = available_memory() // _SHARE if limit is None else limit

    def take(self, size: int) -> bool:
        """Take ``size`` bytes if they are left, and say so."""
        if size > self.left:
            return False
        self.left -= size
        return True


class RowStorage:
    """Rows (T_i, D) of many videos, written once each and read in any order by any thread.

    What is read does not depend on where the rows are kept.

    Args:
        lengths: T_i of every video.
        width: D.
        dtype: of the rows.
        budget: decides whether they are kept in memory.
        folder: where the scratch file lies otherwise.

    Attributes:
        width: D.
        in_memory: where the rows are kept.
        file: the scratch file; None in memory.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        width: int,
        dtype: torch.dtype,
        budget: MemoryBudget,
        folder: Path,
    ) -> None:
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).tolist()
        self.width = width
        self._dtype = dtype
        self._row_bytes = width * dtype.itemsize
        self._folder = folder
        self.in_memory = budget.take(self._starts[-1] * self._row_bytes)
        self.file: IO[bytes] | None = None
        if self.in_memory:
            self._rows = torch.empty(self._starts[-1], width, dtype=dtype)
            return
        try:
            # Unbuffered, for every access names its place: threads share no position.
            self.file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise self._failed(error) from error

    def write(self, video: int, rows: Tensor) -> None:
        """Keep the rows (T, D) of one video, converted to the stored type.

        Raises:
            VidkdError: the disk is full.
        """
        start, stop = self._starts[video], self._starts[video + 1]
        if rows.shape != (stop - start, self.width):
            raise ValueError(f"rows {tuple(rows.shape)} do not fit {(stop - start, self.width)}")
        if self.file is None:
            self._rows[start:stop] = rows
            return
        data = rows.to(self._dtype).contiguous().numpy().data.cast("B")
        position = start * self._row_bytes
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self.file.fileno(), data[done:], position + done)
        except OSError as error:
            raise self._failed(error) from error

    def read(self, video: int, part: slice = slice(None)) -> Tensor:
        """Return the rows of one video, or of a part of it, as they are stored; do not change them.

        Raises:
            VidkdError: the disk fails.
        """
        first, end = self._starts[video], self._starts[video + 1]
        start, stop, _ = part.indices(end - first)
        count = max(0, stop - start)
        if self.file is None:
            return self._rows[first + start : first + start + count]
        rows = torch.empty(count, self.width, dtype=self._dtype)
        if not count:
            return rows
        data = rows.numpy().data.cast("B")
        position = (first + start) * self._row_bytes
        done = 0
        try:
            while done < len(data):
                found = os.preadv(self.file.fileno(), [data[done:]], position + done)
                if not found:
                    raise OSError(f"video {video} was never written")
                done += found
        except OSError as error:
            raise self._failed(error) from error
        return rows

    def _failed(self, error: OSError) -> VidkdError:
        size = self._starts[-1] * self._row_bytes / 2**30
        return VidkdError(
            f"cannot hold the {size:.1f} GiB of features that are not kept in memory"
            f" ({error.strerror or error})",
            path=self._folder,
            remedy="free some space there, put --output on another disk, or give more --memory",
        )


def available_memory() -> int:
    """Return how many bytes this process may still take without driving the machine to swap."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) << 10
    except OSError:
        pass  # Not Linux: half of what is built in.
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            used = int((group / "memory.current").read_text())
            for line in (group / "memory.stat").read_text().splitlines():
                if line.startswith("inactive_file "):
                    used -= int(line.split()[1])  # Cached files make room when it is needed.
            free = min(free, max(0, int(limit) - used))
    except (OSError, ValueError):
        pass  # No control group limits this process.
    return free


def batches_ahead(batch_bytes: int) -> int:
    """Return how many batches of at most so many bytes may wait: 2 to 8, within 256 MiB."""
    return max(2, min(_MOST_AHEAD, _AHEAD_BYTES // max(1, batch_bytes)))


def readers_for(storages: Iterable[RowStorage]) -> int:
    """Return how many threads should read from these."""
    return 1 if all(item.in_memory for item in storages) else _DISK_READERS
