"""From what the user types to a list of videos."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from vidkd.errors import UsageError
from vidkd.keys import VIDEO_SUFFIXES
from vidkd.storage import RemotePath, as_path, as_paths


@dataclass(frozen=True)
class VideoFile:
    """A video and the name under which its results are kept.

    Attributes:
        path: the file.
        key: its path relative to the root, with ``/`` between folders and without the ending.
    """

    path: Path
    key: str


def find_videos(inputs: Sequence[Path], root: Path | None = None) -> list[VideoFile]:
    """Expand files, folders (searched recursively, in order of name) and text lists.

    A text list (``.txt``) holds one path or address a line, relative to the list's folder; empty
    lines and lines that begin with ``#`` are passed over. A file that is named is taken whatever
    its ending; in a folder the known endings of video count.

    Args:
        inputs: what the user typed. A missing file is kept: it fails later by itself, and the
            others are still done.
        root: folder to which keys are relative; by default the folder that was given, or the
            folder of the file that was given.

    Raises:
        UsageError: two videos have one key, an input lies outside ``root``, a folder holds no
            video, or a list or folder cannot be read.
    """
    found: dict[str, VideoFile] = {}
    for path, base in _expand(inputs):
        key = _key(path, root if root is not None else base)
        other = found.get(key)
        if other is not None and other.path.resolve() != path.resolve():
            raise UsageError(
                f"{other.path} and {path} would share the name {key!r}",
                remedy="rename one of them, or give --root, a folder above both",
            )
        found.setdefault(key, VideoFile(path, key))
    return list(found.values())


def _expand(inputs: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    for item in inputs:
        path = as_path(item)
        if _is_folder(path):
            yield from ((video, path) for video in _inside(path))
        elif path.suffix.lower() == ".txt":
            yield from _listed(path)
        else:
            yield path, path.parent


def _is_folder(path: Path) -> bool:
    # One request less for each video at an address.
    named_so = isinstance(path, RemotePath) and path.suffix.lower() in VIDEO_SUFFIXES
    return not named_so and path.is_dir()


def _inside(folder: Path) -> list[Path]:
    if isinstance(folder, RemotePath):
        videos: list[Path] = [
            path for path in folder.rglob("*") if _counts(path.relative_to(folder))
        ]
    else:
        videos = _on_disk(folder)
    if not videos:
        raise UsageError("holds no video", path=folder, remedy="check the folder, or name files")
    return sorted(videos)


def _counts(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and path.suffix.lower() in VIDEO_SUFFIXES


def _on_disk(folder: Path) -> list[Path]:
    videos: list[Path] = []
    seen: set[str] = set()

    def refuse(error: OSError) -> NoReturn:
        raise UsageError(
            f"cannot be read ({error.strerror})",
            path=error.filename or folder,
            remedy="check its permissions",
        ) from error

    # Data sets are often folders of links, so links are followed, but never in a circle.
    for name, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        true_name = os.path.realpath(name)
        if true_name in seen:
            folders.clear()
            continue
        seen.add(true_name)
        folders[:] = sorted(item for item in folders if not item.startswith("."))
        videos += (Path(name, file) for file in files if _counts(Path(file)))
    return videos


def _listed(path: Path) -> Iterator[tuple[Path, Path]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UsageError(
            f"cannot be read as a list of videos ({reason})", path=path, remedy="check the path"
        ) from error
    names = [line.strip() for line in lines]
    names = [name for name in names if name and not name.startswith("#")]
    if not names:
        raise UsageError("names no video", path=path, remedy="write one path a line")
    for name, named in zip(names, as_paths(names), strict=True):
        video = named if named.is_absolute() else path.parent / name
        base = video.parent if named.is_absolute() else path.parent
        if _is_folder(video):
            yield from ((item, base) for item in _inside(video))
        else:
            yield video, base


def _key(path: Path, base: Path) -> str:
    # The name the user knows counts, not the place to which a link leads.
    absolute, above = (
        item if isinstance(item, RemotePath) else Path(os.path.abspath(item))  # noqa: PTH100
        for item in (path, as_path(base))
    )
    try:
        relative = absolute.relative_to(above)
    except ValueError:
        raise UsageError(
            f"lies outside {base}", path=path, remedy="give --root, a folder above every video"
        ) from None
    return relative.with_suffix("").as_posix()
