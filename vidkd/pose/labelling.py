"""Training labels from real video: frames, and what a labeller says of them (``label-poses``).

``OUTPUT/labels.json`` is the file of labels that ``vidkd pose train`` reads; the pictures lie in
``OUTPUT/images/KEY/``. ``OUTPUT/videos/KEY.json`` holds the same for each finished video, with the
frames in which nobody was found: an interrupted call goes on from there, and ``extract-pose`` takes
that folder as ``--poses``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vidkd.cache import describe_source
from vidkd.console import log, progress
from vidkd.errors import VidkdError
from vidkd.files import atomic_path, write_text
from vidkd.pose.labeller import Labeller
from vidkd.pose.labels import FORMAT, broken, read_json
from vidkd.video import VideoFile, probe, read_frames

LABELLERS = {"blazepose": Path(__file__).resolve().parent / "labellers" / "blazepose.py"}
"""Labellers that travel with the package: a script for the interpreter that has their libraries."""

_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Labelled:
    """What became of the video ``key``."""

    key: str
    status: str
    """``done``, ``skipped`` because it was done before, or ``failed``."""
    frames: int = 0
    """Pictures that the labeller has seen."""
    people: int = 0
    reason: str = ""
    """Why it failed."""


def labeller_command(name: str, python: Path | None, options: Sequence[str]) -> list[str]:
    """Return the command of a labeller of :data:`LABELLERS`, under ``python`` or this one."""
    return [str(python or sys.executable), str(LABELLERS[name]), *options]


def label_videos(
    videos: Sequence[VideoFile],
    output: Path,
    command: Sequence[str],
    *,
    frames_per_second: float = 2.0,
    short_side: int | None = None,
    keep_empty: bool = False,
    overwrite: bool = False,
) -> list[Labelled]:
    """Label frames of videos; write ``labels.json``, the pictures, and a file for each video.

    Args:
        videos: one that cannot be read fails alone.
        output: the folder to write.
        command: the labeller, see ``vidkd.pose.labeller``.
        frames_per_second: frames to label, by time.
        short_side: pixels to which pictures are scaled first; None keeps their size.
        keep_empty: keep frames in which the labeller found nobody. They would teach a detector
            that nobody is there, which is only right when the labeller misses nobody.
        overwrite: label again what was labelled with other settings, instead of refusing.

    Raises:
        VidkdError: the labeller does not work, or the folder cannot be written.
    """
    results: list[Labelled] = []
    labelled: list[dict[str, Any]] = []
    with Labeller(command) as labeller:
        settings = {
            "frames_per_second": frames_per_second,
            "short_side": short_side,
            "labeller": labeller.hello,
        }
        durations = [_duration(video) for video in videos]
        total = sum(durations) * frames_per_second
        with progress("label-poses", total or None, "frames") as advance:
            for video in videos:
                try:
                    part, skipped = _label(video, output, labeller, settings, overwrite, advance)
                except VidkdError as error:
                    if error.path == command[0]:
                        raise  # the labeller is broken, which no other video will mend
                    log(f"failed: {error}")
                    results.append(Labelled(video.key, "failed", reason=str(error)))
                    continue
                frames = part["frames"]
                people = sum(len(frame["people"]) for frame in frames)
                status = "skipped" if skipped else "done"
                results.append(Labelled(video.key, status, len(frames), people))
                labelled += [frame for frame in frames if frame["people"] or keep_empty]
    _write(output / "labels.json", {**_document(labeller, labelled), "made_of": settings})
    return results


def _duration(video: VideoFile) -> float:
    try:
        return probe(video.path).duration or 0.0
    except VidkdError:
        return 0.0  # told when its turn comes


def _label(
    video: VideoFile,
    output: Path,
    labeller: Labeller,
    settings: dict[str, Any],
    overwrite: bool,
    advance: Callable[[float], None],
) -> tuple[dict[str, Any], bool]:
    path = output / "videos" / f"{video.key}.json"
    source = describe_source(video.path, probe(video.path))
    made_of = {**settings, "source": {"name": source.name, "sha256": source.sha256}}
    if path.exists():
        found = read_json(path)
        if not isinstance(found, dict) or not isinstance(found.get("frames"), list):
            raise broken(path, "is not what label-poses writes")
        if found.get("made_of") == made_of:
            advance(len(found["frames"]))
            return found, True
        if not overwrite:
            raise VidkdError(
                "was labelled with other settings, by another labeller, or from another video",
                path=path,
                remedy="label again with --overwrite, or choose another --output",
            )
    frames = []
    for frame in read_frames(
        video.path, short_side=settings["short_side"], frame_rate=settings["frames_per_second"]
    ):
        name = f"images/{video.key}/{frame.index:06d}.jpg"
        with atomic_path(output / name) as temporary:
            Image.fromarray(frame.image).save(temporary, quality=_JPEG_QUALITY)
        height, width = frame.image.shape[:2]
        frames.append(
            {
                "image": name,
                "key": video.key,
                "time": round(frame.start, 6),
                "size": [width, height],
                "people": labeller(output / name, frame.start),
            }
        )
        advance(1)
    part = {**_document(labeller, frames), "made_of": made_of}
    _write(path, part)
    return part, False


def _document(labeller: Labeller, frames: list[dict[str, Any]]) -> dict[str, Any]:
    return {"format": FORMAT, "joints": labeller.hello["joints"], "frames": frames}


def _write(path: Path, document: dict[str, Any]) -> None:
    # Compact: indented joints would take several times the space.
    write_text(path, json.dumps(document, allow_nan=False) + "\n")
