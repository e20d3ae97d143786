"""What Prometheus reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from vidkd.live.events import Event
from vidkd.live.outputs.beside import Counts
from vidkd.live.statistics import BUCKETS, Delays, Statistics

_COUNTERS = {
    "frames": "Frames decoded.",
    "late": "Frames dropped since their time stamp lay before that of the one before them.",
    "damaged": "Packets and frames that could not be decoded.",
    "skipped_frames": "Packets not decoded because this machine was too slow.",
    "snippets": "Snippets scored, with those that were skipped.",
    "skipped_snippets": "Snippets not encoded because this machine was too slow.",
    "reconnects": "How often the source came back.",
    "resets": "How often the filter began anew, after a pause or a cut.",
}
_OUTPUTS = {
    "done": "Events delivered, or clips written.",
    "failed": "Events or clips that were given up.",
    "dropped": "Events dropped because too many waited.",
    "frames_dropped": "Pictures dropped because too many waited.",
}
_BOUNDS = range(25, 125, 5)
"""Buckets of delays that are shown: 11 ms to 92 s, each 1.6 times the one before."""


class Metrics(Collector):
    """Counts of a watch in the text format of Prometheus, read when they are asked for.

    Args:
        statistics: of the engine.
        outputs: counts of the other outputs.
    """

    def __init__(self, statistics: Statistics, outputs: Sequence[Counts] = ()) -> None:
        self._statistics = statistics
        self._outputs = outputs
        self._events: Counter[tuple[str, str, str]] = Counter()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def event(self, event: Event) -> None:
        """Count an event."""
        self._events[event.source, event.label, event.state] += 1

    def text(self) -> bytes:
        """Return everything as it is now."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        sources = list(self._statistics.sources.values())
        connected = GaugeMetricFamily(
            "vidkd_watch_connected", "Whether frames come from the source.", labels=["source"]
        )
        delays = HistogramMetricFamily(
            "vidkd_watch_delay_seconds",
            "Time from the arrival of a snippet's last frame to its scores.",
            labels=["source"],
        )
        for own in sources:
            connected.add_metric([own.source], float(own.connected))
            delays.add_metric([own.source], *_buckets(own.delays))
        yield connected
        yield delays
        for name, meaning in _COUNTERS.items():
            counter = CounterMetricFamily(f"vidkd_watch_{name}", meaning, labels=["source"])
            for own in sources:
                counter.add_metric([own.source], getattr(own, name))
            yield counter
        events = CounterMetricFamily(
            "vidkd_watch_events", "Events told.", labels=["source", "label", "state"]
        )
        for labels, count in self._events.copy().items():
            events.add_metric(labels, count)
        yield events
        for name, meaning in _OUTPUTS.items():
            counter = CounterMetricFamily(f"vidkd_watch_output_{name}", meaning, labels=["output"])
            for counts in self._outputs:
                counter.add_metric([counts.name], getattr(counts, name))
            yield counter


def _buckets(delays: Delays) -> tuple[list[tuple[str, float]], float]:
    """Return cumulative counts by upper bound, and the sum of all in seconds."""
    # A copy, since the engine goes on counting meanwhile.
    counts, total = list(delays.counts), delays.total
    found = [(f"{BUCKETS[n]:.4g}", float(sum(counts[: n + 1]))) for n in _BOUNDS]
    return [*found, ("+Inf", float(sum(counts)))], total
