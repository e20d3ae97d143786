"""From scores to segments, and from segments to what is reported."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from vidkd.recipe.settings import Option, Settings


class SegmentSettings(Settings):
    """From scores to segments: proposals at several thresholds, then temporal NMS per class."""

    model_config = ConfigDict(title="Segments")

    method: Literal["watershed", "hysteresis"] = "watershed"
    """How a threshold makes proposals; see docs/detect.md."""
    thresholds: Annotated[tuple[float, ...], Option(unit="SCORE,...")] = (
        *(0.1, 0.2, 0.3, 0.4, 0.5),
        *(0.6, 0.7, 0.8, 0.9),
    )
    """Scores above which snippets belong to a proposal; each threshold makes its own."""
    tolerances: Annotated[tuple[float, ...], Option(unit="SHARE,...")] = (0.0, 0.2, 0.4)
    """For watershed: shares of a segment that may lie below the threshold."""
    release: Annotated[float, Field(ge=0, le=1)] = 0.6
    """For hysteresis: a segment ends at this share of the threshold it has reached."""
    nms: Literal["hard", "linear", "gaussian"] = "hard"
    """Non-maximum suppression: a segment that overlaps a better one is dropped (hard), or its score
    is lowered (linear, gaussian)."""
    nms_tiou: Annotated[float, Field(gt=0, le=1)] = 0.4
    """For hard and linear: the least tIoU of segments that overlap in this sense."""
    nms_sigma: Annotated[float, Field(gt=0)] = 0.5
    """For gaussian: the score is multiplied by exp(-tIoU^2 / sigma)."""
    minimum_seconds: Annotated[float, Field(ge=0), Option(unit="SECONDS")] = 0.0
    """Shorter segments are dropped."""
    maximum_per_video: Annotated[int, Field(ge=1), Option(unit="SEGMENTS")] = 500
    """Most segments of a video; those of the highest scores are kept."""


class EvaluationSettings(Settings):
    """What is reported, and on which subset; the protocols are those of ``vidkd evaluate``."""

    subset: str = "testing"
    frame_protocol: str = "frame"
    event_protocol: str = "anet"
    tiou: tuple[float, ...] = (0.1, 0.3, 0.5)
