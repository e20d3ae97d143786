"""What a person does in a video, as data: clips in time, and the things used."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vidkd.synth.actions import REACH, SEAT_BEHIND, Style
from vidkd.synth.gait import Gait, Path
from vidkd.synth.skeleton import Build, to_world
from vidkd.synth.stage import Place

CLASSES = (
    "sit down",
    "stand up",
    "pick up",
    "put down",
    "walk",
    "run",
    "wave",
    "clap",
    "throw",
    "catch",
    "jump",
    "drink",
    "point",
    "kick",
    "bow",
)
"""The 15 labels, in the order of the annotation file."""

ARM_ACTIONS = frozenset({"wave", "clap", "point", "drink", "throw", "catch", "fidget"})


@dataclass(frozen=True)
class Clip:
    """One performance: what, when (seconds from the first frame), where, how."""

    kind: str
    start: float
    end: float
    place: Place
    style: Style = field(default_factory=Style)
    path: Path | None = None
    gait: Gait | None = None
    turn_to: float = 0.0

    @property
    def label(self) -> str | None:
        """The class, or None for what is not annotated (turning, fidgeting)."""
        return self.kind if self.kind in CLASSES else None


@dataclass(frozen=True)
class Item:
    """What a person can pick up: a box carried in both hands or a bag carried in one."""

    kind: str
    size: tuple[float, float, float]
    """Width, depth, height in metres."""

    @property
    def both(self) -> bool:
        return self.kind == "box"

    @property
    def grasp(self) -> tuple[float, float]:
        """Half the distance between the hands and their height, when it lies on the floor."""
        if self.both:
            return self.size[0] / 2 + 0.035, 0.62 * self.size[2]
        return 0.0, self.size[2] + 0.10


@dataclass
class Part:
    """One person's part: the body, the clips, and the things used."""

    build: Build
    start: Place
    seated: bool
    chair: Place | None
    """Place of the chair; its occupant looks along the same heading."""
    item: Item | None
    item_places: list[Place] = field(default_factory=list)
    """Where the item lies at first and after each putting down."""
    bottle: int | None = None
    """The side on which the person wears a bottle."""
    ball: bool = False
    """Whether the person begins with a ball in the hand."""
    plays: bool = False
    side: int = 0
    body: list[Clip] = field(default_factory=list)
    arms: list[Clip] = field(default_factory=list)

    def segments(self) -> list[tuple[float, float, str]]:
        """Return the labelled clips as (start, end, label), in order of time."""
        clips = [clip for clip in (*self.body, *self.arms) if clip.label]
        return sorted((clip.start, clip.end, str(clip.label)) for clip in clips)


def before_chair(chair: Place) -> np.ndarray:
    """Return the place (3,) of somebody about to sit down on the chair."""
    point = to_world(np.array(chair), np.array([0.0, SEAT_BEHIND, 0.0]))
    return np.array([point[0], point[1], chair[2]])


def item_ahead(place: Place) -> Place:
    """Return where the item lies that a person standing at ``place`` picks up or puts down."""
    point = to_world(np.array(place), np.array([0.0, REACH, 0.0]))
    return float(point[0]), float(point[1]), place[2]
