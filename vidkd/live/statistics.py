"""What the live engine counts, in memory that does not grow."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

BUCKETS = tuple(0.001 * 1.1**number for number in range(146))
"""Upper bounds of the buckets of delays, in seconds: 1 ms to 1000 s in steps of 10 %."""


@dataclass
class Delays:
    """Seconds from the arrival of a snippet's last frame to its scores, in buckets.

    Attributes:
        counts: of each of ``BUCKETS``, and of what is longer.
        total: their sum in seconds.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect.bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def quantile(self, share: float) -> float | None:
        """Return what a share of them stays below, to 10 %; None if there were none."""
        wanted, passed = share * self.count, 0
        for bound, count in zip((*BUCKETS, float("inf")), self.counts, strict=True):
            passed += count
            if count and passed >= wanted:
                return min(bound, BUCKETS[-1])
        return None

    @staticmethod
    def together(parts: Iterable[Delays]) -> Delays:
        """Return the delays of all parts."""
        given = list(parts)
        counts = [sum(column) for column in zip(*(part.counts for part in given), strict=True)]
        return Delays(counts, sum(part.total for part in given)) if given else Delays()


@dataclass
class SourceStatistics:
    """Counts of one source since it was first opened.

    Attributes:
        source: its name.
        connected: whether frames come now.
        frames: decoded.
        late: frames whose time stamp lay before that of the one before them; dropped.
        damaged: packets and frames that could not be decoded.
        skipped_frames: packets that were not decoded because this machine was too slow.
        snippets: scored, with those that were skipped.
        skipped_snippets: not encoded because this machine was too slow.
        reconnects: how often the source came back.
        resets: how often the filter began anew, after a pause or a cut.
        events: that have begun.
        delays: of scored snippets.
    """

    source: str
    connected: bool = False
    frames: int = 0
    late: int = 0
    damaged: int = 0
    skipped_frames: int = 0
    snippets: int = 0
    skipped_snippets: int = 0
    reconnects: int = 0
    resets: int = 0
    events: int = 0
    delays: Delays = field(default_factory=Delays)

    def to_json(self) -> dict[str, Any]:
        """Return counts and quantiles as JSON values; delays in seconds."""
        own = {k: v for k, v in vars(self).items() if k != "delays"}
        return {**own, **_quantiles(self.delays)}


@dataclass
class Statistics:
    """Counts of all sources; other threads may read them at any time.

    Attributes:
        sources: by name.
    """

    sources: dict[str, SourceStatistics]

    @staticmethod
    def of(names: Iterable[str]) -> Statistics:
        """Return those of sources that have not begun."""
        return Statistics({name: SourceStatistics(name) for name in names})

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; delays in seconds."""
        everything = Delays.together(own.delays for own in self.sources.values())
        return {
            "sources": [own.to_json() for own in self.sources.values()],
            **_quantiles(everything),
        }


def _quantiles(delays: Delays) -> dict[str, float | None]:
    return {"delay_p50": delays.quantile(0.5), "delay_p99": delays.quantile(0.99)}
