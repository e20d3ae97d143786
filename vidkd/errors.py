"""Errors meant for people: what was wrong, with which file, and what to do."""

from __future__ import annotations

from pathlib import Path


class VidkdError(Exception):
    """A problem the user can act on; the command line prints it as one line, without a traceback.

    Args:
        problem: what was wrong, as a short phrase without a full stop.
        path: the file or folder concerned, if any.
        remedy: what the user can do about it, as an imperative phrase.
    """

    exit_code = 1

    def __init__(
        self, problem: str, *, path: str | Path | None = None, remedy: str | None = None
    ) -> None:
        self.problem = problem
        self.path = None if path is None else str(path)
        self.remedy = remedy
        super().__init__(problem, self.path, remedy)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling between worker processes.
        return _rebuild, (type(self), self.problem, self.path, self.remedy)

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        what_to_do = f"; {self.remedy}" if self.remedy else ""
        return f"{where}{self.problem}{what_to_do}"


def _rebuild(
    kind: type[VidkdError], problem: str, path: str | None, remedy: str | None
) -> VidkdError:
    return kind(problem, path=path, remedy=remedy)


class UsageError(VidkdError):
    """The command was called in a way that cannot work, whatever the inputs (exit code 2)."""

    exit_code = 2


class VideoError(VidkdError):
    """A video cannot be opened or decoded."""


class CacheError(VidkdError):
    """A cache file is damaged, or does not hold what is asked for."""


class WeightsError(VidkdError):
    """A weights file is missing, damaged, or of another network."""


class AnnotationError(VidkdError):
    """An annotation or prediction file cannot be read, or contradicts itself."""
