"""The rows of the paper's tables, and that no run is trained twice."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from pydantic import ValidationError

from vidkd.errors import UsageError
from vidkd.pipeline.check import check_recipe
from vidkd.pipeline.tables import (
    BASELINES,
    LOSSES,
    Table,
    TableRow,
    all_runs,
    build_tables,
    models_table,
)
from vidkd.recipe import Pipeline

NAMED = {"rgb": {"name": "i3d-rgb-kinetics400"}, "flow": {"name": "i3d-flow-inflated"}}


def recipe(**fields: object) -> Pipeline:
    encoders = {"rgb": {"name": "a"}, "flow": {"name": "b"}}
    values = {"name": "r", "description": "", "data": {}, "encoders": encoders, **fields}
    return Pipeline.model_validate(values)


def table(key: str, tables: list[Table[TableRow]]) -> Table[TableRow]:
    return next(item for item in tables if item.key == key)


def test_table_1_has_every_subset_of_the_losses_once() -> None:
    rows = table("table-1", build_tables(recipe(), [1])).rows
    wanted = [set(chosen) for count in range(4) for chosen in combinations(LOSSES, count)]
    found = []
    for row in rows:
        (run,) = row.runs
        marked = {name for name, cell in zip(LOSSES, row.cells, strict=True) if cell}
        weights = run.distillation
        on = {n for n in (*LOSSES, *BASELINES) if weights and getattr(weights, n) > 0}
        assert marked == on
        assert all(getattr(weights, name) == getattr(recipe().distillation, name) for name in on)
        found.append(on)
    assert sorted(map(sorted, found)) == sorted(map(sorted, wanted))


def test_other_methods_have_their_own_terms_only() -> None:
    rows = table("table-2", build_tables(recipe(), [2])).rows
    terms = {}
    for row in rows:
        weights = row.runs[0].distillation
        assert weights is not None
        terms[row.cells[0]] = {n for n in (*LOSSES, *BASELINES) if getattr(weights, n) > 0}
    assert terms == {
        "logits": {"logits"},
        "logits + features": {"logits", "mars"},
        "hallucination": {"hallucination"},
        "MARS": {"mars"},
        "graph distillation (representation)": {"graph"},
        "graph distillation (representation + logits)": {"graph", "graph_logits"},
        "atomic (ours)": {"atomic"},
    }


def test_tables_share_their_runs() -> None:
    tables = build_tables(recipe(), [1, 2, 3, 4, 5])
    everything = table("table-1", tables).rows[-1].runs
    assert table("table-3", tables).rows[-1].runs == everything
    assert table("table-4", tables).rows[2].runs == everything
    assert table("table-5", tables).rows[3].runs == everything
    runs = all_runs(tables)
    slugs = [run.slug for run in runs]
    assert len(slugs) == len(set(slugs))
    # 7 students of Table 1, 6 more of Table 2, vanilla, teacher and student of 4 filters.
    assert len(runs) == 7 + 6 + 3 * 4 - 1
    for number, run in enumerate(runs):
        assert all(teacher in runs[:number] for teacher in run.teachers)


def test_a_filter_of_table_4_has_its_own_teacher() -> None:
    rows = table("table-4", build_tables(recipe(), [4])).rows
    for row in rows:
        runs = [run for outer in row.runs for run in (outer, *outer.teachers)]
        assert {run.filter.kind for run in runs} == {row.cells[0]}


def test_modalities_that_the_recipe_lacks_are_named() -> None:
    found = table("table-5", build_tables(recipe(), [5]))
    assert [row.cells[0] for row in found.rows] == ["OF"] * 4
    assert [text.split(":")[0] for text in found.left_out] == ["Pose", "Pose + OF"]
    encoders = {"rgb": {"name": "a"}, "flow": {"name": "b"}, "pose": {"name": "c"}}
    complete = table("table-5", build_tables(recipe(encoders=encoders), [5]))
    assert not complete.left_out
    both = [row for row in complete.rows if row.cells[0] == "Pose + OF"]
    assert [row.inputs for row in both] == ["pose + flow", "rgb", "rgb + pose + flow", "rgb"]
    assert {teacher.modality for teacher in both[-1].runs[0].teachers} == {"pose", "flow"}
    assert [row.paper for row in both] == [None, "vanilla", None, "augmented-pose+flow"]


def test_splits_of_the_videos_are_rows_of_table_3_alone() -> None:
    splits = [{"name": "Cross View", "annotations": "view.json"}]
    tables = build_tables(recipe(benchmark={"splits": splits, "split": "subject"}), [1, 3])
    names = [row.cells[0] for row in table("table-3", tables).rows]
    assert names == ["subject"] * 4 + ["Cross View"] * 4
    assert {row.split for row in table("table-1", tables).rows} == {""}
    student = table("table-3", tables).rows[-1].runs[0]
    assert {run.split for run in (student, *student.teachers)} == {"Cross View"}
    assert student.slug.startswith("cross-view-")


def test_controls_and_methods_are_rows_of_their_own() -> None:
    method = {"name": "Heavy!", "distillation": {"atomic": 0.5}, "filter": "tgm"}
    benchmark = {"controls": ["untrained-teacher", "rgb-teacher"], "methods": [method]}
    found = table("further", build_tables(recipe(benchmark=benchmark), [3]))
    untrained, vanilla, heavy = (row.runs[0] for row in found.rows)
    assert not untrained.teachers[0].trained
    assert vanilla.teachers[0].modality == "rgb"
    assert vanilla.teachers[0].trained
    assert heavy.slug == "method-heavy"
    assert heavy.filter.kind == heavy.teachers[0].filter.kind == "tgm"
    assert heavy.distillation is not None
    assert heavy.distillation.atomic == 0.5
    assert heavy.distillation.boundary == recipe().distillation.boundary


def test_two_methods_of_one_name_are_refused() -> None:
    methods = [{"name": "A", "distillation": {"atomic": value}} for value in (0.5, 0.6)]
    with pytest.raises(UsageError, match="method-a"):
        build_tables(recipe(benchmark={"methods": methods}), [3])


@pytest.mark.parametrize(
    "benchmark",
    [
        {"tables": [6]},
        {"methods": [{"name": "A", "distillation": {"atomc": 1}}]},
        {"methods": [{"name": "A", "distillation": {"atomic": -1}}]},
        {"controls": ["nothing"]},
    ],
)
def test_what_cannot_be_is_refused(benchmark: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        recipe(benchmark=benchmark)


def test_run_has_a_teacher_for_each_stream_and_one_student_of_all() -> None:
    encoders = {"rgb": {"name": "a"}, "flow": {"name": "b"}, "pose": {"name": "c"}}
    found = models_table(recipe(encoders=encoders, teachers=["flow", "pose"]))
    assert [(row.cells[0], row.inputs, row.slug) for row in found.rows] == [
        ("flow teacher", "flow", "flow-teacher"),
        ("pose teacher", "pose", "pose-teacher"),
        ("vanilla RGB", "rgb", "vanilla-rgb"),
        ("late fusion", "rgb + flow + pose", "late-fusion"),
        ("augmented RGB", "rgb", "augmented-rgb"),
    ]
    slugs = [run.slug for run in all_runs([found])]
    assert slugs == ["teacher-flow", "teacher-pose", "vanilla-rgb", "augmented-rgb"]
    assert [run.slug for run in found.rows[-1].runs[0].teachers] == slugs[:2]
    assert models_table(recipe()).rows[-2].cells == ("two-stream",)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"filter": {"kind": "transformer"}},
            r"r, filter\.kind: .*'transformer'; give one of ss-tcn",
        ),
        ({"benchmark": {"filters": ["lsmt"]}}, r"benchmark\.filters: .*'lsmt'; give one of .*lstm"),
        ({"encoders": {"rgb": {"name": "i3d"}, "flow": {"name": "b"}}}, r"encoders\.rgb: .*'i3d'"),
        ({"encoders": {**NAMED, "sound": {"name": "b"}}}, "encoders: .*'sound'; give one of rgb"),
        (
            {"distillation": {"losses": {"atmoic": 1}}},
            "distillation: .*'atmoic'; give one of atomic",
        ),
        ({"evaluation": {"frame_protocol": "fame"}}, r"evaluation\.frame_protocol: .*'fame'; give"),
        (
            {"evaluation": {"event_protocol": "frame"}},
            "does not compare events; give one of .*anet",
        ),
        ({"data": {"format": "xml"}}, r"data\.format: .*'xml'; give one of activitynet"),
        (
            {"benchmark": {"methods": [{"name": "A", "filter": "lsmt"}]}},
            r"benchmark\.methods, A: .*'lsmt'",
        ),
    ],
)
def test_names_that_there_are_not_are_told_before_any_work(
    fields: dict[str, object], words: str, tmp_path: Path
) -> None:
    good = recipe(encoders=NAMED)
    check_recipe(good, tmp_path)
    with pytest.raises(UsageError, match=words):
        check_recipe(recipe(**{"encoders": NAMED, **fields}), tmp_path)


def test_imported_features_need_no_encoder(tmp_path: Path) -> None:
    encoders = {"rgb": {"name": "clip"}, "flow": {"name": "i3d-flow-inflated"}}
    with pytest.raises(UsageError, match="'clip'"):
        check_recipe(recipe(encoders=encoders), tmp_path)
    (tmp_path / "features" / "clip").mkdir(parents=True)
    check_recipe(recipe(encoders=encoders), tmp_path)
