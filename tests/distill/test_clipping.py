"""Clipping gradients is PyTorch's, to the bit, also where nothing is clipped."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from augkd.distill.clipping import clip_gradients


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
