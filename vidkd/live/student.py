"""A causal student: from the snippets of any number of sources to scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vidkd.detection.fusion import probabilities
from vidkd.detection.scorers import StudentScorer
from vidkd.detection.student import StudentOutput
from vidkd.errors import UsageError
from vidkd.networks import select_device
from vidkd.networks.streaming import StreamingFilter
from vidkd.recipe import Precision
from vidkd.streams import STREAMS
from vidkd.streams.encode import BatchEncoder
from vidkd.streams.encode import Encoder as AnyEncoder

State = tuple[torch.Tensor, ...]


class LiveStudent:
    """A student that scores one snippet after the other, with what `detect` makes of them.

    Args:
        model: its run folder or weights file.
        device: ``auto``, ``cpu`` or ``cuda[:n]``.
        encoder: a loaded encoder to use instead of the one that the student names.
        precision: of the encoder, see ``vidkd.load_encoder``.

    Raises:
        UsageError: it is more than one student, looks at later snippets, or at more than the RGB
            frames.
        WeightsError: weights cannot be read or fetched, or do not belong together.

    Attributes:
        classes: K names.
        threshold: the score that a segment has to reach unless the user says otherwise.
        settings: how scores become segments.
        sampling: how frames are sized and cut into snippets.
        stream: what the encoder sees of them.
        batch_size: snippets that suit the device.
    """

    def __init__(
        self,
        model: str | Path,
        device: str = "auto",
        *,
        encoder: AnyEncoder | None = None,
        precision: Precision = "auto",
    ) -> None:
        place = select_device(device)
        scorer = StudentScorer([model], place)
        if not scorer.fusion.single:
            raise UsageError(
                "holds several students, and live video is for one",
                path=model,
                remedy="name one of them",
            )
        student = scorer.students[0]
        try:
            self._filter = StreamingFilter(student.module)
        except UsageError as error:
            raise UsageError(error.problem, path=model, remedy=error.remedy) from error
        if not STREAMS[student.header.modality].from_rgb:
            raise UsageError(
                f"sees {student.header.modality}, and live video gives RGB frames alone",
                path=model,
                remedy="train a student of RGB; a teacher may see more",
            )
        scorer.load(device, encoder, precision)
        (source,), (self.sampling,) = scorer.sources, scorer.sampling(0)
        self.classes, self.threshold = scorer.classes, scorer.threshold
        self.settings, self.stream = scorer.settings, source.stream
        self.batch_size = source.batch_size(self.sampling.snippet.length)
        self._header, self._thresholds = student.header, scorer.fusion.thresholds
        self._device = place
        prepare = source.stream.prepare(source.encoder.card, source.encoder.device, source.made)
        self._encode = BatchEncoder(source.output, source.encoder.device, prepare)

    def rows(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return features (B, D) float32 of as many snippets, of rows (T, H, W, C)."""
        seen = [self.stream.seen(item, self.sampling.crop) for item in images]
        return self._encode(self._encode.send(np.stack(seen)))

    def start(self) -> State:
        """Return the state of a source before its first snippet."""
        return self._filter.start()

    @torch.inference_mode()
    def scores(self, row: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Return the scores (K,) in [0, 1] of the next snippet's features (D,), and the state."""
        x = torch.from_numpy(row).to(self._device)[None]
        logits, *following = self._filter(x, *state)
        output = StudentOutput(logits.float().cpu().numpy(), None)
        calibrated, _ = output.calibrated(self._header, np.zeros((1, 2)))
        return probabilities(calibrated.numpy(), self._thresholds)[0], tuple(following)
