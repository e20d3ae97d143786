"""``vidkd benchmark`` as a command, on cached features without any video."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "distillation"))

import artificial

from vidkd.cli import main

Run = Callable[..., tuple[int, str, str]]


def recipe_of(*figures: int, **fields: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "description": "artificial features",
        "data": {"format": "activitynet"},
        "frames": {"short_side": 64},
        "encoders": {
            modality: {"name": name, "crop": 64} for modality, name in artificial.ENCODERS.items()
        },
        "filter": {"kind": "ss-tcn", "channels": 8, "layers": 2},
        "optimiser": {"epochs": 2, "batch_size": 4},
        "seeds": [0, 1],
        "benchmark": {"tables": [3], "controls": ["untrained-teacher"], "figures": list(figures)},
        **fields,
    }


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    artificial.make(tmp_path)

    def call(recipe: dict[str, Any], *options: object) -> tuple[int, str, str]:
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(recipe))
        arguments = ["benchmark", path, "--output", tmp_path / "out", "--cache", tmp_path / "cache"]
        arguments += ["--annotations", tmp_path / "annotations.json", "--device", "cpu", *options]
        monkeypatch.setattr(sys, "argv", ["vidkd", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        code = end.value.code or 0
        assert isinstance(code, int)
        return code, captured.out, captured.err

    return call


def changed(folder: Path) -> dict[str, int]:
    """Return when each run's weights and each row's metrics were written."""
    paths = [*folder.rglob("weights.safetensors"), *folder.rglob("metrics.json")]
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in paths}


@pytest.mark.slow
def test_the_matrix_is_run_resumed_and_changed(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, text, err = run(recipe_of(), "--dry-run", "--json")
    plan = json.loads(text)
    assert code == 0
    assert not out.exists()
    # Teacher, vanilla, student, untrained teacher and its student, for two seeds.
    assert (plan["to_train"], plan["runs"]) == (10, 10)

    code, text, err = run(recipe_of(3, 4, 5, 6, 7), "--workers", 1, "--json")
    assert code == 0, err
    found = json.loads(text)
    table, control = found["tables"]
    assert [row["cells"][1] for row in table["rows"]] == [
        "OF teacher",
        "vanilla RGB",
        "two-stream",
        "augmented RGB",
    ]
    assert control["rows"][0]["cells"] == ["control: student of an untrained OF teacher"]
    for row in (*table["rows"], *control["rows"]):
        values = [seed["values"]["frame mAP"] for seed in row["seeds"]]
        assert len(values) == 2
        assert row["mean"]["frame mAP"] == pytest.approx(statistics.fmean(values))
        assert row["standard_deviation"]["frame mAP"] == pytest.approx(statistics.stdev(values))
        assert all(seed["facts"]["videos"] == 2 for seed in row["seeds"])
        assert all(seed["facts"]["validation"]["videos"] == 4 for seed in row["seeds"])
    # There are no videos to measure the inference time on, and nothing else is missing.
    assert len(found["notes"]) == 1
    assert "figure 3 left out" in found["notes"][0]
    assert len(list((out / "pictures").glob("*.png"))) == 4

    before = changed(out)
    code, text, _ = run(recipe_of(), "--workers", 1, "--json")
    assert code == 0
    assert json.loads(text)["tables"] == found["tables"]
    assert changed(out) == before

    heavier = recipe_of(distillation={"boundary": 0.5})
    code, _, err = run(heavier, "--workers", 1)
    assert code == 0, err
    touched = {name for name, when in changed(out).items() if before[name] != when}
    assert touched
    assert all("student" in name for name in touched)
    assert {name for name in before if "student" in name} == touched


@pytest.mark.slow
def test_a_failed_row_is_named_and_the_others_are_as_if_trained_alone(
    run: Run, tmp_path: Path
) -> None:
    foreign = tmp_path / "out" / "models" / "teacher-flow-seed1"
    foreign.mkdir(parents=True)
    (foreign / "notes.txt").write_text("not a run")
    code, _, err = run(recipe_of(seeds=[1]), "--subset", "validation", "--workers", 1)
    assert code == 1
    assert "failed: table-3: small, OF teacher, seed 1" in err
    assert "is not empty, and not a run" in err
    assert "small, vanilla RGB, seed" not in err
    assert not list((tmp_path / "out").rglob("testing"))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    counts = [len(row["seeds"]) for row in results["tables"][0]["rows"]]
    assert counts == [0, 1, 0, 0]

    import torch

    from vidkd.distillation import train
    from vidkd.recipe.jobs import TrainingJob
    from vidkd.workers import threads_per_worker

    threads = torch.get_num_threads()
    torch.set_num_threads(threads_per_worker(1))
    job = TrainingJob.model_validate(
        {
            "output": tmp_path / "alone",
            "cache": tmp_path / "cache",
            "annotations": tmp_path / "annotations.json",
            **{name: recipe_of()[name] for name in ("filter",)},
            "optimiser": {**recipe_of()["optimiser"], "seed": 1},
            "device": "cpu",
        }
    )
    try:
        train(job)
    finally:
        torch.set_num_threads(threads)
    alone = load_file(tmp_path / "alone" / "weights.safetensors")
    together = load_file(tmp_path / "out" / "models" / "vanilla-rgb-seed1" / "weights.safetensors")
    assert alone.keys() == together.keys()
    assert all(np.array_equal(alone[name], together[name]) for name in alone)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--tables", "1,7"), "1,2,3,4,5"),
        (("--subset", "training"), "trained on"),
        (("--subset", "nothing"), "no video in the subset 'nothing'"),
    ],
)
def test_wrong_usage_is_one_line(run: Run, options: tuple[str, str], words: str) -> None:
    code, text, err = run(recipe_of(), *options)
    assert code in {1, 2}
    assert not text
    assert words in err
    assert len(err.splitlines()) == 1


def test_features_that_are_missing_are_named_before_any_training(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cache" / "features" / "artificial-rgb" / "training-3.h5").unlink()
    code, text, _ = run(recipe_of(), "--dry-run", "--json")
    assert code == 0
    assert json.loads(text)["features"]["rgb"] == "1 of 14 videos have none (training-3)"
    code, _, err = run(recipe_of())
    assert code == 2
    assert "--videos FOLDER" in err
