"""``vidkd suggest`` on a cache: what it chooses, writes and refuses."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import vidkd

from vidkd.annotations import load_annotations
from vidkd.cache import CacheWriter, Provenance, Source, cache_path
from vidkd.evaluation import read_detections
from vidkd.networks import FilterHeader, build_temporal_filter, save_temporal_filter
from vidkd.recipe import FilterSettings, FrameSettings, SnippetSettings

ENCODER, WIDTH = "i3d-rgb-kinetics400", 6
FRAMES, SNIPPET = FrameSettings(short_side=128), SnippetSettings()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    settings = FilterSettings(channels=8, layers=2)
    header = FilterHeader(
        filter=settings,
        in_features=WIDTH,
        classes=("jump", "walk"),
        modality="rgb",
        encoder=ENCODER,
        encoder_sha256="0" * 64,
        frames=FRAMES,
        crop=112,
    )
    module = build_temporal_filter(settings, WIDTH, 2)
    save_temporal_filter(tmp_path / "run" / "weights.safetensors", module, header)
    for number, name in enumerate(("p/a", "p/b", "q/c d", "q/é")):
        rows = np.random.default_rng(number).normal(number, 1, (90, WIDTH)).astype(np.float32)
        pts = np.stack([np.arange(90), np.arange(90) + 1], axis=1).astype(float)
        provenance = Provenance(
            artefact="features",
            source=Source(f"{name}.mp4", 1, "1" * 64, Fraction(10), 900),
            settings={
                "modality": "rgb",
                "frames": FRAMES.model_dump(mode="json"),
                "snippet": SNIPPET.model_dump(mode="json"),
                "crop": 112,
            },
            encoder=ENCODER,
            weights_sha256="0" * 64,
        )
        path = cache_path(tmp_path / "cache", "features", name, ENCODER)
        with CacheWriter(path, provenance, (WIDTH,), np.float32) as writer:
            writer.append(rows, pts)
    return tmp_path


def suggest(folder: Path, *extra: object, output: str = "next.json") -> dict | list:
    words = ("--model", folder / "run", "--cache", folder / "cache", "--output", folder / output)
    done = vidkd("suggest", *words, *extra, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def labels(folder: Path, **segments: list) -> Path:
    path = folder / "labels.json"
    items = {name.replace("__", "/"): {"annotations": found} for name, found in segments.items()}
    path.write_text(json.dumps({"database": items}))
    return path


def test_labelled_videos_are_not_suggested_and_unlabelled_ones_of_the_file_are(folder) -> None:
    done = [{"segment": [0, 4], "label": "walk"}]
    path = labels(folder, a=done, p__b=[])
    rows = suggest(folder, "--annotations", path, "--part", 30)
    assert sorted(row["video"] for row in rows) == ["p/b", "q/c d", "q/é"]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert 0 <= row["uncertainty"] <= 1
        assert [part["end"] - part["start"] for part in row["parts"]] == [30, 30, 30]
    # The one nearest to the labelled video is the last, for all are about as uncertain.
    assert rows[-1]["video"] == "p/b"
    made = read_detections(folder / "next.json")
    assert set(made) == {row["video"] for row in rows}
    assert json.loads((folder / "next.json").read_text())["external_data"]["suggestions"] == rows


def test_labels_are_written_for_a_tool_and_read_back(folder) -> None:
    plain = suggest(folder, "--number", 2)
    rows = suggest(folder, "--number", 2, "--to", "label-studio", output="tasks.json")
    assert rows == plain
    wanted = read_detections(folder / "next.json")
    tasks = json.loads((folder / "tasks.json").read_text())
    assert len(tasks) == 2
    drawn = [item for task in tasks for item in task["predictions"][0]["result"]]
    assert len(drawn) == sum(map(len, wanted.values())) > 0
    suggest(folder, "--number", 2, "--to", "csv", output="labels.csv")
    found = load_annotations(folder / "labels.csv").videos
    assert {name: len(found[name].segments) for name in found} == {
        name: len(items) for name, items in wanted.items() if items
    }


def test_what_makes_no_sense_is_said(folder) -> None:
    words = ("--model", folder / "run", "--output", folder / "next.json")
    done = vidkd("suggest", *words)
    assert done.returncode == 2
    assert "give --videos or --cache" in done.stderr
    (folder / "next.json").write_text("mine")
    done = vidkd("suggest", *words, "--cache", folder / "cache")
    assert done.returncode == 2
    assert "--overwrite" in done.stderr
    assert (folder / "next.json").read_text() == "mine"
    everything = {name: [{"segment": [0, 4], "label": "walk"}] for name in ("a", "b", "c d", "é")}
    done = vidkd(
        "suggest", *words, "--cache", folder / "cache", "--overwrite",
        "--annotations", labels(folder, **everything),
    )  # fmt: skip
    assert done.returncode == 2
    assert "no video without labels" in done.stderr
