"""What the server answers, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pages import make_project, write_video
from starlette.testclient import TestClient

from vidkd.annotations import Annotations
from vidkd.errors import UsageError
from vidkd.view import application
from vidkd.view.labels import Labels
from vidkd.view.playable import Playable


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    app = application(make_project(tmp_path), Playable(tmp_path / "playable"))
    return TestClient(app, base_url="http://127.0.0.1:8765")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:8765"},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
)
def test_other_pages_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/api/index").status_code == 200
    assert client.get("/api/index", headers=headers).status_code == 403
    body = {"labels": [], "revision": 0}
    assert client.put("/api/video/0/labels", json=body, headers=headers).status_code == 403


def test_a_link_of_another_page_may_be_followed(client: TestClient) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=headers).status_code == 200
    assert client.get("/api/index", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "address",
    [
        "/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/first.json",
        "/labels.py",
        "/api/video/99/media",
        "/api/video/-1/media",
        "/api/video/../media",
        "/api/video/0/scores/7",
    ],
)
def test_nothing_else_is_served(client: TestClient, address: str) -> None:
    assert client.get(address).status_code == 404


def test_a_part_of_the_video_is_served(client: TestClient, tmp_path: Path) -> None:
    whole = (tmp_path / "videos" / "walk.mp4").read_bytes()
    part = client.get("/api/video/0/media", headers={"Range": "bytes=10-19"})
    assert part.status_code == 206
    assert part.content == whole[10:20]
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole)}"
    assert "script-src 'self'" in part.headers["content-security-policy"]


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    write_video(tmp_path / "secret.mp4", 1)
    (tmp_path / "videos" / "walk.mp4").unlink()
    (tmp_path / "videos" / "walk.mp4").symlink_to(tmp_path / "secret.mp4")
    client = TestClient(application(project), base_url="http://127.0.0.1")
    for what in ("media", "picture", "state"):
        answer = client.get(f"/api/video/0/{what}")
        assert answer.status_code == 400
        assert "link" in answer.json()["error"]


@pytest.mark.parametrize(
    "change",
    [
        [],
        {"labels": [[1, 2, "walk", None]]},
        {"labels": [[2, 1, "walk", None]], "revision": 0},
        {"labels": [[1, 2, " ", None]], "revision": 0},
        {"labels": [[1, True, "walk", None]], "revision": 0},
        {"labels": [[1, 2, 3, None]], "revision": 0},
        {"labels": [], "reviewed": [["m", 1, 2, "walk", "burned"]], "revision": 0},
    ],
)
def test_a_change_that_makes_no_sense_is_not_saved(
    client: TestClient, tmp_path: Path, change: object
) -> None:
    answer = client.put("/api/video/0/labels", json=change)
    assert answer.status_code == 400, answer.text
    assert not (tmp_path / "corrected.json").exists()


def test_changes_go_to_their_own_file(client: TestClient, tmp_path: Path) -> None:
    given = (tmp_path / "labels.json").read_bytes()
    change = {"labels": [[1, 2, "näheres", None]], "revision": 0, "duration": 10.0}
    assert client.put("/api/video/0/labels", json=change).json() == {"revision": 1}
    assert client.put("/api/video/0/labels", json=change).status_code == 409
    assert (tmp_path / "labels.json").read_bytes() == given
    found = json.loads((tmp_path / "corrected.json").read_text(encoding="utf-8"))
    assert found["database"]["walk"]["subset"] == "training"
    assert found["database"]["walk"]["annotations"] == [{"segment": [1, 2], "label": "näheres"}]
    (tmp_path / "link.json").symlink_to(tmp_path / "labels.json")
    for target in (tmp_path / "labels.json", tmp_path / "link.json"):
        with pytest.raises(UsageError, match="never written over"):
            Labels(Annotations((), {}), target, [tmp_path / "labels.json"])
