"""From the time stamps of a source that breaks and jumps to seconds that only grow."""

from __future__ import annotations

from typing import NamedTuple

LATE_SECONDS = 1.0
"""A frame this much before the one before it is late and dropped; more, and the clock was set."""
_LONGEST_STEP = 6 * 3600.0
"""A file may pause for hours; more is a broken clock."""


class Placed(NamedTuple):
    """Where a frame lies."""

    second: float
    """From the source's first frame."""
    apart: bool
    """Whether so much is missing before it that what follows begins anew."""


class Timeline:
    """Places the frames of a source in time.

    - A frame less than a second before its predecessor is late, and dropped.
    - Where time stamps jump otherwise, those of a camera count if the pause between the frames was
      as long; if not, its clock was set, and the pause itself counts. So it does after the source
      was opened again.
    - A file, which may come at any pace, is believed; where it goes back, another one begins.

    Args:
        gap: seconds of pause after which all begins anew.
        speed: seconds of the source in a second.

    Attributes:
        live: whether the source comes at the pace of its time stamps, as cameras do.
    """

    def __init__(self, gap: float, speed: float) -> None:
        self._gap, self._speed = gap, speed
        self.live = True
        self._second: float | None = None
        self._arrival = 0.0
        self._origin: float | None = None
        """Time stamp of second 0."""
        self._reopened = False

    def reopened(self) -> None:
        """Let the next frame's time stamp be of another clock."""
        self._reopened = True

    def place(self, stamp: float | None, arrival: float, nominal: float) -> Placed | None:
        """Return where a frame lies, or None for a late one.

        Args:
            stamp: seconds of the source's own clock; None if the frame has none.
            arrival: when it came, by this machine's clock that is never set.
            nominal: seconds from one frame to the next that the source claims.
        """
        if self._second is None:
            return self._placed(0.0, stamp, arrival, apart=False)
        passed = max(nominal, (arrival - self._arrival) * self._speed)
        if self._reopened:
            step = passed if self.live else nominal
            return self._placed(self._second + step, stamp, arrival, not self.live)
        if stamp is None or self._origin is None:
            return self._placed(self._second + nominal, stamp, arrival, apart=False)
        step = stamp - self._origin - self._second
        if -LATE_SECONDS <= step < 0:
            return None
        if step == 0:
            step = nominal / 100  # as in a file that is read at once
        elif self.live and (step < 0 or step > passed + self._gap):
            return self._placed(self._second + passed, stamp, arrival, apart=False)
        elif not self.live and not 0 < step <= _LONGEST_STEP:
            return self._placed(self._second + nominal, stamp, arrival, apart=True)
        return self._went_on(step, arrival, apart=False)

    def _placed(self, second: float, stamp: float | None, arrival: float, apart: bool) -> Placed:
        """Put a frame at a second, and count its clock from there."""
        step = second - (self._second or 0.0)
        self._origin = None if stamp is None else stamp - second
        self._reopened = False
        self._second = second - step
        return self._went_on(step, arrival, apart)

    def _went_on(self, step: float, arrival: float, apart: bool) -> Placed:
        assert self._second is not None
        self._second += step
        self._arrival = arrival
        return Placed(self._second, apart or step > self._gap)
