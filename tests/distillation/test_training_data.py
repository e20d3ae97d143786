"""Cached features and annotations as training sequences."""

import json

import artificial
import numpy as np
import pytest
import torch

from vidkd.annotations import load_annotations
from vidkd.cache import CacheFile, cache_files
from vidkd.distillation.data import (
    find_stream,
    fingerprint,
    load_sequences,
    load_unlabelled,
)
from vidkd.distillation.storage import MemoryBudget, feature_rows
from vidkd.errors import CacheError, UsageError


def streams_of(folder):
    return [find_stream(folder / "cache", modality) for modality in ("rgb", "flow")]


def training_of(folder):
    return load_annotations(folder / "annotations.json").subset("training")


def test_the_only_encoder_of_a_modality_is_found(data):
    stream = find_stream(data / "cache", "flow")
    assert stream.encoder == "artificial-flow"
    assert stream.width == 16
    assert stream.weights_sha256 == "1" * 64
    assert stream.frames.short_side == 64
    assert stream.snippet.stride == 16
    assert stream.crop == 64


def test_choosing_an_encoder_is_asked_for(own_data):
    rows = np.zeros((5, 3), np.float32)
    artificial.write_features(own_data / "cache", "x", "rgb", rows, encoder="other")
    with pytest.raises(UsageError, match="artificial-rgb, other"):
        find_stream(own_data / "cache", "rgb")
    assert find_stream(own_data / "cache", "rgb", "other").width == 3


def test_absent_streams_are_named(data, tmp_path):
    with pytest.raises(UsageError, match="no pose features"):
        find_stream(data / "cache", "pose")
    with pytest.raises(UsageError, match="no rgb features"):
        find_stream(tmp_path, "rgb")
    with pytest.raises(UsageError, match="'unknown'"):
        find_stream(data / "cache", "rgb", "unknown")
    with pytest.raises(CacheError, match="of flow, not of rgb"):
        find_stream(data / "cache", "rgb", "artificial-flow")


def test_sequences_hold_what_was_written(data):
    streams = streams_of(data)
    sequences = load_sequences(streams, training_of(data))
    database = json.loads((data / "annotations.json").read_text())["database"]
    assert [item.id for item in sequences] == [f"training-{number}" for number in range(8)]
    for item in sequences:
        with CacheFile(item.paths[0]) as file:
            rows, pts = file.rows(), file.pts
        np.testing.assert_array_equal(item.pts, pts)
        assert len(item) == len(rows)
        # Segments of the artificial data begin and end with snippets.
        expected = np.zeros((len(rows), 4))
        for entry in database[item.id]["annotations"]:
            first, last = (round(t / artificial.SECONDS) for t in entry["segment"])
            expected[first:last, int(entry["label"].removeprefix("class "))] = 1
        np.testing.assert_array_equal(item.targets.numpy(), expected)
        assert item.labels == frozenset(np.flatnonzero(expected.any(axis=0)).tolist())


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_features_are_the_same_from_memory_and_from_disk(data, tmp_path, limit):
    streams = streams_of(data)
    sequences = load_sequences(streams, training_of(data))
    features = feature_rows(sequences, streams[1].width, MemoryBudget(limit), tmp_path, 1)
    assert features.in_memory == (limit > 0)
    for number, item in enumerate(sequences):
        with CacheFile(item.paths[1]) as file:
            expected = torch.from_numpy(file.rows())
        assert torch.equal(features.read(number), expected)
        assert torch.equal(features.read(number, slice(2, 5)), expected[2:5])
        assert torch.equal(features.read(number, slice(2, 500)), expected[2:])
    assert not list(tmp_path.iterdir())  # The scratch file has no name that could be left behind.


def test_videos_are_found_in_folders(own_data):
    folder = own_data / "cache" / "features" / "artificial-rgb"
    (folder / "a").mkdir()
    (folder / "training-0.h5").rename(folder / "a" / "training-0.h5")
    index = cache_files(own_data / "cache", "features", "artificial-rgb")
    assert index.key("training-0") == "a/training-0"
    assert index.key("a/training-0") == "a/training-0"
    assert index.key("training-1") == "training-1"
    assert index.key("nothing") is None
    (folder / "b").mkdir()
    (folder / "b" / "training-0.h5").write_bytes((folder / "a" / "training-0.h5").read_bytes())
    with pytest.raises(UsageError, match=r"a/training-0, b/training-0"):
        cache_files(own_data / "cache", "features", "artificial-rgb").key("training-0")


