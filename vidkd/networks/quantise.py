"""After-training quantisation of I3D: ranges, kernels, and which layers stay float32.

Ranges of the activations are those of a user's own videos, clipped where the mean squared error
is least; kernels have one scale per output channel, again of least squared error, with which they
have the same sums on every processor (see ``i3d_int8``); biases take up the mean error of rounded
kernels (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
Correction", section 4.2). Every group of layers is then quantised alone, and the error it makes
in the features measured. The groups that cost most per operation stay float32 until the features
are within the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vidkd.errors import UsageError
from vidkd.networks.i3d_inference import FoldedUnit, InferenceI3D
from vidkd.networks.i3d_int8 import FIRST, GROUPS, PAIR, Int8I3D, excess, geometry

SAMPLES = 8192
"""Values of an activation that are kept of every snippet, to choose its range by."""
CLIPS = torch.linspace(0.3, 1.0, 71)
"""Shares of the largest value that are tried as the range."""
LARGEST_VALUES = torch.linspace(127, PAIR / 2, 8)
"""Whole numbers that are tried for the largest value of a kernel."""


@dataclass(frozen=True)
class Calibration:
    """What was seen in calibration.

    Attributes:
        ranges: for every group, the value at which its input is clipped.
        means: for every convolution, the mean (I,) of its input channels.
        operations: for every group, multiplications and additions per snippet.
        kernels: of every convolution in int8, with the scales; see `rounded_kernel`.
    """

    ranges: Mapping[str, float]
    means: Mapping[str, Tensor]
    operations: Mapping[str, float]
    kernels: Mapping[str, tuple[Tensor, Tensor]]


class _Observer:
    """Collects the input of one convolution over all snippets."""

    def __init__(self, unit: str, signed: bool) -> None:
        self.unit = unit
        self.signed = signed
        self.samples: list[Tensor] = []
        self.largest = 0.0
        self.total: Tensor | float = 0.0
        self.count = 0
        self.operations = 0.0
        self._random = torch.Generator().manual_seed(0)

    def __call__(self, module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, FoldedUnit)
        (x,) = inputs
        values = x.permute(0, 2, 3, 4, 1).reshape(-1)  # no copy: channels are innermost
        chosen = torch.randint(len(values), (SAMPLES,), generator=self._random)
        self.samples.append(values[chosen].abs())
        self.largest = max(self.largest, float(x.abs().amax() if self.signed else x.amax()))
        self.total = self.total + x.double().mean(dim=(0, 2, 3, 4))
        self.count += 1
        places = math.prod(math.ceil(n / geometry(self.unit)[1]) for n in x.shape[2:])
        self.operations = 2.0 * places * module.weight.numel()

    def range(self) -> float:
        """Return the range of least mean squared error over the samples and the largest value."""
        values = torch.cat([*self.samples, torch.tensor([self.largest])])
        levels = 127 if self.signed else 255
        best, least = self.largest, math.inf
        for clip in (CLIPS * self.largest).tolist():
            step = max(clip, 1e-6) / levels
            rounded = (values / step).round().clamp(max=levels) * step
            error = float(((values - rounded) ** 2).mean())
            if error < least:
                best, least = clip, error
        return max(best, 1e-6)


def units_of(network: InferenceI3D) -> dict[str, FoldedUnit]:
    """Return the convolutions of a network by name."""
    return {n: m for n, m in network.layers.named_modules() if isinstance(m, FoldedUnit)}


def calibrate(network: InferenceI3D, snippets: Iterable[Tensor]) -> Calibration:
    """Observe all activations of a float32 network on snippets (B, C, T, S, S)."""
    observers = {name: _Observer(name, name == FIRST) for name in units_of(network)}
    units = units_of(network)
    handles = [units[name].register_forward_pre_hook(o) for name, o in observers.items()]
    try:
        with torch.no_grad():
            for snippet in snippets:
                network(snippet)
    finally:
        for handle in handles:
            handle.remove()
    return Calibration(
        {group: observers[names[0]].range() for group, names in GROUPS.items()},
        {name: torch.as_tensor(o.total) / max(o.count, 1) for name, o in observers.items()},
        {group: sum(observers[n].operations for n in names) for group, names in GROUPS.items()},
        {name: rounded_kernel(u.weight, first=name == FIRST) for name, u in units.items()},
    )


def rounded_kernel(weight: Tensor, *, first: bool) -> tuple[Tensor, Tensor]:
    """Round a kernel to whole numbers whose pairs do not exceed `PAIR`.

    A scale for which two neighbours hardly ever have to be made smaller loses less than one with
    half the levels, for which they never have to.

    Args:
        weight: (O, I, k, k, k).
        first: whether the kernel reads the video, of which any two channels may be a pair.

    Returns:
        whole numbers of the same shape, int8, and the scales (O, 1, 1, 1, 1).
    """
    largest = weight.abs().amax(dim=(1, 2, 3, 4), keepdim=True).clamp(min=1e-12)
    best = least = scale = torch.zeros(0)
    for value in LARGEST_VALUES[-1:] if first else LARGEST_VALUES:
        step = largest / value
        rounded = (weight / step).round()
        if not first:
            over = excess(rounded)
            # Half of it is taken from each of the two.
            parts = torch.cat([(over / 2).ceil(), (over / 2).floor()], dim=2)
            rounded = rounded - parts.flatten(1, 2)
        error = ((rounded * step - weight) ** 2).sum(dim=(1, 2, 3, 4), keepdim=True)
        if not len(best):
            best, least, scale = rounded, error, step
        better = error < least
        best, least = torch.where(better, rounded, best), torch.where(better, error, least)
        scale = torch.where(better, step, scale)
    return best.to(torch.int8).contiguous(), scale


def quantised_state(
    network: InferenceI3D, calibration: Calibration, groups: Collection[str]
) -> dict[str, Tensor]:
    """Return the tensors of a network in which ``groups`` are int8; see ``i3d_int8``."""
    state: dict[str, Tensor] = {}
    units = units_of(network)
    for group, names in GROUPS.items():
        if group in groups:
            state[f"{group}.range"] = torch.tensor(calibration.ranges[group])
        for name in names:
            weight, bias = units[name].weight.contiguous(), units[name].bias
            if group in groups:
                rounded, scale = calibration.kernels[name]
                error = (rounded * scale - weight).double().sum(dim=(2, 3, 4))
                bias = (bias.double() - error @ calibration.means[name]).float()
                state[f"{name}.scale"] = scale.flatten()
                weight = rounded
            state[f"{name}.weight"], state[f"{name}.bias"] = weight, bias.clone()
    state["classifier.weight"] = network.classifier.weight.detach().clone()
    state["classifier.bias"] = network.classifier.bias.detach().clone()
    return state


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over the norm of what is expected."""
    return float((found - expected).norm() / expected.norm())


