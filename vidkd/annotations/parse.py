"""Readers of annotations, and what they read: JSON, CSV and numbers, with errors that name file,
video and remedy."""

from __future__ import annotations

import codecs
import csv
import functools
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from vidkd.annotations.model import Annotations, Segment
from vidkd.errors import AnnotationError

_LARGEST = 1 << 30
"""Bytes; the largest annotation files in use have some tens of megabytes."""


@dataclass(frozen=True)
class Context:
    """Where in a file the reader is, for its errors; what it checks, it returns."""

    path: Path
    place: str = ""

    def at(self, place: str) -> Context:
        """Return the context of a part of the file, such as one video."""
        return Context(self.path, place)

    def error(self, problem: str, remedy: str) -> AnnotationError:
        """Return the error to raise."""
        where = f"{self.place}: " if self.place else ""
        return AnnotationError(f"{where}{problem}", path=self.path, remedy=remedy)

    def mapping(self, value: object, what: str) -> dict[str, Any]:
        """Check for a JSON object."""
        if not isinstance(value, dict):
            raise self.error(f"{what} is not an object", "correct the file, or name its --format")
        return value

    def sequence(self, value: object, what: str) -> list[Any]:
        """Check for a JSON array."""
        if not isinstance(value, list):
            raise self.error(f"{what} is not a list", "correct the file, or name its --format")
        return value

    def text(self, value: object, what: str) -> str:
        """Check for text with something in it."""
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"{what} is not a name: {short(value)}", "correct the file")
        return value

    def number(self, value: object, what: str) -> float:
        """Check for a finite number, or text that reads as one."""
        number = math.nan
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            try:
                number = float(value)
            except (ValueError, OverflowError):
                number = math.nan
        if not math.isfinite(number):
            raise self.error(f"{what} is not a finite number: {short(value)}", "correct the file")
        return number

    def positive(self, value: object, what: str) -> float | None:
        """Check for a number above 0; None where it is not given."""
        if value is None or value == "":
            return None
        number = self.number(value, what)
        if number <= 0:
            raise self.error(f"{what} is {number:g}", "correct it, or leave it out")
        return number

    def subset(self, entry: Mapping[str, Any]) -> str:
        """Return the subset that an entry names, or nothing."""
        subset = entry.get("subset", "")
        if not isinstance(subset, str):
            raise self.error(f"the subset is not a name: {short(subset)}", "correct the file")
        return subset

    def labelled_segment(self, item: Mapping[str, Any]) -> Segment:
        """Return the segment of an ActivityNet-style entry with ``label`` and ``segment``."""
        label = self.text(item.get("label"), "a label")
        times = self.sequence(item.get("segment"), "a segment")
        if len(times) != 2:
            raise self.error(f"a segment of {label!r} is not [start, end]", "correct it")
        segment = self.segment(times[0], times[1], label)
        score = item.get("score")
        return segment if score is None else replace(segment, score=self.number(score, "a score"))

    def segment(self, start: object, end: object, label: str) -> Segment:
        """Return a segment, whose end must not lie before its start."""
        begin, stop = self.number(start, "a segment's start"), self.number(end, "a segment's end")
        if stop < begin:
            raise self.error(
                f"a segment of {label!r} ends at {stop:g}, before its start at {begin:g}",
                "swap or correct the two numbers",
            )
        return Segment(begin, stop, label)


