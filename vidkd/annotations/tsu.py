"""Toyota Smarthome Untrimmed (Dai et al. 2022): JSON that counts frames, and two splits."""

from __future__ import annotations

import re
from dataclasses import replace

from vidkd.annotations.model import Annotations
from vidkd.annotations.numbered import is_numbered, read_numbered
from vidkd.annotations.parse import Context, Reader, Source, short

_FRAME_RATE = 25.0
_CLASSES = tuple(str(number) for number in range(51))
_TRAINING = {
    "subject": frozenset({3, 4, 6, 7, 9, 12, 13, 15, 17, 19, 25}),
    "view": frozenset({1, 3, 4, 6, 7}),
}
"""The subjects that train in cross-subject, and the cameras that do in cross-view."""


def _read(source: Source, frame_rate: float | None, split: str = "") -> Annotations:
    """Read a file; subject and view are from names like P02T15C06.

    Args:
        source: the file.
        frame_rate: frames per second.
        split: ``subject`` or ``view``, which then decides on the subset instead of the file.
    """
    found = read_numbered(source, _CLASSES, frame_rate=frame_rate)
    videos = {}
    for name, video in found.videos.items():
        match = re.fullmatch(r"P(\d+)T(\d+)C(\d+)", name)
        if match is None and split:
            raise (
                Context(source.path)
                .at(f"video {short(name)}")
                .error(
                    "the name does not tell subject and camera (as P02T15C06)",
                    "use --format tsu, which takes the subsets of the file",
                )
            )
        if match is not None:
            attributes = dict(zip(("subject", "take", "view"), match.groups(), strict=True))
            video = replace(video, attributes=attributes)
            if split:
                trains = int(attributes[split]) in _TRAINING[split]
                video = replace(video, subset="training" if trains else "testing")
        videos[name] = video
    return replace(found, videos=videos)


TSU = Reader(
    "Toyota Smarthome Untrimmed, JSON: classes from 0, frames; subsets of the file",
    _read,
    is_numbered,
    _FRAME_RATE,
)
TSU_CROSS_SUBJECT = replace(
    TSU,
    help="Toyota Smarthome Untrimmed, subsets by subject",
    read=lambda source, rate: _read(source, rate, "subject"),
)
TSU_CROSS_VIEW = replace(
    TSU,
    help="Toyota Smarthome Untrimmed, subsets by camera",
    read=lambda source, rate: _read(source, rate, "view"),
)
