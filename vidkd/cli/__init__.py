"""The command line: one thin file per command group, which parses, calls and prints."""

from __future__ import annotations

import sys
from typing import Any

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
    train_pose,
)
from vidkd.cli.options import Command
from vidkd.console import log
from vidkd.errors import VidkdError

app = typer.Typer(
    name="vidkd",
    help="Find actions in long, untrimmed video from RGB alone.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root() -> None:
    """Find actions in long, untrimmed video from RGB alone."""


app.command("extract-flow", cls=Command)(extract.extract_flow)
app.command("extract-pose", cls=Command)(extract_pose.extract_pose)
app.command("extract-features", cls=Command)(extract.extract_features)
app.command("label-poses", cls=Command)(label_poses.label_poses)
app.command("train-teacher", cls=Command)(train.train_teacher)
app.command("train-baseline", cls=Command)(train.train_baseline)
app.command("distill", cls=Command)(train.distill)
app.command("train-encoder", cls=Command)(train.train_encoder)
app.command("train-pose", cls=Command)(train_pose.train_pose)
app.command("convert-pose", cls=Command)(convert_pose.convert_pose)
app.command("detect", cls=Command)(detect.detect)
app.command("evaluate", cls=Command)(evaluate.evaluate)
app.command("evaluate-poses", cls=Command)(evaluate_poses.evaluate_poses)
app.command("synth", cls=Command)(synth.synth)
app.command("run", cls=Command)(run.run)
app.command("demo", cls=Command)(run.demo)
app.command("plot", cls=Command)(plot.plot)
app.command("doctor", cls=Command)(doctor.doctor)
app.command("bench", cls=Command)(bench.bench)
app.command("benchmark", cls=Command)(benchmark.benchmark)
app.add_typer(cache.app, name="cache")
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")


_Misuse: Any = typer.BadParameter.__bases__[0]
"""What Typer raises when a command line makes no sense; it has no public name."""


def main() -> None:
    """Run the command line; user errors become one line on standard error and an exit code."""
    try:
        code = app(prog_name="vidkd", standalone_mode=False)
    except VidkdError as error:
        log(f"error: {error}")
        code = error.exit_code
    except _Misuse as error:
        # Without arguments the message is empty: the help was printed.
        if problem := error.format_message().rstrip("."):
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "vidkd"
            log(f"error: {problem[0].lower()}{problem[1:]}; see `{command} --help`")
        code = 2
    except BrokenPipeError:
        # The reader of our output went away (`vidkd ... | head`), which is not an error of ours.
        sys.stderr.close()
        code = 141
    if code == 130:  # which Typer makes of Ctrl-C, without a word
        log("interrupted; run the same command again to go on")
    sys.exit(code)
