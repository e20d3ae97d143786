"""The command line: one thin file per command group, which parses, calls and prints."""

from __future__ import annotations

import sys

import typer

from vidkd.cli import (
    bench,
    benchmark,
    cache,
    convert_pose,
    data,
    detect,
    doctor,
    evaluate,
    evaluate_poses,
    extract,
    extract_pose,
    label_poses,
    models,
    plot,
    run,
    synth,
    train,
    train_encoder,
    train_pose,
)
from vidkd.console import log
from vidkd.errors import VidkdError

app = typer.Typer(
    name="vidkd",
    help="Find actions in long, untrimmed video from RGB alone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root() -> None:
    """Find actions in long, untrimmed video from RGB alone."""


app.command("extract-flow")(extract.extract_flow)
app.command("extract-pose")(extract_pose.extract_pose)
app.command("extract-features")(extract.extract_features)
app.command("label-poses")(label_poses.label_poses)
app.command("train-teacher")(train.train_teacher)
app.command("train-baseline")(train.train_baseline)
app.command("distill")(train.distill)
app.command("train-encoder")(train_encoder.train_encoder)
app.command("train-pose")(train_pose.train_pose)
app.command("convert-pose")(convert_pose.convert_pose)
app.command("detect")(detect.detect)
app.command("evaluate")(evaluate.evaluate)
app.command("evaluate-poses")(evaluate_poses.evaluate_poses)
app.command("synth")(synth.synth)
app.command("run")(run.run)
app.command("demo")(run.demo)
app.command("plot")(plot.plot)
app.command("doctor")(doctor.doctor)
app.command("bench")(bench.bench)
app.command("benchmark")(benchmark.benchmark)
app.add_typer(cache.app, name="cache")
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")


def main() -> None:
    """Run the command line; user errors become one line on standard error and an exit code."""
    try:
        app()
    except VidkdError as error:
        log(f"error: {error}")
        sys.exit(error.exit_code)
    except SystemExit as end:
        # Typer turns Ctrl-C into this exit code, without a word.
        if end.code == 130:
            log("interrupted; run the same command again to go on")
        raise
    except BrokenPipeError:
        # The reader of our output went away (`vidkd ... | head`), which is not an error of ours.
        sys.stderr.close()
        sys.exit(141)
