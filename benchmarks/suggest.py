"""Whether the videos of `vidkd suggest` are worth more labels than others; prints a table.

    python benchmarks/suggest.py --cache CACHE --annotations FILE --output FOLDER

A student is trained on ten random videos of the training subset. Ten more come from the rest: at
random, as `suggest` chooses them, by uncertainty or by diversity alone; a student is trained on
each twenty. Printed is the frame mAP on the testing subset: mean and standard error over seeds, and
of the difference to random in the same seed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from vidkd.annotations import Annotations, load_annotations
from vidkd.annotations.activitynet import write_annotations
from vidkd.detection.detector import FeatureDetector
from vidkd.detection.predict import predict_runs
from vidkd.detection.suggestion import choose, uncertainty
from vidkd.distillation import train
from vidkd.evaluation import evaluate
from vidkd.recipe.jobs import TrainingJob

WAYS = ("random", "suggest", "uncertainty", "diversity")


def trained(options: argparse.Namespace, truth: Annotations, names: list[str], run: str) -> Path:
    """Train on some of the training videos and return the run."""
    path = options.output / f"{run}.json"
    options.output.mkdir(parents=True, exist_ok=True)
    keep = {k: v for k, v in truth.videos.items() if v.subset != "training" or k in names}
    write_annotations(path, replace(truth, videos=keep))
    job = TrainingJob(
        output=options.output / run,
        cache=options.cache,
        annotations=path,
        filter={"channels": options.channels},
        optimiser={"epochs": options.epochs},
        overwrite=True,
    )
    return train(job).output


def chosen(way: str, rest: list[str], found: dict, start: list[str], count: int, seed: int) -> list:
    """Return the names of the videos to add."""
    if way == "random":
        return list(np.random.default_rng(1000 + seed).permutation(rest)[:count])
    unsure = [uncertainty(found[name]) for name in rest]
    if way == "uncertainty":
        return [rest[n] for n in np.argsort(unsure)[::-1][:count]]
    means = np.stack([found[name].feature_mean for name in rest])
    known = np.stack([found[name].feature_mean for name in start])
    weights = unsure if way == "suggest" else [1.0] * len(rest)
    return [rest[item.number] for item in choose(weights, means, known, count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--channels", type=int, default=64)
    options = parser.parse_args()
    truth = load_annotations(options.annotations)
    testing = truth.subset("testing")
    names = list(truth.subset("training").videos)
    table: dict[str, list[float]] = {way: [] for way in ("start", *WAYS)}

    def score(run: Path) -> float:
        dense = predict_runs([run], options.cache, testing.videos)
        return 100 * float(evaluate(dense, testing, "frame").to_json()["map"])

    for seed in range(options.seeds):
        order = np.random.default_rng(seed).permutation(names).tolist()
        start, rest = order[: options.count], order[options.count :]
        run = trained(options, truth, start, f"start{seed}")
        table["start"].append(score(run))
        detector = FeatureDetector(run)
        index = detector.scorer.stream.files(options.cache, detector.scorer.header.encoder)
        found = {name: detector(index.find(name)) for name in names}
        for way in WAYS:
            more = chosen(way, rest, found, start, options.count, seed)
            run = trained(options, truth, start + more, f"{way}{seed}")
            table[way].append(score(run))
        print(
            seed,
            json.dumps({way: round(values[-1], 1) for way, values in table.items()}),
            flush=True,
        )
    for way, values in table.items():
        gain = np.array(values) - np.array(table["random"])
        print(f"{way:12} {shown(np.array(values))}   against random {shown(gain)}")


def shown(values: np.ndarray) -> str:
    """Return mean and standard error."""
    return f"{values.mean():.1f} ± {values.std(ddof=1) / len(values) ** 0.5:.1f}"


if __name__ == "__main__":
    main()
