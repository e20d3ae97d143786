"""``vidkd run`` and ``vidkd demo``: whole experiments from one recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vidkd.cli.extract import Cluster, SlurmParameters, executor
from vidkd.cli.options import Device, Json, argument, flag, option
from vidkd.console import emit_json, emit_table
from vidkd.machine import cores

if TYPE_CHECKING:
    from vidkd.recipe import Pipeline

RecipeName = Annotated[str, argument("A YAML recipe, or the name of one of pipelines/.", "RECIPE")]
Results = Annotated[Path | None, option("Folder for the results. Default: runs/RECIPE.", "DIR")]
Labels = Annotated[Path | None, option("Annotations, for recipes that name none.", "FILE")]
Cache = Annotated[
    Path | None, option("Folder of flow and features, which several runs may share.", "DIR")
]
Workers = Annotated[int, option("Videos rendered or read at once.", "VIDEOS", min=1)]
Overwrite = Annotated[bool, flag("--overwrite", "Make again what was made with other settings.")]


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
        Path | None, option("Folder of the videos, for recipes that name none.", "DIR")
    ] = None,
    annotations: Labels = None,
    cache: Cache = None,
    budget: Annotated[
        float | None,
        option(
            "Frames per second that `detect` is to reach here: of the models that do, the one that "
            "is best on validation is put in models/chosen.",
            "FPS",
            min=0.01,
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
        cache=cache,
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
    output: Annotated[Path, option("Folder of everything made.", "DIR")] = Path("demo"),
    workers: Workers = cores(),
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Render a small data set and run the whole chain on it, in some minutes on two cores."""
    run("demo", output, workers=workers, device=device, overwrite=overwrite, as_json=as_json)
