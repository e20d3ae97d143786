"""``vidkd train-teacher``, ``vidkd train-baseline`` and ``vidkd distill``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vidkd.console import emit_json, emit_table
from vidkd.errors import UsageError


class TeacherModality(StrEnum):
    """What a teacher can see."""

    flow = "flow"
    pose = "pose"
    rgb = "rgb"


Cache = Annotated[Path, typer.Option(metavar="DIR", help="The cache folder with the features.")]
AnnotationFile = Annotated[Path, typer.Option("--annotations", metavar="FILE")]
Format = Annotated[str, typer.Option("--format", help="Format of the annotation file.")]
Output = Annotated[Path, typer.Option("--output", metavar="RUN", help="The run folder.")]
Encoder = Annotated[
    str | None,
    typer.Option(help="Encoder of the features. Default: the only one of its modality."),
]
TrainSubset = Annotated[str, typer.Option(help="Subset to train on.")]
ValidationSubset = Annotated[str, typer.Option(help="Subset that chooses the best epoch.")]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the training videos.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Videos per step.")]
LearningRate = Annotated[float, typer.Option(help="Of Adam, at the start.")]
WeightDecay = Annotated[float, typer.Option(help="Of Adam.")]
MaxSnippets = Annotated[
    int | None, typer.Option(help="Cut longer videos at random to so many. Default: never.")
]
FilterKind = Annotated[
    str,
    typer.Option(
        "--filter",
        metavar="KIND",
        help="Temporal filter: ss-tcn, causal-ss-tcn, tgm, lstm, or one of an installed package.",
    ),
]
Channels = Annotated[int, typer.Option(help="Width C of the feature map.")]
Layers = Annotated[int | None, typer.Option(help="Depth. Default: the filter's own.")]
Dropout = Annotated[float, typer.Option(help="Of the filter.")]
Seed = Annotated[int, typer.Option(help="Decides everything random.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda[:n].")]
Memory = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="GiB of features to keep in memory; the rest goes to a scratch file. "
        "Default: a quarter of what is free.",
    ),
]
SkipMissing = Annotated[
    bool, typer.Option("--skip-missing", help="Leave out videos that have no features.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a run that has other settings.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def train_teacher(
    cache: Cache,
    annotations: AnnotationFile,
    output: Output,
    modality: Annotated[
        TeacherModality, typer.Option(help="What the teacher sees.")
    ] = TeacherModality.flow,
    encoder: Encoder = None,
    train_subset: TrainSubset = "training",
    validation_subset: ValidationSubset = "validation",
    epochs: Epochs = 300,
    batch_size: BatchSize = 16,
    learning_rate: LearningRate = 1e-3,
    weight_decay: WeightDecay = 0.0,
    max_snippets: MaxSnippets = None,
    filter_kind: FilterKind = "ss-tcn",
    channels: Channels = 256,
    layers: Layers = None,
    dropout: Dropout = 0.5,
    seed: Seed = 0,
    annotation_format: Format = "auto",
    device: Device = "auto",
    memory: Memory = None,
    skip_missing: SkipMissing = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a teacher on cached features, by default of optical flow.

    A finished run is left alone; an unfinished one goes on where it stopped.
    """
    _train(_common(locals()), modality.value, as_json)


