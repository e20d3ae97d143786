"""Stages in a graph: a failure stays with what builds on it, a change touches nothing else."""

from __future__ import annotations

import functools
from pathlib import Path

from vidkd.annotations import load_annotations
from vidkd.pipeline.stages import Stage
from vidkd.pipeline.waves import run_waves


def stage(folder: Path, name: str, *after: str, broken: bool = False, **settings: object) -> Stage:
    action = functools.partial(Path.write_text, folder / f"{name}.out", name)
    if broken:
        action = functools.partial(load_annotations, folder / "nothing.json")  # type: ignore[arg-type]
    return Stage(name, dict(settings), [folder / f"{name}.out"], action, after)


def test_a_failure_stays_with_what_builds_on_it_and_a_change_too(tmp_path: Path) -> None:
    def graph(broken: bool, size: int) -> list[Stage]:
        return [
            stage(tmp_path, "one"),
            stage(tmp_path, "two", broken=broken, size=size),
            stage(tmp_path, "of-one", "one"),
            stage(tmp_path, "of-two", "two"),
            stage(tmp_path, "of-both", "of-one", "of-two"),
        ]

    first = run_waves(graph(True, 1), tmp_path, workers=1)
    assert sorted(first.ran) == ["of-one", "one"]
    assert "nothing.json" in first.failed["two"]
    assert first.failed["of-two"] == "two failed"
    assert first.failed["of-both"] == "of-two failed"
    again = run_waves(graph(False, 1), tmp_path, workers=1)
    assert sorted(again.skipped) == ["of-one", "one"]
    assert sorted(again.ran) == ["of-both", "of-two", "two"]
    assert not again.failed
    changed = run_waves(graph(False, 2), tmp_path, workers=1)
    assert sorted(changed.ran) == ["of-both", "of-two", "two"]
    assert not run_waves(graph(False, 2), tmp_path, workers=1).ran


def test_a_worker_process_does_what_this_one_would(tmp_path: Path) -> None:
    found = run_waves([stage(tmp_path, "one")], tmp_path, workers=2)
    assert found.ran == ["one"]
    assert (tmp_path / "one.out").read_text() == "one"
    assert (tmp_path / "logs" / "one.log").exists()
