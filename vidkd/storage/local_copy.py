"""What was read over the network, kept on this machine up to a size: the least recently used goes.

Blocks of files lie in one folder, each a file with a check sum, written under another name and
renamed. So any number of processes may read, add and remove at once.

The folder is ``VIDKD_STORAGE`` or ``~/.cache/vidkd/storage``, its size that of
``VIDKD_STORAGE_GB`` or 20 GB. What is being written to a store lies there until it is uploaded.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import uuid
import zlib
from pathlib import Path

from vidkd.errors import UsageError

BLOCK = 1 << 18
_CHECK = 4
_LOOK_EVERY = 1 << 26
_written: float = math.inf
"""Bytes that this process added since it last looked at the whole folder."""


def storage_folder() -> Path:
    """Return the folder of this machine's copies."""
    if chosen := os.environ.get("VIDKD_STORAGE"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "vidkd" / "storage"


def size_limit() -> float:
    """Return how many bytes of copies are kept.

    Raises:
        UsageError: the environment variable is not a number of 0 or more.
    """
    text = os.environ.get("VIDKD_STORAGE_GB", "20")
    try:
        limit = float(text) * 1e9
    except ValueError:
        limit = -1.0
    if not 0 <= limit < math.inf:
        raise UsageError(f"VIDKD_STORAGE_GB is {text!r}", remedy="give a number of GB, such as 20")
    return limit


def read_block(identity: str, number: int) -> bytes | None:
    """Return a block of a file, or None when it is not here."""
    place = _place(identity, number)
    try:
        content = place.read_bytes()
        os.utime(place)
    except OSError:
        return None
    data, check = content[:-_CHECK], content[-_CHECK:]
    return data if zlib.crc32(data).to_bytes(_CHECK, "big") == check else None


def keep_block(identity: str, number: int, data: bytes) -> None:
    """Keep a block, and remove others if there are too many; does nothing on a full disk."""
    global _written
    limit = size_limit()
    if limit < BLOCK:
        return
    with contextlib.suppress(OSError):
        _put(_place(identity, number), data + zlib.crc32(data).to_bytes(_CHECK, "big"))
        _written += len(data)
        if _written >= min(_LOOK_EVERY, limit / 10):
            _written = 0.0
            _make_room(limit)


def remembered(identity: str) -> str | None:
    """Return the SHA-256 of a file that was computed here before."""
    with contextlib.suppress(OSError):
        text = _hash_place(identity).read_text()
        return text if len(text) == 64 else None
    return None


def remember_hash(identity: str, digest: str) -> None:
    """Remember the SHA-256 of a file."""
    with contextlib.suppress(OSError):
        _put(_hash_place(identity), digest.encode())


def machine() -> str:
    """Return the name of this folder among those of other machines."""
    place = storage_folder() / "machine"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f".{uuid.uuid4().hex}")
        temporary.write_text(uuid.uuid4().hex)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, place)  # the first of several processes names it
        temporary.unlink()
    return place.read_text()


def _place(identity: str, number: int) -> Path:
    return storage_folder() / "blocks" / identity[:2] / identity / f"{number:06d}"


def _hash_place(identity: str) -> Path:
    return storage_folder() / "hashes" / identity[:2] / identity


def _put(place: Path, content: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", dir=place.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(place)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _make_room(limit: float) -> None:
    """Remove the blocks that were used longest ago, until a tenth of the limit is free."""
    found = []
    for folder, folders, names in os.walk(storage_folder() / "blocks", topdown=False):
        for name in names:
            with contextlib.suppress(OSError):
                status = os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118 - many files
                found.append((status.st_mtime, status.st_size, folder, name))
        if not names and not folders:
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
    total = sum(size for _, size, _, _ in found)
    if total <= limit:
        return
    for _, size, folder, name in sorted(found):
        with contextlib.suppress(OSError):
            Path(folder, name).unlink()
        total -= size
        if total <= 0.9 * limit:
            break
