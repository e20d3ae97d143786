"""THUMOS14: one text file per class and subset.

``BaseballPitch_val.txt`` and ``BaseballPitch_test.txt`` hold lines ``video start end``, seconds;
``Ambiguous_val.txt`` and ``Ambiguous_test.txt`` hold what is neither an action nor background
(THUMOS14 README of the temporal annotations).
"""

from __future__ import annotations

import re

from vidkd.annotations.model import AMBIGUOUS, Annotations, Segment, VideoAnnotation
from vidkd.annotations.parse import Context, Reader, Source, lines, short

THUMOS14_CLASSES = {
    **{"BaseballPitch": 7, "BasketballDunk": 9, "Billiards": 12, "CleanAndJerk": 21},
    **{"CliffDiving": 22, "CricketBowling": 23, "CricketShot": 24, "Diving": 26},
    **{"FrisbeeCatch": 31, "GolfSwing": 33, "HammerThrow": 36, "HighJump": 40},
    **{"JavelinThrow": 45, "LongJump": 51, "PoleVault": 68, "Shotput": 79},
    **{"SoccerPenalty": 85, "TennisSwing": 92, "ThrowDiscus": 93, "VolleyballSpiking": 97},
}
"""The classes with temporal annotation, and their numbers among the 101 of THUMOS14."""

_SUBSETS = {"val": "validation", "test": "testing"}


def _label_and_subset(name: str) -> tuple[str, str] | None:
    """Return class and subset of a file by its name without ending, if it is one of these."""
    match = re.fullmatch(r"([A-Za-z]+)_(val|test)", name)
    if match is None or match[1] not in {*THUMOS14_CLASSES, AMBIGUOUS}:
        return None
    return match[1], _SUBSETS[match[2]]


def _read(source: Source, _: float | None) -> Annotations:
    """Read a folder of annotation files; those of val and test may lie in folders of their own.

    The classes are the 20, and ``Ambiguous`` if there are such segments (training and every
    protocol but ``thumos14`` leave them out); segments are in order of time. Detectors are trained
    on the subset ``validation``, the other is ``testing``.
    """
    found: dict[str, list[Segment]] = {}
    subsets: dict[str, str] = {}
    files = [file for file in sorted(source.path.rglob("*.txt")) if _label_and_subset(file.stem)]
    if not files:
        raise Context(source.path).error(
            "has no annotation file such as BaseballPitch_val.txt", "check the folder"
        )
    for file in files:
        label, subset = _label_and_subset(file.stem) or ("", "")
        for here, line in lines(file):
            fields = line.split()
            if len(fields) != 3:
                raise here.error(f"is not VIDEO START END: {short(line)}", "correct it")
            name = fields[0]
            if subsets.setdefault(name, subset) != subset:
                raise here.error(
                    f"video {name!r} is in the subsets {subsets[name]} and {subset}",
                    "take it out of one",
                )
            found.setdefault(name, []).append(here.segment(fields[1], fields[2], label))
    videos = {
        name: VideoAnnotation(
            name,
            subsets[name],
            segments=tuple(sorted(found[name], key=lambda item: (item.start, item.end))),
        )
        for name in sorted(found)
    }
    ambiguous = any(item.label == AMBIGUOUS for items in found.values() for item in items)
    return Annotations((*THUMOS14_CLASSES, *([AMBIGUOUS] if ambiguous else [])), videos)


THUMOS14 = Reader(
    "THUMOS14, a folder of CLASS_val.txt and CLASS_test.txt: class names, seconds",
    _read,
    lambda source: any(_label_and_subset(file.stem) for file in source.path.rglob("*_*.txt")),
)
