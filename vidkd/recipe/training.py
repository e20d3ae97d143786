"""Teachers and students: the temporal filter, the optimiser and the losses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from vidkd.recipe.choices import FilterKind
from vidkd.recipe.settings import Option, Settings


class FilterSettings(Settings):
    """A temporal filter: (B, T, D) features to a (B, T, C) feature map."""

    model_config = ConfigDict(title="Temporal filter")

    kind: Annotated[
        FilterKind, Option("--filter", unit="KIND", common=True, table="vidkd.filters")
    ] = "local-attention"
    """Temporal filter."""
    channels: Annotated[int, Field(ge=4, le=4096), Option(common=True)] = 256
    """Width C of the feature map."""
    layers: Annotated[int | None, Field(ge=1, le=12)] = None
    """Number of layers. Default: 5 in the SS-TCNs, 2 in local attention, 3 in TGM, 1 in the
    LSTM."""
    levels: Annotated[int | None, Field(ge=0, le=10), Option(common=True)] = None
    """Levels of the pyramid of the segment head, which finds segments by their borders, beside the
    scores of snippets; 0 leaves it out. Default: as many as the longest annotated actions need,
    and none in causal filters."""
    noise: Annotated[float, Field(ge=0)] = 1.0
    """Standard deviation of the noise added to the inputs in training, in units of theirs.

    docs/experiments.md says what it gains.
    """
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the inputs of a layer that are set to zero in training."""
    standardise: bool = True
    """Bring every input channel to mean 0 and standard deviation 1 over the training snippets.

    I3D's channels differ in both; docs/experiments.md says what it gains.
    """


class OptimiserSettings(Settings):
    """AdamW, with a learning rate that rises shortly and then falls."""

    model_config = ConfigDict(title="Optimiser")

    epochs: Annotated[int, Field(ge=1), Option(common=True)] = 300
    """Passes over the training videos."""
    batch_size: Annotated[int, Field(ge=1), Option(unit="VIDEOS", common=True)] = 16
    """Videos per step."""
    learning_rate: Annotated[float, Field(gt=0), Option(common=True)] = 1e-3
    """Highest learning rate."""
    schedule: Literal["cosine", "plateau"] = "cosine"
    """Learning rate: half a cosine after a warm-up, or reduced whenever the training loss has
    stopped falling."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of AdamW."""
    plateau_factor: Annotated[float, Field(gt=0, le=1)] = 0.3
    """For plateau: the learning rate is multiplied by this when the training loss has stopped
    falling."""
    plateau_patience: Annotated[int, Field(ge=1), Option(unit="EPOCHS")] = 10
    """For plateau: epochs without a lower training loss before the learning rate is reduced."""
    seed: Annotated[int, Option(common=True)] = 0
    """Seed of everything random."""
    classification_reduction: Literal["mean", "sum-over-classes"] = "mean"
    """Classification loss: the mean over valid snippets and classes, or the number of classes
    times that."""
    max_snippets: Annotated[int | None, Field(ge=8), Option(unit="SNIPPETS")] = None
    """Longest training sequence; of longer videos a random part is taken. Default: no limit."""


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

    model_config = ConfigDict(title="Losses")

    atomic: Annotated[float, Field(ge=0), Option("--alpha-atomic", common=True)] = 0.02
    """Weight of the atomic loss, Eq. 1.

    Its gradient grows with weight / temperature; ten times as much cost a third of the mAP.
    """
    global_context: Annotated[float, Field(ge=0), Option("--alpha-global", common=True)] = 0.3
    """Weight of the loss of global contextual relations, Eq. 4."""
    boundary: Annotated[float, Field(ge=0), Option("--alpha-boundary", common=True)] = 0.3
    """Weight of the boundary saliency loss, Eq. 6."""
    hallucination: Annotated[float, Field(ge=0)] = 0.0
    """Weight of feature hallucination, a baseline."""
    mars: Annotated[float, Field(ge=0)] = 0.0
    """Weight of MARS, a baseline."""
    graph: Annotated[float, Field(ge=0)] = 0.0
    """Weight of graph distillation on the feature map, a baseline."""
    graph_logits: Annotated[float, Field(ge=0)] = 0.0
    """Weight of graph distillation on the logits, a baseline."""
    logits: Annotated[float, Field(ge=0)] = 0.0
    """Weight of logit distillation, a baseline."""
    losses: Annotated[
        dict[str, Annotated[float, Field(ge=0)]],
        Option("--loss", unit="NAME=WEIGHT", table="vidkd.losses"),
    ] = {}  # noqa: RUF012
    """Weight of a loss that an installed package adds; several may be given."""
    normalise: Annotated[bool, Option("--normalise/--raw-critic")] = True
    """Compare features in the atomic loss at length 1 and divide by the temperature; or take raw
    dot products, as the paper prints it.

    Raw dot products saturate the critic: alone, 15.5 instead of 22.2 at the same weight.
    """
    temperature: Annotated[float, Field(gt=0)] = 0.07
    """Temperature of the softmax in the atomic loss.

    As in contrastive representation distillation (Tian et al. 2020). With 0.5, and ten times the
    weight, the three losses together gave 22.8 and 17.7.
    """
    negatives: Annotated[int, Field(ge=1), Option(unit="VIDEOS")] = 1
    """Negative videos for each positive one in the atomic loss; fewer than --batch-size."""
    per_step: Annotated[bool, Option("--per-step/--printed-boundary")] = True
    """Compare the difference at each step in the boundary loss; or as the paper prints it, where
    the sum leaves the difference between the last and the first snippet."""

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Runs of before there were such losses are the same runs still.
        fields: dict[str, Any] = handler(self)
        if not self.losses:
            del fields["losses"]
        return fields


class SubsetSettings(Settings):
    """Names of the subsets in the annotation file."""

    model_config = ConfigDict(title="Data")

    training: Annotated[str, Option("--train-subset", unit="NAME")] = "training"
    """Subset to train on."""
    validation: Annotated[str, Option("--validation-subset", unit="NAME")] = "validation"
    """Subset that chooses the best epoch."""
    unlabelled: Annotated[str | None, Option("--unlabelled-subset", unit="NAME")] = None
    """Subset that students are distilled on without its labels, beside the training subset."""

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Runs of before there was such a subset are the same runs still.
        fields: dict[str, Any] = handler(self)
        if self.unlabelled is None:
            del fields["unlabelled"]
        return fields
