"""What gives scores to the snippets of a video: a trained student, or an encoder's own classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from vidkd.console import log
from vidkd.detection.student import run_student
from vidkd.errors import UsageError, WeightsError
from vidkd.evaluation.predictions import Candidates
from vidkd.networks import (
    DEFAULT_ENCODER,
    Encoder,
    ensure_weights,
    load_encoder,
    load_temporal_filter,
    select_device,
    trained_file,
)
from vidkd.networks.zoo import zoo_card
from vidkd.recipe import (
    FrameSettings,
    Precision,
    SegmentSettings,
    SnippetSettings,
)
from vidkd.streams import RGB, STREAMS, Stream

STUDENT_THRESHOLD = 0.5
HEAD_THRESHOLD = 0.5
HEAD_WINDOW = 64
"""Frames that the classifier of an encoder sees at once: those it was trained on (Carreira and
Zisserman 2017, section 3.1). docs/detect.md says what shorter windows gave."""
HEAD_RATE = 25.0
"""Frames per second of its training. Slower video keeps its own frames: repeating some of them
gave no better scores, only more to compute."""
HEAD_STEP = 1.28
"""Seconds from one window to the next: half a window at 25 frames/s."""
HEAD_MINIMUM_SECONDS = 2.0


@dataclass(frozen=True)
class Sampling:
    """Which pixels and frames of a video make one snippet."""

    frames: FrameSettings
    snippet: SnippetSettings
    crop: int


class Scorer(Protocol):
    """What detection asks of a model.

    Attributes:
        name: the student's path, or the encoder's name.
        stream: what the encoder sees of the video.
        classes: K names.
        threshold: the score that a segment has to reach unless the user says otherwise.
        score_name: what the scores are.
        settings: how scores become the ranked list of segments that evaluation wants.
    """

    name: str
    stream: Stream
    classes: tuple[str, ...]
    threshold: float
    score_name: str
    settings: SegmentSettings

    def sampling(self, rate: float) -> Sampling:
        """Return how a video of ``rate`` frames per second is cut into snippets."""

    def output(self, encoder: Encoder) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return what of the encoder runs on a batch of snippets and gives a row for each."""

    def scores(self, rows: np.ndarray, pts: np.ndarray) -> tuple[np.ndarray, Candidates | None]:
        """Turn the rows (T, D) of all snippets of a video into scores (T, K) in [0, 1].

        The second is what a segment head proposes; None without one.
        """


