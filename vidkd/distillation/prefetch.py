"""Batches made by background threads while the network works on an earlier one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from vidkd.distillation.storage import RowStorage

Item = TypeVar("Item")
Result = TypeVar("Result")

# What waits for the network may take so much, besides the batch it works on.
_AHEAD_BYTES = 256 << 20
_MOST_AHEAD = 8
# From memory one thread makes batches faster than any network takes them; a disk is fastest when
# it is asked for several things at a time.
_DISK_READERS = 4


def prefetched(
    make: Callable[[Item], Result], items: Iterable[Item], readers: int, ahead: int
) -> Generator[Result, None, None]:
    """Yield ``make(item)`` in the order of the items, computed in background threads.

    What ``make`` raises is raised here, in its turn. When the caller stops early, nothing new is
    begun, and the threads have ended once the generator is closed.

    Args:
        make: must not depend on the order in which it is called.
        items: what it is called with.
        readers: number of threads.
        ahead: how many results may wait or be in the making.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(readers, thread_name_prefix="vidkd-batch") as pool:
        left = iter(items)
        try:
            waiting.extend(pool.submit(make, item) for item in islice(left, ahead))
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(make, item) for item in islice(left, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()


def batches_ahead(batch_bytes: int) -> int:
    """Return how many batches of at most so many bytes may wait: 2 to 8, within 256 MiB."""
    return max(2, min(_MOST_AHEAD, _AHEAD_BYTES // max(1, batch_bytes)))


def readers_for(storages: Iterable[RowStorage]) -> int:
    """Return how many threads should read from these."""
    return 1 if all(item.in_memory for item in storages) else _DISK_READERS
