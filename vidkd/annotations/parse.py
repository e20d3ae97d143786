"""Reading JSON, CSV and numbers with errors that name the file, the video and the remedy."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidkd.annotations.model import Segment
from vidkd.errors import AnnotationError

_LARGEST = 1 << 30
"""Bytes; the largest annotation files in use have some tens of megabytes."""


class Context:
    """Where in a file the reader is, for its errors."""

    def __init__(self, path: Path, place: str = "") -> None:
        self.path = path
        self.place = place

    def at(self, place: str) -> Context:
        """Return the context of a part of the file, such as one video."""
        return Context(self.path, place)

    def error(self, problem: str, remedy: str) -> AnnotationError:
        """Return the error to raise."""
        where = f"{self.place}: " if self.place else ""
        return AnnotationError(f"{where}{problem}", path=self.path, remedy=remedy)

    def mapping(self, value: object, what: str) -> dict[str, Any]:
        """Return ``value``, which has to be a JSON object."""
        if not isinstance(value, dict):
            raise self.error(f"{what} is not an object", "correct the file, or name its --format")
        return value

    def sequence(self, value: object, what: str) -> list[Any]:
        """Return ``value``, which has to be a JSON array."""
        if not isinstance(value, list):
            raise self.error(f"{what} is not a list", "correct the file, or name its --format")
        return value

    def text(self, value: object, what: str) -> str:
        """Return ``value``, which has to be text with something in it."""
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"{what} is not a name: {short(value)}", "correct the file")
        return value

    def number(self, value: object, what: str) -> float:
        """Return ``value``, which has to be a finite number, or text that reads as one."""
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
        """Return ``value``, which has to be a number above 0; None where it is not given."""
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
        return self.segment(times[0], times[1], label)

    def columns(self, rows: Sequence[Mapping[str, str]], wanted: Sequence[str]) -> None:
        """Check that the rows of a table have the columns."""
        lacking = [name for name in wanted if rows and name not in rows[0]]
        if lacking:
            raise self.error(
                f"the columns {', '.join(lacking)} are missing", "name the right --format"
            )

    def segment(self, start: object, end: object, label: str) -> Segment:
        """Return a segment, whose end must not lie before its start."""
        begin, stop = self.number(start, "a segment's start"), self.number(end, "a segment's end")
        if stop < begin:
            raise self.error(
                f"a segment of {label!r} ends at {stop:g}, before its start at {begin:g}",
                "swap or correct the two numbers",
            )
        return Segment(begin, stop, label)


def short(value: object) -> str:
    """Return a value as it may stand in a one-line message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_text(path: Path) -> str:
    """Return a whole text file.

    Raises:
        AnnotationError: it is missing, unreadable, too large or not UTF-8.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise AnnotationError(
                f"has {path.stat().st_size / 1e9:.1f} GB, more than any annotation file",
                path=path,
                remedy="check that it is the right file",
            )
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise AnnotationError(
            f"cannot be read ({reason})", path=path, remedy="check the path and the permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise AnnotationError(
            "is not a text file", path=path, remedy="check that it is the right file"
        ) from error


def parse_json(text: str, path: Path) -> Any:
    """Return the value of JSON text in which no object has the same key twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise Context(path).error(
                    f"the key {short(key)} is given twice", "keep one of the two entries"
                )
            result[key] = value
        return result

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise AnnotationError(
            f"is not valid JSON (line {error.lineno}, column {error.colno}: {error.msg})",
            path=path,
            remedy="correct it, or check that it is the right file",
        ) from error
    except (RecursionError, ValueError) as error:
        raise AnnotationError(
            "is not usable JSON (nested too deep, or a number with thousands of digits)",
            path=path,
            remedy="check that it is the right file",
        ) from error


def parse_csv(text: str, path: Path) -> list[dict[str, str]]:
    """Return the rows of CSV text with a header line, by column name.

    Raises:
        AnnotationError: it has no header, or rows of another length than it.
    """
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise AnnotationError(
            f"is not valid CSV ({error})", path=path, remedy="correct it"
        ) from error
    if not rows:
        raise AnnotationError("is empty", path=path, remedy="check that it is the right file")
    header = [name.strip() for name in rows[0][1]]
    if len(set(header)) < len(header):
        raise AnnotationError("names a column twice", path=path, remedy="correct the header line")
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise AnnotationError(
                f"line {line} has {len(row)} fields, but the header has {len(header)}",
                path=path,
                remedy="correct the line",
            )
    return [dict(zip(header, row, strict=True)) for _, row in rows[1:]]
