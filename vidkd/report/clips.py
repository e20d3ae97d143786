"""Detections, or labels, as video clips, and all of them in one reel."""

from __future__ import annotations

import contextlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from vidkd.annotations import Segment
from vidkd.errors import UsageError, VideoError, VidkdError
from vidkd.files import write_json
from vidkd.report.overlay import BACKGROUND, TEXT, _font
from vidkd.report.segments import clock
from vidkd.video import VideoWriter, open_video, probe, read_frames
from vidkd.video.cut import copy_part, encode_part, steady_rate, write_in_time
from vidkd.video.sound import open_sound

LIST = "clips.json"
"""Says what each file of a folder of clips is, and by which settings it was made."""
_SOUND = (48000, "stereo")
_LONGEST_NAME = 80
"""Bytes of each part of a file's name."""


@dataclass(frozen=True)
class Clip:
    """A part of a video to be cut out.

    Attributes:
        source: the video file.
        video: its name in the results.
        segment: what happens in it, in seconds.
        start: of the clip, in seconds: the segment's with the margin.
        end: likewise.
        file: name of the file to write.
    """

    source: Path
    video: str
    segment: Segment
    start: float
    end: float
    file: str

    def to_json(self, copy: bool) -> dict[str, Any]:
        """Return what decides the content of the file, as JSON values."""
        status = self.source.stat()
        return {
            "file": self.file,
            "video": self.video,
            "label": self.segment.label,
            "score": self.segment.score,
            "segment": [self.segment.start, self.segment.end],
            "clip": [self.start, self.end],
            "copied": copy,
            "source": {"bytes": status.st_size, "changed": status.st_mtime},
        }


def choose(
    found: Iterable[tuple[str, Segment]],
    classes: Sequence[str] = (),
    lowest: float | None = None,
    top: int | None = None,
) -> list[tuple[str, Segment]]:
    """Return the segments to cut, in their order.

    Args:
        found: videos and their segments.
        classes: the wanted ones; none takes all.
        lowest: score that a segment needs; one without a score has none.
        top: so many of the highest scores; segments without scores count by their order.
    """
    chosen = [
        item
        for item in found
        if (not classes or item[1].label in classes)
        and (lowest is None or (item[1].score is not None and item[1].score >= lowest))
    ]
    if top is not None:
        best = sorted(range(len(chosen)), key=lambda number: -(chosen[number][1].score or 0.0))
        chosen = [chosen[number] for number in sorted(best[:top])]
    return chosen


def plan(
    chosen: Iterable[tuple[str, Segment]], sources: dict[str, Path], margin: float = 0.0
) -> list[Clip]:
    """Return the clips of segments, each with a name of its own.

    Args:
        chosen: videos and their segments.
        sources: the files of the videos.
        margin: seconds before and after each segment.
    """
    clips: list[Clip] = []
    used: Counter[str] = Counter()
    for video, segment in chosen:
        start = max(0.0, segment.start - margin)
        stem = f"{safe_name(video)}_{segment.start:08.2f}_{safe_name(segment.label)}"
        used[stem.casefold()] += 1
        count = used[stem.casefold()]
        file = f"{stem}.mp4" if count == 1 else f"{stem}_{count}.mp4"
        clips.append(Clip(sources[video], video, segment, start, segment.end + margin, file))
    return clips


def safe_name(text: str) -> str:
    """Return text as a part of a file's name: letters and digits of any language, and ``-``.

    >>> safe_name("P01/cam 1"), safe_name("../../etc"), safe_name("Tür auf!")
    ('P01-cam-1', 'etc', 'Tür-auf')
    """
    name = re.sub(r"[^\w]+", "-", unicodedata.normalize("NFC", text)).strip("-_")
    while len(name.encode()) > _LONGEST_NAME:
        name = name[:-1]
    return name or "unnamed"


@dataclass(frozen=True)
class Cut:
    """What became of a clip: ``done``, ``skipped`` (it was there) or ``failed``."""

    clip: Clip
    status: str
    begins: float | None = None
    """Second of the video at which the file begins."""
    problem: str = ""


def cut_clips(
    clips: Sequence[Clip],
    folder: Path,
    *,
    copy: bool = False,
    overwrite: bool = False,
    report: Callable[[float], None] | None = None,
) -> list[Cut]:
    """Write a file for each clip; those that are finished are not made again.

    Args:
        clips: of ``plan``.
        folder: to write to; it also gets a list of the clips, ``clips.json``.
        copy: take packets as they are, from the key frame before each clip on.
        overwrite: replace files of the same names that are not in the list.
        report: called with 1 after every clip.

    Raises:
        UsageError: a file of the same name is not in the list, or the list cannot be read.
        VidkdError: the list cannot be written.
    """
    known = _known(folder)
    names = {clip.file for clip in clips}
    foreign = [name for name in names if (folder / name).exists() and name not in known]
    if foreign and not overwrite:
        raise UsageError(
            "exists already, and is not of an earlier `vidkd cut`",
            path=folder / min(foreign),
            remedy="name another --output, or pass --overwrite",
        )
    results = []
    for clip in clips:
        result = _cut(clip, folder, copy, known)
        results.append(result)
        if result.status == "done":
            # After every clip, so that an interruption costs one clip and not all.
            write_json(folder / LIST, {"clips": list(known.values())})
        if report is not None:
            report(1)
    return results


