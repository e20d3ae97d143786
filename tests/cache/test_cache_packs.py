"""Packs: everything that reads a cache reads them, and nothing is lost on the way back."""

from __future__ import annotations

import json
import tarfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from vidkd.cache import (
    CacheFile,
    CacheWriter,
    Provenance,
    Source,
    cache_files,
    cache_path,
    encoder_folders,
    list_cache,
    pack_cache,
    present,
    state,
    unpack_cache,
    verify_cache,
)
from vidkd.errors import CacheError, UsageError


def write(cache: Path, key: str, rows: np.ndarray, encoder: str | None = "tiny") -> Path:
    source = Source(f"{key}.mp4", 1, "0" * 64, Fraction(25), len(rows))
    artefact = "features" if encoder else "flow"
    provenance = Provenance(artefact, source, {"short_side": 4}, encoder)  # type: ignore[arg-type]
    path = cache_path(cache, artefact, key, encoder)
    with CacheWriter(path, provenance, rows.shape[1:], rows.dtype) as writer:
        writer.append(rows, np.stack([np.arange(len(rows)), np.arange(len(rows)) + 1], axis=1))
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for number in range(6):
        rows = random.normal(size=(5 + number, 3)).astype(np.float16)
        write(tmp_path / "cache", f"day {number % 2}/v.{number}", rows)
    # Larger than what is read at once, and a name that does not fit a plain tar header.
    large = random.integers(0, 255, (90, 200, 300), dtype=np.uint8)
    write(tmp_path / "cache", "x" * 120 + "ö", large, None)
    return tmp_path / "cache"


def files(folder: Path) -> dict[str, bytes]:
    found = (item for item in folder.rglob("*") if item.is_file())
    return {item.relative_to(folder).as_posix(): item.read_bytes() for item in found}


def test_a_pack_reads_like_the_cache_and_unpacks_to_the_same_bytes(
    cache: Path, tmp_path: Path
) -> None:
    pack, back = tmp_path / "pack", tmp_path / "back"
    made = pack_cache(cache, pack, 2000)
    assert (made.files, made.shards) == (7, len(list(pack.glob("*.tar"))))
    assert made.shards > 1
    assert encoder_folders(pack) == ["tiny"]
    for artefact, encoder in (("features", "tiny"), ("flow", None)):
        loose, packed = (cache_files(top, artefact, encoder) for top in (cache, pack))
        assert list(packed.items) == list(loose.items)
        for key, path in loose.items.items():
            with CacheFile(path) as one, CacheFile(packed.items[key]) as other:
                assert one.sha256 == other.sha256
                assert one.provenance == other.provenance
                assert (one.rows(2, 5) == other.rows(2, 5)).all()
                assert state(other.path, one.provenance).kind == "fresh"
    assert [(item.key, item.size, item.problem) for item in list_cache(pack)] == [
        (item.key, item.size, None) for item in list_cache(cache)
    ]
    assert all(problems == [] for _, problems in verify_cache(pack))
    # The shards are plain tar files, for whoever has no vidkd.
    for name in pack.glob("*.tar"):
        with tarfile.open(name) as tar:
            tar.extractall(tmp_path / "plain", filter="data")
    assert files(tmp_path / "plain") == files(cache)
    unpack_cache(pack, back)
    assert files(back) == files(cache)
    # A pack of a pack is the same pack; what is new lies beside the shards.
    pack_cache(pack, tmp_path / "again", 2000)
    assert files(tmp_path / "again") == files(pack)
    new = write(pack, "new", np.ones((3, 3), np.float16))
    assert present(new)
    assert len(cache_files(pack, "features", "tiny").items) == 7


def test_a_damaged_file_is_not_packed_and_no_pack_is_left(cache: Path, tmp_path: Path) -> None:
    victim = cache_path(cache, "features", "day 1/v.3", "tiny")
    data = bytearray(victim.read_bytes())
    data[data.index(b"day 1/v.3.mp4")] ^= 1
    victim.write_bytes(data)
    with pytest.raises(CacheError, match=r"v\.3.*pack again"):
        pack_cache(cache, tmp_path / "pack", 1000)
    assert files(tmp_path / "pack") == {}


def test_damage_in_a_pack_is_named_with_the_video(cache: Path, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    pack_cache(cache, pack)
    shard = pack / "00000.tar"
    index = json.loads((pack / "pack.json").read_text())
    whole = shard.read_bytes()
    name = "features/tiny/day 0/v.4.h5"
    _, offset, size, _ = index["files"][name]
    shard.write_bytes(whole[: offset + 300] + bytes(600) + whole[offset + 900 :])
    bad = {path.relative_to(pack).as_posix() for path, problems in verify_cache(pack) if problems}
    assert bad == {name}
    with pytest.raises(CacheError, match=r"v\.4"):
        unpack_cache(pack, tmp_path / "back")
    shard.write_bytes(whole[: offset + size - 1])
    with pytest.raises(CacheError, match="ends too early"), CacheFile(pack / name):
        pass
    shard.unlink()
    assert all(problems for _, problems in verify_cache(pack))


@pytest.mark.parametrize(
    "content",
    ["", "{}", '{"schema_version": 2}', '{"schema_version": 1, "shards": ["../x"], "files": {}}'],
)
def test_a_damaged_index_is_told(content: str, tmp_path: Path) -> None:
    (tmp_path / "pack.json").write_text(content)
    with pytest.raises(CacheError, match=r"pack\.json"):
        cache_files(tmp_path, "flow")


def test_what_is_no_pack_and_what_is_in_the_way_is_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a pack"):
        unpack_cache(cache, tmp_path / "back")
    with pytest.raises(UsageError, match="not an empty folder"):
        pack_cache(cache, cache)
    outside = {"schema_version": 1, "shards": ["0.tar"], "files": {"../../x.h5": [0, 0, 1, ""]}}
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "pack.json").write_text(json.dumps(outside))
    with pytest.raises(CacheError, match="do not trust"):
        unpack_cache(tmp_path / "evil", tmp_path / "back")
