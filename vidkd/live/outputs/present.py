"""What is happening now, for those who look: the page and the window."""

from __future__ import annotations

import math
import threading
from collections import deque

import cv2
import numpy as np

from vidkd.live.events import Event, LiveFrame
from vidkd.report.overlay import LiveOverlay
from vidkd.video.redraw import SMALLEST_HEIGHT

_KEPT = 200


class Present:
    """The last picture of every source, the events that are open, and the last ones.

    Attributes:
        frames: the last one of each source.
        events: the last ones with their numbers, which count all events from 1.
    """

    def __init__(self) -> None:
        self.frames: dict[str, LiveFrame] = {}
        self.events: deque[tuple[int, Event]] = deque(maxlen=_KEPT)
        self._open: dict[tuple[str, int], Event] = {}
        self._told = 0
        self._lock = threading.Lock()

    def frame(self, source: str, frame: LiveFrame) -> None:
        """Take a frame of a source."""
        self.frames[source] = frame

    def event(self, event: Event) -> None:
        """Take an event."""
        with self._lock:
            self._told += 1
            self.events.append((self._told, event))
            if event.state == "end":
                self._open.pop((event.source, event.number), None)
            else:
                self._open[event.source, event.number] = event

    def open(self, source: str) -> list[Event]:
        """Return the events of a source that have not ended, the latest state of each."""
        with self._lock:
            return [event for event in self._open.values() if event.source == source]

    def since(self, number: int) -> list[tuple[int, Event]]:
        """Return the events after a number."""
        with self._lock:
            return [item for item in self.events if item[0] > number]


def fitted(image: np.ndarray, width: int, height: int, largest: float = 1.0) -> np.ndarray:
    """Return a picture (H, W, 3) as large as fits, enlarged by a factor at most."""
    scale = min(width / image.shape[1], height / image.shape[0], largest)
    if scale == 1:
        return image
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


class Painter:
    """Draws the present of one source.

    Args:
        present: what is to be drawn.
        source: its name.
        rows: classes whose scores stand below the picture.
        fill: enlarge pictures as far as there is room, and not only until what is written over them
            can be read.
    """

    def __init__(self, present: Present, source: str, rows: int, fill: bool) -> None:
        self._present, self._source, self._fill = present, source, fill
        self._overlay = LiveOverlay(source, rows)
        self.drawn: LiveFrame | None = None

    def draw(self, width: int, height: int) -> np.ndarray | None:
        """Return the last picture, fitted into a size, or None if it was drawn already."""
        frame = self._present.frames.get(self._source)
        if frame is None or frame.image is None or frame is self.drawn:
            return None
        self.drawn = frame
        scores = {label: float(score) for label, score in frame.scores.items()}
        current = [
            (event.label, scores.get(event.label, event.score), event.start, event.state != "begin")
            for event in self._present.open(self._source)
        ]
        readable = max(1.0, SMALLEST_HEIGHT / min(frame.image.shape[:2]))
        image = fitted(frame.image, width, height, math.inf if self._fill else readable)
        return self._overlay.draw(image, frame.time, scores, current)
