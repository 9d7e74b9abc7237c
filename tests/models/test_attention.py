"""Attention by products gives what SDPA gives, with its gradients; it is used where gradients are needed on a CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2ForSequenceClassification
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from augkd.models import attention
from augkd.models.attention import products, use_short_text_attention


def bert() -> Any:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, num_labels=3
    )
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    return BertForSequenceClassification(config)


@pytest.mark.parametrize("tokens", [1, 5, 15, 16, 40])
@pytest.mark.parametrize("masked", ["no", "bool", "float"])
def test_products_are_scaled_dot_product_attention(tokens: int, masked: str) -> None:
    torch.manual_seed(tokens)
    query, key, value = (torch.randn(2, 3, tokens, 8, requires_grad=True) for _ in range(3))
    seen = torch.ones(2, 1, tokens, tokens, dtype=torch.bool)
    seen[1, ..., tokens - tokens // 2 :] = False
    mask: Tensor | None = {"no": None, "bool": seen, "float": torch.zeros(seen.shape).masked_fill(~seen, -1e30)}[masked]

    ours = products(query * 8**-0.5, key, value, mask, 0.0)
    theirs = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    torch.testing.assert_close(ours, theirs)
    weight = torch.randn_like(ours)
    for mine, other in zip(
        torch.autograd.grad((ours * weight).sum(), (query, key, value)),
        torch.autograd.grad((theirs * weight).sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("tokens", [1, 12, 16, 37])
@pytest.mark.parametrize("masked", ["no", "bool", "float"])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_without_gradients_sdpa_sees_a_multiple_of_16_keys_in_bf16_and_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, tokens: int, masked: str, kind: torch.dtype
) -> None:
    seen: list[int] = []

    def spied(module: nn.Module, query: Tensor, key: Tensor, *given: Any, **options: Any) -> Any:
        seen.append(key.shape[2])
        return sdpa_attention_forward(module, query, key, *given, **options)

    monkeypatch.setattr(attention, "sdpa_attention_forward", spied)
    torch.manual_seed(tokens)
    query, key, value = (torch.randn(2, 3, tokens, 8, dtype=kind) for _ in range(3))
    visible = torch.ones(2, 1, tokens, tokens, dtype=torch.bool)
    visible[1, ..., tokens - tokens // 2 :] = False
    additive = torch.zeros(visible.shape, dtype=kind).masked_fill(~visible, -1e30)
    mask: Tensor | None = {"no": None, "bool": visible, "float": additive}[masked]

    ours, _ = attention.attention(nn.Module(), query, key, value, mask, is_causal=False)
    theirs = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    if kind == torch.float32:
        assert torch.equal(ours, theirs.transpose(1, 2))
        assert seen == [tokens]
    else:
        torch.testing.assert_close(ours, theirs.transpose(1, 2), atol=2e-2, rtol=2e-2)
        assert seen == [-(-tokens // 16) * 16]


@pytest.mark.parametrize("tokens", [6, 20])
def test_a_models_loss_and_gradients_are_those_of_sdpa(tokens: int) -> None:
    plain, changed = bert().train(), bert().train()
    use_short_text_attention(changed)
    ids, mask = torch.randint(1, 50, (4, tokens)), torch.ones(4, tokens, dtype=torch.long)
    mask[2, -3:] = 0
    for model in (plain, changed):
        model(ids, mask, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    for (name, one), other in zip(plain.named_parameters(), changed.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_products_are_used_for_gradients_and_sdpa_without(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    monkeypatch.setattr(attention, "products", lambda *given: called.append(1) or products(*given))
    model = bert().train()
    use_short_text_attention(model)
    ids = torch.randint(1, 50, (4, 6))
    with torch.no_grad():
        model(ids)
    assert called == []
    model(ids)
    assert called == [1, 1]  # one in each layer


def test_a_decoder_still_looks_back_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "products", None)  # would fail
    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, num_labels=2, pad_token_id=0)
    plain = GPT2ForSequenceClassification(config).eval()
    ids = torch.randint(1, 50, (3, 7))
    expected = plain(ids).logits
    use_short_text_attention(plain)
    torch.testing.assert_close(plain(ids).logits, expected)


def test_a_saved_model_does_not_name_the_attention(tmp_path: Path) -> None:
    model = bert()
    use_short_text_attention(model)
    model.save_pretrained(tmp_path)
    assert "augkd" not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
    assert BertForSequenceClassification.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


def test_a_chosen_implementation_is_kept() -> None:
    model = bert()
    model.set_attn_implementation("eager")
    use_short_text_attention(model)
    assert model.config._attn_implementation == "eager"
