"""Rows in memory and in the scratch file, and batches made by threads."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidkd.annotations import load_annotations
from vidkd.distillation.batches import TrainingSet
from vidkd.distillation.data import find_stream, load_sequences
from vidkd.distillation.storage import (
    MemoryBudget,
    RowStorage,
    available_memory,
    batches_ahead,
    feature_rows,
)
from vidkd.errors import VidkdError
from vidkd.recipe import DistillationSettings
from vidkd.recipe.training import OptimiserSettings


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    half=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_part_of_every_video_is_what_was_written(lengths, half, seed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    dtype = torch.float16 if half else torch.float32
    generator = torch.Generator().manual_seed(seed)
    videos = [torch.randn(n, 5, generator=generator).to(dtype) for n in lengths]
    for limit in (0, 1 << 20):
        storage = RowStorage(lengths, 5, dtype, MemoryBudget(limit), folder)
        assert storage.in_memory == (limit > 0)
        for number in torch.randperm(len(videos), generator=generator).tolist():
            storage.write(number, videos[number])
        for number, rows in enumerate(videos):
            for part in (slice(None), slice(1, 4), slice(0, 100), slice(3, 3), slice(8, 20)):
                found = storage.read(number, part)
                assert found.dtype == dtype
                assert torch.equal(found, rows[part])
    assert not list(folder.iterdir())


def test_many_threads_read_the_scratch_file_at_once(tmp_path):
    videos = [torch.full((50, 64), float(n)) for n in range(40)]
    storage = RowStorage([50] * 40, 64, torch.float32, MemoryBudget(0), tmp_path)
    for number, rows in enumerate(videos):
        storage.write(number, rows)
    order = np.random.default_rng(0).integers(0, 40, 400).tolist()
    with ThreadPoolExecutor(8) as pool:
        for number, rows in zip(order, pool.map(storage.read, order), strict=True):
            assert torch.equal(rows, videos[number])


def test_the_budget_is_shared_in_the_order_of_asking(tmp_path):
    budget = MemoryBudget(100)
    sizes = (60, 60, 40, 1)
    assert [budget.take(size) for size in sizes] == [True, False, True, False]
    assert 0 < MemoryBudget().left < available_memory()


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    storage = RowStorage([4], 3, torch.float32, MemoryBudget(0), tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(VidkdError, match=r"No space left.*--memory"):
        storage.write(0, torch.zeros(4, 3))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(VidkdError, match="nowhere"):
        RowStorage([4], 3, torch.float32, MemoryBudget(0), tmp_path / "nowhere")


def test_few_large_batches_wait():
    assert batches_ahead(1 << 10) == 8
    assert batches_ahead(64 << 20) == 4
    assert batches_ahead(1 << 40) == 2


def same(one, other):
    """Compare two batches field by field, tensors bit by bit."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "__dict__"):
        return same(tuple(vars(one).values()), tuple(vars(other).values()))
    return one == other


@pytest.mark.parametrize("longest", [None, 8])
def test_batches_do_not_depend_on_budget_or_threads(data, tmp_path, longest):
    stream = find_stream(data / "cache", "rgb")
    annotations = load_annotations(data / "annotations.json").subset("training")
    sequences = load_sequences([stream], annotations)

    def epoch(limit, readers):
        features = feature_rows(sequences, stream.width, MemoryBudget(limit), tmp_path)
        batches = TrainingSet(
            sequences,
            features,
            [],
            4,
            OptimiserSettings(batch_size=3, max_snippets=longest),
            DistillationSettings(),
            torch.device("cpu"),
            readers,
        )
        rng = np.random.default_rng(5)
        return list(batches.epoch(rng)), rng.integers(1 << 60)

    expected, after = epoch(1 << 30, 1)
    assert len(expected) == 3
    assert all(batch.inputs.dtype == torch.float32 for batch in expected)
    for limit, readers in ((0, 1), (0, 4), (1 << 30, 3)):
        found, drawn = epoch(limit, readers)
        assert drawn == after
        assert all(map(same, found, expected))
        assert len(found) == len(expected)
