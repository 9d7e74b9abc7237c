"""Losses equal figures computed elsewhere, one value per row; unlabelled rows give 0 (ALGORITHMS §25, Fixture A)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax
from torch import Tensor

from augkd.distill.objective.losses import (
    LOSSES,
    UNSUITED,
    annealed,
    ce,
    continuation,
    cwtm,
    dkpp,
    kd,
    label_smoothing,
    logit_regression,
    permuted,
    reverse_kd,
    tf_kd,
)
from augkd.errors import RecipeError

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


# ---- soft labels without a teacher ----


def test_label_smoothing_of_fixture_a_is_the_oracle() -> None:
    rows = label_smoothing(STUDENT, TEACHER, LABELS, 0.0, smoothing=0.1)
    assert rows.mean().item() == pytest.approx(0.982813, abs=1e-6)
    target = np.array([[0.9, 0.05, 0.05], [0.05, 0.05, 0.9]])
    by_hand = -(target * log_softmax(STUDENT.numpy(), axis=1)).sum(axis=1)
    assert rows.tolist() == pytest.approx(by_hand.tolist(), abs=1e-6)


def test_label_smoothing_of_zero_is_cross_entropy_and_of_a_tenth_is_not() -> None:
    plain = ce(STUDENT, TEACHER, LABELS, 0.0).tolist()
    assert label_smoothing(STUDENT, TEACHER, LABELS, 0.0, smoothing=0).tolist() == pytest.approx(plain, abs=1e-6)
    assert label_smoothing(STUDENT, TEACHER, LABELS, 0.0, smoothing=0.1).tolist() != pytest.approx(plain, abs=1e-2)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_tf_kd_is_kd_from_the_virtual_teacher(temperature: float) -> None:
    virtual = np.array([[0.98, 0.01, 0.01], [0.01, 0.01, 0.98]])
    softened = virtual ** (1 / temperature)
    softened /= softened.sum(axis=1, keepdims=True)
    by_hand = temperature**2 * rel_entr(softened, softmax(STUDENT.numpy() / temperature, axis=1)).sum(axis=1)
    rows = tf_kd(STUDENT, TEACHER, LABELS, 0.0, correct=0.98, temperature=temperature)
    assert rows.tolist() == pytest.approx(by_hand.tolist(), rel=1e-5)


def test_tf_kd_s_softened_teacher_still_knows_the_label_where_the_released_code_s_does_not() -> None:
    labels = torch.tensor([0])
    student = torch.zeros(1, 100, requires_grad=True)  # T²·gradient of a uniform student is T·(1/C - virtual)
    tf_kd(student, student, labels, 0.0, correct=0.99, temperature=20.0).sum().backward()
    assert student.grad is not None
    known = 0.01 - student.grad[0, 0].item() / 20
    released = torch.softmax(torch.tensor([0.99] + [0.01 / 99] * 99) / 20, 0)[0].item()
    assert released == pytest.approx(0.0105, abs=1e-4)
    gap = 0.99 / (0.01 / 99)
    assert known == pytest.approx(gap**0.05 / (gap**0.05 + 99), rel=1e-4) == pytest.approx(0.01576, abs=1e-4)


def test_tf_kd_at_temperature_one_is_label_smoothing_but_for_the_entropy_of_its_teacher() -> None:
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.05))
    smoothed = label_smoothing(STUDENT, TEACHER, LABELS, 0.0, smoothing=0.1) - entropy
    virtual = tf_kd(STUDENT, TEACHER, LABELS, 0.0, correct=0.9, temperature=1.0)
    assert virtual.tolist() == pytest.approx(smoothed.tolist(), abs=1e-6)


# ---- annealing and continuation ----


@pytest.mark.parametrize(("progress", "mean"), [(0.0, 0.345), (0.4, 0.291667), (0.9, 0.75), (1.0, 0.75)])
def test_annealed_of_fixture_a_is_the_oracle_at_phi_of_a_tenth_a_half_and_one(progress: float, mean: float) -> None:
    assert annealed(STUDENT, TEACHER, LABELS, progress, tau_max=10).mean().item() == pytest.approx(mean, abs=1e-6)


def test_annealed_with_one_stage_is_logit_regression_from_the_start_and_with_ten_it_is_not() -> None:
    for centre in (False, True):
        wanted = logit_regression(STUDENT, TEACHER, LABELS, 0.0, centre=centre).tolist()
        assert annealed(STUDENT, TEACHER, LABELS, 0.0, tau_max=1, centre=centre).tolist() == wanted
        assert annealed(STUDENT, TEACHER, LABELS, 0.0, tau_max=10, centre=centre).tolist() != wanted


def test_annealed_of_one_output_is_the_squared_error_to_phi_times_the_teacher() -> None:
    student, teacher = torch.tensor([[1.0], [0.0]]), torch.tensor([[4.0], [-2.0]])
    assert annealed(student, teacher, torch.zeros(2), 0.5, tau_max=2).tolist() == [9, 4]
    assert annealed(student, teacher, torch.zeros(2), 0.0, tau_max=2).tolist() == [1, 1]


def test_continuation_begins_with_the_oracle_s_hinge() -> None:
    # Φ is ½ from 0.0 on with two stages, and ψ is 0: the second row is inside the margin
    assert continuation(STUDENT, TEACHER, LABELS, 0.0, tau_max=2, margin=1.0).tolist() == pytest.approx([0.75, 0])
    assert continuation(STUDENT, TEACHER, LABELS, 0.0, tau_max=2, margin=0.0).tolist() == pytest.approx([1.25, 0.5])


def test_continuation_mixes_by_psi_i_of_40_up_to_epoch_20_of_30_and_is_cross_entropy_after() -> None:
    hard = ce(STUDENT, TEACHER, LABELS, 0.0)
    for epoch in range(30):
        factor = min(1 + epoch * 10 // 30, 10) / 10
        hinge = ((STUDENT - factor * TEACHER) ** 2).sum(1).sub(factor).clamp_min(0)
        psi = epoch / 40 if epoch < 20 else 1
        wanted = psi * hard + (1 - psi) * hinge
        assert continuation(STUDENT, TEACHER, LABELS, epoch / 30).tolist() == pytest.approx(wanted.tolist(), abs=1e-6)


def test_inside_the_margin_the_teacher_does_not_pull_and_outside_it_does() -> None:
    student = STUDENT.clone().requires_grad_()
    continuation(student, TEACHER, LABELS, 0.0, tau_max=2, margin=1.0).sum().backward()
    assert student.grad is not None
    assert student.grad[1].tolist() == [0, 0, 0]
    assert student.grad[0].tolist() == pytest.approx((2 * (STUDENT[0] - TEACHER[0] / 2)).tolist())


def test_a_row_without_a_label_has_continuation_s_hinge_until_the_ramp_ends_and_nothing_after() -> None:
    none = torch.tensor([-100, -100])
    hinge = continuation(STUDENT, TEACHER, none, 0.0, tau_max=1)
    half_way = continuation(STUDENT, TEACHER, none, 0.25, tau_max=1, ramp=0.5)
    assert half_way.tolist() == pytest.approx((0.75 * hinge).tolist())
    assert continuation(STUDENT, TEACHER, none, 0.5, tau_max=1, ramp=0.5).tolist() == [0, 0]


def test_continuation_of_one_output_is_squared_errors_and_does_not_broadcast() -> None:
    student, teacher = torch.tensor([[1.0], [0.0], [2.0]]), torch.tensor([[3.0], [0.0], [2.0]])
    target = torch.tensor([1.0, 2.0, float("nan")])
    rows = continuation(student, teacher, target, 0.5, tau_max=1, margin=1.0, ramp=1.0)
    assert rows.tolist() == pytest.approx([0.75 * 3, 0.25 * 4, 0])
    assert continuation(student, teacher, target, 1.0, tau_max=1).tolist() == [0, 4, 0]


# ---- born-again ----


def test_cwtm_weights_cross_entropy_by_confidence_over_the_mean_of_the_labelled_rows() -> None:
    confidence = softmax(TEACHER.numpy(), axis=1).max(axis=1)
    wanted = confidence / confidence.mean() * ce(STUDENT, TEACHER, LABELS, 0.0).numpy()
    assert cwtm(STUDENT, TEACHER, LABELS, 0.0).tolist() == pytest.approx(wanted.tolist(), rel=1e-6)
    assert wanted.tolist() != pytest.approx(ce(STUDENT, TEACHER, LABELS, 0.0).tolist(), rel=1e-2)


def test_a_row_without_label_changes_no_weight_of_cwtm_and_one_with_a_label_does() -> None:
    student, teacher = torch.cat([STUDENT, STUDENT[:1]]), torch.cat([TEACHER, 9 * TEACHER[:1]])
    alone = cwtm(STUDENT, TEACHER, LABELS, 0.0).tolist()
    assert cwtm(student, teacher, torch.tensor([0, 2, -100]), 0.0).tolist() == pytest.approx([*alone, 0])
    assert cwtm(student, teacher, torch.tensor([0, 2, 0]), 0.0)[:2].tolist() != pytest.approx(alone, rel=1e-2)


def test_cwtm_of_equally_sure_rows_is_cross_entropy() -> None:
    teacher = TEACHER[:1].expand(2, 3)
    plain = ce(STUDENT, teacher, LABELS, 0.0).tolist()
    assert cwtm(STUDENT, teacher, LABELS, 0.0).tolist() == pytest.approx(plain)


def test_dkpp_is_kd_from_the_permuted_teacher_and_with_two_classes_kd_itself() -> None:
    teacher = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    student = torch.zeros(20, 5)
    labels = torch.zeros(20, dtype=torch.long)
    student[:, 0] = 1
    assert (
        dkpp(student, teacher, labels, 0.0).tolist()
        == kd(student, permuted(teacher), labels, 0.0, temperature=1.0).tolist()
    )
    assert dkpp(student, teacher, labels, 0.0).tolist() != kd(student, teacher, labels, 0.0, temperature=1.0).tolist()
    two = (student[:, :2], teacher[:, :2], labels, 0.0)
    assert dkpp(*two).tolist() == kd(*two, temperature=1.0).tolist()


def test_permuting_keeps_the_argmax_and_the_values_and_draws_every_order_alike() -> None:
    teacher = torch.randn(6000, 4, generator=torch.Generator().manual_seed(0)).sort(dim=1, descending=True).values
    moved = permuted(teacher)
    assert torch.equal(moved[:, 0], teacher[:, 0])  # the largest stays where it is
    assert torch.equal(moved.sort(dim=1, descending=True).values, teacher)
    orders = (-moved[:, 1:]).argsort(dim=1) @ torch.tensor([9, 3, 1])
    counts = orders.unique(return_counts=True)[1]
    assert len(counts) == 6
    assert ((counts - 1000).abs() < 150).all()  # 5 standard deviations of 6000 draws from 6


def test_a_row_s_permutation_depends_neither_on_its_batch_nor_on_its_position() -> None:
    teacher = torch.randn(30, 6, generator=torch.Generator().manual_seed(1))
    back = torch.arange(29, -1, -1)
    assert torch.equal(permuted(teacher)[back], permuted(teacher[back]))
    assert torch.equal(permuted(teacher)[7:8], permuted(teacher[7:8]))
    strided = teacher.T.contiguous().T
    assert torch.equal(permuted(teacher), permuted(strided))
    assert torch.equal(permuted(torch.tensor([[1, 0.0, -1, -2]])), permuted(torch.tensor([[1, -0.0, -1, -2]])))


# ---- reverse KL ----


def test_reverse_kd_is_kl_with_the_two_changed_over() -> None:
    student, teacher = (softmax(t.numpy() / 2, axis=1) for t in (STUDENT, TEACHER))
    rows = reverse_kd(STUDENT, TEACHER, LABELS, 0.0, temperature=2.0)
    assert rows.tolist() == pytest.approx((4 * rel_entr(student, teacher).sum(axis=1)).tolist(), rel=1e-5)
    assert rows.tolist() != pytest.approx(kd(STUDENT, TEACHER, LABELS, 0.0, temperature=2.0).tolist(), rel=1e-3)


# ---- every loss ----

OPTIONS: dict[str, dict[str, Any]] = {"continuation": {"margin": 0.1}}  # so that no row lies inside the margin


def call(name: str, student: Tensor, teacher: Tensor, labels: Tensor, progress: float = 0.3) -> Tensor:
    return LOSSES[name](student, teacher, labels, progress, **OPTIONS.get(name, {}))


def rows_of(outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Five rows of student, teacher and labels."""
    rng = torch.Generator().manual_seed(0)
    student, teacher = (2 * torch.randn(5, outputs, generator=rng, dtype=torch.float64).float() for _ in range(2))
    return student, teacher, torch.tensor([0, 1, 2, 1, 0]) if outputs > 1 else torch.randn(5, generator=rng)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("outputs", [3, 1])
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_every_loss_gives_one_finite_differentiable_value_per_row(name: str, outputs: int, progress: float) -> None:
    student, teacher, labels = rows_of(outputs)
    if outputs == 1 and name in UNSUITED["regression"]:
        with pytest.raises(RecipeError, match=f"loss '{name}' needs classes, but this task's labels are numbers; use"):
            call(name, student, teacher, labels, progress)
        return
    student.requires_grad_()
    rows = call(name, student, teacher, labels, progress)
    rows.sum().backward()
    assert rows.shape == (5,)
    assert rows.dtype == torch.float32
    assert rows.isfinite().all()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert (student.grad.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("outputs", [3, 1])
def test_every_gradient_is_the_slope(name: str, outputs: int) -> None:
    student, teacher, labels = rows_of(outputs)
    if outputs == 1 and name in UNSUITED["regression"]:
        return
    student.requires_grad_()
    call(name, student, teacher, labels).sum().backward()
    assert student.grad is not None
    for row in range(5):
        for column in range(outputs):
            move = torch.zeros(5, outputs)
            move[row, column] = 1e-2
            with torch.no_grad():
                up, down = (call(name, student + sign * move, teacher, labels)[row].item() for sign in (1, -1))
            assert student.grad[row, column].item() == pytest.approx((up - down) / 2e-2, abs=2e-3)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("outputs", [3, 1])
def test_no_loss_lets_a_missing_label_or_extreme_logits_make_it_infinite(name: str, outputs: int) -> None:
    if outputs == 1 and name in UNSUITED["regression"]:
        return
    student, teacher, labels = rows_of(outputs)
    labels = torch.full_like(labels, -100 if outputs > 1 else torch.nan)
    for scale in (1, 1e-6, 1e4):
        leaf = (scale * student).requires_grad_()
        rows = call(name, leaf, -scale * teacher, labels)
        rows.sum().backward()
        assert leaf.grad is not None
        assert rows.isfinite().all()
        assert leaf.grad.isfinite().all()


LABELLED = ("ce", "label_smoothing", "tf_kd", "cwtm")


@pytest.mark.parametrize("name", LOSSES)
def test_a_row_without_label_is_silent_in_the_losses_of_labels_and_in_no_other(name: str) -> None:
    student, teacher, _ = rows_of(3)
    student.requires_grad_()
    rows = call(name, student, teacher, torch.tensor([0, -100, 2, -100, 1]))
    rows.sum().backward()
    assert student.grad is not None
    silent = (rows == 0) & (student.grad.abs().sum(dim=1) == 0)
    assert silent.tolist() == ([False, True, False, True, False] if name in LABELLED else [False] * 5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_row_s_loss_does_not_depend_on_the_rows_beside_it_except_cwtm_s(name: str) -> None:
    student, teacher, labels = rows_of(3)
    together = call(name, student, teacher, labels).tolist()
    alone = [call(name, student[i : i + 1], teacher[i : i + 1], labels[i : i + 1]).item() for i in range(5)]
    same = together == pytest.approx(alone, rel=1e-5)
    assert same == (name != "cwtm")


@pytest.mark.parametrize("name", LOSSES)
def test_a_perfect_regression_costs_nothing_in_any_loss_that_takes_numbers(name: str) -> None:
    if name in UNSUITED["regression"]:
        return
    target = torch.tensor([1.0, 2.0, 4.0])
    perfect = target[:, None].clone()
    assert call(name, perfect, perfect, target, 1.0).tolist() == [0, 0, 0]
    assert call(name, perfect + 2, perfect, target, 1.0).tolist() == [4, 4, 4]


# ---- several labels ----

SEVERAL = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [torch.nan] * 3])


