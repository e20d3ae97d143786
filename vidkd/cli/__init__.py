"""The command line: one thin file per group of commands, which parses, calls and prints."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer

from vidkd.cli.commands import Commands
from vidkd.console import log
from vidkd.errors import VidkdError
from vidkd.machine import cores
from vidkd.workers import limit_threads, share_cores

app = typer.Typer(
    name="vidkd",
    cls=Commands,
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


_Misuse: Any = typer.BadParameter.__bases__[0]
"""What Typer raises when a command line makes no sense; it has no public name."""


def main() -> None:
    """Run the command line; user errors become one line on standard error and an exit code."""
    share_cores()
    if (allowed := cores()) < (os.cpu_count() or 1):
        # Numeric libraries count the cores of the machine, not those of a container.
        limit_threads(allowed)
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
