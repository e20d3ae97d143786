"""The commands by name. Each is imported when it is run, not when the list of them is shown."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup


class Entry(NamedTuple):
    """A command, or a group of commands, that is not imported yet."""

    module: str
    """Of `vidkd.cli`."""
    name: str
    """Of the function, or of the Typer application, in the module."""
    summary: str
    """The first sentence of its help."""


PANELS: dict[str, dict[str, Entry]] = {
    "Start here": {
        "detect": Entry(
            "detect", "detect", "Find the actions in videos from their RGB frames alone."
        ),
        "watch": Entry(
            "watch",
            "watch",
            "Watch live video, and tell events when they begin, are certain and end.",
        ),
        "view": Entry(
            "view", "view", "Show results beside their video in a browser, and correct them."
        ),
        "init": Entry(
            "init",
            "init",
            "Look at videos and labels, divide them into subsets, and write a recipe for"
            " `vidkd run`.",
        ),
        "run": Entry(
            "run", "run", "Run every stage of a recipe, from video to the table of results."
        ),
        "demo": Entry(
            "run",
            "demo",
            "Render a small data set and run the whole chain on it, in some minutes on two cores.",
        ),
        "doctor": Entry(
            "doctor",
            "doctor",
            "Check that everything works on this machine, and say how to fix what does not.",
        ),
    },
    "Extract": {
        "extract-flow": Entry(
            "extract",
            "extract_flow",
            "Compute TV-L1 optical flow into the cache, one row of 8-bit flow for each frame.",
        ),
        "extract-features": Entry(
            "extract",
            "extract_features",
            "Encode the snippets of videos into the cache: features (T, D) and their times.",
        ),
        "extract-pose": Entry(
            "extract_pose",
            "extract_pose",
            "Find people and their 13 joints in 2D and 3D, one row of the cache for each frame.",
        ),
    },
    "Train": {
        "train-teacher": Entry(
            "train",
            "train_teacher",
            "Train a teacher on cached features, by default of optical flow.",
        ),
        "train-baseline": Entry(
            "train",
            "train_baseline",
            "Train the vanilla baseline: the student's stream (RGB) without a teacher.",
        ),
        "distill": Entry(
            "train", "distill", "Train the RGB student with one or more frozen teachers."
        ),
        "train-encoder": Entry(
            "train",
            "train_encoder",
            "Fine-tune an encoder on labelled snippets; RUN then works as --encoder everywhere.",
        ),
    },
    "Label": {
        "suggest": Entry(
            "suggest",
            "suggest",
            "Suggest which videos to label next, and write what the model finds in them to"
            " correct.",
        ),
    },
    "Evaluate": {
        "evaluate": Entry(
            "evaluate",
            "evaluate",
            "Compute the frame mAP or event mAP of predictions or runs.",
        ),
        "fuse": Entry(
            "fuse",
            "fuse",
            "Choose how much each of several models counts, and write all of them into one file.",
        ),
        "diagnose": Entry(
            "diagnose",
            "diagnose",
            "Say what kinds of errors a result has, which events it misses, and where.",
        ),
        "benchmark": Entry(
            "benchmark", "benchmark", "Make the tables and figures of the paper (Dai et al. 2021)."
        ),
        "plot": Entry(
            "plot",
            "plot",
            "Draw training curves of runs, or a timeline of predictions beside annotations.",
        ),
        "export": Entry(
            "export",
            "export",
            "Write detections for annotation tools, editors and submissions, or a student as"
            " graphs.",
        ),
    },
    "Share": {
        "serve": Entry(
            "serve",
            "serve",
            "Find the actions in videos that are sent by HTTP, until Ctrl-C.",
        ),
        "push": Entry(
            "hub",
            "push",
            "Upload a model to the Hugging Face hub, with a page that says what it is.",
        ),
        "pull": Entry(
            "hub",
            "pull",
            "Download a student, encoder or pose detector from the Hugging Face hub, and print"
            " its path.",
        ),
    },
    "Tools": {
        "cut": Entry(
            "cut",
            "cut",
            "Cut a video file for each detection, with its sound, and a reel of all of them.",
        ),
        "speed": Entry(
            "speed",
            "speed",
            "Time every stage of an extraction alone, and all of them together, on one video.",
        ),
        "synth": Entry(
            "synth",
            "synth",
            "Render people who act, with exact annotations, subsets and 2D and 3D poses.",
        ),
    },
    "Data, models and poses": {
        "pose": Entry("pose", "app", "Train, convert and evaluate pose detectors."),
        "models": Entry("models", "app", "List, fetch, verify and quantise networks."),
        "data": Entry(
            "data",
            "app",
            "Check that annotations, videos and caches fit; import features; export submissions.",
        ),
        "cache": Entry("cache", "app", "List, check and pack the files of a cache."),
    },
}
"""Panels of the help, and the commands in each."""

OTHER_NAMES = {
    "bench": Entry("speed", "speed", ""),
    "convert-pose": Entry("pose", "convert", ""),
    "evaluate-poses": Entry("pose", "evaluate", ""),
    "label-poses": Entry("pose", "label", ""),
    "train-pose": Entry("pose", "train", ""),
}
"""Names that commands had before there were groups; they work, and no help shows them."""


def load_command(name: str) -> Any:
    """Import a command, or a group of commands, and return it as what Typer runs.

    Raises:
        KeyError: there is none of this name.
    """
    entries = {name: entry for panel in PANELS.values() for name, entry in panel.items()}
    entry = {**entries, **OTHER_NAMES}[name]
    found = getattr(import_module(f"vidkd.cli.{entry.module}"), entry.name)
    if isinstance(found, typer.Typer):
        group = typer.main.get_group(found)
        group.name = name
        return group
    from vidkd.cli.options import Command

    alone = typer.Typer(add_completion=False)
    alone.command(name, cls=Command)(found)
    return typer.main.get_command(alone)


class Commands(TyperGroup):
    """The list of commands: what the help shows of each is known without an import."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for panel, entries in PANELS.items():
            for name, entry in entries.items():
                self.add_command(TyperCommand(name, help=entry.summary, rich_help_panel=panel))
        for name in OTHER_NAMES:
            self.add_command(TyperCommand(name, hidden=True))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the name of the command that was typed, the command, and what follows it."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed and load_command(listed.name or ""), rest
