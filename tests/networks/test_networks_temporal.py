from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vidkd.errors import UsageError
from vidkd.networks.temporal import GaussianMixtureConv, TemporalFilter, build_temporal_filter
from vidkd.recipe import FilterSettings

KINDS = ("ss-tcn", "causal-ss-tcn", "local-attention", "tgm", "lstm")


def build(kind: str, **changes) -> TemporalFilter:
    torch.manual_seed(0)
    settings = FilterSettings(kind=kind, channels=16, **changes)
    return build_temporal_filter(settings, in_features=12, classes=5).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_padding_has_no_influence(kind):
    module = build(kind)
    lengths = (40, 1, 23)
    videos = [torch.randn(1, length, 12) for length in lengths]
    batch = torch.full((3, 57, 12), torch.nan)
    mask = torch.zeros(3, 57, dtype=torch.bool)
    for row, video in enumerate(videos):
        batch[row, : video.shape[1]] = video[0]
        mask[row, : video.shape[1]] = True
    together = module(batch, mask)
    assert together.features.shape == (3, 57, 16)
    assert together.logits.shape == (3, 57, 5)
    for row, video in enumerate(videos):
        length = video.shape[1]
        alone = module(video, torch.ones(1, length, dtype=torch.bool))
        for found, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(found[row, :length], expected[0], atol=1e-5, rtol=1e-5)
            assert not found[row, length:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_padding_are_zero_and_all_parameters_learn(kind):
    module = build(kind).train()
    x = torch.randn(2, 30, 12, requires_grad=True)
    mask = torch.arange(30) < torch.tensor([[30], [11]])
    output = module(x, mask)
    (output.logits.square().sum() + output.features.sum()).backward()
    assert x.grad is not None
    assert not x.grad[1, 11:].any()
    assert x.grad[0].abs().sum(dim=1).all()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def seen_from(kind: str, middle: int = 100, length: int = 200) -> list[int]:
    """Snippets on which the output in the middle depends, by gradient."""
    module = build(kind)
    x = torch.randn(1, length, 12, requires_grad=True)
    module(x, torch.ones(1, length, dtype=torch.bool)).logits[0, middle].sum().backward()
    assert x.grad is not None
    return x.grad[0].abs().sum(dim=1).nonzero().flatten().tolist()


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(
        UsageError, match=r"no temporal filter 'sstcn'.*ss-tcn, causal-ss-tcn, local-attention"
    ):
        build("sstcn")


def test_receptive_field_of_ss_tcn_is_63_snippets():
    assert seen_from("ss-tcn") == list(range(100 - 31, 100 + 32))


def test_causal_ss_tcn_sees_the_past_only():
    assert seen_from("causal-ss-tcn") == list(range(100 - 62, 101))


def test_tgm_sees_three_kernels_of_five():
    assert seen_from("tgm") == list(range(100 - 6, 100 + 7))


def test_lstm_sees_both_directions():
    seen = seen_from("lstm", middle=20, length=40)
    assert min(seen) < 20 < max(seen)


def test_causal_scores_do_not_change_when_the_video_goes_on():
    module = build("causal-ss-tcn")
    x = torch.randn(1, 50, 12)
    mask = torch.ones(1, 50, dtype=torch.bool)
    torch.testing.assert_close(
        module(x, mask).logits[:, :31], module(x[:, :31], mask[:, :31]).logits
    )


def test_ss_tcn_against_a_second_implementation():
    module = build("ss-tcn", layers=2)
    weights = {name: value.detach().double().numpy() for name, value in module.state_dict().items()}
    x = torch.randn(1, 9, 12)
    hidden = x[0].double().numpy() @ weights["projection.weight"][:, :, 0].T
    hidden += weights["projection.bias"]
    for layer in range(2):
        kernel, bias = (weights[f"layers.{layer}.dilated.{n}"] for n in ("weight", "bias"))
        response = np.tile(bias, (9, 1))
        for t in range(9):
            for tap in range(3):
                at = t + (tap - 1) * 2**layer
                if 0 <= at < 9:
                    response[t] += kernel[:, :, tap] @ hidden[at]
        kernel, bias = (weights[f"layers.{layer}.pointwise.{n}"] for n in ("weight", "bias"))
        hidden = hidden + np.maximum(response, 0) @ kernel[:, :, 0].T + bias
    found = module(x, torch.ones(1, 9, dtype=torch.bool)).features[0].detach()
    np.testing.assert_allclose(found, hidden, atol=1e-5)


def test_gaussians_have_their_closed_form():
    layer = GaussianMixtureConv(2, 3, gaussians=4, length=5)
    gaussians = layer.gaussians().detach().numpy()
    for row, centre, width in zip(
        gaussians, layer.centres.tolist(), layer.widths.tolist(), strict=True
    ):
        mean, variance = 4 * (math.tanh(centre) + 1) / 2, math.exp(width)
        values = [math.exp(-((p - mean) ** 2) / (2 * variance)) for p in range(5)]
        np.testing.assert_allclose(row, np.array(values) / sum(values), rtol=1e-5)
    torch.testing.assert_close(layer.kernels().sum(dim=2), torch.ones(3, 2))


def test_gaussian_mixture_convolves_every_dimension_alike():
    layer = GaussianMixtureConv(2, 3)
    x = torch.randn(2, 2, 4, 11)
    found = layer(x)
    assert found.shape == (2, 3, 4, 11)
    kernels, combination = layer.kernels(), layer.combination
    expected = torch.zeros(3, 11)
    for out in range(3):
        for channel in range(2):
            padded = np.pad(x[1, channel, 2].numpy(), 2)
            kernel = kernels[out, channel].detach().numpy()
            response = np.correlate(padded, kernel, mode="valid")
            expected[out] += combination[out, channel].item() * torch.from_numpy(response)
    torch.testing.assert_close(found[1, :, 2], expected)


def test_a_row_without_valid_snippets_gives_zeros():
    for kind in KINDS:
        output = build(kind)(torch.randn(2, 6, 12), torch.tensor([[True] * 6, [False] * 6]))
        assert not output.logits[1].any()
        assert torch.isfinite(output.features).all()


def test_lstm_refuses_holes_and_odd_channels():
    mask = torch.tensor([[True, False, True]])
    with pytest.raises(ValueError, match="first"):
        build("lstm")(torch.randn(1, 3, 12), mask)
    with pytest.raises(UsageError, match="even"):
        build_temporal_filter(FilterSettings(kind="lstm", channels=15), 12, 5)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="expected"):
        build("ss-tcn")(torch.randn(1, 3, 13), torch.ones(1, 3, dtype=torch.bool))


