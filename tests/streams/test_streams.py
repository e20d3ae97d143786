"""The table of streams, and where their features lie."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from vidkd.errors import UsageError
from vidkd.networks import find_card
from vidkd.streams import RGB, STREAMS, Stream
from vidkd.video import Frame

CPU = torch.device("cpu")


class Depth(Stream):
    name = "depth"
    label = "Depth"


def test_streams_are_found_by_name() -> None:
    assert {"rgb", "flow", "pose"} <= set(STREAMS)
    assert all(STREAMS[name].name == name for name in STREAMS)
    with pytest.raises(UsageError, match=r"there is no stream 'smell'.*rgb, flow, pose"):
        STREAMS["smell"]


def test_streams_that_share_an_encoder_share_no_folder() -> None:
    assert [STREAMS[name].folder("e") for name in ("rgb", "flow", "pose")] == ["e", "e", "e"]
    assert Depth().folder("e") == "e.depth"
    for stream in (RGB, Depth()):
        assert stream.encoder(stream.folder("i3d.of-mine")) == "i3d.of-mine"


def test_the_table_loads_none_of_what_only_some_streams_need() -> None:
    program = """
import sys, vidkd.streams
heavy = ("vidkd.flow", "vidkd.pose", "vidkd.networks", "numba", "cv2", "torch")
sys.exit(", ".join(name for name in sys.modules if name.startswith(heavy)) or 0)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def pictures(count: int, seed: int = 0) -> list[Frame]:
    images = np.random.default_rng(seed).integers(0, 256, (count, 5, 6, 3), dtype=np.uint8)
    return [Frame(image, k / 25, (k + 1) / 25, k) for k, image in enumerate(images)]


def test_a_difference_is_the_next_frame_minus_this_one() -> None:
    frames = pictures(4)
    rows = list(STREAMS["rgb-difference"].rows(frames))
    assert [(row.start, row.end, row.index) for row in rows] == [
        (frame.start, frame.end, frame.index) for frame in frames
    ]
    for row, one, other in zip(rows, frames, frames[1:], strict=False):
        exact = other.image.astype(int) - one.image
        np.testing.assert_array_equal(
            row.image, np.where(abs(exact) > 127, 127 * np.sign(exact), exact)
        )
    np.testing.assert_array_equal(rows[3].image, rows[2].image)
    [alone] = STREAMS["rgb-difference"].rows(frames[:1])
    assert not alone.image.any()
    assert list(STREAMS["rgb-difference"].rows([])) == []


def test_differences_are_scaled_as_rgb_is_and_stillness_is_exactly_zero() -> None:
    """Where nothing is clipped, it is the difference of what the encoder sees of RGB."""
    frames = [replace(frame, image=frame.image // 2) for frame in pictures(5)]
    rows = np.stack([row.image for row in STREAMS["rgb-difference"].rows(frames)])[None]
    images = np.stack([frame.image for frame in frames])[None]
    for update in ({}, {"mean": (0.4, 0.5, 0.6), "deviation": (0.2, 0.3, 0.25)}):
        card = find_card("i3d-rgb-kinetics400").model_copy(update=update)
        seen = RGB.prepare(card, CPU, {})(images)
        found = STREAMS["rgb-difference"].prepare(card, CPU, {})(rows)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found[:, :, :-1], seen[:, :, 1:] - seen[:, :, :-1])
    still = list(STREAMS["rgb-difference"].rows([frames[0]] * 3))
    card = find_card("i3d-rgb-kinetics400")
    prepare = STREAMS["rgb-difference"].prepare(card, CPU, {})
    assert not prepare(np.stack([row.image for row in still])[None]).any()
    most = prepare(np.full((1, 2, 3, 3, 3), -127, np.int8))
    assert -1 <= most.min() < -0.99
