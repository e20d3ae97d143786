"""Videos at ``hf://``, read from a hub of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_hub import FakeHub, Repo

from vidkd.errors import UsageError, VidkdError
from vidkd.storage import as_path, store, stores
from vidkd.video import find_videos

NOISE = np.random.default_rng(0).bytes(700_001)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    file_system = pytest.importorskip("huggingface_hub").HfFileSystem
    server = FakeHub()
    for name in ("open", "gated"):
        server.repos[f"lab/{name}"] = Repo(gated=name == "gated")
        server.repos[f"lab/{name}"].commit(
            {"v/a.mp4": NOISE, "v/sub/b.mp4": NOISE, "x.json": b"{}"}
        )
    monkeypatch.setenv("VIDKD_STORAGE", str(tmp_path / "copies"))
    # What HF_ENDPOINT sets when huggingface_hub is imported.
    files = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    stores._opened.cache_clear()
    yield server
    stores._opened.cache_clear()
    file_system.clear_instance_cache()
    server.shutdown()
    server.server_close()


def test_folders_and_parts_of_files(hub: FakeHub) -> None:
    folder = as_path("hf://datasets/lab/open/v")
    videos = find_videos([folder])
    assert [video.key for video in videos] == ["a", "sub/b"]
    with videos[0].path.open("rb", buffering=0) as file:
        file.seek(-5, os.SEEK_END)
        assert file.read() == NOISE[-5:]
    assert videos[0].path.read_bytes() == NOISE
    assert (folder.is_dir(), (folder / "a.mp4").is_file(), (folder / "no").exists()) == (1, 1, 0)
    commit = hub.repos["lab/open"].branches["main"]
    assert as_path(f"hf://datasets/lab/open@{commit}/x.json").read_text() == "{}"


def test_what_cannot_be_read_or_written_is_explained(hub: FakeHub) -> None:
    with pytest.raises(VidkdError, match=r"no such repository; .* if it is private, set HF_TOKEN"):
        as_path("hf://datasets/lab/none/v").is_dir()
    with pytest.raises(VidkdError, match="only to those who accepted its conditions"):
        as_path("hf://datasets/lab/gated/x.json").read_bytes()
    with pytest.raises(UsageError, match="the Hugging Face hub, which nothing can be written to"):
        store("hf://datasets/lab/open/y", b"")
    with pytest.raises(FileNotFoundError):
        as_path("hf://datasets/lab/open/no.json").read_bytes()
    as_path("hf://datasets/lab/open/x.json").stat()
    hub.repos["lab/open"].commit({"x.json": b"1"})  # after it was looked at
    with pytest.raises(VidkdError, match=r"x.json: changed while it was read"):
        as_path("hf://datasets/lab/open/x.json").read_bytes()
