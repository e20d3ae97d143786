"""Further datasets beside the rows: stored, read back, and part of what is verified."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest

from vidkd.cache import CacheFile, CacheWriter, Provenance, Source, verify
from vidkd.errors import CacheError

PROVENANCE = Provenance(
    artefact="pose", source=Source("walk.mp4", 1, "ab" * 32, Fraction(25)), settings={}
)


def write(path: Path, count: int = 9000) -> np.ndarray:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(count, 2, 3)).astype(np.float32)
    rows[0] = np.nan
    tracks = generator.integers(-1, 9, (count, 2))
    starts = np.arange(count) / 25
    with CacheWriter(path, PROVENANCE, (2, 3), "float32", {"tracks": ((2,), "int32")}) as writer:
        for begin in range(0, count, 1000):
            part = slice(begin, begin + 1000)
            pts = np.stack([starts[part], starts[part] + 0.04], axis=1)
            writer.append(rows[part], pts, {"tracks": tracks[part]})
    return tracks


def test_what_is_written_is_read_back_and_sound(tmp_path: Path) -> None:
    tracks = write(tmp_path / "walk.h5")
    with CacheFile(tmp_path / "walk.h5") as file:
        assert file.more_names == ["tracks"]
        assert file.more("tracks").dtype == np.int32
        np.testing.assert_array_equal(file.more("tracks"), tracks)
        with pytest.raises(CacheError, match="lacks the dataset 'boxes'"):
            file.more("boxes")
    assert verify(tmp_path / "walk.h5") == []


@pytest.mark.parametrize("change", ["value", "removed", "added", "renamed", "shortened"])
def test_every_change_is_noticed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "walk.h5"
    tracks = write(path)
    with h5py.File(path, "r+") as file:
        if change == "value":
            file["tracks"][4500, 1] += 1
        elif change == "added":
            file.create_dataset("boxes", data=tracks, chunks=(4096, 2))
        elif change == "renamed":
            file.move("tracks", "traces")
        else:
            del file["tracks"]
            if change == "shortened":
                file.create_dataset("tracks", data=tracks[1:].astype(np.int32), chunks=(4096, 2))
    assert verify(path)


@pytest.mark.parametrize("more", [None, {"tracks": [[1, 2], [3, 4]]}, {"traces": [[1, 2]]}])
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, more: dict | None) -> None:
    path = tmp_path / "walk.h5"
    shapes = {"tracks": ((2,), "int32")}
    with (
        pytest.raises((ValueError, KeyError)),
        CacheWriter(path, PROVENANCE, (2, 3), "float32", shapes) as writer,
    ):
        writer.append(np.zeros((1, 2, 3)), [[0, 1]], more)
    assert list(tmp_path.iterdir()) == []
