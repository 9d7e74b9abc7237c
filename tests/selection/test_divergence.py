"""Divergence equals figures computed independently, row by row (ALGORITHMS §25, Fixtures A and D)."""

from __future__ import annotations

import math

import pytest
import torch

from augkd.selection.divergence import binary_kl, divergence, kl, squared_error

STUDENT = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 0.0]])
TEACHER = torch.tensor([[2.0, -1.0, 0.0], [0.0, 1.0, 1.0]])


def kl_by_hand(student: list[float], teacher: list[float], temperature: float) -> float:
    def softmax(row: list[float]) -> list[float]:
        powers = [math.exp(value / temperature) for value in row]
        return [power / sum(powers) for power in powers]

    return sum(t * math.log(t / s) for s, t in zip(softmax(student), softmax(teacher), strict=True))


@pytest.mark.parametrize(("temperature", "mean"), [(1, 0.152781), (2, 0.059610), (5, 0.011669)])
def test_kl_of_fixture_a_averages_to_the_published_oracle(temperature: float, mean: float) -> None:
    assert kl(STUDENT, TEACHER, temperature).mean().item() == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1, 2, 5])
def test_kl_of_each_row_equals_the_sum_written_out(temperature: float) -> None:
    wanted = [kl_by_hand(s, t, temperature) for s, t in zip(STUDENT.tolist(), TEACHER.tolist(), strict=True)]
    assert kl(STUDENT, TEACHER, temperature).tolist() == pytest.approx(wanted, abs=1e-6)


def test_kl_is_teacher_against_student_and_not_the_reverse() -> None:
    forward, reverse = kl(STUDENT, TEACHER), kl(TEACHER, STUDENT)
    assert not torch.allclose(forward, reverse, atol=1e-3)
    assert reverse[0].item() == pytest.approx(kl_by_hand(TEACHER[0].tolist(), STUDENT[0].tolist(), 1), abs=1e-6)


def test_kl_times_t_squared_tends_to_the_centred_squared_difference() -> None:
    difference = TEACHER - STUDENT
    centred = difference - difference.mean(dim=1, keepdim=True)
    limit = centred.square().sum(dim=1).mean() / (2 * 3)
    assert limit.item() == pytest.approx(0.319444, abs=1e-6)
    assert 100**2 * kl(STUDENT.double(), TEACHER.double(), 100).mean().item() == pytest.approx(0.3178, abs=2e-3)
    assert 1**2 * kl(STUDENT, TEACHER, 1).mean().item() < 0.2  # not yet at T = 1


def test_kl_is_zero_for_equal_rows_and_ignores_a_shift_of_a_row() -> None:
    assert kl(TEACHER, TEACHER).tolist() == pytest.approx([0, 0], abs=1e-7)
    assert kl(STUDENT + 7, TEACHER - 3).tolist() == pytest.approx(kl(STUDENT, TEACHER).tolist(), abs=1e-6)


def test_squared_error_is_averaged_over_outputs() -> None:
    assert squared_error(STUDENT, TEACHER).tolist() == pytest.approx([1.0, 0.5])
    assert squared_error(STUDENT, TEACHER).mean().item() == pytest.approx(0.75)


def test_minimax_scores_of_fixture_d_equal_the_oracle() -> None:
    student = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    teacher = torch.tensor([[2.0, 0.0]] * 4)
    assert divergence(student, teacher, 2.0).tolist() == pytest.approx([0, 0.110944, 0.462117, 0.026345], abs=1e-6)


def test_one_output_is_ranked_by_squared_error_because_its_kl_is_always_zero() -> None:
    student, teacher = torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [1.0]])
    assert kl(student, teacher).tolist() == [0, 0]
    assert divergence(student, teacher, 2.0).tolist() == [0, 4]


def test_divergence_of_half_precision_logits_is_computed_in_float32() -> None:
    rows = divergence(STUDENT.bfloat16(), TEACHER.bfloat16())
    assert rows.dtype == torch.float32
    assert rows.mean().item() == pytest.approx(0.152781, abs=1e-6)  # the fixture is exact in bf16


@pytest.mark.parametrize("temperature", [0.5, 1, 2])
def test_the_divergence_of_several_labels_is_the_sum_of_bernoulli_kls(temperature: float) -> None:
    def bernoulli(student: float, teacher: float) -> float:
        s, t = (1 / (1 + math.exp(-value / temperature)) for value in (student, teacher))
        return t * math.log(t / s) + (1 - t) * math.log((1 - t) / (1 - s))

    rows = zip(STUDENT.tolist(), TEACHER.tolist(), strict=True)
    wanted = [sum(map(bernoulli, student, teacher)) for student, teacher in rows]
    assert binary_kl(STUDENT, TEACHER, temperature).tolist() == pytest.approx(wanted, abs=1e-6)
    assert divergence(STUDENT, TEACHER, temperature, "sigmoid").tolist() == pytest.approx(wanted, abs=1e-6)
    extreme = torch.tensor([[1e4, -1e4]])
    assert binary_kl(extreme, -extreme).isfinite().all()
