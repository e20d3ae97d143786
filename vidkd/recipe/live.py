"""How live video is read."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from vidkd.recipe.settings import Option, Settings


class LiveSettings(Settings):
    """How `vidkd watch` reads its sources."""

    model_config = ConfigDict(title="Sources")

    realtime: Annotated[bool, Option("--realtime", common=True)] = False
    """Read files at the pace of their time stamps, as a camera would give them."""
    follow: Annotated[bool, Option("--follow", common=True)] = False
    """Go on with files that are still written to, until they are removed."""
    speed: Annotated[float, Field(gt=0, le=1000), Option(unit="FACTOR", common=True)] = 1.0
    """How many seconds of video come in a second; other than 1 to try recordings quickly."""
    gap: Annotated[float, Field(ge=0.5, le=3600), Option(unit="SECONDS", common=True)] = 5.0
    """After a longer pause in a source its events end and its filter begins anew. A connection that
    is silent for so long is given up and opened again."""
    lag: Annotated[float, Field(ge=0.1, le=60), Option(unit="SECONDS", common=True)] = 2.0
    """When decoding falls further behind a camera than this, frames are skipped up to the first key
    frame that is not late."""
    waiting: Annotated[int, Field(ge=1, le=64), Option(unit="SNIPPETS", common=True)] = 2
    """Snippets of a camera that wait for the encoder at most; if one more comes, the oldest is
    skipped."""
    retries: Annotated[int | None, Field(ge=0), Option(unit="N", common=True)] = None
    """Give a source up after so many attempts in a row to open it again. Default: never."""
    retry_seconds: Annotated[float, Field(ge=0.1, le=3600), Option(unit="SECONDS", common=True)] = (
        30.0
    )
    """The pause between two attempts begins at half a second and doubles up to this."""
