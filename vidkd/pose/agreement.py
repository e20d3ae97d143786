"""How far a pose detector agrees with labels that it has not been trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vidkd.pose.detector import PoseDetector
from vidkd.pose.labels import LabelledFrame, load_pictures
from vidkd.pose.metrics import PoseEvaluation, PoseScores


def measure_agreement(
    detector: PoseDetector,
    frames: Sequence[LabelledFrame],
    *,
    limit: int | None = None,
    report: Callable[[float], None] | None = None,
) -> PoseScores:
    """Compare a detector with labelled pictures.

    Args:
        detector: what is measured.
        frames: the labels; frames of one video follow each other in time.
        limit: compare at most so many pictures, evenly spread.
        report: called with the number of pictures done since the last call.

    Raises:
        VideoError: a picture or video cannot be decoded.
    """
    count = len(frames) if limit is None else min(limit, len(frames))
    chosen = [frames[number * len(frames) // count] for number in range(count)]
    evaluation = PoseEvaluation()
    for frame, image in load_pictures(chosen):
        (found,) = detector([image])
        height, width = image.shape[:2]
        evaluation.add(frame.people, found, (height, width))
        if report is not None:
            report(1)
    return evaluation.result()
