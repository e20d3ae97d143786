"""The two pictures of a detection: the timeline and the annotated video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vidkd.annotations import Segment
from vidkd.detection.detector import DetectionResult
from vidkd.report.overlay import render_overlay
from vidkd.report.timeline import Timeline, draw_timeline
from vidkd.video import open_video, read_frames

FILM_STRIP = 9
_STRIP_SIDE = 180


def film_strip(path: str | Path, duration: float) -> list[np.ndarray]:
    """Return the pictures (H, W, 3) at the middles of nine equal parts of a video.

    Raises:
        VideoError: the video cannot be decoded.
    """
    pictures = []
    with open_video(path) as video:
        for number in range(FILM_STRIP):
            second = (number + 0.5) * duration / FILM_STRIP
            frame = next(read_frames(video, short_side=_STRIP_SIDE, start=second), None)
            if frame is not None:
                pictures.append(frame.image)
    return pictures


def draw_detection(
    path: str | Path, result: DetectionResult, *, truth: Sequence[Segment] | None = None
) -> None:
    """Draw the timeline of a result: film strip, scores, segments and, if known, the truth.

    Raises:
        VideoError: the video cannot be read again for the film strip.
        VidkdError: the picture cannot be written.
    """
    draw_timeline(
        path,
        Timeline(
            title=result.info.path.name,
            duration=result.duration,
            classes=result.classes,
            segments=result.segments,
            scores=result.scores,
            pts=result.pts,
            truth=truth,
            threshold=result.threshold,
            score_name=result.score_name,
            frames=film_strip(result.info.path, result.duration),
        ),
    )


def render_detection(
    path: str | Path,
    result: DetectionResult,
    report: Callable[[float], None] | None = None,
) -> None:
    """Write a copy of the video that shows the result; see `render_overlay`.

    Raises:
        VideoError: the video cannot be read again.
        VidkdError: the file cannot be written.
    """
    render_overlay(
        result.info.path,
        path,
        result.duration,
        result.classes,
        result.segments,
        report=report,
    )
