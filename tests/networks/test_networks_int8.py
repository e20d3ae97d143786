"""8-bit I3D: its arithmetic against a second implementation, the choice of layers, the files."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import vidkd
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from vidkd.errors import UsageError, VidkdError, WeightsError
from vidkd.evaluation import read_dense_scores
from vidkd.networks import (
    FilterHeader,
    build_temporal_filter,
    cards,
    i3d_int8,
    quantise,
    save_temporal_filter,
    zoo,
)
from vidkd.networks.i3d import I3D, INCEPTIONS
from vidkd.networks.i3d_inference import FoldedUnit, InferenceI3D
from vidkd.networks.i3d_int8 import (
    FIRST,
    GROUPS,
    Int8I3D,
    check_tensors,
    load_openvino,
    needs_vnni,
    shapes,
)
from vidkd.networks.quantise import (
    Calibration,
    calibrate,
    choose_precisions,
    order_of_exclusion,
    quantised_state,
    relative_error,
    rounded_kernel,
    units_of,
)
from vidkd.networks.weights import save_weights, state_sha256
from vidkd.recipe import FilterSettings, FrameSettings, ModelCard, SnippetSettings, model_cards
from vidkd.recipe.models import Quantisation
from vidkd.video import VideoWriter

NAME = "i3d-rgb-kinetics400"
STRAY = "Mixed_4b"


def has_openvino() -> bool:
    try:
        load_openvino()
    except VidkdError:
        return False
    return True


needs_openvino = pytest.mark.skipif(not has_openvino(), reason="OpenVINO is not installed")


def snippets(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def inference(network: I3D) -> InferenceI3D:
    return InferenceI3D(network)


@pytest.fixture(scope="module")
def calibration(inference: InferenceI3D) -> Calibration:
    return calibrate(inference, [snippets(1, 3, 16, 32, 32, seed=k) for k in range(3)])


@pytest.fixture(scope="module")
def throughout(inference: InferenceI3D, calibration: Calibration) -> dict[str, Tensor]:
    """The tensors of the network with every layer in int8; not to be changed."""
    return quantised_state(inference, calibration, GROUPS)


def test_groups_hold_every_convolution_once(inference: InferenceI3D) -> None:
    names = [name for group in GROUPS.values() for name in group]
    assert sorted(names) == sorted(units_of(inference))
    assert len(names) == len(set(names)) == 57
    for name, unit in units_of(inference).items():
        assert shapes(3)[name] == tuple(unit.weight.shape)


@needs_openvino
@pytest.mark.parametrize("shape", [(2, 3, 16, 32, 32), (1, 3, 9, 33, 33)])
def test_without_quantised_layers_it_is_the_float32_network(
    inference: InferenceI3D, calibration: Calibration, shape: tuple[int, ...]
) -> None:
    module = Int8I3D(quantised_state(inference, calibration, ()))
    with torch.no_grad():
        for found, expected in zip(
            module(snippets(*shape)), inference(snippets(*shape)), strict=True
        ):
            assert found.shape == expected.shape
            assert relative_error(found, expected) < 1e-5


@needs_openvino
def test_features_of_several_end_points(
    network: I3D, inference: InferenceI3D, throughout: dict[str, Tensor]
) -> None:
    layers = ("Mixed_4f", "Mixed_5c")
    x = snippets(1, 3, 16, 32, 32)
    features, logits = Int8I3D(throughout, layers)(x)
    alone, same = Int8I3D(throughout)(x)
    assert torch.equal(features[:, 832:], alone)
    assert torch.equal(logits, same)
    several = I3D(feature_layers=layers)
    several.load_state_dict(network.state_dict())
    with torch.no_grad():
        exact = InferenceI3D(several.eval())(x)[0]
    # No worse than the last end point, to which more rounding leads.
    error = relative_error(features[:, :832], exact[:, :832])
    assert error <= relative_error(alone, inference(x)[0])


class Simulated:
    """The quantised network in PyTorch's float arithmetic, rounding where the tensors say so."""

    def __init__(self, inference: InferenceI3D, state: dict[str, Tensor]) -> None:
        self.state = state
        self.handles = []
        groups = {name: group for group, names in GROUPS.items() for name in names}
        self.network = inference
        self.kept = {}
        for name, unit in units_of(inference).items():
            self.kept[unit] = unit.weight, unit.bias, unit.fused
            unit.weight = state[f"{name}.weight"].float()
            if f"{name}.scale" in state:
                unit.weight = unit.weight * state[f"{name}.scale"].reshape(-1, 1, 1, 1, 1)
            unit.bias, unit.fused, unit._packed = state[f"{name}.bias"], False, None
            hook = self.rounding(groups[name])
            self.handles.append(unit.register_forward_pre_hook(hook))

    def rounding(self, group: str):
        def hook(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
            (x,) = inputs
            if f"{group}.range" not in self.state:
                return x
            high = float(self.state[f"{group}.range"])
            levels, lowest = (127, -128) if group == FIRST else (255, 0)
            step = high / levels
            return (x / step).round().clamp(lowest, levels) * step

        return hook

    def __enter__(self) -> InferenceI3D:
        return self.network

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()
        for unit, (weight, bias, fused) in self.kept.items():
            unit.weight, unit.bias, unit.fused, unit._packed = weight, bias, fused, None


@needs_openvino
@pytest.mark.parametrize("group", ["Conv3d_1a_7x7", "Conv3d_2c_3x3", "Mixed_4b", "Mixed_5c.b1b"])
def test_int8_computes_what_the_tensors_say(
    inference: InferenceI3D, calibration: Calibration, group: str
) -> None:
    # One group at a time: what is rounded to the level beside, because sums were taken in another
    # order, would be rounded again by every layer above.
    state = quantised_state(inference, calibration, [group])
    x = snippets(1, 3, 16, 32, 32, seed=9)
    with torch.no_grad():
        exact = inference(x)[0]
        with Simulated(inference, state) as simulated:
            expected = simulated(x)[0]
        found = Int8I3D(state)(x)[0]
    assert relative_error(found, expected) < 0.1 * relative_error(expected, exact)
    assert relative_error(found, exact) > 1e-5


@needs_openvino
def test_snippets_of_a_batch_do_not_influence_each_other(
    throughout: dict[str, Tensor],
) -> None:
    module = Int8I3D(throughout)
    x = snippets(3, 3, 16, 32, 32)
    together = module(x)[0]
    for number in range(3):
        assert torch.equal(module(x[number : number + 1])[0][0], together[number])


def sums(values: Tensor) -> Tensor:
    return values.double().sum(dim=(1, 2, 3, 4))


def test_no_two_products_exceed_16_bits(inference: InferenceI3D, calibration: Calibration) -> None:
    """As VPMADDUBSW adds them, for the inputs that make the most of them."""
    state = quantised_state(inference, calibration, GROUPS)
    assert not needs_vnni(state)
    for name in units_of(inference):
        kernel = state[f"{name}.weight"].numpy().astype(np.int32)
        if name == FIRST:
            # Three colours: whichever two are added.
            assert 2 * 255 * np.abs(kernel).max() <= 32767
            continue
        positive, negative = 255 * kernel.clip(min=0), 255 * kernel.clip(max=0)
        assert (positive[:, 0::2] + positive[:, 1::2]).max() <= 32767
        assert (negative[:, 0::2] + negative[:, 1::2]).min() >= -32768


def test_large_neighbours_share_what_is_too_much() -> None:
    weight = torch.zeros(1, 4, 1, 1, 1)
    weight[0, :, 0, 0, 0] = torch.tensor([1.0, 0.99, -1.0, 0.2])
    for first in (False, True):
        rounded, scale = rounded_kernel(weight, first=first)
        values = rounded.flatten().tolist()
        assert values[0] + values[1] <= 128
        np.testing.assert_allclose(rounded * scale, weight, atol=0.51 / 64)
    alone = weight * torch.tensor([1.0, 0.0, 1.0, 0.0]).reshape(1, 4, 1, 1, 1)
    assert rounded_kernel(alone, first=False)[0].flatten().tolist() == [127, 0, -127, 0]


def older(state: dict[str, Tensor], network: InferenceI3D) -> dict[str, Tensor]:
    """Return the tensors that vidkd 0.1 made: with all of 8 bits."""
    made = dict(state)
    for name, unit in units_of(network).items():
        scale = unit.weight.abs().amax(dim=(1, 2, 3, 4)) / 127
        made[f"{name}.scale"] = scale
        column = scale.reshape(-1, 1, 1, 1, 1)
        made[f"{name}.weight"] = (unit.weight / column).round().char().contiguous()
    return made


COMPUTE = """
import sys, torch
from safetensors.torch import load_file, save_file
from vidkd.networks.i3d_int8 import Int8I3D, sums_are_exact
x = torch.rand(1, 3, 16, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
found = {n: Int8I3D(load_file(sys.argv[1] + n))(x)[0] for n in ("new", "old")}
save_file({**found, "exact": torch.tensor(sums_are_exact())}, sys.argv[1] + "features")
"""


@needs_openvino
def test_features_are_the_same_on_processors_without_vnni(
    inference: InferenceI3D, throughout: dict[str, Tensor], tmp_path: Path
) -> None:
    """oneDNN is told to use no newer instructions, here and where there are none."""
    state = throughout
    save_file(state, tmp_path / "new")
    save_file(older(state, inference), tmp_path / "old")
    made = {}
    for newest in ("AVX512_CORE_AMX", "AVX2"):
        result = subprocess.run(
            [sys.executable, "-c", COMPUTE, f"{tmp_path}/"],
            env={**os.environ, "ONEDNN_MAX_CPU_ISA": newest},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        made[newest] = load_file(tmp_path / "features")
    best, plain = made.values()
    assert not plain["exact"]
    assert relative_error(plain["new"], best["new"]) < 1e-3
    if best["exact"]:
        # What this guards against: sums that were cut off.
        assert relative_error(plain["old"], best["old"]) > 1e-2


@pytest.mark.parametrize("exact", [True, False])
def test_an_older_encoder_is_refused_where_it_would_be_wrong(
    inference: InferenceI3D,
    throughout: dict[str, Tensor],
    exact: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(i3d_int8, "sums_are_exact", lambda: exact)
    new, old = throughout, older(throughout, inference)
    check_tensors(new, 3, "file")
    assert state_sha256(old) != state_sha256(new)
    if exact:
        check_tensors(old, 3, "file")
        return
    with pytest.raises(WeightsError, match=r"^file: .*VNNI.*vidkd models quantise"):
        check_tensors(old, 3, "file")


def test_kernels_are_rounded_and_keep_the_mean_of_their_output(
    inference: InferenceI3D, calibration: Calibration, throughout: dict[str, Tensor]
) -> None:
    state = throughout
    for name, unit in units_of(inference).items():
        weight, scale = state[f"{name}.weight"], state[f"{name}.scale"].reshape(-1, 1, 1, 1, 1)
        assert weight.dtype == torch.int8
        off = (weight * scale - unit.weight).abs()
        largest = unit.weight.abs().amax(dim=(1, 2, 3, 4), keepdim=True)
        # No worse than with 7 bits, for which no two values need to be made smaller.
        seven = (unit.weight / largest * 64).round() / 64 * largest
        assert (sums(off**2) <= 1.0001 * sums((seven - unit.weight) ** 2)).all()
        if name != FIRST:
            pairs = (unit.weight / scale).round().unflatten(1, (-1, 2))
            together = pairs.sum(2, keepdim=True).abs() > 128
            kept = ~together.expand_as(pairs).flatten(1, 2)
            assert (off[kept] <= (0.501 * scale).expand_as(off)[kept]).all()
        # Away from the border, an input that is its mean everywhere gives the same as before.
        means = calibration.means[name].float()
        x = means.reshape(1, -1, 1, 1, 1).expand(1, -1, *unit.kernel)
        before = functional.conv3d(x, unit.weight, unit.bias)
        after = functional.conv3d(x, weight * scale, state[f"{name}.bias"])
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)


def test_calibration_sees_the_input_of_every_layer(inference: InferenceI3D) -> None:
    x = snippets(2, 3, 16, 32, 32)
    found = calibrate(inference, [x[:1], x[1:]])
    torch.testing.assert_close(found.means[FIRST].float(), x.mean(dim=(0, 2, 3, 4)))
    # 8 x 16 x 16 places, 64 kernels of 3 x 7 x 7 x 7, two operations each.
    assert found.operations[FIRST] == 2 * 8 * 16 * 16 * 64 * 3 * 343
    assert 0 < found.ranges[FIRST] <= 1


@pytest.mark.parametrize("signed", [False, True])
def test_the_range_has_the_least_squared_error(signed: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    unit = nn.Module()
    unit.__class__ = FoldedUnit
    unit.weight = torch.zeros(1, 4, 1, 1, 1)
    observer = quantise._Observer("Conv3d_2b_1x1", signed)
    for _ in range(20):
        values = torch.randn(1, 4, 8, 32, 32, generator=rng) ** 3
        observer(unit, (values if signed else values.relu(),))
    chosen, largest = observer.range(), observer.largest
    assert 0.299 * largest <= chosen < largest

    seen = torch.cat([*observer.samples, torch.tensor([largest])]).double()

    def error(clip: float) -> float:
        levels = torch.linspace(0, clip, 128 if signed else 256, dtype=torch.float64)
        above = torch.bucketize(seen, levels).clamp(1, len(levels) - 1)
        nearest = torch.minimum((seen - levels[above - 1]).abs(), (seen - levels[above]).abs())
        return float((nearest**2).mean())

    # The tails of a heavy distribution are worth less than a finer step.
    assert error(chosen) < error(largest)
    others = [error(share * largest) for share in np.linspace(0.3, 1, 50)]
    assert error(chosen) <= 1.01 * min(others)


class Additive(nn.Module):
    """Every int8 group adds an error of its own size in a direction of its own."""

    sizes: dict[str, float]

    def __init__(self, state: dict[str, Tensor], feature_layers: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.features = torch.zeros(1, 1 + len(GROUPS))
        self.features[0, 0] = 1.0
        for number, group in enumerate(GROUPS):
            if f"{group}.range" in state:
                self.features[0, 1 + number] = self.sizes[group]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.features, self.features


@pytest.mark.parametrize("budget", [0.5, 0.06, 0.03, 0.011])
def test_the_worst_layers_per_operation_stay_float32(
    monkeypatch: pytest.MonkeyPatch,
    inference: InferenceI3D,
    calibration: Calibration,
    budget: float,
) -> None:
    rng = np.random.default_rng(0)
    sizes = {
        group: float(size) for group, size in zip(GROUPS, rng.uniform(0, 0.02, 30), strict=True)
    }
    monkeypatch.setattr(Additive, "sizes", sizes, raising=False)
    monkeypatch.setattr(quantise, "Int8I3D", Additive)
    network = Additive({})
    for name in ("layers", "classifier", "feature_layers"):
        setattr(network, name, getattr(inference, name))
    reports: list[float] = []
    choice = choose_precisions(
        network,
        calibration,
        [torch.zeros(1)],
        budget,
        reports.append,  # type: ignore[arg-type]
    )
    assert choice.sensitivities == pytest.approx(sizes, abs=1e-6)
    assert sum(reports) == len(GROUPS)
    order = order_of_exclusion(sizes, calibration.operations)
    assert choice.float32 == tuple(order[: len(choice.float32)])
    total = math.sqrt(sum(sizes[group] ** 2 for group in order[len(choice.float32) :]))
    assert choice.error == pytest.approx(total, rel=1e-3)
    assert choice.error <= budget
    if choice.float32:
        # With one group more in int8, the budget would have been exceeded.
        assert math.hypot(total, sizes[choice.float32[-1]]) > budget
    int8 = {key.removesuffix(".range") for key in choice.state if key.endswith(".range")}
    assert int8 == set(order[len(choice.float32) :])
    operations = calibration.operations
    assert choice.share == pytest.approx(
        sum(operations[group] for group in int8) / sum(operations.values())
    )


def test_a_budget_that_no_layer_meets_is_an_error(
    monkeypatch: pytest.MonkeyPatch, inference: InferenceI3D, calibration: Calibration
) -> None:
    monkeypatch.setattr(Additive, "sizes", dict.fromkeys(GROUPS, 0.1), raising=False)
    monkeypatch.setattr(quantise, "Int8I3D", Additive)
    network = Additive({})
    for name in ("layers", "classifier", "feature_layers"):
        setattr(network, name, getattr(inference, name))
    with pytest.raises(UsageError, match="larger --error"):
        choose_precisions(network, calibration, [torch.zeros(1)], 0.05)  # type: ignore[arg-type]


@pytest.mark.parametrize("harm", ["missing", "unknown", "type", "shape"])
def test_tensors_of_a_quantised_file_are_checked(
    inference: InferenceI3D, calibration: Calibration, harm: str
) -> None:
    state = quantised_state(inference, calibration, [STRAY])
    check_tensors(state, 3, "file")
    if harm == "missing":
        del state[f"{STRAY}.b0.scale"]
    elif harm == "unknown":
        state["Mixed_9z.range"] = torch.tensor(1.0)
    elif harm == "type":
        state[f"{STRAY}.b0.weight"] = state[f"{STRAY}.b0.weight"].float()
    else:
        state["Mixed_3b.b1b.bias"] = torch.zeros(3)
    with pytest.raises(WeightsError, match=r"^file: .*vidkd models quantise"):
        check_tensors(state, 3, "file")


# Files


@pytest.fixture
def models(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    network: I3D,
    inference: InferenceI3D,
    throughout: dict[str, Tensor],
) -> Path:
    """A models folder with an encoder and its quantised form."""
    monkeypatch.setenv("VIDKD_MODELS", str(tmp_path))
    card = model_cards()[NAME]
    state = {n: v for n, v in network.state_dict().items() if not n.endswith("batches_tracked")}
    write(tmp_path / f"{NAME}.safetensors", card, state)
    write_quantised(tmp_path, state_sha256(state), throughout)
    return tmp_path


def write(path: Path, card: ModelCard, state: dict[str, Tensor]) -> None:
    header = {
        "network": "i3d",
        "card": card.name,
        "classes": [f"class {k}" for k in range(400)],
        "weights_sha256": state_sha256(state),
    }
    if card.quantisation is not None:
        header["model_card"] = card.model_dump(mode="json")
    save_weights(path, state, header)


def write_quantised(folder: Path, of_sha256: str, throughout: dict[str, Tensor]) -> None:
    made = Quantisation(
        of=NAME,
        of_sha256=of_sha256,
        float32_layers=(),
        relative_error=0.05,
        budget=0.1,
        snippets=3,
        snippets_sha256="0" * 64,
        videos=("a.mp4",),
    )
    update = {"name": f"{NAME}-int8", "quantisation": made, "weights": ()}
    card = model_cards()[NAME].model_copy(update=update)
    write(folder / f"{NAME}-int8.safetensors", card, throughout)


@needs_openvino
def test_precision_chooses_between_the_two_forms(models: Path) -> None:
    plain = zoo.load_encoder(NAME, "cpu")
    int8 = zoo.load_encoder(f"{NAME}-int8", "cpu")
    assert (plain.precision, int8.precision) == ("float32", "int8")
    assert plain.weights_sha256 != int8.weights_sha256
    assert plain.replaces == int8.replaces == ()
    assert int8.card.name == f"{NAME}-int8"
    assert int8.classes is not None
    assert int8.classes[7] == "class 7"

    asked = zoo.load_encoder(NAME, "cpu", "int8")
    assert asked.weights_sha256 == int8.weights_sha256
    assert asked.replaces == (plain.weights_sha256,)
    back = zoo.load_encoder(f"{NAME}-int8", "cpu", "float32")
    assert back.weights_sha256 == plain.weights_sha256
    assert back.replaces == (int8.weights_sha256,)
    for name, precision in ((NAME, "float32"), (f"{NAME}-int8", "int8")):
        assert zoo.load_encoder(name, "cpu", precision).replaces == ()

    x = snippets(1, 3, 16, 32, 32)
    assert 1e-4 < relative_error(asked.features(x), plain.features(x)) < 0.2


@needs_openvino
def test_detect_runs_a_student_in_the_precision_asked_for(models: Path) -> None:
    header = FilterHeader(
        filter=FilterSettings(channels=8, layers=2),
        in_features=1024,
        classes=("sit", "stand"),
        modality="rgb",
        encoder=NAME,
        encoder_sha256=zoo.load_encoder(NAME, "cpu").weights_sha256,
        frames=FrameSettings(short_side=32),
        snippet=SnippetSettings(length=16, stride=8),
        crop=32,
    )
    torch.manual_seed(0)
    student, video = models / "student.safetensors", models / "v.mp4"
    save_temporal_filter(student, build_temporal_filter(header.filter, 1024, 2), header)
    with VideoWriter(video, 48, 32, 10) as writer:
        rng = np.random.default_rng(0)
        for _ in range(40):
            writer.write(rng.integers(0, 255, (32, 48, 3), dtype=np.uint8))
    dense = {}
    for precision in ("auto", "float32", "int8"):
        scores = models / f"{precision}.h5"
        result = vidkd(
            "detect", video, "--model", student, "--precision", precision, "--scores", scores
        )
        assert result.returncode == 0, result.stderr
        dense[precision] = read_dense_scores(scores).videos["v"][0]
    # `auto` is what the student was trained on.
    assert np.array_equal(dense["auto"], dense["float32"])
    difference = np.abs(dense["int8"] - dense["float32"]).max()
    assert 0 < difference < 0.1


def test_what_a_quantised_encoder_cannot_do_is_told(models: Path) -> None:
    with pytest.raises(UsageError, match="float16 is for GPUs"):
        zoo.load_encoder(NAME, "cpu", "float16")
    with pytest.raises(UsageError, match="runs on the CPU, not on cuda"):
        zoo.load_encoder(f"{NAME}-int8", torch.device("cuda", 0))
    with pytest.raises(UsageError, match=f"quantised: .*give {NAME}"):
        zoo.load_network(f"{NAME}-int8")


def test_an_encoder_that_was_not_quantised_says_how(models: Path) -> None:
    (models / f"{NAME}-int8.safetensors").unlink()
    with pytest.raises(WeightsError, match=f"vidkd models quantise {NAME} VIDEO"):
        zoo.load_encoder(NAME, "cpu", "int8")


def test_the_quantised_form_of_other_weights_is_refused(
    models: Path, throughout: dict[str, Tensor]
) -> None:
    write_quantised(models, "ab" * 32, throughout)
    for name, precision in ((NAME, "int8"), (f"{NAME}-int8", "float32")):
        with pytest.raises(WeightsError, match="other weights"):
            zoo.load_encoder(name, "cpu", precision)  # type: ignore[arg-type]


def test_half_precision_computes_nearly_the_same(network: I3D) -> None:
    # On a CPU, which `load_encoder` refuses because it is slow there: only the numbers matter.
    card, cpu = model_cards()[NAME], torch.device("cpu")
    half = zoo.Encoder(card, network, cpu, precision="float16")
    plain = zoo.Encoder(card, network, cpu)
    x = snippets(1, 3, 8, 32, 32)
    assert half.precision == "float16"
    assert half.features(x).dtype == torch.float32
    assert 0 < relative_error(half.features(x), plain.features(x)) < 1e-2


def test_without_openvino_one_line_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['openvino'] = None; from vidkd.cli import main;"
        f"sys.argv = ['vidkd', 'models', 'quantise', '{NAME}', 'x.mp4']; sys.exit(main())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert result.returncode == 1
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert "pip install 'vidkd[openvino]'" in lines[0]


@needs_openvino
def test_real_features_stay_close() -> None:
    folder = os.environ.get("VIDKD_TEST_DATA")
    if not folder or not cards.weights_path(model_cards()[NAME]).is_file():
        pytest.skip("VIDKD_TEST_DATA is not set, or the weights were not fetched")
    with np.load(Path(folder) / "reference" / "i3d_rgb.npz", allow_pickle=False) as data:
        images = torch.from_numpy(data["snippets"])
    x = images.permute(0, 4, 1, 2, 3)[..., 56:168, 56:168] / 127.5 - 1
    inference = InferenceI3D(zoo.load_network(NAME)[0])
    with torch.no_grad():
        expected = inference(x[1:])[0]
        seen = calibrate(inference, [x[:1]])
        errors = {}
        for late in (True, False):
            groups = [g for g in GROUPS if late or not g.startswith(tuple(INCEPTIONS)[-3:])]
            module = Int8I3D(quantised_state(inference, seen, groups))
            errors[late] = relative_error(module(x[1:])[0], expected)
    assert errors[True] < 0.12
    # The last modules are where 8 bits cost most, and hardly anything is gained.
    assert errors[False] < 0.9 * errors[True]
