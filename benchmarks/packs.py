"""What a pack of a cache should be made of: open cost, random reads and sizes, measured.

    python benchmarks/packs.py [--videos 10000] [--reads 2000] [--folder DIR]

Features (T, 256) float16 with T from 20 to 60 of many videos, as one HDF5 file each; as vidkd's
pack (tar shards of those files, an index beside); as tar shards of ``.npy`` read through the same
index, which is WebDataset's way; as Parquet with one row for each video; and as Arrow IPC. From
each, clips of 16 rows are read at random: open the data set, find a video, read 16 of its rows.
The four are interleaved. Parquet and Arrow need pyarrow.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vidkd.cache import CacheFile, CacheWriter, Provenance, Source, cache_path, pack_cache

WIDTH, CLIP = 256, 16
Read = Callable[[str, int], np.ndarray]


def make(folder: Path, videos: int) -> dict[str, np.ndarray]:
    """Write the cache and return what is in it."""
    rng = np.random.default_rng(0)
    found = {}
    for number in range(videos):
        key = f"v{number:06d}"
        rows = rng.exponential(1.0, (int(rng.integers(20, 61)), WIDTH)).astype(np.float16)
        found[key] = rows
        source = Source(f"{key}.mp4", 1, "00" * 32, Fraction(25))
        provenance = Provenance("features", source, {"snippet": {"length": 16}}, "tiny", "00" * 32)
        pts = np.stack([np.arange(len(rows)), np.arange(len(rows)) + 1], axis=1)
        path = cache_path(folder / "cache", "features", key, "tiny")
        with CacheWriter(path, provenance, (WIDTH,), "float16") as writer:
            writer.append(rows, pts)
    return found


def open_cache(folder: Path) -> Read:
    def read(key: str, start: int) -> np.ndarray:
        with CacheFile(cache_path(folder, "features", key, "tiny")) as file:
            return file.rows(start, start + CLIP)

    return read


def write_npy(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    index = {}
    with tarfile.open(folder / "npy.tar", "w") as tar:
        for key, rows in arrays.items():
            data = io.BytesIO()
            np.save(data, rows)
            info = tarfile.TarInfo(f"{key}.npy")
            info.size = len(data.getvalue())
            tar.addfile(info, io.BytesIO(data.getvalue()))
            index[key] = (tar.offset - -(-info.size // 512) * 512, info.size)
    (folder / "npy.json").write_text(json.dumps(index))


def open_npy(folder: Path) -> Read:
    index = json.loads((folder / "npy.json").read_text())
    stream = (folder / "npy.tar").open("rb", buffering=0)

    def read(key: str, start: int) -> np.ndarray:
        offset, size = index[key]
        stream.seek(offset)
        return np.load(io.BytesIO(stream.read(size)))[start : start + CLIP]

    return read


def table(arrays: dict[str, np.ndarray]) -> pa.Table:
    columns = [list(arrays), [rows.tobytes() for rows in arrays.values()]]
    return pa.table(
        [pa.array(columns[0]), pa.array(columns[1], pa.large_binary())], ["key", "rows"]
    )


def open_parquet(folder: Path) -> Read:
    file = pq.ParquetFile(folder / "rows.parquet")
    keys = file.read(["key"])["key"].to_pylist()
    groups = [file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups)]
    place = {}
    left = iter(keys)
    for group, count in enumerate(groups):
        place |= {next(left): (group, row) for row in range(count)}

    def read(key: str, start: int) -> np.ndarray:
        group, row = place[key]
        data = file.read_row_group(group, ["rows"])["rows"][row].as_py()
        return np.frombuffer(data, np.float16).reshape(-1, WIDTH)[start : start + CLIP]

    return read


def open_arrow(folder: Path) -> Read:
    found = pa.ipc.open_file(pa.memory_map(str(folder / "rows.arrow"))).read_all()
    place = {key: row for row, key in enumerate(found["key"].to_pylist())}
    column = found["rows"]

    def read(key: str, start: int) -> np.ndarray:
        data = column[place[key]].as_buffer()
        return np.frombuffer(data, np.float16).reshape(-1, WIDTH)[start : start + CLIP].copy()

    return read


def size(path: Path) -> float:
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    return sum(item.stat().st_size for item in files) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=10_000)
    parser.add_argument("--reads", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arrays = make(folder, chosen.videos)
        pack_cache(folder / "cache", folder / "pack", 256_000_000)
        write_npy(folder, arrays)
        rows = table(arrays)
        pq.write_table(rows, folder / "rows.parquet", compression="zstd", row_group_size=64)
        with pa.ipc.new_file(folder / "rows.arrow", rows.schema) as writer:
            writer.write_table(rows, max_chunksize=64)
        ways: dict[str, tuple[Callable[[Path], Read], Path, Path]] = {
            "one file each": (open_cache, folder / "cache", folder / "cache"),
            "pack (tar of HDF5)": (open_cache, folder / "pack", folder / "pack"),
            "tar of npy": (open_npy, folder, folder / "npy.tar"),
            "Parquet": (open_parquet, folder, folder / "rows.parquet"),
            "Arrow IPC": (open_arrow, folder, folder / "rows.arrow"),
        }
        rng = np.random.default_rng(1)
        keys = list(arrays)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(chosen.rounds):
            for name, (opened, where, _) in ways.items():
                started = time.perf_counter()
                read = opened(where)
                read(keys[0], 0)
                ready = time.perf_counter()
                for number in rng.integers(0, len(keys), chosen.reads):
                    start = int(rng.integers(0, len(arrays[keys[number]]) - CLIP + 1))
                    found = read(keys[number], start)
                    assert (found == arrays[keys[number]][start : start + CLIP]).all()
                done = time.perf_counter()
                times[name].append((ready - started, (done - ready) / chosen.reads))
        print(f"{chosen.videos} videos; median of {chosen.rounds} rounds")
        print(f"{'':20s} {'MB':>8s} {'files':>7s} {'open ms':>8s} {'us a clip':>10s}")
        for name, (_, _, path) in ways.items():
            first, each = np.median(times[name], axis=0)
            files = 1 if path.is_file() else sum(item.is_file() for item in path.rglob("*"))
            print(f"{name:20s} {size(path):8.1f} {files:7d} {1e3 * first:8.1f} {1e6 * each:10.0f}")


if __name__ == "__main__":
    main()
