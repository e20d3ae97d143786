"""Looking after a cache folder: listing, verification, and what killed runs leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from vidkd.cache import (
    CacheFile,
    CacheWriter,
    Provenance,
    Source,
    cache_path,
    list_cache,
    remove_leftovers,
    verify,
    verify_cache,
)
from vidkd.errors import CacheError
from vidkd.files import sha256

WRITE_SLOWLY = """
import sys, time
import numpy as np
from pathlib import Path
from fractions import Fraction
from vidkd.cache import *
p = Provenance("flow", Source("a.mp4", 1, "b", Fraction(25)), {})
with CacheWriter(Path(sys.argv[1]), p, (64, 64, 2), "uint8") as writer:
    for i in range(int(sys.argv[2])):
        writer.append(np.full((1, 64, 64, 2), i, np.uint8), [[i, i + 1]])
        print(i, flush=True)
        time.sleep(float(sys.argv[3]))
"""


def write(cache: Path, key: str, artefact: str = "flow", source: Source | None = None) -> Path:
    path = cache_path(cache, artefact, key, "i3d")
    source = source or Source(f"{key.rpartition('/')[2]}.mp4", 1, "ab", Fraction(25))
    provenance = Provenance(artefact, source, {})  # type: ignore[arg-type]
    with CacheWriter(path, provenance, (4,), "uint8") as writer:
        writer.append(np.arange(12).reshape(3, 4), [[0, 1], [1, 2], [2, 3]])
    return path


def slow_writer(path: Path, rows: int = 1000, pause: float = 0.05) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITE_SLOWLY, str(path), str(rows), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for_row(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline()


def test_list_names_key_artefact_and_problem(tmp_path: Path) -> None:
    write(tmp_path, "S1/walk.front")
    write(tmp_path, "S1/walk.front", "features")
    broken = write(tmp_path, "zebra")
    broken.write_bytes(broken.read_bytes()[:100])
    (tmp_path / "flow" / ".zebra.x1.partial.h5").touch()
    (tmp_path / "flow" / "notes.txt").touch()
    entries = list_cache(tmp_path)
    assert [(e.artefact, e.encoder, e.key, e.rows, e.row_shape) for e in entries] == [
        ("features", "i3d", "S1/walk.front", 3, (4,)),
        ("flow", None, "S1/walk.front", 3, (4,)),
        ("flow", None, "zebra", 0, ()),
    ]
    assert [entry.problem is None for entry in entries] == [True, True, False]
    with pytest.raises(CacheError, match="not a folder"):
        list_cache(tmp_path / "none")
    with pytest.raises(CacheError, match="not a cache"):
        list_cache(tmp_path / "flow")


def test_an_unreadable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "deep/walk")
    real = os.scandir

    def denied(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    # Not chmod, which does not stop root.
    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(CacheError, match=r"deep: cannot be read \(Permission denied\)"):
        list_cache(tmp_path)


def test_verify_compares_with_the_videos(tmp_path: Path) -> None:
    videos, cache = tmp_path / "videos", tmp_path / "cache"
    (videos / "S1").mkdir(parents=True)
    for name in ("same", "changed", "gone"):
        video = videos / "S1" / f"{name}.mp4"
        video.write_bytes(name.encode())
        source = Source(video.name, len(name), sha256(video), Fraction(25))
        write(cache, f"S1/{name}", "features", source)
    (videos / "S1" / "changed.mp4").write_bytes(b"CHANGED")
    (videos / "S1" / "gone.mp4").unlink()
    found = {path.stem: problems for path, problems in verify_cache(cache, videos)}
    assert found["same"] == []
    assert "has changed since" in found["changed"][0]
    assert "cannot be read" in found["gone"][0]
    assert all(problems == [] for _, problems in verify_cache(cache))


def test_rows_of_flow_must_be_the_frames(tmp_path: Path) -> None:
    path = cache_path(tmp_path, "flow", "walk")
    provenance = Provenance("flow", Source("walk.mp4", 1, "ab", Fraction(25)), {})
    with CacheWriter(path, provenance, (4,), "uint8") as writer:
        writer.append(np.zeros((2, 4)), [[1, 2], [0, 1]])
        writer.frame_count = 3
    assert verify(path) == ["2 rows for 3 frames", "times run backwards"]


def test_a_killed_writer_leaves_only_a_leftover_which_the_next_removes(tmp_path: Path) -> None:
    path = cache_path(tmp_path, "flow", "walk")
    process = slow_writer(path)
    wait_for_row(process)
    # While it lives, its file is neither listed, nor damaged, nor removed.
    assert list_cache(tmp_path) == []
    assert list(verify_cache(tmp_path)) == []
    remove_leftovers(path)
    assert len(list(path.parent.iterdir())) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not path.exists()
    assert list_cache(tmp_path) == []
    [(leftover, problems)] = verify_cache(tmp_path)
    assert problems == ["left over from a killed run"]
    remove_leftovers(path.with_name("walking.h5"))
    assert leftover.exists()
    remove_leftovers(path)
    assert list(path.parent.iterdir()) == []


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = cache_path(tmp_path, "flow", "walk")
    processes = [slow_writer(path, 40, 0.01) for _ in range(2)]
    seen = set()
    while any(process.poll() is None for process in processes):
        if path.exists():
            with CacheFile(path) as file:
                seen.add(len(file))
        time.sleep(0.01)
    assert [process.returncode for process in processes] == [0, 0]
    assert seen <= {40}
    assert verify(path) == []
    assert [item.name for item in path.parent.iterdir()] == ["walk.h5"]
