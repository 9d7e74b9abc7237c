"""Weights rounded to bf16 once, for the passes of a model that does not change between them.

Autocast rounds the weights of every linear layer in every pass. Where a batch is small that is much of the time: of a
MiniLM's 39 ms for 32 questions 10, of the 75 ms in which it fills in masked tokens 17. The products are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from augkd.models.devices import uses_bf16


class RoundedWeights:
    """The linear layers' parameters of a model in bf16, as they are now: make another when the model has changed."""

    def __init__(self, model: nn.Module, precision: str):
        """Copies the parameters of every plain linear layer; others are rounded in each pass, as ever.

        None is copied where the model is not computed in bf16 (`uses_bf16`).
        """
        layers = [layer for layer in model.modules() if type(layer) is nn.Linear]
        self._layers = [
            (layer, {name: _rounded(value) for name, value in layer.named_parameters(recurse=False)})
            for layer in layers
            if uses_bf16(precision, layer.weight.device)
        ]

    @contextmanager
    def used(self) -> Iterator[None]:
        """While open, the model's linear layers have these; for passes under autocast to bf16 only."""
        own = [(layer, dict(layer.named_parameters(recurse=False))) for layer, _ in self._layers]
        _put(self._layers)
        try:
            yield
        finally:
            _put(own)


def _rounded(value: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(value.detach().to(torch.bfloat16), requires_grad=False)


def _put(layers: list[tuple[nn.Linear, dict[str, nn.Parameter]]]) -> None:
    for layer, parameters in layers:
        for name, value in parameters.items():
            setattr(layer, name, value)
