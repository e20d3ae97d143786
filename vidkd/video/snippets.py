"""Snippets: rows of a video with their true start and end second, and the clip of each.

Every frame lies in a row. The last row ends at the last frame's true end. A clip has the same
centre as its row (to half a frame); where it reaches beyond the video, the first or last frame
is repeated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from vidkd.recipe.inputs import SnippetSettings
from vidkd.video.decode import Frame


@dataclass(frozen=True)
class Snippet:
    """A row and its clip.

    Attributes:
        frames: (length, H, W, C), the clip; dtype of the frames.
        start: second at which the first frame of the row appears.
        end: second at which its last frame ends.
        index: number of the row, from 0.
    """

    frames: np.ndarray
    start: float
    end: float
    index: int


def snippet_count(frames: int, snippet: SnippetSettings) -> int:
    """Return T, the number of rows of a video of that many frames; 0 for none."""
    if frames < 0:
        raise ValueError("frames must be 0 or more")
    if frames == 0:
        return 0
    window, stride = snippet.row_length, snippet.stride
    # With gaps between rows (stride > window), one more begins only if a frame is there.
    if stride > window:
        return 1 + (frames - 1) // stride
    return 1 + -(-max(frames - window, 0) // stride)


def snippet_pts(frame_pts: np.ndarray, snippet: SnippetSettings) -> np.ndarray:
    """Return (T, 2) start and end seconds of the rows of frames with (N, 2) seconds."""
    frame_pts = np.asarray(frame_pts, dtype=np.float64).reshape(-1, 2)
    first = np.arange(snippet_count(len(frame_pts), snippet)) * snippet.stride
    last = np.minimum(first + snippet.row_length, len(frame_pts)) - 1
    return np.stack([frame_pts[first, 0], frame_pts[last, 1]], axis=1)


def clip_frames(first: int, snippet: SnippetSettings) -> np.ndarray:
    """Return the numbers of the frames (length,) of the clip whose row begins at frame ``first``.

    They may lie before or after the video: the first or last frame takes their place.
    """
    start = first + (snippet.row_length - snippet.span) // 2
    return start + snippet.step * np.arange(snippet.length)


def cut_snippets(frames: Iterable[Frame], snippet: SnippetSettings) -> Iterator[Snippet]:
    """Cut a stream of frames into snippets, holding no more than one clip or row of frames.

    Args:
        frames: in order of time, all of one shape.
        snippet: the rows and their clips.
    """
    held: deque[Frame] = deque()
    count = index = 0
    low, high = _needed(index, snippet)
    for frame in frames:
        count += 1
        held.append(frame)
        if count > high:
            yield _snippet(held, count, index, snippet)
            index += 1
            low, high = _needed(index, snippet)
        # The last frame stays: it is repeated after the end.
        while len(held) > 1 and count - len(held) < low:
            held.popleft()
    while index < snippet_count(count, snippet):
        yield _snippet(held, count, index, snippet)
        index += 1


def _needed(index: int, snippet: SnippetSettings) -> tuple[int, int]:
    """Return the first and the last frame that a row and its clip are made of."""
    first = index * snippet.stride
    clip = first + (snippet.row_length - snippet.span) // 2
    last = max(first + snippet.row_length, clip + snippet.span) - 1
    return max(0, min(first, clip)), last


def _snippet(held: deque[Frame], count: int, index: int, snippet: SnippetSettings) -> Snippet:
    """Make a row of the frames held, of which the last has the number ``count - 1``."""
    first, before = index * snippet.stride, count - len(held)
    last = min(first + snippet.row_length, count) - 1
    places = np.clip(clip_frames(first, snippet), 0, count - 1) - before
    images = np.stack([held[place].image for place in places])
    return Snippet(images, held[first - before].start, held[last - before].end, index)
