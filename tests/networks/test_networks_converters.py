from __future__ import annotations

import os
import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidkd.errors import WeightsError
from vidkd.networks.converters import (
    from_flax_pickle,
    from_pytorch,
    inflate_input,
    read_array_pickle,
    read_pytorch,
)
from vidkd.networks.i3d import I3D

BLOCKS = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")
STEM = ("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3")
FLAX_BRANCHES = {
    "b0": "Branch_0/Conv3d_0a_1x1",
    "b1a": "Branch_1/Conv3d_0a_1x1",
    "b1b": "Branch_1/Conv3d_0b_3x3",
    "b2a": "Branch_2/Conv3d_0a_1x1",
    "b2b": "Branch_2/Conv3d_0b_3x3",
    "b3b": "Branch_3/Conv3d_0b_1x1",
}


def stored(network: I3D) -> dict[str, torch.Tensor]:
    return {n: v for n, v in network.state_dict().items() if "num_batches" not in n}


def flax_tree(network: I3D) -> dict:
    state = network.state_dict()
    params: dict = {}
    stats: dict = {}

    def put(ours: str, block: str, unit: str | None) -> None:
        kernel = state[f"layers.{ours}.conv.weight"].permute(2, 3, 4, 1, 0).numpy()
        leaf = {
            "Conv_0": {"kernel": kernel},
            "BatchNorm_0": {"bias": state[f"layers.{ours}.norm.bias"].numpy()},
        }
        mean = state[f"layers.{ours}.norm.running_mean"].numpy().reshape(1, 1, 1, 1, -1)
        var = state[f"layers.{ours}.norm.running_var"].numpy().reshape(1, 1, 1, 1, -1)
        moments = {"BatchNorm_0": {"mean": mean, "var": var}}
        if unit is None:
            params[block], stats[block] = leaf, moments
        else:
            params.setdefault(block, {})[unit] = leaf
            stats.setdefault(block, {})[unit] = moments

    for name in STEM:
        put(name, name, None)
    for block in BLOCKS:
        for ours, theirs in FLAX_BRANCHES.items():
            put(f"Mixed_{block}.{ours}", f"Mixed_{block}", theirs)
    weight = state["classifier.weight"].T.reshape(1, 1, 1, 1024, -1).numpy()
    bias = state["classifier.bias"].numpy()
    params["Logits/Conv3d_0c_1x1"] = {"Conv_0": {"kernel": weight, "bias": bias}}
    return {"params": params, "batch_stats": stats}


def pytorch_state(network: I3D) -> dict[str, torch.Tensor]:
    state = network.state_dict()
    units = {name: name for name in STEM}
    units |= {f"Mixed_{b}.{u}": f"Mixed_{b}.{u}" for b in BLOCKS for u in FLAX_BRANCHES}
    result = {}
    for ours, theirs in units.items():
        result[f"{theirs}.conv3d.weight"] = state[f"layers.{ours}.conv.weight"]
        for name in ("weight", "bias", "running_mean", "running_var"):
            result[f"{theirs}.bn.{name}"] = state[f"layers.{ours}.norm.{name}"]
        result[f"{theirs}.bn.num_batches_tracked"] = torch.tensor(3)
    result["logits.conv3d.weight"] = state["classifier.weight"][:, :, None, None, None]
    result["logits.conv3d.bias"] = state["classifier.bias"]
    return result


def assert_same(found: dict[str, torch.Tensor], network: I3D) -> None:
    expected = stored(network)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_flax_pickle(network):
    data = pickle.dumps(flax_tree(network), protocol=4)
    assert_same(from_flax_pickle(data, "x.ckpt", 3), network)


@pytest.mark.parametrize("zipped", [True, False])
def test_pytorch_port(network, tmp_path, zipped):
    path = tmp_path / "rgb_imagenet.pt"
    # The well-known files are older than PyTorch's zip format.
    torch.save(pytorch_state(network), path, _use_new_zipfile_serialization=zipped)
    assert_same(from_pytorch(read_pytorch(path), path, 3), network)


