"""The page in a real browser: looking, correcting, saving, and coming back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pages import HOSTILE, Site, make_project, opened, scores, until, write_video

from vidkd.annotations import load_annotations
from vidkd.detection.detector import DetectionResult
from vidkd.detection.segments import clear_segments
from vidkd.recipe import SegmentSettings
from vidkd.video import probe
from vidkd.view import write_page

NAMES = 150  # pixels of the names of classes in the timeline


def place(page: Any, label: str, second: float, lane: int) -> tuple[float, float]:
    """Return where a second of a class is on the screen; lane 0 is of the labels."""
    found = page.evaluate(
        """([label, second, lane]) => {
          const { timeline, view } = window.vidkd;
          const box = timeline.canvas.getBoundingClientRect();
          const row = view.rows.findIndex((item) => item.label === label);
          const y = row * timeline.rowHeight - timeline.tracks.scrollTop + (lane ? 34 : 8);
          return [box.left + timeline.x(second), box.top + y];
        }""",
        [label, second, lane],
    )
    return found[0], found[1]


def drag(page: Any, begin: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*begin)
    page.mouse.down()
    page.mouse.move((begin[0] + end[0]) / 2, begin[1])
    page.mouse.move(*end)
    page.mouse.up()


def saved(page: Any) -> None:
    until(page, "document.getElementById('saved').textContent.startsWith('saved')")
    page.evaluate("document.getElementById('saved').textContent = ''")


def time(page: Any) -> float:
    return float(page.evaluate("window.vidkd.view.time"))


def test_a_person_looks_corrects_and_comes_back(browser: Any, site: Site) -> None:
    page = opened(browser, f"{site.address}/#video=walk&t=4.25")
    until(page, "document.querySelector('video').readyState >= 2")
    assert time(page) == pytest.approx(4.25)
    # The picture of a second is the one the encoder was given for it.
    bright = """() => {
      const canvas = document.createElement('canvas'), pen = canvas.getContext('2d');
      pen.drawImage(document.querySelector('video'), 0, 0, 8, 8);
      return pen.getImageData(4, 4, 1, 1).data[0];
    }"""
    until(page, f"Math.abs(({bright})() - 100) < 6")

    page.keyboard.press("ArrowRight")
    assert time(page) == pytest.approx(4.35, abs=0.01)
    page.mouse.click(*place(page, "sit", 9.0, 0))
    assert time(page) == pytest.approx(9.0, abs=0.02)
    until(page, f"Math.abs(({bright})() - 200) < 6")

    # Another threshold shows other detections at once.
    assert page.locator("#segments .segment").count() == 4
    page.locator("#threshold").fill("0.5")
    assert page.locator("#segments .segment").count() == 3

    # Next and previous segment, by time.
    page.locator("#tracks").focus()
    page.mouse.click(*place(page, "sit", 0.1, 0))
    starts = []
    for _ in range(3):
        page.keyboard.press("ArrowDown")
        starts.append(time(page))
    assert starts == [1.0, 1.2, 4.0]

    page.keyboard.press("a")  # accepts "sit"
    saved(page)
    assert ("sit", 4.0, 6.0) in site.saved

    drag(page, place(page, "walk", 2.8, 0), place(page, "walk", 3.5, 0))
    saved(page)
    assert ("walk", 1.2, 3.5) in site.saved

    page.keyboard.down("Shift")
    drag(page, place(page, "sit", 8.0, 0), place(page, "sit", 9.0, 0))
    page.keyboard.up("Shift")
    saved(page)
    assert ("sit", 8.0, 9.0) in site.saved

    page.locator("#label").fill("stand up")
    page.locator("#label").press("Enter")
    saved(page)
    assert ("stand up", 8.0, 9.0) in site.saved

    page.locator("#tracks").focus()
    page.keyboard.press("Control+z")
    saved(page)
    assert ("sit", 8.0, 9.0) in site.saved
    page.keyboard.press("Control+Shift+z")
    saved(page)
    assert ("stand up", 8.0, 9.0) in site.saved

    page.mouse.click(*place(page, "walk", 2.0, 1))
    page.keyboard.press("r")
    saved(page)
    before = site.saved

    again = opened(browser, f"{site.address}/#video=walk&t=1")
    labels = again.evaluate("window.vidkd.edits.labels.map((o) => [o.label, o.start, o.end])")
    assert [tuple(item) for item in labels] == before
    decisions = again.evaluate("window.vidkd.detections[0].map((item) => item.decision ?? null)")
    assert decisions == ["rejected", "accepted", None]
    assert page.problems == again.problems == []
    # A window that was not told of a change must not undo it.
    again.locator("#tracks").focus()
    again.keyboard.press("n")
    saved(again)
    page.keyboard.press("n")
    page.wait_for_selector("#saved.bad")
    # A server that starts later goes on from the file.
    assert len(make_project(site.folder).labels.state("walk")["labels"]) == len(before) + 1


def test_regrouping_is_that_of_the_package(browser: Any, site: Site) -> None:
    page = opened(browser, f"{site.address}/#video=walk")
    values, pts = scores()
    until(page, "window.vidkd.view.rows[0].curves[0] !== undefined")
    page.locator("#regroup").check()
    for threshold in (0.35, 0.5, 0.8):
        page.locator("#threshold").fill(str(threshold))
        found = page.evaluate(
            "window.vidkd.detections[0].map((o) => [o.start, o.end, o.label, o.score])"
        )
        wanted = clear_segments(values, pts, ("walk", "sit", HOSTILE), threshold=threshold)
        assert len(wanted) > 3
        assert sorted(item[:3] for item in found) == sorted(
            [item.start, item.end, item.label] for item in wanted
        )
        by_place = {(item.start, item.label): item.score for item in wanted}
        assert [item[3] for item in found] == pytest.approx(
            [by_place[item[0], item[2]] for item in found], abs=1e-9
        )


def test_hostile_names_are_text(browser: Any, site: Site) -> None:
    page = opened(browser, site.address)
    name = HOSTILE.replace("/", "")
    page.locator(".entry > button[title^='<img']").click()
    until(page, f"document.getElementById('title').textContent === {json.dumps(name)}")
    until(page, "document.querySelector('video').readyState >= 2")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("a")
    saved(page)
    assert page.locator("#selected input").first.input_value() == HOSTILE
    assert page.evaluate("window.hacked") is None
    assert page.problems == []


def test_one_file_works_from_disk(browser: Any, tmp_path: Path) -> None:
    video = tmp_path / f"{HOSTILE.replace('/', '')} #1 %41.mp4"
    write_video(video)
    values, pts = scores()
    classes = ("walk", "sit", HOSTILE)
    result = DetectionResult(
        video_id=video.stem,
        info=probe(video),
        classes=classes,
        scores=values,
        pts=pts,
        segments=clear_segments(values, pts, classes, threshold=0.5),
        threshold=0.5,
        score_name="scores",
        model="student",
        settings=SegmentSettings(),
    )
    assert write_page(tmp_path / "page.html", result) is None
    page = opened(browser, f"{(tmp_path / 'page.html').as_uri()}#t=3.5")
    until(page, "document.querySelector('video').readyState >= 2")
    assert time(page) == 3.5
    until(page, "document.querySelector('video').currentTime === 3.5")
    found = page.evaluate("window.vidkd.detections[0].map((o) => [o.start, o.end, o.label])")
    wanted = [[item.start, item.end, item.label] for item in result.segments]
    assert found == wanted
    page.keyboard.press("ArrowDown")
    page.keyboard.press("a")
    with page.expect_download() as download:
        page.locator("#download").click()
    kept = load_annotations(download.value.path(), "activitynet").videos[video.stem].segments
    assert [[item.start, item.end, item.label] for item in kept] in [[item] for item in wanted]
    assert page.evaluate("window.hacked") is None
    assert page.problems == []
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate("window.vidkd.edits.labels.length") == 1
