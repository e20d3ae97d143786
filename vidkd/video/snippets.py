"""Snippets: windows of consecutive frames with their true start and end second.

Every frame lies in a snippet. The last window is filled by repeating its last frame, and ends at
that frame's true end (METHOD section 7, "an explicit tail policy").
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from vidkd.video.decode import Frame


@dataclass(frozen=True)
class Snippet:
    """A window of frames.

    Attributes:
        frames: (length, H, W, C), dtype of the frames.
        start: second at which its first frame appears.
        end: second at which its last real (not repeated) frame ends.
        index: number of the snippet, from 0.
    """

    frames: np.ndarray
    start: float
    end: float
    index: int


def snippet_count(frames: int, length: int, stride: int) -> int:
    """Return T, the number of snippets of a video of that many frames; 0 for none."""
    if frames < 0 or length < 1 or stride < 1:
        raise ValueError("frames must be 0 or more, length and stride at least 1")
    if frames == 0:
        return 0
    # With gaps between windows (stride > length), one more begins only if a frame is there.
    if stride > length:
        return 1 + (frames - 1) // stride
    return 1 + -(-max(frames - length, 0) // stride)


def snippet_pts(frame_pts: np.ndarray, length: int, stride: int) -> np.ndarray:
    """Return (T, 2) start and end seconds of the snippets of frames with (N, 2) seconds."""
    frame_pts = np.asarray(frame_pts, dtype=np.float64).reshape(-1, 2)
    first = np.arange(snippet_count(len(frame_pts), length, stride)) * stride
    last = np.minimum(first + length, len(frame_pts)) - 1
    return np.stack([frame_pts[first, 0], frame_pts[last, 1]], axis=1)


def cut_snippets(frames: Iterable[Frame], length: int = 16, stride: int = 16) -> Iterator[Snippet]:
    """Cut a stream of frames into snippets, holding no more than one window of frames.

    Args:
        frames: in order of time, all of one shape.
        length: frames in a snippet.
        stride: frames from the start of one snippet to the start of the next.
    """
    snippet_count(0, length, stride)
    window: deque[Frame] = deque()
    index = 0
    skip = 0
    unseen = 0  # frames in the window that lie in no snippet yet
    for frame in frames:
        if skip:
            skip -= 1
            continue
        window.append(frame)
        unseen += 1
        if len(window) == length:
            yield _snippet(window, length, index)
            index += 1
            unseen = 0
            for _ in range(min(stride, length)):
                window.popleft()
            skip = max(0, stride - length)
    if unseen:
        yield _snippet(window, length, index)


def _snippet(window: deque[Frame], length: int, index: int) -> Snippet:
    images = [frame.image for frame in window]
    images += [images[-1]] * (length - len(images))
    return Snippet(np.stack(images), window[0].start, window[-1].end, index)
