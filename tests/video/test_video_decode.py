"""The right picture at the right time, proven by numbers drawn into hard videos."""

from __future__ import annotations

import gc
import math
import os
import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vidkd.errors import UsageError
from vidkd.video import probe, read_frames

UNEVEN = [0, 0.04, 0.08, 0.5, 0.9, 1.0, 2.5, 2.54, 3.0, 3.2]
ONE_25TH = Fraction(1, 25)

KINDS = {
    "mp4-b-frames": ("v.mp4", {"options": {"bf": "3", "b-adapt": "0"}}),
    "mp4-fragmented": ("v.mp4", {"container": {"movflags": "frag_keyframe+empty_moov"}}),
    "mov": ("v.mov", {}),
    "mkv": ("v.mkv", {"options": {"g": "7"}}),
    "mkv-with-sound": ("v.mkv", {"audio_seconds": 2.0}),
    "ts": ("v.ts", {}),
    "flv": ("v.flv", {}),
    "avi-mpeg4": ("v.avi", {"codec": "mpeg4", "unit": ONE_25TH}),
    "avi-mpeg4-b-frames": ("v.avi", {"codec": "mpeg4", "unit": ONE_25TH, "options": {"bf": "2"}}),
    "mpg-mpeg2": ("v.mpg", {"codec": "mpeg2video", "unit": ONE_25TH, "options": {"bf": "2"}}),
    "webm-vp9": ("v.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime"}}),
    "mkv-hevc": ("v.mkv", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}),
    "10-bit": ("v.mkv", {"codec": "ffv1", "pixel_format": "yuv420p10le"}),
    "10-bit-4:2:2": ("v.mkv", {"codec": "ffv1", "pixel_format": "yuv422p10le"}),
    "gray": ("v.mkv", {"codec": "ffv1", "pixel_format": "gray"}),
    "gray-16": ("v.mkv", {"codec": "ffv1", "pixel_format": "gray16le"}),
    "odd": ("v.mkv", {"codec": "ffv1", "size": (67, 49)}),
    "odd-portrait": ("v.mkv", {"codec": "ffv1", "pixel_format": "yuv444p", "size": (41, 83)}),
    "rgb": ("v.mkv", {"codec": "ffv1", "pixel_format": "bgr0"}),
    "full-range": ("v.mp4", {"pixel_format": "yuvj420p"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_comes_once_and_at_its_time(kind, tmp_path, encode, number, constant):
    name, settings = KINDS[kind]
    path = encode(tmp_path / name, constant(50), **settings)
    frames = list(read_frames(path))
    assert [number(frame.image) for frame in frames] == list(range(50))
    assert [frame.index for frame in frames] == list(range(50))
    starts = np.array([frame.start for frame in frames])
    ends = np.array([frame.end for frame in frames])
    np.testing.assert_allclose(starts, np.arange(50) / 25, atol=0.0011)
    np.testing.assert_array_equal(ends[:-1], starts[1:])
    assert ends[-1] == pytest.approx(2.0, abs=0.0011)
    width, height = settings.get("size", (64, 48))
    assert {frame.image.shape for frame in frames} == {(height, width, 3)}
    assert {frame.image.dtype for frame in frames} == {np.dtype(np.uint8)}
    info = probe(path)
    assert (info.width, info.height) == (width, height)
    assert info.rotation == 0
    assert info.duration is None or info.duration == pytest.approx(2.0, abs=0.3)
    assert info.frame_rate == 25
    assert info.size == path.stat().st_size


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts", "v.flv", "v.mov"])
@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "3"}], ids=["plain", "b-frames"])
def test_variable_rate_keeps_every_time(name, options, tmp_path, encode, number):
    path = encode(tmp_path / name, UNEVEN, options=options)
    frames = list(read_frames(path))
    assert [number(frame.image) for frame in frames] == list(range(len(UNEVEN)))
    np.testing.assert_allclose([frame.start for frame in frames], UNEVEN, atol=0.0011)
    np.testing.assert_allclose([frame.end for frame in frames[:-1]], UNEVEN[1:], atol=0.0011)
    # No container tells when the last picture ends, but never does it end absurdly late.
    assert 3.2 < frames[-1].end <= 3.2 + 1.5


