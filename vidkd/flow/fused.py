"""TV-L1 with the fused kernels: the pyramid, the warps and the memory they work in."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vidkd.flow.kernels import Field, iterate, linearise
from vidkd.flow.tvl1 import Gray, Parameters

_ALIGN = 16
"""Floats in a cache line, and in the longest vector register."""
_SMALLEST = 16
"""Pixels: OpenCV's pyramid has no scale with a shorter side."""


class _Scale:
    """The fields of one scale: aligned, padded, and zero where nothing was written."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.columns = -(-width // _ALIGN) * _ALIGN
        self.stride = self.columns + _ALIGN
        fields = 11
        each = (height + 2) * self.stride + _ALIGN
        memory = np.zeros(fields * each + _ALIGN, np.float32)
        start = -memory.ctypes.data % (4 * _ALIGN) // 4

        def field(index: int, shift: int = 0) -> Field:
            begin = start + index * each + shift
            return memory[begin : begin + (height + 2) * self.stride].reshape(-1, self.stride)

        self.u1, self.u2, self.p1y, self.p2y = (field(i) for i in range(4))
        # Shifted so that column 1, which belongs to pixel 0, is the aligned one.
        self.p1x, self.p2x = (field(i, _ALIGN - 1) for i in (4, 5))
        self.ix, self.iy, self.rho, self.norm, self.change = (field(i) for i in range(6, 11))
        self.inside = np.zeros(self.stride, np.float32)
        self.inside[:width] = 1
        self.inside_x = self.inside.copy()
        self.inside_x[width - 1] = 0

    def image(self, field: Field) -> Field:
        """Return the (H, W) pixels of a field, without border and padding."""
        return field[1:-1, : self.width]


def fused_tvl1(previous: Gray, current: Gray, parameters: Parameters) -> NDArray[np.float32]:
    """Compute TV-L1 between two gray images of one shape and type (see :func:`vidkd.flow.tvl1`)."""
    if parameters.median != 5:
        raise ValueError("the numba backend has a 5 x 5 median filter and no other")
    firsts = _pyramid(previous, parameters)
    seconds = _pyramid(current, parameters)
    flow: tuple[Any, Any] | None = None
    for first, second in zip(reversed(firsts), reversed(seconds), strict=True):
        height, width = first.shape
        scale = _Scale(height, width)
        if flow is not None:
            for field, coarse in zip((scale.u1, scale.u2), flow, strict=True):
                finer = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
                np.multiply(finer, 1 / parameters.scale_step, out=scale.image(field))
        _solve(scale, first, second, parameters)
        flow = scale.image(scale.u1), scale.image(scale.u2)
    assert flow is not None  # a pyramid has one scale at least
    return np.stack(flow, axis=-1)


def _pyramid(image: Gray, parameters: Parameters) -> list[Field]:
    """Return the image at every scale as float32, finest first."""
    levels: list[Field] = [image.astype(np.float32)]
    step = parameters.scale_step
    while len(levels) < parameters.scales:
        coarser: Any = cv2.resize(
            levels[-1], None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR
        )
        if min(coarser.shape) < _SMALLEST:
            break
        levels.append(coarser)
    return levels


def _solve(scale: _Scale, first: Field, second: Field, parameters: Parameters) -> None:
    """Compute the flow of one scale, starting from and overwriting ``scale.u1`` and ``u2``."""
    slope_x, slope_y = (
        # Half the difference of the neighbours; at the border the pixel itself is one of them.
        cv2.Sobel(
            second, cv2.CV_32F, dx, 1 - dx, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE
        )
        for dx in (1, 0)
    )
    xs = np.arange(scale.width, dtype=np.float32)
    ys = np.arange(scale.height, dtype=np.float32)[:, None]
    u1, u2 = scale.image(scale.u1), scale.image(scale.u2)
    tolerance = np.float32(parameters.epsilon**2 * first.size)
    for _ in range(parameters.warps):
        at = u1 + xs, u2 + ys
        warped, warped_x, warped_y = (
            np.asarray(cv2.remap(image, *at, cv2.INTER_CUBIC), np.float32)
            for image in (second, slope_x, slope_y)
        )
        linearise(
            first,
            warped,
            warped_x,
            warped_y,
            scale.u1,
            scale.u2,
            scale.ix,
            scale.iy,
            scale.rho,
            scale.norm,
        )
        for _ in range(parameters.outer_iterations):
            for field in (u1, u2):
                field[:] = cv2.medianBlur(field, parameters.median)
            error = iterate(
                scale.u1,
                scale.u2,
                scale.p1x,
                scale.p1y,
                scale.p2x,
                scale.p2y,
                scale.ix,
                scale.iy,
                scale.rho,
                scale.norm,
                scale.change,
                scale.inside,
                scale.inside_x,
                np.float32(parameters.weight * parameters.theta),
                np.float32(parameters.theta),
                np.float32(parameters.tau / parameters.theta),
                scale.height,
                scale.width,
                scale.columns,
                parameters.inner_iterations,
                tolerance,
            )
            if error <= tolerance:
                break
