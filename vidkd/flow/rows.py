"""From a stream of RGB frames to a stream of stored flow, one row per frame."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vidkd.flow.quantise import SCHEME, quantise
from vidkd.flow.tvl1 import DEFAULTS, flow_function, resolve
from vidkd.recipe import FlowSettings
from vidkd.workers import read_ahead

if TYPE_CHECKING:
    from vidkd.video import Frame

_BATCH = 32
"""Pairs computed at once by the backend torch; 340 x 256 pixels take 30 MB each."""


def to_gray(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn an RGB image (H, W, 3) into the gray one (H, W) that flow is computed on.

    The definition is OpenCV's 8-bit ``RGB2GRAY``: 0.299 R + 0.587 G + 0.114 B, rounded.
    """
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def flow_settings(settings: FlowSettings, device: str = "cpu") -> dict[str, Any]:
    """Return everything that defines the stored numbers, for the provenance of a cache file."""
    return {
        "algorithm": "tv-l1",
        "backend": resolve(settings.backend, device),
        **dataclasses.asdict(DEFAULTS),
        "gray": "opencv-rgb2gray",
        "bound": settings.bound,
        "quantisation": SCHEME,
        "tail": "repeat-last-row",
    }


def flow_rows(
    frames: Iterable[Frame], settings: FlowSettings, threads: int = 1, device: str = "cpu"
) -> Iterator[Frame]:
    """Compute the flow from every frame to the next one.

    Args:
        frames: RGB frames of one size.
        settings: backend and bound.
        threads: pairs computed at the same time; the rows do not depend on it.
        device: where the backend torch computes, and what ``auto`` depends on.

    Yields:
        As many frames as came in, with the same times and indices. ``image`` is (H, W, 2) uint8,
        the quantised displacement along x and y from that frame to the next. The last frame has
        no next one and repeats the row before it, so that flow and RGB have the same length; a
        single frame gives a row of zero motion.
    """
    if resolve(settings.backend, device) == "torch":
        yield from _batched_rows(frames, settings, device)
        return
    with _one_opencv_thread(), ThreadPoolExecutor(threads, "tvl1") as pool:
        waiting: deque[tuple[Frame, Future[NDArray[np.uint8]]]] = deque()
        try:
            yield from _rows(iter(frames), settings, threads, pool, waiting)
        finally:
            # Whoever stops reading early should not wait for pairs nobody asks for any more.
            for _, row in waiting:
                row.cancel()


def _rows(
    frames: Iterator[Frame],
    settings: FlowSettings,
    threads: int,
    pool: ThreadPoolExecutor,
    waiting: deque[tuple[Frame, Future[NDArray[np.uint8]]]],
) -> Iterator[Frame]:
    estimate = flow_function(settings.backend)

    def stored(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # What TV-L1 finds too, to the last bit.
        if np.array_equal(before, after):
            return still.copy()
        return quantise(estimate(before, after), settings.bound)

    last = next(frames, None)
    if last is None:
        return
    gray = to_gray(last.image)
    last = dataclasses.replace(last, image=gray)
    row = still = quantise(np.zeros((*gray.shape, 2), np.float32), settings.bound)
    for frame in frames:
        before, gray = gray, to_gray(frame.image)
        waiting.append((last, pool.submit(stored, before, gray)))
        # The colour image is let go: only gray images wait in the queue.
        last = dataclasses.replace(frame, image=gray)
        # One pair more than there are threads keeps all busy while the consumer holds a row.
        if len(waiting) > threads:
            done, future = waiting.popleft()
            row = future.result()
            yield dataclasses.replace(done, image=row)
    while waiting:
        done, future = waiting.popleft()
        row = future.result()
        yield dataclasses.replace(done, image=row)
    yield dataclasses.replace(last, image=row.copy())


def _batched_rows(frames: Iterable[Frame], settings: FlowSettings, device: str) -> Iterator[Frame]:
    from vidkd.flow.torch_tvl1 import TorchTVL1

    estimator = TorchTVL1(device, _BATCH)
    row: NDArray[np.uint8] | None = None
    last: Frame | None = None
    # Frames are decoded and turned gray while the device computes.
    for batch in read_ahead(_gray_batches(iter(frames), _BATCH), capacity=1):
        if len(batch) > 1:
            flows = estimator.sequence(np.stack([frame.image for frame in batch]))
            for frame, flow in zip(batch, flows, strict=False):
                row = quantise(flow, settings.bound)
                yield dataclasses.replace(frame, image=row)
        last = batch[-1]
    if last is not None:
        if row is None:
            row = quantise(np.zeros((*last.image.shape, 2), np.float32), settings.bound)
        yield dataclasses.replace(last, image=row.copy())


def _gray_batches(frames: Iterator[Frame], pairs: int) -> Iterator[list[Frame]]:
    """Yield runs of ``pairs`` + 1 gray frames; each begins with the last frame of the one before.

    The last one may be shorter.
    """
    batch: list[Frame] = []
    for frame in frames:
        batch.append(dataclasses.replace(frame, image=to_gray(frame.image)))
        if len(batch) > pairs:
            yield batch
            batch = batch[-1:]
    if batch:
        yield batch


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    # Pairs, and above them videos, already run side by side: OpenCV's own threads would only
    # compete with them.
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
