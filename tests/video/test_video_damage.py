"""Bad input: one clear error that names the file, the second and what to do."""

from __future__ import annotations

import contextlib
import os
import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vidkd.errors import VideoError
from vidkd.video import probe, read_frames
from vidkd.video.damage import matroska_damage

CLUSTER = b"\x1f\x43\xb6\x75"
ONE_25TH = Fraction(1, 25)


def count(path: Path) -> int:
    return sum(1 for _ in read_frames(path))


def textured(index: int, width: int, height: int) -> np.ndarray:
    """Something that moves and fills the stream with bits, so that damage hits data."""
    image = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return np.roll(np.kron(image, np.ones((4, 4, 1), np.uint8)), 3 * index, axis=1)


@pytest.mark.parametrize("read", [probe, count])
def test_what_is_no_video(read, tmp_path):
    empty, text, noise = tmp_path / "empty.mp4", tmp_path / "text.mp4", tmp_path / "noise.mkv"
    empty.touch()
    text.write_text("These are words.\n" * 100)
    noise.write_bytes(random.Random(1).randbytes(20_000))
    cases = {
        tmp_path / "none.mp4": "does not exist",
        tmp_path: "is a folder",
        empty: "is empty",
        text: "is not a video|holds text",
        noise: "is not a video|no video stream|no frame",
    }
    for path, message in cases.items():
        with pytest.raises(VideoError, match=message) as caught:
            read(path)
        assert caught.value.path == str(path)
        assert caught.value.remedy
        assert "\n" not in str(caught.value)


def test_text_under_any_name(tmp_path):
    for name in ("a.txt", "a.nfo", "a.ans", "a.ts", "a.avi", "a.h264", "a.mpg"):
        path = tmp_path / name
        path.write_text("Lorem ipsum dolor sit amet.\n" * 200)
        with pytest.raises(VideoError):
            count(path)


def test_playlists_do_not_lead_elsewhere(tmp_path, encode, constant):
    video = encode(tmp_path / "v.ts", constant(10))
    for text in (
        f"ffconcat version 1.0\nfile {video.name}\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/v.ts\n#EXT-X-ENDLIST\n",
    ):
        playlist = tmp_path / "list.mp4"
        playlist.write_text(text)
        with pytest.raises(VideoError):
            count(playlist)


def test_a_pipe_is_refused_at_once(tmp_path):
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    with pytest.raises(VideoError, match="regular file"):
        probe(pipe)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path, encode, constant):
    path = encode(tmp_path / "v.mp4", constant(5))
    path.chmod(0)
    with pytest.raises(VideoError, match="may not be read"):
        probe(path)


def test_permission_error_of_the_system(tmp_path, encode, constant, monkeypatch):
    path = encode(tmp_path / "v.mp4", constant(5))

    def refuse(*_args: object, **_settings: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(VideoError, match="may not be read"):
        probe(path)


def test_sound_alone(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 8000, 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with pytest.raises(VideoError, match=r"no video stream .*audio"):
        probe(path)
    with pytest.raises(VideoError, match="no video stream"):
        count(path)


def test_a_video_stream_without_a_frame(tmp_path, encode, constant):
    path = encode(tmp_path / "v.mkv", constant(50), draw=textured)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(CLUSTER)])  # up to the first cluster
    for read in (probe, count):
        with pytest.raises(VideoError, match=r"no frame that can be decoded|it ends too early"):
            read(path)


CUT = {
    "mp4": ("v.mp4", {}),
    "mp4-index-first": ("v.mp4", {"container": {"movflags": "+faststart"}}),
    "mp4-fragmented": ("v.mp4", {"container": {"movflags": "frag_keyframe+empty_moov"}}),
    "mov": ("v.mov", {}),
    "mkv": ("v.mkv", {"options": {"g": "20"}}),
    "mkv-with-sound": ("v.mkv", {"audio_seconds": 4.0}),
    "webm": ("v.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime"}}),
    "avi": ("v.avi", {"codec": "mpeg4", "unit": ONE_25TH}),
    "avi-h264": ("v.avi", {"unit": ONE_25TH, "options": {"bf": "0"}}),
    "flv": ("v.flv", {}),
    "flv-with-sound": ("v.flv", {"audio_seconds": 4.0}),
    "ts": ("v.ts", {}),
    "ts-with-sound": ("v.ts", {"audio_seconds": 4.0}),
}


