from __future__ import annotations

import copy
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from vidkd.networks.cards import DEFAULT_ENCODER, class_names, find_card, weights_path
from vidkd.networks.i3d import (
    I3D,
    POOLS,
    Unit,
    max_pool_same,
    pooled_features,
    pooled_windows,
    same_padding,
)
from vidkd.networks.i3d_inference import (
    InferenceI3D,
    fused_convolution_available,
    largest_neighbours,
)
from vidkd.networks.zoo import load_encoder


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    with torch.no_grad():
        return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(16, 7, 2), (17, 7, 2), (7, 2, 2), (5, 3, 1)]
)
def test_same_padding_gives_ceil_outputs_and_pads_more_after(size, kernel, stride):
    before, after = same_padding(size, kernel, stride)
    assert (size + before + after - kernel) // stride + 1 == math.ceil(size / stride)
    assert after - before in (0, 1)


def test_even_sizes_are_padded_as_tensorflow_documents():
    assert same_padding(224, 7, 2) == (2, 3)
    assert same_padding(112, 3, 2) == (0, 1)
    assert same_padding(7, 2, 2) == (0, 1)


@pytest.mark.parametrize("size", [6, 7])
def test_strided_unit_against_explicit_sums(size):
    torch.manual_seed(0)
    unit = Unit(1, 1, 7, 2).eval()
    unit.norm.running_mean.fill_(0.1)
    unit.norm.running_var.fill_(2.0)
    video = torch.randn(1, 1, size, size, size)
    found = unit(video)[0, 0].detach().numpy()
    image, kernel = video[0, 0].numpy(), unit.conv.weight[0, 0].detach().numpy()
    outputs = math.ceil(size / 2)
    before = max((outputs - 1) * 2 + 7 - size, 0) // 2
    expected = np.zeros((outputs,) * 3)
    for place in np.ndindex(expected.shape):
        for tap in np.ndindex(kernel.shape):
            at = tuple(2 * p + k - before for p, k in zip(place, tap, strict=True))
            if all(0 <= index < size for index in at):
                expected[place] += image[at] * kernel[tap]
    expected = np.maximum((expected - 0.1) / math.sqrt(2.0 + 1e-3), 0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(5, 8, 7), (16, 7, 8), (1, 1, 2)])
@pytest.mark.parametrize(("kernel", "stride"), [*POOLS.values(), ((3, 3, 3), (1, 1, 1))])
def test_max_pool_against_padding_with_minus_infinity(size, kernel, stride):
    x = torch.randn(2, 3, *size) - 3
    padding = [
        side
        for size, k, s in zip(size[::-1], kernel[::-1], stride[::-1], strict=True)
        for side in same_padding(size, k, s)
    ]
    expected = functional.max_pool3d(functional.pad(x, padding, value=-math.inf), kernel, stride)
    assert torch.equal(max_pool_same(x, kernel, stride), expected)


@pytest.mark.parametrize("shape", [(2, 5, 4, 6, 3), (1, 1, 1, 2, 1)])
def test_pool_by_dimensions_gives_the_same_bits(shape):
    torch.manual_seed(0)
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last_3d)
    found = largest_neighbours(x)
    assert torch.equal(found, functional.max_pool3d(x, 3, stride=1, padding=1))
    assert found.is_contiguous(memory_format=torch.channels_last_3d)


def test_classifier_sees_the_windows_of_the_original(network):
    mixed = torch.randn(2, 1024, 4, 7, 7)
    head = network.classifier
    windows = functional.avg_pool3d(mixed, (2, 7, 7), 1)
    per_window = functional.conv3d(windows, head.weight[:, :, None, None, None], head.bias)
    expected = per_window.squeeze(4).squeeze(3).mean(dim=2)
    assert relative(head(pooled_windows(mixed)), expected) < 1e-5
    assert relative(pooled_features(mixed), mixed.flatten(2).mean(2)) < 1e-5


