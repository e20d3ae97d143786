"""What one student says of a video: scores of its snippets, and segments if it has a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from vidkd.detection.segments import cell_borders
from vidkd.evaluation.predictions import Candidates
from vidkd.networks.filter_weights import FilterHeader
from vidkd.networks.segment_head import Proposals, proposals
from vidkd.networks.temporal import TemporalFilter

_LEAST = 1e-7


class StudentOutput(NamedTuple):
    """What a student says of T snippets and K classes."""

    logits: np.ndarray
    """(T, K) float32."""
    proposals: Proposals | None
    """Of its segment head, in snippets; None without one."""

    def candidates(self, pts: np.ndarray) -> Candidates | None:
        """Return the proposals in seconds.

        Args:
            pts: (T, 2) start and end second of every snippet.
        """
        if self.proposals is None:
            return None
        found, borders = self.proposals, cell_borders(pts)
        cells = np.arange(len(borders))
        start, end = (np.interp(side, cells, borders) for side in (found.start, found.end))
        return Candidates(found.label, found.score, start, end)

    def calibrated(
        self, header: FilterHeader, pts: np.ndarray
    ) -> tuple[torch.Tensor, Candidates | None]:
        """Return logits (T, K) and proposals in seconds, of probabilities if the header says how.

        Args:
            header: of the student.
            pts: (T, 2) start and end second of every snippet.
        """
        logits, found = torch.from_numpy(self.logits), self.candidates(pts)
        if header.calibration is not None:
            scale, bias = torch.tensor(header.calibration, dtype=torch.float32).T
            logits = scale * logits + bias
        if found is not None and header.segment_calibration is not None:
            found = found.calibrated(header.segment_calibration)
        return logits, found


@torch.inference_mode()
def run_student(
    module: TemporalFilter, rows: torch.Tensor, mask: torch.Tensor
) -> list[StudentOutput]:
    """Run a student on a batch of videos.

    With a segment head the probability of a class is the mean of two: that of the snippet's own
    scores, and the best score of a segment over the snippet. The second is surer within an action,
    the first where no segment was found (docs/experiments.md).

    Args:
        module: in evaluation mode.
        rows: (B, T, D) float32 features.
        mask: (B, T) bool, True at valid snippets, which come first.

    Returns:
        for each video, without its padding.
    """
    output = module(rows, mask)
    levels = module.segments(output, mask)
    logits = output.logits.float().cpu()
    found = []
    for row, count in enumerate(mask.sum(dim=1).tolist()):
        own, inside = logits[row, :count], None
        if levels:
            inside = proposals(levels, row, count)
            dense = torch.from_numpy(inside.dense(count, own.shape[1])).double()
            both = (torch.sigmoid(own.double()) + dense) / 2
            own = torch.logit(both, _LEAST).float()
        found.append(StudentOutput(own.numpy(), inside))
    return found


def pooled(parts: Sequence[Candidates | None]) -> Candidates | None:
    """Return the candidates of several students together; None if one of them has no head."""
    given = [part for part in parts if part is not None]
    if not given or len(given) < len(parts):
        return None
    columns = zip(*((p.label, p.score, p.start, p.end) for p in given), strict=True)
    return Candidates(*(np.concatenate(column) for column in columns))
