"""Backbones of the pose detector: a picture in, a pyramid of feature maps out."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet50
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from vidkd.networks.i3d import (
    CONVOLUTIONS,
    END_POINTS,
    I3D,
    INCEPTIONS,
    POOLS,
    Inception,
    Unit,
    same_padding,
)
from vidkd.networks.i3d_inference import fused_convolution_available, largest_neighbours

FROZEN = ("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3", "Mixed_3b", "Mixed_3c")
"""Layers of a pretrained Inception that stay as they are: general, and half of the computation."""
_LAST = "Mixed_4f"
_TAPS = ("Mixed_3c", _LAST)


def _for_inference(x: Tensor) -> bool:
    """Tell whether what a CPU does faster, but without gradients and in float32 alone, will do."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled()


class Unit2d(nn.Module):
    """Convolution and ReLU with TensorFlow's padding; the normalisation is folded in."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        border = kernel // 2
        if stride > 1:
            sides = [p for n in (x.shape[3], x.shape[2]) for p in same_padding(n, kernel, stride)]
            x, border = functional.pad(x, sides), 0
        weight, bias = self.conv.weight, self.conv.bias
        if _for_inference(x) and fused_convolution_available():
            # Convolution and ReLU in one call; `conv2d` takes a slow path for 1x1 kernels.
            geometry = [border, border], [stride, stride], [1, 1], 1
            convolve = torch.ops.mkldnn._convolution_pointwise
            result: Tensor = convolve(x, weight, bias, *geometry, "relu", [], "")
            return result
        return functional.relu(functional.conv2d(x, weight, bias, stride, border))


class Inception2d(Inception):
    """The same for pictures (N, C, H, W)."""

    unit = Unit2d

    def pooled(self, x: Tensor) -> Tensor:
        """Return the largest of the neighbours of every pixel."""
        return largest_neighbours(x) if _for_inference(x) else functional.max_pool2d(x, 3, 1, 1)


class InceptionPyramid(nn.Module):
    """Inception-v1 to Mixed_4f, with a pyramid of strides 8, 16 and 32, for a core of a CPU.

    What I3D (:mod:`vidkd.networks.i3d`) computes from a video that stands still: its weights, which
    know people in motion, are a start that :meth:`load_i3d` takes over.
    """

    strides = (8, 16, 32)
    channels = 64

    def __init__(self) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {}
        for name in self.end_points:
            if name in CONVOLUTIONS:
                inputs, outputs, kernel, stride = CONVOLUTIONS[name]
                layers[name] = Unit2d(inputs or 3, outputs, kernel, stride)
            elif name in INCEPTIONS:
                layers[name] = Inception2d(INCEPTIONS[name])
        self.layers = nn.ModuleDict(layers)
        widths = [sum(INCEPTIONS[name][i] for i in (1, 3, 5, 6)) for name in _TAPS]
        self.pyramid = FeaturePyramidNetwork(widths, self.channels, extra_blocks=LastLevelMaxPool())

    @property
    def end_points(self) -> tuple[str, ...]:
        """Layers in order."""
        return END_POINTS[: END_POINTS.index(_LAST) + 1]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map pictures (N, 3, H, W) in [-1, 1] to maps (N, 64, H / s, W / s)."""
        maps = OrderedDict()
        for name in self.end_points:
            if name in POOLS:
                # At even sizes, "SAME" pads after the end alone, which `ceil_mode` does.
                x = functional.max_pool2d(x, POOLS[name][0][1], 2, ceil_mode=True)
            else:
                x = self.layers[name](x)
            if name in _TAPS:
                maps[str(_TAPS.index(name))] = x
        return dict(self.pyramid(maps))

    def load_i3d(self, network: I3D) -> None:
        """Take over the weights of an I3D for RGB: kernels summed over time, which is exact for
        a video that stands still, with the normalisation folded in."""
        units = {
            name: module
            for name, module in network.layers.named_modules()
            if isinstance(module, Unit)
        }
        with torch.no_grad():
            for name, module in self.layers.named_modules():
                if not isinstance(module, Unit2d):
                    continue
                unit = units[name]
                mean, variance = unit.norm.running_mean, unit.norm.running_var
                assert mean is not None
                assert variance is not None
                factor = unit.norm.weight / torch.sqrt(variance + unit.norm.eps)
                kernel = unit.conv.weight.sum(dim=2) * factor[:, None, None, None]
                module.conv.weight.copy_(kernel)
                bias = unit.norm.bias - mean * factor
                module.conv.bias.copy_(bias)  # type: ignore[union-attr]

    def freeze(self) -> None:
        """Let the layers :data:`FROZEN` stay as they are."""
        for name in FROZEN:
            self.layers[name].requires_grad_(False)


class ResNet50Pyramid(nn.Module):
    """ResNet-50 with a pyramid of strides 4 to 64 (Lin et al. 2017), 256 channels each.

    Args:
        stride_in_1x1: the first, not the second, convolution of a bottleneck has the stride, as
            in the original ResNet and in Detectron.
    """

    strides = (4, 8, 16, 32, 64)
    channels = 256

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
            [256, 512, 1024, 2048], self.channels, extra_blocks=LastLevelMaxPool()
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map pictures (N, 3, H, W) to maps (N, 256, H / s, W / s) for strides 4 to 64."""
        x = self.stem(x)
        maps = OrderedDict()
        for number, stage in enumerate(self.stages):
            x = stage(x)
            maps[str(number)] = x
        return dict(self.pyramid(maps))
