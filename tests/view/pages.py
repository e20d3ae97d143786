"""A small project with a video, and its page in a browser."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidkd.annotations import load_annotations
from vidkd.evaluation import DenseScores, Detection, write_dense_scores, write_detections
from vidkd.files import write_json
from vidkd.video import VideoWriter
from vidkd.view import Project, load_models
from vidkd.view.labels import Labels

HOSTILE = "<img src=x onerror=window.hacked=1></script><script>window.hacked=1</script>"


def scores(rows: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (rows, 3) that tremble around thresholds, and pts of 0.1 s."""
    rng = np.random.default_rng(0)
    time = np.arange(rows)[:, None] / rows
    waves = 0.5 + 0.35 * np.sin(2 * np.pi * (time * [2, 3, 5] + [0, 0.3, 0.6]))
    values = np.clip(waves + rng.normal(0, 0.1, (rows, 3)), 0, 1).astype(np.float32)
    return values, np.stack([np.arange(rows) * 0.1, np.arange(1, rows + 1) * 0.1], axis=1)


def write_video(path: Path, seconds: float = 10.0, rate: int = 10) -> None:
    """Write a video of which each frame is as bright as its second says."""
    with VideoWriter(path, 64, 48, rate) as video:
        for n in range(round(seconds * rate)):
            video.write(np.full((48, 64, 3), 20 * (n // rate) + 20, np.uint8))


@dataclass
class Site:
    """A project that is being served."""

    folder: Path
    project: Project
    address: str

    @property
    def saved(self) -> list[tuple[str, float, float]]:
        """Label, start and end of what was saved of the video ``walk``."""
        videos = load_annotations(self.project.labels.target).videos
        return [(item.label, item.start, item.end) for item in videos["walk"].segments]


def make_project(folder: Path) -> Project:
    """Write a project into a folder, and open it."""
    videos = folder / "videos"
    videos.mkdir(exist_ok=True)
    if not (videos / "walk.mp4").exists():
        write_video(videos / "walk.mp4")
        shutil.copy(videos / "walk.mp4", videos / f"{HOSTILE.replace('/', '')}.mp4")
        values, pts = scores()
        dense = DenseScores(("walk", "sit", HOSTILE), {"walk": (values, pts)})
        write_dense_scores(folder / "first.h5", dense)
        write_detections(
            folder / "first.json",
            {
                "walk": [
                    Detection("walk", 0.9, 1.0, 3.0),
                    Detection("sit", 0.6, 4.0, 6.0),
                    Detection(HOSTILE, 0.3, 7.0, 8.0),
                ],
                HOSTILE.replace("/", ""): [Detection(HOSTILE, 0.9, 1.0, 2.0)],
            },
        )
        entry = {"subset": "training", "annotations": [{"segment": [1.2, 2.8], "label": "walk"}]}
        write_json(folder / "labels.json", {"database": {"walk": entry}})
    inputs = [folder / "first.json", folder / "labels.json"]
    labels = Labels(load_annotations(inputs[1]), folder / "corrected.json", inputs)
    return Project(load_models(inputs[:1]), labels, videos)


def opened(browser: Any, address: str) -> Any:
    """Open a page, and fail where it says or asks for what it should not."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda line: line.type == "error" and page.problems.append(line.text))
    page.goto(address)
    page.wait_for_selector("html[data-ready]", timeout=30_000)
    return page


def until(page: Any, condition: str) -> None:
    """Wait until an expression is true. (The page forbids the eval that Playwright waits with.)"""
    end = time.monotonic() + 30
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"never true: {condition}"
        time.sleep(0.02)