def several_rows() -> tuple[torch.Tensor, torch.Tensor]:
    student, teacher, _ = rows_of(3)
    return student[:3], teacher[:3]


def test_ce_of_several_labels_is_the_binary_cross_entropy_summed_over_them() -> None:
    student, teacher = several_rows()
    p = 1 / (1 + np.exp(-student.numpy().astype(np.float64)))
    y = SEVERAL.numpy()
    wanted = -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum(axis=1)
    assert call("ce", student, teacher, SEVERAL).tolist() == pytest.approx([*wanted[:2], 0], abs=1e-5)


def test_kd_of_several_labels_is_t_squared_times_the_sum_of_their_binary_kls() -> None:
    student, teacher = several_rows()
    s, t = (1 / (1 + np.exp(-logits.numpy().astype(np.float64) / 3)) for logits in (student, teacher))
    forward = (t * np.log(t / s) + (1 - t) * np.log((1 - t) / (1 - s))).sum(axis=1)
    reverse = (s * np.log(s / t) + (1 - s) * np.log((1 - s) / (1 - t))).sum(axis=1)
    assert kd(student, teacher, SEVERAL, 0.0, temperature=3.0).tolist() == pytest.approx(9 * forward, abs=1e-5)
    assert reverse_kd(student, teacher, SEVERAL, 0.0, temperature=3.0).tolist() == pytest.approx(9 * reverse, abs=1e-5)


