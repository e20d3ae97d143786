"""The pose detector's network: anchors, encoding, regions."""

from __future__ import annotations

import pytest
import torch

from vidkd.networks.lcrnet import (
    LCRNet,
    PoseNetSettings,
    centred_anchors,
    covered,
    decode,
    encode,
)
from vidkd.networks.lcrnet_backbones import InceptionPyramid

SMALL = PoseNetSettings(full=3, upper=2, short_side=64, long_side=128, proposals=8)


@pytest.fixture(scope="module")
def network() -> LCRNet:
    torch.manual_seed(0)
    network = LCRNet(SMALL)
    with torch.no_grad():
        network.anchors_2d.uniform_(0, 1)
        network.anchors_3d.normal_()
        network.regressor.weight.normal_(0, 0.05)
    return network.eval()


def test_anchors_of_detectron() -> None:
    """The nine anchors that Faster R-CNN has printed in its code since 2015.

    They name the first and the last pixel; a box ends one after the last.
    """
    inclusive = torch.tensor(
        [
            [-84, -40, 99, 55],
            [-176, -88, 191, 103],
            [-360, -184, 375, 199],
            [-56, -56, 71, 71],
            [-120, -120, 135, 135],
            [-248, -248, 263, 263],
            [-36, -80, 51, 95],
            [-80, -168, 95, 183],
            [-168, -344, 183, 359],
        ]
    )
    found = centred_anchors(16, (128.0, 256.0, 512.0), (0.5, 1.0, 2.0))
    torch.testing.assert_close(found, inclusive + torch.tensor([0.0, 0, 1, 1]))


def test_encoding_and_back() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(6, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + 5 + 60 * torch.rand(6, 2, generator=generator)], dim=1)
    flat = 100 * torch.rand(6, 13, 2, generator=generator)
    solid = torch.randn(6, 13, 3, generator=generator)
    anchors = torch.rand(4, 13, 2, generator=generator), torch.randn(4, 13, 3, generator=generator)
    raw = encode(boxes, flat, solid, *anchors)
    back_2d, back_3d = decode(boxes, raw, *anchors)
    torch.testing.assert_close(back_2d, flat[:, None].expand(-1, 4, -1, -1), atol=1e-4, rtol=0)
    torch.testing.assert_close(back_3d, solid[:, None].expand(-1, 4, -1, -1), atol=1e-5, rtol=0)


def test_decoding_of_one_joint_by_hand() -> None:
    boxes = torch.tensor([[10.0, 20, 30, 60]])
    raw = torch.zeros(1, 1, 13, 5)
    raw[0, 0, 7] = torch.tensor([1.0, -0.5, 5.0, 0, -10])
    flat, solid = decode(boxes, raw, torch.full((1, 13, 2), 0.5), torch.ones(1, 13, 3))
    # 20 wide and 40 high; the raw regression counts a fifth.
    torch.testing.assert_close(flat[0, 0, 7], torch.tensor([10 + 20 * 0.7, 20 + 40 * 0.4]))
    torch.testing.assert_close(solid[0, 0, 7], torch.tensor([2.0, 1.0, -1.0]))
    torch.testing.assert_close(flat[0, 0, 0], torch.tensor([20.0, 40.0]))


def test_regression_belongs_to_joints_of_anchors(network: LCRNet) -> None:
    """The linear layer's rows are anchor pose, then coordinate, then joint."""
    images = torch.rand(1, 3, 64, 96) * 255
    maps = network.features(images)
    boxes = [torch.tensor([[4.0, 4, 40, 60]])]
    _, before = network.regions(maps, boxes, [(64, 96)])
    k, joint, axis = 3, 7, 2
    row = k * 65 + axis * 13 + joint
    with torch.no_grad():
        network.regressor.bias[row] += 2.0
        _, after = network.regions(maps, boxes, [(64, 96)])
        network.regressor.bias[row] -= 2.0
    change = after - before
    assert change[0, k, joint, axis].item() == pytest.approx(2.0, abs=1e-5)
    change[0, k, joint, axis] = 0
    assert change.abs().max() < 1e-5


def test_pictures_of_a_batch_do_not_touch(network: LCRNet) -> None:
    images = torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 255
    sizes = [(64, 96), (50, 96), (64, 70)]
    together = network(images, sizes)
    order = [2, 0, 1]
    permuted = network(images[order], [sizes[i] for i in order])
    for place, number in enumerate(order):
        alone = network(images[number : number + 1], sizes[number : number + 1])[0]
        for found in (together[number], permuted[place]):
            torch.testing.assert_close(found.boxes, alone.boxes, atol=1e-3, rtol=0)
            torch.testing.assert_close(found.scores, alone.scores, atol=1e-5, rtol=0)
            torch.testing.assert_close(found.poses_2d, alone.poses_2d, atol=1e-2, rtol=0)


def test_regions_stay_in_the_picture(network: LCRNet) -> None:
    images = torch.rand(1, 3, 64, 96) * 255
    (found,) = network(images, [(40, 60)])
    assert found.boxes.shape == (8, 4)
    assert found.boxes.min() >= 0
    assert (found.boxes.amax(dim=0) <= torch.tensor([60.0, 40, 60, 40])).all()
    assert found.scores.shape == (8, 5)
    assert (found.scores.sum(dim=1) < 1).all()
    assert found.poses_2d.shape == (8, 5, 13, 2)
    assert found.poses_3d.shape == (8, 5, 13, 3)


def test_covered_share() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]])
    ignored = torch.tensor([[0.0, 0, 10, 100], [29, 29, 50, 50]])
    torch.testing.assert_close(covered(boxes, ignored), torch.tensor([1.0, 0.5, 0.01]))
    assert covered(boxes, ignored[:0]).tolist() == [0, 0, 0]


def test_resnet_has_the_same_interface() -> None:
    network = LCRNet(SMALL.model_copy(update={"backbone": "resnet50-fpn"})).eval()
    with torch.no_grad():
        (found,) = network(torch.rand(1, 3, 64, 64) * 255, [(64, 64)])
    assert found.poses_2d.shape == (len(found.boxes), 5, 13, 2)
    names = [name for name, _ in network.backbone.named_parameters()]
    assert sum("conv" in name and "stages" in name for name in names) == 48


def test_what_is_faster_without_gradients_computes_the_same() -> None:
    torch.manual_seed(0)
    backbone = InceptionPyramid().eval()
    pictures = torch.rand(1, 3, 70, 97).contiguous(memory_format=torch.channels_last) * 2 - 1
    slow = backbone(pictures)
    with torch.no_grad():
        fast = backbone(pictures)
    for name, expected in slow.items():
        assert expected.requires_grad
        torch.testing.assert_close(fast[name], expected.detach(), rtol=1e-4, atol=1e-5)
