"""The command line: one thin file per group of commands, which parses, calls and prints."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

import typer

from vidkd.cli import (
    benchmark,
    cache,
    cut,
    data,
    detect,
    diagnose,
    doctor,
    evaluate,
    export,
    extract,
    extract_pose,
    fuse,
    init,
    models,
    plot,
    pose,
    run,
    speed,
    suggest,
    synth,
    train,
    view,
)
from vidkd.cli.options import Command
from vidkd.console import log
from vidkd.errors import VidkdError

app = typer.Typer(
    name="vidkd",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        torch = version("torch")
        typer.echo(f"vidkd {version('vidkd')} (torch {torch}, Python {platform.python_version()})")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            metavar="",
            callback=_show_version,
            help="Show the versions of vidkd, torch and Python, and exit.",
        ),
    ] = False,
) -> None:
    """Find actions in long, untrimmed video from RGB alone."""


_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Start here": (detect.detect, view.view, init.init, run.run, run.demo, doctor.doctor),
    "Extract": (extract.extract_flow, extract.extract_features, extract_pose.extract_pose),
    "Train": (train.train_teacher, train.train_baseline, train.distill, train.train_encoder),
    "Label": (suggest.suggest,),
    "Evaluate": (
        evaluate.evaluate,
        fuse.fuse,
        diagnose.diagnose,
        benchmark.benchmark,
        plot.plot,
        export.export,
    ),
}
_GROUPS = {"pose": pose.app, "models": models.app, "data": data.app, "cache": cache.app}
_TOOLS: dict[str, Callable[..., None]] = {
    "cut": cut.cut,
    "speed": speed.speed,
    "synth": synth.synth,
}
_OTHER_NAMES: dict[str, Callable[..., None]] = {
    "bench": speed.speed,
    "convert-pose": pose.convert,
    "evaluate-poses": pose.evaluate,
    "label-poses": pose.label,
    "train-pose": pose.train,
}
"""Names that commands had before there were groups; they work, and no help shows them."""

for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(cls=Command, rich_help_panel=_panel)(_command)
for _name, _group in _GROUPS.items():
    app.add_typer(_group, name=_name, rich_help_panel="Data, models and poses")
for _name, _command in _TOOLS.items():
    app.command(_name, cls=Command, rich_help_panel="Tools")(_command)
for _name, _command in _OTHER_NAMES.items():
    app.command(_name, cls=Command, hidden=True)(_command)


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
