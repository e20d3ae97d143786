"""``vidkd train-teacher``, ``train-baseline`` and ``distill`` as commands."""

import json
import sys
from pathlib import Path

import pytest
import typer

sys.path.insert(0, str(Path(__file__).parents[1] / "distillation"))

import artificial

from vidkd.cli import app, main

SMALL = [
    "--epochs",
    "2",
    "--batch-size",
    "4",
    "--channels",
    "8",
    "--layers",
    "2",
    "--device",
    "cpu",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    artificial.make(folder)
    return folder


@pytest.fixture
def run(data, tmp_path, monkeypatch, capsys):
    """Run a command on the data set; give its exit code, standard output and standard error."""

    def call(command, output, *options, small=SMALL):
        arguments = [command, "--cache", data / "cache", "--annotations", data / "annotations.json"]
        arguments += ["--output", tmp_path / output, *small, *options]
        monkeypatch.setattr(sys, "argv", ["vidkd", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return call


def test_the_chain_of_commands(run, tmp_path):
    code, out, _ = run("train-teacher", "teacher", "--modality", "flow", "--json")
    teacher = json.loads(out)
    assert code == 0
    assert teacher["stage"] == "train-teacher"
    assert 0 <= teacher["validation_map"] <= 1
    code, out, _ = run("train-baseline", "vanilla")
    assert code == 0
    assert "validation frame mAP" in out
    code, out, _ = run("distill", "student", "--teacher", tmp_path / "teacher", "--json")
    student = json.loads(out)
    assert code == 0
    assert student["stage"] == "distill"
    assert student["output"] == str(tmp_path / "student")
    head = (tmp_path / "student" / "metrics.csv").read_text().splitlines()[0]
    assert "boundary_flow_weighted" in head
    code, out, err = run("distill", "student", "--teacher", tmp_path / "teacher", "--json")
    assert code == 0
    assert json.loads(out)["skipped"]
    assert "done before" in err


def test_other_settings_are_refused_until_overwritten(run):
    assert run("train-baseline", "run")[0] == 0
    code, out, err = run("train-baseline", "run", "--seed", "5")
    assert code == 2
    assert out == ""
    assert "optimiser.seed is 0 (asked for: 5)" in err
    assert "--overwrite" in err
    assert run("train-baseline", "run", "--seed", "5", "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("command", "options", "code", "message"),
    [
        ("train-baseline", ["--encoder", "none-such"], 2, "none-such"),
        (
            "train-baseline",
            ["--learning-rate", "-1"],
            2,
            "--learning-rate -1 should be",
        ),
        ("train-baseline", ["--device", "tpu"], 2, "tpu"),
        ("train-baseline", ["--validation-subset", "dev"], 1, "dev"),
        (
            "train-teacher",
            ["--filter", "nope"],
            2,
            "one of ss-tcn, causal-ss-tcn, local-attention, tgm, lstm",
        ),
        ("train-teacher", ["--modality", "pose"], 2, "no pose features"),
        ("distill", ["--teacher", "nowhere"], 1, "nowhere"),
    ],
)
def test_errors_are_one_line(run, command, options, code, message):
    found, out, err = run(command, "run", *options)
    assert found == code
    assert out == ""
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_the_commands_are_registered():
    names = set(typer.main.get_group(app).commands)
    assert {"train-teacher", "train-baseline", "distill"} <= names
