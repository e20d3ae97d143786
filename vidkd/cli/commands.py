"""The commands by name. Each is imported when it is run, not when the list of them is shown."""

from __future__ import annotations

import ast
from importlib import import_module
from importlib.resources import files
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

PANELS: dict[str, dict[str, str]] = {
    "Start here": {
        "detect": "detect.detect",
        "watch": "watch.watch",
        "view": "view.view",
        "init": "init.init",
        "run": "run.run",
        "demo": "run.demo",
        "doctor": "doctor.doctor",
    },
    "Extract": {
        "extract-flow": "extract.extract_flow",
        "extract-features": "extract.extract_features",
        "extract-pose": "extract_pose.extract_pose",
    },
    "Train": {
        "train-teacher": "train.train_teacher",
        "train-baseline": "train.train_baseline",
        "distill": "train.distill",
        "train-encoder": "train.train_encoder",
    },
    "Label": {
        "suggest": "suggest.suggest",
    },
    "Evaluate": {
        "evaluate": "evaluate.evaluate",
        "fuse": "fuse.fuse",
        "diagnose": "diagnose.diagnose",
        "benchmark": "benchmark.benchmark",
        "plot": "plot.plot",
        "export": "export.export",
    },
    "Share": {
        "serve": "serve.serve",
        "push": "hub.push",
        "pull": "hub.pull",
    },
    "Tools": {
        "cut": "cut.cut",
        "speed": "speed.speed",
        "synth": "synth.synth",
    },
    "Data, models and poses": {
        "pose": "pose.app",
        "models": "models.app",
        "data": "data.app",
        "cache": "cache.app",
    },
}
"""Panels of the help, and the commands in each: a module of `vidkd.cli`, and what it calls the
command or the group of commands."""

OTHER_NAMES = {
    "bench": "speed.speed",
    "convert-pose": "pose.convert",
    "evaluate-poses": "pose.evaluate",
    "label-poses": "pose.label",
    "train-pose": "pose.train",
}
"""Names that commands had before there were groups; they work, and no help shows them."""

_PLACES = OTHER_NAMES | {name: place for panel in PANELS.values() for name, place in panel.items()}


def summary(name: str) -> str:
    """Return the first paragraph of a command's help, which is read and not imported."""
    module, _, function = _PLACES[name].partition(".")
    tree = ast.parse((files("vidkd.cli") / f"{module}.py").read_text(encoding="utf-8"))
    known = {item.name: item for item in tree.body if isinstance(item, ast.FunctionDef)}
    # The help of a group is that of its module.
    text = ast.get_docstring(known.get(function, tree)) or ""
    return " ".join(text.partition("\n\n")[0].split())


def load_command(name: str) -> Any:
    """Import a command, or a group of commands, and return it as what Typer runs.

    Raises:
        KeyError: there is none of this name.
    """
    module, _, function = _PLACES[name].partition(".")
    found = getattr(import_module(f"vidkd.cli.{module}"), function)
    if isinstance(found, typer.Typer):
        group = typer.main.get_group(found)
        group.name = name
        return group
    from vidkd.cli.options import Command

    alone = typer.Typer(add_completion=False)
    alone.command(name, cls=Command)(found)
    return typer.main.get_command(alone)


class Commands(TyperGroup):
    """The list of commands."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for panel, entries in PANELS.items():
            for name in entries:
                self.add_command(TyperCommand(name, rich_help_panel=panel))
        for name in OTHER_NAMES:
            self.add_command(TyperCommand(name, hidden=True))

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, for a help that shows the summaries too."""
        for panel in PANELS.values():
            for name in panel:
                self.commands[name].help = summary(name)
        return super().list_commands(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the name of the command that was typed, the command, and what follows it."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed and load_command(listed.name or ""), rest
