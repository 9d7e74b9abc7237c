"""Dropout with fast random numbers is dropout: its rate, its scale, its gradient, its dependence on the seed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from augkd.models.dropout import Dropout, dropout, fast_dropout


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