def test_missing_features_are_named_or_skipped(own_data, capsys):
    (own_data / "cache" / "features" / "artificial-flow" / "training-3.h5").unlink()
    streams, annotations = streams_of(own_data), training_of(own_data)
    with pytest.raises(CacheError, match=r"training-3 \(artificial-flow\).*--skip-missing"):
        load_sequences(streams, annotations)
    found = load_sequences(streams, annotations, skip_missing=True)
    assert len(found) == 7
    assert "training-3" in capsys.readouterr().err


def change(folder, modality, edit):
    """Write the features of training-2 again, changed by ``edit(rows, pts)``."""
    path = folder / "cache" / "features" / f"artificial-{modality}" / "training-2.h5"
    with CacheFile(path) as file:
        rows, pts = edit(file.rows(), file.pts)
    return artificial.write_features(folder / "cache", "training-2", modality, rows, pts=pts)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda rows, pts: (rows[:-1], pts[:-1]), "snippets, but"),
        (lambda rows, pts: (rows, pts + 0.04), "at other times"),
    ],
)
def test_streams_that_do_not_match_are_refused(own_data, edit, message):
    path = change(own_data, "flow", edit)
    with pytest.raises(CacheError, match=message) as error:
        load_sequences(streams_of(own_data), training_of(own_data))
    assert error.value.path == str(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop": 32}, r"crop is 32 \(asked for: 64\)"),
        ({"weights": "2"}, "weights_sha256"),
    ],
)
def test_mixed_caches_are_refused(own_data, fields, message):
    with CacheFile(own_data / "cache/features/artificial-rgb/training-2.h5") as file:
        rows = file.rows()
    path = artificial.write_features(own_data / "cache", "training-2", "rgb", rows, **fields)
    with pytest.raises(CacheError, match=message) as error:
        load_sequences(streams_of(own_data)[:1], training_of(own_data))
    assert error.value.path == str(path)


def test_numbers_that_are_not_finite_are_refused(own_data):
    def spoil(rows, pts):
        rows[3, 5] = np.nan
        return rows, pts

    path = change(own_data, "rgb", spoil)
    streams = streams_of(own_data)
    sequences = load_sequences(streams, training_of(own_data))
    with pytest.raises(CacheError, match="not finite") as error:
        feature_rows(sequences, streams[0].width, MemoryBudget(0), own_data)
    assert error.value.path == str(path)


def test_a_truncated_file_is_named(own_data):
    path = own_data / "cache" / "features" / "artificial-rgb" / "training-5.h5"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(CacheError, match=r"training-5\.h5"):
        load_sequences(streams_of(own_data), training_of(own_data))


def test_unlabelled_videos_are_those_no_subset_names(own_data):
    rows = np.random.default_rng(0).normal(size=(6, 16)).astype(np.float32)
    for name, modalities in (("extra", ("rgb", "flow")), ("half", ("rgb",))):
        for modality in modalities:
            artificial.write_features(own_data / "cache", name, modality, rows)
    found = load_unlabelled(streams_of(own_data), load_annotations(own_data / "annotations.json"))
    assert [item.id for item in found] == ["extra"]  # "half" has no flow
    assert found[0].targets is None
    assert len(found[0]) == 6


def test_the_fingerprint_sees_features_and_labels(own_data):
    def current():
        return fingerprint(load_sequences(streams_of(own_data), training_of(own_data)))

    first = current()
    assert current() == first
    change(own_data, "rgb", lambda rows, pts: (rows + 1, pts))
    second = current()
    assert second != first
    path = own_data / "annotations.json"
    content = json.loads(path.read_text())
    content["database"]["training-0"]["annotations"].pop()
    path.write_text(json.dumps(content))
    assert current() != second