@pytest.mark.parametrize("kind", CUT)
@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
def test_a_file_cut_short_is_an_error(kind, share, tmp_path, encode, constant):
    name, settings = CUT[kind]
    path = encode(tmp_path / name, constant(100), size=(128, 96), draw=textured, **settings)
    assert count(path) == 100
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(VideoError) as caught:
        count(path)
    assert caught.value.path == str(path)
    assert caught.value.remedy


def test_the_error_tells_the_second(tmp_path, encode, constant):
    settings = {"size": (128, 96), "draw": textured, "options": {"g": "5", "bf": "0"}}
    path = encode(tmp_path / "v.mkv", constant(100), **settings)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames = []
    with pytest.raises(VideoError, match=r"at second \d+\.\d\d") as caught:
        frames.extend(read_frames(path))
    second = float(str(caught.value).split("at second ")[1].split()[0])
    # The stream has a constant rate of bits, so half the bytes are about half the time.
    assert 1.2 < second < 2.8
    assert len(frames) > 25
    assert all(frame.end <= second + 1e-6 for frame in frames)


@pytest.mark.parametrize("kind", ["mp4-index-first", "mkv", "avi"])
def test_overwritten_data_is_an_error(kind, tmp_path, encode, constant):
    name, settings = CUT[kind]
    path = encode(tmp_path / name, constant(100), size=(128, 96), draw=textured, **settings)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = random.Random(0).randbytes(400)
    path.write_bytes(data)
    with pytest.raises(VideoError, match="is damaged at second"):
        count(path)


def test_a_part_before_the_damage_can_be_read(tmp_path, encode, constant):
    settings = {"size": (128, 96), "draw": textured, "options": {"g": "10"}}
    path = encode(tmp_path / "v.mkv", constant(100), **settings)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.8)])
    assert len(list(read_frames(path, start=0.4, end=0.8))) == 10
    assert len(list(read_frames(path, end=0.8))) == 20


def test_a_long_last_picture_is_no_damage(tmp_path, encode):
    path = encode(tmp_path / "v.mkv", [0, 1, 2, 6])
    assert count(path) == 4


def test_sound_that_goes_on_is_no_damage(tmp_path, encode, constant):
    for name in ("v.mp4", "v.mkv", "v.flv"):
        path = encode(tmp_path / name, constant(50), audio_seconds=9.0)
        assert count(path) == 50
    # Without the tag of the stream, Matroska only promises a length for all streams together.
    path = encode(tmp_path / "v.mkv", constant(50), audio_seconds=9.0)
    path.write_bytes(path.read_bytes().replace(b"DURATION", b"DURATIOM"))
    assert probe(path).duration is None
    assert count(path) == 50


def test_rounded_durations_are_no_damage(tmp_path, encode, constant):
    """A header may be wrong by a few percent: here it claims 104 % of the pictures."""
    path = encode(tmp_path / "v.mkv", constant(100))
    data = path.read_bytes()
    old, new = b"00:00:04.000000000", b"00:00:04.160000000"
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    assert count(path) == 100


@pytest.mark.parametrize("jump", [-5.0, 9 * 3600.0])
def test_a_clock_that_jumps_is_an_error(jump, tmp_path, encode, constant):
    path = tmp_path / "v.mkv"
    source = encode(tmp_path / "source.mkv", constant(250), options={"bf": "0"})
    with av.open(str(source)) as container, av.open(str(path), "w") as output:
        stream = container.streams.video[0]
        copy = output.add_stream_from_template(stream)
        packets = [packet for packet in container.demux(stream) if packet.size]
        for index, packet in enumerate(packets):
            packet.stream = copy
            if index >= 200:
                packet.pts += int(jump * 1000)
                # Muxers insist on decoding times that rise; only presentation jumps back.
                packet.dts = packet.pts if jump > 0 else packet.dts
            if jump < 0:
                packet.dts -= 10_000
            output.mux(packet)
    with pytest.raises(VideoError, match=r"timestamps that jump by [+-]\d+ s at second 7\.96"):
        count(path)


