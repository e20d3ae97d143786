"""One cache file: what is written is read back, and damage is noticed."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest

import vidkd.cache.writer
from vidkd.cache import (
    CacheFile,
    CacheWriter,
    Provenance,
    Source,
    cache_path,
    differences,
    library_versions,
    state,
    verify,
)
from vidkd.errors import CacheError, UsageError, VidkdError

PROVENANCE = Provenance(
    artefact="flow",
    source=Source("walk.mp4", 1234, "ab" * 32, Fraction(30000, 1001)),
    settings={"frames": {"short_side": 64, "frame_rate": None}, "flow": {"bound": 20.0}},
    versions=library_versions("h5py"),
)


def rows_and_pts(count: int, shape: tuple[int, ...] = (16, 20, 2)) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(count)
    starts = np.arange(count) * 1001 / 30000
    rows = generator.integers(0, 255, (count, *shape), dtype=np.uint8)
    return rows, np.stack([starts, starts + 1001 / 30000], axis=1)


def write(path: Path, count: int = 700, provenance: Provenance = PROVENANCE) -> Path:
    rows, pts = rows_and_pts(count)
    with CacheWriter(path, provenance, rows.shape[1:], "uint8") as writer:
        for start in range(0, count, 37):
            writer.append(rows[start : start + 37], pts[start : start + 37])
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("good") / "flow" / "walk.h5")


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("count", [1, 5, 700])
def test_what_is_written_is_read_back(tmp_path: Path, dtype: str, count: int) -> None:
    rows, pts = rows_and_pts(count)
    rows = rows.astype(dtype)
    path = tmp_path / "a" / "b.c.h5"
    with CacheWriter(path, PROVENANCE, rows.shape[1:], dtype) as writer:
        for start in range(0, count, 3):
            writer.append(rows[start : start + 3], pts[start : start + 3])
        writer.frame_count = 12345
    with CacheFile(path) as file:
        assert len(file) == count
        assert file.data.dtype == dtype
        np.testing.assert_array_equal(file.rows(), rows)
        np.testing.assert_array_equal(np.concatenate(list(file.blocks())), rows)
        np.testing.assert_array_equal(file.pts, pts)
        source = dataclasses.replace(PROVENANCE.source, frame_count=12345)
        assert file.provenance == dataclasses.replace(PROVENANCE, source=source)
    assert [item.name for item in path.parent.iterdir()] == ["b.c.h5"]


def test_plain_hdf5_shows_the_documented_layout(good: Path) -> None:
    with h5py.File(good) as file:
        assert set(file) == {"data", "pts"}
        attributes = dict(file.attrs)
        data, pts = file["data"][:], file["pts"][:]
        assert file["data"].fletcher32
        assert file["pts"].fletcher32
    assert attributes["schema_version"] == 1
    assert attributes["frame_rate"] == "30000/1001"
    assert attributes["frame_count"] == 700
    assert json.loads(attributes["settings"]) == PROVENANCE.settings
    # The hash is documented as that of data, pts and the provenance as sorted JSON.
    provenance = {
        "artefact": attributes["artefact"],
        "source": {
            "name": attributes["source_name"],
            "size": int(attributes["source_size"]),
            "sha256": attributes["source_sha256"],
            "frame_rate": attributes["frame_rate"],
            "frame_count": int(attributes["frame_count"]),
        },
        "settings": json.loads(attributes["settings"]),
        "encoder": None,
        "weights_sha256": None,
        "versions": json.loads(attributes["versions"]),
    }
    text = json.dumps(provenance, sort_keys=True).encode()
    digest = hashlib.sha256(data.tobytes() + pts.tobytes() + text).hexdigest()
    assert attributes["sha256"] == digest


def test_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.h5", 40), write(tmp_path / "b.h5", 40)
    assert first.read_bytes() == second.read_bytes()


def test_the_callers_buffer_may_be_used_again(tmp_path: Path) -> None:
    buffer, pts = np.zeros((1, 4), np.float32), np.zeros((1, 2))
    with CacheWriter(tmp_path / "a.h5", PROVENANCE, (4,), "float32") as writer:
        for number in range(5):
            buffer[:], pts[:] = number, number
            writer.append(buffer, pts)
    with CacheFile(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file.rows()[:, 0], np.arange(5))
        np.testing.assert_array_equal(file.pts[:, 0], np.arange(5))


def test_paths_follow_the_design() -> None:
    cache = Path("cache")
    assert cache_path(cache, "flow", "a/S1.front") == Path("cache/flow/a/S1.front.h5")
    assert cache_path(cache, "features", "x", "i3d") == Path("cache/features/i3d/x.h5")
    for artefact, key, encoder in [
        ("flow", "../x", None),
        ("flow", "/x", None),
        ("flow", "", None),
        ("sound", "x", None),
        ("features", "x", None),
        ("features", "x", "../i3d"),
    ]:
        with pytest.raises(UsageError):
            cache_path(cache, artefact, key, encoder)


def test_state_tells_fresh_stale_and_missing(good: Path, tmp_path: Path) -> None:
    assert state(tmp_path / "none.h5", PROVENANCE).kind == "missing"
    assert state(good, PROVENANCE) == ("fresh", "")
    newer = dataclasses.replace(PROVENANCE, versions={"h5py": "99"})
    assert state(good, newer).kind == "fresh"
    moved = dataclasses.replace(PROVENANCE.source, name="renamed.mp4")
    assert state(good, dataclasses.replace(PROVENANCE, source=moved)).kind == "fresh"

    settings = {"frames": {"short_side": 128, "frame_rate": None}, "flow": {"bound": 20.0}}
    found = state(good, dataclasses.replace(PROVENANCE, settings=settings))
    assert found == ("stale", "frames.short_side is 64 (asked for: 128)")
    other = dataclasses.replace(PROVENANCE.source, sha256="cd" * 32)
    found = state(good, dataclasses.replace(PROVENANCE, source=other))
    assert found == ("stale", "the video's content has changed")


def test_differences_name_each_setting_once() -> None:
    changed = dataclasses.replace(
        PROVENANCE,
        artefact="features",
        settings={"frames": {"short_side": 64}, "crop": 56},
        encoder="i3d",
        weights_sha256="ef" * 32,
    )
    assert differences(PROVENANCE, changed) == [
        "holds flow, not features",
        "crop is not recorded (asked for: 56)",
        "flow.bound is 20.0 (not asked for)",
        "frames.frame_rate is null (not asked for)",
        "encoder is None (asked for: i3d)",
    ]
    others = dataclasses.replace(changed, weights_sha256="00" * 32)
    assert differences(changed, others) == ["the weights of i3d were others"]


def test_an_error_inside_leaves_nothing(tmp_path: Path) -> None:
    rows, pts = rows_and_pts(5)
    with (  # noqa: PT012 - the error must come after a row
        pytest.raises(ZeroDivisionError),
        CacheWriter(tmp_path / "a.h5", PROVENANCE, rows.shape[1:], "uint8") as writer,
    ):
        writer.append(rows, pts)
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_no_rows_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(CacheError, match="not a single row"),
        CacheWriter(tmp_path / "a.h5", PROVENANCE, (4,), "uint8"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="do not fit"),
        CacheWriter(tmp_path / "a.h5", PROVENANCE, (4,), "uint8") as writer,
    ):
        writer.append(np.zeros((2, 5)), np.zeros((2, 2)))
    with (
        pytest.raises(ValueError, match="finite"),
        CacheWriter(tmp_path / "a.h5", PROVENANCE, (4,), "uint8") as writer,
    ):
        writer.append(np.zeros((1, 4)), [[0, np.nan]])


def test_an_old_file_survives_a_failed_rewrite(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(good.read_bytes())
    with (  # noqa: PT012 - the error must come after a row
        pytest.raises(KeyboardInterrupt),
        CacheWriter(path, PROVENANCE, (4,), "uint8") as writer,
    ):
        writer.append(np.zeros((1, 4)), [[0, 1]])
        raise KeyboardInterrupt
    assert path.read_bytes() == good.read_bytes()


@pytest.mark.parametrize("writes", [0, 1, 5, 9])
def test_a_full_disk_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    allowed = iter(range(writes))
    real = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if next(allowed, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, offset)

    monkeypatch.setattr(vidkd.cache.writer.os, "pwrite", full)
    with pytest.raises(VidkdError, match=r"No space left on device.*free some space") as caught:
        write(tmp_path / "flow" / "a.h5", 100)
    assert caught.value.path == str(tmp_path / "flow" / "a.h5")
    assert list((tmp_path / "flow").iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_really_full_disk_does_not_crash_the_process(tiny_disk: Path) -> None:
    # In a process of its own, because HDF5 used to crash it at its end.
    program = f"""
import numpy as np
from pathlib import Path
from fractions import Fraction
from vidkd.cache import *
p = Provenance("flow", Source("a", 1, "b", Fraction(25)), {{}})
rows = np.random.default_rng(0).integers(0, 255, (100, 64, 64, 2), dtype=np.uint8)
try:
    with CacheWriter(Path({str(tiny_disk / "a.h5")!r}), p, (64, 64, 2), "uint8") as writer:
        writer.append(rows, np.zeros((100, 2)))
except Exception as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0
    assert "No space left on device" in result.stdout
    assert result.stderr == ""
    assert list(tiny_disk.iterdir()) == []


@pytest.mark.parametrize("fraction", [0.0, 0.0005, 0.1, 0.5, 0.9, 0.999])
def test_a_cut_file_is_a_cache_error_everywhere(
    good: Path, tmp_path: Path, fraction: float
) -> None:
    content = good.read_bytes()
    path = tmp_path / "cut.h5"
    path.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(CacheError, match="--overwrite"):
        CacheFile(path)
    assert state(path, PROVENANCE).kind == "broken"
    assert verify(path) != []


@pytest.mark.parametrize(
    "content", [b"not HDF5 at all", b"\x89HDF\r\n\x1a\n" + bytes(500), b"\x89HDF\r\n\x1a\n" * 99]
)
def test_garbage_is_a_cache_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    with pytest.raises(CacheError):
        CacheFile(path)
    assert verify(path) != []


