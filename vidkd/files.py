"""Files on disk: atomic writes, content hashes, and the data that travels with the package."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vidkd.errors import VidkdError
from vidkd.storage import (
    RemoteFile,
    RemotePath,
    as_path,
    remember_hash,
    remembered,
    spooled,
    upload,
)


@contextlib.contextmanager
def atomic_path(path: str | Path, *, first_wins: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block succeeds.

    The temporary file is flushed to disk and renamed, so that a reader sees the old file or the
    whole new one and never a part of it; when the block raises, the temporary file is removed.
    The temporary name keeps the ending of ``path``, by which some writers choose their format.

    For an address, such as ``s3://BUCKET/NAME``, the temporary file lies on this machine and is
    uploaded, which shows nobody a part of it either.

    Args:
        path: the file.
        first_wins: at an address, keep what somebody else has put there, where the store can tell.

    Raises:
        VidkdError: the folder cannot be created or written, the disk is full, or the store refuses.
    """
    path = as_path(path)
    target = path if isinstance(path, RemotePath) else None
    if target is not None:
        path = spooled(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}.", suffix=f".partial{path.suffix}", dir=path.parent
        )
    except OSError as error:
        raise _cannot_write(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        if target is not None:
            upload(temporary, str(target), first_wins=first_wins)
            temporary.unlink()
            return
        # mkstemp makes private files; a cache is meant to be shared like any other output.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def refuse_address(path: str | Path, remedy: str | None = None) -> None:
    """Say of an address, such as ``s3://BUCKET/NAME``, that files of this machine are meant.

    Args:
        path: what may be an address.
        remedy: what to do about it; None says so in general.

    Raises:
        UsageError: it is an address.
    """
    if isinstance(path := as_path(path), RemotePath):
        raise path.refusal(remedy)


def _cannot_write(path: Path, error: OSError) -> VidkdError:
    reason = error.strerror or str(error) or type(error).__name__
    return VidkdError(
        f"cannot be written ({reason})",
        path=path,
        remedy="free some space or choose another place, then run the same command again",
    )


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` atomically as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, data: Any) -> None:
    """Write ``data`` atomically as indented JSON with a final newline."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits.

    That of a folder is the hash of the names and hashes of all files in it.
    """
    path = as_path(path)
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(item for item in path.rglob("*") if item.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()}\0{sha256(file)}\n".encode())
        return digest.hexdigest()
    if isinstance(path, RemotePath):
        return _remote_sha256(path)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _remote_sha256(path: RemotePath) -> str:
    """Return the SHA-256 of a file at an address, which is remembered until the file changes."""
    with RemoteFile(path) as file:
        digest = remembered(file.identity)
        if digest is None:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            remember_hash(file.identity, digest)
    return digest


def resources(kind: str) -> Path:
    """Return the folder of the data that travels with the package.

    Args:
        kind: ``"models"`` (model cards) or ``"pipelines"`` (recipes).

    In a wheel the folders lie inside the package, in a source checkout beside it.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / kind, package.parent / kind):
        if folder.is_dir():
            return folder
    raise VidkdError(
        f"the package's own folder {kind!r} is missing", path=package, remedy="install vidkd again"
    )
