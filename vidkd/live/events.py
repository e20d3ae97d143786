"""What the live engine tells: events, and the frames they are seen in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

import numpy as np


@dataclass(frozen=True)
class Event:
    """Something that begins, is certain or ends; docs/watch.md says when each is told.

    Attributes:
        source: name of the source, without any password.
        number: of the event in this source, from 1; the same in all its states.
        state: what is told about it now.
        label: its class.
        start: second at which it begins, from the source's first frame.
        end: second at which it ended; None until then.
        score: of the snippet that decided; at the end the mean over the event, as ``detect`` has.
        started: when it began, by the clock of this machine (UTC).
        delay: seconds from the arrival of the frame that decided to the decision.
    """

    source: str
    number: int
    state: Literal["begin", "certain", "end"]
    label: str
    start: float
    end: float | None
    score: float
    started: datetime
    delay: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; ``started`` in ISO 8601."""
        return {**asdict(self), "started": self.started.isoformat(timespec="milliseconds")}


@dataclass(frozen=True)
class LiveFrame:
    """A frame that was decoded.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright, of the source's size; None if no output wants frames.
        time: second at which it appears, from the source's first frame.
        wall: when it arrived (UTC).
        scores: of the last snippet that was scored, by class; empty before the first one.
    """

    image: np.ndarray | None
    time: float
    wall: datetime
    scores: Mapping[str, float]


class Output(Protocol):
    """Where frames and events go. Never called by two threads at once; it has to return soon.

    Frames of a source come in order of time, each before the events that it decides.

    Attributes:
        wants_frames: whether ``frame`` needs pictures at present. Without, it is called all the
            same.
    """

    @property
    def wants_frames(self) -> bool: ...

    def frame(self, source: str, frame: LiveFrame) -> None:
        """Take a frame of a source."""

    def event(self, event: Event) -> None:
        """Take an event."""

    def close(self) -> None:
        """Finish what was begun; nothing comes after it."""
