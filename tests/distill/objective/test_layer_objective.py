"""The objective needs what its losses use, adds them up, and keeps its projections out of the student."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from augkd.distill.objective.layer_losses import LAYER_LOSSES, alp_attention, perplexity
from augkd.distill.objective.layer_objective import LayerObjective
from augkd.distill.objective.layer_states import Shape, States
from augkd.errors import ModelError, RecipeError

SMALL, WIDE = Shape(2, 8, 2), Shape(6, 12, 2)


def random_states(shape: Shape, needs: Any, rows: int = 3, seed: int = 0) -> States:
    """Random states of a model of that shape, those that `needs` names."""
    draw = torch.Generator().manual_seed(seed)
    return States(
        torch.randn(rows, len(needs.layers), shape.width, generator=draw) if needs.layers else None,
        tuple(torch.randn(rows, 4, shape.width, generator=draw) for _ in range(shape.layers + 1))
        if needs.tokens
        else (),
        tuple(
            torch.randn(rows, shape.heads, 4, 4, generator=draw) if layer in needs.attention else torch.empty(0)
            for layer in range(shape.layers if needs.attention else 0)
        ),
        torch.ones(rows, 4),
    )


def value(objective: LayerObjective, epoch: int = 0, progress: float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
    student = random_states(objective.student, objective.student_needs(), seed=1)
    teacher = random_states(objective.teacher, objective.needs(), seed=2)
    rows, metrics = objective(student, teacher, progress, epoch)
    return rows, metrics


@pytest.mark.parametrize(
    ("losses", "layers", "live"),
    [
        ({"pkd": {}}, (2,), False),
        ({"pkd": {"layers": "last"}}, (4,), False),
        ({"alp": {}}, (0, 1, 2, 3, 4, 5), False),
        ({"hidden": {}}, (), True),
        ({"attention": {}, "pkd": {}}, (2,), True),
    ],
)
def test_an_objective_needs_no_more_of_the_teacher_than_its_losses_use(
    losses: dict[str, dict[str, Any]], layers: tuple[int, ...], live: bool
) -> None:
    objective = LayerObjective(losses, SMALL, WIDE)
    assert objective.needs().layers == layers
    assert objective.needs().live == live
    assert objective.needs().attention == ((2, 5) if "attention" in losses else ())
    assert value(objective)[0].isfinite().all()  # a layer that was not needed would be nan


@pytest.mark.parametrize("name", LAYER_LOSSES)
@pytest.mark.parametrize("teacher", [Shape(6, 8, 2), WIDE], ids=["same width", "wider"])
def test_every_intermediate_layer_loss_works_at_equal_and_at_unequal_widths(name: str, teacher: Shape) -> None:
    objective = LayerObjective({name: {}}, SMALL, teacher)
    rows, metrics = value(objective)
    assert rows.shape == (3,)
    assert rows.tolist() == metrics[f"structure/{name}"].tolist()

    parameters = list(objective.parameters())
    assert bool(parameters) == (name == "ckd" or (name != "attention" and teacher.width != SMALL.width))
    if parameters:
        rows.sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)


@pytest.mark.parametrize(("buckets", "widths"), [("disjoint", [36, 36]), ("overlapping", [48, 48])])
def test_ckd_projects_each_layer_to_the_width_of_its_bucket(buckets: str, widths: list[int]) -> None:
    objective = LayerObjective({"ckd": {"buckets": buckets}}, SMALL, WIDE)
    assert [layer.out_features for layer in objective.concatenations] == widths  # type: ignore[union-attr]


def test_projections_come_from_the_seed_and_leave_the_global_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (LayerObjective({"ckd": {}, "alp": {}}, SMALL, WIDE, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for name, weights in first.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name])
        assert not torch.equal(weights, other.state_dict()[name])
        assert weights.abs().max() <= 8**-0.5


def test_an_objective_is_the_weighted_sum_of_its_losses() -> None:
    rows, metrics = value(LayerObjective({"alp": {"weight": 0.5}, "pkd": {"weight": 10.0}, "rail": {}}, SMALL, WIDE))
    by_hand = 0.5 * metrics["structure/alp"] + 10 * metrics["structure/pkd"] + metrics["structure/rail"]
    assert rows.tolist() == pytest.approx(by_hand.tolist())


def test_the_perplexity_of_alp_s_attention_is_a_metric_of_each_student_layer() -> None:
    same = Shape(6, 8, 2)
    objective = LayerObjective({"alp": {"buckets": "disjoint"}}, SMALL, same)
    metrics = value(objective)[1]
    student = random_states(SMALL, objective.student_needs(), seed=1).vectors
    teacher = random_states(same, objective.needs(), seed=2).vectors
    assert student is not None
    assert teacher is not None
    expected = perplexity(alp_attention(student, teacher, buckets="disjoint"))
    for layer in range(2):
        values = metrics[f"structure/alp_perplexity_{layer}"]
        assert values.tolist() == pytest.approx(expected[:, layer].tolist())
        assert ((values > 1) & (values <= 3)).all()
        assert not values.requires_grad


def test_rail_keeps_its_layers_within_an_epoch_and_draws_others_in_others() -> None:
    objective = LayerObjective({"rail": {}}, SMALL, WIDE, seed=4)
    epochs = [value(objective, epoch)[0].tolist() for epoch in range(6)]
    assert epochs == [value(objective, epoch)[0].tolist() for epoch in range(6)]
    assert len({tuple(rows) for rows in epochs}) > 2


def test_a_weight_may_follow_a_schedule() -> None:
    falling = {"alp": {"weight": {"linear": {"from": 1.0, "to": 0.0}}}}
    student = States(vectors=torch.randn(3, SMALL.layers, SMALL.width, generator=torch.Generator().manual_seed(0)))
    teacher = States(vectors=torch.randn(3, WIDE.layers, WIDE.width, generator=torch.Generator().manual_seed(1)))
    objective = LayerObjective(falling, SMALL, WIDE)
    constant = LayerObjective({"alp": {}}, SMALL, WIDE)
    whole = constant(student, teacher, 0.5)[0]
    torch.testing.assert_close(objective(student, teacher, 0.5)[0], whole / 2)
    assert (objective(student, teacher, 1.0)[0] == 0).all()


@pytest.mark.parametrize(
    ("losses", "shapes", "error", "message"),
    [
        ({}, (SMALL, WIDE), RecipeError, "names no intermediate-layer loss"),
        ({"apl": {}}, (SMALL, WIDE), RecipeError, "did you mean 'alp'"),
        ({"pkd": {}}, (Shape(1, 8, 2), WIDE), ModelError, "a student of 1 layer has none"),
        ({"ckd": {}}, (Shape(7, 8, 2), WIDE), ModelError, "7 student layers cannot share 6"),
        ({"rail": {}}, (Shape(7, 8, 2), WIDE), ModelError, "rail draws 7 teacher layers"),
        ({"hidden": {}}, (Shape(7, 8, 2), WIDE), ModelError, "needs 1 to 6 student layers"),
        ({"attention": {}}, (Shape(2, 8, 4), WIDE), ModelError, "student has 4 heads and the teacher 2"),
    ],
)
def test_shapes_that_do_not_fit_are_rejected_before_training(
    losses: dict[str, Any], shapes: tuple[Shape, Shape], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        LayerObjective(losses, *shapes)
    assert "\n" not in str(caught.value)


def test_alp_matches_a_student_deeper_than_its_teacher() -> None:
    assert value(LayerObjective({"alp": {}}, Shape(7, 8, 2), WIDE))[0].isfinite().all()
