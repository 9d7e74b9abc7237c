"""What is read out of a model is what the model computes, in the order of the rows and with its gradients."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.tiny import LABELS, sentences
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from augkd.distill.objective.hidden import (
    Matched,
    attention_scores,
    check_same_tokens,
    layer_vectors,
    matching,
    pooled_layers,
    query_and_key,
    watched,
)
from augkd.distill.objective.layer_objective import LayerObjective, Needs, Shape, States
from augkd.errors import ModelError
from augkd.models.classifier import Classifier, Pair, from_layers, load_backbone, run
from augkd.models.tokens import Tokens

TEXTS: list[Pair] = [(text + " and more" * (place % 7), None) for place, (text, _) in enumerate(sentences()[:23])]
ALL = Needs((0, 1, 2), "cls", True, (0, 1, 2))


@pytest.fixture(scope="module")
def teacher(tiny_bert: Path) -> Classifier:
    """The tiny BERT with matrices five times as large, so that texts differ by more than rounding."""
    one = load_backbone(str(tiny_bert), LABELS, 32, seed=0, precision="float32")
    with torch.no_grad():
        for parameter in one.model.parameters():
            parameter.mul_(5 if parameter.dim() == 2 else 1)
    one.model.eval()
    return one


@pytest.fixture
def student(teacher: Classifier) -> Classifier:
    one = from_layers(teacher, [0, 2])
    with torch.no_grad():
        for parameter in one.model.parameters():
            parameter.mul_(1.1 if parameter.dim() == 2 else 1)
    one.model.eval()  # so that two forward passes agree
    return one


@pytest.fixture
def tokens(student: Classifier) -> Tokens:
    return student.tokens(TEXTS)


def forwarded(classifier: Classifier, tokens: Tokens, budget: int | None = 64) -> Tensor:
    return run(classifier.model, tokens, classifier.pad_id, "float32", Counter(), "test", None, budget)


def alone(classifier: Classifier, row: int) -> Any:
    """The model's own outputs for one text, unpadded."""
    inputs = classifier.tokens([TEXTS[row]]).padded(classifier.pad_id)
    return classifier.model(**inputs, output_hidden_states=True)


# ---- pooling ----


def test_cls_is_the_first_token_and_mean_leaves_padding_out() -> None:
    states = [torch.arange(24.0).reshape(2, 3, 4) + 100 * layer for layer in range(3)]
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    cls = pooled_layers(states, mask, (1, 0), "cls")
    assert cls.shape == (2, 2, 4)
    assert cls[1, 0].tolist() == [212, 213, 214, 215]  # row 1, layer 1
    assert cls[1, 1].tolist() == [112, 113, 114, 115]
    mean = pooled_layers(states, mask, (0,), "mean")
    assert mean[0, 0].tolist() == pytest.approx([104, 105, 106, 107])  # of tokens 0, 1, 2
    assert mean[1, 0].tolist() == pytest.approx([114, 115, 116, 117])  # of tokens 0, 1
    assert states[1][1].mean(dim=0).tolist() != pytest.approx(mean[1, 0].tolist())  # with padding it would be this


# ---- attention scores ----

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 60,
}
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "vocab_size": 60}


@pytest.mark.parametrize(
    "model",
    [
        lambda: BertForSequenceClassification(BertConfig(**SIZES)),
        lambda: RobertaForSequenceClassification(RobertaConfig(**SIZES)),
        lambda: ElectraForSequenceClassification(ElectraConfig(**SIZES)),
        lambda: DistilBertForSequenceClassification(DistilBertConfig(**DISTIL)),
    ],
    ids=["BERT", "RoBERTa", "ELECTRA", "DistilBERT"],
)
def test_the_softmax_of_the_scores_is_the_attention_the_model_reports(model: Any) -> None:
    torch.manual_seed(0)
    model = model().eval()
    model.set_attn_implementation("eager")  # the one that reports probabilities
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.dim() == 2 else 1)
    ids = torch.randint(5, 60, (3, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 2 + [0] * 5])
    found: list[States] = []
    with watched(model, Needs((), "cls", False, (0, 1)), found.append):
        outputs = model(input_ids=ids, attention_mask=mask, output_attentions=True)
    for scores, reported in zip(found[0].scores, outputs.attentions, strict=True):
        softmax = scores.masked_fill(mask[:, None, None, :] == 0, -torch.inf).softmax(dim=-1)
        assert (softmax - reported).abs().max() < 1e-6
        assert reported.std() > 0.02  # and it is no uniform attention that anything would match


