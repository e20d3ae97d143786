"""``vidkd train-encoder``: fine-tune I3D, or train 2s-AGCN, on labelled snippets."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidkd.console import emit_json, emit_table

if TYPE_CHECKING:
    from vidkd.finetuning import FinetuneResult


class Stream(StrEnum):
    """What snippets are made of."""

    rgb = "rgb"
    flow = "flow"
    pose = "pose"


class Precision(StrEnum):
    """Types that convolutions are computed in."""

    auto = "auto"
    float32 = "float32"
    bf16 = "bf16"
    fp16 = "fp16"


class Dimensions(StrEnum):
    """What is taken of a pose."""

    two = "2d"
    three = "3d"


class BatchNorm(StrEnum):
    """What happens to the statistics of the batch normalisation."""

    train = "train"
    frozen = "frozen"
    recalibrate = "recalibrate"


def train_encoder(
    context: typer.Context,
    modality: Annotated[
        Stream, typer.Option(help="flow needs extract-flow first, and pose extract-pose.")
    ],
    annotations: Annotated[Path, typer.Option(metavar="FILE")],
    output: Annotated[Path, typer.Option(metavar="RUN", help="The run folder.")],
    videos: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For rgb: folder or .txt list of videos.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For flow and pose: the cache that holds it.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Where to start: a model of `vidkd models list`, or a run of this command. "
            "Default: i3d-rgb-kinetics400 or i3d-flow-inflated."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the trained encoder in caches. Default: that of RUN."),
    ] = None,
    annotation_format: Annotated[
        str, typer.Option("--format", help="Format of the annotation file.")
    ] = "auto",
    train_subset: Annotated[str, typer.Option(help="Subset to train on.")] = "training",
    validation_subset: Annotated[
        str, typer.Option(help="Subset that chooses the best epoch.")
    ] = "validation",
    short_side: Annotated[
        int, typer.Option(help="For rgb: pixels of the shorter side after the resize.")
    ] = 256,
    frame_rate: Annotated[
        float | None, typer.Option(help="For rgb: frames per second. Default: the video's own.")
    ] = None,
    crop: Annotated[int, typer.Option(help="Side of the square the encoder sees.")] = 224,
    epochs: Annotated[int, typer.Option(min=1)] = 20,
    snippets_per_epoch: Annotated[int, typer.Option(min=1)] = 2048,
    validation_snippets: Annotated[
        int, typer.Option(min=1, help="Validate on at most so many, evenly spread.")
    ] = 4096,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Snippets per step, over all processes and parts.")
    ] = 16,
    accumulate: Annotated[
        int, typer.Option(min=1, help="Parts in which a process computes its share of a batch.")
    ] = 1,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW at the start.")] = 1e-4,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 1e-4,
    dropout: Annotated[float, typer.Option(help="Before the classifier.")] = 0.5,
    precision: Annotated[
        Precision, typer.Option(help="auto: bf16 (or fp16) on a GPU, float32 on a CPU.")
    ] = Precision.auto,
    freeze_until: Annotated[
        str | None,
        typer.Option(metavar="LAYER", help="Layers up to this one stay as they are: Mixed_4f."),
    ] = None,
    batch_norm: Annotated[
        BatchNorm,
        typer.Option(help="Statistics: updated, frozen, or measured anew first and then frozen."),
    ] = BatchNorm.frozen,
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda[:n].")] = "auto",
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that read snippets, per training process.")
    ] = 2,
    channels: Annotated[
        str, typer.Option(help="For pose: widths of 2s-AGCN's three stages.")
    ] = "64,128,256",
    blocks: Annotated[
        str, typer.Option(help="For pose: numbers of blocks in the three stages.")
    ] = "4,3,3",
    people: Annotated[int, typer.Option(help="For pose: the main person and others.")] = 2,
    dimensions: Annotated[
        Dimensions, typer.Option(help="For pose: what the network sees.")
    ] = Dimensions.three,
    view: Annotated[
        bool, typer.Option(help="For pose: turn everybody until they face the camera.")
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run that has other settings.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Fine-tune an encoder on labelled snippets; RUN then works as --encoder everywhere.

    The encoder of poses, 2s-AGCN, is trained from nothing; its defaults differ: 30 epochs,
    batches of 32, a learning rate of 2e-3, a weight decay of 1e-2.

    A finished run is left alone; an unfinished one goes on where it stopped. Several GPUs:
    `torchrun --nproc-per-node N -m vidkd train-encoder ...`.
    """
    options = dict(locals())
    del options["context"]
    if modality is Stream.pose:
        from vidkd.cli.train_pose_encoder import train

        _print(train(context, options), as_json)
        return
    for name in ("channels", "blocks", "people", "dimensions", "view"):
        del options[name]

    from vidkd.finetuning import train_encoder as run
    from vidkd.recipe import validated
    from vidkd.recipe.jobs import FinetuneJob

    del options["as_json"]
    options["subsets"] = {
        "training": options.pop("train_subset"),
        "validation": options.pop("validation_subset"),
    }
    for key in ("modality", "precision", "batch_norm"):
        options[key] = options[key].value
    default = "i3d-rgb-kinetics400" if modality is Stream.rgb else "i3d-flow-inflated"
    options["encoder"] = encoder or default
    job = validated(FinetuneJob, options, "these settings cannot work")
    result = run(job)
    if os.environ.get("RANK", "0") != "0":
        return
    _print(result, as_json)


def _print(result: FinetuneResult, as_json: bool) -> None:
    if as_json:
        emit_json(result.to_json())
        return
    emit_table(
        "",
        ("run", "encoder", "best epoch", "epochs", "validation snippet mAP", "seconds"),
        [
            (
                result.output,
                result.encoder,
                result.best_epoch,
                result.epochs,
                f"{100 * result.validation_map:.1f}",
                f"{result.seconds:.1f}",
            )
        ],
    )