def test_pytorch_flow_port(tmp_path):
    network = I3D(in_channels=2)
    path = tmp_path / "flow_imagenet.pt"
    torch.save(pytorch_state(network), path)
    assert_same(from_pytorch(read_pytorch(path), path, 2), network)
    with pytest.raises(WeightsError, match="shape"):
        from_pytorch(read_pytorch(path), path, 3)


def test_missing_unknown_and_not_finite_tensors(network, tmp_path):
    path = tmp_path / "x.pt"
    state = pytorch_state(network)
    for change, message in (
        ({"extra.weight": torch.ones(1)}, "besides"),
        ({"Conv3d_1a_7x7.bn.bias": torch.full((64,), torch.nan)}, "not finite"),
    ):
        torch.save({**state, **change}, path)
        with pytest.raises(WeightsError, match=message):
            from_pytorch(read_pytorch(path), path, 3)
    del state["Mixed_4c.b1b.conv3d.weight"]
    torch.save(state, path)
    with pytest.raises(WeightsError, match="Mixed_4c"):
        from_pytorch(read_pytorch(path), path, 3)


class Payload:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, protocol):
    marker = tmp_path / "ran"
    data = pickle.dumps({"params": Payload(str(marker))}, protocol=protocol)
    with pytest.raises(WeightsError, match="not allowed"):
        read_array_pickle(data, "evil.ckpt")
    path = tmp_path / "evil.pt"
    torch.save({"x": Payload(str(marker))}, path)
    with pytest.raises(WeightsError, match=r"evil\.pt"):
        from_pytorch(read_pytorch(path), path, 3)
    assert not marker.exists()


@pytest.mark.parametrize(
    "tree",
    [
        {"x": np.array([{}, []], dtype=object)},
        {"x": np.array(["text"])},
        {"x": 3},
        [np.zeros(3, np.float32)],
        {"x": np.float32(1)},
    ],
)
def test_anything_but_dictionaries_of_floats_is_refused(tree):
    with pytest.raises(WeightsError):
        read_array_pickle(pickle.dumps(tree, protocol=4), "x.ckpt")


def test_a_shape_that_does_not_fit_the_bytes_is_refused():
    data = pickle.dumps({"x": np.zeros((3, 5), np.float32)}, protocol=4)
    # K\x05: the small integer 5 in the shape.
    forged = data.replace(b"K\x03K\x05", b"K\x03K\xff")
    assert forged != data
    with pytest.raises(WeightsError, match="bytes"):
        read_array_pickle(forged, "x.ckpt")


def test_arrays_in_either_order():
    arrays = {"c": np.arange(6, dtype=np.float32).reshape(2, 3)}
    arrays["f"] = np.asfortranarray(arrays["c"])
    found = read_array_pickle(pickle.dumps({"tree": arrays}, protocol=4), "x.ckpt")
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[f"tree/{name}"], value)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_damaged_pickles_raise_only_our_error(seed, flips):
    rng = random.Random(seed)
    data = bytearray(pickle.dumps({"a": {"b": np.ones((2, 3), np.float32)}}, protocol=4))
    for _ in range(flips):
        data[rng.randrange(len(data))] = rng.randrange(256)
    data = data[: rng.randrange(len(data)) + 1]
    try:
        arrays = read_array_pickle(bytes(data), "x.ckpt")
    except WeightsError:
        return
    assert all(isinstance(value, np.ndarray) for value in arrays.values())


def test_inflation_averages_the_first_kernel_and_nothing_else(network):
    state = stored(network)
    inflated = inflate_input(state, 2)
    name = "layers.Conv3d_1a_7x7.conv.weight"
    assert inflated[name].shape == (64, 2, 7, 7, 7)
    mean = state[name].numpy().mean(axis=1)
    for channel in range(2):
        np.testing.assert_allclose(inflated[name][:, channel], mean, atol=1e-7)
    assert all(inflated[n] is v for n, v in state.items() if n != name)
