"""Passes without padding give what padded ones give, with their gradients, and forward fewer tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from augkd.candidates.generator.generator import replace_tokens
from augkd.distill.objective.layer_states import Needs, States, watched
from augkd.models.attention import use_short_text_attention
from augkd.models.classifier import load_backbone
from augkd.models.masked_lm import load_masked_lm
from augkd.models.packing import Packing, packed
from augkd.models.tokens import Tokens

KINDS = ("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")
LENGTHS = [3, 3, 4, 5, 5, 6, 7, 8, 9, 11, 24, 31]


def tiny(kind: str) -> Any:
    torch.manual_seed(0)
    names = {
        "vocab_size": 60,
        "pad_token_id": 1,
        "hidden_size": 32,
        "dim": 32,
        "num_hidden_layers": 2,
        "n_layers": 2,
        "num_attention_heads": 4,
        "n_heads": 4,
        "intermediate_size": 48,
        "hidden_dim": 48,
        "embedding_size": 32,
        "max_position_embeddings": 64,
        "type_vocab_size": 2 if kind == "bert" else 1,
    }
    known = AutoConfig.for_model(kind).to_dict()
    config = AutoConfig.for_model(kind, **{name: value for name, value in names.items() if name in known}, num_labels=3)
    for rate in (
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "dropout",
        "attention_dropout",
        "seq_classif_dropout",
    ):
        if hasattr(config, rate):
            setattr(config, rate, 0.0)
    model = AutoModelForSequenceClassification.from_config(config)
    use_short_text_attention(model)
    return model


def inputs() -> dict[str, Tensor]:
    torch.manual_seed(1)
    rows = Tokens.of([torch.randint(2, 60, (length,)).tolist() for length in LENGTHS])
    padded = rows.padded(1)
    return {"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"]}


def gradients(model: Any, loss: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def spied(module: nn.Module) -> list[tuple[int, ...]]:
    """The shapes of what a module is given from now on."""
    shapes: list[tuple[int, ...]] = []
    module.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape)))
    return shapes


def first_linear(model: Any) -> nn.Module:
    body = model.base_model.transformer if model.config.model_type == "distilbert" else model.base_model.encoder
    return next(module for module in body.modules() if isinstance(module, nn.Linear))


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_are_those_of_padded_texts(kind: str) -> None:
    model, texts = tiny(kind).train(), inputs()
    weight = torch.randn(len(LENGTHS), 3)

    plain = model(**texts).logits
    shapes = spied(first_linear(model))
    with packed(model):
        tight = model(**texts).logits
        with torch.no_grad():
            torch.testing.assert_close(model(**texts).logits, plain, atol=2e-6, rtol=1e-5)

    assert shapes == [(1, 128, 32)] * 2, "12 texts of up to 31 tokens are 116 tokens"
    torch.testing.assert_close(tight, plain, atol=2e-6, rtol=1e-5)
    for ours, theirs in zip(
        gradients(model, (tight * weight).sum()), gradients(model, (plain * weight).sum()), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-4)


def test_afterwards_the_model_is_as_before() -> None:
    model, texts = tiny("bert").eval(), inputs()
    before = model(**texts).logits
    with packed(model):
        model(**texts)
    shapes = spied(first_linear(model))

    assert torch.equal(model(**texts).logits, before)
    assert shapes == [(12, 31, 32)]


@pytest.mark.parametrize("lengths", [[20, 20, 20], [20, 19, 18]])
def test_little_padding_stays(lengths: list[int]) -> None:
    model = tiny("bert").eval()
    texts = {name: value[:, :20] for name, value in Tokens.of([[5] * length for length in lengths]).padded(1).items()}
    expected = model(**texts).logits
    shapes = spied(first_linear(model))
    with packed(model):
        assert torch.equal(model(**texts).logits, expected)
    assert shapes == [(3, 20, 32)]


@pytest.mark.parametrize("kind", ["albert", "mpnet"])
def test_other_architectures_are_padded_as_ever(kind: str) -> None:
    model, texts = tiny(kind).eval(), inputs()
    expected = model(**texts).logits
    with packed(model):
        assert torch.equal(model(**texts).logits, expected)


def test_another_attention_is_padded_as_ever() -> None:
    model, texts = tiny("bert").eval(), inputs()
    model.set_attn_implementation("eager")
    shapes = spied(first_linear(model))
    with packed(model):
        model(**texts)
    assert shapes[0][0] == len(LENGTHS)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_watched_states_are_those_of_padded_texts(kind: str, pooling: Any) -> None:
    model, texts = tiny(kind).train(), inputs()
    needs = Needs(layers=(0, 1), pooling=pooling, tokens=True, attention=())
    seen: list[States] = []
    with watched(model, needs, seen.append):
        model(**texts)
        with packed(model):
            model(**texts)
    plain, tight = seen

    assert plain.vectors is not None
    assert tight.vectors is not None
    torch.testing.assert_close(tight.vectors, plain.vectors, atol=2e-6, rtol=1e-5)
    tokens = texts["attention_mask"].bool()
    assert len(tight.tokens) == 3
    for ours, theirs in zip(tight.tokens, plain.tokens, strict=True):
        torch.testing.assert_close(ours[tokens], theirs[tokens], atol=2e-6, rtol=1e-5)
    for ours, theirs in zip(
        gradients(model, (tight.vectors**3).sum()), gradients(model, (plain.vectors**3).sum()), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_padding_takes_back_only_the_gradients_of_tokens() -> None:
    seen = torch.tensor([[True, True, False, False], [True, False, False, False], [True, True, True, True]])
    packing = Packing(seen[:, None, None, :])
    states = torch.randn(3, 4, 2, requires_grad=True)

    row = packing.pack(states)
    assert row.shape == (1, 64, 2)
    assert torch.equal(row[0, :7], states[seen])
    assert row[0, 7:].abs().max() == 0
    back = packing.pad(row)
    assert torch.equal(back[seen], states[seen])
    (gradient,) = torch.autograd.grad(back.sum(), states)
    assert torch.equal(gradient, seen[..., None].expand_as(states).float())


def test_a_classifier_forwards_without_padding_only_when_told(tiny_bert: Path) -> None:
    student = load_backbone(str(tiny_bert), ("a", "b"), 64, seed=0, precision="float32")
    tokens = student.tokens([("a", None)] * 40 + [("a b c d e f g h i j k l m n o p q r s t u v", None)])
    shapes = spied(first_linear(student.model))
    student.model.eval()
    with torch.no_grad():
        plain = student.logits(tokens, "test")
        tight = student.logits(tokens, "test", without_padding=True)

    assert shapes[0][0] == 41
    assert shapes[1][0] == 1
    torch.testing.assert_close(tight, plain, atol=2e-6, rtol=1e-5)


def test_a_masked_language_model_fills_masks_without_padding(tiny_bert: Path) -> None:
    lm = load_masked_lm(str(tiny_bert), precision="float32")
    texts = load_backbone(str(tiny_bert), ("a", "b"), 64, seed=0).tokens([("a b c", None)] * 40 + [("a b " * 12, None)])
    mask = int(lm.tokenizer.mask_token_id)
    places = torch.tensor([1, 8, *range(len(texts.ids) - 20, len(texts.ids) - 1, 3)])
    texts = replace_tokens(texts, places, torch.full_like(places, mask))
    padded = texts.padded(int(lm.tokenizer.pad_token_id))
    seen = padded["input_ids"] == mask
    expected = lm.model(**padded).logits[seen]
    shapes = spied(first_linear(lm.model))

    filled = lm.logits(texts, places, "test")
    weight = torch.randn_like(filled)
    torch.testing.assert_close(filled, expected, atol=2e-6, rtol=1e-5)
    assert [shape[0] for shape in shapes] == [1]
    for ours, theirs in zip(
        gradients(lm.model, (filled * weight).sum()), gradients(lm.model, (expected * weight).sum()), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
