"""The detector: video in, segments out, in one streaming pass.

For students of RGB nothing of flow or pose is computed or imported: what they learned from them is
in their weights (Dai et al. 2021, section 3.4, "Inference"). Models of flow and of poses get theirs
from the same decoded frames.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidkd.cache import CacheFile
from vidkd.console import clock
from vidkd.detection.predict import read_features
from vidkd.detection.scorers import Sampling, Scorer, StudentScorer, load_scorer
from vidkd.detection.segments import scores_to_segments, shown_segments
from vidkd.errors import UsageError, VideoError
from vidkd.evaluation import Detection
from vidkd.evaluation.predictions import Candidates
from vidkd.machine import cores
from vidkd.networks import Encoder, select_device
from vidkd.recipe import Precision, SegmentSettings
from vidkd.streams import FeatureSettings, VideoJob
from vidkd.streams.encode import Batch, BatchEncoder
from vidkd.video import Frame, OpenVideo, VideoFile, VideoInfo, open_video, read_sizes
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
        feature_mean: (D,) mean over the snippets of what the encoders made of them.
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
        model: a run folder or weights file of a student, several of them, whose logits are
            averaged, or a file of ``vidkd fuse``; None takes the Kinetics-400 classifier of the
            encoder.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.
        encoder: a loaded encoder to use instead of the one that the model names.
        precision: of encoders of RGB, see ``vidkd.load_encoder``; ``auto`` takes the encoder whose
            features the student was trained on.

    Raises:
        UsageError: a student was trained on what a video alone does not give, or there is no such
            device, or it has no such precision.
        WeightsError: weights cannot be read or fetched, or a student belongs to another encoder.

    Attributes:
        scorer: the students, or the encoder's classes.
    """

    def __init__(
        self,
        model: str | Path | Sequence[str | Path] | None = None,
        device: str = "auto",
        *,
        encoder: Encoder | None = None,
        precision: Precision = "auto",
    ) -> None:
        models = [model] if isinstance(model, str | Path) else model or []
        self.scorer = load_scorer(models, device, encoder, precision)
        self._encode = [
            BatchEncoder(
                source.output,
                source.encoder.device,
                source.stream.prepare(source.encoder.card, source.encoder.device, source.made),
            )
            for source in self.scorer.sources
        ]

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
        info = video.info
        sampling = self.scorer.sampling(float(video.frame_rate))
        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for numbers in _passes(sampling):
            chosen = [sampling[number] for number in numbers]
            sides = list(dict.fromkeys(item.frames.short_side for item in chosen))
            frames = SharedFrames(
                read_sizes(video, sides, frame_rate=chosen[0].frames.frame_rate), len(chosen)
            )
            readers = [
                frames.read(place, sides.index(item.frames.short_side))
                for place, item in enumerate(chosen)
            ]
            jobs = [self._job(info, *own) for own in zip(numbers, chosen, readers, strict=True)]
            for number, rows in self._rows(numbers, jobs, frames, batch_size, report):
                found[number] = rows
        rows, pts = zip(*(found[number] for number in range(len(sampling))), strict=True)
        return _result(self.scorer, info, rows, pts, threshold)

    def _job(
        self, info: VideoInfo, number: int, sampling: Sampling, source: Iterator[Frame]
    ) -> VideoJob:
        """Return what one source does with the video."""
        own = self.scorer.sources[number]
        settings = FeatureSettings(
            own.stream, own.encoder.card.name, sampling.frames, sampling.snippet, sampling.crop
        )
        return VideoJob(
            VideoFile(info.path, info.path.stem),
            Path(),
            settings,
            own.encoder.card,
            own.made,
            str(own.encoder.device),
            cores(),
            source=source,
        )

    def _rows(
        self,
        numbers: Sequence[int],
        jobs: Sequence[VideoJob],
        frames: SharedFrames,
        batch_size: int | None,
        report: Report | None,
    ) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray]]]:
        """Compute the rows of some sources in one pass, and yield them by the source's number.

        The source that is furthest behind goes on, so that few frames wait for it.
        """
        done = 0
        kept: dict[int, tuple[list[np.ndarray], list[np.ndarray]]] = {n: ([], []) for n in numbers}
        with contextlib.ExitStack() as stack:
            left = {}
            for place, (number, job) in enumerate(zip(numbers, jobs, strict=True)):
                own, encode = self.scorer.sources[number], self._encode[number]
                size = batch_size or own.batch_size(job.settings.snippet.length)
                batches = own.stream.batches(job, size)
                ahead = read_ahead(_sent(batches, encode))
                left[place] = stack.enter_context(contextlib.closing(ahead))
            while left:
                place = min(left, key=frames.taken.__getitem__)
                number, item = numbers[place], next(left[place], None)
                if report is not None and (least := min(frames.taken)) > done:
                    report(least - done)
                    done = least
                if item is None:
                    del left[place]
                elif len(item[1]):
                    kept[number][0].append(self._encode[number](item[0]))
                    kept[number][1].append(item[1])
        for number, job in zip(numbers, jobs, strict=True):
            rows, times = kept[number]
            if not rows:
                raise VideoError("holds no frames", path=job.video.path, remedy="check the file")
            yield number, (np.concatenate(rows), np.concatenate(times))

    def frame_total(self, video: OpenVideo) -> float | None:
        """Return how many frames a call will read, as far as the container says; else None."""
        if video.duration is None:
            return None
        rate = float(video.frame_rate)
        sampling = self.scorer.sampling(rate)
        first = (sampling[numbers[0]].frames.frame_rate for numbers in _passes(sampling))
        return sum(video.duration * (own or rate) for own in first)


