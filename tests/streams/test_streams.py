"""The table of streams, and where their features lie."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vidkd.errors import UsageError
from vidkd.streams import RGB, STREAMS, Stream


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