def _cut(clip: Clip, folder: Path, copy: bool, known: dict[str, dict[str, Any]]) -> Cut:
    path = folder / clip.file
    try:
        wanted = clip.to_json(copy)
        before = known.get(clip.file, {})
        if path.is_file() and {k: v for k, v in before.items() if k != "begins"} == wanted:
            return Cut(clip, "skipped", before.get("begins"))
        begins = (copy_part if copy else encode_part)(clip.source, path, clip.start, clip.end)
    except (VidkdError, OSError) as error:
        return Cut(clip, "failed", problem=str(error))
    known[clip.file] = {**wanted, "begins": round(begins, 6)}
    return Cut(clip, "done", begins)


def _known(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what the list of a folder says, by the names of the files."""
    path = folder / LIST
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["clips"]
        return {str(item["file"]): item for item in found}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "is not a list of clips", path=path, remedy="remove it, or name another --output"
        ) from error


def write_reel(
    clips: Sequence[Clip],
    path: str | Path,
    *,
    titles: bool = False,
    report: Callable[[float], None] | None = None,
) -> list[str]:
    """Write all clips one after the other, in one size and frame rate, with sound, atomically.

    The size is that of most clips; the others keep their shape between bars. Sound is resampled
    to 48 kHz stereo, and a clip without sound is silent.

    Args:
        clips: in their order.
        path: the file, which should end in ``.mp4``.
        titles: write class, video and time over each.
        report: called with 1 after every clip.

    Returns:
        Why clips are missing, one line for each.

    Raises:
        VideoError: not one clip could be read.
        VidkdError: the file cannot be written.
    """
    infos, problems = {}, []
    for source in dict.fromkeys(clip.source for clip in clips):
        try:
            infos[source] = probe(source)
        except VideoError as error:
            problems.append(str(error))
    usable = [clip for clip in clips if clip.source in infos]
    if not usable:
        raise VideoError(
            "there is nothing for the reel", path=path, remedy="; ".join(problems) or "cut clips"
        )
    shapes = Counter((infos[clip.source].width, infos[clip.source].height) for clip in usable)
    rates = Counter(steady_rate(infos[clip.source].frame_rate) for clip in usable)
    size, rate = shapes.most_common(1)[0][0], rates.most_common(1)[0][0]
    audible = any(_has_sound(source) for source in infos)
    with VideoWriter(
        path, *size, rate, threads=0, quality=20, sound=_SOUND if audible else None
    ) as writer:
        for clip in usable:
            title = _title(clip, size) if titles else None
            try:
                _append(writer, clip, size, rate, title)
            except VideoError as error:
                problems.append(str(error))
            if report is not None:
                report(1)
        if not writer.seconds:
            raise VideoError("has no clip", path=path, remedy="; ".join(problems))
    return problems


def _has_sound(source: Path) -> bool:
    with open_sound(source) as sound:
        return sound is not None


def _append(
    writer: VideoWriter, clip: Clip, size: tuple[int, int], rate: float, title: Image.Image | None
) -> None:
    def draw(image: np.ndarray) -> np.ndarray:
        # Between bars where its shape is another.
        canvas = ImageOps.pad(Image.fromarray(image), size, Image.Resampling.BILINEAR, BACKGROUND)
        if title is not None:
            canvas.paste(title, (0, 0), title)
        return np.asarray(canvas)

    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(open_video(clip.source))
        frames = read_frames(opened, frame_rate=rate, start=clip.start, end=clip.end)
        sound = stack.enter_context(open_sound(clip.source, clip.start, *_SOUND))
        write_in_time(writer, frames, sound, draw=draw)


def _title(clip: Clip, size: tuple[int, int]) -> Image.Image:
    """Return a half-transparent line of text over the whole width."""
    unit = max(10, size[1] // 22)
    font = _font(unit)
    score = "" if clip.segment.score is None else f"  {clip.segment.score:.2f}"
    text = f"{clip.segment.label}{score}   {clip.video}  {clock(clip.segment.start)}"
    while text and font.getlength(text) > size[0] - unit:
        text = text[:-1]
    image = Image.new("RGBA", (size[0], 2 * unit), (*BACKGROUND, 190))
    ImageDraw.Draw(image).text((unit // 2, unit), text, fill=TEXT, font=font, anchor="lm")
    return image
