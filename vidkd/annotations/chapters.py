"""Chapters as ffmpeg's metadata files (;FFMETADATA1): the title of a chapter is its class."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from vidkd.annotations.media import Mark, OneVideo, is_kind, one_line, read_each
from vidkd.annotations.model import Annotations
from vidkd.annotations.parse import Context, Reader, Source
from vidkd.files import write_text

_ENDINGS = (".ffmetadata", ".ffmeta", ".txt")
_NANOSECONDS = "1/1000000000"
"""The time base of a chapter that names none."""


def _parse(source: Source) -> list[OneVideo]:
    here = Context(source.path)
    marks: list[Mark] = []
    entry: dict[str, str] | None = None
    # A backslash before the end of a line continues it.
    for line in [*re.split(r"(?<!\\)\n", source.text), "[end]"]:
        if line.startswith("["):
            if entry is not None:
                marks.append(_chapter(here.at(f"chapter {len(marks) + 1}"), entry))
            entry = {} if line.strip() == "[CHAPTER]" else None
        elif entry is not None and line.strip() and line[0] not in ";#":
            key, value, *_ = *re.split(r"(?<!\\)=", line, maxsplit=1), ""
            entry[key.strip().lower()] = re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)
    return [OneVideo(marks)]


def _chapter(here: Context, entry: Mapping[str, str]) -> Mark:
    above, _, below = entry.get("timebase", _NANOSECONDS).partition("/")
    top, bottom = (here.positive(part, "the time base") for part in (above, below or "1"))
    start, end = (here.number(entry.get(key), f"the {key}") for key in ("start", "end"))
    one = (top or 1.0) / (bottom or 1.0)
    # Dividing keeps 1500 thousandths at exactly 1.5.
    times = [value / bottom if top == 1 and bottom else value * one for value in (start, end)]
    return Mark("", one_line(entry.get("title", "")), *times)


def write(path: Path, annotations: Annotations) -> None:
    """Write the segments of one video as chapters in order of time, in microseconds."""
    (video,) = annotations.videos.values()
    lines = [";FFMETADATA1"]
    for item in sorted(video.segments, key=lambda item: (item.start, item.end)):
        title = re.sub(r"([=;#\\])", r"\\\1", one_line(item.label))
        times = [f"START={round(item.start * 1e6)}", f"END={round(item.end * 1e6)}"]
        lines += ["[CHAPTER]", "TIMEBASE=1/1000000", *times, f"title={title}"]
    write_text(path, "\n".join(lines) + "\n")


CHAPTERS = Reader(
    "chapters, as ffmpeg's metadata file: titles are classes",
    lambda source, _: read_each(source, _ENDINGS, _parse),
    lambda source: is_kind(source, _ENDINGS, lambda file: file.text.startswith(";FFMETADATA")),
)
