"""Files of web servers: with parts, without parts, with a password or a signature."""

from __future__ import annotations

import base64
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from in_process import vidkd
from web import Web

from vidkd.errors import UsageError, VidkdError
from vidkd.files import write_text
from vidkd.recipe import Pipeline
from vidkd.recipe.jobs import TrainingJob
from vidkd.storage import StorageError, as_path, scrub, without_credentials
from vidkd.storage.addresses import address, credentials, remember, user_of, with_query
from vidkd.video import find_videos

pytest.importorskip("aiohttp")


@pytest.fixture
def folder(tmp_path: Path, noise: bytes) -> Path:
    (tmp_path / "served/sub").mkdir(parents=True)
    for name in ("a b.mp4", "sub/c.mp4", "notes.txt"):
        (tmp_path / "served" / name).write_bytes(noise)
    return tmp_path / "served"


def test_parts_and_folders_of_a_web_server(folder: Path, noise: bytes, here: Path) -> None:
    with Web(folder) as web:
        path = as_path(f"{web.address}/a%20b.mp4")
        with path.open("rb", buffering=0) as file:
            file.seek(-5, os.SEEK_END)
            assert file.read() == noise[-5:]
        assert web.sent < len(noise) / 2
        assert path.stat().st_size == len(noise)
        assert not as_path(f"{web.address}/no.mp4").exists()
        videos = find_videos([as_path(web.address)])
        assert [video.key for video in videos] == ["a%20b", "sub/c"]
        assert videos[0].path.read_bytes() == noise
        with pytest.raises(UsageError, match="web server, which nothing can be written to"):
            write_text(f"{web.address}/new.txt", "x")


