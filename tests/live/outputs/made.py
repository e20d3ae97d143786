"""Events and pictures as the engine makes them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from vidkd.live.events import Event, LiveFrame

EPOCH = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
HOSTILE = "<img src=x onerror=window.hacked=1>/../#+"


def event(number: int, state: Any, start: float, end: float | None = None, **more: Any) -> Event:
    values = {"source": "door", "label": "walk", "score": 0.75, "delay": 0.5, **more}
    return Event(
        number=number, state=state, start=start, end=end,
        started=EPOCH + timedelta(seconds=start), **values,
    )  # fmt: skip


def picture(second: float, level: int | None = None, size: tuple[int, int] = (48, 64)) -> LiveFrame:
    """Return a picture that is as bright as its second says: 20 levels each."""
    level = min(int(second) * 20 + 20, 240) if level is None else level
    return LiveFrame(
        image=np.full((*size, 3), level, np.uint8),
        time=second,
        wall=EPOCH + timedelta(seconds=second),
        scores={"walk": 0.75, "sit": 0.25, HOSTILE: 0.5},
    )


def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Return what a function gives as soon as that is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "never true"
        time.sleep(0.01)
    return found
