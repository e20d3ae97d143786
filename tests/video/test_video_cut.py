"""Parts of videos: the right pictures, and sound in time with them."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from test_video_sound import FLASH, RATE, flash_and_beep, seen_and_heard

from vidkd.errors import VideoError, VidkdError
from vidkd.video.cut import copy_part, encode_part


def numbers(path: Path, number) -> list[int]:
    with av.open(str(path)) as file:
        return [number(frame.to_ndarray(format="rgb24")) for frame in file.decode(video=0)]


def test_an_encoded_part_has_exactly_the_pictures_between(
    tmp_path: Path, encode, constant, number
) -> None:
    # B-frames, a key frame every 30 pictures, and a clock that does not begin at 0.
    source = encode(tmp_path / "a.mkv", constant(100, start=3), options={"g": "30", "bf": "2"})
    assert encode_part(source, tmp_path / "b.mp4", 1.0, 2.2) == pytest.approx(1.0, abs=1e-3)
    assert numbers(tmp_path / "b.mp4", number) == list(range(25, 55))
    # Between two pictures the next one is the first, and the file may end before the part.
    assert encode_part(source, tmp_path / "c.mp4", 3.59, 9.0) == pytest.approx(3.6, abs=1e-3)
    assert numbers(tmp_path / "c.mp4", number) == list(range(90, 100))
    with pytest.raises(VideoError, match="no picture from 7 s on"):
        encode_part(source, tmp_path / "d.mp4", 7.0, 8.0)
    assert not (tmp_path / "d.mp4").exists()


def test_a_copied_part_begins_at_the_key_frame_before(
    tmp_path: Path, encode, constant, number
) -> None:
    options = {"g": "30", "bf": "2", "sc_threshold": "0"}
    source = encode(tmp_path / "a.mkv", constant(100, start=3), options=options)
    assert copy_part(source, tmp_path / "b.mp4", 1.4, 2.2) == pytest.approx(1.2, abs=1e-3)
    found = numbers(tmp_path / "b.mp4", number)
    assert found[0] == 30
    assert set(range(30, 55)) <= set(found) <= set(range(30, 58))
    assert copy_part(source, tmp_path / "c.mp4", 0.5, 1.0) == pytest.approx(0.0, abs=1e-3)
    assert numbers(tmp_path / "c.mp4", number)[:25] == list(range(25))


@pytest.mark.parametrize(
    ("name", "options"), [("a.mp4", {}), ("b.ts", {"start": 1.0}), ("c.mkv", {"start": 2.0})]
)
@pytest.mark.parametrize("make", [encode_part, copy_part])
def test_the_part_beeps_when_it_flashes(tmp_path: Path, make, name: str, options: dict) -> None:
    source = flash_and_beep(tmp_path / name, **options)
    begins = make(source, tmp_path / "part.mp4", 1.0, 2.0)
    assert 0.4 < begins <= 1.0
    flash, beep = seen_and_heard(tmp_path / "part.mp4")
    assert flash == pytest.approx(FLASH - begins, abs=0.5 / RATE)
    assert beep - flash == pytest.approx(0.0, abs=0.012)


def test_what_mp4_does_not_hold_is_no_half_file(tmp_path: Path, encode, constant) -> None:
    source = encode(tmp_path / "a.mkv", constant(60), codec="libvpx")
    with pytest.raises(VidkdError, match="leave out --copy"):
        copy_part(source, tmp_path / "part.mp4", 1.0, 2.0)
    assert list(tmp_path.iterdir()) == [source]
