"""Intermediate-layer losses of a pass are those of each text alone, with gradients, however its rows are grouped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.tiny import LABELS, sentences
from torch import Tensor

from augkd.distill.objective.layer_objective import LayerObjective
from augkd.distill.objective.layer_states import Shape, States, token_layer_vectors
from augkd.distill.objective.matching import Matched, MatchedMeans, attention_weights, check_same_tokens, matching
from augkd.errors import ModelError
from augkd.models.classifier import Classifier, Pair, load_backbone
from augkd.models.layers import from_layers
from augkd.models.tokens import RowGroups, Tokens

TEXTS: list[Pair] = [(text + " and more" * (number % 7), None) for number, (text, _) in enumerate(sentences()[:23])]


@pytest.fixture(scope="module")
def teacher(tiny_bert: Path) -> Classifier:
    """The tiny BERT with matrices five times as large, so that texts differ by more than rounding."""
    classifier = load_backbone(str(tiny_bert), LABELS, 32, seed=0, precision="float32")
    with torch.no_grad():
        for parameter in classifier.model.parameters():
            parameter.mul_(5 if parameter.dim() == 2 else 1)
    classifier.model.eval()
    return classifier


@pytest.fixture
def student(teacher: Classifier) -> Classifier:
    classifier = from_layers(teacher, [0, 2])
    with torch.no_grad():
        for parameter in classifier.model.parameters():
            parameter.mul_(1.1 if parameter.dim() == 2 else 1)
    classifier.model.eval()  # so that two forward passes agree
    return classifier


@pytest.fixture
def tokens(student: Classifier) -> Tokens:
    return student.tokens(TEXTS)


def grouped(tokens: Tokens, token_budget: int = 64) -> RowGroups:
    return RowGroups.of(tokens, token_budget)


def forward(classifier: Classifier, tokens: Tokens, groups: RowGroups) -> Tensor:
    return classifier.logits(tokens, "test", groups=groups)


def alone(classifier: Classifier, row: int) -> Any:
    """The model's own outputs for one text, unpadded."""
    inputs = classifier.tokens([TEXTS[row]]).padded(classifier.pad_id)
    return classifier.model(**inputs, output_hidden_states=True)


@pytest.fixture(params=[32, 64, 100_000], ids=["many groups", "several groups", "one group"])
def groups(request: Any, tokens: Tokens) -> RowGroups:
    return grouped(tokens, request.param)


def vectors_of(objective: LayerObjective, teacher: Classifier) -> Tensor:
    return token_layer_vectors(teacher, teacher.tokens(TEXTS), objective.needs())


def test_rows_with_stored_vectors_are_those_of_each_text_alone(
    student: Classifier, teacher: Classifier, tokens: Tokens, groups: RowGroups
) -> None:
    objective = LayerObjective({"alp": {}, "pkd": {"weight": 5.0}}, Shape.of(student.model), Shape.of(teacher.model))
    stored = vectors_of(objective, teacher)
    with matching(objective, student.model, tokens, groups, stored, 0.0, 0) as matched:
        logits = forward(student, tokens, groups)
    assert torch.equal(logits, forward(student, tokens, groups))
    for row in (0, 5, 6, 22):
        states = alone(student, row).hidden_states
        student_states = States(torch.stack([state[:, 0] for state in states[1:]], dim=1))
        expected, _ = objective(student_states, States(stored[[row]]), 0.0)
        assert matched.losses[row].item() == pytest.approx(expected.item(), rel=1e-4)
    assert matched.metrics["structure/alp_perplexity_1"] == pytest.approx(mean_perplexity(objective, student, stored))


def mean_perplexity(objective: LayerObjective, student: Classifier, stored: Tensor) -> float:
    student_states = States(token_layer_vectors(student, student.tokens(TEXTS), objective.student_needs()))
    return float(objective(student_states, States(stored), 0.0)[1]["structure/alp_perplexity_1"].mean())


@pytest.mark.parametrize("losses", [{"hidden": {}, "embedding": {}}, {"attention": {}}, {"distilbert_cosine": {}}])
def test_rows_with_a_live_teacher_do_not_depend_on_how_they_are_grouped(
    student: Classifier, teacher: Classifier, tokens: Tokens, losses: dict[str, Any], groups: RowGroups
) -> None:
    objective = LayerObjective(losses, Shape.of(student.model), Shape.of(teacher.model))
    with matching(objective, student.model, tokens, groups, teacher, 0.0, 0) as matched:
        forward(student, tokens, groups)
    sample, expected = range(0, len(tokens), 3), []
    for row in sample:
        text = tokens.take(torch.tensor([row]))
        with matching(objective, student.model, text, grouped(text), teacher, 0.0, 0) as single:
            forward(student, text, grouped(text))
        expected.append(single.losses.item())
    assert matched.losses[list(sample)].tolist() == pytest.approx(expected, rel=1e-4)
    assert len(set(expected)) == len(sample)


def test_a_live_teacher_s_vectors_are_the_stored_ones(student: Classifier, teacher: Classifier, tokens: Tokens) -> None:
    objective = LayerObjective({"alp": {}}, Shape.of(student.model), Shape.of(teacher.model))
    groups, losses = grouped(tokens), []
    for source in (vectors_of(objective, teacher), teacher):
        with matching(objective, student.model, tokens, groups, source, 0.0, 0) as matched:
            forward(student, tokens, groups)
        losses.append(matched.losses.tolist())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_gradients_reach_the_student_and_the_projection_and_not_the_teacher(
    student: Classifier, teacher: Classifier, tokens: Tokens
) -> None:
    objective = LayerObjective({"ckd": {}, "hidden": {}, "attention": {}}, Shape.of(student.model), Shape(3, 32, 2))
    groups = grouped(tokens)
    with matching(objective, student.model, tokens, groups, teacher, 0.0, 0) as matched:
        forward(student, tokens, groups)
    matched.losses.mean().backward()
    embeddings = student.model.bert.embeddings.word_embeddings.weight.grad
    assert embeddings.abs().sum() > 0
    assert student.model.bert.encoder.layer[1].output.dense.weight.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.parameters())
    assert all(p.grad is None for p in teacher.model.parameters())


