"""Which weights of a module are not finite: nan or infinite after a training that diverged."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn


def not_finite(module: nn.Module) -> Iterator[str]:
    """The names of the weights that hold a value that is not finite."""
    named = {name: tensor for name, tensor in module.named_parameters() if tensor.is_floating_point()}
    if not named:
        return
    finite = torch.stack([tensor.detach().isfinite().all() for tensor in named.values()])  # waits for a GPU once
    for name, good in zip(named, finite.tolist(), strict=True):
        if not good:
            yield name
