"""Training under torchrun: several processes end where one does."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vidkd.distillation import train
from vidkd.recipe.jobs import TrainingJob

SCRIPT = """\
import sys
import torch
from vidkd.distillation import train
from vidkd.recipe.jobs import TrainingJob

torch.set_num_threads(1)
train(TrainingJob.model_validate_json(sys.argv[1]))
"""


def train_together(job: TrainingJob, processes: int, folder: Path, script: str = SCRIPT) -> int:
    path = folder / "script.py"
    path.write_text(script)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(processes), str(path), job.model_dump_json()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    return done.returncode


def assert_same(one: Path, other: Path) -> None:
    tables = [list(csv.DictReader((run / "metrics.csv").open())) for run in (one, other)]
    assert len(tables[0]) == len(tables[1])
    for left, right in zip(*tables, strict=True):
        for name in left:
            assert float(left[name]) == pytest.approx(float(right[name]), rel=1e-3, abs=1e-5), name
    weights = [load_file(run / "weights.safetensors") for run in (one, other)]
    # Adam turns the sign of a gradient near zero into a whole step of the learning rate.
    far = [(value - weights[1][name]).abs().flatten() > 1e-4 for name, value in weights[0].items()]
    assert torch.cat(far).float().mean() < 0.01


@pytest.mark.slow
def test_a_student_of_three_processes_is_that_of_one(
    job: Callable[..., TrainingJob], teacher: Path, tmp_path: Path
) -> None:
    # Dropout and noise are drawn for the whole batch, and the last batch of an epoch has fewer
    # rows than processes.
    fields: dict[str, Any] = {
        "teachers": (teacher,),
        "filter": {"dropout": 0.3, "noise": 0.1},
        "optimiser": {"epochs": 3, "batch_size": 3},
    }
    train(job("alone", **fields))
    assert train_together(job("together", **fields), 3, tmp_path) == 0
    assert_same(tmp_path / "alone", tmp_path / "together")


@pytest.mark.slow
def test_a_killed_run_goes_on_with_another_number_of_processes(
    job: Callable[..., TrainingJob], tmp_path: Path
) -> None:
    train(job("alone"))
    killed = job("killed")
    kill = SCRIPT.replace(
        "train(",
        """\
from vidkd.distillation.training import FilterTraining
FilterTraining.save_seconds = 0.0
before = FilterTraining._save

def save(self):
    before(self)
    import os
    os.kill(os.getpid(), 9)

FilterTraining._save = save
train(""",
        1,
    )
    assert train_together(killed, 2, tmp_path, kill) != 0
    assert not (killed.output / "result.json").exists()
    assert (killed.output / "last.pt").exists()
    assert train(killed).epochs == 3
    assert_same(tmp_path / "alone", killed.output)
