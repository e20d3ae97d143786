"""Stages: done once, refused or made again with other settings, and what a failure stops."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from vidkd.annotations import load_annotations
from vidkd.errors import UsageError, VidkdError
from vidkd.pipeline.stages import Stage, run_stages


def stage(folder: Path, calls: list[str], name: str, *after: str, **settings: object) -> Stage:
    def action() -> None:
        calls.append(name)
        (folder / name).write_text(name)

    return Stage(name, dict(settings), [folder / name], action, after)


def test_finished_stages_are_skipped(tmp_path: Path) -> None:
    calls: list[str] = []
    stages = [stage(tmp_path, calls, name, size=1) for name in ("first", "second")]
    assert run_stages(stages, tmp_path).ran == ["first", "second"]
    assert run_stages(stages, tmp_path).skipped == ["first", "second"]
    assert calls == ["first", "second"]


def test_a_missing_output_runs_the_stage_and_all_that_build_on_it(tmp_path: Path) -> None:
    calls: list[str] = []
    stages = [
        stage(tmp_path, calls, "first"),
        stage(tmp_path, calls, "second", "first"),
        stage(tmp_path, calls, "third", "second"),
        stage(tmp_path, calls, "of-first", "first"),
    ]
    run_stages(stages, tmp_path)
    (tmp_path / "second").unlink()
    assert run_stages(stages, tmp_path).ran == ["second", "third"]


def test_other_settings_are_refused_by_name_unless_overwritten(tmp_path: Path) -> None:
    calls: list[str] = []
    run_stages([stage(tmp_path, calls, "first", crop=112)], tmp_path)
    changed = [stage(tmp_path, calls, "first", crop=224)]
    with pytest.raises(UsageError, match=r"crop is 112 \(asked for: 224\)"):
        run_stages(changed, tmp_path)
    assert calls == ["first"]
    assert run_stages(changed, tmp_path, overwrite=True).ran == ["first"]
    assert not run_stages(changed, tmp_path).ran


def test_a_failing_stage_keeps_the_finished_ones(tmp_path: Path) -> None:
    calls: list[str] = []

    def fail() -> None:
        raise VidkdError("a video is missing")

    first = stage(tmp_path, calls, "first")
    with pytest.raises(VidkdError):
        run_stages([first, Stage("second", {}, [], fail)], tmp_path)
    assert run_stages([first, stage(tmp_path, calls, "second")], tmp_path).ran == ["second"]


def test_a_damaged_stamp_runs_the_stage_again(tmp_path: Path) -> None:
    calls: list[str] = []
    run_stages([stage(tmp_path, calls, "first")], tmp_path)
    (tmp_path / "stages" / "first.json").write_text('{"settings": {')
    assert run_stages([stage(tmp_path, calls, "first")], tmp_path).ran == ["first"]


def writing(
    folder: Path, name: str, *after: str, broken: bool = False, **settings: object
) -> Stage:
    action = functools.partial(Path.write_text, folder / f"{name}.out", name)
    if broken:
        action = functools.partial(load_annotations, folder / "nothing.json")  # type: ignore[arg-type]
    return Stage(name, dict(settings), [folder / f"{name}.out"], action, after)


def test_a_failure_stays_with_what_builds_on_it_and_a_change_too(tmp_path: Path) -> None:
    def graph(broken: bool, size: int) -> list[Stage]:
        return [
            writing(tmp_path, "one"),
            writing(tmp_path, "two", broken=broken, size=size),
            writing(tmp_path, "of-one", "one"),
            writing(tmp_path, "of-two", "two"),
            writing(tmp_path, "of-both", "of-one", "of-two"),
        ]

    first = run_stages(graph(True, 1), tmp_path, keep_going=True, overwrite=True)
    assert sorted(first.ran) == ["of-one", "one"]
    assert "nothing.json" in first.failed["two"]
    assert first.failed["of-two"] == "two failed"
    assert first.failed["of-both"] == "of-two failed"
    again = run_stages(graph(False, 1), tmp_path, keep_going=True, overwrite=True)
    assert sorted(again.skipped) == ["of-one", "one"]
    assert sorted(again.ran) == ["of-both", "of-two", "two"]
    assert not again.failed
    changed = run_stages(graph(False, 2), tmp_path, keep_going=True, overwrite=True)
    assert sorted(changed.ran) == ["of-both", "of-two", "two"]
    assert not run_stages(graph(False, 2), tmp_path, keep_going=True, overwrite=True).ran


def test_a_worker_process_does_what_this_one_would(tmp_path: Path) -> None:
    found = run_stages([writing(tmp_path, "one")], tmp_path, workers=2, keep_going=True)
    assert found.ran == ["one"]
    assert (tmp_path / "one.out").read_text() == "one"
    assert (tmp_path / "logs" / "one.log").exists()
