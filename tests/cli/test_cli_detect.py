"""``vidkd detect`` and ``vidkd plot`` as commands."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "detection"))
sys.path.insert(0, str(Path(__file__).parents[1] / "hostile"))

from brightness import CLASSES, BrightnessEncoder, write_student, write_video
from unplugging import POSSIBLE, render, unplug

from vidkd.cache import CacheWriter, Provenance, Source
from vidkd.cli import main
from vidkd.detection import scorers as module
from vidkd.evaluation import read_dense_scores, read_detections
from vidkd.networks import load_temporal_filter
from vidkd.streams import Stream
from vidkd.video import probe, snippet_pts


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "one.mp4", [("red", 6), ("bright", 6)])
    write_video(folder / "two.mp4", [("dark", 6)])
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command in this process, with the small encoder in the place of I3D."""
    monkeypatch.setattr(module, "ensure_weights", lambda name: None)
    card = BrightnessEncoder().card
    monkeypatch.setattr(module, "zoo_card", lambda name: None if name == "their-net" else card)
    monkeypatch.setattr(module, "load_encoder", lambda name, device, precision: BrightnessEncoder())
    monkeypatch.setattr(Stream, "fetch_encoder", lambda self, name: None)
    monkeypatch.setattr(Stream, "load_encoder", lambda self, *_: BrightnessEncoder())

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["vidkd", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return call


def process(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "vidkd", *map(str, arguments)], capture_output=True, text=True
    )