class StudentScorer:
    """A temporal filter that was trained on features.

    Args:
        path: its run folder or weights file.
        device: where it runs.

    Attributes:
        header: what it was trained on.

    Raises:
        WeightsError: it cannot be read.
    """

    threshold = STUDENT_THRESHOLD
    score_name = "probability"

    def __init__(self, path: str | Path, device: torch.device) -> None:
        self._filter, self.header = load_temporal_filter(path, device)
        self._device = device
        self.stream = STREAMS[self.header.modality]
        self.name = str(path)
        self.classes = self.header.classes
        self.settings = self.header.segments
        self._offset = torch.zeros(())
        if self.header.calibration is not None:
            self.score_name = "calibrated probability"
        elif self.header.thresholds is not None:
            # Shifts every class so that its best threshold on the validation subset becomes 0.5;
            # rare classes would hardly ever reach 0.5 by themselves.
            self._offset = torch.logit(torch.tensor(self.header.thresholds, dtype=torch.float32))
            self.score_name = "score (0.5: best F1 on validation)"

    def sampling(self, rate: float) -> Sampling:
        """Return how the videos of its training were cut."""
        return Sampling(self.header.frames, self.header.snippet, self.header.crop)

    def output(self, encoder: Encoder) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the function that computes features."""
        return encoder.features

    def scores(self, rows: np.ndarray, pts: np.ndarray) -> tuple[np.ndarray, Candidates | None]:
        """Turn features (T, D) into probabilities (T, K), and segments of the head."""
        x = torch.from_numpy(rows).to(self._device)[None]
        mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        (output,) = run_student(self._filter, x, mask)
        logits, found = output.calibrated(self.header, pts)
        scores = torch.sigmoid(logits - self._offset).numpy()
        thresholds = None if self.header.calibration else self.header.segment_thresholds
        return scores, found.shifted(thresholds) if found and thresholds else found

    def check_stream(self) -> None:
        """Refuse a student whose features take more than the RGB video.

        Raises:
            UsageError: with what they take.
        """
        if not self.stream.from_rgb:
            raise UsageError(
                f"was trained on {self.header.modality}, but detection sees nothing but RGB",
                path=self.name,
                remedy="give a student of `vidkd distill` or `vidkd train-baseline`",
            )

    def load_encoder(self, device: str, precision: Precision) -> Encoder:
        """Return the encoder whose features it was trained on.

        Raises:
            UsageError: vidkd has no such encoder to run on video.
            WeightsError: the encoder's weights cannot be read or fetched.
        """
        name = self.header.encoder
        # Encoders that `vidkd run` trained lie beside its models.
        run = Path(self.name) if Path(self.name).is_dir() else Path(self.name).parent
        made = run.absolute().parent.parent / "encoders" / f"{name}.safetensors"
        if made.is_file():
            name = str(made)
        if zoo_card(name) is None and trained_file(name) is None:
            raise UsageError(
                f"was trained on features of {name!r}, which vidkd cannot run on video"
                " (they were made elsewhere)",
                path=self.name,
                remedy="run it on features with --features FILE.h5, or train on features of a"
                " network of `vidkd models list`",
            )
        ensure_weights(name)
        return load_encoder(name, device, precision)

    def check(self, encoder: Encoder) -> None:
        """Refuse an encoder that does not make the features it was trained on.

        Raises:
            WeightsError: its weights or the width of its features are others.
        """
        header = self.header
        if header.encoder_sha256 not in {encoder.weights_sha256, *encoder.replaces}:
            raise WeightsError(
                f"was trained on features of {encoder.card.name} with other weights"
                f" ({header.encoder_sha256[:12]}) than those on this machine"
                f" ({encoder.weights_sha256[:12]})",
                path=self.name,
                remedy="fetch the encoder's weights from the same source, or train again",
            )
        if encoder.card.feature_dim != header.in_features:
            raise WeightsError(
                f"takes features of width {header.in_features}, but {encoder.card.name} makes"
                f" {encoder.card.feature_dim}",
                path=self.name,
                remedy="give a student that was trained on this encoder",
            )
        if encoder.weights_sha256 != header.encoder_sha256:
            log(
                f"note: {self.name} was trained on features of {header.encoder}, and sees those of"
                f" {encoder.card.name}; train on those for the best scores"
            )


class ClassifierScorer:
    """The classes that an encoder knows itself, such as I3D's 400 of Kinetics.

    Raises:
        UsageError: the encoder has no classes.
    """

    stream: Stream = RGB
    threshold = HEAD_THRESHOLD
    score_name = "Kinetics-400 softmax"
    settings = SegmentSettings(minimum_seconds=HEAD_MINIMUM_SECONDS)

    def __init__(self, encoder: Encoder) -> None:
        if encoder.classes is None:
            raise UsageError(
                f"{encoder.card.name} has no classes of its own",
                remedy="give a trained student with --model",
            )
        self._card = encoder.card
        self.name = encoder.card.name
        self.classes = encoder.classes

    def sampling(self, rate: float) -> Sampling:
        """Return windows of the length that the classifier was trained on."""
        thinned = self._card.frames.model_copy(
            update={"frame_rate": HEAD_RATE if rate > HEAD_RATE else None}
        )
        # A multiple of the encoder's temporal stride of 8.
        stride = min(max(8, 8 * round(HEAD_STEP * min(HEAD_RATE, rate) / 8)), HEAD_WINDOW)
        return Sampling(
            thinned, SnippetSettings(length=HEAD_WINDOW, stride=stride), self._card.crop
        )

    def output(self, encoder: Encoder) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the function that computes logits."""
        return encoder.logits

    def scores(self, rows: np.ndarray, pts: np.ndarray) -> tuple[np.ndarray, Candidates | None]:
        """Average logits (T, K) over each window and its overlapping neighbours; then softmax."""
        logits = torch.from_numpy(rows).double()
        padded = torch.cat([logits[:1], logits, logits[-1:]])
        smooth = (padded[:-2] + 2 * logits + padded[2:]) / 4
        return torch.softmax(smooth, dim=1).float().numpy(), None


def load_scorer(
    model: str | Path | None, device: str, encoder: Encoder | None, precision: Precision
) -> tuple[Scorer, Encoder]:
    """Load a student, or without one an encoder's own classes, and the encoder that goes with it.

    Args:
        model: a run folder or weights file of a student, or None.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.
        encoder: what to use instead of the encoder that the model names.
        precision: of the encoder when it is loaded here.

    Raises:
        UsageError: there is no such device or precision, the student was trained on something
            else than RGB video, or the encoder has no classes.
        WeightsError: weights cannot be read or fetched, or do not belong together.
    """
    place = select_device(device)
    if model is None:
        if encoder is None:
            ensure_weights(DEFAULT_ENCODER)
            encoder = load_encoder(DEFAULT_ENCODER, device, precision)
        return ClassifierScorer(encoder), encoder
    student = StudentScorer(model, place)
    student.check_stream()
    encoder = encoder or student.load_encoder(device, precision)
    student.check(encoder)
    return student, encoder
