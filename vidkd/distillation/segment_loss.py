"""The loss of the segment head: which places of its pyramid stand for which event, and how well.

An event is learnt at the level whose range its longer half falls into, by the places near its
middle (centre sampling, Tian et al. 2019, "FCOS"), with the focal loss (Lin et al. 2017) on the
classes and the distance-IoU loss (Zheng et al. 2020), in one dimension, on the borders.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vidkd.networks.segment_head import Level

RANGE = 4.0
"""A level answers for events whose longer half is up to this many of its strides."""
RADIUS = 1.5
"""Places up to this many strides from the middle of an event stand for it."""
MOST_LEVELS = 8
_ALPHA = 0.25
_GAMMA = 2.0


def levels_for(events: Iterable[np.ndarray]) -> int:
    """Return how many levels suit events, so that all but the longest 5 % fall into a range.

    Args:
        events: by video, (N, 3) class, start and end in snippets.
    """
    halves = np.concatenate([np.zeros(0), *((item[:, 2] - item[:, 1]) / 2 for item in events)])
    if not len(halves):
        return 1
    longest = max(float(np.quantile(halves, 0.95)), 1e-6)
    return int(np.clip(1 + math.ceil(math.log2(max(longest / RANGE, 1.0))), 1, MOST_LEVELS))


def segment_losses(
    levels: Sequence[Level], events: Tensor, labelled: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the focal loss and the distance-IoU loss, both per place that stands for an event.

    Args:
        levels: what the head says of B videos.
        events: (E, 4) float32: row of the batch, class, start and end in snippets.
        labelled: (B,) bool: videos with labels; nothing is learnt of the others.
    """
    classification = levels[0].logits.sum() * 0.0
    borders = levels[0].distances.sum() * 0.0
    count = 0
    row, label = events[:, 0].long(), events[:, 1].long()
    for number, level in enumerate(levels):
        event, place, wanted = _matches(events, level, number, len(levels))
        inside = level.mask[row[event], place]
        event, place, wanted = event[inside], place[inside], wanted[:, inside]
        targets = torch.zeros_like(level.logits)
        targets[row[event], label[event], place] = 1.0
        counted = (level.mask & labelled[:, None]).unsqueeze(1)
        classification = classification + (focal_loss(level.logits, targets) * counted).sum()
        borders = borders + distance_iou_loss(level.distances[row[event], :, place].T, wanted).sum()
        count += len(event)
    return classification / max(count, 1), borders / max(count, 1)


def _matches(
    events: Tensor, level: Level, number: int, levels: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pairs of event and place at one level, and their distances (2, N) in strides."""
    places = torch.arange(level.logits.shape[-1], device=events.device) + 0.5
    start, end = events[:, 2:3] / level.stride, events[:, 3:4] / level.stride
    half = (end - start) / 2
    # An event shorter than a stride still has the place it lies at.
    near = (places - start - half).abs() <= half.clamp(0.5, RADIUS)
    longer = torch.maximum(places - start, end - places)
    lowest = RANGE / 2 if number else 0.0
    highest = RANGE if number < levels - 1 else math.inf
    event, place = torch.nonzero(near & (longer >= lowest) & (longer < highest), as_tuple=True)
    middle = places[place]
    wanted = torch.stack([middle - start[event, 0], end[event, 0] - middle]).clamp(min=0.0)
    return event, place, wanted


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the focal loss of each number, alpha 0.25 and gamma 2 (Lin et al. 2017, Eq. 5).

    Args:
        logits: of any shape.
        targets: of the same shape, 0 or 1.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    wrong = (logits.sigmoid() - targets).abs()
    weight = _ALPHA * targets + (1 - _ALPHA) * (1 - targets)
    return weight * wrong**_GAMMA * entropy


def distance_iou_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Return 1 - IoU + (distance of the middles / length of the hull)^2 for each of N pairs.

    Args:
        found: (2, N) distances from a place to start and end, at least 0.
        wanted: the same of the event.
    """
    shared = torch.minimum(found, wanted).sum(0)
    union = (found.sum(0) + wanted.sum(0) - shared).clamp(min=1e-6)
    hull = torch.maximum(found, wanted).sum(0).clamp(min=1e-6)
    apart = ((found[1] - found[0]) - (wanted[1] - wanted[0])) / 2
    return 1 - shared / union + (apart / hull) ** 2