class TestDetect:
    def test_table(self, run, videos):
        code, out, err = run("detect", videos / "one.mp4")
        assert code == 0
        rows = [line for line in out.splitlines() if "│" in line]
        assert ["red" in rows[0], "bright" in rows[1], len(rows)] == [True, True, 2]
        assert "00:00.0" in rows[0]
        assert "00:12.0" in rows[1]
        assert "400 Kinetics classes" in err

    def test_on_features_alone(self, run, videos, tmp_path):
        """Features that another program made, of which vidkd knows no encoder."""
        student = write_student(tmp_path / "s.safetensors", encoder="their-net")
        header = load_temporal_filter(student)[1]
        pts = snippet_pts(np.arange(81)[:, None] / 20 + [[0, 0.05]], header.snippet)
        rows = np.random.default_rng(0).normal(size=(len(pts), 3)).astype("f4")
        provenance = Provenance(
            artefact="features",
            source=Source("v.mp4", 1, "0" * 64, Fraction(20), 81),
            settings={
                "modality": "rgb",
                "frames": header.frames.model_dump(),
                "snippet": header.snippet.model_dump(),
                "imported": True,
            },
            encoder="their-net",
            weights_sha256=header.encoder_sha256,
        )
        folder = tmp_path / "cache" / "features" / "their-net"
        with CacheWriter(folder / "day1" / "v.h5", provenance, (3,), "float32") as writer:
            writer.append(rows, pts)
        code, _, err = run("detect", videos / "one.mp4", "--model", student)
        assert code == 2
        assert "--features FILE.h5" in err
        for place in (folder, folder / "day1" / "v.h5"):
            scores = tmp_path / "scores.h5"
            code, out, _ = run(
                *("detect", "--features", place, "--model", student, "--json"),
                *("--scores", scores, "--all-proposals"),
            )
            assert code == 0
            assert list(json.loads(out)["results"]) == ["v"]
            module, _ = load_temporal_filter(student)
            mask = torch.ones(1, len(rows), dtype=torch.bool)
            with torch.no_grad():
                expected = torch.sigmoid(module(torch.from_numpy(rows)[None], mask).logits[0])
            found = read_dense_scores(scores).videos["v"]
            np.testing.assert_allclose(found[0], expected, atol=1e-6)
            np.testing.assert_array_equal(found[1], pts)
        code, _, err = run("detect", videos / "one.mp4", "--features", folder, "--model", student)
        assert code == 2

    def test_files(self, run, videos, tmp_path):
        code, _, _ = run(
            "detect", videos / "one.mp4", "--output", tmp_path / "o.json",
            "--scores", tmp_path / "s.h5", "--plot", tmp_path / "p.png",
            "--render", tmp_path / "r.mp4",
        )  # fmt: skip
        assert code == 0
        document = json.loads((tmp_path / "o.json").read_text())
        assert list(document["results"]) == ["one"]
        starts = [item["segment"][0] for item in document["results"]["one"]]
        assert starts == sorted(starts)
        assert document["external_data"]["scores"] == "Kinetics-400 softmax"
        dense = read_dense_scores(tmp_path / "s.h5")
        assert dense.classes == CLASSES
        assert dense.videos["one"][0].shape[1] == 3
        with Image.open(tmp_path / "p.png") as picture:
            assert picture.width == 1650
        assert probe(tmp_path / "r.mp4").duration == pytest.approx(12.0, abs=0.1)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "o.json", "p.png", "r.mp4", "s.h5",
        ]  # fmt: skip

    def test_several_videos_into_folders_in_spite_of_a_bad_one(self, run, videos, tmp_path):
        bad = tmp_path / "bad.mp4"
        bad.write_text("not a video")
        code, out, err = run(
            "detect", videos / "one.mp4", bad, videos / "two.mp4", "--json",
            "--output", tmp_path / "o.json", "--plot", tmp_path / "plots",
        )  # fmt: skip
        assert code == 1
        assert f"error: {bad}: " in err
        assert "1 of 3 videos failed" in err
        results = json.loads(out)["results"]
        assert list(results) == ["one", "two"]
        assert results == json.loads((tmp_path / "o.json").read_text())["results"]
        assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
            "one.png", "two.png",
        ]  # fmt: skip

    @pytest.mark.skipif(not POSSIBLE, reason="needs Linux's /proc/self/mem")
    def test_a_disk_that_fails_costs_only_its_video(self, run, videos, tmp_path, monkeypatch):
        path = render(tmp_path / "long.mp4", 400)
        student = write_student(tmp_path / "weights.safetensors")
        unplugged = 0

        class Unplugging(BrightnessEncoder):
            def features(self, x):
                nonlocal unplugged
                unplugged += unplug(path)
                return super().features(x)

        monkeypatch.setattr(Stream, "load_encoder", lambda self, *_: Unplugging())
        target = tmp_path / "o.json"
        arguments = ["--model", student, "--batch-size", "1", "--output", target]
        code, _, err = run("detect", path, videos / "two.mp4", *arguments)
        assert (code, unplugged) == (1, 1)
        assert f"error: {path}: could not be read to its end" in err
        assert "Input/output error at byte" in err
        assert list(json.loads(target.read_text())["results"]) == ["two"]

    def test_all_proposals_have_no_threshold(self, run, videos, tmp_path):
        options = ["--threshold", "1"]
        run("detect", videos, "--output", tmp_path / "few.json", *options)
        run("detect", videos, "--output", tmp_path / "many.json", "--all-proposals", *options)
        few, many = (read_detections(tmp_path / f"{name}.json") for name in ("few", "many"))
        assert set(few) == set(many) == {"one", "two"}
        assert len(many["one"]) > len(few["one"]) == 0

    def test_a_student(self, run, videos, tmp_path):
        student = write_student(tmp_path / "weights.safetensors")
        code, out, err = run(
            "detect", videos / "two.mp4", "--model", tmp_path, "--threshold", "0", "--json"
        )
        assert (code, err) == (0, "")
        assert student.is_file()
        assert {item["label"] for item in json.loads(out)["results"]["two"]} == {"sit", "stand"}

    def test_nothing_found_says_what_was_nearest(self, run, videos):
        code, out, err = run("detect", videos / "two.mp4", "--threshold", "1")
        assert (code, out) == (0, "")
        assert "the highest score is 1.00, dark at" in err

    def test_an_unwritable_output_is_named(self, run, videos, tmp_path):
        (tmp_path / "file").write_text("")
        target = tmp_path / "file" / "o.json"
        code, _, err = run("detect", videos / "two.mp4", "--output", target)
        assert code == 1
        assert f"{target}: cannot be written" in err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((".", "--render", "one.mp4"), "--render needs a folder"),
            ((".", "--plot", "file"), "--plot needs a folder"),
            (("one.mp4", "--plot", "picture.txt"), "--plot needs a file that ends in"),
            (("one.mp4", "sub/one.mp4"), "share"),
            (("nothing",), "holds no video"),
            (("one.mp4", "--device", "gpu"), "unknown device 'gpu'"),
        ],
    )
    def test_wrong_usage(self, run, videos, tmp_path, monkeypatch, arguments, message):
        for name in ("one.mp4", "two.mp4", "sub/one.mp4"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes((videos / Path(name).name).read_bytes())
        if "." in arguments:
            (tmp_path / "sub/one.mp4").unlink()
        (tmp_path / "nothing").mkdir()
        (tmp_path / "file").write_text("")
        monkeypatch.chdir(tmp_path)
        code, _, err = run("detect", *arguments)
        assert code == 2
        assert message in err


class TestPlot:
    def test_timeline_beside_annotations(self, run, tmp_path):
        (tmp_path / "p.json").write_text(
            json.dumps({"results": {"v": [{"label": "sit", "score": 0.9, "segment": [1.0, 4.0]}]}})
        )
        (tmp_path / "a.json").write_text(
            json.dumps(
                {
                    "classes": ["sit", "stand"],
                    "database": {
                        "v": {
                            "subset": "testing",
                            "duration": 9.0,
                            "annotations": [{"label": "stand", "segment": [5.0, 8.0]}],
                        }
                    },
                }
            )
        )
        code, out, err = run(
            "plot", "--predictions", tmp_path / "p.json", "--annotations", tmp_path / "a.json",
            "--video", "v", "-o", tmp_path / "t.png",
        )  # fmt: skip
        assert (code, out) == (0, "")
        assert "wrote" in err
        assert (tmp_path / "t.png").is_file()
        code, _, err = run(
            "plot", "--predictions", tmp_path / "p.json", "--video", "w", "-o", tmp_path / "u.png"
        )
        assert code == 1
        assert "there is no video 'w'; name one of v" in err

    @pytest.mark.parametrize("arguments", [("-o", "x.png"), ("run", "-o", "x.txt"), ("run",)])
    def test_wrong_usage(self, run, arguments):
        assert run("plot", *arguments)[0] == 2


def test_errors_of_the_process_are_one_line(tmp_path):
    model = tmp_path / "student.safetensors"
    model.write_bytes(b"nonsense")
    video = write_video(tmp_path / "v.mp4", [("red", 1)])
    result = process("detect", video, "--model", model, "--output", tmp_path / "o.json")
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {model}: ")
    assert not (tmp_path / "o.json").exists()
