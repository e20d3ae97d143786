"""``vidkd train-pose``: the pose detector."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vidkd.console import emit_json, emit_table


class Body(StrEnum):
    """Backbones."""

    inception = "inception"
    resnet50 = "resnet50-fpn"


class WorkingType(StrEnum):
    """Types that convolutions are computed in."""

    auto = "auto"
    float32 = "float32"
    bf16 = "bf16"


def train_pose(
    data: Annotated[
        list[Path],
        typer.Option(
            metavar="DIR|labels.json",
            help="A folder of `vidkd synth`, or labelled pictures; repeat it for more. Each "
            "source is drawn from equally often.",
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="RUN", help="The run folder.")],
    validation: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR|labels.json",
            help="The same, to choose the best epoch by. Default: every tenth video of --data.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help="Go on from this detector: a name, or a run. Default: from nothing."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the detector in caches. Default: that of RUN.")
    ] = None,
    backbone: Annotated[
        Body, typer.Option(help="inception is for one core of a CPU.")
    ] = Body.inception,
    pretrained: Annotated[
        bool, typer.Option(help="Start the inception backbone from I3D's RGB weights.")
    ] = True,
    full: Annotated[int, typer.Option(help="Anchor poses of the full body.")] = 20,
    upper: Annotated[int, typer.Option(help="Anchor poses of the upper body.")] = 8,
    short_side: Annotated[int, typer.Option(help="Pixels of the shorter side it sees.")] = 192,
    pictures: Annotated[
        int, typer.Option(help="Pictures to learn from in all, each varied anew.")
    ] = 60_000,
    pictures_per_epoch: Annotated[int, typer.Option()] = 4000,
    batch_size: Annotated[int, typer.Option()] = 16,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW, at its highest.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.02,
    validation_pictures: Annotated[
        int, typer.Option(help="Validate on at most so many, evenly spread.")
    ] = 400,
    precision: Annotated[
        WorkingType, typer.Option(help="auto: bf16 on a GPU, float32 on a CPU.")
    ] = WorkingType.auto,
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda[:n].")] = "auto",
    workers: Annotated[int, typer.Option(help="Threads that prepare pictures.")] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run that has other settings.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Train a pose detector; RUN then works as --detector of extract-pose.

    A finished run is left alone; an unfinished one goes on where it stopped.
    """
    options = dict(locals())
    from vidkd.pose.training import train_pose as run
    from vidkd.recipe import checked_settings
    from vidkd.recipe.jobs import PoseTrainingJob

    del options["as_json"]
    options["validation"] = validation or ()
    for key in ("backbone", "precision"):
        options[key] = options[key].value
    result = run(checked_settings(PoseTrainingJob, **options))
    if as_json:
        emit_json(result.to_json())
        return
    rows = [
        (key, f"{value:.3f}" if isinstance(value, float) else value)
        for key, value in result.validation.items()
    ]
    rows = [("best epoch", f"{result.best_epoch} of {result.epochs}"), *rows]
    emit_table(str(result.output), ("validation", result.name), rows)
