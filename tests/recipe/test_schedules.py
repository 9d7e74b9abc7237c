"""Φ follows its publication and ends at 1; a weight follows its schedule; an invalid one is refused in one line."""

from __future__ import annotations

import math
import subprocess
import sys
from fractions import Fraction
from typing import Any

import pytest

from augkd.errors import RecipeError
from augkd.recipe.schedules import SHAPES, Schedule, parse, phi, phi_at

UP_TO_40 = range(1, 41)


def weight_at(value: Any, progress: float) -> float:
    schedule = value if isinstance(value, Schedule) else parse(value, "weight")
    return schedule.at(progress)


def message(value: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        parse(value, "loss 'kd' option 'weight'")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix("loss 'kd' option 'weight'")


# ---- Φ ----


def test_phi_is_the_published_sequence() -> None:
    assert [phi(i, 14, 7) * 7 for i in range(14)] == pytest.approx([1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7])
    assert [phi(i, 14, 14) for i in range(14)] == pytest.approx([t / 14 for t in range(1, 15)])
    assert phi(29, 30, 14) == 1


def reference(epochs: int, tau: int) -> list[float]:
    """The counter of the released code: t += 1 whenever epoch mod ⌊epochs/τ⌋ is 0."""
    t, values = 1, []
    for epoch in range(epochs):
        t += epoch > 0 and epoch % (epochs // tau) == 0
        values.append(t / tau)
    return values


def test_phi_equals_the_released_code_where_tau_divides_the_epochs_and_not_where_that_passes_one() -> None:
    for epochs in UP_TO_40:
        for tau in UP_TO_40:
            if epochs % tau == 0:
                assert [phi(i, epochs, tau) for i in range(epochs)] == reference(epochs, tau)
    for epochs, tau, last in ((12, 10, 1.2), (30, 14, 15 / 14), (25, 10, 1.3), (20, 14, 20 / 14)):
        assert reference(epochs, tau)[-1] == pytest.approx(last)
        assert phi(epochs - 1, epochs, tau) == 1


def test_more_increments_than_epochs_skip_some_where_the_released_code_divides_by_zero() -> None:
    assert [phi(i, 7, 10) for i in range(7)] == [0.1, 0.2, 0.3, 0.5, 0.6, 0.8, 0.9]
    assert phi_at(0.9, 10) == 1  # the last is reached inside the last epoch
    with pytest.raises(ZeroDivisionError):
        reference(7, 10)


def test_phi_of_progress_is_phi_of_the_epoch_at_every_border_of_every_training() -> None:
    for epochs in UP_TO_40:
        for tau in UP_TO_40:
            for epoch in range(epochs):
                exact = min(1 + math.floor(Fraction(epoch * tau, epochs)), tau) / tau
                assert phi_at(epoch / epochs, tau) == phi(epoch, epochs, tau) == exact


def test_without_the_tolerance_a_border_of_some_training_would_be_missed() -> None:
    missed = [
        (epoch, epochs, tau)
        for epochs in UP_TO_40
        for tau in UP_TO_40
        for epoch in range(epochs)
        if min(1 + math.floor(epoch / epochs * tau), tau) != min(1 + epoch * tau // epochs, tau)
    ]
    assert missed


@pytest.mark.parametrize("steps", [1, 7, 154, 12277])  # a step before a border must not be taken for the border
def test_phi_inside_an_epoch_is_that_of_the_epoch_where_tau_divides_the_epochs(steps: int) -> None:
    for epochs, tau in ((14, 7), (14, 14), (30, 10), (40, 8), (12, 1)):
        for epoch in range(epochs):
            for step in {0, steps // 2, steps - 1}:
                progress = (epoch * steps + step) / (epochs * steps)
                assert phi_at(progress, tau) == phi(epoch, epochs, tau), (epochs, tau, epoch, step)


def test_phi_never_falls_starts_at_one_part_and_ends_at_one() -> None:
    for tau in UP_TO_40:
        values = [phi_at(step / 997, tau) for step in range(998)]
        assert values == sorted(values)
        assert values[0] == 1 / tau
        assert values[-2] == values[-1] == 1
        assert len(set(values)) == tau


# ---- weights ----


def test_a_number_is_constant() -> None:
    assert [weight_at(0.5, progress) for progress in (0, 0.3, 1)] == [0.5, 0.5, 0.5]
    assert [weight_at(0, progress) for progress in (0, 0.3, 1)] == [0, 0, 0]


def test_a_line_runs_between_its_two_points_and_is_flat_outside() -> None:
    line = {"linear": {"from": 2, "to": 1, "start": 0.2, "end": 0.6}}
    assert [weight_at(line, p) for p in (0.0, 0.2, 0.3, 0.4, 0.6, 1.0)] == pytest.approx([2, 2, 1.75, 1.5, 1, 1])
    assert weight_at({"linear": {}}, 0.3) == pytest.approx(0.3)  # 0 to 1 over the whole training


def test_a_cosine_is_half_way_where_the_line_is_and_flatter_at_its_ends() -> None:
    curve, line = {"cosine": {"from": 1, "to": 0}}, {"linear": {"from": 1, "to": 0}}
    expected = [(1 + math.cos(math.pi * p)) / 2 for p in (0, 0.1, 0.5, 0.9, 1)]
    assert [weight_at(curve, p) for p in (0, 0.1, 0.5, 0.9, 1)] == pytest.approx(expected)
    assert weight_at(curve, 0.1) > weight_at(line, 0.1)
    assert weight_at(curve, 0.9) < weight_at(line, 0.9)


def test_a_step_has_its_second_value_from_its_point_on() -> None:
    step = {"step": {"at": 0.5, "before": 1, "after": 0.25}}
    assert [weight_at(step, p) for p in (0, 0.499, 0.5, 1)] == [1, 1, 0.25, 0.25]
    assert weight_at({"step": {"at": 0, "before": 1, "after": 0}}, 0) == 0
    assert [weight_at({"step": {}}, p) for p in (0, 0.5)] == [1, 0]


def test_a_parsed_schedule_gives_what_the_table_gives() -> None:
    table = {"cosine": {"from": 0.2, "to": 3}}
    schedule = parse(table, "weight")
    assert schedule == Schedule("cosine", 0.2, 3.0, 0.0, 1.0)
    assert [weight_at(schedule, p) for p in (0, 0.4, 1)] == [weight_at(table, p) for p in (0, 0.4, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_ends_exactly_at_its_last_value_and_stays_between_the_two(shape: str) -> None:
    schedule = parse({shape: {}}, "weight")
    values = [schedule.at(step / 100) for step in range(101)]
    assert (values[0], values[-1]) == (schedule.first, schedule.last)
    assert all(0 <= value <= 1 for value in values)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("linear", " is 'linear'; give a number or a schedule, e.g. {linear: {to: 0.5}}"),
        (True, " is True; give a number or a schedule, e.g. {linear: {to: 0.5}}"),
        (None, " is None; give a number or a schedule, e.g. {linear: {to: 0.5}}"),
        (-1, " is -1; it must be >= 0"),
        (math.nan, " is nan; give a finite number"),
        ({}, " is {}; give exactly one of linear, cosine, step"),
        ({"step": {}, "linear": {}}, " is {'step': {}, 'linear': {}}; give exactly one of linear, cosine, step"),
        ({"linaer": {}}, ": there is no schedule 'linaer'; did you mean 'linear'?"),
        ({1: {}}, ": there is no schedule 1; known: cosine, linear, step"),
        ({"linear": 1}, ": linear is 1; give a table, e.g. {linear: {from: 0, to: 1, start: 0, end: 1}}"),
        ({"linear": {"form": 1}}, ": linear has no option 'form'; did you mean 'from'?"),
        ({"step": {"from": 1}}, ": step has no option 'from'; known: after, at, before"),
        ({"cosine": {"to": -1}}, ": cosine option 'to' is -1; it must be >= 0"),
        ({"cosine": {"end": 1.5}}, ": cosine option 'end' is 1.5; it must be >= 0, <= 1"),
        ({"linear": {"to": "1"}}, ": linear option 'to' is '1'; give a float"),
        ({"linear": {"start": 0.5, "end": 0.5}}, ": linear has start 0.5 and end 0.5; start must be smaller"),
    ],
)
def test_an_invalid_schedule_is_refused_in_one_line(value: Any, expected: str) -> None:
    assert message(value) == expected


def test_checking_a_schedule_does_not_import_torch() -> None:
    code = "import sys; from augkd.recipe.schedules import parse; parse(1, 'w'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
