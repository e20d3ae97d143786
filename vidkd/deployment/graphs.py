"""What is exported, as modules that `torch.export` can follow for any number of snippets.

They compute what :class:`vidkd.detection.scorers.StudentScorer` and
:func:`vidkd.detection.segments.shown_segments` do, which the tests compare, up to the last step:
which of the overlapping proposals of a segment head are shown is decided one after the other, in
``run.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidkd.detection.fusion import Fusion
from vidkd.networks.encoders import EncoderNetwork
from vidkd.networks.segment_head import Level
from vidkd.networks.streaming import StreamingFilter
from vidkd.recipe import ModelCard
from vidkd.streams.encode import network_input

# Below these nothing counts: vidkd.detection.student, vidkd.networks.segment_head and
# vidkd.evaluation.calibration.
_LEAST_PROBABILITY = 1e-7
_LEAST_PROPOSAL = 1e-3
_BLOCKS = 15
"""Proposals are painted in blocks of 1 to 2**14 snippets, of which two cover hours of video."""


class SnippetGraph(nn.Module):
    """The encoder with all that comes before it but the resize.

    Args:
        network: the encoder in the form it is trained in.
        card: its card.
        crop: side of the square in the middle that it sees.
    """

    def __init__(self, network: EncoderNetwork, card: ModelCard, crop: int) -> None:
        super().__init__()
        self.network, self._card, self._crop = network.requires_grad_(False), card, crop

    def forward(self, frames: Tensor) -> tuple[Tensor]:
        """Map frames (B, length, H, W, 3) uint8 to features (B, D), as the only output."""
        places = torch.arange(self._crop)
        for dim in (2, 3):
            frames = frames.index_select(dim, places + (frames.shape[dim] - self._crop) // 2)
        return (self.network.features(network_input(frames, self._card, frames.device)),)


class SequenceGraph(nn.Module):
    """Filter, segment head, calibration, fusion and grouping of one video.

    Args:
        fusion: the students, which take the same features.
    """

    def __init__(self, fusion: Fusion) -> None:
        super().__init__()
        self._settings = fusion.segments
        self.students = nn.ModuleList(_Student(fusion, n) for n in range(len(fusion.students)))
        self._heads = all(student.module.head is not None for student in fusion.students)
        heads = [s.module.head for s in fusion.students if s.module.head is not None]
        self._unit = 8 << max((len(head.norms) for head in heads), default=0)
        self._single = fusion.single
        self.shift = nn.Buffer(_shift(fusion.thresholds, len(fusion.classes)))

    def forward(
        self, features: Tensor, times: Tensor, threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Find the segments of one video.

        Args:
            features: (T, D) float32.
            times: (T, 2) float64, start and end second of every snippet.
            threshold: () float64, that a segment has to reach.

        Returns:
            scores (T, K) float32 in [0, 1], and of N segments the number of the class, the score,
            the start and the end second. Those of a class overlap where there is a segment head.
        """
        count = features.shape[0]
        # Whole units, so that no size in between is odd or 1 for some T.
        length = ((count + self._unit - 1) // self._unit + 1) * self._unit
        padding = (0, 0, 0, length - count)
        valid = torch.arange(length) < count
        rows = nn.functional.pad(features, padding)[None]
        found = [student(rows, valid[None]) for student in self.students]
        if self._single:
            logits = found[0][0]
        else:
            logits = torch.stack([own[0] for own in found]).sum(0).float()
        scores = torch.sigmoid(logits - self.shift)
        borders = _borders(nn.functional.pad(times, padding), valid)
        if self._heads:
            ranks = torch.cat([own[1] for own in found], 1)
            ends = torch.cat([own[2] for own in found], 1)
            label, place = torch.nonzero((ranks >= threshold) & (ranks > 0)).unbind(1)
            start, end = _seconds(ends[:, place], borders, valid.sum()).unbind(0)
            segments = label, ranks[label, place], start, end
        else:
            segments = self._runs(scores.double(), valid, borders, threshold)
        return scores[:count], *segments

    def _runs(
        self, scores: Tensor, valid: Tensor, borders: Tensor, threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Group scores (T, K) by hysteresis; see ``vidkd.detection.segments.clear_segments``."""
        active = ((scores >= self._settings.release * threshold) & valid[:, None]).T
        first = active & ~nn.functional.pad(active, (1, 0))[:, :-1]
        label, begin = torch.nonzero(first).unbind(1)
        runs = label.shape[0]
        # Of every snippet the run it lies in; those in none go into one more.
        run = first.flatten().long().cumsum(0) - 1
        run = torch.where(active.flatten(), run, runs)
        width = borders[1:] - borders[:-1]

        def total(values: Tensor) -> Tensor:
            whole = values.expand(active.shape).flatten()
            return whole.new_zeros(runs + 1).scatter_add(0, run, whole)[:runs]

        seconds, area = total(width), total(scores.T * width)
        reached = total((threshold <= scores.T).double()) > 0
        keep = reached & (seconds >= self._settings.minimum_seconds - 1e-9)
        chosen = torch.nonzero(keep)[:, 0]
        label, begin = label[chosen], begin[chosen]
        last = begin + total(active.double())[chosen].long()
        return label, (area / seconds)[chosen], borders[begin], borders[last]


class _Student(nn.Module):
    """One student, in the columns of the fusion.

    Args:
        fusion: the students.
        number: of this one.
    """

    def __init__(self, fusion: Fusion, number: int) -> None:
        super().__init__()
        student = fusion.students[number]
        header = student.header
        self.filter = student.module
        self.scale, self.bias = _affine(header.calibration, len(header.classes), torch.float32)
        pairs = header.segment_calibration
        self._calibrated = header.calibration is not None, pairs is not None
        self.segment_scale, self.segment_bias = _affine(pairs, len(header.classes), torch.float64)
        # Probabilities have the threshold 0.5 already.
        shifts = None if header.calibration else header.segment_thresholds
        self.odds = nn.Buffer(_shift(shifts, len(header.classes)).double().exp()[:, None])
        places = [fusion.classes.index(name) for name in header.classes]
        self.columns = nn.Buffer(
            torch.eye(len(fusion.classes), dtype=torch.float64)[places]
            * torch.from_numpy(fusion.weights[number])
        )
        self._single = fusion.single

    def forward(self, rows: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map features (1, T, D) to logits (T, K), and scores (K, P) and ends (2, P) of proposals.

        The logits of several students are float64, and have their weights in the fusion; P is 0
        without a segment head.
        """
        output = self.filter(rows, mask)
        logits, levels = output.logits[0], self.filter.segments(output, mask)
        ranks = ends = rows.new_zeros(0, 0)
        if levels:
            ranks, ends = _proposals(levels, mask.sum())
            dense = _painted(ranks, ends, mask.shape[1])
            both = (torch.sigmoid(logits.double()) + dense.double()) / 2
            both = both.clamp(_LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
            logits = torch.log(both / (1 - both)).float()
            ranks = self._ranks(ranks)
        if self._calibrated[0]:
            logits = self.scale * logits + self.bias
        return (logits if self._single else logits.double() @ self.columns), ranks, ends

    def _ranks(self, score: Tensor) -> Tensor:
        """Return scores (K, P) of proposals as they are shown; what is 0 stays so."""
        rank = score
        if self._calibrated[1]:
            own = score.double().clamp(_LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
            logits = self.segment_scale[:, None] * torch.log(own / (1 - own))
            rank = torch.sigmoid(logits + self.segment_bias[:, None]).float()
        rank = rank.double()
        rank = torch.where(score > 0, rank / (rank + (1 - rank) * self.odds), 0.0)
        return rank if self._single else (self.columns > 0).double().T @ rank


def _proposals(levels: Sequence[Level], count: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores (K, P) float32, 0 for what is none, and ends (2, P) float64 in snippets."""
    scores, ends = [], []
    for level in levels:
        middle = (torch.arange(level.logits.shape[2]).double() + 0.5) * level.stride
        reach = (level.distances[0].float() * level.stride).double()
        own = torch.stack([middle - reach[0], middle + reach[1]])
        own = torch.minimum(own.clamp(min=0), count.double())
        rank = torch.sigmoid(level.logits[0].float()) * level.mask[0]
        some = (rank > _LEAST_PROPOSAL) & (own[1] > own[0])
        scores.append(torch.where(some, rank, 0.0))
        ends.append(own)
    return torch.cat(scores, 1), torch.cat(ends, 1)


def _painted(scores: Tensor, ends: Tensor, length: int) -> Tensor:
    """Return (T, K): the best of scores (K, P) whose ends (2, P) hold the middle of a snippet.

    Each is written into two blocks of a power of two that begin and end with it, and the best of
    every block is handed down to its halves: no step grows with the length of a proposal.
    """
    first, last = torch.ceil(ends - 0.5).long().unbind(0)
    size = last - first
    powers = 2 ** torch.arange(_BLOCKS)
    level = (size[:, None] >= powers[1:]).sum(1)
    index = torch.cat([level * length + first, level * length + last - powers[level]])
    # What covers no middle is written where it changes nothing.
    some = size > 0
    values = torch.where(some, scores, 0.0).T
    index = torch.where(torch.cat([some, some]), index, 0)
    blocks = values.new_zeros(_BLOCKS * length, values.shape[1]).scatter_reduce(
        0, index[:, None].expand(-1, values.shape[1]), torch.cat([values, values]), "amax"
    )
    places = torch.arange(length)
    best, *smaller = blocks.unflatten(0, (_BLOCKS, length)).flip(0).unbind(0)
    for number, own in enumerate(smaller, 2):
        place = places - (1 << (_BLOCKS - number))
        half = torch.where((place >= 0)[:, None], best[place.clamp(min=0)], 0.0)
        best = torch.maximum(torch.maximum(best, half), own)
    return best


def _borders(times: Tensor, valid: Tensor) -> Tensor:
    """Return the borders (T + 1,) of snippets (T, 2); see ``vidkd.detection.segments``."""
    start, end = times.unbind(1)
    after = torch.cat([valid[1:], valid.new_zeros(1)])
    following = torch.where(after, torch.cat([start[1:], start.new_zeros(1)]), end)
    return torch.cat([start[:1], (end + following) / 2])


def _seconds(cells: Tensor, borders: Tensor, count: Tensor) -> Tensor:
    """Return the seconds of places (2, N) between the borders of ``count`` snippets."""
    whole = torch.minimum(cells.long(), count - 1)
    return borders[whole] + (cells - whole) * (borders[whole + 1] - borders[whole])


def _affine(
    pairs: Sequence[tuple[float, float]] | None, classes: int, kind: torch.dtype
) -> tuple[nn.Buffer, nn.Buffer]:
    """Return scales and biases (K,); those that change nothing without pairs."""
    values: Any = torch.tensor(pairs or [(1.0, 0.0)] * classes, dtype=kind)
    return nn.Buffer(values[:, 0].contiguous()), nn.Buffer(values[:, 1].contiguous())


def _shift(thresholds: Any, classes: int) -> Tensor:
    """Return the logits (K,) that thresholds have; zeros without."""
    if thresholds is None:
        return torch.zeros(classes)
    return torch.logit(torch.tensor(thresholds, dtype=torch.float32))


class StreamGraph(nn.Module):
    """A causal student, snippet by snippet.

    Args:
        fusion: of this student alone, which has no segment head.
    """

    def __init__(self, fusion: Fusion) -> None:
        super().__init__()
        header = fusion.students[0].header
        self.stream = StreamingFilter(fusion.students[0].module)
        self.scale, self.bias = _affine(header.calibration, len(header.classes), torch.float32)
        self.shift = nn.Buffer(_shift(fusion.thresholds, len(fusion.classes)))

    def forward(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Map the next features (B, D) of every stream, and the state, to scores and state."""
        logits, *following = self.stream(features, *state)
        return torch.sigmoid(self.scale * logits + self.bias - self.shift), *following
