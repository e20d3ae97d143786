"""RGB around the main person."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from vidkd.errors import UsageError, WeightsError
from vidkd.networks.lcrnet import PoseNetSettings, Regions
from vidkd.pipeline.check import check_recipe
from vidkd.pose.detector import PersonPose, PoseDetector
from vidkd.pose.labels import load_pictures, read_labels
from vidkd.recipe import Pipeline, SnippetSettings, SynthSettings, load_yaml, pipeline_path
from vidkd.streams import STREAMS
from vidkd.streams.encode import BatchEncoder
from vidkd.streams.person import MARGIN, SHAKE, cut_squares, people_in, person_settings, squares
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


def test_the_square_goes_along_with_the_person() -> None:
    walks = {
        2: [person(100, 40, 20, 60)],
        6: [person(110, 42, 20, 62)],
        10: [person(116, 42, 20, 60)],
    }
    found = squares(walks, 12)
    assert found is not None
    corners, side = found
    assert side == pytest.approx(MARGIN * 62)
    middles = corners + side / 2
    # Joints from 100 to 120 cover pixels from edge 100 to edge 121.
    np.testing.assert_allclose(middles[2], (110.5, 70.5))
    np.testing.assert_allclose(middles[6], (120.5, 73.5))
    np.testing.assert_allclose(middles[10], (126.5, 72.5))
    # Straight between the looks, and on as before beyond them.
    np.testing.assert_allclose(middles[[0, 3, 4, 8, 11], 0], [105.5, 113, 115.5, 123.5, 128])


def test_the_main_person_is_the_largest_by_score_and_nobody_else_is_followed() -> None:
    main, small, doubtful = (
        person(100, 40, 20, 60),
        person(20, 40, 5, 20),
        person(150, 0, 60, 99, 0.1),
    )

    def same(one: dict[int, list[PersonPose]], other: dict[int, list[PersonPose]]) -> None:
        (corners, side), (expected, its_side) = squares(one, 8), squares(other, 8)  # type: ignore[misc]
        np.testing.assert_allclose(corners, expected)
        assert side == its_side

    same({2: [small, main], 6: [main, doubtful]}, {2: [main], 6: [main]})
    # Who is too far away is somebody else, and the person stays where they were.
    same({2: [main], 6: [person(280, 40, 20, 60)]}, {2: [main], 6: []})
    assert squares({2: [], 6: []}, 8) is None


def test_a_square_is_cut_and_the_edge_of_the_frame_goes_on_outside() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
    corners = np.array([[10.0, 5.0], [12.0, 5.0]])
    found = cut_squares(images, corners, 30, 30)
    np.testing.assert_array_equal(found[0], images[0, 5:35, 10:40])
    np.testing.assert_array_equal(found[1], images[1, 5:35, 12:42])
    found = cut_squares(images, np.array([[-8.0, 25.0]] * 2), 30, 30)
    padded = np.pad(images, ((0, 0), (0, 30), (8, 0), (0, 0)), mode="edge")
    np.testing.assert_array_equal(found, padded[:, 25:55, :30])
    # Twice as large is between the pixels, a quarter as large the means of areas.
    ramp = np.tile(np.arange(60, dtype=np.uint8) * 4, (2, 40, 1))[..., None].repeat(3, 3)
    double = cut_squares(ramp, np.array([[20.0, 10.0]] * 2), 10, 20)
    np.testing.assert_allclose(double[0, 3, :, 0], 80 + 2 * np.arange(20) - 1, atol=1)
    quarter = cut_squares(images, np.zeros((2, 2)), 40, 10).astype(int)
    mean = images[:, :40, :40].reshape(2, 10, 4, 10, 4, 3).mean(axis=(2, 4))
    assert abs(quarter - mean).mean() <= 12  # of noise whose deviation is 74


class Detector:
    """Finds one person where it is brightest, and counts its looks and how often it is called."""

    def __init__(self) -> None:
        self.looks = self.calls = 0

    def __call__(self, images: Sequence[np.ndarray]) -> list[list[PersonPose]]:
        self.looks += len(images)
        self.calls += 1
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
        # In every frame the person is in the middle, as large as the margin says.
        for frame in item.frames:
            rows, columns = np.nonzero((frame > 200).all(axis=2))
            assert abs(columns.mean() - 15.5) <= 1
            assert abs(rows.mean() - 15.5) <= 1
            assert abs(np.ptp(rows) + 1 - 32 / MARGIN) <= 2
    # Four looks for each snippet, of which the next one shares two; those of four are one call.
    assert (detector.looks, detector.calls) == (12, 2)


def test_where_nobody_is_it_is_the_middle_of_the_frame(detector: Detector) -> None:
    images = np.stack([frame.image for frame in frames(16, None)])
    found = PERSON.crop(images, 64)
    np.testing.assert_array_equal(found, images[:, :, 68:132])
    assert PERSON.crop(images, 16).shape == (16, 16, 16, 3)
    moved = PERSON.crop(images, 64, (0.5 + 4 / (2 * SHAKE * 64), 0.5))
    np.testing.assert_array_equal(moved, images[:, :, 72:136])


def test_rendered_people_are_in_the_square(tmp_path: Path) -> None:
    """The detector that travels with the package, on people whose joints are known."""
    render_dataset(tmp_path, SynthSettings(videos=2, seconds=4, frame_rate=1.0, seed=424_242))
    inside = []
    for frame, image in load_pictures(read_labels(tmp_path)):
        joints = np.concatenate([item.joints_2d for item in frame.people])
        found = squares({0: people_in([image], "cpu")[0]}, 1)
        if found is not None:
            [corner], side = found
            within = (joints >= corner) & (joints <= corner + side)
            inside.append(within.all(axis=1).mean())
    assert len(inside) >= 8
    assert np.mean(inside) >= 0.9


def test_the_detector_and_the_encoder_do_not_take_the_cores_from_each_other() -> None:
    begun, go_on, order = threading.Event(), threading.Event(), list[str]()

    def encode(x: torch.Tensor) -> torch.Tensor:
        begun.set()
        go_on.wait(10)
        order.append("encoder")
        return x.flatten(1)

    class Network(torch.nn.Module):
        settings = PoseNetSettings()

        def forward(self, images: torch.Tensor, sizes: object) -> list[Regions]:
            order.append("detector")
            none = torch.zeros(0, 28, 13, 3)
            return [Regions(torch.zeros(0, 4), torch.zeros(0, 28), none[..., :2], none)]

    cpu = torch.device("cpu")
    encoder = BatchEncoder(encode, cpu, lambda images: torch.as_tensor(images).float())
    detector = PoseDetector(Network(), "name", "hash", cpu)  # type: ignore[arg-type]
    image = np.zeros((32, 32, 3), np.uint8)
    with ThreadPoolExecutor(2) as pool:
        encoded = pool.submit(encoder, encoder.send(image[None]))
        assert begun.wait(10)
        found = pool.submit(detector, [image])
        with pytest.raises(TimeoutError):
            found.result(timeout=0.2)
        go_on.set()
        assert found.result(10) == [[]]
        assert encoded.result(10).shape == (1, image.size)
    assert order == ["encoder", "detector"]


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
