"""Readers against damaged and malicious files: no crash, hang, large memory, or code executed.

Each batch of cases runs as a process of its own (tests/hostile/fuzz.py), since a crash of a
library would otherwise take the tests with it. Longer runs are made by hand with --count.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fuzz.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    "readers",
    [
        ("video", "cache", "annotations", "predictions", "scores"),
        ("recipe", "weights", "checkpoint", "tools"),
    ],
)
def test_damaged_files_are_read_or_refused_in_one_line(
    readers: tuple[str, ...], tmp_path: Path
) -> None:
    result = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), *readers, "--count", "60"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout)
    assert set(found) == set(readers)
    # The files are damaged enough to be noticed, where a reader tries one format only.
    for name in set(readers) - {"annotations", "recipe", "tools"}:
        assert found[name]["refused"] > 30
    # What a pickle would have executed leaves a file.
    assert not list(tmp_path.rglob("owned"))


def test_the_pickles_are_dangerous_to_a_careless_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pickle

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from fuzz import READERS

    paths = READERS["checkpoint"].seeds(tmp_path)
    pickle.loads(paths[1].read_bytes())
    assert (tmp_path / "owned").exists()


def test_nested_yaml_aliases_cost_nothing(tmp_path: Path) -> None:
    from vidkd.errors import UsageError
    from vidkd.recipe import Pipeline, load_yaml

    lines = ["a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(9):
        lines.append(f"b{level}: &a{level + 1} [{', '.join([f'*a{level}'] * 10)}]")
    path = tmp_path / "laughs.yaml"
    path.write_text("\n".join([*lines, "name: *a9", "seeds: *a9"]))
    with pytest.raises(UsageError, match="does not fit the schema"):
        load_yaml(path, Pipeline)


@pytest.mark.parametrize("key", ["../x", "/x", "a/../../x", ".."])
def test_no_key_leaves_the_cache_folder(key: str, tmp_path: Path) -> None:
    from vidkd.cache import cache_path
    from vidkd.errors import UsageError

    with pytest.raises(UsageError):
        cache_path(tmp_path, "flow", key)


@pytest.mark.parametrize("encoder", ["..", "a/b", "/x", ""])
def test_no_encoder_leaves_the_cache_folder(encoder: str, tmp_path: Path) -> None:
    from vidkd.cache import cache_path
    from vidkd.errors import UsageError

    with pytest.raises(UsageError):
        cache_path(tmp_path, "features", "x", encoder)


def test_exported_files_stay_in_their_folder(tmp_path: Path) -> None:
    from vidkd.evaluation import Detection
    from vidkd.evaluation.exports import export_pku_mmd

    detections = {"../../outside": [Detection("1", 0.5, 0.0, 1.0)]}
    folder = tmp_path / "a" / "b"
    export_pku_mmd(folder, detections)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert all(path.parent == folder for path in files)
