"""What a student is trained on: Eq. 7 of the paper, and the table of distillation losses in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from vidkd.distillation import losses
from vidkd.distillation.batches import Batch, TeacherBatch
from vidkd.distillation.segment_loss import segment_losses
from vidkd.errors import UsageError
from vidkd.extensions import Table
from vidkd.networks import TemporalOutput
from vidkd.networks.segment_head import Level
from vidkd.recipe import DistillationSettings


@dataclass(frozen=True)
class Comparison:
    """A batch as the student and one teacher see it: what a distillation loss is computed from.

    Attributes:
        student: feature map (B, T, C) and logits (B, T, K), with gradients.
        teacher: the same from the teacher, without, and its negatives.
        batch: mask, targets and anchors.
        settings: variants of the losses.
    """

    student: TemporalOutput
    teacher: TeacherBatch
    batch: Batch
    settings: DistillationSettings

    @property
    def features(self) -> tuple[Tensor, Tensor, Tensor]:
        """Both feature maps in units of the teacher's standard deviation, and the mask."""
        scale = self.teacher.scale
        return self.student.features / scale, self.teacher.features / scale, self.batch.mask

    @property
    def logits(self) -> tuple[Tensor, Tensor, Tensor]:
        """Both logits, and the mask."""
        return self.student.logits, self.teacher.logits, self.batch.mask


DistillationLoss = Callable[[Comparison], Tensor]
"""Gives a scalar, lower the more the student is like the teacher."""


def _atomic(pair: Comparison) -> Tensor:
    anchors, teacher = pair.batch.anchors, pair.teacher
    return losses.atomic_loss(
        pair.student.features[anchors],
        teacher.features[anchors],
        teacher.negatives,
        pair.batch.mask[anchors],
        teacher.phi,
        negative_mask=teacher.negative_mask,
        normalise=pair.settings.normalise,
        temperature=pair.settings.temperature,
    )


_OWN: dict[str, DistillationLoss] = {
    "atomic": _atomic,
    "global_context": lambda pair: losses.global_context_loss(*pair.features),
    "boundary": lambda pair: losses.boundary_saliency_loss(*pair.features, pair.settings.per_step),
    "hallucination": lambda pair: losses.hallucination_loss(*pair.features),
    "mars": lambda pair: losses.mars_loss(*pair.features),
    "graph": lambda pair: losses.graph_loss(*pair.features),
    "graph_logits": lambda pair: losses.graph_loss(*pair.logits),
    "logits": lambda pair: losses.logit_loss(*pair.logits),
}

LOSSES: Table[DistillationLoss] = Table("vidkd.losses", "loss", _OWN)
"""Distillation losses by name; each one's weight is in ``DistillationSettings``."""


def loss_weights(settings: DistillationSettings) -> dict[str, float]:
    """Return the weight of every distillation loss that is switched on.

    Raises:
        UsageError: there is no loss of that name, or vidkd's own have their weight elsewhere.
    """
    if own := settings.losses.keys() & _OWN.keys():
        raise UsageError(
            f"the loss {min(own)!r} is one of vidkd's own",
            remedy="give its weight by its own option or key",
        )
    for name in settings.losses:
        _ = LOSSES[name]
    found = {name: float(getattr(settings, name)) for name in _OWN} | settings.losses
    return {name: weight for name, weight in found.items() if weight > 0}


def student_loss(
    student: TemporalOutput,
    batch: Batch,
    settings: DistillationSettings,
    reduction: Literal["mean", "sum-over-classes"] = "mean",
    levels: Sequence[Level] = (),
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what one step minimises (Eq. 7), and its parts.

    ``L = L_cls + sum over teachers and losses of alpha_i L_i``: the paper's are atomic (Eq. 1),
    global contextual relation (Eq. 4) and boundary saliency (Eq. 6). Without teachers L_cls is
    left, which trains the teachers themselves and the vanilla baseline. A segment head adds its
    own classification and border losses (``vidkd.distillation.segment_loss``).

    Args:
        student: of the batch, with gradients.
        batch: with what its teachers say of it.
        settings: the weights alpha, and variants of the losses.
        reduction: of L_cls, see ``losses.classification_loss``.
        levels: what the student's segment head says; empty without one.

    Returns:
        the scalar L, and by column of ``metrics.csv`` the value of L, of L_cls and, for each
        teacher, of each L_i and alpha_i L_i, without gradients.
    """
    total = losses.classification_loss(student.logits, batch.targets, batch.labelled, reduction)
    parts = {"classification": total.detach()}
    if levels:
        classes, borders = segment_losses(levels, batch.events, batch.labelled.any(dim=1))
        total = total + classes + borders
        parts |= {"segment_classes": classes.detach(), "segment_borders": borders.detach()}
    weights = loss_weights(settings) if batch.teachers else {}
    for teacher in batch.teachers:
        pair = Comparison(student, teacher, batch, settings)
        for name, weight in weights.items():
            value = LOSSES[name](pair)
            total = total + weight * value
            parts[f"{name}_{teacher.label}"] = value.detach()
            parts[f"{name}_{teacher.label}_weighted"] = weight * value.detach()
    return total, {"loss": total.detach(), **parts}
