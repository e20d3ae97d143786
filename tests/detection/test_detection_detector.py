"""The RGB-only detector: real decoding and real code, with a small encoder."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "hostile"))

from brightness import CLASSES, BrightnessEncoder, write_student, write_video
from unplugging import remux

import vidkd
from vidkd.cache import CacheFile
from vidkd.detection.detector import Detector, detect
from vidkd.errors import UsageError, VideoError, WeightsError
from vidkd.features import FeatureSettings, feature_task
from vidkd.networks import DEFAULT_ENCODER, find_card, load_temporal_filter
from vidkd.networks.cards import weights_path
from vidkd.recipe import SnippetSettings
from vidkd.streams import STREAMS
from vidkd.video import VideoFile, snippet_pts

_listeners = []


def watch_opening(listener):
    """Call ``listener`` with the name of every file that Python opens from now on."""
    if not _listeners:
        # A hook stays as long as the process.
        sys.addaudithook(lambda event, a: _listeners[-1](str(a[0])) if event == "open" else None)
    _listeners.append(listener)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return write_video(folder / "grounds.mp4", [("dark", 8), ("red", 8), ("bright", 8)])


class TestHead:
    def test_finds_what_is_shown_when_it_is_shown(self, video):
        result = detect(video, device="cpu", encoder=BrightnessEncoder())
        assert result.video_id == "grounds"
        assert [item.label for item in result.segments] == list(CLASSES)
        for item, start in zip(result.segments, (0, 8, 16), strict=True):
            assert item.start == pytest.approx(start, abs=1.3)
            assert item.end == pytest.approx(start + 8, abs=1.3)
            assert item.score > 0.8
        assert result.segments[0].start == 0.0
        assert result.segments[-1].end == pytest.approx(24.0, abs=1e-6)
        assert result.duration == pytest.approx(24.0, abs=1e-6)
        np.testing.assert_allclose(result.scores.sum(axis=1), 1.0, atol=1e-5)

    def test_windows_are_those_the_classifier_was_trained_on(self, video):
        encoder = BrightnessEncoder()
        result = detect(video, device="cpu", encoder=encoder)
        assert {shape[1:] for shape in encoder.shapes} == {(3, 64, 32, 32)}
        frames = np.stack([np.arange(600) / 25, np.arange(1, 601) / 25], axis=1)
        windows = SnippetSettings(length=64, stride=32)
        np.testing.assert_allclose(result.pts, snippet_pts(frames, windows), atol=1e-6)

    @pytest.mark.parametrize(("rate", "stride", "frames"), [(50, 32, 200), (10, 16, 80)])
    def test_fast_video_is_thinned_and_slow_video_is_not_repeated(
        self, tmp_path, rate, stride, frames
    ):
        path = write_video(tmp_path / "other.mp4", [("red", 8)], rate=rate)
        encoder = BrightnessEncoder()
        done = []
        result = detect(path, device="cpu", encoder=encoder, report=done.append)
        assert len(result.pts) == 1 + -(-(frames - 64) // stride)
        assert sum(done) == pytest.approx(frames)
        assert [item.label for item in result.segments] == ["red"]

    def test_a_single_frame_gives_scores_but_no_segment(self, tmp_path):
        path = write_video(tmp_path / "one.mp4", [("red", 0.04)])
        result = detect(path, device="cpu", encoder=BrightnessEncoder())
        assert result.scores.shape == (1, 3)
        assert result.segments == []
        assert result.best()[0] == "red"

    def test_a_higher_threshold_finds_less(self, video):
        encoder = BrightnessEncoder()
        assert detect(video, device="cpu", encoder=encoder, threshold=1.0).segments == []

    def test_proposals_are_ranked(self, video):
        ranks = [d.score for d in detect(video, encoder=BrightnessEncoder()).proposals()]
        assert len(ranks) >= 3
        assert ranks == sorted(ranks, reverse=True)

    def test_an_encoder_without_classes_is_refused(self):
        with pytest.raises(UsageError, match="no classes of its own"):
            Detector(encoder=BrightnessEncoder(classes=None))


class TestStudent:
    @pytest.mark.parametrize("modality", ["rgb", "rgb-difference"])
    def test_scores_are_those_of_the_filter_on_extracted_features(self, video, tmp_path, modality):
        path = write_student(tmp_path / "weights.safetensors", modality=modality)
        result = detect(video, tmp_path, "cpu", encoder=BrightnessEncoder(), batch_size=5)
        module, header = load_temporal_filter(path)
        settings = FeatureSettings(
            STREAMS[modality], "brightness", header.frames, header.snippet, 40, dtype="float32"
        )
        task = feature_task(tmp_path, settings, load=lambda name, device: BrightnessEncoder())
        with CacheFile(task(VideoFile(Path(video), "video")).path) as file:
            features, pts = file.rows(), file.pts
        with torch.inference_mode():
            mask = torch.ones(1, len(features), dtype=torch.bool)
            expected = torch.sigmoid(module(torch.from_numpy(features)[None], mask).logits[0])
        np.testing.assert_allclose(result.scores, expected.numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(result.pts, pts)
        assert result.classes == ("sit", "stand")

    def test_the_batch_size_changes_nothing(self, video, tmp_path):
        path = write_student(tmp_path / "student.safetensors")
        one, many = (
            detect(video, path, "cpu", encoder=BrightnessEncoder(), batch_size=size)
            for size in (1, 64)
        )
        np.testing.assert_allclose(one.scores, many.scores, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            (
                {"modality": "pose", "stream_settings": {"pose": {"backend": "files"}}},
                UsageError,
                "student.safetensors: was trained on poses from files",
            ),
            ({"encoder_sha256": "cd" * 32}, WeightsError, "with other weights"),
            ({"in_features": 5}, WeightsError, "takes features of width 5"),
        ],
    )
    def test_a_student_that_does_not_fit_is_refused(self, tmp_path, changes, error, message):
        path = write_student(tmp_path / "student.safetensors", **changes)
        with pytest.raises(error, match=message):
            Detector(path, "cpu", encoder=BrightnessEncoder())

    def test_a_student_on_imported_features_is_refused(self, tmp_path):
        path = write_student(tmp_path / "student.safetensors", encoder="somebody-elses")
        with pytest.raises(UsageError, match="'somebody-elses', which vidkd cannot run on video"):
            Detector(path, "cpu")


class TestOpening:
    @pytest.mark.parametrize(("ending", "rate"), [("mp4", 25), ("mp4", 50), ("mkv", 25)])
    def test_the_file_is_opened_once(self, tmp_path, ending, rate, monkeypatch):
        """By Python, and by FFmpeg; 50 frames/s are thinned, and MKV is searched for damage."""
        source = write_video(tmp_path / "v.mp4", [("red", 4)], rate=rate)
        path = remux(source, tmp_path / f"video.{ending}")
        opened = []
        watch_opening(lambda name: opened.append(name) if name == str(path) else None)
        open_container = av.open
        containers = []

        def counted(*arguments, **options):
            containers.append(arguments[0])
            return open_container(*arguments, **options)

        monkeypatch.setattr(av, "open", counted)
        result = detect(path, device="cpu", encoder=BrightnessEncoder())
        assert result.duration == pytest.approx(4.0, abs=0.02)
        assert (len(opened), len(containers)) == (1, 1)


class TestErrors:
    def test_a_missing_video(self, tmp_path):
        with pytest.raises(VideoError):
            detect(tmp_path / "missing.mp4", encoder=BrightnessEncoder())

    def test_what_is_no_video(self, tmp_path):
        path = tmp_path / "text.mp4"
        path.write_text("not a video")
        with pytest.raises(VideoError):
            detect(path, encoder=BrightnessEncoder())

    def test_a_failing_encoder_stops_the_reading_thread(self, video):
        class Broken(BrightnessEncoder):
            def logits(self, x):
                raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            detect(video, encoder=Broken(), batch_size=1)
        assert not [t for t in threading.enumerate() if t.name == "vidkd-read-ahead"]


def test_flow_and_pose_are_never_imported(video, tmp_path):
    student = write_student(tmp_path / "student.safetensors")
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from brightness import BrightnessEncoder
import vidkd
vidkd.detect({str(video)!r}, {str(student)!r}, "cpu", encoder=BrightnessEncoder())
loaded = [n for n in sys.modules if n.startswith(("vidkd.flow", "vidkd.pose", "numba", "cv2"))]
sys.exit(", ".join(loaded) or 0)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


needs_weights = pytest.mark.skipif(
    not weights_path(find_card(DEFAULT_ENCODER)).is_file(),
    reason="the weights were not fetched (`vidkd models fetch i3d-rgb-kinetics400`)",
)
DATA = Path(os.environ.get("VIDKD_TEST_DATA", "/nonexistent"))


@pytest.mark.slow
@needs_weights
@pytest.mark.skipif(not (DATA / "clips").is_dir(), reason="VIDKD_TEST_DATA is not set")
@pytest.mark.parametrize(
    ("name", "label"),
    [("arm_wrestling.mp4", "arm wrestling"), ("v_GGSY1Qvo990.mp4", "clean and jerk")],
)
def test_real_clips_are_named(name, label):
    result = vidkd.detect(DATA / "clips" / name, device="cpu")
    assert [item.label for item in result.segments] == [label]
    assert result.segments[0].score > 0.8
    assert result.segments[0].end - result.segments[0].start > 0.8 * result.duration


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_video(tmp_path):
    video = write_video(tmp_path / "long.mp4", [("red", 300)], size=(48, 32))
    resident = []

    def report(_):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident.append(pages * os.sysconf("SC_PAGE_SIZE"))

    detect(video, device="cpu", encoder=BrightnessEncoder(), report=report)
    assert len(resident) > 100
    # A fragmented heap grew by 90 MB here.
    assert max(resident) - resident[20] < 40e6