def test_features_of_several_end_points_are_their_means_side_by_side():
    several = I3D(classes=5, feature_layers=("Mixed_4f", "Mixed_5c")).eval()
    single = I3D(classes=5).eval()
    single.load_state_dict(several.state_dict())
    x = torch.rand(2, 3, 16, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    seen = []
    hook = single.layers["Mixed_4f"].register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.no_grad():
        last, logits = single(x)
        hook.remove()
        expected = torch.cat([seen[0].flatten(2).mean(2), last], dim=1)
        assert several.width == 832 + 1024
        for network in (several, InferenceI3D(several)):
            features, same = network(x)
            assert relative(features, expected) < 1e-5
            assert relative(same, logits) < 1e-5


def test_size_of_the_network():
    # 12.3 million parameters without the classifier, as Inception-v1 inflated to 3-D has.
    parameters = sum(p.numel() for n, p in I3D().named_parameters() if "classifier" not in n)
    assert 12.2e6 < parameters < 12.4e6


@pytest.mark.parametrize("shape", [(1, 3, 16, 48, 48), (2, 3, 16, 32, 32), (1, 3, 9, 33, 50)])
@pytest.mark.parametrize("fused", [True, False])
def test_inference_form_computes_the_same(network, shape, fused):
    if fused and not fused_convolution_available():
        pytest.skip("this PyTorch has no oneDNN")
    inference = InferenceI3D(network)
    for module in inference.modules():
        if hasattr(module, "fused"):
            module.fused = fused
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        features, logits = inference(x)
        assert relative(features, network.features(x)) < 1e-5
        assert relative(logits, network.logits(x)) < 1e-5


def test_snippets_of_a_batch_do_not_influence_each_other(network):
    inference = InferenceI3D(network)
    x = torch.rand(3, 3, 16, 32, 32) * 2 - 1
    together = inference(x)[0]
    for number in range(3):
        assert relative(inference(x[number : number + 1])[0][0], together[number]) < 1e-5


def test_inference_form_can_be_copied_and_pickled(network):
    inference = InferenceI3D(network)
    x = torch.rand(1, 3, 8, 32, 32)
    expected = inference(x)[0]
    assert torch.equal(copy.deepcopy(inference)(x)[0], expected)
    assert torch.equal(pickle.loads(pickle.dumps(inference))(x)[0], expected)


def fetched_encoder(name: str = DEFAULT_ENCODER):
    if not weights_path(find_card(name)).is_file():
        pytest.skip(f"{name} was not fetched")
    return load_encoder(name, "cpu")


def reference() -> dict[str, np.ndarray]:
    folder = os.environ.get("VIDKD_TEST_DATA")
    if not folder:
        pytest.skip("VIDKD_TEST_DATA is not set")
    with np.load(Path(folder) / "reference" / "i3d_rgb.npz", allow_pickle=False) as data:
        return dict(data)


def test_agrees_with_an_independent_implementation_on_real_video():
    expected, encoder = reference(), fetched_encoder()
    x = torch.from_numpy(expected["snippets"]).permute(0, 4, 1, 2, 3) / 127.5 - 1
    features, logits = encoder(x)
    assert relative(features, torch.from_numpy(expected["features"])) < 1e-4
    assert relative(logits, torch.from_numpy(expected["logits"])) < 1e-4
    names = [encoder.classes[index] for index in logits.argmax(dim=1)]
    assert names == ["clean and jerk", "clean and jerk"]
    assert encoder.classes == tuple(expected["labels"])


def test_encoder_refuses_the_wrong_channels():
    encoder = fetched_encoder()
    with pytest.raises(ValueError, match="expects"):
        encoder.features(torch.zeros(1, 2, 16, 32, 32))


def test_label_list_has_the_classes_of_kinetics():
    names = class_names(find_card(DEFAULT_ENCODER))
    assert names is not None
    assert len(names) == len(set(names)) == 400
    assert names[0] == "abseiling"
    assert names[-1] == "zumba"
