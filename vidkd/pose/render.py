"""Skeletons over video, with the main person's 3D pose from two sides beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from vidkd.pose.poses import Poses
from vidkd.skeletons import BONES
from vidkd.video.redraw import Draw, redraw

Array = np.ndarray

RIGHT, LEFT = (245, 158, 11), (56, 189, 248)
"""Colours of the person's right and left side."""
PEOPLE = ((255, 255, 255), (74, 222, 128), (244, 114, 182), (192, 132, 252))
"""Colours of the slots: boxes and numbers."""
BACKGROUND, GRID, TEXT = (17, 24, 39), (45, 55, 72), (156, 163, 175)
SURE = 0.3
"""Bones whose joints have a lower score are drawn thin."""
METRES = 1.1
"""Reach of the 3D views from the middle of the hips."""


class SkeletonOverlay:
    """Draws the people of a frame.

    Args:
        width: of the pictures, in pixels.
        height: of the pictures.
        scale: pixels of the pictures for a pixel of the poses.
    """

    def __init__(self, width: int, height: int, scale: float) -> None:
        self._scale = scale
        self._thick = max(1, round(min(width, height) / 180))
        # Two square views of 3D, one above the other.
        self._view = height // 2
        self.size = (width + self._view + (width + self._view) % 2, height + height % 2)

    def draw(self, image: Array, joints: Array, tracks: Array) -> Array:
        """Return a picture of ``size`` with everything drawn.

        Args:
            image: (H, W, 3) uint8 RGB.
            joints: (M, 13, 6), see :data:`vidkd.pose.poses.CHANNELS`.
            tracks: (M,) numbers of tracks, -1 where nobody is.
        """
        height, width = image.shape[:2]
        canvas = np.full((self.size[1], self.size[0], 3), BACKGROUND, np.uint8)
        canvas[:height, :width] = image
        picture = np.ascontiguousarray(canvas[:height, :width])
        # The main person last, on top.
        for slot in reversed(range(len(tracks))):
            if tracks[slot] >= 0:
                self._person(picture, joints[slot], int(tracks[slot]), PEOPLE[slot % len(PEOPLE)])
        canvas[:height, :width] = picture
        main = joints[0] if len(tracks) and tracks[0] >= 0 else None
        for number, (name, across) in enumerate((("front", 0), ("side", 2))):
            view = self._solid(main, across, name)
            top = number * self._view
            canvas[top : top + self._view, width : width + self._view] = view
        return canvas

    def _person(self, picture: Array, joints: Array, track: int, colour: tuple[int, ...]) -> None:
        points = (joints[:, :2] + 0.5) * self._scale - 0.5
        self._skeleton(picture, points, joints[:, 5])
        known = points[np.isfinite(points).all(axis=1)]
        if len(known):
            low, high = known.min(axis=0) - 3 * self._thick, known.max(axis=0) + 3 * self._thick
            left, top, right, bottom = (int(side) for side in (*low.round(), *high.round()))
            cv2.rectangle(picture, (left, top), (right, bottom), colour, 1, cv2.LINE_AA)
            at = left, max(top - 2 * self._thick, 6 * self._thick)
            label = f"{track}  {np.nanmean(joints[:, 5]):.2f}"
            size = 0.22 * self._thick
            # A dark edge, so that the number shows on bright walls.
            for tint, weight in ((BACKGROUND, 3), (colour, 1)):
                cv2.putText(
                    picture, label, at, cv2.FONT_HERSHEY_SIMPLEX, size, tint, weight, cv2.LINE_AA
                )

    def _skeleton(self, picture: Array, points: Array, scores: Array) -> None:
        for one, other in BONES:
            if np.isfinite(points[[one, other]]).all():
                begin, end = _subpixel(points[one]), _subpixel(points[other])
                sure = min(scores[one], scores[other]) >= SURE
                thick = self._thick if sure else 1
                cv2.line(picture, begin, end, BACKGROUND, thick + 2, cv2.LINE_AA, 4)
                side = LEFT if one % 2 else RIGHT
                cv2.line(picture, begin, end, side, thick, cv2.LINE_AA, 4)
        for point in points[np.isfinite(points).all(axis=1)]:
            cv2.circle(
                picture, _subpixel(point), 16 * self._thick, (255, 255, 255), -1, cv2.LINE_AA, 4
            )

    def _solid(self, joints: Array | None, across: int, name: str) -> Array:
        """Return a square view of a 3D pose; ``across`` is the axis that runs to the right."""
        view = np.full((self._view, self._view, 3), BACKGROUND, np.uint8)
        unit = self._view / (2 * METRES)
        for line in (-1.0, -0.5, 0.0, 0.5, 1.0):
            at = round(self._view / 2 + line * unit)
            cv2.line(view, (at, 0), (at, self._view), GRID, 1)
            cv2.line(view, (0, at), (self._view, at), GRID, 1)
        if joints is not None:
            points = joints[:, [2 + across, 3]] * unit + self._view / 2
            self._skeleton(view, points, joints[:, 5])
        cv2.putText(
            view, name, (6, 6 + 6 * self._thick), cv2.FONT_HERSHEY_SIMPLEX, 0.22 * self._thick,
            TEXT, 1, cv2.LINE_AA,
        )  # fmt: skip
        return view


def _subpixel(point: Array) -> tuple[int, int]:
    """Return a point in sixteenths of a pixel, as OpenCV draws with ``shift`` 4."""
    return round(16 * float(point[0])), round(16 * float(point[1]))


def render_poses(
    video: str | Path,
    poses: Poses,
    path: str | Path,
    report: Callable[[float], None] | None = None,
) -> None:
    """Write a copy of a video with skeletons, as H.264 in MP4, without sound, atomically.

    See :func:`vidkd.video.redraw.redraw` for ``report`` and for what it raises.
    """

    def begin(width: int, height: int) -> tuple[tuple[int, int], Draw]:
        overlay = SkeletonOverlay(width, height, width / poses.width)

        def draw(image: Array, seconds: float) -> Array:
            # The row whose frame is displayed then; times may be rounded down.
            row = int(np.searchsorted(poses.pts[:, 0], seconds + 1e-6, side="right")) - 1
            return overlay.draw(image, poses.data[max(row, 0)], poses.tracks[max(row, 0)])

        return overlay.size, draw

    redraw(video, path, begin, report)
