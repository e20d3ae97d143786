"""How good found poses are: errors of joints, and whether people are found at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from vidkd.pose.anchors import person_box
from vidkd.pose.detector import PersonPose, PoseDetector
from vidkd.pose.labels import LabelledPerson
from vidkd.skeletons import root

Array = np.ndarray

MATCH = 0.5
"""Least overlap of the boxes of a person and of a detection that finds it."""


@dataclass(frozen=True)
class PoseScores:
    """Agreement of detections with labels; NaN where nothing was there to compare."""

    recall: float
    """Share of the labelled people that were found."""
    precision: float
    """Share of the detections that are labelled people."""
    mpjpe: float
    """Mean 3D joint error of the people found, in millimetres, relative to the hips."""
    pa_mpjpe: float
    """The same after the best rotation, translation and scale (Procrustes)."""
    pck_head: float
    """Share of the joints that are labelled inside the picture and lie within half a head of their
    place; those of people who were not found count as wrong. The head's length is that from the
    middle of the shoulders to the head's centre."""
    pck_torso: float
    """The same within half the torso's length, from middle of shoulders to hips."""
    people: int
    detections: int

    def to_json(self) -> dict[str, float]:
        """Return the fields by name."""
        return asdict(self)


class PoseEvaluation:
    """Adds up comparisons of pictures; see :class:`PoseScores`."""

    def __init__(self) -> None:
        self._people = self._found = self._detections = self._false = 0
        self._errors: list[float] = []
        self._aligned: list[float] = []
        self._near: dict[str, list[Array]] = {"head": [], "torso": []}

    def add(
        self,
        people: Sequence[LabelledPerson],
        found: Sequence[PersonPose],
        size: tuple[int, int],
    ) -> None:
        """Compare one picture of the given height and width.

        People too little of whom is in the picture (``person_box``) are not asked for; a detection
        of such a person is no error either.
        """
        boxes = [person_box(person.joints_2d, person.scores, size) for person in people]
        asked = [i for i, box in enumerate(boxes) if box is not None]
        pairs = match(
            np.array([boxes[i][0] for i in asked], np.float64).reshape(-1, 4),  # type: ignore[index]
            np.array([pose.box for pose in found], np.float64).reshape(-1, 4),
        )
        self._people += len(asked)
        self._found += len(pairs)
        self._detections += len(found)
        others = [people[i] for i, box in enumerate(boxes) if box is None]
        loose = set(range(len(found))) - {column for _, column in pairs}
        self._false += sum(not any(_around(found[k], person) for person in others) for k in loose)
        matched = {asked[row]: found[column] for row, column in pairs}
        for number in asked:
            self._compare(people[number], matched.get(number), size)

    def _compare(
        self, person: LabelledPerson, pose: PersonPose | None, size: tuple[int, int]
    ) -> None:
        truth = person.joints_2d
        edge = np.array(size[::-1]) - 0.5
        seen = (person.scores > 0) & ((truth >= -0.5) & (truth <= edge)).all(axis=1)
        shoulders, hips = truth[10:12].mean(axis=0), truth[4:6].mean(axis=0)
        lengths = {"head": truth[12] - shoulders, "torso": shoulders - hips}
        for name, vector in lengths.items():
            limit = 0.5 * np.linalg.norm(vector)
            if np.isnan(limit):
                continue
            if pose is None:
                self._near[name].append(np.zeros(int(seen.sum()), bool))
            else:
                apart = np.linalg.norm(pose.joints_2d - truth, axis=1)
                self._near[name].append(apart[seen] <= limit)
        if pose is not None and not np.isnan(person.joints_3d).any():
            wanted = person.joints_3d - root(person.joints_3d)
            given = pose.joints_3d - root(pose.joints_3d)
            self._errors.append(float(np.linalg.norm(given - wanted, axis=1).mean()))
            moved = procrustes(given, wanted)
            self._aligned.append(float(np.linalg.norm(moved - wanted, axis=1).mean()))

    def result(self) -> PoseScores:
        """Return the scores of everything added."""
        correct = self._detections - self._false
        return PoseScores(
            recall=_ratio(self._found, self._people),
            precision=_ratio(correct, self._detections),
            mpjpe=1000 * float(np.mean(self._errors)) if self._errors else float("nan"),
            pa_mpjpe=1000 * float(np.mean(self._aligned)) if self._aligned else float("nan"),
            pck_head=_mean(self._near["head"]),
            pck_torso=_mean(self._near["torso"]),
            people=self._people,
            detections=self._detections,
        )


def evaluate_detector(
    detector: PoseDetector,
    pictures: Iterable[tuple[Sequence[LabelledPerson], Array]],
    report: Callable[[float], None] = lambda count: None,
) -> PoseScores:
    """Compare a detector with labelled pictures.

    Args:
        detector: what is measured.
        pictures: people and picture (H, W, 3) uint8 RGB.
        report: called with the number of pictures done since the last call.
    """
    evaluation = PoseEvaluation()
    for people, image in pictures:
        evaluation.add(people, detector([image])[0], (image.shape[0], image.shape[1]))
        report(1)
    return evaluation.result()


def match(people: Array, found: Array) -> list[tuple[int, int]]:
    """Pair boxes (P, 4) with boxes (D, 4) greedily by overlap, each used once.

    Returns:
        (row, column) of each pair that overlaps by at least ``MATCH``.
    """
    if not len(people) or not len(found):
        return []
    first = np.maximum(people[:, None, :2], found[None, :, :2])
    last = np.minimum(people[:, None, 2:], found[None, :, 2:])
    common = np.maximum(last - first, 0).prod(axis=-1)
    areas = [np.maximum(b[:, 2:] - b[:, :2], 0).prod(axis=-1) for b in (people, found)]
    union = areas[0][:, None] + areas[1][None] - common
    overlap = common / np.maximum(union, 1e-9)
    pairs = []
    while overlap.max() >= MATCH:
        row, column = (int(i) for i in np.unravel_index(overlap.argmax(), overlap.shape))
        pairs.append((row, column))
        overlap[row], overlap[:, column] = -1, -1
    return pairs


def procrustes(points: Array, target: Array) -> Array:
    """Return points (J, 3) after the similarity that brings them closest to the target."""
    centre, goal = points.mean(axis=0), target.mean(axis=0)
    left, values, right = np.linalg.svd((points - centre).T @ (target - goal))
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    scale = (values * signs).sum() / max(1e-12, ((points - centre) ** 2).sum())
    return np.asarray(scale * (points - centre) @ (left * signs) @ right + goal)


def _around(pose: PersonPose, person: LabelledPerson) -> bool:
    known = person.joints_2d[person.scores > 0]
    inside = (known >= pose.box[:2]) & (known <= pose.box[2:])
    return bool(inside.all(axis=1).any())


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _mean(parts: list[Array]) -> float:
    values = np.concatenate(parts) if parts else np.zeros(0)
    return float(values.mean()) if len(values) else float("nan")
