"""A window with the live pictures, in a process of its own.

A screen that goes away ends every process that shows something on it, without an exception.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from PIL import Image, ImageTk

from vidkd.console import log
from vidkd.errors import VidkdError
from vidkd.live.events import Event, LiveFrame
from vidkd.live.outputs.present import Painter, Present, fitted
from vidkd.report.overlay import BACKGROUND, notice

_RATE = 15.0
_LARGEST = 1280, 720
_SILENT_SECONDS = 3.0
_ROWS = 5
_EVENTS = 1000


class Window:
    """Shows the pictures of all sources in one window, with what is open and the scores below.

    Closing it, or a screen that goes away, ends nothing else.

    Args:
        sources: their names.

    Raises:
        VidkdError: there is no screen, or this Python has no Tk.
    """

    wants_frames = True

    def __init__(self, sources: Sequence[str]) -> None:
        instead = "leave out --window; --http 8080 shows the same in a browser"
        if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
            raise VidkdError("there is no screen for --window", remedy=instead)
        if importlib.util.find_spec("_tkinter") is None:
            raise VidkdError(
                "this Python has no Tk, which --window needs",
                remedy=f"install python3-tk, or {instead}",
            )
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_show, args=(other, list(sources)), daemon=True)
        self._process.start()
        other.close()
        self._newest: dict[str, LiveFrame] = {}
        self._events: deque[Event] = deque(maxlen=_EVENTS)
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._send, name="window", daemon=True)
        self._thread.start()

    def frame(self, source: str, frame: LiveFrame) -> None:
        """Take a frame of a source; the window gets the newest ones."""
        with self._changed:
            self._newest[source] = frame

    def event(self, event: Event) -> None:
        """Take an event."""
        with self._changed:
            self._events.append(event)

    def close(self) -> None:
        """Close the window."""
        self._closing = True
        self._thread.join(2.0)
        self._connection.close()
        self._process.join(2.0)
        if self._process.is_alive():
            self._process.kill()

    def _send(self) -> None:
        try:
            while not self._closing:
                time.sleep(1 / _RATE)
                with self._changed:
                    frames, events = self._newest, self._events
                    self._newest, self._events = {}, deque(maxlen=_EVENTS)
                for event in events:
                    self._connection.send(event)
                for source, frame in frames.items():
                    if frame.image is not None:
                        image = fitted(frame.image, *_LARGEST)
                        scores = {label: float(score) for label, score in frame.scores.items()}
                        self._connection.send((source, replace(frame, image=image, scores=scores)))
        except OSError:
            why = "it was closed"
            with contextlib.suppress(EOFError, OSError):
                while self._connection.poll(0.5):
                    why = self._connection.recv()
            log(f"window: {why}; detection goes on, Ctrl-C ends it")


def _show(connection: Connection, sources: list[str]) -> None:
    """The main function of the process of the window."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import tkinter

    try:
        root = tkinter.Tk()
    except tkinter.TclError as error:
        connection.send(f"cannot be opened ({error})")
        return
    _Screen(root, connection, sources)
    root.mainloop()


class _Screen:
    """What the window shows: a tile for each source."""

    def __init__(self, root: Any, connection: Connection, sources: list[str]) -> None:
        import tkinter

        self._root, self._connection, self._sources = root, connection, sources
        self._present = Present()
        self._painters = {name: Painter(self._present, name, _ROWS, fill=True) for name in sources}
        self._tiles: dict[str, np.ndarray] = {}
        self._columns = math.ceil(math.sqrt(len(sources)))
        self._rows = math.ceil(len(sources) / self._columns)
        root.title("vidkd watch")
        root.configure(background="#111827")
        width = min(480 * self._columns + 240, root.winfo_screenwidth() - 80)
        height = min(420 * self._rows + 180, root.winfo_screenheight() - 80)
        root.geometry(f"{width}x{height}")
        for key in ("<Escape>", "q"):
            root.bind(key, lambda event: root.destroy())
        self._label = tkinter.Label(root, borderwidth=0, background="#111827")
        self._label.place(relx=0.5, rely=0.5, anchor="center")
        self._picture: Any = None
        root.after(10, self._tick)

    def _tick(self) -> None:
        try:
            while self._connection.poll():
                content = self._connection.recv()
                if isinstance(content, Event):
                    self._present.event(content)
                else:
                    self._present.frame(*content)
        except (EOFError, OSError):
            self._root.destroy()
            return
        self._paint()
        self._root.after(round(1000 / _RATE), self._tick)

    def _paint(self) -> None:
        size = self._root.winfo_width(), self._root.winfo_height()
        if min(size) < 50:
            return  # not there yet
        cell = size[0] // self._columns, size[1] // self._rows
        canvas = Image.new("RGB", size, BACKGROUND)
        for number, source in enumerate(self._sources):
            # The scores below take about a third of the picture's height.
            drawn = self._painters[source].draw(cell[0] - 8, round((cell[1] - 8) / 1.34))
            if drawn is not None:
                self._tiles[source] = drawn
            tile = self._tile(source, cell)
            left = number % self._columns * cell[0] + (cell[0] - tile.width) // 2
            top = number // self._columns * cell[1] + (cell[1] - tile.height) // 2
            canvas.paste(tile, (left, top))
        if self._picture is None or (self._picture.width(), self._picture.height()) != size:
            self._picture = ImageTk.PhotoImage(canvas)
            self._label.configure(image=self._picture)
        else:
            self._picture.paste(canvas)

    def _tile(self, source: str, cell: tuple[int, int]) -> Image.Image:
        if source not in self._tiles:
            return notice(Image.new("RGB", cell, BACKGROUND), f"{source}: no picture yet")
        tile = Image.fromarray(self._tiles[source])
        tile.thumbnail(cell)
        silence = (datetime.now(UTC) - self._present.frames[source].wall).total_seconds()
        if silence > _SILENT_SECONDS:
            tile = notice(tile, f"no picture for {silence:.0f} s")
        return tile
