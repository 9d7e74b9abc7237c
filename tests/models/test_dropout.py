"""Dropout with fast random numbers is dropout: its rate, its scale, its gradient, its dependence on the seed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from augkd.models.dropout import Dropout, dropout, dropout_of, fast_dropout


def test_the_share_dropped_is_the_rate_and_the_mean_stays() -> None:
    torch.manual_seed(0)
    dropped = dropout(torch.ones(1000, 1000), 0.1)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.1, abs=0.001)  # 3 standard errors
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.001)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.9], rel=1e-4)


def test_values_are_dropped_independently_of_their_neighbours() -> None:
    torch.manual_seed(0)
    kept = (dropout(torch.ones(1 << 20), 0.5) > 0).float() - 0.5
    for distance in (1, 2, 3, 4, 8, 384):
        assert abs(float((kept[distance:] * kept[:-distance]).mean()) * 4) < 0.004  # 4 standard errors


def test_the_gradient_is_that_of_the_mask_in_bfloat16_too() -> None:
    for kind in (torch.float32, torch.bfloat16):
        values = torch.full((64, 3), 2.0, dtype=kind, requires_grad=True)
        dropped = dropout(values, 0.3)
        dropped.sum().backward()
        assert values.grad is not None
        torch.testing.assert_close(values.grad * 2, dropped)


def test_the_state_of_torchs_generator_decides_the_mask() -> None:
    state = torch.get_rng_state()
    first, second = dropout(torch.ones(101), 0.5), dropout(torch.ones(101), 0.5)
    torch.set_rng_state(state)
    assert torch.equal(dropout(torch.ones(101), 0.5), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("rate", "kept"), [(0.0, 1.0), (1.0, 0.0)])
def test_rates_of_nothing_and_everything(rate: float, kept: float) -> None:
    assert dropout(torch.ones(7), rate).tolist() == [kept] * 7


def test_a_model_has_its_own_dropout_back_afterwards_and_drops_in_train_mode_only() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.25)).train()
    names = list(model.state_dict())
    with fast_dropout(model):
        assert type(model[1]) is Dropout
        assert model[1].p == 0.25
        assert model[1].training
        assert list(model.state_dict()) == names
        model.eval()
        assert model[1](torch.ones(5)).tolist() == [1.0] * 5
    assert type(model[1]) is nn.Dropout
    assert not model[1].training


def test_a_rate_is_that_of_every_kind_of_dropout_until_the_model_has_its_own_again() -> None:
    lstm = nn.LSTM(4, 4, num_layers=2, dropout=0.3)
    attention = nn.MultiheadAttention(4, 2, dropout=0.2)
    model = nn.ModuleDict({"first": nn.Dropout(0.1), "lstm": lstm, "attention": attention, "last": Dropout(0.4)})

    def rates() -> list[object]:
        return [model["first"].p, lstm.dropout, attention.dropout, model["last"].p]

    with dropout_of(model, 0.0):
        assert rates() == [0, 0, 0, 0]
        with fast_dropout(model):  # takes over the rate
            assert model["first"].p == 0
    with dropout_of(model, None):
        assert rates() == [0.1, 0.3, 0.2, 0.4]

    def stopped() -> None:
        with dropout_of(model, 0.5):
            assert rates() == [0.5, 0.5, 0.5, 0.5]
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stopped()
    assert rates() == [0.1, 0.3, 0.2, 0.4]


@pytest.mark.parametrize("kind", ["bert", "modernbert", "deberta-v2", "distilbert", "bart", "electra"])
def test_without_dropout_train_mode_computes_what_eval_mode_does(kind: str) -> None:
    sizes = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 50,
        "num_hidden_layers": 2,
    }
    if kind == "distilbert":
        sizes = {"dim": 16, "n_heads": 2, "hidden_dim": 32, "vocab_size": 50, "n_layers": 2}
    if kind == "bart":
        sides = ("encoder", "decoder")
        sizes = {"d_model": 16, "vocab_size": 50} | {f"{side}_ffn_dim": 32 for side in sides}
        sizes |= {f"{side}_layers": 2 for side in sides}
        sizes |= {f"{side}_attention_heads": 2 for side in sides}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, pad_token_id=0, eos_token_id=2, bos_token_id=1, **sizes)
    model = AutoModelForSequenceClassification.from_config(config)
    for name in ("attention_dropout", "mlp_dropout", "classifier_dropout"):  # ModernBERT's are 0
        for module in model.modules():
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.1)
    ids = torch.randint(3, 50, (3, 7))
    ids[:, -1] = 2  # BART wants the end
    expected = model.eval()(input_ids=ids).logits
    model.train()
    with dropout_of(model, 0.0):
        torch.testing.assert_close(model(input_ids=ids).logits, expected)
