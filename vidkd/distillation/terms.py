"""The distillation losses by name, as training uses them, and how they are weighted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from vidkd.distillation import baselines, losses
from vidkd.networks import TemporalOutput
from vidkd.recipe import DistillationSettings


@dataclass(frozen=True)
class Comparison:
    """A batch as the student and one teacher see it.

    Attributes:
        student: feature map (B, T, C) and logits (B, T, K).
        teacher: the same from the teacher.
        mask: (B, T) bool.
        anchors: (P,) rows of the batch that are positives of the atomic loss.
        negatives: (P, N, T, C) features of the teacher.
        negative_mask: (P, N, T) bool.
        phi: see ``losses.atomic_loss``.
        settings: variants of the losses.
        scale: standard deviation of the teacher's feature map, the unit in which features are
            compared.
    """

    student: TemporalOutput
    teacher: TemporalOutput
    mask: Tensor
    anchors: Tensor
    negatives: Tensor
    negative_mask: Tensor
    phi: float
    settings: DistillationSettings
    scale: float

    def scaled(self) -> tuple[Tensor, Tensor]:
        """Return both feature maps in units of the teacher's standard deviation."""
        return self.student.features / self.scale, self.teacher.features / self.scale


def _atomic(pair: Comparison) -> Tensor:
    return losses.atomic_loss(
        pair.student.features[pair.anchors],
        pair.teacher.features[pair.anchors],
        pair.negatives,
        pair.mask[pair.anchors],
        pair.phi,
        negative_mask=pair.negative_mask,
        normalise=pair.settings.normalise,
        temperature=pair.settings.temperature,
    )


def _global_context(pair: Comparison) -> Tensor:
    own, other = pair.scaled()
    return losses.global_context_loss(own, other, pair.mask)


def _boundary(pair: Comparison) -> Tensor:
    own, other = pair.scaled()
    return losses.boundary_saliency_loss(own, other, pair.mask, pair.settings.per_step)


def _on_features(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Callable[[Comparison], Tensor]:
    return lambda pair: loss(*pair.scaled(), pair.mask)


def _on_logits(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Comparison], Tensor]:
    return lambda pair: loss(pair.student.logits, pair.teacher.logits, pair.mask)


TERMS: dict[str, Callable[[Comparison], Tensor]] = {
    "atomic": _atomic,
    "global_context": _global_context,
    "boundary": _boundary,
    "hallucination": _on_features(baselines.hallucination_loss),
    "mars": _on_features(baselines.mars_loss),
    "graph": _on_features(baselines.graph_loss),
    "graph_logits": _on_logits(baselines.graph_loss),
    "logits": _on_logits(baselines.logit_loss),
}
"""Every distillation loss; the names are those of the weights in ``DistillationSettings``."""


def weights(settings: DistillationSettings) -> dict[str, float]:
    """Return the weight of every term that is switched on."""
    found = {name: float(getattr(settings, name)) for name in TERMS}
    return {name: weight for name, weight in found.items() if weight > 0}
