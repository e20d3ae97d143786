"""Videos by name: the key itself, the last parts of one key, and never a guess."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidkd.errors import UsageError
from vidkd.keys import KeyIndex

KEYS = {"P01/cam1": 1, "P02/cam1": 2, "P02/cam2": 3, "a/P02/cam3": 4, "cam4": 5}


@pytest.mark.parametrize(
    ("video", "item"),
    [
        ("P01/cam1", 1),
        ("P02/cam1", 2),
        ("cam2", 3),
        ("P02/cam3", 4),
        ("a/P02/cam3", 4),
        ("cam4", 5),
        ("02/cam3", None),
        ("P03/cam4", None),
        ("cam", None),
    ],
)
def test_a_video_is_found_by_its_key_or_the_last_parts_of_it(video: str, item: int | None) -> None:
    assert KeyIndex(KEYS, Path("videos")).find(video) == item


def test_what_two_videos_could_be_is_refused() -> None:
    with pytest.raises(UsageError, match="P01/cam1, P02/cam1"):
        KeyIndex(KEYS, Path("videos")).find("cam1")


def test_the_key_itself_is_never_ambiguous() -> None:
    assert KeyIndex({"cam1": 1, "P01/cam1": 2}, Path("videos")).find("cam1") == 1


def test_what_must_be_there_is_asked_for_by_what_it_is() -> None:
    files = KeyIndex({"a/x": 1, "b/x": 2, "b/y": 3}, Path("flow"))
    assert files.require("a/x", "flow", "look") == 1
    assert files.require("y", "flow", "look") == 3
    assert files.candidates("x") == ["a/x", "b/x"]
    with pytest.raises(UsageError, match=r"flow: the flow of video 'z' was not found; look"):
        files.require("z", "flow", "look")
    with pytest.raises(UsageError, match="several files belong to video 'x': a/x, b/x"):
        files.require("x", "flow", "look")
