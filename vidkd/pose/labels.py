"""Labelled pictures of people, from which ``vidkd pose train`` learns (formats: docs/pose.md).

Two sources give the same thing: a folder of ``vidkd synth`` (``videos/NAME.mp4`` with
``poses/NAME.h5``), and a ``labels.json``, which names pictures or moments of videos beside it.
Pixels count from the middle of the first one.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np

from vidkd.errors import AnnotationError, VideoError
from vidkd.skeletons import JOINTS, from_blazepose33, from_coco17
from vidkd.video import read_frames

Array = np.ndarray

FORMAT = "vidkd-poses"
LABELS_FILE = "labels.json"
MAPPINGS: dict[str, tuple[int, Callable[[Array], Array]]] = {
    "vidkd-13": (len(JOINTS), np.asarray),
    "coco-17": (17, from_coco17),
    "blazepose-33": (33, from_blazepose33),
}
_LEAST_SCORE = 0.05
"""A joint labelled with less confidence is treated as unknown."""


@dataclass(frozen=True)
class LabelledPerson:
    """One person in a picture, with the 13 joints of :data:`vidkd.skeletons.JOINTS`."""

    joints_2d: Array
    """(13, 2) pixels, which may lie outside the picture; NaN when unknown."""
    scores: Array
    """(13,) confidence in [0, 1]; 0 when unknown."""
    joints_3d: Array
    """(13, 3) metres relative to the middle of the hips, or NaN."""
    box: Array | None = None
    """(4,) x0, y0, x1, y1, or None when it follows from the joints."""


@dataclass(frozen=True)
class LabelledFrame:
    """One picture, by its file or by its moment in a video, and all the people in it."""

    source: Path
    time: float | None = None
    people: tuple[LabelledPerson, ...] = field(default=())


def read_labels(path: str | Path) -> list[LabelledFrame]:
    """Read the labels of a folder of ``vidkd synth``, a ``labels.json``, or a folder with one.

    Raises:
        AnnotationError: the path holds neither, or something is wrong with the labels; the message
            names the place.
    """
    path = Path(path)
    if path.is_dir():
        if (path / LABELS_FILE).is_file():
            return read_labels_file(path / LABELS_FILE)
        if (path / "poses").is_dir():
            return [f for file in sorted((path / "poses").glob("*.h5")) for f in read_poses(file)]
    elif path.suffix == ".json" and path.is_file():
        return read_labels_file(path)
    raise AnnotationError(
        "holds no labelled poses",
        path=path,
        remedy=f"give a folder of `vidkd synth`, or a {LABELS_FILE}",
    )


def read_poses(path: Path) -> list[LabelledFrame]:
    """Read one file of exact poses that ``vidkd synth`` wrote; the video lies beside the folder.

    Raises:
        AnnotationError: the file is damaged or of another kind, or its video is missing.
    """
    video = path.parent.parent / "videos" / f"{path.stem}.mp4"
    try:
        with h5py.File(path) as file:
            names = [n if isinstance(n, str) else n.decode() for n in file.attrs["joints"]]
            points, pixels = file["joints_3d"][:], file["joints_2d"][:]
            present, visible = file["present"][:], file["visible"][:]
            starts = file["pts"][:, 0]
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise AnnotationError(
            f"is not a file of poses ({error})", path=path, remedy="render it again"
        ) from error
    shape = (len(starts), pixels.shape[1] if pixels.ndim == 4 else 0, len(JOINTS))
    if tuple(names) != JOINTS or points.shape != (*shape, 3) or pixels.shape != (*shape, 2):
        raise AnnotationError("has other joints than expected", path=path, remedy="render it again")
    if not video.is_file():
        raise AnnotationError("lacks its video", path=path, remedy=f"restore {video}")
    # What is hidden can be guessed from the rest of the body, though with less confidence.
    scores = np.where(visible, 1.0, np.where(present, 0.5, 0.25)).astype(np.float32)
    roots = points[:, :, 4:6].mean(axis=2, keepdims=True)
    frames = []
    for row, start in enumerate(starts):
        people = tuple(
            LabelledPerson(pixels[row, p], scores[row, p], (points - roots)[row, p])
            for p in range(shape[1])
            if present[row, p].any()
        )
        frames.append(LabelledFrame(video, float(start), people))
    return frames


def read_labels_file(path: Path) -> list[LabelledFrame]:
    """Read a ``labels.json``.

    Raises:
        AnnotationError: it cannot be read, or breaks the format; the message names the place.
    """
    data = read_json(path)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise broken(path, f"`format` is not {FORMAT!r}")
    if data.get("joints") not in MAPPINGS:
        raise broken(path, f"`joints` is none of {', '.join(MAPPINGS)}")
    if not isinstance(data.get("frames"), list):
        raise broken(path, "`frames` is not a list")
    result = []
    for number, entry in enumerate(data["frames"]):
        try:
            result.append(_frame(entry, data["joints"], path.parent))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise broken(path, f"frames[{number}]: {error}") from error
    return result


def read_json(path: Path) -> Any:
    """Return the value of a file of labels or poses.

    Raises:
        AnnotationError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise broken(path, f"cannot be read ({error})") from error


