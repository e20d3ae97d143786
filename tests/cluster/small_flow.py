"""The settings of the flow of the small videos, and what a cache holds of it."""

from __future__ import annotations

from pathlib import Path

from vidkd.recipe import FlowSettings, FrameSettings

FRAMES, FLOW = FrameSettings(short_side=32), FlowSettings(backend="opencv")


def contents(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (cache / "flow").iterdir()}
