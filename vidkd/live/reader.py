"""One source in a thread of its own: from packets to snippets that wait for the encoder."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import av
import numpy as np

from vidkd.console import log
from vidkd.detection.scorers import Sampling
from vidkd.errors import VideoError, VidkdError
from vidkd.live.sources import OpenSource, Source, open_source
from vidkd.live.statistics import SourceStatistics
from vidkd.live.timeline import Timeline
from vidkd.recipe import LiveSettings
from vidkd.streams import Stream
from vidkd.video import Frame, cut_snippets
from vidkd.video.decode import Converter, ticks
from vidkd.video.opened import frame_time, reason
from vidkd.video.pictures import Picture, last_end

_FIRST_PAUSE = 0.5
_KEY_FRAME_PATIENCE = 500
"""Packets after which a source without key frames is decoded all the same."""
_MOST_SKIPPED = 64
"""Skipped snippets in a row after which the filter begins anew: it would see nothing else."""


@dataclass(frozen=True)
class Arrived(Picture):
    """A picture and when it came, by the clock of `time.monotonic`."""

    arrival: float


@dataclass
class LiveSnippet:
    """A snippet that waits to be scored.

    Attributes:
        images: rows (T, H, W, C) of the stream; None once it is skipped.
        start: second from the source's first frame.
        end: likewise.
        second: of its last frame.
        arrival: when that came, by the clock of `time.monotonic`.
    """

    images: np.ndarray | None
    start: float
    end: float
    second: float
    arrival: float


class Waiting:
    """Snippets of one source on their way to the encoder; None stands for a cut between two.

    Args:
        changed: notified whenever there is something to take; its lock guards the queue.
        capacity: how many may wait with their pictures.
        counts: where skipped ones are counted.
        stop: ends all waiting.

    Attributes:
        patient: a snippet waits for a free place, instead of taking that of the oldest.
        closed: nothing comes any more.
    """

    def __init__(
        self,
        changed: threading.Condition,
        capacity: int,
        counts: SourceStatistics,
        stop: threading.Event,
    ) -> None:
        self._changed, self._capacity = changed, capacity
        self._counts, self._stop = counts, stop
        self.patient = False
        self._items: deque[LiveSnippet | None] = deque()
        self._pictures = 0
        self.closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: LiveSnippet | None) -> None:
        """Let a snippet wait, or a cut."""
        with self._changed:
            while self.patient and self._pictures >= self._capacity and not self._stop.is_set():
                self._changed.wait(0.1)
            self._items.append(item)
            self._pictures += item is not None
            if self._pictures > self._capacity and not self.patient:
                self._skip()
            self._changed.notify_all()

    def _skip(self) -> None:
        """Take the pictures of the oldest snippet that has some."""
        place = next(n for n, item in enumerate(self._items) if item and item.images is not None)
        self._items[place].images = None  # type: ignore[union-attr]
        self._pictures -= 1
        self._counts.skipped_snippets += 1
        if place >= _MOST_SKIPPED:
            for _ in range(place + 1):
                self._items.popleft()
            self._items.appendleft(None)

    def take(self) -> list[LiveSnippet | None]:
        """Return what waits up to the first snippet with pictures, at most one of those."""
        taken: list[LiveSnippet | None] = []
        while self._items:
            item = self._items.popleft()
            taken.append(item)
            if item is not None and item.images is not None:
                self._pictures -= 1
                break
        self._changed.notify_all()
        return taken

    def close(self) -> None:
        """Say that nothing comes any more."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()


