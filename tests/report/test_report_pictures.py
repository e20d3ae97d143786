"""Pictures: what is chosen, where it is drawn, and that files are whole."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vidkd.annotations import Segment
from vidkd.errors import UsageError, VidkdError
from vidkd.evaluation import Detection
from vidkd.report.curves import draw_curves, read_metrics
from vidkd.report.overlay import Overlay, render_overlay
from vidkd.report.segments import PALETTE, choose_labels, clock, rgb, segment_rows
from vidkd.report.timeline import Timeline, _figure, draw_timeline
from vidkd.video import VideoWriter, probe, read_frames

CLASSES = ("walk", "sit down", "drink")
SEGMENTS = [Detection("drink", 0.9, 2.0, 6.0), Detection("walk", 0.6, 5.0, 10.0)]
PTS = np.stack([np.arange(10.0), np.arange(10.0) + 1], axis=1)
SCORES = np.random.default_rng(0).random((10, 3))


def timeline(**changes):
    known = {"title": "a video", "duration": 10.0, "classes": CLASSES, "segments": SEGMENTS}
    return Timeline(**{**known, **changes})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "00:00.0"),
        (59.94, "00:59.9"),
        (59.96, "01:00.0"),
        (3599.96, "1:00:00.0"),
        (-1, "00:00.0"),
    ],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_rows_are_sorted_by_start():
    rows = segment_rows(reversed(SEGMENTS))
    assert rows == [
        ("drink", "00:02.0", "00:06.0", "0.90"),
        ("walk", "00:05.0", "00:10.0", "0.60"),
    ]


class TestLabels:
    def test_classes_with_segments_in_order_of_appearance(self):
        assert choose_labels(CLASSES, SCORES, SEGMENTS, (), limit=9) == ["drink", "walk"]

    def test_the_longest_stay_when_there_are_too_many(self):
        truth = [Segment(0, 1, "x"), Segment(0, 9, "sit down")]
        assert choose_labels(CLASSES, None, SEGMENTS, truth, limit=2) == ["sit down", "drink"]

    def test_free_rows_go_to_the_highest_scores(self):
        scores = np.array([[0.1, 0.2, 0.0], [0.3, 0.0, 0.9]])
        assert choose_labels(CLASSES, scores, [], (), limit=5, minimum=2) == ["drink", "walk"]

    def test_nothing_known_is_no_row(self):
        assert choose_labels((), None, [], (), limit=5, minimum=3) == []


class TestTimeline:
    def test_bars_lie_at_the_times_of_the_segments(self):
        figure = _figure(timeline(truth=[Segment(1, 3, "drink")]), ["drink", "walk"])
        assert isinstance(figure, Figure)
        bars = [
            (bar.get_x(), bar.get_x() + bar.get_width())
            for container in figure.axes[0].containers
            for bar in container
        ]
        expected = [(1, 3), (2, 6), (5, 10)]
        assert len(bars) == 3
        for found, wanted in zip(sorted(bars), expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=0.02)

    def test_curves_reach_from_the_first_to_the_last_second(self):
        figure = _figure(timeline(scores=SCORES, pts=PTS), ["drink"])
        (curve,) = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]
        np.testing.assert_allclose(curve.get_xdata(), [0, *PTS.mean(axis=1), 10])
        values = np.asarray(curve.get_ydata())
        column = np.concatenate([SCORES[:1, 2], SCORES[:, 2], SCORES[-1:, 2]])
        assert np.corrcoef(values, column)[0, 1] == pytest.approx(1.0)
        assert values.min() > 0
        assert values.max() < 1

    @pytest.mark.parametrize(
        "duration", [0.0, 0.04, 1.3, 7.0, 59.8, 600.0, 5000.0, 30_000.0, 400_000.0]
    )
    def test_the_axis_has_a_readable_number_of_marks(self, duration):
        figure = _figure(timeline(duration=duration, segments=[]), [])
        marks = figure.axes[0].get_xticks()
        assert 1 <= len(marks) <= 13
        assert len({label.get_text() for label in figure.axes[0].get_xticklabels()}) == len(marks)

    @pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
    def test_file(self, tmp_path, ending):
        path = tmp_path / f"picture.{ending}"
        frames = [np.full((48, 64, 3), 60 * n, np.uint8) for n in range(4)]
        draw_timeline(
            path,
            timeline(scores=SCORES, pts=PTS, truth=[], threshold=0.5, frames=frames),
            limit=1,
        )
        assert path.stat().st_size > 5000
        assert list(tmp_path.iterdir()) == [path]
        if ending == "png":
            with Image.open(path) as picture:
                picture.load()
                assert picture.width == 1650

    def test_an_unwritable_place_is_named(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(VidkdError, match="cannot be written"):
            draw_timeline(tmp_path / "file" / "picture.png", timeline())


class TestOverlay:
    def test_the_picture_is_kept_and_the_bar_lies_at_its_time(self):
        overlay = Overlay(320, 240, 10.0, CLASSES, SEGMENTS)
        image = np.full((240, 320, 3), 90, np.uint8)
        drawn = overlay.draw(image, 0.5)
        assert drawn.shape == (overlay.size[1], 320, 3)
        np.testing.assert_array_equal(drawn[:240], image)
        drawn = overlay.draw(image, 3.0)
        assert (drawn[:60] != 90).any()
        np.testing.assert_array_equal(drawn[120:240], image[120:])
        # The first row is the first class to happen, in the first colour.
        rows, columns = np.nonzero((overlay.draw(image, 9.9)[240:] == rgb(PALETTE[0])).all(axis=2))
        assert len(rows) > 20
        left, width = overlay._left, overlay._track
        assert columns.min() == pytest.approx(left + 0.2 * width, abs=2)
        assert columns.max() == pytest.approx(left + 0.6 * width, abs=2)

    def test_odd_sizes_and_long_names_fit(self):
        segments = [Detection("a very long name of an action " * 5, 0.5, 0.0, 5.0)]
        overlay = Overlay(201, 151, 5.0, (), segments, truth=[Segment(0, 9, "another")])
        drawn = overlay.draw(np.zeros((151, 201, 3), np.uint8), 1.0)
        assert drawn.shape[1] == 201
        assert drawn.shape[0] % 2 == 0

    def test_no_segments(self):
        drawn = Overlay(160, 120, 5.0, CLASSES, []).draw(np.zeros((120, 160, 3), np.uint8), 1.0)
        assert drawn.shape[0] > 120

    def test_video_has_all_frames_at_their_times(self, tmp_path):
        source, path = tmp_path / "in.mp4", tmp_path / "out.mp4"
        with VideoWriter(source, 96, 64, 10) as writer:
            for number in range(25):
                writer.write(np.full((64, 96, 3), 10 * number, np.uint8))
        done = []
        render_overlay(source, path, 2.5, CLASSES, SEGMENTS, report=done.append)
        frames = list(read_frames(path))
        assert sum(done) == len(frames) == 25
        assert probe(path).codec == "h264"
        height, width = frames[0].image.shape[:2]
        assert width == 540
        assert height > 360
        # At 0.5 s nothing is detected and the picture is as it was, but larger.
        centre = frames[5].image[:360].mean()
        assert centre == pytest.approx(50, abs=4)
        assert frames[-1].end == pytest.approx(2.5, abs=1e-3)


class TestCurves:
    def write(self, folder, extra=""):
        folder.mkdir(parents=True)
        lines = [f"epoch,classification{extra and ',atomic_flow_weighted'},validation_map"]
        lines += [
            f"{epoch},{1 / epoch}{extra and ',0.1'},{math.sin(epoch) ** 2}" for epoch in range(1, 9)
        ]
        (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
        return folder

    def test_columns(self, tmp_path):
        table = read_metrics(self.write(tmp_path / "run"))
        np.testing.assert_allclose(table["classification"], 1 / np.arange(1, 9))

    def test_picture_of_several_runs(self, tmp_path):
        runs = [self.write(tmp_path / "a"), self.write(tmp_path / "b", extra="atomic")]
        draw_curves(tmp_path / "curves.png", runs)
        with Image.open(tmp_path / "curves.png") as picture:
            assert picture.width > 2000
        draw_curves(tmp_path / "one.svg", runs[:1])
        assert (tmp_path / "one.svg").stat().st_size > 5000

    @pytest.mark.parametrize("text", [None, "", "epoch,loss\n", "a,b\n1,2\n", "epoch,loss\n1,x\n"])
    def test_what_is_no_run_is_named(self, tmp_path, text):
        if text is not None:
            (tmp_path / "metrics.csv").write_text(text)
        with pytest.raises(UsageError, match=r"metrics\.csv"):
            draw_curves(tmp_path / "curves.png", [tmp_path])
        assert not (tmp_path / "curves.png").exists()
