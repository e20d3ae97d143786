from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch.nn import functional

from vidkd.networks.i3d import I3D
from vidkd.networks.i3d_inference import InferenceI3D, fused_convolution_available
from vidkd.networks.winograd import INPUT, KERNEL, OUTPUT, TemporalWinograd, suits, transforms

needs_onednn = pytest.mark.skipif(not fused_convolution_available(), reason="no oneDNN")


def test_transforms_give_a_convolution_in_exact_arithmetic():
    taps = [Fraction(n) for n in (3, -7, 11)]
    frames = [Fraction(n) for n in (5, -2, 13, 17, -19, 23)]
    kernel = [
        sum(Fraction(a).limit_denominator(24) * t for a, t in zip(row, taps, strict=True))
        for row in KERNEL
    ]
    given = [sum(a * f for a, f in zip(row, frames, strict=True)) for row in INPUT]
    products = [k * g for k, g in zip(kernel, given, strict=True)]
    found = [sum(a * p for a, p in zip(row, products, strict=True)) for row in OUTPUT]
    assert found == [sum(taps[j] * frames[i + j] for j in range(3)) for i in range(4)]


@pytest.mark.parametrize("frames", [4, 8, 12])
def test_clip_matrices_pad_with_zeros(frames):
    clip = torch.arange(1.0, frames + 1)
    given, made = transforms(frames)
    taps = torch.tensor([2.0, -3.0, 5.0])
    kernel = (torch.tensor(KERNEL) @ taps).repeat_interleave(frames // 4)
    expected = functional.conv1d(clip[None, None], taps[None, None], padding=1)[0, 0]
    torch.testing.assert_close(made @ (kernel * (given @ clip)), expected)


@needs_onednn
@pytest.mark.parametrize(
    ("frames", "size", "inputs", "outputs"), [(4, 7, 40, 24), (8, 9, 16, 50), (12, 5, 33, 17)]
)
def test_against_a_convolution_in_double_precision(frames, size, inputs, outputs):
    torch.manual_seed(0)
    x = torch.rand(2, inputs, frames, size, size + 2)
    weight = torch.randn(outputs, inputs, 3, 3, 3) / (27 * inputs) ** 0.5
    bias = torch.randn(outputs)
    exact = functional.relu(
        functional.conv3d(x.double(), weight.double(), bias.double(), padding=1)
    )
    x = x.contiguous(memory_format=torch.channels_last_3d)
    found = TemporalWinograd(weight, bias, x.shape)(x)
    assert float((found - exact).norm() / exact.norm()) < 1e-6
    assert found.is_contiguous(memory_format=torch.channels_last_3d)


def test_only_large_convolutions_over_whole_tiles_are_done_so():
    kernel = torch.Size([192, 64, 3, 3, 3])
    assert suits(kernel, torch.Size([1, 64, 8, 56, 56]))
    assert not suits(kernel, torch.Size([1, 64, 6, 56, 56]))
    assert not suits(kernel, torch.Size([1, 64, 8, 7, 7]))
    assert not suits(torch.Size([192, 64, 1, 1, 1]), torch.Size([1, 64, 8, 256, 256]))


@needs_onednn
def test_the_whole_network_keeps_its_features_at_another_batch_size():
    torch.manual_seed(0)
    network = I3D(classes=5).eval()
    fast = InferenceI3D(network)
    with torch.no_grad():
        for batch in (2, 1):
            clip = torch.rand(batch, 3, 16, 112, 112) * 2 - 1
            expected, found = network.features(clip), fast(clip)[0]
            assert float((found - expected).norm() / expected.norm()) < 3e-6
    assert fast.layers["Conv3d_2c_3x3"]._winograd is not None
