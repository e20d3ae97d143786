"""Rows of many videos where every training step reaches them fast: in memory, or in one file.

A cache file takes about 2 ms of processor time to open, check and decompress, under a lock that
keeps threads from sharing the work: at 16 videos a step that is more than a GPU needs for the step
itself. So each file is read once, and its rows are kept as they are stored, in memory as long as
the budget lasts. What does not fit goes to a scratch file without a name beside the run, which
many threads can read at the speed of the disk, or of memory where the system still has it cached;
it is gone with the process, however that ends.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from vidkd.console import progress
from vidkd.distillation.data import Teacher, VideoFeatures, read_rows
from vidkd.errors import VidkdError
from vidkd.networks import TemporalOutput

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


def feature_rows(
    videos: Sequence[VideoFeatures],
    width: int,
    budget: MemoryBudget,
    folder: Path,
    stream: int = 0,
) -> RowStorage:
    """Return the features (T, D) of a stream, each file read once.

    Args:
        videos: whose features.
        width: D.
        budget: decides whether they are kept in memory.
        folder: where they are kept otherwise.
        stream: its number among the videos' ``paths``; the student's is the first.
    """
    dtype = torch.float16 if all(item.half for item in videos) else torch.float32
    storage = RowStorage([len(item) for item in videos], width, dtype, budget, folder)
    with progress("reading features", len(videos), "videos") as advance:
        for number, item in enumerate(videos):
            storage.write(number, read_rows(item, stream))
            advance(1)
    return storage


class TeacherMaps:
    """What one teacher makes of every training video, computed once.

    A frozen teacher in evaluation mode gives the same feature map in every epoch, so that
    training a student costs little more than training without a teacher. The maps are those of
    whole videos, also when the student trains on parts.

    Args:
        teacher: the teacher.
        videos: the training videos.
        stream: number of the teacher's stream among the videos' ``paths``.
        device: where the teacher runs.
        budget: decides whether the maps are kept in main memory.
        folder: where they are kept otherwise.

    Attributes:
        label: the teacher's name in the metrics.
        scale: the standard deviation of the feature map over the training videos: the root of the
            mean over channels of their variance, and 1 for a constant map.
        storage: where the maps are, logits after features.
    """

    def __init__(
        self,
        teacher: Teacher,
        videos: Sequence[VideoFeatures],
        stream: int,
        device: torch.device,
        budget: MemoryBudget,
        folder: Path,
    ) -> None:
        self.label = teacher.label
        self._channels = teacher.header.filter.channels
        width = self._channels + len(teacher.header.classes)
        lengths = [len(item) for item in videos]
        self.storage = RowStorage(lengths, width, torch.float32, budget, folder)
        total, squares = torch.zeros(self._channels, dtype=torch.float64), 0.0
        name = f"feature maps of the {teacher.label} teacher"
        with torch.no_grad(), progress(name, len(videos), "videos") as advance:
            for number, item in enumerate(videos):
                inputs = read_rows(item, stream).to(device).float()[None]
                mask = torch.ones(inputs.shape[:2], dtype=torch.bool, device=device)
                output = teacher.module(inputs, mask)
                self.storage.write(number, torch.cat(output, dim=2)[0].cpu())
                features = output.features[0].cpu().double()
                total += features.sum(dim=0)
                squares += float(features.square().sum())
                advance(1)
        mean = total / sum(lengths)
        variance = squares / sum(lengths) - float(mean.square().sum())
        self.scale = math.sqrt(variance / self._channels) if variance > 0 else 1.0

    def read(self, number: int, part: slice = slice(None)) -> TemporalOutput:
        """Return the feature map (T, C) and the logits (T, K) of a part of one training video."""
        rows = self.storage.read(number, part)
        return TemporalOutput(rows[:, : self._channels], rows[:, self._channels :])
