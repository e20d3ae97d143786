"""What a reader of annotations is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vidkd.annotations.model import Annotations
from vidkd.annotations.parse import Source


@dataclass(frozen=True)
class Reader:
    """How one format is read."""

    help: str
    """One line: whose format, how it counts."""
    read: Callable[[Source, float | None], Annotations]
    """Annotations of a source; the number is ``frame_rate``, or what the user gave for it."""
    recognises: Callable[[Source], bool] = lambda source: False
    """Whether a source is of this format, for ``auto``. When several formats recognise it, the
    user has to name one."""
    frame_rate: float | None = None
    """Frames per second of a format that counts in frames; None for seconds."""
