"""Outputs at work beside the engine: behind a queue that the engine never waits for."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from vidkd.console import log
from vidkd.errors import VidkdError
from vidkd.live.events import Event, LiveFrame

CLOSING_SECONDS = 10.0
"""So long an output may go on with what waits when the engine has ended."""
_FRAME_BYTES = 64 << 20
_EVENTS = 1000


class Counts:
    """What became of the work of one output, for ``/metrics``.

    Args:
        name: of the output: ``webhook``, ``mqtt``, ``clips``.

    Attributes:
        done: pieces of work that reached their goal.
        failed: pieces that were given up.
        dropped: events that were dropped because too many waited.
        frames_dropped: pictures likewise.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.done = self.failed = self.dropped = self.frames_dropped = 0
        self._said: set[str] = set()
        self._trouble = False

    def trouble(self, problem: str) -> None:
        """Say what stands in the way; the same problem is said once, however often it comes."""
        self._trouble = True
        if problem not in self._said and len(self._said) < 20:
            self._said.add(problem)
            log(f"{self.name}: {problem}; detection goes on, and this is said once")

    def success(self) -> None:
        """Count a piece of work that reached its goal."""
        self.done += 1
        if self._trouble:
            self._trouble = False
            log(f"{self.name}: works again")


class Beside:
    """Calls functions with pictures and events, in their order, in a thread of its own.

    What waits is bounded: if there is no room, the oldest event goes, or the newest picture, and is
    counted. What the functions raise is counted and said, and the next piece is taken.

    Args:
        counts: of the output.
        event: takes an event.
        frame: takes the name of a source and a picture of it; None for an output without pictures.
        end: called after the last piece.
    """

    def __init__(
        self,
        counts: Counts,
        event: Callable[[Event], None],
        frame: Callable[[str, LiveFrame], None] | None = None,
        end: Callable[[], None] | None = None,
    ) -> None:
        self.counts = counts
        self.wants_frames = frame is not None
        self._on_event, self._on_frame, self._on_end = event, frame, end
        self._items: deque[tuple[str | None, Any]] = deque()
        self._events = self._bytes = 0
        self._changed = threading.Condition()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._work, name=counts.name, daemon=True)
        self._thread.start()

    def frame(self, source: str, frame: LiveFrame) -> None:
        """Hand over a picture of a source."""
        if frame.image is None or self._on_frame is None:
            return
        with self._changed:
            if self._bytes and self._bytes + frame.image.nbytes > _FRAME_BYTES:
                self.counts.frames_dropped += 1
                return
            self._bytes += frame.image.nbytes
            self._items.append((source, frame))
            self._changed.notify()

    def event(self, event: Event) -> None:
        """Hand over an event."""
        with self._changed:
            if self._events == _EVENTS:
                del self._items[next(n for n, item in enumerate(self._items) if item[0] is None)]
                self.counts.dropped += 1
                self._events -= 1
            self._events += 1
            self._items.append((None, event))
            self._changed.notify()

    def pause(self, seconds: float) -> bool:
        """Wait before another attempt; say whether there is still room and time for one."""
        end = time.monotonic() + seconds
        with self._changed:
            while (left := end - time.monotonic()) > 0 and self.may_wait():
                # Once the watch has ended, another attempt is made each second.
                self._changed.wait(left if self._deadline is None else min(left, 1.0))
                if self._deadline is not None:
                    break
            return self.may_wait()

    def may_wait(self) -> bool:
        """Say whether there is still room and time to go on with the present event."""
        late = self._deadline is not None and time.monotonic() >= self._deadline
        return self._events < _EVENTS and not late

    def close(self) -> None:
        """Let the thread do what waits, for a while, and say what was left."""
        with self._changed:
            self._deadline = time.monotonic() + CLOSING_SECONDS
            self._changed.notify()
        self._thread.join(CLOSING_SECONDS + 1)
        if left := self._events:
            self.counts.dropped += left
            log(f"{self.counts.name}: {left} of the last events were not delivered in time")

    def _work(self) -> None:
        while (item := self._next()) is not None:
            source, content = item
            try:
                if source is None:
                    self._on_event(content)
                elif self._on_frame is not None:
                    self._on_frame(source, content)
            except Exception as error:
                self._failed(error)
        try:
            if self._on_end is not None:
                self._on_end()
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.counts.failed += 1
        known = isinstance(error, VidkdError)
        self.counts.trouble(str(error) if known else f"unexpected {type(error).__name__}: {error}")

    def _next(self) -> tuple[str | None, Any] | None:
        with self._changed:
            while not self._items and self._deadline is None:
                self._changed.wait()
            late = self._deadline is not None and time.monotonic() >= self._deadline
            if not self._items or late:
                return None
            item = self._items.popleft()
            if item[0] is None:
                self._events -= 1
            else:
                self._bytes -= item[1].image.nbytes
            return item
