"""What the pose detector learns from: regions and their anchor poses, and the losses on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from vidkd.networks.lcrnet import JOINTS, LCRNet, covered, drawn, encode
from vidkd.pose.anchors import AnchorPoses, nearest_anchors, person_box
from vidkd.pose.labels import LabelledPerson
from vidkd.pose.proposals import MODE_RADIUS

REGIONS = 24
"""Regions of each picture that the loss is computed on."""
FOREGROUND = 0.5
"""Largest share of them on people, and the least overlap of those with a person's box."""
BACKGROUND = 0.4
"""Largest overlap of a region that counts as background."""
_BETA = 0.1
"""Where the smooth L1 loss turns from square to absolute: 2 percent of a box, or 2 cm."""


@dataclass(frozen=True)
class Targets:
    """The people of one picture, as tensors."""

    boxes: Tensor
    """(P, 4) in pixels of the network's input."""
    classes: Tensor
    """(P,) anchor pose of each, counted from 1; 0 is the background."""
    taught: Tensor
    """(P, K) bool, the anchor poses whose regression learns from the person: its own and all others
    within the radius in which poses are averaged afterwards."""
    joints_2d: Tensor
    """(P, 13, 2) pixels; zero where unknown."""
    joints_3d: Tensor
    """(P, 13, 3) metres; zero where unknown."""
    weights: Tensor
    """(P, 13, 5) of the five numbers of each joint; zero where unknown."""
    ignored: Tensor
    """(I, 4) boxes of people of whom too little is seen to learn from."""

    def beside(self, other: Targets, offset: float) -> Targets:
        """Return the targets of two pictures side by side, the other ``offset`` pixels right."""
        shift = torch.tensor([offset, 0.0])
        moved = {
            "boxes": other.boxes + shift.repeat(2),
            "joints_2d": other.joints_2d + shift,
            "ignored": other.ignored + shift.repeat(2),
        }
        return Targets(
            **{
                name: torch.cat([value, moved.get(name, getattr(other, name))])
                for name, value in vars(self).items()
            }
        )


def make_targets(
    people: Sequence[LabelledPerson], size: tuple[int, int], anchors: AnchorPoses
) -> Targets:
    """Prepare the people of a picture (height, width) for the losses."""
    found = [person_box(person.joints_2d, person.scores, size) for person in people]
    own = [p for p, box in zip(people, found, strict=True) if box]
    rest = [p for p, box in zip(people, found, strict=True) if not box]
    boxes = np.array([box[0] for box in found if box], np.float32).reshape(-1, 4)
    full = np.array([box[1] for box in found if box], bool)
    pixels = np.array([p.joints_2d for p in own], np.float32).reshape(-1, JOINTS, 2)
    points = np.array([p.joints_3d for p in own], np.float32).reshape(-1, JOINTS, 3)
    scores = np.array([p.scores for p in own], np.float32).reshape(-1, JOINTS, 1)
    relative = (pixels - boxes[:, None, :2]) / (boxes[:, 2:] - boxes[:, :2])[:, None]
    classes, apart = nearest_anchors(relative, points, full, anchors)
    taught = apart <= MODE_RADIUS
    taught[np.arange(len(own)), classes] = True
    known_2d = ~np.isnan(pixels).any(axis=-1, keepdims=True)
    known_3d = ~np.isnan(points).any(axis=-1, keepdims=True)
    both = scores * known_2d, np.maximum(scores, 0.3) * known_3d
    weights = np.concatenate([np.repeat(both[0], 2, -1), np.repeat(both[1], 3, -1)], axis=-1)
    values = (
        *(boxes, classes.astype(np.int64) + 1, taught, np.nan_to_num(pixels)),
        *(np.nan_to_num(points), weights.astype(np.float32), _extents(rest, size)),
    )
    return Targets(*map(torch.from_numpy, values))


def _extents(people: Sequence[LabelledPerson], size: tuple[int, int]) -> np.ndarray:
    rows = []
    for person in people:
        known = person.joints_2d[~np.isnan(person.joints_2d).any(axis=1)]
        if not len(known):
            continue
        low, high = known.min(axis=0), known.max(axis=0)
        margin = 0.15 * (high - low).max()
        first = np.clip(low - margin, 0, size[::-1])
        last = np.clip(high + margin, 0, size[::-1])
        if (last > first).all():
            rows.append([*first, *last])
    return np.array(rows, np.float32).reshape(-1, 4)