@pytest.mark.parametrize(("name", "options"), [("label_smoothing", {"smoothing": 0.1}), ("tf_kd", {"correct": 0.9})])
def test_smoothed_losses_treat_each_of_several_labels_as_a_task_of_two_classes(
    name: str, options: dict[str, float]
) -> None:
    student, teacher = several_rows()
    rows = LOSSES[name](student, teacher, SEVERAL, 0.0, **options)
    for row in range(2):
        as_classes = [
            LOSSES[name](torch.tensor([[0.0, logit]]), torch.zeros(1, 2), torch.tensor([int(label)]), 0.0, **options)
            for logit, label in zip(student[row].tolist(), SEVERAL[row].tolist(), strict=True)
        ]
        assert rows[row].item() == pytest.approx(sum(one.item() for one in as_classes), abs=1e-5)
    assert rows[2] == 0


def test_losses_on_logits_are_the_same_for_several_labels_and_centring_leaves_them_alone() -> None:
    student, teacher = several_rows()
    plain = logit_regression(student, teacher, torch.tensor([0, 1, 2]), 0.0)
    assert logit_regression(student, teacher, SEVERAL, 0.0).tolist() == plain.tolist()
    assert logit_regression(student, teacher, SEVERAL, 0.0, centre=True).tolist() == plain.tolist()


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_takes_several_labels_or_says_why_not(name: str) -> None:
    student, teacher = several_rows()
    if name in UNSUITED["multi_label_classification"]:
        with pytest.raises(RecipeError, match=f"loss '{name}' needs one class per text, but this task is multi-label"):
            call(name, student, teacher, SEVERAL)
        return
    student.requires_grad_()
    rows = call(name, student, teacher, SEVERAL, 0.5)
    rows.sum().backward()
    assert rows.shape == (3,)
    assert student.grad is not None
    assert rows.isfinite().all()
    assert student.grad.isfinite().all()
