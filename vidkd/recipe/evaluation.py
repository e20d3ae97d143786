"""From scores to segments, and from segments to what is reported."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vidkd.recipe.settings import Settings


class SegmentSettings(Settings):
    """From scores to segments: proposals at several thresholds, then temporal NMS per class."""

    method: Literal["watershed", "hysteresis"] = "watershed"
    """How a threshold makes proposals; see ``vidkd.detection.segments``."""
    thresholds: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    tolerances: tuple[float, ...] = (0.0, 0.2, 0.4)
    """Of the watershed: shares of a segment that may lie below the threshold."""
    release: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Of the hysteresis: a segment ends at this share of the threshold it has reached."""
    nms: Literal["hard", "linear", "gaussian"] = "hard"
    """``hard`` drops what overlaps a better segment, the others lower its score."""
    nms_tiou: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Overlap up to which ``hard`` and ``linear`` leave a segment alone."""
    nms_sigma: Annotated[float, Field(gt=0)] = 0.5
    """Of ``gaussian``: the score is multiplied by exp(-tIoU^2 / sigma)."""
    minimum_seconds: Annotated[float, Field(ge=0)] = 0.0
    maximum_per_video: Annotated[int, Field(ge=1)] = 500


class EvaluationSettings(Settings):
    """What is reported, and on which subset; the protocols are those of ``vidkd evaluate``."""

    subset: str = "testing"
    frame_protocol: str = "frame"
    event_protocol: str = "anet"
    tiou: tuple[float, ...] = (0.1, 0.3, 0.5)
