"""Losses equal figures computed elsewhere, one value a row; unlabelled rows are silent (ALGORITHMS §25, Fixture A)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from augkd.distill.losses import LOSSES, ce, kd, logit_regression

STUDENT = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 0.0]])
TEACHER = torch.tensor([[2.0, -1.0, 0.0], [0.0, 1.0, 1.0]])
LABELS = torch.tensor([0, 2])


def test_ce_of_fixture_a_is_the_oracle() -> None:
    rows = ce(STUDENT, TEACHER, LABELS, 0.0)
    assert rows.mean().item() == pytest.approx(0.932813, abs=1e-6)
    by_hand = [-torch.softmax(s, 0)[label].log().item() for s, label in zip(STUDENT, LABELS, strict=True)]
    assert rows.tolist() == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize(("temperature", "mean"), [(1.0, 0.152781), (2.0, 0.238441), (5.0, 0.291716)])
def test_kd_of_fixture_a_is_t_squared_times_kl(temperature: float, mean: float) -> None:
    assert kd(STUDENT, TEACHER, LABELS, 0.0, temperature=temperature).mean().item() == pytest.approx(mean, abs=2e-6)


def test_kd_sums_over_classes_where_an_element_mean_would_be_a_third() -> None:
    element_mean = torch.nn.functional.kl_div(STUDENT.log_softmax(-1), TEACHER.softmax(-1), reduction="none").mean()
    summed = kd(STUDENT, TEACHER, LABELS, 0.0, temperature=1.0).mean()
    assert element_mean.item() == pytest.approx(summed.item() / 3, abs=1e-7)


def test_kd_tends_to_the_centred_logit_regression_as_temperature_grows() -> None:
    # lim T²·KL = Σ(centred difference)² / 2C, and logit_regression is the same sum over C
    limit = logit_regression(STUDENT, TEACHER, LABELS, 0.0, centre=True) / 2
    assert limit.mean().item() == pytest.approx(0.319444, abs=1e-6)
    assert kd(STUDENT, TEACHER, LABELS, 0.0, temperature=100.0).tolist() == pytest.approx(limit.tolist(), rel=2e-2)
    assert kd(STUDENT, TEACHER, LABELS, 0.0, temperature=1.0).tolist() != pytest.approx(limit.tolist(), rel=2e-2)


def test_logit_regression_is_the_oracle_with_and_without_centring() -> None:
    assert logit_regression(STUDENT, TEACHER, LABELS, 0.0).mean().item() == pytest.approx(0.75)
    centred = logit_regression(STUDENT, TEACHER, LABELS, 0.0, centre=True)
    assert centred.mean().item() == pytest.approx(0.638889, abs=1e-6)


def test_centring_hides_a_shift_of_the_logits_and_not_centring_shows_it() -> None:
    shifted = STUDENT + 5
    centred = logit_regression(STUDENT, TEACHER, LABELS, 0.0, centre=True)
    assert logit_regression(shifted, TEACHER, LABELS, 0.0, centre=True).tolist() == pytest.approx(centred.tolist())
    assert logit_regression(shifted, TEACHER, LABELS, 0.0).mean().item() > 10


def test_centring_leaves_one_output_as_it_is() -> None:
    student, teacher = torch.tensor([[1.0]]), torch.tensor([[3.0]])
    assert logit_regression(student, teacher, torch.tensor([0.0]), 0.0, centre=True).tolist() == [4]


def test_a_perfect_regression_prediction_costs_nothing_although_shapes_differ() -> None:
    target = torch.tensor([1.0, 2.0, 4.0])
    student = target[:, None].clone()  # (B, 1) against (B,): broadcasting would give 2·Var
    assert ce(student, student, target, 0.0).tolist() == [0, 0, 0]
    assert (student - target).square().mean().item() == pytest.approx(2 * target.var(unbiased=False).item(), rel=1e-5)
    assert ce(student + 2, student, target, 0.0).tolist() == [4, 4, 4]


def test_kd_of_one_output_is_squared_error() -> None:
    student, teacher = torch.tensor([[1.0], [0.0]]), torch.tensor([[3.0], [0.0]])
    for temperature in (1.0, 2.0):
        assert kd(student, teacher, torch.zeros(2), 0.0, temperature=temperature).tolist() == [4, 0]


@pytest.mark.parametrize(
    ("outputs", "labels"),
    [(3, torch.tensor([0, -100, 2])), (1, torch.tensor([0.5, float("nan"), 2.0]))],
    ids=["classes", "regression"],
)
def test_a_row_without_label_has_no_hard_loss_and_no_gradient(outputs: int, labels: Tensor) -> None:
    student = torch.linspace(-1, 1, 3 * outputs).reshape(3, outputs).requires_grad_()
    rows = ce(student, torch.zeros(3, outputs), labels, 0.0)
    rows.sum().backward()
    assert student.grad is not None
    assert rows[1].item() == 0
    assert student.grad[1].tolist() == [0] * outputs
    assert (rows[[0, 2]] > 0).all()  # and the labelled ones have both
    assert (student.grad[[0, 2]].abs().sum(dim=1) > 0).all()


def test_a_batch_without_any_label_is_zero_where_the_mean_over_labelled_rows_would_be_nan() -> None:
    labels = torch.tensor([-100, -100])
    assert ce(STUDENT, TEACHER, labels, 0.0).mean().item() == 0
    assert torch.nn.functional.cross_entropy(STUDENT, labels).isnan()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("outputs", [3, 1])
def test_every_loss_gives_one_finite_differentiable_value_a_row(name: str, outputs: int) -> None:
    rng = torch.Generator().manual_seed(0)
    student = torch.randn(5, outputs, generator=rng).requires_grad_()
    teacher = torch.randn(5, outputs, generator=rng)
    labels = torch.tensor([0, 1, 2, 1, 0]) if outputs > 1 else torch.randn(5, generator=rng)
    rows = LOSSES[name](student, teacher, labels, 0.5)
    rows.sum().backward()
    assert rows.shape == (5,)
    assert rows.isfinite().all()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert (student.grad.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_row_s_loss_does_not_depend_on_the_rows_beside_it(name: str) -> None:
    together = LOSSES[name](STUDENT, TEACHER, LABELS, 0.0)
    alone = [LOSSES[name](STUDENT[i : i + 1], TEACHER[i : i + 1], LABELS[i : i + 1], 0.0).item() for i in range(2)]
    assert together.tolist() == pytest.approx(alone, abs=1e-6)