def train_baseline(
    cache: Cache,
    annotations: AnnotationFile,
    output: Output,
    encoder: Encoder = None,
    train_subset: TrainSubset = "training",
    validation_subset: ValidationSubset = "validation",
    epochs: Epochs = 300,
    batch_size: BatchSize = 16,
    learning_rate: LearningRate = 1e-3,
    weight_decay: WeightDecay = 0.0,
    max_snippets: MaxSnippets = None,
    filter_kind: FilterKind = "ss-tcn",
    channels: Channels = 256,
    layers: Layers = None,
    dropout: Dropout = 0.5,
    seed: Seed = 0,
    annotation_format: Format = "auto",
    device: Device = "auto",
    memory: Memory = None,
    skip_missing: SkipMissing = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train the vanilla baseline: the student's stream (RGB) without a teacher.

    A finished run is left alone; an unfinished one goes on where it stopped.
    """
    _train(_common(locals()), "rgb", as_json)


def distill(
    teacher: Annotated[
        list[Path],
        typer.Option(metavar="RUN", help="Run folder of a teacher; several may be given."),
    ],
    cache: Cache,
    annotations: AnnotationFile,
    output: Output,
    alpha_atomic: Annotated[float, typer.Option(help="Weight of the atomic loss.")] = 0.02,
    alpha_global: Annotated[float, typer.Option(help="Of the global contextual relation.")] = 0.3,
    alpha_boundary: Annotated[float, typer.Option(help="Of the boundary saliency.")] = 0.3,
    hallucination: Annotated[float, typer.Option(help="Weight of this baseline.")] = 0.0,
    mars: Annotated[float, typer.Option(help="Weight of this baseline.")] = 0.0,
    graph: Annotated[float, typer.Option(help="Of graph distillation, on features.")] = 0.0,
    graph_logits: Annotated[float, typer.Option(help="Of graph distillation, on logits.")] = 0.0,
    logits: Annotated[float, typer.Option(help="Weight of logit distillation.")] = 0.0,
    loss: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=WEIGHT", help="A loss of an installed package; several may be given."
        ),
    ] = None,
    raw_critic: Annotated[
        bool, typer.Option("--raw-critic", help="Raw dot products in the atomic critic.")
    ] = False,
    temperature: Annotated[float, typer.Option(help="Of the atomic critic.")] = 0.07,
    negatives: Annotated[int, typer.Option(help="Negative videos per positive.")] = 1,
    printed_boundary: Annotated[
        bool, typer.Option("--printed-boundary", help="The boundary loss as printed.")
    ] = False,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="Also use cached videos without annotation.")
    ] = False,
    encoder: Encoder = None,
    train_subset: TrainSubset = "training",
    validation_subset: ValidationSubset = "validation",
    epochs: Epochs = 300,
    batch_size: BatchSize = 16,
    learning_rate: LearningRate = 1e-3,
    weight_decay: WeightDecay = 0.0,
    max_snippets: MaxSnippets = None,
    filter_kind: FilterKind = "ss-tcn",
    channels: Channels = 256,
    layers: Layers = None,
    dropout: Dropout = 0.5,
    seed: Seed = 0,
    annotation_format: Format = "auto",
    device: Device = "auto",
    memory: Memory = None,
    skip_missing: SkipMissing = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train the RGB student with one or more frozen teachers.

    A finished run is left alone; an unfinished one goes on where it stopped.
    """
    job = _common(locals())
    job["teachers"] = tuple(teacher)
    job["unlabelled"] = unlabelled
    job["distillation"] = {
        "atomic": alpha_atomic,
        "global_context": alpha_global,
        "boundary": alpha_boundary,
        "hallucination": hallucination,
        "mars": mars,
        "graph": graph,
        "graph_logits": graph_logits,
        "logits": logits,
        "normalise": not raw_critic,
        "temperature": temperature,
        "negatives": negatives,
        "per_step": not printed_boundary,
        "losses": dict(_weight(text) for text in loss or ()),
    }
    _train(job, "rgb", as_json)


def _weight(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    try:
        return name, float(weight)
    except ValueError as error:
        raise UsageError(
            f"--loss {text} is not NAME=WEIGHT", remedy="such as my-loss=0.1"
        ) from error


def _common(options: dict[str, Any]) -> dict[str, Any]:
    """Sort the options that all three commands share into the fields of a ``TrainingJob``."""
    names = (
        "cache",
        "annotations",
        "output",
        "annotation_format",
        "encoder",
        "skip_missing",
        "device",
        "memory",
        "overwrite",
    )
    optimiser = (
        "epochs",
        "batch_size",
        "learning_rate",
        "weight_decay",
        "max_snippets",
        "seed",
    )
    return {
        **{name: options[name] for name in names},
        "subsets": {
            "training": options["train_subset"],
            "validation": options["validation_subset"],
        },
        "optimiser": {name: options[name] for name in optimiser},
        "filter": {
            "kind": options["filter_kind"],
            **{name: options[name] for name in ("channels", "layers", "dropout")},
        },
    }


def _train(fields: dict[str, Any], modality: str, as_json: bool) -> None:

    from vidkd.distillation import train
    from vidkd.recipe import validated
    from vidkd.recipe.jobs import TrainingJob

    job = validated(TrainingJob, {**fields, "modality": modality}, "these settings cannot work")
    result = train(job)
    if as_json:
        emit_json(result.to_json())
        return
    emit_table(
        "",
        ("run", "best epoch", "epochs", "validation frame mAP", "videos", "seconds"),
        [
            (
                result.output,
                result.best_epoch,
                result.epochs,
                f"{100 * result.validation_map:.1f}",
                result.training_videos,
                f"{result.seconds:.1f}",
            )
        ],
    )