@pytest.mark.parametrize(
    "model",
    [
        lambda: MPNetForSequenceClassification(MPNetConfig(**SIZES)),
        lambda: DebertaV2ForSequenceClassification(DebertaV2Config(**SIZES)),
    ],
    ids=["MPNet", "DeBERTa"],
)
def test_models_whose_scores_have_more_terms_than_q_times_k_are_refused(model: Any) -> None:
    with pytest.raises(ModelError, match=r"attention scores of .* are not known") as caught:
        query_and_key(model(), 0)
    assert "\n" not in str(caught.value)


def test_scores_of_one_head_are_q_times_k_over_the_root_of_the_head_s_width() -> None:
    query, key = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), torch.tensor([[[1.0, 1.0, 2.0, 2.0]]])
    scores = attention_scores(query, key, heads=2)
    assert scores.flatten().tolist() == pytest.approx([3 / 2**0.5, 14 / 2**0.5])


# ---- watching ----


def test_a_watched_model_shows_what_it_computes_and_answers_as_before(teacher: Classifier) -> None:
    found: list[States] = []
    inputs = teacher.tokens(TEXTS[:3]).padded(teacher.pad_id)
    plain = teacher.model(**inputs, output_hidden_states=True)
    with watched(teacher.model, ALL, found.append):
        logits = teacher.model(**inputs).logits
    (states,) = found
    assert torch.equal(logits, plain.logits)
    assert all(torch.equal(a, b) for a, b in zip(states.tokens, plain.hidden_states, strict=True))
    assert states.vectors is not None
    assert torch.equal(states.vectors[:, 1], plain.hidden_states[2][:, 0])
    assert [one.shape for one in states.scores] == [(3, 2, *inputs["input_ids"].shape[1:] * 2)] * 3


def hooks(model: Any) -> int:
    return sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules())


def test_no_hook_stays_on_a_model_even_after_an_error(teacher: Classifier) -> None:
    before = hooks(teacher.model)
    with watched(teacher.model, ALL, lambda _: None):
        assert hooks(teacher.model) > before
    with pytest.raises(RuntimeError, match="stop"), watched(teacher.model, ALL, lambda _: None):
        raise RuntimeError("stop")
    assert hooks(teacher.model) == before


def test_layers_nobody_asked_for_are_not_read(teacher: Classifier) -> None:
    found: list[States] = []
    with watched(teacher.model, Needs((1,), "cls", False, (2,)), found.append):
        teacher.model(**teacher.tokens(TEXTS[:2]).padded(0))
    assert found[0].vectors is not None
    assert found[0].vectors.shape == (2, 1, 32)
    assert found[0].tokens == ()
    assert [one.numel() > 0 for one in found[0].scores] == [False, False, True]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_layer_vectors_come_in_the_order_of_the_texts(teacher: Classifier, pooling: Any) -> None:
    texts = TEXTS * 8  # more than one group of rows
    assert len(list(teacher.tokens(texts).batches(1024))) > 1
    teacher.model.train()
    vectors = layer_vectors(teacher, texts, Needs((0, 2), pooling, False, ()))
    assert teacher.model.training
    teacher.model.eval()
    assert vectors.shape == (len(texts), 2, 32)
    for row in (0, 1, 6, 22):
        states = alone(teacher, row).hidden_states
        for place, layer in enumerate((0, 2)):
            expected = states[layer + 1][0, 0] if pooling == "cls" else states[layer + 1][0].mean(dim=0)
            assert vectors[row, place].tolist() == pytest.approx(expected.tolist(), abs=1e-5)


