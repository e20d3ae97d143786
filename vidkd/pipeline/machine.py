"""What the machine can do at best, measured: the limits that speeds are held against."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vidkd.machine import cores, processor
from vidkd.networks.i3d_inference import fused_convolution_available


def describe_machine(device: torch.device | None = None) -> dict[str, Any]:
    """Return the processor, its instruction sets, and those that PyTorch's own kernels use.

    Args:
        device: the GPU that computes, if one does.
    """
    name, sets = processor()
    found = {
        "processor": name,
        "instruction_sets": sets,
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if device is not None and device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def matrix_product(device: torch.device) -> float:
    """Measure the GFLOP/s of a float32 matrix product: the best seen, by any library."""
    size = (8192, 512, 512)
    products = float32_products(size, device)
    return max(fastest(call, operations(size), 8) for call in products.values())


def copy_bandwidth(device: torch.device) -> float:
    """Measure the GB/s of a copy that no cache holds; what is read and what is written count."""
    count = 2**25
    source, target = torch.rand(count, device=device), torch.empty(count, device=device)
    return fastest(partial(target.copy_, source), 2.0 * 4 * count, 5)


Size = tuple[int, int, int]
"""Rows and columns of the first matrix, columns of the second; rows are a multiple of 64."""


def float32_products(size: Size, device: torch.device) -> dict[str, Callable[[], Tensor]]:
    """Return a product of random float32 matrices by every library that PyTorch has for it.

    On a CPU ``torch.mm`` may run at half the speed of oneDNN, which computes the networks. oneDNN
    has no matrix product of its own in PyTorch: its 1x1 convolution is one.
    """
    rows, inner, columns = size
    a, b = torch.rand(rows, inner, device=device), torch.rand(inner, columns, device=device)
    products: dict[str, Callable[[], Tensor]] = {"torch.mm": partial(torch.mm, a, b)}
    if device.type == "cpu" and fused_convolution_available():
        image = a.T.reshape(1, inner, 1, rows // 64, 64)
        image = image.contiguous(memory_format=torch.channels_last_3d)
        geometry = [0, 0, 0], [1, 1, 1], [1, 1, 1], 1
        kernel = b.T.reshape(columns, inner, 1, 1, 1).contiguous()
        weight = torch.ops.mkldnn._reorder_convolution_weight(kernel, *geometry, list(image.shape))
        convolve = torch.ops.mkldnn._convolution_pointwise
        products["oneDNN"] = partial(convolve, image, weight, None, *geometry, "none", [], "")
    return products


def operations(size: Size) -> float:
    """Return the operations of a product; a multiplication and an addition are two."""
    rows, inner, columns = size
    return 2.0 * rows * inner * columns


def fastest(call: Callable[[], object], count: float, rounds: int) -> float:
    """Return the GFLOP/s of the fastest of some calls, after one that warms up.

    Args:
        call: computes something; a tensor that it returns is waited for.
        count: operations of one call.
        rounds: how often it is timed.
    """
    best = 0.0
    with torch.inference_mode():
        call()
        for _ in range(rounds):
            started = time.perf_counter()
            result = call()
            if isinstance(result, Tensor):
                # Reading one value waits for the device.
                result[(0,) * result.ndim].item()
            best = max(best, count / (time.perf_counter() - started) / 1e9)
    return best
