"""Where people can stand and walk: seen by the camera, clear of furniture and of each other."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vidkd.synth.camera import Camera
from vidkd.synth.gait import Path

Array = np.ndarray
Place = tuple[float, float, float]

CLEARANCE = 0.42
"""Metres kept between the middle of a person and that of an obstacle's edge circle."""


@dataclass
class Stage:
    """The part of the floor one person uses.

    ``side`` (3,) are a, b, c of the half plane a x + b y >= c that belongs to the person.
    """

    camera: Camera
    side: Array
    floor: tuple[float, float, float, float] = (-9.0, 9.0, -9.0, 9.0)
    """Least and greatest x, least and greatest y of the free floor."""
    obstacles: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """Name to x, y, radius in metres."""

    def inside(self, points: Array, spread: float) -> Array:
        """Tell which floor points (..., 2) show a whole person.

        ``spread`` is the half of the image's width that may be used, as a share of the width.
        """
        feet = np.concatenate([points, np.zeros((*points.shape[:-1], 1))], axis=-1)
        result = points @ self.side[:2] >= self.side[2]
        least_x, most_x, least_y, most_y = self.floor
        result &= (points[..., 0] > least_x) & (points[..., 0] < most_x)
        result &= (points[..., 1] > least_y) & (points[..., 1] < most_y)
        for height, low in ((0.0, 0.46), (1.95, 0.46)):
            seen = self.camera.to_camera(feet + np.array([0.0, 0.0, height]))
            pixel = self.camera.project(seen) - self.camera.centre
            result &= seen[..., 2] > 1.5
            result &= np.abs(pixel[..., 0]) < spread * self.camera.width
            result &= np.abs(pixel[..., 1]) < low * self.camera.height
        return np.asarray(result)

    def clear(self, points: Array, near: Array | None = None) -> Array:
        """Tell which floor points (..., 2) keep their distance from the obstacles.

        An obstacle that is closer to one of the points ``near`` (k, 2), at which the person
        stands anyway, only has to be left alone as much as there.
        """
        result = np.ones(points.shape[:-1], dtype=bool)
        for x, y, radius in self.obstacles.values():
            least = radius + CLEARANCE
            if near is not None:
                least = min(least, 0.97 * float(np.hypot(near[:, 0] - x, near[:, 1] - y).min()))
            result &= np.hypot(points[..., 0] - x, points[..., 1] - y) > least
        return result

    def spot(self, rng: np.random.Generator, spread: float = 0.30) -> tuple[float, float] | None:
        """Return a random free point on the floor, or None when there is none."""
        points = rng.uniform(-3.2, 3.2, (400, 2))
        good = points[self.inside(points, spread) & self.clear(points)]
        if not len(good):
            return None
        return float(good[0, 0]), float(good[0, 1])

    def free(self, path: Path, *, reaching: bool = False) -> bool:
        """Tell whether a person can follow the path and end well inside the image.

        Args:
            path: the way on the floor.
            reaching: the path leads to an obstacle, such as a chair to sit on.
        """
        points = path.at(np.linspace(0, path.length, 24))[:, :2]
        if not bool(np.all(self.inside(points, 0.42))):
            return False
        if not bool(np.all(self.inside(points[-1:], 0.33))):
            return False
        near = points[[0, -1]] if reaching else points[:1]
        return bool(np.all(self.clear(points, near)))

    def straight(self, start: Place, goal: tuple[float, float], bulge: float) -> Path:
        """Return an arc from ``start`` to ``goal``, off the straight line by ``bulge`` rad."""
        dx, dy = goal[0] - start[0], goal[1] - start[1]
        chord = float(np.hypot(dx, dy))
        direction = float(np.arctan2(-dx, dy))
        # An arc turning by 2b has its chord at b from the start; its length is chord * b / sin b.
        length = chord / float(np.sinc(bulge / np.pi))
        return Path(start[0], start[1], direction - bulge, 2 * bulge / length, length)

    def arc(
        self, rng: np.random.Generator, start: Place, shortest: float, longest: float
    ) -> Path | None:
        """Return a random free arc of a length in the given range in metres, or None."""
        for attempt in range(120):
            length = float(rng.uniform(shortest, longest))
            most = 1 / 0.75 if attempt > 30 else 0.35
            curvature = float(rng.uniform(-most, most))
            if abs(curvature) * length > 5.8:
                continue
            wide = np.pi if attempt > 15 else 1.2
            heading = start[2] + float(rng.uniform(-wide, wide))
            path = Path(start[0], start[1], heading, curvature, length)
            if self.free(path):
                return path
        return None

    def towards_camera(self, place: Place) -> float:
        """Return the heading from ``place`` to the camera."""
        dx, dy = self.camera.position[0] - place[0], self.camera.position[1] - place[1]
        return float(np.arctan2(-dx, dy))
