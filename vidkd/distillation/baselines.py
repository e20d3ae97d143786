"""The distillation methods the paper compares with, as losses on snippets.

They keep to the same rules as ``vidkd.distillation.losses``: independent of padding, no gradient
to the teacher, float32 under autocast, averages over valid snippets and channels or classes.
Shapes: feature maps (B, T, C), logits (B, T, K), mask (B, T) bool.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from vidkd.distillation.losses import full_precision, widen


def hallucination_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared error between the sigmoids of the features (Hoffman et al. 2016)."""
    with full_precision(student):
        own, other = _valid(student, teacher, mask)
        return _mean((own.sigmoid() - other.sigmoid()).square())


def mars_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared error between the features (Crasto et al. 2019, weight 50 in their code)."""
    with full_precision(student):
        own, other = _valid(student, teacher, mask)
        return _mean((own - other).square())


def graph_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """One minus the cosine of each snippet (Luo et al. 2018, one edge of the graph).

    On feature maps this is their representation edge, on logits their logit edge.
    """
    with full_precision(student):
        own, other = _valid(student, teacher, mask)
        return _mean(1.0 - functional.cosine_similarity(own, other, dim=-1, eps=1e-6))


def logit_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Logit distillation (Hinton et al. 2015) for labels that do not exclude each other.

    The Kullback-Leibler divergence between the teacher's and the student's probability of every
    class, each a Bernoulli variable, at temperature 1; zero when they agree.

    Args:
        student: (B, T, K) logits.
        teacher: (B, T, K) logits.
        mask: (B, T) bool.
    """
    with full_precision(student):
        own, other = _valid(student, teacher, mask)
        wanted = other.sigmoid()
        divergence = wanted * (functional.logsigmoid(other) - functional.logsigmoid(own))
        divergence = divergence + (1.0 - wanted) * (
            functional.logsigmoid(-other) - functional.logsigmoid(-own)
        )
        return _mean(divergence)


def _valid(student: Tensor, teacher: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return widen(student[mask]), widen(teacher.detach()[mask])


def _mean(values: Tensor) -> Tensor:
    return values.mean() if values.numel() else values.sum()
