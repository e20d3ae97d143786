"""A low rate decodes less and gives the same pictures."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from test_video_damage import textured

from vidkd.errors import VideoError
from vidkd.video import Frame, open_video, read_frames
from vidkd.video.sparse import _Sampler

UNEVEN = [Fraction(10 * number + number * number % 7, 250) for number in range(90)]
ENCODED = {
    "plain": {"options": {"bf": "0", "g": "10"}},
    "b-frames": {"options": {"bf": "3", "g": "10"}},
    "open-groups": {"options": {"bf": "3", "x264-params": "open-gop=1:b-pyramid=2:keyint=12"}},
    "one-group": {"options": {"bf": "2", "g": "250"}},
    "hevc": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=20"}},
}


def displayed(frames: list[Frame], rate: float) -> list[tuple[float, float, np.ndarray]]:
    """Pick from all frames of a video, by the definition of sampling."""
    end = frames[-1].end
    picked = []
    for tick in range(math.ceil((end - 1e-6) * rate)):
        second = tick / rate
        image = next(frame.image for frame in frames if second < frame.end - 1e-6)
        picked.append((second, min((tick + 1) / rate, end), image))
    return picked


@pytest.mark.parametrize(
    ("name", "kind"),
    [("v.mp4", kind) for kind in ENCODED] + [("v.mkv", "b-frames"), ("v.mkv", "open-groups")],
)
def test_sparse_pictures_are_those_of_the_whole(kind, name, tmp_path, encode, monkeypatch) -> None:
    path = encode(tmp_path / name, UNEVEN, draw=textured, **ENCODED[kind])
    whole = list(read_frames(path))
    decoded = 0
    receive = _Sampler._receive

    def counted(self: _Sampler, frames: list) -> None:
        nonlocal decoded
        decoded += len(frames)
        receive(self, frames)

    monkeypatch.setattr(_Sampler, "_receive", counted)
    for rate in (0.4, 2.3, 10):
        decoded = 0
        with open_video(path) as video:
            taken = [picture.start for picture in _Sampler(video, rate).pictures()]
        assert len(taken) <= math.ceil(whole[-1].end * rate) + 1
        assert decoded < len(whole) or rate == 10
        expected = displayed(whole, rate)
        frames = list(read_frames(path, frame_rate=rate))
        assert len(frames) == len(expected)
        for frame, (start, end, image) in zip(frames, expected, strict=True):
            assert (frame.start, frame.end) == pytest.approx((start, end), abs=1e-9)
            np.testing.assert_array_equal(frame.image, image)


def test_a_video_without_true_key_frames_is_read_whole(tmp_path, encode, constant) -> None:
    """With intra refresh a decoder may begin anywhere, and is right only a while later."""
    refresh = {"options": {"x264-params": "intra-refresh=1:keyint=20"}}
    path = encode(tmp_path / "v.mp4", constant(130), draw=textured, **refresh)
    expected = displayed(list(read_frames(path)), 1)
    frames = list(read_frames(path, frame_rate=1))
    for frame, (_, _, image) in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(frame.image, image)


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_a_cut_is_an_error_at_a_low_rate_too(name, tmp_path, encode, constant) -> None:
    faststart = {"movflags": "+faststart"} if name == "v.mp4" else {}
    settings = {"size": (128, 96), "draw": textured, "options": {"g": "10"}}
    path = encode(tmp_path / name, constant(100), container=faststart, **settings)
    data = path.read_bytes()
    for share in (0.5, 0.9):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(VideoError, match="is damaged"):
            list(read_frames(path, frame_rate=1))


def test_what_is_held_back_is_bounded(tmp_path: Path, encode, constant, monkeypatch) -> None:
    """With one key frame and a picture a minute, packets would pile up."""
    path = encode(tmp_path / "v.mp4", constant(200), draw=textured, options={"g": "250"})
    monkeypatch.setattr("vidkd.video.sparse._HELD_BYTES", 4000)
    most = 0
    forget = _Sampler._forget

    def watched(self: _Sampler) -> None:
        nonlocal most
        forget(self)
        most = max(most, sum(packet.size for packet in self._held))

    monkeypatch.setattr(_Sampler, "_forget", watched)
    expected = displayed(list(read_frames(path)), 0.2)
    frames = list(read_frames(path, frame_rate=0.2))
    for frame, (_, _, image) in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(frame.image, image)
    assert 4000 < most < 4000 + path.stat().st_size // 4
