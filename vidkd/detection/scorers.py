"""What gives scores to the snippets of a video: a trained student, or an encoder's own classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from vidkd.console import log
from vidkd.detection.fusion import load_models, probabilities
from vidkd.errors import UsageError, VidkdError, WeightsError
from vidkd.evaluation.predictions import Candidates
from vidkd.hub import is_hub_name, resolved
from vidkd.networks import (
    DEFAULT_ENCODER,
    Encoder,
    FilterHeader,
    ensure_weights,
    load_encoder,
    select_device,
    trained_file,
)
from vidkd.networks.cards import TRAINED_ENCODER, zoo_card
from vidkd.networks.fusion_weights import FusedStudent
from vidkd.recipe import (
    FrameSettings,
    Precision,
    SegmentSettings,
    SnippetSettings,
)
from vidkd.streams import RGB, STREAMS, DirectStream, Stream
from vidkd.streams.encode import Encoder as AnyEncoder

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


@dataclass(frozen=True)
class Source:
    """What makes rows of a video, once for all students that need them.

    Attributes:
        stream: what the encoder sees, computed from the video alone.
        encoder: the network.
        output: what of it gives a row for each snippet.
        made: what the rows of training were made with.
    """

    stream: Stream
    encoder: AnyEncoder
    output: Callable[[torch.Tensor], torch.Tensor]
    made: Mapping[str, Any]

    def batch_size(self, length: int) -> int:
        """Return how many snippets of so many frames are encoded at once."""
        size = getattr(self.encoder, "batch_size", None)
        if size is None:
            return self.stream.batch_sizes[self.encoder.device.type == "cuda"]
        # The encoder's batches are meant for snippets of the usual length.
        return max(1, int(size) * SnippetSettings().length // length)


class Scorer(Protocol):
    """What detection asks of a model.

    Attributes:
        name: the path of the student or students, or the encoder's name.
        sources: what makes the rows that it needs.
        classes: K names.
        threshold: the score that a segment has to reach unless the user says otherwise.
        score_name: what the scores are.
        settings: how scores become the ranked list of segments that evaluation wants.
    """

    name: str
    sources: list[Source]
    classes: tuple[str, ...]
    threshold: float
    score_name: str
    settings: SegmentSettings

    def sampling(self, rate: float) -> list[Sampling]:
        """Return how each source cuts a video of ``rate`` frames per second into snippets."""

    def scores(
        self, rows: Sequence[np.ndarray], pts: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, Candidates | None]:
        """Turn the rows (T, D) of every source, with their times, into scores.

        Returns:
            (T, K) in [0, 1], the times (T, 2) of its rows, and what segment heads propose; None
            without one.
        """


class StudentScorer:
    """A student that was trained on features, or several whose logits are averaged.

    Args:
        models: run folders or weights files, or one file of ``vidkd fuse``.
        device: where they run.

    Attributes:
        fusion: the students.

    Raises:
        WeightsError: one cannot be read.
        UsageError: they cannot be fused.
    """

    threshold = STUDENT_THRESHOLD
    score_name = "probability"

    def __init__(self, models: Sequence[str | Path], device: torch.device) -> None:
        self.fusion = load_models(models, device)
        self._device = device
        self.name = self.fusion.name
        self.classes = self.fusion.classes
        self.settings = self.fusion.segments
        self.sources: list[Source] = []
        # Students that see the same share what is computed.
        keys = [source_key(student.header) for student in self.fusion.students]
        self._distinct = list(dict.fromkeys(keys))
        self._source = [self._distinct.index(key) for key in keys]
        self._first = [keys.index(key) for key in self._distinct]
        if self.fusion.calibrated and self.fusion.thresholds is None:
            self.score_name = "calibrated probability"
        elif self.fusion.thresholds is not None:
            # Shifts every class so that its best threshold on the validation subset becomes 0.5;
            # rare classes would hardly ever reach 0.5 by themselves.
            self.score_name = "score (0.5: best F1 on validation)"

    @property
    def students(self) -> list[FusedStudent]:
        """The first student of each source."""
        return [self.fusion.students[number] for number in self._first]

    def load(self, device: str, encoder: AnyEncoder | None, precision: Precision) -> None:
        """Load what makes the rows from video.

        Args:
            device: where.
            encoder: what to use instead of the encoders that the students name.
            precision: of encoders of RGB.

        Raises:
            UsageError: a stream cannot be computed from a video alone, or vidkd has no such
                encoder.
            WeightsError: weights cannot be read or fetched, or do not belong together.
        """
        for student in self.students:
            header, made = student.header, student.header.stream_settings
            try:
                stream = STREAMS[header.modality].uncached(made, str(self._device))
            except VidkdError as error:
                raise type(error)(error.problem, path=student.name, remedy=error.remedy) from error
            own = precision if stream.from_rgb else "auto"
            loaded = encoder
            if loaded is None:
                with encoder_name(student, stream) as name:
                    loaded = stream.load_encoder(name, device, own)
            _check(student, loaded)
            self.sources.append(Source(stream, loaded, loaded.features, made))

    def sampling(self, rate: float) -> list[Sampling]:
        """Return how the videos of their training were cut."""
        headers = [student.header for student in self.students]
        return [Sampling(header.frames, header.snippet, header.crop) for header in headers]

    def scores(
        self, rows: Sequence[np.ndarray], pts: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, Candidates | None]:
        """Turn features (T, D) of every source into probabilities, times, and segments of heads."""
        fusion = self.fusion
        found = [
            fusion.run(number, rows[source], pts[source], self._device)
            for number, source in enumerate(self._source)
        ]
        fused, axis = fusion.fuse(found)
        return probabilities(fused, fusion.thresholds), axis, fusion.candidates(found, shifted=True)


def source_key(header: FilterHeader) -> str:
    """Return what decides the features of a video, as text."""
    fields = {"modality", "encoder_sha256", "frames", "snippet", "crop", "stream_settings"}
    return header.model_dump_json(include=fields)


def encoder_file(student: FusedStudent) -> Path | None:
    """Return the file of the trained encoder whose features a student takes; None for others.

    Encoders that `vidkd run` trained lie beside its models, as those do that were trained into the
    same folder; a model of the hub holds its own.
    """
    name, run = student.header.encoder, Path(student.name)
    if is_hub_name(student.name):
        # Asked only where there is need: students in a fused file have the names of their time.
        run = Path() if zoo_card(name) else resolved(student.name)
    run = (run if run.is_dir() else run.parent).absolute()
    if zoo_card(name) is None and (beside := run / TRAINED_ENCODER).is_file():
        return beside
    made = run.parent.parent / "encoders" / f"{name}.safetensors"
    if made.is_file():
        return made
    return trained_file(name) or (None if zoo_card(name) else trained_file(str(run.parent / name)))


@contextmanager
def encoder_name(student: FusedStudent, stream: Stream) -> Iterator[str]:
    """Give the name or path of the encoder whose features a student was trained on, fetched.

    That of a fused file lies in a temporary file while the block runs.

    Raises:
        UsageError: vidkd has no such encoder to run on video.
        WeightsError: its weights cannot be fetched.
    """
    with student.encoder_file() as held:
        path, name = held or encoder_file(student), student.header.encoder
        if path is None and zoo_card(name) is None and not isinstance(stream, DirectStream):
            raise UsageError(
                f"was trained on features of {name!r}, which vidkd cannot run on video"
                " (they were made elsewhere)",
                path=student.name,
                remedy="run it on features with --features FILE.h5, or train on features of a"
                " network of `vidkd models list`",
            )
        chosen = name if path is None else str(path)
        if path is None:
            stream.fetch_encoder(chosen)
        yield chosen


def _check(student: FusedStudent, encoder: AnyEncoder) -> None:
    """Refuse an encoder that does not make the features a student was trained on.

    Raises:
        WeightsError: its weights or the width of its features are others.
    """
    header = student.header
    accepted = {encoder.weights_sha256, *getattr(encoder, "replaces", ())}
    if header.encoder_sha256 not in accepted:
        raise WeightsError(
            f"was trained on features of {encoder.card.name} with other weights"
            f" ({header.encoder_sha256[:12]}) than those on this machine"
            f" ({encoder.weights_sha256[:12]})",
            path=student.name,
            remedy="fetch the encoder's weights from the same source, or train again",
        )
    # A stream without a network does not say how wide its features are.
    if encoder.card.feature_dim not in {0, header.in_features}:
        raise WeightsError(
            f"takes features of width {header.in_features}, but {encoder.card.name} makes"
            f" {encoder.card.feature_dim}",
            path=student.name,
            remedy="give a student that was trained on this encoder",
        )
    if encoder.weights_sha256 != header.encoder_sha256:
        log(
            f"note: {student.name} was trained on features of {header.encoder}, and sees those of"
            f" {encoder.card.name}; train on those for the best scores"
        )


class ClassifierScorer:
    """The classes that an encoder knows itself, such as I3D's 400 of Kinetics.

    Raises:
        UsageError: the encoder has no classes.
    """

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
        self.sources = [Source(RGB, encoder, encoder.logits, {})]
        self.name = encoder.card.name
        self.classes = encoder.classes

    def sampling(self, rate: float) -> list[Sampling]:
        """Return windows of the length that the classifier was trained on."""
        thinned = self._card.frames.model_copy(
            update={"frame_rate": HEAD_RATE if rate > HEAD_RATE else None}
        )
        # A multiple of the encoder's temporal stride of 8.
        stride = min(max(8, 8 * round(HEAD_STEP * min(HEAD_RATE, rate) / 8)), HEAD_WINDOW)
        snippet = SnippetSettings(length=HEAD_WINDOW, stride=stride)
        return [Sampling(thinned, snippet, self._card.crop)]

    def scores(
        self, rows: Sequence[np.ndarray], pts: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, Candidates | None]:
        """Average logits (T, K) over each window and its overlapping neighbours; then softmax."""
        logits = torch.from_numpy(rows[0]).double()
        padded = torch.cat([logits[:1], logits, logits[-1:]])
        smooth = (padded[:-2] + 2 * logits + padded[2:]) / 4
        return torch.softmax(smooth, dim=1).float().numpy(), pts[0], None


def load_scorer(
    models: Sequence[str | Path], device: str, encoder: Encoder | None, precision: Precision
) -> Scorer:
    """Load students, or without one an encoder's own classes, with the encoders that they need.

    Args:
        models: run folders or weights files of students, or one file of ``vidkd fuse``; or none.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.
        encoder: what to use instead of the encoders that the models name.
        precision: of encoders of RGB that are loaded here.

    Raises:
        UsageError: there is no such device or precision, a student was trained on what a video
            alone does not give, or the encoder has no classes.
        WeightsError: weights cannot be read or fetched, or do not belong together.
    """
    place = select_device(device)
    if not models:
        if encoder is None:
            ensure_weights(DEFAULT_ENCODER)
            encoder = load_encoder(DEFAULT_ENCODER, device, precision)
        return ClassifierScorer(encoder)
    students = StudentScorer(models, place)
    students.load(device, encoder, precision)
    return students
