"""Check that annotations, videos and caches fit; import features; export submissions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidkd.cli.export import AnnotationRate, Format, convert, export_submission
from vidkd.cli.options import Command, Json, argument, flag, option, with_settings
from vidkd.console import emit_json, emit_table, log, progress
from vidkd.differences import listed
from vidkd.errors import UsageError
from vidkd.recipe.inputs import ImportSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vidkd.features.data_report import DataReport
    from vidkd.recipe import Pipeline

app = typer.Typer(no_args_is_help=True, help=__doc__)

_SHOWN = 5
"""Findings of one kind in the table, unless all are asked for."""


@app.command("check", cls=Command)
def check(
    annotations: Annotated[Path | None, option("Annotations of the videos.", "FILE")] = None,
    recipe: Annotated[
        Path | None,
        option(
            "Check what `vidkd run` would be given: this recipe, its videos, annotations and "
            "subsets.",
            "FILE.yaml",
        ),
    ] = None,
    annotation_format: Format = "auto",
    annotation_rate: AnnotationRate = None,
    videos: Annotated[Path | None, option("Folder of the videos.", "DIR")] = None,
    cache: Annotated[Path | None, option("Cache folder with flow and features.", "DIR")] = None,
    encoder: Annotated[
        list[str] | None,
        option(
            "Encoder whose features to check; several may be given. Default: all found.", "NAME"
        ),
    ] = None,
    deep: Annotated[
        bool, flag("--deep", "Also read every row, and decode and hash every video.")
    ] = False,
    show_all: Annotated[
        bool, flag("--all", f"Show all findings, not {_SHOWN} of each kind.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check that annotations, videos and caches fit together, before any training.

    Exit code 1 if something would stop training, 0 with warnings only.
    """
    from vidkd.features.data_check import SUBSETS, check_data

    subsets: Sequence[str] = SUBSETS
    if recipe is not None:
        found = _recipe(recipe, videos, annotations, cache)
        assert found.data is not None
        videos, annotations = found.data.videos, found.data.annotations
        annotation_format = found.data.format if annotation_format == "auto" else annotation_format
        subsets = (*found.subsets.model_dump().values(), found.evaluation.subset)
    if annotations is None:
        raise UsageError("there is nothing to check", remedy="give --annotations or --recipe")
    if encoder and cache is None:
        raise UsageError("--encoder belongs to a cache", remedy="give --cache as well")
    with progress("data check", None, "videos") as advance:
        report = check_data(
            annotations,
            annotation_format,
            annotation_rate=annotation_rate,
            videos=videos,
            cache=cache,
            encoders=encoder or (),
            subsets=subsets,
            deep=deep,
            advance=advance,
        )
    if as_json:
        emit_json(report.to_json())
    else:
        _print(report, show_all)
    if report.of("error"):
        raise typer.Exit(1)


def _recipe(
    path: Path, videos: Path | None, annotations: Path | None, cache: Path | None
) -> Pipeline:
    """Return a recipe on videos of its user's, of which `vidkd run` would refuse nothing."""
    from vidkd.pipeline.check import check_recipe
    from vidkd.recipe import Pipeline, load_yaml, pipeline_path

    found = load_yaml(pipeline_path(path), Pipeline).with_data(videos, annotations)
    check_recipe(found, cache or Path())
    return found


def _print(report: DataReport, show_all: bool) -> None:
    emit_table("", ("looked at", "count"), list(report.counts.items()))
    kinds: dict[tuple[str, str], int] = {}
    for item in report.findings:
        kinds[item.severity, item.kind] = kinds.get((item.severity, item.kind), 0) + 1
    if kinds:
        emit_table("", ("finding", "severity", "count"), [(k, s, n) for (s, k), n in kinds.items()])
    shown: dict[str, int] = {}
    for item in report.findings:
        shown[item.kind] = shown.get(item.kind, 0) + 1
        if show_all or shown[item.kind] <= _SHOWN:
            video = f"{item.video}: " if item.video else ""
            typer.echo(f"{item.severity} [{item.kind}] {video}{item.detail}")
        elif shown[item.kind] == _SHOWN + 1:
            more = kinds[item.severity, item.kind] - _SHOWN
            typer.echo(f"{item.severity} [{item.kind}] and {more} more (--all shows them)")
    errors, warnings = len(report.of("error")), len(report.of("warning"))
    log(f"{errors} errors, {warnings} warnings")


