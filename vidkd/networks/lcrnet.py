"""LCR-Net++ (Rogez, Weinzaepfel and Schmid 2019): localisation, classification, regression.

A Faster R-CNN whose classes are anchor poses. For every region it gives the probability of each
anchor pose and of the background, and for each anchor pose the 2D and 3D joints of the person,
relative to that anchor pose placed in the region.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign

from vidkd.networks.lcrnet_backbones import InceptionPyramid, ResNet50Pyramid
from vidkd.networks.weights import load_state
from vidkd.recipe import Settings

JOINTS = 13
REGRESSION_SCALE = 5.0
"""The raw regression is divided by this: with it, a typical correction is of the order of one."""
DIVISOR = 32
"""Sides of the network's input are multiples of this, the largest stride of the small backbone."""

Backbone = Literal["inception", "resnet50-fpn", "resnet50-fpn-detectron"]


class PoseNetSettings(Settings):
    """The architecture of a pose detector, and what it expects of a picture."""

    backbone: Backbone = "inception"
    full: Annotated[int, Field(ge=1, le=1000)] = 20
    """Number of anchor poses of the full body."""
    upper: Annotated[int, Field(ge=0, le=1000)] = 8
    """Number of anchor poses of the upper body, which come after those."""
    short_side: Annotated[int, Field(ge=64, le=2160)] = 192
    """Pixels of the shorter side of what the network sees."""
    long_side: Annotated[int, Field(ge=64, le=4096)] = 384
    """Largest number of pixels of the longer side."""
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    """Red, green and blue that become zero."""
    deviation: tuple[float, float, float] = (127.5, 127.5, 127.5)
    bgr: bool = False
    """The network wants blue, green, red; ``mean`` and ``deviation`` stay red, green, blue."""
    proposals: Annotated[int, Field(ge=1, le=2000)] = 24
    """Regions looked at in each picture."""

    @property
    def poses(self) -> int:
        """Number of anchor poses, K."""
        return self.full + self.upper


@dataclass(frozen=True)
class Regions:
    """What the network says about the regions of one picture."""

    boxes: Tensor
    """(R, 4) x0, y0, x1, y1 in pixels of the network's input."""
    scores: Tensor
    """(R, K) probability of each anchor pose; what is missing to 1 is background."""
    poses_2d: Tensor
    """(R, K, 13, 2) pixels of the network's input."""
    poses_3d: Tensor
    """(R, K, 13, 3) metres."""


def centred_anchors(stride: int, sizes: tuple[float, ...], ratios: tuple[float, ...]) -> Tensor:
    """Return anchors (A, 4) of the cell at the origin, around its middle, of Detectron's sizes.

    torchvision's lie around the first corner of the cell, half a stride off. Detectron rounds the
    sides for the side ``stride`` and scales them to the sizes afterwards.

    Args:
        stride: of the level.
        sizes: sides of the square anchors.
        ratios: height / width.
    """
    rows = []
    for ratio in ratios:
        width = round(stride / ratio**0.5)
        height = round(width * ratio)
        for size in sizes:
            half = torch.tensor([width, height], device="cpu") * size / stride / 2
            rows.append(torch.cat([stride / 2 - half, stride / 2 + half]))
    return torch.stack(rows)