def _frame(entry: dict[str, Any], joints: str, folder: Path) -> LabelledFrame:
    names = [key for key in ("image", "video") if key in entry]
    if len(names) != 1:
        raise ValueError("has not exactly one of `image` and `video`")
    source = folder / str(entry[names[0]])
    if not source.is_file():
        raise ValueError(f"there is no {source}")
    time = float(entry["time"]) if names[0] == "video" else None
    if time is not None and not (0 <= time < math.inf):
        raise ValueError("`time` is not a second of the video")
    people = tuple(
        read_person(person, joints, f"people[{number}]")
        for number, person in enumerate(entry["people"])
    )
    return LabelledFrame(source, time, people)


def read_person(entry: dict[str, Any], joints: str, where: str) -> LabelledPerson:
    """Read one person of the format above.

    Args:
        entry: the person.
        joints: the skeleton, a key of ``MAPPINGS``.
        where: the entry's place, for messages.

    Raises:
        KeyError, TypeError, ValueError: the entry breaks the format.
    """
    count, mapped = MAPPINGS[joints]
    rows = _rows(entry["joints_2d"], count, 3, f"{where}.joints_2d")
    if np.nanmin(rows[:, 2], initial=0) < 0 or np.nanmax(rows[:, 2], initial=0) > 1:
        raise ValueError(f"{where}: scores lie in [0, 1]")
    # Before the mapping, so that an ear at (0, 0) that nobody saw does not move the head.
    rows[~(rows[:, 2] >= _LEAST_SCORE)] = np.nan
    flat = mapped(rows)
    unknown = np.isnan(flat).any(axis=1)
    pixels, scores = flat[:, :2].copy(), np.where(unknown, 0.0, flat[:, 2])
    pixels[unknown] = np.nan
    points = np.full((count, 3), np.nan, np.float32)
    if entry.get("joints_3d") is not None:
        points = _rows(entry["joints_3d"], count, 3, f"{where}.joints_3d")
    points = mapped(points)
    # Relative to the hips whatever the labeller's origin is; without hips there is no 3D pose.
    points = points - points[4:6].mean(axis=0)
    box = entry.get("box")
    if box is not None:
        box = np.asarray(box, np.float32)
        if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= box[:2]).any():
            raise ValueError(f"{where}.box is not x0, y0, x1, y1")
    return LabelledPerson(pixels, scores, points.astype(np.float32), box)


def _rows(values: Any, count: int, width: int, where: str) -> Array:
    rows = [[math.nan] * width if row is None else row for row in values]
    if len(rows) != count or any(len(row) != width for row in rows):
        raise ValueError(f"{where} is not {count} rows of {width} numbers")
    array = np.asarray(rows, np.float32)
    if np.isinf(array).any():
        raise ValueError(f"{where} has values that are not finite")
    return array


def broken(path: Path, why: str) -> AnnotationError:
    """Return the error of a file that breaks the formats of labels and poses."""
    return AnnotationError(why, path=path, remedy="see the formats in docs/pose.md")


def load_pictures(frames: Iterable[LabelledFrame]) -> Iterator[tuple[LabelledFrame, Array]]:
    """Yield every frame with its picture (H, W, 3) uint8 RGB, decoding each video once.

    Frames of one video must follow each other, in order of time.

    Raises:
        VideoError: a video or picture cannot be decoded, or is shorter than its labels say.
    """
    for (source, still), group in itertools.groupby(frames, lambda f: (f.source, f.time is None)):
        if still:
            for frame in group:
                yield frame, read_picture(source)
        else:
            yield from _of_video(source, group)


def read_picture(path: Path) -> Array:
    """Read a picture file as (H, W, 3) uint8 RGB.

    Raises:
        VideoError: it is missing or not a picture.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise VideoError(f"cannot be read ({error.strerror})", path=path) from error
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if picture is None:
        raise VideoError("is not a picture", path=path, remedy="remove its labels")
    return np.asarray(picture[:, :, ::-1])


def _of_video(
    source: Path, frames: Iterator[LabelledFrame]
) -> Iterator[tuple[LabelledFrame, Array]]:
    current = next(frames, None)
    for picture in read_frames(source):
        while current is not None and (current.time or 0.0) < picture.end - 1e-6:
            yield current, picture.image
            current = next(frames, None)
        if current is None:
            return
    raise VideoError(
        "ends before the last moment that is labelled", path=source, remedy="label it again"
    )
