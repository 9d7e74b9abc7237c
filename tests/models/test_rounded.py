"""Weights rounded once: the same products, and the model's own parameters back afterwards."""

import pytest
import torch
from torch import Tensor, nn

from augkd.models.rounded import RoundedWeights


class Half(nn.Linear):
    """A linear layer with a forward pass of its own."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) / 2


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.LayerNorm(40), Half(40, 24), nn.Linear(24, 5, bias=False))


def outputs(model: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
    rows = rows.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        result = model(rows)
    result.float().pow(2).sum().backward()
    assert rows.grad is not None
    return result.detach(), rows.grad


def test_outputs_and_gradients_are_those_of_weights_rounded_in_each_pass(model: nn.Sequential) -> None:
    model.requires_grad_(False)
    rows = torch.randn(7, 24)
    expected = outputs(model, rows)
    weights = RoundedWeights(model, "bfloat16")
    with weights.used():
        assert [value.dtype for value in model[0].parameters()] == [torch.bfloat16] * 2
        assert {value.dtype for value in (*model[1].parameters(), *model[2].parameters())} == {torch.float32}
        found = outputs(model, rows)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_the_model_has_its_own_parameters_again_even_after_an_error(model: nn.Sequential) -> None:
    own = dict(model.named_parameters())
    with pytest.raises(ValueError, match="inside"), RoundedWeights(model, "bfloat16").used():
        raise ValueError("inside")
    after = dict(model.named_parameters())
    assert list(after) == list(own)
    assert all(after[name] is value for name, value in own.items())


def test_weights_are_those_of_the_time_they_were_rounded(model: nn.Sequential) -> None:
    before, rows = RoundedWeights(model, "bfloat16"), torch.randn(7, 24)
    expected = outputs(model, rows)[0]
    with torch.no_grad():
        model[0].weight.add_(1)
    with before.used():
        assert torch.equal(outputs(model, rows)[0], expected)
    assert not torch.equal(outputs(model, rows)[0], expected)


def test_nothing_is_rounded_where_products_are_in_float32(model: nn.Sequential) -> None:
    with RoundedWeights(model, "float32").used():
        assert {value.dtype for value in model.parameters()} == {torch.float32}
