"""``vidkd synth``: the rendered data set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from vidkd.cli.options import Fields, Json, option, with_settings
from vidkd.console import emit_json, emit_table
from vidkd.errors import UsageError
from vidkd.machine import cores
from vidkd.recipe import SynthSettings
from vidkd.recipe.settings import validated


@with_settings
def synth(
    output: Annotated[Path, option("Folder of the data set.", "DIR")],
    settings: Annotated[SynthSettings, Fields(without=("width", "height"))],
    size: Annotated[
        str, option("Width and height in pixels, at least 64 each.", "WxH")
    ] = "320x240",
    workers: Annotated[
        int | None, option("Videos rendered at once. Default: one per processor.", "VIDEOS", min=1)
    ] = None,
    as_json: Json = False,
) -> None:
    """Render people who act, with exact annotations, subsets and 2D and 3D poses."""
    match = re.fullmatch(r"(\d+)x(\d+)", size)
    if match is None:
        raise UsageError(f"{size!r} is not a size", remedy="give such as --size 320x240")
    pixels = {"width": int(match[1]), "height": int(match[2])}
    settings = validated(
        SynthSettings, {**settings.model_dump(), **pixels}, f"--size {size} is out of range"
    )
    from vidkd.annotations import load_annotations
    from vidkd.synth import render_dataset

    path = render_dataset(output, settings, workers or cores())
    truth = load_annotations(path)
    counts = {
        label: sum(s.label == label for v in truth.videos.values() for s in v.segments)
        for label in truth.classes
    }
    subsets = {
        name: sum(video.subset == name for video in truth.videos.values())
        for name in ("training", "validation", "testing")
    }
    if as_json:
        emit_json({"annotations": str(path), "subsets": subsets, "segments": counts})
        return
    emit_table(str(output), ("class", "segments"), list(counts.items()))
    emit_table("", ("subset", "videos"), list(subsets.items()))
