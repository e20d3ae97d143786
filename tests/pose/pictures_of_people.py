"""Drawn people with known joints, for the tests of labels and training."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vidkd.files import write_json
from vidkd.pose.labels import FORMAT, LabelledFrame, LabelledPerson
from vidkd.skeletons import BONES

SIZE = (64, 96)
STANDING = np.array(
    [
        [-0.10, 0.90], [0.10, 0.90], [-0.10, 0.45], [0.10, 0.45], [-0.10, 0], [0.10, 0],
        [-0.30, 0.05], [0.30, 0.05], [-0.25, -0.25], [0.25, -0.25], [-0.18, -0.50], [0.18, -0.50],
        [0.0, -0.70],
    ]
)  # fmt: skip


def draw(rng: np.random.Generator) -> tuple[np.ndarray, LabelledPerson]:
    """Return a picture of one stick figure, and its labels."""
    points = np.zeros((13, 3))
    points[:, :2] = STANDING * rng.uniform(0.9, 1.1)
    points[6:10] += rng.normal(0, 0.08, (4, 3))
    scale = rng.uniform(24, 32)
    pixels = points[:, :2] * scale + np.array([rng.uniform(25, 70), 30.0])
    image = np.full((*SIZE, 3), rng.integers(0, 90, 3), np.uint8)
    for first, second in BONES:
        ends = [tuple(int(v) for v in np.round(pixels[joint])) for joint in (first, second)]
        cv2.line(image, *ends, (250, 200, 60), 3)
    cv2.circle(image, tuple(int(v) for v in np.round(pixels[12])), 4, (250, 120, 60), -1)
    return image, LabelledPerson(
        pixels.astype(np.float32), np.ones(13, np.float32), points.astype(np.float32)
    )


def write_people(folder: Path, count: int, seed: int = 0) -> Path:
    """Draw a labelled set of pictures; return its ``labels.json``."""
    rng = np.random.default_rng(seed)
    frames = []
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image, person = draw(rng)
        path = folder / f"{number:03d}.png"
        cv2.imwrite(str(path), image[:, :, ::-1])
        frames.append(LabelledFrame(path, None, (person,)))
    write_labels_file(folder / "labels.json", frames)
    return folder / "labels.json"


def write_labels_file(path: Path, frames: Sequence[LabelledFrame]) -> None:
    """Write 13-joint labels as a ``labels.json``; sources are written relative to its folder."""
    entries = []
    for frame in frames:
        name = Path(os.path.relpath(frame.source, path.parent)).as_posix()
        where = {"image": name} if frame.time is None else {"video": name, "time": frame.time}
        entries.append({**where, "people": [_person_json(person) for person in frame.people]})
    write_json(path, {"format": FORMAT, "joints": "vidkd-13", "frames": entries})


def _person_json(person: LabelledPerson) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "joints_2d": [
            None if math.isnan(float(xy.sum())) else [*(round(float(v), 2) for v in (*xy, score))]
            for xy, score in zip(person.joints_2d, person.scores, strict=True)
        ]
    }
    if person.box is not None:
        entry["box"] = [round(float(v), 2) for v in person.box]
    if not np.isnan(person.joints_3d).all():
        entry["joints_3d"] = [
            None if math.isnan(float(xyz.sum())) else [round(float(v), 4) for v in xyz]
            for xyz in person.joints_3d
        ]
    return entry
