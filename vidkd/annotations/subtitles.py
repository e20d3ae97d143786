"""WebVTT and SRT subtitles: the text of a cue is the class; milliseconds."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from vidkd.annotations.media import Mark, OneVideo, is_kind, one_line, read_each
from vidkd.annotations.model import Annotations
from vidkd.annotations.parse import Context, Reader, Source, short
from vidkd.files import write_text

_CLOCK = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMING = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}(?:\s.*)?")


def _cues(source: Source) -> Iterator[tuple[float, float, str]]:
    """Yield start, end and text of every cue."""
    lines = source.text.split("\n")
    for number, line in enumerate(lines):
        if "-->" not in line or line.startswith("NOTE"):
            continue
        match = _TIMING.fullmatch(line)
        here = Context(source.path, f"line {number + 1}")
        if match is None:
            # Arrows may stand in the text of a cue or a note.
            if number and lines[number - 1].strip() and not lines[number - 1].strip().isdigit():
                continue
            raise here.error(f"is not START --> END: {short(line)}", "correct it")
        text = []
        for following in lines[number + 1 :]:
            if not following.strip():
                break
            text.append(following)
        yield _seconds(match.groups()[:4]), _seconds(match.groups()[4:]), "\n".join(text)


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = (part or "0" for part in parts)
    whole = (int(hours) * 60 + int(minutes)) * 60 + int(seconds)
    return (whole * 1000 + int(fraction.ljust(3, "0"))) / 1000


def _parse_vtt(source: Source) -> list[OneVideo]:
    def text(cue: str) -> str:
        return one_line(html.unescape(re.sub(r"<[^>]*>", "", cue)))

    marks = [Mark("", text(cue), start, end) for start, end, cue in _cues(source)]
    return [OneVideo(marks)]


def _parse_srt(source: Source) -> list[OneVideo]:
    def text(cue: str) -> str:
        return one_line(re.sub(r"</?(?:b|i|u|s|font)\b[^>]*>|\{\\[^}]*\}", "", cue))

    marks = [Mark("", text(cue), start, end) for start, end, cue in _cues(source)]
    return [OneVideo(marks)]


def _stamp(seconds: float, point: str) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{point}{milliseconds % 1000:03d}"


def write_vtt(path: Path, annotations: Annotations) -> None:
    """Write the segments of one video in order of time."""
    (video,) = annotations.videos.values()
    cues = [
        f"{_stamp(item.start, '.')} --> {_stamp(item.end, '.')}\n"
        f"{html.escape(one_line(item.label), quote=False)}\n"
        for item in sorted(video.segments, key=lambda item: (item.start, item.end))
    ]
    write_text(path, "\n".join(["WEBVTT\n", *cues]))


def write_srt(path: Path, annotations: Annotations) -> None:
    """Write the segments of one video, numbered in order of time."""
    (video,) = annotations.videos.values()
    cues = [
        f"{number}\n{_stamp(item.start, ',')} --> {_stamp(item.end, ',')}\n{one_line(item.label)}\n"
        for number, item in enumerate(
            sorted(video.segments, key=lambda item: (item.start, item.end)), start=1
        )
    ]
    write_text(path, "\n".join(cues))


WEBVTT = Reader(
    "WebVTT, or a folder of .vtt: the text of a cue is its class",
    lambda source, _: read_each(source, (".vtt",), _parse_vtt),
    lambda source: is_kind(source, (".vtt",)),
)
SRT = Reader(
    "SRT, or a folder of .srt: the text of a subtitle is its class",
    lambda source, _: read_each(source, (".srt",), _parse_srt),
    lambda source: is_kind(source, (".srt",)),
)
