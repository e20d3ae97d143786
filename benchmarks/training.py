"""Time training on a feature set of the size of Charades, against a plain loop over .npy files.

    python benchmarks/training.py [--videos 800] [--rounds 5] [--folder DIR]

Both sides train the same network with the same loss, optimiser and batch size. *Plain* is what
public code for these data sets does: a Dataset that loads one .npy file per item, a DataLoader with
worker processes, padding to the longest video of the batch. In every round each side starts anew,
takes a few steps to get going and is then timed; 1.0 is the network alone, on batches that are
already in memory. On a busy machine the processor time says more than the time: it is that of all
threads and worker processes. *Supply* is how many batches a second a side delivers when no network
takes them. *Cold* sides read from the disk: what the system had cached of their files is dropped
before.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import training_set
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vidkd.distillation import train
from vidkd.distillation.batches import Batch
from vidkd.distillation.data import TrainingData, VideoFeatures, read_rows
from vidkd.distillation.losses import classification_loss
from vidkd.distillation.training import FilterTraining
from vidkd.evaluation import DenseScores, evaluate
from vidkd.machine import cores
from vidkd.networks import TemporalFilter, build_temporal_filter
from vidkd.recipe import FilterSettings
from vidkd.recipe.jobs import TrainingJob
from vidkd.training.loop import RunFolder

BATCH = 16
Batches = Callable[[], Iterator[Any]]


class PlainSet(Dataset[tuple[Tensor, Tensor]]):
    """One .npy file and its labels per item."""

    def __init__(self, folder: Path, videos: list[VideoFeatures]) -> None:
        self.items = [(folder / f"{item.id}.npy", item.targets) for item in videos]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        path, targets = self.items[number]
        assert targets is not None
        return torch.from_numpy(np.load(path).astype(np.float32)), targets.float()


def collate(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Pad to the longest: inputs (B, T, D), mask (B, T), targets (B, T, K)."""
    steps = max(len(rows) for rows, _ in items)
    inputs = torch.zeros(len(items), steps, items[0][0].shape[1])
    targets = torch.zeros(len(items), steps, items[0][1].shape[1])
    mask = torch.zeros(len(items), steps, dtype=torch.bool)
    for number, (rows, labels) in enumerate(items):
        inputs[number, : len(rows)] = rows
        targets[number, : len(rows)] = labels
        mask[number, : len(rows)] = True
    return inputs, mask, targets


