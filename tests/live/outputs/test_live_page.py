"""The page in a real browser, and what programs read beside it."""

from __future__ import annotations

import io
import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from made import HOSTILE, event, picture, until
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from vidkd.errors import UsageError, VidkdError
from vidkd.live.outputs.beside import Counts
from vidkd.live.outputs.page import Page
from vidkd.live.statistics import Statistics


@pytest.fixture
def page() -> Iterator[Page]:
    statistics = Statistics.of(["door", HOSTILE])
    counts = Counts("webhook")
    counts.failed = 3
    page = Page("0", statistics, [counts])
    yield page
    page.close()


def get(page: Page, path: str, **headers: str) -> Any:
    request = urllib.request.Request(page.url + path, headers=headers)
    return urllib.request.urlopen(request, timeout=10)


def status(page: Page, path: str, **headers: str) -> int:
    try:
        with get(page, path, **headers) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_metrics_say_what_was_counted(page: Page) -> None:
    door = page._statistics.sources["door"]
    door.frames, door.reconnects, door.connected = 250, 2, True
    for seconds in (0.004, 0.2, 0.2, 0.3, 5000.0):
        door.delays.add(seconds)
    page.event(event(1, "begin", 1.0))
    page.event(event(1, "end", 1.0, 3.0))
    page.event(event(2, "begin", 1.0, label=HOSTILE + '"\n', source=HOSTILE))
    with get(page, "metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        text = answer.read().decode()
    found = {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["vidkd_watch_frames_total", "door"] == 250
    assert found["vidkd_watch_reconnects_total", "door"] == 2
    assert found["vidkd_watch_connected", "door"] == 1
    assert found["vidkd_watch_connected", HOSTILE] == 0
    assert found["vidkd_watch_events_total", "walk", "door", "end"] == 1
    assert found["vidkd_watch_events_total", HOSTILE + '"\n', HOSTILE, "begin"] == 1
    assert found["vidkd_watch_output_failed_total", "webhook"] == 3
    assert found["vidkd_watch_delay_seconds_count", "door"] == 5
    assert found["vidkd_watch_delay_seconds_sum", "door"] == pytest.approx(5000.704)
    buckets = {
        float(key[1]): value for key, value in found.items() if "bucket" in key[0] and "door" in key
    }
    for bound, count in buckets.items():
        # A delay within 10 % of a bound may count on either side of it.
        low, high = (sum(x <= bound * f for x in (0.004, 0.2, 0.2, 0.3, 5e3)) for f in (0.9, 1.1))
        assert low <= count <= high
    assert len(buckets) > 10


def test_events_come_as_they_happen_and_from_where_one_stopped(page: Page) -> None:
    page.event(event(1, "begin", 1.0))
    with get(page, "events") as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"

        def following() -> tuple[int, Any]:
            lines = []
            while line := stream.readline().decode().strip():
                lines.append(line)
            found = dict(line.split(": ", 1) for line in lines)
            return (int(found["id"]), json.loads(found["data"])) if "id" in found else following()

        assert following()[1]["state"] == "begin"
        page.event(event(1, "end", 1.0, 3.0))
        last, content = following()
        assert (content["state"], content["end"]) == ("end", 3.0)
    page.event(event(2, "begin", 4.0))
    with get(page, "events", **{"Last-Event-ID": str(last)}) as stream:
        assert following()[1]["number"] == 2


def test_pictures_are_made_for_those_who_look(page: Page) -> None:
    assert not page.wants_frames
    assert status(page, "live/7.jpg") == 404
    page.frame("door", picture(3.0, 200, (240, 320)))
    with get(page, "live/0.jpg") as answer:
        image = np.asarray(Image.open(io.BytesIO(answer.read())))
    assert page.wants_frames
    assert image.shape == (360, 480, 3)  # enlarged, so that what is written on it can be read
    assert abs(np.median(image.astype(float)) - 200) < 3
    with get(page, "live/0.mjpg") as film:
        boundary = film.headers["Content-Type"].split("boundary=")[1]
        for level in (200, 40):
            page.frame("door", picture(4.0, level, (240, 320)))
            while (line := film.readline().strip().decode()) != f"--{boundary}":
                assert line == ""
            head = dict(line.lower().split(b":") for line in iter(film.readline, b"\r\n"))
            size = int(head[b"content-length"])
            shown = np.asarray(Image.open(io.BytesIO(film.read(size))))
        assert abs(np.median(shown.astype(float)) - 40) < 3


def test_health_is_whether_pictures_come(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    assert status(page, "healthz") == 200
    monkeypatch.setattr("vidkd.live.outputs.page._SILENT_SECONDS", 0.2)
    until(lambda: status(page, "healthz") == 503)
    page.frame("door", picture(0.0))
    page.frame(HOSTILE, picture(0.0))
    assert status(page, "healthz") == 200


def test_other_pages_are_refused(page: Page) -> None:
    assert status(page, "api/now") == 200
    assert status(page, "api/now", Host="evil.example") == 403
    assert status(page, "live/0.jpg", **{"Sec-Fetch-Site": "cross-site"}) == 403


def test_where_it_can_listen(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = Statistics({})
    for wrong in ("eighty", "host:", ":99999", ""):
        with pytest.raises(UsageError):
            Page(wrong, nothing)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(VidkdError, match="use"):
        Page(f"127.0.0.1:{taken.getsockname()[1]}", nothing)
    assert "no password" not in capsys.readouterr().err
    open_to_all = Page("0.0.0.0:0", nothing)
    assert "no password" in capsys.readouterr().err
    local = open_to_all.url.replace("0.0.0.0", "127.0.0.1")
    request = urllib.request.Request(local + "metrics", headers={"Host": "camera-1.example"})
    assert urllib.request.urlopen(request, timeout=10).status == 200
    open_to_all.close()


def test_a_person_sees_what_happens(browser: Any, page: Page) -> None:
    tab = browser.new_page(viewport={"width": 1280, "height": 720})
    problems: list[str] = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("console", lambda line: line.type == "error" and problems.append(line.text))
    page.frame("door", picture(1.0, 200))
    page.event(event(1, "begin", 0.5))
    tab.goto(page.url)
    tab.wait_for_selector("html[data-ready]")
    cards = tab.locator("article")
    assert cards.count() == 2
    assert cards.nth(1).locator(".name").text_content() == HOSTILE
    assert "waiting for the first picture" in cards.nth(1).text_content()
    image = cards.nth(0).locator("img")
    until(lambda: page.frame("door", picture(1.1, 200)) or image.evaluate("i => i.naturalWidth"))
    rows = cards.nth(0).locator("tr")
    assert rows.locator("td:first-child").all_text_contents() == ["walk", "sit", HOSTILE]
    assert rows.locator("td:last-child").all_text_contents() == ["0.75", "0.25", "0.50"]
    assert cards.nth(0).locator("tr.open").all_text_contents() == ["walk0.75"]
    first = tab.locator("#events li").first
    assert "not certain yet" in first.text_content()
    page.event(event(1, "certain", 0.5))
    page.event(event(1, "end", 0.5, 5.25))
    page.event(event(2, "begin", 6.0, label=HOSTILE, source=HOSTILE))
    page.event(event(2, "end", 6.0, 6.5, label=HOSTILE, source=HOSTILE))
    until(lambda: tab.locator("#events li").count() == 2)
    until(lambda: "4.8 s" in tab.locator("#events li").nth(1).text_content())
    assert "too short" in first.text_content()
    assert first.locator(".label").text_content() == HOSTILE
    assert re.search(r"\d\d:\d\d:06 · 0.5 s", first.text_content())
    assert tab.evaluate("window.hacked") is None
    assert problems == []
    page.close()
    tab.wait_for_selector("#contact.bad")
