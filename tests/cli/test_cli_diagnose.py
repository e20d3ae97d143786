"""``vidkd diagnose``: its table, its page, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
from in_process import vidkd

from vidkd.evaluation import DenseScores, Detection, write_dense_scores, write_detections

VIDEO = 'a <b>&"#?.1 é'
LABEL = "<script>alert(1)</script>"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    truth, result, scores = (tmp_path / name for name in ("t.json", "r.json", "s.h5"))
    segments = [{"segment": [0, 4], "label": LABEL}, {"segment": [30, 34], "label": "sit"}]
    video = {"subset": "testing", "duration": 40.0, "annotations": segments}
    truth.write_text(json.dumps({"database": {VIDEO: video}}))
    items = [Detection(LABEL, 0.9, 0, 4), Detection(LABEL, 0.8, 30, 34.5)]
    write_detections(result, {VIDEO: items})
    rows = np.random.default_rng(0).random((40, 2), dtype=np.float32)
    pts = np.stack([np.arange(40.0), np.arange(40.0) + 1], axis=1)
    write_dense_scores(scores, DenseScores((LABEL, "sit"), {"v": (rows, pts)}))
    return truth, result, scores


class Page(HTMLParser):
    """Collects tags, links and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_links_every_error_and_runs_nothing_of_the_labels(files, tmp_path) -> None:
    truth, result, _ = files
    folder = tmp_path / "found"
    words = ("diagnose", result, "--annotations", truth, "--output", folder, "--threshold", 0.5)
    command = [sys.executable, "-m", "vidkd", *map(str, words), "--view-port", "9000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"wrong class\W+1\W+1\W", done.stdout)
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    assert page.tags.count("script") == 1
    assert LABEL in page.words
    assert VIDEO in page.words
    links = [urlparse(link) for link in page.links if link.startswith("http")]
    assert [link.netloc for link in links] == ["127.0.0.1:9000"] * 2
    targets = [parse_qs(link.fragment, strict_parsing=True) for link in links]
    assert targets == [{"video": [VIDEO], "t": ["30.00"]}] * 2
    assert all(link.startswith(("http://127.0.0.1", "data:image/png")) for link in page.links)
    data = json.loads((folder / "diagnosis.json").read_text())
    assert [item["kind"] for item in data["detections"]] == ["true positive", "wrong class"]
    assert [item["label"] for item in data["missed"]] == ["sit"]
    assert {path.suffix for path in folder.iterdir()} == {".html", ".json", ".png"}


def test_dense_scores_become_segments_and_tell_of_frames(files) -> None:
    truth, _, scores = files
    content = json.loads(truth.read_text())
    content["database"] = {"v": content["database"][VIDEO]}
    truth.write_text(json.dumps(content))
    done = vidkd("diagnose", scores, "--annotations", truth, "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["reliability"]["frames"]["bins"] == 15
    assert sum(data["reliability"]["frames"]["count"]) == 80
    table = np.array(data["confusion"]["frames"])
    assert table[:2].sum(axis=1) == pytest.approx([4, 4])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--tiou", 0.05), "0.05 is no tIoU"),
        (("--lengths", "4,2"), "are no lengths"),
        (("--cache", "x"), "--cache belongs to runs"),
        (("--subset", "nothing"), "no video in the subset"),
    ],
)
def test_what_makes_no_sense_is_said(files, extra, message) -> None:
    truth, result, _ = files
    done = vidkd("diagnose", result, "--annotations", truth, *extra)
    assert done.returncode in {1, 2}
    assert message in done.stderr


def test_a_result_of_other_videos_is_refused(files, tmp_path) -> None:
    write_detections(tmp_path / "other.json", {"w": [Detection("sit", 0.9, 0, 4)]})
    done = vidkd("diagnose", tmp_path / "other.json", "--annotations", files[0])
    assert done.returncode == 1
    assert "'w', is among the annotations" in done.stderr


def test_a_run_needs_its_cache(files, tmp_path) -> None:
    done = vidkd("diagnose", tmp_path, "--annotations", files[0])
    assert done.returncode == 2
    assert "name the --cache" in done.stderr
