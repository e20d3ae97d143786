"""The rendered data set: poses against geometry, pictures against poses, the same for a seed."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from vidkd.annotations import check, load_annotations
from vidkd.errors import UsageError
from vidkd.recipe import SynthSettings
from vidkd.synth import CLASSES, render_dataset
from vidkd.synth.dataset import ground_truth, subsets
from vidkd.synth.render import Film, plan
from vidkd.synth.skeleton import RIGID
from vidkd.video import probe, read_frames

SETTINGS = SynthSettings(videos=4, seconds=6, width=160, height=120, frame_rate=10, seed=5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synth") / "one"
    render_dataset(folder, SETTINGS)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "videos").iterdir())


def test_joints_in_pixels_are_the_pinhole_image_of_those_in_metres(dataset: Path) -> None:
    for name in names(dataset):
        with h5py.File(dataset / "poses" / f"{name}.h5") as file:
            points, pixels = file["joints_3d"][:], file["joints_2d"][:]
            matrices = file["intrinsics"][:]
        assert points.shape[2:] == (13, 3)
        image = np.einsum("nij,npkj->npki", matrices, points.astype(np.float64))
        np.testing.assert_allclose(image[..., :2] / image[..., 2:], pixels, atol=1e-2)


def test_bones_keep_their_length(dataset: Path) -> None:
    for name in names(dataset):
        with h5py.File(dataset / "poses" / f"{name}.h5") as file:
            points = file["joints_3d"][:].astype(np.float64)
        for first, second in RIGID:
            length = np.linalg.norm(points[:, :, first] - points[:, :, second], axis=-1)
            assert np.ptp(length, axis=0).max() < 1e-4
            assert (length > 0.08).all()
            assert (length < 0.6).all()


def test_people_stand_on_the_floor(dataset: Path) -> None:
    for name in names(dataset):
        with h5py.File(dataset / "poses" / f"{name}.h5") as file:
            points = file["joints_3d"][:].astype(np.float64)
            to_camera = file["world_to_camera"][:]
        world = (points - to_camera[:3, 3]) @ to_camera[:3, :3]
        ankles = world[:, :, :2, 2].min(axis=-1)
        # One ankle is near the floor but in flight, which no jump here makes higher than this.
        assert ankles.min() > -0.02
        assert ankles.max() < 0.6
        assert np.median(ankles) < 0.2


def test_annotations_fit_the_videos(dataset: Path) -> None:
    truth = load_annotations(dataset / "annotations.json")
    assert truth.classes == CLASSES
    # Few videos do not have all classes; nothing else may be wrong.
    assert [problem for problem in check(truth) if "has no segment" not in problem] == []
    assert {video.subset for video in truth.videos.values()} == {
        "training",
        "validation",
        "testing",
    }
    for name, video in truth.videos.items():
        info = probe(dataset / "videos" / f"{name}.mp4")
        assert (info.width, info.height) == (160, 120)
        assert float(info.frame_rate) == video.frame_rate == 10
        frames = list(read_frames(dataset / "videos" / f"{name}.mp4"))
        assert len(frames) == 60
        assert frames[-1].end == pytest.approx(video.duration)
        assert video.segments
        with h5py.File(dataset / "poses" / f"{name}.h5") as file:
            times = [(frame.start, frame.end) for frame in frames]
            np.testing.assert_allclose(file["pts"][:], times, atol=1e-6)


def test_visible_joints_lie_on_the_person(dataset: Path) -> None:
    # The depth map without people is the farthest ever seen at a pixel, where nobody stays.
    shot = plan(SETTINGS, 0)
    film = Film(shot)
    depth = np.stack([depth for _, depth in film.frames()])
    with h5py.File(dataset / "poses" / f"{names(dataset)[0]}.h5") as file:
        points, pixels, visible = (file[key][:] for key in ("joints_3d", "joints_2d", "visible"))
    assert visible.mean() > 0.3
    column, row = np.moveaxis(np.rint(pixels).astype(int), -1, 0)
    for frame, person, joint in np.argwhere(visible):
        surface = depth[frame, row[frame, person, joint], column[frame, person, joint]]
        assert abs(surface - points[frame, person, joint, 2]) < 0.5


def test_workers_change_nothing(dataset: Path, tmp_path: Path) -> None:
    render_dataset(tmp_path, SETTINGS, workers=2)
    for kind in ("videos", "poses"):
        for path in (dataset / kind).iterdir():
            other = tmp_path / kind / path.name
            if kind == "videos":
                assert path.read_bytes() == other.read_bytes()
            else:
                with h5py.File(path) as first, h5py.File(other) as second:
                    for key in first:
                        np.testing.assert_array_equal(first[key][()], second[key][()])
    text = [(folder / "annotations.json").read_text() for folder in (dataset, tmp_path)]
    assert text[0] == text[1]


def test_an_unfinished_data_set_is_completed(dataset: Path, tmp_path: Path) -> None:
    render_dataset(tmp_path, SETTINGS)
    lost = tmp_path / "videos" / f"{names(dataset)[2]}.mp4"
    content = lost.read_bytes()
    lost.unlink()
    partial = lost.with_name(f".{lost.stem}.abc.partial.mp4")
    partial.write_bytes(content[:1000])
    kept = tmp_path / "videos" / f"{names(dataset)[0]}.mp4"
    before = kept.stat().st_mtime_ns
    render_dataset(tmp_path, SETTINGS)
    assert lost.read_bytes() == content
    assert not partial.exists()
    assert kept.stat().st_mtime_ns == before


def test_other_settings_are_refused(dataset: Path) -> None:
    with pytest.raises(UsageError, match="another seed"):
        render_dataset(dataset, SETTINGS.model_copy(update={"seed": 6}))


def test_every_class_occurs_and_motion_pairs_balance() -> None:
    truth = ground_truth(SynthSettings(videos=60))
    labels = [a["label"] for v in truth["database"].values() for a in v["annotations"]]
    counts = {label: labels.count(label) for label in CLASSES}
    assert min(counts.values()) >= 8
    assert set(labels) == set(CLASSES)
    json.dumps(truth)


@pytest.mark.parametrize("videos", [1, 2, 3, 7, 60])
def test_subsets_cover_all_videos(videos: int) -> None:
    settings = SynthSettings(videos=videos)
    found = subsets(settings)
    assert len(found) == videos
    assert "training" in found
    assert found == subsets(settings)
    if videos >= 3:
        assert set(found) == {"training", "validation", "testing"}