@dataclass(frozen=True)
class Choice:
    """Which groups became int8, and what that costs.

    Attributes:
        state: the tensors of the quantised network.
        float32: the groups that stayed float32, the worst first.
        error: relative error of the features on snippets that calibration had not seen.
        sensitivities: the same error for every group when it alone is int8.
        share: of all operations, that of the int8 groups.
    """

    state: dict[str, Tensor]
    float32: tuple[str, ...]
    error: float
    sensitivities: Mapping[str, float]
    share: float


def order_of_exclusion(
    sensitivities: Mapping[str, float], operations: Mapping[str, float]
) -> list[str]:
    """Return the groups by their squared error per operation, the largest first."""
    return sorted(sensitivities, key=lambda g: -(sensitivities[g] ** 2) / operations[g])


def choose_precisions(
    network: InferenceI3D,
    calibration: Calibration,
    snippets: Sequence[Tensor],
    budget: float,
    report: Callable[[float], None] = lambda done: None,
) -> Choice:
    """Quantise as many operations as the error budget allows.

    The errors of the groups are nearly independent, so that their squares add up: that gives the
    first guess of how many groups have to stay float32. The network is then measured as a whole.

    Args:
        network: in float32.
        calibration: of the same network.
        snippets: (B, C, T, S, S) each, other ones than those of the calibration.
        budget: largest relative error of the features.
        report: called with 1 for each group measured.

    Raises:
        VidkdError: OpenVINO is not installed.
        UsageError: the budget is so small that no group can be int8.
    """

    def features(module: torch.nn.Module) -> Tensor:
        with torch.no_grad():
            return torch.cat([module(snippet)[0] for snippet in snippets])

    def error(groups: Collection[str]) -> float:
        module = Int8I3D(quantised_state(network, calibration, groups), network.feature_layers)
        return relative_error(features(module), expected)

    expected = features(network)
    sensitivities = {}
    for group in GROUPS:
        sensitivities[group] = error([group])
        report(1)
    order = order_of_exclusion(sensitivities, calibration.operations)
    squares = [sensitivities[group] ** 2 for group in order]
    number = next(n for n in range(len(order) + 1) if sum(squares[n:]) <= budget**2)
    while number < len(order):
        if (measured := error(order[number:])) <= budget:
            total = sum(calibration.operations.values())
            return Choice(
                quantised_state(network, calibration, order[number:]),
                tuple(order[:number]),
                measured,
                sensitivities,
                sum(calibration.operations[group] for group in order[number:]) / total,
            )
        number += 1
    raise UsageError(
        f"no layer can be int8 with features within {budget:g}", remedy="allow a larger --error"
    )
