"""Settings of the server (``vidkd serve``)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field

from vidkd.recipe.settings import Option, Settings


class ServeSettings(Settings):
    """Where the server listens, what it keeps, and what it refuses."""

    model_config = ConfigDict(title="Server")

    host: Annotated[str, Option(unit="ADDRESS", common=True)] = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every one of this machine."""
    port: Annotated[int, Field(ge=0, le=65535), Option(common=True)] = 8000
    """Port to listen on; 0 takes any that is free."""
    data: Annotated[Path | None, Option(unit="DIR", common=True)] = None
    """Folder of the jobs, with which a restart goes on. Default: one in the user's cache."""
    workers: Annotated[int | None, Field(ge=1, le=64), Option(common=True)] = None
    """Processes, which share the cores. Default: one for each GPU, or one on a CPU."""
    queue: Annotated[int, Field(ge=1, le=10_000), Option(unit="JOBS", common=True)] = 16
    """Videos that may wait, or be on their way here; more are answered with 503."""
    max_upload: Annotated[int, Field(ge=1), Option(unit="MB", common=True)] = 2048
    """Largest video."""
    max_duration: Annotated[float, Field(gt=0), Option(unit="MINUTES", common=True)] = 120.0
    """Longest video."""
    max_work: Annotated[float, Field(gt=0), Option(unit="MINUTES")] = 60.0
    """Longest time for one video; its process is then stopped."""
    max_disk: Annotated[float, Field(gt=0), Option(unit="GB", common=True)] = 20.0
    """What all jobs may take on disk; the oldest finished ones go first."""
    keep: Annotated[float, Field(gt=0), Option(unit="HOURS", common=True)] = 24.0
    """How long finished jobs are kept, with their videos."""
    pages: bool = True
    """Make the page of each video, which takes a copy where browsers do not play it."""
    urls: Annotated[bool, Option("--allow-urls/--no-urls", common=True)] = False
    """Take addresses of videos (http, https) too; those of private networks are refused."""
    private_urls: Annotated[bool, Option("--allow-private-urls/--no-private-urls")] = False
    """Take addresses of private networks and of this machine too."""
    connections: Annotated[int, Field(ge=4, le=60_000)] = 256
    """Connections at a time; more are answered with 503."""

    @property
    def largest(self) -> int:
        """Bytes of the largest video."""
        return self.max_upload * 1_000_000
