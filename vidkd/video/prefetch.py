"""Reading ahead in a thread, so that decoding and the network run at the same time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def read_ahead(items: Iterable[Item], capacity: int = 2) -> Iterator[Item]:
    """Yield the items of an iterable that a background thread works through.

    The thread is never more than ``capacity`` items ahead, so memory stays bounded. What the
    iterable raises is raised here, after the items before it; when the reader stops early, the
    thread stops too, before the generator is closed.

    Args:
        items: what to read; it is only used by the thread.
        capacity: how many items may wait.
    """
    waiting: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(capacity)
    stopped = threading.Event()

    def put(item: Item | None, error: BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                waiting.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        finished: BaseException = StopIteration()
        try:
            for item in items:
                if not put(item, None):
                    return
        except BaseException as error:
            finished = error
        put(None, finished)

    thread = threading.Thread(target=work, name="vidkd-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
