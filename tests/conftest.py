"""What all tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _interrupts_reach_processes() -> Iterator[None]:
    """Let the processes that tests start be interrupted.

    A shell starts what runs in its background with Ctrl-C ignored, which every process inherits.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
