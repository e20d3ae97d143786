"""What the process may use, read from trees of files as the kernel lays them out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vidkd.machine import cores, processor


def tree(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "max 100000\n"}, 4),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "50000 100000\n"}, 1),
        # As seen in a container: the group is one of the host, and only the root is mounted.
        ("0::/host/x\n", {"cpu.max": "300000 100000\n"}, 3),
        (
            "5:memory:/m\n4:cpu,cpuacct:/c\n0::/\n",
            {
                "cpu,cpuacct/c/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/c/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ("1:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "1\n"}, 64),
        ("nonsense", {"cpu.max": "nonsense"}, 64),
    ],
)
def test_the_quota_of_every_group_above_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, files: dict[str, str], expected
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    tree(tmp_path / "root", files)
    tree(tmp_path, {"group": groups})
    assert cores(tmp_path / "root", tmp_path / "group") == expected


def test_the_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert cores(tmp_path, tmp_path / "absent") == 2


def test_instruction_sets_have_the_names_of_their_makers(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "x86": "processor : 0\nmodel name : A\nflags : fpu avx2 fma avx512f\n\nprocessor : 1\n",
            "arm": "processor : 0\nFeatures : fp asimd asimddp sve\n",
        },
    )
    assert processor(tmp_path / "x86") == ("A", ["AVX2", "FMA", "AVX-512"])
    assert processor(tmp_path / "arm")[1] == ["NEON", "dot product", "SVE"]
    assert processor(tmp_path / "absent")[1] == []
