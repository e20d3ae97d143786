"""Videos by their names: a video's key is its path below the folder of all videos.

An annotation file may name a video by its key, or by the last parts of it where no other video
has the same. ``cam1`` may stand for ``P01/cam1`` only as long as there is no ``P02/cam1``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Generic, TypeVar

from vidkd.errors import UsageError

Item = TypeVar("Item")

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".h264", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov"}
    | {".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"}
)
"""Endings of video files, which keys do not have."""


class KeyIndex(Generic[Item]):
    """Items by the key of their video, found by that key or by its last parts.

    Args:
        items: by key; keys are written with ``/`` and without a file ending.
        where: the folder or file they are from, for messages.
    """

    def __init__(self, items: Mapping[str, Item], where: Path) -> None:
        self.items = dict(items)
        self.where = where
        self._by_name: dict[str, list[str]] = {}
        for key in self.items:
            self._by_name.setdefault(key.rpartition("/")[2], []).append(key)

    def candidates(self, video: str) -> list[str]:
        """Return the keys that ``video`` may stand for: none, one, or several to choose from."""
        if video in self.items:
            return [video]
        same = self._by_name.get(video.rpartition("/")[2], [])
        return sorted(key for key in same if key.endswith(f"/{video}"))

    def key(self, video: str) -> str | None:
        """Return the key of the video called ``video``, or None when there is no such video.

        Raises:
            UsageError: several videos could be meant.
        """
        found = self.candidates(video)
        if len(found) > 1:
            raise UsageError(
                f"several files belong to video {video!r}: {', '.join(found[:3])}",
                path=self.where,
                remedy="name the videos in the annotation file by their folder too",
            )
        return found[0] if found else None

    def find(self, video: str) -> Item | None:
        """Return the item of the video called ``video``, or None.

        Raises:
            UsageError: several videos could be meant.
        """
        key = self.key(video)
        return None if key is None else self.items[key]

    def require(self, video: str, what: str, remedy: str) -> Item:
        """Return the item of the video called ``video``.

        Args:
            video: its key, or the last parts of it.
            what: the items are called in the message, such as ``pose file``.
            remedy: what to do when there is none.

        Raises:
            UsageError: there is none, or several videos could be meant.
        """
        key = self.key(video)
        if key is None:
            raise UsageError(
                f"the {what} of video {video!r} was not found", path=self.where, remedy=remedy
            )
        return self.items[key]
