"""Features that exist already, brought into the cache and used from there."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from vidkd.annotations import load_annotations
from vidkd.cache import CacheFile, verify
from vidkd.errors import CacheError, UsageError
from vidkd.features.importing import (
    find_feature_files,
    import_features,
    import_file,
    read_features,
    width_problem,
)
from vidkd.recipe.inputs import ImportSettings

SETTINGS = ImportSettings(encoder="my-i3d", modality="rgb", stride=16, length=16, frame_rate=24)
RANDOM = np.random.default_rng(3)


def save(path: Path, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = RANDOM.normal(size=shape).astype(dtype)
    np.save(path, data)
    return data


@pytest.mark.parametrize("shape", [(5, 6), (5, 1, 1, 6), (1, 1, 1, 6), (1, 6)])
def test_rows_arrive_unchanged_with_times_and_provenance(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    data = save(tmp_path / "in/v1.npy", shape)
    target = tmp_path / "cache/features/my-i3d/v1.h5"
    assert import_file(tmp_path / "in/v1.npy", target, SETTINGS) == (shape[0], False)
    assert verify(target) == []
    with CacheFile(target) as file:
        np.testing.assert_array_equal(file.rows(), data.reshape(shape[0], 6))
        starts = np.arange(shape[0]) * 16 / 24
        np.testing.assert_allclose(file.pts, np.stack([starts, starts + 16 / 24], 1), atol=1e-12)
        found = file.provenance
    assert (found.source.name, found.source.frame_rate) == ("v1.npy", Fraction(24))
    assert found.source.frame_count == 16 * shape[0]
    assert found.settings["imported"] is True
    assert found.settings["snippet"] == {"length": 16, "stride": 16}
    assert found.settings["frames"] == {"frame_rate": 24}
    assert import_file(tmp_path / "in/v1.npy", target, SETTINGS) == (shape[0], True)


def test_overlapping_windows_and_broadcast_rates(tmp_path: Path) -> None:
    save(tmp_path / "v1.npy", (3, 4))
    settings = ImportSettings(encoder="x", modality="flow", stride=4, length=16, frame_rate=29.97)
    import_file(tmp_path / "v1.npy", tmp_path / "v1.h5", settings)
    with CacheFile(tmp_path / "v1.h5") as file:
        assert file.provenance.source.frame_rate == Fraction(30000, 1001)
        assert file.provenance.source.frame_count == 24
        np.testing.assert_allclose(file.pts[-1], [8 * 1001 / 30000, 24 * 1001 / 30000])


def test_another_file_or_setting_is_refused_until_overwritten(tmp_path: Path) -> None:
    save(tmp_path / "v1.npy", (3, 4))
    target = tmp_path / "v1.h5"
    import_file(tmp_path / "v1.npy", target, SETTINGS)
    other = ImportSettings(encoder="my-i3d", modality="rgb", stride=8, length=16, frame_rate=24)
    with pytest.raises(CacheError, match=r"snippet.stride is 16 \(asked for: 8\)"):
        import_file(tmp_path / "v1.npy", target, other)
    save(tmp_path / "v1.npy", (2, 4))
    with pytest.raises(CacheError, match="is stale"):
        import_file(tmp_path / "v1.npy", target, SETTINGS)
    assert import_file(tmp_path / "v1.npy", target, SETTINGS, overwrite=True) == (2, False)


def test_transposed(tmp_path: Path) -> None:
    data = save(tmp_path / "v1.npy", (6, 5))
    np.testing.assert_array_equal(read_features(tmp_path / "v1.npy", transposed=True), data.T)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (0, 4), (3, 2, 1, 4), ()])
def test_other_shapes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "v.npy", np.zeros(shape))
    with pytest.raises(CacheError, match=r"v\.npy: (has the shape|cannot be read)"):
        read_features(tmp_path / "v.npy")


def test_nothing_in_a_file_is_executed_or_believed(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CacheError, match="Python objects"):
        read_features(path)
    save(path, (5, 6))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CacheError, match="cannot be read"):
        read_features(path)
    path.write_bytes(b"")
    with pytest.raises(CacheError, match="cannot be read"):
        read_features(path)
    np.save(path, np.array([["a", "b"]]))
    with pytest.raises(CacheError, match="real numbers"):
        read_features(path)
    with path.open("wb") as stream:
        np.savez(stream, a=np.zeros((2, 3)))
    with pytest.raises(CacheError, match="does not hold real numbers"):
        read_features(path)


def test_numbers_that_do_not_fit(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.full((2, 3), 1e6, dtype="float32"))
    half = SETTINGS.model_copy(update={"dtype": "float16"})
    with pytest.raises(CacheError, match="not finite in float16"):
        import_file(tmp_path / "v.npy", tmp_path / "v.h5", half)
    assert not (tmp_path / "v.h5").exists()


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    named = SETTINGS.model_copy(update={"encoder": "i3d-rgb-kinetics400"})
    with pytest.raises(UsageError, match="is a network of vidkd"):
        import_features({}, tmp_path, named)
    for wrong in ("frame_rate", "length", "stride"):
        with pytest.raises(ValidationError, match=wrong):
            ImportSettings.model_validate({**SETTINGS.model_dump(), wrong: 0})


def test_files_are_chosen_by_the_annotations(tmp_path: Path) -> None:
    for name in ("a/v1_rgb", "a/v2_rgb", "a/v3_flow", "v4_rgb"):
        save(tmp_path / f"{name}.npy", (2, 3))
    found, missing = find_feature_files(tmp_path, "_rgb")
    assert list(found) == ["a/v1", "a/v2", "v4"]
    assert missing == []
    entry = {"subset": "training", "annotations": []}
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"database": {"v1": entry, "V4": entry, "v9": entry}}))
    found, missing = find_feature_files(tmp_path, "_rgb", load_annotations(truth))
    assert list(found) == ["a/v1"]
    assert missing == ["V4; there is 'v4': make the two names the same", "v9"]
    with pytest.raises(UsageError, match=r"holds no file NAME_pose\.npy"):
        find_feature_files(tmp_path, "_pose")


def test_one_failure_does_not_stop_the_others(tmp_path: Path) -> None:
    save(tmp_path / "v1.npy", (7, 3))
    (tmp_path / "v2.npy").write_bytes(b"broken")
    save(tmp_path / "v3.npy", (9, 4))
    files, _ = find_feature_files(tmp_path)
    results = import_features(files, tmp_path / "cache", SETTINGS)
    assert [item.status for item in results] == ["done", "failed", "done"]
    assert "v2.npy" in results[1].reason
    # The widths 3 and 4 are what (D, T) files look like when they are taken for (T, D).
    assert "--transposed" in (width_problem(results) or "")
    assert width_problem(results[:2]) is None
