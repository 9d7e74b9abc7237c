"""The states read from a model are what the model computes, in the order of the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import LABELS, sentences
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

from augkd.distill.objective.layer_states import (
    Needs,
    States,
    attention_scores,
    pooled_layers,
    query_and_key,
    token_layer_vectors,
    watched,
)
from augkd.errors import ModelError
from augkd.models.classifier import Classifier, Pair, load_backbone
from augkd.models.tokens import RowGroups

TEXTS: list[Pair] = [(text + " and more" * (number % 7), None) for number, (text, _) in enumerate(sentences()[:23])]
ALL = Needs((0, 1, 2), "cls", True, (0, 1, 2))


@pytest.fixture(scope="module")
def teacher(tiny_bert: Path) -> Classifier:
    """The tiny BERT with matrices five times as large, so that texts differ by more than rounding."""
    classifier = load_backbone(str(tiny_bert), LABELS, 32, seed=0, precision="float32")
    with torch.no_grad():
        for parameter in classifier.model.parameters():
            parameter.mul_(5 if parameter.dim() == 2 else 1)
    classifier.model.eval()
    return classifier


# ---- pooling ----


def test_cls_is_the_first_token_and_mean_ignores_padding() -> None:
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
    passes: list[States] = []
    with watched(model, Needs((), "cls", False, (0, 1)), passes.append):
        outputs = model(input_ids=ids, attention_mask=mask, output_attentions=True)
    for scores, reported in zip(passes[0].scores, outputs.attentions, strict=True):
        softmax = scores.masked_fill(mask[:, None, None, :] == 0, -torch.inf).softmax(dim=-1)
        assert (softmax - reported).abs().max() < 1e-6
        assert reported.std() > 0.02  # not a uniform attention, which anything would match


@pytest.mark.parametrize(
    "model",
    [
        lambda: MPNetForSequenceClassification(MPNetConfig(**SIZES)),
        lambda: DebertaV2ForSequenceClassification(DebertaV2Config(**SIZES)),
    ],
    ids=["MPNet", "DeBERTa"],
)
def test_models_whose_scores_have_more_terms_than_q_times_k_are_rejected(model: Any) -> None:
    with pytest.raises(ModelError, match=r"attention scores of .* are not supported") as caught:
        query_and_key(model(), 0)
    assert "\n" not in str(caught.value)


def test_scores_of_one_head_are_q_times_k_over_the_root_of_the_head_s_width() -> None:
    query, key = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), torch.tensor([[[1.0, 1.0, 2.0, 2.0]]])
    scores = attention_scores(query, key, heads=2)
    assert scores.flatten().tolist() == pytest.approx([3 / 2**0.5, 14 / 2**0.5])


# ---- watching ----


def test_watching_a_model_reads_its_states_and_leaves_its_outputs_unchanged(teacher: Classifier) -> None:
    passes: list[States] = []
    inputs = teacher.tokens(TEXTS[:3]).padded(teacher.pad_id)
    plain = teacher.model(**inputs, output_hidden_states=True)
    with watched(teacher.model, ALL, passes.append):
        logits = teacher.model(**inputs).logits
    (states,) = passes
    assert torch.equal(logits, plain.logits)
    assert all(torch.equal(a, b) for a, b in zip(states.tokens, plain.hidden_states, strict=True))
    assert states.vectors is not None
    assert torch.equal(states.vectors[:, 1], plain.hidden_states[2][:, 0])
    assert [scores.shape for scores in states.scores] == [(3, 2, *inputs["input_ids"].shape[1:] * 2)] * 3


def hook_count(model: Any) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_no_hook_remains_on_a_model_even_after_an_error(teacher: Classifier) -> None:
    before = hook_count(teacher.model)
    with watched(teacher.model, ALL, lambda _: None):
        assert hook_count(teacher.model) > before
    with pytest.raises(RuntimeError, match="stop"), watched(teacher.model, ALL, lambda _: None):
        raise RuntimeError("stop")
    assert hook_count(teacher.model) == before


def test_layers_that_are_not_needed_are_not_read(teacher: Classifier) -> None:
    passes: list[States] = []
    with watched(teacher.model, Needs((1,), "cls", False, (2,)), passes.append):
        teacher.model(**teacher.tokens(TEXTS[:2]).padded(0))
    (states,) = passes
    assert states.vectors is not None
    assert states.vectors.shape == (2, 1, 32)
    assert states.tokens == ()
    assert [scores.numel() > 0 for scores in states.scores] == [False, False, True]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_layer_vectors_come_in_the_order_of_the_texts(teacher: Classifier, pooling: Any) -> None:
    texts = TEXTS * 8  # more than one group of rows
    assert len(RowGroups.of(teacher.tokens(texts), 1024)) > 1
    teacher.model.train()
    vectors = token_layer_vectors(teacher, teacher.tokens(texts), Needs((0, 2), pooling, False, ()))
    assert teacher.model.training
    teacher.model.eval()
    assert vectors.shape == (len(texts), 2, 32)
    for row in (0, 1, 6, 22):
        inputs = teacher.tokens([texts[row]]).padded(teacher.pad_id)
        states = teacher.model(**inputs, output_hidden_states=True).hidden_states
        for position, layer in enumerate((0, 2)):
            own = states[layer + 1][0, : int(inputs["attention_mask"].sum())]
            expected = own[0] if pooling == "cls" else own.mean(dim=0)
            assert vectors[row, position].tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_mean_pooling_in_bf16_keeps_what_the_model_computed(teacher: Classifier) -> None:
    passes: list[States] = []
    inputs = teacher.tokens(TEXTS[:4]).padded(0)
    needs = Needs((2,), "mean", True, ())
    with torch.autocast("cpu", torch.bfloat16), watched(teacher.model, needs, passes.append), torch.no_grad():
        teacher.model(**inputs)
    (states,) = passes
    last, mask = states.tokens[3].float().double().numpy(), inputs["attention_mask"].double().numpy()
    expected = np.einsum("nt,ntd->nd", mask / mask.sum(1, keepdims=True), last)
    assert states.vectors is not None
    assert np.abs(states.vectors[:, 0].numpy() - expected).max() < 1e-5  # a mean computed in bf16 is off by 1e-2
