"""Whether students should see what is around one person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from vidkd.networks import DEFAULT_ENCODER, find_card
from vidkd.pipeline.people import FRAMES, look_for_people
from vidkd.pose.detector import PersonPose
from vidkd.video import VideoWriter

CARD = find_card(DEFAULT_ENCODER)


def person(x: float, height: float) -> PersonPose:
    """Return somebody of so many pixels, at so many pixels from the left of 320 x 256."""
    joints = np.tile([x, 128.0], (13, 1))
    joints[:2, 1] = 128 - height / 2, 128 + height / 2
    box = np.array([x - 5, 128 - height / 2, x + 5, 128 + height / 2])
    return PersonPose(box, joints, np.zeros((13, 3)), np.ones(13), 0.9)


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for path in paths:
        with VideoWriter(path, 160, 128, 10) as writer:
            for level in range(40):
                writer.write(np.full((128, 160, 3), 5 * level, np.uint8))
    return paths


@pytest.mark.parametrize(
    ("people", "far", "words"),
    [
        ([person(160, 80)], True, "41 % as high"),  # 1.3 x 80 of 256 pixels
        ([person(160, 190)], False, "96 % as high"),
        ([person(290, 190)], True, "in 100 % the person stands outside"),
        ([person(100, 80), person(160, 80), person(220, 80)], False, "in 100 % three or more"),
        ([], False, "In none of 8 frames"),
    ],
)
def test_small_or_outside_and_alone(
    videos: list[Path],
    people: list[PersonPose],
    far: bool,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[int, ...]] = []

    def people_in(images: Sequence[np.ndarray], device: str) -> list[list[PersonPose]]:
        seen.extend(image.shape for image in images)
        return [people for _ in images]

    monkeypatch.setattr("vidkd.pipeline.people.people_in", people_in)
    found = look_for_people(videos, CARD)
    assert seen == [(256, 320, 3)] * (2 * FRAMES)
    assert (found.frames, found.far) == (2 * FRAMES, far)
    assert words in found.described


def test_a_video_that_cannot_be_read_is_left_to_the_extraction(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    assert look_for_people([broken], CARD).frames == 0
