"""The segment head and local attention against slower second implementations, and properties."""

import numpy as np
import pytest
import torch
from torch import nn

from vidkd.errors import UsageError
from vidkd.networks.segment_head import Level, Proposals, SegmentHead, proposals
from vidkd.networks.temporal import LocalAttentionLayer, build_temporal_filter
from vidkd.recipe import FilterSettings


def head(levels=4):
    torch.manual_seed(1)
    return SegmentHead(8, 3, levels, 0.0).eval()


def test_every_level_has_half_the_places_and_padding_has_no_influence():
    module = head()
    lengths = (37, 1, 16)
    videos = [torch.randn(1, length, 8) for length in lengths]
    batch = torch.full((3, 50, 8), 9.0)
    mask = torch.zeros(3, 50, dtype=torch.bool)
    for row, video in enumerate(videos):
        batch[row, : video.shape[1]] = video[0]
        mask[row, : video.shape[1]] = True
    together = module(batch, mask)
    assert [level.stride for level in together] == [1, 2, 4, 8]
    for row, (video, length) in enumerate(zip(videos, lengths, strict=True)):
        alone = module(video, torch.ones(1, length, dtype=torch.bool))
        for ours, other in zip(together, alone, strict=True):
            count = -(-length // ours.stride)
            assert other.logits.shape == (1, 3, count)
            assert ours.mask[row].sum() == count
            for name in ("logits", "distances"):
                found, expected = getattr(ours, name)[row], getattr(other, name)[0]
                torch.testing.assert_close(found[:, :count], expected, atol=1e-5, rtol=1e-5)
            assert (ours.distances >= 0).all()


def test_a_place_becomes_the_segment_around_it():
    logits = torch.full((1, 2, 3), -20.0)
    logits[0, 1, 2] = 0.0
    distances = torch.zeros(1, 2, 3)
    distances[0, :, 2] = torch.tensor([1.25, 0.5])
    level = Level(logits, distances, torch.ones(1, 3, dtype=torch.bool), 4)
    found = proposals([level], 0, 11)
    # Place 2 of stride 4 lies at 10 snippets; 10 + 2 is beyond the 11 there are.
    assert (found.label.tolist(), found.score.tolist()) == ([1], [0.5])
    assert (found.start.tolist(), found.end.tolist()) == ([5.0], [11.0])


@pytest.mark.parametrize("seed", range(5))
def test_dense_scores_are_the_best_over_the_middle_of_each_snippet(seed):
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.uniform(0, 20, (30, 2)), axis=1)
    found = Proposals(rng.integers(0, 3, 30), rng.random(30), ends[:, 0], ends[:, 1])
    expected = np.zeros((20, 3))
    for t in range(20):
        for k, score, start, end in zip(
            found.label, found.score, found.start, found.end, strict=True
        ):
            if start <= t + 0.5 < end:
                expected[t, k] = max(expected[t, k], score)
    np.testing.assert_allclose(found.dense(20, 3), expected, rtol=1e-6)


def test_local_attention_is_attention_under_a_mask():
    """Torch's own attention, with everything but nine neighbours masked out."""
    torch.manual_seed(0)
    layer = LocalAttentionLayer(16, 0.0).eval()
    x, length = torch.randn(1, 16, 30), 25
    mask = torch.arange(30)[None, None] < length
    x = x.masked_fill(~mask, 0.0)
    own = nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        own.in_proj_weight.copy_(layer.project.weight[:, :, 0])
        own.in_proj_bias.copy_(layer.project.bias)
        own.out_proj.weight.copy_(layer.output.weight[:, :, 0])
        own.out_proj.bias.copy_(layer.output.bias)
        hidden = layer.neighbours(layer.before(x).masked_fill(~mask, 0.0)).masked_fill(~mask, 0.0)
        place = torch.arange(length)
        far = (place[:, None] - place[None]).abs() > 4
        rows = hidden[:, :, :length].transpose(1, 2)
        expected = own(rows, rows, rows, attn_mask=far)[0].transpose(1, 2) + x[:, :, :length]
        expected = expected + layer.feed_forward(layer.between(expected))
        found = layer(x, mask)
    torch.testing.assert_close(found[:, :, :length], expected, atol=1e-5, rtol=1e-5)
    assert not found[:, :, length:].any()


def test_the_same_filter_begins_the_same_with_and_without_a_head():
    states = []
    for levels in (0, 3):
        torch.manual_seed(5)
        settings = FilterSettings(kind="ss-tcn", channels=8, levels=levels)
        states.append(build_temporal_filter(settings, 6, 2).state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])


def test_a_causal_filter_has_no_head():
    with pytest.raises(UsageError, match="no future"):
        build_temporal_filter(FilterSettings(kind="causal-ss-tcn", levels=2), 6, 2)


def test_noise_is_added_in_training_alone():
    module = build_temporal_filter(FilterSettings(channels=8, noise=1.0, dropout=0.0), 6, 2)
    x, mask = torch.randn(1, 9, 6), torch.ones(1, 9, dtype=torch.bool)
    assert not torch.equal(module(x, mask).logits, module(x, mask).logits)
    module.eval()
    assert torch.equal(module(x, mask).logits, module(x, mask).logits)
