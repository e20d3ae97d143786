"""How live video is read, and where its events go."""

from __future__ import annotations

from pathlib import Path
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
    waiting: Annotated[int, Field(ge=1, le=64), Option(unit="SNIPPETS", common=True)] = 4
    """Snippets of a camera that wait for the encoder at most; if one more comes, the oldest is
    skipped."""
    retries: Annotated[int | None, Field(ge=0), Option(unit="N", common=True)] = None
    """Give a source up after so many attempts in a row to open it again. Default: never."""
    retry_seconds: Annotated[float, Field(ge=0.1, le=3600), Option(unit="SECONDS", common=True)] = (
        30.0
    )
    """The pause between two attempts begins at half a second and doubles up to this."""


class OutputSettings(Settings):
    """Where `vidkd watch` sends what it sees, beside standard output."""

    model_config = ConfigDict(title="Outputs")

    http: Annotated[str | None, Option("--http", unit="[ADDRESS:]PORT", common=True)] = None
    """Serve a page with the live pictures, /events, /metrics for Prometheus and /healthz; on this
    machine only, unless an address such as 0.0.0.0 is given: whoever reaches that sees all."""
    window: Annotated[bool, Option("--window", common=True)] = False
    """Show the live pictures in a window."""
    webhook: Annotated[str | None, Option("--webhook", unit="URL", common=True)] = None
    """POST each event as JSON. VIDKD_WEBHOOK_TOKEN in the environment is sent as bearer token;
    VIDKD_WEBHOOK_SECRET signs the request."""
    mqtt: Annotated[str | None, Option("--mqtt", unit="mqtt://HOST/TOPIC", common=True)] = None
    """Publish each event as JSON, with the password in VIDKD_MQTT_PASSWORD; mqtts:// for TLS."""
    clips: Annotated[Path | None, Option("--clips", unit="DIR", common=True)] = None
    """Keep a clip of each event."""
    clips_margin: Annotated[
        float, Field(ge=0, le=60), Option("--clips-margin", unit="SECONDS", common=True)
    ] = 5.0
    """Seconds before and after the event in a clip."""
    clips_limit: Annotated[float, Field(gt=0), Option("--clips-limit", unit="GB", common=True)] = (
        10.0
    )
    """The oldest clips are deleted when they take more."""
