"""``run.py`` decodes, scales, samples and cuts as vidkd does, and shows the same segments."""

from __future__ import annotations

import json
import runpy
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import vidkd.deployment
from vidkd.detection.segments import clear_candidates
from vidkd.evaluation.predictions import Candidates
from vidkd.recipe import SnippetSettings
from vidkd.video import clip_frames, cut_snippets, read_frames

pytest.importorskip("onnxruntime")
SCRIPT = Path(vidkd.deployment.__file__).with_name("run.py")
SNIPPETS = [
    SnippetSettings(length=16, stride=8),
    SnippetSettings(length=4, stride=4, step=3, window=4),
    SnippetSettings(length=2, stride=7, window=3),
    SnippetSettings(length=3, stride=5, step=1, window=9),
]


def write(path: Path, frames: int, aspect: str = "1/1", codec: str = "mpeg4") -> Path:
    """Write noise of 66 x 50 pixels, whose frames appear at uneven times."""
    generator = np.random.default_rng(frames)
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 66, 50, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        stream.codec_context.max_b_frames = 2 if codec == "libx264" else 0
        for number in range(frames):
            image = generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(image.repeat(10, 0).repeat(11, 1), format="rgb24")
            frame.pts = number + (number > 7) * 3
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


@pytest.mark.parametrize("rate", [None, 7.5, 60.0])
@pytest.mark.parametrize(
    ("name", "frames", "aspect", "codec"),
    [
        ("a.mp4", 41, "1/1", "libx264"),
        ("b.avi", 3, "1/1", "mpeg4"),
        ("c.mkv", 20, "4/3", "libx264"),
    ],
)
def test_snippets_are_those_of_vidkd(
    tmp_path: Path, name: str, frames: int, aspect: str, codec: str, rate: float | None
) -> None:
    path = write(tmp_path / name, frames, aspect, codec)
    script = runpy.run_path(str(SCRIPT))
    for snippet in SNIPPETS:
        spec = {
            "classes": ["a"],
            "threshold": 0.5,
            "minimum_seconds": 0.0,
            "short_side": 33,
            "frame_rate": rate,
            "snippets": {
                "stride": snippet.stride,
                "window": snippet.row_length,
                "clip": clip_frames(0, snippet).tolist(),
            },
            "graphs": {"encoder": {"file": "encoder"}, "filter": {"file": "filter"}},
        }
        (tmp_path / "detector.json").write_text(json.dumps(spec))
        seen = []
        nothing = np.zeros(0)

        def load(
            graph: Path, seen: list[np.ndarray] = seen, nothing: np.ndarray = nothing
        ) -> object:
            if graph.name == "encoder":
                return lambda frames: (seen.append(frames[0]), [np.zeros((1, 2))])[1]
            return lambda *_: [nothing, nothing.astype(int), nothing, nothing, nothing]

        script["detect"].__globals__["load"] = load
        _, _, times = script["detect"](path, None, tmp_path)
        right = list(cut_snippets(read_frames(path, short_side=33, frame_rate=rate), snippet))
        assert len(seen) == len(right)
        np.testing.assert_array_equal(np.stack(seen), np.stack([item.frames for item in right]))
        np.testing.assert_allclose(times, [(item.start, item.end) for item in right], atol=2e-6)


def test_overlapping_proposals_are_cut_as_by_detect() -> None:
    clear = runpy.run_path(str(SCRIPT))["clear"]
    generator = np.random.default_rng(1)
    for shortest in (0.0, 0.8):
        label = generator.integers(0, 2, 60)
        # Few levels of score, so that equal ones have to keep their order.
        score = generator.integers(10, 20, 60) / 20
        start = generator.uniform(0, 20, 60)
        end = start + generator.exponential(3, 60)
        found = clear(["x", "y"], shortest, label, score, start, end)
        own = Candidates(label, score, start, end)
        right = clear_candidates(own, ["x", "y"], threshold=0, minimum_seconds=shortest)
        assert [(s["label"], *s["segment"], s["score"]) for s in found] == [
            (s.label, s.start, s.end, s.score) for s in right
        ]


def test_the_script_is_short_and_imports_neither_vidkd_nor_torch() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert "import torch" not in text
    assert "import vidkd" not in text
