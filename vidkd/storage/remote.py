"""A path that is an address: what the package does with a ``Path``, done by requests to a store.

Whoever takes a ``Path`` and asks it to read, list or tell its size takes an address too. What
needs a disk of this machine (``os`` and libraries that open files by name) is told so in one line.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import os
import stat
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from vidkd.console import log
from vidkd.errors import UsageError
from vidkd.storage import stores
from vidkd.storage.addresses import address, credentials, remember
from vidkd.storage.local_copy import BLOCK, keep_block, read_block, size_limit, storage_folder

_MOST_BLOCKS = 32
"""At most so many blocks are read with one request: 8 MiB."""
_IN_MEMORY = 16
_WHOLE_BYTES = 4 << 20
"""Smaller files are read with one request."""


class RemotePath(type(Path())):  # type: ignore[misc]
    """The path of a file or folder at an address; made by ``as_path``."""

    def __str__(self) -> str:
        return str(super().__str__()).replace(":/", "://", 1)

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (str(self), credentials(str(self)))

    def __fspath__(self) -> str:
        raise self.refusal()

    def refusal(self, remedy: str | None = None) -> UsageError:
        """Return the error for what needs a disk of this machine."""
        return UsageError(
            "is an address, and this is read and written on this machine only",
            path=str(self),
            remedy=remedy or "copy it here, or mount it as a folder, and give the path",
        )

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return size, time of change, and as number what changes with the content.

        Raises:
            FileNotFoundError: there is nothing.
            StorageError: the store does not answer, or refuses.
        """
        known = stores.info(str(self))
        size = known.size
        if size is None:  # which the whole file tells
            with RemoteFile(self) as file:
                size = file.size
        mode = stat.S_IFDIR if known.folder else stat.S_IFREG
        values = (mode | 0o444, int(known.identity[:15], 16), 0, 1, 0, 0, size)
        seconds = int(known.modified)
        return os.stat_result(
            (*values, seconds, seconds, seconds),
            {"st_mtime_ns": round(known.modified * 1e9), "st_mtime": known.modified},
        )

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Say whether there is a file, or a folder with files."""
        try:
            stores.info(str(self))
        except FileNotFoundError:
            return False
        return True

    def is_file(self) -> bool:
        """Say whether there is a file."""
        try:
            return not stores.info(str(self)).folder
        except FileNotFoundError:
            return False

    def is_dir(self) -> bool:
        """Say whether there are files below it."""
        return stores.is_listed(str(self))

    def rglob(self, pattern: str, **options: Any) -> Iterator[RemotePath]:
        """Yield the files below whose names fit a pattern, sorted."""
        for name in stores.listed(str(self), deep=True):
            if fnmatch.fnmatchcase(name.rpartition("/")[2], pattern):
                yield RemotePath(name)

    def iterdir(self) -> Iterator[RemotePath]:
        """Yield what lies in the folder, sorted."""
        yield from map(RemotePath, stores.listed(str(self)))

    def glob(self, pattern: str, **options: Any) -> Iterator[RemotePath]:
        """Yield what in the folder has a name that fits a pattern, sorted."""
        yield from (item for item in self.iterdir() if fnmatch.fnmatchcase(item.name, pattern))

    def open(self, mode: str = "r", buffering: int = -1, *text: Any, **options: Any) -> IO[Any]:
        """Open the file for reading.

        Raises:
            FileNotFoundError: there is none.
            StorageError: the store does not answer, or refuses.
            UsageError: it is to be written to.
        """
        if set(mode) - set("rbt"):
            raise self.refusal()
        raw = RemoteFile(self)
        if "b" in mode and buffering == 0:
            return raw  # type: ignore[return-value]
        if raw.size <= _WHOLE_BYTES:
            with raw:
                binary: Any = io.BytesIO(raw.read(raw.size))
        else:
            binary = io.BufferedReader(raw, 1 << 16)
        return binary if "b" in mode else io.TextIOWrapper(binary, *text, **options)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file."""
        stores.remove(str(self))

    def mkdir(self, *args: Any, **options: Any) -> NoReturn:
        """Refuse: what makes folders writes files by name."""
        raise self.refusal()

    def resolve(self, strict: bool = False) -> RemotePath:
        """Return itself."""
        return self

    def absolute(self) -> RemotePath:
        """Return itself."""
        return self

    def expanduser(self) -> RemotePath:
        """Return itself."""
        return self

    def is_absolute(self) -> bool:
        """Say yes."""
        return True

    def relative_to(self, *other: Any, **options: Any) -> Path:
        """Return the path below another one, which is no address any more."""
        return Path(*super().relative_to(*other, **options).parts)


def _rebuilt(text: str, kept: dict[str, str]) -> Path:
    remember(kept)
    return RemotePath(text)


def as_path(value: str | os.PathLike[str]) -> Path:
    """Return a path, or a ``RemotePath`` for an address.

    ``Path`` makes one slash of two; such an address is recognised, unless there is such a file.

    Raises:
        UsageError: it is an address of a kind that is not read.
    """
    if isinstance(value, RemotePath):
        return value
    text = os.fspath(value)
    if ":/" not in text or ("://" not in text and Path(text).exists()):
        return Path(text)
    plain = address(text)
    return Path(text) if plain is None else RemotePath(plain)


