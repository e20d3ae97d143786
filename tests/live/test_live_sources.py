"""What people name as sources, the clocks of sources, and what is counted."""

from __future__ import annotations

import random

import numpy as np
import pytest

from vidkd.errors import UsageError
from vidkd.live.sources import find_sources, shown_address
from vidkd.live.statistics import Delays
from vidkd.live.timeline import Timeline
from vidkd.recipe import LiveSettings


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://10.0.0.7:554/cam?channel=1", "rtsp://10.0.0.7:554/cam?channel=1"),
        ("rtsp://me:secret@10.0.0.7/cam", "rtsp://***@10.0.0.7/cam"),
        ("rtsp://me:sec@r/et@10.0.0.7/cam", "rtsp://***@10.0.0.7/cam"),
        ("http://host/live?token=secret&channel=2", "http://host/live?token=***&channel=2"),
        ("http://host/live?channel=2&api_key=secret", "http://host/live?channel=2&api_key=***"),
        ("rtsp://10.0.0.7/user=me&password=secret&ch=1", "rtsp://10.0.0.7/user=***&password=***&ch=1"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
        ("videos/one.mp4", "one.mp4"),
        ("-", "stdin"),
    ],
)  # fmt: skip
def test_no_password_is_shown(address: str, shown: str) -> None:
    assert shown_address(address) == shown
    if "://" in address:
        (source,) = find_sources([address], None, LiveSettings())
        assert source.name == shown
        assert "secret" not in repr(source)


def test_every_source_has_a_name_of_its_own(tmp_path) -> None:
    listed = tmp_path / "cameras.txt"
    listed.write_text("# the cameras\nback=rtsp://me:secret@10.0.0.8/\n\n/dev/video1\n")
    given = ["door=rtsp://a:b@h/", "rtsp://c:d@h/", "rtsp://e:f@h/", "0", "a/x.mp4", "-"]
    found = find_sources(given, listed, LiveSettings(realtime=True))
    assert [(source.name, source.kind) for source in found] == [
        ("door", "network"),
        ("rtsp://***@h/", "network"),
        ("rtsp://***@h/#2", "network"),
        ("video0", "camera"),
        ("x.mp4", "paced"),
        ("stdin", "pipe"),
        ("back", "network"),
        ("video1", "camera"),
    ]


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        ([], {}, "there is no source"),
        (["-", "a=-"], {}, "standard input is one source"),
        (["a=x.mp4", "a=y.mp4"], {}, "two sources are called a"),
        (["file:///etc/passwd"], {}, "of no kind"),
        (["s3://me:secret@bucket/x"], {}, r"s3://\*\*\*@bucket/x is of no kind"),
        (["x.mp4"], {"realtime": True, "follow": True}, "exclude each other"),
    ],
)
def test_wrong_sources_are_refused(given, settings, message) -> None:
    with pytest.raises(UsageError, match=message):
        find_sources(given, None, LiveSettings(**settings))


def placed(
    timeline: Timeline, frames: list[tuple[float, float]]
) -> list[tuple[float, bool] | None]:
    """Place frames (time stamp, arrival) at 10 frames/s; seconds to 1 ms."""
    found = [timeline.place(stamp, arrival, 0.1) for stamp, arrival in frames]
    return [item and (round(item.second, 3), item.apart) for item in found]


def test_late_frames_are_dropped_and_lost_ones_leave_a_gap() -> None:
    frames = [(7.0, 0.0), (7.1, 0.1), (7.05, 0.15), (7.4, 0.4), (7.4, 0.41), (7.5, 0.5)]
    assert placed(Timeline(5, 1), frames) == [
        (0, False),
        (0.1, False),
        None,
        (0.4, False),
        (0.401, False),
        (0.5, False),
    ]


def test_a_camera_whose_clock_is_set_goes_on() -> None:
    frames = [(7.0, 0.0), (7.1, 0.1), (3600.0, 0.2), (3600.1, 0.3), (2.0, 0.5), (2.1, 0.6)]
    seconds = [(0, False), (0.1, False), (0.2, False), (0.3, False), (0.5, False), (0.6, False)]
    assert placed(Timeline(5, 1), frames) == seconds


def test_a_camera_that_pauses_begins_anew() -> None:
    frames = [(7.0, 0.0), (17.0, 10.0), (17.1, 10.1)]
    assert placed(Timeline(5, 1), frames) == [(0, False), (10, True), (10.1, False)]
    # Ten times as fast, a second of ours is ten of the source.
    frames = [(7.0, 0.0), (17.0, 1.0), (17.1, 1.01)]
    assert placed(Timeline(5, 10), frames) == [(0, False), (10, True), (10.1, False)]


def test_after_a_break_the_clock_on_the_wall_counts() -> None:
    timeline = Timeline(5, 1)
    assert placed(timeline, [(7.0, 0.0), (7.1, 0.1)])[-1] == (0.1, False)
    timeline.reopened()
    assert placed(timeline, [(50.0, 2.1), (50.1, 2.2)]) == [(2.1, False), (2.2, False)]
    timeline.reopened()
    assert placed(timeline, [(1.0, 12.2), (1.1, 12.3)]) == [(12.2, True), (12.3, False)]


def test_a_file_is_believed_and_another_begins_where_it_goes_back() -> None:
    timeline = Timeline(5, 1)
    timeline.live = False
    frames = [(7.0, 0.0), (7.1, 0.0), (60.0, 0.0), (60.1, 0.0), (0.0, 0.0), (0.1, 0.0)]
    assert placed(timeline, frames) == [
        (0, False),
        (0.1, False),
        (53, True),
        (53.1, False),
        (53.2, True),
        (53.3, False),
    ]


def test_streams_without_time_stamps_have_those_of_their_rate() -> None:
    timeline = Timeline(5, 1)
    found = [timeline.place(None, 0.01 * n, 0.1) for n in range(4)]
    assert [round(item.second, 3) for item in found if item] == [0, 0.1, 0.2, 0.3]


def test_quantiles_are_those_of_all_values_to_a_bucket() -> None:
    random.seed(0)
    values = [random.lognormvariate(-2, 1) for _ in range(3000)]
    parts = [Delays(), Delays()]
    for number, value in enumerate(values):
        parts[number % 2].add(value)
    together = Delays.together(parts)
    assert together.count == 3000
    assert together.total == pytest.approx(sum(values))
    for share in (0.01, 0.5, 0.99):
        wanted = float(np.quantile(values, share))
        assert wanted <= together.quantile(share) <= 1.11 * wanted
    assert Delays().quantile(0.5) is None
