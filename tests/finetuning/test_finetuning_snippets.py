"""Which snippets are drawn, and how they are read, cropped and flipped."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from vidkd.annotations import Segment, VideoAnnotation
from vidkd.errors import AnnotationError, VidkdError
from vidkd.finetuning.frames import SnippetReader, VideoSource, augment
from vidkd.finetuning.snippets import BalancedSampler, Clip, LabelledVideo, validation_clips
from vidkd.recipe import FrameSettings, SnippetSettings, model_cards
from vidkd.streams import RGB, STREAMS
from vidkd.video import VideoWriter, cut_snippets, read_frames

RATE = 25
SNIPPET = SnippetSettings(length=16, stride=16)
CARD = model_cards()["i3d-flow-imagenet"]


class Still:
    """Frames whose value is their number."""

    def __init__(self, frames):
        times = np.arange(frames + 1) / RATE
        self.pts = np.stack([times[:-1], times[1:]], axis=1)

    def read(self, frame, snippet):
        length = snippet.length
        numbers = np.minimum(np.arange(frame, frame + length), len(self.pts) - 1)
        images = np.broadcast_to(numbers[:, None, None, None], (length, 8, 10, 2))
        return images.astype(np.uint8), (frame / RATE, self.pts[numbers[-1], 1])


def labelled(frames, *segments):
    items = tuple(Segment(first / RATE, last / RATE, label) for first, last, label in segments)
    return LabelledVideo(Still(frames), VideoAnnotation("v", segments=items))


def test_classes_and_background_are_drawn_equally_often():
    videos = [labelled(1000, (0, 20, "rare")), labelled(400, (0, 350, "common"))]
    sampler = BalancedSampler(videos, ("rare", "common", "absent"), SNIPPET)
    clips = sampler.draw(300, np.random.default_rng(0))
    reader = SnippetReader(videos, ("rare", "common", "absent"), SNIPPET, 8, STREAMS["flow"])
    targets = np.stack([reader[clip][1] for clip in clips])
    assert targets.sum(axis=0).tolist() == [100, 100, 0]
    assert {clip.flip for clip in clips} == {True, False}
    assert clips == sampler.draw(300, np.random.default_rng(0))
    assert clips != sampler.draw(300, np.random.default_rng(1))
    with pytest.raises(AnnotationError, match="no training snippet carries a label"):
        BalancedSampler([labelled(100)], ("absent",), SNIPPET)


def test_validation_takes_every_snippet_or_spreads_evenly():
    videos = [labelled(33), labelled(16)]
    assert validation_clips(videos, SNIPPET, 100) == [
        Clip(0, 0),
        Clip(0, 16),
        Clip(0, 32),
        Clip(1, 0),
    ]
    few = validation_clips(videos, SNIPPET, 2)
    assert few == [Clip(0, 0), Clip(1, 0)]


def test_a_flip_mirrors_the_picture_and_turns_horizontal_motion_round():
    rng = np.random.default_rng(0)
    flow = rng.integers(1, 256, (4, 6, 9, 2), dtype=np.uint8)
    flow[0, 0, 0] = 128
    plain = augment(flow, Clip(0, 0, 0.5, 0.5), 6, STREAMS["flow"])
    flipped = augment(flow, Clip(0, 0, 0.5, 0.5, True), 6, STREAMS["flow"])
    prepare = STREAMS["flow"].prepare(CARD, torch.device("cpu"), {"flow": {"bound": 20.0}})
    one, other = (prepare(item[None])[0] for item in (plain, flipped))
    torch.testing.assert_close(other[0], -one[0].flip(-1), rtol=0, atol=0)
    torch.testing.assert_close(other[1], one[1].flip(-1), rtol=0, atol=0)
    rgb = rng.integers(0, 256, (4, 6, 9, 3), dtype=np.uint8)
    mirrored = augment(rgb, Clip(0, 0, 0.5, 0.5, True), 6, RGB)
    np.testing.assert_array_equal(mirrored, augment(rgb, Clip(0, 0, 0.5, 0.5), 6, RGB)[:, :, ::-1])


def test_crops_reach_both_borders_and_small_pictures_are_refused():
    image = np.broadcast_to(np.arange(9, dtype=np.uint8)[None, None, :, None], (2, 6, 9, 3))
    lefts = {
        int(augment(image, Clip(0, 0, x, 0.0), 4, RGB)[0, 0, 0, 0])
        for x in np.linspace(0, 0.999, 50)
    }
    assert lefts == set(range(6))
    assert augment(image, Clip(0, 0), 4, RGB)[0, 0, 0, 0] == 2
    for clip in (Clip(0, 0), Clip(0, 0, 0.1, 0.1)):
        with pytest.raises(VidkdError, match="smaller than the crop"):
            augment(image, clip, 7, RGB)


@pytest.mark.parametrize("rate", [None, 10.0])
@pytest.mark.parametrize("stream", ["rgb", "rgb-difference"])
@pytest.mark.parametrize(
    "snippets",
    [
        SnippetSettings(length=16, stride=5),
        SnippetSettings(length=13, stride=5, step=3, window=8),
        SnippetSettings(length=2, stride=7, window=9),
    ],
)
def test_video_is_read_by_time_as_from_the_start(tmp_path, rate, stream, snippets):
    path = tmp_path / "v.mp4"
    texture = np.random.default_rng(0).integers(0, 255, (48, 200, 3), dtype=np.uint8)
    with VideoWriter(path, 64, 48, Fraction(RATE)) as writer:
        for number in range(70):
            writer.write(np.ascontiguousarray(texture[:, number : number + 64]))
    settings = FrameSettings(short_side=48, frame_rate=rate)
    whole = list(read_frames(path, short_side=48, frame_rate=rate))
    source = VideoSource.open(path, settings, None, STREAMS[stream])
    assert len(source.pts) == pytest.approx(len(whole), abs=1)
    for snippet in cut_snippets(STREAMS[stream].rows(whole), snippets):
        images, times = source.read(snippet.index * snippets.stride, snippets)
        np.testing.assert_array_equal(images, snippet.frames)
        assert times == pytest.approx((snippet.start, snippet.end))