def test_variable_rate_in_vp9(tmp_path, encode, number):
    options = {"deadline": "realtime", "auto-alt-ref": "1", "lag-in-frames": "10"}
    path = encode(tmp_path / "v.webm", UNEVEN, codec="libvpx-vp9", options=options)
    frames = list(read_frames(path))
    assert [number(frame.image) for frame in frames] == list(range(len(UNEVEN)))
    np.testing.assert_allclose([frame.start for frame in frames], UNEVEN, atol=0.0011)


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts"])
@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "3"}], ids=["plain", "b-frames"])
def test_times_count_from_the_first_frame(name, options, tmp_path, encode, number, constant):
    path = encode(tmp_path / name, constant(30, start=7), options=options)
    frames = list(read_frames(path))
    assert [number(frame.image) for frame in frames] == list(range(30))
    np.testing.assert_allclose([f.start for f in frames], np.arange(30) / 25, atol=0.0011)
    assert probe(path).start_time == pytest.approx(7, abs=1.5)  # some muxers shift by the delay
    late = list(read_frames(path, start=0.8))
    assert [number(frame.image) for frame in late] == list(range(20, 30))


def test_raw_stream_without_times_or_duration(tmp_path, encode, number, constant):
    path = encode(tmp_path / "v.h264", constant(40), options={"bf": "3"})
    info = probe(path)
    assert info.duration is None
    assert info.frame_count is None
    frames = list(read_frames(path))
    assert [number(frame.image) for frame in frames] == list(range(40))
    np.testing.assert_allclose([frame.start for frame in frames], np.arange(40) / 25, atol=1e-9)
    part = list(read_frames(path, start=0.4, end=0.8))
    assert [number(frame.image) for frame in part] == list(range(10, 20))


def test_streamed_matroska_without_duration(tmp_path, encode, number, constant):
    path = encode(tmp_path / "v.mkv", constant(40), container={"live": "1"})
    assert probe(path).duration is None
    assert [number(frame.image) for frame in read_frames(path)] == list(range(40))
    part = list(read_frames(path, start=0.4, end=0.8))
    assert [number(frame.image) for frame in part] == list(range(10, 20))


