"""Written video, read back with plain PyAV and with vidkd."""

from __future__ import annotations

import resource
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vidkd.errors import VidkdError
from vidkd.video import VideoWriter, probe, read_frames


@pytest.mark.parametrize("rate", [25, 12.5, 19.62, Fraction(30000, 1001)])
@pytest.mark.parametrize("size", [(64, 48), (65, 49)])
def test_what_is_written_can_be_read(rate, size, tmp_path, number, draw):
    path = tmp_path / "new" / "v.mp4"
    with VideoWriter(path, *size, rate) as writer:
        for index in range(20):
            writer.write(draw(index, *size))
        assert not path.exists()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == Fraction(rate).limit_denominator(100_000)
        assert stream.frames == 20
    frames = list(read_frames(path))
    assert [number(frame.image) for frame in frames] == list(range(20))
    np.testing.assert_allclose([f.start for f in frames], np.arange(20) / float(rate), atol=1e-4)
    info = probe(path)
    assert (info.width, info.height) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert info.duration == pytest.approx(20 / float(rate), abs=1e-3)


def test_colours_survive(tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128), (200, 50, 100)]
    path = tmp_path / "v.mp4"
    with VideoWriter(path, 64, 48, 10) as writer:
        for colour in colours:
            writer.write(np.full((48, 64, 3), colour, np.uint8))
    for frame, colour in zip(read_frames(path), colours, strict=True):
        np.testing.assert_allclose(frame.image[24, 32], colour, atol=4)


def test_the_same_pictures_give_the_same_file(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8)
    for name in ("a.mp4", "b.mp4"):
        with VideoWriter(tmp_path / name, 64, 48, 25) as writer:
            for image in images:
                writer.write(image)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_quality(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8)
    for quality in (18, 40):
        with VideoWriter(tmp_path / f"{quality}.mp4", 64, 48, 25, quality=quality) as writer:
            for image in images:
                writer.write(image)
    assert (tmp_path / "40.mp4").stat().st_size < (tmp_path / "18.mp4").stat().st_size / 2


def fail_midway(path: Path) -> None:
    with VideoWriter(path, 64, 48, 25) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
        raise RuntimeError("elsewhere")


def test_nothing_is_left_behind_by_a_failure(tmp_path):
    path = tmp_path / "v.mp4"
    with pytest.raises(RuntimeError, match="elsewhere"):
        fail_midway(path)
    with pytest.raises(VidkdError, match="no picture"), VideoWriter(path, 64, 48, 25):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_stays_when_writing_fails(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(b"older")
    with pytest.raises(RuntimeError, match="elsewhere"):
        fail_midway(path)
    assert path.read_bytes() == b"older"


def write_to_full_disk(path: Path) -> None:
    def full(*_packets: object) -> None:
        raise OSError(28, "No space left on device")

    with VideoWriter(path, 64, 48, 25) as writer:
        writer._container = _Refusing(writer._container, full)
        for _ in range(100):
            writer.write(np.zeros((48, 64, 3), np.uint8))


def test_a_full_disk_is_one_clear_error(tmp_path):
    with pytest.raises(VidkdError, match=r"v\.mp4: cannot be written \(No space left"):
        write_to_full_disk(tmp_path / "v.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_the_system_refuses(tmp_path):
    """A limit on the size of files stands in for the disk; FFmpeg's own writing meets it."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 240, 320, 3), np.uint8)

    def write() -> None:
        with VideoWriter(tmp_path / "v.mp4", 320, 240, 25) as writer:
            for image in noise:
                writer.write(image)

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, old[1]))
    try:
        with pytest.raises(VidkdError, match=r"v\.mp4: cannot be written"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert list(tmp_path.iterdir()) == []


class _Refusing:
    """A container that cannot mux, but closes."""

    def __init__(self, container, mux) -> None:
        self._container = container
        self.mux = mux

    def close(self) -> None:
        self._container.close()


@pytest.mark.parametrize(
    "image", [np.zeros((48, 65, 3), np.uint8), np.zeros((48, 64, 3)), np.zeros((48, 64), np.uint8)]
)
def test_pictures_of_another_kind_are_refused(image, tmp_path: Path):
    with (
        pytest.raises(ValueError, match="expected uint8"),
        VideoWriter(tmp_path / "v.mp4", 64, 48, 25) as writer,
    ):
        writer.write(image)
