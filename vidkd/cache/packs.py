"""Packs: a whole cache in a few large files instead of one file for each video.

A pack is a folder with ``pack.json`` and shards ``00000.tar``, ``00001.tar``, ... The shards hold
the cache files as they are, under their names (``features/ENCODER/KEY.h5``), so that nothing is
lost and any tar reader, such as WebDataset, can stream them. The index says in which shard and at
which byte a file begins. A path below the folder of a pack names a packed file as it would name
one in a cache: everything that reads a cache reads a pack.
"""

from __future__ import annotations

import functools
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vidkd.errors import CacheError
from vidkd.files import atomic_path, write_text
from vidkd.storage import RemotePath

INDEX = "pack.json"
_SCHEMA = 1
_WHOLE_BYTES = 4 << 20
"""Smaller files are read with one call, which is what a network's file system likes."""
_BLOCK = tarfile.BLOCKSIZE
_LOOK_SECONDS = 30.0


@dataclass(frozen=True)
class Member:
    """Where a packed file lies.

    Attributes:
        shard: the tar file.
        offset: its first byte there.
        size: in bytes.
        sha256: hash of its content, as the file itself records it.
    """

    shard: Path
    offset: int
    size: int
    sha256: str

    def open(self) -> IO[bytes]:
        """Open it for reading.

        Raises:
            OSError: the shard cannot be read, or ends too early.
        """
        if self.size > _WHOLE_BYTES:
            return io.BufferedReader(_Part(self), 1 << 16)
        with self.shard.open("rb", buffering=0) as stream:
            stream.seek(self.offset)
            data = stream.read(self.size)
        if len(data) < self.size:
            raise OSError(f"{self.shard.name} ends too early")
        return io.BytesIO(data)


class _Part(io.RawIOBase):
    """A part of a shard as a file of its own."""

    def __init__(self, member: Member) -> None:
        self._member, self._position = member, 0
        self._stream = member.shard.open("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._member.size}
        self._position = base[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        left = max(0, self._member.size - self._position)
        start = self._member.offset + self._position
        self._stream.seek(start)
        done = self._stream.readinto(view[:left]) if left else 0
        self._position += done
        return done

    def close(self) -> None:
        self._stream.close()
        super().close()


def is_pack(folder: Path) -> bool:
    """Say whether a folder is a pack."""
    return (folder / INDEX).is_file()


def packed(folder: Path) -> Mapping[str, Member]:
    """Return what a folder packs by name, such as ``flow/KEY.h5``; nothing if it is no pack.

    Raises:
        CacheError: the index is damaged or of another version.
    """
    if isinstance(folder, RemotePath):
        # Nobody unpacks in place, so what was found may be a little old.
        return _looked_up(folder, int(time.monotonic() / _LOOK_SECONDS))
    index = folder / INDEX
    try:
        status = index.stat()
    except OSError:
        return {}
    return _read_index(index, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=64)
def _looked_up(folder: RemotePath, when: int) -> Mapping[str, Member]:
    index = folder / INDEX
    try:
        status = index.stat()
    except FileNotFoundError:
        return {}
    return _read_index(index, status.st_ino, status.st_size)


@functools.lru_cache(maxsize=8)
def _read_index(index: Path, modified: int, size: int) -> dict[str, Member]:
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        if content["schema_version"] != _SCHEMA:
            raise CacheError(
                f"has schema version {content['schema_version']}, this vidkd reads {_SCHEMA}",
                path=index,
                remedy="pack the cache again",
            )
        shards = [index.parent / _plain(name) for name in content["shards"]]
        return {
            str(name): Member(shards[shard], int(offset), int(length), str(digest))
            for name, (shard, offset, length, digest) in content["files"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise CacheError("is damaged", path=index, remedy="pack the cache again") from error


def _plain(name: str) -> str:
    if Path(name).name != name:
        raise ValueError(f"{name!r} leaves the folder")
    return name


def find_member(path: Path) -> Member | None:
    """Return the packed file that a path names; None for what is not in a pack.

    Raises:
        CacheError: the index is damaged.
    """
    for folder in path.parents:
        if isinstance(path, RemotePath):
            if len(folder.parts) < 2:
                break  # above the bucket
            if name := packed(folder).get(path.relative_to(folder).as_posix()):
                return name
        elif is_pack(folder):
            return packed(folder).get(path.relative_to(folder).as_posix())
    return None


def present(path: Path) -> bool:
    """Say whether a cache file is there, as a file or in a pack."""
    return path.exists() or find_member(path) is not None


def open_stored(path: Path) -> tuple[IO[bytes], int]:
    """Open a cache file, wherever it is, and return it with its size.

    Raises:
        OSError: it is not there, or cannot be read.
        StorageError: it lies in a store that does not answer, or refuses.
    """
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        if (member := find_member(path)) is None:
            raise
        return member.open(), member.size
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    return stream, size


class PackWriter:
    """Writes a pack; the index comes last, so that a pack is whole or is none.

    Args:
        folder: of the pack.
        shard_bytes: a shard ends when it has so many.
    """

    def __init__(self, folder: Path, shard_bytes: int) -> None:
        self.folder, self.shard_bytes = folder, shard_bytes
        self.shards: list[str] = []
        self._files: dict[str, tuple[int, int, int, str]] = {}
        self._stack = ExitStack()
        self._tar: tarfile.TarFile | None = None

    def __enter__(self) -> PackWriter:
        return self

    def add(self, name: str, path: Path, sha256: str) -> None:
        """Add a cache file under its name in the cache."""
        if self._tar is None:
            self.shards.append(f"{len(self.shards):05d}.tar")
            temporary = self._stack.enter_context(atomic_path(self.folder / self.shards[-1]))
            self._tar = tarfile.open(temporary, "w")  # noqa: SIM115 - the stack closes it
            self._stack.enter_context(self._tar)
        info = tarfile.TarInfo(name)
        stream, info.size = open_stored(path)
        with stream:
            self._tar.addfile(info, stream)
        padded = -(-info.size // _BLOCK) * _BLOCK
        start = self._tar.offset - padded
        self._files[name] = (len(self.shards) - 1, start, info.size, sha256)
        if self._tar.offset >= self.shard_bytes:
            self._finish_shard()

    def _finish_shard(self) -> None:
        self._tar = None
        self._stack.close()

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        if kind is not None:
            self._stack.__exit__(kind, *error)
            for name in self.shards:
                (self.folder / name).unlink(missing_ok=True)
            return
        self._finish_shard()
        content = {"schema_version": _SCHEMA, "shards": self.shards, "files": self._files}
        write_text(self.folder / INDEX, json.dumps(content, separators=(",", ":")) + "\n")


def names_below(folder: Path, cache: Path) -> Iterator[str]:
    """Yield the names of packed files below a folder of a cache, relative to it."""
    prefix = folder.relative_to(cache).as_posix() + "/"
    for name in packed(cache):
        if name.startswith(prefix):
            yield name.removeprefix(prefix)
