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
