"""Several students on one video: shared frames, one time axis, weights, and one file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "features"))

from brightness import BrightnessEncoder, write_student
from pose_double import SNIPPET, encoder, load

from vidkd.annotations import Annotations, Segment, VideoAnnotation
from vidkd.cache import CacheFile
from vidkd.detection import detector as module
from vidkd.detection.detector import Detector
from vidkd.detection.fuse import fuse_runs
from vidkd.detection.predict import predict_runs
from vidkd.errors import UsageError
from vidkd.evaluation import DenseScores, evaluate
from vidkd.features import FeatureSettings, feature_task
from vidkd.features.poses import pose_task
from vidkd.networks import load_temporal_filter
from vidkd.networks.fusion_weights import load_fusion, save_fusion
from vidkd.recipe import FrameSettings, PoseSettings, SnippetSettings
from vidkd.streams import STREAMS
from vidkd.streams.rgb import Rgb
from vidkd.video import VideoFile, VideoWriter, read_sizes

FRAMES = FrameSettings(short_side=48)
NAMES = ("walk", "stay", "leave", "short")


def write(path: Path, frames: int, step: int, last: int) -> VideoFile:
    """Write a video in which a white square moves, and is gone from frame ``last`` on."""
    with VideoWriter(path, 160, 96, 25) as writer:
        for number in range(frames):
            image = np.full((96, 160, 3), 60 + number % 90, np.uint8)
            if number < last:
                image[30:50, 10 + step * number % 120 : 30 + step * number % 120] = 240
            writer.write(image)
    return VideoFile(path, path.stem)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Videos, a cache with their float32 features, and a student of RGB and one of poses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rgb, "load_encoder", lambda self, *_: BrightnessEncoder())
        patch.setattr(Rgb, "fetch_encoder", lambda self, name: None)
        patch.setattr("vidkd.detection.scorers.zoo_card", lambda name: name == "brightness" or None)
        patch.setattr("vidkd.pose.detector.load_pose_detector", load)
        folder = tmp_path_factory.mktemp("world")
        videos = [
            write(folder / f"{name}.mp4", *made)
            for name, made in zip(
                NAMES, [(90, 3, 90), (80, 0, 80), (70, 1, 0), (5, 1, 5)], strict=True
            )
        ]
        agcn = encoder(folder)
        snippets = {"rgb": SNIPPET, "pose": SnippetSettings(length=16, stride=16)}
        settings = PoseSettings(every=2)
        poses = pose_task(folder / "cache", FRAMES, settings, detector="white", load=load)
        students = {}
        for stream, name in {"rgb": "brightness", "pose": str(agcn)}.items():
            chosen = FeatureSettings(
                STREAMS[stream], name, FRAMES, snippets[stream], 40, dtype="float32", device="cpu"
            )
            given = {"load": lambda *_: BrightnessEncoder()} if stream == "rgb" else {}
            for video in videos:
                if stream == "pose":
                    poses(video, lambda amount: None, 1)
                made = feature_task(folder / "cache", chosen, **given)(video)
            with CacheFile(made.path) as file:
                found, width = file.provenance, file.data.shape[1]
            students[stream] = write_student(
                folder / "models" / stream / "weights.safetensors",
                modality=stream,
                encoder=found.encoder,
                encoder_sha256=found.weights_sha256,
                in_features=width,
                frames=FRAMES,
                snippet=snippets[stream],
                stream_settings={k: v for k, v in found.settings.items() if k == "pose"},
                thresholds=(0.4, 0.3),
            ).parent
        (folder / "models" / "small-agcn").symlink_to(agcn)
        truth = Annotations.of_labels(
            {
                name: VideoAnnotation(
                    name,
                    "validation",
                    3.6,
                    segments=(Segment(0.0, 1.2, "sit"), Segment(1.0 + number / 4, 2.6, "stand")),
                )
                for number, name in enumerate(NAMES)
            },
            ("sit", "stand"),
        )
        yield folder, videos, list(students.values()), truth


@pytest.fixture(scope="module")
def fused(world):
    folder, _, students, truth = world
    return fuse_runs(students, folder / "cache", truth, folder / "alone" / "fused.safetensors")


def unshifted(scores, thresholds):
    """Undo the shift of detect, after which the best threshold is 0.5."""
    logits = torch.logit(torch.from_numpy(scores).double()) + torch.logit(torch.tensor(thresholds))
    return torch.sigmoid(logits).numpy()


class TestDetect:
    def test_scores_of_a_video_are_those_of_the_cache(self, world, fused):
        """Also where nobody is seen, and in a video shorter than a snippet."""
        folder, videos, _, _ = world
        header = load_fusion(fused.output)[1]
        cached = predict_runs([fused.output], folder / "cache", NAMES, device="cpu").videos
        detector = Detector(fused.output, "cpu")
        for video in videos:
            done = []
            result = detector(video.path, report=done.append)
            scores, pts = cached[video.key]
            np.testing.assert_array_equal(result.pts, pts)
            expected = unshifted(result.scores, header.thresholds)
            np.testing.assert_allclose(expected, scores, atol=1e-5)
            assert sum(done) == {"walk": 90, "stay": 80, "leave": 70, "short": 5}[video.key]

    def test_several_models_are_averaged_on_the_finest_time_axis(self, world):
        _, videos, students, _ = world
        alone = [Detector(path, "cpu")(videos[0].path) for path in students]
        both = Detector(students, "cpu")(videos[0].path)
        np.testing.assert_array_equal(both.pts, alone[0].pts)
        logits = [torch.logit(torch.from_numpy(item.scores).double()).numpy() for item in alone]
        middle = [item.pts.mean(axis=1) for item in alone]
        for k in range(2):
            held = np.interp(middle[0], middle[1], logits[1][:, k])
            mean = 1 / (1 + np.exp(-(logits[0][:, k] + held) / 2))
            np.testing.assert_allclose(both.scores[:, k], mean, atol=1e-5)

    def test_the_video_is_decoded_once(self, world, monkeypatch):
        _, videos, students, _ = world
        read = []

        def counted(*given, **more):
            read.append(given[1])
            return read_sizes(*given, **more)

        monkeypatch.setattr(module, "read_sizes", counted)
        Detector(students, "cpu")(videos[0].path)
        assert read == [[48]]

    def test_students_of_the_same_features_share_them(self, world):
        _, videos, students, _ = world
        detector = Detector([students[0], students[0]], "cpu")
        assert len(detector.scorer.sources) == 1
        one, two = Detector(students[0], "cpu")(videos[0].path), detector(videos[0].path)
        np.testing.assert_allclose(one.scores, two.scores, atol=1e-6)

    def test_a_class_is_scored_by_those_that_know_it(self, world, tmp_path):
        _, videos, students, _ = world
        header = load_temporal_filter(students[0])[1]
        other = write_student(
            tmp_path / "other.safetensors", **{**dict(header), "classes": ("stand", "fall")}
        )
        both = Detector([students[0], other], "cpu")(videos[0].path)
        first, second = (Detector(path, "cpu")(videos[0].path) for path in (students[0], other))
        assert both.classes == ("sit", "stand", "fall")
        np.testing.assert_allclose(both.scores[:, 0], first.scores[:, 0], atol=1e-6)
        np.testing.assert_allclose(both.scores[:, 2], second.scores[:, 1], atol=1e-6)

    def test_other_poses_than_those_of_training_are_refused(self, world, tmp_path):
        header = load_temporal_filter(world[2][1])[1]
        made = {"pose": {**header.stream_settings["pose"], "weights_sha256": "ef" * 32}}
        other = write_student(
            tmp_path / "other.safetensors", **{**dict(header), "stream_settings": made}
        )
        with pytest.raises(Exception, match="trained on poses of white with other weights"):
            Detector(other, "cpu")


class TestFuse:
    def test_weights_are_the_best_of_the_grid(self, world, tmp_path):
        folder, _, students, truth = world
        target = tmp_path / "f.safetensors"
        found = fuse_runs(students, folder / "cache", truth, target, step=0.25, kind="per model")
        maps = []
        parts = [predict_runs([run], folder / "cache", NAMES, device="cpu") for run in students]
        for share in np.arange(5) / 4:
            videos = {}
            for name in NAMES:
                (fine, pts), (coarse, own) = (part.videos[name] for part in parts)
                logits = torch.logit(torch.from_numpy(np.stack([fine[:, k] for k in (0, 1)], 1)))
                held = torch.logit(torch.from_numpy(coarse)).numpy()
                middle, at = pts.mean(axis=1), own.mean(axis=1)
                held = np.stack([np.interp(middle, at, column) for column in held.T], axis=1)
                mean = (1 - share) * logits.double().numpy() + share * held
                videos[name] = 1 / (1 + np.exp(-mean)), pts
            maps.append(evaluate(DenseScores(("sit", "stand"), videos), truth, "frame").map)
        assert found.frame_map == pytest.approx(max(maps), abs=1e-6)
        assert found.alone[0] == pytest.approx(maps[0], abs=1e-6)

    def test_the_file_holds_students_encoder_and_where_it_is_from(self, world, fused):
        students, header = load_fusion(fused.output)
        assert [item.header.modality for item in students] == ["rgb", "pose"]
        assert [item.encoder is None for item in students] == [True, False]
        np.testing.assert_allclose(np.sum(header.weights, axis=0), 1)
        assert header.chosen_on["videos"] == sorted(NAMES)
        json.dumps(fused.to_json(), default=float)

    def test_a_student_without_weight_is_not_run(self, world, fused, tmp_path):
        _, videos, students, _ = world
        header = load_fusion(fused.output)[1]
        target = tmp_path / "alone.safetensors"
        alone = header.model_copy(update={"weights": ((1.0, 1.0), (0.0, 0.0))})
        save_fusion(target, alone, students, {})
        detector = Detector(target, "cpu")
        assert [source.stream.name for source in detector.scorer.sources] == ["rgb"]
        found, expected = (
            each(videos[0].path) for each in (detector, Detector(students[0], "cpu"))
        )
        np.testing.assert_allclose(
            unshifted(found.scores, header.thresholds),
            unshifted(expected.scores, (0.4, 0.3)),
            atol=1e-6,
        )

    def test_what_cannot_be_fused(self, world, fused, tmp_path):
        folder, _, students, truth = world
        target = tmp_path / "f.safetensors"
        for runs, message in [
            (students[:1], "nothing to fuse"),
            ([fused.output, students[0]], "holds several students already"),
        ]:
            with pytest.raises(UsageError, match=message):
                fuse_runs(runs, folder / "cache", truth, target)
        with pytest.raises(UsageError, match="to be the only model"):
            Detector([fused.output, students[0]], "cpu")
        assert not target.exists()
