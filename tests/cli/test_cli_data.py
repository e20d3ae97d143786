"""``vidkd data`` as commands, and training on imported features."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "distillation"))

import artificial

from vidkd.cache import CacheFile
from vidkd.cli import main
from vidkd.detection.detector import Detector
from vidkd.errors import UsageError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; give its exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vidkd", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose features are ``.npy`` files, as other tools keep them."""
    root = tmp_path_factory.mktemp("npy")
    artificial.make(root)
    for modality, encoder in artificial.ENCODERS.items():
        for path in (root / "cache/features" / encoder).glob("*.h5"):
            (root / modality).mkdir(exist_ok=True)
            with CacheFile(path) as file:
                np.save(root / modality / f"{path.stem}.npy", file.rows()[:, None, None])
    return root


def importing(folder: Path, cache: Path, modality: str, *options: object) -> list[object]:
    return [
        *("data", "import-features", folder / modality, "--cache", cache, "--stride", 16),
        *("--encoder", f"my-{modality}", "--modality", modality, "--frame-rate", 25, *options),
    ]


def test_training_evaluation_and_refused_detection_on_imported_features(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    torch.set_num_threads(1)  # several get into each other's way on tensors this small
    cache, truth = tmp_path / "cache", folder / "annotations.json"
    for modality in ("rgb", "flow"):
        code, out, err = run(*importing(folder, cache, modality, "--json"))
        assert code == 0, err
        assert json.loads(out)["imported"] == 14
    code, out, _ = run(*importing(folder, cache, "rgb", "--subsets-from", truth))
    assert code == 0
    code, out, _ = run("data", "check", "--annotations", truth, "--cache", cache, "--json")
    assert (code, json.loads(out)["findings"]) == (0, [])

    common = ["--cache", cache, "--annotations", truth, "--device", "cpu", "--batch-size", 4]
    small = ["--channels", 8, "--layers", 2, "--learning-rate", 0.01]
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    assert run("train-teacher", *common, *small, "--epochs", 2, "--output", teacher)[0] == 0
    options = ["--epochs", 15, "--output", tmp_path / "vanilla", "--json"]
    code, out, err = run("train-baseline", *common, *small, *options)
    assert code == 0, err
    # Every action shows in the features of this data set.
    assert json.loads(out)["validation_map"] > 0.5
    options = ["--epochs", 2, "--output", student, "--teacher", teacher]
    assert run("distill", *common, *small, *options)[0] == 0
    runs = ["--run", tmp_path / "vanilla", "--run", teacher]
    code, out, _ = run("evaluate", *runs, *common[:4], "--device", "cpu", "--json")
    assert code == 0
    assert json.loads(out)["videos"] == 2
    with pytest.raises(UsageError, match="'my-rgb', which vidkd cannot run on video"):
        Detector(tmp_path / "vanilla", "cpu")


def test_import_names_what_failed(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "rgb").mkdir()
    (tmp_path / "rgb" / "bad.npy").write_bytes(b"nothing")
    np.save(tmp_path / "rgb" / "good.npy", np.ones((3, 4)))
    code, out, err = run(*importing(tmp_path, tmp_path / "cache", "rgb", "--json"))
    assert code == 1
    assert json.loads(out)["failures"].keys() == {"bad"}
    assert "failed: bad: " in err
    assert (tmp_path / "cache/features/my-rgb/good.h5").exists()
    code, _, err = run(*importing(tmp_path, tmp_path / "cache", "flow"))
    assert code == 2
    assert "is not a folder" in err


def test_check_prints_and_exits(run: Run, folder: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth.json"
    content = json.loads((folder / "annotations.json").read_text())
    entry = content["database"]["training-0"]
    entry["annotations"] += [{"segment": [100 + n, 900], "label": "class 0"} for n in range(8)]
    truth.write_text(json.dumps(content))
    assert run(*importing(folder, tmp_path / "cache", "rgb"))[0] == 0
    arguments = ["data", "check", "--annotations", truth, "--cache", tmp_path / "cache"]
    code, out, err = run(*arguments)
    assert code == 0
    assert "warning [segment-outside] training-0: 'class 0' [100, 900] lies past" in out
    assert "warning [segment-outside] and 3 more (--all shows them)" in out
    assert "0 errors, 8 warnings" in err
    assert "and 3 more" not in run(*arguments, "--all")[1]
    code, out, _ = run(*arguments, "--encoder", "absent", "--json")
    assert code == 1
    assert json.loads(out)["errors"] == 14
    assert run("data", "check", "--annotations", truth, "--encoder", "x")[0] == 2