def test_ffmpeg_says_nothing_of_its_own(tmp_path, encode, constant, capfd):
    path = encode(tmp_path / "v.mp4", constant(100), size=(128, 96), draw=textured)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = random.Random(0).randbytes(400)
    path.write_bytes(data)
    capfd.readouterr()
    with pytest.raises(VideoError):
        count(path)
    probe(path)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def whole_or_error(path: Path, data: bytes, pictures: int) -> None:
    """Read damaged data; pictures may be wrong, but none may be missing without an error."""
    path.write_bytes(data)
    with contextlib.suppress(VideoError):
        assert count(path) == pictures


EXACT = ("mp4", "mp4-index-first", "mov", "mkv", "mkv-with-sound", "webm", "avi", "avi-h264")
EXACT += ("flv", "flv-with-sound", "ts", "ts-with-sound")


@pytest.mark.parametrize("kind", EXACT)
def test_no_picture_is_lost_in_silence(kind, tmp_path, encode, constant):
    name, settings = CUT[kind]
    path = encode(tmp_path / name, constant(50), size=(128, 96), draw=textured, **settings)
    whole, choose = path.read_bytes(), random.Random(kind)
    assert count(path) == 50
    for share in (0.9, 0.97, 0.99):
        whole_or_error(path, whole[: int(len(whole) * share)], 50)
    for damage in ("noise", "zeros", "hole") * 4:
        at, length = choose.randrange(len(whole)), choose.choice([1, 8, 64, 400, 3000])
        middle = {"noise": choose.randbytes(length), "zeros": bytes(length), "hole": b""}[damage]
        whole_or_error(path, whole[:at] + middle + whole[at + length :], 50)


@pytest.mark.parametrize("kind", ["ts", "flv", "avi"])
def test_what_is_around_a_sound_file_is_no_damage(kind, tmp_path, encode, constant):
    """Recordings begin in the middle of a packet; some tools append their own notes."""
    name, settings = CUT[kind]
    path = encode(tmp_path / name, constant(50), size=(128, 96), draw=textured, **settings)
    data = path.read_bytes()
    if kind == "ts":
        path.write_bytes(data[100:])
        assert count(path) == 50
        wide = b"".join(b"\0\1\2\3" + data[at : at + 188] for at in range(0, len(data), 188))
        path = tmp_path / "v.m2ts"
        path.write_bytes(wide)
    elif kind == "avi":
        path.write_bytes(data + b"something that was appended")
    assert count(path) == 50


@pytest.mark.parametrize("kind", ["ts", "flv", "avi"])
def test_one_packet_less_is_an_error(kind, tmp_path, encode, constant):
    """The size of one transport packet, or a whole tag or chunk, with nothing odd around it."""
    name, settings = CUT[kind]
    path = encode(tmp_path / name, constant(50), size=(128, 96), draw=textured, **settings)
    data = path.read_bytes()
    middle = len(data) // 2 // 188 * 188
    path.write_bytes(data[:middle] + data[middle + 188 :])
    with pytest.raises(VideoError, match="is damaged"):
        count(path)


def test_a_lost_cluster_is_an_error(tmp_path, encode, constant):
    """FFmpeg goes on with the next cluster, half a second later, and says nothing."""
    settings = {"options": {"g": "10"}, "container": {"cluster_time_limit": "400"}}
    path = encode(tmp_path / "v.mkv", constant(100), size=(128, 96), draw=textured, **settings)
    data = path.read_bytes()
    starts = [at for at in range(len(data)) if data.startswith(CLUSTER, at)]
    assert len(starts) == 10
    lost = data[: starts[4]] + b"\x2f" + data[starts[4] + 1 :]
    path.write_bytes(lost)
    with av.open(str(path)) as container:
        assert 80 <= sum(1 for _ in container.decode(video=0)) < 100
    with pytest.raises(VideoError, match=f"unknown element at byte {starts[4]}"):
        count(path)


