"""``vidkd convert-pose``: official weights of the pose detector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vidkd.errors import UsageError


def convert_pose(
    checkpoint: Annotated[Path, typer.Argument(help="Of LCR-Net++ release v2, unpacked.")],
    output: Annotated[Path, typer.Option(metavar="FILE.safetensors")],
    anchors: Annotated[
        Path | None, typer.Option(help="The anchor poses, when CHECKPOINT lacks them.")
    ] = None,
    upper: Annotated[
        int, typer.Option(help="How many anchor poses are of the upper body: 100 for K100x2.")
    ] = 0,
    name: Annotated[
        str | None, typer.Option(help="Name of the detector in caches. Default: that of FILE.")
    ] = None,
) -> None:
    """Convert weights of LCR-Net++ that you obtained; FILE then works as --detector.

    Written after the published layout, and not run on the original files.
    """
    if output.suffix != ".safetensors":
        raise UsageError(
            "is not a name of weights", path=output, remedy="let it end in .safetensors"
        )
    from vidkd.networks.lcrnet_converter import convert_lcrnet
    from vidkd.pose.detector import save_network

    network = convert_lcrnet(checkpoint, anchors, upper)
    about = {"origin": f"converted from {checkpoint.name}"}
    save_network(output, network, name or output.stem, about, half=False)
    typer.echo(output)
