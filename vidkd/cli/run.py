"""``vidkd run`` and ``vidkd demo``: whole experiments from one recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidkd.cli.extract import Cluster, SlurmParameters, executor
from vidkd.cli.options import Device, Json
from vidkd.console import emit_json, emit_table
from vidkd.machine import cores

if TYPE_CHECKING:
    from vidkd.recipe import Pipeline

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A YAML recipe, or the name of one of pipelines/.")
]
Results = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder for the results. Default: runs/RECIPE.")
]
Labels = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Annotations, for recipes that name none.")
]
Workers = Annotated[int, typer.Option(min=1, help="Videos rendered or read at once.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Make again what was made with other settings.")
]


def load_recipe(name: str, videos: Path | None, annotations: Path | None) -> Pipeline:
    """Return a recipe, on the videos and annotations given."""
    from vidkd.recipe import Pipeline, load_yaml, pipeline_path

    recipe = load_yaml(pipeline_path(name), Pipeline)
    given = videos is not None or annotations is not None
    return recipe.with_data(videos, annotations) if given else recipe


def run(
    recipe: RecipeName,
    output: Results = None,
    videos: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the videos, for recipes that name none."),
    ] = None,
    annotations: Labels = None,
    budget: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            metavar="FPS",
            help="Put the model that is best on validation, of those that `detect` runs at this"
            " many frames/s here, in models/chosen.",
        ),
    ] = None,
    workers: Workers = cores(),
    cluster: Cluster = "local",
    slurm: SlurmParameters = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Run every stage of a recipe, from video to the table of results.

    Finished stages are skipped, so the same command goes on where it stopped.
    """
    from vidkd.pipeline.benchmark import Benchmark
    from vidkd.pipeline.results import gather

    pipeline = load_recipe(recipe, videos, annotations)
    plan = Benchmark.of_models(
        pipeline,
        output or Path("runs") / pipeline.name,
        workers=workers,
        device=device,
        overwrite=overwrite,
        cluster=None if cluster == "local" else executor(cluster, slurm, None, device, 1),
        validated=budget is not None,
    )
    results = gather(plan, plan.run())
    choice = None
    if budget is not None:
        from vidkd.pipeline.inference_time import choose_model

        choice = choose_model(plan, results, budget)
        results.notes.append(choice.sentence())
    results.pictures = sorted(plan.layout.pictures.glob("*.*"))
    results.save(plan.layout.root)
    if as_json:
        emit_json(results.to_json() | ({"choice": choice.to_json()} if choice else {}))
        return
    results.print()
    if choice is not None:
        emit_table(
            f"within {budget:g} frames/s",
            ("model", "frames/s of detect", "frame mAP on validation", "fits"),
            choice.cells(),
        )


def demo(
    output: Annotated[Path, typer.Option(help="Folder of everything made.")] = Path("demo"),
    workers: Workers = cores(),
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Render a small data set and run the whole chain on it, in some minutes on two cores."""
    run("demo", output, workers=workers, device=device, overwrite=overwrite, as_json=as_json)
