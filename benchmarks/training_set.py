"""A feature set of the size of Charades, for ``benchmarks/training.py``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidkd.cache import CacheWriter, Provenance, Source, cache_path
from vidkd.console import progress

CLASSES = 157
WIDTH = 1024
FRAME_RATE = 24
SNIPPET = 16
SHORTEST, LONGEST = 30, 120
MODALITIES = ("rgb", "flow")


def make(folder: Path, videos: int, validation: int, seed: int = 0) -> None:
    """Write a cache, an annotation file, and the RGB features as one ``.npy`` file per video.

    FOLDER/cache has float16 features (T, 1024) of two streams, T from 30 to 120; FOLDER/npy the
    same numbers of the first. Actions show in the features, so that there is something to learn.

    Args:
        folder: where to; what is there already is not made again.
        videos: number of training videos.
        validation: number of validation videos.
        seed: decides everything.
    """
    path = folder / "annotations.json"
    if path.exists():
        return
    rng = np.random.default_rng(seed)
    patterns = {name: rng.exponential(1.0, (CLASSES, WIDTH)) for name in MODALITIES}
    (folder / "npy").mkdir(parents=True, exist_ok=True)
    database = {}
    names = [f"training-{n:05d}" for n in range(videos)]
    names += [f"validation-{n:05d}" for n in range(validation)]
    with progress("making the feature set", len(names), "videos") as advance:
        for name in names:
            steps = int(rng.integers(SHORTEST, LONGEST + 1))
            active, segments = _actions(steps, rng)
            for modality in MODALITIES:
                rows = rng.standard_exponential((steps, WIDTH), dtype=np.float32)
                rows = (rows + active @ patterns[modality]).astype(np.float16)
                _store(folder / "cache", name, modality, rows)
                if modality == "rgb":
                    np.save(folder / "npy" / f"{name}.npy", rows)
            database[name] = {
                "subset": name.partition("-")[0],
                "duration": steps * SNIPPET / FRAME_RATE,
                "annotations": segments,
            }
            advance(1)
    labels = [f"class {number}" for number in range(CLASSES)]
    path.write_text(json.dumps({"version": "1", "classes": labels, "database": database}))


def _actions(steps: int, rng: np.random.Generator) -> tuple[np.ndarray, list[dict[str, object]]]:
    """Return (T, K) float32 and the segments: 7 actions per video, 12 s each, as in Charades."""
    active = np.zeros((steps, CLASSES), dtype=np.float32)
    segments: list[dict[str, object]] = []
    for label in rng.choice(CLASSES, size=int(rng.integers(1, 14)), replace=False).tolist():
        length = int(rng.integers(4, min(steps, 32) + 1))
        start = int(rng.integers(0, steps - length + 1))
        active[start : start + length, label] = 1
        seconds = [start * SNIPPET / FRAME_RATE, (start + length) * SNIPPET / FRAME_RATE]
        segments.append({"segment": seconds, "label": f"class {label}"})
    return active, segments


def _store(cache: Path, name: str, modality: str, rows: np.ndarray) -> None:
    encoder = f"random-{modality}"
    start = np.arange(len(rows)) * SNIPPET / FRAME_RATE
    provenance = Provenance(
        artefact="features",
        source=Source(f"{name}.mp4", 1, "0" * 64, Fraction(FRAME_RATE), SNIPPET * len(rows)),
        settings={
            "modality": modality,
            "frames": {"short_side": 256, "frame_rate": None},
            "snippet": {"length": SNIPPET, "stride": SNIPPET},
            "crop": 224,
            "dtype": "float16",
        },
        encoder=encoder,
        weights_sha256="0" * 64,
    )
    path = cache_path(cache, "features", name, encoder)
    with CacheWriter(path, provenance, (rows.shape[1],), np.float16) as writer:
        writer.append(rows, np.stack([start, start + SNIPPET / FRAME_RATE], axis=1))


def forget(paths: Iterator[Path] | list[Path]) -> None:
    """Take files out of the page cache, so that they are read from the disk again."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