class Plain:
    """The plain loop: loader, network and optimiser."""

    def __init__(self, folder: Path, data: TrainingData, workers: int) -> None:
        self.data = data
        self.files = [folder / "npy" / f"{item.id}.npy" for item in data.training]
        self.loader = DataLoader(
            PlainSet(folder / "npy", data.training),
            batch_size=BATCH,
            shuffle=True,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=data.device.type == "cuda",
        )
        network = build_temporal_filter(
            FilterSettings(), data.stream.width, len(data.annotations.classes)
        )
        self.model: TemporalFilter = network.to(data.device)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)

    def step(self, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        inputs, mask, targets = (item.to(self.data.device, non_blocking=True) for item in batch)
        loss = classification_loss(self.model(inputs, mask).logits, targets, mask)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()

    @torch.no_grad()
    def validate(self, folder: Path) -> float:
        """Score the validation videos, and sort all scores of each class for its AP."""
        loader = DataLoader(
            PlainSet(folder / "npy", self.data.validation), BATCH, collate_fn=collate
        )
        self.model.eval()
        scores, labels = [], []
        for inputs, mask, targets in loader:
            probabilities = self.model(inputs.to(self.data.device), mask.to(self.data.device))
            scores.append(probabilities.logits.sigmoid().cpu()[mask])
            labels.append(targets[mask] > 0)
        self.model.train()
        ranked, truth = torch.cat(scores), torch.cat(labels)
        found = []
        for number in range(truth.shape[1]):
            order = torch.argsort(ranked[:, number], descending=True, stable=True)
            hits = truth[order, number].double()
            precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
            if hits.any():
                found.append(float((precision * hits).sum() / hits.sum()))
        return statistics.mean(found)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(
    batches: Batches, step: Callable[[Any], object] | None, options: argparse.Namespace, device: Any
) -> dict[str, float]:
    """Return seconds per batch, those spent waiting for it, and of processor time in all."""
    before = children_time()
    iterator = batches()
    for batch in islice(iterator, options.warmup):
        if step is not None:
            step(batch)
    synchronise(device)
    waited = 0.0
    start, used = time.perf_counter(), time.process_time()
    for _ in range(options.steps):
        asked = time.perf_counter()
        batch = next(iterator)
        waited += time.perf_counter() - asked
        if step is not None:
            step(batch)
    synchronise(device)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    if isinstance(iterator, Generator):
        iterator.close()
    del iterator
    # The worker processes of a loader are counted when they have ended, with all they made.
    made = options.warmup + options.steps + 2 * options.workers
    children = (children_time() - before) / made
    return {
        "seconds": seconds / options.steps,
        "waited": waited / options.steps,
        "processor": used / options.steps + children,
    }


def children_time() -> float:
    """Return the processor seconds of the child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def forget_scratch(run: FilterTraining) -> None:
    """Take the run's scratch file out of the page cache."""
    file = run.training.features.file
    assert file is not None
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def job(options: argparse.Namespace, name: str, **fields: Any) -> TrainingJob:
    return TrainingJob.model_validate(
        {
            "output": options.folder / "runs" / name,
            "cache": options.folder / "cache",
            "annotations": options.folder / "annotations.json",
            "device": options.device,
            "optimiser": {"epochs": 1, "batch_size": BATCH},
            "overwrite": True,
            **fields,
        }
    )


def open_run(
    options: argparse.Namespace, name: str, report: dict[str, Any], **fields: Any
) -> FilterTraining:
    """Open a run as ``vidkd.distillation.train`` does, and note the processor time."""
    made = job(options, name, **fields)
    start = time.process_time()
    data = TrainingData.load(made)
    looked = time.process_time()
    shutil.rmtree(made.output, ignore_errors=True)
    made.output.mkdir(parents=True)
    run = FilterTraining(made, data, RunFolder(made.output))
    run.model.train()
    report[f"open, {name}"] = {
        "align s": looked - start,
        "read s": time.process_time() - looked,
    }
    return run


def epoch_of(run: FilterTraining) -> Batches:
    counter = iter(range(1_000_000))
    return lambda: run.training.epoch(np.random.default_rng(next(counter)))


def from_cache_files(run: FilterTraining) -> Iterator[list[Tensor]]:
    """Open the 16 cache files of each step, as a loader without storage would have to."""
    order = np.random.default_rng(0).permutation(len(run.data.training))
    for start in range(0, len(order), BATCH):
        yield [read_rows(run.data.training[n], 0) for n in order[start : start + BATCH]]


def in_memory(batches: list[Batch]) -> Batches:
    return lambda: (batches[number % len(batches)] for number in range(1_000_000))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    report: dict[str, Any] = {}
    kept = open_run(options, "memory", report, memory=1000)
    scratch = open_run(options, "scratch file", report, memory=0)
    plain = Plain(options.folder, kept.data, options.workers)
    device = kept.data.device
    ready = list(islice(kept.training.epoch(np.random.default_rng(0)), options.steps))
    loader = f"plain, {options.workers} workers"
    sides: dict[str, tuple[Batches, Callable[[Any], object], Callable[[], None] | None]] = {
        "network alone": (in_memory(ready), kept.step, None),
        "memory": (epoch_of(kept), kept.step, None),
        "scratch file": (epoch_of(scratch), scratch.step, None),
        loader: (lambda: iter(plain.loader), plain.step, None),
        "scratch file, cold": (
            epoch_of(scratch),
            scratch.step,
            lambda: forget_scratch(scratch),
        ),
        f"{loader}, cold": (
            lambda: iter(plain.loader),
            plain.step,
            lambda: training_set.forget(plain.files),
        ),
    }
    if options.distill:
        teacher = job(
            options, "teacher", modality="flow", subsets={"training": "validation"}
        ).model_copy(update={"overwrite": False})
        train(teacher)
        student = open_run(options, "distil", report, memory=1000, teachers=(teacher.output,))
        some = list(islice(student.training.epoch(np.random.default_rng(0)), options.steps))
        sides["network alone, distil"] = (in_memory(some), student.step, None)
        sides["memory, distil"] = (epoch_of(student), student.step, None)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for turn in range(options.rounds):
        names = list(sides) if turn % 2 == 0 else list(reversed(sides))
        for name in names:
            batches, step, forget = sides[name]
            if forget is not None:
                forget()
            row = timed(batches, step, options, device)
            if "network" not in name:
                if forget is not None:
                    forget()
                row["supply"] = 1 / timed(batches, None, options, device)["seconds"]
            rows[name].append(row)
    report["rounds"] = rows
    opened = timed(lambda: from_cache_files(kept), None, options, device)
    report["cache files, supply"] = 1 / opened["seconds"]
    report["validation s"] = validation(options, kept, plain)
    return report


def validation(
    options: argparse.Namespace, run: FilterTraining, plain: Plain
) -> dict[str, list[float]]:
    """Time validation on the processor: ours, the plain one, and the protocol's own function."""
    run.model.eval()
    found: dict[str, list[float]] = {"ours": [], "plain": [], "the protocol alone": []}
    annotations = run.data.annotations.subset("validation")
    for _ in range(min(2, options.rounds)):
        start = time.process_time()
        result = run.validator(run.model)
        found["ours"].append(time.process_time() - start)
        start = time.process_time()
        plain.validate(options.folder)
        found["plain"].append(time.process_time() - start)
        ends = np.cumsum([len(item) for item in run.data.validation])[:-1]
        parts = np.split(result.probabilities, ends)
        scores = DenseScores(
            annotations.classes,
            {
                item.id: (rows, item.pts)
                for item, rows in zip(run.data.validation, parts, strict=True)
            },
        )
        start = time.process_time()
        number = evaluate(scores, annotations, "frame").map
        found["the protocol alone"].append(time.process_time() - start)
        if number != result.frame_map:
            raise SystemExit(f"validation says {result.frame_map}, the protocol {number}")
    run.model.train()
    return found


def show(report: dict[str, Any]) -> None:
    rows = report["rounds"]
    heads = ("ms/step", "waiting", "of the limit (range)", "CPU ms", "of the limit", "supply/s")
    print(" " * 24 + "".join(f"{head:>{len(head) + 2}s}" for head in heads))
    for name, found in rows.items():
        limit = rows["network alone, distil" if "distil" in name else "network alone"]
        pairs = list(zip(limit, found, strict=True))
        wall = sorted(one["seconds"] / row["seconds"] for one, row in pairs)
        cpu = [one["processor"] / row["processor"] for one, row in pairs]
        middle = {
            key: statistics.median(row.get(key, np.nan) for row in found)
            for key in ("seconds", "waited", "processor", "supply")
        }
        cells = (
            f"{1000 * middle['seconds']:.1f}",
            f"{1000 * middle['waited']:.2f}",
            f"{statistics.median(wall):.2f} ({wall[0]:.2f} to {wall[-1]:.2f})",
            f"{1000 * middle['processor']:.1f}",
            f"{statistics.median(cpu):.2f}",
            f"{middle['supply']:.0f}",
        )
        padded = (f"{cell:>{len(head) + 2}s}" for cell, head in zip(cells, heads, strict=True))
        print(f"{name:24s}" + "".join(padded))
    print(f"opening 16 cache files for every batch instead: {report['cache files, supply']:.1f}/s")
    for name, value in report.items():
        if name.startswith("open, "):
            print(
                f"{name}: {value['align s']:.1f} s of CPU to align, {value['read s']:.1f} to read"
            )
    for name, seconds in report["validation s"].items():
        print(f"validation, {name}: {statistics.median(seconds):.2f} s of CPU (of {len(seconds)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--videos", type=int, default=800, help="training videos; Charades: 8000")
    parser.add_argument("--validation", type=int, default=None, help="default: as in Charades")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30, help="timed in each round, of each side")
    parser.add_argument("--warmup", type=int, default=6, help="steps before them")
    parser.add_argument("--workers", type=int, default=cores(), help="of the plain loader")
    parser.add_argument("--threads", type=int, default=cores(), help="of the network")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--distill", action="store_true", help="time a student with a teacher too")
    parser.add_argument("--folder", type=Path, help="keep the set there; default: a temporary one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.validation is None:
        options.validation = max(BATCH, options.videos * 1863 // 7985)
    if BATCH * (options.steps + options.warmup) > options.videos:
        parser.error("an epoch has fewer steps than are timed; give more --videos")
    with tempfile.TemporaryDirectory() as temporary:
        options.folder = options.folder or Path(temporary)
        training_set.make(options.folder, options.videos, options.validation)
        report = measure(options)
    if options.json:
        print(json.dumps(report))
    else:
        show(report)


if __name__ == "__main__":
    main()
