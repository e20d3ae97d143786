"""Pieces of furniture and plants, put together from boxes and capsules."""

from __future__ import annotations

import numpy as np

from vidkd.synth import materials
from vidkd.synth.actions import SEAT
from vidkd.synth.body import colour
from vidkd.synth.materials import Material, Palette
from vidkd.synth.shapes import Builder
from vidkd.synth.skeleton import rotation

Array = np.ndarray


class Workshop:
    """Adds pieces at a place (x, y, heading): the piece looks along its heading."""

    def __init__(self, builder: Builder, palette: Palette, rng: np.random.Generator) -> None:
        self.builder, self.palette, self.rng = builder, palette, rng
        self.footprints: list[tuple[float, float, float]] = []
        """x, y and radius of everything that stands on the floor."""
        self._place = np.zeros(3)
        self._frame = np.eye(3)

    def stand(self, x: float, y: float, heading: float) -> None:
        """Choose where the next pieces go."""
        self._place = np.array([x, y, 0.0])
        self._frame = rotation(2, np.array(heading))

    def paint(
        self,
        pattern: int,
        saturation: tuple[float, float],
        value: tuple[float, float],
        scale: float = 0.1,
        gloss: float = 0.0,
    ) -> int:
        """Add a material of random colours to the palette."""
        first = colour(self.rng, saturation, value)
        second = colour(self.rng, saturation, value)
        seed = float(self.rng.integers(1000))
        return self.palette.add(Material(pattern, first, second, scale, seed, gloss))

    def wood(self) -> int:
        """Add a wooden material of random tone."""
        tone = float(self.rng.uniform(0.3, 0.95))
        first = (0.62 * tone, 0.42 * tone, 0.25 * tone)
        second = (0.45 * tone, 0.28 * tone, 0.16 * tone)
        if self.rng.random() < 0.25:
            first, second = (0.85 * tone,) * 3, (0.78 * tone,) * 3
        seed = float(self.rng.integers(1000))
        return self.palette.add(Material(materials.WOOD, first, second, 0.25, seed, 0.03))

    def block(
        self, centre: tuple[float, float, float], half: tuple[float, float, float], material: int
    ) -> None:
        """Add a box given in the piece's own coordinates."""
        self.builder.box(
            self._frame @ np.array(centre) + self._place, half, material, frame=self._frame
        )

    def rod(
        self,
        start: tuple[float, float, float],
        end: tuple[float, float, float],
        radii: tuple[float, float],
        material: int,
    ) -> None:
        """Add a tapered rod given in the piece's own coordinates."""
        self.builder.capsule(
            self._frame @ np.array(start) + self._place,
            self._frame @ np.array(end) + self._place,
            radii,
            material,
        )

    def blob(
        self, centre: tuple[float, float, float], radii: tuple[float, float, float], material: int
    ) -> None:
        """Add an ellipsoid given in the piece's own coordinates."""
        self.builder.ellipsoid(
            self._frame @ np.array(centre) + self._place, self._frame, radii, material
        )

    def _foot(self, radius: float) -> None:
        self.footprints.append((float(self._place[0]), float(self._place[1]), radius))

    def chair(self, style: int) -> None:
        """Add a chair (0), an armchair (1) or a stool (2) whose seat is at the usual height."""
        self._foot(0.24)
        if style == 1:
            cloth = self.paint(materials.PLAIN, (0.1, 0.7), (0.25, 0.8), 0.05)
            self.block((0, -0.02, 0.5 * SEAT), (0.25, 0.24, 0.5 * SEAT - 0.02), cloth)
            self.block((0, -0.29, 0.46), (0.30, 0.07, 0.42), cloth)
            for side in (-1, 1):
                self.block((side * 0.31, -0.06, 0.31), (0.055, 0.26, 0.31), cloth)
            return
        frame = self.wood()
        seat = self.paint(materials.PLAIN, (0.1, 0.8), (0.2, 0.85), 0.05)
        self.block((0, 0, SEAT - 0.03), (0.21, 0.21, 0.028), seat)
        for x in (-0.18, 0.18):
            for y in (-0.18, 0.18):
                self.rod((x, y, 0.01), (x, y, SEAT - 0.05), (0.017, 0.02), frame)
        if style == 0:
            for x in (-0.18, 0.18):
                self.rod((x, -0.20, SEAT - 0.03), (x, -0.25, 0.92), (0.019, 0.016), frame)
            self.block((0, -0.245, 0.80), (0.19, 0.014, 0.11), seat)

    def shelf(self, width: float) -> None:
        """Add a shelf full of books; its back is at y = -0.15."""
        height = float(self.rng.uniform(1.3, 2.2))
        self.block(
            (0, 0, height / 2),
            (width / 2, 0.15, height / 2),
            self.paint(materials.BOOKS, (0, 0.2), (0.2, 0.6), float(self.rng.uniform(0.03, 0.05))),
        )
        board = self.wood()
        for side in (-1, 1):
            self.block((side * width / 2, 0, height / 2), (0.02, 0.17, height / 2 + 0.02), board)
        self.block((0, 0, height), (width / 2, 0.17, 0.02), board)
        self._foot(width / 2)

    def cabinet(self, width: float) -> None:
        """Add a low cabinet with something on it."""
        height = float(self.rng.uniform(0.6, 1.0))
        body = self.wood()
        self.block((0, 0, height / 2), (width / 2, 0.2, height / 2), body)
        door = self.wood()
        for side in (-1, 1):
            self.block(
                (side * width / 4, 0.205, height / 2),
                (width / 4 - 0.03, 0.01, height / 2 - 0.05),
                door,
            )
            self.rod(
                (side * 0.05, 0.23, height * 0.55),
                (side * 0.05, 0.23, height * 0.65),
                (0.012, 0.012),
                body,
            )
        if self.rng.random() < 0.5:
            screen = self.palette.add(Material(materials.PLAIN, (0.05, 0.05, 0.07), gloss=0.3))
            self.block((0, 0, height + 0.33), (0.42, 0.03, 0.25), screen)
            self.block((0, 0, height + 0.04), (0.06, 0.05, 0.05), screen)
        else:
            for _ in range(int(self.rng.integers(1, 4))):
                thing = self.paint(materials.PLAIN, (0.3, 0.9), (0.3, 0.9), gloss=0.2)
                x = float(self.rng.uniform(-0.4, 0.4)) * width
                tall = float(self.rng.uniform(0.1, 0.3))
                self.rod((x, 0, height + 0.05), (x, 0, height + tall), (0.06, 0.03), thing)
        self._foot(width / 2)

    def table(self, width: float) -> None:
        """Add a table with a few things on it."""
        wood = self.wood()
        self.block((0, 0, 0.73), (width / 2, 0.35, 0.02), wood)
        for side in (-1, 1):
            for depth in (-0.28, 0.28):
                self.block((side * (width / 2 - 0.06), depth, 0.355), (0.025, 0.025, 0.355), wood)
        for _ in range(int(self.rng.integers(1, 5))):
            thing = self.paint(materials.PLAIN, (0.1, 0.9), (0.3, 0.95), gloss=0.15)
            x, y = float(self.rng.uniform(-0.4, 0.4)) * width, float(self.rng.uniform(-0.2, 0.2))
            if self.rng.random() < 0.5:
                self.rod((x, y, 0.78), (x, y, 0.92), (0.035, 0.025), thing)
            else:
                self.block((x, y, 0.78), (0.12, 0.09, 0.03), thing)
        self._foot(width / 2)

    def sofa(self, width: float) -> None:
        """Add a sofa with cushions."""
        cloth = self.paint(
            int(self.rng.choice([materials.PLAIN, materials.CHECKS, materials.MOTTLED])),
            (0.1, 0.6),
            (0.25, 0.75),
            0.08,
        )
        self.block((0, 0.05, 0.22), (width / 2, 0.4, 0.2), cloth)
        self.block((0, -0.28, 0.5), (width / 2, 0.12, 0.34), cloth)
        for side in (-1, 1):
            self.block((side * width / 2, 0.02, 0.33), (0.09, 0.42, 0.3), cloth)
        for _ in range(int(self.rng.integers(0, 3))):
            cushion = self.paint(materials.CHECKS, (0.3, 0.9), (0.4, 0.95), 0.05)
            x = float(self.rng.uniform(-0.35, 0.35)) * width
            self.blob((x, -0.1, 0.55), (0.2, 0.09, 0.17), cushion)
        self._foot(width / 2)

    def plant(self) -> None:
        """Add a plant in a pot."""
        pot = self.paint(materials.PLAIN, (0.2, 0.7), (0.3, 0.8), gloss=0.1)
        self.rod((0, 0, 0.12), (0, 0, 0.3), (0.12, 0.16), pot)
        green = float(self.rng.uniform(0.25, 0.4))
        leaf = self.palette.add(
            Material(
                materials.FOLIAGE,
                (0.08, 0.55 * green, 0.06),
                (0.25, 1.6 * green, 0.15),
                0.12,
                float(self.rng.integers(1000)),
            )
        )
        tall = float(self.rng.uniform(0.7, 1.5))
        for _ in range(12):
            angle = float(self.rng.uniform(0, 2 * np.pi))
            reach = float(self.rng.uniform(0.12, 0.36))
            top = float(self.rng.uniform(0.5, 1.0)) * tall
            x, y = reach * np.cos(angle), reach * np.sin(angle)
            self.rod((0, 0, 0.35), (0.7 * x, 0.7 * y, top), (0.012, 0.02), leaf)
            self.blob((x, y, top), (0.11, 0.11, 0.16), leaf)
        self._foot(0.2)

    def lamp(self) -> None:
        """Add a standing lamp."""
        metal = self.paint(materials.PLAIN, (0.0, 0.2), (0.1, 0.6), gloss=0.2)
        shade = self.palette.add(Material(materials.PLAIN, (1.25, 1.15, 0.9)))
        self.rod((0, 0, 0.02), (0, 0, 1.45), (0.02, 0.012), metal)
        self.rod((0, 0, 0.01), (0, 0, 0.03), (0.14, 0.14), metal)
        self.rod((0, 0, 1.45), (0, 0, 1.62), (0.19, 0.12), shade)
        self._foot(0.16)

    def tree(self, height: float) -> None:
        """Add a tree."""
        bark = self.palette.add(Material(materials.WOOD, (0.32, 0.23, 0.15), (0.2, 0.14, 0.1), 0.2))
        tone = float(self.rng.uniform(0.7, 1.2))
        leaf = self.palette.add(
            Material(
                materials.FOLIAGE,
                (0.07 * tone, 0.19 * tone, 0.05),
                (0.28 * tone, 0.46 * tone, 0.14),
                0.5,
                float(self.rng.integers(1000)),
            )
        )
        self.rod((0, 0, 0), (0, 0, 0.6 * height), (0.05 * height, 0.03 * height), bark)
        for _ in range(9):
            spot = self.rng.uniform(-1, 1, 3) * np.array([0.24, 0.24, 0.2]) * height
            size = float(self.rng.uniform(0.13, 0.22)) * height
            self.blob((spot[0], spot[1], 0.72 * height + spot[2]), (size, size, 0.85 * size), leaf)
        self._foot(0.08 * height)

    def bush(self) -> None:
        """Add a bush."""
        tone = float(self.rng.uniform(0.7, 1.3))
        leaf = self.palette.add(
            Material(
                materials.FOLIAGE,
                (0.08 * tone, 0.20 * tone, 0.06),
                (0.30 * tone, 0.45 * tone, 0.16),
                0.25,
                float(self.rng.integers(1000)),
            )
        )
        for _ in range(6):
            x, y = self.rng.uniform(-0.45, 0.45, 2)
            size = float(self.rng.uniform(0.28, 0.5))
            self.blob((float(x), float(y), 0.7 * size), (size, size, 0.8 * size), leaf)
        self._foot(0.7)

    def car(self) -> None:
        """Add a parked car, seen from its side."""
        body = self.paint(materials.PLAIN, (0.0, 0.9), (0.2, 0.9), 3.0, 0.25)
        glass = self.palette.add(Material(materials.PLAIN, (0.12, 0.16, 0.2), gloss=0.4))
        tyre = self.palette.add(Material(materials.PLAIN, (0.06, 0.06, 0.06)))
        self.block((0, 0, 0.58), (2.0, 0.8, 0.28), body)
        self.block((-0.1, 0, 1.02), (1.05, 0.68, 0.24), glass)
        self.block((-0.1, 0, 1.30), (1.0, 0.7, 0.05), body)
        for x in (-1.25, 1.25):
            for y in (-0.74, 0.74):
                self.blob((x, y, 0.31), (0.31, 0.12, 0.31), tyre)
        self._foot(1.6)
