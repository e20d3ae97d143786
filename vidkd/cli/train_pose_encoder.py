"""The part of ``vidkd train-encoder`` that is about poses: from its options to the job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from vidkd.errors import UsageError

if TYPE_CHECKING:
    from vidkd.finetuning import FinetuneResult

_SHARED = (
    "annotations",
    "output",
    "cache",
    "name",
    "annotation_format",
    "device",
    "overwrite",
    "epochs",
    "snippets_per_epoch",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "dropout",
    "seed",
)
_ONLY_HERE = ("channels", "blocks", "people", "dimensions", "view")
_OTHERS = ("modality", "train_subset", "validation_subset", "as_json")


def train(context: typer.Context, options: dict[str, Any]) -> FinetuneResult:
    """Train 2s-AGCN with what was given on the command line; the rest has defaults of its own.

    Args:
        context: tells what was given.
        options: all options of ``vidkd train-encoder`` by name.

    Raises:
        UsageError: an option does not apply to poses, or is out of its range.
    """

    from vidkd.finetuning.pose import train_pose_encoder
    from vidkd.recipe import validated
    from vidkd.recipe.jobs import PoseEncoderJob

    given = {name: value for name, value in options.items() if _was_given(context, name)}
    foreign = sorted(set(given) - {*_SHARED, *_ONLY_HERE, *_OTHERS})
    if foreign:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in foreign)
        raise UsageError(f"poses have no {names}", remedy="leave it out, or choose --modality")
    if options["cache"] is None:
        raise UsageError("pose needs --cache", remedy="give the cache that holds the poses")
    fields = {name: given[name] for name in _SHARED if name in given}
    fields["subsets"] = {
        "training": options["train_subset"],
        "validation": options["validation_subset"],
    }
    fields["network"] = {name: _numbers(name, options[name]) for name in ("channels", "blocks")}
    fields["inputs"] = {
        "people": options["people"],
        "dimensions": options["dimensions"].value,
        "view": options["view"],
    }
    job = validated(PoseEncoderJob, fields, "these settings cannot work")
    return train_pose_encoder(job)


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name not in {"DEFAULT", "DEFAULT_MAP"}


def _numbers(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"--{name} {text} is not three numbers", remedy="separate them by commas"
        ) from error
