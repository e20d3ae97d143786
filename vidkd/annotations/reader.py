"""What a reader of annotations is, and the file or folder that it reads."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidkd.annotations.model import Annotations
from vidkd.annotations.parse import parse_csv, parse_json, read_text


@dataclass(frozen=True)
class Source:
    """An annotation file or folder; its content is read once, when it is first asked for.

    Every property raises ``AnnotationError`` where the file cannot be read that way.
    """

    path: Path

    @functools.cached_property
    def text(self) -> str:
        """The whole file, UTF-8."""
        return read_text(self.path)

    @functools.cached_property
    def json(self) -> Any:
        """The value of a JSON file."""
        return parse_json(self.text, self.path)

    @property
    def object(self) -> dict[str, Any]:
        """The JSON object; empty for a folder, and for a file that is none."""
        if self.path.is_dir() or self.text.lstrip()[:1] not in {"{", "["}:
            return {}
        return self.json if isinstance(self.json, dict) else {}

    @functools.cached_property
    def rows(self) -> list[dict[str, str]]:
        """The rows of a CSV file by column name."""
        return parse_csv(self.text, self.path)

    @property
    def columns(self) -> set[str]:
        """The names in the first line of a CSV file; something else for other files."""
        if self.path.is_dir():
            return set()
        first = self.text.partition("\n")[0].strip("\r")
        return {name.strip().strip('"') for name in first.split(",")}


@dataclass(frozen=True)
class Reader:
    """How one format is read.

    Attributes:
        help: one line: whose format, how it counts.
        read: annotations of a source; the number is ``frame_rate``, or what the user gave for it.
        recognises: whether a source is of this format, for ``auto``. When several formats
            recognise it, the user has to name one.
        frame_rate: frames per second of a format that counts in frames; None for seconds.
    """

    help: str
    read: Callable[[Source, float | None], Annotations]
    recognises: Callable[[Source], bool] = lambda source: False
    frame_rate: float | None = None
