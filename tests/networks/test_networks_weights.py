from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vidkd.errors import UsageError, WeightsError
from vidkd.networks.device import device_name, select_device
from vidkd.networks.filter_weights import (
    FilterHeader,
    load_temporal_filter,
    save_temporal_filter,
)
from vidkd.networks.stored import content_sha256
from vidkd.networks.temporal import build_temporal_filter
from vidkd.networks.weights import load_weights, save_weights, state_sha256
from vidkd.recipe import FilterSettings

KINDS = ("ss-tcn", "causal-ss-tcn", "tgm", "lstm")


def header(kind: str = "ss-tcn", **changes) -> FilterHeader:
    fields = {
        "filter": FilterSettings(kind=kind, channels=8, layers=2),
        "in_features": 6,
        "classes": ("sit down", "stand up", "café"),
        "modality": "rgb",
        "encoder": "i3d-rgb-kinetics400",
        "encoder_sha256": "0" * 64,
        "crop": 112,
        "training_data": {"videos": 3},
        "teachers": ("flow",),
    }
    return FilterHeader.model_validate({**fields, **changes})


def save(path: Path, kind: str = "ss-tcn") -> torch.nn.Module:
    described = header(kind)
    module = build_temporal_filter(described.filter, 6, 3)
    save_temporal_filter(path, module, described)
    return module.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_filter_comes_back_as_it_was(tmp_path, kind):
    module = save(tmp_path / "weights.safetensors", kind)
    x, mask = torch.randn(1, 7, 6), torch.ones(1, 7, dtype=torch.bool)
    for place in (tmp_path, tmp_path / "weights.safetensors"):
        loaded, found = load_temporal_filter(place, "cpu")
        assert found == header(kind)
        assert not loaded.training
        assert torch.equal(loaded(x, mask).logits, module(x, mask).logits)


def test_what_inputs_are_standardised_by_is_kept_and_older_files_have_none(tmp_path):
    path = tmp_path / "weights.safetensors"
    module = build_temporal_filter(header().filter, 6, 3).eval()
    plain = module(torch.ones(1, 7, 6), torch.ones(1, 7, dtype=torch.bool)).logits
    older = {k: v for k, v in module.state_dict().items() if not k.startswith("input_")}
    module.standardise([torch.randn(20, 6) * 3 + 2])
    save_temporal_filter(path, module, header())
    x, mask = torch.randn(1, 7, 6), torch.ones(1, 7, dtype=torch.bool)
    assert torch.equal(load_temporal_filter(path)[0](x, mask).logits, module(x, mask).logits)
    fields = header().model_dump(mode="json")
    del fields["filter"]["standardise"]
    save_weights(path, older, {"network": "temporal-filter", **fields})
    loaded = load_temporal_filter(path)[0]
    assert torch.equal(loaded(torch.ones(1, 7, 6), mask).logits, plain)


def test_the_same_weights_make_the_same_file(tmp_path):
    state = {"b": torch.ones(2), "a": torch.zeros(3, 2)}
    save_weights(tmp_path / "1.safetensors", state, {"network": "n", "x": 1})
    save_weights(
        tmp_path / "2.safetensors", dict(reversed(state.items())), {"x": 1, "network": "n"}
    )
    assert (tmp_path / "1.safetensors").read_bytes() == (tmp_path / "2.safetensors").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.safetensors", "2.safetensors"]


def test_identity_depends_on_names_shapes_types_and_values():
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "c": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.ones(1, dtype=torch.int32)},
        {"a": torch.zeros(2, 3), "b": torch.full((1,), 1.0000001)},
    ]
    hashes = {state_sha256(state) for state in (base, *others)}
    assert len(hashes) == 5
    assert state_sha256({"b": torch.ones(1), "a": torch.zeros(3, 2).T.contiguous()}) in hashes


