"""Backbones of the pose detector: a picture in, a pyramid of feature maps out."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.resnet import BasicBlock
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

SMALL_WIDTHS = (32, 48, 96, 160, 192)
"""Channels of the stem and of the stages with strides 4, 8, 16 and 32."""
SMALL_BLOCKS = (1, 2, 2, 2)
SMALL_CHANNELS = 96
RESNET50_CHANNELS = 256


class SmallPyramid(nn.Module):
    """A narrow ResNet with a pyramid of strides 8, 16 and 32, for one core of a CPU.

    Plain 3x3 convolutions: per second of a CPU core they compute, and learn, more than the
    depthwise ones of the mobile networks, which wait for memory.
    """

    strides = (8, 16, 32)
    channels = SMALL_CHANNELS

    def __init__(self) -> None:
        super().__init__()
        stem, *widths = SMALL_WIDTHS
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem, 5, 2, 2, bias=False), nn.BatchNorm2d(stem), nn.ReLU(inplace=True)
        )
        self.stages = nn.ModuleList()
        before = stem
        for width, blocks in zip(widths, SMALL_BLOCKS, strict=True):
            first = BasicBlock(before, width, 2, _projection(before, width))
            rest = (BasicBlock(width, width) for _ in range(blocks - 1))
            self.stages.append(nn.Sequential(first, *rest))
            before = width
        self.pyramid = FeaturePyramidNetwork(widths[1:], SMALL_CHANNELS)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map pictures (N, 3, H, W) to maps (N, 96, H / s, W / s) for strides 8, 16, 32."""
        x = self.stem(x)
        maps = OrderedDict()
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number > 0:
                maps[str(number - 1)] = x
        return dict(self.pyramid(maps))


class ResNet50Pyramid(nn.Module):
    """ResNet-50 with a pyramid of strides 4 to 64 (Lin et al. 2017), 256 channels each.

    Args:
        stride_in_1x1: the first, not the second, convolution of a bottleneck has the stride, as
            in the original ResNet and in Detectron.
    """

    strides = (4, 8, 16, 32, 64)
    channels = RESNET50_CHANNELS

    def __init__(self, stride_in_1x1: bool = False) -> None:
        super().__init__()
        body = resnet50(weights=None)
        self.stem = nn.Sequential(body.conv1, body.bn1, body.relu, body.maxpool)
        self.stages = nn.ModuleList([body.layer1, body.layer2, body.layer3, body.layer4])
        if stride_in_1x1:
            for stage in (body.layer2, body.layer3, body.layer4):
                block = stage[0]
                block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
        self.pyramid = FeaturePyramidNetwork(
            [256, 512, 1024, 2048], RESNET50_CHANNELS, extra_blocks=LastLevelMaxPool()
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map pictures (N, 3, H, W) to maps (N, 256, H / s, W / s) for strides 4 to 64."""
        x = self.stem(x)
        maps = OrderedDict()
        for number, stage in enumerate(self.stages):
            x = stage(x)
            maps[str(number)] = x
        return dict(self.pyramid(maps))


def _projection(before: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, width, 1, 2, bias=False), nn.BatchNorm2d(width))
