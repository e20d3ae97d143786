"""The 13 joints, and other skeletons mapped to them."""

from __future__ import annotations

import numpy as np
import pytest

from vidkd.errors import UsageError
from vidkd.skeletons import BONES, FLIP, JOINTS, from_blazepose33, from_coco17, root

COCO = [
    "nose",
    "left eye",
    "right eye",
    "left ear",
    "right ear",
    "left shoulder",
    "right shoulder",
    "left elbow",
    "right elbow",
    "left wrist",
    "right wrist",
    "left hip",
    "right hip",
    "left knee",
    "right knee",
    "left ankle",
    "right ankle",
]
BLAZEPOSE = [
    "nose",
    "left eye inner",
    "left eye",
    "left eye outer",
    "right eye inner",
    "right eye",
    "right eye outer",
    "left ear",
    "right ear",
    "mouth left",
    "mouth right",
    "left shoulder",
    "right shoulder",
    "left elbow",
    "right elbow",
    "left wrist",
    "right wrist",
    "left pinky",
    "right pinky",
    "left index",
    "right index",
    "left thumb",
    "right thumb",
    "left hip",
    "right hip",
    "left knee",
    "right knee",
    "left ankle",
    "right ankle",
    "left heel",
    "right heel",
    "left foot index",
    "right foot index",
]


def test_joints_are_those_of_the_renderer() -> None:
    from vidkd.synth.skeleton import JOINTS as RENDERED

    assert JOINTS == RENDERED


def test_mirror_swaps_the_names_of_sides() -> None:
    swapped = {"left": "right", "right": "left"}
    for name, place in zip(JOINTS, FLIP, strict=True):
        side, _, part = name.partition(" ")
        assert JOINTS[place] == (f"{swapped[side]} {part}" if part else name)


def test_bones_are_a_tree() -> None:
    reached = {12}
    for _ in JOINTS:
        reached |= {a for a, b in BONES if b in reached} | {b for a, b in BONES if a in reached}
    assert reached == set(range(13))
    assert len(BONES) == 12


@pytest.mark.parametrize(
    ("convert", "names", "head"),
    [
        (from_coco17, COCO, ("left ear", "right ear")),
        (from_blazepose33, BLAZEPOSE, ("left ear", "right ear")),
    ],
)
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_conversion_by_name(convert, names, head, depth: int) -> None:  # type: ignore[no-untyped-def]
    joints = np.random.default_rng(0).normal(size=(2, 3, len(names), depth))
    found = convert(joints)
    assert found.shape == (2, 3, 13, depth)
    for number, name in enumerate(JOINTS[:-1]):
        np.testing.assert_array_equal(found[..., number, :], joints[..., names.index(name), :])
    middle = sum(joints[..., names.index(name), :] for name in head) / len(head)
    np.testing.assert_allclose(found[..., 12, :], middle)


def test_head_from_what_is_known() -> None:
    joints = np.random.default_rng(0).normal(size=(17, 2))
    joints[COCO.index("left ear")] = np.nan
    np.testing.assert_allclose(from_coco17(joints)[12], joints[COCO.index("right ear")])
    joints[COCO.index("right ear")] = np.nan
    eyes = [COCO.index("left eye"), COCO.index("right eye")]
    np.testing.assert_allclose(from_coco17(joints)[12], joints[eyes].mean(axis=0))
    joints[eyes] = np.nan
    np.testing.assert_allclose(from_coco17(joints)[12], joints[0])
    joints[0] = np.nan
    assert np.isnan(from_coco17(joints)[12]).all()


def test_root_is_between_the_hips() -> None:
    joints = np.random.default_rng(0).normal(size=(5, 13, 3))
    middle = (joints[:, JOINTS.index("left hip")] + joints[:, JOINTS.index("right hip")]) / 2
    np.testing.assert_allclose(root(joints)[:, 0], middle)


def test_other_counts_are_refused() -> None:
    with pytest.raises(UsageError, match="COCO-17"):
        from_coco17(np.zeros((13, 2)))
