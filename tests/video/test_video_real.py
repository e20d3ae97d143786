"""Real clips, where they are at hand; their facts are written down beside them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from vidkd.recipe import SnippetSettings
from vidkd.video import find_videos, probe, read_frames, snippet_count

DATA = Path(os.environ.get("VIDKD_TEST_DATA", ""))

pytestmark = pytest.mark.skipif(
    not (DATA / "clips").is_dir(), reason="VIDKD_TEST_DATA does not lead to the clips"
)


def test_weight_lifting_clip():
    path = DATA / "clips" / "v_GGSY1Qvo990.mp4"
    info = probe(path)
    assert (info.width, info.height, info.codec) == (320, 240, "h264")
    assert float(info.frame_rate) == pytest.approx(19.62)
    frames = list(read_frames(path, short_side=256))
    assert len(frames) == info.frame_count == 355
    assert frames[0].image.shape == (256, 342, 3)
    steps = np.diff([frame.start for frame in frames])
    np.testing.assert_allclose(steps, 1 / 19.62, atol=1e-3)
    assert snippet_count(len(frames), SnippetSettings()) == 23


@pytest.mark.skipif(not (DATA / "reference").is_dir(), reason="no reference values")
def test_reference_snippets_show_the_same_pictures():
    """Decoded and resized by another program; a resize of another kind differs by few levels."""
    expected = np.load(DATA / "reference" / "i3d_rgb.npz")["snippets"]
    path = DATA / "clips" / "v_GGSY1Qvo990.mp4"
    images = np.stack([frame.image for frame in read_frames(path, short_side=256)])
    top, left = (256 - 224) // 2, (342 - 224) // 2
    crops = images[:, top : top + 224, left : left + 224]
    for snippet, first in zip(expected, (0, 160), strict=True):
        own = crops[first : first + 16].astype(float)
        assert np.abs(own - snippet).mean() < 5
        shifted = crops[first + 1 : first + 17].astype(float)
        assert np.abs(shifted - snippet).mean() > np.abs(own - snippet).mean()


@pytest.mark.skipif(not (DATA / "untrimmed").is_dir(), reason="no untrimmed videos")
def test_untrimmed_video_lasts_as_long_as_its_annotation():
    database = json.loads((DATA / "untrimmed" / "annotations.json").read_text())["database"]
    videos = {Path(v.key).name: v.path for v in find_videos([DATA / "untrimmed"])}
    assert set(database) <= set(videos)
    name = sorted(database)[0]
    *_, last = read_frames(videos[name])
    assert last.end == pytest.approx(database[name]["duration"], abs=0.15)
