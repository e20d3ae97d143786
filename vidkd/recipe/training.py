"""Teachers and students: the temporal filter, the optimiser and the losses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from vidkd.recipe.choices import FilterKind
from vidkd.recipe.settings import Settings


class FilterSettings(Settings):
    """A temporal filter: (B, T, D) features to a (B, T, C) feature map."""

    kind: FilterKind = "ss-tcn"
    channels: Annotated[int, Field(ge=4, le=4096)] = 256
    layers: Annotated[int, Field(ge=1, le=12)] | None = None
    """None takes the filter's own: 5 in the SS-TCNs, 3 in TGM, 1 in the LSTM."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    standardise: bool = True
    """Bring every input channel to mean 0 and deviation 1 over the training snippets. I3D's
    channels differ in both; docs/experiments.md says what it gains."""


class OptimiserSettings(Settings):
    """Adam; the learning rate falls when the training loss does not."""

    epochs: Annotated[int, Field(ge=1)] = 300
    batch_size: Annotated[int, Field(ge=1)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    plateau_factor: Annotated[float, Field(gt=0, le=1)] = 0.3
    plateau_patience: Annotated[int, Field(ge=1)] = 10
    seed: int = 0
    classification_reduction: Literal["mean", "sum-over-classes"] = "mean"
    """``mean``: over valid snippets and classes; ``sum-over-classes``: K times that."""
    max_snippets: Annotated[int, Field(ge=8)] | None = None
    """Longest training sequence; longer videos are cut at random. None: whole videos."""


class DistillationSettings(Settings):
    """Weights and variants of the losses (Eq. 1-7).

    The paper prints [300, 100, 5] for atomic, global and boundary, tuned with reductions that it
    does not state. Here all losses are averages (``vidkd.distillation.losses``) and features are
    compared in units of the teacher's standard deviation; then 300 times the atomic loss is about
    a thousand times the classification loss, and the student hardly learns the classes.

    The defaults were measured on two artificial feature sets (40 training videos, 8 classes, 400
    steps, two seeds each) by frame mAP on test videos: vanilla 23.5 and 21.0, with the defaults
    25.7 and 22.8, without the atomic loss 23.7 and 22.4, with 2.5 times the atomic weight 21.3 on
    the second set, and 9.5 there with the printed weights divided by 157 (what they would be if
    the cross-entropy was summed over the classes of Charades). No weighted loss exceeds a fifth
    of the classification loss in the first epoch. On real people (six folds, docs/experiments.md)
    nothing else that was tried was better: five times all weights, or five or ten times one of
    them, cost 0.6 to 4 points. Long runs on much data may bear more: tune on a validation split,
    with ``metrics.csv`` at hand.
    """

    atomic: Annotated[float, Field(ge=0)] = 0.02
    """Its gradient grows with weight / temperature; ten times as much cost a third of the mAP."""
    global_context: Annotated[float, Field(ge=0)] = 0.3
    boundary: Annotated[float, Field(ge=0)] = 0.3
    hallucination: Annotated[float, Field(ge=0)] = 0.0
    mars: Annotated[float, Field(ge=0)] = 0.0
    graph: Annotated[float, Field(ge=0)] = 0.0
    """Graph distillation on the feature map (its representation edge)."""
    graph_logits: Annotated[float, Field(ge=0)] = 0.0
    logits: Annotated[float, Field(ge=0)] = 0.0
    """Logit distillation; this and the four above are baselines, off unless given a weight."""
    losses: dict[str, Annotated[float, Field(ge=0)]] = {}  # noqa: RUF012
    """Weights of losses that installed packages add, by name (``vidkd.distillation.objective``)."""
    normalise: bool = True
    """L2-normalise snippet features in the atomic critic and divide by the temperature. Raw dot
    products, as printed, saturate the critic: alone, 15.5 instead of 22.2 at the same weight."""
    temperature: Annotated[float, Field(gt=0)] = 0.07
    """Of contrastive representation distillation (Tian et al. 2020). With 0.5, and ten times the
    weight, the three losses together gave 22.8 and 17.7."""
    negatives: Annotated[int, Field(ge=1)] = 1
    per_step: bool = True
    """Boundary loss on per-step differences; False is the printed, telescoping form."""

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Runs of before there were such losses are the same runs still.
        fields: dict[str, Any] = handler(self)
        if not self.losses:
            del fields["losses"]
        return fields


class SubsetSettings(Settings):
    """Names of the subsets in the annotation file."""

    training: str = "training"
    validation: str = "validation"