# ---- matching ----


@pytest.fixture(params=[32, 64, 100_000], ids=["many groups", "some groups", "one group"])
def budget(request: Any) -> int:
    return int(request.param)


def vectors_of(objective: LayerObjective, teacher: Classifier) -> Tensor:
    return layer_vectors(teacher, TEXTS, objective.needs())


def test_rows_with_stored_vectors_are_those_of_each_text_alone(
    student: Classifier, teacher: Classifier, tokens: Tokens, budget: int
) -> None:
    objective = LayerObjective({"alp": {}, "pkd": {"weight": 5.0}}, Shape.of(student.model), Shape.of(teacher.model))
    stored = vectors_of(objective, teacher)
    with matching(objective, student.model, tokens, stored, 0.0, 0, budget) as matched:
        logits = forwarded(student, tokens, budget)
    assert torch.equal(logits, forwarded(student, tokens, budget))
    for row in (0, 5, 6, 22):
        states = alone(student, row).hidden_states
        mine = States(torch.stack([state[:, 0] for state in states[1:]], dim=1))
        expected, _ = objective(mine, States(stored[[row]]), 0.0)
        assert matched.rows[row].item() == pytest.approx(expected.item(), rel=1e-4)
    assert matched.metrics["structure/alp_perplexity_1"] == pytest.approx(matched_mean(objective, student, stored))


def matched_mean(objective: LayerObjective, student: Classifier, stored: Tensor) -> float:
    mine = States(layer_vectors(student, TEXTS, objective.student_needs()))
    return float(objective(mine, States(stored), 0.0)[1]["structure/alp_perplexity_1"].mean())


@pytest.mark.parametrize("losses", [{"hidden": {}, "embedding": {}}, {"attention": {}}, {"distilbert_cosine": {}}])
def test_rows_with_a_live_teacher_do_not_depend_on_how_they_are_grouped(
    student: Classifier, teacher: Classifier, tokens: Tokens, losses: dict[str, Any], budget: int
) -> None:
    objective = LayerObjective(losses, Shape.of(student.model), Shape.of(teacher.model))
    with matching(objective, student.model, tokens, teacher, 0.0, 0, budget) as matched:
        forwarded(student, tokens, budget)
    some, singly = range(0, len(tokens), 3), []
    for row in some:
        one = tokens.take(torch.tensor([row]))
        with matching(objective, student.model, one, teacher, 0.0, 0) as single:
            forwarded(student, one)
        singly.append(single.rows.item())
    assert matched.rows[list(some)].tolist() == pytest.approx(singly, rel=1e-4)
    assert len(set(singly)) == len(some)


def test_a_live_teacher_s_vectors_are_the_stored_ones(student: Classifier, teacher: Classifier, tokens: Tokens) -> None:
    objective = LayerObjective({"alp": {}}, Shape.of(student.model), Shape.of(teacher.model))
    rows = []
    for source in (vectors_of(objective, teacher), teacher):
        with matching(objective, student.model, tokens, source, 0.0, 0, 64) as matched:
            forwarded(student, tokens)
        rows.append(matched.rows.tolist())
    assert rows[0] == pytest.approx(rows[1], rel=1e-4)


def test_gradients_reach_the_student_and_the_projection_and_not_the_teacher(
    student: Classifier, teacher: Classifier, tokens: Tokens
) -> None:
    objective = LayerObjective({"ckd": {}, "hidden": {}, "attention": {}}, Shape.of(student.model), Shape(3, 32, 2))
    with matching(objective, student.model, tokens, teacher, 0.0, 0, 64) as matched:
        forwarded(student, tokens)
    matched.rows.mean().backward()
    embeddings = student.model.bert.embeddings.word_embeddings.weight.grad
    assert embeddings.abs().sum() > 0
    assert student.model.bert.encoder.layer[1].output.dense.weight.grad.abs().sum() > 0
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in objective.parameters())
    assert all(one.grad is None for one in teacher.model.parameters())


