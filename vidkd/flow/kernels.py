"""The inner loops of TV-L1, compiled by numba: what takes all the time, arranged for the CPU.

One iteration of the algorithm is one sweep over memory: a row of the flow is updated, then the
dual variables of the row above it, whose data is still in the first-level cache. The loops are
written so that LLVM turns each into full-width vector instructions:

- They run over rows padded to a multiple of the vector length, so that no scalar rest remains.
  In the padding the data term, the flow and the dual variables are zero and stay zero.
- Every index is a loop variable that starts at zero, plus at most one; anything else makes numba
  test each index for being negative, and the loop stays scalar. This is why the horizontal dual
  variables ``px`` are stored one column to the right: ``px[y, x + 1]`` belongs to pixel x,
  ``px[y, x]`` to its left neighbour, and column 0 is the zero border.
- The first and the last row of every field are a border; pixel row y is row ``y + 1``.

Notation of Zach, Pock and Bischof 2007: flow u = (u1, u2), dual variables p of each component,
data term rho, v the point-wise minimiser. Only the order of float32 sums differs from OpenCV.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

# fastmath lets LLVM reorder the sum of squares and divide by reciprocal and Newton step; no value
# is ever infinite or NaN. The GIL is released, so that threads work on several pairs at once.
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "fastmath": True,
    "error_model": "numpy",
    "boundscheck": False,
}


@numba.njit(**_OPTIONS)
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
    inverse: Field,
) -> None:
    """Linearise the brightness residual around the current flow (Zach et al. 2007, Eq. 8).

    Writes the gradient of the warped second image to ``ix`` and ``iy``, the part of the residual
    that does not depend on the flow to ``rho``, and ``-1 / |gradient|^2`` to ``inverse``. Images
    are (H, W), fields (H + 2, W + padding).
    """
    for y in range(first.shape[0]):
        for x in range(first.shape[1]):
            gx = warped_x[y, x]
            gy = warped_y[y, x]
            ix[y + 1, x] = gx
            iy[y + 1, x] = gy
            rho[y + 1, x] = warped[y, x] - gx * u1[y + 1, x] - gy * u2[y + 1, x] - first[y, x]
            # Below this the image is flat and the step, a multiple of the gradient, vanishes.
            inverse[y + 1, x] = np.float32(-1) / max(gx * gx + gy * gy, np.float32(1e-12))


@numba.njit(**_OPTIONS)
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
    inverse: Field,
    step: Field,
    step_x: Field,
    bound: np.float32,
    theta: np.float32,
    rows: int,
    columns: int,
    iterations: int,
    tolerance: np.float32,
) -> float:
    """Iterate until the flow hardly changes, or the number of iterations is used up.

    Args:
        u1, u2: flow along x and y, updated in place.
        p1x, p1y, p2x, p2y: dual variables, updated in place.
        ix, iy, rho, inverse: what :func:`linearise` wrote.
        step: ``tau / theta`` for every column of the image and 0 in the padding.
        step_x: the same, but 0 in the last column too, which has no right neighbour.
        bound: ``lambda * theta``, the longest step of the data term in gradients.
        rows: height of the image.
        columns: width including the padding.
        tolerance: sum of squared changes at which to stop.

    Returns:
        The sum over pixels of the squared change of the flow in the last iteration.
    """
    one = np.float32(1)
    error = np.float32(0)
    for _ in range(iterations):
        error = np.float32(0)
        for y in range(1, rows + 2):
            if y <= rows:
                for x in range(columns):
                    old1 = u1[y, x]
                    old2 = u2[y, x]
                    gx = ix[y, x]
                    gy = iy[y, x]
                    # The three cases of the thresholding step (Eq. 15) are one clamp.
                    move = (rho[y, x] + gx * old1 + gy * old2) * inverse[y, x]
                    move = min(max(move, -bound), bound)
                    divergence1 = p1x[y, x + 1] - p1x[y, x] + p1y[y, x] - p1y[y - 1, x]
                    divergence2 = p2x[y, x + 1] - p2x[y, x] + p2y[y, x] - p2y[y - 1, x]
                    new1 = old1 + move * gx + theta * divergence1
                    new2 = old2 + move * gy + theta * divergence2
                    u1[y, x] = new1
                    u2[y, x] = new2
                    change1 = new1 - old1
                    change2 = new2 - old2
                    error += change1 * change1 + change2 * change2
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
                    value = u1[above, x]
                    gx = (u1[above, x + 1] - value) * step_x[x]
                    gy = (u1[y, x] - value) * step[x]
                    shrink = one / (one + np.sqrt(gx * gx + gy * gy))
                    p1x[above, x + 1] = (p1x[above, x + 1] + gx) * shrink
                    p1y[above, x] = (p1y[above, x] + gy) * shrink
                    value = u2[above, x]
                    gx = (u2[above, x + 1] - value) * step_x[x]
                    gy = (u2[y, x] - value) * step[x]
                    shrink = one / (one + np.sqrt(gx * gx + gy * gy))
                    p2x[above, x + 1] = (p2x[above, x + 1] + gx) * shrink
                    p2y[above, x] = (p2y[above, x] + gy) * shrink
        if error <= tolerance:
            break
    return error
