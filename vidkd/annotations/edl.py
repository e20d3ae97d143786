"""CMX3600 edit decision lists: each event shows a segment of a video; frames.

A comment ``* COMMENT: CLASS`` after an event is its class, and ``* FROM CLIP NAME:`` its video,
whose first frame is 00:00:00:00. DaVinci Resolve's lists of markers have ``|M:CLASS |D:FRAMES``
instead, and count from the beginning of a timeline, which is 01:00:00:00 there.
"""

from __future__ import annotations

import re
from pathlib import Path

from vidkd.annotations.media import Mark, OneVideo, is_kind, media_path, one_line, read_each
from vidkd.annotations.model import Annotations
from vidkd.annotations.parse import Context, Reader, Source
from vidkd.files import write_text

_CODE = r"(\d{1,2}:\d\d:\d\d[:;]\d\d)"
_EVENT = re.compile(r"\s*(\d+)\s+\S+\s+\S+\s+\S.*?" + rf"\s+{_CODE}" * 4 + r"\s*")
"""Number, reel, track, kind of cut; source in and out, record in and out."""
_HOUR = 3600


def _frames(code: str, rate: float, drop: bool) -> int:
    """Return the number of the frame that a timecode names; it counts at a whole rate.

    Drop-frame timecode leaves out two numbers (at 29.97) or four (at 59.94) a minute, but not in
    every tenth minute.
    """
    base = round(rate)
    hours, minutes, seconds, frames = map(int, re.split("[:;]", code))
    minutes += 60 * hours
    number = (minutes * 60 + seconds) * base + frames
    return number - round(base / 15) * (minutes - minutes // 10) if drop else number


def _code(number: int, rate: float) -> str:
    base = round(rate)
    seconds, frames = divmod(number, base)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{frames:02d}"


def _parse(source: Source, given: float | None) -> list[OneVideo]:
    drop, events = False, []
    for number, line in enumerate(source.text.split("\n"), start=1):
        if line.upper().startswith("FCM:"):
            drop = "NON" not in line.upper()
        elif match := _EVENT.fullmatch(line):
            events.append((number, match, drop or ";" in line, {"": ""}))
        elif events:
            found = re.fullmatch(r"\s*\*\s*([A-Z ]+?)\s*:\s*(.*?)\s*", line)
            if found is not None:
                events[-1][3].setdefault(found[1], found[2])
            elif marker := re.search(r"\|M:(.*?)\s*(?:\|D:(\d+))?\s*$", line):
                events[-1][3].update(M=marker[1], D=marker[2] or "1")
    found_videos: dict[str, OneVideo] = {}
    root = Context(source.path)
    shifted = 0
    for number, match, dropping, facts in events:
        file = facts.get("FROM CLIP NAME", "")
        video = found_videos.setdefault(file, OneVideo([], file or None))
        name = media_path(file).stem if file else source.path.stem
        rate = given or source.rate_of(name)
        if rate is None:
            raise root.at(f"line {number}").error(
                "counts in frames, and nothing says how many there are per second",
                "give --annotation-rate, or convert it with `vidkd data convert --videos DIR`",
            )
        video.frame_rate = rate
        if "M" in facts:
            start = _frames(match[4], rate, dropping)
            if start >= _HOUR * round(rate):
                start, shifted = start - _HOUR * round(rate), shifted + 1
            pair, label = (start, start + int(facts["D"])), facts["M"]
        else:
            pair = _frames(match[2], rate, dropping), _frames(match[3], rate, dropping)
            label = facts.get("COMMENT", "")
        video.marks.append(Mark("", label, pair[0] / rate, pair[1] / rate))
    if shifted:
        note = f"{root.path.name}: {shifted} markers counted from 01:00:00:00"
        next(iter(found_videos.values())).notes.append(note)
    return list(found_videos.values()) or [OneVideo([])]


def write(path: Path, annotations: Annotations) -> None:
    """Write one video: its segments in order of time, one after the other.

    Raises:
        ValueError: the frame rate is not known.
    """
    (video,) = annotations.videos.values()
    rate = video.frame_rate
    if rate is None:
        raise ValueError("an edit decision list needs the frame rate")
    lines, place = [f"TITLE: {one_line(path.stem)}", "FCM: NON-DROP FRAME", ""], 0
    ordered = sorted(video.segments, key=lambda item: (item.start, item.end))
    for number, item in enumerate(ordered, start=1):
        start = round(item.start * rate)
        end = max(start + 1, round(item.end * rate))
        codes = [_code(value, rate) for value in (start, end, place, place + end - start)]
        place += end - start
        lines += [
            f"{number:03d}  AX       V     C        {' '.join(codes)}",
            f"* FROM CLIP NAME: {Path(video.file).name if video.file else f'{path.stem}.mp4'}",
            f"* COMMENT: {one_line(item.label)}",
            "",
        ]
    write_text(path, "\n".join(lines))


EDL = Reader(
    "CMX3600 .edl, or a folder of them: `* COMMENT:` or a marker of Resolve is the class",
    lambda source, rate: read_each(source, (".edl",), lambda file: _parse(file, rate)),
    lambda source: is_kind(source, (".edl",)),
    frames=True,
)
