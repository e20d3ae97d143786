"""A video file whose reading is watched: what the disk did is not left to FFmpeg to tell.

Some of FFmpeg's demuxers take a read that fails, or a file that has become shorter, for the end of
the video. A disk that is unplugged would then make a shorter video, and say nothing.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from vidkd.errors import VideoError, VidkdError
from vidkd.storage import RemotePath

Result = TypeVar("Result")
_INVALID = -22
"""FFmpeg's code for a place in the file that does not exist."""

Stamp = tuple[int, int, int, int]
"""Device, number, bytes and time of change of a file; another one means that it may be another."""


class WatchedFile:
    """A binary file for FFmpeg to read, which remembers that reading failed.

    Nothing is raised into FFmpeg: after a failure the file only seems to end, so that decoding
    comes to its own end, and ``check`` tells the truth.

    Args:
        path: the file.

    Attributes:
        size: bytes of it when it was opened.

    Raises:
        OSError: it cannot be opened.
        StorageError: it lies in a store that does not answer, or refuses.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.RawIOBase = path.open("rb", buffering=0)
        self.size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        self._position = 0
        self._trouble: VideoError | None = None
        self.name = str(path)
        """By its ending FFmpeg tells formats without a header of their own."""

    def read(self, count: int) -> bytes:
        """Return at most ``count`` bytes, none at the end of what can be read."""
        if self._trouble is not None:
            return b""
        try:
            data = self._file.read(count) or b""
        except (OSError, VidkdError) as error:
            self._trouble = unreadable(self._path, error, self._position)
            return b""
        if not data and count and self._position < self.size:
            end = self._file.seek(0, os.SEEK_END)
            self._trouble = VideoError(
                f"became shorter while it was read: it ends at byte {end} of {self.size}",
                path=self._path,
                remedy="run the same command again when the file is whole and nobody writes to it",
            )
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to another byte and return its number, or a negative number if there is none."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}.get(whence)
        if base is None or base + offset < 0:
            return _INVALID
        try:
            self._position = self._file.seek(base + offset)
        except OSError:
            return _INVALID
        return self._position

    def tell(self) -> int:
        """Return the number of the next byte."""
        return self._position

    def inspect(self, reads: Callable[[BinaryIO], Result]) -> Result:
        """Return what a function finds in the file, which it reads from the start.

        Raises:
            OSError: the file cannot be read.
        """
        self._file.seek(0)
        reader = io.BufferedReader(self._file, 1 << 16)
        try:
            return reads(reader)
        finally:
            reader.detach()
            self._position = self._file.tell()

    def check(self) -> None:
        """Raise VideoError if something of the file could not be read."""
        if self._trouble is not None:
            raise self._trouble

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def unreadable(path: Path, error: OSError | VidkdError, position: int | None = None) -> VideoError:
    """Return the error for a video that the system stopped giving, at a byte if that is known."""
    where = "" if position is None else f" at byte {position}"
    told = error.problem if isinstance(error, VidkdError) else error.strerror or error
    place = "the network" if isinstance(path, RemotePath) else "its disk or network drive"
    return VideoError(
        f"could not be read to its end ({told}{where})",
        path=path,
        remedy=f"check {place}, then run the same command again",
    )


def stamp(path: Path) -> Stamp:
    """Return what changes when a file is written to or replaced.

    Raises:
        VideoError: the file is gone.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