def as_paths(values: Iterable[str]) -> list[Path]:
    """Return the path or address of each text; see ``as_path``.

    Raises:
        UsageError: two addresses differ in their query alone, which no result could show.
    """
    typed: dict[Path, str] = {}
    paths = []
    for value in values:
        paths.append(as_path(value))
        if typed.setdefault(paths[-1], value) != value and "?" in value:
            raise UsageError(
                "is given twice, with other words behind the question mark",
                path=paths[-1],
                remedy="run the command for each",
            )
    return paths


class RemoteFile(io.RawIOBase):
    """A file at an address, read in blocks that stay on this machine for a while.

    A web server that gives no parts of files is asked for all of it, up to the size of the local
    copies.

    Args:
        path: the file.

    Attributes:
        size: in bytes.
        identity: differs for another content, as far as the store tells.

    Raises:
        FileNotFoundError: there is none.
        StorageError: the store does not answer, or refuses.
    """

    def __init__(self, path: RemotePath) -> None:
        self._plain = str(path)
        self._known = stores.info(self._plain)
        if self._known.folder:
            raise IsADirectoryError(21, "is a folder", self._plain)
        self._reader = stores.Reader(self._plain, self._known)
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._position, self._next, self._run = 0, -1, 1
        self._whole = _wholes.get((self._plain, self._known.identity))
        if self._known.size is None and self._whole is None:
            self._whole = self._all()
        self.size: int = self._known.size or 0
        if self._whole is not None:
            self.size = _length(self._whole)
        self.name, self.identity = self._plain, self._known.identity

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to another byte and return its number."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError(22, "there is no such place")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the number of the next byte."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read as many bytes as fit and are left."""
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), max(0, self.size - self._position))
        done = 0
        while done < wanted:
            data = self._piece(self._position, wanted - done)
            view[done : done + len(data)] = data
            done += len(data)
            self._position += len(data)
        return done

    def _piece(self, start: int, most: int) -> bytes | memoryview:
        """Return the bytes from ``start`` that one block holds, at most so many."""
        if self._whole is None:
            try:
                block = self._block(start // BLOCK)
                return memoryview(block)[start % BLOCK :][:most]
            except stores.NoRangesError:
                self._whole = self._all()
                if _length(self._whole) != self.size:
                    raise stores.changed(self._plain) from None
        return os.pread(self._whole.fileno(), most, start)

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        if (data := read_block(self._known.identity, number)) is None:
            # Twice as much each time that reading goes straight on.
            self._run = min(2 * self._run, _MOST_BLOCKS) if number == self._next else 1
            last = min(number + self._run, -(-self.size // BLOCK))
            start = number * BLOCK
            fetched = self._reader.read(start, min(last * BLOCK, self.size))
            for index in range(number, last):
                part = fetched[index * BLOCK - start :][:BLOCK]
                keep_block(self._known.identity, index, part)
                self._keep(index, part)
            self._next = last
            data = fetched[:BLOCK]
        self._keep(number, data)
        return data

    def _keep(self, number: int, data: bytes) -> None:
        self._blocks[number] = data
        while len(self._blocks) > _IN_MEMORY + _MOST_BLOCKS:
            self._blocks.popitem(last=False)

    def _all(self) -> IO[bytes]:
        """Read the whole file into one that vanishes with this process."""
        limit, size = size_limit(), self._known.size
        if size is not None and size > limit:
            raise self._too_large(limit)
        amount = "" if size is None else f" ({size / 1e6:.1f} MB)"
        log(f"{self._plain}: the server gives no parts of files; reading all of it{amount}")
        folder = storage_folder()
        folder.mkdir(parents=True, exist_ok=True)
        for last in (False, False, True):
            file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - kept open
            try:
                for data in stores.stream(self._plain):
                    file.write(data)
                    if file.tell() > limit:
                        raise self._too_large(limit)
                if size is not None and file.tell() != size:
                    raise stores.StorageError(
                        f"the connection broke at byte {file.tell()} of {size}",
                        path=self._plain,
                        remedy="run the same command again",
                    )
                break
            except BaseException as error:
                file.close()
                if last or not isinstance(error, stores.StorageError):
                    raise
                time.sleep(1)
        file.flush()
        while len(_wholes) >= 4:
            _wholes.popitem(last=False)  # who still reads it keeps it open
        _wholes[self._plain, self._known.identity] = file
        return file

    def _too_large(self, limit: float) -> UsageError:
        return UsageError(
            f"is larger than {limit / 1e9:g} GB, and its server gives no parts of files",
            path=self._plain,
            remedy="download it and give the path, or set VIDKD_STORAGE_GB",
        )


_wholes: OrderedDict[tuple[str, str], IO[bytes]] = OrderedDict()


def _length(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def spooled(path: RemotePath) -> Path:
    """Return where a file is written on this machine, beside which its claim lies, until upload."""
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    return storage_folder() / "writing" / f"{digest}-{path.name[-100:]}"
