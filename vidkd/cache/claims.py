"""One process at a time works on a cache file, on this machine or on any that sees the disk.

Who works on ``KEY.h5`` holds a lock (``flock``) on ``.KEY.claim`` beside it. The system releases
the lock when the process or its machine dies, so that nothing has to be waited for or cleaned up.
On a disk without locks between machines nobody is kept out; files then are still whole, and what
two machines computed at once is there once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

_HELD = {errno.EWOULDBLOCK, errno.EACCES}


@contextlib.contextmanager
def claim(path: Path) -> Iterator[bool]:
    """Claim the cache file ``path`` while the block runs; yield False if somebody else has it."""
    place = _place(path)
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
    try:
        descriptor = os.open(_place(path), os.O_RDONLY)
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
    """Remove the claim that a killed process left."""
    if _place(path).exists():
        with claim(path):
            pass


def _place(path: Path) -> Path:
    return path.with_name(f".{path.stem}.claim")
