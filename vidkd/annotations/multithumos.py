"""MultiTHUMOS: the JSON of the detection papers."""

from __future__ import annotations

from vidkd.annotations.numbered import is_numbered, read_numbered
from vidkd.annotations.parse import Reader

_CLASSES = tuple(str(number) for number in range(1, 66))

MULTITHUMOS = Reader(
    "MultiTHUMOS, JSON of the detection papers: classes from 1, seconds",
    lambda source, _: read_numbered(source, _CLASSES, first=1),
    is_numbered,
)
