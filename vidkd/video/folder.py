"""A folder of videos, asked for what annotation files leave out."""

from __future__ import annotations

import functools
from pathlib import Path

from vidkd.keys import KeyIndex
from vidkd.video.inputs import find_videos
from vidkd.video.opened import VideoInfo, probe


class VideoFolder:
    """The videos below a folder by their ids; folder and videos are opened when first asked for.

    Args:
        folder: it is searched recursively.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, VideoInfo] = {}

    @functools.cached_property
    def _files(self) -> KeyIndex[Path]:
        found = find_videos([self._folder])
        return KeyIndex({item.key: item.path for item in found}, self._folder)

    def path(self, video: str) -> Path | None:
        """Return the file of a video, or None when it has none.

        Raises:
            UsageError: several files could be meant, or the folder holds no video.
        """
        return self._files.find(video)

    def info(self, video: str) -> VideoInfo | None:
        """Return what the container of a video says, or None when there is no such video.

        Raises:
            UsageError: several files could be meant, or the folder holds no video.
            VideoError: it cannot be opened.
        """
        path = self.path(video)
        if path is not None and path not in self._known:
            self._known[path] = probe(path)
        return None if path is None else self._known[path]

    def rate(self, video: str) -> float | None:
        """Return the frames per second of a video; raises as ``info`` does."""
        info = self.info(video)
        return None if info is None else float(info.frame_rate)
