"""The tables of a benchmark as text, the paper's numbers, and what the figures compute."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread

from vidkd.annotations import Segment
from vidkd.pipeline.figures import (
    Figures,
    boundary_contrast,
    calibrated,
    hierarchical_order,
    step_variation,
    triangle_correlation,
)
from vidkd.pipeline.results import (
    ResultRow,
    Results,
    SeedResult,
    mean_spread,
    row_label,
)
from vidkd.pipeline.tables import Table
from vidkd.recipe.paper import paper_number
from vidkd.report.paper_figures import (
    Covariance,
    SpeedPoint,
    Variation,
    draw_boundaries,
    draw_class_gains,
    draw_covariances,
    draw_speed,
)

FACTS = {"videos": 2, "classes": 3, "ground_truth_sha256": "ab" * 32}


def result(seed: int, value: float) -> SeedResult:
    facts = {**FACTS, "validation": FACTS, "runs": [f"models/a-seed{seed}"]}
    return SeedResult(seed, {"frame mAP": value}, {"frame mAP": value + 10}, facts)


def results(failed: dict[int, str] | None = None) -> Results:
    rows = (
        ResultRow(("", "x"), "rgb", (result(0, 10.0), result(1, 14.0)), ("frame mAP", 22.3)),
        ResultRow(("x", "x"), "rgb", (result(0, 20.0),), None, failed or {}),
    )
    table = Table("table-1", "Table 1: the losses", ("atomic", "boundary"), rows)
    protocol = {"frame_protocol": "frame", "event_protocol": "anet"}
    return Results("r", "testing", "validation", ("frame mAP",), protocol, [table])


def test_the_table_has_mean_sample_deviation_and_seeds(tmp_path: Path) -> None:
    found = results({1: "teacher-flow-seed1: no memory"})
    found.save(tmp_path)
    text = (tmp_path / "results.md").read_text()
    # (10, 14): mean 12, sample standard deviation sqrt(8).
    assert "|  | x | rgb | 12.0 ± 2.8 | 22.0 ± 2.8 | 2 | 22.3 (frame mAP) |" in text
    assert "| x | x | rgb | 20.0 | 30.0 | 1 |  |" in text
    assert "table-1: atomic + boundary, seed 1: teacher-flow-seed1: no memory" in text
    assert "ground truth abababababab" in text
    loaded = json.loads((tmp_path / "results.json").read_text())
    row = loaded["tables"][0]["rows"][0]
    assert row["mean"]["frame mAP"] == 12
    assert row["standard_deviation"]["frame mAP"] == pytest.approx(8**0.5)
    assert [seed["facts"]["runs"] for seed in row["seeds"]] == [
        ["models/a-seed0"],
        ["models/a-seed1"],
    ]
    with (tmp_path / "results.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [float(line["value"]) for line in lines if line["subset"] == "testing"] == [10, 14, 20]


def test_rows_without_a_result_have_a_dash() -> None:
    assert mean_spread([]) == "-"
    assert row_label(("atomic", "global"), ("", "")) == "vanilla RGB"
    assert row_label(("videos", "model"), ("cs", "two-stream")) == "cs, two-stream"


def test_the_papers_numbers_stand_beside_the_same_data_set_only() -> None:
    assert paper_number("charades", "two-stream") == ("frame mAP", 24.8)
    assert paper_number("pku-mmd-cs", "augmented") == ("mAP@0.1", 85.5)
    assert paper_number("thumos14", "vanilla") == ("mAP@0.5", 46.1)
    assert paper_number("pku-mmd-cv", "augmented") is None
    assert paper_number("multithumos", "two-stream") is None
    assert paper_number(None, "vanilla") is None


def test_clustering_brings_the_channels_of_a_block_together() -> None:
    generator = np.random.default_rng(0)
    sources = generator.normal(size=(500, 3))
    group = np.arange(30) % 3
    rows = sources[:, group] + 0.1 * generator.normal(size=(500, 30))
    rows[:, 7] = 1.0
    order = hierarchical_order(np.cov(rows.T))
    assert sorted(order) == list(range(30))
    assert order[-1] == 7
    assert (np.diff(group[order[:-1]]) != 0).sum() == 2


def test_triangle_correlation_is_that_of_numpy() -> None:
    generator = np.random.default_rng(1)
    one, other = (np.cov(generator.normal(size=(6, 40))) for _ in range(2))
    above = np.triu_indices(6, 1)
    wanted = np.corrcoef(one[above], other[above])[0, 1]
    assert triangle_correlation(one, other) == pytest.approx(wanted)
    assert triangle_correlation(one, 3 * one + 1) == pytest.approx(1)


def test_a_feature_map_that_jumps_at_the_boundary_has_contrast() -> None:
    rows = np.zeros((10, 4))
    rows[5:] = 1.0
    rows += 0.01 * np.arange(10)[:, None]
    middle = np.arange(10) + 0.5
    variation = step_variation(rows)
    assert variation.mean() == pytest.approx(1)
    # The step from 4 to 5 holds the boundary at 5.0; all others change by 0.01.
    assert boundary_contrast(variation, middle, np.array([5.0])) == pytest.approx(101)
    assert boundary_contrast(variation, middle, np.array([99.0])) is None
    assert boundary_contrast(variation, middle, middle + 0.1) is None


def test_calibration_moves_the_threshold_to_one_half() -> None:
    thresholds = np.array([0.1, 0.5, 0.9])
    scores = np.stack([thresholds, thresholds / 2, [0.0, 1.0, 1.0]])
    found = calibrated(scores, thresholds)
    assert found[0] == pytest.approx([0.5] * 3)
    logit = np.log(scores[1] / (1 - scores[1])) - np.log(thresholds / (1 - thresholds))
    assert found[1] == pytest.approx(1 / (1 + np.exp(-logit)))
    assert np.isfinite(found).all()


def test_every_figure_is_drawn(tmp_path: Path) -> None:
    matrix = np.cov(np.random.default_rng(0).normal(size=(8, 50)))
    draw_covariances(tmp_path / "4.png", [Covariance(n, matrix) for n in "abc"], "order")
    truth = [Segment(1.0, 3.0, "walk"), Segment(2.0, 4.0, "wave")]
    curve = Variation("vanilla", np.ones(9), "twice")
    draw_boundaries(tmp_path / "5.png", [curve], np.arange(9.0), truth, "caption")
    gains = {f"class {number}": [number - 3.0, number - 2.0] for number in range(60)}
    draw_class_gains(tmp_path / "6.png", gains, "a minus b", "caption")
    points = [SpeedPoint("rgb", 100.0, [20.0, 22.0]), SpeedPoint("two", 900.0, [25.0])]
    draw_speed(tmp_path / "3.png", points, "frame mAP", "caption")
    for number in (3, 4, 5, 6):
        assert imread(tmp_path / f"{number}.png")[..., :3].std() > 0.01


def test_a_figure_that_fails_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: Figures) -> Path:
        raise ImportError("No module named\n'scipy'")

    monkeypatch.setattr(Figures, "covariances", broken)
    for name in ("boundaries", "actionness"):
        monkeypatch.setattr(Figures, name, lambda self, name=name: Path(f"{name}.png"))
    found = results()
    recipe = SimpleNamespace(benchmark=SimpleNamespace(figures=[4, 5, 6, 7]))
    Figures(SimpleNamespace(recipe=recipe), found).draw()  # type: ignore[arg-type]
    assert [path.stem for path in found.pictures] == ["boundaries", "actionness"]
    note, other = found.notes
    assert note == ("figure 4 left out: unexpected ImportError: No module named 'scipy'; report it")
    assert other.startswith("figure 6 left out: ")
    assert "No module named 'scipy'" in capsys.readouterr().err


def test_figures_of_one_class_and_one_snippet_are_drawn(tmp_path: Path) -> None:
    draw_boundaries(tmp_path / "5.png", [Variation("a", np.zeros(0))], np.zeros(0), [], "c")
    draw_class_gains(tmp_path / "6.png", {"only": [1.0]}, "a minus b", "caption")
    draw_covariances(tmp_path / "4.png", [Covariance("a", np.zeros((2, 2)))], "order")
    assert {path.name for path in tmp_path.iterdir()} == {"4.png", "5.png", "6.png"}


def test_labels_of_models_of_the_same_speed_do_not_lie_on_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(
        "vidkd.report.paper_figures.save", lambda figure, path: drawn.append(figure)
    )
    points = [
        SpeedPoint("flow teacher", 109.0, [31.0, 32.0]),
        SpeedPoint("vanilla RGB", 41.0, [33.20, 33.24]),
        SpeedPoint("two-stream", 151.0, [34.9]),
        SpeedPoint("augmented RGB", 41.1, [33.25, 33.3]),
        SpeedPoint("another", 41.2, [33.1]),
    ]
    draw_speed(tmp_path / "3.png", points, "frame mAP", "caption")
    (figure,) = drawn
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == len(points)
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])
