"""Clipping gradients is PyTorch's, to the bit, also where nothing is clipped."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from augkd.distill.clipping import clip_gradients
from augkd.models.trimmed_embedding import TrimmedEmbedding, rows_with_gradient


@pytest.mark.parametrize("size", [0.5, 1.0 - 5e-7, 1.0, 1.0 + 1e-6, 3.0])
def test_gradients_are_those_that_pytorch_clips(size: float) -> None:
    torch.manual_seed(0)
    gradient = torch.randn(4, 3)
    ours, theirs = ([nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(2))] for _ in range(2))
    for weights in (ours, theirs):
        weights[0].grad = gradient * (size / gradient.norm())  # the other one has none
    norm = clip_gradients(ours, 1.0)
    assert torch.equal(norm, nn.utils.clip_grad_norm_(theirs, 1.0))
    assert ours[0].grad is not None
    assert theirs[0].grad is not None
    assert torch.equal(ours[0].grad, theirs[0].grad)
    assert ours[1].grad is None


@pytest.mark.parametrize("most", [0.01, 1e6])
def test_of_a_trimmed_embedding_the_rows_looked_up_are_all_that_is_scaled(
    most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    embedding = TrimmedEmbedding(nn.Embedding(50, 8), torch.arange(0, 50, 2)).train()
    model = nn.Sequential(embedding, nn.Linear(8, 3))
    for batch in ([2, 4, 4, 40], [6]):  # two passes of one step; then what an earlier step left is cleared
        model.zero_grad()
        for id_ in batch:
            model(torch.tensor([[id_]])).square().sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    expected = [nn.Parameter(torch.zeros_like(parameter)) for parameter in model.parameters()]
    for parameter, gradient in zip(expected, gradients, strict=True):
        assert gradient is not None
        parameter.grad = gradient.clone()

    rows = rows_with_gradient(embedding.weight)
    assert rows is not None
    assert rows.tolist() == [3]
    norm = clip_gradients(list(model.parameters()), most)
    torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(expected, most))
    for parameter, other in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, other.grad)

    monkeypatch.setattr("augkd.models.trimmed_embedding.is_initialized", lambda: True)
    assert rows_with_gradient(embedding.weight) is None, "other processes add theirs"
