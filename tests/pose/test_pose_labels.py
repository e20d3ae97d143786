"""The format of labelled poses, and the pictures of training."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from pictures_of_people import draw, write_people

from vidkd.errors import AnnotationError, VideoError
from vidkd.pose.augment import augment
from vidkd.pose.labels import LabelledPerson, load_pictures, read_labels
from vidkd.recipe import SynthSettings
from vidkd.skeletons import FLIP
from vidkd.synth import render_dataset


def test_written_labels_are_read_back(tmp_path: Path) -> None:
    path = write_people(tmp_path / "people", 3)
    frames = read_labels(path)
    assert frames == [] or len(frames) == 3
    rng = np.random.default_rng(0)
    for (frame, image), wanted in zip(
        load_pictures(frames), (draw(rng) for _ in range(3)), strict=True
    ):
        np.testing.assert_array_equal(image, wanted[0])
        (person,) = frame.people
        np.testing.assert_allclose(person.joints_2d, wanted[1].joints_2d, atol=0.006)
        np.testing.assert_allclose(person.joints_3d, wanted[1].joints_3d, atol=1e-4)
        np.testing.assert_array_equal(person.scores, 1.0)
    assert len(read_labels(path.parent)) == 3


def entry(**changes: object) -> dict[str, object]:
    joints = [[float(i), 2.0 * i, 0.9] for i in range(17)]
    return {"image": "a.png", "people": [{"joints_2d": joints, **changes}]}


def write(folder: Path, frames: object, joints: str = "coco-17") -> Path:
    cv2.imwrite(str(folder / "a.png"), np.zeros((8, 8, 3), np.uint8))
    path = folder / "labels.json"
    text = {"format": "vidkd-poses", "joints": joints, "frames": frames}
    path.write_text(json.dumps(text))
    return path


def test_coco_labels(tmp_path: Path) -> None:
    frames = entry()
    people = frames["people"]
    people[0]["joints_2d"][16] = [0, 0, 0]  # type: ignore[index]
    people[0]["joints_2d"][4] = None  # type: ignore[index]
    (frame,) = read_labels(write(tmp_path, [frames]))
    (person,) = frame.people
    # The right ankle was not labelled, and of the ears only the left one, number 3.
    assert person.scores[0] == 0
    assert np.isnan(person.joints_2d[0]).all()
    np.testing.assert_allclose(person.joints_2d[1], [15, 30])
    np.testing.assert_allclose(person.joints_2d[12], [3, 6])
    assert np.isnan(person.joints_3d).all()


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([{"people": []}], r"frames\[0\]: has not exactly one"),
        ([entry(), {"image": "b.png", "people": []}], r"frames\[1\]: there is no"),
        ([entry(box=[0, 0, -1, 5])], r"people\[0\].box"),
        ([entry(joints_2d=[[0, 0, 1]])], "17 rows"),
        ([entry(joints_2d=[[0, 0, 2]] * 17)], "scores lie in"),
        ([entry(joints_2d=[[0, "x", 1]] * 17)], r"frames\[0\]"),
        ([entry(joints_3d=[[0, 0, 1e999]] * 17)], "finite"),
        (["x"], r"frames\[0\]"),
        ({}, "not a list"),
    ],
)
def test_broken_labels(tmp_path: Path, frames: object, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        read_labels(write(tmp_path, frames))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="no labelled poses"):
        read_labels(tmp_path)
    with pytest.raises(AnnotationError, match="`joints` is none of"):
        read_labels(write(tmp_path, [], "openpose"))
    path = write(tmp_path, [entry()])
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(VideoError, match="not a picture"):
        list(load_pictures(read_labels(path)))
    path.write_text("{")
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_labels(path)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    settings = SynthSettings(videos=1, seconds=4, frame_rate=1.0, width=96, height=72, seed=5)
    render_dataset(folder, settings)
    return folder


def test_rendered_labels(rendered: Path) -> None:
    frames = read_labels(rendered)
    assert [frame.time for frame in frames] == [0, 1, 2, 3]
    pictures = list(load_pictures(frames))
    assert len(pictures) == 4
    for frame, image in pictures:
        assert image.shape == (72, 96, 3)
        for person in frame.people:
            np.testing.assert_allclose(person.joints_3d[4:6].mean(axis=0), 0, atol=1e-5)
            # Down is positive in both: the head lies above the hips.
            assert person.joints_3d[12, 1] < 0
            assert person.joints_2d[12, 1] < person.joints_2d[4:6, 1].mean()
            assert set(np.unique(person.scores)) <= {0.25, 0.5, 1.0}
    (rendered / "videos" / "synth_0000.mp4").rename(rendered / "videos" / "elsewhere.mp4")
    with pytest.raises(AnnotationError, match="lacks its video"):
        read_labels(rendered)


def marked(joints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a picture that is black but for a blob at each joint, bright as its number."""
    image = np.zeros((*size, 3), np.uint8)
    for number, joint in enumerate(joints):
        cv2.circle(image, tuple(int(v) for v in joint), 3, (15 * number + 60,) * 3, -1)
    return image


@pytest.mark.parametrize("seed", range(6))
def test_augmentation_moves_joints_with_the_picture(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blobs in the picture are found again where the joints went, sides swapped in a mirror."""
    for name in ("_colours", "_damage", "_blocks"):
        monkeypatch.setattr(f"vidkd.pose.augment.{name}", lambda image, rng: image)
    monkeypatch.setattr("vidkd.pose.augment.EXTENTS", (0.9, 1.1))
    rng = np.random.default_rng(seed)
    rows, columns = np.divmod(np.arange(13), 4)
    joints = np.stack([40 + 20 * columns, 30 + 25 * rows], axis=1).astype(np.float32)
    image = marked(joints, (150, 160))
    points = rng.normal(size=(13, 3)).astype(np.float32)
    person = LabelledPerson(joints, np.ones(13, np.float32), points)
    found, (moved,) = augment(image, (person,), (150, 160), np.random.default_rng(seed))
    # Where joint 1 went instead of joint 0, the picture is mirrored.
    checked = 0
    for mapping in (range(13), FLIP):
        hits = []
        for number, source in enumerate(mapping):
            x, y = np.round(moved.joints_2d[number]).astype(int)
            if 2 <= x < 158 and 2 <= y < 148:
                hits.append(abs(int(found[y, x, 0]) - (15 * source + 60)) <= 4)
        checked = max(checked, sum(hits) if hits and all(hits) else 0)
    assert checked >= 3
    # Rotations and mirrors keep lengths, and a mirror alone turns x.
    lengths = np.linalg.norm(moved.joints_3d, axis=1)
    mirrored = not np.allclose(lengths, np.linalg.norm(points, axis=1), rtol=1e-4)
    np.testing.assert_allclose(
        lengths, np.linalg.norm(points[list(FLIP)] if mirrored else points, axis=1), rtol=1e-4
    )
