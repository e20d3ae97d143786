"""TV-L1 of many pairs at once in torch, for GPUs.

The algorithm, its parameters and every operation on a pixel are those of OpenCV's DualTVL1 (see
:mod:`vidkd.flow.kernels`, which runs them on a CPU), in the same order and with the same rounding:
the iteration is chaotic, and a last-bit difference grows. Only the stopping rule sums
in another order, and in double precision, so that a result does not depend on the batch.

All pairs of a batch go through the same sweeps, each with its own stopping rule: a pair that has
converged has its step sizes set to zero, which leaves its flow and dual variables as they are, bit
for bit, without a mask over pixels. Whether any pair is still at work is asked only every few
sweeps, because the answer makes the host wait for the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from vidkd.console import log
from vidkd.errors import VidkdError
from vidkd.flow.median import median5
from vidkd.flow.tvl1 import DEFAULTS, Parameters

_SMALLEST = 16
"""Pixels: OpenCV's pyramid has no scale with a shorter side."""
_LOOK_EVERY: Final = 6
"""Sweeps between two questions whether all pairs have converged."""
_FRACTIONS = 32
"""OpenCV interpolates at multiples of 1 / 32 pixel."""
_FLAT = float(np.finfo(np.float32).eps)
"""Squared gradient up to which OpenCV takes the image for flat."""