@pytest.mark.parametrize("lengths", [True, False])
def test_a_server_without_parts_gives_the_whole_file_within_a_limit(
    folder: Path,
    noise: bytes,
    here: Path,
    lengths: bool,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Web(folder, ranges=False, lengths=lengths) as web:
        path = as_path(f"{web.address}/sub/c.mp4")
        with path.open("rb", buffering=0) as file:
            file.seek(-5, os.SEEK_END)
            assert file.read() == noise[-5:]
        assert path.stat().st_size == len(noise)
        assert "the server gives no parts of files; reading all of it" in capfd.readouterr().err
        monkeypatch.setenv("VIDKD_STORAGE_GB", "0.0005")
        with pytest.raises(UsageError, match=r"larger than 0.0005 GB, and its server gives no"):
            as_path(f"{web.address}/a%20b.mp4").read_bytes()


def test_a_password_is_used_and_shown_nowhere(folder: Path, noise: bytes, here: Path) -> None:
    with Web(folder, user="me:se%cret") as web:
        typed = web.address.replace("//", "//me:se%25cret@")
        path = as_path(f"{typed}/sub/c.mp4")
        assert path.read_bytes() == noise
        assert "cret" not in str(path) + repr(path) + path.name + str(path.parent)
        remember({f"user {web.address}": "me:wrong"})
        with pytest.raises(StorageError, match=r"access is denied \(401\)") as caught:
            path.read_bytes()
        assert "wrong" not in str(caught.value)


def test_no_file_and_no_word_of_a_command_holds_a_password(
    folder: Path, here: Path, tmp_path: Path
) -> None:
    labels = {"version": "1", "database": {"c": {"subset": "training", "annotations": []}}}
    (folder / "labels.json").write_text(json.dumps(labels))
    with Web(folder, user="me:s3cret") as web:
        typed = web.address.replace("//", "//me:s3cret@")
        told = ""
        recipe = ["run", "folder", "--videos", typed, "--annotations"]
        for words in (
            ["extract-flow", f"{typed}/sub/c.mp4", "--cache", tmp_path / "cache"],
            ["init", typed, "--labels", f"{typed}/labels.json", "--output", tmp_path / "new"],
            [*recipe, f"{typed}/no.json", "--output", tmp_path / "run"],
            [*recipe, f"{typed}/labels.json", "--output", typed],
        ):
            done = vidkd(*words)
            assert done.returncode
            assert web.address in done.stderr
            told += done.stderr + done.stdout
        wrong = typed.replace("cret", "cret2")
        denied = vidkd("init", wrong, "--labels", f"{wrong}/labels.json")
        assert "access is denied (401); check that it exists" in denied.stderr
        assert "https://USER:PASSWORD@HOST/" in denied.stderr
        assert "s3cret" not in told + denied.stderr + denied.stdout
    hidden = base64.b64encode(b"me:s3cret")
    written = [item.read_bytes() for item in tmp_path.rglob("*") if item.is_file()]
    assert not [data for data in written if b"s3cret" in data or hidden in data]


def test_a_signature_is_used_and_shown_nowhere(folder: Path, noise: bytes, here: Path) -> None:
    signature = "X-Amz-Credential=AB%2FC&X-Amz-Signature=0123456789"
    with Web(folder, query=signature) as web:
        path = as_path(f"{web.address}/sub/c.mp4?{signature}")
        assert path.read_bytes() == noise
        assert str(path) == f"{web.address}/sub/c.mp4"
        with Web(folder, query="another") as other:
            denied = as_path(f"{other.address}/sub/c.mp4?{signature}")
            with pytest.raises(StorageError, match=r"access is denied \(403\)") as caught:
                denied.stat()
            assert "0123" not in str(caught.value) + repr(caught.value.__cause__)


def test_credentials_go_to_other_processes_and_into_no_recipe(tmp_path: Path) -> None:
    path = as_path("https://me:word@host.org/f/v.mp4?sig=abcdefgh")
    kept = credentials(str(path))
    assert kept == {"user https://host.org": "me:word", f"query {path}": "sig=abcdefgh"}
    code = "import pickle, sys; from vidkd.storage.addresses import with_query, user_of;"
    code += "path = pickle.load(sys.stdin.buffer); print(with_query(str(path)), user_of(str(path)))"
    found = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(path), capture_output=True, check=True
    )
    shown = "https://host.org/f/v.mp4?sig=abcdefgh ('me', 'word')"
    assert found.stdout.decode().strip() == shown
    assert scrub(f"GET {shown} me:word") == "GET https://host.org/f/v.mp4?*** ('me', '***') ***"
    job = TrainingJob(
        output="run", cache="s3://key:word@lab/cache", annotations="https://u:w@h.org/a.json?s=12"
    )
    dumped = json.dumps(job.model_dump(mode="json"))
    assert "s3://lab/cache" in dumped
    assert "https://h.org/a.json" in dumped
    assert "word" not in dumped
    assert "s=12" not in dumped
    assert user_of("s3://lab/cache/x") == ("key", "word")
    recipe = Pipeline.model_validate(
        {
            "name": "x",
            "description": "x",
            "data": {"videos": "gcs://lab/videos", "annotations": "a.json"},
            "encoders": {"rgb": {"name": "i3d"}, "flow": {"name": "i3d"}},
        }
    )
    assert recipe.data is not None
    assert str(recipe.data.videos) == "gs://lab/videos"


def test_the_command_line_puts_credentials_aside() -> None:
    words = ["https://me:w@h.org/v.mp4?sig=1//2", "--cache=s3://k:s@lab/c", "ray://h:1", "a:/b"]
    cleaned, typed = without_credentials(words)
    assert cleaned == ["https://h.org/v.mp4", "--cache=s3://lab/c", "ray://h:1", "a:/b"]
    assert typed["s3://lab/c"] == "s3://k:s@lab/c"
    assert with_query("https://h.org/v.mp4") == "https://h.org/v.mp4?sig=1//2"
    assert address("https://h.org/v?q#part") == "https://h.org/v"
    with pytest.raises(UsageError, match="is given twice, with other words behind the question"):
        without_credentials(["https://h.org/v?id=1", "https://h.org/v?id=2"])


def test_an_extra_that_is_missing_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(VidkdError, match=r"gs:// needs a package .*; pip install 'vidkd\[gs\]'"):
        as_path("gs://lab/v.mp4").exists()
