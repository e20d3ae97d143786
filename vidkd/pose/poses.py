"""The poses of one video, as ``vidkd extract-pose`` keeps them in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidkd.cache import CacheFile
from vidkd.errors import CacheError
from vidkd.skeletons import JOINTS

Array = np.ndarray

CHANNELS = ("x", "y", "X", "Y", "Z", "score")
"""x, y: pixels of the resized frame, the middle of the first pixel is (0, 0). X, Y, Z: metres from
the middle of the hips; right, down, away from the camera. score: confidence in [0, 1]."""


@dataclass(frozen=True)
class Poses:
    """The people of one video over time.

    A person keeps the slot m for the whole of a track. Slot 0 holds the main person.
    """

    data: Array
    """(T, M, 13, 6) float32, the :data:`CHANNELS` of the joints of T frames and M slots; NaN where
    nobody is, and in X, Y and Z where the source of the poses had no 3D."""
    tracks: Array
    """(T, M) int32, number of the person's track, -1 where nobody is."""
    pts: Array
    """(T, 2) float64, start and end second of every frame."""
    width: int
    """Pixels of the frames that x and y refer to."""
    height: int
    """Likewise."""

    @property
    def joints_2d(self) -> Array:
        """(T, M, 13, 2) pixels."""
        return self.data[..., :2]

    @property
    def joints_3d(self) -> Array:
        """(T, M, 13, 3) metres from the middle of the hips."""
        return self.data[..., 2:5]

    @property
    def scores(self) -> Array:
        """(T, M, 13) confidence in [0, 1]."""
        return self.data[..., 5]

    @property
    def present(self) -> Array:
        """(T, M) bool, whether somebody is in the slot."""
        return self.tracks >= 0


def load_poses(path: str | Path) -> Poses:
    """Read the poses of one video, ``CACHE/pose/KEY.h5``.

    Raises:
        CacheError: the file is missing, damaged, or does not hold poses.
    """
    with CacheFile(Path(path)) as file:
        provenance = file.provenance
        shape = file.data.shape
        if provenance.artefact != "pose" or shape[2:] != (len(JOINTS), len(CHANNELS)):
            raise CacheError(
                f"holds {provenance.artefact} with rows {shape[1:]}, not poses",
                path=path,
                remedy="give a file that `vidkd extract-pose` has written",
            )
        try:
            width, height = (int(side) for side in provenance.settings["size"])
        except (KeyError, TypeError, ValueError) as error:
            raise CacheError(
                "does not say how large its frames are",
                path=path,
                remedy="compute it again with `vidkd extract-pose --overwrite`",
            ) from error
        return Poses(file.rows(), file.more("tracks"), file.pts, width, height)
