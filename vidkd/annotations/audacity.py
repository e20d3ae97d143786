"""Labels of Audacity: lines of start, end and class with tabs; microseconds."""

from __future__ import annotations

import re
from pathlib import Path

from vidkd.annotations.media import Mark, OneVideo, is_kind, one_line, read_each
from vidkd.annotations.model import Annotations
from vidkd.annotations.parse import Context, Reader, Source, short
from vidkd.files import write_text


def _parse(source: Source) -> list[OneVideo]:
    marks = []
    for number, line in enumerate(source.text.split("\n"), start=1):
        here = Context(source.path, f"line {number}")
        # A second line holds the frequencies of a label of the spectrum.
        if not line.strip() or line.startswith("\\"):
            continue
        fields = line.split("\t")
        if len(fields) < 2:
            raise here.error(f"is not START, END and label with tabs: {short(line)}", "correct it")
        times = [here.number(field.strip(), "a time") for field in fields[:2]]
        marks.append(Mark("", one_line(" ".join(fields[2:])), times[0], times[1]))
    return [OneVideo(marks)]


def write(path: Path, annotations: Annotations) -> None:
    """Write lines of start, end and class of one video, with six decimals."""
    (video,) = annotations.videos.values()
    lines = [
        f"{item.start:.6f}\t{item.end:.6f}\t{one_line(item.label)}\n"
        for item in sorted(video.segments, key=lambda item: (item.start, item.end))
    ]
    write_text(path, "".join(lines))


def _looks_right(source: Source) -> bool:
    first = source.text.partition("\n")[0]
    return re.fullmatch(r"\s*-?\d+(\.\d+)?\t-?\d+(\.\d+)?(\t.*)?", first) is not None


AUDACITY = Reader(
    "Audacity labels, or a folder of .txt: lines of start, end and class with tabs",
    lambda source, _: read_each(source, (".txt",), _parse),
    lambda source: is_kind(source, (".txt",), _looks_right),
)
