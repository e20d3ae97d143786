"""Poses from files: three formats that must say the same, laid on the frames of a video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidkd.errors import UsageError, VidkdError
from vidkd.pose.files import look_up, read_table
from vidkd.skeletons import COCO17

GENERATOR = np.random.default_rng(0)
KEYPOINTS = np.concatenate(
    [GENERATOR.uniform(10, 90, (17, 2)), GENERATOR.uniform(0.3, 1, (17, 1))], axis=1
).round(3)
FRAMES = [(index, index / 10, (index + 1) / 10) for index in range(20)]


def coco_document(frames: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"format": "vidkd-poses", "joints": "coco-17", "frames": frames, **more}


def write(folder: Path, content: Any, name: str = "a/walk.json") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def found(folder: Path, frames: Any = None, size: tuple[int, int] = (200, 100)) -> dict[int, list]:
    table = read_table(folder, "a/walk")
    return {
        index: people for index, _, people in look_up(table, frames or FRAMES, (200, 100), size)
    }


def test_formats_agree(tmp_path: Path) -> None:
    person = {"joints_2d": KEYPOINTS.tolist()}
    by_time = write(tmp_path / "1", coco_document([{"time": 0.5, "people": [person]}]))
    by_number = write(tmp_path / "2", coco_document([{"frame": 5, "people": [person]}]))
    result = {"keypoints": KEYPOINTS.ravel().tolist(), "score": 2.5, "category_id": 1}
    as_list = write(tmp_path / "3", [{"image_id": 5, **result}])
    as_names = write(tmp_path / "4", [{"image_id": "walk_000005.jpg", **result}])
    all_in_one = coco_document(
        [
            {"key": "b/run", "time": 0.5, "people": []},
            {"key": "a/walk", "time": 0.5, "image": "5.jpg", "people": [person]},
        ]
    )
    write(tmp_path, all_in_one, "labels.json")
    for source in (by_time, by_number, as_list, as_names, tmp_path / "labels.json"):
        people = found(source)
        assert list(people) == [5], source
        (only,) = people[5]
        np.testing.assert_allclose(only.joints_2d[:12], KEYPOINTS[list(COCO17), :2], atol=1e-4)
        np.testing.assert_allclose(only.joints_2d[12], KEYPOINTS[3:5, :2].mean(axis=0), atol=1e-4)
        assert np.isnan(only.joints_3d).all()
        assert (only.joints_2d > only.box[:2]).all()
        assert (only.joints_2d < only.box[2:]).all()


def test_pixels_follow_the_resize_and_keep_the_middle_of_pixels(tmp_path: Path) -> None:
    person = {"joints_2d": KEYPOINTS.tolist(), "box": [-0.5, -0.5, 199.5, 99.5]}
    frames = [
        {"frame": 0, "people": [person]},
        {"frame": 1, "size": [400, 200], "people": [person]},
    ]
    folder = write(tmp_path, coco_document(frames))
    same, half = found(folder, size=(200, 100)), found(folder, size=(100, 50))
    # The corner of the picture stays its corner, the far corner too.
    np.testing.assert_allclose(half[0][0].box, [-0.5, -0.5, 99.5, 49.5])
    np.testing.assert_allclose(
        half[0][0].joints_2d, (same[0][0].joints_2d + 0.5) / 2 - 0.5, atol=1e-6
    )
    # A frame that says its size is scaled from that.
    np.testing.assert_allclose(same[1][0].joints_2d, half[0][0].joints_2d, atol=1e-6)


def test_frames_that_are_not_listed_were_searched_in_vain(tmp_path: Path) -> None:
    person = {"joints_2d": KEYPOINTS.tolist()}
    listed = [{"frame": number, "people": [person]} for number in (0, 2, 4, 6, 14, 16)]
    people = found(write(tmp_path, coco_document(listed)))
    assert list(people) == list(range(0, 18, 2))
    assert [number for number, items in people.items() if not items] == [8, 10, 12]


def test_a_joint_nobody_saw_is_unknown(tmp_path: Path) -> None:
    keypoints = KEYPOINTS.copy()
    keypoints[COCO17[0]] = 0  # as COCO writes it: at (0, 0) with score 0
    result = {"image_id": 0, "keypoints": keypoints.ravel().tolist(), "score": 1}
    (person,) = found(write(tmp_path, [result]))[0]
    assert np.isnan(person.joints_2d[0]).all()
    assert person.scores[0] == 0
    assert np.isfinite(person.joints_2d[1:]).all()
    assert person.box[0] > 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("7", "neither"),
        ({"format": "else", "frames": []}, "neither"),
        (coco_document([]), "holds no frame"),
        (coco_document([{"time": 0.0}]), "lacks 'people'"),
        (coco_document([{"time": -1, "people": []}]), "is at -1"),
        (coco_document([{"time": float("nan"), "people": []}]), "is at nan"),
        (coco_document([{"time": 0, "size": [0, 5], "people": []}]), "makes no sense"),
        (coco_document([{"time": 0, "people": [{"joints_2d": [[1, 2, 0.5]]}]}]), "17 rows"),
        ([{"image_id": "front.jpg", "keypoints": [0] * 51}], "does not end in the number"),
        ([{"image_id": 3, "keypoints": [0] * 50}], "reshape"),
        ([{"keypoints": [0] * 51}], "lacks 'image_id'"),
    ],
)
def test_broken_files_are_named_with_what_is_wrong(
    tmp_path: Path, content: Any, complaint: str
) -> None:
    with pytest.raises(VidkdError, match=complaint) as caught:
        found(write(tmp_path, content))
    assert "walk.json" in str(caught.value)


def test_poses_of_another_video_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VidkdError, match=r"no poses a/walk\.json"):
        read_table(tmp_path, "a/walk")
    write(tmp_path, coco_document([{"time": 30.0, "people": []}]))
    with pytest.raises(UsageError, match="poses at 30, but the video has 2"):
        found(tmp_path)
    write(tmp_path, [{"image_id": 20, "keypoints": KEYPOINTS.ravel().tolist()}])
    with pytest.raises(UsageError, match="poses at 20, but the video has 20 frames"):
        found(tmp_path)
