"""A labeller: another program that finds people in pictures, spoken to over its standard streams.

docs/pose.md, "Your own labeller", has the protocol, one JSON object a line in UTF-8.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Self

from vidkd.errors import VidkdError
from vidkd.pose.labels import MAPPINGS, read_person

_START_SECONDS = 120.0
_FRAME_SECONDS = 60.0
_LAST_LINES = 5


class Labeller:
    """A running labeller; a context manager that ends the program with the block.

    Args:
        command: the program and its arguments.

    Attributes:
        hello: the labeller's first line: ``name``, ``joints`` and ``settings``.

    Raises:
        VidkdError: the program cannot be started, ends, is silent for a minute, or says something
            that is not the protocol.
    """

    hello: dict[str, Any]

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
