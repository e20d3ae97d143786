"""``vidkd export STUDENT --format``: the folder alone gives detect's segments."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from exported_students import CLASSES, WIDTH, TinyFamily, write_encoder, write_student

from vidkd.deployment import export_student, folder
from vidkd.detection.detector import Detector
from vidkd.detection.scorers import StudentScorer
from vidkd.errors import UsageError, VidkdError
from vidkd.networks.zoo import ENCODERS
from vidkd.video import VideoWriter

# Another program's Python: neither of these can be imported there.
ALONE = """
import runpy, sys
sys.modules["vidkd"] = None
if "torch" not in sys.argv[1]:
    sys.modules["torch"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
AFFINE = ((0.5, 0.1), (2.0, -0.3), (1.0, 0.0))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """An encoder, students of it, and a video of changing colours."""
    path = tmp_path_factory.mktemp("export")
    generator = np.random.default_rng(0)
    with VideoWriter(path / "v ä.mp4", 96, 64, 10) as writer:
        for number in range(70):
            blocks = generator.integers(0, 256, (4, 6, 3)) * (number % 20 > 9)
            writer.write(blocks.astype(np.uint8).repeat(16, 0).repeat(16, 1))
    with mock.patch.dict(ENCODERS._own, {"tiny": TinyFamily()}):  # type: ignore[attr-defined]
        sha256 = write_encoder(path)
        yield SimpleNamespace(
            path=path,
            video=path / "v ä.mp4",
            head=write_student(path, sha256, segment_thresholds=(0.3, 0.5, 0.6)),
            causal=write_student(path, sha256, "causal-ss-tcn", 0, calibration=AFFINE),
            tcn=write_student(path, sha256, "ss-tcn", 2, classes=CLASSES[1:]),
            lstm=write_student(path, sha256, "lstm", 0),
            pose=write_student(path, sha256, "tgm", 0, modality="pose"),
            elsewhere=write_student(path, sha256, "tgm", 0, encoder="theirs", crop=41),
        )


def alone(script: Path, video: Path, threshold: float) -> list[tuple[object, ...]]:
    command = [sys.executable, "-I", "-c", ALONE, str(script), str(video), str(threshold)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    [(name, found)] = json.loads(done.stdout)["results"].items()
    assert name == video.stem
    return [(item["label"], *item["segment"], item["score"]) for item in found]


def detected(models: list[Path], video: Path) -> tuple[float, list[tuple[object, ...]]]:
    detector = Detector(models, "cpu")
    limit = float(np.quantile(detector(video).scores, 0.7))
    found = detector(video, threshold=limit).segments
    assert found
    return limit, [(item.label, item.start, item.end, item.score) for item in found]


def same(found: list[tuple[object, ...]], right: list[tuple[object, ...]]) -> None:
    found, right = sorted(found), sorted(right)
    assert [item[0] for item in found] == [item[0] for item in right]
    np.testing.assert_allclose(
        [item[1:] for item in found], [item[1:] for item in right], atol=1e-4
    )


def test_a_segment_head_in_onnx(made: SimpleNamespace, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from vidkd.cli.export import export

    export([made.head], tmp_path / "made", form="onnx")
    files = {"detector.json", "encoder.onnx", "filter.onnx", "run.py"}
    assert {file.name for file in (tmp_path / "made").iterdir()} == files
    assert [file.name for file in tmp_path.iterdir()] == ["made"]
    limit, right = detected([made.head], made.video)
    same(alone(tmp_path / "made" / "run.py", made.video, limit), right)
    with pytest.raises(UsageError, match="already"):
        export([made.head], tmp_path / "made", form="onnx")
    import onnxruntime

    graph = onnxruntime.InferenceSession(tmp_path / "made" / "encoder.onnx")
    [frames] = graph.get_inputs()
    assert frames.shape == ["batch", 4, "height", "width", 3]
    pictures = np.random.default_rng(1).integers(0, 256, (3, 4, 50, 41, 3), dtype=np.uint8)
    together = graph.run(None, {"frames": pictures})[0]
    single = [graph.run(None, {"frames": item[None]})[0][0] for item in pictures]
    np.testing.assert_allclose(together, single, atol=1e-6)


# OpenVINO gives signals a stack that goes with what it compiled: a later one ends the process.
_KEPT: list[object] = []


def test_a_causal_student_in_openvino_snippet_by_snippet(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    report = export_student([made.causal], tmp_path / "made", "openvino")
    assert report.scores < 1e-4
    limit, right = detected([made.causal], made.video)
    same(alone(tmp_path / "made" / "run.py", made.video, limit), right)
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    step = openvino.Core().compile_model(tmp_path / "made" / "stream.xml", "CPU", settings)
    _KEPT.append(step)
    rows = np.random.default_rng(2).standard_normal((2, 20, WIDTH), np.float32) * 0.1
    state = [
        np.zeros([2, *item.partial_shape[1:].to_shape()], np.float32) for item in step.inputs[1:]
    ]
    scores = []
    for time in range(20):
        score, *state = (item.copy() for item in step([rows[:, time], *state]).values())
        scores.append(score)
    scorer = StudentScorer([made.causal], torch.device("cpu"))
    pts = np.arange(20)[:, None] + np.array([0.0, 1.0])
    right = [scorer.scores([own], [pts])[0] for own in rows]
    np.testing.assert_allclose(np.stack(scores, 1), right, atol=1e-4)


def test_two_students_in_torch_export(made: SimpleNamespace, tmp_path: Path) -> None:
    models = [made.head, made.tcn]
    export_student(models, tmp_path / "torch", "torch-export")
    limit, right = detected(models, made.video)
    same(alone(tmp_path / "torch" / "run.py", made.video, limit), right)


def test_graphs_that_compute_something_else_are_not_left_behind(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    def wrong(fusion: object) -> torch.nn.Module:
        module = right(fusion)
        module.shift += 0.01
        return module

    right = folder.SequenceGraph
    with (
        mock.patch.object(folder, "SequenceGraph", wrong),
        pytest.raises(VidkdError, match=r"do not compute what the student does: scores differ by"),
    ):
        export_student([made.causal], tmp_path / "made", "torch-export")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("pose", "takes pose; what is exported takes frames"),
        ("lstm", "has an LSTM"),
        ("elsewhere", "was trained on features of 'theirs', which vidkd cannot run on video"),
    ],
)
def test_students_that_cannot_be_exported(
    made: SimpleNamespace, tmp_path: Path, name: str, problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        export_student([getattr(made, name)], tmp_path / "made", "torch-export")
    assert list(tmp_path.iterdir()) == []


def test_options_that_do_not_go_together(made: SimpleNamespace, tmp_path: Path) -> None:
    from vidkd.cli.export import export

    out = tmp_path / "made"
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="nothing says what to write"):
        export([made.head], out)
    with pytest.raises(UsageError, match="do not go together"):
        export([made.head], out, to="elan", form="onnx")
    with pytest.raises(UsageError, match="is no result"):
        export([made.head], out, to="elan")
    with pytest.raises(UsageError, match="is a result, not a student"):
        export([Path("result.json")], out, form="onnx")
    with pytest.raises(UsageError, match="no format 'elan' of graphs"):
        export([made.head], out, form="elan")
    with pytest.raises(UsageError, match="is no exported student"):
        export([made.head], tmp_path / "notes", form="torch-export", overwrite=True)
    with pytest.raises(UsageError, match="different encoders, or of different snippets"):
        export([made.head, made.elsewhere], out, form="torch-export")
    with (
        mock.patch.dict(sys.modules, {"onnxscript": None}),
        pytest.raises(UsageError, match=r"needs onnxscript.*vidkd\[onnx\]"),
    ):
        export([made.head], out, form="onnx")
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine"
