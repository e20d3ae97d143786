"""``vidkd data`` as commands, and training on imported features."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "distillation"))

import artificial

from vidkd.annotations import Segment, load_annotations
from vidkd.cache import CacheFile
from vidkd.cli import main
from vidkd.detection.detector import Detector
from vidkd.errors import UsageError
from vidkd.evaluation import (
    DenseScores,
    Detection,
    read_detections,
    write_dense_scores,
    write_detections,
)
from vidkd.networks import load_temporal_filter
from vidkd.video import VideoWriter

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
    # Of this data set drawn at random, two subsets lack a class.
    assert code == 0
    assert {item["kind"] for item in json.loads(out)["findings"]} == {"unmeasured-class"}

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
    assert "0 errors, 10 warnings" in err
    assert "and 3 more" not in run(*arguments, "--all")[1]
    code, out, _ = run(*arguments, "--encoder", "absent", "--json")
    assert code == 1
    assert json.loads(out)["errors"] == 14
    assert run("data", "check", "--annotations", truth, "--encoder", "x")[0] == 2


def test_export_of_both_kinds_of_predictions(run: Run, tmp_path: Path) -> None:
    truth = tmp_path / "truth.json"
    entry = {"subset": "testing", "duration": 4.0, "annotations": []}
    names = [f"c{number:03d}" for number in range(157)]
    database = {"v1": entry, "v2": entry, "v3": {"subset": "training", "annotations": []}}
    truth.write_text(json.dumps({"classes": names, "database": database}))
    pts = np.arange(4)[:, None] + np.array([0.0, 1.0])
    scores = {name: (np.tile([[0.0], [0.9], [0.9], [0.0]], 157), pts) for name in ("v1", "v2")}
    dense, events = tmp_path / "scores.h5", tmp_path / "detections.json"
    write_dense_scores(dense, DenseScores(tuple(names), scores))
    write_detections(events, {"v1": [Detection("7", 0.5, 0.0, 1.0)]})

    export = ["data", "export", "--output", tmp_path / "out", "--format"]
    to_charades = [*export, "charades-localization", "--predictions"]
    assert run(*to_charades, dense)[0] == 2
    assert run(*to_charades, events, "--annotations", truth)[0] == 2
    code, out, err = run(*to_charades, dense, "--annotations", truth)
    assert (code, out) == (0, "")
    assert "2 videos" in err
    assert len((tmp_path / "out").read_text().splitlines()) == 50
    assert run(*export, "activitynet", "--predictions", dense)[0] == 0
    best = read_detections(tmp_path / "out")["v1"][0]
    assert (best.start, best.end) == (1.0, 3.0)
    (tmp_path / "out").unlink()
    options = ["--predictions", events, "--annotations", truth]
    assert run(*export, "pku-mmd", *options)[0] == 0
    assert (tmp_path / "out" / "v1.txt").read_text() == "7,0.000,30.000,0.5\n"
    assert (tmp_path / "out" / "v2.txt").read_text() == ""
    code, _, err = run(*export, "pku-mmd", *options)
    assert (code, "--overwrite" in err) == (2, True)
    code, _, err = run(*export, "thumos14", "--predictions", events)
    assert (code, "no class of THUMOS14" in err) == (1, True)


def test_convert_holds_out_and_asks_the_videos(run: Run, tmp_path: Path) -> None:
    source, output = tmp_path / "thumos", tmp_path / "truth.json"
    source.mkdir()
    lines = [f"video_validation_{number} 1.0 2.5\n" for number in range(10)]
    (source / "Diving_val.txt").write_text("".join(lines))
    (source / "Diving_test.txt").write_text("video_test_1 0.5 1.0\n")
    (source / "Ambiguous_test.txt").write_text("video_test_1 1.0 1.5\n")
    (tmp_path / "videos").mkdir()
    with VideoWriter(tmp_path / "videos/video_test_1.mp4", 64, 64, Fraction(25)) as writer:
        for _ in range(50):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    options = ["--annotations", source, "--format", "thumos14", "--output", output]
    code, _, err = run("data", "convert", *options, "--hold-out", 0.2)
    assert (code, "--rename" in err or "no video in the subset 'training'" in err) == (2, True)
    options += ["--rename", "validation=training", "--hold-out", 0.2]
    code, _, err = run("data", "convert", *options, "--videos", tmp_path / "videos")
    assert code == 0
    assert "11 videos (1 testing, 8 training, 2 validation)" in err
    assert "no video for video_validation_0" in err
    found = load_annotations(output)
    original = load_annotations(source, "thumos14")
    assert found.classes == original.classes
    assert {k: v.segments for k, v in found.videos.items()} == {
        k: v.segments for k, v in original.videos.items()
    }
    test = found.videos["video_test_1"]
    assert (test.duration, test.frame_rate) == (2.0, 25.0)
    first = output.read_bytes()
    assert run("data", "convert", *options, "--videos", tmp_path / "videos")[0] == 0
    assert output.read_bytes() == first
    assert run("data", "convert", *options[:-1], 1.5)[0] == 2
    assert run("data", "convert", *options, "--rename", "validation")[0] == 2


def test_whole_subjects_are_held_out(run: Run, tmp_path: Path) -> None:
    source, output = tmp_path / "tsu.json", tmp_path / "truth.json"
    entry = {"subset": "", "duration": 250, "actions": [[3, 25, 50]]}
    names = [f"P{subject:02d}T{take:02d}C06" for subject in (3, 4, 6, 7, 9, 2) for take in (1, 2)]
    source.write_text(json.dumps(dict.fromkeys(names, entry)))
    options = ["--format", "tsu-cross-subject", "--output", output, "--hold-out", 0.3]
    assert run("data", "convert", "--annotations", source, *options)[0] == 0
    found = load_annotations(output)
    subjects = {
        subset: {video.attributes["subject"] for video in found.subset(subset).videos.values()}
        for subset in found.subsets
    }
    assert subjects["testing"] == {"02"}
    assert len(subjects["validation"]) in (1, 2)
    assert not subjects["validation"] & subjects["training"]
    assert subjects["validation"] | subjects["training"] == {"03", "04", "06", "07", "09"}


def test_a_folder_of_annotations_trains_without_its_ambiguous_segments(
    run: Run, tmp_path: Path
) -> None:
    source, cache = tmp_path / "thumos", tmp_path / "cache"
    source.mkdir()
    for name, subset in (("v1", "val"), ("v2", "val"), ("v3", "test")):
        for label in ("Diving", "Ambiguous"):
            with (source / f"{label}_{subset}.txt").open("a") as stream:
                stream.write(f"{name} 1.0 2.5\n")
        (tmp_path / "rgb").mkdir(exist_ok=True)
        np.save(tmp_path / "rgb" / f"{name}.npy", np.eye(9, 6, dtype=np.float32))
    assert run(*importing(tmp_path, cache, "rgb"))[0] == 0
    common = ["--cache", cache, "--annotations", source, "--format", "thumos14", "--device", "cpu"]
    options = ["--train-subset", "validation", "--validation-subset", "validation"]
    small = ["--channels", 4, "--layers", 1, "--epochs", 1, "--output", tmp_path / "run"]
    code, _, err = run("train-baseline", *common, *options, *small)
    assert code == 0, err
    header = load_temporal_filter(tmp_path / "run")[1]
    assert len(header.classes) == 20
    assert header.encoder == "my-rgb"
    code, out, err = run(
        "evaluate", "--run", tmp_path / "run", *common, "--json", "--protocol", "thumos14"
    )
    assert code == 0, err
    assert "1 ambiguous segments are ignored" in out


def test_detections_go_to_tools_and_labels_come_back(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "vidéos & more"
    folder.mkdir()
    with VideoWriter(folder / "ä 1.mp4", 64, 64, Fraction(25)) as writer:
        for _ in range(50):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    result, other = tmp_path / "one.json", tmp_path / "two.json"
    write_detections(
        result, {"ä 1": [Detection("wälk", 0.9, 0.4, 1.2), Detection("sit", 0.1, 0, 2)]}
    )
    write_detections(other, {"b": []})
    export = ["export", result, other, "--output"]
    code, out, err = run(*export, tmp_path / "elan", "--to", "elan", "--videos", folder, "--json")
    assert code == 0
    assert "no video for b" in err
    report = json.loads(out)
    assert [Path(file).name for file in report["files"]] == ["ä 1.eaf", "b.eaf"]
    assert (report["videos"], report["segments"]) == (2, 2)
    assert "2 scores left out: ELAN has no place for them" in report["notes"]
    assert (folder / "ä 1.mp4").as_uri() in (tmp_path / "elan/ä 1.eaf").read_text()
    code, _, err = run(*export, tmp_path / "elan", "--to", "elan")
    assert (code, "exists already" in err, "--overwrite" in err) == (2, True, True)
    corrected = tmp_path / "corrected.json"
    assert run("data", "convert", "--annotations", tmp_path / "elan", "--output", corrected)[0] == 0
    assert load_annotations(corrected).videos["ä 1"].segments[1] == Segment(0.4, 1.2, "wälk")
    # A decision list counts frames, which the videos know.
    assert run("export", result, "--output", tmp_path / "v.edl", "--to", "edl")[0] == 1
    options = ["--to", "edl", "--videos", folder, "--threshold", 0.5]
    assert run("export", result, "--output", tmp_path / "v.edl", *options)[0] == 0
    options = ["--annotations", tmp_path / "v.edl", "--videos", folder]
    assert run("data", "convert", *options, "--output", corrected, "--json")[0] == 0
    assert load_annotations(corrected).videos["ä 1"].segments == (Segment(0.4, 1.2, "wälk"),)
    code, _, err = run("export", result, result, "--output", tmp_path / "x", "--to", "csv")
    assert (code, "is in another result, too" in err) == (2, True)
    code, _, err = run("export", "ftp://host/r.json", "--output", tmp_path / "x", "--to", "csv")
    assert (code, "ftp://host/r.json is an address of a kind that is not read" in err) == (2, True)
    code, out, _ = run("data", "formats", "--json")
    assert json.loads(out)["written"]["elan"]["times"] == "milliseconds"
