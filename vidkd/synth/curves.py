"""Smooth curves in time: monotone interpolation of key frames, easing, slow random sway."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray


def through(times: Array, keys: Sequence[tuple[float, Sequence[float] | float]]) -> Array:
    """Interpolate key frames by piecewise cubics that never overshoot (Fritsch and Carlson 1980).

    A component rests where it reaches an extreme and passes through other keys in motion, as limbs
    do; before the first key and after the last it holds.

    Args:
        times: (n,) instants.
        keys: (time, value) pairs in increasing time; values are numbers or vectors of one length.

    Returns:
        (n,) or (n, length) values.
    """
    at = np.array([key[0] for key in keys], dtype=np.float64)
    value = np.array([key[1] for key in keys], dtype=np.float64)
    flat = value.reshape(len(at), -1)
    width = np.diff(at)[:, None]
    slope = np.diff(flat, axis=0) / width
    tangent = np.zeros_like(flat)
    before, after = slope[:-1], slope[1:]
    same = before * after > 0
    first = 2 * width[1:] + width[:-1]
    second = width[1:] + 2 * width[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        harmonic = (first + second) / (first / before + second / after)
    tangent[1:-1] = np.where(same, harmonic, 0.0)
    clipped = np.clip(times, at[0], at[-1])
    cell = np.clip(np.searchsorted(at, clipped, side="right") - 1, 0, len(at) - 2)
    w = width[cell]
    u = (clipped - at[cell])[:, None] / w
    result = (
        (1 + 2 * u) * (1 - u) ** 2 * flat[cell]
        + u * (1 - u) ** 2 * w * tangent[cell]
        + u**2 * (3 - 2 * u) * flat[cell + 1]
        + u**2 * (u - 1) * w * tangent[cell + 1]
    )
    return result.reshape(len(times), *value.shape[1:])


def ease(u: Array) -> Array:
    """Map 0..1 to 0..1 with the minimum-jerk profile of human reaching (Flash and Hogan 1985)."""
    u = np.clip(u, 0.0, 1.0)
    return u**3 * (10 - 15 * u + 6 * u**2)


def envelope(times: Array, start: float, end: float, rise: float, fall: float) -> Array:
    """Return 0 outside [start, end] and 1 inside, with eased ramps of ``rise`` and ``fall``."""
    return ease((times - start) / rise) * ease((end - times) / fall)


def sway(times: Array, rng: np.random.Generator, slowest: float, fastest: float) -> Array:
    """Return slow random motion of about unit size with periods between the two, in seconds."""
    periods = np.geomspace(slowest, fastest, 4)
    phases = rng.uniform(0, 2 * np.pi, 4)
    sizes = rng.uniform(0.4, 1.0, 4)
    waves = np.sin(2 * np.pi * times[:, None] / periods + phases) * sizes
    return np.asarray(waves.sum(axis=1) / 1.6)


def smooth(values: Array, sigma: float) -> Array:
    """Blur (n, ...) along time by a Gaussian of ``sigma`` samples, holding the ends."""
    radius = max(1, int(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    flat = values.reshape(len(values), -1)
    padded = np.concatenate([flat[:1].repeat(radius, 0), flat, flat[-1:].repeat(radius, 0)])
    blurred = np.zeros_like(flat)
    for offset, weight in enumerate(weights):
        blurred += weight * padded[offset : offset + len(flat)]
    return blurred.reshape(values.shape)
