"""The losses of the paper, Eq. 1-7, and those it compares with.

Source: Dai, Das, Bremond, "Learning an Augmented RGB Representation with Cross-Modal Knowledge
Distillation for Action Detection", ICCV 2021, Eq. 1-7.

Shapes: feature maps are (B, T, C), logits (B, T, K), masks (B, T) bool with True for real snippets,
negatives (B, N, T, C). What all losses here keep to:

- The value and the gradient do not depend on the padding: neither on how much of it there is,
  nor on what it holds (not even NaN).
- The teacher never receives a gradient: its features are detached.
- They compute in float32 even under autocast; only float64 stays float64.
- A batch without anything to compare (no pair, no step, one snippet) gives zero, not NaN.

Reductions, which decide what the weights of Eq. 7 mean, are averages throughout: over valid
snippets (atomic), over valid steps and channels (boundary), over the C(C+1)/2 entries of the
triangle and over videos (global), over valid snippets and classes (classification). No loss then
grows with C, K or the length of the video, so that weights found on one data set mean something
on another; summed over C = 256 channels, the squared error of the covariances would be 32896
times as large. ``vidkd.recipe.DistillationSettings`` says which weights belong to the averages.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

# Only shorter vectors than this are not brought to length one; without a bound the gradient of
# an all-zero feature would be infinite.
_SMALLEST_NORM = 1e-6


def classification_loss(
    logits: Tensor,
    targets: Tensor,
    mask: Tensor,
    reduction: Literal["mean", "sum-over-classes"] = "mean",
) -> Tensor:
    """Binary cross-entropy over the K classes (L_cls of Eq. 7).

    Args:
        logits: (B, T, K).
        targets: (B, T, K) in [0, 1].
        mask: (B, T) bool.
        reduction: ``mean`` averages over valid snippets and classes; ``sum-over-classes`` sums
            over classes and averages over valid snippets, which is K times as much.
    """
    with full_precision(logits):
        chosen, wanted = widen(logits[mask]), widen(targets[mask])
        if not len(chosen):
            return chosen.sum()
        loss = functional.binary_cross_entropy_with_logits(chosen, wanted.to(chosen.dtype))
        return loss * logits.shape[-1] if reduction == "sum-over-classes" else loss


def atomic_loss(
    student: Tensor,
    teacher: Tensor,
    negatives: Tensor,
    mask: Tensor,
    phi: float,
    *,
    negative_mask: Tensor | None = None,
    normalise: bool = True,
    temperature: float = 0.07,
) -> Tensor:
    """Atomic-level distillation: a contrast between snippets of the two streams (Eq. 1).

    With ``s`` the similarity of a teacher's and a student's snippet, the critic is
    ``h(s) = exp(s) / (exp(s) + phi) = sigmoid(s - log phi)``. The loss is
    ``-log h(positive) - sum over negatives of log(1 - h(negative))``, averaged over the valid
    snippets of the student. The printed expression is a log-likelihood; this is its negative.
    Both logarithms are taken with logsigmoid, which cannot overflow.

    Args:
        student: (B, T, C), the P = B positives.
        teacher: (B, T, C), the same videos and snippets in the other modality.
        negatives: (B, N, T, C), the teacher's features of N videos with another label set, at
            the same t.
        mask: (B, T) bool, valid snippets of the positives.
        phi: negative snippets divided by the snippets of the training set; greater than zero.
        negative_mask: (B, N, T) bool, False where a negative video has already ended; None when
            all are as long as the positive.
        normalise: L2-normalise both features and divide their product by ``temperature``, as
            contrastive representation distillation does (Tian et al. 2020). False takes the raw
            dot product as printed, without the temperature; in 256 dimensions that saturates the
            critic (``vidkd.recipe.DistillationSettings`` says what was measured).
        temperature: see ``normalise``; greater than zero.

    Raises:
        ValueError: ``phi`` or ``temperature`` is not a positive number.
    """
    if not (phi > 0 and math.isfinite(phi)) or not temperature > 0:
        raise ValueError(f"phi ({phi}) and temperature ({temperature}) must be positive")
    with full_precision(student):
        own, other = widen(student[mask]), widen(teacher.detach()[mask])
        if not len(own):
            return own.sum()
        valid = torch.ones_like(negatives[..., 0], dtype=torch.bool)
        if negative_mask is not None:
            valid = negative_mask
        valid = valid.transpose(1, 2)[mask]  # (snippets, N)
        against = widen(negatives.detach().transpose(1, 2)[mask])  # (snippets, N, C)
        against = against.masked_fill(~valid[..., None], 0.0)
        if normalise:
            own, other, against = (
                functional.normalize(item, dim=-1, eps=_SMALLEST_NORM)
                for item in (own, other, against)
            )
        scale = 1.0 / temperature if normalise else 1.0
        positive = (own * other).sum(-1) * scale - math.log(phi)
        negative = (own[:, None] * against).sum(-1) * scale - math.log(phi)
        attraction = -functional.logsigmoid(positive).sum()
        repulsion = -(functional.logsigmoid(-negative) * valid).sum()
        return (attraction + repulsion) / len(own)


def channel_covariance(features: Tensor, mask: Tensor) -> Tensor:
    """Covariance of the channels over the valid snippets of each video (Eq. 2-3).

    The temporal mean of every channel is removed; the sum of products is divided by T - 1, with
    T the number of valid snippets. A video with fewer than two has no covariance and gives zeros.

    Args:
        features: (B, T, C).
        mask: (B, T) bool.

    Returns:
        (B, C, C), symmetric.
    """
    with full_precision(features):
        valid = mask[..., None]
        values = widen(features.masked_fill(~valid, 0.0))
        count = valid.sum(dim=1, keepdim=True).to(values.dtype)  # (B, 1, 1)
        mean = values.sum(dim=1, keepdim=True) / count.clamp(min=1.0)
        centred = (values - mean).masked_fill(~valid, 0.0)
        return centred.transpose(1, 2) @ centred / (count - 1.0).clamp(min=1.0)


def global_context_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Global contextual relation: how the channels vary together over the whole video (Eq. 4).

    Squared error between the channel covariances of the two streams on the C(C+1)/2 entries on
    and above the diagonal; the mean over these entries, then over the videos with at least two
    valid snippets.

    Args:
        student: (B, T, C).
        teacher: (B, T, C).
        mask: (B, T) bool.
    """
    with full_precision(student):
        difference = channel_covariance(student, mask) - channel_covariance(teacher.detach(), mask)
        # The matrix is symmetric: the triangle with the diagonal is half of (all + diagonal).
        # Gathering its entries would cost more than the covariance itself.
        squared = difference.square()
        diagonal = torch.diagonal(squared, dim1=1, dim2=2).sum(dim=1)
        channels = student.shape[-1]
        per_video = (squared.sum(dim=(1, 2)) + diagonal) / (channels * (channels + 1))
        usable = (mask.sum(dim=1) >= 2).to(per_video.dtype)
        return (per_video * usable).sum() / usable.sum().clamp(min=1.0)