@pytest.mark.parametrize("kind", KINDS)
def test_a_standardised_filter_equals_one_on_features_standardised_beforehand(kind):
    generator = torch.Generator().manual_seed(1)
    spread = torch.logspace(-3, 3, 12)
    videos = [
        torch.randn(length, 12, generator=generator) * spread + 100 * spread
        for length in (50, 1, 9)
    ]
    everything = torch.cat(videos).double()
    mean, deviation = everything.mean(dim=0), everything.std(dim=0, correction=0)
    plain, module = build(kind), build(kind)
    module.standardise([*videos, torch.zeros(0, 12)])
    mask = torch.ones(1, 50, dtype=torch.bool)
    # Channels that vary less than a hundredth of the average are left small.
    floor = deviation.clamp(min=0.01 * float(deviation.mean()))
    expected = plain(((videos[0].double() - mean) / floor).float()[None], mask)
    for found, wanted in zip(module(videos[0][None], mask), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("videos", [[], [torch.full((7, 12), 3.0)]])
def test_features_that_never_vary_stay_finite(videos):
    module = build("ss-tcn")
    module.standardise(videos)
    output = module(torch.full((1, 5, 12), 4.0), torch.ones(1, 5, dtype=torch.bool))
    assert torch.isfinite(output.logits).all()


def test_two_layers_of_local_attention_see_23_snippets():
    # The convolution and each layer's own reach one further than the nine of the attention.
    assert seen_from("local-attention") == list(range(100 - 11, 100 + 12))
