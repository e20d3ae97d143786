"""SLURM arrays, with submitit's processes of this machine in SLURM's place."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_flow import FLOW, FRAMES, contents

from vidkd.errors import UsageError
from vidkd.features import FlowTask, run_jobs
from vidkd.video import VideoFile

pytest.importorskip("submitit")


@pytest.mark.slow
def test_tasks_do_everything_and_collect_errors(
    videos: list[VideoFile],
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vidkd.cluster.slurm import SlurmArray

    monkeypatch.chdir(tmp_path)
    text = tmp_path / "videos" / "text.mp4"
    text.write_text("text")
    where = SlurmArray(2, system="local")
    results = run_jobs(
        [*videos, VideoFile(text, "text")],
        FlowTask(tmp_path / "c", FRAMES, FLOW),
        executor=where,
    )
    assert [item.status for item in results] == ["done"] * 8 + ["failed"]
    assert contents(tmp_path / "c") == undisturbed


def test_no_slurm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vidkd.cluster.slurm import SlurmArray

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="no SLURM"):
        list(SlurmArray(2).run(["x"], len, advance=lambda _: None))  # type: ignore[arg-type]
