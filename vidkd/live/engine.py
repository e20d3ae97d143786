"""The live engine: many sources, one encoder, and events as they happen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from vidkd.console import log
from vidkd.errors import VidkdError
from vidkd.live.events import Event, LiveFrame, Output
from vidkd.live.grouping import Change, Grouping
from vidkd.live.reader import LiveSnippet, Reader, Waiting
from vidkd.live.sources import Source
from vidkd.live.statistics import SourceStatistics, Statistics
from vidkd.live.student import LiveStudent, State
from vidkd.recipe import LiveSettings

_JOIN_SECONDS = 2.0


class _Outputs:
    """Passes frames and events on; an output that fails is dropped, and the others go on.

    Attributes:
        unread: set when nobody reads what is printed any more.
    """

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._outputs = [(output, threading.Lock()) for output in outputs]
        self.unread: BrokenPipeError | None = None

    def wants_frames(self) -> bool:
        """Say whether any output wants pictures at present."""
        return any(output.wants_frames for output, _ in self._outputs)

    def call(self, what: Callable[[Output], None]) -> None:
        for item in list(self._outputs):
            output, lock = item
            with lock:
                try:
                    what(output)
                except Exception as error:  # whatever a network or a disk does
                    if isinstance(error, BrokenPipeError):
                        self.unread = error
                    else:
                        text = str(error) if isinstance(error, VidkdError) else repr(error)
                        log(f"{type(output).__name__} failed and is left out from now on: {text}")
                    if item in self._outputs:
                        self._outputs.remove(item)


@dataclass
class _Track:
    """What is carried from snippet to snippet of one source."""

    reader: Reader
    counts: SourceStatistics
    grouping: Grouping
    state: State
    row: np.ndarray | None = None
    last: LiveSnippet | None = None
    scores: dict[str, float] = field(default_factory=dict)
    started: dict[int, datetime] = field(default_factory=dict)


class Engine:
    """Watches sources with one student until they end, or `stop` is called.

    Whenever snippets wait, up to a batch of them is encoded, one of each source in turn, beginning
    with the source after the one that was served last. Each source has a thread that reads it, and
    a filter state and a grouping of its own.

    Args:
        student: what scores the snippets.
        sources: what to watch.
        settings: how sources are read.
        outputs: where frames and events go.
        threshold: the score a segment has to reach; by default the student's.
        batch_size: snippets encoded at once at most; by default what suits the device.
        statistics: of the sources, to count in; by default new ones.

    Attributes:
        statistics: counts, for any thread to read.
        errors: of sources that ended by one, in the order of ending.
    """

    def __init__(
        self,
        student: LiveStudent,
        sources: Sequence[Source],
        settings: LiveSettings,
        outputs: Sequence[Output] = (),
        *,
        threshold: float | None = None,
        batch_size: int | None = None,
        statistics: Statistics | None = None,
    ) -> None:
        self._student = student
        self._speed = settings.speed
        self._outputs = _Outputs(outputs)
        self._batch_size = batch_size or student.batch_size
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._turn = 0
        self.errors: list[VidkdError] = []
        self.statistics = statistics or Statistics.of(source.name for source in sources)
        threshold = student.threshold if threshold is None else threshold
        self._tracks: list[_Track] = []
        for source in sources:
            counts = self.statistics.sources[source.name]
            waiting = Waiting(self._changed, settings.waiting, counts, self._stop)
            reader = Reader(
                source, settings, student.sampling, student.stream, waiting, counts,
                self._shown(len(self._tracks)), self._outputs.wants_frames, self._stop,
            )  # fmt: skip
            grouping = Grouping(len(student.classes), threshold, student.settings)
            self._tracks.append(_Track(reader, counts, grouping, student.start()))

    def _shown(self, number: int) -> Callable[[np.ndarray | None, float, datetime], None]:
        """Return what a reader calls with every frame."""

        def show(image: np.ndarray | None, second: float, wall: datetime) -> None:
            track = self._tracks[number]
            frame = LiveFrame(image, second, wall, track.scores)
            self._outputs.call(lambda output: output.frame(track.counts.source, frame))

        return show

    def stop(self) -> None:
        """Let `run` return soon, with all that is open ended; may be called from anywhere."""
        self._stop.set()

    def run(self) -> None:
        """Watch until every source has ended, or `stop` is called.

        Raises:
            VidkdError: the encoder fails.
            BrokenPipeError: nobody reads what an output prints; the others were closed.
        """
        with self._reading():
            while not self._outputs.unread and (batch := self._next()) is not None:
                snippets = [item for _, item in batch if item and item.images is not None]
                rows = iter(self._student.rows([s.images for s in snippets]) if snippets else ())  # type: ignore[misc]
                for track, item in batch:
                    if item is None:
                        self._cut(track)
                        continue
                    if item.images is not None:
                        track.row, item.images = next(rows), None
                    self._score(track, item)
        if self._outputs.unread:
            raise self._outputs.unread

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Let the readers read while the block runs; whatever ends it, open events are ended."""
        for track in self._tracks:
            track.reader.start()
        try:
            yield
        finally:
            self._stop.set()
            for track in self._tracks:
                self._cut(track)
            deadline = time.monotonic() + _JOIN_SECONDS
            for track in self._tracks:
                # One that waits for a dead camera is left to end with the process.
                track.reader.join(max(0.0, deadline - time.monotonic()))
            self._outputs.call(lambda output: output.close())

    def _next(self) -> list[tuple[_Track, LiveSnippet | None]] | None:
        """Wait for snippets and return a batch, each source's in order; None at the end."""
        with self._changed:
            while not self._stop.is_set():
                self._collect_errors()
                batch: list[tuple[_Track, LiveSnippet | None]] = []
                count, idle = 0, 0
                while count < self._batch_size and idle < len(self._tracks):
                    track = self._tracks[self._turn]
                    self._turn = (self._turn + 1) % len(self._tracks)
                    taken = track.reader.waiting.take()
                    batch += [(track, item) for item in taken]
                    if taken and taken[-1] is not None and taken[-1].images is not None:
                        count, idle = count + 1, 0
                    else:
                        idle += 1
                if batch:
                    return batch
                if all(track.reader.waiting.closed for track in self._tracks):
                    return None
                self._changed.wait(0.1)
        return None

    def _collect_errors(self) -> None:
        for track in self._tracks:
            error, track.reader.error = track.reader.error, None
            if error is not None:
                self.errors.append(error)
                log(f"error: {error}")

    def _score(self, track: _Track, item: LiveSnippet) -> None:
        """Score a snippet; one that was skipped has the features of the one before it."""
        if track.row is None:
            return  # skipped before the first one was encoded
        scores, track.state = self._student.scores(track.row, track.state)
        track.last = item
        track.scores = dict(zip(self._student.classes, scores.tolist(), strict=True))
        track.counts.snippets += 1
        track.counts.delays.add(max(0.0, time.monotonic() - item.arrival))
        self._tell(track, track.grouping.add(scores, item.start, item.end))

    def _cut(self, track: _Track) -> None:
        """End what is open in a source, and begin anew."""
        self._tell(track, track.grouping.finish())
        track.state, track.row = self._student.start(), None

    def _tell(self, track: _Track, changes: Sequence[Change]) -> None:
        last = track.last
        assert last is not None or not changes
        for change in changes:
            assert last is not None
            now = time.monotonic()
            if change.state == "begin":
                track.counts.events += 1
                ago = now - last.arrival + (last.second - change.start) / self._speed
                track.started[change.number] = datetime.fromtimestamp(time.time() - ago, UTC)
            started = track.started[change.number]
            if change.state == "end":
                del track.started[change.number]
            event = Event(
                track.counts.source, change.number, change.state,
                self._student.classes[change.label], change.start, change.end, change.score,
                started, max(0.0, now - last.arrival),
            )  # fmt: skip
            self._outputs.call(lambda output, event=event: output.event(event))  # type: ignore[misc]