class FeatureDetector:
    """A student that is run on features in cache files, without any video.

    Args:
        model: a run folder or weights file; of any stream, and of imported features too.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.

    Raises:
        WeightsError: it cannot be read.
    """

    def __init__(self, model: str | Path, device: str = "auto") -> None:
        self.scorer = StudentScorer([model], select_device(device))
        if not self.scorer.fusion.single:
            raise UsageError(
                "holds several students, and --features is for one",
                path=model,
                remedy="score cached features with `vidkd evaluate --run FILE --cache DIR`",
            )

    def __call__(self, path: Path, *, threshold: float | None = None) -> DetectionResult:
        """Find the actions in the video whose features a file holds.

        Raises:
            CacheError: the features are damaged, or not those the student was trained on.
        """
        rows, pts = read_features(path, self.scorer.students[0].header)
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
        return _result(self.scorer, info, [rows], [pts], threshold)


def _passes(sampling: Sequence[Sampling]) -> list[list[int]]:
    """Return the numbers of the sources that share a pass: those of one frame rate."""
    found: dict[float | None, list[int]] = {}
    for number, item in enumerate(sampling):
        found.setdefault(item.frames.frame_rate, []).append(number)
    return list(found.values())


def _sent(
    batches: Iterable[tuple[np.ndarray, np.ndarray]], encode: BatchEncoder
) -> Iterator[tuple[Batch, np.ndarray]]:
    for stored, pts in batches:
        yield encode.send(stored), pts


class SharedFrames:
    """The frames of one pass over a video, for several readers that have threads of their own.

    A frame waits until all have taken it.

    Args:
        frames: each in several sizes.
        readers: how many read.

    Attributes:
        taken: how many frames each reader has taken.
    """

    def __init__(self, frames: Iterator[tuple[Frame, ...]], readers: int) -> None:
        self.taken = [0] * readers
        self._frames = frames
        self._waiting: list[deque[tuple[Frame, ...]]] = [deque() for _ in range(readers)]
        self._lock = threading.Lock()

    def read(self, reader: int, size: int) -> Iterator[Frame]:
        """Yield the frames in one of the sizes, for one of the readers."""
        own = self._waiting[reader]
        while True:
            with self._lock:
                if not own:
                    frame = next(self._frames, None)
                    if frame is None:
                        return
                    for waiting in self._waiting:
                        waiting.append(frame)
                sizes = own.popleft()
                self.taken[reader] += 1
            yield sizes[size]


def _result(
    scorer: Scorer,
    info: VideoInfo,
    rows: Sequence[np.ndarray],
    times: Sequence[np.ndarray],
    threshold: float | None,
) -> DetectionResult:
    threshold = scorer.threshold if threshold is None else threshold
    scores, pts, candidates = scorer.scores(rows, times)
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
        feature_mean=np.concatenate([own.mean(axis=0, dtype=np.float64) for own in rows]),
    )


def detect(
    path: str | Path,
    model: str | Path | Sequence[str | Path] | None = None,
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
        model: a run folder or weights file of a student, several, or a file of ``vidkd fuse``;
            None takes the Kinetics-400 classifier of I3D, whose weights are fetched when they are
            not there.
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