def boundary_saliency_loss(
    student: Tensor, teacher: Tensor, mask: Tensor, per_step: bool = True
) -> Tensor:
    """Boundary saliency: how the features change from one snippet to the next (Eq. 5-6).

    Args:
        student: (B, T, C).
        teacher: (B, T, C).
        mask: (B, T) bool; a step counts when both its snippets are valid.
        per_step: True takes the L1 distance between the temporal differences of the two streams
            at every step and channel, averaged over valid steps and channels. This is what the
            paper's text describes. False is Eq. 5-6 as printed: the differences are first summed
            over t and c, and the absolute difference of the two sums is averaged over videos.
            That sum telescopes to the last snippet minus the first, so that it says nothing
            about boundaries; it is kept to reproduce the formula. It also grows with C.
    """
    with full_precision(student):
        valid = mask[:, 1:] & mask[:, :-1]
        own, other = widen(student), widen(teacher.detach())
        difference = own.diff(dim=1) - other.diff(dim=1)  # (B, T - 1, C)
        if not valid.any():
            return own[mask].sum() * 0.0
        if per_step:
            return difference[valid].abs().mean()
        variation = difference.masked_fill(~valid[..., None], 0.0).sum(dim=(1, 2))
        usable = valid.any(dim=1).to(variation.dtype)
        return variation.abs().sum() / usable.sum()


# What the paper compares with; averages over valid snippets and channels or classes as well.


def hallucination_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared error between the sigmoids of the features (Hoffman et al. 2016)."""
    with full_precision(student):
        own, other = _snippets(student, teacher, mask)
        return _mean((own.sigmoid() - other.sigmoid()).square())


def mars_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared error between the features (Crasto et al. 2019, weight 50 in their code)."""
    with full_precision(student):
        own, other = _snippets(student, teacher, mask)
        return _mean((own - other).square())


def graph_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """One minus the cosine of each snippet (Luo et al. 2018, one edge of the graph).

    On feature maps this is their representation edge, on logits their logit edge.
    """
    with full_precision(student):
        own, other = _snippets(student, teacher, mask)
        return _mean(1.0 - functional.cosine_similarity(own, other, dim=-1, eps=1e-6))


def logit_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Logit distillation (Hinton et al. 2015) for labels that do not exclude each other.

    The Kullback-Leibler divergence between the teacher's and the student's probability of every
    class, each a Bernoulli variable, at temperature 1; zero when they agree.
    """
    with full_precision(student):
        own, other = _snippets(student, teacher, mask)
        wanted = other.sigmoid()
        divergence = wanted * (functional.logsigmoid(other) - functional.logsigmoid(own))
        divergence = divergence + (1.0 - wanted) * (
            functional.logsigmoid(-other) - functional.logsigmoid(-own)
        )
        return _mean(divergence)


@contextlib.contextmanager
def full_precision(like: Tensor) -> Iterator[None]:
    """Switch autocast off on the device of ``like`` while the block runs."""
    with torch.autocast(device_type=like.device.type, enabled=False):
        yield


def widen(values: Tensor) -> Tensor:
    """Return ``values`` in float32, or in float64 when that is what they are."""
    return values if values.dtype == torch.float64 else values.float()


def _snippets(student: Tensor, teacher: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return widen(student[mask]), widen(teacher.detach()[mask])


def _mean(values: Tensor) -> Tensor:
    return values.mean() if values.numel() else values.sum()
