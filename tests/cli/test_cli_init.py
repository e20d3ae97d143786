"""``vidkd init``: labels of a stranger become a recipe that ``vidkd run`` would take."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from in_process import vidkd

from vidkd.annotations import load_annotations
from vidkd.pipeline.benchmark import Benchmark
from vidkd.pipeline.first_recipe import snippet_of
from vidkd.recipe import Pipeline, load_yaml
from vidkd.video import VideoWriter

NAMES = [f"{folder}/cam {n}" for folder in ("Küche", "P2") for n in range(3)]
NAMES += [f"S{n:02d}_a" for n in range(4)] + [f"S{n:02d}_b" for n in range(4)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("init") / "my videos"
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with VideoWriter(folder / f"{name}.mp4", 64, 48, 10) as writer:
            for level in range(20):
                writer.write(np.full((48, 64, 3), 10 * level, np.uint8))
    return folder


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    lines = ["video,start,end,label"]
    for number, name in enumerate(NAMES):
        label = "sit down" if number % 2 else "Tür auf"
        lines += [f"{name},0.2,1.0,wave", f"{name},0.5,1.6,{label}"]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(lines))
    return path


def test_a_table_of_four_columns_becomes_a_recipe(
    videos: Path, labels: Path, tmp_path: Path
) -> None:
    with labels.open("a") as file:
        file.write("\nabsent,0,1,wave\nS00_a,1.5,9,wave\nS01_a,50,60,wave")
    output = tmp_path / "out"
    arguments = ("init", videos, "--labels", labels, "--output", output)
    ran = vidkd(*arguments)
    assert ran.returncode == 0, ran.stderr
    for note in (
        "labels of 1 without a video: absent",
        "cut: S00_a: 'wave' [1.5, 9] to the video, which lasts 2 s",
        "'wave' [50, 60] lies past the end at 2 s",
        "--subject-pattern keeps them apart",
    ):
        assert note in ran.stderr
    assert f"vidkd run {output}/recipe.yaml --output {output}" in ran.stdout
    truth = load_annotations(output / "annotations.json")
    assert truth.subsets == ("testing", "training", "validation")
    assert set(truth.videos) == set(NAMES)
    recipe = load_yaml(output / "recipe.yaml", Pipeline)
    plan = Benchmark.of_models(recipe, tmp_path / "run")
    assert [row.cells for row in plan.rows()] == [("vanilla RGB",)]
    assert len(plan.splits[""].videos) == len(NAMES)
    checked = vidkd("data", "check", "--recipe", output / "recipe.yaml", "--json")
    assert json.loads(checked.stdout)["findings"] == []

    again = vidkd(*arguments)
    assert (again.returncode, "--force" in again.stderr) == (2, True)
    assert load_annotations(output / "annotations.json") == truth
    found = json.loads(vidkd(*arguments, "--force", "--json", "--teachers", "flow,pose").stdout)
    assert {name: len(part) for name, part in found["subsets"].items()} == {
        name: len(truth.subset(name).videos) for name in truth.subsets
    }
    taught = load_yaml(output / "recipe.yaml", Pipeline)
    assert (taught.teachers, set(taught.encoders)) == (("flow", "pose"), {"rgb", "flow", "pose"})


def test_subjects_stay_together(videos: Path, labels: Path, tmp_path: Path) -> None:
    arguments = ("init", videos, "--labels", labels, "--output", tmp_path / "out", "--json")
    ran = vidkd(*arguments, "--subject-pattern", "^(S[0-9]+)_")
    assert ran.returncode == 2
    assert "finds nothing in Küche/cam 0" in ran.stderr
    assert not (tmp_path / "out").exists()
    kept = [line for line in labels.read_text().splitlines() if "cam" not in line]
    labels.write_text("\n".join(kept))
    found = json.loads(vidkd(*arguments, "--subject-pattern", "^(S[0-9]+)_").stdout)
    parts = [{name[:3] for name in part} for part in found["subsets"].values()]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts)) == 4
    assert vidkd(*arguments, "--force", "--subject-pattern", "(").returncode == 2


def test_subsets_of_the_labels_are_kept(videos: Path, tmp_path: Path) -> None:
    subsets = ["Train", "train", "train", "train", "test", "test"]
    entries = {
        name: {"subset": subset, "annotations": [{"label": "x", "segment": [0, 1]}]}
        for name, subset in zip(NAMES, subsets, strict=False)
    }
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"database": entries}))
    output = tmp_path / "out"
    ran = vidkd("init", videos, "--labels", path, "--output", output, "--json")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)["subsets"]
    assert found["testing"] == NAMES[4:6]
    assert set(found["training"]) | set(found["validation"]) == set(NAMES[:4])
    assert found["validation"]
    assert "left out: 8 videos without labels" in json.loads(ran.stdout)["notes"][0]
    entries[NAMES[0]]["subset"] = "holdout"
    path.write_text(json.dumps({"database": entries}))
    ran = vidkd("init", videos, "--labels", path, "--output", output, "--force")
    assert (ran.returncode, "subsets called holdout" in ran.stderr) == (1, True)


def test_labels_that_do_not_fit(videos: Path, labels: Path, tmp_path: Path) -> None:
    labels.write_text("video,start,end,label\ncam 1,0,1,x\n")
    ran = vidkd("init", videos, "--labels", labels, "--output", tmp_path / "out")
    assert (ran.returncode, "Küche/cam 1" in ran.stderr) == (2, True)
    labels.write_text("video,start,end,label\nother,0,1,x\n")
    ran = vidkd("init", videos, "--labels", labels, "--output", tmp_path / "out")
    assert (ran.returncode, "make the names the same" in ran.stderr) == (1, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("shortest", "rate", "expected"),
    [(5.1, 10, (16, 8)), (0.3, 25, (8, 4)), (1.0, 25, (16, 4)), (10, 25, (32, 16))],
)
def test_short_actions_get_short_steps(
    shortest: float, rate: float, expected: tuple[int, int]
) -> None:
    assert snippet_of(shortest, rate) == expected
