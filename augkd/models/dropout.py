"""Dropout on a CPU with random numbers that cost a fifth of PyTorch's.

Drawing the masks was 9 % of a training step of 160 texts of 12 tokens (bf16, two MiniLM layers): PyTorch draws a float
for each value. Here each value takes 16 bits of NumPy's SFC64, seeded for each mask by a number from PyTorch's
generator, so that a checkpoint's random state still decides all masks. The rate is rounded to 1/65,536.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

_STEPS = 1 << 16  # of the rate
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of a value


def dropout(values: Tensor, rate: float) -> Tensor:
    """`values` with a share of `rate` set to 0 and the others scaled up, in train mode; values of any shape."""
    threshold = round(rate * _STEPS)
    if threshold == 0:
        return values
    if values.device.type != "cpu" or threshold == _STEPS:
        return nn.functional.dropout(values, rate)
    dropped: Tensor = _Dropout.apply(values, threshold)  # type: ignore[no-untyped-call]
    return dropped


def keep_mask(shape: torch.Size, threshold: int) -> npt.NDArray[np.bool_]:
    """True with probability 1 − threshold / 65,536; the same for the same state of PyTorch's generator."""
    seed = int(torch.empty((), dtype=torch.long).random_())
    words = np.random.Generator(np.random.SFC64(seed)).integers(0, 1 << 64, -(-shape.numel() // 4), dtype=np.uint64)
    return (words.view(np.uint16)[: shape.numel()] >= threshold).reshape(shape)


def _factors(mask: npt.NDArray[np.bool_], scale: float, kind: torch.dtype) -> Tensor:
    """`scale` where `mask` is true, else 0: the product of the mask and the bits of `scale`, a third of the time."""
    bits = torch.tensor(scale, dtype=kind).view(_BITS[kind.itemsize]).numpy()
    return torch.from_numpy(np.multiply(mask, bits)).view(kind)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, threshold: int) -> Tensor:
        factors = _factors(keep_mask(values.shape, threshold), _STEPS / (_STEPS - threshold), values.dtype)
        ctx.save_for_backward(factors)  # in the precision of the values, as PyTorch does
        return values * factors

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (factors,) = ctx.saved_tensors
        return gradients[0] * factors, None


class Dropout(nn.Module):
    """Stands in for an `nn.Dropout`."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p  # the name that models read it by

    def forward(self, values: Tensor) -> Tensor:  # any shape
        """Drops in train mode only."""
        return dropout(values, self.p) if self.training else values


@contextmanager
def fast_dropout(model: nn.Module) -> Iterator[None]:
    """While open, the dropout of `model` draws its masks as above; nothing else of it changes."""
    replaced: list[tuple[nn.Module, str, nn.Dropout]] = []
    for parent in model.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Dropout and not child.inplace:
                replaced.append((parent, name, child))
    for parent, name, child in replaced:
        setattr(parent, name, Dropout(child.p).train(child.training))
    try:
        yield
    finally:
        for parent, name, child in replaced:
            setattr(parent, name, child.train(parent.training))


@contextmanager
def dropout_of(model: nn.Module, rate: float | None) -> Iterator[None]:
    """While open, all dropout in `model` has this rate, that of attention weights too; None: it keeps its own.

    The configuration stays as it is: it tells how the model was made, and what a later fine-tuning starts with.
    """
    own = [] if rate is None else list(_rates(model))
    for module, name, _ in own:
        setattr(module, name, rate)
    try:
        yield
    finally:
        for module, name, value in own:
            setattr(module, name, value)


def _rates(model: nn.Module) -> Iterator[tuple[nn.Module, str, float]]:
    """The modules of `model` that drop, with the name and the value of their rate."""
    for module in model.modules():
        for name, value in vars(module).items():
            is_rate = name.endswith("dropout") or (name == "p" and "Dropout" in type(module).__name__)
            if is_rate and isinstance(value, int | float):  # nn.LSTM and ModernBERT's attention have it as an attribute
                yield module, name, value