def write_display_matrix(path: Path, degrees: int, mirrored: bool) -> None:
    """Tell players, in the track header, to mirror pictures and then to turn them clockwise."""
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    one, data = 1 << 16, bytearray(path.read_bytes())
    flip = -1 if mirrored else 1
    matrix = [flip * cos * one, flip * sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30]
    at = data.index(b"tkhd") + 4 + 40
    assert int.from_bytes(data[at : at + 4], "big") == one, "a version 0 header, not turned"
    for position, value in enumerate(matrix):
        data[at + 4 * position : at + 4 * position + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(data)


@pytest.mark.parametrize("mirrored", [False, True], ids=["turned", "mirrored"])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_the_display_matrix_is_applied(degrees, mirrored, tmp_path, encode, number, draw, constant):
    size = (64, 48) if degrees % 180 == 0 else (48, 64)

    def lying(index: int, width: int, height: int) -> np.ndarray:
        # The player turns clockwise by `degrees`, so the camera stored it turned the other way.
        stored = np.rot90(draw(index, 64, 48), degrees // 90)
        return np.ascontiguousarray(stored[:, ::-1] if mirrored else stored)

    path = encode(tmp_path / "v.mp4", constant(20), size=size, draw=lying)
    write_display_matrix(path, degrees, mirrored)
    info = probe(path)
    assert (info.width, info.height) == (64, 48)
    assert info.rotation == -degrees % 360
    frames = list(read_frames(path))
    assert [number(frame.image) for frame in frames] == list(range(20))
    small = list(read_frames(path, short_side=36))
    assert small[0].image.shape == (36, 48, 3)
    assert [number(frame.image) for frame in small] == list(range(20))
    assert all(frame.image.flags.c_contiguous for frame in small)


def test_pixels_that_are_not_square(tmp_path, encode, number, constant):
    path = encode(tmp_path / "v.mp4", constant(5), sample_aspect_ratio=Fraction(3, 2))
    assert (probe(path).width, probe(path).height) == (96, 48)
    frames = list(read_frames(path, short_side=24))
    assert frames[0].image.shape == (24, 48, 3)
    assert [number(frame.image) for frame in read_frames(path)] == list(range(5))


def scaled_by_filter_graph(path: Path, width: int, height: int) -> list[np.ndarray]:
    """FFmpeg's own `scale` filter, an independent way to libswscale."""
    images = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        source = graph.add_buffer(template=stream)
        scale = graph.add("scale", f"{width}:{height}:flags=bilinear")
        rgb, sink = graph.add("format", "rgb24"), graph.add("buffersink")
        graph.link_nodes(source, scale, rgb, sink).configure()
        for frame in container.decode(stream):
            graph.push(frame)
            images.append(graph.pull().to_ndarray())
    return images


def noise(index: int, width: int, height: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((320, 240), 256, (342, 256)),  # 341.33 to the nearest even number
        ((340, 256), 256, (340, 256)),
        ((240, 320), 128, (128, 170)),
        ((66, 50), 25, (34, 25)),
        ((50, 50), 31, (31, 32)),  # the shorter side is as asked for, the other one even
    ],
)
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le", "yuvj420p"])
def test_resize_is_bilinear_swscale(size, short_side, expected, pixel_format, tmp_path, encode):
    codec = "mjpeg" if pixel_format == "yuvj420p" else "ffv1"
    path = encode(
        tmp_path / "v.mkv", [0, 0.04], codec=codec, pixel_format=pixel_format, size=size,
        draw=noise, unit=ONE_25TH,
    )  # fmt: skip
    width, height = expected
    images = [frame.image for frame in read_frames(path, short_side=short_side)]
    assert images[0].shape == (height, width, 3)
    for image, other in zip(images, scaled_by_filter_graph(path, width, height), strict=True):
        np.testing.assert_array_equal(image, other)


@pytest.mark.parametrize(("name", "red", "blue"), [("601", 0.299, 0.114), ("709", 0.2126, 0.0722)])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
def test_colour_matrix_and_range(name, red, blue, full, tmp_path):
    """Colours stored by the formulas of BT.601 and BT.709 come back."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (30, 120, 210), (7, 7, 7)]
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv444p"
        stream.codec_context.color_range = 2 if full else 1
        stream.codec_context.colorspace = {"601": 6, "709": 1}[name]
        for index, (r, g, b) in enumerate(colours):
            luma = red * r + (1 - red - blue) * g + blue * b
            chroma = (b - luma) / (2 - 2 * blue), (r - luma) / (2 - 2 * red)
            scale = (1, 1) if full else (219 / 255, 224 / 255)
            values = [luma * scale[0] + (0 if full else 16)]
            values += [128 + item * scale[1] for item in chroma]
            frame = av.VideoFrame(32, 32, "yuv444p")
            for plane, value in zip(frame.planes, values, strict=True):
                plane.update(bytes([min(255, round(value))]) * plane.buffer_size)
            frame.pts, frame.time_base = index, ONE_25TH
            frame.color_range = 2 if full else 1
            frame.colorspace = {"601": 6, "709": 1}[name]
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    for frame, colour in zip(read_frames(path), colours, strict=True):
        np.testing.assert_allclose(frame.image[16, 16], colour, atol=3)


@pytest.mark.parametrize("rate", [1, 3.7, 10, 25, 30000 / 1001, 60])
@pytest.mark.parametrize("times", ["constant", "uneven"])
def test_sampling_takes_what_is_displayed(rate, times, tmp_path, encode, number, constant):
    shown = constant(41) if times == "constant" else UNEVEN
    path = encode(tmp_path / "v.mkv", shown)
    duration = list(read_frames(path))[-1].end
    frames = list(read_frames(path, frame_rate=rate))
    assert len(frames) == math.ceil(round(duration * rate, 6))
    for tick, frame in enumerate(frames):
        second = tick / rate
        displayed = max(n for n, time in enumerate(shown) if float(time) <= second + 1e-3)
        close = min(abs(float(time) - second) for time in shown) < 2e-3
        assert number(frame.image) == displayed or (close and rate != 25)
        assert frame.start == pytest.approx(second)
        assert frame.index == tick
        assert frame.end == pytest.approx(min((tick + 1) / rate, duration))


def test_sampling_at_the_videos_own_rate_changes_nothing(tmp_path, encode, number, constant):
    path = encode(tmp_path / "v.mp4", constant(60, rate=30), rate=30, unit=Fraction(1, 30000))
    frames = list(read_frames(path, frame_rate=30))
    assert [number(frame.image) for frame in frames] == list(range(60))


SEARCHED = {
    "mp4-b-frames": ("v.mp4", {"options": {"bf": "3", "g": "12"}}),
    "mp4-open-gop": ("v.mp4", {"options": {"bf": "3", "g": "9", "x264-params": "open-gop=1"}}),
    "mkv-one-key-frame": ("v.mkv", {"options": {"g": "1000"}}),
    "mkv-hevc-open-gop": (
        "v.mkv",
        {
            "codec": "libx265",
            "options": {
                "x265-params": "log-level=none:keyint=10:min-keyint=5:open-gop=1:bframes=3"
            },
        },
    ),
    "mkv-intra-refresh": ("v.mkv", {"options": {"g": "20", "x264-params": "intra-refresh=1"}}),
    "mkv-start-offset": ("v.mkv", {"options": {"g": "10"}, "start": 9}),
    "ts": ("v.ts", {"options": {"bf": "3", "g": "12"}}),
    "avi": ("v.avi", {"codec": "mpeg4", "unit": ONE_25TH, "options": {"bf": "2", "g": "12"}}),
    "mpg-open-gop": ("v.mpg", {"codec": "mpeg2video", "unit": ONE_25TH, "options": {"bf": "2"}}),
    "flv": ("v.flv", {"options": {"g": "12"}}),
    "webm": ("v.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "g": "20"}}),
}


@pytest.mark.parametrize("kind", SEARCHED)
def test_a_part_holds_the_frames_of_the_whole(kind, tmp_path, encode, number, constant):
    name, settings = SEARCHED[kind]
    settings = dict(settings)
    times = constant(75, start=settings.pop("start", 0))
    path = encode(tmp_path / name, times, **settings)
    whole = list(read_frames(path))
    choose = random.Random(kind)
    spans = [(choose.uniform(0, 2.9), choose.uniform(0.01, 1.0)) for _ in range(8)]
    spans += [(0.0, 0.5), (1.0, 0.04), (2.96, 5.0), (1 / 25, 3.0)]
    for start, length in spans:
        part = list(read_frames(path, start=start, end=start + length))
        wanted = [f for f in whole if f.end > start and f.start < start + length]
        assert [number(frame.image) for frame in part] == [number(f.image) for f in wanted]
        for frame, other in zip(part, wanted, strict=True):
            np.testing.assert_array_equal(frame.image, other.image)
            assert (frame.start, frame.end) == (other.start, other.end)


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_a_part_of_a_variable_rate_with_b_frames(name, tmp_path, encode, number):
    choose = random.Random(name)
    steps = [choose.choice([0.01, 0.04, 0.04, 0.1, 0.7]) for _ in range(60)]
    times = [sum(steps[:count]) for count in range(len(steps))]
    path = encode(tmp_path / name, times, options={"bf": "3", "g": "9"})
    whole = list(read_frames(path))
    for _ in range(10):
        start, length = choose.uniform(0, times[-1]), choose.uniform(0.01, 2.0)
        part = list(read_frames(path, start=start, end=start + length))
        wanted = [f for f in whole if f.end > start and f.start < start + length]
        assert [(f.start, f.end, number(f.image)) for f in part] == [
            (f.start, f.end, number(f.image)) for f in wanted
        ]


def test_part_with_sampling_keeps_the_grid(tmp_path, encode, number, constant):
    path = encode(tmp_path / "v.mp4", constant(75), options={"g": "10"})
    whole = [f for f in read_frames(path, frame_rate=10) if 0.95 <= f.start < 2.0]
    part = list(read_frames(path, frame_rate=10, start=0.95, end=2.0))
    assert [(f.start, number(f.image)) for f in part] == [(f.start, number(f.image)) for f in whole]


def test_part_beyond_the_end_is_empty(tmp_path, encode, constant):
    path = encode(tmp_path / "v.mp4", constant(10))
    assert list(read_frames(path, start=5.0, end=6.0)) == []


def test_size_that_changes_inside_the_stream_is_evened_out(tmp_path, encode, number, constant):
    first = encode(tmp_path / "a.h264", constant(10))
    second = encode(tmp_path / "b.h264", constant(10), size=(128, 96))
    path = tmp_path / "v.h264"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    frames = list(read_frames(path, short_side=48))
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert [number(frame.image) for frame in frames] == [*range(10), *range(10)]


def test_one_frame(tmp_path, encode, number):
    for name in ("v.mp4", "v.mkv", "v.ts"):
        path = encode(tmp_path / name, [0])
        (frame,) = read_frames(path)
        assert frame.start == 0
        assert 0 < frame.end <= 1.0
        assert number(frame.image) == 0
        assert len(list(read_frames(path, frame_rate=1))) == 1


def test_two_readings_are_equal(tmp_path, encode, constant):
    path = encode(tmp_path / "v.mp4", constant(40), draw=noise, size=(128, 96))
    first, second = (
        np.stack([f.image for f in read_frames(path, short_side=64)]) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    "settings",
    [
        {"frame_rate": 0},
        {"frame_rate": -1},
        {"short_side": 0},
        {"start": -1},
        {"start": 2, "end": 1},
    ],
)
def test_settings_without_sense_are_refused(settings, tmp_path, encode):
    path = encode(tmp_path / "v.mp4", [0])
    with pytest.raises(UsageError):
        next(read_frames(path, **settings))


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.slow
def test_memory_does_not_grow_with_length(tmp_path, encode, constant):
    """Six thousand pictures of 0.9 MB would be 5.5 GB if anything kept them."""

    def flat(index: int, width: int, height: int) -> np.ndarray:
        return np.full((height, width, 3), index % 200, np.uint8)

    options = {"preset": "ultrafast", "bf": "2"}
    path = encode(tmp_path / "v.mp4", constant(1500), size=(640, 480), draw=flat, options=options)
    levels = []
    for index, frame in enumerate(read_frames(path, frame_rate=100)):
        assert frame.index == index
        if index % 100 == 0:
            levels.append(resident())
    assert index == 5999
    # The first third fills the pools of the decoder and of the allocator.
    assert max(levels) - levels[20] < 30e6


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
def test_abandoned_reading_closes_the_file(tmp_path, encode, constant):
    path = encode(tmp_path / "v.mp4", constant(50))
    for _ in range(20):
        frames = read_frames(path, start=0.5)
        next(frames)
        frames.close()
    links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert path not in links


def test_no_picture_waits_for_the_garbage_collector(tmp_path, encode, constant) -> None:
    path = encode(tmp_path / "many.mp4", constant(60))
    collect_before = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        frames = read_frames(path, short_side=32)
        for _ in range(50):
            next(frames)
        alive = sum(type(item) is av.VideoFrame for item in gc.get_objects())
    finally:
        if collect_before:
            gc.enable()
    # One is being shown, one waits for its end, one was asked for its orientation.
    assert alive <= 4
