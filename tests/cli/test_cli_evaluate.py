"""``vidkd evaluate`` as a process, and the prediction from runs behind it."""

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import vidkd

from vidkd.annotations import load_annotations
from vidkd.cache import CacheWriter, Provenance, Source, cache_path
from vidkd.cli import main
from vidkd.detection.predict import predict_runs
from vidkd.errors import CacheError, UsageError
from vidkd.evaluation import (
    DenseScores,
    Detection,
    evaluate,
    read_dense_scores,
    read_detections,
    write_dense_scores,
    write_detections,
)
from vidkd.networks import FilterHeader, build_temporal_filter, save_temporal_filter
from vidkd.recipe import FilterSettings, FrameSettings, SnippetSettings

DATA = os.environ.get("VIDKD_TEST_DATA")
real = pytest.mark.skipif(not DATA, reason="VIDKD_TEST_DATA is not set")
CLASSES = ("jump", "walk")
FILTER = FilterSettings(channels=8, layers=2)


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vidkd", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def success(*arguments: object) -> dict:
    done = vidkd("evaluate", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    def entry(subset: str, *segments: tuple[float, float, str]) -> dict:
        items = [{"segment": [s, e], "label": label} for s, e, label in segments]
        return {"subset": subset, "duration": 12.0, "annotations": items}

    path = tmp_path / "truth.json"
    content = {
        "classes": CLASSES,
        "database": {
            "v1": entry("testing", (0, 4, "jump"), (2, 9, "walk")),
            "v2": entry("testing", (6, 12, "jump")),
            "v3": entry("training", (0, 12, "walk")),
        },
    }
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    starts = np.arange(12.0)
    pts = np.stack([starts, starts + 1], axis=1)
    draw = np.random.default_rng(3)
    path = tmp_path / "scores.h5"
    write_dense_scores(
        path, DenseScores(CLASSES, {v: (draw.random((12, 2)), pts) for v in ("v1", "v2")})
    )
    return path


def test_frame_protocol(truth: Path, dense: Path) -> None:
    found = success("--predictions", dense, "--annotations", truth, "--protocol", "frame")
    expected = evaluate(
        read_dense_scores(dense), load_annotations(truth).subset("testing"), "frame"
    ).to_json()
    assert found == {**expected, "subset": "testing"}
    assert isinstance(found["map"], float)
    assert set(found["per_class"]) == set(CLASSES)
    assert (found["videos"], found["classes"], found["missing"]) == (2, 2, [])
    finer = success(
        "--predictions", dense, "--annotations", truth, "--protocol", "frame", "--frame-rate", 10
    )
    assert "10 frames/s" in finer["evaluated_on"]


def test_event_protocol(truth: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_detections(
        path, {"v1": [Detection("jump", 0.9, 0, 4), Detection("walk", 0.2, 0, 2)], "v9": []}
    )
    found = success(
        "--predictions", path, "--annotations", truth, "--protocol", "anet",
        "--subset", "testing", "--tiou", "0.1,0.5",
    )  # fmt: skip
    assert found["map"] == {"0.1": 0.25, "0.5": 0.25}
    assert found["per_class"] == {
        "jump": {"0.1": 0.5, "0.5": 0.5},
        "walk": {"0.1": 0.0, "0.5": 0.0},
    }
    assert found["missing"] == ["v2"]
    assert "v9" in " ".join(found["notes"])
    table = process(
        "evaluate", "--predictions", path, "--annotations", truth, "--protocol", "pku-mmd"
    )
    assert table.returncode == 0
    assert "mAP voc, all classes" in table.stdout
    assert "no predictions for 1 videos: v2" in table.stderr


@real
def test_official_values_through_the_command(tmp_path: Path) -> None:
    content = json.loads((Path(DATA or "") / "reference/evaluation.json").read_text())
    truth, results = tmp_path / "truth.json", tmp_path / "results.json"
    truth.write_text(json.dumps(content["ground_truth"]))
    results.write_text(json.dumps(content["predictions"]))
    rate, videos = content["frames"]["rate_hz"], {}
    for name, entry in content["frames"]["videos"].items():
        rows = np.array(entry["scores"])
        starts = np.arange(len(rows)) / rate
        videos[name] = (rows, np.stack([starts, (np.arange(len(rows)) + 1) / rate], axis=1))
    scores = tmp_path / "scores.h5"
    write_dense_scores(scores, DenseScores(tuple(content["frames"]["classes"]), videos))
    common = ("--annotations", truth, "--subset", "testing")
    expected = content["expected"]
    found = success("--predictions", scores, *common, "--protocol", "frame")
    assert found["map"] == pytest.approx(expected["frame_map_present"], abs=1e-9)
    assert found["map_all_classes"] == pytest.approx(expected["frame_map_all"], abs=1e-9)
    assert found["per_class"] == pytest.approx(expected["frame_ap"], abs=1e-9)
    for protocol, name in (("anet", "anet"), ("pku-mmd", "pku")):
        tiou = ",".join(expected[f"{name}_map"])
        found = success("--predictions", results, *common, "--protocol", protocol, "--tiou", tiou)
        assert found["map"] == pytest.approx(expected[f"{name}_map"], abs=1e-9)
        for label, values in expected[name].items():
            assert found["per_class"][label] == pytest.approx(values, abs=1e-9)


def test_errors_are_one_line_and_have_the_right_exit_code(
    truth: Path,
    dense: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    cases: list[tuple[int, str, tuple[object, ...]]] = [
        (2, "give either --predictions or --run", ("--annotations", truth)),
        (2, "name one with --protocol", ("--annotations", truth, "--predictions", dense)),
        (
            2,
            "give one of frame, charades-25",
            ("--annotations", truth, "--predictions", dense, "--protocol", "map"),
        ),
        (
            2,
            "--tiou x is not a list of numbers",
            ("--annotations", truth, "--predictions", dense, "--protocol", "anet", "--tiou", "x"),
        ),
        (2, "name their --cache", ("--annotations", truth, "--run", tmp_path)),
        (
            1,
            "broken.json: is not valid JSON",
            ("--annotations", broken, "--predictions", dense, "--protocol", "frame"),
        ),
        (
            1,
            "no video in the subset 'val'; name one of their subsets (testing, training)",
            (
                "--annotations", truth, "--predictions", dense, "--protocol", "frame",
                "--subset", "val",
            ),
        ),
        (
            1,
            "scores.h5: holds dense scores",
            ("--annotations", truth, "--predictions", dense, "--protocol", "anet"),
        ),
    ]  # fmt: skip
    for code, message, arguments in cases:
        monkeypatch.setattr(sys, "argv", ["vidkd", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        done = capsys.readouterr()
        assert caught.value.code == code, arguments
        assert message in done.err
        assert done.err.count("\n") == 1
        assert done.out == ""


Features = Callable[..., np.ndarray]


@pytest.fixture
def features(tmp_path: Path) -> Features:
    def write(
        encoder: str, video: str, *, sha: str = "0" * 64, short_side: int = 128, shift: float = 0.0
    ) -> np.ndarray:
        seed = zlib.crc32(f"{encoder} {video}".encode())
        rows = np.random.default_rng(seed).normal(size=(9, 6))
        starts = np.arange(9) * 1.5 + shift
        provenance = Provenance(
            artefact="features",
            source=Source(f"{video}.mp4", 1, "1" * 64, Fraction(10), 90),
            settings={
                "modality": "flow" if "flow" in encoder else "rgb",
                "frames": FrameSettings(short_side=short_side).model_dump(mode="json"),
                "snippet": SnippetSettings().model_dump(mode="json"),
                "crop": 112,
            },
            encoder=encoder,
            weights_sha256=sha,
        )
        path = cache_path(tmp_path / "cache", "features", video, encoder)
        with CacheWriter(path, provenance, (6,), np.float32) as writer:
            writer.append(rows.astype(np.float32), np.stack([starts, starts + 1.5], axis=1))
        return rows.astype(np.float32)

    return write


def make_run(path: Path, encoder: str, classes: tuple[str, ...] = CLASSES, **facts: object) -> Path:
    torch.manual_seed(len(encoder))
    module = build_temporal_filter(FILTER, 6, len(classes))
    header = FilterHeader(
        filter=FILTER,
        in_features=6,
        classes=classes,
        modality="flow" if "flow" in encoder else "rgb",
        encoder=encoder,
        encoder_sha256="0" * 64,
        frames=FrameSettings(short_side=128),
        crop=112,
        **facts,
    )
    save_temporal_filter(path / "weights.safetensors", module, header)
    return path


def logits(run: Path, rows: np.ndarray) -> np.ndarray:
    from vidkd.networks import load_temporal_filter

    module, _ = load_temporal_filter(run, "cpu")
    with torch.no_grad():
        x = torch.from_numpy(rows)[None]
        return module(x, torch.ones(1, len(rows), dtype=torch.bool)).logits[0].numpy()


def test_runs_are_fused_by_the_mean_of_their_logits(
    tmp_path: Path, truth: Path, features: Features
) -> None:
    rgb, flow = make_run(tmp_path / "rgb", "i3d-rgb"), make_run(tmp_path / "flow", "i3d-flow")
    rows = {
        (encoder, video): features(encoder, f"folder/{video}")
        for encoder in ("i3d-rgb", "i3d-flow")
        for video in ("v1", "v2")
    }
    cache, scores, results = tmp_path / "cache", tmp_path / "out.h5", tmp_path / "out.json"
    arguments = ("--cache", cache, "--annotations", truth, "--subset", "testing", "--device", "cpu")
    found = success(
        "--run", rgb, "--run", flow, *arguments, "--scores-out", scores, "--detections-out", results
    )
    assert found["protocol"] == "frame"
    kept = read_dense_scores(scores)
    for video in ("v1", "v2"):
        mean = (logits(rgb, rows["i3d-rgb", video]) + logits(flow, rows["i3d-flow", video])) / 2
        assert kept.videos[video][0] == pytest.approx(1 / (1 + np.exp(-mean)), abs=1e-6)
        assert kept.videos[video][1][-1].tolist() == [12.0, 13.5]
    truth_of_test = load_annotations(truth).subset("testing")
    again = evaluate(kept, truth_of_test, "frame", subset="testing").to_json()
    assert again == found
    events = success("--run", rgb, "--run", flow, *arguments, "--protocol", "anet")
    detections = read_detections(results)
    assert set(detections) == {"v1", "v2"}
    assert events == evaluate(detections, truth_of_test, "anet", subset="testing").to_json()


def test_features_that_do_not_fit_the_run_are_refused(tmp_path: Path, features: Features) -> None:
    rgb, flow = make_run(tmp_path / "rgb", "i3d-rgb"), make_run(tmp_path / "flow", "i3d-flow")
    cache = tmp_path / "cache"

    def predict(*runs: Path, **options: bool) -> DenseScores:
        return predict_runs(runs, cache, ["v1", "v2"], device="cpu", **options)

    with pytest.raises(CacheError, match=r"no features of v1 \(i3d-rgb\), v2 \(i3d-rgb\)"):
        predict(rgb)
    features("i3d-rgb", "v1")
    with pytest.raises(CacheError, match=r"no features of v2 .*extract-features"):
        predict(rgb)
    assert set(predict(rgb, skip_missing=True).videos) == {"v1"}
    features("i3d-rgb", "v2", sha="f" * 64)
    with pytest.raises(CacheError, match=r"v2.h5.*weights of the encoder is .f+"):
        predict(rgb)
    features("i3d-rgb", "v2", short_side=256)
    with pytest.raises(CacheError, match=r"frames.short_side is 256 \(asked for: 128\)"):
        predict(rgb)
    features("i3d-rgb", "v2")
    features("i3d-flow", "v1")
    features("i3d-flow", "v2", shift=0.1)
    with pytest.raises(CacheError, match="at other times"):
        predict(rgb, flow)
    other = make_run(tmp_path / "other", "i3d-flow", ("jump", "run"))
    features("i3d-flow", "v2")
    assert predict(rgb, other).classes == (*predict(rgb).classes, "run")
    features("i3d-rgb", "elsewhere/v3")
    features("i3d-rgb", "anywhere/v3")
    with pytest.raises(UsageError, match="several files belong to video 'v3'"):
        predict_runs([rgb], cache, ["v3"], device="cpu")
    named = predict_runs([rgb], cache, ["elsewhere/v3"], device="cpu")
    assert set(named.videos) == {"elsewhere/v3"}


def test_online_detection_has_calibrated_ap_and_delays(tmp_path: Path, features: Features) -> None:
    run = make_run(tmp_path / "rgb", "i3d-rgb", thresholds=(0.6, 0.4))
    features("i3d-rgb", "v1")
    entry = {"duration": 12, "annotations": [{"segment": [2, 9], "label": "walk"}]}
    truth = tmp_path / "one.json"
    truth.write_text(json.dumps({"classes": CLASSES, "database": {"v1": entry}}))
    where = ("--cache", tmp_path / "cache", "--annotations", truth, "--protocol", "oad")
    scores = tmp_path / "scores.h5"
    found = success("--run", run, *where, "--scores-out", scores, "--device", "cpu")
    assert list(found["delays"]) == ["5_percent_false_positives", "own_thresholds"]
    assert found["delays"]["own_thresholds"]["per_class"]["walk"]["threshold"] == pytest.approx(0.4)
    assert {"map", "map_calibrated"} <= set(found)
    arguments = ("--predictions", scores, *where[2:])
    assert list(success(*arguments)["delays"]) == ["5_percent_false_positives"]
    shown = vidkd("evaluate", *arguments)
    assert "median delay, s" in shown.stdout
    assert "mAP calibrated" in shown.stdout