def sample_regions(
    proposals: Tensor, targets: Targets, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw the regions of one picture to learn from, of proposals (R, 4).

    Returns:
        boxes (S, 4), and (S,) the person each is of, -1 for the background.
    """
    boxes = torch.cat([proposals, targets.boxes.to(proposals)])
    if len(targets.boxes):
        best, person = box_iou(boxes, targets.boxes.to(boxes)).max(dim=1)
    else:
        best = boxes.new_zeros(len(boxes))
        person = torch.zeros(len(boxes), dtype=torch.long, device=boxes.device)
    positive = torch.nonzero(best >= FOREGROUND).squeeze(1)
    free = covered(boxes, targets.ignored.to(boxes)) <= 0.5
    negative = torch.nonzero((best < BACKGROUND) & free).squeeze(1)
    positive = drawn(positive, round(FOREGROUND * REGIONS), generator)
    negative = drawn(negative, REGIONS - len(positive), generator)
    rows = torch.cat([positive, negative])
    return boxes[rows], torch.cat([person[positive], torch.full_like(negative, -1)])


def losses(
    network: LCRNet,
    images: Tensor,
    targets: Sequence[Targets],
    generators: Sequence[torch.Generator],
    dtype: torch.dtype = torch.float32,
    total: Callable[[Tensor], Tensor] = lambda count: count,
) -> dict[str, Tensor]:
    """Return the four losses of a batch: ``objectness``, ``box``, ``anchor`` and ``pose``.

    ``network`` is in training mode, ``images`` (N, 3, H, W) are RGB in [0, 255]; ``generators``
    draw regions of each. Convolutions are computed in ``dtype``, losses in float32. Of a batch
    that several processes have divided each gets its share, which add up to the losses of the
    batch; ``total`` adds up a count over the processes.
    """
    device = images.device
    mixed = dtype is not torch.float32
    sizes = [(images.shape[-2], images.shape[-1])] * len(images)
    with torch.autocast(device.type, dtype=dtype if mixed else None, enabled=mixed):
        maps = network.features(images)
    maps = {name: value.float() for name, value in maps.items()}
    network.rpn.ignored = [target.ignored.to(device) for target in targets]
    network.rpn.generators, network.rpn.total = generators, total
    truth = [{"boxes": target.boxes.to(device)} for target in targets]
    boxes, found = network.rpn(ImageList(images, sizes), maps, truth)
    chosen = [
        sample_regions(own.detach(), target, generator)
        for own, target, generator in zip(boxes, targets, generators, strict=True)
    ]
    with torch.autocast(device.type, dtype=dtype if mixed else None, enabled=mixed):
        logits, raw = network.regions(maps, [regions for regions, _ in chosen], sizes)
    anchor, pose = region_losses(network, logits.float(), raw.float(), chosen, targets, total)
    return {
        "objectness": found["loss_objectness"],
        "box": found["loss_rpn_box_reg"],
        "anchor": anchor,
        "pose": pose,
    }


def region_losses(
    network: LCRNet,
    logits: Tensor,
    raw: Tensor,
    chosen: Sequence[tuple[Tensor, Tensor]],
    targets: Sequence[Targets],
    total: Callable[[Tensor], Tensor] = lambda count: count,
) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy over anchor poses, and the smooth L1 loss of the joints.

    The second is the mean over the joints of all people in the chosen regions, 2D and 3D added.
    ``logits`` (S, K + 1) and ``raw`` (S, K, 13, 5) are of the regions that :func:`sample_regions`
    has chosen in each picture; for ``total`` see :func:`losses`.
    """
    device = logits.device
    person = torch.cat([rows for _, rows in chosen])
    positive = person >= 0
    parts: dict[str, list[Tensor]] = {}
    for (regions, rows), target in zip(chosen, targets, strict=True):
        own = rows[rows >= 0].cpu()
        parts.setdefault("boxes", []).append(regions[rows >= 0])
        for name in ("classes", "taught", "joints_2d", "joints_3d", "weights"):
            parts.setdefault(name, []).append(getattr(target, name)[own].to(device))
    values = {name: torch.cat(items) for name, items in parts.items()}
    classes = torch.zeros(len(person), dtype=torch.long, device=device)
    classes[positive] = values["classes"]
    count = total(logits.new_tensor(float(len(classes)))).clamp(min=1.0)
    anchor = functional.cross_entropy(logits, classes, reduction="sum") / count
    wanted = encode(
        values["boxes"],
        values["joints_2d"],
        values["joints_3d"],
        network.anchors_2d,
        network.anchors_3d,
    )
    # Joints far outside of a small region must not decide what is learnt.
    errors = functional.smooth_l1_loss(
        raw[positive], wanted.clamp(-10, 10), reduction="none", beta=_BETA
    )
    weights = values["taught"][:, :, None, None] * values["weights"][:, None]
    pose = (errors * weights).sum() / total(weights.sum()).clamp(min=1.0) * 5.0
    return anchor, pose
