"""A small pose cache of two actions, waving and kicking."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidkd.cache import CacheWriter, Provenance, Source

RATE, FRAMES = 16, 96

STANDING = np.array(
    [
        *[(-0.1, 0.9), (0.1, 0.9), (-0.1, 0.45), (0.1, 0.45), (-0.12, 0), (0.12, 0)],
        *[(-0.25, 0.1), (0.25, 0.1), (-0.22, -0.2), (0.22, -0.2), (-0.18, -0.5), (0.18, -0.5)],
        (0, -0.75),
    ]
)
"""Thirteen joints, x and y in metres, seen from the front."""


def person(number: int) -> tuple[np.ndarray, list[dict[str, object]]]:
    """Return joints (FRAMES, 13, 3) and segments: waves, does nothing, kicks."""
    rng = np.random.default_rng(number)
    joints = np.zeros((FRAMES, 13, 3))
    joints[..., :2] = STANDING
    joints += rng.normal(0, 0.01, joints.shape)
    segments: list[dict[str, object]] = []
    third = FRAMES // 3
    for first, joint, label in ((0, 6, "wave"), (2 * third, 1, "kick")):
        phase = np.arange(third) * 2 * np.pi / 8
        joints[first : first + third, joint, 1] -= 0.6
        joints[first : first + third, joint, 0] += 0.2 * np.sin(phase)
        times = [first / RATE, (first + third) / RATE]
        segments.append({"label": label, "segment": times})
    return joints, segments


def write_poses(path: Path, joints: np.ndarray, source: Source | None = None) -> None:
    """Write (T, 13, 3) metres as the only person of a video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = 60 * joints[..., :2] + np.array([64, 64])
    rows = np.concatenate([pixels, joints, np.ones_like(joints[..., :1])], axis=-1)
    data = np.full((len(rows), 2, 13, 6), np.nan)
    data[:, 0] = rows
    tracks = np.tile(np.array([0, -1], dtype=np.int32), (len(rows), 1))
    provenance = Provenance(
        artefact="pose",
        source=source or Source(path.stem, 1, "00" * 32, Fraction(RATE), len(rows)),
        settings={
            "frames": {"short_side": 128, "frame_rate": None, "resize": "swscale-bilinear"},
            "pose": {"backend": "files"},
            "size": [128, 128],
        },
        encoder="files",
        weights_sha256="00" * 32,
    )
    times = np.arange(len(rows) + 1) / RATE
    further = {"tracks": ((2,), "int32")}
    with CacheWriter(path, provenance, data.shape[1:], "float32", further) as writer:
        writer.append(data, np.stack([times[:-1], times[1:]], axis=1), {"tracks": tracks})


def write_dataset(folder: Path, videos: int = 4) -> Path:
    """Write poses and annotations of some videos, the last for validation."""
    database = {}
    for number in range(videos):
        joints, segments = person(number)
        write_poses(folder / "cache" / "pose" / f"v{number}.h5", joints)
        subset = "validation" if number == videos - 1 else "training"
        database[f"v{number}"] = {
            "subset": subset,
            "duration": FRAMES / RATE,
            "annotations": segments,
        }
    content = {"classes": ["wave", "kick"], "database": database}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder
