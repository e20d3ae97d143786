"""Rows as JPEG: small, nearly right, and never wrong in silence."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest

from vidkd.cache import CacheFile, CacheWriter, Provenance, Source, verify
from vidkd.cache.jpeg import JPEG
from vidkd.errors import CacheError

PROVENANCE = Provenance(
    "flow", Source("v.mp4", 1, "0", Fraction(25)), {"flow": {"codec": JPEG, "bound": 20.0}}
)
SHAPE = (64, 80, 2)


def flow_like(count: int) -> np.ndarray:
    """Smooth fields that differ between rows and channels; the left half is still."""
    ys, xs = np.mgrid[: SHAPE[0], : SHAPE[1]]
    fields = np.full((count, *SHAPE), 128, np.uint8)
    for number in range(count):
        wave = 40 * np.sin(xs / 9 + number) * np.cos(ys / 7)
        fields[number, :, 40:, 0] += np.int8(wave[:, 40:]).view(np.uint8)
        fields[number, :, 40:, 1] = 128 + number
    return fields


def write(path: Path, rows: np.ndarray, codec: str = "jpeg") -> Path:
    pts = np.stack([np.arange(len(rows)), np.arange(len(rows)) + 1], axis=1) / 25
    with CacheWriter(path, PROVENANCE, SHAPE, "uint8", codec=codec) as writer:  # type: ignore[arg-type]
        for start in range(0, len(rows), 3):
            writer.append(rows[start : start + 3], pts[start : start + 3])
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write(tmp_path / "v.h5", flow_like(7))


def test_rows_come_back_nearly_as_they_were(good: Path, tmp_path: Path) -> None:
    rows = flow_like(7)
    with CacheFile(good) as file:
        assert (len(file), file.data.shape, file.data.dtype) == (7, (7, *SHAPE), np.uint8)
        back = file.rows()
        np.testing.assert_array_equal(np.concatenate(list(file.blocks())), back)
        np.testing.assert_array_equal(file.rows(2, 5), back[2:5])
        assert file.more_names == ["ends"]
    away = np.abs(back.astype(int) - rows)
    assert 0 < away.mean() < 1
    assert away.max() <= 12
    # 40 is a border between the blocks of JPEG: zero motion stays exactly that.
    assert (back[:, :, :40] == 128).all()
    assert back.min() >= 1
    assert verify(good) == []
    assert write(tmp_path / "again.h5", rows).read_bytes() == good.read_bytes()
    with h5py.File(good) as plain:
        assert plain.attrs["codec"] == JPEG
        assert "data" not in plain


def test_values_of_zero_never_come_back(tmp_path: Path) -> None:
    rows = np.where(np.random.default_rng(0).random((2, *SHAPE)) < 0.5, 1, 255).astype(np.uint8)
    with CacheFile(write(tmp_path / "v.h5", rows)) as file:
        assert file.rows().min() == 1


def test_a_flipped_bit_in_any_picture_is_found(good: Path) -> None:
    content = good.read_bytes()
    with h5py.File(good) as plain:
        place = plain["jpeg"].id.get_chunk_info(0).byte_offset
        ends = plain["ends"][:].ravel()
    for end in ends:
        for back in (3, 150, 600):
            spot = place + int(end) - back
            good.write_bytes(content[:spot] + bytes([content[spot] ^ 4]) + content[spot + 1 :])
            assert verify(good) != []
            with pytest.raises(CacheError, match="--overwrite"), CacheFile(good) as file:
                file.rows()


@pytest.mark.parametrize("change", ["size", "garbage", "ends", "codec", "shape", "lost"])
def test_files_made_to_deceive_are_refused(good: Path, change: str) -> None:
    """With check sums that fit, as damage never has them."""
    with h5py.File(good, "r+") as plain:
        coded = plain["jpeg"][:]
        if change == "size":
            # 65535 x 65535 pixels would be 4 GB.
            at = int(np.flatnonzero((coded[:-1] == 0xFF) & (coded[1:] == 0xC0))[0])
            coded[at + 5 : at + 9] = 255
            plain["jpeg"][:] = coded
        elif change == "garbage":
            plain["jpeg"][:] = 0
        elif change == "ends":
            plain["ends"][0, 0] = 1 << 40
        elif change == "codec":
            plain.attrs["codec"] = "jpeg-2000"
        elif change == "shape":
            plain.attrs["row_shape"] = (1 << 20, 1 << 20, 2)
        else:
            del plain["ends"]
    assert verify(good) != []
    with pytest.raises(CacheError), CacheFile(good) as file:
        file.rows()


def test_only_fields_of_bytes_can_be_jpeg(tmp_path: Path) -> None:
    for shape, dtype in (((4,), "uint8"), (SHAPE, "float32")):
        with pytest.raises(ValueError, match="JPEG"):
            CacheWriter(tmp_path / "v.h5", PROVENANCE, shape, dtype, codec="jpeg")
