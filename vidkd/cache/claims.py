"""One process at a time works on a cache file, on this machine or on any that sees the cache.

Who works on ``KEY.h5`` holds a lock (``flock``) on ``.KEY.claim`` beside it. The system releases
the lock when the process or its machine dies, so that nothing has to be waited for or cleaned up.
On a disk without locks between machines nobody is kept out; files then are still whole, and what
two machines computed at once is there once.

In an object store ``.KEY.claim`` is an object that names its machine and is written again every
half minute; one that is older than two minutes is that of a dead machine. Processes of one machine
tell by a lock on its disk. What two machines compute at once nonetheless is there once as well.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from vidkd.errors import VidkdError
from vidkd.storage import RemotePath, StorageError, info, machine, remove, spooled, store

_HELD = {errno.EWOULDBLOCK, errno.EACCES}
_RENEW_SECONDS, _DEAD_SECONDS = 30.0, 120.0


@contextlib.contextmanager
def claim(path: Path) -> Iterator[bool]:
    """Claim the cache file ``path`` while the block runs; yield False if somebody else has it."""
    if isinstance(path, RemotePath):
        with _locked(_place(spooled(path))) as own:
            if not own or not _taken(path):
                yield False
                return
            with _renewed(path):
                yield True
        return
    with _locked(_place(path)) as own:
        yield own


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[bool]:
    with contextlib.ExitStack() as stack:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            while True:
                descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Its last holder may have removed it between the two.
                with contextlib.suppress(FileNotFoundError):
                    if os.fstat(descriptor).st_ino == place.stat().st_ino:
                        break
                stack.close()
        except OSError as error:
            # What is wrong with the disk will be told by whoever writes the file.
            yield error.errno not in _HELD
            return
        # While the lock is held: nobody else can have taken this file for a claim.
        stack.callback(place.unlink, missing_ok=True)
        yield True


def claimed(path: Path) -> bool:
    """Say whether a living process has claimed the cache file ``path``."""
    if isinstance(path, RemotePath):
        return _is_locked(_place(spooled(path))) or _held_elsewhere(path)
    return _is_locked(_place(path))


def _is_locked(place: Path) -> bool:
    try:
        descriptor = os.open(place, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _HELD
    finally:
        os.close(descriptor)
    return False


def drop_abandoned(path: Path) -> None:
    """Remove the claim that a killed process of this machine left.

    A store that does not answer keeps it, and the claim ends by its age.
    """
    here = spooled(path) if isinstance(path, RemotePath) else path
    if _place(here).exists():
        with contextlib.suppress(StorageError), claim(path):
            pass


def _place(path: Path) -> Path:
    return path.with_name(f".{path.stem}.claim")


def _taken(path: RemotePath) -> bool:
    """Put a claim into a store; the caller holds this machine's lock."""
    place = str(_place(path))
    if store(place, machine().encode(), first_wins=True):
        return True
    if _held_elsewhere(path):
        return False
    store(place, machine().encode())
    return True


def _held_elsewhere(path: RemotePath) -> bool:
    """Say whether a living process of another machine has claimed a file in a store."""
    place = _place(path)
    try:
        with place.open("rb") as stream:
            own = stream.read() == machine().encode()
        return not own and time.time() - info(str(place)).modified < _DEAD_SECONDS
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _renewed(path: RemotePath) -> Iterator[None]:
    """Write a claim again from time to time while the block runs, then remove it."""
    ended, place = threading.Event(), str(_place(path))

    def renew() -> None:
        while not ended.wait(_RENEW_SECONDS):
            with contextlib.suppress(VidkdError):  # whoever writes the file will tell
                store(place, machine().encode())

    thread = threading.Thread(target=renew, name="vidkd-claim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(VidkdError):
            remove(place)
