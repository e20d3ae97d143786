"""The losses against NumPy formulas written from the paper, and the properties they promise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidkd.distillation import losses

LENGTHS = (7, 1, 4)


def batch(seed=0, lengths=LENGTHS, channels=5, negatives=2, padding=0, fill=0.0, dtype=None):
    """Random feature maps of videos of these lengths, padded with ``fill``."""
    generator = np.random.default_rng(seed)
    longest = max(lengths) + padding

    def maps(*shape):
        values = np.full((len(lengths), *shape, longest, channels), fill)
        for row, length in enumerate(lengths):
            values[row, ..., :length, :] = generator.normal(size=(*shape, length, channels))
        return torch.tensor(values, dtype=dtype or torch.float64)

    mask = torch.tensor([[t < length for t in range(longest)] for length in lengths])
    return maps(), maps(), maps(negatives), mask


def valid_rows(values, mask, row):
    return values[row][mask[row]].detach().numpy()


# Every distillation loss as a function of (student, teacher, negatives, mask).
LOSSES = {
    "atomic": lambda s, t, n, m: losses.atomic_loss(s, t, n, m, 0.1),
    "atomic-raw": lambda s, t, n, m: losses.atomic_loss(s, t, n, m, 0.1, normalise=False),
    "global": lambda s, t, n, m: losses.global_context_loss(s, t, m),
    "boundary": lambda s, t, n, m: losses.boundary_saliency_loss(s, t, m),
    "boundary-printed": lambda s, t, n, m: losses.boundary_saliency_loss(s, t, m, per_step=False),
    "hallucination": lambda s, t, n, m: losses.hallucination_loss(s, t, m),
    "mars": lambda s, t, n, m: losses.mars_loss(s, t, m),
    "graph": lambda s, t, n, m: losses.graph_loss(s, t, m),
    "logits": lambda s, t, n, m: losses.logit_loss(s, t, m),
}
every_loss = pytest.mark.parametrize("function", LOSSES.values(), ids=LOSSES.keys())


def test_classification_is_the_mean_cross_entropy():
    logits, targets, _, mask = batch(channels=3)
    targets = targets.sigmoid()
    expected = []
    for row in range(len(LENGTHS)):
        x, y = valid_rows(logits, mask, row), valid_rows(targets, mask, row)
        p = 1 / (1 + np.exp(-x))
        expected.append(-(y * np.log(p) + (1 - y) * np.log(1 - p)))
    expected = np.concatenate(expected)
    mean = losses.classification_loss(logits, targets, mask)
    assert mean.item() == pytest.approx(expected.mean(), rel=1e-12)
    summed = losses.classification_loss(logits, targets, mask, "sum-over-classes")
    assert summed.item() == pytest.approx(expected.sum(axis=1).mean(), rel=1e-12)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("phi", [0.01, 1.0, 3.0])
def test_atomic_is_equation_1(normalise, phi):
    student, teacher, negatives, mask = batch(channels=4)
    temperature = 0.5

    def critic(a, b):
        if normalise:
            a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
        s = a @ b / (temperature if normalise else 1.0)
        return math.exp(s) / (math.exp(s) + phi)

    total, count = 0.0, 0
    for i, length in enumerate(LENGTHS):
        for t in range(length):
            own = student[i, t].numpy()
            total += math.log(critic(teacher[i, t].numpy(), own))
            for n in range(negatives.shape[1]):
                total += math.log(1 - critic(negatives[i, n, t].numpy(), own))
            count += 1
    loss = losses.atomic_loss(
        student, teacher, negatives, mask, phi, normalise=normalise, temperature=temperature
    )
    assert loss.item() == pytest.approx(-total / count, rel=1e-10)
    assert loss.item() > 0


def test_atomic_leaves_out_negatives_that_have_ended():
    student, teacher, negatives, mask = batch(lengths=(4,), negatives=2)
    ended = torch.tensor([[[True, True, False, False], [True, True, True, True]]])
    spoiled = negatives.clone()
    spoiled[0, 0, 2:] = math.nan
    loss = losses.atomic_loss(student, teacher, spoiled, mask, 0.1, negative_mask=ended)
    both = losses.atomic_loss(student[:, :2], teacher[:, :2], negatives[:, :, :2], mask[:, :2], 0.1)
    one = losses.atomic_loss(student[:, 2:], teacher[:, 2:], negatives[:, 1:, 2:], mask[:, 2:], 0.1)
    assert loss.item() == pytest.approx((2 * both.item() + 2 * one.item()) / 4, rel=1e-12)


def test_atomic_does_not_overflow_where_exp_does():
    student = torch.full((1, 2, 256), 30.0, requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    teacher, negatives = student.detach(), -student.detach()[:, None]
    # The raw product is 230400: exp of it is infinite in any floating-point type.
    loss = losses.atomic_loss(student, teacher, negatives, mask, 1e-4, normalise=False)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    swapped = losses.atomic_loss(student, -teacher, -negatives, mask, 1e-4, normalise=False)
    assert torch.isfinite(swapped)
    assert swapped.item() == pytest.approx(2 * 230400, rel=1e-3)
    assert torch.isfinite(student.grad).all()


def test_atomic_of_a_zero_feature_has_a_bounded_gradient():
    student = torch.zeros(1, 1, 8, requires_grad=True)
    ones = torch.ones(1, 1, 8)
    losses.atomic_loss(student, ones, -ones[:, None], torch.ones(1, 1, dtype=bool), 0.1).backward()
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize(("phi", "temperature"), [(0.0, 0.07), (-1.0, 0.07), (0.1, 0.0)])
def test_atomic_refuses_senseless_numbers(phi, temperature):
    student, teacher, negatives, mask = batch()
    with pytest.raises(ValueError, match="positive"):
        losses.atomic_loss(student, teacher, negatives, mask, phi, temperature=temperature)


def test_covariance_is_that_of_numpy():
    student, _, _, mask = batch()
    found = losses.channel_covariance(student, mask).numpy()
    for row, length in enumerate(LENGTHS):
        if length > 1:
            expected = np.cov(valid_rows(student, mask, row), rowvar=False, ddof=1)
            np.testing.assert_allclose(found[row], expected, atol=1e-12)
        else:
            np.testing.assert_array_equal(found[row], np.zeros((5, 5)))


def test_global_is_the_squared_error_of_the_triangles():
    student, teacher, _, mask = batch()
    upper = np.triu_indices(5)
    per_video = []
    for row, length in enumerate(LENGTHS):
        if length > 1:  # a video of one snippet has no covariance and is left out
            own = np.cov(valid_rows(student, mask, row), rowvar=False)[upper]
            other = np.cov(valid_rows(teacher, mask, row), rowvar=False)[upper]
            assert own.shape == (15,)
            per_video.append(((own - other) ** 2).mean())
    loss = losses.global_context_loss(student, teacher, mask)
    assert loss.item() == pytest.approx(np.mean(per_video), rel=1e-12)


def test_boundary_compares_every_step():
    student, teacher, _, mask = batch()
    steps = []
    for row in range(len(LENGTHS)):
        own, other = valid_rows(student, mask, row), valid_rows(teacher, mask, row)
        for t in range(len(own) - 1):
            steps.append(np.abs((own[t + 1] - own[t]) - (other[t + 1] - other[t])))
    loss = losses.boundary_saliency_loss(student, teacher, mask)
    assert len(steps) == 6 + 0 + 3
    assert loss.item() == pytest.approx(np.mean(steps), rel=1e-12)


def test_boundary_as_printed_telescopes():
    student, teacher, _, mask = batch()
    per_video = []
    for row, length in enumerate(LENGTHS):
        if length > 1:
            own, other = valid_rows(student, mask, row), valid_rows(teacher, mask, row)
            printed = sum(
                own[t + 1, c] - own[t, c] - (other[t + 1, c] - other[t, c])
                for t in range(length - 1)
                for c in range(own.shape[1])
            )
            ends = (own[-1] - own[0]).sum() - (other[-1] - other[0]).sum()
            assert printed == pytest.approx(ends)
            per_video.append(abs(ends))
    loss = losses.boundary_saliency_loss(student, teacher, mask, per_step=False)
    assert loss.item() == pytest.approx(np.mean(per_video), rel=1e-10)
    # Whatever happens between the first and the last snippet does not change it, which is why
    # it cannot be the default.
    other_course = student.clone()
    other_course[0, 1:6] += torch.randn(5, 5, dtype=student.dtype)
    other_course[2, 1:3] *= -3
    same = losses.boundary_saliency_loss(other_course, teacher, mask, per_step=False)
    assert same.item() == pytest.approx(loss.item(), rel=1e-10)
    per_step = losses.boundary_saliency_loss(student, teacher, mask)
    assert losses.boundary_saliency_loss(other_course, teacher, mask) != per_step


def test_baselines_follow_their_formulas():
    student, teacher, _, mask = batch()
    s = np.concatenate([valid_rows(student, mask, row) for row in range(3)])
    t = np.concatenate([valid_rows(teacher, mask, row) for row in range(3)])
    p, q = 1 / (1 + np.exp(-s)), 1 / (1 + np.exp(-t))
    cosine = (s * t).sum(1) / np.linalg.norm(s, axis=1) / np.linalg.norm(t, axis=1)
    divergence = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
    for found, expected in [
        (losses.hallucination_loss(student, teacher, mask), ((p - q) ** 2).mean()),
        (losses.mars_loss(student, teacher, mask), ((s - t) ** 2).mean()),
        (losses.graph_loss(student, teacher, mask), (1 - cosine).mean()),
        (losses.logit_loss(student, teacher, mask), divergence.mean()),
    ]:
        assert found.item() == pytest.approx(expected, rel=1e-10)


@every_loss
@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    padding=st.integers(0, 12),
    fill=st.sampled_from([0.0, 1e9, math.nan, -math.inf]),
    seed=st.integers(0, 99),
)
def test_padding_changes_nothing(function, lengths, padding, fill, seed):
    def run(padding, fill):
        student, teacher, negatives, mask = batch(seed, tuple(lengths), 4, 2, padding, fill)
        student.requires_grad_()
        loss = function(student, teacher, negatives, mask)
        loss.backward()
        return loss.item(), [student.grad[row, :length] for row, length in enumerate(lengths)]

    expected, gradients = run(0, 0.0)
    found, padded = run(padding, fill)
    assert found == pytest.approx(expected, rel=1e-10, abs=1e-12)
    for own, other in zip(gradients, padded, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)


@every_loss
def test_padding_receives_no_gradient(function):
    student, teacher, negatives, mask = batch(padding=3)
    student.requires_grad_()
    function(student, teacher, negatives, mask).backward()
    assert torch.count_nonzero(student.grad[~mask]) == 0


@every_loss
def test_gradient_reaches_the_student_alone(function):
    student, teacher, negatives, mask = batch()
    for values in (student, teacher, negatives):
        values.requires_grad_()
    function(student, teacher, negatives, mask).backward()
    assert torch.count_nonzero(student.grad) > 0
    assert teacher.grad is None
    assert negatives.grad is None


@every_loss
def test_gradient_is_that_of_finite_differences(function):
    student, teacher, negatives, mask = batch(lengths=(4, 2), channels=3)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: function(s, teacher, negatives, mask), (student,))


@every_loss
def test_float32_under_autocast(function):
    student, teacher, negatives, mask = batch(dtype=torch.float32)
    expected = function(student, teacher, negatives, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = function(student, teacher, negatives, mask)
    assert found.dtype == torch.float32
    assert found.item() == expected.item()
    half = [values.bfloat16() for values in (student, teacher, negatives)]
    assert function(*half, mask).dtype == torch.float32


@every_loss
def test_nothing_to_compare_is_zero(function):
    student, teacher, negatives, mask = batch()
    student.requires_grad_()
    loss = function(student, teacher, negatives, torch.zeros_like(mask))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.count_nonzero(student.grad) == 0


@pytest.mark.parametrize("name", ["global", "boundary", "hallucination", "mars", "graph", "logits"])
def test_equal_streams_have_no_distance(name):
    student, _, negatives, mask = batch()
    assert LOSSES[name](student, student, negatives, mask).item() == pytest.approx(0.0, abs=1e-12)


def test_atomic_prefers_the_own_teacher_to_a_negative():
    student, teacher, negatives, mask = batch()
    near = losses.atomic_loss(teacher, teacher, negatives, mask, 0.1)
    far = losses.atomic_loss(negatives[:, 0], teacher, negatives, mask, 0.1)
    assert near < losses.atomic_loss(student, teacher, negatives, mask, 0.1) < far
