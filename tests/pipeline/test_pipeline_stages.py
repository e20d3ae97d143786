"""Stages: skipped when finished, refused when made with other settings, kept when a later fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidkd.errors import UsageError, VidkdError
from vidkd.pipeline.results import Row
from vidkd.pipeline.stages import Stage, run_stages


def stage(folder: Path, calls: list[str], name: str, **settings: object) -> Stage:
    def action() -> None:
        calls.append(name)
        (folder / name).write_text(name)

    return Stage(name, dict(settings), [folder / name], action)


def test_finished_stages_are_skipped(tmp_path: Path) -> None:
    calls: list[str] = []
    stages = [stage(tmp_path, calls, name, size=1) for name in ("first", "second")]
    assert run_stages(stages, tmp_path) == ["first", "second"]
    assert run_stages(stages, tmp_path) == []
    assert calls == ["first", "second"]


def test_a_missing_output_runs_the_stage_and_all_that_build_on_it(tmp_path: Path) -> None:
    calls: list[str] = []
    stages = [stage(tmp_path, calls, name) for name in ("first", "second", "third")]
    run_stages(stages, tmp_path)
    (tmp_path / "second").unlink()
    assert run_stages(stages, tmp_path) == ["second", "third"]


def test_other_settings_are_refused_by_name_unless_overwritten(tmp_path: Path) -> None:
    calls: list[str] = []
    run_stages([stage(tmp_path, calls, "first", crop=112)], tmp_path)
    changed = [stage(tmp_path, calls, "first", crop=224)]
    with pytest.raises(UsageError, match="crop: 112 instead of 224"):
        run_stages(changed, tmp_path)
    assert run_stages(changed, tmp_path, overwrite=True) == ["first"]
    assert run_stages(changed, tmp_path) == []


def test_a_failing_stage_keeps_the_finished_ones(tmp_path: Path) -> None:
    calls: list[str] = []

    def fail() -> None:
        raise VidkdError("a video is missing")

    first = stage(tmp_path, calls, "first")
    with pytest.raises(VidkdError):
        run_stages([first, Stage("second", {}, [], fail)], tmp_path)
    assert run_stages([first, stage(tmp_path, calls, "second")], tmp_path) == ["second"]


def test_a_damaged_stamp_runs_the_stage_again(tmp_path: Path) -> None:
    calls: list[str] = []
    run_stages([stage(tmp_path, calls, "first")], tmp_path)
    (tmp_path / "stages" / "first.json").write_text('{"settings": {')
    assert run_stages([stage(tmp_path, calls, "first")], tmp_path) == ["first"]


def test_a_row_shows_the_mean_and_the_sample_standard_deviation() -> None:
    # By hand: mean 20, deviations -2, 0, 2, variance (4 + 0 + 4) / 2 = 4.
    assert Row("a", "rgb", {"mAP": [18.0, 20.0, 22.0]}).cell("mAP") == "20.0 ± 2.0"
    assert Row("a", "rgb", {"mAP": [18.04]}).cell("mAP") == "18.0"
