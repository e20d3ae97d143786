"""The RGB-only detector: video in, segments out, in one streaming pass.

Nothing here computes or imports flow or pose: what a student learned from them is in its weights
(Dai et al. 2021, section 3.4, "Inference").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from vidkd.console import log
from vidkd.detection.segments import clear_segments, scores_to_segments
from vidkd.errors import UsageError, VideoError, WeightsError
from vidkd.evaluation import Detection
from vidkd.networks import (
    DEFAULT_ENCODER,
    TemporalFilter,
    ensure_weights,
    load_encoder,
    load_temporal_filter,
    select_device,
    trained_file,
)
from vidkd.recipe import (
    FrameSettings,
    ModelCard,
    Precision,
    SegmentSettings,
    SnippetSettings,
    model_cards,
)
from vidkd.streams.encode import BatchEncoder, snippet_batches
from vidkd.video import VideoInfo, probe, read_frames
from vidkd.workers import read_ahead

Report = Callable[[float], None]

HEAD_WINDOW = 64
"""Frames that the classifier of an encoder sees at once: those it was trained on (Carreira and
Zisserman 2017, section 3.1). docs/detect.md says what shorter windows gave."""
HEAD_RATE = 25.0
"""Frames per second of its training. Slower video keeps its own frames: repeating some of them
gave no better scores, only more to compute."""
HEAD_STEP = 1.28
"""Seconds from one window to the next: half a window at 25 frames/s."""
HEAD_THRESHOLD = 0.5
HEAD_MINIMUM_SECONDS = 2.0
STUDENT_THRESHOLD = 0.5


class Encoder(Protocol):
    """What is needed of a network (see ``vidkd.networks.load_encoder``)."""

    @property
    def card(self) -> ModelCard:
        """The network's model card."""

    @property
    def weights_sha256(self) -> str:
        """Hash of the weights."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Labels of the logits."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    def batch_size(self) -> int:
        """Snippets at a time that suit the device."""

    def features(self, x: torch.Tensor, /) -> torch.Tensor:
        """Turn (B, 3, T, S, S) in [-1, 1] into (B, D)."""

    def logits(self, x: torch.Tensor, /) -> torch.Tensor:
        """Turn (B, 3, T, S, S) in [-1, 1] into (B, K)."""


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

    @property
    def duration(self) -> float:
        """The end of the last frame that was read."""
        return float(self.pts[-1, 1])

    def proposals(self) -> list[Detection]:
        """Return the full ranked list of overlapping segments, as evaluation wants it."""
        return scores_to_segments(self.scores, self.pts, self.classes, self.settings)

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
        UsageError: the student was trained on another modality, or there is no such device, or
            it has no such precision.
        WeightsError: weights cannot be read or had, or the student belongs to another encoder.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        device: str = "auto",
        *,
        encoder: Encoder | None = None,
        precision: Precision = "auto",
    ) -> None:
        place = select_device(device)
        self._filter: TemporalFilter | None = None
        self._offset = torch.zeros(())
        name = DEFAULT_ENCODER
        if model is not None:
            self._filter, header = load_temporal_filter(model, place)
            if header.modality != "rgb":
                raise UsageError(
                    f"was trained on {header.modality}, but detection sees nothing but RGB",
                    path=model,
                    remedy="give a student of `vidkd distill` or `vidkd train-baseline`",
                )
            name = _encoder_of(Path(model), header.encoder)
        if encoder is None:
            if name not in model_cards() and trained_file(name) is None:
                raise UsageError(
                    f"was trained on features of {name!r}, which vidkd cannot run on video"
                    " (features that were imported?)",
                    path=model,
                    remedy="evaluate it on cached features, or train on features of a network of"
                    " `vidkd models list`",
                )
            ensure_weights(name)
            loaded = load_encoder(name, device, precision)
            encoder, accepted = loaded, {loaded.weights_sha256, *loaded.replaces}
        else:
            accepted = {encoder.weights_sha256}
        self._encoder = encoder
        # With a student its features are wanted, else the classes that it knows itself.
        run = encoder.logits if self._filter is None else encoder.features
        self._encode = BatchEncoder(run, encoder.device)
        if self._filter is not None:
            path = Path(str(model))
            _check_student(path, header.encoder_sha256, accepted, header.in_features, encoder)
            if encoder.weights_sha256 != header.encoder_sha256:
                log(
                    f"note: {path} was trained on features of {name}, and sees those of"
                    f" {encoder.card.name}; train on those for the best scores"
                )
            self.classes = header.classes
            self._frames, self._snippet, self._crop = header.frames, header.snippet, header.crop
            self.settings = header.segments
            self.threshold, self.score_name = STUDENT_THRESHOLD, "probability"
            if header.thresholds is not None:
                # Shifts every class so that its best threshold on the validation subset becomes
                # 0.5; rare classes would hardly ever reach 0.5 by themselves.
                self._offset = torch.logit(torch.tensor(header.thresholds, dtype=torch.float32))
                self.score_name = "score (0.5: best F1 on validation)"
            self.name = str(model)
        else:
            if encoder.classes is None:
                raise UsageError(
                    f"{encoder.card.name} has no classes of its own",
                    remedy="give a trained student with --model",
                )
            self.classes = encoder.classes
            self._frames, self._snippet = encoder.card.frames, SnippetSettings(length=HEAD_WINDOW)
            self._crop = encoder.card.crop
            self.settings = SegmentSettings(minimum_seconds=HEAD_MINIMUM_SECONDS)
            self.threshold, self.score_name = HEAD_THRESHOLD, "Kinetics-400 softmax"
            self.name = encoder.card.name

    def __call__(
        self,
        path: str | Path,
        *,
        threshold: float | None = None,
        batch_size: int | None = None,
        report: Report | None = None,
    ) -> DetectionResult:
        """Find the actions in one video.

        Args:
            path: the video.
            threshold: the score a segment has to reach; by default the model's.
            batch_size: snippets encoded at once; by default what suits the device.
            report: called with the number of frames done since the last call.

        Raises:
            VideoError: the video cannot be decoded.
            VidkdError: memory ran out.
        """
        path = Path(path)
        threshold = self.threshold if threshold is None else threshold
        info = probe(path)
        frames, snippet = self._sampling(info)
        size = batch_size or self._encoder.batch_size
        if batch_size is None and self._filter is None:
            # These windows are longer than the snippets that the size is meant for.
            size = max(1, size * 16 // snippet.length)
        images = read_frames(path, short_side=frames.short_side, frame_rate=frames.frame_rate)
        rate = frames.frame_rate or float(info.frame_rate)
        rows, times, done = [], [], 0.0
        batches = snippet_batches(images, snippet, self._crop, size)
        for batch, pts in read_ahead((self._encode.send(stored), pts) for stored, pts in batches):
            rows.append(self._encode(batch))
            times.append(pts)
            if report is not None:
                report((pts[-1, 1] - done) * rate)
            done = pts[-1, 1]
        if not rows:
            raise VideoError("holds no frames", path=path, remedy="check the file")
        scores, pts = self._scores(np.concatenate(rows)), np.concatenate(times)
        segments = clear_segments(
            scores,
            pts,
            self.classes,
            threshold=threshold,
            release=self.settings.release * threshold,
            minimum_seconds=self.settings.minimum_seconds,
        )
        return DetectionResult(
            path.stem,
            info,
            self.classes,
            scores,
            pts,
            segments,
            threshold,
            self.score_name,
            self.name,
            self.settings,
        )

    def frame_total(self, path: str | Path) -> float | None:
        """Return how many frames a call will read, as far as the container says; else None.

        Raises:
            VideoError: the video cannot be opened.
        """
        info = probe(path)
        if info.duration is None:
            return None
        frames, _ = self._sampling(info)
        return info.duration * (frames.frame_rate or float(info.frame_rate))

    def _sampling(self, info: VideoInfo) -> tuple[FrameSettings, SnippetSettings]:
        """Return how one video is sampled: as the student was trained, or as the head likes it."""
        if self._filter is not None:
            return self._frames, self._snippet
        rate = min(HEAD_RATE, float(info.frame_rate))
        # A multiple of the encoder's temporal stride of 8.
        stride = min(max(8, 8 * round(HEAD_STEP * rate / 8)), self._snippet.length)
        frames = self._frames.model_copy(
            update={"frame_rate": HEAD_RATE if info.frame_rate > HEAD_RATE else None}
        )
        return frames, self._snippet.model_copy(update={"stride": stride})

    def _scores(self, rows: np.ndarray) -> np.ndarray:
        """Turn the features or logits of all T snippets into probabilities (T, K)."""
        with torch.inference_mode():
            if self._filter is None:
                smooth = _smoothed(torch.from_numpy(rows).double())
                return torch.softmax(smooth, dim=1).float().numpy()
            x = torch.from_numpy(rows).to(next(self._filter.parameters()).device)[None]
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
            logits = self._filter(x, mask).logits[0].float().cpu()
            return torch.sigmoid(logits - self._offset).numpy()


def _smoothed(logits: torch.Tensor) -> torch.Tensor:
    """Average (T, K) over each window and its overlapping neighbours, with weights 1, 2, 1."""
    padded = torch.cat([logits[:1], logits, logits[-1:]])
    return (padded[:-2] + 2 * logits + padded[2:]) / 4


def _encoder_of(model: Path, name: str) -> str:
    """Return what to load: the encoder that ``vidkd run`` made for its models, or the name."""
    run = model if model.is_dir() else model.parent
    made = run.absolute().parent.parent / "encoders" / f"{name}.safetensors"
    return str(made) if made.is_file() else name


def _check_student(
    path: Path, encoder_sha256: str, accepted: set[str], in_features: int, encoder: Encoder
) -> None:
    if encoder_sha256 not in accepted:
        raise WeightsError(
            f"was trained on features of {encoder.card.name} with other weights"
            f" ({encoder_sha256[:12]}) than those on this machine"
            f" ({encoder.weights_sha256[:12]})",
            path=path,
            remedy="fetch the encoder's weights from the same source, or train again",
        )
    if encoder.card.feature_dim != in_features:
        raise WeightsError(
            f"takes features of width {in_features}, but {encoder.card.name} makes"
            f" {encoder.card.feature_dim}",
            path=path,
            remedy="give a student that was trained on this encoder",
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
