"""An objective is the weighted sum of its losses, checked when it is made and compiled once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from augkd.distill.objective.losses import LOSSES, ce, kd, logit_regression
from augkd.distill.objective.objective import Objective
from augkd.errors import RecipeError

STUDENT = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 0.0]])
TEACHER = torch.tensor([[2.0, -1.0, 0.0], [0.0, 1.0, 1.0]])
LABELS = torch.tensor([0, 2])


def test_an_objective_is_the_weighted_sum_of_its_losses_with_their_options() -> None:
    objective = Objective({"kd": {"weight": 0.25, "temperature": 3.0}, "ce": {}})
    wanted = 0.25 * kd(STUDENT, TEACHER, LABELS, 0.0, temperature=3.0) + ce(STUDENT, TEACHER, LABELS, 0.0)
    assert objective(STUDENT, TEACHER, LABELS, 0.0).tolist() == pytest.approx(wanted.tolist())


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 1.0), (0.25, 0.75), (1.0, 0.0)])
def test_a_weight_follows_its_schedule(progress: float, weight: float) -> None:
    objective = Objective({"logit_regression": {"weight": {"linear": {"from": 1.0, "to": 0.0}}}})
    plain = logit_regression(STUDENT, TEACHER, LABELS, progress)
    assert objective(STUDENT, TEACHER, LABELS, progress).tolist() == pytest.approx((weight * plain).tolist())


def test_options_are_read_when_the_objective_is_made_and_not_at_a_step() -> None:
    options: dict[str, Any] = {"temperature": 2.0}
    objective = Objective({"kd": options})
    before = objective(STUDENT, TEACHER, LABELS, 0.0)
    options["temperature"] = 5.0
    assert torch.equal(objective(STUDENT, TEACHER, LABELS, 0.0), before)


def test_an_objective_without_losses_is_zero() -> None:
    assert Objective({})(STUDENT, TEACHER, LABELS, 0.0).tolist() == [0, 0]


@pytest.mark.parametrize("name", LOSSES)
def test_unlabelled_rows_are_used_exactly_where_a_loss_of_them_is_not_zero(name: str) -> None:
    student, unlabelled = 2 * STUDENT, torch.tensor([-100, -100])
    rows = Objective({name: {}})(student, TEACHER, unlabelled, 0.0)
    if name != "cwtm":  # needs labels too, but is not declared to: its candidates are forwarded and weigh nothing
        assert Objective({name: {}}).uses_unlabelled_rows == bool(rows.any())
    assert Objective({name: {}, "kd": {}}).uses_unlabelled_rows


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({"kdd": {}}, "there is no loss 'kdd'; did you mean 'kd'"),
        ({"kd": {"temprature": 2.0}}, "loss 'kd' has no option 'temprature'; did you mean 'temperature'"),
        ({"kd": {"temperature": 0.0}}, "loss 'kd' option 'temperature' is 0.0; it must be > 0"),
        ({"kd": {"weight": {"linaer": {}}}}, "loss 'kd' option 'weight': there is no schedule 'linaer'"),
        ({"kd": {"weight": -1.0}}, "loss 'kd' option 'weight'"),
    ],
)
def test_a_mistake_is_an_error_when_the_objective_is_made(losses: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Objective(losses)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
