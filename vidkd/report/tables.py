"""Rows and words of the tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from vidkd.evaluation import Detection


def clock(seconds: float) -> str:
    """Write a time as ``mm:ss.s``, or ``h:mm:ss.s`` from one hour on.

    >>> clock(59.96), clock(3725.04)
    ('01:00.0', '1:02:05.0')
    """
    tenths = round(max(0.0, seconds) * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    rest = f"{minutes:02d}:{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{rest}" if hours else rest


def segment_rows(segments: Iterable[Detection]) -> list[tuple[str, str, str, str]]:
    """Return the rows (action, start, end, score) of a table of segments, sorted by start."""
    ordered = sorted(segments, key=lambda item: (item.start, item.end, item.label))
    return [
        (item.label, clock(item.start), clock(item.end), f"{item.score:.2f}") for item in ordered
    ]
