"""The loss of the segment head against torchvision and a loop over events and places."""

import math

import numpy as np
import pytest
import torch
from torchvision.ops import distance_box_iou_loss, sigmoid_focal_loss

from vidkd.distillation.segment_loss import (
    distance_iou_loss,
    focal_loss,
    levels_for,
    segment_losses,
)
from vidkd.networks.segment_head import Level


def test_the_focal_loss_is_that_of_torchvision():
    torch.manual_seed(0)
    logits, targets = 4 * torch.randn(50), (torch.rand(50) < 0.3).float()
    expected = sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2.0)
    torch.testing.assert_close(focal_loss(logits, targets), expected)


def test_the_border_loss_is_that_of_boxes_of_one_height():
    torch.manual_seed(0)
    found, wanted = 5 * torch.rand(2, 40) + 0.1, 5 * torch.rand(2, 40) + 0.1
    height = 1e-2

    def boxes(distances):
        low, high = torch.zeros(40), torch.full((40,), height)
        return torch.stack([-distances[0], low, distances[1], high], dim=1)

    expected = distance_box_iou_loss(boxes(found), boxes(wanted))
    torch.testing.assert_close(distance_iou_loss(found, wanted), expected, atol=1e-4, rtol=1e-4)


def made_levels(rng, batch, classes, snippets, count):
    levels, length = [], snippets
    for number in range(count):
        length = length if number == 0 else -(-length // 2)
        logits = torch.from_numpy(rng.normal(size=(batch, classes, length))).float()
        distances = torch.from_numpy(rng.uniform(0.1, 6, (batch, 2, length))).float()
        mask = torch.arange(length).expand(batch, -1) < length - (number == 0)
        levels.append(Level(logits, distances, mask, 2**number))
    return levels


@pytest.mark.parametrize("seed", range(6))
def test_every_event_is_learnt_where_it_belongs(seed):
    rng = np.random.default_rng(seed)
    batch, classes, snippets, count = 3, 4, 40, 4
    levels = made_levels(rng, batch, classes, snippets, count)
    ends = np.sort(rng.uniform(0, snippets, (6, 2)), axis=1)
    events = [
        (int(rng.integers(2)), int(rng.integers(classes)), a, max(b, a + 0.2)) for a, b in ends
    ]
    labelled = torch.tensor([True, True, False])
    sums, positives = [0.0, 0.0], 0
    for number, level in enumerate(levels):
        targets = torch.zeros_like(level.logits)
        for row, label, start, end in events:
            a, b = start / level.stride, end / level.stride
            for place in range(level.logits.shape[-1]):
                at = place + 0.5
                longer = max(at - a, b - at)
                lowest = 0 if number == 0 else 2.0
                highest = math.inf if number == count - 1 else 4.0
                radius = min(1.5, max(0.5, (b - a) / 2))
                if abs(at - (a + b) / 2) > radius or not lowest <= longer < highest:
                    continue
                if not level.mask[row, place]:
                    continue
                targets[row, label, place] = 1
                positives += 1
                wanted = torch.tensor([[max(at - a, 0)], [max(b - at, 0)]])
                found = level.distances[row, :, place][:, None]
                sums[1] += float(distance_iou_loss(found, wanted))
        valid = (level.mask & labelled[:, None])[:, None].expand_as(targets)
        sums[0] += float(focal_loss(level.logits, targets)[valid].sum())
    found = segment_losses(levels, torch.tensor(events, dtype=torch.float32), labelled)
    assert positives > 0
    assert [float(value) for value in found] == pytest.approx(
        [value / positives for value in sums], rel=1e-4
    )


def test_the_shortest_event_has_a_place_and_the_longest_a_level():
    rng = np.random.default_rng(0)
    levels = made_levels(rng, 1, 1, 64, 3)
    labelled = torch.tensor([True])
    for start, end in ((10.1, 10.3), (0.0, 63.0), (7.0, 8.0), (5.0, 13.0)):
        events = torch.tensor([[0, 0, start, end]])
        assert float(segment_losses(levels, events, labelled)[1]) > 0


def test_without_events_nothing_is_learnt_of_borders():
    levels = made_levels(np.random.default_rng(0), 2, 3, 20, 2)
    classes, borders = segment_losses(levels, torch.zeros(0, 4), torch.tensor([True, True]))
    assert float(borders) == 0
    assert float(classes) > 0
    assert float(segment_losses(levels, torch.zeros(0, 4), torch.tensor([False, False]))[0]) == 0


@pytest.mark.parametrize(("seconds", "levels"), [(1, 1), (8, 1), (9, 2), (16, 2), (100, 5)])
def test_the_number_of_levels_follows_the_longest_events(seconds, levels):
    events = np.array([[0, 3, 3 + seconds]] * 40, dtype=np.float32)
    assert levels_for([events, np.zeros((0, 3))]) == levels
    assert levels_for([np.zeros((0, 3))]) == 1
