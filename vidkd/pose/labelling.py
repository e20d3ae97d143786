"""Training labels from real video: frames, and what a labeller says of them (``vidkd pose label``).

``OUTPUT/labels.json`` is the file of labels that ``vidkd pose train`` reads; the pictures lie in
``OUTPUT/images/KEY/``. ``OUTPUT/videos/KEY.json`` holds the same for each finished video, with the
frames in which nobody was found: an interrupted call goes on from there, and ``extract-pose`` takes
that folder as ``--poses``. docs/pose.md, "Your own labeller", has the protocol of labellers.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from PIL import Image

from vidkd.cache import describe_source
from vidkd.console import log, progress
from vidkd.errors import VidkdError
from vidkd.files import atomic_path, write_text
from vidkd.pose.labels import FORMAT, MAPPINGS, broken, read_json, read_person
from vidkd.video import VideoFile, probe, read_frames

LABELLERS = {"blazepose": Path(__file__).resolve().parent / "labellers" / "blazepose.py"}
"""Labellers that travel with the package: a script for the interpreter that has their libraries."""

_JPEG_QUALITY = 95


_START_SECONDS = 120.0
_FRAME_SECONDS = 60.0
_LAST_LINES = 5


class Labeller:
    """A program that finds people in pictures; a context manager that ends it with the block.

    Raises:
        VidkdError: the program cannot be started, ends, is silent for a minute, or says something
            that is not the protocol.
    """

    hello: dict[str, Any]
    """Its first line: ``name``, ``joints`` and ``settings``."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)

    def __enter__(self) -> Self:
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                encoding="utf-8",
                errors="replace",
                bufsize=1,
            )
        except OSError as error:
            self._errors.close()
            raise VidkdError(
                f"the labeller cannot be started ({error.strerror or error})",
                path=self._command[0],
                remedy="check the path, or name the interpreter with --python",
            ) from error
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            hello = self._receive(_START_SECONDS)
        except BaseException:
            self._end()
            raise
        if hello.get("format") != "vidkd-labeller" or hello.get("version") != 1:
            raise self._failed("did not begin with the first line of the protocol, version 1")
        if hello.get("joints") not in MAPPINGS:
            raise self._failed(f"has joints {hello.get('joints')!r}, not one of {list(MAPPINGS)}")
        self.hello = {
            "name": str(hello.get("name", "")),
            "joints": hello["joints"],
            "settings": hello.get("settings", {}),
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __call__(self, image: Path, time: float) -> list[dict[str, Any]]:
        """Return the people of one picture as checked JSON values."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(
                json.dumps({"image": str(image.absolute()), "time": time}) + "\n"
            )
            self._process.stdin.flush()
        except OSError:
            raise self._failed("ended before its work was done") from None
        answer = self._receive(_FRAME_SECONDS)
        people = answer.get("people")
        if not isinstance(people, list):
            raise self._failed(f"answered without a list of people for {image.name}")
        try:
            for number, person in enumerate(people):
                read_person(person, self.hello["joints"], f"people[{number}]")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._failed(f"answered with a bad person for {image.name} ({error})") from error
        return people

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _receive(self, seconds: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise self._failed(f"was silent for {seconds:.0f} s") from None
        if not line:
            raise self._failed("ended before its work was done")
        with contextlib.suppress(ValueError):
            if isinstance(answer := json.loads(line), dict):
                return answer
        raise self._failed(f"wrote {line.strip()[:60]!r}, which is not a JSON object")

    def _failed(self, problem: str) -> VidkdError:
        self._end()
        return VidkdError(
            f"the labeller {problem}{self._last_words}",
            path=self._command[0],
            remedy="run the program by itself to see what it lacks",
        )

    _last_words = ""

    def _end(self) -> None:
        """Let the program end by itself when its input ends; kill it when it does not."""
        if self._errors.closed:
            return
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it may be gone already
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # A child of the labeller may still hold the other end; the thread is a daemon.
        self._reader.join(timeout=1)
        self._errors.seek(0)
        words = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        if words:
            self._last_words = " (it said: " + " | ".join(words[-_LAST_LINES:]) + ")"
        self._errors.close()


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
        command: the labeller, see :class:`Labeller`.
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