class TorchTVL1:
    """Computes TV-L1 between consecutive images on one device.

    Args:
        device: where to compute.
        batch_size: pairs at once; halved, for good, when a GPU's memory does not hold them.
        parameters: as in OpenCV's DualTVL1; the median filter must have 5 x 5 pixels.
    """

    def __init__(
        self, device: torch.device | str, batch_size: int = 32, parameters: Parameters = DEFAULTS
    ) -> None:
        if parameters.median != 5:
            raise ValueError("the torch backend has a 5 x 5 median filter and no other")
        self.device = torch.device(device)
        self.batch_size = batch_size
        self._parameters = parameters

    def sequence(self, images: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the flow from every image to the next.

        Args:
            images: (N + 1, H, W) gray, 0..255, N >= 1; 3 pixels a side or more.

        Returns:
            (N, H, W, 2) float32: the displacement in pixels along x and y.

        Raises:
            VidkdError: not even one pair fits into the GPU's memory.
        """
        flows: list[NDArray[np.float32]] = []
        done, pairs = 0, len(images) - 1
        while done < pairs:
            size = min(self.batch_size, pairs - done)
            try:
                with torch.inference_mode():
                    part = torch.from_numpy(images[done : done + size + 1]).to(self.device)
                    flow = _flow(part.float(), self._parameters)
                    flows.append(flow.permute(0, 2, 3, 1).cpu().numpy())
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise VidkdError(
                        "the GPU's memory does not hold the optical flow of a single pair",
                        remedy="free some of it, choose a smaller --short-side, or give "
                        "--backend numba",
                    ) from error
            else:
                done += size
                continue
            # Only here, where the error holds on to none of the tensors any more.
            part = flow = torch.empty(0)
            self.batch_size = size // 2
            log(f"note: the GPU's memory ran out; going on with {size // 2} pairs at a time")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return np.concatenate(flows)


def _flow(images: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """Return the flow (N, 2, H, W) between consecutive images (N + 1, H, W) float32."""
    levels = [images]
    while len(levels) < parameters.scales:
        size = tuple(round(side * parameters.scale_step) for side in levels[-1].shape[-2:])
        if min(size) < _SMALLEST:
            break
        levels.append(_resized(levels[-1], size, 1 / parameters.scale_step))
    flow: torch.Tensor | None = None
    for level in reversed(levels):
        height, width = level.shape[-2:]
        if flow is None:
            flow = level.new_zeros(len(level) - 1, 2, height, width)
        else:
            flow = _resized(flow, (height, width)).mul_(1 / parameters.scale_step)
        flow = _solve(level, flow, parameters)
    assert flow is not None  # a pyramid has one scale at least
    return flow


def _resized(
    images: torch.Tensor, size: tuple[int, ...], step: float | None = None
) -> torch.Tensor:
    """Resize (..., H, W) bilinearly with OpenCV's sampling points.

    ``step`` is the distance of the points; None: it follows from the sizes.
    """
    for axis, length in ((-1, size[1]), (-2, size[0])):
        old = images.shape[axis]
        points = (np.arange(length) + 0.5) * (step or old / length) - 0.5
        points = np.clip(points, 0, old - 1)
        # Given the distance, OpenCV reaches the last pixel by adding the step to the one before
        # it, which rounds.
        left = np.minimum(np.floor(points), old - 1 if step is None else old - 2).astype(np.int64)
        right = np.minimum(left + 1, old - 1)
        share = points - left
        shape = (-1, 1) if axis == -2 else (-1,)
        # Single precision, multiplied and added in double: OpenCV's has one rounding there.
        weight = torch.from_numpy(share.astype(np.float32)).reshape(shape).to(images.device)
        first, second = (
            images.index_select(axis, torch.from_numpy(index).to(images.device))
            for index in (left, right)
        )
        images = (first.double() + (second - first).double() * weight).float()
    return images


@dataclass
class _Fields:
    """What the sweeps over a batch read and write; u is the flow, p its dual variables.

    ``px`` has one column and ``py`` one row of zeros before the first pixel, so that every
    divergence is a difference of neighbours. ``step_x`` and ``step_y`` are zero in the last column
    or row, which have no neighbour beyond.
    """

    u: torch.Tensor
    new: torch.Tensor
    px: torch.Tensor
    py: torch.Tensor
    divergence: torch.Tensor
    scratch: torch.Tensor
    step_x: torch.Tensor
    step_y: torch.Tensor


@dataclass(frozen=True)
class _Data:
    """The data term: the brightness residual linearised around the flow (Eq. 8).

    Attributes:
        slope: (N, 2, H, W) gradient of the warped second image.
        rho: (N, 1, H, W) the part of the residual that does not depend on the flow.
        norm: squared gradient; infinite where the image is flat.
        limit: residual up to which the step is the residual over the gradient.
        bound: beyond it, the length of the step in gradients.
    """

    slope: torch.Tensor
    rho: torch.Tensor
    norm: torch.Tensor
    limit: torch.Tensor
    bound: torch.Tensor


def _solve(images: torch.Tensor, flow: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """Compute the flow of one scale (N, 2, H, W), starting from a coarser one."""
    first, second = images[:-1], images[1:]
    pairs, height, width = first.shape
    slopes = torch.stack([_slope(second, -1), _slope(second, -2)], dim=1)
    sources = torch.cat([second[:, None], slopes], dim=1)
    fields = _Fields(
        u=flow.contiguous(),
        new=torch.empty_like(flow),
        px=flow.new_zeros(pairs, 2, height, width + 1),
        py=flow.new_zeros(pairs, 2, height + 1, width),
        divergence=torch.empty_like(flow),
        scratch=torch.empty_like(flow),
        step_x=torch.zeros_like(flow),
        step_y=torch.zeros_like(flow),
    )
    tolerance = float(np.float32(parameters.epsilon**2 * height * width))
    bound = flow.new_tensor(parameters.weight * parameters.theta)
    steps = flow.new_tensor([parameters.theta, parameters.tau / parameters.theta, 1.0])
    steps = steps.reshape(3, 1, 1, 1, 1)
    for _ in range(parameters.warps):
        warped = _warped(sources, fields.u)
        slope = warped[:, 1:].contiguous()
        norm = slope[:, :1].square() + slope[:, 1:].square()
        limit = norm * bound
        # Where the image is flat the step inside the limit is zero.
        norm = norm.masked_fill_(norm <= _FLAT, torch.inf)
        rho = warped[:, :1] - slope[:, :1] * fields.u[:, :1]
        rho.sub_(slope[:, 1:] * fields.u[:, 1:]).sub_(first[:, None])
        data = _Data(slope, rho, norm, limit, bound)
        active = torch.ones(pairs, dtype=torch.bool, device=flow.device)
        for _ in range(parameters.outer_iterations):
            smooth = median5(fields.u)
            fields.u = torch.where(active[:, None, None, None], smooth, fields.u)
            for sweep in range(parameters.inner_iterations):
                on = steps * active[:, None, None, None]
                active = active & (_sweep(fields, data, on) > tolerance)
                if sweep % _LOOK_EVERY == _LOOK_EVERY - 1 and not bool(active.any()):
                    break
            if not bool(active.any()):
                break
    return fields.u


def _sweep(fields: _Fields, data: _Data, on: torch.Tensor) -> torch.Tensor:
    """Update flow and dual variables once (Zach et al. 2007, Eq. 11, 14 and 15).

    Args:
        fields: updated in place.
        data: the data term.
        on: (3, N, 1, 1, 1) theta, tau / theta and 1, or zeros for a pair that has converged.

    Returns:
        (N,) the squared change of the flow, summed over a pair's pixels.
    """
    theta, step, one = on
    px, py, change, old = fields.px, fields.py, fields.scratch, fields.u
    across, down = px[..., 1:], py[:, :, 1:]
    divergence = torch.sub(across, px[..., :-1], out=fields.divergence)
    divergence.add_(torch.sub(down, py[:, :, :-1], out=change))
    # OpenCV sums the divergence of the first column in another order.
    divergence[..., 0] = (across[..., 0] + down[..., 0]) - py[:, :, :-1, 0]
    divergence.mul_(theta)

    torch.mul(data.slope, old, out=change)
    residual = (change[:, :1] + change[:, 1:]).add_(data.rho)
    # The thresholding of Eq. 15. A clamp of the quotient would round otherwise.
    outside = torch.copysign(data.bound, residual)
    move = torch.where(residual.abs() <= data.limit, residual.div_(data.norm), outside).mul_(one)
    new = torch.sub(old, torch.mul(data.slope, move, out=change), out=fields.new)
    new.add_(divergence)
    squared = torch.sub(new, old, out=change).square_().sum((1, 2, 3), dtype=torch.float64)

    step_x, step_y = fields.step_x, fields.step_y
    torch.sub(new[..., 1:], new[..., :-1], out=step_x[..., :-1])
    torch.sub(new[:, :, 1:], new[:, :, :-1], out=step_y[:, :, :-1])
    shrink = (step_x.double().square_() + step_y.double().square_()).sqrt_().float()
    shrink.mul_(step).add_(1)
    # The last column and row of the steps stay zero.
    across.add_(torch.mul(step_x, step, out=divergence)).div_(shrink)
    down.add_(torch.mul(step_y, step, out=divergence)).div_(shrink)
    fields.u, fields.new = new, old
    return squared


def _slope(images: torch.Tensor, axis: int) -> torch.Tensor:
    """Return half the difference of a pixel's neighbours; at the border it is one of them."""
    last = images.shape[axis] - 1
    index = torch.arange(last + 1, device=images.device)
    after = images.index_select(axis, (index + 1).clamp_max(last))
    before = images.index_select(axis, (index - 1).clamp_min(0))
    return (after - before) * 0.5


def _warped(sources: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Read sources (N, C, H, W) where the flow (N, 2, H, W) points, cubically; zero outside.

    Like OpenCV's remap, at points rounded to 1 / 32 pixel, with the cubic of parameter -0.75.
    """
    height, width = flow.shape[-2:]
    at = []
    for axis, length in ((0, width), (1, height)):
        pixels = torch.arange(length, dtype=torch.float32, device=flow.device)
        place = flow[:, axis] + (pixels if axis == 0 else pixels[:, None])
        at.append(place.mul_(_FRACTIONS).round_().div_(_FRACTIONS))
    whole = [place.floor() for place in at]
    weights = [_cubic(place - floor) for place, floor in zip(at, whole, strict=True)]
    # Two pixels of zeros on every side: a point further out sees only those.
    padded = functional.pad(sources, (2, 2, 2, 2)).flatten(2)
    left = whole[0].clamp_(-3, width + 1).long()
    top = whole[1].clamp_(-3, height + 1).long()
    inside = (left >= 1) & (left <= width - 3) & (top >= 1) & (top <= height - 3)
    sums = [torch.zeros_like(sources) for _ in range(4)]
    edge = torch.zeros_like(sources)
    for row in range(4):
        y = (top + (row + 1)).clamp_(0, height + 3).mul_(width + 4)
        for column in range(4):
            place = (left + (column + 1)).clamp_(0, width + 3).add_(y)
            index = place.flatten(1)[:, None].expand(-1, sources.shape[1], -1)
            values = padded.gather(2, index).view_as(sources)
            weight = (weights[1][row] * weights[0][column])[:, None]
            # OpenCV's vector code sums down the columns, with one rounding for product and sum;
            # beside the border it adds up one pixel after the other.
            edge.add_(values * weight)
            sums[column] = values.double().mul_(weight).add_(sums[column]).float()
    return torch.where(inside[:, None], (sums[0] + sums[2]) + (sums[1] + sums[3]), edge)


def _cubic(share: torch.Tensor) -> list[torch.Tensor]:
    """Return the weights of the four pixels around a point, ``share`` beyond the second."""
    a = -0.75
    far, rest = share + 1, 1 - share
    first = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    second = ((a + 2) * share - (a + 3)) * share * share + 1
    third = ((a + 2) * rest - (a + 3)) * rest * rest + 1
    return [first, second, third, 1 - first - second - third]
