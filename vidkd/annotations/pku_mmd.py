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
from vidkd.annotations.parse import Context, Reader, Source, lines, short

PKU_MMD_FRAME_RATE = 30.0
"""Frames per second of PKU-MMD, whose labels count in frames."""
PKU_MMD_CLASSES = tuple(str(number) for number in range(1, 52))
"""By their number; the data set's ``Actions.xlsx`` has the names."""

_SPLITS = ("cross-subject", "cross-view")


def _read(source: Source, frame_rate: float | None, split: str | None = None) -> Annotations:
    """Read a folder of label files, or a split file beside or above them.

    Segments reach to the end of the last frame of the file's numbers. The subsets are ``training``
    and ``testing``, which PKU-MMD calls validation: it is what papers report. Without a split file
    there are none.

    Args:
        source: the folder, searched recursively; or a split file, whose label files lie in its
            own folder, in the folder above or below that.
        frame_rate: frames per second.
        split: ``cross-subject`` or ``cross-view``: the split file of that name at or above the
            folder gives the subsets.
    """
    path, rate = source.path, frame_rate or PKU_MMD_FRAME_RATE
    folders = [path]
    split_file = None if split is None else _split_file(path, split)
    if path.is_file():
        split_file, folders = path, [path.parent, path.parent.parent]
    listed = {} if split_file is None else _read_split(split_file)
    files = _label_files(folders, set(listed), path)
    videos = {}
    for name in listed or sorted(files):
        if name not in files:
            raise Context(split_file or path).error(
                f"video {name!r} is listed but has no label file",
                f"put {name}.txt into the folder, or take the name out of the list",
            )
        view = name.rpartition("-")[2]
        videos[name] = VideoAnnotation(
            id=name,
            subset=listed.get(name, ""),
            frame_rate=rate,
            segments=tuple(_segment(here, line, rate) for here, line in lines(files[name])),
            attributes={"view": view} if view in {"L", "M", "R"} else {},
        )
    return Annotations(PKU_MMD_CLASSES, videos)


def _split_file(path: Path, split: str) -> Path | None:
    if path.is_file():
        return path
    near = [path, path.parent, path.parent / "Split", path / "Split"]
    for candidate in (place / f"{split}.txt" for place in near):
        if candidate.is_file():
            return candidate
    raise Context(path).error(
        f"there is no {split}.txt in or beside this folder",
        "copy the split file there, or use the format pku-mmd, without subsets",
    )


def _label_files(folders: list[Path], wanted: set[str], path: Path) -> dict[str, Path]:
    """Return the label files by name: those that are wanted, or all that look like one."""
    files: dict[str, Path] = {}
    for folder in folders:
        for file in sorted(folder.rglob("*.txt")):
            name = file.stem
            if name.startswith(".") or name.lower() in {*_SPLITS, "readme"}:
                continue
            if wanted and name not in wanted:
                continue
            if name in files:
                raise Context(path).error(
                    f"video {name!r} has two label files, {files[name]} and {file}",
                    "keep one of them",
                )
            files[name] = file
        if files:
            return files
    raise Context(path).error("has no label files NAME.txt", "check the folder")


def _segment(here: Context, line: str, rate: float) -> Segment:
    fields = [part for part in re.split(r"[,\s]+", line) if part]
    if len(fields) not in (3, 4):
        raise here.error(
            f"is not label,start_frame,end_frame,confidence: {short(line)}", "correct it"
        )
    label, start, end = (here.number(field, "a field") for field in fields[:3])
    if label != int(label) or not 1 <= label <= 51:
        raise here.error(f"the class {short(fields[0])} is not one of 1 to 51", "correct it")
    return here.segment(start / rate, end / rate, str(int(label)))


def _read_split(path: Path) -> dict[str, str]:
    subset = ""
    listed: dict[str, str] = {}
    for _, line in lines(path):
        head, colon, rest = line.partition(":")
        if colon:
            kinds = {"train": "training", "valid": "testing", "test": "testing"}
            kind = head.strip().lower()
            subset = next((kinds[name] for name in kinds if kind.startswith(name)), "")
        for name in filter(None, map(str.strip, (rest if colon else line).split(","))):
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
