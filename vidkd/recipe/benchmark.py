"""What ``vidkd benchmark`` makes: tables, baselines, further methods, other splits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from vidkd.recipe.choices import FilterKind, Modality
from vidkd.recipe.paper import PaperSet
from vidkd.recipe.settings import Settings


class BaselineWeights(Settings):
    """Weights of the methods in Table 2 that replace the paper's three losses."""

    hallucination: Annotated[float, Field(gt=0)] = 1.0
    mars: Annotated[float, Field(gt=0)] = 1.0
    """Also of the feature term of "logit + feature"."""
    graph: Annotated[float, Field(gt=0)] = 1.0
    graph_logits: Annotated[float, Field(gt=0)] = 1.0
    logits: Annotated[float, Field(gt=0)] = 1.0


class MethodSettings(Settings):
    """One more row of a benchmark: the recipe's student with some settings replaced."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    distillation: dict[str, bool | float] = Field(default_factory=dict)
    """Keys of ``DistillationSettings`` with their values; the others stay the recipe's."""
    teachers: Annotated[tuple[Modality, ...], Field(min_length=1)] | None = None
    """None takes those of Tables 1 to 4."""
    teacher_filter: FilterKind | None = None
    filter: FilterKind | None = None
    """Temporal filter of the student (and of the teacher, unless that is given)."""


class SplitSettings(Settings):
    """Another split of the same videos, for Table 3: cross-view beside cross-subject, say."""

    name: Annotated[str, Field(min_length=1, max_length=40)]
    annotations: Path
    format: str = "auto"
    dataset: PaperSet | None = None


class BenchmarkSettings(Settings):
    """What ``vidkd benchmark`` makes: which of the paper's tables, and what else."""

    tables: tuple[Literal[1, 2, 3, 4, 5], ...] = (1, 2, 3, 4, 5)
    """By their numbers in Dai et al. 2021."""
    split: Annotated[str, Field(max_length=40)] = ""
    """What the recipe's own split of the videos is called in Table 3."""
    splits: tuple[SplitSettings, ...] = ()
    filters: tuple[FilterKind, ...] = ("local-attention", "ss-tcn", "tgm", "lstm")
    """Rows of Table 4."""
    baselines: BaselineWeights = BaselineWeights()
    methods: tuple[MethodSettings, ...] = ()
    """Further students, in a table of their own."""
    controls: tuple[Literal["untrained-teacher", "rgb-teacher"], ...] = ()
    """Students of a teacher that knows nothing (fresh, frozen) or nothing new (vanilla RGB)."""
    figures: tuple[Literal[3, 4, 5, 6, 7], ...] = (3, 4, 5, 6, 7)