def test_a_file_has_the_identity_of_its_tensors(tmp_path):
    path, state = tmp_path / "weights.safetensors", {"empty": torch.zeros(0, 3)}
    whole = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
    other = ["float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
    for name in (*whole, *other, "bool", "complex64"):
        state[f"z.{name}"] = torch.arange(6).reshape(2, 3).to(getattr(torch, name))
        state[f"a.{name}"] = state[f"z.{name}"][1, 2].clone()
    save_weights(path, state, {"network": "n"})
    assert content_sha256(path) == state_sha256(state) == state_sha256(load_weights(path)[0])


def test_missing_truncated_and_garbage_files(tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(WeightsError, match="no such"):
        load_weights(path)
    save(path)
    whole = path.read_bytes()
    for length in (0, 4, 8, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"weights\.safetensors"):
            load_temporal_filter(path)
    for garbage in (b"\0" * 100, b"not weights at all", whole[::-1]):
        path.write_bytes(garbage)
        with pytest.raises(WeightsError):
            load_temporal_filter(path)
    with pytest.raises(WeightsError):
        load_weights(tmp_path)


def test_sizes_in_a_header_are_not_trusted(tmp_path):
    path = tmp_path / "weights.safetensors"
    text = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}})
    for length in (len(text), 1 << 50):
        path.write_bytes(struct.pack("<Q", length) + text.encode())
        with pytest.raises(WeightsError):
            load_weights(path)


def test_settings_that_do_not_fit_the_tensors_cost_no_memory(tmp_path):
    path = tmp_path / "weights.safetensors"
    module = build_temporal_filter(header().filter, 6, 3)
    save_temporal_filter(path, module, header(in_features=10**12))
    with pytest.raises(WeightsError, match="shape"):
        load_temporal_filter(path)


def test_files_of_other_networks_are_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, {"a": torch.ones(1)}, {"network": "i3d"})
    with pytest.raises(WeightsError, match="'i3d', not a temporal filter"):
        load_temporal_filter(path)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(WeightsError, match="no vidkd header"):
        load_weights(path)
    save_file({"a": torch.ones(1)}, path, metadata={"vidkd": "[1"})
    with pytest.raises(WeightsError, match="no vidkd header"):
        load_weights(path)
    save_weights(path, {"a": torch.ones(1)}, {"network": "temporal-filter", "format": 2})
    with pytest.raises(WeightsError, match="format"):
        load_temporal_filter(path)


def test_missing_and_unknown_tensors_are_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    state = save(path).state_dict()
    fields = load_weights(path)[1]
    save_weights(path, {**state, "extra": torch.ones(1)}, fields)
    with pytest.raises(WeightsError, match="extra"):
        load_temporal_filter(path)
    del state["classifier.bias"]
    save_weights(path, state, fields)
    with pytest.raises(WeightsError, match=r"classifier\.bias"):
        load_temporal_filter(path)


def test_a_filter_of_a_package_that_is_not_installed_is_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_temporal_filter(path, torch.nn.Linear(2, 2), header("mamba"))
    with pytest.raises(WeightsError, match=r"safetensors: holds a temporal filter 'mamba'"):
        load_temporal_filter(path)


def test_devices():
    assert select_device("cpu") == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert select_device("auto").type == expected
    for name in ("gpu", "cuda:", "cuda:x", "CPU", "cuda:999"):
        for choose in (select_device, device_name):
            with pytest.raises(UsageError):
                choose(name)
    for name in ("auto", "cpu"):
        assert device_name(name) == str(select_device(name))


@pytest.mark.parametrize(
    ("version", "asked"), [("2.9.1+cpu", False), ("2.9.1+rocm6.4", True), ("2.9.1", None)]
)
def test_a_gpu_is_asked_for_where_there_may_be_one(monkeypatch, version, asked):
    monkeypatch.setattr("vidkd.networks.device.version", lambda _: version)
    monkeypatch.setattr("vidkd.networks.device.sys.platform", "linux")
    monkeypatch.setattr("vidkd.networks.device.select_device", lambda _: "cuda:0")
    for found in (False, True) if asked is None else (asked,):

        def driver(name, found=found):
            if not found:
                raise OSError(name)

        monkeypatch.setattr("vidkd.networks.device.ctypes.CDLL", driver)
        assert device_name("auto") == ("cuda:0" if found else "cpu")
