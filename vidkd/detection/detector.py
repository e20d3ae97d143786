"""The RGB-only detector: video in, segments out, in one streaming pass.

Nothing here computes or imports flow or pose: what a student learned from them is in its weights
(Dai et al. 2021, section 3.4, "Inference").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidkd.cache import CacheFile
from vidkd.console import clock
from vidkd.detection.predict import read_features
from vidkd.detection.scorers import Scorer, StudentScorer, load_scorer
from vidkd.detection.segments import scores_to_segments, shown_segments
from vidkd.errors import UsageError, VideoError
from vidkd.evaluation import Detection
from vidkd.evaluation.predictions import Candidates
from vidkd.networks import Encoder, select_device
from vidkd.recipe import Precision, SegmentSettings, SnippetSettings
from vidkd.streams.encode import BatchEncoder, snippet_batches
from vidkd.video import OpenVideo, VideoInfo, open_video, read_frames
from vidkd.workers import read_ahead

if TYPE_CHECKING:
    import pandas

Report = Callable[[float], None]


@dataclass(frozen=True)
class DetectionResult:
    """What was found in one video; times are seconds since its first frame.

    Attributes:
        video_id: the file's name without its ending.
        info: what the container says about the file, with its path.
        classes: K names.
        scores: (T, K) float32 in [0, 1].
        pts: (T, 2) start and end of every snippet.
        segments: those that reach the threshold, not overlapping within a class, by start.
        threshold: the score they had to reach.
        score_name: what the scores are.
        model: the student's path, or the encoder's name.
        settings: how scores become the ranked list of `proposals`.
        candidates: what the model's segment head proposes; None without one.
        feature_mean: (D,) mean over the snippets of what the encoder made of them.
    """

    video_id: str
    info: VideoInfo
    classes: tuple[str, ...]
    scores: np.ndarray
    pts: np.ndarray
    segments: list[Detection]
    threshold: float
    score_name: str
    model: str
    settings: SegmentSettings
    candidates: Candidates | None = None
    feature_mean: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def duration(self) -> float:
        """The end of the last frame that was read."""
        return float(self.pts[-1, 1])

    def proposals(self) -> list[Detection]:
        """Return the full ranked list of overlapping segments, as evaluation wants it."""
        return scores_to_segments(
            self.scores, self.pts, self.classes, self.settings, self.candidates
        )

    def to_dataframe(self) -> pandas.DataFrame:
        """Return the segments as a table: video, label, start and end second, score.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise UsageError(
                "a table of the segments needs pandas", remedy="pip install pandas"
            ) from error
        columns = ("video", "label", "start", "end", "score")
        rows = [(self.video_id, i.label, i.start, i.end, i.score) for i in self.segments]
        return pandas.DataFrame(rows, columns=columns)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the segments by start, as bars on the video's time."""
        duration = max(self.duration, 1e-9)
        rows = [
            f"<tr><td>{escape(item.label)}</td><td>{clock(item.start)}</td>"
            f"<td>{clock(item.end)}</td><td>{item.score:.2f}</td><td style='width:40%'>"
            "<div style='height:10px;border-radius:2px;background:#3b82f6;min-width:2px;"
            f"margin-left:{100 * item.start / duration:.2f}%;"
            f"width:{100 * (item.end - item.start) / duration:.2f}%'></div></td></tr>"
            for item in sorted(self.segments, key=lambda item: (item.start, item.end))
        ]
        title = f"{escape(self.info.path.name)}, {clock(self.duration)}"
        if not rows:
            return f"<p>{title}: no action reaches {self.threshold:g}</p>"
        head = "<tr><th>action</th><th>start</th><th>end</th><th>score</th><th></th></tr>"
        return f"<table style='width:100%'><caption>{title}</caption>{head}{''.join(rows)}</table>"

    def best(self) -> tuple[str, float, float]:
        """Return the class of the highest score, that score, and the second of its snippet."""
        row, column = np.unravel_index(int(self.scores.argmax()), self.scores.shape)
        return (
            self.classes[column],
            float(self.scores[row, column]),
            float(self.pts[row].mean()),
        )


