"""RGB around the main person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from vidkd.errors import UsageError, WeightsError
from vidkd.pipeline.check import check_recipe
from vidkd.pose.detector import PersonPose
from vidkd.pose.labels import load_pictures, read_labels
from vidkd.recipe import Pipeline, SnippetSettings, SynthSettings, load_yaml, pipeline_path
from vidkd.streams import STREAMS
from vidkd.streams.person import MARGIN, cut_square, people_in, person_settings, square
from vidkd.synth import render_dataset
from vidkd.video import Frame

PERSON = STREAMS["rgb-person"]


def person(left: float, top: float, width: float, height: float, score: float = 0.9) -> PersonPose:
    """Return somebody whose joints reach just so far."""
    rng = np.random.default_rng(0)
    joints = rng.uniform((left, top), (left + width, top + height), (13, 2))
    joints[:2] = (left, top), (left + width, top + height)
    box = np.array([left, top, left + width, top + height])
    return PersonPose(box, joints, np.zeros((13, 3)), np.ones(13), score)


def test_the_square_has_the_person_of_all_looks_in_its_middle() -> None:
    left, top, side = square([[person(100, 40, 20, 60)], [person(110, 42, 20, 60)]])  # type: ignore[misc]
    assert side == pytest.approx(MARGIN * 62)
    # Joints reach from 100 to 130 and from 40 to 102; the edges of pixels half a pixel further.
    assert left + side / 2 == pytest.approx(115.5)
    assert top + side / 2 == pytest.approx(71.5)


def test_the_main_person_is_the_largest_by_score() -> None:
    main, small, doubtful = (
        person(100, 40, 20, 60),
        person(20, 40, 5, 20),
        person(150, 0, 60, 99, 0.1),
    )
    alone = square([[main], [main]])
    assert square([[small, main], [doubtful, main]]) == alone
    # Somebody else is not taken for the person where the person is missed.
    assert square([[main], [small]]) == square([[main]])
    assert square([[], []]) is None
    assert square([]) is None


def test_a_square_is_cut_and_its_edge_goes_on_outside() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
    np.testing.assert_array_equal(cut_square(images, 10, 5, 30, 30), images[:, 5:35, 10:40])
    found = cut_square(images, -8.2, 25, 30, 30)
    padded = np.pad(images, ((0, 0), (0, 30), (8, 0), (0, 0)), mode="edge")
    np.testing.assert_array_equal(found, padded[:, 25:55, :30])
    # Halved by the mean of 2 x 2 pixels.
    half = cut_square(images, 0, 0, 40, 20).astype(int)
    mean = images[:, :40, :40].reshape(2, 20, 2, 20, 2, 3).mean(axis=(2, 4))
    assert abs(half - mean).max() <= 0.5


class Detector:
    """Finds one person where it is brightest, and counts its looks."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[PersonPose]]:
        self.looks += len(images)
        return [self._found(image) for image in images]

    def _found(self, image: np.ndarray) -> list[PersonPose]:
        rows, columns = np.nonzero(image.max(axis=2) > 200)
        if not len(rows):
            return []
        low = columns.min(), rows.min()
        return [person(*low, columns.max() - low[0], rows.max() - low[1])]


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> Detector:
    found = Detector()
    monkeypatch.setattr("vidkd.streams.person._detector", lambda device: found)
    monkeypatch.setattr("vidkd.streams.person._seen", type("Seen", (dict,), {})())
    return found


def frames(count: int, at: int | None) -> list[Frame]:
    """Return dark noise with a bright patch of 12 x 30 pixels that moves by a pixel per frame."""
    rng = np.random.default_rng(2)
    images = rng.integers(0, 100, (count, 64, 200, 3), dtype=np.uint8)
    if at is not None:
        for number, image in enumerate(images):
            image[20:50, at + number : at + number + 12] = 255
    return [Frame(image, n / 10, (n + 1) / 10, n) for n, image in enumerate(images)]


def test_snippets_follow_who_would_be_lost_in_the_middle(detector: Detector) -> None:
    settings = SnippetSettings(length=16, stride=8)
    found = list(PERSON.snippets(frames(48, 130), settings, 32))
    assert [item.frames.shape for item in found] == [(16, 32, 32, 3)] * 5
    for item in found:
        bright = (item.frames > 200).all(axis=3)
        # Half-way through the snippet the person is in the middle, as large as the margin says.
        _, columns = np.nonzero(bright[8])
        assert abs(columns.mean() - 15.5) <= 2.5
        assert bright[8].sum() >= 0.15 * 32 * 32
    # Two looks for each snippet, of which the next one shares the second.
    assert detector.looks == 6


def test_where_nobody_is_it_is_the_middle_of_the_frame(detector: Detector) -> None:
    images = np.stack([frame.image for frame in frames(16, None)])
    found = PERSON.crop(images, 64)
    np.testing.assert_array_equal(found, images[:, :, 68:132])
    assert PERSON.crop(images, 16).shape == (16, 16, 16, 3)
    moved = PERSON.crop(images, 64, (1.0, 0.5))
    np.testing.assert_array_equal(moved, images[:, :, 74:138])


def test_rendered_people_are_in_the_square(tmp_path: Path) -> None:
    """The detector that travels with the package, on people whose joints are known."""
    render_dataset(tmp_path, SynthSettings(videos=2, seconds=4, frame_rate=1.0, seed=424_242))
    inside = []
    for frame, image in load_pictures(read_labels(tmp_path)):
        joints = np.concatenate([item.joints_2d for item in frame.people])
        around = square([people_in(image, "cpu")])
        if around is not None:
            left, top, side = around
            within = (joints >= (left, top)) & (joints <= (left + side, top + side))
            inside.append(within.all(axis=1).mean())
    assert len(inside) >= 8
    assert np.mean(inside) >= 0.9


def test_features_of_other_squares_are_refused() -> None:
    assert PERSON.uncached({"person": person_settings()}, "cpu").name == "rgb-person"
    with pytest.raises(WeightsError, match="another version of vidkd found otherwise"):
        PERSON.uncached({"person": {**person_settings(), "margin": 2.0}}, "cpu")


def test_a_recipe_names_the_stream_of_its_students() -> None:
    recipe = load_yaml(pipeline_path("folder-pose"), Pipeline).model_copy(
        update={"student": "pose"}
    )
    with pytest.raises(UsageError, match="pose is not made of RGB frames alone"):
        check_recipe(recipe, Path("none"))
