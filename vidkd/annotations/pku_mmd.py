"""PKU-MMD: one text file per video, and lists of the videos of each split.

``NAME.txt`` holds lines ``label,start_frame,end_frame,confidence``: labels 1 to 51, frames of the
recordings at 30 frames per second (Liu et al. 2017, and the data set's README). A split file
(``cross-subject.txt``, ``cross-view.txt``) holds ``Training videos:`` and, misspelt in the data
set's own files, ``Validataion videos:``, each followed by names with commas between.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from vidkd.annotations.model import Annotations, Segment, VideoAnnotation
from vidkd.annotations.parse import Context, read_text, short
from vidkd.annotations.reader import Reader, Source
from vidkd.errors import AnnotationError

PKU_MMD_FRAME_RATE = 30.0
"""Frames per second of PKU-MMD, whose labels count in frames."""
PKU_MMD_CLASSES = tuple(str(number) for number in range(1, 52))
"""By their number; the data set's ``Actions.xlsx`` has the names."""

_SPLITS = ("cross-subject", "cross-view")


def _read(source: Source, frame_rate: float | None, split: str | None = None) -> Annotations:
    """Read a folder of label files, or a split file beside or above them.

    Args:
        source: the folder, searched recursively; or a split file, whose label files lie in its
            own folder, in the folder above or below that.
        frame_rate: frames per second.
        split: ``cross-subject`` or ``cross-view``: the split file of that name at or above the
            folder gives the subsets.

    Returns:
        segments from the first to the end of the last frame of the file's numbers, in seconds.
        The subsets are ``training`` and ``testing``, which PKU-MMD calls validation: it is what
        papers report. Without a split file there are none.

    Raises:
        AnnotationError: a file cannot be read, or a listed video has no label file.
    """
    path, rate = source.path, frame_rate or PKU_MMD_FRAME_RATE
    listed: dict[str, str] = {}
    if path.is_file():
        split_file: Path | None = path
        folders = [path.parent, path.parent.parent]
    else:
        split_file = None if split is None else _split_file(path, split)
        folders = [path]
    if split_file is not None:
        listed = _read_split(split_file)
    files = _label_files(folders, set(listed) or None, path)
    videos = {}
    for name in listed or sorted(files):
        file = files.get(name)
        if file is None:
            raise Context(split_file or path).error(
                f"video {name!r} is listed but has no label file",
                f"put {name}.txt into the folder, or take the name out of the list",
            )
        segments = _read_labels(file, rate)
        view = name.rpartition("-")[2]
        videos[name] = VideoAnnotation(
            id=name,
            subset=listed.get(name, ""),
            frame_rate=rate,
            segments=segments,
            attributes={"view": view} if view in {"L", "M", "R"} else {},
        )
    return Annotations(PKU_MMD_CLASSES, videos)


def _split_file(folder: Path, split: str) -> Path:
    near = [folder, folder.parent, folder.parent / "Split", folder / "Split"]
    for candidate in (place / f"{split}.txt" for place in near):
        if candidate.is_file():
            return candidate
    raise AnnotationError(
        f"there is no {split}.txt in or beside this folder",
        path=folder,
        remedy="copy the split file there, or use the format pku-mmd, without subsets",
    )


def _label_files(folders: list[Path], wanted: set[str] | None, path: Path) -> dict[str, Path]:
    """Return the label files by name: those that are wanted, or all that look like one."""
    files: dict[str, Path] = {}
    for folder in folders:
        for file in sorted(folder.rglob("*.txt")):
            name = file.stem
            if file.name.startswith(".") or name.lower() in {*_SPLITS, "readme"}:
                continue
            if wanted is not None and name not in wanted:
                continue
            if name in files:
                raise Context(path).error(
                    f"video {name!r} has two label files, {files[name]} and {file}",
                    "keep one of them",
                )
            files[name] = file
        if files:
            break
    if not files:
        raise Context(path).error("has no label files NAME.txt", "check the folder")
    return files


def _read_labels(path: Path, rate: float) -> tuple[Segment, ...]:
    segments = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        here = Context(path, f"line {number}")
        fields = [part for part in re.split(r"[,\s]+", line.strip()) if part]
        if len(fields) not in (3, 4):
            raise here.error(
                f"is not label,start_frame,end_frame,confidence: {short(line)}", "correct it"
            )
        label, start, end = (here.number(field, "a field") for field in fields[:3])
        if label != int(label) or not 1 <= label <= 51:
            raise here.error(f"the class {short(fields[0])} is not one of 1 to 51", "correct it")
        segments.append(here.segment(start / rate, end / rate, str(int(label))))
    return tuple(segments)


def _read_split(path: Path) -> dict[str, str]:
    subset = ""
    listed: dict[str, str] = {}
    for line in read_text(path).splitlines():
        head, colon, rest = line.partition(":")
        if colon:
            kind = head.strip().lower()
            subset = (
                "training"
                if kind.startswith("train")
                else "testing"
                if kind.startswith(("valid", "test"))
                else ""
            )
            line = rest
        for name in filter(None, (part.strip() for part in line.split(","))):
            if not subset:
                raise Context(path).error(
                    f"{short(name)} stands before `Training videos:`", "give a split file"
                )
            if listed.setdefault(name, subset) != subset:
                raise Context(path, f"video {name!r}").error(
                    "is listed for training and for validation", "take it out of one list"
                )
    if not listed:
        raise Context(path).error("lists no video", "check that it is a split file")
    return listed


PKU_MMD = Reader(
    "PKU-MMD, a folder of NAME.txt, or a split file: classes from 1, frames",
    _read,
    frame_rate=PKU_MMD_FRAME_RATE,
)
PKU_MMD_CROSS_SUBJECT = replace(
    PKU_MMD,
    help="PKU-MMD, subsets of cross-subject.txt",
    read=lambda source, rate: _read(source, rate, "cross-subject"),
)
PKU_MMD_CROSS_VIEW = replace(
    PKU_MMD,
    help="PKU-MMD, subsets of cross-view.txt",
    read=lambda source, rate: _read(source, rate, "cross-view"),
)