class SmallHead(nn.Module):
    """Region features (R, C, 7, 7) to (R, 224)."""

    dim = 224

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 96, 3, 1, 1, bias=False),
            nn.BatchNorm2d(96),
            nn.ReLU(inplace=True),
            nn.Conv2d(96, 128, 3, 2, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(128 * 16, self.dim),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (R, C, 7, 7) to (R, 224)."""
        features: Tensor = self.layers(x)
        return features


class TwoLayerHead(nn.Module):
    """Region features (R, C, 7, 7) to (R, 1024) through two linear layers, as in Detectron."""

    dim = 1024

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels * 49, self.dim)
        self.fc2 = nn.Linear(self.dim, self.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (R, C, 7, 7) to (R, 1024)."""
        return functional.relu(self.fc2(functional.relu(self.fc1(x.flatten(1)))))


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's, with regions that are neither person nor background while it learns.

    What it draws of a picture does not depend on the others of the batch, and its losses are shares
    in those of a batch that several processes may have divided.
    """

    ignored: list[Tensor] | None = None
    """For each picture of the batch the boxes (I, 4) to leave out, while training."""
    generators: Sequence[torch.Generator] = ()
    """For each picture what anchors are drawn with, while training."""
    total: Callable[[Tensor], Tensor] = staticmethod(lambda count: count)
    """Adds up a count over all parts of the batch."""

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As torchvision; anchors that lie mostly in an ignored box get the label -1."""
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        if self.ignored is not None:
            for label, own, ignored in zip(labels, anchors, self.ignored, strict=True):
                label[(label == 0) & (covered(own, ignored) > 0.5)] = -1.0
        return labels, boxes

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """As torchvision, means over the anchors drawn in the whole batch."""
        sampler, start = self.fg_bg_sampler, 0
        most = int(sampler.batch_size_per_image * sampler.positive_fraction)
        parts: tuple[list[Tensor], list[Tensor]] = ([], [])
        for label, generator in zip(labels, self.generators, strict=True):
            positive = drawn(torch.where(label >= 1)[0], most, generator)
            rest = sampler.batch_size_per_image - len(positive)
            negative = drawn(torch.where(label == 0)[0], rest, generator)
            for part, rows in zip(parts, (positive, negative), strict=True):
                part.append(rows + start)
            start += len(label)
        positive = torch.cat(parts[0])
        rows = torch.cat([positive, *parts[1]])
        count = self.total(objectness.new_tensor(float(len(rows)))).clamp(min=1.0)
        boxes = functional.smooth_l1_loss(
            pred_bbox_deltas[positive],
            torch.cat(regression_targets)[positive],
            beta=1 / 9,
            reduction="sum",
        )
        logits = objectness.flatten()[rows]
        found = functional.binary_cross_entropy_with_logits(
            logits, torch.cat(labels)[rows], reduction="sum"
        )
        return found / count, boxes / count


def drawn(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return at most ``count`` of some rows, drawn at random."""
    if len(rows) <= count:
        return rows
    return rows[torch.randperm(len(rows), generator=generator)[:count].to(rows.device)]


def covered(boxes: Tensor, ignored: Tensor) -> Tensor:
    """Return for each box (B, 4) the largest share of it that one of (I, 4) covers: (B,)."""
    if not len(ignored):
        return boxes.new_zeros(len(boxes))
    first = torch.maximum(boxes[:, None, :2], ignored[None, :, :2])
    last = torch.minimum(boxes[:, None, 2:], ignored[None, :, 2:])
    common = (last - first).clamp(min=0).prod(dim=-1)
    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=-1)
    return (common / area.clamp(min=1e-6)[:, None]).amax(dim=1)


class LCRNet(nn.Module):
    """The pose detector's network; what is done with its regions is in ``vidkd.pose``.

    The anchor poses are buffers, so that they travel with the weights: ``anchors_2d``
    (K, 13, 2) as a fraction of the region's box, ``anchors_3d`` (K, 13, 3) in metres.
    """

    anchors_2d: Tensor
    anchors_3d: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, settings: PoseNetSettings) -> None:
        super().__init__()
        self.settings = settings
        count = settings.poses
        self.backbone, self.rpn, self.pool, self.head = _parts(settings)
        self.classifier = nn.Linear(self.head.dim, count + 1)
        self.regressor = nn.Linear(self.head.dim, count * JOINTS * 5)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        nn.init.normal_(self.regressor.weight, std=0.001)
        nn.init.zeros_(self.regressor.bias)
        self.register_buffer("anchors_2d", torch.zeros(count, JOINTS, 2))
        self.register_buffer("anchors_3d", torch.zeros(count, JOINTS, 3))
        for name in ("mean", "deviation"):
            values = torch.tensor(getattr(settings, name), device="cpu").view(3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Map pictures (N, 3, H, W) of RGB in [0, 255], H and W multiples of 32, to maps."""
        x = (images - self.mean) / self.deviation
        if self.settings.bgr:
            x = x.flip(1)
        maps: dict[str, Tensor] = self.backbone(x.contiguous(memory_format=torch.channels_last))
        return maps

    def regions(
        self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Return class logits (R, K + 1), background first, and raw regression (R, K, 13, 5).

        The regression of a joint is x and y in boxes and x, y, z in metres, times 5.
        """
        x = self.head(self.pool(maps, boxes, sizes))
        raw = self.regressor(x).view(len(x), self.settings.poses, 5, JOINTS)
        return self.classifier(x), raw.transpose(2, 3)

    @torch.no_grad()
    def forward(self, images: Tensor, sizes: list[tuple[int, int]]) -> list[Regions]:
        """Find people.

        Args:
            images: (N, 3, H, W) RGB in [0, 255], padded below and right to multiples of 32.
            sizes: height and width of each picture without its padding.
        """
        maps = self.features(images)
        boxes, _ = self.rpn(ImageList(images, sizes), maps)
        logits, raw = self.regions(maps, boxes, sizes)
        counts = [len(own) for own in boxes]
        scores = logits.float().softmax(dim=1)[:, 1:]
        result = []
        for own, score, values in zip(
            boxes, scores.split(counts), raw.float().split(counts), strict=True
        ):
            poses_2d, poses_3d = decode(own, values, self.anchors_2d, self.anchors_3d)
            result.append(Regions(own, score, poses_2d, poses_3d))
        return result


def with_weights(settings: PoseNetSettings, state: dict[str, Tensor], path: str | Path) -> LCRNet:
    """Return a network in evaluation mode that takes over the tensors of ``state``.

    Raises:
        WeightsError: a tensor is missing, unknown, or of another shape.
    """
    # Random weights, which all get replaced, would take longer than everything else.
    with torch.device("meta"):
        network = LCRNet(settings)
    load_state(network, state, path, assign=True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked = torch.zeros((), dtype=torch.long)
    return network.eval()


def decode(
    boxes: Tensor, raw: Tensor, anchors_2d: Tensor, anchors_3d: Tensor
) -> tuple[Tensor, Tensor]:
    """Turn regression into joints: the anchor pose placed in the box, plus the regression / 5.

    Args:
        boxes: (R, 4).
        raw: (R, K, 13, 5).
        anchors_2d: (K, 13, 2), fractions of the box.
        anchors_3d: (K, 13, 3) metres.

    Returns:
        joints (R, K, 13, 2) in the coordinates of the boxes, and (R, K, 13, 3) in metres.
    """
    deltas = raw / REGRESSION_SCALE
    corner, size = boxes[:, None, None, :2], (boxes[:, 2:] - boxes[:, :2])[:, None, None]
    return corner + (anchors_2d + deltas[..., :2]) * size, anchors_3d + deltas[..., 2:]


def encode(
    boxes: Tensor, poses_2d: Tensor, poses_3d: Tensor, anchors_2d: Tensor, anchors_3d: Tensor
) -> Tensor:
    """Return the raw regression (R, K, 13, 5) that :func:`decode` turns into given joints.

    Args:
        boxes: (R, 4); a side below one pixel counts as one.
        poses_2d: (R, 13, 2) in the coordinates of the boxes.
        poses_3d: (R, 13, 3) metres.
        anchors_2d: (K, 13, 2).
        anchors_3d: (K, 13, 3).
    """
    corner, size = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2]).clamp(min=1.0)[:, None]
    relative = ((poses_2d - corner) / size)[:, None] - anchors_2d
    return REGRESSION_SCALE * torch.cat([relative, poses_3d[:, None] - anchors_3d], dim=-1)


def _parts(
    settings: PoseNetSettings,
) -> tuple[nn.Module, ProposalNetwork, MultiScaleRoIAlign, SmallHead | TwoLayerHead]:
    small = settings.backbone == "inception"
    backbone: InceptionPyramid | ResNet50Pyramid
    head: SmallHead | TwoLayerHead
    if small:
        backbone = InceptionPyramid()
        sizes: tuple[tuple[float, ...], ...] = ((24.0, 40.0), (64.0, 96.0), (136.0, 192.0))
        ratios: tuple[float, ...] = (1.0, 2.0)
        # People are small here: half the usual size moves a region to the next level.
        pool = MultiScaleRoIAlign(["0", "1"], 7, 2, canonical_scale=112)
        head = SmallHead(backbone.channels)
    else:
        backbone = ResNet50Pyramid(stride_in_1x1=settings.backbone == "resnet50-fpn-detectron")
        sizes, ratios = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,)), (0.5, 1.0, 2.0)
        pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
        head = TwoLayerHead(backbone.channels)
    anchors = AnchorGenerator(sizes, (ratios,) * len(sizes))
    anchors.cell_anchors = [
        centred_anchors(stride, own, ratios)
        for stride, own in zip(backbone.strides, sizes, strict=True)
    ]
    rpn = ProposalNetwork(
        anchors,
        RPNHead(backbone.channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.6 if small else 0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=64 if small else 256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 250 if small else 2000, "testing": 100 if small else 1000},
        post_nms_top_n={"training": 60 if small else 1000, "testing": settings.proposals},
        nms_thresh=0.7,
    )
    return backbone, rpn, pool, head