def test_gradient_descent_lowers_an_intermediate_layer_loss(
    student: Classifier, teacher: Classifier, tokens: Tokens
) -> None:
    objective = LayerObjective({"alp": {"detached": True}}, Shape.of(student.model), Shape.of(teacher.model))
    stored = vectors_of(objective, teacher)
    optimiser = torch.optim.Adam([*student.model.parameters(), *objective.parameters()], lr=1e-3)
    groups, values = grouped(tokens), []
    for _ in range(12):
        with matching(objective, student.model, tokens, groups, stored, 0.0, 0) as matched:
            forward(student, tokens, groups)
        loss = matched.losses.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < 0.7 * values[0]


def test_a_teacher_in_training_mode_is_a_bug_that_is_named(
    student: Classifier, teacher: Classifier, tokens: Tokens
) -> None:
    objective = LayerObjective({"hidden": {}}, Shape.of(student.model), Shape.of(teacher.model))
    teacher.model.train()
    groups = grouped(tokens)
    with (
        matching(objective, student.model, tokens, groups, teacher, 0.0, 0),
        pytest.raises(AssertionError, match="training mode"),
    ):
        forward(student, tokens, groups)
    teacher.model.eval()


def test_rows_forwarded_in_other_groups_or_not_at_all_are_noticed(
    student: Classifier, teacher: Classifier, tokens: Tokens
) -> None:
    objective = LayerObjective({"alp": {}}, Shape.of(student.model), Shape.of(teacher.model))
    stored = vectors_of(objective, teacher)
    with (
        matching(objective, student.model, tokens, grouped(tokens, 64), stored, 0.0, 0),
        pytest.raises(AssertionError, match="other row groups"),
    ):
        forward(student, tokens, grouped(tokens, 128))
    with pytest.raises(AssertionError, match="before all rows were forwarded"):
        _ = Matched(RowGroups((torch.tensor([0]),))).losses


def test_a_saved_student_has_no_projection(
    student: Classifier, teacher: Classifier, tokens: Tokens, tmp_path: Path
) -> None:
    before = set(student.model.state_dict())
    objective = LayerObjective({"ckd": {}, "rail": {}}, Shape.of(student.model), Shape(3, 48, 2))
    stored = torch.randn(len(tokens), 3, 48, generator=torch.Generator().manual_seed(0))
    groups = grouped(tokens)
    with matching(objective, student.model, tokens, groups, stored, 0.0, 0) as matched:
        forward(student, tokens, groups)
    matched.losses.sum().backward()
    student.save(tmp_path / "student")
    saved = load_file(tmp_path / "student" / "model.safetensors")
    assert sum(p.numel() for p in objective.parameters()) == 32 * 48 + 48 + 3 * 48 * 32 + 3 * 48
    assert set(student.model.state_dict()) == before
    assert set(saved) == before


def test_models_that_tokenise_differently_cannot_be_compared_token_by_token(
    student: Classifier, teacher: Classifier
) -> None:
    check_same_tokens(student, teacher)
    with pytest.raises(ModelError, match="compare token by token; use pkd"):
        check_same_tokens(replace(student, max_length=16), teacher)


# ---- ALP's attention as metrics ----


def states(rows: int, layers: int, seed: int) -> States:
    return States(torch.randn(rows, layers, 4, generator=torch.Generator().manual_seed(seed)))


def test_alp_s_attention_is_a_metric_of_every_pair_of_layers() -> None:
    objective = LayerObjective({"alp": {"weight": 0.3}}, Shape(2, 4, 2), Shape(3, 4, 2))
    student, teacher = states(5, 2, 0), states(5, 3, 1)
    metrics = attention_weights(objective, student, teacher)
    dots = np.einsum("nmd,nld->nml", student.vectors, teacher.vectors) / 2  # √4
    expected = np.exp(dots) / np.exp(dots).sum(axis=-1, keepdims=True)
    assert list(metrics) == [f"attention/{j}/{layer}" for j in range(2) for layer in range(3)]
    for j in range(2):
        for layer in range(3):
            np.testing.assert_allclose(metrics[f"attention/{j}/{layer}"], expected[:, j, layer], rtol=1e-5)


def test_outside_its_bucket_alp_s_attention_is_zero_and_without_alp_there_is_none() -> None:
    student, teacher = states(5, 2, 0), states(5, 4, 1)
    shapes = (Shape(2, 4, 2), Shape(4, 4, 2))
    metrics = attention_weights(LayerObjective({"alp": {"buckets": "disjoint"}}, *shapes), student, teacher)
    zero = {name for name, values in metrics.items() if not values.any()}
    assert zero == {"attention/0/2", "attention/0/3", "attention/1/0", "attention/1/1"}
    assert attention_weights(LayerObjective({"pkd": {}}, *shapes), student, teacher) == {}


def test_means_over_passes_weigh_each_row_alike_and_start_over_when_taken() -> None:
    means = MatchedMeans()
    for values in ([1.0, 3.0], [8.0]):
        matched = Matched(RowGroups((torch.arange(len(values)),)))
        matched.add(torch.zeros(len(values)), {"x": torch.tensor(values)})
        means.add(matched)
    assert means.take() == {"x": 4.0}  # (1 + 3 + 8) / 3, not 5, the mean of the passes' means
    assert means.take() == {}