class Detector:
    """A loaded model, ready for any number of videos.

    Args:
        model: a run folder or weights file of a student trained on RGB; None takes the
            Kinetics-400 classifier of the encoder.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.
        encoder: a loaded encoder to use instead of the one that the model names.
        precision: of the encoder, see ``vidkd.load_encoder``; ``auto`` takes the encoder whose
            features the student was trained on.

    Raises:
        UsageError: the student was trained on something else than RGB video, or there is no such
            device, or it has no such precision.
        WeightsError: weights cannot be read or fetched, or the student belongs to another encoder.

    Attributes:
        scorer: the student, or the encoder's classes.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        device: str = "auto",
        *,
        encoder: Encoder | None = None,
        precision: Precision = "auto",
    ) -> None:
        self.scorer, self._encoder = load_scorer(model, device, encoder, precision)
        encoder = self._encoder
        prepare = self.scorer.stream.prepare(encoder.card, encoder.device, {})
        self._encode = BatchEncoder(self.scorer.output(encoder), encoder.device, prepare)

    def __call__(
        self,
        video: str | Path | OpenVideo,
        *,
        threshold: float | None = None,
        batch_size: int | None = None,
        report: Report | None = None,
    ) -> DetectionResult:
        """Find the actions in one video.

        Args:
            video: the file, or one that is open.
            threshold: the score a segment has to reach; by default the model's.
            batch_size: snippets encoded at once; by default what suits the device.
            report: called with the number of frames done since the last call.

        Raises:
            VideoError: the video cannot be decoded.
            VidkdError: memory ran out.
        """
        if not isinstance(video, OpenVideo):
            with open_video(video) as opened:
                return self(opened, threshold=threshold, batch_size=batch_size, report=report)
        sampling = self.scorer.sampling(float(video.frame_rate))
        frames, snippet = sampling.frames, sampling.snippet
        # The encoder's batches are meant for snippets of the usual length.
        usual = self._encoder.batch_size * SnippetSettings().length
        size = batch_size or max(1, usual // snippet.length)
        info = video.info
        images = read_frames(video, short_side=frames.short_side, frame_rate=frames.frame_rate)
        rate = frames.frame_rate or float(info.frame_rate)
        rows, times, done = [], [], 0.0
        images = self.scorer.stream.rows(images)
        batches = snippet_batches(images, snippet, sampling.crop, size)
        for batch, pts in read_ahead((self._encode.send(stored), pts) for stored, pts in batches):
            rows.append(self._encode(batch))
            times.append(pts)
            if report is not None:
                report((pts[-1, 1] - done) * rate)
            done = pts[-1, 1]
        if not rows:
            raise VideoError("holds no frames", path=video.path, remedy="check the file")
        return _result(self.scorer, info, np.concatenate(rows), np.concatenate(times), threshold)

    def frame_total(self, video: OpenVideo) -> float | None:
        """Return how many frames a call will read, as far as the container says; else None."""
        if video.duration is None:
            return None
        rate = float(video.frame_rate)
        return video.duration * (self.scorer.sampling(rate).frames.frame_rate or rate)


class FeatureDetector:
    """A student that is run on features in cache files, without any video.

    Args:
        model: a run folder or weights file; of any stream, and of imported features too.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.

    Raises:
        WeightsError: it cannot be read.
    """

    def __init__(self, model: str | Path, device: str = "auto") -> None:
        self.scorer = StudentScorer(model, select_device(device))

    def __call__(self, path: Path, *, threshold: float | None = None) -> DetectionResult:
        """Find the actions in the video whose features a file holds.

        Raises:
            CacheError: the features are damaged, or not those the student was trained on.
        """
        rows, pts = read_features(path, self.scorer.header)
        with CacheFile(path) as file:
            source = file.provenance.source
        info = VideoInfo(
            path=path,
            width=0,
            height=0,
            frame_rate=source.frame_rate,
            duration=float(pts[-1, 1]),
            frame_count=source.frame_count,
            codec="",
            pixel_format="",
            rotation=0,
            start_time=0.0,
            size=source.size,
        )
        return _result(self.scorer, info, rows, pts, threshold)


def _result(
    scorer: Scorer, info: VideoInfo, rows: np.ndarray, pts: np.ndarray, threshold: float | None
) -> DetectionResult:
    threshold = scorer.threshold if threshold is None else threshold
    scores, candidates = scorer.scores(rows, pts)
    segments = shown_segments(scores, pts, scorer.classes, threshold, scorer.settings, candidates)
    return DetectionResult(
        video_id=info.path.stem,
        info=info,
        classes=scorer.classes,
        scores=scores,
        pts=pts,
        segments=segments,
        threshold=threshold,
        score_name=scorer.score_name,
        model=scorer.name,
        settings=scorer.settings,
        candidates=candidates,
        feature_mean=rows.mean(axis=0, dtype=np.float64),
    )


def detect(
    path: str | Path,
    model: str | Path | None = None,
    device: str = "auto",
    *,
    threshold: float | None = None,
    batch_size: int | None = None,
    encoder: Encoder | None = None,
    report: Report | None = None,
) -> DetectionResult:
    """Find the actions in one video from its RGB frames alone.

    Args:
        path: the video.
        model: a run folder or weights file of a student; None takes the Kinetics-400 classifier
            of I3D, whose weights are fetched when they are not there.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.
        threshold: the score a segment has to reach; by default the model's.
        batch_size: snippets encoded at once; by default what suits the device.
        encoder: a loaded encoder to use instead of the one that the model names.
        report: called with the number of frames done since the last call.

    Raises:
        VideoError: the video cannot be decoded.
        UsageError: see `Detector`.
        WeightsError: see `Detector`.
    """
    detector = Detector(model, device, encoder=encoder)
    return detector(path, threshold=threshold, batch_size=batch_size, report=report)