@dataclass(frozen=True)
class Source:
    """An annotation file or folder; its content is read once, when it is first asked for.

    Every property raises ``AnnotationError`` where the file cannot be read that way.
    """

    path: Path
    rate_of: Callable[[str], float | None] = lambda video: None
    """Frames per second of a video by its id, where the videos are at hand."""

    @functools.cached_property
    def text(self) -> str:
        """The whole file: UTF-8, or UTF-16 with a byte order mark."""
        return read_text(self.path)

    @functools.cached_property
    def json(self) -> Any:
        """The value of a JSON file in which no object has the same key twice."""
        root = Context(self.path)

        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            result = dict(pairs)
            if len(result) < len(pairs):
                names = [key for key, _ in pairs]
                twice = next(key for key in names if names.count(key) > 1)
                raise root.error(f"the key {short(twice)} is given twice", "keep one of the two")
            return result

        try:
            return json.loads(self.text, object_pairs_hook=unique)
        except json.JSONDecodeError as error:
            raise root.error(
                f"is not valid JSON (line {error.lineno}, column {error.colno}: {error.msg})",
                "correct it, or check that it is the right file",
            ) from error
        except (RecursionError, ValueError) as error:
            raise root.error(
                "is not usable JSON (nested too deep, or a number with thousands of digits)",
                "check that it is the right file",
            ) from error

    @functools.cached_property
    def xml(self) -> Element:
        """The root of an XML file; one that declares entities or a document type is refused."""
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import fromstring

        root = Context(self.path)
        try:
            # The bytes: the encoding stands in the first line of the file.
            element: Element = fromstring(read_bytes(self.path), forbid_dtd=True)
        except DefusedXmlException as error:
            raise root.error(
                "declares a document type or entities, which no annotation file needs",
                "save it again with the tool that made it",
            ) from error
        except (ParseError, ValueError, LookupError) as error:
            raise root.error(
                f"is not valid XML ({error})", "correct it, or check that it is the right file"
            ) from error
        return element

    @property
    def object(self) -> dict[str, Any]:
        """The JSON object; empty for a folder, and for a file that is none."""
        # LosslessCut writes JSON5, which mostly is no JSON.
        if self.path.suffix.lower() == ".llc" or self.path.is_dir():
            return {}
        if self.text.lstrip()[:1] not in {"{", "["}:
            return {}
        return self.json if isinstance(self.json, dict) else {}

    @property
    def columns(self) -> set[str]:
        """The names in the first line of a CSV file; something else for other files."""
        first = "" if self.path.is_dir() else self.text.partition("\n")[0].strip("\r")
        return {name.strip().strip('"') for name in first.split(",")}

    def rows(
        self, wanted: Sequence[str], delimiter: str = ",", header: Sequence[str] | None = None
    ) -> list[dict[str, str]]:
        """Return the rows of CSV text by column name, which is in lower case.

        Args:
            wanted: columns that must be there.
            delimiter: between the fields.
            header: the names of the columns, where the first line is not their names.

        Raises:
            AnnotationError: it has no header or lacks a wanted column, or a row has another length.
        """
        root = Context(self.path)
        try:
            reader = csv.reader(
                io.StringIO(self.text, newline=""), delimiter=delimiter, strict=True
            )
            rows = [(reader.line_num, row) for row in reader if row]
        except csv.Error as error:
            raise root.error(f"is not valid CSV ({error})", "correct it") from error
        if not rows:
            raise root.error("is empty", "check that it is the right file")
        if header is None:
            header = [name.strip().lower() for name in rows.pop(0)[1]]
        if len(set(header)) < len(header):
            raise root.error("names a column twice", "correct the header line")
        for line, row in rows:
            if len(row) != len(header):
                raise root.error(
                    f"line {line} has {len(row)} fields, but the header has {len(header)}",
                    "correct the line",
                )
        lacking = [name for name in wanted if rows and name not in header]
        if lacking:
            raise root.error(
                f"the columns {', '.join(lacking)} are missing", "name the right --format"
            )
        return [dict(zip(header, row, strict=True)) for _, row in rows]


@dataclass(frozen=True)
class Reader:
    """How one format is read."""

    help: str
    """One line: whose format, how it counts."""
    read: Callable[[Source, float | None], Annotations]
    """Annotations of a source; the number is ``frame_rate``, or what the user gave for it."""
    recognises: Callable[[Source], bool] = lambda source: False
    """Whether a source is of this format, for ``auto``. When several formats recognise it, the
    user has to name one."""
    frame_rate: float | None = None
    """Frames per second of a format that counts in frames; None for seconds."""
    frames: bool = False
    """Whether it counts in frames at a rate of each video, which its files need not say."""


def short(value: object) -> str:
    """Return a value as it may stand in a one-line message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_bytes(path: Path) -> bytes:
    """Return a whole file.

    Raises:
        AnnotationError: it is missing, unreadable or too large.
        StorageError: it lies in a store that does not answer, or refuses.
    """
    root = Context(path)
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise root.error(
                f"has {size / 1e9:.1f} GB, more than any annotation file",
                "check that it is the right file",
            )
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise root.error(
            f"cannot be read ({reason})", "check the path and the permissions"
        ) from error


def read_text(path: Path) -> str:
    """Return a whole text file, with ``\\n`` at the end of every line.

    Raises:
        AnnotationError: as ``read_bytes``, or it is neither UTF-8 nor UTF-16 with a mark.
    """
    data = read_bytes(path)
    # Praat and some editors of subtitles write UTF-16.
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise Context(path).error(
            "is not a text file in UTF-8", "check that it is the right file, or save it as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines(path: Path) -> Iterator[tuple[Context, str]]:
    """Yield the lines of a text file that are not empty, each with its context."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            yield Context(path, f"line {number}"), line.strip()
