"""``vidkd serve``: detection as a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from vidkd.cli.options import BatchSize, Device, EncoderPrecision, Fields, option, with_settings
from vidkd.errors import VidkdError
from vidkd.recipe.serve import ServeSettings


@with_settings
def serve(
    settings: Annotated[ServeSettings, Fields()],
    model: Annotated[
        list[Path] | None,
        option(
            "Run folder or weights of a student, hf:OWNER/NAME, or a file of `vidkd fuse`; repeat "
            "it to average several. Default: I3D with the classes of Kinetics.",
            "RUN_OR_FILE",
        ),
    ] = None,
    device: Device = "auto",
    precision: EncoderPrecision = "auto",
    batch_size: BatchSize = None,
) -> None:
    """Find the actions in videos that are sent by HTTP, until Ctrl-C.

    There is a page at /, and every address is described at /docs. With the environment variable
    VIDKD_SERVE_TOKEN, requests need that token.
    """
    try:
        from vidkd.serve.server import serve as run
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "vidkd":
            raise
        raise VidkdError(
            f"the server needs {error.name}", remedy="pip install 'vidkd[serve]'"
        ) from error

    run(model or [], settings, device=device, precision=precision, batch_size=batch_size)
