"""``vidkd cache`` as its users call it."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from in_process import vidkd

from vidkd.cache import CacheWriter, Provenance, Source, cache_path


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vidkd", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    source = Source("walk.mp4", 1, "ab", Fraction(25))
    for key in ("one", "two"):
        path = cache_path(tmp_path, "flow", key)
        with CacheWriter(path, Provenance("flow", source, {"x": 1}), (4,), "uint8") as writer:
            writer.append(np.zeros((3, 4)), [[0, 1], [1, 2], [2, 3]])
    return tmp_path


def test_ls_lists_every_file(cache: Path) -> None:
    result = process("cache", "ls", cache, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    entries = json.loads(result.stdout)
    assert [(e["key"], e["artefact"], e["rows"], e["problem"]) for e in entries] == [
        ("one", "flow", 3, None),
        ("two", "flow", 3, None),
    ]
    assert entries[0]["provenance"]["settings"] == {"x": 1}
    table = vidkd("cache", "ls", cache).stdout
    assert "one" in table
    assert "two" in table


def test_verify_names_damage_and_leftovers_and_exits_with_1(cache: Path) -> None:
    result = vidkd("cache", "verify", cache, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {"checked": 2, "damaged": []}

    damaged = cache / "flow" / "two.h5"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    (cache / "flow" / ".one.abc.partial.h5").touch()
    result = vidkd("cache", "verify", cache, "--json")
    assert result.returncode == 1
    names = [Path(item["path"]).name for item in json.loads(result.stdout)["damaged"]]
    assert names == [".one.abc.partial.h5", "two.h5"]
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert "left over from a killed run" in lines[0]
    assert str(damaged) in lines[1]
    assert "--overwrite" in lines[1]


def test_a_folder_that_is_no_cache_is_one_line(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        for command in ("ls", "verify"):
            result = vidkd("cache", command, folder)
            assert result.returncode == 1
            assert result.stderr.startswith(f"error: {folder}: ")
            assert len(result.stderr.splitlines()) == 1
            assert result.stdout == ""
