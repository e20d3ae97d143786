from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from vidkd.cli import app
from vidkd.errors import UsageError, WeightsError

runner = CliRunner()


@pytest.fixture(autouse=True)
def empty_models_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDKD_MODELS", str(tmp_path / "models"))


def test_list_as_json():
    result = runner.invoke(app, ["models", "list", "--json"])
    assert result.exit_code == 0
    entries = {entry["name"]: entry for entry in json.loads(result.stdout)}
    assert entries["i3d-rgb-kinetics400"]["modality"] == "rgb"
    assert entries["i3d-flow-inflated"]["fetched"] is False


def test_list_as_a_table():
    result = runner.invoke(app, ["models", "list"])
    assert result.exit_code == 0
    assert "i3d-rgb-kinetics400" in result.stdout


def test_unknown_names_are_wrong_usage():
    for command in ("fetch", "verify"):
        result = runner.invoke(app, ["models", command, "nonsense"])
        assert isinstance(result.exception, UsageError)
        assert "i3d-rgb-kinetics400" in str(result.exception)
    result = runner.invoke(app, ["models", "fetch", "i3d-rgb-kinetics400", "--source", "nonsense"])
    assert isinstance(result.exception, UsageError)


def test_fetch_from_a_file_that_is_something_else(tmp_path):
    path = tmp_path / "rgb_imagenet.pt"
    path.write_text("not weights")
    result = runner.invoke(app, ["models", "fetch", "i3d-rgb-kinetics400", "--from", str(path)])
    assert isinstance(result.exception, WeightsError)
    assert str(path) in str(result.exception)


def test_verify_fails_when_weights_are_missing():
    result = runner.invoke(app, ["models", "verify", "i3d-rgb-kinetics400", "--json"])
    assert result.exit_code == 1
    (entry,) = json.loads(result.stdout)
    assert entry["passed"] is False
    assert "vidkd models fetch" in entry["message"]


def test_verify_without_any_weights_passes():
    result = runner.invoke(app, ["models", "verify"])
    assert result.exit_code == 0