class Reader(threading.Thread):
    """Reads a source until its end, through breaks, and cuts it into snippets as `detect` does.

    Args:
        source: what to read.
        settings: how.
        sampling: size and rate of the frames, and the snippets.
        stream: what the encoder sees of the frames.
        waiting: where the snippets go.
        counts: what is counted.
        show: called with every frame that was decoded.
        pictures: says whether those need a picture now.
        stop: ends the reading.

    Attributes:
        error: why it ended before its end.
    """

    def __init__(
        self,
        source: Source,
        settings: LiveSettings,
        sampling: Sampling,
        stream: Stream,
        waiting: Waiting,
        counts: SourceStatistics,
        show: Callable[[np.ndarray | None, float, datetime], None],
        pictures: Callable[[], bool],
        stop: threading.Event,
    ) -> None:
        super().__init__(name=f"vidkd-{source.name}", daemon=True)
        self.source, self.waiting, self.counts = source, waiting, counts
        self.error: VidkdError | None = None
        self._settings, self._sampling, self._stream = settings, sampling, stream
        self._show, self._pictures, self._stop_asked = show, pictures, stop
        self._live = True
        self._timeline = Timeline(settings.gap, settings.speed)
        self._opened: OpenSource | None = None
        self._nominal = 0.04
        self._ended = False
        self._last = 0.0, 0.0  # second and arrival of the last frame of a snippet

    def run(self) -> None:
        """Read until the source ends, or is given up."""
        try:
            feed = self._placed()
            while not self._ended:
                self._cut(feed)
        except VidkdError as error:
            self.error = error
        except Exception as error:  # a source that breaks must not stop the others
            self.error = VidkdError(
                f"unexpected {type(error).__name__}: {reason(error)}",
                path=self.source.name,
                remedy="report it, with the command and the kind of source",
            )
        finally:
            self.counts.connected = False
            self.waiting.put(None)
            self.waiting.close()

    def _cut(self, feed: Iterator[Arrived | None]) -> None:
        """Cut the frames up to the next None, or to the end, into snippets."""
        first: list[float] = []
        snippet = self._sampling.snippet
        # What the encoder sees of them is cut where there is time for it, of those not skipped.
        for item in cut_snippets(self._stream.rows(self._frames(feed, first)), snippet):
            base = first[0]
            second, arrival = self._last
            self.waiting.put(
                LiveSnippet(item.frames, base + item.start, base + item.end, second, arrival)
            )
        self.waiting.put(None)

    def _frames(self, feed: Iterator[Arrived | None], first: list[float]) -> Iterator[Frame]:
        """Yield the frames of one stretch, with times from its first frame, which is told."""
        rate, side = self._sampling.frames.frame_rate, self._sampling.frames.short_side
        convert = Converter(Path(self.source.name), side)
        own = self._stretch(feed, first)
        timed: Iterable[tuple[Picture, float, float]] = (
            ((picture, picture.start, picture.end) for picture in own)
            if rate is None
            else ticks(own, rate, 0.0, None)
        )
        previous, image = None, np.zeros(0)
        for index, (picture, start, end) in enumerate(timed):
            assert isinstance(picture, Arrived)
            if picture is not previous:
                try:
                    image = convert(picture)
                except VideoError:
                    self.counts.damaged += 1
                    continue
                previous = picture
                self._last = first[0] + picture.start, picture.arrival
            yield Frame(image, start, end, index)

    def _stretch(self, feed: Iterator[Arrived | None], first: list[float]) -> Iterator[Arrived]:
        """Yield pictures up to the next None, with times from the first."""
        for picture in feed:
            if picture is None:
                return
            if not first:
                first.append(picture.start)
            yield replace(picture, start=picture.start - first[0], end=picture.end - first[0])
        self._ended = True

    def _placed(self) -> Iterator[Arrived | None]:
        """Yield the source's pictures, each once its end is known, and None where it broke off."""
        steps: deque[float] = deque(maxlen=31)
        waiting: Arrived | None = None
        full = Converter(Path(self.source.name), None)
        for item in self._decoded():
            placed, opened = None, self._opened
            if item is not None:
                placed = self._timeline.place(frame_time(item[0]), item[1], self._nominal)
                if placed is None:
                    self.counts.late += 1
                    continue
            if waiting is not None:
                if placed is None or placed.apart:
                    yield self._with_end(waiting, steps)
                    yield None
                    self.counts.resets += 1
                    steps.clear()
                    full = Converter(Path(self.source.name), None)
                else:
                    steps.append(placed.second - waiting.start)
                    yield replace(waiting, end=placed.second)
            waiting = None
            if item is None or placed is None or opened is None:
                continue
            (frame, arrival), second = item, placed.second
            aspect = opened.stream.sample_aspect_ratio
            waiting = Arrived(frame, aspect, second, second, arrival)
            self.counts.frames += 1
            wall = datetime.fromtimestamp(time.time() - (time.monotonic() - arrival), UTC)
            self._show(full(waiting) if self._pictures() else None, second, wall)
        if waiting is not None:
            yield self._with_end(waiting, steps)

    def _with_end(self, picture: Arrived, steps: deque[float]) -> Arrived:
        """Return the last picture of a stretch, with its end."""
        usual = statistics.median(steps) if steps else self._nominal
        promised = self._opened.duration if self._opened else None
        return replace(picture, end=last_end(picture, usual, promised))

    def _decoded(self) -> Iterator[tuple[av.VideoFrame, float] | None]:
        """Yield frames and when they came, through breaks; None when one lasts too long."""
        kind, name = self.source.kind, self.source.name
        failures, lost, told = 0, 0.0, ""
        while not self._stop_asked.is_set():
            problem, returns = "the stream ended", kind in {"camera", "network", "growing"}
            try:
                with open_source(self.source, self._settings, self._stop_asked) as opened:
                    # A file on a server has an end, and waits for us.
                    self._live = kind in {"camera", "paced"} or (
                        kind == "network" and opened.duration is None
                    )
                    returns = returns and opened.duration is None
                    self._opened, self._nominal = opened, 1 / float(opened.frame_rate)
                    self.waiting.patient = not self._live
                    self._timeline.live = self._live
                    for item in self._frames_of(opened):
                        if not self.counts.connected:
                            self.counts.connected = True
                            if failures and self.counts.frames:
                                self._timeline.reopened()
                                self.counts.reconnects += 1
                            if told:
                                away = time.monotonic() - lost
                                log(f"{name}: frames come again, after {away:.1f} s")
                            failures, told = 0, ""
                        yield item
            except (VidkdError, av.error.FFmpegError, OSError, ValueError, IndexError) as error:
                problem = f"broke off ({reason(error)})"
                returns = returns and not self._gone()
                if isinstance(error, VidkdError):
                    problem = error.problem
                    if not returns:
                        raise
                if not returns:
                    raise VideoError(
                        problem, path=name, remedy="check that it plays to its end"
                    ) from error
            self.counts.connected = False
            if not returns or self._gone() or self._stop_asked.is_set():
                return
            failures += 1
            lost = time.monotonic() if failures == 1 else lost
            retries = self._settings.retries
            if retries is not None and failures > retries:
                raise VideoError(
                    f"{problem}; gave up after {retries} attempts to open it again",
                    path=name,
                    remedy="check the address, the source and the network",
                )
            if problem != told:
                log(f"{name}: {problem}; trying again")
                told = problem
            yield from self._pause(failures, lost)

    def _gone(self) -> bool:
        """Say whether the source is a growing file that was removed."""
        return self.source.kind == "growing" and not Path(self.source.address).exists()

    def _pause(self, failures: int, lost: float) -> Iterator[None]:
        """Wait before the next attempt, and yield None when the source has been away too long."""
        seconds = min(self._settings.retry_seconds, _FIRST_PAUSE * 2 ** min(failures - 1, 20))
        # Many sources of one recorder must not all come back at once.
        end = time.monotonic() + seconds * random.uniform(0.8, 1.0)
        cut = lost + self._settings.gap / self._settings.speed
        if cut < end:
            self._stop_asked.wait(max(0.0, cut - time.monotonic()))
            yield None
        self._stop_asked.wait(max(0.0, end - time.monotonic()))

    def _frames_of(self, opened: OpenSource) -> Iterator[tuple[av.VideoFrame, float]]:
        """Decode one opening of the source, skipping what this machine is too slow for."""
        # One may come into a camera's stream anywhere; what precedes a key frame is no picture.
        skipping, begun, patience = False, not self._live, _KEY_FRAME_PATIENCE
        for packet, arrival, lag, caught_up in self._packets(opened):
            if skipping or not begun:
                if (packet.is_keyframe or patience <= 0) and (caught_up or not skipping):
                    if skipping:
                        opened.stream.codec_context.flush_buffers()
                    skipping, begun, patience = False, True, _KEY_FRAME_PATIENCE
                else:
                    patience -= caught_up or not skipping
                    self.counts.skipped_frames += skipping
                    continue
            try:
                frames = opened.stream.decode(packet)
            except av.error.FFmpegError:
                self.counts.damaged += 1
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self.counts.damaged += 1
                else:
                    yield frame, arrival
            skipping = self._live and lag > self._settings.lag

    def _packets(self, opened: OpenSource) -> Iterator[tuple[av.Packet, float, float, bool]]:
        """Yield packets, when they came, the lag in seconds of the source, and whether none waits.

        A source that has to be waited for has nothing more to give: there is no lag. Else the lag
        grows by what the packets are behind the clock.
        """
        speed, nominal = self._settings.speed, 1 / float(opened.frame_rate)
        lag, last, stamp = 0.0, time.monotonic(), None
        due = 0.0
        asked = last
        for packet in opened.container.demux(opened.stream):
            came = time.monotonic()
            own = packet.dts if packet.dts is not None else packet.pts
            before, stamp = stamp, stamp if own is None else float(own * packet.time_base)
            step = 0.0 if stamp is None or before is None else stamp - before
            step = step if 0 <= step <= self._settings.gap else nominal
            if self.source.kind == "paced":
                due = came if before is None else due + step / speed
                caught_up = due >= came
                self._stop_asked.wait(max(0.0, due - came))
                came = max(came, due)
                lag = (came - due) * speed
            else:
                caught_up = (came - asked) * speed > nominal / 4
                lag = 0.0 if caught_up else max(0.0, lag + (came - last) * speed - step)
            if self._stop_asked.is_set():
                return
            yield packet, came - lag / speed, lag, caught_up
            asked, last = time.monotonic(), came
