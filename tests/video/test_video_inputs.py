"""What the user types becomes a list of videos with stable, unique names."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidkd.errors import UsageError
from vidkd.video import VIDEO_SUFFIXES, VideoFile, find_videos


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.mp4", "a/z.MKV", "a/c/d.avi", "a/notes.txt", ".hidden.mp4", ".git/e.mp4"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "videos"


def keys(videos: list[VideoFile]) -> list[str]:
    return [video.key for video in videos]


def test_a_folder_is_searched_in_order_of_name(tree):
    videos = find_videos([tree])
    assert keys(videos) == ["a/c/d", "a/z", "b"]
    assert [video.path for video in videos] == [
        tree / "a/c/d.avi",
        tree / "a/z.MKV",
        tree / "b.mp4",
    ]


def test_a_file_is_named_after_itself(tree):
    assert keys(find_videos([tree / "a/c/d.avi", tree / "b.mp4"])) == ["d", "b"]
    assert keys(find_videos([tree / "a/c/d.avi", tree / "b.mp4"], root=tree)) == ["a/c/d", "b"]


def test_dots_in_names_stay(tmp_path):
    assert keys(find_videos([tmp_path / "S001.FCE.v2.mp4"])) == ["S001.FCE.v2"]


def test_relative_inputs(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert keys(find_videos([Path("b.mp4"), Path("a")])) == ["b", "c/d", "z"]
    assert keys(find_videos([Path("a/../b.mp4")], root=Path())) == ["b"]


def test_a_list_is_relative_to_its_folder(tree):
    listing = tree / "list.txt"
    listing.write_text("﻿# the first ones\n\na/z.MKV\r\n  b.mp4  \na/c\n", encoding="utf-8")
    assert keys(find_videos([listing])) == ["a/z", "b", "a/c/d"]
    listing.write_text(f"{tree / 'a/c/d.avi'}\n")
    assert keys(find_videos([listing])) == ["d"]
    assert keys(find_videos([listing], root=tree)) == ["a/c/d"]


def test_a_missing_file_is_left_to_fail_by_itself(tree):
    assert keys(find_videos([tree / "none.mp4", tree / "b.mp4"])) == ["none", "b"]


def test_one_video_given_twice_counts_once(tree):
    assert keys(find_videos([tree, tree / "b.mp4", tree / "b.mp4"])) == ["a/c/d", "a/z", "b"]


def test_two_videos_with_one_name_are_refused(tree):
    (tree / "a/b.webm").touch()
    with pytest.raises(UsageError, match="would share the name 'b'") as caught:
        find_videos([tree / "b.mp4", tree / "a/b.webm"])
    assert str(tree / "b.mp4") in str(caught.value)
    assert str(tree / "a/b.webm") in str(caught.value)
    assert keys(find_videos([tree / "b.mp4", tree / "a/b.webm"], root=tree)) == ["b", "a/b"]


def test_links_are_followed_but_not_in_circles(tree, tmp_path):
    elsewhere = tmp_path / "store"
    elsewhere.mkdir()
    (elsewhere / "far.mp4").touch()
    (elsewhere / "folder").mkdir()
    (elsewhere / "folder/in.mp4").touch()
    (tree / "near.mp4").symlink_to(elsewhere / "far.mp4")
    (tree / "linked").symlink_to(elsewhere / "folder")
    (tree / "a/circle").symlink_to(tree)
    (tree / "broken.mp4").symlink_to(tree / "gone.mp4")
    # A broken link is kept, so that it is reported and not passed over.
    assert keys(find_videos([tree])) == ["a/c/d", "a/z", "b", "broken", "linked/in", "near"]


def test_what_cannot_work_is_named(tree, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.txt").write_text("# nothing\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\xd8")
    cases = {
        tmp_path / "empty": "holds no video",
        tmp_path / "none.txt": "names no video",
        tmp_path / "missing.txt": "cannot be read as a list",
        tmp_path / "binary.txt": "not a text file",
    }
    for path, message in cases.items():
        with pytest.raises(UsageError, match=message) as caught:
            find_videos([path])
        assert caught.value.path == str(path)
        assert caught.value.remedy
    with pytest.raises(UsageError, match="lies outside"):
        find_videos([tree / "b.mp4"], root=tmp_path / "empty")


def test_unreadable_folders_are_named(tree, monkeypatch):
    import os

    true_scandir = os.scandir

    def scandir(path: str | Path) -> object:
        if str(path).endswith("c"):
            raise PermissionError(13, "Permission denied", str(path))
        return true_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UsageError, match="Permission denied") as caught:
        find_videos([tree])
    assert str(caught.value.path).endswith("c")


def test_suffixes_are_lower_case_endings():
    assert {".mp4", ".mkv", ".avi", ".mov", ".webm"} <= VIDEO_SUFFIXES
    assert all(suffix[0] == "." and suffix == suffix.lower() for suffix in VIDEO_SUFFIXES)
