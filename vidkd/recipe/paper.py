"""The numbers of Dai, Das and Bremond, ICCV 2021, to print beside those of a benchmark."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from vidkd.recipe.choices import Modality

PAPER_TEACHERS: tuple[tuple[Modality, ...], ...] = (("flow",), ("pose",), ("pose", "flow"))
"""The teachers of Table 5; the other tables are of the first."""

PAPER: dict[str, tuple[str, dict[str, float]]] = {
    "charades": (
        "frame mAP",
        {
            "teacher": 18.6,
            "vanilla": 22.3,
            "two-stream": 24.8,
            "augmented": 24.6,
            "augmented-pose+flow": 24.9,
            "atomic": 23.9,
            "hallucination": 22.7,
            "mars": 23.5,
        },
    ),
    "pku-mmd-cs": (
        "mAP@0.1",
        {
            "teacher": 68.4,
            "vanilla": 79.6,
            "two-stream": 83.4,
            "augmented": 85.5,
            "augmented-pose+flow": 86.3,
        },
    ),
    "pku-mmd-cv": ("mAP@0.1", {}),
    "tsu-cs": (
        "frame mAP",
        {
            "teacher": 29.4,
            "vanilla": 29.2,
            "two-stream": 33.5,
            "augmented": 32.8,
            "augmented-pose+flow": 33.7,
        },
    ),
    "tsu-cv": (
        "frame mAP",
        {
            "teacher": 17.5,
            "vanilla": 18.9,
            "two-stream": 19.5,
            "augmented": 19.3,
            "augmented-pose+flow": 23.8,
        },
    ),
    "multithumos": ("frame mAP", {"vanilla": 37.8, "augmented": 44.6}),
    "thumos14": ("mAP@0.5", {"vanilla": 46.1, "augmented": 53.3}),
}
"""The paper's numbers in per cent, by data set: under which metric, and by row; it has none of
its own for the second split of PKU-MMD.

Charades also has graph distillation at 23.3, which is not printed beside a row because it is not
known which of its two edges were used.
"""


def known_set(name: str) -> str:
    """Return the name of a data set of the paper.

    Raises:
        ValueError: the paper has no such set; the message lists those it has.
    """
    if name not in PAPER:
        raise ValueError(f"the paper has no data set {name!r}, only {', '.join(PAPER)}")
    return name


PaperSet = Annotated[str, AfterValidator(known_set)]
"""A data set of the paper, whose numbers are printed beside those of a benchmark."""


def paper_number(dataset: str | None, row: str | None) -> tuple[str, float] | None:
    """Return metric and number of a row in the paper, or None when it is not known."""
    if dataset is None or row is None:
        return None
    metric, numbers = PAPER[dataset]
    return (metric, numbers[row]) if row in numbers else None
