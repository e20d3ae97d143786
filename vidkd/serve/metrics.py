"""What Prometheus reads of the server."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """Counters of one server.

    Attributes:
        finished: jobs by outcome.
        refused: requests to work, by reason.
        seconds: of work on each job.
        restarts: of workers.
        retries: of jobs whose worker ended.
        received: bytes of videos.
    """

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self.finished = Counter(
            "vidkd_serve_jobs_finished", "Jobs by outcome.", ["state"], registry=own
        )
        self.refused = Counter(
            "vidkd_serve_refused", "Videos that were not taken.", ["reason"], registry=own
        )
        self.seconds = Histogram(
            "vidkd_serve_job_seconds", "Time of work on a job.", buckets=_SECONDS, registry=own
        )
        self.restarts = Counter(
            "vidkd_serve_worker_restarts", "Workers that were replaced.", registry=own
        )
        self.retries = Counter(
            "vidkd_serve_job_retries", "Jobs that were begun again.", registry=own
        )
        self.received = Counter(
            "vidkd_serve_received_bytes", "Bytes of videos that came.", registry=own
        )

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Show a number that is asked for whenever somebody reads."""
        Gauge(f"vidkd_serve_{name}", meaning, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """Return everything in the text format of Prometheus."""
        return generate_latest(self._registry)
