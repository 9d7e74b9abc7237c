"""A step weighs its rows, forwards them in one grouping at every pass, and scores candidates without noise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.tiny import LABELS
from support.transfer import K, transfer

from augkd.distill.choice import Scorer
from augkd.distill.dataset import DistillationDataset
from augkd.distill.objective.objective import Objective
from augkd.distill.step import StepLoss, StepRows
from augkd.models.classifier import Classifier, load_backbone


@pytest.fixture
def student(tiny_bert: Path) -> Classifier:
    """With dropout 0.1, in train mode."""
    classifier = load_backbone(str(tiny_bert), LABELS, 32, seed=0, precision="float32")
    classifier.model.train()
    return classifier


def rows_of(student: Classifier, candidate_weight: float = 0.25) -> StepRows:
    """Three originals with all their candidates, in groups of at most 64 tokens."""
    dataset = DistillationDataset(student, transfer(3))
    batch = dataset.collate([0, 1, 2])["batch"]
    missing = dataset.target.missing
    return StepRows.of(batch, batch.pool, missing=missing, candidate_weight=candidate_weight, token_budget=64)


def test_originals_come_first_with_weight_one_and_candidates_have_no_label(student: Classifier) -> None:
    rows = rows_of(student)
    assert len(rows.tokens) == 3 + 3 * K
    assert rows.weights.tolist() == [1.0] * 3 + [0.25] * 3 * K
    assert (rows.labels[:3] >= 0).all()
    assert rows.labels[3:].tolist() == [-100] * 3 * K
    assert len(rows.groups) > 1


def test_a_pass_is_the_weighted_sum_of_the_losses_over_the_originals_of_the_accumulated_step(
    student: Classifier,
) -> None:
    rows, objective = rows_of(student), Objective({"kd": {}, "ce": {}})
    torch.manual_seed(3)
    loss = StepLoss(student, rows, objective, None, originals=7, progress=0.5)()
    torch.manual_seed(3)  # the same dropout
    losses = objective(student.logits(rows.tokens, "test", 64), rows.teacher, rows.labels, 0.5)
    wanted = (losses[:3].sum() + 0.25 * losses[3:].sum()) / 7
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert student.rows["training"] == len(rows.tokens)


def test_another_pass_forwards_the_same_groups(student: Classifier) -> None:
    shapes: list[tuple[int, ...]] = []
    student.model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    rows = rows_of(student)
    loss = StepLoss(student, rows, Objective({"kd": {}}), None, 3, 0.0)
    loss()
    loss()
    once = len(rows.groups)
    assert shapes[:once] == shapes[once:]


def test_a_pass_in_eval_mode_is_a_bug_that_is_named(student: Classifier) -> None:
    student.model.eval()
    with pytest.raises(AssertionError, match="eval mode"):
        StepLoss(student, rows_of(student), Objective({"kd": {}}), None, 3, 0.0)()


@pytest.mark.parametrize("training", [True, False])
def test_a_scorer_uses_neither_dropout_nor_gradients_and_restores_the_mode(student: Classifier, training: bool) -> None:
    student.model.train(training)
    tokens = rows_of(student).tokens
    scorer = Scorer(student, token_budget=64)
    logits = scorer.logits(tokens)
    assert student.model.training == training
    assert not logits.requires_grad
    assert torch.equal(scorer.logits(tokens), logits)
    assert student.rows["scoring"] == 2 * len(tokens)
    student.model.train()
    assert not torch.equal(student.logits(tokens, "test", 64), logits)  # with dropout
