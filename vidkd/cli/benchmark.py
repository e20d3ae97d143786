"""``vidkd benchmark``: the paper's tables on one's own data, from one recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidkd.cli.extract import Cluster, SlurmParameters, executor
from vidkd.cli.options import Device, Json, flag, numbers, option
from vidkd.cli.run import Cache, Labels, RecipeName, Results, load_recipe
from vidkd.console import emit_json, emit_table, log
from vidkd.errors import UsageError
from vidkd.machine import cores

if TYPE_CHECKING:
    from vidkd.pipeline.benchmark import Benchmark


def benchmark(
    recipe: RecipeName,
    output: Results = None,
    videos: Annotated[
        Path | None, option("Folder of the videos; not needed with a filled --cache.", "DIR")
    ] = None,
    annotations: Labels = None,
    cache: Cache = None,
    tables: Annotated[
        str | None, option("Tables to make. Default: those of the recipe.", "1,3")
    ] = None,
    subset: Annotated[
        str | None,
        option("Subset that the tables show; `validation` never reads the test videos.", "NAME"),
    ] = None,
    workers: Annotated[
        int, option("Models trained at once, and videos read at once.", "NUMBER", min=1)
    ] = cores(),
    cluster: Cluster = "local",
    slurm: SlurmParameters = None,
    device: Device = "auto",
    dry_run: Annotated[
        bool, flag("--dry-run", "Only show what is done and what is left to do.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make the tables and figures of the paper (Dai et al. 2021).

    The same command goes on where it stopped. After a change of the recipe, only what it changes
    is made again. A row that fails is named, and the others are made.
    """
    from vidkd.pipeline.benchmark import Benchmark
    from vidkd.pipeline.figures import Figures
    from vidkd.pipeline.results import gather

    found = numbers(tables, "--tables", "1,3")
    if found is not None and not set(found) <= {1, 2, 3, 4, 5}:
        raise UsageError(f"--tables {tables} are not all tables", remedy="give some of 1,2,3,4,5")
    pipeline = load_recipe(recipe, videos, annotations)
    plan = Benchmark.of(
        pipeline,
        output or Path("runs") / pipeline.name,
        cache=cache,
        workers=workers,
        device=device,
        numbers=None if found is None else [int(number) for number in found],
        subset=subset,
        cluster=None if cluster == "local" else executor(cluster, slurm, None, device, 1),
    )
    if dry_run:
        _print_plan(plan, as_json)
        return
    outcome = plan.run()
    results = gather(plan, outcome)
    # Before the figures, one of which is measured: a kill then loses no number.
    results.save(plan.layout.root)
    Figures(plan, results).draw()
    results.save(plan.layout.root)
    if as_json:
        emit_json(results.to_json())
    else:
        results.print()
        log(f"wrote {plan.layout.root / 'results.md'}")
    if results.failed:
        raise typer.Exit(1)


def _print_plan(plan: Benchmark, as_json: bool) -> None:
    planned = plan.planned()
    if as_json:
        emit_json(planned)
        return
    for table in planned["tables"]:
        rows: list[tuple[Any, ...]] = [
            (", ".join(filter(None, row["cells"])) or "vanilla RGB", *row["runs"])
            for row in table["rows"]
        ]
        emit_table(table["title"], ("row", "runs"), [(row[0], " + ".join(row[1:])) for row in rows])
        for text in table["left_out"]:
            log(f"left out: {text}")
    for modality, state in planned["features"].items():
        log(f"features of {modality}: {state}")
    log(
        f"{planned['to_train']} of {planned['runs']} runs to train, "
        f"{planned['to_evaluate']} of {planned['evaluations']} evaluations to do, "
        f"seeds {', '.join(map(str, planned['seeds']))}"
    )