@app.command("import-features", cls=Command)
@with_settings
def import_features(
    folder: Annotated[Path, argument("Folder with one .npy file per video.", "DIR")],
    cache: Annotated[Path, option("The cache folder.", "DIR")],
    settings: ImportSettings,
    name_ending: Annotated[
        str, option("End of the files' names after the name of the video, such as _rgb.", "TEXT")
    ] = "",
    subsets_from: Annotated[
        Path | None, option("Annotations: only their videos are imported.", "FILE")
    ] = None,
    annotation_format: Format = "auto",
    annotation_rate: AnnotationRate = None,
    overwrite: Annotated[
        bool, flag("--overwrite", "Replace features that were imported with other settings.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Import features from .npy files, (T, D) or (T, 1, 1, D) per video, into the cache.

    The files do not say how they were made, so stride and rate are declared. Exit code 1 if a
    file failed; the others are imported.
    """
    from vidkd.annotations import load_annotations
    from vidkd.features import importing

    truth = None
    if subsets_from is not None:
        truth = load_annotations(subsets_from, annotation_format, frame_rate=annotation_rate)
    files, missing = importing.find_feature_files(folder, name_ending, truth)
    with progress("import-features", len(files), "files") as advance:
        results = importing.import_features(
            files, cache, settings, overwrite=overwrite, advance=advance
        )
    failed = [item for item in results if item.status == "failed"]
    counts = {
        "imported": sum(item.status == "done" for item in results),
        "skipped": sum(item.status == "skipped" for item in results),
        "failed": len(failed),
        "rows": sum(item.rows for item in results),
    }
    width = importing.width_problem(results)
    for item in failed:
        log(f"failed: {item.key}: {item.reason}")
    if missing:
        log(f"warning: no file for {listed(missing)}")
    if width is not None:
        log(f"error: {width}")
    if as_json:
        emit_json(
            {
                **counts,
                "missing": missing,
                "width_problem": width,
                "failures": {item.key: item.reason for item in failed},
            }
        )
    else:
        emit_table("", tuple(counts), [tuple(counts.values())])
    if failed or width is not None:
        raise typer.Exit(1)


@app.command("formats", cls=Command)
def formats(as_json: Json = False) -> None:
    """List the formats that are read and written, also those that installed packages add.

    The first table is for --format, and for annotations of every command; the second one for --to
    of `vidkd data convert` and `vidkd export`; the third one for `vidkd export` only.
    """
    from vidkd.annotations import READERS
    from vidkd.annotations.writers import KINDS, WRITERS
    from vidkd.evaluation.exports import EXPORTS

    read = {name: reader.help for name, reader in READERS.items()}
    written = {
        name: {
            "ending": writer.ending,
            "videos_in_a_file": "one" if writer.one_video else "all",
            "times": writer.unit,
            "also_holds": [kind for kind in KINDS if kind in writer.holds],
        }
        for name, writer in WRITERS.items()
    }
    submissions = {
        name: "dense scores" if item.dense else "detections" for name, item in EXPORTS.items()
    }
    if as_json:
        emit_json({"read": read, "written": written, "submissions": submissions})
        return
    emit_table("", ("--format", "what it reads"), list(read.items()))
    columns = ("--to", "ending", "videos in a file", "times", "holds segments, classes, and")
    emit_table(
        "",
        columns,
        [
            (name, *list(facts.values())[:3], ", ".join(facts["also_holds"]) or "nothing else")
            for name, facts in written.items()
        ],
    )
    emit_table("", ("submission", "is made of"), list(submissions.items()))


app.command("convert", cls=Command)(convert)
app.command("export", cls=Command)(export_submission)
