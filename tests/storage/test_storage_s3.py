"""Files of an S3 server, read and written through a proxy that breaks connections."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from faulty import FaultyProxy

from vidkd.cache import (
    cache_files,
    claim,
    claimed,
    drop_abandoned,
    list_cache,
    pack_cache,
    unpack_cache,
    verify,
    verify_cache,
)
from vidkd.cache import claims as claims_module
from vidkd.errors import UsageError
from vidkd.features import FlowTask, run_jobs
from vidkd.files import atomic_path, sha256
from vidkd.recipe import FlowSettings, FrameSettings
from vidkd.storage import RemotePath, StorageError, as_path, remote, spooled, store, upload
from vidkd.storage.local_copy import BLOCK
from vidkd.video import VideoFile, find_videos, read_frames

FRAMES, FLOW = FrameSettings(short_side=32, frame_rate=4), FlowSettings(backend="opencv")
Objects = Callable[[], dict[str, bytes]]


def put(tmp_path: Path, data: bytes, place: str) -> Path:
    (tmp_path / "data").write_bytes(data)
    upload(tmp_path / "data", place)
    return as_path(place)


@pytest.fixture
def video(tmp_path: Path) -> VideoFile:
    """A video of a megabyte, with a key frame every half second."""
    random, path = np.random.default_rng(0), tmp_path / "videos/v0.mp4"
    path.parent.mkdir()
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=20, options={"g": "10", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        for _ in range(60):
            image = random.integers(0, 255, (128, 160, 3), dtype=np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode(None))
    return VideoFile(path, "v0")


def test_a_path_in_a_store_is_like_one_on_a_disk(s3: FaultyProxy, tmp_path: Path) -> None:
    folder = as_path("s3://lab/a")
    for name in ("one.mp4", "sub/two.mp4", "sub/.three.mp4", "four.txt"):
        put(tmp_path, name.encode(), f"s3://lab/a/{name}")
    assert (folder / "one.mp4").read_text() == "one.mp4"
    assert (folder / "one.mp4").stat().st_size == 7
    assert [str(path) for path in folder.iterdir()] == [
        "s3://lab/a/four.txt",
        "s3://lab/a/one.mp4",
        "s3://lab/a/sub",
    ]
    assert [video.key for video in find_videos([folder])] == ["one", "sub/two"]
    assert (folder.is_dir(), (folder / "sub").is_file(), (folder / "no").exists()) == (1, 0, 0)
    listed = put(tmp_path, b"# ours\nsub/two.mp4\ns3://lab/a/one.mp4\n", "s3://lab/a/list.txt")
    assert {video.key for video in find_videos([listed])} == {"sub/two", "one"}
    (folder / "one.mp4").unlink()
    assert not (folder / "one.mp4").exists()
    with pytest.raises(UsageError, match=r"^s3://lab/a/four.txt: is an address, and this"):
        (folder / "four.txt").open("w")
    with pytest.raises(StorageError, match="s3://none/x: there is no such bucket"):
        as_path("s3://none/x").is_dir()
    with pytest.raises(StorageError, match="s3://none/x: there is no such bucket"):
        put(tmp_path, b"", "s3://none/x")


def test_reading_outlasts_faults(s3: FaultyProxy, tmp_path: Path, noise: bytes) -> None:
    path = put(tmp_path, noise, "s3://lab/noise")
    s3.plan = lambda number, method: ["refuse", "500", "cut", "slow", "503", ""][number % 6]
    with path.open("rb") as file:
        assert file.read() == noise
        file.seek(BLOCK - 3)
        assert file.read(6) == noise[BLOCK - 3 : BLOCK + 3]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("refuse", "the connection broke, 7 times in a row; check the network"),
        ("500", "the server answered 500, 7 times in a row"),
        ("403", r"access is denied \(403\); check that it exists"),
    ],
)
def test_tries_have_an_end(s3: FaultyProxy, tmp_path: Path, fault: str, message: str) -> None:
    path = put(tmp_path, b"x", "s3://lab/x")
    s3.plan = lambda number, method: fault
    with pytest.raises(StorageError, match=f"^s3://lab/x: {message}"):
        path.read_bytes()


def test_what_was_read_is_not_read_again(s3: FaultyProxy, tmp_path: Path, noise: bytes) -> None:
    path = put(tmp_path, noise, "s3://lab/noise")
    assert path.read_bytes() == noise
    before = s3.sent
    assert path.read_bytes() == noise
    assert s3.sent - before < 2000, "one HEAD request, and none for the content"
    for block in (tmp_path / "copies/blocks").rglob("00000*"):
        block.write_bytes(b"\0" * block.stat().st_size)  # as after a power failure
    assert path.read_bytes() == noise
    changed = noise[::-1]
    put(tmp_path, changed, "s3://lab/noise")
    assert path.read_bytes() == changed


def test_copies_stay_below_their_limit(
    s3: FaultyProxy, tmp_path: Path, noise: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDKD_STORAGE_GB", "0.002")
    for number in range(8):
        path = put(tmp_path, noise + bytes([number]), f"s3://lab/{number}")
        assert len(path.read_bytes()) == len(noise) + 1
    blocks = [item.stat() for item in (tmp_path / "copies/blocks").rglob("0*") if item.is_file()]
    assert 1e6 < sum(item.st_size for item in blocks) <= 2e6 + BLOCK


def test_a_change_while_it_is_read_is_told(s3: FaultyProxy, tmp_path: Path, noise: bytes) -> None:
    path = put(tmp_path, noise, "s3://lab/noise")
    with path.open("rb", buffering=0) as file:
        file.read(10)
        put(tmp_path, noise[::-1], "s3://lab/noise")
        with pytest.raises(StorageError, match="s3://lab/noise: changed while it was read"):
            file.seek(2 * BLOCK) and file.read(10)


def test_frames_are_those_of_the_file_and_seeks_read_a_part(
    s3: FaultyProxy, video: VideoFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "BLOCK", 16384)
    upload(video.path, "s3://lab/v.mp4")
    before = s3.sent
    part = list(read_frames("s3://lab/v.mp4", start=2.0, end=2.2))
    assert s3.sent - before < 0.5 * video.path.stat().st_size
    expected = list(read_frames(video.path, start=2.0, end=2.2))
    assert [frame.start for frame in part] == [frame.start for frame in expected]
    assert all((a.image == b.image).all() for a, b in zip(part, expected, strict=True))
    assert sha256("s3://lab/v.mp4") == sha256(video.path)


def test_no_part_of_a_file_is_ever_there(
    s3: FaultyProxy, tmp_path: Path, noise: bytes, objects: Objects
) -> None:
    s3.plan = lambda number, method: "half"
    with pytest.raises(StorageError), atomic_path("s3://lab/x") as file:
        file.write_bytes(noise)
    assert objects() == {}
    s3.plan = lambda number, method: "half" if number % 3 else ""
    with atomic_path("s3://lab/x") as file:
        file.write_bytes(noise)
    assert objects() == {"x": noise}
    with pytest.raises(RuntimeError), atomic_path("s3://lab/x") as file:
        raise RuntimeError
    assert objects() == {"x": noise}
    assert not [item for item in (tmp_path / "copies/writing").iterdir() if item.is_file()]


def test_the_first_of_two_wins_also_when_its_answer_is_lost(
    s3: FaultyProxy, tmp_path: Path, objects: Objects
) -> None:
    s3.plan = lambda number, method: "lost" if number == len(s3.seen) == 0 else ""
    store("s3://lab/x", b"1", first_wins=True)
    assert store("s3://lab/x", b"2", first_wins=True) is False
    assert objects() == {"x": b"1"}


def test_a_claim_keeps_others_out_until_its_machine_is_silent(
    s3: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objects: Objects
) -> None:
    path = as_path("s3://lab/cache/flow/v.h5")

    def on(machine: str) -> None:
        monkeypatch.setenv("VIDKD_STORAGE", str(tmp_path / machine))

    on("a")
    with claim(path) as own:
        assert own
        with claim(path) as again:
            assert not again
        on("b")
        assert claimed(path)
        with claim(path) as other:
            assert not other
        monkeypatch.setattr(claims_module, "_DEAD_SECONDS", -1.0)
        assert not claimed(path)
        with claim(path) as other:
            assert other
        on("a")
    assert objects() == {}


def test_a_cache_in_a_store_is_that_of_a_disk(
    s3: FaultyProxy, video: VideoFile, tmp_path: Path, objects: Objects
) -> None:
    upload(video.path, "s3://lab/videos/v0.mp4")
    local = FlowTask(tmp_path / "cache", FRAMES, FLOW)(video)
    s3.plan = lambda number, method: ["", "refuse", "", "500", "cut", ""][number % 6]
    task, cache = FlowTask(as_path("s3://lab/cache"), FRAMES, FLOW), as_path("s3://lab/cache")
    (remote,) = find_videos([as_path("s3://lab/videos")])
    assert (task(remote).skipped, task(remote).skipped) == (False, True)
    assert objects()["cache/flow/v0.h5"] == local.path.read_bytes()
    # What was made of the file on the disk is finished for that in the store, and the reverse.
    assert FlowTask(tmp_path / "cache", FRAMES, FLOW)(remote).skipped
    assert task(video).skipped
    s3.plan = lambda number, method: ""
    assert [entry.rows for entry in list_cache(cache)] == [12]
    checked = list(verify_cache(cache, as_path("s3://lab/videos")))
    assert [problems for _, problems in checked] == [[]]
    pack_cache(cache, as_path("s3://lab/pack"))
    assert list(cache_files(as_path("s3://lab/pack"), "flow").items) == ["v0"]
    unpack_cache(as_path("s3://lab/pack"), tmp_path / "unpacked")
    assert (tmp_path / "unpacked/flow/v0.h5").read_bytes() == local.path.read_bytes()
    assert {key for key in objects() if key.startswith("cache")} == {"cache/flow/v0.h5"}


@pytest.mark.parametrize("whole", [4 << 20, 1])
def test_network_trouble_is_not_taken_for_damage(
    s3: FaultyProxy,
    tmp_path: Path,
    video: VideoFile,
    whole: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VIDKD_STORAGE_GB", "0")
    monkeypatch.setattr(remote, "_WHOLE_BYTES", whole)
    monkeypatch.setattr(remote, "BLOCK", 4096)
    done = FlowTask(tmp_path / "cache", FRAMES, FLOW)(video)
    upload(done.path, "s3://lab/v0.h5")
    for first in (0, 2):
        stop = len(s3.seen) + first
        s3.plan = lambda number, method, stop=stop: "refuse" * (number >= stop)
        with pytest.raises(StorageError, match="the connection broke, 7 times in a row"):
            verify(as_path("s3://lab/v0.h5"))


def test_a_store_that_is_silent_is_given_up_for_the_rest(s3: FaultyProxy, tmp_path: Path) -> None:
    videos = [VideoFile(as_path(f"s3://lab/v{number}.mp4"), f"v{number}") for number in range(5)]
    s3.plan = lambda number, method: "refuse"
    results = run_jobs(videos, FlowTask(tmp_path / "cache", FRAMES, FLOW))
    assert [result.status for result in results] == ["failed"] * 5
    told = ["was not looked at, since s3://lab did not" in result.reason for result in results]
    assert told == [False, False, False, True, True]


def test_a_claim_that_cannot_be_dropped_ends_nothing(s3: FaultyProxy, tmp_path: Path) -> None:
    path = as_path("s3://lab/cache/flow/v.h5")
    place = spooled(path).with_name(f".{spooled(path).stem}.claim")
    place.parent.mkdir(parents=True)
    place.touch()  # as a killed process leaves it
    s3.plan = lambda number, method: "refuse"
    drop_abandoned(path)
    assert not place.exists()


def test_a_killed_upload_leaves_nothing_in_the_store(
    s3: FaultyProxy, video: VideoFile, tmp_path: Path, objects: Objects
) -> None:
    command = [sys.executable, "-m", "vidkd", "extract-flow", str(video.path)]
    command += [
        "--cache",
        "s3://lab/cache",
        "--short-side",
        "32",
        "--frame-rate",
        "4",
        "--backend",
        "opencv",
    ]
    stalled = threading.Event()

    def plan(number: int, method: str) -> str:
        if method == "PUT" and "cache/flow/v0.h5" in s3.head:
            stalled.set()
            return "stall"
        return ""

    s3.plan = plan
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE) as process:
        assert stalled.wait(120)
        os.killpg(process.pid, signal.SIGKILL)
    assert set(objects()) == {"cache/flow/.v0.claim"}
    s3.plan = lambda number, method: ""
    assert not FlowTask(as_path("s3://lab/cache"), FRAMES, FLOW)(video).elsewhere
    assert set(objects()) == {"cache/flow/v0.h5"}
    assert [problems for _, problems in verify_cache(as_path("s3://lab/cache"))] == [[]]
    assert not list((tmp_path / "copies/writing").iterdir())


def test_paths_are_told_from_addresses(tmp_path: Path) -> None:
    assert not isinstance(as_path(tmp_path / "a:/b"), RemotePath)
    assert isinstance(as_path(Path("s3://lab/x")), RemotePath)
    with pytest.raises(UsageError, match="ftp://host/x is an address of a kind that is not read"):
        as_path("ftp://user:word@host/x?sig=1")