def test_missing_and_foreign_files_are_cache_errors(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="does not exist"):
        CacheFile(tmp_path / "none.h5")
    with pytest.raises(CacheError, match="cannot be read"):
        CacheFile(tmp_path)
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(CacheError, match="not a vidkd cache file"):
        CacheFile(tmp_path / "foreign.h5")


def test_a_flipped_bit_anywhere_is_noticed_or_harmless(good: Path, tmp_path: Path) -> None:
    content = bytearray(good.read_bytes())
    rows, pts = rows_and_pts(700)
    generator = np.random.default_rng(0)
    path = tmp_path / "flipped.h5"
    noticed = 0
    places = generator.integers(0, len(content), 150).tolist() + list(range(0, 1500, 19))
    for place in places:
        bit = 1 << int(generator.integers(8))
        content[place] ^= bit
        path.write_bytes(content)
        content[place] ^= bit
        if verify(path):
            noticed += 1
            continue
        with CacheFile(path) as file:  # a byte that holds nothing, such as padding
            np.testing.assert_array_equal(file.rows(), rows)
            np.testing.assert_array_equal(file.pts, pts)
            assert state(path, PROVENANCE).kind == "fresh"
    assert noticed > len(places) * 0.8


def test_reading_a_damaged_row_is_a_cache_error(good: Path, tmp_path: Path) -> None:
    with h5py.File(good) as file:
        chunk = file["data"].id.get_chunk_info(1)
    content = bytearray(good.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 4
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    with CacheFile(path) as file:
        first = file.rows(0, 10)
        with pytest.raises(CacheError, match="--overwrite"):
            list(file.blocks())
    np.testing.assert_array_equal(first, rows_and_pts(700)[0][:10])
    assert verify(path, deep=False) == []
    assert verify(path) != []


def test_a_huge_declared_shape_is_refused_without_allocating(good: Path, tmp_path: Path) -> None:
    for name, shape in [("data", (1 << 40, 16, 20, 2)), ("pts", (1 << 40, 2))]:
        path = tmp_path / f"{name}.h5"
        path.write_bytes(good.read_bytes())
        with h5py.File(path, "r+") as file:
            if name == "data":
                file["data"].resize(shape)
            else:
                del file["pts"]
                file.create_dataset("pts", shape, "float64", chunks=(1024, 2))
        with pytest.raises(CacheError):
            CacheFile(path)
        assert verify(path) != []
    path = tmp_path / "row.h5"
    path.write_bytes(good.read_bytes())
    with h5py.File(path, "r+") as file:
        del file["data"]
        file.create_dataset("data", (1, 1 << 16, 1 << 16), "uint8", chunks=(1, 1 << 15, 1 << 15))
    with pytest.raises(CacheError, match="impossible sizes"):
        CacheFile(path)


def test_changed_provenance_is_noticed(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(good.read_bytes())
    with h5py.File(path, "r+") as file:
        settings = json.loads(file.attrs["settings"])
        settings["flow"]["bound"] = 10.0
        file.attrs["settings"] = json.dumps(settings)
    assert verify(path) == ["the content does not match its hash"]


def test_a_newer_schema_is_named(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(good.read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 7
    found = state(path, PROVENANCE)
    assert found.kind == "broken"
    assert "schema version 7" in found.reason