def test_a_cluster_is_held_to_its_checksum(tmp_path, encode, constant):
    """A wrong time decodes without complaint; nothing but the checksum tells."""
    path = encode(tmp_path / "v.mkv", constant(50), draw=textured)
    data = bytearray(path.read_bytes())
    clock = data.index(b"\xe7\x81\x00", data.index(CLUSTER))
    data[clock + 2] = 40
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 50
    with pytest.raises(VideoError, match="contradicts its checksum"):
        count(path)


def damage(path: Path) -> str | None:
    with path.open("rb") as file:
        return matroska_damage(file)


@pytest.mark.parametrize(
    "container",
    [
        {},
        {"live": "1"},
        {"write_crc32": "0"},
        {"cluster_size_limit": "5000"},
        {"cues_to_front": "1"},
    ],
    ids=lambda item: next(iter(item), "plain"),
)
@pytest.mark.parametrize("name", ["v.mkv", "v.webm"])
def test_sound_matroska_has_no_damage(name, container, tmp_path, encode, constant):
    codec = {"v.mkv": "libx264", "v.webm": "libvpx-vp9"}[name]
    path = encode(tmp_path / name, constant(60), codec=codec, container=container)
    assert damage(path) is None
    data = path.read_bytes()
    path.write_bytes(data + b"something that was appended")
    assert "live" in container or damage(path) is None
    path.write_bytes(data[:-5])  # a part of the index or the tags; no picture
    assert "cues_to_front" in container or damage(path) is None


def test_a_stopped_recording_may_end_anywhere(tmp_path, encode, constant):
    path = encode(tmp_path / "v.mkv", constant(60), container={"live": "1"})
    data = path.read_bytes()
    for end in range(len(data) - 200, len(data), 7):
        path.write_bytes(data[:end])
        assert damage(path) is None


def test_pictures_that_the_decoder_drops_are_an_error(tmp_path, encode, constant):
    """Without a picture that others refer to, H.264 decoders wait for the next key frame."""
    source = encode(tmp_path / "v.ts", constant(60), options={"g": "20", "bf": "0"}, draw=textured)
    path = tmp_path / "dropped.ts"
    with av.open(str(source)) as container, av.open(str(path), "w") as output:
        stream = container.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for index, packet in enumerate(container.demux(stream)):
            if packet.size and index == 20:
                empty = av.Packet(b"\x00\x00\x00\x01\x09\xf0" + bytes(packet)[-40:])
                empty.pts, empty.dts = packet.pts, packet.dts
                empty.time_base, packet = packet.time_base, empty
            if packet.size:
                packet.stream = copy
                output.mux(packet)
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) < 60
    with pytest.raises(VideoError, match="is damaged at second"):
        count(path)


def test_a_recording_may_begin_between_key_frames(tmp_path, encode, constant):
    source = encode(tmp_path / "v.ts", constant(60), options={"g": "20", "bf": "2"})
    path = tmp_path / "late.ts"
    with av.open(str(source)) as container, av.open(str(path), "w") as output:
        stream = container.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for index, packet in enumerate(container.demux(stream)):
            if packet.size and index >= 12:
                packet.stream = copy
                output.mux(packet)
    assert 40 <= count(path) <= 48


@pytest.mark.parametrize("side", [16_000, 65_535])
def test_huge_pictures_are_refused(side, tmp_path, encode, constant):
    """A header that claims more than the data holds ends in an error, not in a lack of memory."""
    path = encode(tmp_path / "v.mkv", constant(3), codec="ffv1", size=(640, 480))
    data = path.read_bytes()
    for name, true in ((b"\xb0\x82", 640), (b"\xba\x82", 480)):
        old, new = (name + number.to_bytes(2, "big") for number in (true, side))
        assert data.count(old) == 1
        data = data.replace(old, new)
    path.write_bytes(data)
    for read in (probe, count):
        with pytest.raises(VideoError) as caught:
            read(path)
        assert caught.value.remedy
