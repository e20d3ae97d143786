"""A small artificial data set: cached features of two streams, and annotations."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np

from vidkd.cache import CacheWriter, Provenance, Source, cache_path

ENCODERS = {"rgb": "artificial-rgb", "flow": "artificial-flow"}
SECONDS = 0.64  # 16 frames at 25 frames/s


def write_features(cache, key, modality, rows, *, pts=None, encoder=None, weights="1", **settings):
    """Write the features of one video as extraction does."""
    encoder = encoder or ENCODERS[modality]
    start = np.arange(len(rows)) * SECONDS
    provenance = Provenance(
        artefact="features",
        source=Source(f"{key}.mp4", 1, "0" * 64, Fraction(25), 16 * len(rows)),
        settings={
            "modality": modality,
            "frames": {"short_side": 64, "frame_rate": None},
            "snippet": {"length": 16, "stride": 16},
            "crop": 64,
            "dtype": "float32",
            **settings,
        },
        encoder=encoder,
        weights_sha256=weights * 64,
    )
    path = cache_path(cache, "features", key, encoder)
    with CacheWriter(path, provenance, (rows.shape[1],), "float32") as writer:
        writer.append(rows, np.stack([start, start + SECONDS], 1) if pts is None else pts)
    return path


def make(
    folder: Path,
    videos=(("training", 8), ("validation", 4), ("testing", 2)),
    classes=4,
    width=16,
    noise=0.3,
    seed=0,
):
    """Write FOLDER/cache and FOLDER/annotations.json; every action shows in both streams."""
    generator = np.random.default_rng(seed)
    patterns = {name: generator.normal(size=(classes, width)) for name in ENCODERS}
    database = {}
    for subset, count in videos:
        for number in range(count):
            name = f"{subset}-{number}"
            steps = int(generator.integers(8, 20))
            active = np.zeros((steps, classes))
            segments = []
            for label in generator.choice(classes, size=2, replace=False):
                first = int(generator.integers(0, steps - 4))
                last = first + int(generator.integers(2, 5))
                active[first:last, label] = 1
                segments.append(
                    {"segment": [first * SECONDS, last * SECONDS], "label": f"class {label}"}
                )
            database[name] = {
                "subset": subset,
                "duration": steps * SECONDS,
                "annotations": segments,
            }
            for modality, pattern in patterns.items():
                rows = active @ pattern + noise * generator.normal(size=(steps, width))
                write_features(folder / "cache", name, modality, rows)
    path = folder / "annotations.json"
    names = [f"class {label}" for label in range(classes)]
    path.write_text(json.dumps({"version": "1", "classes": names, "database": database}))
    return path
