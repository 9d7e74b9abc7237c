"""Norms that are rounded to autocast's type: where, when, and that the values are those of the plain norm."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from augkd.models.norms import rounded_norms


def test_a_norm_is_rounded_under_autocast_in_train_mode_and_nowhere_else() -> None:
    model = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)).train()
    values = torch.randn(3, 8)
    plain = model[0](values)
    with rounded_norms(model):
        assert torch.equal(model[0](values), plain)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model[0](values)
            assert rounded.dtype == torch.bfloat16
            assert torch.equal(rounded, plain.bfloat16())
            model.eval()
            assert torch.equal(model[0](values), plain)
            model.train()
    with torch.autocast("cpu", torch.bfloat16):
        assert model[0](values).dtype == torch.float32


def test_a_norm_is_rounded_in_eval_mode_where_that_is_asked_for() -> None:
    norm, values = nn.LayerNorm(8).eval(), torch.randn(3, 8)
    with rounded_norms(norm, evaluating=True), torch.autocast("cpu", torch.bfloat16):
        assert norm(values).dtype == torch.bfloat16
        assert norm.train()(values).dtype == torch.float32


def test_residuals_stay_rounded_and_their_gradients_are_close() -> None:
    torch.manual_seed(0)
    norms, inner = nn.ModuleList([nn.LayerNorm(64), nn.LayerNorm(64)]).train(), nn.Linear(64, 64)
    model, values = nn.ModuleList([norms, inner]), torch.randn(32, 64)

    def gradient() -> torch.Tensor:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            first = norms[0](values)
            result = norms[1](first + inner(first))
        (result.float() * values).sum().backward()
        assert inner.weight.grad is not None
        return inner.weight.grad

    plain = gradient()
    with rounded_norms(model):
        rounded = gradient()
    assert not torch.equal(plain, rounded)
    assert float((plain - rounded).norm() / plain.norm()) < 0.02  # bfloat16 keeps 8 bits: 0.4 % of a value


def test_a_subclass_and_other_norms_are_left_alone() -> None:
    class Own(nn.LayerNorm):
        pass

    model = nn.Sequential(Own(4), nn.GroupNorm(1, 4)).train()
    with rounded_norms(model), torch.autocast("cpu", torch.bfloat16):
        assert model(torch.randn(2, 4)).dtype == torch.float32


def test_the_hooks_are_gone_after_an_error_too() -> None:
    model = nn.Sequential(nn.LayerNorm(4))
    with pytest.raises(RuntimeError), rounded_norms(model):
        raise RuntimeError
    assert not model[0]._forward_hooks
