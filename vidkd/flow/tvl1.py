"""TV-L1 optical flow behind one function, computed by one of three backends.

Zach, Pock and Bischof, "A duality based approach for realtime TV-L1 optical flow" (2007), with the
settings and the additions (pyramid, warps, stopping rule, median filter) of OpenCV's DualTVL1.
``opencv`` is the reference; ``numba`` is the same algorithm arranged for the CPU's caches and
vector units, 20 times as fast on one core and bit for bit the same on x86-64; ``torch`` computes
many pairs at once, for GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Backend: TypeAlias = Literal["auto", "numba", "opencv", "torch"]
Implementation: TypeAlias = Literal["numba", "opencv", "torch"]
Gray: TypeAlias = NDArray[Any]
FlowFunction: TypeAlias = Callable[[Gray, Gray], NDArray[np.float32]]
"""Two gray images (H, W), uint8 or float32 in 0..255, to flow (H, W, 2), float32 pixels (x, y)."""


@dataclass(frozen=True)
class Parameters:
    """Everything that defines TV-L1; the defaults are those of OpenCV's DualTVL1."""

    tau: float = 0.25
    """Time step of the dual ascent."""
    weight: float = 0.15
    """Weight of the data term (``lambda`` in the paper): smaller is smoother."""
    theta: float = 0.3
    """Tightness of the coupling between the data and the smoothness term."""
    scales: int = 5
    warps: int = 5
    """Linearisations of the second image per scale."""
    epsilon: float = 0.01
    """A warp ends when the root mean square change of the flow falls below this many pixels."""
    inner_iterations: int = 30
    outer_iterations: int = 10
    scale_step: float = 0.8
    median: int = 5
    """Side of the median filter that is applied to the flow before each outer iteration."""


DEFAULTS: Final = Parameters()


def resolve(backend: Backend, device: str = "cpu") -> Implementation:
    """Return the backend that ``auto`` stands for on a device; the others are themselves."""
    if backend == "auto":
        return "torch" if device.startswith("cuda") else "numba"
    return backend


def flow_function(backend: Backend = "auto", parameters: Parameters = DEFAULTS) -> FlowFunction:
    """Return the function that computes TV-L1 on a processor with the given backend.

    For many pairs at once, on a GPU too, see :class:`vidkd.flow.torch_tvl1.TorchTVL1`.

    The function may be called from several threads at once, releases the GIL while it computes,
    and returns the same numbers for the same pair whatever it computed before.
    """
    chosen = resolve(backend, "cpu")
    if chosen == "opencv":
        return lambda previous, current: _opencv(previous, current, parameters)
    if chosen == "torch":
        from vidkd.flow.torch_tvl1 import TorchTVL1

        batched = TorchTVL1("cpu", parameters=parameters)
        return lambda *pair: batched.sequence(np.stack(_checked(*pair)))[0]
    # Imported on demand: numba takes half a second that the OpenCV backend does not need.
    from vidkd.flow.fused import fused_tvl1

    return lambda previous, current: fused_tvl1(*_checked(previous, current), parameters)


def tvl1(
    previous: Gray,
    current: Gray,
    backend: Backend = "auto",
    parameters: Parameters = DEFAULTS,
) -> NDArray[np.float32]:
    """Compute the motion that takes ``previous`` to ``current``.

    Args:
        previous: (H, W) gray image, uint8 or float32, values 0..255; 3 pixels a side or more.
        current: the next image, same shape and type.

    Returns:
        (H, W, 2) float32: the displacement in pixels along x and y of every pixel of ``previous``.

    Raises:
        ValueError: the images differ in shape or type, are not gray, or are tiny.
    """
    return flow_function(backend, parameters)(previous, current)


def _checked(previous: Gray, current: Gray) -> tuple[Gray, Gray]:
    if previous.ndim != 2 or previous.shape != current.shape or previous.dtype != current.dtype:
        raise ValueError(
            "optical flow needs two gray images of one shape and type, not "
            f"{previous.shape} {previous.dtype} and {current.shape} {current.dtype}"
        )
    if previous.dtype not in (np.uint8, np.float32):
        raise ValueError(f"optical flow needs uint8 or float32 images, not {previous.dtype}")
    if min(previous.shape) < 3:
        raise ValueError(f"images of {previous.shape} pixels are too small for optical flow")
    return previous, current


def _opencv(previous: Gray, current: Gray, parameters: Parameters) -> NDArray[np.float32]:
    previous, current = _checked(previous, current)
    if previous.dtype == np.float32:
        # OpenCV takes 8-bit images as they are but expects float images in 0..1.
        scale = np.float32(1 / 255)
        previous, current = previous * scale, current * scale
    # A fresh estimator for every pair: OpenCV's keeps the number of scales of the smallest image
    # it has seen, which would make a result depend on what was computed before.
    optflow: Any = cv2.optflow  # its type stubs lack this class
    estimator = optflow.DualTVL1OpticalFlow_create(
        tau=parameters.tau,
        lambda_=parameters.weight,
        theta=parameters.theta,
        nscales=parameters.scales,
        warps=parameters.warps,
        epsilon=parameters.epsilon,
        innnerIterations=parameters.inner_iterations,
        outerIterations=parameters.outer_iterations,
        scaleStep=parameters.scale_step,
        gamma=0.0,
        medianFiltering=parameters.median,
        useInitialFlow=False,
    )
    return np.asarray(estimator.calc(previous, current, None), dtype=np.float32)
