"""The inner loops of TV-L1, compiled by numba: what takes all the time, arranged for the CPU.

One iteration of the algorithm is one sweep over memory: a row of the flow is updated, then the
dual variables of the row above it, whose data is still in the first-level cache. Every operation
on a pixel is the one OpenCV does, in its order and precision, so that results agree bit for bit
where OpenCV was compiled without fused multiply-add (its x86-64 wheels): the iteration is chaotic,
and a last-bit difference grows to 0.01 to 0.1 pixel on average in scenes with large motion.

The loops are written so that LLVM turns each into full-width vector instructions:

- They run over rows padded to a multiple of the vector length, so that no scalar rest remains.
  In the padding the data term, the flow and the dual variables are zero and stay zero.
- Every index is a loop variable that starts at zero, plus at most one; anything else makes numba
  test each index for being negative, and the loop stays scalar. This is why the horizontal dual
  variables ``px`` are stored one column to the right: ``px[y, x + 1]`` belongs to pixel x,
  ``px[y, x]`` to its left neighbour, and column 0 is the zero border.
- The first and the last row of every field are a border; pixel row y is row ``y + 1``.

Notation of Zach, Pock and Bischof 2007: flow u = (u1, u2), dual variables p of each component,
data term rho, and v, the point-wise minimiser.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

Field: TypeAlias = NDArray[np.float32]
Function = TypeVar("Function", bound=Callable[..., Any])

_FLAT = np.float32(np.finfo(np.float32).eps)
"""Squared gradient below which OpenCV takes the image for flat."""


def _compiled(fastmath: bool | set[str] = False) -> Callable[[Function], Function]:
    """Compile without the GIL, so that threads work on several pairs at once."""

    def decorate(function: Function) -> Function:
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:
            # numba found no folder it may write a cache to: compile anew in every process.
            return numba.njit(**options)(function)

    return decorate


@_compiled()
def linearise(
    first: Field,
    warped: Field,
    warped_x: Field,
    warped_y: Field,
    u1: Field,
    u2: Field,
    ix: Field,
    iy: Field,
    rho: Field,
    norm: Field,
) -> None:
    """Linearise the brightness residual around the current flow (Zach et al. 2007, Eq. 8).

    Writes the gradient of the warped second image to ``ix`` and ``iy``, its square to ``norm``
    and the part of the residual that does not depend on the flow to ``rho``. Images are (H, W),
    fields (H + 2, W + padding).
    """
    for y in range(first.shape[0]):
        for x in range(first.shape[1]):
            gx = warped_x[y, x]
            gy = warped_y[y, x]
            ix[y + 1, x] = gx
            iy[y + 1, x] = gy
            norm[y + 1, x] = gx * gx + gy * gy
            rho[y + 1, x] = warped[y, x] - gx * u1[y + 1, x] - gy * u2[y + 1, x] - first[y, x]


@_compiled()
def _data_step(residual: np.float32, norm: np.float32, bound: np.float32) -> np.float32:
    """Return the step v - u in multiples of the gradient: the thresholding of Eq. 15."""
    limit = bound * norm
    step = -residual / max(norm, _FLAT) if norm > _FLAT else np.float32(0)
    step = -bound if residual > limit else step
    return bound if residual < -limit else step


@_compiled()
def _length(x: np.float32, y: np.float32) -> np.float32:
    # In double precision like the C function hypot, which OpenCV calls.
    x2 = np.float64(x) * np.float64(x)
    return np.float32(np.sqrt(x2 + np.float64(y) * np.float64(y)))


@_compiled(fastmath={"reassoc", "nsz"})
def _row_sum(field: Field, y: int, columns: int) -> np.float32:
    total = np.float32(0)
    for x in range(columns):
        total += field[y, x]
    return total


@_compiled()
def _sum_in_order(field: Field, rows: int, width: int) -> np.float32:
    total = np.float32(0)
    for y in range(1, rows + 1):
        for x in range(width):
            total += field[y, x]
    return total


@_compiled()
def iterate(
    u1: Field,
    u2: Field,
    p1x: Field,
    p1y: Field,
    p2x: Field,
    p2y: Field,
    ix: Field,
    iy: Field,
    rho: Field,
    norm: Field,
    change: Field,
    inside: Field,
    inside_x: Field,
    bound: np.float32,
    theta: np.float32,
    step: np.float32,
    rows: int,
    width: int,
    columns: int,
    iterations: int,
    tolerance: np.float32,
) -> np.float32:
    """Iterate until the flow hardly changes, or the number of iterations is used up.

    Args:
        u1, u2: flow along x and y, updated in place.
        p1x, p1y, p2x, p2y: dual variables, updated in place.
        ix, iy, rho, norm: what :func:`linearise` wrote.
        change: room for the squared change of the flow at every pixel.
        inside: 1 for every column of the image and 0 in the padding.
        inside_x: the same, but 0 in the last column too, which has no right neighbour.
        bound: ``lambda * theta``, the longest step of the data term in gradients.
        theta: coupling of u and v.
        step: ``tau / theta``, of the dual ascent.
        rows, width: size of the image.
        columns: width including the padding.
        tolerance: sum of squared changes at which to stop.

    Returns:
        The sum over pixels of the squared change of the flow in the last iteration.
    """
    one = np.float32(1)
    error = np.float32(0)
    # Bound of the rounding error of a float32 sum; only this close to the tolerance does the
    # order of the sum matter, and it is summed pixel by pixel as OpenCV does.
    doubt = tolerance * np.float32(rows * width) * np.float32(2.0**-23)
    for _ in range(iterations):
        error = np.float32(0)
        for y in range(1, rows + 2):
            if y <= rows:
                first1 = u1[y, 0]
                first2 = u2[y, 0]
                for x in range(columns):
                    old1 = u1[y, x]
                    old2 = u2[y, x]
                    gx = ix[y, x]
                    gy = iy[y, x]
                    move = _data_step(rho[y, x] + (gx * old1 + gy * old2), norm[y, x], bound)
                    divergence1 = (p1x[y, x + 1] - p1x[y, x]) + (p1y[y, x] - p1y[y - 1, x])
                    divergence2 = (p2x[y, x + 1] - p2x[y, x]) + (p2y[y, x] - p2y[y - 1, x])
                    new1 = (old1 + move * gx) + theta * divergence1
                    new2 = (old2 + move * gy) + theta * divergence2
                    u1[y, x] = new1
                    u2[y, x] = new2
                    change1 = new1 - old1
                    change2 = new2 - old2
                    change[y, x] = change1 * change1 + change2 * change2
                # OpenCV sums the divergence of the first column in another order.
                gx = ix[y, 0]
                gy = iy[y, 0]
                move = _data_step(rho[y, 0] + (gx * first1 + gy * first2), norm[y, 0], bound)
                new1 = (first1 + move * gx) + theta * ((p1x[y, 1] + p1y[y, 0]) - p1y[y - 1, 0])
                new2 = (first2 + move * gy) + theta * ((p2x[y, 1] + p2y[y, 0]) - p2y[y - 1, 0])
                u1[y, 0] = new1
                u2[y, 0] = new2
                change1 = new1 - first1
                change2 = new2 - first2
                change[y, 0] = change1 * change1 + change2 * change2
                error += _row_sum(change, y, columns)
            else:
                # The last row has no vertical gradient: its neighbour below is its equal.
                for x in range(columns):
                    u1[y, x] = u1[y - 1, x]
                    u2[y, x] = u2[y - 1, x]
            if y > 1:
                # The dual variables of the row above: their old values were needed once more
                # for the divergence just computed, and the new flow below them is known now.
                above = y - 1
                for x in range(columns):
                    gx = (u1[above, x + 1] - u1[above, x]) * inside_x[x]
                    gy = (u1[y, x] - u1[above, x]) * inside[x]
                    scale = one + step * _length(gx, gy)
                    p1x[above, x + 1] = (p1x[above, x + 1] + step * gx) / scale
                    p1y[above, x] = (p1y[above, x] + step * gy) / scale
                for x in range(columns):
                    gx = (u2[above, x + 1] - u2[above, x]) * inside_x[x]
                    gy = (u2[y, x] - u2[above, x]) * inside[x]
                    scale = one + step * _length(gx, gy)
                    p2x[above, x + 1] = (p2x[above, x + 1] + step * gx) / scale
                    p2y[above, x] = (p2y[above, x] + step * gy) / scale
        if abs(error - tolerance) <= doubt:
            error = _sum_in_order(change, rows, width)
        if error <= tolerance:
            break
    return error
