"""Average precision in the forms that the protocols use; each is named after its definition.

All of them take a ranking, best first, and give a number in [0, 1].
"""

from __future__ import annotations

import numpy as np


def non_interpolated(hits: np.ndarray, positives: int) -> float:
    """Return the mean, over all positives, of the precision at the rank of each; a miss counts 0.

    Args:
        hits: (N,) bool, whether the entry at each rank is a true positive.
        positives: number of positives in the ground truth; 0 gives NaN.
    """
    if positives == 0:
        return float("nan")
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].sum() / positives)


def interpolated(hits: np.ndarray, positives: int) -> float:
    """Return the area under the precision envelope (PASCAL VOC since 2010, ActivityNet).

    The precision at a recall is the best precision at that recall or a higher one; arguments as
    for :func:`non_interpolated`.
    """
    if positives == 0:
        return float("nan")
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].sum() / positives)


def pku_mmd(partner: np.ndarray, positives: int) -> float:
    """Return the AP as the evaluation script of PKU-MMD computes it.

    The script takes proposals away from the bottom of the ranking. It recomputes precision after
    taking away a matched proposal, but not after an unmatched one, and adds up recall with the
    best precision seen so far. The precision just above a true positive thus never counts at its
    own rank, which is why the result is at or below ``interpolated`` on the same matches.

    Args:
        partner: (N,) number of the ground-truth event that each proposal matches, or -1; several
            proposals may match one event, of which the best one is the true positive.
        positives: number of events in the ground truth; 0 gives NaN.
    """
    if positives == 0:
        return float("nan")
    if len(partner) == 0:
        return 0.0
    hits = first_matches(partner)
    found = np.cumsum(hits)
    count = np.arange(1, len(hits) + 1)
    # Entry i: precision of the i proposals that are left when rank i + 1 has been taken away.
    left = np.concatenate([[0.0], found[:-1] / count[:-1]])
    seen = np.where(partner >= 0, left, 0.0)
    best = np.maximum(np.maximum.accumulate(seen[::-1])[::-1], found[-1] / count[-1])
    return float(best[hits].sum() / positives)


def first_matches(partner: np.ndarray) -> np.ndarray:
    """Return (N,) bool: the best-ranked proposal of every matched event.

    Args:
        partner: (N,) number of the event matched by each proposal, best first, or -1.
    """
    hits = np.zeros(len(partner), dtype=bool)
    matched, first = np.unique(partner, return_index=True)
    hits[first[matched >= 0]] = True
    return hits