def test_descending_a_layer_loss_lowers_it(student: Classifier, teacher: Classifier, tokens: Tokens) -> None:
    objective = LayerObjective({"alp": {"detached": True}}, Shape.of(student.model), Shape.of(teacher.model))
    stored = vectors_of(objective, teacher)
    optimiser = torch.optim.Adam([*student.model.parameters(), *objective.parameters()], lr=1e-3)
    values = []
    for _ in range(12):
        with matching(objective, student.model, tokens, stored, 0.0, 0) as matched:
            forwarded(student, tokens, None)
        loss = matched.rows.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < 0.7 * values[0]


def test_a_teacher_in_training_mode_is_refused(student: Classifier, teacher: Classifier, tokens: Tokens) -> None:
    objective = LayerObjective({"hidden": {}}, Shape.of(student.model), Shape.of(teacher.model))
    teacher.model.train()
    with (
        matching(objective, student.model, tokens, teacher, 0.0, 0, 64),
        pytest.raises(AssertionError, match="training mode"),
    ):
        forwarded(student, tokens)
    teacher.model.eval()


def test_rows_forwarded_under_another_budget_or_not_at_all_are_noticed(
    student: Classifier, teacher: Classifier, tokens: Tokens
) -> None:
    objective = LayerObjective({"alp": {}}, Shape.of(student.model), Shape.of(teacher.model))
    stored = vectors_of(objective, teacher)
    with (
        matching(objective, student.model, tokens, stored, 0.0, 0, 64),
        pytest.raises(AssertionError, match="another budget"),
    ):
        forwarded(student, tokens, 128)
    with pytest.raises(AssertionError, match="before all of them"):
        _ = Matched([torch.tensor([0])]).rows


def test_a_saved_student_has_no_projection(
    student: Classifier, teacher: Classifier, tokens: Tokens, tmp_path: Path
) -> None:
    before = set(student.model.state_dict())
    objective = LayerObjective({"ckd": {}, "rail": {}}, Shape.of(student.model), Shape(3, 48, 2))
    stored = torch.randn(len(tokens), 3, 48, generator=torch.Generator().manual_seed(0))
    with matching(objective, student.model, tokens, stored, 0.0, 0) as matched:
        forwarded(student, tokens, None)
    matched.rows.sum().backward()
    student.save(tmp_path / "student")
    saved = load_file(tmp_path / "student" / "model.safetensors")
    assert sum(one.numel() for one in objective.parameters()) == 32 * 48 + 48 + 3 * 48 * 32 + 3 * 48
    assert set(student.model.state_dict()) == before
    assert set(saved) == before


def test_models_that_cut_texts_differently_cannot_be_compared_token_by_token(
    student: Classifier, teacher: Classifier
) -> None:
    check_same_tokens(student, teacher)
    with pytest.raises(ModelError, match="compare token by token; use pkd"):
        check_same_tokens(replace(student, max_length=16), teacher)


def test_mean_pooling_in_bf16_keeps_what_the_model_computed(teacher: Classifier) -> None:
    found: list[States] = []
    inputs = teacher.tokens(TEXTS[:4]).padded(0)
    needs = Needs((2,), "mean", True, ())
    with torch.autocast("cpu", torch.bfloat16), watched(teacher.model, needs, found.append), torch.no_grad():
        teacher.model(**inputs)
    states, mask = found[0].tokens[3].float().double().numpy(), inputs["attention_mask"].double().numpy()
    expected = np.einsum("nt,ntd->nd", mask / mask.sum(1, keepdims=True), states)
    assert found[0].vectors is not None
    assert np.abs(found[0].vectors[:, 0].numpy() - expected).max() < 1e-5  # a mean taken in bf16 is off by 1e-2
